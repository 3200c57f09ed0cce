package postgres

import (
	"errors"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/puddle/v2"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/internal/gate"
)

// What kept PostgreSQL from deciding, for errors.Is and, in a word, for [backend.ErrorKind]. Each stands beside
// [backend.ErrUnavailable] in the chain of an error. A server that did not answer in time is context.DeadlineExceeded;
// one that cannot be reached is a *pgconn.ConnectError.
var (
	ErrNotMigrated        = gate.NewReason("not_migrated", "the table or a function of this version is missing; call postgres.Migrate when the application starts, with the same schema and table")
	ErrReadOnly           = gate.NewReason("read_only", "the server or the session is read-only, such as a standby; connect to the primary")
	ErrTooManyConnections = gate.NewReason("too_many_connections", "the server has no connection left; lower pool_max_conns or raise max_connections")
	ErrPoolExhausted      = gate.NewReason("pool_exhausted", "the pool had no connection free in time; raise pool_max_conns, or give limits a pool of their own")
	ErrStarting           = gate.NewReason("starting", "the server is starting or stopping")
	ErrDenied             = gate.NewReason("denied", "the server denies access; check user, password and rights")
	ErrTimeout            = gate.NewReason("server_timeout", "the server gave up by its statement_timeout or lock_timeout")
	ErrOutOfSpace         = gate.NewReason("out_of_space", "the server is out of memory or disk")
	ErrForeign            = gate.NewReason("foreign_value", "the row holds a state that is not ours")
	ErrBreakerOpen        = gate.ErrOpen
)

// kinds tells the answers of a server apart, by SQLSTATE.
var kinds = map[string]error{
	"42P01": ErrNotMigrated, "42883": ErrNotMigrated, "3F000": ErrNotMigrated, "42703": ErrNotMigrated,
	"25006": ErrReadOnly, "0A000": ErrReadOnly, // an UNLOGGED table on a standby, of which there is nothing to read
	"53300": ErrTooManyConnections,
	"57P01": ErrStarting, "57P02": ErrStarting, "57P03": ErrStarting,
	"28000": ErrDenied, "28P01": ErrDenied, "42501": ErrDenied,
	"55P03": ErrTimeout, "57014": ErrTimeout,
	"53000": ErrOutOfSpace, "53100": ErrOutOfSpace, "53200": ErrOutOfSpace,
	"22003": ErrForeign, "22012": ErrForeign, "2202E": ErrForeign, "22P02": ErrForeign, "22004": ErrForeign,
}

func kindOfCode(code string) error { return kinds[code] }

// serialization reports whether the server undid a transaction because of another one.
func serialization(err error) bool {
	var answer *pgconn.PgError
	return errors.As(err, &answer) && answer.Code == "40001"
}

func poolClosed(err error) bool { return errors.Is(err, puddle.ErrClosedPool) }

// storeError is an error of the store: [backend.ErrUnavailable], what kind it is, and its cause.
type storeError struct {
	op          string
	kind, cause error
}

func unavailable(op string, cause error) error {
	e := &storeError{op: op, cause: cause}
	var answer *pgconn.PgError
	if errors.As(cause, &answer) {
		e.kind = kindOfCode(answer.Code)
	}
	return e
}

func (e *storeError) Error() string {
	text := "ginlimit: postgres: " + e.op + ": "
	if e.kind != nil {
		text += e.kind.Error() + ": "
	}
	return text + e.cause.Error()
}

func (e *storeError) Unwrap() []error {
	if e.kind == nil {
		return []error{backend.ErrUnavailable, e.cause}
	}
	return []error{backend.ErrUnavailable, e.kind, e.cause}
}
