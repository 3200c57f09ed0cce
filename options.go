package ginlimit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/memory"
)

// Option changes a default of [NewLimiter]. Of two that say the same thing the last one wins,
// unless its documentation says that it adds. An Option that cannot be honoured makes NewLimiter
// return an error.
type Option func(*options)

type options struct {
	name      string
	limits    []Limit
	tier      func(*gin.Context) (Tier, error)
	cost      func(*gin.Context) int64
	settle    func(c *gin.Context, cost int64) (actual int64) // nil if the charge is right
	maxWait   time.Duration
	skip      func(*gin.Context) bool
	backend   backend.Backend
	private   bool // the backend is ours alone
	policy    FailurePolicy
	headers   Headers
	deny      func(*gin.Context, Decision)
	observers []func(context.Context, Decision)
	ban       *Limit // of refusals; nil without WithBan
	dryRun    bool
	late      bool
	logger    *slog.Logger

	errs  []error
	named bool
}

// defaultName is the name of a limiter, and of its policy in headers, unless WithName says
// otherwise.
const defaultName = "default"

// complete fills the defaults in and returns what is wrong.
func (o *options) complete() error {
	if err := checkName(o.name); err != nil {
		o.fail("WithName(%q): %w", o.name, err)
	}
	if o.backend != nil && !o.named {
		o.fail("WithBackend needs WithName, so that two limiters never share counters by accident")
	}
	if o.backend == nil {
		o.backend, o.private = memory.New(), true
	}
	return errors.Join(o.errs...)
}

func (o *options) fail(format string, args ...any) {
	o.errs = append(o.errs, fmt.Errorf("ginlimit: "+format, args...))
}

// WithName names the limiter: in Decision, in diagnostics, in the headers of its only limit, and in
// the keys of a shared backend. Limiters with one name on one backend share their counters. A name
// is printable ASCII and not empty, because the RateLimit fields can hold nothing else. The default
// is "default". Where several limiters guard one request, names tell their policies apart.
func WithName(name string) Option {
	return func(o *options) { o.name, o.named = name, true }
}

// WithLimits adds limits to that of [NewLimiter]: a request passes if all allow it, and otherwise
// none is charged. The default is none.
func WithLimits(limits ...Limit) Option {
	return func(o *options) { o.limits = append(o.limits, limits...) }
}

// WithTier sets a look-up of the limits for the caller of a request: by plan, by customer, from a
// database. It runs on every request, after the key and before anything is charged, so that it
// should be fast; authentication has to run before the limiter. Like the KeyFunc, it is called once
// more after the handlers ran a few times in the limiter's life.
//
// The zero Tier means the limiter's own limits. For no limit return [Unlimited]. ErrSkip lets the
// request pass uncharged. Any other error, which is then Decision.TierErr, and a tier with a limit
// that is not valid, mean the tier that the key had last. The limiter remembers the last tiers of
// some ten thousand keys for ten minutes. For any other key the limiter's own limits decide.
//
// A caller whose tier changes takes along what was used. The tier must follow from the key: for one
// that depends on the route too, Join the route to the key, or use two limiters. The default is no
// look-up.
func WithTier(lookup func(*gin.Context) (Tier, error)) Option {
	return func(o *options) {
		if o.tier = lookup; lookup == nil {
			o.fail("WithTier(nil): leave the option out for no tiers")
		}
	}
}

// WithCost sets what a request costs, in units of the limit; the default is 1. A cost of 0 charges
// nothing: the request passes while at least one unit is left. A negative cost is answered with
// 400. A cost above a limit's capacity can never pass.
//
// Request.ContentLength is -1 for a body whose length is not known, such as a chunked one. Charge
// the most that such a body may have, and settle by [WithSettle] for what was read.
func WithCost(cost func(*gin.Context) int64) Option {
	return func(o *options) {
		if o.cost = cost; cost == nil {
			o.fail("WithCost(nil): leave the option out for a cost of 1")
		}
	}
}

// WithSettle sets a function that returns what a request really cost, in units: the tokens of a
// language model, the bytes of a response. It is called after the handlers ran. [WithCost] says
// what is charged at the start. That charge is held while the handlers run, and the response's
// headers show it.
//
// If the request cost less, the difference is given back. If it cost more, the difference is taken,
// also beyond what is left. Then the caller is in debt, by one capacity at most, and waits until
// the debt is paid. For a stream actual is called when it ends. After a panic it is not called: the
// request costs what it was charged, as it does if actual returns a negative number. What could not
// be settled, because the backend failed, stays as it was charged.
//
// Handle and All call actual. The default is what was charged.
func WithSettle(actual func(*gin.Context) int64) Option {
	return func(o *options) {
		o.settle = func(c *gin.Context, _ int64) int64 { return actual(c) }
		if actual == nil {
			o.fail("WithSettle(nil): leave the option out if a request costs what it was charged")
		}
	}
}

// WithRefundIf is [WithSettle] for nothing where refund returns true: to count only failed log-ins,
// say, or not to count 304. The charge is held while the handlers run, so that a limit of 5 admits
// no sixth request at the same time. Of WithSettle and WithRefundIf the last one wins.
func WithRefundIf(refund func(*gin.Context) bool) Option {
	return func(o *options) {
		o.settle = func(c *gin.Context, cost int64) int64 {
			if cost > 0 && refund(c) {
				return 0
			}
			return cost
		}
		if refund == nil {
			o.fail("WithRefundIf(nil): leave the option out for no refunds")
		}
	}
}

// WithMaxWait holds a request that is refused until it fits: for up to longest, and no longer than
// the request's context lives. 0, the default, refuses at once. With burst 1 that is the leaky
// bucket: requests go on at an even rate.
//
// Requests with one key go on in the order in which they came. A limiter holds at most 1,024
// requests, and 128 per key; the rest are refused at once. When it is full, a request whose key
// holds fewer places takes the last place of the key that holds most. With token buckets, a request
// that the queue ahead of it would keep too long is refused at once too.
//
// Handle and All wait, and not in a dry run; [Limiter.Wait] stands in the same lines. The order is
// kept within one process. What a Settle or a Reset gives back lets the next go at once, within a
// second if another process gave it back.
func WithMaxWait(longest time.Duration) Option {
	return func(o *options) {
		if o.maxWait = longest; longest < 0 {
			o.fail("WithMaxWait(%v): the wait is negative; use 0 to refuse at once", longest)
		}
	}
}

// WithSkip lets requests pass without a look if skip returns true: they are not charged, not
// observed, and get no headers. The default is never.
func WithSkip(skip func(*gin.Context) bool) Option {
	return func(o *options) {
		if o.skip = skip; skip == nil {
			o.fail("WithSkip(nil): leave the option out to skip nothing")
		}
	}
}

// WithBackend sets where counters are kept; the default is a memory.New() of the limiter's own. It
// requires WithName. Many limiters may share one backend.
func WithBackend(b backend.Backend) Option {
	return func(o *options) {
		if o.backend = b; b == nil {
			o.fail("WithBackend(nil): leave the option out for memory")
		}
	}
}

// FailurePolicy says what becomes of a request when no decision can be reached, because the backend
// is unavailable or the KeyFunc failed. A request without a key is refused whatever the policy.
type FailurePolicy uint8

const (
	// FailOpen lets the request pass, without headers. It is the default. If the KeyFunc fails and
	// the request's context is done, the request gets 503 all the same. Otherwise hanging up, or a
	// short deadline, would be a way past the limit.
	FailOpen FailurePolicy = iota
	// FailClosed answers 503 with Retry-After: for a log-in that must not be guessed at while Redis
	// is down.
	FailClosed
)

// WithFailurePolicy sets what becomes of a request when no decision can be reached; the default is
// [FailOpen].
func WithFailurePolicy(p FailurePolicy) Option {
	return func(o *options) {
		if o.policy = p; p > FailClosed {
			o.fail("WithFailurePolicy(%d): use FailOpen or FailClosed", p)
		}
	}
}

// Headers is a set of response header fields; the zero value is [HeadersNone]. Retry-After is not
// among them: each 503 has it, and each 429 that waiting can cure.
type Headers uint8

const (
	// HeadersIETF are RateLimit-Policy and RateLimit, of draft-ietf-httpapi-ratelimit-headers-11.
	HeadersIETF Headers = 1 << iota
	// HeadersLegacy are X-RateLimit-Limit, -Remaining and -Reset, in units and in seconds from now.
	HeadersLegacy
	// HeadersLegacyEpoch are the same, but X-RateLimit-Reset is in seconds since 1970, as GitHub
	// has it. It prevails over HeadersLegacy.
	HeadersLegacyEpoch
	// HeadersNone is the empty set.
	HeadersNone Headers = 0
)

// WithHeaders sets which fields a response gets; the default is HeadersIETF | HeadersLegacy.
func WithHeaders(h Headers) Option {
	return func(o *options) {
		if o.headers = h; h > HeadersIETF|HeadersLegacy|HeadersLegacyEpoch {
			o.fail("WithHeaders(%d): use HeadersIETF, HeadersLegacy, HeadersLegacyEpoch or HeadersNone", h)
		}
	}
}

// WithLateHeaders writes the header fields when the header of the response is written, and not
// before the handlers run. Use it where a handler brings fields of its own, as a reverse proxy to a
// service with limits does, a page cache that replays what it kept, or an engine that is mounted in
// this one. Each field is then there once, and the limiter's prevail. RateLimit-Policy lists the
// policies of both. Where Check charges more meanwhile, the fields show what is left then. A
// Retry-After of the handler's stays, unless the limiter knows of a longer wait.
//
// With this option, and only with it, c.Writer is a writer of the limiter's own while the handlers
// run. The default is false.
func WithLateHeaders(on bool) Option {
	return func(o *options) { o.late = on }
}

// WithDenyHandler sets what answers a request that does not pass, with 429, 400 or 503.
// Decision.Status and Decision.Err tell these apart. RetryAfter is 0 unless the status is 429, and
// [backend.Never] if waiting is no use. Status and headers are set before: Retry-After of the
// response has whole seconds, and heeds other limiters of the request. The handlers after the
// limiter do not run. The default is a problem document (RFC 9457).
func WithDenyHandler(deny func(*gin.Context, Decision)) Option {
	return func(o *options) {
		if o.deny = deny; deny == nil {
			o.fail("WithDenyHandler(nil): leave the option out for the default answer")
		}
	}
}

// WithObserver adds a function that is told once of every decision of Handle, All, Check, Allow and
// Wait, also without a key and when the backend failed. It is not told of Peek, Usage, Settle,
// Reset and skipped requests. It runs on the request's goroutine, and has to be safe for concurrent
// use. It gets the request's context and no gin.Context: to log a decision with the route and the
// status, call [FromContext] in a middleware. Decision.Key may identify a person. The default is
// none.
func WithObserver(observe func(context.Context, Decision)) Option {
	return func(o *options) {
		if observe == nil {
			o.fail("WithObserver(nil): leave the option out for no observer")
			return
		}
		o.observers = append(o.observers, observe)
	}
}

// WithDryRun decides, charges and observes, but never refuses, never waits, and writes no headers:
// to try a limit on real traffic first. The default is false.
func WithDryRun(on bool) Option {
	return func(o *options) { o.dryRun = on }
}

// WithLogger sets where diagnostics go, each once; nothing is logged per request. The default is
// slog.Default(), as it is when the limiter is made.
func WithLogger(l *slog.Logger) Option {
	return func(o *options) {
		if o.logger = l; l == nil {
			o.fail("WithLogger(nil): use slog.New(slog.DiscardHandler) for no diagnostics")
		}
	}
}
