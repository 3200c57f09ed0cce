package redis

import "github.com/ginlimit/ginlimit/internal/redisstore"

// SetClock makes now the clock of b, instead of the server's.
func SetClock(b *Backend, now func() (micros int64)) { redisstore.SetClock(b.store, now) }

// Calls returns the number of calls of b that are under way.
func Calls(b *Backend) int { return redisstore.Calls(b.store) }

// Open reports whether the breaker of t is open.
func Open(t *Tiers) bool { return redisstore.Open(t.store) }

// StateKey returns the name under which b keeps the state of key.
func StateKey(b *Backend, key string) string { return redisstore.StateKey(b.store, key) }

// TestExtra is how many ms longer than its state a key is kept under SetClock.
const TestExtra = redisstore.TestExtra

// Now returns what SetClock's clock says.
func Now(b *Backend) (micros int64) { return redisstore.Now(b.store) }

// ParseRule returns the rule that a slot names.
var ParseRule = redisstore.ParseRule

// EndRefusalsAtOnce has the log say that what b's servers refused is over as soon as they do it
// again.
func EndRefusalsAtOnce(b *Backend) { redisstore.EndRefusalsAtOnce(b.store) }

// Remembers reports whether b remembers refusals: client-side caching was seen to work.
func Remembers(b *Backend) bool { return redisstore.Remembers(b.store) }

// RememberAnyway has b remember refusals though client-side caching was not seen to work.
func RememberAnyway(b *Backend) { redisstore.RememberAnyway(b.store) }

// MaxDenials is how many a Backend remembers at most.
const MaxDenials = redisstore.MaxDenials

// DenialsLen returns how many refusals b remembers, after it has counted them.
func DenialsLen(b *Backend) int { return redisstore.DenialsLen(b.store) }
