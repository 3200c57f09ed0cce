// Command targets measures what ginlimit promises about its speed and its memory, and prints a Markdown table
// of each figure beside its target. What is compared is measured in turns, for several rounds in one process,
// so that a slow moment of the machine falls on all alike; figures are medians.
package main

import (
	"flag"
	"fmt"
	"log"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/memory"
	"github.com/ginlimit/ginlimit/benchmarks"
)

var rounds = flag.Int("rounds", 5, "how often each measurement is made")

func main() {
	benchtime := flag.Duration("benchtime", 300*time.Millisecond, "how long each measurement takes in a round")
	testing.Init()
	flag.Parse()
	if *rounds < 1 {
		log.Fatal("-rounds must be at least 1")
	}
	if err := flag.Set("test.benchtime", benchtime.String()); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s %s/%s, %d cores, %d rounds of %v\n\n", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), *rounds, *benchtime)
	fmt.Println("| figure | measured | ratio | target | |")
	fmt.Println("|---|---:|---:|---:|---|")
	hot()
	million()
	parallel()
	middleware()
	heap()
}

func hot() {
	var runs []run
	for _, l := range append([]benchmarks.Limiter{benchmarks.Floor}, benchmarks.Limiters()...) {
		runs = append(runs, run{l.Name, benchmarks.Hot(l)})
	}
	m := measure(runs)
	own, floor := m["ginlimit"], m["floor"]
	show("hot: floor, clock and one swap", floor, "")
	show("hot: ginlimit / floor", own, ratio(own.ns, floor.ns), atMost(own.ns/floor.ns, 2))
	showAllocs("hot: ginlimit allocations", own.allocs, 0)
	for _, l := range benchmarks.Rivals {
		rival := m[l.Name]
		show("hot: "+l.Name+"; ginlimit / it", rival, ratio(own.ns, rival.ns), below(own.ns/rival.ns, 1))
	}
}

func million() {
	owns := []benchmarks.Limiter{
		benchmarks.GinLimit("ginlimit", backend.TokenBucket),
		benchmarks.GinLimit("ginlimit, room for 2M", backend.TokenBucket, memory.WithMaxKeys(2*benchmarks.Million)),
	}
	for _, kind := range []struct {
		name   string
		bench  func(benchmarks.Limiter) func(*testing.B)
		target func(ratio float64) []verdict
	}{
		{"1M keys", benchmarks.Many, func(r float64) []verdict { return []verdict{atMost(r, 0.5)} }},
		{"1M keys, indexed", benchmarks.ManyIndexed, func(float64) []verdict { return nil }}, // for the record
	} {
		var runs []run
		for _, l := range append(slices.Clone(owns), benchmarks.Rivals...) {
			runs = append(runs, run{l.Name, kind.bench(l)})
		}
		m := measure(runs)
		fastest := benchmarks.Rivals[0].Name
		for _, l := range benchmarks.Rivals {
			if show(kind.name+": "+l.Name, m[l.Name], ""); m[l.Name].ns < m[fastest].ns {
				fastest = l.Name
			}
		}
		for _, l := range owns {
			own, rival := m[l.Name], m[fastest]
			show(kind.name+": "+l.Name+" / "+fastest, own, ratio(own.ns, rival.ns), kind.target(own.ns/rival.ns)...)
		}
	}
}

func parallel() {
	bench := benchmarks.ManyParallel(benchmarks.Full(benchmarks.Limiters()[0]))
	on := func(cores int) func(*testing.B) {
		return func(b *testing.B) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(cores))
			bench(b)
		}
	}
	m := measure([]run{{"one", on(1)}, {"two", on(2)}})
	one, two := m["one"], m["two"]
	show("1M keys: ginlimit on 1 core", one, "")
	show("1M keys: ginlimit on 2 cores, throughput / 1 core", two, ratio(one.ns, two.ns), atLeast(one.ns/two.ns, 1.5))
}

func middleware() {
	var runs []run
	for _, mw := range benchmarks.Middlewares {
		runs = append(runs, run{mw.Name, benchmarks.Serve(mw)})
	}
	m := measure(runs)
	bare, own, denied := m["bare"], m["ginlimit"], m["ginlimit-429"]
	adds := figure{own.ns - bare.ns, own.allocs - bare.allocs}
	show("Gin: bare", bare, "")
	show("Gin: ginlimit adds / bare", adds, ratio(adds.ns, bare.ns), atMost(adds.ns/bare.ns, 3))
	showAllocs("Gin: ginlimit adds allocations", adds.allocs, 3)
	show("Gin: ginlimit 429 whole / allowed whole", denied, ratio(denied.ns, own.ns), atMost(denied.ns/own.ns, 2.5))
	for _, mw := range benchmarks.Middlewares[3:] {
		rival := figure{m[mw.Name].ns - bare.ns, m[mw.Name].allocs - bare.allocs}
		show("Gin: "+mw.Name+" adds; ginlimit adds / it", rival, ratio(adds.ns, rival.ns))
	}
}

func heap() {
	targets := map[string]float64{"ginlimit-TokenBucket": 48, "ginlimit-SlidingWindow": 64, "ginlimit-FixedWindow": 64}
	report := func(h benchmarks.Heap, name string, keys []string, rounds int) {
		var perKey []float64
		for range rounds {
			perKey = append(perKey, h.PerKey(keys))
		}
		measured := median(perKey)
		var v []verdict
		if most, ok := targets[h.Name]; ok {
			v = append(v, verdict{fmt.Sprintf("<= %.0f B", most), measured <= most})
		}
		row(name+": "+h.Name, fmt.Sprintf("%.1f B", measured), "", v...)
	}
	million := benchmarks.Keys(benchmarks.Million)
	for _, h := range benchmarks.Heaps(memory.WithMaxKeys(10 * benchmarks.Million)) {
		report(h, "heap per key, 1M", million, *rounds)
	}
	for _, h := range benchmarks.Heaps()[:3] {
		report(h, "heap per key, 1M, room for no more", million, *rounds)
	}
	// A table that grows in steps is small after one number of keys and large after another.
	for _, n := range []int{300_000, 700_000, 1_500_000} {
		keys := benchmarks.Keys(n)
		for _, h := range benchmarks.Heaps(memory.WithMaxKeys(10 * benchmarks.Million))[:3] {
			report(h, fmt.Sprintf("heap per key, %.1fM", float64(n)/benchmarks.Million), keys, 1)
		}
	}
}

// run is a benchmark and what it is called in a measurement.
type run struct {
	name  string
	bench func(*testing.B)
}

// figure is the cost of one operation.
type figure struct{ ns, allocs float64 }

// measure makes all runs in turns, and returns the medians by name.
func measure(runs []run) map[string]figure {
	ns, allocs := map[string][]float64{}, map[string][]float64{}
	for range *rounds {
		for _, r := range runs {
			runtime.GC() // frees the limiter of the run before
			res := testing.Benchmark(r.bench)
			if res.N == 0 {
				log.Fatalf("%s failed: was a request refused?", r.name)
			}
			ns[r.name] = append(ns[r.name], float64(res.T.Nanoseconds())/float64(res.N))
			allocs[r.name] = append(allocs[r.name], float64(res.MemAllocs)/float64(res.N))
		}
	}
	medians := map[string]figure{}
	for _, r := range runs {
		medians[r.name] = figure{median(ns[r.name]), median(allocs[r.name])}
	}
	return medians
}

func median(values []float64) float64 {
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}

// verdict is a target and whether it was met.
type verdict struct {
	target string
	met    bool
}

func atMost(x, most float64) verdict   { return verdict{fmt.Sprintf("<= %.3g", most), x <= most} }
func atLeast(x, least float64) verdict { return verdict{fmt.Sprintf(">= %.3g", least), x >= least} }
func below(x, bound float64) verdict   { return verdict{fmt.Sprintf("< %.3g", bound), x < bound} }

func ratio(a, b float64) string { return fmt.Sprintf("%.2f", a/b) }

func show(name string, f figure, ratio string, v ...verdict) {
	row(name, fmt.Sprintf("%.1f ns", f.ns), ratio, v...)
}

// showAllocs forgives the few allocations that other goroutines made meanwhile.
func showAllocs(name string, n, most float64) {
	row(name, fmt.Sprintf("%.2f", n), "", atMost(n-0.01, most))
}

func row(name, measured, ratio string, v ...verdict) {
	target, result := "", ""
	for _, v := range v {
		if target, result = v.target, "met"; !v.met {
			result = "**missed**"
		}
	}
	fmt.Printf("| %s | %s | %s | %s | %s |\n", name, measured, ratio, target, result)
}
