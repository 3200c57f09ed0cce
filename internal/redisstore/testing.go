package redisstore

// What follows is for the tests of the packages that build on this one.

// SetClock makes now the clock of b, instead of the server's.
func SetClock(b *Backend, now func() (micros int64)) { b.clock = now }

// Now returns what SetClock's clock says.
func Now(b *Backend) (micros int64) { return b.clock() }

// TestExtra is how many ms longer than its state a key is kept under SetClock.
const TestExtra = testExtra

// Calls returns the number of calls of b that are under way.
func Calls(b *Backend) int { return b.link.servers.Load().all[0].gate.Calls() }

// Open reports whether the breaker of t is open.
func Open(t *Tiers) bool { return t.link.servers.Load().all[0].gate.Open() }

// StateKey returns the name under which b keeps the state of key.
func StateKey(b *Backend, key string) string { return b.stateKey(key) }

// ParseRule returns the rule that a slot names.
var ParseRule = parseRule

// EndRefusalsAtOnce has the log say that what b's servers refused is over as soon as they do it
// again.
func EndRefusalsAtOnce(b *Backend) {
	for _, s := range b.link.servers.Load().all {
		log := s.decisions.create()
		log.Quiet = 0
		s.decisions.log.Store(log)
	}
}

// Remembers reports whether b remembers refusals: client-side caching was seen to work.
func Remembers(b *Backend) bool { return b.denials != nil && b.denials.on.Load() }

// RememberAnyway has b remember refusals though client-side caching was not seen to work.
func RememberAnyway(b *Backend) { b.denials.on.Store(true) }

// MaxDenials is how many refusals a Backend remembers at most.
const MaxDenials = maxDenials

// DenialsLen returns how many refusals b remembers, after it has counted them.
func DenialsLen(b *Backend) (n int) {
	for i := range b.denials.shards {
		sh := &b.denials.shards[i]
		sh.Lock()
		n += len(sh.keys)
		sh.Unlock()
	}
	if int64(n) != b.denials.len.Load() {
		return -1
	}
	return n
}
