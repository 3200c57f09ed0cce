package algorithm

import (
	"time"

	"github.com/ginlimit/ginlimit/backend"
)

// CalendarWindow: Used units since Time, the boundary of the calendar at which the window began.
// Rest has the seconds until the window's end, and while more than Count is used also those from
// there until the end of the next one. So a state says by itself when it is over, and only a charge
// asks for the calendar. What was used above Count goes into the next window, as of a FixedWindow.

var calendarWindow = row{
	age: calendarWindowAge, used: fixedWindowUsed, until: calendarWindowUntil, reset: calendarWindowReset, expiry: calendarWindowExpiry,
	shift: timeShift, carry: calendarWindowCarry, charge: calendarWindowCharge, refund: calendarWindowRefund, quick: calendarWindowQuick,
}

// restUnit parts the two numbers of Rest, of which the first is that of its own window. No window
// has as many seconds: it is 97 days.
const restUnit = 1 << 23

const second = 1_000_000 // µs

func calendarWindowEnd(st State) int64 { return st.Time + st.Rest%restUnit*second }

func calendarWindowNextEnd(st State) int64 { return calendarWindowEnd(st) + st.Rest/restUnit*second }

// calendarWindowAge moves on to the next window, if the one that was charged is over, with what was
// used above Count. A state that has not expired is over no later than that window.
func calendarWindowAge(r *Rule, st State, now int64) State {
	if end := calendarWindowEnd(st); end <= now {
		return State{Time: end, Used: st.Used - r.capacity, Rest: st.Rest / restUnit}
	}
	return st
}

func calendarWindowUntil(r *Rule, st State, now, units int64) int64 {
	switch {
	case st.Used <= units:
		return 0
	case st.Used-r.capacity <= units:
		return calendarWindowEnd(st) - now
	default:
		return calendarWindowNextEnd(st) - now
	}
}

func calendarWindowReset(r *Rule, st State) int64 {
	switch {
	case st.Used == 0:
		return st.Time
	case st.Used <= r.capacity:
		return calendarWindowEnd(st)
	default:
		return calendarWindowNextEnd(st)
	}
}

func calendarWindowExpiry(r *Rule, st State) int64 {
	return max(calendarWindowEnd(st), calendarWindowReset(r, st))
}

// calendarWindowCarry moves what was used into the window of another calendar that now is in: both
// windows have now in them.
func calendarWindowCarry(r *Rule, st State, now int64, _ *Rule) State {
	return r.window(now, st.Used)
}

// calendarWindowCharge writes the window that now is in, by the calendar of r.
func calendarWindowCharge(r *Rule, st State, now, units int64) State {
	return r.window(now, st.Used+units)
}

func calendarWindowRefund(_ *Rule, st State, _, charged, units int64) (_ State, given bool) {
	if st.Used == 0 || charged < st.Time || charged >= calendarWindowEnd(st) {
		return st, false
	}
	st.Used = max(0, st.Used-units)
	return st, true
}

func calendarWindowQuick(r *Rule, st State, now, cost int64) (next State, a Answer, ok bool) {
	if st.Used > r.capacity { // in debt
		return st, a, false
	}
	if calendarWindowEnd(st) <= now {
		st = State{Time: now}
	}
	switch {
	case cost > r.capacity:
		a.Wait = int64(backend.Never)
	case st.Used+max(cost, 1) > r.capacity:
		a.Wait = calendarWindowEnd(st) - now
	case cost > 0:
		st = r.window(now, st.Used+cost)
	}
	a.Left = r.capacity - st.Used
	if st.Used > 0 {
		a.Reset = calendarWindowEnd(st) - now
	}
	return st, a, true
}

// windows is the window of a calendar that a rule was asked for last: from start, before end, which
// is so many seconds later, and as long as that the next one.
type windows struct{ start, end, length, next int64 }

// window returns the state of the window that an instant is in, µs since 1970, with used units.
func (r *Rule) window(now, used int64) State {
	w := r.current.Load()
	if w == nil || now < w.start || now >= w.end {
		start, end, next := Boundaries(r.limit.Calendar, now)
		w = &windows{start, end, (end - start) / second, (next - end) / second}
		r.current.Store(w)
	}
	st := State{Time: w.start, Used: used, Rest: w.length}
	if used > r.capacity {
		st.Rest += w.next * restUnit
	}
	return st
}

// Boundaries returns, in µs since 1970, the beginning and the end of the window of a calendar that
// an instant is in, and the end of the window after it. All are whole seconds.
func Boundaries(c backend.Calendar, at int64) (start, end, next int64) {
	from, to := c.Window(time.UnixMicro(at))
	_, after := c.Window(to)
	return from.UnixMicro(), to.UnixMicro(), after.UnixMicro()
}
