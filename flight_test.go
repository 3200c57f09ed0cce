package ginlimit_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
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

// TestPlaceComesBack: whatever way the handlers end, the place is given back then, and not before.
func TestPlaceComesBack(t *testing.T) {
	for name, handler := range map[string]gin.HandlerFunc{
		"return": func(c *gin.Context) { c.String(http.StatusOK, "ok") },
		"abort":  func(c *gin.Context) { c.AbortWithStatus(http.StatusTeapot) },
		"panic":  func(*gin.Context) { panic("on purpose") },
		"stream": func(c *gin.Context) {
			n := 0
			c.Stream(func(w io.Writer) bool { n++; fmt.Fprint(w, n); return n < 3 })
		},
		"a client that left":               func(c *gin.Context) { <-c.Request.Context().Done() },
		"a longer time than three Periods": func(*gin.Context) { time.Sleep(200 * time.Second) },
	} {
		for _, together := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", in an All: ", together), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := memory.New()
					one := limiterOn(b, "one", ginlimit.InFlight(1), ginlimit.WithLimits(window(100, time.Hour)))
					two := limiterOn(b, "two", ginlimit.InFlight(3))
					handle := one.Handle
					if together {
						handle = ginlimit.All(two, one)
					}
					r := gin.New()
					r.Use(gin.CustomRecoveryWithWriter(io.Discard, func(c *gin.Context, _ any) { c.Status(http.StatusInternalServerError) }), handle)
					r.GET("/", handler)
					as := func(q *http.Request) {
						ctx, cancel := context.WithCancel(q.Context())
						time.AfterFunc(time.Second, cancel)
						*q = *q.WithContext(ctx)
						q.Header.Set("One", "a")
						q.Header.Set("Two", "b")
					}
					var wg sync.WaitGroup
					wg.Go(func() { send(r, as) })
					synctest.Wait()
					if name != "return" && name != "abort" && name != "panic" && name != "stream" {
						for range 3 {
							assert.Equal(t, int64(1), one.InFlight())
							assert.Equal(t, http.StatusTooManyRequests, send(r, as).Code)
							if strings.HasPrefix(name, "a longer") {
								time.Sleep(60 * time.Second)
							}
						}
					}
					wg.Wait()
					assert.Zero(t, one.InFlight())
					assert.Equal(t, int64(1), left(t, one, "a"), "of the places")
					all, err := one.Usage(context.Background(), "a")
					require.NoError(t, err)
					assert.Equal(t, int64(99), all[1].Remaining, "of the hour's requests")
					if together {
						assert.Equal(t, int64(3), left(t, two, "b"))
					}
				})
			})
		}
	}
}

// TestPlaceAndSettle: a cost is settled beside a place, also half-way and more than once.
func TestPlaceAndSettle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l *ginlimit.Limiter
		var half atomic.Bool
		actual := int64(0)
		l = limiterOn(nil, "one", ginlimit.PerHour(100).WithAlgorithm(ginlimit.FixedWindow), ginlimit.WithLimits(ginlimit.InFlight(20)),
			ginlimit.WithCost(func(*gin.Context) int64 { return 10 }), ginlimit.WithSettle(func(*gin.Context) int64 { return actual }))
		r := engine(l.Handle, func(c *gin.Context) {
			if half.Load() {
				d, _ := ginlimit.FromContext(c)
				d, err := l.Settle(c, d, 4)
				assert.NoError(t, err)
				_, err = l.Settle(c, d, 3)
				assert.NoError(t, err)
				all, err := l.UsageOf(c)
				assert.NoError(t, err)
				assert.Equal(t, int64(20), all[1].Remaining, "the place is given back by Settle")
			}
		})
		used := func(hour int64) {
			t.Helper()
			all, err := l.Usage(context.Background(), "a")
			require.NoError(t, err)
			assert.Equal(t, []int64{hour, 0}, []int64{all[0].Used(), all[1].Used()})
		}
		send(r, header("One", "a"))
		used(0)
		actual = 10
		send(r, header("One", "a"))
		used(10)
		actual = 15
		send(r, header("One", "a"))
		used(25)
		half.Store(true)
		actual = 7
		send(r, header("One", "a"))
		used(32)
		d, err := l.Allow(context.Background(), "a", 5)
		require.NoError(t, err)
		d, err = l.Settle(context.Background(), d, 5)
		require.NoError(t, err)
		used(37)
		_, err = l.Settle(context.Background(), d, 5)
		require.NoError(t, err)
		used(37)
		refused, err := l.Allow(context.Background(), "a", 21)
		require.NoError(t, err)
		assert.True(t, !refused.Allowed && refused.RetryAfter == backend.Never, "a cost above the places fits")
		used(37)
	})
}

// TestWaitForAPlace: a request that may wait gets a place as soon as one is free here, and asks for
// those of others each second.
func TestWaitForAPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New()
		l := limiterOn(b, "one", ginlimit.InFlight(1), ginlimit.WithMaxWait(5*time.Second))
		r := engine(l.Handle, func(*gin.Context) { time.Sleep(300 * time.Millisecond) })
		start := time.Now()
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() { assert.Equal(t, http.StatusOK, send(r, header("One", "a")).Code) })
		}
		wg.Wait()
		assert.Equal(t, 1200*time.Millisecond, time.Since(start), "one after another, without a pause")

		elsewhere := limiterOn(b, "one", ginlimit.InFlight(1))
		d, err := elsewhere.Allow(context.Background(), "a", 1)
		require.NoError(t, err)
		start = time.Now()
		time.AfterFunc(2500*time.Millisecond, func() { _, _ = elsewhere.Settle(context.Background(), d, 1) })
		assert.Equal(t, http.StatusOK, send(r, header("One", "a")).Code)
		assert.Equal(t, 3300*time.Millisecond, time.Since(start), "asked each second")

		d, err = elsewhere.Allow(context.Background(), "a", 1)
		require.NoError(t, err)
		start = time.Now()
		assert.Equal(t, http.StatusTooManyRequests, send(r, header("One", "a")).Code)
		assert.Equal(t, 5*time.Second, time.Since(start), "as long as it may wait")
		_, _ = elsewhere.Settle(context.Background(), d, 1)
	})
}

// TestNeverMoreInside: 10,000 at once on 100 places.
func TestNeverMoreInside(t *testing.T) {
	var inside, most, served atomic.Int64
	l := limiterOn(nil, "one", ginlimit.InFlight(100))
	r := engine(l.Handle, func(*gin.Context) {
		n := inside.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		time.Sleep(time.Millisecond)
		inside.Add(-1)
		served.Add(1)
	})
	n := 10_000
	if testing.Short() {
		n = 2_000
	}
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() { send(r, header("One", "a")) })
	}
	wg.Wait()
	assert.LessOrEqual(t, most.Load(), int64(100))
	assert.GreaterOrEqual(t, served.Load(), int64(100))
	assert.Equal(t, int64(100), left(t, l, "a"))
}

// TestCalendarFields: responses say the window that the calendar is in.
func TestCalendarFields(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // from 2000-01-01 00:00 UTC on
		l := limiterOn(nil, "one", ginlimit.PerCalendarMonth(3), ginlimit.WithLimits(ginlimit.PerCalendarDay(2).In("Asia/Kathmandu").Named("day").Counting("pages")))
		r := engine(l.Handle)
		time.Sleep(3 * time.Hour)
		assert.Equal(t, map[string]string{
			"RateLimit-Policy": `"3-per-month";q=3;w=2678400, "day";q=2;w=86400;qu="pages"`, "RateLimit": `"day";r=1;t=54900`,
			"X-RateLimit-Limit": "2", "X-RateLimit-Remaining": "1", "X-RateLimit-Reset": "54900",
		}, fields(send(r, header("One", "a"))))
		send(r, header("One", "a"))
		assert.Equal(t, "54900", send(r, header("One", "a")).Header().Get("Retry-After"))
		time.Sleep(54900 * time.Second)
		assert.Equal(t, http.StatusOK, send(r, header("One", "a")).Code)
		refused := send(r, header("One", "a"))
		assert.Equal(t, `"3-per-month";r=0;t=2612700`, refused.Header().Get("RateLimit"))
		time.Sleep(31 * 24 * time.Hour)
		assert.Contains(t, send(r, header("One", "a")).Header().Get("RateLimit-Policy"), "q=3;w=2505600,", "February 2000 has 29 days")
	})
}

// TestBan: refusals bring a ban about, under which nothing is charged, whatever the tier.
func TestBan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		var seen watch
		l := limiterOn(nil, "one", window(2, time.Minute), ginlimit.WithBan(window(3, time.Hour), 10*time.Minute, time.Hour),
			ginlimit.WithTier(func(c *gin.Context) (ginlimit.Tier, error) {
				if c.GetHeader("Plan") == "pro" {
					return ginlimit.Tier{Name: "pro", Limits: []ginlimit.Limit{window(5, time.Minute)}}, nil
				}
				return ginlimit.Tier{}, nil
			}),
			ginlimit.WithObserver(seen.observe), ginlimit.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
		r := engine(l.Handle)
		as := header("One", "zoe")
		outcomes := func(n int) (all []string) {
			for range n {
				send(r, as)
				all = append(all, seen.last().Outcome())
			}
			return all
		}
		assert.Equal(t, []string{"allowed", "allowed", "denied", "denied", "denied", "banned", "banned"}, outcomes(7))
		banned := send(r, as)
		assert.Equal(t, "600", banned.Header().Get("Retry-After"))
		assert.Contains(t, banned.Body.String(), "#abnormal-usage-detected")
		assert.Equal(t, http.StatusTooManyRequests, send(r, as, header("Plan", "pro")).Code, "another tier lifts the ban")
		assert.True(t, seen.last().Banned)
		time.Sleep(10*time.Minute - time.Microsecond)
		assert.Contains(t, send(r, as).Body.String(), "The caller is banned; try again in 1 second.")
		assert.True(t, seen.last().Banned)
		time.Sleep(time.Microsecond)
		assert.Equal(t, []string{"allowed", "allowed", "denied", "denied", "denied", "banned"}, outcomes(6))
		assert.Equal(t, "1200", send(r, as).Header().Get("Retry-After"), "twice as long")
		assert.NoError(t, l.Reset(context.Background(), "zoe"))
		assert.Equal(t, []string{"allowed"}, outcomes(1))
		assert.Equal(t, 2, strings.Count(log.String(), "callers were banned"), log.String())
		assert.NotContains(t, log.String(), "zoe")

		require.NoError(t, l.Ban(context.Background(), "bob", time.Hour))
		as = header("One", "bob")
		assert.Equal(t, []string{"banned"}, outcomes(1))
		assert.ErrorIs(t, l.Ban(context.Background(), "", time.Hour), ginlimit.ErrNoKey)
		assert.ErrorContains(t, l.Ban(context.Background(), "bob", 0), "ginlimit: a ban for 0s")
		d, err := l.Allow(context.Background(), "bob", 1, window(100, time.Hour))
		assert.NoError(t, err)
		assert.True(t, d.Banned && !d.Allowed)
	})
}

// TestBanLog: the log says at most once a minute how many were banned.
func TestBanLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		l := limiterOn(nil, "one", window(1, time.Hour), ginlimit.WithBan(window(1, time.Hour), time.Minute, time.Hour),
			ginlimit.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
		r := engine(l.Handle)
		for key := range 50 {
			for range 4 {
				send(r, header("One", fmt.Sprint(key)))
			}
			time.Sleep(3 * time.Second)
		}
		lines := strings.Split(strings.TrimSpace(log.String()), "\n")
		require.Len(t, lines, 3)
		assert.Contains(t, lines[0], "bans=1")
		assert.Contains(t, lines[1], "bans=20")
		assert.Contains(t, lines[2], "bans=20")
	})
}

// TestBanOfTheHeld: a ban is told once, although a request that is held asks again, when it is
// banned already, or when the ban is over.
func TestBanOfTheHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		var seen watch
		options := []ginlimit.Option{ginlimit.WithBan(window(2, time.Hour), 2*time.Second, 2*time.Second), ginlimit.WithMaxWait(5 * time.Second),
			ginlimit.WithObserver(seen.observe), ginlimit.WithLogger(slog.New(slog.NewTextHandler(&log, nil)))}
		outcome := func() string { return fmt.Sprint(seen.last().Outcome(), " ", seen.last().BanBegan()) }
		l := limiterOn(nil, "one", window(1, time.Second), options...)
		for _, r := range []http.Handler{engine(l.Handle), engine(ginlimit.All(l, limiterOn(nil, "two", window(100, time.Hour), ginlimit.WithMaxWait(5*time.Second))))} {
			for _, want := range []string{"allowed false", "allowed false", "allowed true"} {
				send(r, header("One", "a"), header("Two", "b"))
				assert.Equal(t, want, outcome())
			}
			require.NoError(t, l.Reset(context.Background(), "a"))
			time.Sleep(time.Minute)
		}

		l = limiterOn(nil, "one", window(1, time.Hour), append(options, ginlimit.WithBan(window(1, time.Hour), time.Hour, time.Hour))...)
		wait := func() string {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			_, _ = l.Wait(ctx, "a", 1)
			return outcome()
		}
		assert.Equal(t, "allowed false", wait())
		assert.Equal(t, "banned true", wait())
		assert.Equal(t, "banned false", wait())
		assert.Equal(t, 3, strings.Count(log.String(), "callers were banned"), log.String())
	})
}

// TestDryRunBansNobody: and a ban by hand shows in what would have been.
func TestDryRunBansNobody(t *testing.T) {
	var seen watch
	l := limiterOn(nil, "one", window(1, time.Hour), ginlimit.WithDryRun(true), ginlimit.WithBan(window(1, time.Hour), time.Hour, time.Hour),
		ginlimit.WithObserver(seen.observe))
	r := engine(l.Handle)
	for range 9 {
		assert.Equal(t, http.StatusOK, send(r, header("One", "a")).Code)
		assert.False(t, seen.last().Banned)
	}
	require.NoError(t, l.Ban(context.Background(), "a", time.Hour))
	assert.Equal(t, http.StatusOK, send(r, header("One", "a")).Code)
	assert.Equal(t, "dry_run_banned", seen.last().Outcome())
}

// TestBanInAll: the limiter that refuses counts; one that would have let the request pass does not.
func TestBanInAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New()
		ban := ginlimit.WithBan(window(2, time.Hour), time.Hour, time.Hour)
		small, large := limiterOn(b, "small", window(1, time.Minute), ban), limiterOn(b, "large", window(100, time.Minute), ban)
		r := engine(ginlimit.All(small, large))
		as := func(q *http.Request) { q.Header.Set("Small", "a"); q.Header.Set("Large", "b") }
		for range 9 {
			send(r, as)
		}
		d, err := small.Peek(context.Background(), "a")
		require.NoError(t, err)
		assert.True(t, d.Banned)
		d, err = large.Peek(context.Background(), "b")
		require.NoError(t, err)
		assert.False(t, d.Banned)
		assert.Equal(t, int64(99), d.Remaining)
	})
}

func TestBanOptions(t *testing.T) {
	for want, opt := range map[string]ginlimit.Option{
		"ginlimit: limit 5 in flight, cannot count refusals": ginlimit.WithBan(ginlimit.InFlight(5), time.Minute, time.Hour),
		"the shorter first": ginlimit.WithBan(ginlimit.PerHour(5), time.Hour, time.Minute),
		"period is not":     ginlimit.WithBan(ginlimit.Per(5, 0), time.Minute, time.Hour),
	} {
		_, err := ginlimit.NewLimiter(ginlimit.PerMinute(1), ginlimit.ByIP(), opt)
		assert.ErrorContains(t, err, strings.TrimPrefix(want, "ginlimit: limit 5 in flight, "))
	}
	l := limiterOn(&spy{Backend: noBans{memory.New()}}, "one", ginlimit.PerMinute(1))
	assert.ErrorContains(t, l.Ban(context.Background(), "a", time.Hour), "cannot ban; it has to implement backend.Banner")
}

// noBans is a backend that is no Banner.
type noBans struct{ backend.Backend }
