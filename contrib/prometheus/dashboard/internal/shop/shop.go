// Package shop is an application with limiters of many kinds, and its callers: what the dashboard's
// tests and its picture look at. Everything in it is real, but for the shop.
package shop

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/memory"
	"github.com/ginlimit/ginlimit/backend/redis"
	ginlimitprom "github.com/ginlimit/ginlimit/contrib/prometheus"
)

// Shop is a running server.
type Shop struct {
	server *http.Server
	addr   string
	redis  *redis.Backend
	client *http.Client
}

var plans = map[string]ginlimit.Tier{
	"free": {Name: "free", Limits: []ginlimit.Limit{window(20).Named("free")}},
	"pro":  {Name: "pro", Limits: []ginlimit.Limit{window(100).Named("pro")}},
}

// window returns a limit of n a second, over two, that shows how near callers come to it.
func window(n int64) ginlimit.Limit {
	return ginlimit.Per(2*n, 2*time.Second).WithAlgorithm(ginlimit.SlidingWindow)
}

// Open starts a shop that counts in the Redis at a URL.
func Open(ctx context.Context, redisURL string) (*Shop, error) {
	gin.SetMode(gin.ReleaseMode)
	quiet := slog.New(slog.DiscardHandler)
	store, err := redis.Dial(ctx, redisURL, redis.WithLogger(quiet))
	if err != nil {
		return nil, err
	}
	metrics := ginlimitprom.New(ginlimitprom.WithBreakers("redis", store.Breakers))
	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics)

	r := gin.New()
	if err := r.SetTrustedProxies(nil); err != nil {
		return nil, err
	}
	r.GET("/metrics", gin.WrapH(promhttp.HandlerFor(registry, promhttp.HandlerOpts{})))
	use := func(name string, limit ginlimit.Limit, opts ...ginlimit.Option) gin.HandlerFunc {
		return ginlimit.New(limit, byCaller, append(opts, ginlimit.WithName(name), ginlimit.WithLogger(quiet),
			ginlimit.WithObserver(metrics.Observe))...)
	}
	ok := func(c *gin.Context) { c.Status(http.StatusNoContent) }
	r.GET("/api", use("trial", window(30), ginlimit.WithDryRun(true)),
		use("api", window(10), ginlimit.WithBackend(backend.Lease(store, 50)), ginlimit.WithTier(plan)), ok)
	r.GET("/login", use("login", window(10), ginlimit.WithBackend(store), ginlimit.WithFailurePolicy(ginlimit.FailClosed),
		ginlimit.WithBan(ginlimit.Per(50, 5*time.Second), time.Second, 8*time.Second)), ok)
	checkout, err := ginlimit.NewLimiter(ginlimit.InFlight(50), ginlimit.Global(), ginlimit.WithName("checkout"),
		ginlimit.WithLogger(quiet), ginlimit.WithObserver(metrics.Observe))
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	metrics.Watch(checkout)
	r.GET("/checkout", checkout.Handle, func(c *gin.Context) {
		time.Sleep(50 * time.Millisecond) // the shop pays
		ok(c)
	})
	r.GET("/search", use("search", window(50), ginlimit.WithBackend(backend.Fallback(store, memory.New()))), ok)
	r.GET("/export", use("export", ginlimit.PerSecond(20).WithBurst(1), ginlimit.WithMaxWait(time.Second)), ok)

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	s := &Shop{
		server: &http.Server{Handler: r, ReadHeaderTimeout: time.Second}, addr: l.Addr().String(), redis: store,
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 100}, Timeout: 5 * time.Second},
	}
	go func() { _ = s.server.Serve(l) }() // until Close
	return s, nil
}

// byCaller is who a request says that it comes from: here callers are believed.
func byCaller(c *gin.Context) (string, error) {
	if name := c.GetHeader("Caller"); name != "" {
		return name, nil
	}
	return "", ginlimit.ErrNoKey
}

func plan(c *gin.Context) (ginlimit.Tier, error) {
	name := c.GetHeader("Plan")
	if tier, ok := plans[name]; ok || name == "" {
		return tier, nil
	}
	return ginlimit.Tier{}, fmt.Errorf("shop: plan %q cannot be found out", name)
}

// Addr is host:port of the server; its metrics are at /metrics.
func (s *Shop) Addr() string { return s.addr }

// Close ends the server.
func (s *Shop) Close() error {
	s.client.CloseIdleConnections()
	return errors.Join(s.server.Close(), s.redis.Close())
}

// Callers are so many who ask for a path at a rate, each a second. A rate is kept by whoever can: a
// caller asks one question at a time. Those who share a name share its budget, the others have one
// each.
type Callers struct {
	Path, Name, Plan string
	Shared           bool
	Count            int
	Rate             float64
}

// The callers of a phase.
var (
	// Calm is what the limits are made for.
	Calm = []Callers{
		{"/api", "free", "free", false, 6, 4}, {"/api", "pro", "pro", false, 2, 20},
		{"/login", "visitor", "", false, 3, 2}, {"/search", "visitor", "", false, 3, 5}, {"/export", "batch", "", true, 3, 4},
		{"/checkout", "visitor", "", false, 3, 5},
	}
	// Near is callers who use most of what they have.
	Near = []Callers{
		{"/api", "free", "free", false, 6, 19}, {"/api", "pro", "pro", false, 2, 55},
		{"/login", "visitor", "", false, 3, 4}, {"/search", "visitor", "", false, 3, 10}, {"/export", "batch", "", true, 4, 8},
		{"/checkout", "visitor", "", false, 8, 10},
	}
	// Over is callers who want more than they have. Some do not take no for an answer, and one of
	// these is banned.
	Over = []Callers{
		{"/api", "free", "free", false, 6, 30}, {"/api", "pro", "pro", false, 2, 55}, {"/api", "rude", "free", true, 3, 60},
		{"/api", "odd", "?", false, 1, 5}, {"/api", "", "", true, 1, 10},
		{"/login", "visitor", "", false, 3, 15}, {"/login", "guess", "", true, 1, 60}, {"/search", "visitor", "", false, 3, 10}, {"/export", "batch", "", true, 4, 8},
		{"/checkout", "visitor", "", false, 12, 15},
	}
)

// Serve lets callers come for a time.
func (s *Shop) Serve(ctx context.Context, callers []Callers, length time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	var wg sync.WaitGroup
	failed := make(chan error, 1)
	for _, c := range callers {
		for i := range c.Count {
			name := c.Name
			if !c.Shared {
				name = fmt.Sprint(name, "-", i)
			}
			wg.Go(func() {
				if err := s.call(ctx, c, name); err != nil {
					select {
					case failed <- err:
					default:
					}
				}
			})
		}
	}
	wg.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// call asks until ctx ends.
func (s *Shop) call(ctx context.Context, c Callers, name string) error {
	every := time.Duration(float64(time.Second) / c.Rate)
	select {
	case <-ctx.Done():
		return nil
	case <-time.After(rand.N(every)): // callers do not come all at once
	}
	ticks := time.NewTicker(every)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticks.C:
		}
		req, err := http.NewRequest(http.MethodGet, "http://"+s.addr+c.Path, nil)
		if err != nil {
			return err
		}
		if name != "" {
			req.Header.Set("Caller", name)
		}
		req.Header.Set("Plan", c.Plan)
		resp, err := s.client.Do(req)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, resp.Body)
		if err = errors.Join(err, resp.Body.Close()); err != nil {
			return err
		}
	}
}
