package goredis_test

import (
	"slices"
	"strings"
	"testing"

	goredis9 "github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/goredis"
	"github.com/ginlimit/ginlimit/internal/redisstore"
	"github.com/ginlimit/ginlimit/internal/testserver"
)

// The rights that the documentation of New lists, and what is added in a Cluster.
var (
	rights        = strings.Fields("~gl1:* +evalsha +eval +get +set +del +time +ping +info +client|tracking")
	clusterRights = strings.Fields("+cluster|slots +command +asking")
)

// A user with the rights that the documentation lists can do all. What go-redis asks for itself,
// and does without, is all that is refused.
func TestRights(t *testing.T) {
	asUser := func(o *goredis9.Options) { o.Username, o.Password = "limits", "a-secret" }
	setUser := func(servers []*testserver.Server, rights ...string) {
		for _, s := range servers {
			ask(t, s, append([]string{"ACL", "SETUSER", "limits", "reset", "on", ">a-secret"}, rights...)...)
			ask(t, s, "ACL", "LOG", "RESET")
		}
	}
	check := func(t *testing.T, servers []*testserver.Server, b *goredis.Backend) {
		t.Helper()
		tiers := b.Tiers()
		for _, key := range []string{"one", "two", "three", "four"} {
			res := decide(t, b, key, 5, hourly(10, 0))
			require.NoError(t, b.Settle(t.Context(), key, res, 5, 0, hourly(10, 0)))
			require.NoError(t, b.Reset(t.Context(), key))
			_, err := b.Usage(t.Context(), key, hourly(10, 0))
			require.NoError(t, err)
			_, err = b.TakeAll(t.Context(), backend.Charge{Key: key, Cost: 1, Limits: []backend.Limit{hourly(1, 0)}},
				backend.Charge{Key: "shared", Cost: 1, Limits: []backend.Limit{hourly(100, 0)}})
			require.NoError(t, err)
			require.NoError(t, tiers.Set(t.Context(), key, backend.Tier{Name: "free", Limits: []backend.Limit{hourly(1, 0)}}))
			_, err = tiers.Lookup(t.Context(), key)
			require.NoError(t, err)
			require.NoError(t, tiers.Delete(t.Context(), key))
		}
		for _, s := range servers {
			for _, refused := range ask(t, s, "ACL", "LOG").([]any) {
				fields := refused.([]any)
				what := fields[slices.Index(fields, any("object"))+1]
				assert.Contains(t, []any{"client|setinfo", "client|setname", "client|maint_notifications", "client"}, what)
			}
		}
	}
	t.Run("server", func(t *testing.T) {
		servers := []*testserver.Server{testserver.Redis(t)}
		setUser(servers, rights...)
		var log lines
		b := goredis.New(newClient(t, servers[0].Addr(), cached, asUser), goredis.WithTimeout(ample), log.option())
		require.True(t, decide(t, b, "k", 1, hourly(1, 0)).Allowed)
		require.Eventually(t, func() bool {
			decide(t, b, "k", 1, hourly(1, 0))
			return redisstore.Remembers(goredis.Store(b))
		}, soon, 1)
		refuse(t, b, "k", 1, hourly(1, 0))
		check(t, servers, b)
		assert.Zero(t, log.count("GINLIMIT"))
	})
	t.Run("Cluster", func(t *testing.T) {
		c := testserver.RedisCluster(t, 3, 0)
		setUser(c.Servers, slices.Concat(rights, clusterRights)...)
		client := newCluster(t, c, func(o *goredis9.ClusterOptions) { o.Username, o.Password = "limits", "a-secret" })
		var log lines
		b := goredis.New(client, goredis.WithTimeout(ample), goredis.WithDenyCache(false), log.option())
		check(t, c.Servers, b)
		assert.Zero(t, log.count("GINLIMIT"))
	})
}

// Without a right that decisions need, the log of an application says so once, with the remedy.
func TestRightsThatAreMissing(t *testing.T) {
	s := testserver.Redis(t)
	for _, right := range rights {
		ask(t, s, "SCRIPT", "FLUSH") // or EVAL is not needed
		ask(t, s, append([]string{"ACL", "SETUSER", "limits", "reset", "on", ">a-secret"},
			slices.DeleteFunc(slices.Clone(rights), func(r string) bool { return r == right })...)...)
		client := newClient(t, s.Addr(), func(o *goredis9.Options) { o.Username, o.Password = "limits", "a-secret" })
		var log lines
		b := goredis.New(client, goredis.WithTimeout(ample), goredis.WithDenyCache(false), log.option())
		_, err := b.Take(t.Context(), "k", 1, hourly(100, 0))
		switch right {
		case "+ping", "+info", "+client|tracking": // only what is spared or warned of is missing
			require.NoError(t, err, right)
			continue
		case "+del":
			require.NoError(t, err, right)
			err = b.Reset(t.Context(), "k")
		}
		require.ErrorIs(t, err, goredis.ErrDenied, right)
		assert.Equal(t, 1, log.count("code=GINLIMIT007"), right)
		assert.Equal(t, 1, log.count("\n"), "%s: not one line of the log", right)
		assert.Equal(t, 1, log.count("grant the rights that the documentation of goredis.New lists. The failure"), right)
	}
}

// A server without a command that decisions need is told in the log, once. Without another command
// it decides: a server without HELLO speaks RESP2 only, as old proxies do.
func TestCommandsThatAreMissing(t *testing.T) {
	for _, command := range []string{"EVALSHA", "EVAL", "GET", "SET", "TIME", "DEL", "HELLO", "CLIENT", "PING"} {
		t.Run(command, func(t *testing.T) {
			s := testserver.Redis(t, "--rename-command", command, "")
			var log lines
			b := goredis.New(newClient(t, s.Addr(), cached), goredis.WithTimeout(ample), log.option())
			for range 3 {
				_, err := b.Take(t.Context(), "k", 1, hourly(100, 0))
				switch command {
				case "HELLO", "CLIENT", "PING":
					require.NoError(t, err)
					continue
				case "DEL":
					require.NoError(t, err)
					err = b.Reset(t.Context(), "k")
				}
				require.ErrorIs(t, err, backend.ErrUnavailable)
				require.ErrorIs(t, err, goredis.ErrUnknownCommand)
			}
			switch command {
			case "HELLO", "CLIENT":
				require.Equal(t, 1, log.count("code=GINLIMIT006"))
			case "PING":
				require.Zero(t, log.count("GINLIMIT007"))
			default:
				require.Equal(t, 1, log.count("code=GINLIMIT007"))
				require.Equal(t, 1, log.count("kind=unknown_command"))
			}
		})
	}
}
