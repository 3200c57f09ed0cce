package backendtest

import (
	"cmp"
	"math/big"
	"slices"
	"time"

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
	charged(now, units int64, l backend.Limit) history
	// carried returns the history under another limit that counts in the same way.
	carried(now int64, from, to backend.Limit) history
	// refunded reports whether it found anything to give back.
	refunded(now, charged, units int64, l backend.Limit) (_ history, given bool)
}

func newHistory(a backend.Algorithm, now int64) history {
	switch a {
	case backend.CalendarWindow:
		return page{start: now, end: now}
	case backend.Concurrency:
		return hold{}
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

// micros returns the Period, or about how long a calendar window is.
func micros(l backend.Limit) int64 {
	switch l.Algorithm {
	case backend.CalendarWindow:
		period, _ := l.Calendar.Numbers()
		return period
	case backend.Concurrency:
		return l.Hold().Microseconds()
	}
	return l.Period.Microseconds()
}

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

func (h level) charged(now, units int64, _ backend.Limit) history {
	return level{now, add(h.spent, rat(units))}
}

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

func (h frame) charged(now, units int64, _ backend.Limit) history {
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

func (h slide) charged(now, units int64, _ backend.Limit) history {
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

func (h diary) charged(now, units int64, _ backend.Limit) history {
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

// page is a window of a calendar: from start, before end. While more than the limit is used, next
// is the end of the one after it.
type page struct {
	start, end, next int64
	hits             []hit
}

// origin is the instant that times are relative to.
type origin time.Time

// pageOf returns the page of a calendar that now is in.
func (o origin) pageOf(now int64, l backend.Limit, hits []hit) page {
	µ := func(t time.Time) int64 { return t.Sub(time.Time(o)).Microseconds() }
	start, end := l.Calendar.Window(time.Time(o).Add(time.Duration(now) * µs))
	p := page{µ(start), µ(end), 0, hits}
	if sum(hits) > l.Count {
		_, next := l.Calendar.Window(end)
		p.next = µ(next)
	}
	return p
}

func (h page) aged(now int64, l backend.Limit) history {
	for now >= h.end && len(h.hits) > 0 {
		if h.next == 0 {
			return page{start: h.end, end: h.end}
		}
		h = page{h.end, h.next, 0, takeOff(h.hits, l.Count)}
	}
	return h
}

func (h page) moved(by int64) history {
	m := page{h.start + by, h.end + by, 0, moved(h.hits, by)}
	if h.next != 0 {
		m.next = h.next + by
	}
	return m
}

func (h page) used(at int64, l backend.Limit) *big.Rat { return rat(sum(h.aged(at, l).(page).hits)) }

func (h page) over(now int64, l backend.Limit) bool {
	return h.used(now, l).Sign() == 0 && now >= h.end
}

// charged is of a limit whose calendar nobody knows: the window stays.
func (h page) charged(now, units int64, _ backend.Limit) history {
	return page{h.start, h.end, h.next, append(slices.Clone(h.hits), hit{now, units})}
}

func (h page) carried(int64, backend.Limit, backend.Limit) history { return h }

func (h page) refunded(_, charged, units int64, _ backend.Limit) (history, bool) {
	if charged < h.start || charged >= h.end || len(h.hits) == 0 {
		return h, false
	}
	return page{h.start, h.end, h.next, takeOff(h.hits, units)}, true
}

// hold is the units that are held.
type hold struct{ diary }

func (h hold) aged(now int64, l backend.Limit) history {
	l.Period = l.Hold()
	return hold{h.diary.aged(now, l).(diary)}
}

func (h hold) moved(by int64) history { return hold{h.diary.moved(by).(diary)} }

func (h hold) used(at int64, l backend.Limit) *big.Rat {
	return rat(sum(h.aged(at, l).(hold).hits))
}

func (h hold) over(now int64, l backend.Limit) bool { return h.used(now, l).Sign() == 0 }

func (h hold) charged(now, units int64, l backend.Limit) history {
	return hold{h.diary.charged(now, units, l).(diary)}
}

func (h hold) carried(now int64, _, to backend.Limit) history { return h.aged(now, to) }

func (h hold) refunded(now, charged, units int64, l backend.Limit) (history, bool) {
	if units == 0 {
		return h, false
	}
	d, found := h.diary.refunded(now, charged, units, l)
	return hold{d.(diary)}, found
}

// place is what the model keeps at one position of a key: a history and the limit that it was
// charged under, or nothing.
type place struct {
	h     history
	limit backend.Limit
}

// kept is what the model keeps of a key, and since when.
type kept struct {
	places   []place
	refusals place // of the limit of a ban
	ban      *sentence
	since    int64
}

// sentence is a ban: until when, how long it was, and until when the next one is longer.
type sentence struct{ until, length, known int64 }

// model is a backend that is right and slow.
type model struct {
	origin origin
	keys   map[string]kept
}

// answer is what a Take must say.
type answer struct {
	Banned    bool
	Began     bool // the ban, with this decision
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

// seen returns what is kept of a key as it is at now. What is over is as if it began now. If the
// clock went back, which it reports, no time has passed.
func (m *model) seen(key string, now int64) (seen kept, back bool) {
	k := m.keys[key]
	by := min(0, now-k.since)
	back = by < 0 && (len(k.places) > 0 || k.refusals.h != nil || k.ban != nil)
	at := func(p place) place {
		if p.h != nil && back {
			p.h = p.h.moved(by)
		}
		if p.h != nil && p.h.over(now, p.limit) {
			p.h = newHistory(p.limit.Algorithm, now)
		} else if p.h != nil {
			p.h = p.h.aged(now, p.limit)
		}
		return p
	}
	seen.since = now
	for _, p := range k.places {
		seen.places = append(seen.places, at(p))
	}
	if p := k.refusals; p.h != nil && (back || !p.h.over(now, p.limit)) {
		if p = at(p); !p.h.over(now, p.limit) {
			seen.refusals = p
		}
	}
	if b := k.ban; b != nil {
		if back {
			b = &sentence{b.until + by, b.length, b.known + by}
		}
		if now < b.known {
			seen.ban = b
		}
	}
	return seen, back
}

// unaged returns the places of a key as they were written, which a refusal does not change.
func (m *model) unaged(key string, now int64) (places []place) {
	k := m.keys[key]
	for _, p := range k.places {
		if p.h != nil && now < k.since {
			p.h = p.h.moved(now - k.since)
		}
		places = append(places, p)
	}
	return places
}

// left returns for how long a key is still banned.
func (k *kept) left(now int64) int64 {
	if k.ban == nil {
		return 0
	}
	return max(0, k.ban.until-now)
}

// refuse counts a refusal under the limit of a ban, and reports whether a ban began with it.
func (k *kept) refuse(m *model, now int64, l backend.Limit) (began bool) {
	first, longest, _ := l.Bans()
	l = l.WithoutBan()
	if a := k.refusals.answer(now, 1, l); a.Allowed && !stateless(l) {
		k.refusals = m.charged(k.refusals, now, 1, l)
		return false
	}
	length := first.Microseconds()
	if k.ban != nil && k.ban.length > 0 && now < k.ban.until+longest.Microseconds() {
		length = min(2*k.ban.length, longest.Microseconds())
	}
	k.refusals = place{}
	k.ban = &sentence{now + length, length, now + length + longest.Microseconds()}
	return true
}

// ban bans by hand.
func (m *model) ban(key string, now, length int64) {
	k, _ := m.seen(key, now)
	last := sentence{}
	if k.ban != nil {
		last = *k.ban
	}
	k.ban = &sentence{now + length, last.length, now + length + last.known - last.until}
	m.keys[key] = kept{m.unaged(key, now), k.refusals, k.ban, now}
}

// parted returns limits without that of a ban, and that, if there is one.
func parted(limits []backend.Limit) (own []backend.Limit, ban *backend.Limit) {
	last := len(limits) - 1
	if _, _, ok := limits[last].Bans(); ok && last > 0 {
		return limits[:last], &limits[last]
	}
	return limits, nil
}

// charged returns p after a charge under l, which becomes its limit.
func (m *model) charged(p place, now, units int64, l backend.Limit) place {
	h := m.under(p, now, l)
	if old, ok := h.(page); ok {
		return place{m.origin.pageOf(now, l, append(slices.Clone(old.hits), hit{now, units})), l}
	}
	return place{h.charged(now, units, l), l}
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
			coeval := micros(p.limit) == micros(l)
			kin := p.limit.Algorithm == l.Algorithm && coeval
			same := kin && p.limit.Count == l.Count && p.limit.Capacity() == l.Capacity() && p.limit.Calendar == l.Calendar
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
	k, back := m.seen(key, now)
	own, ban := parted(limits)
	mine, _ := pasts(k.places, own)
	answers, allowed := judged(mine, now, cost, own)
	began := false
	switch {
	case cost == 0 || !keeping(own) && ban == nil:
	case k.left(now) == 0 && allowed && keeping(own):
		for i, l := range own {
			if !stateless(l) {
				mine[i] = m.charged(mine[i], now, cost, l)
			}
		}
		m.keys[key] = kept{mine, k.refusals, k.ban, now}
		answers, _ = judged(mine, now, 0, own)
		for i := range answers {
			answers[i].Allowed, answers[i].Retry = true, 0
		}
	case k.left(now) == 0 && !allowed && ban != nil:
		began = k.refuse(m, now, *ban)
		m.keys[key] = kept{m.unaged(key, now), k.refusals, k.ban, now}
	case back && (keeping(own) || ban != nil) && (!allowed || k.left(now) > 0):
		m.keys[key] = k
	}
	a := k.says(now, answers, allowed, own, ban)
	a.Began = began
	return a
}

// says returns the answer of the limit that decides, or of a ban.
func (k *kept) says(now int64, answers []answer, allowed bool, own []backend.Limit, ban *backend.Limit) answer {
	a := answers[decisive(answers, allowed)]
	if left := k.left(now); left > 0 && (keeping(own) || ban != nil) {
		a.Allowed, a.Banned = false, true
		if a.Retry >= 0 && a.Retry < left {
			if a.Remaining, a.Retry, a.Reset = 0, left, left; ban != nil {
				a.Limit = *ban
			}
			if a.Used = a.Limit.Capacity(); a.Limit.IsUnlimited() {
				a.Used = 0
			}
		}
	}
	return a
}

// judge is a take that charges nothing.
func (m *model) judge(key string, now, cost int64, limits []backend.Limit) answer {
	k, _ := m.seen(key, now)
	own, ban := parted(limits)
	mine, _ := pasts(k.places, own)
	answers, allowed := judged(mine, now, cost, own)
	return k.says(now, answers, allowed, own, ban)
}

// takeAll takes all or none.
func (m *model) takeAll(now int64, charges []backend.Charge) []answer {
	all, allowed := make([]answer, len(charges)), true
	for i, c := range charges {
		all[i] = m.judge(c.Key, now, c.Cost, c.Limits)
		allowed = allowed && all[i].Allowed
	}
	for i, c := range charges {
		own, ban := parted(c.Limits)
		if allowed || !all[i].Allowed && ban != nil {
			all[i] = m.take(c.Key, now, c.Cost, c.Limits)
		} else if k, back := m.seen(c.Key, now); back && c.Cost > 0 && (keeping(own) || ban != nil) {
			m.keys[c.Key] = k
		}
	}
	return all
}

// usage returns what each limit alone says.
func (m *model) usage(key string, now int64, limits []backend.Limit) []answer {
	k, _ := m.seen(key, now)
	own, _ := parted(limits)
	mine, _ := pasts(k.places, own)
	answers, _ := judged(mine, now, 1, own)
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
func (m *model) under(p place, now int64, l backend.Limit) history {
	if l.Algorithm == backend.CalendarWindow {
		var hits []hit
		if old, ok := p.h.(page); ok {
			hits = old.hits
		} else if p.h != nil {
			if units := ceil(p.h.used(now, p.limit)); units > 0 {
				hits = []hit{{now, units}}
			}
		}
		return m.origin.pageOf(now, l, hits)
	}
	switch {
	case p.h == nil:
		return newHistory(l.Algorithm, now)
	case p.limit.Algorithm == l.Algorithm:
		return p.h.carried(now, p.limit, l)
	}
	h := newHistory(l.Algorithm, now)
	if units := ceil(p.h.used(now, p.limit)); units > 0 {
		h = h.charged(now, units, l)
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
	case p.limit.Algorithm == backend.Concurrency && a.Used+cost > l.Capacity():
		a.Retry = 1_000_000
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

// settle corrects what a Take under limits was allowed to charge, and gives back what it holds.
func (m *model) settle(key string, now, charged, cost, actual, held int64, limits []backend.Limit) {
	k, _ := m.seen(key, now)
	own, _ := parted(limits)
	mine, from := pasts(k.places, own)
	written := false
	if actual <= cost {
		for i, j := range from {
			if j < 0 || k.places[j].limit.Algorithm != own[i].Algorithm {
				continue
			}
			back := cost - actual
			if own[i].Algorithm == backend.Concurrency {
				back = held
			}
			if h, found := k.places[j].h.refunded(now, charged, back, k.places[j].limit); found && back > 0 {
				k.places[j].h, written = h, true
			}
		}
	} else {
		for i, l := range own {
			if stateless(l) {
				continue
			}
			written = true
			p := mine[i]
			if l.Algorithm == backend.Concurrency {
				if p.h != nil && p.h.used(now, p.limit).Sign() == 0 {
					p = place{}
				}
				if p.h != nil && p.limit.Algorithm == l.Algorithm {
					p.h, _ = p.h.refunded(now, charged, held, p.limit)
				}
				mine[i] = p
				continue
			}
			takeOver := p.h == nil || ceil(p.h.used(now, p.limit)) <= l.Capacity()
			if takeOver {
				p = place{m.under(p, now, l), l}
			}
			if room := 2*p.limit.Capacity() - ceil(p.h.used(now, p.limit)); room > 0 {
				units := min(actual-cost, room)
				if same := p.limit; takeOver || same.Count == l.Count && same.Calendar == l.Calendar {
					p = m.charged(p, now, units, p.limit)
				} else {
					p.h = p.h.charged(now, units, p.limit)
				}
			}
			mine[i] = p
		}
		k.places = mine
	}
	if written {
		m.keys[key] = k
	}
}

// renew holds units for another Period.
func (m *model) renew(key string, now, charged, held int64, limits []backend.Limit) {
	own, _ := parted(limits)
	if held == 0 || !slices.ContainsFunc(own, func(l backend.Limit) bool { return l.Algorithm == backend.Concurrency && !stateless(l) }) {
		return
	}
	k, _ := m.seen(key, now)
	next := m.unaged(key, now)
	if !slices.ContainsFunc(next, func(p place) bool { return p.h != nil && !p.h.over(now, p.limit) }) {
		k.places, next = nil, nil
	}
	for len(k.places) < len(own) {
		k.places, next = append(k.places, place{}), append(next, place{})
	}
	_, from := pasts(k.places, own)
	for i, l := range own {
		if l.Algorithm != backend.Concurrency || stateless(l) {
			continue
		}
		j := from[i]
		if j < 0 {
			if j = i; k.places[j].h != nil {
				continue
			}
			k.places[j] = place{newHistory(l.Algorithm, now), l}
		}
		p := k.places[j]
		if p.limit.Algorithm != backend.Concurrency {
			continue
		}
		p.h, _ = p.h.refunded(now, charged, held, p.limit)
		if room := 2*p.limit.Capacity() - ceil(p.h.used(now, p.limit)); room > 0 {
			p.h = p.h.charged(now, min(held, room), p.limit)
		}
		next[j] = p
	}
	m.keys[key] = kept{next, k.refusals, k.ban, now}
}

// fading reports whether something that the model remembers of key does not matter any more. A
// store may have forgotten it, so that nothing could be said about a clock that goes back.
func (m *model) fading(key string, now int64) bool {
	k := m.keys[key]
	over := func(p place) bool { return p.h != nil && p.h.over(now, p.limit) }
	return slices.ContainsFunc(k.places, over) || over(k.refusals) || k.ban != nil && now >= k.ban.known
}
