package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/backend/memory"
)

// TestDrawnIsDecided sends the requests that are drawn to the memory backend, or to a limiter that holds them, under a
// fake clock: each is let through, or refused, at the very instant that the picture has.
func TestDrawnIsDecided(t *testing.T) {
	for _, tr := range traffics {
		for _, a := range limiters {
			t.Run(tr.file+"/"+a.name, func(t *testing.T) {
				want, err := play(a, tr.requests())
				if err != nil {
					t.Fatal(err)
				}
				if len(want.offered) == 0 || len(want.passed) == 0 {
					t.Fatal("nothing is drawn")
				}
				synctest.Test(t, func(t *testing.T) {
					got := send(t, a, want.offered)
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

// send sends requests to the code that users run.
func send(t *testing.T, a limiter, requests []time.Duration) outcome {
	var o outcome
	var mu sync.Mutex
	start := time.Now()
	note := func(passed bool, waited time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		switch now := time.Since(start); {
		case now > length: // it was held at the end of the picture
		case passed:
			o.passed, o.longest = append(o.passed, now), max(o.longest, waited)
		default:
			o.refused = append(o.refused, now)
		}
	}
	if a.wait == 0 {
		b := memory.New()
		for _, at := range requests {
			time.Sleep(time.Until(start.Add(at)))
			res, err := b.Take(context.Background(), "key", 1, a.limit)
			if err != nil {
				t.Fatal(err)
			}
			note(res.Allowed, 0)
		}
		return o
	}
	gin.SetMode(gin.ReleaseMode)
	r := gin.New()
	r.Use(ginlimit.New(a.limit, ginlimit.Global(), ginlimit.WithMaxWait(a.wait)))
	r.GET("/", func(c *gin.Context) {
		d, _ := ginlimit.FromContext(c)
		note(true, d.Waited)
	})
	for _, at := range requests {
		time.Sleep(time.Until(start.Add(at)))
		go func() {
			w := httptest.NewRecorder()
			r.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
			if w.Code == http.StatusTooManyRequests {
				note(false, 0)
			}
		}()
	}
	time.Sleep(a.wait + second) // for those that are held
	synctest.Wait()
	return o
}

// TestWhatThePicturesSay holds the pictures to what the documentation of the algorithms promises.
func TestWhatThePicturesSay(t *testing.T) {
	for _, tr := range traffics {
		panels, err := panelsOf(tr)
		if err != nil {
			t.Fatal(err)
		}
		of := map[string]panel{}
		for _, p := range panels {
			name, _, _ := strings.Cut(p.name, ":")
			of[name] = p
			if p.longest > p.wait {
				t.Errorf("%s: %s holds a request for %v", tr.file, p.name, p.longest)
			}
		}
		in10s := func(name string) int { return most(of[name].passed, period) }
		check := func(ok bool, what string) {
			if !ok {
				t.Errorf("%s: not true: %s", tr.file, what)
			}
		}
		for _, name := range []string{"sliding log", "leaky bucket"} {
			check(in10s(name) <= count, name+" lets at most the count through in any period")
		}
		check(most(of["leaky bucket"].passed, second) == count/10 || tr.file == "steady.svg", "the leaky bucket is even")
		check(in10s("token bucket") <= 2*count, "the token bucket lets at most its burst and what is refilled through in any period")
		check(in10s("sliding window") < 2*count, "the sliding window lets fewer than twice the count through in any period")
		switch tr.file {
		case "steady.svg":
			for name, p := range of {
				check(len(p.passed) == len(p.offered) && p.longest == 0, name+" neither refuses nor holds any")
			}
		case "edge.svg":
			// The request that opened the window is the one that is missing to twice the count.
			check(most(of["fixed window"].passed, 2*second) == 2*count-1, "the fixed window lets twice the count through at once")
			check(in10s("sliding log") == count, "the sliding log lets the count through")
			check(most(of["sliding log"].passed, 2*second) == count, "and does so at once")
			refill := 2 * count / 10
			check(most(of["token bucket"].passed, 2*second) <= count+refill, "the token bucket lets its burst and the refill through")
			check(in10s("sliding window") > count, "the sliding window is not exact")
			check(most(of["sliding window"].passed, 2*second) <= count+refill, "but lets no second burst through")
		case "overload.svg":
			check(len(of["fixed window"].passed) == 4*count, "the fixed window lets the count through in each of four windows")
			check(len(of["sliding log"].passed) == 4*count, "so does the sliding log")
			check(len(of["token bucket"].passed) == 5*count-1, "the token bucket lets its burst and what is refilled through")
		}
	}
}

// TestPicturesAreOfNow finds what each panel says in the pictures of the documentation.
func TestPicturesAreOfNow(t *testing.T) {
	for _, tr := range traffics {
		svg, err := os.ReadFile(filepath.Join("../../../docs/algorithms", tr.file))
		if err != nil {
			t.Fatalf("%v; go run ./cmd/algorithms draws it", err)
		}
		panels, err := panelsOf(tr)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range panels {
			for _, text := range []string{p.name, p.says()} {
				if !strings.Contains(string(svg), ">"+text+"<") {
					t.Errorf("%s does not say %q; go run ./cmd/algorithms draws it anew", tr.file, text)
				}
			}
		}
		drawn, err := drawSVG(tr, panels)
		if err != nil {
			t.Fatal(err)
		}
		if len(drawn) < 10_000 {
			t.Errorf("%s: %d bytes are drawn", tr.file, len(drawn))
		}
	}
}
