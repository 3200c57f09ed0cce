package postgres_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/postgres"
)

// Many instances may start at once, and again, by whatever default isolation and in every mode of
// pgx.
func TestMigrateAtOnce(t *testing.T) {
	url := serverURL(t)
	for _, change := range []func(*pgxpool.Config){
		nil, mode(pgx.QueryExecModeSimpleProtocol), mode(pgx.QueryExecModeExec),
		func(c *pgxpool.Config) { c.ConnConfig.RuntimeParams["default_transaction_isolation"] = "serializable" },
	} {
		pool := newPool(t, url, 20, change)
		opts := []postgres.Option{postgres.WithSchema(fmt.Sprint("at once ", tables.Add(1))), postgres.WithTimeout(10 * time.Second)}
		var wg sync.WaitGroup
		for range 20 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				assert.NoError(t, postgres.Migrate(context.Background(), pool, opts...))
			}()
		}
		wg.Wait()
		b := postgres.New(pool, opts...)
		fixed := hourly.WithAlgorithm(backend.FixedWindow)
		res, err := b.Take(t.Context(), "k", 4, fixed)
		require.NoError(t, err)
		require.True(t, res.Allowed)
		require.NoError(t, postgres.Migrate(t.Context(), pool, opts...))
		res, err = b.Take(t.Context(), "k", 1, fixed)
		require.NoError(t, err)
		require.Equal(t, hourly.Count-5, res.Remaining, "migrating again keeps what is there")
	}
}

// Tables of one schema that is not there yet may be made at the same time.
func TestMigrateTablesAtOnce(t *testing.T) {
	pool := newPool(t, serverURL(t), 4, nil)
	for range 10 {
		schema := fmt.Sprint("tables at once ", tables.Add(1))
		var wg sync.WaitGroup
		for table := range 4 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				assert.NoError(t, postgres.Migrate(context.Background(), pool,
					postgres.WithSchema(schema), postgres.WithTable(fmt.Sprint(table))))
			}()
		}
		wg.Wait()
	}
}

// What is missing of the schema is made again, and the rest is kept.
func TestMigrateMakesWhatIsMissing(t *testing.T) {
	url := serverURL(t)
	for _, c := range []struct {
		name, drop string
		kept       bool // what was used
	}{
		{"table", "DROP TABLE {}", false},
		{"function", "DROP FUNCTION {}_take_v2, {}_expiry_v2", true},
		{"table and functions", "DROP TABLE {}; DROP FUNCTION {}_take_v2, {}_settle_v2", false},
		{"both tables", "DROP TABLE {}, {}_schema", false},
		{"function beside a later version", "UPDATE {}_schema SET version = 7; DROP FUNCTION {}_settle_v2", true},
	} {
		for _, m := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
			t.Run(fmt.Sprint(c.name, "/", m), func(t *testing.T) {
				pool := newPool(t, url, 2, mode(m))
				opts := newTable(t, pool)
				b := postgres.New(pool, opts...)
				name := strings.Trim(strings.TrimPrefix(postgres.Table(b), `"public".`), `"`)
				_, err := take(b, "k", hourly)
				require.NoError(t, err)
				_, err = pool.Exec(t.Context(), strings.ReplaceAll(c.drop, "{}", name), pgx.QueryExecModeSimpleProtocol)
				require.NoError(t, err)
				for range 2 {
					require.NoError(t, postgres.Migrate(t.Context(), pool, opts...))
				}
				for _, a := range everyAlgorithm {
					limit := hourly.WithAlgorithm(a)
					res, err := take(b, a.String(), limit)
					require.NoError(t, err)
					require.NoError(t, b.Settle(t.Context(), a.String(), res, 1, 0, limit))
				}
				var kept bool
				require.NoError(t, pool.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM "+name+" WHERE key = $1)", postgres.StateKey("k")).Scan(&kept))
				require.Equal(t, c.kept, kept)
			})
		}
	}
}

// Functions of the version before stay as they are, for the instances that still call them.
func TestMigrateBesideOlderFunctions(t *testing.T) {
	pool := newPool(t, serverURL(t), 1, nil)
	opts := newTable(t, pool)
	b := postgres.New(pool, opts...)
	name := strings.Trim(strings.TrimPrefix(postgres.Table(b), `"public".`), `"`)
	_, err := pool.Exec(t.Context(), strings.ReplaceAll("CREATE FUNCTION {}_take_v1(text) RETURNS text LANGUAGE sql AS $$ SELECT 'older' $$; DROP FUNCTION {}_take_v2", "{}", name),
		pgx.QueryExecModeSimpleProtocol)
	require.NoError(t, err)
	require.NoError(t, postgres.Migrate(t.Context(), pool, opts...))
	var older string
	require.NoError(t, pool.QueryRow(t.Context(), "SELECT "+name+"_take_v1('k')").Scan(&older))
	require.Equal(t, "older", older)
	_, err = take(b, "k", hourly)
	require.NoError(t, err)
}

// A table of somebody else under the same name is not taken for the counters'.
func TestMigrateForeignTable(t *testing.T) {
	pool := newPool(t, serverURL(t), 1, nil)
	theirs := fmt.Sprint("theirs", tables.Add(1))
	_, err := pool.Exec(t.Context(), "CREATE TABLE "+theirs+" (x int)")
	require.NoError(t, err)
	require.ErrorContains(t, postgres.Migrate(t.Context(), pool, postgres.WithTable(theirs)), "already exists")
}

// Names are taken as they are, whatever they hold.
func TestNames(t *testing.T) {
	pool := newPool(t, serverURL(t), 2, nil)
	_, err := pool.Exec(t.Context(), "CREATE TABLE precious (x int)")
	require.NoError(t, err)
	defer func() { _, _ = pool.Exec(context.Background(), "DROP TABLE precious") }()
	for i, name := range []string{
		"Capitals", "a b", "select", `"`, `""`, "'", "''", `\`, `\'`, "a.b", "$$", "$ginlimit$", "$1", "{{take}}", "%s", "é", "--", "/*", "😀",
		`"; DROP TABLE precious; --`, `'; DROP TABLE precious; --`, `$$; DROP TABLE precious; --`, strings.Repeat("x", 36),
	} {
		for _, opts := range [][]postgres.Option{
			{postgres.WithTable(name), postgres.WithSchema(fmt.Sprint("names", i))},
			{postgres.WithSchema(name)},
			{postgres.WithSchema(name), postgres.WithTable(name)},
		} {
			opts = append(opts, postgres.WithTimeout(10*time.Second))
			require.NoError(t, postgres.Migrate(t.Context(), pool, opts...), "%q", name)
			require.NoError(t, postgres.Migrate(t.Context(), pool, opts...), "%q", name)
			b := postgres.New(pool, opts...)
			for _, a := range []backend.Algorithm{backend.TokenBucket, backend.SlidingLog} {
				res, err := take(b, "k", hourly.WithAlgorithm(a))
				require.NoError(t, err, "%q", name)
				require.True(t, res.Allowed)
				require.NoError(t, b.Settle(t.Context(), "k", res, 1, 0, hourly.WithAlgorithm(a)))
			}
			_, err := b.Sweep(t.Context())
			require.NoError(t, err, "%q", name)
			require.NoError(t, b.Reset(t.Context(), "k"), "%q", name)
		}
	}
	_, err = pool.Exec(t.Context(), "SELECT FROM precious")
	require.NoError(t, err)
}

// Tables of two names do not share anything.
func TestTablesAreApart(t *testing.T) {
	pool := newPool(t, serverURL(t), 2, nil)
	one, two := postgres.New(pool, newTable(t, pool)...), postgres.New(pool, newTable(t, pool)...)
	limit := backend.Limit{Count: 1, Period: time.Hour}
	for _, b := range []backend.Backend{one, two} {
		res, err := take(b, "k", limit)
		require.NoError(t, err)
		require.True(t, res.Allowed)
	}
}

// A schema of a later version is left alone; it is an error only if that version says that this one
// is too old for it.
func TestLaterVersion(t *testing.T) {
	pool := newPool(t, serverURL(t), 2, nil)
	opts := newTable(t, pool)
	table := strings.TrimSuffix(postgres.Table(postgres.New(pool, opts...)), `"`) + `_schema"`
	set := func(version, oldest int) {
		tag, err := pool.Exec(t.Context(), "UPDATE "+table+" SET version = $1, oldest = $2", version, oldest)
		require.NoError(t, err)
		require.Equal(t, int64(1), tag.RowsAffected())
	}
	set(7, 1)
	require.NoError(t, postgres.Migrate(t.Context(), pool, opts...))
	_, err := take(postgres.New(pool, opts...), "k", hourly)
	require.NoError(t, err)
	set(7, 2)
	err = postgres.Migrate(t.Context(), pool, opts...)
	require.ErrorIs(t, err, postgres.ErrTooOld)
	require.Contains(t, err.Error(), "update this application")
}

// The table is UNLOGGED unless asked otherwise, and has no index but the key's.
func TestTable(t *testing.T) {
	pool := newPool(t, serverURL(t), 1, nil)
	for kind, opts := range map[string][]postgres.Option{"u": nil, "p": {postgres.WithLogged()}} {
		b := postgres.New(pool, newTable(t, pool, opts...)...)
		var persistence string
		var indexes int
		require.NoError(t, pool.QueryRow(t.Context(), "SELECT relpersistence::text, (SELECT count(*) FROM pg_index WHERE indrelid = c.oid) FROM pg_class c WHERE oid = $1::text::regclass",
			postgres.Table(b)).Scan(&persistence, &indexes))
		require.Equal(t, kind, persistence)
		require.Equal(t, 1, indexes)
	}
}

func TestInvalidOptions(t *testing.T) {
	pool, err := pgxpool.New(t.Context(), "postgres://u@127.0.0.1:1/d")
	require.NoError(t, err)
	defer pool.Close()
	for text, opt := range map[string]postgres.Option{
		"WithTable":   postgres.WithTable(""),
		"36 bytes":    postgres.WithTable(strings.Repeat("x", 37)),
		"UTF-8":       postgres.WithTable("\xff"),
		"NUL":         postgres.WithTable("a\x00b"),
		"WithSchema":  postgres.WithSchema(""),
		"1ms to 1m":   postgres.WithTimeout(0),
		"WithTimeout": postgres.WithTimeout(time.Hour),
		"WithSweep":   postgres.WithSweep(-1),
	} {
		require.PanicsWithError(t, postgres.Migrate(t.Context(), pool, opt).Error(), func() { postgres.New(pool, opt) })
		require.ErrorContains(t, postgres.Migrate(t.Context(), pool, opt), text)
		require.Regexp(t, "^ginlimit: postgres", postgres.Migrate(t.Context(), pool, opt).Error())
	}
	require.PanicsWithError(t, "ginlimit: postgres.New: option 2 is nil; leave it out", func() { postgres.New(pool, postgres.WithSweep(1), nil) })
	require.EqualError(t, postgres.Migrate(t.Context(), pool, nil), "ginlimit: postgres.Migrate: option 1 is nil; leave it out")
	require.ErrorContains(t, postgres.Migrate(t.Context(), pool, postgres.WithLogger(nil)), "WithLogger(nil)")
	require.Panics(t, func() { postgres.New(nil) })
	require.ErrorContains(t, postgres.Migrate(t.Context(), nil), "the pool is nil")
}
