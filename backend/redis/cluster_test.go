package redis_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/backendtest"
	"github.com/ginlimit/ginlimit/backend/redis"
	"github.com/ginlimit/ginlimit/internal/testserver"
)

const clusterSoon = 30 * time.Second // what a busy machine may take for a failover

// TestCluster runs on three masters with a replica each. Its parts go on with what the ones before
// left of the cluster.
func TestCluster(t *testing.T) {
	c := testserver.RedisCluster(t, 3, 1)
	t.Run("Conformance", func(t *testing.T) { clusterConformance(t, c) })
	t.Run("Spread", func(t *testing.T) { clusterSpread(t, c) })
	t.Run("DenyCache", func(t *testing.T) { clusterDenyCache(t, c) })
	t.Run("TakeAll", func(t *testing.T) { clusterTakeAll(t, c) })
	t.Run("Scripts", func(t *testing.T) { clusterScripts(t, c) })
	t.Run("Close", func(t *testing.T) { clusterClose(t, c) })
	t.Run("Reshard", func(t *testing.T) { clusterReshard(t, c) })
	t.Run("Failover", func(t *testing.T) { clusterFailover(t, c) })
	t.Run("Kill", func(t *testing.T) { clusterKill(t, c) })
}

func clusterConformance(t *testing.T, c *testserver.Cluster) {
	option, err := rueidis.ParseURL(c.URL())
	require.NoError(t, err)
	client, err := rueidis.NewClient(option)
	require.NoError(t, err)
	t.Cleanup(client.Close)
	require.Equal(t, rueidis.ClientModeCluster, client.Mode())
	backendtest.Run(t, backendtest.Harness{
		New: func(*testing.T) (backend.Backend, func(time.Duration)) {
			b := redis.New(client, redis.WithPrefix(prefix()), redis.WithTimeout(dialBudget))
			clock := newSettable()
			redis.SetClock(b, clock.micros.Load)
			return b, clock.advance
		},
		Backward: true,
		TTL: func(t *testing.T, b backend.Backend, key string) time.Duration {
			return kept(t, client, redis.StateKey(b.(*redis.Backend), key), redis.Now(b.(*redis.Backend)))
		},
		Rounds:   1,
		Callers:  500,
		OneByOne: true, // keys of several slots
	})
}

// clusterOwners returns how many keys that begin with prefix each server holds as their master.
func clusterOwners(t *testing.T, c *testserver.Cluster, prefix string) map[*testserver.Server]int {
	t.Helper()
	owners := make(map[*testserver.Server]int)
	for _, s := range c.Servers {
		if s.Info("replication", "role") != "master" {
			continue
		}
		keys, err := s.Do("KEYS", prefix+"*")
		require.NoError(t, err)
		owners[s] = len(keys.([]any))
	}
	return owners
}

// Keys spread over all masters; each has one key in Redis, for all of its limits.
func clusterSpread(t *testing.T, c *testserver.Cluster) {
	const n = 200
	p := prefix()
	b := dialBackend(t, c.URL(), redis.WithPing(), redis.WithPrefix(p))
	limits := []backend.Limit{
		dialLimit(2, backend.TokenBucket), dialLimit(3, backend.SlidingWindow),
		dialLimit(4, backend.SlidingLog), dialLimit(5, backend.FixedWindow),
	}
	for i := range n {
		for j := range 3 {
			res, err := b.Take(t.Context(), fmt.Sprint("spread\x00", i), 1, limits...)
			require.NoError(t, err)
			require.Equal(t, j < 2, res.Allowed)
		}
	}
	owners := clusterOwners(t, c, p)
	require.Len(t, owners, 3)
	total := 0
	for s, keys := range owners {
		assert.Greater(t, keys, n/10, "keys at %s", s.Addr())
		total += keys
	}
	assert.Equal(t, n, total)
	for i := range n {
		require.NoError(t, b.Reset(t.Context(), fmt.Sprint("spread\x00", i)))
	}
	for s, keys := range clusterOwners(t, c, p) {
		assert.Zero(t, keys, "keys at %s", s.Addr())
	}
}

// Refusals are remembered, whatever master they come from, until the key is reset anywhere.
func clusterDenyCache(t *testing.T, c *testserver.Cluster) {
	p := prefix()
	b, other := dialBackend(t, c.URL(), redis.WithPrefix(p)), dialBackend(t, c.URL(), redis.WithPrefix(p))
	limit := dialLimit(1)
	for _, b := range []*redis.Backend{b, other} { // a busy cluster may say CLUSTERDOWN at first
		require.Eventually(t, func() bool {
			_, err := b.Take(context.Background(), "look", 1, limit)
			return err == nil && redis.Remembers(b)
		}, clusterSoon, 50*time.Millisecond)
	}
	owners := make(map[*testserver.Server]bool)
	for i := 0; len(owners) < 3; i++ {
		key := fmt.Sprint("deny\x00", i)
		owner := c.Owner(redis.StateKey(b, key))
		if owners[owner] {
			continue
		}
		owners[owner] = true
		_, err := b.Take(t.Context(), key, 1, limit)
		require.NoError(t, err)
		dialRemembered(t, b, key, limit)

		_, err = owner.Do("CONFIG", "RESETSTAT")
		require.NoError(t, err)
		for range 100 {
			res, err := b.Take(t.Context(), key, 1, limit)
			require.NoError(t, err)
			require.False(t, res.Allowed)
			require.Equal(t, backend.SourceDenyCache, res.Source)
		}
		assert.Empty(t, owner.Info("commandstats", "cmdstat_evalsha"), "a refusal costs no command")
		assert.Empty(t, owner.Info("commandstats", "cmdstat_get"), "a refusal costs no command")

		require.NoError(t, other.Reset(t.Context(), key))
		dialEventually(t, func() bool {
			res, err := b.Take(t.Context(), key, 1, limit)
			require.NoError(t, err)
			return res.Allowed
		})
	}
}

// A TakeAll charges all of its keys or none, whatever masters they are on, by one script for each
// slot.
func clusterTakeAll(t *testing.T, c *testserver.Cluster) {
	b := dialBackend(t, c.URL(), redis.WithPrefix(prefix()), redis.WithDenyCache(false))
	scripts := func() (n int) {
		for _, s := range c.Servers {
			n += calls(t, s)["evalsha"]
		}
		return n
	}
	all := func(keys ...string) []backend.Result {
		var charges []backend.Charge
		for _, key := range keys {
			charges = append(charges, backend.Charge{Key: key, Cost: 2, Limits: []backend.Limit{dialLimit(3)}})
		}
		results, err := b.TakeAll(t.Context(), charges...)
		require.NoError(t, err)
		return results
	}
	// The key that refuses is once in each place among the slots.
	for last := range 4 {
		keys := make([]string, 4)
		for i := range keys {
			keys[i] = fmt.Sprint("all\x00", last, i)
		}
		slices.SortFunc(keys, func(x, y string) int {
			return c.Slot(redis.StateKey(b, x)) - c.Slot(redis.StateKey(b, y))
		})
		dialDecides(t, b)
		res, err := b.Take(t.Context(), keys[last], 2, dialLimit(3))
		require.NoError(t, err)
		require.True(t, res.Allowed)
		given := []string{keys[2], keys[0], keys[3], keys[1]} // in another order
		for i, res := range all(given...) {
			full := given[i] == keys[last]
			require.Equal(t, !full, res.Allowed, "%d: %+v", i, res)
			require.EqualValues(t, map[bool]int64{true: 1, false: 3}[full], res.Remaining, "%d", i)
		}
		for i, key := range keys {
			usage, err := b.Usage(t.Context(), key, dialLimit(3))
			require.NoError(t, err)
			require.EqualValues(t, map[bool]int64{true: 2, false: 0}[i == last], usage[0].Used(), "key %d was charged", i)
		}
		require.NoError(t, b.Reset(t.Context(), keys[last]))
		before := scripts()
		for _, res := range all(given...) {
			require.True(t, res.Allowed)
			require.EqualValues(t, 1, res.Remaining)
		}
		require.Equal(t, len(keys), scripts()-before, "one script for each slot")
	}
}

// A node that does not know the scripts gets them, and the caller does not notice.
func clusterScripts(t *testing.T, c *testserver.Cluster) {
	b := dialBackend(t, c.URL(), redis.WithPrefix(prefix()), redis.WithDenyCache(false))
	for range 2 {
		for i := range 20 {
			_, err := b.Take(t.Context(), fmt.Sprint("script\x00", i), 1, dialLimit(1))
			require.NoError(t, err)
		}
		for _, s := range c.Servers {
			_, err := s.Do("SCRIPT", "FLUSH")
			require.NoError(t, err)
		}
	}
}

func clusterClose(t *testing.T, c *testserver.Cluster) {
	dialLeavesNone(t, func() {
		for range 3 {
			b, err := redis.Dial(t.Context(), c.URL(), dialPatient()...)
			require.NoError(t, err)
			dialDecides(t, b)
			require.NoError(t, b.Close())
			_, err = b.Take(t.Context(), "k", 1, dialLimit(1))
			dialUnavailable(t, err)
		}
	})
}

// clusterLoad takes from keys in 16 goroutines until stop is called, through two Backends as of two
// processes, of which only one remembers refusals.
type clusterLoad struct {
	t        *testing.T
	limit    backend.Limit
	keys     []string
	backends [2]*redis.Backend
	admitted []atomic.Int64 // for each key
	calls    atomic.Int64
	errors   atomic.Int64
	halt     func() // ends the goroutines
	wg       sync.WaitGroup
}

// startLoad begins once every goroutine has had a decision.
func startLoad(t *testing.T, url string, limit backend.Limit, p string, keys []string) *clusterLoad {
	l := &clusterLoad{t: t, limit: limit, keys: keys, admitted: make([]atomic.Int64, len(keys))}
	l.backends[0] = dialBackend(t, url, redis.WithPrefix(p))
	l.backends[1] = dialBackend(t, url, redis.WithPrefix(p), redis.WithDenyCache(false))
	ctx, cancel := context.WithCancel(context.Background())
	l.halt = func() {
		cancel()
		l.wg.Wait()
	}
	t.Cleanup(l.halt)
	for g := range 16 {
		l.wg.Go(func() {
			for i := g; ctx.Err() == nil; i++ {
				l.take(l.backends[g%2], i*7%len(keys))
			}
		})
	}
	l.wait(16)
	return l
}

func (l *clusterLoad) take(b *redis.Backend, key int) (allowed bool) {
	res, err := b.Take(context.Background(), l.keys[key], 1, l.limit)
	l.calls.Add(1)
	switch {
	case err != nil:
		assert.ErrorIs(l.t, err, backend.ErrUnavailable)
		if l.errors.Add(1) <= 5 {
			l.t.Log(err)
		}
	case res.Allowed:
		l.admitted[key].Add(1)
	}
	return err != nil || res.Allowed
}

// wait returns after n more calls.
func (l *clusterLoad) wait(n int64) {
	l.t.Helper()
	until := l.calls.Load() + n
	dialWithin(l.t, clusterSoon, func() bool { return l.calls.Load() >= until })
}

// stop ends the load and then spends what every key has left.
func (l *clusterLoad) stop() {
	l.halt()
	for key := range l.keys {
		for l.take(l.backends[key%2], key) {
			if l.t.Failed() {
				return
			}
		}
	}
}

// exactly fails the test unless every key admitted its limit: no unit was lost, none was given
// twice.
func (l *clusterLoad) exactly() {
	l.t.Helper()
	require.Zero(l.t, l.errors.Load(), "of %d calls", l.calls.Load())
	for i := range l.keys {
		require.Equal(l.t, l.limit.Count, l.admitted[i].Load(), "of %q", l.keys[i])
	}
	l.t.Logf("%d calls", l.calls.Load())
}

// Slots move to other masters under load, and their keys one at a time: no call fails, and every
// key admits its limit.
func clusterReshard(t *testing.T, c *testserver.Cluster) {
	const slots, each = 50, 4 // half of the slots move
	p := prefix()
	names := redis.New(newClient(t, c.Servers[0].Addr(), false), redis.WithPrefix(p), redis.WithDenyCache(false))
	var keys []string
	inSlot := make(map[int][]string)
	for i := 0; len(keys) < slots*each; i++ { // keys of which four share a slot
		key := fmt.Sprint("move\x00", i)
		slot := c.Slot(redis.StateKey(names, key))
		if inSlot[slot] = append(inSlot[slot], key); len(inSlot[slot]) == each {
			keys = append(keys, inSlot[slot]...)
		}
	}
	load := startLoad(t, c.URL(), dialLimit(100, backend.TokenBucket), p, keys)
	for i := 0; i < len(keys); i += 2 * each {
		name := redis.StateKey(names, keys[i])
		from := c.Owner(name)
		for _, to := range c.Servers[:3] {
			if to != from {
				require.NoError(t, c.MigrateSlot(c.Slot(name), to, func() { load.wait(50) }))
				break
			}
		}
	}
	load.stop()
	load.exactly()
}

// clusterReplicated waits until the replica has all that its master has.
func clusterReplicated(t *testing.T, master, replica *testserver.Server) {
	t.Helper()
	offset, err := strconv.Atoi(master.Info("replication", "master_repl_offset"))
	require.NoError(t, err)
	dialEventually(t, func() bool {
		have, _ := strconv.Atoi(replica.Info("replication", "slave_repl_offset"))
		return have >= offset
	})
}

// The address of a server with IPv6 is the same in Breakers as everywhere else.
func TestClusterIPv6(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	require.NoError(t, err)
	l.Close()
	var servers [2]*testserver.Server
	var ports [2]string
	for i := range servers {
		servers[i] = testserver.Redis(t, "--cluster-enabled", "yes", "--bind", "::1", "127.0.0.1", "--cluster-announce-ip", "::1")
		_, ports[i], _ = net.SplitHostPort(servers[i].Addr())
	}
	for _, command := range [][]string{{"ADDSLOTSRANGE", "8192", "16383"}, {"SET-CONFIG-EPOCH", "2"}} {
		ask(t, servers[1], append([]string{"CLUSTER"}, command...)...)
	}
	ask(t, servers[0], "CLUSTER", "ADDSLOTSRANGE", "0", "8191")
	ask(t, servers[0], "CLUSTER", "MEET", "::1", ports[1])
	for _, s := range servers {
		dialWithin(t, clusterSoon, func() bool {
			return len(ask(t, s, "CLUSTER", "SLOTS").([]any)) == 2 && strings.Contains(ask(t, s, "CLUSTER", "INFO").(string), "cluster_state:ok")
		})
	}
	b := dialBackend(t, "redis://[::1]:"+ports[0]+"?addr=[::1]:"+ports[1], redis.WithPing())
	assert.Equal(t, map[string]bool{"[::1]:" + ports[0]: false, "[::1]:" + ports[1]: false}, b.Breakers())
}

// clusterKeysOf returns n keys of b whose master is owner.
func clusterKeysOf(c *testserver.Cluster, b *redis.Backend, owner *testserver.Server, n int) (keys []string) {
	for i := 0; len(keys) < n; i++ {
		if key := fmt.Sprint("of ", owner.Addr(), "\x00", i); c.Owner(redis.StateKey(b, key)) == owner {
			keys = append(keys, key)
		}
	}
	return keys
}

// A master hands over to its replica under load. The old one stops for that until the new one has
// everything, so that nothing is lost: every key admits its limit.
func clusterFailover(t *testing.T, c *testserver.Cluster) {
	master, replica := c.Servers[1], c.Servers[4]
	p := prefix()
	b := dialBackend(t, c.URL(), redis.WithPrefix(p))
	keys := clusterKeysOf(c, b, master, 40)
	idle, busy := keys[:10], keys[10:]
	for _, key := range idle {
		_, err := b.Take(t.Context(), key, 1, dialLimit(1))
		require.NoError(t, err)
	}
	clusterReplicated(t, master, replica)
	load := startLoad(t, c.URL(), dialLimit(300), p, busy)
	require.NoError(t, c.Failover(replica))
	load.wait(500)
	load.stop()
	load.exactly()
	require.Equal(t, replica, c.Owner(redis.StateKey(b, busy[0])))
	for _, key := range idle {
		res, err := b.Take(t.Context(), key, 1, dialLimit(1))
		require.NoError(t, err)
		assert.False(t, res.Allowed, "%q", key)
	}
	dialRemembered(t, b, idle[0], dialLimit(1))
}

// A master dies. Keys of other shards are decided until the cluster itself is down; when the
// replica has taken over, all are again, by the same Backend, and what was replicated counts.
func clusterKill(t *testing.T, c *testserver.Cluster) {
	master, replica := c.Servers[0], c.Servers[3]
	p := prefix()
	b, other := dialBackend(t, c.URL(), redis.WithPrefix(p)), dialBackend(t, c.URL(), redis.WithPrefix(p))
	lost := clusterKeysOf(c, b, master, 10)
	stay := clusterKeysOf(c, b, c.Servers[2], 1)[0]
	one, many := dialLimit(1), dialLimit(1_000_000)
	for _, key := range lost {
		_, err := b.Take(t.Context(), key, 1, one)
		require.NoError(t, err)
	}
	dialRemembered(t, b, lost[0], one)
	clusterReplicated(t, master, replica)
	master.Kill()
	var log dialLog
	late := dialBackend(t, c.URL(), redis.WithPrefix(p), log.option())

	// Until then the shards that live decide.
	alive, down := 0, false
	for end := time.Now().Add(clusterSoon); ; {
		require.True(t, time.Now().Before(end), "no failover")
		start := time.Now()
		_, err := b.Take(t.Context(), stay, 1, many)
		assert.Less(t, time.Since(start), dialSoon)
		if err != nil {
			dialUnavailable(t, err)
			require.True(t, down || strings.Contains(err.Error(), "CLUSTERDOWN"), "%v", err)
			down = true
		} else if !down {
			alive++
		}
		res, err := b.Take(t.Context(), lost[1], 1, one)
		if err == nil {
			require.False(t, res.Allowed)
			break
		}
		dialUnavailable(t, err)
	}
	t.Logf("%d decisions of another shard before the cluster was down", alive)
	assert.Positive(t, alive)

	for _, key := range append(lost, stay) {
		dialWithin(t, clusterSoon, func() bool {
			res, err := b.Take(t.Context(), key, 1, one)
			require.False(t, err == nil && key != stay && res.Allowed, "%q", key)
			return err == nil
		})
	}
	require.Equal(t, replica, c.Owner(redis.StateKey(b, lost[0])))
	for _, key := range lost {
		dialRemembered(t, b, key, one)
		dialWithin(t, clusterSoon, func() bool { return other.Reset(t.Context(), key) == nil })
		dialEventually(t, func() bool {
			res, err := b.Take(t.Context(), key, 1, one)
			require.NoError(t, err)
			return res.Allowed
		})
	}

	// One that was dialled in between is as good.
	dialWithin(t, clusterSoon, func() bool {
		_, err := late.Take(t.Context(), stay, 1, many)
		require.NoError(t, err)
		return redis.Remembers(late)
	})
	assert.Empty(t, log.String())
}

// A cluster that is down for a moment when the application starts is asked again later whether it
// has client-side caching, and is not complained of twice.
func TestClusterDownAtStart(t *testing.T) {
	t.Parallel()
	c := testserver.RedisCluster(t, 1, 0)
	server := c.Servers[0]
	for _, command := range [][]string{
		{"CONFIG", "SET", "maxmemory", "50mb"}, {"CONFIG", "SET", "maxmemory-policy", "allkeys-lru"},
		{"CLUSTER", "DELSLOTS", "0"},
	} {
		_, err := server.Do(command...)
		require.NoError(t, err)
	}
	dialEventually(t, func() bool {
		_, err := server.Do("GET", "k")
		return err != nil && strings.Contains(err.Error(), "CLUSTERDOWN")
	})
	var log dialLog
	b := dialBackend(t, c.URL(), redis.WithTimeout(time.Second), log.option())
	_, err := b.Take(t.Context(), "k", 1, dialLimit(1))
	dialUnavailable(t, err)
	_, err = server.Do("CLUSTER", "ADDSLOTS", "0")
	require.NoError(t, err)
	dialEventually(t, func() bool {
		_, err := b.Take(t.Context(), "k", 0, dialLimit(1))
		return err == nil && redis.Remembers(b)
	})
	assert.Equal(t, 1, log.count("GINLIMIT005"), "%v", &log)
	assert.Zero(t, log.count("GINLIMIT006"), "%v", &log)
}
