package goredis_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/goredis"
	"github.com/ginlimit/ginlimit/backend/redis"
	"github.com/ginlimit/ginlimit/internal/testserver"
)

// records are tiers, of either client.
type records interface {
	Set(ctx context.Context, id string, tier backend.Tier) error
	Lookup(ctx context.Context, id string) (backend.Tier, error)
	Delete(ctx context.Context, id string) error
}

// Behind a proxy that speaks RESP2 only, all works on either client, and the log says once, and
// nothing else, that refusals are not remembered.
func TestBehindAProxyOfRESP2(t *testing.T) {
	s := testserver.Redis(t)
	addr := testserver.RESP2Proxy(t, s)
	for name, open := range map[string]func(*testing.T, string, *lines) (shared, records){
		"go-redis": func(t *testing.T, p string, log *lines) (shared, records) {
			b := goredis.New(newClient(t, addr, cached), goredis.WithPrefix(p), goredis.WithTimeout(ample), log.option())
			return b, b.Tiers()
		},
		"rueidis": func(t *testing.T, p string, log *lines) (shared, records) {
			b, err := redis.Dial(t.Context(), "redis://"+addr, redis.WithPing(), redis.WithPrefix(p), redis.WithTimeout(ample),
				redis.WithLogger(slog.New(slog.NewTextHandler(log, nil))))
			require.NoError(t, err)
			t.Cleanup(func() { _ = b.Close() })
			return b, b.Tiers()
		},
	} {
		t.Run(name, func(t *testing.T) {
			var log lines
			p := prefix()
			b, tiers := open(t, p, &log)
			direct := goredis.New(newClient(t, s.Addr()), goredis.WithPrefix(p), goredis.WithTimeout(ample), goredis.WithDenyCache(false))
			shareBans(t, [2]shared{b, direct})
			sharePlaces(t, [2]shared{direct, b})
			ctx := t.Context()
			for _, a := range everyAlgorithm {
				limits := []backend.Limit{hourly(3, a), {Count: 9, Period: 2 * time.Hour}}
				key := a.String()
				for i := range 5 {
					require.Equal(t, i < 3, decide(t, b, key, 1, limits...).Allowed)
				}
				require.NoError(t, b.Reset(ctx, key))
				taken := decide(t, b, key, 3, limits...)
				require.NoError(t, b.Settle(ctx, key, taken, 3, 1, limits...))
				usage, err := b.Usage(ctx, key, limits...)
				require.NoError(t, err)
				require.EqualValues(t, 1, usage[0].Used())
				all, err := b.TakeAll(ctx, backend.Charge{Key: key, Cost: 2, Limits: limits}, backend.Charge{Key: "all", Cost: 1, Limits: limits[:1]})
				require.NoError(t, err)
				require.True(t, all[0].Allowed)
			}
			tier := backend.Tier{Name: "pro", Limits: []backend.Limit{hourly(9, 0)}}
			require.NoError(t, tiers.Set(ctx, "customer", tier))
			got, err := tiers.Lookup(ctx, "customer")
			require.NoError(t, err)
			require.Equal(t, tier, got)
			require.NoError(t, tiers.Delete(ctx, "customer"))
			require.Eventually(t, func() bool {
				decide(t, b, "one more", 1, hourly(1_000_000, 0))
				return log.count("code=GINLIMIT006") == 1
			}, soon, time.Millisecond)
			require.Equal(t, 1, log.count("\n"), "not one line of the log")
		})
	}
}
