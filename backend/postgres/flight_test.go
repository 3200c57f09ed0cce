package postgres_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/backendtest"
	"github.com/ginlimit/ginlimit/backend/postgres"
	"github.com/ginlimit/ginlimit/internal/testserver"
)

// Never are more inside at once than may be, and whoever leaves makes room.
func TestInFlightAtOnce(t *testing.T) {
	const callers, most = 64, 5
	pool := newPool(t, serverURL(t), 32, nil)
	for _, slow := range []bool{false, true} {
		for _, all := range []bool{false, true} {
			t.Run(fmt.Sprintf("slow=%v/all=%v", slow, all), func(t *testing.T) {
				b := postgres.New(pool, newTable(t, pool, postgres.WithSweep(20), postgres.WithTimeout(30*time.Second))...)
				if slow {
					postgres.SetSlow(b)
				}
				flight := backend.InFlight(most)
				flight.Period = time.Hour // none is lost here
				limits := []backend.Limit{flight, per(1_000_000, time.Hour)}
				enter := func() (res backend.Result, err error) {
					if !all {
						return b.Take(t.Context(), "k", 1, limits...)
					}
					got, err := b.TakeAll(t.Context(), backend.Charge{Key: "k", Cost: 1, Limits: limits}, backend.Charge{Key: "all", Cost: 1, Limits: limits[1:]})
					if err == nil {
						res = got[0]
					}
					return res, err
				}
				var inside, seen, entered atomic.Int64
				var wg sync.WaitGroup
				for caller := range callers {
					wg.Go(func() {
						for range 20 {
							res, err := enter()
							if !assert.NoError(t, err) {
								return
							}
							if !res.Allowed {
								continue
							}
							entered.Add(1)
							n := inside.Add(1)
							for was := seen.Load(); n > was && !seen.CompareAndSwap(was, n); was = seen.Load() {
							}
							if caller%2 == 0 {
								res, err = b.Renew(t.Context(), "k", res, 1, limits...)
								assert.NoError(t, err)
							}
							inside.Add(-1)
							assert.NoError(t, b.Settle(t.Context(), "k", res, 1, int64(caller%3), limits...))
						}
					})
				}
				wg.Wait()
				postgres.Quiet(b)
				require.LessOrEqual(t, seen.Load(), int64(most))
				require.Positive(t, entered.Load())
				usage, err := b.Usage(t.Context(), "k", limits...)
				require.NoError(t, err)
				require.Zero(t, usage[0].Used(), "places were lost")
			})
		}
	}
}

// A place that its process renews is held, also across connections that die; one that nobody renews
// comes back after its Period, and can be held again.
func TestRenew(t *testing.T) {
	url := serverURL(t)
	pool, killer := newPool(t, url, 2, nil), newPool(t, url, 1, nil)
	b := postgres.New(pool, newTable(t, pool, postgres.WithSweep(0))...)
	clock := clocks(b, 0)
	limit := backend.InFlight(1)
	used := func() int64 {
		t.Helper()
		all, err := b.Usage(t.Context(), "k", limit)
		require.NoError(t, err)
		return all[0].Used()
	}
	first, err := take(b, "k", limit)
	require.NoError(t, err)
	require.True(t, first.Allowed)
	for range 5 {
		clock.advance(50 * time.Second)
		_, err := killer.Exec(t.Context(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"+
			" AND query LIKE '%"+postgres.Table(b)[len(`"public".`)+1:len(postgres.Table(b))-1]+"%'")
		require.NoError(t, err)
		require.Eventually(t, func() bool {
			res, err := b.Renew(t.Context(), "k", first, 1, limit)
			if err == nil {
				first = res
			}
			return err == nil
		}, soon, time.Millisecond)
		require.Equal(t, int64(1), used())
		res, err := take(b, "k", limit)
		require.NoError(t, err)
		require.False(t, res.Allowed)
		require.Equal(t, time.Second, res.RetryAfter)
	}

	clock.advance(time.Minute) // it was not renewed in time
	second, err := take(b, "k", limit)
	require.NoError(t, err)
	require.True(t, second.Allowed)
	clock.advance(time.Second)
	first, err = b.Renew(t.Context(), "k", first, 1, limit)
	require.NoError(t, err)
	require.Equal(t, int64(2), used())
	require.NoError(t, b.Settle(t.Context(), "k", first, 1, 1, limit))
	require.Equal(t, int64(1), used())
	require.NoError(t, b.Settle(t.Context(), "k", first.WithReleased(), 1, 1, limit))
	require.Equal(t, int64(1), used())
	require.NoError(t, b.Settle(t.Context(), "k", second, 1, 7, limit))
	require.Zero(t, used())

	// Also where the row itself is gone.
	require.NoError(t, b.Reset(t.Context(), "k"))
	_, err = b.Renew(t.Context(), "k", second, 1, limit)
	require.NoError(t, err)
	require.Equal(t, int64(1), used())
}

// TestCrowdedPlaces: 10,000 callers want 100 places while PostgreSQL, with a table that is logged,
// is killed and starts again.
func TestCrowdedPlaces(t *testing.T) {
	server := testserver.Postgres(t, "-c", "fsync=on")
	pool := newPool(t, server.URL(), 16, nil)
	b := postgres.New(pool, newTable(t, pool, postgres.WithLogged(), postgres.WithTimeout(30*time.Second))...)
	callers := 10_000
	if testing.Short() {
		callers = 2_000
	}
	backendtest.Crowd(t, b, callers, func() { require.NoError(t, server.Restart()) })
}
