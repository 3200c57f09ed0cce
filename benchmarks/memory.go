package benchmarks

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/memory"
)

// Cases of the section memory. Where it matters they are followed by the number of cores.
const (
	caseHot     = "hot key"
	caseDenied  = "denied hot key"
	caseUniform = "many keys, uniform"
	caseZipf    = "many keys, Zipf"
	caseNew     = "new key"
)

// moreRounds is how many times as many rounds figures of one hot key in memory and of many
// goroutines on Redis have: they depend most on who else uses the cores.
const moreRounds = 3

// eachMoreRound is eachRound with so many.
func eachMoreRound[T interface{ name() string }](b *bench, candidates []T, measure func(T) error) error {
	rounds := b.Rounds
	defer func() { b.Rounds = rounds }()
	b.Rounds *= moreRounds
	return eachRound(b, candidates, measure)
}

// on is the name of a case on so many cores.
func on(of string, cores int) string {
	if cores == 1 {
		return of + ", 1 core"
	}
	return fmt.Sprintf("%s, %d cores", of, cores)
}

// cores are how many are used: one, and two if the machine has them.
func cores() []int {
	if runtime.NumCPU() == 1 {
		return []int{1}
	}
	return []int{1, 2}
}

// memory measures decisions in the process.
func (b *bench) memory() error {
	if err := eachMoreRound(b, inMemoryHot(), b.hot); err != nil {
		return err
	}
	b.draws(b.Keys, false) // not in the time, or the heap, of the first candidate
	b.draws(b.Keys, true)
	many := append(inMemory(), ginLimit(own+", room for twice as many", backend.TokenBucket, memory.WithMaxKeys(2*b.Keys)))
	if err := eachRound(b, many, b.many); err != nil {
		return err
	}
	return eachRound(b, []Limiter{ginLimit(own+", sliding log of 10 charges", backend.SlidingLog, memory.WithMaxKeys(2*b.Keys))}, func(l Limiter) error {
		_, _, perKey, err := b.fill(l, Quota{10, time.Hour}, b.Keys, 10)
		b.addTo("heap", "", l.Name, "bytes/key", 0, perKey)
		b.drawn = nil
		return err
	})
}

// hot measures decisions about one key, let through and refused.
func (b *bench) hot(l Limiter) error {
	for _, c := range []struct {
		name string
		q    Quota
		want bool
	}{{caseHot, hotQuota, true}, {caseDenied, spentQuota, false}} {
		if !c.want && l.Name == floorClock {
			continue
		}
		take, stop := l.New("", c.q)
		if _, err := take("203.0.113.7"); err != nil { // the first is let through whatever the limit
			return err
		}
		for _, n := range cores() {
			cost, err := b.time(n, n, func() op { return takeAll(take, []string{"203.0.113.7"}, c.want) })
			if err != nil {
				return err
			}
			b.addCost(on(c.name, n), l.Name, 0, cost)
		}
		stop()
	}
	return nil
}

// many measures decisions about many keys: the first about each, which also tells what its memory
// is, then others.
func (b *bench) many(l Limiter) error {
	take, stop, perKey, err := b.fill(l, manyQuota, b.Keys, 1)
	if err != nil {
		return err
	}
	defer stop()
	b.addTo("heap", "", l.Name, "bytes/key", 0, perKey)
	for _, c := range []struct {
		name string
		zipf bool
	}{{caseUniform, false}, {caseZipf, true}} {
		draws := b.draws(b.Keys, c.zipf)
		for _, n := range cores() {
			cost, err := b.time(n, n, func() op { return takeAll(take, draws, true) })
			if err != nil {
				return err
			}
			b.addCost(on(c.name, n), l.Name, 0, cost)
		}
	}
	return nil
}

// fill makes a limiter and charges so many keys. It returns the bytes of live heap that it takes
// for each key, without those of the keys' own strings, and records what the first decision about a
// key costs. The limiter lives on.
func (b *bench) fill(l Limiter, q Quota, keys, charges int) (take Take, stop func(), perKey float64, err error) {
	names := b.names(keys)
	runtime.GC() // a second one follows: this one leaves what was in a sync.Pool or had a finalizer
	heap := b.liveHeap()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	began := time.Now()
	take, stop = l.New("", q)
	for range charges {
		if failed, err := takeAll(take, names, true)(keys); err != nil {
			return nil, stop, 0, fmt.Errorf("%d of %d failed: %w", failed, keys, err)
		}
	}
	if n := float64(keys); charges == 1 {
		took := time.Since(began)
		runtime.ReadMemStats(&after)
		b.addCost(caseNew, l.Name, float64(keys), cost{
			float64(took.Nanoseconds()) / n, float64(after.TotalAlloc-before.TotalAlloc) / n, float64(after.Mallocs-before.Mallocs) / n, 0,
		})
	}
	runtime.GOMAXPROCS(runtime.NumCPU())
	perKey = (b.liveHeap() - heap) / float64(keys)
	runtime.KeepAlive(take)
	return take, stop, perKey, nil
}

// liveHeap collects what is garbage.
func (b *bench) liveHeap() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	b.clean = m.TotalAlloc
	return float64(m.HeapAlloc)
}

// noGarbage sees to it that no collection runs beside a measurement that does not cause one.
func (b *bench) noGarbage() {
	var m runtime.MemStats
	if runtime.ReadMemStats(&m); m.TotalAlloc-b.clean > 1<<20 {
		b.liveHeap()
	}
}

// takeAll charges the keys, from a place on that chance chooses, and again from the first.
func takeAll(take Take, keys []string, want bool) op {
	next := rand.IntN(len(keys))
	return func(n int) (failed int, err error) {
		i := next // which may lie beside that of another goroutine in memory
		for range n {
			ok, takeErr := take(keys[i])
			if takeErr != nil {
				failed, err = failed+1, takeErr
			} else if ok != want {
				return failed, errAnswer
			}
			if i++; i == len(keys) {
				i = 0
			}
		}
		next = i
		return failed, err
	}
}

// names returns n keys. As in a server, the key of a request is not the string that the limiter may
// have kept, but an equal one that has just been written: draws has its own.
func (b *bench) names(n int) []string {
	if len(b.keys) < n {
		b.keys = inOnePiece(n, func(i int) int { return i })
	}
	return b.keys[:n]
}

// draws returns keys drawn out of n, uniformly or by Zipf's law with the exponent 1.1. They lie one
// after another in memory, so that what misses the cache is the limiter's own.
func (b *bench) draws(n int, zipf bool) []string {
	key := fmt.Sprint(n, zipf)
	if drawn, ok := b.drawn[key]; ok {
		return drawn
	}
	random := rand.New(rand.NewPCG(1, 2))
	law, ranks := rand.NewZipf(random, 1.1, 1, uint64(n-1)), random.Perm(n) // the keys that are asked for most came at any time
	if b.drawn == nil {
		b.drawn = map[string][]string{}
	}
	b.drawn[key] = inOnePiece(min(4*n, 4_000_000), func(int) int {
		if zipf {
			return ranks[law.Uint64()]
		}
		return random.IntN(n)
	})
	return b.drawn[key]
}

// inOnePiece returns n keys that lie in one piece of memory, which keeps the collector's work the
// same for all.
func inOnePiece(n int, number func(i int) int) []string {
	var all strings.Builder
	const width = len("user-00000000")
	all.Grow(width * n)
	keys := make([]string, n)
	for i := range keys {
		fmt.Fprintf(&all, "user-%08d", number(i))
		keys[i] = all.String()[i*width:]
	}
	return slices.Clip(keys)
}
