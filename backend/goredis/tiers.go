package goredis

import (
	"context"
	"errors"

	"github.com/redis/go-redis/v9"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/internal/redisstore"
)

// Tiers are tier records that live in Redis: which limits a customer has. They are the records of
// redis.Tiers, which either package reads and writes:
//
//	SET gl1:tier:{customer-42} '{"name":"pro","limits":["100/m burst 20","200000/month calendar"]}'
//
// A limit is what [backend.ParseLimit] reads.
//
// A client with client-side caching, which [New] describes, spares a Lookup the round trip once the
// id was seen, and sees within milliseconds that a tier was changed anywhere. Without it every
// Lookup asks Redis. All methods may be called concurrently.
type Tiers struct{ store *redisstore.Tiers }

// NewTiers returns the Tiers that client reads and writes. If a Backend has the client already, use
// [Backend.Tiers], which share the bound of what is under way with it. It panics if an option is
// not valid, or if [New] refuses the client; the options that count are [WithPrefix] and
// [WithTimeout]. It asks a Cluster for its shards, for at most the time of WithTimeout: one that is
// down does not stop the look-ups of the others.
func NewTiers(client redis.UniversalClient, opts ...Option) *Tiers {
	c, a, err := newConfig("goredis.NewTiers", client, opts)
	if err == nil && c.notTiers != "" {
		err = errors.New("ginlimit: goredis.NewTiers: " + c.notTiers + " is for goredis.New; leave it out")
	}
	if err != nil {
		panic(err)
	}
	return &Tiers{redisstore.NewTiers(c.Config, a)}
}

// Tiers returns the tier records in b's Redis, through b's client and with its prefix and timeout.
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
