package ginlimit_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
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

// Tests of what decides for several keys at once, and of what is known only later.

// by keys by a header of the request.
func by(name string) ginlimit.KeyFunc {
	return func(c *gin.Context) (string, error) { return c.GetHeader(name), nil }
}

// limiterOn returns a limiter that keys by the header of its name.
func limiterOn(b backend.Backend, name string, limit ginlimit.Limit, opts ...ginlimit.Option) *ginlimit.Limiter {
	opts = append([]ginlimit.Option{ginlimit.WithName(name)}, opts...)
	if b != nil {
		opts = append(opts, ginlimit.WithBackend(b))
	}
	return must(ginlimit.NewLimiter(limit, by(name), opts...))
}

func window(n int64, period time.Duration) ginlimit.Limit {
	return ginlimit.Per(n, period).WithAlgorithm(ginlimit.FixedWindow)
}

// left returns what a key has left under the limiter's own limits.
func left(t *testing.T, l *ginlimit.Limiter, key string) int64 {
	t.Helper()
	d, err := l.Peek(context.Background(), key)
	require.NoError(t, err)
	return d.Remaining
}

// backends are where the limiters of an All may keep their counts.
func backends() []struct {
	name string
	of   func() [3]backend.Backend
} {
	return []struct {
		name string
		of   func() [3]backend.Backend
	}{
		{"one", func() [3]backend.Backend { b := memory.New(); return [3]backend.Backend{b, b, b} }},
		{"one of their own each", func() [3]backend.Backend { return [3]backend.Backend{} }},
		{"two", func() [3]backend.Backend { a, b := memory.New(), memory.New(); return [3]backend.Backend{a, b, a} }},
	}
}

// TestAll: a request is charged to all limiters or to none, whatever their order and their
// backends.
func TestAll(t *testing.T) {
	for _, where := range backends() {
		for _, order := range [][3]int{{0, 1, 2}, {2, 1, 0}, {1, 2, 0}} {
			t.Run(fmt.Sprint(where.name, order), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					on := where.of()
					var seen [3]watch
					of := [3]*ginlimit.Limiter{
						limiterOn(on[0], "user", window(3, time.Minute), ginlimit.WithObserver(seen[0].observe)),
						limiterOn(on[1], "team", window(5, time.Hour), ginlimit.WithObserver(seen[1].observe)),
						limiterOn(on[2], "everybody", window(100, time.Hour), ginlimit.WithObserver(seen[2].observe)),
					}
					r := engine(ginlimit.All(of[order[0]], of[order[1]], of[order[2]]))
					ask := func(user string) int {
						w := send(r, header("user", user), header("team", "red"), header("everybody", "all"))
						return w.Code
					}
					for range 3 {
						assert.Equal(t, 200, ask("ann"))
					}
					for range 5 {
						assert.Equal(t, 429, ask("ann"))
						assert.Equal(t, "denied", seen[0].last().Outcome())
						assert.Equal(t, "not_charged", seen[1].last().Outcome())
						assert.Equal(t, "not_charged", seen[2].last().Outcome())
					}
					assert.EqualValues(t, 2, left(t, of[1], "red"), "the team is not charged for what ann was refused")
					assert.EqualValues(t, 97, left(t, of[2], "all"))
					assert.Equal(t, 200, ask("bob"))
					assert.Equal(t, 200, ask("bob"))
					assert.Equal(t, 429, ask("bob"))
					assert.Equal(t, "not_charged", seen[0].last().Outcome())
					assert.EqualValues(t, 1, left(t, of[0], "bob"), "bob is not charged for what the team was refused")
					assert.EqualValues(t, 95, left(t, of[2], "all"))
				})
			})
		}
	}
}

// TestAllResponds: the response lists every policy, and the tightest speaks.
func TestAllResponds(t *testing.T) {
	for _, where := range backends() {
		t.Run(where.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				on := where.of()
				r := engine(ginlimit.All(
					limiterOn(on[0], "user", window(2, time.Minute)),
					limiterOn(on[1], "team", window(4, time.Hour), ginlimit.WithCost(func(*gin.Context) int64 { return 2 }),
						ginlimit.WithDenyHandler(func(c *gin.Context, d ginlimit.Decision) { c.String(d.Status(), "team: "+d.Limiter) })),
					limiterOn(on[2], "everybody", window(100, time.Hour))))
				const policies = `"user";q=2;w=60, "team";q=4;w=3600, "everybody";q=100;w=3600`
				ask := func(user string) (int, map[string]string, string) {
					w := send(r, header("user", user), header("team", "red"), header("everybody", "all"))
					return w.Code, fields(w), w.Body.String()
				}
				code, got, _ := ask("ann")
				assert.Equal(t, 200, code)
				assert.Equal(t, map[string]string{"RateLimit-Policy": policies, "RateLimit": `"user";r=1;t=60`,
					"X-RateLimit-Limit": "2", "X-RateLimit-Remaining": "1", "X-RateLimit-Reset": "60"}, got)
				ask("ann")
				code, got, body := ask("ann")
				assert.Equal(t, 429, code)
				assert.Equal(t, "team: team", body, "the limiter with the longest wait answers")
				assert.Equal(t, "3600", got["Retry-After"])
				assert.Equal(t, `"team";r=0;t=3600`, got["RateLimit"])
				for _, name := range []string{`"user";q=2;w=60`, `"team";q=4;w=3600`, `"everybody";q=100;w=3600`} {
					assert.Contains(t, got["RateLimit-Policy"], name)
				}
			})
		})
	}
}

// TestAllWithout: what becomes of an All one of whose limiters skips, has no key, fails, or runs
// dry.
func TestAllWithout(t *testing.T) {
	down := func(policy ginlimit.FailurePolicy) []ginlimit.Option {
		return []ginlimit.Option{ginlimit.WithBackend(failing(backend.ErrUnavailable)), ginlimit.WithFailurePolicy(policy)}
	}
	for _, tt := range []struct {
		name    string
		key     string
		opts    []ginlimit.Option
		code    int
		outcome string // of the limiter in between
		charged int64  // of each of the two others, after two requests
	}{
		{"all have room", "k", nil, 200, "allowed", 2},
		{"skipped", "k", []ginlimit.Option{ginlimit.WithSkip(func(*gin.Context) bool { return true })}, 200, "", 2},
		{"no key", "", nil, 400, "no_key", 0},
		{"no key, in a dry run", "", []ginlimit.Option{ginlimit.WithDryRun(true)}, 200, "dry_run_no_key", 2},
		{"a negative cost", "k", []ginlimit.Option{ginlimit.WithCost(func(*gin.Context) int64 { return -1 })}, 400, "bad_cost", 0},
		{"never fits", "k", []ginlimit.Option{ginlimit.WithCost(func(*gin.Context) int64 { return 11 })}, 429, "denied", 0},
		{"never fits, in a dry run", "k", []ginlimit.Option{ginlimit.WithDryRun(true),
			ginlimit.WithCost(func(*gin.Context) int64 { return 11 })}, 200, "dry_run_denied", 2},
		{"down, and open", "k", down(ginlimit.FailOpen), 200, "error_passed", 2},
		{"down, and closed", "k", down(ginlimit.FailClosed), 503, "error_refused", 0},
	} {
		for _, shared := range []bool{false, true} {
			t.Run(fmt.Sprint(tt.name, shared), func(t *testing.T) {
				var b backend.Backend
				if shared {
					b = memory.New()
				}
				var seen, first watch
				before := limiterOn(b, "before", window(9, time.Hour), ginlimit.WithObserver(first.observe))
				after := limiterOn(b, "after", window(9, time.Hour))
				opts := append([]ginlimit.Option{ginlimit.WithObserver(seen.observe)}, tt.opts...)
				between := must(ginlimit.NewLimiter(window(10, time.Hour), by("between"), append([]ginlimit.Option{
					ginlimit.WithName("between"), ginlimit.WithBackend(memory.New())}, opts...)...))
				r := engine(ginlimit.All(before, between, after))
				for range 2 {
					w := send(r, header("before", "k"), header("between", tt.key), header("after", "k"))
					assert.Equal(t, tt.code, w.Code)
				}
				if tt.outcome != "" {
					assert.Equal(t, tt.outcome, seen.last().Outcome())
				}
				if tt.charged == 0 {
					assert.Equal(t, "not_charged", first.last().Outcome())
				}
				assert.EqualValues(t, 9-tt.charged, left(t, before, "k"))
				assert.EqualValues(t, 9-tt.charged, left(t, after, "k"))
			})
		}
	}
}

// TestAllChargesOnce: a limiter that has charged a request already is left out.
func TestAllChargesOnce(t *testing.T) {
	b := memory.New()
	first, second, third := limiterOn(b, "first", window(9, time.Hour)), limiterOn(b, "second", window(9, time.Hour)), limiterOn(b, "third", window(9, time.Hour))
	r := engine(first.Handle, ginlimit.All(first, second), ginlimit.All(second, third), third.Handle)
	w := send(r, header("first", "k"), header("second", "k"), header("third", "k"))
	assert.Equal(t, 200, w.Code)
	for _, l := range []*ginlimit.Limiter{first, second, third} {
		assert.EqualValues(t, 8, left(t, l, "k"))
	}
}

// TestAllPanics: what is wrong with the limiters of an All is said when it is made.
func TestAllPanics(t *testing.T) {
	b := memory.New()
	l := limiterOn(b, "one", ginlimit.PerHour(1))
	for _, tt := range []struct {
		name  string
		make  func()
		wants string
	}{
		{"none", func() { ginlimit.All() }, "at least one"},
		{"nil", func() { ginlimit.All(l, nil) }, "limiter 2 of All is nil"},
		{"twice", func() { ginlimit.All(l, l) }, "limiters 1 and 2 of All are the same"},
		{"one name", func() { ginlimit.All(l, limiterOn(b, "one", ginlimit.PerDay(1))) }, "a name of its own"},
		{"usage of none", func() { ginlimit.UsageHandler() }, "at least one"},
		{"usage of nil", func() { ginlimit.UsageHandler(nil) }, "limiter 1 of UsageHandler is nil"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			defer func() {
				err, _ := recover().(error)
				require.Error(t, err)
				assert.Contains(t, err.Error(), "ginlimit: ")
				assert.Contains(t, err.Error(), tt.wants)
			}()
			tt.make()
		})
	}
	assert.NotPanics(t, func() {
		ginlimit.All(limiterOn(nil, "one", ginlimit.PerHour(1)), limiterOn(nil, "one", ginlimit.PerHour(1)))
	})
}

// TestAllAtOnce: of any number of requests as many pass as every key has room for, and no sum shows
// a request that was refused.
func TestAllAtOnce(t *testing.T) {
	for _, where := range backends() {
		t.Run(where.name, func(t *testing.T) {
			on := where.of()
			of := [3]*ginlimit.Limiter{
				limiterOn(on[0], "user", window(20, time.Hour)), limiterOn(on[1], "team", window(45, time.Hour)), limiterOn(on[2], "everybody", window(60, time.Hour)),
			}
			r := engine(ginlimit.All(of[0], of[1], of[2]))
			var passed [6]atomic.Int64 // by user; three to a team
			var wg sync.WaitGroup
			for i := range 600 {
				wg.Go(func() {
					user := i % 6
					if send(r, header("user", strconv.Itoa(user)), header("team", strconv.Itoa(user/3)), header("everybody", "all")).Code == 200 {
						passed[user].Add(1)
					}
				})
			}
			wg.Wait()
			var teams [2]int64
			for user := range passed {
				n := passed[user].Load()
				teams[user/3] += n
				assert.EqualValues(t, 20-n, left(t, of[0], strconv.Itoa(user)))
			}
			for team, n := range teams {
				assert.EqualValues(t, 45-n, left(t, of[1], strconv.Itoa(team)))
			}
			assert.EqualValues(t, 60-teams[0]-teams[1], left(t, of[2], "all"))
			if where.name == "one" {
				assert.EqualValues(t, 60, teams[0]+teams[1], "nothing is refused that has room")
			}
		})
	}
}

// TestAllWaits: WithMaxWait holds a request until all limiters have room.
func TestAllWaits(t *testing.T) {
	for _, where := range backends() {
		t.Run(where.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				on := where.of()
				hold := ginlimit.WithMaxWait(time.Minute)
				var seen watch
				r := engine(ginlimit.All(
					limiterOn(on[0], "user", ginlimit.Per(1, time.Second), hold, ginlimit.WithObserver(seen.observe)),
					limiterOn(on[1], "team", ginlimit.Per(1, 3*time.Second), hold),
					limiterOn(on[2], "everybody", window(4, time.Hour))))
				start := time.Now()
				var wg sync.WaitGroup
				for i := range 4 {
					wg.Go(func() {
						w := send(r, header("user", "ann"), header("team", "red"), header("everybody", "all"))
						assert.Equal(t, 200, w.Code, "request %d", i)
					})
				}
				wg.Wait()
				assert.Equal(t, 9*time.Second, time.Since(start))
				assert.Equal(t, 9*time.Second, seen.last().Waited)
				w := send(r, header("user", "bob"), header("team", "blue"), header("everybody", "all"))
				assert.Equal(t, 429, w.Code, "the limiter that holds nothing refuses")
				assert.Equal(t, 9*time.Second, time.Since(start))
			})
		})
	}
}

// tokens answers with what a request used, as the header Used says, and settles for it.
func usedOf(c *gin.Context) int64 {
	n, _ := strconv.ParseInt(c.GetHeader("Used"), 10, 64)
	return n
}

// TestWithSettle: what a request really cost is charged when the handlers ran.
func TestWithSettle(t *testing.T) {
	for _, tt := range []struct {
		name   string
		opts   []ginlimit.Option
		used   string
		handle gin.HandlerFunc
		want   int64 // of 100 left, after a charge of 10
	}{
		{"less", nil, "3", answer, 97},
		{"as much", nil, "10", answer, 90},
		{"more", nil, "60", answer, 40},
		{"nothing", nil, "0", answer, 100},
		{"negative: as charged", nil, "-5", answer, 90},
		{"more than is left", nil, "130", answer, 0},
		{"a panic", nil, "60", func(*gin.Context) { panic("a test") }, 90},
		{"a failure", nil, "5", func(c *gin.Context) { c.Status(500) }, 95},
		{"the last one wins", []ginlimit.Option{ginlimit.WithRefundIf(func(*gin.Context) bool { return true })}, "60", answer, 100},
	} {
		for _, all := range []bool{false, true} {
			t.Run(fmt.Sprint(tt.name, all), func(t *testing.T) {
				opts := append([]ginlimit.Option{ginlimit.WithSettle(usedOf), ginlimit.WithCost(func(*gin.Context) int64 { return 10 })}, tt.opts...)
				l := must(ginlimit.NewLimiter(window(100, time.Hour), ginlimit.Global(), opts...))
				handler := l.Handle
				if all {
					handler = ginlimit.All(l)
				}
				r := gin.New()
				r.GET("/", gin.CustomRecoveryWithWriter(nil, func(c *gin.Context, _ any) { c.AbortWithStatus(500) }), handler, tt.handle)
				send(r, header("Used", tt.used))
				assert.Equal(t, tt.want, left(t, l, ginlimit.KeyOfGlobal()))
			})
		}
	}
	_, err := ginlimit.NewLimiter(ginlimit.PerHour(1), ginlimit.Global(), ginlimit.WithSettle(nil))
	assert.ErrorContains(t, err, "ginlimit: WithSettle(nil)")
}

// TestSettleSendsNothing: a request whose cost did not change sends no Settle.
func TestSettleSendsNothing(t *testing.T) {
	store := newSpy()
	settled := 0
	store.onSettle = func(_ context.Context, _ ginlimit.Result, _, _ int64) error { settled++; return nil }
	l := must(ginlimit.NewLimiter(ginlimit.PerHour(100), ginlimit.Global(), ginlimit.WithName("x"), ginlimit.WithBackend(store), ginlimit.WithSettle(usedOf)))
	for _, used := range []string{"1", "1", "2"} {
		send(engine(l.Handle), header("Used", used))
	}
	assert.Equal(t, 1, settled)
}

// TestDebt: a caller in debt waits its true time, to the second and to the microsecond.
func TestDebt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := must(ginlimit.NewLimiter(ginlimit.PerMinute(60), ginlimit.Global(), ginlimit.WithSettle(usedOf)))
		r := engine(l.Handle)
		assert.Equal(t, 200, send(r, header("Used", "90")).Code)
		w := send(r)
		assert.Equal(t, 429, w.Code)
		assert.Equal(t, "31", w.Header().Get("Retry-After"))
		assert.Equal(t, "0", w.Header().Get("X-RateLimit-Remaining"))
		all, err := l.Usage(t.Context(), ginlimit.KeyOfGlobal())
		require.NoError(t, err)
		assert.EqualValues(t, 90, all[0].Used())
		assert.Equal(t, 31*time.Second, all[0].RetryAfter)
		time.Sleep(31*time.Second - time.Microsecond)
		assert.Equal(t, 429, send(r).Code)
		time.Sleep(time.Microsecond)
		assert.Equal(t, 200, send(r, header("Used", "1")).Code)
	})
}

// TestLimiterSettle: a handler, or a job, settles by itself.
func TestLimiterSettle(t *testing.T) {
	ctx := context.Background()
	l := must(ginlimit.NewLimiter(window(100, time.Hour), ginlimit.Global()))
	d, err := l.Allow(ctx, ginlimit.KeyOfGlobal(), 10)
	require.NoError(t, err)
	for _, step := range []struct{ actual, left int64 }{{4, 96}, {4, 96}, {30, 70}, {0, 100}, {170, 0}, {50, 50}} {
		d, err = l.Settle(ctx, d, step.actual)
		require.NoError(t, err)
		assert.Equal(t, step.actual, d.Cost)
		assert.Equal(t, step.left, left(t, l, ginlimit.KeyOfGlobal()))
	}
	refused, err := l.Allow(ctx, ginlimit.KeyOfGlobal(), 60)
	require.NoError(t, err)
	require.False(t, refused.Allowed)
	_, err = l.Settle(ctx, refused, 0)
	require.NoError(t, err)
	assert.EqualValues(t, 50, left(t, l, ginlimit.KeyOfGlobal()), "a refusal is not given back")

	_, err = l.Settle(ctx, d, -1)
	assert.ErrorContains(t, err, "ginlimit: the actual cost -1 is negative")
	other := must(ginlimit.NewLimiter(ginlimit.PerHour(1), ginlimit.Global(), ginlimit.WithName("other")))
	_, err = other.Settle(ctx, d, 0)
	assert.ErrorContains(t, err, `limiter "other" cannot settle a decision of limiter "default"`)
	gone, cancel := context.WithCancel(ctx)
	cancel()
	_, err = l.Settle(gone, d, 0)
	require.NoError(t, err)
	assert.EqualValues(t, 100, left(t, l, ginlimit.KeyOfGlobal()), "that ctx is done does not matter")

	store := newSpy()
	store.onSettle = func(context.Context, ginlimit.Result, int64, int64) error { return backend.ErrUnavailable }
	broken := must(ginlimit.NewLimiter(window(100, time.Hour), ginlimit.Global(), ginlimit.WithName("x"), ginlimit.WithBackend(store)))
	d, err = broken.Allow(ctx, ginlimit.KeyOfGlobal(), 10)
	require.NoError(t, err)
	d, err = broken.Settle(ctx, d, 1)
	require.ErrorIs(t, err, backend.ErrUnavailable)
	assert.EqualValues(t, 10, d.Cost, "the charge stays")
}

// TestHandlerSettles: Handle knows what a handler has settled, and late fields show it.
func TestHandlerSettles(t *testing.T) {
	for _, late := range []bool{false, true} {
		t.Run(fmt.Sprint(late), func(t *testing.T) {
			var asked int64
			l := must(ginlimit.NewLimiter(window(100, time.Hour), ginlimit.Global(), ginlimit.WithLateHeaders(late),
				ginlimit.WithCost(func(*gin.Context) int64 { return 10 }),
				ginlimit.WithSettle(func(c *gin.Context) int64 {
					d, _ := ginlimit.FromContext(c)
					asked = d.Cost
					return d.Cost + 1
				})))
			w := send(engine(l.Handle, func(c *gin.Context) {
				d, _ := ginlimit.FromContext(c)
				_, err := l.Settle(c, d, 40)
				assert.NoError(t, err)
			}))
			assert.EqualValues(t, 40, asked)
			assert.EqualValues(t, 59, left(t, l, ginlimit.KeyOfGlobal()))
			want := "90"
			if late {
				want = "60"
			}
			assert.Equal(t, want, w.Header().Get("X-RateLimit-Remaining"))
		})
	}
}

// TestWait: calls outside HTTP go on one after another, in order, together with held requests.
func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen watch
		store := newSpy()
		var decisions atomic.Int64
		store.onTake = func(context.Context, string, int64) error { decisions.Add(1); return nil }
		l := must(ginlimit.NewLimiter(ginlimit.PerSecond(10).WithBurst(1), ginlimit.Global(), ginlimit.WithName("out"),
			ginlimit.WithBackend(store), ginlimit.WithObserver(seen.observe)))
		start := time.Now()
		var order []int
		var mu sync.Mutex
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * time.Microsecond)
				d, err := l.Wait(t.Context(), "partner", 1)
				assert.NoError(t, err)
				assert.True(t, d.Allowed)
				mu.Lock()
				defer mu.Unlock()
				order = append(order, i)
			})
		}
		wg.Wait()
		assert.Equal(t, 9900*time.Millisecond, time.Since(start))
		assert.IsIncreasing(t, order)
		assert.LessOrEqual(t, decisions.Load(), int64(300), "no herd")
		assert.Len(t, seen.seen, 100)
		assert.Equal(t, 9900*time.Millisecond-99*time.Microsecond, seen.last().Waited)
	})
}

// TestWaitEnds: Wait ends with its context, and where waiting is no use.
func TestWaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := must(ginlimit.NewLimiter(ginlimit.PerMinute(1), ginlimit.Global()))
		_, err := l.Wait(t.Context(), "k", 1)
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		d, err := l.Wait(ctx, "k", 1)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.ErrorContains(t, err, "ginlimit: ")
		assert.False(t, d.Allowed)
		assert.Equal(t, time.Second, time.Since(start))
		_, err = l.Wait(ctx, "new", 1)
		assert.ErrorContains(t, err, "ginlimit: waiting for a cost of 1: ")
		require.ErrorIs(t, err, context.DeadlineExceeded, "whose context is done is not charged")
		assert.EqualValues(t, 1, left(t, l, "new"))

		_, err = l.Wait(t.Context(), "k", 2)
		assert.ErrorContains(t, err, "a cost of 2 never fits")
		_, err = l.Wait(t.Context(), "k", -1)
		assert.ErrorContains(t, err, "negative")
		_, err = l.Wait(t.Context(), "", 1)
		assert.ErrorIs(t, err, ginlimit.ErrNoKey)
		tiers := must(ginlimit.NewLimiter(ginlimit.PerHour(1), ginlimit.Global(), ginlimit.WithTier(func(*gin.Context) (ginlimit.Tier, error) { return ginlimit.Tier{}, nil })))
		_, err = tiers.Wait(t.Context(), "k", 1)
		assert.ErrorContains(t, err, "pass the limits")
		_, err = tiers.Usage(t.Context(), "k")
		assert.ErrorContains(t, err, "pass the limits")

		waiting, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var full atomic.Int64
		for range 140 {
			wg.Go(func() {
				if _, err := l.Wait(waiting, "k", 1); !errors.Is(err, context.Canceled) {
					full.Add(1)
				}
			})
		}
		synctest.Wait()
		assert.EqualValues(t, 12, full.Load(), "128 wait, the others are told")
		stop()
		wg.Wait()
	})
}

// TestUsage: the state of every limit, for a key and for a request.
func TestUsage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := must(ginlimit.NewLimiter(ginlimit.PerMinute(60), by("Key"), ginlimit.WithLimits(window(1000, 24*time.Hour).Named("day"), ginlimit.Unlimited()),
			ginlimit.WithTier(func(c *gin.Context) (ginlimit.Tier, error) {
				if c.GetHeader("Key") == "pro" {
					return ginlimit.Tier{Name: "pro", Limits: []ginlimit.Limit{ginlimit.PerSecond(5)}}, nil
				}
				return ginlimit.Tier{}, nil
			}),
			ginlimit.WithSkip(func(c *gin.Context) bool { return c.GetHeader("Skip") != "" })))
		other := must(ginlimit.NewLimiter(ginlimit.PerHour(7), ginlimit.Global(), ginlimit.WithName("all"), ginlimit.WithCost(func(*gin.Context) int64 { return 3 })))
		r := engine(l.Handle, other.Handle)
		r2 := engine()
		r2.GET("/usage", ginlimit.UsageHandler(l, other))
		r2.GET("/of", func(c *gin.Context) {
			all, err := l.UsageOf(c)
			if err != nil {
				c.String(500, "%v", err)
				return
			}
			c.String(200, "%d", len(all))
		})
		send(r, header("Key", "ann"))
		time.Sleep(500 * time.Millisecond)
		send(r, header("Key", "ann"))
		w := send(r2, header("Key", "ann"), path("/usage"))
		assert.Equal(t, 200, w.Code)
		assert.Equal(t, "no-store", w.Header().Get("Cache-Control"))
		assert.JSONEq(t, `{"limiters":[
			{"name":"default","limits":[
				{"name":"60-per-1m","unit":"requests","limit":60,"used":2,"remaining":58,"reset":2,"reset_at":"2000-01-01T00:00:02Z"},
				{"name":"day","unit":"requests","limit":1000,"used":2,"remaining":998,"reset":86400,"reset_at":"2000-01-02T00:00:00Z"},
				{"name":"unlimited","unit":"requests","unlimited":true,"limit":0,"used":0,"remaining":0,"reset":0,"reset_at":"2000-01-01T00:00:00Z"}]},
			{"name":"all","limits":[
				{"name":"all","unit":"units","limit":7,"used":6,"remaining":1,"reset":3086,"reset_at":"2000-01-01T00:51:25Z"}]}]}`, w.Body.String())
		w = send(r2, header("Key", "pro"), path("/usage"))
		assert.Contains(t, w.Body.String(), `"tier":"pro","limits":[{"name":"default","unit":"requests","limit":5`)
		w = send(r2, header("Skip", "1"), path("/usage"))
		var document struct{ Limiters []struct{ Name string } }
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &document))
		require.Len(t, document.Limiters, 1)
		assert.Equal(t, "all", document.Limiters[0].Name)

		w = send(r2, path("/usage"))
		assert.Equal(t, http.StatusBadRequest, w.Code)
		problemOf(t, w.Header().Get("Content-Type"), w.Body.Bytes())
		assert.Equal(t, "3", send(r2, header("Key", "ann"), path("/of")).Body.String())
		assert.Equal(t, "1", send(r2, header("Key", "pro"), path("/of")).Body.String())
		assert.Contains(t, send(r2, header("Skip", "1"), path("/of")).Body.String(), "not limited")
	})
	down := newSpy()
	down.onUsage = func() error { return backend.ErrUnavailable }
	l := must(ginlimit.NewLimiter(ginlimit.PerHour(1), ginlimit.Global(), ginlimit.WithName("x"), ginlimit.WithBackend(down)))
	w := send(engine(ginlimit.UsageHandler(l)))
	assert.Equal(t, http.StatusServiceUnavailable, w.Code)
	assert.Equal(t, "5", w.Header().Get("Retry-After"))
	problemOf(t, w.Header().Get("Content-Type"), w.Body.Bytes())
}
