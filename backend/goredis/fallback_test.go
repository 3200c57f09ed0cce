package goredis_test

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	goredis9 "github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/goredis"
	"github.com/ginlimit/ginlimit/backend/memory"
	"github.com/ginlimit/ginlimit/backend/redis"
	"github.com/ginlimit/ginlimit/internal/testserver"
)

// Under a Fallback the log of a server that refuses, or no longer answers, names it and the cause,
// and says that the second backend decides, with either client.
func TestLogUnderFallback(t *testing.T) {
	for name, open := range map[string]func(*testing.T, *testserver.Server, *lines) backend.Backend{
		"go-redis": func(t *testing.T, s *testserver.Server, log *lines) backend.Backend {
			client := newClient(t, s.Addr(), func(o *goredis9.Options) { o.DialerRetries = 1 })
			return goredis.New(client, goredis.WithTimeout(10*time.Second), goredis.WithDenyCache(false), log.option())
		},
		"rueidis": func(t *testing.T, s *testserver.Server, log *lines) backend.Backend {
			b, err := redis.Dial(t.Context(), s.URL(), redis.WithPing(), redis.WithTimeout(10*time.Second), redis.WithDenyCache(false),
				redis.WithLogger(slog.New(slog.NewTextHandler(log, nil))))
			require.NoError(t, err)
			t.Cleanup(func() { _ = b.Close() })
			return b
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := testserver.Redis(t)
			var log lines
			b := backend.Fallback(backend.Lease(open(t, s, &log), 10), memory.New())
			take := func() backend.Source {
				t.Helper()
				return decide(t, b, "k", 1, hourly(1_000_000, backend.FixedWindow)).Source
			}
			told := func(parts ...string) {
				t.Helper()
				require.Eventually(t, func() bool {
					take()
					return log.count(parts[0]) > 0
				}, soon, time.Millisecond)
				line := log.line(parts[0])
				for _, part := range append(parts, "level=WARN", "server="+s.Addr(), "The second backend decides instead") {
					require.Contains(t, line, part)
				}
				require.NotContains(t, line, "failure policy")
			}
			require.NotEqual(t, backend.SourceFallback, take())
			ask(t, s, "CONFIG", "SET", "maxmemory", "1")
			told("code=GINLIMIT007", "kind=out_of_memory", "cause=\"OOM ")
			s.Kill()
			told("Redis does not answer", "cause=")
			require.Equal(t, backend.SourceFallback, take())
		})
	}
}

// line returns the first line with a text.
func (l *lines) line(text string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.buf.String()) {
		if strings.Contains(line, text) {
			return line
		}
	}
	return ""
}
