package main

import (
	"fmt"
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

var algorithms = map[string]backend.Algorithm{"token-bucket": backend.TokenBucket, "sliding-window": backend.SlidingWindow,
	"sliding-log": backend.SlidingLog, "fixed-window": backend.FixedWindow}

// parseLimit reads a limit: 100/m, "10/s burst 20", "5/15m sliding-log".
func parseLimit(text string) (backend.Limit, error) {
	wrong := func(why string) (backend.Limit, error) {
		return backend.Limit{}, fmt.Errorf("ginlimit: limit %q: %s; %s", text, why, limitHelp)
	}
	words := strings.Fields(text)
	if len(words) == 1 && words[0] == "unlimited" {
		return backend.Unlimited(), nil
	}
	if len(words) == 0 {
		return wrong("it is empty")
	}
	count, period, ok := strings.Cut(words[0], "/")
	if !ok {
		return wrong("it has no period")
	}
	var l backend.Limit
	var err error
	if l.Count, err = strconv.ParseInt(count, 10, 64); err != nil || l.Count < 0 {
		return wrong(fmt.Sprintf("%q is no count", count))
	}
	if l.Period, ok = parsePeriod(period); !ok {
		return wrong(fmt.Sprintf("%q is no period", period))
	}
	for words = words[1:]; len(words) > 0; words = words[1:] {
		if words[0] == "burst" && len(words) > 1 {
			if l.Burst, err = strconv.ParseInt(words[1], 10, 64); err != nil || l.Burst < 1 {
				return wrong(fmt.Sprintf("%q is no burst", words[1]))
			}
			words = words[1:]
			continue
		}
		if l.Algorithm, ok = algorithms[words[0]]; !ok {
			return wrong(fmt.Sprintf("%q is not known", words[0]))
		}
	}
	return l, l.Validate()
}

var periods = map[string]time.Duration{"ms": time.Millisecond, "s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour,
	"sec": time.Second, "min": time.Minute, "hour": time.Hour, "day": 24 * time.Hour, "week": 7 * 24 * time.Hour}

// parsePeriod reads m, 15m, 1h30m, day or 7d.
func parsePeriod(text string) (time.Duration, bool) {
	if d, ok := periods[text]; ok {
		return d, true
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.Atoi(days)
		return time.Duration(n) * 24 * time.Hour, err == nil && n > 0 && n <= 366
	}
	d, err := time.ParseDuration(text)
	return d, err == nil && d > 0
}

// limitText is what parseLimit reads as l.
func limitText(l backend.Limit) string {
	if l.IsUnlimited() {
		return "unlimited"
	}
	text := fmt.Sprintf("%d/%s", l.Count, periodText(l.Period))
	if l.Burst > 0 {
		text += fmt.Sprintf(" burst %d", l.Burst)
	}
	for name, a := range algorithms {
		if a == l.Algorithm && a != backend.TokenBucket {
			text += " " + name
		}
	}
	return text
}

// periodText writes m, 15m, day or 7d.
func periodText(d time.Duration) string {
	switch {
	case d == time.Second:
		return "s"
	case d == time.Minute:
		return "m"
	case d == time.Hour:
		return "h"
	case d == 24*time.Hour:
		return "day"
	case d%(24*time.Hour) == 0:
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	}
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = text[:len(text)-2]
	}
	if strings.HasSuffix(text, "h0m") {
		text = text[:len(text)-2]
	}
	return text
}
