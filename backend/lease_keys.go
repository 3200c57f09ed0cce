package backend

import (
	"math"
	"math/bits"
	"slices"
	"strings"
	"sync"
	"time"
	"unique"
)

// leaseShard is a part of the keys with a lock of its own, which is never held while b is asked.
type leaseShard struct {
	mu    sync.Mutex
	keys  map[string]*leased
	room  int
	cells []leaseCell
	_     [64]byte // no two locks in one cache line
}

// leaseCell counts the requests of a key that is not held. Of the keys that meet in a cell it is
// that of the one with more than half of the requests, so that a flood of keys hides a hot one only
// if it is as hot in that cell.
type leaseCell struct {
	tag, requests uint32
	since         time.Duration
}

// leased is a hot key.
type leased struct {
	limits    []Limit       // of its last request
	remaining int64         // what the store last said
	want      int64         // units to lease, if there are enough
	seen      time.Duration // the last request
	calm      time.Duration // no lease before then
	windowEnd time.Duration // no window among limits ends before then
	flight    *leaseFlight  // fetches a lease; nil if none does

	charge     Result        // the lease: what the store said when it was charged
	sent, ends time.Duration // just before that, and when the lease is over
	charged    int64         // units of that charge: the lease, and the cost of the request that did
	size       int64         // units charged for the lease; 0 once want has learned from it
	units      int64         // not spent yet
	count      uint64        // of leases: which one it is
}

// leftover is what has to be given back of a lease.
type leftover struct {
	charge Result
	size   int64         // units of the charge
	age    time.Duration // of the charge, at least
	units  int64
	limits []Limit
}

// of returns how many of the units limit i can still get. What a bucket has refilled since is not
// missing any more: to give that back would be to admit it twice. A bucket that decided has said
// when it would be full, and this charge is refilled last. Of another nothing is known but that
// this charge is missing. The other algorithms know the charge, and how old it is.
func (b *leftover) of(i int) int64 {
	l := &b.limits[i]
	decided := b.charge.Limit == *l && slices.Index(b.limits, *l) == i
	switch {
	case decided && b.age >= b.charge.ResetAfter, l.IsUnlimited() || l.Count == 0:
		return 0
	case l.Algorithm == CalendarWindow: // and the store knows whether that window is over
		return b.units
	case l.Algorithm != TokenBucket && b.age >= 2*l.Period:
		return 0
	case l.Algorithm != TokenBucket:
		return b.units
	}
	missing := b.charge.ResetAfter - b.age
	if !decided {
		// The charge fits the bucket, so that what refills it is below MaxRefill.
		hi, lo := bits.Mul64(uint64(b.size), uint64(l.Period))
		refill, rest := bits.Div64(hi, lo, uint64(l.Count))
		missing = time.Duration(refill) - b.age
		if rest > 0 {
			missing++
		}
	}
	// These are at most the bucket's capacity.
	hi, lo := bits.Mul64(uint64(max(0, missing)), uint64(l.Count))
	units, _ := bits.Div64(hi, lo, uint64(l.Period))
	return min(b.units, int64(units))
}

// find returns what is held of a key, nil if that is not hot, and what has to be given back now. If
// there is a lease it is under limits and not over. The shard is locked.
func (l *lease) find(sh *leaseShard, key string, h uint64, now time.Duration, cost int64, limits []Limit) (e *leased, back leftover) {
	if e = sh.keys[key]; e == nil {
		return l.admit(sh, key, h, now, cost, limits), back
	}
	switch {
	case !slices.Equal(e.limits, limits):
		// A key with two tiers at once would give each lease back: it has none as long as they
		// alternate.
		back = e.drain(now)
		*e = leased{limits: slices.Clone(limits), want: hotRequests, calm: now + l.time, count: e.count}
		if l.lifetime(limits) < time.Millisecond {
			e.calm = math.MaxInt64
		}
	case now < e.ends:
	case e.flight == nil && (!e.learn(now, l.n) || now-e.seen >= l.time):
		delete(sh.keys, key) // no longer hot
		return nil, e.drain(now)
	default:
		back = e.drain(now)
	}
	e.seen = now
	return e, back
}

// admit counts a request of a key that is not held. It returns an entry for it if it has become
// hot, can be leased and there is room. The shard is locked.
func (l *lease) admit(sh *leaseShard, key string, h uint64, now time.Duration, cost int64, limits []Limit) *leased {
	c, tag := &sh.cells[h%uint64(len(sh.cells))], uint32(h>>40)
	switch {
	case c.requests == 0 || now-c.since >= l.time:
		*c = leaseCell{tag, 1, now}
	case c.tag == tag:
		c.requests++
	default:
		c.requests--
	}
	if c.tag != tag || c.requests < l.hot || cost >= l.n || len(key) > maxLeasedKey || l.lifetime(limits) < time.Millisecond {
		return nil
	}
	remaining := int64(math.MaxInt64) // at best; the store will tell
	for i := range limits {
		remaining = min(remaining, limits[i].Capacity())
	}
	if remaining/leasedShare < cost || len(sh.keys) >= sh.room && !l.makeRoom(sh, now) {
		return nil
	}
	e := &leased{limits: slices.Clone(limits), remaining: remaining, want: hotRequests, seen: now}
	sh.keys[strings.Clone(key)] = e
	return e
}

// makeRoom drops a key that is no longer hot, of a few: a map's order is random enough.
func (l *lease) makeRoom(sh *leaseShard, now time.Duration) bool {
	looked := 0
	for key, e := range sh.keys {
		if now >= e.ends && now-e.seen >= l.time && e.flight == nil {
			delete(sh.keys, key)
			return true
		}
		if looked++; looked == 8 {
			break
		}
	}
	return false
}

// lifetime returns how long a lease under limits lasts.
func (l *lease) lifetime(limits []Limit) time.Duration {
	d := l.time
	for i := range limits {
		switch l := &limits[i]; {
		case l.Algorithm == Concurrency || l.ban != (unique.Handle[ban]{}):
			return 0
		case !l.IsUnlimited() && l.Algorithm != CalendarWindow:
			d = min(d, l.Period/leasedPeriod)
		}
	}
	return d
}

// spend takes cost, which must fit, off the lease.
func (e *leased) spend(now time.Duration, cost int64) Result {
	e.units -= cost
	e.seen = now
	res := e.charge
	res.Remaining = plus(res.Remaining, e.units)
	res.ResetAfter = max(0, res.ResetAfter-(now-e.sent))
	res.Source = SourceLease
	return res
}

// extra returns how many units to lease beside a cost.
func (e *leased) extra(n, cost int64) int64 {
	return min(max(e.want, cost), n-cost, e.remaining/leasedShare)
}

// note keeps what the store said. A fallback's units are not leased.
func (e *leased) note(res Result) {
	e.remaining = 0
	if res.Source == SourceStore || res.Source == SourceDenyCache {
		e.remaining = res.Remaining
	}
}

// learn sets how much to ask for by how the lease went, once, and reports whether it was any good.
func (e *leased) learn(now time.Duration, n int64) bool {
	size := e.size
	e.size = 0
	switch {
	case size == 0:
	case now >= e.ends && e.units > 0:
		e.want = size - e.units
		return e.want > 0
	case now-e.sent < (e.ends-e.sent)/2:
		e.want = 2 * min(size, n/2)
	}
	return true
}

// drain ends the lease and returns what is left of it.
func (e *leased) drain(now time.Duration) leftover {
	back := leftover{e.charge, e.charged, now - e.sent, e.units, e.limits}
	e.size, e.units, e.ends = 0, 0, 0
	return back
}

// plus returns a+b of non-negative integers, or the largest that there is.
func plus(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}
