// Package gate stands between a backend and its server: it bounds how many calls are under way and how long each takes,
// and lets none through while the server does not answer.
//
// A circuit breaker of a library would do, but for two things: the bound and the breaker have to be one, because what
// waits at the bound when the breaker opens must not go through, and what waits for the server need not wait any longer;
// and a call through both costs 100 to 160 ns here, on a machine that others share, its time limit included (go test -bench
// Gate), where sony/gobreaker 2.4, which takes a mutex twice, cost 150 to 180 without a bound and a limit.
package gate

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ginlimit/ginlimit/internal/storeerr"
)

// ErrOpen is the error of calls that are not made, or not waited for, because the server does not answer.
var ErrOpen = storeerr.ErrBreakerOpen

// End tells how a call ended.
type End uint8

const (
	// Answered says that the server answered, be it with an error.
	Answered End = iota
	// Failed says that the server could not be reached.
	Failed
	// Late says that the server did not answer in the time that calls have. That is a failure if nothing else was heard of it.
	Late
	// Unknown says nothing about the server: the caller gave up earlier.
	Unknown
	// Abandoned is Unknown of a call that is still on its way: the server has to answer it, though nobody waits for that.
	Abandoned
	// Unmade says that there was no need to call the server: if the caller was let through to probe it, it did not.
	Unmade
)

const (
	// maxFailures is the number of calls in a row that have to fail for the gate to close the way.
	maxFailures = 5
	// closedTime is how long nobody goes through then. After it, one call at a time probes the server.
	closedTime = 200 * time.Millisecond
)

// Gate stands before one server. Its methods may be called concurrently.
type Gate struct {
	timeout  time.Duration
	changed  func(open bool)
	made     time.Time
	slots    chan struct{}
	waiting  atomic.Int32 // for a slot, or for another's call
	failures atomic.Int32 // in a row
	left     atomic.Int32 // calls that were abandoned since the last answer; each keeps its slot
	asking   atomic.Bool  // somebody finds out whether the server answers
	until    atomic.Int64 // when the next probe may go through, by now(); 0 if anybody may
	silent   atomic.Int64 // when the call was made since which nothing was heard, by now(); 0 if there is none

	deadline atomic.Pointer[deadline] // the newest
	mu       sync.Mutex
	running  []*deadline // oldest first; guarded by mu
}

// deadline is a context that calls share.
type deadline struct {
	context.Context
	cancel context.CancelFunc
	made   time.Time
}

// New returns a Gate that lets maxCalls through at a time, each for at most timeout. changed, which may be nil, is told
// when the breaker opens and when it closes.
func New(maxCalls int, timeout time.Duration, changed func(open bool)) *Gate {
	return &Gate{timeout: timeout, changed: changed, made: time.Now(), slots: make(chan struct{}, maxCalls)}
}

// now returns the time since g was made, never 0.
func (g *Gate) now() time.Duration { return time.Since(g.made) + 1 }

// Limit returns ctx if that ends before the time that calls have, and ours is false, else a context that ends then, or when the
// breaker opens; that no longer ends with ctx: a charge that was sent is spent. It does not allocate for each call:
// calls share a context, which is made anew when it is a tenth of the time old. So a call gets nine tenths at least.
func (g *Gate) Limit(ctx context.Context) (limited context.Context, ours bool) {
	if _, ours := ctx.(*deadline); ours {
		return ctx, true // a call has its time once
	}
	now := time.Now()
	if end, ok := ctx.Deadline(); ok && end.Sub(now) < g.timeout {
		return ctx, false
	}
	d := g.deadline.Load()
	if d == nil || now.Sub(d.made) >= g.timeout/10 {
		d = g.newDeadline(now)
	}
	return d, true
}

func (g *Gate) newDeadline(now time.Time) *deadline {
	g.mu.Lock()
	defer g.mu.Unlock()
	if d := g.deadline.Load(); d != nil && now.Sub(d.made) < g.timeout/10 {
		return d
	}
	d := &deadline{made: now}
	d.Context, d.cancel = context.WithDeadline(context.Background(), now.Add(g.timeout))
	for len(g.running) > 0 && now.Sub(g.running[0].made) >= g.timeout {
		g.running = g.running[1:]
	}
	g.running = append(g.running, d)
	g.deadline.Store(d)
	// Those who share it would all lose their whole time if they had to find out one by one.
	time.AfterFunc(g.timeout*9/10, g.watch)
	return d
}

// watch opens the breaker if calls wait that can expect nothing.
func (g *Gate) watch() {
	if g.hangs() && len(g.slots)+int(g.waiting.Load()-g.left.Load()) >= maxFailures {
		g.open()
	}
}

// hangs reports whether nothing was heard for nearly the time that a call has, while calls waited: watch comes after nine
// tenths of it, and a call up to a tenth after its deadline was made.
func (g *Gate) hangs() bool {
	since := g.silent.Load()
	return since != 0 && g.now()-time.Duration(since) >= g.timeout*8/10
}

// judge returns what end says about the server. Calls share their deadlines, so that those that are under way at one end
// all at once, however little time was left for the last of them when they got a slot: while the server answers others, that
// says nothing about it.
func (g *Gate) judge(end End) End {
	switch {
	case end != Late:
		return end
	case g.hangs():
		return Failed
	}
	return Unknown
}

// Enter returns nil if the caller may go through; then it has to call Leave. It waits for its turn until ctx ends.
func (g *Gate) Enter(ctx context.Context) error {
	if err := g.EnterCached(ctx); err != nil {
		return err
	}
	if g.silent.Load() == 0 {
		g.silent.CompareAndSwap(0, int64(g.now())) // not when ctx was made: the caller may have waited for its turn since
	}
	return nil
}

// EnterCached is Enter for a call that may need no server: that nothing is heard while it is under way is no silence.
func (g *Gate) EnterCached(ctx context.Context) error {
	if err := g.pass(); err != nil {
		return err
	}
	select {
	case g.slots <- struct{}{}:
		return nil
	default:
	}
	g.waiting.Add(1)
	defer g.waiting.Add(-1)
	select {
	case g.slots <- struct{}{}:
	case <-ctx.Done():
		return g.Cause(ctx, ctx.Err())
	}
	if err := g.pass(); err != nil {
		<-g.slots
		return err
	}
	return nil
}

// pass returns nil if the way is open, or if it was closed for long enough and the caller is the one to try it.
func (g *Gate) pass() error {
	until := g.until.Load()
	if until == 0 {
		return nil
	}
	now := g.now()
	if int64(now) < until || !g.until.CompareAndSwap(until, int64(now+closedTime)) {
		return ErrOpen
	}
	return nil
}

// Wait counts n more, or fewer, who wait for what others ask: they can expect nothing either if the server is silent.
func (g *Gate) Wait(n int32) { g.waiting.Add(n) }

// Leave ends a call that entered. It reports true if nobody would learn whether the server answers, because so many calls
// were abandoned, or because those who are let through to probe it need not call it: then the caller has to find out, by a
// call of its own that has all the time of one, and to say so by Asked.
func (g *Gate) Leave(end End) (ask bool) {
	if end == Abandoned {
		return g.abandon()
	}
	end = g.judge(end) // with the slot still taken, or else the silence might be over
	<-g.slots
	if end != Answered && len(g.slots) == int(g.left.Load()) {
		g.silent.Store(0) // nobody waits any more
	}
	g.Record(end)
	return end == Unmade && g.until.Load() != 0 && g.asking.CompareAndSwap(false, true)
}

// abandon leaves the slot to the call, which the server still has, until any answer comes: answers come in the order of
// the calls. While the breaker is open it does not, because the probes need slots.
func (g *Gate) abandon() (ask bool) {
	left := g.left.Add(1)
	open := g.until.Load() != 0
	if open {
		g.free()
	}
	if len(g.slots) == int(g.left.Load()) {
		g.silent.Store(0)
	}
	return (open || left >= min(maxFailures, int32(cap(g.slots)))) && g.asking.CompareAndSwap(false, true)
}

// free gives the slots of abandoned calls to others.
func (g *Gate) free() {
	for range g.left.Swap(0) {
		<-g.slots
	}
}

// Asked ends the call that Leave asked for.
func (g *Gate) Asked(end End) {
	g.asking.Store(false) // first: who abandons a call and does not ask relies on the slots being freed here
	if (end == Failed || end == Late) && g.left.Load() > 0 {
		g.open() // nothing was heard meanwhile
	}
	g.Record(end)
	g.free()
}

// Record counts how a call ended that did not enter.
func (g *Gate) Record(end End) {
	switch g.judge(end) {
	case Answered:
		if g.silent.Load() != 0 {
			g.silent.Store(0)
		}
		if g.failures.Load() != 0 {
			g.failures.Store(0)
		}
		if g.left.Load() != 0 {
			g.free()
		}
		if g.until.Load() != 0 && g.until.Swap(0) != 0 && g.changed != nil {
			g.changed(false)
		}
	case Failed:
		if g.failures.Add(1) >= maxFailures {
			g.open()
		}
	case Unmade:
		if until := g.until.Load(); until != 0 {
			g.until.CompareAndSwap(until, int64(g.now())) // the next may probe
		}
	}
}

// open closes the way, and ends what waits for the server.
func (g *Gate) open() {
	if !g.until.CompareAndSwap(0, int64(g.now()+closedTime)) {
		return
	}
	g.mu.Lock()
	g.deadline.Store(nil)
	for _, d := range g.running {
		d.cancel()
	}
	g.running = nil
	g.mu.Unlock()
	g.free()
	if g.changed != nil {
		g.changed(true)
	}
}

// Calls returns the number of calls under way.
func (g *Gate) Calls() int { return len(g.slots) }

// Open reports whether the breaker is open.
func (g *Gate) Open() bool { return g.until.Load() != 0 }

// Cause returns what ended a call under a context of Limit that failed with err: ErrOpen if the breaker did.
func (g *Gate) Cause(ctx context.Context, err error) error {
	if _, ours := ctx.(*deadline); ours && errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return ErrOpen
	}
	return err
}
