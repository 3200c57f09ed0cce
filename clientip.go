package ginlimit

import (
	"net/http"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"
	"weak"

	"github.com/gin-gonic/gin"
)

// clientIP finds the address of a request's client.
type clientIP struct {
	last atomic.Pointer[seen] // there is mostly one engine
}

type seen struct {
	engine *gin.Engine
	*engineFacts
}

// of returns the address as it was written, which need not be one.
func (x *clientIP) of(c *gin.Context) string {
	facts := x.facts(c)
	switch {
	case facts.trusting:
		facts.said.foundTrust()
		for _, field := range facts.platforms {
			if addr := c.Request.Header.Get(field); addr != "" {
				return addr
			}
		}
		return socketIP(c)
	case !facts.mayForward(c):
		return socketIP(c)
	}
	if addr := c.ClientIP(); addr != "" {
		return addr
	}
	return socketIP(c) // Gin takes no zone
}

// facts returns what is known of the request's engine.
func (x *clientIP) facts(c *gin.Context) *engineFacts {
	g := engineOf(c)
	if last := x.last.Load(); last != nil && g != nil && last.engine == g {
		return last.engineFacts
	}
	facts := factsOf(c, g)
	if g != nil {
		x.last.Store(&seen{g, facts})
	}
	return facts
}

// socketIP returns the address that the connection came from: RemoteAddr without its port.
func socketIP(c *gin.Context) string {
	addr := c.Request.RemoteAddr
	if i := strings.LastIndexByte(addr, ':'); i > 0 && addr[0] != '[' && strings.IndexByte(addr, ':') == i {
		return addr[:i] // what net/http writes for IPv4
	}
	return c.RemoteIP()
}

// engineFacts is what ByIP has to know of an engine, and what was said about it.
type engineFacts struct {
	trusting  bool     // it takes anybody's word for the client's address
	platforms []string // header fields that it was told to believe: gin.Engine.TrustedPlatform
	fields    []string // header fields that ClientIP looks at, as http.Header has them; nil if not known

	said *said
}

// mayForward reports whether the request has a field from which ClientIP might take the client's address.
func (f *engineFacts) mayForward(c *gin.Context) bool {
	if f.fields == nil {
		return true
	}
	for _, field := range f.fields {
		if _, ok := c.Request.Header[field]; ok {
			return true
		}
	}
	return false
}

// engines has the facts of each engine by a weak pointer: those of an engine that is gone go too.
var engines sync.Map // of weak.Pointer[gin.Engine] to *engineFacts

func factsOf(c *gin.Context, g *gin.Engine) *engineFacts {
	if g == nil {
		return inspect(c, g)
	}
	key := weak.Make(g)
	if facts, ok := engines.Load(key); ok {
		return facts.(*engineFacts)
	}
	facts, loaded := engines.LoadOrStore(key, inspect(c, g))
	if !loaded {
		runtime.AddCleanup(g, func(key weak.Pointer[gin.Engine]) { engines.Delete(key) }, key)
	}
	return facts.(*engineFacts)
}

// saidOfAll is for requests whose engine is not known.
var saidOfAll said

// inspect asks an engine, by requests that nobody sent, whether it lets an address of TEST-NET-3 (RFC 5737) or of
// the documentation prefix (RFC 3849) speak for its clients. No proxy has such an address.
func inspect(c *gin.Context, g *gin.Engine) *engineFacts {
	facts := &engineFacts{said: &saidOfAll}
	names := []string{"X-Forwarded-For", "X-Real-Ip"}
	if g != nil {
		facts.said = new(said)
		names = nil
		for _, name := range g.RemoteIPHeaders {
			names = append(names, http.CanonicalHeaderKey(name))
		}
		if g.TrustedPlatform != "" {
			facts.platforms = append(facts.platforms, http.CanonicalHeaderKey(g.TrustedPlatform))
		}
		if g.AppEngine {
			facts.platforms = append(facts.platforms, "X-Appengine-Remote-Addr")
		}
		facts.fields = slices.Concat([]string{}, names, facts.platforms)
	}
	const claimed = "198.51.100.1"
	for _, remote := range []string{"203.0.113.77:7", "[2001:db8::77]:7"} {
		var probe *gin.Context
		if g != nil {
			probe = gin.CreateTestContextOnly(nil, g)
		} else {
			probe = c.Copy() // which reads c.Keys without their lock
		}
		probe.Request = &http.Request{Header: http.Header{}, RemoteAddr: remote}
		for _, name := range names {
			if !slices.Contains(facts.platforms, name) {
				probe.Request.Header.Set(name, claimed)
			}
		}
		facts.trusting = facts.trusting || strings.TrimSpace(probe.ClientIP()) == claimed
	}
	return facts
}

// engineOffset is where in a gin.Context its engine is, which Gin does not export; negative if a future Gin has none
// there. Then every request costs an inspection of its own.
var engineOffset = func() int {
	f, ok := reflect.TypeFor[gin.Context]().FieldByName("engine")
	if !ok || f.Type != reflect.TypeFor[*gin.Engine]() {
		return -1
	}
	return int(f.Offset)
}()

// engineOf returns the engine of a request, or nil. Reflection would do without unsafe, but costs 30 ns.
func engineOf(c *gin.Context) *gin.Engine {
	if engineOffset < 0 {
		return nil
	}
	return *(**gin.Engine)(unsafe.Add(unsafe.Pointer(c), engineOffset))
}
