package backendtest

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/ginlimit/ginlimit/backend"
)

var concurrencyRules = []rule{{
	name:   "exactly the limit",
	demand: "Of any number of callers at one instant exactly as many are admitted as the limit has room for.",
	run: func(e *env) {
		for i, limit := range append(everyAlgorithm(100, hour), per(1, hour).WithBurst(100), backend.PerCalendarDay(100), backend.InFlight(100)) {
			e.stampede(fmt.Sprint("key ", i), 100, limit)
		}
	},
}, {
	name:   "exactly the tightest of several limits",
	demand: "Of any number of callers at one instant exactly as many are admitted as every limit has room for, and each limit is charged for exactly those.",
	run: func(e *env) {
		limits := []backend.Limit{per(400, hour), sliding(250, hour), log(100, hour), window(150, day)}
		e.stampede("k", 100, limits...)
		for i, limit := range limits {
			e.left(limit.Count-100, "k", alone(limits, i)...)
		}
	},
}, {
	name:   "charges and refunds at once",
	demand: "If every charge is refunded, by any number of callers at one instant, everything is left.",
	run: func(e *env) {
		limits := everyAlgorithm(100, hour)
		var failed atomic.Value
		e.atOnce(func() {
			res, err := e.b.Take(context.Background(), "k", 1, limits...)
			if err == nil && res.Allowed {
				err = e.b.Settle(context.Background(), "k", res, 1, 0, limits...)
			}
			if err != nil {
				failed.Store(err)
			}
		})
		if err := failed.Load(); err != nil {
			e.Fatalf("Take and Settle: got error %v, want none", err)
		}
		for i := range limits {
			e.left(100, "k", alone(limits, i)...)
		}
	},
}, {
	name:   "places at once",
	demand: "However many callers take and give back a place in flight at one instant, never more are in it than there are places, and all are free in the end.",
	run: func(e *env) {
		limit := backend.InFlight(20)
		var inside, most, admitted atomic.Int64
		var failed atomic.Value
		e.atOnce(func() {
			res, err := e.b.Take(context.Background(), "k", 1, limit)
			if err == nil && res.Allowed {
				admitted.Add(1)
				for n := inside.Add(1); ; {
					if before := most.Load(); n <= before || most.CompareAndSwap(before, n) {
						break
					}
				}
				inside.Add(-1)
				err = e.b.Settle(context.Background(), "k", res, 1, 1, limit)
			}
			if err != nil {
				failed.Store(err)
			}
		})
		if err := failed.Load(); err != nil {
			e.Fatalf("Take and Settle: got error %v, want none", err)
		}
		if most.Load() > 20 || admitted.Load() < 20 {
			e.Errorf("%d callers of 20 places: %d were admitted, %d at once, want at least 20, at most 20 at once", e.h.callers(), admitted.Load(), most.Load())
		}
		e.left(20, "k", limit)
	},
}, {
	name:   "one ban",
	demand: "Of any number of refusals at one instant one brings the ban about, and the refusals that the limit of the ban allows are not banned.",
	run: func(e *env) {
		limits := []backend.Limit{window(100, sec), window(50, hour).Banning(hour, day)}
		var admitted, denied, banned atomic.Int64
		e.atOnce(func() {
			switch res, err := e.b.Take(context.Background(), "k", 1, limits...); {
			case err != nil:
			case res.Allowed:
				admitted.Add(1)
			case res.Banned():
				banned.Add(1)
			default:
				denied.Add(1)
			}
		})
		if want := int64(e.h.callers()) - 150; admitted.Load() != 100 || denied.Load() != 50 || banned.Load() != want {
			e.Errorf("%d callers at once: %d were admitted, %d denied and %d banned, want 100, 50 and %d",
				e.h.callers(), admitted.Load(), denied.Load(), banned.Load(), want)
		}
	},
}, {
	name:   "many keys at once",
	demand: "Callers of different keys do not disturb one another.",
	run: func(e *env) {
		const keys = 50
		var admitted [keys]atomic.Int64
		var next atomic.Int64
		e.atOnce(func() {
			n := next.Add(1) % keys
			res, err := e.b.Take(context.Background(), fmt.Sprint("key ", n), 1, per(7, hour), log(9, hour))
			if err == nil && res.Allowed {
				admitted[n].Add(1)
			}
		})
		for n := range keys {
			if got := admitted[n].Load(); got != 7 {
				e.Errorf("%d callers of %d keys: %d were admitted to key %d, want 7", e.h.callers(), keys, got, n)
			}
		}
	},
}}

// stampede lets all callers take one unit of key, and checks that exactly want were admitted.
func (e *env) stampede(key string, want int64, limits ...backend.Limit) {
	e.Helper()
	var admitted, failed atomic.Int64
	e.atOnce(func() {
		res, err := e.b.Take(context.Background(), key, 1, limits...)
		switch {
		case err != nil:
			failed.Add(1)
		case res.Allowed:
			admitted.Add(1)
		}
	})
	if admitted.Load() != want || failed.Load() != 0 {
		e.Errorf("%d callers at once under %v: %d were admitted and %d failed, want %d and none",
			e.h.callers(), limits, admitted.Load(), failed.Load(), want)
	}
}

// atOnce runs f in as many goroutines as there are callers, all let go at the same moment.
func (e *env) atOnce(f func()) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for range e.h.callers() {
		wg.Go(func() {
			<-start
			f()
		})
	}
	close(start)
	wg.Wait()
}
