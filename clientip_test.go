package ginlimit_test

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit"
)

// TestNoHeaderIsAWayAround: a client that sends another header with each request has one budget,
// also if the engine's proxy writes a form of address that Gin cannot read, or one that nobody can.
func TestNoHeaderIsAWayAround(t *testing.T) {
	for _, tt := range []struct {
		name           string
		field, written string
	}{
		{"address", "X-Forwarded-For", "198.51.100.9"},
		{"with a port", "X-Forwarded-For", "198.51.100.9:%d"},
		{"IPv6, port", "X-Forwarded-For", "[2001:db8::9]:%d"},
		{"quoted", "X-Forwarded-For", `"198.51.100.9:%d"`},
		{"unknown", "X-Forwarded-For", "unknown"},
		{"Forwarded", "Forwarded", `for="198.51.100.9:%d"`},
		{"Forwarded, none", "Forwarded", "for=unknown"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := trusting("10.0.0.0/8")
			r.RemoteIPHeaders = []string{tt.field, "X-Real-IP", "X-Client-IP"}
			r.GET("/limited", ginlimit.New(ginlimit.PerDay(3), ginlimit.ByIP(), logTo(new(bytes.Buffer))), answer)
			passed := 0
			for i := range 200 {
				written := strings.ReplaceAll(tt.written, "%d", fmt.Sprint(1024+i))
				forged := fmt.Sprintf("203.0.113.%d", i)
				if send(r, path("/limited"), remote(fmt.Sprintf("10.1.2.3:%d", 1024+i)), header(tt.field, forged),
					header(tt.field, written),
					header("X-Real-IP", forged), header("X-Client-IP", forged), header("X-Forwarded-For-2", forged)).Code == 200 {
					passed++
				}
			}
			assert.Equal(t, 3, passed)
		})
	}
}

// TestSettingsAreSeenAsTheyAre: one limiter, one engine, whose settings change between requests.
func TestSettingsAreSeenAsTheyAre(t *testing.T) {
	r := trusting("10.0.0.0/8")
	by, inNet := ginlimit.ByIP(), ginlimit.FromNetworks("203.0.113.9")
	proxies := func(list ...string) func() {
		return func() {
			if err := r.SetTrustedProxies(list); err != nil {
				panic(err)
			}
		}
	}
	const viaProxy, viaHeader, viaPlatform, direct = "ip:198.51.100.9", "ip:203.0.113.9", "ip:192.0.2.9", "ip:10.1.2.3"
	for i, step := range []struct {
		change func()
		want   string
	}{
		{func() {}, viaProxy},
		{proxies(), direct},
		{proxies("10.1.2.0/24"), viaProxy},
		{proxies("10.1.3.0/24"), direct},
		{proxies("10.1.2.3/32"), viaProxy},
		{proxies("0.0.0.0/0"), direct},
		{proxies("10.0.0.0/8"), viaProxy},
		{proxies("0.0.0.0/1", "128.0.0.0/1"), direct},
		{proxies("10.0.0.0/8", "172.16.0.0/12"), viaProxy},
		{func() { r.RemoteIPHeaders = []string{"X-Client"} }, viaHeader},
		{func() { r.RemoteIPHeaders = []string{"X-Nothing"} }, direct},
		{func() { r.RemoteIPHeaders = nil }, direct},
		{func() { r.RemoteIPHeaders = []string{"X-Nothing", "X-Client"} }, viaHeader},
		{func() { r.RemoteIPHeaders = r.RemoteIPHeaders[:1] }, direct},
		{func() { r.RemoteIPHeaders = []string{"X-Client"} }, viaHeader},
		{func() { r.ForwardedByClientIP = false }, direct},
		{func() { r.ForwardedByClientIP = true }, viaHeader},
		{func() { r.TrustedPlatform = "X-Platform" }, viaPlatform},
		{func() { r.TrustedPlatform = "X-Platforn" }, viaHeader},
		{func() { r.AppEngine = true }, "ip:192.0.2.99"},
		{func() { r.AppEngine = false; r.TrustedPlatform = "" }, viaHeader},
	} {
		step.change()
		edits := []func(*http.Request){remote("10.1.2.3:1"), header("X-Forwarded-For", "198.51.100.9"),
			header("X-Client", "203.0.113.9"),
			header("X-Platform", "192.0.2.9"), header("X-Appengine-Remote-Addr", "192.0.2.99")}
		got, err := keyOf(r, by, edits...)
		require.NoError(t, err)
		require.Equal(t, step.want, got, "step %d", i)
		got, err = keyOf(r, ginlimit.ByIP(), edits...)
		require.NoError(t, err)
		require.Equal(t, step.want, got, "step %d, of a new KeyFunc", i)
		ask(r, func(c *gin.Context) {
			require.Equal(t, step.want == viaHeader, inNet(c), "step %d", i)
			addr, ok := ginlimit.Address(c)
			require.True(t, ok)
			require.Equal(t, step.want, ginlimit.KeyOfIP(addr), "step %d", i)
		}, edits...)
	}
}

// ask calls f with the context of a request to an engine.
func ask(r *gin.Engine, f func(*gin.Context), edits ...func(*http.Request)) {
	keyOf(r, func(c *gin.Context) (string, error) { f(c); return "", nil }, edits...)
}

// TestTrustInAnybody: the ranges have room for callers that are nobody's proxies.
func TestTrustInAnybody(t *testing.T) {
	for _, tt := range []struct {
		ranges  string
		anybody bool
	}{
		{"", false},
		{"127.0.0.1 ::1", false},
		{"10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 100.64.0.0/10 fc00::/7 fe80::/10", false}, // private
		{"104.16.0.0/13 173.245.48.0/20 2400:cb00::/32 2a06:98c0::/29", false},              // a CDN's
		{"13.0.0.0/8", false}, // a large company's
		{"::ffff:10.0.0.0/104", false},
		{"0.0.0.0/0", true},
		{"::/0", true},
		{"0.0.0.0/1", true},
		{"128.0.0.0/1", true},
		{"0.0.0.0/2", true},
		{"64.0.0.0/3", true},
		{"10.0.0.0/8 16.0.0.0/5", true},
		{"203.0.0.0/8", true}, // all of 0.0.0.0/8 to 255.0.0.0/8 has this one
		{"::ffff:0:0/96", true},
		{"::ffff:0.0.0.0/97", true},
		{"2000::/3", true},
		{"2000::/4", true},
		{"2a00::/12", true},    // all of Europe
		{"64:ff9b::/96", true}, // all of IPv4, behind NAT64
		{"2002::/16", true},    // all of IPv4, by 6to4
	} {
		t.Run(tt.ranges, func(t *testing.T) {
			var log bytes.Buffer
			r := trusting(strings.Fields(tt.ranges)...)
			if tt.ranges == "" {
				r.SetTrustedProxies(nil)
			}
			r.GET("/limited", ginlimit.New(ginlimit.PerDay(100), ginlimit.ByIP(), logTo(&log)), answer)
			send(r, path("/limited"), header("X-Forwarded-For", "198.51.100.9"))
			want := []string(nil)
			if tt.anybody {
				want = []string{"GINLIMIT001"}
			}
			assert.Equal(t, want, codes(log.String()))
			for _, from := range strings.Fields(tt.ranges) { // an address that is in the range
				addr, err := netip.ParseAddr(from)
				if err != nil {
					addr = netip.MustParsePrefix(from).Masked().Addr().Next()
				}
				key, err := keyOf(r, ginlimit.ByIP(), remote(netip.AddrPortFrom(addr, 1).String()),
					header("X-Forwarded-For", "198.51.100.9"))
				require.NoError(t, err)
				assert.Equal(t, !tt.anybody, key == "ip:198.51.100.9", "%s: %s", from, key)
			}
		})
	}
}

func TestAddress(t *testing.T) {
	named := trusting("10.0.0.0/8")
	for _, tt := range []struct {
		name   string
		engine *gin.Engine
		remote string
		xff    string
		want   string
	}{
		{"direct", engine(), "192.0.2.1:1", "", "192.0.2.1"},
		{"without a port", engine(), "192.0.2.1", "", "192.0.2.1"},
		{"IPv6 is whole", engine(), "[2001:db8:1:2::3%eth0]:1", "", "2001:db8:1:2::3"},
		{"mapped", engine(), "[::ffff:192.0.2.1]:1", "", "192.0.2.1"},
		{"NAT64", engine(), "[64:ff9b::c000:201]:1", "", "192.0.2.1"},
		{"6to4", engine(), "[2002:c000:201::1]:1", "", "192.0.2.1"},
		{"behind a proxy", named, "10.1.2.3:1", "198.51.100.9:4711", "198.51.100.9"},
		{"forged", named, "192.0.2.1:1", "127.0.0.1", "192.0.2.1"},
		{"everybody is trusted", trusting(), "192.0.2.1:1", "127.0.0.1", "192.0.2.1"},
		{"what nobody can read", named, "10.1.2.3:1", "unknown", "10.1.2.3"},
		{"a Unix socket", engine(), "@", "", ""},
		{"no address", engine(), "", "", ""},
		{"IPv4 with a zone", engine(), "192.0.2.1%eth0", "", ""},
		{"a proxy with a zone", trusting("fe80::/10"), "[fe80::1%eth0]:1", "198.51.100.9", "fe80::1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			edits := []func(*http.Request){remote(tt.remote)}
			if tt.xff != "" {
				edits = append(edits, header("X-Forwarded-For", tt.xff))
			}
			ask(tt.engine, func(c *gin.Context) {
				addr, ok := ginlimit.Address(c)
				assert.Equal(t, tt.want != "", ok)
				if ok {
					assert.Equal(t, tt.want, addr.String())
				} else {
					assert.Zero(t, addr)
				}
				key, _ := ginlimit.ByIP()(c)
				assert.Equal(t, key, ginlimit.KeyOfIP(addr), "ByIP has the same")
			}, edits...)
		})
	}
}

func TestFromNetworks(t *testing.T) {
	nobody, named := func() *gin.Engine { return engine() }, func() *gin.Engine { return trusting("10.0.0.0/8") }
	everybody := func() *gin.Engine { return trusting() }
	for _, tt := range []struct {
		name     string
		engine   func() *gin.Engine
		remote   string
		xff      string
		networks string
		want     bool
	}{
		{"an address", nobody, "127.0.0.1:1", "", "127.0.0.1", true},
		{"an address without a port", nobody, "127.0.0.1", "", "127.0.0.1", true},
		{"another", nobody, "127.0.0.2:1", "", "127.0.0.1", false},
		{"a network", nobody, "10.9.8.7:1", "", "10.0.0.0/8", true},
		{"a network, not written from its start", nobody, "10.9.8.7:1", "", "10.1.2.3/8", true},
		{"the second", nobody, "10.9.8.7:1", "", "127.0.0.1 10.0.0.0/8", true},
		{"none of them", nobody, "11.9.8.7:1", "", "127.0.0.1 10.0.0.0/8", false},
		{"no network", nobody, "127.0.0.1:1", "", "", false},
		{"no address", nobody, "@", "", "0.0.0.0/0 ::/0", false},
		{"IPv6", nobody, "[2001:db8::1]:1", "", "2001:db8::/32", true},
		{"IPv6 is not IPv4", nobody, "[2001:db8::1]:1", "", "0.0.0.0/0", false},
		{"IPv4 is not IPv6", nobody, "192.0.2.1:1", "", "::/0", false},
		{"a zone", nobody, "[fe80::1%eth0]:1", "", "fe80::/10", true},
		{"mapped", nobody, "[::ffff:10.9.8.7]:1", "", "10.0.0.0/8", true},
		{"a mapped network", nobody, "10.9.8.7:1", "", "::ffff:10.0.0.0/104", true},
		{"a mapped address", nobody, "10.9.8.7:1", "", "::ffff:10.9.8.7", true},
		{"NAT64", nobody, "[64:ff9b::c000:201]:1", "", "192.0.2.0/24", true},
		{"NAT64 by its own network", nobody, "[64:ff9b::c000:201]:1", "", "64:ff9b::/96", true},
		{"6to4 by its own network", nobody, "[2002:c000:201::1]:1", "", "2002:c000:201::/48", true},
		{"a loopback address inside 6to4", nobody, "[2002:7f00:1::1]:1", "", "127.0.0.0/8", false},
		{"a private address inside NAT64", nobody, "[64:ff9b::a00:1]:1", "", "10.0.0.0/8", false},
		{"behind a proxy", named, "10.1.2.3:1", "192.0.2.1", "192.0.2.1", true},
		{"behind a proxy, another", named, "10.1.2.3:1", "192.0.2.2", "192.0.2.1 10.0.0.0/8", false},
		{"the proxy itself", named, "10.1.2.3:1", "", "10.0.0.0/8", true},
		{"forged through a proxy", named, "10.1.2.3:1", "127.0.0.1, 192.0.2.2", "127.0.0.1 10.0.0.0/8", false},
		{"forged", named, "192.0.2.2:1", "127.0.0.1", "127.0.0.1", false},
		{"forged, everybody is trusted", everybody, "192.0.2.2:1", "127.0.0.1", "127.0.0.1", false},
		{"a public client of its own proxy", nobody, "192.0.2.1:1", "10.0.0.7", "192.0.2.1", true},
		// The proxy's clients are not the proxy.
		{"a local proxy that nobody named", nobody, "127.0.0.1:1", "192.0.2.2", "127.0.0.1", false},
		{"a private proxy that nobody named", nobody, "172.17.0.2:1", "192.0.2.2", "172.16.0.0/12", false},
		{"a local proxy, everybody is trusted", everybody, "127.0.0.1:1", "192.0.2.2", "127.0.0.1", false},
		{"a local caller, everybody is trusted", everybody, "127.0.0.1:1", "", "127.0.0.1", true},
		{"a trusted proxy that says unknown", named, "10.1.2.3:1", "unknown", "10.0.0.0/8", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := ginlimit.FromNetworks(strings.Fields(tt.networks)...)
			edits := []func(*http.Request){remote(tt.remote)}
			if tt.xff != "" {
				edits = append(edits, header("X-Forwarded-For", tt.xff))
			}
			ask(tt.engine(), func(c *gin.Context) { assert.Equal(t, tt.want, in(c)) }, edits...)
		})
	}
}

// TestFromNetworksAndFieldsNobodyReads: what passes through a proxy on the same host is not its
// own, also where the engine does not read the field in which the proxy says so.
func TestFromNetworksAndFieldsNobodyReads(t *testing.T) {
	in := ginlimit.FromNetworks("127.0.0.1", "192.0.2.0/24")
	nobody := func() *gin.Engine { return engine() }
	realIP := func() *gin.Engine {
		r := trusting("10.0.0.0/8")
		r.RemoteIPHeaders = []string{"X-Real-IP"}
		return r
	}
	off := func() *gin.Engine {
		r := trusting("127.0.0.1")
		r.ForwardedByClientIP = false
		return r
	}
	for _, tt := range []struct {
		engine       func() *gin.Engine
		remote       string
		field, value string
		want         bool
	}{
		{nobody, "127.0.0.1:1", "Forwarded", "for=203.0.113.7", false},
		{nobody, "127.0.0.1:1", "Via", "1.1 varnish", false},
		{nobody, "127.0.0.1:1", "X-Forwarded-Proto", "https", false},
		{nobody, "127.0.0.1:1", "X-Forwarded-Host", "example.com", false},
		{realIP, "127.0.0.1:1", "X-Forwarded-For", "203.0.113.7", false},
		{off, "127.0.0.1:1", "X-Forwarded-For", "203.0.113.7", false},
		{off, "127.0.0.1:1", "X-Real-IP", "203.0.113.7", false},
		{nobody, "127.0.0.1:1", "Accept", "*/*", true},
		{realIP, "10.1.2.3:1", "X-Real-IP", "127.0.0.1", true},    // a trusted proxy says so
		{nobody, "192.0.2.1:1", "Via", "1.1 its own proxy", true}, // a public address is no proxy of ours
	} {
		ask(tt.engine(), func(c *gin.Context) {
			assert.Equal(t, tt.want, in(c), "%s: %s: %s", tt.remote, tt.field, tt.value)
		}, remote(tt.remote), header(tt.field, tt.value))
	}
}

func TestFromNetworksPanicsOnNonsense(t *testing.T) {
	for _, text := range []string{"", " ", "localhost", "10.0.0.0/33", "10.0.0/8", "10.0.0.1:80", "[::1]", "::/129",
		"10.0.0.0/8,127.0.0.1", "private"} {
		err := func() (err error) {
			defer func() { err, _ = recover().(error) }()
			ginlimit.FromNetworks("127.0.0.1", text)
			return nil
		}()
		require.Error(t, err, "%q", text)
		assert.True(t, strings.HasPrefix(err.Error(), "ginlimit: FromNetworks: "), err)
		assert.Contains(t, err.Error(), fmt.Sprintf("%q", text))
	}
}

// TestManyByIPAreCheap: a KeyFunc by address holds nothing of its own, neither before nor after its
// first requests.
func TestManyByIPAreCheap(t *testing.T) {
	r := engine()
	const funcs = 1000
	keys := make([]ginlimit.KeyFunc, 0, funcs)
	cost := func(f func()) int64 {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		f()
		runtime.GC()
		runtime.ReadMemStats(&after)
		return int64(after.HeapAlloc) - int64(before.HeapAlloc)
	}
	made := cost(func() {
		for len(keys) < funcs {
			keys = append(keys, ginlimit.ByIP(), ginlimit.ByIPPrefix(24, 48))
		}
	})
	assert.Less(t, made, int64(funcs*1024), "bytes before any request")
	limiters := make([]gin.HandlerFunc, 0, funcs)
	made = cost(func() {
		for len(limiters) < funcs {
			limiters = append(limiters, ginlimit.New(ginlimit.PerDay(1), ginlimit.ByIP()))
		}
	})
	assert.Less(t, made, int64(funcs*4096), "bytes of limiters before any request")
	used := cost(func() {
		for i, key := range keys {
			_, err := keyOf(r, key, remote(fmt.Sprintf("192.0.2.%d:1", i%256)))
			require.NoError(t, err)
		}
	})
	assert.Less(t, used, int64(funcs*1024+2*32<<10), "bytes after a request to each")
	runtime.KeepAlive(keys)
	runtime.KeepAlive(limiters)
}

// TestKeyFuncsShareNoKeys: those of other bits than ByIP's do not take its keys from the table.
func TestKeyFuncsShareNoKeys(t *testing.T) {
	r := engine()
	for range 2 {
		for _, tt := range []struct {
			key  ginlimit.KeyFunc
			want string
		}{
			{ginlimit.ByIP(), "ip:192.0.2.1"},
			{ginlimit.ByIPPrefix(32, 64), "net:192.0.2.1/32"},
			{ginlimit.ByIPPrefix(24, 64), "net:192.0.2.0/24"},
			{ginlimit.ByIPPrefix(24, 48), "net:192.0.2.0/24"},
			{ginlimit.ByIPPrefix(16, 48), "net:192.0.0.0/16"},
		} {
			got, err := keyOf(r, tt.key, remote("192.0.2.1:1"))
			require.NoError(t, err)
			assert.Equal(t, tt.want, got)
		}
	}
}

// TestAContextWithoutEngine has no settings: its address is that of the connection.
func TestAContextWithoutEngine(t *testing.T) {
	c := &gin.Context{Request: httptest.NewRequest(http.MethodGet, "/", nil)}
	c.Request.Header.Set("X-Forwarded-For", "198.51.100.9")
	key, err := ginlimit.ByIP()(c)
	require.NoError(t, err)
	assert.Equal(t, "ip:192.0.2.1", key)
}

// TestAddressesCostNoAllocation: reading what two proxies wrote makes nothing.
func TestAddressesCostNoAllocation(t *testing.T) {
	r := gin.New()
	require.NoError(t, r.SetTrustedProxies([]string{"10.0.0.0/8"}))
	c := gin.CreateTestContextOnly(httptest.NewRecorder(), r)
	c.Request = httptest.NewRequest(http.MethodGet, "/", nil)
	c.Request.RemoteAddr = "10.1.2.3:4711"
	c.Request.Header.Set("X-Forwarded-For", "198.51.100.9:4711, [fd00::1]:1, 10.9.9.9")
	by, in := ginlimit.ByIP(), ginlimit.FromNetworks("192.0.2.0/24")
	for _, tt := range []struct {
		name string
		f    func()
	}{
		{"ByIP", func() { by(c) }},
		{"Address", func() { ginlimit.Address(c) }},
		{"FromNetworks", func() { in(c) }},
	} {
		assert.Zero(t, testing.AllocsPerRun(100, tt.f), tt.name)
	}
}

// BenchmarkByIP asks for the key of one request again and again, which has as many header fields as
// one of a browser.
func BenchmarkByIP(b *testing.B) {
	for _, bm := range []struct {
		name      string
		proxies   []string
		remote    string
		forwarded string
	}{
		{"direct", nil, "203.0.113.7:4711", ""},
		{"direct, IPv6", nil, "[2001:db8:1:2::3]:4711", ""},
		{"behind a proxy", []string{"10.0.0.0/8"}, "10.1.2.3:4711", "203.0.113.7"},
		{"behind two", []string{"10.0.0.0/8", "192.168.0.0/16", "fd00::/8"}, "10.1.2.3:4711", "203.0.113.7, 192.168.1.1"},
	} {
		b.Run(bm.name, func(b *testing.B) {
			r := gin.New()
			r.SetTrustedProxies(bm.proxies)
			c := gin.CreateTestContextOnly(httptest.NewRecorder(), r)
			c.Request = httptest.NewRequest(http.MethodGet, "/", nil)
			c.Request.RemoteAddr = bm.remote
			for _, name := range []string{"Accept", "Accept-Encoding", "Accept-Language", "Cache-Control", "Cookie", "Referer",
				"Sec-Fetch-Dest", "Sec-Fetch-Mode", "Sec-Fetch-Site", "User-Agent"} {
				c.Request.Header.Set(name, "x")
			}
			if bm.forwarded != "" {
				c.Request.Header.Set("X-Forwarded-For", bm.forwarded)
			}
			by := ginlimit.ByIP()
			b.ReportAllocs()
			for b.Loop() {
				by(c)
			}
		})
	}
	b.Run("each another address", func(b *testing.B) { // none of them is remembered
		c := gin.CreateTestContextOnly(httptest.NewRecorder(), engine())
		c.Request = httptest.NewRequest(http.MethodGet, "/", nil)
		remotes := make([]string, 1<<17)
		for i := range remotes {
			remotes[i] = fmt.Sprintf("[2001:db8:%x:%x::3]:4711", i>>12, i&(1<<12-1))
		}
		by := ginlimit.ByIP()
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			c.Request.RemoteAddr = remotes[i%len(remotes)]
			by(c)
		}
	})
}
