package backend_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/algorithm"
)

var algorithms = []backend.Algorithm{backend.TokenBucket, backend.SlidingWindow, backend.SlidingLog, backend.FixedWindow}

func per(n int64, p time.Duration) backend.Limit { return backend.Limit{Count: n, Period: p} }

// key is the state of one limit, and a clock.
type key struct {
	slots [1]algorithm.Slot
	now   int64 // µs
}

func newKey() *key { return &key{now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()} }

// take decides by Take, by TakeCounters and, where it can, by TakeUnit, also under the very rule of the time before. They must
// agree, and leave nothing of another algorithm behind.
func (k *key) take(t *testing.T, cost int64, l backend.Limit) backend.Result {
	t.Helper()
	rule, err := algorithm.NewRule(l)
	if err != nil {
		t.Fatalf("NewRule(%v): got error %v, want none", l, err)
	}
	before, old := k.slots[0].State.Counters, k.slots[0].Rule
	res, _, _ := algorithm.Take(k.slots[:], []*algorithm.Rule{rule}, k.now, cost)
	rules := []*algorithm.Rule{rule}
	if old != nil && old.Decides(&l) {
		rules = append(rules, old) // in a store that keeps its rules
	}
	for _, r := range rules {
		var same backend.Result
		counters := before
		if l.Algorithm == backend.SlidingLog {
			break
		}
		if r.TakeCounters(&counters, old, k.now, cost, &same); res != same || k.slots[0].State.Counters != counters {
			t.Fatalf("Take(%d, %v): got %+v and %+v, but %+v and %+v by TakeCounters", cost, l, res, k.slots[0].State.Counters, same, counters)
		}
		if cost != 1 || r != old || l.Algorithm != backend.TokenBucket {
			continue
		}
		var unit backend.Result
		at, frac, ok := r.TakeUnit(before.Time, before.Frac, k.now, &unit)
		if !ok {
			if res.Remaining > 0 {
				t.Fatalf("Take(%d, %v): got %+v, but TakeUnit leaves that to others", cost, l, res)
			}
		} else if after := k.slots[0].State.Counters; unit != res || after.Time != at || after.Frac != frac {
			t.Fatalf("Take(%d, %v): got %+v and %+v, but %+v, %d and %d by TakeUnit", cost, l, res, after, unit, at, frac)
		}
	}
	check(t, cost, l, res)
	return res
}

// check checks what is true of every Result.
func check(t *testing.T, cost int64, l backend.Limit, r backend.Result) {
	t.Helper()
	switch {
	case r.Remaining < 0 || r.Remaining > l.Capacity():
		t.Fatalf("Take(%d, %v): %d are left, want 0 to %d", cost, l, r.Remaining, l.Capacity())
	case r.Allowed != (r.RetryAfter == 0):
		t.Fatalf("Take(%d, %v): allowed is %v and retry after %v", cost, l, r.Allowed, r.RetryAfter)
	case !r.Allowed && cost <= r.Remaining && cost > 0:
		t.Fatalf("Take(%d, %v): refused with %d left", cost, l, r.Remaining)
	case r.RetryAfter < 0 && max(cost, 1) <= l.Capacity():
		t.Fatalf("Take(%d, %v): refused for ever, want a wait", cost, l)
	case r.ResetAfter < 0 || (r.ResetAfter == 0) != (r.Remaining == l.Capacity()):
		t.Fatalf("Take(%d, %v): %d of %d are left and reset after is %v", cost, l, r.Remaining, l.Capacity(), r.ResetAfter)
	case r.ResetAfter > backend.MaxRefill+time.Microsecond || r.RetryAfter > backend.MaxRefill+time.Microsecond:
		t.Fatalf("Take(%d, %v): retry after %v and reset after %v, beyond any limit", cost, l, r.RetryAfter, r.ResetAfter)
	}
}

func TestValidate(t *testing.T) {
	for _, test := range []struct {
		limit backend.Limit
		want  string // part of the error, "" for none
	}{
		{backend.Limit{}, "period is not between"},
		{per(0, time.Second), ""},
		{per(1, time.Second), ""},
		{per(-1, time.Second), "count is negative"},
		{per(math.MinInt64, time.Second), "count is negative"},
		{per(backend.MaxCount, time.Second), ""},
		{per(backend.MaxCount+1, time.Second), "use Unlimited()"},
		{per(math.MaxInt64-1, time.Second), "use Unlimited()"},
		{backend.Unlimited(), ""},
		{backend.Limit{Count: math.MaxInt64}, ""},
		{backend.Unlimited().WithAlgorithm(backend.SlidingLog), ""},
		{backend.Unlimited().WithBurst(1), "has burst 1; only"},
		{per(1, 0), "period is not between"},
		{per(1, -time.Second), "period is not between"},
		{per(1, time.Millisecond-time.Microsecond), "period is not between"},
		{per(1, time.Millisecond), ""},
		{per(1, 366*24*time.Hour), ""},
		{per(1, 366*24*time.Hour+time.Microsecond), "period is not between 1ms and 8784h0m0s"},
		{per(1, time.Second+time.Nanosecond), "whole number of microseconds"},
		{per(1, time.Second+time.Microsecond), ""},
		{per(1, time.Second).WithBurst(-1), "burst is negative"},
		{per(1, time.Millisecond).WithBurst(backend.MaxCount), "more than 100 years"},
		{per(backend.MaxCount, time.Second).WithBurst(backend.MaxCount), ""},
		{per(backend.MaxCount, time.Second).WithBurst(backend.MaxCount + 1), "burst is above"},
		{per(0, time.Second).WithBurst(1), "never be refilled"},
		{per(1, 365*24*time.Hour).WithBurst(99), ""},
		{per(1, 365*24*time.Hour).WithBurst(100), "more than 100 years"},
		{per(1, backend.MaxPeriod).WithBurst(backend.MaxCount), "more than 100 years"},
		{per(1, 365*24*time.Hour-time.Microsecond).WithBurst(100), ""},
		{per(1, time.Second).WithAlgorithm(backend.SlidingWindow).WithBurst(1), "only a token bucket"},
		{per(1, time.Second).WithAlgorithm(backend.FixedWindow).WithBurst(-1), "only a token bucket"},
		{per(1, time.Second).WithAlgorithm(4), "unknown algorithm; use"},
		{per(backend.MaxCount, backend.MaxPeriod).WithAlgorithm(backend.SlidingWindow), ""},
	} {
		err := test.limit.Validate()
		switch {
		case test.want == "" && err != nil:
			t.Errorf("Validate of %v: got error %v, want none", test.limit, err)
		case test.want != "" && (err == nil || !strings.HasPrefix(err.Error(), "ginlimit: limit ") || !strings.Contains(err.Error(), test.want)):
			t.Errorf("Validate of %v: got error %v, want one that begins with %q and says %q", test.limit, err, "ginlimit: limit ", test.want)
		}
		if _, again := algorithm.NewRule(test.limit); fmt.Sprint(again) != fmt.Sprint(err) {
			t.Errorf("NewRule(%v): got error %v, want that of Validate, %v", test.limit, again, err)
		}
	}
}

func TestLimitString(t *testing.T) {
	for want, limit := range map[string]backend.Limit{
		"100 per 1m0s, token bucket":           per(100, time.Minute).Named("not shown"),
		"100 per 1m0s, burst 20, token bucket": per(100, time.Minute).WithBurst(20),
		"0 per 1s, sliding window":             per(0, time.Second).WithAlgorithm(backend.SlidingWindow),
		"7 per 1ms, sliding log":               per(7, time.Millisecond).WithAlgorithm(backend.SlidingLog),
		"7 per 1ms, fixed window":              per(7, time.Millisecond).WithAlgorithm(backend.FixedWindow),
		"7 per 1ms, Algorithm(9)":              per(7, time.Millisecond).WithAlgorithm(9),
		"unlimited":                            backend.Unlimited(),
	} {
		if got := limit.String(); got != want {
			t.Errorf("String of %#v: got %q, want %q", limit, got, want)
		}
	}
}

func TestSourceString(t *testing.T) {
	for want, s := range map[string]backend.Source{
		"store": backend.SourceStore, "deny-cache": backend.SourceDenyCache, "lease": backend.SourceLease, "fallback": backend.SourceFallback, "Source(9)": 9,
	} {
		if got := s.String(); got != want {
			t.Errorf("String of %d: got %q, want %q", s, got, want)
		}
	}
}

func TestCapacity(t *testing.T) {
	for _, test := range []struct {
		limit backend.Limit
		want  int64
	}{
		{per(5, time.Second), 5},
		{per(5, time.Second).WithBurst(9), 9},
		{per(5, time.Second).WithBurst(1), 1},
		{per(5, time.Second).WithAlgorithm(backend.SlidingLog), 5},
		{per(0, time.Second), 0},
		{backend.Unlimited(), math.MaxInt64},
	} {
		if got := test.limit.Capacity(); got != test.want {
			t.Errorf("Capacity of %v: got %d, want %d", test.limit, got, test.want)
		}
	}
	if !backend.Unlimited().IsUnlimited() || per(backend.MaxCount, time.Second).IsUnlimited() {
		t.Error("IsUnlimited is true of Unlimited() alone")
	}
}

func TestLimitIsAValue(t *testing.T) {
	limit := per(5, time.Second)
	changed := limit.Named("a").WithBurst(3).WithAlgorithm(backend.FixedWindow)
	if limit != per(5, time.Second) {
		t.Errorf("the modifiers changed their receiver to %+v", limit)
	}
	if want := (backend.Limit{Name: "a", Count: 5, Period: time.Second, Burst: 3, Algorithm: backend.FixedWindow}); changed != want {
		t.Errorf("Named, WithBurst and WithAlgorithm: got %+v, want %+v", changed, want)
	}
}

func TestDecides(t *testing.T) {
	rule, err := algorithm.NewRule(per(5, time.Second).WithBurst(3).Named("a"))
	if err != nil {
		t.Fatal(err)
	}
	base := rule.Limit()
	for limit, want := range map[backend.Limit]bool{
		base: true, base.Named("b"): true, base.WithBurst(4): false, per(6, time.Second).WithBurst(3): false,
		per(5, time.Minute).WithBurst(3): false, base.WithAlgorithm(backend.FixedWindow): false,
	} {
		if got := rule.Decides(&limit); got != want {
			t.Errorf("the rule of %v decides as %v: got %v, want %v", base, limit, got, want)
		}
	}
}

// corners are the limits at the ends of the accepted ranges.
func corners() []backend.Limit {
	var all []backend.Limit
	for _, a := range algorithms {
		for _, n := range []int64{0, 1, 2, backend.MaxCount - 1, backend.MaxCount} {
			for _, p := range []time.Duration{backend.MinPeriod, backend.MinPeriod + time.Microsecond, backend.MaxPeriod} {
				all = append(all, per(n, p).WithAlgorithm(a))
			}
		}
	}
	all = append(all, backend.Unlimited(),
		per(1, 365*24*time.Hour-time.Microsecond).WithBurst(100), // a µs per unit short of 100 years
		per(1, 365*24*time.Hour).WithBurst(99),
		per(317_098, backend.MinPeriod).WithBurst(backend.MaxCount), // 99.99999 years
		per(backend.MaxCount, backend.MaxPeriod).WithBurst(1),
		per(backend.MaxCount, backend.MinPeriod).WithBurst(backend.MaxCount),
		per(backend.MaxCount-1, backend.MaxPeriod).WithBurst(backend.MaxCount),
	)
	return all
}

// Every corner, after every other one that could have been before it, with every kind of charge and the clock
// standing, going on, and going back.
func TestCorners(t *testing.T) {
	steps := []time.Duration{0, time.Microsecond, backend.MinPeriod, -time.Hour, backend.MaxPeriod - time.Microsecond, -backend.MaxPeriod}
	for _, first := range corners() {
		for _, second := range corners() {
			k := newKey()
			for i, step := range steps {
				limit := first
				if i%2 == 1 {
					limit = second
				}
				for _, cost := range []int64{0, 1, limit.Capacity(), limit.Capacity() / 3, math.MaxInt64} {
					res := k.take(t, cost, limit)
					if i%3 == 2 && res.Allowed {
						algorithm.Refund(k.slots[:], []backend.Limit{limit}, k.now, k.now, cost)
						check(t, 0, limit, k.take(t, 0, limit))
					}
				}
				k.now += step.Microseconds()
			}
		}
	}
}

// Waiting as long as was said is enough, at every corner.
func TestCornersRecover(t *testing.T) {
	for _, limit := range corners() {
		if limit.Count == 0 || limit.IsUnlimited() {
			continue
		}
		k := newKey()
		k.take(t, limit.Capacity(), limit)
		for _, cost := range []int64{1, limit.Capacity()} {
			res := k.take(t, cost, limit)
			if res.Allowed {
				t.Errorf("Take(%d, %v) of a spent key: got it admitted, want a wait", cost, limit)
				continue
			}
			k.now += res.RetryAfter.Microseconds() - 1
			if k.take(t, cost, limit).Allowed {
				t.Errorf("Take(%d, %v) 1 µs before %v: got it admitted, want a refusal", cost, limit, res.RetryAfter)
			}
			k.now++
			if !k.take(t, cost, limit).Allowed {
				t.Errorf("Take(%d, %v) after %v: got a refusal, want it admitted", cost, limit, res.RetryAfter)
			}
		}
	}
}

// A clock that was hours ahead does not lock anybody out: nobody waits longer than from an empty start.
func TestClockGoesBack(t *testing.T) {
	for _, a := range algorithms {
		limit := per(10, time.Minute).WithAlgorithm(a)
		k := newKey()
		for range 4 {
			k.take(t, 3, limit)
			k.now += (50 * time.Second).Microseconds()
		}
		k.take(t, 1, limit)
		k.now -= (5 * time.Hour).Microseconds()
		before := k.take(t, 0, limit)
		if before.ResetAfter > 2*time.Minute {
			t.Errorf("%v: after the clock went back 5 hours, reset after is %v, want at most two periods", limit, before.ResetAfter)
		}
		if res := k.take(t, 10, limit); res.Allowed {
			t.Errorf("%v: the clock went back, and all units were free; want those used to be kept", limit)
		}
		k.now += (2 * time.Minute).Microseconds()
		if res := k.take(t, 10, limit); !res.Allowed {
			t.Errorf("%v: two periods after the clock went back: got a refusal for %v, want it admitted", limit, res.RetryAfter)
		}
	}
}

func TestExpired(t *testing.T) {
	var empty algorithm.Slot
	if !empty.Expired(0) {
		t.Error("the zero Slot is not expired, want it to carry nothing")
	}
	for a, want := range map[backend.Algorithm]time.Duration{
		backend.TokenBucket: time.Second, backend.SlidingWindow: 20 * time.Second, backend.SlidingLog: 10 * time.Second, backend.FixedWindow: 10 * time.Second,
	} {
		k := newKey()
		start := k.now
		k.take(t, 1, per(10, 10*time.Second).WithAlgorithm(a))
		if end := start + want.Microseconds(); k.slots[0].Expired(end-1) || !k.slots[0].Expired(end) {
			t.Errorf("%v: want a state of one unit to expire exactly after %v", a, want)
		}
	}
}

func TestTakeSaysWhatToWrite(t *testing.T) {
	rule := func(l backend.Limit) *algorithm.Rule {
		r, err := algorithm.NewRule(l)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	for _, a := range algorithms {
		five, two, free := rule(per(5, time.Second).WithAlgorithm(a)), rule(per(2, time.Second).WithAlgorithm(a)), rule(backend.Unlimited())
		slots := make([]algorithm.Slot, 2)
		for i, step := range []struct {
			rule *algorithm.Rule
			cost int64
			want bool
		}{
			{five, 0, false}, {five, 9, false}, {five, 4, true}, {five, 2, false}, {five, 0, false},
			{two, 0, false}, {two, 1, true}, {two, 1, false}, {free, 1, false},
		} {
			if _, _, write := algorithm.Take(slots, []*algorithm.Rule{step.rule, free}, 1000, step.cost); write != step.want {
				t.Errorf("%v, step %d: Take(%d, %v) says write %v, want %v", a, i, step.cost, step.rule.Limit(), write, step.want)
			}
		}
		limits, one := []backend.Limit{five.Limit(), five.Limit()}, int64(1)
		if algorithm.Refund(slots, limits, 1000, 1000, 0) || algorithm.Refund(slots[1:], limits, 1000, 1000, one) || !algorithm.Refund(slots, limits, 1000, 1000, one) {
			t.Errorf("%v: Refund says that it wrote when it had something to give back, and only then; it did not", a)
		}
	}
}

// TestSlidingWindowWorstCase looks for the most units that a sliding window admits in one Period. The worst is
// a burst at the very end of a window and a greedy flow through the next. It comes near to 2 × Count, and
// never reaches it: the bound in SlidingWindow's comment.
func TestSlidingWindowWorstCase(t *testing.T) {
	const count, period = 100, 10_000 // µs
	limit := per(count, period*time.Microsecond).WithAlgorithm(backend.SlidingWindow)
	worst := int64(0)
	for _, early := range []int64{0, 1, 10, 50, 99} { // units at the window's start; the rest is the burst
		for _, at := range []int64{1, period / 2, period * 9 / 10, period - 100, period - 1} {
			worst = max(worst, mostInAPeriod(t, limit, early, at))
		}
	}
	t.Logf("the worst case of %v: %d units in one period", limit, worst)
	if worst >= 2*count || worst <= 190 {
		t.Errorf("%v: an adversary was admitted %d units in one period, want more than 190 and fewer than %d", limit, worst, 2*count)
	}
}

// mostInAPeriod returns the most units in any Period if early units come first, the rest at an instant, and
// from then on one whenever it fits.
func mostInAPeriod(t *testing.T, limit backend.Limit, early, at int64) (most int64) {
	k := newKey()
	start, period := k.now, limit.Period.Microseconds()
	var hits []int64
	take := func(n int64) {
		if n > 0 && k.take(t, n, limit).Allowed {
			for range n {
				hits = append(hits, k.now)
			}
		}
	}
	take(max(1, early))
	k.now = start + at
	take(limit.Count - max(1, early))
	for k.now < start+3*period {
		if res := k.take(t, 1, limit); res.Allowed {
			hits = append(hits, k.now)
		} else {
			k.now += res.RetryAfter.Microseconds()
		}
	}
	first := 0
	for i, hit := range hits {
		for hit-hits[first] >= period {
			first++
		}
		most = max(most, int64(i-first+1))
	}
	return most
}

// FuzzLimitValidate: a limit is refused with an error that says so, or works.
func FuzzLimitValidate(f *testing.F) {
	for _, l := range append(corners(), per(7, time.Second), per(-1, time.Second), per(3, 7*time.Millisecond).WithBurst(4), backend.Limit{}) {
		f.Add(l.Count, int64(l.Period), l.Burst, uint8(l.Algorithm), uint64(1))
	}
	f.Fuzz(func(t *testing.T, count, period, burst int64, algorithm uint8, seed uint64) {
		limit := backend.Limit{Count: count, Period: time.Duration(period), Burst: burst, Algorithm: backend.Algorithm(algorithm)}
		if err := limit.Validate(); err != nil {
			if !strings.HasPrefix(err.Error(), "ginlimit: ") {
				t.Fatalf("Validate of %#v: got error %q, want one that begins with %q", limit, err, "ginlimit: ")
			}
			return
		}
		works(t, limit, rand.New(rand.NewPCG(seed, 0)))
	})
}

// works makes random charges under a valid limit, and under one like it now and then.
func works(t *testing.T, limit backend.Limit, r *rand.Rand) {
	k := newKey()
	var charged, cost int64
	for range 60 {
		l := limit
		if other := (backend.Limit{Count: 1 + limit.Count/2, Period: backend.MaxPeriod, Algorithm: limit.Algorithm}); r.IntN(8) == 0 && other.Validate() == nil {
			l = other
		}
		n := r.Int64N(4)
		if r.IntN(2) == 0 && l.Capacity() > 0 {
			n = r.Int64N(l.Capacity())
		}
		if res := k.take(t, n, l); res.Allowed {
			charged, cost = k.now, n
		} else if r.IntN(3) == 0 {
			k.now += res.RetryAfter.Microseconds()
		}
		switch r.IntN(6) {
		case 0:
			k.now += r.Int64N(max(1, limit.Period.Microseconds()))
		case 1:
			k.now -= r.Int64N(1000)
		case 2:
			algorithm.Refund(k.slots[:], []backend.Limit{limit}, k.now, charged, cost)
		case 3:
			k.now++
		}
	}
}
