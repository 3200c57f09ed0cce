package redisstore

import (
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/algorithm"
	"github.com/ginlimit/ginlimit/internal/gate"
)

// denials remembers refusals until their wait is over, so that a caller that is over the limit
// costs Redis next to nothing.
//
// A refusal changes nothing in Redis, so the key's value stays as it is until somebody changes it
// or it expires, and each of these is pushed to every client that read it under CLIENT TRACKING.
// The value that the refusal saw is named by the instant of its last write. A request for a refused
// key reads it through the client-side cache: the first time that is a GET, from then on no command
// at all until the server says that the key changed, or the connection is lost. Only if the value
// is still the one that the refusal saw is the request refused here. What a GET finds is never
// older than the refusal, because the script's reply came before it was sent.
//
// Not everything is pushed: SWAPDB is not, nor a step of the server's clock, and a proxy may accept
// CLIENT TRACKING and push nothing at all. So a refusal that is recheckAfter old is asked for again
// by one caller, while the others are still refused.
type denials struct {
	on     atomic.Bool // set once client-side caching was seen to work
	seed   maphash.Seed
	len    atomic.Int64
	shards [denialShards]struct {
		sync.Mutex
		keys map[string]*denial
	}
}

// denial is a refusal of the server. But for its atomics it is not changed once it is shared.
type denial struct {
	cached   atomic.Int64 // until when the client's cache should have the value, in ns since sent
	refused  atomic.Int64 // here, of which a ban counts each, and the server knows of none
	over     atomic.Bool  // it refuses nobody, and stands for what the server has to be told of
	recheck  atomic.Int64 // when to ask the server again, in ns since sent; 0 is recheckAfter
	plan     *plan
	cost     int64         // refused, as is every larger one; at least 1
	wait     time.Duration // of the server, from the decision on
	name     string        // of the key in Redis
	written  string
	slots    []algorithm.Slot
	now      int64     // the server's clock at the decision, µs
	sent     time.Time // before the decision: the process's clock
	received time.Time // after it
}

const (
	denialShards = 64
	// maxDenials bounds what is remembered: about 0.5 kB each, and with up to four limits never
	// more than 1.9 kB, or 30 MB for all; plans are shared. The client's cache has 0.7 kB more for
	// each, or as much as a log has in Redis, and a bound of its own: CacheSizeEachConn.
	maxDenials = 16_384
	// maxDeniedKey is the length in bytes of the longest key that is remembered.
	maxDeniedKey = 1024
	// maxDeniedCharges is how many charges of all logs of a key are remembered at most. The server
	// sends the oldest ones that the cost waits for, and the last: two for a cost of one.
	maxDeniedCharges = 16
	// minWait is the shortest wait that is worth remembering: within it a second request would have
	// to come.
	minWait = time.Millisecond
	// recheckAfter is how long a refusal is relied on. A caller that is refused for no longer than
	// that by mistake notices it as little as a lost packet or two, and a key that is asked for
	// without end costs a script and a GET in that time: with all that is remembered, what Redis
	// decides in a few hundredths of a second.
	recheckAfter = 5 * time.Second
	// recheckAgain is when the next caller asks, if the last had no answer.
	recheckAgain = time.Second
)

func newDenials() *denials {
	d := &denials{seed: maphash.MakeSeed()}
	for i := range d.shards {
		d.shards[i].keys = make(map[string]*denial)
	}
	return d
}

// of returns the refusal that a Take has to look at; nil if the server has to be asked. It may be
// called on nil.
func (d *denials) of(key string, p *plan, cost int64) *denial {
	if d == nil || d.len.Load() == 0 {
		return nil
	}
	sh := &d.shards[maphash.String(d.seed, key)%denialShards]
	sh.Lock()
	den := sh.keys[key]
	sh.Unlock()
	if den == nil || den.over.Load() || den.plan != p && !den.plan.is(p.limits) || max(cost, 1) < den.cost || cost > den.cost && den.charges() > 0 {
		return nil
	}
	age := time.Since(den.sent)
	if age >= den.wait {
		d.forgetThis(key, den)
		return nil
	}
	recheck := den.recheck.Load()
	if int64(age) >= max(recheck, int64(recheckAfter)) && den.recheck.CompareAndSwap(recheck, int64(age+recheckAgain)) {
		return nil
	}
	return den
}

// confirm refuses a cost that den refused, if the key's value is still the one that den saw. If it
// is not known, the server has to be asked, in what is left of the call's time; err says that
// nothing is.
func (d *denials) confirm(t *trip, key string, den *denial, cost int64) (res backend.Result, decided int, refused bool, err error) {
	// The decision was made between sent and received. Measured from the earlier, the wait is over
	// too early rather than too late; measured from the later, a caller is told to wait too long
	// rather than too short.
	now := time.Now()
	left := den.wait - now.Sub(den.sent)
	if left <= 0 || t.server.gate.Open() { // then nobody could say that the key changed
		return res, 0, false, nil
	}
	age := int64(now.Sub(den.sent))
	known := age < den.cached.Load()
	r, err := t.read(min(left, 2*recheckAfter), known) // so that it is there while one asks
	if !known || !r.Hit {
		den.cached.Store(age + int64(r.left))
	}
	if err != nil {
		d.forgetThis(key, den)
		if !gate.Over(t.ctx) {
			err = nil
		}
		return res, 0, false, err
	}
	if rest, ok := strings.CutPrefix(r.Text, den.written); !ok || !strings.HasPrefix(rest, " ") {
		d.forgetThis(key, den)
		return res, 0, false, nil
	}
	decided = algorithm.Judge(den.slots, den.plan.rules, den.now+now.Sub(den.received).Microseconds(), cost, &res)
	if res.Allowed {
		return res, 0, false, nil // not possible: it is earlier than the end of the wait
	}
	if den.plan.ban != "" && cost > 0 && !res.Banned() {
		if algorithm.Bans(den.slots, den.plan.rules, res.At.UnixMicro(), den.refused.Add(1)) {
			den.refused.Add(-1) // the server counts it
			return backend.Result{}, 0, false, nil
		}
	}
	res.Source = backend.SourceDenyCache
	return res, decided, true, nil
}

// uncounted returns how many refusals of key the server is to be told of. It may be called on nil.
func (d *denials) uncounted(key string) int64 {
	if d == nil || d.len.Load() == 0 {
		return 0
	}
	sh := &d.shards[maphash.String(d.seed, key)%denialShards]
	sh.Lock()
	defer sh.Unlock()
	den := sh.keys[key]
	if den == nil {
		return 0
	}
	if den.over.Load() {
		d.remove(sh.keys, key)
	}
	return den.refused.Swap(0)
}

func (d *denials) remember(key string, den *denial) {
	if !d.on.Load() || den.wait < minWait || den.written == "0 0" { // never, too soon, or refused without a state
		return
	}
	if len(key) > maxDeniedKey || den.charges() > maxDeniedCharges {
		return
	}
	sh := &d.shards[maphash.String(d.seed, key)%denialShards]
	sh.Lock()
	defer sh.Unlock()
	old := sh.keys[key]
	if old != nil {
		den.refused.Add(old.refused.Swap(0))
	} else {
		if len(sh.keys) >= maxDenials/denialShards {
			d.makeRoom(sh.keys, den.received)
		}
		d.len.Add(1)
	}
	sh.keys[strings.Clone(key)] = den // key may be a part of something long
}

// charges returns for how many the logs have memory.
func (den *denial) charges() (n int) {
	for i := range den.slots {
		if log := den.slots[i].State.Log; log != nil {
			n += cap(*log)
		}
	}
	return n
}

// makeRoom drops what is over of a few keys, or one of them: a map's order is random enough.
func (d *denials) makeRoom(keys map[string]*denial, now time.Time) {
	var last string
	dropped, looked := 0, 0
	for key, den := range keys {
		if last = key; now.Sub(den.sent) >= den.wait {
			delete(keys, key)
			dropped++
		}
		if looked++; looked == 8 {
			break
		}
	}
	if dropped == 0 {
		delete(keys, last)
		dropped = 1
	}
	d.len.Add(int64(-dropped))
}

// forget drops what is remembered of key. It may be called on nil.
func (d *denials) forget(key string) {
	if d == nil || d.len.Load() == 0 {
		return
	}
	d.forgetThis(key, nil)
}

// forgetThis drops what is remembered of key, if it is den or den is nil. How many were refused here
// stays, until the server is told.
func (d *denials) forgetThis(key string, den *denial) {
	sh := &d.shards[maphash.String(d.seed, key)%denialShards]
	sh.Lock()
	defer sh.Unlock()
	have := sh.keys[key]
	switch {
	case have == nil || den != nil && have != den:
	case have.refused.Load() > 0:
		have.over.Store(true)
	default:
		d.remove(sh.keys, key)
	}
}

// remove takes a key out of those of a shard, which is locked.
func (d *denials) remove(keys map[string]*denial, key string) {
	delete(keys, key)
	d.len.Add(-1)
}
