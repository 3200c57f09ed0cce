package redis

import (
	"context"
	"errors"
	"runtime"
	"sync"

	"github.com/redis/rueidis"

	"github.com/ginlimit/ginlimit/internal/gate"
)

// A decision has to wait while maxScripts scripts and enough decisions are under way. Fewer scripts leave the server idle
// while their replies are read; with more each decides less. Where there are no more callers than enough, all go alone:
// with 8 goroutines that is 15 % faster than waiting.
const (
	maxScripts = 4
	enough     = 8
)

// batcher puts decisions under the same limits together: when a script ends, one of those who wait leads. It sends the
// script that decides for all of them, and tells the others. Nobody waits for others to come, and there is no goroutine
// but those of the callers.
type batcher struct {
	script func() *script
	most   int // decisions in a script

	mu       sync.Mutex
	running  int       // scripts under way; at least one if somebody waits
	deciding int       // decisions in them
	shared   bool      // the last script that somebody waited for was for several
	waiting  []*waiter // longest first
}

// waiter is a decision that waits. It learns one thing: that it leads, or what came of it.
type waiter struct {
	name  string // of the key in Redis
	learn chan lesson
}

type lesson struct {
	lead []*waiter // those to decide for; the first is the one who leads
	outcome
}

type outcome struct {
	reply string
	alone bool // nothing was written: the script for one key has to decide
	err   error
}

var waiters = sync.Pool{New: func() any { return &waiter{learn: make(chan lesson, 1)} }}

// ask sends a decision, in a batch if it can be, and returns the reply of the script and the gate that it went through.
func (b *Backend) ask(ctx context.Context, client rueidis.Client, p *plan, cost int64, name string) (reply string, g *gate.Gate, err error) {
	if p.batcher != nil && cost == 1 && client.Mode() != rueidis.ClientModeCluster {
		g = b.link.gates.Load().of(0)
		// Those of a batch have its time together. A caller with less than that goes alone.
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

// askTogether is ask for a cost of one. ctx is of g, so that nobody who leads has more time left than those who came later.
func (b *Backend) askTogether(ctx context.Context, client rueidis.Client, p *plan, g *gate.Gate, name string) (o outcome) {
	q := p.batcher
	q.mu.Lock()
	free := q.free()
	if free {
		q.running++
	}
	if free && !q.shared {
		q.deciding++
		q.mu.Unlock()
		o.reply, _, o.err = b.askAlone(ctx, client, p, 1, name)
		q.end(1)
		return o
	}
	w := waiters.Get().(*waiter)
	w.name = name
	if q.waiting == nil {
		q.waiting = make([]*waiter, 0, q.most)
	}
	q.waiting = append(q.waiting, w)
	q.mu.Unlock()
	if free {
		runtime.Gosched() // whoever has just got an answer too comes along
		q.begin()
	}
	learned := <-w.learn
	if learned.lead != nil {
		o = b.lead(ctx, client, p, g, learned.lead)
	} else if o = learned.outcome; o.err != nil {
		g.Record(end(o.err, true)) // of a script's failure, who leads has told the gate once
	}
	waiters.Put(w)
	return o
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
	case n == 0: // another script took them along
		q.running--
		q.mu.Unlock()
		return
	case n > q.most:
		together, q.waiting = together[:q.most:q.most], together[q.most:]
	default:
		q.waiting = nil
	}
	q.shared = len(together) > 1
	q.deciding += len(together)
	q.mu.Unlock()
	together[0].learn <- lesson{lead: together}
}

// lead decides for all of together, tells the others what came of it, and returns what is for the first.
func (b *Backend) lead(ctx context.Context, client rueidis.Client, p *plan, g *gate.Gate, together []*waiter) (own outcome) {
	q := p.batcher
	if err := ctx.Err(); err != nil { // the others may have time left
		if len(together) > 1 {
			q.mu.Lock()
			q.deciding--
			q.mu.Unlock()
			together[1].learn <- lesson{lead: together[1:]}
		} else {
			q.end(1)
		}
		err = g.Cause(ctx, err)
		g.Record(end(err, true))
		return outcome{err: err}
	}
	if len(together) == 1 {
		own.reply, _, own.err = b.askAlone(ctx, client, p, 1, together[0].name)
		q.end(1)
		return own
	}
	names := make([]string, len(together))
	for i, w := range together {
		names[i] = w.name
	}
	said, _, err := b.link.eval(ctx, client, call{q.script(), p.call(1, b.now()).args}, names...)
	q.end(len(together))
	var replies []rueidis.RedisMessage
	if err == nil {
		replies, err = said.ToArray()
	}
	if err == nil && len(replies) != len(names) {
		err = errors.New("the reply of the script is not one for each key")
	}
	for i, w := range together {
		o := outcome{err: err}
		if err == nil {
			o.reply, o.err = replies[i].ToString()
			if o.alone = rueidis.IsRedisNil(o.err); o.alone {
				o.err = nil
			}
		}
		if i == 0 {
			own = o
		} else {
			w.learn <- lesson{outcome: o}
		}
	}
	return own
}
