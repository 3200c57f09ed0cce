package ginlimit_test

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/assert"

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
		"several": {limits{ginlimit.PerSecond(10), ginlimit.PerMinute(100), ginlimit.PerHour(5000), ginlimit.PerDay(100000), ginlimit.Per(9, 36*time.Hour)}, "",
			`"10-per-1s";q=10;w=1, "100-per-1m";q=100;w=60, "5000-per-1h";q=5000;w=3600, "100000-per-1d";q=100000;w=86400, "9-per-36h";q=9;w=129600`,
			`"9-per-36h";r=8;t=14400`},
		"several with names": {limits{ginlimit.PerSecond(10).Named("burst"), ginlimit.PerMinute(5)}, "api",
			`"burst";q=10;w=1, "5-per-1m";q=5;w=60`, `"5-per-1m";r=4;t=12`},
		"same twice": {limits{ginlimit.PerMinute(5), ginlimit.PerMinute(5)}, "",
			`"5-per-1m";q=5;w=60, "5-per-1m-2";q=5;w=60`, `"5-per-1m";r=4;t=12`},
		"an explicit name like an automatic one": {limits{ginlimit.PerMinute(5), ginlimit.PerDay(7).Named("5-per-1m")}, "",
			`"5-per-1m-2";q=5;w=60, "5-per-1m";q=7;w=86400`, `"5-per-1m-2";r=4;t=12`},
		"below a second":    {limits{ginlimit.Per(2, 7*time.Millisecond)}, "", `"default";q=2;w=1`, `"default";r=1;t=1`},
		"rounded up":        {limits{ginlimit.Per(1, 1500*time.Millisecond)}, "", `"default";q=1;w=2`, `"default";r=0;t=2`},
		"1 µs above":        {limits{ginlimit.Per(1, time.Second+time.Microsecond)}, "", `"default";q=1;w=2`, `"default";r=0;t=2`},
		"odd periods":       {limits{ginlimit.Per(2, 1500*time.Millisecond), ginlimit.Per(3, 2*time.Second+time.Microsecond)}, "", `"2-per-1500ms";q=2;w=2, "3-per-2000001us";q=3;w=3`, `"2-per-1500ms";r=1;t=1`},
		"burst":             {limits{ginlimit.PerMinute(60).WithBurst(5)}, "", `"default";q=60;w=60`, `"default";r=4;t=1`},
		"sliding window":    {limits{ginlimit.PerMinute(60).WithAlgorithm(backend.SlidingWindow)}, "", `"default";q=60;w=60`, `"default";r=59;t=120`},
		"sliding log":       {limits{ginlimit.PerMinute(60).WithAlgorithm(backend.SlidingLog)}, "", `"default";q=60;w=60`, `"default";r=59;t=60`},
		"fixed window":      {limits{ginlimit.PerMinute(60).WithAlgorithm(backend.FixedWindow)}, "", `"default";q=60;w=60`, `"default";r=59;t=60`},
		"largest":           {limits{ginlimit.Per(backend.MaxCount, 366*24*time.Hour)}, "", `"default";q=999999999999999;w=31622400`, `"default";r=999999999999998;t=1`},
		"one of them none":  {limits{ginlimit.Unlimited(), ginlimit.PerMinute(5)}, "", `"5-per-1m";q=5;w=60`, `"5-per-1m";r=4;t=12`},
		"name to be quoted": {limits{ginlimit.PerMinute(5)}, `a "b" \c;r=1, `, `"a \"b\" \\c;r=1, ";q=5;w=60`, `"a \"b\" \\c;r=1, ";r=4;t=12`},
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
	w := send(engine(ginlimit.New(ginlimit.Unlimited(), ginlimit.Global(), ginlimit.WithCost(func(*gin.Context) int64 { return 1 << 62 }))))
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
			"RateLimit-Policy": a + ", " + b, "RateLimit": `"b";r=0;t=1800`, "Retry-After": "1800", "Cache-Control": "no-store",
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
			ginlimit.New(ginlimit.PerMinute(2), ginlimit.Global(), ginlimit.WithName("i"), ginlimit.WithHeaders(ginlimit.HeadersIETF)),
			ginlimit.New(ginlimit.PerMinute(6), ginlimit.Global(), ginlimit.WithName("l"), ginlimit.WithHeaders(ginlimit.HeadersLegacy)))
		assert.Equal(t, map[string]string{
			"RateLimit-Policy": `"i";q=2;w=60`, "RateLimit": `"i";r=1;t=30`,
			"X-RateLimit-Limit": "6", "X-RateLimit-Remaining": "5", "X-RateLimit-Reset": "10",
		}, fields(send(r)))
	})
}

func TestExposeHeaders(t *testing.T) {
	const all = "Retry-After, RateLimit, RateLimit-Policy, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset"
	const expose = "Access-Control-Expose-Headers"
	for name, tt := range map[string]struct {
		have []string
		opts []ginlimit.Option
		want []string
	}{
		"absent":         {nil, nil, nil},
		"present":        {[]string{"X-Request-Id"}, nil, []string{"X-Request-Id, " + all}},
		"empty":          {[]string{""}, nil, []string{all}},
		"star":           {[]string{"*"}, nil, []string{"*"}},
		"star in list":   {[]string{"X-A, *"}, nil, []string{"X-A, *"}},
		"lines":          {[]string{"X-A", "X-B,X-C"}, nil, []string{"X-A, X-B,X-C, " + all}},
		"some there":     {[]string{"ratelimit,RETRY-AFTER"}, nil, []string{"ratelimit,RETRY-AFTER, RateLimit-Policy, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset"}},
		"all there":      {[]string{all}, nil, []string{all}},
		"part of a name": {[]string{"X-RateLimit"}, nil, []string{"X-RateLimit, " + all}},
		"only IETF": {[]string{"X-A"}, []ginlimit.Option{ginlimit.WithHeaders(ginlimit.HeadersIETF)},
			[]string{"X-A, Retry-After, RateLimit, RateLimit-Policy"}},
		"only legacy": {[]string{"X-A"}, []ginlimit.Option{ginlimit.WithHeaders(ginlimit.HeadersLegacyEpoch)},
			[]string{"X-A, Retry-After, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset"}},
		"dry run": {[]string{"X-A"}, []ginlimit.Option{ginlimit.WithDryRun(true)}, []string{"X-A"}},
	} {
		t.Run(name, func(t *testing.T) {
			shared := append(make([]string, 0, 8), tt.have...) // with room, so that an append would write into it
			before := slices.Clone(shared[:8])
			limiter := ginlimit.New(ginlimit.PerDay(9), ginlimit.Global(), tt.opts...)
			r := engine(func(c *gin.Context) {
				if tt.have != nil {
					c.Writer.Header()[expose] = shared
				}
			}, limiter, ginlimit.New(ginlimit.PerDay(9), ginlimit.Global(), append(tt.opts, ginlimit.WithName("second"))...))
			for range 3 {
				assert.ElementsMatch(t, tt.want, send(r).Header().Values(expose))
				assert.Equal(t, before, shared[:8])
			}
		})
	}
}

// TestExposeHeadersOfDenials: a browser's script must be able to read how long to wait, whatever the reason.
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

// TestSharedHeaderValues: what middleware adds to a field, or writes over it, must not show in the next response.
func TestSharedHeaderValues(t *testing.T) {
	r := engine(func(c *gin.Context) {
		c.Next()
		for _, field := range []string{"RateLimit-Policy", "RateLimit", "X-RateLimit-Limit", "Cache-Control", "Content-Type", "Access-Control-Expose-Headers"} {
			values := c.Writer.Header()[field]
			if values == nil {
				values = c.Writer.Header()[http.CanonicalHeaderKey(field)]
			}
			if assert.NotEmpty(t, values, field) {
				values[0] += "written over"
			}
			c.Writer.Header().Add(field, "more")
		}
	}, func(c *gin.Context) { c.Header("Access-Control-Expose-Headers", "X-A") }, ginlimit.New(ginlimit.PerMinute(0), ginlimit.Global()))
	first := send(r).Header().Clone()
	assert.Equal(t, first, send(r).Header())
	assert.Equal(t, first, send(r).Header())
}

// TestNothingIsExposedOfAFailure: a failure that passes writes no fields, so that none is exposed.
func TestNothingIsExposedOfAFailure(t *testing.T) {
	w := send(engine(func(c *gin.Context) { c.Header("Access-Control-Expose-Headers", "X-A") },
		ginlimit.New(ginlimit.PerDay(1), ginlimit.Global(), ginlimit.WithName("x"), ginlimit.WithBackend(failing(backend.ErrUnavailable)))))
	assert.Equal(t, http.StatusOK, w.Code)
	assert.Equal(t, "X-A", w.Header().Get("Access-Control-Expose-Headers"))
}
