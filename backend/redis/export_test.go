package redis

// SetClock makes now the clock of b, instead of the server's.
func SetClock(b *Backend, now func() (micros int64)) { b.clock = now }

// Calls returns the number of calls of b that are under way.
func Calls(b *Backend) int { return b.link.servers.Load().all[0].gate.Calls() }

// Open reports whether the breaker of t is open.
func Open(t *Tiers) bool { return t.link.servers.Load().all[0].gate.Open() }

// StateKey returns the name under which b keeps the state of key.
func StateKey(b *Backend, key string) string { return b.stateKey(key) }

// TestExtra is how many ms longer than its state a key is kept under SetClock.
const TestExtra = testExtra

// Now returns what SetClock's clock says.
func Now(b *Backend) (micros int64) { return b.clock() }

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
