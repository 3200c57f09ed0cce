// Package ginlimitotel tells OpenTelemetry what ginlimit decides: metrics of every decision, and on
// the span of a request what kept it from passing at once. It uses the API alone; which SDK and
// exporters there are is the application's choice.
//
//	observer, err := ginlimitotel.New()
//	…
//	r.Use(ginlimit.New(ginlimit.PerMinute(100), ginlimit.ByIP(), ginlimit.WithObserver(observer.Observe)))
//
// A key is never among what it tells: not at all by default, and as a keyed hash on spans with
// [WithHashedKey]. Nor is the text of an error, which a KeyFunc may have put a key in.
//
// The package stands in a directory called otel and is not called so itself, because the file that
// uses it imports OpenTelemetry's package of that name too.
package ginlimitotel

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/backend"
)

// ScopeName is the name of the instrumentation scope of all that is told.
const ScopeName = "github.com/ginlimit/ginlimit/contrib/otel"

// The attributes. Those of metrics have few values; the rest is for spans.
const (
	attrLimiter = attribute.Key("ginlimit.limiter")
	attrTier    = attribute.Key("ginlimit.tier")
	attrLimit   = attribute.Key("ginlimit.limit")
	attrOutcome = attribute.Key("ginlimit.outcome")
	attrSource  = attribute.Key("ginlimit.source")
	attrError   = attribute.Key("error.type") // of the semantic conventions

	attrCost       = attribute.Key("ginlimit.cost")
	attrRemaining  = attribute.Key("ginlimit.remaining")
	attrRetryAfter = attribute.Key("ginlimit.retry_after")
	attrWaited     = attribute.Key("ginlimit.waited")
	attrTierError  = attribute.Key("ginlimit.tier_error")
	attrKeyHash    = attribute.Key("ginlimit.key.hash")
)

const eventName = "ginlimit.decision"

// Option changes a default of [New].
type Option func(*Observer) error

// WithMeterProvider sets where metrics go; the default is the global provider, which may be set
// later.
func WithMeterProvider(p metric.MeterProvider) Option {
	return func(o *Observer) error {
		if o.provider = p; p == nil {
			return errors.New("ginlimit: ginlimitotel.WithMeterProvider(nil): leave the option out for the global one, or use one of metric/noop for no metrics")
		}
		return nil
	}
}

// WithAllowedEvents adds an event to the span for requests that pass as well: what they have left,
// and what decided. The default is none, because most requests pass, and a span without a word
// about a limit was not limited.
func WithAllowedEvents() Option {
	return func(o *Observer) error {
		o.allowed = true
		return nil
	}
}

// minSecret is the shortest secret, in bytes: of 128 bits.
const minSecret = 16

// WithHashedKey adds to spans, not to metrics, the attribute ginlimit.key.hash: the first 16 bytes
// of the HMAC-SHA-256 of the key, in hexadecimal, so that the requests of one caller can be found
// without a trace saying who it is. With the secret one can find out who it is, by trying all
// addresses or users. So that nobody can guess it, the secret is 16 random bytes or more. With a
// new secret the hashes of a caller before and after have nothing in common.
func WithHashedKey(secret []byte) Option {
	return func(o *Observer) error {
		if len(secret) < minSecret {
			return fmt.Errorf("ginlimit: ginlimitotel.WithHashedKey: the secret has %d bytes; use %d or more, of crypto/rand", len(secret), minSecret)
		}
		o.secret = slices.Clone(secret)
		return nil
	}
}

// The range of [WithCardinalityLimit].
const (
	defaultCardinality = 200
	maxCardinality     = 2000
)

// WithCardinalityLimit sets how many combinations of a limiter's, a tier's and a limit's name and
// an error's type the metrics tell apart, 1 to 2,000; the default is 200. Names of tiers often come
// from a database, and each would be more series for as long as the process lives. Of those that
// come later the tier and the limit are "_OTHER", and after twice as many combinations the limiter
// too. So are types of errors after the first 50. The SDK has a limit of its own, by default 2,000
// sets of attributes for each instrument, above which it drops all attributes, the limiter too.
func WithCardinalityLimit(n int) Option {
	return func(o *Observer) error {
		if o.series.most = n; n < 1 || n > maxCardinality {
			return fmt.Errorf("ginlimit: ginlimitotel.WithCardinalityLimit(%d): use 1 to %d", n, maxCardinality)
		}
		return nil
	}
}

// Observer tells OpenTelemetry what limiters decide. One serves any number of them; it is safe for
// concurrent use and has nothing to close.
type Observer struct {
	provider metric.MeterProvider
	allowed  bool
	secret   []byte
	series   seriesCache

	decisions   metric.Int64Counter
	duration    metric.Float64Histogram
	wait        metric.Float64Histogram
	tierLookups metric.Int64Counter
	bans        metric.Int64Counter
	inFlight    metric.Int64ObservableUpDownCounter

	mu      sync.Mutex
	watched []*ginlimit.Limiter
}

// New returns an Observer. It returns an error, which begins with "ginlimit: ", if an option is not
// valid or the provider refuses an instrument.
func New(opts ...Option) (*Observer, error) {
	o := &Observer{provider: otel.GetMeterProvider()}
	o.series.most = defaultCardinality
	for i, opt := range opts {
		if opt == nil {
			return nil, fmt.Errorf("ginlimit: ginlimitotel.New: option %d is nil", i+1)
		}
		if err := opt(o); err != nil {
			return nil, err
		}
	}
	if err := o.instruments(); err != nil {
		return nil, fmt.Errorf("ginlimit: ginlimitotel.New: %w", err)
	}
	return o, nil
}

func (o *Observer) instruments() error {
	meter := o.provider.Meter(ScopeName)
	var errs [6]error
	o.decisions, errs[0] = meter.Int64Counter("ginlimit.decisions", metric.WithUnit("{decision}"),
		metric.WithDescription("Decisions of rate limiters."))
	// From a decision in memory, of less than a µs, to a time budget that is used up: 100 ms by
	// default on Redis.
	o.duration, errs[1] = meter.Float64Histogram("ginlimit.decision.duration", metric.WithUnit("s"),
		metric.WithDescription("Time that the backend took to decide, or to fail."),
		metric.WithExplicitBucketBoundaries(1e-6, 1e-5, 1e-4, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, 1))
	o.wait, errs[2] = meter.Float64Histogram("ginlimit.wait.duration", metric.WithUnit("s"),
		metric.WithDescription("Time that requests were held until they fit, or were refused."),
		metric.WithExplicitBucketBoundaries(.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30))
	o.tierLookups, errs[3] = meter.Int64Counter("ginlimit.tier_lookup.errors", metric.WithUnit("{error}"),
		metric.WithDescription("Tiers that could not be found out: the one that the caller had last decided, or the limiter's own limits."))
	o.bans, errs[4] = meter.Int64Counter("ginlimit.bans", metric.WithUnit("{ban}"),
		metric.WithDescription("Bans that came about because a caller did not stop."))
	o.inFlight, errs[5] = meter.Int64ObservableUpDownCounter("ginlimit.requests.in_flight", metric.WithUnit("{request}"),
		metric.WithDescription("Requests in this process that hold places of a limit of requests in flight."),
		metric.WithInt64Callback(o.observeFlights))
	return errors.Join(errs[:]...)
}

// Watch tells how many requests of a limiter are in flight, for those that have a limit of them
// ([ginlimit.InFlight]). A limiter is made with the Observer, and so is watched only afterwards.
// Limiters of one name are one sum. Watch returns an error, and watches none of them, if a limiter
// is nil or was given before. It may be called at any time, and adds to what is watched.
func (o *Observer) Watch(limiters ...*ginlimit.Limiter) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	watched := slices.Clone(o.watched)
	for i, l := range limiters {
		if l == nil {
			return fmt.Errorf("ginlimit: ginlimitotel: Watch: limiter %d is nil", i+1)
		}
		if slices.Contains(watched, l) {
			return fmt.Errorf("ginlimit: ginlimitotel: Watch: limiter %q is there twice", l.Name())
		}
		watched = append(watched, l)
	}
	o.watched = watched
	return nil
}

// observeFlights is asked whenever metrics are collected.
func (o *Observer) observeFlights(_ context.Context, told metric.Int64Observer) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	all := make(map[string]int64)
	for _, l := range o.watched {
		name := l.Name()
		if _, known := all[name]; !known && len(all) >= o.series.most {
			name = other
		}
		all[name] += l.InFlight()
	}
	for name, n := range all {
		told.Observe(n, metric.WithAttributes(attrLimiter.String(name)))
	}
	return nil
}

// Observe is for [ginlimit.WithObserver], which calls it with the request's context: there the
// middleware that starts spans, such as otelgin or otelhttp, has put the span, if it comes before
// the limiter. ginlimit.Limiter.Allow hands its own on.
//
// Metrics: each decision is counted and timed. Span: nothing if it passed at once, unless
// [WithAllowedEvents] says so. Otherwise an event, ginlimit.decision, of which a span may have any
// number, so that several limiters of one request do not overwrite each other. If the request was
// refused, the span has the same attributes, which can be searched for. Only one of the limiters in
// front of a handler refuses. Of several refusals by Check the last stays. The span's status is
// left to the middleware that started the span.
func (o *Observer) Observe(ctx context.Context, d ginlimit.Decision) {
	s := o.series.of(labelsOf(&d))
	o.decisions.Add(ctx, 1, s.decision...)
	if d.Err == nil || d.Key != "" && errors.Is(d.Err, backend.ErrUnavailable) { // the backend was asked
		o.duration.Record(ctx, d.Elapsed.Seconds(), s.duration...)
	}
	if d.Waited > 0 {
		o.wait.Record(ctx, d.Waited.Seconds(), s.wait...)
	}
	if d.BanBegan() && d.Cost > 0 {
		o.bans.Add(ctx, 1, s.ban...)
	}
	if d.TierErr != nil {
		o.tierLookups.Add(ctx, 1, o.series.of(labels{names: names{limiter: d.Limiter, err: errorType(d.TierErr)}}).tierLookup...)
	}
	if o.allowed || d.Err != nil || !d.Allowed || d.TierErr != nil || d.Waited > 0 {
		o.trace(trace.SpanFromContext(ctx), &d)
	}
}

// trace puts a decision on a span, if somebody records it.
func (o *Observer) trace(span trace.Span, d *ginlimit.Decision) {
	if !span.IsRecording() {
		return
	}
	attrs := o.spanAttributes(d)
	// OpenTelemetry means to replace AddEvent by events in its logs (OTEP 4430), and to go on
	// showing both on spans. It is used as long as the logs of Go's API are not stable for the Go
	// release that this module supports.
	span.AddEvent(eventName, trace.WithAttributes(attrs...))
	if !d.Passes() {
		span.SetAttributes(attrs...)
	}
}

func (o *Observer) spanAttributes(d *ginlimit.Decision) []attribute.KeyValue {
	l := labelsOf(d)
	attrs := append(make([]attribute.KeyValue, 0, 16), l.attributes()...)
	attrs = append(attrs, attrCost.Int64(d.Cost))
	if d.Err == nil && !d.Limit.IsUnlimited() {
		attrs = append(attrs, attrRemaining.Int64(d.Remaining))
	}
	if d.Err == nil && !d.Allowed && d.RetryAfter >= 0 {
		attrs = append(attrs, attrRetryAfter.Float64(d.RetryAfter.Seconds()))
	}
	if d.Waited > 0 {
		attrs = append(attrs, attrWaited.Float64(d.Waited.Seconds()))
	}
	if d.TierErr != nil {
		attrs = append(attrs, attrTierError.String(valid(errorType(d.TierErr))))
	}
	if o.secret != nil && d.Key != "" {
		attrs = append(attrs, attrKeyHash.String(o.hash(d.Key)))
	}
	return attrs
}

func (o *Observer) hash(key string) string {
	h := hmac.New(sha256.New, o.secret)
	h.Write([]byte(key))
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// valid makes a name fit for protobuf, which refuses all that is exported together if one string is
// not UTF-8. Names of limiters and limits are ASCII; those of tiers may be anything.
func valid(name string) string { return strings.ToValidUTF8(name, "\uFFFD") }
