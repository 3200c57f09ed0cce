// Leakybucket puts a leaky bucket before a downstream that bears five calls a second. Requests that
// come faster are not refused but held, and released one every 200 ms; those for which the bucket
// has no room are refused at once. In _example, run
//
//	go run ./leakybucket
//
// and try what it prints.
package main

import (
	"cmp"
	"context"
	"fmt"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/ginlimit/ginlimit"
)

const (
	interval = 200 * time.Millisecond // between two calls of the downstream
	// maxWait is the size of the bucket: one request goes on at once, four wait. The half is for
	// the timers, so that the fourth is not lost to a millisecond.
	maxWait = 4*interval + interval/2
)

// newRouter returns an engine that asks downstream for each GET /quote.
func newRouter(downstream func(context.Context) (string, error)) *gin.Engine {
	r := gin.New()
	r.SetTrustedProxies(nil)
	// Burst 1 makes the rate even: no two calls are closer than the interval, also after a pause.
	// Global, because the downstream does not care who is asking. The limit spaces calls; it does
	// not wait for one to end.
	even := ginlimit.Per(1, interval).WithBurst(1)
	r.Use(gin.Recovery(), ginlimit.New(even, ginlimit.Global(), ginlimit.WithMaxWait(maxWait)))
	r.GET("/quote", quote(downstream))
	return r
}

func quote(downstream func(context.Context) (string, error)) gin.HandlerFunc {
	return func(c *gin.Context) {
		text, err := downstream(c.Request.Context())
		if err != nil {
			c.String(http.StatusBadGateway, "the downstream failed\n")
			return
		}
		d, _ := ginlimit.FromContext(c)
		c.String(http.StatusOK, "%s, after %v in the bucket\n", text, d.Waited.Round(time.Millisecond))
	}
}

// slowQuote stands for the downstream.
func slowQuote(ctx context.Context) (string, error) {
	select {
	case <-time.After(150 * time.Millisecond):
		return "slow and steady", nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

const usage = `Listening on %[1]s. A quote is released every %[2]v; send eight at once, and five fit:

    for i in $(seq 8); do curl -s -w ' %%{http_code} after %%{time_total} s\n' http://%[1]s/quote & done; wait

`

func main() {
	gin.SetMode(gin.ReleaseMode)
	srv := &http.Server{
		Addr:              cmp.Or(os.Getenv("ADDR"), "127.0.0.1:8080"),
		Handler:           newRouter(slowQuote),
		ReadHeaderTimeout: 5 * time.Second,
		WriteTimeout:      10 * time.Second, // runs while a request is held: keep it well above maxWait
	}
	fmt.Printf(usage, srv.Addr, interval)
	log.Fatal(srv.ListenAndServe())
}
