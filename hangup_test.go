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
