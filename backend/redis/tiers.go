package redis

import (
	"context"
	"fmt"

	"github.com/redis/rueidis"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/internal/redisstore"
)

// Tiers are tier records that live in Redis: which limits a customer has. They are read through
// client-side caching, so that a Lookup costs no round trip once the id was seen, and a tier that
// was changed anywhere is seen by every instance within milliseconds. Without client-side caching
// every Lookup asks Redis.
//
// A record is a JSON text without an end to its life, which an operator can read and set too:
//
//	SET gl1:tier:{customer-42} '{"name":"pro","limits":["100/m burst 20","200000/month calendar"]}'
//
// A limit is what [backend.ParseLimit] reads. All methods may be called concurrently.
type Tiers struct{ store *redisstore.Tiers }

// NewTiers returns the Tiers that client reads and writes. Use a client with client-side caching;
// if a Backend has it already, use [Backend.Tiers], which share the bound of what is under way with
// it. It panics if an option is not valid; those that count are [WithPrefix] and [WithTimeout]. It
// asks a Cluster for its shards, for at most the time of WithTimeout: one that is down does not
// stop the look-ups of the others.
func NewTiers(client rueidis.Client, opts ...Option) *Tiers {
	c, err := newConfig(opts)
	if err == nil {
		err = c.checkClient("redis.NewTiers", client)
	}
	if err == nil && c.notTiers != "" {
		err = fmt.Errorf("ginlimit: redis.NewTiers: %s is for redis.New and redis.Dial; leave it out", c.notTiers)
	}
	if err != nil {
		panic(err)
	}
	return &Tiers{redisstore.NewTiers(c.Config, adapter{client})}
}

// Tiers returns the tier records in b's Redis, through b's connections and with its prefix and
// timeout.
func (b *Backend) Tiers() *Tiers { return &Tiers{b.store.Tiers()} }

// Lookup returns the tier of id, the zero Tier if there is none. An error means that Redis could
// not be asked, or that the record is not valid; then it has [backend.ErrUnavailable] in its chain.
// The limits of the Tier are shared: do not change them.
//
// A deadline or a cancellation of the caller's does not count, here and in the other methods: each
// is made in the time of [WithTimeout].
func (t *Tiers) Lookup(ctx context.Context, id string) (backend.Tier, error) {
	return t.store.Lookup(ctx, id)
}

// Set makes tier that of id, on every instance. It returns an error if a limit or a name is not
// valid, if two limits have one name, or if Redis failed: then the record may have been set
// nonetheless.
func (t *Tiers) Set(ctx context.Context, id string, tier backend.Tier) error {
	return t.store.Set(ctx, id, tier)
}

// Delete forgets the tier of id. It is not an error if there was none.
func (t *Tiers) Delete(ctx context.Context, id string) error { return t.store.Delete(ctx, id) }
