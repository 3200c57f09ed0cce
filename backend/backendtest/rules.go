package backendtest

import (
	"context"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/ginlimit/ginlimit/backend"
)

var contractRules = []rule{{
	name:   "cost 0 is a look",
	demand: "A Take of cost 0 charges and writes nothing; Allowed and RetryAfter say whether, or when, one unit could be taken.",
	run:    lookWritesNothing,
}, {
	name:   "a cost above the capacity",
	demand: "A cost above a limit's capacity is a refusal with a negative RetryAfter, and is never charged.",
	run:    aboveCapacity,
}, {
	name:   "several limits that refuse",
	demand: "The Result of a refusal says of each limit whether it refuses.",
	run:    refusing,
}, {
	name:   "a negative cost",
	demand: "A negative cost is an error that begins with ginlimit: , and charges nothing.",
	run: func(e *env) {
		limit := per(5, sec)
		e.must("k", 2, limit)
		for _, cost := range []int64{-1, -100, math.MinInt64} {
			e.fails("k", cost, limit)
		}
		e.left(3, "k", limit)
	},
}, {
	name:   "no limits",
	demand: "A Take without a limit is an error that begins with ginlimit: .",
	run: func(e *env) {
		e.fails("k", 1)
		e.fails("k", 0)
	},
}, {
	name:   "an invalid limit",
	demand: "A Take with a limit that is not valid is an error that begins with ginlimit: , and charges none of the others.",
	run:    invalidLimit,
}, {
	name:   "count 0 blocks everything",
	demand: "Under a limit of count 0 everything is refused for ever, nothing remains, and there is nothing to reset.",
	run: func(e *env) {
		for _, limit := range everyAlgorithm(0, sec) {
			for _, cost := range []int64{0, 1, 5, math.MaxInt64} {
				res := e.take("k", cost, limit)
				if res.Allowed || res.Remaining != 0 || res.RetryAfter >= 0 || res.ResetAfter != 0 {
					e.Errorf("Take(%d, %v): got %s, want a refusal for ever with 0 left", cost, limit, show(res))
				}
			}
		}
	},
}, {
	name:   "unlimited always passes",
	demand: "An unlimited limit passes every cost, and math.MaxInt64 units remain.",
	run: func(e *env) {
		for _, cost := range []int64{0, 1, math.MaxInt64, math.MaxInt64} {
			res := e.take("k", cost, backend.Unlimited())
			if !res.Allowed || res.Remaining != math.MaxInt64 || res.RetryAfter != 0 || res.ResetAfter != 0 {
				e.Errorf("Take(%d, unlimited): got %s, want it admitted with math.MaxInt64 left", cost, show(res))
			}
		}
	},
}, {
	name:   "the limit passed comes back",
	demand: "Limit of a Result is the very limit that was passed, name and all, and Source is the store.",
	run: func(e *env) {
		limits := append(everyAlgorithm(5, sec), everyAlgorithm(0, sec)...)
		limits = append(limits, backend.Unlimited(), per(5, sec).WithBurst(9))
		for i, limit := range limits {
			for _, name := range []string{"", "one", "two", "one"} {
				limit := limit.Named(name)
				res := e.take(fmt.Sprint("key ", i), 1, limit)
				if res.Limit != limit || res.Source != backend.SourceStore {
					e.Errorf("Take(1, %q %v): Limit is %q %v from %v, want the one passed from the store", name, limit, res.Limit.Name, res.Limit, res.Source)
				}
			}
		}
	},
}, {
	name:   "keys are opaque and independent",
	demand: "A key may hold any bytes, and no two keys share anything.",
	run:    keysAreIndependent,
}, {
	name:   "reset forgets one key",
	demand: "Reset forgets a key for every limit, no other key, and does not mind a key that it does not know.",
	run: func(e *env) {
		limits := append(everyAlgorithm(5, hour), per(7, day))
		e.must("k", 5, limits...)
		e.must("other", 4, limits...)
		e.reset("k")
		for i := range limits {
			e.left(limits[i].Capacity(), "k", alone(limits, i)...)
			e.left(limits[i].Capacity()-4, "other", alone(limits, i)...)
		}
		e.reset("k")
		e.reset("unknown")
		e.must("k", 5, limits...)
	},
}, {
	name:   "refund of an unknown key",
	demand: "Nothing to give back is not an error, and leaves nothing behind.",
	run: func(e *env) {
		limits := append(everyAlgorithm(5, hour), backend.Unlimited(), per(0, sec))
		for i := range limits {
			limit := limits[i : i+1]
			charge := backend.Result{Allowed: true, Limit: limit[0], At: e.start}
			e.refund("unknown", charge, 3, limit...)
			e.refund("unknown", charge, 0, limit...)
			e.left(limit[0].Capacity(), "unknown", limit...)
		}
	},
}, {
	name:   "refund of too much",
	demand: "A refund of more than was charged gives back no more than the window or the bucket holds.",
	run: func(e *env) {
		for i, limit := range everyAlgorithm(10, hour) {
			key := fmt.Sprint("key ", i)
			e.must(key, 3, limit)
			e.move(sec)
			charge := e.must(key, 4, limit)
			e.refund(key, charge, math.MaxInt64, limit)
			want := int64(10)
			if limit.Algorithm == backend.SlidingLog {
				want = 7 // the log knows which charge was 4
			}
			e.left(want, key, limit)
			e.must(key, want, limit)
			e.left(0, key, limit)
		}
	},
}, {
	name:   "refund of one of several",
	demand: "A refund credits each limit that was charged by what it was charged.",
	run: func(e *env) {
		limits := append(everyAlgorithm(10, hour), everyAlgorithm(20, day)...)
		e.must("k", 6, limits...)
		e.move(sec)
		charge := e.must("k", 3, limits...)
		e.refund("k", charge, 3, limits...)
		for i, limit := range limits {
			e.left(limit.Capacity()-6, "k", alone(limits, i)...)
		}
	},
}, {
	name:   "extreme limits",
	demand: "The extreme limits that Validate accepts are decided like any other.",
	run: func(e *env) {
		for i, limit := range append(everyAlgorithm(backend.MaxCount, backend.MaxPeriod),
			append(everyAlgorithm(1, backend.MinPeriod), everyAlgorithm(1, backend.MaxPeriod)...)...) {
			key := fmt.Sprint("key ", i)
			n := limit.Count
			e.must(key, n, limit)
			res := e.take(key, 1, limit)
			if res.Allowed || res.Remaining != 0 || res.RetryAfter <= 0 {
				e.Errorf("Take(1, %v) after Take(%d): got %s, want a refusal with a wait", limit, n, show(res))
			}
			e.move(res.RetryAfter)
			e.must(key, 1, limit)
		}
	},
}, {
	name:   "retry after is true",
	demand: "A refused cost is refused 1 µs before RetryAfter is over and admitted when it is.",
	run:    retryAfterIsTrue,
}, {
	name:   "reset after is true",
	demand: "Remaining is below the capacity 1 µs before ResetAfter is over, and the capacity when it is.",
	run:    resetAfterIsTrue,
}, {
	name:   "remaining is true",
	demand: "Remaining units can be taken now, and not one more.",
	run: func(e *env) {
		for i, limit := range append(everyAlgorithm(97, 10*sec), per(97, 10*sec).WithBurst(500)) {
			key := fmt.Sprint("key ", i)
			for n := range 40 {
				e.take(key, 1, limit)
				e.move(time.Duration(n*n) * 1777 * µs)
				left := e.take(key, 0, limit).Remaining
				if left < limit.Capacity() {
					if res := e.take(key, left+1, limit); res.Allowed {
						e.Errorf("at %v: %v: %d were left, but %d were admitted", e.now, limit, left, left+1)
					}
				}
				if left > 0 {
					e.refund(key, e.must(key, left, limit), left, limit)
				}
				if n%2 == 0 && left > 10 {
					e.must(key, left-10, limit)
				}
			}
		}
	},
}}

// fails is a Take that must reach no decision because of what was asked.
func (e *env) fails(key string, cost int64, limits ...backend.Limit) {
	e.Helper()
	_, err := e.b.Take(context.Background(), key, cost, limits...)
	if err == nil || !strings.HasPrefix(err.Error(), "ginlimit: ") {
		e.Errorf("Take(%q, %d, %v): got error %v, want one that begins with %q", key, cost, limits, err, "ginlimit: ")
	}
}

// alone returns limits with all but the i-th unlimited: a look at the state of that one.
func alone(limits []backend.Limit, i int) []backend.Limit {
	one := make([]backend.Limit, len(limits))
	for j := range one {
		one[j] = backend.Unlimited()
	}
	one[i] = limits[i]
	return one
}

func show(r backend.Result) string {
	var ban string
	if r.Banned() {
		ban = fmt.Sprintf(", banned (it began: %v)", r.BanBegan())
	}
	return fmt.Sprintf("{allowed %v%s, %d left, retry after %v, reset after %v}", r.Allowed, ban, r.Remaining, r.RetryAfter, r.ResetAfter)
}

func refusing(e *env) {
	for _, algorithm := range everyAlgorithm(1, sec) {
		second := algorithm
		minute, hour := second, second
		minute.Count, minute.Period = 3, time.Minute
		hour.Count, hour.Period = 9, time.Hour
		limits := []backend.Limit{hour, second, minute}
		key := second.Algorithm.String()
		check := func(cost int64, want ...bool) {
			e.Helper()
			for range 3 { // the first refusal, and those that a backend may remember
				res := e.take(key, cost, limits...)
				for i, refuses := range want {
					if res.Allowed || res.Limit != limits[i] && res.Refuses(i) != refuses {
						e.Errorf("at %v: Take of %d under %v: limit %d refuses: %v, want %v", e.now, cost, limits, i, res.Refuses(i), refuses)
					}
				}
			}
		}
		e.must(key, 1, limits...)
		check(1, false, true, false)
		check(2, false, true, false) // the minute has just enough
		check(3, false, true, true)
		check(9, true, true, true)
	}
}

func lookWritesNothing(e *env) {
	limits := append(everyAlgorithm(5, 10*sec), per(5, 10*sec).WithBurst(1))
	for i, limit := range limits {
		key := fmt.Sprint("key ", i)
		n := limit.Capacity()
		look := func(allowed bool, left int64) {
			e.Helper()
			res := e.take(key, 0, limit)
			if res.Allowed != allowed || res.Remaining != left || (res.RetryAfter == 0) != allowed {
				e.Errorf("look at %v: got %s, want allowed %v, %d left", limit, show(res), allowed, left)
			}
		}
		for range 3 {
			look(yes, n)
		}
		e.move(sec)
		e.must(key, n, limit)
		for range 3 {
			look(no, 0)
		}
		wait := e.take(key, 0, limit).RetryAfter
		if one := e.take(key, 1, limit).RetryAfter; one != wait {
			e.Errorf("look at %v: RetryAfter is %v, want that of one unit, %v", limit, wait, one)
		}
		e.move(wait - µs)
		look(no, 0)
		e.move(µs)
		e.must(key, 1, limit)
		if e.h.TTL != nil {
			e.take("unknown", 0, limit)
			if ttl := e.h.TTL(e.T, e.b, "unknown"); ttl != 0 {
				e.Errorf("after a look the store holds the key for %v, want not at all", ttl)
			}
		}
	}
}

func aboveCapacity(e *env) {
	limits := append(everyAlgorithm(5, sec), per(3, sec).WithBurst(5), per(9, sec).WithBurst(5))
	for i, limit := range limits {
		key := fmt.Sprint("key ", i)
		e.must(key, 2, limit)
		for _, cost := range []int64{6, 7, 1 << 40, 1 << 53, math.MaxInt64 - 1, math.MaxInt64} {
			res := e.take(key, cost, limit)
			if res.Allowed || res.RetryAfter >= 0 || res.Remaining != 3 {
				e.Errorf("Take(%d, %v): got %s, want a refusal for ever with 3 left", cost, limit, show(res))
			}
		}
		e.must(key, 3, limit)
	}
}

func invalidLimit(e *env) {
	good := per(5, hour)
	for _, bad := range []backend.Limit{
		{},
		per(-1, sec),
		per(1, 0),
		per(1, -sec),
		per(1, ms-µs),
		per(1, 367*day),
		per(1, sec+1),
		per(backend.MaxCount+1, sec),
		per(1, sec).WithBurst(-1),
		per(0, sec).WithBurst(1),
		per(1, sec).WithBurst(backend.MaxCount + 1),
		per(1, backend.MaxPeriod).WithBurst(100),
		window(1, sec).WithBurst(1),
		per(1, sec).WithAlgorithm(255),
		backend.Unlimited().WithBurst(1),
	} {
		e.fails("k", 1, bad)
		e.fails("k", 0, bad)
		e.fails("k", 1, good, bad)
		e.fails("k", 1, bad, good)
	}
	e.left(5, "k", good)
}

func keysAreIndependent(e *env) {
	keys := []string{
		"", " ", "a", "A", "a ", "a\x00", "\x00", "\x00\x00", "a\nb", "a\r\nb", "\n", "{", "}", "{a}", "{a}b", "{}", "{{a}}", "a:b", "a", "a%3Ab", "a::b",
		"*", "a*", "?", "[a]", "\\", "\"", "'", "'; DROP TABLE keys; --", "$1", "%", "%s", "%00", "é", "e\u0301", "日本語", "\xff", "\xff\xfe", "\xc3", "🙂",
		"127.0.0.1", "::1", strings.Repeat("x", 200), strings.Repeat("x", 201), strings.Repeat("x", 10_000), strings.Repeat("x", 9_999) + "y",
		strings.Repeat("é", 5_000), strings.Repeat("\x00", 10_000), strings.Repeat("{", 300), strings.Repeat("\n", 300),
	}
	limits := []backend.Limit{per(100, hour), window(200, hour)}
	charged := map[string]int64{}
	for i, key := range keys {
		cost := int64(i + 1)
		if charged[key] == 0 {
			e.must(key, cost, limits...)
			charged[key] = cost
		}
	}
	for key, cost := range charged {
		e.left(100-cost, key, limits...)
		e.left(200-cost, key, alone(limits, 1)...)
	}
	e.reset(keys[0])
	for key, cost := range charged {
		if key != keys[0] {
			e.left(100-cost, key, limits...)
		}
	}
}

// someLimits are limits of every algorithm at rates that divide nothing.
func someLimits() []backend.Limit {
	var limits []backend.Limit
	for _, l := range []backend.Limit{
		per(7, sec), per(3, 7*ms), per(11, 13_000_001*µs), per(997, 31*day), per(1, ms), per(1_000_003, hour),
	} {
		limits = append(limits, l.WithBurst(2*l.Count+1), l.WithBurst(1))
		limits = append(limits, everyAlgorithm(l.Count, l.Period)...)
	}
	return limits
}

// use makes charges of different ages on key.
func use(e *env, key string, limit backend.Limit) {
	for i := range 12 {
		n := e.take(key, 0, limit).Remaining
		if i%3 == 2 {
			n = (n + 1) / 2
		} else {
			n = (n + 6) / 7
		}
		if n > 0 {
			e.must(key, n, limit)
		}
		if i < 11 {
			e.move((limit.Period / 5).Truncate(µs) + time.Duration(i)*µs)
		}
	}
}

func retryAfterIsTrue(e *env) {
	for i, limit := range someLimits() {
		key := fmt.Sprint("key ", i)
		for _, part := range []int64{1, 3, 2, 1} {
			cost := max(1, limit.Capacity()/part)
			use(e, key, limit)
			res := e.take(key, cost, limit)
			if res.Allowed {
				continue
			}
			e.move(res.RetryAfter - µs)
			if res := e.take(key, cost, limit); res.Allowed || res.RetryAfter != µs {
				e.Errorf("at %v: Take(%d, %v) 1 µs before its RetryAfter: got %s, want a refusal for 1 µs more", e.now, cost, limit, show(res))
			}
			e.move(µs)
			if res := e.take(key, cost, limit); !res.Allowed {
				e.Errorf("at %v: Take(%d, %v) at its RetryAfter: got %s, want it admitted", e.now, cost, limit, show(res))
			}
		}
	}
}

func resetAfterIsTrue(e *env) {
	for i, limit := range someLimits() {
		key := fmt.Sprint("key ", i)
		for range 2 {
			use(e, key, limit)
			e.move(e.take(key, 0, limit).ResetAfter - µs)
			if res := e.take(key, 0, limit); res.Remaining >= limit.Capacity() || res.ResetAfter != µs {
				e.Errorf("at %v: %v 1 µs before its ResetAfter: got %s, want less than all of %d, and 1 µs", e.now, limit, show(res), limit.Capacity())
			}
			e.move(µs)
			if res := e.take(key, 0, limit); res.Remaining != limit.Capacity() || res.ResetAfter != 0 {
				e.Errorf("at %v: %v at its ResetAfter: got %s, want all of %d left", e.now, limit, show(res), limit.Capacity())
			}
		}
	}
}
