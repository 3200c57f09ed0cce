package ginlimit

import "sync/atomic"

// table has room for 16,384 values, four of which share the places of a hash. It grows with use: an empty one takes 512 bytes,
// a full one 128 KiB and the values. The zero table is empty, and safe for concurrent use.
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
