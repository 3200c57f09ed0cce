package goredis_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	goredis9 "github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/goredis"
	"github.com/ginlimit/ginlimit/backend/redis"
	"github.com/ginlimit/ginlimit/internal/redisstore"
	"github.com/ginlimit/ginlimit/internal/testserver"
)

// soon is how long a change anywhere may take to arrive, and a client to connect again, on the
// slowest machine.
const soon = time.Minute

var everyAlgorithm = []backend.Algorithm{backend.TokenBucket, backend.SlidingWindow, backend.SlidingLog, backend.FixedWindow}

func hourly(count int64, a backend.Algorithm) backend.Limit {
	return backend.Limit{Count: count, Period: time.Hour, Algorithm: a}
}

// decide is a Take that must reach a decision.
func decide(tb testing.TB, b backend.Backend, key string, cost int64, limits ...backend.Limit) backend.Result {
	tb.Helper()
	res, err := b.Take(context.Background(), key, cost, limits...)
	require.NoError(tb, err)
	return res
}

// ask runs a command on a connection of its own.
func ask(tb testing.TB, s *testserver.Server, args ...string) any {
	tb.Helper()
	reply, err := s.Do(args...)
	require.NoError(tb, err)
	return reply
}

// lines is a log that may be written and read at once.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(line)
}

func (l *lines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.buf.String(), text)
}

func (l *lines) option() goredis.Option {
	return goredis.WithLogger(slog.New(slog.NewTextHandler(l, nil)))
}

// What New cannot work with it refuses at once, and says why.
func TestNewRefuses(t *testing.T) {
	nobody := goredis9.NewClient(&goredis9.Options{Addr: "127.0.0.1:1"})
	t.Cleanup(func() { _ = nobody.Close() })
	ring := goredis9.NewRing(&goredis9.RingOptions{Addrs: map[string]string{"a": "127.0.0.1:1"}})
	t.Cleanup(func() { _ = ring.Close() })
	pipeline, err := nobody.AutoPipeline()
	require.NoError(t, err)
	for want, client := range map[string]goredis9.UniversalClient{
		"a Ring counts a key anew":                  ring,
		"the client is nil":                         nil,
		"goredis.WithAutoPipeline(true)":            pipeline,
		"neither a *redis.Client nor a *redis.Clus": struct{ goredis9.UniversalClient }{nobody},
	} {
		for caller, f := range map[string]func(){
			"goredis.New": func() { goredis.New(client) }, "goredis.NewTiers": func() { goredis.NewTiers(client) },
		} {
			err := recovered(t, f)
			assert.ErrorContains(t, err, want)
			assert.True(t, strings.HasPrefix(err.Error(), "ginlimit: "+caller+": "), err)
		}
	}
	for want, opt := range map[string]goredis.Option{
		"goredis: an option is nil":     nil,
		`goredis.WithPrefix("{"): use`:  goredis.WithPrefix("{"),
		"goredis.WithTimeout(0s): use":  goredis.WithTimeout(0),
		"goredis.WithLogger(nil): leav": goredis.WithLogger(nil),
	} {
		assert.ErrorContains(t, recovered(t, func() { goredis.New(nobody, opt) }), "ginlimit: "+want)
	}
	for _, opt := range []goredis.Option{goredis.WithDenyCache(true), goredis.WithAutoPipeline(true)} {
		assert.ErrorContains(t, recovered(t, func() { goredis.NewTiers(nobody, opt) }), "is for goredis.New; leave it out")
	}
}

// recovered returns the error that f panics with.
func recovered(t *testing.T, f func()) (err error) {
	t.Helper()
	defer func() {
		var ok bool
		err, ok = recover().(error)
		require.True(t, ok, "no panic, or not with an error")
	}()
	f()
	return nil
}

// A client that embeds one of go-redis is one.
func TestEmbedded(t *testing.T) {
	s := testserver.Redis(t)
	b := goredis.New(struct{ *goredis9.Client }{newClient(t, s.Addr())}, goredis.WithPrefix(prefix()), goredis.WithTimeout(ample), goredis.WithDenyCache(false))
	require.True(t, decide(t, b, "k", 1, hourly(1, 0)).Allowed)
	require.Equal(t, map[string]bool{s.Addr(): false}, b.Breakers())
}

// A client of rueidis and one of go-redis share limits, bans, places in flight, what is settled and
// reset, and tiers.
func TestSharedWithRueidis(t *testing.T) {
	s := testserver.Redis(t)
	c := testserver.RedisCluster(t, 3, 0)
	for name, set := range map[string]struct {
		url    string
		client goredis9.UniversalClient
		auto   bool
	}{
		"server":       {s.URL(), newClient(t, s.Addr(), cached), false},
		"AutoPipeline": {s.URL(), newClient(t, s.Addr()), true},
		"Cluster":      {c.URL(), newCluster(t, c), false},
	} {
		t.Run(name, func(t *testing.T) {
			p := prefix()
			one, err := redis.Dial(t.Context(), set.url, redis.WithPrefix(p), redis.WithTimeout(ample), redis.WithPing())
			require.NoError(t, err)
			t.Cleanup(func() { _ = one.Close() })
			two := goredis.New(set.client, goredis.WithPrefix(p), goredis.WithTimeout(ample), goredis.WithAutoPipeline(set.auto))
			backends := [2]shared{one, two}
			ctx := t.Context()
			shareBans(t, backends)
			sharePlaces(t, backends)
			for _, a := range everyAlgorithm {
				limits := []backend.Limit{hourly(40, a), {Count: 60, Period: 2 * time.Hour}}
				two.Prepare(limits...)
				key := "shared " + a.String()
				var admitted atomic.Int64
				var wg sync.WaitGroup
				for i := range 64 {
					wg.Go(func() {
						if res, err := backends[i%2].Take(ctx, key, 1, limits...); err != nil {
							t.Error(err)
						} else if res.Allowed {
							admitted.Add(1)
						}
					})
				}
				wg.Wait()
				require.EqualValues(t, 40, admitted.Load(), "%v", a)
				for i, b := range backends {
					other := backends[1-i]
					require.False(t, decide(t, b, key, 1, limits...).Allowed)
					require.NoError(t, other.Reset(ctx, key))
					require.Eventually(t, func() bool { return decide(t, b, key, 1, limits...).Allowed }, soon, time.Millisecond)
					taken := decide(t, other, key, 39, limits...)
					require.True(t, taken.Allowed)
					require.False(t, decide(t, b, key, 1, limits...).Allowed)
					require.NoError(t, b.Settle(ctx, key, taken, 39, 9, limits...))
					usage, err := other.Usage(ctx, key, limits...)
					require.NoError(t, err)
					require.EqualValues(t, 10, usage[0].Used(), "%v", a)
					require.Eventually(t, func() bool { return decide(t, other, key, 30, limits...).Allowed }, soon, time.Millisecond)
				}
			}

			// All or none, also over several slots.
			charges := make([]backend.Charge, 4)
			for i := range charges {
				charges[i] = backend.Charge{Key: fmt.Sprint("all", i), Cost: 1, Limits: []backend.Limit{hourly(5+int64(i), 0)}}
			}
			for i := range 7 {
				all, err := backends[i%2].TakeAll(ctx, charges...)
				require.NoError(t, err)
				require.Equal(t, i < 5, all[0].Allowed)
			}
			for i := range charges {
				usage, err := two.Usage(ctx, charges[i].Key, charges[i].Limits...)
				require.NoError(t, err)
				require.EqualValues(t, 5, usage[0].Used())
			}

			here, there := one.Tiers(), two.Tiers()
			for _, tier := range []backend.Tier{{Name: "free", Limits: []backend.Limit{hourly(1, 0)}}, {Name: "pro", Limits: []backend.Limit{hourly(9, 0)}}} {
				require.NoError(t, here.Set(ctx, "customer", tier))
				require.Eventually(t, func() bool {
					got, err := there.Lookup(ctx, "customer")
					require.NoError(t, err)
					return got.Name == tier.Name
				}, soon, time.Millisecond)
			}
			require.NoError(t, there.Delete(ctx, "customer"))
			require.Eventually(t, func() bool {
				got, err := here.Lookup(ctx, "customer")
				require.NoError(t, err)
				return got.Name == ""
			}, soon, time.Millisecond)
			third := goredis.NewTiers(set.client, goredis.WithPrefix(p), goredis.WithTimeout(ample))
			require.Eventually(t, func() bool { // it has the client's cache
				got, err := third.Lookup(ctx, "customer")
				require.NoError(t, err)
				return got.Name == ""
			}, soon, time.Millisecond)
		})
	}
}

// What the server refuses is told apart as by package redis, and no error has a key in it.
func TestErrorKinds(t *testing.T) {
	s := testserver.Redis(t)
	ctx := t.Context()
	const secret = "caller-203.0.113.7"
	for name, c := range map[string]struct {
		do, undo []string
		want     error
		kind     string
	}{
		"read_only":     {[]string{"REPLICAOF", "127.0.0.1", "1"}, []string{"REPLICAOF", "NO", "ONE"}, goredis.ErrReadOnly, "read_only"},
		"out_of_memory": {[]string{"CONFIG", "SET", "maxmemory", "1"}, []string{"CONFIG", "SET", "maxmemory", "0"}, goredis.ErrOutOfMemory, "out_of_memory"},
		"no_replicas":   {[]string{"CONFIG", "SET", "min-replicas-to-write", "1"}, []string{"CONFIG", "SET", "min-replicas-to-write", "0"}, goredis.ErrNoReplicas, "no_replicas"},
		"denied":        {[]string{"ACL", "SETUSER", "default", "-evalsha"}, []string{"ACL", "SETUSER", "default", "+evalsha"}, goredis.ErrDenied, "denied"},
		"foreign": {
			[]string{"SET", "gl1:{" + secret + "}", "something else"}, []string{"DEL", "gl1:{" + secret + "}"}, goredis.ErrForeign, "foreign_value",
		},
	} {
		for _, auto := range []bool{false, true} {
			t.Run(fmt.Sprint(name, auto), func(t *testing.T) {
				var log lines
				b := goredis.New(newClient(t, s.Addr()), goredis.WithTimeout(ample), goredis.WithDenyCache(false), goredis.WithAutoPipeline(auto), log.option())
				require.True(t, decide(t, b, "other", 1, hourly(100, 0)).Allowed)
				ask(t, s, c.do...)
				for range 3 {
					_, err := b.Take(ctx, secret, 1, hourly(100, 0))
					require.ErrorIs(t, err, backend.ErrUnavailable)
					require.ErrorIs(t, err, c.want)
					require.Equal(t, c.kind, backend.ErrorKind(err))
					require.NotContains(t, err.Error(), secret)
					require.True(t, strings.HasPrefix(err.Error(), "ginlimit: goredis: take: "), err)
				}
				ask(t, s, c.undo...)
				require.Equal(t, 1, log.count("code=GINLIMIT007"), "not one line of the log")
				require.Zero(t, log.count(secret))
				require.True(t, decide(t, b, secret, 1, hourly(100, 0)).Allowed)
				require.NoError(t, b.Reset(ctx, secret))
			})
		}
	}

	t.Run("wrong password", func(t *testing.T) {
		guarded := testserver.Redis(t, "--requirepass", "right")
		b := goredis.New(newClient(t, guarded.Addr(), func(o *goredis9.Options) { o.Password = "wrong-password" }), goredis.WithTimeout(ample))
		_, err := b.Take(ctx, secret, 1, hourly(1, 0))
		require.ErrorIs(t, err, goredis.ErrDenied)
		require.NotContains(t, err.Error(), "wrong-password")
	})
	t.Run("nobody there", func(t *testing.T) {
		var log lines
		client := newClient(t, "127.0.0.1:1", func(o *goredis9.Options) { o.DialerRetries = 1 })
		b := goredis.New(client, goredis.WithTimeout(time.Second), log.option())
		var refused *net.OpError
		_, err := b.Take(ctx, secret, 1, hourly(1, 0))
		require.ErrorAs(t, err, &refused)
		require.Eventually(t, func() bool {
			_, err := b.Take(ctx, secret, 1, hourly(1, 0))
			require.ErrorIs(t, err, backend.ErrUnavailable)
			return errors.Is(err, goredis.ErrBreakerOpen)
		}, soon, time.Millisecond)
		require.True(t, b.Breakers()["127.0.0.1:1"])
		require.Equal(t, 1, log.count("Redis does not answer"))
	})
	t.Run("closed", func(t *testing.T) {
		client := newClient(t, s.Addr())
		b := goredis.New(client, goredis.WithTimeout(ample))
		require.NoError(t, client.Close())
		for range 20 {
			_, err := b.Take(ctx, secret, 1, hourly(1, 0))
			require.ErrorIs(t, err, goredis9.ErrClosed)
		}
		require.False(t, b.Breakers()[s.Addr()], "a closed client says nothing of the server")
	})
}

// A server that knows no script, because it is new or was flushed, is sent the text, whatever the
// number of callers.
func TestScriptsAreSent(t *testing.T) {
	s := testserver.Redis(t)
	for _, auto := range []bool{false, true} {
		b := goredis.New(newClient(t, s.Addr()), goredis.WithPrefix(prefix()), goredis.WithTimeout(ample), goredis.WithDenyCache(false), goredis.WithAutoPipeline(auto))
		for round := range 3 {
			ask(t, s, "SCRIPT", "FLUSH")
			var wg sync.WaitGroup
			for range 32 {
				wg.Go(func() {
					if _, err := b.Take(context.Background(), "k", 1, hourly(10_000, 0)); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			usage, err := b.Usage(context.Background(), "k", hourly(10_000, 0))
			require.NoError(t, err)
			require.EqualValues(t, 32*(round+1), usage[0].Used())
		}
	}
}

// A server that hangs costs a caller the time of a call and no more, whatever the client's
// time-outs; then the breaker opens, and closes when the server goes on.
func TestHang(t *testing.T) {
	s := testserver.Redis(t)
	const budget, busy = 200 * time.Millisecond, 20 * time.Second
	for name, c := range map[string]struct {
		set  func(*goredis9.Options)
		auto bool
	}{
		"plain":        {func(*goredis9.Options) {}, false},
		"context":      {func(o *goredis9.Options) { o.ContextTimeoutEnabled = true }, false},
		"small pool":   {func(o *goredis9.Options) { o.PoolSize = 1 }, false},
		"AutoPipeline": {func(*goredis9.Options) {}, true},
	} {
		t.Run(name, func(t *testing.T) {
			client := newClient(t, s.Addr(), c.set, func(o *goredis9.Options) { o.ReadTimeout = time.Second })
			b := goredis.New(client, goredis.WithPrefix(prefix()), goredis.WithTimeout(budget), goredis.WithDenyCache(false), goredis.WithAutoPipeline(c.auto))
			limit := hourly(1_000_000, 0)
			require.Eventually(t, func() bool {
				res, err := b.Take(t.Context(), "k", 1, limit)
				return err == nil && res.Allowed
			}, soon, time.Millisecond)
			s.Pause()
			defer s.Resume()
			begin := time.Now()
			var ended, open atomic.Int64
			var wg sync.WaitGroup
			for range 16 {
				wg.Go(func() {
					for range 10 {
						_, err := b.Take(context.Background(), "k", 1, limit)
						switch {
						case errors.Is(err, goredis.ErrBreakerOpen):
							open.Add(1)
						case errors.Is(err, context.DeadlineExceeded):
							ended.Add(1)
						default:
							t.Error(err)
						}
					}
				})
			}
			wg.Wait()
			assert.Less(t, time.Since(begin), 10*budget+busy)
			assert.EqualValues(t, 160, ended.Load()+open.Load())
			assert.Positive(t, open.Load(), "the breaker did not open")
			assert.True(t, b.Breakers()[s.Addr()])
			s.Resume()
			require.Eventually(t, func() bool {
				_, err := b.Take(t.Context(), "k", 1, limit)
				return err == nil
			}, soon, 10*time.Millisecond)
		})
	}
}

// cutter is a proxy that ends a connection once the server has answered a script, without the
// answer.
type cutter struct {
	addr string
	cuts atomic.Int64
}

func newCutter(t *testing.T, server string) *cutter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	c := &cutter{addr: l.Addr().String()}
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go c.serve(client, server)
		}
	}()
	return c
}

func (c *cutter) serve(client net.Conn, server string) {
	up, err := net.Dial("tcp", server)
	if err != nil {
		_ = client.Close()
		return
	}
	defer func() { _, _ = client.Close(), up.Close() }()
	var script atomic.Bool
	go func() {
		defer func() { _, _ = client.Close(), up.Close() }()
		buf := make([]byte, 64<<10)
		for {
			n, err := client.Read(buf)
			if bytes.Contains(buf[:n], []byte("evalsha")) {
				script.Store(true)
			}
			if _, werr := up.Write(buf[:n]); err != nil || werr != nil {
				return
			}
		}
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := up.Read(buf)
		if n > 0 && script.Load() && !bytes.HasPrefix(buf, []byte("-NOSCRIPT")) {
			c.cuts.Add(1)
			return
		}
		script.Store(false)
		if _, werr := client.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}

// A call whose answer is lost is not made again: it would be charged twice.
func TestNothingIsChargedTwice(t *testing.T) {
	s := testserver.Redis(t)
	c := newCutter(t, s.Addr())
	for _, auto := range []bool{false, true} {
		p := prefix()
		truth := goredis.New(newClient(t, s.Addr()), goredis.WithPrefix(p), goredis.WithTimeout(ample), goredis.WithDenyCache(false))
		decide(t, truth, "other", 1, hourly(100, 0)) // the server knows the script
		client := newClient(t, c.addr, func(o *goredis9.Options) { o.MaxRetries = 5 })
		b := goredis.New(client, goredis.WithPrefix(p), goredis.WithTimeout(ample), goredis.WithDenyCache(false), goredis.WithAutoPipeline(auto))
		before := c.cuts.Load()
		for range 3 {
			_, err := b.Take(t.Context(), "k", 1, hourly(100, 0))
			require.ErrorIs(t, err, backend.ErrUnavailable)
		}
		require.EqualValues(t, 3, c.cuts.Load()-before)
		usage, err := truth.Usage(t.Context(), "k", hourly(100, 0))
		require.NoError(t, err)
		require.EqualValues(t, 3, usage[0].Used(), "AutoPipeline: %v", auto)
	}
}

// hook is one of an application's.
type hook struct{ process goredis9.ProcessHook }

func (hook) DialHook(next goredis9.DialHook) goredis9.DialHook { return next }
func (h hook) ProcessHook(next goredis9.ProcessHook) goredis9.ProcessHook {
	return func(ctx context.Context, cmd goredis9.Cmder) error {
		if err := h.process(ctx, cmd); err != nil {
			return err
		}
		return next(ctx, cmd)
	}
}
func (hook) ProcessPipelineHook(next goredis9.ProcessPipelineHook) goredis9.ProcessPipelineHook {
	return next
}

// A hook of the application's that panics does so in the caller's goroutine, and one that hangs
// costs the time of a call. No place among the calls under way is lost.
func TestHooks(t *testing.T) {
	s := testserver.Redis(t)
	client := newClient(t, s.Addr())
	b := goredis.New(client, goredis.WithPrefix(prefix()), goredis.WithTimeout(100*time.Millisecond), goredis.WithDenyCache(false))
	var mode atomic.Value
	mode.Store("")
	end := make(chan struct{})
	client.AddHook(hook{func(context.Context, goredis9.Cmder) error {
		switch mode.Load() {
		case "panic":
			panic("a hook")
		case "hang":
			<-end
		}
		return nil
	}})
	mode.Store("panic")
	for range 600 { // more than may be under way
		require.PanicsWithValue(t, "a hook", func() { _, _ = b.Take(context.Background(), "k", 1, hourly(1, 0)) })
	}
	mode.Store("hang")
	_, err := b.Take(t.Context(), "k", 1, hourly(1, 0))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	mode.Store("")
	close(end)
	require.Eventually(t, func() bool {
		_, err := b.Take(t.Context(), "k", 1, hourly(1000, 0))
		return err == nil
	}, soon, time.Millisecond)
	require.Zero(t, redisstore.Calls(goredis.Store(b)))
}

// The wrong eviction policy is told once, on one server and on a Cluster.
func TestEvictionIsTold(t *testing.T) {
	var log lines
	s := testserver.Redis(t, "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
	goredis.New(newClient(t, s.Addr()), goredis.WithTimeout(ample), goredis.WithDenyCache(false), log.option())
	require.Equal(t, 1, log.count("code=GINLIMIT005"))

	c := testserver.RedisCluster(t, 3, 0)
	for _, s := range c.Servers {
		ask(t, s, "CONFIG", "SET", "maxmemory", "100mb")
		ask(t, s, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
	}
	log = lines{}
	b := goredis.New(newCluster(t, c), goredis.WithTimeout(ample), goredis.WithDenyCache(false), log.option())
	require.Equal(t, 1, log.count("code=GINLIMIT005"))
	require.Len(t, b.Breakers(), 3, "a breaker for each master")
}

// On a Cluster whose slots move, and on one of whose masters is gone, the others go on deciding.
func TestClusterMoves(t *testing.T) {
	c := testserver.RedisCluster(t, 3, 0)
	p := prefix()
	client := newCluster(t, c, func(o *goredis9.ClusterOptions) { o.DialTimeout, o.ReadTimeout = time.Second, time.Second })
	b := goredis.New(client, goredis.WithPrefix(p), goredis.WithTimeout(10*time.Second), goredis.WithDenyCache(false))
	limit := hourly(4, 0)
	moving, target := "moving", (*testserver.Server)(nil)
	name := redisstore.StateKey(goredis.Store(b), moving)
	for _, s := range c.Servers {
		if s != c.Owner(name) {
			target = s
		}
	}
	require.True(t, decide(t, b, moving, 2, limit).Allowed)
	require.NoError(t, c.MigrateSlot(c.Slot(name), target, func() {
		require.True(t, decide(t, b, moving, 1, limit).Allowed)
	}))
	require.Equal(t, target, c.Owner(name))
	require.Eventually(t, func() bool {
		_, err := b.Take(t.Context(), moving, 1, limit)
		return err == nil
	}, soon, time.Millisecond)
	require.False(t, decide(t, b, moving, 1, limit).Allowed)

	for _, s := range c.Servers {
		ask(t, s, "CONFIG", "SET", "cluster-require-full-coverage", "no")
	}
	owners := map[string]*testserver.Server{}
	for i := range 30 {
		key := fmt.Sprint("k", i)
		owners[key] = c.Owner(redisstore.StateKey(goredis.Store(b), key))
	}
	target.Kill()
	for key, owner := range owners {
		if owner == target {
			_, err := b.Take(t.Context(), key, 1, limit)
			require.ErrorIs(t, err, backend.ErrUnavailable)
		} else {
			require.True(t, decide(t, b, key, 1, limit).Allowed, key)
		}
	}
	open := b.Breakers()
	for _, s := range c.Servers {
		if s != target {
			require.False(t, open[s.Addr()], open)
		}
	}
}

// The client follows the master that the Sentinels name.
func TestSentinelFailover(t *testing.T) {
	s := testserver.RedisSentinel(t, 1)
	b := goredis.New(newSentinel(t, s), goredis.WithPrefix(prefix()), goredis.WithTimeout(time.Second), goredis.WithDenyCache(false))
	limit := hourly(3, 0)
	require.Eventually(t, func() bool {
		res, err := b.Take(t.Context(), "k", 3, limit)
		return err == nil && res.Allowed
	}, soon, time.Millisecond)
	require.Eventually(t, func() bool { // replicated
		n, err := s.Replicas[0].Do("DBSIZE")
		return err == nil && n != int64(0)
	}, soon, time.Millisecond)
	s.Master.Kill()
	var res backend.Result
	require.Eventually(t, func() bool {
		var err error
		res, err = b.Take(t.Context(), "k", 1, limit)
		return err == nil
	}, soon, 10*time.Millisecond)
	require.False(t, res.Allowed, "the new master knows less than the old one")
}
