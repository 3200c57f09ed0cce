package algorithm

import "github.com/ginlimit/ginlimit/backend"

// SlidingWindow: Used units in the current window, which began at Time, and Rest in the one before.
// With e µs of the current window gone, the sliding window still covers (Period-e)/Period of the
// one before:
//
//	weight = Used + Rest × (Period-e)/Period
//
// and a cost fits if weight + cost <= Count. All comparisons are made on products, so that nothing
// is rounded.
//
// The worst case: a units at the very end of a window, then a steady flow. After e µs of the next
// window the flow was let Count - a×(Period-e)/Period units, so that the Period that begins with
// the burst saw Count + a×e/Period: fewer than 2 × Count, because e < Period and a <= Count.

var slidingWindow = row{
	age: slidingWindowAge, used: slidingWindowUsed, until: slidingWindowUntil, reset: slidingWindowReset, expiry: slidingWindowExpiry,
	shift: timeShift, carry: slidingWindowCarry, charge: windowCharge, refund: slidingWindowRefund, quick: slidingWindowQuick,
}

// slidingWindowAge moves on to the window that now is in.
func slidingWindowAge(r *Rule, st State, now int64) State {
	if now-st.Time >= r.period {
		return State{Time: st.Time + r.period, Rest: st.Used}
	}
	return st
}

func slidingWindowUsed(r *Rule, st State, now int64) int64 {
	weight, rest := mulAddDiv(st.Rest, st.Time+r.period-now, 0, r.period) // at most Rest
	if rest > 0 {
		weight++
	}
	return st.Used + weight
}

// slidingWindowUntil returns the time until Rest × (Period-e) <= (units-Used) × Period, in this
// window or, where Used alone is too much, in the next one, in which Used takes the place of Rest.
func slidingWindowUntil(r *Rule, st State, now, units int64) int64 {
	left := st.Time + r.period - now // Period - e
	if room := units - st.Used; room >= 0 {
		return max(0, left-r.covered(room, st.Rest))
	}
	return left + r.period - r.covered(units, st.Used)
}

// covered returns how many µs of a window with used units the sliding window may still cover if it
// has room for so many: floor(room × period / used), at most the period.
func (r *Rule) covered(room, used int64) int64 {
	if room >= used {
		return r.period
	}
	us, _ := mulAddDiv(room, r.period, 0, used) // below the period, because room < used
	return us
}

func slidingWindowReset(r *Rule, st State) int64 {
	switch {
	case st.Used > 0:
		return st.Time + 2*r.period
	case st.Rest > 0:
		return st.Time + r.period
	default:
		return st.Time
	}
}

func slidingWindowExpiry(r *Rule, st State) int64 {
	return max(st.Time+r.period, slidingWindowReset(r, st))
}

// slidingWindowCarry keeps the relative age, so that the weight stays what it was.
func slidingWindowCarry(r *Rule, st State, now int64, old *Rule) State {
	st.Time = now - r.scaled(now-st.Time, old)
	return st
}

// windowCharge is of both windows.
func windowCharge(_ *Rule, st State, _, units int64) State {
	st.Used += units
	return st
}

// slidingWindowRefund credits the window that was charged, the current one or the one before.
func slidingWindowRefund(r *Rule, st State, _, charged, units int64) (_ State, given bool) {
	switch {
	case charged < st.Time-r.period || charged >= st.Time+r.period:
		return st, false
	case charged >= st.Time:
		given = st.Used > 0
		st.Used = max(0, st.Used-units)
	default:
		given = st.Rest > 0
		st.Rest = max(0, st.Rest-units)
	}
	return st, given
}

func slidingWindowQuick(r *Rule, st State, now, cost int64) (next State, a Answer, ok bool) {
	if slidingWindowExpiry(r, st) <= now {
		st = State{Time: now}
	} else {
		st = slidingWindowAge(r, st, now)
	}
	if a.Wait = int64(backend.Never); cost <= r.capacity {
		a.Wait = slidingWindowUntil(r, st, now, r.capacity-max(cost, 1))
	}
	if a.Wait == 0 {
		st.Used += cost
	}
	a.Left = r.capacity - slidingWindowUsed(r, st, now)
	a.Reset = slidingWindowReset(r, st) - now
	return st, a, true
}
