package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"time"
)

// load sends requests to a service on the loopback interface. It does not wait for one answer
// before it sends the next request, because the callers of a service do not know of each other. It
// is bounded: requests are sent for calm and lasts only, and each is given up after gaveUp.
type load struct {
	out    io.Writer
	calm   time.Duration // before the overload, not counted: the limiter learns what is normal
	lasts  time.Duration
	gaveUp time.Duration
	kinds  []kind
}

// kind is a kind of request, from users that take turns.
type kind struct {
	name, path string
	users      int
	calm, rate int // requests a second, before the overload and in it
}

// outcome is what became of requests of one kind.
type outcome struct {
	mu       sync.Mutex
	sent     int
	answered []time.Duration // those with 200, and how long they took
	refused  int             // 429: the limits in flight
	shed     int             // 503: the adaptive limiter
	gaveUp   int             // the client, or the service because the client did
}

// against sends the load to a service, and prints what became of it.
func (l *load) against(ctx context.Context, name string, service http.Handler) error {
	server := httptest.NewServer(service)
	defer server.Close()
	client := &http.Client{Timeout: l.gaveUp, Transport: &http.Transport{MaxIdleConnsPerHost: 1000}}
	defer client.CloseIdleConnections()

	outcomes := make([]outcome, len(l.kinds))
	var senders sync.WaitGroup
	for i, k := range l.kinds {
		senders.Go(func() {
			l.send(ctx, client, server.URL, k, k.calm, l.calm, new(outcome))
			l.send(ctx, client, server.URL, k, k.rate, l.lasts, &outcomes[i])
		})
	}
	senders.Wait()
	for i := range outcomes {
		l.print(name, l.kinds[i], &outcomes[i])
		name = ""
	}
	return ctx.Err()
}

// send sends requests of a kind at an even rate for a time, and waits for their ends.
func (l *load) send(ctx context.Context, client *http.Client, url string, k kind, rate int, lasts time.Duration, o *outcome) {
	var requests sync.WaitGroup
	defer requests.Wait()
	start := time.Now()
	for i := range int(lasts.Seconds() * float64(rate)) {
		select {
		case <-time.After(time.Until(start.Add(time.Duration(i) * time.Second / time.Duration(rate)))):
		case <-ctx.Done():
			return
		}
		requests.Go(func() {
			begun := time.Now()
			status, err := fetch(ctx, client, url+k.path, fmt.Sprintf("%s %d", k.name, i%k.users))
			o.add(status, err, time.Since(begun))
		})
	}
	select { // also a kind without requests takes its time
	case <-time.After(time.Until(start.Add(lasts))):
	case <-ctx.Done():
	}
}

func fetch(ctx context.Context, client *http.Client, url, user string) (status int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("X-User", user)
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

func (o *outcome) add(status int, err error, took time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sent++
	switch {
	case err == nil && status == http.StatusOK:
		o.answered = append(o.answered, took)
	case err == nil && status == http.StatusTooManyRequests:
		o.refused++
	case err == nil && status == http.StatusServiceUnavailable:
		o.shed++
	default:
		o.gaveUp++
	}
}

// quantile returns how long the answered requests took but for the slowest.
func (o *outcome) quantile(q float64) time.Duration {
	if len(o.answered) == 0 {
		return 0
	}
	slices.Sort(o.answered)
	return o.answered[int(q*float64(len(o.answered)-1))].Round(time.Millisecond)
}

const row = "%-20s %-16s %6v %6v %6v %6v %8v %8v %8v\n"

// printHead and print print, and do not care whether anybody reads.
func (l *load) printHead() {
	_, _ = fmt.Fprintf(l.out, row, "protected by", "requests", "sent", "200", "429", "503", "gave up", "median", "99 %")
}

func (l *load) print(name string, k kind, o *outcome) {
	_, _ = fmt.Fprintf(l.out, row, name, k.name, o.sent, len(o.answered), o.refused, o.shed, o.gaveUp,
		o.quantile(0.5), o.quantile(0.99))
}
