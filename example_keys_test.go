package ginlimit_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"

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
	// 400 ginlimit: the request has no key
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

// A budget for each user on each document, whatever the pattern of its route. A client makes such keys up as it likes:
// a limit without the parameter has to stand before it.
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
