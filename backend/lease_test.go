package backend_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/backendtest"
	"github.com/ginlimit/ginlimit/backend/memory"
)

var ctx = context.Background()

// TestLeaseConformance runs the whole suite with keys that are taken for cold: then a Lease decides
// as what is below it.
func TestLeaseConformance(t *testing.T) {
	backendtest.Run(t, backendtest.Harness{
		New: func(*testing.T) (backend.Backend, func(time.Duration)) {
			return backend.NeverHot(backend.Lease(memory.New(), 1_000)), time.Sleep
		},
		Bubble: synctest.Test,
	})
}

// TestLeaseConformanceHot runs it with keys that get hot. All named rules and written traces hold
// as they are. The random schedules compare every ResetAfter and At with the model's, to the
// microsecond, and those of a lease are of the instant of its charge: they hold only for a schedule
// in which none is taken, as that of seed 2. What a lease admits is compared by the tests
// below instead.
func TestLeaseConformanceHot(t *testing.T) {
	backendtest.Run(t, backendtest.Harness{
		New: func(*testing.T) (backend.Backend, func(time.Duration)) {
			return backend.Lease(memory.New(), 1_000), time.Sleep
		},
		Bubble: synctest.Test,
		Rounds: 1, Seed: 2,
	})
}

// store is a backend that takes its time, counts and can fail.
type store struct {
	backend.Backend
	delay                         func() time.Duration // of each way; nil for none
	down, panics                  atomic.Bool          // panics: once
	takes, looks, refunds, resets atomic.Int64
	charged                       atomic.Int64 // units
	refunded                      refunded     // of what has recovered too
	busy, busiest                 atomic.Int64 // calls at once

	mu   sync.Mutex
	ends map[time.Time]bool // of fixed windows
}

// refunded counts the units that each limit of a key was given back: a Lease gives to each what
// that can still get, and puts Unlimited in the place of the others.
type refunded [8]atomic.Int64

func (r *refunded) add(units int64, limits []backend.Limit) {
	for i, l := range limits {
		if !l.IsUnlimited() {
			r[i].Add(units)
		}
	}
}

// Load returns the units of the limit that got most.
func (r *refunded) Load() (most int64) {
	for i := range r {
		most = max(most, r[i].Load())
	}
	return most
}

var errStore = fmt.Errorf("ginlimit: test: the store is down: %w", backend.ErrUnavailable)

func newStore() *store { return &store{Backend: memory.New(), ends: map[time.Time]bool{}} }

// rtt makes every call of s take d.
func (s *store) rtt(d time.Duration) *store {
	s.delay = func() time.Duration { return d / 2 }
	return s
}

func (s *store) travel() {
	if s.delay != nil {
		time.Sleep(s.delay())
	}
}

func (s *store) calls() int64 { return s.takes.Load() + s.looks.Load() + s.refunds.Load() }

func (s *store) Take(ctx context.Context, key string, cost int64, limits ...backend.Limit) (backend.Result, error) {
	if cost == 0 {
		s.looks.Add(1)
	} else {
		s.takes.Add(1)
	}
	n := s.busy.Add(1)
	defer s.busy.Add(-1)
	for old := s.busiest.Load(); n > old && !s.busiest.CompareAndSwap(old, n); old = s.busiest.Load() {
	}
	s.travel()
	if s.panics.Swap(false) {
		panic("store")
	}
	if s.down.Load() {
		s.travel()
		return backend.Result{}, errStore
	}
	res, err := s.Backend.Take(ctx, key, cost, limits...)
	if err == nil && res.Allowed && cost > 0 {
		s.charged.Add(cost)
		s.mu.Lock()
		s.ends[res.At.Add(res.ResetAfter)] = true
		s.mu.Unlock()
	}
	s.travel()
	return res, err
}

func (s *store) Settle(ctx context.Context, key string, charge backend.Result, cost, actual int64, limits ...backend.Limit) error {
	s.refunds.Add(1)
	s.travel()
	if s.down.Load() {
		return errStore
	}
	s.refunded.add(cost-actual, limits)
	err := s.Backend.Settle(ctx, key, charge, cost, actual, limits...)
	s.travel()
	return err
}

func (s *store) Reset(ctx context.Context, key string) error {
	s.resets.Add(1)
	s.travel()
	return s.Backend.Reset(ctx, key)
}

func mustTake(t *testing.T, b backend.Backend, cost int64, limits ...backend.Limit) backend.Result {
	t.Helper()
	res, err := b.Take(ctx, "k", cost, limits...)
	if err != nil {
		t.Fatalf("Take(%d, %v): got error %v, want a decision", cost, limits, err)
	}
	return res
}

// heat takes single units until one comes from a lease, and returns how many were taken, and that
// last one.
func heat(t *testing.T, b backend.Backend, limits ...backend.Limit) (int64, backend.Result) {
	t.Helper()
	for n := int64(1); n < 100; n++ {
		if res := mustTake(t, b, 1, limits...); res.Source == backend.SourceLease {
			return n, res
		}
	}
	t.Fatal("100 requests at once did not make the key hot")
	return 0, backend.Result{}
}

// left is what a look at the store says remains.
func left(t *testing.T, b backend.Backend, limits ...backend.Limit) int64 {
	t.Helper()
	return mustTake(t, b, 0, limits...).Remaining
}

func each(t *testing.T, count int64, period time.Duration, f func(t *testing.T, limit backend.Limit)) {
	for _, a := range algorithms {
		t.Run(a.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { f(t, per(count, period).WithAlgorithm(a)) })
		})
	}
}

func TestLeaseColdKeyCostsOneCall(t *testing.T) {
	each(t, 1000, time.Minute, func(t *testing.T, limit backend.Limit) {
		s, twin := newStore(), memory.New()
		l := backend.Lease(s, 100)
		for i := range 300 {
			key := fmt.Sprint("slow ", i%2)
			if i%3 == 0 {
				key = fmt.Sprint("once ", i)
			}
			got, _ := l.Take(ctx, key, 3, limit)
			want, _ := twin.Take(ctx, key, 3, limit)
			if got != want {
				t.Fatalf("Take(%q): got %+v, want %+v", key, got, want)
			}
			time.Sleep(20 * time.Millisecond) // a slow key has less than 4 requests in 100 ms
		}
		if s.calls() != 300 {
			t.Errorf("300 decisions about cold keys took %d calls of the store, want one each", s.calls())
		}
	})
}

func TestLeaseHotKeySavesCalls(t *testing.T) {
	for _, test := range []struct {
		name    string
		callers int
		costs   int64 // up to this
		saved   int64 // decisions for one call, at least
	}{
		{"one caller", 1, 1, 20},
		{"many callers", 200, 1, 20},
		{"many callers, random costs", 200, 5, 8}, // 100 units are 33 requests
	} {
		t.Run(test.name, func(t *testing.T) {
			each(t, 1_000_000, time.Hour, func(t *testing.T, limit backend.Limit) {
				s := newStore().rtt(time.Millisecond)
				l := backend.Lease(s, 100)
				var wg sync.WaitGroup
				for i := range test.callers {
					wg.Go(func() {
						r := rand.New(rand.NewPCG(1, uint64(i)))
						for range 20_000 / test.callers {
							res, err := l.Take(ctx, "k", 1+r.Int64N(test.costs), limit)
							if err != nil || !res.Allowed {
								t.Errorf("got %+v and error %v, want it admitted", res, err)
							}
							time.Sleep(100 * time.Microsecond)
						}
					})
				}
				wg.Wait()
				if saved := 20_000 / s.calls(); saved < test.saved {
					t.Errorf("20,000 decisions took %d calls, one for %d, want one for at least %d", s.calls(), saved, test.saved)
				}
				if s.busiest.Load() > 4 { // before the key is hot
					t.Errorf("%d calls of the store at once, want one flight at a time", s.busiest.Load())
				}
			})
		})
	}
}

// TestLeaseEndsWithItsWindow takes a lease shortly before the end of a window: what is left of it
// is not spent in the next.
func TestLeaseEndsWithItsWindow(t *testing.T) {
	window := per(100, 10*time.Second).WithAlgorithm(backend.FixedWindow)
	for name, limits := range map[string][]backend.Limit{
		"alone":              {window},
		"beside one":         {per(1000, 10*time.Second).WithAlgorithm(backend.SlidingLog), window},
		"beside the tighter": {per(80, 10*time.Second).WithAlgorithm(backend.SlidingLog), window},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStore()
				l := backend.Lease(s, 50, backend.WithLeaseTime(time.Second))
				mustTake(t, l, 1, limits...)
				time.Sleep(10*time.Second - time.Millisecond)
				_, old := heat(t, l, limits...)
				time.Sleep(time.Millisecond - time.Microsecond)
				if res := mustTake(t, l, 1, limits...); res.Source != backend.SourceLease {
					t.Errorf("1 µs before the window ends: decided by the %v, want the lease", res.Source)
				}
				time.Sleep(time.Microsecond)
				refunds := s.refunds.Load()
				if res := mustTake(t, l, 1, limits...); res.Source != backend.SourceStore {
					t.Errorf("when the window ends: decided by the %v, want the store", res.Source)
				}
				if more := s.refunds.Load() - refunds; (len(limits) == 1) != (more == 0) {
					t.Errorf("%d refunds to a window that is over", more)
				}
				alone := []backend.Limit{window}
				if len(limits) == 2 {
					alone = []backend.Limit{backend.Unlimited(), window}
				}
				if err := l.Settle(ctx, "k", old, 1, 0, limits...); err != nil {
					t.Fatal(err)
				}
				if got := left(t, l, alone...); got != 99 {
					t.Errorf("%d are left in the new window, want 99", got)
				}
			})
		})
	}
}

func TestLeaseGivesBack(t *testing.T) {
	each(t, 1000, time.Minute, func(t *testing.T, limit backend.Limit) {
		s := newStore()
		l := backend.Lease(s, 50)
		n, _ := heat(t, l, limit)
		for range 20 {
			mustTake(t, l, 1, limit)
		}
		used := n + 20
		time.Sleep(100 * time.Millisecond)
		if s.charged.Load() == used {
			t.Fatal("nothing is left of the lease; the test shows nothing")
		}
		res := mustTake(t, l, 1, limit)
		if net := s.charged.Load() - s.refunded.Load(); net != used+1 && res.Source != backend.SourceStore {
			t.Errorf("%d units are charged for %d that were spent", net, used+1)
		}
		if want := 1000 - used - 1; left(t, s, limit) < want {
			t.Errorf("%d are left, want %d", left(t, s, limit), want)
		}
		// What is left of a lease is dropped once the limit has recovered.
		heat(t, l, limit)
		time.Sleep(2 * time.Minute)
		refunds := s.refunds.Load()
		mustTake(t, l, 1, limit)
		if s.refunds.Load() != refunds {
			t.Error("a charge that has recovered was given back")
		}
	})
}

func TestLeaseResult(t *testing.T) {
	each(t, 1000, time.Minute, func(t *testing.T, limit backend.Limit) {
		limit = limit.Named("policy")
		s := newStore()
		l := backend.Lease(s, 100)
		start := time.Now()
		n, res := heat(t, l, limit)
		if res.Limit != limit || res.Remaining != 1000-n || res.RetryAfter != 0 || !res.Allowed || !res.At.Equal(start) {
			t.Errorf("got %+v, want %d left of %v at %v", res, 1000-n, limit, start)
		}
		reset := res.ResetAfter
		time.Sleep(40 * time.Millisecond)
		calls := s.calls()
		got := mustTake(t, l, 1, limit)
		if s.calls() != calls {
			t.Error("a lease that has units asked the store")
		}
		want := res
		want.Remaining, want.ResetAfter = res.Remaining-1, reset-40*time.Millisecond
		if got != want {
			t.Errorf("40 ms later:\n got %+v\nwant %+v", got, want)
		}
		// A look asks the store, which may have got something since.
		look := mustTake(t, l, 0, limit)
		if look.Remaining < got.Remaining || look.Remaining > got.Remaining+1 || look.Source != backend.SourceStore || s.looks.Load() != 1 {
			t.Errorf("a look says %d are left, want the store's answer, %d", look.Remaining, got.Remaining)
		}
		// And one under another limit, which the lease was charged to as well.
		if limit.Algorithm != backend.TokenBucket {
			if look := mustTake(t, l, 0, limit.Named("other")); look.Remaining != got.Remaining {
				t.Errorf("a look under another name says %d are left, want %d", look.Remaining, got.Remaining)
			}
		}
	})
}

// TestLeaseLookWhileOnlyTheLeaseHasUnits takes from another instance what the store has left.
func TestLeaseLookWhileOnlyTheLeaseHasUnits(t *testing.T) {
	each(t, 100, time.Hour, func(t *testing.T, limit backend.Limit) {
		s := newStore()
		l := backend.Lease(s, 50)
		_, res := heat(t, l, limit)
		rest := left(t, s, limit)
		mustTake(t, s, rest, limit)
		want := res.Remaining - rest
		if look := mustTake(t, l, 0, limit); !look.Allowed || look.RetryAfter != 0 || look.Remaining != want {
			t.Errorf("look: got %+v, want %d left in the lease", look, want)
		}
		// A cost that the lease alone has not, but the store has with what is given back.
		mustRefund(t, s, want, limit)
		if res := mustTake(t, l, want+1, limit); !res.Allowed {
			t.Errorf("Take(%d) with %d in the lease and %d in the store: refused, want it admitted", want+1, want, want)
		}
		for mustTake(t, l, 1, limit).Allowed {
		}
		if net := s.charged.Load() - s.refunded.Load(); net > 101 { // a bucket was refilled a little
			t.Errorf("%d units are charged, want 100", net)
		}
	})
}

// mustRefund gives units back to the store that somebody else charged just now.
func mustRefund(t *testing.T, s *store, units int64, limit backend.Limit) {
	t.Helper()
	charge := backend.Result{Allowed: true, At: time.Now()}
	if err := s.Settle(ctx, "k", charge, units, 0, limit); err != nil {
		t.Fatal(err)
	}
}

func TestLeaseRefund(t *testing.T) {
	const period = 10 * time.Second
	each(t, 1000, period, func(t *testing.T, limit backend.Limit) {
		refund := func(l backend.Backend, charge backend.Result, units int64) {
			t.Helper()
			if err := l.Settle(ctx, "k", charge, units, 0, limit); err != nil {
				t.Fatal(err)
			}
		}
		s := newStore()
		l := backend.Lease(s, 100)
		_, first := heat(t, l, limit)
		calls := s.calls()
		refund(l, first, 1)
		if again := mustTake(t, l, 1, limit); again != first || s.calls() != calls {
			t.Errorf("after the refund of a unit of the lease: got %+v after %d calls, want %+v without one", again, s.calls()-calls, first)
		}
		refund(l, first, 1)
		refund(l, first, 1_000) // more than the lease had: the rest goes to the store, which knows what was charged
		if s.refunds.Load() != 1 {
			t.Errorf("%d refunds reached the store, want 1", s.refunds.Load())
		}
		if err := l.Reset(ctx, "k"); err != nil {
			t.Fatal(err)
		}

		// After the lease the window is credited that was charged, by the instant that At says.
		_, charge := heat(t, l, limit)
		charged := time.Now()
		time.Sleep(150 * time.Millisecond)
		before := s.refunds.Load()
		if refund(l, charge, 1); s.refunds.Load() != before+1 {
			t.Error("a refund to a lease that is over did not reach the store")
		}
		mustTake(t, l, 1, limit) // gives the rest back
		before = left(t, s, limit)
		if limit.Algorithm == backend.TokenBucket { // which does not say what it is refilled with
			mustTake(t, s, 500, limit)
			before -= 500
		}
		refund(l, charge, 1)
		if got := left(t, s, limit); got != before+1 {
			t.Errorf("%d are left after the refund of a lease that is over, want %d", got, before+1)
		}
		// While a newer lease lasts that has room.
		heat(t, l, limit)
		before = left(t, s, limit)
		refund(l, charge, 1)
		if got := left(t, s, limit); limit.Algorithm != backend.SlidingLog && got != before+1 {
			t.Errorf("%d are left after a refund to a lease before this one, want %d", got, before+1)
		}
		// A charge that has aged out gives nothing back: when a bucket has filled, a log's entry is
		// a Period old, or the window is over.
		age := period
		if limit.Algorithm == backend.SlidingWindow {
			age *= 2
		}
		time.Sleep(time.Until(charged.Add(age)))
		if limit.Algorithm != backend.SlidingLog {
			mustTake(t, s, 300, limit)
		}
		before = left(t, s, limit)
		refund(l, charge, 1)
		if got := left(t, s, limit); got != before {
			t.Errorf("%d are left after the refund of a charge that has aged out, want %d", got, before)
		}
	})
}

func TestLeaseReset(t *testing.T) {
	each(t, 1000, time.Hour, func(t *testing.T, limit backend.Limit) {
		s := newStore()
		l := backend.Lease(s, 100)
		_, charge := heat(t, l, limit)
		if err := l.Reset(ctx, "k"); err != nil || s.resets.Load() != 1 {
			t.Fatalf("Reset: got error %v and %d resets of the store, want none and 1", err, s.resets.Load())
		}
		if res := mustTake(t, l, 10, limit); res.Source != backend.SourceStore || res.Remaining != 990 {
			t.Errorf("after Reset: got %+v, want 990 left by the store", res)
		}
		_ = l.Settle(ctx, "k", charge, 1, 0, limit)
		if s.refunds.Load() != 1 {
			t.Error("a refund to a lease that was reset did not reach the store")
		}
	})
	t.Run("while a lease is fetched", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			limit := per(1000, time.Hour).WithAlgorithm(backend.FixedWindow)
			s := newStore().rtt(20 * time.Millisecond)
			l := backend.Lease(s, 100)
			for range 3 {
				mustTake(t, l, 1, limit)
			}
			var wg sync.WaitGroup
			wg.Go(func() { mustTake(t, l, 1, limit) }) // charged after 10 ms, back after 20
			time.Sleep(time.Millisecond)
			wg.Go(func() {
				if err := l.Reset(ctx, "k"); err != nil { // reaches the store after 10 ms
					t.Error(err)
				}
			})
			wg.Wait()
			if s.refunds.Load() != 1 {
				t.Errorf("%d refunds, want that of the lease, which may have been charged after the Reset", s.refunds.Load())
			}
			if res := mustTake(t, l, 1, limit); res.Source != backend.SourceStore || res.Remaining != 999 {
				t.Errorf("after Reset: got %+v, want the store's answer, 999 left", res)
			}
		})
	})
}

func TestLeaseChangedLimits(t *testing.T) {
	each(t, 1000, time.Hour, func(t *testing.T, limit backend.Limit) {
		s := newStore()
		l := backend.Lease(s, 100)
		n, _ := heat(t, l, limit)
		raised := limit
		raised.Count = 2000
		res := mustTake(t, l, 1, raised)
		if res.Source != backend.SourceStore || res.Limit != raised || res.Remaining != 2000-n-1 {
			t.Errorf("under a raised limit: got %+v, want %d left by the store", res, 2000-n-1)
		}
		// Two tiers that alternate take and lose nothing.
		refunds := s.refunds.Load()
		for range 50 {
			for range 3 {
				mustTake(t, l, 1, limit)
			}
			time.Sleep(time.Millisecond)
			for range 3 {
				mustTake(t, l, 1, raised)
			}
		}
		if s.refunds.Load() != refunds {
			t.Errorf("%d leases were taken and given back while two tiers alternated, want none", s.refunds.Load()-refunds)
		}
		// A name is part of the answer, and so of the limits.
		mustTake(t, l, 1, limit)
		time.Sleep(100 * time.Millisecond)
		heat(t, l, limit)
		if res := mustTake(t, l, 1, limit.Named("other")); res.Limit.Name != "other" {
			t.Errorf("the Limit of the Result is %q, want %q", res.Limit.Name, "other")
		}
	})
	t.Run("while a lease is fetched", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newStore().rtt(20 * time.Millisecond)
			l := backend.Lease(s, 100)
			limit, other := per(1000, time.Hour), per(1000, time.Hour).Named("other")
			var wg sync.WaitGroup
			for range 3 {
				mustTake(t, l, 1, limit)
			}
			wg.Go(func() { mustTake(t, l, 1, limit) })
			time.Sleep(time.Millisecond)
			wg.Go(func() { mustTake(t, l, 1, other) })
			wg.Wait()
			if net := s.charged.Load() - s.refunded.Load(); net != 5 || s.refunds.Load() != 1 {
				t.Errorf("%d units are charged for 5 requests after %d refunds, want 5 after that of the lease", net, s.refunds.Load())
			}
			if res := mustTake(t, l, 1, other); res.Source != backend.SourceStore || res.Limit != other {
				t.Errorf("after it: got %+v, want an answer of the store under %q", res, other.Name)
			}
		})
	})
}

// TestLeaseWindowUnknown lets the store fail when it is asked for the end of a window: then nothing
// is leased, nor lost.
func TestLeaseWindowUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		s.Backend = blind{s.Backend}
		l := backend.Lease(s, 100)
		limits := []backend.Limit{per(100, time.Hour), per(1000, time.Hour).WithAlgorithm(backend.FixedWindow)}
		for range 50 {
			if res := mustTake(t, l, 1, limits...); res.Source != backend.SourceStore {
				t.Fatalf("decided by the %v, want the store", res.Source)
			}
		}
		time.Sleep(200 * time.Millisecond)
		mustTake(t, l, 1, limits...)
		if net := s.charged.Load() - s.refunded.Load(); net != 51 {
			t.Errorf("%d units are charged for 51 requests", net)
		}
	})
}

// blind fails looks.
type blind struct{ backend.Backend }

func (b blind) Take(ctx context.Context, key string, cost int64, limits ...backend.Limit) (backend.Result, error) {
	if cost == 0 {
		return backend.Result{}, errStore
	}
	return b.Backend.Take(ctx, key, cost, limits...)
}

func TestLeaseStoreFails(t *testing.T) {
	each(t, 1000, time.Hour, func(t *testing.T, limit backend.Limit) {
		s := newStore()
		l := backend.Lease(s, 100)
		heat(t, l, limit)
		for s.charged.Load() < 60 { // so that a lease is large
			mustTake(t, l, 1, limit)
		}
		s.down.Store(true)
		mustTake(t, l, 1, limit)
		if _, err := l.Take(ctx, "k", 40, limit); !errors.Is(err, backend.ErrUnavailable) {
			t.Errorf("a cost above what the lease has: got error %v, want ErrUnavailable", err)
		}
		mustTake(t, l, 1, limit) // still
		time.Sleep(100 * time.Millisecond)
		if _, err := l.Take(ctx, "k", 1, limit); !errors.Is(err, backend.ErrUnavailable) {
			t.Errorf("after the lease: got error %v, want ErrUnavailable", err)
		}
		s.down.Store(false)
		if res := mustTake(t, l, 1, limit); res.Source != backend.SourceStore {
			t.Errorf("when the store is back: decided by the %v, want the store", res.Source)
		}
	})
}

// crowd lets callers take cost while a lease is fetched, and returns the answers.
func crowd(t *testing.T, s *store, l backend.Backend, callers int, cost int64, limit backend.Limit) (results []backend.Result, failed []error) {
	t.Helper()
	heat(t, l, limit)
	for { // until the lease is used up
		if res := mustTake(t, l, 1, limit); res.Remaining == left(t, s, limit) {
			break
		}
	}
	s.rtt(10 * time.Millisecond)
	s.takes.Store(0)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			res, err := l.Take(ctx, "k", cost, limit)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = append(failed, err)
			} else {
				results = append(results, res)
			}
		})
	}
	wg.Wait()
	return results, failed
}

func TestLeaseOneAsksForAll(t *testing.T) {
	limit := per(1000, time.Hour).WithAlgorithm(backend.FixedWindow)
	t.Run("units", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newStore()
			results, _ := crowd(t, s, backend.Lease(s, 100), 300, 1, limit)
			if s.takes.Load() > 20 || len(results) != 300 {
				t.Errorf("%d calls for %d decisions, want a few for 300", s.takes.Load(), len(results))
			}
		})
	})
	t.Run("a refusal", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newStore()
			l := backend.Lease(s, 100)
			heat(t, l, limit)
			for mustTake(t, l, 1, limit).Remaining != left(t, s, limit) {
			}
			mustTake(t, s, left(t, s, limit), limit) // which the lease does not know of
			s.rtt(10 * time.Millisecond)
			s.takes.Store(0)
			var wg sync.WaitGroup
			for i := range 50 {
				wg.Go(func() {
					res, err := l.Take(ctx, "k", 1, limit)
					if err != nil || res.Allowed || res.Limit != limit || res.RetryAfter <= 0 {
						t.Errorf("caller %d: got %+v, error %v, want a refusal by %v", i, res, err, limit)
					}
				})
			}
			wg.Wait()
			if s.takes.Load() != 2 { // with a lease, and without
				t.Errorf("50 refusals took %d calls, want 2", s.takes.Load())
			}
		})
	})
	t.Run("not a refusal of another cost", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			limit := per(1000, time.Hour)
			s := newStore()
			l := backend.Lease(s, 100)
			heat(t, l, limit)
			for mustTake(t, l, 1, limit).Remaining != left(t, s, limit) {
			}
			mustTake(t, s, left(t, s, limit), limit)
			s.rtt(10 * time.Millisecond)
			var wg sync.WaitGroup
			for cost := range int64(5) {
				wg.Go(func() {
					if got, want := mustTake(t, l, cost+1, limit).RetryAfter, time.Duration(cost+1)*3600*time.Millisecond; got > want || got < want-100*time.Millisecond {
						t.Errorf("Take(%d): RetryAfter is %v, want about %v", cost+1, got, want)
					}
				})
			}
			wg.Wait()
		})
	})
	t.Run("a failure", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := newStore()
			l := backend.Lease(s, 100)
			heat(t, l, limit)
			for mustTake(t, l, 1, limit).Remaining != left(t, s, limit) {
			}
			s.rtt(10 * time.Millisecond)
			s.takes.Store(0)
			s.down.Store(true)
			var wg sync.WaitGroup
			start := time.Now()
			for range 50 {
				wg.Go(func() {
					if _, err := l.Take(ctx, "k", 1, limit); !errors.Is(err, backend.ErrUnavailable) {
						t.Errorf("got error %v, want ErrUnavailable", err)
					}
				})
			}
			wg.Wait()
			if s.takes.Load() != 1 || time.Since(start) != 10*time.Millisecond {
				t.Errorf("50 failures took %d calls and %v, want 1 and 10ms", s.takes.Load(), time.Since(start))
			}
		})
	})
}

func TestLeaseWaiting(t *testing.T) {
	limit := per(1000, time.Hour)
	empty := func(t *testing.T) (*store, backend.Backend) {
		s := newStore()
		l := backend.Lease(s, 100)
		heat(t, l, limit)
		for s.takes.Load() < 8 {
			mustTake(t, l, 1, limit)
		}
		for mustTake(t, l, 1, limit).Remaining != left(t, s, limit) {
		}
		s.rtt(10 * time.Millisecond)
		return s, l
	}
	t.Run("ends with the context", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			_, l := empty(t)
			var wg sync.WaitGroup
			wg.Go(func() { mustTake(t, l, 1, limit) })
			synctest.Wait()
			short, cancel := context.WithTimeout(ctx, time.Millisecond)
			defer cancel()
			start := time.Now()
			_, err := l.Take(short, "k", 1, limit)
			if !errors.Is(err, backend.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) || !strings.HasPrefix(err.Error(), "ginlimit: ") {
				t.Errorf("got error %v, want one of the deadline", err)
			}
			if time.Since(start) != time.Millisecond {
				t.Errorf("waited %v, want 1ms", time.Since(start))
			}
			wg.Wait()
		})
	})
	t.Run("not for one that gives up", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, l := empty(t)
			s.Backend = contextual{s.Backend}
			gone, cancel := context.WithCancel(ctx)
			var wg sync.WaitGroup
			wg.Go(func() {
				if _, err := l.Take(gone, "k", 1, limit); err == nil {
					t.Error("a canceled Take: got a decision, want an error")
				}
			})
			synctest.Wait()
			for range 10 {
				wg.Go(func() { mustTake(t, l, 1, limit) })
			}
			synctest.Wait()
			cancel()
			wg.Wait()
		})
	})
	t.Run("not for one that panics", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, l := empty(t)
			s.panics.Store(true)
			var wg sync.WaitGroup
			wg.Go(func() {
				defer func() {
					if recover() == nil {
						t.Error("the store's panic did not reach its caller")
					}
				}()
				_, _ = l.Take(ctx, "k", 1, limit)
			})
			synctest.Wait()
			for range 10 {
				wg.Go(func() { mustTake(t, l, 1, limit) })
			}
			wg.Wait()
		})
	})
}

// contextual fails when the context has ended.
type contextual struct{ backend.Backend }

func (c contextual) Take(ctx context.Context, key string, cost int64, limits ...backend.Limit) (backend.Result, error) {
	if err := ctx.Err(); err != nil {
		return backend.Result{}, fmt.Errorf("ginlimit: test: %w: %w", backend.ErrUnavailable, err)
	}
	return c.Backend.Take(ctx, key, cost, limits...)
}

func TestLeaseLargeCosts(t *testing.T) {
	each(t, 1000, time.Hour, func(t *testing.T, limit backend.Limit) {
		s := newStore()
		l := backend.Lease(s, 50)
		n, _ := heat(t, l, limit)
		held := s.charged.Load() - n
		for _, cost := range []int64{26, 50, 51, 100} {
			calls := s.calls()
			if res := mustTake(t, l, cost, limit); !res.Allowed || res.Source != backend.SourceStore || res.Remaining != left(t, s, limit)+held {
				t.Errorf("Take(%d): got %+v, want what the store says", cost, res)
			}
			if s.calls()-calls != 2 { // one is left's
				t.Errorf("Take(%d) took %d calls, want 1", cost, s.calls()-calls-1)
			}
		}
		for _, cost := range []int64{1001, math.MaxInt64} {
			res := mustTake(t, l, cost, limit)
			if res.Allowed || res.RetryAfter >= 0 || res.Remaining != left(t, s, limit)+held {
				t.Errorf("Take(%d): got %+v, want a refusal for ever", cost, res)
			}
		}
		rest := mustTake(t, l, 0, limit).Remaining
		if res := mustTake(t, l, rest+1, limit); res.Allowed || res.RetryAfter <= 0 || res.Remaining != rest {
			t.Errorf("Take(%d) of %d: got %+v, want a refusal", rest+1, rest, res)
		}
		if res := mustTake(t, l, rest, limit); !res.Allowed || res.Remaining != 0 {
			t.Errorf("Take(%d), all that is left: got %+v, want it admitted", rest, res)
		}
	})
	for _, cost := range []int64{-1, math.MinInt64} {
		if _, err := backend.Lease(memory.New(), 10).Take(ctx, "k", cost, per(10, time.Second)); err == nil {
			t.Errorf("Take(%d): got no error", cost)
		}
	}
	if _, err := backend.Lease(memory.New(), 10).Take(ctx, "k", 1); err == nil {
		t.Error("Take without a limit: got no error")
	}
}

func TestLeaseNotLeased(t *testing.T) {
	for name, limits := range map[string][]backend.Limit{
		"few units":      {per(7, time.Hour)},
		"a small burst":  {per(1000, time.Hour).WithBurst(7)},
		"a short Period": {per(1_000_000, 9*time.Millisecond)},
		"one of them":    {per(1000, time.Hour), per(7, time.Hour)},
		"blocked":        {per(0, time.Hour)},
		"invalid":        {per(-1, time.Hour)},
	} {
		s := newStore()
		l := backend.Lease(s, 100)
		for range 50 {
			_, _ = l.Take(ctx, "k", 1, limits...)
		}
		if s.calls() != 50 {
			t.Errorf("%s: 50 decisions took %d calls, want one each", name, s.calls())
		}
	}
	s := newStore()
	l := backend.Lease(s, 100)
	for range 50 {
		if res := mustTake(t, l, 1, backend.Unlimited()); res.Remaining != math.MaxInt64 || res.ResetAfter != 0 {
			t.Errorf("unlimited: got %+v", res)
		}
	}
}

// TestLeaseFallback puts a Fallback below and above a Lease. What the secondary decides is refunded
// there.
func TestLeaseFallback(t *testing.T) {
	limit := per(1000, time.Hour).WithAlgorithm(backend.FixedWindow)
	for name, build := range map[string]func(primary, secondary backend.Backend) backend.Backend{
		"lease over fallback": func(p, s backend.Backend) backend.Backend { return backend.Lease(backend.Fallback(p, s), 100) },
		"fallback over lease": func(p, s backend.Backend) backend.Backend { return backend.Fallback(backend.Lease(p, 100), s) },
		"both leased": func(p, s backend.Backend) backend.Backend {
			return backend.Fallback(backend.Lease(p, 100), backend.Lease(s, 100))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				primary, secondary := newStore(), newStore()
				b := build(primary, secondary)
				_, leased := heat(t, b, limit)
				primary.down.Store(true)
				if res := mustTake(t, b, 1, limit); res.Source != backend.SourceLease || secondary.calls() != 0 {
					t.Errorf("units were left, but the %v decided", res.Source)
				}
				time.Sleep(100 * time.Millisecond)
				var charges []backend.Result
				for range 40 {
					res := mustTake(t, b, 1, limit)
					if res.Source != backend.SourceFallback || !res.Allowed {
						t.Fatalf("while the primary is down: got %+v, want the secondary's", res)
					}
					charges = append(charges, res)
				}
				if n := secondary.refunds.Load(); n > 2 {
					t.Errorf("%d leases were taken of the secondary and given back", n)
				}
				for _, charge := range charges {
					if err := b.Settle(ctx, "k", charge, 1, 0, limit); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(100 * time.Millisecond)
				mustTake(t, b, 1, limit) // gives back what a leased secondary has left
				if got := left(t, secondary, limit); got != 999 {
					t.Errorf("after all refunds %d are left in the secondary, want 999", got)
				}
				primary.down.Store(false)
				before := left(t, primary, limit)
				if err := b.Settle(ctx, "k", leased, 1, 0, limit); err != nil || left(t, primary, limit) != before+1 {
					t.Errorf("the refund of a lease of before: error %v, and %d are left in the primary, want %d", err, left(t, primary, limit), before+1)
				}
				heat(t, b, limit)
			})
		})
	}
}

// TestLeaseFallbackShare puts a Fallback with a share, which charges no more than that, below a
// Lease, which asks for more.
func TestLeaseFallbackShare(t *testing.T) {
	for _, cost := range []int64{1, 3} {
		t.Run(fmt.Sprint("cost ", cost), func(t *testing.T) {
			each(t, 10_000, time.Hour, func(t *testing.T, limit backend.Limit) {
				p, shared := newStore(), memory.New()
				b := backend.Lease(backend.Fallback(p, shared, backend.WithShare(200)), 100)
				for range 500 {
					mustTake(t, b, cost, limit)
				}
				p.down.Store(true)
				var charges []backend.Result
				for range 1000 {
					res := mustTake(t, b, cost, limit)
					if res.Source != backend.SourceFallback {
						continue
					}
					if res.Remaining > 50-cost {
						t.Fatalf("Remaining is %d of a share of 50 after a cost of %d", res.Remaining, cost)
					}
					if res.Allowed {
						charges = append(charges, res)
					}
				}
				if want := 50 / cost; int64(len(charges)) != want {
					t.Errorf("a share of 50 admitted %d requests with a cost of %d, want %d", len(charges), cost, want)
				}
				for i, charge := range charges {
					if err := b.Settle(ctx, "k", charge, cost, 0, limit); err != nil {
						t.Fatal(err)
					}
					if got, want := mustTake(t, b, 0, limit).Remaining, 50-cost*int64(len(charges)-i-1); got != want {
						t.Fatalf("after %d refunds of %d: %d are left of the share, want %d", i+1, cost, got, want)
					}
				}
			})
		})
	}
}

// TestLeaseKeys fills the table with hot keys, and floods it.
func TestLeaseKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit := per(1000, time.Hour)
		s := newStore()
		l := backend.Lease(s, 100, backend.WithLeaseKeys(10))
		local := func(key string) bool {
			res, err := l.Take(ctx, key, 1, limit)
			return err == nil && res.Source == backend.SourceLease
		}
		for i := range 200 { // each gets hot, but there is room for 10
			for range 6 {
				local(fmt.Sprint("hot ", i))
			}
		}
		for range 2 {
			held := 0
			for i := range 200 {
				if local(fmt.Sprint("hot ", i)) {
					held++
				}
			}
			if held == 0 || held > 10 {
				t.Errorf("leases of %d keys are held, want at most 10", held)
			}
			for i := range 100_000 {
				local(fmt.Sprint("random ", i))
			}
		}
		time.Sleep(time.Second) // none is hot any more
		found := 0
		for i := range 10 {
			for range 6 {
				if local(fmt.Sprint("new ", i)) {
					found++
					break
				}
			}
		}
		if found == 0 {
			t.Error("keys that are no longer hot were not dropped for new ones")
		}
		if n, key := 0, strings.Repeat("x", 2000); true {
			for range 20 {
				if local(key) {
					n++
				}
			}
			if n > 0 {
				t.Error("a key of 2000 bytes is held")
			}
		}
	})
}

func TestLeaseOptions(t *testing.T) {
	for want, f := range map[string]func(){
		"Lease needs a backend":   func() { backend.Lease(nil, 10) },
		"Lease of 1 units":        func() { backend.Lease(memory.New(), 1) },
		"WithLeaseTime(999µs)":    func() { backend.Lease(memory.New(), 10, backend.WithLeaseTime(999*time.Microsecond)) },
		"WithLeaseTime(10.001s)":  func() { backend.Lease(memory.New(), 10, backend.WithLeaseTime(10_001*time.Millisecond)) },
		"WithLeaseKeys(0)":        func() { backend.Lease(memory.New(), 10, backend.WithLeaseKeys(0)) },
		"Lease: an option is nil": func() { backend.Lease(memory.New(), 10, nil) },
	} {
		func() {
			defer func() {
				if got := fmt.Sprint(recover()); !strings.HasPrefix(got, "ginlimit: "+want) {
					t.Errorf("got panic %q, want one that begins with %q", got, "ginlimit: "+want)
				}
			}()
			f()
		}()
	}
	synctest.Test(t, func(t *testing.T) {
		limit := per(1_000_000, time.Hour)
		l := backend.Lease(newStore(), 2, backend.WithLeaseTime(2*time.Second), backend.WithLeaseKeys(1))
		heat(t, l, limit)
		l = backend.Lease(newStore(), math.MaxInt64, backend.WithLeaseTime(2*time.Second))
		heat(t, l, limit)
		for mustTake(t, l, 1, limit).Source != backend.SourceStore {
		}
		time.Sleep(2*time.Second - 1)
		if res := mustTake(t, l, 1, limit); res.Source != backend.SourceLease {
			t.Errorf("just before the end of the lease: decided by the %v", res.Source)
		}
		time.Sleep(time.Nanosecond)
		if res := mustTake(t, l, 1, limit); res.Source != backend.SourceStore {
			t.Errorf("at the end of the lease: decided by the %v", res.Source)
		}
	})
}

func TestLeaseAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	l := backend.Lease(memory.New(), 1_000_000, backend.WithLeaseTime(10*time.Second))
	limits := []backend.Limit{per(100_000_000, time.Hour), per(1_000_000_000, 24*time.Hour).WithAlgorithm(backend.SlidingWindow)}
	for range 100_000 {
		mustTake(t, l, 1, limits...)
	}
	calls := 0
	if n := testing.AllocsPerRun(1000, func() {
		if res, _ := l.Take(ctx, "k", 1, limits...); res.Source != backend.SourceLease {
			calls++
		}
	}); n != 0 || calls > 0 {
		t.Errorf("%v allocations, and %d calls of the store, for 1000 decisions of a lease, want none", n, calls)
	}
}

func BenchmarkLease(b *testing.B) {
	limits := []backend.Limit{per(1_000_000_000, time.Second)}
	for _, bench := range []struct {
		name  string
		lease func(backend.Backend) backend.Backend
	}{
		{"local", func(m backend.Backend) backend.Backend { return backend.Lease(m, 1_000_000) }},
		{"cold key", func(m backend.Backend) backend.Backend { return backend.NeverHot(backend.Lease(m, 1_000_000)) }},
		{"without", func(m backend.Backend) backend.Backend { return m }},
	} {
		b.Run(bench.name, func(b *testing.B) {
			l := bench.lease(memory.New())
			b.ReportAllocs()
			local := 0
			for b.Loop() {
				if res, _ := l.Take(ctx, "api\x00ip:203.0.113.7", 1, limits...); res.Source == backend.SourceLease {
					local++
				}
			}
			b.ReportMetric(float64(local)/float64(b.N), "local/op")
		})
	}
	b.Run("parallel", func(b *testing.B) {
		l := backend.Lease(memory.New(), 1_000_000)
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				_, _ = l.Take(ctx, "api\x00ip:203.0.113.7", 1, limits...)
			}
		})
	})
}

// What a charge of a lease really cost comes from the lease while that lasts, and from the store
// afterwards, or when it is not enough.
func TestLeaseSettlesUp(t *testing.T) {
	each(t, 1000, 10*time.Second, func(t *testing.T, limit backend.Limit) {
		s := newStore()
		l := backend.Lease(s, 100)
		settle := func(charge backend.Result, cost, actual int64) {
			t.Helper()
			if err := l.Settle(ctx, "k", charge, cost, actual, limit); err != nil {
				t.Fatal(err)
			}
		}
		_, charge := heat(t, l, limit)
		used := 1000 - left(t, l, limit)
		calls := s.calls()
		settle(charge, 1, 1)
		settle(charge, 1, 2)
		if s.calls() != calls {
			t.Errorf("%d calls of the store, want none: the lease has the unit", s.calls()-calls)
		}
		if got := 1000 - left(t, l, limit); got != used+1 {
			t.Errorf("%d are used after a unit more, want %d", got, used+1)
		}
		settle(charge, 2, 302)
		if got := 1000 - left(t, l, limit); got != used+301 {
			t.Errorf("%d are used after 300 units more, want %d", got, used+301)
		}
		settle(charge, 302, 2)
		if got := 1000 - left(t, l, limit); got > used+301 || got < used {
			t.Errorf("%d are used after the 300 units were given back, want %d to %d", got, used, used+301)
		}
	})
}

// A TakeAll passes by the leases. What they hold is given back before it is refused for it.
func TestLeaseAndTakeAll(t *testing.T) {
	each(t, 100, 10*time.Second, func(t *testing.T, limit backend.Limit) {
		s := newStore()
		l := backend.Lease(s, 100)
		heat(t, l, limit)
		free := left(t, l, limit)
		all, err := l.TakeAll(ctx,
			backend.Charge{Key: "k", Cost: free, Limits: []backend.Limit{limit}},
			backend.Charge{Key: "other", Cost: 1, Limits: []backend.Limit{limit}})
		if err != nil || !all[0].Allowed || !all[1].Allowed || all[0].Source != backend.SourceStore {
			t.Fatalf("TakeAll of the %d that are free: got %+v, %v, want it admitted by the store", free, all, err)
		}
		usage, err := l.Usage(ctx, "k", limit)
		if err != nil || usage[0].Remaining != 0 || usage[0].Used() != 100 {
			t.Errorf("Usage: got %+v, %v, want everything used", usage, err)
		}
		all, err = l.TakeAll(ctx,
			backend.Charge{Key: "k", Cost: 1, Limits: []backend.Limit{limit}},
			backend.Charge{Key: "other", Cost: 1, Limits: []backend.Limit{limit}})
		if err != nil || all[0].Allowed || !all[1].Allowed {
			t.Errorf("TakeAll of a spent key: got %+v, %v, want the first alone to refuse", all, err)
		}
	})
}
