package ginlimit_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/redis"
)

func ExampleNew() {
	r := gin.New()
	r.SetTrustedProxies(nil)
	api := r.Group("/api", ginlimit.New(ginlimit.PerMinute(2), ginlimit.ByIP()))
	api.GET("/items", ok)
	r.GET("/", ok) // not limited

	for range 3 {
		get(r, "/api/items")
	}
	get(r, "/")
	// Output:
	// 200
	// 200
	// 429
	// 200
}

func ExamplePer() {
	fmt.Println(ginlimit.Per(5, 15*time.Minute))
	fmt.Println(ginlimit.Per(100, time.Second).WithBurst(20))
	// Output:
	// 5 per 15m0s, token bucket
	// 100 per 1s, burst 20, token bucket
}

func ExamplePerSecond() {
	fmt.Println(ginlimit.PerSecond(10))
	// Output: 10 per 1s, token bucket
}

func ExamplePerMinute() {
	r := gin.New()
	r.GET("/open", ginlimit.New(ginlimit.PerMinute(100), ginlimit.Global()), ok)
	r.GET("/closed", ginlimit.New(ginlimit.PerMinute(0), ginlimit.Global()), ok) // 0 blocks everything

	get(r, "/open")
	get(r, "/closed")
	// Output:
	// 200
	// 429
}

func ExamplePerHour() {
	fmt.Println(ginlimit.PerHour(5).WithAlgorithm(ginlimit.SlidingLog))
	// Output: 5 per 1h0m0s, sliding log
}

func ExamplePerDay() {
	fmt.Println(ginlimit.PerDay(10_000).WithAlgorithm(ginlimit.FixedWindow))
	// Output: 10000 per 24h0m0s, fixed window
}

func ExampleUnlimited() {
	staff := ginlimit.Tier{Name: "staff", Limits: []ginlimit.Limit{ginlimit.Unlimited()}}
	r := gin.New()
	r.Use(ginlimit.New(ginlimit.PerMinute(1), ginlimit.Global(),
		ginlimit.WithTier(func(*gin.Context) (ginlimit.Tier, error) { return staff, nil })))
	r.GET("/", ok)

	get(r, "/")
	get(r, "/")
	// Output:
	// 200
	// 200
}

func ExampleWithName() {
	r := gin.New()
	r.Use(ginlimit.New(ginlimit.PerMinute(600), ginlimit.Global(), ginlimit.WithName("all")))
	r.GET("/search", ginlimit.New(ginlimit.PerMinute(30), ginlimit.Global(), ginlimit.WithName("search")), ok)

	get(r, "/search", "RateLimit-Policy")
	// Output: 200 RateLimit-Policy: "all";q=600;w=60, "search";q=30;w=60
}

// A limit that an operator changes while the application runs: the next request counts under the new one.
func ExampleWithTier_runtime() {
	var limit atomic.Pointer[ginlimit.Limit]
	set := func(l ginlimit.Limit) error { // from an endpoint of the operator's, or when a file changes
		if err := l.Validate(); err != nil {
			return err
		}
		limit.Store(&l)
		return nil
	}
	if err := set(ginlimit.PerMinute(100)); err != nil {
		panic(err)
	}

	r := gin.New()
	r.SetTrustedProxies(nil)
	r.Use(ginlimit.New(ginlimit.PerMinute(100), ginlimit.ByIP(),
		ginlimit.WithTier(func(*gin.Context) (ginlimit.Tier, error) {
			return ginlimit.Tier{Limits: []ginlimit.Limit{*limit.Load()}}, nil
		})))
	r.GET("/", ok)

	get(r, "/", "RateLimit-Policy", "X-RateLimit-Remaining")
	if err := set(ginlimit.PerMinute(20)); err != nil {
		panic(err)
	}
	get(r, "/", "RateLimit-Policy", "X-RateLimit-Remaining")
	// Output:
	// 200 RateLimit-Policy: "default";q=100;w=60 X-RateLimit-Remaining: 99
	// 200 RateLimit-Policy: "default";q=20;w=60 X-RateLimit-Remaining: 18
}

// A backend that cannot decide: nobody answers where its Redis should be. Reading goes on, the log-in does not.
func ExampleWithFailurePolicy() {
	nobody, err := redis.Dial(context.Background(), "redis://127.0.0.1:1")
	if err != nil {
		panic(err)
	}
	defer nobody.Close()

	r := gin.New()
	r.SetTrustedProxies(nil)
	r.GET("/read", ginlimit.New(ginlimit.PerMinute(100), ginlimit.ByIP(),
		ginlimit.WithBackend(nobody), ginlimit.WithName("read")), ok) // FailOpen is the default
	r.GET("/login", ginlimit.New(ginlimit.PerMinute(5), ginlimit.ByIP(),
		ginlimit.WithBackend(nobody), ginlimit.WithName("login"),
		ginlimit.WithFailurePolicy(ginlimit.FailClosed)), ok)

	get(r, "/read")
	get(r, "/login", "Retry-After")
	// Output:
	// 200
	// 503 Retry-After: 5
}

func ExampleWithHeaders() {
	limiter := func(h ginlimit.Headers) gin.HandlerFunc {
		return ginlimit.New(ginlimit.PerMinute(60), ginlimit.Global(), ginlimit.WithHeaders(h))
	}
	r := gin.New()
	r.GET("/ietf", limiter(ginlimit.HeadersIETF), ok)
	r.GET("/legacy", limiter(ginlimit.HeadersLegacy), ok)
	r.GET("/none", limiter(ginlimit.HeadersNone), ok)

	get(r, "/ietf", "RateLimit-Policy", "RateLimit")
	get(r, "/legacy", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
	w := httptest.NewRecorder()
	r.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/none", nil))
	fmt.Println(w.Code, w.Header())
	// Output:
	// 200 RateLimit-Policy: "default";q=60;w=60 RateLimit: "default";r=59;t=1
	// 200 X-RateLimit-Limit: 60 X-RateLimit-Remaining: 59 X-RateLimit-Reset: 1
	// 200 map[Content-Type:[text/plain; charset=utf-8]]
}

// The limit is tried on real traffic: it counts who would have been refused, and refuses nobody.
func ExampleWithDryRun() {
	refused := 0
	r := gin.New()
	r.Use(ginlimit.New(ginlimit.PerMinute(2), ginlimit.Global(),
		ginlimit.WithDryRun(true),
		ginlimit.WithObserver(func(_ context.Context, d ginlimit.Decision) {
			if d.Err == nil && !d.Allowed {
				refused++
			}
		}),
	))
	r.GET("/", ok)

	for range 5 {
		get(r, "/")
	}
	fmt.Println(refused, "would have been refused")
	// Output:
	// 200
	// 200
	// 200
	// 200
	// 200
	// 3 would have been refused
}

func ExampleWithLogger() {
	only := func(_ []string, a slog.Attr) slog.Attr { // leaves the time and the long message out
		if a.Key == slog.TimeKey || a.Key == slog.MessageKey {
			return slog.Attr{}
		}
		return a
	}
	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: only}))

	r := gin.New() // and no SetTrustedProxies: everybody could choose their own address
	r.Use(ginlimit.New(ginlimit.PerMinute(100), ginlimit.ByIP(), ginlimit.WithLogger(logger), ginlimit.WithName("api")))
	r.GET("/", ok)

	get(r, "/")
	get(r, "/")
	// Output:
	// level=WARN code=GINLIMIT001 limiter=api
	// 200
	// 200
}

func ExampleFromContext() {
	r := gin.New()
	r.Use(ginlimit.New(ginlimit.PerMinute(10), ginlimit.Global()))
	r.GET("/", func(c *gin.Context) {
		if d, limited := ginlimit.FromContext(c); limited {
			c.String(http.StatusOK, "%d of %d requests are left", d.Remaining, d.Limit.Count)
		}
	})

	w := httptest.NewRecorder()
	r.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	fmt.Println(w.Body)
	// Output: 9 of 10 requests are left
}

func ExampleLimiter_Handle() {
	limiter, err := ginlimit.NewLimiter(ginlimit.PerMinute(2), ginlimit.Global())
	if err != nil {
		panic(err)
	}
	r := gin.New()
	r.Use(limiter.Handle)
	r.GET("/", ok)

	get(r, "/", "X-RateLimit-Remaining")
	get(r, "/", "X-RateLimit-Remaining")
	get(r, "/", "X-RateLimit-Remaining")
	// Output:
	// 200 X-RateLimit-Remaining: 1
	// 200 X-RateLimit-Remaining: 0
	// 429 X-RateLimit-Remaining: 0
}

func ExampleLimiter_Peek() {
	limiter, err := ginlimit.NewLimiter(ginlimit.PerHour(3), ginlimit.ByIP())
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	limiter.Allow(ctx, "ip:203.0.113.7", 2)
	for range 2 { // looking charges nothing
		d, err := limiter.Peek(ctx, "ip:203.0.113.7")
		fmt.Println(d.Allowed, d.Remaining, err)
	}
	// Output:
	// true 1 <nil>
	// true 1 <nil>
}

func ExampleLimiter_Reset() {
	limiter, err := ginlimit.NewLimiter(ginlimit.PerHour(1), ginlimit.ByUserID("user"))
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	limiter.Allow(ctx, "user:alice", 1)
	before, _ := limiter.Peek(ctx, "user:alice")
	fmt.Println(before.Allowed, limiter.Reset(ctx, "user:alice"))
	after, _ := limiter.Peek(ctx, "user:alice")
	fmt.Println(after.Allowed)
	// Output:
	// false <nil>
	// true
}

// A worker that takes jobs of customers from a queue, under limits of its own.
func ExampleLimiter_Allow_cost() {
	limiter, err := ginlimit.NewLimiter(ginlimit.PerMinute(100), ginlimit.Global(), ginlimit.WithName("jobs"))
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	d, err := limiter.Allow(ctx, "customer:42", 60, ginlimit.PerMinute(80))
	fmt.Println(d.Allowed, d.Remaining, err)
	d, err = limiter.Allow(ctx, "customer:42", 60, ginlimit.PerMinute(80))
	fmt.Println(d.Allowed, d.RetryAfter.Round(time.Second), err)
	d, err = limiter.Allow(ctx, "customer:42", 81, ginlimit.PerMinute(80))
	fmt.Println(d.Allowed, d.RetryAfter == backend.Never, err)
	// Output:
	// true 20 <nil>
	// false 30s <nil>
	// false true <nil>
}

func ExampleDecision_Status() {
	var b bytes.Buffer
	r := gin.New()
	r.Use(ginlimit.New(ginlimit.PerMinute(1), ginlimit.ByAPIKey("X-API-Key"),
		ginlimit.WithObserver(func(_ context.Context, d ginlimit.Decision) { fmt.Fprintln(&b, d.Status(), d.Err) })))
	r.GET("/", ok)

	for _, key := range []string{"secret", "secret", ""} {
		req := httptest.NewRequest(http.MethodGet, "/", nil)
		req.Header.Set("X-API-Key", key)
		r.ServeHTTP(httptest.NewRecorder(), req)
	}
	fmt.Print(&b)
	// Output:
	// 0 <nil>
	// 429 <nil>
	// 400 ginlimit: the request has no key
}

// A gateway that passes requests on to a service with limits of its own.
func ExampleWithLateHeaders() {
	service := gin.New()
	service.GET("/", ginlimit.New(ginlimit.PerHour(60), ginlimit.Global(), ginlimit.WithName("service")), ok)
	server := httptest.NewServer(service)
	defer server.Close()

	target, err := url.Parse(server.URL)
	if err != nil {
		panic(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	r := gin.New()
	r.SetTrustedProxies(nil)
	r.Use(ginlimit.New(ginlimit.PerMinute(100), ginlimit.ByIP(), ginlimit.WithName("gateway"), ginlimit.WithLateHeaders(true)))
	r.GET("/", func(c *gin.Context) { proxy.ServeHTTP(c.Writer, c.Request) })

	gateway := httptest.NewServer(r)
	defer gateway.Close()
	res, err := http.Get(gateway.URL)
	if err != nil {
		panic(err)
	}
	defer res.Body.Close()
	fmt.Println(res.Header.Values("RateLimit-Policy"))
	fmt.Println(res.Header.Values("X-RateLimit-Remaining"))
	// Output:
	// ["gateway";q=100;w=60, "service";q=60;w=3600]
	// [99]
}

// A handler that knows only half-way whether a request is one that is limited.
func ExampleLimiter_Respond() {
	limiter, err := ginlimit.NewLimiter(ginlimit.PerMinute(1), ginlimit.Global())
	if err != nil {
		panic(err)
	}
	r := gin.New()
	r.GET("/thumbnail", func(c *gin.Context) {
		if c.Query("cached") == "" && !limiter.Respond(c, limiter.Check(c)) { // only drawing one is expensive
			return
		}
		c.String(http.StatusOK, "a picture")
	})

	get(r, "/thumbnail", "RateLimit")
	get(r, "/thumbnail", "Retry-After")
	get(r, "/thumbnail?cached=1")
	// Output:
	// 200 RateLimit: "default";r=0;t=60
	// 429 Retry-After: 60
	// 200
}

func ExampleDecision_Passes() {
	limiter, err := ginlimit.NewLimiter(ginlimit.PerHour(1), ginlimit.Global(), ginlimit.WithName("mail"))
	if err != nil {
		panic(err)
	}
	for range 2 {
		d, err := limiter.Allow(context.Background(), "user:alice", 1)
		if !d.Passes() { // also decides where err is not nil, by the failure policy
			fmt.Println("later", err)
			continue
		}
		fmt.Println("sent")
	}
	// Output:
	// sent
	// later <nil>
}

func ExampleDecision_Outcome() {
	counts := map[string]int{}
	r := gin.New()
	r.Use(ginlimit.New(ginlimit.PerHour(1), ginlimit.ByAPIKey("X-API-Key"),
		ginlimit.WithObserver(func(_ context.Context, d ginlimit.Decision) { counts[d.Outcome()]++ })))
	r.GET("/", ok)

	for _, key := range []string{"a", "a", "b", ""} {
		req := httptest.NewRequest(http.MethodGet, "/", nil)
		req.Header.Set("X-API-Key", key)
		r.ServeHTTP(httptest.NewRecorder(), req)
	}
	fmt.Println(counts)
	// Output: map[allowed:2 denied:1 no_key:1]
}

func ExampleDecision_LogValue() {
	withoutTime := func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == "elapsed" {
			return slog.Attr{}
		}
		return a
	}
	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: withoutTime}))
	r := gin.New()
	r.SetTrustedProxies(nil)
	r.Use(ginlimit.New(ginlimit.PerHour(1), ginlimit.ByIP(), ginlimit.WithName("api"),
		ginlimit.WithObserver(func(ctx context.Context, d ginlimit.Decision) {
			logger.InfoContext(ctx, "decided", "decision", d) // without the key
		})))
	r.GET("/", ok)

	get(r, "/")
	// Output:
	// level=INFO msg=decided decision.limiter=api decision.outcome=allowed decision.cost=1 decision.limit=api decision.source=store decision.remaining=0
	// 200
}
