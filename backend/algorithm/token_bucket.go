package algorithm

import "github.com/ginlimit/ginlimit/backend"

// TokenBucket, as the generic cell rate algorithm keeps it (ITU-T I.371): the state is one instant,
// the theoretical arrival time, at which the bucket will be full again. It is Time µs and
// Rest/Count of a µs. What lies between now and then is the debt; each unit adds Period/Count to
// it, and it may not exceed the capacity's own refill time. In 1/Count of a µs every step is an
// integer, so that no rate ever drifts.

var tokenBucket = row{
	age: tokenBucketAge, used: tokenBucketUsed, until: tokenBucketUntil, reset: tokenBucketReset, expiry: tokenBucketReset,
	shift: timeShift, carry: tokenBucketCarry, charge: tokenBucketCharge, refund: tokenBucketRefund, quick: tokenBucketQuick,
}

// tokenBucketAge has nothing to do: the arrival time stays.
func tokenBucketAge(_ *Rule, st State, _ int64) State { return st }

func tokenBucketUsed(r *Rule, st State, now int64) int64 {
	units, part := mulAddDiv(st.Time-now, r.limit.Count, st.Rest, r.period) // at most twice the capacity
	if part > 0 {
		units++
	}
	return units
}

func tokenBucketUntil(r *Rule, st State, now, units int64) int64 {
	left := r.full
	if units == r.capacity-1 { // nearly always: the limit is the same, and the cost one
		left = r.but1
	} else if units != r.capacity {
		left = r.spanOf(min(units, 2*r.capacity))
	}
	return max(0, r.sub(span{st.Time - now, st.Rest}, left).ceil())
}

func tokenBucketReset(_ *Rule, st State) int64 { return span{st.Time, st.Rest}.ceil() }

// timeShift is of all but a log.
func timeShift(st State, by int64) State {
	st.Time += by
	return st
}

// tokenBucketCarry keeps the units used, rounded up to 1/Period of a unit, with Period in µs. Where
// only the burst differs the debt stays what it is.
func tokenBucketCarry(r *Rule, st State, now int64, old *Rule) State {
	// units is at most r's capacity, because what fits is all that is carried.
	units, part := mulAddDiv(st.Time-now, old.limit.Count, st.Rest, old.period)
	// part < old.period, so that rest is at most r.period. There is room for the units and, if
	// there is a part, for one more: the debt is below the capacity's time.
	rest, over := mulAddDiv(part, r.period, 0, old.period)
	if over > 0 {
		rest++
	}
	us, num := mulAddDiv(units, r.period, rest, r.limit.Count)
	return State{Time: now + us, Rest: num}
}

func tokenBucketCharge(r *Rule, st State, _, units int64) State {
	cost := r.unit
	if units > 1 {
		cost = r.spanOf(units)
	}
	at := r.add(span{st.Time, st.Rest}, cost)
	return State{Time: at.us, Rest: at.num}
}

// tokenBucketRefund lowers the debt, if there is any, at most to nothing. A charge that is older
// than the time in which the bucket fills has been refilled since, and gives nothing back.
func tokenBucketRefund(r *Rule, st State, now, charged, units int64) (_ State, given bool) {
	if tokenBucketReset(r, st) <= now || now-charged >= r.full.ceil() {
		return st, false
	}
	at := r.sub(span{st.Time, st.Rest}, r.spanOf(min(units, 2*r.capacity)))
	if at.us < now {
		at = span{now, 0}
	}
	return State{Time: at.us, Rest: at.num}, true
}

func tokenBucketQuick(r *Rule, st State, now, cost int64) (next State, a Answer, ok bool) {
	debt := span{st.Time - now, st.Rest}
	if debt.us < 0 { // also if us+num/Count is between -1 and 0
		debt = span{}
	}
	if debt.us >= r.full.us {
		return st, a, false
	}
	a.Wait = int64(backend.Never)
	if cost <= r.capacity {
		after := r.unit
		if cost > 1 {
			after = r.spanOf(cost)
		}
		after = r.add(debt, after)
		if a.Wait = max(0, r.sub(after, r.full).ceil()); a.Wait == 0 && cost > 0 {
			debt = after
		}
	}
	if a.Wait == 0 || cost > 1 { // otherwise nothing is left
		free := r.sub(r.full, debt)
		a.Left, _ = mulAddDiv(free.us, r.limit.Count, free.num, r.period)
	}
	a.Reset = debt.ceil()
	return State{Time: now + debt.us, Rest: debt.num}, a, true
}
