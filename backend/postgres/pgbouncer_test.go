package postgres_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend/postgres"
	"github.com/ginlimit/ginlimit/internal/testserver"
)

// A real pgbouncer in transaction mode, which gives each statement to any of its connections:
// migrations at once, the answers of package memory, exactness of many callers, and what a call
// leaves behind that was given up.
func TestPgBouncer(t *testing.T) {
	server := testserver.Postgres(t)
	url := testserver.PgBouncer(t, server, 4).String()
	for _, m := range []pgx.QueryExecMode{pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
		t.Run(m.String(), func(t *testing.T) {
			pool := newPool(t, url, 20, mode(m))
			table := postgres.WithTable(fmt.Sprint("bouncer", tables.Add(1)))
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					assert.NoError(t, postgres.Migrate(context.Background(), pool, table, postgres.WithTimeout(10*time.Second)))
				})
			}
			wg.Wait()
			b := postgres.New(pool, table, postgres.WithTimeout(10*time.Second))
			for range 10 {
				seed := rand.Uint64()
				replay(t, b, seed, record(t, seed))
			}
			postgres.Quiet(b)

			b = postgres.New(pool, table, postgres.WithTimeout(10*time.Second))
			for _, a := range everyAlgorithm {
				var allowed atomic.Int64
				for range 200 {
					wg.Go(func() {
						limit := hourly.WithAlgorithm(a)
						limit.Count = 50
						ctx, cancel := context.WithCancel(context.Background())
						defer cancel()
						res, err := b.Take(ctx, "exact"+a.String(), 1, limit)
						if assert.NoError(t, err) && res.Allowed {
							allowed.Add(1)
						}
					})
				}
				wg.Wait()
				assert.EqualValues(t, 50, allowed.Load(), "%v", a)
			}

			// Statements that are cancelled on their way leave no connection in a transaction.
			short := postgres.New(pool, table, postgres.WithTimeout(time.Millisecond))
			for range 100 {
				wg.Go(func() { _, _ = short.Take(context.Background(), "short", 1, hourly) })
			}
			wg.Wait()
			require.Eventually(t, func() bool {
				_, err := take(b, "after", hourly)
				return err == nil
			}, 10*time.Second, 10*time.Millisecond)
			idle := newPool(t, server.URL(), 1, nil)
			require.Eventually(t, func() bool {
				var n int
				err := idle.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'").Scan(&n)
				return err == nil && n == 0
			}, 10*time.Second, 10*time.Millisecond)
			_, err := b.Sweep(t.Context())
			require.NoError(t, err)
		})
	}
}
