package benchmarks

import (
	"net/http"
	"testing"
	"time"

	ratelimit "github.com/JGLTechnologies/gin-rate-limit"
	"github.com/gin-gonic/gin"
	"github.com/ginlimit/ginlimit"
	"github.com/sethvargo/go-limiter/httplimit"
	"github.com/sethvargo/go-limiter/memorystore"
	"github.com/ulule/limiter/v3"
	ulule "github.com/ulule/limiter/v3/drivers/middleware/gin"
	ululestore "github.com/ulule/limiter/v3/drivers/store/memory"
)

// perMinute is a limit that no loop here spends.
const perMinute = 1_000_000_000

// Middleware is a rate limiter on a Gin engine: New returns its handler, which answers with Status.
type Middleware struct {
	Name   string
	Status int
	New    func() gin.HandlerFunc
}

// Middlewares are the engine without a limiter, ginlimit, and the rivals. All limit by the client's address.
var Middlewares = []Middleware{
	{"bare", http.StatusOK, func() gin.HandlerFunc { return nil }},
	{"ginlimit", http.StatusOK, func() gin.HandlerFunc {
		return ginlimit.New(ginlimit.PerMinute(perMinute), ginlimit.ByIP())
	}},
	{"ginlimit-429", http.StatusTooManyRequests, func() gin.HandlerFunc {
		return ginlimit.New(ginlimit.PerHour(1), ginlimit.ByIP()) // the first request spends it
	}},
	{"ulule", http.StatusOK, func() gin.HandlerFunc {
		return ulule.NewMiddleware(limiter.New(ululestore.NewStore(), limiter.Rate{Period: time.Minute, Limit: perMinute}))
	}},
	{"gin-rate-limit", http.StatusOK, func() gin.HandlerFunc {
		return ratelimit.RateLimiter(
			ratelimit.InMemoryStore(&ratelimit.InMemoryOptions{Rate: time.Minute, Limit: perMinute}),
			&ratelimit.Options{KeyFunc: func(c *gin.Context) string { return c.ClientIP() }},
		)
	}},
	{"go-limiter", http.StatusOK, func() gin.HandlerFunc {
		store, err := memorystore.New(&memorystore.Config{Tokens: perMinute, Interval: time.Hour})
		must(err)
		middleware, err := httplimit.NewMiddleware(store, httplimit.IPKeyFunc())
		must(err)
		// It is made for net/http: this is how its users put it before Gin's handlers.
		return func(c *gin.Context) {
			allowed := false
			middleware.Handle(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
				allowed = true
			})).ServeHTTP(c.Writer, c.Request)
			if !allowed {
				c.Abort()
			}
		}
	}},
}

// Serve measures GET /ping on an engine with the middleware, from ServeHTTP to the end of the response.
func Serve(m Middleware) func(*testing.B) {
	return func(b *testing.B) {
		gin.SetMode(gin.ReleaseMode)
		r := gin.New()
		must(r.SetTrustedProxies(nil))
		if h := m.New(); h != nil {
			r.Use(h)
		}
		r.GET("/ping", func(c *gin.Context) { c.String(http.StatusOK, "pong") })

		req, err := http.NewRequest(http.MethodGet, "/ping", nil)
		must(err)
		req.RemoteAddr = "203.0.113.7:54321"
		w := &response{header: http.Header{}}
		r.ServeHTTP(w, req) // makes the key; spends the limit that is to refuse

		b.ReportAllocs()
		for b.Loop() {
			clear(w.header)
			r.ServeHTTP(w, req)
			if w.status != m.Status {
				b.Fatalf("%s answers %d, not %d", m.Name, w.status, m.Status)
			}
		}
	}
}

// response is a http.ResponseWriter that can be used again, so that what is measured is the handlers.
type response struct {
	header http.Header
	status int
}

func (w *response) Header() http.Header               { return w.header }
func (w *response) WriteHeader(status int)            { w.status = status }
func (w *response) Write(p []byte) (int, error)       { return len(p), nil }
func (w *response) WriteString(s string) (int, error) { return len(s), nil }
