package ginlimit_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/assert"

	"github.com/ginlimit/ginlimit"
)

func logTo(b *bytes.Buffer) ginlimit.Option {
	return ginlimit.WithLogger(slog.New(slog.NewTextHandler(b, nil)))
}

// codes returns the diagnostics in a log.
func codes(log string) (codes []string) {
	for _, field := range strings.Fields(log) {
		if code, ok := strings.CutPrefix(field, "code="); ok {
			codes = append(codes, code)
		}
	}
	return codes
}

func TestDiagnostics(t *testing.T) {
	auth := func(c *gin.Context) { c.Set("user", "ann") }
	plan := ginlimit.WithTier(func(c *gin.Context) (ginlimit.Tier, error) {
		if c.GetString("user") != "" {
			return ginlimit.Tier{Name: "pro", Limits: []ginlimit.Limit{ginlimit.PerDay(1000)}}, nil
		}
		return ginlimit.Tier{}, nil
	})
	userOrIP := ginlimit.FirstOf(ginlimit.ByUserID("user"), ginlimit.ByIP())
	for name, tt := range map[string]struct {
		handlers func(opts ...ginlimit.Option) []gin.HandlerFunc
		want     []string
		fix      string
	}{
		"healthy": {func(o ...ginlimit.Option) []gin.HandlerFunc {
			return []gin.HandlerFunc{auth, ginlimit.New(ginlimit.PerDay(100), userOrIP, append(o, plan)...)}
		}, nil, ""},
		"two limiters": {func(o ...ginlimit.Option) []gin.HandlerFunc {
			return []gin.HandlerFunc{ginlimit.New(ginlimit.PerDay(100), ginlimit.ByIP(), o...), auth, ginlimit.New(ginlimit.PerDay(100), userOrIP, append(o, plan)...)}
		}, nil, ""},
		"handlers that set other values": {func(o ...ginlimit.Option) []gin.HandlerFunc {
			return []gin.HandlerFunc{auth, ginlimit.New(ginlimit.PerDay(100), userOrIP, append(o, plan)...), func(c *gin.Context) { c.Set("trace", "x") }}
		}, nil, ""},
		"mounted twice": {func(o ...ginlimit.Option) []gin.HandlerFunc {
			l := must(ginlimit.NewLimiter(ginlimit.PerDay(100), ginlimit.Global(), o...))
			return []gin.HandlerFunc{l.Handle, l.Handle, l.Handle}
		}, []string{"GINLIMIT002"}, "Remove one"},
		"built for each request": {func(o ...ginlimit.Option) []gin.HandlerFunc {
			return []gin.HandlerFunc{func(c *gin.Context) { ginlimit.New(ginlimit.PerDay(100), ginlimit.Global(), o...)(c) }}
		}, []string{"GINLIMIT003"}, "Build it once"},
		"key before authentication": {func(o ...ginlimit.Option) []gin.HandlerFunc {
			return []gin.HandlerFunc{ginlimit.New(ginlimit.PerDay(100), userOrIP, o...), auth}
		}, []string{"GINLIMIT004"}, "after authentication"},
		"tier before authentication": {func(o ...ginlimit.Option) []gin.HandlerFunc {
			return []gin.HandlerFunc{ginlimit.New(ginlimit.PerDay(100), ginlimit.ByIP(), append(o, plan)...), auth}
		}, []string{"GINLIMIT004"}, "after authentication"},
		"tier without a name before authentication": {func(o ...ginlimit.Option) []gin.HandlerFunc {
			unnamed := ginlimit.WithTier(func(c *gin.Context) (ginlimit.Tier, error) {
				if c.GetString("user") == "" {
					return ginlimit.Tier{}, nil
				}
				return ginlimit.Tier{Limits: []ginlimit.Limit{ginlimit.PerDay(200)}}, nil
			})
			return []gin.HandlerFunc{ginlimit.New(ginlimit.PerDay(100), ginlimit.ByIP(), append(o, unnamed)...), auth}
		}, []string{"GINLIMIT004"}, "after authentication"},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			r := engine(tt.handlers(logTo(&log))...)
			for range 20 {
				assert.Equal(t, 200, send(r).Code)
			}
			assert.Equal(t, tt.want, codes(log.String()), log.String())
			if tt.want == nil {
				assert.Empty(t, log.String())
				return
			}
			assert.Contains(t, log.String(), tt.fix)
			assert.Contains(t, log.String(), "limiter=default")
			assert.Contains(t, log.String(), "level=WARN")
		})
	}
}

// TestDiagnosticsAreLoggedOnce, though many requests come at once.
func TestDiagnosticsAreLoggedOnce(t *testing.T) {
	var log bytes.Buffer
	l := must(ginlimit.NewLimiter(ginlimit.PerDay(1000), ginlimit.FirstOf(ginlimit.ByUserID("user"), ginlimit.ByIP()), logTo(&log)))
	r := trusting()
	r.GET("/limited", l.Handle, l.Handle, func(c *gin.Context) { c.Set("user", "ann") })
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() { send(r, path("/limited"), header("X-Forwarded-For", "1.1.1.1")) })
	}
	wg.Wait()
	assert.ElementsMatch(t, []string{"GINLIMIT001", "GINLIMIT002", "GINLIMIT004"}, codes(log.String()))
}

// TestNothingIsLoggedPerRequest: neither refusals nor failures nor requests without a key are.
func TestNothingIsLoggedPerRequest(t *testing.T) {
	var log bytes.Buffer
	for _, l := range []gin.HandlerFunc{
		ginlimit.New(ginlimit.PerDay(0), ginlimit.Global(), logTo(&log)),
		ginlimit.New(ginlimit.PerDay(1), byHeader, logTo(&log)),
		ginlimit.New(ginlimit.PerDay(1), isErr(errOther), logTo(&log), ginlimit.WithFailurePolicy(ginlimit.FailClosed)),
		ginlimit.New(ginlimit.PerDay(1), ginlimit.Global(), logTo(&log), ginlimit.WithName("x"), ginlimit.WithBackend(failing(errOther))),
	} {
		assert.NotEqual(t, 200, send(engine(l)).Code)
	}
	assert.Empty(t, log.String())
}

// TestTrustIsReportedThroughOtherFuncs: also where only a tier look-up or a cost asks who it is.
func TestTrustIsReportedThroughOtherFuncs(t *testing.T) {
	by := ginlimit.ByIP()
	for name, opt := range map[string]ginlimit.Option{
		"tier": ginlimit.WithTier(func(c *gin.Context) (ginlimit.Tier, error) { _, err := by(c); return ginlimit.Tier{}, err }),
		"cost": ginlimit.WithCost(func(c *gin.Context) int64 { _, _ = by(c); return 1 }),
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			r := trusting()
			r.GET("/limited", ginlimit.New(ginlimit.PerDay(9), ginlimit.Global(), opt, logTo(&log)), answer)
			send(r, path("/limited"), header("X-Forwarded-For", "1.1.1.1"))
			send(r, path("/limited"), header("X-Forwarded-For", "1.1.1.1"))
			assert.Equal(t, []string{"GINLIMIT001"}, codes(log.String()))
		})
	}
}

// TestTrustIsReportedLater: what asked first need not have been the limiter's own key.
func TestTrustIsReportedLater(t *testing.T) {
	by := ginlimit.ByIP()
	for name, handlers := range map[string]func(ginlimit.Option) []gin.HandlerFunc{
		"asked by WithSkip": func(log ginlimit.Option) []gin.HandlerFunc {
			return []gin.HandlerFunc{ginlimit.New(ginlimit.PerDay(9), by, log, ginlimit.WithSkip(func(c *gin.Context) bool {
				_, _ = by(c)
				return true
			}))}
		},
		"asked before": func(log ginlimit.Option) []gin.HandlerFunc {
			return []gin.HandlerFunc{func(c *gin.Context) { _, _ = by(c) }, ginlimit.New(ginlimit.PerDay(9), ginlimit.Global(), log)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			r := trusting()
			r.GET("/limited", append(handlers(logTo(&log)), answer)...)
			for range 3 {
				send(r, path("/limited"), header("X-Forwarded-For", "1.1.1.1"))
			}
			assert.Equal(t, []string{"GINLIMIT001"}, codes(log.String()))
		})
	}
}

func TestBuiltForEachCheck(t *testing.T) {
	var log bytes.Buffer
	r := engine(func(c *gin.Context) {
		must(ginlimit.NewLimiter(ginlimit.PerDay(1), ginlimit.Global(), logTo(&log))).Check(c)
	})
	for range 5 {
		send(r)
	}
	assert.Equal(t, []string{"GINLIMIT003"}, codes(log.String()))
}

type userKey struct{}

// TestOrderIsNoticedLater: authentication may keep the user in the request, and the first requests may have none.
func TestOrderIsNoticedLater(t *testing.T) {
	byContext := func(c *gin.Context) (string, error) {
		if user, ok := c.Request.Context().Value(userKey{}).(string); ok {
			return "user:" + user, nil
		}
		return "", ginlimit.ErrNoKey
	}
	for name, auth := range map[string]gin.HandlerFunc{
		"in the request": func(c *gin.Context) {
			c.Request = c.Request.WithContext(context.WithValue(c.Request.Context(), userKey{}, "ann"))
		},
		"over another value": func(c *gin.Context) { c.Set("user", "ann") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				loggedIn := false
				r := engine(func(c *gin.Context) { c.Set("user", "") },
					ginlimit.New(ginlimit.PerDay(1000), ginlimit.FirstOf(byContext, ginlimit.ByUserID("user"), ginlimit.ByIP()), logTo(&log)),
					func(c *gin.Context) {
						if loggedIn {
							auth(c)
						}
					})
				for range 50 {
					send(r)
				}
				assert.Empty(t, log.String())
				loggedIn = true
				for range 10 {
					time.Sleep(time.Second)
					send(r)
				}
				assert.Equal(t, []string{"GINLIMIT004"}, codes(log.String()))
			})
		})
	}
}

// TestKeyIsAskedRarelyAgain: what notices a wrong order costs a few more calls of the key, not one for each request.
func TestKeyIsAskedRarelyAgain(t *testing.T) {
	asked := 0
	r := engine(ginlimit.New(ginlimit.PerDay(100_000), func(*gin.Context) (string, error) { asked++; return "x", nil }),
		func(c *gin.Context) { c.Set("trace", "x") })
	for range 1000 {
		send(r)
	}
	assert.LessOrEqual(t, asked, 1000+12)
}

// TestOrderIsRight: none of these comes from a limiter that stands before authentication.
func TestOrderIsRight(t *testing.T) {
	byBody := func(c *gin.Context) (string, error) {
		b, err := io.ReadAll(c.Request.Body)
		c.Request.Body = io.NopCloser(bytes.NewReader(b))
		return string(b), err
	}
	route := func(r *gin.Engine) {
		r.GET("/old", func(c *gin.Context) { c.Request.URL.Path = "/new"; r.HandleContext(c) })
		r.GET("/new", func(c *gin.Context) { c.Set("x", 1) })
	}
	for name, tt := range map[string]struct {
		key      ginlimit.KeyFunc
		path     string
		handlers func(*gin.Engine)
	}{
		"a body that the handler read": {byBody, "/", func(r *gin.Engine) {
			r.GET("/", func(c *gin.Context) { _, _ = io.ReadAll(c.Request.Body); c.Set("x", 1) })
		}},
		"a request that was handed on": {ginlimit.ByRoute(), "/old", route},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			r := gin.New()
			r.Use(ginlimit.New(ginlimit.PerDay(100), tt.key, logTo(&log)))
			tt.handlers(r)
			send(r, path(tt.path), func(q *http.Request) { q.Body = io.NopCloser(strings.NewReader("ann")) })
			assert.Empty(t, log.String())
		})
	}
}

// TestKeyAndTierAreAskedOnce: where authentication comes first, and the handlers set nothing, nothing is asked again.
func TestKeyAndTierAreAskedOnce(t *testing.T) {
	keys, tiers := 0, 0
	r := engine(func(c *gin.Context) { c.Set("user", "ann"); c.Set("roles", []string{"admin"}) },
		ginlimit.New(ginlimit.PerDay(100), func(*gin.Context) (string, error) { keys++; return "user:ann", nil },
			ginlimit.WithTier(func(*gin.Context) (ginlimit.Tier, error) { tiers++; return ginlimit.Tier{}, nil })))
	for range 5 {
		send(r)
	}
	assert.Equal(t, []int{5, 5}, []int{keys, tiers})
}
