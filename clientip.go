package ginlimit

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/gin-gonic/gin"
)

// ByIP keys by the client's address. It is gin.Context.ClientIP made safe.
//
// An engine that trusts every proxy, as gin.New returns it, lets every client choose its own
// address by a header. On such an engine ByIP uses the address of the connection, and diagnostic
// GINLIMIT001 says what to do: call SetTrustedProxies(nil) if no proxy stands before the engine, or
// name your proxies in it.
//
// A trusted proxy may write address, address:port, [IPv6] or [IPv6]:port, in quotes or not, in one
// header line or several. RFC 7239's Forwarded is read if gin.Engine.RemoteIPHeaders names it. If
// what the proxy wrote cannot be read, the key is the address of the connection. It never comes
// from another header, which the client may have sent. The engine's settings count as they are at
// each request. Change them only while no request is served: Gin reads them without a lock.
//
// All spellings of an address are one key. An IPv4 address inside an IPv6 one counts as IPv4:
// mapped, by NAT64 (64:ff9b::/96 and, in the forms of RFC 6052, 64:ff9b:1::/48), by 6to4
// (2002::/16) and by Teredo (2001::/32). Zones are dropped.
//
// Any other IPv6 address is keyed by its /64. Many subscribers have more, a /56 or a /48, and with
// it 256 or 65,536 budgets. Where that matters, [ByIPPrefix](32, 56) gives each /56 one budget.
// Then neighbours that have only a /64 each share it.
//
// A request without an address is ErrNoKey, and GINLIMIT008 says why. A request of http.NewRequest,
// in a test, has none; that of httptest.NewRequest has one.
//
// A header that gin.Engine.TrustedPlatform names is believed, whatever client sends it. Set
// TrustedPlatform only if nobody but the platform can reach the engine. An nginx on the same host
// that passes on what clients send lets them forge the header.
//
// All KeyFuncs of ByIP share one table of recent addresses and their keys. It takes 32 KiB from the
// first request of the process on, and 0.5 MB when it is full. A KeyFunc itself takes less than 0.1
// kB.
func ByIP() KeyFunc { return byAddr(addrKind{"ip:", 32, 64}) }

// ByIPPrefix is [ByIP] for networks: IPv4 addresses share a key if their first v4Bits agree, IPv6
// addresses if their first v6Bits agree. It panics unless v4Bits is 0 to 32 and v6Bits is 0 to 128.
// All with the same bits share a table, as those of ByIP do.
func ByIPPrefix(v4Bits, v6Bits int) KeyFunc {
	kind := addrKind{"net:", v4Bits, v6Bits}
	if !kind.valid() {
		panic(fmt.Errorf("ginlimit: ByIPPrefix(%d, %d): use 0 to 32 and 0 to 128 bits", v4Bits, v6Bits))
	}
	return byAddr(kind)
}

// KeyOfIP returns the key that [ByIP] has for an address, or "" if addr is not valid.
func KeyOfIP(addr netip.Addr) string { return addrKind{"ip:", 32, 64}.keyOf(addr) }

// KeyOfIPPrefix returns the key that [ByIPPrefix] with the same bits has for an address. It returns
// "" if addr is not valid, or if ByIPPrefix would panic.
func KeyOfIPPrefix(addr netip.Addr, v4Bits, v6Bits int) string {
	kind := addrKind{"net:", v4Bits, v6Bits}
	if !kind.valid() {
		return ""
	}
	return kind.keyOf(addr)
}

// Address returns the address that [ByIP] uses, and whether the request has one. The address is
// canonical, and whole: it is not cut to a /64. Unlike gin.Context.ClientIP, Address is safe on an
// engine that trusts everybody.
//
// Behind a proxy that the engine does not trust, or whose header cannot be read, it is the address
// of the proxy. Therefore use [FromNetworks] for an exemption. It does not take a proxy for the
// proxy's clients.
func Address(c *gin.Context) (netip.Addr, bool) {
	text, _ := factsOf(c).addressOf(c)
	addr, ok := parseAddr(text)
	return canonical(addr), ok
}

// FromNetworks returns a function that reports whether a request comes from one of the networks,
// for [WithSkip] and for a look-up of tiers. Each prefix is an address or a CIDR, such as
// "192.0.2.1" or "10.0.0.0/8". FromNetworks panics if one is neither.
//
// The function looks at the address that [Address] returns, and reports false if that may be a
// proxy's, not the caller's. This is so if a header shows that a proxy passed the request on, and
// the header cannot be read, or the proxy has a private address and the engine does not trust it,
// or reads none of its headers. Such headers are X-Forwarded-For, -Proto and -Host, Forwarded,
// X-Real-IP and Via. Otherwise a forgotten SetTrustedProxies would exempt everybody that comes
// through a proxy on the same host. A proxy that writes no header cannot be told from a caller.
//
// An IPv6 address with IPv4 inside, such as one of NAT64, is in networks of both, unless the IPv4
// is private.
func FromNetworks(prefixes ...string) func(*gin.Context) bool {
	networks := make([]netip.Prefix, len(prefixes))
	for i, text := range prefixes {
		var ok bool
		if networks[i], ok = parseNetwork(text); !ok {
			panic(fmt.Errorf("ginlimit: FromNetworks: %q is no address and no CIDR; write 192.0.2.1 or 10.0.0.0/8, for example", text))
		}
	}
	var cache engineCache
	return func(c *gin.Context) bool {
		facts := cache.of(c)
		text, doubt := facts.addressOf(c)
		addr, ok := parseAddr(text)
		if !ok || doubt != certain {
			return false
		}
		addr = addr.WithZone("").Unmap()
		if isLocal(addr) && facts.unread(c.Request, text) {
			return false
		}
		inside := canonical(addr)
		if isLocal(inside) {
			inside = addr
		}
		for _, n := range networks {
			if n.Contains(addr) || n.Contains(inside) {
				return true
			}
		}
		return false
	}
}

// parseNetwork reads an address or a CIDR. IPv4 in IPv6 is IPv4.
func parseNetwork(text string) (netip.Prefix, bool) {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		addr, ok := parseAddr(text)
		addr = addr.WithZone("").Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), ok
	}
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), true
}

// doubt says why an address may not be the client's.
type doubt uint8

const (
	certain    doubt = iota
	passedOn         // a proxy passed the request on, which has a local address and is not trusted
	unreadable       // a trusted proxy wrote what is no address, so that the address is that of the connection
	noPlatform       // there is no address, because that of the trusted platform cannot be read
)

// addressOf returns the text of the request's address. The text need not be an address.
func (f *engineFacts) addressOf(c *gin.Context) (string, doubt) {
	header := c.Request.Header
	for _, field := range f.platforms {
		if values := header[field]; len(values) > 0 && values[0] != "" {
			if text := platformAddr(field, values[0]); text != "" {
				return text, certain
			}
			return "", noPlatform
		}
	}
	remote := socketAddr(c.Request.RemoteAddr)
	if f.trusting {
		f.said.foundTrust()
	}
	switch {
	case f.forwarded(header):
		return f.follow(c, remote)
	case f.byGin && !f.trusting:
		if text := c.ClientIP(); text != "" {
			return text, certain
		}
	}
	return remote, certain
}

// forwarded reports whether a request has one of the fields in which a proxy names its client.
func (f *engineFacts) forwarded(header http.Header) bool {
	for _, field := range f.fields {
		if _, ok := header[field]; ok {
			return true
		}
	}
	return false
}

// signsOfProxies are header fields that proxies write, in canonical form.
var signsOfProxies = [...]string{"X-Forwarded-For", "Forwarded", "X-Real-Ip", "Via", "X-Forwarded-Proto", "X-Forwarded-Host"}

// unread reports whether text is the address of the connection only because the engine does not
// read the field that a proxy wrote: RemoteIPHeaders does not name it, or ForwardedByClientIP is
// off.
func (f *engineFacts) unread(r *http.Request, text string) bool {
	if text != socketAddr(r.RemoteAddr) || f.forwarded(r.Header) {
		return false
	}
	return slices.ContainsFunc(signsOfProxies[:], func(field string) bool { return len(r.Header[field]) > 0 })
}

// follow returns the address of a request that has such a field and came from remote.
func (f *engineFacts) follow(c *gin.Context, remote string) (string, doubt) {
	addr, _ := parseAddr(remote)
	addr = addr.Unmap()
	if trusted := !f.trusting && (f.trusts(addr) || onUnixSocket(c.Request)); !trusted {
		if !isLocal(addr) {
			return remote, certain
		}
		if !f.trusting {
			f.said.foundProxy(addr)
		}
		return remote, passedOn
	}
	for _, field := range f.fields {
		if lines := c.Request.Header[field]; slices.ContainsFunc(lines, isText) {
			if text := clientAddr(field, lines, f.trusts); text != "" {
				return text, certain
			}
			return remote, unreadable
		}
	}
	return remote, certain
}

func isText(line string) bool { return line != "" }

func (f *engineFacts) trusts(addr netip.Addr) bool {
	for _, p := range f.trusted {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// onUnixSocket reports whether a request came through a Unix socket. Gin trusts all of them.
func onUnixSocket(r *http.Request) bool {
	addr, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return ok && strings.HasPrefix(addr.Network(), "unix")
}

// isLocal reports whether an address is not one of the Internet, but of the host, a link or a
// private network.
func isLocal(addr netip.Addr) bool {
	return addr.IsPrivate() || addr.IsLoopback() || addr.IsLinkLocalUnicast() || addr.IsMulticast() || addr.IsUnspecified() ||
		shared.Contains(addr)
}

// addrKind is how addresses become keys.
type addrKind struct {
	prefix         string
	v4Bits, v6Bits int
}

func (k addrKind) valid() bool {
	return k.v4Bits >= 0 && k.v4Bits <= 32 && k.v6Bits >= 0 && k.v6Bits <= 128
}

// keyOf returns the key of an address, or "" if addr is not valid. A key of "net:" is always a
// network. A key of "ip:" is an address if all bits count.
func (k addrKind) keyOf(addr netip.Addr) string {
	if !addr.IsValid() {
		return ""
	}
	addr = canonical(addr)
	bits := k.v6Bits
	if addr.Is4() {
		bits = k.v4Bits
	}
	if k.prefix == "ip:" && bits == addr.BitLen() {
		return k.prefix + addr.String()
	}
	return k.prefix + netip.PrefixFrom(addr, bits).Masked().String()
}

func byAddr(kind addrKind) KeyFunc {
	keys, cache := tableOf(kind), new(engineCache)
	return func(c *gin.Context) (string, error) {
		text, doubt := cache.of(c).addressOf(c)
		if doubt == unreadable {
			note(c, "a proxy that the engine trusts wrote something in a header of gin.Engine.RemoteIPHeaders that is no address, "+
				"so that all clients of whom it does so share one budget, that of the connection's address. "+
				"Make the proxy write addresses there, or take the header out of RemoteIPHeaders")
		}
		if key := keys.of(text); key != "" {
			return key, nil
		}
		switch {
		case doubt == noPlatform:
			return noKey(c, "the header that the engine's TrustedPlatform names holds no address",
				"Name a header that holds one address, or name your proxies in engine.SetTrustedProxies instead")
		case c.Request.RemoteAddr == "":
			return noKey(c, "http.Request.RemoteAddr is empty", "In a test, make the request by httptest.NewRequest")
		default:
			return noKey(c, "http.Request.RemoteAddr is no address, and no header that the engine believes has one",
				"Behind a Unix socket, make the proxy write X-Forwarded-For")
		}
	}
}

// keyTable remembers the keys of recent addresses by their text. To parse an address and write its
// key would cost more than the rest of a decision.
type keyTable struct {
	kind  addrKind
	slots atomic.Pointer[[recentAddrs]atomic.Pointer[addrKey]] // nil until there is one
}

type addrKey struct{ text, key string }

// recentAddrs is how many addresses a table remembers at most, in about 0.1 kB each. It does not
// remember one longer than maxAddr bytes: a zone can have any length.
const (
	recentAddrs = 1 << 12
	maxAddr     = 64
)

// keyTables has the table of each kind. It is state of the process, so that a service with a
// hundred limiters by address has one table, not a hundred with the same in them.
var keyTables sync.Map // of addrKind to *keyTable

func tableOf(kind addrKind) *keyTable {
	table, _ := keyTables.LoadOrStore(kind, &keyTable{kind: kind})
	return table.(*keyTable)
}

// of returns the key of an address, or "" if text is no address.
func (t *keyTable) of(text string) string {
	slots, place := t.slots.Load(), placeOf(text)
	if slots != nil {
		if k := slots[place].Load(); k != nil && k.text == text {
			return k.key
		}
	}
	addr, ok := parseAddr(text)
	if !ok {
		return ""
	}
	key := t.kind.keyOf(addr)
	if len(text) > maxAddr {
		return key
	}
	if slots == nil {
		t.slots.CompareAndSwap(nil, new([recentAddrs]atomic.Pointer[addrKey]))
		slots = t.slots.Load()
	}
	slots[place].Store(&addrKey{strings.Clone(text), key})
	return key
}

// placeOf spreads addresses by their last bytes, in which neighbours differ.
func placeOf(text string) uint64 {
	var last uint64
	if n := len(text) - 8; n >= 0 {
		t := text[n:] // the compiler makes one load of this
		last = uint64(t[0]) | uint64(t[1])<<8 | uint64(t[2])<<16 | uint64(t[3])<<24 |
			uint64(t[4])<<32 | uint64(t[5])<<40 | uint64(t[6])<<48 | uint64(t[7])<<56
	} else {
		for i := range len(text) {
			last = last<<8 | uint64(text[i])
		}
	}
	return last * 0x9e3779b97f4a7c15 >> 52
}

// These are the networks of IPv6 whose addresses have an IPv4 address inside, and the network of
// IPv4 that carriers share.
var (
	nat64      = netip.MustParsePrefix("64:ff9b::/96")   // RFC 6052, section 2.1
	localNAT64 = netip.MustParsePrefix("64:ff9b:1::/48") // RFC 8215
	sixToFour  = netip.MustParsePrefix("2002::/16")      // RFC 3056, section 2
	teredo     = netip.MustParsePrefix("2001::/32")      // RFC 4380, section 4
	shared     = netip.MustParsePrefix("100.64.0.0/10")  // RFC 6598
)

// canonical returns the form that all spellings of an address have in common, which is IPv4 if
// there is one inside. A host with one IPv4 address has 65,536 networks of 6to4 and 2³² of Teredo.
// All of IPv4 behind a NAT64 has one /64.
func canonical(addr netip.Addr) netip.Addr {
	addr = addr.WithZone("").Unmap()
	if !addr.Is6() {
		return addr
	}
	b := addr.As16()
	switch {
	case nat64.Contains(addr):
		return netip.AddrFrom4([4]byte(b[12:]))
	case sixToFour.Contains(addr):
		return netip.AddrFrom4([4]byte(b[2:]))
	case teredo.Contains(addr):
		return netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]})
	case localNAT64.Contains(addr) && b[8] == 0:
		return inLocalNAT64(b)
	}
	return addr
}

// inLocalNAT64 returns the IPv4 address inside an address of 64:ff9b:1::/48. An operator may use
// any prefix in it that is /48, /56, /64 or /96 long (RFC 6052, section 2.2). What follows the IPv4
// is zero, so that the zeros at the end show how long the prefix is. Only an IPv4 that itself ends
// in zeros may be taken for another, but always for the same one.
func inLocalNAT64(b [16]byte) netip.Addr {
	switch {
	case b[13]|b[14]|b[15] != 0: // a /96
		return netip.AddrFrom4([4]byte(b[12:]))
	case b[12] != 0: // a /64
		return netip.AddrFrom4([4]byte(b[9:]))
	case b[11] != 0: // a /56
		return netip.AddrFrom4([4]byte{b[7], b[9], b[10], b[11]})
	default: // a /48
		return netip.AddrFrom4([4]byte{b[6], b[7], b[9], b[10]})
	}
}
