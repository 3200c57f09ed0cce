package redis_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/memory"
	"github.com/ginlimit/ginlimit/backend/redis"
	"github.com/ginlimit/ginlimit/internal/testserver"
)

// The soak: four instances take, settle, take all or none, hold places and are banned, while one
// fault follows another at random. `make soak` takes ten minutes.
//
// The server keeps its data over a kill -9, so that only FLUSHALL takes state away: what is
// admitted is held to the limit between two of them. A call that failed may have charged or not;
// that is why refusals are judged by keys that are never asked for as much as they may have, and by
// every key's full capacity at the end.

const (
	soakInstances = 4
	soakWorkers   = 8 // of each instance
	soakPeriod    = 2 * time.Second
	soakCount     = 100   // of the short limits, in soakPeriod
	soakTotal     = 2_000 // of the limits of an hour, between two losses of state
	soakPlaces    = 50    // in flight
)

type soak struct {
	server    *testserver.Server
	instances [soakInstances]*redis.Backend
	leases    [soakInstances]backend.Backend
	fallbacks [soakInstances]backend.Backend

	calls, allowed, denied, cached, failed, fellBack atomic.Int64
	slowest, inside, together, banned                atomic.Int64

	mu       sync.Mutex
	admitted map[string][]int64 // instants of the server's clock, in µs, by the key of a short limit
	flushes  [][2]int64         // when each began and ended, by the same clock
	bans     [][2]int64         // when a caller was told of a ban, and when that ends, by the same clock
	totals   map[string]*soakCounts
	faults   map[string]int
}

// soakCounts is what a limit of an hour has admitted since the state was lost.
type soakCounts struct{ store, fallback, unsure int64 }

func soakLength(t *testing.T) time.Duration {
	text := os.Getenv("SOAK")
	if text == "" {
		return 3 * time.Second
	}
	d, err := time.ParseDuration(text)
	require.NoError(t, err, "SOAK")
	return d
}

func TestSoak(t *testing.T) {
	length := soakLength(t)
	s := &soak{
		server:   testserver.Redis(t, "--appendonly", "yes", "--appendfsync", "no"),
		admitted: map[string][]int64{}, totals: map[string]*soakCounts{}, faults: map[string]int{},
	}
	goroutines, heap := settled()
	for i := range s.instances {
		b, err := redis.Dial(t.Context(), s.server.URL(), redis.WithPing())
		require.NoError(t, err)
		s.instances[i], s.leases[i] = b, backend.Lease(b, 50)
		s.fallbacks[i] = backend.Fallback(b, memory.New(), backend.WithShare(soakInstances))
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range soakInstances {
		for w := range soakWorkers {
			r := rand.New(rand.NewPCG(uint64(i), uint64(w)))
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					case <-time.After(time.Duration(1+r.IntN(8)) * time.Millisecond):
						s.call(t, r, i, w)
					}
				}
			})
		}
	}
	r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	for end := time.Now().Add(length); time.Now().Before(end); {
		s.fault(t, r)
		time.Sleep(time.Duration(200+r.IntN(1500)) * time.Millisecond)
	}
	close(stop)
	wg.Wait()
	s.judge(t)
	for _, b := range s.instances {
		b.Close()
	}
	var after int
	require.Eventually(t, func() bool { after = runtime.NumGoroutine(); return after <= goroutines+5 }, time.Minute, 20*time.Millisecond)
	calls, admissions := s.calls.Load(), 0
	for _, at := range s.admitted {
		admissions += len(at)
	}
	s.admitted = nil
	_, left := settled()
	assert.Less(t, left, heap+32<<20, "bytes of heap")
	t.Logf("%v, faults %v: %d calls, %d allowed, %d denied (%d of them locally), %d failed, %d decided by a fallback, %d for three keys, %d bans, the slowest took %v; %d windows "+
		"checked; goroutines %d, then %d; heap %d kB, then %d", length, s.faults, calls, s.allowed.Load(), s.denied.Load(), s.cached.Load(), s.failed.Load(),
		s.fellBack.Load(), s.together.Load(), s.banned.Load(), time.Duration(s.slowest.Load()).Round(time.Millisecond), admissions, goroutines, after, heap>>10, left>>10)
}

var soakAlgorithms = []backend.Algorithm{backend.TokenBucket, backend.SlidingWindow, backend.SlidingLog, backend.FixedWindow}

func soakShort(a backend.Algorithm) backend.Limit {
	return backend.Limit{Count: soakCount, Period: soakPeriod, Algorithm: a}
}

var soakHour = backend.Limit{Count: soakTotal, Period: time.Hour, Algorithm: backend.FixedWindow}

var soakFlight = backend.Limit{Count: soakPlaces, Period: 10 * time.Second, Algorithm: backend.Concurrency}

var soakBan = []backend.Limit{soakShort(backend.SlidingLog), hourly(100, backend.FixedWindow).Banning(soakPeriod/2, 2*soakPeriod)}

// call makes one call of a kind that the dice choose.
func (s *soak) call(t *testing.T, r *rand.Rand, i, w int) {
	b, key, limit := backend.Backend(s.instances[i]), "", soakShort(soakAlgorithms[r.IntN(4)])
	kind := r.IntN(100)
	switch {
	case kind < 50: // twice as much as it may have, and more
		key = fmt.Sprint("busy ", limit.Algorithm)
	case kind < 60: // for each worker its own: at most a tenth of what it may have
		key, limit = fmt.Sprint("calm ", i, " ", w), soakShort(soakAlgorithms[w%4])
		limit.Count *= 20
	case kind < 68:
		key, limit, b = "lease", soakHour, s.leases[i]
	case kind < 75:
		key, limit, b = "fallback", soakHour, s.fallbacks[i]
	case kind < 80:
		key, limit = "settled", soakHour
	case kind < 87:
		s.takeAll(t, i)
		return
	case kind < 93:
		s.fly(t, r, i)
		return
	default:
		s.overdo(t, i)
		return
	}
	start := time.Now()
	res, err := b.Take(context.Background(), key, 1, limit)
	took := int64(time.Since(start))
	s.calls.Add(1)
	for old := s.slowest.Load(); took > old && !s.slowest.CompareAndSwap(old, took); old = s.slowest.Load() {
	}
	switch {
	case s.fails(t, err):
		return
	case !res.Allowed:
		s.denied.Add(1)
		if res.Source == backend.SourceDenyCache {
			s.cached.Add(1)
		}
		if 50 <= kind && kind < 60 {
			t.Errorf("%q was refused, which never asks for what it may have: %+v", key, res)
		}
		return
	}
	s.allowed.Add(1)
	if res.Source == backend.SourceFallback {
		s.fellBack.Add(1)
	}
	if limit.Period == soakPeriod {
		s.mu.Lock()
		s.admitted[key] = append(s.admitted[key], res.At.UnixMicro())
		s.mu.Unlock()
		return
	}
	s.count(key, func(c *soakCounts) {
		if res.Source == backend.SourceFallback {
			c.fallback++
		} else {
			c.store++
		}
	})
	if key == "settled" && r.IntN(2) == 0 {
		actual := r.Int64N(4)
		err := b.Settle(context.Background(), key, res, 1, actual, limit)
		s.count(key, func(c *soakCounts) {
			if err != nil {
				c.unsure += 3
			} else {
				c.store += actual - 1
			}
		})
	}
}

// fails reports whether a call failed, which a store may and its answer may not.
func (s *soak) fails(t *testing.T, err error) bool {
	if err == nil {
		return false
	}
	assert.ErrorIs(t, err, backend.ErrUnavailable)
	assert.NotErrorIs(t, err, redis.ErrScript)
	assert.NotErrorIs(t, err, redis.ErrForeign)
	s.failed.Add(1)
	return true
}

// soakTogether is charged together: the first is the tightest.
var soakTogether = []backend.Charge{
	{Key: "together, tight", Cost: 1, Limits: []backend.Limit{soakShort(backend.SlidingLog)}},
	{Key: "together, wide", Cost: 1, Limits: []backend.Limit{{Count: 2 * soakCount, Period: soakPeriod, Algorithm: backend.FixedWindow}}},
	{Key: "together, hour", Cost: 1, Limits: []backend.Limit{soakHour.WithAlgorithm(backend.TokenBucket)}},
}

// takeAll makes one call for several keys.
func (s *soak) takeAll(t *testing.T, i int) {
	all, err := s.instances[i].TakeAll(context.Background(), soakTogether...)
	s.calls.Add(1)
	if s.fails(t, err) || !all[0].Allowed || !all[1].Allowed || !all[2].Allowed {
		return
	}
	s.together.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.admitted[soakTogether[0].Key] = append(s.admitted[soakTogether[0].Key], all[0].At.UnixMicro())
}

// fly holds a place for a while.
func (s *soak) fly(t *testing.T, r *rand.Rand, i int) {
	b := s.instances[i]
	res, err := b.Take(context.Background(), "places", 1, soakFlight)
	s.calls.Add(1)
	if s.fails(t, err) || !res.Allowed {
		return
	}
	if n := s.inside.Add(1); n > soakPlaces {
		s.mu.Lock()
		lost := s.flushed(res.At.Add(-soakFlight.Period).UnixMicro(), s.time(t))
		s.mu.Unlock()
		assert.True(t, lost, "%d are inside at once", n)
	}
	time.Sleep(time.Duration(r.IntN(20)) * time.Millisecond)
	s.inside.Add(-1)
	if err := b.Settle(context.Background(), "places", res, 1, 1, soakFlight); err != nil {
		assert.ErrorIs(t, err, backend.ErrUnavailable)
	}
}

// overdo asks for more than is allowed until it is banned, and on.
func (s *soak) overdo(t *testing.T, i int) {
	res, err := s.instances[i].Take(context.Background(), "banned", 1, soakBan...)
	s.calls.Add(1)
	if s.fails(t, err) || res.Source != backend.SourceStore {
		return
	}
	at := res.At.UnixMicro()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case res.Allowed:
		s.admitted["banned"] = append(s.admitted["banned"], at)
	case res.Banned():
		if res.BanBegan() {
			s.banned.Add(1)
		}
		assert.LessOrEqual(t, res.RetryAfter, 2*soakPeriod)
		s.bans = append(s.bans, [2]int64{at, at + res.RetryAfter.Microseconds()})
	}
}

func (s *soak) count(key string, change func(*soakCounts)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.totals[key] == nil {
		s.totals[key] = &soakCounts{}
	}
	change(s.totals[key])
}

// fault breaks something and mends it.
func (s *soak) fault(t *testing.T, r *rand.Rand) {
	do := func(args ...string) {
		_, err := s.server.Do(args...)
		assert.NoError(t, err, args)
	}
	while := func() { time.Sleep(time.Duration(r.IntN(1500)) * time.Millisecond) }
	names := []string{"SIGSTOP", "short SIGSTOP", "kill -9", "SCRIPT FLUSH", "FLUSHALL", "OOM", "READONLY", "CLIENT KILL", "busy"}
	name := names[r.IntN(len(names))]
	s.faults[name]++
	switch name {
	case "SIGSTOP":
		s.server.Pause()
		while()
		s.server.Resume()
	case "short SIGSTOP":
		s.server.Pause()
		time.Sleep(time.Duration(r.IntN(120)) * time.Millisecond)
		s.server.Resume()
	case "kill -9":
		s.server.Kill()
		while()
		require.NoError(t, s.server.Restart())
	case "SCRIPT FLUSH":
		do("SCRIPT", "FLUSH")
	case "FLUSHALL":
		// The totals of an hour are judged and begin anew. What was admitted just before and told
		// just after, or leased, counts for the new time: some calls of each worker, and a lease of
		// each instance.
		began := s.time(t)
		do("FLUSHALL")
		s.mu.Lock()
		s.flushes = append(s.flushes, [2]int64{began, s.time(t)})
		s.checkTotals(t)
		clear(s.totals)
		s.mu.Unlock()
	case "OOM":
		do("CONFIG", "SET", "maxmemory", "1")
		while()
		do("CONFIG", "SET", "maxmemory", "0")
	case "READONLY":
		do("REPLICAOF", "127.0.0.1", "1")
		while()
		do("REPLICAOF", "NO", "ONE")
	case "CLIENT KILL":
		do("CLIENT", "KILL", "TYPE", "normal")
	case "busy":
		// A command that keeps the server busy for some ms.
		do("EVAL", "local n = 0 for i = 1, 3000000 do n = n + i end return 1", "0")
	}
}

// time returns the server's clock, in µs.
func (s *soak) time(t *testing.T) int64 {
	reply, err := s.server.Do("TIME")
	require.NoError(t, err)
	parts := reply.([]any)
	sec, err1 := strconv.ParseInt(parts[0].(string), 10, 64)
	usec, err2 := strconv.ParseInt(parts[1].(string), 10, 64)
	require.NoError(t, errors.Join(err1, err2))
	return sec*1_000_000 + usec
}

// checkTotals holds what the limits of an hour have admitted since the last loss of state to them.
func (s *soak) checkTotals(t *testing.T) {
	const atTheFlush = soakInstances * (soakWorkers + 50)
	for key, c := range s.totals {
		assert.LessOrEqual(t, c.store, int64(soakTotal+atTheFlush)+c.unsure, "%q: admitted", key)
		assert.LessOrEqual(t, c.fallback, int64(soakTotal), "%q: admitted by fallbacks", key)
	}
}

func (s *soak) judge(t *testing.T) {
	s.checkTotals(t)
	// The most that the algorithm admits in any period.
	most := map[string]int{
		"busy " + fmt.Sprint(backend.TokenBucket):   2 * soakCount,
		"busy " + fmt.Sprint(backend.SlidingWindow): 2 * soakCount,
		"busy " + fmt.Sprint(backend.SlidingLog):    soakCount,
		"busy " + fmt.Sprint(backend.FixedWindow):   2 * soakCount,
		soakTogether[0].Key:                         soakCount,
		"banned":                                    soakCount,
	}
	for key, limit := range most {
		at := s.admitted[key]
		assert.NotEmpty(t, at, key)
		slices.Sort(at)
		first := 0
		for last, end := range at {
			for at[first] <= end-soakPeriod.Microseconds() {
				first++
			}
			if n := last - first + 1; n > limit && !s.flushed(at[first], end) {
				t.Errorf("%q: %d admitted in a period, want at most %d", key, n, limit)
			}
		}
	}
	// Between the moment at which a caller is told of a ban, and its end, nobody is admitted.
	slices.SortFunc(s.bans, func(a, b [2]int64) int { return cmp.Compare(a[0], b[0]) })
	for _, ban := range s.bans {
		first, _ := slices.BinarySearch(s.admitted["banned"], ban[0])
		if at := s.admitted["banned"][first:]; len(at) > 0 && at[0] < ban[1] && !s.flushed(ban[0], at[0]) {
			t.Errorf("a call was admitted %d µs before a ban ended", ban[1]-at[0])
		}
	}
	require.Eventually(t, func() bool {
		usage, err := s.instances[0].Usage(context.Background(), "places", soakFlight)
		return err == nil && usage[0].Used() == 0
	}, time.Minute, 100*time.Millisecond, "places that nobody holds")
	time.Sleep(2*soakPeriod + 100*time.Millisecond) // then everything has recovered
	for _, a := range soakAlgorithms {
		for n := range soakCount {
			require.Eventually(t, func() bool {
				res, err := s.instances[n%soakInstances].Take(context.Background(), fmt.Sprint("busy ", a), 1, soakShort(a))
				if err == nil && !res.Allowed {
					t.Fatalf("%v: unit %d of %d was refused after all had recovered: %+v", a, n+1, soakCount, res)
				}
				return err == nil
			}, time.Minute, 10*time.Millisecond)
		}
	}
}

// flushed reports whether the state was lost between two instants of the server's clock.
func (s *soak) flushed(from, to int64) bool {
	return slices.ContainsFunc(s.flushes, func(f [2]int64) bool { return f[1] >= from && f[0] <= to })
}
