package ginlimit_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/memory"
	"github.com/ginlimit/ginlimit/backend/redis"
	"github.com/ginlimit/ginlimit/internal/testserver"
)

// What the documentation says, and no other test shows.

// TestFirstMinute counts what a caller who never stops gets in its first minute.
func TestFirstMinute(t *testing.T) {
	for _, tt := range []struct {
		limit ginlimit.Limit
		want  int
	}{
		{ginlimit.PerMinute(100), 199},
		{ginlimit.PerMinute(100).WithAlgorithm(backend.SlidingLog), 100},
	} {
		synctest.Test(t, func(t *testing.T) {
			l := must(ginlimit.NewLimiter(tt.limit, ginlimit.Global()))
			passed := 0
			for start := time.Now(); time.Since(start) < time.Minute; time.Sleep(10 * time.Millisecond) {
				for {
					d, err := l.Allow(context.Background(), "caller", 1)
					if err != nil {
						t.Fatal(err)
					}
					if !d.Allowed {
						break
					}
					passed++
				}
			}
			if passed != tt.want {
				t.Errorf("%v: %d requests passed in the first minute, want %d", tt.limit, passed, tt.want)
			}
		})
	}
}

// TestWhatIsNotLimited sends requests to an engine that allows none.
func TestWhatIsNotLimited(t *testing.T) {
	none := ginlimit.New(ginlimit.PerMinute(0), ginlimit.Global())
	onEngine := gin.New()
	onEngine.RedirectFixedPath, onEngine.HandleMethodNotAllowed = true, true
	onEngine.GET("/healthz", ok)
	onEngine.Use(none)
	onEngine.GET("/items", ok)
	onGroup := gin.New()
	onGroup.Group("/api", none).GET("/items", ok)

	for _, tt := range []struct {
		r            *gin.Engine
		method, path string
		want         int
	}{
		{onEngine, http.MethodGet, "/items", 429},
		{onEngine, http.MethodGet, "/healthz", 200},
		{onEngine, http.MethodGet, "/items/", 301},
		{onEngine, http.MethodGet, "/ITEMS", 301},
		{onEngine, http.MethodGet, "/nothing", 429},
		{onEngine, http.MethodPost, "/items", 429},
		{onGroup, http.MethodGet, "/api/items", 429},
		{onGroup, http.MethodGet, "/api/nothing", 404},
	} {
		w := httptest.NewRecorder()
		tt.r.ServeHTTP(w, httptest.NewRequest(tt.method, tt.path, nil))
		if w.Code != tt.want {
			t.Errorf("%s %s: %d, want %d", tt.method, tt.path, w.Code, tt.want)
		}
	}
}

// TestFloodAtTheCap fills a backend with keys that count for an hour: callers that it does not know may be refused for so
// long, and no longer.
func TestFloodAtTheCap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := must(ginlimit.NewLimiter(ginlimit.PerHour(1).WithAlgorithm(backend.FixedWindow), ginlimit.Global(),
			ginlimit.WithBackend(memory.New(memory.WithMaxKeys(1000))), ginlimit.WithName("flooded")))
		refused := func(kind string, callers int) (n int) {
			for i := range callers {
				if d, _ := l.Allow(context.Background(), kind+strconv.Itoa(i), 1); !d.Allowed {
					n++
				}
			}
			return n
		}
		refused("made up ", 10_000)
		if n := refused("newcomer ", 100); n < 50 {
			t.Errorf("%d of 100 newcomers were refused while the backend is full", n)
		}
		time.Sleep(time.Hour)
		if n := refused("later newcomer ", 100); n != 0 {
			t.Errorf("%d of 100 newcomers were refused after the flood", n)
		}
	})
}

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
