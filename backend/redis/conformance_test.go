package redis_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/backendtest"
	"github.com/ginlimit/ginlimit/backend/redis"
	"github.com/ginlimit/ginlimit/internal/testserver"
)

// ample is the time of a decision where a test is about answers, however busy the machine is.
const ample = time.Minute

// prefixes gives every test keys of its own on a server that it shares.
var prefixes atomic.Int64

func prefix() string { return fmt.Sprint("test", prefixes.Add(1), "-") }

// settable is a clock that a test moves.
type settable struct{ micros atomic.Int64 }

func newSettable() *settable {
	c := &settable{}
	c.micros.Store(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro())
	return c
}

func (c *settable) advance(d time.Duration) { c.micros.Add(d.Microseconds()) }

// newClient returns a client of one server, without a cache unless cached.
func newClient(tb testing.TB, addr string, cached bool) rueidis.Client {
	tb.Helper()
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{addr}, AlwaysPipelining: true, ForceSingleClient: true, DisableCache: !cached,
	})
	require.NoError(tb, err)
	tb.Cleanup(client.Close)
	return client
}

// The scripts read the server's clock, which is moved.
func TestConformanceMiniredis(t *testing.T) {
	server := miniredis.RunT(t)
	server.ClockTTL(true)
	client := newClient(t, server.Addr(), false)
	backendtest.Run(t, backendtest.Harness{
		New: func(*testing.T) (backend.Backend, func(time.Duration)) {
			now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
			server.SetTime(now)
			return redis.New(client, redis.WithPrefix(prefix()), redis.WithDenyCache(false), redis.WithTimeout(ample)),
				func(d time.Duration) {
					now = now.Add(d)
					server.SetTime(now)
				}
		},
		TTL: func(_ *testing.T, b backend.Backend, key string) time.Duration {
			return server.TTL(redis.StateKey(b.(*redis.Backend), key))
		},
		Callers: 1000,
	})
}

// The scripts get their clock from the test.
func TestConformanceServer(t *testing.T) {
	server := testserver.Redis(t)
	conformance(t, newClient(t, server.Addr(), true))
}

func conformance(t *testing.T, client rueidis.Client) {
	backendtest.Run(t, backendtest.Harness{
		New: func(*testing.T) (backend.Backend, func(time.Duration)) {
			b := redis.New(client, redis.WithPrefix(prefix()), redis.WithTimeout(ample))
			clock := newSettable()
			redis.SetClock(b, clock.micros.Load)
			return b, clock.advance
		},
		Backward: true,
		TTL: func(t *testing.T, b backend.Backend, key string) time.Duration {
			return kept(t, client, redis.StateKey(b.(*redis.Backend), key), redis.Now(b.(*redis.Backend)))
		},
		Callers: 2000,
	})
}

// kept returns how long the server would keep key if its clock had moved as the backend's did since
// the last write.
func kept(t *testing.T, client rueidis.Client, key string, now int64) time.Duration {
	ctx := context.Background()
	value, err := client.Do(ctx, client.B().Get().Key(key).Build()).ToString()
	if rueidis.IsRedisNil(err) {
		return 0
	}
	require.NoError(t, err)
	ms, err := client.Do(ctx, client.B().Pttl().Key(key).Build()).ToInt64()
	require.NoError(t, err)
	require.NotEqual(t, int64(-1), ms, "%s has no end", key)
	var sec, usec int64
	_, err = fmt.Sscanf(value, "%d %d", &sec, &usec)
	require.NoError(t, err)
	return time.Duration(ms-redis.TestExtra)*time.Millisecond - time.Duration(now-sec*1_000_000-usec)*time.Microsecond
}
