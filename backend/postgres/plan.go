package postgres

import (
	"math"
	"math/bits"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/algorithm"
	"github.com/ginlimit/ginlimit/internal/plans"
)

// layout is the version of the layout of a row, with which its rules begin.
const layout = "1"

// plan is a list of limits with everything worked out that a call under them needs.
type plan struct {
	limits    []backend.Limit // without that of a ban
	rules     []*algorithm.Rule
	numbers   [][4]int64 // kind, count, period and burst of each of limits, as a row names them
	text      string     // their rules, as a row names them
	shape     string     // which statement decides at once, see statements.take; "" if only the function can
	logs      bool       // a row can be long
	stateless bool       // decisions look at no row
	keeps     bool       // one of limits keeps a state
	one       []any      // the arguments of the shape for a cost of 1

	ban       []int64            // as refuse of functions.sql has it; nil if no refusals are counted
	calendars []backend.Calendar // of limits, in their order, and of ban
	dated     int                // how many of calendars are of limits
	windows   atomic.Pointer[windows]
}

// windows are those of calendars that an instant is in: the start, the end, and the end of the next
// one, of each.
type windows struct {
	from, until int64 // they are these for any instant between
	all         []int64
}

// windowsAt returns the windows of the plan's calendars that an instant is in. Without calendars
// they are nil, which is NULL for the database.
func (p *plan) windowsAt(at int64) []int64 {
	if len(p.calendars) == 0 {
		return nil
	}
	w := p.windows.Load()
	if w == nil || at < w.from || at >= w.until {
		w = &windows{from: math.MinInt64, until: math.MaxInt64}
		for _, c := range p.calendars {
			start, end, next := algorithm.Boundaries(c, at)
			w.from, w.until, w.all = max(w.from, start), min(w.until, end), append(w.all, start, end, next)
		}
		p.windows.Store(w)
	}
	return w.all
}

// is reports whether p was made of limits, whatever their names.
func (p *plan) is(limits []backend.Limit) bool { return plans.Decide(p.rules, limits) }

// The kinds of slots, as rows and functions.sql name them.
const (
	unlimited      = 4
	blocked        = 5
	calendarWindow = 6
	concurrency    = 7
	counting       = 100 // and more: a limit of refusals
	banned         = 200
)

// kindOf returns the kind of a limit's slot: that of its algorithm, or that of a limit that keeps
// no state.
func kindOf(l *backend.Limit) int64 {
	switch {
	case l.IsUnlimited():
		return unlimited
	case stateless(l):
		return blocked
	case l.Algorithm == backend.CalendarWindow:
		return calendarWindow
	case l.Algorithm == backend.Concurrency:
		return concurrency
	default:
		return int64(l.Algorithm)
	}
}

// stateless reports whether l keeps no state. The limit of a ban is none by itself: where it is not
// the last of several it blocks.
func stateless(l *backend.Limit) bool { return l.Count == 0 || l.IsUnlimited() || bans(l) }

// bans reports whether l is the limit of a ban.
func bans(l *backend.Limit) bool {
	_, _, ok := l.Bans()
	return ok
}

// numbersOf returns kind, count, period and burst of a limit, as a row names them.
func numbersOf(l *backend.Limit) [4]int64 {
	switch kind := kindOf(l); kind {
	case unlimited, blocked:
		return [4]int64{kind}
	case calendarWindow:
		period, id := l.Calendar.Numbers()
		return [4]int64{kind, l.Count, period, id}
	case concurrency:
		return [4]int64{kind, l.Count, l.Hold().Microseconds()}
	default:
		if l.Burst == l.Count { // the same rule is called the same
			return [4]int64{kind, l.Count, l.Period.Microseconds()}
		}
		return [4]int64{kind, l.Count, l.Period.Microseconds(), l.Burst}
	}
}

// hasLog reports whether a slot of a kind has a log.
func hasLog(kind int64) bool {
	return kind == int64(backend.SlidingLog) || kind == concurrency || kind == counting+int64(backend.SlidingLog)
}

// maxQuick is the largest number of limits that a statement of its own decides for.
const maxQuick = 8

func newPlan(limits []backend.Limit) (*plan, error) {
	p := &plan{}
	for _, l := range limits {
		r, err := algorithm.NewRule(l)
		if err != nil {
			return nil, err
		}
		p.rules = append(p.rules, r)
	}
	own := slices.Clone(limits)
	last := len(limits) - 1
	counts := last > 0 && bans(&limits[last])
	if counts {
		own = own[:last]
	}
	p.limits = own
	p.stateless = !algorithm.Looks(p.rules)
	text := []byte(layout)
	quick := len(own) <= maxQuick
	var shape []byte
	for i := range own {
		l := &own[i]
		numbers := numbersOf(l)
		p.numbers = append(p.numbers, numbers)
		for _, n := range numbers {
			text = strconv.AppendInt(append(text, ' '), n, 10)
		}
		if numbers[0] == calendarWindow {
			p.calendars = append(p.calendars, l.Calendar)
		}
		p.logs = p.logs || hasLog(numbers[0])
		p.keeps = p.keeps || !stateless(l)
		letter := shapeOf(l)
		quick = quick && letter != 0
		shape = append(shape, letter)
	}
	p.dated = len(p.calendars)
	p.text = string(text)
	if counts {
		refusals := limits[last].WithoutBan()
		numbers := numbersOf(&refusals)
		first, longest := p.rules[last].Durations()
		if p.ban = append(numbers[:], first, longest); numbers[0] == calendarWindow {
			p.calendars = append(p.calendars, refusals.Calendar)
		}
	}
	if quick && p.keeps {
		p.shape = string(shape)
		p.one, _ = p.args(1)
	}
	return p, nil
}

// ruleOf returns the rule with the numbers of a row's slot, nil if there can be none. It is nearly
// always that of the plan at the slot's place.
func (p *plan) ruleOf(place int, n []int64) *algorithm.Rule {
	if place < len(p.limits) && p.numbers[place] == [4]int64(n) {
		return p.rules[place]
	}
	if n[0] >= counting && n[0] < counting+concurrency {
		if refusals := pastRule(n[0]-counting, n); refusals != nil {
			return refusals.Counting()
		}
		return nil
	}
	return pastRule(n[0], n)
}

// pastRule returns the rule of a kind with the numbers of a row's slot, nil if there can be none.
func pastRule(kind int64, n []int64) *algorithm.Rule {
	l := backend.Limit{Count: n[1], Period: time.Duration(n[2]) * time.Microsecond, Burst: n[3]}
	switch {
	case n[1] == math.MaxInt64 || n[2] < 0 || n[2] > backend.MaxPeriod.Microseconds():
		return nil
	case kind == calendarWindow:
		r, err := algorithm.PastCalendar(n[1], n[2], n[3])
		if err != nil {
			return nil
		}
		return r
	case kind == concurrency:
		l.Algorithm = backend.Concurrency
	case kind >= 0 && kind <= int64(backend.FixedWindow):
		l.Algorithm = backend.Algorithm(kind)
	default:
		return nil
	}
	r, err := algorithm.NewRule(l)
	if err != nil || r.Stateless() {
		return nil
	}
	return r
}

// shapeOf returns the letter of a limit in a shape, 0 if there is none: w is a token bucket whose
// spans are whole microseconds, t any other, f a fixed window, s a sliding window whose products
// fit into a bigint, c a calendar window, u no limit.
func shapeOf(l *backend.Limit) byte {
	switch kindOf(l) {
	case unlimited:
		return 'u'
	case int64(backend.TokenBucket):
		if _, num := spanOf(l, 1); num == 0 {
			return 'w'
		}
		return 't'
	case int64(backend.FixedWindow):
		return 'f'
	case calendarWindow:
		return 'c'
	case int64(backend.SlidingWindow):
		if hi, lo := bits.Mul64(uint64(l.Count), uint64(l.Period.Microseconds())); hi == 0 && lo <= math.MaxInt64 {
			return 's'
		}
	}
	return 0
}

// args returns the arguments of the shape for a cost, and whether the shape can decide for it: not
// above a capacity.
func (p *plan) args(cost int64) ([]any, bool) {
	if cost == 1 && p.one != nil {
		return p.one, true
	}
	args := make([]any, 0, 4*len(p.limits))
	for i := range p.limits {
		l := &p.limits[i]
		if cost > l.Capacity() {
			return nil, false
		}
		switch p.shape[i] {
		case 'w':
			us, _ := spanOf(l, cost)
			full, _ := spanOf(l, l.Capacity())
			args = append(args, us, full)
		case 't':
			us, num := spanOf(l, cost)
			full, _ := spanOf(l, l.Capacity())
			args = append(args, us, num, full, l.Count)
		case 'f', 's':
			args = append(args, l.Count, l.Period.Microseconds())
		case 'c':
			args = append(args, l.Count)
		}
	}
	return args, true
}

// spanOf returns the time in which a bucket refills units, at most its capacity: microseconds, and
// 1/Count of one. Validate has made sure that it fits.
func spanOf(l *backend.Limit, units int64) (us, num int64) {
	hi, lo := bits.Mul64(uint64(units), uint64(l.Period.Microseconds()))
	q, r := bits.Div64(hi, lo, uint64(l.Count))
	return int64(q), int64(r)
}
