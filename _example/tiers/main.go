// Tiers limits callers by the plan that they pay for. A caller with an API key has the limits of
// its account's plan. Plans are looked up in a database and cached for ten seconds. An upgrade
// takes effect with the next request, or within ten seconds on another instance. A caller without
// an API key has the limiter's own limits, by address. In _example, run
//
//	go run ./tiers
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
	"github.com/maypok86/otter/v2"

	"github.com/ginlimit/ginlimit"
)

// anonymous is the limiter's own limit: of callers without an account, and of all while no plan can
// be looked up.
var anonymous = ginlimit.PerMinute(5)

// plans are what the service sells. The day of pro is a quota, which comes back all at once 24
// hours after its first request; as a token bucket it would refill from that request on, and let
// nearly twice as much pass on the first day.
//
// What an account has used is carried over by a limit's place in the list. An upgrade frees at once
// because the first limit of pro has room for more (20) than the first of free can have used (10).
var plans = map[string]ginlimit.Tier{
	"free": {Name: "free", Limits: []ginlimit.Limit{ginlimit.PerMinute(10)}},
	"pro": {Name: "pro", Limits: []ginlimit.Limit{
		ginlimit.PerSecond(20),
		ginlimit.PerDay(1000).WithAlgorithm(ginlimit.FixedWindow),
	}},
	"enterprise": {Name: "enterprise", Limits: []ginlimit.Limit{ginlimit.Unlimited()}},
}

const account = "account" // what authenticate sets

// planCache has the plans of accounts. It asks the database once for all requests of an account
// that come meanwhile, and caches no error.
type planCache = *otter.Cache[string, string]

func newPlanCache() planCache {
	return otter.Must(&otter.Options[string, string]{
		MaximumSize:      100_000,
		ExpiryCalculator: otter.ExpiryWriting[string, string](10 * time.Second),
	})
}

func newRouter(db *database, cache planCache) *gin.Engine {
	r := gin.New()
	r.SetTrustedProxies(nil)
	r.Use(gin.Recovery(), authenticate(db))        // before the limiter, which has to know who is asking
	r.POST("/v1/upgrade", upgradeToPro(db, cache)) // not limited: a caller that has used up a plan wants to get here

	limited := r.Group("/", ginlimit.New(anonymous,
		ginlimit.FirstOf(ginlimit.ByUserID(account), ginlimit.ByIP()),
		ginlimit.WithTier(tierOf(db, cache)),
		ginlimit.WithObserver(logFailedLookUp)))
	limited.GET("/v1/report", report)
	return r
}

// authenticate lets callers without an API key pass as nobody. A key that is wrong is an error.
// Otherwise a caller that invents keys would be a new one with each. (See the login example for how
// to limit that.)
func authenticate(db *database) gin.HandlerFunc {
	return func(c *gin.Context) {
		key := c.GetHeader("X-API-Key")
		if key == "" {
			return
		}
		id, ok := db.accountOf(key)
		if !ok {
			c.String(http.StatusUnauthorized, "no such API key\n")
			c.Abort()
			return
		}
		c.Set(account, id)
	}
}

// tierOf looks the caller's plan up. The zero Tier, which is also that of a plan nobody knows,
// means the limiter's own limits. An error means the tier that the caller had last, for ten
// minutes, and then the limiter's own limits.
func tierOf(db *database, cache planCache) func(*gin.Context) (ginlimit.Tier, error) {
	return func(c *gin.Context) (ginlimit.Tier, error) {
		id := c.GetString(account)
		if id == "" {
			return ginlimit.Tier{}, nil
		}
		// The request waits for the answer, so not for long. Others wait for the same answer, so a
		// client that leaves does not end the look-up.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(c.Request.Context()), 100*time.Millisecond)
		defer cancel()
		plan, err := cache.Get(ctx, id, otter.LoaderFunc[string, string](db.planOf))
		return plans[plan], err
	}
}

// logFailedLookUp makes a failure seen. Callers keep the plan that they had last, for ten minutes,
// and would only then notice that their limits are low.
func logFailedLookUp(_ context.Context, d ginlimit.Decision) {
	if d.TierErr != nil {
		log.Printf("limiter %s: the plan could not be looked up: %v", d.Limiter, d.TierErr)
	}
}

// report says what the limiter decided. With two limits, that is about the one with less left.
func report(c *gin.Context) {
	d, _ := ginlimit.FromContext(c)
	plan := cmp.Or(d.Tier, "none")
	if d.Limit.IsUnlimited() {
		c.String(http.StatusOK, "plan: %s, unlimited\n", plan)
		return
	}
	c.String(http.StatusOK, "plan: %s, %d left (%v)\n", plan, d.Remaining, d.Limit)
}

func upgradeToPro(db *database, cache planCache) gin.HandlerFunc {
	return func(c *gin.Context) {
		id := c.GetString(account)
		if id == "" {
			c.String(http.StatusUnauthorized, "an upgrade needs an API key\n")
			return
		}
		db.setPlan(id, "pro")
		cache.Invalidate(id)
		c.String(http.StatusOK, "plan: pro\n")
	}
}

const usage = `Listening on %[1]s. Without a key there are 5 requests a minute, with that of a free account 10:

    curl -i http://%[1]s/v1/report
    curl -i -H 'X-API-Key: key-of-ann' http://%[1]s/v1/report

Use the free plan up, upgrade, and go on at once:

    for i in $(seq 12); do curl -s -H 'X-API-Key: key-of-ann' http://%[1]s/v1/report; echo; done
    curl -X POST -H 'X-API-Key: key-of-ann' http://%[1]s/v1/upgrade
    curl -i -H 'X-API-Key: key-of-ann' http://%[1]s/v1/report

key-of-pat is pro, key-of-eve is enterprise.

`

func main() {
	gin.SetMode(gin.ReleaseMode)
	srv := &http.Server{
		Addr:              cmp.Or(os.Getenv("ADDR"), "127.0.0.1:8080"),
		Handler:           newRouter(newDatabase(), newPlanCache()),
		ReadHeaderTimeout: 5 * time.Second,
	}
	fmt.Printf(usage, srv.Addr)
	log.Fatal(srv.ListenAndServe())
}
