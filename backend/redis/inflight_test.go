package redis_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/backendtest"
	"github.com/ginlimit/ginlimit/backend/redis"
	"github.com/ginlimit/ginlimit/internal/testserver"
)

// holder is the environment variable by which this binary is started as a process that holds a
// place: the server's address.
const holder = "GINLIMIT_TEST_HOLDS_A_PLACE"

// fourPlaces come back after two seconds if nobody renews them.
var fourPlaces = backend.Limit{Count: 4, Period: 2 * time.Second, Algorithm: backend.Concurrency}

// TestHoldAPlace is the process of TestAPlaceOfAKilledProcess: it ends with its standard input.
func TestHoldAPlace(t *testing.T) {
	addr := os.Getenv(holder)
	if addr == "" {
		t.Skip("it is started by TestAPlaceOfAKilledProcess")
	}
	b := redis.New(newClient(t, addr, false), redis.WithDenyCache(false), redis.WithTimeout(ample))
	taken, err := b.Take(t.Context(), "places", 1, fourPlaces)
	require.NoError(t, err)
	require.True(t, taken.Allowed)
	fmt.Println("held")
	over := make(chan struct{})
	go func() {
		defer close(over)
		_, _ = io.Copy(io.Discard, os.Stdin)
	}()
	for range 600 {
		select {
		case <-over:
			return
		case <-time.After(100 * time.Millisecond):
			taken, err = b.Renew(context.Background(), "places", taken, 1, fourPlaces)
			require.NoError(t, err)
		}
	}
}

// TestAPlaceOfAKilledProcess: four processes hold all places for longer than three Periods. One is
// killed, and its place comes back; those of the others stay.
func TestAPlaceOfAKilledProcess(t *testing.T) {
	if testing.Short() {
		t.Skip("it waits for the server's clock")
	}
	s := testserver.Redis(t)
	var held []*exec.Cmd
	for range 4 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestHoldAPlace$", "-test.v")
		cmd.Env = append(os.Environ(), holder+"="+s.Addr())
		in, err := cmd.StdinPipe()
		require.NoError(t, err)
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		t.Cleanup(func() {
			_ = in.Close()
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
		held = append(held, cmd)
		var said string
		for said != "held" {
			_, err := fmt.Fscan(out, &said)
			require.NoError(t, err)
		}
		go func() { _, _ = io.Copy(io.Discard, out) }()
	}
	b := redis.New(newClient(t, s.Addr(), false), redis.WithDenyCache(false), redis.WithTimeout(ample))
	take := func() bool {
		res, err := b.Take(t.Context(), "places", 1, fourPlaces)
		require.NoError(t, err)
		return res.Allowed
	}
	for range 14 {
		require.False(t, take(), "a place that is renewed comes back")
		time.Sleep(500 * time.Millisecond)
	}
	require.NoError(t, held[0].Process.Kill())
	require.Eventually(t, take, time.Minute, 100*time.Millisecond, "the place of a process that was killed")
	require.False(t, take(), "the place of another")
}

// TestCrowdedPlaces: 10,000 callers want 100 places while Redis, which writes each decision to its
// disk before it answers, is killed and starts again.
func TestCrowdedPlaces(t *testing.T) {
	s := testserver.Redis(t, "--appendonly", "yes", "--appendfsync", "always")
	b := redis.New(newClient(t, s.Addr(), false), redis.WithTimeout(ample))
	callers := 10_000
	if testing.Short() {
		callers = 2_000
	}
	backendtest.Crowd(t, b, callers, func() { require.NoError(t, s.Restart()) })
}
