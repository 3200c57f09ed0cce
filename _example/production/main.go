// Production is a small service with everything around its limits that a real one needs: limits by
// user, API key or address in a Redis that all instances share, tiers that an operator changes
// while it runs, a limit on trial, counts of what was decided, and an end that loses no request. In
// _example, with a redis-server on this machine, run
//
//	go run ./production
//
// and try what it prints. Read limits.go first: all else is there so that those limits hold.
//
//	main.go     how the parts are put together, started and ended
//	config.go   the environment, checked at the start
//	limits.go   the limiters
//	service.go  authentication, log-in and search: a toy, but of the right shape
//	admin.go    what the operator can do at run time
//	observe.go  what the operator gets to see
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/ginlimit/ginlimit/backend/redis"
)

// app is one instance of the service.
type app struct {
	config
	logs      io.Writer
	backend   *redis.Backend
	tiers     *redis.Tiers
	decisions *decisions
	limits    *limiters
	directory *directory
	find      func(ctx context.Context, query string, n int) ([]string, error) // the expensive part

	public, admin http.Handler
}

// newApp connects to Redis and builds the engines. It also succeeds while Redis is down: an
// instance that cannot start is a greater outage than one that does not count for a while. An error
// is a mistake in the configuration.
func newApp(ctx context.Context, cfg config, logs io.Writer) (*app, error) {
	logger := slog.New(slog.NewJSONHandler(logs, nil))
	b, err := redis.Dial(ctx, cfg.redisURL,
		redis.WithPrefix("shop"), // another service on the same Redis may have a limiter named "login" too
		redis.WithTimeout(cfg.redisTimeout),
		redis.WithLogger(logger))
	if err != nil {
		return nil, err
	}
	a := &app{
		config: cfg, logs: logs,
		backend: b, tiers: b.Tiers(), decisions: &decisions{logger: logger},
		directory: newDirectory(), find: findBooks,
	}
	if a.limits, err = newLimiters(cfg.rates, b, a.tiers, a.decisions.observe, logger); err == nil {
		a.public, err = a.newPublic()
		a.admin = a.newAdmin()
	}
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return a, nil
}

// newPublic returns what clients see. The order is the design: Gin runs for a route the middleware
// that was added before it.
func (a *app) newPublic() (http.Handler, error) {
	r := gin.New()
	// Whose X-Forwarded-For is believed. Gin believes everybody's unless it is told otherwise, and
	// then clients choose their address. nil, the default here, believes nobody's.
	if err := r.SetTrustedProxies(a.proxies); err != nil {
		return nil, fmt.Errorf("TRUSTED_PROXIES: %w", err)
	}
	r.Use(gin.LoggerWithConfig(gin.LoggerConfig{Output: a.logs, SkipPaths: []string{"/healthz"}}), gin.RecoveryWithWriter(a.logs))

	// Before all limiters, because a load balancer asks often, and one that is refused takes the
	// instance out of service. It does not ask Redis: without it the service still does most of its
	// work. (Where the route cannot come first, WithSkip leaves it out.)
	r.GET("/healthz", func(c *gin.Context) { c.String(http.StatusOK, "ok\n") })

	// Before authentication, which costs something, and which is where made-up credentials are
	// found out.
	r.Use(a.limits.address.Handle)
	r.POST("/login", a.limits.login.Handle, a.login)

	// After authentication, because the limits are by who is asking.
	api := r.Group("/", a.authenticate, a.limits.client.Handle, a.limits.clientDay.Handle)
	api.GET("/whoami", whoami)
	api.GET("/search", a.limits.search.Handle, a.search)
	return r, nil
}

func main() {
	gin.SetMode(gin.ReleaseMode)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process at once
	if err := start(ctx, os.Getenv, os.Stderr); err != nil {
		log.Fatal(err)
	}
}

// start is the whole program.
func start(ctx context.Context, getenv func(string) string, logs io.Writer) error {
	cfg, err := configFrom(getenv)
	if err != nil {
		return err
	}
	// First the ports, so that a second start by mistake ends before it does anything.
	public, err := net.Listen("tcp", cfg.addr)
	if err != nil {
		return err
	}
	admin, err := net.Listen("tcp", cfg.adminAddr)
	if err != nil {
		return errors.Join(err, public.Close())
	}
	a, err := newApp(ctx, cfg, logs)
	if err != nil {
		return errors.Join(err, public.Close(), admin.Close())
	}
	fmt.Printf(usage, public.Addr(), admin.Addr())
	return a.run(ctx, public, admin)
}

const usage = `Listening on %[1]s, for the operator on %[2]s.

Callers without an account are known by their address, others by a token or an API key:

    curl -i http://%[1]s/whoami
    curl -d user=alice -d password=wonderland http://%[1]s/login
    curl -i -H 'Authorization: Bearer token-of-alice' http://%[1]s/whoami
    curl -i -H 'X-API-Key: key-of-a-partner' http://%[1]s/whoami

Guess a password, and after ten failures not even the right one helps. Then let the address try again:

    for i in $(seq 11); do curl -s -o /dev/null -w '%%{http_code} ' -d user=alice -d password=$i http://%[1]s/login; done
    curl -i -d user=alice -d password=wonderland http://%[1]s/login
    curl -X POST http://%[2]s/reset/login/ip:127.0.0.1

A search costs by the size of its answer:

    curl -i 'http://%[1]s/search?q=go&size=100'

Give alice a limit of her own, on all instances, and take it away again:

    curl -X PUT -d '{"name":"tiny","limits":["2/m"]}' http://%[2]s/tiers/alice
    curl -X DELETE http://%[2]s/tiers/alice

See what was decided:

    curl http://%[2]s/decisions

`

// run serves until ctx ends or a server fails, and then ends in this order: no new connections, the
// requests that have begun finish, the operator's port closes, and last the connections to Redis,
// which the last request still needs for its limits and refunds.
func (a *app) run(ctx context.Context, public, admin net.Listener) error {
	servers := []*http.Server{newServer(a.public), newServer(a.admin)}
	failed := make(chan error, len(servers))
	for i, listener := range []net.Listener{public, admin} {
		go func() { failed <- servers[i].Serve(listener) }()
	}
	var errs []error
	select {
	case err := <-failed:
		errs = append(errs, err)
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.drain)
	defer cancel()
	for _, srv := range servers {
		if err := srv.Shutdown(drain); err != nil { // the time is up: end what is left
			errs = append(errs, err, srv.Close())
		}
	}
	return errors.Join(append(errs, a.backend.Close())...)
}

// newServer returns a server whose clients cannot hold a connection by being slow.
func newServer(handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      10 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    32 << 10,
	}
}
