package replay

import (
	"container/heap"
	"math"
	"time"

	"github.com/ginlimit/ginlimit/backend"
)

// longest is what a request is taken to last at most. It is shorter than a place in flight is held.
const longest = backend.MaxPeriod - time.Second

// flight is a request that goes on.
type flight struct {
	end, at int64 // µs since 1970
	cost    int64
	id      uint32
	held    uint8 // a bit for each scenario, by its place, that holds units until the end
}

// flights is those that go on, in log time: a heap by their ends.
type flights []flight

func (h flights) Len() int           { return len(h) }
func (h flights) Less(i, j int) bool { return h[i].end < h[j].end }
func (h flights) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *flights) Push(x any) { *h = append(*h, x.(flight)) }

// Pop implements heap.Interface.
func (h *flights) Pop() any {
	last := len(*h) - 1
	f := (*h)[last]
	*h = (*h)[:last]
	return f
}

// begin adds a request. One that was moved to the time that the log has reached still ends when it
// did.
func (h *flights) begin(e *event, held uint8) {
	heap.Push(h, flight{end: max(e.at, e.end), at: e.at, cost: e.cost, id: e.id, held: held})
}

// over returns the next request that has ended at now. What ends at an instant is given back before
// what begins then is decided.
func (h *flights) over(now int64) (f flight, ok bool) {
	if len(*h) == 0 || (*h)[0].end > now {
		return f, false
	}
	return heap.Pop(h).(flight), true
}

// land gives back what requests held that have ended at now.
func (r *run) land(now int64) {
	for f, ok := r.flights.over(now); ok; f, ok = r.flights.over(now) {
		c := r.callers.of(f.id)
		if r.rates.atOnce && c.inWindow != math.MaxUint32 { // which is where it stopped counting
			c.inWindow -= uint32(f.cost)
		}
		if f.held == 0 {
			continue
		}
		states, logs := r.places.of(c.place)
		for i, t := range r.tallies {
			n := len(t.law.rules)
			if f.held>>i&1 == 1 {
				t.law.settle(states[:n], logs[:n], f.end, f.at, f.cost)
			}
			states, logs = states[n:], logs[n:]
		}
	}
}
