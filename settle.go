package ginlimit

import (
	"context"
	"fmt"

	"github.com/gin-gonic/gin"
)

// Settle corrects what a decision of Check, Allow or Wait, or of FromContext, charged: actual is
// what it really cost, in units. Less gives the difference back, and more takes it, as [WithSettle]
// says. A request in flight gives its place back, whatever actual is. It does nothing if nothing
// was charged: where d is a refusal, failed, or was skipped. To settle once more, pass the Decision
// that it returned, whose Cost is actual.
//
// A handler passes its *gin.Context as ctx: then Handle knows that the request was settled, and
// with [WithLateHeaders] the fields show it. Settle returns an error, and the charge stays as it
// was, if actual is negative, d is of another limiter, or the backend failed. It does not matter
// whether ctx is done.
func (l *Limiter) Settle(ctx context.Context, d Decision, actual int64) (Decision, error) {
	switch {
	case actual < 0:
		return d, fmt.Errorf("ginlimit: the actual cost %d is negative; use 0 to give everything back", actual)
	case d.Limiter != l.name:
		return d, fmt.Errorf("ginlimit: limiter %q cannot settle a decision of limiter %q", l.name, d.Limiter)
	case d.Err != nil || !d.Allowed || d.notCharged:
		return d, nil
	}
	c, inRequest := ctx.(*gin.Context)
	if !inRequest {
		return d, l.settleCharge(ctx, &d, actual, nil)
	}
	old := l.recordOf(c, &d)
	var f *flight
	if old != nil {
		f = old.flight
	}
	if err := l.settleCharge(c.Request.Context(), &d, actual, f); err != nil {
		return d, err
	}
	if old != nil {
		l.noteSettled(c, old, &d)
	}
	return d, nil
}

// settleCharge corrects the charge of d, and d, and gives back what is held, by a flight if there
// is one.
func (l *Limiter) settleCharge(ctx context.Context, d *Decision, actual int64, f *flight) error {
	p := l.policyOf(d.Limits)
	taken := l.end(f, d.Result)
	held := p.hold > 0 && d.Cost > 0 && !taken.Released()
	if actual == d.Cost && !held {
		return nil
	}
	err := l.backend.Settle(context.WithoutCancel(ctx), l.backendKey(d.Key), taken, d.Cost, actual, l.charged(d)...)
	if err != nil {
		return err
	}
	if actual < d.Cost || held {
		l.waiting.Load().wake(d.Key)
	}
	if d.Cost = actual; p.hold > 0 {
		d.Result = d.WithReleased()
	}
	return nil
}

// recordOf returns the record of a decision of a request, or nil.
func (l *Limiter) recordOf(c *gin.Context, d *Decision) *record {
	for _, r := range historyOf(c) {
		if r.limiter == l && r.Key == d.Key && r.At.Equal(d.At) && r.Err == nil && r.Allowed {
			return r
		}
	}
	return nil
}

// noteSettled puts a copy of the record of a decision that was settled in its place.
func (l *Limiter) noteSettled(c *gin.Context, old *record, d *Decision) {
	r := &record{Decision: *d, limiter: l, policy: old.policy, headers: old.headers, handled: old.handled, shown: old.shown, flight: old.flight, of: old}
	if old.of != nil {
		r.of = old.of
	}
	if l.late { // the fields show what is left now
		now := r.Decision
		now.Cost = 0
		if l.take(l.backendContext(c), &now); now.Err == nil {
			r.Limit, r.Remaining, r.ResetAfter = now.Limit, now.Remaining, now.ResetAfter
		}
	}
	historyOf(c).keep(c, r, old)
}

// settleFor settles the charge of a request whose handlers ran, if WithSettle or WithRefundIf says
// so, also if the client has gone. If that fails the charge stays, which lets nobody in.
func (l *Limiter) settleFor(c *gin.Context, r *record) {
	if l.settle == nil {
		return
	}
	for _, kept := range historyOf(c) {
		if kept.of == r {
			r = kept // a handler has settled it
		}
	}
	if !r.Allowed || r.notCharged || r.Err != nil {
		return
	}
	d := r.Decision
	if actual := l.settle(c, d.Cost); actual >= 0 {
		_ = l.settleCharge(c.Request.Context(), &d, actual, r.flight)
	}
}
