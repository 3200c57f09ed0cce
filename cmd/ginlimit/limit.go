package main

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/ginlimit/ginlimit/backend"
)

// limits is a flag that may be given several times.
type limits []backend.Limit

// String implements flag.Value.
func (l *limits) String() string {
	if l == nil {
		return ""
	}
	words := make([]string, len(*l))
	for i, limit := range *l {
		words[i] = limitText(limit)
	}
	return strings.Join(words, ", ")
}

// Set implements flag.Value.
func (l *limits) Set(text string) error {
	limit, err := parseLimit(text)
	if err != nil {
		return err
	}
	*l = append(*l, limit)
	return nil
}

const limitHelp = "write a count and a period, as in 100/m, 10/s burst 20, or 5/15m sliding-log"

var algorithms = map[string]backend.Algorithm{"": backend.TokenBucket, "token-bucket": backend.TokenBucket,
	"sliding-window": backend.SlidingWindow, "sliding-log": backend.SlidingLog, "fixed-window": backend.FixedWindow}

var limitSyntax = regexp.MustCompile(`^(\d+)\s*/\s*(\d*)(d|h|m|s|ms|us|ns)(?:\s+burst\s+(\d+))?(?:\s+(token-bucket|sliding-window|sliding-log|fixed-window))?$`)

// parseLimit reads a limit: 100/m, "10/s burst 20", "5/15m sliding-log".
func parseLimit(text string) (backend.Limit, error) {
	text = strings.TrimSpace(text)
	if text == "unlimited" {
		return backend.Unlimited(), nil
	}
	words := limitSyntax.FindStringSubmatch(text)
	if words == nil {
		return backend.Limit{}, fmt.Errorf("ginlimit: limit %q is not understood; %s", text, limitHelp)
	}
	l := backend.Limit{Algorithm: algorithms[words[5]]}
	var errs [3]error
	var periods int64 = 1
	l.Count, errs[0] = strconv.ParseInt(words[1], 10, 64)
	if words[2] != "" {
		periods, errs[1] = strconv.ParseInt(words[2], 10, 64)
	}
	if words[4] != "" {
		l.Burst, errs[2] = strconv.ParseInt(words[4], 10, 64)
	}
	for _, u := range periodUnits {
		if u.letter == words[3] && periods <= math.MaxInt64/int64(u.length) {
			l.Period = time.Duration(periods) * u.length
		}
	}
	if err := errors.Join(errs[:]...); err != nil || l.Count == math.MaxInt64 {
		return backend.Limit{}, fmt.Errorf("ginlimit: limit %q has a number that is too large; %s", text, limitHelp)
	}
	return l, l.Validate()
}

// periodUnits are the units of a period, by length. One of 1 is left out.
var periodUnits = [...]struct {
	letter string
	length time.Duration
}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}, {"ms", time.Millisecond}, {"us", time.Microsecond}, {"ns", 1}}

// limitText is what parseLimit reads as l.
func limitText(l backend.Limit) string {
	if l.IsUnlimited() {
		return "unlimited"
	}
	text := fmt.Sprintf("%d/%s", l.Count, periodText(l.Period))
	if l.Burst > 0 {
		text += fmt.Sprintf(" burst %d", l.Burst)
	}
	if l.Algorithm != backend.TokenBucket {
		text += " " + strings.ReplaceAll(l.Algorithm.String(), " ", "-")
	}
	return text
}

// periodText writes m, 15m, d or 7d: a number of the longest unit that fits.
func periodText(d time.Duration) string {
	for _, u := range periodUnits {
		if d == u.length {
			return u.letter
		} else if d > 0 && d%u.length == 0 {
			return strconv.FormatInt(int64(d/u.length), 10) + u.letter
		}
	}
	return d.String()
}
