package ginlimit_test

import (
	"context"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/assert"

	"github.com/ginlimit/ginlimit"
)

// TestPanics: what a user's function does is the user's, but nothing is left locked, held or charged in part.
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
		"key":    {func(c *gin.Context) (string, error) { bomb(c); return "k", nil }, nil, "2"},
		"tier":   {is("k"), ginlimit.WithTier(func(c *gin.Context) (ginlimit.Tier, error) { bomb(c); return ginlimit.Tier{}, nil }), "2"},
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
	r := engine(recovery, ginlimit.New(ginlimit.PerMinute(0), ginlimit.Global(), ginlimit.WithDenyHandler(func(*gin.Context, ginlimit.Decision) { panic("deny") })),
		func(*gin.Context) { t.Error("went on") })
	assert.Equal(t, 500, send(r).Code)
	assert.Equal(t, 500, send(r).Code)
}

// TestPanicsWhileWaiting: whoever panics in the line, or after it, gives the place and the turn to the next.
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
				q.r = engine(recovery, ginlimit.New(ginlimit.PerSecond(1), ginlimit.Global(), ginlimit.WithMaxWait(time.Minute),
					ginlimit.WithName("x"), ginlimit.WithBackend(store), ginlimit.WithObserver(func(ctx context.Context, _ ginlimit.Decision) {
						if where == "observer" && ctx.Value(bombKey{}) != nil {
							panic("observer")
						}
					})), func(c *gin.Context) {
					if where == "handler" && c.Request.Context().Value(bombKey{}) != nil {
						panic("handler")
					}
				})
				q.send("a")
				q.send("bomb", func(r *http.Request) { *r = *r.WithContext(context.WithValue(r.Context(), bombKey{}, true)) })
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
