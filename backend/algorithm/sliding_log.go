package algorithm

import (
	"math"
	"slices"
	"sort"
)

// SlidingLog: every charge until it is one Period old, and Used, their sum. A charge at t counts in
// [t, t+Period). The first Rest charges of the log have left: they are still there, because a look
// must not change the log.

var slidingLog = row{
	age: slidingLogAge, used: slidingLogUsed, until: slidingLogUntil, reset: slidingLogReset, expiry: slidingLogReset,
	shift: slidingLogShift, carry: slidingLogCarry, charge: slidingLogCharge, refund: slidingLogRefund, quick: notQuick,
}

// charges returns those that count, oldest first.
func (st State) charges() Log {
	if st.Log == nil {
		return nil
	}
	return (*st.Log)[st.Rest:]
}

// slidingLogAge drops what is out of the window.
func slidingLogAge(r *Rule, st State, now int64) State {
	for _, c := range st.charges() {
		if now-c.At < r.period {
			break
		}
		st.Used -= c.Units
		st.Rest++
	}
	return st
}

// slidingLogMoved returns st with a copy of the log whose charges are at other instants, in the
// same order. Those that meet become one.
func slidingLogMoved(st State, to func(at int64) int64) State {
	log := make(Log, 0, len(st.charges()))
	for _, c := range st.charges() {
		c.At = to(c.At)
		if last := len(log) - 1; last >= 0 && log[last].At == c.At {
			log[last].Units += c.Units
		} else {
			log = append(log, c)
		}
	}
	return State{Used: st.Used, Log: &log}
}

func slidingLogUsed(_ *Rule, st State, _ int64) int64 { return st.Used }

func slidingLogUntil(r *Rule, st State, now, units int64) int64 {
	over := st.Used - units
	if over <= 0 {
		return 0
	}
	log := st.charges()
	i := 0
	for over > log[i].Units { // ends within the log: it has Used units
		over -= log[i].Units
		i++
	}
	return log[i].At + r.period - now
}

// slidingLogReset is the expiry too: an empty log says nothing, since ever.
func slidingLogReset(r *Rule, st State) int64 {
	log := st.charges()
	if len(log) == 0 {
		return math.MinInt64
	}
	return log[len(log)-1].At + r.period
}

func slidingLogShift(st State, by int64) State {
	return slidingLogMoved(st, func(at int64) int64 { return at + by })
}

// slidingLogCarry keeps relative ages.
func slidingLogCarry(r *Rule, st State, now int64, old *Rule) State {
	if r.period == old.period {
		return st
	}
	return slidingLogMoved(st, func(at int64) int64 { return now - r.scaled(now-at, old) })
}

func slidingLogCharge(r *Rule, st State, now, units int64) State {
	if st.Log == nil {
		st.Log = new(Log)
	}
	log := *st.Log
	if int(st.Rest) == len(log) {
		log, st.Rest = log[:0], 0
	}
	st.Used += units
	if last := len(log) - 1; last >= 0 && log[last].At == now {
		log[last].Units += units
		return st
	}
	if len(log) == cap(log) {
		// Half as much again, and never more than that for Count charges: the array's front runs
		// out of use as charges expire, so that even a full log has to move on now and then.
		room := min(int64(len(st.charges())), r.limit.Count)
		log = append(make(Log, 0, room+room/2+1), st.charges()...)
		st.Rest = 0
	}
	log = append(log, Charge{At: now, Units: units})
	*st.Log = log
	return st
}

func slidingLogRefund(_ *Rule, st State, _, charged, units int64) (_ State, given bool) {
	log := st.charges()
	i := sort.Search(len(log), func(i int) bool { return log[i].At >= charged })
	if i == len(log) || log[i].At != charged {
		return st, false
	}
	units = min(units, log[i].Units)
	st.Used -= units
	if log[i].Units -= units; log[i].Units == 0 {
		*st.Log = slices.Delete(*st.Log, int(st.Rest)+i, int(st.Rest)+i+1)
	}
	return st, true
}
