package replay

import (
	"hash/maphash"
	"math"
	"slices"
)

// callers is a number for every key that was seen, counted from 0, and what is known of it.
//
// A key is known by 64 bits of its hash, whose seed is new in each process: two of ten million keys
// share theirs once in 370,000 runs. The text of a key is kept only where a limit may refuse it, so
// that a log of millions of addresses that come once needs 50 bytes for each.
type callers struct {
	seed   maphash.Seed
	hashes []uint64
	ids    []uint32 // beside hashes, plus one; 0 is free
	n      uint32
	pages  [][]caller
	no     [][]refusals
	extra  [][]uint32 // units that requests ask for beyond one each
	named  map[uint32]*named
	most   int // of named
}

const (
	pageBits = 12
	pageSize = 1 << pageBits
)

// caller is what is known of a key for as long as the replay runs. Counts stop at their largest
// value.
type caller struct {
	requests uint32 // those included that are still to be replayed
	place    uint32 // of its states, 0 for none
	window   uint32 // the last in which it asked
	inWindow uint32 // units that it asked for in that window
	peak     uint32 // the most that it asked for in one window
}

// refusals is what is known of a caller that was refused. Most are not, so that most pages of them
// are not there.
type refusals struct {
	by     [2]uint32 // by each scenario
	minute uint32    // the last in which the first refused it
}

// named is what is known of a caller that may be refused.
type named struct {
	key         string
	first, last [2]int64 // refusals by each scenario; 0 for none, or for one that is not known
}

// maxNamed is how many callers have a name. Above that the half with the fewest refusals lose
// theirs. One that asks again gets it back, with all that was counted, but not with the time of its
// first refusal.
const maxNamed = 1 << 18

// name gives a caller its name, if it has none.
func (c *callers) name(id uint32, key []byte) {
	if c.named[id] != nil {
		return
	}
	if len(c.named) >= c.most {
		c.forget()
	}
	c.named[id] = &named{key: string(key)}
}

func (c *callers) forget() {
	counts := make([]uint64, 0, len(c.named))
	for id := range c.named {
		counts = append(counts, c.refusals(id))
	}
	slices.Sort(counts)
	median, left := counts[len(counts)/2], len(counts)/2
	for id := range c.named {
		if left > 0 && c.refusals(id) <= median {
			delete(c.named, id)
			left--
		}
	}
}

func newCallers() *callers {
	return &callers{seed: maphash.MakeSeed(), hashes: make([]uint64, 1<<10), ids: make([]uint32, 1<<10),
		named: map[uint32]*named{}, most: maxNamed}
}

// id returns the number of a key.
func (c *callers) id(key []byte) uint32 {
	h := maphash.Bytes(c.seed, key)
	mask := uint64(len(c.hashes) - 1)
	i := h & mask
	for ; c.ids[i] != 0; i = (i + 1) & mask {
		if c.hashes[i] == h {
			return c.ids[i] - 1
		}
	}
	id := c.n
	c.n++
	if id&(pageSize-1) == 0 {
		c.pages = append(c.pages, make([]caller, pageSize))
	}
	c.hashes[i], c.ids[i] = h, c.n
	if int(c.n) > len(c.hashes)/8*7 {
		c.grow()
	}
	return id
}

func (c *callers) grow() {
	hashes, ids := c.hashes, c.ids
	c.hashes, c.ids = make([]uint64, 2*len(hashes)), make([]uint32, 2*len(hashes))
	mask := uint64(len(c.hashes) - 1)
	for j, id := range ids {
		if id == 0 {
			continue
		}
		i := hashes[j] & mask
		for c.ids[i] != 0 {
			i = (i + 1) & mask
		}
		c.hashes[i], c.ids[i] = hashes[j], id
	}
}

// refusals returns how often a caller was refused.
func (c *callers) refusals(id uint32) uint64 {
	no := peek(c.no, id)
	return uint64(no.by[0]) + uint64(no.by[1])
}

// ask counts a request at a caller, and returns the units of all its requests. A cost of 0 counts
// as 1, because it is refused if not one unit is left.
func (c *callers) ask(id uint32, cost int64) int64 {
	k := c.of(id)
	k.requests = add(k.requests, 1)
	if cost > 1 {
		extra := touch(&c.extra, id)
		*extra = add(*extra, cost-1)
	}
	return c.units(id)
}

// units returns at least how many units the requests of a caller ask for: exactly, up to the
// largest count.
func (c *callers) units(id uint32) int64 {
	return int64(c.of(id).requests) + int64(peek(c.extra, id))
}

// touch returns a caller's value in pages, of which it makes the one that it needs.
func touch[T any](pages *[][]T, id uint32) *T {
	for int(id>>pageBits) >= len(*pages) {
		*pages = append(*pages, nil)
	}
	page := &(*pages)[id>>pageBits]
	if *page == nil {
		*page = make([]T, pageSize)
	}
	return &(*page)[id&(pageSize-1)]
}

// peek returns a caller's value in pages.
func peek[T any](pages [][]T, id uint32) (value T) {
	if i := int(id >> pageBits); i < len(pages) && pages[i] != nil {
		return pages[i][id&(pageSize-1)]
	}
	return value
}

func (c *callers) of(id uint32) *caller { return &c.pages[id>>pageBits][id&(pageSize-1)] }

// add returns the sum of a count and n, or the largest count.
func add(count uint32, n int64) uint32 {
	if n >= math.MaxUint32 || uint32(n) > math.MaxUint32-count {
		return math.MaxUint32
	}
	return count + uint32(n)
}
