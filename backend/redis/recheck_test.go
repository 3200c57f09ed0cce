package redis_test

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/redis"
)

// untold is a Backend in a synctest bubble, on a server that accepts CLIENT TRACKING and never says
// that a key has changed.
type untold struct {
	*redis.Backend
	server *miniredis.Miniredis
	now    time.Time    // of the server
	slow   atomic.Int64 // how long a script takes
	log    dialLog
}

func newUntold(t *testing.T) *untold {
	u := &untold{server: miniredis.NewMiniRedis(), now: time.Now()}
	u.server.ClockTTL(true)
	u.server.SetTime(u.now)
	dial := func(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error) { return u.server.Dial() }
	conn, err := u.server.Dial()
	require.NoError(t, err)
	require.NoError(t, conn.Close())
	u.server.Server().SetPreHook(func(peer *server.Peer, command string, args ...string) bool {
		if command == "EVALSHA" {
			time.Sleep(time.Duration(u.slow.Load()))
		}
		if command != "CLIENT" || args[0] != "TRACKING" && args[0] != "CACHING" {
			return false
		}
		peer.WriteOK()
		return true
	})
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{"mini:6379"}, AlwaysPipelining: true, ForceSingleClient: true, PipelineMultiplex: -1, DialCtxFn: dial,
	})
	require.NoError(t, err)
	u.Backend = redis.New(client, u.log.option())
	t.Cleanup(func() {
		client.Close()
		u.server.Close()
		time.Sleep(time.Minute) // what runs for others ends
	})
	return u
}

// pass lets time go by, everywhere.
func (u *untold) pass(d time.Duration) {
	time.Sleep(d)
	u.step(d)
}

// step moves the server's clock.
func (u *untold) step(d time.Duration) {
	u.now = u.now.Add(d)
	u.server.SetTime(u.now)
}

// A server that keeps what was read and never says that it changed is found out: then refusals are
// not remembered.
func TestAServerThatTellsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUntold(t)
		limit := dialLimit(1)
		for range 10 {
			_, err := u.Take(t.Context(), "k", 1, limit)
			require.NoError(t, err)
			u.pass(time.Second)
		}
		require.False(t, redis.Remembers(u.Backend))
		require.Equal(t, 1, u.log.count("GINLIMIT006"))
		require.Equal(t, 1, u.log.lines(""))
		require.NoError(t, u.Reset(t.Context(), "k"))
		require.True(t, decide(t, u.Backend, "k", 1, limit).Allowed)
	})
}

// What nobody says is a short mistake: after 5 s one caller asks again, while all others are still
// refused.
func TestADenialIsAskedForAgain(t *testing.T) {
	const callers = 10
	for name, change := range map[string]func(u *untold){
		"SWAPDB": func(u *untold) { u.server.SwapDB(0, 1) },
		"Reset elsewhere": func(u *untold) {
			u.server.Del(redis.StateKey(u.Backend, "k"))
		},
		"the server's clock goes on": func(u *untold) { u.step(40 * time.Minute) },
		"nothing":                    func(*untold) {},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				u := newUntold(t)
				redis.RememberAnyway(u.Backend)
				limit := hourly(2, backend.TokenBucket)
				take := func() (stored, local, allowed int) {
					var mu sync.Mutex
					var wg sync.WaitGroup
					for range callers {
						wg.Go(func() {
							res, err := u.Take(t.Context(), "k", 1, limit)
							assert.NoError(t, err)
							mu.Lock()
							defer mu.Unlock()
							if res.Allowed {
								allowed++
							}
							if res.Source == backend.SourceDenyCache {
								local++
							} else {
								stored++
							}
						})
					}
					wg.Wait()
					return stored, local, allowed
				}
				require.True(t, decide(t, u.Backend, "k", 2, limit).Allowed)
				require.False(t, decide(t, u.Backend, "k", 1, limit).Allowed)
				require.Equal(t, backend.SourceDenyCache, decide(t, u.Backend, "k", 1, limit).Source)
				change(u)
				for range 4 {
					stored, local, _ := take()
					require.Equal(t, [2]int{0, callers}, [2]int{stored, local})
					u.pass(time.Second)
				}
				u.pass(time.Second)
				u.slow.Store(int64(redis.DefaultTimeout / 2))
				stored, local, allowed := take()
				require.Equal(t, [2]int{1, callers - 1}, [2]int{stored, local})
				require.Equal(t, name != "nothing", allowed == 1)
				u.slow.Store(0)
				for range 20 {
					u.pass(time.Second)
					_, _, more := take()
					allowed += more
				}
				require.LessOrEqual(t, allowed, 2)
			})
		})
	}
}

// A clock that goes back makes a caller wait as long as the store says, and not for the remembered
// wait before.
func TestADenialAndAClockThatGoesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUntold(t)
		redis.RememberAnyway(u.Backend)
		limit := backend.Limit{Count: 1, Period: time.Minute, Algorithm: backend.FixedWindow}
		require.True(t, decide(t, u.Backend, "k", 1, limit).Allowed)
		u.pass(10 * time.Second)
		require.False(t, decide(t, u.Backend, "k", 1, limit).Allowed)
		u.step(-time.Hour)
		waited := time.Duration(0)
		for !decide(t, u.Backend, "k", 1, limit).Allowed {
			u.pass(time.Second)
			waited += time.Second
		}
		assert.LessOrEqual(t, waited, time.Minute+5*time.Second)
	})
}

// A caller that asks again and gets no answer leaves it to the next, and the others are refused.
func TestADenialThatCannotBeAskedForAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUntold(t)
		redis.RememberAnyway(u.Backend)
		limit := hourly(1, backend.FixedWindow)
		decide(t, u.Backend, "k", 1, limit)
		decide(t, u.Backend, "k", 1, limit)
		decide(t, u.Backend, "k", 1, limit) // from the cache from now on
		u.pass(4 * time.Second)
		u.server.SetError("ERR of a proxy")
		failed := 0
		for range 50 {
			u.pass(100 * time.Millisecond)
			res, err := u.Take(t.Context(), "k", 1, limit)
			if err != nil {
				failed++
				continue
			}
			require.False(t, res.Allowed)
		}
		assert.Equal(t, 5, failed, "one a second")
	})
}
