package algorithm

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
func slidingWindowLoad(r *Rule, c *Counters, old *Rule, now int64) (changed bool) {
	age := now - c.Time
	if age < 0 { // the clock went back: the window starts again, with the units used
		age, changed = 0, true
	}
	if age >= old.period {
		age -= old.period
		c.Prev, c.Used = c.Used, 0
		if age >= old.period || c.Prev == 0 {
			*c = Counters{Time: now}
			return false
		}
	}
	if old.period != r.period {
		age, _ = mulDiv(age, r.period, old.period) // below r.period, because age < old.period
		changed = true
	}
	c.Time = now - age
	if c.Used > r.limit.Count {
		c.Used, changed = r.limit.Count, true
	}
	// The most of the window before that the limit has room for. It can be more than an int64 holds; then
	// there is room for all.
	if most, ok := mulDiv(r.limit.Count-c.Used, r.period, r.period-age); ok && c.Prev > most {
		c.Prev, changed = most, true
	}
	return changed
}

// slidingWindowWait returns the time until Prev × (Period-e) <= (Count-Used-cost) × Period, in this window or,
// where Used alone leaves no room, in the next one, in which Used takes the place of Prev.
func slidingWindowWait(r *Rule, c *Counters, now, cost int64) int64 {
	left := c.Time + r.period - now // Period - e
	room := r.limit.Count - cost - c.Used
	if room >= 0 {
		return max(0, left-covered(room, c.Prev, r.period))
	}
	return left + r.period - covered(room+c.Used, c.Used, r.period)
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
func slidingWindowRefund(r *Rule, c *Counters, charged, cost int64) bool {
	window := &c.Used
	if charged < c.Time {
		window = &c.Prev
	}
	if *window == 0 || charged < c.Time-r.period || charged >= c.Time+r.period {
		return false
	}
	*window = max(0, *window-cost)
	return true
}

func slidingWindowRemaining(r *Rule, c *Counters, now int64) int64 {
	// ceil(Prev × (Period-e)/Period): at most Count-Used, because load saw to it.
	weight, rest := mulAddDiv(c.Prev, c.Time+r.period-now, 0, r.period)
	if rest > 0 {
		weight++
	}
	return r.limit.Count - c.Used - weight
}

func slidingWindowReset(r *Rule, c *Counters) int64 {
	switch {
	case c.Used > 0:
		return c.Time + 2*r.period
	case c.Prev > 0:
		return c.Time + r.period
	default:
		return c.Time
	}
}
