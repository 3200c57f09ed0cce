package redis_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend/redis"
	"github.com/ginlimit/ginlimit/internal/testserver"
)

// A server without a command that decisions need says so when the application starts with
// WithPing, and once in the log of one that started without. Without another command it decides: a
// server without HELLO speaks RESP2 only, as old proxies do.
func TestCommandsThatAreMissing(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"EVALSHA", "EVAL", "GET", "SET", "TIME", "DEL", "HELLO", "CLIENT", "PING"} {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			s := testserver.Redis(t, "--rename-command", command, "")
			var log, pinged dialLog
			b, err := redis.Dial(t.Context(), s.URL(), dialPatient(redis.WithPing(), pinged.option())...)
			switch command {
			case "HELLO", "CLIENT":
				require.NoError(t, err)
				t.Cleanup(func() { _ = b.Close() })
				dialDecides(t, b)
				dialEventually(t, func() bool {
					dialDecides(t, b)
					return pinged.count("GINLIMIT006") == 1
				})
				return
			case "PING":
				require.NoError(t, err)
				t.Cleanup(func() { _ = b.Close() })
				dialDecides(t, b)
				return
			}
			dialUnavailable(t, err)
			require.ErrorIs(t, err, redis.ErrUnknownCommand)
			b = dialBackend(t, s.URL(), log.option())
			for range 3 {
				_, err = b.Take(t.Context(), "k", 1, dialLimit(100))
				if command == "DEL" {
					require.NoError(t, err)
					err = b.Reset(t.Context(), "k")
				}
				require.ErrorIs(t, err, redis.ErrUnknownCommand)
			}
			assert.Equal(t, 1, log.lines("level=WARN", "code=GINLIMIT007", "server="+s.Addr(), "kind=unknown_command"), &log)
		})
	}
}
