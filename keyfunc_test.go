package ginlimit_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"runtime"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit"
)

// keyOf asks a KeyFunc for the key of a GET of "/" to an engine.
func keyOf(r *gin.Engine, key ginlimit.KeyFunc, edits ...func(*http.Request)) (string, error) {
	c := gin.CreateTestContextOnly(httptest.NewRecorder(), r)
	c.Request = httptest.NewRequest(http.MethodGet, "/", nil)
	for _, edit := range edits {
		edit(c.Request)
	}
	return key(c)
}

func remote(addr string) func(*http.Request) {
	return func(q *http.Request) { q.RemoteAddr = addr }
}

// trusting returns an engine with the proxies set, or as gin.New makes it if there are none.
func trusting(proxies ...string) *gin.Engine {
	r := gin.New()
	if proxies != nil {
		if err := r.SetTrustedProxies(proxies); err != nil {
			panic(err)
		}
	}
	r.GET("/", answer)
	return r
}

func TestByIPOfTheSocket(t *testing.T) {
	for _, tt := range []struct{ remote, ip, prefix string }{
		{"192.0.2.1:1234", "ip:192.0.2.1", "net:192.0.2.0/24"},
		{"192.0.2.1:0", "ip:192.0.2.1", "net:192.0.2.0/24"},
		{"[::ffff:192.0.2.1]:1234", "ip:192.0.2.1", "net:192.0.2.0/24"},
		{"[::FFFF:c000:201]:1234", "ip:192.0.2.1", "net:192.0.2.0/24"},
		{"[0:0:0:0:0:ffff:192.0.2.1]:1", "ip:192.0.2.1", "net:192.0.2.0/24"},
		{"[::ffff:192.0.2.1%eth0]:1", "ip:192.0.2.1", "net:192.0.2.0/24"},
		{"[64:ff9b::192.0.2.1]:1", "ip:192.0.2.1", "net:192.0.2.0/24"},
		{"[64:FF9B:0::C000:0201]:1", "ip:192.0.2.1", "net:192.0.2.0/24"},
		{"[64:ff9b::c000:201%eth0]:1", "ip:192.0.2.1", "net:192.0.2.0/24"},
		{"[64:ff9b:1::c000:201]:1", "ip:192.0.2.1", "net:192.0.2.0/24"}, // RFC 8215, in the forms of RFC 6052
		{"[64:ff9b:1:abcd::c000:201]:1", "ip:192.0.2.1", "net:192.0.2.0/24"},
		{"[64:ff9b:1:c000:2:100::]:1", "ip:192.0.2.1", "net:192.0.2.0/24"},
		{"[64:ff9b:1:abc0:0:201::]:1", "ip:192.0.2.1", "net:192.0.2.0/24"},
		{"[64:ff9b:1:abcd:c0:2:100::]:1", "ip:192.0.2.1", "net:192.0.2.0/24"},
		{"[64:ff9b:1:abcd:ff00::1]:1", "ip:64:ff9b:1:abcd::/64", "net:64:ff9b:1::/48"}, // none of the forms
		{"[64:ff9b:2::c000:201]:1", "ip:64:ff9b:2::/64", "net:64:ff9b:2::/48"},
		{"[2002:c000:201::1]:1", "ip:192.0.2.1", "net:192.0.2.0/24"}, // 6to4
		{"[2002:c000:201:ffff:ffff:ffff:ffff:ffff]:1", "ip:192.0.2.1", "net:192.0.2.0/24"},
		{"[2003:c000:201::1]:1", "ip:2003:c000:201::/64", "net:2003:c000:201::/48"},
		{"[2001:0:1111:2222:0:3333:3fff:fdfe]:1", "ip:192.0.2.1", "net:192.0.2.0/24"}, // Teredo
		{"[2001:0:4444:5555:0:6666:3fff:fdfe]:1", "ip:192.0.2.1", "net:192.0.2.0/24"},
		{"[2001:1::3fff:fdfe]:1", "ip:2001:1::/64", "net:2001:1::/48"},
		{"[2001:db8:1:2:3:4:5:6]:1", "ip:2001:db8:1:2::/64", "net:2001:db8:1::/48"},
		{"[2001:DB8:1:2::]:1", "ip:2001:db8:1:2::/64", "net:2001:db8:1::/48"},
		{"[2001:0db8:0001:0002:ffff:ffff:ffff:ffff]:1", "ip:2001:db8:1:2::/64", "net:2001:db8:1::/48"},
		{"[2001:db8:1:3::]:1", "ip:2001:db8:1:3::/64", "net:2001:db8:1::/48"},
		{"[fe80::1%eth0]:1", "ip:fe80::/64", "net:fe80::/48"},
		{"[fe80::2%en1]:1", "ip:fe80::/64", "net:fe80::/48"},
		{"[::1]:1", "ip:::/64", "net:::/48"},
		{"192.0.2.1", "ip:192.0.2.1", "net:192.0.2.0/24"}, // without a port, as AWS Lambda's adapter has it
		{"2001:db8::1", "ip:2001:db8::/64", "net:2001:db8::/48"},
		{"[2001:db8::1]", "ip:2001:db8::/64", "net:2001:db8::/48"},
		{"::ffff:192.0.2.1", "ip:192.0.2.1", "net:192.0.2.0/24"},
		{" 192.0.2.1:80", "ip:192.0.2.1", "net:192.0.2.0/24"},
		{"192.0.2.1:http", "ip:192.0.2.1", "net:192.0.2.0/24"},
		{"[192.0.2.1]:80", "ip:192.0.2.1", "net:192.0.2.0/24"}, // Gin reads it
		{"2001:db8:1:2:3:4:5:6:4711", "ip:2001:db8:1:2::/64", "net:2001:db8:1::/48"},
		{"2001:db8::1:47110", "ip:2001:db8::/64", "net:2001:db8::/48"},
		{"192.0.2.001:1", "", ""},
		{"192.0.2.1:80:80", "", ""},
		{"[2001:db8::1", "", ""},
		{"192.0.2.1, 192.0.2.2", "", ""},
		{"192.0.2.256:1", "", ""},
		{"localhost:1", "", ""},
		{":80", "", ""},
		{"@", "", ""}, // a Unix socket
		{"/run/app.sock", "", ""},
		{"", "", ""},
	} {
		for _, forwarded := range []bool{false, true} { // by somebody whom nobody trusts
			t.Run(fmt.Sprintf("%s %v", tt.remote, forwarded), func(t *testing.T) {
				for _, kind := range []struct {
					key  string
					want string
				}{{"ip", tt.ip}, {"prefix", tt.prefix}} {
					by := ginlimit.ByIP()
					if kind.key == "prefix" {
						by = ginlimit.ByIPPrefix(24, 48)
					}
					edits := []func(*http.Request){remote(tt.remote)}
					if forwarded {
						edits = append(edits, header("X-Forwarded-For", "198.51.100.9"), header("X-Real-IP", "198.51.100.9"))
					}
					got, err := keyOf(engine(), by, edits...)
					assert.Equal(t, kind.want, got)
					if kind.want == "" {
						assert.ErrorIs(t, err, ginlimit.ErrNoKey)
						assert.Equal(t, 400, send(engine(ginlimit.New(ginlimit.PerDay(1), by)), edits...).Code)
					} else {
						assert.NoError(t, err)
					}
				}
			})
		}
	}
}

func TestByIPOfHeaders(t *testing.T) {
	const proxy = "10.1.2.3:1"
	forwarded := func(v ...string) (edits []func(*http.Request)) {
		for _, v := range v {
			edits = append(edits, header("X-Forwarded-For", v))
		}
		return edits
	}
	nobody, named := func() *gin.Engine { return engine() }, func() *gin.Engine {
		return trusting("10.0.0.0/8",
			"fd00::/8")
	}
	platform := func(r func() *gin.Engine, name string) func() *gin.Engine {
		return func() *gin.Engine {
			r := r()
			r.TrustedPlatform = name
			return r
		}
	}
	byDefault := func() *gin.Engine { return trusting() }
	rfc7239 := func() *gin.Engine {
		r := named()
		r.RemoteIPHeaders = []string{"Forwarded", "X-Forwarded-For"}
		return r
	}
	forwardedBy := func(v ...string) (edits []func(*http.Request)) {
		for _, v := range v {
			edits = append(edits, header("Forwarded", v))
		}
		return edits
	}
	viewer := func(v string) []func(*http.Request) {
		return []func(*http.Request){header("CloudFront-Viewer-Address", v)}
	}
	cloudFront := platform(nobody, "CloudFront-Viewer-Address")
	for _, tt := range []struct {
		name   string
		engine func() *gin.Engine
		remote string
		edits  []func(*http.Request)
		want   string
	}{
		{"named proxy", named, proxy, forwarded("198.51.100.9"), "ip:198.51.100.9"},
		{"two named proxies", named, proxy, forwarded("1.1.1.1, 198.51.100.9, 10.9.9.9"), "ip:198.51.100.9"},
		{"in two lines", named, proxy, forwarded("1.1.1.1", "198.51.100.9, 10.9.9.9"), "ip:198.51.100.9"},
		{"named IPv6 proxy", named, "[fd00::1]:1", forwarded("2001:DB8::77"), "ip:2001:db8::/64"},
		{"NAT64 behind a proxy", named, proxy, forwarded("64:ff9b::c633:6409"), "ip:198.51.100.9"},
		{"mapped behind a proxy", named, proxy, forwarded("::ffff:198.51.100.9"), "ip:198.51.100.9"},
		{"proxy says nothing", named, proxy, nil, "ip:10.1.2.3"},
		{"proxy says rubbish", named, proxy, forwarded("rubbish"), "ip:10.1.2.3"},
		{"X-Real-IP of a named proxy", named, proxy, []func(*http.Request){header("X-Real-IP", "198.51.100.9")},
			"ip:198.51.100.9"},
		{"with a port", named, proxy, append(forwarded("198.51.100.9:4711"), header("X-Real-IP", "1.1.1.1")),
			"ip:198.51.100.9"},
		{"with ports, two proxies", named, proxy, forwarded("1.1.1.1:1, 198.51.100.9:2, 10.9.9.9:3"), "ip:198.51.100.9"},
		{"IPv6 in brackets", named, proxy, forwarded("[2001:db8:1:2::3]"), "ip:2001:db8:1:2::/64"},
		{"IPv6 with a port", named, proxy, forwarded("1.1.1.1, [2001:db8:1:2::3]:4711"), "ip:2001:db8:1:2::/64"},
		{"IPv6, port, no brackets", named, proxy, forwarded("2001:db8:1:2::3:47110"), "ip:2001:db8:1:2::/64"},
		{"a trusted one with a port", named, proxy, forwarded("198.51.100.9, [fd00::2]:443"), "ip:198.51.100.9"},
		{"quoted", named, proxy, forwarded(`"198.51.100.9"`), "ip:198.51.100.9"},
		{"quoted IPv6 with a port", named, proxy, forwarded(`"[2001:db8:1:2::3]:4711"`), "ip:2001:db8:1:2::/64"},
		{"with a zone", named, proxy, forwarded("fe80::1%eth0"), "ip:fe80::/64"},
		{"all are trusted", named, proxy, forwarded("10.9.9.9, 10.9.9.8"), "ip:10.9.9.9"},
		{"in three lines", named, proxy, forwarded("rubbish", "198.51.100.9:1", "10.9.9.9, 10.9.9.8"), "ip:198.51.100.9"},
		{"rubbish before the client", named, proxy, forwarded("rubbish, 198.51.100.9"), "ip:198.51.100.9"},
		// What cannot be read is no reason to ask another header.
		{"unknown", named, proxy, append(forwarded("unknown"), header("X-Real-IP", "1.1.1.1")), "ip:10.1.2.3"},
		{"unknown to another proxy", named, proxy, append(forwarded("unknown, 10.9.9.9"),
			header("X-Real-IP", "1.1.1.1")), "ip:10.1.2.3"},
		{"an empty element", named, proxy, append(forwarded("1.1.1.1,"), header("X-Real-IP", "2.2.2.2")), "ip:10.1.2.3"},
		{"a port that is none", named, proxy, append(forwarded("1.1.1.1:65536"), header("X-Real-IP", "2.2.2.2")),
			"ip:10.1.2.3"},
		{"a quote that does not end", named, proxy, append(forwarded(`"1.1.1.1`), header("X-Real-IP", "2.2.2.2")),
			"ip:10.1.2.3"},
		{"an empty header", named, proxy, append(forwarded(""), header("X-Real-IP", "198.51.100.9")), "ip:198.51.100.9"},
		{"two empty lines", named, proxy, append(forwarded("", ""), header("X-Real-IP", "198.51.100.9")), "ip:198.51.100.9"},
		{"a proxy without a port", named, "10.1.2.3", forwarded("198.51.100.9"), "ip:198.51.100.9"},

		{"Forwarded", rfc7239, proxy, forwardedBy("for=198.51.100.9"), "ip:198.51.100.9"},
		{"Forwarded, more pairs", rfc7239, proxy, forwardedBy(`by=10.1.2.3;FOR=198.51.100.9;host="a;b\"c=d";proto=https`), "ip:198.51.100.9"},
		{"Forwarded, port", rfc7239, proxy, forwardedBy(`for="198.51.100.9:4711"`), "ip:198.51.100.9"},
		{"Forwarded, port, no quotes", rfc7239, proxy, forwardedBy("for=198.51.100.9:4711"), "ip:198.51.100.9"},
		{"Forwarded, obfuscated port", rfc7239, proxy, forwardedBy(`for="198.51.100.9:_x1"`), "ip:198.51.100.9"},
		{"Forwarded, IPv6", rfc7239, proxy, forwardedBy(`for="[2001:db8:1:2::3]:4711"`), "ip:2001:db8:1:2::/64"},
		{"Forwarded, IPv6 alone", rfc7239, proxy, forwardedBy(`for="[2001:db8:1:2::3]"; proto=http`), "ip:2001:db8:1:2::/64"},
		{"Forwarded, two proxies", rfc7239, proxy, forwardedBy("for=1.1.1.1, for=198.51.100.9;proto=https, for=10.9.9.9"), "ip:198.51.100.9"},
		{"Forwarded, two lines", rfc7239, proxy, forwardedBy("for=1.1.1.1", "for=198.51.100.9, for=10.9.9.9"),
			"ip:198.51.100.9"},
		{"Forwarded, unknown", rfc7239, proxy, append(forwardedBy("for=unknown"),
			header("X-Forwarded-For", "1.1.1.1")), "ip:10.1.2.3"},
		{"Forwarded, obfuscated", rfc7239, proxy, append(forwardedBy("for=_hidden"),
			header("X-Forwarded-For", "1.1.1.1")), "ip:10.1.2.3"},
		{"Forwarded, nobody", rfc7239, proxy, forwardedBy("for=1.1.1.1, proto=https"), "ip:10.1.2.3"},
		{"Forwarded, two in one element", rfc7239, proxy, forwardedBy("for=1.1.1.1;for=2.2.2.2"), "ip:10.1.2.3"},
		{"Forwarded, no token", rfc7239, proxy, forwardedBy("x y;for=1.1.1.1"), "ip:10.1.2.3"},
		{"Forwarded, rest after a quote", rfc7239, proxy, forwardedBy(`for="1.1.1.1"2`), "ip:10.1.2.3"},
		{"Forwarded, a name with space", rfc7239, proxy, forwardedBy("x y=1;for=1.1.1.1"), "ip:10.1.2.3"},
		{"Forwarded, rest after a host", rfc7239, proxy, forwardedBy(`host="a"b;for=1.1.1.1`), "ip:10.1.2.3"},
		{"Forwarded, no semicolon", rfc7239, proxy, forwardedBy(`host="a" for=1.1.1.1`), "ip:10.1.2.3"},
		{"Forwarded, a quote in a host", rfc7239, proxy, forwardedBy(`host=a"b;for=1.1.1.1`), "ip:10.1.2.3"},
		{"Forwarded, empty pairs", rfc7239, proxy, forwardedBy(";for=198.51.100.9;"), "ip:198.51.100.9"},
		{"Forwarded, an address alone", rfc7239, proxy, forwardedBy("198.51.100.9"), "ip:198.51.100.9"}, // as Gin has it
		// A quote that a client opens does not swallow what the proxy appends.
		{"Forwarded, an open quote", rfc7239, proxy, forwardedBy(`for=1.1.1.1;x=", for=198.51.100.9`), "ip:198.51.100.9"},
		{"Forwarded, open to a quote", rfc7239, proxy, forwardedBy(`for=1.1.1.1;x=", for="[2001:db8:1:2::3]:1"`),
			"ip:2001:db8:1:2::/64"},
		{"Forwarded, open to a host", rfc7239, proxy, forwardedBy(`for=1.1.1.1;x=", for=198.51.100.9;host="a"`),
			"ip:198.51.100.9"},
		{"Forwarded, not asked for", named, proxy, forwardedBy("for=1.1.1.1"), "ip:10.1.2.3"},
		{"Forwarded, of somebody else", rfc7239, "192.0.2.1:1", forwardedBy("for=1.1.1.1"), "ip:192.0.2.1"},
		{"Forwarded by name in lower case", func() *gin.Engine { r := named(); r.RemoteIPHeaders = []string{"forwarded"}; return r }, proxy, forwardedBy("for=198.51.100.9"), "ip:198.51.100.9"},

		{"somebody else", named, "192.0.2.1:1", forwarded("198.51.100.9"), "ip:192.0.2.1"},
		{"nobody is trusted", nobody, proxy, forwarded("198.51.100.9"), "ip:10.1.2.3"},
		{"everybody is trusted", byDefault, "192.0.2.1:1", forwarded("198.51.100.9"), "ip:192.0.2.1"},
		{"everybody is trusted, also a proxy", byDefault, proxy, forwarded("198.51.100.9"), "ip:10.1.2.3"},
		{"all of IPv6 is trusted", func() *gin.Engine { return trusting("::/0") }, "[2001:db8:9::1]:1",
			forwarded("198.51.100.9"), "ip:2001:db8:9::/64"},
		{"all of IPv4 is trusted", func() *gin.Engine { return trusting("0.0.0.0/0") }, "192.0.2.1:1",
			forwarded("198.51.100.9"), "ip:192.0.2.1"},
		{"forwarding is off", func() *gin.Engine { r := trusting(); r.ForwardedByClientIP = false; return r },
			"192.0.2.1:1", forwarded("198.51.100.9"), "ip:192.0.2.1"},
		{"a header of its own", func() *gin.Engine { r := named(); r.RemoteIPHeaders = []string{"x-client"}; return r },
			proxy, append(forwarded("1.1.1.1"), header("X-Client", "198.51.100.9")), "ip:198.51.100.9"},

		{"platform", platform(nobody, gin.PlatformCloudflare), "192.0.2.1:1",
			[]func(*http.Request){header("CF-Connecting-IP", "198.51.100.9")}, "ip:198.51.100.9"},
		{"platform in lower case", platform(nobody, "cf-connecting-ip"), "192.0.2.1:1",
			[]func(*http.Request){header("CF-Connecting-IP", "198.51.100.9")}, "ip:198.51.100.9"},
		{"platform on a trusting engine", platform(byDefault, gin.PlatformCloudflare), "192.0.2.1:1",
			[]func(*http.Request){header("CF-Connecting-IP", "2001:DB8::1"), header("X-Forwarded-For", "1.1.1.1")}, "ip:2001:db8::/64"},
		{"platform says nothing", platform(nobody, gin.PlatformCloudflare), "192.0.2.1:1", forwarded("1.1.1.1"),
			"ip:192.0.2.1"},
		{"platform says nothing, trusting", platform(byDefault, gin.PlatformCloudflare), "192.0.2.1:1",
			forwarded("1.1.1.1"), "ip:192.0.2.1"},
		{"platform says nothing, a proxy does", platform(named, gin.PlatformCloudflare), proxy,
			forwarded("198.51.100.9"), "ip:198.51.100.9"},
		{"platform says rubbish", platform(nobody, gin.PlatformCloudflare), "192.0.2.1:1",
			[]func(*http.Request){header("CF-Connecting-IP", "unknown")}, ""},
		{"platform says two addresses", platform(nobody, gin.PlatformCloudflare), "192.0.2.1:1",
			[]func(*http.Request){header("CF-Connecting-IP", "1.1.1.1, 2.2.2.2")}, ""},
		{"platform says rubbish, trusting", platform(byDefault, gin.PlatformCloudflare), "192.0.2.1:1",
			[]func(*http.Request){header("CF-Connecting-IP", "unknown")}, ""},
		{"platform with a port", platform(nobody, gin.PlatformCloudflare), "192.0.2.1:1",
			[]func(*http.Request){header("CF-Connecting-IP", "198.51.100.9:4711")}, "ip:198.51.100.9"},
		{"CloudFront", cloudFront, "192.0.2.1:1", viewer("198.51.100.9:4711"), "ip:198.51.100.9"},
		{"CloudFront, IPv6", cloudFront, "192.0.2.1:1", viewer("2001:db8:1:2:3:4:5:6:4711"), "ip:2001:db8:1:2::/64"},
		{"CloudFront, short IPv6", cloudFront, "192.0.2.1:1", viewer("2003::2:3:4:5:6:4711"), "ip:2003:0:0:2::/64"},
		{"CloudFront, IPv6 in brackets", cloudFront, "192.0.2.1:1", viewer("[2001:db8:1:2::3]:4711"), "ip:2001:db8:1:2::/64"},
		{"CloudFront without a port", cloudFront, "192.0.2.1:1", viewer("2001:db8:1:2::"), "ip:2001:db8:1:2::/64"},
		{"CloudFront says rubbish", cloudFront, "192.0.2.1:1", viewer("unknown:4711"), ""},
		// nginx sets X-Real-IP, which is also one of the headers that Gin takes from proxies.
		{"platform X-Real-IP", platform(nobody, "X-Real-IP"), "192.0.2.1:1",
			[]func(*http.Request){header("X-Real-IP", "198.51.100.9")}, "ip:198.51.100.9"},
		{"platform X-Real-IP, and a proxy's header", platform(named, "X-Real-IP"), proxy, forwarded("198.51.100.9"),
			"ip:198.51.100.9"},
		{"App Engine", func() *gin.Engine { r := trusting(); r.AppEngine = true; return r }, "192.0.2.1:1",
			[]func(*http.Request){header("X-Appengine-Remote-Addr", "198.51.100.9")}, "ip:198.51.100.9"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := keyOf(tt.engine(), ginlimit.ByIP(), append(tt.edits, remote(tt.remote))...)
			assert.Equal(t, tt.want, got)
			if tt.want == "" {
				assert.ErrorIs(t, err, ginlimit.ErrNoKey)
			} else {
				assert.NoError(t, err)
			}
		})
	}
}

// TestByIPOnAUnixSocket: a proxy in front of it is the only one that connects, and Gin trusts it.
func TestByIPOnAUnixSocket(t *testing.T) {
	socket := func(q *http.Request) {
		q.RemoteAddr = "@"
		*q = *q.WithContext(context.WithValue(q.Context(), http.LocalAddrContextKey,
			net.Addr(&net.UnixAddr{Name: "/run/app.sock", Net: "unix"})))
	}
	got, err := keyOf(engine(), ginlimit.ByIP(), socket, header("X-Forwarded-For", "1.1.1.1, 198.51.100.9"))
	assert.NoError(t, err)
	assert.Equal(t, "ip:198.51.100.9", got)
	_, err = keyOf(engine(), ginlimit.ByIP(), socket)
	assert.ErrorIs(t, err, ginlimit.ErrNoKey)
}

// TestOneLimiterOnTwoEngines asks by turns.
func TestOneLimiterOnTwoEngines(t *testing.T) {
	by := ginlimit.ByIP()
	named, byDefault := trusting("192.0.2.0/24"), trusting()
	forwarded := header("X-Forwarded-For", "198.51.100.9")
	for range 3 {
		got, _ := keyOf(named, by, forwarded)
		assert.Equal(t, "ip:198.51.100.9", got)
		got, _ = keyOf(byDefault, by, forwarded)
		assert.Equal(t, "ip:192.0.2.1", got)
	}
}

func TestTrustingEngineIsReportedOnce(t *testing.T) {
	for _, tt := range []struct {
		name   string
		engine *gin.Engine
		want   int
	}{
		{"by default", trusting(), 1},
		{"all of it", trusting("0.0.0.0/0"), 1},
		{"all of IPv6", trusting("::/0"), 1},
		{"all of it, by no header", func() *gin.Engine { r := trusting(); r.RemoteIPHeaders = nil; return r }(), 0},
		{"nobody", engine(), 0},
		{"named", trusting("192.0.2.0/24", "10.0.0.0/8"), 0},
		{"nobody, platform", func() *gin.Engine { r := engine(); r.TrustedPlatform = gin.PlatformFlyIO; return r }(), 0},
		{"nobody, platform X-Real-IP", func() *gin.Engine { r := engine(); r.TrustedPlatform = "X-Real-IP"; return r }(), 0},
	} {
		for _, by := range []struct {
			name string
			key  ginlimit.KeyFunc
		}{{"ByIP", ginlimit.ByIP()}, {"Join", ginlimit.Join(ginlimit.ByRoute(), ginlimit.ByIP())}, {"FirstOf",
			ginlimit.FirstOf(ginlimit.ByUserID("user"), ginlimit.ByIPPrefix(32, 56))}} {
			if by.name != "ByIP" && tt.name != "by default" {
				continue
			}
			t.Run(tt.name+" "+by.name, func(t *testing.T) {
				r := tt.engine
				if by.name != "ByIP" {
					r = trusting()
				}
				var log bytes.Buffer
				l := must(ginlimit.NewLimiter(ginlimit.PerDay(100), by.key,
					ginlimit.WithLogger(slog.New(slog.NewTextHandler(&log, nil)))))
				r.GET("/limited", l.Handle, answer)
				for range 3 {
					assert.Equal(t, 200, send(r, path("/limited"), header("X-Forwarded-For", "198.51.100.9")).Code)
				}
				assert.Equal(t, tt.want, strings.Count(log.String(), "code=GINLIMIT001"), log.String())
				if tt.want > 0 {
					assert.Contains(t, log.String(), "SetTrustedProxies(nil)")
				} else {
					assert.Empty(t, log.String())
				}
			})
		}
	}
}

// TestForwardedForIsNoWayAround: a client of a trusting engine has one budget, whatever it claims.
func TestForwardedForIsNoWayAround(t *testing.T) {
	r := trusting()
	r.GET("/limited", ginlimit.New(ginlimit.PerDay(1), ginlimit.ByIP(),
		ginlimit.WithLogger(slog.New(slog.DiscardHandler))), answer)
	assert.Equal(t, 200, send(r, path("/limited"), header("X-Forwarded-For", "1.1.1.1")).Code)
	assert.Equal(t, 429, send(r, path("/limited"), header("X-Forwarded-For", "2.2.2.2")).Code)
	assert.Equal(t, 429, send(r, path("/limited"), header("X-Real-IP", "3.3.3.3")).Code)
	assert.Equal(t, 429, send(r, path("/limited")).Code)
	assert.Equal(t, 200, send(r, path("/limited"), remote("192.0.2.2:1")).Code)
}

func TestByIPPrefix(t *testing.T) {
	for _, tt := range []struct {
		v4, v6       int
		remote, want string
	}{
		{32, 128, "192.0.2.1:1", "net:192.0.2.1/32"},
		{32, 128, "[2001:db8::1]:1", "net:2001:db8::1/128"},
		{0, 0, "192.0.2.1:1", "net:0.0.0.0/0"},
		{0, 0, "[2001:db8::1]:1", "net:::/0"},
		{9, 33, "10.200.0.1:1", "net:10.128.0.0/9"},
		{9, 33, "[2001:db8:ffff::1]:1", "net:2001:db8:8000::/33"},
		{32, 128, "[64:ff9b::1.2.3.4]:1", "net:1.2.3.4/32"},
	} {
		got, err := keyOf(engine(), ginlimit.ByIPPrefix(tt.v4, tt.v6), remote(tt.remote))
		assert.NoError(t, err)
		assert.Equal(t, tt.want, got)
	}
}

func TestKeyFuncsPanicOnNonsense(t *testing.T) {
	for _, tt := range []struct {
		name string
		f    func()
	}{
		{"v4 too small", func() { ginlimit.ByIPPrefix(-1, 64) }},
		{"v4 too large", func() { ginlimit.ByIPPrefix(33, 64) }},
		{"v6 too small", func() { ginlimit.ByIPPrefix(32, -1) }},
		{"v6 too large", func() { ginlimit.ByIPPrefix(32, 129) }},
		{"no header", func() { ginlimit.ByAPIKey("") }},
		{"a header with spaces", func() { ginlimit.ByAPIKey("X API Key") }},
		{"a header with a colon", func() { ginlimit.ByAPIKey("X-API-Key:") }},
		{"a header that is not ASCII", func() { ginlimit.ByAPIKey("Schlüssel") }},
		{"no value", func() { ginlimit.ByUserID("") }},
		{"Join of nothing", func() { ginlimit.Join() }},
		{"Join of nil", func() { ginlimit.Join(ginlimit.ByIP(), nil) }},
		{"FirstOf nothing", func() { ginlimit.FirstOf() }},
		{"FirstOf including", func() { ginlimit.FirstOf(nil) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			defer func() {
				err, _ := recover().(error)
				require.Error(t, err)
				assert.True(t, strings.HasPrefix(err.Error(), "ginlimit: "), err)
			}()
			tt.f()
		})
	}
}

func TestByAPIKey(t *testing.T) {
	by := ginlimit.ByAPIKey("x-api-key")
	const secret = "s3cr3t-0123456789"
	one, err := keyOf(engine(), by, header("X-API-Key", secret))
	require.NoError(t, err)
	assert.True(t, strings.HasPrefix(one, "apikey:"), one)
	assert.NotContains(t, one, "s3cr3t")
	assert.NotContains(t, one, fmt.Sprintf("%x", secret))
	assert.Contains(t, fmt.Sprintf("apikey:%x", sha256.Sum256([]byte(secret))), one, "the same on every instance")
	same, _ := keyOf(engine(), by, header("X-Api-Key", secret))
	assert.Equal(t, one, same)
	other, _ := keyOf(engine(), by, header("X-Api-Key", secret+"."))
	assert.NotEqual(t, one, other)
	for _, edits := range [][]func(*http.Request){nil, {header("X-API-Key", "")}, {header("Authorization", secret)}} {
		_, err := keyOf(engine(), by, edits...)
		assert.ErrorIs(t, err, ginlimit.ErrNoKey)
	}

	// Nobody learns it: neither backend nor observer nor client.
	var seen watch
	store := newSpy()
	store.onTake = func(_ context.Context, key string, _ int64) error {
		assert.NotContains(t, key, "s3cr3t")
		return nil
	}
	r := engine(ginlimit.New(ginlimit.PerMinute(0), by, ginlimit.WithName("x"), ginlimit.WithBackend(store),
		ginlimit.WithObserver(seen.observe)))
	w := send(r, header("X-API-Key", secret))
	assert.NotContains(t, fmt.Sprintf("%+v", seen.last()), "s3cr3t")
	assert.NotContains(t, fmt.Sprint(w.Header(), w.Body), "s3cr3t")
}

type (
	userName  string
	userID    int32
	stringer  struct{ first, last string }
	pointerID struct{ id int }
	byteID    [2]byte
)

func (s stringer) String() string   { return s.first + " " + s.last }
func (p *pointerID) String() string { return fmt.Sprint(p.id) }
func (b byteID) String() string     { return fmt.Sprintf("%x", b[:]) }

func TestByUserID(t *testing.T) {
	for _, tt := range []struct {
		name  string
		value any
		want  string
	}{
		{"string", "ann", "user:ann"},
		{"string like an IP", "1.2.3.4", "user:1.2.3.4"},
		{"string type", userName("ann"), "user:ann"},
		{"int", 42, "user:42"},
		{"zero", 0, "user:0"},
		{"negative", int8(-42), "user:-42"},
		{"int type", userID(42), "user:42"},
		{"int64", int64(-1 << 63), "user:-9223372036854775808"},
		{"uint64", uint64(1<<64 - 1), "user:18446744073709551615"},
		{"Stringer", stringer{"ann", "b"}, "user:ann b"},
		{"pointer to a Stringer", &stringer{"ann", "b"}, "user:ann b"},
		{"Stringer by pointer", &pointerID{7}, "user:7"},
		{"bytes with a name", byteID{0xab, 1}, "user:ab01"},
		{"url", &url.URL{Scheme: "acct", Opaque: "ann"}, "user:acct:ann"},
		{"nothing", nil, ""},
		{"empty", "", ""},
		{"empty type", userName(""), ""},
		{"nil Stringer", (*pointerID)(nil), ""},
		{"nil pointer to a Stringer", (*stringer)(nil), ""},
		{"float", 42.0, "user:42"}, // as encoding/json decodes a number
		{"negative float", -42.0, "user:-42"},
		{"zero float", math.Copysign(0, -1), "user:0"},
		{"float type", float32(1<<24 - 1), "user:16777215"},
		{"the largest exact float", float64(1<<53 - 1), "user:9007199254740991"},
		{"the least exact float", -float64(1<<53 - 1), "user:-9007199254740991"},
		{"json.Number", json.Number("9007199254740993"), "user:9007199254740993"},
		{"a float with a fraction", 42.5, ""},
		{"a rounded float", float64(1<<53 + 1), ""}, // which is that of 1<<53 too
		{"a rounded float32", float32(1<<24 + 1), ""},
		{"no number", math.NaN(), ""},
		{"infinity", math.Inf(1), ""},
		{"bool", true, ""},
		{"slice", []byte("ann"), ""},
		{"struct", struct{ ID int }{1}, ""},
		{"pointer", new(int), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := engine()
			set := func(c *gin.Context) (string, error) {
				c.Set("user", tt.value)
				return ginlimit.ByUserID("user")(c)
			}
			got, err := keyOf(r, set)
			assert.Equal(t, tt.want, got)
			if tt.want == "" {
				assert.ErrorIs(t, err, ginlimit.ErrNoKey)
			} else {
				assert.NoError(t, err)
			}
		})
	}
	_, err := keyOf(engine(), ginlimit.ByUserID("user"))
	assert.ErrorIs(t, err, ginlimit.ErrNoKey, "never set")
}

func TestByRoute(t *testing.T) {
	var seen watch
	limiter := ginlimit.New(ginlimit.PerDay(1000), ginlimit.ByRoute(), ginlimit.WithObserver(seen.observe))
	r := engine(limiter)
	r.HandleMethodNotAllowed = true
	r.GET("/users/:id", answer)
	r.HEAD("/users/:id", answer)
	r.PUT("/users/:id", answer)
	r.GET("/files/*path", answer)
	key := func(method, p string) string {
		send(r, path(p), func(q *http.Request) { q.Method = method })
		return seen.last().Key
	}
	one := key("GET", "/users/1")
	assert.Contains(t, one, "GET /users/:id")
	assert.Equal(t, one, key("GET", "/users/2"))
	assert.Equal(t, one, key("HEAD", "/users/3"))
	assert.NotEqual(t, one, key("PUT", "/users/1"))
	assert.NotEqual(t, one, key("GET", "/files/a"))
	assert.Equal(t, key("GET", "/files/a"), key("GET", "/files/b/c"))
	missing := key("GET", "/nowhere")
	assert.NotEmpty(t, missing)
	for _, at := range [][2]string{{"GET", "/elsewhere"}, {"POST", "/nowhere"}, {"HEAD", "/x"}, {"BREW", "/y"},
		{"DELETE", "/users/1"}} {
		assert.Equal(t, missing, key(at[0], at[1]), at)
	}
	assert.Len(t, seen.seen, 13)
}

func TestGlobal(t *testing.T) {
	one, err := keyOf(engine(), ginlimit.Global())
	require.NoError(t, err)
	assert.NotEmpty(t, one)
	two, _ := keyOf(trusting(), ginlimit.Global(), remote("192.0.2.9:1"), path("/x"))
	assert.Equal(t, one, two)
}

func is(key string) ginlimit.KeyFunc {
	return func(*gin.Context) (string, error) { return key, nil }
}

func isErr(err error) ginlimit.KeyFunc {
	return func(*gin.Context) (string, error) { return "", err }
}

func TestJoin(t *testing.T) {
	seen := map[string]string{}
	for _, tt := range []struct {
		name string
		key  ginlimit.KeyFunc
	}{
		{"a", ginlimit.Join(is("a"))},
		{"a b", ginlimit.Join(is("a"), is("b"))},
		{"b a", ginlimit.Join(is("b"), is("a"))},
		{"ab", ginlimit.Join(is("ab"))},
		{"a b c", ginlimit.Join(is("a"), is("b"), is("c"))},
		{"(a b) c", ginlimit.Join(ginlimit.Join(is("a"), is("b")), is("c"))},
		{"a (b c)", ginlimit.Join(is("a"), ginlimit.Join(is("b"), is("c")))},
		{"((a b c))", ginlimit.Join(ginlimit.Join(is("a"), is("b"), is("c")))},
		{"1:a", ginlimit.Join(is("1:a"))},
		{"1:a1:b", ginlimit.Join(is("1:a1:b"))},
		{"a1:b", ginlimit.Join(is("a1:b"))},
		{"a, NUL", ginlimit.Join(is("a\x00"), is("b"))},
		{"NUL, b", ginlimit.Join(is("a"), is("\x00b"))},
		{"ip", ginlimit.Join(ginlimit.ByIP())},
		{"user like it", ginlimit.Join(is("user:192.0.2.1"))},
	} {
		got, err := keyOf(engine(), tt.key)
		require.NoError(t, err)
		assert.NotContains(t, seen, got, tt.name)
		seen[got] = tt.name
	}
	for _, tt := range []struct {
		want error
		key  ginlimit.KeyFunc
	}{
		{ginlimit.ErrNoKey, ginlimit.Join(is("a"), isErr(ginlimit.ErrNoKey), isErr(errOther))},
		{errOther, ginlimit.Join(isErr(errOther), isErr(ginlimit.ErrNoKey))},
		{ginlimit.ErrSkip, ginlimit.Join(is("a"), isErr(ginlimit.ErrSkip))},
	} {
		_, err := keyOf(engine(), tt.key)
		assert.ErrorIs(t, err, tt.want)
	}
	_, err := keyOf(engine(), ginlimit.Join(is("a"), is("")))
	assert.ErrorIs(t, err, ginlimit.ErrNoKey, "an empty part is none")
}

func TestFirstOf(t *testing.T) {
	never := func(*gin.Context) (string, error) { panic("asked") }
	for _, tt := range []struct {
		name string
		key  ginlimit.KeyFunc
		want string
		err  error
	}{
		{"first", ginlimit.FirstOf(is("a"), never), "a", nil},
		{"second", ginlimit.FirstOf(isErr(ginlimit.ErrNoKey), is("b"), never), "b", nil},
		{"wrapped ErrNoKey", ginlimit.FirstOf(isErr(fmt.Errorf("no: %w", ginlimit.ErrNoKey)), is("b")), "b", nil},
		{"empty is none", ginlimit.FirstOf(is(""), is("b")), "b", nil},
		{"none", ginlimit.FirstOf(isErr(ginlimit.ErrNoKey), is("")), "", ginlimit.ErrNoKey},
		{"error", ginlimit.FirstOf(isErr(errOther), never), "", errOther},
		{"skip", ginlimit.FirstOf(isErr(ginlimit.ErrSkip), never), "", ginlimit.ErrSkip},
		{"user", ginlimit.FirstOf(ginlimit.ByUserID("user"), ginlimit.ByIP()), "ip:192.0.2.1", nil},
		{"unusable user", ginlimit.FirstOf(func(c *gin.Context) (string, error) {
			c.Set("user", 1.5)
			return ginlimit.ByUserID("user")(c)
		}, is("b")), "b", nil},
		{"nested", ginlimit.FirstOf(ginlimit.FirstOf(isErr(ginlimit.ErrNoKey)), is("b")), "b", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := keyOf(engine(), tt.key)
			assert.Equal(t, tt.want, got)
			if !errors.Is(err, tt.err) || tt.err == nil && err != nil {
				t.Errorf("error %v, want %v", err, tt.err)
			}
		})
	}
}

// TestKindsDoNotMix: a user whose name is an address does not share that address's budget.
func TestKindsDoNotMix(t *testing.T) {
	auth := func(c *gin.Context) {
		if user := c.GetHeader("User"); user != "" {
			c.Set("user", user)
		}
	}
	r := engine(auth, ginlimit.New(ginlimit.PerDay(1), ginlimit.FirstOf(ginlimit.ByUserID("user"),
		ginlimit.ByAPIKey("Key"), ginlimit.ByIP(), ginlimit.ByRoute(), ginlimit.Global())))
	assert.Equal(t, 200, send(r).Code)
	assert.Equal(t, 200, send(r, header("User", "192.0.2.1")).Code)
	assert.Equal(t, 200, send(r, header("User", "ip:192.0.2.1")).Code)
	assert.Equal(t, 200, send(r, header("Key", "192.0.2.1")).Code)
	assert.Equal(t, 200, send(r, remote("")).Code, "by route")
	assert.Equal(t, 429, send(r, header("User", "192.0.2.1")).Code)
}

// TestLongAddressesAreNotRemembered: a zone can have any length.
func TestLongAddressesAreNotRemembered(t *testing.T) {
	r := engine(ginlimit.New(ginlimit.PerDay(1<<40), ginlimit.ByIP()))
	r.TrustedPlatform = "X-Real-IP"
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	for i := range 2000 {
		send(r, header("X-Real-IP", fmt.Sprintf("fe80::1%%%s%08d", strings.Repeat("a", 10_000), i)))
	}
	assert.Less(t, heap()-before, int64(4<<20), "of 20 MB that were sent")
	runtime.KeepAlive(r)
}

// TestAPIKeyWithSpace: HTTP/2 leaves the spaces around a value to the application.
func TestAPIKeyWithSpace(t *testing.T) {
	want, err := keyOf(engine(), ginlimit.ByAPIKey("X-API-Key"), header("X-API-Key", "key"))
	require.NoError(t, err)
	for _, value := range []string{" key", "key ", "key\t"} {
		got, err := keyOf(engine(), ginlimit.ByAPIKey("X-API-Key"), header("X-API-Key", value))
		require.NoError(t, err)
		assert.Equal(t, want, got, "%q", value)
	}
	_, err = keyOf(engine(), ginlimit.ByAPIKey("X-API-Key"), header("X-API-Key", " "))
	assert.ErrorIs(t, err, ginlimit.ErrNoKey)
}

// TestOneCredentialIsOneCaller: RFC 9110 takes the scheme of credentials in any case, and servers
// take any space after it.
func TestOneCredentialIsOneCaller(t *testing.T) {
	for _, name := range []string{"Authorization", "authorization", "Proxy-Authorization"} {
		want, err := keyOf(engine(), ginlimit.ByAPIKey(name), header(name, "Bearer aBc"))
		require.NoError(t, err)
		for _, tt := range []struct {
			value string
			same  bool
		}{
			{"bearer aBc", true}, {"BEARER aBc", true}, {"bEaReR  aBc", true}, {"Bearer\taBc", true}, {"Bearer \t aBc ",
				true}, {" Bearer aBc", true},
			{"Bearer abc", false}, {"Bearer ABC", false}, {"Bearer aB c", false}, {"BeareraBc", false}, {"Basic aBc",
				false}, {"aBc", false}, {"bearer", false},
		} {
			got, err := keyOf(engine(), ginlimit.ByAPIKey(name), header(name, tt.value))
			require.NoError(t, err)
			assert.Equal(t, tt.same, got == want, "%s: %q", name, tt.value)
		}
	}
	// A value without a scheme, and of any other field, is what it is.
	for _, v := range [][3]string{{"Authorization", "aBc", "abc"}, {"X-API-Key", "Bearer aBc", "bearer aBc"},
		{"X-API-Key", "a b", "a  b"}} {
		assert.NotEqual(t, ginlimit.KeyOfAPIKey(v[0], v[1]), ginlimit.KeyOfAPIKey(v[0], v[2]), v)
	}
}

// TestSpellingsOfACredentialAreNoWayAround a limit of 3.
func TestSpellingsOfACredentialAreNoWayAround(t *testing.T) {
	r := engine(ginlimit.New(ginlimit.PerDay(3), ginlimit.ByAPIKey("Authorization")))
	passed := 0
	for i := range 1000 {
		scheme := []byte("bearer")
		for j := range scheme {
			scheme[j] -= byte(i>>j&1) * ('a' - 'A')
		}
		if send(r, header("Authorization", string(scheme)+strings.Repeat(" ", 1+i>>6)+"token")).Code == 200 {
			passed++
		}
	}
	assert.Equal(t, 3, passed)
}

// TestKeysOfValues: what the KeyOf… functions return is what the By… functions find in a request.
func TestKeysOfValues(t *testing.T) {
	addr := netip.MustParseAddr("2001:db8:1:2::3")
	for _, tt := range []struct {
		name string
		by   ginlimit.KeyFunc
		want string
	}{
		{"ByIP", ginlimit.ByIP(), ginlimit.KeyOfIP(addr)},
		{"ByIPPrefix", ginlimit.ByIPPrefix(24, 56), ginlimit.KeyOfIPPrefix(addr, 24, 56)},
		{"ByIPPrefix whole", ginlimit.ByIPPrefix(32, 128), ginlimit.KeyOfIPPrefix(addr, 32, 128)},
		{"ByAPIKey", ginlimit.ByAPIKey("Key"), ginlimit.KeyOfAPIKey("key", "secret ")},
		{"ByUserID", ginlimit.ByUserID("user"), ginlimit.KeyOfUser(int64(42))},
		{"ByRoute", ginlimit.ByRoute(), ginlimit.KeyOfRoute("HEAD", "/users/:id")},
		{"Global", ginlimit.Global(), ginlimit.KeyOfGlobal()},
		{"Join", ginlimit.Join(ginlimit.ByUserID("user"), ginlimit.Join(ginlimit.ByIP(), ginlimit.ByRoute())),
			ginlimit.JoinKeys(ginlimit.KeyOfUser("42"), ginlimit.JoinKeys(ginlimit.KeyOfIP(addr),
				ginlimit.KeyOfRoute("GET", "/users/:id")))},
		{"FirstOf", ginlimit.FirstOf(ginlimit.ByUserID("nobody"), ginlimit.ByIP()), ginlimit.KeyOfIP(addr)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx := context.Background()
			l := must(ginlimit.NewLimiter(ginlimit.PerDay(5), tt.by))
			r := engine(func(c *gin.Context) { c.Set("user", 42.0) }, l.Handle)
			r.GET("/users/:id", answer)
			ask := func() int {
				return send(r, path("/users/7"), remote("[2001:db8:1:2::3]:1"), header("Key", "secret")).Code
			}
			assert.Equal(t, 200, ask())
			d, err := l.Peek(ctx, tt.want)
			require.NoError(t, err)
			assert.EqualValues(t, 4, d.Remaining)
			require.NoError(t, l.Reset(ctx, tt.want))
			d, err = l.Peek(ctx, tt.want)
			require.NoError(t, err)
			assert.EqualValues(t, 5, d.Remaining)
		})
	}
	assert.Equal(t, "route:", ginlimit.KeyOfRoute("GET", ""), "of all requests that match none")
	for _, tt := range []struct {
		name string
		key  string
	}{
		{"no address", ginlimit.KeyOfIP(netip.Addr{})},
		{"no network", ginlimit.KeyOfIPPrefix(netip.Addr{}, 24, 48)},
		{"too many bits", ginlimit.KeyOfIPPrefix(addr, 33, 48)},
		{"too few bits", ginlimit.KeyOfIPPrefix(addr, 24, -1)},
		{"no value", ginlimit.KeyOfAPIKey("Key", " \t")},
		{"no user", ginlimit.KeyOfUser(nil)},
		{"an empty user", ginlimit.KeyOfUser("")},
		{"a user's type", ginlimit.KeyOfUser(1.5)},
		{"nothing joined", ginlimit.JoinKeys()},
		{"an empty part", ginlimit.JoinKeys("ip:192.0.2.1", "")},
	} {
		assert.Empty(t, tt.key, tt.name)
		l := must(ginlimit.NewLimiter(ginlimit.PerDay(5), ginlimit.Global()))
		assert.ErrorIs(t, l.Reset(context.Background(), tt.key), ginlimit.ErrNoKey, tt.name)
	}
}
