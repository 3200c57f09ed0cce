package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/cmd/ginlimit/internal/replay"
)

// writeText writes a report for people.
func writeText(out io.Writer, r *replay.Report, zone *time.Location) error {
	t := &text{r: r, zone: zone}
	t.head()
	t.outcome(&r.Limits, "")
	if r.Versus != nil {
		t.line("")
		t.outcome(r.Versus, "-vs ")
		t.change(r.Change)
	}
	t.smallest()
	t.callers("Refused most", r.Limits.Top)
	if r.Change != nil {
		t.callers("Refused more by -vs", r.Change.More)
		t.callers("Refused less by -vs", r.Change.Fewer)
	}
	_, err := io.WriteString(out, t.b.String())
	return err
}

type text struct {
	b    strings.Builder
	r    *replay.Report
	zone *time.Location
}

func (t *text) line(format string, args ...any) { fmt.Fprintf(&t.b, format+"\n", args...) }

func (t *text) time(at time.Time) string { return at.In(t.zone).Format("2006-01-02 15:04:05") }

func (t *text) head() {
	r := t.r
	var names []string
	for _, f := range r.Files {
		names = append(names, fmt.Sprintf("%s (%s)", printable(f.Name, 80), f.Format))
	}
	if len(names) > 3 {
		names = append(names[:2], fmt.Sprintf("and %d more", len(r.Files)-2))
	}
	t.line("%s", strings.Join(names, ", "))
	t.line("%s of %s, by %s%s", plural(r.Requests, "request"), plural(r.Callers, "caller"), printable(r.By, 80), routeText(r.Route))
	t.line("from %s to %s %s", t.time(r.From), t.time(r.To), t.zone)
	if r.Units != r.Requests {
		t.line("%s", plural(r.Units, "unit"))
	}
	for _, part := range []struct {
		n    int64
		what string
	}{
		{r.Other, "of another route, status or limiter, left out"}, {r.NoKey, "without a key, left out: ginlimit would answer 400"},
		{r.NoDuration, "without a duration, taken to end at once"},
		{r.Already, "answered 429 when the log was written"}, {r.Skipped, "of no request"},
		{r.Late, "too far out of order, moved: try a larger -window"}, {r.Bad, "could not be read"},
	} {
		if part.n > 0 {
			lines := "lines"
			if part.n == 1 {
				lines = "line"
			}
			t.line("  %12s %s %s", number(part.n), lines, part.what)
		}
	}
	writeBadLines(&t.b, r)
	if len(r.Outcomes) > 0 {
		var words []string
		for outcome, n := range r.Outcomes {
			words = append(words, fmt.Sprintf("%s %s", number(n), printable(outcome, 40)))
		}
		slices.Sort(words)
		t.line("as decided when it was written: %s", strings.Join(words, ", "))
	}
	t.line("")
}

// writeBadLines shows the first lines that could not be read.
func writeBadLines(out io.Writer, r *replay.Report) {
	for _, bad := range r.BadLines {
		_, _ = fmt.Fprintf(out, "    %s, line %d: %s\n", printable(bad.File, 80), bad.Line, bad.Why)
		if bad.Text != "" {
			_, _ = fmt.Fprintf(out, "      %s\n", printable(bad.Text, 200))
		}
	}
}

// busiest names the periods of rates, behind "the busiest": 1m, 15m, calendar day, moment.
func busiest(r replay.Rates) string {
	switch {
	case r.AtOnce:
		return "moment"
	case r.Calendar != "":
		return "calendar " + r.Calendar
	}
	text := strings.TrimPrefix(backend.Limit{Period: r.Period}.String(), "0/")
	if text[0] < '0' || text[0] > '9' {
		text = "1" + text
	}
	return text
}

// mostIn is the head of the column of what callers asked for in their busiest period.
func mostIn(r replay.Rates) string {
	switch {
	case r.AtOnce:
		return "most at once"
	case r.Calendar != "":
		return "most in a " + busiest(r)
	}
	return "most in " + busiest(r)
}

func routeText(route string) string {
	if route == "" {
		return ""
	}
	return ", of " + printable(route, 80)
}

func (t *text) outcome(o *replay.Outcome, prefix string) {
	var names []string
	for _, l := range o.Limits {
		names = append(names, l.Limit)
	}
	t.line("%s%s", prefix, strings.Join(names, ", "))
	w := tabwriter.NewWriter(&t.b, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		_, _ = fmt.Fprintf(w, "  %s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	row("refused", "%s, %s", plural(o.Refused, "request"), percent(o.Share, o.Refused))
	row("", "%s, %s", plural(o.RefusedCallers, "caller"), percent(o.CallerShare, o.RefusedCallers))
	if len(o.Limits) > 1 && o.Refused > 0 {
		for _, l := range o.Limits {
			row("", "%s by %s", number(l.Refused), l.Limit)
		}
	}
	if o.Worst != nil {
		at := o.Worst.Start.In(t.zone).Format("2006-01-02 15:04")
		row("worst minute", "%s: %s of %s refused", at, number(o.Worst.Refused), plural(o.Worst.Requests, "request"))
	}
	if w := o.Waits; w != nil && w.Longest > 0 {
		row("Retry-After", "half at most %s, nine in ten %s, the longest %s", wait(w.Half), wait(w.NineInTen), wait(w.Longest))
	}
	if w := o.Waits; w != nil && w.Never > 0 {
		row("never", "%s cost more than the limit ever holds", plural(w.Never, "request"))
	}
	_ = w.Flush()
}

func (t *text) change(c *replay.Change) {
	t.line("  compared          requests      callers")
	for _, row := range []struct {
		what              string
		requests, callers int64
	}{
		{"only by -limit", c.OnlyLimits, c.CallersOnlyLimits}, {"only by -vs", c.OnlyVersus, c.CallersOnlyVersus}, {"by both", c.Both, c.CallersBoth},
	} {
		t.line("  %-14s %11s  %11s", row.what, number(row.requests), number(row.callers))
	}
}

func (t *text) smallest() {
	s := t.r.Smallest
	if s == nil {
		return
	}
	goal := fmt.Sprintf("smallest limit that refuses at most %s of %s", percent(s.Target, 1), s.Of)
	if s.None != "" {
		t.line("\n%s: none, %s", goal, s.None)
		return
	}
	t.line("\n%s: %s (%s)", goal, strings.Join(s.Limits, ", "), percent(s.Share, s.Refused))
	if s.OneIn > 1 {
		t.line("  found from one caller in %d: the log is too large to keep all", s.OneIn)
	}
}

func (t *text) callers(title string, all []replay.Caller) {
	if len(all) == 0 {
		return
	}
	t.line("\n%s", title)
	w := tabwriter.NewWriter(&t.b, 0, 0, 2, ' ', tabwriter.AlignRight)
	versus := all[0].RefusedVersus != nil
	head := "refused\trequests\t" + mostIn(t.r.Rates) + "\t"
	if versus {
		head = "refused\t-vs\trequests\t" + mostIn(t.r.Rates) + "\t"
	}
	_, _ = fmt.Fprintf(w, "  %s  first refused\t  last refused\t  caller\n", head)
	for _, c := range all {
		first, last := "-", "-"
		if c.First != nil {
			first = t.time(*c.First)
		}
		if c.Last != nil {
			last = t.time(*c.Last)
		}
		other := ""
		if versus {
			other = number(*c.RefusedVersus) + "\t"
		}
		_, _ = fmt.Fprintf(w, "  %s\t%s%s\t%s\t  %s\t  %s\t  %s\n", number(c.Refused), other, number(c.Requests), number(c.Peak), first, last,
			printable(c.Key, 100))
	}
	_ = w.Flush()
}

// printable is a text of a log that cannot move the cursor, change colours or hide the order of
// what is written.
func printable(s string, most int) string {
	quoted := strconv.QuoteToASCII(s)
	quoted = quoted[1 : len(quoted)-1]
	quoted = strings.ReplaceAll(quoted, `\"`, `"`)
	if len(quoted) > most {
		quoted = quoted[:most] + "..."
	}
	return quoted
}

// number writes 1234567 as 1,234,567.
func number(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func plural(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return number(n) + " " + what + "s"
}

// percent writes a share with two digits that say something. If n is not 0 it is never "0 %".
func percent(share float64, n int64) string {
	p := share * 100
	switch {
	case n == 0 || p == 0:
		return "0 %"
	case p < 0.001:
		return "less than 0.001 %"
	case p >= 10:
		return strconv.FormatFloat(math.Round(p*10)/10, 'f', -1, 64) + " %"
	}
	digits := 1 - int(math.Floor(math.Log10(p)))
	text := strconv.FormatFloat(p, 'f', digits, 64)
	if strings.Contains(text, ".") {
		text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
	}
	return text + " %"
}

// wait writes seconds as a duration of two or three digits.
func wait(s float64) string {
	d := time.Duration(s * float64(time.Second))
	switch {
	case d < time.Millisecond:
		return d.Round(time.Microsecond).String()
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	default:
		return d.Round(time.Second).String()
	}
}
