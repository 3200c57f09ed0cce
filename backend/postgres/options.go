package postgres

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
)

// DefaultTimeout is the time budget of a decision unless [WithTimeout] says otherwise. A budget
// that is too short opens the door under a flood. FailOpen lets a caller pass whose turn at the
// pool has not come when its time is over, and pgx closes the connection of a statement that was
// given up.
const DefaultTimeout = 500 * time.Millisecond

// DefaultSweep is the number of decisions after which a Backend looks for expired rows, see
// [WithSweep].
const DefaultSweep = 500

// Option changes a default of [New] and [Migrate], which have to be given the same schema and
// table. One that is nil or not valid is refused. It does not act on a Backend that is there.
type Option func(*config) error

type config struct {
	names
	timeout time.Duration
	every   int64
	logged  bool
	logger  *slog.Logger
}

func defaults() config {
	return config{names: newNames("public", "ginlimit"), timeout: DefaultTimeout, every: DefaultSweep}
}

func (c *config) log() *slog.Logger {
	if c.logger == nil {
		return slog.Default()
	}
	return c.logger
}

func (c *config) apply(caller string, opts []Option) error {
	for i, opt := range opts {
		if opt == nil {
			return fmt.Errorf("ginlimit: %s: option %d is nil; leave it out", caller, i+1)
		}
		if err := opt(c); err != nil {
			return err
		}
	}
	return nil
}

// names are those of the objects in the database.
type names struct {
	schema, name string // as given
	table        string // quoted, with the schema
}

func newNames(schema, name string) names {
	return names{schema, name, pgx.Identifier{schema, name}.Sanitize()}
}

// functionsVersion is the version of the functions, which is in their names. Another one has other
// arguments, or returns something else. The table is the same for all.
const functionsVersion = "2"

// function returns the quoted name of a function of this version, which others do not change.
func (n names) function(name string) string {
	return pgx.Identifier{n.schema, n.functionName(name)}.Sanitize()
}

// functionName is function without the schema, not quoted.
func (n names) functionName(name string) string { return n.name + "_" + name + "_v" + functionsVersion }

// versions returns the quoted name of the table that says which version of the schema there is.
func (n names) versions() string { return pgx.Identifier{n.schema, n.name + "_schema"}.Sanitize() }

// words returns what the templates of statements and of the schema call by name, fit to stand in
// SQL: identifiers, names as strings, and a quote that ends at none of them. Each function is there
// under the name that functions.sql gives it.
func (n names) words() map[string]string {
	words := map[string]string{
		"table": n.table, "table_name": literal(n.table),
		"schema": pgx.Identifier{n.schema}.Sanitize(), "schema_name": literal(n.schema),
		"versions": n.versions(),
		"quote":    n.quote(),
	}
	for _, name := range functionNames() {
		words[name] = n.function(name)
	}
	return words
}

// quote returns a dollar quote that neither name contains.
func (n names) quote() string {
	quote := "$ginlimit$"
	for i := 0; strings.Contains(n.schema+n.name, quote); i++ {
		quote = fmt.Sprintf("$ginlimit%d$", i)
	}
	return quote
}

// literal returns text as a string of SQL.
func literal(text string) string {
	return "E'" + strings.NewReplacer("'", "''", `\`, `\\`).Replace(text) + "'"
}

// maxName leaves room for the longest suffix in the 63 bytes of a name.
const maxName = 36

func checkName(option, name string) error {
	if name == "" || len(name) > maxName || !utf8.ValidString(name) || strings.ContainsRune(name, 0) {
		return fmt.Errorf("ginlimit: postgres.%s(%q): use 1 to %d bytes of UTF-8 without NUL", option, name, maxName)
	}
	return nil
}

// WithTable sets the name of the table, with which those of its functions begin too; the default is
// "ginlimit". Applications that share a schema and use the same names for their limiters need
// different tables. It is 1 to 36 bytes, taken as it is: capitals stay capitals.
func WithTable(name string) Option {
	return func(c *config) error {
		c.names = newNames(c.schema, name)
		return checkName("WithTable", name)
	}
}

// WithSchema sets the schema of the table; the default is "public", whatever the search path is.
// [Migrate] makes it if it is missing. It is 1 to 36 bytes, taken as it is.
func WithSchema(name string) Option {
	return func(c *config) error {
		c.names = newNames(name, c.name)
		return checkName("WithSchema", name)
	}
}

// WithTimeout sets the time budget of one decision, whatever the database does; the default is
// [DefaultTimeout]. Waiting for a connection of the pool is part of it. A deadline or a
// cancellation of the caller's context does not shorten it: a request that gives itself less time
// would otherwise be one that no limit holds. A call may get up to a tenth less. It is 1 ms to 1
// minute.
func WithTimeout(d time.Duration) Option {
	return func(c *config) error {
		if d < time.Millisecond || d > time.Minute {
			return fmt.Errorf("ginlimit: postgres.WithTimeout(%v): use 1ms to 1m", d)
		}
		c.timeout = d
		return nil
	}
}

// WithSweep sets the number of decisions after which a Backend looks through a small part of the
// table for expired rows; the default is [DefaultSweep], and 0 turns it off, so that only
// [Backend.Sweep] deletes them. Half as many decisions keep half as many expired rows, and cost
// twice the work.
func WithSweep(decisions int) Option {
	return func(c *config) error {
		if decisions < 0 {
			return fmt.Errorf("ginlimit: postgres.WithSweep(%d): use 0 to turn it off, or a number of decisions", decisions)
		}
		c.every = int64(decisions)
		return nil
	}
}

// WithLogged makes [Migrate] create a table that survives a crash of the server and is on its
// standbys, instead of an UNLOGGED one, which is empty after a crash or a failover. Each charge
// then writes to the write-ahead log, and waits for the disk unless synchronous_commit is off. It
// changes nothing for a table that is there: ALTER TABLE … SET LOGGED does.
func WithLogged() Option {
	return func(c *config) error {
		c.logged = true
		return nil
	}
}

// WithLogger sets where a Backend says that the database does not answer, or that it refuses to
// decide (GINLIMIT007), and that this is over; the default is slog.Default(). Each is said once
// while it lasts, never for each request.
func WithLogger(l *slog.Logger) Option {
	return func(c *config) error {
		if l == nil {
			return errors.New("ginlimit: postgres.WithLogger(nil): leave the option out to use slog.Default()")
		}
		c.logger = l
		return nil
	}
}
