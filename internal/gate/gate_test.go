package gate_test

import (
	"context"
	"errors"
	"fmt"
	"io"
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

// call makes a call that the server answers after a time, or never, and returns how it ended and
// what it took.
func call(g *gate.Gate, answer time.Duration) (time.Duration, error) {
	start := time.Now()
	ctx := g.Context()
	err := g.Enter(ctx)
	if err != nil {
		return time.Since(start), err
	}
	end := gate.Answered
	select {
	case <-time.After(answer):
	case <-ctx.Done():
		end, err = gate.Late, ctx.Err()
		if errors.Is(err, gate.ErrOpen) {
			end = gate.Unknown
		}
	}
	g.Leave(ctx, end, err)
	return time.Since(start), err
}

const never = time.Hour

func TestFiveFailuresOpenAndOneAnswerCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []bool
		g := gate.New(8, timeout, func(open bool, _ error) { told = append(told, open) })
		for range 5 {
			require.False(t, g.Open())
			took, err := call(g, never)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.Equal(t, timeout, took)
		}
		for range 3 { // probes
			require.True(t, g.Open())
			took, err := call(g, never)
			require.ErrorIs(t, err, gate.ErrOpen)
			require.Zero(t, took)
			time.Sleep(200 * time.Millisecond)
			go call(g, never)
			synctest.Wait()
			_, err = call(g, 0)
			require.ErrorIs(t, err, gate.ErrOpen, "one probe at a time")
		}
		time.Sleep(200 * time.Millisecond)
		_, err := call(g, time.Millisecond)
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
				call(g, never)
			}
			call(g, timeout/2)
		}
		require.False(t, g.Open())
	})
}

// A thousand calls a second for a server that falls silent: those wait that come before the time of
// the first of them is over, and next to nobody later.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string
		g := gate.New(512, timeout, func(open bool, cause error) { told = append(told, fmt.Sprint(open, " ", cause)) })
		var wg sync.WaitGroup
		var mu sync.Mutex
		waited := 0
		for i := range 1000 {
			answer := never
			if i < 300 {
				answer = time.Millisecond
			}
			wg.Go(func() {
				took, err := call(g, answer)
				mu.Lock()
				defer mu.Unlock()
				if answer == never {
					assert.Error(t, err)
					assert.LessOrEqual(t, took, timeout)
				} else {
					assert.NoError(t, err)
				}
				if took > time.Millisecond {
					waited++
				}
			})
			time.Sleep(time.Millisecond)
		}
		wg.Wait()
		assert.InDelta(t, 100, waited, 20, "those of a tenth of a second, and the probes")
		assert.Equal(t, []string{"true nothing was heard of it for 100ms"}, told)
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
				if took, err := call(g, never); assert.Error(t, err) && took >= timeout*9/10 {
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
				_, err := call(g, 89*time.Millisecond)
				assert.NoError(t, err)
			})
			time.Sleep(time.Millisecond)
		}
		wg.Wait()
		for range 100 { // four at a time are too few to judge by before their time is up
			for range 4 {
				wg.Go(func() { call(g, never) })
			}
			wg.Wait()
			call(g, 0)
		}
		require.False(t, g.Open())
	})
}

// Nor is one that answers all the time while more ask than it can answer: neither because they have
// waited for a slot, nor because the last who got one had little time left, and all end at once.
func TestABusyServerIsNotASilentOne(t *testing.T) {
	for slots, answer := range map[int]time.Duration{4: 5 * time.Millisecond, 16: 30 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			g := gate.New(slots, timeout, func(bool, error) { t.Error("the breaker opened") })
			var wg sync.WaitGroup
			for range 200 {
				wg.Go(func() {
					_, err := call(g, answer)
					assert.NotErrorIs(t, err, gate.ErrOpen)
				})
			}
			wg.Wait()
			_, err := call(g, answer)
			require.NoError(t, err)
		})
	}
}

// What was silent while nobody asked is no silence.
func TestNobodyAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gate.New(512, timeout, nil)
		call(g, never)
		time.Sleep(time.Minute)
		g.Context() // of a call that needs no server
		time.Sleep(timeout * 85 / 100)
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				_, err := call(g, timeout/2)
				assert.NoError(t, err)
			})
		}
		wg.Wait()
		require.False(t, g.Open())
	})
}

// A server that sends something is not silent, but if it answers every call too late there is
// nothing to wait for.
func TestAnswersThatComeTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string
		g := gate.New(512, timeout, func(open bool, cause error) { told = append(told, fmt.Sprint(open, " ", cause)) })
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(timeout / 10):
					g.Heard()
				}
			}
		})
		for i := range 1000 {
			answer := never
			if i < 500 && i%50 == 0 {
				answer = time.Millisecond
			}
			wg.Go(func() { call(g, answer) })
			time.Sleep(time.Millisecond)
			if i < 500 {
				require.False(t, g.Open(), "some are answered")
			}
		}
		require.Equal(t, []string{"true no call was answered within 100ms"}, told)
		close(stop)
		wg.Wait()
	})
}

// What is found in a cache all the time is not a server that is silent all the time.
func TestCacheHitsAreNoSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gate.New(512, timeout, nil)
		for range 100 {
			ctx := g.Context()
			var wg sync.WaitGroup
			for range 10 {
				wg.Go(func() {
					time.Sleep(timeout / 10)
					require.NoError(t, g.Enter(ctx))
					time.Sleep(timeout / 10)
					g.Leave(ctx, gate.Unknown, nil)
				})
			}
			time.Sleep(timeout / 20)
			wg.Wait()
		}
		require.False(t, g.Open())
	})
}

// A connection that breaks is one failure, however many calls it carried.
func TestManyFailuresAtOnceAreOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gate.New(512, timeout, nil)
		for i := range 5 {
			require.False(t, g.Open(), i)
			ctx := g.Context()
			for range 100 {
				require.NoError(t, g.Enter(ctx))
			}
			for range 100 {
				g.Leave(ctx, gate.Failed, io.EOF)
			}
			time.Sleep(timeout / 5)
		}
		require.True(t, g.Open())
	})
}

func TestTheBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gate.New(2, timeout, nil)
		var wg sync.WaitGroup
		start := time.Now()
		for range 6 {
			wg.Go(func() {
				_, err := call(g, 20*time.Millisecond)
				assert.NoError(t, err)
			})
		}
		wg.Wait()
		require.Equal(t, 60*time.Millisecond, time.Since(start))
		ctx := g.Context()
		for range 2 {
			require.NoError(t, g.Enter(ctx))
		}
		took, err := call(g, 0)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.LessOrEqual(t, took, timeout)
		for range 2 {
			g.Leave(ctx, gate.Answered, nil)
		}
		require.False(t, g.Open())
	})
}

// The time of a call begins when it does, give or take a tenth of it, however long nobody called
// before.
func TestContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gate.New(8, timeout, nil)
		for i := range 50 {
			start := time.Now()
			ctx := g.Context()
			deadline, ok := ctx.Deadline()
			require.True(t, ok)
			require.NoError(t, ctx.Err())
			go func() { <-ctx.Done() }() // several may wait
			<-ctx.Done()
			require.Equal(t, context.DeadlineExceeded, ctx.Err())
			took := time.Since(start)
			require.LessOrEqual(t, took, timeout)
			require.GreaterOrEqual(t, took, timeout*9/10)
			require.WithinDuration(t, time.Now(), deadline, timeout/10)
			time.Sleep(time.Duration(i) * timeout / 40)
		}
		var ctx context.Context
		for range 5 {
			time.Sleep(timeout / 5)
			ctx = g.Context()
			g.Record(ctx, gate.Failed, io.EOF)
		}
		<-ctx.Done()
		require.Equal(t, gate.ErrOpen, ctx.Err())
	})
}

func TestCallsShareContexts(t *testing.T) {
	g := gate.New(8, timeout, nil)
	if n := testing.AllocsPerRun(1000, func() {
		ctx := g.Context()
		if g.Enter(ctx) == nil {
			g.Leave(ctx, gate.Answered, nil)
		}
	}); n != 0 {
		t.Errorf("a call allocates %v times", n)
	}
}

func BenchmarkGate(b *testing.B) {
	g := gate.New(512, timeout, nil)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			ctx := g.Context()
			if g.Enter(ctx) == nil {
				g.Leave(ctx, gate.Answered, nil)
			}
		}
	})
}
