package redis_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/redis"
	"github.com/ginlimit/ginlimit/internal/testserver"
)

// These tests are of servers that answer, and say no.

const caller = "limiter\x00hunter2" // must be in no error and no log

// lines returns the lines of a log that have all of the words.
func (l *dialLog) lines(words ...string) (n int) {
	for line := range strings.Lines(l.String()) {
		all := true
		for _, word := range words {
			all = all && strings.Contains(line, word)
		}
		if all {
			n++
		}
	}
	return n
}

// While a server refuses for good, the log says so once for each kind, with the server, the cause
// and a remedy, and once when it is over. No error and no line quotes the caller's key.
func TestRefusalsAreInTheLog(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name         string
		args         []string // of the server
		strike, mend [][]string
		err          error
		kind, remedy string
	}{
		{"no scripts", nil, [][]string{{"ACL", "SETUSER", "default", "-@scripting"}}, [][]string{{"ACL", "SETUSER", "default", "+@scripting"}},
			redis.ErrDenied, "denied", "grant the rights that the documentation of redis.Dial lists"},
		{"no SET", nil, [][]string{{"ACL", "SETUSER", "default", "-set"}}, [][]string{{"ACL", "SETUSER", "default", "+set"}},
			redis.ErrDenied, "denied", "grant the rights"},
		{"no TIME", nil, [][]string{{"ACL", "SETUSER", "default", "-time"}}, [][]string{{"ACL", "SETUSER", "default", "+time"}},
			redis.ErrDenied, "denied", "grant the rights"},
		{"other keys", nil, [][]string{{"ACL", "SETUSER", "default", "resetkeys", "~other:*"}}, [][]string{{"ACL", "SETUSER", "default", "allkeys"}},
			redis.ErrDenied, "denied", "grant the rights"},
		{"full", nil, [][]string{{"CONFIG", "SET", "maxmemory", "1"}}, [][]string{{"CONFIG", "SET", "maxmemory", "0"}},
			redis.ErrOutOfMemory, "out_of_memory", "no charge can be written"},
		{"a replica", nil, [][]string{{"REPLICAOF", "127.0.0.1", "1"}}, [][]string{{"REPLICAOF", "NO", "ONE"}},
			redis.ErrReadOnly, "read_only", "connect to the master"},
		{"too few replicas", nil, [][]string{{"CONFIG", "SET", "min-replicas-to-write", "1"}}, [][]string{{"CONFIG", "SET", "min-replicas-to-write", "0"}},
			redis.ErrNoReplicas, "no_replicas", "start replicas"},
		{"a foreign value", nil, [][]string{{"SET", "KEY", "foreign"}}, [][]string{{"DEL", "KEY"}},
			redis.ErrForeign, "foreign_value", "redis.WithPrefix"},
		{"a list", nil, [][]string{{"DEL", "KEY"}, {"RPUSH", "KEY", "foreign"}}, [][]string{{"DEL", "KEY"}},
			redis.ErrForeign, "foreign_value", "redis.WithPrefix"},
		{"EVALSHA renamed", []string{"--rename-command", "EVALSHA", "other"}, nil, nil, redis.ErrUnknownCommand, "unknown_command", "EVALSHA"},
		{"TIME renamed", []string{"--rename-command", "TIME", "other"}, nil, nil, redis.ErrUnknownCommand, "unknown_command", "TIME"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := testserver.Redis(t, c.args...)
			var log dialLog
			b := dialBackend(t, s.URL(), redis.WithDenyCache(false), log.option())
			redis.EndRefusalsAtOnce(b)
			run := func(commands [][]string) {
				for _, command := range commands {
					for i, arg := range command {
						if arg == "KEY" {
							command[i] = redis.StateKey(b, caller)
						}
					}
					ask(t, s, command...)
				}
			}
			take := func() error {
				_, err := b.Take(t.Context(), caller, 1, dialLimit(100))
				return err
			}
			if c.mend != nil {
				require.NoError(t, take())
			}
			run(c.strike)
			for range 5 {
				err := take()
				dialUnavailable(t, err)
				require.ErrorIs(t, err, c.err)
				assert.Equal(t, c.kind, backend.ErrorKind(err))
				assert.NotContains(t, err.Error(), "hunter2")
				var answer *rueidis.RedisError
				if errors.As(err, &answer) {
					assert.NotContains(t, answer.Error(), "hunter2")
				}
			}
			assert.Equal(t, 1, log.lines("level=WARN", "code=GINLIMIT007", "server="+s.Addr(), "kind="+c.kind, c.remedy), "%v", &log)
			assert.Equal(t, 1, log.lines(""), "%v", &log)
			if c.mend != nil {
				run(c.mend)
				for range 5 {
					require.NoError(t, take())
				}
				assert.Equal(t, 1, log.lines("level=INFO", "code=GINLIMIT007", "server="+s.Addr(), "kind="+c.kind), "%v", &log)
				assert.Equal(t, 2, log.lines(""), "%v", &log)
			}
			assert.NotContains(t, log.String(), "hunter2")
			b.Close()

			run(c.strike)
			_, err := redis.Dial(t.Context(), s.URL(), dialPatient(redis.WithPing())...)
			if !errors.Is(c.err, redis.ErrForeign) { // which is of another key
				dialUnavailable(t, err)
				require.ErrorIs(t, err, c.err, "WithPing does what decisions do")
			}
		})
	}
}

// The same for look-ups of tiers, whether the server or the record refuses.
func TestRefusalsOfTiersAreInTheLog(t *testing.T) {
	t.Parallel()
	s := testserver.Redis(t)
	var log dialLog
	tiers := dialBackend(t, s.URL(), log.option()).Tiers()
	ask(t, s, "SET", "gl1:tier:{hunter2}", "pro")
	for range 5 {
		_, err := tiers.Lookup(t.Context(), "hunter2")
		dialUnavailable(t, err)
		assert.NotContains(t, err.Error(), "hunter2")
	}
	ask(t, s, "ACL", "SETUSER", "default", "-get", "-set")
	for i := range 5 {
		_, err := tiers.Lookup(t.Context(), fmt.Sprint("hunter2", i))
		dialUnavailable(t, err)
		require.ErrorIs(t, err, redis.ErrDenied)
		require.ErrorIs(t, tiers.Set(t.Context(), "hunter2", backend.Tier{}), redis.ErrDenied)
	}
	for _, kind := range []string{"unavailable", "denied"} {
		assert.Equal(t, 1, log.lines("level=WARN", "look-ups of tiers in Redis fail", "kind="+kind), "%v", &log)
	}
	assert.Equal(t, 2, log.lines(""), "%v", &log)
	assert.NotContains(t, log.String(), "hunter2")
}

// What other servers say than the one that is installed.
func TestWordsOfOtherServers(t *testing.T) {
	for _, c := range []struct {
		says string
		err  error
		cut  string // what the error shows instead
	}{
		{"NOPERM User limits has no permissions to access the 'gl1:{api:hunter2}' key", redis.ErrDenied, "access the '(a key)' key"},
		{"NOPERM No permissions to access a key", redis.ErrDenied, ""},
		{"ERR ACL failure in script: User limits has no permissions to run the 'time' command script: 12ab, on @user_script:3.", redis.ErrDenied, ""},
		{"ERR Error running script (call to f_12ab): @user_script:3: @user_script: 3: The user executing the script can't run this command or subcommand", redis.ErrDenied, ""},
		{"ERR unknown command `EVALSHA`, with args beginning with: `12ab`, `1`, `gl1:{api:hunter2}`, `1`, ", redis.ErrUnknownCommand, "unknown command `EVALSHA`"},
		{"ERR unknown command 'EVALSHA', with args beginning with: '12ab' '1' 'gl1:{api:hunt", redis.ErrUnknownCommand, "unknown command 'EVALSHA'"},
		{"ERR unknown command evalsha", redis.ErrUnknownCommand, ""},
		{"ERR Error running script (call to f_12ab): @user_script:3: @user_script: 3: Unknown Redis command called from Lua script", redis.ErrUnknownCommand, ""},
		{"ERR Error running script (call to f_12ab): @user_script:209: -OOM command not allowed when used memory > 'maxmemory'.", redis.ErrOutOfMemory, ""},
		{"ERR Error running script (call to f_12ab): @user_script:209: @user_script: 209: -READONLY You can't write against a read only replica.", redis.ErrReadOnly, ""},
		{"MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.", redis.ErrDisk, ""},
		{"NOREPLICAS Not enough good replicas to write.", redis.ErrNoReplicas, ""},
		{"LOADING Redis is loading the dataset in memory", redis.ErrStarting, ""},
		{"BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.", redis.ErrBusy, ""},
		{"NOAUTH Authentication required.", redis.ErrDenied, ""},
		{"ERR upstream failure of gl1:{api:hunter2}, gl1:{api:hunter2} and more", nil, "upstream failure of (a key) (a key) and more"},
		{"ERR something else", nil, ""},
	} {
		b := redis.New(saying{newClient(t, testserver.Redis(t).Addr(), false), c.says}, redis.WithDenyCache(false), redis.WithTimeout(dialBudget))
		_, err := b.Take(t.Context(), caller, 1, dialLimit(1))
		dialUnavailable(t, err)
		if c.err != nil {
			require.ErrorIs(t, err, c.err, c.says)
		} else {
			require.Equal(t, "unavailable", backend.ErrorKind(err))
		}
		if c.cut != "" {
			assert.True(t, strings.HasSuffix(err.Error(), c.cut), "%v", err)
		}
		assert.NotContains(t, err.Error(), "hunt")
	}
}

// saying is a client whose server answers every script with an error.
type saying struct {
	rueidis.Client
	text string
}

func (c saying) Do(ctx context.Context, cmd rueidis.Completed) rueidis.RedisResult {
	if name := cmd.Commands()[0]; name != "EVALSHA" && name != "EVAL" {
		return c.Client.Do(ctx, cmd)
	}
	script := `return redis.error_reply(ARGV[1])`
	return c.Client.Do(ctx, c.Client.B().Eval().Script(script).Numkeys(0).Arg(c.text).Build())
}

// A server that closes connections says first why, and so does the error.
func TestConnectionsThatAreRefused(t *testing.T) {
	t.Parallel()
	full := testserver.Redis(t)
	held, err := net.Dial("tcp", full.Addr())
	require.NoError(t, err)
	t.Cleanup(func() { held.Close() })
	_, err = io.WriteString(held, "CONFIG SET maxclients 1\r\n")
	require.NoError(t, err)
	_, err = held.Read(make([]byte, 5))
	require.NoError(t, err)
	for name, c := range map[string]struct {
		addr, words string
		err         error
	}{
		"maxclients": {full.Addr(), "max number of clients reached", redis.ErrTooManyConnections},
		"protected mode": {saysAndCloses(t, "-DENIED Redis is running in protected mode because protected mode is enabled and no password is set.\r\n"),
			"running in protected mode", redis.ErrDenied},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := redis.Dial(t.Context(), "redis://"+c.addr, dialPatient(redis.WithPing())...)
			dialUnavailable(t, err)
			assert.ErrorContains(t, err, c.words)
			assert.ErrorIs(t, err, c.err)
			var log dialLog
			b := dialBackend(t, "redis://"+c.addr, log.option())
			_, err = b.Take(t.Context(), "k", 1, dialLimit(1))
			dialUnavailable(t, err)
			assert.ErrorContains(t, err, c.words)
			assert.Equal(t, 1, log.lines("Redis cannot be reached", "server="+c.addr, c.words), "%v", &log)
		})
	}
}

// saysAndCloses listens, and to every connection says something and closes it. It returns the
// address.
func saysAndCloses(t *testing.T, text string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, text)
			conn.Close()
		}
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	return l.Addr().String()
}

// A healthy server that is far away decides, and if it is given too little time the log says what
// to do.
func TestAServerThatIsFarAway(t *testing.T) {
	t.Parallel()
	px := newFaultProxy(t, testserver.Redis(t).Addr())
	px.delay.Store(int64(120 * time.Millisecond))
	take := func(b *redis.Backend) error {
		_, err := b.Take(t.Context(), "k", 1, gateLimit)
		return err
	}
	b := gateBackend(t, "redis://"+px.addr)
	for range 5 {
		require.NoError(t, take(b))
	}
	var log dialLog
	b = gateBackend(t, "redis://"+px.addr, redis.WithTimeout(50*time.Millisecond), log.option())
	dialEventually(t, func() bool {
		dialUnavailable(t, take(b))
		return log.lines("") > 0
	})
	assert.Equal(t, 1, log.lines("level=WARN", "Redis does not answer", "server="+px.addr, "timeout=50ms", "within 50ms", "raise redis.WithTimeout",
		"failure policy", "Fallback"), "%v", &log)
}

// A Cluster may announce addresses that cannot be reached from here: the error and the log name
// them.
func TestAClusterWhoseAddressesAreElsewhere(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	elsewhere := l.Addr().String()
	l.Close()
	_, port, _ := net.SplitHostPort(elsewhere)
	s := testserver.Redis(t, "--cluster-enabled", "yes")
	ask(t, s, "CLUSTER", "ADDSLOTSRANGE", "0", "16383")
	dialEventually(t, func() bool { return strings.Contains(ask(t, s, "CLUSTER", "INFO").(string), "cluster_state:ok") })
	ask(t, s, "CONFIG", "SET", "cluster-announce-ip", "127.0.0.1")
	ask(t, s, "CONFIG", "SET", "cluster-announce-port", port)
	dialEventually(t, func() bool {
		slots := ask(t, s, "CLUSTER", "SLOTS").([]any)[0].([]any)
		return strconv.FormatInt(slots[2].([]any)[1].(int64), 10) == port
	})
	var log dialLog
	b, err := redis.Dial(t.Context(), s.URL(), log.option())
	require.NoError(t, err)
	defer b.Close()
	dialEventually(t, func() bool {
		_, err = b.Take(t.Context(), "k", 1, dialLimit(1))
		dialUnavailable(t, err)
		return log.lines("") > 0
	})
	assert.ErrorContains(t, err, elsewhere)
	assert.Equal(t, 1, log.lines("level=WARN", "cause=", elsewhere), "%v", &log)
}

// Of many calls at once one sends the script that the server does not know.
func TestAScriptIsSentOnce(t *testing.T) {
	s := testserver.Redis(t)
	b := dialBackend(t, s.URL())
	for round := range 3 {
		ask(t, s, "SCRIPT", "FLUSH")
		ask(t, s, "CONFIG", "RESETSTAT")
		s.Pause()
		var wg sync.WaitGroup
		for i := range 400 {
			wg.Go(func() {
				_, err := b.Take(t.Context(), fmt.Sprint("k", i), 1, dialLimit(100))
				assert.NoError(t, err)
			})
		}
		require.Eventually(t, func() bool { return redis.Calls(b) == 400 }, soon, time.Millisecond)
		s.Resume()
		wg.Wait()
		assert.Equal(t, 1, calls(t, s)["eval"], "round %d", round)
	}
}
