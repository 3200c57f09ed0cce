package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/puddle/v2"

	"github.com/ginlimit/ginlimit/internal/gate"
)

// query sends one statement, and reads the row that it answers with, if read is not nil.
func (b *Backend) query(ctx context.Context, text string, args []any, read func(pgx.Rows) error) (err error) {
	if err := b.gate.Enter(ctx); err != nil {
		if gaveUp(err) && allAcquired(b.pool.Stat()) {
			return fmt.Errorf("%w: %w", ErrPoolExhausted, err)
		}
		return err
	}
	as := gate.Unknown // if the driver panics
	defer func() { b.gate.Leave(ctx, as, err) }()
	err = b.sendAgain(ctx, text, args, read)
	if as = ended(ctx, err); as == gate.Unknown && errors.Is(ctx.Err(), gate.ErrOpen) {
		err = gate.ErrOpen // the driver does not say so
	}
	return err
}

// sendAgain sends a statement, and once more only if the database has said that it was undone
// because of another one.
func (b *Backend) sendAgain(ctx context.Context, text string, args []any, read func(pgx.Rows) error) error {
	isolate := b.isolate.Load()
	err := b.send(ctx, isolate, text, args, read)
	if !isolate && codeOf(err) == "40001" {
		b.isolate.Store(true)
		err = b.send(ctx, true, text, args, read)
	}
	return err
}

// allAcquired reports whether every connection that a pool may have is there and in use.
func allAcquired(s *pgxpool.Stat) bool { return s.AcquiredConns() == s.MaxConns() }

func (b *Backend) send(ctx context.Context, isolate bool, text string, args []any, read func(pgx.Rows) error) error {
	conn, err := b.pool.Acquire(ctx)
	if err != nil {
		switch {
		case gaveUp(err) && b.pool.Stat().ConstructingConns() == 0:
			return fmt.Errorf("%w: %w", ErrPoolExhausted, err)
		case errors.Is(err, puddle.ErrClosedPool):
			return fmt.Errorf("%w: %w", ErrPoolClosed, err)
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

// isolated sends a statement in a READ COMMITTED transaction of its own, whatever the default is,
// in one round trip. Under stricter levels two decisions for one key at a time end in an error that
// says that one was undone.
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
		_, _ = conn.Exec(ctx, "ROLLBACK", pgx.QueryExecModeSimpleProtocol) // otherwise the pool closes the connection
	}
	return err
}

// ended tells the gate what err says about the server: whatever it answers shows that it is there,
// except that it takes no connections.
func ended(ctx context.Context, err error) gate.End {
	switch {
	case err == nil, answered(err):
		return gate.Answered
	case errors.Is(err, ErrPoolExhausted), errors.Is(err, ErrPoolClosed), errors.Is(ctx.Err(), gate.ErrOpen):
		return gate.Unknown
	case gaveUp(err) && ctx.Err() != nil:
		return gate.Late
	default:
		return gate.Failed
	}
}

// answered reports whether err is the answer of a server that takes connections.
func answered(err error) bool {
	if code := codeOf(err); code != "" {
		kind := kinds[code]
		return !errors.Is(kind, ErrTooManyConnections) && !errors.Is(kind, ErrStarting)
	}
	return errors.Is(err, ErrForeign)
}

// gaveUp reports whether err is the end of a context.
func gaveUp(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}
