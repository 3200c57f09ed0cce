package redis_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/redis"
	"github.com/ginlimit/ginlimit/internal/testserver"
)

// soon is how long a change anywhere may take to arrive, and a client to connect again, on the
// slowest machine.
const soon = time.Minute

var everyAlgorithm = []backend.Algorithm{backend.TokenBucket, backend.SlidingWindow, backend.SlidingLog, backend.FixedWindow}

func hourly(count int64, a backend.Algorithm) backend.Limit {
	return backend.Limit{Count: count, Period: time.Hour, Algorithm: a}
}

// limitSets returns lists of limits of which each has room for count units at first: one of each
// algorithm, and mixed.
func limitSets(count int64) map[string][]backend.Limit {
	sets := map[string][]backend.Limit{}
	for _, a := range everyAlgorithm {
		sets[a.String()] = []backend.Limit{hourly(count, a)}
		sets["several"] = append(sets["several"], hourly(count, a).Named(a.String()))
	}
	return sets
}

// newInstance returns one of several instances of an application: a Backend with a client and
// connections of its own.
func newInstance(tb testing.TB, addr, prefix string, opts ...redis.Option) *redis.Backend {
	tb.Helper()
	return redis.New(newClient(tb, addr, true),
		append([]redis.Option{redis.WithPrefix(prefix), redis.WithTimeout(10 * time.Second)}, opts...)...)
}

// newTruth returns an instance that asks the server for every decision.
func newTruth(tb testing.TB, addr, prefix string) *redis.Backend {
	tb.Helper()
	return newInstance(tb, addr, prefix, redis.WithDenyCache(false))
}

// decide is a Take that must reach a decision.
func decide(tb testing.TB, b *redis.Backend, key string, cost int64, limits ...backend.Limit) backend.Result {
	tb.Helper()
	res, err := b.Take(context.Background(), key, cost, limits...)
	require.NoError(tb, err)
	return res
}

// refuse makes b refuse cost locally, after the server refused it once.
func refuse(tb testing.TB, b *redis.Backend, key string, cost int64, limits ...backend.Limit) {
	tb.Helper()
	res := decide(tb, b, key, cost, limits...)
	require.False(tb, res.Allowed)
	require.Equal(tb, backend.SourceStore, res.Source)
	require.Eventually(tb, func() bool { // the client may hold an older value for a moment
		res = decide(tb, b, key, cost, limits...)
		return res.Source == backend.SourceDenyCache
	}, soon, time.Millisecond)
	require.False(tb, res.Allowed)
}

// ask runs a command on a connection of its own.
func ask(tb testing.TB, s *testserver.Server, args ...string) any {
	tb.Helper()
	reply, err := s.Do(args...)
	require.NoError(tb, err)
	return reply
}

// calls returns how often each command was called, by clients and by scripts. It leaves out PING,
// which keeps connections alive, and INFO, which asks.
func calls(tb testing.TB, s *testserver.Server) map[string]int {
	tb.Helper()
	stats := map[string]int{}
	for line := range strings.Lines(ask(tb, s, "INFO", "commandstats").(string)) {
		name, rest, ok := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":calls=")
		if !ok || name == "ping" || name == "info" {
			continue
		}
		n, _, _ := strings.Cut(rest, ",")
		count, err := strconv.Atoi(n)
		require.NoError(tb, err)
		stats[name] = count
	}
	return stats
}

// free returns the instants at which the cost fits and at which the whole capacity remains.
func free(res backend.Result) [2]int64 {
	return [2]int64{res.At.Add(res.RetryAfter).UnixMicro(), res.At.Add(res.ResetAfter).UnixMicro()}
}

// A refused key costs the server nothing, and what callers are told is the server's truth.
func TestDenialCostsNothing(t *testing.T) {
	s := testserver.Redis(t)
	p := prefix()
	one, two, truth := newInstance(t, s.Addr(), p), newInstance(t, s.Addr(), p), newTruth(t, s.Addr(), p)
	for name, limits := range limitSets(5) {
		t.Run(name, func(t *testing.T) {
			for i := range 5 {
				require.True(t, decide(t, []*redis.Backend{one, two}[i%2], name, 1, limits...).Allowed)
			}
			begin := time.Now()
			refuse(t, one, name, 1, limits...)
			refuse(t, two, name, 1, limits...)
			armed := time.Since(begin)
			want := decide(t, truth, name, 1, limits...)
			require.False(t, want.Allowed)

			before := calls(t, s)
			first := decide(t, one, name, 1, limits...)
			last := first
			for range 500 {
				for _, b := range []*redis.Backend{one, two} {
					begin := time.Now()
					res := decide(t, b, name, 1, limits...)
					require.False(t, res.Allowed)
					require.Equal(t, backend.SourceDenyCache, res.Source)
					require.Equal(t, want.Limit, res.Limit)
					require.Zero(t, res.Remaining)
					require.Equal(t, free(want), free(res))
					require.False(t, res.At.After(time.Now()), "At is ahead of the server's clock")
					require.False(t, res.At.Before(begin.Add(-armed-100*time.Millisecond)), "At is behind the server's clock")
					if b == one {
						require.False(t, res.At.Before(last.At), "At goes back")
						last = res
					}
				}
			}
			look := decide(t, one, name, 0, limits...)
			assert.False(t, look.Allowed)
			assert.Equal(t, backend.SourceDenyCache, look.Source)
			assert.Equal(t, free(want), free(look))
			assert.Equal(t, before, calls(t, s))
			assert.Less(t, last.RetryAfter, first.RetryAfter)
			assert.Less(t, last.ResetAfter, first.ResetAfter)

			// The server's wait, asked for later, is shorter than what was told before.
			want = decide(t, truth, name, 1, limits...)
			assert.LessOrEqual(t, want.RetryAfter, last.RetryAfter)
			assert.LessOrEqual(t, want.ResetAfter, last.ResetAfter)
		})
	}
}

// Whatever gives a key room again, on whatever instance, ends the denials on all.
func TestDenialEnds(t *testing.T) {
	s := testserver.Redis(t)
	p := prefix()
	here, there := newInstance(t, s.Addr(), p), newInstance(t, s.Addr(), p)
	ctx := context.Background()
	for name, limits := range limitSets(5) {
		for end, do := range map[string]func(t *testing.T, key string, charge backend.Result){
			"Reset": func(t *testing.T, key string, _ backend.Result) {
				require.NoError(t, there.Reset(ctx, key))
			},
			"Settle": func(t *testing.T, key string, charge backend.Result) {
				require.NoError(t, there.Settle(ctx, key, charge, 5, 0, limits...))
			},
			"FLUSHALL": func(t *testing.T, _ string, _ backend.Result) { ask(t, s, "FLUSHALL") },
			"DEL": func(t *testing.T, key string, _ backend.Result) {
				ask(t, s, "DEL", redis.StateKey(here, key))
			},
			"PEXPIRE": func(t *testing.T, key string, _ backend.Result) {
				ask(t, s, "PEXPIRE", redis.StateKey(here, key), "1")
			},
		} {
			t.Run(name+"/"+end, func(t *testing.T) {
				key := name + end
				charge := decide(t, there, key, 5, limits...)
				require.True(t, charge.Allowed)
				refuse(t, here, key, 1, limits...)
				refuse(t, there, key, 1, limits...)
				do(t, key, charge)
				for _, b := range []*redis.Backend{here, there} {
					require.Eventually(t, func() bool { return decide(t, b, key, 1, limits...).Allowed }, soon, time.Millisecond)
				}
			})
		}
	}
}

// A raised limit frees the caller at once where it is used, and drops what others remember.
func TestDenialEndsWithRaisedLimit(t *testing.T) {
	s := testserver.Redis(t)
	p := prefix()
	here, there := newInstance(t, s.Addr(), p), newInstance(t, s.Addr(), p)
	raised := limitSets(10)
	for name, limits := range limitSets(5) {
		t.Run(name, func(t *testing.T) {
			require.True(t, decide(t, there, name, 5, limits...).Allowed)
			refuse(t, here, name, 1, limits...)
			res := decide(t, there, name, 1, raised[name]...)
			require.True(t, res.Allowed)
			require.Equal(t, int64(4), res.Remaining)
			require.Eventually(t, func() bool { return decide(t, here, name, 1, limits...).Source == backend.SourceStore }, soon, time.Millisecond)
			require.True(t, decide(t, here, name, 1, raised[name]...).Allowed)
		})
	}
}

// The end of the wait ends the denial everywhere; who comes second is refused by the server.
func TestDenialEndsWithWait(t *testing.T) {
	s := testserver.Redis(t)
	p := prefix()
	here, there := newInstance(t, s.Addr(), p), newInstance(t, s.Addr(), p)
	for _, a := range everyAlgorithm {
		t.Run(a.String(), func(t *testing.T) {
			t.Parallel()
			key := a.String()
			limit := backend.Limit{Count: 1, Period: 400 * time.Millisecond, Algorithm: a}
			require.Eventually(t, func() bool { // unless the machine was so slow that the wait was over meanwhile
				decide(t, here, key, 1, limit)
				local := 0
				for _, b := range []*redis.Backend{here, there} {
					decide(t, b, key, 1, limit)
					if decide(t, b, key, 1, limit).Source == backend.SourceDenyCache {
						local++
					}
				}
				return local == 2
			}, soon, time.Millisecond)
			require.Eventually(t, func() bool { return decide(t, there, key, 1, limit).Allowed }, soon, time.Millisecond)
			require.Eventually(t, func() bool { return decide(t, here, key, 1, limit).Allowed }, soon, time.Millisecond)
		})
	}
}

// A value that somebody else put in place of the state ends the denial too.
func TestDenialEndsWithForeignValue(t *testing.T) {
	s := testserver.Redis(t)
	b := newInstance(t, s.Addr(), prefix())
	limit := hourly(5, backend.FixedWindow)
	require.True(t, decide(t, b, "key", 5, limit).Allowed)
	refuse(t, b, "key", 1, limit)
	ask(t, s, "SET", redis.StateKey(b, "key"), "foreign")
	require.Eventually(t, func() bool {
		_, err := b.Take(context.Background(), "key", 1, limit)
		return errors.Is(err, backend.ErrUnavailable)
	}, soon, time.Millisecond)
}

// The write that a refusal saw is told apart from every other, also from one whose instant begins
// with the same digits.
func TestDenialNamesTheWrite(t *testing.T) {
	s := testserver.Redis(t)
	b := newInstance(t, s.Addr(), prefix())
	limit := backend.Limit{Count: 5, Period: time.Hour, Algorithm: backend.FixedWindow}
	sec := time.Now().Unix()
	name := redis.StateKey(b, "key")
	ask(t, s, "SET", name, fmt.Sprintf("%d 12 f5/3600s 0,5", sec), "PX", "3600000")
	refuse(t, b, "key", 1, limit)
	ask(t, s, "SET", name, fmt.Sprintf("%d 123456 f5/3600s 0,4", sec), "PX", "3600000")
	require.Eventually(t, func() bool { return decide(t, b, "key", 1, limit).Allowed }, soon, time.Millisecond)
}

// No instance refuses what the server had room for just before, however short the periods are, and
// whoever else takes.
func TestDenialNeverOutlasts(t *testing.T) {
	s := testserver.Redis(t)
	p := prefix()
	here, there, truth := newInstance(t, s.Addr(), p), newInstance(t, s.Addr(), p), newTruth(t, s.Addr(), p)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	steps := 60
	if testing.Short() {
		steps = 30
	}
	total := 0
	for round := range 60 {
		limits := make([]backend.Limit, max(1, round/4%4))
		for i := range limits {
			limits[i] = backend.Limit{
				Count: 1 + r.Int64N(12), Period: time.Duration(2000+r.IntN(40_000)) * time.Microsecond,
				Algorithm: backend.Algorithm((round + i) % 4),
			}
		}
		key, local := fmt.Sprint("key", round), 0
		current := false // nobody else charged the key since here heard of it from the server
		for range steps {
			cost := 1 + r.Int64N(4)
			if r.IntN(10) == 0 {
				current = !decide(t, there, key, cost, limits...).Allowed && current
				continue
			}
			before := decide(t, truth, key, 0, limits...)
			begin := time.Now()
			res := decide(t, here, key, cost, limits...)
			if res.Source != backend.SourceDenyCache {
				current = true
				continue
			}
			local++
			require.False(t, res.Allowed)
			require.False(t, before.Allowed && before.Remaining >= cost,
				"%v: a cost of %d was refused for another %v, when the server had said %v before", limits, cost, res.RetryAfter, before)
			require.False(t, res.At.After(time.Now()) || res.At.Before(begin.Add(-soon)))

			// The caller is told neither too little nor too much.
			after := decide(t, truth, key, cost, limits...)
			switch {
			case res.RetryAfter < 0:
				require.Negative(t, after.RetryAfter)
			case after.Allowed:
				require.False(t, after.At.Before(res.At.Add(res.RetryAfter)),
					"%v: a cost of %d was refused at %v for another %v, and admitted at %v", limits, cost, res.At, res.RetryAfter, after.At)
				current = false
			case current:
				require.Equal(t, free(after), free(res), "%v: a cost of %d", limits, cost)
				require.Equal(t, after.Limit, res.Limit)
				require.LessOrEqual(t, res.Remaining, after.Remaining)
			}
		}
		total += local
	}
	require.Greater(t, total, 10*steps, "refused locally")
}

// A wait counts from the server's decision, however long that is on its way.
func TestDenialNeverOutlastsSlowNetwork(t *testing.T) {
	s := testserver.Redis(t)
	keys := prefix()
	here, truth := newInstance(t, newProxy(t, s.Addr(), 10*time.Millisecond).Addr().String(), keys), newTruth(t, s.Addr(), keys)
	for _, a := range everyAlgorithm {
		t.Run(a.String(), func(t *testing.T) {
			t.Parallel()
			limit := backend.Limit{Count: 1, Period: 150 * time.Millisecond, Algorithm: a}
			local := 0
			for cycles := 0; cycles < 6; {
				before := decide(t, truth, a.String(), 0, limit)
				res := decide(t, here, a.String(), 1, limit)
				if res.Allowed {
					cycles++
				} else if res.Source == backend.SourceDenyCache {
					local++
					require.False(t, before.Allowed, "refused for another %v, when the server had room", res.RetryAfter)
					require.False(t, res.At.After(time.Now()), "At is ahead of the server's clock")
				}
			}
			require.Positive(t, local)
		})
	}
}

// Only what was refused is refused locally: the same cost or a larger one, under the same limits.
func TestDenialRefusesNoMore(t *testing.T) {
	s := testserver.Redis(t)
	p := prefix()
	b, truth := newInstance(t, s.Addr(), p), newTruth(t, s.Addr(), p)
	larger := limitSets(10)
	for name, limits := range limitSets(8) {
		t.Run(name, func(t *testing.T) {
			for range 5 {
				require.True(t, decide(t, b, name, 1, limits...).Allowed)
			}
			refuse(t, b, name, 4, limits...)
			log := slices.ContainsFunc(limits, func(l backend.Limit) bool { return l.Algorithm == backend.SlidingLog })

			res := decide(t, b, name, 0, limits...)
			require.True(t, res.Allowed, "a look")
			require.Equal(t, int64(3), res.Remaining)
			require.Equal(t, backend.SourceStore, res.Source)

			var last backend.Result
			for cost := int64(4); cost <= 8; cost++ {
				res := decide(t, b, name, cost, limits...)
				require.False(t, res.Allowed)
				if !log { // of which only the server knows the charges that a larger cost waits for
					require.Equal(t, backend.SourceDenyCache, res.Source)
				}
				require.Equal(t, int64(3), res.Remaining)
				want := decide(t, truth, name, cost, limits...)
				assert.Equal(t, free(want), free(res), "cost %d", cost)
				assert.Equal(t, want.Limit, res.Limit, "cost %d", cost)
				assert.GreaterOrEqual(t, free(res)[0], free(last)[0], "cost %d", cost)
				last = res
			}
			res = decide(t, b, name, 9, limits...)
			assert.False(t, res.Allowed)
			assert.Equal(t, backend.Never, res.RetryAfter)

			res = decide(t, b, name, 4, append(limits[:len(limits):len(limits)], backend.Unlimited())...)
			require.Equal(t, backend.SourceStore, res.Source, "other limits")
			require.False(t, res.Allowed)
			require.True(t, decide(t, b, name, 3, limits...).Allowed, "a smaller cost")
			refuse(t, b, name, 2, limits...)
			require.True(t, decide(t, b, name, 1, larger[name]...).Allowed, "a larger limit")
		})
	}
}

// A connection that breaks takes the denials with it: nobody would tell that the key changed.
func TestDenialEndsWithConnection(t *testing.T) {
	s := testserver.Redis(t)
	limit := hourly(3, backend.FixedWindow)
	ctx := context.Background()
	admitted := func(b *redis.Backend) func() bool {
		return func() bool {
			res, err := b.Take(ctx, "key", 1, limit)
			if err != nil {
				require.ErrorIs(t, err, backend.ErrUnavailable)
			}
			return res.Allowed
		}
	}
	t.Run("closed", func(t *testing.T) {
		b := newInstance(t, s.Addr(), prefix())
		remembered := func() bool { // false if one of the connections is not made again yet
			for range 10 {
				res, err := b.Take(ctx, "key", 1, limit)
				if err != nil || res.Source == backend.SourceDenyCache {
					return err == nil
				}
			}
			return false
		}
		for range 20 {
			require.Eventually(t, remembered, soon, time.Millisecond)
			ask(t, s, "CLIENT", "KILL", "TYPE", "normal")
			ask(t, s, "DEL", redis.StateKey(b, "key")) // nobody is told
			require.Eventually(t, admitted(b), soon, time.Millisecond)
		}
	})
	t.Run("server gone", func(t *testing.T) {
		b := newInstance(t, s.Addr(), prefix(), redis.WithTimeout(200*time.Millisecond))
		require.True(t, decide(t, b, "key", 3, limit).Allowed)
		refuse(t, b, "key", 1, limit)
		s.Kill()
		require.Eventually(t, func() bool {
			_, err := b.Take(ctx, "key", 1, limit)
			return errors.Is(err, backend.ErrUnavailable)
		}, soon, time.Millisecond)
		for range 3 {
			_, err := b.Take(ctx, "key", 1, limit)
			require.ErrorIs(t, err, backend.ErrUnavailable)
		}
		require.NoError(t, s.Restart())
		require.Eventually(t, admitted(b), soon, 10*time.Millisecond)
	})
}

// However many callers are over the limit, what is remembered of them is bounded.
func TestDenialsAreBounded(t *testing.T) {
	t.Parallel()
	s := testserver.Redis(t)
	b := newInstance(t, s.Addr(), prefix())
	keys := 100_000
	if testing.Short() {
		keys = 25_000
	}
	limit := hourly(1, backend.FixedWindow)
	require.True(t, decide(t, b, "0", 1, limit).Allowed)
	ask(t, s, "EVAL", `local value = redis.call('GET', KEYS[1])
		for i = 1, ARGV[1] - 1 do
			redis.call('SET', string.gsub(KEYS[1], '0}$', i .. '}'), value, 'PX', 3600000)
		end`, "1", redis.StateKey(b, "0"), strconv.Itoa(keys))

	var wg sync.WaitGroup
	const callers = 100
	for caller := range callers {
		wg.Go(func() {
			for i := caller; i < keys; i += callers {
				res, err := b.Take(context.Background(), strconv.Itoa(i), 1, limit)
				if !assert.NoError(t, err) || !assert.False(t, res.Allowed) {
					return
				}
				if i%1000 == 0 && !assert.LessOrEqual(t, redis.DenialsLen(b), redis.MaxDenials) {
					return
				}
			}
		})
	}
	wg.Wait()
	assert.Greater(t, redis.DenialsLen(b), redis.MaxDenials/2)
	assert.LessOrEqual(t, redis.DenialsLen(b), redis.MaxDenials)
	assert.LessOrEqual(t, redis.MaxDenials, 16_384)
}

// The caller chooses the key: what is remembered of it is bounded in bytes too.
func TestDenialsAreBoundedInBytes(t *testing.T) {
	s := testserver.Redis(t)
	b := newInstance(t, s.Addr(), prefix())
	limit := hourly(1, backend.FixedWindow)
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	for i := range 100 {
		long := fmt.Sprint(i, strings.Repeat("x", 256<<10))
		for _, key := range []string{long, long[:1025], long[:1024]} {
			decide(t, b, key, 1, limit)
			require.False(t, decide(t, b, key, 1, limit).Allowed)
		}
	}
	assert.Less(t, heap(), before+4<<20)
	assert.Equal(t, 100, redis.DenialsLen(b), "the keys of 1024 bytes")
	require.Equal(t, backend.SourceDenyCache, decide(t, b, "0"+strings.Repeat("x", 1023), 1, limit).Source)
	for range 10 {
		res := decide(t, b, "0"+strings.Repeat("x", 1024), 1, limit)
		require.False(t, res.Allowed)
		require.Equal(t, backend.SourceStore, res.Source)
	}
}

// So is what is remembered of logs: a refusal that waits for few charges, not one that waits for
// thousands.
func TestDenialsAreBoundedInCharges(t *testing.T) {
	s := testserver.Redis(t)
	b := newInstance(t, s.Addr(), prefix())
	one, other := hourly(100, backend.SlidingLog), hourly(100, backend.SlidingLog).Named("other")
	for _, c := range []struct {
		cost       int64
		limits     []backend.Limit
		remembered bool
	}{
		{1, []backend.Limit{one}, true},
		{15, []backend.Limit{one}, true}, // 15 charges and the last
		{16, []backend.Limit{one}, false},
		{100, []backend.Limit{one}, false},
		{7, []backend.Limit{one, other}, true},
		{8, []backend.Limit{one, other}, false},
	} {
		t.Run(fmt.Sprint(c.cost, " of ", len(c.limits)), func(t *testing.T) {
			for range 100 {
				require.True(t, decide(t, b, t.Name(), 1, c.limits...).Allowed)
			}
			before := redis.DenialsLen(b)
			if c.remembered {
				refuse(t, b, t.Name(), c.cost, c.limits...)
				return
			}
			for range 10 {
				res := decide(t, b, t.Name(), c.cost, c.limits...)
				require.False(t, res.Allowed)
				require.Equal(t, backend.SourceStore, res.Source)
			}
			require.Equal(t, before, redis.DenialsLen(b))
		})
	}
}

// A refusal that is not read yet, and is no use because the server hangs, takes no time but that of
// the call.
func TestDenialTakesNoTimeOfItsOwn(t *testing.T) {
	const timeout = time.Second
	s := testserver.Redis(t)
	b := newInstance(t, s.Addr(), prefix(), redis.WithTimeout(timeout))
	limit := hourly(1, backend.FixedWindow)
	require.True(t, decide(t, b, "key", 1, limit).Allowed)
	require.False(t, decide(t, b, "key", 1, limit).Allowed)
	require.Equal(t, 1, redis.DenialsLen(b))
	s.Pause()
	start := time.Now()
	_, err := b.Take(context.Background(), "key", 1, limit)
	require.ErrorIs(t, err, backend.ErrUnavailable)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	assert.Less(t, time.Since(start), timeout*3/2)
	s.Resume()
	require.Eventually(t, func() bool {
		res, err := b.Take(context.Background(), "key", 1, limit)
		return err == nil && res.Source == backend.SourceDenyCache
	}, soon, 10*time.Millisecond)
}

// Nor do many at once fill the connection.
func TestDenialsOfAServerThatHangs(t *testing.T) {
	const keys = 1500 // more than a connection holds
	s := testserver.Redis(t)
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{s.Addr()}, AlwaysPipelining: true, ForceSingleClient: true, PipelineMultiplex: -1})
	require.NoError(t, err)
	t.Cleanup(client.Close)
	b := redis.New(client, redis.WithTimeout(time.Second))
	limit := hourly(1, backend.FixedWindow)
	var wg sync.WaitGroup
	for w := range 10 {
		wg.Go(func() {
			for i := w; i < keys; i += 10 {
				decide(t, b, fmt.Sprint(i), 1, limit)
				decide(t, b, fmt.Sprint(i), 1, limit)
			}
		})
	}
	wg.Wait()
	require.Equal(t, keys, redis.DenialsLen(b))
	s.Pause()
	defer s.Resume()
	start := time.Now()
	for i := range keys {
		wg.Go(func() {
			_, err := b.Take(context.Background(), fmt.Sprint(i), 1, limit)
			assert.ErrorIs(t, err, backend.ErrUnavailable)
		})
	}
	wg.Wait()
	assert.Less(t, time.Since(start), 5*time.Second)
}

// Refusals and tiers that are in the client's cache do not wait for calls that the server has to
// answer, however many those are.
func TestCacheHitsDoNotWaitForCalls(t *testing.T) {
	s := testserver.Redis(t)
	b := newInstance(t, s.Addr(), prefix(), redis.WithTimeout(time.Minute))
	limit, tiers := hourly(1, backend.FixedWindow), b.Tiers()
	decide(t, b, "key", 1, limit)
	refuse(t, b, "key", 1, limit)
	require.NoError(t, tiers.Set(t.Context(), "c", tierExamples[1]))
	lookUp(t, tiers, "c", tierExamples[1])
	for range 2 { // from the cache
		decide(t, b, "key", 1, limit)
		lookUp(t, tiers, "c", tierExamples[1])
	}
	s.Pause()
	var wg sync.WaitGroup
	for i := range 600 {
		wg.Go(func() {
			_, err := b.Take(context.Background(), fmt.Sprint(i), 1, limit)
			assert.NoError(t, err)
		})
	}
	defer wg.Wait()
	defer s.Resume()
	require.Eventually(t, func() bool { return redis.Calls(b) == 512 }, soon, time.Millisecond)
	done := make(chan struct{})
	go func() {
		defer close(done)
		res, err := b.Take(context.Background(), "key", 1, limit)
		assert.NoError(t, err)
		assert.Equal(t, backend.SourceDenyCache, res.Source)
		tier, err := tiers.Lookup(context.Background(), "c")
		assert.NoError(t, err)
		assert.Equal(t, tierExamples[1], tier)
	}()
	select {
	case <-done:
	case <-time.After(soon):
		t.Error("they wait")
	}
}

// Without client-side caching, in the server or in the client, everything works, and one line of
// the log says so.
func TestDenialsNeedCaching(t *testing.T) {
	server, mini := testserver.Redis(t), miniredis.RunT(t)
	limit := hourly(5, backend.FixedWindow)
	for _, c := range []struct {
		name, addr string
		cached     bool
		opts       []redis.Option
		lines      int
	}{
		{"miniredis", mini.Addr(), false, nil, 1},
		{"client without a cache", server.Addr(), false, nil, 1},
		{"miniredis, and that is intended", mini.Addr(), false, []redis.Option{redis.WithDenyCache(false)}, 0},
		{"client without a cache, and that is intended", server.Addr(), false, []redis.Option{redis.WithDenyCache(false)}, 0},
		{"client with a cache that is not wanted", server.Addr(), true, []redis.Option{redis.WithDenyCache(false)}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log bytes.Buffer
			b := redis.New(newClient(t, c.addr, c.cached), append(c.opts, redis.WithPrefix(prefix()),
				redis.WithTimeout(ample), redis.WithLogger(slog.New(slog.NewJSONHandler(&log, nil))))...)
			var wg sync.WaitGroup
			for range 10 {
				wg.Go(func() {
					for range 20 {
						res, err := b.Take(context.Background(), "key", 1, limit)
						assert.NoError(t, err)
						assert.Equal(t, backend.SourceStore, res.Source)
					}
				})
			}
			wg.Wait()
			assert.False(t, decide(t, b, "key", 1, limit).Allowed)
			assert.Equal(t, c.lines, strings.Count(log.String(), `"code":"GINLIMIT006"`))
			assert.Equal(t, c.lines, strings.Count(log.String(), "\n"), log.String())
		})
	}
	t.Run("both have it", func(t *testing.T) {
		var log bytes.Buffer
		b := newInstance(t, server.Addr(), prefix(), redis.WithLogger(slog.New(slog.NewJSONHandler(&log, nil))))
		decide(t, b, "key", 5, limit)
		refuse(t, b, "key", 1, limit)
		assert.Empty(t, log.String())
	})
	t.Run("the server is down at first", func(t *testing.T) {
		s := testserver.Redis(t)
		client := newClient(t, s.Addr(), true)
		s.Kill()
		var log bytes.Buffer
		b := redis.New(client, redis.WithTimeout(time.Second), redis.WithLogger(slog.New(slog.NewJSONHandler(&log, nil))))
		_, err := b.Take(context.Background(), "key", 1, limit)
		require.ErrorIs(t, err, backend.ErrUnavailable)
		require.NoError(t, s.Restart())
		require.Eventually(t, func() bool {
			res, err := b.Take(context.Background(), "key", 1, limit)
			return err == nil && res.Source == backend.SourceDenyCache
		}, soon, 10*time.Millisecond)
		assert.Empty(t, log.String())
	})
}
