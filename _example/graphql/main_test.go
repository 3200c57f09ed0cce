package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/ginlimit/ginlimit"
)

// ask sends a query over HTTP and returns the status, the header, and what it cost.
func ask(t *testing.T, s *httptest.Server, query string, variables map[string]any) (int, http.Header, int64) {
	t.Helper()
	body, err := json.Marshal(map[string]any{"query": query, "variables": variables})
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.Post(s.URL+"/graphql", "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var document struct{ Extensions struct{ Cost int64 } }
	if err := json.NewDecoder(answer.Body).Decode(&document); err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, answer.Header, document.Extensions.Cost
}

// newService starts the service. Nothing of a day's points comes back while a test runs.
func newService(t *testing.T, points int64) *httptest.Server {
	r, err := newRouter(ginlimit.PerDay(points))
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(r)
	t.Cleanup(s.Close)
	return s
}

func TestCost(t *testing.T) {
	s := newService(t, maxCost)
	doubling := "query { books(first: 1) { ...f0 } }"
	for i := range 25 {
		doubling += fmt.Sprintf(" fragment f%d on Book { ...f%d author { books(first: 1) { ...f%d } } }", i, i+1, i+1)
	}
	doubling += " fragment f25 on Book { title }"
	for _, tt := range []struct {
		query     string
		variables map[string]any
		want      int64
	}{
		{"{ books { title } }", nil, 11},
		{"{ books(first: 100) { title author { name } } }", nil, 301},
		{"{ books(first: 50) { author { books(first: 50) { title } } } }", nil, 2601},
		{"query($n: Int!) { books(first: $n) { title } }", map[string]any{"n": 7}, 8},
		{"query($n: Int!) { books(first: $n) { title } }", map[string]any{"n": "7"}, 8},
		{"query($n: Int) { books(first: $n) { title } }", map[string]any{"n": "007"}, 8},
		{"query($n: Int! = 3) { books(first: $n) { title } }", nil, 4},
		{"{ a: books(first: 2) { ...b } b: books(first: 3) { ... on Book { ...b } } } fragment b on Book { title }", nil, 7},
		{"{ books(first: -100) { title } }", nil, 1},
		{doubling, nil, 100_663_295},
	} {
		if status, _, cost := ask(t, s, tt.query, tt.variables); status != http.StatusOK || cost != tt.want {
			t.Errorf("%.80s with %v has status %d and costs %d, want 200 and %d", tt.query, tt.variables, status, cost, tt.want)
		}
	}
}

func TestAQueryThatCostsTooMuch(t *testing.T) {
	s := newService(t, 1000)
	for _, query := range []string{
		"{ books(first: 2000) { title } }",
		"{ books(first: 2000000000) { author { books(first: 2000000000) { author { books(first: 2000000000) { title } } } } } }",
	} {
		if status, header, _ := ask(t, s, query, nil); status != http.StatusTooManyRequests || header.Get("Retry-After") != "" {
			t.Errorf("%s has status %d and Retry-After %q, want 429 for ever", query, status, header.Get("Retry-After"))
		}
	}
	if status, header, _ := ask(t, s, "{ books(first: 998) { title } }", nil); status != http.StatusOK || header.Get("RateLimit-Policy") != `"graphql";q=1000;w=86400;qu="points"` {
		t.Errorf("got status %d and policy %q", status, header.Get("RateLimit-Policy"))
	}
	if status, header, _ := ask(t, s, "{ books { title } }", nil); status != http.StatusTooManyRequests || header.Get("Retry-After") == "" {
		t.Errorf("got status %d and Retry-After %q, want 429 and a time", status, header.Get("Retry-After"))
	}
}

func TestWhatIsNoQueryCostsNothing(t *testing.T) {
	s := newService(t, 11)
	for query, variables := range map[string]map[string]any{
		"": nil, "{": nil, "{ films { title } }": nil, "{ books { ...f } } fragment f on Book { ...f }": nil,
		"query($n: Int!) { books(first: $n) { title } }":    {"n": "many"},
		"{" + strings.Repeat(" books { title }", 500) + "}": nil,
	} {
		if status, _, _ := ask(t, s, query, variables); status != http.StatusBadRequest {
			t.Errorf("%.40q has status %d, want 400", query, status)
		}
	}
	if status, _, _ := ask(t, s, "{ books { title } }", nil); status != http.StatusOK {
		t.Errorf("got status %d, want 200", status)
	}
}
