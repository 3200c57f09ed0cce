package replay

import (
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
	from     int64 // of a calendar the beginning of the window that was asked for last
	until    int64 // and its end
}

// newRateWindows returns the windows of a limit. Those of a limit without any are days.
func newRateWindows(l backend.Limit) rateWindows {
	w := rateWindows{calendar: l.Calendar, first: -1}
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

// number returns a number of the window that now is in. The first call is of the earliest time.
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
	if now < w.from || now >= w.until {
		w.from, w.until, _ = algorithm.Boundaries(w.calendar, now)
	}
	return uint32(w.from / (60 * 60 * 1e6)) // windows begin more than an hour apart
}
