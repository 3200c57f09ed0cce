package ginlimit_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/gin-gonic/gin"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/memory"
	"github.com/ginlimit/ginlimit/backend/redis"
)

// get sends a request to r and prints the status and the named fields of the answer.
func get(r http.Handler, target string, fields ...string) {
	w := httptest.NewRecorder()
	req := httptest.NewRequest(http.MethodGet, target, nil)
	r.ServeHTTP(w, req)
	fmt.Print(w.Code)
	for _, field := range fields {
		fmt.Printf(" %s: %s", field, w.Header().Get(field))
	}
	fmt.Println()
}

func ok(c *gin.Context) { c.String(http.StatusOK, "ok") }

func Example() {
	r := gin.New()
	r.SetTrustedProxies(nil) // clients connect directly; behind a proxy, name its address here
	r.Use(ginlimit.New(ginlimit.PerMinute(100), ginlimit.ByIP()))
	r.GET("/ping", func(c *gin.Context) { c.String(http.StatusOK, "pong") })

	get(r, "/ping", "RateLimit-Policy", "RateLimit")
	// Output: 200 RateLimit-Policy: "default";q=100;w=60 RateLimit: "default";r=99;t=1
}

func ExampleNew_groups() {
	health, login, listItems, export := ok, ok, ok, ok
	r := gin.New()
	r.SetTrustedProxies(nil)

	r.GET("/healthz", health) // registered before r.Use: not limited
	r.Use(ginlimit.New(ginlimit.PerSecond(50), ginlimit.ByIP(), ginlimit.WithName("address")))

	r.POST("/login", ginlimit.New(ginlimit.PerHour(10).WithAlgorithm(ginlimit.SlidingLog), ginlimit.ByIP(), ginlimit.WithName("login")), login)

	api := r.Group("/api", ginlimit.New(ginlimit.PerMinute(300), ginlimit.ByIP(), ginlimit.WithName("api")))
	api.GET("/items", listItems)
	api.GET("/export", ginlimit.New(ginlimit.PerMinute(2), ginlimit.ByIP(), ginlimit.WithName("export")), export)

	get(r, "/healthz")
	get(r, "/api/items", "RateLimit-Policy")
	for range 3 {
		get(r, "/api/export", "RateLimit")
	}
	// Output:
	// 200
	// 200 RateLimit-Policy: "address";q=50;w=1, "api";q=300;w=60
	// 200 RateLimit: "export";r=1;t=30
	// 200 RateLimit: "export";r=0;t=60
	// 429 RateLimit: "export";r=0;t=30
}

func ExampleWithLimits() {
	r := gin.New()
	r.SetTrustedProxies(nil)
	r.Use(ginlimit.New(ginlimit.PerSecond(10), ginlimit.ByIP(),
		ginlimit.WithLimits(ginlimit.PerDay(10_000).WithAlgorithm(ginlimit.FixedWindow)),
	))
	r.GET("/", ok)

	get(r, "/", "RateLimit-Policy", "RateLimit")
	// Output: 200 RateLimit-Policy: "10-per-1s";q=10;w=1, "10000-per-1d";q=10000;w=86400 RateLimit: "10-per-1s";r=9;t=1
}

func ExampleLimit_algorithms() {
	steady := ginlimit.PerMinute(100).WithBurst(20)                         // 100 a minute, but at most 20 at once
	exact := ginlimit.PerHour(5).WithAlgorithm(ginlimit.SlidingLog)         // never a sixth in any hour
	smooth := ginlimit.PerMinute(600).WithAlgorithm(ginlimit.SlidingWindow) // three numbers, however large the count
	quota := ginlimit.PerDay(10_000).WithAlgorithm(ginlimit.FixedWindow)    // a day from the first request
	odd := ginlimit.Per(3, 7*time.Millisecond).Named("sampling")            // odd rates are exact too
	day := ginlimit.PerCalendarDay(10_000).In("Europe/Berlin")              // from midnight to midnight there
	month := ginlimit.PerCalendarMonth(1_000_000).StartingOn(31)            // or on the last day of a shorter month
	places := ginlimit.InFlight(5)                                          // five at the same time
	for _, l := range []ginlimit.Limit{steady, exact, smooth, quota, odd, day, month, places} {
		fmt.Println(l)
	}
	// Output:
	// 100/m burst 20
	// 5/h sliding-log
	// 600/m sliding-window
	// 10000/d fixed-window
	// 3/7ms
	// 10000/day Europe/Berlin calendar
	// 1000000/month from 31 calendar
	// 5 in flight
}

func ExampleFirstOf() {
	r := gin.New()
	r.SetTrustedProxies(nil)
	r.Use(func(c *gin.Context) { c.Set("user", c.Query("user")) }) // authentication comes first
	r.Use(ginlimit.New(ginlimit.PerMinute(60),
		ginlimit.FirstOf(ginlimit.ByUserID("user"), ginlimit.ByAPIKey("X-API-Key"), ginlimit.ByIP())))
	r.GET("/", func(c *gin.Context) {
		d, _ := ginlimit.FromContext(c)
		fmt.Println(d.Key)
	})

	get(r, "/?user=alice")
	get(r, "/")
	// Output:
	// user:alice
	// 200
	// ip:192.0.2.1
	// 200
}

func ExampleJoin() {
	r := gin.New()
	r.SetTrustedProxies(nil)
	r.Use(ginlimit.New(ginlimit.PerMinute(1), ginlimit.Join(ginlimit.ByIP(), ginlimit.ByRoute())))
	r.GET("/a", ok)
	r.GET("/b", ok)

	get(r, "/a")
	get(r, "/a")
	get(r, "/b")
	// Output:
	// 200
	// 429
	// 200
}

func ExampleWithTier() {
	plans := map[string]ginlimit.Tier{
		"free":       {Name: "free", Limits: []ginlimit.Limit{ginlimit.PerMinute(10)}},
		"pro":        {Name: "pro", Limits: []ginlimit.Limit{ginlimit.PerMinute(1000)}},
		"enterprise": {Name: "enterprise", Limits: []ginlimit.Limit{ginlimit.Unlimited()}},
	}
	planOf := func(_ context.Context, customer string) (string, error) { return customer, nil } // a database, in real life

	r := gin.New()
	r.SetTrustedProxies(nil)
	r.Use(func(c *gin.Context) { c.Set("customer", c.Query("customer")) }) // authentication comes first
	r.Use(ginlimit.New(ginlimit.PerMinute(5),                              // anonymous callers
		ginlimit.FirstOf(ginlimit.ByUserID("customer"), ginlimit.ByIP()),
		ginlimit.WithTier(func(c *gin.Context) (ginlimit.Tier, error) {
			customer := c.GetString("customer")
			if customer == "" {
				return ginlimit.Tier{}, nil // the limiter's own limits
			}
			plan, err := planOf(c.Request.Context(), customer)
			return plans[plan], err
		}),
	))
	r.GET("/", ok)

	get(r, "/", "X-RateLimit-Limit")
	get(r, "/?customer=free", "X-RateLimit-Limit")
	get(r, "/?customer=pro", "X-RateLimit-Limit")
	get(r, "/?customer=enterprise", "X-RateLimit-Limit")
	// Output:
	// 200 X-RateLimit-Limit: 5
	// 200 X-RateLimit-Limit: 10
	// 200 X-RateLimit-Limit: 1000
	// 200 X-RateLimit-Limit:
}

func ExampleWithCost() {
	r := gin.New()
	r.Use(ginlimit.New(ginlimit.PerMinute(100), ginlimit.Global(),
		ginlimit.WithCost(func(c *gin.Context) int64 {
			if c.FullPath() == "/export" {
				return 40
			}
			return 1
		}),
	))
	r.GET("/export", ok)
	r.GET("/", ok)

	get(r, "/export", "X-RateLimit-Remaining")
	get(r, "/", "X-RateLimit-Remaining")
	// Output:
	// 200 X-RateLimit-Remaining: 60
	// 200 X-RateLimit-Remaining: 59
}

func ExampleWithRefundIf() {
	r := gin.New()
	r.SetTrustedProxies(nil)
	r.GET("/login", ginlimit.New(ginlimit.PerMinute(2), ginlimit.ByIP(),
		ginlimit.WithRefundIf(func(c *gin.Context) bool { return c.Writer.Status() < 400 }), // count only failures
		ginlimit.WithFailurePolicy(ginlimit.FailClosed),
	), func(c *gin.Context) {
		if c.Query("password") != "right" {
			c.Status(http.StatusUnauthorized)
		}
	})

	for _, password := range []string{"right", "right", "right", "wrong", "wrong", "wrong"} {
		get(r, "/login?password="+password)
	}
	// Output:
	// 200
	// 200
	// 200
	// 401
	// 401
	// 429
}

func ExampleWithSettle() {
	r := gin.New()
	r.SetTrustedProxies(nil)
	tokens := ginlimit.New(ginlimit.PerHour(1000), ginlimit.ByIP(),
		ginlimit.WithCost(func(*gin.Context) int64 { return 100 }),                           // an estimate
		ginlimit.WithSettle(func(c *gin.Context) int64 { return c.GetInt64("tokens used") }), // what it really was
	)
	r.GET("/chat", tokens, func(c *gin.Context) {
		c.Set("tokens used", int64(len(c.Query("prompt"))))
	})

	get(r, "/chat?prompt="+strings.Repeat("a", 950), "X-RateLimit-Remaining")
	get(r, "/chat?prompt=hello", "X-RateLimit-Remaining", "Retry-After")
	// Output:
	// 200 X-RateLimit-Remaining: 900
	// 429 X-RateLimit-Remaining: 50 Retry-After: 180
}

// A caller is not charged for a request that the limit of the team refuses, nor the team for one that
// the caller's does.
func ExampleAll() {
	b := memory.New() // all three on one backend, which decides them in one step
	limiter := func(name string, limit ginlimit.Limit, key ginlimit.KeyFunc) *ginlimit.Limiter {
		l, err := ginlimit.NewLimiter(limit, key, ginlimit.WithName(name), ginlimit.WithBackend(b))
		if err != nil {
			log.Fatal(err)
		}
		return l
	}
	r := gin.New()
	r.Use(func(c *gin.Context) { // authentication comes first
		c.Set("user", c.Query("user"))
		c.Set("team", "red")
	})
	r.Use(ginlimit.All(
		limiter("user", ginlimit.PerMinute(2), ginlimit.ByUserID("user")),
		limiter("team", ginlimit.PerMinute(3), ginlimit.ByUserID("team")),
		limiter("everybody", ginlimit.PerMinute(1000), ginlimit.Global()),
	))
	r.GET("/", ok)

	for _, user := range []string{"ann", "ann", "ann", "bob", "bob"} {
		fmt.Print(user, " ")
		get(r, "/?user="+user, "RateLimit")
	}
	// Output:
	// ann 200 RateLimit: "user";r=1;t=30
	// ann 200 RateLimit: "user";r=0;t=60
	// ann 429 RateLimit: "user";r=0;t=30
	// bob 200 RateLimit: "team";r=0;t=60
	// bob 429 RateLimit: "team";r=0;t=20
}

// A job charges an estimate, and settles for what it was.
func ExampleLimiter_Settle() {
	l, err := ginlimit.NewLimiter(ginlimit.PerHour(1000), ginlimit.ByUserID("user"))
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	key := ginlimit.KeyOfUser("ann")
	d, err := l.Allow(ctx, key, 100)
	if err != nil || !d.Allowed {
		return // not now
	}
	// The work is done here. It took 40.
	if d, err = l.Settle(ctx, d, 40); err != nil {
		log.Print(err) // the charge stays
	}
	all, _ := l.Usage(ctx, key)
	fmt.Println(d.Cost, all[0].Used())
	// Output: 40 40
}

// partner sends requests to a service as fast as that allows.
type partner struct{ limit *ginlimit.Limiter }

func (p partner) RoundTrip(q *http.Request) (*http.Response, error) {
	if d, err := p.limit.Wait(q.Context(), "partner", 1); !d.Passes() {
		if q.Body != nil {
			q.Body.Close() // as every RoundTripper has to
		}
		return nil, err
	}
	return http.DefaultTransport.RoundTrip(q)
}

func ExampleLimiter_Wait_client() {
	l, err := ginlimit.NewLimiter(ginlimit.PerSecond(100).WithBurst(1), ginlimit.Global())
	if err != nil {
		log.Fatal(err)
	}
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") }))
	defer service.Close()
	client := http.Client{Transport: partner{l}}
	for range 3 {
		answer, err := client.Get(service.URL)
		if err != nil {
			fmt.Println(err)
			return
		}
		answer.Body.Close()
		fmt.Println(answer.StatusCode)
	}
	// Output:
	// 200
	// 200
	// 200
}

// Calls to a service that takes one request each 10 ms, and no two at once.
func ExampleLimiter_Wait() {
	l, err := ginlimit.NewLimiter(ginlimit.PerSecond(100).WithBurst(1), ginlimit.Global())
	if err != nil {
		log.Fatal(err)
	}
	for range 3 {
		d, err := l.Wait(context.Background(), "partner", 1)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(d.Allowed)
	}
	// Output:
	// true
	// true
	// true
}

func ExampleLimiter_Usage() {
	l, err := ginlimit.NewLimiter(ginlimit.PerMinute(60), ginlimit.ByUserID("user"),
		ginlimit.WithLimits(ginlimit.PerDay(1000)))
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	key := ginlimit.KeyOfUser("ann")
	l.Allow(ctx, key, 7)
	all, err := l.Usage(ctx, key)
	if err != nil {
		log.Fatal(err)
	}
	for _, res := range all {
		fmt.Println(res.Limit.Name, res.Used(), "of", res.Limit.Count)
	}
	// Output:
	// 60-per-1m 7 of 60
	// 1000-per-1d 7 of 1000
}

func ExampleLimiter_UsageOf() {
	l, err := ginlimit.NewLimiter(ginlimit.PerMinute(60), ginlimit.ByIP())
	if err != nil {
		log.Fatal(err)
	}
	r := gin.New()
	r.SetTrustedProxies(nil)
	r.GET("/", l.Handle, ok)
	r.GET("/left", func(c *gin.Context) { // not limited
		all, err := l.UsageOf(c)
		if err != nil {
			c.Status(http.StatusServiceUnavailable)
			return
		}
		fmt.Println(all[0].Remaining, "left")
	})
	get(r, "/")
	get(r, "/left")
	// Output:
	// 200
	// 59 left
	// 200
}

func ExampleUsageHandler() {
	api, err := ginlimit.NewLimiter(ginlimit.PerMinute(60), ginlimit.ByIP(), ginlimit.WithName("api"))
	if err != nil {
		log.Fatal(err)
	}
	r := gin.New()
	r.SetTrustedProxies(nil)
	r.GET("/", api.Handle, ok)
	r.GET("/usage", ginlimit.UsageHandler(api)) // costs nothing
	get(r, "/")

	w := httptest.NewRecorder()
	r.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/usage", nil))
	var usage struct {
		Limiters []struct {
			Name   string
			Limits []struct{ Limit, Used, Remaining, Reset int64 }
		}
	}
	if err := json.Unmarshal(w.Body.Bytes(), &usage); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%+v\n", usage)
	// Output:
	// 200
	// {Limiters:[{Name:api Limits:[{Limit:60 Used:1 Remaining:59 Reset:1}]}]}
}

func ExampleWithMaxWait() {
	// The leaky bucket: a request every 10 ms, in the order in which they came. A request that
	// would wait for longer than a second is refused at once.
	limiter := ginlimit.New(ginlimit.Per(1, 10*time.Millisecond).WithBurst(1), ginlimit.Global(),
		ginlimit.WithMaxWait(time.Second))

	r := gin.New()
	r.Use(limiter)
	r.GET("/", ok)
	start := time.Now()
	for range 5 {
		get(r, "/")
	}
	fmt.Println(time.Since(start) >= 40*time.Millisecond)
	// Output:
	// 200
	// 200
	// 200
	// 200
	// 200
	// true
}

func ExampleWithSkip() {
	r := gin.New()
	r.Use(ginlimit.New(ginlimit.PerMinute(0), ginlimit.Global(),
		ginlimit.WithSkip(func(c *gin.Context) bool { return c.FullPath() == "/healthz" })))
	r.GET("/healthz", ok)
	r.GET("/", ok)

	get(r, "/healthz")
	get(r, "/")
	// Output:
	// 200
	// 429
}

func ExampleWithDenyHandler() {
	r := gin.New()
	r.Use(ginlimit.New(ginlimit.PerMinute(0), ginlimit.Global(),
		ginlimit.WithDenyHandler(func(c *gin.Context, d ginlimit.Decision) {
			c.JSON(d.Status(), gin.H{"error": "slow down", "limit": d.Limit.String()})
		}),
	))
	r.GET("/", ok)

	w := httptest.NewRecorder()
	r.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	fmt.Println(w.Code, w.Body)
	// Output: 429 {"error":"slow down","limit":"0/m"}
}

func ExampleWithObserver() {
	r := gin.New()
	r.SetTrustedProxies(nil)
	r.Use(ginlimit.New(ginlimit.PerMinute(1), ginlimit.ByIP(), ginlimit.WithName("api"),
		ginlimit.WithDryRun(true), // try the limit on real traffic first
		ginlimit.WithObserver(func(_ context.Context, d ginlimit.Decision) {
			fmt.Printf("%s: allowed %v, %d left of %v\n", d.Limiter, d.Allowed, d.Remaining, d.Limit)
		}),
	))
	r.GET("/", ok)

	get(r, "/")
	get(r, "/")
	// Output:
	// api: allowed true, 0 left of 1/m
	// 200
	// api: allowed false, 0 left of 1/m
	// 200
}

func ExampleWithBackend() {
	shared := memory.New(memory.WithMaxKeys(100_000))

	r := gin.New()
	r.SetTrustedProxies(nil)
	r.Use(ginlimit.New(ginlimit.PerMinute(600), ginlimit.ByIP(), ginlimit.WithBackend(shared), ginlimit.WithName("all")))
	r.GET("/search", ginlimit.New(ginlimit.PerMinute(30), ginlimit.ByIP(), ginlimit.WithBackend(shared), ginlimit.WithName("search")), ok)

	get(r, "/search", "RateLimit-Policy", "RateLimit")
	// Output: 200 RateLimit-Policy: "all";q=600;w=60, "search";q=30;w=60 RateLimit: "search";r=29;t=2
}

func ExampleLimiter_Check() {
	limiter, err := ginlimit.NewLimiter(ginlimit.PerMinute(1), ginlimit.Global())
	if err != nil {
		panic(err)
	}
	r := gin.New()
	r.GET("/thumbnail", func(c *gin.Context) {
		if c.Query("cached") == "" && limiter.Check(c).Status() != 0 { // only drawing one is expensive
			c.String(http.StatusTooManyRequests, "later")
			return
		}
		c.String(http.StatusOK, "a picture")
	})

	get(r, "/thumbnail")
	get(r, "/thumbnail")
	get(r, "/thumbnail?cached=1")
	// Output:
	// 200
	// 429
	// 200
}

func ExampleLimiter_Allow() {
	limiter, err := ginlimit.NewLimiter(ginlimit.PerHour(2), ginlimit.Global(), ginlimit.WithName("mail"))
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	for range 3 {
		d, err := limiter.Allow(ctx, "user:alice", 1)
		fmt.Println(d.Allowed, d.Remaining, err)
	}
	d, _ := limiter.Peek(ctx, "user:alice")
	fmt.Println(d.RetryAfter.Round(time.Minute))
	fmt.Println(limiter.Reset(ctx, "user:alice"))
	// Output:
	// true 1 <nil>
	// true 0 <nil>
	// false 0 <nil>
	// 30m0s
	// <nil>
}

func ExampleKeyFunc() {
	byTenant := func(c *gin.Context) (string, error) {
		tenant := c.GetString("tenant") // set by authentication, which comes first: never by what a client says of itself
		switch tenant {
		case "":
			return "", ginlimit.ErrNoKey // 400
		case "internal":
			return "", ginlimit.ErrSkip // no limit
		}
		return "tenant:" + tenant, nil
	}
	_, err := ginlimit.NewLimiter(ginlimit.PerMinute(100), byTenant)
	fmt.Println(err)
	// Output: <nil>
}

func ExampleNewLimiter() {
	_, err := ginlimit.NewLimiter(ginlimit.Per(10, 0), ginlimit.ByIP())
	fmt.Println(err)
	_, err = ginlimit.NewLimiter(ginlimit.PerMinute(10), ginlimit.ByIP(), ginlimit.WithBackend(memory.New()))
	fmt.Println(err)
	fmt.Println(errors.Is(err, backend.ErrUnavailable))
	// Output:
	// ginlimit: limit 10/0s: period is not between 1ms and 8784h0m0s; use one that is, as PerMinute(100) or Per(5, 15*time.Minute) do
	// ginlimit: WithBackend needs WithName, so that two limiters never share counters by accident
	// false
}

// Two instances of an application count together.
func ExampleWithBackend_redis() {
	server, err := miniredis.Run() // an application has a real one, with client-side caching
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()

	instance := func() *gin.Engine {
		b, err := redis.Dial(context.Background(), "redis://"+server.Addr()+"?client_cache=0",
			redis.WithDenyCache(false), redis.WithTimeout(time.Second))
		if err != nil {
			log.Fatal(err)
		}
		r := gin.New()
		r.SetTrustedProxies(nil)
		r.Use(ginlimit.New(ginlimit.PerMinute(2), ginlimit.ByIP(), ginlimit.WithBackend(b), ginlimit.WithName("api")))
		r.GET("/", ok)
		return r
	}
	one, two := instance(), instance()
	get(one, "/", "X-RateLimit-Remaining")
	get(two, "/", "X-RateLimit-Remaining")
	get(one, "/", "X-RateLimit-Remaining")
	// Output:
	// 200 X-RateLimit-Remaining: 1
	// 200 X-RateLimit-Remaining: 0
	// 429 X-RateLimit-Remaining: 0
}

// While Redis cannot be reached each of four instances lets a fourth part of the limit through, by
// its own memory.
func ExampleWithBackend_fallback() {
	nobody, err := redis.Dial(context.Background(), "redis://127.0.0.1:1")
	if err != nil {
		log.Fatal(err)
	}
	defer nobody.Close()

	r := gin.New()
	r.SetTrustedProxies(nil)
	r.Use(ginlimit.New(ginlimit.PerHour(8), ginlimit.ByIP(), ginlimit.WithName("api"),
		ginlimit.WithBackend(backend.Fallback(nobody, memory.New(), backend.WithShare(4)))))
	r.GET("/", func(c *gin.Context) {
		d, _ := ginlimit.FromContext(c)
		fmt.Println("decided by", d.Source)
	})

	for range 3 {
		get(r, "/")
	}
	// Output:
	// decided by fallback
	// 200
	// decided by fallback
	// 200
	// 429
}

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
	// 5/15m
	// 100/s burst 20
}

func ExamplePerSecond() {
	fmt.Println(ginlimit.PerSecond(10))
	// Output: 10/s
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
	// Output: 5/h sliding-log
}

func ExamplePerDay() {
	fmt.Println(ginlimit.PerDay(10_000).WithAlgorithm(ginlimit.FixedWindow))
	// Output: 10000/d fixed-window
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

// A limit that an operator changes while the application runs: the next request counts under the
// new one.
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

// A backend that cannot decide: nobody answers where its Redis should be. Reading goes on, the
// log-in does not.
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

// From here on: the examples of README.md and docs/ that stand nowhere else.

func ExampleNew_server() {
	r := gin.New()
	r.SetTrustedProxies(nil) // clients connect directly; behind a proxy, name its address here
	r.Use(ginlimit.New(ginlimit.PerMinute(100), ginlimit.ByIP()))
	r.GET("/ping", func(c *gin.Context) { c.String(http.StatusOK, "pong") })
	r.Run("127.0.0.1:8080")
}

func ExampleWithTier_plans() {
	plans := map[string]ginlimit.Tier{"pro": {Name: "pro", Limits: []ginlimit.Limit{ginlimit.PerMinute(1000)}}}
	planOf := func(_ context.Context, customer string) (string, error) { return customer, nil } // a database, in real life

	r := gin.New()
	r.Use(func(c *gin.Context) { c.Set("customer", c.Query("customer")) }) // authentication comes first
	r.Use(ginlimit.New(ginlimit.PerMinute(5), ginlimit.ByUserID("customer"),
		ginlimit.WithTier(func(c *gin.Context) (ginlimit.Tier, error) {
			plan, err := planOf(c.Request.Context(), c.GetString("customer"))
			return plans[plan], err
		}),
	))
	r.GET("/", ok)

	get(r, "/?customer=pro", "X-RateLimit-Limit")
	get(r, "/?customer=nobody", "X-RateLimit-Limit")
	// Output:
	// 200 X-RateLimit-Limit: 1000
	// 200 X-RateLimit-Limit: 5
}

func ExampleWithSkip_health() {
	r := gin.New()
	r.SetTrustedProxies(nil)
	health := func(c *gin.Context) bool { return c.FullPath() == "/healthz" }
	r.Use(ginlimit.New(ginlimit.PerMinute(100), ginlimit.ByIP(), ginlimit.WithSkip(health)))
	r.GET("/healthz", ok)
	r.GET("/", ok)

	get(r, "/", "X-RateLimit-Remaining")
	get(r, "/healthz", "X-RateLimit-Remaining")
	// Output:
	// 200 X-RateLimit-Remaining: 99
	// 200 X-RateLimit-Remaining:
}

// A client cannot make networks up as it can make API keys up: what it writes into the store is
// bounded.
func ExampleByIPPrefix_flood() {
	b := memory.New() // a Redis, in real life

	r := gin.New()
	r.SetTrustedProxies(nil)
	networks := ginlimit.New(ginlimit.PerMinute(600), ginlimit.ByIPPrefix(24, 48), ginlimit.WithName("network"))
	keys := ginlimit.New(ginlimit.PerMinute(100), ginlimit.ByAPIKey("X-API-Key"), ginlimit.WithName("key"),
		ginlimit.WithBackend(b))
	r.Use(networks, keys) // a network makes up 600 keys at once at most, and then 10 a second
	r.GET("/", ok)

	for i := range 10_000 {
		q := httptest.NewRequest(http.MethodGet, "/", nil)
		q.Header.Set("X-API-Key", fmt.Sprint("made up ", i))
		r.ServeHTTP(httptest.NewRecorder(), q)
	}
	fmt.Println(b.Len() < 1000)
	// Output: true
}

// A server that ends while requests are held.
func ExampleWithMaxWait_shutdown() {
	r := gin.New()
	r.SetTrustedProxies(nil)
	held := make(chan struct{}, 2)
	r.Use(func(*gin.Context) { held <- struct{}{} })
	r.Use(ginlimit.New(ginlimit.PerHour(1), ginlimit.ByIP(), ginlimit.WithMaxWait(2*time.Hour)))
	r.GET("/", ok)

	requests, end := context.WithCancel(context.Background())
	srv := &http.Server{Handler: r, BaseContext: func(net.Listener) context.Context { return requests }}
	srv.RegisterOnShutdown(end) // held requests are refused now, and do not wait for their turn

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go srv.Serve(listener)
	answers := make(chan int, 2)
	for range 2 {
		go func() {
			conn, err := net.Dial("tcp", listener.Addr().String())
			if err != nil {
				panic(err)
			}
			defer conn.Close()
			fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				panic(err)
			}
			answers <- response.StatusCode
		}()
	}
	<-held
	<-held
	fmt.Println(<-answers) // one has the hour's request; the other is held
	fmt.Println(srv.Shutdown(context.Background()))
	fmt.Println(<-answers)
	// Output:
	// 200
	// <nil>
	// 429
}

type requestIDKey struct{}

// requestID is middleware that gives a request an id, or takes over the one that a proxy gave it,
// and puts it into the request's context: observers get that, and no gin.Context. It comes before
// the limiters.
func requestID(c *gin.Context) {
	id := c.GetHeader("X-Request-Id")
	if id == "" || len(id) > 64 { // a client may send anything
		id = rand.Text()
	}
	c.Header("X-Request-Id", id)
	c.Request = c.Request.WithContext(context.WithValue(c.Request.Context(), requestIDKey{}, id))
}

// refusals logs requests that did not pass, so many that a flood of them does not flood the log:
// what is left out is counted, and the next line says how many there were. What bounds the lines is
// a limiter too, in memory, with the name of the one that refused as its key: one that is flooded
// does not silence the others.
type refusals struct {
	logger  *slog.Logger
	lines   *ginlimit.Limiter
	leftOut atomic.Int64
}

func newRefusals(logger *slog.Logger, lines ginlimit.Limit) (*refusals, error) {
	limiter, err := ginlimit.NewLimiter(lines, ginlimit.Global())
	return &refusals{logger: logger, lines: limiter}, err
}

func (r *refusals) observe(ctx context.Context, d ginlimit.Decision) {
	status := d.Status()
	if status == 0 {
		return
	}
	if line, _ := r.lines.Allow(ctx, d.Limiter, 1); !line.Allowed {
		r.leftOut.Add(1)
		return
	}
	id, _ := ctx.Value(requestIDKey{}).(string)
	attrs := []slog.Attr{ // and not d.Key, which may identify a person
		slog.String("request_id", id), slog.String("limiter", d.Limiter), slog.String("tier", d.Tier), slog.Int("status", status),
	}
	if d.Err != nil {
		attrs = append(attrs, slog.Any("error", d.Err)) // of 503 and 400
	} else {
		attrs = append(attrs, slog.String("limit", d.Limit.String()))
	}
	if n := r.leftOut.Swap(0); n > 0 {
		attrs = append(attrs, slog.Int64("left_out", n))
	}
	r.logger.LogAttrs(ctx, slog.LevelWarn, "request refused", attrs...)
}

func ExampleWithObserver_slog() {
	withoutTime := func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}
	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: withoutTime}))

	// In real life PerSecond(10); here two lines, however slow the machine is.
	logged, err := newRefusals(logger, ginlimit.PerHour(2))
	if err != nil {
		panic(err)
	}
	r := gin.New()
	r.SetTrustedProxies(nil)
	r.Use(requestID, ginlimit.New(ginlimit.PerHour(2), ginlimit.ByIP(), ginlimit.WithName("api"),
		ginlimit.WithObserver(logged.observe)))
	r.GET("/", ok)

	send := func(id string) {
		req := httptest.NewRequest(http.MethodGet, "/", nil)
		req.Header.Set("X-Request-Id", id)
		r.ServeHTTP(httptest.NewRecorder(), req)
	}
	for i := range 100 {
		send(fmt.Sprint("request-", i+1))
	}
	logged.lines.Reset(context.Background(), "api") // as if time went by
	send("request-101")
	// Output:
	// level=WARN msg="request refused" request_id=request-3 limiter=api tier="" status=429 limit=2/h
	// level=WARN msg="request refused" request_id=request-4 limiter=api tier="" status=429 limit=2/h
	// level=WARN msg="request refused" request_id=request-101 limiter=api tier="" status=429 limit=2/h left_out=96
}

func newRouter(limit ginlimit.Limit) *gin.Engine {
	r := gin.New()
	r.SetTrustedProxies(nil)
	r.Use(ginlimit.New(limit, ginlimit.ByIP()))
	r.GET("/ping", ok)
	return r
}

func TestPingIsLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // time.Sleep takes no time in here
		r := newRouter(ginlimit.PerMinute(3))
		ping := func() int {
			w := httptest.NewRecorder()
			r.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/ping", nil))
			return w.Code
		}
		for range 3 {
			if code := ping(); code != http.StatusOK {
				t.Fatal(code)
			}
		}
		if code := ping(); code != http.StatusTooManyRequests {
			t.Fatal(code)
		}
		time.Sleep(20 * time.Second) // one of three a minute is back
		if code := ping(); code != http.StatusOK {
			t.Fatal(code)
		}
	})
}
