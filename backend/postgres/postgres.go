// Package postgres is the backend that many processes share where there is no Redis: state lives in one table of a
// PostgreSQL 14 or newer, and is reached through pgx. One decision is one statement and one round trip, which locks the
// row of its key and no other, and goes by the database's clock.
//
// [Migrate] makes the table, and [New] a [Backend] on the pool that the application has already. What a decision costs
// is a round trip and a row's new version: backend.Lease is what makes that bearable for keys that are hot.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/algorithm"
	"github.com/ginlimit/ginlimit/internal/gate"
	"github.com/ginlimit/ginlimit/internal/plans"
	"github.com/ginlimit/ginlimit/internal/storekey"
)

// Backend is a [backend.Backend] on PostgreSQL. Every error of its methods that comes from the database has
// [backend.ErrUnavailable] in its chain, and no error holds a password. It retries nothing that could be charged twice.
type Backend struct {
	config
	pool    *pgxpool.Pool
	sql     *statements
	gate    *gate.Gate
	addr    string
	plans   plans.Cache[plan]
	refused refusals
	sweeper sweeper
	// isolate is set once the server has shown that its transactions are stricter than READ COMMITTED by default.
	isolate atomic.Bool

	// clock, if set, stands for the database's, and slow for a key whose first try always fails: for the tests of this
	// package.
	clock func() (micros int64)
	slow  bool
}

var _ backend.Backend = (*Backend)(nil)

// New returns a Backend that uses pool and never closes it. It panics if an option is not valid, or the pool is nil. It
// asks the database nothing: [Migrate] has to have made the table before the first decision.
//
// Decisions share the connections of the pool with whatever else uses it, and wait for one as long as a decision may
// take; an application whose own queries can hold all of them should give its limits a pool of their own.
func New(pool *pgxpool.Pool, opts ...Option) *Backend {
	c := defaults()
	err := c.apply(opts)
	if err == nil && pool == nil {
		err = errors.New("ginlimit: postgres.New: the pool is nil; use pgxpool.New to make one")
	}
	if err != nil {
		panic(err)
	}
	conf := pool.Config()
	b := &Backend{config: c, pool: pool, sql: newStatements(c.names), addr: address(conf.ConnConfig)}
	b.gate = gate.New(int(conf.MaxConns), c.timeout, gate.Log(b.log, "PostgreSQL", b.addr))
	b.refused.seed = maphash.MakeSeed()
	b.sweeper.page.Store(randomPage())
	return b
}

func address(c *pgx.ConnConfig) string {
	if strings.HasPrefix(c.Host, "/") {
		return c.Host
	}
	return net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port)))
}

// Breakers says of the server, by its address, whether calls fail at once because it did not answer of late.
func (b *Backend) Breakers() map[string]bool { return map[string]bool{b.addr: b.gate.Open()} }

// maxKey is the longest key of a row, in bytes.
const maxKey = 200

func stateKey(key string) string {
	var buf [maxKey + 8]byte
	return string(storekey.Append(buf[:0], key, maxKey))
}

// Take implements [backend.Backend]. It is one statement. A key that was refused a moment ago is only read, which locks
// and writes nothing; should it have room by now, a second statement charges it.
func (b *Backend) Take(ctx context.Context, key string, cost int64, limits ...backend.Limit) (backend.Result, error) {
	if err := algorithm.CheckTake(cost, limits); err != nil {
		return backend.Result{}, err
	}
	p, err := b.plans.Of(limits, (*plan).is, newPlan)
	if err != nil {
		return backend.Result{}, err
	}
	if err := ctx.Err(); err != nil {
		return backend.Result{}, unavailable("take", err)
	}
	ctx, ours := b.gate.Limit(ctx)
	c := call{Backend: b, ctx: ctx, ours: ours, plan: p, key: stateKey(key), cost: min(cost, backend.MaxCount+1)} // sums fit
	res, decided, err := c.take()
	if err != nil {
		return backend.Result{}, unavailable("take", err)
	}
	res.Limit = limits[decided]
	b.sweepNow()
	return res, nil
}

// call is one Take.
type call struct {
	*Backend
	ctx  context.Context
	ours bool // the context is the gate's
	plan *plan
	key  string
	cost int64
}

func (c *call) take() (res backend.Result, decided int, err error) {
	mark := c.refused.mark(c.key)
	if (c.cost == 0 || c.refused.recently(mark)) && !c.plan.logs {
		var write bool
		res, decided, write, err = c.look()
		if err != nil || c.cost == 0 || !res.Allowed && !write {
			return res, decided, err
		}
	}
	sure := false
	if args := c.quickArgs(); args != nil {
		res, decided, sure, err = c.charge(c.sql.take(shape{c.plan.shape, c.clock != nil}), args)
	}
	if !sure && err == nil {
		res, decided, sure, err = c.charge(c.sql.function, []any{c.key, c.plan.text, c.cost, c.now()})
		if !sure && err == nil {
			err = fmt.Errorf("the database refused what it has room for: %+v", res)
		}
	}
	if err == nil && c.cost > 0 {
		c.refused.note(mark, &res)
	}
	return res, decided, err
}

// look decides by what the row says, without a lock.
func (c *call) look() (res backend.Result, decided int, write bool, err error) {
	var few [inline]algorithm.Slot
	a := answer{slots: few[:0]}
	err = c.query(c.ctx, c.ours, c.sql.look, []any{c.key, c.now()}, func(rows pgx.Rows) error { return a.readRow(rows, c.plan) })
	if err != nil {
		return res, 0, false, err
	}
	decided, next := algorithm.Take(a.slots, c.plan.rules, a.now, c.cost, &res)
	return res, decided, next != nil, nil
}

// quickArgs returns the arguments of the shape's statement, nil if that is not to be asked.
func (c *call) quickArgs() []any {
	if c.plan.shape == "" || c.cost == 0 || c.slow {
		return nil
	}
	more, ok := c.plan.args(c.cost)
	if !ok {
		return nil
	}
	args := append(append(make([]any, 0, 4+len(more)), c.key, c.plan.text, c.cost), more...)
	if c.clock != nil {
		args = append(args, c.clock())
	}
	return args
}

// charge decides where the row is locked. It is sure unless the statement had no room for what the Go has room for, or
// what has to be written: then it has changed nothing.
func (c *call) charge(text string, args []any) (res backend.Result, decided int, sure bool, err error) {
	var few [inline]algorithm.Slot
	a := answer{slots: few[:0]}
	err = c.query(c.ctx, c.ours, text, args, func(rows pgx.Rows) error { return a.readReply(rows, c.plan) })
	if err != nil {
		return res, 0, false, err
	}
	if a.charged {
		decided = algorithm.Admitted(a.slots, c.plan.rules, a.now, &res)
		return res, decided, true, nil
	}
	decided, next := algorithm.Take(a.slots, c.plan.rules, a.now, c.cost, &res)
	return res, decided, c.cost == 0 || !res.Allowed && (!a.tried || next == nil), nil
}

// now returns the argument that stands for the database's clock in a test, else nil.
func (b *Backend) now() any {
	if b.clock == nil {
		return nil
	}
	return b.clock()
}

// Refund implements [backend.Backend].
func (b *Backend) Refund(ctx context.Context, key string, charge backend.Result, cost int64, limits ...backend.Limit) error {
	kinds := make([]int64, len(limits))
	any := false
	for i := range limits {
		kinds[i] = -2 // of no slot
		if !stateless(&limits[i]) && limits[i].Algorithm <= backend.FixedWindow {
			kinds[i], any = int64(limits[i].Algorithm), true
		}
	}
	if !charge.Allowed || cost <= 0 || !any {
		return nil
	}
	ctx, ours := b.gate.Limit(ctx)
	name := stateKey(key)
	var given int64
	err := b.query(ctx, ours, b.sql.refund, []interface{}{name, charge.At.UnixMicro(), kinds, cost, b.now()}, func(rows pgx.Rows) error {
		return rows.Scan(&given)
	})
	if err == nil && given < 0 {
		err = ErrForeign
	}
	if err != nil {
		return unavailable("refund", err)
	}
	b.refused.forget(b.refused.mark(name))
	return nil
}

// Reset implements [backend.Backend]. It deletes one row.
func (b *Backend) Reset(ctx context.Context, key string) error {
	ctx, ours := b.gate.Limit(ctx)
	name := stateKey(key)
	if err := b.query(ctx, ours, b.sql.reset, []any{name}, nil); err != nil {
		return unavailable("reset", err)
	}
	b.refused.forget(b.refused.mark(name))
	return nil
}

// query sends one statement, and reads the row that it answers with, if read is not nil. It is sent again only if the
// database has said that it was undone.
func (b *Backend) query(ctx context.Context, ours bool, text string, args []any, read func(pgx.Rows) error) error {
	if err := b.gate.Enter(ctx); err != nil {
		if gaveUp(err) && allAcquired(b.pool.Stat()) {
			return fmt.Errorf("%w: %w", ErrPoolExhausted, err)
		}
		return err
	}
	as := gate.Unknown // if the driver panics
	defer func() { b.gate.Leave(as) }()
	isolate := b.isolate.Load()
	err := b.send(ctx, isolate, text, args, read)
	if !isolate && serialization(err) {
		b.isolate.Store(true)
		err = b.send(ctx, true, text, args, read)
	}
	as = ended(ctx, err, ours)
	return b.gate.Cause(ctx, err)
}

// allAcquired reports whether every connection that a pool may have is there and in use.
func allAcquired(s *pgxpool.Stat) bool { return s.AcquiredConns() == s.MaxConns() }

func (b *Backend) send(ctx context.Context, isolate bool, text string, args []any, read func(pgx.Rows) error) error {
	conn, err := b.pool.Acquire(ctx)
	if err != nil {
		if gaveUp(err) && b.pool.Stat().ConstructingConns() == 0 {
			return fmt.Errorf("%w: %w", ErrPoolExhausted, err)
		}
		return err
	}
	defer conn.Release()
	if isolate {
		return isolated(ctx, conn.Conn(), text, args, read)
	}
	rows, err := conn.Query(ctx, text, args...)
	if err != nil {
		return err
	}
	return readOne(rows, read)
}

// readOne reads one row, and closes rows.
func readOne(rows pgx.Rows, read func(pgx.Rows) error) error {
	defer rows.Close()
	var bad error
	if rows.Next() && read != nil {
		bad = read(rows)
	}
	rows.Close()
	if err := rows.Err(); err != nil {
		return err
	}
	return bad
}

// isolated sends a statement in a READ COMMITTED transaction of its own, whatever the default is, in one round trip.
// Under stricter levels two decisions for one key at a time end in an error that says that one was undone.
func isolated(ctx context.Context, conn *pgx.Conn, text string, args []any, read func(pgx.Rows) error) error {
	batch := &pgx.Batch{}
	batch.Queue("BEGIN ISOLATION LEVEL READ COMMITTED")
	batch.Queue(text, args...)
	batch.Queue("COMMIT")
	answers := conn.SendBatch(ctx, batch)
	_, err := answers.Exec()
	if err == nil {
		var rows pgx.Rows
		if rows, err = answers.Query(); err == nil {
			err = readOne(rows, read)
		}
	}
	if err == nil {
		_, err = answers.Exec() // the cost is charged if this is
	}
	if closed := answers.Close(); err == nil {
		err = closed
	}
	if !conn.IsClosed() && conn.PgConn().TxStatus() != 'I' {
		_, _ = conn.Exec(ctx, "ROLLBACK", pgx.QueryExecModeSimpleProtocol) // or else the pool closes the connection
	}
	return err
}

// ended tells the gate what err says about the server: whatever it answers shows that it is there, except that it takes
// no connections.
func ended(ctx context.Context, err error, ours bool) gate.End {
	var answer *pgconn.PgError
	switch {
	case err == nil:
		return gate.Answered
	case errors.As(err, &answer):
		if k := kindOfCode(answer.Code); errors.Is(k, ErrTooManyConnections) || errors.Is(k, ErrStarting) {
			return gate.Failed
		}
		return gate.Answered
	case errors.Is(err, ErrForeign):
		return gate.Answered
	case errors.Is(err, ErrPoolExhausted), gaveUp(err) && !ours, poolClosed(err):
		return gate.Unknown
	case gaveUp(err) && ctx.Err() != nil:
		return gate.Late
	default:
		return gate.Failed
	}
}

// gaveUp reports whether err is the end of a context.
func gaveUp(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// refusals remembers which keys were refused a moment ago, each in the one place that its hash has: only to choose how
// to ask the database, which decides.
type refusals struct {
	seed   maphash.Seed
	places [1 << 15]atomic.Uint64 // a part of the hash, and until when, in units of 4 ms since started
}

var started = time.Now()

// maxNoted is how long a refusal is remembered at most: longer ones are noted anew.
const maxNoted = time.Minute

func ticks(d time.Duration) uint64 { return uint64(d.Milliseconds()/4) & (1<<32 - 1) }

func (r *refusals) mark(name string) uint64 { return maphash.String(r.seed, name) }

func (r *refusals) place(mark uint64) *atomic.Uint64 { return &r.places[mark%uint64(len(r.places))] }

func (r *refusals) recently(mark uint64) bool {
	noted := r.place(mark).Load()
	return noted != 0 && noted>>32 == mark>>32 && noted&(1<<32-1) > ticks(time.Since(started))
}

func (r *refusals) note(mark uint64, res *backend.Result) {
	if res.Allowed {
		r.forget(mark)
		return
	}
	wait := maxNoted
	if res.RetryAfter >= 0 {
		wait = min(wait, res.RetryAfter)
	}
	r.place(mark).Store(mark>>32<<32 | ticks(time.Since(started)+wait))
}

func (r *refusals) forget(mark uint64) {
	if place := r.place(mark); place.Load()>>32 == mark>>32 {
		place.Store(0)
	}
}
