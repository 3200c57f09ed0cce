package ginlimit

import (
	"maps"
	"math"
	"net/http"
	"net/netip"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"
)

// Diagnostics have stable codes, which docs/diagnostics.md lists. Each appears once: for an engine,
// or for a limiter.
const (
	codeTrust     = "GINLIMIT001"
	codeTwice     = "GINLIMIT002"
	codeInRequest = "GINLIMIT003"
	codeOrder     = "GINLIMIT004"
	codeKeyless   = "GINLIMIT008"
	codeProxy     = "GINLIMIT009"
	codeCost      = "GINLIMIT010"
)

func (l *Limiter) warn(code, message string, args ...any) {
	l.logger.Warn("ginlimit: "+code+": "+message, append([]any{"code", code, "limiter", l.name}, args...)...)
}

// said is what was said of an engine.
type said struct {
	trust finding
	proxy finding
	built sync.Once

	mu    sync.Mutex
	from  netip.Addr // of the last request that an untrusted local proxy passed on
	count int        // how many such requests in a row came from there
}

// finding is something that a KeyFunc finds out about an engine. A KeyFunc has no logger, so that
// the next limiter of the engine logs it.
type finding struct {
	state atomic.Int32 // 0, isFound or isLogged
}

const (
	isFound  = 1
	isLogged = 2
)

// toLog is the number of findings that are not logged yet. It is state of the process, so that a
// request has only this to look at while there is none.
var toLog atomic.Int32

func (f *finding) found() {
	if f.state.CompareAndSwap(0, isFound) {
		toLog.Add(1)
	}
}

// log reports whether the finding is to be logged now.
func (f *finding) log() bool {
	if !f.state.CompareAndSwap(isFound, isLogged) {
		return false
	}
	toLog.Add(-1)
	return true
}

func (s *said) foundTrust() {
	if s.trust.state.Load() == 0 {
		s.trust.found()
	}
}

// proxied is how many requests in a row have to come from one local address, each with a header
// that says that a proxy passed it on, until that address is taken for a proxy that nobody named.
// Clients on the Internet have no local address, whatever headers they send.
const proxied = 100

func (s *said) foundProxy(addr netip.Addr) {
	if s.proxy.state.Load() != 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.count == proxied {
		return
	}
	if addr != s.from {
		s.from, s.count = addr, 0
	}
	if s.count++; s.count == proxied {
		s.proxy.found()
	}
}

// noteKey is the key in gin.Context.Keys of a note for the limiter that asked a KeyFunc: what the
// KeyFunc could not use. A note gets there also if FirstOf goes on to another KeyFunc.
const noteKey contextKey = 1

// noted is set once there was a note. It is state of the process, as toLog is.
var noted atomic.Bool

func note(c *gin.Context, text string) {
	c.Set(noteKey, text)
	if !noted.Load() {
		noted.Store(true)
	}
}

// report logs what was found while a request was decided about, if that is new.
func (l *Limiter) report(c *gin.Context) {
	if toLog.Load() > 0 {
		l.reportEngine(&entryOf(engineOf(c)).said)
	}
	if noted.Load() {
		if text, ok := c.Get(noteKey); ok {
			c.Delete(noteKey)
			l.keyless.Do(func() { l.warn(codeKeyless, text.(string)) })
		}
	}
}

// firstKeyless is how many requests have to come to a limiter without a key before any has one,
// until that is no coincidence.
const firstKeyless = 100

// countKeyless counts a request without a key. A limiter that meets no other refuses everybody, or
// in a dry run nobody.
func (l *Limiter) countKeyless(c *gin.Context) {
	if l.without.Load() < 0 || l.without.Add(1) != firstKeyless {
		return
	}
	l.keyless.Do(func() {
		l.warn(codeKeyless, "none of the first requests has a key, so that each is answered with 400, or passes in a dry run. "+
			"See that clients send the header that the KeyFunc reads, and that the limiter stands after the authentication that sets "+
			"the user", "requests", firstKeyless, "route", c.FullPath())
	})
}

func (l *Limiter) reportEngine(s *said) {
	if s.trust.log() {
		l.warn(codeTrust, "the engine trusts every proxy, or a range that has room for anybody, so that any client could choose "+
			"its own address by X-Forwarded-For. ByIP, Address and FromNetworks use the address of the connection instead; "+
			"gin.Context.ClientIP does not. "+
			"Call engine.SetTrustedProxies(nil) if clients connect directly or through a Unix socket, whose connections have no "+
			"address, or name your proxies' addresses in it")
	}
	if s.proxy.log() {
		s.mu.Lock()
		proxy := s.from
		s.mu.Unlock()
		l.warn(codeProxy, "requests whose headers say that a proxy passed them on come from one address, which the engine does not "+
			"trust, so that all clients of that proxy share one budget. Name the proxy's address in engine.SetTrustedProxies",
			"proxy", proxy)
	}
}

// reportSkipped looks whether the engine trusts everybody, for a request that is skipped: what
// skipped it may have believed an address that the client chose.
func reportSkipped(c *gin.Context) {
	if facts := factsOf(c); facts.trusting {
		facts.said.foundTrust()
	}
}

// warnTwice says that a limiter stands more than once before one route.
func (l *Limiter) warnTwice(c *gin.Context) {
	l.twice.Do(func() {
		l.warn(codeTwice, "the same limiter is mounted twice on one route; the request is charged once. "+
			"Remove one, or make two limiters with names of their own", "route", c.FullPath())
	})
}

// warnCost says that WithCost returned a negative number.
func (l *Limiter) warnCost(c *gin.Context, cost int64) {
	l.negative.Do(func() {
		l.warn(codeCost, "WithCost returned a negative number, so that the request is answered with 400. If it is http.Request.ContentLength: "+
			"that is -1 for a body whose length is not known, such as a chunked one. Return the most that such a body may cost, and "+
			"from WithSettle what it really cost", "cost", cost, "route", c.FullPath())
	})
}

// warnInRequest says that a limiter was made by a handler.
func (l *Limiter) warnInRequest(c *gin.Context) {
	entryOf(engineOf(c)).said.built.Do(func() {
		l.warn(codeInRequest, "the limiter was built while a request was handled. If every request builds one, each has a fresh "+
			"budget, and nothing is limited. Build it once, before the engine runs. If a handler built it to put new settings "+
			"in force, callers have a fresh budget once; they keep theirs if WithBackend names a backend that is older than the "+
			"limiter", "route", c.FullPath())
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

// orderChecks says when a limiter looks whether it comes too early: for the first requests, and
// then ever more rarely, because the first may all be anonymous.
type orderChecks struct {
	done atomic.Int32
	next atomic.Int64 // µs since 1970
}

// firstChecks is how many requests are looked at before any is passed over.
const firstChecks = 8

// due reports whether a request that was decided at an instant is to be looked at.
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

// valuesOf returns what there is now. A goroutine of a handler may set more meanwhile, so that the
// keys are those of a copy. Copy reads without their lock whether there are any: there are, since a
// limiter keeps its record among them.
func valuesOf(c *gin.Context) *values {
	keys := c.Copy().Keys
	delete(keys, historyKey)
	delete(keys, noteKey)
	return &values{c.Request, c.FullPath(), keys}
}

// changed reports whether the handlers put another request in or set something, with c.Set. What
// they gave to Engine.HandleContext is another request altogether.
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

// checkOrder looks whether the handlers set something that changes the caller's key or tier, such
// as the user: then authentication may come after the limiter.
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
