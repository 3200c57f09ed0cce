// Package goredis is package redis for applications that have a client of go-redis already: the
// same decisions, by the same scripts, under the same keys. Both can share one Redis, and one
// limit.
//
// Take package redis if nothing binds you to go-redis. Its connections carry the calls of all
// goroutines together, so that a server decides more, and a caller that is over the limit costs it
// nothing, also on a Cluster.
package goredis

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/internal/redisstore"
)

// Backend is a [backend.Backend] on Redis. Every error of its methods that comes from Redis has
// [backend.ErrUnavailable] in its chain, and no error holds a password or a key. It retries nothing
// that could be charged twice, whatever the client's MaxRetries. The contexts of its methods are
// not asked: each call is made in the time of [WithTimeout], whatever the client's time-outs.
type Backend struct{ store *redisstore.Backend }

var _ interface {
	backend.Backend
	backend.Renewer
	backend.Banner
} = (*Backend)(nil)

// New returns a Backend that uses client and never closes it: of one server, of the master that
// Sentinels name (redis.NewFailoverClient), or of a Cluster. It panics if an option is not valid,
// or if client is none of these. A [redis.Ring] is refused, because it counts a key anew elsewhere
// as soon as a server is down, which lifts every limit.
//
// It asks the server for its settings, for at most the time of [WithTimeout], to say in the log if
// they do not suit a limiter. Make one Backend for each client, and take its Tiers from it: the
// number of calls under way is bounded for each Backend.
//
// Refusals are remembered in the process, as [WithDenyCache] says, if client is of one server and
// has client-side caching: ClientSideCacheConfig is set, Protocol is not 2, and DB is 0.
//
// A user needs these rights, with the prefix of [WithPrefix] in place of gl. INFO is for a warning
// if the server drops keys when its memory is full, and CLIENT TRACKING for client-side caching.
//
//	ACL SETUSER limits on >password ~gl1:* +evalsha +eval +get +set +del +time +ping +info
//	    +client|tracking
//
// In a Cluster add +cluster|slots +command +asking, on every node.
func New(client redis.UniversalClient, opts ...Option) *Backend {
	c, a, err := newConfig("goredis.New", client, opts)
	if err != nil {
		panic(err)
	}
	b := redisstore.New(c.Config)
	b.Use(a)
	return &Backend{b}
}

// newConfig returns what a caller, which is a function of this package, is to be set up with.
func newConfig(caller string, client redis.UniversalClient, opts []Option) (*config, *adapter, error) {
	c := &config{Config: redisstore.Defaults(library)}
	for _, opt := range opts {
		if opt == nil {
			return nil, nil, errors.New("ginlimit: goredis: an option is nil; leave it out")
		}
		if err := opt(c); err != nil {
			return nil, nil, err
		}
	}
	a, err := newAdapter(client, c.autoPipeline)
	if err != nil {
		return nil, nil, fmt.Errorf("ginlimit: %s: %w", caller, err)
	}
	return c, a, nil
}

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
