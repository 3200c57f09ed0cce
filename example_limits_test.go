package ginlimit_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/ginlimit/ginlimit"
)

func ExampleInFlight() {
	// A user may have two reports made at the same time, and 100 an hour.
	perUser, err := ginlimit.NewLimiter(ginlimit.InFlight(2), ginlimit.ByUserID("user"), ginlimit.WithName("reports"),
		ginlimit.WithLimits(ginlimit.PerHour(100)))
	if err != nil {
		fmt.Println(err)
		return
	}
	r := gin.New()
	r.SetTrustedProxies(nil)
	r.Use(func(c *gin.Context) { c.Set("user", "alice") }, perUser.Handle)
	inside, leave := make(chan bool), make(chan bool)
	r.GET("/report", func(*gin.Context) {
		inside <- true
		<-leave
	})
	answered := make(chan int)
	for range 2 {
		go func() { answered <- fetch(r, "/report").Code }()
		<-inside
	}
	refused := fetch(r, "/report")
	fmt.Println(refused.Code, refused.Header().Get("RateLimit-Policy"))
	fmt.Println(refused.Header().Get("RateLimit"), perUser.InFlight())
	close(leave)
	fmt.Println(<-answered, <-answered, perUser.InFlight())
	// Output:
	// 429 "2-in-flight";q=2;qu="concurrent-requests", "100-per-1h";q=100;w=3600
	// "2-in-flight";r=0 2
	// 200 200 0
}

func ExampleLimiter_InFlight() {
	l, err := ginlimit.NewLimiter(ginlimit.InFlight(5), ginlimit.Global())
	if err != nil {
		fmt.Println(err)
		return
	}
	r := gin.New()
	r.GET("/", l.Handle, func(*gin.Context) { fmt.Println("in a handler:", l.InFlight()) })
	fetch(r, "/")
	fmt.Println("afterwards:", l.InFlight())
	// Output:
	// in a handler: 1
	// afterwards: 0
}

func ExamplePerCalendarDay() {
	limit := ginlimit.PerCalendarDay(10_000).In("Europe/Berlin")
	fmt.Println(limit, limit.Validate())
	// The clock is put back that night, so that the day has 25 hours.
	start, end := limit.Calendar.Window(time.Date(2026, 10, 25, 12, 0, 0, 0, time.UTC))
	fmt.Println(end.Sub(start))
	// Output:
	// 10000/day Europe/Berlin calendar <nil>
	// 25h0m0s
}

func ExamplePerCalendarWeek() {
	fmt.Println(ginlimit.PerCalendarWeek(500))
	fmt.Println(ginlimit.PerCalendarWeek(500).StartingOn(int(time.Sunday)))
	// Output:
	// 500/week calendar
	// 500/week from 0 calendar
}

func ExamplePerCalendarMonth() {
	// A billing month that begins on the 31st, or on the last day of a shorter month.
	limit := ginlimit.PerCalendarMonth(1_000_000).StartingOn(31)
	start, end := limit.Calendar.Window(time.Date(2026, 2, 10, 0, 0, 0, 0, time.UTC))
	fmt.Println(start.Format(time.DateOnly), end.Format(time.DateOnly))
	// Output: 2026-01-31 2026-02-28
}

func ExampleParseLimit() {
	limit, err := ginlimit.ParseLimit("10/s burst 20")
	fmt.Println(limit.Count, limit.Period, limit.Burst, err)
	_, err = ginlimit.ParseLimit("ten a second")
	fmt.Println(err)
	// Output:
	// 10 1s 20 <nil>
	// ginlimit: the limit "ten a second": it is not understood; write it as "100/m", "10/s burst 20", "5/15m sliding-log", "10000/day Europe/Berlin calendar", "5 in flight" or "unlimited"
}

func ExampleWithBan() {
	// A caller that is refused more than three times in an hour is banned for five minutes, then for ten,
	// and so on up to a day.
	r := gin.New()
	r.SetTrustedProxies(nil)
	r.Use(ginlimit.New(ginlimit.PerMinute(1), ginlimit.ByIP(),
		ginlimit.WithBan(ginlimit.PerHour(3), 5*time.Minute, 24*time.Hour),
		ginlimit.WithLogger(slog.New(slog.NewTextHandler(io.Discard, nil)))))
	r.GET("/", func(c *gin.Context) { c.Status(http.StatusNoContent) })
	for range 5 {
		fmt.Println(fetch(r, "/").Code)
	}
	banned := fetch(r, "/")
	fmt.Println(banned.Code, banned.Header().Get("Retry-After"))
	fmt.Println(banned.Body.String())
	// Output:
	// 204
	// 429
	// 429
	// 429
	// 429
	// 429 300
	// {"type":"https://iana.org/assignments/http-problem-types#abnormal-usage-detected","title":"Abnormal Usage Detected","status":429,"detail":"The caller is banned; try again in 300 seconds."}
}

func ExampleDecision_BanBegan() {
	// Somebody is told of each ban, once.
	tell := func(_ context.Context, d ginlimit.Decision) {
		if d.BanBegan() {
			fmt.Printf("%s is banned for %v\n", d.Key, d.RetryAfter.Round(time.Minute))
		}
	}
	r := gin.New()
	r.SetTrustedProxies(nil)
	r.Use(ginlimit.New(ginlimit.PerMinute(1), ginlimit.ByIP(), ginlimit.WithObserver(tell),
		ginlimit.WithBan(ginlimit.PerHour(3), 5*time.Minute, 24*time.Hour),
		ginlimit.WithLogger(slog.New(slog.NewTextHandler(io.Discard, nil)))))
	for range 9 {
		fetch(r, "/")
	}
	// Output:
	// ip:192.0.2.1 is banned for 5m0s
}

func ExampleLimiter_Ban() {
	l, err := ginlimit.NewLimiter(ginlimit.PerMinute(100), ginlimit.ByIP())
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, key := context.Background(), "ip:203.0.113.7"
	if err := l.Ban(ctx, key, time.Hour); err != nil {
		fmt.Println(err)
		return
	}
	d, err := l.Allow(ctx, key, 1)
	fmt.Println(d.Outcome(), d.RetryAfter > 59*time.Minute, err)
	if err := l.Reset(ctx, key); err != nil {
		fmt.Println(err)
		return
	}
	d, err = l.Allow(ctx, key, 1)
	fmt.Println(d.Outcome(), err)
	// Output:
	// banned true <nil>
	// allowed <nil>
}

func fetch(h http.Handler, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w
}

func ExampleLimiter_Name() {
	l, err := ginlimit.NewLimiter(ginlimit.PerMinute(100), ginlimit.ByIP(), ginlimit.WithName("api"))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(l.Name())
	// Output: api
}
