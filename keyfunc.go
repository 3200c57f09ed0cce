package ginlimit

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/gin-gonic/gin"
)

// KeyFunc says who is asking: requests with one key share one budget. It must be safe for concurrent use.
//
// An error that is ErrNoKey, or an empty key, refuses the request with 400, so that leaving a header out is no
// way around a limit; ErrSkip lets it pass uncharged; any other error is left to the [FailurePolicy]. Keys may
// hold any bytes. Those of the By… functions begin with their kind, "ip:" or "user:" for example.
//
// A limiter asks once for a request, and a few times in its life once more after the handlers ran, to notice that
// authentication comes too late (GINLIMIT004).
type KeyFunc func(*gin.Context) (string, error)

var (
	// ErrNoKey says that a request has nothing to be known by. The request is answered with 400, or tried by
	// the next KeyFunc of FirstOf.
	ErrNoKey = errors.New("ginlimit: the request has no key")
	// ErrSkip says that a request is not to be limited. It passes, is not charged and gets no headers.
	ErrSkip = errors.New("ginlimit: the request is not limited")
)

// ByIP is gin.Context.ClientIP made safe. An engine that trusts every proxy, as a new one does, lets every client
// choose its own address by a header: then the socket's address is the key, and diagnostic GINLIMIT001 says what
// to do. Call SetTrustedProxies(nil) on an engine without a proxy before it, or name your proxies.
//
// All spellings of an address are one key, IPv4 in IPv6 is IPv4 (also behind NAT64, 64:ff9b::/96), zones are
// dropped, and IPv6 is keyed by its /64, which is what one subscriber has. What is not an address is ErrNoKey; so is a
// request of http.NewRequest in a test, which has none: httptest.NewRequest gives it one.
//
// A header that gin.Engine.TrustedPlatform names is believed whoever sends it: set that only where nothing but the
// platform can reach the engine.
func ByIP() KeyFunc { return byAddr("ip:", 32, 64) }

// ByIPPrefix is ByIP for networks: IPv4 addresses share a key if their first v4Bits agree, IPv6 addresses if
// their first v6Bits do. It panics unless they are 0 to 32 and 0 to 128.
func ByIPPrefix(v4Bits, v6Bits int) KeyFunc {
	if v4Bits < 0 || v4Bits > 32 || v6Bits < 0 || v6Bits > 128 {
		panic(fmt.Errorf("ginlimit: ByIPPrefix(%d, %d): use 0 to 32 and 0 to 128 bits", v4Bits, v6Bits))
	}
	return byAddr("net:", v4Bits, v6Bits)
}

// byAddr remembers the keys of recent addresses, by how they were spelled: parsing one and writing its key costs more
// than all the rest of a decision.
func byAddr(kind string, v4Bits, v6Bits int) KeyFunc {
	type known struct{ text, key string }
	var clients clientIP
	var recent [recentAddrs]atomic.Pointer[known]
	return func(c *gin.Context) (string, error) {
		text := clients.of(c)
		place := &recent[placeOf(text)]
		if k := place.Load(); k != nil && k.text == text {
			return k.key, nil
		}
		addr, ok := parseAddr(text)
		if !ok {
			return "", ErrNoKey
		}
		key := kind + prefixKey(canonical(addr), v4Bits, v6Bits)
		if len(text) <= maxAddr {
			place.Store(&known{text: strings.Clone(text), key: key})
		}
		return key, nil
	}
}

// recentAddrs is how many addresses are remembered at most, in about 0.1 kB each: none is longer than maxAddr, which a
// zone could be.
const (
	recentAddrs = 1 << 12
	maxAddr     = 64
)

// placeOf spreads addresses by their last bytes, in which neighbours differ.
func placeOf(text string) uint64 {
	var last uint64
	for i := max(0, len(text)-8); i < len(text); i++ {
		last = last<<8 | uint64(text[i])
	}
	return last * 0x9e3779b97f4a7c15 >> 52
}

// parseAddr is netip.ParseAddr, and takes a zone on IPv4 in IPv6 too.
func parseAddr(text string) (netip.Addr, bool) {
	addr, err := netip.ParseAddr(text)
	if err == nil {
		return addr, true
	}
	spelling, zone, _ := strings.Cut(text, "%")
	addr, err = netip.ParseAddr(spelling)
	return addr, err == nil && zone != "" && addr.Is4In6()
}

// canonical returns the one form of an address that all its spellings have in common.
func canonical(addr netip.Addr) netip.Addr {
	addr = addr.WithZone("").Unmap()
	if nat64.Contains(addr) {
		b := addr.As16()
		addr = netip.AddrFrom4([4]byte(b[12:]))
	}
	return addr
}

var nat64 = netip.MustParsePrefix("64:ff9b::/96") // RFC 6052, section 2.1

// prefixKey returns the network of a canonical address, or the address itself if that is all of it.
func prefixKey(addr netip.Addr, v4Bits, v6Bits int) string {
	bits := v6Bits
	if addr.Is4() {
		bits = v4Bits
	}
	if bits == addr.BitLen() {
		return addr.String()
	}
	return netip.PrefixFrom(addr, bits).Masked().String()
}

// ByAPIKey keys by the value of a request header. The value is hashed (SHA-256, 128 bits of it), so that no
// secret reaches a backend, a log or a metric. A request without it is ErrNoKey. It does not check the value:
// put a limit by IP before it, or whoever invents keys has a budget for each. Of "Authorization" the scheme is part of the
// value, however it is spelled. It panics if header is empty.
func ByAPIKey(header string) KeyFunc {
	if header == "" {
		panic(errors.New(`ginlimit: ByAPIKey(""): name the header that carries the key`))
	}
	header = http.CanonicalHeaderKey(header)
	return func(c *gin.Context) (string, error) {
		value := strings.Trim(c.Request.Header.Get(header), " \t") // net/http does that for HTTP/1 only
		if value == "" {
			return "", ErrNoKey
		}
		sum := sha256.Sum256([]byte(value))
		return "apikey:" + hex.EncodeToString(sum[:16]), nil
	}
}

// ByUserID keys by the value that authentication, which has to run before the limiter, set with c.Set(name, …): a
// string, an integer, or anything with a String method. A request without it is ErrNoKey, and so is one
// whose value is empty or of another type. All IDs are of one kind: to keep the users and the services of one
// limiter apart, make the IDs differ, or write a KeyFunc. It panics if name is empty.
func ByUserID(name string) KeyFunc {
	if name == "" {
		panic(errors.New(`ginlimit: ByUserID(""): name the value that authentication sets`))
	}
	return func(c *gin.Context) (string, error) {
		value, _ := c.Get(name)
		id, ok := idOf(value)
		if !ok {
			return "", fmt.Errorf("%w: ByUserID(%q) finds a %T; set a string, an integer or a fmt.Stringer", ErrNoKey, name, value)
		}
		if id == "" {
			return "", ErrNoKey
		}
		return "user:" + id, nil
	}
}

// idOf returns the text of an ID, "" for none, and false if value cannot be one.
func idOf(value any) (string, bool) {
	switch v := value.(type) {
	case nil:
		return "", true
	case string:
		return v, true
	}
	rv := reflect.ValueOf(value)
	if s, ok := value.(fmt.Stringer); ok {
		if rv.Kind() == reflect.Pointer && rv.IsNil() {
			return "", true
		}
		return s.String(), true
	}
	switch {
	case rv.CanInt():
		return strconv.FormatInt(rv.Int(), 10), true
	case rv.CanUint():
		return strconv.FormatUint(rv.Uint(), 10), true
	case rv.Kind() == reflect.String:
		return rv.String(), true
	default:
		return "", false
	}
}

// ByRoute keys by method and route pattern, such as "GET /users/:id". HEAD counts as GET. All requests that
// match no route share one key, so that nobody makes keys up.
func ByRoute() KeyFunc {
	return func(c *gin.Context) (string, error) {
		path, method := c.FullPath(), c.Request.Method
		if path == "" {
			return "route:", nil
		}
		if method == http.MethodHead {
			method = http.MethodGet
		}
		return "route:" + method + " " + path, nil
	}
}

// Global gives all requests one key.
func Global() KeyFunc {
	return func(*gin.Context) (string, error) { return "global:", nil }
}

// Join keys by all of keys at once: Join(ByUserID("user"), ByRoute()) is a budget for each user on each route.
// It fails with the first of them that does. Lists that differ never share a key. It panics if there is none,
// or one is nil.
func Join(keys ...KeyFunc) KeyFunc {
	mustHave("Join", keys)
	return func(c *gin.Context) (string, error) {
		parts := make([]string, 0, 8)
		for _, key := range keys {
			part, err := key(c)
			if err != nil {
				return "", err
			}
			if part == "" {
				return "", ErrNoKey
			}
			parts = append(parts, part)
		}
		return join(parts), nil
	}
}

// join writes each part after its length, so that no two lists are written alike.
func join(parts []string) string {
	var b strings.Builder
	n := len("join:") + 4*len(parts)
	for _, part := range parts {
		n += len(part)
	}
	b.Grow(n)
	b.WriteString("join:")
	var length [20]byte
	for _, part := range parts {
		b.Write(strconv.AppendInt(length[:0], int64(len(part)), 10))
		b.WriteByte(':')
		b.WriteString(part)
	}
	return b.String()
}

// FirstOf keys by the first of keys that has one, that is, does not say ErrNoKey:
// FirstOf(ByUserID("user"), ByIP()) gives users their own budget and the others one for each address. It panics
// if there is none, or one is nil.
func FirstOf(keys ...KeyFunc) KeyFunc {
	mustHave("FirstOf", keys)
	return func(c *gin.Context) (string, error) {
		for _, key := range keys {
			part, err := key(c)
			if err == nil && part != "" {
				return part, nil
			}
			if err != nil && !errors.Is(err, ErrNoKey) {
				return "", err
			}
		}
		return "", ErrNoKey
	}
}

func mustHave(name string, keys []KeyFunc) {
	if len(keys) == 0 {
		panic(fmt.Errorf("ginlimit: %s(): name at least one key", name))
	}
	for i, key := range keys {
		if key == nil {
			panic(fmt.Errorf("ginlimit: %s: key %d is nil", name, i+1))
		}
	}
}
