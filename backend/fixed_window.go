package backend

// FixedWindow: Used units since Time, the key's first hit; the window is over one Period later. A window all
// of whose charges were refunded still runs: a refund never moves a window.

// fixedWindowLoad starts a new window if the old one is over, and carries units over from old: they keep
// their relative age, so that half a window stays half a window.
func fixedWindowLoad(r *Rule, st *State, old *Rule, now int64) (changed bool) {
	age := now - st.Time
	if age >= old.period {
		*st = State{Time: now}
		return false
	}
	if age < 0 { // the clock went back: the window starts again, with the units used
		age, changed = 0, true
	}
	if old.period != r.period {
		age, _ = mulDiv(age, r.period, old.period) // below r.period, because age < old.period
		changed = true
	}
	st.Time = now - age
	if st.Used > r.limit.Count {
		st.Used, changed = r.limit.Count, true
	}
	return changed
}

func fixedWindowWait(r *Rule, st *State, now, cost int64) int64 {
	if st.Used+cost <= r.limit.Count {
		return 0
	}
	return st.Time + r.period - now
}

func fixedWindowRefund(r *Rule, st *State, charged, cost int64) bool {
	if st.Used == 0 || charged < st.Time || charged >= st.Time+r.period {
		return false
	}
	st.Used = max(0, st.Used-cost)
	return true
}

func fixedWindowReset(r *Rule, st *State) int64 {
	if st.Used == 0 {
		return st.Time
	}
	return st.Time + r.period
}
