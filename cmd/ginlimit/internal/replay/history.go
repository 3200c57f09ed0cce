package replay

import "encoding/binary"

// maxHistory is how many bytes the requests of a log may take, to be replayed under other limits.
// One takes four or five.
const maxHistory = 128 << 20

const historyChunk = 1 << 20

// history is the requests of a log, in their order, as the time since the one before, the caller,
// the cost if that is not 1, and how long they took if that is asked for. If there are too many it
// goes on with every second caller only, then with every fourth.
type history struct {
	chunks [][]byte
	size   int
	limit  int
	ends   bool // say how long requests took
	last   int64
	shift  uint // callers whose number is a multiple of 1<<shift are kept
	n      int64
}

func (h *history) keeps(id uint32) bool { return id&(1<<h.shift-1) == 0 }

func (h *history) add(e *event) {
	if !h.keeps(e.id) {
		return
	}
	last := len(h.chunks) - 1
	if last < 0 || cap(h.chunks[last])-len(h.chunks[last]) < 4*binary.MaxVarintLen64 {
		if h.size >= h.limit {
			h.thin()
			if !h.keeps(e.id) {
				return
			}
		}
		h.chunks = append(h.chunks, make([]byte, 0, historyChunk))
		last = len(h.chunks) - 1
		h.size += historyChunk
	}
	b := h.chunks[last]
	if h.n == 0 {
		h.last = 0
	}
	b = binary.AppendUvarint(b, uint64(e.at-h.last))
	what := uint64(e.id) << 1
	if e.cost != 1 {
		what |= 1
	}
	b = binary.AppendUvarint(b, what)
	if e.cost != 1 {
		b = binary.AppendUvarint(b, uint64(e.cost))
	}
	if h.ends {
		b = binary.AppendUvarint(b, uint64(max(0, e.end-e.at)))
	}
	h.chunks[last] = b
	h.last = e.at
	h.n++
}

// thin drops every second caller.
func (h *history) thin() {
	fewer := history{limit: h.limit, ends: h.ends, shift: h.shift + 1}
	var at int64
	for i, b := range h.chunks {
		for len(b) > 0 {
			var e event
			e, b = h.decode(b, at)
			at = e.at
			fewer.add(&e)
		}
		h.chunks[i] = nil // each chunk is free as soon as it was read
	}
	*h = fewer
}

// each calls f for every request, until it returns false.
func (h *history) each(f func(e event) bool) {
	var at int64
	for _, b := range h.chunks {
		for len(b) > 0 {
			var e event
			e, b = h.decode(b, at)
			at = e.at
			if !f(e) {
				return
			}
		}
	}
}

func (h *history) decode(b []byte, last int64) (event, []byte) {
	delta, n := binary.Uvarint(b)
	b = b[n:]
	what, n := binary.Uvarint(b)
	b = b[n:]
	e := event{at: last + int64(delta), cost: 1, id: uint32(what >> 1)}
	if what&1 == 1 {
		cost, n := binary.Uvarint(b)
		e.cost = int64(cost)
		b = b[n:]
	}
	if h.ends {
		took, n := binary.Uvarint(b)
		e.end = e.at + int64(took)
		b = b[n:]
	}
	return e, b
}
