package backendtest

import (
	"math/rand/v2"
	"time"

	"github.com/ginlimit/ginlimit/backend"
)

// The rules in this file need no model: they follow from what each algorithm promises.
var exactnessRules = []rule{{
	name:   "token bucket: unit by unit",
	demand: "The n-th unit after the burst is there at the first whole µs that is not before n × Period/Count, for every n.",
	run: func(e *env) {
		for _, limit := range []backend.Limit{per(7, sec), per(3, 7*ms), per(999_983, hour).WithBurst(2)} {
			e.must(limit.String(), limit.Capacity(), limit)
			start := e.now.Microseconds()
			for n := range int64(1000) {
				e.move(e.take(limit.String(), 1, limit).RetryAfter)
				e.must(limit.String(), 1, limit)
				due := ceil(mul(n+1, frac(micros(limit), limit.Count)))
				if got := e.now.Microseconds() - start; got != due {
					e.Fatalf("%v: unit %d after the burst came after %d µs, want %d", limit, n+1, got, due)
				}
			}
		}
	},
}, {
	name:   "token bucket: months",
	demand: "A greedy caller gets exactly floor(elapsed × Count/Period) units after the burst, over any horizon.",
	run: func(e *env) {
		r := rand.New(rand.NewPCG(e.h.seed(), 0))
		for _, limit := range []backend.Limit{per(7, sec), per(1_000_000_000, day), per(13, hour), per(1, 86_400_001*µs)} {
			limit.Burst = 1 + floor(mul(micros(per(1, 40*day)), frac(limit.Count, micros(limit))))
			e.must(limit.String(), limit.Burst, limit)
			start, total := e.now, int64(0)
			for range 150 {
				e.move(time.Duration(r.Int64N(micros(per(1, 30*day)))) * µs)
				if n := e.take(limit.String(), 0, limit).Remaining; n > 0 {
					e.must(limit.String(), n, limit)
					total += n
				}
				elapsed := (e.now - start).Microseconds()
				if want := floor(mul(elapsed, frac(limit.Count, micros(limit)))); total != want {
					e.Fatalf("%v: after %v a greedy caller had %d units, want %d", limit, e.now-start, total, want)
				}
			}
		}
	},
}, {
	name:   "windows do not drift",
	demand: "A caller that takes all there is as soon as there is any gets Count units each Period, for ever.",
	run: func(e *env) {
		for _, limit := range []backend.Limit{window(7, 999_983*µs), log(7, 999_983*µs), window(1, 31*day), log(3, 31*day)} {
			start := e.now
			for n := range time.Duration(300) {
				e.must(limit.String(), limit.Count, limit)
				if got, want := e.now-start, n*limit.Period; got != want {
					e.Fatalf("%v: the %d-th window began after %v, want %v", limit, n+1, got, want)
				}
				e.move(e.take(limit.String(), 1, limit).RetryAfter)
			}
		}
	},
}, {
	name:   "sliding windows follow one another",
	demand: "While no window is empty each begins where the one before ended: all of them end whole Periods after the first hit.",
	run: func(e *env) {
		limit := sliding(5, 999_983*µs)
		start := e.now
		for range 1000 {
			if res := e.take("k", 1, limit); (e.now-start+res.ResetAfter)%limit.Period != 0 {
				e.Fatalf("at %v: %v resets after %v, want the end of a window since %v", e.now, limit, res.ResetAfter, start)
			}
			e.move(271_829 * µs)
		}
	},
}, {
	name:   "token bucket: its bound",
	demand: "In any time t no more than Burst + t × Count/Period units are admitted, less those given back.",
	run: func(e *env) {
		for _, limit := range []backend.Limit{per(7, sec), per(10, sec).WithBurst(3), per(3, 7*ms).WithBurst(50)} {
			flow := e.flow(limit)
			for i := range flow {
				var n int64
				for _, f := range flow[i:] {
					n += f.units
					most := limit.Capacity() + floor(mul(f.at-flow[i].at, frac(limit.Count, micros(limit))))
					if n > most {
						e.Fatalf("%v: %d units were admitted from %d to %d µs, want at most %d", limit, n, flow[i].at, f.at, most)
					}
				}
			}
		}
	},
}, {
	name:   "sliding log: its bound",
	demand: "In any Period no more than Count units are admitted, less those given back.",
	run: func(e *env) {
		e.bounded(log(10, sec), 10)
		e.bounded(log(97, 7*ms), 97)
	},
}, {
	name:   "sliding window: its bound",
	demand: "In any Period fewer than 2 × Count units are admitted, less those given back.",
	run: func(e *env) {
		e.bounded(sliding(10, sec), 19)
		e.bounded(sliding(97, 7*ms), 2*97-1)
	},
}, {
	name:   "fixed window: its bound",
	demand: "In a window no more than Count units are admitted, less those given back, and in any Period no more than twice that.",
	run: func(e *env) {
		for _, limit := range []backend.Limit{window(10, sec), window(97, 7*ms)} {
			flow := e.bounded(limit, 2*limit.Count)
			start, n := int64(-1)<<60, int64(0)
			for _, f := range flow {
				if f.at >= start+micros(limit) {
					start, n = f.at, 0
				}
				if n += f.units; n > limit.Count {
					e.Fatalf("%v: %d units were admitted from %d to %d µs, in one window", limit, n, start, f.at)
				}
			}
		}
	},
}}

// passed is a charge that was admitted and not given back.
type passed struct{ at, units int64 } // at in µs

// flow lets a caller loose on a limit who takes what there is and gives some of it back at once or,
// where the algorithm knows which charge is meant, later.
func (e *env) flow(limit backend.Limit) []passed {
	r := rand.New(rand.NewPCG(e.h.seed(), 1))
	key := limit.String()
	var flow []passed
	var charges []backend.Result
	wait := time.Duration(0)
	for range 400 {
		switch p := micros(limit); r.IntN(4) {
		case 0:
			e.move(time.Duration(r.Int64N(p)) * µs)
		case 1:
			e.move(time.Duration(r.Int64N(p/10)) * µs)
		case 2:
			e.move(max(0, wait))
		}
		n := 1 + r.Int64N(limit.Capacity())
		if left := e.take(key, 0, limit).Remaining; left > 0 && r.IntN(2) == 0 {
			n = left
		}
		res := e.take(key, n, limit)
		if wait = res.RetryAfter; !res.Allowed {
			continue
		}
		flow, charges = append(flow, passed{e.now.Microseconds(), n}), append(charges, res)
		i := len(flow) - 1
		if limit.Algorithm != backend.TokenBucket {
			i = max(0, i-r.IntN(3))
		}
		if charge := charges[i]; r.IntN(6) == 0 && e.start.Add(e.now).Sub(charge.At) < limit.Period {
			e.refund(key, charge, flow[i].units, limit)
			flow[i].units = 0
		}
	}
	return flow
}

// bounded checks that the flow under limit has at most so many units in any Period, and returns it.
func (e *env) bounded(limit backend.Limit, most int64) []passed {
	e.Helper()
	flow := e.flow(limit)
	for i := range flow {
		var n int64
		for _, f := range flow[i:] {
			if f.at >= flow[i].at+micros(limit) {
				break
			}
			if n += f.units; n > most {
				e.Fatalf("%v: %d units were admitted from %d to %d µs, want at most %d", limit, n, flow[i].at, f.at, most)
			}
		}
	}
	return flow
}
