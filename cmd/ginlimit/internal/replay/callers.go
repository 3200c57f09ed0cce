package replay

import (
	"cmp"
	"hash/maphash"
	"maps"
	"math"
	"math/bits"
	"slices"
)

// callers is a number for every key that was seen, counted from 0, and what is known of it.
//
// A key is known by 64 bits of its hash, whose seed is new in each process: two of ten million keys
// share theirs once in 370,000 runs. The text of a key is kept only where a limit may refuse it, so
// that a log of millions of addresses that come once needs about 25 bytes for each.
type callers struct {
	seed   maphash.Seed
	shards [shards]shard // by the first bits of the hash, so that only a part grows at a time
	n      uint32
	plain  bool       // keep callers of few requests as the times of these alone
	words  [][]word   // by caller, in pages
	few    [][]trail  // by the number in words, in pages
	nFew   uint32     // of few in use or free
	unused []uint32   // those of few that are free
	busy   [][]caller // by the number in words, in pages
	nBusy  uint32
	no     [][]refusals
	extra  [][]uint32 // units that requests ask for beyond one each
	named  map[uint32]*named
	most   int // of named
	text   int // bytes of the keys in named
}

const (
	pageBits = 12
	pageSize = 1 << pageBits
	shards   = 256

	// isBusy is the bit of a word that says that the rest is a number in busy, isFew that it is one
	// in few, below the number of requests. A word with neither is the time of the only request in
	// µs, or 0 if that is still to be replayed.
	isBusy   = 1 << 63
	isFew    = 1 << 62
	askedBit = 32
)

// word says where a caller is kept.
type word uint64

// trail is the times of up to three requests of one unit, in µs. Those that are still to be replayed
// are 0. The states of a caller are what its trail leads to, so that it needs none of its own.
type trail [3]int64

// asked returns how many requests a caller of few has, those included that are still to be replayed.
func (w word) asked() uint32 {
	if w&isFew == 0 {
		return 1
	}
	return uint32(w &^ isFew >> askedBit)
}

// shard is a hash table with open addressing.
type shard struct {
	hashes []uint64 // 0 is free
	ids    []uint32 // beside hashes
	n      int
}

// caller is what is known of a caller of many requests for as long as the replay runs. Counts
// stop at their largest value.
type caller struct {
	requests uint32 // those included that are still to be replayed
	place    uint32 // of its states, 0 for none
	window   uint32 // the last in which it asked
	inWindow uint32 // units that it asked for in that window
	peak     uint32 // the most that it asked for in one window
}

// count adds what a caller asks for in a window.
func (c *caller) count(window uint32, cost int64) {
	if window != c.window {
		c.window, c.inWindow = window, 0
	}
	c.inWindow = add(c.inWindow, cost)
	c.peak = max(c.peak, c.inWindow)
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

// maxNamed is how many callers have a name, and maxText how many bytes their keys may have. Above
// that the half with the fewest refusals lose theirs. One that asks again gets it back, with all
// that was counted, but not with the time of its first refusal.
const (
	maxNamed = 1 << 18
	maxText  = 32 << 20
)

// name gives a caller its name, if it has none.
func (c *callers) name(id uint32, key []byte) {
	if c.named[id] != nil {
		return
	}
	for len(c.named) > 0 && (len(c.named) >= c.most || c.text+len(key) > maxText) {
		c.forget()
	}
	c.named[id] = &named{key: string(key)}
	c.text += len(key)
}

// forget takes their names from half of the callers that have one: those with the fewest refusals,
// and of equals those that came last.
func (c *callers) forget() {
	ids := slices.SortedFunc(maps.Keys(c.named), func(a, b uint32) int {
		return cmp.Or(cmp.Compare(c.refusals(a), c.refusals(b)), cmp.Compare(b, a))
	})
	for _, id := range ids[:(len(ids)+1)/2] {
		c.text -= len(c.named[id].key)
		delete(c.named, id)
	}
}

func newCallers() *callers {
	return &callers{seed: maphash.MakeSeed(), named: map[uint32]*named{}, most: maxNamed}
}

// id returns the number of a key, and whether it is new.
func (c *callers) id(key []byte) (id uint32, added bool) {
	h := max(maphash.Bytes(c.seed, key), 1)
	s := &c.shards[h%shards]
	if s.n >= len(s.hashes)/8*7 {
		s.grow()
	}
	i := s.home(h)
	for s.hashes[i] != 0 {
		if s.hashes[i] == h {
			return s.ids[i], false
		}
		if i++; i == len(s.hashes) {
			i = 0
		}
	}
	id = c.n
	c.n++
	s.n++
	s.hashes[i], s.ids[i] = h, id
	if id&(pageSize-1) == 0 {
		c.words = append(c.words, make([]word, pageSize))
	}
	return id, true
}

// home is where a hash is looked for first: its share of the table.
func (s *shard) home(h uint64) int {
	i, _ := bits.Mul64(h, uint64(len(s.hashes)))
	return int(i)
}

// grow makes room, by a quarter only, because the free places are most of what a caller takes.
func (s *shard) grow() {
	hashes, ids := s.hashes, s.ids
	size := max(16, len(hashes)+len(hashes)/4)
	s.hashes, s.ids = make([]uint64, size), make([]uint32, size)
	for j, h := range hashes {
		if h == 0 {
			continue
		}
		i := s.home(h)
		for s.hashes[i] != 0 {
			if i++; i == size {
				i = 0
			}
		}
		s.hashes[i], s.ids[i] = h, ids[j]
	}
}

// refusals returns how often a caller was refused.
func (c *callers) refusals(id uint32) uint64 {
	no := peek(c.no, id)
	return uint64(no.by[0]) + uint64(no.by[1])
}

// ask counts a request of a key, and returns the number of its caller. If that is kept whole from
// now on, and was not before, past is the times of its requests.
func (c *callers) ask(key []byte, cost int64) (id uint32, past trail) {
	id, added := c.id(key)
	w := c.word(id)
	asked := w.asked()
	if added {
		asked = 0
	}
	switch {
	case *w&isBusy != 0:
	case !c.plain || cost != 1 || asked == uint32(len(trail{})):
		past = c.makeBusy(id)
		c.of(id).requests = asked
	case asked == 0:
		return id, past
	default:
		if asked == 1 {
			*w = c.newTrail(int64(*w))
		}
		*w += 1 << askedBit
		return id, past
	}
	k := c.of(id)
	k.requests = add(k.requests, 1)
	// A cost of 0 counts as 1, because it is refused if not one unit is left.
	if cost > 1 {
		extra := touch(&c.extra, id)
		*extra = add(*extra, cost-1)
	}
	return id, past
}

// newTrail returns the word of a caller of one request, at a time.
func (c *callers) newTrail(at int64) word {
	var n uint32
	if last := len(c.unused) - 1; last >= 0 {
		n, c.unused = c.unused[last], c.unused[:last]
	} else {
		n = c.nFew
		c.nFew++
		if n&(pageSize-1) == 0 {
			c.few = append(c.few, make([]trail, pageSize))
		}
	}
	*c.trail(n) = trail{at}
	return isFew | 1<<askedBit | word(n)
}

func (c *callers) trail(n uint32) *trail { return &c.few[n>>pageBits][n&(pageSize-1)] }

// past returns the times of the requests of a caller of few.
func (c *callers) past(id uint32) trail {
	w := *c.word(id)
	if w&isFew != 0 {
		return *c.trail(uint32(w))
	}
	return trail{int64(w)}
}

// replayed returns the times that are known.
func (t *trail) replayed() []int64 {
	n := 0
	for n < len(t) && t[n] != 0 {
		n++
	}
	return t[:n]
}

// replayed adds a time to those of a caller of few.
func (c *callers) replayed(id uint32, at int64) {
	w := c.word(id)
	if *w&isFew == 0 {
		*w = word(at)
		return
	}
	t := c.trail(uint32(*w))
	t[len(t.replayed())] = at
}

// makeBusy keeps a caller whole from now on, and returns the times of its requests.
func (c *callers) makeBusy(id uint32) trail {
	w := c.word(id)
	past := c.past(id)
	if *w&isFew != 0 {
		c.unused = append(c.unused, uint32(*w))
	}
	if c.nBusy&(pageSize-1) == 0 {
		c.busy = append(c.busy, make([]caller, pageSize))
	}
	*w = isBusy | word(c.nBusy)
	c.nBusy++
	return past
}

// requests returns how many requests a caller has, up to the largest count.
func (c *callers) requests(id uint32) uint32 {
	if k := c.of(id); k != nil {
		return k.requests
	}
	return c.word(id).asked()
}

// units returns at least how many units the requests of a caller ask for: exactly, up to the
// largest count.
func (c *callers) units(id uint32) int64 {
	return int64(c.requests(id)) + int64(peek(c.extra, id))
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

func (c *callers) word(id uint32) *word { return &c.words[id>>pageBits][id&(pageSize-1)] }

// of returns a caller, or nil for one that is kept as the times of its few requests.
func (c *callers) of(id uint32) *caller {
	w := *c.word(id)
	if w&isBusy == 0 {
		return nil
	}
	return c.at(uint32(w))
}

// at returns a caller by its number in busy.
func (c *callers) at(n uint32) *caller { return &c.busy[n>>pageBits][n&(pageSize-1)] }

// add returns the sum of a count and n, or the largest count.
func add(count uint32, n int64) uint32 {
	if n >= math.MaxUint32 || uint32(n) > math.MaxUint32-count {
		return math.MaxUint32
	}
	return count + uint32(n)
}
