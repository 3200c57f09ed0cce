package redis_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/redis"
	"github.com/ginlimit/ginlimit/internal/testserver"
)

const (
	dialSoon   = 5 * time.Second      // what a busy machine may take for something that is done at once
	dialBudget = 10 * time.Second     // never the reason for an error
	dialSecret = "hunter2-S3cret"     // a password
	dialLong   = 366 * 24 * time.Hour // the period of a limit that gives nothing back during a test
)

// dialLimit admits n units, of any of the algorithms.
func dialLimit(n int64, algorithm ...backend.Algorithm) backend.Limit {
	limit := backend.Limit{Count: n, Period: dialLong, Algorithm: backend.FixedWindow}
	for _, a := range algorithm {
		limit.Algorithm = a
	}
	return limit
}

// dialPatient is for servers that answer: nothing is given up because the machine is busy.
func dialPatient(opts ...redis.Option) []redis.Option {
	return append([]redis.Option{redis.WithTimeout(dialBudget), redis.WithClientOption(func(o *rueidis.ClientOption) {
		o.Dialer.Timeout, o.ConnWriteTimeout = dialBudget, dialBudget
		o.Sentinel.Dialer.Timeout = dialBudget
	})}, opts...)
}

// dialBackend dials for a test that closes the Backend at its end.
func dialBackend(tb testing.TB, url string, opts ...redis.Option) *redis.Backend {
	tb.Helper()
	b, err := redis.Dial(tb.Context(), url, dialPatient(opts...)...)
	require.NoError(tb, err)
	tb.Cleanup(func() { assert.NoError(tb, b.Close()) })
	return b
}

var dialKeys atomic.Int64

// dialDecides fails the test unless b decides: of a new key with a limit of 1 it admits one and
// refuses one.
func dialDecides(tb testing.TB, b *redis.Backend) {
	tb.Helper()
	key := fmt.Sprint("decides\x00", dialKeys.Add(1))
	for _, allowed := range []bool{true, false} {
		res, err := b.Take(tb.Context(), key, 1, dialLimit(1))
		require.NoError(tb, err)
		require.Equal(tb, allowed, res.Allowed)
	}
}

// dialUnavailable fails the test unless err says that the store did not decide, and holds no
// password.
func dialUnavailable(tb testing.TB, err error) {
	tb.Helper()
	require.ErrorIs(tb, err, backend.ErrUnavailable)
	assert.True(tb, strings.HasPrefix(err.Error(), "ginlimit: "), "%v", err)
	assert.NotContains(tb, err.Error(), dialSecret)
}

// dialEventually waits until done, for as long as a busy machine may need.
func dialEventually(tb testing.TB, done func() bool) {
	tb.Helper()
	dialWithin(tb, dialSoon, done)
}

func dialWithin(tb testing.TB, limit time.Duration, done func() bool) {
	tb.Helper()
	for end := time.Now().Add(limit); !done(); time.Sleep(5 * time.Millisecond) {
		require.True(tb, time.Now().Before(end), "not within %v", limit)
	}
}

// dialLog keeps what is logged.
type dialLog struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *dialLog) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(line)
}

func (l *dialLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *dialLog) option() redis.Option {
	return redis.WithLogger(slog.New(slog.NewTextHandler(l, nil)))
}

// count returns how many lines have the code.
func (l *dialLog) count(code string) int { return strings.Count(l.String(), "code="+code) }

// dialSilent listens, accepts and never answers. It returns the address.
func dialSilent(tb testing.TB) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(tb, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
		}
	}()
	tb.Cleanup(func() {
		l.Close()
		<-done
	})
	return l.Addr().String()
}

func TestDialURL(t *testing.T) {
	t.Parallel()
	open := testserver.Redis(t)
	_, err := open.Do("ACL", "SETUSER", "ann", "on", ">p/w@:%", "~gl1:*", "+@all")
	require.NoError(t, err)
	locked := testserver.Redis(t, "--requirepass", dialSecret)
	socket := filepath.Join(t.TempDir(), "s")
	testserver.Redis(t, "--unixsocket", socket, "--requirepass", dialSecret)

	for name, url := range map[string]string{
		"server":              open.URL(),
		"valkey":              "valkey://" + open.Addr(),
		"path":                open.URL() + "/",
		"password":            "redis://:" + dialSecret + "@" + locked.Addr(),
		"default user":        "redis://default:" + dialSecret + "@" + locked.Addr(),
		"ACL user":            "redis://ann:p%2Fw%40%3A%25@" + open.Addr(),
		"database":            open.URL() + "/3",
		"parameters":          open.URL() + "?db=2&client_name=limits&dial_timeout=5s&write_timeout=5s",
		"socket":              "unix://:" + dialSecret + "@" + socket,
		"socket and database": "unix://default:" + dialSecret + "@" + socket + "?db=1",
	} {
		t.Run(name, func(t *testing.T) {
			dialDecides(t, dialBackend(t, url, redis.WithPing()))
		})
	}
	for _, db := range []string{"db2", "db3"} {
		assert.Contains(t, open.Info("keyspace", db), "keys=1,", "state is not in %s", db)
	}
}

// A server that cannot be trusted gets no request.
func TestDialTLS(t *testing.T) {
	t.Parallel()
	server, conf := testserver.RedisTLS(t, "--requirepass", dialSecret)
	trust := redis.WithClientOption(func(o *rueidis.ClientOption) { o.TLSConfig = conf })
	for name, c := range map[string]struct {
		url    string
		opts   []redis.Option
		refuse bool
	}{
		"authority":     {url: server.URL(), opts: []redis.Option{trust}},
		"no authority":  {url: server.URL(), refuse: true},
		"skip_verify":   {url: server.URL() + "?skip_verify"},
		"skip_verify=1": {url: server.URL() + "?skip_verify=true"},
		"skip_verify=0": {url: server.URL() + "?skip_verify=false", refuse: true},
		"other name":    {url: server.URL(), opts: []redis.Option{trust, redis.WithClientOption(dialOtherName)}, refuse: true},
		"no TLS":        {url: "redis" + strings.TrimPrefix(server.URL(), "rediss"), refuse: true},
	} {
		t.Run(name, func(t *testing.T) {
			if !c.refuse {
				dialDecides(t, dialBackend(t, c.url, append(c.opts, redis.WithPing())...))
				return
			}
			b, err := redis.Dial(t.Context(), c.url, dialPatient(append(c.opts, redis.WithPing())...)...)
			require.Nil(t, b)
			dialUnavailable(t, err)
			_, err = dialBackend(t, c.url, c.opts...).Take(t.Context(), "k", 1, dialLimit(1))
			dialUnavailable(t, err)
			var unknown *tls.CertificateVerificationError
			if strings.HasPrefix(c.url, "rediss") {
				assert.ErrorAs(t, err, &unknown)
			}
		})
	}
	// Those three that may, twice each, and once for WithPing.
	evalsha := server.Info("commandstats", "cmdstat_evalsha")
	assert.True(t, strings.HasPrefix(evalsha, "calls=9,"), "evalsha: %s", evalsha)
}

// With several addresses each server has to have a certificate for its own name: one name for all
// is that of one address.
func TestDialTLSNames(t *testing.T) {
	t.Parallel()
	for query, want := range map[string]string{"": "first.test", "?addr=second.test:6379": "", "?master_set=limits": ""} {
		t.Run(query, func(t *testing.T) {
			names := make(chan string, 100)
			b, err := redis.Dial(t.Context(), "rediss://first.test:6379"+query, redis.WithTimeout(time.Second), redis.WithClientOption(func(o *rueidis.ClientOption) {
				o.DialCtxFn = func(_ context.Context, _ string, _ *net.Dialer, conf *tls.Config) (net.Conn, error) {
					names <- conf.ServerName
					return nil, io.EOF
				}
			}))
			require.NoError(t, err)
			require.NoError(t, b.Close())
			assert.Equal(t, want, <-names)
		})
	}
}

func dialOtherName(o *rueidis.ClientOption) {
	o.TLSConfig = o.TLSConfig.Clone()
	o.TLSConfig.ServerName = "redis.example"
}

// What the server refuses is an error of the store, whose text holds no password.
func TestDialRefused(t *testing.T) {
	t.Parallel()
	server := testserver.Redis(t, "--requirepass", "right")
	at := server.Addr()
	for name, url := range map[string]string{
		"wrong password":   "redis://:" + dialSecret + "@" + at,
		"unknown user":     "redis://bob:" + dialSecret + "@" + at,
		"no password":      "redis://" + at,
		"unknown database": "redis://:right@" + at + "/99",
		"no Sentinel":      "redis://:right@" + at + "?master_set=limits",
		"no Cluster":       "redis://:right@" + at + "?addr=" + at,
	} {
		t.Run(name, func(t *testing.T) {
			var log dialLog
			b, err := redis.Dial(t.Context(), url, dialPatient(redis.WithPing(), log.option())...)
			require.Nil(t, b)
			dialUnavailable(t, err)
			b = dialBackend(t, url, log.option())
			for range 3 {
				_, err = b.Take(t.Context(), "k", 1, dialLimit(1))
				dialUnavailable(t, err)
			}
			assert.Equal(t, 1, strings.Count(log.String(), "\n"), "%v", &log)
			assert.Contains(t, log.String(), "Redis cannot be reached")
			for _, secret := range []string{"right", dialSecret} {
				assert.NotContains(t, log.String(), secret)
			}
		})
	}
}

// A URL that cannot be right is refused by Dial, with what to do about it and without its password,
// wherever that stands.
func TestDialMalformedURL(t *testing.T) {
	t.Parallel()
	const s = dialSecret
	for _, url := range []string{
		"",
		s,
		s + "@127.0.0.1:6379",
		"127.0.0.1:6379",
		"localhost:6379",
		"//:" + s + "@127.0.0.1:6379",
		" redis://:" + s + "@127.0.0.1:6379",
		// the scheme
		"http://:" + s + "@127.0.0.1:6379",
		"tcp://:" + s + "@127.0.0.1:6379",
		"redis+tls://:" + s + "@127.0.0.1:6379",
		"redis-sentinel://:" + s + "@127.0.0.1:26379/mymaster",
		s + "://127.0.0.1:6379",
		// the host
		"redis://",
		"redis:",
		"redis:127.0.0.1:6379",
		"redis:/" + s + "@127.0.0.1:6379",
		"redis:///" + s,
		"redis://:" + s + "@",
		"redis://:" + s + "@/0",
		"redis://?addr=127.0.0.1:6379",
		"redis://:" + s + "@[::1:6379",
		"redis://:" + s + "@ 127.0.0.1:6379",
		"unix://",
		"unix://:" + s + "@",
		"unix://:" + s + "@redis.sock",
		// the port
		"redis://:" + s + "@127.0.0.1:port",
		"redis://127.0.0.1:" + s,
		"redis://:" + s + "@127.0.0.1:6379:6379",
		"redis://:" + s + "@127.0.0.1:99999",
		"redis://:" + s + "@127.0.0.1:0",
		"redis://:" + s + "@127.0.0.1:6379?addr=127.0.0.1:port",
		"redis://:" + s + "@127.0.0.1:6379?addr=127.0.0.2",
		"redis://127.0.0.1:6379?addr=" + s + "@127.0.0.1:6379",
		"redis://127.0.0.1:6379?addr=" + s + "%40127.0.0.1:6379",
		"redis://127.0.0.1:6379?addr=12%23" + s + ":6379",
		"redis://127.0.0.1:6379?addr=12/" + s + ":6379",
		"redis://127.0.0.1:6379?addr=12?" + s + ":6379",
		"redis://127.0.0.1:6379?addr=12+" + s + ":6379",
		// the password
		"redis://:" + s + "%@127.0.0.1:6379",
		"redis://:%zz" + s + "@127.0.0.1:6379",
		"redis://:" + s + "/1@127.0.0.1:6379",
		"redis://:" + s + "?1@127.0.0.1:6379",
		"redis://:" + s + "#1@127.0.0.1:6379",
		"redis://:" + s + "\n@127.0.0.1:6379",
		"redis://:" + s + " 1@127.0.0.1:6379",
		"redis://user:12/" + s + "@127.0.0.1:6379",
		"redis://user:12?" + s + "@127.0.0.1:6379",
		"redis://user:12#" + s + "@127.0.0.1:6379",
		"redis://:12?" + s + "@127.0.0.1:6379/0",
		// the database
		"redis://:" + s + "@127.0.0.1:6379/abc",
		"redis://:" + s + "@127.0.0.1:6379/-1",
		"redis://:" + s + "@127.0.0.1:6379/0/1",
		"redis://127.0.0.1:6379/" + s,
		"redis://127.0.0.1:6379?db=" + s,
		"redis://:" + s + "@127.0.0.1:6379?db=",
		"unix://:" + s + "@/run/redis.sock?db=x",
		// other parameters
		"redis://:" + s + "@127.0.0.1:6379?dial_timeout=5",
		"redis://:" + s + "@127.0.0.1:6379?dial_timeout=-1s",
		"redis://:" + s + "@127.0.0.1:6379?write_timeout=soon",
		"redis://127.0.0.1:6379?write_timeout=" + s,
		"rediss://:" + s + "@127.0.0.1:6379?skip_verify=" + s,
		"redis://127.0.0.1:6379?db=%zz" + s,
		"redis://127.0.0.1:26379?master_set=",
		"redis://:" + s + "@127.0.0.1,127.0.0.2:6379",
		"redis://:" + s + "@127.0.0.1:6379,127.0.0.2:6379",
		"redis://:" + s + "@127.0.0.1:6379\n",
	} {
		t.Run(url, func(t *testing.T) {
			var log dialLog
			b, err := redis.Dial(t.Context(), url, redis.WithTimeout(time.Millisecond), log.option())
			if err == nil {
				b.Close()
			}
			require.Error(t, err)
			assert.Nil(t, b)
			assert.True(t, strings.HasPrefix(err.Error(), "ginlimit: redis.Dial: "), "%v", err)
			assert.Regexp(t, "; (use|see) ", err.Error(), "does not say what to do")
			assert.NotErrorIs(t, err, backend.ErrUnavailable, "no failure policy may pass this")
			assert.NotContains(t, err.Error(), s)
			assert.Empty(t, log.String())
		})
	}
}

// The error says what is wrong.
func TestDialMalformedURLSays(t *testing.T) {
	t.Parallel()
	for url, says := range map[string]string{
		"":                                    "the URL is empty; use redis://",
		"localhost:6379":                      "does not begin with a scheme and ://; use redis://",
		"127.0.0.1:6379":                      "does not begin with a scheme and ://; use redis://",
		"localhost":                           "does not begin with a scheme and ://; use redis://",
		"redis:localhost:6379":                "does not begin with a scheme and ://; use redis://",
		"redis://localhost:6379\n":            "ends with a space or a line's end",
		"http://localhost:6379":               "unknown scheme; use redis://, rediss:// for TLS",
		"redis+sentinel://localhost:26379/my": "?master_set=name for Sentinels",
		"redis://a:6379,b:6379":               "several hosts; use redis://host1:6379?addr=host2:6379",
		"redis://a,b:6379":                    "several hosts; use redis://host1:6379?addr=host2:6379",
		"redis://:a#b@localhost:6379":         "%XX for special characters in the password",
		"redis://localhost:6379#0":            "has a # in it; use %23",
		"redis://":                            "no host; use redis://host:6379",
		"redis://localhost:6379/zero":         "not the number of a database",
		"redis://localhost:26379?master_set=": "master_set is empty",
	} {
		_, err := redis.Dial(t.Context(), url)
		assert.ErrorContains(t, err, says, url)
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	server := testserver.Redis(t)
	client := newClient(t, server.Addr(), true)
	for _, c := range []struct {
		name string
		opt  redis.Option
		want string // in the error; "" if the option is valid
	}{
		{"timeout 0", redis.WithTimeout(0), "redis.WithTimeout(0s): use 1ms to 1m"},
		{"negative timeout", redis.WithTimeout(-time.Second), "redis.WithTimeout(-1s): use"},
		{"timeout below 1 ms", redis.WithTimeout(time.Millisecond - 1), "redis.WithTimeout(999.999µs): use"},
		{"timeout above 1 m", redis.WithTimeout(time.Minute + 1), "redis.WithTimeout(1m0.000000001s): use"},
		{"shortest timeout", redis.WithTimeout(time.Millisecond), ""},
		{"longest timeout", redis.WithTimeout(time.Minute), ""},
		{"empty prefix", redis.WithPrefix(""), `redis.WithPrefix(""): use`},
		{"brace", redis.WithPrefix("a{b"), `redis.WithPrefix("a{b"): use`},
		{"closing brace", redis.WithPrefix("a}"), `redis.WithPrefix("a}"): use`},
		{"space", redis.WithPrefix("a b"), `redis.WithPrefix("a b"): use`},
		{"line", redis.WithPrefix("a\n"), `redis.WithPrefix("a\n"): use`},
		{"umlaut", redis.WithPrefix("ä"), `redis.WithPrefix("ä"): use`},
		{"invalid UTF-8", redis.WithPrefix("\xff"), `redis.WithPrefix("\xff"): use`},
		{"long prefix", redis.WithPrefix(strings.Repeat("p", 65)), "ppp\"): use 1 to 64"},
		{"longest prefix", redis.WithPrefix(strings.Repeat("p", 64)), ""},
		{"every other character", redis.WithPrefix("!a:~|["), ""},
		{"no option", nil, "an option is nil; leave it out"},
		{"no logger", redis.WithLogger(nil), "redis.WithLogger(nil): leave"},
		{"no client option", redis.WithClientOption(nil), "redis.WithClientOption(nil): pass"},
		{"no deny cache", redis.WithDenyCache(false), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, err := redis.Dial(t.Context(), server.URL(), c.opt)
			if c.want == "" {
				require.NoError(t, err)
				require.NoError(t, b.Close())
				assert.NotPanics(t, func() { redis.New(client, c.opt) })
				return
			}
			require.ErrorContains(t, err, c.want)
			assert.Nil(t, b)
			assert.True(t, strings.HasPrefix(err.Error(), "ginlimit: "), "%v", err)
			assert.PanicsWithError(t, err.Error(), func() { redis.New(client, c.opt) })
		})
	}
	t.Run("last one wins", func(t *testing.T) {
		b := redis.New(client, redis.WithPrefix("a"), redis.WithPrefix("b"))
		assert.True(t, strings.HasPrefix(redis.StateKey(b, "k"), "b1:{"))
	})
}

// New panics for what only Dial can do, and says so.
func TestNewPanics(t *testing.T) {
	t.Parallel()
	client := newClient(t, testserver.Redis(t).Addr(), true)
	for name, c := range map[string]struct {
		client rueidis.Client
		opts   []redis.Option
		want   string
	}{
		"ping":          {client, []redis.Option{redis.WithPing()}, "redis.WithPing is for redis.Dial"},
		"client option": {client, []redis.Option{redis.WithClientOption(func(*rueidis.ClientOption) {})}, "redis.WithClientOption is for redis.Dial"},
		"nil client":    {nil, nil, "the client is nil; use redis.Dial"},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				err, _ := recover().(error)
				require.ErrorContains(t, err, c.want)
				assert.True(t, strings.HasPrefix(err.Error(), "ginlimit: redis.New: "), "%v", err)
			}()
			redis.New(c.client, c.opts...)
		})
	}
}

// An application starts while Redis is down, and limits once it is up.
func TestDialBeforeServer(t *testing.T) {
	t.Parallel()
	server := testserver.Redis(t, "--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru")
	server.Kill()
	var log dialLog
	start := time.Now()
	b := dialBackend(t, server.URL(), log.option())
	for range 10 {
		_, err := b.Take(t.Context(), "k", 1, dialLimit(1))
		dialUnavailable(t, err)
		assert.Contains(t, []string{"breaker_open", "unreachable"}, backend.ErrorKind(err))
		dialUnavailable(t, b.Reset(t.Context(), "k"))
	}
	assert.Less(t, time.Since(start), dialSoon)
	assert.Equal(t, map[string]bool{server.Addr(): true}, b.Breakers())

	require.NoError(t, server.Restart())
	dialEventually(t, func() bool {
		_, err := b.Take(t.Context(), "k", 0, dialLimit(1))
		return err == nil
	})
	dialDecides(t, b)
	dialEventually(t, func() bool { return redis.Remembers(b) && log.count("GINLIMIT005") > 0 })
	for _, once := range []string{"GINLIMIT005: ", "Redis cannot be reached", "Redis answers"} {
		assert.Equal(t, 1, strings.Count(log.String(), once), "%q in %v", once, &log)
	}
	assert.Equal(t, 3, strings.Count(log.String(), "\n"), "%v", &log)
}

// Who starts with a wrong password reads that in every error, also between the attempts to connect.
func TestDialWrongPassword(t *testing.T) {
	t.Parallel()
	server := testserver.Redis(t, "--requirepass", "right")
	var log dialLog
	b := dialBackend(t, "redis://:"+dialSecret+"@"+server.Addr(), log.option())
	for range 100 {
		_, err := b.Take(t.Context(), "k", 1, dialLimit(1))
		dialUnavailable(t, err)
		require.ErrorIs(t, err, redis.ErrDenied)
		require.Equal(t, "denied", backend.ErrorKind(err))
		time.Sleep(5 * time.Millisecond)
	}
	assert.Equal(t, 1, strings.Count(log.String(), "Redis cannot be reached"), "%v", &log)
	_, err := server.Do("CONFIG", "SET", "requirepass", dialSecret)
	require.NoError(t, err)
	dialEventually(t, func() bool {
		_, err := b.Take(t.Context(), "k", 0, dialLimit(1))
		return err == nil
	})
	assert.Equal(t, 1, strings.Count(log.String(), "Redis answers"), "%v", &log)
}

// A Backend goes on by itself after its server restarted; the new process does not know the
// scripts.
func TestDialServerRestarts(t *testing.T) {
	t.Parallel()
	server := testserver.Redis(t)
	b := dialBackend(t, server.URL())
	dialDecides(t, b)
	server.Kill()
	_, err := b.Take(t.Context(), "k", 1, dialLimit(1))
	dialUnavailable(t, err)
	require.NoError(t, server.Restart())
	dialEventually(t, func() bool {
		_, err := b.Take(t.Context(), "k", 1, dialLimit(1))
		return err == nil
	})
	dialDecides(t, b)
}

// When the server is gone, not every key that is remembered as refused costs the time budget.
func TestDialRememberedOfDeadServer(t *testing.T) {
	t.Parallel()
	server := testserver.Redis(t)
	b := dialBackend(t, server.URL(), redis.WithTimeout(time.Second))
	const n = 20
	for i := range n {
		_, err := b.Take(t.Context(), fmt.Sprint(i), 1, dialLimit(1))
		require.NoError(t, err)
		dialRemembered(t, b, fmt.Sprint(i), dialLimit(1))
	}
	server.Kill()
	start := time.Now()
	for i := range n {
		res, err := b.Take(t.Context(), fmt.Sprint(i), 1, dialLimit(1))
		require.False(t, res.Allowed)
		if err != nil { // the loss of the connection may not have been seen yet
			dialUnavailable(t, err)
		}
		require.Less(t, time.Since(start), dialSoon, "after %d of %d keys", i+1, n)
	}
}

// A peer that takes connections and says nothing costs Dial and each call their time limit.
func TestDialSilentServer(t *testing.T) {
	t.Parallel()
	start := time.Now()
	b, err := redis.Dial(t.Context(), "redis://"+dialSilent(t))
	require.NoError(t, err)
	defer b.Close()
	_, err = b.Take(t.Context(), "k", 1, dialLimit(1))
	dialUnavailable(t, err)
	assert.Less(t, time.Since(start), dialSoon)
}

// A caller of Dial who has less time than a decision has says nothing about the server.
func TestDialWithLittleTime(t *testing.T) {
	t.Parallel()
	px := newFaultProxy(t, testserver.Redis(t).Addr())
	px.delay.Store(int64(20 * time.Millisecond))
	gone, cancel := context.WithCancel(t.Context())
	time.AfterFunc(5*time.Millisecond, cancel)
	late, cancelLate := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancelLate()
	for _, ctx := range []context.Context{gone, late} {
		b, err := redis.Dial(ctx, "redis://"+px.addr, redis.WithTimeout(dialBudget))
		require.NoError(t, err)
		dialDecides(t, b)
		require.NoError(t, b.Close())
	}
}

// With WithPing, Dial fails if Redis does not answer before the context ends.
func TestDialPing(t *testing.T) {
	t.Parallel()
	down := testserver.Redis(t)
	down.Kill()
	paused := testserver.Redis(t)
	paused.Pause()
	for name, url := range map[string]string{
		"down": down.URL(), "paused": paused.URL(), "silent": "redis://" + dialSilent(t),
		"Cluster": down.URL() + "?addr=" + down.Addr(), "Sentinel": down.URL() + "?master_set=limits",
		"no host": "redis://redis.invalid:6379", "no socket": "unix://" + filepath.Join(t.TempDir(), "none"),
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			start := time.Now()
			b, err := redis.Dial(ctx, url, redis.WithPing())
			require.Nil(t, b)
			dialUnavailable(t, err)
			assert.Less(t, time.Since(start), dialSoon)
		})
	}
}

// After Close every call is an error, also of a key whose refusal was remembered, and of calls
// under way.
func TestClose(t *testing.T) {
	t.Parallel()
	server := testserver.Redis(t)
	b := dialBackend(t, server.URL())
	limit := dialLimit(1)
	charge, err := b.Take(t.Context(), "k", 1, limit)
	require.NoError(t, err)
	dialRemembered(t, b, "k", limit)

	var wg sync.WaitGroup
	began := make(chan struct{}, 8)
	for i := range cap(began) {
		wg.Go(func() {
			for n := 0; ; n++ {
				_, err := b.Take(t.Context(), fmt.Sprint("k", i), 1, limit)
				if n == 0 {
					began <- struct{}{}
				}
				if err != nil {
					assert.ErrorIs(t, err, backend.ErrUnavailable)
					return
				}
			}
		})
	}
	for range cap(began) {
		<-began
	}
	require.NoError(t, b.Close())
	wg.Wait()
	for range 2 {
		_, err = b.Take(t.Context(), "k", 1, limit)
		dialUnavailable(t, err)
		_, err = b.Take(t.Context(), "new", 1, limit)
		dialUnavailable(t, err)
		dialUnavailable(t, b.Settle(t.Context(), "k", charge, 1, 0, limit))
		dialUnavailable(t, b.Reset(t.Context(), "k"))
		require.NoError(t, b.Close())
	}
}

// While the client is being closed, which takes as long as its time-outs if the server hangs,
// nobody waits for that.
func TestCloseOfAServerThatHangs(t *testing.T) {
	server := testserver.Redis(t)
	b := dialBackend(t, server.URL(), redis.WithPing(), redis.WithTimeout(10*time.Millisecond), redis.WithClientOption(func(o *rueidis.ClientOption) {
		o.ConnWriteTimeout = time.Minute // until the server goes on
	}))
	server.Pause()
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		_ = b.Close()
	}()
	defer func() {
		server.Resume()
		<-closed
	}()
	var err error
	dialEventually(t, func() bool {
		_, err = b.Take(t.Context(), "k", 1, dialLimit(1))
		return errors.Is(err, rueidis.ErrClosing)
	})
	dialUnavailable(t, err)
	b.Breakers()
	select {
	case <-closed:
		t.Error("they waited for Close")
	default:
	}
}

// dialRemembered takes from a key that is over limit until a refusal comes out of the process.
func dialRemembered(tb testing.TB, b *redis.Backend, key string, limit backend.Limit) {
	tb.Helper()
	dialEventually(tb, func() bool {
		res, err := b.Take(tb.Context(), key, 1, limit)
		require.NoError(tb, err)
		require.False(tb, res.Allowed)
		return res.Source == backend.SourceDenyCache
	})
}

// The Backend that New returns leaves its client open.
func TestCloseOfNew(t *testing.T) {
	t.Parallel()
	client := newClient(t, testserver.Redis(t).Addr(), true)
	b := redis.New(client, redis.WithTimeout(dialBudget))
	require.NoError(t, b.Close())
	require.NoError(t, client.Do(t.Context(), client.B().Ping().Build()).Error())
	dialDecides(t, b)
	require.NoError(t, b.Close())
	dialDecides(t, redis.New(client, redis.WithTimeout(dialBudget)))
}

// A connection that is made after Close is closed too.
func TestCloseWhileConnecting(t *testing.T) {
	t.Parallel()
	server := testserver.Redis(t)
	trying, gate := make(chan struct{}, 1), make(chan struct{})
	b := dialBackend(t, server.URL(), redis.WithTimeout(time.Millisecond), redis.WithClientOption(func(o *rueidis.ClientOption) {
		o.DialCtxFn = func(_ context.Context, addr string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
			select {
			case trying <- struct{}{}:
			default:
			}
			<-gate
			return d.Dial("tcp", addr)
		}
	}))
	<-trying
	require.NoError(t, b.Close())
	_, err := b.Take(t.Context(), "k", 1, dialLimit(1))
	dialUnavailable(t, err)
	require.Equal(t, "1", server.Info("clients", "connected_clients"), "only the one that asks")
	close(gate)
	dialEventually(t, func() bool {
		return server.Info("stats", "total_connections_received") != "" && server.Info("clients", "connected_clients") == "1" &&
			server.Info("commandstats", "cmdstat_hello") != ""
	})
	_, err = b.Take(t.Context(), "k", 1, dialLimit(1))
	dialUnavailable(t, err)
}

// dialGoroutines returns those that this package and its client run, by their number. It leaves out
// those of rueidis that sleep before they close what a cluster no longer needs.
func dialGoroutines() map[string]string {
	buf := make([]byte, 1<<20)
	n := runtime.Stack(buf, true)
	for ; n == len(buf); n = runtime.Stack(buf, true) {
		buf = make([]byte, 2*len(buf))
	}
	found := make(map[string]string)
	for stack := range strings.SplitSeq(string(buf[:n]), "\n\n") {
		if strings.Contains(stack, "(*clusterClient)._refresh.func") && strings.Contains(stack, "time.Sleep") {
			continue
		}
		if strings.Contains(stack, "redis/rueidis") || strings.Contains(stack, "ginlimit/backend/redis.") {
			number, _, _ := strings.Cut(stack, " [")
			found[number] = stack
		}
	}
	return found
}

// dialLeavesNone fails the test unless the goroutines that use starts end. It is not for parallel
// tests.
func dialLeavesNone(t *testing.T, use func()) {
	t.Helper()
	before := dialGoroutines()
	use()
	for end := time.Now().Add(2 * dialSoon); ; time.Sleep(5 * time.Millisecond) {
		left := dialGoroutines()
		maps.DeleteFunc(left, func(number, _ string) bool { return before[number] != "" })
		if len(left) == 0 {
			return
		}
		require.True(t, time.Now().Before(end), "left: %s", slices.Collect(maps.Values(left)))
	}
}

func TestDialLeavesNoGoroutine(t *testing.T) {
	up := testserver.Redis(t)
	down := testserver.Redis(t)
	down.Kill()
	secure, conf := testserver.RedisTLS(t)
	silent := dialSilent(t)
	trust := redis.WithClientOption(func(o *rueidis.ClientOption) { o.TLSConfig = conf })
	for name, c := range map[string]struct {
		url  string
		opts []redis.Option
	}{
		"up":               {url: up.URL()},
		"TLS":              {secure.URL(), []redis.Option{trust}},
		"not trusted":      {url: secure.URL()},
		"without tracking": {url: up.URL() + "?protocol=2"},
		"down":             {url: down.URL()},
		"Cluster":          {url: down.URL() + "?addr=" + down.Addr()},
		"Sentinel":         {url: down.URL() + "?master_set=limits"},
		"no Sentinel":      {url: up.URL() + "?master_set=limits"},
		"silent":           {url: "redis://" + silent},
		"ping":             {"redis://" + silent, []redis.Option{redis.WithPing()}},
		"malformed":        {url: "redis://127.0.0.1:port"},
	} {
		t.Run(name, func(t *testing.T) {
			dialLeavesNone(t, func() {
				for range 3 {
					ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
					defer cancel()
					b, err := redis.Dial(ctx, c.url, append(c.opts, new(dialLog).option())...)
					if err != nil {
						continue
					}
					_, _ = b.Take(t.Context(), "k", 1, dialLimit(1))
					require.NoError(t, b.Close())
				}
			})
		})
	}
}

// A server without client-side caching is as good, but for refusals that are not remembered: one
// line says so.
func TestDialWithoutTracking(t *testing.T) {
	t.Parallel()
	server := testserver.Redis(t)
	_, err := server.Do("ACL", "SETUSER", "x", "on", ">pw", "~*", "+@all", "-client|tracking")
	require.NoError(t, err)
	for name, url := range map[string]string{
		"not permitted":  "redis://x:pw@" + server.Addr(),
		"protocol=2":     server.URL() + "?protocol=2",
		"client_cache=0": server.URL() + "?client_cache=0",
		"both":           server.URL() + "?client_cache=0&protocol=2",
	} {
		t.Run(name, func(t *testing.T) {
			var log, quiet dialLog
			b := dialBackend(t, url, redis.WithPrefix(prefix()), log.option())
			limit := dialLimit(2)
			for i := range 10 {
				res, err := b.Take(t.Context(), "k", 1, limit)
				require.NoError(t, err)
				assert.Equal(t, i < 2, res.Allowed)
				assert.Equal(t, backend.SourceStore, res.Source)
			}
			require.NoError(t, b.Reset(t.Context(), "k"))
			dialDecides(t, b)
			assert.Equal(t, 1, log.count("GINLIMIT006"), "%v", &log)
			assert.Equal(t, 1, strings.Count(log.String(), "\n"), "%v", &log)

			dialDecides(t, dialBackend(t, url, redis.WithDenyCache(false), quiet.option()))
			assert.Empty(t, quiet.String(), "WithDenyCache(false) says that this is intended")
		})
	}
	t.Run("with tracking", func(t *testing.T) {
		var log dialLog
		b := dialBackend(t, server.URL(), log.option())
		assert.True(t, redis.Remembers(b), "Dial has looked")
		dialDecides(t, b)
		assert.Empty(t, log.String())
	})
}

// The server's settings are looked at once, not for each decision.
func TestDialChecksOnce(t *testing.T) {
	t.Parallel()
	server := testserver.Redis(t)
	b := dialBackend(t, server.URL())
	_, err := server.Do("CONFIG", "RESETSTAT")
	require.NoError(t, err)
	for i := range 20 {
		res, err := b.Take(t.Context(), fmt.Sprint("k", i), 1, dialLimit(1))
		require.NoError(t, err)
		require.True(t, res.Allowed)
	}
	assert.Empty(t, server.Info("commandstats", "cmdstat_info"), "before this one")
	assert.Empty(t, server.Info("commandstats", "cmdstat_client|caching"))
	evalsha := server.Info("commandstats", "cmdstat_evalsha")
	assert.True(t, strings.HasPrefix(evalsha, "calls=20,"), "one EVALSHA each: %s", evalsha)
}

// A server that is busy for a moment is asked again later whether it has client-side caching.
func TestCheckOfBusyServer(t *testing.T) {
	t.Parallel()
	server := testserver.Redis(t, "--busy-reply-threshold", "1")
	client := newClient(t, server.Addr(), true)
	stuck := make(chan struct{})
	go func() {
		defer close(stuck)
		_, _ = server.Do("EVAL", "while true do end", "0")
	}()
	dialEventually(t, func() bool {
		_, err := server.Do("PING")
		return err != nil && strings.Contains(err.Error(), "BUSY")
	})
	var log dialLog
	b := redis.New(client, redis.WithTimeout(time.Second), log.option())
	_, err := b.Take(t.Context(), "k", 1, dialLimit(1))
	dialUnavailable(t, err)
	_, err = server.Do("SCRIPT", "KILL")
	require.NoError(t, err)
	<-stuck
	dialEventually(t, func() bool {
		_, err := b.Take(t.Context(), "k", 0, dialLimit(1))
		return err == nil && redis.Remembers(b)
	})
	assert.NotContains(t, log.String(), "GINLIMIT006")
}

// A server that drops keys when it is full is worth one line: a dropped counter is a fresh budget.
func TestDialEviction(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		args  []string
		lines int
	}{
		"allkeys-lru":           {[]string{"--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru"}, 1},
		"volatile-ttl":          {[]string{"--maxmemory", "50mb", "--maxmemory-policy", "volatile-ttl"}, 1},
		"noeviction":            {[]string{"--maxmemory", "50mb", "--maxmemory-policy", "noeviction"}, 0},
		"policy without memory": {[]string{"--maxmemory-policy", "allkeys-lru"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			server := testserver.Redis(t, c.args...)
			for _, made := range []string{"Dial", "New"} {
				var log dialLog
				var b *redis.Backend
				if made == "Dial" {
					b = dialBackend(t, server.URL(), log.option())
				} else {
					b = redis.New(newClient(t, server.Addr(), true), redis.WithTimeout(dialBudget), log.option())
				}
				for range 5 {
					dialDecides(t, b)
				}
				assert.Equal(t, c.lines, log.count("GINLIMIT005"), "%s: %v", made, &log)
				assert.Equal(t, c.lines, strings.Count(log.String(), "\n"), "%s: %v", made, &log)
				if c.lines > 0 {
					assert.Contains(t, log.String(), c.args[len(c.args)-1])
					assert.Contains(t, log.String(), server.Addr())
					assert.Contains(t, log.String(), "Set maxmemory-policy noeviction")
				}
			}
		})
	}
}

// A user who may not see the settings is no error.
func TestDialInfoForbidden(t *testing.T) {
	t.Parallel()
	server := testserver.Redis(t, "--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru")
	_, err := server.Do("ACL", "SETUSER", "x", "on", ">"+dialSecret, "~*", "+@all", "-info")
	require.NoError(t, err)
	var log dialLog
	b := dialBackend(t, "redis://x:"+dialSecret+"@"+server.Addr(), redis.WithPing(), log.option())
	dialDecides(t, b)
	assert.True(t, redis.Remembers(b))
	assert.Empty(t, log.String())
}
