// Package redis is the backend that many processes share: state lives in Redis, Valkey, a Redis
// Cluster or a set-up with Sentinel, and is reached through rueidis. One decision is one round
// trip, one EVALSHA of a script that charges all limits of a key or none, by the server's clock.
// Refusals are remembered in the process until their wait is over; client-side caching drops them
// within milliseconds if the key changes anywhere.
//
// [Dial] is the one obvious way to get a [Backend]; [New] uses a client that the application has
// already. For a client of go-redis there is package goredis, which is a module of its own: both
// can share one Redis, and one limit.
package redis

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/rueidis"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/internal/redisstore"
)

// Backend is a [backend.Backend] on Redis. Every error of its methods that comes from Redis has
// [backend.ErrUnavailable] in its chain, and no error holds a password or a key. It retries nothing
// that could be charged twice. The contexts of its methods are not asked: each call is made in the
// time of [WithTimeout].
type Backend struct{ store *redisstore.Backend }

var _ interface {
	backend.Backend
	backend.Renewer
	backend.Banner
} = (*Backend)(nil)

// New returns a Backend that uses client and never closes it. It panics if an option is not valid,
// or is one of those that only Dial can honour. It asks the server for its settings, for at most
// the time of [WithTimeout], to say in the log if they do not suit a limiter. The documentation of
// [Dial] lists the rights that client's user needs.
//
// New does not see client's connections, so that a server counts as silent if no call ends within
// the time of WithTimeout. Only time in which this process lets its goroutines run is counted.
// Dial's connections tell more, and sooner.
//
// Make one Backend for each client, and take its Tiers from it: the number of calls under way is
// bounded for each Backend, and the calls of several Backends together may be more than one client
// takes. Then callers wait for seconds if the server hangs, whatever [WithTimeout] says.
//
// A client that is made for this should have AlwaysPipelining set and short time-outs: Dial's
// documentation says which. Without AlwaysPipelining a call may end by the clock, also while this
// process is busy.
func New(client rueidis.Client, opts ...Option) *Backend {
	c, err := newConfig(opts)
	if err == nil {
		err = c.checkClient("redis.New", client)
	}
	if err != nil {
		panic(err)
	}
	b := redisstore.New(c.Config)
	b.Use(adapter{client})
	return &Backend{b}
}

// checkClient returns what is wrong with a client of the caller's, or with the options for it.
func (c *config) checkClient(caller string, client rueidis.Client) error {
	switch {
	case c.dialOnly != "":
		return fmt.Errorf("ginlimit: %s: %s is for redis.Dial; set up the client that you pass instead", caller, c.dialOnly)
	case client == nil:
		return fmt.Errorf("ginlimit: %s: the client is nil; use redis.Dial to connect to a URL", caller)
	}
	return nil
}

// Close closes the connections of a Backend made by Dial; calls fail from then on. It does nothing
// to the client that was given to New. It always returns nil.
func (b *Backend) Close() error { return b.store.Close() }

// Take implements [backend.Backend]. It is one EVALSHA, or none if a refusal is remembered. A
// deadline or a cancellation of the caller's does not count: the decision is made in the time of
// [WithTimeout].
func (b *Backend) Take(ctx context.Context, key string, cost int64, limits ...backend.Limit) (backend.Result, error) {
	return b.store.Take(ctx, key, cost, limits...)
}

// TakeAll implements [backend.Backend]. It is one EVALSHA, in the time of [WithTimeout].
//
// A Cluster runs no script over several of its hash slots: there it is one for each slot, in their
// order, and what was charged is given back if a later one refuses or fails. So nothing is ever
// admitted beyond a limit, but others may be refused meanwhile, and what cannot be given back stays
// charged.
//
// A refusal that is remembered refuses all without asking Redis. Each charge that is known to be
// refused has its own Result, so that the longest wait is true as far as it is known. The others
// are then Allowed with nothing Remaining and [backend.SourceDenyCache]: that says nothing of their
// keys.
func (b *Backend) TakeAll(ctx context.Context, charges ...backend.Charge) ([]backend.Result, error) {
	return b.store.TakeAll(ctx, charges...)
}

// Renew implements [backend.Renewer]. It is one EVALSHA, or none if nothing is held.
func (b *Backend) Renew(ctx context.Context, key string, taken backend.Result, cost int64, limits ...backend.Limit) (backend.Result, error) {
	return b.store.Renew(ctx, key, taken, cost, limits...)
}

// Ban implements [backend.Banner]. It is one EVALSHA.
func (b *Backend) Ban(ctx context.Context, key string, d time.Duration) error {
	return b.store.Ban(ctx, key, d)
}

// Settle implements [backend.Backend]. It is one EVALSHA, or none if the cost was right.
func (b *Backend) Settle(ctx context.Context, key string, taken backend.Result, cost, actual int64, limits ...backend.Limit) error {
	return b.store.Settle(ctx, key, taken, cost, actual, limits...)
}

// Usage implements [backend.Backend]. It is one EVALSHA.
func (b *Backend) Usage(ctx context.Context, key string, limits ...backend.Limit) ([]backend.Result, error) {
	return b.store.Usage(ctx, key, limits...)
}

// Reset implements [backend.Backend]. It deletes one key.
func (b *Backend) Reset(ctx context.Context, key string) error { return b.store.Reset(ctx, key) }

// Prepare tells b that decisions about these limits will be common, as they are for a limiter's own
// limits. They get a script of their own, which saves Redis some of its work. It may be called at
// any time, sends nothing, and changes no answer; after 16 different lists of limits it does
// nothing, because Redis forgets no script. ginlimit.NewLimiter calls it. An application that
// decides by a few tiers may call it once for the limits of each.
func (b *Backend) Prepare(limits ...backend.Limit) { b.store.Prepare(limits...) }

// Seconded tells b that a second backend decides where b cannot, which is then what its log says.
// backend.Fallback calls it. It changes no answer, and may be called at any time.
func (b *Backend) Seconded() { b.store.Seconded() }

// Breakers tells of each server, by its address, whether its circuit breaker is open: calls for it
// fail at once. In a Cluster every master has one; otherwise there is one for all.
func (b *Backend) Breakers() map[string]bool { return b.store.Breakers() }
