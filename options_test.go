package ginlimit_test

import (
	"context"
	"fmt"
	"math"
	"strings"
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

func TestNewLimiterRefuses(t *testing.T) {
	ok, by := ginlimit.PerMinute(1), ginlimit.Global()
	type opts = []ginlimit.Option
	for _, tt := range []struct {
		name  string
		limit ginlimit.Limit
		key   ginlimit.KeyFunc
		opts  opts
	}{
		{"nil key", ok, nil, nil},
		{"nil option", ok, by, opts{nil}},
		{"nil option after another", ok, by, opts{ginlimit.WithDryRun(true), nil}},
		{"zero limit", ginlimit.Limit{}, by, nil},
		{"negative count", ginlimit.PerMinute(-1), by, nil},
		{"huge count", ginlimit.PerMinute(backend.MaxCount + 1), by, nil},
		{"no period", ginlimit.Per(1, 0), by, nil},
		{"negative period", ginlimit.Per(1, -time.Second), by, nil},
		{"short period", ginlimit.Per(1, time.Millisecond-time.Microsecond), by, nil},
		{"long period", ginlimit.Per(1, 367*24*time.Hour), by, nil},
		{"period of nanoseconds", ginlimit.Per(1, time.Second+1), by, nil},
		{"negative burst", ok.WithBurst(-1), by, nil},
		{"huge burst", ok.WithBurst(backend.MaxCount + 1), by, nil},
		{"burst that never fills", ginlimit.PerDay(1).WithBurst(1_000_000), by, nil},
		{"burst and nothing to refill", ginlimit.PerDay(0).WithBurst(1), by, nil},
		{"burst of a window", ok.WithAlgorithm(backend.FixedWindow).WithBurst(5), by, nil},
		{"unknown algorithm", ok.WithAlgorithm(77), by, nil},
		{"almost unlimited", ginlimit.PerMinute(math.MaxInt64 - 1), by, nil},
		{"invalid second limit", ok, by, opts{ginlimit.WithLimits(ginlimit.Limit{})}},
		{"two limits of one name", ok.Named("a"), by, opts{ginlimit.WithLimits(ok.Named("a"))}},
		{"limit name with newline", ok.Named("a\nb"), by, nil},
		{"limit name beyond ASCII", ok.Named("größe"), by, nil},
		{"limit name with DEL", ok.Named("a\x7f"), by, nil},
		{"empty name", ok, by, opts{ginlimit.WithName("")}},
		{"name with newline", ok, by, opts{ginlimit.WithName("a\nb")}},
		{"name with NUL", ok, by, opts{ginlimit.WithName("a\x00b")}},
		{"name beyond ASCII", ok, by, opts{ginlimit.WithName("日本")}},
		{"backend without name", ok, by, opts{ginlimit.WithBackend(memory.New())}},
		{"nil backend", ok, by, opts{ginlimit.WithName("a"), ginlimit.WithBackend(nil)}},
		{"nil tier", ok, by, opts{ginlimit.WithTier(nil)}},
		{"nil cost", ok, by, opts{ginlimit.WithCost(nil)}},
		{"nil refund", ok, by, opts{ginlimit.WithRefundIf(nil)}},
		{"nil skip", ok, by, opts{ginlimit.WithSkip(nil)}},
		{"nil deny handler", ok, by, opts{ginlimit.WithDenyHandler(nil)}},
		{"nil observer", ok, by, opts{ginlimit.WithObserver(nil)}},
		{"nil logger", ok, by, opts{ginlimit.WithLogger(nil)}},
		{"negative wait", ok, by, opts{ginlimit.WithMaxWait(-1)}},
		{"unknown policy", ok, by, opts{ginlimit.WithFailurePolicy(2)}},
		{"unknown header", ok, by, opts{ginlimit.WithHeaders(8)}},
		{"unknown header among others", ok, by, opts{ginlimit.WithHeaders(ginlimit.HeadersIETF | 128)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, err := ginlimit.NewLimiter(tt.limit, tt.key, tt.opts...)
			require.Error(t, err)
			assert.Nil(t, l)
			for line := range strings.Lines(err.Error()) {
				assert.True(t, strings.HasPrefix(line, "ginlimit: "), line)
			}
			var panicked any
			func() {
				defer func() { panicked = recover() }()
				ginlimit.New(tt.limit, tt.key, tt.opts...)
			}()
			require.Implements(t, (*error)(nil), panicked)
			assert.Equal(t, err.Error(), panicked.(error).Error())
		})
	}
}

func TestNewLimiterSaysAllThatIsWrong(t *testing.T) {
	_, err := ginlimit.NewLimiter(ginlimit.PerMinute(1), ginlimit.Global(), ginlimit.WithCost(nil),
		ginlimit.WithMaxWait(-time.Second))
	assert.ErrorContains(t, err, "WithCost(nil)")
	assert.ErrorContains(t, err, "WithMaxWait(-1s)")
}

func TestNewLimiterAccepts(t *testing.T) {
	by := ginlimit.Global()
	for _, tt := range []struct {
		name  string
		limit ginlimit.Limit
		opts  []ginlimit.Option
	}{
		{"nothing passes", ginlimit.PerMinute(0), nil},
		{"unlimited", ginlimit.Unlimited(), nil},
		{"extremes", ginlimit.Per(backend.MaxCount, 366*24*time.Hour), nil},
		{"smallest", ginlimit.Per(1, time.Millisecond), nil},
		{"odd names", ginlimit.PerHour(1).Named(`a "quoted" \ name`),
			[]ginlimit.Option{ginlimit.WithName(` '";,~`)}},
		{"same limit twice", ginlimit.PerHour(1), []ginlimit.Option{
			ginlimit.WithLimits(ginlimit.PerHour(1)), ginlimit.WithLimits(),
		}},
		{"every header", ginlimit.PerHour(1), []ginlimit.Option{
			ginlimit.WithHeaders(ginlimit.HeadersIETF | ginlimit.HeadersLegacy | ginlimit.HeadersLegacyEpoch),
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ginlimit.NewLimiter(tt.limit, by, tt.opts...)
			assert.NoError(t, err)
		})
	}
}

func TestTheLastOptionWins(t *testing.T) {
	var w watch
	r := engine(ginlimit.New(ginlimit.PerMinute(0), ginlimit.Global(),
		ginlimit.WithName("first"), ginlimit.WithName("last"),
		ginlimit.WithHeaders(ginlimit.HeadersIETF), ginlimit.WithHeaders(ginlimit.HeadersNone),
		ginlimit.WithDryRun(true), ginlimit.WithDryRun(false),
		ginlimit.WithObserver(w.observe)))
	got := send(r)
	assert.Equal(t, 429, got.Code)
	assert.Equal(t, "last", w.last().Limiter)
	assert.Equal(t, map[string]string{"Cache-Control": "no-store"}, fields(got))
}

func TestLimitConstructors(t *testing.T) {
	for _, tt := range []struct {
		limit  ginlimit.Limit
		count  int64
		period time.Duration
	}{
		{ginlimit.PerSecond(1), 1, time.Second},
		{ginlimit.PerMinute(2), 2, time.Minute},
		{ginlimit.PerHour(3), 3, time.Hour},
		{ginlimit.PerDay(4), 4, 24 * time.Hour},
		{ginlimit.Per(5, 7*time.Millisecond), 5, 7 * time.Millisecond},
	} {
		assert.Equal(t, ginlimit.Limit{Count: tt.count, Period: tt.period}, tt.limit)
	}
	assert.True(t, ginlimit.Unlimited().IsUnlimited())
	assert.False(t, ginlimit.PerMinute(0).IsUnlimited())
}

func TestTiers(t *testing.T) {
	type limits = []ginlimit.Limit
	for _, tt := range []struct {
		name   string
		tier   ginlimit.Tier
		err    error
		shown  string // in the decision
		failed bool
		want   map[string]string
	}{
		{"own limits", ginlimit.Tier{}, nil, "", false,
			map[string]string{"RateLimit-Policy": `"api";q=2;w=60`, "RateLimit": `"api";r=1;t=30`}},
		{"a name only", ginlimit.Tier{Name: "free"}, nil, "free", false,
			map[string]string{"RateLimit-Policy": `"api";q=2;w=60`, "RateLimit": `"api";r=1;t=30`}},
		{"others", ginlimit.Tier{Name: "pro", Limits: limits{ginlimit.PerHour(60)}}, nil, "pro", false,
			map[string]string{"RateLimit-Policy": `"api";q=60;w=3600`, "RateLimit": `"api";r=59;t=60`}},
		{"several", ginlimit.Tier{Name: "pro", Limits: limits{ginlimit.PerHour(60), ginlimit.PerSecond(9).Named("s")}},
			nil, "pro", false,
			map[string]string{"RateLimit-Policy": `"60-per-1h";q=60;w=3600, "s";q=9;w=1`, "RateLimit": `"s";r=8;t=1`}},
		{"without a name", ginlimit.Tier{Limits: limits{ginlimit.PerHour(60)}}, nil, "", false,
			map[string]string{"RateLimit-Policy": `"api";q=60;w=3600`, "RateLimit": `"api";r=59;t=60`}},
		{"unlimited", ginlimit.Tier{Name: "staff", Limits: limits{ginlimit.Unlimited()}}, nil, "staff", false, none},
		{"error", ginlimit.Tier{Name: "pro", Limits: limits{ginlimit.PerHour(60)}}, errOther, "", true,
			map[string]string{"RateLimit-Policy": `"api";q=2;w=60`, "RateLimit": `"api";r=1;t=30`}},
		{"ErrNoKey is an error as others", ginlimit.Tier{}, ginlimit.ErrNoKey, "", true,
			map[string]string{"RateLimit-Policy": `"api";q=2;w=60`, "RateLimit": `"api";r=1;t=30`}},
		{"not valid", ginlimit.Tier{Name: "bad", Limits: limits{ginlimit.PerHour(-1)}}, nil, "bad", true,
			map[string]string{"RateLimit-Policy": `"api";q=2;w=60`, "RateLimit": `"api";r=1;t=30`}},
		{"one not valid", ginlimit.Tier{Name: "bad", Limits: limits{ginlimit.PerHour(60), {}}}, nil, "bad", true,
			map[string]string{"RateLimit-Policy": `"api";q=2;w=60`, "RateLimit": `"api";r=1;t=30`}},
		{"a name that cannot be written", ginlimit.Tier{Name: "bad", Limits: limits{ginlimit.PerHour(60).Named("ä")}},
			nil, "bad", true,
			map[string]string{"RateLimit-Policy": `"api";q=2;w=60`, "RateLimit": `"api";r=1;t=30`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var seen watch
				r := engine(ginlimit.New(ginlimit.PerMinute(2), ginlimit.Global(), ginlimit.WithName("api"),
					ginlimit.WithHeaders(ginlimit.HeadersIETF),
					ginlimit.WithTier(func(*gin.Context) (ginlimit.Tier, error) { return tt.tier, tt.err }),
					ginlimit.WithObserver(seen.observe)))
				w := send(r)
				assert.Equal(t, 200, w.Code)
				assert.Equal(t, tt.want, fields(w))
				d := seen.last()
				assert.Equal(t, tt.shown, d.Tier)
				assert.NoError(t, d.Err)
				if assert.Equal(t, tt.failed, d.TierErr != nil) && tt.err != nil && tt.failed {
					assert.ErrorIs(t, d.TierErr, tt.err)
				}
				if tt.failed || len(tt.tier.Limits) == 0 {
					require.Len(t, d.Limits, 1)
					assert.EqualValues(t, 2, d.Limits[0].Count)
				} else {
					assert.Len(t, d.Limits, len(tt.tier.Limits))
				}
			})
		})
	}
}

// TestChangedTier is one caller whose tier changes, under one name and under others.
func TestChangedTier(t *testing.T) {
	tier := func(name string, limits ...ginlimit.Limit) ginlimit.Tier {
		return ginlimit.Tier{Name: name, Limits: limits}
	}
	for _, tt := range []struct {
		name  string
		named func(string) string
	}{
		{"one name", func(string) string { return "plan" }},
		{"other names", func(s string) string { return s }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var now ginlimit.Tier
				r := engine(ginlimit.New(ginlimit.PerMinute(2), ginlimit.Global(),
					ginlimit.WithTier(func(*gin.Context) (ginlimit.Tier, error) { return now, nil })))
				for _, step := range []struct {
					tier                       ginlimit.Tier
					code                       int
					limit, remaining, waitable string
				}{
					{tier("none"), 200, "2", "1", ""},
					{tier("none"), 200, "2", "0", ""},
					{tier("none"), 429, "2", "0", "30"},
					{tier(tt.named("pro"), ginlimit.PerMinute(10)), 200, "10", "7", ""}, // an upgrade frees at once
					{tier(tt.named("pro"), ginlimit.PerMinute(10)), 200, "10", "6", ""},
					{tier(tt.named("basic"), ginlimit.PerMinute(3)), 429, "3", "0",
						"12"}, // a downgrade too; what was used ages as before
					{tier(tt.named("max"), ginlimit.Unlimited()), 200, "", "", ""},
					{tier(tt.named("pro"), ginlimit.PerMinute(20)), 200, "20", "15", ""}, // nothing was forgiven
					{tier(tt.named("banned"), ginlimit.PerMinute(0)), 429, "0", "0", ""},
				} {
					now = step.tier
					w := send(r)
					assert.Equal(t, step.code, w.Code, "%+v", step)
					assert.Equal(t, step.limit, w.Header().Get("X-RateLimit-Limit"), "%+v", step)
					assert.Equal(t, step.remaining, w.Header().Get("X-RateLimit-Remaining"), "%+v", step)
					assert.Equal(t, step.waitable, w.Header().Get("Retry-After"), "%+v", step)
				}
			})
		})
	}
}

func TestManyTiers(t *testing.T) {
	auth := func(c *gin.Context) { c.Set("user", c.GetHeader("Key")) }
	r := engine(auth, ginlimit.New(ginlimit.PerDay(1), ginlimit.ByUserID("user"),
		ginlimit.WithTier(func(c *gin.Context) (ginlimit.Tier, error) {
			var n int64
			_, err := fmt.Sscan(c.GetString("user"), &n)
			return ginlimit.Tier{Name: "t" + c.GetString("user"), Limits: []ginlimit.Limit{ginlimit.PerDay(n + 1)}}, err
		})))
	for round := range 2 {
		for n := range 1500 {
			w := send(r, header("Key", fmt.Sprint(n)))
			require.Equal(t, fmt.Sprint(n+1), w.Header().Get("X-RateLimit-Limit"))
			require.Equal(t, fmt.Sprint(max(0, n-round)), w.Header().Get("X-RateLimit-Remaining"))
		}
	}
}

// TestTierLookUpRunsOncePerRequest, also where the handlers set something.
func TestTierLookUpRunsOncePerRequest(t *testing.T) {
	n := 0
	r := engine(ginlimit.New(ginlimit.PerDay(100), ginlimit.Global(),
		ginlimit.WithTier(func(*gin.Context) (ginlimit.Tier, error) {
			n++
			return ginlimit.Tier{Name: "gold", Limits: []ginlimit.Limit{ginlimit.PerDay(10)}}, nil
		})), func(c *gin.Context) { c.Set("request", time.Now()) })
	for range 3 {
		send(r)
	}
	assert.Equal(t, 3, n)
}

func TestTiersOfDifferentCallers(t *testing.T) {
	plans := map[string]ginlimit.Tier{
		"ann": {Name: "pro", Limits: []ginlimit.Limit{ginlimit.PerHour(3)}},
		"bob": {Name: "free"},
	}
	r := engine(ginlimit.New(ginlimit.PerHour(1), byHeader,
		ginlimit.WithTier(func(c *gin.Context) (ginlimit.Tier, error) { return plans[c.GetHeader("Key")], nil })))
	for _, tt := range []struct {
		caller   string
		admitted int
	}{{"ann", 3}, {"bob", 1}, {"carl", 1}} {
		n := 0
		for range 5 {
			if send(r, header("Key", tt.caller)).Code == 200 {
				n++
			}
		}
		assert.Equal(t, tt.admitted, n, tt.caller)
	}
}

// TestAFailedLookUp: one look-up in ten fails. The tier that the key had last decides then: what
// was used is not forgiven, and a customer of a large plan is not refused.
func TestAFailedLookUp(t *testing.T) {
	for _, algorithm := range []backend.Algorithm{ginlimit.TokenBucket, ginlimit.SlidingWindow, ginlimit.SlidingLog,
		ginlimit.FixedWindow} {
		for _, failure := range []struct {
			name string
			tier ginlimit.Tier
			err  error
		}{
			{"error", ginlimit.Tier{}, errOther},
			{"not valid", ginlimit.Tier{Name: "bad", Limits: []ginlimit.Limit{{}}}, nil},
			{"not writable", ginlimit.Tier{Name: "bad", Limits: []ginlimit.Limit{ginlimit.PerDay(1).Named("ä")}}, nil},
		} {
			t.Run(algorithm.String()+", "+failure.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var seen watch
					asked := 0
					r := engine(ginlimit.New(ginlimit.PerHour(5).WithAlgorithm(algorithm), ginlimit.Global(),
						ginlimit.WithObserver(seen.observe),
						ginlimit.WithTier(func(*gin.Context) (ginlimit.Tier, error) {
							if asked++; asked%10 == 0 {
								return failure.tier, failure.err
							}
							return ginlimit.Tier{Name: "large",
								Limits: []ginlimit.Limit{ginlimit.PerHour(100).WithAlgorithm(algorithm)}}, nil
						})))
					passed := 0
					for n := range 2000 {
						w := send(r)
						if w.Code == 200 {
							passed++
						}
						assert.Equal(t, n < 100, w.Code == 200)
						assert.Equal(t, "large", seen.last().Tier)
						assert.Equal(t, (n+1)%10 == 0, seen.last().TierErr != nil)
						assert.Equal(t, "100", w.Header().Get("X-RateLimit-Limit"))
					}
					assert.Equal(t, 100, passed)
				})
			})
		}
	}
}

// TestTheLastTier is what is remembered of a key while the look-up fails.
func TestTheLastTier(t *testing.T) {
	limited := func(name string, n int64) ginlimit.Tier {
		return ginlimit.Tier{Name: name, Limits: []ginlimit.Limit{ginlimit.PerHour(n)}}
	}
	type steps []struct {
		after  time.Duration
		key    string
		tier   *ginlimit.Tier // nil if the look-up fails
		name   string
		limits int64
	}
	pro, most, free := limited("pro", 100), limited("max", 1000), ginlimit.Tier{Name: "free"}
	for _, tt := range []struct {
		name  string
		steps steps
	}{
		{"never asked before", steps{{0, "ann", nil, "", 5}}},
		{"of this key", steps{
			{0, "ann", &pro, "pro", 100},
			{0, "bob", &most, "max", 1000},
			{0, "ann", nil, "pro", 100},
			{0, "bob", nil, "max", 1000},
			{0, "carl", nil, "", 5},
		}},
		{"the last one", steps{
			{0, "ann", &pro, "pro", 100},
			{0, "ann", &most, "max", 1000},
			{0, "ann", nil, "max", 1000},
			{0, "ann", &free, "free", 5},
			{0, "ann", nil, "free", 5},
		}},
		{"for ten minutes", steps{
			{0, "ann", &pro, "pro", 100},
			{10*time.Minute - 1, "ann", nil, "pro", 100},
			{1, "ann", nil, "", 5},
		}},
		{"for ten minutes since it was last found", steps{
			{0, "ann", &pro, "pro", 100},
			{9 * time.Minute, "ann", &pro, "pro", 100},
			{9 * time.Minute, "ann", nil, "pro", 100},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var seen watch
				var now *ginlimit.Tier
				r := engine(ginlimit.New(ginlimit.PerHour(5), byHeader, ginlimit.WithObserver(seen.observe),
					ginlimit.WithTier(func(*gin.Context) (ginlimit.Tier, error) {
						if now == nil {
							return ginlimit.Tier{}, errOther
						}
						return *now, nil
					})))
				for _, step := range tt.steps {
					time.Sleep(step.after)
					now = step.tier
					send(r, header("Key", step.key))
					d := seen.last()
					assert.Equal(t, step.name, d.Tier, "%+v", step)
					require.Len(t, d.Limits, 1)
					assert.Equal(t, step.limits, d.Limits[0].Count, "%+v", step)
					assert.Equal(t, step.tier == nil, d.TierErr != nil)
				}
			})
		})
	}
}

// TestManyLastTiers: the memory for tiers is bounded, and callers who have none of their own push
// nobody out.
func TestManyLastTiers(t *testing.T) {
	down := false
	var seen watch
	r := engine(ginlimit.New(ginlimit.PerHour(5), byHeader, ginlimit.WithObserver(seen.observe),
		ginlimit.WithTier(func(c *gin.Context) (ginlimit.Tier, error) {
			switch {
			case down:
				return ginlimit.Tier{}, errOther
			case c.GetHeader("Key")[0] == 'x':
				return ginlimit.Tier{Name: "free"}, nil
			default:
				return ginlimit.Tier{Name: "pro", Limits: []ginlimit.Limit{ginlimit.PerHour(100)}}, nil
			}
		})))
	const customers = 12_000
	for n := range customers {
		send(r, header("Key", fmt.Sprint(n)))
	}
	for n := range customers {
		send(r, header("Key", "x"+fmt.Sprint(n)))
	}
	down = true
	known := 0
	for n := range customers {
		if send(r, header("Key", fmt.Sprint(n))); seen.last().Tier == "pro" {
			known++
		}
	}
	assert.Greater(t, known, customers*85/100)
}

// TestTiersNeedTheirLimits: a key does not tell the tier of its caller.
func TestTiersNeedTheirLimits(t *testing.T) {
	var seen watch
	l := must(ginlimit.NewLimiter(ginlimit.PerHour(5), byHeader, ginlimit.WithObserver(seen.observe),
		ginlimit.WithTier(func(*gin.Context) (ginlimit.Tier, error) { return ginlimit.Tier{}, nil })))
	d, err := l.Allow(t.Context(), "ann", 1)
	assert.ErrorContains(t, err, "ginlimit: ")
	assert.ErrorContains(t, err, "pass the limits")
	assert.False(t, d.Passes())
	assert.Equal(t, err, seen.last().Err)
	_, err = l.Peek(t.Context(), "ann")
	assert.ErrorContains(t, err, "pass the limits")
	d, err = l.Peek(t.Context(), "ann", ginlimit.PerHour(5))
	assert.NoError(t, err)
	assert.EqualValues(t, 5, d.Remaining, "nothing was charged")
	d, err = l.Allow(t.Context(), "ann", 1, ginlimit.PerHour(5))
	assert.NoError(t, err)
	assert.True(t, d.Passes())
}

// BenchmarkTierPolicies decides by tiers whose limits are the same each time, and by tiers whose
// limits are always others: what they are called in headers is made anew each time.
func BenchmarkTierPolicies(b *testing.B) {
	for _, bm := range []struct {
		name  string
		lists int64
	}{
		{"remembered", 1},
		{"made anew", 1 << 20},
	} {
		b.Run(bm.name, func(b *testing.B) {
			i := int64(0)
			r := engine(ginlimit.New(ginlimit.PerMinute(1), ginlimit.Global(), ginlimit.WithBackend(admitting{}),
				ginlimit.WithName("api"),
				ginlimit.WithTier(func(*gin.Context) (ginlimit.Tier, error) {
					i++
					limits := []ginlimit.Limit{ginlimit.PerMinute(1000 + i%bm.lists), ginlimit.PerHour(10_000)}
					return ginlimit.Tier{Name: "pro", Limits: limits}, nil
				})))
			b.ReportAllocs()
			for b.Loop() {
				send(r)
			}
		})
	}
}

// admitting is a backend that admits everything.
type admitting struct{ backend.Backend }

func (admitting) Take(_ context.Context, _ string, _ int64, limits ...backend.Limit) (backend.Result, error) {
	return backend.Result{Allowed: true, Limit: limits[0], Remaining: 1, ResetAfter: time.Second}, nil
}
