package ginlimit_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"sync/atomic"

	"github.com/gin-gonic/gin"

	"github.com/ginlimit/ginlimit"
)

type requestIDKey struct{}

// requestID is middleware that gives a request an id, or takes over the one that a proxy gave it, and puts it into the
// request's context: observers get that, and no gin.Context. It comes before the limiters.
func requestID(c *gin.Context) {
	id := c.GetHeader("X-Request-Id")
	if id == "" || len(id) > 64 { // a client may send anything
		id = rand.Text()
	}
	c.Header("X-Request-Id", id)
	c.Request = c.Request.WithContext(context.WithValue(c.Request.Context(), requestIDKey{}, id))
}

// refusals logs requests that did not pass, so many that a flood of them does not flood the log: what is left out is
// counted, and the next line says how many there were. What bounds the lines is a limiter too, in memory, with the name
// of the one that refused as its key: one that is flooded does not silence the others.
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
	// level=WARN msg="request refused" request_id=request-3 limiter=api tier="" status=429 limit="2 per 1h0m0s, token bucket"
	// level=WARN msg="request refused" request_id=request-4 limiter=api tier="" status=429 limit="2 per 1h0m0s, token bucket"
	// level=WARN msg="request refused" request_id=request-101 limiter=api tier="" status=429 limit="2 per 1h0m0s, token bucket" left_out=96
}
