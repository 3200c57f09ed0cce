package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-gonic/gin"
)

// service is the engine, the file of its limits, and what it logged.
type service struct {
	t      *testing.T
	engine http.Handler
	file   string
	hangup chan os.Signal
	logged *buffer
}

// buffer is a bytes.Buffer that a watcher may write to while a test reads it.
type buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

// take returns what was written since the last call.
func (b *buffer) take() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.text.Reset()
	return b.text.String()
}

const every = time.Second

// test runs f at a time that stands still unless f sleeps.
func test(t *testing.T, text string, f func(*testing.T, *service)) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "limits.yaml")
	synctest.Test(t, func(t *testing.T) {
		s := &service{t: t, file: file, hangup: make(chan os.Signal), logged: new(buffer)}
		s.write(text)
		engine, limits, err := newService(file)
		if err != nil {
			t.Fatal(err)
		}
		s.engine = engine
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go limits.watch(ctx, every, s.hangup, slog.New(slog.NewTextHandler(s.logged, nil)))
		f(t, s)
	})
}

// write replaces the file by rename, as a deployment does.
func (s *service) write(text string) {
	s.t.Helper()
	if err := os.WriteFile(s.file+".new", []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(s.file+".new", s.file); err != nil {
		s.t.Fatal(err)
	}
}

// change replaces the file, waits until it was looked at, and returns what was logged about it.
func (s *service) change(text string) string {
	s.t.Helper()
	s.write(text)
	return s.wait()
}

func (s *service) wait() string {
	s.logged.take()
	time.Sleep(every)
	synctest.Wait()
	return s.logged.take()
}

func (s *service) send(route string) *httptest.ResponseRecorder {
	method, path, _ := strings.Cut(route, " ")
	rec := httptest.NewRecorder()
	s.engine.ServeHTTP(rec, httptest.NewRequest(method, path, nil))
	return rec
}

// passes sends requests, of which exactly n have to pass.
func (s *service) passes(n int, route string) {
	s.t.Helper()
	for i := range n {
		if rec := s.send(route); rec.Code != http.StatusOK {
			s.t.Fatalf("%s: request %d of %d: status %d", route, i+1, n, rec.Code)
		}
	}
	if rec := s.send(route); rec.Code != http.StatusTooManyRequests {
		s.t.Fatalf("%s: request %d: status %d, not 429", route, n+1, rec.Code)
	}
}

func TestLimitsByRoute(t *testing.T) {
	test(t, "default: 3/h\nPOST /login: [2/h, 5/day calendar]\nGET /users/:id: 4/h\nGET /healthz: unlimited\n", func(t *testing.T, s *service) {
		s.passes(2, "POST /login")
		s.passes(4, "GET /users/7")
		s.passes(3, "GET /about")
		s.passes(0, "GET /users/8") // a route is known by its pattern
		for range 100 {
			if rec := s.send("GET /healthz"); rec.Code != http.StatusOK {
				t.Fatalf("status %d", rec.Code)
			}
		}
	})
}

func TestSwapCarriesOver(t *testing.T) {
	test(t, "default: 60/m\nPOST /login: 5/15m sliding-log\n", func(t *testing.T, s *service) {
		s.passes(5, "POST /login")
		if got := s.change("default: 60/m\nPOST /login: 8/15m sliding-log\n"); !strings.Contains(got, "the limits are those of the file now") {
			t.Errorf("logged %q", got)
		}
		s.passes(3, "POST /login") // the five still count
		s.change("default: 60/m\nPOST /login: 6/15m sliding-log\n")
		s.passes(0, "POST /login")
		s.change("default: 60/m\nPOST /login: [10/15m sliding-log, 100/day calendar]\n")
		s.passes(2, "POST /login")
		if got := s.wait(); got != "" {
			t.Errorf("nothing changed, and it logged %q", got)
		}
		// SIGHUP needs no wait.
		s.write("default: 60/m\nPOST /login: 11/15m sliding-log\n")
		s.hangup <- nil
		synctest.Wait()
		s.passes(1, "POST /login")
	})
}

func TestRemovedEntryHasDefault(t *testing.T) {
	test(t, "default: 3/h\nGET /search: 5/h\n", func(_ *testing.T, s *service) {
		s.passes(5, "GET /search")
		s.change("default: 7/h\n")
		s.passes(2, "GET /search")
		s.passes(7, "GET /about")
	})
}

func TestBadFile(t *testing.T) {
	const good = "default: 3/h\nGET /search: 5/h\n"
	for name, step := range map[string]struct{ text, want string }{
		"syntax":           {"default: 3/h\nGET /search: [5/h\n", `line 2: sequence end token ']' not found; write lines such as \"GET /search: 20/m\"`},
		"limit":            {good + "POST /login: 5/15x\n", `line 3: the limit \"5/15x\": it is not understood; write it as \"100/m\"`},
		"limit in a list":  {"default: 3/h\nPOST /login:\n  - 5/m\n  - 5 parsecs\n", `line 4: the limit \"5 parsecs\": it is not understood`},
		"number":           {"default: 100\n", `line 1: the limit \"100\": it is not understood`},
		"route":            {good + "POST /logni: 5/h\n", `line 3: there is no route \"POST /logni\"; write default, GET /about,`},
		"method":           {good + "GET /login: 5/h\n", `line 3: there is no route \"GET /login\"`},
		"HEAD":             {good + "HEAD /search: 5/h\n", `line 3: HEAD counts as GET; write \"GET /search\"`},
		"duplicate":        {good + "GET /search: 6/h\n", `line 3: \"GET /search\" stands in line 2 already; keep one`},
		"no limit":         {good + "POST /login:\n", `line 3: there is no limit here; write one such as 100/m`},
		"empty list":       {good + "POST /login: []\n", `line 3: the list is empty; write a limit`},
		"two of one name":  {good + "POST /login: [5/m named a, 6/h named a]\n", `line 3: `},
		"nested":           {good + "POST /login: {a: 5/h}\n", `line 3: there is no limit here`},
		"no default":       {"GET /search: 5/h\n", `there is no default; add a line such as \"default: 60/m\"`},
		"empty":            {"", `it is empty; add a line`},
		"only a comment":   {"# nothing\n", `it is empty; add a line`},
		"no mapping":       {"- 5/h\n", `line 1: it is no list of routes`},
		"second document":  {good + "---\ndefault: 4/h\n", `line 4: a second document begins here; take out the line \"---\" before it`},
		"second is broken": {good + "---\n[\n", `line 4: sequence end token ']' not found`},
	} {
		t.Run(name, func(t *testing.T) {
			test(t, good, func(t *testing.T, s *service) {
				s.passes(5, "GET /search")
				got := s.change(step.text)
				if strings.Count(got, "\n") != 1 || !strings.Contains(got, "level=ERROR") || !strings.Contains(got, `msg="ginlimit: `) ||
					!strings.Contains(got, step.want) || !strings.Contains(got, "until then the limits stay as they were") {
					t.Errorf("logged %s, want %s", got, step.want)
				}
				s.passes(0, "GET /search")
				s.passes(3, "GET /about")
				if got := s.wait(); got != "" {
					t.Errorf("said twice: %s", got)
				}
				s.change("default: 4/h\nGET /search: 6/h\n")
				s.passes(1, "GET /search")
				s.passes(1, "GET /about")
			})
		})
	}
}

func TestFileIsGone(t *testing.T) {
	test(t, "default: 3/h\n", func(t *testing.T, s *service) {
		if err := os.Remove(s.file); err != nil {
			t.Fatal(err)
		}
		if got := s.wait(); !strings.Contains(got, "put a file there that this program may read; until then") {
			t.Errorf("logged %s", got)
		}
		if got := s.wait(); got != "" {
			t.Errorf("said twice: %s", got)
		}
		s.passes(3, "GET /about")
		if got := s.change("default: 3/h\n"); !strings.Contains(got, "the limits are those of the file now") {
			t.Errorf("logged %s", got)
		}
	})
}

// YAML has many ways to say the same. What parse does not read, it refuses.
func TestParse(t *testing.T) {
	known := gin.RoutesInfo{{Method: "GET", Path: "/search"}}
	for text, want := range map[string]string{
		"default: 3/h\nGET /search: [5/h, 6/d]\n":                   "[5/h 6/d]",
		"default: 3/h # for all\n\n# none\n":                        "[3/h]",
		"---\ndefault: 3/h\n":                                       "[3/h]",
		"\xef\xbb\xbfdefault: '3/h'\r\n\"GET /search\": 4/h\r\n":    "[4/h]",
		"{default: 3/h, GET /search: \"5 in flight\"}\n":            "[5 in flight]",
		"? default\n: 3/h\n":                                        "line 1: this is no plain text",
		"default: &a 3/h\nGET /search: *a\n":                        "line 1: there is no limit here",
		"default: 3/h\n<<: {GET /search: 4/h}\n":                    "line 2: this is no plain text",
		"default: 3/h\nGET /search: 10000/day Mars/Base calendar\n": "line 2: limit 10000/day Mars/Base calendar: unknown time zone",
	} {
		got := ""
		if table, err := parse([]byte(text), known); err != nil {
			got = err.Error()
		} else {
			got = fmt.Sprint(table.of(http.MethodHead, "/search").Limits)
		}
		if !strings.HasPrefix(got, want) {
			t.Errorf("%q: got %s, want %s", text, got, want)
		}
	}
}

func TestStart(t *testing.T) {
	dir := t.TempDir()
	if _, _, err := newService(filepath.Join(dir, "none.yaml")); err == nil || !strings.HasPrefix(err.Error(), "ginlimit: ") {
		t.Errorf("without a file: %v", err)
	}
	bad := filepath.Join(dir, "bad.yaml")
	if err := os.WriteFile(bad, []byte("default: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := newService(bad); err == nil || !strings.HasPrefix(err.Error(), "ginlimit: "+bad+": line 1: ") {
		t.Errorf("with a bad file: %v", err)
	}
	if _, _, err := newService("limits.yaml"); err != nil {
		t.Error(err)
	}
}

// Requests come from all sides while the limits change. Each has the limits of one file, and no more
// pass than the larger limit allows.
func TestSwapUnderLoad(t *testing.T) {
	file := filepath.Join(t.TempDir(), "limits.yaml")
	s := &service{t: t, file: file}
	files := []string{"default: 20/h sliding-log\n", "default: 99/h\nGET /about: 30/h sliding-log\n"}
	s.write(files[0])
	engine, limits, err := newService(file)
	if err != nil {
		t.Fatal(err)
	}
	s.engine = engine
	policies := map[string]bool{`"default";q=20;w=3600`: true, `"default";q=30;w=3600`: true}
	var passed atomic.Int64
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for range 200 {
				switch rec := s.send("GET /about"); {
				case !policies[rec.Header().Get("RateLimit-Policy")]:
					t.Errorf("the policy is %s", rec.Header().Get("RateLimit-Policy"))
				case rec.Code == http.StatusOK:
					passed.Add(1)
				case rec.Code != http.StatusTooManyRequests:
					t.Errorf("status %d", rec.Code)
				}
			}
		})
	}
	for i := range 100 {
		s.write(files[1-i%2])
		if swapped, err := limits.load(false); err != nil || !swapped {
			t.Errorf("swap %d: %v, %v", i, swapped, err)
		}
	}
	clients.Wait()
	s.write(files[1])
	if _, err := limits.load(true); err != nil {
		t.Fatal(err)
	}
	for s.send("GET /about").Code == http.StatusOK {
		passed.Add(1)
	}
	if n := passed.Load(); n != 30 {
		t.Errorf("%d passed, not 30", n)
	}
}

func init() { gin.SetMode(gin.TestMode) }
