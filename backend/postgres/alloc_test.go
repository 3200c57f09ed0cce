//go:build !race

package postgres_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/postgres"
)

// The budgets of a decision, over those of pgx for a statement with as many arguments.
func TestAllocations(t *testing.T) {
	pool := newPool(t, serverURL(t), 1, nil)
	b := postgres.New(pool, newTable(t, pool, postgres.WithSweep(0))...)
	ctx := t.Context()
	measure := func(f func() error) float64 {
		for range 20 { // statements are prepared
			require.NoError(t, f())
		}
		least := math.Inf(1)
		for range 5 { // connections that other tests left behind allocate too
			least = min(least, testing.AllocsPerRun(200, func() {
				if err := f(); err != nil {
					t.Error(err)
				}
			}))
		}
		return least
	}
	bare := measure(func() error {
		var n int64
		return pool.QueryRow(ctx, "SELECT $1::text::int + $2::text::int + coalesce($3::bigint, 0) + $4 + $5 + $6", "1", "2", nil, int64(4), int64(5), int64(6)).Scan(&n)
	})
	for name, limit := range map[string]backend.Limit{
		"admitted": hourly, "refused": {Count: 1, Period: hourly.Period}, "fixed": hourly.WithAlgorithm(backend.FixedWindow),
	} {
		got := measure(func() error {
			_, err := take(b, name, limit)
			return err
		})
		t.Logf("%s: %v allocations, %v without ginlimit", name, got, bare)
		require.LessOrEqual(t, got, bare+8, name)
	}
}
