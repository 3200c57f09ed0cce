// Package algorithm is for authors of backends: the four algorithms that limits are counted by, as pure integer functions
// of (state, now, limit, cost), one file each. A store wraps them with whatever keeps the state, as package memory does, or
// computes the same elsewhere, as package lua does. Applications need package backend alone.
package algorithm

import (
	"fmt"
	"math"
	"math/bits"
	"time"

	"github.com/ginlimit/ginlimit/backend"
)

// Rule is a valid [backend.Limit] with everything worked out that decisions under it need. It is what a store calls
// the algorithms through; it is immutable. Times in this file and in the algorithms' are whole microseconds:
// an instant since any epoch the store likes, as long as it stays with it.
type Rule struct {
	limit     backend.Limit
	period    int64 // of the limit, in µs
	capacity  int64
	stateless bool // it decides without looking: it blocks everything, or nothing
	unit      span // TokenBucket: the time that refills one unit
	full      span // TokenBucket: the time that refills the capacity
}

// NewRule returns the Rule of l, or the error of l.Validate.
func NewRule(l backend.Limit) (*Rule, error) {
	if err := l.Validate(); err != nil {
		return nil, err
	}
	r := &Rule{limit: l, period: l.Period.Microseconds(), capacity: l.Capacity()}
	r.stateless = l.Count == 0 || l.IsUnlimited()
	if l.Algorithm == backend.TokenBucket && !r.stateless {
		r.unit = r.spanOf(1)
		r.full = r.spanOf(r.capacity)
	}
	return r, nil
}

// Limit returns the limit that r was made of.
func (r *Rule) Limit() backend.Limit { return r.limit }

// Algorithm returns that of the limit.
func (r *Rule) Algorithm() backend.Algorithm { return r.limit.Algorithm }

// Decides reports whether r decides as l would: their numbers are the same, whatever their names.
func (r *Rule) Decides(l *backend.Limit) bool {
	return r.limit.Count == l.Count && r.limit.Period == l.Period &&
		r.limit.Burst == l.Burst && r.limit.Algorithm == l.Algorithm
}

// State is what a store remembers of one limit of one key. Which fields mean something depends on the
// algorithm; the file of each says what. It belongs to the [Rule] that it was written under.
type State struct {
	Counters
	Log []Charge // SlidingLog: charges, oldest first, no two at one instant
}

// Counters is all the state of an algorithm other than SlidingLog.
type Counters struct {
	Time int64 // an instant: TokenBucket's arrival time, or the start of the current window
	Frac int64 // TokenBucket: what Time lacks, in 1/Count of a microsecond
	Used int64 // units charged in the current window, or in the log
	Prev int64 // SlidingWindow: units charged in the window before
}

// Charge is one entry of a SlidingLog.
type Charge struct {
	At    int64 // µs
	Units int64
}

// Slot is one limit's place in a key: the state, and the rule it was written under. Limits are matched with
// slots by position and algorithm. The zero Slot is empty.
type Slot struct {
	Rule  *Rule
	State State
}

// Expired reports whether s carries no information any more: a key without it decides the same.
func (s *Slot) Expired(now int64) bool {
	return s.Rule == nil || s.Rule.Expiry(&s.State) <= now
}

// Take decides cost for the rules, in order, against slots, of which there must be as many or more, and
// charges all of them or none. It returns the Result of the rule that decided, and its index, because Limit is
// the caller's to fill in, and whether slots changed and have to be written. They change when the cost was
// charged, or when a limit changed and its state was carried over.
func Take(slots []Slot, rules []*Rule, now, cost int64) (res backend.Result, decided int, write bool) {
	type loaded struct {
		State
		changed bool
	}
	var few [4]loaded
	states := few[:0]
	var longest int64
	for i, r := range rules {
		st, changed := r.load(&slots[i], now)
		states = append(states, loaded{st, changed})
		if wait := r.wait(&st, now, max(cost, 1)); longer(wait, longest) {
			longest, decided = wait, i
		}
	}
	least := int64(math.MaxInt64)
	for i, r := range rules {
		st := &states[i]
		if longest == 0 {
			if cost > 0 && !r.stateless {
				r.charge(&st.State, now, cost)
				st.changed = true
			}
			if left := r.remaining(&st.State, now); left < least {
				least, decided = left, i
			}
		}
		if st.changed && cost > 0 {
			slots[i].Rule, slots[i].State = r, st.State
			write = true
		}
	}
	res.At = time.UnixMicro(now)
	rules[decided].fill(&res, &states[decided].State, now, longest)
	return res, decided, write
}

// Admitted returns what [Take] returns for a cost that a store has charged by the same steps elsewhere: slots are as
// that left them at now, each written under the rule of its place, or empty if that keeps no state.
func Admitted(slots []Slot, rules []*Rule, now int64) (res backend.Result, decided int) {
	least := int64(math.MaxInt64)
	for i, r := range rules {
		if left := r.remaining(&slots[i].State, now); left < least {
			decided, least = i, left
		}
	}
	res.At = time.UnixMicro(now)
	rules[decided].fill(&res, &slots[decided].State, now, 0)
	return res, decided
}

// TakeCounters is [Take] for r alone, which must not be a SlidingLog, with the state in c, written under old.
// It fills res in, all but Limit and Source, and reports whether c changed.
func (r *Rule) TakeCounters(c *Counters, old *Rule, now, cost int64, res *backend.Result) (write bool) {
	res.At = time.UnixMicro(now)
	if r.limit.Algorithm == backend.TokenBucket && !r.stateless {
		return tokenBucketTake(r, c, old, now, cost, res)
	}
	return r.takeCounters(c, old, now, cost, res)
}

func (r *Rule) takeCounters(c *Counters, old *Rule, now, cost int64, res *backend.Result) (write bool) {
	st := *c
	changed := r.loadCounters(&st, old, now)
	wait := r.waitCounters(&st, now, max(cost, 1))
	if cost > 0 && !r.stateless {
		if wait == 0 {
			r.chargeCounters(&st, now, cost)
		}
		if write = wait == 0 || changed; write {
			*c = st
		}
	}
	r.fillCounters(res, &st, now, wait)
	return write
}

// MaxQuick is the largest number of slots that [TakeQuick] takes.
const MaxQuick = 8

// TakeQuick is [Take] for one to [MaxQuick] slots that were written under the rules that they have now, none of which is a
// SlidingLog. It fills res in, all but Limit and Source, and changes slots where Take would.
func TakeQuick(slots []Slot, now, cost int64, res *backend.Result) (decided int) {
	var loaded [MaxQuick]Counters
	asked := max(cost, 1)
	var longest int64
	var changed [MaxQuick]bool
	for i := range slots {
		r, c := slots[i].Rule, &loaded[i]
		*c = slots[i].State.Counters
		changed[i] = r.loadCounters(c, r, now)
		if wait := r.waitCounters(c, now, asked); longer(wait, longest) {
			longest, decided = wait, i
		}
	}
	if longest == 0 {
		least := int64(math.MaxInt64)
		for i := range slots {
			r, c := slots[i].Rule, &loaded[i]
			if cost > 0 {
				r.chargeCounters(c, now, cost)
				slots[i].State.Counters = *c
			}
			if left := r.remainingCounters(c, now); left < least {
				least, decided = left, i
			}
		}
	} else if cost > 0 {
		for i := range slots {
			if changed[i] {
				slots[i].State.Counters = loaded[i]
			}
		}
	}
	res.At = time.UnixMicro(now)
	slots[decided].Rule.fillCounters(res, &loaded[decided], now, longest)
	return decided
}

// Refund gives back cost, charged at an instant under limits, to slots, and reports whether any changed. It works
// under the rules that the slots were last written under, so that it is right also if a limit changed in between.
func Refund(slots []Slot, limits []backend.Limit, now, charged, cost int64) (write bool) {
	for i := range min(len(slots), len(limits)) {
		s, l := &slots[i], &limits[i]
		if s.Rule == nil || s.Rule.limit.Algorithm != l.Algorithm || l.Count == 0 || l.IsUnlimited() || cost <= 0 {
			continue // nothing was charged here, or what was is forgotten
		}
		if st, _ := s.Rule.load(s, now); s.Rule.refund(&st, now, charged, cost) {
			s.State, write = st, true
		}
	}
	return write
}

// longer reports whether waiting a is worse than waiting b; never is worst.
func longer(a, b int64) bool { return b >= 0 && (a < 0 || a > b) }

// load returns the slot's state as r sees it at now: aged, carried over if the limit changed, and clamped to
// what r allows. It does not write to the slot. It reports whether anything but age changed, so that the
// state has to be written even if nothing is charged.
func (r *Rule) load(s *Slot, now int64) (st State, changed bool) {
	switch {
	case s.Rule == nil || s.Rule.limit.Algorithm != r.limit.Algorithm || r.stateless:
		st.Time = now
	case r.limit.Algorithm == backend.SlidingLog:
		st = s.State
		changed = slidingLogLoad(r, &st, s.Rule, now)
	default:
		st = s.State
		changed = r.loadCounters(&st.Counters, s.Rule, now)
	}
	return st, changed
}

func (r *Rule) loadCounters(c *Counters, old *Rule, now int64) (changed bool) {
	switch {
	case r.stateless || old == nil || r != old && old.limit.Algorithm != r.limit.Algorithm:
		*c = Counters{Time: now}
		return false
	case r.limit.Algorithm == backend.TokenBucket:
		return tokenBucketLoad(r, c, old, now)
	case r.limit.Algorithm == backend.SlidingWindow:
		return slidingWindowLoad(r, c, old, now)
	default:
		return fixedWindowLoad(r, c, old, now)
	}
}

// wait returns the µs until cost > 0 fits: 0 if it does now, negative if it never will.
func (r *Rule) wait(st *State, now, cost int64) int64 {
	if r.limit.Algorithm == backend.SlidingLog && cost <= r.capacity && !r.stateless {
		return slidingLogWait(r, st, now, cost)
	}
	return r.waitCounters(&st.Counters, now, cost)
}

func (r *Rule) waitCounters(c *Counters, now, cost int64) int64 {
	switch {
	case cost > r.capacity:
		return int64(backend.Never)
	case r.stateless:
		return 0
	case r.limit.Algorithm == backend.TokenBucket:
		return tokenBucketWait(r, c, now, cost)
	case r.limit.Algorithm == backend.SlidingWindow:
		return slidingWindowWait(r, c, now, cost)
	default:
		return fixedWindowWait(r, c, now, cost)
	}
}

// charge adds cost, which must fit, to a loaded state.
func (r *Rule) charge(st *State, now, cost int64) {
	if r.limit.Algorithm == backend.SlidingLog {
		slidingLogCharge(r, st, now, cost)
	} else {
		r.chargeCounters(&st.Counters, now, cost)
	}
}

func (r *Rule) chargeCounters(c *Counters, now, cost int64) {
	if r.limit.Algorithm == backend.TokenBucket {
		tokenBucketCharge(r, c, now, cost)
	} else {
		c.Used += cost
	}
}

// refund takes cost, charged at an instant, off a loaded state, and reports whether there was anything.
func (r *Rule) refund(st *State, now, charged, cost int64) bool {
	switch r.limit.Algorithm {
	case backend.SlidingLog:
		return slidingLogRefund(st, charged, cost)
	case backend.SlidingWindow:
		return slidingWindowRefund(r, &st.Counters, charged, cost)
	case backend.FixedWindow:
		return fixedWindowRefund(r, &st.Counters, charged, cost)
	default:
		return tokenBucketRefund(r, &st.Counters, now, charged, cost)
	}
}

// remaining returns the units that fit at now.
func (r *Rule) remaining(st *State, now int64) int64 { return r.remainingCounters(&st.Counters, now) }

func (r *Rule) remainingCounters(c *Counters, now int64) int64 {
	switch {
	case r.stateless:
		return r.capacity
	case r.limit.Algorithm == backend.TokenBucket:
		return tokenBucketRemaining(r, c, now)
	case r.limit.Algorithm == backend.SlidingWindow:
		return slidingWindowRemaining(r, c, now)
	default:
		return r.limit.Count - c.Used
	}
}

// reset returns the instant from which the whole capacity remains, now or earlier if it does.
func (r *Rule) reset(st *State) int64 {
	if r.limit.Algorithm == backend.SlidingLog {
		return slidingLogReset(r, st)
	}
	return r.resetCounters(&st.Counters)
}

func (r *Rule) resetCounters(c *Counters) int64 {
	switch r.limit.Algorithm {
	case backend.TokenBucket:
		return tokenBucketReset(c)
	case backend.SlidingWindow:
		return slidingWindowReset(r, c)
	default:
		return fixedWindowReset(r, c)
	}
}

// Expiry returns the instant from which a state written under r carries no information any more: the time
// of its TTL. It can be later than the instant from which the whole capacity remains, because a window whose
// charges were all refunded still runs.
func (r *Rule) Expiry(st *State) int64 {
	switch r.limit.Algorithm {
	case backend.SlidingWindow, backend.FixedWindow:
		return max(st.Time+r.period, r.reset(st))
	default:
		return r.reset(st)
	}
}

func (r *Rule) fill(res *backend.Result, st *State, now, wait int64) {
	if r.limit.Algorithm != backend.SlidingLog || r.stateless {
		r.fillCounters(res, &st.Counters, now, wait)
		return
	}
	fill(res, wait, r.remaining(st, now), slidingLogReset(r, st)-now)
}

func (r *Rule) fillCounters(res *backend.Result, c *Counters, now, wait int64) {
	reset := now
	if !r.stateless {
		reset = r.resetCounters(c)
	}
	fill(res, wait, r.remainingCounters(c, now), reset-now)
}

// fill puts figures into res. The waits are in µs from now.
func fill(res *backend.Result, wait, remaining, reset int64) {
	res.Allowed = wait == 0
	res.Remaining = remaining
	res.RetryAfter = backend.Never
	if wait >= 0 {
		res.RetryAfter = time.Duration(wait) * time.Microsecond
	}
	res.ResetAfter = time.Duration(max(0, reset)) * time.Microsecond
}

// CheckTake returns the error of a Take that cannot be decided, whatever the store: a negative cost, or no
// limit. Limits are checked by [NewRule].
func CheckTake(cost int64, limits []backend.Limit) error {
	if cost < 0 {
		return fmt.Errorf("ginlimit: cost %d is negative; use Refund to give units back", cost)
	}
	if len(limits) == 0 {
		return fmt.Errorf("ginlimit: no limit was given; use Unlimited() to let everything pass")
	}
	return nil
}

// span is a length of time as a TokenBucket measures it: us whole microseconds and num/Count of one, where
// 0 <= num < Count of the rule that it belongs to. In this form every multiple of Period/Count is exact.
type span struct{ us, num int64 }

// spanOf returns units × Period/Count. Units must not be above the capacity: then Validate has made sure
// that the result is below MaxRefill.
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

// mulDiv returns floor(a×b/c) of non-negative integers, and whether it fits.
func mulDiv(a, b, c int64) (int64, bool) {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	if hi >= uint64(c) {
		return 0, false
	}
	q, _ := bits.Div64(hi, lo, uint64(c))
	return int64(q), q <= math.MaxInt64
}

// mulAddDiv returns the quotient and the remainder of (a×b+c)/d of non-negative integers. The quotient must
// fit: every caller says why it does.
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
