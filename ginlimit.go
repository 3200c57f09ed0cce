// Package ginlimit limits the rate of requests to a Gin application: exactly, with truthful headers, in
// memory for one process and through another [backend.Backend] for many.
//
//	r.SetTrustedProxies(nil) // ByIP says why
//	r.Use(ginlimit.New(ginlimit.PerMinute(100), ginlimit.ByIP()))
//
// A [Limit] says how much, a [KeyFunc] who is asking, an [Option] everything else. What does not fit into a
// middleware is on the [Limiter]: Check in a handler, Allow outside HTTP, Peek and Reset for operators.
//
// Counters are kept in the process or, by [WithBackend], where all instances of an application see them: package
// backend/redis, or the module backend/postgres. They count units, 1 for a request unless [WithCost] says otherwise; times
// are time.Duration. Errors begin with "ginlimit: ".
package ginlimit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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

// PerSecond returns a token bucket of n requests a second, all of which may come at once.
func PerSecond(n int64) Limit { return Per(n, time.Second) }

// PerMinute returns a token bucket of n requests a minute, all of which may come at once.
func PerMinute(n int64) Limit { return Per(n, time.Minute) }

// PerHour returns a token bucket of n requests an hour, all of which may come at once.
func PerHour(n int64) Limit { return Per(n, time.Hour) }

// PerDay returns a token bucket of n requests in 24 hours, all of which may come at once.
func PerDay(n int64) Limit { return Per(n, 24*time.Hour) }

// Per returns a token bucket of n requests per period, all of which may come at once. WithBurst and
// WithAlgorithm change that. The period is 1 ms to 366 days in whole microseconds; n is 0, which blocks
// everything, to [backend.MaxCount]. [NewLimiter] refuses what is out of range.
func Per(n int64, period time.Duration) Limit { return Limit{Count: n, Period: period} }

// Unlimited returns the limit that never refuses: for a tier that has none. PerMinute(0) blocks everything.
func Unlimited() Limit { return backend.Unlimited() }

// New returns NewLimiter(limit, key, opts...).Handle. It panics where NewLimiter returns an error, so that a
// mistake shows when the application starts.
func New(limit Limit, key KeyFunc, opts ...Option) gin.HandlerFunc {
	l, err := NewLimiter(limit, key, opts...)
	if err != nil {
		panic(err)
	}
	return l.Handle
}

// NewLimiter returns a Limiter that lets each key have limit. It returns an error, which begins with
// "ginlimit: ", if the limit is not valid, key is nil, or an option is.
func NewLimiter(limit Limit, key KeyFunc, opts ...Option) (*Limiter, error) {
	o := options{name: defaultName, limits: []Limit{limit}, headers: HeadersIETF | HeadersLegacy, logger: slog.Default()}
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
	l.timed = len(o.observers) > 0 || !o.private
	l.plain = !l.timed && o.tier == nil && o.cost == nil && o.skip == nil && o.maxWait == 0 && !l.inRequest
	var err error
	if l.own, err = l.newPlan(o.limits); err != nil {
		return nil, err
	}
	return l, nil
}

// Limiter limits requests. It is immutable, safe for concurrent use, starts no goroutine and has nothing to
// close. The same Limiter may stand on the engine, a group and a route: a request is charged once.
type Limiter struct {
	options
	key       KeyFunc
	own       *plan     // of the limiter's own limits
	plans     planCache // of the tiers' limits
	timed     bool      // Handle measures Decision.Elapsed
	plain     bool      // a request is decided by its key and the process's memory alone
	inRequest bool      // built while a request was being handled
	wait      waitList
	expose    atomic.Pointer[exposed]

	twice, early sync.Once // diagnostics
	order        orderChecks
}

// Decision is what was decided for one request, and why.
type Decision struct {
	Limiter string        // the limiter's name: that of WithName, else "default"
	Tier    string        // the name of the tier that WithTier found; "" if none
	TierErr error         // the tier look-up failed: the limiter's own limits decided
	Key     string        // the key charged, as the KeyFunc returned it; may identify a person; "" if there is none
	Cost    int64         // what the request costs, in units
	Result                // of the limit that decided; zero if Err is not nil
	Limits  []Limit       // the limits in force, for this tier (read-only)
	Elapsed time.Duration // time spent deciding; 0 if Handle decided in memory and nobody observes
	Waited  time.Duration // time a request was held by WithMaxWait
	DryRun  bool          // the limiter refuses nobody (WithDryRun): Allowed says what it would have done
	Err     error         // why no decision was reached, or nil; ErrSkip if none was wanted

	failOpen bool // Err is of the kind that the failure policy lets pass, and it does
}

// errNegativeCost is the error of a request whose WithCost is below 0.
var errNegativeCost = errors.New("ginlimit: the cost is negative; WithCost must return 0 or more")

// Status returns 0 if the request passes, else the HTTP status that it is answered with: 429 if a limit is
// spent, 400 if the request has no key or a negative cost, 503 if no decision was reached and the failure
// policy does not let the request pass: FailClosed never does, FailOpen not where the caller gave up or the limits that it
// gave are not valid. In a dry run it is 0 for every request: Allowed says what would have become of it.
func (d Decision) Status() int {
	switch {
	case d.DryRun || d.Err == nil && d.Allowed || d.failOpen:
		return 0
	case d.Err == nil:
		return http.StatusTooManyRequests
	case errors.Is(d.Err, ErrSkip):
		return 0
	case errors.Is(d.Err, ErrNoKey) || errors.Is(d.Err, errNegativeCost):
		return http.StatusBadRequest
	default:
		return http.StatusServiceUnavailable
	}
}

// Handle is the middleware: it decides as Check does, writes the headers, and lets the request go on or
// answers it. It alone waits (WithMaxWait) and gives charges back (WithRefundIf). A request that a handler passes to
// gin.Engine.HandleContext is another request: Gin forgets all that is known of the first.
func (l *Limiter) Handle(c *gin.Context) {
	before := visitOf(c)
	if before.handledBy(l) {
		l.warnTwice(c)
		c.Next()
		return
	}
	v := l.visit(c, before)
	if v == nil {
		c.Next()
		return
	}
	v.handled = true
	v.enter(c)
	status, retryAfter := v.status(), ""
	if !l.dryRun {
		retryAfter = v.writeHeaders(c, status)
	}
	if status != 0 {
		l.refuse(c, v, status, retryAfter)
		return
	}
	var seen *values
	if v.err() == nil && l.order.due(v.at) {
		seen = valuesOf(c)
	}
	c.Next()
	if l.refundIf != nil && v.allowed {
		l.refund(c, v.decision())
	}
	if seen != nil && seen.changed(c) {
		l.checkOrder(c, v.decision())
	}
}

// visit decides about a request for Handle. It returns nil if the request is skipped.
func (l *Limiter) visit(c *gin.Context, before *visit) *visit {
	if !l.plain {
		var d Decision
		plan := l.decide(c, &d, true)
		return newVisit(plan, &d, before)
	}
	// All that decide comes to where there is nothing else to ask. A Decision on the way would cost a tenth of the whole.
	key, err := l.key(c)
	l.warnTrust(c)
	if err != nil || key == "" {
		var d Decision
		l.init(&d)
		l.decideFor(c, &d, key, err, true)
		return newVisit(l.own, &d, before)
	}
	res, _ := l.backend.Take(c.Request.Context(), key, 1, l.own.limits...) // the limits are valid: memory does not fail
	v := &visit{plan: l.own, before: before, key: key, cost: 1}
	v.hold(&res)
	return v
}

// refund gives a charge back if WithRefundIf says so, also if the client has gone. If that fails the charge stays, which
// lets nobody in.
func (l *Limiter) refund(c *gin.Context, d Decision) {
	if d.Cost > 0 && l.refundIf(c) {
		ctx := context.WithoutCancel(c.Request.Context())
		_ = l.backend.Refund(ctx, l.backendKey(d.Key), d.Result, d.Cost, d.Limits...)
		l.wait.wake(d.Key)
	}
}

// Check decides whether the request may pass, charges it if so, and writes nothing to the response: for a
// handler that knows only half-way what a request is. Each call charges. A request that is skipped, by
// WithSkip or ErrSkip, has ErrSkip as its Err. Check belongs to the request's own goroutine, because it puts a
// writer of its own into c.Writer, as Handle does; others call Allow.
func (l *Limiter) Check(c *gin.Context) Decision {
	var d Decision
	plan := l.decide(c, &d, false)
	if v := newVisit(plan, &d, visitOf(c)); v != nil && v.replaceChecked() {
		v.enter(c)
	}
	return d
}

// FromContext returns the tightest decision that was made for the request so far, and whether there was one, which is
// false if no limiter saw the request or all skipped it:
// a refusal before a pass, the one with the longest wait or the least left before others. A dry run or a
// failure counts only if there is nothing else. A copy of the context (gin.Context.Copy) has none, and neither has a
// request after other middleware put the writer back that was there before the limiter.
func FromContext(c *gin.Context) (Decision, bool) {
	v := visitOf(c)
	if v == nil {
		return Decision{}, false
	}
	return v.tightest(func(*visit) bool { return true }).decision(), true
}

// Allow decides outside HTTP: it charges cost to key, which is what the limiter's KeyFunc would return, under
// the limiter's own limits or, if some are given, under those. The error is the Decision's Err: nil also for
// a refusal, [ErrNoKey] if key is empty, what [Limit.Validate] says of a limit that is given, and with
// [backend.ErrUnavailable] in its chain if the backend failed. The failure policy is the caller's to apply, by
// Decision.Status, which lets nobody pass whose ctx was cancelled. Cost 0 charges nothing.
func (l *Limiter) Allow(ctx context.Context, key string, cost int64, limits ...Limit) (Decision, error) {
	var d Decision
	l.init(&d)
	if l.replace(&d, limits) && l.keyed(&d, key, nil) && l.costs(&d, cost) {
		l.take(ctx, &d, true)
	}
	l.observe(ctx, &d)
	return d, d.Err
}

// Peek returns what a request of cost 1 would be told now. It charges nothing, writes nothing, and is not
// observed. The key is what the KeyFunc returns, such as "ip:203.0.113.7"; Decision.Key has it. Its errors are those of
// Allow.
func (l *Limiter) Peek(ctx context.Context, key string, limits ...Limit) (Decision, error) {
	var d Decision
	l.init(&d)
	if l.replace(&d, limits) && l.keyed(&d, key, nil) {
		l.take(ctx, &d, true)
	}
	return d, d.Err
}

// Reset forgets what key has used, under every limit. The key is what the KeyFunc returns, such as "ip:203.0.113.7" or
// "user:alice"; Decision.Key has it. It is not an error if that was nothing. It returns [ErrNoKey] if key
// is empty, and what the backend returns if it failed.
func (l *Limiter) Reset(ctx context.Context, key string) error {
	if key == "" {
		return ErrNoKey
	}
	defer l.wait.wake(key)
	return l.backend.Reset(ctx, l.backendKey(key))
}

// decide fills d in for a request, tells the observers unless the request is skipped, and returns the plan of the
// limits in force.
func (l *Limiter) decide(c *gin.Context, d *Decision, handling bool) *plan {
	if l.inRequest {
		l.warnInRequest(c)
	}
	defer l.warnTrust(c)
	if l.skip != nil && l.skip(c) {
		d.Err = ErrSkip
		return nil
	}
	l.init(d)
	key, err := l.key(c)
	return l.decideFor(c, d, key, err, handling)
}

// decideFor is decide for a request whose key, or the error of it, is known.
func (l *Limiter) decideFor(c *gin.Context, d *Decision, key string, err error, handling bool) *plan {
	plan := l.own
	if l.keyed(d, key, err) {
		if l.tier != nil {
			plan = l.lookUp(c, d)
		}
		cost := int64(1)
		if l.cost != nil && d.Err == nil {
			cost = l.cost(c)
		}
		if d.Err == nil && l.costs(d, cost) {
			ctx, cancel := l.backendContext(c)
			defer cancel()
			if handling && l.maxWait > 0 && !l.dryRun {
				l.takeOrWait(ctx, c.Request.Context().Done(), d)
			} else {
				l.take(ctx, d, l.timed || !handling)
			}
		}
	} else if d.failOpen && c.Request.Context().Err() != nil {
		d.failOpen = false // the client may have made the look-up fail by hanging up
	}
	if len(l.observers) > 0 && !errors.Is(d.Err, ErrSkip) {
		l.observe(c.Request.Context(), d)
	}
	return plan
}

// backendContext returns the request's context without its cancellation: a client that closes its half of the connection
// cancels the request, is served nonetheless, and must not get past a limiter that fails open.
func (l *Limiter) backendContext(c *gin.Context) (context.Context, context.CancelFunc) {
	ctx := c.Request.Context()
	if l.private { // it does not look
		return ctx, noCancel
	}
	end, ok := ctx.Deadline()
	ctx = context.WithoutCancel(ctx)
	if !ok {
		return ctx, noCancel
	}
	return context.WithDeadline(ctx, end)
}

func noCancel() {}

func (l *Limiter) init(d *Decision) {
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

func (l *Limiter) costs(d *Decision, cost int64) bool {
	d.Cost = cost
	if cost < 0 {
		d.Err = errNegativeCost
	}
	return cost >= 0
}

// replace puts limits in the place of the limiter's own, if there are any.
func (l *Limiter) replace(d *Decision, limits []Limit) bool {
	if len(limits) == 0 {
		return true
	}
	p, err := l.plans.get(l, Tier{Limits: limits})
	if err != nil {
		d.Err = err
		return false
	}
	d.Limits = p.limits
	return true
}

// lookUp puts the tier in, and returns the plan of its limits. Whatever goes wrong, the limiter's own stay.
func (l *Limiter) lookUp(c *gin.Context, d *Decision) *plan {
	tier, err := l.tier(c)
	switch {
	case errors.Is(err, ErrSkip):
		d.Err = ErrSkip
		return l.own
	case err != nil && errors.Is(c.Request.Context().Err(), context.Canceled):
		// The client may have made the look-up fail by hanging up. The limiter's own limits would clamp what it has used
		// under those of its tier: a fresh budget.
		d.TierErr, d.Err = err, err
		return l.own
	}
	if err == nil {
		d.Tier = tier.Name
		if len(tier.Limits) == 0 {
			return l.own
		}
		var p *plan
		if p, err = l.plans.get(l, tier); err == nil {
			d.Limits = p.limits
			return p
		}
	}
	d.TierErr = err
	return l.own
}

// take asks the backend.
func (l *Limiter) take(ctx context.Context, d *Decision, timed bool) {
	var start time.Time
	if timed {
		start = time.Now()
	}
	d.Result, d.Err = l.backend.Take(ctx, l.backendKey(d.Key), d.Cost, d.Limits...)
	if timed {
		d.Elapsed += time.Since(start)
	}
	if d.Err != nil {
		d.Result = Result{}
		// Who gave up gets nothing for it. That is a caller of Allow: Handle and Check do not pass a cancellation on.
		d.failOpen = l.policy == FailOpen && errors.Is(d.Err, backend.ErrUnavailable) && !errors.Is(ctx.Err(), context.Canceled)
	}
}

func (l *Limiter) observe(ctx context.Context, d *Decision) {
	for _, observe := range l.observers {
		observe(ctx, *d)
	}
}

// backendKey returns what the backend knows key as. A name has no NUL, so that no two pairs of a name and a
// key are the same; a backend of our own has no other limiter's keys.
func (l *Limiter) backendKey(key string) string {
	if l.private {
		return key
	}
	return l.name + "\x00" + key
}
