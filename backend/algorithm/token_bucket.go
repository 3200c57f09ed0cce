package algorithm

import (
	"time"

	"github.com/ginlimit/ginlimit/backend"
)

// TokenBucket, as the generic cell rate algorithm keeps it (ITU-T I.371): the state is one instant, the
// theoretical arrival time, at which the bucket will be full again: Time µs and Frac/Count of a µs. What lies
// between now and then is the debt; each unit adds Period/Count to it, and it may not exceed the capacity's
// own refill time. In 1/Count of a µs every step is an integer, so that no rate ever drifts.

// TakeUnit is [Rule.TakeCounters] for a cost of one and a token bucket that was written under r: the state comes and goes by
// value, and if the unit does not fit, none does. It is what a hot key asks for. It leaves to TakeCounters, and then reports
// false, a state of another algorithm and one that the clock or a smaller burst put above the capacity.
func (r *Rule) TakeUnit(at, frac, now int64, res *backend.Result) (_, _ int64, ok bool) {
	debt := span{at - now, frac}
	if debt.us < 0 {
		debt = span{}
	}
	if debt.us >= r.full.us {
		return at, frac, false
	}
	after := r.add(debt, r.unit)
	free := r.sub(r.full, after)
	if res.Allowed = free.us >= 0; res.Allowed {
		debt = after
		res.Remaining, _ = mulAddDiv(free.us, r.limit.Count, free.num, r.period)
		res.RetryAfter = 0
	} else {
		res.Remaining = 0
		res.RetryAfter = time.Duration(r.sub(after, r.full).ceil()) * time.Microsecond
	}
	res.ResetAfter = time.Duration(debt.ceil()) * time.Microsecond
	res.At = time.UnixMicro(now)
	return now + debt.us, debt.num, true
}

// tokenBucketTake is TakeCounters: the steps below in one.
func tokenBucketTake(r *Rule, c *Counters, old *Rule, now, cost int64, res *backend.Result) (write bool) {
	debt, changed := tokenBucketDebt(r, c, old, now)
	after := r.full
	wait := int64(backend.Never)
	if cost <= r.capacity {
		after = r.add(debt, r.cost(max(cost, 1)))
		wait = max(0, r.sub(after, r.full).ceil())
	}
	if cost > 0 {
		if wait == 0 {
			debt, changed = after, true
		}
		if changed {
			*c = Counters{Time: now + debt.us, Frac: debt.num} // nothing of another algorithm stays
		}
	}
	fill(res, wait, tokenBucketFree(r, debt), debt.ceil())
	return changed && cost > 0
}

// tokenBucketLoad brings the arrival time up to now, clamps the debt to the capacity, and carries it over from old.
func tokenBucketLoad(r *Rule, c *Counters, old *Rule, now int64) (changed bool) {
	debt, changed := tokenBucketDebt(r, c, old, now)
	c.Time, c.Frac = now+debt.us, debt.num
	return changed
}

func tokenBucketDebt(r *Rule, c *Counters, old *Rule, now int64) (debt span, changed bool) {
	debt = span{c.Time - now, c.Frac}
	if debt.us < 0 { // also if us+num/Count is between -1 and 0
		debt = span{}
	}
	if old != r {
		debt, changed = tokenBucketCarry(r, debt, old)
	}
	if debt.us >= r.full.us && (debt.us > r.full.us || debt.num > r.full.num) {
		return r.full, true // the burst became smaller, or the clock went back
	}
	return debt, changed
}

// tokenBucketCarry returns the debt under r for the units that debt stands for under old, rounded up to
// 1/Period of a unit, with Period in µs. It has changed also if only the burst did: a refund asks for that.
func tokenBucketCarry(r *Rule, debt span, old *Rule) (_ span, changed bool) {
	if old == nil || old.limit.Algorithm != backend.TokenBucket {
		return span{}, false
	}
	if debt == (span{}) || old.Decides(&r.limit) {
		return debt, false
	}
	if old.limit.Count == r.limit.Count && old.period == r.period {
		return debt, true
	}
	// Used units, whole and in 1/old.period: below MaxCount, because the debt is at most the old capacity's
	// refill time or, after the clock went back, is clamped here.
	if debt.us > old.full.us || debt.us == old.full.us && debt.num > old.full.num {
		debt = old.full
	}
	units, part := mulAddDiv(debt.us, old.limit.Count, debt.num, old.period)
	if units >= r.capacity {
		return r.full, true
	}
	// part < old.period, so that this is at most r.period, and the sum below at most the capacity's time.
	rest, over := mulAddDiv(part, r.period, 0, old.period)
	if over > 0 {
		rest++
	}
	us, num := mulAddDiv(units, r.period, rest, r.limit.Count)
	return span{us, num}, true
}

func tokenBucketWait(r *Rule, c *Counters, now, cost int64) int64 {
	after := r.add(span{c.Time - now, c.Frac}, r.cost(cost))
	return max(0, r.sub(after, r.full).ceil())
}

func tokenBucketCharge(r *Rule, c *Counters, now, cost int64) {
	debt := r.add(span{c.Time - now, c.Frac}, r.cost(cost))
	c.Time, c.Frac = now+debt.us, debt.num
}

// tokenBucketRefund lowers the debt, at most to nothing. A charge that is older than the time in which the
// bucket fills has been refilled since, and gives nothing back.
func tokenBucketRefund(r *Rule, c *Counters, now, charged, cost int64) bool {
	debt := span{c.Time - now, c.Frac}
	if now-charged >= r.full.ceil() || debt == (span{}) {
		return false
	}
	if cost < r.capacity {
		debt = r.sub(debt, r.cost(cost))
	}
	if cost >= r.capacity || debt.us < 0 {
		debt = span{}
	}
	c.Time, c.Frac = now+debt.us, debt.num
	return true
}

func tokenBucketRemaining(r *Rule, c *Counters, now int64) int64 {
	return tokenBucketFree(r, span{c.Time - now, c.Frac})
}

// tokenBucketFree returns the whole units that are left beside a debt.
func tokenBucketFree(r *Rule, debt span) int64 {
	free := r.sub(r.full, debt)
	// At most the capacity, because free is at most the capacity's time.
	units, _ := mulAddDiv(free.us, r.limit.Count, free.num, r.period)
	return units
}

func tokenBucketReset(c *Counters) int64 { return span{c.Time, c.Frac}.ceil() }

func (r *Rule) cost(units int64) span {
	if units == 1 {
		return r.unit
	}
	return r.spanOf(units)
}
