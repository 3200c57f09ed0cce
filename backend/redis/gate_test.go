package redis_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
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

// A server that accepts and never answers costs each caller its time budget at most, and once it is
// known to hang next to nothing. What was decided on meanwhile is an error that a failure policy
// may let pass. When the server goes on, the same Backend does.
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
	}, time.Minute, 10*time.Millisecond)
}

// Nobody gets past a limit by giving up: a deadline or a cancellation of the caller's is no failure
// of the store.
func TestCallersThatGiveUp(t *testing.T) {
	for name, connect := range map[string]func(t *testing.T, s *testserver.Server) *redis.Backend{
		"Dial": func(t *testing.T, s *testserver.Server) *redis.Backend { return gateBackend(t, s.URL()) },
		"New": func(t *testing.T, s *testserver.Server) *redis.Backend {
			return redis.New(newClient(t, s.Addr(), true))
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := connect(t, testserver.Redis(t))
			tiers := b.Tiers()
			gone, cancel := context.WithCancel(t.Context())
			cancel()
			late, cancelLate := context.WithTimeout(t.Context(), time.Nanosecond)
			defer cancelLate()
			limit := hourly(3, backend.TokenBucket)
			for i, ctx := range []context.Context{gone, late, gone, late, gone, late} {
				res, err := b.Take(ctx, "k", 1, limit)
				require.NoError(t, err)
				require.Equal(t, i < 3, res.Allowed)
				require.NoError(t, b.Settle(ctx, "other", backend.Result{Allowed: true, At: res.At}, 1, 0, limit))
				require.NoError(t, tiers.Set(ctx, "c", tierExamples[1]))
				lookUp(t, tiers, "c", tierExamples[1])
				_, err = tiers.Lookup(ctx, "c")
				require.NoError(t, err)
				require.NoError(t, tiers.Delete(ctx, "c"))
			}
			require.NoError(t, b.Reset(gone, "k"))
			res, err := b.Take(late, "k", 0, limit)
			require.NoError(t, err)
			require.Equal(t, int64(3), res.Remaining)
		})
	}
}

// A call whose time is over connects, or reads a refusal or a tier, for others at the same time.
// They lose nothing by it.
func TestAnothersTime(t *testing.T) {
	t.Parallel()
	const timeout = 2 * time.Second
	limit := hourly(1, backend.FixedWindow)
	take := func(t *testing.T, b *redis.Backend) func() error {
		return func() error {
			res, err := b.Take(t.Context(), "key", 1, limit)
			assert.False(t, res.Allowed)
			return err
		}
	}
	for name, prepare := range map[string]func(t *testing.T, b *redis.Backend, s *testserver.Server) (ask func() error){
		"connection": func(t *testing.T, b *redis.Backend, s *testserver.Server) func() error {
			decide(t, b, "key", 1, limit)
			ask(t, s, "CLIENT", "KILL", "TYPE", "normal")
			require.Eventually(t, func() bool { return s.Info("clients", "connected_clients") == "1" }, soon, time.Millisecond)
			once := take(t, b)
			return func() error {
				err := once()
				if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
					err = once() // the client only now heard that its connection was closed
				}
				return err
			}
		},
		"refusal": func(t *testing.T, b *redis.Backend, _ *testserver.Server) func() error {
			decide(t, b, "key", 1, limit)
			decide(t, b, "key", 1, limit)
			require.Equal(t, 1, redis.DenialsLen(b))
			return take(t, b)
		},
		"tier": func(t *testing.T, b *redis.Backend, _ *testserver.Server) func() error {
			tiers := b.Tiers()
			return func() error {
				_, err := tiers.Lookup(t.Context(), "c")
				return err
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := testserver.Redis(t)
			b := gateBackend(t, s.URL()+"?dial_timeout=20s&write_timeout=20s", redis.WithTimeout(timeout))
			ask := prepare(t, b, s)
			s.Pause()
			defer s.Resume()
			first := make(chan error)
			go func() { first <- ask() }()
			time.Sleep(timeout / 2)
			var wg sync.WaitGroup
			for range 3 { // too few to open the breaker
				wg.Go(func() { assert.NoError(t, ask()) })
			}
			assert.ErrorIs(t, <-first, context.DeadlineExceeded)
			s.Resume()
			wg.Wait()
			assert.False(t, b.Breakers()[s.Addr()])
		})
	}
}

// A server that takes connections and answers nothing opens the breaker, also where a decision has
// more time than connecting: then no context ends, but the connections.
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

// Nor does one that hangs when the application starts: the others decide at once, each shard has a
// breaker, and refusals are remembered.
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
	}, time.Minute, time.Millisecond)

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
	require.Eventually(t, func() bool { return redis.Remembers(b) }, time.Minute, 10*time.Millisecond)
	for range 2 {
		_, err := b.Take(t.Context(), lost, 1, gateLimit)
		require.ErrorIs(t, err, backend.ErrUnavailable)
	}
	dead.Resume()
	require.Eventually(t, func() bool {
		_, err := b.Take(t.Context(), lost, 1, gateLimit)
		return err == nil
	}, time.Minute, 10*time.Millisecond)
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
