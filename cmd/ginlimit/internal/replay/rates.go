package replay

import (
	"math"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/algorithm"
)

// rateWindows is the windows that rates are counted in: those of a calendar, or of one period each.
// Under a limit of requests in flight it is those that go on at the same time which are counted.
type rateWindows struct {
	atOnce   bool
	calendar backend.Calendar
	period   int64 // µs; of a calendar about how long a window is
	first    int64 // the beginning of window 0, in µs since 1970
	until    int64 // of a calendar the end of the current window
	current  uint32
}

// newRateWindows returns the windows of a limit. Those of a limit without any are days.
func newRateWindows(l backend.Limit) rateWindows {
	w := rateWindows{calendar: l.Calendar, first: -1, until: math.MinInt64}
	w.period = l.Period.Microseconds()
	switch {
	case l.Algorithm == backend.Concurrency:
		return rateWindows{atOnce: true}
	case l.Algorithm == backend.CalendarWindow:
		w.period, _ = l.Calendar.Numbers()
	case w.period <= 0:
		w.period = 24 * 60 * 60 * 1e6
	}
	return w
}

// number returns the number of the window that now is in. Now is never before that of the last
// call.
func (w *rateWindows) number(now int64) uint32 {
	if w.atOnce {
		return 0
	}
	if w.calendar == (backend.Calendar{}) {
		if w.first < 0 {
			w.first = now / w.period * w.period
		}
		return uint32((now - w.first) / w.period)
	}
	if now >= w.until {
		_, w.until, _ = algorithm.Boundaries(w.calendar, now)
		w.current++
	}
	return w.current
}
