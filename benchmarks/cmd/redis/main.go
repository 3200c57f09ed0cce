// Command redis measures what ginlimit promises about its Redis backend, beside go-redis/redis_rate, ulule/limiter and a
// bare EVALSHA. It starts a redis-server of its own on a loopback port. What is compared is measured in turns, for
// several rounds; figures are medians.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/redis"
	"github.com/ginlimit/ginlimit/benchmarks"
	"github.com/ginlimit/ginlimit/internal/testserver"
)

var (
	rounds = flag.Int("rounds", 5, "how often each measurement is made")
	length = flag.Duration("length", 500*time.Millisecond, "how long each measurement takes in a round")
	only   = flag.Bool("connections", false, "compare numbers of connections instead")
)

func main() {
	flag.Parse()
	server, err := testserver.StartRedis()
	check(err)
	defer func() { check(server.Stop()) }()
	version := server.Info("server", "redis_version")
	fmt.Printf("%s %s/%s, %d cores, Redis %s, %d rounds of %v, %d keys\n\n", runtime.Version(), runtime.GOOS, runtime.GOARCH,
		runtime.NumCPU(), version, *rounds, *length, benchmarks.RedisKeys)
	if *only {
		connections(server)
		return
	}
	throughput(server)
	hot(server)
	local(server)
	memory(server)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func remote(r benchmarks.Remote, err error) benchmarks.Remote {
	check(err)
	return r
}

// figure is what one measurement found: decisions per second, and µs of the server's CPU for each.
type figure struct{ rate, cpu float64 }

func measure(server *testserver.Server, remotes []benchmarks.Remote, goroutines int) map[string]figure {
	all := map[string][]figure{}
	for range *rounds {
		for _, r := range remotes {
			_, err := benchmarks.Drive(r, goroutines, *length/10) // scripts loaded, connections made
			check(err)
			before, start := cpu(server), time.Now()
			n, err := benchmarks.Drive(r, goroutines, *length)
			check(err)
			took := time.Since(start)
			all[r.Name] = append(all[r.Name], figure{float64(n) / took.Seconds(), (cpu(server) - before) * 1e6 / float64(n)})
		}
	}
	medians := map[string]figure{}
	for name, figures := range all {
		medians[name] = figure{
			median(figures, func(f figure) float64 { return f.rate }),
			median(figures, func(f figure) float64 { return f.cpu }),
		}
	}
	return medians
}

func median(figures []figure, of func(figure) float64) float64 {
	var values []float64
	for _, f := range figures {
		values = append(values, of(f))
	}
	slices.Sort(values)
	return values[len(values)/2]
}

func cpu(server *testserver.Server) float64 {
	user, _ := strconv.ParseFloat(server.Info("cpu", "used_cpu_user"), 64)
	sys, _ := strconv.ParseFloat(server.Info("cpu", "used_cpu_sys"), 64)
	return user + sys
}

func throughput(server *testserver.Server) {
	remotes := []benchmarks.Remote{
		remote(benchmarks.GinLimitRedis("ginlimit", server.URL(), benchmarks.Plenty(backend.TokenBucket, 1))),
		remote(benchmarks.GinLimitRedis("ginlimit, 2 limits", server.URL(), benchmarks.Plenty(backend.TokenBucket, 2), redis.WithPrefix("two"))),
		remote(benchmarks.GinLimitRedis("ginlimit, fixed window", server.URL(), benchmarks.Plenty(backend.FixedWindow, 1), redis.WithPrefix("fixed"))),
		remote(benchmarks.GinLimitRedis("ginlimit, sliding window", server.URL(), benchmarks.Plenty(backend.SlidingWindow, 1), redis.WithPrefix("sliding"))),
		benchmarks.RedisRate(server.Addr()),
		remote(benchmarks.Ulule(server.Addr())),
		remote(benchmarks.BareEvalsha(server.URL())),
	}
	own, bare := remotes[0].Name, remotes[len(remotes)-1].Name
	fmt.Println("| goroutines | | decisions/s | ginlimit / it | target | Redis CPU µs | ginlimit / it | target |")
	fmt.Println("|---:|---|---:|---:|---|---:|---:|---|")
	for _, goroutines := range []int{1, 64, 512} {
		m := measure(server, remotes, goroutines)
		for _, r := range remotes {
			f := m[r.Name]
			var rate, used string
			switch {
			case r.Name == bare && goroutines > 1:
				rate = verdict(m[own].rate/f.rate >= 0.7, ">= 0.7")
			case r.Name == "redis_rate" && goroutines == 64:
				rate, used = verdict(m[own].rate/f.rate >= 2, ">= 2"), verdict(m[own].cpu/f.cpu <= 0.6, "<= 0.6")
			case r.Name == "ulule/limiter" && goroutines == 64:
				rate = verdict(m[own].rate/f.rate >= 1.5, ">= 1.5")
			case (r.Name == "redis_rate" || r.Name == "ulule/limiter") && goroutines == 512:
				rate = verdict(m[own].rate/f.rate >= 2.5, ">= 2.5")
			case r.Name == "ginlimit, 2 limits" && goroutines == 64:
				used = verdict(f.cpu/m[own].cpu <= 1.4, ">= 0.71")
			}
			fmt.Printf("| %d | %s | %.0f | %.2f | %s | %.2f | %.2f | %s |\n", goroutines, r.Name, f.rate, m[own].rate/f.rate, rate, f.cpu, m[own].cpu/f.cpu, used)
		}
	}
	for _, r := range remotes {
		r.Close()
	}
}

func verdict(ok bool, target string) string {
	if ok {
		return target + " met"
	}
	return target + " **missed**"
}

// hot compares one key that everybody asks for with and without a Lease.
func hot(server *testserver.Server) {
	remotes := []benchmarks.Remote{
		remote(benchmarks.HotRedis("plain", server.URL(), 0)),
		remote(benchmarks.HotRedis("Lease of 100", server.URL(), 100)),
		remote(benchmarks.HotRedis("Lease of 1000", server.URL(), 1000)),
	}
	m := measure(server, remotes, 64)
	targets := map[string]float64{"Lease of 100": 5, "Lease of 1000": 20}
	fmt.Println("\n| one hot key, 64 goroutines | decisions/s | it / plain | target |")
	fmt.Println("|---|---:|---:|---|")
	for _, r := range remotes {
		ratio, target := m[r.Name].rate/m["plain"].rate, ""
		if least := targets[r.Name]; least > 0 {
			target = verdict(ratio >= least, fmt.Sprint(">= ", least))
		}
		fmt.Printf("| %s | %.0f | %.1f | %s |\n", r.Name, m[r.Name].rate, ratio, target)
		r.Close()
	}
}

// connections compares how many connections serve best.
func connections(server *testserver.Server) {
	var remotes []benchmarks.Remote
	for power := range 4 {
		name := strconv.Itoa(1<<power) + " connections"
		remotes = append(remotes, remote(benchmarks.GinLimitRedis(name, server.URL(), benchmarks.Plenty(backend.TokenBucket, 1), benchmarks.Connections(power))))
	}
	fmt.Println("| goroutines | | decisions/s | Redis CPU µs |")
	fmt.Println("|---:|---|---:|---:|")
	for _, goroutines := range []int{1, 8, 64, 512} {
		m := measure(server, remotes, goroutines)
		for _, r := range remotes {
			fmt.Printf("| %d | %s | %.0f | %.2f |\n", goroutines, r.Name, m[r.Name].rate, m[r.Name].cpu)
		}
	}
	for _, r := range remotes {
		r.Close()
	}
}

// local measures refusals that are answered in the process, and how soon a Reset elsewhere ends one.
func local(server *testserver.Server) {
	ctx := context.Background()
	dial := func() *redis.Backend {
		b, err := redis.Dial(ctx, server.URL(), redis.WithPing(), redis.WithTimeout(time.Second))
		check(err)
		return b
	}
	b, other := dial(), dial()
	defer b.Close()
	defer other.Close()
	limit := backend.Limit{Count: 1, Period: 24 * time.Hour}
	take := func(key string, l backend.Limit) backend.Result {
		res, err := b.Take(ctx, key, 1, l)
		check(err)
		return res
	}
	allow := backend.Limit{Count: 1_000_000, Period: time.Second}
	time1 := func(f func()) float64 {
		var values []float64
		for range *rounds {
			r := testing.Benchmark(func(tb *testing.B) {
				for range tb.N {
					f()
				}
			})
			values = append(values, float64(r.T.Nanoseconds())/float64(r.N))
		}
		slices.Sort(values)
		return values[len(values)/2]
	}
	store := time1(func() { take("allowed", allow) })
	take("refused", limit)
	for take("refused", limit).Source != backend.SourceDenyCache {
	}
	before := server.Info("stats", "total_commands_processed")
	denied := time1(func() { take("refused", limit) })
	after := server.Info("stats", "total_commands_processed")
	fmt.Printf("\nA decision by Redis, 1 goroutine: %.0f ns; a refusal answered locally: %.0f ns (1/%.0f; target 1/20), commands sent meanwhile: %s to %s (INFO and PINGs of idle connections)\n",
		store, denied, store/denied, before, after)
	fmt.Printf("Allocations: %.0f for a decision by Redis (target 4), %.0f for a refusal answered locally (target 0)\n",
		testing.AllocsPerRun(1000, func() { take("allowed", allow) }), testing.AllocsPerRun(1000, func() { take("refused", limit) }))

	var took []figure
	for range 100 {
		for take("refused", limit).Source != backend.SourceDenyCache {
		}
		start := time.Now()
		check(other.Reset(ctx, "refused"))
		for !take("refused", limit).Allowed {
		}
		took = append(took, figure{rate: float64(time.Since(start).Microseconds())})
	}
	fmt.Printf("From a Reset on another instance to the next admission: median of 100 %.0f µs (target 20000)\n",
		median(took, func(f figure) float64 { return f.rate }))
}

// memory asks Redis what a key costs.
func memory(server *testserver.Server) {
	b, err := redis.Dial(context.Background(), server.URL(), redis.WithPing())
	check(err)
	defer b.Close()
	limit := backend.Limit{Count: 100, Period: time.Minute}
	fmt.Println("\n| state of a key of 16 bytes | MEMORY USAGE |")
	fmt.Println("|---|---:|")
	show := func(name string, charges int, limits ...backend.Limit) {
		const key = "0123456789abcdef"
		check(b.Reset(context.Background(), key))
		for range charges {
			_, err := b.Take(context.Background(), key, 1, limits...)
			check(err)
		}
		n, err := server.Do("MEMORY", "USAGE", "gl1:{"+key+"}", "SAMPLES", "0")
		check(err)
		fmt.Printf("| %s | %d B |\n", name, n)
	}
	show("token bucket", 50, limit)
	show("token bucket, 7 per second", 5, backend.Limit{Count: 7, Period: time.Second})
	show("fixed window", 50, limit.WithAlgorithm(backend.FixedWindow))
	show("sliding window", 50, limit.WithAlgorithm(backend.SlidingWindow))
	show("sliding log of 10 charges", 10, limit.WithAlgorithm(backend.SlidingLog))
	show("sliding log of 100 charges", 100, limit.WithAlgorithm(backend.SlidingLog))
	show("two token buckets", 50, limit, backend.Limit{Count: 1000, Period: time.Hour})
}
