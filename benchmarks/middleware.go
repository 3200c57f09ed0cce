package benchmarks

import (
	"net/http"
	"strings"
	"time"

	ginratelimit "github.com/JGLTechnologies/gin-rate-limit"
	"github.com/didip/tollbooth/v8"
	"github.com/gin-gonic/gin"
	"github.com/go-chi/httprate"
	goredis "github.com/redis/go-redis/v9"
	"github.com/sethvargo/go-limiter/httplimit"
	"github.com/sethvargo/go-limiter/memorystore"
	"github.com/throttled/throttled/v2"
	"github.com/throttled/throttled/v2/store/memstore"
	ulule "github.com/ulule/limiter/v3"
	ululegin "github.com/ulule/limiter/v3/drivers/middleware/gin"
	ululememory "github.com/ulule/limiter/v3/drivers/store/memory"
	ululeredis "github.com/ulule/limiter/v3/drivers/store/redis"

	"github.com/ginlimit/ginlimit"
)

const (
	floorGin     = floorPrefix + "bare Gin"
	floorHeaders = floorPrefix + "bare Gin, the same 5 fields"
	legacyOnly   = own + ", 3 fields"
)

// Middleware is a rate limiter on a Gin engine, by the client's address. New returns its handler,
// or nil.
type Middleware struct {
	Name string
	New  func(addr string, q Quota) gin.HandlerFunc
}

func (m Middleware) name() string { return m.Name }

var ginFloors = []Middleware{
	{floorGin, func(string, Quota) gin.HandlerFunc { return nil }},
	{floorHeaders, func(string, Quota) gin.HandlerFunc {
		return func(c *gin.Context) {
			c.Header("RateLimit-Policy", `"default";q=1000;w=60`)
			c.Header("RateLimit", `"default";r=999;t=1`)
			c.Header("X-RateLimit-Limit", "1000")
			c.Header("X-RateLimit-Remaining", "999")
			c.Header("X-RateLimit-Reset", "1")
		}
	}},
}

var memoryMiddlewares = []Middleware{
	{own, func(_ string, q Quota) gin.HandlerFunc {
		return ginlimit.New(ginlimit.Per(int64(q.N), q.Period), ginlimit.ByIP())
	}},
	{legacyOnly, func(_ string, q Quota) gin.HandlerFunc {
		return ginlimit.New(ginlimit.Per(int64(q.N), q.Period), ginlimit.ByIP(), ginlimit.WithHeaders(ginlimit.HeadersLegacy))
	}},
	{xtime, func(_ string, q Quota) gin.HandlerFunc { return byHand(inMemory(), xtime, "", q) }},
	{ululeName, func(_ string, q Quota) gin.HandlerFunc {
		return ululegin.NewMiddleware(ulule.New(ululememory.NewStore(), ululeRate(q)))
	}},
	{ginRate, func(_ string, q Quota) gin.HandlerFunc {
		return ginRateMiddleware(ginratelimit.InMemoryStore(&ginratelimit.InMemoryOptions{Rate: q.Period, Limit: uint(q.N)}))
	}},
	{goLimiter, func(_ string, q Quota) gin.HandlerFunc {
		store, err := memorystore.New(&memorystore.Config{Tokens: uint64(q.N), Interval: q.Period})
		must(err)
		m, err := httplimit.NewMiddleware(store, httplimit.IPKeyFunc("X-Forwarded-For"))
		must(err)
		return before(m.Handle)
	}},
	{throttledGo, func(_ string, q Quota) gin.HandlerFunc {
		store, err := memstore.NewCtx(0)
		must(err)
		return throttledMiddleware(store, q)
	}},
	{tollboothGo, func(_ string, q Quota) gin.HandlerFunc {
		direct, proxied := newTollbooth(q, "RemoteAddr"), newTollbooth(q, "X-Forwarded-For")
		return func(c *gin.Context) {
			l := direct
			if c.Request.Header["X-Forwarded-For"] != nil {
				l = proxied
			}
			if err := tollbooth.LimitByRequest(l, c.Writer, c.Request); err != nil {
				c.Data(err.StatusCode, l.GetMessageContentType(), []byte(err.Message))
				c.Abort()
			}
		}
	}},
	{httprateGo, func(_ string, q Quota) gin.HandlerFunc {
		return before(httprate.LimitBy(q.N, q.Period, func(r *http.Request) (string, error) {
			return httprate.CanonicalizeIP(address(r)), nil
		}))
	}},
}

var redisMiddlewares = []Middleware{
	{own, func(addr string, q Quota) gin.HandlerFunc {
		return ginlimit.New(ginlimit.Per(int64(q.N), q.Period), ginlimit.ByIP(), ginlimit.WithName("http"), ginlimit.WithBackend(dial(addr)))
	}},
	{redisRate, func(addr string, q Quota) gin.HandlerFunc { return byHand(inRedis(), redisRate, addr, q) }},
	{ululeName, func(addr string, q Quota) gin.HandlerFunc {
		store, err := ululeredis.NewStore(goredis.NewClient(&goredis.Options{Addr: addr}))
		must(err)
		return ululegin.NewMiddleware(ulule.New(store, ululeRate(q)))
	}},
	{ginRate, func(addr string, q Quota) gin.HandlerFunc {
		client := goredis.NewClient(&goredis.Options{Addr: addr})
		return ginRateMiddleware(ginratelimit.RedisStore(&ginratelimit.RedisOptions{RedisClient: client, Rate: q.Period, Limit: uint(q.N)}))
	}},
}

// byHand is what people write around a limiter that has no middleware.
func byHand(limiters []Limiter, name, addr string, q Quota) gin.HandlerFunc {
	var take Take
	for _, l := range limiters {
		if l.Name == name {
			take, _ = l.New(addr, q)
		}
	}
	return func(c *gin.Context) {
		if ok, err := take(c.ClientIP()); err != nil {
			c.AbortWithStatus(http.StatusInternalServerError)
		} else if !ok {
			c.AbortWithStatus(http.StatusTooManyRequests)
		}
	}
}

// before puts a middleware that is made for net/http before Gin's handlers.
func before(middleware func(http.Handler) http.Handler) gin.HandlerFunc {
	return func(c *gin.Context) {
		allowed := false
		middleware(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { allowed = true })).ServeHTTP(c.Writer, c.Request)
		if !allowed {
			c.Abort()
		}
	}
}

func ginRateMiddleware(store ginratelimit.Store) gin.HandlerFunc {
	return ginratelimit.RateLimiter(store, &ginratelimit.Options{
		KeyFunc: func(c *gin.Context) string { return c.ClientIP() },
		ErrorHandler: func(c *gin.Context, info ginratelimit.Info) {
			c.String(http.StatusTooManyRequests, "Too many requests. Try again in "+time.Until(info.ResetTime).String())
		},
	})
}

// varyByAddress keys throttled's middleware as the others: its own VaryBy knows only the socket's
// address, port and all.
type varyByAddress struct{}

func (varyByAddress) Key(r *http.Request) string { return address(r) }

func throttledMiddleware(store throttled.GCRAStoreCtx, q Quota) gin.HandlerFunc {
	limiter, err := throttled.NewGCRARateLimiterCtx(store, throttledQuota(q))
	must(err)
	m := throttled.HTTPRateLimiterCtx{RateLimiter: limiter, VaryBy: varyByAddress{}}
	return before(m.RateLimit)
}

// address is the client's for those that leave it to their user: behind the proxy of these
// benchmarks, or without it.
func address(r *http.Request) string {
	if forwarded := r.Header.Get("X-Forwarded-For"); forwarded != "" {
		return forwarded
	}
	host, _, _ := strings.Cut(r.RemoteAddr, ":")
	return host
}

// engine is a Gin engine with one route behind the handlers, as they should be set up behind a
// proxy on this machine.
func engine(handlers ...gin.HandlerFunc) *gin.Engine {
	gin.SetMode(gin.ReleaseMode)
	r := gin.New()
	must(r.SetTrustedProxies([]string{"127.0.0.1"}))
	for _, h := range handlers {
		if h != nil {
			r.Use(h)
		}
	}
	r.GET("/ping", func(c *gin.Context) { c.String(http.StatusOK, "pong") })
	return r
}

// Cases of the section middleware.
const (
	caseThrough = "200"
	caseAnother = "200, another key"
	caseRefused = "429"
)

// setsKey is what other middleware does, such as that of request IDs or authentication: it sets a
// key.
func setsKey(c *gin.Context) { c.Set("request-id", "4711") }

// requests asks GET /ping of an engine that answers with status. The first request makes the key,
// and spends the limit that is to refuse.
func requests(r *gin.Engine, status int) op {
	w := &response{header: http.Header{}}
	req, err := http.NewRequest(http.MethodGet, "/ping", nil)
	must(err)
	req.RemoteAddr = "203.0.113.7:54321"
	r.ServeHTTP(w, req)
	return func(n int) (int, error) {
		for range n {
			clear(w.header)
			if r.ServeHTTP(w, req); w.status != status {
				return 0, errAnswer
			}
		}
		return 0, nil
	}
}

// middleware measures GET /ping, from ServeHTTP to the end of the response, and what a middleware
// adds to the bare engine: in each round to the bare engine of that round. Where another handler
// sets a key, it does so in the bare engine too.
func (b *bench) middleware() error {
	var bare cost
	measure := func(of string, before gin.HandlerFunc, status int, q Quota) func(Middleware) error {
		return func(m Middleware) error {
			got, err := b.time(1, 1, func() op { return requests(engine(before, m.New("", q)), status) })
			if m.Name == floorGin {
				bare = got
			}
			b.addCost(of, m.Name, 0, got)
			if m.Name != floorGin && bare.ns > 0 {
				b.add(of, m.Name, "added ns", 0, got.ns-bare.ns)
				b.add(of, m.Name, "added allocs", 0, got.allocs-bare.allocs)
			}
			return err
		}
	}
	// A refused request is compared with one that is let through.
	return bareFirst(b, func() error {
		for _, c := range []struct {
			of          string
			before      gin.HandlerFunc
			status      int
			q           Quota
			middlewares []Middleware
		}{
			{caseAnother, setsKey, http.StatusOK, hotQuota, append(ginFloors, memoryMiddlewares...)},
			{caseThrough, nil, http.StatusOK, hotQuota, append(ginFloors, memoryMiddlewares...)},
			{caseRefused, nil, http.StatusTooManyRequests, spentQuota, memoryMiddlewares},
		} {
			if err := eachRound(b, c.middlewares, measure(c.of, c.before, c.status, c.q)); err != nil {
				return err
			}
		}
		return nil
	})
}

// bareFirst calls measure for each round: there the bare engine comes first, from which what others
// add is reckoned.
func bareFirst(b *bench, measure func() error) error {
	rounds := b.Rounds
	defer func() { b.Rounds = rounds }()
	b.Rounds = 1
	for range rounds {
		if err := measure(); err != nil {
			return err
		}
	}
	return nil
}
