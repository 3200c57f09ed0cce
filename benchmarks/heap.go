package benchmarks

import (
	"runtime"
	"time"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/memory"
)

// logCount is the count of the SlidingLog whose heap is measured: its state grows with it.
const logCount = 10

// Heap is a limiter whose memory is measured, and the times that each key is charged.
type Heap struct {
	Limiter
	Hits int
}

// Heaps returns the memory backend with each algorithm, and the rivals.
func Heaps(opts ...memory.Option) []Heap {
	heaps := []Heap{
		{GinLimit("ginlimit-TokenBucket", backend.TokenBucket, opts...), 1},
		{GinLimit("ginlimit-SlidingWindow", backend.SlidingWindow, opts...), 1},
		{GinLimit("ginlimit-FixedWindow", backend.FixedWindow, opts...), 1},
		{GinLimit("ginlimit-SlidingLog-10", backend.SlidingLog, opts...), logCount},
	}
	for _, l := range Rivals {
		heaps = append(heaps, Heap{l, 1})
	}
	return heaps
}

// PerKey returns the bytes of live heap that the limiter takes for each of the keys, all of them in use. The
// bytes of the keys' own strings are not in it, whether the limiter keeps them or not.
func (h Heap) PerKey(keys []string) float64 {
	before := liveHeap()
	take, stop := h.New(Quota{logCount, time.Hour})
	for range h.Hits {
		fill(take, keys)
	}
	after := liveHeap()
	runtime.KeepAlive(take)
	runtime.KeepAlive(keys)
	stop()
	return (after - before) / float64(len(keys))
}

func liveHeap() float64 {
	runtime.GC()
	runtime.GC() // the first one leaves what was in a sync.Pool or had a finalizer
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}
