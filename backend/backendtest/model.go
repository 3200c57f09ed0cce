package backendtest

import (
	"cmp"
	"math/big"
	"slices"

	"github.com/ginlimit/ginlimit/backend"
)

// The model says what the right answers are. It shares no code and no formula with the algorithms:
// it keeps lists of charges and rational numbers, and it knows only how many units are in use at an
// instant. When a cost will fit, and when everything will have recovered, it finds by asking that
// again and again (bisection). Which limit finds which past it takes from a ranking of all pairs.
//
// Times are whole µs since the start of a schedule, and can be negative.

// history is what the model remembers of one limit of one key. It never changes: what would change
// it returns another.
type history interface {
	// aged returns the history as it is at now, under the limit that it was charged under.
	aged(now int64, l backend.Limit) history
	// moved returns the history as if everything had happened so much later.
	moved(by int64) history
	// used returns the units in use at an instant that is not before that of the history.
	used(at int64, l backend.Limit) *big.Rat
	// over reports whether nothing of it matters to any decision from now on.
	over(now int64, l backend.Limit) bool
	charged(now, units int64) history
	// carried returns the history under another limit that counts in the same way.
	carried(now int64, from, to backend.Limit) history
	// refunded reports whether it found anything to give back.
	refunded(now, charged, units int64, l backend.Limit) (_ history, given bool)
}

func newHistory(a backend.Algorithm, now int64) history {
	switch a {
	case backend.SlidingWindow:
		return slide{start: now}
	case backend.SlidingLog:
		return diary{}
	case backend.FixedWindow:
		return frame{start: now}
	default:
		return level{now, new(big.Rat)}
	}
}

func micros(l backend.Limit) int64 { return l.Period.Microseconds() }

func rat(n int64) *big.Rat { return new(big.Rat).SetInt64(n) }

func frac(a, b int64) *big.Rat { return big.NewRat(a, b) }

// mul returns n × f.
func mul(n int64, f *big.Rat) *big.Rat { return new(big.Rat).Mul(rat(n), f) }

func add(a, b *big.Rat) *big.Rat { return new(big.Rat).Add(a, b) }

func sub(a, b *big.Rat) *big.Rat { return new(big.Rat).Sub(a, b) }

// floor returns the largest integer that is not above r, which is not negative.
func floor(r *big.Rat) int64 { return new(big.Int).Quo(r.Num(), r.Denom()).Int64() }

// ceil returns the smallest integer that is not below r, which is not negative.
func ceil(r *big.Rat) int64 {
	n := floor(r)
	if rat(n).Cmp(r) < 0 {
		n++
	}
	return n
}

// stretched returns an age under one limit as the age that it is under another.
func stretched(age int64, from, l backend.Limit) int64 {
	return floor(mul(age, frac(micros(l), micros(from))))
}

// hit is a charge, or what is left of it.
type hit struct{ at, units int64 }

func sum(hits []hit) (n int64) {
	for _, h := range hits {
		n += h.units
	}
	return n
}

// takeOff takes units off the first hits, and returns what is left of them.
func takeOff(hits []hit, units int64) []hit {
	var left []hit
	for _, h := range hits {
		n := min(h.units, units)
		units -= n
		if h.units -= n; h.units > 0 {
			left = append(left, h)
		}
	}
	return left
}

// level is a token bucket: the units spent at an instant, and from there on refilled continuously.
type level struct {
	at    int64
	spent *big.Rat
}

func (h level) aged(now int64, l backend.Limit) history { return level{now, h.used(now, l)} }

func (h level) moved(by int64) history { return level{h.at + by, h.spent} }

func (h level) used(at int64, l backend.Limit) *big.Rat {
	spent := sub(h.spent, mul(at-h.at, frac(l.Count, micros(l))))
	if spent.Sign() < 0 {
		return new(big.Rat)
	}
	return spent
}

func (h level) over(now int64, l backend.Limit) bool { return h.used(now, l).Sign() == 0 }

func (h level) charged(now, units int64) history { return level{now, add(h.spent, rat(units))} }

func (h level) carried(now int64, from, to backend.Limit) history {
	if from.Count == to.Count && from.Period == to.Period {
		return h
	}
	return level{now, new(big.Rat).Quo(rat(ceil(mul(micros(to), h.spent))), rat(micros(to)))}
}

func (h level) refunded(now, charged, units int64, l backend.Limit) (history, bool) {
	full := mul(l.Capacity(), frac(micros(l), l.Count))
	if h.over(now, l) || rat(now-charged).Cmp(full) >= 0 {
		return h, false
	}
	spent := sub(h.spent, rat(units))
	if spent.Sign() < 0 {
		spent = new(big.Rat)
	}
	return level{now, spent}, true
}

// moved returns hits so much later.
func moved(hits []hit, by int64) (all []hit) {
	for _, h := range hits {
		all = append(all, hit{h.at + by, h.units})
	}
	return all
}

// frame is a fixed window.
type frame struct {
	start int64
	hits  []hit
}

// aged lets one window after another end, each with as many units as it may have.
func (h frame) aged(now int64, l backend.Limit) history {
	for now-h.start >= micros(l) && len(h.hits) > 0 {
		h = frame{h.start + micros(l), takeOff(h.hits, l.Count)}
	}
	return h
}

func (h frame) moved(by int64) history { return frame{h.start + by, moved(h.hits, by)} }

func (h frame) used(at int64, l backend.Limit) *big.Rat {
	return rat(sum(h.aged(at, l).(frame).hits))
}

func (h frame) over(now int64, l backend.Limit) bool {
	return now-h.start >= micros(l) && h.used(now, l).Sign() == 0
}

func (h frame) charged(now, units int64) history {
	return frame{h.start, append(slices.Clone(h.hits), hit{now, units})}
}

func (h frame) carried(now int64, from, to backend.Limit) history {
	return frame{now - stretched(now-h.start, from, to), h.hits}
}

func (h frame) refunded(_, charged, units int64, l backend.Limit) (history, bool) {
	if charged < h.start || charged >= h.start+micros(l) || len(h.hits) == 0 {
		return h, false
	}
	return frame{h.start, takeOff(h.hits, units)}, true
}

// slide is a sliding window: the charges of the window that began at start, and of the one before.
type slide struct {
	start        int64
	hits, before []hit
}

func (h slide) aged(now int64, l backend.Limit) history {
	if now-h.start >= micros(l) {
		return slide{h.start + micros(l), nil, h.hits}
	}
	return h
}

func (h slide) moved(by int64) history {
	return slide{h.start + by, moved(h.hits, by), moved(h.before, by)}
}

// used gives each window the share of it that the sliding window still covers.
func (h slide) used(at int64, l backend.Limit) *big.Rat {
	n := new(big.Rat)
	for i, hits := range [][]hit{h.hits, h.before} {
		gone := sub(frac(at-h.start, micros(l)), rat(int64(1-i))) // of the window after it
		share := sub(rat(1), gone)
		if gone.Sign() < 0 {
			share = rat(1)
		}
		if share.Sign() > 0 {
			n = add(n, mul(sum(hits), share))
		}
	}
	return n
}

func (h slide) over(now int64, l backend.Limit) bool {
	age := now - h.start
	return age >= 2*micros(l) || age >= micros(l) && len(h.hits) == 0
}

func (h slide) charged(now, units int64) history {
	return slide{h.start, append(slices.Clone(h.hits), hit{now, units}), h.before}
}

func (h slide) carried(now int64, from, to backend.Limit) history {
	return slide{now - stretched(now-h.start, from, to), h.hits, h.before}
}

func (h slide) refunded(_, charged, units int64, l backend.Limit) (history, bool) {
	switch age := charged - h.start; {
	case age >= micros(l) || age < -micros(l):
		return h, false
	case age >= 0:
		return slide{h.start, takeOff(h.hits, units), h.before}, len(h.hits) > 0
	default:
		return slide{h.start, h.hits, takeOff(h.before, units)}, len(h.before) > 0
	}
}

// diary is a sliding log.
type diary struct{ hits []hit }

func (h diary) aged(now int64, l backend.Limit) history {
	var young diary
	for _, c := range h.hits {
		if now-c.at < micros(l) {
			young.hits = append(young.hits, c)
		}
	}
	return young
}

func (h diary) moved(by int64) history { return diary{moved(h.hits, by)} }

func (h diary) used(at int64, l backend.Limit) *big.Rat {
	return rat(sum(h.aged(at, l).(diary).hits))
}

func (h diary) over(now int64, l backend.Limit) bool { return h.used(now, l).Sign() == 0 }

func (h diary) charged(now, units int64) history {
	return diary{append(slices.Clone(h.hits), hit{now, units})}
}

func (h diary) carried(now int64, from, to backend.Limit) history {
	var others diary
	for _, c := range h.hits {
		others.hits = append(others.hits, hit{now - stretched(now-c.at, from, to), c.units})
	}
	return others
}

func (h diary) refunded(_, charged, units int64, _ backend.Limit) (history, bool) {
	var then, others []hit
	for _, c := range h.hits {
		if c.at == charged {
			then = append(then, c)
		} else {
			others = append(others, c)
		}
	}
	left := slices.Concat(others, takeOff(then, units))
	slices.SortStableFunc(left, func(a, b hit) int { return cmp.Compare(a.at, b.at) })
	return diary{left}, len(then) > 0
}

// place is what the model keeps at one position of a key: a history and the limit that it was
// charged under, or nothing.
type place struct {
	h     history
	limit backend.Limit
}

// kept is what the model keeps of a key, and since when.
type kept struct {
	places []place
	since  int64
}

// model is a backend that is right and slow.
type model struct{ keys map[string]kept }

// answer is what a Take must say.
type answer struct {
	Allowed   bool
	Limit     backend.Limit
	Remaining int64
	Retry     int64 // µs, negative for never
	Reset     int64 // µs
	Used      int64
}

func stateless(l backend.Limit) bool { return l.Count == 0 || l.IsUnlimited() }

// keeping reports whether one of limits keeps a state.
func keeping(limits []backend.Limit) bool {
	return slices.ContainsFunc(limits, func(l backend.Limit) bool { return !stateless(l) })
}

// seen returns a key's places as they are at now. What is over is as if it began now. If the clock
// went back, which it reports, no time has passed.
func (m *model) seen(key string, now int64) (places []place, back bool) {
	k := m.keys[key]
	back = len(k.places) > 0 && now < k.since
	for _, p := range k.places {
		if p.h != nil && back {
			p.h = p.h.moved(now - k.since)
		}
		if p.h != nil && p.h.over(now, p.limit) {
			p.h = newHistory(p.limit.Algorithm, now)
		} else if p.h != nil {
			p.h = p.h.aged(now, p.limit)
		}
		places = append(places, p)
	}
	return places, back
}

// pasts returns for each limit the place that is its past, empty if it has none, and the index of
// that place, or -1. All pairs of a limit and a place are ranked; the best goes first, and neither
// of the two is in another pair.
func pasts(places []place, limits []backend.Limit) (mine []place, from []int) {
	type pair struct{ rank, limit, place int }
	var pairs []pair
	for i, l := range limits {
		for j, p := range places {
			if p.h == nil || stateless(l) {
				continue
			}
			coeval := p.limit.Period == l.Period
			kin := p.limit.Algorithm == l.Algorithm && coeval
			same := kin && p.limit.Count == l.Count && p.limit.Capacity() == l.Capacity()
			switch {
			case same && i == j:
				pairs = append(pairs, pair{1, i, j})
			case same:
				pairs = append(pairs, pair{2, i, j})
			case kin && i == j:
				pairs = append(pairs, pair{3, i, j})
			case kin:
				pairs = append(pairs, pair{4, i, j})
			case coeval && i == j:
				pairs = append(pairs, pair{5, i, j})
			case coeval:
				pairs = append(pairs, pair{6, i, j})
			case i == j:
				pairs = append(pairs, pair{7, i, j})
			}
		}
	}
	slices.SortFunc(pairs, func(a, b pair) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.limit, b.limit), cmp.Compare(a.place, b.place))
	})
	mine, from = make([]place, len(limits)), slices.Repeat([]int{-1}, len(limits))
	for _, p := range pairs {
		if from[p.limit] < 0 && !slices.Contains(from, p.place) {
			mine[p.limit], from[p.limit] = places[p.place], p.place
		}
	}
	return mine, from
}

func (m *model) take(key string, now, cost int64, limits []backend.Limit) answer {
	places, back := m.seen(key, now)
	mine, _ := pasts(places, limits)
	answers, allowed := judged(mine, now, cost, limits)
	if cost > 0 && keeping(limits) {
		switch {
		case allowed:
			for i, l := range limits {
				if !stateless(l) {
					mine[i] = place{mine[i].under(now, l).charged(now, cost), l}
				}
			}
			m.keys[key] = kept{mine, now}
			answers, _ = judged(mine, now, 0, limits)
			for i := range answers {
				answers[i].Allowed, answers[i].Retry = true, 0
			}
		case back:
			m.keys[key] = kept{places, now}
		}
	}
	return answers[decisive(answers, allowed)]
}

// judge is a take that charges nothing.
func (m *model) judge(key string, now, cost int64, limits []backend.Limit) answer {
	places, _ := m.seen(key, now)
	mine, _ := pasts(places, limits)
	answers, allowed := judged(mine, now, cost, limits)
	return answers[decisive(answers, allowed)]
}

// takeAll takes all or none.
func (m *model) takeAll(now int64, charges []backend.Charge) []answer {
	all, allowed := make([]answer, len(charges)), true
	for i, c := range charges {
		all[i] = m.judge(c.Key, now, c.Cost, c.Limits)
		allowed = allowed && all[i].Allowed
	}
	for i, c := range charges {
		if allowed {
			all[i] = m.take(c.Key, now, c.Cost, c.Limits)
		} else if places, back := m.seen(c.Key, now); back && c.Cost > 0 && keeping(c.Limits) {
			m.keys[c.Key] = kept{places, now}
		}
	}
	return all
}

// usage returns what each limit alone says.
func (m *model) usage(key string, now int64, limits []backend.Limit) []answer {
	places, _ := m.seen(key, now)
	mine, _ := pasts(places, limits)
	answers, _ := judged(mine, now, 1, limits)
	return answers
}

// judged returns what each of limits says to a cost, and whether all allow it.
func judged(mine []place, now, cost int64, limits []backend.Limit) (answers []answer, allowed bool) {
	allowed = true
	for i, l := range limits {
		a := mine[i].answer(now, max(cost, 1), l)
		allowed = allowed && a.Allowed
		answers = append(answers, a)
	}
	return answers, allowed
}

// under returns the history at p as one under l.
func (p place) under(now int64, l backend.Limit) history {
	switch {
	case p.h == nil:
		return newHistory(l.Algorithm, now)
	case p.limit.Algorithm == l.Algorithm:
		return p.h.carried(now, p.limit, l)
	}
	h := newHistory(l.Algorithm, now)
	if units := ceil(p.h.used(now, p.limit)); units > 0 {
		h = h.charged(now, units)
	}
	return h
}

// decisive returns the index of the limit that decides.
func decisive(answers []answer, allowed bool) int {
	best := -1
	for i, a := range answers {
		switch {
		case a.Allowed != allowed:
		case best < 0,
			allowed && a.left() < answers[best].left(),
			!allowed && answers[best].Retry >= 0 && (a.Retry < 0 || a.Retry > answers[best].Retry):
			best = i
		}
	}
	return best
}

// left returns the units that fit, fewer than none in debt.
func (a answer) left() int64 {
	if a.Limit.IsUnlimited() {
		return a.Remaining
	}
	return a.Limit.Capacity() - a.Used
}

// answer returns what l says to a cost above 0 if p is its past.
func (p place) answer(now, cost int64, l backend.Limit) answer {
	a := answer{Limit: l, Remaining: l.Capacity(), Retry: -1}
	if p.h != nil {
		a.Used = ceil(p.h.used(now, p.limit))
		a.Remaining = max(0, l.Capacity()-a.Used)
		a.Reset = first(func(after int64) bool { return p.h.used(now+after, p.limit).Sign() == 0 })
	}
	switch {
	case cost > l.Capacity():
		return a
	case p.h == nil:
		a.Retry = 0
	default:
		a.Retry = first(func(after int64) bool {
			return add(p.h.used(now+after, p.limit), rat(cost)).Cmp(rat(l.Capacity())) <= 0
		})
	}
	a.Allowed = a.Retry == 0
	return a
}

// first returns the first n >= 0 from which on holds is true.
func first(holds func(n int64) bool) int64 {
	if holds(0) {
		return 0
	}
	low, high := int64(0), int64(1)
	for !holds(high) {
		low, high = high, 8*high
	}
	for high-low > 1 {
		if mid := low + (high-low)/2; holds(mid) {
			high = mid
		} else {
			low = mid
		}
	}
	return high
}

// settle corrects what a Take under limits was allowed to charge.
func (m *model) settle(key string, now, charged, cost, actual int64, limits []backend.Limit) {
	places, _ := m.seen(key, now)
	mine, from := pasts(places, limits)
	written := false
	if actual < cost {
		for i, j := range from {
			if j < 0 || places[j].limit.Algorithm != limits[i].Algorithm {
				continue
			}
			if h, found := places[j].h.refunded(now, charged, cost-actual, places[j].limit); found {
				places[j].h, written = h, true
			}
		}
	} else if actual > cost {
		for i, l := range limits {
			if stateless(l) {
				continue
			}
			written = true
			p := mine[i]
			if p.h == nil || ceil(p.h.used(now, p.limit)) <= l.Capacity() {
				p = place{p.under(now, l), l}
			}
			if room := 2*p.limit.Capacity() - ceil(p.h.used(now, p.limit)); room > 0 {
				p.h = p.h.charged(now, min(actual-cost, room))
			}
			mine[i] = p
		}
		places = mine
	}
	if written {
		m.keys[key] = kept{places, now}
	}
}

// fading reports whether something that the model remembers of key does not matter any more. A
// store may have forgotten it, so that nothing could be said about a clock that goes back.
func (m *model) fading(key string, now int64) bool {
	return slices.ContainsFunc(m.keys[key].places, func(p place) bool { return p.h != nil && p.h.over(now, p.limit) })
}
