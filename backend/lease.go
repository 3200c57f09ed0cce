package backend

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"slices"
	"time"
)

// DefaultLeaseTime is how long the units of a [Lease] may be spent unless [WithLeaseTime] says
// otherwise.
const DefaultLeaseTime = 100 * time.Millisecond

// DefaultLeaseKeys is for how many keys a [Lease] holds units unless [WithLeaseKeys] says
// otherwise.
const DefaultLeaseKeys = 10_000

const (
	hotRequests    = 4    // within a lease time: with fewer a lease costs more than it saves
	leasedShare    = 8    // a lease is at most this part of what remains: instances share the last units
	leasedPeriod   = 10   // and lasts at most the tenth part of a Period
	maxLeasedKey   = 1024 // bytes: longer keys are not held, which bounds the table in bytes too
	maxLeaseShards = 64
)

// LeaseOption changes a default of [Lease].
type LeaseOption func(*leaseConfig)

type leaseConfig struct {
	time    time.Duration
	maxKeys int
}

// WithLeaseTime sets how long after they were charged units may be spent; the default is
// [DefaultLeaseTime]. It is 1 ms to 10 s, otherwise Lease panics. It should be several round trips
// to the store. It is also the time over which a key's rate is measured: a shorter one makes fewer
// keys hot.
func WithLeaseTime(d time.Duration) LeaseOption { return func(c *leaseConfig) { c.time = d } }

// WithLeaseKeys sets for how many keys units are held at once; the default is [DefaultLeaseKeys],
// with less than 1 Lease panics. Each takes about 0.5 kB. Hot keys beyond that are decided by the
// store; no key loses its lease to another.
func WithLeaseKeys(n int) LeaseOption { return func(c *leaseConfig) { c.maxKeys = n } }

// Lease returns a Backend that takes up to n units of a hot key from b at once and serves the key's
// next requests from them, without asking b. It starts no goroutine and needs no Close. It panics
// if b or an option is nil, if n is less than 2, and if an option has a value that it cannot have.
//
// A key is hot while it has about 4 requests or more within the lease time, which is 100 ms by
// default; any other costs what it costs without Lease. A lease grows with the key's rate. It is
// never more than the eighth part of what remains, so that instances share the last units of a
// limit. Limits of fewer than 8 units are not leased at all, nor are those with a Period below 10
// ms, those of requests in flight, and those with a ban. A cost above n/2 is always asked of b.
//
// Units are charged before they are spent, so that no number of instances spends more than the
// limit lets them charge, whether they crash or not. Only the time differs: a unit may be spent up
// to the lease time after it was charged, which is never more than the tenth part of the shortest
// Period, and never past the end of a FixedWindow or a CalendarWindow. So in any window, or after
// any burst, up to n units for each instance may be spent that were charged before.
//
// What is left of a lease when it ends is given back with the key's next request: to each limit
// what has not been refilled or forgotten since. Where several limits decide, a bucket that did not
// say when it is full again gets back as if it had been full before the lease. If no request comes,
// the process ends, or the store's answer is lost, up to n units for each instance are lost until
// the limit has recovered.
//
// What was decided here has [SourceLease]. Its Remaining is what remained in the store after the
// charge, and what is left of the lease; what others took since, or was refilled, for the lease
// time at most, is not in it. Its ResetAfter counts down from the charge, as if all of the lease
// were spent. Its At is the instant of the charge, because Settle needs that. Settle takes units
// from the lease, and gives them back into it, for as long as the lease lasts. Afterwards b
// settles. A refusal is always one of b. So is every decision of TakeAll, and what Usage says,
// which has the whole lease as used.
//
// When a lease is used up one request fetches the next, and others of the key wait for it until
// their contexts end. A refusal then goes to all with the same cost, a failure of the store to all.
// Units that are left are served also while the store fails. What a [Fallback] in b decides is not
// leased. Reset drops the lease of this instance; others may spend theirs.
func Lease(b Backend, n int64, opts ...LeaseOption) Backend {
	if b == nil {
		panic(errors.New("ginlimit: Lease needs a backend; it is nil"))
	}
	if n < 2 {
		panic(fmt.Errorf("ginlimit: Lease of %d units: use at least 2, or the backend as it is", n))
	}
	c := leaseConfig{DefaultLeaseTime, DefaultLeaseKeys}
	for _, opt := range opts {
		if opt == nil {
			panic(errors.New("ginlimit: Lease: an option is nil; leave it out"))
		}
		opt(&c)
	}
	switch {
	case c.time < time.Millisecond || c.time > 10*time.Second:
		panic(fmt.Errorf("ginlimit: WithLeaseTime(%v): use 1ms to 10s", c.time))
	case c.maxKeys < 1:
		panic(fmt.Errorf("ginlimit: WithLeaseKeys(%d): use at least 1", c.maxKeys))
	}
	l := &lease{b: b, n: n, hot: hotRequests, time: c.time, start: time.Now(), seed: maphash.MakeSeed()}
	shards := 1
	for shards < maxLeaseShards && shards*64 <= c.maxKeys {
		shards *= 2
	}
	l.shards = make([]leaseShard, shards)
	for i := range l.shards {
		sh := &l.shards[i]
		sh.room = (c.maxKeys + i) / shards // the sum of all is maxKeys
		sh.keys, sh.cells = make(map[string]*leased), make([]leaseCell, 256)
	}
	return l
}

type lease struct {
	b      Backend
	n      int64
	hot    uint32
	time   time.Duration
	start  time.Time // all times below are since then, by the process's monotonic clock
	seed   maphash.Seed
	shards []leaseShard
}

func (l *lease) now() time.Duration { return time.Since(l.start) }

func (l *lease) shard(key string) (*leaseShard, uint64) {
	h := maphash.String(l.seed, key)
	return &l.shards[h>>32&uint64(len(l.shards)-1)], h
}

func (l *lease) Take(ctx context.Context, key string, cost int64, limits ...Limit) (Result, error) {
	if cost <= 0 || len(limits) == 0 {
		return l.look(ctx, key, cost, limits)
	}
	sh, h := l.shard(key)
	for {
		now := l.now()
		sh.mu.Lock()
		e, back := l.find(sh, key, h, now, cost, limits)
		if e != nil && cost <= e.units {
			res := e.spend(now, cost)
			sh.mu.Unlock()
			return res, nil
		}
		r := leaseRequest{sh: sh, e: e, key: key, cost: cost, limits: limits}
		r.plan(now, l.n)
		sh.mu.Unlock()
		l.giveBack(ctx, key, back)
		if res, err, decided := l.miss(ctx, &r); decided {
			return res, err
		}
	}
}

// leaseRequest is a request that no lease could serve, and what is to be done about it.
type leaseRequest struct {
	sh     *leaseShard
	e      *leased // nil if the key is not hot
	key    string
	cost   int64
	limits []Limit
	count  uint64       // of the key's leases
	flight *leaseFlight // what fetches the next lease; nil if the request asks for itself alone
	mine   bool         // this request is to fetch it
}

// plan sets what is to be done. The shard is locked.
func (r *leaseRequest) plan(now time.Duration, n int64) {
	e := r.e
	if e == nil {
		return
	}
	r.count = e.count
	if e.extra(n, r.cost) < r.cost || now < e.calm {
		return // a lease that could not serve another such request is not worth its share
	}
	if r.flight = e.flight; r.flight == nil {
		e.learn(now, n)
		r.flight = &leaseFlight{done: make(chan struct{}), cost: r.cost, extra: e.extra(n, r.cost), windowEnd: e.windowEnd}
		r.mine, e.flight = true, r.flight
	}
}

// miss does it, and reports false if r has waited for a lease and has to look again.
func (l *lease) miss(ctx context.Context, r *leaseRequest) (res Result, err error, decided bool) {
	switch f := r.flight; {
	case r.e == nil:
		res, err = l.b.Take(ctx, r.key, r.cost, r.limits...)
		return res, err, true
	case f == nil:
		res, err = l.ask(ctx, r)
		return res, err, true
	case r.mine:
		var back leftover
		res, back, err = l.fetch(ctx, r)
		l.giveBack(ctx, r.key, back)
		return res, err, true
	default:
		select {
		case <-f.done:
		case <-ctx.Done():
			return res, fmt.Errorf("ginlimit: lease: waiting for units: %w: %w", ErrUnavailable, ctx.Err()), true
		}
		if f.err != nil {
			return res, f.err, true
		}
		// Another cost has another wait.
		return f.refused, nil, f.refused.RetryAfter != 0 && f.cost == r.cost
	}
}

// leaseFlight is the fetching of a lease. The requests that wait for it read it once done is
// closed.
type leaseFlight struct {
	done      chan struct{}
	cost      int64 // of the request that fetches
	extra     int64 // units for the lease
	windowEnd time.Duration
	refused   Result // the answer, if it was a refusal
	err       error  // the error, if it was one of the store
}

// fetch takes the cost of a request and the units of a lease, or the cost alone if they do not fit.
// It returns what has to be given back.
func (l *lease) fetch(ctx context.Context, r *leaseRequest) (res Result, back leftover, err error) {
	sh, e, f := r.sh, r.e, r.flight
	defer f.land(sh, e)
	sent := l.now()
	res, err = l.b.Take(ctx, r.key, f.cost+f.extra, r.limits...)
	extra := f.extra
	if err == nil && (!res.Allowed || res.Source == SourceFallback) {
		if res.Allowed { // it charged a share, and knows how much only if all is given back
			_ = l.b.Settle(ctx, r.key, res, f.cost+extra, 0, r.limits...)
		}
		extra = 0
		alone := *r
		alone.count = math.MaxUint64 // no lease is known that the store could have known of
		if res, err = l.ask(ctx, &alone); err == nil && !res.Allowed {
			f.refused = res
		}
	}
	if err != nil && errors.Is(err, ErrUnavailable) && ctx.Err() == nil {
		f.err = err // for all that wait; any other error is this request's own
	}
	if err != nil || extra == 0 {
		return res, back, err
	}
	end := l.windowEnd(ctx, r.key, f.windowEnd, sent, res, r.limits)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	e.note(res)
	now := l.now()
	back = leftover{res, f.cost + extra, now - sent, extra, r.limits}
	// Otherwise the key was reset, its limits changed, or a Lease in b decided, which Settle could
	// not tell from the store later.
	if sh.keys[r.key] == e && e.flight == f && res.Source == SourceStore {
		back = e.drain(now)
		e.charge, e.sent, e.ends, e.windowEnd = res, sent, min(sent+l.lifetime(r.limits), end), end
		e.charged, e.size, e.units, e.count = f.cost+extra, extra, extra, e.count+1
	}
	res.Remaining = plus(res.Remaining, extra)
	return res, back, nil
}

// land lets the requests go on that wait for f.
func (f *leaseFlight) land(sh *leaseShard, e *leased) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if e.flight == f {
		e.flight = nil
	}
	close(f.done)
}

// windowEnd returns until when no window ends that res was charged to. If there are other
// limits the store has to be asked, once in a window. Before known it need not be.
func (l *lease) windowEnd(ctx context.Context, key string, known, sent time.Duration, res Result, limits []Limit) time.Duration {
	if sent < known {
		return known
	}
	end := time.Duration(math.MaxInt64)
	for i, limit := range limits {
		if limit.Algorithm != FixedWindow && limit.Algorithm != CalendarWindow || limit.IsUnlimited() {
			continue
		}
		if len(limits) > 1 {
			alone := slices.Repeat([]Limit{Unlimited()}, len(limits))
			alone[i] = limit
			sent = l.now()
			var err error
			if res, err = l.b.Take(ctx, key, 0, alone...); err != nil {
				return 0
			}
		}
		end = min(end, sent+res.ResetAfter)
	}
	return end
}

// giveBack settles for what is left of a lease, for each limit as much as it can still get. If that
// fails it is lost: it may have been given back nonetheless.
func (l *lease) giveBack(ctx context.Context, key string, back leftover) {
	if back.units == 0 {
		return
	}
	if len(back.limits) == 1 {
		if units := back.of(0); units > 0 {
			_ = l.b.Settle(ctx, key, back.charge, units, 0, back.limits...)
		}
		return
	}
	// One call for all limits that get equally much. The others' places are taken by limits that
	// keep nothing.
	amounts := make([]int64, len(back.limits))
	for i := range amounts {
		amounts[i] = back.of(i)
	}
	for i, units := range amounts {
		if units == 0 || slices.Contains(amounts[:i], units) {
			continue
		}
		limits := slices.Repeat([]Limit{Unlimited()}, len(amounts))
		for j := range limits {
			if amounts[j] == units {
				limits[j] = back.limits[j]
			}
		}
		_ = l.b.Settle(ctx, key, back.charge, units, 0, limits...)
	}
}

// ask takes r's cost from the store alone, when the key's lease was the count-th. A refusal that
// may be the lease's fault makes it give the lease back and ask again.
func (l *lease) ask(ctx context.Context, r *leaseRequest) (Result, error) {
	res, err := l.b.Take(ctx, r.key, r.cost, r.limits...)
	if err != nil {
		return res, err
	}
	r.sh.mu.Lock()
	e := r.e
	e.note(res)
	live := e.units > 0 && l.now() < e.ends
	if live && !res.Allowed && res.RetryAfter >= 0 && r.cost > 0 {
		back := e.drain(l.now())
		r.sh.mu.Unlock()
		l.giveBack(ctx, r.key, back)
		return l.b.Take(ctx, r.key, r.cost, r.limits...)
	}
	if live && e.count == r.count { // the store knew of it
		res.Remaining = min(plus(res.Remaining, e.units), res.Limit.Capacity())
		if r.cost == 0 {
			res.Allowed, res.RetryAfter = true, 0
		}
	}
	r.sh.mu.Unlock()
	return res, nil
}

// look is a Take that charges nothing.
func (l *lease) look(ctx context.Context, key string, cost int64, limits []Limit) (Result, error) {
	sh, _ := l.shard(key)
	sh.mu.Lock()
	e := sh.keys[key]
	if e == nil || cost < 0 || len(limits) == 0 {
		sh.mu.Unlock()
		return l.b.Take(ctx, key, cost, limits...)
	}
	var back leftover
	other := !slices.Equal(e.limits, limits)
	if now := l.now(); other || now >= e.ends {
		back = e.drain(now)
	}
	count := e.count
	sh.mu.Unlock()
	l.giveBack(ctx, key, back)
	if other {
		return l.b.Take(ctx, key, 0, limits...)
	}
	return l.ask(ctx, &leaseRequest{sh: sh, e: e, key: key, limits: limits, count: count})
}

// TakeAll passes by the leases. A refusal that may be their fault makes it give them back and ask
// again.
func (l *lease) TakeAll(ctx context.Context, charges ...Charge) ([]Result, error) {
	all, err := l.b.TakeAll(ctx, charges...)
	if err != nil {
		return all, err
	}
	again := false
	for i := range all {
		if all[i].Allowed || all[i].RetryAfter < 0 {
			continue
		}
		c := &charges[i]
		sh, _ := l.shard(c.Key)
		sh.mu.Lock()
		var back leftover
		if e := sh.keys[c.Key]; e != nil {
			back = e.drain(l.now())
		}
		sh.mu.Unlock()
		l.giveBack(ctx, c.Key, back)
		again = again || back.units > 0
	}
	if !again {
		return all, nil
	}
	return l.b.TakeAll(ctx, charges...)
}

func (l *lease) Settle(ctx context.Context, key string, taken Result, cost, actual int64, limits ...Limit) error {
	if taken.Source != SourceLease {
		return l.b.Settle(ctx, key, taken, cost, actual, limits...)
	}
	taken.Source = SourceStore // as the lease was
	if cost >= 0 && actual >= 0 {
		sh, _ := l.shard(key)
		sh.mu.Lock()
		if e := sh.keys[key]; e != nil && l.now() < e.ends && e.charge.At.Equal(taken.At) && slices.Equal(e.limits, limits) {
			// Negative if units come back, at most as many as were spent.
			units := max(-max(0, e.size-e.units), min(actual-cost, e.units))
			e.units -= units
			cost += units
		}
		sh.mu.Unlock()
		if cost == actual {
			return nil
		}
	}
	return l.b.Settle(ctx, key, taken, cost, actual, limits...)
}

func (l *lease) Usage(ctx context.Context, key string, limits ...Limit) ([]Result, error) {
	return l.b.Usage(ctx, key, limits...)
}

// Renew asks b, because units that are held are never leased.
func (l *lease) Renew(ctx context.Context, key string, taken Result, cost int64, limits ...Limit) (Result, error) {
	return renew(ctx, l.b, key, taken, cost, limits)
}

// Ban bans in b, and drops the lease of this instance.
func (l *lease) Ban(ctx context.Context, key string, d time.Duration) error {
	defer l.drop(key)
	return banBy(ctx, l.b, key, d)
}

// Prepare tells b, as a limiter would if it had b itself.
func (l *lease) Prepare(limits ...Limit) { prepare(l.b, limits) }

// Seconded tells b that a second backend decides where it cannot.
func (l *lease) Seconded() { seconded(l.b) }

func (l *lease) Reset(ctx context.Context, key string) error {
	defer l.drop(key)
	return l.b.Reset(ctx, key)
}

// drop forgets the lease of a key.
func (l *lease) drop(key string) {
	sh, _ := l.shard(key)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if e := sh.keys[key]; e != nil {
		delete(sh.keys, key)
		e.drain(0) // for requests that are about to look at it
	}
}
