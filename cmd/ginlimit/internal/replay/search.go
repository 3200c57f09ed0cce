package replay

import (
	"math"
	"math/bits"

	"github.com/ginlimit/ginlimit/backend"
)

// smallest looks for the smallest limits of the same shape that refuse no more than the target. The
// count of the first limit is what is looked for; counts and bursts of all are in proportion to it.
// It doubles the count until that is enough, or halves it until it is not, and then bisects. What a
// limit refuses need not fall with every unit of its count, so that a smaller one may do too: what
// is found is a limit that does, and whose count less one does not.
func (r *run) smallest() *Smallest {
	s := &Smallest{Target: r.Target.Share, Of: "requests", OneIn: 1 << r.history.shift}
	if r.Target.Callers {
		s.Of = "callers"
	}
	first := r.Limits[0]
	for _, l := range r.Limits {
		if l.IsUnlimited() || l.Count == 0 {
			s.None = "a limit that refuses all or nothing has no smaller one"
			return s
		}
	}
	look := r.newSearch()
	enough := func(n int64) (int64, bool) { return look.refused(scaled(r.Limits, n), r.Target) }
	good, bad := first.Count, int64(0)
	best, ok := enough(good)
	if ok {
		for step := good; good > 1; {
			step = max(1, step/2)
			n := max(1, good-step)
			refused, ok := enough(n)
			if !ok {
				bad = n
				break
			}
			good, best = n, refused
		}
	} else {
		for bad = good; ; bad = good {
			if good >= backend.MaxCount/2 {
				s.None = "no limit refuses so little"
				return s
			}
			good *= 2
			if best, ok = enough(good); ok {
				break
			}
		}
	}
	for good-bad > 1 {
		n := bad + (good-bad)/2
		if refused, ok := enough(n); ok {
			good, best = n, refused
		} else {
			bad = n
		}
	}
	for _, l := range scaled(r.Limits, good) {
		s.Limits = append(s.Limits, l.String())
	}
	s.Refused = best
	if s.Share = share(best, look.requests); r.Target.Callers {
		s.Share = share(best, look.callers)
	}
	return s
}

// scaled returns limits as they are if the count of the first is n, rounded up.
func scaled(limits []backend.Limit, n int64) []backend.Limit {
	of := limits[0].Count
	out := make([]backend.Limit, len(limits))
	for i, l := range limits {
		l.Count = max(1, proportion(l.Count, n, of))
		if l.Burst > 0 {
			l.Burst = max(1, proportion(l.Burst, n, of))
		}
		out[i] = l
	}
	return out
}

// proportion returns a×n/of, rounded up, and at most the largest count.
func proportion(a, n, of int64) int64 {
	hi, lo := bits.Mul64(uint64(a), uint64(n))
	lo, carry := bits.Add64(lo, uint64(of-1), 0)
	if hi += carry; hi >= uint64(of) {
		return backend.MaxCount
	}
	q, _ := bits.Div64(hi, lo, uint64(of))
	return int64(min(q, backend.MaxCount))
}

// search replays the history under one list of limits after another.
type search struct {
	r        *run
	requests int64    // in the history
	callers  int64    // in the history
	place    []uint32 // by caller, plus one; 0 for one that cannot be refused, or has not asked yet
	denied   []bool   // by place
}

func (r *run) newSearch() *search {
	n := int64(r.callers.n)
	step := int64(1) << r.history.shift
	return &search{r: r, requests: r.history.n, callers: (n + step - 1) / step, place: make([]uint32, n)}
}

// refused returns how many requests, or callers, limits refuse, and whether that is within target.
// Callers that ask for no more than a limit ever holds are left out: they are never refused. Once
// the target is missed it looks no further.
func (s *search) refused(limits []backend.Limit, target Target) (int64, bool) {
	l, err := newLaw(limits)
	if err != nil {
		return 0, false
	}
	most := int64(target.Share * float64(s.requests))
	if target.Callers {
		most = int64(target.Share * float64(s.callers))
	}
	capacity := int64(math.MaxInt64)
	for _, limit := range limits {
		capacity = min(capacity, limit.Capacity())
	}
	clear(s.place)
	m := newPlaces([]*law{l})
	var goOn flights
	var requests, callers int64
	s.denied = s.denied[:0]
	s.r.history.each(func(e event) bool {
		if units := s.r.callers.units(e.id); units <= capacity && units < math.MaxUint32 {
			return true
		}
		for f, ok := goOn.over(e.at); ok; f, ok = goOn.over(e.at) {
			states, logs := m.of(s.place[f.id])
			l.settle(states, logs, f.end, f.at, f.cost)
		}
		at := s.place[e.id]
		if at == 0 {
			at = m.place(e.id)
			s.place[e.id] = at
			s.denied = append(s.denied, false)
		}
		states, logs := m.of(at)
		if _, wait := l.take(states, logs, e.at, e.cost); wait != 0 {
			requests++
			if !s.denied[at-1] {
				s.denied[at-1] = true
				callers++
			}
		} else if l.holds && e.cost > 0 {
			goOn.begin(&e, 1)
		}
		if target.Callers {
			return callers <= most
		}
		return requests <= most
	})
	if target.Callers {
		return callers, callers <= most
	}
	return requests, requests <= most
}
