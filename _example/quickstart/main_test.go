package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
)

// get sends GET /ping, with an X-Forwarded-For if one is given.
func get(t *testing.T, srv *httptest.Server, forwardedFor string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+"/ping", nil)
	if err != nil {
		t.Fatal(err)
	}
	if forwardedFor != "" {
		req.Header.Set("X-Forwarded-For", forwardedFor)
	}
	resp, err := srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func TestTenAMinute(t *testing.T) {
	srv := httptest.NewServer(newRouter())
	defer srv.Close()

	for left := 9; left >= 0; left-- {
		resp := get(t, srv, "")
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("status %d with %d left", resp.StatusCode, left)
		}
		if got := resp.Header.Get("X-RateLimit-Remaining"); got != strconv.Itoa(left) {
			t.Errorf("X-RateLimit-Remaining: %q, want %d", got, left)
		}
		if got := resp.Header.Get("RateLimit-Policy"); got != `"default";q=10;w=60` {
			t.Errorf("RateLimit-Policy: %q", got)
		}
	}

	resp := get(t, srv, "")
	if resp.StatusCode != http.StatusTooManyRequests {
		t.Fatalf("the eleventh has status %d", resp.StatusCode)
	}
	if got := resp.Header.Get("Retry-After"); got != "6" {
		t.Errorf("Retry-After: %q, want 6: ten a minute is one every six seconds", got)
	}
	var problem struct {
		Title  string
		Status int
	}
	if err := json.NewDecoder(resp.Body).Decode(&problem); err != nil {
		t.Fatal(err)
	}
	if problem.Status != http.StatusTooManyRequests || problem.Title != "Quota Exceeded" {
		t.Errorf("problem: %+v", problem)
	}
}

func TestHeaderIsNoWayAround(t *testing.T) {
	srv := httptest.NewServer(newRouter())
	defer srv.Close()

	for i := range 11 {
		want := http.StatusOK
		if i == 10 {
			want = http.StatusTooManyRequests
		}
		if resp := get(t, srv, "198.51.100."+strconv.Itoa(i)); resp.StatusCode != want {
			t.Errorf("request %d has status %d, want %d", i+1, resp.StatusCode, want)
		}
	}
}
