package algorithm

// Concurrency keeps the units that are held as charges of a log, each until it is settled or one
// Period old. See sliding_log.go.

var concurrency = row{
	age: slidingLogAge, used: slidingLogUsed, until: concurrencyUntil, reset: slidingLogReset, expiry: slidingLogReset,
	shift: slidingLogShift, carry: concurrencyCarry, charge: slidingLogCharge, refund: slidingLogRefund, quick: notQuick,
}

// concurrencyUntil is a convention: nobody knows when another request ends.
func concurrencyUntil(_ *Rule, st State, _, units int64) int64 {
	if st.Used <= units {
		return 0
	}
	return second
}

// concurrencyCarry keeps the instants of the charges, by which Settle finds them.
func concurrencyCarry(r *Rule, st State, now int64, _ *Rule) State { return slidingLogAge(r, st, now) }
