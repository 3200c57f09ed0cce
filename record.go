package ginlimit

import (
	"math"
	"slices"
	"time"

	"github.com/gin-gonic/gin"
)

// record is one limiter's decision about a request, and what the response says of it.
type record struct {
	Decision
	limiter *Limiter
	policy  *policy
	headers Headers
	handled bool // by Handle or All, which need not charge the request again
	shown   bool // in the response
	values  fieldValues
	flight  *flight // nil if nothing is held
	of      *record // of which it is a copy that was settled; nil if it is none
}

// line returns what is prepared for the limit that decided.
func (r *record) line() *shown { return &r.policy.shown[r.policy.index(r.Limit.Name)] }

// policyText returns the RateLimit-Policy of r.
func (r *record) policyText() string { return r.policy.policyText(r.At) }

// shows reports whether the response has fields of these kinds of r.
func (r *record) shows(kinds Headers) bool {
	return r.headers&kinds != 0 && r.shown && r.Err == nil && !r.DryRun
}

func (r *record) byHandle() bool { return r.handled }
func (r *record) byCheck() bool  { return !r.handled }
func (r *record) decided() bool  { return r.Err == nil && !r.DryRun }

// appendViolated appends the names of the limits that refuse.
func (r *record) appendViolated(b []byte) []byte {
	decided := r.policy.index(r.Limit.Name)
	for i := range r.policy.limits {
		if i == decided || r.Refuses(i) {
			b = append(append(b, r.policy.shown[i].name()...), ',')
		}
	}
	return b[:len(b)-1]
}

// tighter reports whether a stands before b: refusals first, then the longest wait or the least
// that remains. Dry runs and failures are last.
func (r *record) tighter(than *record) bool {
	if a, b := r.rank(), than.rank(); a != b {
		return a > b
	}
	if !r.Allowed {
		return r.wait() > than.wait()
	}
	return r.Remaining < than.Remaining
}

func (r *record) rank() int {
	switch {
	case r.Err != nil:
		return 0
	case r.DryRun:
		return 1
	case r.Allowed:
		return 2
	default:
		return 3
	}
}

func (r *record) wait() time.Duration {
	if r.RetryAfter < 0 {
		return math.MaxInt64
	}
	return r.RetryAfter
}

// tightest returns the tightest of records, the latest of equals, or nil if there is none.
func tightest(records []*record) (best *record) {
	for i := len(records) - 1; i >= 0; i-- {
		if r := records[i]; best == nil || r.tighter(best) {
			best = r
		}
	}
	return best
}

// tightestOf returns the tightest of the records that put figures into fields of these kinds.
func tightestOf(records []*record, kinds Headers) (best *record) {
	for i := len(records) - 1; i >= 0; i-- {
		r := records[i]
		if r.shows(kinds) && !r.policy.limits[r.policy.index(r.Limit.Name)].IsUnlimited() && (best == nil || r.tighter(best)) {
			best = r
		}
	}
	return best
}

// history is the records of a request, in the order in which they were made. It does not change
// once the request has it: another takes its place, so that a copy of the context can be read by
// any goroutine.
type history []*record

// historyKey is the key under which c.Set keeps a history, or the record itself while it is the
// only one: most requests have one, and it is cheaper by an allocation.
const historyKey contextKey = 0

type contextKey int

// historyOf returns the history of a request.
func historyOf(c *gin.Context) history {
	kept, _ := c.Get(historyKey)
	switch kept := kept.(type) {
	case *record:
		return history{kept}
	case history:
		return kept
	}
	return nil
}

// has reports whether r, or a copy of it that was settled, is known to the request.
func (h history) has(r *record) bool {
	return slices.ContainsFunc(h, func(kept *record) bool { return kept == r || kept.of == r })
}

// of returns the last record of a limiter for which is returns true, or nil.
func (h history) of(l *Limiter, is func(*record) bool) *record {
	for i := len(h) - 1; i >= 0; i-- {
		if r := h[i]; r.limiter == l && is(r) {
			return r
		}
	}
	return nil
}

// keep makes a record known to the request, in place of one that goes.
func (h history) keep(c *gin.Context, r, goes *record) {
	if len(h) == 0 || len(h) == 1 && h[0] == goes {
		c.Set(historyKey, r)
		return
	}
	next := make(history, 0, len(h)+1)
	for _, old := range h {
		if old != goes {
			next = append(next, old)
		}
	}
	c.Set(historyKey, append(next, r))
}
