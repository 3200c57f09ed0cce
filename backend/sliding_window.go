package backend

// SlidingWindow: Used units in the current window, which began at Time, and Prev in the one before. With e µs
// of the current window gone, the sliding window still covers (Period-e)/Period of the one before:
//
//	weight = Used + Prev × (Period-e)/Period
//
// and a cost fits if weight + cost <= Count. All comparisons are made on products, so that nothing is rounded.
//
// The worst case: a units at the very end of a window, then a steady flow. After e µs of the next window the
// flow was let Count - a×(Period-e)/Period units, so that the Period that begins with the burst saw
// Count + a×e/Period: fewer than 2 × Count, because e < Period and a <= Count.

// slidingWindowLoad moves on to the window that now is in, and carries units over from old: they keep their
// relative age, so that their weight stays what it was.
func slidingWindowLoad(r *Rule, st *State, old *Rule, now int64) (changed bool) {
	age := now - st.Time
	if age < 0 { // the clock went back: the window starts again, with the units used
		age, changed = 0, true
	}
	if age >= old.period {
		age -= old.period
		st.Prev, st.Used = st.Used, 0
		if age >= old.period || st.Prev == 0 {
			*st = State{Time: now}
			return false
		}
	}
	if old.period != r.period {
		age, _ = mulDiv(age, r.period, old.period) // below r.period, because age < old.period
		changed = true
	}
	st.Time = now - age
	if st.Used > r.limit.Count {
		st.Used, changed = r.limit.Count, true
	}
	// The most of the window before that the limit has room for. It can be more than an int64 holds; then
	// there is room for all.
	if most, ok := mulDiv(r.limit.Count-st.Used, r.period, r.period-age); ok && st.Prev > most {
		st.Prev, changed = most, true
	}
	return changed
}

// slidingWindowWait returns the time until Prev × (Period-e) <= (Count-Used-cost) × Period, in this window or,
// where Used alone leaves no room, in the next one, in which Used takes the place of Prev.
func slidingWindowWait(r *Rule, st *State, now, cost int64) int64 {
	left := st.Time + r.period - now // Period - e
	room := r.limit.Count - cost - st.Used
	if room >= 0 {
		return max(0, left-covered(room, st.Prev, r.period))
	}
	return left + r.period - covered(room+st.Used, st.Used, r.period)
}

// covered returns how many µs of a window with used units the sliding window may still cover if it has room
// for so many: floor(room × period / used), at most the period.
func covered(room, used, period int64) int64 {
	if room >= used {
		return period
	}
	us, _ := mulDiv(room, period, used) // below period, because room < used
	return us
}

// slidingWindowRefund credits the window that was charged, the current one or the one before.
func slidingWindowRefund(r *Rule, st *State, charged, cost int64) bool {
	window := &st.Used
	if charged < st.Time {
		window = &st.Prev
	}
	if *window == 0 || charged < st.Time-r.period || charged >= st.Time+r.period {
		return false
	}
	*window = max(0, *window-cost)
	return true
}

func slidingWindowRemaining(r *Rule, st *State, now int64) int64 {
	// ceil(Prev × (Period-e)/Period): at most Count-Used, because load saw to it.
	weight, rest := mulAddDiv(st.Prev, st.Time+r.period-now, 0, r.period)
	if rest > 0 {
		weight++
	}
	return r.limit.Count - st.Used - weight
}

func slidingWindowReset(r *Rule, st *State) int64 {
	switch {
	case st.Used > 0:
		return st.Time + 2*r.period
	case st.Prev > 0:
		return st.Time + r.period
	default:
		return st.Time
	}
}
