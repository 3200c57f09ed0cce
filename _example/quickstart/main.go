// Quickstart limits GET /ping to 10 requests a minute for each client address. In _example, run
//
//	go run ./quickstart
//
// and try what it prints. ADDR=127.0.0.1:9090 makes it listen elsewhere.
//
// Behind a proxy, every connection comes from the proxy, so that all clients would share one
// budget. The proxy passes the client's address on in X-Forwarded-For; name the proxy's own
// address, and only that, so that Gin believes this header from it and from nobody else:
//
//	err := r.SetTrustedProxies([]string{"10.0.0.7"}) // or a network, "10.0.0.0/24"
package main

import (
	"cmp"
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/ginlimit/ginlimit"
)

func newRouter() *gin.Engine {
	r := gin.New()
	r.SetTrustedProxies(nil) // clients connect directly; behind a proxy, name its address here
	r.Use(ginlimit.New(ginlimit.PerMinute(10), ginlimit.ByIP()))
	r.GET("/ping", func(c *gin.Context) { c.String(http.StatusOK, "pong") })
	return r
}

func main() {
	gin.SetMode(gin.ReleaseMode) // else Gin's debug output buries ours
	if err := serve(cmp.Or(os.Getenv("ADDR"), "127.0.0.1:8080"), newRouter()); err != nil {
		log.Fatal(err)
	}
}

const usage = `Listening on %[1]s. Each client address has 10 requests a minute. See the headers:

    curl -i http://%[1]s/ping

and what comes after the tenth request:

    for i in $(seq 12); do curl -s -o /dev/null -w '%%{http_code}\n' http://%[1]s/ping; done
    curl -i http://%[1]s/ping

`

// serve answers requests until the process is told to end, and then lets those that have begun
// finish.
func serve(addr string, handler http.Handler) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	fmt.Printf(usage, listener.Addr())
	srv := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second, // a client that sends slowly holds a connection no longer
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      10 * time.Second,
		IdleTimeout:       time.Minute,
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(listener) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		stop() // a second Ctrl-C ends the process at once
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return srv.Shutdown(ctx)
}
