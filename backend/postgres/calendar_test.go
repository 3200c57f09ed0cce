package postgres_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/postgres"
)

// clocks returns the clock of the database, and that of the process, which is so much ahead.
func clocks(b *postgres.Backend, ahead time.Duration) *settable {
	clock := newSettable()
	postgres.SetClock(b, clock.micros.Load)
	postgres.SetClient(b, func() int64 { return clock.micros.Load() + ahead.Microseconds() })
	return clock
}

// Windows are those of the database's clock, however wrong that of the process is, also where a
// charge is settled to more, several keys are charged, and refusals are counted for a ban.
func TestCalendarsGoByTheDatabase(t *testing.T) {
	pool := newPool(t, serverURL(t), 2, nil)
	opts := newTable(t, pool, postgres.WithSweep(0))
	berlin := func(l backend.Limit) backend.Limit { return l.In("Europe/Berlin") }
	for _, ahead := range []time.Duration{0, time.Hour, -time.Hour, 24 * time.Hour, -24 * time.Hour, 31 * 24 * time.Hour, -31 * 24 * time.Hour} {
		for _, slow := range []bool{false, true} {
			for name, begun := range map[string]time.Time{
				"a day of 23 hours":  time.Date(2026, 3, 29, 0, 30, 0, 0, time.UTC),
				"just before":        time.Date(2026, 6, 30, 21, 59, 59, 999_999_000, time.UTC),
				"just after":         time.Date(2026, 6, 30, 22, 0, 0, 0, time.UTC),
				"a month of 28 days": time.Date(2026, 2, 28, 12, 0, 0, 0, time.UTC),
			} {
				t.Run(fmt.Sprintf("%v/%v/slow=%v", ahead, name, slow), func(t *testing.T) {
					_, err := pool.Exec(t.Context(), "TRUNCATE "+postgres.Table(postgres.New(pool, opts...)))
					require.NoError(t, err)
					for i, limit := range []backend.Limit{
						berlin(backend.PerCalendarDay(5)), berlin(backend.PerCalendarWeek(5)), berlin(backend.PerCalendarMonth(5)).StartingOn(31),
					} {
						newBackend := func() *postgres.Backend { // has not learnt anything yet
							b := postgres.New(pool, opts...)
							clocks(b, ahead).micros.Store(begun.UnixMicro())
							if slow {
								postgres.SetSlow(b)
							}
							return b
						}
						start, end := limit.Calendar.Window(begun)
						_, next := limit.Calendar.Window(end)
						left := func(key string, want int64, until time.Time) {
							t.Helper()
							all, err := newBackend().Usage(t.Context(), key, limit)
							require.NoError(t, err)
							require.Equal(t, want, all[0].Remaining)
							require.Equal(t, until.Sub(begun), all[0].ResetAfter)
						}
						key := fmt.Sprint("key ", i)
						res, err := newBackend().Take(t.Context(), key, 1, limit)
						require.NoError(t, err)
						require.Equal(t, end.Sub(begun), res.ResetAfter)
						require.True(t, res.At.Equal(begun))
						all, err := newBackend().TakeAll(t.Context(), backend.Charge{Key: key, Cost: 1, Limits: []backend.Limit{limit}},
							backend.Charge{Key: key + " all", Cost: 2, Limits: []backend.Limit{hourly, limit}})
						require.NoError(t, err)
						require.True(t, all[0].Allowed && all[1].Allowed)
						left(key, 3, end)
						left(key+" all", 3, end)
						require.NoError(t, newBackend().Settle(t.Context(), key, res, 1, 2, limit))
						left(key, 2, end)
						require.NoError(t, newBackend().Settle(t.Context(), key, res, 2, 0, limit))
						left(key, 4, end)
						require.NoError(t, newBackend().Settle(t.Context(), key+" late", res, 1, 3, limit))
						left(key+" late", 3, end)
						require.NoError(t, newBackend().Settle(t.Context(), key+" late", res, 1, 100, limit))
						left(key+" late", 0, next)

						var row string
						require.NoError(t, pool.QueryRow(t.Context(), "SELECT state[2]::text FROM "+postgres.Table(newBackend())+" WHERE key = $1", postgres.StateKey(key)).Scan(&row))
						require.Equal(t, fmt.Sprint(start.UnixMicro()), row)

						// The second refusal is one too many.
						banning := []backend.Limit{per(1, time.Hour), berlin(backend.PerCalendarDay(1)).Banning(time.Hour, 2*time.Hour)}
						for try := range 3 {
							res, err := newBackend().Take(t.Context(), key+" ban", 1, banning...)
							require.NoError(t, err)
							require.Equal(t, try == 0, res.Allowed)
							require.Equal(t, try == 2, res.Banned())
						}
					}
				})
			}
		}
	}
}

// A statement is sent again only where the process takes the database to be in another window, and
// then once.
func TestOneMoreStatementAtABoundary(t *testing.T) {
	sent := &statements{}
	pool := newPool(t, serverURL(t), 1, func(c *pgxpool.Config) { c.ConnConfig.Tracer = sent })
	r := rand.New(rand.NewPCG(1, 2))
	limits := []backend.Limit{backend.PerCalendarDay(1000).In("Asia/Kathmandu"), backend.PerCalendarWeek(1000)}
	calls := map[string]func(b *postgres.Backend) error{
		"take": func(b *postgres.Backend) error {
			res, err := b.Take(t.Context(), "k", 1, limits...)
			if err == nil && !res.Allowed {
				err = fmt.Errorf("refused: %+v", res)
			}
			return err
		},
		"take all": func(b *postgres.Backend) error {
			_, err := b.TakeAll(t.Context(), backend.Charge{Key: "k", Cost: 1, Limits: limits}, backend.Charge{Key: "j", Cost: 1, Limits: limits})
			return err
		},
		"settle": func(b *postgres.Backend) error {
			return b.Settle(t.Context(), "k", backend.Result{Allowed: true, At: time.Now()}, 1, 2, limits...)
		},
	}
	for name, call := range calls {
		for _, ahead := range []time.Duration{0, -2 * time.Second, 2 * time.Second, time.Microsecond, -40 * 24 * time.Hour} {
			t.Run(fmt.Sprint(name, "/", ahead), func(t *testing.T) {
				b := postgres.New(pool, newTable(t, pool, postgres.WithSweep(0))...)
				clock := clocks(b, ahead)
				count := func() int64 {
					before := sent.n.Load()
					require.NoError(t, call(b))
					return sent.n.Load() - before
				}
				more := int64(0)
				for range 60 {
					first := count()
					require.LessOrEqual(t, first, int64(2))
					require.Equal(t, int64(1), count(), "what was learnt is forgotten")
					more += first - 1
					_, end := limits[0].Calendar.Window(time.UnixMicro(clock.micros.Load()))
					to := end.UnixMicro() + r.Int64N(7) - 3
					clock.micros.Store(max(clock.micros.Load(), to))
				}
				switch ahead {
				case 0:
					require.Zero(t, more)
				case -40 * 24 * time.Hour:
					require.Equal(t, int64(1), more, "the difference is remembered")
				}
				before := sent.n.Load()
				_, err := b.Take(t.Context(), "k", 0, limits...)
				require.NoError(t, err)
				require.NoError(t, b.Settle(t.Context(), "k", backend.Result{Allowed: true, At: time.Now()}, 1, 0, limits...))
				require.Equal(t, int64(2), sent.n.Load()-before, "a look, and a Settle to less, need no windows")
			})
		}
	}
}

// The clock of a real database serves too.
func TestCalendarByTheRealClock(t *testing.T) {
	sent := &statements{}
	pool := newPool(t, serverURL(t), 1, func(c *pgxpool.Config) { c.ConnConfig.Tracer = sent })
	b := postgres.New(pool, newTable(t, pool, postgres.WithSweep(0))...)
	postgres.SetClient(b, func() int64 { return time.Now().Add(-100 * 24 * time.Hour).UnixMicro() })
	limit := backend.PerCalendarMonth(1000)
	for i := range 20 {
		before := sent.n.Load()
		res, err := take(b, fmt.Sprint(i), limit)
		require.NoError(t, err)
		require.True(t, res.Allowed)
		_, end := limit.Calendar.Window(res.At)
		require.Equal(t, end.Sub(res.At), res.ResetAfter)
		if i == 0 {
			require.Equal(t, int64(2), sent.n.Load()-before)
		} else { // a month may end here
			require.LessOrEqual(t, sent.n.Load()-before, int64(2))
		}
	}
}
