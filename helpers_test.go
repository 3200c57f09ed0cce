package ginlimit_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/memory"
)

func TestMain(m *testing.M) {
	gin.SetMode(gin.TestMode)
	os.Exit(m.Run())
}

// engine returns an engine that trusts no proxy and answers every method of "/" with "ok" after the
// handlers.
func engine(handlers ...gin.HandlerFunc) *gin.Engine {
	r := gin.New()
	if err := r.SetTrustedProxies(nil); err != nil {
		panic(err)
	}
	r.Use(handlers...)
	r.Any("/", answer)
	return r
}

func answer(c *gin.Context) { c.String(http.StatusOK, "ok") }

// send sends a GET of "/" after the edits.
func send(h http.Handler, edits ...func(*http.Request)) *httptest.ResponseRecorder {
	q := httptest.NewRequest(http.MethodGet, "/", nil)
	for _, edit := range edits {
		edit(q)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, q)
	return w
}

func header(name, value string) func(*http.Request) {
	return func(q *http.Request) { q.Header.Add(name, value) }
}

func path(p string) func(*http.Request) {
	return func(q *http.Request) { q.URL.Path = p }
}

// byHeader keys by the header "Key", without a mark.
func byHeader(c *gin.Context) (string, error) { return c.GetHeader("Key"), nil }

func must(l *ginlimit.Limiter, err error) *ginlimit.Limiter {
	if err != nil {
		panic(err)
	}
	return l
}

// fields returns the fields of a response that a limiter may write.
func fields(w *httptest.ResponseRecorder) map[string]string {
	got := map[string]string{}
	for _, name := range []string{
		"RateLimit-Policy", "RateLimit", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset",
		"Retry-After", "Cache-Control",
	} {
		if v := w.Header().Values(name); v != nil {
			got[name] = strings.Join(v, " | ")
		}
	}
	return got
}

var none = map[string]string{}

// watch is an observer that remembers.
type watch struct {
	mu   sync.Mutex
	seen []ginlimit.Decision
}

func (w *watch) observe(_ context.Context, d ginlimit.Decision) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = append(w.seen, d)
}

func (w *watch) last() ginlimit.Decision {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.seen) == 0 {
		return ginlimit.Decision{}
	}
	return w.seen[len(w.seen)-1]
}

// spy is a memory backend that can be told to do something before each call; an error becomes the
// answer.
type spy struct {
	backend.Backend
	onTake   func(ctx context.Context, key string, cost int64) error
	onSettle func(ctx context.Context, charge ginlimit.Result, cost, actual int64) error
	onUsage  func() error
	onReset  func(key string) error
}

func newSpy() *spy { return &spy{Backend: memory.New()} }

func (s *spy) Take(ctx context.Context, key string, cost int64, limits ...ginlimit.Limit) (ginlimit.Result, error) {
	if s.onTake != nil {
		if err := s.onTake(ctx, key, cost); err != nil {
			return ginlimit.Result{}, err
		}
	}
	return s.Backend.Take(ctx, key, cost, limits...)
}

func (s *spy) TakeAll(ctx context.Context, charges ...backend.Charge) ([]ginlimit.Result, error) {
	for _, c := range charges {
		if s.onTake != nil {
			if err := s.onTake(ctx, c.Key, c.Cost); err != nil {
				return nil, err
			}
		}
	}
	return s.Backend.TakeAll(ctx, charges...)
}

func (s *spy) Settle(ctx context.Context, key string, charge ginlimit.Result, cost, actual int64, limits ...ginlimit.Limit) error {
	if s.onSettle != nil {
		if err := s.onSettle(ctx, charge, cost, actual); err != nil {
			return err
		}
	}
	return s.Backend.Settle(ctx, key, charge, cost, actual, limits...)
}

func (s *spy) Usage(ctx context.Context, key string, limits ...ginlimit.Limit) ([]ginlimit.Result, error) {
	if s.onUsage != nil {
		if err := s.onUsage(); err != nil {
			return nil, err
		}
	}
	return s.Backend.Usage(ctx, key, limits...)
}

func (s *spy) Reset(ctx context.Context, key string) error {
	if s.onReset != nil {
		if err := s.onReset(key); err != nil {
			return err
		}
	}
	return s.Backend.Reset(ctx, key)
}

// failing returns a backend whose every Take fails.
func failing(err error) backend.Backend {
	s := newSpy()
	s.onTake = func(context.Context, string, int64) error { return err }
	return s
}

var errOther = errors.New("a secret of the database")

// raceEnabled reports whether this was built with the race detector, which allocates.
func raceEnabled() bool {
	info, _ := debug.ReadBuildInfo()
	return slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}
