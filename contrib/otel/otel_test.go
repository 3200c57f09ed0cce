package ginlimitotel_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-gonic/gin"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/memory"
	"github.com/ginlimit/ginlimit/backend/redis"
	ginlimitotel "github.com/ginlimit/ginlimit/contrib/otel"
	"github.com/ginlimit/ginlimit/internal/testserver"
)

func TestMain(m *testing.M) {
	gin.SetMode(gin.ReleaseMode)
	os.Exit(m.Run())
}

// telemetry is an Observer and all that it told.
type telemetry struct {
	*ginlimitotel.Observer
	t      *testing.T
	reader *metric.ManualReader
	spans  *tracetest.InMemoryExporter
	tracer trace.Tracer
}

func newTelemetry(t *testing.T, opts ...ginlimitotel.Option) *telemetry {
	t.Helper()
	reader, spans := metric.NewManualReader(), tracetest.NewInMemoryExporter()
	meters := metric.NewMeterProvider(metric.WithReader(reader))
	tracers := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
	o, err := ginlimitotel.New(append([]ginlimitotel.Option{ginlimitotel.WithMeterProvider(meters)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	return &telemetry{Observer: o, t: t, reader: reader, spans: spans, tracer: tracers.Tracer("test")}
}

// serve sends requests to a route behind limiters, each with a span of its own, as otelgin starts
// it.
func (tel *telemetry) serve(requests int, limiters ...gin.HandlerFunc) (statuses []int) {
	r := gin.New()
	r.SetTrustedProxies(nil)
	r.Use(func(c *gin.Context) {
		ctx, span := tel.tracer.Start(c.Request.Context(), "GET /")
		defer span.End()
		c.Request = c.Request.WithContext(ctx)
		c.Next()
	})
	r.Use(limiters...)
	r.GET("/", func(c *gin.Context) { c.Status(http.StatusOK) })
	for range requests {
		w := httptest.NewRecorder()
		r.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		statuses = append(statuses, w.Code)
	}
	return statuses
}

// limit returns a limiter that is observed.
func (tel *telemetry) limit(limit ginlimit.Limit, opts ...ginlimit.Option) gin.HandlerFunc {
	return ginlimit.New(limit, ginlimit.ByIP(), append([]ginlimit.Option{
		ginlimit.WithName("api"), ginlimit.WithObserver(tel.Observe)}, opts...)...)
}

// collect returns the metrics of our scope.
func (tel *telemetry) collect() []metricdata.Metrics {
	tel.t.Helper()
	var all metricdata.ResourceMetrics
	if err := tel.reader.Collect(context.Background(), &all); err != nil {
		tel.t.Fatal(err)
	}
	for _, s := range all.ScopeMetrics {
		if s.Scope == (instrumentation.Scope{Name: ginlimitotel.ScopeName}) {
			return s.Metrics
		}
	}
	return nil
}

// metrics returns how often each series was counted, without the name's first part, which all
// share.
func (tel *telemetry) metrics() map[string]int64 {
	tel.t.Helper()
	counts := make(map[string]int64)
	for _, m := range tel.collect() {
		name := strings.TrimPrefix(m.Name, "ginlimit.")
		switch data := m.Data.(type) {
		case metricdata.Sum[int64]:
			for _, p := range data.DataPoints {
				counts[name+" "+text(p.Attributes.ToSlice())] = p.Value
			}
		case metricdata.Histogram[float64]:
			for _, p := range data.DataPoints {
				counts[name+" "+text(p.Attributes.ToSlice())] = int64(p.Count)
			}
		default:
			tel.t.Errorf("%s is a %T", m.Name, m.Data)
		}
	}
	return counts
}

// text writes attributes sorted by name, without the part of the name that all share.
func text(attrs []attribute.KeyValue) string {
	var all []string
	for _, a := range attrs {
		all = append(all, strings.TrimPrefix(string(a.Key), "ginlimit.")+"="+a.Value.String())
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// wantMetrics compares the decisions and failed look-ups, which have no time in them.
func (tel *telemetry) wantMetrics(want map[string]int64) {
	tel.t.Helper()
	if got := tel.metrics(); !maps.Equal(got, want) {
		tel.t.Errorf("metrics:\n%s\nwant:\n%s", lines(got), lines(want))
	}
}

func lines(m map[string]int64) string {
	var all []string
	for k, v := range m {
		all = append(all, fmt.Sprintf("\t%s: %d", k, v))
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

// wantSpan compares the events and the attributes of a span.
func (tel *telemetry) wantSpan(index int, attrs string, events ...string) {
	tel.t.Helper()
	span := tel.spans.GetSpans()[index]
	if got := text(span.Attributes); got != attrs {
		tel.t.Errorf("span %d: attributes\n\t%s\nwant\n\t%s", index, got, attrs)
	}
	var got []string
	for _, e := range span.Events {
		if e.Name != "ginlimit.decision" {
			tel.t.Errorf("span %d has an event %q", index, e.Name)
		}
		got = append(got, text(e.Attributes))
	}
	if !slices.Equal(got, events) {
		tel.t.Errorf("span %d: events\n\t%s\nwant\n\t%s", index, strings.Join(got, "\n\t"), strings.Join(events, "\n\t"))
	}
}

// down is a store that fails.
type down struct {
	backend.Backend
	cause error
}

func (b down) Take(context.Context, string, int64, ...backend.Limit) (backend.Result, error) {
	return backend.Result{}, fmt.Errorf("ginlimit: test: %w: %w", backend.ErrUnavailable, b.cause)
}

type timeout struct{}

func (timeout) Error() string { return "i/o time-out" }
func (timeout) Timeout() bool { return true }

func TestOutcomes(t *testing.T) {
	noKey := func(*gin.Context) (string, error) { return "", nil }
	failing := func(*gin.Context) (string, error) { return "", errors.New("203.0.113.7 is a secret") }
	refused := errors.New("connection refused")

	tests := []struct {
		name     string
		limiter  func(*telemetry) gin.HandlerFunc
		statuses []int
		metrics  map[string]int64
		attrs    string // of the last request's span
		events   []string
	}{
		{
			name:     "allowed",
			limiter:  func(tel *telemetry) gin.HandlerFunc { return tel.limit(ginlimit.PerHour(2)) },
			statuses: []int{200, 200},
			metrics: map[string]int64{
				"decisions limit=api limiter=api outcome=allowed source=store": 2,
				"decision.duration limiter=api source=store":                   2,
			},
		},
		{
			name:     "denied",
			limiter:  func(tel *telemetry) gin.HandlerFunc { return tel.limit(ginlimit.PerHour(1)) },
			statuses: []int{200, 429, 429},
			metrics: map[string]int64{
				"decisions limit=api limiter=api outcome=allowed source=store": 1,
				"decisions limit=api limiter=api outcome=denied source=store":  2,
				"decision.duration limiter=api source=store":                   3,
			},
			attrs:  "cost=1 limit=api limiter=api outcome=denied remaining=0 retry_after=3600 source=store",
			events: []string{"cost=1 limit=api limiter=api outcome=denied remaining=0 retry_after=3600 source=store"},
		},
		{
			name: "denied for ever",
			limiter: func(tel *telemetry) gin.HandlerFunc {
				return tel.limit(ginlimit.PerHour(5), ginlimit.WithCost(func(*gin.Context) int64 { return 6 }))
			},
			statuses: []int{429},
			metrics: map[string]int64{
				"decisions limit=api limiter=api outcome=denied source=store": 1,
				"decision.duration limiter=api source=store":                  1,
			},
			attrs:  "cost=6 limit=api limiter=api outcome=denied remaining=5 source=store",
			events: []string{"cost=6 limit=api limiter=api outcome=denied remaining=5 source=store"},
		},
		{
			name: "dry run",
			limiter: func(tel *telemetry) gin.HandlerFunc {
				return tel.limit(ginlimit.PerHour(1), ginlimit.WithDryRun(true))
			},
			statuses: []int{200, 200},
			metrics: map[string]int64{
				"decisions limit=api limiter=api outcome=allowed source=store":        1,
				"decisions limit=api limiter=api outcome=dry_run_denied source=store": 1,
				"decision.duration limiter=api source=store":                          2,
			},
			events: []string{"cost=1 limit=api limiter=api outcome=dry_run_denied remaining=0 retry_after=3600 source=store"},
		},
		{
			name: "no key",
			limiter: func(tel *telemetry) gin.HandlerFunc {
				return ginlimit.New(ginlimit.PerHour(1), noKey, ginlimit.WithName("keyed"), ginlimit.WithObserver(tel.Observe))
			},
			statuses: []int{400},
			metrics:  map[string]int64{"decisions limiter=keyed outcome=no_key": 1},
			attrs:    "cost=0 limiter=keyed outcome=no_key",
			events:   []string{"cost=0 limiter=keyed outcome=no_key"},
		},
		{
			name: "the KeyFunc fails",
			limiter: func(tel *telemetry) gin.HandlerFunc {
				return ginlimit.New(ginlimit.PerHour(1), failing, ginlimit.WithName("keyed"), ginlimit.WithObserver(tel.Observe))
			},
			statuses: []int{200},
			metrics:  map[string]int64{"decisions error.type=key limiter=keyed outcome=error_passed": 1},
			events:   []string{"cost=0 error.type=key limiter=keyed outcome=error_passed"},
		},
		{
			name: "negative cost",
			limiter: func(tel *telemetry) gin.HandlerFunc {
				return tel.limit(ginlimit.PerHour(1), ginlimit.WithCost(func(*gin.Context) int64 { return -1 }))
			},
			statuses: []int{400},
			metrics:  map[string]int64{"decisions limiter=api outcome=bad_cost": 1},
			attrs:    "cost=-1 limiter=api outcome=bad_cost",
			events:   []string{"cost=-1 limiter=api outcome=bad_cost"},
		},
		{
			name: "fail open",
			limiter: func(tel *telemetry) gin.HandlerFunc {
				return tel.limit(ginlimit.PerHour(1), ginlimit.WithBackend(down{cause: refused}))
			},
			statuses: []int{200, 200},
			metrics: map[string]int64{
				"decisions error.type=unavailable limiter=api outcome=error_passed": 2,
				"decision.duration error.type=unavailable limiter=api":              2,
			},
			events: []string{"cost=1 error.type=unavailable limiter=api outcome=error_passed"},
		},
		{
			name: "fail closed",
			limiter: func(tel *telemetry) gin.HandlerFunc {
				return tel.limit(ginlimit.PerHour(1), ginlimit.WithBackend(down{cause: context.DeadlineExceeded}), ginlimit.WithFailurePolicy(ginlimit.FailClosed))
			},
			statuses: []int{503},
			metrics: map[string]int64{
				"decisions error.type=timeout limiter=api outcome=error_refused": 1,
				"decision.duration error.type=timeout limiter=api":               1,
			},
			attrs:  "cost=1 error.type=timeout limiter=api outcome=error_refused",
			events: []string{"cost=1 error.type=timeout limiter=api outcome=error_refused"},
		},
		{
			name: "fallback",
			limiter: func(tel *telemetry) gin.HandlerFunc {
				return tel.limit(ginlimit.PerHour(1), ginlimit.WithBackend(backend.Fallback(down{cause: refused}, memory.New())))
			},
			statuses: []int{200, 429},
			metrics: map[string]int64{
				"decisions limit=api limiter=api outcome=allowed source=fallback": 1,
				"decisions limit=api limiter=api outcome=denied source=fallback":  1,
				"decision.duration limiter=api source=fallback":                   2,
			},
			attrs:  "cost=1 limit=api limiter=api outcome=denied remaining=0 retry_after=3600 source=fallback",
			events: []string{"cost=1 limit=api limiter=api outcome=denied remaining=0 retry_after=3600 source=fallback"},
		},
		{
			name: "tier",
			limiter: func(tel *telemetry) gin.HandlerFunc {
				return tel.limit(ginlimit.PerHour(1), ginlimit.WithTier(func(*gin.Context) (ginlimit.Tier, error) {
					return ginlimit.Tier{Name: "pro", Limits: []ginlimit.Limit{ginlimit.PerHour(2).Named("hour"), ginlimit.PerDay(2).Named("day")}}, nil
				}))
			},
			statuses: []int{200, 200, 429},
			metrics: map[string]int64{
				"decisions limit=hour limiter=api outcome=allowed source=store tier=pro": 2,
				"decisions limit=day limiter=api outcome=denied source=store tier=pro":   1,
				"decision.duration limiter=api source=store":                             3,
			},
			attrs:  "cost=1 limit=day limiter=api outcome=denied remaining=0 retry_after=43200 source=store tier=pro",
			events: []string{"cost=1 limit=day limiter=api outcome=denied remaining=0 retry_after=43200 source=store tier=pro"},
		},
		{
			name: "tier error",
			limiter: func(tel *telemetry) gin.HandlerFunc {
				return tel.limit(ginlimit.PerHour(3), ginlimit.WithTier(func(*gin.Context) (ginlimit.Tier, error) {
					return ginlimit.Tier{}, fmt.Errorf("plans: %w", context.Canceled)
				}))
			},
			statuses: []int{200},
			metrics: map[string]int64{
				"decisions limit=api limiter=api outcome=allowed source=store": 1,
				"decision.duration limiter=api source=store":                   1,
				"tier_lookup.errors error.type=canceled limiter=api":           1,
			},
			events: []string{"cost=1 limit=api limiter=api outcome=allowed remaining=2 source=store tier_error=canceled"},
		},
		{
			name: "waited",
			limiter: func(tel *telemetry) gin.HandlerFunc {
				return tel.limit(ginlimit.Per(1, 20*time.Millisecond), ginlimit.WithMaxWait(time.Minute))
			},
			statuses: []int{200, 200},
			metrics: map[string]int64{
				"decisions limit=api limiter=api outcome=allowed source=store": 2,
				"decision.duration limiter=api source=store":                   2,
				"wait.duration limiter=api":                                    1,
			},
			events: []string{"cost=1 limit=api limiter=api outcome=allowed remaining=0 source=store waited=0.02"},
		},
		{
			name:     "unlimited",
			limiter:  func(tel *telemetry) gin.HandlerFunc { return tel.limit(ginlimit.Unlimited()) },
			statuses: []int{200},
			metrics: map[string]int64{
				"decisions limit=api limiter=api outcome=allowed source=store": 1,
				"decision.duration limiter=api source=store":                   1,
			},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tel := newTelemetry(t)
				limiter := test.limiter(tel)
				statuses := tel.serve(len(test.statuses), limiter)
				if !slices.Equal(statuses, test.statuses) {
					t.Errorf("statuses %v, want %v", statuses, test.statuses)
				}
				tel.wantMetrics(test.metrics)
				tel.wantSpan(len(statuses)-1, test.attrs, test.events...)
				if test.statuses[0] == http.StatusOK && len(statuses) > 1 && test.name != "fail open" {
					tel.wantSpan(0, "") // it passed at once
				}
			})
		})
	}
}

// Several limiters of one request: each has its event, and the attributes are of the one that
// refused.
func TestSeveralLimiters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tel := newTelemetry(t)
		named := func(name string, limit ginlimit.Limit, opts ...ginlimit.Option) gin.HandlerFunc {
			return tel.limit(limit, append(opts, ginlimit.WithName(name))...)
		}
		tel.serve(1,
			named("fine", ginlimit.PerHour(9)),
			named("trial", ginlimit.PerHour(0), ginlimit.WithDryRun(true)),
			named("broken", ginlimit.PerHour(9), ginlimit.WithBackend(down{cause: io.EOF})),
			named("strict", ginlimit.PerHour(0)),
			named("never asked", ginlimit.PerHour(9)),
		)
		tel.wantSpan(0, "cost=1 limit=strict limiter=strict outcome=denied remaining=0 source=store",
			"cost=1 limit=trial limiter=trial outcome=dry_run_denied remaining=0 source=store",
			"cost=1 error.type=unreachable limiter=broken outcome=error_passed",
			"cost=1 limit=strict limiter=strict outcome=denied remaining=0 source=store",
		)
	})
}

// TestBans has a caller that does not stop banned, and one banned by hand in a dry run.
func TestBans(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tel := newTelemetry(t)
		second := ginlimit.PerSecond(1).WithAlgorithm(ginlimit.FixedWindow)
		ban := ginlimit.WithBan(ginlimit.PerHour(2), time.Minute, time.Hour)
		quiet := ginlimit.WithLogger(slog.New(slog.DiscardHandler))
		tel.serve(6, tel.limit(second, ban, quiet))
		tel.serve(4, tel.limit(second, ban, quiet, ginlimit.WithDryRun(true), ginlimit.WithName("trial")))
		dry, err := ginlimit.NewLimiter(second, ginlimit.Global(), ginlimit.WithName("dry"), ginlimit.WithDryRun(true),
			ginlimit.WithObserver(tel.Observe))
		if err != nil {
			t.Fatal(err)
		}
		if err := dry.Ban(t.Context(), ginlimit.KeyOfGlobal(), time.Minute); err != nil {
			t.Fatal(err)
		}
		tel.serve(1, dry.Handle)
		got := tel.metrics()
		maps.DeleteFunc(got, func(series string, _ int64) bool { return strings.HasPrefix(series, "decision.duration") })
		want := map[string]int64{
			"decisions limit=api limiter=api outcome=allowed source=store":            1,
			"decisions limit=api limiter=api outcome=denied source=store":             2,
			"decisions limit=ban limiter=api outcome=banned source=store":             3,
			"decisions limit=trial limiter=trial outcome=allowed source=store":        1,
			"decisions limit=trial limiter=trial outcome=dry_run_denied source=store": 3,
			"decisions limit=dry limiter=dry outcome=dry_run_banned source=store":     1,
			"bans limiter=api": 1,
		}
		if !maps.Equal(got, want) {
			t.Errorf("metrics:\n%s\nwant:\n%s", lines(got), lines(want))
		}
		tel.wantSpan(5, "cost=1 limit=ban limiter=api outcome=banned remaining=0 retry_after=60 source=store",
			"cost=1 limit=ban limiter=api outcome=banned remaining=0 retry_after=60 source=store")
	})
}

// TestWatch collects from within a handler, and after it.
func TestWatch(t *testing.T) {
	tel := newTelemetry(t, ginlimitotel.WithCardinalityLimit(2))
	limiter := func(name string, limit ginlimit.Limit) *ginlimit.Limiter {
		l, err := ginlimit.NewLimiter(limit, ginlimit.Global(), ginlimit.WithName(name))
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	all, again, rate := limiter("all", ginlimit.InFlight(5)), limiter("all", ginlimit.InFlight(3)), limiter("rate", ginlimit.PerHour(9))
	for _, watched := range [][]*ginlimit.Limiter{{all, rate}, {again}, {}} {
		if err := tel.Watch(watched...); err != nil {
			t.Fatal(err)
		}
	}
	tel.serve(2, all.Handle, rate.Handle, again.Handle, func(*gin.Context) {
		tel.wantMetrics(map[string]int64{"requests.in_flight limiter=all": 2, "requests.in_flight limiter=rate": 0})
	})
	tel.wantMetrics(map[string]int64{"requests.in_flight limiter=all": 0, "requests.in_flight limiter=rate": 0})
	for _, wrong := range [][]*ginlimit.Limiter{{nil}, {all}, {limiter("one", ginlimit.InFlight(1)), rate}} {
		if err := tel.Watch(wrong...); err == nil || !strings.HasPrefix(err.Error(), "ginlimit: ginlimitotel: Watch: ") {
			t.Errorf("Watch(%v): got error %v, want one", wrong, err)
		}
	}
	if err := tel.Watch(limiter("third", ginlimit.InFlight(1))); err != nil {
		t.Fatal(err)
	}
	tel.wantMetrics(map[string]int64{
		"requests.in_flight limiter=all": 0, "requests.in_flight limiter=rate": 0, "requests.in_flight limiter=_OTHER": 0,
	})
}

func TestAllowedEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tel := newTelemetry(t, ginlimitotel.WithAllowedEvents())
		tel.serve(1, tel.limit(ginlimit.PerHour(9)), tel.limit(ginlimit.Unlimited(), ginlimit.WithName("all")))
		tel.wantSpan(0, "",
			"cost=1 limit=api limiter=api outcome=allowed remaining=8 source=store",
			"cost=1 limit=all limiter=all outcome=allowed source=store")
	})
}

// Allow has no request: what it is given is observed.
func TestAllow(t *testing.T) {
	tel := newTelemetry(t)
	l, err := ginlimit.NewLimiter(ginlimit.PerHour(0), ginlimit.Global(), ginlimit.WithName("mail"), ginlimit.WithObserver(tel.Observe))
	if err != nil {
		t.Fatal(err)
	}
	ctx, span := tel.tracer.Start(t.Context(), "send")
	l.Allow(ctx, "user:alice", 2)
	span.End()
	want := "cost=2 limit=mail limiter=mail outcome=denied remaining=0 source=store"
	tel.wantSpan(0, want, want)
	l.Allow(t.Context(), "user:alice", 1) // without a span
	tel.wantMetrics(map[string]int64{
		"decisions limit=mail limiter=mail outcome=denied source=store": 2,
		"decision.duration limiter=mail source=store":                   2,
	})
}

// A client that has gone cancels its context. Its decision counts.
func TestCanceledContext(t *testing.T) {
	tel := newTelemetry(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	tel.Observe(ctx, ginlimit.Decision{Limiter: "api", Result: ginlimit.Result{Allowed: true}})
	tel.wantMetrics(map[string]int64{
		"decisions limiter=api outcome=allowed source=store": 1,
		"decision.duration limiter=api source=store":         1,
	})
}

// deaf is a span that nobody records.
type deaf struct {
	trace.Span
	t *testing.T
}

func (deaf) IsRecording() bool                               { return false }
func (d deaf) AddEvent(name string, _ ...trace.EventOption)  { d.t.Errorf("event %q", name) }
func (d deaf) SetAttributes(attrs ...attribute.KeyValue)     { d.t.Errorf("attributes %v", attrs) }
func (d deaf) RecordError(err error, _ ...trace.EventOption) { d.t.Error(err) }
func (d deaf) SetStatus(code codes.Code, _ string)           { d.t.Errorf("status %v", code) }

func TestSpanThatNobodyRecords(t *testing.T) {
	tel := newTelemetry(t, ginlimitotel.WithHashedKey(make([]byte, 16)), ginlimitotel.WithAllowedEvents())
	ctx := trace.ContextWithSpan(t.Context(), deaf{trace.SpanFromContext(t.Context()), t})
	tel.Observe(ctx, ginlimit.Decision{Limiter: "api", Key: "ip:192.0.2.1", Result: ginlimit.Result{RetryAfter: time.Second}})
	tel.Observe(ctx, ginlimit.Decision{Limiter: "api", Err: ginlimit.ErrNoKey})
	if got := len(tel.metrics()); got != 3 {
		t.Errorf("%d series are counted, want 3: %v", got, tel.metrics())
	}
}

func TestNoKeyLeaves(t *testing.T) {
	secret := []byte("0123456789abcdef")
	for name, opts := range map[string][]ginlimitotel.Option{
		"default": {ginlimitotel.WithAllowedEvents()},
		"hashed":  {ginlimitotel.WithAllowedEvents(), ginlimitotel.WithHashedKey(secret)},
	} {
		t.Run(name, func(t *testing.T) {
			tel := newTelemetry(t, opts...)
			failing := func(*gin.Context) (string, error) { return "", errors.New("192.0.2.1 has no account") }
			tel.serve(2, tel.limit(ginlimit.PerHour(1)), ginlimit.New(ginlimit.PerHour(1), failing, ginlimit.WithObserver(tel.Observe)))
			told := fmt.Sprint(tel.metrics(), tel.spans.GetSpans())
			if strings.Contains(told, "192.0.2.1") {
				t.Errorf("the key is told: %s", told)
			}
			mac := hmac.New(sha256.New, secret)
			mac.Write([]byte("ip:192.0.2.1"))
			hash := "key.hash=" + hex.EncodeToString(mac.Sum(nil))[:32]
			for _, span := range tel.spans.GetSpans() {
				if got := strings.Contains(text(span.Events[0].Attributes), hash); got != (name == "hashed") {
					t.Errorf("the hash of the key is told: %v, in %s", got, text(span.Events[0].Attributes))
				}
			}
			if strings.Contains(fmt.Sprint(tel.metrics()), "hash") {
				t.Errorf("a hash is in the metrics: %v", tel.metrics())
			}
		})
	}
}

// The caller's secret may be overwritten after New.
func TestHashedKeyCopiesTheSecret(t *testing.T) {
	secret := []byte("0123456789abcdef")
	tel := newTelemetry(t, ginlimitotel.WithHashedKey(secret))
	clear(secret)
	tel.serve(1, tel.limit(ginlimit.PerHour(0)))
	mac := hmac.New(sha256.New, []byte("0123456789abcdef"))
	mac.Write([]byte("ip:192.0.2.1"))
	if got, want := text(tel.spans.GetSpans()[0].Attributes), hex.EncodeToString(mac.Sum(nil))[:32]; !strings.Contains(got, want) {
		t.Errorf("%s has not %s", got, want)
	}
}

// kind is an error of a backend that this module does not know.
type kind string

func (k kind) Error() string { return "203.0.113.7: " + string(k) }
func (k kind) Kind() string  { return string(k) }

func TestErrorTypes(t *testing.T) {
	for want, cause := range map[string]error{
		"breaker_open":  redis.ErrBreakerOpen,
		"out_of_memory": redis.ErrOutOfMemory,
		"read_only":     fmt.Errorf("%w: %w", redis.ErrReadOnly, context.DeadlineExceeded),
		"timeout":       &net.OpError{Op: "read", Err: timeout{}},
		"canceled":      context.Canceled,
		"unreachable":   &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED},
		"unavailable":   errors.New("something else"),
		"deadlock":      fmt.Errorf("another store: %w", kind("deadlock")),
		"starting":      redis.ErrStarting,
	} {
		tel := newTelemetry(t)
		tel.serve(1, tel.limit(ginlimit.PerHour(1), ginlimit.WithBackend(down{cause: cause})))
		tel.wantMetrics(map[string]int64{
			"decisions error.type=" + want + " limiter=api outcome=error_passed": 1,
			"decision.duration error.type=" + want + " limiter=api":              1,
		})
	}
	tel := newTelemetry(t)
	tel.Observe(t.Context(), ginlimit.Decision{Limiter: "api", Key: "k", Err: errors.New("ginlimit: a limit is not valid")})
	tel.wantMetrics(map[string]int64{"decisions error.type=_OTHER limiter=api outcome=error_refused": 1})
}

// A Redis that hangs, as the backend itself says it: the first pay the time budget, the others find
// the breaker open.
func TestErrorTypesOfRedis(t *testing.T) {
	server := testserver.Redis(t)
	b, err := redis.Dial(t.Context(), server.URL(), redis.WithPing(),
		redis.WithTimeout(10*time.Millisecond), redis.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	server.Pause()
	tel := newTelemetry(t)
	const series = "decisions error.type=%s limiter=api outcome=error_passed"
	for deadline := time.Now().Add(20 * time.Second); ; {
		tel.serve(1, tel.limit(ginlimit.PerHour(1), ginlimit.WithBackend(b)))
		got := tel.metrics()
		if got[fmt.Sprintf(series, "timeout")] > 0 && got[fmt.Sprintf(series, "breaker_open")] > 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no time-out or no open breaker:\n%s", lines(got))
		}
	}
}

func TestDryRunsWithoutDecision(t *testing.T) {
	tel := newTelemetry(t)
	tel.Observe(t.Context(), ginlimit.Decision{Limiter: "api", DryRun: true, Err: ginlimit.ErrNoKey})
	tel.Observe(t.Context(), ginlimit.Decision{Limiter: "api", DryRun: true, Key: "k", Cost: -1, Err: errors.New("ginlimit: the cost is negative")})
	tel.Observe(t.Context(), ginlimit.Decision{Limiter: "api", DryRun: true, Key: "k", Err: backend.ErrUnavailable})
	tel.wantMetrics(map[string]int64{
		"decisions limiter=api outcome=dry_run_no_key":                      1,
		"decisions limiter=api outcome=dry_run_bad_cost":                    1,
		"decisions error.type=unavailable limiter=api outcome=error_passed": 1,
		"decision.duration error.type=unavailable limiter=api":              1,
	})
}

// Tiers from a database may be any number, limiters by mistake. What comes first keeps its name.
func TestCardinalityLimit(t *testing.T) {
	tel := newTelemetry(t, ginlimitotel.WithCardinalityLimit(2))
	observe := func(limiter, tier, limit string) {
		tel.Observe(t.Context(), ginlimit.Decision{Limiter: limiter, Tier: tier,
			Result: ginlimit.Result{Allowed: true, Limit: ginlimit.PerHour(1).Named(limit)}})
	}
	for range 2 {
		observe("api", "free", "a")
		observe("api", "pro", "b")
		for i := range 50 {
			observe("api", fmt.Sprint("customer-", i), fmt.Sprint("limit-", i))
			observe("search", "", fmt.Sprint("limit-", i))
			observe(fmt.Sprint("limiter-", i), "", "")
		}
	}
	rest := " outcome=allowed source=store"
	decisions := make(map[string]int64)
	for k, v := range tel.metrics() {
		if name, ok := strings.CutPrefix(k, "decisions "); ok {
			decisions[name] = v
		}
	}
	want := map[string]int64{
		"limit=a limiter=api" + rest + " tier=free":        2,
		"limit=b limiter=api" + rest + " tier=pro":         2,
		"limit=_OTHER limiter=api" + rest + " tier=_OTHER": 100,
		"limit=_OTHER limiter=search" + rest:               100,
		"limiter=_OTHER" + rest:                            100,
	}
	if !maps.Equal(decisions, want) {
		t.Errorf("decisions:\n%s\nwant:\n%s", lines(decisions), lines(want))
	}
}

// TestManyTiersDoNotHideErrors: in an outage the operator has to see what it is.
func TestManyTiersDoNotHideErrors(t *testing.T) {
	tel := newTelemetry(t, ginlimitotel.WithCardinalityLimit(10))
	for i := range 50 {
		tel.Observe(t.Context(), ginlimit.Decision{Limiter: "api", Tier: fmt.Sprint("customer-", i), Key: "k",
			Result: ginlimit.Result{Allowed: true, Limit: ginlimit.PerHour(1).Named("a")}})
	}
	tel.Observe(t.Context(), ginlimit.Decision{Limiter: "api", Tier: "customer-51", Key: "k",
		Err: fmt.Errorf("%w: %w", backend.ErrUnavailable, context.DeadlineExceeded)})
	got := tel.metrics()
	for _, series := range []string{
		"decisions error.type=timeout limiter=api outcome=error_refused tier=_OTHER", "decision.duration error.type=timeout limiter=api",
	} {
		if got[series] != 1 {
			t.Errorf("there is no %s:\n%s", series, lines(got))
		}
	}
}

// OTLP refuses a whole export for one string that is not UTF-8.
func TestNamesAreUTF8(t *testing.T) {
	tel := newTelemetry(t)
	tier := ginlimit.Tier{Name: "pro\xff", Limits: []ginlimit.Limit{ginlimit.PerHour(0)}}
	tel.serve(1, tel.limit(ginlimit.PerHour(1), ginlimit.WithTier(func(*gin.Context) (ginlimit.Tier, error) { return tier, nil })))
	const want = "limit=api limiter=api outcome=denied"
	tel.wantMetrics(map[string]int64{
		"decisions " + want + " source=store tier=pro\uFFFD": 1,
		"decision.duration limiter=api source=store":         1,
	})
	attrs := "cost=1 " + want + " remaining=0 source=store tier=pro\uFFFD"
	tel.wantSpan(0, attrs, attrs)
}

func TestInstruments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tel := newTelemetry(t)
		tier := func(*gin.Context) (ginlimit.Tier, error) { return ginlimit.Tier{}, io.EOF }
		tel.serve(2, tel.limit(ginlimit.Per(1, 20*time.Millisecond), ginlimit.WithMaxWait(time.Minute), ginlimit.WithTier(tier)))
		units := map[string]string{
			"ginlimit.decisions": "{decision}", "ginlimit.decision.duration": "s",
			"ginlimit.wait.duration": "s", "ginlimit.tier_lookup.errors": "{error}",
		}
		for _, m := range tel.collect() {
			if unit, ok := units[m.Name]; !ok || m.Unit != unit || !strings.HasSuffix(m.Description, ".") {
				t.Errorf("%s: unit %q, want %q; description %q", m.Name, m.Unit, unit, m.Description)
			}
			delete(units, m.Name)
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				if !data.IsMonotonic || data.Temporality != metricdata.CumulativeTemporality {
					t.Errorf("%s is not a counter", m.Name)
				}
			case metricdata.Histogram[float64]:
				if p := data.DataPoints[0]; m.Name == "ginlimit.wait.duration" && (p.Sum != 0.02 || p.BucketCounts[3] != 1 || p.Bounds[3] != .025) {
					t.Errorf("%s: sum %v s, counts %v of %v", m.Name, p.Sum, p.BucketCounts, p.Bounds)
				}
			}
		}
		if len(units) != 0 {
			t.Errorf("not measured: %v", units)
		}
	})
}

// A decision within a sampled trace is an exemplar of the histogram's bucket: from a slow bucket to
// the request.
func TestExemplars(t *testing.T) {
	tel := newTelemetry(t)
	tel.serve(1, tel.limit(ginlimit.PerHour(1)))
	span := tel.spans.GetSpans()[0].SpanContext
	for _, m := range tel.collect() {
		data, ok := m.Data.(metricdata.Histogram[float64])
		if !ok {
			continue
		}
		e := data.DataPoints[0].Exemplars
		if id := span.TraceID(); len(e) != 1 || !slices.Equal(e[0].TraceID, id[:]) {
			t.Errorf("%s: exemplars %v, want one of trace %v", m.Name, e, id)
		}
	}
}

// The global provider may be set after New.
func TestGlobalProvider(t *testing.T) {
	o, err := ginlimitotel.New()
	if err != nil {
		t.Fatal(err)
	}
	reader := metric.NewManualReader()
	otel.SetMeterProvider(metric.NewMeterProvider(metric.WithReader(reader)))
	tel := &telemetry{Observer: o, t: t, reader: reader}
	o.Observe(t.Context(), ginlimit.Decision{Limiter: "api", Result: ginlimit.Result{Allowed: true}})
	tel.wantMetrics(map[string]int64{
		"decisions limiter=api outcome=allowed source=store": 1,
		"decision.duration limiter=api source=store":         1,
	})
}

func TestOptions(t *testing.T) {
	for name, opt := range map[string]ginlimitotel.Option{
		"nil":                        nil,
		"WithMeterProvider(nil)":     ginlimitotel.WithMeterProvider(nil),
		"the secret has 0 bytes":     ginlimitotel.WithHashedKey(nil),
		"the secret has 15 bytes":    ginlimitotel.WithHashedKey(make([]byte, 15)),
		"WithCardinalityLimit(0)":    ginlimitotel.WithCardinalityLimit(0),
		"WithCardinalityLimit(2001)": ginlimitotel.WithCardinalityLimit(2001),
	} {
		if o, err := ginlimitotel.New(opt); o != nil || err == nil || !strings.HasPrefix(err.Error(), "ginlimit: ginlimitotel.") || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, n := range []int{1, 2000} {
		if _, err := ginlimitotel.New(ginlimitotel.WithCardinalityLimit(n)); err != nil {
			t.Error(err)
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	tel := newTelemetry(t, ginlimitotel.WithCardinalityLimit(10))
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := range 500 {
				tel.Observe(t.Context(), ginlimit.Decision{Limiter: "api", Tier: fmt.Sprint((i + worker) % 20),
					Result: ginlimit.Result{Allowed: i%2 == 0}})
			}
		})
	}
	wg.Wait()
	var total int64
	for name, n := range tel.metrics() {
		if strings.HasPrefix(name, "decisions ") {
			total += n
		}
	}
	if total != 4000 {
		t.Errorf("%d decisions are counted, want 4000", total)
	}
}

// What passes is told without an allocation, also with a span that is recorded. Should a new
// release of the SDK allocate, the second measurement still holds ours to none.
func TestAllocations(t *testing.T) {
	if raceEnabled() {
		t.Skip("the race detector allocates")
	}
	tel := newTelemetry(t, ginlimitotel.WithHashedKey(make([]byte, 16)))
	quiet, err := ginlimitotel.New(ginlimitotel.WithMeterProvider(noop.NewMeterProvider()))
	if err != nil {
		t.Fatal(err)
	}
	d := ginlimit.Decision{Limiter: "api", Tier: "pro", Key: "ip:192.0.2.1", Cost: 1,
		Result: ginlimit.Result{Allowed: true, Limit: ginlimit.PerHour(9).Named("hour"), Remaining: 8}}
	ctx, span := tel.tracer.Start(t.Context(), "GET /")
	defer span.End()
	for name, observe := range map[string]func(context.Context, ginlimit.Decision){"SDK": tel.Observe, "no metrics": quiet.Observe} {
		if got := testing.AllocsPerRun(1000, func() { observe(ctx, d) }); got != 0 {
			t.Errorf("%s: %v allocations for a request that passes", name, got)
		}
	}
}

func BenchmarkObserve(b *testing.B) {
	o, err := ginlimitotel.New(ginlimitotel.WithMeterProvider(metric.NewMeterProvider(metric.WithReader(metric.NewManualReader()))))
	if err != nil {
		b.Fatal(err)
	}
	tracers := sdktrace.NewTracerProvider()
	passed := ginlimit.Decision{Limiter: "api", Tier: "pro", Key: "ip:192.0.2.1", Cost: 1,
		Result: ginlimit.Result{Allowed: true, Limit: ginlimit.PerHour(9).Named("hour"), Remaining: 8}, Elapsed: time.Microsecond}
	denied := passed
	denied.Result = ginlimit.Result{Limit: passed.Limit, RetryAfter: time.Second}
	for name, d := range map[string]ginlimit.Decision{"passed": passed, "denied": denied} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				o.Observe(b.Context(), d)
			}
		})
		b.Run(name+" with a span", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				ctx, span := tracers.Tracer("").Start(b.Context(), "GET /")
				o.Observe(ctx, d)
				span.End()
			}
		})
	}
}

// raceEnabled reports whether this was built with the race detector, which allocates.
func raceEnabled() bool {
	info, _ := debug.ReadBuildInfo()
	return slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}
