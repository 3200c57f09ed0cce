package redis_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/redis"
	"github.com/ginlimit/ginlimit/internal/testserver"
)

// takeAll is a TakeAll that must reach a decision.
func takeAll(tb testing.TB, b *redis.Backend, charges ...backend.Charge) []backend.Result {
	tb.Helper()
	all, err := b.TakeAll(context.Background(), charges...)
	require.NoError(tb, err)
	require.Len(tb, all, len(charges))
	return all
}

// A TakeAll with a key that is known to refuse costs no command. Every key that is known to refuse
// says for how long, and the others are marked. What ends the refusal anywhere ends it here.
func TestTakeAllDenied(t *testing.T) {
	s := testserver.Redis(t)
	p := prefix()
	b, other := newInstance(t, s.Addr(), p), newTruth(t, s.Addr(), p)
	ctx := context.Background()
	for name, limits := range limitSets(3) {
		key := func(i int) string { return fmt.Sprint(name, i) }
		charges := make([]backend.Charge, 3)
		for i := range charges {
			charges[i] = backend.Charge{Key: key(i), Cost: 1, Limits: limits}
		}
		var taken [3]backend.Result
		for _, i := range []int{0, 2} {
			taken[i] = decide(t, other, key(i), 3, limits...)
			require.True(t, taken[i].Allowed)
		}
		require.Eventually(t, func() bool { // the client may hold an older value for a moment
			all := takeAll(t, b, charges...)
			require.False(t, all[0].Allowed)
			return all[0].Source == backend.SourceDenyCache && all[2].Source == backend.SourceDenyCache && !all[2].Allowed
		}, soon, time.Millisecond, name)
		before := calls(t, s)
		for range 20 {
			all := takeAll(t, b, charges...)
			for i, res := range all {
				require.Equal(t, backend.SourceDenyCache, res.Source, name)
				require.Zero(t, res.Remaining, name)
				require.Equal(t, i == 1, res.Allowed, name)
				require.Equal(t, i != 1, res.RetryAfter > 0, "%s: %v", name, res)
			}
		}
		after := calls(t, s)
		require.Equal(t, before["evalsha"], after["evalsha"], name)
		require.Equal(t, before["get"], after["get"], name)

		require.NoError(t, other.Settle(ctx, key(0), taken[0], 3, 0, limits...))
		require.NoError(t, b.Settle(ctx, key(2), taken[2], 3, 0, limits...))
		require.Eventually(t, func() bool { return takeAll(t, b, charges...)[0].Allowed }, soon, time.Millisecond, name)
		for i := range charges {
			require.EqualValues(t, 1, usage(t, b, key(i), limits...), "%s: key %d", name, i)
		}
	}
}

// usage returns how many units of the first limit are in use.
func usage(tb testing.TB, b *redis.Backend, key string, limits ...backend.Limit) int64 {
	tb.Helper()
	all, err := b.Usage(context.Background(), key, limits...)
	require.NoError(tb, err)
	return all[0].Used()
}

// With 64 callers over random sets of keys, no key admits more than it has, and once everything is
// quiet each has in use exactly what was admitted and not given back: nothing of a refused charge.
func TestTakeAllExact(t *testing.T) {
	const keys, count, callers, rounds = 12, 150, 64, 40
	s := testserver.Redis(t)
	p := prefix()
	backends := []*redis.Backend{newInstance(t, s.Addr(), p, redis.WithTimeout(ample)), newInstance(t, s.Addr(), p, redis.WithDenyCache(false), redis.WithTimeout(ample))}
	var limits [keys][]backend.Limit
	for i := range limits {
		// A bucket refills nothing meanwhile.
		limits[i] = []backend.Limit{{Count: count, Period: 100 * 24 * time.Hour, Algorithm: everyAlgorithm[i%4]}}
		if i%2 == 0 {
			backends[0].Prepare(limits[i]...)
		}
	}
	ctx := context.Background()
	name := func(i int) string { return fmt.Sprint("exact", i) }
	var used [keys]atomic.Int64
	var refused atomic.Int64
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(c), 3))
			b := backends[c%2]
			for range rounds {
				var charges []backend.Charge
				set := r.Perm(keys)[:1+r.IntN(4)]
				for _, i := range set {
					charges = append(charges, backend.Charge{Key: name(i), Cost: 1 + r.Int64N(2), Limits: limits[i]})
				}
				all, err := b.TakeAll(ctx, charges...)
				if !assert.NoError(t, err) {
					return
				}
				allowed := true
				for _, res := range all {
					allowed = allowed && res.Allowed
				}
				if !allowed {
					refused.Add(1)
					continue
				}
				for j, i := range set {
					used[i].Add(charges[j].Cost)
				}
				if j := r.IntN(len(set)); r.IntN(4) == 0 {
					actual := r.Int64N(charges[j].Cost + 1)
					assert.NoError(t, b.Settle(ctx, name(set[j]), all[j], charges[j].Cost, actual, limits[set[j]]...))
					used[set[j]].Add(actual - charges[j].Cost)
				}
			}
		})
	}
	wg.Wait()
	assert.Positive(t, refused.Load())
	for i := range keys {
		assert.LessOrEqual(t, used[i].Load(), int64(count), "key %d", i)
		assert.Equal(t, used[i].Load(), usage(t, backends[1], name(i), limits[i]...), "key %d", i)
	}
}

// A key of another type, or with a value that is not ours, is an error, and nothing is charged.
func TestTakeAllForeign(t *testing.T) {
	s := testserver.Redis(t)
	b := newTruth(t, s.Addr(), prefix())
	limit := []backend.Limit{hourly(10, backend.TokenBucket)}
	b.Prepare(limit...)
	for name, make := range map[string][]string{"a hash": {"HSET", "", "f", "v"}, "a text": {"SET", "", "nonsense"}} {
		for _, cost := range []int64{1, 2} {
			charges := []backend.Charge{{Key: "a" + name, Cost: cost, Limits: limit}, {Key: "b" + name, Cost: cost, Limits: limit}, {Key: "c" + name, Cost: cost, Limits: limit}}
			command := append([]string{}, make...)
			command[1] = redis.StateKey(b, "b"+name)
			ask(t, s, command...)
			_, err := b.TakeAll(t.Context(), charges...)
			require.ErrorIs(t, err, backend.ErrUnavailable, name)
			require.Zero(t, usage(t, b, "a"+name, limit...), name)
			require.Zero(t, usage(t, b, "c"+name, limit...), name)
			require.EqualValues(t, 1, ask(t, s, "EXISTS", command[1]), name)
		}
	}
}
