package backendtest

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ginlimit/ginlimit/backend"
)

// Crowd lets as many goroutines as callers says take one of 100 places in flight and give it back,
// again and again. Meanwhile it calls restart three times, which kills the store and starts it
// anew. Crowd fails t if more than 100 are inside at once, if nobody gets in after a restart, or if
// more places are lost than calls failed. It is for stores that write to disk before they answer.
func Crowd(t *testing.T, b backend.Backend, callers int, restart func()) {
	t.Helper()
	const places = 100
	limit := backend.InFlight(places)
	limit.Period = 24 * time.Hour // no place that is lost comes back
	var inside, most, served, lost atomic.Int64
	var store sync.RWMutex // those inside stay until the store is back
	over := make(chan struct{})
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for {
				res, err := b.Take(context.Background(), "places", 1, limit)
				switch {
				case err != nil:
					lost.Add(1)
				case res.Allowed:
					for n := inside.Add(1); ; {
						if before := most.Load(); n <= before || most.CompareAndSwap(before, n) {
							break
						}
					}
					time.Sleep(100 * time.Millisecond)
					store.RLock()
					inside.Add(-1)
					served.Add(1)
					err = b.Settle(context.Background(), "places", res, 1, 1, limit)
					store.RUnlock()
					if err != nil {
						lost.Add(1)
					}
				}
				select {
				case <-over:
					return
				case <-time.After(rand.N(time.Duration(callers) * time.Millisecond / 2)):
				}
			}
		})
	}
	waitServed := func() {
		t.Helper()
		before := served.Load()
		for deadline := time.Now().Add(time.Minute); served.Load() < before+places; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Errorf("%d callers got in within a minute, want %d", served.Load()-before, places)
				return
			}
		}
	}
	for range 3 {
		waitServed()
		store.Lock()
		restart()
		time.Sleep(time.Second) // everybody asks a store that must know who is inside
		store.Unlock()
		waitServed()
	}
	close(over)
	wg.Wait()
	if n := most.Load(); n > places {
		t.Errorf("%d callers were inside at once, want at most %d", n, places)
	}
	usage, err := b.Usage(context.Background(), "places", limit)
	if err != nil {
		t.Fatalf("Usage: got error %v, want none", err)
	}
	if used := usage[0].Used(); used > lost.Load() {
		t.Errorf("%d places are held by nobody after %d failed calls", used, lost.Load())
	}
	t.Logf("%d callers: %d got in, at most %d at once; %d calls failed, %d places lost", callers, served.Load(), most.Load(), lost.Load(), usage[0].Used())
}
