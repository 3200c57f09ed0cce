package replay

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/algorithm"
	"github.com/ginlimit/ginlimit/backend/memory"
	"github.com/ginlimit/ginlimit/cmd/ginlimit/internal/accesslog"
)

// request is a line of a JSON log.
type request struct {
	at   time.Time
	key  string
	cost int64
}

func (r request) String() string {
	return fmt.Sprintf(`{"at":%q,"key":%q,"units":%d}`, r.at.Format(time.RFC3339Nano), r.key, r.cost)
}

// logOf returns a log that has these lines.
func logOf(t testing.TB, name string, lines ...string) *accesslog.Reader {
	t.Helper()
	l, err := accesslog.NewReader(name, strings.NewReader(strings.Join(lines, "\n")), "json", accesslog.Options{Cost: "units"})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func logOfRequests(t testing.TB, all []request) *accesslog.Reader {
	lines := make([]string, len(all))
	for i, r := range all {
		lines[i] = r.String()
	}
	return logOf(t, "a.log", lines...)
}

func byKey(t testing.TB) *By {
	by, err := ParseBy("key")
	if err != nil {
		t.Fatal(err)
	}
	return by
}

// verdicts replays logs, and returns what was decided, in order, as "12:00:00 alice yes".
func verdicts(t *testing.T, c Config, logs ...*accesslog.Reader) ([]string, *Report) {
	t.Helper()
	var all []string
	c.By, c.Top = byKey(t), 100
	c.Verdict = func(at time.Time, key string, allowed bool, wait time.Duration) {
		all = append(all, verdict(at, key, allowed, wait))
	}
	report, err := Run(context.Background(), c, logs)
	if err != nil {
		t.Fatal(err)
	}
	return all, report
}

func verdict(at time.Time, key string, allowed bool, wait time.Duration) string {
	if allowed {
		return fmt.Sprintf("%s %s yes", at.UTC().Format("15:04:05.000000"), key)
	}
	return fmt.Sprintf("%s %s no, %v", at.UTC().Format("15:04:05.000000"), key, wait)
}

// randomLimits returns one to three limits of any kind.
func randomLimits(rng *rand.Rand) []backend.Limit {
	all := make([]backend.Limit, 1+rng.IntN(3))
	for i := range all {
		l := backend.Limit{Count: rng.Int64N(12), Period: time.Duration(1+rng.Int64N(20_000_000)) * time.Microsecond}
		l.Period = max(l.Period, backend.MinPeriod)
		l.Algorithm = backend.Algorithm(rng.IntN(4))
		if l.Algorithm == backend.TokenBucket && l.Count > 0 && rng.IntN(2) == 0 {
			l.Burst = 1 + rng.Int64N(12)
		}
		switch rng.IntN(12) {
		case 0:
			l = backend.Unlimited()
		case 1:
			l = backend.PerCalendarDay(l.Count * 5).In([]string{"UTC", "Europe/Berlin", "America/New_York"}[rng.IntN(3)])
		}
		all[i] = l
	}
	return all
}

// A replay decides as package memory does, which has the clock that the log's times are of: any
// limits, any costs, callers that are idle until their states have expired.
func TestRandomLimits(t *testing.T) {
	rounds := 300
	if testing.Short() {
		rounds = 60
	}
	for seed := range rounds {
		rng := rand.New(rand.NewPCG(uint64(seed), 22))
		limits := randomLimits(rng)
		users, costly := 4, 4
		if seed%2 == 1 { // of whom most have one to five requests, which are kept otherwise
			users, costly = 100, 40
		}
		var all []request
		var want []string
		synctest.Test(t, func(t *testing.T) {
			b := memory.New()
			for range 300 {
				switch rng.IntN(6) {
				case 0:
				case 1:
					time.Sleep(time.Duration(rng.Int64N(60_000_000)) * time.Microsecond)
					if rng.IntN(4) == 0 { // to another day, at times
						time.Sleep(time.Duration(rng.IntN(20)) * time.Hour)
					}
				default:
					time.Sleep(time.Duration(rng.Int64N(2_000_000)) * time.Microsecond)
				}
				r := request{at: time.Now(), key: fmt.Sprint("user:", rng.IntN(users)), cost: 1}
				if rng.IntN(costly) == 0 {
					r.cost = rng.Int64N(8)
				}
				res, err := b.Take(context.Background(), r.key, r.cost, limits...)
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, r)
				want = append(want, verdict(r.at, r.key, res.Allowed, res.RetryAfter))
			}
		})
		got, _ := verdicts(t, Config{Limits: limits}, logOfRequests(t, all))
		if !slices.Equal(got, want) {
			t.Fatalf("seed %d, %v: got\n%s\nwant\n%s", seed, limits, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

var noon = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

func at(s float64, key string) string {
	return request{noon.Add(time.Duration(s * float64(time.Second))), key, 1}.String()
}

// Lines within the window are put in order, later ones are moved; several logs are merged.
func TestOrder(t *testing.T) {
	c := Config{Limits: []backend.Limit{backend.Unlimited()}, Window: 5 * time.Second}
	got, report := verdicts(t, c,
		logOf(t, "a.log", at(0, "a"), at(3, "b"), at(1, "c"), at(9, "d"), at(2, "late"), at(20, "e")),
		logOf(t, "b.log", at(1, "x"), at(3, "y"), at(30, "z")))
	want := []string{"12:00:00.000000 a yes", "12:00:01.000000 c yes", "12:00:01.000000 x yes", "12:00:03.000000 b yes",
		"12:00:03.000000 late yes", "12:00:03.000000 y yes", "12:00:09.000000 d yes", "12:00:20.000000 e yes", "12:00:30.000000 z yes"}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if report.Late != 1 || report.Requests != 9 || len(report.Files) != 2 {
		t.Errorf("got %+v", report)
	}
}

// Any order of lines within the window is replayed as the order of their times.
func TestShuffled(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	for range 50 {
		var lines [][]string // within one second, at most ten
		var sorted []string
		for s := range 30 {
			var of []string
			for i := range rng.IntN(10) {
				of = append(of, at(float64(s)+float64(i)/10, fmt.Sprint("k", rng.IntN(3))))
			}
			sorted = append(sorted, of...)
			rng.Shuffle(len(of), func(i, j int) { of[i], of[j] = of[j], of[i] })
			lines = append(lines, of)
		}
		c := Config{Limits: []backend.Limit{{Count: 3, Period: 2 * time.Second}}, Window: time.Second}
		got, _ := verdicts(t, c, logOf(t, "a", slices.Concat(lines...)...))
		want, _ := verdicts(t, c, logOf(t, "b", sorted...))
		if !slices.Equal(got, want) {
			t.Fatalf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// A log of which one line has a time years ahead is replayed all the same.
func TestTimeAhead(t *testing.T) {
	c := Config{Limits: []backend.Limit{{Count: 1, Period: 10 * time.Second}}, Window: time.Second}
	got, _ := verdicts(t, c, logOf(t, "a", at(0, "a"), at(1e8, "far"), at(5, "a"), at(11, "a")))
	want := []string{"12:00:00.000000 a yes", "12:00:05.000000 a no, 5s", "12:00:11.000000 a yes", "21:46:40.000000 far yes"}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
}

// A calendar day in Berlin is of 25 hours where the clock is put back, and of 23 where it is put
// forward. What callers asked for in their busiest day is counted by the same days.
func TestCalendarDay(t *testing.T) {
	line := func(at string) string {
		when, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		return request{when, "alice", 1}.String()
	}
	limits := []backend.Limit{backend.PerCalendarDay(2).In("Europe/Berlin")}
	for _, step := range []struct {
		name  string
		lines []string
		want  []string
		peak  int64
	}{
		{"October", []string{
			line("2026-10-24T23:59:59+02:00"), // the day before
			line("2026-10-25T00:00:00+02:00"),
			line("2026-10-25T02:30:00+02:00"),
			line("2026-10-25T02:30:00+01:00"), // an hour later, at the same time of the clock
			line("2026-10-25T23:59:59+01:00"), // nearly 25 hours after midnight
			line("2026-10-26T00:00:00+01:00"),
		}, []string{"21:59:59.000000 alice yes", "22:00:00.000000 alice yes", "00:30:00.000000 alice yes",
			"01:30:00.000000 alice no, 21h30m0s", "22:59:59.000000 alice no, 1s", "23:00:00.000000 alice yes"}, 4},
		{"March", []string{
			line("2026-03-29T00:30:00+01:00"),
			line("2026-03-29T01:59:59+01:00"),
			line("2026-03-29T03:00:00+02:00"), // the second after
			line("2026-03-29T23:59:59+02:00"),
			line("2026-03-30T00:00:00+02:00"), // 23 hours after midnight
		}, []string{"23:30:00.000000 alice yes", "00:59:59.000000 alice yes", "01:00:00.000000 alice no, 21h0m0s",
			"21:59:59.000000 alice no, 1s", "22:00:00.000000 alice yes"}, 4},
	} {
		got, r := verdicts(t, Config{Limits: limits, Target: Target{Share: 0}}, logOf(t, "a", step.lines...))
		if !slices.Equal(got, step.want) {
			t.Errorf("%s: got\n%s", step.name, strings.Join(got, "\n"))
		}
		if r.Rates.Calendar != "day" || r.Limits.Top[0].Peak != step.peak || !slices.Equal(r.Smallest.Limits, []string{"4/day Europe/Berlin calendar"}) {
			t.Errorf("%s: got %+v, %+v, %+v", step.name, r.Rates, r.Limits.Top, r.Smallest)
		}
	}
}

func TestReport(t *testing.T) {
	var lines []string
	for i := range 10 { // alice asks for ten in a second, of which five pass
		lines = append(lines, at(float64(i)/10, "alice"))
	}
	lines = append(lines, at(30, "bob"), at(90, "alice"), request{noon.Add(100 * time.Second), "bob", 50}.String(), `{"at":"`+noon.Format(time.RFC3339)+`"}`, "bad")
	c := Config{Limits: []backend.Limit{{Count: 5, Period: time.Minute, Algorithm: backend.SlidingLog}},
		Versus: []backend.Limit{{Count: 8, Period: time.Minute, Algorithm: backend.FixedWindow}}, Target: Target{Share: 0.1}, Window: time.Hour}
	_, r := verdicts(t, c, logOf(t, "a.log", lines...))
	if r.Requests != 13 || r.Callers != 2 || r.Bad != 2 || r.Units != 62 || !r.From.Equal(noon) || !r.To.Equal(noon.Add(100*time.Second)) {
		t.Errorf("got %+v", r)
	}
	o := r.Limits
	if o.Refused != 6 || o.RefusedCallers != 2 || o.RefusedUnits != 55 || o.CallerShare != 1 || math.Abs(o.Share-6.0/13) > 1e-9 {
		t.Errorf("got %+v", o)
	}
	if o.Worst == nil || o.Worst.Refused != 5 || o.Worst.Requests != 11 || !o.Worst.Start.Equal(noon) || o.Worst.Callers != 1 {
		t.Errorf("got %+v", o.Worst)
	}
	if o.Waits == nil || o.Waits.Never != 1 || o.Waits.Longest != 59.5 || o.Waits.Half < 59 || o.Waits.Half > 59.5 {
		t.Errorf("got %+v", o.Waits)
	}
	if len(o.Top) != 2 || o.Top[0].Key != "alice" || o.Top[0].Refused != 5 || o.Top[0].Requests != 11 || o.Top[0].Peak != 10 ||
		!o.Top[0].First.Equal(noon.Add(500*time.Millisecond)) || *o.Top[0].RefusedVersus != 2 {
		t.Errorf("got %+v", o.Top)
	}
	if r.Versus.Refused != 3 || r.Change.OnlyLimits != 3 || r.Change.OnlyVersus != 0 || r.Change.Both != 3 || r.Change.CallersBoth != 2 ||
		len(r.Change.Fewer) != 1 || len(r.Change.More) != 0 {
		t.Errorf("got %+v, %+v", r.Versus, r.Change)
	}
	// One request in ten: at ten a minute alice passes, and only bob's 50 are refused.
	if s := r.Smallest; s.Of != "requests" || !slices.Equal(s.Limits, []string{"10/m sliding-log"}) || s.Refused != 1 {
		t.Errorf("got %+v", s)
	}
	var callers int64
	for _, c := range r.Rates.Classes {
		callers += c.Callers
	}
	if callers != 2 || *r.Rates.Limit != 5 || r.Rates.Period != time.Minute {
		t.Errorf("got %+v", r.Rates)
	}
	var offered, refused int64
	for _, p := range r.Series.Points {
		offered, refused = offered+p.Requests, refused+p.Refused
	}
	if offered != 13 || refused != 6 {
		t.Errorf("got %+v", r.Series)
	}
}

// What the search finds does, and one less does not, by a replay of its own.
func TestSmallest(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for round := range 60 {
		var lines []string
		now := noon
		for range 400 {
			now = now.Add(time.Duration(rng.ExpFloat64() * float64(300*time.Millisecond)))
			key := fmt.Sprint("user:", int(rng.ExpFloat64()*3))
			r := request{now, key, 1 + rng.Int64N(2)}
			lines = append(lines, strings.TrimSuffix(r.String(), "}")+fmt.Sprintf(`,"duration":%v}`, rng.ExpFloat64()*5))
		}
		limits := []backend.Limit{{Count: 1 + rng.Int64N(20), Period: 10 * time.Second, Algorithm: backend.Algorithm(rng.IntN(4))}}
		if rng.IntN(2) == 0 {
			limits = append(limits, backend.Limit{Count: 1 + rng.Int64N(4), Period: time.Second, Burst: 3})
		}
		if rng.IntN(4) == 0 {
			limits[0] = backend.InFlight(1 + rng.Int64N(8))
		}
		target := Target{Share: []float64{0, 0.01, 0.2}[rng.IntN(3)], Callers: rng.IntN(2) == 0}
		c := Config{Limits: limits, Target: target}
		_, r := verdicts(t, c, logOf(t, "a.log", lines...))
		if r.Smallest.None != "" {
			t.Fatalf("round %d: %+v", round, r.Smallest)
		}
		enough := func(n int64) (bool, int64) {
			c := c
			c.Limits = scaled(limits, n)
			_, r := verdicts(t, c, logOf(t, "a.log", lines...))
			if target.Callers {
				return r.Limits.CallerShare <= target.Share, r.Limits.RefusedCallers
			}
			return r.Limits.Share <= target.Share, r.Limits.Refused
		}
		first, err := backend.ParseLimit(r.Smallest.Limits[0])
		if err != nil {
			t.Fatal(err)
		}
		n := first.Count
		if ok, refused := enough(n); !ok || refused != r.Smallest.Refused {
			t.Errorf("round %d: %v refuses %d, %+v", round, scaled(limits, n), refused, r.Smallest)
		}
		if n > 1 {
			if ok, refused := enough(n - 1); ok {
				t.Errorf("round %d: %v is enough too: it refuses %d", round, scaled(limits, n-1), refused)
			}
		}
	}
}

func TestNothingSmaller(t *testing.T) {
	for limit, want := range map[backend.Limit]string{
		backend.Unlimited():                      "a limit that refuses all or nothing has no smaller one",
		{Count: 0, Period: time.Second}:          "a limit that refuses all or nothing has no smaller one",
		{Count: 1, Period: 366 * 24 * time.Hour}: "",
	} {
		_, r := verdicts(t, Config{Limits: []backend.Limit{limit}}, logOf(t, "a", at(0, "a"), at(1, "a")))
		if r.Smallest.None != want {
			t.Errorf("%v: got %+v", limit, r.Smallest)
		}
	}
}

// A caller that asks for one unit too many is looked at, and has a name, whatever its requests
// cost.
func TestOneTooMany(t *testing.T) {
	for _, step := range []struct {
		costs    []int64
		smallest string
	}{
		{[]int64{1, 1, 1}, "3"}, {[]int64{2, 1}, "3"}, {[]int64{2, 2}, "4"}, {[]int64{3}, "3"}, {[]int64{1, 1, 0}, "3"},
	} {
		var all []request
		for i, cost := range step.costs {
			all = append(all, request{noon.Add(time.Duration(i)), "alice", cost})
		}
		c := Config{Limits: []backend.Limit{{Count: 2, Period: time.Hour}}, By: byKey(t), Top: 1}
		r, err := Run(context.Background(), c, []*accesslog.Reader{logOfRequests(t, all)})
		if err != nil {
			t.Fatal(err)
		}
		if r.Limits.Refused != 1 || len(r.Limits.Top) != 1 || r.Limits.Top[0].Key != "alice" || !slices.Equal(r.Smallest.Limits, []string{step.smallest + "/h"}) {
			t.Errorf("%v: got %+v, %+v", step.costs, r.Limits, r.Smallest)
		}
	}
}

// History gives back what was added, and thins out by whole callers.
func TestHistory(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for i, limit := range []int{maxHistory, 3 << 20, 3 << 20} {
		h := history{limit: limit, ends: i == 2}
		var all []event
		now := noon.UnixMicro()
		for range 1_500_000 {
			now += rng.Int64N(3_000_000) * int64(rng.IntN(2))
			e := event{at: now, cost: 1, id: uint32(rng.IntN(1000))}
			if rng.IntN(10) == 0 {
				e.cost = rng.Int64N(1 << 40)
			}
			if h.ends {
				e.end = e.at + rng.Int64N(1000)
			}
			all = append(all, e)
			h.add(&e)
		}
		if (limit == maxHistory) != (h.shift == 0) {
			t.Fatalf("limit %d: shift %d", limit, h.shift)
		}
		all = slices.DeleteFunc(all, func(e event) bool { return !h.keeps(e.id) })
		i := 0
		h.each(func(e event) bool {
			if e != all[i] {
				t.Fatalf("%d: got %v, want %v", i, e, all[i])
			}
			i++
			return true
		})
		if i != len(all) || h.n != int64(i) {
			t.Errorf("limit %d: got %d of %d", limit, i, len(all))
		}
		if h.size > limit+historyChunk {
			t.Errorf("limit %d: %d bytes", limit, h.size)
		}
	}
}

// States are freed once they have expired, in the log's time.
func TestSweep(t *testing.T) {
	l, err := newLaw([]backend.Limit{{Count: 3, Period: time.Second, Algorithm: backend.SlidingLog}, {Count: 100, Period: time.Minute}})
	if err != nil {
		t.Fatal(err)
	}
	m, callers := newPlaces([]*law{l}), newCallers()
	now := noon.UnixMicro()
	for i := range 100_000 {
		now += 1000 // in the minute until a bucket is full again at most 1 unit is missing: 600 ms
		id, _ := callers.ask(fmt.Append(nil, i), 1)
		c := callers.of(id)
		c.place = m.place(id)
		states, logs := m.of(c.place)
		if _, wait := l.take(states, logs, now, 1); wait != 0 {
			t.Fatal(wait)
		}
		m.sweep(callers, now)
	}
	if m.n > 3000 {
		t.Errorf("%d places for 1,000 callers that are remembered at a time", m.n)
	}
	for range m.n {
		m.sweep(callers, now+time.Hour.Microseconds())
	}
	if len(m.free) != int(m.n)-1 {
		t.Errorf("%d of %d places are free an hour later", len(m.free), m.n-1)
	}
	for _, p := range m.pages {
		if slices.ContainsFunc(p.logs, func(l *algorithm.Log) bool { return l != nil }) {
			t.Error("a log of a free place is kept")
		}
	}
}

func TestCallers(t *testing.T) {
	c := newCallers()
	for range 2 {
		for i := range 50_000 {
			if id, _ := c.id(fmt.Append(nil, "ip:", i)); id != uint32(i) {
				t.Fatalf("got %d, want %d", id, i)
			}
		}
	}
	c.most = 1000
	for i := range 20_000 {
		if c.name(uint32(i), fmt.Append(nil, "ip:", i)); i%100 == 0 {
			touch(&c.no, uint32(i)).by[0] = 5
		}
	}
	for i := 0; i < 20_000; i += 100 { // the most refused keep their names
		if n := c.named[uint32(i)]; n == nil || n.key != fmt.Sprint("ip:", i) {
			t.Errorf("%d has lost its name", i)
		}
	}
	if len(c.named) > 1000 {
		t.Errorf("%d names", len(c.named))
	}
	for i := range 100 { // keys of 1 MiB, such as a log may have
		if c.name(uint32(30_000+i), make([]byte, 1<<20)); c.text > maxText {
			t.Fatalf("%d bytes of keys", c.text)
		}
	}
	size := 0
	for _, n := range c.named {
		size += len(n.key)
	}
	if size != c.text || len(c.named) == 0 {
		t.Errorf("%d names of %d bytes, counted as %d", len(c.named), size, c.text)
	}
	if add(math.MaxUint32-1, 5) != math.MaxUint32 || add(1, 1<<40) != math.MaxUint32 || add(1, 2) != 3 {
		t.Error("counts do not stop at their largest value")
	}
}

// A caller of few requests is kept as their times. The next request finds what they left, in the
// log's time, and the report counts all of them.
func TestFewRequests(t *testing.T) {
	for _, step := range []struct {
		limit string
		after time.Duration
		want  string
		peak  int64
	}{
		{"1/h", time.Minute, "no, 59m0s", 2},
		{"1/h", time.Hour, "yes", 1},
		{"9/h", 0, "yes", 2},
		{"1/h sliding-log", 59 * time.Minute, "no, 1m0s", 2},
		{"1/h fixed-window", 30 * time.Minute, "no, 30m0s", 2},
		{"1/day calendar", 11 * time.Hour, "no, 1h0m0s", 2},
		{"1/day calendar", 12 * time.Hour, "yes", 1},
		{"0/h", time.Minute, "no, -1ns", 2},
	} {
		for earlier := range int64(4) { // that came at the time of the first, and were refused unless the limit has room
			limit, err := backend.ParseLimit(step.limit)
			if err != nil {
				t.Fatal(err)
			}
			second := noon.Add(step.after)
			all := slices.Repeat([]request{{noon, "alice", 1}}, int(1+earlier))
			for i := range 3000 { // others, between the two
				all = append(all, request{noon.Add(step.after * time.Duration(i) / 3000), fmt.Sprint("user:", i), 1})
			}
			all = append(all, request{second, "alice", 1})
			got, r := verdicts(t, Config{Limits: []backend.Limit{limit}, Versus: []backend.Limit{limit}}, logOfRequests(t, all))
			if want := second.UTC().Format("15:04:05.000000") + " alice " + step.want; got[len(got)-1] != want {
				t.Errorf("%s after %v: got %q, want %q", step.limit, step.after, got[len(got)-1], want)
			}
			var most int64
			for _, class := range r.Rates.Classes {
				if class.Callers > 0 {
					most = class.To
				}
			}
			if peak := step.peak + earlier; most < peak || r.Callers != 3001 || r.Change.OnlyLimits != 0 || r.Change.OnlyVersus != 0 {
				t.Errorf("%s after %v: %d callers, most %d, want %d; %+v", step.limit, step.after, r.Callers, most, step.peak, r.Change)
			}
			if alice := slices.IndexFunc(r.Limits.Top, func(c Caller) bool { return c.Key == "alice" }); alice >= 0 &&
				(r.Limits.Top[alice].Requests != 2+earlier || r.Limits.Top[alice].Peak != step.peak+earlier) {
				t.Errorf("%s after %v: %+v", step.limit, step.after, r.Limits.Top[alice])
			}
		}
	}
}

func TestSeries(t *testing.T) {
	s := Series{Seconds: 1}
	var want int64
	for i := range int64(200_000) {
		s.at(noon.UnixMicro()+i*i*1000).Requests++
		want++
	}
	var n, last int64
	for _, p := range s.Points {
		n += p.Requests
		if p.Start <= last || p.Start%s.Seconds != 0 {
			t.Fatalf("%+v after %d", p, last)
		}
		last = p.Start
	}
	if n != want || len(s.Points) > maxPoints {
		t.Errorf("%d of %d in %d points", n, want, len(s.Points))
	}
}

func TestWaits(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 9))
	for range 20 {
		var w waits
		var all []int64
		for range 1000 {
			us := rng.Int64N(1 << (1 + rng.IntN(40)))
			all = append(all, us)
			w.add(us)
		}
		slices.Sort(all)
		for _, q := range []float64{0, 0.5, 0.9, 0.999} {
			got, want := w.quantile(q).Microseconds(), all[int(q*1000)]
			if got < want || got > want+want/16+1 {
				t.Errorf("%v: got %d, want %d", q, got, want)
			}
		}
	}
}

func TestBy(t *testing.T) {
	e := accesslog.Entry{Addr: []byte("203.0.113.7"), User: []byte("alice"), Target: []byte("/a?b"), Field: []byte("v")}
	six := accesslog.Entry{Addr: []byte("2001:db8:1:2::5")}
	for _, step := range []struct {
		by   string
		e    accesslog.Entry
		want string
	}{
		{"ip", e, "ip:203.0.113.7"},
		{"ip", six, "ip:2001:db8:1:2::/64"},
		{"ip/24", e, "net:203.0.113.0/24"},
		{"ip/24", six, "net:2001:db8:1:2::/64"},
		{"ip/24/48", six, "net:2001:db8:1::/48"},
		{"ip/56", six, "net:2001:db8:1::/56"},
		{"path", e, "path:/a"},
		{"user", e, "user:alice"},
		{"user", six, ""},
		{"global", six, "global:"},
		{"json:a.customer", e, "customer:v"},
		{"json:customer", six, ""},
		{"header:User-Agent", e, "agent:v"},
		{"header:x-api-key", e, "apikey:4c94485e0c21ae6c41ce1dfe7b6bface"},
		{"ip+path", e, "join:14:ip:203.0.113.77:path:/a"},
		{"ip+user", six, ""},
		{"ip", accesslog.Entry{Addr: []byte("203.0.113.7:4711")}, "ip:203.0.113.7"},
		{"ip", accesslog.Entry{Addr: []byte(`"[2001:db8::7]:80"`)}, "ip:2001:db8::/64"},
		{"ip", accesslog.Entry{Addr: []byte("[2001:db8::7]")}, "ip:2001:db8::/64"},
		{"ip", accesslog.Entry{Addr: []byte("::ffff:203.0.113.7")}, "ip:203.0.113.7"},
		{"ip", accesslog.Entry{Addr: []byte("Host.example.com")}, "host:host.example.com"},
		{"ip", accesslog.Entry{Addr: []byte("203.0.113.256")}, ""},
		{"ip", accesslog.Entry{Addr: []byte("203.0.113.07")}, ""},
		{"ip", accesslog.Entry{Addr: []byte("unix:")}, ""},
		{"ip", accesslog.Entry{Addr: []byte("-")}, ""},
		{"ip", accesslog.Entry{}, ""},
	} {
		by, err := ParseBy(step.by)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			key, ok := by.Key(&step.e)
			if !ok {
				key = nil
			}
			if string(key) != step.want {
				t.Errorf("-by %s of %s: got %q, want %q", step.by, step.e.Addr, key, step.want)
			}
		}
	}
	for _, bad := range []string{"", "ip/x", "ip/24/48/1", "ip/200", "ip:x", "header", "header:", "json", "header:A+header:B", "cookie", "ip+"} {
		if _, err := ParseBy(bad); err == nil || !strings.HasPrefix(err.Error(), "ginlimit: -by ") {
			t.Errorf("-by %q: got %v", bad, err)
		}
	}
}

func TestRoute(t *testing.T) {
	for _, step := range []struct {
		route, method, target string
		want                  bool
	}{
		{"POST /login", "POST", "/login?x", true},
		{"POST /login", "GET", "/login", false},
		{"post /login", "POST", "/login", true},
		{"/login", "GET", "/login", true},
		{"/login", "GET", "/login/", false},
		{"/login", "GET", "/log", false},
		{"GET /a", "HEAD", "/a", true},
		{"/users/:id", "GET", "/users/17", true},
		{"/users/:id", "GET", "/users/", false},
		{"/users/:id", "GET", "/users", false},
		{"/users/:id/posts", "GET", "/users/1/posts", true},
		{"/users/:id/posts", "GET", "/users/1/likes", false},
		{"/files/*path", "GET", "/files/a/b", true},
		{"/files/*path", "GET", "/files/", true},
		{"/files/*path", "GET", "/file", false},
		{"/", "GET", "/", true},
		{"/", "GET", "/a", false},
		{"/a", "GET", "http://example.com/a?b", true},
		{"/a", "", "", false},
	} {
		r, err := ParseRoute(step.route)
		if err != nil {
			t.Fatal(err)
		}
		e := accesslog.Entry{Method: []byte(step.method), Target: []byte(step.target)}
		if got := r.Matches(&e); got != step.want {
			t.Errorf("%s of %s %s: got %v", step.route, step.method, step.target, got)
		}
	}
	for _, bad := range []string{"", "login", "POST", "POST login"} {
		if _, err := ParseRoute(bad); err == nil {
			t.Errorf("%q is a route", bad)
		}
	}
}

func TestMostlyBad(t *testing.T) {
	for _, step := range []struct {
		lines []string
		want  string
	}{
		{[]string{at(0, "a"), "x", "y"}, "more than half of the lines could not be read"},
		{[]string{`{"at":"2026-11-29T12:00:00Z","units":1}`}, "none of 1 requests has a key"},
	} {
		_, err := Run(context.Background(), Config{Limits: []backend.Limit{backend.Unlimited()}, By: byKey(t)},
			[]*accesslog.Reader{logOf(t, "a", step.lines...)})
		if err == nil || !strings.HasPrefix(err.Error(), "ginlimit: ") || !strings.Contains(err.Error(), step.want) {
			t.Errorf("got %v, want %s", err, step.want)
		}
	}
	if _, err := Run(context.Background(), Config{Limits: []backend.Limit{{Count: -1}}, By: byKey(t)}, nil); err == nil {
		t.Error("a limit that is not valid is replayed")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Run(ctx, Config{Limits: []backend.Limit{backend.Unlimited()}, By: byKey(t)},
		[]*accesslog.Reader{logOf(t, "a", at(0, "a"))}); err == nil || !strings.Contains(err.Error(), "interrupted") {
		t.Error(err)
	}
}
