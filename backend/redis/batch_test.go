package redis

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/internal/testserver"
)

// batching is a Backend whose decisions under some limits wait until the test lets them go.
type batching struct {
	*Backend
	t      *testing.T
	limits []backend.Limit
	q      *batcher
}

func newBatching(t *testing.T, addr, prefix string, limits []backend.Limit, opts ...Option) *batching {
	t.Helper()
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{addr}, ForceSingleClient: true, AlwaysPipelining: true, DisableCache: true,
	})
	require.NoError(t, err)
	t.Cleanup(client.Close)
	opts = append([]Option{WithPrefix(prefix), WithDenyCache(false), WithTimeout(10 * time.Second), WithBatching(100)}, opts...)
	b := &batching{Backend: New(client, opts...), t: t, limits: limits}
	p, err := b.plans.Of(limits, (*plan).is, b.newPlan)
	require.NoError(t, err)
	b.q = p.batcher
	require.NotNil(t, b.q, "%v", limits)
	return b
}

// occupy makes it seem that enough scripts are under way, until release.
func (q *batcher) occupy() { q.running, q.deciding = maxScripts, enough }

func (q *batcher) release() {
	for range maxScripts {
		q.end(enough / maxScripts)
	}
}

// outcomeOf is how a call of Take ended.
type outcomeOf struct {
	res backend.Result
	err error
}

// together asks for keys, in this order, while it seems that enough scripts are under way, and then lets all go.
func (b *batching) together(keys ...string) []outcomeOf {
	b.t.Helper()
	b.q.mu.Lock()
	require.Zero(b.t, b.q.running)
	require.Zero(b.t, b.q.deciding)
	b.q.occupy()
	b.q.mu.Unlock()
	got := make([]outcomeOf, len(keys))
	var wg sync.WaitGroup
	for i, key := range keys {
		wg.Go(func() { got[i].res, got[i].err = b.Take(context.Background(), key, 1, b.limits...) })
		// Who fills a script does not wait.
		b.waits((i + 1) % b.q.most)
	}
	b.q.release()
	wg.Wait()
	b.idle()
	return got
}

// waits expects that so many wait, soon.
func (b *batching) waits(n int) {
	b.t.Helper()
	require.Eventually(b.t, func() bool {
		b.q.mu.Lock()
		defer b.q.mu.Unlock()
		return len(b.q.waiting) == n
	}, 10*time.Second, 20*time.Microsecond)
}

// idle expects that nothing is left of what was under way.
func (b *batching) idle() {
	b.t.Helper()
	require.Eventually(b.t, func() bool { // who led may not be done yet
		b.q.mu.Lock()
		defer b.q.mu.Unlock()
		return b.q.running == 0 && b.q.deciding == 0 && len(b.q.waiting) == 0 && len(b.q.rides) == 0
	}, 10*time.Second, 20*time.Microsecond)
}

// A batch answers what the same decisions get one after the other, whatever the keys hold, and also if some are the same.
func TestBatchDecides(t *testing.T) {
	for name, addr := range map[string]func(*testing.T) string{
		"miniredis": func(t *testing.T) string { return miniredis.RunT(t).Addr() },
		"server":    func(t *testing.T) string { return testserver.Redis(t).Addr() },
	} {
		t.Run(name, func(t *testing.T) { batchDecides(t, addr(t)) })
	}
}

func batchDecides(t *testing.T, addr string) {
	bucket := backend.Limit{Count: 5, Period: time.Second}
	parts := backend.Limit{Count: 7, Period: time.Second, Burst: 3}
	fixed := backend.Limit{Count: 4, Period: time.Second, Algorithm: backend.FixedWindow}
	sliding := backend.Limit{Count: 6, Period: 2 * time.Second, Algorithm: backend.SlidingWindow}
	other := []backend.Limit{{Count: 3, Period: time.Minute}}
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{addr}, ForceSingleClient: true, DisableCache: true})
	require.NoError(t, err)
	t.Cleanup(client.Close)
	ctx := context.Background()
	for i, limits := range [][]backend.Limit{{bucket}, {parts}, {fixed}, {sliding}, {parts, sliding}, {sliding, fixed, bucket, parts}} {
		t.Run(fmt.Sprint(limits), func(t *testing.T) {
			r := rand.New(rand.NewPCG(uint64(i), 11))
			batch := newBatching(t, addr, fmt.Sprint("batch", i), limits)
			alone := newBatching(t, addr, fmt.Sprint("alone", i), limits)
			now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()
			batch.clock = func() int64 { return now }
			alone.clock = batch.clock
			allowed, refused, failed := 0, 0, 0
			for range 60 {
				key := fmt.Sprint(r.IntN(6))
				for _, b := range []*batching{batch, alone} { // sometimes a key has another history
					switch r := rand.New(rand.NewPCG(uint64(now), 1)); r.IntN(8) {
					case 0:
						_, _ = b.Take(ctx, key, 1, other...)
					case 1:
						_, _ = b.Take(ctx, key, 2, limits...)
					case 2:
						require.NoError(t, client.Do(ctx, client.B().Set().Key(b.stateKey(key)).Value("foreign").Build()).Error())
					case 3:
						name := b.stateKey(key)
						require.NoError(t, client.Do(ctx, client.B().Del().Key(name).Build()).Error())
						require.NoError(t, client.Do(ctx, client.B().Rpush().Key(name).Element("x").Build()).Error())
					}
				}
				keys := make([]string, 1+r.IntN(12))
				for i := range keys {
					keys[i] = fmt.Sprint(r.IntN(6))
				}
				// What a batch leaves to the script for one key comes after the rest of it: a foreign value is replaced,
				// and a second decision about the key in the same batch then finds another state. So does the test.
				odd := map[string]bool{}
				for _, key := range keys {
					value, _ := client.Do(ctx, client.B().Get().Key(alone.stateKey(key)).Build()).ToString()
					typ, _ := client.Do(ctx, client.B().Type().Key(alone.stateKey(key)).Build()).ToString()
					odd[key] = typ == "list" || value != "" && !strings.Contains(value, ruleText(limits[0]))
				}
				seen := map[string]bool{}
				for i := 0; i < len(keys); i++ {
					if key := keys[i]; odd[key] && seen[key] {
						keys = append(keys[:i], keys[i+1:]...)
						i--
					} else {
						seen[key] = true
					}
				}
				got := batch.together(keys...)
				for i, key := range keys {
					want, err := alone.Take(ctx, key, 1, limits...)
					if err != nil {
						failed++
						require.ErrorIs(t, got[i].err, ErrForeign)
						require.ErrorIs(t, err, ErrForeign)
						continue
					}
					require.NoError(t, got[i].err)
					require.Equal(t, want, got[i].res, "%d of %v", i, keys)
					if want.Allowed {
						allowed++
					} else {
						refused++
					}
					for _, name := range []string{alone.stateKey(key), batch.stateKey(key)} {
						ms, err := client.Do(ctx, client.B().Pttl().Key(name).Build()).ToInt64()
						require.NoError(t, err)
						require.NotEqual(t, int64(-1), ms, "a key without an end")
					}
				}
				now += r.Int64N(400_000)
			}
			require.Greater(t, allowed, 50)
			require.Greater(t, refused, 10)
			require.Greater(t, failed, 2)
		})
	}
}

// Those who wait share one EVALSHA, as many as the option says.
func TestBatchIsOneScript(t *testing.T) {
	server := testserver.Redis(t)
	evals := func() (n int) {
		info, err := server.Do("INFO", "commandstats")
		require.NoError(t, err)
		for line := range strings.Lines(info.(string)) {
			_, _ = fmt.Sscanf(line, "cmdstat_evalsha:calls=%d,", &n)
		}
		return n
	}
	b := newBatching(t, server.Addr(), "gl", []backend.Limit{{Count: 1000, Period: time.Hour}}, WithBatching(30))
	b.together("a", "b") // loads the script
	for n, want := range map[int]int{2: 1, 30: 1, 31: 2, 90: 3, 1: 1} {
		before := evals()
		keys := make([]string, n)
		for i := range keys {
			keys[i] = fmt.Sprint(n, "/", i%7)
		}
		for i, o := range b.together(keys...) {
			require.NoError(t, o.err)
			if n <= 30 { // else scripts race
				require.Equal(t, 999-int64(i/7), o.res.Remaining)
			}
		}
		require.Equal(t, want, evals()-before, "%d decisions", n)
	}
}

// A server that is flushed, full or has become a replica: each caller gets its own answer, and nobody is charged who
// learns of an error.
func TestBatchFails(t *testing.T) {
	server := testserver.Redis(t)
	do := func(args ...string) {
		t.Helper()
		_, err := server.Do(args...)
		require.NoError(t, err)
	}
	b := newBatching(t, server.Addr(), "gl", []backend.Limit{{Count: 10, Period: time.Hour}})
	all := func(want error, remaining int64) {
		t.Helper()
		for _, o := range b.together("a", "b", "c") {
			require.ErrorIs(t, o.err, want)
			if want != nil {
				require.ErrorIs(t, o.err, backend.ErrUnavailable)
			}
			require.Equal(t, remaining, o.res.Remaining)
		}
	}
	all(nil, 9)
	do("SCRIPT", "FLUSH")
	all(nil, 8)
	do("CONFIG", "SET", "maxmemory", "1")
	all(ErrOutOfMemory, 0)
	do("CONFIG", "SET", "maxmemory", "0")
	all(nil, 7)
	do("REPLICAOF", "127.0.0.1", "1")
	all(ErrReadOnly, 0)
	do("REPLICAOF", "NO", "ONE")
	all(nil, 6)
	require.False(t, b.Breakers()[b.link.name()])
	do("ACL", "SETUSER", "default", "resetkeys", "~gl1:{a*", "~gl1:{c*") // the whole script is refused
	got := b.together("a", "b", "c")
	require.NoError(t, got[0].err)
	require.ErrorIs(t, got[1].err, ErrDenied)
	require.NoError(t, got[2].err)
	require.EqualValues(t, 5, got[2].res.Remaining)
	do("ACL", "SETUSER", "default", "~*")
	server.Kill()
	for range 5 { // scripts
		all(backend.ErrUnavailable, 0)
	}
	all(ErrBreakerOpen, 0)
}

// Each has its own time, whoever leads: those whose time is over learn it at once, wherever they are, and the others go on.
func TestBatchTakesNoTimeOfOthers(t *testing.T) {
	b := newBatching(t, miniredis.RunT(t).Addr(), "gl", []backend.Limit{{Count: 10, Period: time.Hour}})
	p, err := b.plans.Of(b.limits, (*plan).is, b.newPlan)
	require.NoError(t, err)
	client, g := *b.link.current.Load(), b.link.gates.Load().of(0)
	later, cancel := context.WithDeadline(context.Background(), time.Now().Add(time.Hour))
	defer cancel()
	for i, contexts := range []string{"s", "ss", "sl", "lss", "sslsl"} {
		soon, cancelSoon := context.WithDeadline(context.Background(), time.Now().Add(time.Minute))
		b.q.mu.Lock()
		b.q.occupy()
		b.q.mu.Unlock()
		got := make([]outcome, len(contexts))
		var over, wg sync.WaitGroup
		alive := 0
		for j, which := range contexts {
			ctx, done := soon, over.Done
			if which == 's' {
				over.Add(1)
			} else {
				alive++
				ctx, done = later, func() {}
			}
			wg.Go(func() {
				defer done()
				got[j] = b.askTogether(ctx, client, p, g, fmt.Sprint(i, j))
			})
		}
		b.waits(len(contexts))
		cancelSoon()
		over.Wait() // while the others wait
		b.waits(alive)
		assert.ErrorIs(t, b.askTogether(soon, client, p, g, "x").err, context.Canceled)
		b.q.release()
		wg.Wait()
		for j, which := range contexts {
			assert.Equal(t, which == 's', errors.Is(got[j].err, context.Canceled), "%d of %v: %v", j, contexts, got[j].err)
		}
		b.idle()
	}
}

// In a script that hangs each of its callers loses no more than its own time.
func TestBatchInAHangingScript(t *testing.T) {
	server := testserver.Redis(t)
	b := newBatching(t, server.Addr(), "gl", []backend.Limit{{Count: 1000, Period: time.Hour}}, WithTimeout(2*time.Second))
	b.together("a", "b") // loads the script
	p, err := b.plans.Of(b.limits, (*plan).is, b.newPlan)
	require.NoError(t, err)
	client, g := *b.link.current.Load(), b.link.gates.Load().of(0)
	server.Pause()
	defer server.Resume()
	soon, cancelSoon := context.WithDeadline(context.Background(), time.Now().Add(time.Minute))
	later, cancelLater := context.WithDeadline(context.Background(), time.Now().Add(time.Hour))
	defer cancelLater()
	b.q.mu.Lock()
	b.q.occupy()
	b.q.mu.Unlock()
	var early, late sync.WaitGroup
	for i := range 6 {
		ctx, group := soon, &early
		if i == 2 {
			ctx, group = later, &late
		}
		group.Go(func() {
			assert.Error(t, b.askTogether(ctx, client, p, g, fmt.Sprint(i)).err)
		})
	}
	b.waits(6)
	b.q.release()
	cancelSoon()
	early.Wait() // though the script goes on
	b.q.mu.Lock()
	assert.Equal(t, 1, b.q.running)
	assert.Equal(t, 6, b.q.deciding)
	b.q.mu.Unlock()
	late.Wait() // for the time of its call
	b.idle()
}

// panicking is a client that panics when it is told to.
type panicking struct {
	rueidis.Client
	now atomic.Bool
}

func (c *panicking) Do(ctx context.Context, cmd rueidis.Completed) rueidis.RedisResult {
	if c.now.Load() {
		panic("the client panics")
	}
	return c.Client.Do(ctx, cmd)
}

// A panic in the client is its caller's alone: the others get an error, and later calls go on.
func TestBatchPanics(t *testing.T) {
	b := newBatching(t, miniredis.RunT(t).Addr(), "gl", []backend.Limit{{Count: 100, Period: time.Hour}})
	client := &panicking{Client: *b.link.current.Load()}
	b.link.set(client)
	b.together("a", "b", "c")
	client.now.Store(true)
	var panics, failed atomic.Int64
	var wg sync.WaitGroup
	b.q.occupy()
	for i := range 20 {
		wg.Go(func() {
			defer func() {
				if recover() != nil {
					panics.Add(1)
				}
			}()
			if _, err := b.Take(context.Background(), fmt.Sprint(i), 1, b.limits...); err != nil {
				failed.Add(1)
			}
		})
	}
	b.waits(20)
	b.q.release()
	wg.Wait()
	b.idle()
	assert.EqualValues(t, 1, panics.Load())
	assert.EqualValues(t, 19, failed.Load())
	client.now.Store(false)
	for _, o := range b.together("a", "b", "c") {
		require.NoError(t, o.err)
	}
}

// What does not fit in a batch has a script of its own, and no batch to wait for.
func TestNotBatched(t *testing.T) {
	bucket := backend.Limit{Count: 10, Period: time.Minute}
	for name, limits := range map[string][]backend.Limit{
		"a log": {{Count: 10, Period: time.Minute, Algorithm: backend.SlidingLog}}, "unlimited": {backend.Unlimited()}, "nothing": {bucket, {Period: time.Second}},
	} {
		p, err := newPlan(limits, 16)
		require.NoError(t, err)
		require.Nil(t, p.batcher, name)
	}
	b := newBatching(t, miniredis.RunT(t).Addr(), "gl", []backend.Limit{bucket})
	b.q.occupy() // anybody who joins the batch waits for ever
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for _, take := range []func() (backend.Result, error){
		func() (backend.Result, error) { return b.Take(context.Background(), "cost", 2, bucket) },
		func() (backend.Result, error) { return b.Take(context.Background(), "look", 0, bucket) },
		func() (backend.Result, error) { return b.Take(ctx, "deadline", 1, bucket) },
	} {
		res, err := take()
		require.NoError(t, err)
		require.True(t, res.Allowed)
	}
}
