package redisstore

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ginlimit/ginlimit/internal/gate"
	"github.com/ginlimit/ginlimit/internal/storelog"
)

// link is the way to the servers: a client, or how to make one.
type link struct {
	Config
	current atomic.Pointer[Client]
	servers atomic.Pointer[servers]
	shards  task                   // to tell the servers of a Cluster apart
	dial    func() (Client, error) // nil if the client is the caller's
	addrs   []string               // that dial knows
	instead storelog.Decider       // where the servers do not decide

	mu     sync.Mutex
	closed bool
	trying chan struct{} // closed when the attempt under way is over; nil if there is none
	err    error         // of the last attempt, or of a call that waited for the first
	told   time.Time     // when it was said that there is no connection
	again  time.Time     // when the next attempt may begin
}

// pause is the time between attempts to make a client.
const pause = 200 * time.Millisecond

func newLink(c Config) *link {
	l := &link{Config: c}
	l.servers.Store(&servers{all: []*server{l.newServer("")}})
	return l
}

// trip is one call: to the server that has a key, in the time that a call has.
type trip struct {
	*link
	op     string   // for its errors
	key    string   // as Redis has it
	more   []string // of a TakeAll, which has several
	client Client
	server *server
	ctx    context.Context // of the server's gate
}

// to begins a call for key. If there is no client yet it waits for one, in the time that the call
// has.
func (l *link) to(op, key string) (trip, error) {
	s := l.servers.Load().of(key)
	t := trip{link: l, op: op, key: key, server: s, ctx: s.gate.Context()}
	if client := l.current.Load(); client != nil {
		t.client = *client
		return t, nil
	}
	var err error
	t.client, err = l.wait(t.ctx, true)
	return t, l.unavailable(op, err)
}

// What a call is for, as its errors say it.
const (
	opTake       = "take"
	opTakeAll    = "take all"
	opSettle     = "settle"
	opRenew      = "renew"
	opBan        = "ban"
	opUsage      = "usage"
	opReset      = "reset"
	opTierLookup = "tier lookup"
	opTierSet    = "tier set"
	opTierDelete = "tier delete"
)

// A question asks the client something once. hit says that the client's cache had the answer.
type question func() (hit bool, err error)

// through asks q with a slot of the server's gate.
func (t *trip) through(q question) (err error) {
	g := t.server.gate
	if err = g.Enter(t.ctx); err != nil {
		return t.unavailable(t.op, err)
	}
	end := gate.Unknown // if the client panics
	defer func() { g.Leave(t.ctx, end, err) }()
	end, err = t.ask(q)
	return err
}

// ask asks q, and returns what came of it. What the server refused is in the log.
func (t *trip) ask(q question) (gate.End, error) {
	hit, err := q()
	if t.others(err) {
		hit, err = q()
	}
	if err == nil {
		if hit {
			return gate.Unknown, nil
		}
		return gate.Answered, nil
	}
	failed := t.unavailable(t.op, err)
	switch {
	case !t.unreachable(err):
		t.refusals().failed(failed)
		return gate.Answered, failed
	case errors.Is(err, t.Closed), errors.Is(err, gate.ErrOpen):
		return gate.Unknown, failed
	case gate.GaveUp(err) && gate.Over(t.ctx):
		return gate.Late, failed
	}
	return gate.Failed, failed // such as the dialer's time-out
}

// others reports whether err is the end of another call's time. A client such as rueidis connects,
// and reads a key through its cache, once for all that ask at the same time; all get what ended
// that for the first. A call that has time left may ask again, because nothing of it was sent.
func (t *trip) others(err error) bool {
	return err != nil && gate.GaveUp(err) && !dialing(err) && !gate.Over(t.ctx)
}

// refusals returns the log of what the server refuses; nil if the caller is the only one that
// minds.
func (t *trip) refusals() *refusals {
	switch t.op {
	case opTierLookup:
		return &t.server.lookups
	case opTierSet, opTierDelete:
		return nil
	}
	return &t.server.decisions
}

// worked says that the server did what it was asked for, and wrote, or that it said a tier.
func (t *trip) worked() { t.refusals().worked() }

// eval runs a script on the key, and returns what it replies. A server that does not know the
// script, because it is new, restarted or was flushed, gets the text. Nothing else is tried again:
// a call whose reply was lost may have charged.
func (t *trip) eval(c call) (reply string, err error) {
	err = t.through(func() (_ bool, err error) {
		for done := false; !done; {
			taught := t.server.taught.Load()
			reply, err = t.client.EvalSha(t.ctx, c.script.sha, t.key, t.more, c.args)
			done = !t.noScript(err)
			if !done {
				done, reply, err = t.teach(c, taught)
			}
		}
		return false, err
	})
	return reply, err
}

func (t *trip) noScript(err error) bool {
	if err == nil {
		return false
	}
	text, answered := t.Answer(err)
	return answered && strings.HasPrefix(text, "NOSCRIPT")
}

// teach sends the text of a script that the server does not know, and has it run. A text has up to
// 41 kB: of many calls at once, at a server that has just started, one sends it. teach reports
// false if another has done so since taught: then the script is asked for again.
func (t *trip) teach(c call, taught uint64) (done bool, reply string, err error) {
	s := t.server
	select {
	case s.teaching <- struct{}{}:
		defer func() { <-s.teaching }() // also if the client panics
	case <-t.ctx.Done():
		return true, "", t.ctx.Err()
	}
	if s.taught.Load() != taught {
		return false, "", nil
	}
	if reply, err = t.client.Eval(t.ctx, c.script.text, t.key, t.more, c.args); err == nil {
		s.taught.Add(1)
	}
	return true, reply, err
}

// reading is what a read found.
type reading struct {
	Value
	left time.Duration // for which the client's cache has it from now on, if that was not known before
}

// read is a GET through the client's cache, which keeps the value for up to ttl. A read that the
// server has to answer needs a slot of the gate, as every call, but which reads do is not known
// before. Those that the cache should have, as known says, are made without one, so that they do
// not wait for calls of the server. Few of them miss: a value is dropped when its key changes, or
// when the connection is lost, and then a new one has to be made first.
func (t *trip) read(ttl time.Duration, known bool) (r reading, err error) {
	fresh := t.server.gate.Open() // what the cache has says nothing of whether the server answers
	q := func() (bool, error) {
		cached := ttl
		if fresh {
			cached = 0
		}
		v, err := t.client.Get(t.ctx, t.key, cached)
		r = reading{Value: v}
		if v.Until > 0 && (!v.Hit || !known) {
			r.left = max(0, time.Until(time.UnixMilli(v.Until)))
		}
		return v.Hit, err
	}
	if !known || fresh {
		err = t.through(q)
		return r, err
	}
	end, err := t.ask(q)
	if !r.Hit {
		t.server.gate.Record(t.ctx, end, err)
	}
	return r, err
}

func (l *link) set(client Client) { l.current.Store(&client) }

// wait waits for the client until ctx ends; ours says that this is all the time that a call has.
// Once that was too short or an attempt failed, only those wait that begin one, because all others
// would lose their time too.
func (l *link) wait(ctx context.Context, ours bool) (Client, error) {
	l.mu.Lock()
	if client := l.current.Load(); client != nil { // made meanwhile
		l.mu.Unlock()
		return *client, nil
	}
	switch {
	case l.closed:
		l.mu.Unlock()
		return nil, l.Closed
	case l.err != nil && (l.trying != nil || time.Now().Before(l.again)):
		defer l.mu.Unlock()
		return nil, fmt.Errorf("%w: %w", gate.ErrOpen, l.err)
	case l.trying == nil:
		l.trying = make(chan struct{})
		go l.connect(l.trying)
	}
	trying := l.trying
	l.mu.Unlock()
	select {
	case <-trying:
	case <-ctx.Done():
		l.mu.Lock()
		if ours && l.err == nil && l.trying == trying && errors.Is(ctx.Err(), context.DeadlineExceeded) {
			l.fail(fmt.Errorf("no connection within %v: %w", l.Timeout, ctx.Err()))
		}
		l.mu.Unlock()
		return nil, ctx.Err()
	}
	if client := l.current.Load(); client != nil {
		return *client, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, l.Closed
	}
	return nil, l.err
}

// fail notes that there is no connection, and says so once. mu is held.
func (l *link) fail(err error) {
	l.err = err
	if l.told.IsZero() && !l.Ping { // which returns it
		l.told = time.Now()
		l.log().Warn("ginlimit: Redis cannot be reached. "+l.instead.String()+", until it can. See that the server runs, and check the URL "+
			"with its user and password; if it is only far away, raise "+l.Package+".WithTimeout and the URL's dial_timeout", "server", l.name(), "cause", err.Error(), "timeout", l.Timeout)
	}
}

// connect makes a client, or not; either ends by itself, by the time-outs of the client's options.
func (l *link) connect(done chan struct{}) {
	client, err := l.dial()
	l.mu.Lock()
	switch {
	case err != nil: // there may be a client, too
		l.fail(err)
		l.again = time.Now().Add(pause)
	case l.closed:
		l.err = l.Closed
	default:
		if !l.told.IsZero() {
			l.log().Info("ginlimit: Redis answers", "server", l.name(), "after", time.Since(l.told).Round(time.Millisecond))
		}
		l.err = nil
		l.set(client)
		client = nil
	}
	l.trying = nil
	close(done)
	l.mu.Unlock()
	if client != nil {
		client.Close() // not under the lock, because it takes a second if the server hangs
	}
}

// close closes the client if it is not the caller's. A call that comes later gets
// the library's error of that.
func (l *link) close() {
	if l.dial == nil {
		return
	}
	l.mu.Lock()
	client := l.current.Swap(nil)
	l.closed = true
	l.mu.Unlock()
	if client != nil {
		(*client).Close() // as in connect
	}
}

// failing reports whether there is no client because the last attempt to make one failed, or takes
// too long.
func (l *link) failing() bool {
	if l.current.Load() != nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err != nil
}

// name returns the address of the one server, or of one of several, always the same.
func (l *link) name() string {
	addrs := l.addrs
	if client := l.current.Load(); client != nil {
		addrs = (*client).Addrs()
	}
	if len(addrs) == 0 {
		return "redis"
	}
	return addrs[0]
}

// dialing reports whether err is of a connection that could not be made.
func dialing(err error) bool {
	var dial *net.OpError
	return errors.As(err, &dial)
}
