package backendtest

import (
	"time"

	"github.com/ginlimit/ginlimit/backend"
)

// on returns an instant of the next such day of the year: so long after midnight in UTC.
func on(month time.Month, day int, after time.Duration) func(time.Time) time.Time {
	return func(start time.Time) time.Time {
		return soonest(start, func(year int) time.Time { return time.Date(year, month, day, 0, 0, 0, 0, time.UTC).Add(after) })
	}
}

// lastSunday returns an instant of the next last Sunday of a month that has 31 days: so long after
// midnight in UTC. It is when clocks are changed in Europe.
func lastSunday(month time.Month, after time.Duration) func(time.Time) time.Time {
	return func(start time.Time) time.Time {
		return soonest(start, func(year int) time.Time {
			last := time.Date(year, month, 31, 0, 0, 0, 0, time.UTC)
			return last.AddDate(0, 0, -int(last.Weekday())).Add(after)
		})
	}
}

// saturday returns the next Saturday at midnight in UTC.
func saturday(start time.Time) time.Time {
	at := start.UTC().Truncate(day).Add(day)
	for at.Weekday() != time.Saturday {
		at = at.Add(day)
	}
	return at
}

// inYear returns the next 31 January of a leap year, or of another year.
func inYear(leap bool) func(time.Time) time.Time {
	return func(start time.Time) time.Time {
		return soonest(start, func(year int) time.Time {
			if isLeap := time.Date(year, 2, 29, 0, 0, 0, 0, time.UTC).Day() == 29; isLeap != leap {
				return time.Time{}
			}
			return time.Date(year, 1, 31, 0, 0, 0, 0, time.UTC)
		})
	}
}

// soonest returns the first instant of a year, if it has one, that is after start.
func soonest(start time.Time, of func(year int) time.Time) time.Time {
	year := start.UTC().Year()
	for !of(year).After(start) {
		year++
	}
	return of(year)
}

var calendarWindowTraces = []trace{{
	name:   "ends at midnight",
	demand: "A window ends at midnight, whenever it was charged first, and frees all at once.",
	limits: one(backend.PerCalendarDay(5)),
	from:   on(time.June, 15, 12*hour),
	steps: []step{
		take{0, 0, yes, 5, 0, 0},
		take{0, 6, no, 5, never, 0},
		take{0, 1, yes, 4, 0, 12 * hour},
		take{11 * hour, 4, yes, 0, 0, hour},
		take{11 * hour, 1, no, 0, hour, hour},
		take{12*hour - 1*µs, 0, no, 0, 1 * µs, 1 * µs},
		take{12 * hour, 0, yes, 5, 0, 0},
		take{12 * hour, 5, yes, 0, 0, day},
		take{12 * hour, 1, no, 0, day, day},
		take{36*hour - 1*µs, 1, no, 0, 1 * µs, 1 * µs},
		take{36 * hour, 2, yes, 3, 0, day},
		take{10 * day, 1, yes, 4, 0, 12 * hour}, // of a window much later
	},
}, {
	name:   "a day of 23 hours",
	demand: "A day on which the clock is put forward ends an hour sooner.",
	limits: one(backend.PerCalendarDay(5).In("Europe/Berlin")),
	from:   lastSunday(time.March, -hour),
	steps: []step{
		take{0, 3, yes, 2, 0, 23 * hour},
		take{5 * hour, 2, yes, 0, 0, 18 * hour},
		take{5 * hour, 1, no, 0, 18 * hour, 18 * hour},
		take{23*hour - 1*µs, 1, no, 0, 1 * µs, 1 * µs},
		take{23 * hour, 5, yes, 0, 0, day},
		take{23 * hour, 1, no, 0, day, day},
		take{47 * hour, 1, yes, 4, 0, day},
	},
}, {
	name:   "a day of 25 hours",
	demand: "A day on which the clock is put back ends an hour later.",
	limits: one(backend.PerCalendarDay(5).In("Europe/Berlin")),
	from:   lastSunday(time.October, -2*hour),
	steps: []step{
		take{0, 3, yes, 2, 0, 25 * hour},
		take{3 * hour, 2, yes, 0, 0, 22 * hour},
		take{24 * hour, 1, no, 0, hour, hour},
		take{25*hour - 1*µs, 1, no, 0, 1 * µs, 1 * µs},
		take{25 * hour, 5, yes, 0, 0, day},
		take{49 * hour, 1, yes, 4, 0, day},
	},
}, {
	name:   "a debt goes into the next window",
	demand: "What was used above the count is paid by the next window, also where that is shorter, and nothing is left of it afterwards.",
	limits: one(backend.PerCalendarDay(4).In("Europe/Berlin")),
	from:   lastSunday(time.March, -25*hour),
	steps: []step{
		take{0, 4, yes, 0, 0, day},
		settle{hour, 1, 7},
		take{hour, 1, no, 0, 23 * hour, 46 * hour},
		take{hour, 2, no, 0, 46 * hour, 46 * hour},
		take{day - 1*µs, 1, no, 0, 1 * µs, 23*hour + 1*µs},
		take{day, 0, yes, 1, 0, 23 * hour},
		take{day, 2, no, 1, 23 * hour, 23 * hour},
		take{day, 1, yes, 0, 0, 23 * hour},
		take{47*hour - 1*µs, 1, no, 0, 1 * µs, 1 * µs},
		take{47 * hour, 4, yes, 0, 0, day},
	},
}, {
	name:   "a debt of a whole window",
	demand: "At most a whole window more is owed: the next one has nothing to give, and that after it everything.",
	limits: one(backend.PerCalendarMonth(3)),
	from:   on(time.April, 30, 0),
	steps: []step{
		take{0, 1, yes, 2, 0, day},
		settle{0, 1, 100},
		take{0, 1, no, 0, 32 * day, 32 * day},
		take{day, 0, no, 0, 31 * day, 31 * day},
		take{32*day - 1*µs, 1, no, 0, 1 * µs, 1 * µs},
		take{32 * day, 3, yes, 0, 0, 30 * day},
	},
}, {
	name:   "settled in the window charged",
	demand: "What is given back is credited to the window that was charged, and to no other; a window that ended keeps nothing.",
	limits: one(backend.PerCalendarDay(5)),
	from:   on(time.June, 15, 0),
	steps: []step{
		take{0, 3, yes, 2, 0, day},
		take{hour, 2, yes, 0, 0, 23 * hour},
		settle{2 * hour, 1, 1},
		take{2 * hour, 0, yes, 2, 0, 22 * hour},
		refund{2 * hour, 2},
		take{2 * hour, 0, yes, 4, 0, 22 * hour},
		refund{2 * hour, 2}, // twice, by mistake: never below nothing
		take{2 * hour, 0, yes, 5, 0, 0},
		settle{3 * hour, 1, 0},
		take{3 * hour, 0, yes, 5, 0, 0},
		take{4 * hour, 5, yes, 0, 0, 20 * hour},
		take{day, 5, yes, 0, 0, day},
		settle{25 * hour, 6, 0},
		take{25 * hour, 0, no, 0, 23 * hour, 23 * hour},
	},
}, {
	name:   "months that are shorter than the first day, in a leap year",
	demand: "StartingOn(31) begins on the last day of a month that is shorter: 29 February in a leap year.",
	limits: one(backend.PerCalendarMonth(2).StartingOn(31)),
	from:   inYear(true),
	steps: []step{
		take{0, 2, yes, 0, 0, 29 * day},
		take{29*day - 1*µs, 1, no, 0, 1 * µs, 1 * µs},
		take{29 * day, 2, yes, 0, 0, 31 * day}, // until 31 March
		take{60*day - 1*µs, 1, no, 0, 1 * µs, 1 * µs},
		take{60 * day, 2, yes, 0, 0, 30 * day}, // until 30 April
		take{90 * day, 1, yes, 1, 0, 31 * day},
		take{90*day + 12*hour, 1, yes, 0, 0, 31*day - 12*hour},
	},
}, {
	name:   "months that are shorter than the first day, in another year",
	demand: "StartingOn(31) begins on the last day of a month that is shorter: 28 February in a year that is no leap year.",
	limits: one(backend.PerCalendarMonth(2).StartingOn(31)),
	from:   inYear(false),
	steps: []step{
		take{0, 2, yes, 0, 0, 28 * day},
		take{28*day - 1*µs, 1, no, 0, 1 * µs, 1 * µs},
		take{28 * day, 2, yes, 0, 0, 31 * day},
		take{59 * day, 2, yes, 0, 0, 30 * day},
	},
}, {
	name:   "a debt at the end of a month",
	demand: "What February owes is paid by March, until the first of April.",
	limits: one(backend.PerCalendarMonth(10)),
	from:   inYear(false),
	steps: []step{
		take{day, 10, yes, 0, 0, 28 * day},
		settle{2 * day, 1, 16},
		take{2 * day, 4, no, 0, 27 * day, 58 * day},
		take{2 * day, 5, no, 0, 58 * day, 58 * day},
		take{29 * day, 4, yes, 0, 0, 31 * day},
		take{60 * day, 10, yes, 0, 0, 30 * day},
	},
}, {
	name:   "weeks",
	demand: "A week begins on Monday, or on the day that StartingOn says.",
	limits: []backend.Limit{backend.PerCalendarWeek(9).Named("Monday"), backend.PerCalendarWeek(5).StartingOn(int(time.Sunday)).Named("Sunday")},
	from:   saturday,
	steps: []step{
		by{0, 5, yes, 0, 0, day, 1},
		by{0, 1, no, 0, day, day, 1},
		by{day, 4, yes, 0, 0, day, 0},
		by{day, 1, no, 0, day, day, 0},
		by{2 * day, 1, yes, 0, 0, 6 * day, 1},
		by{2 * day, 1, no, 0, 6 * day, 6 * day, 1},
		by{8 * day, 5, yes, 0, 0, 7 * day, 1},
	},
}, {
	name:   "calendars that are alike",
	demand: "Two limits that differ in their zone or first day alone find what each was charged, wherever they stand.",
	limits: one(backend.PerCalendarDay(5)),
	from:   on(time.June, 15, 12*hour),
	steps: []step{
		by{0, 3, yes, 2, 0, 12 * hour, 0},
		change{backend.PerCalendarDay(5), backend.PerCalendarDay(5).In("Asia/Kathmandu")},
		by{0, 1, yes, 1, 0, 12 * hour, 0},
		change{backend.PerCalendarDay(5).In("Asia/Kathmandu"), backend.PerCalendarDay(5)},
		by{0, 0, yes, 1, 0, 12 * hour, 1},
		by{0, 1, yes, 0, 0, 12 * hour, 1},
		by{0, 4, no, 0, 12 * hour, 12 * hour, 1},
		forget{0},
		change{backend.PerCalendarMonth(5).StartingOn(10)},
		by{0, 3, yes, 2, 0, 24*day + 12*hour, 0},
		change{backend.PerCalendarMonth(5).StartingOn(10), backend.PerCalendarMonth(5).StartingOn(20)},
		by{0, 1, yes, 1, 0, 24*day + 12*hour, 0},
		change{backend.PerCalendarMonth(5).StartingOn(20), backend.PerCalendarMonth(5).StartingOn(10)},
		by{0, 0, yes, 1, 0, 24*day + 12*hour, 1},
	},
}, {
	name:   "another calendar",
	demand: "What was used in a window counts in that of another zone, day or length that begins when it is charged, and what was charged ages by its own calendar until then.",
	limits: one(backend.PerCalendarDay(5)),
	from:   on(time.June, 15, 12*hour),
	steps: []step{
		take{0, 3, yes, 2, 0, 12 * hour},
		change{backend.PerCalendarDay(5).In("Asia/Kathmandu")},
		take{0, 0, yes, 2, 0, 12 * hour},
		take{0, 1, yes, 1, 0, 6*hour + 15*time.Minute},
		take{0, 2, no, 1, 6*hour + 15*time.Minute, 6*hour + 15*time.Minute},
		change{backend.PerCalendarMonth(5)},
		take{hour, 1, yes, 0, 0, 15*day + 11*hour},
		change{backend.PerCalendarDay(5)},
		take{12 * hour, 1, no, 0, 15 * day, 15 * day},
		change{backend.PerCalendarMonth(9)},
		take{12 * hour, 4, yes, 0, 0, 15 * day},
	},
}}

// hold10 returns a limit of n units in flight, which are lost after 10 s.
func hold10(n int64) backend.Limit {
	l := backend.InFlight(n)
	l.Period = 10 * sec
	return l
}

var concurrencyTraces = []trace{{
	name:   "a minute, unless set",
	demand: "Without a Period a unit is held for one minute if nobody gives it back.",
	limits: one(backend.Limit{Count: 2, Algorithm: backend.Concurrency}),
	steps: []step{
		take{0, 1, yes, 1, 0, 60 * sec},
		take{60*sec - 1*µs, 2, no, 1, 1 * sec, 1 * µs},
		take{60 * sec, 2, yes, 0, 0, 60 * sec},
	},
}, {
	name:   "held until it is settled",
	demand: "A unit is held until Settle gives it back, whatever is settled, and once; nobody knows when, so that a refusal says 1 s.",
	limits: one(backend.InFlight(3)),
	steps: []step{
		take{0, 0, yes, 3, 0, 0},
		take{0, 4, no, 3, never, 0},
		take{0, 1, yes, 2, 0, 60 * sec},
		take{1 * sec, 2, yes, 0, 0, 60 * sec},
		take{1 * sec, 1, no, 0, 1 * sec, 60 * sec},
		take{1 * sec, 3, no, 0, 1 * sec, 60 * sec},
		take{1 * sec, 0, no, 0, 1 * sec, 60 * sec},
		settle{20 * sec, 3, 1}, // the place comes back
		take{20 * sec, 0, yes, 1, 0, 41 * sec},
		settle{20 * sec, 3, 9}, // nothing is held any more
		settle{20 * sec, 3, 0},
		take{20 * sec, 0, yes, 1, 0, 41 * sec},
		settle{21 * sec, 4, 9}, // more than it was: what was held comes back
		take{21 * sec, 0, yes, 3, 0, 0},
		take{21 * sec, 3, yes, 0, 0, 60 * sec},
		settle{22 * sec, 11, 0}, // less
		take{22 * sec, 0, yes, 3, 0, 0},
	},
}, {
	name:   "a unit that nobody gives back",
	demand: "A unit that is not settled comes back by itself after one Period, and another that was taken since does not.",
	limits: one(hold10(2)),
	steps: []step{
		take{0, 1, yes, 1, 0, 10 * sec},
		take{4 * sec, 1, yes, 0, 0, 10 * sec},
		take{4 * sec, 1, no, 0, 1 * sec, 10 * sec},
		take{10*sec - 1*µs, 1, no, 0, 1 * sec, 4*sec + 1*µs},
		take{10 * sec, 1, yes, 0, 0, 10 * sec},
		settle{10 * sec, 1, 1}, // what it held is lost
		take{10 * sec, 0, no, 0, 1 * sec, 10 * sec},
		settle{13 * sec, 2, 1},
		take{13 * sec, 0, yes, 1, 0, 7 * sec},
		take{20*sec - 1*µs, 2, no, 1, 1 * sec, 1 * µs},
		take{20 * sec, 2, yes, 0, 0, 10 * sec},
	},
}, {
	name:   "renewed",
	demand: "Renew holds what a charge holds for another Period, from now on, and Settle gives that back.",
	limits: one(hold10(3)),
	steps: []step{
		take{0, 2, yes, 1, 0, 10 * sec},
		renew{8 * sec, 1},
		take{8 * sec, 0, yes, 1, 0, 10 * sec},
		take{8 * sec, 2, no, 1, 1 * sec, 10 * sec},
		take{18*sec - 1*µs, 2, no, 1, 1 * sec, 1 * µs},
		renew{18*sec - 1*µs, 1},
		take{18 * sec, 2, no, 1, 1 * sec, 10*sec - 1*µs},
		take{20 * sec, 1, yes, 0, 0, 10 * sec},
		settle{21 * sec, 1, 2},
		take{21 * sec, 0, yes, 2, 0, 9 * sec},
		renew{22 * sec, 1}, // nothing is held
		take{22 * sec, 0, yes, 2, 0, 8 * sec},
		settle{22 * sec, 6, 1},
		take{22 * sec, 0, yes, 3, 0, 0},
	},
}, {
	name:   "renewed too late",
	demand: "Units that were lost are held again, beyond the limit if others have them meanwhile, but never more than twice as many.",
	limits: one(hold10(2)),
	steps: []step{
		take{0, 2, yes, 0, 0, 10 * sec},
		take{10 * sec, 2, yes, 0, 0, 10 * sec},
		take{20 * sec, 1, yes, 1, 0, 10 * sec},
		renew{20 * sec, 1},
		take{20 * sec, 1, no, 0, 1 * sec, 10 * sec},
		renew{21 * sec, 2}, // one of its two is the fourth
		settle{21 * sec, 3, 1},
		take{21 * sec, 0, no, 0, 1 * sec, 10 * sec},
		settle{22 * sec, 1, 2},
		take{22 * sec, 0, yes, 1, 0, 9 * sec},
		settle{22 * sec, 2, 2},
		take{22 * sec, 0, yes, 2, 0, 0},
		renew{60 * sec, 3}, // settled
		take{60 * sec, 2, yes, 0, 0, 10 * sec},
		forget{61 * sec},
		renew{61 * sec, 8}, // of a key that nothing is known of
		take{61 * sec, 1, no, 0, 1 * sec, 10 * sec},
		settle{61 * sec, 8, 2},
		take{61 * sec, 0, yes, 2, 0, 0},
	},
}, {
	name:   "beside another limit",
	demand: "Settle gives back what is held and corrects the other limits of the key, to less, to more, or not at all.",
	limits: []backend.Limit{hold10(5).Named("in flight"), window(10, hour).Named("rate")},
	steps: []step{
		by{0, 2, yes, 3, 0, 10 * sec, 0},
		settle{1 * sec, 1, 2},
		by{1 * sec, 0, yes, 5, 0, 0, 0},
		change{backend.Unlimited(), window(10, hour).Named("rate")},
		by{1 * sec, 0, yes, 8, 0, hour - 1*sec, 1},
		change{hold10(5).Named("in flight"), window(10, hour).Named("rate")},
		by{2 * sec, 3, yes, 2, 0, 10 * sec, 0},
		settle{3 * sec, 4, 1},
		by{3 * sec, 0, yes, 5, 0, 0, 0},
		by{3 * sec, 5, yes, 0, 0, 10 * sec, 0},
		by{3 * sec, 4, no, 2, hour - 3*sec, hour - 3*sec, 1}, // both refuse
		settle{4 * sec, 6, 7},
		by{4 * sec, 1, no, 0, hour - 4*sec, hour - 4*sec, 1},
		change{hold10(5).Named("in flight")},
		by{4 * sec, 5, yes, 0, 0, 10 * sec, 0},
	},
}, {
	name:   "another number of places",
	demand: "What is held counts under another number and another Period, and comes back by the one it was taken under.",
	limits: one(hold10(5)),
	steps: []step{
		take{0, 4, yes, 1, 0, 10 * sec},
		change{hold10(2)},
		take{1 * sec, 1, no, 0, 1 * sec, 9 * sec},
		settle{1 * sec, 1, 4},
		take{1 * sec, 1, yes, 1, 0, 10 * sec},
		change{backend.InFlight(2)},
		take{2 * sec, 1, yes, 0, 0, 60 * sec},
		take{2 * sec, 1, no, 0, 1 * sec, 60 * sec},
		settle{3 * sec, 3, 1},
		take{3 * sec, 0, yes, 1, 0, 59 * sec},
		change{hold10(2)},
		take{4 * sec, 1, yes, 0, 0, 10 * sec}, // both by the shorter Period
		take{12 * sec, 1, yes, 0, 0, 10 * sec},
		take{12 * sec, 1, no, 0, 1 * sec, 10 * sec},
		take{14 * sec, 1, yes, 0, 0, 10 * sec},
	},
}}

// banning are the limits of most traces of bans: one a second, and a ban at the second refusal in
// 10 s.
var banning = []backend.Limit{window(1, sec).Named("rate"), window(1, 10*sec).Banning(60*sec, 240*sec).Named("ban")}

var banTraces = []trace{{
	name:   "comes about, ends, and is twice as long",
	demand: "More refusals than the limit of a ban allows bring it about, for first; again within longest of its end for twice as long, up to longest.",
	limits: banning,
	steps: []step{
		take{0, 1, yes, 0, 0, 1 * sec},
		take{0, 0, no, 0, 1 * sec, 1 * sec}, // a look is no refusal
		take{0, 0, no, 0, 1 * sec, 1 * sec},
		take{0, 1, no, 0, 1 * sec, 1 * sec},
		barred{0, 1, 60 * sec, yes},
		barred{1 * ms, 1, 60*sec - 1*ms, no},
		barred{2 * sec, 0, 58 * sec, no},
		barred{60*sec - 1*µs, 1, 1 * µs, no},
		take{60 * sec, 1, yes, 0, 0, 1 * sec}, // nothing was charged
		take{60 * sec, 1, no, 0, 1 * sec, 1 * sec},
		barred{60 * sec, 1, 120 * sec, yes},
		take{180 * sec, 1, yes, 0, 0, 1 * sec},
		take{180 * sec, 1, no, 0, 1 * sec, 1 * sec},
		barred{180 * sec, 1, 240 * sec, yes},
		take{420 * sec, 1, yes, 0, 0, 1 * sec},
		take{420 * sec, 1, no, 0, 1 * sec, 1 * sec},
		barred{420 * sec, 1, 240 * sec, yes}, // no longer than that
		take{660 * sec, 1, yes, 0, 0, 1 * sec},
		take{900*sec - 1*µs, 1, yes, 0, 0, 1 * sec},
		take{900*sec - 1*µs, 1, no, 0, 1 * sec, 1 * sec},
		barred{900*sec - 1*µs, 1, 240 * sec, yes},
		take{1380*sec - 1*µs, 1, yes, 0, 0, 1 * sec},
		take{1380*sec - 1*µs, 1, no, 0, 1 * sec, 1 * sec},
		barred{1380*sec - 1*µs, 1, 60 * sec, yes}, // longest after its end it is forgotten
	},
}, {
	name:   "refusals are counted by any limit",
	demand: "Refusals that are too far apart bring no ban about, and admissions between them change nothing.",
	limits: []backend.Limit{window(1, sec), log(2, 10*sec).Banning(5*sec, 60*sec)},
	steps: []step{
		take{0, 1, yes, 0, 0, 1 * sec},
		take{0, 1, no, 0, 1 * sec, 1 * sec},
		take{1 * sec, 1, yes, 0, 0, 1 * sec},
		take{1 * sec, 1, no, 0, 1 * sec, 1 * sec},
		take{10 * sec, 1, yes, 0, 0, 1 * sec},
		take{10 * sec, 1, no, 0, 1 * sec, 1 * sec}, // the first is forgotten
		barred{10 * sec, 1, 5 * sec, yes},
		take{15 * sec, 1, yes, 0, 0, 1 * sec},
		take{15 * sec, 1, no, 0, 1 * sec, 1 * sec}, // a ban ends what was counted
		take{15 * sec, 1, no, 0, 1 * sec, 1 * sec},
		barred{15 * sec, 1, 10 * sec, yes},
	},
}, {
	name:   "a limit that waits for longer decides",
	demand: "While a ban lasts that is shorter than the wait of the limit, the limit decides, and the caller is banned all the same.",
	limits: []backend.Limit{window(1, 100*sec), window(1, 10*sec).Banning(60*sec, 240*sec)},
	steps: []step{
		take{0, 1, yes, 0, 0, 100 * sec},
		take{0, 1, no, 0, 100 * sec, 100 * sec},
		banned{0, 1, 0, 100 * sec, 100 * sec},
		banned{1 * sec, 2, 0, never, 99 * sec},
		take{60 * sec, 1, no, 0, 40 * sec, 40 * sec},
		barred{60 * sec, 1, 120 * sec, yes},
	},
}, {
	name:   "lifted by Reset",
	demand: "Reset lifts a ban and forgets the refusals and how long the last ban was.",
	limits: banning,
	steps: []step{
		take{0, 1, yes, 0, 0, 1 * sec},
		take{0, 1, no, 0, 1 * sec, 1 * sec},
		barred{0, 1, 60 * sec, yes},
		forget{1 * sec},
		take{1 * sec, 1, yes, 0, 0, 1 * sec},
		take{1 * sec, 1, no, 0, 1 * sec, 1 * sec},
		barred{1 * sec, 1, 60 * sec, yes},
		forget{2 * sec},
		take{2 * sec, 1, yes, 0, 0, 1 * sec},
		take{2 * sec, 1, no, 0, 1 * sec, 1 * sec},
		forget{2 * sec},
		take{2 * sec, 1, yes, 0, 0, 1 * sec},
		take{2 * sec, 1, no, 0, 1 * sec, 1 * sec},
	},
}, {
	name:   "kept through changed limits",
	demand: "A ban, and the refusals before it, stand whatever limits the key is charged under, and a limit that has no ban honours it.",
	limits: banning,
	steps: []step{
		take{0, 1, yes, 0, 0, 1 * sec},
		take{0, 1, no, 0, 1 * sec, 1 * sec},
		change{window(9, sec), log(9, hour), banning[1]},
		take{0, 1, yes, 7, 0, 1 * sec},
		change(banning),
		barred{500 * ms, 1, 60 * sec, yes},
		change{window(9, sec), log(9, hour), banning[1]},
		barred{1 * sec, 1, 59500 * ms, no},
		change{window(9, sec)},
		barred{1 * sec, 1, 59500 * ms, no},
		change{log(100, hour), window(5, sec).Banning(1*sec, 1*sec)},
		barred{2 * sec, 1, 58500 * ms, no},
		take{60500 * ms, 1, yes, 98, 0, hour}, // and the one of before
		change(banning),
		take{60500 * ms, 1, no, 0, hour, hour},
	},
}, {
	name:   "another length",
	demand: "Whether a ban is twice as long as the last is up to the longest of the limit that it comes about under.",
	limits: banning,
	steps: []step{
		take{0, 1, yes, 0, 0, 1 * sec},
		take{0, 1, no, 0, 1 * sec, 1 * sec},
		barred{0, 1, 60 * sec, yes},
		change{window(1, sec), window(1, 10*sec).Banning(50*sec, 100*sec)},
		take{160*sec - 1*µs, 1, yes, 0, 0, 1 * sec},
		take{160*sec - 1*µs, 1, no, 0, 1 * sec, 1 * sec},
		barred{160*sec - 1*µs, 1, 100 * sec, yes}, // no longer than that
		forget{200 * sec},
		change(banning),
		take{200 * sec, 1, yes, 0, 0, 1 * sec},
		take{200 * sec, 1, no, 0, 1 * sec, 1 * sec},
		barred{200 * sec, 1, 60 * sec, yes},
		change{window(1, sec), window(1, 10*sec).Banning(50*sec, 100*sec)},
		take{360 * sec, 1, yes, 0, 0, 1 * sec},
		take{360 * sec, 1, no, 0, 1 * sec, 1 * sec},
		barred{360 * sec, 1, 50 * sec, yes}, // 100 s after the end of the last
	},
}, {
	name:   "by hand",
	demand: "Ban refuses whatever is asked for, in place of a ban that is there, charges nothing, and is none that the next one is longer than.",
	limits: banning,
	steps: []step{
		ban{0, 30 * sec},
		barred{0, 1, 30 * sec, no},
		barred{1 * sec, 0, 29 * sec, no},
		ban{1 * sec, 10 * sec},
		barred{1 * sec, 1, 10 * sec, no},
		take{11 * sec, 1, yes, 0, 0, 1 * sec},
		take{11 * sec, 1, no, 0, 1 * sec, 1 * sec},
		barred{11 * sec, 1, 60 * sec, yes},
		ban{12 * sec, 100 * sec},
		barred{12 * sec, 1, 100 * sec, no},
		take{112 * sec, 1, yes, 0, 0, 1 * sec},
		take{112 * sec, 1, no, 0, 1 * sec, 1 * sec},
		barred{112 * sec, 1, 120 * sec, yes}, // twice the 60 s of the last that was not by hand
		forget{113 * sec},
		take{113 * sec, 1, yes, 0, 0, 1 * sec},
		ban{113 * sec, 1 * ms},
		banned{113 * sec, 1, 0, 1 * sec, 1 * sec},
		take{113*sec + 1*ms, 1, no, 0, 1*sec - 1*ms, 1*sec - 1*ms}, // its limits are as they were
	},
}, {
	name:   "what is settled and renewed",
	demand: "A charge of before a ban is settled and renewed as ever, and neither lifts the ban.",
	limits: []backend.Limit{hold10(2), window(2, 5*sec), window(1, 10*sec).Banning(60*sec, 240*sec)},
	steps: []step{
		take{0, 2, yes, 0, 0, 10 * sec},
		take{0, 1, no, 0, 5 * sec, 5 * sec},
		barred{0, 1, 60 * sec, yes},
		renew{1 * sec, 1},
		barred{1 * sec, 1, 59 * sec, no},
		settle{2 * sec, 1, 3},
		barred{2 * sec, 1, 58 * sec, no},
		settle{3 * sec, 1, 0},
		barred{3 * sec, 1, 57 * sec, no},
		take{60 * sec, 2, yes, 0, 0, 10 * sec},
	},
}, {
	name:   "with limits that keep no state",
	demand: "What a limit of count 0 refuses is counted too, and its wait decides; an unlimited one lets no banned caller pass.",
	limits: []backend.Limit{backend.Unlimited(), window(1, 10*sec).Banning(60*sec, 240*sec)},
	steps: []step{
		ban{0, 30 * sec},
		barred{0, 1, 30 * sec, no},
		change{per(0, sec), window(1, 10*sec).Banning(60*sec, 240*sec)},
		banned{1 * sec, 1, 0, never, 0},
		take{30 * sec, 1, no, 0, never, 0},
		banned{30 * sec, 1, 0, never, 0},
	},
}}
