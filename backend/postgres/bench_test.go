package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/postgres"
)

// benchURL is BENCH_POSTGRES, or a server of the test's own.
func benchURL(b *testing.B) string {
	if url := os.Getenv("BENCH_POSTGRES"); url != "" {
		return url
	}
	return serverURL(b)
}

// pace runs n operations by callers at a time, and returns how long that took.
func pace(b *testing.B, callers, n int, op func(i int) error) time.Duration {
	var next atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for range callers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				if err := op(int(i)); err != nil {
					b.Error(err)
					return
				}
			}
		}()
	}
	wg.Wait()
	return time.Since(start)
}

// BenchmarkAgainstBare measures decisions against what a counter alone costs: INSERT … ON CONFLICT
// DO UPDATE SET n = n + 1 RETURNING n, on a table with the same key and settings, the same pool, by
// turns in the same run.
func BenchmarkAgainstBare(b *testing.B) {
	url := benchURL(b)
	minute := backend.Limit{Count: 1_000_000_000, Period: time.Minute}
	for _, limits := range []struct {
		name   string
		limits []backend.Limit
	}{
		{"token bucket", []backend.Limit{minute}},
		{"leased", []backend.Limit{minute}},
		{"fractional bucket", []backend.Limit{{Count: 999_999_937, Period: time.Minute}}},
		{"fixed window", []backend.Limit{minute.WithAlgorithm(backend.FixedWindow)}},
		{"sliding window", []backend.Limit{minute.WithAlgorithm(backend.SlidingWindow)}},
		{"sliding log of 100", []backend.Limit{{Count: 100, Period: time.Second, Algorithm: backend.SlidingLog}}},
		{"two limits", []backend.Limit{minute, {Count: 1_000_000_000, Period: time.Hour, Algorithm: backend.FixedWindow}}},
		{"refused", []backend.Limit{{Count: 1, Period: 24 * time.Hour}}},
	} {
		for _, keys := range []int{1, 10_000} {
			b.Run(fmt.Sprintf("%s/keys=%d", limits.name, keys), func(b *testing.B) {
				againstBare(b, url, keys, limits.name == "leased", limits.limits)
			})
		}
	}
}

func againstBare(b *testing.B, url string, keys int, lease bool, limits []backend.Limit) {
	const callers, conns, chunk = 64, 16, 1000
	ctx := context.Background()
	pool := newPool(b, url, conns, func(c *pgxpool.Config) { c.MinConns = conns })
	var store backend.Backend = postgres.New(pool, newTable(b, pool)...)
	if lease {
		store = backend.Lease(store, 100)
	}
	table := fmt.Sprint("bare", tables.Add(1))
	_, err := pool.Exec(ctx, "CREATE UNLOGGED TABLE "+table+` (key text COLLATE "C" PRIMARY KEY, n bigint NOT NULL) WITH (fillfactor = 70)`)
	require.NoError(b, err)
	count := "INSERT INTO " + table + " (key, n) VALUES ($1, 1) ON CONFLICT (key) DO UPDATE SET n = " + table + ".n + 1 RETURNING n"
	key := func(i int) string { return "api\x00ip:203.0.113." + strconv.Itoa(i*7919%keys) }
	bare := func(i int) error {
		var n int64
		return pool.QueryRow(ctx, count, postgres.StateKey(key(i))).Scan(&n)
	}
	ours := func(i int) error {
		_, err := store.Take(ctx, key(i), 1, limits...)
		return err
	}
	pace(b, callers, max(keys, chunk), bare) // rows and statements are made
	pace(b, callers, max(keys, chunk), ours)
	b.ResetTimer()
	var bareTime, ourTime time.Duration
	rounds := 0
	for n := 0; n < b.N; n += chunk {
		bareTime += pace(b, callers, chunk, func(i int) error { return bare(n + i) })
		ourTime += pace(b, callers, chunk, func(i int) error { return ours(n + i) })
		rounds++
	}
	b.ReportMetric(0, "ns/op") // of both
	b.ReportMetric(float64(rounds*chunk)/bareTime.Seconds(), "bare/s")
	b.ReportMetric(float64(rounds*chunk)/ourTime.Seconds(), "decisions/s")
	b.ReportMetric(bareTime.Seconds()/ourTime.Seconds(), "of-bare")
}

// BenchmarkQuick compares the statement that decides the common case with the function that decides
// everything, in turns, with 10,000 keys.
func BenchmarkQuick(b *testing.B) {
	const callers, conns, chunk, keys = 16, 8, 1000, 10_000
	ctx := context.Background()
	pool := newPool(b, benchURL(b), conns, func(c *pgxpool.Config) { c.MinConns = conns })
	opts := newTable(b, pool)
	quick, slow := postgres.New(pool, opts...), postgres.New(pool, opts...)
	postgres.SetSlow(slow)
	limit := backend.Limit{Count: 1_000_000_000, Period: time.Minute}
	var micros [2]float64
	rounds := 0
	for n := 0; n < b.N; n += chunk {
		for i, store := range []*postgres.Backend{quick, slow} {
			took := pace(b, callers, chunk, func(at int) error {
				_, err := store.Take(ctx, strconv.Itoa((n+at)*7919%keys), 1, limit)
				return err
			})
			if n > 0 { // the first round makes statements
				micros[i] += float64(took.Microseconds())
			}
		}
		rounds++
	}
	if measured := float64((rounds - 1) * chunk); measured > 0 {
		b.ReportMetric(0, "ns/op") // of both
		b.ReportMetric(micros[0]/measured, "µs/statement")
		b.ReportMetric(micros[1]/measured, "µs/function")
	}
}

// BenchmarkMethods compares what a Take costs with a Settle, for less and for more, with a TakeAll
// of three keys, and with three Takes one after another, by turns, with 10,000 keys. The third key
// is the same for everybody.
func BenchmarkMethods(b *testing.B) {
	const callers, conns, chunk, keys = 16, 8, 1000, 10_000
	ctx := context.Background()
	pool := newPool(b, benchURL(b), conns, func(c *pgxpool.Config) { c.MinConns = conns })
	store := postgres.New(pool, newTable(b, pool)...)
	limits := []backend.Limit{{Count: 100, Period: time.Minute}} // a unit is there when it is given back
	name := func(i int) string { return strconv.Itoa(i * 7919 % keys) }
	three := func(i int) (all []backend.Charge) {
		for _, key := range []string{"user " + name(i), "team " + name(i%97), "all"} {
			all = append(all, backend.Charge{Key: key, Cost: 1, Limits: []backend.Limit{{Count: 1_000_000_000, Period: time.Minute}}})
		}
		return all
	}
	patient := backend.Limit{Count: 1_000_000_000, Period: time.Hour}.Banning(time.Minute, time.Hour)
	strict := backend.Limit{Count: 1, Period: time.Hour}.Banning(time.Hour, time.Hour)
	take := func(key string, limits []backend.Limit) error {
		_, err := store.Take(ctx, key, 1, limits...)
		return err
	}
	settle := func(actual int64) func(int) error {
		return func(i int) error {
			return store.Settle(ctx, name(i), backend.Result{Allowed: true, At: time.Now()}, 1, actual, limits...)
		}
	}
	methods := []struct {
		name string
		call func(i int) error
	}{
		{"take", func(i int) error { return take(name(i), limits) }},
		{"settle-more", settle(2)},
		{"settle-less", settle(0)},
		{"take-all-of-3", func(i int) error {
			_, err := store.TakeAll(ctx, three(i)...)
			return err
		}},
		{"three-takes", func(i int) (err error) {
			for _, c := range three(i) {
				err = errors.Join(err, take(c.Key, c.Limits))
			}
			return err
		}},
		{"calendar", func(i int) error {
			return take("calendar "+name(i), []backend.Limit{backend.PerCalendarDay(1_000_000_000)})
		}},
		{"in-flight-and-back", func(i int) error {
			key, flight := "flight "+name(i), []backend.Limit{backend.InFlight(1000)}
			res, err := store.Take(ctx, key, 1, flight...)
			if err != nil {
				return err
			}
			return store.Settle(ctx, key, res, 1, 1, flight...)
		}},
		{"with-a-ban", func(i int) error { return take("ban "+name(i), []backend.Limit{limits[0], patient}) }},
		{"counted-refusal", func(i int) error {
			return take("refused "+name(i%97), []backend.Limit{{Count: 1, Period: 24 * time.Hour}, patient})
		}},
		{"banned", func(i int) error {
			return take("banned "+name(i%97), []backend.Limit{{Count: 1, Period: 24 * time.Hour}, strict})
		}},
	}
	micros := make([]float64, len(methods))
	rounds := 0
	for n := 0; n < b.N; n += chunk {
		for i, m := range methods {
			took := pace(b, callers, chunk, func(at int) error { return m.call(n + at) })
			if n > 0 { // the first round makes rows and statements
				micros[i] += float64(took.Microseconds())
			}
		}
		rounds++
	}
	if measured := float64((rounds - 1) * chunk); measured > 0 {
		b.ReportMetric(0, "ns/op") // of all
		for i, m := range methods {
			b.ReportMetric(micros[i]/measured, "µs/"+m.name)
		}
	}
}

// BenchmarkDesigns measures other ways to keep a token bucket, each against the bare counter, with
// 10,000 keys. README.md says what came of it.
func BenchmarkDesigns(b *testing.B) {
	const (
		clock   = "(date_part('epoch', clock_timestamp()) * 1000000)::bigint"
		started = "(date_part('epoch', statement_timestamp()) * 1000000)::bigint"
	)
	url := benchURL(b)
	for _, d := range []struct{ name, columns, function, statement string }{
		{name: "typed columns",
			columns: "at bigint NOT NULL, time bigint NOT NULL, frac bigint NOT NULL",
			statement: "WITH w AS (INSERT INTO t AS s VALUES ($1, 'rule', " + started + " + 60, " + started + ", " + started + " + 60, 0) ON CONFLICT (key) DO UPDATE" +
				" SET (expires, at, time) = (SELECT greatest(s.time, now) + 60, now, greatest(s.time, now) + 60 FROM (SELECT " + clock + " AS now) c)" +
				" WHERE s.rules = 'rule' AND s.frac = 0 AND greatest(s.time - " + clock + ", 0) + 60 <= 60000000" +
				" RETURNING ARRAY[at, time, frac] AS r) SELECT coalesce((SELECT r FROM w), '{0}')"},
		{name: "bigint[]",
			columns: "state bigint[] NOT NULL",
			statement: "WITH w AS (INSERT INTO t AS s VALUES ($1, 'rule', " + started + " + 60, ARRAY[" + started + ", " + started + " + 60, 0, 0]) ON CONFLICT (key) DO UPDATE" +
				" SET (expires, state) = (SELECT greatest(s.state[2], now) + 60, ARRAY[now, greatest(s.state[2], now) + 60, 0, 0] FROM (SELECT " + clock + " AS now) c)" +
				" WHERE s.rules = 'rule' AND s.state[3] = 0 AND greatest(s.state[2] - " + clock + ", 0) + 60 <= 60000000" +
				" RETURNING s.state AS r) SELECT coalesce((SELECT r FROM w), '{0}')"},
		{name: "text",
			columns: "state text NOT NULL",
			statement: "WITH w AS (INSERT INTO t AS s VALUES ($1, 'rule', " + started + " + 60, concat_ws(' ', " + started + ", " + started + " + 60, 0, 0)) ON CONFLICT (key) DO UPDATE" +
				" SET (expires, state) = (SELECT over, concat_ws(' ', now, over, 0, 0) FROM (SELECT now, greatest(split_part(s.state, ' ', 2)::bigint, now) + 60 AS over FROM (SELECT " + clock + " AS now) c) d)" +
				" WHERE s.rules = 'rule' AND split_part(s.state, ' ', 3) = '0' AND greatest(split_part(s.state, ' ', 2)::bigint - " + clock + ", 0) + 60 <= 60000000" +
				" RETURNING s.state AS r) SELECT coalesce((SELECT r FROM w), '0')"},
		{name: "bigint[], a PL/pgSQL function in SET",
			columns: "state bigint[] NOT NULL",
			function: "CREATE FUNCTION t_next(state bigint[], now bigint) RETURNS bigint[] LANGUAGE plpgsql AS $$ DECLARE time bigint := greatest(state[2], now) + 60;" +
				" BEGIN IF state[3] <> 0 OR time > now + 60000000 THEN RETURN state; END IF; RETURN ARRAY[now, time, 0, 0]; END $$",
			statement: "INSERT INTO t AS s VALUES ($1, 'rule', " + started + " + 60, ARRAY[" + started + ", " + started + " + 60, 0, 0]) ON CONFLICT (key) DO UPDATE" +
				" SET state = t_next(s.state, " + clock + ") WHERE s.rules = 'rule' RETURNING s.state"},
		{name: "bigint[], a PL/pgSQL function that selects for update and updates",
			columns: "state bigint[] NOT NULL",
			function: "CREATE FUNCTION t_next(k text) RETURNS bigint[] LANGUAGE plpgsql AS $$ DECLARE st bigint[]; now bigint; time bigint;" +
				" BEGIN LOOP SELECT t.state INTO st FROM t WHERE t.key = k AND t.rules = 'rule' FOR UPDATE; now := " + clock + "; time := greatest(st[2], now) + 60;" +
				" IF st IS NULL THEN INSERT INTO t VALUES (k, 'rule', now + 60, ARRAY[now, now + 60, 0, 0]) ON CONFLICT DO NOTHING;" +
				" ELSIF st[3] <> 0 OR time > now + 60000000 THEN RETURN st; ELSE st := ARRAY[now, time, 0, 0]; UPDATE t SET expires = time, state = st WHERE t.key = k; END IF;" +
				" IF FOUND THEN RETURN st; END IF; END LOOP; END $$",
			statement: "SELECT t_next($1)"},
	} {
		b.Run(d.name, func(b *testing.B) {
			const keys, chunk = 10_000, 1000
			ctx := context.Background()
			schema := fmt.Sprint("design", tables.Add(1))
			pool := newPool(b, url, 16, func(c *pgxpool.Config) { c.ConnConfig.RuntimeParams["search_path"] = schema })
			for _, text := range []string{"CREATE SCHEMA " + schema,
				`CREATE UNLOGGED TABLE t (key text COLLATE "C" PRIMARY KEY, rules text COLLATE "C" NOT NULL, expires bigint NOT NULL, ` + d.columns + ") WITH (fillfactor = 70)",
				`CREATE UNLOGGED TABLE bare (key text COLLATE "C" PRIMARY KEY, n bigint NOT NULL) WITH (fillfactor = 70)`, d.function} {
				_, err := pool.Exec(ctx, text)
				require.NoError(b, err)
			}
			run := func(text string) func(i int) error {
				return func(i int) error {
					rows, err := pool.Query(ctx, text, "api:ip:203.0.113."+strconv.Itoa(i*7919%keys))
					if err != nil {
						return err
					}
					rows.Close()
					return rows.Err()
				}
			}
			bare := run("INSERT INTO bare (key, n) VALUES ($1, 1) ON CONFLICT (key) DO UPDATE SET n = bare.n + 1 RETURNING n")
			pace(b, 64, keys, bare)
			pace(b, 64, keys, run(d.statement))
			b.ResetTimer()
			var bareTime, ourTime time.Duration
			for n := 0; n < b.N; n += chunk {
				bareTime += pace(b, 64, chunk, func(i int) error { return bare(n + i) })
				ourTime += pace(b, 64, chunk, func(i int) error { return run(d.statement)(n + i) })
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(bareTime.Seconds()/ourTime.Seconds(), "of-bare")
			var size float64
			require.NoError(b, pool.QueryRow(ctx, "SELECT avg(pg_column_size(t.*)) FROM t").Scan(&size))
			b.ReportMetric(size, "bytes/row")
		})
	}
}
