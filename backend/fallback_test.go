package backend_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/backendtest"
	"github.com/ginlimit/ginlimit/backend/memory"
)

// breakable is a backend that fails while err is set, and counts what it is asked.
type breakable struct {
	*memory.Backend
	err   error
	asked int
}

func newBreakable() *breakable { return &breakable{Backend: memory.New()} }

func (b *breakable) Take(ctx context.Context, key string, cost int64, limits ...backend.Limit) (backend.Result, error) {
	if b.asked++; b.err != nil {
		return backend.Result{}, b.err
	}
	return b.Backend.Take(ctx, key, cost, limits...)
}

func (b *breakable) Settle(ctx context.Context, key string, charge backend.Result, cost, actual int64, limits ...backend.Limit) error {
	if b.err != nil {
		return b.err
	}
	return b.Backend.Settle(ctx, key, charge, cost, actual, limits...)
}

func (b *breakable) TakeAll(ctx context.Context, charges ...backend.Charge) ([]backend.Result, error) {
	if b.asked++; b.err != nil {
		return nil, b.err
	}
	return b.Backend.TakeAll(ctx, charges...)
}

func (b *breakable) Usage(ctx context.Context, key string, limits ...backend.Limit) ([]backend.Result, error) {
	if b.asked++; b.err != nil {
		return nil, b.err
	}
	return b.Backend.Usage(ctx, key, limits...)
}

func (b *breakable) Reset(ctx context.Context, key string) error {
	if b.err != nil {
		return b.err
	}
	return b.Backend.Reset(ctx, key)
}

var errDown = fmt.Errorf("test: down: %w", backend.ErrUnavailable)

// While the primary decides, a Fallback is the primary.
func TestFallbackConformance(t *testing.T) {
	backendtest.Run(t, backendtest.Harness{
		New: func(*testing.T) (backend.Backend, func(time.Duration)) {
			return backend.Fallback(memory.New(), newBreakable(), backend.WithShare(3)), time.Sleep
		},
		Bubble: synctest.Test, Rounds: 2, Callers: 500,
	})
}

func TestFallback(t *testing.T) {
	primary, secondary := newBreakable(), newBreakable()
	b, ctx := backend.Fallback(primary, secondary), context.Background()
	limit := backend.Limit{Name: "api", Count: 2, Period: time.Hour}
	take := func() backend.Result {
		t.Helper()
		res, err := b.Take(ctx, "k", 1, limit)
		require.NoError(t, err)
		assert.Equal(t, limit, res.Limit)
		return res
	}
	assert.Equal(t, backend.SourceStore, take().Source)
	assert.Zero(t, secondary.asked)

	primary.err = errDown
	spare := take()
	assert.Equal(t, backend.SourceFallback, spare.Source)
	assert.True(t, take().Allowed)
	refused := take()
	assert.False(t, refused.Allowed)
	assert.Equal(t, backend.SourceFallback, refused.Source)
	assert.Equal(t, 4, primary.asked, "the primary is asked once for each decision")
	require.NoError(t, b.Settle(ctx, "k", spare, 1, 0, limit))
	assert.True(t, take().Allowed, "what was refunded where it was charged")

	primary.err = nil
	back := take()
	assert.Equal(t, backend.SourceStore, back.Source, "the primary decides again at once")
	assert.True(t, back.Allowed)
	assert.False(t, take().Allowed)
	require.NoError(t, b.Settle(ctx, "k", back, 1, 0, limit))
	assert.True(t, take().Allowed)

	require.NoError(t, b.Reset(ctx, "k"))
	primary.err = errDown
	assert.EqualValues(t, 1, take().Remaining, "Reset was for the secondary too")
	require.ErrorIs(t, b.Reset(ctx, "k"), backend.ErrUnavailable)
}

// Only the store's own failure is a reason to ask the secondary, and both errors are told.
func TestFallbackErrors(t *testing.T) {
	primary, secondary := newBreakable(), newBreakable()
	b, ctx := backend.Fallback(primary, secondary), context.Background()
	limit := backend.Limit{Count: 2, Period: time.Hour}
	_, err := b.Take(ctx, "k", -1, limit)
	require.Error(t, err)
	primary.err = errors.New("a bug")
	_, err = b.Take(ctx, "k", 1, limit)
	require.ErrorIs(t, err, primary.err)
	assert.Zero(t, secondary.asked)

	primary.err = errDown
	secondary.err = fmt.Errorf("test: full: %w", backend.ErrUnavailable)
	_, err = b.Take(ctx, "k", 1, limit)
	require.ErrorIs(t, err, errDown)
	require.ErrorIs(t, err, secondary.err)

	assert.PanicsWithError(t, "ginlimit: Fallback needs two backends; one is nil", func() { backend.Fallback(nil, secondary) })
	assert.PanicsWithError(t, "ginlimit: Fallback needs two backends; one is nil", func() { backend.Fallback(primary, nil) })
	assert.PanicsWithError(t, "ginlimit: Fallback: an option is nil; leave it out", func() { backend.Fallback(primary, secondary, nil) })
	assert.PanicsWithError(t, "ginlimit: WithShare(0): use the number of instances, at least 1", func() {
		backend.Fallback(primary, secondary, backend.WithShare(0))
	})
}

// Instances that fall back admit together what the limit says, at most one unit each more where it
// does not divide.
func TestFallbackShares(t *testing.T) {
	const instances = 4
	for _, limit := range []backend.Limit{
		{Count: 100, Period: time.Hour},
		{Count: 10, Period: time.Hour, Burst: 21},
		{Count: 7, Period: time.Second},
		{Count: 2, Period: time.Hour},
		{Count: 7, Period: backend.MaxPeriod},
		{Count: 100, Period: time.Hour, Algorithm: backend.SlidingWindow},
		{Count: 101, Period: time.Hour, Algorithm: backend.SlidingLog},
		{Count: 3, Period: time.Hour, Algorithm: backend.FixedWindow},
		{Count: 0, Period: time.Hour},
	} {
		t.Run(limit.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var all []backend.Backend
				for range instances {
					primary := newBreakable()
					primary.err = errDown
					all = append(all, backend.Fallback(primary, memory.New(), backend.WithShare(instances)))
				}
				admit := func() (admitted int64) {
					for _, b := range all {
						for {
							res, err := b.Take(context.Background(), "k", 1, limit)
							require.NoError(t, err)
							require.Equal(t, limit, res.Limit)
							require.LessOrEqual(t, res.Remaining, limit.Capacity())
							if !res.Allowed {
								break
							}
							admitted++
						}
					}
					return admitted
				}
				atLeast := max(limit.Capacity()-instances+1, 0)
				at := limit.Capacity()
				if limit.Count > 0 {
					at = max(at, instances)
				}
				got := admit()
				assert.LessOrEqual(t, got, at)
				assert.GreaterOrEqual(t, got, atLeast)
				time.Sleep(10 * limit.Period)
				got = admit()
				assert.LessOrEqual(t, got, at)
				assert.GreaterOrEqual(t, got, atLeast)
			})
		})
	}
}

// A TokenBucket's rate is divided exactly.
func TestFallbackShareOfARate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		primary := newBreakable()
		primary.err = errDown
		b := backend.Fallback(primary, memory.New(), backend.WithShare(4))
		limit := backend.Limit{Count: 10, Period: time.Second, Burst: 4}
		admitted := 0
		for range 40_000 { // 40 s
			res, err := b.Take(context.Background(), "k", 1, limit)
			require.NoError(t, err)
			if res.Allowed {
				admitted++
			}
			time.Sleep(time.Millisecond)
		}
		assert.Equal(t, 100, admitted) // 2.5 a second, and one to begin with, less the last that is not yet due
	})
}

// A cost that a share has no room for takes the whole share; one that the limit has no room for
// never passes.
func TestFallbackLargeCosts(t *testing.T) {
	primary := newBreakable()
	primary.err = errDown
	b, ctx := backend.Fallback(primary, memory.New(), backend.WithShare(4)), context.Background()
	limits := []backend.Limit{{Count: 100, Period: time.Hour}, {Count: 30, Period: time.Hour, Algorithm: backend.FixedWindow}}
	res, err := b.Take(ctx, "k", 50, limits...)
	require.NoError(t, err)
	assert.False(t, res.Allowed)
	assert.Equal(t, backend.Never, res.RetryAfter)
	res, err = b.Take(ctx, "k", 30, limits...)
	require.NoError(t, err)
	assert.True(t, res.Allowed)
	assert.Zero(t, res.Remaining)
	require.NoError(t, b.Settle(ctx, "k", res, 30, 0, limits...))
	res, err = b.Take(ctx, "k", 0, limits...)
	require.NoError(t, err)
	assert.EqualValues(t, 7, res.Remaining)
}

// Every limit that is valid has a share that is.
func TestFallbackSharesAreValid(t *testing.T) {
	primary := newBreakable()
	primary.err = errDown
	slow := backend.Limit{Count: 7, Period: backend.MaxPeriod, Burst: 690} // a quarter of the rate would be too slow
	r := rand.New(rand.NewPCG(1, 1))
	for i := range 3000 {
		limit, instances := slow, 4
		if i > 0 {
			limit = backend.Limit{Count: int64(math.Exp(r.Float64() * 34)), Burst: int64(math.Exp(r.Float64() * 34))}
			limit.Period = (backend.MinPeriod + time.Duration(r.Int64N(int64(backend.MaxPeriod)))).Truncate(time.Millisecond)
			instances = 1 + r.IntN(50)
		}
		if limit.Validate() != nil {
			continue
		}
		b := backend.Fallback(primary, memory.New(memory.WithMaxKeys(1)), backend.WithShare(instances))
		res, err := b.Take(context.Background(), "k", 1, limit)
		require.NoError(t, err, "%v for %d instances", limit, instances)
		assert.True(t, res.Allowed, "%v for %d instances", limit, instances)
	}
}

// preparing is a backend that wants to know which limits are common.
type preparing struct {
	backend.Backend
	told [][]backend.Limit
}

func (p *preparing) Prepare(limits ...backend.Limit) { p.told = append(p.told, limits) }

// What a limiter tells its backend, as those on Redis want to know, reaches the backends within.
func TestDecoratorsPrepare(t *testing.T) {
	b, other := &preparing{Backend: memory.New()}, &preparing{Backend: memory.New()}
	limits := []backend.Limit{{Count: 9, Period: time.Minute}, {Count: 6, Period: time.Minute}}
	for _, decorated := range []backend.Backend{
		backend.Lease(backend.Fallback(b, other, backend.WithShare(3)), 10),
		backend.Lease(backend.Fallback(memory.New(), memory.New()), 10), // which do not want to know
	} {
		decorated.(interface{ Prepare(limits ...backend.Limit) }).Prepare(limits...)
	}
	assert.Equal(t, [][]backend.Limit{limits}, b.told)
	assert.Equal(t, [][]backend.Limit{{
		{Count: 9, Period: 3 * time.Minute, Burst: 3}, {Count: 6, Period: 3 * time.Minute, Burst: 2},
	}}, other.told)
}

// seconded is a backend that wants to know whether a second one decides where it cannot.
type seconded struct {
	backend.Backend
	told int
}

func (s *seconded) Seconded() { s.told++ }

// All but the last of several backends are told that another one decides where they cannot, so that
// their logs say so.
func TestFallbackTellsAllButTheLast(t *testing.T) {
	first, second, last := &seconded{Backend: memory.New()}, &seconded{Backend: memory.New()}, &seconded{Backend: memory.New()}
	both := backend.Fallback(backend.Lease(first, 10), second)
	assert.Equal(t, []int{1, 0}, []int{first.told, second.told})
	backend.Fallback(both, last)
	assert.Equal(t, []int{1, 1, 0}, []int{first.told, second.told, last.told})
	backend.Fallback(memory.New(), memory.New()) // which do not want to know
}

// TakeAll and Usage fall back as Take does, each charge to its share, and are settled there.
func TestFallbackOfSeveralKeys(t *testing.T) {
	primary, secondary := newBreakable(), newBreakable()
	b, ctx := backend.Fallback(primary, secondary, backend.WithShare(3)), context.Background()
	limit := backend.Limit{Name: "a", Count: 30, Period: time.Hour, Algorithm: backend.FixedWindow}
	other := backend.Limit{Name: "b", Count: 9, Period: time.Hour, Algorithm: backend.FixedWindow}
	charges := []backend.Charge{{Key: "k", Cost: 2, Limits: []backend.Limit{limit}}, {Key: "l", Cost: 3, Limits: []backend.Limit{other}}}
	all, err := b.TakeAll(ctx, charges...)
	require.NoError(t, err)
	assert.Equal(t, backend.SourceStore, all[0].Source)

	primary.err = errDown
	all, err = b.TakeAll(ctx, charges...)
	require.NoError(t, err)
	for i, res := range all {
		assert.True(t, res.Allowed)
		assert.Equal(t, charges[i].Limits[0], res.Limit, "the limit that was passed, not its share")
		assert.Equal(t, backend.SourceFallback, res.Source)
	}
	assert.EqualValues(t, 8, all[0].Remaining)
	assert.EqualValues(t, 0, all[1].Remaining)
	require.NoError(t, b.Settle(ctx, "k", all[0], 2, 7, limit))
	require.NoError(t, b.Settle(ctx, "l", all[1], 3, 1, other))
	for _, want := range []struct {
		key   string
		limit backend.Limit
		left  int64
	}{{"k", limit, 3}, {"l", other, 2}} {
		usage, err := b.Usage(ctx, want.key, want.limit)
		require.NoError(t, err)
		require.Len(t, usage, 1)
		assert.Equal(t, want.limit, usage[0].Limit)
		assert.Equal(t, backend.SourceFallback, usage[0].Source)
		assert.Equal(t, want.left, usage[0].Remaining)
	}
	primary.err = nil
	usage, err := b.Usage(ctx, "k", limit)
	require.NoError(t, err)
	assert.EqualValues(t, 28, usage[0].Remaining, "the primary knows of its own charge")

	primary.err, secondary.err = errDown, errDown
	_, err = b.TakeAll(ctx, charges...)
	require.ErrorIs(t, err, backend.ErrUnavailable)
	_, err = b.Usage(ctx, "k", limit)
	require.ErrorIs(t, err, backend.ErrUnavailable)
	require.ErrorIs(t, b.Settle(ctx, "k", all[0], 2, 0, limit), backend.ErrUnavailable)
}
