package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/memory"
	"github.com/ginlimit/ginlimit/backend/redis"
	"github.com/ginlimit/ginlimit/internal/testserver"
)

// store is where the limiters count. A real service has redis.Dial and nothing around it; this one
// can be broken.
type store struct {
	backend.Backend
	name       string
	breakers   func() map[string]bool // nil if there are none
	fail, mend func()
	close      func() error
}

// openStore starts a redis-server, if there is one.
func openStore(ctx context.Context, budget time.Duration) (*store, error) {
	server, err := testserver.StartRedis()
	if errors.Is(err, exec.ErrNotFound) {
		return fragileMemory(), nil
	}
	if err != nil {
		return nil, err
	}
	b, err := redis.Dial(ctx, server.URL(), redis.WithPing(), redis.WithTimeout(budget))
	if err != nil {
		return nil, errors.Join(err, server.Stop())
	}
	return &store{
		Backend: b, name: "the Redis on " + server.Addr(), breakers: b.Breakers,
		fail: server.Pause, mend: server.Resume, // as a server that hangs: connections stay, nothing is answered
		close: func() error { return errors.Join(b.Close(), server.Stop()) },
	}, nil
}

// fragileMemory is a store in memory that can be told to fail.
func fragileMemory() *store {
	f := &fragile{Backend: memory.New()}
	return &store{
		Backend: f, name: "memory, because there is no redis-server",
		fail: func() { f.down.Store(true) }, mend: func() { f.down.Store(false) },
		close: func() error { return nil },
	}
}

type fragile struct {
	backend.Backend
	down atomic.Bool
}

// Take implements [backend.Backend].
func (f *fragile) Take(ctx context.Context, key string, cost int64, limits ...backend.Limit) (backend.Result, error) {
	if f.down.Load() {
		return backend.Result{}, fmt.Errorf("ginlimit: the example's store was told to fail: %w", backend.ErrUnavailable)
	}
	return f.Backend.Take(ctx, key, cost, limits...)
}

// service is what is watched.
type service struct {
	store         *store
	telemetry     *telemetry
	search, login *ginlimit.Limiter
	router        *gin.Engine
}

// Fixed windows of an hour, because nothing is refilled while the phases run: what the metrics say
// is the same on a slow machine.
var (
	free = ginlimit.PerHour(20).WithAlgorithm(ginlimit.FixedWindow)
	pro  = ginlimit.PerHour(1000).WithAlgorithm(ginlimit.FixedWindow)
)

func newService(s *store, t *telemetry) (*service, error) {
	user := ginlimit.ByUserID("user")
	observed := func(opts ...ginlimit.Option) []ginlimit.Option { return append(opts, t.observe()...) }

	// Searches go on while Redis is down: each instance then counts for itself.
	search, err1 := ginlimit.NewLimiter(free, user, observed(ginlimit.WithName("search"), ginlimit.WithTier(tierOf),
		ginlimit.WithBackend(backend.Fallback(s, memory.New())))...)
	// Nobody logs in while nobody counts: that would be the time to guess passwords.
	login, err2 := ginlimit.NewLimiter(pro, ginlimit.ByIP(), observed(ginlimit.WithName("login"),
		ginlimit.WithBackend(s), ginlimit.WithFailurePolicy(ginlimit.FailClosed))...)
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	t.page.Watch(search, login)

	r := gin.New()
	r.SetTrustedProxies(nil)
	r.Use(t.span)                                                        // first, so that the limiters find a span
	r.Use(func(c *gin.Context) { c.Set("user", c.GetHeader("X-User")) }) // stands for authentication
	ok := func(c *gin.Context) { c.String(http.StatusOK, "ok\n") }
	r.GET("/search", search.Handle, ok)
	r.POST("/login", login.Handle, ok)
	return &service{store: s, telemetry: t, search: search, login: login, router: r}, nil
}

// tierOf stands for a database: free-1 has the tier free.
func tierOf(c *gin.Context) (ginlimit.Tier, error) {
	switch plan, _, _ := strings.Cut(c.GetString("user"), "-"); plan {
	case "pro":
		return ginlimit.Tier{Name: plan, Limits: []ginlimit.Limit{pro}}, nil
	default:
		return ginlimit.Tier{Name: "free", Limits: []ginlimit.Limit{free}}, nil
	}
}

// mended waits until the store decides again. Peek charges nothing and is not observed.
func (s *service) mended(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		_, err := s.login.Peek(ctx, "nobody")
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}
