// Overload keeps a service useful when it is asked for more than it can do. It answers from a
// database with ten connections, which bears 500 queries a second. Two things protect it:
//
//   - at most 200 requests are in flight in all, and 5 of each user: so no caller takes all places,
//     and no request waits behind more than 200 others;
//   - failsafe-go's adaptive limiter sheds the routes of low priority. It compares how long
//     requests take with how long they took, and lets fewer of them in while that grows.
//
// The program sends a load that is twice too much to the service: without either, with the first,
// and with both. It prints what became of the requests and how long they took, and ends after about
// 20 seconds. In _example, run
//
//	go run ./overload
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"time"

	"github.com/failsafe-go/failsafe-go/adaptivelimiter"
	"github.com/gin-gonic/gin"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/backend/memory"
)

const (
	perUser = 5
	inAll   = 200
)

// limitFlights caps how many requests are inside at the same time, of each user and in all, in one
// decision: a request that the cap of everybody refuses takes no place of its user's. One backend
// for both makes that one step. On Redis the caps would hold over all instances.
func limitFlights(perUser, inAll int64) (gin.HandlerFunc, error) {
	store := memory.New()
	user, err := ginlimit.NewLimiter(ginlimit.InFlight(perUser), ginlimit.ByUserID("user"),
		ginlimit.WithName("user"), ginlimit.WithBackend(store))
	if err != nil {
		return nil, err
	}
	everybody, err := ginlimit.NewLimiter(ginlimit.InFlight(inAll), ginlimit.Global(),
		ginlimit.WithName("everybody"), ginlimit.WithBackend(store))
	if err != nil {
		return nil, err
	}
	return ginlimit.All(user, everybody), nil
}

// newShedding returns a limiter that finds out by itself how many requests may be inside: fewer
// while they take longer than they used to. The windows are short so that it finds out within the
// seconds that this program runs; the defaults, a second and 50 samples, are better for a service.
func newShedding() adaptivelimiter.AdaptiveLimiter[any] {
	return adaptivelimiter.NewBuilder[any]().
		WithLimits(1, 100, 10).
		WithRecentWindow(50*time.Millisecond, time.Second, 10).
		Build()
}

// shed refuses requests for which the adaptive limiter has no room. It stands after the limits in
// flight: a request that those refuse takes no time at all, and would look like a fast one.
func shed(limiter adaptivelimiter.AdaptiveLimiter[any]) gin.HandlerFunc {
	return func(c *gin.Context) {
		permit, ok := limiter.TryAcquirePermit()
		if !ok {
			c.Header("Retry-After", "1")
			c.AbortWithStatusJSON(http.StatusServiceUnavailable, gin.H{"error": "the service is busy"})
			return
		}
		ended := false
		defer func() {
			if ended && c.Request.Context().Err() == nil {
				permit.Record() // how long it took counts
			} else {
				permit.Drop() // a panic, or a client that left, says nothing about it
			}
		}()
		c.Next()
		ended = true
	}
}

// newRouter returns a service whose routes do work, behind what protects it: a nil protection is
// none.
func newRouter(flights gin.HandlerFunc, shedding adaptivelimiter.AdaptiveLimiter[any], work func(context.Context) error) *gin.Engine {
	r := gin.New()
	r.SetTrustedProxies(nil)
	r.Use(gin.Recovery(), authenticate)
	if flights != nil {
		r.Use(flights)
	}
	answer := answerWith(work)
	r.GET("/orders", answer) // what the shop lives on

	extras := r.Group("/")
	if shedding != nil {
		extras.Use(shed(shedding))
	}
	extras.GET("/recommendations", answer) // nobody minds if they are missing for a while
	return r
}

// authenticate stands for what knows its callers by a token. Without a user there is no key, and
// the answer is 400.
func authenticate(c *gin.Context) { c.Set("user", c.GetHeader("X-User")) }

func answerWith(work func(context.Context) error) gin.HandlerFunc {
	return func(c *gin.Context) {
		if err := work(c.Request.Context()); err != nil {
			c.Status(http.StatusGatewayTimeout)
			return
		}
		c.String(http.StatusOK, "here you are\n")
	}
}

// database stands for one: a query takes its time, after it has waited for a connection.
type database struct {
	connections chan struct{}
	takes       time.Duration
}

func newDatabase(connections int, takes time.Duration) *database {
	return &database{make(chan struct{}, connections), takes}
}

func (d *database) query(ctx context.Context) error {
	select {
	case d.connections <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-d.connections }()
	time.Sleep(d.takes) // it does not stop for a caller that left
	return ctx.Err()
}

// rounds are the three ways to protect the service.
var rounds = []struct {
	name              string
	limited, shedding bool
}{
	{name: "nothing"},
	{name: "in flight", limited: true},
	{name: "in flight, shedding", limited: true, shedding: true},
}

// run sends the load to the service in each of the rounds.
func run(ctx context.Context, l load, d func() *database) error {
	l.printHead()
	for _, round := range rounds {
		var flights gin.HandlerFunc
		var shedding adaptivelimiter.AdaptiveLimiter[any]
		var err error
		if round.limited {
			if flights, err = limitFlights(perUser, inAll); err != nil {
				return err
			}
		}
		if round.shedding {
			shedding = newShedding()
		}
		if err := l.against(ctx, round.name, newRouter(flights, shedding, d().query)); err != nil {
			return fmt.Errorf("round %q: %w", round.name, err)
		}
	}
	return nil
}

func main() {
	gin.SetMode(gin.ReleaseMode)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	l := load{
		out:    os.Stdout,
		calm:   2 * time.Second,
		lasts:  4 * time.Second,
		gaveUp: time.Second,
		kinds: []kind{
			{name: "orders", path: "/orders", users: 50, calm: 100, rate: 100},
			{name: "recommendations", path: "/recommendations", users: 500, calm: 200, rate: 900},
			{name: "a greedy user's", path: "/orders", users: 1, rate: 100},
		},
	}
	err := run(ctx, l, func() *database { return newDatabase(10, 20*time.Millisecond) })
	stop()
	if err != nil && !errors.Is(err, context.Canceled) {
		log.Fatal(err)
	}
}
