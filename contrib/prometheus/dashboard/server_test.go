package dashboard_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/ginlimit/ginlimit/contrib/prometheus/dashboard/internal/promserver"
	"github.com/ginlimit/ginlimit/contrib/prometheus/dashboard/internal/shop"
	"github.com/ginlimit/ginlimit/internal/testserver"
)

// mayBeEmpty are the panels that a short time has nothing for.
var mayBeEmpty = []string{
	"Requests, compared with an hour before", // there is no such hour
}

// TestRealPrometheus has a Prometheus with classic histograms and one with native ones scrape an
// application through calm, over the limit and Redis that hangs, and asks both for every expression
// of the dashboard.
func TestRealPrometheus(t *testing.T) {
	store := testserver.Redis(t)
	s, err := shop.Open(t.Context(), store.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	config := promserver.Config{Target: s.Addr(), Interval: 250 * time.Millisecond, Rules: "alerts.yml"}
	classic := promserver.ForTest(t, config)
	config.Native = true
	native := promserver.ForTest(t, config)

	serve := func(callers []shop.Callers) {
		t.Helper()
		if err := s.Serve(t.Context(), callers, 2*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	serve(shop.Calm)
	serve(shop.Over)
	store.Pause()
	serve(shop.Near)
	// The breaker is open for as long as the server hangs: a scrape has to see it.
	for _, server := range []*promserver.Server{classic, native} {
		until(t, server, "max(ginlimit_breaker_open) == 1")
	}
	store.Resume()
	serve(shop.Near)

	for name, server := range map[string]*promserver.Server{"classic": classic, "native": native} {
		t.Run(name, func(t *testing.T) { ask(t, server) })
	}
	until(t, classic, "ginlimit_decision_duration_seconds_bucket")
	until(t, native, "ginlimit_decision_duration_seconds")
	if got, err := native.Query(t.Context(), "ginlimit_decision_duration_seconds_bucket"); err != nil || len(got) != 0 {
		t.Errorf("a Prometheus that takes native histograms has %d classic ones too: %v", len(got), err)
	}
}

// ask queries each expression of the dashboard, and looks at the rules.
func ask(t *testing.T, server *promserver.Server) {
	found := map[string]int{}
	for _, e := range exprs(t) {
		got, err := server.Query(t.Context(), e.text)
		if err != nil {
			t.Errorf("%s: %v in %s", e.panel, err, e.text)
		}
		found[e.panel] += len(got)
	}
	for panel, n := range found {
		if n == 0 && !slices.Contains(mayBeEmpty, panel) {
			t.Errorf("%s: there is no data", panel)
		}
	}
	for _, selector := range []string{
		`ginlimit_decisions_total{limiter="api", tier="free", limit="free", outcome="denied"}`,
		`ginlimit_decisions_total{limiter="api", outcome="no_key"}`,
		`ginlimit_decisions_total{limiter="api", outcome="error_passed"}`,
		`ginlimit_decisions_total{limiter="login", outcome="error_refused"}`,
		`ginlimit_decisions_total{limiter="trial", outcome="dry_run_denied"}`,
		`ginlimit_near_limit_decisions_total{limiter="api", tier="free"}`,
		`ginlimit_answers_total{source="deny-cache"}`, `ginlimit_answers_total{source="lease"}`, `ginlimit_answers_total{limiter="search", source="fallback"}`,
		`ginlimit_errors_total{kind="timeout"}`, `ginlimit_errors_total{kind="breaker_open"}`,
		`ginlimit_tier_lookup_failures_total{limiter="api"}`, `ginlimit_denied_keys{limiter="api"}`,
		`ginlimit_bans_total{limiter="login"}`, `ginlimit_decisions_total{limiter="login", outcome="banned"}`,
		`1 + ginlimit_requests_in_flight{limiter="checkout"}`, // it is there
	} {
		if got, err := server.Query(t.Context(), selector+" > 0"); err != nil || len(got) == 0 {
			t.Errorf("%s has no value above 0: %v", selector, err)
		}
	}
	until(t, server, `ALERTS{alertname="GinlimitFailsOpen", limiter="api"}`) // pending, for now
	rules, err := server.Rules(t.Context())
	if err != nil || len(rules) != len(alertExprs(t)) {
		t.Fatalf("%d rules are loaded: %v", len(rules), err)
	}
	for _, r := range rules {
		if r.Health != "ok" || r.LastError != "" {
			t.Errorf("rule %+v", r)
		}
	}
}

// until asks until there is an answer. Time passes in the server, which scrapes and evaluates on
// its own.
func until(t *testing.T, server *promserver.Server, expr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		got, err := server.Query(ctx, expr)
		if err == nil && len(got) > 0 {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s has no data: %v", expr, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}
