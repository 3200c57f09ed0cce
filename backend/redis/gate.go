package redis

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

// gate stands before one server: it bounds how many calls are under way, and lets none through while the server does not
// answer. A circuit breaker of a library would do, but for two things: this one costs a few atomic operations, where the
// decision itself costs the process about 5 µs under load (sony/gobreaker takes a mutex twice for each call); and the
// bound and the breaker have to be one, because what waits at the bound when the breaker opens must not go through.
//
// The bound is there because rueidis keeps commands in a ring of 1,024 for each connection, and a caller that finds the
// ring full waits whatever its context says. A command stays in the ring when its caller gave up; that is why the breaker
// is asked again after waiting.
type gate struct {
	slots    chan struct{}
	failures atomic.Int32 // in a row
	closed   atomic.Int64 // until when nobody goes through, in ns since started; 0 if anybody may
}

const (
	// maxInFlight bounds the calls under way at one server: half of a ring.
	maxInFlight = 512
	// maxFailures is the number of calls in a row that have to fail for the gate to close the way.
	maxFailures = 5
	// closedTime is how long nobody goes through then. After it, one call at a time probes the server.
	closedTime = 200 * time.Millisecond
)

var started = time.Now()

func newGate() *gate { return &gate{slots: make(chan struct{}, maxInFlight)} }

// enter returns nil if the caller may go through; then it has to call leave. It waits for its turn until ctx ends.
func (g *gate) enter(ctx context.Context) error {
	if err := g.pass(); err != nil {
		return err
	}
	select {
	case g.slots <- struct{}{}:
		return nil
	default:
	}
	select {
	case g.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := g.pass(); err != nil {
		<-g.slots
		return err
	}
	return nil
}

// pass returns nil if the way is open, or if it was closed for long enough and the caller is the one to try it.
func (g *gate) pass() error {
	until := g.closed.Load()
	if until == 0 {
		return nil
	}
	now := time.Since(started)
	if int64(now) < until || !g.closed.CompareAndSwap(until, int64(now+closedTime)) {
		return ErrBreakerOpen
	}
	return nil
}

// leave ends a call that entered.
func (g *gate) leave(err error, ours bool) {
	<-g.slots
	g.record(err, ours)
}

// record counts how a call ended. Whatever the server itself answers shows that it is there. A call that its own caller
// gave up, or gave less than our time, says nothing; ours is false then.
func (g *gate) record(err error, ours bool) {
	if !unreachable(err) {
		if g.failures.Load() != 0 {
			g.failures.Store(0)
		}
		if g.closed.Load() != 0 {
			g.closed.Store(0)
		}
		return
	}
	if gaveUp(err) && !ours || errors.Is(err, rueidis.ErrClosing) {
		return
	}
	if g.failures.Add(1) >= maxFailures {
		g.closed.CompareAndSwap(0, int64(time.Since(started)+closedTime))
	}
}

// gates are those of all servers: one, or one for each shard of a Cluster, so that one that is down does not stop the
// others. Shards are told apart by the slots that they had when the gates were made; if slots move later, a gate stands
// before parts of two servers, which makes it less exact and not wrong.
type gates struct {
	all    []*gate
	shards *[16384]uint8 // index of all, by slot; nil if there is one
}

func (gs *gates) of(slot uint16) *gate {
	if gs.shards == nil {
		return gs.all[0]
	}
	return gs.all[gs.shards[slot%16384]]
}

// findShards gives each shard of a Cluster a gate of its own. It reports false if the Cluster did not answer.
func (l *link) findShards(ctx context.Context, client rueidis.Client) bool {
	if client.Mode() != rueidis.ClientModeCluster {
		return true
	}
	ranges, err := client.Do(ctx, client.B().ClusterSlots().Build()).ToArray()
	if err != nil {
		return !unreachable(err)
	}
	gs := &gates{shards: new([16384]uint8)}
	index := map[string]uint8{}
	for _, r := range ranges {
		fields, err := r.ToArray()
		if err != nil || len(fields) < 3 {
			continue
		}
		from, err1 := fields[0].AsInt64()
		to, err2 := fields[1].AsInt64()
		master, err3 := fields[2].ToArray()
		if errors.Join(err1, err2, err3) != nil || from < 0 || to >= 16384 || len(master) < 2 {
			continue
		}
		host, _ := master[0].ToString()
		port, _ := master[1].AsInt64()
		name := fmt.Sprint(host, ":", port)
		i, known := index[name]
		if !known {
			if len(gs.all) == 256 {
				return true // one gate for all
			}
			i = uint8(len(gs.all))
			index[name] = i
			gs.all = append(gs.all, newGate())
		}
		for slot := from; slot <= to; slot++ {
			gs.shards[slot] = i
		}
	}
	if len(gs.all) > 1 {
		l.gates.Store(gs)
	}
	return true
}
