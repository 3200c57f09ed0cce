package console_test

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/contrib/console"
)

// decisions are what a limiter tells its observers, each of a kind that takes another way.
func decisions() map[string]ginlimit.Decision {
	result := ginlimit.Result{Allowed: true, Limit: ginlimit.PerMinute(100).Named("minute"), Remaining: 50}
	near, refused := result, result
	near.Remaining = 1
	refused.Allowed, refused.Source, refused.RetryAfter = false, backend.SourceDenyCache, time.Minute
	d := ginlimit.Decision{Limiter: "api", Tier: "pro", Key: "ip:203.0.113.7", Cost: 1, Limits: []ginlimit.Limit{result.Limit}}
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
		"banned":  with(func(d *ginlimit.Decision) { d.Result, d.Banned = refused.WithBanned(false), true }),
		"ban":     with(func(d *ginlimit.Decision) { d.Result, d.Banned = refused.WithBanned(true), true }),
		"no key":  with(func(d *ginlimit.Decision) { d.Key, d.Err = "", ginlimit.ErrNoKey }),
		"failed":  with(func(d *ginlimit.Decision) { d.Err = fmt.Errorf("test: %w", backend.ErrUnavailable) }),
	}
}

// TestAllocs holds the hot path to its budget: no allocation, also not for callers that were never
// seen, or for long keys.
func TestAllocs(t *testing.T) {
	if raceEnabled() {
		t.Skip("the race detector allocates")
	}
	ctx := context.Background()
	page := console.New(nil)
	long := string(make([]byte, 10_000))
	keys := make([]string, 5000)
	for i := range keys {
		keys[i] = fmt.Sprint(i, "-", long[:i])
	}
	for name, d := range decisions() {
		page.Observe(ctx, d)
		if got := testing.AllocsPerRun(1000, func() { page.Observe(ctx, d) }); got != 0 {
			t.Errorf("%s: %v allocations", name, got)
		}
		if d.Key == "" {
			continue
		}
		i := 0
		if got := testing.AllocsPerRun(4000, func() { d.Key = keys[i]; i++; page.Observe(ctx, d) }); got != 0 {
			t.Errorf("%s, of many callers: %v allocations", name, got)
		}
	}
	for i := range 1000 {
		page.Observe(ctx, ginlimit.Decision{Limiter: "api", Tier: fmt.Sprint(i)})
	}
	full := ginlimit.Decision{Limiter: "api", Tier: "one more"}
	if got := testing.AllocsPerRun(1000, func() { page.Observe(ctx, full) }); got != 0 {
		t.Errorf("one tier too many: %v allocations", got)
	}
}

func BenchmarkObserve(b *testing.B) {
	ctx := context.Background()
	for name, d := range decisions() {
		b.Run(name, func(b *testing.B) {
			page := console.New(nil)
			b.ReportAllocs()
			for b.Loop() {
				page.Observe(ctx, d)
			}
		})
	}
	keys := make([]string, 1<<16)
	for i := range keys {
		keys[i] = fmt.Sprintf("ip:203.%d.%d.7", i>>8, i&255)
	}
	b.Run("65536 callers", func(b *testing.B) {
		page, d := console.New(nil), decisions()["denied"]
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			d.Key = keys[i%len(keys)]
			page.Observe(ctx, d)
		}
	})
	b.Run("65536 callers, 64 goroutines a core", func(b *testing.B) {
		page, denied := console.New(nil), decisions()["denied"]
		var start atomic.Int64
		b.ReportAllocs()
		b.SetParallelism(64)
		b.RunParallel(func(pb *testing.PB) {
			d, i := denied, int(start.Add(1))*1000
			for ; pb.Next(); i++ {
				d.Key = keys[i%len(keys)]
				page.Observe(ctx, d)
			}
		})
	})
	b.Run("no observer, for comparison", func(b *testing.B) {
		d, observe := decisions()["allowed"], func(context.Context, ginlimit.Decision) {}
		for b.Loop() {
			observe(ctx, d)
		}
	})
}

// raceEnabled reports whether this was built with the race detector, which allocates.
func raceEnabled() bool {
	info, _ := debug.ReadBuildInfo()
	return slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}
