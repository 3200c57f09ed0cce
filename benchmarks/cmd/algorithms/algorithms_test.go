package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/memory"
)

// TestDrawnIsDecided sends the requests that are drawn to the memory backend, or to a limiter that
// holds them, under a fake clock: each is let through, or refused, at the very instant that the
// picture has.
func TestDrawnIsDecided(t *testing.T) {
	for _, tr := range traffics {
		for _, a := range tr.limiters {
			t.Run(tr.file+"/"+a.name, func(t *testing.T) {
				want, err := tr.playTo(a)
				if err != nil {
					t.Fatal(err)
				}
				if len(want.offered) == 0 || len(want.passed) == 0 {
					t.Fatal("nothing is drawn")
				}
				synctest.Test(t, func(t *testing.T) {
					got := send(t, tr, a, want.offered)
					same(t, "let through", got.passed, want.passed)
					same(t, "refused", got.refused, want.refused)
					if got.longest != want.longest {
						t.Errorf("the longest was held %v, %v is drawn", got.longest, want.longest)
					}
				})
			})
		}
	}
}

func same(t *testing.T, what string, got, want []time.Duration) {
	t.Helper()
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n%v\ndrawn:\n%v", what, got, want)
	}
}

// send sends requests to the code that users run. Midnight is when the bubble begins.
func send(t *testing.T, tr traffic, a limiter, requests []time.Duration) outcome {
	if a.wait > 0 {
		return sendToHolding(tr, a, requests)
	}
	var o outcome
	start := time.Now()
	b := memory.New()
	var inside []backend.Result
	for _, at := range requests {
		for len(inside) > 0 && !inside[0].At.Add(tr.takes).After(start.Add(at)) {
			time.Sleep(time.Until(inside[0].At.Add(tr.takes)))
			if err := b.Settle(context.Background(), "key", inside[0], 1, 1, a.limit); err != nil {
				t.Fatal(err)
			}
			inside = inside[1:]
		}
		time.Sleep(time.Until(start.Add(at)))
		res, err := b.Take(context.Background(), "key", 1, a.limit)
		if err != nil {
			t.Fatal(err)
		}
		if !res.Allowed {
			o.refused = append(o.refused, at)
			continue
		}
		o.passed = append(o.passed, at)
		if a.limit.Algorithm == backend.Concurrency {
			inside = append(inside, res)
		}
	}
	return o
}

// sendToHolding sends requests to a limiter with WithMaxWait.
func sendToHolding(tr traffic, a limiter, requests []time.Duration) outcome {
	var o outcome
	var mu sync.Mutex
	start := time.Now()
	note := func(passed bool, waited time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		switch now := time.Since(start); {
		case now > tr.length: // it was held at the end of the picture
		case passed:
			o.passed, o.longest = append(o.passed, now), max(o.longest, waited)
		default:
			o.refused = append(o.refused, now)
		}
	}
	r := newEngine(ginlimit.New(a.limit, ginlimit.Global(), ginlimit.WithMaxWait(a.wait)))
	r.GET("/", func(c *gin.Context) {
		d, _ := ginlimit.FromContext(c)
		note(true, d.Waited)
	})
	for _, at := range requests {
		time.Sleep(time.Until(start.Add(at)))
		go func() {
			if get(r, "") == http.StatusTooManyRequests {
				note(false, 0)
			}
		}()
	}
	time.Sleep(a.wait + second) // for those that are held
	synctest.Wait()
	return o
}

func newEngine(handlers ...gin.HandlerFunc) *gin.Engine {
	gin.SetMode(gin.ReleaseMode)
	r := gin.New()
	r.Use(handlers...)
	return r
}

// get sends a request of a user and returns the status.
func get(r http.Handler, user string) int {
	w := httptest.NewRecorder()
	req := httptest.NewRequest(http.MethodGet, "/", nil)
	req.Header.Set("User", user)
	r.ServeHTTP(w, req)
	return w.Code
}

// TestFlightsAreDecided sends the requests of inflight.svg to ginlimit.All under a fake clock.
func TestFlightsAreDecided(t *testing.T) {
	requests := callers()
	for _, f := range flightCaps[1:] {
		t.Run(f.name, func(t *testing.T) {
			want, err := f.fly(requests)
			if err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) {
				got := make([]bool, len(requests))
				r := newEngine(ginlimit.All(f.limiters(t)...))
				r.GET("/", func(c *gin.Context) {
					i, _ := strconv.Atoi(strings.Split(c.GetHeader("User"), " ")[1])
					got[i] = true
					time.Sleep(requests[i].takes())
				})
				start := time.Now()
				for i, c := range requests {
					time.Sleep(time.Until(start.Add(c.at)))
					go get(r, strconv.Itoa(c.user)+" "+strconv.Itoa(i))
				}
				time.Sleep(2 * second)
				synctest.Wait()
				for i, c := range requests {
					if got[i] != want[i] {
						t.Fatalf("user %d at %v is let through: %v, drawn: %v", c.user, c.at, got[i], want[i])
					}
				}
			})
		})
	}
}

// limiters returns what decides outside of the pictures.
func (f flightCap) limiters(t *testing.T) (all []*ginlimit.Limiter) {
	store := memory.New()
	add := func(n int64, name string, key ginlimit.KeyFunc) {
		if n == 0 {
			return
		}
		l, err := ginlimit.NewLimiter(ginlimit.InFlight(n), key, ginlimit.WithName(name), ginlimit.WithBackend(store))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, l)
	}
	add(f.inAll, "everybody", ginlimit.Global())
	add(f.each, "user", func(c *gin.Context) (string, error) { return strings.Split(c.GetHeader("User"), " ")[0], nil })
	return all
}

// TestWhatFlightsSay holds inflight.svg to what the documentation says of it.
func TestWhatFlightsSay(t *testing.T) {
	s, err := flightSheet()
	if err != nil {
		t.Fatal(err)
	}
	highest := func(p panel, layers ...int) (most float64) {
		for i := range p.line {
			sum := 0.0
			for _, l := range layers {
				sum += p.layers[l].values[i]
			}
			most = max(most, sum)
		}
		return most
	}
	if got := highest(s.panels[0], 0, 1); got <= flightsInAll {
		t.Errorf("without a limit at most %v are in flight: nothing is to be seen", got)
	}
	if got := highest(s.panels[1], 0, 1); got != flightsInAll {
		t.Errorf("at most %v are in flight, want %d", got, flightsInAll)
	}
	if got := highest(s.panels[2], 1); got != flightsEach {
		t.Errorf("at most %v of one user are in flight, want %d", got, flightsEach)
	}
	requests := callers()
	for i, f := range flightCaps {
		passed, err := f.fly(requests)
		if err != nil {
			t.Fatal(err)
		}
		if all := share(requests, passed, false) == 100; all == (i == 1) {
			t.Errorf("%s: all requests of the 20 users are let through: %v", f.name, all)
		}
	}
}

// TestBansAreDecided sends the requests of ban.svg to the memory backend under a fake clock, and
// holds the picture to what the documentation says of it.
func TestBansAreDecided(t *testing.T) {
	var passed []int
	for _, p := range pursuits {
		want, err := p.play()
		if err != nil {
			t.Fatal(err)
		}
		passed = append(passed, len(want.passed))
		synctest.Test(t, func(t *testing.T) {
			b := memory.New()
			start := time.Now()
			got := p.pursue(func(at time.Duration) backend.Result {
				time.Sleep(time.Until(start.Add(at)))
				res, err := b.Take(context.Background(), "key", 1, p.limits()...)
				if err != nil {
					t.Fatal(err)
				}
				return res
			})
			same(t, p.name+": let through", got.passed, want.passed)
			same(t, p.name+": refused", got.refused, want.refused)
			same(t, p.name+": banned", got.banned, want.banned)
			if got.bans != want.bans || got.bans > 0 != (p.bans && !p.waits) {
				t.Errorf("%s: %d bans, %d are drawn", p.name, got.bans, want.bans)
			}
		})
	}
	if passed[1] >= passed[0] || passed[2] != passed[0] {
		t.Errorf("%v requests are let through: bans have to cost a caller something, and only one that does not stop", passed)
	}
}

// TestWhatThePicturesSay holds the pictures to what the documentation of the algorithms promises.
func TestWhatThePicturesSay(t *testing.T) {
	for _, tr := range traffics {
		all, err := tr.play()
		if err != nil {
			t.Fatal(err)
		}
		of := map[string]played{}
		for _, p := range all {
			name, _, _ := strings.Cut(p.name, ":")
			of[name] = p
			if p.longest > p.wait {
				t.Errorf("%s: %s holds a request for %v", tr.file, p.name, p.longest)
			}
		}
		inPeriod := func(name string) int { return most(of[name].passed, tr.long) }
		inShort := func(name string) int { return most(of[name].passed, tr.short) }
		check := func(ok bool, what string) {
			if !ok {
				t.Errorf("%s: not true: %s", tr.file, what)
			}
		}
		check(inPeriod("sliding log") <= count, "the sliding log lets at most the count through in any period")
		check(inPeriod("token bucket") <= 2*count, "the token bucket lets at most its burst and what is refilled through in any period")
		check(inPeriod("sliding window") < 2*count, "the sliding window lets fewer than twice the count through in any period")
		check(inPeriod("leaky bucket") <= count, "the leaky bucket lets at most the count through in any period")
		check(most(of["leaky bucket"].passed, second) <= count/10, "the leaky bucket is even")
		refill := int(count * tr.short / tr.long)
		switch tr.file {
		case "days.svg":
			check(inPeriod("calendar window") == 2*count, "the calendar window lets twice the count through around midnight")
			check(inShort("calendar window") > 3*count/2, "and most of that within hours")
			check(inShort("fixed window") > 3*count/2, "the fixed window does so around another hour")
			check(inShort("sliding log") <= count, "the sliding log does not")
			check(inShort("token bucket") <= count+refill+1, "the token bucket lets its burst and the refill through")
			check(inPeriod("in flight") > 2*count, "the limit in flight does not count a day's requests")
			check(most(of["in flight"].passed, tr.takes) == places, "it counts those at the same time")
		case "edge.svg":
			// The request that opened the window is the one that is missing to twice the count.
			check(inShort("fixed window") == 2*count-1, "the fixed window lets twice the count through at once")
			check(inPeriod("sliding log") == count, "the sliding log lets the count through")
			check(inShort("sliding log") == count, "and does so at once")
			check(inShort("token bucket") <= count+refill, "the token bucket lets its burst and the refill through")
			check(inPeriod("sliding window") > count, "the sliding window is not exact")
			check(inShort("sliding window") <= count+refill, "but lets no second burst through")
		case "overload.svg":
			check(len(of["fixed window"].passed) == 4*count, "the fixed window lets the count through in each of four windows")
			check(len(of["sliding log"].passed) == 4*count, "so does the sliding log")
			check(len(of["token bucket"].passed) == 5*count-1, "the token bucket lets its burst and what is refilled through")
		}
		for name, p := range of {
			check(len(p.passed) < len(p.offered), name+" refuses some")
		}
	}
}

// TestPicturesAreOfNow finds what each panel says in the pictures of the documentation.
func TestPicturesAreOfNow(t *testing.T) {
	sheets, err := allSheets()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range sheets {
		svg, err := os.ReadFile(filepath.Join("../../../docs/algorithms", s.file))
		if err != nil {
			t.Fatalf("%v; go run ./cmd/algorithms draws it", err)
		}
		escaped := strings.NewReplacer("'", "&#39;")
		for _, p := range s.panels {
			for _, text := range []string{p.name, p.says} {
				if !strings.Contains(string(svg), ">"+text+"<") && !strings.Contains(string(svg), ">"+escaped.Replace(text)+"<") {
					t.Errorf("%s does not say %q; go run ./cmd/algorithms draws it anew", s.file, text)
				}
			}
		}
		drawn, err := s.draw()
		if err != nil {
			t.Fatal(err)
		}
		if len(drawn) < 10_000 {
			t.Errorf("%s: %d bytes are drawn", s.file, len(drawn))
		}
	}
}
