package benchmarks

import (
	"testing"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/memory"
)

func BenchmarkDecision(b *testing.B) {
	b.Run("hot", func(b *testing.B) {
		for _, l := range append([]Limiter{Floor}, Limiters()...) {
			b.Run(l.Name, Hot(l))
		}
	})
	b.Run("million", func(b *testing.B) {
		for _, l := range append(Limiters(), GinLimit("ginlimit-max-2M", backend.TokenBucket, memory.WithMaxKeys(2*Million))) {
			b.Run(l.Name, Many(l))
		}
	})
	b.Run("million-indexed", func(b *testing.B) {
		for _, l := range Limiters() {
			b.Run(l.Name, ManyIndexed(l))
		}
	})
}

// Run it with -cpu 1,2.
func BenchmarkDecisionParallel(b *testing.B) {
	b.Run("million", func(b *testing.B) {
		l := Limiters()[0]
		b.Run(l.Name, ManyParallel(Full(l)))
	})
}

func BenchmarkMiddleware(b *testing.B) {
	for _, m := range Middlewares {
		b.Run(m.Name, Serve(m))
	}
}

// What counts is B/key; the time is that of filling the limiter and of two collections.
func BenchmarkHeap(b *testing.B) {
	keys := Keys(Million)
	for _, h := range Heaps(memory.WithMaxKeys(10 * Million)) {
		b.Run(h.Name, func(b *testing.B) {
			var perKey float64
			for b.Loop() {
				perKey = h.PerKey(keys)
			}
			b.ReportMetric(perKey, "B/key")
		})
	}
}
