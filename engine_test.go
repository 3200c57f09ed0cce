package ginlimit

import (
	"net/http"
	"net/http/httptest"
	"runtime"
	"testing"

	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestGinHasWhatIsReadOfIt fails when Gin's unexported fields change: engine.go says which, and
// what becomes of it.
func TestGinHasWhatIsReadOfIt(t *testing.T) {
	require.True(t, ginIsKnown(), "gin.Context.engine or gin.Engine.trustedCIDRs is no more")
	r := gin.New()
	c := gin.CreateTestContextOnly(httptest.NewRecorder(), r)
	require.Same(t, r, engineOf(c))
	for _, want := range [][]string{{"0.0.0.0/0", "::/0"}, {"10.0.0.0/8", "2001:db8::/32", "192.0.2.1/32"}, {}} {
		if len(want) != 2 { // as gin.New makes it
			require.NoError(t, r.SetTrustedProxies(want))
		}
		got := []string{}
		for _, n := range rangesOf(r) {
			got = append(got, n.String())
		}
		assert.Equal(t, want, got)
	}
	require.NoError(t, r.SetTrustedProxies(nil))
	assert.Nil(t, rangesOf(r))
	assert.Equal(t, -1, offsetOf[gin.Engine, string]("trustedCIDRs"), "of another type")
	assert.Equal(t, -1, offsetOf[gin.Engine, string]("nothing"))
}

// TestGinIsAskedIfItIsNotKnown: with a Gin that has no such fields, addresses are those of
// gin.Context.ClientIP, made safe.
func TestGinIsAskedIfItIsNotKnown(t *testing.T) {
	known := engineOffset
	engineOffset = -1
	defer func() { engineOffset = known }()
	engine := func(proxies ...string) *gin.Engine {
		r := gin.New()
		require.NoError(t, r.SetTrustedProxies(proxies))
		return r
	}
	for _, tt := range []struct {
		name                string
		engine              *gin.Engine
		remote, xff, want   string
		wantFrom10, finding bool
	}{
		{"direct", engine(), "192.0.2.1:1", "", "ip:192.0.2.1", false, false},
		{"no port", engine(), "192.0.2.1", "", "ip:192.0.2.1", false, false},
		{"forged", engine(), "192.0.2.1:1", "198.51.100.9", "ip:192.0.2.1", false, false},
		{"behind a proxy", engine("10.0.0.0/8"), "10.1.2.3:1", "198.51.100.9", "ip:198.51.100.9", false, false},
		{"the proxy itself", engine("10.0.0.0/8"), "10.1.2.3:1", "", "ip:10.1.2.3", true, false},
		{"everybody is trusted", gin.New(), "10.1.2.3:1", "198.51.100.9", "ip:10.1.2.3", false, true},
		{"all of IPv6", engine("::/0"), "[2001:db8::1]:1", "198.51.100.9", "ip:2001:db8::/64", false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := gin.CreateTestContextOnly(httptest.NewRecorder(), tt.engine)
			c.Request = httptest.NewRequest(http.MethodGet, "/", nil)
			c.Request.RemoteAddr = tt.remote
			if tt.xff != "" {
				c.Request.Header.Set("X-Forwarded-For", tt.xff)
			}
			noEngine.said.trust.state.Store(0)
			for range 2 {
				key, err := ByIP()(c)
				require.NoError(t, err)
				assert.Equal(t, tt.want, key)
			}
			assert.Equal(t, tt.wantFrom10, FromNetworks("10.0.0.0/8")(c))
			assert.Equal(t, tt.finding, noEngine.said.trust.log())
		})
	}
}

// TestEnginesAreForgotten: what is known of an engine goes with it.
func TestEnginesAreForgotten(t *testing.T) {
	count := func() (n int) {
		engines.Range(func(any, any) bool { n++; return true })
		return n
	}
	before := count()
	for range 50 {
		c := gin.CreateTestContextOnly(httptest.NewRecorder(), gin.New())
		c.Request = httptest.NewRequest(http.MethodGet, "/", nil)
		_, ok := Address(c)
		require.True(t, ok)
	}
	for range 1000 {
		if count() <= before+1 { // the compiler may keep the last one
			return
		}
		runtime.GC()
		runtime.Gosched()
	}
	t.Fatalf("%d engines are known, of %d", count(), before)
}
