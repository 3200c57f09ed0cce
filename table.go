package ginlimit

import (
	"math/rand/v2"
	"strings"
	"sync/atomic"
)

// table has room for 16,384 values, with four places for each hash. It grows with use: an empty one
// takes 512 bytes, a full one 128 KiB and the values. The zero table is empty, and safe for
// concurrent use.
type table[V any] struct {
	pages [tablePages]atomic.Pointer[[tablePage]atomic.Pointer[V]]
}

const (
	tablePages = 64
	tablePage  = 256
	placesEach = 4
)

// places returns the places of the values with a hash.
func (t *table[V]) places(hash uint64) []atomic.Pointer[V] {
	at := &t.pages[hash%tablePages]
	page := at.Load()
	if page == nil {
		page = new([tablePage]atomic.Pointer[V])
		if !at.CompareAndSwap(nil, page) {
			page = at.Load()
		}
	}
	first := hash / tablePages % (tablePage / placesEach) * placesEach
	return page[first : first+placesEach]
}

// longKeys remembers the names that some busy keys have in a backend that limiters share. Joining
// the limiter's name and the key would take half of the time of a decision in memory, and an
// allocation.
type longKeys [64]atomic.Pointer[longKey]

type longKey struct{ key, long string }

// seldom is the number of keys that are not remembered, on average, of which one is stored.
const seldom = 32

func (ks *longKeys) of(name, key string) string {
	at := &ks[placeOf(key)%uint64(len(ks))]
	if k := at.Load(); k != nil && k.key == key {
		return k.long
	}
	long := name + "\x00" + key
	if rand.Uint32()%seldom == 0 {
		at.Store(&longKey{strings.Clone(key), long})
	}
	return long
}
