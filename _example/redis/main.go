// Redis is the quick start on Redis: GET /ping has 10 requests a minute for each client address,
// however many instances of the program share the work. With a redis-server on this machine, run in
// _example
//
//	go run ./redis
//
// and try what it prints. REDIS_URL=redis://user:password@host:6379 names another server,
// ADDR=127.0.0.1:9090 makes the program listen elsewhere.
//
// Redis is not needed to start, nor to go on: while it is down, requests pass unlimited and the log
// says so, because a limiter must not be the outage. Where that is the greater harm, see
// WithFailurePolicy in the login example.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/redis"
)

// newRouter returns what is the in-memory quick start but for two options. The name is part of the
// keys in Redis: it is what the instances have in common, and what keeps two limiters apart.
func newRouter(b backend.Backend) *gin.Engine {
	r := gin.New()
	r.SetTrustedProxies(nil) // clients connect directly; behind a proxy, name its address here
	r.Use(ginlimit.New(ginlimit.PerMinute(10), ginlimit.ByIP(),
		ginlimit.WithBackend(b), ginlimit.WithName("ping"),
		ginlimit.WithObserver(logOutages())))
	r.GET("/ping", func(c *gin.Context) { c.String(http.StatusOK, "pong") })
	return r
}

// logOutages returns an observer that says when Redis stops deciding and when it decides again.
// Clients do not notice the first, because their requests pass.
func logOutages() func(context.Context, ginlimit.Decision) {
	var down atomic.Bool
	return func(_ context.Context, d ginlimit.Decision) {
		switch failed := errors.Is(d.Err, backend.ErrUnavailable); {
		case failed && down.CompareAndSwap(false, true):
			log.Printf("requests pass unlimited until Redis is back: %v", d.Err)
		case d.Err == nil && down.CompareAndSwap(true, false):
			log.Print("requests are limited again")
		}
	}
}

func main() {
	gin.SetMode(gin.ReleaseMode) // else Gin's debug output buries ours
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process at once
	err := run(ctx, cmp.Or(os.Getenv("ADDR"), "127.0.0.1:8080"), cmp.Or(os.Getenv("REDIS_URL"), "redis://127.0.0.1:6379"))
	if err != nil {
		log.Fatal(err)
	}
}

// run connects to Redis, and closes the connections after the last request that uses them.
func run(ctx context.Context, addr, redisURL string) error {
	b, err := redis.Dial(ctx, redisURL) // an error is a mistake in the URL, not a Redis that is down
	if err != nil {
		return err
	}
	return errors.Join(serve(ctx, addr, newRouter(b)), b.Close())
}

const usage = `Listening on %[1]s. Start a second instance in another terminal:

    ADDR=%[2]s go run ./redis    # with the same REDIS_URL, if you set one

Each client address has 10 requests a minute, wherever they arrive. See Remaining count down across both:

    curl -i http://%[1]s/ping
    curl -i http://%[2]s/ping

and what comes after the tenth request:

    for i in $(seq 6); do for a in %[1]s %[2]s; do curl -s -o /dev/null -w '%%{http_code}\n' http://$a/ping; done; done
    curl -i http://%[2]s/ping

Stop Redis, and requests pass. What it holds: redis-cli --scan --pattern 'gl1:*'

`

// serve answers requests until ctx ends, and then lets those that have begun finish.
func serve(ctx context.Context, addr string, handler http.Handler) error {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	other := "127.0.0.1:8081"
	if listener.Addr().String() == other {
		other = "127.0.0.1:8080"
	}
	fmt.Printf(usage, listener.Addr(), other)
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
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return srv.Shutdown(ctx)
}
