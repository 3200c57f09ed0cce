package ginlimit_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/memory"
)

// strict is a backend that gives up as soon as its caller does, as a store behind a network would.
type strict struct{ backend.Backend }

func (b strict) Take(ctx context.Context, key string, cost int64, limits ...backend.Limit) (backend.Result, error) {
	if ctx.Err() != nil {
		return backend.Result{}, errors.Join(backend.ErrUnavailable, ctx.Err())
	}
	return b.Backend.Take(ctx, key, cost, limits...)
}

// A client that closes its half of the connection cancels its request, and is served all the same: that must be no way
// past a limiter that fails open.
func TestHangingUpIsNoWayAroundALimit(t *testing.T) {
	for name, limiter := range map[string]gin.HandlerFunc{
		"take": ginlimit.New(ginlimit.PerHour(3), ginlimit.Global(),
			ginlimit.WithName("a"), ginlimit.WithBackend(strict{memory.New()})),
		"wait": ginlimit.New(ginlimit.PerHour(3), ginlimit.Global(), ginlimit.WithMaxWait(time.Millisecond),
			ginlimit.WithName("a"), ginlimit.WithBackend(strict{memory.New()})),
	} {
		t.Run(name, func(t *testing.T) {
			var passed atomic.Int64
			r := gin.New()
			r.Use(func(c *gin.Context) { <-c.Request.Context().Done() }) // authentication that takes its time
			r.GET("/", limiter, func(*gin.Context) { passed.Add(1) })
			server := httptest.NewServer(r)
			defer server.Close()
			for range 6 {
				conn, err := net.Dial("tcp", server.Listener.Addr().String())
				require.NoError(t, err)
				_, err = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
				require.NoError(t, err)
				require.NoError(t, conn.(*net.TCPConn).CloseWrite())
				_, err = io.Copy(io.Discard, conn)
				require.NoError(t, err)
				conn.Close()
			}
			assert.EqualValues(t, 3, passed.Load())
		})
	}
}

// Nor may a look-up of the key that fails because the client hung up let anybody in.
func TestHangingUpWhileTheKeyIsLookedUp(t *testing.T) {
	r := gin.New()
	r.GET("/", ginlimit.New(ginlimit.PerHour(3), func(c *gin.Context) (string, error) { return "", c.Request.Context().Err() }), ok)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	w := httptest.NewRecorder()
	r.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil).WithContext(ctx))
	assert.Equal(t, http.StatusServiceUnavailable, w.Code)
}

// The backend still learns of a deadline.
func TestTheBackendLearnsOfADeadline(t *testing.T) {
	end := time.Now().Add(time.Hour)
	var got time.Time
	r := gin.New()
	r.GET("/", ginlimit.New(ginlimit.PerHour(3), ginlimit.Global(), ginlimit.WithName("a"),
		ginlimit.WithBackend(contextSpy{memory.New(), func(ctx context.Context) { got, _ = ctx.Deadline() }})), ok)
	ctx, cancel := context.WithDeadline(context.Background(), end)
	defer cancel()
	r.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil).WithContext(ctx))
	assert.True(t, end.Equal(got), got)
}

type contextSpy struct {
	backend.Backend
	see func(context.Context)
}

func (b contextSpy) Take(ctx context.Context, key string, cost int64, limits ...backend.Limit) (backend.Result, error) {
	b.see(ctx)
	return b.Backend.Take(ctx, key, cost, limits...)
}

// hungUp is the request of a client that is gone.
func hungUp(q *http.Request) {
	ctx, cancel := context.WithCancel(q.Context())
	cancel()
	*q = *q.WithContext(ctx)
}

// A look-up in a database ends with the request's context. If the limiter's own limits decided then, they would clamp what
// the caller used under its tier.
func TestHangingUpIsNoWayToOtherLimits(t *testing.T) {
	pro := ginlimit.Tier{Name: "pro", Limits: []ginlimit.Limit{ginlimit.PerHour(5)}}
	for name, own := range map[string]ginlimit.Limit{
		"smaller":           ginlimit.PerHour(2),
		"another algorithm": ginlimit.PerHour(2).WithAlgorithm(backend.FixedWindow),
	} {
		t.Run(name, func(t *testing.T) {
			var seen watch
			r := engine(ginlimit.New(own, is("user:ann"), ginlimit.WithObserver(seen.observe),
				ginlimit.WithTier(func(c *gin.Context) (ginlimit.Tier, error) {
					if err := c.Request.Context().Err(); err != nil {
						return ginlimit.Tier{}, err
					}
					return pro, nil
				})))
			for range 5 {
				assert.Equal(t, http.StatusOK, send(r).Code)
			}
			assert.Equal(t, http.StatusTooManyRequests, send(r).Code)
			assert.Equal(t, http.StatusServiceUnavailable, send(r, hungUp).Code)
			d := seen.last()
			assert.ErrorIs(t, d.Err, context.Canceled)
			assert.ErrorIs(t, d.TierErr, context.Canceled)
			assert.Equal(t, http.StatusTooManyRequests, send(r).Code)

			// A deadline is not the client's to set: then the limiter's own limits decide, as for any other error.
			send(r, func(q *http.Request) {
				ctx, cancel := context.WithTimeout(q.Context(), 0)
				t.Cleanup(cancel)
				*q = *q.WithContext(ctx)
			})
			assert.NoError(t, seen.last().Err)
			assert.ErrorIs(t, seen.last().TierErr, context.DeadlineExceeded)
		})
	}
}

// Who calls Allow with the context of a request that is over gets no pass for it either.
func TestAllowWithACancelledContext(t *testing.T) {
	l := must(ginlimit.NewLimiter(ginlimit.PerHour(3), ginlimit.Global(), ginlimit.WithName("a"), ginlimit.WithBackend(strict{memory.New()})))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	d, err := l.Allow(ctx, "k", 1)
	assert.ErrorIs(t, err, context.Canceled)
	assert.Equal(t, http.StatusServiceUnavailable, d.Status())
}
