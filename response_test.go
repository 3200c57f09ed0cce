package ginlimit_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/backend"
)

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

func TestWhatCanNeverPass(t *testing.T) {
	for name, tt := range map[string]struct {
		limit ginlimit.Limit
		cost  int64
	}{
		"cost above the count": {ginlimit.PerMinute(3), 4},
		"cost above the burst": {ginlimit.PerMinute(30).WithBurst(3), 4},
		"window":               {ginlimit.PerMinute(3).WithAlgorithm(backend.SlidingWindow), 4},
		"log":                  {ginlimit.PerMinute(3).WithAlgorithm(backend.SlidingLog), 1 << 62},
		"count 0":              {ginlimit.PerMinute(0), 1},
		"count 0, cost 0":      {ginlimit.PerMinute(0), 0},
		"count 0 in a window":  {ginlimit.PerMinute(0).WithAlgorithm(backend.FixedWindow), 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := engine(ginlimit.New(tt.limit, ginlimit.Global(), ginlimit.WithCost(func(*gin.Context) int64 { return tt.cost })))
			w := send(r)
			assert.Equal(t, 429, w.Code)
			assert.Equal(t, "no-store", w.Header().Get("Cache-Control"))
			assert.NotContains(t, w.Header(), "Retry-After")
			assert.Equal(t, fmt.Sprint(tt.limit.Capacity()), w.Header().Get("X-RateLimit-Remaining"), "nothing was charged")
			got := problemOf(t, w.Header().Get("Content-Type"), w.Body.Bytes())
			assert.Equal(t, []any{"default"}, got["violated-policies"])
			assert.NotContains(t, got["detail"], "try again")
		})
	}
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
		"ErrNoKey":                   {fails(ginlimit.ErrNoKey), nil, 400, 400, ginlimit.ErrNoKey},
		"wrapped ErrNoKey":           {fails(fmt.Errorf("who? %w", ginlimit.ErrNoKey)), nil, 400, 400, ginlimit.ErrNoKey},
		"empty key":                  {func(*gin.Context) (string, error) { return "", nil }, nil, 400, 400, ginlimit.ErrNoKey},
		"negative cost":              {ginlimit.Global(), []ginlimit.Option{cost(-1)}, 400, 400, nil},
		"KeyFunc fails":              {fails(errOther), nil, 200, 503, errOther},
		"backend down":               {ginlimit.Global(), store(down), 200, 503, backend.ErrUnavailable},
		"backend broken":             {ginlimit.Global(), store(errOther), 503, 503, errOther},
		"KeyFunc fails, as backends": {fails(down), nil, 200, 503, backend.ErrUnavailable},
		"context ended":              {ginlimit.Global(), store(context.Canceled), 503, 503, context.Canceled},
	} {
		for policy, code := range map[ginlimit.FailurePolicy]int{ginlimit.FailOpen: tt.open, ginlimit.FailClosed: tt.closed} {
			for _, dry := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, policy %d, dry run %v", name, policy, dry), func(t *testing.T) {
					code := code
					if dry {
						code = 200
					}
					var seen watch
					r := engine(ginlimit.New(ginlimit.PerMinute(1), tt.key, append(tt.opts,
						ginlimit.WithFailurePolicy(policy), ginlimit.WithDryRun(dry), ginlimit.WithObserver(seen.observe))...))
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
						assert.Equal(t, "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity", body["type"])
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
		"WithSkip":       {ginlimit.Global(), []ginlimit.Option{ginlimit.WithSkip(func(*gin.Context) bool { return true })}},
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
				l := must(ginlimit.NewLimiter(ginlimit.PerMinute(0), tt.key, append(tt.opts, ginlimit.WithDryRun(dry), ginlimit.WithFailurePolicy(ginlimit.FailClosed),
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
	r := engine(ginlimit.New(ginlimit.PerDay(1), ginlimit.Global(), ginlimit.WithDryRun(true), ginlimit.WithObserver(seen.observe)))
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
		"503": {ginlimit.Global(), []ginlimit.Option{ginlimit.WithName("x"), ginlimit.WithBackend(failing(backend.ErrUnavailable)),
			ginlimit.WithFailurePolicy(ginlimit.FailClosed)}, 503, "false true", `{"wait":"5"}`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ran := 0
				r := engine(ginlimit.New(ginlimit.PerDay(1), tt.key, append(tt.opts, deny)...), func(*gin.Context) { ran++ })
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
