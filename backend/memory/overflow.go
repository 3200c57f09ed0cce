package memory

import (
	"math"
	"slices"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/algorithm"
)

// Keys for which there is no room share buckets: a bucket is a key that many use. Each key that
// comes when there is room again starts with what its bucket has used.

const (
	overflowBuckets = 16  // in a shard, for each set of limits
	maxOverflow     = 512 // in a shard, after which all sets of equally many limits share
	overflowCharges = 8   // in a bucket's log
)

// overflowKey names a bucket. Keys under different limits never share one: what keys under a large
// limit have used would refuse those under a small one.
type overflowKey struct {
	bucket uint16
	limits uint64 // hash of their numbers
}

// takeShared decides for a key that has to share a bucket.
func (b *Backend) takeShared(sh *shard, h hash, now, cost int64, rules []*algorithm.Rule, res *backend.Result) (decided int) {
	c := change{what: takes, cost: cost, res: res}
	b.share(sh, h, now, rules, &c)
	return c.decided
}

// share does what c says to the slots of a key's bucket.
func (b *Backend) share(sh *shard, h hash, now int64, rules []*algorithm.Rule, c *change) {
	if sh.overflow == nil {
		sh.overflow = make(map[overflowKey][]algorithm.Slot)
	}
	shared := sh.overflowKey(h, rules, now)
	counted := make([]*algorithm.Rule, 0, len(rules))
	for _, r := range rules {
		if r.Refusals() == nil { // a bucket is not banned for what some of its keys do
			counted = append(counted, b.inBucket(r))
		}
	}
	if next := c.of(sh.inherit(nil, h, now, rules), counted, now); next != nil {
		for i := range next {
			fold(&next[i].State)
		}
		sh.overflow[shared] = next
		sh.settled = min(sh.settled, expiryOf(next))
	}
}

// inBucket returns the rule that a bucket counts by. A window would begin with the bucket's first
// key: another that spends everything just before its end could do so again just after it. A log
// has no end.
func (b *Backend) inBucket(r *algorithm.Rule) *algorithm.Rule {
	limit := r.Limit()
	if r.Stateless() || limit.Algorithm != backend.SlidingWindow && limit.Algorithm != backend.FixedWindow {
		return r
	}
	limit.Algorithm = backend.SlidingLog
	k, err := b.known(&limit)
	if err != nil {
		return r // not possible: a window's numbers are valid for a log
	}
	return k.rule
}

// inherit appends copies of the slots of a key's bucket, if there is one, to the empty buffer.
func (sh *shard) inherit(buffer []algorithm.Slot, h hash, now int64, rules []*algorithm.Rule) []algorithm.Slot {
	if sh.overflow == nil {
		return buffer
	}
	for _, s := range sh.overflow[sh.overflowKey(h, rules, now)] {
		if s.State.Log != nil {
			log := slices.Clone(*s.State.Log)
			s.State.Log = &log
		}
		buffer = append(buffer, s)
	}
	return buffer
}

// overflowKey returns the bucket of h under rules.
func (sh *shard) overflowKey(h hash, rules []*algorithm.Rule, now int64) overflowKey {
	k := overflowKey{bucket: h.bucket()}
	for _, r := range rules {
		l := r.Limit()
		for _, n := range [...]uint64{uint64(l.Count), uint64(l.Period), uint64(l.Burst), uint64(l.Algorithm)} {
			k.limits = (k.limits ^ n) * 0x9e3779b97f4a7c15
			k.limits ^= k.limits >> 29
		}
	}
	if _, ok := sh.overflow[k]; !ok && len(sh.overflow) >= maxOverflow {
		sh.dropRecovered(now)
		if len(sh.overflow) >= maxOverflow {
			k.limits = uint64(len(rules)) // one limit takes over what any other has used
		}
	}
	return k
}

// dropRecovered forgets buckets that carry no information any more.
func (sh *shard) dropRecovered(now int64) {
	if now < sh.settled {
		return
	}
	sh.settled = math.MaxInt64
	for k, slots := range sh.overflow {
		if expiry := expiryOf(slots); expiry <= now {
			delete(sh.overflow, k)
		} else {
			sh.settled = min(sh.settled, expiry)
		}
	}
}

// expiryOf returns the instant from which no slot carries information any more.
func expiryOf(slots []algorithm.Slot) int64 {
	last := int64(math.MinInt64)
	for i := range slots {
		if s := &slots[i]; s.Rule != nil {
			last = max(last, s.Rule.Expiry(s.State))
		}
	}
	return last
}

// fold merges charges of a bucket's log until there are few, because each key that comes from the
// bucket inherits them. A charge moves to the instant of the next: nothing is forgotten too soon.
func fold(st *algorithm.State) {
	if st.Log == nil {
		return
	}
	log := slices.Delete(*st.Log, 0, int(st.Rest)) // those that have left
	for len(log) > overflowCharges {
		nearest := 0
		for i := 1; i < len(log)-1; i++ {
			if log[i+1].At-log[i].At < log[nearest+1].At-log[nearest].At {
				nearest = i
			}
		}
		log[nearest+1].Units += log[nearest].Units
		log = slices.Delete(log, nearest, nearest+1)
	}
	*st.Log, st.Rest = log, 0
}
