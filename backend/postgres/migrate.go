package postgres

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"hash/fnv"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

//go:embed sql/functions.sql
var functions string

// schemaVersion is the version of the schema that [Migrate] makes. A later one adds to it: its functions have names of
// their own, so that this version goes on beside it, as long as the later one says so in oldest.
const schemaVersion = 1

// ErrTooOld is in the chain of Migrate's error if the schema is of a later version that this one cannot work with.
var ErrTooOld = errors.New("the schema was made by a later version of ginlimit; update this application")

// Migrate makes the table and the functions that a [Backend] with the same options needs, if they are not there. It may
// be called at every start, by any number of instances at once: they take turns. It takes what there is as it is, and
// leaves a schema of a later version alone. It needs the right to create in the schema, only the first time.
//
// A role that decides needs SELECT, INSERT, UPDATE and DELETE on the table.
func Migrate(ctx context.Context, pool *pgxpool.Pool, opts ...Option) error {
	c := defaults()
	if err := c.apply(opts); err != nil {
		return err
	}
	if pool == nil {
		return errors.New("ginlimit: postgres.Migrate: the pool is nil; use pgxpool.New to make one")
	}
	// READ COMMITTED, so that what the one before made is seen once the lock is ours.
	err := pgx.BeginTxFunc(ctx, pool, pgx.TxOptions{IsoLevel: pgx.ReadCommitted}, func(tx pgx.Tx) error { return c.migrate(ctx, tx) })
	if err != nil {
		return unavailable("migrate", err)
	}
	return nil
}

func (c *config) migrate(ctx context.Context, tx pgx.Tx) error {
	hash := fnv.New64a()
	_, _ = hash.Write([]byte("ginlimit\x00" + c.schema + "\x00" + c.name)) // never fails
	if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", int64(hash.Sum64())); err != nil {
		return err
	}
	version, oldest, err := c.version(ctx, tx)
	if err != nil || version >= schemaVersion {
		if err == nil && oldest > schemaVersion {
			return fmt.Errorf("%w: it is version %d, for %d and later, and this is %d", ErrTooOld, version, oldest, schemaVersion)
		}
		return err
	}
	for _, text := range c.script() {
		if _, err := tx.Exec(ctx, text, pgx.QueryExecModeSimpleProtocol); err != nil {
			return err
		}
	}
	return nil
}

// version returns that of the schema, 0 if there is none, and the oldest that can work with it.
func (c *config) version(ctx context.Context, tx pgx.Tx) (version, oldest int, err error) {
	var there bool
	if err := tx.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL", c.versions()).Scan(&there); err != nil || !there {
		return 0, 0, err
	}
	err = tx.QueryRow(ctx, "SELECT version, oldest FROM "+c.versions()).Scan(&version, &oldest)
	return version, oldest, err
}

// script returns the statements that make version 1.
func (c *config) script() []string {
	unlogged := "UNLOGGED "
	if c.logged {
		unlogged = ""
	}
	schema := pgx.Identifier{c.schema}.Sanitize()
	text := []string{
		// CREATE SCHEMA IF NOT EXISTS would ask for a right that is not needed if it does.
		"DO " + quote("BEGIN IF NOT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = "+literal(c.schema)+
			") THEN CREATE SCHEMA "+schema+"; END IF; END"),
		// Room in the pages, so that a new version of a row stays in its page and the index is left alone. Nothing but
		// the key has an index for the same reason.
		"CREATE " + unlogged + "TABLE " + c.table + " (key text COLLATE \"C\" PRIMARY KEY, rules text COLLATE \"C\" NOT NULL, " +
			"expires bigint NOT NULL, state bigint[] NOT NULL) " +
			"WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.5)",
		"CREATE TABLE " + c.versions() + " (version int NOT NULL, oldest int NOT NULL)",
		"INSERT INTO " + c.versions() + " VALUES (1, 1)",
		"GRANT SELECT ON " + c.versions() + " TO PUBLIC", // so that a role which may not create can call Migrate
	}
	return append(text, c.functions())
}

var placeholder = regexp.MustCompile(`\{\{(\w+)\}\}|\$\$`)

// functions returns the functions of version 1 with their names, and with a quote around their bodies that no name
// ends.
func (c *config) functions() string {
	tag := tagFor(c.schema + c.name)
	return placeholder.ReplaceAllStringFunc(functions, func(found string) string {
		switch found {
		case "$$":
			return tag
		case "{{table}}":
			return c.table
		default:
			return c.function(strings.Trim(found, "{}"))
		}
	})
}

// tagFor returns a dollar quote that text does not contain.
func tagFor(text string) string {
	tag := "$ginlimit$"
	for i := 0; strings.Contains(text, tag); i++ {
		tag = fmt.Sprintf("$ginlimit%d$", i)
	}
	return tag
}

func quote(text string) string {
	tag := tagFor(text)
	return tag + text + tag
}

// literal returns text as a string of SQL.
func literal(text string) string {
	return "E'" + strings.NewReplacer("'", "''", `\`, `\\`).Replace(text) + "'"
}
