package gate_test

import (
	"context"
	"errors"
	"sync"
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
			end = gate.Failed
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
