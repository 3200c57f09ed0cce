package benchmarks

import (
	"fmt"
	"math"
	"strings"
)

// medians looks one up; it is not a number if it was not measured.
type medians func(section, of, name, metric string) float64

// value is made of medians.
type value func(medians) float64

// target is what a ratio, or a figure, should be at most, or at least. It holds only on a machine
// that has so many cores.
type target struct {
	what  string
	value value
	least bool
	bound float64
	cores int
}

// ofTheirOwn is how many cores there must be for Redis, the client and the kernel not to wait for
// each other.
const ofTheirOwn = 4

// ratio is of two figures of one column.
func ratio(section, of, metric, name, to string) value {
	return func(m medians) float64 {
		return m(section, of, name, metric) / m(section, of, to, metric)
	}
}

func plain(section, of, name, metric string) value {
	return func(m medians) float64 { return m(section, of, name, metric) }
}

const (
	atMost  = false
	atLeast = true
)

func targets() []target {
	hot, many := on(caseHot, 1), on(caseUniform, 1)
	at64, at512 := goroutines(64), goroutines(512)
	return []target{
		{"hot key: ginlimit / floor", ratio("memory", hot, "ns", own, floorClock), atMost, 1.8, 1},
		{"hot key: ginlimit / go-limiter", ratio("memory", hot, "ns", own, goLimiter), atMost, 1, 1},
		{"hot key: ginlimit / throttled", ratio("memory", hot, "ns", own, throttledGo), atMost, 1, 1},
		{"hot key: ginlimit / x/time/rate in a sync.Map", ratio("memory", hot, "ns", own, xtime), atMost, 1, 1},
		{"hot key: allocations of ginlimit", plain("memory", hot, own, "allocs"), atMost, 0, 1},
		{"many keys: ginlimit / the fastest of these three", func(m medians) float64 {
			fastest := min(m("memory", many, goLimiter, "ns"), m("memory", many, throttledGo, "ns"), m("memory", many, xtime, "ns"))
			return m("memory", many, own, "ns") / fastest
		}, atMost, 0.5, 1},
		{"many keys: throughput of ginlimit on 2 cores / on 1", func(m medians) float64 {
			return m("memory", many, own, "ns") / m("memory", on(caseUniform, 2), own, "ns")
		}, atLeast, 1.5, 2},
		{"heap for a key, token bucket, bytes", plain("heap", "", own, "bytes/key"), atMost, 48, 1},
		{"heap for a key, sliding window, bytes", plain("heap", "", own+", sliding window", "bytes/key"), atMost, 64, 1},
		{"heap for a key, fixed window, bytes", plain("heap", "", own+", fixed window", "bytes/key"), atMost, 64, 1},
		{"hot key: Limiter.Allow / a decision", func(m medians) float64 {
			return m("memory", hot, own+", Limiter.Allow", "ns") / m("memory", hot, own, "ns")
		}, atMost, 1.5, 1},
		{"hot key: allocations of Limiter.Allow", plain("memory", hot, own+", Limiter.Allow", "allocs"), atMost, 0, 1},
		{"Gin: All of three limiters / one limiter, added to a request", ratio("kinds", caseThreeGin, "added ns", own, own+oneLimiter), atMost, 2.6, 1},
		{"Redis, 64 goroutines: CPU of Redis, three keys together / by three calls", ratio("kinds", onRedis(caseThree), "server µs", own, own+threeCalls), atMost, 1, 1},
		{"Gin: ginlimit adds / bare Gin", func(m medians) float64 {
			return m("middleware", caseThrough, own, "added ns") / m("middleware", caseThrough, floorGin, "ns")
		}, atMost, 4, 1},
		{"Gin, where another handler sets a key: ginlimit adds / bare Gin with that handler", func(m medians) float64 {
			return m("middleware", caseAnother, own, "added ns") / m("middleware", caseAnother, floorGin, "ns")
		}, atMost, 3, 1},
		{"Gin: ginlimit adds / the fastest other that writes fields", func(m medians) float64 {
			fastest := math.Inf(1)
			for _, l := range memoryMiddlewares {
				if v := m("middleware", caseThrough, l.Name, "added ns"); !isOwn(l.Name) && l.Name != xtime && v < fastest {
					fastest = v
				}
			}
			if math.IsInf(fastest, 1) {
				return math.NaN()
			}
			return m("middleware", caseThrough, own, "added ns") / fastest
		}, atMost, 1, 1},
		{"Gin: allocations that ginlimit adds", plain("middleware", caseThrough, own, "added allocs"), atMost, 3, 1},
		{"Gin: refused request / allowed request, both whole", func(m medians) float64 {
			return m("middleware", caseRefused, own, "ns") / m("middleware", caseThrough, own, "ns")
		}, atMost, 2.5, 1},
		{"Redis, 64 goroutines: decisions of ginlimit / redis_rate", ratio("redis", at64, "decisions/s", own, redisRate), atLeast, 2, 1},
		{"Redis, 64 goroutines: ginlimit / ulule/limiter", ratio("redis", at64, "decisions/s", own, ululeName), atLeast, 1.5, 1},
		{"Redis, 64 goroutines: ginlimit / bare EVALSHA", ratio("redis", at64, "decisions/s", own, floorEvalsha), atLeast, 0.7, ofTheirOwn},
		{"Redis, 512 goroutines: ginlimit / redis_rate", ratio("redis", at512, "decisions/s", own, redisRate), atLeast, 2.5, 1},
		{"Redis, 512 goroutines: ginlimit / ulule/limiter", ratio("redis", at512, "decisions/s", own, ululeName), atLeast, 2.5, 1},
		{"Redis, 512 goroutines: ginlimit / bare EVALSHA", ratio("redis", at512, "decisions/s", own, floorEvalsha), atLeast, 0.7, ofTheirOwn},
		{"Redis, 64 goroutines, cores of their own: ginlimit / redis_rate", ratio("redis", apart(64), "decisions/s", own, redisRate), atLeast, 2, 1},
		{"Redis, 64 goroutines, cores of their own: ginlimit / ulule/limiter", ratio("redis", apart(64), "decisions/s", own, ululeName), atLeast, 1.5, 1},
		{"Redis, 64 goroutines, cores of their own: ginlimit / bare EVALSHA", ratio("redis", apart(64), "decisions/s", own, floorEvalsha), atLeast, 0.7, 1},
		{"Redis, 512 goroutines, cores of their own: ginlimit / redis_rate", ratio("redis", apart(512), "decisions/s", own, redisRate), atLeast, 2.5, 1},
		{"Redis, 512 goroutines, cores of their own: ginlimit / ulule/limiter", ratio("redis", apart(512), "decisions/s", own, ululeName), atLeast, 2.5, 1},
		{"Redis, 512 goroutines, cores of their own: ginlimit / bare EVALSHA", ratio("redis", apart(512), "decisions/s", own, floorEvalsha), atLeast, 0.7, 1},
		{"Redis, 64 goroutines: CPU of Redis, ginlimit / redis_rate", ratio("redis", at64, "server µs", own, redisRate), atMost, 0.6, 1},
		{"Redis, 64 goroutines: CPU of Redis, ginlimit / INCR", ratio("redis", at64, "server µs", own, floorIncr), atMost, 2.6, 1},
		{"Redis, 64 goroutines: CPU of Redis, 2 limits / 1", ratio("redis", at64, "server µs", twoLimits, own), atMost, 1.4, 1},
		{"Redis: allocations of a decision", plain("local", goroutines(1), own, "allocs"), atMost, 4, 1},
		{"Redis: allocations of a refusal that is known", plain("local", caseLocal, own, "allocs"), atMost, 0, 1},
		{"Redis: time of a refusal that is known / of a decision by Redis", func(m medians) float64 {
			return m("local", caseLocal, own, "ns") / m("local", goroutines(1), own, "ns")
		}, atMost, 0.05, 1},
		{"Redis: from a Reset elsewhere to the next admission, µs", plain("local", caseReset, own, "µs"), atMost, 20_000, 1},
		{"Redis: memory of a key, token bucket, bytes", plain("local", caseMemory, own, "bytes/key"), atMost, 120, 1},
		{"Redis, one hot key: Lease of 100 / without", ratio("redis", "one hot key", "decisions/s", lease(100), own), atLeast, 5, 1},
		{"Redis, one hot key: Lease of 1000 / without", ratio("redis", "one hot key", "decisions/s", lease(1000), own), atLeast, 20, 1},
	}
}

// targets is the table of those whose figures were measured.
func (r *Results) targets() string {
	m := func(section, of, name, metric string) float64 {
		if f := r.Find(section, of, name, metric); f != nil {
			return f.Median
		}
		return math.NaN()
	}
	var b strings.Builder
	for _, t := range targets() {
		v := t.value(m)
		if math.IsNaN(v) {
			continue
		}
		sign, met := "≤", v <= t.bound || number(v) == number(t.bound) || t.bound == 0 && v < 0.02 // allocations that others made meanwhile
		if t.least {
			sign, met = "≥", v >= t.bound
		}
		verdict := "met"
		if !met {
			verdict = "**missed**"
		}
		if !met && r.Machine.Cores < t.cores {
			verdict = fmt.Sprintf("%s: needs %d cores", verdict, t.cores)
		}
		fmt.Fprintf(&b, "| %s | %s | %s %s | %s |\n", t.what, number(v), sign, number(t.bound), verdict)
	}
	if b.Len() == 0 {
		return ""
	}
	return "| | measured | target | |\n|---|---:|---:|---|\n" + b.String()
}
