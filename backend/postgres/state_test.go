package postgres_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/postgres"
)

var everyAlgorithm = []backend.Algorithm{backend.TokenBucket, backend.SlidingWindow, backend.SlidingLog, backend.FixedWindow}

// row is one of the table.
type row struct {
	rules, state string
	expires      int64
}

// rows reads and writes those of a table.
type rows struct {
	*testing.T
	pool  *pgxpool.Pool
	table string
}

func (r rows) get(key string) (got row) {
	r.Helper()
	err := r.pool.QueryRow(r.Context(), "SELECT rules, state::text, expires FROM "+r.table+" WHERE key = $1", postgres.StateKey(key)).Scan(&got.rules, &got.state, &got.expires)
	require.NoError(r, err)
	return got
}

func (r rows) put(key string, to row) {
	r.Helper()
	_, err := r.pool.Exec(r.Context(), "INSERT INTO "+r.table+" (key, rules, state, expires) VALUES ($1, $2, $3::text::bigint[], $4)"+
		" ON CONFLICT (key) DO UPDATE SET rules = excluded.rules, state = excluded.state, expires = excluded.expires",
		postgres.StateKey(key), to.rules, to.state, to.expires)
	require.NoError(r, err)
}

func (r rows) count() (n int64) {
	r.Helper()
	require.NoError(r, r.pool.QueryRow(r.Context(), "SELECT count(*) FROM "+r.table).Scan(&n))
	return n
}

// A row that is not ours, or of a later version, is an error, and is never overwritten; Reset makes
// room.
func TestForeignRow(t *testing.T) {
	pool := newPool(t, serverURL(t), 2, nil)
	b := postgres.New(pool, newTable(t, pool, postgres.WithSweep(0))...)
	table := rows{t, pool, postgres.Table(b)}
	const us int64 = 1_795_280_872_773_806
	now := time.Now().UnixMicro() // of windows that are not over
	for name, foreign := range map[string]row{
		"later version":  {"2 0 100 60000000 0", fmt.Sprintf("{%d,%d,0,0}", us, us), us},
		"empty":          {"", "{}", 0},
		"word":           {"hello", "{1}", 0},
		"no slots":       {"1", "{5}", 0},
		"short state":    {"1 0 100 60000000 0", fmt.Sprintf("{%d,%d}", us, us), us},
		"long state":     {"1 0 100 60000000 0", fmt.Sprintf("{%d,%d,0,0,1}", us, us), us},
		"empty state":    {"1 0 100 60000000 0", "{}", us},
		"NULL":           {"1 0 100 60000000 0", fmt.Sprintf("{%d,%d,NULL,0}", us, us), us},
		"matrix":         {"1 0 100 60000000 0", "{{1,2},{3,4}}", us},
		"lower bound":    {"1 0 100 60000000 0", fmt.Sprintf("[0:3]={%d,%d,0,0}", us, us), us},
		"negative":       {"1 0 100 60000000 0", fmt.Sprintf("{%d,%d,-1,0}", us, us), us},
		"huge":           {"1 0 100 60000000 0", fmt.Sprintf("{%d,9223372036854775807,0,0}", us), us},
		"least":          {"1 0 100 60000000 0", fmt.Sprintf("{%d,-9223372036854775808,0,0}", us), us},
		"part of a µs":   {"1 0 100 60000000 0", fmt.Sprintf("{%d,%d,100,0}", us, us), us},
		"count of 0":     {"1 0 0 60000000 0", fmt.Sprintf("{%d,%d,0,0}", us, us), us},
		"period of 0":    {"1 0 100 0 0", fmt.Sprintf("{%d,%d,0,0}", us, us), us},
		"unknown kind":   {"1 9 100 60000000 0", fmt.Sprintf("{%d,%d,0,0}", us, us), us},
		"huge use":       {"1 3 100 60000000 0", fmt.Sprintf("{%d,%d,9999999999999999,0}", us, us), us},
		"negative use":   {"1 3 100 60000000 0", fmt.Sprintf("{%d,%d,-100,0}", now, now), now},
		"over, negative": {"1 3 100 60000000 0", fmt.Sprintf("{%d,%d,-100,0}", us, us), us},
		"sliding use":    {"1 1 100 60000000 0", fmt.Sprintf("{%d,%d,-100,0}", now, now), now},
		"sliding before": {"1 1 100 60000000 0", fmt.Sprintf("{%d,%d,3,-100}", now, now), now},
		"sliding, moved": {"1 1 100 60000000 0", fmt.Sprintf("{%d,%d,-100,3}", now-70_000_000, now-70_000_000), now},
		"sliding, over":  {"1 1 100 60000000 0", fmt.Sprintf("{%d,%d,3,-100}", us-1_000_000_000_000_000, us-1_000_000_000_000_000), us},
		"part of a log":  {"1 2 100 60000000 0", fmt.Sprintf("{%d,%d,3,2,%d,1}", us, us, us), us},
		"negative log":   {"1 2 100 60000000 0", fmt.Sprintf("{%d,%d,3,-1}", us, us), us},
		"huge log":       {"1 2 100 60000000 0", fmt.Sprintf("{%d,%d,3,999999999999999}", us, us), us},
		"debt":           {"1 0 100 60000000 0", fmt.Sprintf("{%d,%d,0,0}", now, now+2*60_000_000+2), now},
		"larger debt":    {"1 0 100 60000000 150", fmt.Sprintf("{%d,%d,0,0}", now, now+2*90_000_000+2), now},
		"twice as much":  {"1 3 100 60000000 0", fmt.Sprintf("{%d,%d,201,0}", now, now), now},
		"of the future":  {"1 3 100 60000000 0", fmt.Sprintf("{%d,%d,1,0}", now, now+1), now},
		"sliding future": {"1 1 100 60000000 0", fmt.Sprintf("{%d,%d,1,0}", now, now+1), now},
		"log of future":  {"1 2 100 60000000 0", fmt.Sprintf("{%d,%d,1,1,%d,1}", now, now+1, now+1), now},
		"text after it":  {"1 0 100 60000000 0 and more", fmt.Sprintf("{%d,%d,0,0}", us, us), us},
		"half a rule":    {"1 0 100 60000000 0 0 1", fmt.Sprintf("{%d,%d,0,0}", us, us), us},
		"double spaces":  {"1  0 100 60000000 0", fmt.Sprintf("{%d,%d,0,0}", us, us), us},
		"leading spaces": {" 1 0 100 60000000 0", fmt.Sprintf("{%d,%d,0,0}", us, us), us},
	} {
		for _, a := range everyAlgorithm {
			t.Run(name+"/"+a.String(), func(t *testing.T) {
				table.T = t
				limit := backend.Limit{Count: 100, Period: time.Minute, Algorithm: a}
				table.put("k", foreign)
				written := table.get("k")
				for range 2 {
					for _, cost := range []int64{0, 1, 2, 200} {
						res, err := b.Take(t.Context(), "k", cost, limit)
						if err == nil { // it says nothing to this limit
							require.LessOrEqual(t, res.Remaining, res.Limit.Capacity())
							require.GreaterOrEqual(t, res.Remaining, int64(0))
							require.NotContains(t, []string{"later version", "empty", "word"}, name)
							if strings.HasPrefix(foreign.rules, fmt.Sprintf("1 %d ", a)) {
								require.NotContains(t, foreign.state, "-", "cost %d", cost)
								require.NotContains(t, []string{"debt", "larger debt", "twice as much", "of the future", "sliding future", "log of future"}, name)
							}
							continue
						}
						require.ErrorIs(t, err, backend.ErrUnavailable)
						require.ErrorIs(t, err, postgres.ErrForeign)
						require.Equal(t, written, table.get("k"))
					}
				}
				if err := b.Settle(t.Context(), "k", backend.Result{Allowed: true, At: time.Now()}, 1, 0, limit); err != nil {
					require.ErrorIs(t, err, postgres.ErrForeign)
				}
				require.NoError(t, b.Reset(t.Context(), "k"))
				res, err := b.Take(t.Context(), "k", 1, limit)
				require.NoError(t, err)
				require.True(t, res.Allowed)
				require.NoError(t, b.Reset(t.Context(), "k"))
			})
		}
	}
}

// newKinds are lists of limits with a calendar, with places in flight, and with a ban.
var newKinds = [][]backend.Limit{
	{backend.PerCalendarDay(100)},
	{backend.PerCalendarMonth(7).In("Europe/Berlin").StartingOn(31), hourly},
	{backend.InFlight(100)},
	{hourly, backend.InFlight(7)},
	{per(7, time.Hour), per(3, time.Hour).WithAlgorithm(backend.SlidingLog).Banning(time.Minute, time.Hour)},
	{per(7, time.Hour).WithAlgorithm(backend.FixedWindow), backend.PerCalendarDay(3).Banning(time.Minute, time.Hour)},
}

// What is wrong in a calendar window, in what is in flight or in a ban is found, whatever is asked.
func TestForeignRowOfOtherKinds(t *testing.T) {
	pool := newPool(t, serverURL(t), 2, nil)
	opts := newTable(t, pool, postgres.WithSweep(0))
	table := rows{t, pool, postgres.Table(postgres.New(pool, opts...))}
	start := time.Now().UTC().Truncate(24 * time.Hour).UnixMicro()
	now := time.Now().UnixMicro()
	const ban, day = "200 0 0 0", int64(86400)
	for name, foreign := range map[string]row{
		"calendar, no end":         {"1 6 100 86400000000 0", fmt.Sprintf("{%d,%d,1,0}", now, start), now},
		"calendar, no end of it":   {"1 6 100 86400000000 0", fmt.Sprintf("{%d,%d,1,%d}", now, start, day<<23), now},
		"calendar, twice as much":  {"1 6 100 86400000000 0", fmt.Sprintf("{%d,%d,201,%d}", now, start, day), now},
		"calendar of the future":   {"1 6 100 86400000000 0", fmt.Sprintf("{%d,%d,1,%d}", now, now+1, day), now},
		"calendar, huge end":       {"1 6 100 86400000000 0", fmt.Sprintf("{%d,%d,1,9007199254740993}", now, start), now},
		"calendar, no period":      {"1 6 100 0 0", fmt.Sprintf("{%d,%d,1,%d}", now, start, day), now},
		"calendar, a long period":  {"1 6 100 99999999999999 0", fmt.Sprintf("{%d,%d,1,%d}", now, start, day), now},
		"calendar, a count of 0":   {"1 6 0 86400000000 0", fmt.Sprintf("{%d,%d,1,%d}", now, start, day), now},
		"calendar, negative":       {"1 6 100 86400000000 0", fmt.Sprintf("{%d,%d,-1,%d}", now, start, day), now},
		"in flight, no log":        {"1 7 100 60000000 0", fmt.Sprintf("{%d,%d,3,1}", now, now), now},
		"in flight, no charge":     {"1 7 100 60000000 0", fmt.Sprintf("{%d,%d,3,0}", now, now), now},
		"in flight, short log":     {"1 7 100 60000000 0", fmt.Sprintf("{%d,%d,3,2,%d,1}", now, now, now), now},
		"in flight, of the future": {"1 7 100 60000000 0", fmt.Sprintf("{%d,%d,3,1,%d,3}", now, now+1, now+1), now},
		"in flight, a burst":       {"1 7 100 60000000 7", fmt.Sprintf("{%d,%d,3,1,%d,3}", now, now, now), now},
		"in flight, more than can": {"1 7 100 60000000 0", fmt.Sprintf("{%d,%d,201,1,%d,201}", now, now, now), now},
		"a ban that is too long":   {"1 " + ban, fmt.Sprintf("{%d,%d,1,1}", now, now+31622400000001), now},
		"a length that is too":     {"1 " + ban, fmt.Sprintf("{%d,%d,31622400000001,1}", now, now+1_000_000), now},
		"a memory that is too":     {"1 " + ban, fmt.Sprintf("{%d,%d,1,31622400000001}", now, now+1_000_000), now},
		"a limit behind a ban":     {"1 " + ban + " 3 100 60000000 0", fmt.Sprintf("{%d,%d,1,1,%d,1,0}", now, now+1_000_000, now), now},
		"a kind beyond":            {"1 201 0 0 0", fmt.Sprintf("{%d,%d,1,1}", now, now), now},
		"refusals of no kind":      {"1 104 100 60000000 0", fmt.Sprintf("{%d,%d,1,0}", now, now), now},
		"refusals in flight":       {"1 107 100 60000000 0", fmt.Sprintf("{%d,%d,3,1,%d,3}", now, now, now), now},
		"refusals without a log":   {"1 102 100 60000000 0", fmt.Sprintf("{%d,%d,3,1}", now, now), now},
		"twice the refusals":       {"1 103 100 60000000 0", fmt.Sprintf("{%d,%d,201,0}", now, now), now},
		"refusals of the future":   {"1 103 100 60000000 0", fmt.Sprintf("{%d,%d,1,0}", now, now+1), now},
		"refusals without a count": {"1 103 0 60000000 0", fmt.Sprintf("{%d,%d,1,0}", now, now), now},
		"refusals and a limit":     {"1 103 100 60000000 0 3 100 60000000 0", fmt.Sprintf("{%d,%d,1,0,%d,1,0}", now, now, now), now},
	} {
		for _, slow := range []bool{false, true} {
			for i, limits := range newKinds {
				t.Run(fmt.Sprintf("%s/%d/slow=%v", name, i, slow), func(t *testing.T) {
					table.T = t
					b := postgres.New(pool, opts...)
					if slow {
						postgres.SetSlow(b)
					}
					table.put("k", foreign)
					is := func(err error) {
						t.Helper()
						require.ErrorIs(t, err, postgres.ErrForeign)
						require.ErrorIs(t, err, backend.ErrUnavailable)
						require.Equal(t, foreign, table.get("k"))
					}
					for _, cost := range []int64{0, 1, 200} {
						_, err := b.Take(t.Context(), "k", cost, limits...)
						is(err)
						_, err = b.TakeAll(t.Context(), backend.Charge{Key: "k", Cost: cost, Limits: limits}, backend.Charge{Key: "j", Cost: 1, Limits: limits})
						is(err)
					}
					_, err := b.Usage(t.Context(), "k", limits...)
					is(err)
					taken := backend.Result{Allowed: true, At: time.UnixMicro(now)}
					is(b.Settle(t.Context(), "k", taken, 1, 0, limits...))
					is(b.Settle(t.Context(), "k", taken, 1, 3, limits...))
					if i == 2 || i == 3 {
						_, err = b.Renew(t.Context(), "k", taken, 1, limits...)
						is(err)
					}
					is(b.Ban(t.Context(), "k", time.Minute))
					require.NoError(t, b.Reset(t.Context(), "k"))
					require.Zero(t, table.count())
				})
			}
		}
	}
}

// Whatever stands in a row, a decision fails as it should, or answers within the limits.
func TestMutatedRow(t *testing.T) {
	pool := newPool(t, serverURL(t), 2, nil)
	b := postgres.New(pool, newTable(t, pool, postgres.WithSweep(0))...)
	table := rows{t, pool, postgres.Table(b)}
	var sets [][]backend.Limit
	for _, a := range everyAlgorithm {
		sets = append(sets, []backend.Limit{{Count: 7, Period: time.Second, Algorithm: a}}, []backend.Limit{hourly, {Count: 100, Period: time.Minute, Algorithm: a}})
	}
	short := len(sets)
	sets = append(sets, newKinds...)
	var ours []row
	var charges []backend.Result
	for i, limits := range sets {
		for cost := int64(1); cost < 4; cost++ { // a ban counts the last of three as a refusal, if there is one
			if _, _, bans := limits[len(limits)-1].Bans(); bans && cost == 3 {
				_, err := b.Take(t.Context(), fmt.Sprint(i), 10, limits...)
				require.NoError(t, err)
				require.NoError(t, b.Ban(t.Context(), fmt.Sprint(i), time.Millisecond))
			}
			res, err := b.Take(t.Context(), fmt.Sprint(i), cost, limits...)
			require.NoError(t, err)
			charges = append(charges, res)
			ours = append(ours, table.get(fmt.Sprint(i)))
		}
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	numbers := []string{"0", "-1", "1", "2", "3", "99", "1000000", "999999999999999", "9007199254740993", "9223372036854775807", "-9223372036854775808", "NULL"}
	decided, rounds := 0, 400
	for range rounds {
		i := r.IntN(len(ours))
		to := ours[i]
		fields, rules := strings.Split(strings.Trim(to.state, "{}"), ","), strings.Split(to.rules, " ")
		for range 1 + r.IntN(2) {
			at := r.IntN(len(fields))
			switch r.IntN(5) {
			case 0:
				fields = append(fields[:at:at], fields[min(len(fields), at+1):]...)
			case 1:
				fields = append(fields[:at:at], append([]string{numbers[r.IntN(len(numbers))]}, fields[at:]...)...)
			case 2, 3:
				fields[at] = numbers[r.IntN(len(numbers))]
			default:
				rules[r.IntN(len(rules))] = numbers[r.IntN(len(numbers))]
			}
			if len(fields) == 0 {
				break
			}
		}
		to.state, to.rules = "{"+strings.Join(fields, ",")+"}", strings.Join(rules, " ")
		set := i / 3
		if r.IntN(4) == 0 {
			set = r.IntN(len(sets))
		}
		limits := sets[set]
		table.put("k", to)
		for _, cost := range []int64{0, 1 + r.Int64N(5)} {
			res, err := b.Take(t.Context(), "k", cost, limits...)
			why := fmt.Sprintf("cost %d, %v, %v: %v, %v", cost, limits, to, res, err)
			if err != nil {
				require.ErrorIs(t, err, backend.ErrUnavailable, why)
				require.ErrorIs(t, err, postgres.ErrForeign, why)
				continue
			}
			decided++
			require.GreaterOrEqual(t, res.Remaining, int64(0), why)
			require.LessOrEqual(t, res.Remaining, res.Limit.Capacity(), why)
			most := 2*res.Limit.Period + time.Microsecond
			if max(set, i/3) >= short { // windows of a calendar are longer
				most = backend.MaxPeriod
			}
			require.LessOrEqual(t, max(res.RetryAfter, res.ResetAfter), most, why)
		}
		table.put("k", to)
		if err := b.Settle(t.Context(), "k", charges[i], 1, 0, limits...); err != nil {
			require.ErrorIs(t, err, postgres.ErrForeign, "refund, %v", to)
		}
	}
	assert.Greater(t, decided, rounds/10)
	assert.Less(t, decided, 2*rounds*9/10)
}

// A sweep deletes what has expired, also where it is not asked, and nothing else: not what somebody
// has locked, nor what came to life meanwhile.
func TestSweep(t *testing.T) {
	pool := newPool(t, serverURL(t), 4, nil)
	opts := newTable(t, pool, postgres.WithSweep(0))
	b := postgres.New(pool, opts...)
	clock := newSettable()
	postgres.SetClock(b, clock.micros.Load)
	table := rows{t, pool, postgres.Table(b)}
	short, long := backend.Limit{Count: 5, Period: time.Second}, backend.Limit{Count: 5, Period: time.Hour}
	fill := func(n int) {
		for i := range n {
			limit := short
			if i%10 == 0 {
				limit = long
			}
			_, err := take(b, fmt.Sprint(i), limit)
			require.NoError(t, err)
		}
	}
	fill(3000) // more than one batch
	n, err := b.Sweep(t.Context())
	require.NoError(t, err)
	require.Zero(t, n)
	clock.advance(time.Minute)

	tx, err := pool.Begin(t.Context())
	require.NoError(t, err)
	defer tx.Rollback(context.Background()) // the pool closes only with all its connections
	_, err = tx.Exec(t.Context(), "SELECT FROM "+table.table+" WHERE key IN ('1', '2') FOR UPDATE")
	require.NoError(t, err)
	_, err = take(b, "3", short)
	require.NoError(t, err)
	n, err = b.Sweep(t.Context())
	require.NoError(t, err)
	require.Equal(t, int64(2700-3), n)
	require.NoError(t, tx.Rollback(t.Context()))
	n, err = b.Sweep(t.Context())
	require.NoError(t, err)
	require.Equal(t, int64(2), n)
	require.Equal(t, int64(301), table.count())
	clock.advance(24 * time.Hour)

	// Decisions sweep what they leave behind.
	busy := postgres.New(pool, append(opts, postgres.WithSweep(5))...)
	postgres.SetClock(busy, clock.micros.Load)
	require.Eventually(t, func() bool {
		_, err := take(busy, "busy", short)
		require.NoError(t, err)
		return table.count() == 1
	}, soon, time.Millisecond)
}

// A busy service with ever new keys and short limits: rows that have expired stay the smaller part
// of the table, also where it has many pages that a vacuum has not given back yet.
func TestExpiredRowsAreFew(t *testing.T) {
	const rate, alive = 4_300, 2_000 // decisions a second, and rows that have not expired
	decisions := 40_000
	if testing.Short() {
		decisions = 15_000
	}
	pool := newPool(t, serverURL(t), 8, nil)
	b := postgres.New(pool, newTable(t, pool)...)
	clock := newSettable()
	postgres.SetClock(b, clock.micros.Load)
	limit := backend.Limit{Count: 5, Period: (time.Second * alive / rate).Truncate(time.Microsecond), Algorithm: backend.FixedWindow}
	var wg sync.WaitGroup
	var next atomic.Int64
	share := func() float64 {
		var expired, all int64
		require.NoError(t, pool.QueryRow(t.Context(), "SELECT count(*) FILTER (WHERE expires <= $1), count(*) FROM "+postgres.Table(b), clock.micros.Load()).Scan(&expired, &all))
		return float64(expired) / float64(all)
	}
	var most, sum, n float64
	const chunk = postgres.DefaultSweep // as many decisions as come between two sweeps, which this test waits for
	for i := 0; i < decisions; i += chunk {
		for worker := range 8 {
			wg.Go(func() {
				for range (chunk + worker) / 8 {
					clock.advance(time.Second / rate)
					_, err := take(b, fmt.Sprint(next.Add(1)), limit)
					assert.NoError(t, err)
				}
			})
		}
		wg.Wait()
		postgres.Quiet(b)
		if i > decisions/3 {
			found := share()
			most, sum, n = max(most, found), sum+found, n+1
		}
	}
	t.Logf("%.0f %% of the rows had expired on average, %.0f %% at most", 100*sum/n, 100*most)
	assert.Less(t, sum/n, 0.25) // 0.5 with batches of 48 pages
}

// Limits that keep no state need no database: they write nothing, ask nothing, and are decided
// while there is none.
func TestLimitsWithoutState(t *testing.T) {
	sent := &statements{}
	pool := newPool(t, serverURL(t), 1, func(c *pgxpool.Config) { c.ConnConfig.Tracer = sent })
	b := postgres.New(pool, newTable(t, pool, postgres.WithSweep(0))...)
	table := rows{t, pool, postgres.Table(b)}
	nothing := backend.Limit{Period: time.Second}
	none := func() {
		t.Helper()
		for _, c := range []struct {
			allowed bool
			limits  []backend.Limit
		}{
			{true, []backend.Limit{backend.Unlimited()}}, {false, []backend.Limit{nothing}},
			{false, []backend.Limit{backend.Unlimited(), nothing.Named("nothing")}}, {true, []backend.Limit{backend.Unlimited(), backend.Unlimited()}},
		} {
			for _, cost := range []int64{0, 1, 1000} {
				res, err := b.Take(t.Context(), "k", cost, c.limits...)
				require.NoError(t, err)
				require.Equal(t, c.allowed, res.Allowed)
				require.WithinDuration(t, time.Now(), res.At, time.Minute)
				require.Equal(t, c.limits[len(c.limits)-1].Name, res.Limit.Name)
				require.NoError(t, b.Settle(t.Context(), "k", res, cost, 0, c.limits...))
			}
		}
	}
	before := sent.n.Load()
	none()
	require.Equal(t, before, sent.n.Load())
	require.Zero(t, table.count())

	before = sent.n.Load()
	res, err := take(b, "k", backend.Unlimited(), hourly)
	require.NoError(t, err)
	require.Equal(t, hourly.Count-1, res.Remaining)
	require.Equal(t, int64(1), sent.n.Load()-before)
	pool.Close()
	none()
}

// A row stays small: what README.md states.
func TestSmallRow(t *testing.T) {
	pool := newPool(t, serverURL(t), 1, nil)
	b := postgres.New(pool, newTable(t, pool)...)
	for _, a := range everyAlgorithm {
		_, err := take(b, "api\x00ip:203.0.113.7", hourly.WithAlgorithm(a))
		require.NoError(t, err)
		var size int
		require.NoError(t, pool.QueryRow(context.Background(), "SELECT sum(pg_column_size(t.*)) FROM "+postgres.Table(b)+" t").Scan(&size))
		t.Logf("%v: a row of %d bytes", a, size)
		require.LessOrEqual(t, size, 170)
		require.NoError(t, b.Reset(t.Context(), "api\x00ip:203.0.113.7"))
	}
}
