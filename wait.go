package ginlimit

import (
	"context"
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

// waitList is who waits for what. The zero waitList is empty.
type waitList struct {
	mu    sync.Mutex
	lines map[string]*line
	total int
}

// line is the requests with one key that wait, in the order in which they came: the channel has one token, which
// goes from each to the next, and only who holds it charges.
type line struct {
	turn    chan struct{}
	again   chan struct{} // the first is to ask again
	limits  []Limit       // of the last that joined
	waiting int
	units   int64 // what they cost
}

// takeOrWait asks the backend, and holds a request that it refuses until it fits, as WithMaxWait says, unless the
// client is gone.
func (l *Limiter) takeOrWait(ctx context.Context, gone <-chan struct{}, d *Decision) {
	if !l.wait.has(d.Key, d.Limits) || d.Cost == 0 || neverFits(d) {
		l.take(ctx, d, l.timed)
		if d.Err != nil || d.Allowed || d.Cost == 0 || d.RetryAfter < 0 || d.RetryAfter > l.maxWait {
			return
		}
	} else if l.look(ctx, d); d.Err != nil {
		return
	}
	ln := l.wait.join(d, func(units int64) bool {
		d.RetryAfter = max(d.RetryAfter, eta(d, units))
		return d.RetryAfter <= l.maxWait
	})
	if ln == nil {
		return
	}
	defer l.wait.leave(d.Key, d.Cost, ln)
	start, spent := time.Now(), d.Elapsed
	defer func() { d.Waited = time.Since(start) - (d.Elapsed - spent) }()
	end := time.NewTimer(l.maxWait)
	defer end.Stop()
	select {
	case <-ln.turn:
		defer func() { ln.turn <- struct{}{} }()
	case <-end.C:
		l.look(ctx, d)
		return
	case <-gone:
		return
	}
	for {
		l.take(ctx, d, l.timed)
		if left := l.maxWait - time.Since(start); d.Err != nil || d.Allowed || d.RetryAfter < 0 || d.RetryAfter > left {
			return
		}
		fits := time.NewTimer(min(d.RetryAfter, askAgain))
		select {
		case <-fits.C:
		case <-ln.again:
			fits.Stop()
		case <-gone:
			fits.Stop()
			return
		}
	}
}

// look refuses, with the figures of the moment: a request that others with its key came before must not take what
// they wait for.
func (l *Limiter) look(ctx context.Context, d *Decision) {
	cost := d.Cost
	d.Cost = 0
	l.take(ctx, d, l.timed)
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

// eta returns how long it is until so many units fit, by the figures of d. It is 0 if that depends on more than them.
func eta(d *Decision, units int64) time.Duration {
	for i := range d.Limits {
		if d.Limits[i].Algorithm != backend.TokenBucket {
			return 0
		}
	}
	if d.Limit.IsUnlimited() {
		return 0
	}
	over := float64(units-d.Limit.Capacity()) * float64(d.Limit.Period) / float64(d.Limit.Count)
	return d.ResetAfter + time.Duration(min(over, float64(backend.MaxRefill)))
}

// has reports whether anybody waits for key under these limits. Who has others, after an upgrade, need not wait for those
// that came before it.
func (w *waitList) has(key string, limits []Limit) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	ln := w.lines[key]
	return ln != nil && slices.Equal(ln.limits, limits)
}

// join returns the line of d's key with one more place in it, or nil if it is full, or if fits says so of the units that
// all in it cost, the new one's among them.
func (w *waitList) join(d *Decision, fits func(units int64) bool) *line {
	w.mu.Lock()
	defer w.mu.Unlock()
	ln := w.lines[d.Key]
	if ln == nil {
		ln = &line{turn: make(chan struct{}, 1), again: make(chan struct{}, 1)}
		ln.turn <- struct{}{}
	}
	if !fits(ln.units+d.Cost) || w.total == maxWaiting || ln.waiting == maxWaitingKey {
		return nil
	}
	if w.lines == nil {
		w.lines = make(map[string]*line)
	}
	w.lines[d.Key] = ln
	ln.limits = d.Limits
	ln.waiting++
	ln.units += d.Cost
	w.total++
	return ln
}

func (w *waitList) leave(key string, cost int64, ln *line) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.total--
	ln.units -= cost
	if ln.waiting--; ln.waiting == 0 {
		delete(w.lines, key)
	}
}

// wake makes the first in a key's line ask again, because something was given back.
func (w *waitList) wake(key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if ln := w.lines[key]; ln != nil {
		select {
		case ln.again <- struct{}{}:
		default:
		}
	}
}
