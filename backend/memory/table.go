package memory

import (
	"math"
	"math/bits"

	"github.com/ginlimit/ginlimit/backend/algorithm"
)

// entry is one key, in 32 bytes and without a pointer, so that the garbage collector never looks at
// a million of them. A key is known by 104 bits of its hash.
type entry struct {
	tag  uint64 // the table's order
	time int64  // State.Time
	a, b uint32 // State.Used and State.Rest; or, if rule is inSlots, an index of shard.slots
	tag2 uint32
	tag3 uint8
	look uint8  // see table.look
	rule uint16 // an index of Backend.rules; 0 is no entry
}

// inSlots is the rule of an entry whose state does not fit into it: several limits, a SlidingLog, a
// count above 32 bits.
const inSlots = math.MaxUint16

// hash is the 128-bit hash of a key: the first half is its tag, of which the low bits pick its
// shard and the high ones its home there; of the second half the low 40 bits are in tag2 and tag3,
// and the high ones pick its overflow bucket.
type hash struct{ tag, rest uint64 }

func (h hash) bucket() uint16 { return uint16(h.rest>>48) % overflowBuckets }

func (e *entry) is(h hash) bool {
	return e.tag == h.tag && e.tag2 == uint32(h.rest) && e.tag3 == uint8(h.rest>>32)
}

// put packs a state under the rule of an id into e and reports whether it fits. Id 0 never does.
func (e *entry) put(st algorithm.State, id uint16) bool {
	if id == 0 || st.Used|st.Rest > math.MaxUint32 {
		return false
	}
	e.rule = id
	e.set(st)
	return true
}

// set packs a state that fits into e.
func (e *entry) set(st algorithm.State) {
	e.time, e.a, e.b = st.Time, uint32(st.Used), uint32(st.Rest)
}

// state unpacks e, whose state is not in slots.
func (e *entry) state() algorithm.State {
	return algorithm.State{Time: e.time, Used: int64(e.a), Rest: int64(e.b)}
}

// table is a hash table with linear probing whose entries stand in the order of their tags: an
// entry's home grows with its tag, and what comes later in the order moves up. So a search ends at
// the first larger tag, also for a key that is not there, and a table can be 85 % full; a rebuild
// is one pass from front to back. Tried and dropped: Go's map of 16-byte keys to indices of a slab
// (70 bytes a key, two cache misses).
type table struct {
	entries []entry // room homes, some more for what moves up, and a last one that is always empty
	room    uint64
	n       int
}

const (
	fullest = 0.85 // load at which a table is rebuilt
	growth  = 1.35 // how much more room it gets then
)

// newTable returns a table with room homes.
func newTable(room int) table {
	return table{entries: make([]entry, room+min(room, 64)+1), room: uint64(room)}
}

func (t *table) home(tag uint64) int {
	hi, _ := bits.Mul64(tag, t.room)
	return int(hi)
}

// look begins the search for h, whose entry is likely not in the processor's cache, with a byte
// that nobody reads: a processor waits for memory that it reads, but not for what it writes. So the
// entry is on its way while the caller does what is left to do before find.
func (t *table) look(h hash) {
	if t.room > 0 {
		t.entries[t.home(h.tag)].look = 1
	}
}

// find returns the index of h's entry, or of the place where it belongs.
func (t *table) find(h hash) (at int, found bool) {
	if t.room == 0 {
		return 0, false
	}
	for at = t.home(h.tag); ; at++ {
		e := &t.entries[at]
		if e.is(h) && e.rule != 0 {
			return at, true
		}
		if e.tag > h.tag || e.rule == 0 {
			return at, false
		}
	}
}

// insert makes room for h at the place that find returned and reports whether there was any.
func (t *table) insert(at int, h hash) bool {
	if t.room == 0 || float64(t.n+1) > fullest*float64(t.room) {
		return false
	}
	end := at
	for t.entries[end].rule != 0 {
		end++
	}
	if end == len(t.entries)-1 {
		return false
	}
	copy(t.entries[at+1:end+1], t.entries[at:end])
	t.entries[at] = entry{tag: h.tag, tag2: uint32(h.rest), tag3: uint8(h.rest >> 32)}
	t.n++
	return true
}

// remove closes the gap that the entry leaves.
func (t *table) remove(at int) {
	end := at + 1
	for t.entries[end].rule != 0 && t.home(t.entries[end].tag) < end {
		end++
	}
	copy(t.entries[at:end-1], t.entries[at+1:end])
	t.entries[end-1] = entry{}
	t.n--
}

// rebuild returns a table with the entries of t and room homes, or a few more if they do not fit
// otherwise.
func (t *table) rebuild(room int) table {
	to := newTable(room)
	next := 0
	for i := range t.entries {
		if t.entries[i].rule == 0 {
			continue
		}
		next = max(next, to.home(t.entries[i].tag))
		if next == len(to.entries)-1 {
			return t.rebuild(room + room/4 + 1)
		}
		to.entries[next] = t.entries[i]
		next++
	}
	to.n = t.n
	return to
}
