// Package storelog writes to the log that a store refuses to decide, so that limiters which let
// everything pass meanwhile say so.
//
// A store that is silent is the matter of package gate. This one is for a store that answers, and
// whose answer is no: it denies access, is full, read-only, or not set up.
package storelog

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/internal/storeerr"
)

// code is the code of the warning, and of the line that says that it is over.
const code = "GINLIMIT007"

// Decider is who decides where a store cannot. The zero value is not told whether there is a second
// backend.
type Decider struct{ second atomic.Bool }

// Second says that it is a second backend.
func (d *Decider) Second() { d.second.Store(true) }

// String returns the sentence that a log has of it.
func (d *Decider) String() string {
	if d.second.Load() {
		return "The second backend decides instead"
	}
	return "The failure policy of each limiter decides instead, or the second backend of a Fallback"
}

// Log is the log of one server. Its methods may be called concurrently; its exported fields must
// not be changed after that.
type Log struct {
	// Calls is what fails: decisions, unless it is set to something else.
	Calls string
	// Meanwhile says what that means.
	Meanwhile func() string
	// Quiet is the time without a failure of a kind after which a success ends it: a minute. A
	// store can refuse some calls and serve others, such as one that is nearly out of memory, or
	// has one row that is not ours. Each success would otherwise end the failure, and each call
	// might be a line of the log.
	Quiet time.Duration

	log     func() *slog.Logger
	server  string
	failing atomic.Bool // kinds is not empty
	mu      sync.Mutex
	kinds   map[string]*failure // by kind; guarded by mu
}

type failure struct{ first, last time.Time }

// New returns the Log of a server of a store, such as "Redis" at "localhost:6379". In a cluster
// each server has one.
func New(log func() *slog.Logger, store, server string) *Log {
	return &Log{
		Calls:     "decisions by " + store,
		Meanwhile: new(Decider).String,
		Quiet:     time.Minute,
		log:       log, server: server, kinds: map[string]*failure{},
	}
}

// Failed says that a call failed because the server refused it. The first failure of a kind is a
// warning; those after it are not, until it is over. The remedy is that of the reason in err's
// chain, unless it is given. Neither err nor the remedy may quote a caller's key.
func (l *Log) Failed(err error, remedy string) {
	now, kind := time.Now(), backend.ErrorKind(err)
	l.mu.Lock()
	f := l.kinds[kind]
	first := f == nil
	if first {
		f = &failure{first: now}
		l.kinds[kind] = f
		l.failing.Store(true)
	}
	f.last = now
	l.mu.Unlock()
	if !first {
		return
	}
	what := "the server refuses"
	if r := storeerr.Of(err); r != nil {
		what = r.Text()
		if remedy == "" {
			remedy = r.Remedy()
		}
	}
	if remedy == "" {
		remedy = "the cause says what the server objects to"
	}
	l.log().Warn("ginlimit: "+code+": "+l.Calls+" fail: "+what+"; "+remedy+". "+l.Meanwhile(),
		"code", code, "server", l.server, "kind", kind, "cause", storeerr.Cause(err).Error(), "remedy", remedy)
}

// Worked says that a call was served which wrote to the server. A call that only reads shows less:
// a replica serves those. It costs one atomic load while nothing fails.
func (l *Log) Worked() {
	if l.failing.Load() {
		l.end()
	}
}

// end writes that failures are over, as far as they are.
func (l *Log) end() {
	now := time.Now()
	over := map[string]time.Duration{}
	l.mu.Lock()
	for kind, f := range l.kinds {
		if now.Sub(f.last) >= l.Quiet {
			over[kind] = f.last.Sub(f.first)
			delete(l.kinds, kind)
		}
	}
	l.failing.Store(len(l.kinds) > 0)
	l.mu.Unlock()
	for kind, lasted := range over {
		l.log().Info("ginlimit: "+code+": "+l.Calls+" no longer fail",
			"code", code, "server", l.server, "kind", kind, "after", lasted.Round(time.Millisecond))
	}
}
