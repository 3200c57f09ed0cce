//go:build unix

package redis_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend/redis"
	"github.com/ginlimit/ginlimit/internal/testserver"
)

// standsStill is the time of a decision in that test: so few callers do not need it all, however
// busy the machine is.
const standsStill = 2 * time.Second

// A process that stands still for longer than a decision has, as a machine that is moved to another
// host does, takes that for no failure of Redis: it gives up no decision.
func TestAProcessThatStandsStill(t *testing.T) {
	const url = "STANDS_STILL"
	if os.Getenv(url) != "" {
		standStill(t, os.Getenv(url))
		return
	}
	s := testserver.Redis(t)
	child := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
	child.Env = append(os.Environ(), url+"="+s.URL())
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	child.Stderr = os.Stderr
	require.NoError(t, child.Start())
	defer func() { _ = child.Process.Kill() }()
	lines := bufio.NewScanner(out)
	for lines.Scan() && lines.Text() != "under way" {
	}
	for range 3 {
		time.Sleep(100 * time.Millisecond)
		require.NoError(t, child.Process.Signal(syscall.SIGSTOP))
		time.Sleep(2 * standsStill)
		require.NoError(t, child.Process.Signal(syscall.SIGCONT))
	}
	for lines.Scan() {
		t.Log(lines.Text())
	}
	assert.NoError(t, child.Wait())
}

// standStill decides until it has stood still three times.
func standStill(t *testing.T, url string) {
	b, err := redis.Dial(t.Context(), url, redis.WithTimeout(standsStill))
	require.NoError(t, err)
	defer b.Close()
	var stop atomic.Bool
	var decided atomic.Int64
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for !stop.Load() {
				if _, err := b.Take(context.Background(), fmt.Sprint("k", i), 1, gateLimit); !assert.NoError(t, err) {
					return
				}
				decided.Add(1)
			}
		})
	}
	require.Eventually(t, func() bool { return decided.Load() > 100 }, soon, time.Millisecond)
	fmt.Println("under way")
	for still := 0; still < 3 && !t.Failed(); {
		before := time.Now()
		if time.Sleep(time.Millisecond); time.Since(before) > standsStill {
			still++
		}
	}
	stop.Store(true)
	wg.Wait()
	t.Logf("%d decisions", decided.Load())
}
