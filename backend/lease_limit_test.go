package backend_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/memory"
)

// admission is what was admitted, and when.
type admission struct {
	at   time.Time
	cost int64
}

// load drives one key through several instances over one store, from many goroutines with random
// costs, in bursts with pauses of up to half a Period between them, so that there is something to
// lease again and again.
func load(t *testing.T, s *store, instances int, n int64, d time.Duration, maxCost int64, limits ...backend.Limit) []admission {
	t.Helper()
	s.delay = func() time.Duration { return time.Duration(rand.IntN(2000)) * time.Microsecond }
	var mu sync.Mutex
	var all []admission
	var admitted, local atomic.Int64
	var wg sync.WaitGroup
	start, end := time.Now(), time.Now().Add(d)
	for i := range instances {
		l := backend.Lease(s, n)
		for range 8 {
			wg.Go(func() {
				for time.Now().Before(end) {
					cost := 1 + rand.Int64N(maxCost)
					res, err := l.Take(ctx, "k", cost, limits...)
					if err != nil {
						t.Errorf("instance %d: got error %v", i, err)
						return
					}
					now := time.Now() // of a lease: this instant
					if res.Source == backend.SourceLease {
						local.Add(1)
					} else {
						now = res.At
					}
					switch {
					case res.Allowed && rand.IntN(20) == 0: // a charge that its caller gives back
						if err := l.Settle(ctx, "k", res, cost, 0, limits...); err != nil {
							t.Errorf("Refund: got error %v", err)
						}
					case res.Allowed:
						if total, net := admitted.Add(cost), s.charged.Load()-s.refunded.Load(); total > net {
							t.Errorf("%d units were admitted, but only %d charged", total, net)
						}
						mu.Lock()
						all = append(all, admission{now, cost})
						mu.Unlock()
					}
					time.Sleep(time.Duration(rand.ExpFloat64()*3e6) * time.Nanosecond)
					if phase := now.Sub(start) % limits[0].Period; phase > limits[0].Period/2 {
						time.Sleep(time.Duration(rand.Int64N(int64(limits[0].Period / 2))))
					}
				}
			})
		}
	}
	wg.Wait()
	t.Logf("%d decisions admitted, %d of leases; %d takes, %d refunds", len(all), local.Load(), s.takes.Load(), s.refunds.Load())
	if int(local.Load()) < len(all)/10 {
		t.Errorf("only %d of %d were admitted by leases", local.Load(), len(all))
	}
	return all
}

// in returns the units admitted in [from, to).
func in(all []admission, from, to time.Time) (units int64) {
	for _, a := range all {
		if !a.at.Before(from) && a.at.Before(to) {
			units += a.cost
		}
	}
	return units
}

// TestLeaseNeverAboveTheLimit is the promise: whatever several instances do, what is admitted was
// charged before, so that from the start on it is within the limit at every instant, and no window
// sees more than the limit and the leases that were out when it began.
func TestLeaseNeverAboveTheLimit(t *testing.T) {
	const instances, n = 3, 20
	each(t, 400, time.Second, func(t *testing.T, limit backend.Limit) {
		s := newStore()
		start := time.Now()
		all := load(t, s, instances, n, 8*time.Second, 4, limit)
		if in(all, start, start.Add(time.Hour)) < 8*limit.Count/2 {
			t.Errorf("%d units were admitted in 8 s, want most of %d", in(all, start, start.Add(time.Hour)), 8*limit.Count)
		}
		whole := limit.Count // in any Period
		switch limit.Algorithm {
		case backend.TokenBucket, backend.SlidingWindow:
			whole *= 2
		case backend.FixedWindow:
			whole *= 2
			for end := range s.ends {
				if units := in(all, end.Add(-limit.Period), end); units > limit.Count {
					t.Errorf("%d units were admitted in the window that ends at %v, want at most %d", units, end, limit.Count)
				}
			}
		}
		for _, a := range all {
			t0 := a.at
			if units := in(all, t0, t0.Add(limit.Period)); units > whole+instances*n {
				t.Errorf("%d units were admitted in the Period from %v, want at most %d", units, t0.Sub(start), whole+instances*n)
			}
			if limit.Algorithm == backend.TokenBucket {
				refilled := limit.Count * (t0.Sub(start).Microseconds() + 1) / limit.Period.Microseconds()
				if units := in(all, start, t0.Add(1)); units > limit.Count+refilled {
					t.Errorf("%d units were admitted until %v, want at most %d", units, t0.Sub(start), limit.Count+refilled)
				}
			}
		}
	})
}

// TestLeaseSeveralLimits is the same for a bucket and a fixed window at once: the end of the window
// is known also when it is not what decides.
func TestLeaseSeveralLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore()
		limits := []backend.Limit{per(200, time.Second).WithBurst(100), per(900, 3*time.Second).WithAlgorithm(backend.FixedWindow)}
		start := time.Now()
		all := load(t, s, 2, 20, 10*time.Second, 1, limits...)
		var end time.Time // of the first window: of the first charge
		for _, a := range all {
			if first := a.at.Add(3 * time.Second); end.IsZero() || first.Before(end) {
				end = first
			}
		}
		for i := range 3 {
			from := end.Add(time.Duration(i-1) * 3 * time.Second)
			if units := in(all, from, from.Add(3*time.Second-10*time.Millisecond)); units > 900 {
				t.Errorf("%d units were admitted in window %d, want at most 900", units, i)
			}
		}
		if units := in(all, start, start.Add(time.Minute)); units < 1500 {
			t.Errorf("%d units were admitted in 10 s at 200 a second, want most of them", units)
		}
		if looks := s.looks.Load(); looks == 0 || looks > 2*4*10 {
			t.Errorf("the store was asked %d times when the window ends, want about once for each of 4 windows and 2 instances", looks)
		}
	})
}

// TestLeaseEveryUnitIsUsable lets instances compete for a limit that does not recover, until nobody
// gets anything any more.
func TestLeaseEveryUnitIsUsable(t *testing.T) {
	each(t, 1000, 24*time.Hour, func(t *testing.T, limit backend.Limit) {
		s := newStore().rtt(time.Millisecond)
		var admitted [4]atomic.Int64
		var wg sync.WaitGroup
		for i := range admitted {
			l := backend.Lease(s, 200)
			for range 10 {
				wg.Go(func() {
					for refused := 0; refused < 50; {
						res, err := l.Take(ctx, "k", 1, limit)
						switch {
						case err != nil:
							t.Errorf("got error %v", err)
							return
						case res.Allowed:
							admitted[i].Add(1)
							refused = 0
						default:
							refused++
						}
						time.Sleep(time.Duration(1+rand.IntN(10)) * time.Millisecond)
					}
				})
			}
		}
		wg.Wait()
		var sum int64
		for i := range admitted {
			got := admitted[i].Load()
			if sum += got; got < 100 {
				t.Errorf("instance %d of 4 got %d of 1000 units, want a share", i, got)
			}
		}
		if recovered := s.charged.Load() - s.refunded.Load(); sum != recovered || sum < 1000 || sum > 1000+12 && limit.Algorithm == backend.TokenBucket {
			t.Errorf("%d units were admitted and %d charged, want 1000 and what was refilled", sum, recovered)
		}
	})
}

// TestLeaseUnevenLoad lets four instances, of which one has nearly all of the load, ask for twice
// what the limit allows. Together they get what they would get without leases, nearly, and never
// more.
func TestLeaseUnevenLoad(t *testing.T) {
	for _, n := range []int64{100, 1000} {
		each(t, 2000, 10*time.Second, func(t *testing.T, limit backend.Limit) {
			plain, leased := unevenLoad(t, 0, limit), unevenLoad(t, n, limit)
			t.Logf("%v, n = %d: %d units of %d, %.1f %%", limit, n, leased, plain, 100*float64(leased)/float64(plain))
			if leased < plain*95/100 || leased > plain+plain/100 {
				t.Errorf("%d units were admitted in a minute, want %d as without leases, less 5 %% at most", leased, plain)
			}
		})
	}
}

// unevenLoad returns what is admitted in a minute with leases of n, or without if n is 0.
func unevenLoad(t *testing.T, n int64, limit backend.Limit) int64 {
	s := newStore().rtt(time.Millisecond)
	var admitted atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for i, perSecond := range []float64{310, 60, 20, 4} {
		b := backend.Backend(s)
		if n > 0 {
			b = backend.Lease(s, n)
		}
		const callers = 8
		for c := range callers {
			r := rand.New(rand.NewPCG(uint64(i), uint64(c)))
			wg.Go(func() {
				for {
					time.Sleep(time.Duration(r.ExpFloat64() / perSecond * callers * 1e9))
					if time.Since(start) >= time.Minute {
						return
					}
					res, err := b.Take(ctx, "k", 1, limit)
					if err != nil {
						t.Errorf("got error %v", err)
						return
					}
					if res.Allowed {
						admitted.Add(1)
						if n > 0 && admitted.Load() > s.charged.Load()-s.refunded.Load() {
							t.Error("more was admitted than charged")
						}
					}
				}
			})
		}
	}
	wg.Wait()
	return admitted.Load()
}

// TestLeaseLost drops an instance with its lease, as a crash does, and lets traffic stop in
// another.
func TestLeaseLost(t *testing.T) {
	each(t, 1000, time.Hour, func(t *testing.T, limit backend.Limit) {
		s := newStore()
		var admitted int64
		crashed := backend.Lease(s, 50)
		n, _ := heat(t, crashed, limit)
		for range 30 {
			admitted++
			mustTake(t, crashed, 1, limit)
		}
		admitted += n
		other := backend.Lease(s, 50)
		for mustTake(t, other, 1, limit).Allowed {
			admitted++
		}
		if admitted > 1000 || admitted < 1000-50 {
			t.Errorf("%d units were admitted, want 1000, of which a crashed instance may have lost 50", admitted)
		}
	})
}

// TestLeaseAccounts makes requests of random costs and lets all leases end: what is charged is what
// was spent.
func TestLeaseAccounts(t *testing.T) {
	each(t, 1_000_000, time.Hour, func(t *testing.T, limit backend.Limit) {
		s := newStore().rtt(time.Millisecond)
		var spent atomic.Int64
		var wg sync.WaitGroup
		instances := []backend.Backend{backend.Lease(s, 50), backend.Lease(s, 100)}
		for i := range 10 {
			wg.Go(func() {
				for range 500 {
					cost := 1 + rand.Int64N(30)
					res := mustTake(t, instances[i%2], cost, limit)
					if spent.Add(cost); rand.IntN(10) == 0 {
						spent.Add(-cost)
						if err := instances[i%2].Settle(ctx, "k", res, cost, 0, limit); err != nil {
							t.Error(err)
						}
					}
					time.Sleep(time.Duration(rand.IntN(1000)) * time.Microsecond)
				}
			})
		}
		wg.Wait()
		time.Sleep(200 * time.Millisecond)
		for _, l := range instances {
			spent.Add(1)
			mustTake(t, l, 1, limit)
		}
		if net := s.charged.Load() - s.refunded.Load(); net != spent.Load() {
			t.Errorf("%d units are charged for %d that were spent", net, spent.Load())
		}
	})
}

// TestLeaseGrowsAndShrinks looks at the size of each lease: with the rate of the key, and with what
// remains.
func TestLeaseGrowsAndShrinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit := per(10_000, time.Hour).WithAlgorithm(backend.FixedWindow)
		s := newStore()
		l := backend.Lease(s, 1000)
		// take makes requests for half a second, and returns the largest lease and the last one.
		take := func(pause time.Duration) (largest, last int64) {
			for end := time.Now().Add(500 * time.Millisecond); time.Now().Before(end); time.Sleep(pause) {
				before, rest := s.charged.Load(), left(t, s, limit)
				if res := mustTake(t, l, 1, limit); !res.Allowed || s.charged.Load() == before {
					continue
				}
				last = s.charged.Load() - before
				if largest = max(largest, last); last > 1+(rest+last)/8 {
					t.Errorf("a lease of %d units with %d left", last, rest)
				}
			}
			return largest, last
		}
		if _, last := take(time.Millisecond); last < 50 || last > 200 {
			t.Errorf("leases of %d units with 100 requests in a lease time", last)
		}
		if _, last := take(10 * time.Millisecond); last < 5 || last > 20 {
			t.Errorf("leases of %d units with 10 requests in a lease time", last)
		}
		if largest, last := take(100 * time.Microsecond); largest < 500 || last > 800 {
			t.Errorf("leases of at most %d units with 1000 requests in a lease time, the last of %d", largest, last)
		}
		take(100 * time.Microsecond)
		if got := left(t, s, limit); got != 0 {
			t.Errorf("%d units are left after more requests than that", got)
		}
		// A key over its limit stays hot: its requests cost one call each, and leases come with the
		// next window.
		requests, takes, leased := int64(0), s.takes.Load(), false
		for end := time.Now().Add(time.Hour); time.Now().Before(end) && !leased; time.Sleep(50 * time.Millisecond) {
			leased = mustTake(t, l, 1, limit).Source == backend.SourceLease
			requests++
		}
		if more := s.takes.Load() - takes - requests; more > 2 || !leased {
			t.Errorf("%d requests over the limit took %d calls more than that, and then a lease: %v", requests, more, leased)
		}
	})
}

// TestLeaseRace does everything at once on the real clock, for the race detector.
func TestLeaseRace(t *testing.T) {
	b := memory.New()
	one, two := backend.Lease(b, 20, backend.WithLeaseTime(2*time.Millisecond)), backend.Lease(b, 20)
	limits := []backend.Limit{per(100_000, time.Minute), per(100_000, time.Minute).WithAlgorithm(backend.FixedWindow)}
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(2, uint64(i)))
			l := one
			if i%2 == 0 {
				l = two
			}
			for range 2000 {
				key := fmt.Sprint("key ", r.IntN(3))
				limits := limits[r.IntN(20)/19:]
				cost := r.Int64N(6)
				res, err := l.Take(ctx, key, cost, limits...)
				if err != nil {
					t.Error(err)
				}
				switch r.IntN(200) {
				case 0:
					_ = l.Reset(ctx, key)
				case 1, 2, 3, 4, 5, 6:
					_ = l.Settle(ctx, key, res, cost, 0, limits...)
				case 7:
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
	wg.Wait()
}

// TestLeaseGivesBackWhatIsMissing: what is left of a lease is given back late, after another
// instance has spent all there was. Each bucket then has what it would have without a lease, and no
// more: what it has refilled since is not given back again.
func TestLeaseGivesBackWhatIsMissing(t *testing.T) {
	bucket := per(10_000, time.Hour)
	small := per(10_000, time.Hour).WithBurst(8_000)
	window, log := per(9_000, 24*time.Hour).WithAlgorithm(backend.FixedWindow), per(9_000, 24*time.Hour).WithAlgorithm(backend.SlidingLog)
	roomy := per(1_000_000, 24*time.Hour).WithAlgorithm(backend.SlidingWindow)
	for name, limits := range map[string][]backend.Limit{
		"one bucket": {bucket}, "two buckets": {bucket, small}, "the same twice": {bucket, bucket}, "beside one that has room": {roomy, bucket},
		"beside a window that decides": {bucket, window}, "beside a log that decides": {log, bucket}, "all": {roomy, small, bucket, backend.Unlimited(), log},
	} {
		for _, age := range []time.Duration{150 * time.Millisecond, 5 * time.Second, 20 * time.Second, time.Minute, 50 * time.Minute} {
			t.Run(fmt.Sprint(name, " after ", age), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s, ideal := newStore(), memory.New()
					l := backend.Lease(s, 200)
					spend := func(b backend.Backend, cost int64) {
						t.Helper()
						res, err := b.Take(ctx, "k", cost, limits...)
						if err != nil || !res.Allowed {
							t.Fatalf("Take(%d): got %+v and error %v, want it admitted", cost, res, err)
						}
						if res, err = ideal.Take(ctx, "k", cost, limits...); err != nil || !res.Allowed {
							t.Fatalf("Take(%d) without a lease: got %+v and error %v, want it admitted", cost, res, err)
						}
					}
					for range 200 { // in an instant, which a lease is taken for
						spend(l, 1)
					}
					time.Sleep(age)
					spend(s, mustTake(t, s, 0, limits...).Remaining-1)
					spend(l, 1)
					for i, limit := range limits {
						alone := slices.Repeat([]backend.Limit{backend.Unlimited()}, len(limits))
						alone[i] = limit
						got := mustTake(t, s, 0, alone...).Remaining
						res, err := ideal.Take(ctx, "k", 0, alone...)
						if err != nil {
							t.Fatal(err)
						}
						lost := int64(0)
						if limit.Algorithm == backend.TokenBucket && name != "one bucket" {
							lost = min(200, int64(age/(360*time.Millisecond))) // refilled meanwhile
						}
						if got > res.Remaining || got < res.Remaining-lost-1 {
							t.Errorf("%v has %d left, want %d as without a lease, or at most %d fewer", limit, got, res.Remaining, lost)
						}
					}
				})
			})
		}
	}
}
