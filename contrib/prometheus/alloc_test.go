package ginlimitprom_test

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"testing"
	"time"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/redis"
	ginlimitprom "github.com/ginlimit/ginlimit/contrib/prometheus"
)

// decisions are what a limiter tells its observers, each of a kind that takes another way.
func decisions() map[string]ginlimit.Decision {
	result := ginlimit.Result{Allowed: true, Limit: ginlimit.PerMinute(100).Named("minute"), Remaining: 50}
	near, refused := result, result
	near.Remaining = 1
	refused.Allowed, refused.Source = false, backend.SourceDenyCache
	d := ginlimit.Decision{Limiter: "api", Tier: "pro", Key: "ip:203.0.113.7", Cost: 1, Elapsed: 150 * time.Nanosecond}
	with := func(change func(d *ginlimit.Decision)) ginlimit.Decision {
		d := d
		change(&d)
		return d
	}
	return map[string]ginlimit.Decision{
		"allowed": with(func(d *ginlimit.Decision) { d.Result = result }),
		"near":    with(func(d *ginlimit.Decision) { d.Result = near }),
		"denied":  with(func(d *ginlimit.Decision) { d.Result = refused }),
		"dry run": with(func(d *ginlimit.Decision) { d.Result, d.DryRun = refused, true }),
		"waited":  with(func(d *ginlimit.Decision) { d.Result, d.Waited = result, 30*time.Millisecond }),
		"slow":    with(func(d *ginlimit.Decision) { d.Result, d.Elapsed = result, 73*time.Millisecond }),
		"no tier": with(func(d *ginlimit.Decision) { d.Result, d.TierErr = result, errors.New("down") }),
		"no key":  with(func(d *ginlimit.Decision) { d.Key, d.Err = "", ginlimit.ErrNoKey }),
		"unavailable": with(func(d *ginlimit.Decision) {
			d.Err = fmt.Errorf("test: %w: %w", backend.ErrUnavailable, redis.ErrReadOnly)
		}),
		"says kind": with(func(d *ginlimit.Decision) { d.Err = said("lock_timeout") }),
	}
}

// TestAllocs holds the hot path to its budget: none, once a label set is known. Only to find out
// the kind of an error costs some, beside which the error itself cost more.
func TestAllocs(t *testing.T) {
	if raceEnabled() {
		t.Skip("the race detector allocates")
	}
	c := ginlimitprom.New()
	ctx := context.Background()
	for name, d := range decisions() {
		c.Observe(ctx, d)
		budget := 0.0
		if d.Err != nil && d.Key != "" {
			budget = testing.AllocsPerRun(1000, func() { _ = backend.ErrorKind(d.Err) })
		}
		if got := testing.AllocsPerRun(1000, func() { c.Observe(ctx, d) }); got > budget {
			t.Errorf("%s: %v allocations, want %v", name, got, budget)
		}
	}
	for i := range ginlimitprom.DefaultCardinalityLimit {
		c.Observe(ctx, ginlimit.Decision{Limiter: "api", Tier: fmt.Sprint(i)})
	}
	full := ginlimit.Decision{Limiter: "api", Tier: "one more"}
	c.Observe(ctx, full)
	if got := testing.AllocsPerRun(1000, func() { c.Observe(ctx, full) }); got != 0 {
		t.Errorf("one label set too many: %v allocations", got)
	}
}

func BenchmarkObserve(b *testing.B) {
	for name, d := range decisions() {
		b.Run(name, func(b *testing.B) {
			c := ginlimitprom.New()
			ctx := context.Background()
			b.ReportAllocs()
			for b.Loop() {
				c.Observe(ctx, d)
			}
		})
	}
}

// raceEnabled reports whether this was built with the race detector, which allocates.
func raceEnabled() bool {
	info, _ := debug.ReadBuildInfo()
	return slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}
