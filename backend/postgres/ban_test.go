package postgres_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/postgres"
)

// Each refusal is counted, in the statement that refuses. The one that is too many says so, and
// while the ban lasts nothing is written. Reset lifts it.
func TestBans(t *testing.T) {
	sent := &statements{}
	pool := newPool(t, serverURL(t), 1, func(c *pgxpool.Config) { c.ConnConfig.Tracer = sent })
	for _, slow := range []bool{false, true} {
		for _, a := range []backend.Algorithm{backend.TokenBucket, backend.SlidingWindow, backend.SlidingLog, backend.FixedWindow, backend.CalendarWindow, backend.Concurrency} {
			t.Run(fmt.Sprintf("%v/slow=%v", a, slow), func(t *testing.T) {
				b := postgres.New(pool, newTable(t, pool, postgres.WithSweep(0))...)
				if slow {
					postgres.SetSlow(b)
				}
				clock := clocks(b, 0)
				table := rows{t, pool, postgres.Table(b)}
				limit := backend.Limit{Count: 1, Period: time.Hour, Algorithm: a}
				if a == backend.CalendarWindow {
					limit = backend.PerCalendarDay(1)
				}
				limits := []backend.Limit{limit, per(2, time.Hour).WithAlgorithm(backend.SlidingLog).Banning(time.Minute, 3*time.Minute)}
				over := int64(0) // 1 if the process takes a ban to last, by its own clock, that is over
				ask := func(limits ...backend.Limit) backend.Result {
					t.Helper()
					before := sent.n.Load()
					res, err := b.Take(t.Context(), "k", 1, limits...)
					require.NoError(t, err)
					require.LessOrEqual(t, sent.n.Load()-before, 1+over)
					over = 0
					return res
				}
				require.True(t, ask(limits...).Allowed)
				for round := range 3 {
					for try := range 3 {
						res := ask(limits...)
						require.False(t, res.Allowed)
						require.Equal(t, try == 2, res.Banned())
						require.Equal(t, try == 2, res.BanBegan())
					}
					clock.advance(time.Second)
					length := min(3*time.Minute, time.Minute<<round) - time.Second
					before := table.get("k")
					for range 3 {
						res := ask(limits...)
						require.True(t, res.Banned())
						require.False(t, res.BanBegan())
						require.True(t, ask(limit).Banned(), "a version that bans nobody honours it")
						other := ask(per(7, 24*time.Hour), per(3, time.Hour))
						require.True(t, other.Banned())
						require.Equal(t, length, other.RetryAfter)
					}
					require.Equal(t, before, table.get("k"))
					all, err := b.TakeAll(t.Context(), backend.Charge{Key: "j", Cost: 1, Limits: limits}, backend.Charge{Key: "k", Cost: 1, Limits: limits})
					require.NoError(t, err)
					require.True(t, all[0].Allowed)
					require.True(t, all[1].Banned())
					require.Equal(t, before, table.get("k"))
					clock.advance(length)
					over = 1
				}
				require.NoError(t, b.Ban(t.Context(), "k", time.Hour))
				res := ask(per(7, 24*time.Hour))
				require.True(t, res.Banned())
				require.Equal(t, time.Hour, res.RetryAfter)
				require.NoError(t, b.Reset(t.Context(), "k"))
				require.True(t, ask(limits...).Allowed)

				require.NoError(t, b.Ban(t.Context(), "nobody", time.Hour))
				res, err := take(b, "nobody", limit)
				require.NoError(t, err)
				require.True(t, res.Banned())
				require.NoError(t, b.Reset(t.Context(), "nobody"))
				require.Equal(t, int64(1), table.count())
			})
		}
	}
}

// Where no limit keeps a state, a ban is looked for all the same, and refusals are counted.
func TestBansOfStatelessLimits(t *testing.T) {
	pool := newPool(t, serverURL(t), 1, nil)
	b := postgres.New(pool, newTable(t, pool, postgres.WithSweep(0))...)
	clocks(b, 0)
	table := rows{t, pool, postgres.Table(b)}
	ban := per(1, time.Hour).Banning(time.Minute, time.Hour)
	blocked, open := []backend.Limit{{Period: time.Second}, ban}, []backend.Limit{backend.Unlimited(), ban}
	for range 3 {
		res, err := take(b, "k", open...)
		require.NoError(t, err)
		require.True(t, res.Allowed)
	}
	all, err := b.TakeAll(t.Context(), backend.Charge{Key: "k", Cost: 1, Limits: open}, backend.Charge{Key: "j", Cost: 1, Limits: open})
	require.NoError(t, err)
	require.True(t, all[0].Allowed && all[1].Allowed)
	require.Zero(t, table.count(), "there is nothing to remember")
	for try := range 3 {
		res, err := take(b, "k", blocked...)
		require.NoError(t, err)
		require.False(t, res.Allowed)
		require.Equal(t, try > 0, res.Banned())
	}
	res, err := take(b, "k", open...)
	require.NoError(t, err)
	require.True(t, res.Banned())
	require.Equal(t, time.Minute, res.RetryAfter)
	res, err = take(b, "k", backend.Unlimited())
	require.NoError(t, err)
	require.True(t, res.Allowed, "it does not look")
}

func per(n int64, period time.Duration) backend.Limit { return backend.Limit{Count: n, Period: period} }
