package ginlimit_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
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

// costly reads the cost from the header "Cost".
func costly(c *gin.Context) int64 {
	n, _ := strconv.ParseInt(c.GetHeader("Cost"), 10, 64)
	return n
}

func TestCost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen watch
		r := engine(ginlimit.New(ginlimit.PerMinute(10), ginlimit.Global(), ginlimit.WithCost(costly),
			ginlimit.WithObserver(seen.observe)))
		for _, step := range []struct {
			cost            int64
			code            int
			remaining, wait string
		}{
			{0, 200, "10", ""}, {7, 200, "3", ""}, {4, 429, "3", "6"}, {3, 200, "0", ""}, {0, 429, "0", "6"}, {11, 429,
				"0", ""}, {math.MaxInt64, 429, "0", ""},
		} {
			w := send(r, header("Cost", strconv.FormatInt(step.cost, 10)))
			assert.Equal(t, step.code, w.Code, "%+v", step)
			assert.Equal(t, step.remaining, w.Header().Get("X-RateLimit-Remaining"), "%+v", step)
			assert.Equal(t, step.wait, w.Header().Get("Retry-After"), "%+v", step)
			assert.Equal(t, step.cost, seen.last().Cost)
		}
	})
}

func TestAllLimitsOrNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := must(ginlimit.NewLimiter(ginlimit.PerMinute(10).Named("minute"), ginlimit.Global(),
			ginlimit.WithLimits(ginlimit.PerHour(2).Named("hour")),
			ginlimit.WithLimits(ginlimit.PerDay(100).Named("day"))))
		r := engine(l.Handle)
		for i := range 5 {
			assert.Equal(t, map[bool]int{true: 200, false: 429}[i < 2], send(r).Code)
		}
		d, err := l.Peek(t.Context(), "global:", ginlimit.PerMinute(10))
		assert.NoError(t, err)
		assert.EqualValues(t, 8, d.Remaining, "three refusals charged nothing")
		assert.Len(t, d.Limits, 1)
	})
}

// TestCountOnlyFailures is the limit of log-ins: those that succeed give their charge back.
func TestCountOnlyFailures(t *testing.T) {
	for _, tt := range []struct {
		name  string
		limit ginlimit.Limit
	}{
		{"token bucket", ginlimit.PerHour(3)},
		{"sliding window", ginlimit.PerHour(3).WithAlgorithm(backend.SlidingWindow)},
		{"sliding log", ginlimit.PerHour(3).WithAlgorithm(backend.SlidingLog)},
		{"fixed window", ginlimit.PerHour(3).WithAlgorithm(backend.FixedWindow)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := engine(ginlimit.New(tt.limit, ginlimit.Global(),
					ginlimit.WithRefundIf(func(c *gin.Context) bool { return c.Writer.Status() < 400 })))
				r.GET("/fail", func(c *gin.Context) { c.Status(401) })
				for range 10 {
					assert.Equal(t, 200, send(r).Code)
				}
				for range 3 {
					assert.Equal(t, 401, send(r, path("/fail")).Code)
					if r := send(r); r.Code == 200 {
						assert.NotEmpty(t, r.Header().Get("X-RateLimit-Remaining"))
					}
				}
				assert.Equal(t, 429, send(r, path("/fail")).Code)
				assert.Equal(t, 429, send(r).Code)
			})
		})
	}
}

func TestRefund(t *testing.T) {
	var seen watch
	var gone context.CancelFunc
	refunds := 0
	store := newSpy()
	store.onSettle = func(ctx context.Context, charge ginlimit.Result, cost, _ int64) error {
		refunds++
		assert.NoError(t, ctx.Err(), "a client that is gone gets its charge back too")
		assert.Equal(t, seen.last().Result, charge)
		assert.EqualValues(t, 2, cost)
		return nil
	}
	refund := true
	l := must(ginlimit.NewLimiter(ginlimit.PerDay(4), ginlimit.Global(), ginlimit.WithName("x"),
		ginlimit.WithBackend(store), ginlimit.WithObserver(seen.observe),
		ginlimit.WithCost(func(*gin.Context) int64 { return 2 }),
		ginlimit.WithRefundIf(func(*gin.Context) bool { return refund })))
	r := engine(l.Handle, func(*gin.Context) { gone() })
	request := func() int {
		var ctx context.Context
		ctx, gone = context.WithCancel(t.Context())
		defer gone()
		return send(r, func(q *http.Request) { *q = *q.WithContext(ctx) }).Code
	}
	for range 5 {
		assert.Equal(t, 200, request())
	}
	assert.Equal(t, 5, refunds)
	refund = false
	assert.Equal(t, 200, request())
	assert.Equal(t, 200, request())
	refund = true
	assert.Equal(t, 429, request(), "what was refused gives nothing back")
	assert.Equal(t, 5, refunds)
	assert.Len(t, seen.seen, 8, "a refund is no decision")
}

func TestRefundThatFails(t *testing.T) {
	store := newSpy()
	store.onSettle = func(context.Context, ginlimit.Result, int64, int64) error { return backend.ErrUnavailable }
	r := engine(ginlimit.New(ginlimit.PerDay(1), ginlimit.Global(), ginlimit.WithName("x"), ginlimit.WithBackend(store),
		ginlimit.WithRefundIf(func(*gin.Context) bool { return true })))
	assert.Equal(t, 200, send(r).Code)
	assert.Equal(t, 429, send(r).Code, "the charge stays")
}

func TestNothingToRefund(t *testing.T) {
	for _, tt := range []struct {
		name string
		opt  ginlimit.Option
	}{
		{"refused in a dry run", ginlimit.WithDryRun(true)},
		{"not decided", ginlimit.WithTier(func(*gin.Context) (ginlimit.Tier, error) {
			return ginlimit.Tier{}, ginlimit.ErrSkip
		})},
		{"costs nothing", ginlimit.WithCost(func(*gin.Context) int64 { return 0 })},
	} {
		t.Run(tt.name, func(t *testing.T) {
			store := newSpy()
			store.onSettle = func(_ context.Context, charge ginlimit.Result, cost, _ int64) error {
				t.Errorf("refunds %d of %+v", cost, charge)
				return nil
			}
			l := must(ginlimit.NewLimiter(ginlimit.PerDay(2), ginlimit.Global(), ginlimit.WithName("x"),
				ginlimit.WithBackend(store), tt.opt,
				ginlimit.WithRefundIf(func(*gin.Context) bool {
					t.Error("is asked")
					return true
				})))
			if tt.name == "refused in a dry run" {
				_, _ = l.Allow(t.Context(), "global:", 2)
			}
			assert.Equal(t, 200, send(engine(l.Handle)).Code)
		})
	}
}

// precise is a backend whose clock counts nanoseconds.
type precise struct{ spy }

func (p *precise) Take(ctx context.Context, key string, cost int64, limits ...ginlimit.Limit) (ginlimit.Result, error) {
	res, err := p.spy.Take(ctx, key, cost, limits...)
	res.At = res.At.Add(123)
	return res, err
}

func TestRefundIsOfTheVeryCharge(t *testing.T) {
	store := &precise{*newSpy()}
	var refunded []ginlimit.Result
	store.onSettle = func(_ context.Context, charge ginlimit.Result, _, _ int64) error {
		refunded = append(refunded, charge)
		return nil
	}
	var w watch
	send(engine(ginlimit.New(ginlimit.PerDay(2), ginlimit.Global(), ginlimit.WithName("x"), ginlimit.WithBackend(store),
		ginlimit.WithObserver(w.observe), ginlimit.WithRefundIf(func(*gin.Context) bool { return true }))))
	assert.Equal(t, []ginlimit.Result{w.last().Result}, refunded)
}

func TestCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen watch
		l := must(ginlimit.NewLimiter(ginlimit.PerMinute(2), ginlimit.Global(), ginlimit.WithMaxWait(time.Hour),
			ginlimit.WithObserver(seen.observe)))
		var got []ginlimit.Decision
		r := engine(func(c *gin.Context) {
			d := l.Check(c)
			got = append(got, d)
			from, ok := ginlimit.FromContext(c)
			assert.True(t, ok)
			assert.Equal(t, d, from)
		})
		for range 3 {
			w := send(r)
			assert.Equal(t, 200, w.Code)
			assert.Equal(t, none, fields(w))
			assert.Equal(t, "ok", w.Body.String())
		}
		require.Len(t, got, 3)
		assert.Equal(t, got, seen.seen)
		assert.Equal(t, []int{0, 0, 429}, []int{got[0].Status(), got[1].Status(), got[2].Status()})
		assert.EqualValues(t, 30*time.Second, got[2].RetryAfter)
		assert.Zero(t, got[2].Waited, "only Handle waits")
	})
}

func TestCheckTwiceChargesTwice(t *testing.T) {
	l := must(ginlimit.NewLimiter(ginlimit.PerDay(10), ginlimit.Global()))
	send(engine(l.Handle, func(c *gin.Context) {
		assert.EqualValues(t, 8, l.Check(c).Remaining)
		assert.EqualValues(t, 7, l.Check(c).Remaining)
	}))
}

func TestFromContext(t *testing.T) {
	named := func(limit ginlimit.Limit, name string, opts ...ginlimit.Option) gin.HandlerFunc {
		return ginlimit.New(limit, ginlimit.Global(), append(opts, ginlimit.WithName(name))...)
	}
	check := func(limit ginlimit.Limit, name string) gin.HandlerFunc {
		l := must(ginlimit.NewLimiter(limit, ginlimit.Global(), ginlimit.WithName(name)))
		return func(c *gin.Context) { l.Check(c) }
	}
	down := []ginlimit.Option{ginlimit.WithBackend(failing(backend.ErrUnavailable))}
	for _, tt := range []struct {
		name     string
		handlers []gin.HandlerFunc
		want     string
	}{
		{"none", nil, ""},
		{"one", []gin.HandlerFunc{named(ginlimit.PerDay(5), "a")}, "a"},
		{"tightest first", []gin.HandlerFunc{named(ginlimit.PerDay(5), "a"),
			named(ginlimit.PerDay(9), "b")}, "a"},
		{"tightest second", []gin.HandlerFunc{named(ginlimit.PerDay(9), "a"),
			named(ginlimit.PerDay(5), "b")}, "b"},
		{"tightest in the middle", []gin.HandlerFunc{named(ginlimit.PerDay(9), "a"),
			named(ginlimit.PerDay(5), "b"), named(ginlimit.PerDay(8), "c")}, "b"},
		{"refused check", []gin.HandlerFunc{check(ginlimit.PerDay(0), "a"),
			named(ginlimit.PerDay(1), "b")}, "a"},
		{"two refused checks", []gin.HandlerFunc{check(ginlimit.PerDay(0), "never"),
			check(ginlimit.PerDay(0), "b"), named(ginlimit.PerDay(1), "c")}, "b"},
		{"unlimited", []gin.HandlerFunc{named(ginlimit.PerDay(100), "a"),
			named(ginlimit.Unlimited(), "b")}, "a"},
		{"dry run after the others", []gin.HandlerFunc{named(ginlimit.PerDay(0), "dry",
			ginlimit.WithDryRun(true)), named(ginlimit.PerDay(9), "b")}, "b"},
		{"only a dry run", []gin.HandlerFunc{named(ginlimit.PerDay(0), "dry",
			ginlimit.WithDryRun(true))}, "dry"},
		{"failure after the others", []gin.HandlerFunc{named(ginlimit.PerDay(9), "a"),
			named(ginlimit.PerDay(1), "down", down...)}, "a"},
		{"only a failure", []gin.HandlerFunc{named(ginlimit.PerDay(1), "down", down...)}, "down"},
		{"skipped", []gin.HandlerFunc{named(ginlimit.PerDay(1), "a",
			ginlimit.WithSkip(func(*gin.Context) bool { return true }))}, ""},
		{"skipped one after one that not", []gin.HandlerFunc{named(ginlimit.PerDay(9), "a"),
			named(ginlimit.PerDay(1), "b", ginlimit.WithSkip(func(*gin.Context) bool { return true }))}, "a"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			asked := false
			send(engine(append(tt.handlers, func(c *gin.Context) {
				asked = true
				d, ok := ginlimit.FromContext(c)
				assert.Equal(t, tt.want != "", ok)
				assert.Equal(t, tt.want, d.Limiter)
			})...))
			assert.True(t, asked)
		})
	}
}

// halved is a backend that grants half of every limit, as a share of one instance may be.
type halved struct{ backend.Backend }

func (h halved) Take(ctx context.Context, key string, cost int64, limits ...ginlimit.Limit) (ginlimit.Result, error) {
	limits = slices.Clone(limits)
	for i := range limits {
		limits[i].Count /= 2
	}
	return h.Backend.Take(ctx, key, cost, limits...)
}

// TestEverybodyIsToldTheSame: observers, deny handlers and handlers get one and the same decision.
func TestEverybodyIsToldTheSame(t *testing.T) {
	plan := func(err error, limits ...ginlimit.Limit) ginlimit.Option {
		return ginlimit.WithTier(func(*gin.Context) (ginlimit.Tier, error) {
			return ginlimit.Tier{Name: "pro", Limits: limits}, err
		})
	}
	type opts = []ginlimit.Option
	for _, tt := range []struct {
		name string
		opt  opts
	}{
		{"plain", nil},
		{"limits", opts{ginlimit.WithLimits(ginlimit.PerDay(3).Named("day"), ginlimit.PerDay(9))}},
		{"tier", opts{plan(nil, ginlimit.PerDay(3), ginlimit.PerHour(2))}},
		{"tier's name", opts{plan(nil)}},
		{"no tier", opts{plan(errOther)}},
		{"invalid tier", opts{plan(nil, ginlimit.PerDay(-1))}},
		{"unlimited", opts{plan(nil, ginlimit.Unlimited())}},
		{"cost", opts{ginlimit.WithCost(func(*gin.Context) int64 { return 2 })}},
		{"no cost", opts{ginlimit.WithCost(func(*gin.Context) int64 { return 0 })}},
		{"negative", opts{ginlimit.WithCost(func(*gin.Context) int64 { return -1 })}},
		{"never", opts{ginlimit.WithCost(func(*gin.Context) int64 { return 99 })}},
		{"waited", opts{ginlimit.WithMaxWait(time.Hour), plan(nil, ginlimit.PerMinute(1))}},
		{"dry run", opts{ginlimit.WithDryRun(true)}},
		{"open", opts{ginlimit.WithBackend(failing(backend.ErrUnavailable))}},
		{"share", opts{ginlimit.WithBackend(halved{newSpy()})}},
		{"closed", opts{ginlimit.WithBackend(failing(backend.ErrUnavailable)),
			ginlimit.WithFailurePolicy(ginlimit.FailClosed)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var seen watch
				told := 0
				same := func(c *gin.Context, d ginlimit.Decision) {
					told++
					from, ok := ginlimit.FromContext(c)
					assert.True(t, ok)
					assert.Equal(t, seen.last(), from)
					assert.Equal(t, seen.last(), d)
					assert.Equal(t, seen.last().Status(), from.Status())
				}
				r := engine(ginlimit.New(ginlimit.PerDay(2), ginlimit.ByIP(),
					append(opts{ginlimit.WithName("x"), ginlimit.WithObserver(seen.observe),
						ginlimit.WithDenyHandler(same)}, tt.opt...)...), func(c *gin.Context) {
					d, _ := ginlimit.FromContext(c)
					same(c, d)
				})
				for range 4 {
					send(r)
					time.Sleep(time.Second)
				}
				assert.Equal(t, 4, told)
			})
		})
	}
}

// TestNothingIsLeftOfOtherRequests: Gin reuses its contexts.
func TestNothingIsLeftOfOtherRequests(t *testing.T) {
	r := engine()
	limited := ginlimit.New(ginlimit.PerDay(100), ginlimit.Global())
	r.GET("/limited", limited, answer)
	r.GET("/free", func(c *gin.Context) {
		_, ok := ginlimit.FromContext(c)
		assert.False(t, ok)
	})
	for range 20 {
		send(r, path("/limited"))
		assert.Equal(t, none, fields(send(r, path("/free"))))
	}
}

func TestAllowPeekReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		var seen watch
		l := must(ginlimit.NewLimiter(ginlimit.PerMinute(3), byHeader, ginlimit.WithName("jobs"),
			ginlimit.WithObserver(seen.observe), ginlimit.WithMaxWait(time.Hour)))
		allow := func(key string, cost int64, limits ...ginlimit.Limit) ginlimit.Decision {
			t.Helper()
			d, err := l.Allow(ctx, key, cost, limits...)
			require.NoError(t, err)
			require.NoError(t, d.Err)
			return d
		}
		peek := func(key string, limits ...ginlimit.Limit) ginlimit.Decision {
			t.Helper()
			d, err := l.Peek(ctx, key, limits...)
			require.NoError(t, err)
			return d
		}
		assert.EqualValues(t, 3, peek("k").Remaining)
		d := allow("k", 2)
		assert.True(t, d.Allowed)
		assert.EqualValues(t, 1, d.Remaining)
		assert.Equal(t, "jobs", d.Limiter)
		assert.Equal(t, "k", d.Key)
		assert.EqualValues(t, 2, d.Cost)
		assert.Equal(t, "jobs", d.Limit.Name)
		assert.EqualValues(t, 1, peek("k").Remaining)
		assert.True(t, peek("k").Allowed)

		d = allow("k", 2)
		assert.False(t, d.Allowed)
		assert.Equal(t, 429, d.Status())
		assert.Equal(t, 20*time.Second, d.RetryAfter)
		assert.Equal(t, 429, send(engine(l.Handle), header("Key", "other"), func(q *http.Request) {
			_, _ = l.Allow(ctx, "other", 3)
			c, cancel := context.WithCancel(ctx)
			cancel()
			*q = *q.WithContext(c)
		}).Code, "the same key as requests have")

		assert.EqualValues(t, 1, allow("k", 0).Remaining, "a cost of 0 charges nothing")
		allow("k", 1)
		d = peek("k")
		assert.False(t, d.Allowed)
		assert.Equal(t, 20*time.Second, d.RetryAfter)
		assert.Equal(t, 429, d.Status())

		// Other limits replace the limiter's own, for this call.
		d = allow("k", 1, ginlimit.PerMinute(30), ginlimit.PerDay(1000))
		assert.True(t, d.Allowed)
		require.Len(t, d.Limits, 2)
		assert.Equal(t, "30-per-1m", d.Limits[0].Name)
		assert.EqualValues(t, 26, d.Remaining)
		assert.EqualValues(t, 26, peek("k", ginlimit.PerMinute(30)).Remaining)
		assert.EqualValues(t, 1, peek("k").Limits[0].Count/3, "only for this call")

		require.NoError(t, l.Reset(ctx, "k"))
		assert.EqualValues(t, 3, peek("k").Remaining)
		assert.NoError(t, l.Reset(ctx, "never seen"))
		assert.Zero(t, peek("other").Remaining)
		for _, d := range seen.seen {
			assert.Zero(t, d.Waited, "Allow does not wait")
		}
	})
}

func TestAllowPeekResetErrors(t *testing.T) {
	ctx := t.Context()
	var seen watch
	store := newSpy()
	l := must(ginlimit.NewLimiter(ginlimit.PerMinute(3), ginlimit.Global(), ginlimit.WithName("x"),
		ginlimit.WithBackend(store), ginlimit.WithObserver(seen.observe)))
	d, err := l.Allow(ctx, "", 1)
	assert.ErrorIs(t, err, ginlimit.ErrNoKey)
	assert.Equal(t, 400, d.Status())
	d, err = l.Allow(ctx, "k", -1)
	assert.ErrorContains(t, err, "ginlimit: ")
	assert.Equal(t, 400, d.Status())
	d, err = l.Allow(ctx, "k", 1, ginlimit.Limit{})
	assert.ErrorContains(t, err, "ginlimit: ")
	assert.NotZero(t, d.Status())
	d, err = l.Allow(ctx, "k", 1, ginlimit.PerDay(1).Named("a"), ginlimit.PerDay(2).Named("a"))
	assert.ErrorContains(t, err, "ginlimit: ")
	assert.NotZero(t, d.Status())
	_, err = l.Peek(ctx, "")
	assert.ErrorIs(t, err, ginlimit.ErrNoKey)
	_, err = l.Peek(ctx, "k", ginlimit.Limit{})
	assert.ErrorContains(t, err, "ginlimit: ")
	assert.ErrorIs(t, l.Reset(ctx, ""), ginlimit.ErrNoKey)

	store.onTake = func(context.Context, string, int64) error { return backend.ErrUnavailable }
	store.onReset = func(string) error { return backend.ErrUnavailable }
	d, err = l.Allow(ctx, "k", 1)
	assert.ErrorIs(t, err, backend.ErrUnavailable)
	assert.Equal(t, err, d.Err)
	assert.Zero(t, d.Status(), "FailOpen")
	_, err = l.Peek(ctx, "k")
	assert.ErrorIs(t, err, backend.ErrUnavailable)
	assert.ErrorIs(t, l.Reset(ctx, "k"), backend.ErrUnavailable)
	assert.Len(t, seen.seen, 5, "each Allow")
	for _, d := range seen.seen {
		assert.Error(t, d.Err)
		assert.Equal(t, "x", d.Limiter)
	}
}

// TestSharedBackend: limiters on one backend share counters if they share a name, and only then.
func TestSharedBackend(t *testing.T) {
	store, ctx := newSpy(), t.Context()
	limiter := func(name string) *ginlimit.Limiter {
		return must(ginlimit.NewLimiter(ginlimit.PerDay(10), ginlimit.Global(), ginlimit.WithName(name),
			ginlimit.WithBackend(store)))
	}
	left := func(l *ginlimit.Limiter, key string) int64 {
		d, err := l.Allow(ctx, key, 1)
		require.NoError(t, err)
		return d.Remaining
	}
	assert.EqualValues(t, 9, left(limiter("a"), "k"))
	assert.EqualValues(t, 8, left(limiter("a"), "k"))
	assert.EqualValues(t, 9, left(limiter("b"), "k"))
	assert.EqualValues(t, 9, left(limiter("ak"), "k"))
	assert.EqualValues(t, 9, left(limiter("a"), "kk"))
	assert.EqualValues(t, 9, left(limiter("a:"), "b"))
	assert.EqualValues(t, 9, left(limiter("a"), ":b"))
	assert.EqualValues(t, 9, left(limiter("a"), "\x00k"))
	require.NoError(t, limiter("a").Reset(ctx, "k"))
	assert.EqualValues(t, 9, left(limiter("a"), "k"))
	assert.EqualValues(t, 8, left(limiter("b"), "k"))
}

func TestObservers(t *testing.T) {
	type ctxKey struct{}
	var order []string
	add := func(name string) ginlimit.Option {
		return ginlimit.WithObserver(func(ctx context.Context, d ginlimit.Decision) {
			assert.Equal(t, "value", ctx.Value(ctxKey{}))
			order = append(order, name+" "+strconv.FormatInt(d.Remaining, 10))
		})
	}
	l := must(ginlimit.NewLimiter(ginlimit.PerDay(9), ginlimit.Global(), add("a"), add("b"), ginlimit.WithName("x"),
		add("c")))
	r := engine(l.Handle, func(*gin.Context) {
		assert.Equal(t, []string{"a 8", "b 8", "c 8"}, order, "before the handlers")
	}, l.Handle)
	ctx := context.WithValue(t.Context(), ctxKey{}, "value")
	send(r, func(q *http.Request) { *q = *q.WithContext(ctx) })
	assert.Equal(t, []string{"a 8", "b 8", "c 8"}, order, "once, though it stands twice")
	_, _ = l.Peek(ctx, "global:")
	_ = l.Reset(ctx, "global:")
	assert.Len(t, order, 3)
	_, _ = l.Allow(ctx, "global:", 1)
	assert.Len(t, order, 6)
}

func TestElapsedAndWaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen watch
		store := newSpy()
		store.onTake = func(context.Context, string, int64) error { time.Sleep(3 * time.Millisecond); return nil }
		r := engine(ginlimit.New(ginlimit.PerSecond(1), ginlimit.Global(), ginlimit.WithName("x"),
			ginlimit.WithBackend(store),
			ginlimit.WithMaxWait(2*time.Second), ginlimit.WithObserver(seen.observe)),
			func(*gin.Context) { time.Sleep(100 * time.Millisecond) })
		send(r)
		assert.Equal(t, 3*time.Millisecond, seen.last().Elapsed)
		assert.Zero(t, seen.last().Waited)
		start := time.Now()
		assert.Equal(t, 200, send(r).Code)
		d := seen.last()
		total := time.Since(start) - 100*time.Millisecond
		assert.Equal(t, total, d.Elapsed+d.Waited)
		assert.Greater(t, d.Waited, 800*time.Millisecond)
		assert.GreaterOrEqual(t, d.Elapsed, 6*time.Millisecond, "asked twice at least")
		assert.Less(t, d.Elapsed, 20*time.Millisecond)
	})
}

// TestMountedTwice: a request is charged once, wherever the same limiter stands.
func TestMountedTwice(t *testing.T) {
	l := must(ginlimit.NewLimiter(ginlimit.PerDay(2), ginlimit.Global()))
	r := engine(l.Handle)
	r.Group("/g", l.Handle).GET("/route", l.Handle, answer)
	w := send(r, path("/g/route"))
	assert.Equal(t, "1", w.Header().Get("X-RateLimit-Remaining"))
	assert.Equal(t, `"default";q=2;w=86400`, w.Header().Get("RateLimit-Policy"))
	assert.Equal(t, "ok", w.Body.String())
	assert.Equal(t, 200, send(r, path("/g/route")).Code)
	assert.Equal(t, 429, send(r, path("/g/route")).Code)
}

// TestElapsedIsForObservers: a limiter that nobody observes does not read the clock for it.
func TestElapsedIsForObservers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newSpy()
		store.onTake = func(context.Context, string, int64) error { time.Sleep(time.Millisecond); return nil }
		var seen watch
		for _, tt := range []struct {
			name string
			opts []ginlimit.Option
			want time.Duration
		}{
			{"nobody observes", nil, 0},
			{"somebody does", []ginlimit.Option{ginlimit.WithObserver(seen.observe)}, time.Millisecond},
		} {
			l := must(ginlimit.NewLimiter(ginlimit.PerDay(9), ginlimit.Global(),
				append(tt.opts, ginlimit.WithName("x"), ginlimit.WithBackend(store))...))
			allowed, err := l.Allow(t.Context(), "x", 1)
			require.NoError(t, err)
			peeked, err := l.Peek(t.Context(), "x")
			require.NoError(t, err)
			send(engine(l.Handle, func(c *gin.Context) {
				handled, _ := ginlimit.FromContext(c)
				for _, d := range []ginlimit.Decision{allowed, peeked, handled, l.Check(c)} {
					assert.Equal(t, tt.want, d.Elapsed, tt.name)
				}
			}))
		}
	})
}

// TestContextIsLetGo: a request whose context has a deadline leaves nothing behind until then.
func TestContextIsLetGo(t *testing.T) {
	var collected atomic.Int64
	r := engine(ginlimit.New(ginlimit.PerDay(1000), ginlimit.Global(), ginlimit.WithName("x"),
		ginlimit.WithBackend(newSpy())))
	const requests = 100
	type key struct{}
	for range requests {
		value := new([1024]byte)
		runtime.SetFinalizer(value, func(*[1024]byte) { collected.Add(1) })
		ctx, cancel := context.WithTimeout(context.WithValue(context.Background(), key{}, value), time.Hour)
		send(r, func(q *http.Request) { *q = *q.WithContext(ctx) })
		cancel()
	}
	assert.Eventually(t, func() bool { runtime.GC(); return collected.Load() > requests/2 }, 10*time.Second,
		time.Millisecond)
}

// TestKeysSetByGoroutines: with -race, a handler's goroutine may set keys while a limiter decides.
func TestKeysSetByGoroutines(*testing.T) {
	for range 20 {
		r := engine(func(c *gin.Context) {
			var wg sync.WaitGroup
			wg.Go(func() {
				for range 100 {
					c.Set("geo", "x")
				}
			})
			c.Next()
			wg.Wait()
		}, ginlimit.New(ginlimit.PerDay(1000), ginlimit.ByIP()))
		send(r)
		send(r)
	}
}

// TestCheckKeepsOneDecision: a WebSocket may check each message for days. What is kept of one
// request stays small, and FromContext still returns the tightest decision.
func TestCheckKeepsOneDecision(t *testing.T) {
	l := must(ginlimit.NewLimiter(ginlimit.PerHour(1000), ginlimit.Global()))
	other := must(ginlimit.NewLimiter(ginlimit.PerHour(5000), ginlimit.Global()))
	check := func(c *gin.Context, times int) {
		for range times {
			l.Check(c)
			other.Check(c)
		}
	}
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	send(engine(ginlimit.New(ginlimit.PerHour(600), ginlimit.Global()), func(c *gin.Context) {
		check(c, 10)
		d, _ := ginlimit.FromContext(c)
		assert.EqualValues(t, 599, d.Remaining, "of the middleware")
		check(c, 500)
		d, _ = ginlimit.FromContext(c)
		assert.EqualValues(t, 490, d.Remaining, "of the last check")
		before := heap()
		check(c, 20_000)
		assert.Less(t, heap()-before, int64(100_000))
		d, _ = ginlimit.FromContext(c)
		assert.False(t, d.Allowed)
	}))
}

func TestNeverMoreThanTheLimit(t *testing.T) {
	for _, algorithm := range []backend.Algorithm{backend.TokenBucket, backend.SlidingWindow, backend.SlidingLog,
		backend.FixedWindow} {
		t.Run(algorithm.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // where no time passes
				var ran atomic.Int64
				r := engine(ginlimit.New(ginlimit.PerMinute(100).WithAlgorithm(algorithm), ginlimit.ByIP()),
					func(*gin.Context) { ran.Add(1) })
				var wg sync.WaitGroup
				var codes [600]atomic.Int64
				for range 100 {
					wg.Go(func() {
						for range 100 {
							codes[send(r).Code].Add(1)
						}
					})
				}
				wg.Wait()
				assert.EqualValues(t, 100, codes[200].Load())
				assert.EqualValues(t, 9900, codes[429].Load())
				assert.EqualValues(t, 100, ran.Load())
			})
		})
	}
}

// TestOneLimiterInManyGoroutines does everything that a limiter can do at once. The race detector
// looks on.
func TestOneLimiterInManyGoroutines(t *testing.T) {
	var seen atomic.Int64
	l := must(ginlimit.NewLimiter(ginlimit.PerSecond(50), ginlimit.FirstOf(ginlimit.ByUserID("user"), ginlimit.ByIP()),
		ginlimit.WithLimits(ginlimit.PerDay(1_000_000)),
		ginlimit.WithMaxWait(2*time.Millisecond),
		ginlimit.WithTier(func(c *gin.Context) (ginlimit.Tier, error) {
			n, _ := strconv.ParseInt(c.GetHeader("Key"), 10, 64)
			return ginlimit.Tier{Name: fmt.Sprint("t", n%3), Limits: []ginlimit.Limit{ginlimit.PerSecond(10 + n)}}, nil
		}),
		ginlimit.WithRefundIf(func(c *gin.Context) bool { return c.GetHeader("Key") == "7" }),
		ginlimit.WithObserver(func(context.Context, ginlimit.Decision) { seen.Add(1) })))
	r := engine(func(c *gin.Context) { c.Header("Access-Control-Expose-Headers", c.GetHeader("Key")) }, l.Handle,
		func(c *gin.Context) {
			l.Check(c)
			_, ok := ginlimit.FromContext(c)
			assert.True(t, ok)
		})
	var wg sync.WaitGroup
	for n := range 16 {
		wg.Go(func() {
			for i := range 50 {
				key := strconv.Itoa((n + i) % 20)
				send(r, header("Key", key), remote("192.0.2."+key+":1"))
				_, _ = l.Allow(t.Context(), key, 1, ginlimit.PerSecond(int64(i+1)))
				_, _ = l.Peek(t.Context(), key)
				_ = l.Reset(t.Context(), key)
			}
		})
	}
	wg.Wait()
	assert.GreaterOrEqual(t, seen.Load(), int64(16*50*2))
}

// TestAllocationBudget: an allowed request with ByIP and all headers costs at most 3 allocations.
func TestAllocationBudget(t *testing.T) {
	if raceEnabled() {
		return // the race detector allocates
	}
	allocs := func(handlers ...gin.HandlerFunc) float64 {
		r := engine(handlers...)
		q := httptest.NewRequest(http.MethodGet, "/", nil)
		w := httptest.NewRecorder()
		return testing.AllocsPerRun(1000, func() {
			clear(w.Header())
			w.Body.Reset()
			r.ServeHTTP(w, q)
		})
	}
	bare := allocs()
	assert.LessOrEqual(t, allocs(ginlimit.New(ginlimit.PerSecond(1e9), ginlimit.ByIP()))-bare, 3.0)
}

// TestOutcome walks over the words for what became of a request, with what else a decision says of
// it.
func TestOutcome(t *testing.T) {
	type opts = []ginlimit.Option
	key := func(key string, err error) ginlimit.KeyFunc {
		return func(*gin.Context) (string, error) { return key, err }
	}
	down := func(err error) ginlimit.Option { return ginlimit.WithBackend(failing(err)) }
	negative := ginlimit.WithCost(func(*gin.Context) int64 { return -1 })
	skip := ginlimit.WithSkip(func(*gin.Context) bool { return true })
	dry := ginlimit.WithDryRun(true)
	for _, tt := range []struct {
		limit   int64
		key     ginlimit.KeyFunc
		opts    opts
		outcome string
		status  int
	}{
		{1, key("k", nil), nil, "allowed", 0},
		{1, key("k", nil), opts{dry}, "allowed", 0},
		{0, key("k", nil), nil, "denied", 429},
		{0, key("k", nil), opts{dry}, "dry_run_denied", 0},
		{1, key("", nil), nil, "no_key", 400},
		{1, key("", nil), opts{dry}, "dry_run_no_key", 0},
		{1, key("k", nil), opts{negative}, "bad_cost", 400},
		{1, key("k", nil), opts{negative, dry}, "dry_run_bad_cost", 0},
		{1, key("", errOther), nil, "error_passed", 0},
		{1, key("", errOther), opts{ginlimit.WithFailurePolicy(ginlimit.FailClosed)}, "error_refused", 503},
		{1, key("", errOther), opts{ginlimit.WithFailurePolicy(ginlimit.FailClosed), dry}, "error_passed", 0},
		{1, key("k", nil), opts{down(backend.ErrUnavailable)}, "error_passed", 0},
		{1, key("k", nil), opts{down(errOther)}, "error_refused", 503},
		{1, key("k", nil), opts{down(errOther), dry}, "error_passed", 0},
		{1, key("", ginlimit.ErrSkip), nil, "skipped", 0},
		{1, key("", ginlimit.ErrSkip), opts{dry}, "skipped", 0},
		{1, key("k", nil), opts{skip}, "skipped", 0},
	} {
		l := must(ginlimit.NewLimiter(ginlimit.PerDay(tt.limit), tt.key, append(tt.opts, ginlimit.WithName("x"))...))
		checked := false
		send(engine(func(c *gin.Context) {
			d := l.Check(c)
			checked = true
			assert.Equal(t, tt.outcome, d.Outcome())
			assert.Equal(t, tt.status, d.Status(), tt.outcome)
			assert.Equal(t, tt.status == 0, d.Passes(), tt.outcome)
			assert.Equal(t, "x", d.Limiter, tt.outcome)
			assert.Len(t, d.Limits, 1, tt.outcome)
		}))
		assert.True(t, checked)
	}
}

// TestLogValue: a decision can be logged as a whole. Neither the key nor the text of an error is in
// it.
func TestLogValue(t *testing.T) {
	result := ginlimit.Result{Allowed: true, Limit: ginlimit.PerMinute(10).Named("minute"), Remaining: 9}
	refused := result
	refused.Allowed, refused.Remaining, refused.RetryAfter = false, 0, 6*time.Second
	never := refused
	never.RetryAfter = backend.Never
	unlimited := ginlimit.Result{Allowed: true, Limit: ginlimit.Unlimited().Named("all"), Remaining: math.MaxInt64}
	for _, tt := range []struct {
		d    ginlimit.Decision
		want string
	}{
		{ginlimit.Decision{Limiter: "api", Key: "secret", Cost: 1, Result: result},
			"limiter=api outcome=allowed cost=1 limit=minute source=store remaining=9"},
		{ginlimit.Decision{Limiter: "api", Tier: "pro", Key: "secret", Cost: 2, Result: refused,
			Elapsed: time.Microsecond, Waited: time.Second},
			"limiter=api outcome=denied tier=pro cost=2 limit=minute source=store remaining=0 " +
				"retry_after=6s elapsed=1µs waited=1s"},
		{ginlimit.Decision{Limiter: "api", Key: "secret", Cost: 1, Result: never, DryRun: true},
			"limiter=api outcome=dry_run_denied cost=1 limit=minute source=store remaining=0"},
		{ginlimit.Decision{Limiter: "api", Key: "secret", Cost: 1, Result: unlimited},
			"limiter=api outcome=allowed cost=1 limit=all source=store"},
		{ginlimit.Decision{Limiter: "api", Key: "secret", Cost: 1,
			Err: fmt.Errorf("secret: %w", backend.ErrUnavailable), TierErr: errOther},
			"limiter=api outcome=error_refused tier_error=other cost=1 error=unavailable"},
		{ginlimit.Decision{Limiter: "api", Err: fmt.Errorf("secret: %w", ginlimit.ErrNoKey)},
			"limiter=api outcome=no_key cost=0"},
	} {
		var b strings.Builder
		slog.New(slog.NewTextHandler(&b, nil)).Info("", "d", tt.d)
		_, got, _ := strings.Cut(b.String(), `msg="" `)
		assert.Equal(t, tt.want, strings.ReplaceAll(strings.TrimSpace(got), "d.", ""))
		assert.NotContains(t, b.String(), "secret")
	}
}

// TestRespond: Check and Respond together do what Handle does.
func TestRespond(t *testing.T) {
	type opts = []ginlimit.Option
	for _, tt := range []struct {
		name string
		opts opts
	}{
		{"plain", nil},
		{"late", opts{ginlimit.WithLateHeaders(true)}},
		{"tier", opts{ginlimit.WithTier(func(*gin.Context) (ginlimit.Tier, error) {
			return ginlimit.Tier{Name: "pro", Limits: []ginlimit.Limit{ginlimit.PerDay(1), ginlimit.PerHour(7)}}, nil
		})}},
		{"dry run", opts{ginlimit.WithDryRun(true)}},
		{"skipped", opts{ginlimit.WithSkip(func(*gin.Context) bool { return true })}},
		{"deny handler", opts{ginlimit.WithDenyHandler(func(c *gin.Context, d ginlimit.Decision) {
			c.String(d.Status(), "%s", d.Outcome())
		})}},
		{"open", opts{ginlimit.WithBackend(failing(backend.ErrUnavailable))}},
		{"closed", opts{ginlimit.WithBackend(failing(backend.ErrUnavailable)),
			ginlimit.WithFailurePolicy(ginlimit.FailClosed)}},
		{"never", opts{ginlimit.WithCost(func(*gin.Context) int64 { return 99 })}},
		{"negative", opts{ginlimit.WithCost(func(*gin.Context) int64 { return -1 })}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				limiter := func() *ginlimit.Limiter {
					return must(ginlimit.NewLimiter(ginlimit.PerDay(2), ginlimit.Global(),
						append(tt.opts, ginlimit.WithName("x"))...))
				}
				l := limiter()
				before := func() gin.HandlerFunc { return ginlimit.New(ginlimit.PerDay(9), ginlimit.Global()) }
				handled := engine(before(), limiter().Handle)
				responded := engine(before(), func(c *gin.Context) {
					d := l.Check(c)
					assert.Equal(t, d.Passes(), l.Respond(c, d))
				})
				for range 4 {
					want, got := send(handled), send(responded)
					assert.Equal(t, want.Code, got.Code)
					assert.Equal(t, want.Header(), got.Header())
					assert.Equal(t, want.Body.String(), got.Body.String())
				}
			})
		})
	}
}

// TestRespondToOtherDecisions: also of Allow, and of nobody, without a panic.
func TestRespondToOtherDecisions(t *testing.T) {
	l := must(ginlimit.NewLimiter(ginlimit.PerDay(2), ginlimit.Global()))
	for _, tt := range []struct {
		decide func() ginlimit.Decision
		code   int
		policy string
	}{
		{func() ginlimit.Decision { d, _ := l.Allow(t.Context(), "k", 1); return d }, 200, `"default";q=2;w=86400`},
		{func() ginlimit.Decision {
			d, _ := l.Allow(t.Context(), "k", 9, ginlimit.PerHour(3).Named("h"))
			return d
		}, 429, `"h";q=3;w=3600`},
		{func() ginlimit.Decision { d, _ := l.Allow(t.Context(), "", 1); return d }, 400, ""},
		{func() ginlimit.Decision { d, _ := l.Allow(t.Context(), "k", 1, ginlimit.Limit{}); return d }, 503, ""},
		{func() ginlimit.Decision { return ginlimit.Decision{Limits: []ginlimit.Limit{{}}} }, 429,
			`"default";q=2;w=86400`},
	} {
		w := send(engine(func(c *gin.Context) { l.Respond(c, tt.decide()) }))
		assert.Equal(t, tt.code, w.Code)
		assert.Equal(t, tt.policy, w.Header().Get("RateLimit-Policy"))
	}
}

// TestCheckInGoroutines: with -race, copies of one context may be checked at once.
func TestCheckInGoroutines(t *testing.T) {
	l := must(ginlimit.NewLimiter(ginlimit.PerDay(1000), ginlimit.Global()))
	send(engine(hour(100), func(c *gin.Context) {
		l.Check(c)
		var wg sync.WaitGroup
		for range 8 {
			cp := c.Copy()
			wg.Go(func() {
				for range 10 {
					l.Check(cp)
					_, ok := ginlimit.FromContext(cp)
					assert.True(t, ok)
				}
			})
		}
		wg.Wait()
		d, _ := ginlimit.FromContext(c)
		assert.EqualValues(t, 99, d.Remaining)
	}))
}

// TestAContextThatServesAnother: middleware with a time-out may give a request up while its handler
// runs, and Gin gives the context to the next one. The limiter asks nothing of that one.
func TestAContextThatServesAnother(t *testing.T) {
	var log bytes.Buffer
	refunds := 0
	r := engine(ginlimit.New(ginlimit.PerDay(9), ginlimit.FirstOf(ginlimit.ByUserID("user"), ginlimit.Global()),
		logTo(&log),
		ginlimit.WithRefundIf(func(*gin.Context) bool { refunds++; return true })), func(c *gin.Context) {
		if c.GetHeader("Slow") != "" { // what gin.Engine.ServeHTTP does meanwhile
			c.Keys = nil
			c.Request = c.Request.Clone(c.Request.Context())
			c.Set("user", "bob")
		}
	})
	assert.Equal(t, "8", send(r, header("Slow", "1")).Header().Get("X-RateLimit-Remaining"))
	assert.Zero(t, refunds)
	assert.Equal(t, "7", send(r).Header().Get("X-RateLimit-Remaining"), "the charge stays")
	assert.Equal(t, 1, refunds)
	assert.Empty(t, log.String())
}

// prepared is a backend that wants to know limits before it is asked.
type prepared struct {
	*spy
	limits []ginlimit.Limit
}

func (p *prepared) Prepare(limits ...ginlimit.Limit) { p.limits = append(p.limits, limits...) }

// TestPrepare: a backend is told the limiter's own limits when the limiter is made.
func TestPrepare(t *testing.T) {
	b := &prepared{spy: newSpy()}
	must(ginlimit.NewLimiter(ginlimit.PerDay(2), ginlimit.Global(), ginlimit.WithName("x"), ginlimit.WithBackend(b),
		ginlimit.WithLimits(ginlimit.PerHour(1).Named("h"))))
	assert.Equal(t, []ginlimit.Limit{ginlimit.PerDay(2).Named("2-per-1d"), ginlimit.PerHour(1).Named("h")}, b.limits)
}

// TestBytesOfALimiter: what a limiter takes before any request is little.
func TestBytesOfALimiter(t *testing.T) {
	if raceEnabled() {
		return
	}
	const limiters = 100
	var kept [limiters]*ginlimit.Limiter
	store := newSpy()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := range kept {
		kept[i] = must(ginlimit.NewLimiter(ginlimit.PerMinute(100), ginlimit.Global(), ginlimit.WithName("x"),
			ginlimit.WithBackend(store)))
	}
	runtime.ReadMemStats(&after)
	assert.Less(t, (after.TotalAlloc-before.TotalAlloc)/limiters, uint64(3000))
	runtime.KeepAlive(kept)
}

// TestAllowAllocates nothing in memory.
func TestAllowAllocates(t *testing.T) {
	if raceEnabled() {
		return
	}
	ctx := context.Background()
	l := must(ginlimit.NewLimiter(ginlimit.PerSecond(1e9), ginlimit.Global()))
	shared := must(ginlimit.NewLimiter(ginlimit.PerSecond(1e9), ginlimit.Global(), ginlimit.WithName("x"),
		ginlimit.WithBackend(memory.New())))
	limit := ginlimit.PerDay(1e9)
	for _, tt := range []struct {
		name  string
		allow func()
	}{
		{"own limit", func() { _, _ = l.Allow(ctx, "user:alice", 1) }},
		{"other limit", func() { _, _ = l.Allow(ctx, "user:bob", 1, limit) }},
		{"shared", func() { _, _ = shared.Allow(ctx, "user:alice", 1) }},
		{"peek", func() { _, _ = l.Peek(ctx, "user:alice") }},
	} {
		for range 2000 { // until the key is remembered
			tt.allow()
		}
		assert.Zero(t, testing.AllocsPerRun(100, tt.allow), tt.name)
	}
}

// TestManyPoliciesAllocate: lists of limits under one tier's name, and many names of tiers, cost no
// more than one list under one name.
func TestManyPoliciesAllocate(t *testing.T) {
	if raceEnabled() {
		return
	}
	n := int64(0)
	var names [3000]string
	caller := func(*gin.Context) (string, error) { n++; return names[n%3000], nil }
	tiers := func(next func() ginlimit.Tier) float64 {
		r := engine(ginlimit.New(ginlimit.PerSecond(1e9), caller,
			ginlimit.WithTier(func(*gin.Context) (ginlimit.Tier, error) {
				return next(), nil
			})))
		q := httptest.NewRequest(http.MethodGet, "/", nil)
		w := httptest.NewRecorder()
		request := func() {
			clear(w.Header())
			w.Body.Reset()
			r.ServeHTTP(w, q)
		}
		for range 7000 {
			request()
		}
		return testing.AllocsPerRun(1000, request)
	}
	one := []ginlimit.Limit{ginlimit.PerSecond(1e8)}
	lists := [][]ginlimit.Limit{one, {ginlimit.PerSecond(1e7)}, {ginlimit.PerSecond(1e7), ginlimit.PerHour(1e9)}}
	var many [3000][]ginlimit.Limit
	for i := range many {
		names[i], many[i] = fmt.Sprint("t", i), []ginlimit.Limit{ginlimit.PerSecond(1e8 + int64(i))}
	}
	alone := tiers(func() ginlimit.Tier { return ginlimit.Tier{Name: "a", Limits: one} })
	assert.LessOrEqual(t, tiers(func() ginlimit.Tier { return ginlimit.Tier{Name: "a", Limits: lists[n%3]} }), alone+1,
		"one name")
	assert.LessOrEqual(t, tiers(func() ginlimit.Tier { return ginlimit.Tier{Name: names[n%3000], Limits: one} }),
		alone+1, "many names")
	assert.LessOrEqual(t, tiers(func() ginlimit.Tier {
		return ginlimit.Tier{Name: names[n%3000], Limits: many[n%3000]}
	}), alone+2, "many of both")
}

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
	for _, tt := range []struct {
		name    string
		limiter gin.HandlerFunc
	}{
		{"take", ginlimit.New(ginlimit.PerHour(3), ginlimit.Global(),
			ginlimit.WithName("a"), ginlimit.WithBackend(strict{memory.New()}))},
		{"wait", ginlimit.New(ginlimit.PerHour(3), ginlimit.Global(), ginlimit.WithMaxWait(time.Millisecond),
			ginlimit.WithName("a"), ginlimit.WithBackend(strict{memory.New()}))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var passed atomic.Int64
			r := gin.New()
			r.Use(func(c *gin.Context) { <-c.Request.Context().Done() }) // authentication that takes its time
			r.GET("/", tt.limiter, func(*gin.Context) { passed.Add(1) })
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
	for _, tt := range []struct {
		name string
		key  ginlimit.KeyFunc
		opt  ginlimit.Option
		left string // of 3, for the next request
	}{
		{"key", func(c *gin.Context) (string, error) { bomb(c); return "k", nil }, nil, "2"},
		{"tier", is("k"), ginlimit.WithTier(func(c *gin.Context) (ginlimit.Tier, error) {
			bomb(c)
			return ginlimit.Tier{}, nil
		}), "2"},
		{"cost", is("k"), ginlimit.WithCost(func(c *gin.Context) int64 { bomb(c); return 1 }), "2"},
		{"skip", is("k"), ginlimit.WithSkip(func(c *gin.Context) bool { bomb(c); return false }), "2"},
		{"refund", is("k"), ginlimit.WithRefundIf(func(c *gin.Context) bool { bomb(c); return false }), "1"},
		{"observer", is("k"), ginlimit.WithObserver(func(ctx context.Context, _ ginlimit.Decision) {
			if ctx.Value(bombKey{}) != nil {
				panic("observer")
			}
		}), "1"},
		{"handler", is("k"), nil, "1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				opts := []ginlimit.Option{ginlimit.WithMaxWait(time.Hour)}
				if tt.opt != nil {
					opts = append(opts, tt.opt)
				}
				r := engine(recovery, ginlimit.New(ginlimit.PerMinute(3), tt.key, opts...), func(c *gin.Context) {
					if tt.name == "handler" {
						bomb(c)
					}
				})
				w := send(r, header("Bomb", "1"), func(q *http.Request) {
					*q = *q.WithContext(context.WithValue(q.Context(), bombKey{}, true))
				})
				if tt.name == "refund" {
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
