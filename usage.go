package ginlimit

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/gin-gonic/gin"
)

// Usage returns the state of every limit of key, in their order, also where one is tighter: what is
// used (Result.Used) and left, and when all of it is back. It charges nothing, writes nothing, and
// is not observed. The key is what the KeyFunc returns, such as "ip:203.0.113.7". Its errors, and
// the limits that it needs, are those of [Limiter.Allow].
func (l *Limiter) Usage(ctx context.Context, key string, limits ...Limit) ([]Result, error) {
	var d Decision
	l.begin(&d)
	if !l.replace(&d, limits) || !l.keyed(&d, key, nil) {
		return nil, d.Err
	}
	return l.backend.Usage(ctx, l.backendKey(key), d.Limits...)
}

// UsageOf is [Limiter.Usage] for the caller of a request, under the limits of its tier. It returns
// [ErrSkip] if the limiter skips the request, and the error of the KeyFunc if there is no key.
func (l *Limiter) UsageOf(c *gin.Context) ([]Result, error) {
	_, all, err := l.usageOf(c)
	return all, err
}

func (l *Limiter) usageOf(c *gin.Context) (*record, []Result, error) {
	if l.skip != nil && l.skip(c) {
		return nil, nil, ErrSkip
	}
	r := &record{limiter: l, policy: l.own}
	if !l.identify(c, r) {
		return r, nil, r.Err
	}
	all, err := l.backend.Usage(l.backendContext(c), l.backendKey(r.Key), r.Limits...)
	return r, all, err
}

// usage is the JSON document of UsageHandler.
type usage struct {
	Limiters []limiterUsage `json:"limiters"`
}

type limiterUsage struct {
	Name   string       `json:"name"`
	Tier   string       `json:"tier,omitempty"`
	Limits []limitUsage `json:"limits"`
}

type limitUsage struct {
	Name      string `json:"name"`
	Unit      string `json:"unit"`
	Unlimited bool   `json:"unlimited,omitempty"`
	Limit     int64  `json:"limit"`
	Used      int64  `json:"used"`
	Remaining int64  `json:"remaining"`
	Reset     int64  `json:"reset"`    // seconds, rounded up
	ResetAt   string `json:"reset_at"` // RFC 3339
}

// UsageHandler answers GET /usage: a JSON document of every limit of the caller, of each limiter
// that does not skip the request. It charges nothing. For each limit the document has the name and
// the unit: that of [Limit.Counting], and otherwise "units" with [WithCost] and "requests" without.
// It has the limit, which is what can be taken at once, what is used of it, which is more while the
// caller is in debt, and what remains. It says in how many seconds all of it is back ("reset"), and
// when ("reset_at", RFC 3339). An unlimited limit has "unlimited": true and zeros.
//
//	{"limiters":[{"name":"api","tier":"pro","limits":[{"name":"100-per-1m","unit":"requests","limit":100,
//	"used":3,"remaining":97,"reset":2,"reset_at":"2026-11-29T12:00:02Z"}]}]}
//
// A caller without a key gets 400. If a backend fails the answer is 503, whatever the failure
// policy: there is no request to let pass. UsageHandler panics if there is no limiter, or one is
// nil.
func UsageHandler(limiters ...*Limiter) gin.HandlerFunc {
	limiters = slices.Clone(limiters)
	if len(limiters) == 0 {
		panic(errors.New("ginlimit: UsageHandler needs a limiter; give it at least one"))
	}
	for i, l := range limiters {
		if l == nil {
			panic(fmt.Errorf("ginlimit: limiter %d of UsageHandler is nil; use NewLimiter to make it", i+1))
		}
	}
	return func(c *gin.Context) {
		c.Abort() // it is the answer
		document := usage{Limiters: []limiterUsage{}}
		c.Header(fieldCache, "no-store")
		for _, l := range limiters {
			r, all, err := l.usageOf(c)
			switch {
			case err == nil:
				document.Limiters = append(document.Limiters, l.usageFrom(r, all))
			case errors.Is(err, ErrSkip):
			case errors.Is(err, ErrNoKey):
				c.Data(http.StatusBadRequest, problemMedia, problemNoKey)
				return
			default:
				c.Header(fieldRetry, fmt.Sprint(unavailableRetry))
				c.Data(http.StatusServiceUnavailable, problemMedia, problemUnavailable)
				return
			}
		}
		c.JSON(http.StatusOK, document)
	}
}

func (l *Limiter) usageFrom(r *record, all []Result) limiterUsage {
	u := limiterUsage{Name: l.name, Tier: r.Tier, Limits: make([]limitUsage, len(all))}
	for i, res := range all {
		unit := res.Limit.Unit
		if unit == "" && l.cost != nil {
			unit = "units"
		} else if unit == "" {
			unit = "requests"
		}
		of := limitUsage{Name: res.Limit.Name, Unit: unit, Unlimited: res.Limit.IsUnlimited(), Reset: seconds(res.ResetAfter)}
		if !of.Unlimited {
			of.Limit, of.Used, of.Remaining = res.Limit.Capacity(), res.Used(), res.Remaining
		}
		of.ResetAt = res.At.Add(res.ResetAfter).UTC().Format(time.RFC3339)
		u.Limits[i] = of
	}
	return u
}
