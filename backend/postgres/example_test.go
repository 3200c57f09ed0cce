package postgres_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"os"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/memory"
	"github.com/ginlimit/ginlimit/backend/postgres"
)

func Example() {
	ctx := context.Background()
	limits, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL")) // beside the pool of the application's queries
	if err != nil {
		log.Fatal(err)
	}
	if err := postgres.Migrate(ctx, limits); err != nil {
		log.Fatal(err)
	}

	b := postgres.New(limits) // for ginlimit.WithBackend, or by itself:
	res, err := b.Take(ctx, "api\x00ip:203.0.113.7", 1, backend.Limit{Count: 100, Period: time.Minute})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(res.Allowed, res.Remaining)
}

// What a service with hot keys, or that has to decide while the database is gone, puts around the
// backend. The limits have a pool of their own, so that slow queries of the application cannot take
// their connections.
func ExampleNew() {
	ctx := context.Background()
	app, err := pgxpool.New(ctx, os.Getenv("DATABASE_URL")) // for the application's queries
	if err != nil {
		log.Fatal(err)
	}
	config := app.Config()                             // the same server, and other connections
	config.MaxConns = 8                                // for limits alone
	config.ConnConfig.ConnectTimeout = 2 * time.Second // a server that hangs is tried again soon
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()

	store := backend.Fallback(postgres.New(pool), memory.New(), backend.WithShare(3)) // 3 instances
	b := backend.Lease(store, 50)                                                     // a hot key asks for up to 50 units at once
	res, err := b.Take(ctx, "api\x00ip:203.0.113.7", 1, backend.Limit{Count: 100, Period: time.Minute})
	fmt.Println(res.Allowed, err)
}

// Another schema and table, the same for Migrate and New.
func ExampleMigrate() {
	pool, err := pgxpool.New(context.Background(), os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	opts := []postgres.Option{postgres.WithSchema("limits"), postgres.WithTable("api"), postgres.WithLogged()}
	if err := postgres.Migrate(context.Background(), pool, opts...); err != nil {
		log.Fatal(err)
	}
	b := postgres.New(pool, append(opts, postgres.WithTimeout(50*time.Millisecond), postgres.WithLogger(slog.Default()))...)
	res, err := b.Take(context.Background(), "api\x00ip:203.0.113.7", 1, backend.Limit{Count: 100, Period: time.Minute})
	fmt.Println(res.Allowed, err)
}

// Expired rows are swept at night, and not by decisions.
func ExampleWithSweep() {
	pool, err := pgxpool.New(context.Background(), os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	b := postgres.New(pool, postgres.WithSweep(0))
	rows, err := b.Sweep(context.Background()) // from a job that runs at night
	fmt.Println(rows, err)
}
