package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/ginlimit/ginlimit"
)

func TestMain(m *testing.M) {
	gin.SetMode(gin.ReleaseMode)
	slog.SetDefault(slog.New(slog.DiscardHandler))
	os.Exit(m.Run())
}

// patient is the time budget here: a busy machine is no reason to let requests pass.
const patient = time.Second

func newLoad(t *testing.T, s *store) *load {
	t.Helper()
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	tel, err := newTelemetry(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	svc, err := newService(s, tel)
	if err != nil {
		t.Fatal(err)
	}
	public, operator := httptest.NewServer(svc.router), httptest.NewServer(tel.handler())
	t.Cleanup(func() { public.Close(); operator.Close() })
	return &load{service: svc, out: io.Discard, url: public.URL, metrics: operator.URL + "/metrics"}
}

// only returns what lines begin with one of the prefixes.
func only(lines []string, prefixes ...string) (kept []string) {
	for _, line := range lines {
		if slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(line, p) }) {
			kept = append(kept, line)
		}
	}
	return kept
}

// sum adds up the series whose names contain all words.
func (s series) sum(words ...string) (sum float64) {
	for name, value := range s {
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(name, w) }) {
			sum += value
		}
	}
	return sum
}

const (
	decisions = "ginlimit_decisions_total"
	nearLimit = "ginlimit_near_limit_decisions_total"
	search    = `{limit="search",limiter="search",`
	login     = `{limit="login",limiter="login",`
)

// wantDecisions is what each phase adds to /metrics, whatever the store.
var wantDecisions = map[string][]string{
	"allowed": {
		decisions + login + `outcome="allowed",tier=""} +5`,
		decisions + search + `outcome="allowed",tier="free"} +25`,
		decisions + search + `outcome="allowed",tier="pro"} +25`,
	},
	"near-limit": {
		decisions + search + `outcome="allowed",tier="free"} +95`,
		nearLimit + search + `tier="free"} +15`, // with 3, 2 and 1 left of 20
	},
	"denied": {
		decisions + search + `outcome="allowed",tier="free"} +5`,
		decisions + search + `outcome="denied",tier="free"} +195`,
		nearLimit + search + `tier="free"} +5`,
	},
	"degraded": {
		decisions + `{limit="",limiter="login",outcome="error_refused",tier=""} +20`,
		decisions + search + `outcome="allowed",tier="free"} +25`,
		decisions + search + `outcome="allowed",tier="pro"} +25`,
	},
	"recovered": {
		decisions + login + `outcome="allowed",tier=""} +5`,
		decisions + search + `outcome="allowed",tier="pro"} +25`,
	},
}

func TestPhases(t *testing.T) {
	t.Run("memory", func(t *testing.T) { testPhases(t, fragileMemory()) })
	t.Run("Redis", func(t *testing.T) {
		s, err := openStore(t.Context(), patient)
		if err != nil {
			t.Fatal(err)
		}
		if s.breakers == nil {
			if os.Getenv("CI") == "true" {
				t.Fatal("there is no redis-server")
			}
			t.Skip("this test needs redis-server (apt-get install redis-server)")
		}
		testPhases(t, s)
	})
}

func testPhases(t *testing.T, s *store) {
	l := newLoad(t, s)
	for round := range 2 {
		phases := l.phases(round)
		if len(phases) != len(wantDecisions) {
			t.Fatalf("%d phases, want %d", len(phases), len(wantDecisions))
		}
		for _, p := range phases {
			var out bytes.Buffer
			l.out = &out
			prom, otel := l.mustLook(t)
			if err := l.phase(t.Context(), p); err != nil {
				t.Fatal(err)
			}
			promNow, otelNow := l.mustLook(t)
			added := promNow.since(prom)
			if got := only(added, decisions, nearLimit); !slices.Equal(got, wantDecisions[p.name]) {
				t.Errorf("%s: /metrics says\n%s\nwant\n%s", p.name, strings.Join(added, "\n"), strings.Join(wantDecisions[p.name], "\n"))
			}
			for _, line := range added {
				if !strings.Contains(out.String(), line) {
					t.Errorf("%s: %q is not printed:\n%s", p.name, line, &out)
				}
			}
			wantSources(t, p.name, promNow, prom)
			wantBreaker(t, p.name, s, promNow)
			wantSame(t, p.name, promNow, otelNow)
			if p.name == "degraded" {
				if n := otelNow.sum("ginlimit.decisions", "error.type=") - otel.sum("ginlimit.decisions", "error.type="); n != 20 {
					t.Errorf("OpenTelemetry has %v errors, want 20", n)
				}
			}
			if spans := strings.Count(out.String(), "ginlimit.decision: "); (spans == sampleSize) != (p.name == "denied" || p.name == "degraded") {
				t.Errorf("%s: %d spans are printed:\n%s", p.name, spans, &out)
			}
		}
	}
}

func (l *load) mustLook(t *testing.T) (prom, otel series) {
	t.Helper()
	prom, otel, err := l.look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return prom, otel
}

// wantSources looks at who decided, and why nobody did.
func wantSources(t *testing.T, phase string, now, before series) {
	t.Helper()
	added := func(words ...string) float64 { return now.sum(words...) - before.sum(words...) }
	fallback, errors := 0.0, 0.0
	if phase == "degraded" {
		fallback, errors = 50, 20
	}
	if got := added("ginlimit_answers_total", `source="fallback"`); got != fallback {
		t.Errorf("%s: the fallback decided %v times, want %v", phase, got, fallback)
	}
	if got := added("ginlimit_errors_total"); got != errors {
		t.Errorf("%s: %v errors, want %v", phase, got, errors)
	}
	if answers, decided := added("ginlimit_answers_total"), added(decisions)-errors; answers != decided {
		t.Errorf("%s: %v answers, %v decisions", phase, answers, decided)
	}
}

func wantBreaker(t *testing.T, phase string, s *store, now series) {
	t.Helper()
	open := 0.0
	if s.breakers != nil && phase == "degraded" {
		open = 1
	}
	if got := now.sum("ginlimit_breaker_open"); got != open {
		t.Errorf("%s: ginlimit_breaker_open is %v, want %v", phase, got, open)
	}
}

// wantSame holds Prometheus and OpenTelemetry to each other.
func wantSame(t *testing.T, phase string, prom, otel series) {
	t.Helper()
	for _, limiter := range []string{"search", "login"} {
		for _, outcome := range []string{"allowed", "denied", "error_passed", "error_refused"} {
			p := prom.sum(decisions, `limiter="`+limiter+`"`, `outcome="`+outcome+`"`)
			o := otel.sum("ginlimit.decisions{", "ginlimit.limiter="+limiter, "ginlimit.outcome="+outcome)
			if p != o {
				t.Errorf("%s: %s, %s: %v in Prometheus, %v in OpenTelemetry", phase, limiter, outcome, p, o)
			}
		}
	}
}

// The live page shows whom the limiters refuse.
func TestConsole(t *testing.T) {
	l := newLoad(t, fragileMemory())
	for range 25 {
		if _, err := l.send(t.Context(), request{http.MethodGet, "/search", "free-greedy"}); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(l.metrics, "metrics")+"console/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	first, err := bufio.NewReader(resp.Body).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"name":"search"`, `"name":"login"`, `"totals":{"allowed":20,"denied":5}`, `"key":"user:free-greedy"`} {
		if !strings.Contains(first, want) {
			t.Errorf("%s is not in %s", want, first)
		}
	}
}

func TestRun(t *testing.T) {
	var out bytes.Buffer
	cfg := config{addr: "127.0.0.1:0", metrics: "127.0.0.1:0", rounds: 1, budget: patient}
	if err := run(t.Context(), cfg, &out); err != nil {
		t.Fatal(err)
	}
	for name := range wantDecisions {
		if strings.Count(out.String(), "\n== "+name+": ") != 1 {
			t.Errorf("phase %s is not printed once:\n%s", name, &out)
		}
	}

	taken := httptest.NewServer(http.NotFoundHandler())
	defer taken.Close()
	for _, broken := range []func(*config){
		func(c *config) { c.addr = taken.Listener.Addr().String() },
		func(c *config) { c.metrics = taken.Listener.Addr().String() },
	} {
		c := cfg
		broken(&c)
		if err := run(t.Context(), c, io.Discard); err == nil {
			t.Error("it starts on an address that is taken")
		}
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	cfg.stay = true
	if err := run(ctx, cfg, io.Discard); err == nil {
		t.Error("it says nothing of having been ended before its time")
	}
}

// A collector gets what the environment says.
func TestOTLP(t *testing.T) {
	var mu sync.Mutex
	got := map[string]string{}
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		got[r.URL.Path] += string(body)
	}))
	defer collector.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)
	tel, err := newTelemetry(t.Context(), fragileMemory())
	if err != nil {
		t.Fatal(err)
	}
	ctx, span := tel.tracers.Tracer("test").Start(t.Context(), "GET /search")
	tel.otel.Observe(ctx, ginlimit.Decision{Limiter: "search"})
	span.End()
	if err := tel.shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	for path, word := range map[string]string{"/v1/metrics": "ginlimit.decisions", "/v1/traces": "ginlimit.decision"} {
		if !strings.Contains(got[path], word) {
			t.Errorf("%s: %q is not in %q", path, word, got[path])
		}
	}
}

// What main.go and prometheus.yml name is there.
func TestFilesThatAreNamed(t *testing.T) {
	for _, file := range []string{"main.go", "prometheus.yml"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		named := regexp.MustCompile(`(?:\.\./)+contrib/\S+`).FindAllString(string(text), -1)
		if len(named) == 0 {
			t.Errorf("%s names nothing of contrib", file)
		}
		for _, name := range named {
			if _, err := os.Stat("../../" + strings.TrimLeft(name, "./")); err != nil {
				t.Errorf("%s: %v", file, err)
			}
		}
	}
}
