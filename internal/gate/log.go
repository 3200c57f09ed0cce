package gate

import (
	"log/slog"
	"sync/atomic"
	"time"
)

// Log returns a function for New that writes to a log when the breaker of a store's server opens, and when it closes.
// server may be "".
func Log(log func() *slog.Logger, store, server string) func(open bool) {
	var down atomic.Int64 // since when, in ns since 1970
	return func(open bool) {
		var where []any
		if server != "" {
			where = append(where, "server", server)
		}
		if open {
			down.Store(time.Now().UnixNano())
			log().Warn("ginlimit: "+store+" does not answer; until it does the failure policies decide", where...)
			return
		}
		log().Info("ginlimit: "+store+" answers again", append(where, "after", time.Since(time.Unix(0, down.Load())).Round(time.Millisecond))...)
	}
}
