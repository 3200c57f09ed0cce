package redis

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/redis/rueidis"

	"github.com/ginlimit/ginlimit/internal/gate"
)

// A decision has to wait while maxScripts scripts and enough decisions are under way, unless it fills a script. Fewer
// scripts leave the server idle while their replies are read; with more each decides less. Where there are no more callers
// than enough, all go alone: with 8 goroutines that is 15 % faster than waiting.
const (
	maxScripts = 4
	enough     = 8
)

// batcher puts decisions under the same limits together: when a script ends, one of those who wait leads. It sends the
// script that decides for all of them, and tells the others. Nobody waits for others to come, and there is no goroutine
// but those of the callers.
type batcher struct {
	script  func() *script
	most    int         // decisions in a script
	off     atomic.Bool // the keys are on several servers after all
	waiters sync.Pool   // of *waiter

	mu       sync.Mutex
	running  int                // scripts under way; at least one if somebody waits
	deciding int                // decisions in them
	shared   bool               // the last script that somebody waited for was for several
	waiting  []*waiter          // longest first
	rides    map[*ride]struct{} // that are under way
	watched  context.Context    // whose end expire is told of
}

// waiter is a decision that waits. It learns one thing: that it leads, or what came of it.
type waiter struct {
	name  string          // of the key in Redis
	ctx   context.Context // of the gate, shared with others
	learn chan lesson     // has room for one
	told  bool            // guarded by batcher.mu
}

// ride is a script for several decisions.
type ride struct {
	waiters []*waiter
	lead    *waiter // the one who has most time left
}

type lesson struct {
	lead *ride
	outcome
}

type outcome struct {
	reply string
	alone bool // nothing was written: the script for one key has to decide
	late  bool // the time was over; the ride may still hold the waiter
	err   error
}

func newBatcher(most int, script func() *script) *batcher {
	q := &batcher{script: sync.OnceValue(script), most: most, rides: make(map[*ride]struct{})}
	q.waiters.New = func() any { return &waiter{learn: make(chan lesson, 1)} }
	return q
}

// ask sends a decision, in a batch if it can be, and returns the reply of the script and the gate that it went through.
func (b *Backend) ask(ctx context.Context, client rueidis.Client, p *plan, cost int64, name string) (reply string, g *gate.Gate, err error) {
	if p.batcher != nil && cost == 1 && !p.batcher.off.Load() && client.Mode() != rueidis.ClientModeCluster {
		g = b.link.gates.Load().of(0)
		// A caller with less time than others have goes alone.
		if shared, ours := g.Limit(ctx); ours {
			if o := b.askTogether(shared, client, p, g, name); !o.alone {
				return o.reply, g, o.err
			}
			ctx = shared
		}
	}
	return b.askAlone(ctx, client, p, cost, name)
}

func (b *Backend) askAlone(ctx context.Context, client rueidis.Client, p *plan, cost int64, name string) (reply string, g *gate.Gate, err error) {
	said, g, err := b.link.eval(ctx, client, p.call(cost, b.now()), name)
	if err == nil {
		reply, err = said.ToString()
	}
	return reply, g, err
}

// askTogether is ask for a cost of one. ctx is of g.
func (b *Backend) askTogether(ctx context.Context, client rueidis.Client, p *plan, g *gate.Gate, name string) (o outcome) {
	q := p.batcher
	q.mu.Lock()
	if err := ctx.Err(); err != nil { // expire may have been here
		q.mu.Unlock()
		return outcome{err: g.Cause(ctx, err)}
	}
	free := q.free()
	if free && !q.shared {
		q.running++
		q.deciding++
		q.mu.Unlock()
		defer q.end(1) // also if the client panics
		o.reply, _, o.err = b.askAlone(ctx, client, p, 1, name)
		return o
	}
	w := q.join(ctx, g, name)
	full := len(q.waiting) >= q.most // goes at once, however far the server is
	if free || full {
		q.running++
	}
	q.mu.Unlock()
	if free && !full {
		runtime.Gosched() // whoever has just got an answer too comes along
	}
	if free || full {
		q.begin()
	}
	learned := <-w.learn
	g.Wait(-1)
	if learned.lead != nil {
		o = b.lead(client, p, g, learned.lead)
	} else {
		o = learned.outcome
	}
	if !o.late {
		w.ctx = nil
		q.waiters.Put(w)
	}
	return o
}

// join makes a decision wait. The batcher is locked.
func (q *batcher) join(ctx context.Context, g *gate.Gate, name string) *waiter {
	w := q.waiters.Get().(*waiter)
	w.name, w.ctx, w.told = name, ctx, false
	if q.waiting == nil {
		q.waiting = make([]*waiter, 0, q.most)
	}
	q.waiting = append(q.waiting, w)
	g.Wait(1)
	if q.watched != ctx {
		q.watched = ctx
		context.AfterFunc(ctx, func() { q.expire(ctx, g) })
	}
	return w
}

// free reports whether one more script may be under way. The batcher is locked.
func (q *batcher) free() bool { return q.running < maxScripts || q.deciding < enough }

// end counts a script out, and lets those who wait go on.
func (q *batcher) end(decisions int) {
	q.mu.Lock()
	q.running--
	q.deciding -= decisions
	next := len(q.waiting) > 0 && q.free()
	if next {
		q.running++
	}
	q.mu.Unlock()
	if next {
		q.begin()
	}
}

// begin lets those who wait go on, in a script that is counted as running.
func (q *batcher) begin() {
	q.mu.Lock()
	together := q.waiting
	switch n := len(together); {
	case n == 0: // another script took them along, or their time is over
		q.running--
		q.mu.Unlock()
		return
	case n > q.most:
		together, q.waiting = together[:q.most:q.most], together[q.most:]
	default:
		q.waiting = nil
	}
	r := &ride{waiters: together, lead: together[0]}
	latest, _ := r.lead.ctx.Deadline()
	for _, w := range together[1:] {
		if end, _ := w.ctx.Deadline(); !end.Before(latest) {
			r.lead, latest = w, end
		}
	}
	r.lead.told = true
	q.rides[r] = struct{}{}
	q.shared = len(together) > 1
	q.deciding += len(together)
	q.mu.Unlock()
	r.lead.learn <- lesson{lead: r}
}

// expire tells all whose time ctx was that it is over, but not those who lead, whose script it ends.
func (q *batcher) expire(ctx context.Context, g *gate.Gate) {
	late := lesson{outcome: outcome{late: true, err: g.Cause(ctx, ctx.Err())}}
	var over []*waiter
	ends := func(w *waiter) bool {
		if w.ctx != ctx || w.told {
			return false
		}
		w.told = true
		over = append(over, w)
		return true
	}
	q.mu.Lock()
	left := make([]*waiter, 0, q.most) // a new one: rides hold parts of the old
	for _, w := range q.waiting {
		if !ends(w) {
			left = append(left, w)
		}
	}
	q.waiting = left
	for r := range q.rides {
		for _, w := range r.waiters {
			ends(w)
		}
	}
	q.mu.Unlock()
	for _, w := range over {
		w.learn <- late
	}
}

// lead decides for all of a ride, tells the others what came of it, and returns what is for the one who leads.
func (b *Backend) lead(client rueidis.Client, p *plan, g *gate.Gate, r *ride) (own outcome) {
	q := p.batcher
	outcomes := func(int) outcome { return outcome{err: errors.New("the client panicked")} }
	running := true
	end := func() {
		if running {
			running = false
			q.end(len(r.waiters))
		}
	}
	defer func() { // also if the client panics
		end()
		q.tell(r, outcomes)
	}()
	if len(r.waiters) == 1 || g.Open() { // whether the server answers is for one to find out
		q.tell(r, func(int) outcome { return outcome{err: gate.ErrOpen} })
		own.reply, _, own.err = b.askAlone(r.lead.ctx, client, p, 1, r.lead.name)
		return own
	}
	names := make([]string, len(r.waiters))
	for i, w := range r.waiters {
		names[i] = w.name
	}
	said, _, err := b.link.eval(r.lead.ctx, client, call{q.script(), p.call(1, b.now()).args}, names...)
	end() // before the replies are read: the next script need not wait for that
	var replies []rueidis.RedisMessage
	if err == nil {
		replies, err = said.ToArray()
	}
	if err == nil && len(replies) != len(names) {
		err = errors.New("the reply of the script is not one for each key")
	}
	refused := refusedWhole(err)
	if refused && strings.HasPrefix(err.Error(), "CROSSSLOT") {
		q.off.Store(true)
	}
	outcomes = func(i int) (o outcome) {
		if o.err = err; err == nil {
			o.reply, o.err = replies[i].ToString()
		}
		if o.alone = refused || rueidis.IsRedisNil(o.err); o.alone {
			o.err = nil
		}
		return o
	}
	return outcomes(slices.Index(r.waiters, r.lead))
}

// refusedWhole reports whether the server did not run a script because of some of its keys: each has to ask for its own.
func refusedWhole(err error) bool {
	answer, ok := rueidis.IsRedisErr(err)
	return ok && (strings.HasPrefix(answer.Error(), "NOPERM") || strings.HasPrefix(answer.Error(), "CROSSSLOT"))
}

// tell ends a ride, unless it has ended: whoever of it has learned nothing yet learns what came of it.
func (q *batcher) tell(r *ride, outcomes func(int) outcome) {
	q.mu.Lock()
	if _, ok := q.rides[r]; !ok { // its waiters may be in use again
		q.mu.Unlock()
		return
	}
	delete(q.rides, r)
	waits := make([]bool, len(r.waiters))
	for i, w := range r.waiters {
		waits[i], w.told = !w.told, true
	}
	q.mu.Unlock()
	for i, w := range r.waiters {
		if waits[i] {
			w.learn <- lesson{outcome: outcomes(i)}
		}
	}
}
