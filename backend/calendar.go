package backend

import (
	"fmt"
	"hash/fnv"
	"sync"
	"time"
	"unique"
)

// Calendar says where the windows of a [CalendarWindow] begin: each day at midnight, on a day of
// the week, or on a day of the month, in a zone. It is a small value, comparable with ==. The zero
// Calendar is none. [PerCalendarDay], [PerCalendarWeek], [PerCalendarMonth], [Limit.In] and
// [Limit.StartingOn] make one.
type Calendar struct{ spec unique.Handle[calendarSpec] }

// calendarSpec is what a Calendar says.
type calendarSpec struct {
	every every
	first int    // day of the week, 0 is Sunday, or of the month
	zone  string // IANA name
}

type every uint8

const (
	noWindow every = iota // of a Limit that is no calendar window
	everyDay
	everyWeek
	everyMonth
)

var everyName = [...]string{noWindow: "", everyDay: "day", everyWeek: "week", everyMonth: "month"}

// PerCalendarDay returns a limit of n units between one midnight and the next, in UTC unless
// [Limit.In] says otherwise. What is left at midnight is lost.
func PerCalendarDay(n int64) Limit { return perCalendar(n, calendarSpec{every: everyDay, zone: utc}) }

// PerCalendarWeek returns a limit of n units a week, which begins on Monday at midnight unless
// [Limit.StartingOn] and [Limit.In] say otherwise.
func PerCalendarWeek(n int64) Limit {
	return perCalendar(n, calendarSpec{every: everyWeek, first: int(time.Monday), zone: utc})
}

// PerCalendarMonth returns a limit of n units a month, which begins on its first day at midnight
// unless [Limit.StartingOn] and [Limit.In] say otherwise.
func PerCalendarMonth(n int64) Limit {
	return perCalendar(n, calendarSpec{every: everyMonth, first: 1, zone: utc})
}

const utc = "UTC"

func perCalendar(n int64, s calendarSpec) Limit {
	return Limit{Count: n, Algorithm: CalendarWindow, Calendar: Calendar{unique.Make(s)}}
}

func (c Calendar) of() calendarSpec {
	if c == (Calendar{}) {
		return calendarSpec{}
	}
	return c.spec.Value()
}

// In returns l with the windows of a zone of the IANA database, such as "Europe/Berlin". Only a
// calendar window has one; UTC unless set. The zone has to be known where the application runs: see
// package time/tzdata.
func (l Limit) In(zone string) Limit {
	s := l.Calendar.of()
	if s.zone = zone; zone == "" {
		s.zone = utc
	}
	l.Calendar = Calendar{unique.Make(s)}
	return l
}

// StartingOn returns l with windows that begin on a day of the month, 1 to 31, where a month that
// is shorter begins on its last; or on a day of the week, 0 (Sunday) to 6. Only calendar windows of
// a month or a week have one: the first, and Monday, unless set.
func (l Limit) StartingOn(day int) Limit {
	s := l.Calendar.of()
	if s.first = day; s.every < everyWeek {
		s.first = -1
	}
	l.Calendar = Calendar{unique.Make(s)}
	return l
}

// Unit returns "day", "week" or "month", or "" of the zero Calendar.
func (c Calendar) Unit() string { return everyName[c.of().every] }

// Window returns the window that an instant is in: from start, before end. The zero Calendar, and
// one in a zone that is not known, has none.
func (c Calendar) Window(at time.Time) (start, end time.Time) {
	s := c.of()
	loc, err := location(s.zone)
	if err != nil || s.every == noWindow {
		return start, end
	}
	d := dayOf(at.In(loc))
	for !d.next().begins(loc).After(at) { // where the clock was put back over midnight
		d = d.next()
	}
	from, to := s.around(d)
	start, end = from.begins(loc), to.begins(loc)
	for !end.After(start) { // a zone may leave out a day
		to = to.next()
		end = to.begins(loc)
	}
	return start, end
}

// Numbers returns what stands for a Calendar where a rule is written down: about how long a window
// is, in µs, and a number of its zone and first day, below 10^15 and 0 for those that are the
// default. It is for authors of backends.
func (c Calendar) Numbers() (period, id int64) {
	const day = 86_400_000_000
	s, usual := c.of(), 0
	switch s.every {
	case everyDay:
		period = day
	case everyWeek:
		period, usual = 7*day, int(time.Monday)
	case everyMonth:
		period, usual = 31*day, 1
	}
	if s.zone == utc && s.first == usual {
		return period, 0
	}
	hash := fnv.New64a()
	_, _ = fmt.Fprintf(hash, "%d %s", s.first, s.zone) // it never fails
	return period, int64(hash.Sum64() % 1e15)
}

// around returns the day on which the window begins that a day is in, and that of the next window.
func (s calendarSpec) around(d day) (from, to day) {
	switch s.every {
	case everyWeek:
		weekday := int(d.utc().Weekday())
		from = d.plus(-((weekday - s.first + 7) % 7))
		return from, from.plus(7)
	case everyMonth:
		from = s.inMonth(d.year, d.month)
		if d.utc().Before(from.utc()) {
			return s.inMonth(d.year, d.month-1), from
		}
		return from, s.inMonth(d.year, d.month+1)
	default:
		return d, d.next()
	}
}

// inMonth returns the day of a month on which its window begins.
func (s calendarSpec) inMonth(year int, month time.Month) day {
	first := time.Date(year, month, 1, 0, 0, 0, 0, time.UTC)
	last := first.AddDate(0, 1, -1).Day()
	return day{first.Year(), first.Month(), min(s.first, last)}
}

// day is a day of the calendar, wherever it is.
type day struct {
	year  int
	month time.Month
	day   int
}

func dayOf(t time.Time) day {
	year, month, d := t.Date()
	return day{year, month, d}
}

func (d day) utc() time.Time                      { return time.Date(d.year, d.month, d.day, 0, 0, 0, 0, time.UTC) }
func (d day) plus(days int) day                   { return dayOf(d.utc().AddDate(0, 0, days)) }
func (d day) next() day                           { return d.plus(1) }
func (d day) begins(loc *time.Location) time.Time { return d.beginsAt(loc).UTC() }

// beginsAt returns the first instant at which a clock of the zone shows d, or a later day. That is
// midnight, unless the clock is put forward over it. time.Date does not say which instant it takes
// for a midnight that is left out, or comes twice.
func (d day) beginsAt(loc *time.Location) time.Time {
	midnight := d.utc()
	at := midnight.Add(-26 * time.Hour) // no zone is as far from UTC as that
	for {
		t := at.In(loc)
		_, offset := t.Zone()
		_, until := t.ZoneBounds()
		if !until.IsZero() && !until.After(at) { // Go 1.26 says so on 31 December 2040, wherever the clock is changed
			until = at.Add(time.Hour)
		}
		begins := midnight.Add(-time.Duration(offset) * time.Second)
		if begins.Before(at) {
			begins = at
		}
		if until.IsZero() || begins.Before(until) {
			return begins
		}
		at = until
	}
}

// locations has the zones that were asked for: to load one reads a file.
var locations sync.Map // of string, *time.Location

func location(zone string) (*time.Location, error) {
	if loc, ok := locations.Load(zone); ok {
		return loc.(*time.Location), nil
	}
	if zone == "Local" { // it is another one wherever the application runs
		return nil, fmt.Errorf("zone %q is not a name of the IANA database", zone)
	}
	loc, err := time.LoadLocation(zone)
	if err == nil {
		locations.Store(zone, loc)
	}
	return loc, err
}

// validateCalendar is Validate for the Calendar of a limit.
func (l Limit) validateCalendar() error {
	s := l.Calendar.of()
	switch {
	case l.Algorithm != CalendarWindow && l.Calendar != Calendar{}:
		return fmt.Errorf("ginlimit: limit %v has a zone or a first day; only PerCalendarDay, PerCalendarWeek and PerCalendarMonth have one", l)
	case l.Algorithm != CalendarWindow:
		return nil
	case s.every == noWindow:
		return fmt.Errorf("ginlimit: limit %v: no calendar; use PerCalendarDay, PerCalendarWeek or PerCalendarMonth", l)
	case l.Period != 0:
		return fmt.Errorf("ginlimit: limit %v has the period %v; a calendar window has none", l, l.Period)
	case s.every == everyDay && s.first != 0:
		return fmt.Errorf("ginlimit: limit %v: a day begins at midnight; StartingOn is for weeks and months", l)
	case s.every == everyWeek && (s.first < 0 || s.first > 6):
		return fmt.Errorf("ginlimit: limit %v: there is no day %d of the week; use 0 (Sunday) to 6", l, s.first)
	case s.every == everyMonth && (s.first < 1 || s.first > 31):
		return fmt.Errorf("ginlimit: limit %v: there is no day %d of the month; use 1 to 31", l, s.first)
	}
	if _, err := location(s.zone); err != nil {
		return fmt.Errorf("ginlimit: limit %v: %w; use a name such as Europe/Berlin, and import time/tzdata where the system has no zones", l, err)
	}
	return nil
}
