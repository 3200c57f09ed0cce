package postgres

import (
	"context"
	"time"
)

// SetClock makes now the clock of b, instead of the database's.
func SetClock(b *Backend, now func() (micros int64)) { b.clock = now }

// SetClient makes now the clock of the process that b is in.
func SetClient(b *Backend, now func() (micros int64)) { b.client = now }

// SetSlow makes the function decide everything, as if the first try of every statement had failed.
func SetSlow(b *Backend) { b.slow = true }

// StateKey returns the key under which the state of key is kept.
func StateKey(key string) string { return stateKey(key) }

// Table returns the quoted name of b's table.
func Table(b *Backend) string { return b.table }

// Kept returns how long the row of key would be kept by b's clock, 0 if there is none.
func Kept(b *Backend, key string) (time.Duration, error) {
	var expires int64
	err := b.pool.QueryRow(context.Background(), "SELECT coalesce(max(expires), 0) FROM "+b.table+" WHERE key = $1", stateKey(key)).Scan(&expires)
	return time.Duration(max(0, expires-b.clock())) * time.Microsecond, err
}

// Isolates reports whether b sends its statements in transactions of their own.
func Isolates(b *Backend) bool { return b.isolate.Load() }

// EndAtOnce makes a refusal of the database over with the next charge, instead of a minute later.
func EndAtOnce(b *Backend) { b.failing.Quiet, b.sweeper.failing.Quiet = 0, 0 }

// Quiet waits until b sweeps no more.
func Quiet(b *Backend) {
	for b.sweeper.running.Load() {
		time.Sleep(time.Millisecond)
	}
}
