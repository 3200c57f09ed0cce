package postgres

import (
	"math"
	"math/bits"
	"slices"
	"strconv"
	"time"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/algorithm"
	"github.com/ginlimit/ginlimit/internal/plans"
)

// layout is the version of the layout of a row, with which its rules begin.
const layout = "1"

// plan is a list of limits with everything worked out that a call under them needs.
type plan struct {
	limits    []backend.Limit
	rules     []*algorithm.Rule
	numbers   [][4]int64 // kind, count, period and burst of each, as a row names them
	text      string     // the rules, as a row names them
	shape     string     // which statement decides at once, see statements.take; "" if only the function can
	logs      bool       // a row can be long
	stateless bool       // no limit keeps a state
	one       []any      // the arguments of the shape for a cost of 1
}

// is reports whether p was made of limits, whatever their names.
func (p *plan) is(limits []backend.Limit) bool { return plans.Decide(p.rules, limits) }

// The kinds of slots, as rows and functions.sql name them.
const (
	unlimited = 4
	blocked   = 5
)

// kindOf returns the kind of a limit's slot: that of its algorithm, or that of a limit that keeps
// no state.
func kindOf(l *backend.Limit) int64 {
	switch {
	case l.IsUnlimited():
		return unlimited
	case l.Count == 0:
		return blocked
	default:
		return int64(l.Algorithm)
	}
}

func stateless(l *backend.Limit) bool { return l.Count == 0 || l.IsUnlimited() }

// maxQuick is the largest number of limits that a statement of its own decides for.
const maxQuick = 8

func newPlan(limits []backend.Limit) (*plan, error) {
	p := &plan{limits: slices.Clone(limits), stateless: true}
	text := []byte(layout)
	quick := len(limits) <= maxQuick
	var shape []byte
	for i := range limits {
		l := &limits[i]
		r, err := algorithm.NewRule(*l)
		if err != nil {
			return nil, err
		}
		p.rules = append(p.rules, r)
		numbers := [4]int64{kindOf(l)}
		if !stateless(l) {
			numbers = [4]int64{kindOf(l), l.Count, l.Period.Microseconds(), l.Burst}
			if l.Burst == l.Count { // the same rule is called the same
				numbers[3] = 0
			}
			p.stateless = false
		}
		p.numbers = append(p.numbers, numbers)
		for _, n := range numbers {
			text = strconv.AppendInt(append(text, ' '), n, 10)
		}
		p.logs = p.logs || kindOf(l) == int64(backend.SlidingLog)
		letter := shapeOf(l)
		quick = quick && letter != 0
		shape = append(shape, letter)
	}
	p.text = string(text)
	if quick {
		p.shape = string(shape)
		p.one, _ = p.args(1)
	}
	return p, nil
}

// ruleOf returns the rule with the numbers of a row's slot, nil if there can be none. It is nearly
// always that of the plan at the slot's place.
func (p *plan) ruleOf(place int, n []int64) *algorithm.Rule {
	if place < len(p.rules) && p.numbers[place] == [4]int64(n) {
		return p.rules[place]
	}
	if n[0] < 0 || n[0] > int64(backend.FixedWindow) || n[1] == math.MaxInt64 || n[2] > backend.MaxPeriod.Microseconds() {
		return nil
	}
	l := backend.Limit{Count: n[1], Period: time.Duration(n[2]) * time.Microsecond, Burst: n[3], Algorithm: backend.Algorithm(n[0])}
	r, err := algorithm.NewRule(l)
	if err != nil || r.Stateless() {
		return nil
	}
	return r
}

// shapeOf returns the letter of a limit in a shape, 0 if there is none: w is a token bucket whose
// spans are whole microseconds, t any other, f a fixed window, s a sliding window whose products
// fit into a bigint, u no limit.
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
