// Package benchmarks measures ginlimit beside other rate limiters for Go, each set up as its README
// says, and beside floors, which decide nothing. The commands are bench, which measures and writes
// results.json, and report, which makes the tables and the charts of it.
package benchmarks

import (
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/ginlimit/ginlimit/internal/testserver"
)

// Options say how much is measured.
type Options struct {
	Rounds   int            // how often each figure is measured; medians are reported
	Length   time.Duration  // of a measurement in the process; those with Redis take twice as long
	HTTP     int            // seconds of a measurement over HTTP
	Keys     int            // a limiter that knows many keys knows so many
	MaxKeys  int            // and at most so many where growth is measured
	Procs    int            // instances of an application, at most, where growth is measured
	Sections []string       // names of [Sections]; none means all that are not extra
	Names    *regexp.Regexp // which candidates; nil means all
	Log      func(string)   // is told how far it is; nil means nobody
}

// Full is a whole run, of about 28 minutes.
func Full() Options {
	return Options{Rounds: 5, Length: 200 * time.Millisecond, HTTP: 1, Keys: 1_000_000, MaxKeys: 10_000_000, Procs: 16}
}

// Quick is a run of about two minutes, for work on the code: too short to be quoted.
func Quick() Options {
	return Options{Rounds: 1, Length: 50 * time.Millisecond, HTTP: 1, Keys: 100_000, MaxKeys: 100_000, Procs: 16}
}

// Section is a part of a run.
type Section struct {
	Name  string
	Title string
	Extra bool // runs only if it is asked for
	run   func(*bench) error
}

// Sections are all parts, in the order in which they are measured.
var Sections = []Section{
	{"memory", "Decisions in memory", false, (*bench).memory},
	{"middleware", "Gin middleware", false, (*bench).middleware},
	{"redis", "Decisions in Redis", false, (*bench).redis},
	{"kinds", "Several keys, given back, in flight, banned, by the calendar", false, (*bench).kinds},
	{"local", "What ginlimit spares Redis", false, (*bench).local},
	{"http", "HTTP over loopback", false, (*bench).http},
	{"exact", "Exactness", false, (*bench).exact},
	{"growth", "How cost grows", false, (*bench).growth},
	{"connections", "How many connections serve best", true, (*bench).connections},
}

// Run measures what o says.
func Run(o Options) (*Results, error) {
	b := &bench{Options: o, index: map[id]int{}}
	for _, name := range o.Sections {
		if !slices.ContainsFunc(Sections, func(s Section) bool { return s.Name == name }) {
			return nil, fmt.Errorf("ginlimit: there is no section %q", name)
		}
	}
	server, err := testserver.StartRedis()
	if err != nil {
		return nil, err
	}
	b.server = server
	defer func() { _ = server.Stop() }()
	b.results = Results{Machine: machine(server), Rounds: o.Rounds, Length: o.Length.String(), Keys: o.Keys, Versions: versions()}
	began := time.Now()
	for _, s := range Sections {
		if len(o.Sections) == 0 && s.Extra || len(o.Sections) > 0 && !slices.Contains(o.Sections, s.Name) {
			continue
		}
		b.section = s.Name
		start := time.Now()
		b.log(s.Name + ": ")
		err := s.run(b)
		b.closeAll()
		if err != nil {
			return nil, fmt.Errorf("ginlimit: section %s: %w", s.Name, err)
		}
		b.log(fmt.Sprintf(" %v\n", time.Since(start).Round(time.Second)))
	}
	b.results.Took = time.Since(began).Round(time.Second).String()
	b.results.summarise()
	return &b.results, nil
}

// bench is a run.
type bench struct {
	Options
	server  *testserver.Server
	section string
	results Results
	index   map[id]int // of results.Figures
	closers []func()
	keys    []string
	drawn   map[string][]string
	clean   uint64 // bytes that had been allocated at the last collection
}

func (b *bench) log(s string) {
	if b.Log != nil {
		b.Log(s)
	}
}

func (b *bench) closeAll() {
	for _, c := range slices.Backward(b.closers) {
		c()
	}
	b.closers = nil
}

// add records one value of a figure of the section.
func (b *bench) add(of, name, metric string, x, value float64) {
	b.addTo(b.section, of, name, metric, x, value)
}

func (b *bench) addTo(section, of, name, metric string, x, value float64) {
	key := id{section, of, name, metric, x}
	i, ok := b.index[key]
	if !ok {
		i = len(b.results.Figures)
		b.index[key] = i
		b.results.Figures = append(b.results.Figures, Figure{Section: section, Case: of, Name: name, Metric: metric, X: x})
	}
	b.results.Figures[i].Rounds = append(b.results.Figures[i].Rounds, value)
}

// note records words about a figure that was added.
func (b *bench) note(of, name, metric, note string) {
	b.results.Figures[b.index[id{b.section, of, name, metric, 0}]].Note = note
}

// wanted says whether the candidate is to be measured.
func (b *bench) wanted(name string) bool { return b.Names == nil || b.Names.MatchString(name) }

// eachRound calls measure for every candidate, round after round, so that a slow moment of the
// machine falls on all alike. Each round begins with another candidate.
func eachRound[T interface{ name() string }](b *bench, candidates []T, measure func(T) error) error {
	candidates = slices.DeleteFunc(slices.Clone(candidates), func(c T) bool { return !b.wanted(c.name()) })
	for round := range b.Rounds {
		for i := range candidates {
			c := candidates[(i+round)%len(candidates)]
			if err := measure(c); err != nil {
				return fmt.Errorf("%s: %w", c.name(), err)
			}
		}
		b.log(".")
	}
	return nil
}

// op makes n operations and returns how many failed, and why. One goroutine uses it.
type op func(n int) (failed int, err error)

// cost is that of one operation, and the share of the operations that failed.
type cost struct{ ns, bytes, allocs, failed float64 }

func (b *bench) addCost(of, name string, x float64, c cost) {
	b.add(of, name, "ns", x, c.ns)
	b.add(of, name, "bytes", x, c.bytes)
	b.add(of, name, "allocs", x, c.allocs)
	b.add(of, name, "failed", x, c.failed)
}

// time measures the operations of so many goroutines on so many cores. The time is that of all
// divided by their number: on two cores it is the half of what one operation takes if they do not
// disturb each other.
func (b *bench) time(cores, goroutines int, start func() op) (cost, error) {
	ops := make([]op, goroutines)
	for g := range ops {
		ops[g] = start()
	}
	b.noGarbage()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(cores))
	if _, _, err := loop(ops, b.Length/10); err != nil { // caches and branch predictors are warm, goroutines have stacks
		return cost{}, err
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	began := time.Now()
	count, failed, err := loop(ops, b.Length)
	took := time.Since(began)
	runtime.ReadMemStats(&after)
	n := float64(count)
	return cost{
		ns:     float64(took.Nanoseconds()) / n,
		bytes:  float64(after.TotalAlloc-before.TotalAlloc) / n,
		allocs: float64(after.Mallocs-before.Mallocs) / n,
		failed: float64(failed) / n,
	}, err
}

// loop runs each op on a goroutine of its own until the time is over, and returns the number of
// operations.
func loop(ops []op, d time.Duration) (count, failed int, err error) {
	const chunk = 64 // operations between looks at the clock
	end := time.Now().Add(d)
	counts, fails, errs := make([]int, len(ops)), make([]int, len(ops)), make([]error, len(ops))
	one := func(g int) {
		do, n, failed := ops[g], 0, 0 // not beside those of another goroutine in memory
		var err error
		for !errors.Is(err, errAnswer) && (n == 0 || time.Now().Before(end)) {
			more, why := do(chunk)
			if n, failed = n+chunk, failed+more; why != nil {
				err = why
			}
		}
		counts[g], fails[g], errs[g] = n, failed, err
	}
	if len(ops) == 1 {
		one(0)
	} else {
		var wg sync.WaitGroup
		for g := range ops {
			wg.Go(func() { one(g) })
		}
		wg.Wait()
	}
	for g := range ops {
		count, failed = count+counts[g], failed+fails[g]
	}
	return count, failed, tolerate(errs, failed, count)
}

// tolerate returns nil if some decisions were reached, and none was wrong: how many failed is one
// of the figures.
func tolerate(errs []error, failed, of int) error {
	for _, err := range errs {
		if err != nil && (errors.Is(err, errAnswer) || failed == of) {
			return err
		}
	}
	return nil
}
