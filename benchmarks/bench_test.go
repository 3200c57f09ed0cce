package benchmarks

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/ginlimit/ginlimit/internal/testserver"
)

func TestMain(m *testing.M) {
	Child()
	os.Exit(m.Run())
}

// smoke runs sections for a moment.
func smoke(t *testing.T, rounds int, names string, sections ...string) *Results {
	t.Helper()
	for _, program := range []string{"redis-server", "wrk"} {
		if program == "wrk" && !slices.Contains(sections, "http") {
			continue
		}
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
	r, err := Run(Options{Rounds: rounds, Length: 2 * time.Millisecond, HTTP: 1, Keys: 2000, MaxKeys: 10_000, Procs: 2,
		Sections: sections, Names: regexp.MustCompile(names)})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Figures) == 0 {
		t.Fatal("no figures")
	}
	for _, f := range r.Figures {
		difference := strings.HasPrefix(f.Metric, "added") || f.Metric == "bytes/key" // it may be less than nothing
		if math.IsNaN(f.Median) || math.IsInf(f.Max, 0) || f.Median < f.Min || f.Median > f.Max || f.Min < 0 && !difference {
			t.Errorf("%+v", f)
		}
	}
	return r
}

// every returns an error for each column of the section that lacks a candidate.
func every(t *testing.T, r *Results, section, of, metric string, names ...string) {
	t.Helper()
	rounds := r.Rounds
	if section == "memory" && (strings.HasPrefix(of, caseHot) || strings.HasPrefix(of, caseDenied)) ||
		section == "redis" && strings.Contains(of, " goroutines") {
		rounds *= moreRounds
	}
	for _, name := range names {
		f := r.Find(section, of, name, metric)
		if f == nil {
			t.Errorf("%s, %s, %s: %s was not measured", section, of, metric, name)
		} else if len(f.Rounds) != rounds {
			t.Errorf("%s, %s, %s: %s has %d rounds of %d", section, of, metric, name, len(f.Rounds), rounds)
		}
	}
}

func names[T interface{ name() string }](candidates []T) (names []string) {
	for _, c := range candidates {
		names = append(names, c.name())
	}
	return names
}

func TestInProcess(t *testing.T) {
	r := smoke(t, 2, "", "memory", "middleware")
	for _, n := range cores() {
		every(t, r, "memory", on(caseHot, n), "ns", names(inMemoryHot())...)
		for _, of := range []string{caseDenied, caseUniform, caseZipf} {
			every(t, r, "memory", on(of, n), "allocs", names(inMemory())...)
		}
	}
	every(t, r, "memory", caseNew, "ns", names(inMemory())...)
	every(t, r, "heap", "", "bytes/key", names(inMemory())...)
	for _, of := range []string{caseThrough, caseAnother} {
		every(t, r, "middleware", of, "added ns", names(append(ginFloors[1:], memoryMiddlewares...))...)
	}
	every(t, r, "middleware", caseRefused, "ns", names(memoryMiddlewares)...)
}

func TestRedis(t *testing.T) {
	r := smoke(t, 1, "", "redis", "local", "connections")
	all := names(append(inRedis(), redisFloors()...))
	for _, n := range []int{1, 64, 512} {
		for _, metric := range []string{"decisions/s", "p50 µs", "p99 µs", "server µs", "client µs"} {
			every(t, r, "redis", goroutines(n), metric, all...)
		}
	}
	if runtime.GOOS == "linux" && runtime.NumCPU() > 1 {
		every(t, r, "redis", apart(64), "decisions/s", alsoApart...)
		every(t, r, "redis", apart(512), "server µs", alsoApart...)
	}
	every(t, r, "redis", caseDenied, "decisions/s", names(inRedis())...)
	if f := r.Find("redis", goroutines(1), own, "commands"); f.Median != 4 || f.Note != "EVALSHA 1, GET 1, SET 1, TIME 1" {
		t.Errorf("commands of a decision: %v, %s", f.Median, f.Note)
	}
	if f := r.Find("redis", caseDenied, own, "commands"); f.Median > 1 {
		t.Errorf("%v commands for a refusal that is known", f.Median)
	}
}

// TestKinds sees that every row of what ginlimit limits beside plain rates is measured.
func TestKinds(t *testing.T) {
	r := smoke(t, 1, "", "kinds")
	for _, k := range kindsInMemory() {
		every(t, r, "kinds", k.of, "ns", names(k.limiters)...)
	}
	every(t, r, "kinds", caseThreeGin, "added ns", own, own+threeCalls, own+oneLimiter, ululeName+threeCalls)
	for _, k := range kindsInRedis(manyKeys()) {
		every(t, r, "kinds", onRedis(k.of), "decisions/s", names(k.limiters)...)
	}
	if f := r.Find("kinds", onRedis(caseThree), own, "commands"); f.Median != 8 || !strings.HasPrefix(f.Note, "EVALSHA 1,") {
		t.Errorf("commands of three keys: %v, %s", f.Median, f.Note)
	}
}

func TestHTTP(t *testing.T) {
	r := smoke(t, 1, "^(ginlimit|ulule/limiter)$", "http")
	for _, c := range httpCases {
		every(t, r, "http", "memory, "+c.name, "requests/s", own, ululeName)
		every(t, r, "http", "redis, "+c.name, "p99 ms", own, ululeName)
	}
}

// TestExact holds ginlimit to what the figures of the others are compared with.
func TestExact(t *testing.T) {
	r := smoke(t, 1, "^(ginlimit|go-limiter|ulule|redis_rate)", "exact")
	for _, store := range []string{"memory", "redis"} {
		for _, f := range r.Select("exact", caseAtOnce+", "+store, "passed") {
			failed := r.Find("exact", f.Case, f.Name, "failed")
			if isOwn(f.Name) && (f.Max > 100 || f.Min < 100 && failed.Max == 0) {
				t.Errorf("%s, %s: %v of 10,000 passed a limit of 100", f.Name, store, f.Rounds)
			}
		}
		for _, f := range r.Select("exact", caseEdge+", "+store, "in a period") {
			if isOwn(f.Name) && (f.Min < 90 || f.Max > 201) {
				t.Errorf("%s, %s: %v passed in a period of a limit of 100", f.Name, store, f.Rounds)
			}
		}
	}
	for _, p := range pairs[:2] {
		if f := r.Find("exact", casePair, p.Name, "passed"); f.Min != 5 || f.Max != 5 {
			t.Errorf("%s: the second limiter let %v of its 5 pass", p.Name, f.Rounds)
		}
	}
}

// TestReport makes all that is made of results, from those of a section whose figures grow and one
// whose do not.
func TestReport(t *testing.T) {
	r := smoke(t, 2, "^(ginlimit|go-limiter|redis_rate)", "memory", "growth")
	for _, c := range curves {
		if names, _ := r.series(c); len(names) == 0 && c.of == growKeysPostgres && os.Getenv("CI") != "true" {
			t.Log("without PostgreSQL")
		} else if len(names) == 0 || names[0] != own {
			t.Errorf("%s: %q", c.title, names)
		}
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "results.json")
	if err := r.Save(file); err != nil {
		t.Fatal(err)
	}
	loaded, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	text := loaded.Markdown()
	if text != r.Markdown() {
		t.Error("the page of what was loaded is another one")
	}
	if strings.Contains(text, "NaN") || !strings.Contains(text, "for ten times as many") || !strings.Contains(text, "for one more") {
		t.Errorf("no slopes, or figures that are none: %s", text)
	}
	if err := loaded.Draw(dir); err != nil {
		t.Fatal(err)
	}
	for _, picture := range regexp.MustCompile(`\]\((\S+\.svg)\)`).FindAllStringSubmatch(text, -1) {
		svg, err := os.ReadFile(filepath.Join(dir, picture[1]))
		if err != nil {
			t.Fatal(err)
		}
		if err := wellFormed(string(svg)); err != nil {
			t.Errorf("%s: %v", picture[1], err)
		}
	}

	page := filepath.Join(dir, "page.md")
	if err := os.WriteFile(page, []byte("before\n"+pageBegin+"\nold\n"+pageEnd+"\nafter\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := loaded.UpdatePage(page, "docs/benchmarks"); err != nil {
			t.Fatal(err)
		}
	}
	got, _ := os.ReadFile(page)
	if s := string(got); !strings.HasPrefix(s, "before\n"+pageBegin) || !strings.HasSuffix(s, pageEnd+"\nafter\n") ||
		strings.Contains(s, "old") || strings.Count(s, "docs/benchmarks/overview.svg") != 1 {
		t.Error(s)
	}
	if err := loaded.UpdatePage(file, "."); err == nil {
		t.Error("a file without marks was changed")
	}
}

// TestPages holds the pages to the results that they are made of.
func TestPages(t *testing.T) {
	const dir = "../docs/benchmarks"
	r, err := Load(filepath.Join(dir, "results.json"))
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../docs/benchmarks.md")
	if err != nil {
		t.Fatal(err)
	}
	all, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), pageBegin+"\n"+r.page("benchmarks")+pageEnd) || string(all) != r.Markdown() {
		t.Error("the pages are not those of results.json: go run ./cmd/report -page ../docs/benchmarks.md")
	}
}

// TestAhead sees that a rival that is ahead is in the list, with the reason, and no other is.
func TestAhead(t *testing.T) {
	r := &Results{Keys: 1000, Figures: []Figure{
		{Section: "heap", Name: own, Metric: "bytes/key", Median: 44}, {Section: "heap", Name: httprateGo, Metric: "bytes/key", Median: 38},
		{Section: "heap", Name: own + ", fixed window", Metric: "bytes/key", Median: 30}, {Section: "heap", Name: goLimiter, Metric: "bytes/key", Median: 120},
		{Section: "redis", Case: goroutines(64), Name: own, Metric: "decisions/s", Median: 100}, {Section: "redis", Case: goroutines(64), Name: ululeName, Metric: "decisions/s", Median: 60},
		{Section: "redis", Case: goroutines(64), Name: ownGoredis, Metric: "decisions/s", Median: 50},
	}}
	want := "* Memory, live heap for a key: httprate 38 beside 44 B. " + reasons[2].says + "\n" +
		"* Decisions per second of ginlimit, go-redis, 64 goroutines: ulule/limiter 60 beside 50 /s.\n"
	if got := r.behind("."); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if table := r.shortTable("."); !strings.Contains(table, "64 goroutines, /s | 50 | **ulule/limiter 60** |") || !strings.Contains(table, "| 100 | ulule/limiter 60 |") {
		t.Error(table)
	}
	if got := (&Results{}).behind("."); got != "Nowhere in this run.\n" {
		t.Error(got)
	}
	for _, why := range reasons { // each is of a column that there is
		found := false
		for _, s := range Sections {
			for _, sheet := range r.sheets(s.Name) {
				found = found || slices.ContainsFunc(sheet.columns, func(c column) bool { return why.is(c, []string{why.rival}) })
			}
		}
		if !found {
			t.Errorf("of no column: %s", why.says)
		}
	}
}

func wellFormed(svg string) error {
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func TestUnknownSection(t *testing.T) {
	if _, err := Run(Options{Sections: []string{"none"}}); err == nil {
		t.Error("no error")
	}
}

func TestNumbers(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 0.0004: "0", 0.0123: "0.012", 1.956: "1.96", 43.04: "43", 99.99: "100", 106.4: "106", 1234.5: "1,235", 1234567: "1,234,567", -12345: "-12,345",
	} {
		if got := number(v); got != want {
			t.Errorf("number(%v) = %s, want %s", v, got, want)
		}
	}
	for v, want := range map[float64]string{950: "950", 9999: "9,999", 37_878: "37.9k", 313_653: "314k", 1_270_600: "1.27M"} {
		if got := brief(v); got != want {
			t.Errorf("brief(%v) = %s, want %s", v, got, want)
		}
	}
	points := []Figure{{X: 1, Median: 100}, {X: 10, Median: 200}, {X: 100, Median: 400}}
	if got := (curve{}).slope(points); got != "× 2.00 for ten times as many" {
		t.Error(got)
	}
	points = []Figure{{X: 1, Median: 100}, {X: 2, Median: 130}, {X: 4, Median: 190}}
	if got := (curve{y: "ns", linear: true}).slope(points); got != "+30 ns for one more" {
		t.Error(got)
	}
	r := Results{Figures: []Figure{{Rounds: []float64{5, 1, 4}}, {Rounds: []float64{1, 2, 10, 3}}}}
	r.summarise()
	if a, b := r.Figures[0], r.Figures[1]; a.Median != 4 || a.Min != 1 || a.Max != 5 || b.Median != 2.5 {
		t.Errorf("%+v, %+v", a, b)
	}
}

func TestMostIn(t *testing.T) {
	at := func(ms ...int) (instants []time.Time) {
		for _, n := range ms {
			instants = append(instants, time.Unix(0, 0).Add(time.Duration(n)*time.Millisecond))
		}
		return instants
	}
	for _, c := range []struct {
		instants []time.Time
		most     int
	}{
		{at(), 0}, {at(5), 1}, {at(0, 10), 1}, {at(0, 9), 2}, {at(0, 5, 10, 14, 15, 40), 3},
	} {
		if got := mostIn(c.instants, 10*time.Millisecond); got != c.most {
			t.Errorf("%v: %d, want %d", c.instants, got, c.most)
		}
	}
}

// The same bodies as Go benchmarks, for benchstat and for profiles.

func BenchmarkDecision(b *testing.B) {
	run := &bench{index: map[id]int{}}
	for _, l := range inMemoryHot() {
		take, stop := l.New("", hotQuota)
		benchmark(b, "hot/"+l.Name, takeAll(take, []string{"203.0.113.7"}, true))
		stop()
	}
	const keys = 1_000_000
	for _, l := range inMemory() {
		b.Run("million/"+l.Name, func(b *testing.B) {
			take, stop, _, err := run.fill(l, manyQuota, keys, 1)
			must(err)
			defer stop()
			benchmark(b, "uniform", takeAll(take, run.draws(keys, false), true))
		})
	}
}

func BenchmarkKinds(b *testing.B) {
	for _, k := range kindsInMemory() {
		for _, l := range k.limiters {
			take, stop := l.New("", hotQuota)
			benchmark(b, k.of+"/"+l.Name, takeAll(take, []string{"203.0.113.7"}, k.want))
			stop()
		}
	}
	for _, s := range stacksOfThree() {
		benchmark(b, caseThreeGin+"/"+s.Name, requests(engine(s.handlers...), http.StatusOK))
	}
}

func BenchmarkMiddleware(b *testing.B) {
	for _, c := range []struct {
		name          string
		before, after gin.HandlerFunc
	}{{"alone", nil, nil}, {"a key before", setsKey, nil}, {"a key after", nil, setsKey}} {
		for _, m := range append(ginFloors, memoryMiddlewares...) {
			benchmark(b, c.name+"/"+m.Name, requests(engine(c.before, m.New("", hotQuota), c.after), http.StatusOK))
		}
	}
}

// BenchmarkRedis is a decision in Redis from 64 goroutines, beside INCR.
func BenchmarkRedis(b *testing.B) {
	server := testserver.Redis(b)
	for _, l := range append(inRedis()[:1], redisFloors()[1]) {
		b.Run(l.Name, func(b *testing.B) {
			take, stop := l.New(server.Addr(), redisQuota)
			defer stop()
			keys := manyKeys()
			before, err := serverUse(server)
			must(err)
			client := ownCPU()
			b.ResetTimer()
			must(together(64, b.N, func(i int) error {
				_, err := take(keys[i%len(keys)])
				return err
			}))
			b.ReportMetric(float64((ownCPU()-client).Nanoseconds())/float64(b.N), "client-ns/op")
			after, err := serverUse(server)
			must(err)
			b.ReportMetric((after.cpu-before.cpu)*1e9/float64(b.N), "server-ns/op")
		})
	}
}

func benchmark(b *testing.B, name string, do op) {
	b.Run(name, func(b *testing.B) {
		b.ReportAllocs()
		if _, err := do(b.N); err != nil {
			b.Fatal(err)
		}
	})
}
