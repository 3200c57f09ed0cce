package redis_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/redis"
	"github.com/ginlimit/ginlimit/internal/testserver"
)

// A flood that keeps the process busy lets nobody past the limits of a server that answers. It is
// never taken for one that is silent, and no decision is given up because goroutines wait for their
// turn, also when the server does not know the script.
func TestAFloodOpensNoDoor(t *testing.T) {
	for name, connect := range map[string]func(t *testing.T, s *testserver.Server) *redis.Backend{
		"Dial": func(t *testing.T, s *testserver.Server) *redis.Backend { return gateBackend(t, s.URL()) },
		"New": func(t *testing.T, s *testserver.Server) *redis.Backend {
			return redis.New(newClient(t, s.Addr(), true))
		},
	} {
		t.Run(name, func(t *testing.T) { flood(t, connect(t, testserver.Redis(t))) })
	}
}

func flood(t *testing.T, b *redis.Backend) {
	const users, each, callers, hogs, asks = 400, 10, 1000, 4, 8000
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	var stop atomic.Bool
	var hogging, calling sync.WaitGroup
	for range hogs {
		hogging.Go(func() {
			for !stop.Load() {
			}
		})
	}
	var asked, allowed, failed atomic.Int64
	var errs sync.Map
	for range callers {
		calling.Go(func() {
			for i := asked.Add(1); i <= asks; i = asked.Add(1) {
				for end := time.Now().Add(100 * time.Microsecond); time.Now().Before(end); {
					// what else a request costs
				}
				res, err := b.Take(context.Background(), fmt.Sprint("user\x00", i%users), 1, hourly(each, backend.TokenBucket))
				switch {
				case err != nil:
					failed.Add(1)
					errs.Store(err.Error(), true)
				case res.Allowed:
					allowed.Add(1)
				}
			}
		})
	}
	calling.Wait()
	stop.Store(true)
	hogging.Wait()
	errs.Range(func(text, _ any) bool { t.Log(text); return true })
	require.Zero(t, failed.Load(), "of %d decisions", asks)
	assert.Equal(t, int64(users*each), allowed.Load())
}
