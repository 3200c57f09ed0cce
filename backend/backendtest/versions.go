package backendtest

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/ginlimit/ginlimit/backend"
)

// versionRules mix versions of limits on one key: two deployments side by side, a look-up of a
// customer's plan that fails now and then, a caller of Take with limits of its own.
var versionRules = []rule{{
	name:   "a smaller limit that is met once",
	demand: "Where most instances have a limit of 100 and one in ten a smaller one, 100 are admitted, and neither more nor fewer.",
	run: func(e *env) {
		for _, l := range everyAlgorithm(100, hour) {
			for _, small := range []int64{1, 5, 10, 99} {
				e.mixed([]backend.Limit{l}, []backend.Limit{per(small, hour).WithAlgorithm(l.Algorithm)})
			}
		}
		e.mixed([]backend.Limit{per(100, hour)}, []backend.Limit{per(100, hour).WithBurst(10)})
		e.mixed([]backend.Limit{per(10, hour).WithBurst(100)}, []backend.Limit{per(100, hour).WithBurst(10)})
	},
}, {
	name:   "another algorithm",
	demand: "Where one in ten instances counts in another way, 100 are admitted, whatever the two ways are.",
	run: func(e *env) {
		for _, l := range everyAlgorithm(100, hour) {
			for _, other := range append(everyAlgorithm(100, hour), everyAlgorithm(10, hour)...) {
				e.mixed([]backend.Limit{l}, []backend.Limit{other})
			}
		}
	},
}, {
	name:   "another Period",
	demand: "Where one in ten instances counts over another Period, 100 are admitted at once.",
	run: func(e *env) {
		for _, l := range everyAlgorithm(100, hour) {
			for _, p := range []time.Duration{time.Minute, 59 * time.Minute, day} {
				e.mixed([]backend.Limit{l}, []backend.Limit{per(100, p).WithAlgorithm(l.Algorithm)})
				e.mixed([]backend.Limit{l}, []backend.Limit{per(20, p).WithAlgorithm(l.Algorithm)})
			}
		}
	},
}, {
	name:   "a limit more",
	demand: "Where one in ten instances has a limit more, in front or behind, or has the limits in another order, 100 are admitted.",
	run: func(e *env) {
		roomy := everyAlgorithm(1000, time.Minute)
		for i, l := range everyAlgorithm(100, hour) {
			for _, more := range []backend.Limit{roomy[i], roomy[(i+1)%len(roomy)], per(0, sec), backend.Unlimited(), window(20, 2*hour)} {
				e.mixed([]backend.Limit{l}, []backend.Limit{more, l})
				e.mixed([]backend.Limit{l}, []backend.Limit{l, more})
				if more.Count > 100 {
					e.mixed([]backend.Limit{more, l}, []backend.Limit{l, more})
					e.mixed([]backend.Limit{more, l}, []backend.Limit{l})
				}
			}
		}
	},
}, {
	name:   "two differences at once",
	demand: "Where one in ten instances has a limit more or another order, and counts in another way, 100 are admitted.",
	run: func(e *env) {
		roomy := per(1000, time.Minute)
		for _, l := range everyAlgorithm(100, hour) {
			for _, other := range everyAlgorithm(100, hour) {
				small := per(80, hour).WithAlgorithm(other.Algorithm)
				for _, versions := range [][2][]backend.Limit{
					{{roomy, l}, {other, roomy}},
					{{roomy, l}, {other}},
					{{l}, {roomy, other}},
					{{l, roomy}, {small}},
				} {
					e.mixed(versions[0], versions[1])
				}
			}
		}
	},
}, {
	name:   "looks under every limit",
	demand: "Looks and refusals under other limits change nothing that is charged.",
	run: func(e *env) {
		for i, l := range everyAlgorithm(100, hour) {
			key := fmt.Sprint("key ", i)
			for n := range int64(100) {
				e.must(key, 1, l)
				for _, other := range append(everyAlgorithm(1, time.Minute), everyAlgorithm(1000, day)...) {
					e.take(key, 0, other)
					if other.Count == 1 && n > 0 {
						e.refuses(key, 1, other)
					}
				}
			}
			e.refuses(key, 1, l)
		}
	},
}, {
	name:   "what the largest version allows",
	demand: "With any mixture of counts and bursts over one Period a key is admitted at most what its largest limit allows, at any time.",
	run: func(e *env) {
		for kind, l := range everyAlgorithm(1, sec) {
			for round := range e.h.rounds() {
				seed := e.h.seed() + uint64(round)
				e.versions(l.Algorithm, fmt.Sprint(l.Algorithm, " ", round), rand.New(rand.NewPCG(seed, uint64(10+kind))))
				if e.Failed() {
					e.Logf("seed %d (Harness.Seed: %d makes it the first)", seed, seed)
					return
				}
			}
		}
	},
}}

// mixed asks 130 times at one instant, one in ten of them under other limits. It is admitted 100
// times, which is what most has room for.
func (e *env) mixed(most, other []backend.Limit) {
	e.Helper()
	key := fmt.Sprint(most, other)
	admitted := 0
	for i := range 130 {
		limits := most
		if i%10 == 3 {
			limits = other
		}
		if e.take(key, 1, limits...).Allowed {
			admitted++
		}
	}
	if admitted != 100 {
		e.Errorf("%v, and once in ten times %v: %d of 130 were admitted at once, want 100", most, other, admitted)
	}
}

// refuses is take of a cost that does not fit.
func (e *env) refuses(key string, cost int64, limits ...backend.Limit) {
	e.Helper()
	if res := e.take(key, cost, limits...); res.Allowed {
		e.Errorf("at %v: Take(%.40q, %d, %v): admitted, want a refusal", e.now, key, cost, limits)
	}
}

// versions sends random costs under random versions of one limit, some with another limit in front
// or behind that never refuses, and holds what is admitted to what the largest version allows.
func (e *env) versions(a backend.Algorithm, key string, r *rand.Rand) {
	period := pick(r, 7*ms, 999_983*µs, hour)
	var versions [][]backend.Limit
	largest, rate := int64(0), int64(0)
	for range 2 + r.IntN(4) {
		l := per(1+r.Int64N(60), period).WithAlgorithm(a)
		if a == backend.TokenBucket && r.IntN(2) == 0 {
			l.Burst = 1 + r.Int64N(60)
		}
		largest, rate = max(largest, l.Capacity()), max(rate, l.Count)
		roomy := per(1_000_000, 2*period).WithAlgorithm(pick(r, rates()...))
		versions = append(versions, pick(r, []backend.Limit{l}, []backend.Limit{l, roomy}, []backend.Limit{roomy, l}))
	}
	var flow []passed
	for range 300 {
		limits := versions[r.IntN(len(versions))]
		cost := int64(1)
		if r.IntN(3) == 0 {
			cost = 1 + r.Int64N(largest)
		}
		res := e.take(key, cost, limits...)
		if res.Allowed {
			flow = append(flow, passed{e.now.Microseconds(), cost})
		}
		switch r.IntN(8) {
		case 0:
			e.move(time.Duration(r.Int64N(micros(per(1, period)))) * µs)
		case 1:
			e.move(max(0, res.RetryAfter))
		case 2:
			e.move(time.Duration(r.Int64N(micros(per(1, period))/20)) * µs)
		}
	}
	for i := range flow {
		n := int64(0)
		for _, f := range flow[i:] {
			n += f.units
			if most, ok := allowance(a, f.at-flow[i].at, largest, rate, micros(per(1, period))); ok && n > most {
				e.Fatalf("%v: %d units were admitted from %d to %d µs, want at most %d", versions, n, flow[i].at, f.at, most)
			}
		}
	}
}

// allowance returns the most units that a limit admits within t µs, both ends included, if it says
// something of so long a time.
func allowance(a backend.Algorithm, t, largest, rate, period int64) (most int64, ok bool) {
	switch a {
	case backend.TokenBucket:
		return largest + floor(mul(t, frac(rate, period))), true
	case backend.SlidingLog:
		return largest, t < period
	case backend.SlidingWindow:
		return 2*largest - 1, t < period
	default:
		return 2 * largest, t < period
	}
}
