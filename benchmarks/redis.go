package benchmarks

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/redis"
	"github.com/ginlimit/ginlimit/internal/testserver"
)

const (
	redisKeys  = 10_000 // that decisions are spread over
	twoLimits  = own + ", 2 limits"
	oddRate    = own + ", a rate that does not divide"
	caseLocal  = "a refusal that is known"
	caseReset  = "Reset elsewhere to the next admission"
	caseMemory = "memory of a key"
)

func lease(n int64) string { return fmt.Sprintf("%s, Lease of %d", own, n) }

// goroutines is the name of a case in which so many ask at once.
func goroutines(n int) string {
	if n == 1 {
		return "1 goroutine"
	}
	return fmt.Sprintf("%d goroutines", n)
}

// apart is the name of a case in which so many ask at once, and Redis has cores of its own.
func apart(n int) string { return goroutines(n) + ", cores of their own" }

// alsoApart are the limiters that are measured like that too.
var alsoApart = []string{own, redisRate, ululeName, floorEvalsha}

// remote is a Limiter on Redis that was made.
type remote struct {
	Limiter
	take Take
}

// connect makes the limiters, which live until the section ends.
func (b *bench) connect(q Quota, limiters []Limiter) []remote {
	var remotes []remote
	for _, l := range limiters {
		if b.wanted(l.Name) {
			take, stop := l.New(b.server.Addr(), q)
			b.closers = append(b.closers, stop)
			remotes = append(remotes, remote{l, take})
		}
	}
	return remotes
}

// redis measures decisions in Redis.
func (b *bench) redis() error {
	odd := Limiter{oddRate, func(addr string, _ Quota) (Take, func()) {
		d := dial(addr, redis.WithPrefix("od"))
		return takeBackend(d, limitsOf(oddQuota, backend.TokenBucket, 1)), func() { d.Close() }
	}}
	candidates := append(append(inRedis(), ginLimitRedis(twoLimits, backend.TokenBucket, 2), odd), redisFloors()...)
	keys := manyKeys()[:min(redisKeys, b.Keys)]
	remotes := b.connect(redisQuota, candidates)
	for _, r := range remotes { // the first decision about a key is another one than the next
		if _, err := takeAll(r.take, keys, true)(len(keys)); err != nil {
			return fmt.Errorf("%s: %w", r.Name, err)
		}
	}
	rounds := eachRound[remote]
	for _, n := range []int{1, 64, 512} {
		if err := rounds(b, remotes, func(r remote) error { return b.drive(goroutines(n), r, 0, n, keys, true) }); err != nil {
			return err
		}
		rounds = eachMoreRound[remote]
	}
	some := slices.DeleteFunc(slices.Clone(remotes), func(r remote) bool { return !slices.Contains(alsoApart, r.Name) })
	if err := b.apart(func() error {
		for _, n := range []int{64, 512} {
			if err := rounds(b, some, func(r remote) error { return b.drive(apart(n), r, 0, n, keys, true) }); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	for _, n := range []int64{100, 1000} {
		hot := Limiter{lease(n), func(addr string, q Quota) (Take, func()) {
			d := dial(addr)
			return takeBackend(backend.Lease(d, n), limitsOf(q, backend.TokenBucket, 1)), func() { d.Close() }
		}}
		remotes = append(remotes, b.connect(hotQuota, []Limiter{hot})...)
	}
	if err := eachRound(b, remotes, func(r remote) error {
		return b.drive("one hot key", r, 0, 64, []string{"key-of-16-bytes!"}, true)
	}); err != nil {
		return err
	}
	if _, err := b.server.Do("FLUSHALL"); err != nil { // the next limit is another one
		return err
	}
	denied := b.connect(spentQuota, inRedis())
	return eachRound(b, denied, func(r remote) error {
		if _, err := r.take("key-of-16-bytes!"); err != nil {
			return err
		}
		return b.drive(caseDenied, r, 0, 64, []string{"key-of-16-bytes!"}, false)
	})
}

// drive asks r from so many goroutines and records what came of it. X is 0, or what the figures
// grow with.
func (b *bench) drive(of string, r remote, x float64, goroutines int, keys []string, want bool) error {
	if _, _, err := ask(r.take, goroutines, b.Length/5, keys, want); err != nil { // scripts are loaded, connections made
		return err
	}
	before, err := serverUse(b.server)
	if err != nil {
		return err
	}
	client, began := ownCPU(), time.Now()
	waits, failed, err := ask(r.take, goroutines, 2*b.Length, keys, want)
	if err != nil {
		return err
	}
	took := time.Since(began)
	client = ownCPU() - client
	after, err := serverUse(b.server)
	if err != nil {
		return err
	}
	slices.Sort(waits)
	n := float64(len(waits))
	b.add(of, r.Name, "decisions/s", x, n/took.Seconds())
	b.add(of, r.Name, "p50 µs", x, float64(waits[len(waits)/2])/1000)
	b.add(of, r.Name, "p99 µs", x, float64(waits[len(waits)*99/100])/1000)
	b.add(of, r.Name, "server µs", x, (after.cpu-before.cpu)*1e6/n)
	b.add(of, r.Name, "client µs", x, client.Seconds()*1e6/n)
	b.add(of, r.Name, "failed", x, float64(failed)/(n+float64(failed)))
	sum := 0.0
	var each []string
	for _, command := range slices.Sorted(maps.Keys(after.calls)) {
		if calls := (after.calls[command] - before.calls[command]) / n; calls > 0.005 {
			sum += calls
			each = append(each, command+" "+strconv.FormatFloat(math.Round(calls*100)/100, 'g', 3, 64))
		}
	}
	b.add(of, r.Name, "commands", x, sum)
	if x == 0 {
		b.note(of, r.Name, "commands", strings.Join(each, ", "))
	}
	return nil
}

// ask calls take from so many goroutines until the time is over, and returns how long each call
// took, in ns, and how many failed.
func ask(take Take, goroutines int, d time.Duration, keys []string, want bool) (waits []int64, failed int, err error) {
	each, fails, errs := make([][]int64, goroutines), make([]int, goroutines), make([]error, goroutines)
	end := time.Now().Add(d)
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			now := time.Now()
			for n := g * 7919; now.Before(end) || n == g*7919; n++ {
				ok, err := take(keys[n%len(keys)])
				then := now
				now = time.Now()
				switch {
				case err != nil:
					fails[g], errs[g] = fails[g]+1, err
				case ok != want:
					errs[g] = errAnswer
					return
				default:
					each[g] = append(each[g], int64(now.Sub(then)))
				}
			}
		})
	}
	wg.Wait()
	waits = slices.Concat(each...)
	for _, n := range fails {
		failed += n
	}
	return waits, failed, tolerate(errs, failed, len(waits)+failed)
}

// use is what a server did since it was started.
type use struct {
	cpu   float64            // seconds
	calls map[string]float64 // by command, also of those that scripts called
}

func serverUse(s *testserver.Server) (use, error) {
	u := use{calls: map[string]float64{}}
	for _, section := range []string{"cpu", "commandstats"} {
		info, err := s.Do("INFO", section)
		if err != nil {
			return u, err
		}
		for line := range strings.Lines(fmt.Sprint(info)) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
			if name == "used_cpu_user" || name == "used_cpu_sys" {
				seconds, err := strconv.ParseFloat(value, 64)
				if err != nil {
					return u, err
				}
				u.cpu += seconds
			}
			var calls float64
			if command, ok := strings.CutPrefix(name, "cmdstat_"); ok && command != "info" {
				if _, err := fmt.Sscanf(value, "calls=%g,", &calls); err != nil {
					return u, err
				}
				u.calls[strings.ToUpper(command)] = calls
			}
		}
	}
	return u, nil
}

var connectionGoroutines = []int{1, 8, 64, 512}

// connections compares how many connections serve best.
func (b *bench) connections() error {
	var candidates []Limiter
	for power, name := range []string{"1 connection", "2 connections", "4 connections", "8 connections"} {
		candidates = append(candidates, Limiter{own + ", " + name, func(addr string, q Quota) (Take, func()) {
			d := dial(addr, redis.WithClientOption(func(o *rueidis.ClientOption) {
				if o.PipelineMultiplex = power; power == 0 {
					o.PipelineMultiplex = -1 // rueidis' way of saying one
				}
			}))
			return takeBackend(d, limitsOf(q, backend.TokenBucket, 1)), func() { d.Close() }
		}})
	}
	remotes := b.connect(hotQuota, candidates)
	for _, n := range connectionGoroutines {
		if err := eachRound(b, remotes, func(r remote) error { return b.drive(goroutines(n), r, 0, n, manyKeys(), true) }); err != nil {
			return err
		}
	}
	return nil
}

// manyKeys are the keys, of 16 bytes, that decisions in Redis are about.
func manyKeys() []string {
	keys := make([]string, redisKeys)
	for i := range keys {
		keys[i] = fmt.Sprintf("key-%012d", i)
	}
	return keys
}

// local measures what ginlimit answers without Redis, how soon that ends when it must, and what a
// key costs Redis.
func (b *bench) local() error {
	const key = "key-of-16-bytes!"
	ctx := context.Background()
	one, other := dial(b.server.Addr()), dial(b.server.Addr())
	b.closers = append(b.closers, func() { one.Close(); other.Close() })
	take := takeBackend(one, limitsOf(spentQuota, backend.TokenBucket, 1))
	known := func() error { // asks until a refusal is remembered
		for {
			res, err := one.Take(ctx, key, 1, limitsOf(spentQuota, backend.TokenBucket, 1)...)
			if err != nil || res.Source == backend.SourceDenyCache {
				return err
			}
		}
	}
	for range b.Rounds {
		if err := known(); err != nil {
			return err
		}
		refusals, err := b.time(1, 1, func() op { return takeAll(take, []string{key}, false) })
		if err != nil {
			return err
		}
		b.addCost(caseLocal, own, 0, refusals)
		allowed := takeBackend(one, limitsOf(hotQuota, backend.TokenBucket, 1))
		decisions, err := b.time(len(cores()), 1, func() op { return takeAll(allowed, []string{"allowed"}, true) })
		if err != nil {
			return err
		}
		decisions.allocs = testing.AllocsPerRun(1000, func() { _, err = allowed("allowed") })
		if err != nil {
			return err
		}
		b.addCost("1 goroutine", own, 0, decisions)
		var waits []float64
		for range 20 {
			if err := known(); err != nil {
				return err
			}
			began := time.Now()
			if err := other.Reset(ctx, key); err != nil {
				return err
			}
			for ok := false; !ok; {
				if ok, err = take(key); err != nil {
					return err
				}
			}
			waits = append(waits, float64(time.Since(began).Microseconds()))
		}
		slices.Sort(waits)
		b.add(caseReset, own, "µs", 0, waits[len(waits)/2])
		b.add(caseReset, own, "slowest µs", 0, waits[len(waits)-1])
	}
	return b.keyMemory()
}

// keyMemory asks Redis what a caller costs, with all keys that a limiter makes for it.
func (b *bench) keyMemory() error {
	limiters := append(inRedis(), ginLimitRedis(twoLimits, backend.TokenBucket, 2),
		ginLimitRedis(own+", sliding log of 10 charges", backend.SlidingLog, 1),
		ginLimitRedis(own+", sliding log of 100 charges", backend.SlidingLog, 1))
	for _, l := range limiters {
		if !b.wanted(l.Name) {
			continue
		}
		charges := 10
		if strings.Contains(l.Name, "100") {
			charges = 100
		}
		if _, err := b.server.Do("FLUSHALL"); err != nil {
			return err
		}
		take, stop := l.New(b.server.Addr(), Quota{1000, time.Hour})
		for range charges {
			if ok, err := take("key-of-16-bytes!"); err != nil || !ok {
				return errors.Join(err, errAnswer)
			}
		}
		stop()
		sum, err := memoryUsage(b.server.Addr())
		if err != nil {
			return err
		}
		b.add(caseMemory, l.Name, "bytes/key", 0, float64(sum))
	}
	return nil
}

// memoryUsage is what all keys in a server that has few take.
func memoryUsage(addr string) (sum int64, err error) {
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{addr}, DisableCache: true})
	if err != nil {
		return 0, err
	}
	defer client.Close()
	ctx := context.Background()
	keys, err := client.Do(ctx, client.B().Keys().Pattern("*").Build()).AsStrSlice()
	for _, key := range keys {
		n, usageErr := client.Do(ctx, client.B().MemoryUsage().Key(key).Samples(0).Build()).AsInt64()
		sum, err = sum+n, errors.Join(err, usageErr)
	}
	return sum, err
}
