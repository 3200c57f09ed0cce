package main

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/ginlimit/ginlimit"
)

// observe returns an observer that writes a JSON line for every decision, as ginlimit replay
// -observe reads it. The key may identify a person: treat the file as you treat an access log.
func observe(log *slog.Logger) func(context.Context, ginlimit.Decision) {
	return func(ctx context.Context, d ginlimit.Decision) {
		log.LogAttrs(ctx, slog.LevelInfo, "decision", slog.Time("at", d.At), slog.String("key", d.Key), slog.Any("decision", d))
	}
}

// A limiter in a dry run refuses nobody. Its observer writes what it decided, and
// ginlimit replay -observe -limit 100/m decisions.jsonl says what another limit would have done.
func Example_observe() {
	log := slog.New(slog.NewJSONHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: sameAttr}))
	r := gin.New()
	_ = r.SetTrustedProxies(nil)
	r.Use(ginlimit.New(ginlimit.PerMinute(1), ginlimit.ByIP(), ginlimit.WithName("api"), ginlimit.WithDryRun(true), ginlimit.WithObserver(observe(log))))
	r.GET("/", func(*gin.Context) {})
	for range 2 {
		r.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
	}
	// Output:
	// {"time":"2026-11-29T12:00:00.123456Z","level":"INFO","msg":"decision","at":"2026-11-29T12:00:00.123456Z","key":"ip:192.0.2.1","decision":{"limiter":"api","outcome":"allowed","cost":1,"limit":"api","source":"store","remaining":0}}
	// {"time":"2026-11-29T12:00:00.123456Z","level":"INFO","msg":"decision","at":"2026-11-29T12:00:00.123456Z","key":"ip:192.0.2.1","decision":{"limiter":"api","outcome":"dry_run_denied","cost":1,"limit":"api","source":"store","remaining":0,"retry_after":60000000000}}
}

// sameAttr gives the attributes that differ each time the same value.
func sameAttr(_ []string, a slog.Attr) slog.Attr {
	switch a.Key {
	case slog.TimeKey, "at":
		return slog.String(a.Key, "2026-11-29T12:00:00.123456Z")
	case "elapsed":
		return slog.Attr{}
	case "retry_after":
		return slog.Duration(a.Key, a.Value.Duration().Round(time.Minute))
	}
	return a
}
