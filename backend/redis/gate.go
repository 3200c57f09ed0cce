package redis

import (
	"context"
	"errors"
	"maps"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"github.com/ginlimit/ginlimit/internal/gate"
)

// maxInFlight bounds the calls under way at one server. It is there because rueidis keeps commands in a ring of 1,024 for
// each connection, and a caller that finds the ring full waits whatever its context says: this is half of a ring. A
// command stays in the ring when its caller gave up; it counts until the server answers.
const maxInFlight = 512

// end tells what err, of a call under ctx that entered a gate, says about the server. Whatever the server itself answers
// shows that it is there. A call that its own caller gave up, or gave less than our time, says nothing; ours is false then.
func (l *link) end(ctx context.Context, err error, ours bool, entered time.Time) gate.End {
	switch {
	case !unreachable(err):
		return gate.Answered
	case errors.Is(err, rueidis.ErrClosing), errors.Is(err, gate.ErrOpen), l.othersEnd(ctx, err, entered):
		return gate.Unknown
	case !gaveUp(err) || !over(ctx): // such as the dialer's time-out
		return gate.Failed
	case ours:
		return gate.Late
	}
	return gate.Abandoned
}

// othersEnd reports whether err is the end of another call's context. rueidis connects, and reads a key through its cache,
// once for all who ask at the same time: all get what ended that for the first. After the time that it takes at most to
// connect the same error may say that a server takes connections and then is silent.
func (l *link) othersEnd(ctx context.Context, err error, entered time.Time) bool {
	var dial *net.OpError // has the same error in its chain
	if !gaveUp(err) || over(ctx) || errors.As(err, &dial) {
		return false
	}
	connecting := dialTimeout
	if l.option != nil {
		connecting = l.option.Dialer.Timeout
	}
	return time.Since(entered) < connecting
}

// over reports whether ctx has ended, be it that its timer has not run yet: a connection may have the deadline too.
func over(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && !time.Now().Before(deadline)
}

// leave ends a call that entered g. If the gate wants to know whether the server answers, it is asked for a key: that takes
// no longer than a call may, and nobody waits for it.
func (l *link) leave(g *gate.Gate, client rueidis.Client, key string, as gate.End) {
	if !g.Leave(as) {
		return
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), l.timeout)
		defer cancel()
		asked := time.Now()
		g.Asked(l.end(ctx, client.Do(ctx, client.B().Get().Key(key).Build()).Error(), true, asked))
	}()
}

// getCached is a GET through the client's cache, and returns what is left of the time that a call has. found says whether
// the value was in the cache. A read that the server has to answer needs a slot of the gate, as every call, but which reads
// do is not known before. Those for which found was true the last time, as known says, are made without one, so that they do
// not wait for calls of the server. Few of them miss: a value is dropped when its key changes, or when the connection is lost,
// and then a new one has to be made first.
func (l *link) getCached(ctx context.Context, client rueidis.Client, get rueidis.Cacheable, ttl time.Duration, known bool) (value string, found bool, rest context.Context, err error) {
	g, key := l.gates.Load().of(get.Slot()), get.Commands()[1]
	ctx, ours := g.Limit(ctx)
	if known && !g.Open() {
		entered := time.Now()
		value, found, err = l.readCached(ctx, client, g, get, ttl, entered)
		if !found {
			as := l.end(ctx, err, ours, entered)
			if as == gate.Late {
				as = gate.Failed // it had its time
			}
			g.Record(as)
		}
		return value, found, ctx, err
	}
	if err := g.EnterCached(ctx); err != nil {
		return "", false, ctx, err
	}
	entered, as := time.Now(), gate.Unknown // if the client panics
	defer func() { l.leave(g, client, key, as) }()
	value, found, err = l.readCached(ctx, client, g, get, ttl, entered)
	if found {
		as = gate.Unmade
	} else if as = l.end(ctx, err, ours, entered); as == gate.Late {
		// The gate knows of no silence while there are only such calls.
		if as = gate.Unknown; time.Since(entered) >= l.timeout*8/10 {
			as = gate.Failed
		}
	}
	return value, found, ctx, err
}

func (l *link) readCached(ctx context.Context, client rueidis.Client, g *gate.Gate, get rueidis.Cacheable, ttl time.Duration, entered time.Time) (value string, found bool, err error) {
	key := get.Commands()[1]
	res := client.DoCache(ctx, get, ttl)
	if err := res.NonRedisError(); err != nil && l.othersEnd(ctx, err, entered) {
		res = client.DoCache(ctx, client.B().Get().Key(key).Cache().ToStaticTTL(), ttl) // this call has time left
	}
	value, err = res.ToString()
	return value, res.IsCacheHit(), g.Cause(ctx, err)
}

// gates are those of all servers: one, or one for each shard of a Cluster, so that one that is down does not stop the
// others. Shards are told apart by the slots that they had when the gates were made; if slots move later, a gate stands
// before parts of two servers, which makes it less exact and not wrong.
type gates struct {
	all    []*gate.Gate
	names  []string      // of the servers; nil if there is one gate for all
	shards *[16384]uint8 // index of all, by slot; nil if there is one
}

func (gs *gates) of(slot uint16) *gate.Gate {
	if gs.shards == nil {
		return gs.all[0]
	}
	return gs.all[gs.shards[slot%16384]]
}

// findShards gives each shard of a Cluster a gate of its own, unless that was done.
func (l *link) findShards(ctx context.Context, client rueidis.Client) {
	if l.shards.begin() {
		l.shards.end(l.divide(ctx, client))
	}
}

// findShardsLater does the same beside what its caller does. It is cheap once that was done.
func (l *link) findShardsLater(client rueidis.Client) {
	if l.shards.done.Load() || !l.shards.begin() {
		return
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), l.timeout)
		defer cancel()
		l.shards.end(l.divide(ctx, client))
	}()
}

// divide reports false if no server of a Cluster answered. Any of them can: none is waited for that hangs.
func (l *link) divide(ctx context.Context, client rueidis.Client) bool {
	if client.Mode() != rueidis.ClientModeCluster {
		return true
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	refused := false
	for _, res := range askEach(ctx, client.Nodes(), func(b rueidis.Builder) rueidis.Completed { return b.ClusterSlots().Build() }) {
		ranges, err := res.ToArray()
		if err == nil {
			l.divideBy(ranges)
			return true
		}
		refused = refused || !noAnswer(err)
	}
	return refused
}

// divideBy makes the gates of what CLUSTER SLOTS answered.
func (l *link) divideBy(ranges []rueidis.RedisMessage) {
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
		name := net.JoinHostPort(host, strconv.FormatInt(port, 10))
		i, known := index[name]
		if !known {
			if len(gs.all) == 256 {
				return // one gate for all
			}
			i = uint8(len(gs.all))
			index[name] = i
			gs.all, gs.names = append(gs.all, l.newGate(name)), append(gs.names, name)
		}
		for slot := from; slot <= to; slot++ {
			gs.shards[slot] = i
		}
	}
	if len(gs.all) > 1 {
		l.gates.Store(gs)
	}
}

// newGate returns a gate before a server, or before all of them if it has no name.
func (l *link) newGate(server string) *gate.Gate {
	return gate.New(maxInFlight, l.timeout, gate.Log(l.log, "Redis", server))
}

// Breakers tells of each server, by its address, whether its circuit breaker is open: calls for it fail at once. In a
// Cluster every master has one; otherwise there is one for all.
func (b *Backend) Breakers() map[string]bool {
	gs := b.link.gates.Load()
	open := make(map[string]bool, len(gs.all))
	for i, name := range gs.names {
		open[name] = gs.all[i].Open()
	}
	if gs.names == nil {
		open[b.link.name()] = gs.all[0].Open() || b.link.failing()
	}
	return open
}

// failing reports whether there is no client because the last attempt to make one failed, or takes too long.
func (l *link) failing() bool {
	if l.current.Load() != nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err != nil
}

// name returns the address of the one server, or of one of several, always the same.
func (l *link) name() string {
	var addrs []string
	if client := l.current.Load(); client != nil {
		addrs = slices.Sorted(maps.Keys((*client).Nodes()))
	} else if l.option != nil {
		addrs = l.option.InitAddress
	}
	if len(addrs) == 0 {
		return "redis"
	}
	return addrs[0]
}
