package goredis_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	goredis9 "github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/goredis"
	"github.com/ginlimit/ginlimit/internal/redisstore"
	"github.com/ginlimit/ginlimit/internal/testserver"
)

// newInstance returns one of several instances of an application: a Backend with a client of its
// own that remembers refusals.
func newInstance(tb testing.TB, addr, prefix string, opts ...goredis.Option) *goredis.Backend {
	tb.Helper()
	b := goredis.New(newClient(tb, addr, cached), append([]goredis.Option{goredis.WithPrefix(prefix), goredis.WithTimeout(ample)}, opts...)...)
	require.Eventually(tb, func() bool { // a busy machine may be told too late that a key changed
		if _, err := b.Take(context.Background(), "look", 0, hourly(1, 0)); err != nil {
			return false
		}
		return redisstore.Remembers(goredis.Store(b))
	}, soon, time.Millisecond)
	return b
}

func newTruth(tb testing.TB, addr, prefix string) *goredis.Backend {
	tb.Helper()
	return goredis.New(newClient(tb, addr), goredis.WithPrefix(prefix), goredis.WithTimeout(ample), goredis.WithDenyCache(false))
}

// refuse makes b refuse cost locally, after the server refused it once.
func refuse(tb testing.TB, b *goredis.Backend, key string, cost int64, limits ...backend.Limit) {
	tb.Helper()
	require.Eventually(tb, func() bool { // the client may hold an older value for a moment
		res := decide(tb, b, key, cost, limits...)
		require.False(tb, res.Allowed)
		return res.Source == backend.SourceDenyCache
	}, soon, time.Millisecond)
}

// commands returns how many commands of the kinds that decisions are made of the server has got.
func commands(tb testing.TB, s *testserver.Server) (n int) {
	tb.Helper()
	for line := range strings.Lines(ask(tb, s, "INFO", "commandstats").(string)) {
		name, rest, ok := strings.Cut(strings.TrimPrefix(line, "cmdstat_"), ":calls=")
		if ok && (name == "get" || name == "evalsha" || name == "eval") {
			count, _, _ := strings.Cut(rest, ",")
			more, err := strconv.Atoi(count)
			require.NoError(tb, err)
			n += more
		}
	}
	return n
}

// A refused key costs the server nothing, and what callers are told is the server's truth.
func TestDenialCostsNothing(t *testing.T) {
	s := testserver.Redis(t)
	p := prefix()
	one, two, truth := newInstance(t, s.Addr(), p), newInstance(t, s.Addr(), p, goredis.WithAutoPipeline(true)), newTruth(t, s.Addr(), p)
	for _, a := range everyAlgorithm {
		key, limit := a.String(), hourly(5, a)
		for i := range 5 {
			require.True(t, decide(t, []*goredis.Backend{one, two}[i%2], key, 1, limit).Allowed)
		}
		refuse(t, one, key, 1, limit)
		refuse(t, two, key, 1, limit)
		want := decide(t, truth, key, 1, limit)
		before := commands(t, s)
		for range 200 {
			for _, b := range []*goredis.Backend{one, two} {
				res := decide(t, b, key, 1, limit)
				require.False(t, res.Allowed)
				require.Equal(t, backend.SourceDenyCache, res.Source)
				require.Equal(t, want.At.Add(want.RetryAfter).UnixMicro(), res.At.Add(res.RetryAfter).UnixMicro())
			}
		}
		// A refusal that is 5 s old is asked for again: on a machine that is busy that may be now.
		assert.LessOrEqual(t, commands(t, s)-before, 8, "%v", a)
	}
}

// Whatever gives a key room again, on whatever instance, ends the denials on all.
func TestDenialEnds(t *testing.T) {
	s := testserver.Redis(t)
	p := prefix()
	here, there := newInstance(t, s.Addr(), p), newInstance(t, s.Addr(), p)
	ctx := context.Background()
	for _, a := range everyAlgorithm {
		limit := hourly(5, a)
		for end, do := range map[string]func(key string, charge backend.Result) error{
			"Reset": func(key string, _ backend.Result) error { return there.Reset(ctx, key) },
			"refund": func(key string, charge backend.Result) error {
				return there.Settle(ctx, key, charge, 5, 0, limit)
			},
			"Settle here": func(key string, charge backend.Result) error {
				return here.Settle(ctx, key, charge, 5, 2, limit)
			},
			"Reset here": func(key string, _ backend.Result) error { return here.Reset(ctx, key) },
			"FLUSHALL": func(string, backend.Result) error {
				_, err := s.Do("FLUSHALL")
				return err
			},
			"DEL": func(key string, _ backend.Result) error {
				_, err := s.Do("DEL", redisstore.StateKey(goredis.Store(here), key))
				return err
			},
			"PEXPIRE": func(key string, _ backend.Result) error {
				_, err := s.Do("PEXPIRE", redisstore.StateKey(goredis.Store(here), key), "1")
				return err
			},
		} {
			t.Run(fmt.Sprint(a, "/", end), func(t *testing.T) {
				key := a.String() + end
				charge := decide(t, there, key, 5, limit)
				require.True(t, charge.Allowed)
				refuse(t, here, key, 1, limit)
				refuse(t, there, key, 1, limit)
				require.NoError(t, do(key, charge))
				if strings.HasSuffix(end, " here") { // whoever gives room sees it at once
					require.True(t, decide(t, here, key, 1, limit).Allowed)
				}
				for _, b := range []*goredis.Backend{here, there} {
					require.Eventually(t, func() bool { return decide(t, b, key, 1, limit).Allowed }, soon, time.Millisecond)
				}
			})
		}
	}
}

// A limit that was raised, or another cost or list of limits, is asked for.
func TestDenialOfAnotherQuestion(t *testing.T) {
	s := testserver.Redis(t)
	b := newInstance(t, s.Addr(), prefix())
	for _, a := range everyAlgorithm {
		key, limit := a.String(), hourly(5, a)
		require.True(t, decide(t, b, key, 3, limit).Allowed)
		refuse(t, b, key, 3, limit)
		require.True(t, decide(t, b, key, 2, limit).Allowed, "less")
		refuse(t, b, key, 1, limit)
		require.True(t, decide(t, b, key, 1, hourly(10, a)).Allowed, "raised: %v", a)
	}
}

// A wait that is over admits, without an answer of the server's that says so.
func TestDenialIsOver(t *testing.T) {
	s := testserver.Redis(t)
	b := newInstance(t, s.Addr(), prefix())
	limit := backend.Limit{Count: 10, Period: 5 * time.Second, Burst: 1}
	admitted, begin := 0, time.Now()
	for admitted < 4 {
		if res := decide(t, b, "k", 1, limit); res.Allowed {
			admitted++
		} else {
			require.LessOrEqual(t, res.RetryAfter, 500*time.Millisecond)
		}
		require.Less(t, time.Since(begin), soon)
	}
	require.GreaterOrEqual(t, time.Since(begin), 1490*time.Millisecond)
}

// Connections that are lost take what was remembered with them: what happened meanwhile is seen.
func TestDenialsAndLostConnections(t *testing.T) {
	s := testserver.Redis(t)
	p := prefix()
	b := newInstance(t, s.Addr(), p)
	limit := hourly(5, 0)
	for i := range 5 {
		key := fmt.Sprint("k", i)
		require.True(t, decide(t, b, key, 5, limit).Allowed)
		refuse(t, b, key, 1, limit)
		// Nobody tells a connection that has ended: the key is gone before the client knows that.
		ask(t, s, "CLIENT", "KILL", "TYPE", "normal")
		ask(t, s, "DEL", redisstore.StateKey(goredis.Store(b), key))
		require.Eventually(t, func() bool {
			res, err := b.Take(t.Context(), key, 1, limit)
			return err == nil && res.Allowed
		}, soon, time.Millisecond)
	}
}

// A server that starts anew, empty, has no refusals.
func TestDenialsAndRestart(t *testing.T) {
	s := testserver.Redis(t)
	b := newInstance(t, s.Addr(), prefix())
	limit := hourly(5, 0)
	require.True(t, decide(t, b, "k", 5, limit).Allowed)
	refuse(t, b, "k", 1, limit)
	s.Kill()
	require.NoError(t, s.Restart())
	require.Eventually(t, func() bool {
		res, err := b.Take(t.Context(), "k", 1, limit)
		return err == nil && res.Allowed
	}, soon, time.Millisecond)
}

// While the server hangs nothing is refused for longer than the breaker takes to open, and then
// for as long as callers ask again, which nobody could say is right.
func TestDenialsAndHang(t *testing.T) {
	s := testserver.Redis(t)
	p := prefix()
	b := goredis.New(newClient(t, s.Addr(), cached), goredis.WithPrefix(p), goredis.WithTimeout(200*time.Millisecond))
	limit := hourly(5, 0)
	require.Eventually(t, func() bool {
		res, err := b.Take(t.Context(), "k", 1, limit)
		return err == nil && res.Source == backend.SourceDenyCache
	}, soon, time.Millisecond)
	s.Pause()
	defer s.Resume()
	require.Eventually(t, func() bool {
		_, err := b.Take(t.Context(), "other", 1, limit) // opens the breaker
		require.Error(t, err)
		_, err = b.Take(t.Context(), "k", 1, limit)
		return err != nil
	}, soon, time.Millisecond)
	s.Resume()
	require.Eventually(t, func() bool {
		res, err := b.Take(t.Context(), "k", 1, limit)
		return err == nil && res.Source == backend.SourceDenyCache
	}, soon, time.Millisecond)
}

// Over keys that are refused and refunded all the time, on several instances, none is admitted
// beyond a limit, and what has room is admitted by all once it is quiet.
func TestDenialsUnderLoad(t *testing.T) {
	s := testserver.Redis(t)
	p := prefix()
	backends := []*goredis.Backend{newInstance(t, s.Addr(), p), newInstance(t, s.Addr(), p), newTruth(t, s.Addr(), p)}
	limits := make([]backend.Limit, len(everyAlgorithm))
	for i, a := range everyAlgorithm {
		limits[i] = backend.Limit{Count: 3, Period: 100 * 24 * time.Hour, Algorithm: a}
	}
	var holds [4]atomic.Int64
	var denied atomic.Int64
	var wg sync.WaitGroup
	ctx := context.Background()
	for c := range 24 {
		wg.Go(func() {
			b, i := backends[c%3], c%4
			key := fmt.Sprint("load", i)
			for range 60 {
				res, err := b.Take(ctx, key, 1, limits[i])
				if err != nil {
					t.Error(err)
					return
				}
				if !res.Allowed {
					if res.Source == backend.SourceDenyCache {
						denied.Add(1)
					}
					continue
				}
				if n := holds[i].Add(1); n > 3 {
					t.Errorf("%d hold what 3 may", n)
				}
				holds[i].Add(-1)
				if err := b.Settle(ctx, key, res, 1, 0, limits[i]); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for i := range limits {
		for _, b := range backends {
			usage, err := b.Usage(ctx, fmt.Sprint("load", i), limits[i])
			require.NoError(t, err)
			require.Zero(t, usage[0].Used(), "%v", limits[i])
		}
		for _, b := range backends {
			require.Eventually(t, func() bool { return decide(t, b, fmt.Sprint("load", i), 1, limits[i]).Allowed }, soon, time.Millisecond)
		}
	}
	t.Log("refused locally:", denied.Load())
}

// Where the client cannot remember, one line of the log says so, and nothing is remembered.
func TestDenyCacheIsOff(t *testing.T) {
	s := testserver.Redis(t)
	c := testserver.RedisCluster(t, 3, 0)
	deaf := testserver.Redis(t, "--user", "default", "on", "nopass", "~*", "&*", "+@all", "-client|tracking")
	for name, client := range map[string]goredis9.UniversalClient{
		"not configured": newClient(t, s.Addr()),
		"RESP2":          newClient(t, s.Addr(), cached, func(o *goredis9.Options) { o.Protocol = 2 }),
		"database 1":     newClient(t, s.Addr(), cached, func(o *goredis9.Options) { o.DB = 1 }),
		"Cluster":        newCluster(t, c),
		"no right":       newClient(t, deaf.Addr(), cached),
	} {
		t.Run(name, func(t *testing.T) {
			var log lines
			b := goredis.New(client, goredis.WithPrefix(prefix()), goredis.WithTimeout(ample), log.option())
			limit := hourly(1, 0)
			require.True(t, decide(t, b, "k", 1, limit).Allowed)
			for range 50 {
				res := decide(t, b, "k", 1, limit)
				require.False(t, res.Allowed)
				require.Equal(t, backend.SourceStore, res.Source)
			}
			require.Equal(t, 1, log.count("code=GINLIMIT006"))
			require.False(t, redisstore.Remembers(goredis.Store(b)))

			log = lines{}
			b = goredis.New(client, goredis.WithPrefix(prefix()), goredis.WithTimeout(ample), goredis.WithDenyCache(false), log.option())
			decide(t, b, "k", 1, limit)
			require.Zero(t, log.count("GINLIMIT006"))
		})
	}
}
