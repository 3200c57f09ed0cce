package ginlimit_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/backend/memory"
)

// The examples of README.md and docs/ that stand in no other file.

func ExampleNew_server() {
	r := gin.New()
	r.SetTrustedProxies(nil) // clients connect directly; behind a proxy, name its address here
	r.Use(ginlimit.New(ginlimit.PerMinute(100), ginlimit.ByIP()))
	r.GET("/ping", func(c *gin.Context) { c.String(http.StatusOK, "pong") })
	r.Run("127.0.0.1:8080")
}

func ExampleWithTier_plans() {
	plans := map[string]ginlimit.Tier{"pro": {Name: "pro", Limits: []ginlimit.Limit{ginlimit.PerMinute(1000)}}}
	planOf := func(_ context.Context, customer string) (string, error) { return customer, nil } // a database, in real life

	r := gin.New()
	r.Use(func(c *gin.Context) { c.Set("customer", c.Query("customer")) }) // authentication comes first
	r.Use(ginlimit.New(ginlimit.PerMinute(5), ginlimit.ByUserID("customer"),
		ginlimit.WithTier(func(c *gin.Context) (ginlimit.Tier, error) {
			plan, err := planOf(c.Request.Context(), c.GetString("customer"))
			return plans[plan], err
		}),
	))
	r.GET("/", ok)

	get(r, "/?customer=pro", "X-RateLimit-Limit")
	get(r, "/?customer=nobody", "X-RateLimit-Limit")
	// Output:
	// 200 X-RateLimit-Limit: 1000
	// 200 X-RateLimit-Limit: 5
}

func ExampleWithSkip_health() {
	r := gin.New()
	r.SetTrustedProxies(nil)
	health := func(c *gin.Context) bool { return c.FullPath() == "/healthz" }
	r.Use(ginlimit.New(ginlimit.PerMinute(100), ginlimit.ByIP(), ginlimit.WithSkip(health)))
	r.GET("/healthz", ok)
	r.GET("/", ok)

	get(r, "/", "X-RateLimit-Remaining")
	get(r, "/healthz", "X-RateLimit-Remaining")
	// Output:
	// 200 X-RateLimit-Remaining: 99
	// 200 X-RateLimit-Remaining:
}

// A person who opens a page gets one; a script gets JSON.
func ExampleWithDenyHandler_page() {
	deny := func(c *gin.Context, d ginlimit.Decision) {
		if c.NegotiateFormat(gin.MIMEJSON, gin.MIMEHTML) == gin.MIMEHTML {
			c.Data(d.Status(), "text/html; charset=utf-8", []byte("<h1>Too many requests</h1><p>Please come back later.</p>"))
			return
		}
		c.JSON(d.Status(), gin.H{"error": "slow down"})
	}

	r := gin.New()
	r.Use(ginlimit.New(ginlimit.PerMinute(0), ginlimit.Global(), ginlimit.WithDenyHandler(deny)))
	r.GET("/", ok)
	for _, accept := range []string{"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "*/*"} {
		q := httptest.NewRequest(http.MethodGet, "/", nil)
		q.Header.Set("Accept", accept)
		w := httptest.NewRecorder()
		r.ServeHTTP(w, q)
		fmt.Println(w.Code, w.Body)
	}
	// Output:
	// 429 <h1>Too many requests</h1><p>Please come back later.</p>
	// 429 {"error":"slow down"}
}

// A client cannot make networks up as it can make API keys up: what it writes into the store is bounded.
func ExampleByIPPrefix_flood() {
	b := memory.New() // a Redis, in real life

	r := gin.New()
	r.SetTrustedProxies(nil)
	networks := ginlimit.New(ginlimit.PerMinute(600), ginlimit.ByIPPrefix(24, 48), ginlimit.WithName("network"))
	keys := ginlimit.New(ginlimit.PerMinute(100), ginlimit.ByAPIKey("X-API-Key"), ginlimit.WithName("key"),
		ginlimit.WithBackend(b))
	r.Use(networks, keys) // a network makes up 600 keys at once at most, and then 10 a second
	r.GET("/", ok)

	for i := range 10_000 {
		q := httptest.NewRequest(http.MethodGet, "/", nil)
		q.Header.Set("X-API-Key", fmt.Sprint("made up ", i))
		r.ServeHTTP(httptest.NewRecorder(), q)
	}
	fmt.Println(b.Len() < 1000)
	// Output: true
}

// A server that ends while requests are held.
func ExampleWithMaxWait_shutdown() {
	r := gin.New()
	r.SetTrustedProxies(nil)
	held := make(chan struct{}, 2)
	r.Use(func(*gin.Context) { held <- struct{}{} })
	r.Use(ginlimit.New(ginlimit.PerHour(1), ginlimit.ByIP(), ginlimit.WithMaxWait(2*time.Hour)))
	r.GET("/", ok)

	requests, end := context.WithCancel(context.Background())
	srv := &http.Server{Handler: r, BaseContext: func(net.Listener) context.Context { return requests }}
	srv.RegisterOnShutdown(end) // held requests are refused now, and do not wait for their turn

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go srv.Serve(listener)
	answers := make(chan int, 2)
	for range 2 {
		go func() {
			conn, err := net.Dial("tcp", listener.Addr().String())
			if err != nil {
				panic(err)
			}
			defer conn.Close()
			fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				panic(err)
			}
			answers <- response.StatusCode
		}()
	}
	<-held
	<-held
	fmt.Println(<-answers) // one has the hour's request; the other is held
	fmt.Println(srv.Shutdown(context.Background()))
	fmt.Println(<-answers)
	// Output:
	// 200
	// <nil>
	// 429
}
