package ginlimit

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/ginlimit/ginlimit/backend"
)

const (
	maxWaiting    = 1024        // requests that a limiter holds
	maxWaitingKey = 128         // of them, with one key
	askAgain      = time.Second // in case something is given back that nobody here knows of
)

// waitList is the requests that a limiter holds. A nil waitList holds none, the zero waitList is
// empty.
type waitList struct {
	mu      sync.Mutex
	lines   map[string]*line
	total   int
	bySize  [maxWaitingKey + 1]*line // of the lines with so many places, the first
	longest int                      // places of the longest line
}

// line is the requests with one key that wait, in the order in which they came: the channel has one
// token, which goes from each to the next, and only the request that holds it charges.
type line struct {
	turn   chan struct{}
	again  chan struct{} // the first is to ask again
	limits []Limit       // of the last that joined
	places []*place
	units  int64 // what they cost

	before, next *line // of the lines with as many places
}

// place is that of one request.
type place struct {
	line *line
	cost int64
	lost chan struct{} // closed if the place was given to another key
}

// attempt is a decision that can be made again.
type attempt interface {
	// take charges what is asked for, if it fits, and returns how long that has to wait: 0 if there
	// is nothing to wait for, and negative if it never fits.
	take() time.Duration
	// look refuses, with the figures of the moment, and reports whether they could be had.
	look() bool
}

// single is an attempt of one limiter.
type single struct {
	l   *Limiter
	ctx context.Context
	d   *Decision
}

func (s *single) take() time.Duration {
	if s.l.take(s.ctx, s.d); s.d.Err != nil || s.d.Allowed {
		return 0
	}
	return s.d.RetryAfter
}

// guessed reports whether the wait of a refusal is a convention: a place in flight may be free
// sooner, or later.
func guessed(d *Decision) bool {
	return !d.Allowed && d.Limit.Algorithm == backend.Concurrency && !d.Result.Banned() && d.RetryAfter > 0
}

func (s *single) look() bool {
	s.l.peek(s.ctx, s.d)
	return s.d.Err == nil
}

// waitList returns the lines of the limiter.
func (l *Limiter) waitList() *waitList {
	if w := l.waiting.Load(); w != nil {
		return w
	}
	l.waiting.CompareAndSwap(nil, new(waitList))
	return l.waiting.Load()
}

// takeOrWait asks the backend, and holds a request that it refuses until it fits, as WithMaxWait
// says, unless the client is gone.
func (l *Limiter) takeOrWait(ctx context.Context, gone <-chan struct{}, d *Decision) {
	a := &single{l, ctx, d}
	if !l.waitList().has(d.Key, d.Limits) || d.Cost == 0 || neverFits(d) {
		if wait := a.take(); wait <= 0 || wait > l.maxWait && !guessed(d) || d.Cost == 0 {
			return
		}
	} else if !a.look() {
		return
	}
	_ = l.hold(gone, d, a, l.maxWait)
}

// errFull is what hold returns where a line has no place.
var errFull = errors.New("ginlimit: too many wait for this key, or for this limiter; ask for less at a time")

// hold has d stand in its key's line, for up to longest, until a has nothing to wait for. It
// returns an error if d got no place, or lost it.
func (l *Limiter) hold(gone <-chan struct{}, d *Decision, a attempt, longest time.Duration) error {
	w := l.waitList()
	p := w.join(d, func(units int64) bool {
		d.RetryAfter = max(d.RetryAfter, eta(d, units))
		return d.RetryAfter <= longest || guessed(d)
	})
	if p == nil {
		return errFull
	}
	defer w.leave(d.Key, p)
	start, spent := time.Now(), d.Elapsed
	defer func() { d.Waited = time.Since(start) - (d.Elapsed - spent) }()
	end := time.NewTimer(longest)
	defer end.Stop()
	select {
	case <-p.line.turn:
		defer func() { p.line.turn <- struct{}{} }()
	case <-end.C:
		a.look()
		return nil
	case <-p.lost:
		a.look()
		return errFull
	case <-gone:
		return nil
	}
	for {
		wait, left := a.take(), longest-time.Since(start)
		if wait <= 0 || left <= 0 || wait > left && !guessed(d) {
			return nil
		}
		fits := time.NewTimer(min(wait, askAgain, left))
		select {
		case <-fits.C:
		case <-p.line.again:
			fits.Stop()
		case <-p.lost:
			fits.Stop()
			return errFull
		case <-gone:
			fits.Stop()
			return nil
		}
	}
}

// Wait is [Limiter.Allow] that waits until cost fits: for calls to a service that has a limit.
// Callers with one key go on in the order in which they came, together with the requests that
// [WithMaxWait] holds. Only one of them asks the backend at a time. Decision.Waited says how long
// it took.
//
// Besides the errors of Allow, Wait returns one if ctx ends before its turn comes, with the
// context's error in its chain. It also returns one if cost is above a limit's capacity, and if 128
// callers wait for the key already, or 1,024 for the limiter. Then the Decision is the last
// refusal, and nothing is charged. Decision.Passes applies the failure policy, as it does after
// Allow.
func (l *Limiter) Wait(ctx context.Context, key string, cost int64, limits ...Limit) (d Decision, err error) {
	l.begin(&d)
	if l.replace(&d, limits) && l.keyed(&d, key, nil) && l.costs(&d, cost) {
		err = l.waitFor(ctx, &d)
	}
	l.observe(ctx, &d)
	if d.Err != nil {
		err = d.Err
	}
	return d, err
}

func (l *Limiter) waitFor(ctx context.Context, d *Decision) error {
	if ctx.Err() != nil {
		return fmt.Errorf("ginlimit: waiting for a cost of %d: %w", d.Cost, context.Cause(ctx))
	}
	a := &single{l, ctx, d}
	if neverFits(d) || d.Cost == 0 || !l.waitList().has(d.Key, d.Limits) {
		switch wait := a.take(); {
		case d.Err != nil || d.Allowed:
			return nil
		case wait < 0:
			return fmt.Errorf("ginlimit: a cost of %d never fits limit %q, %v", d.Cost, d.Limit.Name, d.Limit)
		}
	}
	err := l.hold(ctx.Done(), d, a, math.MaxInt64)
	if err == nil && !d.Allowed && d.Err == nil {
		err = fmt.Errorf("ginlimit: waiting for a cost of %d: %w", d.Cost, context.Cause(ctx))
	}
	return err
}

// peek refuses, with the figures of the moment: a request that others with its key came before must
// not take what they wait for.
func (l *Limiter) peek(ctx context.Context, d *Decision) {
	cost := d.Cost
	d.Cost = 0
	l.take(ctx, d)
	d.Cost, d.Allowed = cost, false
}

func neverFits(d *Decision) bool {
	for i := range d.Limits {
		if d.Cost > d.Limits[i].Capacity() {
			return true
		}
	}
	return false
}

// eta returns how long it is until units fit, by the figures of d. It is 0 if that depends on more
// than them.
func eta(d *Decision, units int64) time.Duration {
	for i := range d.Limits {
		if d.Limits[i].Algorithm != backend.TokenBucket {
			return 0
		}
	}
	return untilFits(d, units)
}

// has reports whether anybody waits for key under these limits. A caller that has others, after an
// upgrade, need not wait for those that came before it.
func (w *waitList) has(key string, limits []Limit) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	ln := w.lines[key]
	return ln != nil && slices.Equal(ln.limits, limits)
}

// join adds d to its key's line and returns its place, or nil if the line is full, or if fits
// returns false for the units that all in the line cost, d's among them. If all lines together are
// full, d gets the last place of the longest, provided that its own stays the shorter of the two.
func (w *waitList) join(d *Decision, fits func(units int64) bool) *place {
	w.mu.Lock()
	defer w.mu.Unlock()
	ln := w.lines[d.Key]
	if ln == nil {
		ln = &line{turn: make(chan struct{}, 1), again: make(chan struct{}, 1)}
		ln.turn <- struct{}{}
	}
	if !fits(ln.units+d.Cost) || len(ln.places) == maxWaitingKey {
		return nil
	}
	if w.total == maxWaiting {
		if len(ln.places)+1 >= w.longest {
			return nil
		}
		longest := w.bySize[w.longest]
		last := longest.places[len(longest.places)-1]
		close(last.lost)
		w.remove(last)
	}
	if w.lines == nil {
		w.lines = make(map[string]*line)
	}
	w.lines[d.Key] = ln
	ln.limits = d.Limits
	p := &place{ln, d.Cost, make(chan struct{})}
	w.resize(ln, append(ln.places, p))
	ln.units += d.Cost
	w.total++
	return p
}

// leave gives a place back, unless another key took it.
func (w *waitList) leave(key string, p *place) {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-p.lost:
		return
	default:
	}
	if w.remove(p); len(p.line.places) == 0 {
		delete(w.lines, key)
	}
}

// remove takes a place out of its line.
func (w *waitList) remove(p *place) {
	i := slices.Index(p.line.places, p)
	w.resize(p.line, slices.Delete(p.line.places, i, i+1))
	p.line.units -= p.cost
	w.total--
}

// resize gives a line other places, one more or one less, and moves it to the lines of that size.
func (w *waitList) resize(ln *line, places []*place) {
	if size := len(ln.places); size > 0 {
		if ln.before != nil {
			ln.before.next = ln.next
		} else {
			w.bySize[size] = ln.next
		}
		if ln.next != nil {
			ln.next.before = ln.before
		}
	}
	ln.places, ln.before, ln.next = places, nil, nil
	if size := len(places); size > 0 {
		if ln.next = w.bySize[size]; ln.next != nil {
			ln.next.before = ln
		}
		w.bySize[size] = ln
		w.longest = max(w.longest, size)
	}
	for w.longest > 0 && w.bySize[w.longest] == nil {
		w.longest--
	}
}

// wake makes the first in a key's line ask again, because something was given back.
func (w *waitList) wake(key string) {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if ln := w.lines[key]; ln != nil {
		select {
		case ln.again <- struct{}{}:
		default:
		}
	}
}
