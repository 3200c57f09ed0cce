package ginlimit_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"

	"github.com/gin-gonic/gin"

	"github.com/ginlimit/ginlimit"
)

// printKeys prints what key has to say of requests that edit makes different, one for each value.
func printKeys(key ginlimit.KeyFunc, edit func(*http.Request, string), values ...string) {
	r := gin.New()
	r.SetTrustedProxies(nil)
	r.Use(ginlimit.New(ginlimit.PerMinute(100), key, ginlimit.WithObserver(func(_ context.Context, d ginlimit.Decision) {
		if d.Err != nil {
			fmt.Println(d.Status(), d.Err)
			return
		}
		fmt.Println(d.Key)
	})))
	r.Any("/users/:id", ok)
	for _, value := range values {
		req := httptest.NewRequest(http.MethodGet, "/users/7", nil)
		edit(req, value)
		r.ServeHTTP(httptest.NewRecorder(), req)
	}
}

func ExampleByIP() {
	from := func(req *http.Request, addr string) { req.RemoteAddr = addr }
	printKeys(ginlimit.ByIP(), from,
		"203.0.113.7:4711",
		"[::ffff:203.0.113.7]:4712",     // the same client
		"[2001:db8:1:2::3]:4713",        // one of the addresses of a subscriber
		"[2001:db8:1:2:aa:bb:c:d]:4714", // and another
		"@",                             // a Unix socket
	)
	// Output:
	// ip:203.0.113.7
	// ip:203.0.113.7
	// ip:2001:db8:1:2::/64
	// ip:2001:db8:1:2::/64
	// 400 ginlimit: the request has no key: http.Request.RemoteAddr is no address, and no header that the engine believes has one
}

func ExampleByIP_proxy() {
	r := gin.New()
	r.SetTrustedProxies([]string{"192.0.2.1"}) // the address of your proxy
	r.Use(ginlimit.New(ginlimit.PerMinute(100), ginlimit.ByIP()))
	r.GET("/", func(c *gin.Context) {
		d, _ := ginlimit.FromContext(c)
		fmt.Println(d.Key)
	})
	for _, from := range []string{"192.0.2.1:443", "203.0.113.7:4711"} {
		req := httptest.NewRequest(http.MethodGet, "/", nil)
		req.RemoteAddr = from
		req.Header.Set("X-Forwarded-For", "198.51.100.5")
		r.ServeHTTP(httptest.NewRecorder(), req)
	}
	// Output:
	// ip:198.51.100.5
	// ip:203.0.113.7
}

func ExampleByIPPrefix() {
	from := func(req *http.Request, addr string) { req.RemoteAddr = addr }
	printKeys(ginlimit.ByIPPrefix(24, 48), from, "203.0.113.7:4711", "203.0.113.8:4711", "[2001:db8:1:2::3]:4711")
	// Output:
	// net:203.0.113.0/24
	// net:203.0.113.0/24
	// net:2001:db8:1::/48
}

// The address of the client, for what is not a key: a column of a log, say.
func ExampleAddress() {
	r := gin.New()
	r.SetTrustedProxies([]string{"192.0.2.1"}) // the address of your proxy
	r.GET("/", func(c *gin.Context) {
		addr, known := ginlimit.Address(c)
		fmt.Println(addr, known)
	})
	for _, from := range []string{"192.0.2.1:443", "203.0.113.7:4711"} {
		req := httptest.NewRequest(http.MethodGet, "/", nil)
		req.RemoteAddr = from
		req.Header.Set("X-Forwarded-For", "198.51.100.5:4711") // the first is the proxy's word, the second a client's
		r.ServeHTTP(httptest.NewRecorder(), req)
	}
	// Output:
	// 198.51.100.5 true
	// 203.0.113.7 true
}

// Monitoring and the office are not limited. A client that sends "X-Forwarded-For: 127.0.0.1" is.
func ExampleFromNetworks() {
	r := gin.New()
	r.SetTrustedProxies(nil)
	r.Use(ginlimit.New(ginlimit.PerMinute(1), ginlimit.ByIP(),
		ginlimit.WithSkip(ginlimit.FromNetworks("127.0.0.1", "198.51.100.0/24", "2001:db8::/32"))))
	r.GET("/", ok)

	for _, from := range []string{"127.0.0.1:1", "127.0.0.1:1", "203.0.113.7:1", "203.0.113.7:1"} {
		req := httptest.NewRequest(http.MethodGet, "/", nil)
		req.RemoteAddr = from
		if from != "127.0.0.1:1" {
			req.Header.Set("X-Forwarded-For", "127.0.0.1")
		}
		w := httptest.NewRecorder()
		r.ServeHTTP(w, req)
		fmt.Println(w.Code)
	}
	// Output:
	// 200
	// 200
	// 200
	// 429
}

// An operator forgives a caller: the key comes from the address in the log.
func ExampleKeyOfIP() {
	limiter, err := ginlimit.NewLimiter(ginlimit.PerHour(1), ginlimit.ByIP())
	if err != nil {
		panic(err)
	}
	key := ginlimit.KeyOfIP(netip.MustParseAddr("2001:db8:1:2::3"))
	limiter.Allow(context.Background(), key, 1)
	limiter.Reset(context.Background(), key)
	d, _ := limiter.Peek(context.Background(), key)
	fmt.Println(key, d.Remaining)
	// Output: ip:2001:db8:1:2::/64 1
}

func ExampleKeyOfIPPrefix() {
	fmt.Println(ginlimit.KeyOfIPPrefix(netip.MustParseAddr("203.0.113.7"), 24, 48))
	fmt.Println(ginlimit.KeyOfIPPrefix(netip.MustParseAddr("203.0.113.7"), 32, 48))
	fmt.Println(ginlimit.KeyOfIPPrefix(netip.MustParseAddr("2001:db8:1:2::3"), 32, 48))
	// Output:
	// net:203.0.113.0/24
	// net:203.0.113.7/32
	// net:2001:db8:1::/48
}

func ExampleKeyOfAPIKey() {
	fmt.Println(ginlimit.KeyOfAPIKey("X-API-Key", "secret"))
	fmt.Println(ginlimit.KeyOfAPIKey("Authorization", "Bearer secret"))
	fmt.Println(ginlimit.KeyOfAPIKey("Authorization", "bearer  secret")) // the same caller
	// Output:
	// apikey:2bb80d537b1da3e38bd30361aa855686
	// apikey:aa05c62bbf3bb7c5ece3e34d91bf1757
	// apikey:aa05c62bbf3bb7c5ece3e34d91bf1757
}

func ExampleKeyOfUser() {
	fmt.Println(ginlimit.KeyOfUser("alice"))
	fmt.Println(ginlimit.KeyOfUser(42))
	fmt.Println(ginlimit.KeyOfUser(42.0)) // as a claim of a JSON Web Token is decoded
	// Output:
	// user:alice
	// user:42
	// user:42
}

func ExampleKeyOfRoute() {
	fmt.Println(ginlimit.KeyOfRoute(http.MethodGet, "/users/:id"))
	// Output: route:GET /users/:id
}

func ExampleKeyOfGlobal() {
	limiter, err := ginlimit.NewLimiter(ginlimit.PerHour(10), ginlimit.Global())
	if err != nil {
		panic(err)
	}
	d, _ := limiter.Peek(context.Background(), ginlimit.KeyOfGlobal())
	fmt.Println(d.Remaining)
	// Output: 10
}

// The budget of one user on one route: that of Join(ByUserID("user"), ByRoute()).
func ExampleJoinKeys() {
	limiter, err := ginlimit.NewLimiter(ginlimit.PerHour(10), ginlimit.Join(ginlimit.ByUserID("user"), ginlimit.ByRoute()))
	if err != nil {
		panic(err)
	}
	key := ginlimit.JoinKeys(ginlimit.KeyOfUser("alice"), ginlimit.KeyOfRoute(http.MethodGet, "/users/:id"))
	fmt.Println(limiter.Reset(context.Background(), key))
	// Output: <nil>
}

func ExampleByAPIKey() {
	with := func(req *http.Request, key string) { req.Header.Set("X-API-Key", key) }
	printKeys(ginlimit.ByAPIKey("X-API-Key"), with, "secret", "another", "")
	// Output:
	// apikey:2bb80d537b1da3e38bd30361aa855686
	// apikey:ae448ac86c4e8e4dec645729708ef418
	// 400 ginlimit: the request has no key
}

func ExampleByUserID() {
	r := gin.New()
	r.Use(func(c *gin.Context) { // authentication comes first
		if user := c.Query("user"); user != "" {
			c.Set("user", user)
		}
	})
	r.Use(ginlimit.New(ginlimit.PerMinute(1), ginlimit.ByUserID("user")))
	r.GET("/", ok)

	get(r, "/?user=alice")
	get(r, "/?user=alice")
	get(r, "/?user=bob")
	get(r, "/")
	// Output:
	// 200
	// 429
	// 200
	// 400
}

func ExampleByRoute() {
	method := func(req *http.Request, m string) { req.Method = m }
	printKeys(ginlimit.ByRoute(), method, http.MethodGet, http.MethodHead, http.MethodPost)
	// Output:
	// route:GET /users/:id
	// route:GET /users/:id
	// route:POST /users/:id
}

// What costs the same whoever asks: one budget for all.
func ExampleGlobal() {
	r := gin.New()
	r.GET("/report", ginlimit.New(ginlimit.PerHour(1), ginlimit.Global()), ok)

	get(r, "/report")
	get(r, "/report")
	// Output:
	// 200
	// 429
}

// A budget for each user on each document, whatever the pattern of its route. A client makes such
// keys up as it likes: a limit without the parameter has to stand before it.
func ExampleJoin_parameter() {
	byDocument := func(c *gin.Context) (string, error) { return "document:" + c.Param("id"), nil }

	r := gin.New()
	r.SetTrustedProxies(nil)
	r.Use(ginlimit.New(ginlimit.PerMinute(100), ginlimit.ByIP()))
	r.GET("/documents/:id", ginlimit.New(ginlimit.PerMinute(1), ginlimit.Join(ginlimit.ByIP(), byDocument)), ok)

	get(r, "/documents/1")
	get(r, "/documents/2")
	get(r, "/documents/1")
	// Output:
	// 200
	// 200
	// 429
}
