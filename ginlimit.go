// Package ginlimit limits the rate of requests to a Gin application: exactly, with truthful
// headers, in memory for one process and through another [backend.Backend] for many.
//
//	r.SetTrustedProxies(nil) // ByIP says why
//	r.Use(ginlimit.New(ginlimit.PerMinute(100), ginlimit.ByIP()))
//
// A [Limit] says how much, a [KeyFunc] who is asking, an [Option] everything else. What does not
// fit into a middleware is on the [Limiter]: Check and Respond in a handler, Allow outside HTTP,
// Peek and Reset for operators.
//
// Counters are kept in the process or, by [WithBackend], where all instances of an application see
// them: package backend/redis, or the module backend/goredis or backend/postgres. They count units,
// 1 for a request unless [WithCost] says otherwise. Times are time.Duration. Errors begin with
// "ginlimit: ".
package ginlimit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/ginlimit/ginlimit/backend"
)

// Limit is a rate: Count units per Period. See [backend.Limit].
type Limit = backend.Limit

// Result is what a backend answered. See [backend.Result].
type Result = backend.Result

// Tier is a named list of limits for one kind of caller. See [WithTier].
type Tier = backend.Tier

// The algorithms of package backend, for [Limit.WithAlgorithm].
const (
	TokenBucket   = backend.TokenBucket   // the default: refilled continuously, with a burst
	SlidingWindow = backend.SlidingWindow // two counters; see its bound
	SlidingLog    = backend.SlidingLog    // exact: never more than Count in any Period
	FixedWindow   = backend.FixedWindow   // starts at the key's first hit

	CalendarWindow = backend.CalendarWindow // PerCalendarDay and the like
	Concurrency    = backend.Concurrency    // InFlight
)

// PerSecond returns a token bucket of n requests a second, all of which may come at once.
func PerSecond(n int64) Limit { return Per(n, time.Second) }

// PerMinute returns a token bucket of n requests a minute, all of which may come at once.
func PerMinute(n int64) Limit { return Per(n, time.Minute) }

// PerHour returns a token bucket of n requests an hour, all of which may come at once.
func PerHour(n int64) Limit { return Per(n, time.Hour) }

// PerDay returns a token bucket of n requests in 24 hours, all of which may come at once.
func PerDay(n int64) Limit { return Per(n, 24*time.Hour) }

// Per returns a token bucket of n requests per period, all of which may come at once. WithBurst and
// WithAlgorithm change that. The period is 1 ms to 366 days in whole microseconds; n is 0, which
// blocks everything, to [backend.MaxCount]. [NewLimiter] refuses what is out of range.
func Per(n int64, period time.Duration) Limit { return Limit{Count: n, Period: period} }

// PerCalendarDay returns a limit of n requests between one midnight and the next, in UTC unless
// [Limit.In] says otherwise. Days of 23 and 25 hours, where the clock is changed, are one day.
func PerCalendarDay(n int64) Limit { return backend.PerCalendarDay(n) }

// PerCalendarWeek returns a limit of n requests a week, which begins on Monday at midnight unless
// [Limit.StartingOn] and [Limit.In] say otherwise.
func PerCalendarWeek(n int64) Limit { return backend.PerCalendarWeek(n) }

// PerCalendarMonth returns a limit of n requests a month, which begins on its first day at midnight
// unless [Limit.StartingOn] and [Limit.In] say otherwise.
func PerCalendarMonth(n int64) Limit { return backend.PerCalendarMonth(n) }

// InFlight returns a limit of n requests at the same time. A request holds its units until its
// handlers end, in whatever way: they return, panic, or stream to a client that leaves. The units
// of a process that dies come back after the limit's Period, one minute unless it is changed. Those
// of a request that takes longer are renewed in time. RetryAfter of a refusal is one second by
// convention, because nobody knows when another request ends.
//
// It goes with other limits in one limiter, in one decision. Handle and All give units back by
// themselves. After [Limiter.Check], Allow or Wait, call [Limiter.Settle].
func InFlight(n int64) Limit { return backend.InFlight(n) }

// ParseLimit returns the limit that a text says: "100/m", "10/s burst 20", "5/15m sliding-log",
// "10000/day Europe/Berlin calendar", "5 in flight". See [backend.ParseLimit].
func ParseLimit(text string) (Limit, error) { return backend.ParseLimit(text) }

// Unlimited returns the limit that never refuses: for a tier that has none. PerMinute(0) blocks
// everything.
func Unlimited() Limit { return backend.Unlimited() }

// New returns NewLimiter(limit, key, opts...).Handle. It panics where NewLimiter returns an error,
// so that a mistake shows when the application starts.
func New(limit Limit, key KeyFunc, opts ...Option) gin.HandlerFunc {
	l, err := NewLimiter(limit, key, opts...)
	if err != nil {
		panic(err)
	}
	return l.Handle
}

// NewLimiter returns a Limiter that lets each key have limit. It returns an error, which begins
// with "ginlimit: ", if the limit is not valid, key is nil, or an option is.
func NewLimiter(limit Limit, key KeyFunc, opts ...Option) (*Limiter, error) {
	o := options{
		name:    defaultName,
		limits:  []Limit{limit},
		headers: HeadersIETF | HeadersLegacy,
		logger:  slog.Default(),
	}
	if key == nil {
		return nil, errors.New("ginlimit: the key is nil; use ByIP(), or Global() for one budget for all")
	}
	for i, opt := range opts {
		if opt == nil {
			return nil, fmt.Errorf("ginlimit: option %d is nil", i+1)
		}
		opt(&o)
	}
	if err := o.complete(); err != nil {
		return nil, err
	}
	l := &Limiter{options: o, key: key, inRequest: calledInRequest()}
	var err error
	if l.own, err = newPolicy(l.name, o.limits, o.ban); err != nil {
		return nil, err
	}
	if l.tier != nil {
		l.tiers = newTierMemory()
	}
	if !l.private {
		l.keys = new(longKeys)
	}
	l.timed = len(l.observers) > 0 || l.maxWait > 0
	if b, ok := l.backend.(interface{ Prepare(limits ...Limit) }); ok {
		b.Prepare(l.charged(&Decision{Limits: l.own.limits})...)
	}
	return l, nil
}

// Limiter limits requests. It is immutable, safe for concurrent use and has nothing to close. It
// starts no goroutine, but while requests hold units of a limit of requests in flight, a timer
// renews these in goroutines that end. The same Limiter may stand on the engine, a group and a
// route: a request is charged once.
type Limiter struct {
	options
	key       KeyFunc
	own       *policy                  // of the limiter's own limits
	policies  policies                 // of other limits
	tiers     *tierMemory              // nil without WithTier
	waiting   atomic.Pointer[waitList] // nil until somebody may wait
	flights   flights
	bans      banLog
	timed     bool      // somebody looks at Decision.Elapsed
	keys      *longKeys // nil if the backend is the limiter's own
	expose    exposure
	inRequest bool // built while a request was being handled

	twice, early, keyless, negative sync.Once // diagnostics
	order                           orderChecks
	without                         atomic.Int64 // requests without a key, until one has one; negative from then on
}

// Handle is the middleware: it decides as Check does, writes the headers, and lets the request go
// on or answers it. It waits (WithMaxWait) and settles (WithSettle), which Check does not. A
// request that a handler passes to gin.Engine.HandleContext is another request: Gin forgets all
// that is known of the first.
func (l *Limiter) Handle(c *gin.Context) {
	h := historyOf(c)
	if h.of(l, (*record).byHandle) != nil {
		l.warnTwice(c)
		c.Next()
		return
	}
	r := l.decide(c, true)
	if r == nil { // skipped
		c.Next()
		return
	}
	r.handled, r.shown = true, true
	h.keep(c, r, nil)
	if !l.respond(c, r, h, len(h)) {
		return
	}
	if l.late {
		defer writeLate(c).leave()
	}
	request := c.Request
	if l.board(r); r.flight != nil {
		defer l.land(c, r)
	}
	var seen *values
	if r.Err == nil && l.order.due(r.At.UnixMicro()) {
		seen = valuesOf(c)
	}
	c.Next()
	if c.Request != request && !historyOf(c).has(r) {
		return // other middleware gave the request up, and Gin gave its context to the next
	}
	l.settleFor(c, r)
	if seen != nil && historyOf(c).has(r) && seen.changed(c) {
		l.checkOrder(c, r.Decision)
	}
}

// Check decides whether the request may pass, charges it if so, and writes nothing to the response:
// for a handler that knows only half-way what a request is. Each call charges. [Limiter.Respond]
// tells the client. A request that is skipped, by WithSkip or ErrSkip, has ErrSkip as its Err.
func (l *Limiter) Check(c *gin.Context) Decision {
	r := l.decide(c, false)
	if r == nil {
		return Decision{Limiter: l.name, Limits: l.own.limits, DryRun: l.dryRun, Err: ErrSkip}
	}
	h := historyOf(c)
	last := h.of(l, (*record).byCheck)
	if last == nil || !last.tighter(r) {
		r.shown = last != nil && last.shown
		h.keep(c, r, last)
	}
	return r.Decision
}

// Respond does with a decision of Check what Handle does: it writes the headers, answers the
// request if it does not pass, and reports whether it passes. With [WithLateHeaders], c.Writer is
// the limiter's own from then on.
func (l *Limiter) Respond(c *gin.Context, d Decision) bool {
	if errors.Is(d.Err, ErrSkip) {
		return true
	}
	r := &record{Decision: d, limiter: l, policy: l.policyOf(d.Limits), headers: l.headers, shown: true}
	h := historyOf(c)
	h.keep(c, r, h.of(l, (*record).byCheck))
	if !l.respond(c, r, h, len(h)) {
		return false
	}
	if l.late {
		writeLate(c)
	}
	return true
}

// FromContext returns the tightest decision that was made for the request so far: a refusal before
// a pass, the one with the longest wait or the least left before others. A dry run or a failure
// counts only if there is nothing else. It returns false if no limiter saw the request, or all
// skipped it.
func FromContext(c *gin.Context) (Decision, bool) {
	h := historyOf(c)
	if len(h) == 0 {
		return Decision{}, false
	}
	return tightest(h).Decision, true
}

// Allow decides outside HTTP: it charges cost to key, which is what the limiter's KeyFunc would
// return, under the limiter's own limits or, if some are given, under those. A limiter with
// [WithTier] needs them: which tier a caller has is asked of a request. Cost 0 charges nothing.
//
// The error is the Decision's Err: nil also for a refusal, [ErrNoKey] if key is empty, what
// [Limit.Validate] says of a limit that is given, and with [backend.ErrUnavailable] in its chain if
// the backend failed. The failure policy is the caller's to apply, by Decision.Passes, which lets
// nobody pass whose ctx is done.
func (l *Limiter) Allow(ctx context.Context, key string, cost int64, limits ...Limit) (d Decision, err error) {
	l.begin(&d)
	if l.replace(&d, limits) && l.keyed(&d, key, nil) && l.costs(&d, cost) {
		l.take(ctx, &d)
	}
	l.observe(ctx, &d)
	return d, d.Err
}

// Peek returns what a request of cost 1 would be told now. It charges nothing, writes nothing, and
// is not observed. The key is what the KeyFunc returns, such as "ip:203.0.113.7"; Decision.Key has
// it. Its errors, and the limits that it needs, are those of Allow.
func (l *Limiter) Peek(ctx context.Context, key string, limits ...Limit) (d Decision, err error) {
	l.begin(&d)
	if l.replace(&d, limits) && l.keyed(&d, key, nil) {
		l.take(ctx, &d)
	}
	return d, d.Err
}

// Reset forgets what key has used, under every limit. The key is what the KeyFunc returns, such as
// "ip:203.0.113.7" or "user:alice"; Decision.Key has it. It is not an error if that was nothing. It
// returns [ErrNoKey] if key is empty, and what the backend returns if it failed.
func (l *Limiter) Reset(ctx context.Context, key string) error {
	if key == "" {
		return ErrNoKey
	}
	defer l.waiting.Load().wake(key)
	return l.backend.Reset(ctx, l.backendKey(key))
}

// decide decides about a request and tells the observers. It returns nil if the request is skipped.
func (l *Limiter) decide(c *gin.Context, mayWait bool) *record {
	if l.skips(c) {
		return nil
	}
	r := new(record)
	ready := l.ask(c, r)
	switch {
	case errors.Is(r.Err, ErrSkip):
		return nil
	case !ready:
	case mayWait && l.maxWait > 0 && !l.dryRun:
		l.takeOrWait(l.backendContext(c), c.Request.Context().Done(), &r.Decision)
	default:
		l.take(l.backendContext(c), &r.Decision)
	}
	l.observe(c.Request.Context(), &r.Decision)
	return r
}

// skips reports whether WithSkip exempts a request.
func (l *Limiter) skips(c *gin.Context) bool {
	if l.inRequest {
		l.warnInRequest(c)
	}
	if l.skip == nil || !l.skip(c) {
		return false
	}
	reportSkipped(c)
	l.report(c)
	return true
}

// ask puts into r what is needed to decide, and reports whether all of it is there. Otherwise Err
// says why not: ErrSkip, if the key function skips the request.
func (l *Limiter) ask(c *gin.Context, r *record) (ready bool) {
	defer l.report(c)
	r.limiter, r.policy, r.headers = l, l.own, l.headers
	ready = l.identify(c, r) && l.costs(&r.Decision, l.costOf(c))
	if errors.Is(r.Err, ErrSkip) {
		reportSkipped(c)
	}
	if r.Cost < 0 {
		l.warnCost(c, r.Cost)
	}
	return ready
}

// identify puts the key and the tier of a request in.
func (l *Limiter) identify(c *gin.Context, r *record) bool {
	key, err := l.key(c)
	l.begin(&r.Decision)
	if !l.keyed(&r.Decision, key, err) {
		if c.Request.Context().Err() != nil {
			r.failOpen = false // the client may have ended the look-up
		}
		if errors.Is(r.Err, ErrNoKey) {
			l.countKeyless(c)
		}
		return false
	}
	if l.without.Load() >= 0 {
		l.without.Store(math.MinInt64)
	}
	return l.tier == nil || l.lookUp(c, r)
}

// begin puts in what is the same in all decisions of the limiter.
func (l *Limiter) begin(d *Decision) {
	d.Limiter, d.Limits, d.DryRun = l.name, l.own.limits, l.dryRun
}

// keyed puts the key in, or the reason why there is none.
func (l *Limiter) keyed(d *Decision, key string, err error) bool {
	switch {
	case err == nil && key != "":
		d.Key = key
		return true
	case err == nil:
		d.Err = ErrNoKey
	case errors.Is(err, ErrSkip):
		d.Err = ErrSkip
	default:
		d.Err = err
		d.failOpen = l.policy == FailOpen && !errors.Is(err, ErrNoKey)
	}
	return false
}

func (l *Limiter) costOf(c *gin.Context) int64 {
	if l.cost == nil {
		return 1
	}
	return l.cost(c)
}

func (l *Limiter) costs(d *Decision, cost int64) bool {
	d.Cost = cost
	if cost < 0 {
		d.Err = errNegativeCost
	}
	return cost >= 0
}

// errNoLimits is the error of Allow, Wait, Peek and Usage where the limiter's own limits would be a
// wrong answer.
var errNoLimits = errors.New("ginlimit: the limiter has WithTier, and a key does not tell the tier; " +
	"pass the limits of the caller's tier")

// replace puts limits in the place of the limiter's own, if there are any.
func (l *Limiter) replace(d *Decision, limits []Limit) bool {
	switch {
	case len(limits) > 0:
		var p *policy
		if p, d.Err = l.policies.of(l.name, limits, l.ban); d.Err == nil {
			d.Limits = p.limits
		}
	case l.tier != nil:
		d.Err = errNoLimits
	}
	return d.Err == nil
}

// policyOf returns the policy of the limits of a decision.
func (l *Limiter) policyOf(limits []Limit) *policy {
	if len(limits) == 0 || &limits[0] == &l.own.limits[0] {
		return l.own
	}
	p, err := l.policies.of(l.name, limits, l.ban)
	if err != nil {
		return l.own
	}
	return p
}

// backendContext returns the request's context without its end. A client that closes its half of
// the connection cancels the request and is served nonetheless, and some may choose a deadline:
// neither may get past a limiter that fails open. The store has a time budget of its own.
func (l *Limiter) backendContext(c *gin.Context) context.Context {
	if l.private { // it does not look
		return c.Request.Context()
	}
	return context.WithoutCancel(c.Request.Context())
}

// take asks the backend.
func (l *Limiter) take(ctx context.Context, d *Decision) {
	var start time.Time
	if l.timed { // to read the clock twice takes as long as a decision in memory
		start = time.Now()
	}
	d.banBegan = d.banBegan || d.Result.BanBegan()
	d.Result, d.Err = l.backend.Take(ctx, l.backendKey(d.Key), d.Cost, l.charged(d)...)
	d.Banned = d.Result.Banned()
	if l.timed {
		d.Elapsed += time.Since(start)
	}
	if d.Err != nil {
		d.Result = Result{}
		// A caller that gave up gets nothing for it. That is one of Allow: Handle and Check do not
		// pass the end on.
		d.failOpen = l.policy == FailOpen && errors.Is(d.Err, backend.ErrUnavailable) && ctx.Err() == nil
	}
}

func (l *Limiter) observe(ctx context.Context, d *Decision) {
	if d.BanBegan() && d.Cost > 0 {
		l.noteBan()
	}
	for _, observe := range l.observers {
		observe(ctx, *d)
	}
}

// backendKey returns what the backend knows key as. A name has no NUL, so that no two pairs of a
// name and a key are the same; a backend of our own has no other limiter's keys.
func (l *Limiter) backendKey(key string) string {
	if l.private {
		return key
	}
	return l.keys.of(l.name, key)
}

// respond writes the headers for a record that was made after others, of which those from the index
// made on were decided together with it. It answers the request if r does not pass, and reports
// whether it does.
func (l *Limiter) respond(c *gin.Context, r *record, others history, made int) bool {
	status := r.status()
	var few [4]*record
	all := append(append(few[:0], others...), r)
	retryAfter := writeHeaders(c.Writer.Header(), all, made, status)
	if status == 0 {
		return true
	}
	c.Abort()
	c.Status(status) // also for a deny handler that says nothing
	if l.deny != nil {
		l.deny(c, r.Decision)
		return false
	}
	c.Writer.Header()[fieldType] = []string{problemMedia}
	var body []byte
	if c.Request.Method != http.MethodHead {
		body = problem(r, status, retryAfter)
	}
	// Not WriteHeaderNow, which a writer in front may not know. The client may be gone; then there
	// is nobody to tell.
	_, _ = c.Writer.Write(body)
	return false
}
