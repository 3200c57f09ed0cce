package backend_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/memory"
)

// A Backend without Gin: each charge is made to all limits, or to none.
func ExampleBackend() {
	var b backend.Backend = memory.New()
	ctx := context.Background()
	limits := []backend.Limit{
		{Count: 10, Period: time.Minute},
		{Count: 12, Period: 24 * time.Hour, Algorithm: backend.FixedWindow},
	}
	res, err := b.Take(ctx, "customer-42", 10, limits...)
	fmt.Println(res.Allowed, res.Remaining, err)

	refused, err := b.Take(ctx, "customer-42", 3, limits...) // spent: 10 a minute and, for longer, 12 a day
	fmt.Println(refused.Allowed, refused.Limit, refused.RetryAfter.Round(time.Hour), err)

	err = b.Settle(ctx, "customer-42", res, 10, 0, limits...) // the work was not done
	fmt.Println(err)
	res, err = b.Take(ctx, "customer-42", 3, limits...)
	fmt.Println(res.Allowed, res.Remaining, err)

	_, err = b.Take(ctx, "customer-42", -1, limits...)
	fmt.Println(err, errors.Is(err, backend.ErrUnavailable))
	// Output:
	// true 0 <nil>
	// false 12/d fixed-window 24h0m0s <nil>
	// <nil>
	// true 7 <nil>
	// ginlimit: cost -1 is negative; use Settle to give units back false
}

func ExampleLimit() {
	l := backend.Limit{Name: "api", Count: 100, Period: time.Minute, Burst: 20}
	fmt.Println(l)
	fmt.Println(l.Capacity(), "at once")
	fmt.Println(backend.Limit{}.Validate()) // the zero Limit is not valid
	// Output:
	// 100/m burst 20
	// 20 at once
	// ginlimit: limit 0/0s: period is not between 1ms and 8784h0m0s; use one that is, as PerMinute(100) or Per(5, 15*time.Minute) do
}

func ExampleLimit_WithBurst() {
	l := backend.Limit{Count: 100, Period: time.Minute}
	fmt.Println(l.WithBurst(20).Capacity(), l.Capacity()) // a changed copy
	fmt.Println(l.WithAlgorithm(backend.FixedWindow).WithBurst(20).Validate())
	// Output:
	// 20 100
	// ginlimit: limit 100/m burst 20 fixed-window has burst 20; only a token bucket has a burst
}

func ExampleLimit_WithAlgorithm() {
	fmt.Println(backend.Limit{Count: 5, Period: time.Hour}.WithAlgorithm(backend.SlidingLog))
	// Output: 5/h sliding-log
}

func ExampleLimit_Named() {
	l := backend.Limit{Count: 5, Period: time.Hour}.Named("log-ins")
	fmt.Println(l.Name)
	fmt.Println(l) // without its name
	// Output:
	// log-ins
	// 5/h
}

func ExampleLimit_Validate() {
	for _, l := range []backend.Limit{
		{Count: 7, Period: time.Second},
		{Count: -1, Period: time.Second},
		{Count: 1, Period: 24 * time.Hour, Burst: 100_000},
	} {
		fmt.Println(l.Validate())
	}
	// Output:
	// <nil>
	// ginlimit: limit -1/s: count is negative; use 0 to block everything
	// ginlimit: limit 1/d burst 100000: an empty bucket takes more than 100 years to fill; lower the burst
}

func ExampleUnlimited() {
	l := backend.Unlimited()
	fmt.Println(l, l.IsUnlimited(), backend.Limit{Count: 0, Period: time.Minute}.IsUnlimited())
	// Output: unlimited true false
}

// Four instances, each with a memory of its own, admit together what the limit says.
func ExampleWithShare() {
	down := newBreakable()
	down.err = errDown
	limit := backend.Limit{Count: 100, Period: time.Minute}
	for _, instances := range []int{1, 4} {
		b := backend.Fallback(down, memory.New(), backend.WithShare(instances))
		res, err := b.Take(context.Background(), "k", 1, limit)
		fmt.Println(res.Remaining+1, err)
	}
	// Output:
	// 100 <nil>
	// 25 <nil>
}

func ExampleWithLeaseTime() {
	hot := backend.Lease(memory.New(), 1000, // memory stands for a Redis that is 20 ms away
		backend.WithLeaseTime(time.Second),
		backend.WithLeaseKeys(100),
	)
	res, err := hot.Take(context.Background(), "k", 1, backend.Limit{Count: 1_000_000, Period: time.Hour})
	fmt.Println(res.Allowed, res.Source, err) // one request does not make a key hot
	// Output: true store <nil>
}

// At most 100 keys have a lease at once; others, hot or not, are decided by the store.
func ExampleWithLeaseKeys() {
	hot := backend.Lease(memory.New(), 1000, backend.WithLeaseKeys(100))
	res, err := hot.Take(context.Background(), "k", 1, backend.Limit{Count: 1_000_000, Period: time.Hour})
	fmt.Println(res.Allowed, err)
	// Output: true <nil>
}

func ExampleSource() {
	for s := backend.SourceStore; s <= backend.SourceFallback; s++ {
		fmt.Println(s)
	}
	// Output:
	// store
	// deny-cache
	// lease
	// fallback
}

func ExampleInFlight() {
	ctx, store := context.Background(), memory.New()
	five := backend.InFlight(5)
	taken, err := store.Take(ctx, "user:alice", 5, five)
	fmt.Println(taken.Allowed, taken.Remaining, err)
	refused, err := store.Take(ctx, "user:alice", 1, five)
	fmt.Println(refused.Allowed, refused.RetryAfter, err)
	// Settle gives all of it back.
	fmt.Println(store.Settle(ctx, "user:alice", taken, 5, 5, five))
	taken, err = store.Take(ctx, "user:alice", 1, five)
	fmt.Println(taken.Allowed, taken.Remaining, err)
	// Output:
	// true 0 <nil>
	// false 1s <nil>
	// <nil>
	// true 4 <nil>
}

func ExamplePerCalendarDay() {
	fmt.Println(backend.PerCalendarDay(100).In("America/New_York"))
	// Output: 100/day America/New_York calendar
}

func ExamplePerCalendarWeek() {
	fmt.Println(backend.PerCalendarWeek(100).StartingOn(0).Validate(), backend.PerCalendarWeek(100).StartingOn(7).Validate())
	// Output: <nil> ginlimit: limit 100/week from 7 calendar: there is no day 7 of the week; use 0 (Sunday) to 6
}

func ExamplePerCalendarMonth() {
	fmt.Println(backend.PerCalendarMonth(100).StartingOn(15))
	// Output: 100/month from 15 calendar
}

func ExampleParseLimit() {
	for _, text := range []string{"100/m", "5/15m sliding-log", "10000/day Europe/Berlin calendar", "5 in flight", "100000/m counting tokens"} {
		limit, err := backend.ParseLimit(text)
		fmt.Println(limit.Algorithm, limit.Capacity(), err)
	}
	// Output:
	// token bucket 100 <nil>
	// sliding log 5 <nil>
	// calendar window 10000 <nil>
	// concurrency 5 <nil>
	// token bucket 100000 <nil>
}

// Limits of routes in a configuration: a Limit is a field like any other.
func ExampleLimit_UnmarshalText() {
	var routes []struct {
		Path  string
		Limit backend.Limit
	}
	file := `[{"path": "/items", "limit": "100/m"}, {"path": "/login", "limit": "5/15m sliding-log"}]`
	err := json.Unmarshal([]byte(file), &routes)
	for _, r := range routes {
		fmt.Println(r.Path, r.Limit)
	}
	fmt.Println(err)
	fmt.Println(json.Unmarshal([]byte(`[{"path": "/items", "limit": "-1/m"}]`), &routes))
	// Output:
	// /items 100/m
	// /login 5/15m sliding-log
	// <nil>
	// ginlimit: limit -1/m: count is negative; use 0 to block everything
}
