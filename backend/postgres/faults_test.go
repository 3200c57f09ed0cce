package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/memory"
	"github.com/ginlimit/ginlimit/backend/postgres"
	"github.com/ginlimit/ginlimit/internal/testserver"
)

// soon is how long a busy machine may take.
const soon = 20 * time.Second

var hourly = backend.Limit{Count: 1_000_000, Period: time.Hour}

func take(b backend.Backend, key string, limits ...backend.Limit) (backend.Result, error) {
	return b.Take(context.Background(), key, 1, limits...)
}

// recovers waits until decisions are reached again.
func recovers(t *testing.T, b backend.Backend) {
	t.Helper()
	require.Eventually(t, func() bool {
		_, err := take(b, "recovers", hourly)
		return err == nil
	}, soon, 20*time.Millisecond)
}

func breakerOpen(b *postgres.Backend) bool {
	for _, open := range b.Breakers() {
		return open
	}
	return false
}

// callers calls f from n goroutines until stop is called, which waits for them.
func callers(n int, f func(i int)) (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for {
				select {
				case <-done:
					return
				default:
					f(i)
				}
			}
		}()
	}
	return func() {
		close(done)
		wg.Wait()
	}
}

// A server that stops answering costs each caller its budget at most, opens the breaker, and is
// used again when it answers. No more is admitted than the limit, and nothing is left behind.
func TestServerThatHangs(t *testing.T) {
	server := testserver.Postgres(t)
	goroutines := runtime.NumGoroutine()
	pool := newPool(t, server.URL(), 8, nil)
	opts := newTable(t, pool, postgres.WithTimeout(200*time.Millisecond))
	b := postgres.New(pool, opts...)
	recovers(t, b)
	const count = 2000
	limit := backend.Limit{Count: count, Period: time.Hour, Algorithm: backend.FixedWindow}
	var admitted, atOnce, slowest atomic.Int64
	stop := callers(50, func(int) {
		start := time.Now()
		res, err := take(b, "hot", limit)
		took := int64(time.Since(start))
		for old := slowest.Load(); took > old && !slowest.CompareAndSwap(old, took); old = slowest.Load() {
		}
		switch {
		case errors.Is(err, postgres.ErrBreakerOpen):
			atOnce.Add(1)
		case err != nil:
			assert.ErrorIs(t, err, backend.ErrUnavailable)
		case res.Allowed:
			admitted.Add(1)
		}
		time.Sleep(time.Millisecond)
	})
	time.Sleep(100 * time.Millisecond)
	server.Pause()
	require.Eventually(t, func() bool { return breakerOpen(b) }, soon, time.Millisecond)
	time.Sleep(time.Second)
	server.Resume()
	recovers(t, b)
	require.False(t, breakerOpen(b))
	stop()
	assert.LessOrEqual(t, admitted.Load(), int64(count))
	assert.Positive(t, atOnce.Load())
	assert.Less(t, time.Duration(slowest.Load()), 5*time.Second, "the slowest decision; it has 200 ms")
	t.Logf("slowest decision %v, %d failed at once", time.Duration(slowest.Load()), atOnce.Load())

	var backends int
	require.Eventually(t, func() bool { // connections that were given up are closed by the server too
		err := pool.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'").Scan(&backends)
		return err == nil && backends <= 8
	}, soon, 50*time.Millisecond)
	pool.Close()
	require.Eventually(t, func() bool { return runtime.NumGoroutine() <= goroutines+2 }, soon, 20*time.Millisecond, "goroutines are left")
}

// A server that is killed loses an UNLOGGED table's rows, and keeps a logged one's.
func TestKillAndRestart(t *testing.T) {
	server := testserver.Postgres(t, "-c", "fsync=on")
	pool := newPool(t, server.URL(), 4, nil)
	ctx := context.Background()
	day := backend.Limit{Count: 10, Period: 24 * time.Hour, Algorithm: backend.FixedWindow}
	unlogged := postgres.New(pool, newTable(t, pool)...)
	logged := postgres.New(pool, newTable(t, pool, postgres.WithLogged())...)
	for _, b := range []backend.Backend{unlogged, logged} {
		res, err := b.Take(ctx, "k", 4, day)
		require.NoError(t, err)
		require.True(t, res.Allowed)
	}
	server.Kill()
	_, err := take(unlogged, "k", day)
	require.ErrorIs(t, err, backend.ErrUnavailable)
	require.NoError(t, server.Restart())
	recovers(t, unlogged)
	recovers(t, logged)
	for b, left := range map[backend.Backend]int64{unlogged: 10, logged: 6} {
		res, err := b.Take(ctx, "k", 0, day)
		require.NoError(t, err)
		require.Equal(t, left, res.Remaining)
	}
}

// A server without a free connection says so, opens the breaker, so that it is not asked by every
// request, and is used again once it has one.
func TestConnectionExhaustion(t *testing.T) {
	server := testserver.Postgres(t, "-c", "max_connections=6", "-c", "superuser_reserved_connections=0")
	pool := newPool(t, server.URL(), 4, nil)
	b := postgres.New(pool, newTable(t, pool, postgres.WithTimeout(time.Second))...)
	pool.Reset()
	var others []*pgx.Conn
	require.Eventually(t, func() bool {
		conn, err := pgx.Connect(t.Context(), server.URL())
		if err == nil {
			others = append(others, conn)
		}
		return len(others) == 6
	}, soon, 10*time.Millisecond)
	for _, kind := range []error{postgres.ErrTooManyConnections, postgres.ErrBreakerOpen} {
		require.Eventually(t, func() bool {
			_, err := take(b, "k", hourly)
			require.ErrorIs(t, err, backend.ErrUnavailable)
			return errors.Is(err, kind)
		}, soon, time.Millisecond)
	}
	for _, conn := range others {
		require.NoError(t, conn.Close(t.Context()))
	}
	recovers(t, b)
}

// A pool whose connections are all in use costs a caller its budget, and does not look like a
// server that is down.
func TestPoolExhaustion(t *testing.T) {
	pool := newPool(t, serverURL(t), 2, nil)
	b := postgres.New(pool, newTable(t, pool, postgres.WithTimeout(20*time.Millisecond))...)
	recovers(t, b)
	var held []*pgxpool.Conn
	for range 2 {
		conn, err := pool.Acquire(t.Context())
		require.NoError(t, err)
		defer conn.Release()
		held = append(held, conn)
	}
	for range 10 {
		_, err := take(b, "k", hourly)
		require.ErrorIs(t, err, postgres.ErrPoolExhausted)
		require.ErrorIs(t, err, backend.ErrUnavailable)
		require.ErrorIs(t, err, context.DeadlineExceeded)
	}
	require.False(t, breakerOpen(b))
	for _, conn := range held {
		conn.Release()
	}
	recovers(t, b)
}

// Callers beyond the connections of such a pool, which wait for their turn, learn the same.
func TestSmallPoolExhaustion(t *testing.T) {
	const conns = 4 // fewer than the calls that open the breaker
	pool := newPool(t, serverURL(t), conns, nil)
	b := postgres.New(pool, newTable(t, pool, postgres.WithTimeout(50*time.Millisecond))...)
	recovers(t, b)
	for range conns {
		conn, err := pool.Acquire(t.Context())
		require.NoError(t, err)
		defer conn.Release()
	}
	var wg sync.WaitGroup
	for range 40 {
		wg.Go(func() {
			_, err := take(b, "k", hourly)
			assert.ErrorIs(t, err, backend.ErrUnavailable)
			if errors.Is(err, postgres.ErrBreakerOpen) {
				return
			}
			assert.ErrorIs(t, err, postgres.ErrPoolExhausted)
			assert.ErrorIs(t, err, context.DeadlineExceeded)
			assert.Equal(t, "pool_exhausted", backend.ErrorKind(err))
		})
	}
	wg.Wait()
}

// A table that somebody has locked does not make the server fill up with statements whose callers
// have given up.
func TestLockedTable(t *testing.T) {
	server := testserver.Postgres(t, "-c", "max_connections=30")
	pool := newPool(t, server.URL(), 4, nil)
	opts := newTable(t, pool, postgres.WithTimeout(20*time.Millisecond))
	b := postgres.New(pool, opts...)
	recovers(t, b)
	other := newPool(t, server.URL(), 2, nil)
	tx, err := other.Begin(t.Context())
	require.NoError(t, err)
	defer tx.Rollback(context.Background()) // the pool closes only with all its connections
	_, err = tx.Exec(t.Context(), "LOCK TABLE "+postgres.Table(b)+" IN ACCESS EXCLUSIVE MODE")
	require.NoError(t, err)
	most := 0
	stop := callers(20, func(int) {
		_, err := take(b, "k", hourly)
		assert.ErrorIs(t, err, backend.ErrUnavailable)
		time.Sleep(time.Millisecond)
	})
	for range 20 {
		time.Sleep(100 * time.Millisecond)
		var waiting int
		require.NoError(t, other.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'").Scan(&waiting))
		most = max(most, waiting)
	}
	stop()
	assert.LessOrEqual(t, most, 8, "statements that wait for the lock")
	require.NoError(t, tx.Rollback(t.Context()))
	recovers(t, b)
}

// What keeps the database from deciding is told apart, and no error has the password.
func TestKindsOfErrors(t *testing.T) {
	url := serverURL(t)
	pool := newPool(t, url, 4, nil)
	opts := newTable(t, pool)
	table := postgres.Table(postgres.New(pool, opts...))
	nobody := newRole(t, pool)
	closed := newPool(t, url, 1, nil)
	closed.Close()
	nowhere, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	nowhere.Close()
	setting := func(name, value string) func(*pgxpool.Config) {
		return func(c *pgxpool.Config) { c.ConnConfig.RuntimeParams[name] = value }
	}
	user := func(name string) func(*pgxpool.Config) {
		return func(c *pgxpool.Config) { c.ConnConfig.User, c.ConnConfig.Password = name, "hunter2" }
	}
	for name, c := range map[string]struct {
		pool *pgxpool.Pool
		opts []postgres.Option
		kind error
	}{
		"not migrated":   {pool, []postgres.Option{postgres.WithTable("missing")}, postgres.ErrNotMigrated},
		"no schema":      {pool, []postgres.Option{postgres.WithSchema("missing")}, postgres.ErrNotMigrated},
		"read-only":      {newPool(t, url, 1, setting("default_transaction_read_only", "on")), opts, postgres.ErrReadOnly},
		"no rights":      {newPool(t, url, 1, user(nobody)), opts, postgres.ErrDenied},
		"no such user":   {newPool(t, url, 1, user("noone")), opts, postgres.ErrDenied},
		"closed":         {closed, opts, backend.ErrUnavailable},
		"not listening":  {newPool(t, "postgres://u:hunter2@"+nowhere.Addr().String()+"/d", 1, nil), opts, backend.ErrUnavailable},
		"no such server": {newPool(t, "postgres://u:hunter2@no-such-host.invalid/d", 1, nil), opts, backend.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			b := postgres.New(c.pool, append(c.opts[:len(c.opts):len(c.opts)], postgres.WithTimeout(10*time.Second))...)
			_, look := b.Take(t.Context(), "k", 0, hourly)
			_, taken := take(b, "k", hourly)
			_, all := b.TakeAll(t.Context(), backend.Charge{Key: "k", Cost: 1, Limits: []backend.Limit{hourly}})
			_, usage := b.Usage(t.Context(), "k", hourly)
			errs := []error{taken, all, b.Reset(t.Context(), "k")}
			for _, actual := range []int64{0, 2, 2_000_000} {
				errs = append(errs, b.Settle(t.Context(), "k", backend.Result{Allowed: true, At: time.Now()}, 1, actual, hourly))
			}
			if !errors.Is(c.kind, postgres.ErrReadOnly) { // which may be read
				errs = append(errs, look, usage)
			}
			for _, err := range errs {
				require.ErrorIs(t, err, backend.ErrUnavailable)
				require.ErrorIs(t, err, c.kind)
				require.NotContains(t, err.Error(), "hunter2")
				require.Regexp(t, "^ginlimit: postgres: ", err.Error())
			}
			if errors.Is(c.kind, postgres.ErrNotMigrated) {
				require.Contains(t, errs[0].Error(), "call postgres.Migrate")
				require.Equal(t, "not_migrated", backend.ErrorKind(errs[0]))
			}
		})
	}
	_, err = pool.Exec(t.Context(), "GRANT SELECT, INSERT, UPDATE, DELETE ON "+table+" TO "+nobody)
	require.NoError(t, err)
	b := postgres.New(newPool(t, url, 1, user(nobody)), opts...)
	recovers(t, b)
	require.NoError(t, b.Reset(t.Context(), "k"))
	_, err = b.Sweep(t.Context())
	require.NoError(t, err)
	require.NoError(t, postgres.Migrate(t.Context(), newPool(t, url, 1, user(nobody)), opts...), "where there is nothing to do")
}

// A standby refuses charges. It can be looked at if the table is logged; otherwise that is not
// there.
func TestStandby(t *testing.T) {
	server := testserver.Postgres(t)
	pool := newPool(t, server.URL(), 4, nil)
	optsUnlogged, optsLogged := newTable(t, pool), newTable(t, pool, postgres.WithLogged())
	unlogged, logged := postgres.New(pool, optsUnlogged...), postgres.New(pool, optsLogged...)
	fixed := hourly.WithAlgorithm(backend.FixedWindow)
	res, err := take(logged, "k", fixed)
	require.NoError(t, err)
	var dir string
	require.NoError(t, pool.QueryRow(t.Context(), "SHOW data_directory").Scan(&dir))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "standby.signal"), nil, 0o644))
	require.NoError(t, server.Restart())
	pool.Reset()
	for b, opts := range map[*postgres.Backend][]postgres.Option{unlogged: optsUnlogged, logged: optsLogged} {
		require.NoError(t, postgres.Migrate(t.Context(), pool, opts...), "where there is nothing to do")
		look, err := b.Take(t.Context(), "k", 0, fixed)
		if b == logged {
			require.NoError(t, err)
			require.Equal(t, res.Remaining, look.Remaining)
		} else {
			require.ErrorIs(t, err, postgres.ErrReadOnly)
			require.ErrorIs(t, err, backend.ErrUnavailable)
		}
		_, err = take(b, "k", fixed)
		_, all := b.TakeAll(t.Context(), backend.Charge{Key: "k", Cost: 1, Limits: []backend.Limit{fixed}})
		for _, err := range []error{err, all, b.Settle(t.Context(), "k", res, 1, 0, fixed), b.Reset(t.Context(), "k")} {
			require.ErrorIs(t, err, postgres.ErrReadOnly)
			require.ErrorIs(t, err, backend.ErrUnavailable)
		}
		require.False(t, breakerOpen(b))
	}
}

// A request that gives itself no time, or that is given up, is decided all the same: otherwise it
// would pass under FailOpen.
func TestTheCallersContextDoesNotMatter(t *testing.T) {
	pool := newPool(t, serverURL(t), 2, nil)
	b := postgres.New(pool, newTable(t, pool)...)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	past, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	<-past.Done()
	soon, cancel := context.WithTimeout(t.Context(), 20*time.Microsecond)
	defer cancel()
	for name, ctx := range map[string]context.Context{"cancelled": gone, "no time left": past, "little time left": soon} {
		for _, a := range everyAlgorithm { // by the quick statement, and by the function
			key, limit := name+a.String(), backend.Limit{Count: 3, Period: time.Hour, Algorithm: a}
			var last backend.Result
			passed := 0
			for range 10 {
				res, err := b.Take(ctx, key, 1, limit)
				require.NoError(t, err, name)
				if res.Allowed {
					last = res
					passed++
				}
			}
			require.Equal(t, 3, passed, name)
			left := func() int64 {
				res, err := b.Take(ctx, key, 0, limit)
				require.NoError(t, err, name)
				return res.Remaining
			}
			require.NoError(t, b.Settle(ctx, key, last, 1, 0, limit), name)
			require.Equal(t, int64(1), left(), name)
			require.NoError(t, b.Reset(ctx, key), name)
			require.Equal(t, int64(3), left(), name)
		}
	}
	require.False(t, breakerOpen(b))
}

// A row that somebody has locked costs a decision its time budget, whatever time the caller has.
func TestLockedRow(t *testing.T) {
	pool := newPool(t, serverURL(t), 4, nil)
	b := postgres.New(pool, newTable(t, pool, postgres.WithTimeout(50*time.Millisecond))...)
	recovers(t, b)
	tx, err := pool.Begin(t.Context())
	require.NoError(t, err)
	defer tx.Rollback(context.Background()) // the pool closes only with all its connections
	_, err = tx.Exec(t.Context(), "SELECT FROM "+postgres.Table(b)+" FOR UPDATE")
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	for range 3 { // fewer than open the breaker
		_, err := b.Take(ctx, "recovers", 1, hourly)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, backend.ErrUnavailable)
	}
	require.NoError(t, tx.Rollback(t.Context()))
	recovers(t, b)
}

// 64 connections on one key admit exactly the limit, whatever the algorithm and the default
// isolation, by every way. No decision fails.
func TestManyConnectionsOnOneKey(t *testing.T) {
	url := serverURL(t)
	for _, isolation := range []string{"read committed", "repeatable read", "serializable"} {
		for _, a := range []backend.Algorithm{backend.TokenBucket, backend.SlidingWindow, backend.SlidingLog, backend.FixedWindow} {
			t.Run(fmt.Sprint(isolation, "/", a), func(t *testing.T) {
				pool := newPool(t, url, 64, func(c *pgxpool.Config) {
					c.MinConns = 64
					c.ConnConfig.RuntimeParams["default_transaction_isolation"] = isolation
				})
				b := postgres.New(pool, newTable(t, pool)...)
				const count = 300
				limits := []backend.Limit{{Count: count, Period: 24 * time.Hour, Algorithm: a}, hourly}
				var admitted, refused atomic.Int64
				var wg sync.WaitGroup
				for range 64 {
					wg.Add(1)
					go func() {
						defer wg.Done()
						for range 10 {
							res, err := take(b, "k", limits[:1+int(a)%2]...)
							if !assert.NoError(t, err) {
								return
							}
							if res.Allowed {
								admitted.Add(1)
							} else {
								refused.Add(1)
							}
						}
					}()
				}
				wg.Wait()
				assert.Equal(t, int64(count), admitted.Load())
				assert.Equal(t, int64(640-count), refused.Load())
				if isolation == "read committed" {
					assert.False(t, postgres.Isolates(b))
				}
			})
		}
	}
}

// Takes, refunds, resets and sweeps of the same few keys at once never deadlock, and none fails.
func TestNoDeadlocks(t *testing.T) {
	pool := newPool(t, serverURL(t), 16, nil)
	b := postgres.New(pool, newTable(t, pool, postgres.WithSweep(10))...)
	limits := []backend.Limit{{Count: 50, Period: 20 * time.Millisecond}, {Count: 40, Period: 30 * time.Millisecond, Algorithm: backend.SlidingLog}}
	ctx := context.Background()
	stop := callers(32, func(i int) {
		key := fmt.Sprint(i % 3)
		var err error
		switch i % 8 {
		case 0:
			err = b.Reset(ctx, key)
		case 1:
			_, err = b.Sweep(ctx)
		default:
			var res backend.Result
			if res, err = b.Take(ctx, key, 2, limits[:1+i%2]...); err == nil && i%2 == 0 {
				err = b.Settle(ctx, key, res, 2, 0, limits[:1]...)
			}
		}
		if err != nil {
			t.Error(err)
			time.Sleep(time.Second)
		}
	})
	time.Sleep(time.Second)
	stop()
}

// Fallback decides while the database is gone, and the database again when it is back.
func TestFallback(t *testing.T) {
	server := testserver.Postgres(t)
	pool := newPool(t, server.URL(), 4, nil)
	b := backend.Fallback(postgres.New(pool, newTable(t, pool, postgres.WithTimeout(time.Second))...), memory.New())
	source := func() backend.Source {
		res, err := take(b, "k", hourly)
		require.NoError(t, err)
		require.True(t, res.Allowed)
		return res.Source
	}
	require.Equal(t, backend.SourceStore, source())
	server.Kill()
	for range 10 {
		require.Equal(t, backend.SourceFallback, source())
	}
	require.NoError(t, server.Restart())
	require.Eventually(t, func() bool { return source() == backend.SourceStore }, soon, 20*time.Millisecond)
}

// statements counts what a pool sends.
type statements struct{ n atomic.Int64 }

func (s *statements) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	s.n.Add(1)
	return ctx
}

func (s *statements) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// Lease serves a hot key from a few decisions, and two instances never admit more than the limit.
func TestLease(t *testing.T) {
	sent := &statements{}
	pool := newPool(t, serverURL(t), 8, func(c *pgxpool.Config) { c.ConnConfig.Tracer = sent })
	opts := newTable(t, pool, postgres.WithSweep(0))
	const count = 5000
	limit := backend.Limit{Count: count, Period: time.Hour, Algorithm: backend.FixedWindow}
	instances := []backend.Backend{backend.Lease(postgres.New(pool, opts...), 100), backend.Lease(postgres.New(pool, opts...), 100)}
	before := sent.n.Load()
	var admitted, asked atomic.Int64
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range 500 {
				res, err := take(instances[i%2], "hot", limit)
				if !assert.NoError(t, err) {
					return
				}
				asked.Add(1)
				if res.Allowed {
					admitted.Add(1)
				}
			}
		}()
	}
	wg.Wait()
	statements := sent.n.Load() - before
	t.Logf("%d decisions, %d statements", asked.Load(), statements)
	assert.LessOrEqual(t, admitted.Load(), int64(count))
	assert.Greater(t, admitted.Load(), int64(count-300), "all but what is leased")
	assert.Less(t, statements, asked.Load()/2)
}

// A decision is one statement: for a new key, an old one, a refusal, a limit that changed, several
// limits, and a look.
func TestOneStatement(t *testing.T) {
	sent := &statements{}
	pool := newPool(t, serverURL(t), 1, func(c *pgxpool.Config) { c.ConnConfig.Tracer = sent })
	b := postgres.New(pool, newTable(t, pool, postgres.WithSweep(0))...)
	for _, a := range []backend.Algorithm{backend.TokenBucket, backend.SlidingWindow, backend.SlidingLog, backend.FixedWindow} {
		limit := backend.Limit{Count: 7, Period: time.Hour, Algorithm: a}
		for i, step := range []struct {
			cost    int64
			allowed bool
			limits  []backend.Limit
		}{
			{0, true, []backend.Limit{limit}},
			{3, true, []backend.Limit{limit}},
			{4, true, []backend.Limit{limit}},
			{1, false, []backend.Limit{limit}},
			{1, false, []backend.Limit{limit}},
			{0, false, []backend.Limit{limit}},
			{8, false, []backend.Limit{limit}},
			{1, false, []backend.Limit{limit, hourly}},
			{3, true, []backend.Limit{{Count: 14, Period: time.Hour, Algorithm: a}, hourly, hourly}},
		} {
			before := sent.n.Load()
			res, err := b.Take(t.Context(), a.String(), step.cost, step.limits...)
			require.NoError(t, err)
			require.Equal(t, step.allowed, res.Allowed, "%v, step %d", a, i)
			if i < 8 { // the last is of a key that was refused a moment ago: a look, and the charge
				require.Equal(t, int64(1), sent.n.Load()-before, "%v, step %d", a, i)
			}
		}
	}
}

// A key that is refused again and again is not written, nor is its row locked.
func TestRefusalsWriteNothing(t *testing.T) {
	pool := newPool(t, serverURL(t), 1, nil)
	b := postgres.New(pool, newTable(t, pool, postgres.WithSweep(0))...)
	for i, limit := range []backend.Limit{hourly, hourly.WithAlgorithm(backend.SlidingLog)} {
		limit.Count = 1
		key := fmt.Sprint(i)
		for range 2 {
			_, err := take(b, key, limit)
			require.NoError(t, err)
		}
		row := func() (version string) {
			err := pool.QueryRow(t.Context(), "SELECT xmin::text || ' ' || xmax::text || ' ' || ctid::text FROM "+postgres.Table(b)+" WHERE key = $1", postgres.StateKey(key)).Scan(&version)
			require.NoError(t, err)
			return version
		}
		before := row()
		for range 10 {
			res, err := take(b, key, limit)
			require.NoError(t, err)
			require.False(t, res.Allowed)
		}
		require.Equal(t, before, row())
	}
}

// What other versions of the limits refuse, or look at, leaves a row as it is, whatever they are.
func TestOtherVersionsWriteNothing(t *testing.T) {
	pool := newPool(t, serverURL(t), 1, nil)
	b := postgres.New(pool, newTable(t, pool, postgres.WithSweep(0))...)
	table := rows{t, pool, postgres.Table(b)}
	for _, a := range everyAlgorithm {
		key, limit := a.String(), backend.Limit{Count: 100, Period: time.Hour, Algorithm: a}
		res, err := b.Take(t.Context(), key, 60, limit, hourly)
		require.NoError(t, err)
		require.Equal(t, int64(40), res.Remaining)
		written := table.get(key)
		small := limit
		small.Count = 10
		for _, other := range [][]backend.Limit{
			{small}, {small.WithAlgorithm((a + 1) % 4)}, {hourly, small}, {limit, {Period: time.Hour}}, {backend.Unlimited(), small},
			{small.WithAlgorithm((a + 1) % 4), hourly},
		} {
			for range 2 { // by a charge, and by a look
				res, err := take(b, key, other...)
				require.NoError(t, err)
				require.False(t, res.Allowed, "%v", other)
				require.Zero(t, res.Remaining, "%v", other)
				require.Equal(t, written, table.get(key), "%v", other)
			}
			_, err := b.Take(t.Context(), key, 0, other...)
			require.NoError(t, err)
			require.Equal(t, written, table.get(key), "%v", other)
		}
		res, err = b.Take(t.Context(), key, 40, limit, hourly)
		require.NoError(t, err)
		require.True(t, res.Allowed)
	}
}

// An error of the server in the middle of a decision leaves a connection that works.
func TestConnectionAfterAnError(t *testing.T) {
	pool := newPool(t, serverURL(t), 1, func(c *pgxpool.Config) {
		c.ConnConfig.RuntimeParams["default_transaction_isolation"] = "serializable"
	})
	b := postgres.New(pool, newTable(t, pool)...)
	missing := postgres.New(pool, postgres.WithTable("missing"))
	recovers(t, b)
	var pid, after uint32
	require.NoError(t, pool.QueryRow(t.Context(), "SELECT pg_backend_pid()").Scan(&pid))
	for range 3 {
		_, err := take(missing, "k", hourly)
		var answer *pgconn.PgError
		require.ErrorAs(t, err, &answer)
	}
	recovers(t, b)
	require.NoError(t, pool.QueryRow(t.Context(), "SELECT pg_backend_pid()").Scan(&after))
	require.Equal(t, pid, after)
}
