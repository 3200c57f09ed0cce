package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/algorithm"
)

// traffic is a kind of traffic: requests with one key, and the limits that each by itself decide
// about them.
type traffic struct {
	file, title, note string
	scale
	top, mark   float64
	long, short time.Duration // of the stretches in which the most that was let through is counted
	takes       time.Duration // how long a request is in flight
	limiters    []limiter
	requests    func() []time.Duration
}

const (
	count  = 100
	period = 10 * time.Second // 24 h in days.svg
	second = time.Second
	hour   = time.Hour

	maxWait = 2 * second // of the leaky bucket
	places  = 5          // of the limit in flight
)

var (
	inSeconds = scale{length: 40 * second, bin: second / 2, unit: second, says: "seconds since the first request", every: 5}
	inHours   = scale{length: 96 * hour, bin: hour, unit: hour, says: "hours since midnight of the first day", every: 12}
)

// No two requests of one kind, nor a request and the end of another's wait, fall on one
// microsecond: what comes first then would be up to the scheduler. That is what the odd intervals
// are for.
var traffics = []traffic{
	{
		file: "days.svg", title: "Four days: a burst over midnight, one over 9 o'clock, then 8 an hour",
		note: "limit: 100 exports a day; each takes half an hour", scale: inHours, top: 30, mark: 10,
		long: 24 * hour, short: 8 * hour, takes: 30*time.Minute + 700*time.Microsecond,
		limiters: []limiter{
			{name: "token bucket", limit: backend.Limit{Count: count, Period: 24 * hour}},
			{name: "sliding window", limit: backend.Limit{Count: count, Period: 24 * hour, Algorithm: backend.SlidingWindow}},
			{name: "sliding log", limit: backend.Limit{Count: count, Period: 24 * hour, Algorithm: backend.SlidingLog}},
			{name: "fixed window", limit: backend.Limit{Count: count, Period: 24 * hour, Algorithm: backend.FixedWindow}},
			{name: "calendar window", limit: backend.PerCalendarDay(count)},
			{name: "in flight: 5 at once", limit: backend.Limit{Count: places, Period: hour, Algorithm: backend.Concurrency}},
		},
		requests: func() []time.Duration {
			var requests []time.Duration
			for _, part := range []struct {
				from, to time.Duration // in hours
				every    time.Duration
			}{
				{9, 20, 30 * time.Minute}, {20, 28, 144 * second}, {28, 53, hour}, {53, 61, 144 * second}, {61, 96, 450 * second},
			} {
				requests = evenly(requests, part.from*hour, part.to*hour, part.every+13*time.Microsecond)
			}
			return requests
		},
	},
	{
		file: "edge.svg", title: "A burst at a window's edge: 200 requests between 9 s and 11 s, then 10 a second",
		note: "limit: 100 requests in 10 s", scale: inSeconds, top: 110, mark: 50,
		long: period, short: 2 * second, limiters: perSecond,
		requests: func() []time.Duration {
			requests := evenly([]time.Duration{0}, 9*second, 11*second, 10_001*time.Microsecond)
			return evenly(requests, 11*second, inSeconds.length, 100_001*time.Microsecond)
		},
	},
	{
		file: "overload.svg", title: "Overload: 30 requests a second, three times the limit",
		note: "limit: 100 requests in 10 s", scale: inSeconds, top: 36, mark: 10,
		long: period, short: 2 * second, limiters: perSecond,
		requests: func() []time.Duration { return evenly(nil, 0, inSeconds.length, 33_334*time.Microsecond) },
	},
}

// perSecond are the limiters of the pictures whose time is in seconds. No calendar window is as
// short.
var perSecond = []limiter{
	{name: "token bucket", limit: backend.Limit{Count: count, Period: period}},
	{name: "sliding window", limit: backend.Limit{Count: count, Period: period, Algorithm: backend.SlidingWindow}},
	{name: "sliding log", limit: backend.Limit{Count: count, Period: period, Algorithm: backend.SlidingLog}},
	{name: "fixed window", limit: backend.Limit{Count: count, Period: period, Algorithm: backend.FixedWindow}},
	{name: "leaky bucket: burst 1, held up to 2 s", limit: backend.Limit{Count: count, Period: period, Burst: 1}, wait: maxWait},
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

// outcome is what became of requests: when they came, when they went on, and when they were
// refused.
type outcome struct {
	offered, passed, refused []time.Duration
	longest                  time.Duration // that a request was held
}

// played is what a limiter did with the requests.
type played struct {
	limiter
	outcome
}

// play sends the requests to each limiter.
func (t traffic) play() ([]played, error) {
	var all []played
	for _, a := range t.limiters {
		o, err := t.playTo(a)
		if err != nil {
			return nil, err
		}
		all = append(all, played{a, o})
	}
	return all, nil
}

// sheet returns the picture of what the limiters did.
func (t traffic) sheet(all []played) sheet {
	s := sheet{
		file: t.file, title: t.title, note: t.note, scale: t.scale, top: t.top, mark: t.mark, axis: "requests/s",
		legend: []entry{{ink, true, "offered"}, {passedColor, false, "let through"}, {refusedColor, false, "refused"}},
	}
	if t.unit == hour {
		s.axis = "requests/h"
	}
	for _, p := range all {
		passed, refused, offered := t.rates(p.passed), t.rates(p.refused), t.rates(p.offered)
		held := make([]float64, len(offered)) // what the others leave of those offered
		for i := range held {
			held[i] = max(0, offered[i]-passed[i]-refused[i])
		}
		s.panels = append(s.panels, panel{
			name: p.name, line: offered,
			layers: []layer{{passedColor, passed}, {refusedColor, refused}, {heldColor, held}},
			says: fmt.Sprintf("let through %d of %d; at most %d in any %s, %d in any %s", len(p.passed), len(p.offered),
				most(p.passed, t.long), t.named(t.long), most(p.passed, t.short), t.named(t.short)),
		})
		if p.wait > 0 {
			s.legend = append(s.legend[:3], entry{heldColor, false, "held, let through later"})
		}
	}
	return s
}

// named returns a time in words, as "10 s".
func (s scale) named(d time.Duration) string {
	unit := strings.Trim(s.unit.String(), "0123456789")[:1] // of 1s and 1h0m0s
	return fmt.Sprint(s.units(d), " ", unit)
}

// playTo sends the requests, which are in the order of time, to a limit.
func (t traffic) playTo(a limiter) (outcome, error) {
	rule, err := algorithm.NewRule(a.limit)
	if err != nil {
		return outcome{}, err
	}
	requests := t.requests()
	p := player{limiter: a, rules: []*algorithm.Rule{rule}, outcome: outcome{offered: requests}}
	for _, at := range requests {
		p.release(at)
		p.request(at)
		if n := len(p.passed); a.limit.Algorithm == backend.Concurrency && n > 0 && p.passed[n-1] == at {
			p.inside = append(p.inside, flight{at, at + t.takes})
		}
	}
	p.release(t.length)
	return p.outcome, nil
}

// flight is a request that holds its place.
type flight struct{ from, to time.Duration }

type player struct {
	limiter
	rules  []*algorithm.Rule
	slots  []algorithm.Slot
	inside []flight
	line   []time.Duration // those that are held, by when they came; the first charges at due
	due    time.Duration
	outcome
}

func (p *player) take(at time.Duration, cost int64) backend.Result {
	var res backend.Result
	if _, next := algorithm.Take(p.slots, p.rules, at.Microseconds(), cost, &res); next != nil {
		p.slots = next
	}
	return res
}

// request decides as ginlimit.Limiter.Handle does: a request that is refused is held if it fits
// within the wait, behind those that are held already, and charges nothing as long as they are.
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

// release lets those leave that are done by now, and those go on whose time has come.
func (p *player) release(now time.Duration) {
	for len(p.inside) > 0 && p.inside[0].to <= now {
		f := p.inside[0]
		p.slots = settled(p.slots, p.rules, f)
		p.inside = p.inside[1:]
	}
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

// settled returns what a key's slots are after a request has left.
func settled(slots []algorithm.Slot, rules []*algorithm.Rule, f flight) []algorithm.Slot {
	if next := algorithm.Settle(slots, rules, f.to.Microseconds(), f.from.Microseconds(), 1, 1, 1); next != nil {
		return next
	}
	return slots
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
