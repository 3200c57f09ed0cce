package postgres_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/postgres"
)

// logged is a log that a test reads.
type logged struct {
	mu  sync.Mutex
	out bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.out.Write(p)
}

func (l *logged) option() postgres.Option {
	return postgres.WithLogger(slog.New(slog.NewTextHandler(l, nil)))
}

// lines returns what was written since it was asked last of a server that refuses. On a busy
// machine the log may say of one that it is slow, too.
func (l *logged) lines() (lines []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.out.Reset()
	for line := range strings.Lines(l.out.String()) {
		if strings.Contains(line, "GINLIMIT007") {
			lines = append(lines, line)
		}
	}
	return lines
}

const secret = "somebody@example.com"

// A database that answers no, for whatever reason, says so once while it lasts, with what to do
// about it, and once when it is over. Limiters that let everything pass meanwhile would not be
// noticed otherwise.
func TestADatabaseThatRefusesSaysSo(t *testing.T) {
	url := serverURL(t)
	admin := newPool(t, url, 4, nil)
	exec := func(sql string) func(*testing.T, *postgres.Backend, *pgxpool.Pool) {
		return func(t *testing.T, b *postgres.Backend, _ *pgxpool.Pool) {
			t.Helper()
			table := postgres.Table(b)
			name := strings.Trim(strings.TrimPrefix(table, `"public".`), `"`)
			_, err := admin.Exec(t.Context(), strings.NewReplacer("{}", table, "{name}", name).Replace(sql))
			require.NoError(t, err)
		}
	}
	limiter := newRole(t, admin)
	_, err := admin.Exec(t.Context(), `CREATE OR REPLACE FUNCTION fails() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN RAISE EXCEPTION 'no room' USING ERRCODE = TG_ARGV[0]; END $$`)
	require.NoError(t, err)
	rights := "SELECT, INSERT, UPDATE, DELETE ON {} TO " + limiter
	trigger := func(code string) string {
		return "CREATE TRIGGER fails BEFORE INSERT OR UPDATE ON {} EXECUTE FUNCTION fails('" + code + "')"
	}
	var held *pgxpool.Conn
	for _, c := range []struct {
		name, kind  string
		broken      func(*testing.T, *postgres.Backend, *pgxpool.Pool)
		mended      func(*testing.T, *postgres.Backend, *pgxpool.Pool)
		cause, cure string
	}{
		{"not migrated", "not_migrated", exec("ALTER TABLE {} RENAME TO elsewhere"), exec("ALTER TABLE elsewhere RENAME TO {name}"),
			"does not exist", "call postgres.Migrate"},
		{"no rights", "denied", exec("REVOKE INSERT ON {} FROM " + limiter), exec("GRANT " + rights), "permission denied for table", "grant the role USAGE"},
		{"read-only", "read_only", exec("ALTER ROLE " + limiter + " SET default_transaction_read_only = on"),
			exec("ALTER ROLE " + limiter + " RESET default_transaction_read_only"), "read-only transaction", "connect to the primary"},
		{"disk full", "disk", exec(trigger("53100")), exec("DROP TRIGGER fails ON {}"), "no room", "disk has room"},
		{"no memory", "out_of_memory", exec(trigger("53200")), exec("DROP TRIGGER fails ON {}"), "no room", "more memory"},
		{"something else", "unavailable", exec(trigger("P0001")), exec("DROP TRIGGER fails ON {}"), "no room", "the cause says"},
		{"a foreign row", "foreign_value", exec("UPDATE {} SET state = '{1}'"), exec("DELETE FROM {}"), "not ours", "nothing else writes to"},
		{"a full pool", "pool_exhausted", func(t *testing.T, _ *postgres.Backend, pool *pgxpool.Pool) {
			var err error
			held, err = pool.Acquire(t.Context())
			require.NoError(t, err)
		}, func(*testing.T, *postgres.Backend, *pgxpool.Pool) { held.Release() }, "deadline exceeded", "a pool of their own"},
		{"a closed pool", "pool_closed", func(_ *testing.T, _ *postgres.Backend, pool *pgxpool.Pool) { pool.Close() }, nil, "closed pool", "after the last request"},
	} {
		t.Run(c.name, func(t *testing.T) {
			log := &logged{}
			opts := append(newTable(t, admin), log.option())
			if c.kind == "pool_exhausted" {
				opts = append(opts, postgres.WithTimeout(100*time.Millisecond)) // which each call waits for
			}
			pool := newPool(t, url, 1, func(c *pgxpool.Config) { c.ConnConfig.User = limiter })
			b := postgres.New(pool, opts...)
			postgres.EndAtOnce(b)
			exec("GRANT "+rights)(t, b, nil)
			limit := backend.Limit{Count: 1_000_000, Period: time.Hour, Algorithm: backend.FixedWindow}
			require.Eventually(t, func() bool { // the first connection
				_, err := take(b, secret, limit)
				return err == nil
			}, soon, time.Millisecond)
			log.lines()

			c.broken(t, b, pool)
			if c.kind == "read_only" {
				pool.Reset()
			}
			failed := 0
			require.Eventually(t, func() bool { // a connection is made anew
				_, err := take(b, secret, limit)
				if backend.ErrorKind(err) == c.kind {
					require.ErrorIs(t, err, backend.ErrUnavailable)
					require.NotContains(t, err.Error(), secret)
					failed++
				}
				return failed == 4
			}, soon, time.Millisecond)
			lines := log.lines()
			require.Len(t, lines, 1)
			for _, part := range []string{"level=WARN", "GINLIMIT007", "kind=" + c.kind, "server=" + shared.server.Addr() + "/postgres", c.cause, c.cure, "failure policy", "Fallback"} {
				require.Contains(t, lines[0], part)
			}
			require.NotContains(t, lines[0], secret)
			if c.mended == nil {
				return
			}

			c.mended(t, b, pool)
			pool.Reset()
			require.Eventually(t, func() bool {
				_, err := take(b, secret, limit)
				return err == nil
			}, soon, time.Millisecond)
			lines = log.lines()
			require.Len(t, lines, 1)
			for _, part := range []string{"level=INFO", "GINLIMIT007", "no longer fail", "kind=" + c.kind} {
				require.Contains(t, lines[0], part)
			}
		})
	}
}

// A role that may charge and not delete lets the table grow: the log says so.
func TestSweepsThatFailSaySo(t *testing.T) {
	admin := newPool(t, serverURL(t), 2, nil)
	log := &logged{}
	opts := append(newTable(t, admin), log.option(), postgres.WithSweep(5))
	sweeper := newRole(t, admin)
	b := postgres.New(newPool(t, serverURL(t), 2, func(c *pgxpool.Config) { c.ConnConfig.User = sweeper }), opts...)
	postgres.EndAtOnce(b)
	_, err := admin.Exec(t.Context(), "GRANT SELECT, INSERT, UPDATE ON "+postgres.Table(b)+" TO "+sweeper)
	require.NoError(t, err)
	var lines []string
	until := func(line int) {
		require.Eventually(t, func() bool {
			_, err := take(b, fmt.Sprint(time.Now().UnixNano()), backend.Limit{Count: 1, Period: time.Millisecond})
			require.NoError(t, err)
			lines = append(lines, log.lines()...)
			return len(lines) == line
		}, soon, time.Millisecond)
	}
	until(1)
	require.Contains(t, lines[0], "sweeps of the table in PostgreSQL fail: the server denies access")
	require.Contains(t, lines[0], "the table grows")
	_, err = admin.Exec(t.Context(), "GRANT DELETE ON "+postgres.Table(b)+" TO "+sweeper)
	require.NoError(t, err)
	until(2)
	require.Contains(t, lines[1], "no longer fail")
}
