package benchmarks

import (
	"fmt"
	"slices"
	"strings"
)

// reason says why a rival may be ahead of ginlimit in some columns. It is printed only where one is.
type reason struct {
	section string
	of      []string // cases; none means all of the section
	rival   string   // "" means any
	says    string
}

var reasons = []reason{
	{"middleware", nil, xtime, "It writes no field and no body, and its map grows for as long as the process lives."},
	{"kinds", []string{caseThreeGin}, xtime, "It writes no field."},
	{"heap", nil, httprateGo, "httprate keeps a 64-bit hash of a key and nothing else: two callers with one hash share a limit."},
	{"local", []string{caseMemory}, "", "A plain counter, or the one instant that GCRA keeps, takes less than the state of a bucket."},
	{"redis", []string{goroutines(1)}, "", "With one goroutine all wait for the same round trip."},
	{"http", []string{"memory, all allowed", "memory, 90 % denied"}, "", "A decision is a small part of a request. ginlimit writes five fields, and a problem document where it " +
		"refuses. Most of the others write three fields. The row `ginlimit, 3 fields` in [all figures](%s/README.md#http-over-loopback) writes as many."},
	{"kinds", []string{caseThree}, "", "Limiters that are asked one after the other do not charge all or none."},
	{"kinds", []string{caseGiven}, xtime, "The reservation holds the limiter: to give it back is no second look-up. It can only be made " +
		"and given back in one process."},
	{"kinds", []string{caseFlight}, "", "Such a semaphore is of one process. Nobody clears the map, and a place that is not given back is lost."},
}

// notSpeed are metrics in which being ahead is no end in itself, or that another column has already.
var notSpeed = []string{"allocs", "bytes", "added allocs", "commands", "failed", "passed", "in a tenth", "in a period"}

// behind lists each time, rate and size in which a rival is ahead of ginlimit. Dir is where the page
// of all figures is, seen from the list.
func (r *Results) behind(dir string) string {
	var b strings.Builder
	said := map[string]bool{}
	list := func(us, title string, c column) {
		rivals := slices.DeleteFunc(r.rows([]column{c}), func(name string) bool { return !r.aheadOf(us, c, name) })
		if len(rivals) == 0 || slices.Contains(notSpeed, c.metric) || c.section == "middleware" && c.metric == "ns" {
			return
		}
		var ahead []string
		for _, name := range rivals {
			ahead = append(ahead, name+" "+number(r.cell(c, name).Median))
		}
		fmt.Fprintf(&b, "* %s: %s beside %s %s.", title, strings.Join(ahead, "; "), number(r.cell(c, us).Median), c.unit)
		for _, why := range reasons {
			if why.is(c, rivals) && !said[why.says] {
				said[why.says] = true
				b.WriteString(" " + strings.ReplaceAll(why.says, "%s", dir))
			}
		}
		b.WriteString("\n")
	}
	for _, s := range Sections {
		for _, sheet := range r.sheets(s.Name) {
			for _, c := range sheet.columns {
				list(own, sheet.title+", "+c.title, c)
			}
		}
	}
	for _, row := range onGoredis {
		list(row.us, "Decisions per second of "+row.us+", "+row.of, row.column)
	}
	if b.Len() == 0 {
		return "Nowhere in this run.\n"
	}
	return b.String()
}

// is reports whether the reason is one of a column in which these rivals are ahead.
func (w reason) is(c column, rivals []string) bool {
	return w.section == c.section && (len(w.of) == 0 || slices.Contains(w.of, c.of)) && (w.rival == "" || slices.Contains(rivals, w.rival))
}
