package benchmarks

import (
	"cmp"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/gonum/stat"
)

// column is one quantity of all candidates: a column of a table and a panel of a picture.
type column struct {
	section, of, metric string
	title, unit         string
	more                bool // is better
}

// sheet is a table, and a picture if it has a file. It is about candidates side by side.
type sheet struct {
	file, title, says string
	columns           []column
}

func ns(of, title string) column { return column{"memory", of, "ns", title, "ns", false} }

func perSecond(of, title string) column { return column{"redis", of, "decisions/s", title, "/s", true} }

// sheets are what docs/benchmarks/README.md shows, by section.
func (r *Results) sheets(section string) []sheet {
	keys := number(float64(r.Keys)) + " keys"
	cores := "two cores"
	switch section {
	case "memory":
		return []sheet{
			{"memory", "Time of a decision on one core", "The floor reads the clock and swaps one word: no decision can be less. A new key is one of " + keys +
				" that the limiter has not seen, its growth included. Zipf's law has the exponent 1.1.", []column{
				ns(on(caseHot, 1), "one hot key"), ns(on(caseDenied, 1), "one hot key, denied"), ns(on(caseUniform, 1), keys+", uniform"),
				ns(on(caseZipf, 1), keys+", Zipf"), ns(caseNew, "a new key"),
			}},
			{"memory-2-cores", "Time of a decision on " + cores, "Two goroutines decide at once. The time is that of all decisions divided by their number: half of " +
				"that on one core is all that can be had.", []column{
				ns(on(caseHot, 2), "one hot key"), ns(on(caseDenied, 2), "one hot key, denied"), ns(on(caseUniform, 2), keys+", uniform"), ns(on(caseZipf, 2), keys+", Zipf"),
			}},
			{"heap", "Memory", "Live heap for each of " + keys + " in use, without the bytes of the keys' own strings. " +
				"As set up here, only ginlimit bounds the number of its keys.", []column{
				{"heap", "", "bytes/key", "live heap for a key", "B", false},
			}},
			{"", "Allocations of a decision", "", []column{
				{"memory", on(caseHot, 1), "allocs", "one hot key", "", false}, {"memory", on(caseHot, 1), "bytes", "bytes", "", false},
				{"memory", on(caseUniform, 1), "allocs", keys + ", uniform", "", false}, {"memory", on(caseUniform, 1), "bytes", "bytes", "", false},
				{"memory", caseNew, "allocs", "a new key", "", false}, {"memory", caseNew, "bytes", "bytes", "", false},
			}},
		}
	case "middleware":
		return []sheet{
			{"middleware", "What a middleware adds to a request", "`GET /ping` through a Gin engine, from `ServeHTTP` to the end of the response, on one core; in each " +
				"round the bare engine's time is taken off. A refused request does without the handler. `ginlimit, 3 " +
				"fields` is `WithHeaders(HeadersLegacy)`: as many as most of the others write. In the second column another " +
				"handler sets a key before, as middleware for request IDs or authentication does, also in the bare engine.", []column{
				{"middleware", caseThrough, "added ns", "let through", "ns", false},
				{"middleware", caseAnother, "added ns", "with another key", "ns", false},
				{"middleware", caseRefused, "added ns", "refused", "ns", false},
			}},
			{"", "Allocations, and the whole request", "", []column{
				{"middleware", caseThrough, "added allocs", "allocations added, let through", "", false},
				{"middleware", caseAnother, "added allocs", "with another key", "", false},
				{"middleware", caseRefused, "added allocs", "refused", "", false},
				{"middleware", caseThrough, "ns", "whole request, let through", "ns", false},
				{"middleware", caseAnother, "ns", "with another key", "ns", false},
				{"middleware", caseRefused, "ns", "refused", "ns", false},
			}},
		}
	case "redis":
		return []sheet{
			{"redis", "Decisions per second", "On 10,000 keys. Redis runs on the same machine as the client, and shares its cores.", []column{
				perSecond(goroutines(1), "1 goroutine"), perSecond(goroutines(64), "64 goroutines"), perSecond(goroutines(512), "512 goroutines"),
			}},
			{"", "Decisions per second on cores of their own", "The same, but Redis has one half of the cores and the client the other, as " +
				"if each had a machine of its own. Where they share a few cores, what is measured is also how the kernel divides these.", []column{
				perSecond(apart(64), "64 goroutines"), perSecond(apart(512), "512 goroutines"),
				{"redis", apart(64), "server µs", "CPU of Redis, 64 goroutines", "µs", false}, {"redis", apart(64), "client µs", "CPU of the client", "µs", false},
			}},
			{"redis-cost", "What a decision costs, 64 goroutines", "CPU as Redis (`INFO cpu`) and the client (`getrusage`) count it, the loop of the benchmark " +
				"included. A command is one that Redis counts, also in a script.", []column{
				{"redis", goroutines(64), "server µs", "CPU of Redis", "µs", false}, {"redis", goroutines(64), "client µs", "CPU of the client", "µs", false},
				{"redis", goroutines(64), "commands", "commands", "", false},
			}},
			{"redis-latency", "How long a decision takes", "", []column{
				{"redis", goroutines(1), "p50 µs", "median, 1 goroutine", "µs", false}, {"redis", goroutines(1), "p99 µs", "p99, 1 goroutine", "µs", false},
				{"redis", goroutines(64), "p50 µs", "median, 64 goroutines", "µs", false}, {"redis", goroutines(64), "p99 µs", "p99, 64 goroutines", "µs", false},
				{"redis", goroutines(512), "p50 µs", "median, 512 goroutines", "µs", false}, {"redis", goroutines(512), "p99 µs", "p99, 512 goroutines", "µs", false},
			}},
			{"redis-hot", "One hot key, 64 goroutines", "`Lease` charges many units at once and serves them locally. A refusal that ginlimit knows is " +
				"answered without Redis. Some limiters fail at times where many want one key; only decisions count.", []column{
				perSecond("one hot key", "let through"), perSecond(caseDenied, "denied"),
				{"redis", "one hot key", "failed", "share that failed, let through", "", false}, {"redis", caseDenied, "commands", "commands, denied", "", false},
			}},
		}
	case "kinds":
		return kindSheets()
	case "local":
		return []sheet{
			{"", "Without Redis, and with it", "One goroutine. A refusal that is known is answered in the process. `Reset` on another instance ends " +
				"it: the time is the median of 20, to the next admission.", []column{
				{"local", caseLocal, "ns", "a refusal that is known", "ns", false}, {"local", caseLocal, "allocs", "its allocations", "", false},
				{"local", goroutines(1), "ns", "a decision by Redis", "ns", false}, {"local", goroutines(1), "allocs", "its allocations", "", false},
				{"local", caseReset, "µs", "from a Reset elsewhere", "µs", false}, {"local", caseReset, "slowest µs", "slowest of 20", "µs", false},
			}},
			{"redis-memory", "Memory of a caller in Redis", "All that `MEMORY USAGE` says of the keys of one caller, whose own key has 16 bytes.", []column{
				{"local", caseMemory, "bytes/key", "bytes for a caller", "B", false},
			}},
		}
	case "http":
		says := "A Gin application in a process of its own, asked by wrk from 64 connections on one thread, %s. wrk, " +
			"the application and Redis share the cores. The client's address comes from `X-Forwarded-For`, in " +
			"which the proxy on this machine is trusted; of the denied traffic nine requests in ten come from " +
			"one address that is over its limit."
		var sheets []sheet
		for _, store := range []string{"memory", "redis"} {
			var columns []column
			for _, c := range httpCases {
				columns = append(columns, column{"http", store + ", " + c.name, "requests/s", c.name, "/s", true})
			}
			for _, c := range httpCases {
				columns = append(columns, column{"http", store + ", " + c.name, "CPU µs", "CPU of the application for a request, " + c.name, "µs", false})
			}
			for _, c := range httpCases {
				columns = append(columns, column{"http", store + ", " + c.name, "p99 ms", "p99, " + c.name, "ms", false})
			}
			where := map[string]string{"memory": "in memory", "redis": "on Redis"}[store]
			sheets = append(sheets, sheet{"http-" + store, "Requests per second, " + where, fmt.Sprintf(says, where), columns})
		}
		return sheets
	case "connections":
		var columns []column
		for _, n := range connectionGoroutines {
			columns = append(columns, column{"connections", goroutines(n), "decisions/s", goroutines(n), "/s", true})
		}
		return []sheet{{"", "Decisions per second by connections", "", columns}}
	case "exact":
		var sheets []sheet
		for _, store := range []string{"memory", "redis"} {
			where := map[string]string{"memory": "in memory", "redis": "on Redis"}[store]
			sheets = append(sheets, sheet{"exact-" + store, "A limit of 100, " + where, "", []column{
				{"exact", caseAtOnce + ", " + store, "passed", "let through of 10,000 at once", "", false},
				{"exact", caseAtOnce + ", " + store, "failed", "of which got an error", "", false},
				{"exact", caseEdge + ", " + store, "in a tenth", "most in a tenth of a period", "", false},
				{"exact", caseEdge + ", " + store, "in a period", "most in a period", "", false},
			}})
		}
		return append(sheets, sheet{"", "Two limiters of 5 on one store", "", []column{{"exact", casePair, "passed", "let through by the second", "", false}}})
	}
	return nil
}

// curve is a quantity that grows with something.
type curve struct {
	of, metric, title, x, y string
	linear                  bool // the slope is that of the quantity, not of its logarithm
}

// curves are the panels of growth.svg, and a table each.
var curves = []curve{
	{growKeys, "ns", "Time of a decision, keys drawn at random", "keys", "ns", false},
	{growKeys, "bytes/key", "Live heap for a key", "keys", "bytes", false},
	{growKeysRedis, "server µs", "CPU of Redis, keys drawn at random", "keys", "µs", false},
	{growKeysRedis, "bytes/key", "Memory of Redis for a key", "keys", "bytes", false},
	{growKeysPostgres, "µs", "Time of a decision on PostgreSQL, keys drawn at random", "keys", "µs", false},
	{growKeysPostgres, "bytes/key", "Table and index of PostgreSQL for a key", "keys", "bytes", false},
	{growGoroutines, "ns", "Time of a decision on one hot key, all cores", "goroutines", "ns", false},
	{growLimits, "ns", "Time of a decision with several limits, memory", "limits of a key", "ns", true},
	{growLimitsRedis, "server µs", "CPU of Redis with several limits", "limits of a key", "µs", true},
	{growInstances, "decisions/s", "Decisions in one Redis by instances", "instances", "decisions per second", false},
}

// series are the figures of a curve, by candidate.
func (r *Results) series(c curve) (names []string, points map[string][]Figure) {
	points = map[string][]Figure{}
	for _, f := range r.Select("growth", c.of, c.metric) {
		if points[f.Name] == nil {
			names = append(names, f.Name)
		}
		points[f.Name] = append(points[f.Name], f)
	}
	if i := slices.Index(names, own); i > 0 { // rounds begin with different candidates
		names = slices.Insert(slices.Delete(names, i, i+1), 0, own)
	}
	return names, points
}

// slope says in words how a quantity grows: the line of least squares through the medians, or
// through their logarithms.
func (c curve) slope(points []Figure) string {
	var x, y []float64
	for _, p := range points {
		if p.Median <= 0 {
			continue // heap that something else gave back
		}
		if c.linear {
			x, y = append(x, p.X), append(y, p.Median)
		} else {
			x, y = append(x, math.Log10(p.X)), append(y, math.Log10(p.Median))
		}
	}
	if len(x) < 2 {
		return ""
	}
	_, slope := stat.LinearRegression(x, y, nil, false)
	if c.linear {
		return fmt.Sprintf("%+.3g %s for one more", slope, c.y)
	}
	return fmt.Sprintf("× %.2f for ten times as many", math.Pow(10, slope))
}

// rows returns the candidates of the columns, in the order in which they were set up.
func (r *Results) rows(columns []column) []string {
	var names []string
	for _, c := range columns {
		for _, f := range r.column(c) {
			if !slices.Contains(names, f.Name) {
				names = append(names, f.Name)
			}
		}
	}
	slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(rank(a), rank(b)) })
	return names
}

// rank puts ginlimit before its rivals, and floors after them.
func rank(name string) int {
	switch {
	case name == own:
		return 0
	case isOwn(name):
		return 1
	case strings.HasPrefix(name, floorPrefix):
		return 3
	}
	return 2
}

func isOwn(name string) bool { return strings.HasPrefix(name, own) }

func (r *Results) column(c column) []Figure { return r.Select(c.section, c.of, c.metric) }

func (r *Results) cell(c column, name string) *Figure { return r.Find(c.section, c.of, name, c.metric) }

// ahead says whether a rival is better than ginlimit there.
func (r *Results) ahead(c column, name string) bool { return r.aheadOf(own, c, name) }

// aheadOf says whether a rival is better than a row of ginlimit.
func (r *Results) aheadOf(row string, c column, name string) bool {
	f, us := r.cell(c, name), r.cell(c, row)
	return c.section != "exact" && c.metric != "failed" && rank(name) == 2 && f != nil && us != nil && (c.more && f.Median > us.Median || !c.more && f.Median < us.Median)
}

// Markdown is docs/benchmarks/README.md.
func (r *Results) Markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# ginlimit beside other limiters\n\n")
	fmt.Fprintf(&b, "Written by a program from [results.json](results.json); [benchmarks](../../benchmarks/) says what "+
		"was measured and how. `make bench` measures\nagain and writes this page and its pictures.\n\n")
	b.WriteString(r.where())
	fmt.Fprintf(&b, "\n\nFigures are medians of %d rounds%s, with the least and the most in brackets. Those of one hot key in memory and "+
		"of many goroutines\non Redis have three times as many rounds. Candidates are measured in turns, so that a slow moment of the "+
		"machine falls on\nall alike. **Bold** is a rival that is ahead of ginlimit. Other rows of ginlimit show what else it can do. A "+
		"floor is no limiter:\nit does only what every limiter has to do, or the same I/O.\n", r.Rounds, r.short())
	fmt.Fprintf(&b, "\n## In short\n\n%s\n", r.shortTable("."))
	if targets := r.targets(); targets != "" {
		fmt.Fprintf(&b, "\n## Targets\n\nWhat the project holds itself to, as ratios within this run. Some need more cores than a machine may have, because Redis and\nthe client wait for each other where they share them.\n\n%s", targets)
	}
	for _, s := range Sections {
		sheets := r.sheets(s.Name)
		if len(r.rows(flatten(sheets))) == 0 && (s.Name != "growth" || len(r.growthFigures()) == 0) {
			continue
		}
		fmt.Fprintf(&b, "\n## %s\n", s.Title)
		if s.Name == "exact" {
			b.WriteString(exactSays)
		}
		for _, sh := range sheets {
			b.WriteString(r.sheet(sh))
		}
		if s.Name == "growth" {
			b.WriteString(r.growthTables())
		}
	}
	b.WriteString(r.who())
	return b.String()
}

const exactSays = `
Two counts of what a limit of 100 lets through, as its callers see it:

* 10,000 goroutines ask about a new key at the same moment. The limit is 100 an hour, so that nothing comes back meanwhile: 100
  is right, more is a limit that was exceeded, fewer with errors is a limiter that gave up.
* At the edge: one request, which begins a window of 2 s; as many as pass 100 ms before the window ends, and 5 ms after; then
  one each millisecond for another window. Of what was let through, the most in any stretch of 2 s, and of 0.2 s. A token
  bucket and GCRA let a burst and a refill pass, 200 in a period; a fixed window lets 200 pass within a moment. Only a log
  never lets more than 100 pass. The instants are those at which the caller had the answer.

And a count of what two limiters share: both have 5 an hour, and one store, as for two routes. The first is spent, then the
second is asked ten times from the same address: 5 means that it counts on its own, 0 that the first spent its limit too.
`

func (r *Results) growthFigures() (figures []Figure) {
	for _, c := range curves {
		figures = append(figures, r.Select("growth", c.of, c.metric)...)
	}
	return figures
}

func flatten(sheets []sheet) (columns []column) {
	for _, s := range sheets {
		columns = append(columns, s.columns...)
	}
	return columns
}

// where says on what the figures were measured.
func (r *Results) where() string {
	m := r.Machine
	return fmt.Sprintf("%s: %s, %d cores, %s, %s, %s, Redis %s. Load when it began: %s. It took %s.", m.Date, m.CPU, m.Cores, m.Memory, m.OS, m.Go, m.Redis, m.Load, r.Took)
}

func (r *Results) short() string {
	if r.Rounds < Full().Rounds {
		return " (too few to be quoted)"
	}
	return ""
}

// sheet is its table, and below it who is ahead.
func (r *Results) sheet(s sheet) string {
	var columns []column
	for _, c := range s.columns {
		if len(r.column(c)) > 0 {
			columns = append(columns, c)
		}
	}
	if len(columns) == 0 {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\n### %s\n\n", s.title)
	if s.says != "" {
		fmt.Fprintf(&b, "%s\n\n", s.says)
	}
	if s.file != "" {
		fmt.Fprintf(&b, "![%s](%s.svg)\n\n", s.title, s.file)
	}
	b.WriteString("| |")
	for _, c := range columns {
		if c.unit == "" {
			fmt.Fprintf(&b, " %s |", c.title)
		} else {
			fmt.Fprintf(&b, " %s, %s |", c.title, c.unit)
		}
	}
	b.WriteString("\n|---|" + strings.Repeat("---:|", len(columns)) + "\n")
	for _, name := range r.rows(columns) {
		fmt.Fprintf(&b, "| %s |", name)
		for _, c := range columns {
			f := r.cell(c, name)
			switch {
			case f == nil:
				b.WriteString(" |")
			case r.ahead(c, name):
				fmt.Fprintf(&b, " **%s** |", f.text())
			default:
				fmt.Fprintf(&b, " %s |", f.text())
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}

// text is the median, with the least and the most if they differ from it, and the note.
func (f *Figure) text() string {
	s := number(f.Median)
	if low, high := number(f.Min), number(f.Max); low != s || high != s {
		s += " (" + low + "–" + high + ")"
	}
	if f.Note != "" {
		s += ": " + f.Note
	}
	return s
}

// number is a figure with three digits that count, or all of its whole part.
func number(v float64) string {
	v = math.Round(v*1000) / 1000
	if math.Abs(v) < 100 {
		s := strconv.FormatFloat(v, 'g', 3, 64)
		if f, err := strconv.ParseFloat(s, 64); err == nil {
			return strconv.FormatFloat(f, 'f', -1, 64)
		}
	}
	digits := strconv.FormatFloat(math.Round(v), 'f', 0, 64)
	for i := len(digits) - 3; i > 0 && digits[i-1] != '-'; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

func (r *Results) growthTables() string {
	var b strings.Builder
	b.WriteString("\nThe slope is that of the line of least squares through the medians. ginlimit has room for twice " +
		"as many keys as it holds;\nx/time/rate in a `sync.Map` is left out beyond a million keys, where it " +
		"takes a minute to be filled. 64 goroutines ask Redis, and 16 PostgreSQL, of whose figures the time is that of all decisions " +
		"divided by their\nnumber.\n\n![How cost grows](growth.svg)\n")
	for _, c := range curves {
		names, points := r.series(c)
		if len(names) == 0 {
			continue
		}
		fmt.Fprintf(&b, "\n### %s, %s\n\n| %s |", c.title, c.y, c.x)
		for _, f := range points[names[0]] {
			fmt.Fprintf(&b, " %s |", number(f.X))
		}
		b.WriteString(" slope |\n|---|" + strings.Repeat("---:|", len(points[names[0]])+1) + "\n")
		for _, name := range names {
			fmt.Fprintf(&b, "| %s |", name)
			for _, f := range points[name] {
				fmt.Fprintf(&b, " %s |", f.text())
			}
			fmt.Fprintf(&b, " %s |\n", c.slope(points[name]))
		}
	}
	return b.String()
}

// who says what the candidates are.
func (r *Results) who() string {
	var b strings.Builder
	b.WriteString("\n## Who is compared\n\nAll have the same limit and the same keys. Nothing is refused where it says " +
		"let through, and everything where it says refused:\na measurement in which that is not so ends the " +
		"run.\n\n| | version | algorithm | set up as | its middleware writes |\n|---|---|---|---|---|\n")
	for _, a := range about {
		version := r.Versions[a.module]
		if a.name == own {
			version = "this one"
		}
		if version == "" {
			continue // it was not there yet
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", a.name, version, a.algorithm, a.setup, a.writes)
	}
	return b.String()
}

// Begin and end of what cmd/report keeps up to date in docs/benchmarks.md.
const (
	pageBegin = "<!-- benchmarks:begin -->"
	pageEnd   = "<!-- benchmarks:end -->"
)

// UpdatePage writes the short table, and where a rival is ahead, between the marks of the file, if it has them. Dir is where the
// pictures are, seen from there.
func (r *Results) UpdatePage(file, dir string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	head, rest, ok := strings.Cut(string(data), pageBegin)
	_, tail, closed := strings.Cut(rest, pageEnd)
	if !ok || !closed {
		return fmt.Errorf("ginlimit: %s has no %s and %s", file, pageBegin, pageEnd)
	}
	return os.WriteFile(file, []byte(head+pageBegin+"\n"+r.page(dir)+pageEnd+tail), 0o644)
}

// page is what docs/benchmarks.md says of the results.
func (r *Results) page(dir string) string {
	return r.where() + " Medians of " + strconv.Itoa(r.Rounds) + " rounds" + r.short() + ", three times as many for one hot key " +
		"in memory and for many goroutines on Redis.\n\n" + r.shortTable(dir) +
		"\n## Where ginlimit is not ahead\n\nEach time, rate and size of this run in which a rival is ahead:\n\n" + r.behind(dir)
}

// highlight is a row of the short table, and who is ginlimit in it.
type highlight struct {
	column
	us string
}

// highlights are the rows of the short table.
func (r *Results) highlights() (rows []highlight) {
	keys := number(float64(r.Keys)) + " keys"
	for _, c := range []column{
		ns(on(caseHot, 1), "a decision in memory, one hot key"),
		ns(on(caseHot, 2), "the same, asked by two cores"),
		ns(on(caseUniform, 1), "a decision in memory, "+keys+" at random"),
		{"heap", "", "bytes/key", "heap for a key", "B", false},
		{"middleware", caseThrough, "added ns", "what the middleware adds to a request", "ns", false},
		{"middleware", caseAnother, "added ns", "the same, where another handler sets a key", "ns", false},
		{"middleware", caseRefused, "added ns", "what it adds to a request that it refuses", "ns", false},
		{"kinds", caseThreeGin, "added ns", "what three limiters add to a request, by `All`", "ns", false},
		{"kinds", caseThree, "ns", "a decision about three keys in memory, all or none", "ns", false},
		{"kinds", caseGiven, "ns", "a charge in memory that is given back", "ns", false},
		{"kinds", caseFlight, "ns", "a place in flight in memory, taken and given back", "ns", false},
		{"kinds", caseBanned, "ns", "a refusal of a banned caller in memory", "ns", false},
		{"kinds", caseCalendar, "ns", "a decision in memory on a calendar day", "ns", false},
		{"redis", goroutines(1), "decisions/s", "decisions in Redis, 1 goroutine", "/s", true},
		perSecond(goroutines(64), "the same, 64 goroutines"),
		perSecond(goroutines(512), sameAt512),
		{"redis", goroutines(64), "server µs", "CPU of Redis for a decision, 64 goroutines", "µs", false},
		{"redis", caseDenied, "decisions/s", "refusals of one hot key on Redis", "/s", true},
		{"kinds", onRedis(caseThree), "decisions/s", "decisions about three keys in Redis, all or none", "/s", true},
		{"kinds", onRedis(caseGiven), "decisions/s", "charges in Redis that are given back", "/s", true},
		{"kinds", onRedis(caseFlight), "decisions/s", "places in flight in Redis, taken and given back", "/s", true},
		{"kinds", onRedis(caseCalendar), "decisions/s", "decisions in Redis on a calendar day", "/s", true},
		{"local", caseMemory, "bytes/key", "memory of Redis for a caller", "B", false},
		{"http", "memory, all allowed", "requests/s", "HTTP requests, in memory", "/s", true},
		{"http", "memory, 90 % denied", "requests/s", "the same, 90 % of them refused", "/s", true},
		{"http", "redis, all allowed", "requests/s", "HTTP requests, on Redis", "/s", true},
		{"http", "redis, 90 % denied", "requests/s", "the same, 90 % of them refused", "/s", true},
		{"http", "redis, 90 % denied", "p99 ms", "its 99th percentile", "ms", false},
		{"exact", caseAtOnce + ", redis", "passed", "let through of 10,000 at once, limit 100, on Redis", "", false},
	} {
		rows = append(rows, highlight{c, own})
		if c == perSecond(goroutines(512), sameAt512) {
			rows = append(rows, onGoredis...)
		}
	}
	return rows
}

const sameAt512 = "the same, 512 goroutines"

// onGoredis are rows about ginlimit on the client of most of its rivals.
var onGoredis = []highlight{
	{perSecond(goroutines(1), "decisions in Redis by go-redis, 1 goroutine"), ownGoredis},
	{perSecond(goroutines(64), "the same, 64 goroutines"), ownGoredis},
	{perSecond(goroutines(512), "the same, 512 goroutines"), ownGoredis},
	{perSecond(goroutines(64), "the same with AutoPipeline, 64 goroutines"), ownPipelined},
	{perSecond(goroutines(512), "the same with AutoPipeline, 512 goroutines"), ownPipelined},
}

// overview are the panels of the picture for the README of the project.
func (r *Results) overview() []column {
	return []column{
		ns(on(caseHot, 1), "a decision in memory, one hot key"),
		ns(on(caseUniform, 1), "a decision in memory, "+number(float64(r.Keys))+" keys at random"),
		{"middleware", caseThrough, "added ns", "what the middleware adds to a request", "ns", false},
		{"heap", "", "bytes/key", "heap for a key", "B", false},
		perSecond(goroutines(64), "decisions in Redis, 64 goroutines"),
		{"redis", caseDenied, "decisions/s", "refusals of one hot key on Redis", "/s", true},
	}
}

// shortTable is the table of docs/benchmarks.md: ginlimit, and all others with the best first.
func (r *Results) shortTable(dir string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "![ginlimit beside other limiters](%s/overview.svg)\n\n| | ginlimit | others | floor |\n|---|---:|---|---|\n", dir)
	for _, row := range r.highlights() {
		c := row.column
		us := r.cell(c, row.us)
		if us == nil {
			continue
		}
		figures := r.column(c)
		slices.SortStableFunc(figures, func(x, y Figure) int {
			if c.more {
				return cmp.Compare(y.Median, x.Median)
			}
			return cmp.Compare(x.Median, y.Median)
		})
		var others, floors []string
		for _, f := range figures {
			text := f.Name + " " + number(f.Median)
			switch {
			case rank(f.Name) == 3:
				floors = append(floors, strings.TrimPrefix(text, floorPrefix))
			case r.aheadOf(row.us, c, f.Name):
				others = append(others, "**"+text+"**")
			case rank(f.Name) == 2:
				others = append(others, text)
			}
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", strings.TrimSuffix(c.title+", "+c.unit, ", "), number(us.Median), strings.Join(others, "; "), strings.Join(floors, "; "))
	}
	return b.String()
}
