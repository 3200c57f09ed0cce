package ginlimit_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/memory"
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
	for _, l := range []ginlimit.Limit{steady, exact, smooth, quota, odd} {
		fmt.Println(l)
	}
	// Output:
	// 100 per 1m0s, burst 20, token bucket
	// 5 per 1h0m0s, sliding log
	// 600 per 1m0s, sliding window
	// 10000 per 24h0m0s, fixed window
	// 3 per 7ms, token bucket
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

func ExampleWithMaxWait() {
	// The leaky bucket: a request every 10 ms, in the order in which they came; who would wait longer than a second
	// is refused at once.
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
	// Output: 429 {"error":"slow down","limit":"0 per 1m0s, token bucket"}
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
	// api: allowed true, 0 left of 1 per 1m0s, token bucket
	// 200
	// api: allowed false, 0 left of 1 per 1m0s, token bucket
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
	// ginlimit: limit 10 per 0s, token bucket: period is not between 1ms and 8784h0m0s
	// ginlimit: WithBackend needs WithName, so that two limiters never share counters by accident
	// false
}
