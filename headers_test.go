package ginlimit_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/backend"
)

func TestWithHeaders(t *testing.T) {
	ietf := map[string]string{"RateLimit-Policy": `"default";q=1;w=60`, "RateLimit": `"default";r=0;t=60`}
	legacy := map[string]string{"X-RateLimit-Limit": "1", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "60"}
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(300 * time.Millisecond)
		epoch := map[string]string{"X-RateLimit-Limit": "1", "X-RateLimit-Remaining": "0",
			"X-RateLimit-Reset": strconv.FormatInt(time.Now().Unix()+61, 10)} // rounded up
		for _, tt := range []struct {
			headers ginlimit.Headers
			want    []map[string]string
		}{
			{ginlimit.HeadersNone, nil},
			{ginlimit.HeadersIETF, []map[string]string{ietf}},
			{ginlimit.HeadersLegacy, []map[string]string{legacy}},
			{ginlimit.HeadersIETF | ginlimit.HeadersLegacy, []map[string]string{ietf, legacy}},
			{ginlimit.HeadersLegacyEpoch, []map[string]string{epoch}},
			{ginlimit.HeadersIETF | ginlimit.HeadersLegacyEpoch, []map[string]string{ietf, epoch}},
			{ginlimit.HeadersLegacy | ginlimit.HeadersLegacyEpoch, []map[string]string{epoch}},
		} {
			want := map[string]string{}
			for _, m := range tt.want {
				for k, v := range m {
					want[k] = v
				}
			}
			r := engine(ginlimit.New(ginlimit.PerMinute(1), ginlimit.Global(), ginlimit.WithHeaders(tt.headers)))
			w := send(r)
			assert.Equal(t, 200, w.Code)
			assert.Equal(t, want, fields(w), "headers %d", tt.headers)

			w = send(r) // full in 60 s still, and that is also when one fits
			assert.Equal(t, 429, w.Code)
			want["Retry-After"], want["Cache-Control"] = "60", "no-store"
			assert.Equal(t, want, fields(w), "headers %d, denied", tt.headers)
		}
	})
}

func TestPolicies(t *testing.T) {
	type limits = []ginlimit.Limit
	for _, tt := range []struct {
		name         string
		limits       limits
		limiter      string
		policy, rate string
	}{
		{"one", limits{ginlimit.PerMinute(100)}, "", `"default";q=100;w=60`, `"default";r=99;t=1`},
		{"limiter's name", limits{ginlimit.PerHour(60)}, "api", `"api";q=60;w=3600`, `"api";r=59;t=60`},
		{"limit's name", limits{ginlimit.PerHour(60).Named("own")}, "api", `"own";q=60;w=3600`, `"own";r=59;t=60`},
		{"several", limits{ginlimit.PerSecond(10), ginlimit.PerMinute(100), ginlimit.PerHour(5000),
			ginlimit.PerDay(100000), ginlimit.Per(9, 36*time.Hour)}, "",
			`"10-per-1s";q=10;w=1, "100-per-1m";q=100;w=60, "5000-per-1h";q=5000;w=3600, ` +
				`"100000-per-1d";q=100000;w=86400, "9-per-36h";q=9;w=129600`,
			`"9-per-36h";r=8;t=14400`},
		{"several with names", limits{ginlimit.PerSecond(10).Named("burst"), ginlimit.PerMinute(5)}, "api",
			`"burst";q=10;w=1, "5-per-1m";q=5;w=60`, `"5-per-1m";r=4;t=12`},
		{"same twice", limits{ginlimit.PerMinute(5), ginlimit.PerMinute(5)}, "",
			`"5-per-1m";q=5;w=60, "5-per-1m-2";q=5;w=60`, `"5-per-1m";r=4;t=12`},
		{"an explicit name like an automatic one", limits{ginlimit.PerMinute(5), ginlimit.PerDay(7).Named("5-per-1m")},
			"",
			`"5-per-1m-2";q=5;w=60, "5-per-1m";q=7;w=86400`, `"5-per-1m-2";r=4;t=12`},
		{"far below a second", limits{ginlimit.Per(1, 7*time.Millisecond)}, "", `"default";q=142;w=1`,
			`"default";r=0;t=1`},
		{"most below a second", limits{ginlimit.Per(backend.MaxCount, time.Millisecond)}, "",
			`"default";q=999999999999999;w=1`, `"default";r=999999999999998;t=1`},
		{"below a second", limits{ginlimit.Per(2, 7*time.Millisecond)}, "", `"default";q=285;w=1`,
			`"default";r=1;t=1`},
		{"rounded up", limits{ginlimit.Per(1, 1500*time.Millisecond)}, "", `"default";q=1;w=2`,
			`"default";r=0;t=2`},
		{"1 µs above", limits{ginlimit.Per(1, time.Second+time.Microsecond)}, "", `"default";q=1;w=2`,
			`"default";r=0;t=2`},
		{"odd periods", limits{ginlimit.Per(2, 1500*time.Millisecond),
			ginlimit.Per(3, 2*time.Second+time.Microsecond)}, "",
			`"2-per-1500ms";q=2;w=2, "3-per-2000001us";q=4;w=3`, `"2-per-1500ms";r=1;t=1`},
		{"burst", limits{ginlimit.PerMinute(60).WithBurst(5)}, "", `"default";q=60;w=60`,
			`"default";r=4;t=1`},
		{"sliding window", limits{ginlimit.PerMinute(60).WithAlgorithm(backend.SlidingWindow)}, "",
			`"default";q=60;w=60`, `"default";r=59;t=120`},
		{"sliding log", limits{ginlimit.PerMinute(60).WithAlgorithm(backend.SlidingLog)}, "",
			`"default";q=60;w=60`, `"default";r=59;t=60`},
		{"fixed window", limits{ginlimit.PerMinute(60).WithAlgorithm(backend.FixedWindow)}, "",
			`"default";q=60;w=60`, `"default";r=59;t=60`},
		{"largest", limits{ginlimit.Per(backend.MaxCount, 366*24*time.Hour)}, "",
			`"default";q=999999999999999;w=31622400`, `"default";r=999999999999998;t=1`},
		{"one of them none", limits{ginlimit.Unlimited(), ginlimit.PerMinute(5)}, "", `"5-per-1m";q=5;w=60`,
			`"5-per-1m";r=4;t=12`},
		{"name to be quoted", limits{ginlimit.PerMinute(5)}, `a "b" \c;r=1, `, `"a \"b\" \\c;r=1, ";q=5;w=60`,
			`"a \"b\" \\c;r=1, ";r=4;t=12`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				opts := []ginlimit.Option{ginlimit.WithLimits(tt.limits[1:]...)}
				if tt.limiter != "" {
					opts = append(opts, ginlimit.WithName(tt.limiter))
				}
				w := send(engine(ginlimit.New(tt.limits[0], ginlimit.Global(), opts...)))
				assert.Equal(t, 200, w.Code)
				assert.Equal(t, tt.policy, fields(w)["RateLimit-Policy"])
				assert.Equal(t, tt.rate, fields(w)["RateLimit"])
				for _, field := range []string{"RateLimit", "RateLimit-Policy"} {
					_, err := parseSFList(w.Header().Get(field))
					assert.NoError(t, err)
				}
			})
		})
	}
}

func TestCapacityIsTheLegacyLimit(t *testing.T) {
	w := send(engine(ginlimit.New(ginlimit.PerMinute(60).WithBurst(5), ginlimit.Global())))
	assert.Equal(t, "5", w.Header().Get("X-RateLimit-Limit"))
	assert.Equal(t, "4", w.Header().Get("X-RateLimit-Remaining"))
}

func TestUnlimitedWritesNoFields(t *testing.T) {
	w := send(engine(ginlimit.New(ginlimit.Unlimited(), ginlimit.Global(),
		ginlimit.WithCost(func(*gin.Context) int64 { return 1 << 62 }))))
	assert.Equal(t, 200, w.Code)
	assert.Equal(t, none, fields(w))
}

func TestSeveralLimiters(t *testing.T) {
	named := func(limit ginlimit.Limit, name string, opts ...ginlimit.Option) gin.HandlerFunc {
		return ginlimit.New(limit, ginlimit.Global(), append(opts, ginlimit.WithName(name))...)
	}
	const a, b, c = `"a";q=9;w=60`, `"b";q=2;w=3600`, `"c";q=5;w=86400`
	synctest.Test(t, func(t *testing.T) {
		r := engine(named(ginlimit.PerMinute(9), "a"))
		g := r.Group("/", named(ginlimit.PerHour(2), "b"))
		g.GET("/route", named(ginlimit.PerDay(5), "c"), answer)
		route := func() map[string]string {
			t.Helper()
			return fields(send(r, path("/route")))
		}
		assert.Equal(t, map[string]string{
			"RateLimit-Policy": a + ", " + b + ", " + c, "RateLimit": `"b";r=1;t=1800`,
			"X-RateLimit-Limit": "2", "X-RateLimit-Remaining": "1", "X-RateLimit-Reset": "1800",
		}, route())
		assert.Equal(t, `"a";q=9;w=60`, fields(send(r))["RateLimit-Policy"], "another route")
		assert.Equal(t, `"b";r=0;t=3600`, route()["RateLimit"])
		// The second limiter refuses: the third is not asked, and does not show.
		assert.Equal(t, map[string]string{
			"RateLimit-Policy": a + ", " + b, "RateLimit": `"b";r=0;t=1800`,
			"Retry-After": "1800", "Cache-Control": "no-store",
			"X-RateLimit-Limit": "2", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "3600",
		}, route())
	})
	synctest.Test(t, func(t *testing.T) { // the first is the tightest, others show less or nothing
		r := engine(
			named(ginlimit.PerMinute(2), "a"),
			named(ginlimit.PerMinute(9), "legacy", ginlimit.WithHeaders(ginlimit.HeadersLegacy)),
			named(ginlimit.PerMinute(7), "ietf", ginlimit.WithHeaders(ginlimit.HeadersIETF)),
			named(ginlimit.PerMinute(1), "none", ginlimit.WithHeaders(ginlimit.HeadersNone)),
			named(ginlimit.PerMinute(0), "dry", ginlimit.WithDryRun(true)),
			named(ginlimit.Unlimited(), "unlimited"),
			named(ginlimit.PerMinute(1), "down", ginlimit.WithBackend(failing(backend.ErrUnavailable))),
		)
		assert.Equal(t, map[string]string{
			"RateLimit-Policy": `"a";q=2;w=60, "ietf";q=7;w=60`, "RateLimit": `"a";r=1;t=30`,
			"X-RateLimit-Limit": "2", "X-RateLimit-Remaining": "1", "X-RateLimit-Reset": "30",
		}, fields(send(r)))
		w := send(r) // refused by "none"
		assert.Equal(t, 429, w.Code)
		assert.Equal(t, "60", w.Header().Get("Retry-After"))
		assert.Equal(t, "0", w.Header().Get("X-RateLimit-Remaining"))
	})
}

func TestTightestIsPerKindOfHeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := engine(
			ginlimit.New(ginlimit.PerMinute(2), ginlimit.Global(), ginlimit.WithName("i"),
				ginlimit.WithHeaders(ginlimit.HeadersIETF)),
			ginlimit.New(ginlimit.PerMinute(6), ginlimit.Global(), ginlimit.WithName("l"),
				ginlimit.WithHeaders(ginlimit.HeadersLegacy)))
		assert.Equal(t, map[string]string{
			"RateLimit-Policy": `"i";q=2;w=60`, "RateLimit": `"i";r=1;t=30`,
			"X-RateLimit-Limit": "6", "X-RateLimit-Remaining": "5", "X-RateLimit-Reset": "10",
		}, fields(send(r)))
	})
}

func TestExposeHeaders(t *testing.T) {
	const all = "Retry-After, RateLimit, RateLimit-Policy, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset"
	const expose, credentials = "Access-Control-Expose-Headers", "Access-Control-Allow-Credentials"
	type opts = []ginlimit.Option
	for _, tt := range []struct {
		name        string
		have        []string
		credentials string
		opts        opts
		want        []string
	}{
		{"absent", nil, "", nil, nil},
		{"present", []string{"X-Request-Id"}, "", nil, []string{"X-Request-Id, " + all}},
		{"empty", []string{""}, "", nil, []string{all}},
		{"star", []string{"*"}, "", nil, []string{"*"}},
		{"star in list", []string{"X-A, *"}, "", nil, []string{"X-A, *"}},
		{"star with credentials", []string{"*"}, "true", nil, []string{"*, " + all}},
		{"star in list with credentials", []string{"X-A, *"}, "true", nil, []string{"X-A, *, " + all}},
		{"star, and what allows no credentials", []string{"*"}, "True", nil, []string{"*"}},
		{"present with credentials", []string{"X-A"}, "true", nil, []string{"X-A, " + all}},
		{"lines", []string{"X-A", "X-B,X-C"}, "", nil, []string{"X-A, X-B,X-C, " + all}},
		{"some there", []string{"ratelimit,RETRY-AFTER"}, "", nil,
			[]string{"ratelimit,RETRY-AFTER, RateLimit-Policy, " +
				"X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset"}},
		{"all there", []string{all}, "", nil, []string{all}},
		{"part of a name", []string{"X-RateLimit"}, "", nil, []string{"X-RateLimit, " + all}},
		{"only IETF", []string{"X-A"}, "", opts{ginlimit.WithHeaders(ginlimit.HeadersIETF)},
			[]string{"X-A, Retry-After, RateLimit, RateLimit-Policy"}},
		{"only legacy", []string{"X-A"}, "", opts{ginlimit.WithHeaders(ginlimit.HeadersLegacyEpoch)},
			[]string{"X-A, Retry-After, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset"}},
		{"dry run", []string{"X-A"}, "", opts{ginlimit.WithDryRun(true)}, []string{"X-A"}},
		{"late", []string{"X-A"}, "", opts{ginlimit.WithLateHeaders(true)}, []string{"X-A, " + all}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			shared := append(make([]string, 0, 8), tt.have...) // with room, so that an append would write into it
			before := slices.Clone(shared[:8])
			limiter := ginlimit.New(ginlimit.PerDay(9), ginlimit.Global(), tt.opts...)
			r := engine(func(c *gin.Context) {
				if tt.have != nil {
					c.Writer.Header()[expose] = shared
				}
				if tt.credentials != "" {
					c.Header(credentials, tt.credentials)
				}
			}, limiter, ginlimit.New(ginlimit.PerDay(9), ginlimit.Global(), append(tt.opts,
				ginlimit.WithName("second"))...))
			for range 3 {
				assert.ElementsMatch(t, tt.want, send(r).Header().Values(expose))
				assert.Equal(t, before, shared[:8])
			}
		})
	}
}

// TestExposeHeadersOfOneLimiter: what is exposed depends on each response's own fields, not on
// those before it.
func TestExposeHeadersOfOneLimiter(t *testing.T) {
	r := engine(func(c *gin.Context) {
		c.Header("Access-Control-Expose-Headers", "*")
		if c.GetHeader("Cookie") != "" {
			c.Header("Access-Control-Allow-Credentials", "true")
		}
	}, hour(9))
	for range 2 {
		assert.Equal(t, "*", send(r).Header().Get("Access-Control-Expose-Headers"))
		assert.Contains(t, send(r, header("Cookie", "a=b")).Header().Get("Access-Control-Expose-Headers"),
			"*, Retry-After, ")
	}
}

// TestExposeHeadersOfDenials: a browser's script must be able to read how long to wait, whatever
// the reason.
func TestExposeHeadersOfDenials(t *testing.T) {
	for _, tt := range []struct {
		name string
		code int
		opts []ginlimit.Option
	}{
		{"429", 429, nil},
		{"429 without the others", 429, []ginlimit.Option{ginlimit.WithHeaders(ginlimit.HeadersNone)}},
		{"503", 503, []ginlimit.Option{ginlimit.WithName("x"), ginlimit.WithFailurePolicy(ginlimit.FailClosed),
			ginlimit.WithBackend(failing(backend.ErrUnavailable))}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cors := func(c *gin.Context) { c.Header("Access-Control-Expose-Headers", "X-A") }
			l := must(ginlimit.NewLimiter(ginlimit.PerDay(1), ginlimit.Global(), tt.opts...))
			_, _ = l.Allow(context.Background(), "global:", 1)
			w := send(engine(cors, l.Handle))
			assert.Equal(t, tt.code, w.Code)
			assert.NotEmpty(t, w.Header().Get("Retry-After"))
			assert.Contains(t, w.Header().Get("Access-Control-Expose-Headers"), "Retry-After")
		})
	}
}

// TestSharedHeaderValues: what middleware adds to a field, or writes over it, must not show in the
// next response.
func TestSharedHeaderValues(t *testing.T) {
	r := engine(func(c *gin.Context) {
		c.Next()
		for _, field := range []string{"RateLimit-Policy", "RateLimit", "X-RateLimit-Limit", "Cache-Control",
			"Content-Type", "Access-Control-Expose-Headers"} {
			values := c.Writer.Header()[field]
			if values == nil {
				values = c.Writer.Header()[http.CanonicalHeaderKey(field)]
			}
			if assert.NotEmpty(t, values, field) {
				values[0] += "written over"
			}
			c.Writer.Header().Add(field, "more")
		}
	}, func(c *gin.Context) { c.Header("Access-Control-Expose-Headers", "X-A") },
		ginlimit.New(ginlimit.PerMinute(0), ginlimit.Global()))
	first := send(r).Header().Clone()
	assert.Equal(t, first, send(r).Header())
	assert.Equal(t, first, send(r).Header())
}

// TestNothingIsExposedOfAFailure: a failure that passes writes no fields, so that none is exposed.
func TestNothingIsExposedOfAFailure(t *testing.T) {
	w := send(engine(func(c *gin.Context) { c.Header("Access-Control-Expose-Headers", "X-A") },
		ginlimit.New(ginlimit.PerDay(1), ginlimit.Global(), ginlimit.WithName("x"),
			ginlimit.WithBackend(failing(backend.ErrUnavailable)))))
	assert.Equal(t, http.StatusOK, w.Code)
	assert.Equal(t, "X-A", w.Header().Get("Access-Control-Expose-Headers"))
}

func TestFieldsInSequence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := engine(ginlimit.New(ginlimit.PerMinute(3), ginlimit.ByIP()))
		for _, step := range []struct {
			after                        time.Duration
			code                         int
			rate, remaining, reset, wait string
		}{
			{0, 200, `"default";r=2;t=20`, "2", "20", ""},
			{0, 200, `"default";r=1;t=40`, "1", "40", ""},
			{0, 200, `"default";r=0;t=60`, "0", "60", ""},
			{0, 429, `"default";r=0;t=20`, "0", "60", "20"},
			{500 * time.Millisecond, 429, `"default";r=0;t=20`, "0", "60", "20"},
			{19 * time.Second, 429, `"default";r=0;t=1`, "0", "41", "1"},
			{500 * time.Millisecond, 200, `"default";r=0;t=60`, "0", "60", ""},
			{60 * time.Second, 200, `"default";r=2;t=20`, "2", "20", ""},
		} {
			time.Sleep(step.after)
			w := send(r)
			assert.Equal(t, step.code, w.Code)
			want := map[string]string{
				"RateLimit-Policy": `"default";q=3;w=60`, "RateLimit": step.rate,
				"X-RateLimit-Limit": "3", "X-RateLimit-Remaining": step.remaining, "X-RateLimit-Reset": step.reset,
			}
			if step.wait != "" {
				want["Retry-After"], want["Cache-Control"] = step.wait, "no-store"
			}
			assert.Equal(t, want, fields(w))
		}
	})
}

// problemOf returns the problem document of a response (RFC 9457).
func problemOf(t *testing.T, contentType string, body []byte) map[string]any {
	t.Helper()
	assert.Equal(t, "application/problem+json", contentType)
	var got map[string]any
	require.NoError(t, json.Unmarshal(body, &got), "%s", body)
	return got
}

func TestDenialBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := engine(ginlimit.New(ginlimit.PerMinute(10).Named("minute"), ginlimit.Global(),
			ginlimit.WithLimits(ginlimit.PerHour(1).Named("hour"))))
		assert.Equal(t, "ok", send(r).Body.String())
		w := send(r)
		assert.Equal(t, 429, w.Code)
		assert.Equal(t, "3600", w.Header().Get("Retry-After"))
		got := problemOf(t, w.Header().Get("Content-Type"), w.Body.Bytes())
		assert.Contains(t, got["detail"], "hour")
		assert.Contains(t, got["detail"], "3600")
		delete(got, "detail")
		assert.Equal(t, map[string]any{
			"type": "https://iana.org/assignments/http-problem-types#quota-exceeded", "title": "Quota Exceeded",
			"status": 429.0, "violated-policies": []any{"hour"},
		}, got)
	})
}

func TestDenialBodyWithOddNames(t *testing.T) {
	for _, name := range []string{`"`, `a"`, `"a"`, `\`, `a\`, `\"`, `<a&b>`, `{"x":1}`, `%s%d`, ` `} {
		t.Run(name, func(t *testing.T) {
			w := send(engine(ginlimit.New(ginlimit.PerMinute(0), ginlimit.Global(), ginlimit.WithName(name))))
			got := problemOf(t, w.Header().Get("Content-Type"), w.Body.Bytes())
			assert.Equal(t, []any{name}, got["violated-policies"])
			assert.Contains(t, got["detail"], name)
			list, err := parseSFList(w.Header().Get("RateLimit"))
			require.NoError(t, err)
			assert.Equal(t, name, list[0].value)
		})
	}
}

// TestRetryAfterIsTrue waits as long as it is told, and one second less.
func TestRetryAfterIsTrue(t *testing.T) {
	for _, tt := range []struct {
		name  string
		limit ginlimit.Limit
	}{
		{"token bucket", ginlimit.Per(3, 10*time.Second)},
		{"uneven bucket", ginlimit.PerMinute(7).WithBurst(2)},
		{"leaky bucket", ginlimit.PerMinute(6).WithBurst(1)},
		{"sliding window", ginlimit.Per(3, 10*time.Second).WithAlgorithm(backend.SlidingWindow)},
		{"sliding log", ginlimit.Per(3, 10*time.Second).WithAlgorithm(backend.SlidingLog)},
		{"fixed window", ginlimit.Per(3, 10*time.Second).WithAlgorithm(backend.FixedWindow)},
		{"uneven period", ginlimit.Per(3, 10*time.Second+7*time.Microsecond).WithAlgorithm(backend.FixedWindow)},
		{"below a second", ginlimit.Per(3, 900*time.Millisecond).WithAlgorithm(backend.FixedWindow)},
		{"exactly one", ginlimit.PerSecond(1)},
		{"an hour's worth", ginlimit.PerHour(5).WithAlgorithm(backend.SlidingLog)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := engine(ginlimit.New(tt.limit, ginlimit.Global()))
				for range 4 { // the state grows uneven
					w := send(r)
					for w.Code == 200 {
						time.Sleep(3 * time.Millisecond)
						w = send(r)
					}
					wait, err := strconv.Atoi(w.Header().Get("Retry-After"))
					require.NoError(t, err)
					require.Positive(t, wait)
					time.Sleep(time.Duration(wait-1) * time.Second)
					assert.Equal(t, 429, send(r).Code, "%d of %d seconds", wait-1, wait)
					time.Sleep(time.Second)
					assert.Equal(t, 200, send(r).Code, "%d seconds", wait)
				}
			})
		})
	}
}

// TestWhatCanNeverPass: such a response says nothing of a time, which would be untrue, and names
// each limit that the cost can never fit.
func TestWhatCanNeverPass(t *testing.T) {
	type limits = []ginlimit.Limit
	small, large := ginlimit.PerMinute(3).Named("small"), ginlimit.PerHour(8).Named("large")
	for _, tt := range []struct {
		name     string
		limits   limits
		cost     int64
		violated []any
	}{
		{"cost above the count", limits{ginlimit.PerMinute(3)}, 4, []any{"default"}},
		{"cost above the burst", limits{ginlimit.PerMinute(30).WithBurst(3)}, 4, []any{"default"}},
		{"window", limits{ginlimit.PerMinute(3).WithAlgorithm(backend.SlidingWindow)}, 4, []any{"default"}},
		{"log", limits{ginlimit.PerMinute(3).WithAlgorithm(backend.SlidingLog)}, 1 << 62, []any{"default"}},
		{"count 0", limits{ginlimit.PerMinute(0)}, 1, []any{"default"}},
		{"count 0, cost 0", limits{ginlimit.PerMinute(0)}, 0, []any{"default"}},
		{"count 0 in a window", limits{ginlimit.PerMinute(0).WithAlgorithm(backend.FixedWindow)}, 1, []any{"default"}},
		{"one of two", limits{small, large}, 4, []any{"small"}},
		{"the other of two", limits{large, small}, 4, []any{"small"}},
		{"both of two", limits{small, large}, 9, []any{"small", "large"}},
	} {
		for _, late := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, late %v", tt.name, late), func(t *testing.T) {
				l := must(ginlimit.NewLimiter(tt.limits[0], ginlimit.Global(), ginlimit.WithLimits(tt.limits[1:]...),
					ginlimit.WithCost(func(*gin.Context) int64 { return tt.cost }), ginlimit.WithLateHeaders(late)))
				_, err := l.Allow(t.Context(), "global:", 1) // so that there is something to be reset
				require.NoError(t, err)
				w := send(engine(func(c *gin.Context) { c.Header("X-RateLimit-Reset", "7") }, l.Handle))
				assert.Equal(t, 429, w.Code)
				got := fields(w)
				assert.Equal(t, "no-store", got["Cache-Control"])
				assert.NotContains(t, got, "Retry-After")
				assert.NotContains(t, got, "X-RateLimit-Reset")
				assert.NotContains(t, got["RateLimit"], "t=")
				assert.NotEmpty(t, got["X-RateLimit-Remaining"])
				body := problemOf(t, w.Header().Get("Content-Type"), w.Body.Bytes())
				assert.Equal(t, tt.violated, body["violated-policies"])
				assert.NotContains(t, body["detail"], "try again")
			})
		}
	}
}

// TestViolatedPolicies: a refusal names all limits that refuse, in their order.
func TestViolatedPolicies(t *testing.T) {
	second, minute := ginlimit.PerSecond(2).Named("second"), ginlimit.PerMinute(3).Named("minute")
	hour, none := ginlimit.PerHour(9).Named("hour"), ginlimit.PerMinute(0).Named("none")
	for _, tt := range []struct {
		name     string
		limits   []ginlimit.Limit
		used     int64
		cost     int64
		violated []any
	}{
		{"one of three", []ginlimit.Limit{hour, second, minute}, 2, 1, []any{"second"}},
		{"two of three", []ginlimit.Limit{second, hour, minute}, 2, 2, []any{"second", "minute"}},
		{"all", []ginlimit.Limit{hour, minute, second}, 2, 8, []any{"hour", "minute", "second"}},
		{"one that blocks everything, and one", []ginlimit.Limit{none, hour, second}, 0, 3, []any{"none", "second"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := must(ginlimit.NewLimiter(tt.limits[0], ginlimit.Global(), ginlimit.WithLimits(tt.limits[1:]...),
					ginlimit.WithCost(func(*gin.Context) int64 { return tt.cost })))
				d, err := l.Allow(t.Context(), "global:", tt.used)
				require.NoError(t, err)
				require.Equal(t, tt.used > 0, d.Allowed)
				w := send(engine(l.Handle))
				assert.Equal(t, 429, w.Code)
				assert.Equal(t, tt.violated, problemOf(t, w.Header().Get("Content-Type"), w.Body.Bytes())["violated-policies"])
			})
		})
	}
}

// TestRetryAfterOfAFailure: where no decision was reached, Retry-After is not before another
// limiter's wait that is known.
func TestRetryAfterOfAFailure(t *testing.T) {
	down := ginlimit.New(ginlimit.PerDay(9), ginlimit.Global(), ginlimit.WithName("down"),
		ginlimit.WithBackend(failing(backend.ErrUnavailable)), ginlimit.WithFailurePolicy(ginlimit.FailClosed))
	handle := func(limit ginlimit.Limit, opts ...ginlimit.Option) gin.HandlerFunc {
		return ginlimit.New(limit, ginlimit.Global(), opts...)
	}
	check := func(limit ginlimit.Limit) gin.HandlerFunc {
		l := must(ginlimit.NewLimiter(limit, ginlimit.Global()))
		return func(c *gin.Context) { l.Check(c); l.Check(c) }
	}
	type handlers = []gin.HandlerFunc
	for _, tt := range []struct {
		name     string
		handlers handlers
		want     string
	}{
		{"alone", nil, "5"},
		{"something is left", handlers{handle(ginlimit.PerMinute(2))}, "5"},
		{"the last unit of a bucket", handlers{handle(ginlimit.PerMinute(1))}, "60"},
		{"of a bucket with a burst", handlers{check(ginlimit.PerMinute(6).WithBurst(2))}, "10"},
		{"of a window", handlers{handle(ginlimit.PerMinute(1).WithAlgorithm(backend.FixedWindow))}, "60"},
		{"a refused check", handlers{check(ginlimit.PerHour(1))}, "3600"},
		{"the longest of several", handlers{handle(ginlimit.PerMinute(1)), handle(ginlimit.PerHour(1)),
			handle(ginlimit.PerSecond(1))}, "3600"},
		{"a shorter one", handlers{handle(ginlimit.PerSecond(1))}, "5"},
		{"a check that can never pass", handlers{check(ginlimit.PerMinute(0))}, "5"},
		{"a dry run", handlers{handle(ginlimit.PerHour(1), ginlimit.WithDryRun(true))}, "5"},
		{"unlimited", handlers{handle(ginlimit.Unlimited())}, "5"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := send(engine(append(tt.handlers, down)...))
				assert.Equal(t, 503, w.Code)
				assert.Equal(t, tt.want, w.Header().Get("Retry-After"))
			})
		})
	}
}

// TestRetryAfterOfStackedLimiters: a client that waits out the Retry-After of one limiter is not
// refused by another, which had just given its last unit.
func TestRetryAfterOfStackedLimiters(t *testing.T) {
	first := func(limit ginlimit.Limit, opts ...ginlimit.Option) gin.HandlerFunc {
		return ginlimit.New(limit, ginlimit.Global(), opts...)
	}
	for _, tt := range []struct {
		name  string
		first gin.HandlerFunc
		want  string
	}{
		{"something is left", first(ginlimit.PerHour(3)), "60"},
		{"the last unit", first(ginlimit.PerHour(2).WithAlgorithm(backend.FixedWindow)), "3600"},
		{"without fields", first(ginlimit.PerHour(2).WithAlgorithm(backend.FixedWindow),
			ginlimit.WithHeaders(ginlimit.HeadersNone)), "3600"},
		{"in a dry run", first(ginlimit.PerHour(2).WithAlgorithm(backend.FixedWindow), ginlimit.WithDryRun(true)), "60"},
		{"given back", first(ginlimit.PerHour(2).WithAlgorithm(backend.FixedWindow),
			ginlimit.WithRefundIf(func(c *gin.Context) bool { return c.Writer.Status() == 429 })), "60"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := engine(tt.first, first(ginlimit.PerMinute(1), ginlimit.WithName("second")))
				assert.Equal(t, 200, send(r).Code)
				w := send(r)
				assert.Equal(t, 429, w.Code)
				wait := w.Header().Get("Retry-After")
				assert.Equal(t, tt.want, wait)
				assert.Contains(t, w.Body.String(), "try again in "+wait+" seconds")
				seconds, err := strconv.Atoi(wait)
				require.NoError(t, err)
				time.Sleep(time.Duration(seconds) * time.Second)
				assert.Equal(t, 200, send(r).Code)
			})
		})
	}
	never := send(engine(first(ginlimit.PerHour(1)), first(ginlimit.PerMinute(0), ginlimit.WithName("second"))))
	assert.NotContains(t, never.Header(), "Retry-After")
}

// TestFailures walks over the table of what a client sees, under each policy and in a dry run.
func TestFailures(t *testing.T) {
	fails := func(err error) ginlimit.KeyFunc {
		return func(*gin.Context) (string, error) { return "key", err }
	}
	cost := func(n int64) ginlimit.Option { return ginlimit.WithCost(func(*gin.Context) int64 { return n }) }
	store := func(err error) []ginlimit.Option {
		return []ginlimit.Option{ginlimit.WithName("x"), ginlimit.WithBackend(failing(err))}
	}
	down := fmt.Errorf("ginlimit: asking: %w: %w", backend.ErrUnavailable, errOther)
	for _, tt := range []struct {
		name         string
		key          ginlimit.KeyFunc
		opts         []ginlimit.Option
		open, closed int
		is           error
	}{
		{"ErrNoKey", fails(ginlimit.ErrNoKey), nil, 400, 400, ginlimit.ErrNoKey},
		{"wrapped ErrNoKey", fails(fmt.Errorf("who? %w", ginlimit.ErrNoKey)), nil, 400, 400,
			ginlimit.ErrNoKey},
		{"empty key", func(*gin.Context) (string, error) { return "", nil }, nil, 400, 400,
			ginlimit.ErrNoKey},
		{"negative cost", ginlimit.Global(), []ginlimit.Option{cost(-1)}, 400, 400, nil},
		{"KeyFunc fails", fails(errOther), nil, 200, 503, errOther},
		{"backend down", ginlimit.Global(), store(down), 200, 503, backend.ErrUnavailable},
		{"backend broken", ginlimit.Global(), store(errOther), 503, 503, errOther},
		{"KeyFunc fails, as backends", fails(down), nil, 200, 503, backend.ErrUnavailable},
		{"context ended", ginlimit.Global(), store(context.Canceled), 503, 503, context.Canceled},
	} {
		for _, under := range []struct {
			policy ginlimit.FailurePolicy
			code   int
		}{{ginlimit.FailOpen, tt.open}, {ginlimit.FailClosed, tt.closed}} {
			for _, dry := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, policy %d, dry run %v", tt.name, under.policy, dry), func(t *testing.T) {
					code := under.code
					if dry {
						code = 200
					}
					var seen watch
					r := engine(ginlimit.New(ginlimit.PerMinute(1), tt.key, append(tt.opts,
						ginlimit.WithFailurePolicy(under.policy), ginlimit.WithDryRun(dry),
						ginlimit.WithObserver(seen.observe))...))
					w := send(r)
					assert.Equal(t, code, w.Code)
					require.Len(t, seen.seen, 1)
					d := seen.last()
					require.Error(t, d.Err)
					if tt.is != nil {
						assert.ErrorIs(t, d.Err, tt.is)
					}
					assert.Equal(t, dry, d.DryRun)
					assert.Equal(t, ginlimit.Result{}, d.Result)
					assert.NotEmpty(t, d.Limits)
					assert.Equal(t, code, max(200, d.Status()))

					if code == 200 {
						assert.Equal(t, none, fields(w))
						assert.Equal(t, "ok", w.Body.String())
						return
					}
					want := map[string]string{"Cache-Control": "no-store"}
					body := problemOf(t, w.Header().Get("Content-Type"), w.Body.Bytes())
					assert.NotContains(t, w.Body.String(), "secret")
					assert.EqualValues(t, code, body["status"])
					assert.NotEmpty(t, body["title"])
					assert.NotEmpty(t, body["detail"])
					if code == 503 {
						seconds, err := strconv.Atoi(w.Header().Get("Retry-After"))
						assert.NoError(t, err)
						assert.Positive(t, seconds)
						want["Retry-After"] = w.Header().Get("Retry-After")
						assert.Equal(t, "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
							body["type"])
					} else {
						assert.Equal(t, "about:blank", body["type"])
					}
					assert.Equal(t, want, fields(w))
				})
			}
		}
	}
}

func TestSkip(t *testing.T) {
	skips := func(*gin.Context) (string, error) { return "", fmt.Errorf("health check: %w", ginlimit.ErrSkip) }
	for _, tt := range []struct {
		name string
		key  ginlimit.KeyFunc
		opts []ginlimit.Option
	}{
		{"WithSkip", ginlimit.Global(),
			[]ginlimit.Option{ginlimit.WithSkip(func(*gin.Context) bool { return true })}},
		{"key", skips, nil},
		{"key in Join", ginlimit.Join(ginlimit.Global(), skips), nil},
		{"key in FirstOf", ginlimit.FirstOf(skips, ginlimit.Global()), nil},
		{"tier", ginlimit.Global(), []ginlimit.Option{ginlimit.WithTier(func(*gin.Context) (ginlimit.Tier, error) {
			return ginlimit.Tier{}, fmt.Errorf("staff: %w", ginlimit.ErrSkip)
		})}},
	} {
		for _, dry := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, dry run %v", tt.name, dry), func(t *testing.T) {
				var seen watch
				store := newSpy()
				store.onTake = func(context.Context, string, int64) error { t.Error("charged"); return nil }
				l := must(ginlimit.NewLimiter(ginlimit.PerMinute(0), tt.key,
					append(tt.opts, ginlimit.WithDryRun(dry), ginlimit.WithFailurePolicy(ginlimit.FailClosed),
						ginlimit.WithName("x"), ginlimit.WithBackend(store), ginlimit.WithObserver(seen.observe))...))
				r := engine(l.Handle, func(c *gin.Context) {
					_, ok := ginlimit.FromContext(c)
					assert.False(t, ok)
					d := l.Check(c)
					assert.ErrorIs(t, d.Err, ginlimit.ErrSkip)
					assert.Zero(t, d.Status())
				})
				w := send(r)
				assert.Equal(t, 200, w.Code)
				assert.Equal(t, none, fields(w))
				assert.Empty(t, seen.seen)
			})
		}
	}
}

func TestDryRun(t *testing.T) {
	var seen watch
	r := engine(ginlimit.New(ginlimit.PerDay(1), ginlimit.Global(), ginlimit.WithDryRun(true),
		ginlimit.WithObserver(seen.observe)))
	for i := range 3 {
		w := send(r)
		assert.Equal(t, 200, w.Code)
		assert.Equal(t, "ok", w.Body.String())
		assert.Equal(t, none, fields(w))
		d := seen.last()
		assert.Equal(t, i == 0, d.Allowed)
		assert.True(t, d.DryRun)
		assert.NoError(t, d.Err)
		assert.Zero(t, d.Status())
	}
	assert.Len(t, seen.seen, 3)
}

func TestDenyHandler(t *testing.T) {
	deny := ginlimit.WithDenyHandler(func(c *gin.Context, d ginlimit.Decision) {
		c.Header("Why", fmt.Sprint(errors.Is(d.Err, ginlimit.ErrNoKey), errors.Is(d.Err, backend.ErrUnavailable)))
		c.JSON(d.Status(), gin.H{"wait": c.Writer.Header().Get("Retry-After")})
	})
	for _, tt := range []struct {
		name      string
		key       ginlimit.KeyFunc
		opts      []ginlimit.Option
		code      int
		why, body string
	}{
		{"429", ginlimit.Global(), nil, 429, "false false", `{"wait":"86400"}`},
		{"400", byHeader, nil, 400, "true false", `{"wait":""}`},
		{"503", ginlimit.Global(), []ginlimit.Option{ginlimit.WithName("x"),
			ginlimit.WithBackend(failing(backend.ErrUnavailable)),
			ginlimit.WithFailurePolicy(ginlimit.FailClosed)}, 503, "false true", `{"wait":"5"}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ran := 0
				r := engine(ginlimit.New(ginlimit.PerDay(1), tt.key, append(tt.opts, deny)...),
					func(*gin.Context) { ran++ })
				if tt.code == 429 {
					send(r)
				}
				before := ran
				w := send(r)
				assert.Equal(t, tt.code, w.Code)
				assert.Equal(t, tt.why, w.Header().Get("Why"))
				assert.Equal(t, "no-store", w.Header().Get("Cache-Control"))
				assert.Equal(t, tt.body, w.Body.String())
				assert.Equal(t, before, ran, "handlers after the limiter ran")
			})
		})
	}
}

func TestBodilessResponses(t *testing.T) {
	limiter := ginlimit.New(ginlimit.PerDay(3), ginlimit.Global())
	r := engine(limiter)
	r.GET("/204", func(c *gin.Context) { c.Status(http.StatusNoContent) })
	r.GET("/304", func(c *gin.Context) { c.AbortWithStatus(http.StatusNotModified) })
	at := func(method, path string) func(*http.Request) {
		return func(q *http.Request) { q.Method, q.URL.Path = method, path }
	}
	for _, tt := range []struct {
		method, path string
		code         int
		remaining    string
	}{
		{"GET", "/204", 204, "2"},
		{"GET", "/304", 304, "1"},
		{"GET", "/missing", 404, "0"},
		{"HEAD", "/", 429, "0"},
	} {
		w := send(r, at(tt.method, tt.path))
		assert.Equal(t, tt.code, w.Code)
		assert.Equal(t, tt.remaining, w.Header().Get("X-RateLimit-Remaining"), tt.path)
		assert.NotEmpty(t, w.Header().Get("RateLimit"))
	}
	w := send(r, at("HEAD", "/"))
	assert.Empty(t, w.Body.Bytes())
	assert.Equal(t, "application/problem+json", w.Header().Get("Content-Type"))
	assert.NotEmpty(t, w.Header().Get("Retry-After"))
	assert.Equal(t, 429, send(r, at("GET", "/missing")).Code, "an unmatched route is limited too")
	assert.Equal(t, 429, send(r, at("POST", "/")).Code)
}

// sfItem is a string of a structured field with parameters that are integers (RFC 9651, sections
// 3.1 and 3.3).
type sfItem struct {
	value  string
	params map[string]any // int64 or string
}

// parseSFList parses a list of strings in the one form that section 4.1 lets a sender write: ", "
// between members, nothing around ";" and "=", no parameter twice, no zero before a digit.
func parseSFList(s string) (list []sfItem, err error) {
	for {
		var item sfItem
		if item, s, err = parseSFItem(s); err != nil {
			return nil, err
		}
		if list = append(list, item); s == "" {
			return list, nil
		}
		var found bool
		if s, found = strings.CutPrefix(s, ", "); !found {
			return nil, fmt.Errorf("want a comma and a space before %q", s)
		}
	}
}

func parseSFItem(s string) (item sfItem, rest string, err error) {
	if item.value, s, err = parseSFString(s); err != nil {
		return item, "", err
	}
	item.params = map[string]any{}
	for strings.HasPrefix(s, ";") {
		s = s[1:]
		n := 0
		for n < len(s) && (s[n] >= 'a' && s[n] <= 'z' || s[n] == '*' ||
			n > 0 && (s[n] >= '0' && s[n] <= '9' || strings.ContainsRune("_-.", rune(s[n])))) {
			n++
		}
		key := s[:n]
		if n == 0 || !strings.HasPrefix(s[n:], "=") {
			return item, "", fmt.Errorf("want a key and a value at %q", s)
		}
		if _, twice := item.params[key]; twice {
			return item, "", fmt.Errorf("parameter %q stands there twice", key)
		}
		if s = s[n+1:]; strings.HasPrefix(s, `"`) {
			if item.params[key], s, err = parseSFString(s); err != nil {
				return item, "", err
			}
			continue
		}
		for n = 0; n < len(s) && (s[n] >= '0' && s[n] <= '9' || n == 0 && s[n] == '-'); {
			n++
		}
		number, err := strconv.ParseInt(s[:n], 10, 64)
		if err != nil || strconv.FormatInt(number, 10) != s[:n] || len(strings.TrimPrefix(s[:n], "-")) > 15 {
			return item, "", fmt.Errorf("want an integer or a string at %q", s)
		}
		item.params[key], s = number, s[n:]
	}
	return item, s, nil
}

func parseSFString(s string) (value, rest string, err error) {
	if !strings.HasPrefix(s, `"`) {
		return "", "", fmt.Errorf("want a string at %q", s)
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch ch := s[i]; {
		case ch == '"':
			return b.String(), s[i+1:], nil
		case ch == '\\':
			if i++; i == len(s) || s[i] != '"' && s[i] != '\\' {
				return "", "", errors.New("a backslash before something else than a quote or a backslash")
			}
			b.WriteByte(s[i])
		case ch < 0x20 || ch > 0x7e:
			return "", "", fmt.Errorf("byte %#x in a string", ch)
		default:
			b.WriteByte(ch)
		}
	}
	return "", "", errors.New("the string does not end")
}

func TestParseSFList(t *testing.T) {
	list, err := parseSFList(`"a \"b\" \\";q=100;w=60, "";x*_-.9=-5, "c";q=5;qu="\"u"`)
	assert.NoError(t, err)
	assert.Equal(t, []sfItem{
		{`a "b" \`, map[string]any{"q": int64(100), "w": int64(60)}},
		{"", map[string]any{"x*_-.9": int64(-5)}},
		{"c", map[string]any{"q": int64(5), "qu": `"u`}},
	}, list)
	for _, bad := range []string{
		``, ` `, `a`, `"a`, `"a" `, ` "a"`, `"a","b"`, `"a" , "b"`, `"a",  "b"`, `"a", `, `"a",`, `"a"; q=1`,
		`"a";q =1`, `"a";q= 1`, `"a";Q=1`, `"a";1=1`, `"a";q`, `"a";q=`, `"a";q=-`, `"a";q=+1`, `"a";q=01`, `"a";q=-0`,
		`"a";q=1.5`, `"a";q=1;q=1`, `"a";qu="`, `"a";qu="u`, `"a";qu="u"v`, `"a";qu="u";qu="u"`,
		`"a";q=1000000000000000`, "\"\x7f\"", "\"\n\"", `"é"`, `"\n"`, `"\`, `"a"x`, `a="b"`,
	} {
		_, err := parseSFList(bad)
		assert.Error(t, err, bad)
	}
}

func hour(n int64, opts ...ginlimit.Option) gin.HandlerFunc {
	return ginlimit.New(ginlimit.PerHour(n), ginlimit.Global(), opts...)
}

// late is both values of WithLateHeaders: what holds without the limiter's writer holds with it.
var late = map[string]ginlimit.Option{"early": ginlimit.WithLateHeaders(false), "late": ginlimit.WithLateHeaders(true)}

// served runs an engine behind a real server.
func served(t *testing.T, r http.Handler) *httptest.Server {
	s := httptest.NewServer(r)
	t.Cleanup(s.Close)
	return s
}

func TestStreaming(t *testing.T) {
	read := make(chan struct{}) // each event is written after the one before was read: nothing may be held back
	for _, tt := range []struct {
		name  string
		write func(*gin.Context, func() bool)
	}{
		{"Stream", func(c *gin.Context, next func() bool) {
			c.Stream(func(io.Writer) bool { // flushes after each call
				if next() {
					c.SSEvent("", "tick")
					return true
				}
				return false
			})
		}},
		{"Flush", func(c *gin.Context, next func() bool) {
			for next() {
				_, _ = c.Writer.WriteString("data:tick\n\n")
				c.Writer.Flush()
			}
		}},
		{"ResponseController", func(c *gin.Context, next func() bool) {
			for next() {
				_, _ = c.Writer.Write([]byte("data:tick\n\n"))
				assert.NoError(t, http.NewResponseController(c.Writer).Flush())
			}
		}},
	} {
		for when, opt := range late {
			t.Run(tt.name+", "+when, func(t *testing.T) {
				r := engine(hour(10, opt), hour(5, opt))
				r.GET("/stream", func(c *gin.Context) {
					n := 0
					tt.write(c, func() bool {
						if n > 0 {
							<-read
						}
						n++
						return n <= 3
					})
				})
				res, err := http.Get(served(t, r).URL + "/stream")
				require.NoError(t, err)
				defer res.Body.Close()
				assert.Equal(t, "4", res.Header.Get("X-RateLimit-Remaining"))
				lines := bufio.NewScanner(res.Body)
				for range 3 {
					require.True(t, lines.Scan())
					assert.Equal(t, "data:tick", lines.Text())
					lines.Scan()
					read <- struct{}{}
				}
				assert.False(t, lines.Scan())
			})
		}
	}
}

// TestWriterIsWhole: what a handler does with c.Writer reaches the connection.
func TestWriterIsWhole(t *testing.T) {
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	for when, opt := range late {
		for _, tt := range []struct {
			name    string
			handler gin.HandlerFunc
			code    int
			body    string
			shown   bool
		}{
			{"deadlines", func(c *gin.Context) {
				rc := http.NewResponseController(c.Writer)
				assert.NoError(t, rc.SetReadDeadline(time.Now().Add(time.Hour)))
				assert.NoError(t, rc.SetWriteDeadline(time.Now().Add(time.Hour)))
				assert.NoError(t, rc.EnableFullDuplex())
				answer(c)
			}, 200, "ok", true},
			{"hijack", func(c *gin.Context) {
				conn, rw, err := c.Writer.Hijack()
				if !assert.NoError(t, err) {
					return
				}
				defer conn.Close()
				_, _ = rw.WriteString("HTTP/1.1 418 Mine\r\nConnection: close\r\n\r\nhijacked")
				_ = rw.Flush()
			}, 418, "hijacked", false},
			{"file", func(c *gin.Context) {
				http.ServeContent(c.Writer, c.Request, "a.txt", time.Time{}, strings.NewReader("a file"))
			}, 200, "a file", true},
			{"copy", func(c *gin.Context) { _, _ = io.Copy(c.Writer, strings.NewReader("a copy")) }, 200, "a copy",
				true},
			{"string", func(c *gin.Context) { _, _ = io.WriteString(c.Writer, "a string") }, 200, "a string", true},
			{"status only", func(c *gin.Context) { c.Status(204) }, 204, "", true},
			{"status at once", func(c *gin.Context) { c.AbortWithStatus(403) }, 403, "", true},
			{"nothing", func(*gin.Context) {}, 200, "", true},
			{"redirect", func(c *gin.Context) { c.Redirect(307, "/elsewhere") }, 307,
				"<a href=\"/elsewhere\">Temporary Redirect</a>.\n\n", true},
			{"push", func(c *gin.Context) {
				if p, ok := c.Writer.(http.Pusher); ok {
					assert.ErrorIs(t, p.Push("/", nil), http.ErrNotSupported)
				}
				answer(c)
			}, 200, "ok", true},
		} {
			t.Run(tt.name+", "+when, func(t *testing.T) {
				res, err := client.Get(served(t, routed(hour(10, opt), hour(5, opt), tt.handler)).URL)
				require.NoError(t, err)
				defer res.Body.Close()
				body, _ := io.ReadAll(res.Body)
				assert.Equal(t, tt.code, res.StatusCode)
				assert.Equal(t, tt.body, string(body))
				assert.Equal(t, tt.shown, len(res.Header.Values("RateLimit")) == 1, res.Header)
			})
		}
	}
}

// pushing is a connection over which a server may push.
type pushing struct {
	*httptest.ResponseRecorder
	pushed []string
}

func (w *pushing) Push(target string, _ *http.PushOptions) error {
	w.pushed = append(w.pushed, target)
	return nil
}

// TestPush: a push goes through.
func TestPush(t *testing.T) {
	for when, opt := range late {
		t.Run(when, func(t *testing.T) {
			w := &pushing{ResponseRecorder: httptest.NewRecorder()}
			engine(hour(10, opt), func(c *gin.Context) {
				assert.NoError(t, c.Writer.Pusher().Push("/a", nil))
				if p, ok := c.Writer.(http.Pusher); ok {
					assert.NoError(t, p.Push("/b", nil))
					assert.Equal(t, "late", when)
				}
			}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
			assert.Equal(t, "/a", w.pushed[0])
		})
	}
}

// readerFrom is a writer of other middleware that takes a whole reader at once.
type readerFrom struct {
	gin.ResponseWriter
	copied bool
}

func (w *readerFrom) ReadFrom(r io.Reader) (int64, error) {
	w.copied = true
	return io.Copy(struct{ io.Writer }{w.ResponseWriter}, r)
}

// TestReadFrom: the limiter hides no io.ReaderFrom of the writer that was there.
func TestReadFrom(t *testing.T) {
	for when, opt := range late {
		t.Run(when, func(t *testing.T) {
			var own *readerFrom
			w := send(engine(func(c *gin.Context) {
				own = &readerFrom{ResponseWriter: c.Writer}
				c.Writer = own
			}, hour(10, opt), func(c *gin.Context) {
				_, _ = io.Copy(c.Writer, struct{ io.Reader }{strings.NewReader("body")})
				c.Abort()
			}))
			assert.True(t, own.copied)
			assert.Equal(t, "body", w.Body.String())
			assert.Equal(t, "9", w.Header().Get("X-RateLimit-Remaining"))
		})
	}
}

// TestWriterIsPutBack: after the handlers c.Writer is what it was before the limiter, so that
// middleware finds its own; and it tells what was written.
func TestWriterIsPutBack(t *testing.T) {
	type own struct{ gin.ResponseWriter }
	for when, opt := range late {
		for _, tt := range []struct {
			name     string
			limit    int64
			handlers []gin.HandlerFunc
			code     int
		}{
			{"allowed", 9, nil, 201},
			{"refused", 0, nil, 429},
			{"a panic", 9, []gin.HandlerFunc{func(*gin.Context) { panic("handler") }}, 500},
			{"two limiters", 9, []gin.HandlerFunc{hour(8, opt, ginlimit.WithName("b"))}, 201},
			{"a writer between", 9, []gin.HandlerFunc{func(c *gin.Context) {
				before := c.Writer
				c.Writer = &own{before}
				c.Next()
				c.Writer = before
			}, hour(8, opt, ginlimit.WithName("b"))}, 201},
		} {
			t.Run(tt.name+", "+when, func(t *testing.T) {
				r := gin.New()
				handlers := append([]gin.HandlerFunc{func(c *gin.Context) {
					before := &own{c.Writer}
					c.Writer = before
					assert.False(t, before.Written())
					c.Next()
					assert.Equal(t, before, c.Writer.(*own))
					assert.Same(t, before, c.Writer)
					if tt.code != 500 {
						assert.True(t, before.Written())
						assert.Equal(t, tt.code, before.Status())
					}
				}, recovery, hour(tt.limit, opt)}, tt.handlers...)
				r.GET("/", append(handlers, func(c *gin.Context) { c.String(201, "created") })...)
				w := send(r)
				assert.Equal(t, tt.code, w.Code)
				assert.Len(t, w.Header().Values("RateLimit"), 1)
			})
		}
	}
}

// Writers as other middleware has them.
type (
	gzipWriter struct {
		gin.ResponseWriter
		z *gzip.Writer
	}
	captureWriter struct {
		gin.ResponseWriter
		body *bytes.Buffer
	}
)

func (w *gzipWriter) Write(b []byte) (int, error)       { return w.z.Write(b) }
func (w *gzipWriter) WriteString(s string) (int, error) { return w.z.Write([]byte(s)) }
func (w *captureWriter) Write(b []byte) (int, error) {
	w.body.Write(b)
	return w.ResponseWriter.Write(b)
}
func (w *captureWriter) WriteString(s string) (int, error) { return w.Write([]byte(s)) }

func zipped(c *gin.Context) {
	z := gzip.NewWriter(c.Writer)
	c.Writer = &gzipWriter{c.Writer, z}
	c.Header("Content-Encoding", "gzip")
	c.Next()
	_ = z.Close()
}

func captured(body *bytes.Buffer) gin.HandlerFunc {
	return func(c *gin.Context) {
		c.Writer = &captureWriter{c.Writer, body}
		c.Next()
	}
}

func plain(t *testing.T, w *httptest.ResponseRecorder) string {
	t.Helper()
	z, err := gzip.NewReader(w.Body)
	require.NoError(t, err)
	b, err := io.ReadAll(z)
	require.NoError(t, err)
	return string(b)
}

func TestWrappedWriters(t *testing.T) {
	var inner, outer bytes.Buffer
	for _, tt := range []struct {
		name          string
		before, after []gin.HandlerFunc
		zip           bool
	}{
		{"gzip before", []gin.HandlerFunc{zipped}, nil, true},
		{"gzip after", nil, []gin.HandlerFunc{zipped}, true},
		{"capture before", []gin.HandlerFunc{captured(&outer)}, nil, false},
		{"capture after", nil, []gin.HandlerFunc{captured(&inner)}, false},
		{"gzip around, and more", []gin.HandlerFunc{captured(&outer), zipped},
			[]gin.HandlerFunc{captured(&inner), hour(50), captured(&inner)}, true},
	} {
		for when, opt := range late {
			t.Run(tt.name+", "+when, func(t *testing.T) {
				inner.Reset()
				outer.Reset()
				var handlers []gin.HandlerFunc
				handlers = append(handlers, tt.before...)
				handlers = append(handlers, hour(1, opt))
				handlers = append(handlers, tt.after...)
				r := engine(append(handlers, func(c *gin.Context) {
					d, ok := ginlimit.FromContext(c)
					assert.True(t, ok)
					assert.EqualValues(t, 1, d.Limit.Count)
				})...)
				body := func(w *httptest.ResponseRecorder) string {
					if tt.zip && w.Header().Get("Content-Encoding") == "gzip" {
						return plain(t, w)
					}
					return w.Body.String()
				}
				w := send(r)
				assert.Equal(t, "0", w.Header().Get("X-RateLimit-Remaining"))
				assert.Equal(t, "ok", body(w))
				w = send(r)
				assert.Equal(t, 429, w.Code)
				problemOf(t, w.Header().Get("Content-Type"), []byte(body(w)))
			})
		}
	}
}

// TestFromContextBehindWriters: other middleware's writers hide no decision, and a limiter that
// stands twice charges once.
func TestFromContextBehindWriters(t *testing.T) {
	for when, opt := range late {
		t.Run(when, func(t *testing.T) {
			var seen watch
			l := must(ginlimit.NewLimiter(ginlimit.PerHour(10), ginlimit.Global(), opt,
				ginlimit.WithObserver(seen.observe), ginlimit.WithLogger(slog.New(slog.DiscardHandler))))
			r := engine(l.Handle, func(c *gin.Context) {
				plain, _ := gin.CreateTestContext(httptest.NewRecorder())
				before := c.Writer
				c.Writer = plain.Writer
				c.Next()
				c.Writer = before
			}, l.Handle, func(c *gin.Context) {
				for _, c := range []*gin.Context{c, c.Copy()} {
					d, ok := ginlimit.FromContext(c)
					assert.True(t, ok)
					assert.Equal(t, seen.last(), d)
				}
			})
			assert.Equal(t, "9", send(r).Header().Get("X-RateLimit-Remaining"))
			assert.Equal(t, "8", send(r).Header().Get("X-RateLimit-Remaining"), "charged once")
		})
	}
}

// TestBufferingMiddleware swaps the writer for the handlers and puts the old one back.
func TestBufferingMiddleware(t *testing.T) {
	for _, tt := range []struct {
		name  string
		order func(limiter, buffering gin.HandlerFunc) []gin.HandlerFunc
	}{
		{"before", func(l, b gin.HandlerFunc) []gin.HandlerFunc { return []gin.HandlerFunc{b, l} }},
		{"after", func(l, b gin.HandlerFunc) []gin.HandlerFunc { return []gin.HandlerFunc{l, b} }},
	} {
		for when, opt := range late {
			t.Run(tt.name+", "+when, func(t *testing.T) {
				r := engine(tt.order(hour(1, opt), func(c *gin.Context) {
					old := c.Writer
					rec := httptest.NewRecorder()
					buffer, _ := gin.CreateTestContext(rec)
					c.Writer = buffer.Writer
					c.Next()
					c.Writer = old
					for k, v := range rec.Header() {
						c.Writer.Header()[k] = v
					}
					c.Status(rec.Code)
					_, _ = c.Writer.Write(rec.Body.Bytes())
				})...)
				w := send(r)
				assert.Equal(t, "ok", w.Body.String())
				assert.Equal(t, "0", w.Header().Get("X-RateLimit-Remaining"))
				w = send(r)
				assert.Equal(t, 429, w.Code)
				assert.NotEmpty(t, w.Header().Get("Retry-After"))
				problemOf(t, w.Header().Get("Content-Type"), w.Body.Bytes())
			})
		}
	}
}

// ownHeader is a writer with a header of its own, which its middleware copies, as those that buffer
// a response have. Other methods are those of the writer behind it.
type ownHeader struct {
	gin.ResponseWriter
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *ownHeader) Header() http.Header         { return w.header }
func (w *ownHeader) WriteHeader(status int)      { w.status = status }
func (w *ownHeader) Write(p []byte) (int, error) { return w.body.Write(p) }

func withOwnHeader(c *gin.Context) {
	w := &ownHeader{ResponseWriter: c.Writer, header: http.Header{}}
	c.Writer = w
	c.Next()
	c.Writer = w.ResponseWriter
	for field, values := range w.header {
		c.Writer.Header()[field] = values
	}
	if w.status != 0 {
		c.Writer.WriteHeader(w.status)
	}
	_, _ = c.Writer.Write(w.body.Bytes())
}

func TestWriterWithItsOwnHeader(t *testing.T) {
	for when, opt := range late {
		t.Run(when, func(t *testing.T) {
			a := ginlimit.New(ginlimit.PerMinute(10), ginlimit.Global(), ginlimit.WithName("a"), opt)
			b := ginlimit.New(ginlimit.PerMinute(5), ginlimit.Global(), ginlimit.WithName("b"), opt)
			w := send(engine(a, withOwnHeader, b))
			assert.Equal(t, `"a";q=10;w=60, "b";q=5;w=60`, w.Header().Get("RateLimit-Policy"))
			assert.Equal(t, `"b";r=4;t=12`, w.Header().Get("RateLimit"))

			r := engine(withOwnHeader, hour(0, opt))
			for _, method := range []string{http.MethodGet, http.MethodHead} {
				q, err := http.NewRequest(method, served(t, r).URL, nil)
				require.NoError(t, err)
				res, err := http.DefaultClient.Do(q)
				require.NoError(t, err)
				_ = res.Body.Close()
				assert.Equal(t, 429, res.StatusCode, method)
				assert.Equal(t, "0", res.Header.Get("X-RateLimit-Remaining"), method)
			}
		})
	}
}

// proxyTo is a gateway's handler: a reverse proxy to a service.
func proxyTo(t *testing.T, service http.Handler) gin.HandlerFunc {
	target, err := url.Parse(served(t, service).URL)
	require.NoError(t, err)
	proxy := httputil.NewSingleHostReverseProxy(target)
	return func(c *gin.Context) { proxy.ServeHTTP(c.Writer, c.Request) }
}

// through sends a request over a connection, because a reverse proxy needs one.
func through(t *testing.T, r http.Handler) (*httptest.ResponseRecorder, map[string]string) {
	res, err := http.Get(served(t, r).URL)
	require.NoError(t, err)
	defer res.Body.Close()
	w := httptest.NewRecorder()
	w.Code = res.StatusCode
	for name, values := range res.Header {
		w.Header()[name] = values
	}
	_, _ = io.Copy(w.Body, res.Body)
	return w, fields(w)
}

// routed is an engine without middleware.
func routed(handlers ...gin.HandlerFunc) *gin.Engine {
	r := gin.New()
	r.GET("/", handlers...)
	return r
}

// TestLateHeaders: each field is there once, the limiter's prevail, and the policies of both are
// listed.
func TestLateHeaders(t *testing.T) {
	isLate := ginlimit.WithLateHeaders(true)
	limiter := func(name string, n int64, opts ...ginlimit.Option) *ginlimit.Limiter {
		return must(ginlimit.NewLimiter(ginlimit.PerHour(n).WithAlgorithm(backend.FixedWindow), ginlimit.Global(),
			append(opts, ginlimit.WithName(name), ginlimit.WithLogger(slog.New(slog.DiscardHandler)))...))
	}
	handle := func(name string, n int64, opts ...ginlimit.Option) gin.HandlerFunc {
		return limiter(name, n, opts...).Handle
	}
	service := func(n int64) http.Handler {
		return routed(handle("svc", n, ginlimit.WithHeaders(ginlimit.HeadersIETF|ginlimit.HeadersLegacyEpoch)), answer)
	}
	odd := func(c *gin.Context) {
		for _, tt := range []struct {
			name   string
			values []string
		}{
			{"RateLimit-Policy", []string{`"a,\"b\";q=1";q=1;w=1 ,"c";q=2;w=2`, ``, `, "d";q=3;w=3,`}},
			{"RateLimit", []string{`"c";r=1`, `"d";r=2`}},
			{"X-RateLimit-Limit", []string{"7", "8"}},
			{"X-RateLimit-Remaining", []string{"7", "8"}},
			{"X-RateLimit-Reset", []string{"7", "8"}},
		} {
			for _, v := range tt.values {
				c.Writer.Header().Add(tt.name, v)
			}
		}
		answer(c)
	}
	const gw, svc = `"gw";q=100;w=3600`, `"svc";q=5;w=3600`
	ours := map[string]string{"RateLimit-Policy": gw + ", " + svc, "RateLimit": `"gw";r=99;t=3600`,
		"X-RateLimit-Limit": "100", "X-RateLimit-Remaining": "99", "X-RateLimit-Reset": "3600"}
	with := func(edits map[string]string) map[string]string {
		want := maps.Clone(ours)
		maps.Copy(want, edits)
		return want
	}
	same := limiter("gw", 100, isLate)
	responded := limiter("gw", 100, isLate)
	checked := limiter("gw", 100, isLate)
	for _, tt := range []struct {
		name string
		r    http.Handler
		want map[string]string
	}{
		{"a gateway", routed(handle("gw", 100, isLate), proxyTo(t, service(5))), ours},
		{"a gateway with two limiters", routed(handle("a", 1000, isLate), handle("gw", 100, isLate),
			proxyTo(t, service(5))),
			with(map[string]string{"RateLimit-Policy": `"a";q=1000;w=3600, ` + gw + ", " + svc})},
		{"a gateway with one late limiter, the first",
			routed(handle("gw", 100, isLate), handle("b", 1000), proxyTo(t, service(5))),
			with(map[string]string{"RateLimit-Policy": gw + `, "b";q=1000;w=3600, ` + svc})},
		{"a gateway with one late limiter, the last",
			routed(handle("b", 1000), handle("gw", 100, isLate), proxyTo(t, service(5))),
			with(map[string]string{"RateLimit-Policy": `"b";q=1000;w=3600, ` + gw + ", " + svc})},
		{"a gateway that shows the draft's fields only",
			routed(handle("gw", 100, isLate, ginlimit.WithHeaders(ginlimit.HeadersIETF)), odd),
			map[string]string{"RateLimit-Policy": gw + `, "a,\"b\";q=1";q=1;w=1, "c";q=2;w=2, "d";q=3;w=3`,
				"RateLimit":         `"gw";r=99;t=3600`,
				"X-RateLimit-Limit": "7 | 8", "X-RateLimit-Remaining": "7 | 8", "X-RateLimit-Reset": "7 | 8"}},
		{"fields of all kinds", routed(handle("gw", 100, isLate), odd),
			with(map[string]string{"RateLimit-Policy": gw + `, "a,\"b\";q=1";q=1;w=1, "c";q=2;w=2, "d";q=3;w=3`})},
		{"the policy of the gateway itself", routed(handle("gw", 100, isLate),
			proxyTo(t, routed(handle("gw", 100), answer))),
			with(map[string]string{"RateLimit-Policy": gw})},
		{"an engine in an engine", routed(handle("gw", 100, isLate), gin.WrapH(service(5))), ours},
		{"an engine in an engine, both late",
			routed(handle("gw", 100, isLate), gin.WrapH(routed(handle("svc", 5, isLate), answer))),
			with(map[string]string{"RateLimit": `"svc";r=4;t=3600`, "X-RateLimit-Limit": "5",
				"X-RateLimit-Remaining": "4"})},
		{"an engine in an engine, the inner late",
			routed(handle("gw", 100), gin.WrapH(routed(handle("svc", 5, isLate), answer))),
			map[string]string{"RateLimit-Policy": svc + ", " + gw, "RateLimit": `"svc";r=4;t=3600`,
				"X-RateLimit-Limit": "5", "X-RateLimit-Remaining": "4", "X-RateLimit-Reset": "3600"}},
		{"the same limiter in both engines", routed(same.Handle, gin.WrapH(routed(same.Handle, answer))),
			with(map[string]string{"RateLimit-Policy": gw, "RateLimit": `"gw";r=98;t=3600`,
				"X-RateLimit-Remaining": "98"})},
		{"the same limiter charged again", routed(checked.Handle,
			func(c *gin.Context) { checked.Check(c); checked.Check(c); answer(c) }),
			with(map[string]string{"RateLimit-Policy": gw, "RateLimit": `"gw";r=97;t=3600`,
				"X-RateLimit-Remaining": "97"})},
		{"the same limiter charged after Respond", routed(func(c *gin.Context) {
			responded.Respond(c, responded.Check(c))
			responded.Check(c)
			answer(c)
		}), with(map[string]string{"RateLimit-Policy": gw, "RateLimit": `"gw";r=98;t=3600`, "X-RateLimit-Remaining": "98"})},
		{"nobody else's fields", routed(handle("gw", 100, isLate), answer),
			with(map[string]string{"RateLimit-Policy": gw})},
		{"a dry run", routed(handle("gw", 100, isLate, ginlimit.WithDryRun(true)), func(c *gin.Context) {
			c.Header("X-RateLimit-Limit", "7")
			answer(c)
		}), map[string]string{"X-RateLimit-Limit": "7"}},
		{"unlimited", routed(ginlimit.New(ginlimit.Unlimited(), ginlimit.Global(), isLate), func(c *gin.Context) {
			c.Header("RateLimit", `"svc";r=7`)
			answer(c)
		}), map[string]string{"RateLimit": `"svc";r=7`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, got := through(t, tt.r)
			assert.Equal(t, 200, w.Code)
			assert.Equal(t, "ok", w.Body.String())
			for _, field := range []string{"X-RateLimit-Reset", "RateLimit"} { // the clock is a real one
				got[field] = regexp.MustCompile(`\b3(599|598|597)$`).ReplaceAllString(got[field], "3600")
				if got[field] == "" {
					delete(got, field)
				}
			}
			assert.Equal(t, tt.want, got)
		})
	}
}

// TestAWriterThatStays: what a later handler leaves in c.Writer is not the limiter's to take out.
func TestAWriterThatStays(t *testing.T) {
	type own struct{ gin.ResponseWriter }
	for when, opt := range late {
		t.Run(when, func(t *testing.T) {
			w := send(engine(func(c *gin.Context) {
				c.Next()
				assert.IsType(t, &own{}, c.Writer)
			}, hour(9, opt), func(c *gin.Context) { c.Writer = &own{c.Writer} }))
			assert.Equal(t, "8", w.Header().Get("X-RateLimit-Remaining"))
		})
	}
}

// TestLateHeadersOfACache: a page that is replayed to another caller does not show the first one's
// figures.
func TestLateHeadersOfACache(t *testing.T) {
	var kept http.Header
	cache := func(c *gin.Context) {
		if kept == nil {
			c.Next()
			kept = c.Writer.Header().Clone()
			return
		}
		for name, values := range kept {
			for _, v := range values {
				c.Writer.Header().Add(name, v)
			}
		}
		c.String(200, "ok")
		c.Abort()
	}
	r := engine(ginlimit.New(ginlimit.PerDay(9).WithAlgorithm(backend.FixedWindow), byHeader,
		ginlimit.WithLateHeaders(true)), cache)
	for _, step := range []struct{ key, remaining string }{{"ann", "8"}, {"ann", "7"}, {"bob", "8"}, {"ann", "6"}} {
		w := send(r, header("Key", step.key))
		assert.Equal(t, map[string]string{"RateLimit-Policy": `"default";q=9;w=86400`,
			"RateLimit":         `"default";r=` + step.remaining + `;t=86400`,
			"X-RateLimit-Limit": "9", "X-RateLimit-Remaining": step.remaining, "X-RateLimit-Reset": "86400"}, fields(w))
	}
}

// TestLateHeadersAndRetryAfter: what a handler says of when to come back stays, unless the limiter
// knows better.
func TestLateHeadersAndRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(http.TimeFormat) }
		down := ginlimit.New(ginlimit.PerDay(9), ginlimit.Global(), ginlimit.WithName("down"),
			ginlimit.WithBackend(failing(backend.ErrUnavailable)), ginlimit.WithFailurePolicy(ginlimit.FailClosed))
		says := func(wait string) gin.HandlerFunc {
			return func(c *gin.Context) {
				c.Header("Retry-After", wait)
				c.String(503, "busy")
			}
		}
		for _, tt := range []struct {
			name   string
			count  int64
			handle gin.HandlerFunc
			want   string
		}{
			{"longer", 1, says("120"), "120"},
			{"shorter", 1, says("5"), "60"},
			{"shorter, and something is left", 2, says("5"), "5"},
			{"a date that is later", 1, says(in(2 * time.Minute)), in(2 * time.Minute)},
			{"a date that is too early", 1, says(in(5 * time.Second)), "60"},
			{"a date that is over", 1, says(in(-time.Hour)), "60"},
			{"no time at all", 1, says("soon"), "soon"},
			{"none", 1, answer, ""},
			{"a limiter of a mounted engine", 1, gin.WrapH(engine(down)), "60"},
		} {
			gw := ginlimit.New(ginlimit.PerMinute(tt.count), ginlimit.Global(), ginlimit.WithLateHeaders(true))
			w := send(routed(gw, tt.handle))
			assert.Equal(t, tt.want, w.Header().Get("Retry-After"), tt.name)
		}
	})
}

// TestLateHeadersOfARefusal: a service's 429 keeps its own Retry-After, and one of the limiter's
// own is as without the option.
func TestLateHeadersOfARefusal(t *testing.T) {
	r := routed(hour(2, ginlimit.WithLateHeaders(true), ginlimit.WithName("gw")), func(c *gin.Context) {
		c.Header("Retry-After", "7")
		c.Header("RateLimit", `"svc";r=0;t=7`)
		c.String(429, "busy")
	})
	w := send(r)
	assert.Equal(t, "busy", w.Body.String())
	assert.Equal(t, "7", w.Header().Get("Retry-After"))
	assert.Contains(t, w.Header().Get("RateLimit"), `"gw";r=1`)
	send(r)
	w = send(r)
	assert.Equal(t, 429, w.Code)
	problemOf(t, w.Header().Get("Content-Type"), w.Body.Bytes())
	assert.Contains(t, w.Header().Get("RateLimit"), `"gw";r=0`)
	assert.Equal(t, "1800", w.Header().Get("Retry-After"))
}

// TestLateHeadersAndHints: a reverse proxy clears all fields after a response of 1xx.
func TestLateHeadersAndHints(t *testing.T) {
	hinting := routed(func(c *gin.Context) {
		c.Header("Link", "</style.css>")
		w := c.Writer.(interface{ Unwrap() http.ResponseWriter }).Unwrap()
		w.WriteHeader(http.StatusEarlyHints)
		answer(c)
	})
	w, got := through(t, routed(hour(9, ginlimit.WithLateHeaders(true)), proxyTo(t, hinting)))
	assert.Equal(t, 200, w.Code)
	assert.Equal(t, "8", got["X-RateLimit-Remaining"])
}
