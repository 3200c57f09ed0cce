package ginlimit_test

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/memory"
	"github.com/ginlimit/ginlimit/backend/redis"
	"github.com/ginlimit/ginlimit/internal/testserver"
)

// The floods of docs/production.md:
//
//	go test -run '^$' -bench Flood -benchtime 1x .

// BenchmarkFloodOfMemory fills the memory backend with made-up keys, which all count for an hour, and then asks for callers
// that it has never seen, once each.
func BenchmarkFloodOfMemory(b *testing.B) {
	const newcomers = 100_000
	for b.Loop() {
		l := must(ginlimit.NewLimiter(ginlimit.PerHour(10).WithAlgorithm(backend.FixedWindow), ginlimit.ByIP()))
		for i := range memory.DefaultMaxKeys {
			l.Allow(b.Context(), "made up:"+strconv.Itoa(i), 1)
		}
		refused := 0
		for i := range newcomers {
			if d, _ := l.Allow(b.Context(), "newcomer:"+strconv.Itoa(i), 1); !d.Allowed {
				refused++
			}
		}
		b.ReportMetric(100*float64(refused)/newcomers, "%refused")
	}
}

// BenchmarkFloodOfRedis charges made-up keys until a Redis of 100 MB, which evicts nothing, has no room for another.
func BenchmarkFloodOfRedis(b *testing.B) {
	server := testserver.Redis(b, "--maxmemory", "100mb", "--maxmemory-policy", "noeviction")
	store, err := redis.Dial(b.Context(), server.URL(), redis.WithTimeout(10*time.Second))
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	l := must(ginlimit.NewLimiter(ginlimit.PerHour(10), ginlimit.ByIP(), ginlimit.WithBackend(store), ginlimit.WithName("api")))
	for b.Loop() {
		var keys atomic.Int64
		var full atomic.Bool
		var callers sync.WaitGroup
		for range 64 {
			callers.Go(func() {
				for !full.Load() {
					if _, err := l.Allow(context.Background(), "ip:"+strconv.FormatInt(1e9+keys.Add(1), 10), 1); err != nil {
						full.Store(true)
					}
				}
			})
		}
		callers.Wait()
		b.ReportMetric(float64(keys.Load()), "keys")
	}
}
