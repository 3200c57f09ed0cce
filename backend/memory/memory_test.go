package memory_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/backendtest"
	"github.com/ginlimit/ginlimit/backend/memory"
)

func TestConformance(t *testing.T) {
	backendtest.Run(t, backendtest.Harness{
		New:    func(*testing.T) (backend.Backend, func(time.Duration)) { return memory.New(), time.Sleep },
		Bubble: synctest.Test,
	})
}

var (
	ctx       = context.Background()
	perHour   = backend.Limit{Count: 3, Period: time.Hour}
	perSecond = backend.Limit{Count: 3, Period: time.Second}
)

func take(t *testing.T, b *memory.Backend, key string, cost int64, limits ...backend.Limit) backend.Result {
	t.Helper()
	res, err := b.Take(ctx, key, cost, limits...)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// fill takes cost from n keys of a kind.
func fill(t *testing.T, b *memory.Backend, kind string, n int, cost int64, limits ...backend.Limit) (admitted int) {
	t.Helper()
	for i := range n {
		if take(t, b, fmt.Sprint(kind, i), cost, limits...).Allowed {
			admitted++
		}
	}
	return admitted
}

// TestCap floods a full backend with made-up keys. Nobody who is over the limit gets away, and the
// flood gets no more than its overflow buckets hold.
func TestCap(t *testing.T) {
	sets := map[string][]backend.Limit{"several limits": {perHour, {Count: 100, Period: time.Hour, Algorithm: backend.SlidingLog}}}
	for a := backend.TokenBucket; a <= backend.FixedWindow; a++ {
		sets[a.String()] = []backend.Limit{perHour.WithAlgorithm(a)}
	}
	for name, limits := range sets {
		for _, maxKeys := range []int{1, 50, 1000, 10_000} {
			t.Run(fmt.Sprint(name, "/", maxKeys), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := memory.New(memory.WithMaxKeys(maxKeys))
					fill(t, b, "caller", maxKeys, 3, limits...)
					if b.Len() != maxKeys {
						t.Fatalf("%d keys held after %d callers came", b.Len(), maxKeys)
					}
					admitted := fill(t, b, "flood", 5*maxKeys+1000, 1, limits...)
					if buckets := 128 * 16; admitted == 0 || admitted > 3*buckets {
						t.Errorf("the flood got %d units; want some, and at most 3 from each of %d buckets", admitted, buckets)
					}
					if b.Len() != maxKeys {
						t.Errorf("%d keys held after the flood, want %d", b.Len(), maxKeys)
					}
					if n := fill(t, b, "caller", maxKeys, 1, limits...); n != 0 {
						t.Errorf("the flood freed %d callers who were over the limit", n)
					}
				})
			})
		}
	}
}

// TestOverflowIsInherited takes a key's units in an overflow bucket, makes room, and takes again:
// the key does not get its budget twice.
func TestOverflowIsInherited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(memory.WithMaxKeys(1))
		take(t, b, "early", 1, perSecond)
		if res := take(t, b, "late", 2, perHour); !res.Allowed || b.Len() != 1 {
			t.Fatalf("allowed %v with %d keys held", res.Allowed, b.Len())
		}
		time.Sleep(time.Second) // early has recovered, and makes room
		if res := take(t, b, "late", 2, perHour); res.Allowed || res.Remaining != 1 {
			t.Errorf("allowed %v with %d remaining; want a refusal with 1 remaining", res.Allowed, res.Remaining)
		}
		if res := take(t, b, "late", 1, perHour); !res.Allowed || res.Remaining != 0 {
			t.Errorf("allowed %v with %d remaining; want a pass with 0 remaining", res.Allowed, res.Remaining)
		}
		if err := b.Reset(ctx, "late"); err != nil {
			t.Fatal(err)
		}
		if res := take(t, b, "late", 3, perHour); !res.Allowed {
			t.Error("refused after Reset")
		}
	})
}

// TestOverflowKeepsLimitsApart floods a full backend under one limit. A caller under another,
// larger one keeps what it used.
func TestOverflowKeepsLimitsApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(memory.WithMaxKeys(1))
		large := backend.Limit{Count: 1000, Period: time.Hour}
		take(t, b, "early", 1, perHour)
		take(t, b, "caller", 1000, large)
		fill(t, b, "flood", 1000, 1, perHour)
		if res := take(t, b, "caller", 1, large); res.Allowed {
			t.Error("a flood under a small limit freed a caller under a large one")
		}
	})
}

// TestBucketsAreNotBanned has keys without room refused more often than a ban allows: one that
// others share a bucket with is not banned for what they do.
func TestBucketsAreNotBanned(t *testing.T) {
	b := memory.New(memory.WithMaxKeys(1))
	take(t, b, "has room", 1, perHour)
	limits := []backend.Limit{perHour, perHour.Banning(time.Minute, time.Hour)}
	denied := 0
	for i := range 50 {
		res := take(t, b, fmt.Sprint("no room ", i%2), 1, limits...)
		if res.Banned() {
			t.Fatalf("request %d: got a ban, want none", i+1)
		}
		if !res.Allowed {
			denied++
		}
	}
	if denied < 44 {
		t.Errorf("%d of 50 requests of two keys were denied, want at least 44", denied)
	}
}

// TestRecoveredGoFirst fills a backend with keys that recover and some that do not. New keys take
// the place of the recovered ones and are counted exactly.
func TestRecoveredGoFirst(t *testing.T) {
	for _, maxKeys := range []int{100, 20_000} {
		synctest.Test(t, func(t *testing.T) {
			b := memory.New(memory.WithMaxKeys(maxKeys))
			fill(t, b, "stays", maxKeys/10, 3, perHour)
			fill(t, b, "goes", maxKeys-maxKeys/10, 3, perSecond)
			time.Sleep(time.Second)
			fresh := maxKeys / 2
			if n := fill(t, b, "new", fresh, 3, perHour); n != fresh {
				t.Errorf("%d of %d new keys had their whole budget", n, fresh)
			}
			if n := fill(t, b, "new", fresh, 1, perHour); n != 0 {
				t.Errorf("%d new keys had more than that", n)
			}
			if n := fill(t, b, "stays", maxKeys/10, 1, perHour); n != 0 {
				t.Errorf("%d live keys were forgotten", n)
			}
			if b.Len() > maxKeys {
				t.Errorf("%d keys held, at most %d asked for", b.Len(), maxKeys)
			}
		})
	}
}

// TestRecoveredAreSwept sees many keys, few of them live at any time. The backend forgets the
// others as it goes, far below its cap, and gives their memory back.
func TestRecoveredAreSwept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const live, rounds = 20_000, 15
		b := memory.New()
		empty := heap()
		for r := range rounds {
			fill(t, b, fmt.Sprint("round", r, "key"), live, 1, perSecond)
			time.Sleep(time.Second)
		}
		if b.Len() > 4*live {
			t.Errorf("%d keys held, of which %d are live", b.Len(), live)
		}
		if per := (heap() - empty) / live; per > 4*48 {
			t.Errorf("%d bytes for each key that was live at a time", per)
		}
		runtime.KeepAlive(b)
	})
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestBytesPerKey holds the memory per key to what the documentation says of it, wherever a table
// is on its way from one size to the next.
func TestBytesPerKey(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector takes memory of its own; make test runs this without it too")
	}
	const most = 48
	for _, a := range []backend.Algorithm{backend.TokenBucket, backend.SlidingWindow, backend.FixedWindow} {
		for _, n := range []int{350_000, 600_000, 1_000_000} {
			before := heap()
			b := memory.New(memory.WithMaxKeys(n + rand.N(n)))
			fill(t, b, "key", n, 1, backend.Limit{Count: 100, Period: time.Hour, Algorithm: a})
			if per := float64(heap()-before) / float64(n); per > most {
				t.Errorf("%v: %.1f bytes a key with %d keys, want at most %d", a, per, n, most)
			}
			runtime.KeepAlive(b)
		}
	}
}

// TestLogIsBounded charges a SlidingLog for many periods. Its state does not grow beyond Count
// charges.
func TestLogIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const count, keys = 1000, 50
		limit := backend.Limit{Count: count, Period: time.Second, Algorithm: backend.SlidingLog}
		b := memory.New()
		before := heap()
		for range 20 * count {
			for k := range keys {
				take(t, b, string(rune('a'+k)), 1, limit)
			}
			time.Sleep(time.Second / count / 2)
		}
		if per := (heap() - before) / keys / count; per > 26 {
			t.Errorf("%d bytes for each of %d charges, want at most 26", per, count)
		}
		runtime.KeepAlive(b)
	})
}

// TestManyLimits uses more limits than the backend has ids for, counts that do not fit into an
// entry, and keys that go from one to the other.
func TestManyLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New()
		for n := int64(1); n <= 70_000; n++ {
			if res := take(t, b, "key", 1, backend.Limit{Count: 1_000_000 + n, Period: time.Hour}); !res.Allowed || res.Remaining != 1_000_000 {
				t.Fatalf("limit %d: allowed %v with %d remaining; want each larger limit to admit the one unit it adds", n, res.Allowed, res.Remaining)
			}
		}
		for _, count := range []int64{math.MaxUint32 - 1, math.MaxUint32, math.MaxUint32 + 1, backend.MaxCount} {
			for a := backend.TokenBucket; a <= backend.FixedWindow; a++ {
				limit := backend.Limit{Count: count, Period: time.Hour, Algorithm: a}
				key := fmt.Sprint(count, a)
				if res := take(t, b, key, count-1, limit); !res.Allowed || res.Remaining != 1 {
					t.Errorf("%v: allowed %v with %d remaining", limit, res.Allowed, res.Remaining)
				}
				if res := take(t, b, key, 2, limit); res.Allowed || res.Remaining != 1 {
					t.Errorf("%v: allowed %v with %d remaining, after all but 1 were taken", limit, res.Allowed, res.Remaining)
				}
			}
		}
	})
}

// TestManyKeys compares a backend with one per key: no key's entry is lost or mixed up while tables
// grow, shrink and close gaps.
func TestManyKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(memory.WithMaxKeys(5000))
		used := map[string]int64{}
		limit := backend.Limit{Count: 50, Period: time.Hour, Algorithm: backend.FixedWindow}
		for range 200_000 {
			key := fmt.Sprint(rand.N(4000))
			if rand.N(4) == 0 {
				if err := b.Reset(ctx, key); err != nil {
					t.Fatal(err)
				}
				delete(used, key)
				continue
			}
			res := take(t, b, key, 1, limit)
			if res.Allowed {
				used[key]++
			}
			if res.Remaining != 50-used[key] {
				t.Fatalf("key %s: %d remaining after %d of 50 were taken", key, res.Remaining, used[key])
			}
		}
		if b.Len() != len(used) {
			t.Errorf("%d keys held, want %d", b.Len(), len(used))
		}
	})
}

// TestParallel hits a few keys of a backend that is at its cap from many goroutines, with
// everything that a backend can do.
func TestParallel(t *testing.T) {
	b := memory.New(memory.WithMaxKeys(5000))
	sets := [][]backend.Limit{{perHour}, {perSecond, perHour.WithAlgorithm(backend.SlidingLog)}, {perHour.WithAlgorithm(backend.SlidingWindow)}}
	var wg sync.WaitGroup
	var victim atomic.Int64
	for range 8 {
		wg.Go(func() {
			for range 5000 {
				limits := sets[rand.N(len(sets))]
				key := fmt.Sprint(rand.N(8000))
				res, err := b.Take(ctx, key, rand.Int64N(3), limits...)
				if err == nil {
					err = b.Settle(ctx, key, res, rand.Int64N(2), 0, limits...)
				}
				if err == nil && rand.N(8) == 0 {
					err = b.Reset(ctx, key)
				}
				if err != nil {
					t.Error(err)
				}
				if res, _ := b.Take(ctx, "victim", 1, backend.Limit{Count: 1000, Period: 24 * time.Hour, Algorithm: backend.FixedWindow}); res.Allowed {
					victim.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if victim.Load() != 1000 || b.Len() > 5000 {
		t.Errorf("%d units of 1000 admitted, %d keys held of at most 5000", victim.Load(), b.Len())
	}
}

// TestSeed makes two backends treat one flood differently: where a key goes depends on a seed that
// nobody knows.
func TestSeed(t *testing.T) {
	admitted := map[string]bool{}
	for range 8 {
		b := memory.New(memory.WithMaxKeys(1))
		if _, err := b.Take(ctx, "first", 1, perHour); err != nil {
			t.Fatal(err)
		}
		pattern := ""
		for i := range 60 {
			res := take(t, b, fmt.Sprint("flood", i), 1, perHour)
			pattern += fmt.Sprint(res.Remaining)
		}
		admitted[pattern] = true
	}
	if len(admitted) < 2 {
		t.Error("keys share overflow buckets in the same way in every backend")
	}
}

func TestAllocations(t *testing.T) {
	b := memory.New()
	two := []backend.Limit{perHour, perSecond}
	log := perHour.WithAlgorithm(backend.SlidingLog)
	for name, f := range map[string]func(){
		"one limit":  func() { _, _ = b.Take(ctx, "one", 1, perHour) },
		"peek":       func() { _, _ = b.Take(ctx, "unknown", 0, perHour) },
		"two limits": func() { _, _ = b.Take(ctx, "two", 1, two...) },
		"log denied": func() { _, _ = b.Take(ctx, "log", 1, log) },
		"given back": func() {
			res, _ := b.Take(ctx, "back", 1, perHour)
			_ = b.Settle(ctx, "back", res, 1, 0, perHour)
		},
		"in flight": func() {
			res, _ := b.Take(ctx, "flight", 1, backend.InFlight(5))
			_ = b.Settle(ctx, "flight", res, 1, 1, backend.InFlight(5))
		},
	} {
		f()
		if n := testing.AllocsPerRun(1000, f); n != 0 {
			t.Errorf("%s: %v allocations, want none", name, n)
		}
	}
}

// TestRoomAtAnyTime: a backend whose keys are all live looks for room in other shards, whatever the
// clock says. On 32 bits the clock's low bits are negative half of the time.
func TestRoomAtAnyTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		perDay := backend.Limit{Count: 3, Period: 24 * time.Hour}
		for range 9 { // 2^32 µs are 72 minutes
			b := memory.New(memory.WithMaxKeys(5000)) // two shards
			fill(t, b, "caller", 5000, 1, perDay)
			if n := fill(t, b, "new", 100, 1, perDay); n == 0 || b.Len() != 5000 {
				t.Errorf("%d of 100 new keys were admitted, and %d are held; want some to share buckets beside the 5000", n, b.Len())
			}
			time.Sleep(8 * time.Minute)
		}
	})
}

// TestNewIsSmall: tables are made as keys come, so that a limiter that nobody has asked costs
// nearly nothing.
func TestNewIsSmall(t *testing.T) {
	const n = 100
	backends := make([]*memory.Backend, n)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range backends {
		backends[i] = memory.New()
	}
	runtime.ReadMemStats(&after)
	if got := (after.TotalAlloc - before.TotalAlloc) / n; got > 2048 {
		t.Errorf("New took %d bytes, want at most 2048", got)
	} else {
		t.Logf("New took %d bytes", got)
	}
	runtime.KeepAlive(backends)
}

func TestOptions(t *testing.T) {
	for name, c := range map[string]struct {
		opt  memory.Option
		want string
	}{
		"nil":  {nil, "ginlimit: memory.New: an option is nil"},
		"zero": {memory.WithMaxKeys(0), "ginlimit: memory.WithMaxKeys(0): use at least 1"},
		"less": {memory.WithMaxKeys(math.MinInt), "use at least 1"},
	} {
		func() {
			defer func() {
				if err, ok := recover().(error); !ok || !strings.Contains(err.Error(), c.want) {
					t.Errorf("New with option %s: panics with %v, want an error that says %q", name, err, c.want)
				}
			}()
			memory.New(c.opt)
		}()
	}
}

// TestOverflowWindows: a caller in a bucket of keys that came before it spends everything just
// before the window of the first of them ends, and gets nothing more at that end. What it had goes
// with it to an entry of its own.
func TestOverflowWindows(t *testing.T) {
	for _, a := range []backend.Algorithm{backend.FixedWindow, backend.SlidingWindow} {
		t.Run(a.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				limits := []backend.Limit{{Count: 50, Period: time.Minute, Algorithm: a}, {Count: 1000, Period: time.Hour}}
				b := memory.New(memory.WithMaxKeys(1))
				// It recovers after 80 s. Without logs a window of each bucket would begin now.
				take(t, b, "early", 1, backend.Limit{Count: 3, Period: 4 * time.Minute, Burst: 1})
				fill(t, b, "first", 100, 1, limits...)
				time.Sleep(59 * time.Second)
				var spent int64
				for range 60 {
					if n := take(t, b, "caller", 0, limits...).Remaining; n > 0 && take(t, b, "caller", n, limits...).Allowed {
						spent += n
					}
					time.Sleep(time.Second)
				}
				if spent < 20 || spent > 50 {
					t.Errorf("a caller got %d units within a minute, want some, and at most 50", spent)
				}
				if b.Len() != 1 {
					t.Errorf("%d keys are held, want the caller", b.Len())
				}
			})
		})
	}
}

// TestTakeAllSweeps: a key that a TakeAll finds may have expired, and its entry goes when another
// key of the same TakeAll gets one.
func TestTakeAllSweeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(memory.WithMaxKeys(1000)) // one shard
		limit := backend.Limit{Count: 5, Period: time.Minute, Algorithm: backend.FixedWindow}
		for round := range 200 {
			old, fresh := fmt.Sprint("old ", round), fmt.Sprint("new ", round)
			_, err := b.Take(context.Background(), old, 5, limit)
			require.NoError(t, err)
			time.Sleep(time.Minute)
			all, err := b.TakeAll(context.Background(),
				backend.Charge{Key: fresh, Cost: 1, Limits: []backend.Limit{limit}}, backend.Charge{Key: old, Cost: 2, Limits: []backend.Limit{limit}})
			require.NoError(t, err)
			require.Equal(t, []int64{4, 3}, []int64{all[0].Remaining, all[1].Remaining})
			for key, left := range map[string]int64{old: 3, fresh: 4} {
				res, err := b.Take(context.Background(), key, 0, limit)
				require.NoError(t, err)
				require.Equal(t, left, res.Remaining, key)
			}
		}
	})
}
