package algorithm_test

import (
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/algorithm"
)

var algorithms = []backend.Algorithm{backend.TokenBucket, backend.SlidingWindow, backend.SlidingLog, backend.FixedWindow}

func per(n int64, p time.Duration) backend.Limit { return backend.Limit{Count: n, Period: p} }

func rule(t *testing.T, l backend.Limit) *algorithm.Rule {
	t.Helper()
	r, err := algorithm.NewRule(l)
	if err != nil {
		t.Fatalf("NewRule(%v): got error %v, want none", l, err)
	}
	return r
}

// key is what is known of a key with one limit, and a clock.
type key struct {
	slots []algorithm.Slot
	since int64 // when they were written, in µs
	now   int64
}

func newKey() *key { return &key{now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()} }

// copies returns slots that share nothing with those of k, and room more that are empty.
func (k *key) copies(room int) []algorithm.Slot {
	slots := append(slices.Clone(k.slots), make([]algorithm.Slot, room)...)
	for i := range slots {
		if st := &slots[i].State; st.Log != nil {
			log := slices.Clone(*st.Log)
			st.Log = &log
		}
	}
	algorithm.Rebase(slots, k.since, k.now)
	return slots
}

func (k *key) write(slots []algorithm.Slot) { k.slots, k.since = slots, k.now }

// take decides by Take, which is quick where it can be; once more with an empty slot too many,
// which keeps it from that; and by Quick. They must agree.
func (k *key) take(t *testing.T, cost int64, l backend.Limit) backend.Result {
	t.Helper()
	rules := []*algorithm.Rule{rule(t, l)}
	if len(k.slots) > 0 && k.slots[0].Rule != nil && k.slots[0].Rule.Decides(&l) {
		rules[0] = k.slots[0].Rule // as in a store that keeps its rules
	}
	var res, same backend.Result
	_, next := algorithm.Take(k.copies(0), rules, k.now, cost, &res)
	_, steps := algorithm.Take(k.copies(1), rules, k.now, cost, &same)
	if res != same || (next == nil) != (steps == nil) || next != nil && !reflect.DeepEqual(next[:1], steps[:1]) {
		t.Fatalf("Take(%d, %v): got %+v and %+v, but %+v and %+v by steps", cost, l, res, next, same, steps)
	}
	if len(k.slots) > 0 && k.slots[0].Rule == rules[0] {
		if st, answer, ok := rules[0].Quick(k.copies(0)[0].State, k.now, cost); ok {
			same = backend.Result{}
			answer.Fill(&same, k.now)
			if res != same || next != nil && st != next[0].State || (next != nil) != (answer.Wait == 0 && cost > 0) {
				t.Fatalf("Take(%d, %v): got %+v and %+v, but %+v and %+v by Quick", cost, l, res, next, same, st)
			}
		}
	}
	if next != nil {
		k.write(next)
	} else if slots := k.copies(0); cost > 0 && k.now < k.since {
		k.write(slots)
	}
	check(t, cost, l, res)
	return res
}

func (k *key) settle(t *testing.T, charged, cost, actual int64, l backend.Limit) {
	if next := algorithm.Settle(k.copies(0), []*algorithm.Rule{rule(t, l)}, k.now, charged, cost, actual, 0); next != nil {
		k.write(next)
	}
}

// check checks what is true of every Result.
func check(t *testing.T, cost int64, l backend.Limit, r backend.Result) {
	t.Helper()
	r.Limit = l
	switch {
	case r.Used() < 0 || r.Remaining > 0 && r.Used() != l.Capacity()-r.Remaining && !l.IsUnlimited():
		t.Fatalf("Take(%d, %v): %d are used, and %d left", cost, l, r.Used(), r.Remaining)
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
	case r.ResetAfter > 2*backend.MaxRefill+time.Microsecond || r.RetryAfter > 2*backend.MaxRefill+time.Microsecond:
		t.Fatalf("Take(%d, %v): retry after %v and reset after %v, beyond any limit", cost, l, r.RetryAfter, r.ResetAfter)
	}
}

func TestDecides(t *testing.T) {
	r := rule(t, per(5, time.Second).WithBurst(3).Named("a"))
	base := r.Limit()
	for limit, want := range map[backend.Limit]bool{
		base: true, base.Named("b"): true, base.WithBurst(4): false, per(6, time.Second).WithBurst(3): false,
		per(5, time.Minute).WithBurst(3): false, base.WithAlgorithm(backend.FixedWindow): false,
	} {
		if got := r.Decides(&limit); got != want {
			t.Errorf("the rule of %v decides as %v: got %v, want %v", base, limit, got, want)
		}
	}
	month := backend.PerCalendarMonth(5)
	r = rule(t, month)
	for limit, want := range map[backend.Limit]bool{
		month: true, month.In("UTC"): true, month.In("Asia/Kathmandu"): false, month.StartingOn(2): false, backend.PerCalendarDay(5): false,
		month.Banning(time.Second, time.Minute): false,
	} {
		if got := r.Decides(&limit); got != want {
			t.Errorf("the rule of %v decides as %v: got %v, want %v", month, limit, got, want)
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

// Every corner, after every other one that could have been before it, with every kind of charge and
// the clock standing, going on, and going back.
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
						k.settle(t, k.now, cost, cost/3, limit)
						check(t, 0, limit, k.take(t, 0, limit))
						k.settle(t, k.now, cost/3, math.MaxInt64, limit)
						check(t, 0, limit, k.take(t, 0, limit))
						k.settle(t, k.now, math.MaxInt64, 0, limit)
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

// A clock that was hours ahead does not lock anybody out: nobody waits longer than from an empty
// start.
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

func TestExpiry(t *testing.T) {
	for a, want := range map[backend.Algorithm]time.Duration{
		backend.TokenBucket: time.Second, backend.SlidingWindow: 20 * time.Second, backend.SlidingLog: 10 * time.Second, backend.FixedWindow: 10 * time.Second,
	} {
		k := newKey()
		start := k.now
		k.take(t, 1, per(10, 10*time.Second).WithAlgorithm(a))
		if got := k.slots[0].Rule.Expiry(k.slots[0].State) - start; got != want.Microseconds() {
			t.Errorf("%v: a state of one unit expires after %d µs, want exactly %v", a, got, want)
		}
	}
}

// TestTakeSaysWhatToWrite: what a store must write, and nothing else.
func TestTakeSaysWhatToWrite(t *testing.T) {
	for _, a := range algorithms {
		five, two, free := rule(t, per(5, time.Second).WithAlgorithm(a)), rule(t, per(2, time.Second).WithAlgorithm(a)), rule(t, backend.Unlimited())
		var slots []algorithm.Slot
		for i, step := range []struct {
			now  int64
			rule *algorithm.Rule
			cost int64
			want bool
		}{
			{1000, five, 0, false}, {1000, five, 9, false}, {1000, five, 4, true}, {1000, five, 2, false}, {1000, five, 0, false},
			{1000, two, 0, false}, {1000, two, 1, false}, {1000, free, 1, false}, {500_000, two, 2, false}, {2_001_000, two, 1, true},
			{2_001_000, two, 2, false}, {2_001_000, free, 2, false},
		} {
			before := slices.Clone(slots)
			var res backend.Result
			_, next := algorithm.Take(slots, []*algorithm.Rule{step.rule, free}, step.now, step.cost, &res)
			if (next != nil) != step.want {
				t.Errorf("%v, step %d: Take(%d, %v) has something to write is %v, want %v", a, i, step.cost, step.rule.Limit(), next != nil, step.want)
			}
			if next != nil {
				slots = next
			} else if !slices.Equal(slots, before) {
				t.Errorf("%v, step %d: Take(%d, %v) changed slots and does not say so", a, i, step.cost, step.rule.Limit())
			}
			if next != nil && (len(next) != 2 || next[1] != algorithm.Slot{}) {
				t.Errorf("%v, step %d: got slots %+v, want one for each limit, and an empty one for that which keeps no state", a, i, next)
			}
		}
		const now = 2_001_000
		if rules := []*algorithm.Rule{five, free}; algorithm.Settle(slots, rules, now, now, 1, 1, 0) != nil ||
			algorithm.Settle(slots[1:], rules, now, now, 1, 0, 0) != nil || algorithm.Settle(nil, rules, now, now, 1, 0, 0) != nil ||
			algorithm.Settle(slots, []*algorithm.Rule{free}, now, now, 1, 9, 0) != nil {
			t.Errorf("%v: Settle has something to write, and had nothing to correct", a)
		}
		rules := []*algorithm.Rule{free, two}
		if slots = algorithm.Settle(slots, rules, now, now, 1, 0, 0); slots == nil {
			t.Errorf("%v: Settle of a limit that moved has nothing to write", a)
		}
		if algorithm.Settle(slots, rules, now, now, 1, 0, 0) != nil {
			t.Errorf("%v: Settle has something to write after everything was given back", a)
		}
		if slots = algorithm.Settle(slots, rules, now, now, 0, 1, 0); len(slots) != 2 || slots[0] != (algorithm.Slot{}) {
			t.Errorf("%v: Settle for more: got slots %+v, want one for each limit, and an empty one for that which keeps no state", a, slots)
		}
	}
}

// TestManyLimits has more limits than Take has room for without memory of its own.
func TestManyLimits(t *testing.T) {
	var rules []*algorithm.Rule
	for i := range int64(20) {
		rules = append(rules, rule(t, per(20+i, time.Duration(1+i)*time.Hour).WithAlgorithm(algorithms[i%4])))
	}
	var slots []algorithm.Slot
	for n := range int64(20) {
		if n%2 == 1 {
			slices.Reverse(rules)
		}
		var res backend.Result
		decided, next := algorithm.Take(slots, rules, 1000, 1, &res)
		if !res.Allowed || res.Remaining != 19-n || rules[decided].Limit().Count != 20 {
			t.Fatalf("charge %d: got %+v of %v, want %d left of 20", n, res, rules[decided].Limit(), 19-n)
		}
		slots = next
	}
	for range 19 { // in whatever order
		rules = append(rules[1:], rules[0])
		slots = algorithm.Settle(slots, rules, 1000, 1000, 1, 0, 0)
	}
	var res backend.Result
	if algorithm.Take(slots, rules, 1000, 0, &res); res.Remaining != 19 {
		t.Errorf("after 20 charges and 19 refunds %d are left, want 19", res.Remaining)
	}
}

// TestSlidingWindowWorstCase looks for the most units that a sliding window admits in one Period.
// The worst is a burst at the very end of a window and a greedy flow through the next. It comes
// near to 2 × Count, and never reaches it: the bound in SlidingWindow's comment.
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

// mostInAPeriod returns the most units in any Period if early units come first, the rest at an
// instant, and from then on one whenever it fits.
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

// FuzzLimit: a limit is refused with an error that says so, or works.
func FuzzLimit(f *testing.F) {
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
			k.settle(t, charged, cost, r.Int64N(2*min(cost, 1<<50)+1), limit)
		case 3:
			k.now++
		}
	}
}
