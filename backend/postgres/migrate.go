package postgres

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"hash/fnv"
	"regexp"
	"strings"
	"text/template"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

//go:embed sql/functions.sql
var functionsSQL string

// schemaVersion is the version of the schema that [Migrate] makes. A later one adds to it: its
// functions have names of their own, so that this version goes on beside it, as long as the later
// one says so in oldest. It has to look at more than the version, because this one makes a table
// that was dropped again as it knows it. Functions by themselves have [functionsVersion].
const schemaVersion = 1

// ErrTooOld is in the chain of Migrate's error if the schema is of a later version that this one
// cannot work with.
var ErrTooOld = errors.New("the schema was made by a later version of ginlimit; update this application")

// Migrate makes the table and the functions that a [Backend] with the same options needs, as far as
// they are missing. It may be called at every start, by any number of instances at once: they take
// turns. It takes what there is as it is, also of a later version. It needs the right to create in
// the schema only if something is missing.
//
// A role that decides needs SELECT, INSERT, UPDATE and DELETE on the table.
func Migrate(ctx context.Context, pool *pgxpool.Pool, opts ...Option) error {
	c := defaults()
	if err := c.apply("postgres.Migrate", opts); err != nil {
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
	_, _ = hash.Write([]byte("ginlimit\x00" + c.schema)) // never fails; without the table, because two may need the schema
	if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", int64(hash.Sum64())); err != nil {
		return err
	}
	version, oldest, err := c.version(ctx, tx)
	if err != nil {
		return err
	}
	if oldest > schemaVersion {
		return fmt.Errorf("%w: it is version %d, for %d and later, and this is %d", ErrTooOld, version, oldest, schemaVersion)
	}
	table, functions, err := c.there(ctx, tx)
	if err != nil {
		return err
	}
	words := c.words()
	words["unlogged"] = "UNLOGGED"
	if c.logged {
		words["unlogged"] = ""
	}
	var script []string
	if version == 0 {
		script = append(script, render("schema", words), render("versions", words))
	}
	if version == 0 || !table { // without a version, a table of that name is not ours, and an error
		script = append(script, render("table", words))
	}
	if !functions {
		script = append(script, c.newFunctions())
	}
	for _, text := range script {
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
	err = tx.QueryRow(ctx, render("version", c.words())).Scan(&version, &oldest)
	return version, oldest, err
}

// there reports whether the table and all functions of this version are there.
func (c *config) there(ctx context.Context, tx pgx.Tx) (table, functions bool, err error) {
	var names []string
	for _, name := range functionNames() {
		names = append(names, c.functionName(name))
	}
	err = tx.QueryRow(ctx, render("there", nil), c.table, c.schema, names, len(names)).Scan(&table, &functions)
	return table, functions, err
}

// functionNames returns the names that functions.sql gives to its functions.
func functionNames() (names []string) {
	for _, found := range created.FindAllStringSubmatch(functionsSQL, -1) {
		names = append(names, found[1])
	}
	return names
}

var created = regexp.MustCompile(`FUNCTION \{\{\.(\w+)\}\}`)

// newFunctions returns the functions of this version with their names, and with a quote around
// their bodies that no name ends.
func (c *config) newFunctions() string {
	var text strings.Builder
	if err := functions.Execute(&text, c.words()); err != nil {
		panic(fmt.Errorf("ginlimit: postgres: %w", err))
	}
	return text.String()
}

// functions is functions.sql as a template, in which a body stands between quotes of its own.
var functions = template.Must(template.New("").Option("missingkey=error").Parse(strings.ReplaceAll(functionsSQL, "$$", "{{.quote}}")))
