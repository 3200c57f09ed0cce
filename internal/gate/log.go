package gate

import (
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/ginlimit/ginlimit/internal/storeerr"
)

// Log writes to a log when the breaker before a server of a store opens, and when it closes.
type Log struct {
	Logger  func() *slog.Logger
	Store   string        // "Redis"
	Server  func() string // its address
	Timeout time.Duration // of a call
	Option  string        // that sets it

	Meanwhile func() string // says who decides while the breaker is open

	down atomic.Int64 // since when, in ns since 1970
}

// Changed is a function for New.
func (l *Log) Changed(open bool, cause error) {
	if open {
		l.down.Store(time.Now().UnixNano())
		l.Logger().Warn("ginlimit: "+l.Store+" does not answer, so that calls fail at once until it does. "+l.Meanwhile()+
			". See that the server runs and can be reached; if it is only slow or far away, raise "+l.Option, "server", l.Server(), "cause", storeerr.Cause(cause).Error(), "timeout", l.Timeout)
		return
	}
	l.Logger().Info("ginlimit: "+l.Store+" answers again", "server", l.Server(),
		"after", time.Since(time.Unix(0, l.down.Load())).Round(time.Millisecond))
}
