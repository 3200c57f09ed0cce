package ginlimit_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/assert"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/backend"
)

func TestNeverMoreThanTheLimit(t *testing.T) {
	for _, algorithm := range []backend.Algorithm{backend.TokenBucket, backend.SlidingWindow, backend.SlidingLog, backend.FixedWindow} {
		t.Run(algorithm.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // where no time passes
				var ran atomic.Int64
				r := engine(ginlimit.New(ginlimit.PerMinute(100).WithAlgorithm(algorithm), ginlimit.ByIP()), func(*gin.Context) { ran.Add(1) })
				var wg sync.WaitGroup
				var codes [600]atomic.Int64
				for range 100 {
					wg.Go(func() {
						for range 100 {
							codes[send(r).Code].Add(1)
						}
					})
				}
				wg.Wait()
				assert.EqualValues(t, 100, codes[200].Load())
				assert.EqualValues(t, 9900, codes[429].Load())
				assert.EqualValues(t, 100, ran.Load())
			})
		})
	}
}

// TestOneLimiterInManyGoroutines does everything that a limiter can do at once. The race detector looks on.
func TestOneLimiterInManyGoroutines(t *testing.T) {
	var seen atomic.Int64
	l := must(ginlimit.NewLimiter(ginlimit.PerSecond(50), ginlimit.FirstOf(ginlimit.ByUserID("user"), ginlimit.ByIP()),
		ginlimit.WithLimits(ginlimit.PerDay(1_000_000)),
		ginlimit.WithMaxWait(2*time.Millisecond),
		ginlimit.WithTier(func(c *gin.Context) (ginlimit.Tier, error) {
			n, _ := strconv.ParseInt(c.GetHeader("Key"), 10, 64)
			return ginlimit.Tier{Name: fmt.Sprint("t", n%3), Limits: []ginlimit.Limit{ginlimit.PerSecond(10 + n)}}, nil
		}),
		ginlimit.WithRefundIf(func(c *gin.Context) bool { return c.GetHeader("Key") == "7" }),
		ginlimit.WithObserver(func(context.Context, ginlimit.Decision) { seen.Add(1) })))
	r := engine(func(c *gin.Context) { c.Header("Access-Control-Expose-Headers", c.GetHeader("Key")) }, l.Handle, func(c *gin.Context) {
		l.Check(c)
		_, ok := ginlimit.FromContext(c)
		assert.True(t, ok)
	})
	var wg sync.WaitGroup
	for n := range 16 {
		wg.Go(func() {
			for i := range 50 {
				key := strconv.Itoa((n + i) % 20)
				send(r, header("Key", key), remote("192.0.2."+key+":1"))
				_, _ = l.Allow(t.Context(), key, 1, ginlimit.PerSecond(int64(i+1)))
				_, _ = l.Peek(t.Context(), key)
				_ = l.Reset(t.Context(), key)
			}
		})
	}
	wg.Wait()
	assert.GreaterOrEqual(t, seen.Load(), int64(16*50*2))
}

// TestAllocationBudget: an allowed request with ByIP and all headers costs at most 3 allocations.
func TestAllocationBudget(t *testing.T) {
	if raceEnabled {
		return // the race detector allocates
	}
	allocs := func(handlers ...gin.HandlerFunc) float64 {
		r := engine(handlers...)
		q := httptest.NewRequest(http.MethodGet, "/", nil)
		w := httptest.NewRecorder()
		return testing.AllocsPerRun(1000, func() {
			clear(w.Header())
			w.Body.Reset()
			r.ServeHTTP(w, q)
		})
	}
	bare := allocs()
	assert.LessOrEqual(t, allocs(ginlimit.New(ginlimit.PerSecond(1e9), ginlimit.ByIP()))-bare, 3.0)
}
