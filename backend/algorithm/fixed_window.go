package algorithm

import "github.com/ginlimit/ginlimit/backend"

// FixedWindow: Used units since Time, the key's first hit; the window is over one Period later. A
// window all of whose charges were refunded still runs: a refund never moves a window.

var fixedWindow = row{
	age: fixedWindowAge, used: fixedWindowUsed, until: fixedWindowUntil, reset: fixedWindowReset, expiry: fixedWindowExpiry,
	carry: fixedWindowCarry, charge: windowCharge, refund: fixedWindowRefund, quick: fixedWindowQuick,
}

// fixedWindowAge has nothing to do as long as the window runs. After a clock that went back before
// it the window begins again, with the units used.
func fixedWindowAge(_ *Rule, st State, now int64) (_ State, repaired bool) {
	if now < st.Time {
		st.Time = now
		return st, true
	}
	return st, false
}

func fixedWindowUsed(_ *Rule, st State, _ int64) int64 { return st.Used }

func fixedWindowUntil(r *Rule, st State, now, units int64) int64 {
	if st.Used <= units {
		return 0
	}
	return st.Time + r.period - now
}

func fixedWindowReset(r *Rule, st State) int64 {
	if st.Used == 0 {
		return st.Time
	}
	return st.Time + r.period
}

func fixedWindowExpiry(r *Rule, st State) int64 { return st.Time + r.period }

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
	if now < st.Time {
		return st, a, false
	}
	if fixedWindowExpiry(r, st) <= now {
		st = State{Time: now}
	}
	if a.Wait = int64(backend.Never); cost <= r.capacity {
		a.Wait = fixedWindowUntil(r, st, now, r.capacity-max(cost, 1))
	}
	if a.Wait == 0 {
		st.Used += cost
	}
	a.Left = max(0, r.capacity-st.Used)
	a.Reset = fixedWindowReset(r, st) - now
	return st, a, true
}
