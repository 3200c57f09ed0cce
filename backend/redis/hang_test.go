package redis_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/redis"
	"github.com/ginlimit/ginlimit/internal/testserver"
)

// decision is how a call ended, and how long that took.
type decision struct {
	at, took time.Duration // at: from the start of the load
	err      error
}

// thousandASecond makes a call every ms, whatever became of those before, and returns all in the
// order of their starts.
func thousandASecond(b backend.Backend, length time.Duration) []decision {
	all := make([]decision, length/time.Millisecond)
	var wg sync.WaitGroup
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	start := time.Now()
	for i := range all {
		wg.Go(func() {
			d := &all[i]
			d.at = time.Since(start)
			_, d.err = b.Take(context.Background(), "k", 1, gateLimit)
			d.took = time.Since(start) - d.at
		})
		<-tick.C
	}
	wg.Wait()
	return all
}

// A server that hangs under load: what that costs the callers, and how soon decisions are reached
// again after SIGCONT, or after a restart. The figures are printed; FAULTS=long takes a minute of
// load, as make test-faults does.
func TestHangUnderLoad(t *testing.T) {
	length, rounds := 2*time.Second, 1
	if os.Getenv("FAULTS") == "long" {
		length, rounds = time.Minute, 5
	}
	server := testserver.Redis(t)
	b := gateBackend(t, server.URL())
	_, err := b.Take(t.Context(), "k", 1, gateLimit)
	require.NoError(t, err)

	server.Pause()
	all := thousandASecond(b, length)
	var open []time.Duration
	var lost time.Duration
	whole, opened := 0, time.Duration(0)
	for _, d := range all {
		require.ErrorIs(t, d.err, backend.ErrUnavailable)
		if errors.Is(d.err, redis.ErrBreakerOpen) && opened == 0 {
			opened = d.at + d.took
		}
		if d.at < time.Second {
			lost += d.took
			if d.took >= redis.DefaultTimeout*9/10 {
				whole++
			}
		}
		if opened != 0 && d.at > opened {
			open = append(open, d.took)
		}
	}
	require.NotEmpty(t, open, "the breaker did not open")
	slices.Sort(open)
	t.Logf("SIGSTOP for %v at 1,000 decisions a second: the breaker opened after %v; then p50 %v, p99 %v, longest %v; in the first second %d decisions "+
		"waited for their whole %v, and all together for %v", length, opened.Round(time.Millisecond), open[len(open)/2], open[len(open)*99/100],
		open[len(open)-1], whole, redis.DefaultTimeout, lost.Round(time.Millisecond))

	for name, fault := range map[string]struct{ strike, mend func() error }{
		"SIGCONT": {func() error { server.Pause(); return nil }, func() error { server.Resume(); return nil }},
		"restart": {func() error { server.Kill(); return nil }, server.Restart},
	} {
		server.Resume()
		var took []time.Duration
		for range rounds {
			require.NoError(t, fault.strike())
			thousandASecond(b, time.Second)
			require.NoError(t, fault.mend())
			mended := time.Now()
			require.Eventually(t, func() bool {
				_, err := b.Take(t.Context(), "k", 1, gateLimit)
				return err == nil
			}, 20*time.Second, time.Millisecond)
			took = append(took, time.Since(mended))
		}
		slices.Sort(took)
		t.Logf("after %s Redis decided again within %v (median), %v (longest) of %d", name, took[len(took)/2].Round(time.Millisecond),
			took[len(took)-1].Round(time.Millisecond), rounds)
	}
	assert.NotContains(t, b.Breakers(), "", "each server has a name")
	for addr, open := range b.Breakers() {
		assert.Equal(t, server.Addr(), addr)
		assert.False(t, open)
	}
}

// A server that hangs before the application starts costs no more than one that hangs later: only
// those wait for a connection who begin to make one.
func TestHangBeforeDial(t *testing.T) {
	server := testserver.Redis(t)
	server.Pause()
	b, err := redis.Dial(t.Context(), server.URL())
	require.NoError(t, err)
	t.Cleanup(func() { b.Close() })
	all := thousandASecond(b, 2*time.Second)
	whole := 0
	for _, d := range all {
		require.ErrorIs(t, d.err, backend.ErrUnavailable)
		if d.took >= redis.DefaultTimeout*9/10 {
			whole++
		}
	}
	t.Logf("%d of %d decisions waited for their whole %v", whole, len(all), redis.DefaultTimeout)
	assert.Less(t, whole, len(all)/20)
	for _, open := range b.Breakers() {
		assert.True(t, open)
	}
	server.Resume()
	require.Eventually(t, func() bool {
		_, err := b.Take(t.Context(), "k", 1, gateLimit)
		return err == nil
	}, 20*time.Second, time.Millisecond)
}
