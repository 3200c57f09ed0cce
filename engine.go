package ginlimit

import (
	"net"
	"net/http"
	"net/netip"
	"reflect"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"
	"weak"

	"github.com/gin-gonic/gin"
)

// ByIP has to know two things that Gin does not export: which engine serves a request, and which
// ranges of addresses the engine trusts. This file has all that depends on them.
//
// gin.Context.ClientIP knows both, but it is not enough. Where it cannot read what a trusted proxy
// wrote, such as an address with a port, it goes on to the next header, which the client may have
// sent.
//
// Both are read at the offsets of two unexported fields. The offsets are found by the fields' names
// and types when the process starts. Reflection would do without unsafe, but costs 30 ns a request.
// If a future Gin lacks one of the fields, gin.Context.ClientIP is asked instead, for each request.
// That is slower, and does not read all forms of addresses. TestGinHasWhatIsReadOfIt fails then.
var (
	engineOffset = offsetOf[gin.Context, *gin.Engine]("engine")
	rangesOffset = offsetOf[gin.Engine, []*net.IPNet]("trustedCIDRs")
)

// offsetOf returns where in a struct the field of a name and a type is, negative if there is none.
func offsetOf[Struct, Field any](name string) int {
	f, ok := reflect.TypeFor[Struct]().FieldByName(name)
	if !ok || f.Type != reflect.TypeFor[Field]() {
		return -1
	}
	return int(f.Offset)
}

// ginIsKnown reports whether Gin has both fields.
func ginIsKnown() bool { return engineOffset >= 0 && rangesOffset >= 0 }

// engineOf returns the engine of a request. It is nil if Gin is not known, and for a context that
// no engine made.
func engineOf(c *gin.Context) *gin.Engine {
	if !ginIsKnown() {
		return nil
	}
	return *(**gin.Engine)(unsafe.Add(unsafe.Pointer(c), engineOffset))
}

// rangesOf returns the ranges that an engine trusts. Gin reads them without a lock, and so does
// this function: a program must not call SetTrustedProxies while a request is served.
func rangesOf(g *gin.Engine) []*net.IPNet {
	return *(*[]*net.IPNet)(unsafe.Add(unsafe.Pointer(g), rangesOffset))
}

// engineFacts is what ByIP has to know of an engine. The first five fields are the settings that it
// was found from.
type engineFacts struct {
	ranges     []*net.IPNet // gin.Engine.SetTrustedProxies
	headers    []string     // gin.Engine.RemoteIPHeaders
	platform   string       // gin.Engine.TrustedPlatform
	appEngine  bool
	forwarding bool // gin.Engine.ForwardedByClientIP

	trusting  bool           // anybody's word is taken for the client's address
	trusted   []netip.Prefix // ranges
	platforms []string       // header fields that are believed of any client; canonical names
	fields    []string       // header fields that are believed of a trusted proxy, in order; canonical names
	byGin     bool           // Gin is not known, so that it is asked

	said *said
}

// current reports whether the engine still has the settings that the facts were found from. Every
// request pays for this, so it compares where slices and strings are, not what they hold.
// SetTrustedProxies makes a new slice, and so does a program that assigns another list to a field.
// The facts hold the old ones, so that no new one can be in their place.
func (f *engineFacts) current(g *gin.Engine) bool {
	return sameSlice(rangesOf(g), f.ranges) && sameSlice(g.RemoteIPHeaders, f.headers) &&
		len(g.TrustedPlatform) == len(f.platform) && unsafe.StringData(g.TrustedPlatform) == unsafe.StringData(f.platform) &&
		g.ForwardedByClientIP == f.forwarding && g.AppEngine == f.appEngine
}

func sameSlice[T any](a, b []T) bool {
	return len(a) == len(b) && unsafe.SliceData(a) == unsafe.SliceData(b)
}

// engineCache is the facts of the engine that served the last request: there is mostly one.
type engineCache struct {
	last atomic.Pointer[engineSeen]
}

type engineSeen struct {
	engine *gin.Engine
	*engineFacts
}

// of returns the facts of the request's engine.
func (x *engineCache) of(c *gin.Context) *engineFacts {
	g := engineOf(c)
	if last := x.last.Load(); last != nil && last.engine == g && last.current(g) {
		return last.engineFacts
	}
	facts := factsOf(c)
	if g != nil {
		x.last.Store(&engineSeen{g, facts})
	}
	return facts
}

// engines has what is known of each engine, by a weak pointer, so that an entry goes when its
// engine goes. It is state of the process, because each diagnostic of an engine appears once,
// however many limiters the engine has.
var engines sync.Map // of weak.Pointer[gin.Engine] to *engineEntry

type engineEntry struct {
	facts atomic.Pointer[engineFacts]
	said  said
}

// noEngine is the entry of all requests whose engine is not known.
var noEngine engineEntry

func entryOf(g *gin.Engine) *engineEntry {
	if g == nil {
		return &noEngine
	}
	key := weak.Make(g)
	if entry, ok := engines.Load(key); ok {
		return entry.(*engineEntry)
	}
	entry, loaded := engines.LoadOrStore(key, new(engineEntry))
	if !loaded {
		runtime.AddCleanup(g, func(key weak.Pointer[gin.Engine]) { engines.Delete(key) }, key)
	}
	return entry.(*engineEntry)
}

// factsOf returns the facts of the request's engine. A caller that asks at each request has an
// engineCache before it.
func factsOf(c *gin.Context) *engineFacts {
	g := engineOf(c)
	entry := entryOf(g)
	if g == nil {
		return askGin(c, &entry.said)
	}
	if facts := entry.facts.Load(); facts != nil && facts.current(g) {
		return facts
	}
	facts := inspect(g, &entry.said)
	entry.facts.Store(facts)
	return facts
}

// inspect finds the facts of an engine. They do not hold the engine, which would keep its entry for
// ever.
func inspect(g *gin.Engine, said *said) *engineFacts {
	f := &engineFacts{
		ranges: rangesOf(g), headers: g.RemoteIPHeaders, platform: g.TrustedPlatform,
		appEngine: g.AppEngine, forwarding: g.ForwardedByClientIP, said: said,
	}
	if f.platform != "" {
		f.platforms = append(f.platforms, http.CanonicalHeaderKey(f.platform))
	}
	if f.appEngine {
		f.platforms = append(f.platforms, "X-Appengine-Remote-Addr")
	}
	if !f.forwarding {
		return f
	}
	for _, name := range f.headers {
		f.fields = append(f.fields, http.CanonicalHeaderKey(name))
	}
	for _, r := range f.ranges {
		if p, ok := prefixOf(r); ok {
			f.trusted = append(f.trusted, p)
		}
	}
	f.trusting = len(f.fields) > 0 && slices.ContainsFunc(f.trusted, trustsAll)
	return f
}

// prefixOf returns the prefix that contains the same addresses as r. IPv4 in IPv6 is IPv4, as in
// net.IPNet.Contains.
func prefixOf(r *net.IPNet) (netip.Prefix, bool) {
	addr, ok := netip.AddrFromSlice(r.IP)
	ones, bits := r.Mask.Size()
	if addr.Is4In6() && bits == 128 {
		ones -= 96
	}
	p := netip.PrefixFrom(addr.Unmap(), ones)
	return p, ok && p.IsValid()
}

// trustsAll reports whether a trusted range has room for anybody. Nobody's proxies have 2²⁵
// addresses of IPv4, or 2¹¹³ addresses of IPv6 that are not private. No proxy has one of the
// addresses in nobodys: those are in TEST-NET-3 (RFC 5737), in the documentation prefix (RFC 3849),
// and where NAT64 and 6to4 have TEST-NET-3 in IPv6.
func trustsAll(p netip.Prefix) bool {
	if p.Addr().Is4() && p.Bits() < 8 || p.Addr().Is6() && p.Bits() < 16 && !isLocal(p.Addr()) {
		return true
	}
	return slices.ContainsFunc(nobodys, p.Contains)
}

var nobodys = []netip.Addr{
	netip.MustParseAddr("203.0.113.77"), netip.MustParseAddr("2001:db8::77"),
	netip.MustParseAddr("64:ff9b::203.0.113.77"), netip.MustParseAddr("2002:cb00:714d::77"),
}

// askGin finds what can be known without the engine: whether Gin takes the word of an address that
// no proxy has. A context that no engine made has no settings.
func askGin(c *gin.Context, said *said) *engineFacts {
	f := &engineFacts{byGin: !ginIsKnown(), said: said}
	if !f.byGin {
		return f
	}
	const claimed = "198.51.100.1"
	for _, nobody := range nobodys {
		probe := c.Copy()
		probe.Request = &http.Request{Header: http.Header{}, RemoteAddr: netip.AddrPortFrom(nobody, 7).String()}
		probe.Request.Header.Set("X-Forwarded-For", claimed)
		probe.Request.Header.Set("X-Real-IP", claimed)
		f.trusting = f.trusting || probe.ClientIP() == claimed
	}
	if f.trusting {
		f.fields = []string{"X-Forwarded-For", "X-Real-Ip"}
	}
	return f
}
