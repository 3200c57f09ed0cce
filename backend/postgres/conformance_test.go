package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/backendtest"
	"github.com/ginlimit/ginlimit/backend/postgres"
	"github.com/ginlimit/ginlimit/internal/testserver"
)

// shared is the server of the tests that do not break it.
var shared struct {
	once   sync.Once
	server *testserver.PostgresServer
	err    error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.server != nil {
		if err := shared.server.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

func serverURL(tb testing.TB) string {
	tb.Helper()
	shared.once.Do(func() { shared.server, shared.err = testserver.StartPostgres("-c", "max_connections=200") })
	if errors.Is(shared.err, exec.ErrNotFound) && os.Getenv("CI") != "true" {
		tb.Skip("this test needs PostgreSQL (apt-get install postgresql):", shared.err)
	}
	require.NoError(tb, shared.err)
	return shared.server.URL()
}

// newPool returns a pool on a server; change may be nil.
func newPool(tb testing.TB, url string, conns int32, change func(*pgxpool.Config)) *pgxpool.Pool {
	tb.Helper()
	config, err := pgxpool.ParseConfig(url)
	require.NoError(tb, err)
	config.MaxConns = conns
	if change != nil {
		change(config)
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	require.NoError(tb, err)
	tb.Cleanup(pool.Close)
	return pool
}

var tables atomic.Int64

// newTable returns options for a migrated table of its own.
func newTable(tb testing.TB, pool *pgxpool.Pool, opts ...postgres.Option) []postgres.Option {
	tb.Helper()
	opts = append([]postgres.Option{postgres.WithTable(fmt.Sprint("test", tables.Add(1))), postgres.WithTimeout(10 * time.Second)}, opts...)
	require.NoError(tb, postgres.Migrate(context.Background(), pool, opts...))
	return opts
}

// newRole returns a role of its own, which may log in, and nothing else.
func newRole(tb testing.TB, pool *pgxpool.Pool) string {
	tb.Helper()
	name := fmt.Sprint("role", tables.Add(1))
	_, err := pool.Exec(context.Background(), "CREATE ROLE "+name+" LOGIN PASSWORD 'hunter2'")
	require.NoError(tb, err)
	return name
}

// settable is a clock that a test moves.
type settable struct{ micros atomic.Int64 }

func newSettable() *settable {
	c := &settable{}
	c.micros.Store(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro())
	return c
}

func (c *settable) advance(d time.Duration) { c.micros.Add(d.Microseconds()) }

// ways are all that a statement can go: in every mode of pgx that a pooler may ask for, by the
// first try, by the function alone, and in transactions of their own.
var ways = []struct {
	name string
	pool func(*pgxpool.Config)
	slow bool
}{
	{name: "default"},
	{name: "function", slow: true},
	{name: "exec", pool: mode(pgx.QueryExecModeExec)},
	{name: "simple protocol", pool: mode(pgx.QueryExecModeSimpleProtocol)},
	{name: "cache describe", pool: mode(pgx.QueryExecModeCacheDescribe)},
	{name: "serializable", pool: func(c *pgxpool.Config) { c.ConnConfig.RuntimeParams["default_transaction_isolation"] = "serializable" }},
}

func mode(m pgx.QueryExecMode) func(*pgxpool.Config) {
	return func(c *pgxpool.Config) { c.ConnConfig.DefaultQueryExecMode = m }
}

func TestConformance(t *testing.T) {
	url := serverURL(t)
	for _, way := range ways[:2] { // the others differ in how statements are sent: TestMemoryAndPostgresAgree
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			pool := newPool(t, url, 8, way.pool)
			// A sweep that began before the clock went back would delete what was written after
			// that.
			opts := newTable(t, pool, postgres.WithSweep(0))
			backendtest.Run(t, backendtest.Harness{
				New: func(t *testing.T) (backend.Backend, func(time.Duration)) {
					_, err := pool.Exec(context.Background(), "TRUNCATE "+postgres.Table(postgres.New(pool, opts...)))
					require.NoError(t, err)
					b := postgres.New(pool, opts...)
					if way.slow {
						postgres.SetSlow(b)
					}
					clock := newSettable()
					postgres.SetClock(b, clock.micros.Load)
					return b, clock.advance
				},
				Backward: true,
				TTL: func(t *testing.T, b backend.Backend, key string) time.Duration {
					kept, err := postgres.Kept(b.(*postgres.Backend), key)
					require.NoError(t, err)
					return kept
				},
				Callers: 1000,
			})
		})
	}
}
