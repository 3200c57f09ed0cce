package accesslog

import (
	"bytes"
	"strconv"
	"time"
)

// clock reads times. It remembers the last that it read, because neighbouring lines share a minute.
type clock struct {
	zone *time.Location // of times without one
	last int64          // what local returned last

	text [26]byte // the Common Log Format time that base is of
	base int64    // the minute of text, in µs since 1970
}

const (
	second = int64(1_000_000)
	minute = 60 * second
	hour   = 60 * minute
	day    = 24 * hour
)

// clf reads "10/Oct/2000:13:55:36 -0700".
func (c *clock) clf(b []byte) (int64, bool) {
	if len(b) != 26 || b[17] != ':' {
		return 0, false
	}
	sec, ok := digits(b[18:20])
	if !ok || sec > 60 {
		return 0, false
	}
	if string(b[:17]) != string(c.text[:17]) || string(b[20:]) != string(c.text[20:]) {
		at, ok := clfMinute(b)
		if !ok {
			return 0, false
		}
		copy(c.text[:], b)
		c.base = at
	}
	return c.base + sec*second, true
}

func clfMinute(b []byte) (int64, bool) {
	if b[2] != '/' || b[6] != '/' || b[11] != ':' || b[14] != ':' || b[20] != ' ' {
		return 0, false
	}
	month := monthOf(b[3:6])
	d, ok1 := digits(b[0:2])
	y, ok2 := digits(b[7:11])
	h, ok3 := digits(b[12:14])
	m, ok4 := digits(b[15:17])
	offset, ok5 := zoneOffset(b[21:])
	if month == 0 || !ok1 || !ok2 || !ok3 || !ok4 || !ok5 || !valid(y, month, d, h, m) {
		return 0, false
	}
	return daysSince1970(y, month, d)*day + h*hour + m*minute - offset, true
}

const months = "JanFebMarAprMayJunJulAugSepOctNovDec"

// monthOf returns the number of a month's English name, or 0.
func monthOf(b []byte) int64 {
	for i := 0; i < len(months); i += 3 {
		if string(b) == months[i:i+3] {
			return int64(i/3 + 1)
		}
	}
	return 0
}

// zoneOffset reads Z, +hh:mm, +hhmm or +hh, as what has to be subtracted from a time.
func zoneOffset(b []byte) (int64, bool) {
	if len(b) == 1 && (b[0] == 'Z' || b[0] == 'z') {
		return 0, true
	}
	if len(b) < 3 || b[0] != '+' && b[0] != '-' {
		return 0, false
	}
	h, ok := digits(b[1:3])
	rest := b[3:]
	if len(rest) > 0 && rest[0] == ':' {
		rest = rest[1:]
	}
	var m int64
	if len(rest) > 0 && ok {
		m, ok = digits(rest)
		ok = ok && len(rest) == 2
	}
	if !ok || h > 23 || m > 59 {
		return 0, false
	}
	offset := h*hour + m*minute
	if b[0] == '-' {
		offset = -offset
	}
	return offset, true
}

// valid reports whether these are a minute from 1971 on: before that a log has only clocks that
// were not set. The year 9999 is left out because west of Greenwich it may be 10000 in UTC, which
// JSON has no form for.
func valid(y, month, d, h, m int64) bool {
	if y < 1971 || y > 9998 || month < 1 || month > 12 || d < 1 || h > 23 || m > 59 {
		return false
	}
	days := [...]int64{31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31}[month-1]
	if month == 2 && (y%4 == 0 && y%100 != 0 || y%400 == 0) {
		days = 29
	}
	return d <= days
}

// daysSince1970 counts in eras of 400 years that begin in March, so that the leap day is the last
// of its year.
func daysSince1970(y, month, d int64) int64 {
	if month <= 2 {
		y--
		month += 12
	}
	era := y / 400
	ofEra := y - era*400
	ofYear := (153*(month-3)+2)/5 + d - 1
	return era*146097 + ofEra*365 + ofEra/4 - ofEra/100 + ofYear - 719468
}

// iso reads "2026-11-29T12:00:00.123456Z", with a space in place of the T, any number of digits of
// the second's fraction or none, and any zone or none: then it is local.
func (c *clock) iso(b []byte) (int64, bool) {
	if len(b) < 19 || b[4] != b[7] || b[4] != '-' && b[4] != '/' || b[13] != ':' || b[16] != ':' ||
		b[10] != 'T' && b[10] != 't' && b[10] != ' ' {
		return 0, false
	}
	return c.parts(b[0:4], b[5:7], b[8:10], b[11:13], b[14:16], b[17:])
}

// parts reads a time out of its parts. The last is the seconds, and all that follows them.
func (c *clock) parts(year, month, dayOf, hours, minutes, rest []byte) (int64, bool) {
	y, ok1 := digits(year)
	mo, ok2 := digits(month)
	d, ok3 := digits(dayOf)
	h, ok4 := digits(hours)
	m, ok5 := digits(minutes)
	s, ok6 := digits(rest[:2])
	if !ok1 || !ok2 || !ok3 || !ok4 || !ok5 || !ok6 || s > 60 || !valid(y, mo, d, h, m) {
		return 0, false
	}
	rest = rest[2:]
	var us int64
	if len(rest) > 0 && (rest[0] == '.' || rest[0] == ',') {
		i, unit := 1, second/10
		for ; i < len(rest) && rest[i] >= '0' && rest[i] <= '9'; i++ {
			us += int64(rest[i]-'0') * unit
			unit /= 10
		}
		if i == 1 {
			return 0, false
		}
		rest = rest[i:]
	}
	if len(rest) > 1 && rest[0] == ' ' { // 2026-11-29 12:00:00 +0100
		rest = rest[1:]
	}
	if len(rest) == 0 {
		return c.local(int(y), time.Month(mo), int(d), int(h), int(m), int(s), us), true
	}
	offset, ok := zoneOffset(rest)
	if !ok {
		return 0, false
	}
	return daysSince1970(y, mo, d)*day + h*hour + m*minute + s*second + us - offset, true
}

// local returns the instant of a time that is written without its zone. When the clocks go back an
// hour is written twice. Of two instants with the same time it takes the first that is not well
// before the last one read.
func (c *clock) local(y int, month time.Month, d, h, m, s int, us int64) int64 {
	if c.zone == time.UTC {
		c.last = daysSince1970(int64(y), int64(month), int64(d))*day + int64(h)*hour + int64(m)*minute + int64(s)*second + us
		return c.last
	}
	t := time.Date(y, month, d, h, m, s, 0, c.zone)
	const apart = 5 * minute // what a log may be out of order by
	best := t.UnixMicro() + us
	for _, by := range [...]time.Duration{-time.Hour, -30 * time.Minute, 30 * time.Minute, time.Hour} {
		other := t.Add(by)
		if other.Hour() != t.Hour() || other.Minute() != t.Minute() {
			continue
		}
		at := other.UnixMicro() + us
		if lo, hi := min(at, best), max(at, best); lo >= c.last-apart {
			best = lo
		} else {
			best = hi
		}
	}
	c.last = best
	return best
}

// any reads a time in any of the forms that servers write into JSON: a number of seconds since
// 1970, or of ms, µs or ns if it is too large for that, or text.
func (c *clock) any(b []byte) (int64, bool) {
	if len(b) == 0 {
		return 0, false
	}
	if b[0] >= '0' && b[0] <= '9' && !bytes.ContainsAny(b, ":/T") {
		return epoch(b)
	}
	if at, ok := c.iso(b); ok {
		return at, true
	}
	if b[0] == '[' && b[len(b)-1] == ']' {
		b = b[1 : len(b)-1]
	}
	if at, ok := c.clf(b); ok {
		return at, true
	}
	if len(b) == 20 && b[2] == '/' && b[11] == ':' { // 10/Oct/2000:13:55:36 without a zone
		mo := monthOf(b[3:6])
		return c.parts(b[7:11], []byte{byte('0' + mo/10), byte('0' + mo%10)}, b[0:2], b[12:14], b[15:17], b[18:])
	}
	return 0, false
}

// epoch reads a number since 1970. Its unit shows in its size: until the year 5138 there are fewer
// than 1e11 seconds.
func epoch(b []byte) (int64, bool) {
	us, ok := decimal(b, 1)
	switch {
	case !ok || us <= 0:
		return 0, false
	case us < 1e11: // seconds
		us, ok = decimal(b, second)
	case us < 1e14:
		us, ok = decimal(b, 1000)
	case us < 1e17:
	default:
		us /= 1000
	}
	return us, ok && us >= 365*day
}

// decimal reads a number that is not negative, such as 1646861401.5241024 or 1.5e9, times unit,
// rounded down. It reports false if it is none, or 2^62 or more.
func decimal(b []byte, unit int64) (int64, bool) {
	const most = int64(1) << 62
	var whole int64
	i := 0
	for ; i < len(b) && b[i] >= '0' && b[i] <= '9'; i++ {
		if whole > (most/unit-9)/10 {
			return 0, false
		}
		whole = whole*10 + int64(b[i]-'0')
	}
	if i == 0 {
		return 0, false
	}
	n := whole * unit
	if i < len(b) && b[i] == '.' {
		i++
		from := i
		for part := unit; i < len(b) && b[i] >= '0' && b[i] <= '9'; i++ {
			part /= 10
			n += int64(b[i]-'0') * part
		}
		if i == from {
			return 0, false
		}
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		f, err := strconv.ParseFloat(string(b), 64)
		if err != nil || !(f >= 0) || f*float64(unit) >= float64(most) {
			return 0, false
		}
		return int64(f * float64(unit)), true
	}
	return n, i == len(b) && n >= 0
}

// digits reads decimal digits, of which there are at most 18.
func digits(b []byte) (int64, bool) {
	var n int64
	if len(b) == 0 || len(b) > 18 {
		return 0, false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}
