package redis_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/redis"
	"github.com/ginlimit/ginlimit/internal/testserver"
)

// TestBanCostsNothing: refusals that the process remembers bring a ban about, every instance that
// met it refuses without a command, and a Reset lifts it everywhere.
func TestBanCostsNothing(t *testing.T) {
	s := testserver.Redis(t)
	p := prefix()
	one, two := newInstance(t, s.Addr(), p), newInstance(t, s.Addr(), p)
	limits := []backend.Limit{hourly(3, backend.FixedWindow), hourly(50, backend.FixedWindow).Banning(2*time.Hour, 4*time.Hour)}
	for range 3 {
		require.True(t, decide(t, one, "zoe", 1, limits...).Allowed)
	}
	ctx := context.Background()
	refused, local := 0, 0
	for {
		res := decide(t, one, "zoe", 1, limits...)
		require.False(t, res.Allowed)
		if res.Banned() {
			break
		}
		if refused++; res.Source == backend.SourceDenyCache {
			local++
		}
	}
	require.Equal(t, 50, refused, "as many as the limit of refusals allows, wherever they were refused")
	require.Greater(t, local, 30, "most of them without asking")

	begin := time.Now()
	require.Eventually(t, func() bool {
		return decide(t, one, "zoe", 1, limits...).Source == backend.SourceDenyCache
	}, soon, time.Millisecond)
	refuse(t, two, "zoe", 1, limits...)
	before := calls(t, s)
	for range 200 {
		for _, b := range []*redis.Backend{one, two} {
			res := decide(t, b, "zoe", 1, limits...)
			require.True(t, res.Banned() && !res.Allowed)
			require.Greater(t, res.RetryAfter, time.Hour+50*time.Minute)
		}
	}
	if time.Since(begin) < 4*time.Second { // later one of them looks again
		require.Equal(t, before, calls(t, s), "of a banned caller")
	}
	other := []backend.Limit{hourly(1000, backend.TokenBucket)}
	require.True(t, decide(t, two, "zoe", 1, other...).Banned(), "other limits, by a version that knows no bans")

	require.NoError(t, one.Reset(ctx, "zoe"))
	require.Eventually(t, func() bool { return decide(t, two, "zoe", 1, limits...).Allowed }, soon, time.Millisecond)
	require.True(t, decide(t, one, "zoe", 1, limits...).Allowed)

	require.NoError(t, two.Ban(ctx, "zoe", time.Hour))
	require.True(t, decide(t, one, "zoe", 1, limits...).Banned())
}

// TestPlaceIsFreeAtOnce: a refusal that is remembered ends when a place is given back elsewhere.
func TestPlaceIsFreeAtOnce(t *testing.T) {
	s := testserver.Redis(t)
	p := prefix()
	one, two := newInstance(t, s.Addr(), p), newInstance(t, s.Addr(), p)
	places := backend.InFlight(2)
	var held []backend.Result
	for range 2 {
		held = append(held, decide(t, one, "k", 1, places))
		require.True(t, held[len(held)-1].Allowed)
	}
	for range 20 {
		res := decide(t, two, "k", 1, places)
		require.False(t, res.Allowed)
		require.Equal(t, time.Second, max(res.RetryAfter, time.Second))
	}
	ctx := context.Background()
	require.NoError(t, one.Settle(ctx, "k", held[0], 1, 1, places))
	require.Eventually(t, func() bool { return decide(t, two, "k", 1, places).Allowed }, soon, time.Millisecond)
	require.False(t, decide(t, one, "k", 1, places).Allowed)
	renewed, err := one.Renew(ctx, "k", held[1], 1, places)
	require.NoError(t, err)
	require.True(t, renewed.At.After(held[1].At))
	require.NoError(t, one.Settle(ctx, "k", held[1], 1, 1, places), "nothing is there any more")
	require.False(t, decide(t, one, "k", 1, places).Allowed)
	require.NoError(t, one.Settle(ctx, "k", renewed, 1, 1, places))
	require.Eventually(t, func() bool { return decide(t, one, "k", 1, places).Allowed }, soon, time.Millisecond)
}

// TestBanOfBriefRefusals: refusals that the process remembered count for a ban also after they are
// over, after a charge, and after a Settle, until Reset.
func TestBanOfBriefRefusals(t *testing.T) {
	t.Parallel()
	const refusals = 30
	ctx := t.Context()
	b := newInstance(t, testserver.Redis(t).Addr(), prefix())
	limits := []backend.Limit{
		{Count: 1, Period: 20 * time.Millisecond, Algorithm: backend.FixedWindow},
		hourly(refusals, backend.FixedWindow).Banning(time.Hour, 2*time.Hour),
	}
	for _, settles := range []bool{false, true} {
		refused, cached := 0, 0
		for refused <= refusals {
			res := decide(t, b, "key", 1, limits...)
			if !res.Allowed {
				refused++
			} else if settles {
				require.NoError(t, b.Settle(ctx, "key", res, 1, 2, limits...))
			}
			if res.Source == backend.SourceDenyCache {
				cached++
			}
			require.Equal(t, refused > refusals, res.BanBegan(), "refusal %d, %d of them remembered", refused, cached)
			time.Sleep(2 * time.Millisecond)
		}
		t.Log(cached, "of", refused, "refusals were remembered")
		require.NoError(t, b.Reset(ctx, "key"))
	}
}
