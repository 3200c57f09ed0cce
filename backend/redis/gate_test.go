package redis_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/redis"
	"github.com/ginlimit/ginlimit/internal/testserver"
)

var gateLimit = backend.Limit{Count: 1_000_000, Period: time.Hour}

func gateBackend(t *testing.T, url string, opts ...redis.Option) *redis.Backend {
	t.Helper()
	b, err := redis.Dial(t.Context(), url, append(opts, redis.WithPing())...)
	require.NoError(t, err)
	t.Cleanup(func() { b.Close() })
	return b
}

// A server that accepts and never answers costs each caller its time budget at most, and once it is known to hang next to
// nothing. What was decided on meanwhile is an error that a failure policy may let pass. When the server goes on, the
// same Backend does.
func TestAServerThatHangs(t *testing.T) {
	server := testserver.Redis(t)
	b := gateBackend(t, server.URL())
	_, err := b.Take(t.Context(), "k", 1, gateLimit)
	require.NoError(t, err)
	server.Pause()

	var wg sync.WaitGroup
	var slowest, failed, open atomic.Int64
	end := time.Now().Add(time.Second)
	for g := range 1000 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for time.Now().Before(end) {
				start := time.Now()
				_, err := b.Take(context.Background(), fmt.Sprint("k", g%10), 1, gateLimit)
				took := int64(time.Since(start))
				for old := slowest.Load(); took > old && !slowest.CompareAndSwap(old, took); old = slowest.Load() {
				}
				if !errors.Is(err, backend.ErrUnavailable) {
					t.Errorf("got error %v, want one of the store", err)
				}
				failed.Add(1)
				if errors.Is(err, redis.ErrBreakerOpen) {
					open.Add(1)
				}
				time.Sleep(10 * time.Millisecond)
			}
		}()
	}
	wg.Wait()
	t.Logf("%d decisions failed, %d of them at once; the slowest took %v", failed.Load(), open.Load(), time.Duration(slowest.Load()))
	assert.Less(t, time.Duration(slowest.Load()), 2*time.Second, "the slowest")
	assert.Greater(t, open.Load(), failed.Load()/2)

	server.Resume()
	require.Eventually(t, func() bool {
		_, err := b.Take(t.Context(), "k", 1, gateLimit)
		return err == nil
	}, 10*time.Second, 10*time.Millisecond)
}

// A caller that gives up early, or has gone, says nothing about the server.
func TestCallersThatGiveUpDoNotOpenTheBreaker(t *testing.T) {
	server := testserver.Redis(t)
	b := gateBackend(t, server.URL(), redis.WithTimeout(5*time.Second))
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for range 20 {
		_, err := b.Take(gone, "k", 1, gateLimit)
		require.ErrorIs(t, err, context.Canceled)
		require.ErrorIs(t, err, backend.ErrUnavailable)
	}
	server.Pause()
	for range 20 {
		short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		_, err := b.Take(short, "k", 1, gateLimit)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		cancel()
	}
	server.Resume()
	_, err := b.Take(t.Context(), "k", 1, gateLimit)
	require.NoError(t, err)
}

// Callers who never give the server enough time to answer do not make it one that hangs.
func TestTinyDeadlinesDoNotOpenTheBreaker(t *testing.T) {
	b := gateBackend(t, testserver.Redis(t).URL(), redis.WithTimeout(5*time.Second))
	for range 3000 {
		tiny, cancel := context.WithTimeout(t.Context(), 20*time.Microsecond)
		_, err := b.Take(tiny, "k", 1, gateLimit)
		cancel()
		require.NotErrorIs(t, err, redis.ErrBreakerOpen)
	}
	_, err := b.Take(t.Context(), "k", 1, gateLimit)
	require.NoError(t, err)
}

// A server that hangs is found out too if no caller has the time that a call may have, and what they leave behind does
// not fill the connection.
func TestShortDeadlinesOpenTheBreaker(t *testing.T) {
	for _, callers := range []int{1, 64} {
		t.Run(fmt.Sprint(callers), func(t *testing.T) {
			server := testserver.Redis(t)
			b := gateBackend(t, server.URL())
			_, err := b.Take(t.Context(), "k", 1, gateLimit)
			require.NoError(t, err)
			server.Pause()
			var wg sync.WaitGroup
			var failed, open, slow, slowest atomic.Int64
			end := time.Now().Add(1500 * time.Millisecond)
			for range callers {
				wg.Go(func() {
					for time.Now().Before(end) {
						short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
						start := time.Now()
						_, err := b.Take(short, "k", 1, gateLimit)
						took := int64(time.Since(start))
						cancel()
						for old := slowest.Load(); took > old && !slowest.CompareAndSwap(old, took); old = slowest.Load() {
						}
						assert.ErrorIs(t, err, backend.ErrUnavailable)
						failed.Add(1)
						if took > int64(100*time.Millisecond) {
							slow.Add(1)
						}
						if errors.Is(err, redis.ErrBreakerOpen) {
							open.Add(1)
							time.Sleep(time.Millisecond)
						}
					}
				})
			}
			wg.Wait()
			t.Logf("%d decisions failed, %d of them at once, %d took more than 100 ms; the slowest took %v", failed.Load(), open.Load(), slow.Load(),
				time.Duration(slowest.Load()))
			assert.Greater(t, open.Load(), failed.Load()/2)
			assert.LessOrEqual(t, slow.Load(), int64(20), "the probes, when the client connects anew")
			assert.Less(t, time.Duration(slowest.Load()), 2*time.Second, "the slowest")
			server.Resume()
			require.Eventually(t, func() bool {
				short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
				defer cancel()
				_, err := b.Take(short, "k", 1, gateLimit)
				return err == nil
			}, 10*time.Second, 10*time.Millisecond)
		})
	}
}

// Nor does a caller whose time is too short to connect, which it does for others too: that is not the server's failure.
func TestAnothersShortTimeToConnect(t *testing.T) {
	s := testserver.Redis(t)
	px := newFaultProxy(t, s.Addr())
	b := gateBackend(t, "redis://"+px.addr, redis.WithTimeout(10*time.Second))
	_, err := b.Take(t.Context(), "k", 1, gateLimit)
	require.NoError(t, err)
	px.delay.Store(int64(60 * time.Millisecond))
	px.closeAll()
	require.Eventually(t, func() bool { return s.Info("clients", "connected_clients") == "1" }, soon, time.Millisecond)
	var wg sync.WaitGroup
	short, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	for i := range 9 {
		wg.Go(func() {
			ctx := context.Background()
			if i == 0 {
				ctx = short
			}
			_, _ = b.Take(ctx, "k", 1, gateLimit)
		})
		if i == 0 {
			time.Sleep(10 * time.Millisecond)
		}
	}
	wg.Wait()
	require.False(t, b.Breakers()[px.addr])
	_, err = b.Take(t.Context(), "k", 1, gateLimit)
	require.NoError(t, err)
}

// A server that takes connections and answers nothing opens the breaker, also where a decision has more time than connecting:
// then no context ends, but the connections.
func TestAServerThatHangsWithTimeToSpare(t *testing.T) {
	t.Parallel()
	s := testserver.Redis(t)
	b := gateBackend(t, s.URL(), redis.WithTimeout(5*time.Second))
	_, err := b.Take(t.Context(), "k", 1, gateLimit)
	require.NoError(t, err)
	s.Pause()
	defer s.Resume()
	calls := 0
	for ; calls < 20 && !b.Breakers()[s.Addr()]; calls++ {
		_, err := b.Take(t.Context(), "k", 1, gateLimit)
		require.ErrorIs(t, err, backend.ErrUnavailable)
	}
	assert.Less(t, calls, 10)
}

// A client that panics, as one that is wrapped may, takes no slot of the bound with it.
func TestAClientThatPanics(t *testing.T) {
	client := &panickingClient{Client: newClient(t, testserver.Redis(t).Addr(), true)}
	b := redis.New(client, redis.WithTimeout(time.Second))
	limit, tiers := hourly(1, backend.FixedWindow), b.Tiers()
	decide(t, b, "denied", 1, limit)
	decide(t, b, "denied", 1, limit)
	require.Equal(t, 1, redis.DenialsLen(b))
	client.on.Store(true)
	for name, call := range map[string]func(){
		"take":    func() { _, _ = b.Take(t.Context(), "k", 1, limit) },
		"refusal": func() { _, _ = b.Take(t.Context(), "denied", 1, limit) },
		"reset":   func() { _ = b.Reset(t.Context(), "k") },
		"tier":    func() { _, _ = tiers.Lookup(t.Context(), "c") },
	} {
		require.PanicsWithValue(t, "of the client", call, name)
		assert.Zero(t, redis.Calls(b), name)
	}
	client.on.Store(false)
	decide(t, b, "k", 1, limit)
}

type panickingClient struct {
	rueidis.Client
	on atomic.Bool
}

func (c *panickingClient) Do(ctx context.Context, cmd rueidis.Completed) rueidis.RedisResult {
	if c.on.Load() {
		panic("of the client")
	}
	return c.Client.Do(ctx, cmd)
}

func (c *panickingClient) DoCache(ctx context.Context, cmd rueidis.Cacheable, ttl time.Duration) rueidis.RedisResult {
	if c.on.Load() {
		panic("of the client")
	}
	return c.Client.DoCache(ctx, cmd, ttl)
}

// Nobody is charged twice, and a charge whose caller gave up counts at most once.
func TestCallersThatGiveUpAreChargedAtMostOnce(t *testing.T) {
	server := testserver.Redis(t)
	b := gateBackend(t, server.URL(), redis.WithTimeout(time.Second))
	var asked, told int64
	for i := range 200 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*2*time.Microsecond)
		res, err := b.Take(ctx, "k", 1, gateLimit.WithAlgorithm(backend.FixedWindow))
		cancel()
		if asked++; err == nil && res.Allowed {
			told++
		}
	}
	require.Eventually(t, func() bool {
		res, err := b.Take(t.Context(), "k", 0, gateLimit.WithAlgorithm(backend.FixedWindow))
		used := gateLimit.Count - res.Remaining
		return err == nil && used >= told && used <= asked
	}, 5*time.Second, 10*time.Millisecond)
}

// One shard of a Cluster that hangs does not stop the others.
func TestAShardThatHangs(t *testing.T) {
	c := testserver.RedisCluster(t, 3, 0)
	b := gateBackend(t, c.URL())
	_, err := b.Take(t.Context(), "k", 1, gateLimit)
	require.NoError(t, err)
	dead := c.Servers[0]
	owner := map[string]*testserver.Server{}
	for i := range 30 {
		key := fmt.Sprint("k", i)
		owner[key] = c.Owner(redis.StateKey(b, key))
	}
	dead.Pause()
	var open int
	for key := range owner { // within the 2 s that the cluster takes to notice
		for range 3 {
			_, err := b.Take(t.Context(), key, 1, gateLimit)
			if owner[key] == dead {
				require.ErrorIs(t, err, backend.ErrUnavailable)
			} else {
				require.NoError(t, err, key)
			}
			if errors.Is(err, redis.ErrBreakerOpen) {
				open++
			}
		}
	}
	assert.Positive(t, open)
	dead.Resume()
	require.Eventually(t, func() bool {
		for key := range owner {
			if _, err := b.Take(t.Context(), key, 1, gateLimit); err != nil {
				return false
			}
		}
		return true
	}, 20*time.Second, 50*time.Millisecond)
}

// Nor does one that hangs when the application starts: the others decide at once, each shard has a breaker, and refusals
// are remembered.
func TestAShardThatHangsAtStart(t *testing.T) {
	c := testserver.RedisCluster(t, 3, 0)
	for _, s := range c.Servers {
		_, err := s.Do("CONFIG", "SET", "cluster-node-timeout", "60000")
		require.NoError(t, err)
	}
	names := gateBackend(t, c.URL())
	dead := c.Servers[0]
	lost, stay := clusterKeysOf(c, names, dead, 1)[0], clusterKeysOf(c, names, c.Servers[1], 1)[0]
	dead.Pause()
	b, err := redis.Dial(t.Context(), c.URL())
	require.NoError(t, err)
	t.Cleanup(func() { b.Close() })
	require.Eventually(t, func() bool {
		_, err := b.Take(t.Context(), stay, 1, gateLimit)
		return err == nil
	}, 10*time.Second, time.Millisecond)

	decided, slow := 0, 0
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		start := time.Now()
		_, err := b.Take(t.Context(), stay, 1, gateLimit)
		require.NoError(t, err)
		decided++
		if time.Since(start) > redis.DefaultTimeout/2 {
			slow++
		}
	}
	t.Logf("%d decisions in 3 s, %d of them slow", decided, slow)
	assert.Greater(t, decided, 300)
	assert.Less(t, slow, decided/20)
	assert.Len(t, b.Breakers(), 3)
	assert.True(t, redis.Remembers(b))
	for range 2 {
		_, err := b.Take(t.Context(), lost, 1, gateLimit)
		require.ErrorIs(t, err, backend.ErrUnavailable)
	}
	dead.Resume()
	require.Eventually(t, func() bool {
		_, err := b.Take(t.Context(), lost, 1, gateLimit)
		return err == nil
	}, 10*time.Second, 10*time.Millisecond)
}

// What kept Redis from deciding can be told apart; all of it is unavailability.
func TestKindsOfErrors(t *testing.T) {
	server := testserver.Redis(t)
	b := gateBackend(t, server.URL())
	_, err := b.Take(t.Context(), "k", 1, gateLimit)
	require.NoError(t, err)
	take := func(key string, want error, kind string) {
		t.Helper()
		_, err := b.Take(t.Context(), key, 1, gateLimit)
		require.ErrorIs(t, err, backend.ErrUnavailable)
		require.ErrorIs(t, err, want)
		require.Equal(t, kind, backend.ErrorKind(err))
		require.True(t, strings.HasPrefix(err.Error(), "ginlimit: redis: take: "), "%v", err)
	}
	do := func(args ...string) {
		t.Helper()
		_, err := server.Do(args...)
		require.NoError(t, err)
	}
	for range 3 * 5 { // answers are not what opens the breaker
		do("CONFIG", "SET", "maxmemory", "1")
		take("new", redis.ErrOutOfMemory, "out_of_memory")
		do("CONFIG", "SET", "maxmemory", "0")

		do("RPUSH", redis.StateKey(b, "list"), "x")
		take("list", redis.ErrForeign, "foreign_value")
	}
	do("REPLICAOF", "127.0.0.1", "1")
	take("k", redis.ErrReadOnly, "read_only")
	do("CONFIG", "SET", "replica-serve-stale-data", "no")
	take("k", redis.ErrMasterDown, "master_down")
	do("REPLICAOF", "NO", "ONE")
	_, err = b.Take(t.Context(), "k", 1, gateLimit)
	require.NoError(t, err)
	do("ACL", "SETUSER", "default", "-evalsha")
	take("k", redis.ErrDenied, "denied")
	do("ACL", "SETUSER", "default", "+evalsha")
	_, err = b.Take(t.Context(), "k", 1, gateLimit)
	require.NoError(t, err)
}
