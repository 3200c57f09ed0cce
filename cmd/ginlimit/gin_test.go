package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
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
	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/cmd/ginlimit/internal/accesslog"
	"github.com/ginlimit/ginlimit/cmd/ginlimit/internal/replay"
)

func TestMain(m *testing.M) {
	gin.SetMode(gin.ReleaseMode)
	os.Exit(m.Run())
}

// service is a Gin service with a limiter, and the logs that it writes: one in each format, and
// that of an observer of the same limiter in a dry run.
type service struct {
	engine                       *gin.Engine
	combined, caddy, gin, observ bytes.Buffer
	refused                      []bool
}

func newService(limits []backend.Limit) *service {
	s := &service{engine: gin.New()}
	_ = s.engine.SetTrustedProxies(nil)
	s.engine.Use(gin.LoggerWithWriter(&s.gin))
	limiter := func(opts ...ginlimit.Option) gin.HandlerFunc {
		return ginlimit.New(limits[0], ginlimit.ByIP(), append(opts, ginlimit.WithLimits(limits[1:]...), ginlimit.WithLogger(slog.New(slog.DiscardHandler)))...)
	}
	s.engine.Use(limiter(ginlimit.WithName("dry"), ginlimit.WithDryRun(true), ginlimit.WithObserver(observe(slog.New(slog.NewJSONHandler(&s.observ, nil))))))
	s.engine.Use(limiter())
	s.engine.NoRoute(func(c *gin.Context) { c.String(http.StatusOK, "ok") })
	return s
}

// ask sends a request, and writes what servers in front of the service would have written of it.
func (s *service) ask(addr, path string) {
	now := time.Now().UTC()
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.RemoteAddr = addr + ":4711"
	if strings.Contains(addr, ":") {
		r.RemoteAddr = "[" + addr + "]:4711"
	}
	s.engine.ServeHTTP(w, r)
	s.refused = append(s.refused, w.Code == http.StatusTooManyRequests)
	fmt.Fprintf(&s.combined, "%s - - [%s] \"GET %s HTTP/1.1\" %d %d \"-\" \"curl/8\"\n", addr, now.Format("02/Jan/2006:15:04:05 -0700"), path, w.Code, w.Body.Len())
	fmt.Fprintf(&s.caddy, `{"level":"info","ts":%d.%06d,"logger":"http.log.access","request":{"remote_ip":%q,"method":"GET","uri":%q},"status":%d}`+"\n",
		now.Unix(), now.Nanosecond()/1000, addr, path, w.Code)
}

// replayed returns what a replay of a log refuses, request by request.
func replayed(t *testing.T, name, log string, limits []backend.Limit, by string) []bool {
	t.Helper()
	r, err := accesslog.NewReader(name, strings.NewReader(log), "auto", accesslog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c := replay.Config{Limits: limits}
	if c.By, err = replay.ParseBy(by); err != nil {
		t.Fatal(err)
	}
	var refused []bool
	c.Verdict = func(_ time.Time, _ string, allowed bool, _ time.Duration) { refused = append(refused, !allowed) }
	if _, err := replay.Run(context.Background(), c, []*accesslog.Reader{r}); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, log)
	}
	return refused
}

// The verdicts of a replay are those of a Gin service that was sent the same requests, whichever
// log it is of. Logs with whole seconds are held to a service that is asked at whole seconds.
func TestVerdictsOfAService(t *testing.T) {
	rounds := 120
	if testing.Short() {
		rounds = 20
	}
	addrs := []string{"203.0.113.7", "198.51.100.9", "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1", "::ffff:203.0.113.7"}
	refusals := 0
	for seed := range rounds {
		rng := rand.New(rand.NewPCG(uint64(seed), 1))
		var limits []backend.Limit
		for i := range 1 + rng.IntN(3) {
			l := backend.Limit{Count: 1 + rng.Int64N(12), Period: time.Duration(1+rng.IntN(30_000)) * time.Millisecond, Algorithm: backend.Algorithm(rng.IntN(4))}
			if l.Algorithm == backend.TokenBucket && rng.IntN(2) == 0 {
				l.Burst = 1 + rng.Int64N(12)
			}
			limits = append(limits, l.Named(fmt.Sprint("l", i)))
		}
		whole := seed%2 == 0
		synctest.Test(t, func(t *testing.T) {
			s := newService(limits)
			for range 200 {
				if step := time.Duration(rng.Int64N(3_000_000)) * time.Microsecond; whole {
					time.Sleep(step.Truncate(time.Second))
				} else {
					time.Sleep(step)
				}
				s.ask(addrs[rng.IntN(len(addrs))], []string{"/", "/a?b=c", "/caf%C3%A9"}[rng.IntN(3)])
			}
			logs := map[string][2]string{"caddy": {s.caddy.String(), "ip"}, "observer": {s.observ.String(), "key"}}
			if whole {
				logs["combined"] = [2]string{s.combined.String(), "ip"}
				logs["gin"] = [2]string{s.gin.String(), "ip"}
			}
			for name, log := range logs {
				if got := replayed(t, name, log[0], limits, log[1]); !slices.Equal(got, s.refused) {
					i := 0
					for i < len(got) && i < len(s.refused) && got[i] == s.refused[i] {
						i++
					}
					t.Errorf("seed %d, %v, %s: request %d of %d differs", seed, limits, name, i, len(s.refused))
				}
			}
			for _, refused := range s.refused {
				if refused {
					refusals++
				}
			}
		})
	}
	if refusals < rounds {
		t.Errorf("only %d refusals: this tests nothing", refusals)
	}
}

// Places in flight are those of a service whose requests take their time, some of them longer than
// a place is held for a process that died. The log is written as nginx writes it, when requests
// end.
func TestVerdictsInFlight(t *testing.T) {
	refused := 0
	for seed := range 20 {
		rng := rand.New(rand.NewPCG(uint64(seed), 2))
		limits := []backend.Limit{backend.InFlight(1 + rng.Int64N(4)), ginlimit.PerMinute(20)}
		var log bytes.Buffer
		want := make([]bool, 150)
		synctest.Test(t, func(*testing.T) {
			var mu sync.Mutex // guards log
			engine := gin.New()
			_ = engine.SetTrustedProxies(nil)
			engine.Use(ginlimit.New(limits[0], ginlimit.ByIP(), ginlimit.WithLimits(limits[1]), ginlimit.WithLogger(slog.New(slog.DiscardHandler))))
			engine.GET("/:took", func(c *gin.Context) {
				took, _ := time.ParseDuration(c.Param("took"))
				time.Sleep(took)
			})
			for i := range want {
				// All begin at a multiple of 10 µs, and none ends at one.
				time.Sleep(time.Duration(1+rng.Int64N(600_000)) * 10 * time.Microsecond)
				took := time.Duration(rng.ExpFloat64()*1e6)*10*time.Microsecond + 5*time.Microsecond
				addr := []string{"203.0.113.7", "198.51.100.9"}[rng.IntN(2)]
				go func() {
					w := httptest.NewRecorder()
					r := httptest.NewRequest(http.MethodGet, "/"+took.String(), nil)
					r.RemoteAddr = addr + ":4711"
					begin := time.Now()
					engine.ServeHTTP(w, r)
					mu.Lock()
					defer mu.Unlock()
					want[i] = w.Code == http.StatusTooManyRequests
					fmt.Fprintf(&log, `{"msec":"%d.%06d","remote_addr":%q,"request_time":%q,"status":%d}`+"\n", time.Now().Unix(), time.Now().Nanosecond()/1000,
						addr, time.Since(begin), w.Code)
				}()
			}
			time.Sleep(time.Hour)
			synctest.Wait()
		})
		for _, r := range want {
			if r {
				refused++
			}
		}
		r, err := accesslog.NewReader("nginx", &log, "json", accesslog.Options{})
		if err != nil {
			t.Fatal(err)
		}
		by, err := replay.ParseBy("ip")
		if err != nil {
			t.Fatal(err)
		}
		var got []bool
		c := replay.Config{Limits: limits, By: by, Ended: true, Window: time.Hour}
		c.Verdict = func(_ time.Time, _ string, allowed bool, _ time.Duration) { got = append(got, !allowed) }
		if _, err := replay.Run(context.Background(), c, []*accesslog.Reader{r}); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, want) {
			t.Errorf("seed %d, %v: got %v, want %v", seed, limits, got, want)
		}
	}
	if refused < 200 {
		t.Errorf("only %d refusals: this tests nothing", refused)
	}
}

// The command counts for the lines of an observer what the observer's limiter decided.
func TestObserve(t *testing.T) {
	limit := ginlimit.PerMinute(5)
	var lines string
	synctest.Test(t, func(*testing.T) {
		s := newService([]backend.Limit{limit})
		for range 8 {
			time.Sleep(time.Second)
			s.ask("203.0.113.7", "/")
		}
		lines = s.observ.String()
	})
	name := filepath.Join(t.TempDir(), "decisions.jsonl")
	if err := os.WriteFile(name, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	out := mustRun(t, "", "replay", "-observe", "-limiter", "dry", "-limit", "5/m", "-json", name)
	var r replay.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	if r.Outcomes["allowed"] != 5 || r.Outcomes["dry_run_denied"] != 3 || r.Limits.Refused != 3 || r.Limits.Top[0].Key != "ip:203.0.113.7" {
		t.Errorf("got %+v", r)
	}
	if _, errs, code := runCommand("", "replay", "-observe", "-limiter", "other", "-limit", "5/m", name); code != 1 ||
		!strings.Contains(errs, "none of 8 requests is of the route") {
		t.Errorf("got %d, %s", code, errs)
	}
}

// runCommand runs the command as a shell does.
func runCommand(in string, args ...string) (out, errs string, code int) {
	return runWith(nil, in, args...)
}

func runWith(env map[string]string, in string, args ...string) (out, errs string, code int) {
	var stdout, stderr bytes.Buffer
	code = run(context.Background(), args, streams{strings.NewReader(in), &stdout, &stderr, func(name string) string { return env[name] }})
	return stdout.String(), stderr.String(), code
}

func mustRun(t *testing.T, in string, args ...string) string {
	t.Helper()
	out, errs, code := runCommand(in, args...)
	if code != 0 || errs != "" {
		t.Fatalf("%v: code %d, %s", args, code, errs)
	}
	return out
}
