package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/backend/redis"
)

// rates are the numbers. They are apart from the limiters so that tests can have small ones.
type rates struct {
	address      ginlimit.Limit
	client       ginlimit.Limit
	clientDay    ginlimit.Limit
	login        ginlimit.Limit
	searchSecond ginlimit.Limit
	searchDay    ginlimit.Limit
}

func defaultRates() rates {
	return rates{
		address: ginlimit.PerSecond(1000).WithBurst(2000), // an office shares an address; see also the tiers you sell
		client:  ginlimit.PerSecond(100).WithBurst(200),
		// A quota, as people understand it: a day from the first request. A token bucket of as many
		// a day would let nearly twice as many pass on the first.
		clientDay: ginlimit.PerDay(100_000).WithAlgorithm(ginlimit.FixedWindow),
		// Few and precious: never an eleventh failure in any 15 minutes.
		login:        ginlimit.Per(10, 15*time.Minute).WithAlgorithm(ginlimit.SlidingLog),
		searchSecond: ginlimit.PerSecond(20),
		searchDay:    ginlimit.PerDay(20_000).WithAlgorithm(ginlimit.FixedWindow),
	}
}

// limiters are all limits of the service. They are built once, at the start: one that is built for
// each request would limit nothing.
type limiters struct {
	address   *ginlimit.Limiter // each address, whatever user it claims
	client    *ginlimit.Limiter // each caller
	clientDay *ginlimit.Limiter // each caller, on trial
	login     *ginlimit.Limiter // failures to log in, by address
	search    *ginlimit.Limiter // each caller, by what a search costs
}

func newLimiters(r rates, b *redis.Backend, tiers *redis.Tiers, observe func(context.Context, ginlimit.Decision), logger *slog.Logger) (*limiters, error) {
	var errs []error
	// The name is part of the keys in Redis and of the headers. To rename a limiter is to forget
	// what it counted.
	add := func(name string, limit ginlimit.Limit, key ginlimit.KeyFunc, opts ...ginlimit.Option) *ginlimit.Limiter {
		l, err := ginlimit.NewLimiter(limit, key, slices.Concat(opts, []ginlimit.Option{
			ginlimit.WithName(name), ginlimit.WithObserver(observe), ginlimit.WithLogger(logger),
		})...)
		errs = append(errs, err)
		return l
	}
	shared := ginlimit.WithBackend(b)

	// Who is asking: a user wherever they are, else a partner's machine, else an address. None of
	// the first two can be made up, because authenticate refuses what it does not know; else each
	// new key would be a new budget.
	caller := ginlimit.FirstOf(ginlimit.ByUserID(userKey), ginlimit.ByAPIKey(apiKeyHeader), ginlimit.ByIP())

	l := &limiters{
		// In memory, on purpose: this one stands between a flood and Redis, so it must not ask
		// Redis itself, and a flood need not be counted exactly. With n instances an address has n
		// times as much. No headers: it is not what a client should plan by.
		address: add("address", r.address, ginlimit.ByIP(), ginlimit.WithHeaders(ginlimit.HeadersNone)),

		// The zero Tier of those whom nobody gave one means the rate here. If it cannot be looked
		// up, the tier that the caller had last decides, for ten minutes, and otherwise the rate
		// here. FailOpen is the default, and said here because it is a decision: reads go on while
		// Redis is down.
		client: add("client", r.client, caller, shared,
			ginlimit.WithTier(tierOf(tiers)), ginlimit.WithFailurePolicy(ginlimit.FailOpen)),

		// A limit that is to come. It counts and is observed, but refuses nothing, and clients do
		// not see it: look at "clientDay: dry_run_denied" for a week, then delete one option. It
		// costs a round trip; once it is in force it can move into client with WithLimits, and
		// costs none.
		clientDay: add("clientDay", r.clientDay, caller, shared, ginlimit.WithDryRun(true)),

		// Only failures count. The charge is held while the password is checked, so that many
		// guesses at once get no further than one after the other. FailClosed: while Redis is down
		// nobody logs in, or that would be the time to guess. (Many addresses can still try one
		// account: the login example has a second limit against that.)
		login: add("login", r.login, ginlimit.ByIP(), shared,
			ginlimit.WithRefundIf(func(c *gin.Context) bool { return c.Writer.Status() < http.StatusBadRequest }),
			ginlimit.WithFailurePolicy(ginlimit.FailClosed)),

		// Both must allow a search, or neither is charged: it is one decision and one round trip.
		// The names are for clients, who see them in RateLimit-Policy.
		search: add("search", r.searchSecond.Named("search-second"), caller, shared,
			ginlimit.WithLimits(r.searchDay.Named("search-day")), ginlimit.WithCost(searchCost)),
	}
	return l, errors.Join(errs...)
}

// tierOf looks up what the caller was given; Tiers keep it in the process until it changes. For
// callers without an account there is nothing to look up: the zero Tier means the limiter's own
// limits. (ErrSkip would mean none at all.)
func tierOf(tiers *redis.Tiers) func(*gin.Context) (ginlimit.Tier, error) {
	return func(c *gin.Context) (ginlimit.Tier, error) {
		id := c.GetString(userKey)
		if id == "" {
			return ginlimit.Tier{}, nil
		}
		return tiers.Lookup(c.Request.Context(), id)
	}
}

const (
	defaultSize = 10
	maxSize     = 100
	sizeOfUnit  = 10 // results for one unit of a search limit
)

// pageSize returns how many results a search asks for, and whether it may.
func pageSize(c *gin.Context) (int, bool) {
	text, given := c.GetQuery("size")
	if !given {
		return defaultSize, true
	}
	n, err := strconv.Atoi(text)
	return n, err == nil && 1 <= n && n <= maxSize
}

// searchCost is 1 to 10. What the client asks for is checked before it is multiplied or charged;
// nonsense costs 1, and the handler refuses it. The largest search has to fit into the smallest
// limit, or it could never pass.
func searchCost(c *gin.Context) int64 {
	n, ok := pageSize(c)
	if !ok {
		return 1
	}
	return int64(n+sizeOfUnit-1) / sizeOfUnit
}
