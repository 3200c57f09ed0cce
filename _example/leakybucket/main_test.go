package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// downstream remembers when it was called.
type downstream struct {
	start time.Time
	mu    sync.Mutex
	calls []time.Duration // since start
}

func (d *downstream) call(context.Context) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls = append(d.calls, time.Since(d.start))
	return "ok", nil
}

// answer is what a request got, and how long that took.
type answer struct {
	*httptest.ResponseRecorder
	took time.Duration
}

// getAtOnce sends n requests at the same moment and returns their answers, the soonest first.
func getAtOnce(h http.Handler, n int) []answer {
	answers := make([]answer, n)
	start := time.Now()
	var wg sync.WaitGroup
	for i := range answers {
		wg.Go(func() {
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/quote", nil))
			answers[i] = answer{rec, time.Since(start)}
		})
	}
	wg.Wait()
	slices.SortFunc(answers, func(a, b answer) int { return int(a.took - b.took) })
	return answers
}

func TestFiveAreReleasedOneIntervalApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := &downstream{start: time.Now()}
		for i, a := range getAtOnce(newRouter(down.call), 5) {
			if a.Code != http.StatusOK {
				t.Errorf("request %d has status %d", i+1, a.Code)
			}
		}
		want := []time.Duration{0, interval, 2 * interval, 3 * interval, 4 * interval}
		if !slices.Equal(down.calls, want) {
			t.Errorf("released at %v, want %v", down.calls, want)
		}
	})
}

func TestMoreThanFitAreRefusedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := &downstream{start: time.Now()}
		r := newRouter(down.call)
		refused := 0
		retryAfter := ""
		for _, a := range getAtOnce(r, 8) {
			if a.Code != http.StatusTooManyRequests {
				continue
			}
			refused++
			retryAfter = a.Header().Get("Retry-After")
			if a.took != 0 {
				t.Errorf("refused after %v, want at once", a.took)
			}
		}
		if refused != 3 || len(down.calls) != 5 {
			t.Fatalf("%d refused and %d released of 8, want 3 and 5", refused, len(down.calls))
		}
		seconds, err := strconv.Atoi(retryAfter)
		if err != nil {
			t.Fatalf("Retry-After: %q", retryAfter)
		}
		time.Sleep(time.Duration(seconds) * time.Second)
		if a := getAtOnce(r, 1)[0]; a.Code != http.StatusOK || a.took != 0 {
			t.Errorf("after Retry-After: status %d after %v", a.Code, a.took)
		}
	})
}

func TestEvenAfterAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := &downstream{start: time.Now()}
		r := newRouter(down.call)
		time.Sleep(time.Hour) // in which nothing is saved up
		down.start = time.Now()
		getAtOnce(r, 3)
		if want := []time.Duration{0, interval, 2 * interval}; !slices.Equal(down.calls, want) {
			t.Errorf("released at %v, want %v", down.calls, want)
		}
	})
}

func TestClientThatGoesMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := &downstream{start: time.Now()}
		r := newRouter(down.call)
		ctx, cancel := context.WithTimeout(t.Context(), interval/2)
		defer cancel()
		getAtOnce(r, 1)
		r.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, http.MethodGet, "/quote", nil))
		if now := time.Since(down.start); now != interval/2 {
			t.Errorf("held until %v, want no longer than its client waits", now)
		}
		getAtOnce(r, 1)
		if want := []time.Duration{0, interval}; !slices.Equal(down.calls, want) {
			t.Errorf("released at %v, want %v", down.calls, want)
		}
	})
}
