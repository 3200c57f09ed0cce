package goredis_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend"
)

// shared is a backend that shares its keys with another.
type shared interface {
	backend.Backend
	backend.Renewer
	backend.Banner
}

// shareBans fails the test unless a ban that either backend brings about, or is told of, is one of
// both, and Reset by either lifts it for both.
func shareBans(t *testing.T, backends [2]shared) {
	ctx := t.Context()
	limits := []backend.Limit{hourly(3, backend.FixedWindow), hourly(10, backend.FixedWindow).Banning(2*time.Hour, 4*time.Hour)}
	becomes := func(b backend.Backend, key string, is func(backend.Result) bool) {
		t.Helper()
		require.Eventually(t, func() bool { return is(decide(t, b, key, 1, limits...)) }, soon, time.Millisecond)
	}
	banned := func(res backend.Result) bool { return res.Banned() }
	allowed := func(res backend.Result) bool { return res.Allowed }
	for i, b := range backends {
		other := backends[1-i]
		key := []string{"banned by rueidis", "banned by go-redis"}[i]
		for _, taker := range []backend.Backend{b, other, b} {
			require.True(t, decide(t, taker, key, 1, limits...).Allowed)
		}
		becomes(b, key, banned)
		becomes(other, key, banned)
		for _, asked := range backends {
			res := decide(t, asked, key, 1, limits...)
			require.False(t, res.Allowed)
			require.Greater(t, res.RetryAfter, time.Hour)
			require.True(t, decide(t, asked, key, 1, hourly(1000, 0)).Banned(), "under other limits")
		}
		require.NoError(t, other.Reset(ctx, key))
		becomes(b, key, allowed)
		becomes(other, key, allowed)

		require.NoError(t, b.Ban(ctx, key, time.Hour))
		becomes(other, key, banned)
		becomes(b, key, banned)
		require.NoError(t, b.Reset(ctx, key))
		becomes(other, key, allowed)
		becomes(b, key, allowed)
	}
}

// sharePlaces fails the test unless a place that either backend takes is one fewer for both, and
// either renews it and gives it back for the other.
func sharePlaces(t *testing.T, backends [2]shared) {
	ctx := t.Context()
	places := backend.InFlight(2)
	places.Period = time.Hour // longer than the test takes
	for i, b := range backends {
		other := backends[1-i]
		key := []string{"held by rueidis", "held by go-redis"}[i]
		mine, theirs := decide(t, b, key, 1, places), decide(t, other, key, 1, places)
		require.True(t, mine.Allowed)
		require.True(t, theirs.Allowed)
		full := func() {
			t.Helper()
			for _, asked := range backends {
				require.False(t, decide(t, asked, key, 1, places).Allowed)
				usage, err := asked.Usage(ctx, key, places)
				require.NoError(t, err)
				require.EqualValues(t, 2, usage[0].Used())
			}
		}
		full()
		renewed, err := other.Renew(ctx, key, mine, 1, places)
		require.NoError(t, err)
		require.True(t, renewed.At.After(mine.At))
		full()
		require.NoError(t, b.Settle(ctx, key, mine, 1, 1, places), "it was renewed, so that nothing is given back")
		full()

		// Each gives back what the other one holds.
		require.NoError(t, b.Settle(ctx, key, theirs, 1, 1, places))
		require.NoError(t, other.Settle(ctx, key, renewed, 1, 1, places))
		for _, asked := range backends {
			usage, err := asked.Usage(ctx, key, places)
			require.NoError(t, err)
			require.Zero(t, usage[0].Used())
		}
		for _, asked := range backends {
			require.Eventually(t, func() bool { return decide(t, asked, key, 1, places).Allowed }, soon, time.Millisecond)
		}
		full()
	}
}
