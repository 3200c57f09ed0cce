package gate_test

import (
	"bytes"
	"io"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/ginlimit/ginlimit/internal/gate"
	"github.com/ginlimit/ginlimit/internal/storeerr"
	"github.com/ginlimit/ginlimit/internal/storelog"
)

// The log says of which server nothing is heard, why, how much time it had, what to do, and who
// decides meanwhile.
func TestLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text bytes.Buffer
		logger := slog.New(slog.NewTextHandler(&text, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}}))
		log := &gate.Log{
			Logger: func() *slog.Logger { return logger }, Store: "Redis", Server: func() string { return "limits:6379" },
			Timeout: timeout, Option: "redis.WithTimeout", Meanwhile: new(storelog.Decider).String,
		}
		log.Changed(true, storeerr.Unavailable("redis: take", nil, io.EOF))
		time.Sleep(3 * time.Second)
		log.Changed(false, nil)
		assert.Equal(t, `level=WARN msg="ginlimit: Redis does not answer, so that calls fail at once until it does. The failure policy of each `+
			`limiter decides instead, or the second backend of a Fallback. See that the server runs and can be reached; if it is only slow or far `+
			`away, raise redis.WithTimeout" server=limits:6379 cause=EOF timeout=100ms
level=INFO msg="ginlimit: Redis answers again" server=limits:6379 after=3s
`, text.String())
	})
}
