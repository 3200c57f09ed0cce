package ginlimit

import (
	"context"
	"sync"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/ginlimit/ginlimit/backend"
)

// flights is the requests of a limiter that hold units of a limit of requests in flight. While
// there are any, one timer renews what they hold.
type flights struct {
	mu    sync.Mutex
	first *flight
	n     int64
	timer *time.Timer
}

// flight is one of them.
type flight struct {
	before, next *flight
	renewAt      time.Time
	half         time.Duration // of the shortest Period
	key          string        // as the backend knows it
	cost         int64
	limits       []Limit

	mu    sync.Mutex // also held while it is renewed
	taken Result
	over  bool
}

// renewers is how many flights of a limiter are renewed at a time.
const renewers = 16

// holds reports whether a decision holds units until the request ends.
func (p *policy) holds(d *Decision) bool {
	return p.hold > 0 && d.Err == nil && d.Allowed && d.Cost > 0 && !d.notCharged
}

// board begins the flight of a request, if its decision holds anything.
func (l *Limiter) board(r *record) {
	if !r.policy.holds(&r.Decision) {
		return
	}
	half := r.policy.hold / 2
	f := &flight{renewAt: time.Now().Add(half), half: half, key: l.backendKey(r.Key), cost: r.Cost, limits: l.charged(&r.Decision), taken: r.Result}
	r.flight = f
	fs := &l.flights
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f.next = fs.first; f.next != nil {
		f.next.before = f
	}
	fs.first = f
	if fs.n++; fs.timer == nil {
		fs.timer = time.AfterFunc(half, l.renew)
	}
}

// end ends a flight, and returns what it was charged, as it is to be settled. After the first time
// nothing is held. It may be called on nil.
func (l *Limiter) end(f *flight, taken Result) Result {
	if f == nil {
		return taken
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.over {
		return taken.WithReleased()
	}
	f.over = true
	fs := &l.flights
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.n--; f.before != nil {
		f.before.next = f.next
	} else {
		fs.first = f.next
	}
	if f.next != nil {
		f.next.before = f.before
	}
	return f.taken
}

// renew renews the flights that have lasted for half a Period, and sets the timer again if there
// are any.
func (l *Limiter) renew() {
	fs := &l.flights
	fs.mu.Lock()
	now, soonest := time.Now(), time.Time{}
	var due []*flight
	for f := fs.first; f != nil; f = f.next {
		if !f.renewAt.After(now) {
			due = append(due, f)
			f.renewAt = now.Add(f.half)
		}
		if soonest.IsZero() || f.renewAt.Before(soonest) {
			soonest = f.renewAt
		}
	}
	if fs.timer = nil; !soonest.IsZero() {
		fs.timer = time.AfterFunc(soonest.Sub(now), l.renew)
	}
	fs.mu.Unlock()
	var wg sync.WaitGroup
	places := make(chan struct{}, renewers)
	for _, f := range due {
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			l.renewOne(f)
		})
	}
	wg.Wait()
}

// renewOne renews a flight. If that fails its units are held for what is left of the Period, in
// which it is tried once more.
func (l *Limiter) renewOne(f *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if b, ok := l.backend.(backend.Renewer); ok && !f.over {
		if taken, err := b.Renew(context.Background(), f.key, f.taken, f.cost, f.limits...); err == nil {
			f.taken = taken
		}
	}
}

// land gives back what a request still holds once its handlers have ended, in whatever way.
func (l *Limiter) land(c *gin.Context, r *record) {
	if r.flight == nil {
		return
	}
	taken := l.end(r.flight, r.Result)
	if taken.Released() {
		return
	}
	// If it fails the units come back after a Period.
	_ = l.backend.Settle(context.WithoutCancel(c.Request.Context()), r.flight.key, taken, r.Cost, r.Cost, r.flight.limits...)
	l.waiting.Load().wake(r.Key)
}

// Name returns the limiter's name: that of WithName, or "default".
func (l *Limiter) Name() string { return l.name }

// InFlight returns how many requests hold units of the limiter in this process, for a gauge.
func (l *Limiter) InFlight() int64 {
	l.flights.mu.Lock()
	defer l.flights.mu.Unlock()
	return l.flights.n
}
