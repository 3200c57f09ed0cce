package benchmarks

import (
	"fmt"
	"slices"
	"time"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/memory"
)

// Cases of the section growth. The figures have an X.
const (
	growKeys         = "keys"
	growGoroutines   = "goroutines"
	growLimits       = "limits of a key, memory"
	growLimitsRedis  = "limits of a key, Redis"
	growInstances    = "instances"
	mostGoroutines   = 4096
	mostLimits       = 8
	callsOfGoLimiter = goLimiter + ", a call for each"
	callsOfRedisRate = redisRate + ", a call for each"
)

// growth measures how cost grows with what there is more of.
func (b *bench) growth() error {
	for _, part := range []func() error{b.growGoroutines, b.growLimits, b.growInstances, b.growKeysRedis, b.growKeysPostgres, b.growKeys} {
		if err := part(); err != nil {
			return err
		}
	}
	return nil
}

// grown returns ginlimit and the rivals of these names.
func grown(own Limiter, rivals ...string) []Limiter {
	return append([]Limiter{own}, slices.DeleteFunc(inMemory(), func(l Limiter) bool { return !slices.Contains(rivals, l.Name) })...)
}

func (b *bench) growKeys() error {
	defer b.closeAll()
	for keys := 1000; keys <= b.MaxKeys; keys = next(keys) {
		draws := b.draws(keys, false)
		b.names(keys)
		candidates := grown(ginLimit(own, backend.TokenBucket, memory.WithMaxKeys(2*keys)), goLimiter, throttledGo, xtime)
		if keys > mostInMap {
			candidates = slices.DeleteFunc(candidates, func(l Limiter) bool { return l.Name == xtime })
		}
		// Beyond 100,000 keys each is filled once, which takes most of the time: its heap is the
		// same each time.
		fills := b.Rounds
		if keys > 100_000 {
			fills = 1
		}
		time.Sleep(50 * time.Millisecond) // what the last ones left behind ends, and is not taken off the heap of the next
		var filled []remote
		for _, l := range candidates {
			if !b.wanted(l.Name) {
				continue
			}
			var last Take
			for range fills {
				take, stop, perKey, err := b.fill(l, manyQuota, keys, 1)
				if err != nil {
					return err
				}
				b.closers = append(b.closers, stop)
				b.add(growKeys, l.Name, "bytes/key", float64(keys), perKey)
				last = take
			}
			filled = append(filled, remote{l, last})
		}
		if err := eachRound(b, filled, func(r remote) error {
			cost, err := b.time(1, 1, func() op { return takeAll(r.take, draws, true) })
			b.addCost(growKeys, r.Name, float64(keys), cost)
			return err
		}); err != nil {
			return err
		}
		b.drawn = nil
		b.closeAll()
	}
	b.keys = nil
	return nil
}

// mostInMap is the most keys that a sync.Map of limiters is asked to hold: with ten times as many
// it takes over a minute to be filled.
const mostInMap = 1_000_000

// next is the next of 1, 3, 10, 30, … thousand: a table that grows in steps is small after one
// number of keys and large after another. Beyond a million it is ten times as many, for the same
// reason as above.
func next(keys int) int {
	switch {
	case keys >= mostInMap:
		return keys * 10
	case fmt.Sprint(keys)[0] == '1':
		return keys * 3
	}
	return keys / 3 * 10
}

func (b *bench) growGoroutines() error {
	made := b.connect(oddQuota, grown(ginLimit(own, backend.TokenBucket), goLimiter, throttledGo, xtime, ululeName))
	for n := 1; n <= mostGoroutines; n *= 4 {
		if err := eachRound(b, made, func(r remote) error {
			cost, err := b.time(len(cores()), n, func() op { return takeAll(r.take, []string{"203.0.113.7"}, true) })
			b.addCost(growGoroutines, r.Name, float64(n), cost)
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) growLimits() error {
	find := func(limiters []Limiter, name string) Limiter {
		return limiters[slices.IndexFunc(limiters, func(l Limiter) bool { return l.Name == name })]
	}
	keys := manyKeys()
	for n := 1; n <= mostLimits; n *= 2 {
		inProcess := []Limiter{
			{own, func(string, Quota) (Take, func()) {
				return takeBackend(memory.New(), limitsOf(oddQuota, backend.TokenBucket, n)), func() {}
			}},
			several(callsOfGoLimiter, find(inMemory(), goLimiter), n),
		}
		if err := eachRound(b, b.connect(oddQuota, inProcess), func(r remote) error {
			cost, err := b.time(1, 1, func() op { return takeAll(r.take, keys[:1], true) })
			b.addCost(growLimits, r.Name, float64(n), cost)
			return err
		}); err != nil {
			return err
		}
		onServer := ginLimitRedis(own, backend.TokenBucket, n)
		if err := eachRound(b, b.connect(oddQuota, []Limiter{onServer, several(callsOfRedisRate, find(inRedis(), redisRate), n)}), func(r remote) error {
			return b.drive(growLimitsRedis, r, float64(n), 64, keys, true)
		}); err != nil {
			return err
		}
	}
	return nil
}

// several is how n limits are put on a key with a limiter that knows one: n are asked in turn. In
// Redis they count together here, which costs the same.
func several(name string, l Limiter, n int) Limiter {
	return Limiter{name, func(addr string, q Quota) (Take, func()) {
		takes, stops := make([]Take, n), make([]func(), n)
		for i := range takes {
			takes[i], stops[i] = l.New(addr, q)
		}
		return func(key string) (bool, error) {
				for _, take := range takes {
					if ok, err := take(key); !ok || err != nil {
						return false, err
					}
				}
				return true, nil
			}, func() {
				for _, stop := range stops {
					stop()
				}
			}
	}}
}

// fleet are the instances of an application.
type fleet []child

func (f fleet) name() string { return f[0].Name }

func (b *bench) growInstances() error {
	var fleets []fleet
	for _, name := range []string{own, redisRate, ululeName} {
		if !b.wanted(name) {
			continue
		}
		var f fleet
		for range b.Procs {
			c, err := b.spawn("instance", name)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			f = append(f, c)
		}
		fleets = append(fleets, f)
	}
	for n := 1; n <= b.Procs; n *= 2 {
		if err := eachRound(b, fleets, func(f fleet) error { return b.instances(f[:n]) }); err != nil {
			return err
		}
	}
	return nil
}

// instances lets all of them decide at the same time.
func (b *bench) instances(f fleet) error {
	before, err := serverUse(b.server)
	if err != nil {
		return err
	}
	for _, c := range f {
		if _, err := fmt.Fprintln(c.in, 2*b.Length); err != nil {
			return err
		}
	}
	var rate, decisions float64
	for _, c := range f {
		var n, seconds float64
		if err := c.answer(&n, &seconds); err != nil {
			return err
		}
		rate, decisions = rate+n/seconds, decisions+n
	}
	after, err := serverUse(b.server)
	if err != nil {
		return err
	}
	x := float64(len(f))
	b.add(growInstances, f.name(), "decisions/s", x, rate)
	b.add(growInstances, f.name(), "server µs", x, (after.cpu-before.cpu)*1e6/decisions)
	return nil
}
