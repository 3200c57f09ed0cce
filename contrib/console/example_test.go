package console_test

import (
	"context"
	"errors"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/backend/redis"
	"github.com/ginlimit/ginlimit/contrib/console"
)

// The page has a port of its own, on this machine alone.
func Example() {
	page := console.New(nil)
	limiter, err := ginlimit.NewLimiter(ginlimit.PerMinute(100), ginlimit.ByIP(), ginlimit.WithObserver(page.Observe))
	if err != nil {
		log.Fatal(err)
	}
	page.Watch(limiter)

	r := gin.New()
	r.SetTrustedProxies(nil)
	r.Use(limiter.Handle)

	operators := &http.Server{Addr: "127.0.0.1:8081", Handler: page, ReadHeaderTimeout: 5 * time.Second}
	operators.RegisterOnShutdown(page.Close) // otherwise Shutdown waits for the pages that are open
	go func() {
		if err := operators.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
			log.Fatal(err)
		}
	}()
}

// A limiter that was made with the page as its observer may also be given to New: through a
// function that knows the page later.
func ExampleNew() {
	var page *console.Console
	limiter, err := ginlimit.NewLimiter(ginlimit.PerMinute(100), ginlimit.ByIP(),
		ginlimit.WithObserver(func(ctx context.Context, d ginlimit.Decision) { page.Observe(ctx, d) }))
	if err != nil {
		log.Fatal(err)
	}
	page = console.New([]*ginlimit.Limiter{limiter}, console.WithKeys(true))
	http.Handle("/console/", http.StripPrefix("/console", page))
}

// Operators come through the application's own log-in, from anywhere.
func ExampleWithAuth() {
	page := console.New(nil, console.WithAuth(func(r *http.Request) bool {
		session, err := r.Cookie("session")
		return err == nil && isOperator(session.Value)
	}))

	r := gin.New()
	r.Any("/console/*page", gin.WrapH(page)) // before the limiters: the page is not limited
	r.Use(ginlimit.New(ginlimit.PerMinute(100), ginlimit.ByIP(), ginlimit.WithObserver(page.Observe)))
}

func isOperator(session string) bool { return session == os.Getenv("OPERATOR_SESSION") }

// Keys are shown as they are, to operators who may see who their callers are.
func ExampleWithKeys() {
	page := console.New(nil, console.WithKeys(true))
	log.Fatal(http.ListenAndServe("127.0.0.1:8081", page))
}

// A page for a wall: it shows, and changes nothing.
func ExampleWithActions() {
	page := console.New(nil, console.WithActions(false))
	log.Fatal(http.ListenAndServe("127.0.0.1:8081", page))
}

// The circuit breakers of a Redis are shown by server.
func ExampleWithBreakers() {
	b, err := redis.Dial(context.Background(), os.Getenv("REDIS_URL"))
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()
	page := console.New(nil, console.WithBreakers("redis", b.Breakers))

	r := gin.New()
	r.Any("/console/*page", gin.WrapH(page))
	r.Use(ginlimit.New(ginlimit.PerMinute(600), ginlimit.ByIP(), ginlimit.WithName("all"),
		ginlimit.WithBackend(b), ginlimit.WithObserver(page.Observe)))
}
