package redis_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/memory"
	"github.com/ginlimit/ginlimit/backend/redis"
	"github.com/ginlimit/ginlimit/internal/testserver"
)

// step is one call, when it was made, and what package memory answered.
type step struct {
	at     time.Time
	op     string // "Take", "Settle" or "Reset"
	cost   int64
	limits []backend.Limit
	charge int   // Settle: the step that charged
	actual int64 // Settle: what it really was
	want   backend.Result
}

func (s step) String() string {
	return fmt.Sprintf("%v %s(cost %d, charge of step %d, actual %d, %v): %+v", s.at.UnixMicro(), s.op, s.cost, s.charge, s.actual, s.limits, s.want)
}

// awkward are rates that do not divide, or are at the end of what a limit can be.
var awkward = []backend.Limit{
	{Count: 7, Period: time.Second},
	{Count: 3, Period: 7 * time.Millisecond},
	{Count: 1, Period: time.Millisecond},
	{Count: 999, Period: time.Millisecond},
	{Count: 1_000_003, Period: 999_983 * time.Microsecond},
	{Count: 1_000_000_000, Period: 24 * time.Hour},
	{Count: 100, Period: time.Minute},
	{Count: 2, Period: backend.MaxPeriod},
	{Count: 86_399_999_999, Period: 24*time.Hour - time.Microsecond},
	{Count: backend.MaxCount, Period: backend.MaxPeriod},
	{Count: backend.MaxCount, Period: backend.MinPeriod},
	{Count: 99_999_999_999_999, Period: time.Hour}, // the largest number that Lua's ".." writes
	{Count: 100_000_000_000_000, Period: time.Hour},
	{Count: 2, Period: 30 * time.Minute, Burst: 1},
	{Count: 1, Period: 365 * 24 * time.Hour, Burst: 100}, // the longest refill: times of 16 digits
}

// schedule makes random steps on one key.
type schedule struct {
	*rand.Rand
	steps  []step
	limits []backend.Limit
	before [][]backend.Limit // lists that were there before: a version that is still running
	last   backend.Result
}

func (s *schedule) limit(near backend.Limit) backend.Limit {
	l := near
	switch s.IntN(6) {
	case 0:
		l = awkward[s.IntN(len(awkward))]
	case 1:
		l.Count = max(1, min(backend.MaxCount, l.Count/100*s.Int64N(200)+s.Int64N(l.Count)))
	case 2:
		l.Period = time.Duration(1000+s.Int64N(min(3*l.Period.Microseconds(), backend.MaxPeriod.Microseconds())-1000)) * time.Microsecond
	case 3:
		l.Algorithm = backend.Algorithm(s.IntN(4))
	case 4:
		l.Burst = 1 + s.Int64N(2*min(l.Count, backend.MaxCount/2))
	}
	if s.IntN(30) == 0 {
		return []backend.Limit{backend.Unlimited(), {Period: time.Second}}[s.IntN(2)]
	}
	if l.Algorithm != backend.TokenBucket || l.Validate() != nil { // such as a bucket that takes 100 years to fill
		l.Burst = 0
	}
	return l
}

func (s *schedule) newLimits() {
	s.limits = nil
	base := awkward[s.IntN(len(awkward))]
	for i := range 1 + s.IntN(4) {
		l := s.limit(base)
		if l.Count > 0 && !l.IsUnlimited() {
			l.Algorithm = backend.Algorithm(s.IntN(4))
		}
		if l.Algorithm != backend.TokenBucket {
			l.Burst = 0
		}
		s.limits = append(s.limits, l.Named(fmt.Sprint("limit ", i)))
	}
}

// change makes another version of the limits, or goes back to one.
func (s *schedule) change() {
	s.before = append(s.before, s.limits)
	s.limits = slices.Clone(s.limits)
	i := s.IntN(len(s.limits))
	l := s.limits[i]
	if l.Count == 0 || l.IsUnlimited() {
		l = awkward[s.IntN(len(awkward))]
	}
	switch s.IntN(8) {
	case 0:
		s.limits = slices.Clone(s.before[s.IntN(len(s.before))])
	case 1:
		s.limits = slices.Insert(s.limits, i, s.limit(l))
	case 2:
		s.limits = slices.Insert(s.limits, i, s.limits[s.IntN(len(s.limits))])
	case 3:
		if len(s.limits) > 1 {
			s.limits = slices.Delete(s.limits, i, i+1)
		}
	case 4:
		s.Shuffle(len(s.limits), func(i, j int) { s.limits[i], s.limits[j] = s.limits[j], s.limits[i] })
	default:
		s.limits[i] = s.limit(backend.Limit{Count: min(l.Count, 1000), Period: l.Period, Algorithm: l.Algorithm})
	}
	s.limits = s.limits[:min(len(s.limits), 12)]
	for i := range s.limits {
		s.limits[i].Name = fmt.Sprint("limit ", i)
	}
}

// wait sleeps, more often than not until something is about to happen.
func (s *schedule) wait() {
	period := s.limits[s.IntN(len(s.limits))].Period
	d := []time.Duration{
		0, time.Microsecond, s.last.RetryAfter, s.last.RetryAfter, s.last.ResetAfter, period, 2 * period,
		time.Duration(s.Int64N(int64(period))), time.Duration(s.Int64N(int64(period))) / 10,
	}[s.IntN(9)]
	d = max(0, d.Truncate(time.Microsecond)+time.Duration(s.IntN(3)-1)*time.Microsecond)
	if time.Now().Add(d).Year() < 2150 { // until then a double is exact
		time.Sleep(d)
	}
}

func (s *schedule) cost() int64 {
	capacity := s.limits[s.IntN(len(s.limits))].Capacity()
	if capacity == math.MaxInt64 || capacity == 0 {
		capacity = 5
	}
	return []int64{1, 1, 2, capacity, capacity + 1, capacity/3 + 1, 1 + s.Int64N(capacity), s.last.Remaining, s.last.Remaining/2 + 1}[s.IntN(9)]
}

// next makes one step.
func (s *schedule) next(t *testing.T, b backend.Backend) {
	ctx := context.Background()
	n := s.IntN(100)
	if n < 70 {
		s.wait()
	}
	if n%10 == 0 {
		s.change()
	}
	st := step{at: time.Now(), op: "Take", limits: s.limits, charge: -1}
	var err error
	switch kind := s.IntN(100); {
	case kind < 2:
		st.op = "Reset"
		err = b.Reset(ctx, "key")
	case kind < 20 && len(s.steps) > 0:
		st.charge = max(0, len(s.steps)-1-s.IntN(6))
		charged := s.steps[st.charge]
		st.op, st.cost, st.limits = "Settle", charged.cost, charged.limits
		more := math.MaxInt64 - st.cost // at most
		st.actual = []int64{0, st.cost / 2, st.cost + min(more, 1), st.cost + min(more, s.cost())}[s.IntN(4)]
		err = b.Settle(ctx, "key", charged.want, st.cost, st.actual, st.limits...)
	case kind < 30:
		st.want, err = b.Take(ctx, "key", 0, st.limits...)
	default:
		st.cost = s.cost()
		if s.last.Limit.IsUnlimited() {
			st.cost = min(st.cost, 1000)
		}
		st.want, err = b.Take(ctx, "key", st.cost, st.limits...)
	}
	require.NoError(t, err, "%v", st)
	if st.op == "Take" {
		s.last = st.want
	}
	s.steps = append(s.steps, st)
}

// record runs the schedule of a seed against package memory.
func record(t *testing.T, seed uint64, steps int) (recorded []step) {
	synctest.Test(t, func(t *testing.T) {
		s := &schedule{Rand: rand.New(rand.NewPCG(seed, 0))}
		s.newLimits()
		b := memory.New()
		for range steps {
			s.next(t, b)
		}
		recorded = s.steps
	})
	return recorded
}

// replay runs recorded steps on Redis and expects the same answers, to the microsecond.
func replay(t *testing.T, client rueidis.Client, seed uint64, steps []step) {
	ctx := context.Background()
	b := redis.New(client, redis.WithPrefix(prefix()), redis.WithDenyCache(false), redis.WithTimeout(ample))
	clock := newSettable()
	redis.SetClock(b, clock.micros.Load)
	got := make([]backend.Result, len(steps))
	for i, st := range steps {
		clock.micros.Store(st.at.UnixMicro())
		var err error
		switch st.op {
		case "Reset":
			err = b.Reset(ctx, "key")
		case "Settle":
			err = b.Settle(ctx, "key", got[st.charge], st.cost, st.actual, st.limits...)
		default:
			got[i], err = b.Take(ctx, "key", st.cost, st.limits...)
			if err == nil {
				require.Equal(t, st.want.At.UnixMicro(), got[i].At.UnixMicro())
				got[i].At, st.want.At = time.UnixMicro(got[i].At.UnixMicro()), time.UnixMicro(got[i].At.UnixMicro())
			}
		}
		if err != nil || got[i] != st.want {
			for _, before := range steps[max(0, i-10):i] {
				t.Log(before)
			}
			require.FailNow(t, "package memory answered otherwise", "seed %d, step %d\n     %v\ngot %+v, %v", seed, i, st, got[i], err)
		}
	}
}

// The backends in memory and on Redis are one: whatever happens to a key, they give the same
// answers.
func TestMemoryAndRedisAgree(t *testing.T) {
	t.Parallel()
	schedules := 300
	if testing.Short() {
		schedules = 60
	}
	const stepsEach, lanes = 100, 2
	first := rand.Uint64()
	server := newClient(t, testserver.Redis(t).Addr(), false)
	mini := newClient(t, miniredis.RunT(t).Addr(), false)
	for lane := range lanes {
		t.Run(fmt.Sprint(lane), func(t *testing.T) {
			t.Parallel()
			allowed := 0
			for i := lane; i < schedules; i += lanes {
				seed := first + uint64(i)
				steps := record(t, seed, stepsEach)
				replay(t, server, seed, steps)
				if i/lanes%10 == 0 {
					replay(t, mini, seed, steps)
				}
				for _, st := range steps {
					if st.want.Allowed {
						allowed++
					}
				}
			}
			require.InDelta(t, 0.5, float64(allowed)/float64(schedules/lanes*stepsEach), 0.35, "the schedules are one-sided")
		})
	}
}
