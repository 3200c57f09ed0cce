package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

const (
	home  = "192.0.2.1:1234"
	right = "wonderland"
	wrong = "looking-glass"
)

func newService() http.Handler {
	return newRouter(users{"alice": right, "bob": "builder"})
}

func login(h http.Handler, from, user, password string) *httptest.ResponseRecorder {
	form := url.Values{"user": {user}, "password": {password}}
	req := httptest.NewRequest(http.MethodPost, "/login", strings.NewReader(form.Encode()))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.RemoteAddr = from
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, req)
	return rec
}

func want(t *testing.T, rec *httptest.ResponseRecorder, status int) {
	t.Helper()
	if rec.Code != status {
		t.Fatalf("status %d, want %d", rec.Code, status)
	}
}

func TestSuccessesNeverUseUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newService()
		for range 100 {
			want(t, login(h, home, "alice", right), http.StatusOK)
		}
		for range 4 {
			want(t, login(h, home, "alice", wrong), http.StatusUnauthorized)
		}
		for range 100 {
			want(t, login(h, home, "alice", right), http.StatusOK)
		}
	})
}

func TestFailuresLockOutUntilRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newService()
		for range 5 {
			want(t, login(h, home, "alice", wrong), http.StatusUnauthorized)
		}
		rec := login(h, home, "alice", right)
		want(t, rec, http.StatusTooManyRequests)
		if got := rec.Header().Get("Retry-After"); got != "180" {
			t.Fatalf("Retry-After: %q, want 180: five in 15 minutes is one in three", got)
		}
		want(t, login(h, home, "bob", "builder"), http.StatusOK)

		time.Sleep(180*time.Second - time.Microsecond)
		want(t, login(h, home, "alice", right), http.StatusTooManyRequests)
		time.Sleep(time.Microsecond)
		want(t, login(h, home, "alice", right), http.StatusOK)
		want(t, login(h, home, "alice", right), http.StatusOK)
		want(t, login(h, home, "alice", wrong), http.StatusUnauthorized)
		want(t, login(h, home, "alice", wrong), http.StatusTooManyRequests)
	})
}

func TestOneAccountFromManyAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newService()
		for i := range 5 {
			want(t, login(h, fmt.Sprintf("192.0.2.%d:1234", i+1), "alice", wrong), http.StatusUnauthorized)
		}
		want(t, login(h, "198.51.100.1:1234", "alice", wrong), http.StatusTooManyRequests)
	})
}

func TestManyAccountsFromOneAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newService()
		for i := range 20 {
			want(t, login(h, home, fmt.Sprintf("user%d", i), wrong), http.StatusUnauthorized)
		}
		want(t, login(h, home, "bob", "builder"), http.StatusTooManyRequests)
		want(t, login(h, "198.51.100.1:1234", "bob", "builder"), http.StatusOK)
	})
}

func TestSpellingsAreOneAccount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newService()
		for _, name := range []string{"alice", "Alice", "ALICE", " alice", "alice\t"} {
			want(t, login(h, home, name, wrong), http.StatusUnauthorized)
		}
		want(t, login(h, home, "aLiCe", right), http.StatusTooManyRequests)
	})
}

func TestVolley(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newService()
		var guesses atomic.Int64
		var wg sync.WaitGroup
		for range 15 { // fewer than the address has
			wg.Go(func() {
				if login(h, home, "alice", wrong).Code == http.StatusUnauthorized {
					guesses.Add(1)
				}
			})
		}
		wg.Wait()
		if n := guesses.Load(); n != 5 {
			t.Errorf("%d guesses were looked at, want 5", n)
		}
	})
}

func TestNoNameIsNoWayAround(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		want(t, login(newService(), home, " ", right), http.StatusBadRequest)
	})
}
