package backendtest

import (
	"math/big"
	"slices"

	"github.com/ginlimit/ginlimit/backend"
)

// The model says what the right answers are. It shares no code and no formula with the algorithms: it keeps
// lists of charges and rational numbers, and it knows only how many units fit at an instant. When a cost will
// fit, and when everything will have recovered, it finds by asking that again and again (bisection).
//
// Times are whole µs since the start of a schedule, and can be negative.

// history is what the model remembers of one limit of one key.
type history interface {
	// seen returns the history as limit l sees it at now: aged, carried over from the limit that it was
	// written under, and clamped. It says whether more than age has changed. h itself stays as it is.
	seen(now int64, from, l backend.Limit) (view history, changed bool)
	// free returns the units that fit at the instant of the view.
	free(l backend.Limit) *big.Rat
	charge(now, units int64)
	// refund reports whether it found anything to give back.
	refund(now, charged, units int64, l backend.Limit) bool
	// over reports whether nothing of it would matter to any later decision.
	over(now int64, l backend.Limit) bool
}

func newHistory(a backend.Algorithm, now int64) history {
	switch a {
	case backend.SlidingWindow:
		return &slide{start: now}
	case backend.SlidingLog:
		return &diary{}
	case backend.FixedWindow:
		return &frame{start: now}
	default:
		return &level{at: now, spent: new(big.Rat)}
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

func (h *level) seen(now int64, from, l backend.Limit) (history, bool) {
	changed := false
	spent := sub(h.spent, mul(now-h.at, frac(from.Count, micros(from)))) // more than before if the clock went back
	if spent.Sign() < 0 {
		spent = new(big.Rat)
	}
	if from.Count != l.Count || from.Period != l.Period {
		if most := rat(from.Capacity()); spent.Cmp(most) > 0 {
			spent = most
		}
		changed = spent.Sign() > 0
		spent = new(big.Rat).Quo(rat(ceil(mul(micros(l), spent))), rat(micros(l)))
	}
	if most := rat(l.Capacity()); spent.Cmp(most) > 0 {
		spent, changed = most, true
	}
	if from.Burst != l.Burst && spent.Sign() > 0 {
		changed = true
	}
	return &level{now, spent}, changed
}

func (h *level) free(l backend.Limit) *big.Rat { return sub(rat(l.Capacity()), h.spent) }

func (h *level) charge(_, units int64) { h.spent = add(h.spent, rat(units)) }

func (h *level) refund(now, charged, units int64, l backend.Limit) bool {
	full := mul(l.Capacity(), frac(micros(l), l.Count))
	if rat(now-charged).Cmp(full) >= 0 || h.spent.Sign() == 0 {
		return false
	}
	if h.spent = sub(h.spent, rat(units)); h.spent.Sign() < 0 {
		h.spent = new(big.Rat)
	}
	return true
}

func (h *level) over(now int64, l backend.Limit) bool {
	view, _ := h.seen(now, l, l)
	return view.(*level).spent.Sign() == 0
}

// frame is a fixed window.
type frame struct {
	start int64
	hits  []hit
}

func (h *frame) seen(now int64, from, l backend.Limit) (history, bool) {
	age := now - h.start
	if age >= micros(from) {
		return &frame{start: now}, false
	}
	changed := age < 0 || from.Period != l.Period
	view := &frame{now - stretched(max(0, age), from, l), slices.Clone(h.hits)}
	if above := sum(h.hits) - l.Count; above > 0 {
		view.hits, changed = takeOff(view.hits, above), true
	}
	return view, changed
}

func (h *frame) free(l backend.Limit) *big.Rat { return rat(l.Count - sum(h.hits)) }

func (h *frame) charge(now, units int64) { h.hits = append(h.hits, hit{now, units}) }

func (h *frame) refund(_, charged, units int64, l backend.Limit) bool {
	if charged < h.start || charged >= h.start+micros(l) || len(h.hits) == 0 {
		return false
	}
	h.hits = takeOff(h.hits, units)
	return true
}

func (h *frame) over(now int64, l backend.Limit) bool { return now-h.start >= micros(l) }

// slide is a sliding window: the charges of the window that began at start, and of the one before.
type slide struct {
	at, start    int64
	hits, before []hit
}

func (h *slide) seen(now int64, from, l backend.Limit) (history, bool) {
	view := &slide{at: now, start: h.start, hits: h.hits, before: h.before}
	for range 2 {
		if now-view.start >= micros(from) {
			view.start += micros(from)
			view.hits, view.before = nil, view.hits
		}
	}
	if now-view.start >= micros(from) || now >= h.start+micros(from) && len(view.before) == 0 {
		return &slide{at: now, start: now}, false // nothing in both: the next hit starts a window
	}
	changed := now < view.start || from.Period != l.Period
	view.start = now - stretched(max(0, now-view.start), from, l)
	if above := sum(view.hits) - l.Count; above > 0 {
		view.hits, changed = takeOff(view.hits, above), true
	}
	if room := l.Count - sum(view.hits); view.share(l).Sign() > 0 && len(view.before) > 0 {
		most := new(big.Rat).Quo(rat(room), view.share(l)) // the most of the window before that weighs no more than room
		if above := sub(rat(sum(view.before)), most); above.Sign() > 0 {
			view.before, changed = takeOff(view.before, ceil(above)), true
		}
	}
	return view, changed
}

// share returns what the sliding window still covers of the window before, at most all of it.
func (h *slide) share(l backend.Limit) *big.Rat {
	return sub(rat(1), frac(h.at-h.start, micros(l)))
}

func (h *slide) free(l backend.Limit) *big.Rat {
	return sub(rat(l.Count-sum(h.hits)), mul(sum(h.before), h.share(l)))
}

func (h *slide) charge(now, units int64) { h.hits = append(slices.Clone(h.hits), hit{now, units}) }

func (h *slide) refund(_, charged, units int64, l backend.Limit) bool {
	switch age := charged - h.start; {
	case age >= micros(l) || age < -micros(l):
		return false
	case age >= 0:
		h.hits, units = takeOff(h.hits, units), sum(h.hits)
	default:
		h.before, units = takeOff(h.before, units), sum(h.before)
	}
	return units > 0
}

func (h *slide) over(now int64, l backend.Limit) bool {
	age := now - h.start
	return age >= 2*micros(l) || age >= micros(l) && len(h.hits) == 0
}

// diary is a sliding log.
type diary struct{ hits []hit }

func (h *diary) seen(now int64, from, l backend.Limit) (history, bool) {
	view, changed := &diary{}, false
	for _, c := range h.hits {
		age := now - c.at
		if age >= micros(from) {
			continue
		}
		changed = changed || age < 0 || from.Period != l.Period
		view.hits = append(view.hits, hit{now - stretched(max(0, age), from, l), c.units})
	}
	if above := sum(view.hits) - l.Count; above > 0 {
		view.hits, changed = takeOff(view.hits, above), true
	}
	return view, changed
}

func (h *diary) free(l backend.Limit) *big.Rat { return rat(l.Count - sum(h.hits)) }

func (h *diary) charge(now, units int64) { h.hits = append(h.hits, hit{now, units}) }

func (h *diary) refund(_, charged, units int64, _ backend.Limit) bool {
	var then, others []hit
	for _, c := range h.hits {
		if c.at == charged {
			then = append(then, c)
		} else {
			others = append(others, c)
		}
	}
	h.hits = slices.Concat(others, takeOff(then, units))
	slices.SortStableFunc(h.hits, func(a, b hit) int { return int(a.at - b.at) })
	return len(then) > 0
}

func (h *diary) over(now int64, l backend.Limit) bool {
	for _, c := range h.hits {
		if now-c.at < micros(l) {
			return false
		}
	}
	return true
}

// place is what the model keeps at one position of a key: nothing, or a history and its limit.
type place struct {
	h     history
	limit backend.Limit
}

// see returns the history at p as l sees it at now.
func (p place) see(now int64, l backend.Limit) (history, bool) {
	if p.h == nil || p.limit.Algorithm != l.Algorithm {
		return newHistory(l.Algorithm, now), false
	}
	return p.h.seen(now, p.limit, l)
}

// model is a backend that is right and slow.
type model struct{ keys map[string][]place }

// answer is what a Take must say.
type answer struct {
	Allowed   bool
	Limit     backend.Limit
	Remaining int64
	Retry     int64 // µs, negative for never
	Reset     int64 // µs
}

func stateless(l backend.Limit) bool { return l.Count == 0 || l.IsUnlimited() }

func (m *model) take(key string, now, cost int64, limits []backend.Limit) answer {
	places := m.places(key, len(limits))
	answers := make([]answer, len(limits))
	views := make([]history, len(limits))
	changed := make([]bool, len(limits))
	allowed := true
	for i, l := range limits {
		if stateless(l) {
			answers[i] = answerStateless(l)
		} else {
			views[i], changed[i] = places[i].see(now, l)
			answers[i] = answerOf(views[i], now, max(cost, 1), l)
		}
		allowed = allowed && answers[i].Allowed
	}
	for i, l := range limits {
		if stateless(l) || cost == 0 || !allowed && !changed[i] {
			continue
		}
		if allowed {
			views[i].charge(now, cost)
			answers[i].Remaining -= cost
		}
		places[i] = place{views[i], l}
	}
	i := decisive(answers, allowed)
	if views[i] != nil {
		answers[i].Reset = first(func(after int64) bool { return unitsIn(views[i], now+after, limits[i]) == limits[i].Capacity() })
	}
	return answers[i]
}

// places returns the key's places, of which there are at least n.
func (m *model) places(key string, n int) []place {
	for len(m.keys[key]) < n {
		m.keys[key] = append(m.keys[key], place{})
	}
	return m.keys[key]
}

// decisive returns the index of the limit that decides.
func decisive(answers []answer, allowed bool) int {
	best := -1
	for i, a := range answers {
		switch {
		case a.Allowed != allowed:
		case best < 0,
			allowed && a.Remaining < answers[best].Remaining,
			!allowed && answers[best].Retry >= 0 && (a.Retry < 0 || a.Retry > answers[best].Retry):
			best = i
		}
	}
	return best
}

func answerStateless(l backend.Limit) answer {
	if l.IsUnlimited() {
		return answer{true, l, l.Count, 0, 0}
	}
	return answer{false, l, 0, -1, 0}
}

// answerOf returns the answer of one limit to a cost above 0, but for Reset.
func answerOf(view history, now, cost int64, l backend.Limit) answer {
	a := answer{Limit: l, Remaining: unitsIn(view, now, l), Retry: -1}
	if a.Allowed = cost <= a.Remaining; cost <= l.Capacity() {
		a.Retry = first(func(after int64) bool { return unitsIn(view, now+after, l) >= cost })
	}
	return a
}

// unitsIn returns the whole units that fit at an instant, if nothing happens until then.
func unitsIn(view history, at int64, l backend.Limit) int64 {
	later, _ := view.seen(at, l, l)
	return floor(later.free(l))
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

// refund gives back what a Take under limits was allowed to charge.
func (m *model) refund(key string, now, charged, cost int64, limits []backend.Limit) {
	for i, p := range m.keys[key] {
		if i >= len(limits) || p.h == nil || stateless(limits[i]) || p.limit.Algorithm != limits[i].Algorithm {
			continue
		}
		view, _ := p.see(now, p.limit)
		if view.refund(now, charged, cost, p.limit) {
			m.keys[key][i].h = view
		}
	}
}

// fading reports whether something that the model remembers of key does not matter any more. A store may have
// forgotten it, so that nothing could be said about a clock that goes back.
func (m *model) fading(key string, now int64) bool {
	return slices.ContainsFunc(m.keys[key], func(p place) bool { return p.h != nil && p.h.over(now, p.limit) })
}
