package ginlimitprom_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/memory"
	"github.com/ginlimit/ginlimit/backend/redis"
	ginlimitprom "github.com/ginlimit/ginlimit/contrib/prometheus"
)

func init() { gin.SetMode(gin.TestMode) }

// broken is a backend that fails with an error.
type broken struct {
	backend.Backend
	err error
}

func (b broken) Take(context.Context, string, int64, ...backend.Limit) (backend.Result, error) {
	return backend.Result{}, b.err
}

// serve sends requests through a limiter that the collector observes, and returns the last status.
func serve(t *testing.T, c *ginlimitprom.Collector, requests int, limit ginlimit.Limit, key ginlimit.KeyFunc, opts ...ginlimit.Option) int {
	t.Helper()
	r := gin.New()
	r.SetTrustedProxies(nil)
	r.Use(ginlimit.New(limit, key, append(opts, ginlimit.WithObserver(c.Observe))...))
	r.GET("/", func(c *gin.Context) { c.Status(http.StatusOK) })
	var w *httptest.ResponseRecorder
	for range requests {
		w = httptest.NewRecorder()
		r.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	}
	return w.Code
}

// series returns the samples of a metric as "a=1,b=2": value; a histogram's value is its count.
func series(t *testing.T, c prometheus.Collector, name string) map[string]float64 {
	t.Helper()
	out := map[string]float64{}
	for _, m := range family(t, c, name) {
		var labels []string
		for _, l := range m.GetLabel() {
			labels = append(labels, l.GetName()+"="+l.GetValue())
		}
		v := m.GetCounter().GetValue() + m.GetGauge().GetValue()
		if h := m.GetHistogram(); h != nil {
			v = float64(h.GetSampleCount())
		}
		out[strings.Join(labels, ",")] = v
	}
	return out
}

func family(t *testing.T, c prometheus.Collector, name string) []*dto.Metric {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(c)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()
		}
	}
	return nil
}

func wantSeries(t *testing.T, c prometheus.Collector, name string, want map[string]float64) {
	t.Helper()
	got := series(t, c, name)
	for labels, v := range want {
		if g, ok := got[labels]; !ok || g != v {
			t.Errorf("%s{%s} is %v (there: %v), want %v", name, labels, g, ok, v)
		}
	}
	for labels, v := range got {
		if _, ok := want[labels]; !ok {
			t.Errorf("%s{%s} is %v, want none", name, labels, v)
		}
	}
}

// TestOutcomes sends requests through real limiters, one for each thing that can become of a
// request.
func TestOutcomes(t *testing.T) {
	c := ginlimitprom.New()
	none := func(*gin.Context) (string, error) { return "", ginlimit.ErrNoKey }
	wrong := func(*gin.Context) (string, error) { return "", errors.New("the session store is down") }
	down := broken{err: fmt.Errorf("ginlimit: test: %w", backend.ErrUnavailable)}
	negative := ginlimit.WithCost(func(*gin.Context) int64 { return -1 })
	two, global, dry := ginlimit.PerHour(2), ginlimit.Global(), ginlimit.WithDryRun(true)
	skip := ginlimit.WithSkip(func(*gin.Context) bool { return true })
	for _, step := range []struct {
		name   string
		status int
		key    ginlimit.KeyFunc
		opts   []ginlimit.Option
	}{
		{"plain", 429, global, nil},
		{"dry", 200, global, []ginlimit.Option{dry}},
		{"keyless", 400, none, nil},
		{"keyless-dry", 200, none, []ginlimit.Option{dry}},
		{"negative", 400, global, []ginlimit.Option{negative}},
		{"negative-dry", 200, global, []ginlimit.Option{negative, dry}},
		{"open", 200, global, []ginlimit.Option{ginlimit.WithBackend(down)}},
		{"closed", 503, global, []ginlimit.Option{ginlimit.WithBackend(down), ginlimit.WithFailurePolicy(ginlimit.FailClosed)}},
		{"closed-dry", 200, global, []ginlimit.Option{ginlimit.WithBackend(down), ginlimit.WithFailurePolicy(ginlimit.FailClosed), dry}},
		{"wrong", 200, wrong, nil},
		{"skipped", 200, global, []ginlimit.Option{skip}},
	} {
		if status := serve(t, c, 5, two, step.key, append(step.opts, ginlimit.WithName(step.name))...); status != step.status {
			t.Errorf("%s: status %d, want %d", step.name, status, step.status)
		}
	}
	c.Observe(t.Context(), ginlimit.Decision{Limiter: "skipped", Err: ginlimit.ErrSkip})
	wantSeries(t, c, "ginlimit_decisions_total", map[string]float64{
		"limit=plain,limiter=plain,outcome=allowed,tier=":            2,
		"limit=plain,limiter=plain,outcome=denied,tier=":             3,
		"limit=dry,limiter=dry,outcome=allowed,tier=":                2,
		"limit=dry,limiter=dry,outcome=dry_run_denied,tier=":         3,
		"limit=,limiter=keyless,outcome=no_key,tier=":                5,
		"limit=,limiter=keyless-dry,outcome=dry_run_no_key,tier=":    5,
		"limit=,limiter=negative,outcome=bad_cost,tier=":             5,
		"limit=,limiter=negative-dry,outcome=dry_run_bad_cost,tier=": 5,
		"limit=,limiter=open,outcome=error_passed,tier=":             5,
		"limit=,limiter=closed,outcome=error_refused,tier=":          5,
		"limit=,limiter=closed-dry,outcome=error_passed,tier=":       5,
		"limit=,limiter=wrong,outcome=error_passed,tier=":            5,
	})
	wantSeries(t, c, "ginlimit_errors_total", map[string]float64{
		"kind=unavailable,limiter=open": 5, "kind=unavailable,limiter=closed": 5, "kind=unavailable,limiter=closed-dry": 5,
		"kind=key,limiter=wrong": 5,
	})
	wantSeries(t, c, "ginlimit_answers_total", map[string]float64{
		"limiter=plain,source=store": 5, "limiter=dry,source=store": 5,
	})
	wantSeries(t, c, "ginlimit_decision_duration_seconds", map[string]float64{"source=store": 10, "source=error": 15})
	wantSeries(t, c, "ginlimit_denied_keys", map[string]float64{"limiter=plain": 1, "limiter=dry": 1})
}

// TestBans has a caller that does not stop banned, and one banned by hand, also in a dry run.
func TestBans(t *testing.T) {
	c := ginlimitprom.New()
	ban := ginlimit.WithBan(ginlimit.PerHour(2), time.Minute, time.Hour)
	second := ginlimit.PerSecond(1).WithAlgorithm(ginlimit.FixedWindow)
	synctest.Test(t, func(t *testing.T) {
		for range 2 { // a new limiter, with a store of its own
			if status := serve(t, c, 6, second, ginlimit.Global(), ginlimit.WithName("api"), ban); status != http.StatusTooManyRequests {
				t.Errorf("status %d, want 429", status)
			}
		}
		store := memory.New()
		for name, dry := range map[string]bool{"hand": false, "dry": true} {
			opts := []ginlimit.Option{ginlimit.WithName(name), ginlimit.WithBackend(store), ginlimit.WithDryRun(dry)}
			l, err := ginlimit.NewLimiter(second, ginlimit.Global(), opts...)
			if err != nil {
				t.Fatal(err)
			}
			if err := l.Ban(t.Context(), ginlimit.KeyOfGlobal(), time.Minute); err != nil {
				t.Fatal(err)
			}
			serve(t, c, 3, second, ginlimit.Global(), opts...)
		}
		serve(t, c, 9, second, ginlimit.Global(), ginlimit.WithName("trial"), ban, ginlimit.WithDryRun(true))
		wantSeries(t, c, "ginlimit_denied_keys", map[string]float64{"limiter=api": 1, "limiter=hand": 1, "limiter=dry": 1, "limiter=trial": 1})
	})
	wantSeries(t, c, "ginlimit_bans_total", map[string]float64{"limiter=api": 2, "limiter=hand": 0})
	wantSeries(t, c, "ginlimit_decisions_total", map[string]float64{
		"limit=api,limiter=api,outcome=allowed,tier=":            2,
		"limit=api,limiter=api,outcome=denied,tier=":             4,
		"limit=ban,limiter=api,outcome=allowed,tier=":            0,
		"limit=ban,limiter=api,outcome=denied,tier=":             0,
		"limit=ban,limiter=api,outcome=banned,tier=":             6,
		"limit=hand,limiter=hand,outcome=allowed,tier=":          0,
		"limit=hand,limiter=hand,outcome=denied,tier=":           0,
		"limit=hand,limiter=hand,outcome=banned,tier=":           3,
		"limit=dry,limiter=dry,outcome=allowed,tier=":            0,
		"limit=dry,limiter=dry,outcome=dry_run_denied,tier=":     0,
		"limit=dry,limiter=dry,outcome=dry_run_banned,tier=":     3,
		"limit=trial,limiter=trial,outcome=allowed,tier=":        1,
		"limit=trial,limiter=trial,outcome=dry_run_denied,tier=": 8,
	})
}

// TestWatch looks at the gauge from within handlers.
func TestWatch(t *testing.T) {
	c := ginlimitprom.New()
	limiter := func(name string, limit ginlimit.Limit) *ginlimit.Limiter {
		l, err := ginlimit.NewLimiter(limit, ginlimit.Global(), ginlimit.WithName(name), ginlimit.WithObserver(c.Observe))
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	all, again, rate := limiter("all", ginlimit.InFlight(1)), limiter("all", ginlimit.InFlight(3).Counting("")), limiter("rate", ginlimit.PerHour(9))
	wantSeries(t, c, "ginlimit_requests_in_flight", nil)
	c.Watch(all, rate)
	c.Watch(again)
	idle := map[string]float64{"limiter=all": 0, "limiter=rate": 0}
	wantSeries(t, c, "ginlimit_requests_in_flight", idle)
	r := gin.New()
	r.Use(gin.CustomRecoveryWithWriter(io.Discard, func(c *gin.Context, _ any) { c.Status(http.StatusInternalServerError) }))
	r.GET("/", all.Handle, rate.Handle, again.Handle, func(_ *gin.Context) {
		wantSeries(t, c, "ginlimit_requests_in_flight", map[string]float64{"limiter=all": 2, "limiter=rate": 0})
		w := httptest.NewRecorder()
		r.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		if w.Code != http.StatusTooManyRequests {
			t.Errorf("a second request at once: status %d, want 429", w.Code)
		}
		wantSeries(t, c, "ginlimit_requests_in_flight", map[string]float64{"limiter=all": 2, "limiter=rate": 0})
		panic("the handler ends")
	})
	for range 2 {
		r.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
		wantSeries(t, c, "ginlimit_requests_in_flight", idle)
	}
	for _, wrong := range [][]*ginlimit.Limiter{{nil}, {all}, {limiter("one", ginlimit.InFlight(1)), all}} {
		func() {
			defer func() {
				if err, ok := recover().(error); !ok || !strings.HasPrefix(err.Error(), "ginlimit: Watch: ") {
					t.Errorf("Watch(%v): got %v, want a panic", wrong, err)
				}
			}()
			c.Watch(wrong...)
		}()
	}
	wantSeries(t, c, "ginlimit_requests_in_flight", idle) // and not "one"
}

func TestTiers(t *testing.T) {
	c := ginlimitprom.New()
	tier, err := ginlimit.Tier{Name: "pro", Limits: []ginlimit.Limit{ginlimit.PerSecond(1000), ginlimit.PerHour(10)}}, error(nil)
	look := ginlimit.WithTier(func(*gin.Context) (ginlimit.Tier, error) { return tier, err })
	serve(t, c, 12, ginlimit.PerHour(5), ginlimit.Global(), ginlimit.WithName("api"), look)
	tier, err = ginlimit.Tier{}, errors.New("the database is down")
	serve(t, c, 1, ginlimit.PerHour(5), ginlimit.Global(), ginlimit.WithName("api"), look)
	wantSeries(t, c, "ginlimit_decisions_total", map[string]float64{
		"limit=10-per-1h,limiter=api,outcome=allowed,tier=pro": 10,
		"limit=10-per-1h,limiter=api,outcome=denied,tier=pro":  2,
		"limit=api,limiter=api,outcome=allowed,tier=":          1,
		"limit=api,limiter=api,outcome=denied,tier=":           0,
	})
	wantSeries(t, c, "ginlimit_tier_lookup_failures_total", map[string]float64{"limiter=api": 1})
	// Of 10 units less than 2 are left after the 9th and the 10th request.
	wantSeries(t, c, "ginlimit_near_limit_decisions_total", map[string]float64{
		"limit=10-per-1h,limiter=api,tier=pro": 2, "limit=api,limiter=api,tier=": 0,
	})
}

func TestNearLimit(t *testing.T) {
	for _, step := range []struct {
		limit ginlimit.Limit
		near  float64 // of 20 requests
		opts  []ginlimitprom.Option
	}{
		{ginlimit.PerHour(10), 2, nil},              // 1 and 0 left
		{ginlimit.PerHour(10).WithBurst(5), 1, nil}, // 0 left: it is the capacity that counts
		{ginlimit.PerHour(100), 0, nil},             // 80 left
		{ginlimit.PerHour(1), 0, nil},               // nothing is always left
		{ginlimit.PerHour(0), 0, nil},               //
		{ginlimit.Unlimited(), 0, nil},              //
		{ginlimit.PerHour(10), 5, near(0.5)},        // 4 to 0 left
		{ginlimit.PerHour(10), 10, near(1)},         // all
		{ginlimit.PerHour(100), 0, near(0.8)},       // 80 left is not below 80
		{ginlimit.PerHour(100), 1, near(0.81)},      //
		{ginlimit.PerHour(10).WithAlgorithm(ginlimit.SlidingLog), 2, nil},
	} {
		c := ginlimitprom.New(step.opts...)
		serve(t, c, 20, step.limit, ginlimit.Global())
		wantSeries(t, c, "ginlimit_near_limit_decisions_total", map[string]float64{"limit=default,limiter=default,tier=": step.near})
	}
}

func near(share float64) []ginlimitprom.Option {
	return []ginlimitprom.Option{ginlimitprom.WithNearLimit(share)}
}

func TestSources(t *testing.T) {
	c := ginlimitprom.New()
	for source, times := range map[backend.Source]int{
		backend.SourceStore: 1, backend.SourceDenyCache: 2, backend.SourceLease: 3, backend.SourceFallback: 4, 77: 5,
	} {
		for range times {
			c.Observe(t.Context(), ginlimit.Decision{Limiter: "api", Key: "k", Elapsed: time.Microsecond,
				Result: ginlimit.Result{Allowed: true, Limit: ginlimit.PerHour(10), Remaining: 9, Source: source}})
		}
	}
	wantSeries(t, c, "ginlimit_answers_total", map[string]float64{
		"limiter=api,source=store": 1, "limiter=api,source=deny-cache": 2, "limiter=api,source=lease": 3,
		"limiter=api,source=fallback": 4, "limiter=api,source=other": 5,
	})
	wantSeries(t, c, "ginlimit_decision_duration_seconds", map[string]float64{
		"source=store": 1, "source=deny-cache": 2, "source=lease": 3, "source=fallback": 4, "source=other": 5,
	})
}

// TestWaited holds requests in a leaky bucket, in the time of a bubble.
func TestWaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := ginlimitprom.New()
		serve(t, c, 4, ginlimit.PerSecond(1).WithBurst(1), ginlimit.Global(), ginlimit.WithName("leaky"), ginlimit.WithMaxWait(10*time.Second))
		m := family(t, c, "ginlimit_wait_duration_seconds")
		if len(m) != 1 || m[0].GetHistogram().GetSampleCount() != 3 || m[0].GetHistogram().GetSampleSum() != 3 {
			t.Errorf("three of four requests wait a second each; the metric says %v", m)
		}
	})
}

// said is an error that tells its kind.
type said string

func (s said) Error() string { return "ginlimit: test: " + string(s) }
func (s said) Kind() string  { return string(s) }

func TestKinds(t *testing.T) {
	join := func(errs ...error) error { return errors.Join(append([]error{backend.ErrUnavailable}, errs...)...) }
	dial := &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	for _, step := range []struct {
		err  error
		kind string
	}{
		{backend.ErrUnavailable, "unavailable"},
		{join(context.DeadlineExceeded), "timeout"},
		{join(context.Canceled), "canceled"},
		{join(io.EOF), "unreachable"},
		{join(dial), "unreachable"},
		{join(&net.DNSError{IsTimeout: true}), "timeout"},
		{join(redis.ErrBreakerOpen), "breaker_open"},
		{join(dial, redis.ErrBreakerOpen), "breaker_open"},
		{join(redis.ErrOutOfMemory, errors.New("OOM command not allowed")), "out_of_memory"},
		{join(redis.ErrReadOnly), "read_only"},
		{join(redis.ErrStarting), "starting"},
		{join(redis.ErrBusy), "busy"},
		{join(redis.ErrClusterDown), "cluster_down"},
		{join(redis.ErrMasterDown), "master_down"},
		{join(redis.ErrDenied), "denied"},
		{join(redis.ErrForeign), "foreign_value"},
		{join(redis.ErrScript), "script"},
		{fmt.Errorf("a fallback: %w", join(redis.ErrReadOnly)), "read_only"},
		{said("too_many_connections"), "too_many_connections"},
		{join(context.DeadlineExceeded, fmt.Errorf("wrapped: %w", said("lock_timeout"))), "lock_timeout"},
		{join(said("")), "unavailable"},
		{errors.New("no limit was given"), "other"},
	} {
		c := ginlimitprom.New()
		serve(t, c, 1, ginlimit.PerHour(1), ginlimit.Global(), ginlimit.WithName("api"), ginlimit.WithBackend(broken{err: step.err}))
		wantSeries(t, c, "ginlimit_errors_total", map[string]float64{"kind=" + step.kind + ",limiter=api": 1})
	}
}

// TestBreakers also asks twice, because each scrape does.
func TestBreakers(t *testing.T) {
	open := map[string]bool{"10.0.0.1:6379": true, "10.0.0.2:6379": false, "bad\xffname": true}
	c := ginlimitprom.New(
		ginlimitprom.WithBreakers("redis", func() map[string]bool { return open }),
		ginlimitprom.WithBreakers("postgres", func() map[string]bool { return nil }),
	)
	want := map[string]float64{"backend=redis,server=10.0.0.1:6379": 1, "backend=redis,server=10.0.0.2:6379": 0, "backend=redis,server=bad�name": 1}
	wantSeries(t, c, "ginlimit_breaker_open", want)
	open["10.0.0.1:6379"] = false
	want["backend=redis,server=10.0.0.1:6379"] = 0
	wantSeries(t, c, "ginlimit_breaker_open", want)

	many := map[string]bool{}
	for i := range 1000 {
		many[fmt.Sprint("host", i)] = i == 500
	}
	c = ginlimitprom.New(ginlimitprom.WithCardinalityLimit(10), ginlimitprom.WithBreakers("redis", func() map[string]bool { return many }))
	if got := series(t, c, "ginlimit_breaker_open"); len(got) != 11 || got["backend=redis,server=other"] != 1 {
		t.Errorf("of 1,000 servers 10 and other are shown, with one that is open: %v", got)
	}
}

// TestFlood invents tiers, limits, limiters and kinds of errors without end.
func TestFlood(t *testing.T) {
	c := ginlimitprom.New(ginlimitprom.WithCardinalityLimit(20))
	observe := func(d ginlimit.Decision) {
		d.Key, d.Limit.Count, d.Limit.Period = "k", 10, time.Hour
		c.Observe(t.Context(), d)
	}
	const n = 5000
	for i := range n {
		d := ginlimit.Decision{Limiter: "api", Tier: fmt.Sprintf("tier-%d", i)}
		d.Limit.Name = fmt.Sprintf("limit-%d", i)
		observe(d)
		observe(ginlimit.Decision{Limiter: fmt.Sprintf("limiter-%d", i), TierErr: io.EOF, Waited: 1})
		observe(ginlimit.Decision{Limiter: "failing", Err: said(fmt.Sprintf("kind-%d", i))})
	}
	total := 0.0
	decisions := series(t, c, "ginlimit_decisions_total")
	for _, v := range decisions {
		total += v
	}
	if total != 3*n {
		t.Errorf("of %d decisions %v are counted", 3*n, total)
	}
	// 20 sets, which have two outcomes each from the start, and what is left of 20 limiters and of
	// all others.
	if len(decisions) > 2*20+20+1 {
		t.Errorf("%d series", len(decisions))
	}
	for name, atMost := range map[string]int{
		"ginlimit_near_limit_decisions_total": 20 + 20 + 1, "ginlimit_answers_total": 21, "ginlimit_tier_lookup_failures_total": 21,
		"ginlimit_wait_duration_seconds": 21, "ginlimit_denied_keys": 21, "ginlimit_errors_total": 51,
	} {
		if got := series(t, c, name); len(got) > atMost || len(got) == 0 {
			t.Errorf("%s has %d series, want 1 to %d", name, len(got), atMost)
		}
	}
	if got := decisions["limit=other,limiter=api,outcome=denied,tier=other"]; got < n-20 {
		t.Errorf("%v decisions of api are in other: a limiter that is known keeps its name", got)
	}
	if got := decisions["limit=other,limiter=other,outcome=denied,tier=other"]; got < n-20 {
		t.Errorf("%v decisions of other limiters are in other", got)
	}
	if got := series(t, c, "ginlimit_errors_total")["kind=other,limiter=failing"]; got != n-50 {
		t.Errorf("%v errors have other as their kind, want %d", got, n-50)
	}
}

// TestLimiterNamedOther has the name of what is too many to be told apart.
func TestLimiterNamedOther(t *testing.T) {
	c := ginlimitprom.New(ginlimitprom.WithCardinalityLimit(2))
	for _, name := range []string{"other", "api", "login", "search", "other"} {
		d := ginlimit.Decision{Limiter: name, Key: "k"}
		d.Limit.Name = "a"
		c.Observe(t.Context(), d)
	}
	if got := series(t, c, "ginlimit_denied_keys"); got["limiter=other"] == 0 { // and a name that came twice would fail the scrape
		t.Errorf("denied keys: %v", got)
	}
}

// TestLabelsAreClean gives names that no label can hold: a tier's comes from a database.
func TestLabelsAreClean(t *testing.T) {
	c := ginlimitprom.New()
	d := ginlimit.Decision{Limiter: "a\xffb", Tier: strings.Repeat("ü", 100), Key: "secret", Err: said("\xc3"), Cost: 1}
	c.Observe(t.Context(), d)
	d.Tier += "other end"
	c.Observe(t.Context(), d)
	got := series(t, c, "ginlimit_decisions_total")
	wantSeries(t, c, "ginlimit_decisions_total", map[string]float64{
		"limit=,limiter=a�b,outcome=error_refused,tier=" + strings.Repeat("ü", 64): 2,
	})
	for labels := range got {
		if !utf8.ValidString(labels) {
			t.Errorf("%q is not UTF-8", labels)
		}
	}
	wantSeries(t, c, "ginlimit_errors_total", map[string]float64{"kind=�,limiter=a�b": 2})
	text, err := testutil.CollectAndFormat(c, expfmt.TypeTextPlain, "ginlimit_decisions_total", "ginlimit_errors_total")
	if err != nil || strings.Contains(string(text), "secret") {
		t.Errorf("%v, and a key must not be in:\n%s", err, text)
	}
}

func TestLint(t *testing.T) {
	c := everything(t)
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(c)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range families {
		names = append(names, f.GetName())
	}
	want := []string{
		"ginlimit_answers_total", "ginlimit_bans_total", "ginlimit_breaker_open", "ginlimit_decision_duration_seconds", "ginlimit_decisions_total", "ginlimit_denied_keys",
		"ginlimit_errors_total", "ginlimit_near_limit_decisions_total", "ginlimit_requests_in_flight", "ginlimit_tier_lookup_failures_total",
		"ginlimit_wait_duration_seconds",
	}
	if !slices.Equal(names, want) {
		t.Errorf("metrics are %v, want all: %v", names, want)
	}
	problems, err := testutil.GatherAndLint(reg)
	if err != nil || len(problems) > 0 {
		t.Error(problems, err)
	}
}

// everything returns a collector each of whose metrics has a sample.
func everything(t *testing.T) *ginlimitprom.Collector {
	t.Helper()
	c := ginlimitprom.New(ginlimitprom.WithBreakers("redis", func() map[string]bool { return map[string]bool{"127.0.0.1:6379": false} }))
	serve(t, c, 2, ginlimit.PerHour(1), ginlimit.Global())
	l, err := ginlimit.NewLimiter(ginlimit.InFlight(1), ginlimit.Global())
	if err != nil {
		t.Fatal(err)
	}
	c.Watch(l)
	c.Observe(t.Context(), ginlimit.Decision{Limiter: "default", Key: "k", Err: backend.ErrUnavailable, TierErr: io.EOF, Waited: 1, Elapsed: 1})
	return c
}

// TestHistograms looks for both forms: Prometheus takes the one it is configured for.
func TestHistograms(t *testing.T) {
	c := everything(t)
	for name, buckets := range map[string]int{"ginlimit_decision_duration_seconds": 19, "ginlimit_wait_duration_seconds": 14} {
		h := family(t, c, name)[0].GetHistogram()
		if len(h.GetBucket()) != buckets {
			t.Errorf("%s has %d classic buckets, want %d", name, len(h.GetBucket()), buckets)
		}
		if len(h.GetPositiveSpan()) == 0 || h.GetSchema() < 3 { // 3 is a factor of 1.09
			t.Errorf("%s is no native histogram: schema %d", name, h.GetSchema())
		}
	}
}

func TestRegisteredTwice(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	c := ginlimitprom.New()
	if err := reg.Register(c); err != nil {
		t.Fatal(err)
	}
	for _, again := range []*ginlimitprom.Collector{c, ginlimitprom.New()} {
		var twice prometheus.AlreadyRegisteredError
		if err := reg.Register(again); !errors.As(err, &twice) || twice.ExistingCollector != c {
			t.Errorf("registered again: %v, want an AlreadyRegisteredError with the first", err)
		}
	}
	// Two that have to be told apart, and another name.
	second := prometheus.WrapRegistererWith(prometheus.Labels{"app": "admin"}, prometheus.NewRegistry())
	if err := errors.Join(second.Register(ginlimitprom.New()), prometheus.WrapRegistererWithPrefix("shop_", reg).Register(ginlimitprom.New())); err != nil {
		t.Error(err)
	}
}

func TestOptionsThatAreNotValid(t *testing.T) {
	none := func() map[string]bool { return nil }
	type opts = []ginlimitprom.Option
	for _, tt := range []struct {
		says string
		opts opts
	}{
		{"WithNearLimit(0)", opts{ginlimitprom.WithNearLimit(0)}},
		{"WithNearLimit(1.1)", opts{ginlimitprom.WithNearLimit(1.1)}},
		{"WithCardinalityLimit(0)", opts{ginlimitprom.WithCardinalityLimit(0)}},
		{"WithCardinalityLimit(10001)", opts{ginlimitprom.WithCardinalityLimit(10_001)}},
		{`WithBreakers("redis")`, opts{ginlimitprom.WithBreakers("redis", nil)}},
		{`WithBreakers("")`, opts{ginlimitprom.WithBreakers("", none)}},
		{"is given twice", opts{ginlimitprom.WithBreakers("a", none), ginlimitprom.WithBreakers("a", none)}},
		{"option 1 is nil", opts{nil}},
	} {
		func() {
			defer func() {
				if r := fmt.Sprint(recover()); !strings.HasPrefix(r, "ginlimit: ") || !strings.Contains(r, tt.says) {
					t.Errorf("%s: it panics with %q", tt.says, r)
				}
			}()
			ginlimitprom.New(tt.opts...)
		}()
	}
}

// TestConcurrent observes and gathers at once; the race detector looks on, and nothing may be lost.
func TestConcurrent(t *testing.T) {
	c := ginlimitprom.New(ginlimitprom.WithCardinalityLimit(30))
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(c)
	const workers, each = 8, 1000
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				d := ginlimit.Decision{Limiter: "api", Tier: fmt.Sprint(i % 50), Key: fmt.Sprint(i)}
				d.Limit = ginlimit.PerHour(10).Named("hourly")
				d.Allowed = i%2 == 0
				if i%10 == 9 {
					d.Err = said(fmt.Sprint(i))
				}
				c.Observe(context.Background(), d)
				if i%250 == w {
					if _, err := reg.Gather(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	for name, want := range map[string]float64{
		"ginlimit_decisions_total": workers * each, "ginlimit_answers_total": workers * each * 9 / 10,
		"ginlimit_errors_total": workers * each / 10, "ginlimit_decision_duration_seconds": workers * each * 9 / 10,
	} {
		total := 0.0
		for _, v := range series(t, c, name) {
			total += v
		}
		if total != want {
			t.Errorf("%s counts %v, want %v", name, total, want)
		}
	}
}

// TestDeniedKeys counts callers, whatever they are called and however often they come, for a
// minute.
func TestDeniedKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := ginlimitprom.New()
		deny := func(limiter string, callers int) {
			for range 3 {
				for i := range callers {
					d := ginlimit.Decision{Limiter: limiter, Key: fmt.Sprint("ip:", i)}
					d.Limit = ginlimit.PerHour(10)
					c.Observe(t.Context(), d)
				}
			}
		}
		for _, callers := range []int{1, 10, 100, 1000, 30_000} {
			limiter := fmt.Sprint(callers)
			deny(limiter, callers)
			// The seed is random: four standard errors, and of a few callers some may share a
			// register.
			least, most := max(1, float64(callers)*0.74-2), float64(callers)*1.26
			if got := series(t, c, "ginlimit_denied_keys")["limiter="+limiter]; got < least || got > most {
				t.Errorf("of %d callers %v are counted", callers, got)
			}
		}
		ten := series(t, c, "ginlimit_denied_keys")["limiter=10"]
		time.Sleep(50 * time.Second)
		deny("10", 5) // of the same
		if got := series(t, c, "ginlimit_denied_keys")["limiter=10"]; got != ten {
			t.Errorf("after 50 s %v of 10 callers are counted, and %v at first", got, ten)
		}
		time.Sleep(21 * time.Second)
		if got := series(t, c, "ginlimit_denied_keys")["limiter=10"]; got < 2 || got > 6 {
			t.Errorf("after 71 s %v of 5 callers are counted", got)
		}
		time.Sleep(time.Minute)
		if got := series(t, c, "ginlimit_denied_keys")["limiter=10"]; got != 0 {
			t.Errorf("two minutes later %v callers are counted", got)
		}
		time.Sleep(9 * time.Second) // to where the memory of the first moment is used again
		deny("1000", 1)
		if got := series(t, c, "ginlimit_denied_keys")["limiter=1000"]; got != 1 {
			t.Errorf("140 s after the first 1,000 callers %v are counted, want the one of now", got)
		}
	})
}
