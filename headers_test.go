package ginlimit_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
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
	for name, tt := range map[string]struct {
		limits       limits
		name         string
		policy, rate string
	}{
		"one":            {limits{ginlimit.PerMinute(100)}, "", `"default";q=100;w=60`, `"default";r=99;t=1`},
		"limiter's name": {limits{ginlimit.PerHour(60)}, "api", `"api";q=60;w=3600`, `"api";r=59;t=60`},
		"limit's name":   {limits{ginlimit.PerHour(60).Named("own")}, "api", `"own";q=60;w=3600`, `"own";r=59;t=60`},
		"several": {limits{ginlimit.PerSecond(10), ginlimit.PerMinute(100), ginlimit.PerHour(5000),
			ginlimit.PerDay(100000), ginlimit.Per(9, 36*time.Hour)}, "",
			`"10-per-1s";q=10;w=1, "100-per-1m";q=100;w=60, "5000-per-1h";q=5000;w=3600, ` +
				`"100000-per-1d";q=100000;w=86400, "9-per-36h";q=9;w=129600`,
			`"9-per-36h";r=8;t=14400`},
		"several with names": {limits{ginlimit.PerSecond(10).Named("burst"), ginlimit.PerMinute(5)}, "api",
			`"burst";q=10;w=1, "5-per-1m";q=5;w=60`, `"5-per-1m";r=4;t=12`},
		"same twice": {limits{ginlimit.PerMinute(5), ginlimit.PerMinute(5)}, "",
			`"5-per-1m";q=5;w=60, "5-per-1m-2";q=5;w=60`, `"5-per-1m";r=4;t=12`},
		"an explicit name like an automatic one": {limits{ginlimit.PerMinute(5), ginlimit.PerDay(7).Named("5-per-1m")},
			"",
			`"5-per-1m-2";q=5;w=60, "5-per-1m";q=7;w=86400`, `"5-per-1m-2";r=4;t=12`},
		"far below a second": {limits{ginlimit.Per(1, 7*time.Millisecond)}, "", `"default";q=142;w=1`,
			`"default";r=0;t=1`},
		"most below a second": {limits{ginlimit.Per(backend.MaxCount, time.Millisecond)}, "",
			`"default";q=999999999999999;w=1`, `"default";r=999999999999998;t=1`},
		"below a second": {limits{ginlimit.Per(2, 7*time.Millisecond)}, "", `"default";q=285;w=1`,
			`"default";r=1;t=1`},
		"rounded up": {limits{ginlimit.Per(1, 1500*time.Millisecond)}, "", `"default";q=1;w=2`,
			`"default";r=0;t=2`},
		"1 µs above": {limits{ginlimit.Per(1, time.Second+time.Microsecond)}, "", `"default";q=1;w=2`,
			`"default";r=0;t=2`},
		"odd periods": {limits{ginlimit.Per(2, 1500*time.Millisecond),
			ginlimit.Per(3, 2*time.Second+time.Microsecond)}, "",
			`"2-per-1500ms";q=2;w=2, "3-per-2000001us";q=4;w=3`, `"2-per-1500ms";r=1;t=1`},
		"burst": {limits{ginlimit.PerMinute(60).WithBurst(5)}, "", `"default";q=60;w=60`,
			`"default";r=4;t=1`},
		"sliding window": {limits{ginlimit.PerMinute(60).WithAlgorithm(backend.SlidingWindow)}, "",
			`"default";q=60;w=60`, `"default";r=59;t=120`},
		"sliding log": {limits{ginlimit.PerMinute(60).WithAlgorithm(backend.SlidingLog)}, "",
			`"default";q=60;w=60`, `"default";r=59;t=60`},
		"fixed window": {limits{ginlimit.PerMinute(60).WithAlgorithm(backend.FixedWindow)}, "",
			`"default";q=60;w=60`, `"default";r=59;t=60`},
		"largest": {limits{ginlimit.Per(backend.MaxCount, 366*24*time.Hour)}, "",
			`"default";q=999999999999999;w=31622400`, `"default";r=999999999999998;t=1`},
		"one of them none": {limits{ginlimit.Unlimited(), ginlimit.PerMinute(5)}, "", `"5-per-1m";q=5;w=60`,
			`"5-per-1m";r=4;t=12`},
		"name to be quoted": {limits{ginlimit.PerMinute(5)}, `a "b" \c;r=1, `, `"a \"b\" \\c;r=1, ";q=5;w=60`,
			`"a \"b\" \\c;r=1, ";r=4;t=12`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				opts := []ginlimit.Option{ginlimit.WithLimits(tt.limits[1:]...)}
				if tt.name != "" {
					opts = append(opts, ginlimit.WithName(tt.name))
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
	for name, tt := range map[string]struct {
		code int
		opts []ginlimit.Option
	}{
		"429":                    {429, nil},
		"429 without the others": {429, []ginlimit.Option{ginlimit.WithHeaders(ginlimit.HeadersNone)}},
		"503": {503, []ginlimit.Option{ginlimit.WithName("x"), ginlimit.WithFailurePolicy(ginlimit.FailClosed),
			ginlimit.WithBackend(failing(backend.ErrUnavailable))}},
	} {
		t.Run(name, func(t *testing.T) {
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
	for name, limit := range map[string]ginlimit.Limit{
		"token bucket":    ginlimit.Per(3, 10*time.Second),
		"uneven bucket":   ginlimit.PerMinute(7).WithBurst(2),
		"leaky bucket":    ginlimit.PerMinute(6).WithBurst(1),
		"sliding window":  ginlimit.Per(3, 10*time.Second).WithAlgorithm(backend.SlidingWindow),
		"sliding log":     ginlimit.Per(3, 10*time.Second).WithAlgorithm(backend.SlidingLog),
		"fixed window":    ginlimit.Per(3, 10*time.Second).WithAlgorithm(backend.FixedWindow),
		"uneven period":   ginlimit.Per(3, 10*time.Second+7*time.Microsecond).WithAlgorithm(backend.FixedWindow),
		"below a second":  ginlimit.Per(3, 900*time.Millisecond).WithAlgorithm(backend.FixedWindow),
		"exactly one":     ginlimit.PerSecond(1),
		"an hour's worth": ginlimit.PerHour(5).WithAlgorithm(backend.SlidingLog),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := engine(ginlimit.New(limit, ginlimit.Global()))
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
	for name, tt := range map[string]struct {
		key          ginlimit.KeyFunc
		opts         []ginlimit.Option
		open, closed int
		is           error
	}{
		"ErrNoKey": {fails(ginlimit.ErrNoKey), nil, 400, 400, ginlimit.ErrNoKey},
		"wrapped ErrNoKey": {fails(fmt.Errorf("who? %w", ginlimit.ErrNoKey)), nil, 400, 400,
			ginlimit.ErrNoKey},
		"empty key": {func(*gin.Context) (string, error) { return "", nil }, nil, 400, 400,
			ginlimit.ErrNoKey},
		"negative cost":              {ginlimit.Global(), []ginlimit.Option{cost(-1)}, 400, 400, nil},
		"KeyFunc fails":              {fails(errOther), nil, 200, 503, errOther},
		"backend down":               {ginlimit.Global(), store(down), 200, 503, backend.ErrUnavailable},
		"backend broken":             {ginlimit.Global(), store(errOther), 503, 503, errOther},
		"KeyFunc fails, as backends": {fails(down), nil, 200, 503, backend.ErrUnavailable},
		"context ended":              {ginlimit.Global(), store(context.Canceled), 503, 503, context.Canceled},
	} {
		for policy, code := range map[ginlimit.FailurePolicy]int{ginlimit.FailOpen: tt.open,
			ginlimit.FailClosed: tt.closed} {
			for _, dry := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, policy %d, dry run %v", name, policy, dry), func(t *testing.T) {
					code := code
					if dry {
						code = 200
					}
					var seen watch
					r := engine(ginlimit.New(ginlimit.PerMinute(1), tt.key, append(tt.opts,
						ginlimit.WithFailurePolicy(policy), ginlimit.WithDryRun(dry),
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
	for name, tt := range map[string]struct {
		key  ginlimit.KeyFunc
		opts []ginlimit.Option
	}{
		"WithSkip": {ginlimit.Global(),
			[]ginlimit.Option{ginlimit.WithSkip(func(*gin.Context) bool { return true })}},
		"key":            {skips, nil},
		"key in Join":    {ginlimit.Join(ginlimit.Global(), skips), nil},
		"key in FirstOf": {ginlimit.FirstOf(skips, ginlimit.Global()), nil},
		"tier": {ginlimit.Global(), []ginlimit.Option{ginlimit.WithTier(func(*gin.Context) (ginlimit.Tier, error) {
			return ginlimit.Tier{}, fmt.Errorf("staff: %w", ginlimit.ErrSkip)
		})}},
	} {
		for _, dry := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, dry run %v", name, dry), func(t *testing.T) {
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
	for name, tt := range map[string]struct {
		key       ginlimit.KeyFunc
		opts      []ginlimit.Option
		code      int
		why, body string
	}{
		"429": {ginlimit.Global(), nil, 429, "false false", `{"wait":"86400"}`},
		"400": {byHeader, nil, 400, "true false", `{"wait":""}`},
		"503": {ginlimit.Global(), []ginlimit.Option{ginlimit.WithName("x"),
			ginlimit.WithBackend(failing(backend.ErrUnavailable)),
			ginlimit.WithFailurePolicy(ginlimit.FailClosed)}, 503, "false true", `{"wait":"5"}`},
	} {
		t.Run(name, func(t *testing.T) {
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
	params map[string]int64
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
	item.params = map[string]int64{}
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
		s = s[n+1:]
		for n = 0; n < len(s) && (s[n] >= '0' && s[n] <= '9' || n == 0 && s[n] == '-'); {
			n++
		}
		number, err := strconv.ParseInt(s[:n], 10, 64)
		if err != nil || strconv.FormatInt(number, 10) != s[:n] || len(strings.TrimPrefix(s[:n], "-")) > 15 {
			return item, "", fmt.Errorf("want an integer at %q", s)
		}
		if _, twice := item.params[key]; twice {
			return item, "", fmt.Errorf("parameter %q stands there twice", key)
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
	list, err := parseSFList(`"a \"b\" \\";q=100;w=60, "";x*_-.9=-5, "c"`)
	assert.NoError(t, err)
	assert.Equal(t, []sfItem{
		{`a "b" \`, map[string]int64{"q": 100, "w": 60}},
		{"", map[string]int64{"x*_-.9": -5}},
		{"c", map[string]int64{}},
	}, list)
	for _, bad := range []string{
		``, ` `, `a`, `"a`, `"a" `, ` "a"`, `"a","b"`, `"a" , "b"`, `"a",  "b"`, `"a", `, `"a",`, `"a"; q=1`,
		`"a";q =1`, `"a";q= 1`, `"a";Q=1`, `"a";1=1`, `"a";q`, `"a";q=`, `"a";q=-`, `"a";q=+1`, `"a";q=01`, `"a";q=-0`,
		`"a";q=1.5`, `"a";q=1;q=1`,
		`"a";q=1000000000000000`, "\"\x7f\"", "\"\n\"", `"é"`, `"\n"`, `"\`, `"a"x`, `a="b"`,
	} {
		_, err := parseSFList(bad)
		assert.Error(t, err, bad)
	}
}
