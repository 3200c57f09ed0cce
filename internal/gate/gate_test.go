package gate_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/internal/gate"
)

const timeout = 100 * time.Millisecond

// call makes a call that the server answers after a time, or never, and returns how it ended and what it took.
func call(ctx context.Context, g *gate.Gate, answer time.Duration) (time.Duration, error) {
	start := time.Now()
	ctx, ours := g.Limit(ctx)
	err := g.Enter(ctx)
	if err != nil {
		return time.Since(start), err
	}
	end := gate.Answered
	select {
	case <-time.After(answer):
	case <-ctx.Done():
		end = gate.Unknown
		if err = g.Cause(ctx, ctx.Err()); ours && !errors.Is(err, gate.ErrOpen) {
			end = gate.Late
		}
	}
	g.Leave(end)
	return time.Since(start), err
}

const never = time.Hour

func TestFiveFailuresOpenAndOneAnswerCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []bool
		g := gate.New(8, timeout, func(open bool) { told = append(told, open) })
		for range 5 {
			require.False(t, g.Open())
			took, err := call(t.Context(), g, never)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Equal(t, timeout, took)
		}
		for range 3 { // probes
			require.True(t, g.Open())
			took, err := call(t.Context(), g, never)
			require.ErrorIs(t, err, gate.ErrOpen)
			require.Zero(t, took)
			time.Sleep(200 * time.Millisecond)
			go call(t.Context(), g, never)
			synctest.Wait()
			_, err = call(t.Context(), g, 0)
			require.ErrorIs(t, err, gate.ErrOpen, "one probe at a time")
		}
		time.Sleep(200 * time.Millisecond)
		_, err := call(t.Context(), g, time.Millisecond)
		require.NoError(t, err)
		require.False(t, g.Open())
		require.Equal(t, []bool{true, false}, told)
	})
}

func TestAnAnswerStartsTheCountAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gate.New(8, timeout, nil)
		for range 20 {
			for range 4 {
				call(t.Context(), g, never)
			}
			call(t.Context(), g, timeout/2)
		}
		require.False(t, g.Open())
	})
}

// A thousand calls a second for a server that falls silent: none of them loses its whole time.
func TestSilenceOpensBeforeTimeIsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gate.New(512, timeout, nil)
		var wg sync.WaitGroup
		var mu sync.Mutex
		var lost time.Duration
		whole := 0
		for i := range 1000 {
			answer := never
			if i < 300 {
				answer = time.Millisecond
			}
			wg.Go(func() {
				took, err := call(t.Context(), g, answer)
				mu.Lock()
				defer mu.Unlock()
				if answer == never {
					assert.Error(t, err)
					lost += took
				} else {
					assert.NoError(t, err)
				}
				if took >= timeout*9/10 {
					whole++
				}
			})
			time.Sleep(time.Millisecond)
		}
		wg.Wait()
		t.Logf("%d calls lost the whole of their time; together they lost %v", whole, lost)
		// The calls before the breaker opened wait half of that time on average, and each probe for all of it.
		assert.LessOrEqual(t, whole, 4, "the probes")
		assert.Less(t, lost, 100*timeout*45/100+4*timeout)
	})
}

// TestSilenceWithFewSlots, as of a small pool: those that wait for one count too.
func TestSilenceWithFewSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gate.New(2, timeout, nil)
		var wg sync.WaitGroup
		var whole atomic.Int32
		for range 1000 {
			wg.Go(func() {
				if took, err := call(t.Context(), g, never); assert.Error(t, err) && took >= timeout*9/10 {
					whole.Add(1)
				}
			})
			time.Sleep(time.Millisecond)
		}
		wg.Wait()
		assert.LessOrEqual(t, whole.Load(), int32(20), "some of the first, and the probes")
	})
}

func TestASlowServerIsNotASilentOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gate.New(512, timeout, nil)
		var wg sync.WaitGroup
		for range 1000 {
			wg.Go(func() {
				_, err := call(t.Context(), g, 89*time.Millisecond)
				assert.NoError(t, err)
			})
			time.Sleep(time.Millisecond)
		}
		wg.Wait()
		for range 100 { // four at a time are too few to judge by before their time is up
			for range 4 {
				wg.Go(func() { call(t.Context(), g, never) })
			}
			wg.Wait()
			call(t.Context(), g, 0)
		}
		require.False(t, g.Open())
	})
}

// Nor is one that answers all the time while more ask than it can answer: neither because they have waited for a slot, nor
// because the last who got one had little time left, and all end at once.
func TestABusyServerIsNotASilentOne(t *testing.T) {
	for slots, answer := range map[int]time.Duration{4: 5 * time.Millisecond, 16: 30 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			g := gate.New(slots, timeout, func(bool) { t.Error("the breaker opened") })
			var wg sync.WaitGroup
			for range 200 {
				wg.Go(func() {
					_, err := call(t.Context(), g, answer)
					assert.NotErrorIs(t, err, gate.ErrOpen)
				})
			}
			wg.Wait()
			_, err := call(t.Context(), g, answer)
			require.NoError(t, err)
		})
	}
}

// What was silent while nobody waited is no silence.
func TestNobodyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gate.New(512, timeout, nil)
		short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err := call(short, g, never)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		time.Sleep(time.Minute)
		g.Limit(t.Context()) // of a call that needs no server
		time.Sleep(timeout * 85 / 100)
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				_, err := call(t.Context(), g, timeout/2)
				assert.NoError(t, err)
			})
		}
		wg.Wait()
		require.False(t, g.Open())
	})
}

// Whoever was let through to probe the server, and found what it needed elsewhere, leaves the probe to the next.
func TestACacheHitIsNoProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gate.New(8, timeout, nil)
		for range 5 {
			call(t.Context(), g, never)
		}
		require.True(t, g.Open())
		for range 3 {
			require.ErrorIs(t, g.EnterCached(t.Context()), gate.ErrOpen)
		}
		time.Sleep(200 * time.Millisecond)
		for range 3 {
			require.NoError(t, g.EnterCached(t.Context()))
			g.Leave(gate.Unmade)
		}
		_, err := call(t.Context(), g, time.Millisecond)
		require.NoError(t, err)
		require.False(t, g.Open())
	})
}

// If nobody comes who needs the server, whoever was let through to probe it has to ask.
func TestCacheHitsEndWithAQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gate.New(8, timeout, nil)
		for range 5 {
			call(t.Context(), g, never)
		}
		hit := func() bool {
			require.NoError(t, g.EnterCached(t.Context()))
			return g.Leave(gate.Unmade)
		}
		for range 3 {
			time.Sleep(200 * time.Millisecond)
			require.True(t, hit())
			require.False(t, hit(), "one at a time")
			g.Asked(gate.Late)
			require.True(t, g.Open())
		}
		require.True(t, hit())
		g.Asked(gate.Answered)
		require.False(t, g.Open())
		require.False(t, hit())
	})
}

// What is found in a cache all the time is not a server that is silent all the time.
func TestCacheHitsAreNoSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gate.New(512, timeout, nil)
		for range 10 {
			require.NoError(t, g.EnterCached(t.Context()))
		}
		for range 100 {
			g.Limit(t.Context())
			time.Sleep(timeout / 10)
			require.NoError(t, g.EnterCached(t.Context()))
			g.Leave(gate.Unmade)
		}
		require.False(t, g.Open())
	})
}

// Calls whose callers gave up are with the server until it answers: one that has more time finds out whether it does.
func TestAbandonedCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gate.New(512, timeout, nil)
		abandon := func(n int) (asked int) {
			for range n {
				require.NoError(t, g.Enter(t.Context()))
				if g.Leave(gate.Abandoned) {
					asked++
				}
			}
			return asked
		}
		require.Equal(t, 0, abandon(4))
		call(t.Context(), g, 0)
		for range 100 {
			require.Equal(t, 0, abandon(4))
			require.Equal(t, 1, abandon(200), "one at a time")
			g.Asked(gate.Answered)
			require.False(t, g.Open())
		}
		require.Equal(t, 1, abandon(5))
		g.Asked(gate.Unknown)
		require.False(t, g.Open())
		require.Equal(t, 0, abandon(4))
		require.Equal(t, 1, abandon(1), "nobody knows yet")
		g.Asked(gate.Failed)
		require.True(t, g.Open())
		require.ErrorIs(t, g.Enter(t.Context()), gate.ErrOpen)

		time.Sleep(200 * time.Millisecond)
		require.Equal(t, 1, abandon(1), "a probe that was given up")
		g.Asked(gate.Answered)
		require.False(t, g.Open())

		require.Equal(t, 1, abandon(512))
		short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		require.ErrorIs(t, g.Enter(short), context.DeadlineExceeded, "the server has as many as it may")
		go func() {
			time.Sleep(timeout / 2)
			g.Asked(gate.Answered)
		}()
		took, err := call(t.Context(), g, 0)
		require.NoError(t, err)
		require.Equal(t, timeout/2, took)
		require.False(t, g.Open())

		require.Equal(t, 1, abandon(512))
		g.Asked(gate.Failed)
		for range 1000 { // probes that are given up
			time.Sleep(200 * time.Millisecond)
			require.Equal(t, 1, abandon(1))
			g.Asked(gate.Failed)
		}
		time.Sleep(200 * time.Millisecond)
		_, err = call(t.Context(), g, 0)
		require.NoError(t, err)
		require.False(t, g.Open())
	})
}

func TestTheBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gate.New(2, timeout, nil)
		var wg sync.WaitGroup
		start := time.Now()
		for range 6 {
			wg.Go(func() {
				_, err := call(t.Context(), g, 20*time.Millisecond)
				assert.NoError(t, err)
			})
		}
		wg.Wait()
		require.Equal(t, 60*time.Millisecond, time.Since(start))
		for range 2 {
			wg.Go(func() { call(t.Context(), g, timeout*3/4) })
		}
		synctest.Wait()
		short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		_, err := call(short, g, 0)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		wg.Wait()
		require.False(t, g.Open())
	})
}

// TestLimitOfALimit: what one part of a call left of its time is all that the next has.
func TestLimitOfALimit(t *testing.T) {
	g := gate.New(1, timeout, nil)
	first, ours := g.Limit(t.Context())
	assert.True(t, ours)
	again, ours := g.Limit(first)
	assert.True(t, ours)
	assert.Equal(t, first, again)
}

// Another call's cancellation, which ended what a call shared with it, is not the breaker.
func TestCauseOfAnothersCancellation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gate.New(8, timeout, nil)
		ctx, _ := g.Limit(t.Context())
		require.ErrorIs(t, g.Cause(ctx, context.Canceled), context.Canceled)
		for range 5 {
			g.Record(gate.Failed)
		}
		require.ErrorIs(t, g.Cause(ctx, context.Canceled), gate.ErrOpen)
	})
}

func TestLimitSharesItsContexts(t *testing.T) {
	g := gate.New(8, timeout, nil)
	ctx := context.Background()
	if n := testing.AllocsPerRun(1000, func() {
		ctx, _ := g.Limit(ctx)
		if g.Enter(ctx) == nil {
			g.Leave(gate.Answered)
		}
	}); n != 0 {
		t.Errorf("a call allocates %v times", n)
	}
}

func BenchmarkGate(b *testing.B) {
	g := gate.New(512, timeout, nil)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			ctx, _ := g.Limit(context.Background())
			if g.Enter(ctx) == nil {
				g.Leave(gate.Answered)
			}
		}
	})
}
