// Package gate stands between a backend and its server: it bounds how many calls are under way and
// how long each takes, and lets none through while the server does not answer.
//
// A gate measures time in ticks, tenths of what a call has. A tick that comes late counts as one
// all the same, and before each tick those goroutines run that are ready to. So a process that
// stands still, or has more to do than it can, does not take the time that it lost itself for
// silence of the server.
//
// The calls that begin within one tick share a context. If nothing was heard of the server from the
// tick in which they began until their time is over, the server is silent.
//
// A circuit breaker of a library would do, but for two things: the bound and the breaker have to be
// one, because what waits at the bound when the breaker opens must not go through, and what waits
// for the server need not wait any longer; and a call through both costs 34 to 37 ns here, on a
// machine that others share, its time limit included (go test -bench Gate), where sony/gobreaker
// 2.4, which takes a mutex twice, cost 150 to 180 without a bound and a limit.
package gate

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ginlimit/ginlimit/internal/storeerr"
)

// ErrOpen is the error of calls that are not made, or not waited for, because the server does not
// answer.
var ErrOpen = storeerr.ErrBreakerOpen

// End tells how a call ended.
type End uint8

const (
	// Unknown says nothing about the server.
	Unknown End = iota
	// Answered says that the server answered, be it with an error.
	Answered
	// Failed says that the server could not be reached.
	Failed
	// Late says that the time of the call was over first.
	Late
)

const (
	// ticksOfACall is the time that a call has: up to one tick less.
	ticksOfACall = 10
	// maxFailures is the number of failures in a row that close the way.
	maxFailures = 5
	// closedTime is how long nobody goes through then. After it, one call at a time probes the
	// server.
	closedTime = 200 * time.Millisecond
)

// Gate stands before one server. Its methods may be called concurrently.
type Gate struct {
	timeout  time.Duration
	changed  func(open bool, cause error)
	made     time.Time
	slots    chan struct{}
	waiting  atomic.Int32 // for a slot
	failures atomic.Int32 // in a row
	until    atomic.Int64 // when the next probe may go through, by now(); 0 if anybody may

	clock    atomic.Uint64 // in ticks; it stands still while no call has time left
	heard    atomic.Uint64 // the tick in which something was last heard of the server
	answered atomic.Uint64 // the tick in which a call was last answered

	current atomic.Pointer[budget] // of calls that begin now; nil if there is none in this tick
	mu      sync.Mutex
	running []*budget   // that are not over, oldest first; guarded by mu
	ticker  *time.Timer // guarded by mu; nil until the first call
}

// budget is the context of the calls that began in one tick.
type budget struct {
	born     uint64    // the tick
	deadline time.Time // for what knows no other clock: connections that are being made
	done     chan struct{}
	err      error        // set before done is closed
	calls    atomic.Int32 // under way
	failed   atomic.Bool  // the failure of its calls was counted
}

func (b *budget) Deadline() (time.Time, bool) { return b.deadline, true }
func (b *budget) Done() <-chan struct{}       { return b.done }
func (b *budget) Value(any) any               { return nil }
func (b *budget) Err() error {
	select {
	case <-b.done:
		return b.err
	default:
		return nil
	}
}

func (b *budget) end(err error) {
	b.err = err
	close(b.done)
}

// New returns a Gate that lets maxCalls through at a time, each for about timeout at most. changed,
// which may be nil, is told when the breaker opens, and why, and when it closes.
func New(maxCalls int, timeout time.Duration, changed func(open bool, cause error)) *Gate {
	g := &Gate{timeout: timeout, changed: changed, made: time.Now(), slots: make(chan struct{}, maxCalls)}
	g.clock.Store(1)
	return g
}

// now returns the time since g was made, never 0.
func (g *Gate) now() time.Duration { return time.Since(g.made) + 1 }

// Context returns the context of a call that begins now: it ends when the time of a call is over,
// or with [ErrOpen] when the breaker opens. Callers' own contexts do not count: a caller that gives
// up early must not get past a limit by it, and a charge that was sent is spent. Calls share
// contexts, so that it allocates ten times in the time of a call.
func (g *Gate) Context() context.Context {
	if b := g.current.Load(); b != nil {
		return b
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if b := g.current.Load(); b != nil {
		return b
	}
	b := &budget{born: g.clock.Load(), deadline: time.Now().Add(g.timeout), done: make(chan struct{})}
	g.running = append(g.running, b)
	g.current.Store(b)
	switch {
	case g.ticker == nil:
		g.ticker = time.AfterFunc(g.timeout/ticksOfACall, g.tick)
	case len(g.running) == 1: // the clock stood still
		g.ticker.Reset(g.timeout / ticksOfACall)
	}
	return b
}

// tick ends the contexts whose time is over. Before it ends those whose calls nobody answered it
// opens the breaker, if several wait: otherwise those that came later would wait for their whole
// time, too, to find out one by one.
func (g *Gate) tick() {
	began := time.Now()
	runtime.Gosched() // an answer that has come is heard first
	lag := time.Since(began)
	g.mu.Lock()
	now := g.clock.Add(1)
	g.current.Store(nil)
	silent := false
	for !silent && len(g.running) > 0 && now-g.running[0].born >= ticksOfACall {
		b := g.running[0]
		if silent = b.calls.Load() > 0 && g.heard.Load() <= b.born && g.waits() >= maxFailures && !g.Open(); !silent {
			g.running = g.running[1:]
			b.end(context.DeadlineExceeded)
		}
	}
	if len(g.running) > 0 {
		g.ticker.Reset(max(g.timeout/ticksOfACall, lag))
	}
	g.mu.Unlock()
	if silent {
		g.open(fmt.Errorf("nothing was heard of it for %v", g.timeout))
	}
}

// waits returns the number of calls that are under way or wait for a slot.
func (g *Gate) waits() int { return len(g.slots) + int(g.waiting.Load()) }

// Enter returns nil if the caller may go through; then it has to call Leave. It waits for its turn
// until ctx ends, which is one of Context.
func (g *Gate) Enter(ctx context.Context) error {
	if err := g.enter(ctx); err != nil {
		return err
	}
	ctx.(*budget).calls.Add(1)
	return nil
}

func (g *Gate) enter(ctx context.Context) error {
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
		return ctx.Err()
	}
	if err := g.pass(); err != nil {
		<-g.slots
		return err
	}
	return nil
}

// pass returns nil if the way is open, or if it was closed for long enough and the caller is the
// one to try it.
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

// Leave ends a call that entered under ctx. err is why it failed.
func (g *Gate) Leave(ctx context.Context, end End, err error) {
	ctx.(*budget).calls.Add(-1)
	<-g.slots
	g.Record(ctx, end, err)
}

// Record counts how a call ended that did not enter.
func (g *Gate) Record(ctx context.Context, end End, err error) {
	switch end {
	case Answered:
		g.Heard()
		if now := g.clock.Load(); g.answered.Load() != now {
			g.answered.Store(now)
		}
		if g.failures.Load() != 0 {
			g.failures.Store(0)
		}
		if g.until.Load() != 0 && g.until.Swap(0) != 0 && g.changed != nil {
			g.changed(false, nil)
		}
	case Failed:
		g.fail(ctx.(*budget), err)
	case Late:
		// If others were answered, the server answers, though not all in time.
		if b := ctx.(*budget); g.answered.Load() <= b.born {
			g.fail(b, fmt.Errorf("no call was answered within %v", g.timeout))
		}
	}
}

// Heard says that the server sent something. That is less than an answer, which may come too late
// for its call: a gate before a server that is heard opens only if calls fail.
func (g *Gate) Heard() {
	if now := g.clock.Load(); g.heard.Load() != now {
		g.heard.Store(now)
	}
}

// fail counts a failure. Calls that share a context are one together: they end all at once if their
// time is over, or if the connection breaks that carried them.
func (g *Gate) fail(b *budget, err error) {
	if b.failed.CompareAndSwap(false, true) && g.failures.Add(1) >= maxFailures {
		g.open(err)
	}
}

// open closes the way, and ends what waits for the server.
func (g *Gate) open(cause error) {
	if !g.until.CompareAndSwap(0, int64(g.now()+closedTime)) {
		return
	}
	g.mu.Lock()
	g.current.Store(nil)
	for _, b := range g.running {
		b.end(ErrOpen)
	}
	g.running = nil
	g.mu.Unlock()
	if g.changed != nil {
		g.changed(true, cause)
	}
}

// Calls returns the number of calls under way.
func (g *Gate) Calls() int { return len(g.slots) }

// Open reports whether the breaker is open.
func (g *Gate) Open() bool { return g.until.Load() != 0 }

// GaveUp reports whether err is the end of a context.
func GaveUp(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// Over reports whether ctx has ended, or its deadline has passed: a connection that knows the
// deadline may end first.
func Over(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && !time.Now().Before(deadline)
}
