package redisstore

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/ginlimit/ginlimit/backend"
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
type Tiers struct {
	Config
	link   *link
	seed   maphash.Seed
	recent [256]atomic.Pointer[record] // by their text: customers share few different tiers
	cached [256]atomic.Uint64          // hashes of ids whose records the client's cache should have
}

// record is a tier and what it was read from.
type record struct {
	text string
	tier backend.Tier
}

// tierTTL bounds how long a tier is kept in the process without Redis being asked. Changes are
// pushed earlier.
const tierTTL = time.Minute

// NewTiers returns the Tiers that client reads and writes. It asks a Cluster for its shards, for at
// most the time of Config.Timeout: one that is down does not stop the look-ups of the others.
func NewTiers(c Config, client Client) *Tiers {
	t := &Tiers{Config: c, link: newLink(c)}
	t.link.set(client)
	ctx, cancel := context.WithTimeout(context.Background(), t.Timeout)
	defer cancel()
	t.link.findShards(ctx, client)
	return t.init()
}

// Tiers returns the tier records in b's Redis, through b's connections and with its prefix and
// timeout.
func (b *Backend) Tiers() *Tiers {
	return (&Tiers{Config: b.Config, link: b.link}).init()
}

func (t *Tiers) init() *Tiers {
	t.seed = maphash.MakeSeed()
	return t
}

// Lookup returns the tier of id, the zero Tier if there is none. An error means that Redis could
// not be asked, or that the record is not valid; then it has [backend.ErrUnavailable] in its chain.
// The limits of the Tier are shared: do not change them.
//
// A deadline or a cancellation of the caller's does not count, here and in the other methods: each
// is made in the time of Config.Timeout.
func (t *Tiers) Lookup(_ context.Context, id string) (backend.Tier, error) {
	trip, err := t.link.to(opTierLookup, t.key(tierKind, id))
	if err != nil {
		return backend.Tier{}, err
	}
	t.link.findShardsLater(trip.client)
	hash := maphash.String(t.seed, id) | 1 // never 0
	cached := &t.cached[hash>>1%uint64(len(t.cached))]
	known := cached.Load() == hash
	r, err := trip.read(tierTTL, known)
	if !known && r.left > 0 {
		cached.Store(hash)
	} else if known && !r.Hit && r.left == 0 {
		cached.Store(0)
	}
	if err != nil {
		return backend.Tier{}, err
	}
	var tier backend.Tier
	if r.Exists {
		if tier, err = t.parse(r.Text); err != nil {
			err = t.unavailable(opTierLookup, err)
			trip.refusals().failed(err)
			return backend.Tier{}, err
		}
	}
	trip.worked()
	return tier, nil
}

// parse returns the tier that a record says.
func (t *Tiers) parse(text string) (backend.Tier, error) {
	place := &t.recent[maphash.String(t.seed, text)%uint64(len(t.recent))]
	if r := place.Load(); r != nil && r.text == text {
		return r.tier, nil
	}
	tier, err := parseTier(text)
	if err == nil {
		place.Store(&record{text, tier})
	}
	return tier, err
}

// Set makes tier that of id, on every instance. It returns an error if a limit or a name is not
// valid, if two limits have one name, or if Redis failed: then the record may have been set
// nonetheless.
func (t *Tiers) Set(_ context.Context, id string, tier backend.Tier) error {
	text, err := t.formatTier(tier)
	if err != nil {
		return err
	}
	trip, err := t.link.to(opTierSet, t.key(tierKind, id))
	if err != nil {
		return err
	}
	return trip.through(func() (bool, error) { return false, trip.client.Set(trip.ctx, trip.key, text, 0) })
}

// Delete forgets the tier of id. It is not an error if there was none.
func (t *Tiers) Delete(_ context.Context, id string) error {
	trip, err := t.link.to(opTierDelete, t.key(tierKind, id))
	if err != nil {
		return err
	}
	return trip.through(func() (bool, error) { return false, trip.client.Del(trip.ctx, trip.key) })
}

const tierKind = "tier:"

// tierRecord is a tier as JSON. A limit is a text, which says all of it: see [backend.ParseLimit].
type tierRecord struct {
	Name   string          `json:"name,omitempty"`
	Limits []backend.Limit `json:"limits"`
}

func (c *Config) formatTier(tier backend.Tier) (string, error) {
	if !utf8.ValidString(tier.Name) {
		return "", fmt.Errorf("ginlimit: %s: tier set: the tier's name is %q; use UTF-8, because a record is JSON", c.Package, tier.Name)
	}
	r := tierRecord{Name: tier.Name, Limits: []backend.Limit{}}
	for i, l := range tier.Limits {
		if err := l.Validate(); err != nil {
			return "", err
		}
		if _, _, bans := l.Bans(); bans {
			return "", fmt.Errorf("ginlimit: %s: tier set: limit %d is that of a ban; give the limiter WithBan, which holds for all tiers", c.Package, i+1)
		}
		if strings.ContainsFunc(l.Name, func(r rune) bool { return r < ' ' || r > '~' }) {
			return "", fmt.Errorf("ginlimit: %s: tier set: a limit's name is %q; use printable ASCII, because it goes into header fields", c.Package, l.Name)
		}
		if l.Name != "" && slices.ContainsFunc(tier.Limits[:i], func(o backend.Limit) bool { return o.Name == l.Name }) {
			return "", fmt.Errorf("ginlimit: %s: tier set: two limits are named %q; give each a name of its own", c.Package, l.Name)
		}
		r.Limits = append(r.Limits, l)
	}
	text, err := json.Marshal(r)
	return string(text), err
}

func parseTier(text string) (backend.Tier, error) {
	var r tierRecord
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return backend.Tier{}, fmt.Errorf("the record is not a tier: %s", strings.TrimPrefix(err.Error(), "ginlimit: "))
	}
	if len(r.Limits) == 0 {
		r.Limits = nil
	}
	return backend.Tier(r), nil
}
