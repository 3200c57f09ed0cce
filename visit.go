package ginlimit

import (
	"errors"
	"math"
	"net/http"
	"reflect"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/ginlimit/ginlimit/backend"
)

// visit is what a request knows of one limiter's decision about it.
//
// It travels as the request's gin.ResponseWriter, in front of the one that was there, and passes everything on to
// it. The obvious place would be c.Set, but that allocates a map for the request, which costs more than all the rest
// of the decision; the visit itself has to be allocated anyway, because the header values are in it. It is as small
// as it can be, for the same reason: a Decision has twice its size.
type visit struct {
	gin.ResponseWriter

	plan   *plan
	before *visit // of the limiter before

	key        string
	remaining  int64
	retryAfter time.Duration
	resetAfter time.Duration
	at         int64 // µs
	cost       uint32
	elapsed    uint32 // ns
	limit      uint16 // index in plan.limits of the one that decided
	source     backend.Source
	allowed    bool
	handled    bool // by Handle, not by Check

	values [5]string // of the header fields: each response has its own, because a later handler may write to them
	text   [32]byte  // what those that change say, if it is no longer
}

// newVisit keeps a decision under the limits of a plan. It returns nil if there is nothing to keep, because the request is
// skipped.
func newVisit(p *plan, d *Decision, before *visit) *visit {
	if errors.Is(d.Err, ErrSkip) {
		return nil
	}
	v := &visit{plan: p, before: before, key: d.Key, cost: uint32(d.Cost), elapsed: uint32(d.Elapsed)}
	if !v.hold(&d.Result) || d.Err != nil || d.TierErr != nil || d.Waited != 0 || d.Tier != p.tier ||
		d.Cost != int64(v.cost) || d.Elapsed != time.Duration(v.elapsed) || d.At.Nanosecond()%1000 != 0 {
		whole, own := *d, *p
		own.whole = &whole
		v.plan = &own
	}
	return v
}

// hold keeps a backend's answer, and reports whether that is under one of the plan's limits.
func (v *visit) hold(r *Result) bool {
	limits := v.plan.limits
	for i := 1; i < len(limits); i++ {
		if limits[i].Name == r.Limit.Name {
			v.limit = uint16(i)
		}
	}
	v.remaining, v.retryAfter, v.resetAfter = r.Remaining, r.RetryAfter, r.ResetAfter
	v.at, v.source, v.allowed = r.At.UnixMicro(), r.Source, r.Allowed
	return r.Limit == limits[v.limit]
}

// decision returns what newVisit was given.
func (v *visit) decision() Decision {
	if v.plan.whole != nil {
		return *v.plan.whole
	}
	return Decision{
		Limiter: v.plan.limiter.name, Tier: v.plan.tier, Key: v.key, Cost: int64(v.cost),
		Result: Result{
			Allowed: v.allowed, Limit: v.plan.limits[v.limit], Remaining: v.remaining,
			RetryAfter: v.retryAfter, ResetAfter: v.resetAfter, At: time.UnixMicro(v.at), Source: v.source,
		},
		Limits: v.plan.limits, Elapsed: time.Duration(v.elapsed), DryRun: v.plan.limiter.dryRun,
	}
}

// status returns the decision's Status.
func (v *visit) status() int {
	switch {
	case v.plan.whole != nil:
		return v.plan.whole.Status()
	case v.allowed || v.plan.limiter.dryRun:
		return 0
	default:
		return http.StatusTooManyRequests
	}
}

// err returns the decision's error.
func (v *visit) err() error {
	if v.plan.whole == nil {
		return nil
	}
	return v.plan.whole.Err
}

// Unwrap serves http.ResponseController.
func (v *visit) Unwrap() http.ResponseWriter { return v.ResponseWriter }

// enter makes the visit known to the request.
func (v *visit) enter(c *gin.Context) {
	v.ResponseWriter = c.Writer
	if own, ok := c.Writer.(*visit); ok {
		v.ResponseWriter = own.ResponseWriter
	}
	c.Writer = v
}

// handledBy reports whether l's Handle has seen the request.
func (v *visit) handledBy(l *Limiter) bool {
	for ; v != nil; v = v.before {
		if v.handled && v.plan.limiter == l {
			return true
		}
	}
	return false
}

// replaceChecked takes the place of what an earlier Check of the same limiter found, so that a WebSocket which checks each
// message keeps one visit, not one for each. It reports false if that was tighter and stays.
func (v *visit) replaceChecked() bool {
	for at := &v.before; *at != nil; at = &(*at).before {
		if b := *at; !b.handled && b.plan.limiter == v.plan.limiter {
			if tighter(b, v) {
				return false
			}
			*at = b.before
			return true
		}
	}
	return true
}

// tightest returns the tightest visit of those that count, the latest of equals; v if none does.
func (v *visit) tightest(counts func(*visit) bool) *visit {
	best := v
	for b := v.before; b != nil; b = b.before {
		if counts(b) && (!counts(best) || tighter(b, best)) {
			best = b
		}
	}
	return best
}

// tighter reports whether a says less of what is left than b: refusals first, then the longest wait or the least
// that remains; dry runs and failures last.
func tighter(a, b *visit) bool {
	if ra, rb := a.rank(), b.rank(); ra != rb {
		return ra > rb
	}
	if !a.allowed {
		return a.wait() > b.wait()
	}
	return a.remaining < b.remaining
}

func (v *visit) rank() int {
	switch {
	case v.err() != nil:
		return 0
	case v.plan.limiter.dryRun:
		return 1
	case v.allowed:
		return 2
	default:
		return 3
	}
}

func (v *visit) wait() time.Duration {
	if v.retryAfter < 0 {
		return math.MaxInt64
	}
	return v.retryAfter
}

// plainWriter is the type of the writer that a request starts with.
var plainWriter = reflect.TypeOf(new(gin.Context).Copy().Writer)

// visitOf returns the latest visit of a request, or nil. Other middleware may have put writers of its own in front.
func visitOf(c *gin.Context) *visit {
	if v, ok := c.Writer.(*visit); ok {
		return v
	}
	if c.Writer == nil || reflect.TypeOf(c.Writer) == plainWriter {
		return nil
	}
	return visitBehind(reflect.ValueOf(c.Writer), 8)
}

var (
	visitType  = reflect.TypeFor[*visit]()
	writerType = reflect.TypeFor[http.ResponseWriter]()
)

// visitBehind looks for a visit among the writers that a writer holds, at most so deep.
func visitBehind(w reflect.Value, depth int) *visit {
	for w.Kind() == reflect.Pointer || w.Kind() == reflect.Interface {
		if w.IsNil() {
			return nil
		}
		if w.Type() == visitType {
			return (*visit)(w.UnsafePointer())
		}
		w = w.Elem()
	}
	if w.Kind() != reflect.Struct || w.Type() == plainWriter.Elem() || depth == 0 {
		return nil
	}
	for i := range w.NumField() {
		f := w.Field(i)
		typ := f.Type()
		if f.Kind() == reflect.Struct {
			typ = reflect.PointerTo(typ) // it may be a writer by its pointer only
		}
		if (typ.Kind() == reflect.Interface || typ.Kind() == reflect.Pointer) && typ.Implements(writerType) {
			if v := visitBehind(f, depth-1); v != nil {
				return v
			}
		}
	}
	return nil
}
