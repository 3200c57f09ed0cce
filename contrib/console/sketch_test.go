package console

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/ginlimit/ginlimit"
)

func decision(limiter, key string, allowed bool) ginlimit.Decision {
	limit := ginlimit.PerMinute(100).Named(limiter)
	d := ginlimit.Decision{Limiter: limiter, Key: key, Cost: 1, Limits: []ginlimit.Limit{limit}}
	d.Allowed, d.Limit, d.Remaining, d.RetryAfter = allowed, limit, 50, time.Second
	return d
}

// TestSketch holds Space-Saving to what its authors prove, on streams of every skew, beside an exact
// counter: no count is too low, none is too high by more than the count of all divided by the
// places, what may be too much is told, and a caller with a larger share is there.
func TestSketch(t *testing.T) {
	random := rand.New(rand.NewPCG(2005, 1))
	for _, skew := range []float64{1.01, 1.2, 1.5, 2, 3} {
		for round := range 20 {
			zipf := rand.NewZipf(random, skew, 1, uint64(10+random.IntN(5000)))
			var s sketch
			exact := map[uint64]uint32{}
			n := uint32(1 + random.IntN(20_000))
			for range n {
				hash := zipf.Uint64() * 0x9E3779B97F4A7C15
				exact[hash]++
				s.add(hash, fmt.Sprint(hash))
			}
			bound := n / width
			for i := range s.n {
				hash, count, over := s.hashes[i], s.counts[i], s.callers[i].over
				if s.callers[i].key.String() != fmt.Sprint(hash) {
					t.Fatalf("skew %v, round %d: %d has the key %s", skew, round, hash, s.callers[i].key.String())
				}
				if count < exact[hash] || count-over > exact[hash] || over > bound {
					t.Fatalf("skew %v, round %d: %d is counted %d, of which %d may be too much; it is %d of %d", skew, round, hash, count, over, exact[hash], n)
				}
			}
			for hash, count := range exact {
				if count > bound && !slices.Contains(s.hashes[:s.n], hash) {
					t.Fatalf("skew %v, round %d: %d of %d are not there", skew, round, count, n)
				}
			}
		}
	}
}

// TestTop shows the first ten of a skewed stream of 20,000 callers, in their order, below their true
// rates and not by more than a twentieth.
func TestTop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(nil, WithKeys(true))
		random := rand.New(rand.NewPCG(2005, 2))
		zipf := rand.NewZipf(random, 1.4, 1, 20_000)
		exact := map[string]int{}
		for range 200_000 {
			key := fmt.Sprint("ip:", zipf.Uint64())
			exact[key]++
			c.Observe(context.Background(), decision("api", key, false))
		}
		time.Sleep(time.Second)
		s, _ := c.state(-1)
		want := slices.SortedFunc(maps.Keys(exact), func(a, b string) int { return cmp.Compare(exact[b], exact[a]) })
		if len(s.Refused) != topRows || len(s.Admitted) != 0 {
			t.Fatalf("%d refused, %d admitted", len(s.Refused), len(s.Admitted))
		}
		for i, row := range s.Refused {
			n := float64(exact[want[i]])
			if row.Key != want[i] || row.Rate > n || row.Rate < 0.95*n {
				t.Errorf("place %d: %s with %v, want %s with %v", i+1, row.Key, row.Rate, want[i], n)
			}
		}
	})
}

// TestNow forgets what was half a minute ago, also if nothing comes in between.
func TestNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(nil, WithKeys(true))
		for _, step := range []struct {
			wait time.Duration
			key  string
			want string
		}{
			{0, "a", "a"},
			{windowTime - time.Millisecond, "b", "a b"},
			{time.Millisecond, "", "a b"},
			{windowTime, "c", "c"},                   // what was seen in the stretch before is over
			{windowTime - time.Millisecond, "", "c"}, // nobody came
			{time.Millisecond, "d", "c d"},           // two sketches
			{100 * windowTime, "", ""},               // nobody came for long
			{0, "e", "e"},
			{3 * windowTime, "f", "f"},
		} {
			time.Sleep(step.wait)
			if step.key != "" {
				c.Observe(context.Background(), decision("api", step.key, false))
			}
			s, _ := c.state(-1)
			var keys []string
			for _, row := range s.Refused {
				keys = append(keys, row.Key)
			}
			slices.Sort(keys)
			if got := strings.Join(keys, " "); got != step.want {
				t.Errorf("after %v and %q: %q, want %q", step.wait, step.key, got, step.want)
			}
		}
	})
}

// TestBytes holds the memory to what the README says.
func TestBytes(t *testing.T) {
	if n := unsafe.Sizeof(Console{}); n > 1_150_000 {
		t.Errorf("a Console takes %d bytes", n)
	}
	if n := unsafe.Sizeof(limiter{}); n > 75_000 {
		t.Errorf("a limiter takes %d bytes", n)
	}
}

func BenchmarkState(b *testing.B) {
	c := New(nil, WithKeys(true))
	for i := range 100_000 {
		c.Observe(context.Background(), decision(fmt.Sprint("limiter ", i%5), fmt.Sprint("ip:", i%7919), i%2 > 0))
	}
	for b.Loop() {
		c.state(-1)
	}
}

// TestCounts counts every decision once, from 64 goroutines.
func TestCounts(t *testing.T) {
	c := New(nil)
	var wg sync.WaitGroup
	for g := range 64 {
		wg.Go(func() {
			for i := range 500 {
				c.Observe(context.Background(), decision(fmt.Sprint("limiter ", g%3), fmt.Sprint("key ", i), i%5 > 0))
			}
		})
	}
	wg.Wait()
	s, _ := c.state(-1)
	var allowed, denied uint64
	for _, l := range s.Limiters {
		allowed, denied = allowed+l.Totals["allowed"], denied+l.Totals["denied"]
	}
	if len(s.Limiters) != 3 || allowed != 64*400 || denied != 64*100 {
		t.Errorf("%d limiters, %d allowed, %d denied", len(s.Limiters), allowed, denied)
	}
}

// TestSeconds has every second once, in the order in which they passed, for as long as there is
// room, however seldom a page asks.
func TestSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(nil)
		since := int32(-1)
		var seen [][numGroups]int64
		for sec := range 300 {
			for range sec {
				c.Observe(context.Background(), decision("api", "a", true))
			}
			c.Observe(context.Background(), decision("api", "a", false))
			c.Observe(context.Background(), ginlimit.Decision{Limiter: "api", Err: ginlimit.ErrNoKey})
			time.Sleep(time.Second)
			if sec%7 == 0 {
				var s state
				s, since = c.state(since)
				if first := s.First - c.started.Unix(); first != int64(len(seen)) {
					t.Fatalf("the first is second %d, want %d", first, len(seen))
				}
				seen = append(seen, s.Limiters[0].Seconds...)
			}
		}
		for sec, got := range seen {
			if want := [numGroups]int64{int64(sec), 1, 1}; got != want {
				t.Errorf("second %d: %v, want %v", sec, got, want)
			}
		}
		s, _ := c.state(-1 - history)
		if n := len(s.Limiters[0].Seconds); n != history-2 || s.Limiters[0].Seconds[n-1][groupAdmitted] != 299 {
			t.Errorf("a new page gets %d seconds, the last %v", n, s.Limiters[0].Seconds[n-1])
		}
	})
}

// TestBounds floods the Console with limiters, tiers, keys and bans.
func TestBounds(t *testing.T) {
	c := New(nil)
	for i := range 20_000 {
		d := decision(fmt.Sprint("limiter ", i%1000), strings.Repeat("k", i%200)+fmt.Sprint(i), false)
		d.Tier = fmt.Sprint("tier ", i)
		d.Result, d.Banned = d.WithBanned(true), true
		d.RetryAfter = time.Hour
		c.Observe(context.Background(), d)
	}
	s, _ := c.state(-1)
	if len(c.limiters.all()) > maxLimiter || len(c.sources.all()) > maxSources || len(s.Bans) != maxBans {
		t.Errorf("%d limiters, %d sources, %d bans", len(c.limiters.all()), len(c.sources.all()), len(s.Bans))
	}
	var sum uint64
	for _, l := range s.Limiters {
		sum += l.Totals["banned"]
	}
	if sum != 20_000 {
		t.Errorf("%d decisions are counted", sum)
	}
	for range 3 {
		for i := range 2 * maxShown {
			c.shown.remember(fmt.Sprint(i), known{key: "k"})
		}
	}
	if n := len(c.shown.young) + len(c.shown.aged); n > 2*maxShown {
		t.Errorf("%d callers are remembered for a page", n)
	}
}
