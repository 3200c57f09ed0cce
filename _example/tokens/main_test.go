package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/memory"
)

// service is the proxy on a port of its own.
type service struct {
	*testing.T
	url string
	b   backend.Backend
}

func newService(t *testing.T) *service {
	model := httptest.NewServer(http.HandlerFunc(fakeModel))
	t.Cleanup(model.Close)
	b := memory.New()
	r, err := newRouter(model.URL, b)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httptest.NewServer(r)
	t.Cleanup(proxy.Close)
	return &service{t, proxy.URL, b}
}

// chat sends a prompt and returns the status, the header and the body.
func (s *service) chat(key, prompt string, most int64) (int, http.Header, string) {
	s.Helper()
	q, err := http.NewRequest(http.MethodPost, s.url+"/chat", strings.NewReader(fmt.Sprintf(`{"prompt": %q, "max_tokens": %d}`, prompt, most)))
	if err != nil {
		s.Fatal(err)
	}
	q.Header.Set("Authorization", "Bearer "+key)
	answer, err := http.DefaultClient.Do(q)
	if err != nil {
		s.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		s.Fatal(err)
	}
	return answer.StatusCode, answer.Header, string(body)
}

// limit is what /usage says of one limit.
type limit struct {
	Name                          string
	Limit, Used, Remaining, Reset int64
}

// usage returns what a key has used of its requests and of its tokens.
func (s *service) usage(key string) (requests, tokens limit) {
	s.Helper()
	q, err := http.NewRequest(http.MethodGet, s.url+"/usage", nil)
	if err != nil {
		s.Fatal(err)
	}
	q.Header.Set("Authorization", "Bearer "+key)
	answer, err := http.DefaultClient.Do(q)
	if err != nil {
		s.Fatal(err)
	}
	defer answer.Body.Close()
	var document struct{ Limiters []struct{ Limits []limit } }
	if err := json.NewDecoder(answer.Body).Decode(&document); err != nil {
		s.Fatal(err)
	}
	return document.Limiters[0].Limits[0], document.Limiters[1].Limits[0]
}

// settled waits until a key has used so many requests and about so many tokens: what a stream took
// is settled after its last byte was sent, and tokens come back all the time.
func (s *service) settled(key string, requests, most, least int64) {
	s.Helper()
	var r, t limit
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if r, t = s.usage(key); r.Used == requests && t.Used <= most && t.Used >= least {
			return
		}
	}
	s.Errorf("%s has used %d requests and %d tokens, want %d and %d to %d", key, r.Used, t.Used, requests, least, most)
}

func TestTokensAreSettled(t *testing.T) {
	s := newService(t)
	status, header, body := s.chat("ann", "say it again", 500)
	if status != http.StatusOK || !strings.Contains(body, `"text":"again"`) || !strings.Contains(body, `"total_tokens":6`) {
		t.Fatalf("got status %d and %q, want the stream and what it took", status, body)
	}
	if got := header.Get("RateLimit-Policy"); got != `"requests";q=10;w=60, "tokens";q=1000;w=60` {
		t.Errorf("RateLimit-Policy is %q, want both", got)
	}
	s.settled("ann", 1, 6, 0)
	if _, tokens := s.usage("bob"); tokens.Used != 0 {
		t.Errorf("bob has used %d tokens, want none", tokens.Used)
	}
}

func TestARequestThatDoesNotFitCostsNothing(t *testing.T) {
	s := newService(t)
	if status, header, _ := s.chat("ann", "too long", 1001); status != http.StatusTooManyRequests || header.Get("Retry-After") != "" {
		t.Errorf("got status %d and Retry-After %q, want 429 for ever", status, header.Get("Retry-After"))
	}
	s.settled("ann", 0, 0, 0)
	if status, _, _ := s.chat("ann", "fail", 500); status != http.StatusBadGateway {
		t.Errorf("got status %d, want 502", status)
	}
	s.settled("ann", 1, 0, 0)
	if status, _, _ := s.chat("ann", "", 0); status != http.StatusBadRequest {
		t.Errorf("got status %d, want 400", status)
	}
	s.settled("ann", 1, 0, 0)
}

// TestDebt: who used more than there was waits until it is paid, and not a second less or more.
func TestDebt(t *testing.T) {
	s := newService(t)
	if status, _, _ := s.chat("ann", strings.Repeat("word ", 900), 10); status != http.StatusTooManyRequests {
		t.Fatalf("got status %d, want 429: the estimate does not fit", status)
	}
	if status, _, _ := s.chat("ann", strings.Repeat("a ", 900), 10); status != http.StatusOK {
		t.Fatalf("got status %d, want 200", status)
	}
	s.settled("ann", 1, 1800, tokensPerMinute+1) // an estimate of 460, and 1,800 used
	_, before := s.usage("ann")
	status, header, _ := s.chat("ann", "one more", 1)
	_, after := s.usage("ann")
	wait, err := strconv.ParseInt(header.Get("Retry-After"), 10, 64)
	if status != http.StatusTooManyRequests || err != nil {
		t.Fatalf("got status %d and Retry-After %q, want 429 and a time", status, header.Get("Retry-After"))
	}
	// 1,000 tokens come back a minute, and it costs 3: two for the prompt, and the one that may
	// come. Used is rounded up, and so is a Retry-After, to whole seconds.
	due := func(used int64) time.Duration {
		return time.Duration(used+3-tokensPerMinute) * time.Minute / tokensPerMinute
	}
	if got := time.Duration(wait) * time.Second; got < due(after.Used-1) || got > due(before.Used)+time.Second {
		t.Errorf("Retry-After is %v with %d to %d of %d tokens used", got, after.Used, before.Used, int64(tokensPerMinute))
	}
}

func TestRequestsAreLimitedToo(t *testing.T) {
	s := newService(t)
	for n := range 1000 {
		status, header, _ := s.chat("ann", "hi", 1)
		if status == http.StatusOK {
			continue
		}
		if got := header.Get("RateLimit"); n < requestsPerMinute || !strings.HasPrefix(got, `"requests";r=0`) {
			t.Errorf("request %d got status %d and RateLimit %q, want the limit of requests to refuse after %d", n+1, status, got, requestsPerMinute)
		}
		return
	}
	t.Error("1,000 requests passed")
}
