package ginlimit_test

import (
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/backend"
)

// FuzzHeaders: whatever a limiter is made of, it is refused, or every response that it writes can
// be read by a strict parser and says what was decided.
func FuzzHeaders(f *testing.F) {
	f.Add("default", "", "", int64(100), int64(60_000_000), int64(0), int64(10), int64(1_000_000), int64(1),
		uint8(0), uint8(3))
	f.Add("a b", `"quoted"`, `back\slash`, int64(1), int64(7_000), int64(5), int64(0), int64(86_400_000_000),
		int64(2), uint8(0), uint8(7))
	f.Add("x", "ends with \"", "", int64(backend.MaxCount), int64(366*86_400_000_000), int64(0), int64(3),
		int64(1_500_001), int64(backend.MaxCount), uint8(1), uint8(1))
	f.Add("größe", "", "", int64(1), int64(1_000_000), int64(0), int64(1), int64(1_000_000), int64(0), uint8(2), uint8(4))
	f.Add("~", " ", "5-per-1m", int64(5), int64(60_000_000), int64(0), int64(5), int64(60_000_000), int64(-1),
		uint8(3), uint8(0))
	f.Add("n", "", "", int64(1<<63-1), int64(1_000_000), int64(0), int64(1<<63-1), int64(1_000_000), int64(1<<63-1),
		uint8(0), uint8(5))
	f.Add("0", "", "0", int64(100), int64(60_000_000), int64(0), int64(10), int64(1_000_079), int64(50), uint8(5), uint8(3))
	f.Fuzz(func(t *testing.T, name, first, second string, count, period, burst, count2, period2, cost int64,
		algorithm, headers uint8) {
		var made []ginlimit.Decision
		var seen watch
		limiter := func(name string, limits ...ginlimit.Limit) (gin.HandlerFunc, bool) {
			l, err := ginlimit.NewLimiter(limits[0], ginlimit.Global(), ginlimit.WithName(name),
				ginlimit.WithLimits(limits[1:]...),
				ginlimit.WithHeaders(ginlimit.Headers(headers)), ginlimit.WithObserver(seen.observe),
				ginlimit.WithCost(func(*gin.Context) int64 { return cost }))
			if err != nil {
				require.True(t, strings.HasPrefix(err.Error(), "ginlimit: "), err)
				return nil, false
			}
			return l.Handle, true
		}
		a := ginlimit.Per(count, time.Duration(period)*time.Microsecond).WithAlgorithm(backend.Algorithm(algorithm)).Named(first)
		if burst != 0 {
			a = a.WithBurst(burst)
		}
		b := ginlimit.Per(count2, time.Duration(period2)*time.Microsecond).Named(second)
		one, ok1 := limiter(name, a, b)
		two, ok2 := limiter("second", b)
		if !ok1 || !ok2 {
			return
		}
		r := engine(one, two)
		for range 3 {
			seen.seen = nil
			w := send(r)
			made = seen.seen
			last := made[len(made)-1]
			require.Equal(t, max(200, last.Status()), w.Code)
			if w.Code == 400 {
				require.Negative(t, cost)
				require.True(t, json.Valid(w.Body.Bytes()))
				continue
			}
			var policies []sfItem
			for _, d := range made {
				for i, l := range d.Limits {
					if asked := []string{first, second}[i]; len(d.Limits) == 2 && asked != "" {
						require.Equal(t, asked, l.Name)
					}
					if !l.IsUnlimited() {
						policies = append(policies, sfItem{l.Name, policyOf(l)})
					}
				}
			}
			got := fields(w)
			ietf, legacy := headers&1 != 0, headers&6 != 0
			if text, ok := got["RateLimit-Policy"]; ok || ietf && len(policies) > 0 {
				require.True(t, ietf)
				list, err := parseSFList(text)
				require.NoError(t, err, text)
				require.Equal(t, policies, list)
			}
			shown := slices.DeleteFunc(slices.Clone(made), func(d ginlimit.Decision) bool { return d.Limit.IsUnlimited() })
			if text, ok := got["RateLimit"]; ok || ietf && len(shown) > 0 {
				require.True(t, ietf)
				list, err := parseSFList(text)
				require.NoError(t, err, text)
				require.Len(t, list, 1)
				require.True(t, slices.ContainsFunc(shown, func(d ginlimit.Decision) bool {
					until := up(d.ResetAfter)
					if !d.Allowed && d.RetryAfter >= 0 {
						until = max(1, up(d.RetryAfter))
					}
					want := map[string]any{"r": d.Remaining, "t": until}
					if untimed(d) {
						delete(want, "t")
					}
					return fmt.Sprint(list[0]) == fmt.Sprint(sfItem{d.Limit.Name, want})
				}), text)
			}
			for _, field := range []string{"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "Retry-After"} {
				text, ok := got[field]
				if !ok {
					untrue := field == "Retry-After" || field == "X-RateLimit-Reset" && slices.ContainsFunc(shown, untimed)
					require.False(t, legacy && len(shown) > 0 && !untrue, field)
					continue
				}
				n, err := strconv.ParseUint(text, 10, 63)
				require.NoError(t, err, field)
				require.Equal(t, text, strconv.FormatUint(n, 10))
				require.True(t, legacy || field == "Retry-After", field)
			}
			wait, ok := got["Retry-After"]
			require.Equal(t, !last.Allowed && last.RetryAfter >= 0, ok)
			if ok {
				require.Equal(t, strconv.FormatInt(max(1, up(last.RetryAfter)), 10), wait)
			}
			if !last.Allowed {
				var body struct {
					Status   int      `json:"status"`
					Detail   string   `json:"detail"`
					Violated []string `json:"violated-policies"`
				}
				require.NoError(t, json.Unmarshal(w.Body.Bytes(), &body), w.Body)
				require.Equal(t, 429, body.Status)
				var violated []string
				for i, l := range last.Limits {
					require.False(t, cost > l.Capacity() && len(last.Limits) > 1 && l.Name != last.Limit.Name && !last.Refuses(i))
					if l.Name == last.Limit.Name || last.Refuses(i) {
						violated = append(violated, l.Name)
					}
				}
				require.Equal(t, violated, body.Violated)
				require.Contains(t, body.Detail, last.Limit.Name)
			}
		}
	})
}

// up returns d in whole seconds, rounded up.
// quota returns the units of a limit in its window of whole seconds, rounded down.
func quota(l ginlimit.Limit) int64 {
	units := new(big.Int).Mul(big.NewInt(l.Count), big.NewInt(up(l.Period)*int64(time.Second)))
	units.Quo(units, big.NewInt(int64(l.Period)))
	return min(units.Int64(), backend.MaxCount)
}

// policyOf returns the parameters of a limit in RateLimit-Policy.
func policyOf(l ginlimit.Limit) map[string]any {
	if l.Algorithm == ginlimit.Concurrency {
		return map[string]any{"q": l.Count, "qu": "concurrent-requests"}
	}
	return map[string]any{"q": quota(l), "w": up(l.Period)}
}

// untimed reports whether nobody knows when more is left.
func untimed(d ginlimit.Decision) bool {
	return d.Err == nil && (!d.Allowed && d.RetryAfter < 0 || d.Limit.Algorithm == ginlimit.Concurrency)
}

func up(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

// FuzzJoin: lists that differ never have one key, nested or not.
func FuzzJoin(f *testing.F) {
	f.Add("a\nb", "ab", uint8(0))
	f.Add("1:a", "a", uint8(1))
	f.Add("a\n\nb", "a\nb", uint8(2))
	f.Add("join:1:a1:b", "a\nb", uint8(3))
	f.Add("\x00\nb", "\x00b", uint8(1))
	joinEngine := engine()
	f.Fuzz(func(t *testing.T, one, two string, nest uint8) {
		key := func(list []string, nested bool) string {
			parts := make([]ginlimit.KeyFunc, len(list))
			for i, s := range list {
				parts[i] = is(s)
			}
			if nested {
				parts = append([]ginlimit.KeyFunc{ginlimit.Join(parts[0])}, parts[1:]...)
			}
			got, err := keyOf(joinEngine, ginlimit.Join(parts...))
			if slices.Contains(list, "") {
				require.ErrorIs(t, err, ginlimit.ErrNoKey)
				return fmt.Sprintf("%q", list)
			}
			require.NoError(t, err)
			return got
		}
		a, b := strings.Split(one, "\n"), strings.Split(two, "\n")
		nestA, nestB := nest&1 != 0, nest&2 != 0
		same := slices.Equal(a, b) && (nestA == nestB || slices.Contains(a, ""))
		if !nestA && nestB && !slices.Contains(b, "") { // a may say what the nested part of b is called
			inner := key(b[:1], false)
			same = slices.Equal(a, append([]string{inner}, b[1:]...))
		}
		if nestA && !nestB && !slices.Contains(a, "") {
			inner := key(a[:1], false)
			same = slices.Equal(b, append([]string{inner}, a[1:]...))
		}
		assert.Equal(t, same, key(a, nestA) == key(b, nestB), "%q %v, %q %v", a, nestA, b, nestB)
	})
}

// FuzzCanonicalAddress: one address has one key however it is written, and so have the addresses of
// one /64.
func FuzzCanonicalAddress(f *testing.F) {
	for _, s := range []string{"192.0.2.1", "::ffff:192.0.2.1", "64:ff9b::c000:201", "2001:DB8::1", "fe80::1%eth0",
		"::", "0.0.0.0",
		"::ffff:0:0%x", "rubbish", "", "1.2.3.4:5", "[::1]", "1.2.3", "01.2.3.4", " 1.2.3.4", "::1.2.3.4", "64:ff9b:1::1", "2002:102:304::1",
		"[::1]:80", "1:2:3:4:5:6:7:8:80", "::1:65535", "::1:65536", `"[::1]:80"`, `"1.2.3.4"`, `"1.2.3.4`, "[1.2.3.4]", "[1.2.3.4]:80", "[::1]:",
		"1.2.3.4:", "[::1%eth0]:80", "[::ffff:1.2.3.4%x]:80", "1.2.3.4:+5", "2001:0:1:2:3:4:5:6"} {
		f.Add(s, []byte("\x20\x01\x0d\xb8\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01"))
	}
	f.Add("", []byte("\x20\x02\xc0\x00\x02\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01"))
	f.Add("", []byte("\x00\x64\xff\x9b\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x00\x02\x01"))
	r := engine()
	r.TrustedPlatform = "Client"
	by := ginlimit.ByIP()
	embedding := []netip.Prefix{netip.MustParsePrefix("::ffff:0:0/96"), netip.MustParsePrefix("64:ff9b::/96"),
		netip.MustParsePrefix("64:ff9b:1::/48"),
		netip.MustParsePrefix("2002::/16"), netip.MustParsePrefix("2001::/32")}
	embeds := func(addr netip.Addr) bool {
		return slices.ContainsFunc(embedding, func(p netip.Prefix) bool { return p.Contains(addr) })
	}
	f.Fuzz(func(t *testing.T, text string, raw []byte) {
		key := func(s string) string {
			c := gin.CreateTestContextOnly(httptest.NewRecorder(), r)
			c.Request = &http.Request{Header: http.Header{"Client": {s}}, RemoteAddr: "@"}
			got, err := by(c)
			if err != nil {
				require.ErrorIs(t, err, ginlimit.ErrNoKey)
				require.Empty(t, got)
			}
			return got
		}
		addr, ok := addressIn(text)
		require.Equal(t, ok, key(text) != "", "%q", text)
		require.Equal(t, ginlimit.KeyOfIP(addr), key(text))

		if ok {
			for _, other := range []string{addr.StringExpanded(), strings.ToUpper(addr.WithZone("").String()),
				addr.WithZone("").String(), addr.Unmap().String(),
				netip.AddrPortFrom(addr.WithZone("").Unmap(), 4711).String(), `"` + addr.WithZone("").String() + `"`} {
				require.Equal(t, key(text), key(other), other)
			}
		}
		if len(raw) < 16 {
			return
		}
		b := [16]byte(raw)
		six := netip.AddrFrom16(b)
		v4 := netip.AddrFrom4([4]byte(b[12:]))
		require.Equal(t, "ip:"+v4.String(), key(v4.String()))
		for _, same := range [][16]byte{
			v4.As16(),
			{0, 0x64, 0xff, 0x9b, 12: b[12], 13: b[13], 14: b[14], 15: b[15]},
			{0x20, 0x02, b[12], b[13], b[14], b[15], b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9]},
			{0x20, 0x01, 0, 0, b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7], ^b[12], ^b[13], ^b[14], ^b[15]},
		} {
			require.Equal(t, key(v4.String()), key(netip.AddrFrom16(same).String()), "%v", netip.AddrFrom16(same))
		}
		if b[15] != 0 { // the forms of RFC 6052, section 2.2, whose length shows
			for _, same := range [][16]byte{
				{0, 0x64, 0xff, 0x9b, 0, 1, b[12], b[13], 0, b[14], b[15]},
				{0, 0x64, 0xff, 0x9b, 0, 1, b[0], b[12], 0, b[13], b[14], b[15]},
				{0, 0x64, 0xff, 0x9b, 0, 1, b[0], b[1], 0, b[12], b[13], b[14], b[15]},
				{0, 0x64, 0xff, 0x9b, 0, 1, b[0], b[1], 0, b[2], b[3], b[4], b[12], b[13], b[14], b[15]},
			} {
				require.Equal(t, key(v4.String()), key(netip.AddrFrom16(same).String()), "%v", netip.AddrFrom16(same))
			}
		}
		if embeds(six) {
			return
		}
		require.Equal(t, key(six.String()), key(six.StringExpanded()))
		require.Equal(t, key(six.String()), key(six.WithZone("eth0").String()))
		for i := range b {
			other := b
			other[i] ^= 1
			o := netip.AddrFrom16(other)
			if embeds(o) {
				continue
			}
			require.Equal(t, i >= 8, key(six.String()) == key(o.String()), "%v %v", six, o)
		}
	})
}

// addressIn is what an element of a header says by the rules of net/netip: an address, or one with
// a port, also in quotes.
func addressIn(text string) (netip.Addr, bool) {
	text = strings.TrimSpace(text)
	if q := strings.TrimSuffix(strings.TrimPrefix(text, `"`), `"`); len(q) == len(text)-2 {
		text = q
	}
	bare := func(text string) (netip.Addr, bool) {
		addr, err := netip.ParseAddr(text)
		if i := strings.IndexByte(text, '%'); err != nil && i > 0 && i < len(text)-1 {
			if addr, err = netip.ParseAddr(text[:i]); err == nil && !addr.Is4In6() {
				return netip.Addr{}, false
			}
		}
		return addr, err == nil
	}
	whole := func(text string) (netip.Addr, bool) {
		if in := strings.TrimSuffix(strings.TrimPrefix(text, "["), "]"); len(in) == len(text)-2 && text[0] == '[' {
			addr, ok := bare(in)
			return addr, ok && addr.Is6()
		}
		return netip.Addr{}, false
	}
	if addr, ok := bare(text); ok {
		return addr, true
	}
	if addr, ok := whole(text); ok {
		return addr, true
	}
	i := strings.LastIndexByte(text, ':')
	if i < 0 {
		return netip.Addr{}, false
	}
	if _, err := netip.ParseAddrPort("0.0.0.0" + text[i:]); err != nil {
		return netip.Addr{}, false
	}
	if addr, ok := whole(text[:i]); ok {
		return addr, true
	}
	return bare(text[:i])
}

// FuzzForwardedFor: what Gin reads in X-Forwarded-For is read alike. What it cannot read is read by
// the rules of netip, or it makes the connection's address the key, but never the next header.
func FuzzForwardedFor(f *testing.F) {
	for _, s := range []string{"198.51.100.9", "198.51.100.9, 10.9.9.9", "10.9.9.9,10.9.9.8", "198.51.100.9:80",
		"[2001:db8::1]:80, 10.1.1.1:5", "", ",",
		"unknown", "1.1.1.1, unknown", "fe80::1%eth0", "::ffff:10.9.9.9, 10.1.1.1", `"1.1.1.1"`, "1.1.1.1,,10.9.9.9", "fd00::1", "64:ff9b::a00:1"} {
		f.Add(s, "", uint8(0))
		f.Add("10.8.8.8", s, uint8(33))
		f.Add(s, "10.8.8.8, [fd00::1]:443", uint8(35))
	}
	ranges := []string{"10.0.0.0/8", "fd00::/8", "192.0.2.0/24", "::ffff:172.16.0.0/108"}
	const sentinel = "198.18.0.77"
	by := ginlimit.ByIP()
	engines := map[uint8]*gin.Engine{}
	for i := range uint8(16) {
		var proxies []string
		for j, p := range ranges {
			if i>>j&1 != 0 {
				proxies = append(proxies, p)
			}
		}
		engines[i] = trusting(append(proxies, "203.0.112.1")...)
		engines[i].RemoteIPHeaders = []string{"X-Forwarded-For", "Sentinel"}
	}
	f.Fuzz(func(t *testing.T, first, second string, which uint8) {
		trusts := func(addr netip.Addr) bool {
			for j, p := range []string{"10.0.0.0/8", "fd00::/8", "192.0.2.0/24", "172.16.0.0/12"} {
				if which>>j&1 != 0 && netip.MustParsePrefix(p).Contains(addr) {
					return true
				}
			}
			return addr == netip.MustParseAddr("203.0.112.1")
		}
		lines := []string{first}
		if which&32 != 0 {
			lines = append(lines, second)
		}
		c := gin.CreateTestContextOnly(httptest.NewRecorder(), engines[which%16])
		c.Request = &http.Request{Header: http.Header{"X-Forwarded-For": lines, "Sentinel": {sentinel}},
			RemoteAddr: "203.0.112.1:4711"}
		got, err := by(c)
		require.NoError(t, err)
		if gins := c.ClientIP(); gins != sentinel || strings.Join(lines, "") == "" {
			require.Equal(t, ginlimit.KeyOfIP(netip.MustParseAddr(gins)), got, "Gin reads %q", lines)
		}
		c.Request = &http.Request{Header: http.Header{}, RemoteAddr: first}
		if gins := c.ClientIP(); gins != "" {
			socket, err := by(c)
			require.NoError(t, err)
			require.Equal(t, ginlimit.KeyOfIP(netip.MustParseAddr(gins)), socket, "Gin reads the RemoteAddr %q", first)
		}

		want := "ip:203.0.112.1"
		elements := strings.Split(strings.Join(lines, ","), ",")
		for i := len(elements) - 1; i >= 0; i-- {
			addr, ok := addressIn(elements[i])
			if !ok {
				break
			}
			if i == 0 || !trusts(addr.Unmap()) {
				want = ginlimit.KeyOfIP(addr)
				break
			}
		}
		if strings.Join(lines, "") != "" {
			require.Equal(t, want, got, "%q", lines)
		}
	})
}

// FuzzForwarded: whatever a client sends, in the same line or before it, the element that the
// trusted proxy appends says who the client is, in each form that RFC 7239 has.
func FuzzForwarded(f *testing.F) {
	for _, s := range []string{"", "for=1.1.1.1", `for="`, `for="\`, `for=1.1.1.1;x="`, "for=1.1.1.1;", `"`, ",",
		`\`, "for=", "unknown", `for="[::1]:1", x="`} {
		f.Add(s, []byte("\x20\x01\x0d\xb8\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01"), "x", uint8(0))
		f.Add(s, []byte("\x20\x01\x0d\xb8\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01"), `a"b\;c=d`, uint8(255))
	}
	r := trusting("10.0.0.0/8")
	r.RemoteIPHeaders = []string{"Forwarded", "X-Forwarded-For"}
	by := ginlimit.ByIP()
	key := func(t *testing.T, lines ...string) string {
		c := gin.CreateTestContextOnly(httptest.NewRecorder(), r)
		c.Request = &http.Request{Header: http.Header{"Forwarded": lines, "X-Forwarded-For": {"192.0.2.99"}},
			RemoteAddr: "10.1.2.3:4711"}
		got, err := by(c)
		require.NoError(t, err)
		require.NotEqual(t, "ip:192.0.2.99", got, "another header")
		return got
	}
	f.Fuzz(func(t *testing.T, sent string, raw []byte, host string, form uint8) {
		if len(raw) < 16 || strings.Contains(host, ",") || strings.Contains(sent, "192.0.2.99") {
			return
		}
		addr := netip.AddrFrom16([16]byte(raw))
		if form&1 != 0 {
			addr = netip.AddrFrom4([4]byte(raw))
		}
		if addr = addr.Unmap(); netip.MustParsePrefix("10.0.0.0/8").Contains(addr) || ginlimit.KeyOfIP(addr) == "ip:192.0.2.99" {
			return
		}
		node := addr.String()
		if addr.Is6() {
			node = "[" + node + "]"
		}
		switch form >> 1 & 3 {
		case 1:
			node += ":4711"
		case 2:
			node += ":_port-1"
		}
		if node != addr.String() || form&8 != 0 {
			node = `"` + node + `"`
		}
		quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(host)
		pairs := []string{"For=" + node, `host="` + quoted + `"`, "proto=https", "by=_proxy"}
		if form&16 != 0 {
			pairs[0], pairs[1] = pairs[1], pairs[0]
		}
		separator := ";"
		if form&32 != 0 {
			separator = "; "
		}
		written := strings.Join(pairs, separator)
		want := ginlimit.KeyOfIP(addr)
		require.Equal(t, want, key(t, written), "%q", written)
		require.Equal(t, want, key(t, sent+", "+written), "%q, in one line", written)
		require.Equal(t, want, key(t, sent, written), "%q, in two lines", written)
		require.Equal(t, want, key(t, sent+", "+written+", for=10.9.9.9"), "%q, and a second proxy", written)
		if sent != "" {
			key(t, sent) // takes no other header, and does not panic
		}
	})
}
