package main

import (
	"time"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/algorithm"
)

// The limit of every panel: count requests in a period.
const (
	count   = 100
	period  = 10 * time.Second
	second  = time.Second
	length  = 40 * time.Second // of a picture
	maxWait = 2 * time.Second  // of the leaky bucket
)

// traffic is a kind of traffic: requests with one key.
type traffic struct {
	file, title string
	top, mark   float64 // of the scale, in requests a second: its end, and how far apart the numbers are
	requests    func() []time.Duration
}

// No two requests of one kind, nor a request and the end of another's wait, fall on one microsecond: what comes first
// then would be up to the scheduler. That is what the odd intervals are for.
var traffics = []traffic{
	{"steady.svg", "Steady: 8 requests a second, which is below the limit", 20, 10, func() []time.Duration {
		return evenly(nil, 0, length, 125*time.Millisecond)
	}},
	{"edge.svg", "A burst at a window's edge: 200 requests between 9 s and 11 s, then 10 a second", 110, 50, func() []time.Duration {
		requests := evenly([]time.Duration{0}, 9*time.Second, 11*time.Second, 10_001*time.Microsecond)
		return evenly(requests, 11*time.Second, length, 100_001*time.Microsecond)
	}},
	{"overload.svg", "Overload: 30 requests a second, three times the limit", 36, 10, func() []time.Duration {
		return evenly(nil, 0, length, 33_334*time.Microsecond)
	}},
}

// evenly adds a request every so often, from an instant up to but not including another.
func evenly(requests []time.Duration, from, to, every time.Duration) []time.Duration {
	for t := from; t < to; t += every {
		requests = append(requests, t)
	}
	return requests
}

// limiter is a limit that decides, and how long a request may be held by it.
type limiter struct {
	name  string
	limit backend.Limit
	wait  time.Duration // WithMaxWait
}

var limiters = []limiter{
	{"token bucket", backend.Limit{Count: count, Period: period}, 0},
	{"sliding window", backend.Limit{Count: count, Period: period, Algorithm: backend.SlidingWindow}, 0},
	{"sliding log", backend.Limit{Count: count, Period: period, Algorithm: backend.SlidingLog}, 0},
	{"fixed window", backend.Limit{Count: count, Period: period, Algorithm: backend.FixedWindow}, 0},
	{"leaky bucket: burst 1, held up to 2 s", backend.Limit{Count: count, Period: period, Burst: 1}, maxWait},
}

// outcome is what became of requests: when they came, when they went on, and when they were refused.
type outcome struct {
	offered, passed, refused []time.Duration
	longest                  time.Duration // that a request was held
}

// play sends requests, in the order of time, to a limit.
func play(a limiter, requests []time.Duration) (outcome, error) {
	rule, err := algorithm.NewRule(a.limit)
	if err != nil {
		return outcome{}, err
	}
	p := player{limiter: a, rules: []*algorithm.Rule{rule}, outcome: outcome{offered: requests}}
	for _, at := range requests {
		p.release(at)
		p.request(at)
	}
	p.release(length)
	return p.outcome, nil
}

type player struct {
	limiter
	rules []*algorithm.Rule
	slots []algorithm.Slot
	line  []time.Duration // requests that are held, by when they came; the first of them charges at due
	due   time.Duration
	outcome
}

func (p *player) take(at time.Duration, cost int64) backend.Result {
	var res backend.Result
	if _, next := algorithm.Take(p.slots, p.rules, at.Microseconds(), cost, &res); next != nil {
		p.slots = next
	}
	return res
}

// request decides as ginlimit.Limiter.Handle does: a request that is refused is held if it fits within the wait, behind
// those that are held already, and charges nothing as long as they are.
func (p *player) request(at time.Duration) {
	var res backend.Result
	if len(p.line) == 0 {
		if res = p.take(at, 1); res.Allowed {
			p.passed = append(p.passed, at)
			return
		}
		p.due = at + res.RetryAfter
	} else {
		res = p.take(at, 0)
	}
	ahead := period / count * time.Duration(len(p.line)+1-int(p.limit.Capacity()))
	if p.wait == 0 || max(res.RetryAfter, res.ResetAfter+ahead) > p.wait {
		p.refused = append(p.refused, at)
		return
	}
	p.line = append(p.line, at)
}

// release lets those go on whose time has come by now.
func (p *player) release(now time.Duration) {
	for len(p.line) > 0 && p.due <= now {
		if res := p.take(p.due, 1); !res.Allowed {
			p.due += res.RetryAfter
			continue
		}
		p.passed = append(p.passed, p.due)
		p.longest = max(p.longest, p.due-p.line[0])
		p.line = p.line[1:]
	}
}

// most returns the most of times, which ascend, in any half-open stretch of a length.
func most(times []time.Duration, length time.Duration) int {
	best, from := 0, 0
	for to, t := range times {
		for times[from] <= t-length {
			from++
		}
		best = max(best, to+1-from)
	}
	return best
}
