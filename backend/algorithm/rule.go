// Package algorithm is for authors of backends: the algorithms that limits are counted by, as pure
// integer functions of (state, now, limit, cost), one file each. A store wraps them with whatever
// keeps the state, as package memory does, or computes the same elsewhere, as package lua does.
// Applications need package backend alone.
//
// [Take] and [Settle] are the law: what a key remembers, and what becomes of it when its limits
// change. An algorithm is a row of the table that they work with. Both are named alike, in the same
// order, in Go, in Lua and in SQL.
package algorithm

import (
	"fmt"
	"math/bits"
	"sync/atomic"

	"github.com/ginlimit/ginlimit/backend"
)

// State is what a store remembers of one limit of one key. What the fields mean is the algorithm's,
// in whose file it says so; those that mean nothing are zero. A State belongs to the [Rule] that it
// was charged under.
//
// It goes through the table by value: a pointer would put each State on the heap. It has four words
// and no more, so that it travels in registers. With seven a decision in memory took three times as
// long.
type State struct {
	Time int64 // an instant: a bucket's arrival time, or the start of the current window
	Used int64 // units charged in the current window, or in the log
	// Rest is what a bucket's Time lacks, in 1/Count of a µs. For a sliding window it is the units
	// charged in the window before, and for a log how many charges at its front have left.
	Rest int64
	Log  *Log
}

// Log is the charges of a SlidingLog, oldest first, no two at one instant. Copies of a State share
// it, and a charge or a refund changes it.
type Log []Charge

// Charge is one entry of a Log.
type Charge struct {
	At    int64 // µs
	Units int64
}

// row is what an algorithm is. Its functions are named after it, as tokenBucketAge, and stand in
// this order in its file. All but carry and charge get a state with the rule that it was charged
// under, and all but expiry, shift and age one that has not expired and that age has brought up to
// now. Up to twice the capacity may be in use: see [Settle].
type row struct {
	// age brings a state up to now.
	age func(r *Rule, st State, now int64) State
	// used returns how many units are in use, rounded up.
	used func(r *Rule, st State, now int64) int64
	// until returns the shortest time after which no more than units are in use.
	until func(r *Rule, st State, now, units int64) int64
	// reset returns the instant from which nothing is in use.
	reset func(r *Rule, st State) int64
	// expiry returns the instant from which a state says nothing any more.
	expiry func(r *Rule, st State) int64
	// shift returns a state with all its times moved by so much.
	shift func(st State, by int64) State
	// carry returns, under r, a state of the same algorithm under old.
	carry func(r *Rule, st State, now int64, old *Rule) State
	// charge adds units, which must not be more than twice the capacity.
	charge func(r *Rule, st State, now, units int64) State
	// refund takes off units that were charged at an instant, and reports whether there was
	// anything to take off.
	refund func(r *Rule, st State, now, charged, units int64) (_ State, given bool)
	// quick is what the steps above come to where nothing changed, as Rule.Quick says;
	// docs/fast-paths.md has what it buys.
	quick quick
}

type quick func(r *Rule, st State, now, cost int64) (next State, a Answer, ok bool)

// algorithms has a row for each.
var algorithms = [...]row{
	backend.TokenBucket:    tokenBucket,
	backend.SlidingWindow:  slidingWindow,
	backend.SlidingLog:     slidingLog,
	backend.FixedWindow:    fixedWindow,
	backend.CalendarWindow: calendarWindow,
	backend.Concurrency:    concurrency,
}

// Rule is a valid [backend.Limit] with everything worked out that decisions under it need. It is
// what a store calls the algorithms through; it may be shared. Times in this package are whole
// microseconds: an instant is since any epoch the store likes, as long as it stays with it.
type Rule struct {
	limit     backend.Limit
	row       *row
	quick     quick // row's, if it keeps a state
	period    int64 // of the limit, in µs
	capacity  int64
	stateless bool // it decides without looking: it blocks everything, or nothing
	unit      span // TokenBucket: the time that refills one unit
	full      span // TokenBucket: the time that refills the capacity
	but1      span // TokenBucket: the time that refills the capacity but for one unit

	calendar int64                   // CalendarWindow: the number of its Calendar
	current  atomic.Pointer[windows] // CalendarWindow: a cache
	counts   bool                    // refusals: see bans
	counter  *counter                // of a limit with a ban
}

// NewRule returns the Rule of l, or the error of l.Validate.
func NewRule(l backend.Limit) (*Rule, error) {
	if err := l.Validate(); err != nil {
		return nil, err
	}
	if first, longest, ok := l.Bans(); ok {
		refusals := newRule(l.WithoutBan())
		refusals.counts = true
		return &Rule{limit: l, row: banned.row, quick: notQuick, stateless: true, counter: &counter{refusals, first.Microseconds(), longest.Microseconds()}}, nil
	}
	return newRule(l), nil
}

// newRule returns the rule of a limit that is valid and has no ban.
func newRule(l backend.Limit) *Rule {
	r := &Rule{limit: l, row: &algorithms[l.Algorithm], period: l.Period.Microseconds(), capacity: l.Capacity()}
	r.stateless = l.Count == 0 || l.IsUnlimited()
	switch l.Algorithm {
	case backend.CalendarWindow:
		r.period, r.calendar = l.Calendar.Numbers()
	case backend.Concurrency:
		r.period = l.Hold().Microseconds()
	}
	if r.quick = r.row.quick; r.stateless {
		r.quick = notQuick
	}
	if l.Algorithm == backend.TokenBucket && !r.stateless {
		r.unit, r.full, r.but1 = r.spanOf(1), r.spanOf(r.capacity), r.spanOf(r.capacity-1)
	}
	return r
}

// PastCalendar returns the rule that a slot of a calendar window stands under, by the numbers of
// [backend.Calendar.Numbers]. Its zone need not be known here: nothing is charged under it.
func PastCalendar(count, period, id int64) (*Rule, error) {
	if count < 1 || count > backend.MaxCount || period < 1 || id < 0 {
		return nil, fmt.Errorf("ginlimit: %d per %d of calendar %d is no calendar window", count, period, id)
	}
	limit := backend.Limit{Count: count, Algorithm: backend.CalendarWindow}
	return &Rule{limit: limit, row: &algorithms[backend.CalendarWindow], quick: calendarWindow.quick, period: period, calendar: id, capacity: count}, nil
}

// Counting returns a copy of r, which keeps a state and has no ban, that counts refusals.
func (r *Rule) Counting() *Rule {
	refusals := &Rule{limit: r.limit, row: r.row, quick: r.quick, period: r.period, capacity: r.capacity, unit: r.unit, full: r.full, but1: r.but1}
	refusals.calendar, refusals.counts = r.calendar, true
	return refusals
}

// Limit returns the limit that r was made of.
func (r *Rule) Limit() backend.Limit { return r.limit }

// Algorithm returns that of the limit.
func (r *Rule) Algorithm() backend.Algorithm { return r.limit.Algorithm }

// Stateless reports whether r decides without a state: its limit blocks everything, or nothing.
func (r *Rule) Stateless() bool { return r.stateless }

// Decides reports whether r was made of l, whatever their names.
func (r *Rule) Decides(l *backend.Limit) bool {
	return r.limit.Count == l.Count && r.limit.Period == l.Period && r.limit.Burst == l.Burst &&
		r.limit.Algorithm == l.Algorithm && r.limit.Calendar == l.Calendar && r.limit.BansAs(l) && !r.counts
}

// Expiry returns the instant from which a state charged under r says nothing any more: the time of
// its TTL. It can be later than the instant from which the whole capacity remains, because a window
// whose charges were all refunded still runs.
func (r *Rule) Expiry(st State) int64 { return r.row.expiry(r, st) }

// span is a length of time as a TokenBucket measures it: us whole microseconds and num/Count of
// one, where 0 <= num < Count of the rule that it belongs to. In this form every multiple of
// Period/Count is exact.
type span struct{ us, num int64 }

// spanOf returns units × Period/Count. Units must not be above twice the capacity: then Validate
// has made sure that the result is below twice MaxRefill.
func (r *Rule) spanOf(units int64) span {
	us, num := mulAddDiv(units, r.period, 0, r.limit.Count)
	return span{us, num}
}

func (r *Rule) add(a, b span) span {
	s := span{a.us + b.us, a.num + b.num}
	if s.num >= r.limit.Count {
		s.us++
		s.num -= r.limit.Count
	}
	return s
}

func (r *Rule) sub(a, b span) span {
	s := span{a.us - b.us, a.num - b.num}
	if s.num < 0 {
		s.us--
		s.num += r.limit.Count
	}
	return s
}

// ceil returns the whole microseconds that cover s.
func (s span) ceil() int64 {
	if s.num > 0 {
		return s.us + 1
	}
	return s.us
}

// scaled returns an age below from's period as the age that it is of r's, rounded down: below r's.
func (r *Rule) scaled(age int64, from *Rule) int64 {
	if from.period == r.period {
		return age
	}
	us, _ := mulAddDiv(age, r.period, 0, from.period)
	return us
}

// mulAddDiv returns the quotient and the remainder of (a×b+c)/d of non-negative integers. The
// quotient must fit: every caller says why it does.
func mulAddDiv(a, b, c, d int64) (quo, rem int64) {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	lo, carry := bits.Add64(lo, uint64(c), 0)
	if hi+carry == 0 { // much faster
		q := lo / uint64(d)
		return int64(q), int64(lo - q*uint64(d))
	}
	q, r := bits.Div64(hi+carry, lo, uint64(d))
	return int64(q), int64(r)
}
