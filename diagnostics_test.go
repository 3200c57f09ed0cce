package ginlimit_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

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
	for _, tt := range []struct {
		name     string
		handlers func(opts ...ginlimit.Option) []gin.HandlerFunc
		want     []string
		fix      string
	}{
		{"healthy", func(o ...ginlimit.Option) []gin.HandlerFunc {
			return []gin.HandlerFunc{auth, ginlimit.New(ginlimit.PerDay(100), userOrIP, append(o, plan)...)}
		}, nil, ""},
		{"two limiters", func(o ...ginlimit.Option) []gin.HandlerFunc {
			return []gin.HandlerFunc{ginlimit.New(ginlimit.PerDay(100), ginlimit.ByIP(), o...), auth,
				ginlimit.New(ginlimit.PerDay(100), userOrIP, append(o, plan)...)}
		}, nil, ""},
		{"handlers that set other values", func(o ...ginlimit.Option) []gin.HandlerFunc {
			return []gin.HandlerFunc{auth, ginlimit.New(ginlimit.PerDay(100), userOrIP, append(o, plan)...),
				func(c *gin.Context) { c.Set("trace", "x") }}
		}, nil, ""},
		{"mounted twice", func(o ...ginlimit.Option) []gin.HandlerFunc {
			l := must(ginlimit.NewLimiter(ginlimit.PerDay(100), ginlimit.Global(), o...))
			return []gin.HandlerFunc{l.Handle, l.Handle, l.Handle}
		}, []string{"GINLIMIT002"}, "Remove one"},
		{"built for each request", func(o ...ginlimit.Option) []gin.HandlerFunc {
			return []gin.HandlerFunc{func(c *gin.Context) { ginlimit.New(ginlimit.PerDay(100), ginlimit.Global(), o...)(c) }}
		}, []string{"GINLIMIT003"}, "Build it once"},
		{"built again by a reload", func(o ...ginlimit.Option) []gin.HandlerFunc {
			var current gin.HandlerFunc
			return []gin.HandlerFunc{func(c *gin.Context) {
				if current == nil { // the first request is the one that reloads
					current = ginlimit.New(ginlimit.PerDay(100), ginlimit.Global(), o...)
				}
				current(c)
			}}
		}, []string{"GINLIMIT003"}, "to put new settings in force"},
		{"key before authentication", func(o ...ginlimit.Option) []gin.HandlerFunc {
			return []gin.HandlerFunc{ginlimit.New(ginlimit.PerDay(100), userOrIP, o...), auth}
		}, []string{"GINLIMIT004"}, "after authentication"},
		{"tier before authentication", func(o ...ginlimit.Option) []gin.HandlerFunc {
			return []gin.HandlerFunc{ginlimit.New(ginlimit.PerDay(100), ginlimit.ByIP(), append(o, plan)...), auth}
		}, []string{"GINLIMIT004"}, "after authentication"},
		{"tier without a name before authentication", func(o ...ginlimit.Option) []gin.HandlerFunc {
			unnamed := ginlimit.WithTier(func(c *gin.Context) (ginlimit.Tier, error) {
				if c.GetString("user") == "" {
					return ginlimit.Tier{}, nil
				}
				return ginlimit.Tier{Limits: []ginlimit.Limit{ginlimit.PerDay(200)}}, nil
			})
			return []gin.HandlerFunc{ginlimit.New(ginlimit.PerDay(100), ginlimit.ByIP(), append(o, unnamed)...), auth}
		}, []string{"GINLIMIT004"}, "after authentication"},
	} {
		t.Run(tt.name, func(t *testing.T) {
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
	l := must(ginlimit.NewLimiter(ginlimit.PerDay(1000),
		ginlimit.FirstOf(ginlimit.ByUserID("user"), ginlimit.ByIP()), logTo(&log)))
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
		ginlimit.New(ginlimit.PerDay(1), ginlimit.Global(), logTo(&log), ginlimit.WithName("x"),
			ginlimit.WithBackend(failing(errOther))),
	} {
		assert.NotEqual(t, 200, send(engine(l)).Code)
	}
	assert.Empty(t, log.String())
}

// TestTrustIsReportedThroughOtherFuncs: also where only a tier look-up or a cost asks who it is.
func TestTrustIsReportedThroughOtherFuncs(t *testing.T) {
	by := ginlimit.ByIP()
	for _, tt := range []struct {
		name string
		opt  ginlimit.Option
	}{
		{"tier", ginlimit.WithTier(func(c *gin.Context) (ginlimit.Tier, error) {
			_, err := by(c)
			return ginlimit.Tier{}, err
		})},
		{"cost", ginlimit.WithCost(func(c *gin.Context) int64 { _, _ = by(c); return 1 })},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var log bytes.Buffer
			r := trusting()
			r.GET("/limited", ginlimit.New(ginlimit.PerDay(9), ginlimit.Global(), tt.opt, logTo(&log)), answer)
			send(r, path("/limited"), header("X-Forwarded-For", "1.1.1.1"))
			send(r, path("/limited"), header("X-Forwarded-For", "1.1.1.1"))
			assert.Equal(t, []string{"GINLIMIT001"}, codes(log.String()))
		})
	}
}

// TestTrustIsReportedLater: what asked first need not have been the limiter's own key.
func TestTrustIsReportedLater(t *testing.T) {
	by := ginlimit.ByIP()
	for _, tt := range []struct {
		name     string
		handlers func(ginlimit.Option) []gin.HandlerFunc
	}{
		{"asked by WithSkip", func(log ginlimit.Option) []gin.HandlerFunc {
			return []gin.HandlerFunc{ginlimit.New(ginlimit.PerDay(9), by, log, ginlimit.WithSkip(func(c *gin.Context) bool {
				_, _ = by(c)
				return true
			}))}
		}},
		{"not asked", func(log ginlimit.Option) []gin.HandlerFunc { // an exemption that anybody can have
			return []gin.HandlerFunc{ginlimit.New(ginlimit.PerDay(9), by, log, ginlimit.WithSkip(func(c *gin.Context) bool {
				return c.ClientIP() == "1.1.1.1"
			}))}
		}},
		{"skipped by the key", func(log ginlimit.Option) []gin.HandlerFunc {
			return []gin.HandlerFunc{ginlimit.New(ginlimit.PerDay(9), isErr(ginlimit.ErrSkip), log)}
		}},
		{"skipped by the tier", func(log ginlimit.Option) []gin.HandlerFunc {
			return []gin.HandlerFunc{ginlimit.New(ginlimit.PerDay(9), ginlimit.Global(), log,
				ginlimit.WithTier(func(*gin.Context) (ginlimit.Tier, error) {
					return ginlimit.Tier{}, ginlimit.ErrSkip
				}))}
		}},
		{"skipped by its network", func(log ginlimit.Option) []gin.HandlerFunc {
			return []gin.HandlerFunc{ginlimit.New(ginlimit.PerDay(9), ginlimit.Global(), log,
				ginlimit.WithSkip(ginlimit.FromNetworks("1.1.1.1")))}
		}},
		{"by its address", func(log ginlimit.Option) []gin.HandlerFunc {
			return []gin.HandlerFunc{ginlimit.New(ginlimit.PerDay(9), func(c *gin.Context) (string, error) {
				addr, _ := ginlimit.Address(c)
				return addr.String(), nil
			}, log)}
		}},
		{"asked before", func(log ginlimit.Option) []gin.HandlerFunc {
			return []gin.HandlerFunc{func(c *gin.Context) { _, _ = by(c) },
				ginlimit.New(ginlimit.PerDay(9), ginlimit.Global(), log)}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var log bytes.Buffer
			r := trusting()
			r.GET("/limited", append(tt.handlers(logTo(&log)), answer)...)
			for range 3 {
				send(r, path("/limited"), header("X-Forwarded-For", "1.1.1.1"))
			}
			assert.Equal(t, []string{"GINLIMIT001"}, codes(log.String()))
		})
	}
}

// TestSkippedRequestsOfASafeEngine are nothing to log.
func TestSkippedRequestsOfASafeEngine(t *testing.T) {
	var log bytes.Buffer
	for range 3 {
		send(engine(ginlimit.New(ginlimit.PerDay(9), ginlimit.ByIP(), logTo(&log),
			ginlimit.WithSkip(func(*gin.Context) bool { return true }))))
	}
	assert.Empty(t, log.String())
}

// TestNobodyHasAKey: a limiter whose requests all lack a key says so once, and one that met a key
// does not.
func TestNobodyHasAKey(t *testing.T) {
	for name, tt := range map[string]struct {
		first []func(*http.Request)
		want  int
	}{
		"none":          {nil, 1},
		"one had a key": {[]func(*http.Request){header("Key", "k")}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var logs bytes.Buffer
			r := engine(ginlimit.New(ginlimit.PerMinute(1000), ginlimit.ByAPIKey("Key"),
				logTo(&logs)))
			if tt.first != nil {
				send(r, tt.first...)
			}
			for i := range 300 {
				if i == 99 {
					assert.NotContains(t, logs.String(), "GINLIMIT008")
				}
				assert.Equal(t, http.StatusBadRequest, send(r).Code)
			}
			assert.Equal(t, tt.want, strings.Count(logs.String(), "code=GINLIMIT008"), logs.String())
		})
	}
}

// TestKeylessIsReported: what has no key because of its type or shape, and what falls through for
// that reason, is said once for each limiter.
func TestKeylessIsReported(t *testing.T) {
	userIs := func(value any) ginlimit.KeyFunc {
		return func(c *gin.Context) (string, error) { c.Set("user", value); return ginlimit.ByUserID("user")(c) }
	}
	unix := func() *gin.Engine { return engine() }
	proxied := func() *gin.Engine { return trusting("10.0.0.0/8") }
	onPlatform := func() *gin.Engine { r := engine(); r.TrustedPlatform = "Client"; return r }
	for _, tt := range []struct {
		name   string
		engine func() *gin.Engine
		key    ginlimit.KeyFunc
		edits  []func(*http.Request)
		status int
		want   string // in the log; "" for none
	}{
		{"a struct", unix, userIs(struct{ ID int }{1}), nil, 400, "struct { ID int }"},
		{"a float", unix, userIs(1.5), nil, 400, "float64 that is not whole"},
		{"a float, or else", unix, ginlimit.FirstOf(userIs(1.5), ginlimit.ByIP()), nil, 200, "float64 that is not whole"},
		{"in the middle", unix, ginlimit.Join(ginlimit.Global(),
			ginlimit.FirstOf(userIs([]byte("ann")), ginlimit.Global())), nil, 200, "[]uint8"},
		{"a func of its own", unix, func(c *gin.Context) (string, error) { _, _ = userIs(true)(c); return "x", nil },
			nil, 200, "bool"},
		{"no user", unix, ginlimit.FirstOf(userIs(nil), userIs(""), ginlimit.ByUserID("nobody"), ginlimit.ByIP()), nil,
			200, ""},
		{"no API key", unix, ginlimit.ByAPIKey("Key"), nil, 400, ""},
		{"no remote address", unix, ginlimit.ByIP(), []func(*http.Request){remote("")}, 400, "httptest.NewRequest"},
		{"a Unix socket", unix, ginlimit.ByIP(), []func(*http.Request){remote("@")}, 400, "RemoteAddr is no address"},
		{"a name", unix, ginlimit.FirstOf(ginlimit.ByIP(), ginlimit.Global()),
			[]func(*http.Request){remote("localhost:80")}, 200, "RemoteAddr is no address"},
		{"a platform's rubbish", onPlatform, ginlimit.ByIP(), []func(*http.Request){header("Client", "secret")}, 400,
			"TrustedPlatform"},
		{"a proxy's rubbish", proxied, ginlimit.ByIP(), []func(*http.Request){remote("10.1.2.3:1"),
			header("X-Forwarded-For", "secret")}, 200, "share one budget"},
		{"a healthy proxy", proxied, ginlimit.ByIP(), []func(*http.Request){remote("10.1.2.3:1"),
			header("X-Forwarded-For", "secret, 1.1.1.1:5")}, 200, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var logs [2]bytes.Buffer
			r := tt.engine()
			var passed []gin.HandlerFunc
			for i := range logs {
				passed = append(passed, ginlimit.New(ginlimit.PerDay(100), tt.key,
					ginlimit.WithName("x"+string(rune('0'+i))), logTo(&logs[i])))
			}
			r.GET("/first", append(passed[:1:1], answer)...)
			r.GET("/second", append(passed[1:], answer)...)
			r.GET("/global", func(c *gin.Context) { _, _ = tt.key(c) }, passed[0], answer)
			for range 3 {
				for _, p := range []string{"/first", "/second", "/global"} {
					assert.Equal(t, tt.status, send(r, append(tt.edits, path(p))...).Code)
				}
			}
			for i := range logs {
				text := logs[i].String()
				assert.NotContains(t, text, "secret")
				if tt.want == "" {
					assert.Empty(t, text)
					continue
				}
				assert.Equal(t, []string{"GINLIMIT008"}, codes(text), text)
				assert.Contains(t, text, tt.want)
				assert.Contains(t, text, "limiter=x"+string(rune('0'+i)))
			}
		})
	}
}

// TestKeylessIsSaidOfTheLimiterThatAsked, not of the next one.
func TestKeylessIsSaidOfTheLimiterThatAsked(t *testing.T) {
	var first, second bytes.Buffer
	r := engine(func(c *gin.Context) { c.Set("user", 1.5) },
		ginlimit.New(ginlimit.PerDay(100), ginlimit.FirstOf(ginlimit.ByUserID("user"), ginlimit.Global()), logTo(&first)),
		ginlimit.New(ginlimit.PerDay(100), ginlimit.Global(), logTo(&second)))
	for range 3 {
		assert.Equal(t, 200, send(r).Code)
	}
	assert.Equal(t, []string{"GINLIMIT008"}, codes(first.String()))
	assert.Empty(t, second.String())
}

// TestNegativeCostIsSaid: a chunked body has no length, so that a cost of that is negative.
func TestNegativeCostIsSaid(t *testing.T) {
	for _, joint := range []bool{false, true} {
		var log bytes.Buffer
		l := must(ginlimit.NewLimiter(ginlimit.PerDay(100), ginlimit.Global(), logTo(&log),
			ginlimit.WithCost(func(c *gin.Context) int64 { return c.Request.ContentLength })))
		handle := l.Handle
		if joint {
			handle = ginlimit.All(l)
		}
		service := httptest.NewServer(engine(handle))
		defer service.Close()
		for _, tt := range []struct {
			body io.Reader
			want int
		}{
			{strings.NewReader("five!"), http.StatusOK},
			{nil, http.StatusOK},
			{io.MultiReader(strings.NewReader("five!")), http.StatusBadRequest}, // its length is not known
			{io.MultiReader(strings.NewReader("five!")), http.StatusBadRequest},
		} {
			res, err := http.Post(service.URL, "text/plain", tt.body)
			require.NoError(t, err)
			res.Body.Close()
			assert.Equal(t, tt.want, res.StatusCode)
		}
		assert.Equal(t, []string{"GINLIMIT010"}, codes(log.String()), log.String())
		assert.Contains(t, log.String(), "cost=-1 route=/")
	}
}

// TestWhatLimitersKeepIsNoChange: neither a record nor a note of a limiter behind is what
// authentication would set.
func TestWhatLimitersKeepIsNoChange(t *testing.T) {
	asked := 0
	r := engine(func(c *gin.Context) { c.Set("user", 1.5) },
		ginlimit.New(ginlimit.PerDay(100), func(*gin.Context) (string, error) { asked++; return "x", nil }),
		ginlimit.New(ginlimit.PerDay(100), ginlimit.Global(), logTo(new(bytes.Buffer))),
		func(c *gin.Context) { _, _ = ginlimit.ByUserID("user")(c) })
	for range 5 {
		send(r)
	}
	assert.Equal(t, 5, asked)
}

// TestTrustIsAllThatIsSaidOfATrustingEngine: its proxies have no name to miss.
func TestTrustIsAllThatIsSaidOfATrustingEngine(t *testing.T) {
	var log bytes.Buffer
	r := trusting()
	r.GET("/limited", ginlimit.New(ginlimit.PerDay(1000), ginlimit.ByIP(), logTo(&log)), answer)
	for range 200 {
		send(r, path("/limited"), remote("172.17.0.2:1"), header("X-Forwarded-For", "198.51.100.9"))
	}
	assert.Equal(t, []string{"GINLIMIT001"}, codes(log.String()))
}

// TestUnnamedProxyIsReported: all clients of a proxy that the engine does not trust share a budget.
func TestUnnamedProxyIsReported(t *testing.T) {
	from := func(addrs ...string) func(int) string {
		return func(i int) string { return addrs[i%len(addrs)] + ":4711" }
	}
	for _, tt := range []struct {
		name   string
		engine *gin.Engine
		from   func(i int) string
		field  string
		want   bool
	}{
		{"a private proxy", engine(), from("172.17.0.2"), "X-Forwarded-For", true},
		{"on the same host", engine(), from("127.0.0.1"), "X-Forwarded-For", true},
		{"by IPv6", engine(), from("[fd00::2]"), "X-Forwarded-For", true},
		{"in a carrier's network", engine(), from("100.64.0.7"), "X-Forwarded-For", true},
		{"another proxy is named", trusting("10.0.0.0/8"), from("172.17.0.2"), "X-Forwarded-For", true},
		{"by its other header", engine(), from("172.17.0.2"), "X-Real-IP", true},
		{"it is named", trusting("172.16.0.0/12"), from("172.17.0.2"), "X-Forwarded-For", false},
		{"without a header", engine(), from("172.17.0.2"), "X-Something", false},
		{"a client of the Internet", engine(), from("192.0.2.1"), "X-Forwarded-For", false},
		{"many callers of one network", engine(), from("172.17.0.2", "172.17.0.3"), "X-Forwarded-For", false},
		{"the first is another", engine(), func(i int) string {
			if i == 0 {
				return "172.17.0.9:1"
			}
			return "172.17.0.2:1"
		}, "X-Forwarded-For", true},
		{"forwarding is off", func() *gin.Engine { r := engine(); r.ForwardedByClientIP = false; return r }(),
			from("172.17.0.2"), "X-Forwarded-For", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var log bytes.Buffer
			tt.engine.GET("/limited", ginlimit.New(ginlimit.PerDay(1000), ginlimit.ByIP(), logTo(&log)), answer)
			ask := func(i int) {
				send(tt.engine, path("/limited"), remote(tt.from(i)), header(tt.field, fmt.Sprintf("198.51.100.%d", i%256)))
			}
			for i := range 99 {
				ask(i)
			}
			assert.Empty(t, log.String(), "a few may be a check of somebody's health")
			for i := range 300 {
				ask(99 + i)
			}
			if !tt.want {
				assert.Empty(t, log.String())
				return
			}
			assert.Equal(t, []string{"GINLIMIT009"}, codes(log.String()), log.String())
			assert.Contains(t, log.String(), "engine.SetTrustedProxies")
			assert.Contains(t, log.String(), "proxy="+strings.Trim(tt.from(1)[:strings.LastIndexByte(tt.from(1), ':')], "[]"))
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

// TestOrderIsNoticedLater: authentication may keep the user in the request, and the first requests
// may have none.
func TestOrderIsNoticedLater(t *testing.T) {
	byContext := func(c *gin.Context) (string, error) {
		if user, ok := c.Request.Context().Value(userKey{}).(string); ok {
			return "user:" + user, nil
		}
		return "", ginlimit.ErrNoKey
	}
	for _, tt := range []struct {
		name string
		auth gin.HandlerFunc
	}{
		{"in the request", func(c *gin.Context) {
			c.Request = c.Request.WithContext(context.WithValue(c.Request.Context(), userKey{}, "ann"))
		}},
		{"over another value", func(c *gin.Context) { c.Set("user", "ann") }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				loggedIn := false
				r := engine(func(c *gin.Context) { c.Set("user", "") },
					ginlimit.New(ginlimit.PerDay(1000), ginlimit.FirstOf(byContext, ginlimit.ByUserID("user"), ginlimit.ByIP()),
						logTo(&log)),
					func(c *gin.Context) {
						if loggedIn {
							tt.auth(c)
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

// TestKeyIsAskedRarelyAgain: what notices a wrong order costs a few more calls of the key, not one
// for each request.
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
	for _, tt := range []struct {
		name     string
		key      ginlimit.KeyFunc
		path     string
		handlers func(*gin.Engine)
	}{
		{"a body that the handler read", byBody, "/", func(r *gin.Engine) {
			r.GET("/", func(c *gin.Context) { _, _ = io.ReadAll(c.Request.Body); c.Set("x", 1) })
		}},
		{"a request that was handed on", ginlimit.ByRoute(), "/old", route},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var log bytes.Buffer
			r := gin.New()
			r.Use(ginlimit.New(ginlimit.PerDay(100), tt.key, logTo(&log)))
			tt.handlers(r)
			send(r, path(tt.path), func(q *http.Request) { q.Body = io.NopCloser(strings.NewReader("ann")) })
			assert.Empty(t, log.String())
		})
	}
}

// TestOrderOfAnotherRequest: a context that serves another request by the time the handlers have
// returned says nothing about the first, also if both have one route.
func TestOrderOfAnotherRequest(t *testing.T) {
	var log bytes.Buffer
	r := gin.New()
	r.GET("/:who", ginlimit.New(ginlimit.PerDay(100), func(c *gin.Context) (string, error) {
		return c.Request.URL.Path, nil
	}, logTo(&log)),
		func(c *gin.Context) {
			if c.Param("who") == "ann" {
				next := c.Request.Clone(c.Request.Context())
				next.URL.Path = "/bob"
				c.Request = next
				r.HandleContext(c)
			}
		})
	for range 3 {
		send(r, path("/ann"))
	}
	assert.Empty(t, log.String())
}

// TestOrderBehindATimeout: middleware that answers for a handler which still runs gives its context
// back to Gin, which uses it for the next request. When the handler returns, the limiter must not
// take that for its own.
func TestOrderBehindATimeout(t *testing.T) {
	var log bytes.Buffer
	var limiter gin.HandlerFunc
	var release, returned chan struct{}
	var first, last *gin.Context
	timeout := func(c *gin.Context) {
		if last = c; c.Query("user") != "ann" {
			return
		}
		first = c
		ready, done := make(chan struct{}), returned
		c.Set("ready", ready)
		go func() {
			c.Next()
			close(done)
		}()
		<-ready // and the time is over
		c.Abort()
	}
	r := engine()
	r.GET("/slow", timeout, func(c *gin.Context) { limiter(c) }, func(c *gin.Context) {
		if ready, ok := c.Get("ready"); ok {
			wait := release
			close(ready.(chan struct{}))
			<-wait
		}
	})
	reused := 0
	for i := 0; reused < 8; i++ {
		if i == 10_000 {
			t.Fatal("Gin uses no context again")
		}
		// A new limiter looks at its first requests.
		limiter = ginlimit.New(ginlimit.PerDay(100), func(c *gin.Context) (string, error) {
			return c.Query("user"), nil
		}, logTo(&log))
		release, returned = make(chan struct{}), make(chan struct{})
		send(r, path("/slow"), func(q *http.Request) { q.URL.RawQuery = "user=ann" })
		send(r, path("/slow"), func(q *http.Request) { q.URL.RawQuery = "user=bob" })
		if first == last {
			reused++
		}
		close(release)
		<-returned
	}
	assert.Empty(t, log.String())
}

// TestKeyAndTierAreAskedOnce: where authentication comes first, and the handlers set nothing,
// nothing is asked again.
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
