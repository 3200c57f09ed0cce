package ginlimit

import (
	"context"
	"sync"
	"time"

	"github.com/ginlimit/ginlimit/backend"
)

const (
	maxWaiting    = 1024 // requests that a limiter holds
	maxWaitingKey = 128  // of them, with one key
)

// waitList is who waits for what. The zero waitList is empty.
type waitList struct {
	mu    sync.Mutex
	lines map[string]*line
	total int
}

// line is the requests with one key that wait, in the order in which they came: the channel has one token, which
// goes from each to the next, and only who holds it asks the backend.
type line struct {
	turn    chan struct{}
	waiting int
}

// takeOrWait asks the backend, and holds a request that it refuses until it fits, as WithMaxWait says.
func (l *Limiter) takeOrWait(ctx context.Context, d *Decision) {
	cost := d.Cost
	if l.wait.has(d.Key) { // no overtaking: look, but do not take
		d.Cost = 0
	}
	l.take(ctx, d)
	d.Cost, d.Allowed = cost, d.Allowed && d.Cost == cost
	if d.Err != nil || d.Allowed || cost == 0 || d.RetryAfter < 0 || d.RetryAfter > l.maxWait {
		return
	}
	start := time.Now()
	ln := l.wait.join(d.Key, func(ahead int) bool { return d.RetryAfter+pace(d.Limits, cost, ahead) <= l.maxWait })
	if ln == nil {
		l.take(ctx, d) // refused, or lucky
		return
	}
	defer l.wait.leave(d.Key, ln)
	end := time.NewTimer(l.maxWait)
	defer end.Stop()
	spent := d.Elapsed
	defer func() { d.Waited = time.Since(start) - (d.Elapsed - spent) }()
	select {
	case <-ln.turn:
		defer func() { ln.turn <- struct{}{} }()
	case <-end.C:
		l.take(ctx, d) // a last try
		return
	case <-ctx.Done():
		return
	}
	for {
		l.take(ctx, d)
		left := l.maxWait - time.Since(start)
		if d.Err != nil || d.Allowed || d.RetryAfter < 0 || d.RetryAfter > left {
			return
		}
		again := time.NewTimer(d.RetryAfter)
		select {
		case <-again.C:
		case <-ctx.Done():
			again.Stop()
			return
		}
	}
}

// pace returns how long so many requests of a cost take to pass, if all limits are token buckets; else 0.
func pace(limits []Limit, cost int64, requests int) time.Duration {
	var longest float64
	for _, lim := range limits {
		if lim.Algorithm != backend.TokenBucket || lim.Count == 0 {
			return 0
		}
		longest = max(longest, float64(requests)*float64(cost)*float64(lim.Period)/float64(lim.Count))
	}
	return time.Duration(min(longest, float64(backend.MaxRefill)))
}

// has reports whether anybody waits for key.
func (w *waitList) has(key string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lines[key] != nil
}

// join returns the line of a key with one more place in it, or nil if it is full, or fits says so of those ahead.
func (w *waitList) join(key string, fits func(ahead int) bool) *line {
	w.mu.Lock()
	defer w.mu.Unlock()
	ln := w.lines[key]
	if ln == nil {
		ln = &line{turn: make(chan struct{}, 1)}
		ln.turn <- struct{}{}
	}
	if w.total == maxWaiting || ln.waiting == maxWaitingKey || !fits(ln.waiting) {
		return nil
	}
	if w.lines == nil {
		w.lines = make(map[string]*line)
	}
	w.lines[key] = ln
	ln.waiting++
	w.total++
	return ln
}

func (w *waitList) leave(key string, ln *line) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.total--
	if ln.waiting--; ln.waiting == 0 {
		delete(w.lines, key)
	}
}
