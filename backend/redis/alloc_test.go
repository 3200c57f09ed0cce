//go:build !race

package redis_test

import (
	"context"
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/redis"
	"github.com/ginlimit/ginlimit/internal/testserver"
)

// The budgets of a decision: nothing for a local refusal, and little for one limit on the server.
func TestAllocations(t *testing.T) {
	s := testserver.Redis(t)
	b := newInstance(t, s.Addr(), prefix())
	ctx := context.Background()
	measure := func(source backend.Source, allowed bool, key string, limits ...backend.Limit) float64 {
		for range 10 { // connections are made when they are first used
			decide(t, b, key, 1, limits...)
		}
		least := math.Inf(1)
		for range 5 { // connections that other tests left behind allocate too
			least = min(least, testing.AllocsPerRun(1000, func() {
				res, err := b.Take(ctx, key, 1, limits...)
				if err != nil || res.Source != source || res.Allowed != allowed {
					t.Error(res, err)
				}
			}))
		}
		return least
	}
	for name, limits := range limitSets(5) {
		require.True(t, decide(t, b, name, 5, limits...).Allowed)
		refuse(t, b, name, 1, limits...)
		assert.Zero(t, measure(backend.SourceDenyCache, false, name, limits...), "refused locally: %s", name)
	}
	for _, b = range []*redis.Backend{b, newTruth(t, s.Addr(), prefix())} {
		for _, a := range everyAlgorithm {
			limit := hourly(1_000_000, a)
			assert.LessOrEqual(t, measure(backend.SourceStore, true, "room"+a.String(), limit), 4.0, "admitted: %v", limit)
		}
	}
	for _, a := range everyAlgorithm {
		limit := hourly(5, a)
		require.True(t, decide(t, b, a.String(), 5, limit).Allowed)
		assert.LessOrEqual(t, measure(backend.SourceStore, false, a.String(), limit), 4.0, "refused by the server: %v", limit)
	}
}
