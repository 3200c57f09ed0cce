package main

import (
	"context"
	"expvar"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ginlimit/ginlimit"
)

// decisions counts what the limiters decided, by limiter and outcome, and logs failures now and
// then. There is never a key in a count or in the log: keys are as many as there are callers, and
// they identify people.
//
// It is an expvar.Map that is not published, so that there may be several in one process, as in the
// tests.
type decisions struct {
	expvar.Map // "client: denied" and the like
	logger     *slog.Logger
	logged     atomic.Int64 // when the last failure was, in ns since 1970
}

// observe runs on every request, and so neither waits nor logs each time.
func (o *decisions) observe(ctx context.Context, d ginlimit.Decision) {
	outcome := d.Outcome()
	o.Add(d.Limiter+": "+outcome, 1)
	if d.TierErr != nil {
		o.Add(d.Limiter+": tier not found out", 1) // the tier that the caller had last decided, or the limiter's own limits
	}
	// Without this nobody would notice: requests pass while Redis is down.
	if strings.HasPrefix(outcome, "error_") && o.mayLog() {
		o.logger.ErrorContext(ctx, "a limiter could not decide; of such errors one in ten seconds is logged",
			"limiter", d.Limiter, "passed", d.Passes(), "took", d.Elapsed.String(), "error", d.Err)
	}
}

// mayLog reports whether ten seconds went by since it last did.
func (o *decisions) mayLog() bool {
	now, last := time.Now().UnixNano(), o.logged.Load()
	return now-last > int64(10*time.Second) && o.logged.CompareAndSwap(last, now)
}
