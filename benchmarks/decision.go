// Package benchmarks measures ginlimit beside other rate limiters for Go, each set up as its README says.
// The bodies are here, for bench_test.go and for the command targets to share.
package benchmarks

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/memory"
	"github.com/sethvargo/go-limiter/memorystore"
	"github.com/throttled/throttled/v2"
	"github.com/throttled/throttled/v2/store/memstore"
	"golang.org/x/time/rate"
)

// Quota is what every limiter here can express: N units per Period, and as many at once.
type Quota struct {
	N      int
	Period time.Duration
}

var (
	// HotQuota refuses no loop that a benchmark runs on one key, and is refilled more slowly than such a
	// loop spends it.
	HotQuota = Quota{1_000_000_000, time.Hour}
	// ManyQuota refuses no loop over a million keys. A unit takes 8.64 s to come back, so that the keys are
	// in use all the time, and none can be forgotten.
	ManyQuota = Quota{10_000, 24 * time.Hour}
)

// Take charges one unit to key and reports whether it was let through.
type Take func(key string) bool

// Limiter is something that decides.
type Limiter struct {
	Name string
	New  func(Quota) (take Take, stop func())
}

// Limiters returns the ginlimit backend, memory.New with opts and a token bucket, and the rivals.
func Limiters(opts ...memory.Option) []Limiter {
	return append([]Limiter{GinLimit("ginlimit", backend.TokenBucket, opts...)}, Rivals...)
}

// GinLimit returns the backend memory.New(opts...) with limits of one algorithm.
func GinLimit(name string, algorithm backend.Algorithm, opts ...memory.Option) Limiter {
	return Limiter{name, func(q Quota) (Take, func()) {
		b := memory.New(opts...)
		ctx := context.Background()
		limits := []backend.Limit{{Count: int64(q.N), Period: q.Period, Algorithm: algorithm}}
		return func(key string) bool {
			res, err := b.Take(ctx, key, 1, limits...)
			return err == nil && res.Allowed
		}, func() {}
	}}
}

// Floor is the least that a decision can be: it reads the clock and swaps one word. It has no keys.
var Floor = Limiter{"floor", func(Quota) (Take, func()) {
	base := time.Now()
	var state atomic.Int64
	return func(string) bool {
		old, now := state.Load(), int64(time.Since(base))
		return state.CompareAndSwap(old, now)
	}, func() {}
}}

// Rivals are other limiters that keep their keys in the process.
var Rivals = []Limiter{
	{"x-time-rate", func(q Quota) (Take, func()) {
		// What its users write for many keys: a sync.Map of limiters.
		var limiters sync.Map
		every := rate.Every(q.Period / time.Duration(q.N))
		return func(key string) bool {
			l, ok := limiters.Load(key)
			if !ok {
				l, _ = limiters.LoadOrStore(key, rate.NewLimiter(every, q.N))
			}
			return l.(*rate.Limiter).Allow()
		}, func() {}
	}},
	{"go-limiter", func(q Quota) (Take, func()) {
		store, err := memorystore.New(&memorystore.Config{Tokens: uint64(q.N), Interval: q.Period})
		must(err)
		ctx := context.Background()
		return func(key string) bool {
			_, _, _, ok, err := store.Take(ctx, key)
			return err == nil && ok
		}, func() { must(store.Close(ctx)) }
	}},
	{"throttled", func(q Quota) (Take, func()) {
		// 0 is no bound on the number of keys: a plain map. The least recently used list of a bounded store
		// is slower and takes twice the memory.
		store, err := memstore.NewCtx(0)
		must(err)
		limiter, err := throttled.NewGCRARateLimiterCtx(store, throttled.RateQuota{
			MaxRate: throttled.PerDuration(q.N, q.Period), MaxBurst: q.N - 1,
		})
		must(err)
		ctx := context.Background()
		return func(key string) bool {
			limited, _, err := limiter.RateLimitCtx(ctx, key, 1)
			return err == nil && !limited
		}, func() {}
	}},
}

// Hot measures decisions about one key.
func Hot(l Limiter) func(*testing.B) {
	return func(b *testing.B) {
		take, stop := l.New(HotQuota)
		defer stop()
		loop(b, take, []string{"203.0.113.7"})
	}
}

// Million is the number of keys that the benchmarks of many keys use.
const Million = 1_000_000

// Many measures decisions about a million keys that the limiter knows already, drawn uniformly at random. As
// in a server, the key of a request is not the string that the limiter may have kept but an equal one, and
// has just been written: the draws lie one after another in memory, so that what misses the cache is the
// limiter's own.
func Many(l Limiter) func(*testing.B) {
	return func(b *testing.B) {
		take, stop := l.New(ManyQuota)
		defer stop()
		fill(take, Keys(Million))
		requests := draws()
		runtime.GC() // none is left to run beside the loop
		loop(b, take, requests)
	}
}

// ManyIndexed is Many with the very strings that the limiter was given first, each looked up by a random
// index. To every decision it adds the cache misses of that look-up; a map that kept the string saves the one
// of comparing it.
func ManyIndexed(l Limiter) func(*testing.B) {
	return func(b *testing.B) {
		take, stop := l.New(ManyQuota)
		defer stop()
		keys, order := Keys(Million), order()
		fill(take, keys)
		runtime.GC()
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			if !take(keys[order[i]]) {
				b.Fatal("refused")
			}
			if i++; i == len(order) {
				i = 0
			}
		}
	}
}

// ManyParallel is Many on all of GOMAXPROCS. The limiter, full of keys, is handed in: the testing package
// calls the function several times.
func ManyParallel(take Take) func(*testing.B) {
	requests := draws()
	return func(b *testing.B) {
		b.ReportAllocs()
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			for i := rand.IntN(len(requests)); pb.Next(); {
				if !take(requests[i]) {
					b.Error("refused")
					return
				}
				if i++; i == len(requests) {
					i = 0
				}
			}
		})
	}
}

// Full returns a limiter that knows a million keys.
func Full(l Limiter) Take {
	take, _ := l.New(ManyQuota)
	fill(take, Keys(Million))
	return take
}

func loop(b *testing.B, take Take, requests []string) {
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if !take(requests[i]) {
			b.Fatal("refused")
		}
		if i++; i == len(requests) {
			i = 0
		}
	}
}

// Keys returns n keys, each a string of its own.
func Keys(n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = key(i)
	}
	return keys
}

func key(i int) string { return fmt.Sprintf("user-%07d", i) }

func fill(take Take, keys []string) {
	for _, k := range keys {
		if !take(k) {
			panic("refused " + k)
		}
	}
}

// order returns four million indices of Keys(Million).
var order = sync.OnceValue(func() []uint32 {
	indices := make([]uint32, 4*Million)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range indices {
		indices[i] = random.Uint32N(Million)
	}
	return indices
})

// draws returns the keys in that order, as strings of their own in one piece of memory.
var draws = sync.OnceValue(func() []string {
	requests := make([]string, len(order()))
	width := len(key(0))
	var all strings.Builder
	all.Grow(width * len(requests))
	for i, k := range order() {
		all.WriteString(key(int(k)))
		requests[i] = all.String()[i*width:]
	}
	return requests
})

func must(err error) {
	if err != nil {
		panic(err)
	}
}
