package ginlimit

import (
	"net/http"
	"reflect"

	"github.com/gin-gonic/gin"
)

// visit is what a request knows of one limiter's decision about it.
//
// It travels as the request's gin.ResponseWriter, in front of the one that was there, and passes everything on to
// it. The obvious place would be c.Set, but that allocates a map for the request, which costs more than all the rest
// of the decision; the visit itself has to be allocated anyway, because the header values are in it.
type visit struct {
	gin.ResponseWriter

	limiter  *Limiter
	plan     *plan
	before   *visit // of the limiter before
	handled  bool   // by Handle, not by Check
	decision Decision

	values [4]string // RateLimit, Remaining, Reset, Retry-After
	text   [72]byte  // what they say
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
		if v.handled && v.limiter == l {
			return true
		}
	}
	return false
}

// tightest returns the tightest visit of those that count, the latest of equals; v if none does.
func (v *visit) tightest(counts func(*visit) bool) *visit {
	best := v
	for b := v.before; b != nil; b = b.before {
		if counts(b) && (!counts(best) || tighter(&b.decision, &best.decision)) {
			best = b
		}
	}
	return best
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
		if f := w.Field(i); f.Kind() == reflect.Interface && f.Type().Implements(writerType) {
			if v := visitBehind(f, depth-1); v != nil {
				return v
			}
		}
	}
	return nil
}
