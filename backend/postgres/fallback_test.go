package postgres_test

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/memory"
	"github.com/ginlimit/ginlimit/backend/postgres"
	"github.com/ginlimit/ginlimit/internal/testserver"
)

// Under a Fallback the log of a database that refuses, or no longer answers, names it and the
// cause, and says that the second backend decides.
func TestLogUnderFallback(t *testing.T) {
	s := testserver.Postgres(t)
	admin := newPool(t, s.URL(), 2, nil)
	log := &logged{}
	opts := append(newTable(t, admin), log.option())
	limiter := newRole(t, admin)
	first := postgres.New(newPool(t, s.URL(), 2, func(c *pgxpool.Config) { c.ConnConfig.User = limiter }), opts...)
	b := backend.Fallback(first, memory.New())
	take := func() backend.Source {
		t.Helper()
		res, err := take(b, secret, backend.Limit{Count: 1_000_000, Period: time.Hour, Algorithm: backend.FixedWindow})
		require.NoError(t, err)
		return res.Source
	}
	told := func(parts ...string) {
		t.Helper()
		var line string
		require.Eventually(t, func() bool {
			take()
			log.mu.Lock()
			defer log.mu.Unlock()
			for l := range strings.Lines(log.out.String()) {
				if strings.Contains(l, parts[0]) {
					line = l
					return true
				}
			}
			return false
		}, soon, time.Millisecond)
		for _, part := range append(parts, "level=WARN", "server="+s.Addr()+"/postgres", "The second backend decides instead") {
			require.Contains(t, line, part)
		}
		require.NotContains(t, line, "failure policy")
	}
	told("code=GINLIMIT007", "kind=denied", "cause=", "permission denied")
	_, err := admin.Exec(t.Context(), "GRANT SELECT, INSERT, UPDATE, DELETE ON "+postgres.Table(first)+" TO "+limiter)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return take() == backend.SourceStore }, soon, time.Millisecond)
	s.Kill()
	told("PostgreSQL does not answer", "cause=", "timeout=10s")
	require.Equal(t, backend.SourceFallback, take())
}
