package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/failsafe-go/failsafe-go/adaptivelimiter"
	"github.com/gin-gonic/gin"
)

func get(h http.Handler, path, user string) *httptest.ResponseRecorder {
	req := httptest.NewRequest(http.MethodGet, path, nil)
	req.Header.Set("X-User", user)
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, req)
	return rec
}

// gate is work that ends when it is told to.
type gate struct{ open chan struct{} }

func newGate() *gate { return &gate{make(chan struct{})} }

func (g *gate) pass(context.Context) error {
	<-g.open
	return nil
}

func flightsOf(t *testing.T, perUser, inAll int64) gin.HandlerFunc {
	t.Helper()
	flights, err := limitFlights(perUser, inAll)
	if err != nil {
		t.Fatal(err)
	}
	return flights
}

// enter sends a request, which may stay inside, and returns where its answer will be.
func enter(h http.Handler, path, user string) <-chan *httptest.ResponseRecorder {
	answer := make(chan *httptest.ResponseRecorder, 1)
	go func() { answer <- get(h, path, user) }()
	synctest.Wait()
	return answer
}

// refused holds an answer to what says that too many requests are in flight.
func refused(t *testing.T, rec *httptest.ResponseRecorder) {
	t.Helper()
	if rec.Code != http.StatusTooManyRequests {
		t.Fatalf("status %d, want 429", rec.Code)
	}
	policy := strings.Join(rec.Header().Values("RateLimit-Policy"), ", ")
	if strings.Count(policy, `qu="concurrent-requests"`) != 2 || strings.Contains(policy, ";w=") {
		t.Errorf("RateLimit-Policy: %s", policy)
	}
	if got := rec.Header().Get("Retry-After"); got != "1" {
		t.Errorf("Retry-After: %q, want 1", got)
	}
}

func TestPlacesAreTakenAndGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		h := newRouter(flightsOf(t, 2, 3), nil, g.pass)
		inside := []<-chan *httptest.ResponseRecorder{enter(h, "/orders", "alice"), enter(h, "/orders", "alice")}
		refused(t, <-enter(h, "/orders", "alice")) // she has her two
		inside = append(inside, enter(h, "/orders", "bob"))
		refused(t, <-enter(h, "/orders", "carol")) // there are three
		refused(t, <-enter(h, "/orders", "bob"))

		close(g.open)
		for _, answer := range inside {
			if rec := <-answer; rec.Code != http.StatusOK {
				t.Errorf("status %d for a request that was inside", rec.Code)
			}
		}
		// Refused requests hold nothing.
		for _, user := range []string{"alice", "bob", "carol"} {
			if rec := get(h, "/orders", user); rec.Code != http.StatusOK {
				t.Errorf("%s: status %d when all have left", user, rec.Code)
			}
		}
	})
}

// TestNeverMoreInside sends many requests at once and counts those that are inside.
func TestNeverMoreInside(t *testing.T) {
	const perUser, inAll, users, each = 2, 6, 10, 40
	var all atomic.Int64
	var of [users]atomic.Int64
	flights := flightsOf(t, perUser, inAll)
	type userKey struct{}
	h := newRouter(flights, nil, func(ctx context.Context) error {
		user := ctx.Value(userKey{}).(int)
		defer all.Add(-1)
		defer of[user].Add(-1)
		if n := all.Add(1); n > inAll {
			t.Errorf("%d requests are inside, %d are the most", n, inAll)
		}
		if n := of[user].Add(1); n > perUser {
			t.Errorf("%d requests of one user are inside, %d are the most", n, perUser)
		}
		for range 100 {
			runtime.Gosched()
		}
		return nil
	})
	var passed, denied atomic.Int64
	var callers sync.WaitGroup
	for i := range users * each {
		callers.Go(func() {
			user := i % users
			req := httptest.NewRequest(http.MethodGet, "/orders", nil)
			req = req.WithContext(context.WithValue(req.Context(), userKey{}, user))
			req.Header.Set("X-User", fmt.Sprint("user", user))
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, req)
			switch rec.Code {
			case http.StatusOK:
				passed.Add(1)
			case http.StatusTooManyRequests:
				denied.Add(1)
			default:
				t.Errorf("status %d", rec.Code)
			}
		})
	}
	callers.Wait()
	if passed.Load() == 0 || passed.Load()+denied.Load() != users*each {
		t.Errorf("%d requests passed, %d were refused, of %d", passed.Load(), denied.Load(), users*each)
	}
}

func TestPanicGivesItsPlaceBack(t *testing.T) {
	fails := true
	one := adaptivelimiter.NewBuilder[any]().WithLimits(1, 1, 1).Build()
	h := newRouter(flightsOf(t, 1, 1), one, func(context.Context) error {
		if fails {
			panic(http.ErrAbortHandler)
		}
		return nil
	})
	for range 3 {
		get(h, "/recommendations", "alice")
	}
	fails = false
	if rec := get(h, "/recommendations", "alice"); rec.Code != http.StatusOK {
		t.Errorf("status %d after requests that panicked", rec.Code)
	}
}

func TestOnlyLowPriorityIsShed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		one := adaptivelimiter.NewBuilder[any]().WithLimits(1, 1, 1).Build()
		h := newRouter(flightsOf(t, 5, 200), one, g.pass)
		inside := enter(h, "/recommendations", "alice")
		rec := get(h, "/recommendations", "bob")
		if rec.Code != http.StatusServiceUnavailable || rec.Header().Get("Retry-After") == "" {
			t.Errorf("status %d, Retry-After %q: want 503 and some", rec.Code, rec.Header().Get("Retry-After"))
		}
		order := enter(h, "/orders", "bob")
		close(g.open)
		for _, answer := range []<-chan *httptest.ResponseRecorder{inside, order} {
			if rec := <-answer; rec.Code != http.StatusOK {
				t.Errorf("status %d, want 200", rec.Code)
			}
		}
		if n := one.Inflight(); n != 0 {
			t.Errorf("%d permits are still held", n)
		}
	})
}

func TestNoUserIsNoWayAround(t *testing.T) {
	h := newRouter(flightsOf(t, 1, 1), nil, func(context.Context) error { return nil })
	if rec := get(h, "/orders", ""); rec.Code != http.StatusBadRequest {
		t.Errorf("status %d, want 400", rec.Code)
	}
}

// TestRounds sends a small load to the service in all rounds, over the network, and holds the table
// to it: all requests are in it once. How long they took is nothing to hold a test to.
func TestRounds(t *testing.T) {
	gin.SetMode(gin.ReleaseMode)
	var out bytes.Buffer
	l := load{
		out: &out, calm: 100 * time.Millisecond, lasts: 200 * time.Millisecond, gaveUp: 10 * time.Second,
		kinds: []kind{
			{name: "orders", path: "/orders", users: 10, calm: 50, rate: 100},
			{name: "recommendations", path: "/recommendations", users: 10, calm: 50, rate: 150},
		},
	}
	if err := run(t.Context(), l, func() *database { return newDatabase(2, time.Millisecond) }); err != nil {
		t.Fatal(err)
	}
	lines := regexp.MustCompile(`(orders|recommendations) +(\d+) +(\d+) +(\d+) +(\d+) +(\d+) `).FindAllStringSubmatch(out.String(), -1)
	if len(lines) != 2*len(rounds) {
		t.Fatalf("%d lines:\n%s", len(lines), out.String())
	}
	for _, line := range lines {
		var sent, ok, refused, shed, gaveUp int
		if _, err := fmt.Sscan(strings.Join(line[2:], " "), &sent, &ok, &refused, &shed, &gaveUp); err != nil {
			t.Fatal(err)
		}
		if want := map[string]int{"orders": 20, "recommendations": 30}[line[1]]; sent != want || ok+refused+shed+gaveUp != want {
			t.Errorf("%s: %d requests are accounted for, %d were sent", line[0], ok+refused+shed+gaveUp, want)
		}
	}
}

func TestRoundsEndWithTheirContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	l := load{out: new(bytes.Buffer), calm: time.Hour, lasts: time.Hour, kinds: []kind{{name: "orders", path: "/orders", users: 1, calm: 1, rate: 1}}}
	if err := run(ctx, l, func() *database { return newDatabase(1, time.Millisecond) }); err == nil {
		t.Error("it ran to its end")
	}
}
