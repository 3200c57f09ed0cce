// Package postgres is the backend that many processes share where there is no Redis: state lives in
// one table of a PostgreSQL 14 or newer, and is reached through pgx. One decision is one statement
// and one round trip, which locks the row of its key and no other, and goes by the database's
// clock.
//
// [Migrate] makes the table, and [New] a [Backend] on a pool, which limits should not share with
// the application's queries. What a decision costs is a round trip and a row's new version:
// backend.Lease is what makes that bearable for keys that are hot.
package postgres

import (
	"context"
	"errors"
	"hash/maphash"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/algorithm"
	"github.com/ginlimit/ginlimit/internal/gate"
	"github.com/ginlimit/ginlimit/internal/plans"
	"github.com/ginlimit/ginlimit/internal/storekey"
	"github.com/ginlimit/ginlimit/internal/storelog"
)

// Backend is a [backend.Backend] on PostgreSQL. Every error of its methods that comes from the
// database has [backend.ErrUnavailable] in its chain, and no error holds a password. It retries
// nothing that could be charged twice.
type Backend struct {
	config
	pool    *pgxpool.Pool
	sql     *statements
	gate    *gate.Gate
	addr    string
	failing *storelog.Log
	instead storelog.Decider // where the database does not decide
	plans   plans.Cache[plan]
	refused refusals
	sweeper sweeper
	// isolate is set once the server has shown that its transactions are stricter than READ
	// COMMITTED by default.
	isolate atomic.Bool
	ahead   atomic.Int64 // µs that the database's clock is ahead, as far as calendars have asked

	// clock, if set, stands for the database's, client for that of this process, and slow for a key
	// whose first try always fails: for the tests of this package.
	clock, client func() (micros int64)
	slow          bool
}

var _ interface {
	backend.Backend
	backend.Renewer
	backend.Banner
} = (*Backend)(nil)

// New returns a Backend that uses pool and never closes it. It panics if an option is nil or not
// valid, or the pool is nil. It asks the database nothing: [Migrate] has to have made the table
// before the first decision.
//
// Give limits a pool of their own. A decision waits for a free connection as long as it may take at
// all, and fails with [ErrPoolExhausted] if there is none. On a pool that other queries use, a
// caller that makes these queries slow takes all connections, and with them every limit: under
// FailOpen, the default, all requests pass for as long as the pool is full. Under FailClosed they
// get a 503 instead. backend.Fallback limits them in memory.
//
//	limits, err := pgxpool.NewWithConfig(ctx, app.Config()) // the same server as the pool app, and other connections
func New(pool *pgxpool.Pool, opts ...Option) *Backend {
	c := defaults()
	err := c.apply("postgres.New", opts)
	if err == nil && pool == nil {
		err = errors.New("ginlimit: postgres.New: the pool is nil; use pgxpool.New to make one")
	}
	if err != nil {
		panic(err)
	}
	conf := pool.Config()
	b := &Backend{config: c, pool: pool, sql: newStatements(c.names), addr: address(conf.ConnConfig)}
	server := b.addr + "/" + conf.ConnConfig.Database
	log := &gate.Log{Logger: b.log, Store: "PostgreSQL", Server: func() string { return server }, Timeout: c.timeout, Option: "postgres.WithTimeout", Meanwhile: b.instead.String}
	b.gate = gate.New(int(conf.MaxConns), c.timeout, log.Changed)
	b.failing = storelog.New(b.log, "PostgreSQL", server)
	b.failing.Meanwhile = b.instead.String
	b.refused.seed = maphash.MakeSeed()
	b.sweeper.init(b.log, server)
	return b
}

func address(c *pgx.ConnConfig) string {
	if strings.HasPrefix(c.Host, "/") {
		return c.Host
	}
	return net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port)))
}

// Breakers says of the server, by its address, whether calls fail at once because it did not answer
// of late.
func (b *Backend) Breakers() map[string]bool { return map[string]bool{b.addr: b.gate.Open()} }

// Seconded tells b that a second backend decides where b cannot, which is then what its log says.
// backend.Fallback calls it. It changes no answer, and may be called at any time.
func (b *Backend) Seconded() { b.instead.Second() }

// maxKey is the longest key of a row, in bytes.
const maxKey = 200

func stateKey(key string) string {
	var buf [maxKey + 8]byte
	return string(storekey.Append(buf[:0], key, maxKey))
}

// Take implements [backend.Backend]. It is one statement, or none if no limit keeps a state. A key
// that was refused a moment ago is only read, which locks and writes nothing; should it have room
// by now, a second statement charges it. Under a limit with a ban a refusal is counted, and so
// written. Where this process takes the database's time to be in another window of a calendar, one
// more statement is sent, and the difference is remembered.
//
// The context's deadline and cancellation do not matter: a decision has the time of [WithTimeout].
func (b *Backend) Take(_ context.Context, key string, cost int64, limits ...backend.Limit) (backend.Result, error) {
	if err := algorithm.CheckTake(cost, limits); err != nil {
		return backend.Result{}, err
	}
	p, err := b.plans.Of(limits, (*plan).is, newPlan)
	if err != nil {
		return backend.Result{}, err
	}
	var res backend.Result
	var decided int
	if p.stateless {
		decided, _ = algorithm.Take(nil, p.rules, b.here(), cost, &res)
	} else {
		c := call{Backend: b, ctx: b.gate.Context(), plan: p, key: stateKey(key), cost: min(cost, backend.MaxCount+1)} // sums fit
		if decided, err = c.take(&res); err != nil {
			return backend.Result{}, b.fail("take", err)
		}
		if res.Allowed && cost > 0 {
			b.failing.Worked()
		}
		b.sweepNow()
	}
	res.Limit = limits[decided]
	return res, nil
}

// now returns the argument that stands for the database's clock in a test, otherwise nil.
func (b *Backend) now() any {
	if b.clock == nil {
		return nil
	}
	return b.clock()
}

// here returns the time of a decision that needs no database.
func (b *Backend) here() (micros int64) {
	if b.clock == nil {
		return b.mine()
	}
	return b.clock()
}

// mine returns the time of this process.
func (b *Backend) mine() (micros int64) {
	if b.client == nil {
		return time.Now().UnixMicro()
	}
	return b.client()
}

// there returns about the time of the database.
func (b *Backend) there() (micros int64) { return b.mine() + b.ahead.Load() }

// learn remembers the database's time, which is in other windows of calendars than those that were
// sent. A statement that is sent again with those of that time can only fail if the clock was set
// meanwhile, or has just passed the end of one.
func (b *Backend) learn(now int64, tried int) error {
	const tries = 4
	if tried == tries {
		return errors.New("the database's clock is always in another window of a calendar than it said")
	}
	b.ahead.Store(now - b.mine())
	return nil
}

// Settle implements [backend.Backend]. It is one statement, or none if the cost was right and no
// place in flight is held. As for Take, the context's end does not matter.
func (b *Backend) Settle(_ context.Context, key string, taken backend.Result, cost, actual int64, limits ...backend.Limit) error {
	if err := algorithm.CheckSettle(cost, actual, limits); err != nil {
		return err
	}
	p, err := b.plans.Of(limits, (*plan).is, newPlan)
	held := algorithm.Held(taken, cost, limits)
	if err != nil || !taken.Allowed || cost == actual && held == 0 || !p.keeps {
		return err
	}
	c := call{Backend: b, ctx: b.gate.Context(), plan: p, key: stateKey(key)}
	if err := c.settle(taken.At.UnixMicro(), cost, actual, held); err != nil {
		return b.fail("settle", err)
	}
	b.refused.forget(b.refused.mark(c.key))
	return nil
}

// Renew implements [backend.Renewer]. It is one statement. As for Take, the context's end does not
// matter.
func (b *Backend) Renew(_ context.Context, key string, taken backend.Result, cost int64, limits ...backend.Limit) (backend.Result, error) {
	if err := algorithm.CheckTake(cost, limits); err != nil {
		return taken, err
	}
	p, err := b.plans.Of(limits, (*plan).is, newPlan)
	held := algorithm.Held(taken, cost, limits)
	if err != nil || !taken.Allowed || held == 0 {
		return taken, err
	}
	now := b.here()
	if !p.stateless {
		args := []any{stateKey(key), p.text, taken.At.UnixMicro(), min(2*backend.MaxCount, held), b.now()}
		if err := b.change(b.sql.renew, args, &now); err != nil {
			return taken, b.fail("renew", err)
		}
	}
	taken.At = time.UnixMicro(now)
	return taken, nil
}

// Ban implements [backend.Banner]. It is one statement. As for Take, the context's end does not
// matter.
func (b *Backend) Ban(_ context.Context, key string, d time.Duration) error {
	if err := algorithm.CheckBan(d); err != nil {
		return err
	}
	name := stateKey(key)
	var changed int64
	if err := b.change(b.sql.ban, []any{name, d.Microseconds(), b.now()}, &changed); err != nil {
		return b.fail("ban", err)
	}
	b.refused.forget(b.refused.mark(name))
	return nil
}

// change sends a statement that changes a row, and reads its answer, which is negative if the row
// is not ours.
func (b *Backend) change(text string, args []any, answer *int64) error {
	err := b.query(b.gate.Context(), text, args, func(rows pgx.Rows) error { return rows.Scan(answer) })
	if err == nil && *answer < 0 {
		err = ErrForeign
	}
	return err
}

// Usage implements [backend.Backend]. It is one SELECT. As for Take, the context's end does not
// matter.
func (b *Backend) Usage(_ context.Context, key string, limits ...backend.Limit) ([]backend.Result, error) {
	if err := algorithm.CheckTake(0, limits); err != nil {
		return nil, err
	}
	p, err := b.plans.Of(limits, (*plan).is, newPlan)
	if err != nil {
		return nil, err
	}
	a := answer{now: b.here()}
	if !p.stateless {
		args := []any{stateKey(key), b.now()}
		err = b.query(b.gate.Context(), b.sql.look, args, func(rows pgx.Rows) error { return a.readRow(rows, p) })
		if err != nil {
			return nil, b.fail("usage", err)
		}
	}
	algorithm.Rebase(a.slots, a.base, a.now)
	all := make([]backend.Result, len(limits))
	algorithm.Usage(a.slots, p.rules, a.now, all)
	for i := range all {
		all[i].Limit = limits[i]
	}
	return all, nil
}

// Reset implements [backend.Backend]. It deletes one row. As for Take, the context's end does not
// matter.
func (b *Backend) Reset(_ context.Context, key string) error {
	name := stateKey(key)
	if err := b.query(b.gate.Context(), b.sql.reset, []any{name}, nil); err != nil {
		return b.fail("reset", err)
	}
	b.refused.forget(b.refused.mark(name))
	return nil
}
