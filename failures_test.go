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
	"testing/synctest"
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

// A client that closes its half of the connection cancels its request, and is served all the same:
// that must be no way past a limiter that fails open.
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

// Nor may a look-up of the key that fails because the request's context is done let anybody in.
func TestTheKeysLookUpFailsWithTheRequest(t *testing.T) {
	r := engine(ginlimit.New(ginlimit.PerHour(3),
		func(c *gin.Context) (string, error) { return "key", c.Request.Context().Err() }))
	for name, done := range contextsThatAreDone {
		assert.Equal(t, http.StatusServiceUnavailable, send(r, done).Code, name)
	}
	assert.Equal(t, http.StatusOK, send(r).Code)
}

// hungUp is the request of a client that is gone.
func hungUp(q *http.Request) {
	ctx, cancel := context.WithCancel(q.Context())
	cancel()
	*q = *q.WithContext(ctx)
}

// pastDeadline is a request whose context's deadline is over, as a gateway makes it of a header
// that the client chose.
func pastDeadline(q *http.Request) {
	ctx, cancel := context.WithDeadline(q.Context(), time.Unix(0, 0))
	cancel()
	*q = *q.WithContext(ctx)
}

var contextsThatAreDone = map[string]func(*http.Request){"hung up": hungUp, "past its deadline": pastDeadline}

// Neither is a deadline that the client chose. The backend is asked without it, and sees the
// context's values.
func TestTheRequestsEndIsNotTheBackends(t *testing.T) {
	type valueKey struct{}
	for name, done := range contextsThatAreDone {
		for _, how := range []string{"Handle", "Check", "waiting"} {
			t.Run(name+", "+how, func(t *testing.T) {
				store := newSpy()
				store.onTake = func(ctx context.Context, _ string, _ int64) error {
					_, deadline := ctx.Deadline()
					assert.False(t, deadline)
					assert.Equal(t, "value", ctx.Value(valueKey{}))
					return ctx.Err()
				}
				opts := []ginlimit.Option{ginlimit.WithName("x"), ginlimit.WithBackend(store)}
				if how == "waiting" {
					opts = append(opts, ginlimit.WithMaxWait(time.Minute))
				}
				l := must(ginlimit.NewLimiter(ginlimit.PerHour(3), ginlimit.Global(), opts...))
				passed := 0
				handler := l.Handle
				if how == "Check" {
					handler = func(c *gin.Context) { l.Respond(c, l.Check(c)) }
				}
				r := engine(handler, func(*gin.Context) { passed++ })
				for range 20 {
					send(r, func(q *http.Request) {
						*q = *q.WithContext(context.WithValue(q.Context(), valueKey{}, "value"))
					}, done)
				}
				assert.Equal(t, 3, passed)
			})
		}
	}
}

// A look-up in a database ends with the request's context. If it fails, the tier that the key had
// last decides, or the limiter's own limits: no failure policy.
func TestTheRequestsEndIsNoWayToOtherLimits(t *testing.T) {
	for name, done := range contextsThatAreDone {
		t.Run(name, func(t *testing.T) {
			var seen watch
			r := engine(ginlimit.New(ginlimit.PerHour(2), byHeader, ginlimit.WithObserver(seen.observe),
				ginlimit.WithTier(func(c *gin.Context) (ginlimit.Tier, error) {
					return ginlimit.Tier{Name: "pro",
						Limits: []ginlimit.Limit{ginlimit.PerHour(5)}}, c.Request.Context().Err()
				})))
			for _, step := range []struct {
				key  string
				edit func(*http.Request)
				code int
				tier string
			}{
				{"ann", nil, 200, "pro"},
				{"ann", done, 200, "pro"},
				{"ann", done, 200, "pro"},
				{"ann", nil, 200, "pro"},
				{"ann", done, 200, "pro"},
				{"ann", done, 429, "pro"},
				{"ann", nil, 429, "pro"},
				{"bob", done, 200, ""}, // whose tier nobody remembers
				{"bob", done, 200, ""},
				{"bob", done, 429, ""},
			} {
				edits := []func(*http.Request){header("Key", step.key)}
				if step.edit != nil {
					edits = append(edits, step.edit)
				}
				assert.Equal(t, step.code, send(r, edits...).Code, "%+v", step)
				d := seen.last()
				assert.Equal(t, step.tier, d.Tier)
				assert.NoError(t, d.Err)
				assert.Equal(t, step.edit != nil, d.TierErr != nil)
			}
		})
	}
}

// A caller of Allow whose context is done gets no pass for it either.
func TestAllowWithAContextThatIsDone(t *testing.T) {
	l := must(ginlimit.NewLimiter(ginlimit.PerHour(3), ginlimit.Global(), ginlimit.WithName("a"),
		ginlimit.WithBackend(strict{memory.New()})))
	for name, done := range contextsThatAreDone {
		q := httptest.NewRequest(http.MethodGet, "/", nil)
		done(q)
		d, err := l.Allow(q.Context(), "k", 1)
		assert.ErrorIs(t, err, q.Context().Err(), name)
		assert.Equal(t, http.StatusServiceUnavailable, d.Status(), name)
		assert.Equal(t, "error_refused", d.Outcome(), name)
	}
}

// TestPanics: what a user's function does is the user's, but nothing is left locked, held or
// charged in part.
func TestPanics(t *testing.T) {
	bomb := func(c *gin.Context) {
		if c.GetHeader("Bomb") != "" {
			panic(http.ErrBodyNotAllowed)
		}
	}
	for name, tt := range map[string]struct {
		key  ginlimit.KeyFunc
		opt  ginlimit.Option
		left string // of 3, for the next request
	}{
		"key": {func(c *gin.Context) (string, error) { bomb(c); return "k", nil }, nil, "2"},
		"tier": {is("k"), ginlimit.WithTier(func(c *gin.Context) (ginlimit.Tier, error) {
			bomb(c)
			return ginlimit.Tier{}, nil
		}), "2"},
		"cost":   {is("k"), ginlimit.WithCost(func(c *gin.Context) int64 { bomb(c); return 1 }), "2"},
		"skip":   {is("k"), ginlimit.WithSkip(func(c *gin.Context) bool { bomb(c); return false }), "2"},
		"refund": {is("k"), ginlimit.WithRefundIf(func(c *gin.Context) bool { bomb(c); return false }), "1"},
		"observer": {is("k"), ginlimit.WithObserver(func(ctx context.Context, _ ginlimit.Decision) {
			if ctx.Value(bombKey{}) != nil {
				panic("observer")
			}
		}), "1"},
		"handler": {is("k"), nil, "1"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				opts := []ginlimit.Option{ginlimit.WithMaxWait(time.Hour)}
				if tt.opt != nil {
					opts = append(opts, tt.opt)
				}
				r := engine(recovery, ginlimit.New(ginlimit.PerMinute(3), tt.key, opts...), func(c *gin.Context) {
					if name == "handler" {
						bomb(c)
					}
				})
				w := send(r, header("Bomb", "1"), func(q *http.Request) {
					*q = *q.WithContext(context.WithValue(q.Context(), bombKey{}, true))
				})
				if name == "refund" {
					assert.Equal(t, 200, w.Code, "the handlers have answered")
				} else {
					assert.Equal(t, 500, w.Code)
				}
				w = send(r)
				assert.Equal(t, 200, w.Code)
				assert.Equal(t, tt.left, w.Header().Get("X-RateLimit-Remaining"))
			})
		})
	}
}

type bombKey struct{}

var recovery = gin.RecoveryWithWriter(io.Discard)

func TestPanicsOfDenyHandlers(t *testing.T) {
	r := engine(recovery, ginlimit.New(ginlimit.PerMinute(0), ginlimit.Global(),
		ginlimit.WithDenyHandler(func(*gin.Context, ginlimit.Decision) { panic("deny") })),
		func(*gin.Context) { t.Error("went on") })
	assert.Equal(t, 500, send(r).Code)
	assert.Equal(t, 500, send(r).Code)
}

// TestPanicsWhileWaiting: whoever panics in the line, or after it, gives the place and the turn to
// the next.
func TestPanicsWhileWaiting(t *testing.T) {
	for _, where := range []string{"backend", "observer", "handler"} {
		t.Run(where, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := newSpy()
				var takes atomic.Int64
				store.onTake = func(ctx context.Context, _ string, _ int64) error {
					if takes.Add(1) > 2 && where == "backend" && ctx.Value(bombKey{}) != nil {
						panic("backend")
					}
					return nil
				}
				q := newQueue(ginlimit.PerSecond(1), ginlimit.Global())
				q.r = engine(recovery, ginlimit.New(ginlimit.PerSecond(1), ginlimit.Global(),
					ginlimit.WithMaxWait(time.Minute),
					ginlimit.WithName("x"), ginlimit.WithBackend(store),
					ginlimit.WithObserver(func(ctx context.Context, _ ginlimit.Decision) {
						if where == "observer" && ctx.Value(bombKey{}) != nil {
							panic("observer")
						}
					})), func(c *gin.Context) {
					if where == "handler" && c.Request.Context().Value(bombKey{}) != nil {
						panic("handler")
					}
				})
				q.send("a")
				q.send("bomb", func(r *http.Request) {
					*r = *r.WithContext(context.WithValue(r.Context(), bombKey{}, true))
				})
				q.send("b")
				q.send("c")
				want := []string{"a 200 0s", "bomb 500 1s", "b 200 2s", "c 200 3s"}
				if where == "backend" { // it charged nothing
					want = []string{"a 200 0s", "bomb 500 0s", "b 200 1s", "c 200 2s"}
				}
				assert.Equal(t, want, q.wait())
			})
		})
	}
}
