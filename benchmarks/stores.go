package benchmarks

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/postgres"
	"github.com/ginlimit/ginlimit/internal/testserver"
)

// storeQuota refuses nothing that is asked here. A unit takes a minute to come back, so that a store
// which is being filled forgets no key meanwhile. Count times period is below 2^53 µs, as in
// redisQuota.
var storeQuota = Quota{10_000, 10_000 * time.Minute}

// Cases of the section growth about keys in a store.
const (
	growKeysRedis    = "keys, Redis"
	growKeysPostgres = "keys, PostgreSQL"
)

const (
	mostInStore     = 1_000_000 // keys
	postgresCallers = 16        // each with a connection
	filledAtOnce    = 100       // keys that are charged by one call while a store is filled
	redisGoroutines = 64
)

// storeKeys are numbers of keys in a store.
func (b *bench) storeKeys() (numbers []int) {
	for keys := 1000; keys <= min(b.MaxKeys, mostInStore); keys *= 10 {
		numbers = append(numbers, keys)
	}
	return numbers
}

// growKeysRedis measures decisions by the number of keys that are in Redis, and what memory these
// take.
func (b *bench) growKeysRedis() error {
	for _, keys := range b.storeKeys() {
		for _, l := range inRedis() {
			if !slices.Contains([]string{own, ululeName}, l.Name) || !b.wanted(l.Name) {
				continue
			}
			take, stop := l.New(b.server.Addr(), storeQuota)
			names := b.names(keys)
			fill := func(n int) error {
				return together(512, n, func(i int) error {
					_, err := take(names[i])
					return err
				})
			}
			if err := fill(min(keys, 10_000)); err != nil { // connections have their buffers
				return fmt.Errorf("%s: %w", l.Name, err)
			}
			if _, err := b.server.Do("FLUSHALL"); err != nil {
				return err
			}
			empty := b.redisMemory()
			if err := fill(keys); err != nil {
				return fmt.Errorf("%s: %w", l.Name, err)
			}
			b.add(growKeysRedis, l.Name, "bytes/key", float64(keys), (b.redisMemory()-empty)/float64(keys))
			draws := b.draws(keys, false)
			for range min(3, b.Rounds) {
				if err := b.drive(growKeysRedis, remote{l, take}, float64(keys), redisGoroutines, draws, true); err != nil {
					return fmt.Errorf("%s: %w", l.Name, err)
				}
			}
			stop()
			b.log(".")
		}
		b.drawn = nil
	}
	_, err := b.server.Do("FLUSHALL")
	return err
}

func (b *bench) redisMemory() float64 {
	n, err := strconv.ParseFloat(b.server.Info("memory", "used_memory"), 64)
	must(err)
	return n
}

// growKeysPostgres measures the same on PostgreSQL, where there is one.
func (b *bench) growKeysPostgres() error {
	if !b.wanted(own) {
		return nil
	}
	server, err := testserver.StartPostgres()
	if errors.Is(err, exec.ErrNotFound) {
		b.log(" without PostgreSQL, which is not there ")
		return nil
	} else if err != nil {
		return err
	}
	defer func() { _ = server.Stop() }()
	ctx := context.Background()
	config, err := pgxpool.ParseConfig(server.URL())
	if err != nil {
		return err
	}
	config.MaxConns, config.MinConns = postgresCallers, postgresCallers
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return err
	}
	defer pool.Close()
	for _, keys := range b.storeKeys() {
		table := fmt.Sprint("bench", keys)
		opts := []postgres.Option{postgres.WithTable(table), postgres.WithTimeout(10 * time.Second)}
		if err := postgres.Migrate(ctx, pool, opts...); err != nil {
			return err
		}
		store, limits := postgres.New(pool, opts...), limitsOf(storeQuota, backend.TokenBucket, 1)
		names := b.names(keys)
		if err := together(postgresCallers, keys/filledAtOnce, func(i int) error {
			charges := make([]backend.Charge, filledAtOnce)
			for j := range charges {
				charges[j] = backend.Charge{Key: names[i*filledAtOnce+j], Cost: 1, Limits: limits}
			}
			_, err := store.TakeAll(ctx, charges...)
			return err
		}); err != nil {
			return err
		}
		var size float64
		if err := pool.QueryRow(ctx, "SELECT pg_total_relation_size($1::regclass)::float8", table).Scan(&size); err != nil {
			return err
		}
		b.add(growKeysPostgres, own, "bytes/key", float64(keys), size/float64(keys))
		take, draws := takeBackend(store, limits), b.draws(keys, false)
		if _, _, err := ask(take, postgresCallers, 2*b.Length, draws, true); err != nil {
			return err
		}
		for range min(3, b.Rounds) {
			began := time.Now()
			waits, _, err := ask(take, postgresCallers, 2*b.Length, draws, true)
			if err != nil {
				return err
			}
			b.add(growKeysPostgres, own, "µs", float64(keys), float64(time.Since(began).Microseconds())/float64(len(waits)))
		}
		b.drawn = nil
		b.log(".")
	}
	return nil
}

// together calls do for each number below n, from so many goroutines. It returns an error, if there
// were any.
func together(goroutines, n int, do func(i int) error) error {
	var next atomic.Int64
	errs := make([]error, goroutines)
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && errs[g] == nil; i = int(next.Add(1)) - 1 {
				errs[g] = do(i)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
