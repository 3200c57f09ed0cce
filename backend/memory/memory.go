// Package memory is the backend that keeps its state in the process: exact, without a goroutine,
// bounded.
package memory

import (
	"context"
	"errors"
	"fmt"
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
type Option func(*config)

type config struct{ maxKeys int64 }

// WithMaxKeys sets how many keys are held at most; the default is [DefaultMaxKeys], less than 1
// panics in [New]. One TokenBucket, SlidingWindow or FixedWindow costs about 44 bytes a key. A key
// with several limits or a SlidingLog costs more: about 100 bytes a limit, and 16 to 26 bytes for
// each charge in a log.
//
// Keys that have fully recovered go first. When all are live, new keys do not push one out: they
// share overflow buckets, so that a flood of made-up keys frees no caller that is over its limit. A
// key that shares a bucket can be refused for what others in it took, and its refunds are lost. A
// window in a bucket is counted as a SlidingLog. The bucket's window would not be the key's, and
// its end would free a caller that has just spent everything. Once there is room again the key
// starts with what its bucket had used. Keys under different limits share no bucket, unless there
// are more than 32 lists of limits at the cap.
func WithMaxKeys(n int) Option {
	return func(c *config) { c.maxKeys = int64(n) }
}

// Backend is a [backend.Backend] in memory. It decides in well under a microsecond and never fails,
// so that it does not look at contexts. Its clock is the process's monotonic one: setting the wall
// clock changes no limit. Create one with [New]; it starts no goroutine and needs no Close.
type Backend struct {
	seeds   [2]maphash.Seed // random: nobody outside can aim keys at one shard, place or bucket
	start   time.Time
	epoch   int64 // start, in µs since 1970
	maxKeys int64
	keys    atomic.Int64            // entries in all shards; at most maxKeys
	shards  []atomic.Pointer[shard] // nil until a key comes; as many as a power of 2

	last   atomic.Pointer[hashed]    // a hot key
	recent [16]atomic.Pointer[known] // by the limit's numbers: saves the look-up in ids
	rules  atomic.Pointer[[]*algorithm.Rule]
	mu     sync.Mutex // guards ids, and appending to rules
	ids    map[backend.Limit]*known
}

var _ interface {
	backend.Backend
	backend.Renewer
	backend.Banner
} = (*Backend)(nil)

// known is a limit that came by before.
type known struct {
	rule *algorithm.Rule
	id   uint16 // index of Backend.rules; 0 if its state never fits into an entry
}

// hashed is a key with its hash and its shard, which take longer than to see that a hot key has
// come again.
type hashed struct {
	key   string
	hash  hash
	shard *shard
}

// shard is a part of the keys with a lock of its own.
type shard struct {
	mu         sync.Mutex
	takes      uint32
	latest     int64 // when somebody last took something
	table      table
	hand       int                              // where sweeping goes on
	minExpiry  int64                            // of the entries that hand passed since it was at 0
	nextExpiry int64                            // of all entries, or earlier
	slots      [][]algorithm.Slot               // states that do not fit into an entry
	free       []uint32                         // unused indices of slots
	overflow   map[overflowKey][]algorithm.Slot // shared by keys for which there was no room
	settled    int64                            // when the first bucket recovers, or earlier
	sample     hash                             // of the key that was sampled last
	stagger    float64                          // 1 to growth, so that not all shards grow at once
	_          [80]byte                         // see shardSize
}

// shardSize is a multiple of a cache line and one of the allocator's sizes, so that no two locks
// are in one line, and one line has all that a decision about a known key reads: the fields down to
// table.
const shardSize = 256

// clock returns now, which a caller may have read before it had the lock, or the later instant of
// one that came first.
func (sh *shard) clock(now int64) int64 {
	sh.latest = max(sh.latest, now)
	return sh.latest
}

const (
	maxShards     = 128
	keysPerShard  = 1024 // at least, so that a small cap is not split into uneven parts
	rememberEvery = 64   // takes of a shard after which its key is sampled
)

// New returns an empty Backend. It panics if an option is nil or its value is not possible.
func New(opts ...Option) *Backend {
	c := config{maxKeys: DefaultMaxKeys}
	for _, opt := range opts {
		if opt == nil {
			panic(errors.New("ginlimit: memory.New: an option is nil; leave it out"))
		}
		opt(&c)
	}
	if c.maxKeys < 1 {
		panic(fmt.Errorf("ginlimit: memory.WithMaxKeys(%d): use at least 1", c.maxKeys))
	}
	b := &Backend{
		seeds:   [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()},
		start:   time.Now(),
		maxKeys: c.maxKeys,
		ids:     make(map[backend.Limit]*known),
	}
	b.epoch = b.start.UnixMicro()
	b.rules.Store(&[]*algorithm.Rule{nil})
	n := 1
	for n < maxShards && int64(n)*2*keysPerShard <= b.maxKeys {
		n *= 2
	}
	b.shards = make([]atomic.Pointer[shard], n)
	return b
}

// Len returns the number of keys held, of which some may have recovered. It does not count overflow
// buckets.
func (b *Backend) Len() int { return int(b.keys.Load()) }

// Take implements [backend.Backend]. It fails only if the cost is negative or a limit is missing or
// not valid.
func (b *Backend) Take(_ context.Context, key string, cost int64, limits ...backend.Limit) (res backend.Result, err error) {
	if cost < 0 || len(limits) == 0 {
		return res, algorithm.CheckTake(cost, limits)
	}
	// To read the clock takes as long as everything else that is done under the lock. Many may wait
	// for the lock of a hot key, so that its clock is read before. The entry of any other key is
	// fetched from memory while the clock is read and the second half of the hash is made.
	var h hash
	var sh *shard
	var now int64
	last := b.last.Load()
	hot := last != nil && last.key == key
	if hot {
		h, sh, now = last.hash, last.shard, b.now()
	} else {
		h.tag = maphash.String(b.seeds[0], key)
		if sh = b.place(h).Load(); sh == nil {
			sh = b.newShard(h)
		}
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
	if found && (len(limits) == 1 || len(limits) == 2 && bans(&limits[1])) {
		// The most common case, without copies: one limit, under which the key's entry was written.
		e, l := &sh.table.entries[at], &limits[0]
		if rule := b.rule(e.rule); rule != nil && rule.Decides(l) {
			// A refusal that has to be counted is none of this.
			if next, answer, ok := rule.Quick(e.state(), now, cost); ok && (answer.Wait == 0 || len(limits) == 1) {
				if answer.Wait == 0 && cost > 0 {
					e.set(next) // it fits: no count is above the limit's
				}
				answer.Fill(&res, now)
				// Field by field: a copy of the whole goes through memory twice. Before the lock is
				// given back, which makes sure that the caller's copy finds all of it written.
				res.Limit.Name, res.Limit.Count, res.Limit.Period = l.Name, l.Count, l.Period
				res.Limit.Burst, res.Limit.Algorithm = l.Burst, l.Algorithm
				res.Limit.Calendar, res.Limit.Unit = l.Calendar, l.Unit
				sh.mu.Unlock()
				return res, nil
			}
		}
	}
	err = b.takeAny(&res, place{sh, h, at, found}, now, cost, limits)
	return res, err
}

// place is where a key is in its shard, which is locked.
type place struct {
	*shard
	hash  hash
	at    int // in the table, if found
	found bool
}

// takeAny is Take for any key and any limits. It unlocks the shard.
func (b *Backend) takeAny(res *backend.Result, p place, now, cost int64, limits []backend.Limit) error {
	defer p.mu.Unlock()
	var few [8]*algorithm.Rule
	rules, err := b.rulesOf(few[:0], limits, p.beside())
	if err == nil {
		res.Limit = limits[b.take(res, p, now, cost, rules)]
	}
	return err
}

// take is Take for any key and any rules.
func (b *Backend) take(res *backend.Result, p place, now, cost int64, rules []*algorithm.Rule) (decided int) {
	if !p.found {
		return b.takeNew(p.shard, p.hash, now, cost, rules, res)
	}
	e := &p.table.entries[p.at]
	if beside := p.beside(); beside != nil {
		decided, next := algorithm.Take(beside, rules, now, cost, res)
		if next != nil {
			b.keepBeside(p.shard, e, next)
		}
		return decided
	}
	one := [1]algorithm.Slot{b.slot(e)}
	decided, next := algorithm.Take(one[:], rules, now, cost, res)
	if next != nil {
		b.keep(p.shard, e, next)
	}
	return decided
}

// beside returns the slots beside the entry of a key, if there are any.
func (p *place) beside() []algorithm.Slot {
	if p.found && p.table.entries[p.at].rule == inSlots {
		return p.slots[p.table.entries[p.at].a]
	}
	return nil
}

// slot returns what is in an entry that has no slots beside it.
func (b *Backend) slot(e *entry) algorithm.Slot {
	return algorithm.Slot{Rule: b.rule(e.rule), State: e.state()}
}

// view returns the slots that a decision about a key begins with, which it must not change. It uses
// few, which is empty and has room.
func (b *Backend) view(few []algorithm.Slot, p place, now int64, rules []*algorithm.Rule) []algorithm.Slot {
	if beside := p.beside(); beside != nil {
		return beside
	} else if p.found {
		return append(few, b.slot(&p.table.entries[p.at]))
	}
	return p.inherit(few, p.hash, now, rules)
}

// rulesOf appends the rules of limits: those of slots where they stand under the same limits.
func (b *Backend) rulesOf(rules []*algorithm.Rule, limits []backend.Limit, slots []algorithm.Slot) ([]*algorithm.Rule, error) {
	for i := range limits {
		l := &limits[i]
		if i < len(slots) && slots[i].Rule != nil && slots[i].Rule.Decides(l) {
			rules = append(rules, slots[i].Rule)
			continue
		}
		k, err := b.known(l)
		if err != nil {
			return nil, err
		}
		rules = append(rules, k.rule)
	}
	return rules, nil
}

// takeNew decides for a key that has no entry. It gets one if it is charged and there is room.
func (b *Backend) takeNew(sh *shard, h hash, now, cost int64, rules []*algorithm.Rule, res *backend.Result) (decided int) {
	var few [4]algorithm.Slot
	decided, next := algorithm.Take(sh.inherit(few[:0], h, now, rules), rules, now, cost, res)
	if next == nil {
		return decided
	}
	at, found := b.insert(sh, h, now)
	if !found {
		return b.takeShared(sh, h, now, cost, rules, res)
	}
	b.keep(sh, &sh.table.entries[at], next)
	return decided
}

// bans reports whether l is the limit of a ban.
func bans(l *backend.Limit) bool {
	_, _, ok := l.Bans()
	return ok
}

// Settle implements [backend.Backend]. It fails only if a cost is negative or a limit is missing or
// not valid.
func (b *Backend) Settle(_ context.Context, key string, taken backend.Result, cost, actual int64, limits ...backend.Limit) error {
	if err := algorithm.CheckSettle(cost, actual, limits); err != nil {
		return err
	}
	var few [8]*algorithm.Rule
	rules, err := b.rulesOf(few[:0], limits, nil)
	held := algorithm.Held(taken, cost, limits)
	if err != nil || !taken.Allowed || cost == actual && held == 0 {
		return err
	}
	p, now := b.find(key)
	defer p.mu.Unlock()
	b.settle(p, now, taken.At.UnixMicro(), cost, actual, held, rules)
	return nil
}

// Renew implements [backend.Renewer]. It fails only if the cost is negative or a limit is missing
// or not valid.
func (b *Backend) Renew(_ context.Context, key string, taken backend.Result, cost int64, limits ...backend.Limit) (backend.Result, error) {
	if err := algorithm.CheckTake(cost, limits); err != nil {
		return taken, err
	}
	var few [8]*algorithm.Rule
	rules, err := b.rulesOf(few[:0], limits, nil)
	held := algorithm.Held(taken, cost, limits)
	if err != nil || !taken.Allowed || held == 0 {
		return taken, err
	}
	p, now := b.find(key)
	defer p.mu.Unlock()
	b.change(p, now, rules, &change{what: renews, charged: taken.At.UnixMicro(), held: held})
	taken.At = time.UnixMicro(now)
	return taken, nil
}

// Ban implements [backend.Banner]. It fails if the duration is out of range, or there is no room
// for the key.
func (b *Backend) Ban(_ context.Context, key string, d time.Duration) error {
	if err := algorithm.CheckBan(d); err != nil {
		return err
	}
	p, now := b.find(key)
	defer p.mu.Unlock()
	if !p.found {
		at, ok := b.insert(p.shard, p.hash, now)
		if !ok {
			return errors.New("ginlimit: the ban has no room; raise memory.WithMaxKeys")
		}
		b.keep(p.shard, &p.table.entries[at], algorithm.Ban(nil, now, d.Microseconds()))
		return nil
	}
	b.change(p, now, nil, &change{what: banishes, length: d.Microseconds()})
	return nil
}

// settle is Settle for a key whose shard is locked.
func (b *Backend) settle(p place, now, charged, cost, actual, held int64, rules []*algorithm.Rule) {
	if p.found || actual > cost {
		b.change(p, now, rules, &change{what: settles, charged: charged, cost: cost, actual: actual, held: held})
	}
}

// change is what is done to the slots of a key, wherever they are. A func in its place would send
// slots and rules to the heap.
type change struct {
	what                                int
	charged, cost, actual, held, length int64
	res                                 *backend.Result // of takes
	decided                             int
}

const (
	takes = iota
	settles
	renews
	banishes
)

// of returns what slots are from now on, or nil if they stay as they are.
func (c *change) of(slots []algorithm.Slot, rules []*algorithm.Rule, now int64) (next []algorithm.Slot) {
	switch c.what {
	case takes:
		c.decided, next = algorithm.Take(slots, rules, now, c.cost, c.res)
	case settles:
		next = algorithm.Settle(slots, rules, now, c.charged, c.cost, c.actual, c.held)
	case renews:
		next = algorithm.Renew(slots, rules, now, c.charged, c.held)
	case banishes:
		next = algorithm.Ban(slots, now, c.length)
	}
	return next
}

// change does what c says.
func (b *Backend) change(p place, now int64, rules []*algorithm.Rule, c *change) {
	if beside := p.beside(); beside != nil {
		if next := c.of(beside, rules, now); next != nil {
			b.keepBeside(p.shard, &p.table.entries[p.at], next)
		}
		return
	} else if p.found {
		e := &p.table.entries[p.at]
		one := [1]algorithm.Slot{b.slot(e)}
		if next := c.of(one[:], rules, now); next != nil {
			b.keep(p.shard, e, next)
		}
		return
	}
	next := c.of(p.inherit(nil, p.hash, now, rules), rules, now)
	if next == nil {
		return
	}
	if at, found := b.insert(p.shard, p.hash, now); found {
		b.keep(p.shard, &p.table.entries[at], next)
	} else {
		b.share(p.shard, p.hash, now, rules, c)
	}
}

// Usage implements [backend.Backend]. It fails only if a limit is missing or not valid.
func (b *Backend) Usage(_ context.Context, key string, limits ...backend.Limit) ([]backend.Result, error) {
	if err := algorithm.CheckTake(0, limits); err != nil {
		return nil, err
	}
	var few [8]*algorithm.Rule
	rules, err := b.rulesOf(few[:0], limits, nil)
	if err != nil {
		return nil, err
	}
	all := make([]backend.Result, len(limits))
	p, now := b.find(key)
	defer p.mu.Unlock()
	var slots [4]algorithm.Slot
	algorithm.Usage(b.view(slots[:0], p, now, rules), rules, now, all)
	for i := range all {
		all[i].Limit = limits[i]
	}
	return all, nil
}

// find locks the shard of a key, and returns where the key is and the time.
func (b *Backend) find(key string) (place, int64) {
	p := place{hash: b.hash(key)}
	p.shard = b.shard(p.hash)
	p.mu.Lock()
	p.at, p.found = p.table.find(p.hash)
	return p, p.clock(b.now())
}

// Reset implements [backend.Backend]. It never fails. A key that shares an overflow bucket takes
// the bucket's other keys along.
func (b *Backend) Reset(_ context.Context, key string) error {
	h := b.hash(key)
	sh := b.shard(h)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if at, found := sh.table.find(h); found {
		b.remove(sh, at)
		sh.restartSweep()
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

// remember makes key the one whose hash is known, if it is sampled twice in a row. If one key is
// much hotter than all others it soon is it.
func (b *Backend) remember(sh *shard, key string, h hash) {
	if sh.sample != h {
		sh.sample = h
		return
	}
	if last := b.last.Load(); len(key) <= 64 && (last == nil || last.key != key) {
		b.last.Store(&hashed{key, h, sh})
	}
}

// shard returns the shard of h.
func (b *Backend) shard(h hash) *shard {
	sh := b.place(h).Load()
	if sh == nil {
		sh = b.newShard(h)
	}
	return sh
}

// place returns where the shard of h is, if it is there.
func (b *Backend) place(h hash) *atomic.Pointer[shard] {
	return &b.shards[b.index(h)]
}

// index returns which shard is that of h.
func (b *Backend) index(h hash) uint64 { return h.tag & uint64(len(b.shards)-1) }

// newShard makes the shard of h, unless another caller just did.
func (b *Backend) newShard(h hash) *shard {
	i := b.index(h)
	b.shards[i].CompareAndSwap(nil, &shard{stagger: math.Pow(growth, float64(i)/float64(len(b.shards)))})
	return b.shards[i].Load()
}

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
		return k, nil // more limits than ids: states go to the slots, and nothing is remembered
	}
	if l.Algorithm != backend.SlidingLog && l.Algorithm != backend.Concurrency && l.Count <= math.MaxUint32 && !bans(&l) {
		k.id = uint16(len(rules))
		rules = append(rules, r)
		b.rules.Store(&rules)
	}
	b.ids[l] = k
	return k, nil
}

// keep writes slots to an entry that has none beside it: into it if they fit there, and otherwise a
// copy of them beside it.
func (b *Backend) keep(sh *shard, e *entry, slots []algorithm.Slot) {
	if !b.put(e, slots) {
		e.rule, e.a = inSlots, sh.acquire(slices.Clone(slots))
	}
	b.noteExpiry(sh, e)
}

// keepBeside writes slots to an entry that has some beside it. They are those, in the same array if
// it has room.
func (b *Backend) keepBeside(sh *shard, e *entry, slots []algorithm.Slot) {
	at := e.a
	switch {
	case b.put(e, slots):
		sh.release(at)
	case len(slots) < len(sh.slots[at]):
		sh.slots[at] = slices.Clone(slots) // gives the rest back
	default:
		sh.slots[at] = slots
	}
	b.noteExpiry(sh, e)
}

// put packs slots into e and reports whether they fit.
func (b *Backend) put(e *entry, slots []algorithm.Slot) bool {
	if len(slots) != 1 || slots[0].Rule == nil || slots[0].Rule.Counts() || slots[0].Rule == algorithm.Banned() {
		return false
	}
	limit := slots[0].Rule.Limit()
	k, err := b.known(&limit)
	return err == nil && e.put(slots[0].State, k.id)
}

// acquire returns the index of a place beside the entries, with slots in it.
func (sh *shard) acquire(slots []algorithm.Slot) uint32 {
	if n := len(sh.free); n > 0 {
		at := sh.free[n-1]
		sh.free, sh.slots[at] = sh.free[:n-1], slots
		return at
	}
	sh.slots = append(sh.slots, slots)
	return uint32(len(sh.slots) - 1)
}

// release gives the place back.
func (sh *shard) release(at uint32) {
	sh.slots[at] = nil
	sh.free = append(sh.free, at)
}
