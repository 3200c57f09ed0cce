// Package ginlimitprom shows what ginlimit decides as Prometheus metrics.
//
//	metrics := ginlimitprom.New()
//	prometheus.MustRegister(metrics)
//	r.Use(ginlimit.New(ginlimit.PerMinute(100), ginlimit.ByIP(), ginlimit.WithObserver(metrics.Observe)))
//
// One [Collector] serves all limiters of an application. Its labels are names that the application
// gives, of limiters, tiers and limits, and words of its own: never a key, and never more of them
// than [WithCardinalityLimit] says.
//
// The package stands in a directory called prometheus and is not called so itself, because every
// file that uses it imports client_golang's package of that name too.
package ginlimitprom

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/backend"
)

const (
	// DefaultNearLimit is the share of a limit's capacity below which little is left, unless
	// [WithNearLimit] says otherwise.
	DefaultNearLimit = 0.20
	// DefaultCardinalityLimit is how many label sets a Collector tells apart unless
	// [WithCardinalityLimit] says otherwise.
	DefaultCardinalityLimit = 300
)

// Option changes a default of [New].
type Option func(*Collector) error

// WithNearLimit sets the share of a limit's capacity, above 0 and at most 1, below which an
// admitted request counts as near the limit, by what remains after it; the default is
// [DefaultNearLimit], one fifth.
func WithNearLimit(share float64) Option {
	return func(c *Collector) error {
		if c.nearShare = share; !(share > 0 && share <= 1) {
			return fmt.Errorf("ginlimit: WithNearLimit(%v): use a share above 0 and at most 1, such as 0.2", share)
		}
		return nil
	}
}

// WithCardinalityLimit sets how many combinations of limiter, tier and limit are told apart; the
// default is [DefaultCardinalityLimit]. What comes later has "other" as its tier and limit, and
// after n limiters as its limiter too. That matters where tiers' names come from a database: each
// combination is 3 to 10 time series in Prometheus, and lasts until the process ends. It is 1 to
// 10,000.
func WithCardinalityLimit(n int) Option {
	return func(c *Collector) error {
		if c.maxSets = n; n < 1 || n > 10_000 {
			return fmt.Errorf("ginlimit: WithCardinalityLimit(%d): use 1 to 10000", n)
		}
		return nil
	}
}

// WithBreakers adds the circuit breakers of a store, which is named so in the metric: open says
// of each server, by its address, whether calls to it fail at once. It is the method Breakers of
// backend/redis and backend/postgres. It is called on every scrape, and so has to be quick and safe
// for concurrent use. Give every backend that has breakers, each under a name of its own.
func WithBreakers(store string, open func() map[string]bool) Option {
	name := clean(cut(store))
	return func(c *Collector) error {
		if store == "" || open == nil {
			return fmt.Errorf("ginlimit: WithBreakers(%q) needs a name and a function, such as WithBreakers(\"redis\", b.Breakers)", store)
		}
		if _, twice := c.breakers[name]; twice {
			return fmt.Errorf("ginlimit: WithBreakers(%q) is given twice; give every backend a name of its own", store)
		}
		c.breakers[name] = open
		return nil
	}
}

// Collector counts decisions. It is a [prometheus.Collector], safe for concurrent use, starts no
// goroutine and has nothing to close. Make one with [New].
//
// A registry takes it once; a second one that is to be told from the first needs a label of its
// own, which [prometheus.WrapRegistererWith] adds. [prometheus.WrapRegistererWithPrefix] puts
// something before the names.
type Collector struct {
	nearShare float64
	maxSets   int
	breakers  map[string]func() map[string]bool

	decisions, near, answers, errors, tierErrors, bans *prometheus.CounterVec
	duration, waited                                   *prometheus.HistogramVec
	breakerOpen, deniedKeys, inFlight                  *prometheus.Desc

	durations [numSources + 1]atomic.Pointer[prometheus.Observer] // by source; the last is of errors
	sets      table[labels, *set]
	limiters  table[string, *limiter]
	kinds     table[string, string]
	other     *limiter // all that are too many

	mu      sync.Mutex
	watched []*ginlimit.Limiter
}

var _ prometheus.Collector = (*Collector)(nil)

// New returns a Collector. It panics if an option is nil or not valid.
func New(opts ...Option) *Collector {
	c := &Collector{nearShare: DefaultNearLimit, maxSets: DefaultCardinalityLimit, breakers: map[string]func() map[string]bool{}}
	for i, opt := range opts {
		if opt == nil {
			panic(fmt.Errorf("ginlimit: option %d is nil", i+1))
		}
		if err := opt(c); err != nil {
			panic(err)
		}
	}
	c.decisions = counter("decisions_total", "Decisions by outcome: what starts with dry_run_ passed and would have been refused.",
		"limiter", "tier", "limit", "outcome")
	c.near = counter("near_limit_decisions_total", "Requests that were allowed and left little of the limit: less than a fifth, unless the application says otherwise.",
		"limiter", "tier", "limit")
	c.answers = counter("answers_total", "Decisions reached, by who reached them: store, deny-cache, lease or fallback.",
		"limiter", "source")
	c.errors = counter("errors_total", "Decisions that were not reached, by why: the store's errors by their kind, key if the store was not asked because the key function failed.",
		"limiter", "kind")
	c.tierErrors = counter("tier_lookup_failures_total", "Tier look-ups that failed: the tier that the caller had last decided, or the limiter's own limits.",
		"limiter")
	c.bans = counter("bans_total", "Bans that came about because a caller did not stop (WithBan): what a ban then refuses has the outcome banned.",
		"limiter")
	c.duration = histogram("decision_duration_seconds", "Time spent deciding, by who decided; error is the time until none could.",
		[]float64{1e-6, 2.5e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, .01, .025, .05, .1, .25, .5, 1}, "source")
	c.waited = histogram("wait_duration_seconds", "Time for which requests were held until they fit; those not held are not counted.",
		[]float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}, "limiter")
	c.breakerOpen = prometheus.NewDesc(namespace+"_breaker_open", "1 if calls to the store's server fail at once because it did not answer of late, else 0.",
		[]string{"backend", "server"}, nil)
	c.deniedKeys = prometheus.NewDesc(namespace+"_denied_keys", "Keys that were denied in the last minute, or would have been in a dry run, each counted once, estimated within some 7 %.",
		[]string{"limiter"}, nil)
	c.inFlight = prometheus.NewDesc(namespace+"_requests_in_flight", "Requests in this process that hold places of a limit of requests in flight.",
		[]string{"limiter"}, nil)
	c.other = newLimiter(other)
	return c
}

// Watch shows how many requests of a limiter are in flight, for those that have a limit of them
// ([ginlimit.InFlight]). A limiter is made with the Collector as its observer, and so is watched
// only afterwards:
//
//	observe := ginlimit.WithObserver(metrics.Observe)
//	l, err := ginlimit.NewLimiter(ginlimit.InFlight(200), ginlimit.Global(), observe)
//	…
//	metrics.Watch(l)
//
// Limiters of one name are one sum. Watch panics, and watches none of them, if a limiter is nil or
// was given before. It may be called at any time, and adds to what is watched.
func (c *Collector) Watch(limiters ...*ginlimit.Limiter) {
	c.mu.Lock()
	defer c.mu.Unlock()
	watched := slices.Clone(c.watched)
	for i, l := range limiters {
		if l == nil {
			panic(fmt.Errorf("ginlimit: Watch: limiter %d is nil; leave it out", i+1))
		}
		if slices.Contains(watched, l) {
			panic(fmt.Errorf("ginlimit: Watch: limiter %q is there twice; give it once", l.Name()))
		}
		watched = append(watched, l)
	}
	c.watched = watched
}

const namespace = "ginlimit"

func counter(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
}

// histogram returns a native histogram, whose buckets grow by a tenth, with classic buckets for a
// Prometheus that does not scrape native ones.
func histogram(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Namespace: namespace, Name: name, Help: help, Buckets: buckets,
		NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100, NativeHistogramMinResetDuration: time.Hour,
	}, labels)
}

func (c *Collector) vectors() []prometheus.Collector {
	return []prometheus.Collector{c.decisions, c.near, c.answers, c.errors, c.tierErrors, c.bans, c.duration, c.waited}
}

// Describe implements [prometheus.Collector].
func (c *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, v := range c.vectors() {
		v.Describe(ch)
	}
	ch <- c.breakerOpen
	ch <- c.deniedKeys
	ch <- c.inFlight
}

// Collect implements [prometheus.Collector].
func (c *Collector) Collect(ch chan<- prometheus.Metric) {
	for _, v := range c.vectors() {
		v.Collect(ch)
	}
	now := time.Now()
	for _, l := range append(slices.Collect(maps.Values(c.limiters.all())), c.other) {
		if keys := l.denied.Load(); keys != nil {
			ch <- prometheus.MustNewConstMetric(c.deniedKeys, prometheus.GaugeValue, keys.count(now), l.name)
		}
	}
	for name, breakers := range c.breakers {
		c.collectBreakers(ch, name, breakers())
	}
	for name, n := range c.flights() {
		ch <- prometheus.MustNewConstMetric(c.inFlight, prometheus.GaugeValue, n, name)
	}
}

// flights returns the requests in flight by limiter.
func (c *Collector) flights() map[string]float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make(map[string]float64)
	for _, l := range c.watched {
		name := clean(cut(l.Name()))
		if _, known := all[name]; !known && len(all) >= c.maxSets {
			name = other
		}
		all[name] += float64(l.InFlight())
	}
	return all
}

// collectBreakers shows so many servers as there may be label sets. Two addresses that look the
// same when they are clean are open if one is.
func (c *Collector) collectBreakers(ch chan<- prometheus.Metric, name string, breakers map[string]bool) {
	shown := map[string]float64{}
	for _, server := range slices.Sorted(maps.Keys(breakers)) {
		label := clean(cut(server))
		if _, known := shown[label]; !known && len(shown) >= c.maxSets {
			label = other
		}
		if open := breakers[server]; open {
			shown[label] = 1
		} else {
			shown[label] += 0
		}
	}
	for server, open := range shown {
		ch <- prometheus.MustNewConstMetric(c.breakerOpen, prometheus.GaugeValue, open, name, server)
	}
}

// Observe counts a decision: it is for [ginlimit.WithObserver]. A skipped request (ErrSkip), which
// observers are not told of, does not count either.
func (c *Collector) Observe(_ context.Context, d ginlimit.Decision) {
	o := d.Outcome()
	if o == outcomeSkipped {
		return
	}
	s := c.set(&d)
	c.counterOf(s, o).Inc()
	if d.TierErr != nil {
		c.tierErrors.WithLabelValues(s.limiter.name).Inc()
	}
	if d.Waited > 0 {
		c.waited.WithLabelValues(s.limiter.name).Observe(d.Waited.Seconds())
	}
	if d.Err != nil {
		c.errored(s, o, &d)
		return
	}
	source := min(d.Source, numSources-1)
	s.limiter.answer(c, source).Inc()
	c.durationOf(int(source)).Observe(d.Elapsed.Seconds())
	if d.Allowed && c.isNear(&d) {
		c.nearOf(s).Inc()
	}
	if !d.Allowed {
		s.limiter.deny(d.Key)
	}
	if d.BanBegan() && d.Cost > 0 {
		c.bans.WithLabelValues(s.limiter.name).Inc()
	}
}

// isNear reports whether little is left. Where a limit holds one unit, nothing is left after each,
// which says nothing.
func (c *Collector) isNear(d *ginlimit.Decision) bool {
	capacity := d.Limit.Capacity()
	return capacity > 1 && !d.Limit.IsUnlimited() && float64(d.Remaining) < c.nearShare*float64(capacity)
}

// errored counts a decision that was not reached because something failed; a request without a key
// did not fail.
func (c *Collector) errored(s *set, outcome string, d *ginlimit.Decision) {
	if outcome != outcomePassed && outcome != outcomeRefused {
		return
	}
	c.errors.WithLabelValues(s.limiter.name, c.kind(d)).Inc()
	if d.Elapsed > 0 { // the backend was asked
		c.durationOf(int(numSources)).Observe(d.Elapsed.Seconds())
	}
}

// The words of ginlimit.Decision.Outcome that mean more here than others.
const (
	outcomeAllowed   = "allowed"
	outcomeDenied    = "denied"
	outcomeDryDenied = "dry_run_denied"
	outcomePassed    = "error_passed"
	outcomeRefused   = "error_refused"
	outcomeSkipped   = "skipped"
)

// outcomes are the words whose counters a set remembers. Others are looked up for each decision.
var outcomes = [...]string{
	outcomeAllowed, outcomeDenied, outcomeDryDenied, outcomePassed, outcomeRefused,
	"banned", "dry_run_banned", "not_charged", "no_key", "bad_cost", "dry_run_no_key", "dry_run_bad_cost",
}

// numSources is one more than the backend has: the last stands for those that it may have later.
const numSources = backend.SourceFallback + 2

func sourceName(s backend.Source) string {
	if s == numSources-1 {
		return other
	}
	return s.String()
}

func (c *Collector) durationOf(i int) prometheus.Observer {
	if o := c.durations[i].Load(); o != nil {
		return *o
	}
	name := "error"
	if i < int(numSources) {
		name = sourceName(backend.Source(i))
	}
	o := c.duration.WithLabelValues(name)
	c.durations[i].Store(&o)
	return o
}
