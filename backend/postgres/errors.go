package postgres

import (
	"errors"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/ginlimit/ginlimit/internal/storeerr"
)

// What kept PostgreSQL from deciding, for errors.Is and, in a word, for [backend.ErrorKind]. Each
// stands beside [backend.ErrUnavailable] in the chain of an error. Those that other backends have
// too are the same values there. A server that did not answer in time is context.DeadlineExceeded;
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

	ErrNotMigrated = storeerr.New("not_migrated", "the table or a function of this version is missing",
		"call postgres.Migrate when the application starts, with the same schema and table")
	ErrPoolExhausted = storeerr.New("pool_exhausted", "the pool had no connection free in time",
		"give limits a pool of their own, or raise pool_max_conns")
	ErrPoolClosed = storeerr.New("pool_closed", "the pool is closed", "close the pool after the last request was served")
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

// remedies say what to do in words of PostgreSQL, where those that go with the kind are too
// general.
var remedies = map[string]string{
	"42501": "grant the role USAGE on the schema, and SELECT, INSERT, UPDATE and DELETE on the table",
	"25006": "connect to the primary, and see that default_transaction_read_only is off",
	"0A000": "connect to the primary",
}

// codeOf returns the SQLSTATE of a server's answer, "" if err is none.
func codeOf(err error) string {
	var answer *pgconn.PgError
	if errors.As(err, &answer) {
		return answer.Code
	}
	return ""
}

// fail returns the error of an operation. The log says so if the server, or the pool, refuses: what
// does not answer is the matter of the gate.
func (b *Backend) fail(op string, cause error) error {
	err := unavailable(op, cause)
	if answered(cause) || errors.Is(cause, ErrPoolExhausted) || errors.Is(cause, ErrPoolClosed) {
		b.failing.Failed(err, remedies[codeOf(cause)])
	}
	return err
}

func unavailable(op string, cause error) error {
	return storeerr.Unavailable("postgres: "+op, kinds[codeOf(cause)], cause)
}
