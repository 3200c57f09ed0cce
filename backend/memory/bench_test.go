package memory_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/memory"
)

func BenchmarkHot(b *testing.B) {
	m := memory.New()
	l := backend.Limit{Count: 1e9, Period: time.Second}
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		m.Take(ctx, "ip:203.0.113.7", 1, l)
	}
}

func BenchmarkMillion(b *testing.B) {
	keys := make([]string, 1_000_000)
	for i := range keys {
		keys[i] = fmt.Sprintf("ip:%d", i)
	}
	for _, alg := range []backend.Algorithm{backend.TokenBucket, backend.SlidingWindow, backend.FixedWindow} {
		for _, n := range []int{300_000, 500_000, 700_000, 1_000_000} {
			b.Run(fmt.Sprint(alg, n), func(b *testing.B) {
				var before, after runtime.MemStats
				runtime.GC()
				runtime.GC()
				runtime.ReadMemStats(&before)
				m := memory.New(memory.WithMaxKeys(4_000_000))
				l := backend.Limit{Count: 1000, Period: time.Hour, Algorithm: alg}
				ctx := context.Background()
				t0 := time.Now()
				for _, k := range keys[:n] {
					m.Take(ctx, k, 1, l)
				}
				ins := time.Since(t0)
				runtime.GC()
				runtime.GC()
				runtime.ReadMemStats(&after)
				i := 0
				order := rand.Perm(n)
				b.ResetTimer()
				for b.Loop() {
					m.Take(ctx, keys[order[i]], 1, l)
					if i++; i == n {
						i = 0
					}
				}
				b.ReportMetric(float64(int64(after.HeapAlloc)-int64(before.HeapAlloc))/float64(n), "B/key")
				b.ReportMetric(float64(ins.Nanoseconds())/float64(n), "ns/insert")
			})
		}
	}
}

func BenchmarkFloor(b *testing.B) {
	base := time.Now()
	var a atomic.Int64
	for b.Loop() {
		o := a.Load()
		a.CompareAndSwap(o, int64(time.Since(base)))
	}
}
