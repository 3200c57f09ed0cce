package replay

import (
	"container/heap"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/memory"
	"github.com/ginlimit/ginlimit/cmd/ginlimit/internal/accesslog"
)

// lasting is a line of a request that took so many seconds.
func lasting(s float64, key string, seconds float64) string {
	return strings.TrimSuffix(at(s, key), "}") + fmt.Sprintf(`,"duration":%v}`, seconds)
}

// A place is held from the beginning of a request to its end, and by those that were admitted
// alone.
func TestInFlight(t *testing.T) {
	lines := []string{
		lasting(0, "alice", 10),   // until 10
		lasting(1, "alice", 2),    // until 3
		lasting(2, "alice", 100),  // refused: it holds nothing
		lasting(2, "bob", 1),      // another caller
		lasting(3, "alice", 3),    // at the very end of the second: until 6
		lasting(5, "alice", 1),    // refused
		lasting(6, "alice", 0),    // over at once
		lasting(6, "alice", 1),    // until 7
		lasting(6.5, "alice", 1),  // refused
		lasting(8, "alice", 300),  // until 308
		lasting(120, "alice", 90), // until 210
		lasting(150, "alice", 1),  // refused: the first has lasted longer than a place is held for a process that died
		lasting(210, "alice", 1),  // until 211
		at(400, "alice"),          // nobody knows
		lasting(400, "alice", 1),
		lasting(400, "alice", 1),
		lasting(400, "alice", 1), // refused
	}
	c := Config{Limits: []backend.Limit{backend.InFlight(2)}, Versus: []backend.Limit{backend.InFlight(1), {Count: 100, Period: time.Hour}}}
	got, r := verdicts(t, c, logOf(t, "a", lines...))
	want := []string{
		"12:00:00.000000 alice yes", "12:00:01.000000 alice yes", "12:00:02.000000 alice no, 1s", "12:00:02.000000 bob yes",
		"12:00:03.000000 alice yes", "12:00:05.000000 alice no, 1s", "12:00:06.000000 alice yes", "12:00:06.000000 alice yes",
		"12:00:06.500000 alice no, 1s", "12:00:08.000000 alice yes", "12:02:00.000000 alice yes", "12:02:30.000000 alice no, 1s",
		"12:03:30.000000 alice yes", "12:06:40.000000 alice yes", "12:06:40.000000 alice yes", "12:06:40.000000 alice yes",
		"12:06:40.000000 alice no, 1s",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if r.NoDuration != 1 || !r.Rates.AtOnce || r.Rates.Period != 0 {
		t.Errorf("got %d, %+v", r.NoDuration, r.Rates)
	}
	// Four went on at once at 6.5 s, one of which was refused at 2 s: those of 0, 2, 6 and 6.5 s.
	if top := r.Limits.Top[0]; top.Peak != 4 || top.Refused != 5 || r.Limits.Limits[0].Limit != "2 in flight" {
		t.Errorf("got %+v", r.Limits)
	}
	if !slices.Equal(r.Smallest.Limits, []string{"4 in flight"}) || r.Smallest.Refused != 0 {
		t.Errorf("got %+v", r.Smallest)
	}
	// One at a time are those of 0, 120, 210 and twice of 400 s. Alice has 11 more.
	if r.Versus.Refused != 11 || r.Versus.Limits[0].Refused != 11 || r.Versus.Limits[1].Refused != 0 {
		t.Errorf("got %+v", r.Versus)
	}
}

// A request that is moved to the time that the log has reached still ends when it did.
func TestInFlightLate(t *testing.T) {
	c := Config{Limits: []backend.Limit{backend.InFlight(1)}, Window: time.Second}
	got, r := verdicts(t, c, logOf(t, "a", lasting(0, "x", 0), lasting(10, "x", 0), lasting(20, "x", 0),
		lasting(1, "alice", 12), // moved to 10, until 13
		lasting(21, "x", 0), lasting(22, "alice", 0)))
	if r.Late != 1 || got[2] != "12:00:10.000000 alice yes" || r.Limits.Refused != 0 {
		t.Errorf("got %v, %+v", got, r)
	}
}

func TestInFlightNeedsDurations(t *testing.T) {
	c := Config{Limits: []backend.Limit{backend.InFlight(1)}, By: byKey(t)}
	_, err := Run(context.Background(), c, []*accesslog.Reader{logOf(t, "a", at(0, "alice"), at(1, "alice"))})
	if want := "ginlimit: a limit in flight needs how long requests took, which none of 2 requests says"; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v", err)
	}
	c.Limits = []backend.Limit{backend.Unlimited()} // needs none
	if _, err := Run(context.Background(), c, []*accesslog.Reader{logOf(t, "a", at(0, "alice"))}); err != nil {
		t.Error(err)
	}
}

// A replay decides as package memory does, to which each request is settled at its end: places in
// flight alone, and together with limits of other kinds.
func TestRandomFlights(t *testing.T) {
	rounds := 200
	if testing.Short() {
		rounds = 40
	}
	refused := 0
	for seed := range rounds {
		rng := rand.New(rand.NewPCG(uint64(seed), 44))
		limits := []backend.Limit{backend.InFlight(1 + rng.Int64N(5))}
		if rng.IntN(2) == 0 {
			limits = append(limits, randomLimits(rng)...)
		}
		var lines, want []string
		synctest.Test(t, func(t *testing.T) {
			b := memory.New()
			ctx := context.Background()
			type open struct {
				flight
				key string
				res backend.Result
			}
			opened := map[int64]open{} // by end, which is unique
			var ends flights
			for range 300 {
				begin := time.Now().Add(time.Duration(rng.Int64N(200_000)) * 10 * time.Microsecond)
				for f, ok := ends.over(begin.UnixMicro()); ok; f, ok = ends.over(begin.UnixMicro()) {
					time.Sleep(time.Until(time.UnixMicro(f.end)))
					o := opened[f.end]
					if err := b.Settle(ctx, o.key, o.res, f.cost, f.cost, limits...); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(time.Until(begin))
				r := request{at: begin, key: fmt.Sprint("user:", rng.IntN(3)), cost: 1}
				if rng.IntN(4) == 0 {
					r.cost = rng.Int64N(4)
				}
				took := time.Duration(rng.Int64N(500_000))*10*time.Microsecond + 5*time.Microsecond
				for opened[begin.Add(took).UnixMicro()].key != "" {
					took += 10 * time.Microsecond
				}
				res, err := b.Take(ctx, r.key, r.cost, limits...)
				if err != nil {
					t.Fatal(err)
				}
				if res.Allowed {
					f := flight{end: begin.Add(took).UnixMicro(), cost: r.cost}
					opened[f.end] = open{f, r.key, res}
					heap.Push(&ends, f)
				} else {
					refused++
				}
				lines = append(lines, strings.TrimSuffix(r.String(), "}")+fmt.Sprintf(`,"duration":%q}`, took))
				want = append(want, verdict(r.at, r.key, res.Allowed, res.RetryAfter))
			}
		})
		got, _ := verdicts(t, Config{Limits: limits}, logOf(t, "a", lines...))
		if !slices.Equal(got, want) {
			t.Fatalf("seed %d, %v: got\n%s\nwant\n%s", seed, limits, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	if refused < 10*rounds {
		t.Errorf("only %d refusals: this tests nothing", refused)
	}
}
