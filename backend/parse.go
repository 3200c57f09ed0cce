package backend

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// String returns what l says, without its name, in the language of [ParseLimit]: "100/m burst 20".
func (l Limit) String() string {
	if first, longest, ok := l.Bans(); ok {
		return fmt.Sprintf("%v refusals, then a ban for %v to %v", l.WithoutBan(), first, longest)
	}
	if l.IsUnlimited() {
		return "unlimited" + l.counted("")
	}
	count := strconv.FormatInt(l.Count, 10)
	switch l.Algorithm {
	case Concurrency:
		text := count + " in flight"
		if l.Period != DefaultHold && l.Period != 0 {
			text += " for " + periodText(l.Period)
		}
		return text + l.counted("concurrent-requests")
	case CalendarWindow:
		s := l.Calendar.of()
		text := count + "/" + everyName[s.every]
		if s.zone != utc {
			text += " " + s.zone
		}
		if s.every == everyWeek && s.first != int(time.Monday) || s.every == everyMonth && s.first != 1 || s.first < 0 {
			text += " from " + strconv.Itoa(s.first)
		}
		return text + " calendar" + l.counted("")
	}
	text := count + "/" + periodText(l.Period)
	if l.Burst != 0 {
		text += " burst " + strconv.FormatInt(l.Burst, 10)
	}
	if l.Algorithm != TokenBucket {
		text += " " + strings.ReplaceAll(l.Algorithm.String(), " ", "-")
	}
	return text + l.counted("")
}

// counted returns the words for a Unit that is not the usual one.
func (l Limit) counted(usual string) string {
	if l.Unit == usual || l.Unit == "" {
		return ""
	}
	return " counting " + l.Unit
}

// periodUnits are the units of a period, by length. One of 1 is left out.
var periodUnits = []struct {
	letter string
	length time.Duration
}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}, {"ms", time.Millisecond}, {"us", time.Microsecond}, {"ns", 1}}

// periodText returns a period as a number of the longest unit that fits.
func periodText(d time.Duration) string {
	if d == 0 {
		return "0s"
	}
	for _, u := range periodUnits {
		if d%u.length != 0 {
			continue
		}
		if d == u.length {
			return u.letter
		}
		return strconv.FormatInt(int64(d/u.length), 10) + u.letter
	}
	return d.String() // not possible: the last unit fits
}

// MarshalText returns l in the language of [ParseLimit], with its name. It never fails. What it
// says of a limit that is not valid, as the zero Limit, UnmarshalText refuses.
func (l Limit) MarshalText() ([]byte, error) {
	text := l.String()
	if l.Name != "" {
		text += " named " + strconv.Quote(l.Name)
	}
	return []byte(text), nil
}

// UnmarshalText is [ParseLimit], so that JSON, YAML, flags and the environment carry limits.
func (l *Limit) UnmarshalText(text []byte) error {
	parsed, err := ParseLimit(string(text))
	if err == nil {
		*l = parsed
	}
	return err
}

var (
	rateSyntax     = regexp.MustCompile(`^(-?\d+)\s*/\s*(\d*)(d|h|m|s|ms|us|ns)(?:\s+burst\s+(-?\d+))?(?:\s+(token-bucket|sliding-window|sliding-log|fixed-window))?$`)
	calendarSyntax = regexp.MustCompile(`^(-?\d+)\s*/\s*(day|week|month)(?:\s+([A-Za-z][\w/+-]*))??(?:\s+from\s+(-?\d+))?\s+calendar$`)
	flightSyntax   = regexp.MustCompile(`^(-?\d+)\s+in\s+flight(?:\s+for\s+(\d*)(d|h|m|s|ms|us|ns))?$`)
	namedSyntax    = regexp.MustCompile(`^(.*\S)\s+named\s+("(?:[^"\\]|\\.)*"|[^\s"]+)$`)
	unitSyntax     = regexp.MustCompile(`^(.*\S)\s+counting\s+(\S*)$`)
)

// ParseLimit returns the limit that a text says. It is the inverse of [Limit.String], and of
// [Limit.MarshalText]. A text is one of
//
//	100/m                                a token bucket of 100 units a minute
//	10/s burst 20                        with a burst
//	5/15m sliding-log                    another algorithm: sliding-window, sliding-log, fixed-window
//	10000/day Europe/Berlin calendar     from midnight to midnight in a zone; UTC if it is left out
//	10000/month from 15 calendar         a week or a month, and the day on which it begins
//	5 in flight                          at the same time
//	5 in flight for 10m                  and given back after 10 minutes if the process died
//	unlimited
//
// followed by "counting tokens", which is the unit, and by "named login". Units of time are d, h,
// m, s, ms, us and ns, with a number before them unless it is 1. The limit is valid, as
// [Limit.Validate] says.
func ParseLimit(text string) (Limit, error) {
	l, err := parseLimit(strings.TrimSpace(text))
	if err != nil {
		return Limit{}, fmt.Errorf("ginlimit: the limit %.80q: %w", text, err)
	}
	if err = l.Validate(); err != nil {
		return Limit{}, err
	}
	return l, nil
}

var errSyntax = errors.New(`it is not understood; write it as "100/m", "10/s burst 20", "5/15m sliding-log", ` +
	`"10000/day Europe/Berlin calendar", "5 in flight" or "unlimited"`)

func parseLimit(text string) (l Limit, err error) {
	var name, unit string
	hasUnit := false
	if found := namedSyntax.FindStringSubmatch(text); found != nil {
		text, name = found[1], found[2]
		if strings.HasPrefix(name, `"`) {
			if name, err = strconv.Unquote(name); err != nil {
				return l, errSyntax
			}
		}
	}
	if found := unitSyntax.FindStringSubmatch(text); found != nil {
		text, unit, hasUnit = found[1], found[2], true
	}
	switch rate, calendar, flight := rateSyntax.FindStringSubmatch(text), calendarSyntax.FindStringSubmatch(text), flightSyntax.FindStringSubmatch(text); {
	case text == "unlimited":
		l = Unlimited()
	case rate != nil:
		for a := TokenBucket; a <= FixedWindow; a++ {
			if strings.ReplaceAll(a.String(), " ", "-") == rate[5] {
				l.Algorithm = a
			}
		}
		l.Period, err = parsePeriod(rate[2], rate[3])
		l.Count, err = parseNumber(rate[1], err)
		if rate[4] != "" {
			l.Burst, err = parseNumber(rate[4], err)
		}
	case calendar != nil:
		l = map[string]func(int64) Limit{"day": PerCalendarDay, "week": PerCalendarWeek, "month": PerCalendarMonth}[calendar[2]](0)
		l.Count, err = parseNumber(calendar[1], nil)
		if calendar[3] != "" {
			l = l.In(calendar[3])
		}
		if calendar[4] != "" {
			var first int64
			first, err = parseNumber(calendar[4], err)
			l = l.StartingOn(int(first))
		}
	case flight != nil:
		l = InFlight(0)
		l.Count, err = parseNumber(flight[1], nil)
		if flight[3] != "" && err == nil {
			l.Period, err = parsePeriod(flight[2], flight[3])
		}
	default:
		err = errSyntax
	}
	if hasUnit {
		l.Unit = unit
	}
	l.Name = name
	return l, err
}

// parseNumber returns a number, or the error that there was before.
func parseNumber(digits string, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n == math.MaxInt64 { // which is unlimited
		return 0, fmt.Errorf("the number %s is above %d", digits, int64(MaxCount))
	}
	return n, nil
}

func parsePeriod(digits, letter string) (time.Duration, error) {
	n := int64(1)
	if digits != "" {
		var err error
		if n, err = parseNumber(digits, nil); err != nil {
			return 0, err
		}
	}
	for _, u := range periodUnits {
		if u.letter == letter && n <= math.MaxInt64/int64(u.length) {
			return time.Duration(n) * u.length, nil
		}
	}
	return 0, fmt.Errorf("the period %s%s is above %v", digits, letter, MaxPeriod)
}

// isToken reports whether s can be a Unit: a string of RFC 9651 that needs no escapes, and that the
// language of ParseLimit can say.
func isToken(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return true
}
