package ginlimit

import (
	"context"
	"fmt"

	"github.com/gin-gonic/gin"
)

// Settle corrects what a decision of Check, Allow or Wait, or of FromContext, charged: actual is
// what it really cost, in units. Less gives the difference back, and more takes it, as [WithSettle]
// says. It does nothing if nothing was charged: where d is a refusal, failed, or was skipped. To
// settle once more, pass the Decision that it returned, whose Cost is actual.
//
// A handler passes its *gin.Context as ctx: then Handle knows that the request was settled, and
// with [WithLateHeaders] the fields show it. It returns an error, and settles nothing, if actual is
// negative, d is of another limiter, or the backend failed; then the charge stays as it was. That
// ctx is done does not matter.
func (l *Limiter) Settle(ctx context.Context, d Decision, actual int64) (Decision, error) {
	switch {
	case actual < 0:
		return d, fmt.Errorf("ginlimit: the actual cost %d is negative; use 0 to give everything back", actual)
	case d.Limiter != l.name:
		return d, fmt.Errorf("ginlimit: limiter %q cannot settle a decision of limiter %q", l.name, d.Limiter)
	case d.Err != nil || !d.Allowed || d.notCharged:
		return d, nil
	}
	if err := l.settleCharge(ctx, &d, actual); err != nil {
		return d, err
	}
	if c, ok := ctx.(*gin.Context); ok {
		l.noteSettled(c, &d)
	}
	return d, nil
}

// settleCharge corrects the charge of d, and d.
func (l *Limiter) settleCharge(ctx context.Context, d *Decision, actual int64) error {
	if actual == d.Cost {
		return nil
	}
	if c, ok := ctx.(*gin.Context); ok {
		ctx = c.Request.Context()
	}
	err := l.backend.Settle(context.WithoutCancel(ctx), l.backendKey(d.Key), d.Result, d.Cost, actual, d.Limits...)
	if err != nil {
		return err
	}
	if actual < d.Cost {
		l.waiting.Load().wake(d.Key)
	}
	d.Cost = actual
	return nil
}

// noteSettled puts a copy of the record of a decision that was settled in its place.
func (l *Limiter) noteSettled(c *gin.Context, d *Decision) {
	h := historyOf(c)
	for _, old := range h {
		if old.limiter != l || old.Key != d.Key || !old.At.Equal(d.At) || old.Err != nil || !old.Allowed {
			continue
		}
		r := &record{Decision: *d, limiter: l, policy: old.policy, headers: old.headers, handled: old.handled, shown: old.shown, of: old}
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
		h.keep(c, r, old)
		return
	}
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
		_ = l.settleCharge(c.Request.Context(), &d, actual)
	}
}
