package algorithm

// FixedWindow: Used units since Time, the key's first hit; the window is over one Period later. A window all
// of whose charges were refunded still runs: a refund never moves a window.

// fixedWindowLoad starts a new window if the old one is over, and carries units over from old: they keep
// their relative age, so that half a window stays half a window.
func fixedWindowLoad(r *Rule, c *Counters, old *Rule, now int64) (changed bool) {
	age := now - c.Time
	if age >= old.period {
		*c = Counters{Time: now}
		return false
	}
	if age < 0 { // the clock went back: the window starts again, with the units used
		age, changed = 0, true
	}
	if old.period != r.period {
		age, _ = mulDiv(age, r.period, old.period) // below r.period, because age < old.period
		changed = true
	}
	c.Time = now - age
	if c.Used > r.limit.Count {
		c.Used, changed = r.limit.Count, true
	}
	return changed
}

func fixedWindowWait(r *Rule, c *Counters, now, cost int64) int64 {
	if c.Used+cost <= r.limit.Count {
		return 0
	}
	return c.Time + r.period - now
}

func fixedWindowRefund(r *Rule, c *Counters, charged, cost int64) bool {
	if c.Used == 0 || charged < c.Time || charged >= c.Time+r.period {
		return false
	}
	c.Used = max(0, c.Used-cost)
	return true
}

func fixedWindowReset(r *Rule, c *Counters) int64 {
	if c.Used == 0 {
		return c.Time
	}
	return c.Time + r.period
}
