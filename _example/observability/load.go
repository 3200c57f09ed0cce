package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// load sends requests to the service and prints what came of them.
type load struct {
	service      *service
	out          io.Writer
	pause        time.Duration // how long a phase is
	url, metrics string
}

// phase is a list of requests, and what is done to the store before.
type phase struct {
	name, what string
	before     func(context.Context) error
	requests   []request
}

type request struct{ method, path, user string }

// phases returns those of a round, which has users of its own: an hour is longer than a round.
func (l *load) phases(round int) []phase {
	free, pro, greedy := users("free", 5, round), users("pro", 5, round), users("free-greedy", 5, round)
	s := l.service.store
	return []phase{
		{name: "allowed", what: "ten users search five times each, well below their limits, and log in",
			requests: join(searches(free, 5), searches(pro, 5), logins(5))},
		{name: "near-limit", what: "five more, with 20 searches an hour each, use 19 of them",
			requests: searches(greedy, 19)},
		{name: "denied", what: "they do not stop: one search is left, 39 are too many",
			requests: searches(greedy, 40)},
		{name: "degraded", what: "the store hangs; searches are counted in the process, log-ins are refused",
			before:   func(context.Context) error { s.fail(); return nil },
			requests: join(searches(free, 5), searches(pro, 5), logins(20))},
		{name: "recovered", what: "the store is back",
			before:   func(ctx context.Context) error { s.mend(); return l.service.mended(ctx) },
			requests: join(searches(pro, 5), logins(5))},
	}
}

func users(kind string, n, round int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("%s-%d-%d", kind, round+1, i+1))
	}
	return names
}

// searches returns n for each user, in turn.
func searches(users []string, n int) (all []request) {
	for range n {
		for _, user := range users {
			all = append(all, request{http.MethodGet, "/search", user})
		}
	}
	return all
}

func logins(n int) []request {
	return slices.Repeat([]request{{method: http.MethodPost, path: "/login"}}, n)
}

func join(lists ...[]request) []request { return slices.Concat(lists...) }

// run sends the phases of a round.
func (l *load) run(ctx context.Context, round int) error {
	defer l.service.store.mend()
	for _, p := range l.phases(round) {
		if err := l.phase(ctx, p); err != nil {
			return fmt.Errorf("phase %s: %w", p.name, err)
		}
	}
	return nil
}

func (l *load) phase(ctx context.Context, p phase) error {
	prom, otel, err := l.look(ctx)
	if err != nil {
		return err
	}
	if p.before != nil {
		if err := p.before(ctx); err != nil {
			return err
		}
	}
	statuses := map[int]int{}
	tick := time.NewTicker(max(l.pause/time.Duration(len(p.requests)), time.Nanosecond))
	defer tick.Stop()
	for _, r := range p.requests {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		status, err := l.send(ctx, r)
		if err != nil {
			return err
		}
		statuses[status]++
	}
	promNow, otelNow, err := l.look(ctx)
	if err != nil {
		return err
	}
	l.printf("\n== %s: %s\n   answers:", p.name, p.what)
	for _, status := range slices.Sorted(maps.Keys(statuses)) {
		l.printf(" %d × %d", statuses[status], status)
	}
	l.printf("\n")
	l.print("/metrics", promNow.since(prom))
	l.print("OpenTelemetry", otelNow.since(otel))
	l.print("spans, the first", l.service.telemetry.spans.take())
	return nil
}

func (l *load) send(ctx context.Context, r request) (status int, err error) {
	req, err := http.NewRequestWithContext(ctx, r.method, l.url+r.path, nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("X-User", r.user)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	return resp.StatusCode, err
}

// printf prints, and does not care whether anybody reads.
func (l *load) printf(format string, args ...any) { _, _ = fmt.Fprintf(l.out, format, args...) }

func (l *load) print(title string, lines []string) {
	if len(lines) > 0 {
		l.printf("   %s\n      %s\n", title, strings.Join(lines, "\n      "))
	}
}

// look returns what both kinds of metrics say now.
func (l *load) look(ctx context.Context) (prom, otel series, err error) {
	if prom, err = scrape(ctx, l.metrics); err == nil {
		otel, err = l.service.telemetry.counts(ctx)
	}
	return prom, otel, err
}

// series are values by name and labels.
type series map[string]float64

// since returns what changed, as lines: what was added to a counter, and what a gauge is now.
func (s series) since(before series) (lines []string) {
	for _, name := range slices.Sorted(maps.Keys(s)) {
		switch value := s[name]; {
		case strings.HasPrefix(name, "ginlimit_breaker_open"):
			if value != before[name] || value > 0 {
				lines = append(lines, fmt.Sprintf("%s is %v", name, value))
			}
		case value != before[name]:
			lines = append(lines, fmt.Sprintf("%s +%v", name, value-before[name]))
		}
	}
	return lines
}

// scrape reads the counters and the breakers of /metrics, as Prometheus would. The histograms are
// left out.
func scrape(ctx context.Context, url string) (series, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	s := series{}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		space := strings.LastIndexByte(lines.Text(), ' ') + 1
		name, value := strings.TrimSpace(lines.Text()[:space]), lines.Text()[space:]
		if kind, _, _ := strings.Cut(name, "{"); !strings.HasSuffix(kind, "_total") && kind != "ginlimit_breaker_open" || kind[0] == '#' {
			continue
		}
		if s[name], err = strconv.ParseFloat(value, 64); err != nil {
			return nil, fmt.Errorf("%s: %q: %w", url, lines.Text(), err)
		}
	}
	return s, lines.Err()
}
