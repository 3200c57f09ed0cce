package migrate_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	ratelimit "github.com/JGLTechnologies/gin-rate-limit"
	"github.com/alicebob/miniredis/v2"
	"github.com/didip/tollbooth/v8"
	tblimiter "github.com/didip/tollbooth/v8/limiter"
	"github.com/gin-gonic/gin"
	"github.com/go-chi/httprate"
	goredis "github.com/redis/go-redis/v9"
	"github.com/sethvargo/go-limiter/httplimit"
	"github.com/sethvargo/go-limiter/memorystore"
	"github.com/throttled/throttled/v2"
	"github.com/throttled/throttled/v2/store/goredisstore.v9"
	"github.com/throttled/throttled/v2/store/memstore"
	"github.com/ulule/limiter/v3"
	ulule "github.com/ulule/limiter/v3/drivers/middleware/gin"
	ululememory "github.com/ulule/limiter/v3/drivers/store/memory"
	ululeredis "github.com/ulule/limiter/v3/drivers/store/redis"

	"github.com/ginlimit/ginlimit"
)

// The tests below are the cells of the README's comparison that can be tried out: three requests a
// minute for each address, in memory, each limiter as its own README sets it up. Where one of them
// has changed, the table has to.

// middleware is a limiter before a Gin handler.
type middleware struct {
	name string
	use  func(r *gin.Engine)
}

// middlewares returns them with counters of their own.
func middlewares(t *testing.T) []middleware {
	t.Helper()
	return []middleware{
		{"ginlimit", byHandAfter},
		{"ulule", ululeBefore},
		{"gin-rate-limit", ginRateLimitBefore},
		{"tollbooth", tollboothBefore},
		{"go-limiter", func(r *gin.Engine) {
			store, err := memorystore.New(&memorystore.Config{Tokens: 3, Interval: time.Minute})
			must(err)
			t.Cleanup(func() { must(store.Close(t.Context())) })
			m, err := httplimit.NewMiddleware(store, httplimit.IPKeyFunc())
			must(err)
			r.Use(wrap(m.Handle))
		}},
		{"throttled", func(r *gin.Engine) {
			store, err := memstore.NewCtx(65536)
			must(err)
			r.Use(wrap(throttledLimiter(store).RateLimit))
		}},
		{"httprate", func(r *gin.Engine) {
			r.Use(wrap(httprate.LimitBy(3, time.Minute, func(r *http.Request) (string, error) {
				host, _, err := net.SplitHostPort(r.RemoteAddr)
				return httprate.CanonicalizeIP(host), err
			})))
		}},
		{"x/time/rate", byHandBefore},
	}
}

func throttledLimiter(store throttled.GCRAStoreCtx) *throttled.HTTPRateLimiterCtx {
	gcra, err := throttled.NewGCRARateLimiterCtx(store, throttled.RateQuota{MaxRate: throttled.PerMin(3), MaxBurst: 2})
	must(err)
	return &throttled.HTTPRateLimiterCtx{RateLimiter: gcra, VaryBy: &throttled.VaryBy{RemoteAddr: true}}
}

// impatient returns a client that tries once, so that a test without Redis takes no time.
func impatient(addr string) *goredis.Client {
	return goredis.NewClient(&goredis.Options{Addr: addr, MaxRetries: -1, DialerRetries: 1})
}

// wrap puts a net/http middleware before Gin's handlers.
func wrap(m func(http.Handler) http.Handler) gin.HandlerFunc {
	return func(c *gin.Context) {
		passed := false
		m(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { passed = true })).ServeHTTP(c.Writer, c.Request)
		if !passed {
			c.Abort()
		}
	}
}

// ask sends a request and returns the answer.
func ask(r *gin.Engine, edit func(*http.Request)) *httptest.ResponseRecorder {
	req := httptest.NewRequest(http.MethodGet, "/", nil)
	edit(req)
	w := httptest.NewRecorder()
	r.ServeHTTP(w, req)
	return w
}

func serve(r *gin.Engine, m middleware) *gin.Engine {
	m.use(r)
	r.GET("/", func(c *gin.Context) { c.String(http.StatusOK, "ok") })
	return r
}

// expect compares what each of the middlewares does with what the table says of it.
func expect(t *testing.T, want map[string]string, does func(middleware) string) {
	t.Helper()
	for _, m := range middlewares(t) {
		if got := does(m); got != want[m.name] {
			t.Errorf("%s: %s; the table says: %s", m.name, got, want[m.name])
		}
	}
}

// passes returns how many of ten requests pass.
func passes(r *gin.Engine, edit func(i int, req *http.Request)) string {
	n := 0
	for i := range 10 {
		if ask(r, func(req *http.Request) { edit(i, req) }).Code == http.StatusOK {
			n++
		}
	}
	return fmt.Sprint(n, " of 10 pass")
}

// A client chooses an address by a header, on an engine as gin.New returns it.
func TestForgedAddress(t *testing.T) {
	const limited, free = "3 of 10 pass", "10 of 10 pass"
	expect(t, map[string]string{
		"ginlimit": limited, "ulule": free, "gin-rate-limit": free, "tollbooth": limited, "go-limiter": limited,
		"throttled": limited, "httprate": limited, "x/time/rate": free,
	}, func(m middleware) string {
		return passes(serve(gin.New(), m), func(i int, req *http.Request) {
			req.Header.Set("X-Forwarded-For", "198.51.100."+strconv.Itoa(i))
		})
	})
}

// One subscriber uses ten IPv6 addresses of a /64.
func TestAddressesOfOneSubscriber(t *testing.T) {
	const limited, free = "3 of 10 pass", "10 of 10 pass"
	expect(t, map[string]string{
		"ginlimit": limited, "ulule": free, "gin-rate-limit": free, "tollbooth": limited, "go-limiter": free,
		"throttled": free, "httprate": limited, "x/time/rate": free,
	}, func(m middleware) string {
		return passes(serve(engine(), m), func(i int, req *http.Request) {
			req.RemoteAddr = fmt.Sprintf("[2001:db8:1:2::%d]:4711", i)
		})
	})
}

// A request is refused: what is the client told about when to come again?
func TestRetryAfter(t *testing.T) {
	const none, seconds, date = "nothing", "seconds", "no date of HTTP"
	expect(t, map[string]string{
		"ginlimit": seconds, "ulule": none, "gin-rate-limit": none, "tollbooth": none, "go-limiter": date,
		"throttled": seconds, "httprate": seconds, "x/time/rate": none,
	}, func(m middleware) string {
		r := serve(engine(), m)
		for range 10 {
			w := ask(r, func(*http.Request) {})
			if w.Code != http.StatusTooManyRequests {
				continue
			}
			said := w.Header().Get("Retry-After")
			if said == "" {
				return none
			}
			if _, err := strconv.Atoi(said); err == nil {
				return seconds
			}
			if _, err := http.ParseTime(said); err != nil {
				return date
			}
			return said
		}
		return "none is refused"
	})
}

// Retry-After says how long to wait after three requests at once. Is that enough, and is it not too
// long?
func TestRetryAfterIsTrue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		want := map[string]string{
			"ginlimit": "says 20 s, passes after 20 s", "throttled": "says 20 s, passes after 20 s",
			"httprate": "says 60 s, passes after 71 s",
		}
		for _, m := range middlewares(t) {
			if want[m.name] == "" {
				continue // it says nothing, or is not of seconds
			}
			r := serve(engine(), m)
			said, start := "", time.Now()
			for range 4 {
				said = ask(r, func(*http.Request) {}).Header().Get("Retry-After")
			}
			for time.Since(start) < time.Hour && ask(r, func(*http.Request) {}).Code != http.StatusOK {
				time.Sleep(time.Second)
			}
			if got := fmt.Sprintf("says %s s, passes after %v s", said, time.Since(start).Seconds()); got != want[m.name] {
				t.Errorf("%s: %s; the table: %s", m.name, got, want[m.name])
			}
		}
	})
}

// Redis goes away while the application runs.
func TestRedisGoesAway(t *testing.T) {
	for _, c := range []struct {
		name string
		use  func(r *gin.Engine, addr string)
		want int
	}{
		{"ginlimit", func(r *gin.Engine, addr string) { ululeRedisAfter(r, "redis://"+addr+"?client_cache=0") }, http.StatusOK},
		{"ginlimit, FailClosed", func(r *gin.Engine, addr string) {
			ginRateLimitRedisAfter(r, "redis://"+addr+"?client_cache=0")
		}, http.StatusServiceUnavailable},
		{"ulule", func(r *gin.Engine, addr string) {
			store, err := ululeredis.NewStore(impatient(addr))
			must(err)
			r.Use(ulule.NewMiddleware(limiter.New(store, limiter.Rate{Period: time.Minute, Limit: 3})))
		}, http.StatusInternalServerError}, // a panic, which gin.Recovery answers
		{"gin-rate-limit", func(r *gin.Engine, addr string) {
			r.Use(ratelimit.RateLimiter(ratelimit.RedisStore(&ratelimit.RedisOptions{
				RedisClient: impatient(addr), Rate: time.Minute, Limit: 3,
			}), nil))
		}, http.StatusOK},
		{"throttled", func(r *gin.Engine, addr string) {
			store, err := goredisstore.NewCtx(impatient(addr), "throttled:")
			must(err)
			r.Use(wrap(throttledLimiter(store).RateLimit))
		}, http.StatusInternalServerError},
	} {
		t.Run(c.name, func(t *testing.T) {
			server, err := miniredis.Run()
			must(err)
			r := engine()
			recovered := false
			r.Use(gin.CustomRecoveryWithWriter(nil, func(c *gin.Context, _ any) {
				recovered = true
				c.AbortWithStatus(http.StatusInternalServerError)
			}))
			c.use(r, server.Addr())
			r.GET("/", func(c *gin.Context) { c.String(http.StatusOK, "ok") })
			if w := ask(r, func(*http.Request) {}); w.Code != http.StatusOK {
				t.Fatalf("with Redis: %d", w.Code)
			}
			server.Close()
			for range 5 { // more than the limit
				if w := ask(r, func(*http.Request) {}); w.Code != c.want {
					t.Errorf("without Redis: %d; the table says %d", w.Code, c.want)
				}
			}
			if recovered != (c.name == "ulule") {
				t.Errorf("it panicked: %v", recovered)
			}
		})
	}
}

// gin-rate-limit's window begins anew with each request that passes, so that a caller who stays
// below three a minute is refused; and it counts in whole seconds, so that a shorter period limits
// nothing.
func TestGinRateLimitWindow(t *testing.T) {
	perMinute := ratelimit.InMemoryStore(&ratelimit.InMemoryOptions{Rate: time.Minute, Limit: 3}) // not in the bubble: its goroutine has no end
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(100 * 365 * 24 * time.Hour) // beyond the clock of that goroutine, which drops what is old
		r, ours := engine(), engine()
		r.Use(ratelimit.RateLimiter(perMinute, nil))
		byHandAfter(ours)
		refused := 0
		for range 6 {
			for _, e := range []*gin.Engine{r, ours} {
				if e.Routes() == nil {
					e.GET("/", func(c *gin.Context) { c.String(http.StatusOK, "ok") })
				}
			}
			if ask(r, func(*http.Request) {}).Code != http.StatusOK {
				refused++
			}
			if code := ask(ours, func(*http.Request) {}).Code; code != http.StatusOK {
				t.Errorf("ginlimit answers %d", code)
			}
			time.Sleep(30 * time.Second)
		}
		if refused == 0 {
			t.Error("gin-rate-limit refuses none; the table says that it does")
		}
	})
	r := engine()
	r.Use(ratelimit.RateLimiter(ratelimit.InMemoryStore(&ratelimit.InMemoryOptions{Rate: 500 * time.Millisecond, Limit: 3}), nil))
	r.GET("/", func(c *gin.Context) { c.String(http.StatusOK, "ok") })
	if got := passes(r, func(int, *http.Request) {}); got != "10 of 10 pass" {
		t.Errorf("gin-rate-limit, 3 in 500 ms: %s; the table says all", got)
	}
}

// Two limiters, of 6 a minute and of 100 an hour, guard one route with one store: does each count
// for itself?
func TestTwoLimitersOnOneStore(t *testing.T) {
	store := ululememory.NewStore()
	r := engine()
	r.Use(ulule.NewMiddleware(limiter.New(store, limiter.Rate{Period: time.Minute, Limit: 6})),
		ulule.NewMiddleware(limiter.New(store, limiter.Rate{Period: time.Hour, Limit: 100})))
	r.GET("/", func(c *gin.Context) { c.String(http.StatusOK, "ok") })
	if got := passes(r, func(int, *http.Request) {}); got != "3 of 10 pass" {
		t.Errorf("ulule, 6 a minute and 100 an hour on one store: %s; the table says 3", got)
	}
	r = engine()
	r.Use(ginlimit.New(ginlimit.PerMinute(6), ginlimit.ByIP(), ginlimit.WithLimits(ginlimit.PerHour(100))))
	r.GET("/", func(c *gin.Context) { c.String(http.StatusOK, "ok") })
	if got := passes(r, func(int, *http.Request) {}); got != "6 of 10 pass" {
		t.Errorf("ginlimit: %s", got)
	}
}

// tollbooth limits nothing unless it is told where the address is.
func TestTollboothWithoutLookup(t *testing.T) {
	for _, lookup := range []string{"", "RemoteAddr"} {
		lmt := tollbooth.NewLimiter(3.0/60, nil).SetBurst(3).SetIPLookup(tblimiter.IPLookup{Name: lookup})
		r := engine()
		r.Use(func(c *gin.Context) {
			if e := tollbooth.LimitByRequest(lmt, c.Writer, c.Request); e != nil {
				c.AbortWithStatus(e.StatusCode)
			}
		})
		r.GET("/", func(c *gin.Context) { c.String(http.StatusOK, "ok") })
		want := map[string]string{"": "10 of 10 pass", "RemoteAddr": "3 of 10 pass"}[lookup]
		if got := passes(r, func(int, *http.Request) {}); got != want {
			t.Errorf("tollbooth, look-up %q: %s; the table says %s", lookup, got, want)
		}
	}
}

// A negative increment gives a charge of ulule's back.
func TestUluleGivesBack(t *testing.T) {
	l := limiter.New(ululememory.NewStore(), limiter.Rate{Period: time.Minute, Limit: 3})
	for _, step := range []struct{ units, left int64 }{{1, 2}, {1, 1}, {-1, 2}} {
		state, err := l.Increment(t.Context(), "key", step.units)
		must(err)
		if state.Remaining != step.left {
			t.Errorf("after %d: %d are left; the table says %d", step.units, state.Remaining, step.left)
		}
	}
}
