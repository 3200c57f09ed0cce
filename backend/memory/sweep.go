package memory

import (
	"math"

	"github.com/ginlimit/ginlimit/backend/algorithm"
)

// Keys that have recovered are found by those that come: each new key looks at the next few entries
// of its shard, more when there is no room. A shard that has seen all of its entries knows when the
// first of them recovers, and rests until then.

const (
	sweepAlways = 2   // entries looked at for each new key
	sweepAtCap  = 512 // entries looked at for a new key that has no room
	sweepOthers = 128 // entries looked at then in each of a few other shards
	shardsAtCap = 4   // those shards
)

// insert makes an entry for a new key, and returns its index. The entry is empty: keep has to
// follow. It returns false if there is no room and every key that was looked at is live.
func (b *Backend) insert(sh *shard, h hash, now int64) (int, bool) {
	b.sweep(sh, now, sweepAlways)
	at, _ := sh.table.find(h) // entries may have moved, also into a smaller table
	if !b.reserve() {
		if !b.makeRoom(sh, now) || !b.reserve() {
			return 0, false
		}
		at, _ = sh.table.find(h)
	}
	for more := 0; !sh.table.insert(at, h); more += 16 {
		b.resize(sh, now, more)
		at, _ = sh.table.find(h)
	}
	return at, true
}

// reserve counts one more key, unless there are as many as there may be.
func (b *Backend) reserve() bool {
	for {
		n := b.keys.Load()
		if n >= b.maxKeys {
			return false
		}
		if b.keys.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// makeRoom removes recovered keys, from sh if it can, otherwise from another shard. It reports
// whether it did.
func (b *Backend) makeRoom(sh *shard, now int64) bool {
	if b.sweep(sh, now, sweepAtCap) {
		return true
	}
	for i := range uint64(min(shardsAtCap, len(b.shards))) {
		if b.sweepOther(b.shards[(uint64(now)+i)%uint64(len(b.shards))].Load(), sh, now) {
			return true
		}
	}
	return false
}

// sweepOther sweeps a shard that is not sh, if it is there and nobody has it: to wait for it could
// be a deadlock.
func (b *Backend) sweepOther(other, sh *shard, now int64) (removed bool) {
	if other == nil || other == sh || !other.mu.TryLock() {
		return false
	}
	defer other.mu.Unlock()
	return b.sweep(other, now, sweepOthers)
}

// sweep looks at the next few entries and removes those that have recovered. It reports whether
// there was one. Once it has seen that all entries are live it does nothing until the first of them
// recovers.
func (b *Backend) sweep(sh *shard, now int64, few int) (removed bool) {
	if now < sh.nextExpiry {
		return false
	}
	for range min(few, len(sh.table.entries)) {
		if sh.hand >= len(sh.table.entries)-1 {
			sh.nextExpiry = sh.minExpiry
			sh.hand, sh.minExpiry = 0, math.MaxInt64
			if sh.table.n < int(sh.table.room)/4 && sh.table.room > 64 {
				b.resize(sh, now, 0)
			}
		}
		e := &sh.table.entries[sh.hand]
		if e.rule == 0 {
			sh.hand++
		} else if expiry := b.expiry(sh, e); expiry > now {
			sh.minExpiry = min(sh.minExpiry, expiry)
			sh.hand++
		} else {
			b.remove(sh, sh.hand) // another entry may have taken its place: look again
			removed = true
		}
	}
	return removed
}

// noteExpiry tells sweep of an entry that is new, or that may recover sooner than those it knows
// of.
func (b *Backend) noteExpiry(sh *shard, e *entry) {
	expiry := b.expiry(sh, e)
	sh.minExpiry, sh.nextExpiry = min(sh.minExpiry, expiry), min(sh.nextExpiry, expiry)
}

// restartSweep makes sweep forget what it knew of the entries, because some moved.
func (sh *shard) restartSweep() { sh.hand, sh.minExpiry, sh.nextExpiry = 0, math.MaxInt64, 0 }

// expiry returns the instant from which forgetting e changes no decision.
func (b *Backend) expiry(sh *shard, e *entry) int64 {
	if e.rule == inSlots {
		return expiryOf(sh.slots[e.a])
	}
	r := b.rule(e.rule)
	return r.Expiry(e.state())
}

// remove forgets the entry at an index.
func (b *Backend) remove(sh *shard, at int) {
	if e := &sh.table.entries[at]; e.rule == inSlots {
		sh.release(e.a)
	}
	sh.table.remove(at)
	b.keys.Add(-1)
}

// resize forgets what has recovered and gives the rest a table with room for it, and for so many
// more.
func (b *Backend) resize(sh *shard, now int64, more int) {
	for i := len(sh.table.entries) - 1; i >= 0; i-- {
		if e := &sh.table.entries[i]; e.rule != 0 && b.expiry(sh, e) <= now {
			b.remove(sh, i)
		}
	}
	room := max(16, int(float64(sh.table.n+1)/fullest*growth)) + more
	if sh.table.n < 64 { // while it costs little: later sizes follow from this one
		room = int(float64(room) * sh.stagger)
	}
	sh.table = sh.table.rebuild(room)
	if len(sh.free) > len(sh.slots)/2 {
		sh.compact()
	}
	sh.restartSweep()
}

// compact gives back the memory of slots that are not used.
func (sh *shard) compact() {
	used := make([][]algorithm.Slot, 0, len(sh.slots)-len(sh.free))
	for i := range sh.table.entries {
		if e := &sh.table.entries[i]; e.rule == inSlots {
			used = append(used, sh.slots[e.a])
			e.a = uint32(len(used) - 1)
		}
	}
	sh.slots, sh.free = used, nil
}
