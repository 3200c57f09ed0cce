package algorithm

import "github.com/ginlimit/ginlimit/backend"

// FixedWindow: Used units since Time, the key's first hit. The window is over one Period later.
// What was used above Count goes into the next window. A window all of whose charges were refunded
// still runs: a refund never moves a window.

var fixedWindow = row{
	age: fixedWindowAge, used: fixedWindowUsed, until: fixedWindowUntil, reset: fixedWindowReset, expiry: fixedWindowExpiry,
	shift: timeShift, carry: fixedWindowCarry, charge: windowCharge, refund: fixedWindowRefund, quick: fixedWindowQuick,
}

// fixedWindowAge moves on to the window that now is in, with what was used beyond those before. A
// state that has not expired has that much.
func fixedWindowAge(r *Rule, st State, now int64) State {
	over := (now - st.Time) / r.period
	st.Time += over * r.period
	st.Used -= over * r.capacity
	return st
}

func fixedWindowUsed(_ *Rule, st State, _ int64) int64 { return st.Used }

func fixedWindowUntil(r *Rule, st State, now, units int64) int64 {
	return max(0, fixedWindowEnd(r, st, units)-now)
}

// fixedWindowEnd returns the instant from which no more than units are in use. If they never were
// that is when the window began.
func fixedWindowEnd(r *Rule, st State, units int64) int64 {
	if st.Used <= units {
		return st.Time
	}
	return st.Time + (st.Used-units+r.capacity-1)/r.capacity*r.period
}

func fixedWindowReset(r *Rule, st State) int64 { return fixedWindowEnd(r, st, 0) }

func fixedWindowExpiry(r *Rule, st State) int64 {
	return max(st.Time+r.period, fixedWindowReset(r, st))
}

// fixedWindowCarry keeps the relative age, so that half a window stays half a window.
func fixedWindowCarry(r *Rule, st State, now int64, old *Rule) State {
	st.Time = now - r.scaled(now-st.Time, old)
	return st
}

func fixedWindowRefund(r *Rule, st State, _, charged, units int64) (_ State, given bool) {
	if st.Used == 0 || charged < st.Time || charged >= st.Time+r.period {
		return st, false
	}
	st.Used = max(0, st.Used-units)
	return st, true
}

func fixedWindowQuick(r *Rule, st State, now, cost int64) (next State, a Answer, ok bool) {
	if st.Used > r.capacity { // in debt: then it may last longer
		return st, a, false
	}
	end := st.Time + r.period
	if end <= now {
		st, end = State{Time: now}, now+r.period
	}
	a.Wait = end - now
	if cost > r.capacity {
		a.Wait = int64(backend.Never)
	} else if st.Used+max(cost, 1) <= r.capacity {
		a.Wait = 0
		st.Used += cost
	}
	a.Left = r.capacity - st.Used
	if st.Used > 0 {
		a.Reset = end - now
	}
	return st, a, true
}
