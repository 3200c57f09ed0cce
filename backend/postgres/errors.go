package postgres

import (
	"errors"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/puddle/v2"

	"github.com/ginlimit/ginlimit/internal/storeerr"
)

// What kept PostgreSQL from deciding, for errors.Is and, in a word, for [backend.ErrorKind]. Each stands beside
// [backend.ErrUnavailable] in the chain of an error. A server that did not answer in time is context.DeadlineExceeded;
// one that cannot be reached is a *pgconn.ConnectError.
var (
	ErrBreakerOpen        = storeerr.ErrBreakerOpen
	ErrBusy               = storeerr.ErrBusy // its statement_timeout or lock_timeout is over
	ErrDenied             = storeerr.ErrDenied
	ErrDisk               = storeerr.ErrDisk
	ErrForeign            = storeerr.ErrForeign
	ErrOutOfMemory        = storeerr.ErrOutOfMemory
	ErrReadOnly           = storeerr.ErrReadOnly
	ErrStarting           = storeerr.ErrStarting
	ErrTooManyConnections = storeerr.ErrTooManyConnections

	ErrNotMigrated   = storeerr.New("not_migrated", "the table or a function of this version is missing", "call postgres.Migrate when the application starts, with the same schema and table")
	ErrPoolExhausted = storeerr.New("pool_exhausted", "the pool had no connection free in time", "give limits a pool of their own, or raise pool_max_conns")
)

// kinds tells the answers of a server apart, by SQLSTATE.
var kinds = map[string]error{
	"42P01": ErrNotMigrated, "42883": ErrNotMigrated, "3F000": ErrNotMigrated, "42703": ErrNotMigrated,
	"25006": ErrReadOnly, "0A000": ErrReadOnly, // an UNLOGGED table on a standby, of which there is nothing to read
	"53300": ErrTooManyConnections,
	"57P01": ErrStarting, "57P02": ErrStarting, "57P03": ErrStarting,
	"28000": ErrDenied, "28P01": ErrDenied, "42501": ErrDenied,
	"55P03": ErrBusy, "57014": ErrBusy,
	"53000": ErrOutOfMemory, "53200": ErrOutOfMemory, "53100": ErrDisk, "58030": ErrDisk,
	"22003": ErrForeign, "22012": ErrForeign, "2202E": ErrForeign, "22P02": ErrForeign, "22004": ErrForeign,
}

func kindOfCode(code string) error { return kinds[code] }

// serialization reports whether the server undid a transaction because of another one.
func serialization(err error) bool {
	var answer *pgconn.PgError
	return errors.As(err, &answer) && answer.Code == "40001"
}

func poolClosed(err error) bool { return errors.Is(err, puddle.ErrClosedPool) }

func unavailable(op string, cause error) error {
	var reason error
	if answer := (*pgconn.PgError)(nil); errors.As(cause, &answer) {
		reason = kindOfCode(answer.Code)
	}
	return storeerr.Unavailable("postgres: "+op, reason, cause)
}
