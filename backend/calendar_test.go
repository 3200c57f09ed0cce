package backend_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend"
)

// TestCalendarWindows compares windows with the days that a clock on the wall shows: minute by
// minute, over every change of the clock, and otherwise hour by hour.
func TestCalendarWindows(t *testing.T) {
	t.Parallel()
	zones := []string{
		"UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "America/Santiago", "Asia/Beirut",
		"America/Havana", "Pacific/Apia", "Africa/Cairo", "America/St_Johns",
	}
	if testing.Short() {
		zones = zones[4:7]
	}
	for _, zone := range zones {
		loc, err := time.LoadLocation(zone)
		require.NoError(t, err, zone)
		from := time.Date(2011, 1, 1, 0, 0, 0, 0, time.UTC)
		end := from.AddDate(2, 0, 0)
		if zone == "UTC" || zone == "Europe/Berlin" {
			from, end = time.Date(2040, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2041, 2, 1, 0, 0, 0, 0, time.UTC)
		}
		limits := []backend.Limit{
			backend.PerCalendarDay(1).In(zone), backend.PerCalendarWeek(1).In(zone), backend.PerCalendarWeek(1).In(zone).StartingOn(0),
			backend.PerCalendarMonth(1).In(zone), backend.PerCalendarMonth(1).In(zone).StartingOn(31), backend.PerCalendarMonth(1).In(zone).StartingOn(15),
		}
		for i, l := range limits {
			first := func(day time.Time) bool { // whether a window begins on the day
				switch i {
				case 1:
					return day.Weekday() == time.Monday
				case 2:
					return day.Weekday() == time.Sunday
				case 3:
					return day.Day() == 1
				case 4:
					return day.Day() == 31 || day.AddDate(0, 0, 1).Day() == 1
				case 5:
					return day.Day() == 15
				}
				return true
			}
			var began time.Time // the last window
			latest := from.AddDate(0, 0, -1)
			for at := from.AddDate(0, 0, -1); at.Before(end); {
				year, month, day := at.In(loc).Date()
				today := time.Date(year, month, day, 0, 0, 0, 0, time.UTC)
				for latest.Before(today) {
					if latest = latest.AddDate(0, 0, 1); first(latest) {
						began = at
					}
				}
				if !began.IsZero() {
					start, until := l.Calendar.Window(at)
					if !start.Equal(began) || !until.After(at) {
						require.Failf(t, "wrong window", "%v at %v: from %v to %v, want it from %v", l, at, start, until, began)
					}
					if next, _ := l.Calendar.Window(until); !next.Equal(until) {
						require.Failf(t, "windows do not follow one another", "%v: %v ends at %v, and the next begins at %v", l, at, until, next)
					}
				}
				_, offset := at.In(loc).Zone()
				_, then := at.Add(time.Hour).In(loc).Zone()
				if offset != then || at.Minute() != 0 || at.Second() != 0 {
					at = at.Add(time.Minute)
				} else {
					at = at.Add(step(loc, at))
				}
			}
		}
	}
}

// step is to the next half-hour: no zone of the test has a midnight elsewhere, but for changes.
func step(loc *time.Location, at time.Time) time.Duration {
	if _, offset := at.In(loc).Zone(); offset%3600 != 0 {
		return time.Minute
	}
	return time.Hour
}

func TestCalendarLimits(t *testing.T) {
	t.Parallel()
	for text, l := range map[string]backend.Limit{
		"5/day calendar":                           backend.PerCalendarDay(5),
		"5/day Europe/Berlin calendar":             backend.PerCalendarDay(5).In("Europe/Berlin"),
		"5/week calendar":                          backend.PerCalendarWeek(5).StartingOn(1).In("UTC").In(""),
		"5/week from 0 calendar":                   backend.PerCalendarWeek(5).StartingOn(0),
		"5/month America/Caracas from 31 calendar": backend.PerCalendarMonth(5).StartingOn(31).In("America/Caracas"),
		"5 in flight":                              backend.InFlight(5),
		"5 in flight for 90s":                      {Count: 5, Period: 90 * time.Second, Algorithm: backend.Concurrency, Unit: "concurrent-requests"},
		"100/m counting tokens":                    {Count: 100, Period: time.Minute, Unit: "tokens"},
	} {
		require.NoError(t, l.Validate(), text)
		assert.Equal(t, text, l.String())
		parsed, err := backend.ParseLimit(text)
		require.NoError(t, err)
		assert.True(t, parsed == l, "%v is not %v", parsed, l)
	}
	for want, l := range map[string]backend.Limit{
		"unknown time zone Mars/Olympus": backend.PerCalendarDay(1).In("Mars/Olympus"),
		`zone "Local"`:                   backend.PerCalendarDay(1).In("Local"),
		"no day 7 of the week":           backend.PerCalendarWeek(1).StartingOn(7),
		"no day -1 of the week":          backend.PerCalendarWeek(1).StartingOn(-1),
		"no day 0 of the month":          backend.PerCalendarMonth(1).StartingOn(0),
		"no day 32 of the month":         backend.PerCalendarMonth(1).StartingOn(32),
		"a day begins at midnight":       backend.PerCalendarDay(1).StartingOn(0),
		"has a zone or a first day":      {Count: 1, Period: time.Minute, Calendar: backend.PerCalendarDay(1).Calendar},
		"no calendar":                    {Count: 1, Algorithm: backend.CalendarWindow},
		"a calendar window has none":     {Count: 1, Period: time.Minute, Algorithm: backend.CalendarWindow, Calendar: backend.PerCalendarDay(1).Calendar},
		"cannot stand in a header":       backend.InFlight(1).Counting("a b"),
		"has burst 3":                    backend.InFlight(1).WithBurst(3),
	} {
		assert.ErrorContains(t, l.Validate(), want)
	}
	assert.Equal(t, backend.PerCalendarDay(5).In("Europe/Berlin"), backend.PerCalendarDay(5).In("Europe/Berlin"))
	start, end := backend.Calendar{}.Window(time.Now())
	assert.True(t, start.IsZero() && end.IsZero(), "the zero Calendar has a window")
}

func TestBanning(t *testing.T) {
	t.Parallel()
	after := backend.Limit{Count: 3, Period: time.Minute}
	assert.NoError(t, after.Banning(time.Minute, time.Hour).Validate())
	for want, l := range map[string]backend.Limit{
		"the shorter first":        after.Banning(time.Hour, time.Minute),
		"use durations between":    after.Banning(0, time.Minute),
		"whole number":             after.Banning(time.Minute+1, time.Hour),
		"cannot count refusals":    backend.InFlight(1).Banning(time.Minute, time.Hour),
		"limit unlimited refusals": backend.Unlimited().Banning(time.Minute, time.Hour),
	} {
		assert.ErrorContains(t, l.Validate(), want)
	}
	first, longest, ok := after.Banning(time.Minute, time.Hour).Bans()
	assert.Equal(t, []any{time.Minute, time.Hour, true}, []any{first, longest, ok})
	_, _, ok = after.Banning(time.Minute, time.Hour).WithoutBan().Bans()
	assert.False(t, ok)
}

func TestParseLimit(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]backend.Limit{
		" 100/m ":                     {Count: 100, Period: time.Minute},
		"100 / 1m":                    {Count: 100, Period: time.Minute},
		"10/s burst 20":               {Count: 10, Period: time.Second, Burst: 20},
		"5/15m sliding-log":           {Count: 5, Period: 15 * time.Minute, Algorithm: backend.SlidingLog},
		"5/d fixed-window named x":    {Count: 5, Period: 24 * time.Hour, Algorithm: backend.FixedWindow, Name: "x"},
		`0/us counting a named "a b"`: {},
		"unlimited":                   backend.Unlimited(),
	} {
		got, err := backend.ParseLimit(text)
		if want == (backend.Limit{}) {
			assert.Error(t, err, text) // a period of 1 µs
			continue
		}
		require.NoError(t, err, text)
		assert.Equal(t, want, got, text)
	}
	for _, text := range []string{"", "100", "100/x", "100/m burst", "1e3/s", "5 in flight calendar", "99999999999999999999/s", "9223372036854775807/s", "5/99999999999999d", "5/day Mars/Olympus calendar"} {
		_, err := backend.ParseLimit(text)
		assert.ErrorContains(t, err, "ginlimit: ", text)
	}
	var l backend.Limit
	require.NoError(t, l.UnmarshalText([]byte("7/h")))
	text, err := l.Named("a \"b\"").MarshalText()
	require.NoError(t, err)
	assert.Equal(t, `7/h named "a \"b\""`, string(text))
	text, err = backend.Limit{}.MarshalText()
	assert.NoError(t, err)
	assert.Error(t, l.UnmarshalText(text))
}

// FuzzParseLimit: what a limit says of itself is that limit.
func FuzzParseLimit(f *testing.F) {
	for _, text := range []string{"100/m", "10/s burst 20", "5/15m sliding-log", "10000/day Europe/Berlin calendar", "7/month from 15 calendar", "5 in flight", "5 in flight for 7ms", "unlimited", `1/s counting tokens named "x\ty"`} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		l, err := backend.ParseLimit(text)
		if err != nil {
			return
		}
		said, err := l.MarshalText()
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		again, err := backend.ParseLimit(string(said))
		if err != nil || again != l {
			t.Fatalf("%q says %q, which is %v, not %v, %v", text, said, again, l, err)
		}
	})
}
