// Package memory is the backend that keeps its state in the process: exact, without a goroutine, bounded.
package memory

import (
	"context"
	"hash/maphash"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/algorithm"
)

// DefaultMaxKeys is how many keys a Backend holds unless [WithMaxKeys] says otherwise.
const DefaultMaxKeys = 1_000_000

// Option changes a default of [New].
type Option func(*Backend)

// WithMaxKeys sets how many keys are held at most; the default is [DefaultMaxKeys], less than 1 counts as 1.
// One TokenBucket, SlidingWindow or FixedWindow costs about 44 bytes a key; a key with several limits or a
// SlidingLog costs more: about 100 bytes a limit, and 16 to 26 bytes for each charge in a log.
//
// Keys that have fully recovered go first. When all are live, new keys do not push one out: they share
// overflow buckets, so that a flood of made-up keys frees nobody who is over the limit. A key that shares a
// bucket can be refused for what others in it took, and its refunds are lost. Once there is room again it
// starts with what its bucket had used. Keys under different limits share none, unless there are more than 32 lists of
// limits at the cap.
func WithMaxKeys(n int) Option {
	return func(b *Backend) { b.maxKeys = max(int64(n), 1) }
}

// Backend is a [backend.Backend] in memory. It decides in well under a microsecond and never fails, so that it
// does not look at contexts. Its clock is the process's monotonic one: setting the wall clock changes no limit.
// Create one with [New]; it starts no goroutine and needs no Close.
type Backend struct {
	seeds   [2]maphash.Seed // random: nobody outside can aim keys at one shard, place or bucket
	start   time.Time
	epoch   int64 // start, in µs since 1970
	maxKeys int64
	keys    atomic.Int64 // entries in all shards; at most maxKeys
	shards  []shard

	last   atomic.Pointer[hashed]    // a hot key
	recent [16]atomic.Pointer[known] // by the limit's numbers: saves the look-up in ids
	rules  atomic.Pointer[[]*algorithm.Rule]
	mu     sync.Mutex // guards ids, and appending to rules
	ids    map[backend.Limit]*known
}

var _ backend.Backend = (*Backend)(nil)

// known is a limit that came by before.
type known struct {
	rule *algorithm.Rule
	id   uint16 // index of Backend.rules; 0 if its state never fits into an entry
}

// hashed is a key with its hash and its shard, which take longer than to see that a hot key has come again.
type hashed struct {
	key   string
	hash  hash
	shard *shard
}

// shard is a part of the keys with a lock of its own.
type shard struct {
	mu       sync.Mutex
	takes    uint32
	latest   int64 // when somebody last took something
	table    table
	hand     int                              // where sweeping goes on
	soonest  int64                            // when the first of the entries recovers that hand passed since it was at 0
	quiet    int64                            // when the first of all entries recovers, or earlier
	slots    [][]algorithm.Slot               // states that do not fit into an entry
	free     []uint32                         // unused indices of slots
	overflow map[overflowKey][]algorithm.Slot // shared by keys for which there was no room
	settled  int64                            // when the first bucket recovers, or earlier
	sample   hash                             // of the key that was sampled last
	stagger  float64                          // 1 to growth, so that not all shards grow at once
	_        [64]byte                         // no two locks in one cache line
}

// clock returns now, which a caller may have read before it had the lock, or the later instant of one that came first.
func (sh *shard) clock(now int64) int64 {
	sh.latest = max(sh.latest, now)
	return sh.latest
}

// overflowKey names a bucket. Keys under different limits never share one: a flood of keys under a small
// limit could otherwise clamp what keys under a large one have used.
type overflowKey struct {
	bucket uint16
	limits uint64 // hash of their numbers
}

const (
	maxShards       = 128
	keysPerShard    = 1024 // at least, so that a small cap is not split into uneven parts
	rememberEvery   = 64   // takes of a shard after which its key is sampled
	overflowBuckets = 16   // in a shard, for each set of limits
	maxOverflow     = 512  // in a shard, after which all sets of limits share
	overflowCharges = 8    // in a bucket's log
	sweepAlways     = 2    // entries looked at for each new key
	sweepAtCap      = 512  // entries looked at for a new key that has no room
	sweepOthers     = 128  // entries looked at then in each of a few other shards
	shardsAtCap     = 4    // those shards
)

// New returns an empty Backend.
func New(opts ...Option) *Backend {
	b := &Backend{
		seeds:   [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()},
		start:   time.Now(),
		maxKeys: DefaultMaxKeys,
		ids:     make(map[backend.Limit]*known),
	}
	for _, opt := range opts {
		opt(b)
	}
	b.epoch = b.start.UnixMicro()
	b.rules.Store(&[]*algorithm.Rule{nil})
	n := 1
	for n < maxShards && int64(n)*2*keysPerShard <= b.maxKeys {
		n *= 2
	}
	b.shards = make([]shard, n)
	for i := range b.shards {
		b.shards[i].stagger = math.Pow(growth, float64(i)/float64(n))
	}
	return b
}

// Len returns the number of keys held, of which some may have recovered. It does not count overflow buckets.
func (b *Backend) Len() int { return int(b.keys.Load()) }

// Take implements [backend.Backend]. It fails only if the cost is negative or a limit is missing or not valid.
func (b *Backend) Take(_ context.Context, key string, cost int64, limits ...backend.Limit) (res backend.Result, err error) {
	if cost < 0 || len(limits) == 0 {
		return res, algorithm.CheckTake(cost, limits)
	}
	// To read the clock takes as long as all else that is done under the lock. For that of a hot key many may wait, and its
	// entry is in the cache; the entry of another key is fetched meanwhile, and while the second half of its hash is made.
	var h hash
	var sh *shard
	var now int64
	last := b.last.Load()
	hot := last != nil && last.key == key
	if hot {
		h, sh, now = last.hash, last.shard, b.now()
	} else {
		h.tag = maphash.String(b.seeds[0], key)
		sh = b.shard(h)
	}
	sh.mu.Lock()
	if !hot {
		sh.table.look(h)
		h.rest = maphash.String(b.seeds[1], key)
		now = b.now()
	}
	now = sh.clock(now)
	if sh.takes++; sh.takes%rememberEvery == 0 {
		b.remember(sh, key, h)
	}
	at, found := sh.table.find(h)
	if found && len(limits) == 1 {
		// The most common case, without copies: one limit, under which the key's entry was written.
		e, l := &sh.table.entries[at], &limits[0]
		if rule := b.rule(e.rule); rule != nil && rule.Decides(l) {
			ok := false
			if cost == 1 && rule.Algorithm() == backend.TokenBucket {
				var frac int64
				e.time, frac, ok = rule.TakeUnit(e.time, int64(e.a), now, &res)
				e.a = uint32(frac) // it is below the limit's count, and that fits
			}
			if !ok {
				b.takeCounters(e, rule, now, cost, &res)
			}
			// Field by field: a copy of the whole goes through memory twice. Before the lock is given back, which makes sure
			// that the caller's copy finds all of it written.
			res.Limit.Name, res.Limit.Count, res.Limit.Period = l.Name, l.Count, l.Period
			res.Limit.Burst, res.Limit.Algorithm = l.Burst, l.Algorithm
			sh.mu.Unlock()
			return res, nil
		}
	}
	err = b.takeAll(&res, sh, h, at, found, now, cost, limits)
	sh.mu.Unlock()
	return res, err
}

// takeCounters decides for an entry that was written under rule.
func (b *Backend) takeCounters(e *entry, rule *algorithm.Rule, now, cost int64, res *backend.Result) {
	var c algorithm.Counters
	e.get(&c, rule)
	if rule.TakeCounters(&c, rule, now, cost, res) {
		e.put(&c, e.rule) // it fits: no count is above the limit's
	}
}

// quick reports whether slots were written under limits, and suit TakeQuick.
func quick(slots []algorithm.Slot, limits []backend.Limit) bool {
	if len(slots) != len(limits) || len(slots) > algorithm.MaxQuick {
		return false
	}
	for i := range slots {
		r := slots[i].Rule
		if r == nil || !r.Decides(&limits[i]) || r.Algorithm() == backend.SlidingLog {
			return false
		}
	}
	return true
}

// takeAll is Take for any key and any limits. The shard is locked.
func (b *Backend) takeAll(res *backend.Result, sh *shard, h hash, at int, found bool, now, cost int64, limits []backend.Limit) error {
	if found {
		if e := &sh.table.entries[at]; e.rule == inSlots && quick(sh.slots[e.a], limits) {
			decided := algorithm.TakeQuick(sh.slots[e.a], now, cost, res)
			res.Limit = limits[decided]
			return nil
		}
	}
	var few [4]*algorithm.Rule
	rules := few[:0]
	for i := range limits {
		k, err := b.known(&limits[i])
		if err != nil {
			return err
		}
		rules = append(rules, k.rule)
	}
	var decided int
	*res, decided = b.takeSlots(sh, h, at, found, now, cost, rules)
	res.Limit = limits[decided]
	return nil
}

// takeSlots decides for a key that is new, or has several limits or a log. The shard is locked.
func (b *Backend) takeSlots(sh *shard, h hash, at int, found bool, now, cost int64, rules []*algorithm.Rule) (backend.Result, int) {
	var few [4]algorithm.Slot
	slots := few[:0]
	var shared overflowKey
	if found {
		slots = b.slotsOf(sh, &sh.table.entries[at], slots)
	} else if sh.overflow != nil {
		shared = sh.overflowKey(h, rules, now)
		for _, s := range sh.overflow[shared] {
			s.State.Log = slices.Clone(s.State.Log)
			slots = append(slots, s)
		}
	}
	for len(slots) < len(rules) {
		slots = append(slots, algorithm.Slot{})
	}
	res, decided, write := algorithm.Take(slots, rules, now, cost)
	if !write {
		return res, decided
	}
	if !found {
		if at, found = b.insert(sh, h, now); !found {
			if sh.overflow == nil {
				sh.overflow = make(map[overflowKey][]algorithm.Slot)
				shared = sh.overflowKey(h, rules, now)
			}
			for i := range slots {
				slots[i].State.Log = fold(slots[i].State.Log)
			}
			sh.overflow[shared] = slices.Clone(slots)
			sh.settled = min(sh.settled, expiryOf(slots))
			return res, decided
		}
	}
	e := &sh.table.entries[at]
	b.keep(sh, e, slots)
	b.due(sh, e)
	return res, decided
}

// fold merges charges of a bucket's log until there are few, because each key that comes from the bucket inherits them. A
// charge moves to the instant of the next: nothing is forgotten too soon.
func fold(log []algorithm.Charge) []algorithm.Charge {
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
	return log
}

// Refund implements [backend.Backend]. It fails only if the cost is negative or there is no limit.
func (b *Backend) Refund(_ context.Context, key string, charge backend.Result, cost int64, limits ...backend.Limit) error {
	if err := algorithm.CheckTake(cost, limits); err != nil {
		return err
	}
	if !charge.Allowed {
		return nil
	}
	h := b.hash(key)
	sh := b.shard(h)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	at, found := sh.table.find(h)
	if !found {
		return nil
	}
	now := b.now()
	e := &sh.table.entries[at]
	var few [4]algorithm.Slot
	slots := b.slotsOf(sh, e, few[:0])
	if algorithm.Refund(slots, limits, now, charge.At.UnixMicro(), cost) {
		b.keep(sh, e, slots)
		b.due(sh, e)
	}
	return nil
}

// Reset implements [backend.Backend]. It never fails. A key that shares an overflow bucket takes the bucket's
// other keys along.
func (b *Backend) Reset(_ context.Context, key string) error {
	h := b.hash(key)
	sh := b.shard(h)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if at, found := sh.table.find(h); found {
		b.remove(sh, at)
		sh.stir()
	}
	for k := range sh.overflow {
		if k.bucket == h.bucket() {
			delete(sh.overflow, k)
		}
	}
	return nil
}

// now returns the µs since 1970 of a clock that never goes back.
func (b *Backend) now() int64 { return b.epoch + time.Since(b.start).Microseconds() }

func (b *Backend) hash(key string) hash {
	return hash{maphash.String(b.seeds[0], key), maphash.String(b.seeds[1], key)}
}

// remember makes key the one whose hash is known, if it is sampled twice in a row. If one key is much hotter than all
// others it soon is it.
func (b *Backend) remember(sh *shard, key string, h hash) {
	if sh.sample != h {
		sh.sample = h
		return
	}
	if last := b.last.Load(); len(key) <= 64 && (last == nil || last.key != key) {
		b.last.Store(&hashed{key, h, sh})
	}
}

func (b *Backend) shard(h hash) *shard { return &b.shards[h.tag&uint64(len(b.shards)-1)] }

// rule returns the rule of an entry, nil if its state is in slots.
func (b *Backend) rule(id uint16) *algorithm.Rule {
	if rules := *b.rules.Load(); int(id) < len(rules) {
		return rules[id]
	}
	return nil
}

// known returns what is known of l, which may be that it is not valid.
func (b *Backend) known(l *backend.Limit) (*known, error) {
	numbers := uint64(l.Count)*0x9e3779b97f4a7c15 ^ uint64(l.Period)*0xbf58476d1ce4e5b9 ^ uint64(l.Burst)<<32 ^ uint64(l.Algorithm)
	recent := &b.recent[numbers*0x94d049bb133111eb>>60]
	if k := recent.Load(); k != nil && k.rule.Decides(l) {
		return k, nil
	}
	k, err := b.learn(*l)
	if err == nil {
		recent.Store(k)
	}
	return k, err
}

func (b *Backend) learn(l backend.Limit) (*known, error) {
	l.Name = ""
	b.mu.Lock()
	defer b.mu.Unlock()
	if k := b.ids[l]; k != nil {
		return k, nil
	}
	r, err := algorithm.NewRule(l)
	if err != nil {
		return nil, err
	}
	k := &known{rule: r}
	rules := *b.rules.Load()
	if len(b.ids) == inSlots-1 {
		return k, nil // more limits than ids: their states go to the slots, and nothing more is remembered
	}
	if l.Algorithm != backend.SlidingLog && l.Count <= math.MaxUint32 {
		k.id = uint16(len(rules))
		rules = append(rules, r)
		b.rules.Store(&rules)
	}
	b.ids[l] = k
	return k, nil
}

// slotsOf appends e's slots to the empty buffer, or returns them where they are.
func (b *Backend) slotsOf(sh *shard, e *entry, buffer []algorithm.Slot) []algorithm.Slot {
	if e.rule == inSlots {
		return sh.slots[e.a]
	}
	s := algorithm.Slot{Rule: b.rule(e.rule)}
	e.get(&s.State.Counters, s.Rule)
	return append(buffer, s)
}

// keep writes slots to e: into it if they fit, else beside it.
func (b *Backend) keep(sh *shard, e *entry, slots []algorithm.Slot) {
	if e.rule != inSlots && len(slots) == 1 && slots[0].Rule != nil {
		limit := slots[0].Rule.Limit()
		if k, err := b.known(&limit); err == nil && e.put(&slots[0].State.Counters, k.id) {
			return
		}
	}
	sh.keep(e, slots)
}

// keep writes slots beside e. It makes a copy unless they are there already.
func (sh *shard) keep(e *entry, slots []algorithm.Slot) {
	if e.rule == inSlots {
		if own := sh.slots[e.a]; len(own) < len(slots) {
			sh.slots[e.a] = slices.Clone(slots)
		}
		return
	}
	if n := len(sh.free); n > 0 {
		e.a, sh.free = sh.free[n-1], sh.free[:n-1]
		sh.slots[e.a] = slices.Clone(slots)
	} else {
		e.a = uint32(len(sh.slots))
		sh.slots = append(sh.slots, slices.Clone(slots))
	}
	e.rule = inSlots
}

// insert makes an entry for a new key, and returns its index. The entry is empty:
// keep has to follow. It returns false if there is no room and every key that was looked at is live.
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

// makeRoom removes recovered keys, from sh if it can, else from another shard. It reports whether it did.
func (b *Backend) makeRoom(sh *shard, now int64) bool {
	if b.sweep(sh, now, sweepAtCap) {
		return true
	}
	for i := range min(shardsAtCap, len(b.shards)) {
		other := &b.shards[(int(now)+i)%len(b.shards)]
		if other == sh || !other.mu.TryLock() { // to wait here could be a deadlock
			continue
		}
		removed := b.sweep(other, now, sweepOthers)
		other.mu.Unlock()
		if removed {
			return true
		}
	}
	return false
}

// sweep looks at the next few entries and removes those that have recovered. It reports whether there was one.
// Once it has seen that all entries are live it does nothing until the first of them recovers.
func (b *Backend) sweep(sh *shard, now int64, few int) (removed bool) {
	if now < sh.quiet {
		return false
	}
	for range min(few, len(sh.table.entries)) {
		if sh.hand >= len(sh.table.entries)-1 {
			sh.quiet = sh.soonest
			sh.hand, sh.soonest = 0, math.MaxInt64
			if sh.table.n < int(sh.table.room)/4 && sh.table.room > 64 {
				b.resize(sh, now, 0)
			}
		}
		e := &sh.table.entries[sh.hand]
		if e.rule == 0 {
			sh.hand++
		} else if expiry := b.expiry(sh, e); expiry > now {
			sh.soonest = min(sh.soonest, expiry)
			sh.hand++
		} else {
			b.remove(sh, sh.hand) // another entry may have taken its place: look again
			removed = true
		}
	}
	return removed
}

// due tells sweep of an entry that is new, or that may recover sooner than those it knows of.
func (b *Backend) due(sh *shard, e *entry) {
	expiry := b.expiry(sh, e)
	sh.soonest, sh.quiet = min(sh.soonest, expiry), min(sh.quiet, expiry)
}

// stir makes sweep forget what it knew of the entries, because some moved.
func (sh *shard) stir() { sh.hand, sh.soonest, sh.quiet = 0, math.MaxInt64, 0 }

// expiry returns the instant from which forgetting e changes no decision.
func (b *Backend) expiry(sh *shard, e *entry) int64 {
	if e.rule == inSlots {
		return expiryOf(sh.slots[e.a])
	}
	r := b.rule(e.rule)
	var st algorithm.State
	e.get(&st.Counters, r)
	return r.Expiry(&st)
}

// remove forgets the entry at an index.
func (b *Backend) remove(sh *shard, at int) {
	if e := &sh.table.entries[at]; e.rule == inSlots {
		sh.slots[e.a] = nil
		sh.free = append(sh.free, e.a)
	}
	sh.table.remove(at)
	b.keys.Add(-1)
}

// resize forgets what has recovered and gives the rest a table with room for it, and for so many more.
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
	sh.stir()
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
			k.limits = 0
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
			last = max(last, s.Rule.Expiry(&s.State))
		}
	}
	return last
}
