package redis_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend/redis"
	"github.com/ginlimit/ginlimit/internal/testserver"
)

// The rights that the documentation of Dial lists: for a user of the server, what is added in a
// Cluster and behind Sentinels, and those of the Sentinels' own user.
var (
	rights         = strings.Fields("~gl1:* +evalsha +eval +get +set +del +time +ping +info +client|tracking +client|caching")
	clusterRights  = strings.Fields("+cluster|slots +cluster|shards +asking")
	masterRights   = strings.Fields("+role")
	sentinelRights = strings.Fields("&* +sentinel|get-master-addr-by-name +sentinel|sentinels +subscribe +unsubscribe +ping +client|tracking")
)

// setUser makes a user with just these rights. Its password is dialSecret.
func setUser(t *testing.T, servers []*testserver.Server, user string, rights ...string) {
	t.Helper()
	for _, s := range servers {
		ask(t, s, append([]string{"ACL", "SETUSER", user, "reset", "on", ">" + dialSecret}, rights...)...)
		ask(t, s, "ACL", "LOG", "RESET")
	}
}

// asUser returns a URL with a user that setUser made.
func asUser(url, user string) string {
	return strings.Replace(url, "redis://", "redis://"+user+":"+dialSecret+"@", 1)
}

// refusedRights returns what servers refused to users, but for CLIENT SETINFO, with which rueidis
// says its name: servers that have it since Redis 7.2 may refuse it.
func refusedRights(t *testing.T, servers []*testserver.Server) (refused []any) {
	t.Helper()
	for _, s := range servers {
		for _, r := range ask(t, s, "ACL", "LOG").([]any) {
			if !slices.Contains(r.([]any), any("client|setinfo")) {
				refused = append(refused, r)
			}
		}
	}
	return refused
}

// useEverything fails the test unless a Backend and its Tiers do all that they can.
func useEverything(t *testing.T, b *redis.Backend) {
	t.Helper()
	dialEventually(t, func() bool { return redis.Remembers(b) })
	for _, key := range []string{"one", "two", "three", "four"} { // on several servers of a Cluster
		res := decide(t, b, key, 5, mixedLimits(4)...)
		require.NoError(t, b.Settle(t.Context(), key, res, 1, 0, mixedLimits(4)...))
		require.NoError(t, b.Reset(t.Context(), key))
		decide(t, b, key, 1, dialLimit(1))
		dialRemembered(t, b, key, dialLimit(1))
		require.NoError(t, b.Tiers().Set(t.Context(), key, tierExamples[1]))
		lookUp(t, b.Tiers(), key, tierExamples[1])
		require.NoError(t, b.Tiers().Delete(t.Context(), key))
	}
	time.Sleep(1100 * time.Millisecond) // a connection that is idle for 1 s gets a PING
}

// A user with the rights that the documentation lists can do all, and is refused nothing.
func TestRights(t *testing.T) {
	t.Parallel()
	t.Run("server", func(t *testing.T) {
		t.Parallel()
		servers := []*testserver.Server{testserver.Redis(t)}
		setUser(t, servers, "limits", rights...)
		var log dialLog
		useEverything(t, dialBackend(t, asUser(servers[0].URL(), "limits"), redis.WithPing(), log.option()))
		assert.Empty(t, log.String())
		for _, r := range refusedRights(t, servers) { // Dial tries whether it is a Cluster
			fields := r.([]any)
			what := fields[slices.Index(fields, any("object"))+1]
			assert.Contains(t, []any{"cluster|slots", "cluster|shards"}, what)
		}
	})
	t.Run("Cluster", func(t *testing.T) {
		t.Parallel()
		c := testserver.RedisCluster(t, 3, 0)
		setUser(t, c.Servers, "limits", slices.Concat(rights, clusterRights)...)
		var log dialLog
		b := dialBackend(t, asUser(c.URL(), "limits"), redis.WithPing(), log.option())
		useEverything(t, b)
		name := redis.StateKey(b, "moved")
		decide(t, b, "moved", 1, dialLimit(100))
		from, to := c.Owner(name), c.Servers[0]
		if from == to {
			to = c.Servers[1]
		}
		require.NoError(t, c.MigrateSlot(c.Slot(name), to, func() { decide(t, b, "moved", 1, dialLimit(100)) }))
		assert.Empty(t, log.String())
		assert.Empty(t, refusedRights(t, c.Servers))
	})
	t.Run("Sentinel", func(t *testing.T) {
		t.Parallel()
		s := testserver.RedisSentinel(t, 1)
		setUser(t, []*testserver.Server{s.Master, s.Replicas[0]}, "limits", slices.Concat(rights, masterRights)...)
		setUser(t, s.Sentinels, "sentinel", sentinelRights...)
		var log dialLog
		b := dialBackend(t, asUser(s.URL(), "limits"), redis.WithPing(), log.option(), redis.WithClientOption(func(o *rueidis.ClientOption) {
			o.Sentinel.Username, o.Sentinel.Password = "sentinel", dialSecret
		}))
		useEverything(t, b)
		assert.Empty(t, log.String())
		assert.Empty(t, refusedRights(t, append(s.Sentinels, s.Master)))
		s.Master.Kill()
		dialWithin(t, clusterSoon, func() bool {
			_, err := b.Take(t.Context(), "k", 1, dialLimit(100))
			return err == nil
		})
		useEverything(t, b)
	})
}

// Without any one of them the application says so: Dial with WithPing, and the log of one that
// started without.
func TestRightsThatAreMissing(t *testing.T) {
	t.Parallel()
	s := testserver.Redis(t)
	url := asUser(s.URL(), "limits")
	for _, right := range rights {
		setUser(t, []*testserver.Server{s}, "limits", slices.DeleteFunc(slices.Clone(rights), func(r string) bool { return r == right })...)
		ask(t, s, "SCRIPT", "FLUSH") // or EVAL is not needed
		var log, pinged dialLog
		b, err := redis.Dial(t.Context(), url, dialPatient(redis.WithPing(), pinged.option())...)
		switch right {
		case "+ping", "+info": // without them nothing is missed: the first keeps the server's ACL LOG clean, the second finds a policy that evicts
			require.NoError(t, err, right)
			require.NoError(t, b.Close())
			continue
		case "+client|tracking", "+client|caching":
			require.NoError(t, err, right)
			dialWithin(t, clusterSoon, func() bool {
				dialDecides(t, b)
				return pinged.count("GINLIMIT006") == 1
			})
			assert.False(t, redis.Remembers(b), right)
			require.NoError(t, b.Close())
			continue
		}
		dialUnavailable(t, err)
		require.ErrorIs(t, err, redis.ErrDenied, right)

		b = dialBackend(t, url, log.option())
		_, err = b.Take(t.Context(), "k", 1, dialLimit(100))
		if right == "+del" {
			require.NoError(t, err)
			err = b.Reset(t.Context(), "k")
		}
		require.ErrorIs(t, err, redis.ErrDenied, right)
		assert.Equal(t, 1, log.lines("level=WARN", "code=GINLIMIT007", "server="+s.Addr(), "kind=denied", "grant the rights that the documentation of redis.Dial lists"),
			"%s: %v", right, &log)
		assert.Equal(t, 1, log.lines(""), "%s: %v", right, &log)
	}
}
