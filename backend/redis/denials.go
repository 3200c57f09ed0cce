package redis

import (
	"context"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/internal/gate"
)

// denials remembers refusals until their wait is over, so that a caller who is over the limit costs Redis nothing.
//
// A refusal changes nothing in Redis, so the key's value stays as it is until somebody changes it or it expires, and
// each of these is pushed to every client that read it under CLIENT TRACKING. The value that the refusal saw is named
// by the instant of its last write. A request for a refused key reads it through the client-side cache: the first time
// that is a GET, from then on no command at all until the server says that the key changed, or the connection is lost.
// Only if the value is still the one that the refusal saw is the request refused here. What a GET finds is never older
// than the refusal, because the script's reply came before it was sent.
type denials struct {
	on     atomic.Bool // set once client-side caching was seen to work
	seed   maphash.Seed
	len    atomic.Int64
	shards [denialShards]struct {
		sync.Mutex
		keys map[string]*denial
	}
}

// denial is a refusal of the server. It is not changed once it is shared.
type denial struct {
	plan     *plan
	cost     int64         // refused, as is every larger one; at least 1
	wait     time.Duration // of the server, from the decision on
	name     string        // of the key in Redis
	written  string
	slots    []backend.Slot
	now      int64      // the server's clock at the decision, µs
	sent     time.Time  // before the decision: the process's clock
	received time.Time  // after it
	gate     *gate.Gate // of the server
}

const (
	denialShards = 64
	// maxDenials bounds what is remembered: about 0.5 kB each, and 0.7 kB in the client's cache.
	maxDenials = 16_384
	// minWait is the shortest wait that is worth remembering: within it a second request would have to come.
	minWait = time.Millisecond
)

func newDenials() *denials {
	d := &denials{seed: maphash.MakeSeed()}
	for i := range d.shards {
		d.shards[i].keys = make(map[string]*denial)
	}
	return d
}

// take refuses a cost that is refused already. Where it reports false the server has to be asked.
func (d *denials) take(ctx context.Context, client rueidis.Client, p *plan, key string, cost int64) (res backend.Result, decided int, ok bool) {
	if d.len.Load() == 0 {
		return res, 0, false
	}
	sh := &d.shards[maphash.String(d.seed, key)%denialShards]
	sh.Lock()
	den := sh.keys[key]
	sh.Unlock()
	if den == nil || den.plan != p && !den.plan.is(p.limits) || max(cost, 1) < den.cost || cost > den.cost && p.logs {
		return res, 0, false
	}
	// The decision was made between sent and received. Measured from the earlier, the wait is over too early rather than
	// too late; measured from the later, a caller is told to wait too long rather than too short.
	now := time.Now()
	left := den.wait - now.Sub(den.sent)
	if left <= 0 {
		d.forgetThis(key, den)
		return res, 0, false
	}
	if den.gate.Open() {
		return res, 0, false // nobody could say that the key changed
	}
	ctx, ours := den.gate.Limit(ctx)
	value, err := client.DoCache(ctx, client.B().Get().Key(den.name).Cache().ToStaticTTL(), left).ToString()
	if err != nil {
		den.gate.Record(end(den.gate.Cause(ctx, err), ours))
	}
	if err != nil || len(value) <= len(den.written) || value[:len(den.written)] != den.written || value[len(den.written)] != ' ' {
		d.forgetThis(key, den)
		return res, 0, false
	}
	var few [inline]backend.Slot
	slots := append(few[:0], den.slots...)
	res, decided, _ = backend.Take(slots, p.rules, den.now+now.Sub(den.received).Microseconds(), cost)
	if res.Allowed {
		return res, 0, false // not possible: it is earlier than the end of the wait
	}
	res.Source = backend.SourceDenyCache
	return res, decided, true
}

func (d *denials) remember(key string, den *denial) {
	if !d.on.Load() || den.wait < minWait || den.written == "0 0" { // never, too soon, or refused without a state
		return
	}
	sh := &d.shards[maphash.String(d.seed, key)%denialShards]
	sh.Lock()
	defer sh.Unlock()
	_, known := sh.keys[key]
	if !known && len(sh.keys) >= maxDenials/denialShards {
		d.makeRoom(sh.keys, den.received)
	}
	if !known {
		d.len.Add(1)
	}
	sh.keys[key] = den
}

// makeRoom drops what is over of a few keys, or one of them: a map's order is random enough.
func (d *denials) makeRoom(keys map[string]*denial, now time.Time) {
	var any string
	dropped, looked := 0, 0
	for key, den := range keys {
		if any = key; now.Sub(den.sent) >= den.wait {
			delete(keys, key)
			dropped++
		}
		if looked++; looked == 8 {
			break
		}
	}
	if dropped == 0 {
		delete(keys, any)
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

// forgetThis drops what is remembered of key, if it is den or den is nil.
func (d *denials) forgetThis(key string, den *denial) {
	sh := &d.shards[maphash.String(d.seed, key)%denialShards]
	sh.Lock()
	if have := sh.keys[key]; have != nil && (den == nil || have == den) {
		delete(sh.keys, key)
		d.len.Add(-1)
	}
	sh.Unlock()
}
