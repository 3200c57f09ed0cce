package ginlimit_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/memory"
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
