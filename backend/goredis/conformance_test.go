package goredis_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	goredis9 "github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/backendtest"
	"github.com/ginlimit/ginlimit/backend/goredis"
	"github.com/ginlimit/ginlimit/internal/redisstore"
	"github.com/ginlimit/ginlimit/internal/testserver"
)

// ample is the time of a decision where a test is about answers, however busy the machine is.
const ample = time.Minute

// prefixes gives every test keys of its own on a server that it shares.
var prefixes atomic.Int64

func prefix() string { return fmt.Sprint("test", prefixes.Add(1), "-") }

// patient are the client's time-outs where a test is about answers.
func patient(o *goredis9.Options) {
	o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout = ample, ample, ample, ample
}

// newClient returns a client of one server.
func newClient(tb testing.TB, addr string, set ...func(*goredis9.Options)) *goredis9.Client {
	tb.Helper()
	o := &goredis9.Options{Addr: addr}
	patient(o)
	for _, f := range set {
		f(o)
	}
	client := goredis9.NewClient(o)
	tb.Cleanup(func() { _ = client.Close() })
	return client
}

func cached(o *goredis9.Options) {
	o.ClientSideCacheConfig = &goredis9.ClientSideCacheConfig{}
}

func newCluster(tb testing.TB, c *testserver.Cluster, set ...func(*goredis9.ClusterOptions)) *goredis9.ClusterClient {
	tb.Helper()
	o := &goredis9.ClusterOptions{DialTimeout: ample, ReadTimeout: ample, WriteTimeout: ample, PoolTimeout: ample}
	for _, s := range c.Servers {
		o.Addrs = append(o.Addrs, s.Addr())
	}
	for _, f := range set {
		f(o)
	}
	client := goredis9.NewClusterClient(o)
	tb.Cleanup(func() { _ = client.Close() })
	return client
}

func newSentinel(tb testing.TB, s *testserver.Sentinel) *goredis9.Client {
	tb.Helper()
	o := &goredis9.FailoverOptions{MasterName: "mymaster"}
	for _, server := range s.Sentinels {
		o.SentinelAddrs = append(o.SentinelAddrs, server.Addr())
	}
	client := goredis9.NewFailoverClient(o)
	tb.Cleanup(func() { _ = client.Close() })
	return client
}

// conformance runs the suite by a clock that moves.
func conformance(t *testing.T, client goredis9.UniversalClient, opts ...goredis.Option) {
	callers, rounds := 2000, 1
	_, slots := client.(*goredis9.ClusterClient)
	switch {
	case slots:
		callers = 500
	case len(opts) == 0: // the usual client has the whole of the random schedules
		rounds = 0
	}
	backendtest.Run(t, backendtest.Harness{
		New: func(*testing.T) (backend.Backend, func(time.Duration)) {
			b := goredis.New(client, append([]goredis.Option{goredis.WithPrefix(prefix()), goredis.WithTimeout(ample)}, opts...)...)
			var micros atomic.Int64
			micros.Store(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro())
			redisstore.SetClock(goredis.Store(b), micros.Load)
			return b, func(d time.Duration) { micros.Add(d.Microseconds()) }
		},
		Backward: true,
		TTL: func(t *testing.T, b backend.Backend, key string) time.Duration {
			store := goredis.Store(b.(*goredis.Backend))
			return kept(t, client, redisstore.StateKey(store, key), redisstore.Now(store))
		},
		Callers:  callers,
		Rounds:   rounds,
		OneByOne: slots, // keys of several slots
	})
}

// kept returns how long the server would keep key if its clock had moved as the backend's did since
// the last write.
func kept(t *testing.T, client goredis9.UniversalClient, key string, now int64) time.Duration {
	ctx := context.Background()
	value, err := client.Do(ctx, "eval", "return redis.call('GET', KEYS[1])", 1, key).Text() // past the cache
	if errors.Is(err, goredis9.Nil) {
		return 0
	}
	require.NoError(t, err)
	left, err := client.Do(ctx, "pttl", key).Int64()
	require.NoError(t, err)
	require.NotEqual(t, int64(-1), left, "%s has no end", key)
	var sec, usec int64
	_, err = fmt.Sscanf(value, "%d %d", &sec, &usec)
	require.NoError(t, err)
	return time.Duration(left-redisstore.TestExtra)*time.Millisecond - time.Duration(now-sec*1_000_000-usec)*time.Microsecond
}

func TestConformance(t *testing.T) {
	s := testserver.Redis(t)
	t.Run("server", func(t *testing.T) { conformance(t, newClient(t, s.Addr(), cached)) })
	t.Run("RESP2", func(t *testing.T) {
		conformance(t, newClient(t, s.Addr(), func(o *goredis9.Options) { o.Protocol = 2 }), goredis.WithDenyCache(false))
	})
	t.Run("context", func(t *testing.T) {
		conformance(t, newClient(t, s.Addr(), func(o *goredis9.Options) { o.ContextTimeoutEnabled = true }), goredis.WithDenyCache(false))
	})
	t.Run("AutoPipeline", func(t *testing.T) {
		conformance(t, newClient(t, s.Addr()), goredis.WithDenyCache(false), goredis.WithAutoPipeline(true))
	})
}

func TestConformanceCluster(t *testing.T) {
	c := testserver.RedisCluster(t, 3, 0)
	t.Run("plain", func(t *testing.T) { conformance(t, newCluster(t, c), goredis.WithDenyCache(false)) })
	t.Run("AutoPipeline", func(t *testing.T) {
		conformance(t, newCluster(t, c), goredis.WithDenyCache(false), goredis.WithAutoPipeline(true))
	})
}

func TestConformanceSentinel(t *testing.T) {
	s := testserver.RedisSentinel(t, 1)
	conformance(t, newSentinel(t, s), goredis.WithDenyCache(false))
}
