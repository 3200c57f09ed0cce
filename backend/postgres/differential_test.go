package postgres_test

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/memory"
	"github.com/ginlimit/ginlimit/backend/postgres"
)

// step is one call on one key, when it was made, and what package memory answered.
type step struct {
	at     time.Time
	charge int // that step's charge is settled, or -1
	actual int64
	renew  bool // and not settled
	ban    time.Duration
	reset  bool
	cost   int64
	limits []backend.Limit
	want   backend.Result
}

// counted returns l counted by an algorithm.
func counted(r *rand.Rand, l backend.Limit, a backend.Algorithm) backend.Limit {
	l.Algorithm, l.Burst, l.Calendar = a, 0, backend.Calendar{}
	if a == backend.CalendarWindow {
		like := []func(int64) backend.Limit{backend.PerCalendarDay, backend.PerCalendarWeek, backend.PerCalendarMonth}[r.IntN(3)](1)
		l.Period, l.Calendar = 0, like.In([]string{"", "Europe/Berlin", "America/New_York", "Asia/Kathmandu"}[r.IntN(4)]).Calendar
	} else if l.Period == 0 {
		l.Period = time.Hour
	}
	return l
}

// extremes are rates that do not divide, or are at the end of what a limit can be.
var extremes = []backend.Limit{
	{Count: 7, Period: time.Second},
	{Count: 3, Period: 7 * time.Millisecond},
	{Count: 999, Period: time.Millisecond},
	{Count: 1_000_003, Period: 999_983 * time.Microsecond},
	{Count: 100, Period: time.Minute},
	{Count: 2, Period: backend.MaxPeriod},
	{Count: 86_399_999_999, Period: 24*time.Hour - time.Microsecond},
	{Count: backend.MaxCount, Period: backend.MaxPeriod},
	{Count: backend.MaxCount, Period: backend.MinPeriod},
}

func randomLimit(r *rand.Rand) backend.Limit {
	l := counted(r, extremes[r.IntN(len(extremes))], backend.Algorithm(r.IntN(6)))
	if r.IntN(3) == 0 {
		l.Count = 1 + r.Int64N(l.Count)
	}
	if l.Algorithm == backend.TokenBucket && r.IntN(3) == 0 {
		l.Burst = 1 + r.Int64N(2*min(l.Count, backend.MaxCount/2))
	}
	if l.Validate() != nil { // such as a bucket that takes 100 years to fill
		l.Burst = 0
	}
	switch r.IntN(40) {
	case 0:
		return backend.Unlimited()
	case 1:
		return backend.Limit{Period: time.Second}
	}
	return l
}

// otherVersion returns limits of which one changed, came, went or stands elsewhere.
func otherVersion(r *rand.Rand, limits []backend.Limit) []backend.Limit {
	limits = slices.Clone(limits)
	l := &limits[r.IntN(len(limits))]
	switch r.IntN(7) {
	case 0:
		*l = randomLimit(r)
	case 1: // a larger or a smaller plan
		if !l.IsUnlimited() {
			l.Count = 1 + r.Int64N(2*min(l.Count, backend.MaxCount/2)+1)
		}
	case 2:
		if !l.IsUnlimited() {
			*l = counted(r, *l, backend.Algorithm(r.IntN(6)))
		}
	case 3:
		limits = slices.Insert(limits, r.IntN(len(limits)+1), randomLimit(r))
	case 4:
		if len(limits) > 1 {
			limits = slices.Delete(limits, 0, 1)
		}
	case 5:
		r.Shuffle(len(limits), func(i, j int) { limits[i], limits[j] = limits[j], limits[i] })
	case 6:
		if l.Algorithm == backend.TokenBucket && l.Count > 0 && !l.IsUnlimited() {
			l.Burst = 1 + r.Int64N(2*min(l.Count, backend.MaxCount/2))
		}
	}
	for i := range limits {
		if limits[i].Validate() != nil {
			limits[i].Burst = 0
		}
	}
	return limits
}

// record makes random calls on package memory.
func record(t *testing.T, seed uint64) (steps []step) {
	ctx := context.Background()
	r := rand.New(rand.NewPCG(seed, 0))
	limits := make([]backend.Limit, 1+r.IntN(6)*r.IntN(2))
	for i := range limits {
		limits[i] = randomLimit(r)
	}
	banning := backend.Limit{Count: 1 + r.Int64N(3), Period: time.Hour, Algorithm: backend.Algorithm(r.IntN(4))}
	if r.IntN(4) == 0 {
		banning = counted(r, banning, backend.CalendarWindow)
	}
	banning = banning.Banning(time.Duration(1+r.IntN(1000))*time.Millisecond, time.Minute)
	bans := r.IntN(3) == 0
	synctest.Test(t, func(t *testing.T) {
		b := memory.New()
		var last backend.Result
		for i := range 80 {
			waits := []time.Duration{0, time.Microsecond, last.RetryAfter, last.RetryAfter, last.ResetAfter, limits[0].Period,
				time.Duration(r.Int64N(int64(2*limits[0].Period) + 1)), time.Duration(r.Int64N(int64(limits[0].Period)/10 + 1))}
			wait := max(0, waits[r.IntN(len(waits))].Truncate(time.Microsecond)+time.Duration(r.IntN(3)-1)*time.Microsecond)
			if time.Now().Add(wait).Year() < 2200 {
				time.Sleep(wait)
			}
			if r.IntN(12) == 0 {
				limits = otherVersion(r, limits)
			}
			s := step{at: time.Now(), charge: -1, limits: limits}
			if r.IntN(6) == 0 { // of an instance of another version
				s.limits = otherVersion(r, limits)
			}
			if bans {
				s.limits = append(slices.Clone(s.limits), banning)
			}
			var err error
			switch kind := r.IntN(50); {
			case kind == 0:
				s.reset = true
				err = b.Reset(ctx, "key")
			case kind < 9 && i > 0:
				s.charge = max(0, i-1-r.IntN(5))
				s.cost, s.limits = steps[s.charge].cost, steps[s.charge].limits
				switch r.IntN(6) {
				case 0:
					s.renew = true
					s.want, err = b.Renew(ctx, "key", steps[s.charge].want, s.cost, s.limits...)
				case 1:
					s.actual = s.cost + r.Int64N(2*s.cost+2)
				case 2:
					s.actual = s.cost
				}
				if !s.renew {
					err = b.Settle(ctx, "key", steps[s.charge].want, s.cost, s.actual, s.limits...)
				}
			case kind == 9:
				s.ban = time.Duration(1000+r.IntN(1_000_000)) * time.Microsecond
				err = b.Ban(ctx, "key", s.ban)
			default:
				capacity := min(max(1, limits[r.IntN(len(limits))].Capacity()), backend.MaxCount)
				s.cost = []int64{0, 0, 1, 1, 2, capacity, capacity + 1, capacity/3 + 1, 1 + r.Int64N(capacity), last.Remaining, last.Remaining/2 + 1}[r.IntN(11)]
				s.cost = min(s.cost, backend.MaxCount+1)
				s.want, err = b.Take(ctx, "key", s.cost, s.limits...)
				last = s.want
			}
			require.NoError(t, err)
			steps = append(steps, s)
		}
	})
	return steps
}

// The backends in memory and on PostgreSQL are one: whatever happens to a key, they give the same
// answers, to the microsecond, however statements are sent.
func TestMemoryAndPostgresAgree(t *testing.T) {
	url := serverURL(t)
	schedules := 40
	if testing.Short() {
		schedules = 10
	}
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			pool := newPool(t, url, 2, way.pool)
			opts := newTable(t, pool)
			first := rand.Uint64()
			allowed, all := 0, 0
			for i := range schedules {
				b := postgres.New(pool, opts...)
				if way.slow {
					postgres.SetSlow(b)
				}
				seed := first + uint64(i)
				for _, s := range replay(t, b, seed, record(t, seed)) {
					if s.charge < 0 && !s.reset && s.ban == 0 {
						all++
						if s.want.Allowed {
							allowed++
						}
					}
				}
			}
			require.InDelta(t, 0.5, float64(allowed)/float64(all), 0.35, "the schedules are one-sided: seed %d", first)
		})
	}
}

// replay makes the calls of package memory again, and expects the same answers.
func replay(t *testing.T, b *postgres.Backend, seed uint64, steps []step) []step {
	clock := newSettable()
	postgres.SetClock(b, clock.micros.Load)
	got := make([]backend.Result, len(steps))
	for i, s := range steps {
		clock.micros.Store(s.at.UnixMicro())
		var err error
		switch {
		case s.reset:
			err = b.Reset(t.Context(), "key")
		case s.ban > 0:
			err = b.Ban(t.Context(), "key", s.ban)
		case s.renew:
			if got[i], err = b.Renew(t.Context(), "key", got[s.charge], s.cost, s.limits...); got[i].At.Equal(s.want.At) {
				got[i].At = s.want.At
			}
		case s.charge >= 0:
			err = b.Settle(t.Context(), "key", got[s.charge], s.cost, s.actual, s.limits...)
		default:
			got[i], err = b.Take(t.Context(), "key", s.cost, s.limits...)
			require.NoError(t, err, "seed %d, step %d: %+v", seed, i, s)
			require.Equal(t, s.want.At.UnixMicro(), got[i].At.UnixMicro())
			got[i].At = s.want.At
		}
		if err != nil || got[i] != s.want {
			for _, before := range steps[max(0, i-8):i] {
				t.Logf("%+v", before)
			}
			require.FailNow(t, "package memory answered otherwise", "seed %d, step %d: %+v\ngot %+v, %v", seed, i, s, got[i], err)
		}
	}
	require.NoError(t, b.Reset(t.Context(), "key"))
	return steps
}
