package main

import (
	"context"
	"errors"
	"expvar"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/ginlimit/ginlimit"
)

// decisions counts what the limiters decided, by limiter and outcome, and logs failures now and then. There is never a
// key in a count or in the log: keys are as many as there are callers, and they identify people.
//
// It is an expvar.Map that is not published, so that there may be several in one process, as in the tests.
type decisions struct {
	expvar.Map // "client: refused" and the like
	logger     *slog.Logger
	logged     atomic.Int64 // when the last failure was, in ns since 1970
}

// observe runs on every request, and so neither waits nor logs each time.
func (o *decisions) observe(ctx context.Context, d ginlimit.Decision) {
	result := outcome(d)
	o.Add(d.Limiter+": "+result, 1)
	if d.TierErr != nil {
		o.Add(d.Limiter+": tier not found out", 1) // the limiter's own limits decided
	}
	// Without this nobody would notice: requests pass while Redis is down.
	if result == noDecision && o.mayLog() {
		o.logger.ErrorContext(ctx, "a limiter could not decide; of such errors one in ten seconds is logged",
			"limiter", d.Limiter, "passed", d.Status() == 0, "took", d.Elapsed.String(), "error", d.Err)
	}
}

// outcome is one of five, so that there are few counts.
func outcome(d ginlimit.Decision) string {
	switch {
	case d.Err == nil && d.Allowed:
		return "allowed"
	case d.Err == nil && d.DryRun:
		return "would refuse"
	case d.Err == nil:
		return "refused"
	case errors.Is(d.Err, ginlimit.ErrNoKey):
		return "no key"
	default:
		return noDecision
	}
}

const noDecision = "no decision" // because Redis failed

// mayLog reports whether ten seconds went by since it last did.
func (o *decisions) mayLog() bool {
	now, last := time.Now().UnixNano(), o.logged.Load()
	return now-last > int64(10*time.Second) && o.logged.CompareAndSwap(last, now)
}
