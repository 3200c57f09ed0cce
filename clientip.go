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

// ByIP keys by the client's address: gin.Context.ClientIP made safe. An engine that trusts every proxy, as a new one does,
// lets every client choose its own address by a header: then the address of the connection is the key, and diagnostic
// GINLIMIT001 says what to do. Call SetTrustedProxies(nil) on an engine without a proxy before it, or name your proxies.
//
// What a trusted proxy wrote is read as address, address:port, [IPv6] or [IPv6]:port, also in quotes and in several lines,
// and as RFC 7239 has it if gin.Engine.RemoteIPHeaders names Forwarded. If it cannot be read, the address of the connection
// is the key, never another header, which the client may have sent. A RemoteAddr without a port is read too.
//
// All spellings of an address are one key. IPv4 in IPv6 is IPv4: mapped, behind NAT64 (64:ff9b::/96, and 64:ff9b:1::/48 in
// the forms of RFC 6052), 6to4 (2002::/16) and Teredo (2001::/32). Zones are dropped. Other IPv6 is keyed by its /64,
// the least that a subscriber has. Many have more, a /56 or a /48, and so 256 or 65,536 budgets; where that matters,
// [ByIPPrefix](32, 56) gives them one, and their neighbours too if these have less. What is not an address is
// ErrNoKey; so is a request of http.NewRequest in a test, which has none: httptest.NewRequest gives it one.
//
// A header that gin.Engine.TrustedPlatform names is believed whoever sends it: set that only where nothing but the
// platform can reach the engine, and where whatever stands between them, such as an nginx on the same host,
// takes the header from the platform alone. An nginx that passes on what clients send lets them forge it.
//
// All that ByIP returns share one table of the keys of recent addresses. It takes 32 KiB with the first request of the
// process, and 0.5 MB when it is full; the ByIP itself takes less than 0.1 kB.
func ByIP() KeyFunc { return byAddr(addrKind{"ip:", 32, 64}) }

// ByIPPrefix is ByIP for networks: IPv4 addresses share a key if their first v4Bits agree, IPv6 addresses if
// their first v6Bits do. It panics unless they are 0 to 32 and 0 to 128. It shares a table, as ByIP does, with
// every ByIPPrefix of the same bits.
func ByIPPrefix(v4Bits, v6Bits int) KeyFunc {
	kind := addrKind{"net:", v4Bits, v6Bits}
	if !kind.valid() {
		panic(fmt.Errorf("ginlimit: ByIPPrefix(%d, %d): use 0 to 32 and 0 to 128 bits", v4Bits, v6Bits))
	}
	return byAddr(kind)
}

// KeyOfIP returns the key that [ByIP] has for an address, "" if addr is not valid.
func KeyOfIP(addr netip.Addr) string { return addrKind{"ip:", 32, 64}.keyOf(addr) }

// KeyOfIPPrefix returns the key that [ByIPPrefix] of the same bits has for an address. It is "" if addr is not valid, or
// if ByIPPrefix would panic.
func KeyOfIPPrefix(addr netip.Addr, v4Bits, v6Bits int) string {
	kind := addrKind{"net:", v4Bits, v6Bits}
	if !kind.valid() {
		return ""
	}
	return kind.keyOf(addr)
}

// Address returns the address that [ByIP] uses, in its canonical form and whole, and whether the request has one. It is
// safe on an engine that trusts everybody, where gin.Context.ClientIP returns what the client says. Behind a
// proxy that the engine does not trust, or whose header cannot be read, it is the address of the proxy: for an exemption,
// use [FromNetworks], which takes no proxy for its clients.
func Address(c *gin.Context) (netip.Addr, bool) {
	text, _ := factsOf(c).addressOf(c)
	addr, ok := parseAddr(text)
	return canonical(addr), ok
}

// FromNetworks returns a function that reports whether a request comes from one of some networks, for [WithSkip] and for
// a look-up of tiers. A prefix is an address or a CIDR, such as "192.0.2.1" or "10.0.0.0/8". It panics on what is
// neither.
//
// The address is that of [Address]. It must be the caller's for certain: a request that a proxy passed on, as its headers
// show, is in no network if the engine does not trust that proxy and its address is local, or if its header cannot be
// read. Otherwise a forgotten SetTrustedProxies would exempt all that come through a proxy on the same host. An
// IPv6 address that has IPv4 inside, such as that of NAT64, is in its own networks and in those of that IPv4, unless the
// IPv4 is local. No such proof exists for a proxy that sends no header: its clients have its address.
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
		text, doubt := cache.of(c).addressOf(c)
		addr, ok := parseAddr(text)
		if !ok || doubt != certain {
			return false
		}
		addr = addr.WithZone("").Unmap()
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
	passedOn         // a proxy passed the request on, and nobody trusts that proxy
	unreadable       // a trusted proxy did, and wrote what is no address: the address is that of the connection
	noPlatform       // the field of the trusted platform has no address: there is none
)

// addressOf returns the text of the request's address, which need not be one.
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

// forwarded reports whether a request has one of the fields.
func (f *engineFacts) forwarded(header http.Header) bool {
	for _, field := range f.fields {
		if _, ok := header[field]; ok {
			return true
		}
	}
	return false
}

// follow returns the address of a request that has one of the fields and was sent from remote.
func (f *engineFacts) follow(c *gin.Context, remote string) (string, doubt) {
	addr, ok := parseAddr(remote)
	addr = addr.Unmap()
	if f.trusting || !(ok && f.trusts(addr)) && !onUnixSocket(c.Request) {
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

// onUnixSocket reports whether a request came through a Unix socket, all of which Gin trusts.
func onUnixSocket(r *http.Request) bool {
	addr, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return ok && strings.HasPrefix(addr.Network(), "unix")
}

// isLocal reports whether an address is none of the Internet's: of the host, of a link, or of a private network.
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

// keyOf returns the key of an address, "" if it is not valid. The keys of "net:" are always networks; those of "ip:" are
// addresses where all bits count.
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

// keyTable remembers the keys of recent addresses by how they were spelled: parsing one and writing its key costs more
// than all the rest of a decision.
type keyTable struct {
	kind  addrKind
	slots atomic.Pointer[[recentAddrs]atomic.Pointer[addrKey]] // nil until there is one
}

type addrKey struct{ text, key string }

// recentAddrs is how many addresses a table remembers at most, in about 0.1 kB each: none is longer than maxAddr, which a
// zone could be.
const (
	recentAddrs = 1 << 12
	maxAddr     = 64
)

// keyTables has the table of each kind. It is state of the process, so that a service with a hundred limiters by address
// has one table, not a hundred that all hold the same.
var keyTables sync.Map // of addrKind to *keyTable

func tableOf(kind addrKind) *keyTable {
	table, _ := keyTables.LoadOrStore(kind, &keyTable{kind: kind})
	return table.(*keyTable)
}

// of returns the key of an address by its text, "" if it is none.
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
		t := text[n:] // one load: compilers know this form
		last = uint64(t[0]) | uint64(t[1])<<8 | uint64(t[2])<<16 | uint64(t[3])<<24 |
			uint64(t[4])<<32 | uint64(t[5])<<40 | uint64(t[6])<<48 | uint64(t[7])<<56
	} else {
		for i := range len(text) {
			last = last<<8 | uint64(text[i])
		}
	}
	return last * 0x9e3779b97f4a7c15 >> 52
}

// Networks of IPv6 whose addresses have an IPv4 address inside, and the one of IPv4 that is private besides those of
// RFC 1918.
var (
	nat64      = netip.MustParsePrefix("64:ff9b::/96")   // RFC 6052, section 2.1
	localNAT64 = netip.MustParsePrefix("64:ff9b:1::/48") // RFC 8215
	sixToFour  = netip.MustParsePrefix("2002::/16")      // RFC 3056, section 2
	teredo     = netip.MustParsePrefix("2001::/32")      // RFC 4380, section 4
	shared     = netip.MustParsePrefix("100.64.0.0/10")  // RFC 6598
)

// canonical returns the one form of an address that all its spellings have in common, IPv4 if there is one inside. The
// holder of one IPv4 address has 65,536 networks of 6to4 and 2³² of Teredo; all of IPv4 has one /64 of NAT64.
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

// inLocalNAT64 returns the IPv4 address inside an address of 64:ff9b:1::/48, of which an operator may use any prefix of RFC
// 6052, section 2.2. How long it is shows in the zeros at the end, because what follows the IPv4 is zero, unless the IPv4
// itself ends in one: then another IPv4 comes out, but the same for each such address.
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
