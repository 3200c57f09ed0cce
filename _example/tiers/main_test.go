package main

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// service is the router with its database.
type service struct {
	t      *testing.T
	db     *database
	router http.Handler
}

// test runs f at a time that stands still unless f sleeps.
func test(t *testing.T, f func(*testing.T, service)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		db, cache := newDatabase(), newPlanCache()
		defer cache.StopAllGoroutines()
		f(t, service{t, db, newRouter(db, cache)})
	})
}

func (s service) send(method, path, from, apiKey string) *httptest.ResponseRecorder {
	req := httptest.NewRequest(method, path, nil)
	req.RemoteAddr = from
	if apiKey != "" {
		req.Header.Set("X-API-Key", apiKey)
	}
	rec := httptest.NewRecorder()
	s.router.ServeHTTP(rec, req)
	return rec
}

func (s service) report(from, apiKey string) *httptest.ResponseRecorder {
	return s.send(http.MethodGet, "/v1/report", from, apiKey)
}

// passes sends n requests that all have to pass.
func (s service) passes(n int, from, apiKey string) {
	s.t.Helper()
	for i := range n {
		if rec := s.report(from, apiKey); rec.Code != http.StatusOK {
			s.t.Fatalf("request %d of %d with key %q: status %d", i+1, n, apiKey, rec.Code)
		}
	}
}

// refused sends a request that has to be refused until retryAfter.
func (s service) refused(from, apiKey, retryAfter string) {
	s.t.Helper()
	rec := s.report(from, apiKey)
	if rec.Code != http.StatusTooManyRequests || rec.Header().Get("Retry-After") != retryAfter {
		s.t.Fatalf("key %q: status %d, Retry-After %q; want 429 and %q", apiKey, rec.Code, rec.Header().Get("Retry-After"), retryAfter)
	}
}

const (
	home = "192.0.2.1:1234"
	away = "198.51.100.1:1234"
)

func TestReport(t *testing.T) {
	for apiKey, want := range map[string]string{
		"":           "plan: none, 4 left (5/m)\n",
		"key-of-ann": "plan: free, 9 left (10/m)\n",
		"key-of-pat": "plan: pro, 19 left (20/s)\n",
		"key-of-eve": "plan: enterprise, unlimited\n",
	} {
		test(t, func(t *testing.T, s service) {
			if got := s.report(home, apiKey).Body.String(); got != want {
				t.Errorf("key %q: %q, want %q", apiKey, got, want)
			}
		})
	}
}

func TestAnonymousByAddress(t *testing.T) {
	test(t, func(_ *testing.T, s service) {
		s.passes(5, home, "")
		s.refused(home, "", "12")
		s.passes(5, away, "")
		s.refused(away, "", "12")
		s.passes(10, home, "key-of-ann") // an account is not its address
	})
}

func TestFree(t *testing.T) {
	test(t, func(_ *testing.T, s service) {
		s.passes(5, home, "key-of-ann")
		s.passes(5, away, "key-of-ann") // an account is the same everywhere
		s.refused(home, "key-of-ann", "6")
		s.passes(10, home, "key-of-bob")
		time.Sleep(6 * time.Second)
		s.passes(1, home, "key-of-ann")
		s.refused(home, "key-of-ann", "6")
	})
}

func TestPro(t *testing.T) {
	test(t, func(_ *testing.T, s service) {
		for range 1000/20 - 1 {
			s.passes(20, home, "key-of-pat")
			s.refused(home, "key-of-pat", "1")
			time.Sleep(time.Second)
		}
		s.passes(20, home, "key-of-pat")
		s.refused(home, "key-of-pat", "86351") // the day has 86400 seconds, of which 49 are over
		time.Sleep(86350 * time.Second)
		s.refused(home, "key-of-pat", "1")
		time.Sleep(time.Second)
		s.passes(20, home, "key-of-pat")
	})
}

func TestEnterprise(t *testing.T) {
	test(t, func(_ *testing.T, s service) { s.passes(5000, home, "key-of-eve") })
}

func TestUpgradeTakesEffectAtOnce(t *testing.T) {
	test(t, func(t *testing.T, s service) {
		s.passes(10, home, "key-of-ann")
		s.refused(home, "key-of-ann", "6")
		if rec := s.send(http.MethodPost, "/v1/upgrade", home, "key-of-ann"); rec.Code != http.StatusOK {
			t.Fatalf("upgrade: status %d", rec.Code)
		}
		s.passes(10, home, "key-of-ann") // of 20, because the 10 before still count
		s.refused(home, "key-of-ann", "1")
		time.Sleep(time.Second)
		s.passes(20, home, "key-of-ann")
	})
}

func TestPlansAreCached(t *testing.T) {
	test(t, func(t *testing.T, s service) {
		s.passes(1000, home, "key-of-eve")
		if s.db.asked != 1 {
			t.Errorf("%d look-ups, want 1", s.db.asked)
		}
		s.db.setPlan("eve", "free") // by another instance
		time.Sleep(10 * time.Second)
		s.passes(10, home, "key-of-eve")
		s.refused(home, "key-of-eve", "6")
	})
}

// TestFailingLookUpKeepsTheTier: what is cached is gone, and so is the database.
func TestFailingLookUpKeepsTheTier(t *testing.T) {
	test(t, func(_ *testing.T, s service) {
		s.passes(1, home, "key-of-eve")
		s.db.setDown(errors.New("connection refused"))
		time.Sleep(time.Minute)
		s.passes(1000, home, "key-of-eve")
	})
}

func TestFailingLookUpKeepsOwnLimits(t *testing.T) {
	test(t, func(t *testing.T, s service) {
		s.db.setDown(errors.New("connection refused"))
		if got := s.report(home, "key-of-pat").Body.String(); !strings.HasPrefix(got, "plan: none, 4 left") {
			t.Errorf("%q, want the limiter's own limits", got)
		}
		s.passes(4, home, "key-of-pat")
		s.refused(home, "key-of-pat", "12")
		s.passes(5, home, "key-of-eve") // who is asking is still known
		s.refused(home, "key-of-eve", "12")

		s.db.setDown(nil)
		s.passes(15, home, "key-of-pat") // of 20, because 5 are used
		s.passes(100, home, "key-of-eve")
	})
}

func TestWrongKey(t *testing.T) {
	test(t, func(t *testing.T, s service) {
		for range 20 {
			if rec := s.report(home, "made-up"); rec.Code != http.StatusUnauthorized {
				t.Fatalf("status %d", rec.Code)
			}
		}
		s.passes(5, home, "")
	})
}
