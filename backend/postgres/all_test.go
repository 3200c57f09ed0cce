package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/postgres"
	"github.com/ginlimit/ginlimit/internal/testserver"
)

// daily returns limits of which nothing comes back during a test.
func daily(count int64, a backend.Algorithm) []backend.Limit {
	return []backend.Limit{{Count: count, Period: 24 * time.Hour, Algorithm: a}}
}

// usedBy returns what is in use of a key's only limit.
func usedBy(t *testing.T, b backend.Backend, key string, limits []backend.Limit) int64 {
	t.Helper()
	all, err := b.Usage(t.Context(), key, limits...)
	require.NoError(t, err)
	return all[0].Used()
}

// 64 connections that charge random sets of keys, in random orders, settle, look, reset and sweep
// at once never deadlock, none fails, and in the end each key has exactly what was admitted and
// settled.
func TestTakeAllAtOnce(t *testing.T) {
	url := serverURL(t)
	for _, isolation := range []string{"read committed", "serializable"} {
		for _, slow := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/slow=%v", isolation, slow), func(t *testing.T) {
				pool := newPool(t, url, 64, func(c *pgxpool.Config) {
					c.MinConns = 64
					c.ConnConfig.RuntimeParams["default_transaction_isolation"] = isolation
				})
				b := postgres.New(pool, newTable(t, pool, postgres.WithSweep(20), postgres.WithTimeout(30*time.Second))...)
				if slow {
					postgres.SetSlow(b)
				}
				takeAllAtOnce(t, b)
			})
		}
	}
}

func takeAllAtOnce(t *testing.T, b *postgres.Backend) {
	const count = 120 // the callers ask for more
	limits, used := map[string][]backend.Limit{}, map[string]*atomic.Int64{}
	var names []string
	for i := range 8 {
		kept, short := fmt.Sprint("kept ", i), fmt.Sprint("short ", i)
		limits[kept] = daily(count, backend.Algorithm(i%4))
		limits[short] = []backend.Limit{{Count: 1000, Period: 5 * time.Millisecond, Algorithm: backend.Algorithm(i % 4)}}
		used[kept], used[short] = &atomic.Int64{}, &atomic.Int64{}
		names = append(names, kept, short)
	}
	ctx := t.Context()
	var admitted, refused atomic.Int64
	settle := func(r *rand.Rand, key string, res backend.Result, cost int64) error {
		used[key].Add(cost)
		if r.IntN(2) == 0 {
			return nil
		}
		actual := r.Int64N(cost + 2)
		used[key].Add(actual - cost)
		return b.Settle(ctx, key, res, cost, actual, limits[key]...)
	}
	var wg sync.WaitGroup
	for caller := range 64 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(rand.Uint64(), 0))
			for range 30 {
				var err error
				key, cost := names[r.IntN(len(names))], 1+r.Int64N(3)
				switch {
				case caller == 0 && r.IntN(4) == 0:
					_, err = b.Sweep(ctx)
				case caller < 4:
					err = b.Reset(ctx, fmt.Sprint("short ", r.IntN(8)))
				case r.IntN(3) == 0:
					var res backend.Result
					if res, err = b.Take(ctx, key, cost, limits[key]...); err == nil && res.Allowed {
						err = settle(r, key, res, cost)
					}
				default:
					var charges []backend.Charge
					for _, at := range r.Perm(len(names))[:1+r.IntN(5)] {
						charges = append(charges, backend.Charge{Key: names[at], Cost: r.Int64N(4), Limits: limits[names[at]]})
					}
					var all []backend.Result
					all, err = b.TakeAll(ctx, charges...)
					passed := err == nil
					for _, res := range all {
						passed = passed && res.Allowed
					}
					if !passed {
						refused.Add(1)
						break
					}
					admitted.Add(1)
					for i, c := range charges {
						if c.Cost > 0 {
							err = errors.Join(err, settle(r, c.Key, all[i], c.Cost))
						}
					}
				}
				if !assert.NoError(t, err) {
					return
				}
			}
		})
	}
	wg.Wait()
	postgres.Quiet(b)
	assert.Positive(t, admitted.Load())
	assert.Positive(t, refused.Load())
	for i := range 8 {
		key := fmt.Sprint("kept ", i)
		assert.Equal(t, used[key].Load(), usedBy(t, b, key, limits[key]), key)
		assert.Greater(t, used[key].Load(), int64(count/2), key)
	}
}

// Connections that are killed at any moment leave all charged or none. What is lost costs a caller
// at most its charge: of a Settle that failed, the key has the charge, or what was settled.
func TestTakeAllWhileConnectionsDie(t *testing.T) {
	server := testserver.Postgres(t)
	pool := newPool(t, server.URL(), 8, nil)
	b := postgres.New(pool, newTable(t, pool, postgres.WithSweep(0), postgres.WithTimeout(5*time.Second))...)
	limits := daily(1_000_000, backend.FixedWindow)
	// a and b are always charged the same, and never settled; each settled key is charged 10 and
	// settled to 3.
	var least, most, failed atomic.Int64 // that settled can have in use
	stop := callers(16, func(i int) {
		const cost, actual = 10, 3
		charges := []backend.Charge{{Key: "a", Cost: 2, Limits: limits}, {Key: "settled", Cost: cost, Limits: limits}, {Key: "b", Cost: 2, Limits: limits}}
		if i%2 == 0 {
			charges[0], charges[2] = charges[2], charges[0]
		}
		all, err := b.TakeAll(context.Background(), charges...)
		if err != nil { // charged or not
			failed.Add(1)
			most.Add(cost)
			return
		}
		if err := b.Settle(context.Background(), "settled", all[1], cost, actual, limits...); err != nil {
			failed.Add(1)
			least.Add(actual)
			most.Add(cost)
			return
		}
		least.Add(actual)
		most.Add(actual)
	})
	killer := newPool(t, server.URL(), 1, nil)
	for range 60 {
		_, err := killer.Exec(t.Context(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND state = 'active' LIMIT 2")
		require.NoError(t, err)
		time.Sleep(10 * time.Millisecond)
	}
	stop()
	recovers(t, b)
	assert.Positive(t, failed.Load())
	assert.Positive(t, least.Load())
	used := usedBy(t, b, "settled", limits)
	assert.GreaterOrEqual(t, used, least.Load())
	assert.LessOrEqual(t, used, most.Load())
	assert.Equal(t, usedBy(t, b, "a", limits), usedBy(t, b, "b", limits))
	t.Logf("%d calls failed, %d units of at most %d are in use", failed.Load(), used, most.Load())
}

// What a statement said that was undone at its commit is not part of the answer.
func TestUndoneAtCommit(t *testing.T) {
	url := serverURL(t)
	for _, slow := range []bool{false, true} {
		for _, call := range []struct {
			name string
			do   func(backend.Backend, context.Context, ...backend.Limit) (backend.Result, error)
		}{
			{"take", func(b backend.Backend, ctx context.Context, l ...backend.Limit) (backend.Result, error) {
				return b.Take(ctx, "k", 10, l...)
			}},
			{"take all", func(b backend.Backend, ctx context.Context, l ...backend.Limit) (backend.Result, error) {
				all, err := b.TakeAll(ctx, backend.Charge{Key: "k", Cost: 10, Limits: l}, backend.Charge{Key: "j", Cost: 1, Limits: l})
				return all[0], err
			}},
		} {
			for _, a := range everyAlgorithm {
				t.Run(fmt.Sprintf("%s/%v/slow=%v", call.name, a, slow), func(t *testing.T) {
					pool := newPool(t, url, 2, func(c *pgxpool.Config) {
						c.ConnConfig.RuntimeParams["default_transaction_isolation"] = "serializable"
					})
					b := postgres.New(pool, newTable(t, pool, postgres.WithSweep(0))...)
					if slow {
						postgres.SetSlow(b)
					}
					name := fmt.Sprint("undo", tables.Add(1))
					_, err := pool.Exec(t.Context(), "CREATE FUNCTION "+name+"() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"+
						" IF current_setting('transaction_isolation') = 'serializable' THEN RAISE EXCEPTION 'undone' USING ERRCODE = '40001'; END IF; RETURN NULL; END $$;"+
						" CREATE CONSTRAINT TRIGGER "+name+" AFTER INSERT OR UPDATE ON "+postgres.Table(b)+
						" DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION "+name+"()")
					require.NoError(t, err)
					limits := append(daily(12, a), hourly)
					res, err := call.do(b, t.Context(), limits...)
					require.NoError(t, err)
					require.True(t, res.Allowed)
					require.Equal(t, int64(2), res.Remaining)
					require.True(t, postgres.Isolates(b))
				})
			}
		}
	}
}

// A TakeAll is one statement, a Settle is one, or none if the cost was right, and so is Usage.
func TestOneStatementForAll(t *testing.T) {
	sent := &statements{}
	pool := newPool(t, serverURL(t), 1, func(c *pgxpool.Config) { c.ConnConfig.Tracer = sent })
	b := postgres.New(pool, newTable(t, pool, postgres.WithSweep(0))...)
	for _, a := range everyAlgorithm {
		limits := daily(7, a)
		charges := []backend.Charge{{Key: "z" + a.String(), Cost: 3, Limits: limits}, {Key: "a" + a.String(), Cost: 1, Limits: append(daily(9, a), hourly)}}
		count := func(want int64, call func() error) {
			t.Helper()
			before := sent.n.Load()
			require.NoError(t, call())
			require.Equal(t, want, sent.n.Load()-before, a)
		}
		var all []backend.Result
		for _, allowed := range []bool{true, true, false, false} { // new, old, and refused by the first
			count(1, func() (err error) {
				all, err = b.TakeAll(t.Context(), charges...)
				return err
			})
			require.Equal(t, allowed, all[0].Allowed)
			require.True(t, all[1].Allowed)
		}
		taken := all[1] // stands for one that was charged just now
		for actual, want := range map[int64]int64{0: 1, 1: 0, 2: 1, 50: 1} {
			count(want, func() error { return b.Settle(t.Context(), charges[1].Key, taken, 1, actual, charges[1].Limits...) })
		}
		count(1, func() error {
			_, err := b.Usage(t.Context(), charges[1].Key, charges[1].Limits...)
			return err
		})
	}
}

// A TakeAll that is refused, a look and Usage write nothing, lock nothing and leave no row behind.
func TestRefusedTakeAllWritesNothing(t *testing.T) {
	pool := newPool(t, serverURL(t), 2, nil)
	b := postgres.New(pool, newTable(t, pool, postgres.WithSweep(0), postgres.WithTimeout(5*time.Second))...)
	table := rows{t, pool, postgres.Table(b)}
	for _, a := range everyAlgorithm {
		limits := daily(2, a)
		full, room, missing := "full"+a.String(), "room"+a.String(), "missing"+a.String()
		for key, cost := range map[string]int64{full: 2, room: 1} {
			_, err := b.Take(t.Context(), key, cost, limits...)
			require.NoError(t, err)
		}
		tx, err := pool.Begin(t.Context())
		require.NoError(t, err)
		_, err = tx.Exec(t.Context(), "SELECT FROM "+table.table+" FOR UPDATE")
		require.NoError(t, err)
		before, n := table.get(room), table.count()
		for cost := range int64(2) {
			all, err := b.TakeAll(t.Context(), backend.Charge{Key: room, Cost: 1, Limits: limits}, backend.Charge{Key: full, Cost: cost, Limits: limits},
				backend.Charge{Key: missing, Cost: 1, Limits: limits})
			require.NoError(t, err)
			require.Equal(t, []bool{true, false, true}, []bool{all[0].Allowed, all[1].Allowed, all[2].Allowed})
			require.Equal(t, []int64{1, 0, 2}, []int64{all[0].Remaining, all[1].Remaining, all[2].Remaining})
		}
		all, err := b.TakeAll(t.Context(), backend.Charge{Key: room, Limits: limits}, backend.Charge{Key: missing, Limits: limits})
		require.NoError(t, err)
		require.True(t, all[0].Allowed && all[1].Allowed)
		_, err = b.Usage(t.Context(), full, limits...)
		require.NoError(t, err)
		require.Equal(t, before, table.get(room))
		require.Equal(t, n, table.count())
		require.NoError(t, tx.Rollback(t.Context()))
	}
}

// A key whose row is not ours is an error of the whole TakeAll, which then charges nothing.
func TestTakeAllOfAForeignRow(t *testing.T) {
	pool := newPool(t, serverURL(t), 2, nil)
	b := postgres.New(pool, newTable(t, pool, postgres.WithSweep(0))...)
	table := rows{t, pool, postgres.Table(b)}
	foreign := row{"hello", "{1}", 0}
	table.put("foreign", foreign)
	limits := daily(5, backend.FixedWindow)
	for _, keys := range [][]string{{"a", "foreign"}, {"foreign", "z"}} {
		var charges []backend.Charge
		for _, key := range keys {
			charges = append(charges, backend.Charge{Key: key, Cost: 1, Limits: limits})
		}
		_, err := b.TakeAll(t.Context(), charges...)
		require.ErrorIs(t, err, postgres.ErrForeign)
		require.ErrorIs(t, err, backend.ErrUnavailable)
	}
	require.Equal(t, foreign, table.get("foreign"))
	require.Equal(t, int64(1), table.count())
}
