package console

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"sync"
)

// maxShown is how many callers of those that a page was shown can be asked about by their hash: at
// least those of the last minute.
const maxShown = 5000

// shown finds the key behind a hash that a page was shown, so that its buttons need no key.
type shown struct {
	mu          sync.Mutex
	young, aged map[string]known
}

// known is a caller that was shown.
type known struct{ limiter, tier, key string }

// remember keeps a caller. The table that is full becomes the aged one, whose callers are then
// forgotten unless they are shown again.
func (s *shown) remember(id string, k known) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.young == nil || len(s.young) >= maxShown {
		s.young, s.aged = map[string]known{}, s.young
	}
	s.young[id] = k
}

// find returns the caller with a hash, and keeps it.
func (s *shown) find(id string) (k known, ok bool) {
	s.mu.Lock()
	if k, ok = s.young[id]; !ok {
		k, ok = s.aged[id]
	}
	s.mu.Unlock()
	if ok {
		s.remember(id, k)
	}
	return k, ok
}

// idOf returns the hash that stands for a caller: 64 bits of an HMAC whose secret is this Console's.
func (c *Console) idOf(limiter, key string) string {
	mac := hmac.New(sha256.New, c.secret)
	_, _ = mac.Write([]byte(limiter + "\x00" + key))
	return hex.EncodeToString(mac.Sum(nil)[:8])
}
