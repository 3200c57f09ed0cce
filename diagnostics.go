package ginlimit

import (
	"maps"
	"math"
	"net/http"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"
)

// Diagnostics have stable codes, which the README lists. Each appears once: for an engine, or for a limiter.
const (
	codeTrust     = "GINLIMIT001"
	codeTwice     = "GINLIMIT002"
	codeInRequest = "GINLIMIT003"
	codeOrder     = "GINLIMIT004"
)

func (l *Limiter) warn(code, message string, args ...any) {
	l.logger.Warn("ginlimit: "+code+": "+message, append([]any{"code", code, "limiter", l.name}, args...)...)
}

// said is what was said of an engine.
type said struct {
	trust atomic.Int32 // nothing yet, trustFound or trustLogged
	built sync.Once
}

const (
	trustFound  = 1
	trustLogged = 2
)

// toLog is the number of engines that were found to trust everybody, by a KeyFunc, which has no logger: the next limiter
// of the engine logs it.
var toLog atomic.Int32

func (s *said) foundTrust() {
	if s.trust.Load() == 0 && s.trust.CompareAndSwap(0, trustFound) {
		toLog.Add(1)
	}
}

// warnTrust logs what a KeyFunc found, if it did.
func (l *Limiter) warnTrust(c *gin.Context) {
	if toLog.Load() == 0 {
		return
	}
	if facts := factsOf(c, engineOf(c)); !facts.said.trust.CompareAndSwap(trustFound, trustLogged) {
		return
	}
	toLog.Add(-1)
	l.warn(codeTrust, "the engine trusts every proxy, so that any client could choose its own address by X-Forwarded-For; "+
		"requests are limited by the address of their connection instead. "+
		"Call engine.SetTrustedProxies(nil) if clients connect directly or through a Unix socket, whose connections have no "+
		"address, or name your proxies' addresses in it")
}

// warnTwice says that a limiter stands more than once before one route.
func (l *Limiter) warnTwice(c *gin.Context) {
	l.twice.Do(func() {
		l.warn(codeTwice, "the same limiter is mounted twice on one route; the request is charged once. "+
			"Remove one, or make two limiters with names of their own", "route", c.FullPath())
	})
}

// warnInRequest says that a limiter was made by a handler.
func (l *Limiter) warnInRequest(c *gin.Context) {
	facts := factsOf(c, engineOf(c))
	facts.said.built.Do(func() {
		l.warn(codeInRequest, "the limiter was built while a request was handled; a limiter that is built for each request "+
			"gives each a fresh budget and limits nothing. Build it once, before the engine runs", "route", c.FullPath())
	})
}

// calledInRequest reports whether Gin is handling a request on this goroutine.
func calledInRequest() bool {
	var pcs [64]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs[:])])
	for {
		frame, more := frames.Next()
		if strings.HasPrefix(frame.Function, "github.com/gin-gonic/gin.(*Context).Next") {
			return true
		}
		if !more {
			return false
		}
	}
}

// orderChecks says when a limiter looks whether it comes too early: for the first requests, and then ever more rarely,
// because the first may all be anonymous.
type orderChecks struct {
	done atomic.Int32
	next atomic.Int64 // µs since 1970
}

// firstChecks is how many requests are looked at before any is passed over.
const firstChecks = 8

// due reports whether a request is to be looked at that was decided at an instant.
func (o *orderChecks) due(at int64) bool {
	next := o.next.Load()
	if at < next {
		return false
	}
	rest := time.Second << min(12, max(0, o.done.Load()-firstChecks)) // 4096 s at most
	if o.done.Load() >= firstChecks && !o.next.CompareAndSwap(next, at+rest.Microseconds()) {
		return false
	}
	o.done.Add(1)
	return true
}

// values is what a KeyFunc or a look-up of a tier may have seen of a request.
type values struct {
	request *http.Request
	route   string
	keys    map[any]any
}

// valuesOf returns what there is now. A goroutine of a handler may set more meanwhile, so that the keys are those of a copy.
// Copy reads without their lock whether there are any: there are, since a limiter keeps its record among them.
func valuesOf(c *gin.Context) *values {
	keys := c.Copy().Keys
	delete(keys, historyKey)
	return &values{c.Request, c.FullPath(), keys}
}

// changed reports whether the handlers put another request in or set something, with c.Set. What they gave to
// Engine.HandleContext is another request altogether.
func (v *values) changed(c *gin.Context) bool {
	now := valuesOf(c)
	return now.route == v.route && (now.request != v.request || !maps.EqualFunc(now.keys, v.keys, same))
}

// same reports whether a value is what it was. One that cannot be compared is taken for unchanged.
func same(a, b any) bool {
	if a == nil || b == nil {
		return a == b
	}
	va, vb := reflect.ValueOf(a), reflect.ValueOf(b)
	if va.Comparable() && vb.Comparable() {
		return a == b
	}
	return va.Type() == vb.Type()
}

// checkOrder looks whether the handlers set something that changes the caller's key or tier, such as the user: then
// authentication may come after the limiter.
func (l *Limiter) checkOrder(c *gin.Context, d Decision) {
	key, err := l.key(c)
	changed := "key"
	if err != nil || key == "" || key == d.Key {
		if l.tier == nil || d.Tier != "" {
			return
		}
		tier, policy, err := l.tierOf(c)
		if err != nil || tier.Name == d.Tier && slices.Equal(policy.limits, d.Limits) {
			return
		}
		changed = "tier"
	}
	l.early.Do(func() {
		l.order.next.Store(math.MaxInt64)
		l.warn(codeOrder, "the caller's "+changed+" changes while the request is handled: "+
			"unless this is where callers log in, authentication runs after the limiter, which takes every caller for an "+
			"unknown one. Mount the limiter after authentication", "route", c.FullPath())
	})
}
