package redis_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"
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

var tierExamples = []backend.Tier{
	{},
	{Name: "free", Limits: []backend.Limit{{Count: 10, Period: time.Minute}}},
	{Name: "nothing", Limits: []backend.Limit{{Count: 0, Period: time.Hour}}},
	{Name: "enterprise", Limits: []backend.Limit{backend.Unlimited().Named("all")}},
	{Name: "pro \"é\"", Limits: []backend.Limit{
		{Name: "burst", Count: 7, Period: time.Second, Burst: 20},
		{Count: 1000, Period: 3333 * time.Microsecond, Algorithm: backend.SlidingWindow},
		{Count: backend.MaxCount, Period: backend.MaxPeriod, Algorithm: backend.FixedWindow},
		{Count: 5, Period: time.Hour, Algorithm: backend.SlidingLog},
	}},
	{Name: "all kinds", Limits: []backend.Limit{
		backend.PerCalendarMonth(200_000).In("Europe/Berlin").StartingOn(15).Named("month").Counting("tokens"),
		backend.PerCalendarDay(5),
		backend.InFlight(3),
		{Name: `a "b" named c`, Count: 5, Period: time.Minute, Unit: "content-bytes"},
	}},
}

// What Set wrote is what Lookup returns, with and without client-side caching.
func TestTiersKeepEverything(t *testing.T) {
	plain := newClient(t, miniredis.RunT(t).Addr(), false)
	cached := newClient(t, testserver.Redis(t).Addr(), true)
	for name, client := range map[string]rueidis.Client{"without caching": plain, "with caching": cached} {
		t.Run(name, func(t *testing.T) {
			tiers, ctx := redis.NewTiers(client, redis.WithPrefix(prefix())), context.Background()
			for i, tier := range tierExamples {
				for _, id := range []string{fmt.Sprint("customer ", i), "shared"} {
					require.NoError(t, tiers.Set(ctx, id, tier))
					lookUp(t, tiers, id, tier)
				}
			}
			got, err := tiers.Lookup(ctx, "nobody")
			require.NoError(t, err)
			assert.Equal(t, backend.Tier{}, got)
			require.NoError(t, tiers.Delete(ctx, "shared"))
			lookUp(t, tiers, "shared", backend.Tier{})
			require.NoError(t, tiers.Delete(ctx, "nobody"))
		})
	}
}

// lookUp waits until id has tier: for a moment after a change the client's cache may hold the one
// before.
func lookUp(t *testing.T, tiers *redis.Tiers, id string, tier backend.Tier) {
	t.Helper()
	var got backend.Tier
	if !assert.Eventually(t, func() bool {
		var err error
		got, err = tiers.Lookup(t.Context(), id)
		require.NoError(t, err)
		return reflect.DeepEqual(tier, got)
	}, 5*time.Second, time.Millisecond) {
		assert.Equal(t, tier, got)
	}
}

// A tier that was looked up costs no command until it changes, on any instance; so does an id
// without one.
func TestTiersAreCachedUntilTheyChange(t *testing.T) {
	server, ctx := testserver.Redis(t), context.Background()
	one, other := redis.NewTiers(newClient(t, server.Addr(), true)), redis.NewTiers(newClient(t, server.Addr(), true))
	name := func(tiers *redis.Tiers, id string) string {
		tier, err := tiers.Lookup(ctx, id)
		require.NoError(t, err)
		return tier.Name
	}
	require.Equal(t, "", name(one, "c"))
	require.NoError(t, other.Set(ctx, "c", tierExamples[1]))
	require.Eventually(t, func() bool { return name(one, "c") == "free" }, 5*time.Second, time.Millisecond)
	require.Equal(t, "", name(one, "nobody"))

	before := server.Info("commandstats", "cmdstat_get")
	for range 1000 {
		require.Equal(t, "free", name(one, "c"))
		require.Equal(t, "", name(one, "nobody"))
	}
	assert.Equal(t, before, server.Info("commandstats", "cmdstat_get"), "GETs of the server")

	require.NoError(t, other.Set(ctx, "c", tierExamples[3]))
	require.Eventually(t, func() bool { return name(one, "c") == "enterprise" }, 5*time.Second, time.Millisecond)
	require.NoError(t, other.Delete(ctx, "c"))
	require.Eventually(t, func() bool { return name(one, "c") == "" }, 5*time.Second, time.Millisecond)
}

// Tiers that cannot be read are an error that a failure policy may let pass, and never a tier.
func TestTiersThatCannotBeRead(t *testing.T) {
	server, ctx := miniredis.RunT(t), context.Background()
	tiers := redis.NewTiers(newClient(t, server.Addr(), false))
	for _, text := range []string{"", "x", "[]", `{"limits":["-1/m"]}`, `{"limits":["1"]}`, `{"limits":[{"count":1,"period":"1m"}]}`,
		`{"limits":["1/m leaky"]}`, `{"limits":["1/y"]}`, `{"limits":["1.5/m"]}`, `{"limits":["1/m burst 2 fixed-window"]}`,
		`{"limits":["1/day Atlantis/Capital calendar"]}`, `{"limits":[1]}`, `{"limits":"1/m"}`} {
		require.NoError(t, server.Set("gl1:tier:{c}", text))
		tier, err := tiers.Lookup(ctx, "c")
		require.ErrorIs(t, err, backend.ErrUnavailable, text)
		assert.ErrorContains(t, err, "ginlimit: ", text)
		assert.Equal(t, backend.Tier{}, tier)
	}
	require.NoError(t, server.Set("gl1:tier:{c}", `{"name":"pro","limits":["100/m burst 20"]}`))
	tier, err := tiers.Lookup(ctx, "c")
	require.NoError(t, err)
	assert.Equal(t, backend.Tier{Name: "pro", Limits: []backend.Limit{{Count: 100, Period: time.Minute, Burst: 20}}}, tier)

	server.Close()
	_, err = tiers.Lookup(ctx, "c")
	require.ErrorIs(t, err, backend.ErrUnavailable)
	require.ErrorIs(t, tiers.Set(ctx, "c", tierExamples[1]), backend.ErrUnavailable)
	require.ErrorIs(t, tiers.Delete(ctx, "c"), backend.ErrUnavailable)
}

func TestTiersRefuseWhatIsNotValid(t *testing.T) {
	client := newClient(t, miniredis.RunT(t).Addr(), false)
	for _, limit := range []backend.Limit{{Count: 1}, {Count: 1, Period: time.Second, Name: "é"}, {Count: 1, Period: time.Second, Name: "a\r\nb"}} {
		err := redis.NewTiers(client).Set(context.Background(), "c", backend.Tier{Limits: []backend.Limit{limit}})
		require.ErrorContains(t, err, "ginlimit: ")
		assert.NotErrorIs(t, err, backend.ErrUnavailable)
	}
	one := backend.Limit{Count: 1, Period: time.Second}
	for problem, tier := range map[string]backend.Tier{
		"limit 2 is that of a ban":  {Limits: []backend.Limit{one, one.Banning(time.Second, time.Minute)}},
		"use UTF-8":                 {Name: "a\xff", Limits: []backend.Limit{one}},
		`two limits are named "a";`: {Name: "pro", Limits: []backend.Limit{one.Named("a"), one, one, one.Named("a")}},
	} {
		err := redis.NewTiers(client).Set(context.Background(), "c", tier)
		require.ErrorContains(t, err, problem)
		assert.ErrorContains(t, err, "ginlimit: ")
		assert.NotErrorIs(t, err, backend.ErrUnavailable)
	}
	for _, opt := range []redis.Option{nil, redis.WithPing(), redis.WithDenyCache(true), redis.WithPrefix("{"),
		redis.WithClientOption(func(*rueidis.ClientOption) {})} {
		assert.Panics(t, func() { redis.NewTiers(client, opt) })
	}
	assert.Panics(t, func() { redis.NewTiers(nil) })
}

// The Tiers of a Backend are those of its Redis and prefix.
func TestTiersOfABackend(t *testing.T) {
	server, ctx := testserver.Redis(t), context.Background()
	b, err := redis.Dial(ctx, server.URL(), redis.WithPrefix("shop"), redis.WithPing())
	require.NoError(t, err)
	defer b.Close()
	require.NoError(t, b.Tiers().Set(ctx, "c", tierExamples[1]))
	_, err = server.Do("GET", "shop1:tier:{c}")
	require.NoError(t, err)
	tier, err := redis.NewTiers(newClient(t, server.Addr(), true), redis.WithPrefix("shop")).Lookup(ctx, "c")
	require.NoError(t, err)
	assert.Equal(t, tierExamples[1], tier)
}

// What is found in the client's cache says nothing about the server, and takes no probe of it from
// those who ask it.
func TestCachedTiersLeaveTheProbes(t *testing.T) {
	server := testserver.Redis(t)
	b := gateBackend(t, server.URL())
	tiers := b.Tiers()
	require.NoError(t, tiers.Set(t.Context(), "c", tierExamples[1]))
	lookUp(t, tiers, "c", tierExamples[1])
	server.Pause()
	for try := 0; !b.Breakers()[server.Addr()]; try++ {
		require.Less(t, try, 10)
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() { _, _ = b.Take(t.Context(), "k", 1, gateLimit) })
		}
		wg.Wait()
	}
	server.Resume()
	require.Eventually(t, func() bool {
		_, _ = tiers.Lookup(t.Context(), "c")
		_, err := b.Take(t.Context(), "k", 1, gateLimit)
		return err == nil
	}, time.Minute, 5*time.Millisecond)
}

// When the server answers again, the breaker closes though all that is looked up is in the client's
// cache.
func TestCachedTiersCloseTheBreaker(t *testing.T) {
	server := testserver.Redis(t)
	tiers := redis.NewTiers(newClient(t, server.Addr(), true))
	require.NoError(t, tiers.Set(t.Context(), "c", tierExamples[1]))
	lookUp(t, tiers, "c", tierExamples[1])
	server.Pause()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			_, err := tiers.Lookup(t.Context(), fmt.Sprint("other", i))
			assert.ErrorIs(t, err, backend.ErrUnavailable)
		})
	}
	wg.Wait()
	require.Eventually(t, func() bool { // a busy machine counts fewer of those as late
		_, _ = tiers.Lookup(t.Context(), "other0")
		_, err := tiers.Lookup(t.Context(), "c")
		return errors.Is(err, redis.ErrBreakerOpen)
	}, time.Minute, time.Millisecond)
	server.Resume()
	require.Eventually(t, func() bool {
		_, _ = tiers.Lookup(t.Context(), "c")
		return !redis.Open(tiers)
	}, time.Minute, 10*time.Millisecond)
}

// Look-ups of many ids do not fill the connection to a server that hangs.
func TestLookupsOfAServerThatHangs(t *testing.T) {
	server := testserver.Redis(t)
	tiers := gateBackend(t, server.URL()).Tiers()
	lookUp(t, tiers, "c", backend.Tier{})
	server.Pause()
	var wg sync.WaitGroup
	var slowest atomic.Int64
	for i := range 3000 {
		wg.Go(func() {
			start := time.Now()
			_, err := tiers.Lookup(t.Context(), fmt.Sprint(i))
			took := int64(time.Since(start))
			assert.ErrorIs(t, err, backend.ErrUnavailable)
			for old := slowest.Load(); took > old && !slowest.CompareAndSwap(old, took); old = slowest.Load() {
			}
		})
	}
	wg.Wait()
	t.Logf("the slowest took %v", time.Duration(slowest.Load()))
	assert.Less(t, time.Duration(slowest.Load()), 5*redis.DefaultTimeout)
	server.Resume()
	require.Eventually(t, func() bool {
		_, err := tiers.Lookup(t.Context(), "another")
		return err == nil
	}, time.Minute, 10*time.Millisecond)
}

// One shard of a Cluster that hangs does not stop the look-ups of the others, even if the Cluster
// could not be asked for its shards when the Tiers were made.
func TestTiersOfAShardThatHangs(t *testing.T) {
	c := testserver.RedisCluster(t, 3, 0)
	for name, late := range map[string]bool{"at once": false, "later": true} {
		t.Run(name, func(t *testing.T) {
			option, err := rueidis.ParseURL(c.URL())
			require.NoError(t, err)
			option.AlwaysPipelining = true
			client, err := rueidis.NewClient(option)
			require.NoError(t, err)
			t.Cleanup(client.Close)
			dead := c.Servers[0]
			var lost, stay []string
			for i := 0; len(lost) < 20 || len(stay) < 40; i++ {
				if id := fmt.Sprint("id", i); c.Owner("gl1:tier:{"+id+"}") == dead {
					lost = append(lost, id)
				} else {
					stay = append(stay, id)
				}
			}
			if late {
				for _, s := range c.Servers {
					s.Pause()
				}
			}
			tiers := redis.NewTiers(client)
			if late {
				for _, s := range c.Servers {
					s.Resume()
				}
				for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
					_, _ = tiers.Lookup(t.Context(), "c")
				}
			}
			for _, id := range stay[:20] { // connections
				require.Eventually(t, func() bool {
					_, err := tiers.Lookup(t.Context(), id)
					return err == nil
				}, time.Minute, time.Millisecond)
			}
			dead.Pause()
			defer dead.Resume()
			var wg sync.WaitGroup
			for _, id := range lost {
				wg.Go(func() {
					_, err := tiers.Lookup(t.Context(), id)
					assert.ErrorIs(t, err, backend.ErrUnavailable)
				})
			}
			wg.Wait()
			require.Eventually(t, func() bool { // a busy machine counts fewer of those as late
				_, err := tiers.Lookup(t.Context(), lost[0])
				return errors.Is(err, redis.ErrBreakerOpen)
			}, time.Minute, time.Millisecond)
			for _, id := range stay[20:] {
				_, err := tiers.Lookup(t.Context(), id)
				require.NoError(t, err)
			}
		})
	}
}
