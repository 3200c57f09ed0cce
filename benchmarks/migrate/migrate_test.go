// Package migrate_test has what other rate limiters do on a Gin engine, before, and the same with
// ginlimit, after. The README shows both. Each example sends the same requests to both and prints
// the status codes.
package migrate_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"testing"
	"time"

	ratelimit "github.com/JGLTechnologies/gin-rate-limit"
	"github.com/alicebob/miniredis/v2"
	"github.com/didip/tollbooth/v8"
	tblimiter "github.com/didip/tollbooth/v8/limiter"
	"github.com/gin-gonic/gin"
	goredis "github.com/redis/go-redis/v9"
	"github.com/ulule/limiter/v3"
	ulule "github.com/ulule/limiter/v3/drivers/middleware/gin"
	ululememory "github.com/ulule/limiter/v3/drivers/store/memory"
	ululeredis "github.com/ulule/limiter/v3/drivers/store/redis"
	"golang.org/x/time/rate"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/backend/redis"
)

func TestMain(m *testing.M) {
	gin.SetMode(gin.ReleaseMode)
	os.Exit(m.Run())
}

// engine returns an engine without a proxy before it.
func engine() *gin.Engine {
	r := gin.New()
	must(r.SetTrustedProxies(nil))
	return r
}

// codes sends n requests, one after the other, and prints how they were answered.
func codes(what string, r *gin.Engine, n int) {
	if r.Routes() == nil {
		r.GET("/", func(c *gin.Context) { c.String(http.StatusOK, "ok") })
	}
	fmt.Print(what, ":")
	for range n {
		w := httptest.NewRecorder()
		r.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		fmt.Print(" ", w.Code)
	}
	fmt.Println()
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func ululeBefore(r *gin.Engine) {
	perMinute, err := limiter.NewRateFromFormatted("3-M")
	if err != nil {
		log.Fatal(err)
	}
	r.Use(ulule.NewMiddleware(limiter.New(ululememory.NewStore(), perMinute)))
}

func ululeAfter(r *gin.Engine) {
	r.Use(ginlimit.New(ginlimit.PerMinute(3).WithAlgorithm(ginlimit.FixedWindow), ginlimit.ByIP(),
		ginlimit.WithHeaders(ginlimit.HeadersLegacyEpoch)))
}

func Example_ulule() {
	before, after := engine(), engine()
	ululeBefore(before)
	ululeAfter(after)
	codes("before", before, 5)
	codes("after", after, 5)
	// Output:
	// before: 200 200 200 429 429
	// after: 200 200 200 429 429
}

func ululeRedisBefore(r *gin.Engine, url string) {
	options, err := goredis.ParseURL(url)
	if err != nil {
		log.Fatal(err)
	}
	store, err := ululeredis.NewStoreWithOptions(goredis.NewClient(options), limiter.StoreOptions{Prefix: "shop"})
	if err != nil {
		log.Fatal(err)
	}
	perMinute := limiter.Rate{Period: time.Minute, Limit: 3}
	failOpen := func(c *gin.Context, err error) { log.Print(err); c.Next() }
	r.Use(ulule.NewMiddleware(limiter.New(store, perMinute), ulule.WithErrorHandler(failOpen)))
}

func ululeRedisAfter(r *gin.Engine, url string) {
	b, err := redis.Dial(context.Background(), url, redis.WithPrefix("shop"), redis.WithTimeout(time.Second))
	if err != nil {
		log.Fatal(err)
	}
	r.Use(ginlimit.New(ginlimit.PerMinute(3), ginlimit.ByIP(), ginlimit.WithBackend(b), ginlimit.WithName("api")))
}

func Example_ululeRedis() {
	server, err := miniredis.Run()
	must(err)
	defer server.Close()
	before, after := engine(), engine()
	ululeRedisBefore(before, "redis://"+server.Addr())
	ululeRedisAfter(after, "redis://"+server.Addr()+"?client_cache=0")
	codes("before", before, 5)
	codes("after", after, 5)
	// Output:
	// before: 200 200 200 429 429
	// after: 200 200 200 429 429
}

func ginRateLimitBefore(r *gin.Engine) {
	store := ratelimit.InMemoryStore(&ratelimit.InMemoryOptions{Rate: time.Minute, Limit: 3})
	r.Use(ratelimit.RateLimiter(store, &ratelimit.Options{
		KeyFunc: func(c *gin.Context) string { return c.ClientIP() },
		ErrorHandler: func(c *gin.Context, info ratelimit.Info) {
			c.String(429, "Too many requests. Try again in "+time.Until(info.ResetTime).String())
		},
	}))
}

func ginRateLimitAfter(r *gin.Engine) {
	r.Use(ginlimit.New(ginlimit.PerMinute(3), ginlimit.ByIP(),
		ginlimit.WithDenyHandler(func(c *gin.Context, d ginlimit.Decision) {
			c.String(d.Status(), "Too many requests. Try again in "+d.RetryAfter.String())
		}),
	))
}

func Example_ginRateLimit() {
	before, after := engine(), engine()
	ginRateLimitBefore(before)
	ginRateLimitAfter(after)
	codes("before", before, 5)
	codes("after", after, 5)
	// Output:
	// before: 200 200 200 429 429
	// after: 200 200 200 429 429
}

func ginRateLimitRedisBefore(r *gin.Engine, addr string) {
	store := ratelimit.RedisStore(&ratelimit.RedisOptions{
		RedisClient: goredis.NewClient(&goredis.Options{Addr: addr}),
		Rate:        time.Minute,
		Limit:       3,
		PanicOnErr:  true,
	})
	r.Use(ratelimit.RateLimiter(store, nil)) // by address and route
}

func ginRateLimitRedisAfter(r *gin.Engine, url string) {
	b, err := redis.Dial(context.Background(), url, redis.WithTimeout(time.Second))
	if err != nil {
		log.Fatal(err)
	}
	r.Use(ginlimit.New(ginlimit.PerMinute(3), ginlimit.Join(ginlimit.ByIP(), ginlimit.ByRoute()),
		ginlimit.WithBackend(b), ginlimit.WithName("api"), ginlimit.WithFailurePolicy(ginlimit.FailClosed)))
}

func Example_ginRateLimitRedis() {
	server, err := miniredis.Run()
	must(err)
	defer server.Close()
	before, after := engine(), engine()
	ginRateLimitRedisBefore(before, server.Addr())
	ginRateLimitRedisAfter(after, "redis://"+server.Addr()+"?client_cache=0")
	codes("before", before, 5)
	codes("after", after, 5)
	// Output:
	// before: 200 200 200 429 429
	// after: 200 200 200 429 429
}

func tollboothBefore(r *gin.Engine) {
	lmt := tollbooth.NewLimiter(3.0/60, nil).SetBurst(3) // a second, and at once; by address and path
	lmt.SetIPLookup(tblimiter.IPLookup{Name: "RemoteAddr"})
	r.Use(func(c *gin.Context) {
		if e := tollbooth.LimitByRequest(lmt, c.Writer, c.Request); e != nil {
			c.Data(e.StatusCode, lmt.GetMessageContentType(), []byte(e.Message))
			c.Abort()
		}
	})
}

func tollboothAfter(r *gin.Engine) {
	r.Use(ginlimit.New(ginlimit.PerMinute(3), ginlimit.Join(ginlimit.ByIP(), ginlimit.ByRoute())))
}

func Example_tollbooth() {
	before, after := engine(), engine()
	tollboothBefore(before)
	tollboothAfter(after)
	codes("before", before, 5)
	codes("after", after, 5)
	// Output:
	// before: 200 200 200 429 429
	// after: 200 200 200 429 429
}

func byHandBefore(r *gin.Engine) {
	var mu sync.Mutex
	clients := map[string]*rate.Limiter{} // grows for as long as the process lives
	r.Use(func(c *gin.Context) {
		mu.Lock()
		l, ok := clients[c.ClientIP()]
		if !ok {
			l = rate.NewLimiter(rate.Every(20*time.Second), 3)
			clients[c.ClientIP()] = l
		}
		mu.Unlock()
		if !l.Allow() {
			c.AbortWithStatus(http.StatusTooManyRequests)
		}
	})
}

func byHandAfter(r *gin.Engine) {
	r.Use(ginlimit.New(ginlimit.PerMinute(3), ginlimit.ByIP()))
}

func Example_xTimeRate() {
	before, after := engine(), engine()
	byHandBefore(before)
	byHandAfter(after)
	codes("before", before, 5)
	codes("after", after, 5)
	// Output:
	// before: 200 200 200 429 429
	// after: 200 200 200 429 429
}

// Without HTTP: rate.Limiter's AllowN, Reserve and SetLimit, for many keys.
func Example_xTimeRateAllow() {
	one := rate.NewLimiter(rate.Every(time.Minute), 3)
	fmt.Println(one.AllowN(time.Now(), 3), one.Allow())

	many, err := ginlimit.NewLimiter(ginlimit.PerMinute(1).WithBurst(3), ginlimit.Global())
	must(err)
	ctx := context.Background()
	three, err := many.Allow(ctx, "job:42", 3)
	must(err)
	another, err := many.Allow(ctx, "job:42", 1)
	must(err)
	fmt.Println(three.Allowed, another.Allowed, "wait", another.RetryAfter.Round(time.Minute))
	// Output:
	// true false
	// true false wait 1m0s
}
