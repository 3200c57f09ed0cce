// Package backendtest is the conformance suite of ginlimit's backends: one call of [Run] drives a
// [backend.Backend] through written traces, through named rules, and through random schedules
// against a model that shares no code with the algorithms. A backend that passes gives the same
// answers as every other that does, to the microsecond.
//
// The test of an implementation is a few lines:
//
//	func TestConformance(t *testing.T) {
//		backendtest.Run(t, backendtest.Harness{
//			New: func(t *testing.T) (backend.Backend, func(time.Duration)) {
//				return memory.New(), time.Sleep
//			},
//			Bubble: synctest.Test,
//		})
//	}
//
// Every subtest is one rule. When it fails, its last line says in one sentence what the rule
// demands.
package backendtest

import (
	"context"
	"testing"
	"time"

	"github.com/ginlimit/ginlimit/backend"
)

// Harness tells [Run] how to make a backend and how to move its clock. Only New is required.
type Harness struct {
	// New returns an empty backend for one test, and a function that moves the backend's clock by
	// d. The clock must stand still otherwise. New is called inside the function that is given to
	// Bubble. What the backend holds open is closed with t.Cleanup.
	New func(t *testing.T) (b backend.Backend, advance func(d time.Duration))

	// Bubble runs one test. A backend that reads the process's clock sets it to
	// testing/synctest.Test, and time.Sleep as New's advance. Nil means that f is called directly.
	Bubble func(t *testing.T, f func(t *testing.T))

	// Backward says that advance takes a negative d too. Without it the rules of a clock that went
	// back are skipped.
	Backward bool

	// TTL returns how long the store would still keep key if nobody used it, 0 if it does not hold
	// key: what PTTL says, or expires_at - now. The suite allows for a minute that a real server's
	// clock runs on during a test. Nil skips the rules of expiry.
	TTL func(t *testing.T, b backend.Backend, key string) time.Duration

	// OneByOne says that TakeAll charges one key after another, and gives back what it charged if a
	// later one refuses: as algorithm.Sequential does. Then others may be refused meanwhile, and a
	// window may begin with what is given back. Random schedules leave TakeAll out.
	OneByOne bool

	// Rounds is the number of random schedules of each kind, each of about 120 steps. 0 means 16,
	// and 6 with go test -short. A slow store sets less, a nightly run more.
	Rounds int

	// Seed is the seed of the first random schedule; the next ones count up from it. 0 means 1. A
	// schedule that fails prints the Seed that makes it the first.
	Seed uint64

	// Callers is the number of goroutines that hit one key at once. 0 means 10,000; a store with
	// few connections may set less, but not below 500.
	Callers int
}

func (h Harness) rounds() int {
	switch {
	case h.Rounds > 0:
		return h.Rounds
	case testing.Short():
		return 6
	default:
		return 16
	}
}

func (h Harness) seed() uint64 { return max(h.Seed, 1) }

func (h Harness) callers() int {
	if h.Callers == 0 {
		return 10_000
	}
	return max(h.Callers, 500)
}

// Run runs the suite against the backend of h, as subtests of t.
func Run(t *testing.T, h Harness) {
	if h.New == nil {
		t.Fatal("backendtest: Harness.New is nil")
	}
	for _, g := range []struct {
		name  string
		rules []rule
	}{
		{"TokenBucket", asRules(tokenBucketTraces)},
		{"SlidingWindow", asRules(slidingWindowTraces)},
		{"SlidingLog", asRules(slidingLogTraces)},
		{"FixedWindow", asRules(fixedWindowTraces)},
		{"CalendarWindow", asRules(calendarWindowTraces)},
		{"Concurrency", asRules(concurrencyTraces)},
		{"Bans", asRules(banTraces)},
		{"SeveralLimits", asRules(severalLimitsTraces)},
		{"Refund", asRules(refundTraces)},
		{"Settle", asRules(settleTraces)},
		{"Change", asRules(changeTraces)},
		{"Backward", asRules(backwardTraces)},
		{"Versions", versionRules},
		{"Rules", contractRules},
		{"All", allRules},
		{"Expiry", expiryRules},
		{"Exactness", exactnessRules},
		{"AtOnce", concurrencyRules},
		{"Random", randomRules()},
	} {
		t.Run(g.name, func(t *testing.T) {
			for _, r := range g.rules {
				t.Run(r.name, func(t *testing.T) { r.check(t, h) })
			}
		})
	}
}

// rule is one demand on a backend.
type rule struct {
	name     string
	demand   string // one sentence: what a backend has to do
	backward bool   // needs a clock that goes back
	ttl      bool   // needs Harness.TTL
	run      func(e *env)
}

func (r rule) check(t *testing.T, h Harness) {
	switch {
	case r.backward && !h.Backward:
		t.Skip("the clock of this backend cannot be moved back (Harness.Backward is not set)")
	case r.ttl && h.TTL == nil:
		t.Skip("Harness.TTL is not set")
	}
	bubble := h.Bubble
	if bubble == nil {
		bubble = func(t *testing.T, f func(t *testing.T)) { f(t) }
	}
	bubble(t, func(t *testing.T) {
		defer func() {
			if t.Failed() {
				t.Logf("the rule: %s", r.demand)
			}
		}()
		r.run(open(t, h))
	})
}

// env is a fresh backend in one test, and where its clock stands.
type env struct {
	*testing.T
	h       Harness
	b       backend.Backend
	advance func(time.Duration)
	start   time.Time     // of the backend's clock
	now     time.Duration // since start
}

func open(t *testing.T, h Harness) *env {
	t.Helper()
	b, advance := h.New(t)
	e := &env{T: t, h: h, b: b, advance: advance}
	res, err := b.Take(context.Background(), "the clock", 0, per(1, time.Second))
	if err != nil {
		t.Fatalf("Take of cost 0 on a fresh backend: got error %v, want none", err)
	}
	if e.start = res.At; res.At.Nanosecond()%1000 != 0 {
		t.Fatalf("At is %v, want whole microseconds", res.At)
	}
	return e
}

// move moves the clock by d.
func (e *env) move(d time.Duration) {
	if d != 0 {
		e.advance(d)
		e.now += d
	}
}

// moveTo moves the clock to at since the start.
func (e *env) moveTo(at time.Duration) { e.move(at - e.now) }

// take is the backend's Take, which must reach a decision, at this instant, for one of the limits.
func (e *env) take(key string, cost int64, limits ...backend.Limit) backend.Result {
	e.Helper()
	res, err := e.b.Take(context.Background(), key, cost, limits...)
	if err != nil {
		e.Fatalf("at %v: Take(%.40q, %d, %v): got error %v, want a decision", e.now, key, cost, limits, err)
	}
	if want := e.start.Add(e.now); !res.At.Equal(want) {
		e.Fatalf("at %v: Take(%.40q, %d, %v): At is %v, want %v", e.now, key, cost, limits, res.At, want)
	}
	return res
}

// must is take of a cost that fits.
func (e *env) must(key string, cost int64, limits ...backend.Limit) backend.Result {
	e.Helper()
	res := e.take(key, cost, limits...)
	if !res.Allowed {
		e.Fatalf("at %v: Take(%.40q, %d, %v): refused (%d left, retry after %v), want it admitted", e.now, key, cost, limits, res.Remaining, res.RetryAfter)
	}
	return res
}

// refund settles for nothing.
func (e *env) refund(key string, charge backend.Result, cost int64, limits ...backend.Limit) {
	e.Helper()
	e.settle(key, charge, cost, 0, limits...)
}

func (e *env) settle(key string, charge backend.Result, cost, actual int64, limits ...backend.Limit) {
	e.Helper()
	if err := e.b.Settle(context.Background(), key, charge, cost, actual, limits...); err != nil {
		e.Fatalf("at %v: Settle(%.40q, %d, %d, %v): got error %v, want none", e.now, key, cost, actual, limits, err)
	}
}

// usage is the backend's Usage, which must answer, at this instant, for each of the limits.
func (e *env) usage(key string, limits ...backend.Limit) []backend.Result {
	e.Helper()
	all, err := e.b.Usage(context.Background(), key, limits...)
	if err != nil || len(all) != len(limits) {
		e.Fatalf("at %v: Usage(%.40q, %v): got %d results and error %v, want one for each limit", e.now, key, limits, len(all), err)
	}
	for i, res := range all {
		if want := e.start.Add(e.now); !res.At.Equal(want) || res.Limit != limits[i] || res.Source != backend.SourceStore {
			e.Fatalf("at %v: Usage(%.40q, %v): result %d is of %v at %v from %v, want %v from the store", e.now, key, limits, i, res.Limit, res.At, res.Source, want)
		}
	}
	return all
}

// takeAll is the backend's TakeAll, which must reach a decision, at this instant.
func (e *env) takeAll(charges ...backend.Charge) []backend.Result {
	e.Helper()
	all, err := e.b.TakeAll(context.Background(), charges...)
	if err != nil || len(all) != len(charges) {
		e.Fatalf("at %v: TakeAll(%v): got %d results and error %v, want one for each charge", e.now, charges, len(all), err)
	}
	for i, res := range all {
		if want := e.start.Add(e.now); !res.At.Equal(want) {
			e.Fatalf("at %v: TakeAll(%v): At of result %d is %v, want %v", e.now, charges, i, res.At, want)
		}
	}
	return all
}

func (e *env) reset(key string) {
	e.Helper()
	if err := e.b.Reset(context.Background(), key); err != nil {
		e.Fatalf("at %v: Reset(%.40q): got error %v, want none", e.now, key, err)
	}
}

// left checks what a look at the key says remains.
func (e *env) left(want int64, key string, limits ...backend.Limit) {
	e.Helper()
	if got := e.take(key, 0, limits...).Remaining; got != want {
		e.Errorf("at %v: %.40q under %v has %d left, want %d", e.now, key, limits, got, want)
	}
}

func per(count int64, period time.Duration) backend.Limit {
	return backend.Limit{Count: count, Period: period}
}

// everyAlgorithm returns count per period, counted in each of the ways that a period has.
func everyAlgorithm(count int64, period time.Duration) []backend.Limit {
	var all []backend.Limit
	for _, a := range rates() {
		all = append(all, per(count, period).WithAlgorithm(a))
	}
	return all
}

// rates returns the algorithms that count units in a period.
func rates() (all []backend.Algorithm) {
	for a := backend.TokenBucket; a < backend.CalendarWindow; a++ {
		all = append(all, a)
	}
	return all
}

func algorithms() (all []backend.Algorithm) {
	for a := backend.TokenBucket; a <= backend.Concurrency; a++ {
		all = append(all, a)
	}
	return all
}
