package algorithm

import (
	"slices"
	"sort"
)

// SlidingLog: every charge until it is one Period old, and Used, their sum. A charge at t counts in [t, t+Period).

// slidingLogLoad drops what is out of the window, and carries the rest over from old: charges keep their
// relative age. Where they are more than the limit has room for, the oldest go: they would be free first.
// It never writes to the log's array, only to a copy.
func slidingLogLoad(r *Rule, st *State, old *Rule, now int64) (changed bool) {
	gone := 0
	for gone < len(st.Log) && now-st.Log[gone].At >= old.period {
		st.Used -= st.Log[gone].Units
		gone++
	}
	st.Log = st.Log[gone:]
	st.Time = now // when an empty log was reset
	back := len(st.Log) > 0 && st.Log[len(st.Log)-1].At > now
	if back || old.period != r.period {
		changed = len(st.Log) > 0
		st.Log = slidingLogCarry(r, st.Log, old, now)
	}
	for st.Used > r.limit.Count {
		if !changed {
			st.Log, changed = slices.Clone(st.Log), true
		}
		drop := min(st.Log[0].Units, st.Used-r.limit.Count)
		st.Used -= drop
		if st.Log[0].Units -= drop; st.Log[0].Units == 0 {
			st.Log = st.Log[1:]
		}
	}
	return changed
}

// slidingLogCarry returns a copy of log with its ages stretched from old's period to r's. Charges from the
// future, after the clock went back, are taken for new.
func slidingLogCarry(r *Rule, log []Charge, old *Rule, now int64) []Charge {
	carried := make([]Charge, 0, len(log))
	for _, c := range log {
		age, _ := mulDiv(max(0, now-c.At), r.period, old.period) // below r.period, because the age is below old.period
		c.At = now - age
		if last := len(carried) - 1; last >= 0 && carried[last].At == c.At {
			carried[last].Units += c.Units
		} else {
			carried = append(carried, c)
		}
	}
	return carried
}

func slidingLogWait(r *Rule, st *State, now, cost int64) int64 {
	over := st.Used + cost - r.limit.Count
	for i := 0; over > 0; i++ { // ends within the log, because cost <= Count
		if over -= st.Log[i].Units; over <= 0 {
			return st.Log[i].At + r.period - now
		}
	}
	return 0
}

func slidingLogCharge(r *Rule, st *State, now, cost int64) {
	st.Used += cost
	last := len(st.Log) - 1
	if last >= 0 && st.Log[last].At == now {
		st.Log[last].Units += cost
		return
	}
	if len(st.Log) == cap(st.Log) {
		// Half as much again, and never more than that for Count charges: the array's front runs out of
		// use as charges expire, so that even a full log has to move on now and then.
		room := min(int64(len(st.Log)), r.limit.Count)
		st.Log = append(make([]Charge, 0, room+room/2+1), st.Log...)
	}
	st.Log = append(st.Log, Charge{At: now, Units: cost})
}

func slidingLogRefund(st *State, charged, cost int64) bool {
	i := sort.Search(len(st.Log), func(i int) bool { return st.Log[i].At >= charged })
	if i == len(st.Log) || st.Log[i].At != charged {
		return false
	}
	cost = min(cost, st.Log[i].Units)
	st.Used -= cost
	if st.Log[i].Units -= cost; st.Log[i].Units == 0 {
		st.Log = slices.Delete(st.Log, i, i+1)
	}
	return true
}

func slidingLogReset(r *Rule, st *State) int64 {
	if len(st.Log) == 0 {
		return st.Time
	}
	return st.Log[len(st.Log)-1].At + r.period
}
