package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/internal/testserver"
)

func TestMain(m *testing.M) {
	gin.SetMode(gin.ReleaseMode)
	os.Exit(m.Run())
}

// smallRates are used up by a few requests, and refill so slowly that a busy machine makes no
// difference.
func smallRates() rates {
	return rates{
		address:      ginlimit.PerHour(1_000_000),
		client:       ginlimit.PerHour(3),
		clientDay:    ginlimit.PerDay(1_000_000),
		login:        ginlimit.PerHour(3).WithAlgorithm(ginlimit.SlidingLog),
		searchSecond: ginlimit.PerHour(20),
		searchDay:    ginlimit.PerDay(1_000_000).WithAlgorithm(ginlimit.FixedWindow),
	}
}

// instance is the service with its ports.
type instance struct {
	*app
	t             *testing.T
	public, admin *httptest.Server
	logs          *logs
}

// logs are written by many requests at once.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// patient is the time budget where Redis is up: a busy machine is no reason to let requests pass.
const patient = 10 * time.Second

// newInstance starts an instance on a Redis that others may share.
func newInstance(t *testing.T, server *testserver.Server, change ...func(*config)) *instance {
	t.Helper()
	cfg, err := configFrom(func(name string) string { return map[string]string{"REDIS_URL": server.URL()}[name] })
	if err != nil {
		t.Fatal(err)
	}
	cfg.redisTimeout, cfg.rates = patient, smallRates()
	for _, set := range change {
		set(&cfg)
	}
	i := &instance{t: t, logs: &logs{}}
	if i.app, err = newApp(t.Context(), cfg, i.logs); err != nil {
		t.Fatal(err)
	}
	i.public, i.admin = httptest.NewServer(i.app.public), httptest.NewServer(i.app.admin)
	t.Cleanup(func() {
		i.public.Close()
		i.admin.Close()
		i.backend.Close()
	})
	return i
}

func with(set func(*rates)) func(*config) { return func(c *config) { set(&c.rates) } }

// reply is a response and its body.
type reply struct {
	*http.Response
	body string
}

// send sends a request with headers, which are given as names and values in turn.
func (i *instance) send(method, to, body string, headers ...string) reply {
	i.t.Helper()
	req, err := http.NewRequestWithContext(i.t.Context(), method, to, strings.NewReader(body))
	if err != nil {
		i.t.Fatal(err)
	}
	for h := 0; h < len(headers); h += 2 {
		req.Header.Set(headers[h], headers[h+1])
	}
	if host := req.Header.Get("Host"); host != "" {
		req.Host = host
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		i.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		i.t.Fatal(err)
	}
	return reply{resp, string(text)}
}

func (i *instance) get(path string, headers ...string) reply {
	i.t.Helper()
	return i.send(http.MethodGet, i.public.URL+path, "", headers...)
}

func (i *instance) login(user, password string) reply {
	i.t.Helper()
	form := url.Values{"user": {user}, "password": {password}}
	return i.send(http.MethodPost, i.public.URL+"/login", form.Encode(), "Content-Type", "application/x-www-form-urlencoded")
}

// operate sends a request to the operator's port.
func (i *instance) operate(status int, method, path, body string) {
	i.t.Helper()
	if r := i.send(method, i.admin.URL+path, body); r.StatusCode != status {
		i.t.Fatalf("%s %s: status %d, want %d: %s", method, path, r.StatusCode, status, r.body)
	}
}

// count returns what the operator sees.
func (i *instance) count(name string) int {
	i.t.Helper()
	counts := map[string]int{}
	r := i.send(http.MethodGet, i.admin.URL+"/decisions", "")
	if err := json.Unmarshal([]byte(r.body), &counts); err != nil {
		i.t.Fatalf("%v: %s", err, r.body)
	}
	return counts[name]
}

func want(t *testing.T, r reply, status int) {
	t.Helper()
	if r.StatusCode != status {
		t.Fatalf("%s %s: status %d, want %d: %s", r.Request.Method, r.Request.URL, r.StatusCode, status, r.body)
	}
}

// eventually asks until ok, as long as a busy machine may need.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not within ten seconds:", what)
		}
	}
}

var (
	alice   = []string{"Authorization", "Bearer token-of-alice"}
	bob     = []string{"Authorization", "Bearer token-of-bob"}
	partner = []string{apiKeyHeader, "key-of-a-partner"}
	nobody  []string
)

func TestEachCallerHasTheirOwnLimit(t *testing.T) {
	i := newInstance(t, testserver.Redis(t))
	for name, caller := range map[string][]string{"alice": alice, "bob": bob, "partner": partner, "nobody": nobody} {
		for left := 2; left >= 0; left-- {
			r := i.get("/whoami", caller...)
			want(t, r, http.StatusOK)
			if got := r.Header.Get("X-RateLimit-Remaining"); got != strconv.Itoa(left) {
				t.Errorf("%s: X-RateLimit-Remaining: %q, want %d", name, got, left)
			}
		}
		r := i.get("/whoami", caller...)
		want(t, r, http.StatusTooManyRequests)
		if got := r.Header.Get("RateLimit-Policy"); got != `"client";q=3;w=3600` {
			t.Errorf("%s: RateLimit-Policy: %q", name, got)
		}
	}
	if got := i.count("client: denied"); got != 4 {
		t.Errorf("%d refusals are counted, want 4", got)
	}
}

// A user is a user whatever else they send, and a partner is not an address.
func TestFirstOfUserKeyAddress(t *testing.T) {
	i := newInstance(t, testserver.Redis(t))
	both := append(append([]string{}, alice...), partner...)
	for range 3 {
		want(t, i.get("/whoami", both...), http.StatusOK)
	}
	want(t, i.get("/whoami", both...), http.StatusTooManyRequests)
	want(t, i.get("/whoami", alice...), http.StatusTooManyRequests)
	for range 3 {
		want(t, i.get("/whoami", partner...), http.StatusOK)
	}
	want(t, i.get("/whoami", partner...), http.StatusTooManyRequests)
	want(t, i.get("/whoami"), http.StatusOK)
}

func TestMadeUpCredentialsAreNoNewBudget(t *testing.T) {
	i := newInstance(t, testserver.Redis(t), with(func(r *rates) { r.address = ginlimit.PerHour(5) }))
	want(t, i.get("/whoami", apiKeyHeader, "made up"), http.StatusUnauthorized)
	want(t, i.get("/whoami", "Authorization", "Bearer made-up"), http.StatusUnauthorized)
	want(t, i.get("/whoami", "Authorization", "Basic dG9rZW4="), http.StatusUnauthorized)
	want(t, i.get("/whoami", append([]string{apiKeyHeader, "made up"}, alice...)...), http.StatusUnauthorized)
	want(t, i.get("/nothing-here"), http.StatusNotFound)
	r := i.get("/whoami", apiKeyHeader, "made up again")
	want(t, r, http.StatusTooManyRequests)
	if r.Header.Get("Retry-After") == "" || r.Header.Get("RateLimit") != "" {
		t.Errorf("headers of the limit by address: %v", r.Header)
	}
	want(t, i.get("/healthz"), http.StatusOK)
}

func TestForwardedForIsNoWayAround(t *testing.T) {
	i := newInstance(t, testserver.Redis(t))
	for n := range 4 {
		status := http.StatusOK
		if n == 3 {
			status = http.StatusTooManyRequests
		}
		want(t, i.get("/whoami", "X-Forwarded-For", fmt.Sprintf("198.51.100.%d", n)), status)
	}
	if strings.Contains(i.logs.String(), "GINLIMIT") {
		t.Errorf("diagnostics: %s", i.logs)
	}
}

// Behind a proxy that is named, clients are told apart by what it says of them, and not by what
// they say.
func TestBehindAProxy(t *testing.T) {
	i := newInstance(t, testserver.Redis(t), func(c *config) { c.proxies = []string{"127.0.0.1", "::1"} })
	for n := range 4 {
		want(t, i.get("/whoami", "X-Forwarded-For", fmt.Sprintf("198.51.100.%d", n)), http.StatusOK)
	}
	for n := range 3 { // the proxy appends the address that it sees
		status := http.StatusOK
		if n == 2 {
			status = http.StatusTooManyRequests
		}
		want(t, i.get("/whoami", "X-Forwarded-For", fmt.Sprintf("203.0.113.%d, 198.51.100.1", n)), status)
	}
}

func TestNoSecretLeaves(t *testing.T) {
	server := testserver.Redis(t)
	i := newInstance(t, server)
	for range 4 {
		i.get("/whoami", partner...)
		i.get("/search", partner...)
		i.get("/whoami", alice...)
		i.login("alice", "wonder-what")
	}
	keys, err := server.Do("KEYS", "*")
	if err != nil {
		t.Fatal(err)
	}
	names := fmt.Sprint(keys)
	if !strings.Contains(names, "shop1:{client:apikey:") || !strings.Contains(names, "shop1:{client:user:alice}") {
		t.Errorf("keys: %s", names)
	}
	all := names + i.logs.String() + i.send(http.MethodGet, i.admin.URL+"/decisions", "").body
	for _, key := range keys.([]any) {
		value, err := server.Do("GET", key.(string))
		if err != nil {
			t.Fatal(err)
		}
		ttl, err := server.Do("PTTL", key.(string))
		if err != nil {
			t.Fatal(err)
		}
		if ms := ttl.(int64); ms == -1 {
			t.Errorf("%s never ends", key)
		}
		all += fmt.Sprint(value)
	}
	for _, secret := range []string{"key-of-a-partner", "token-of-alice", "wonder-what", "wonderland"} {
		if strings.Contains(all, secret) {
			t.Errorf("%q is in Redis, in the log or in the counts", secret)
		}
	}
}

func TestOperatorChangesLimitsAtRunTime(t *testing.T) {
	server := testserver.Redis(t)
	one, other := newInstance(t, server), newInstance(t, server)
	for range 3 {
		want(t, other.get("/whoami", alice...), http.StatusOK)
	}
	want(t, other.get("/whoami", alice...), http.StatusTooManyRequests)
	want(t, one.get("/whoami", alice...), http.StatusTooManyRequests)

	one.operate(http.StatusNoContent, http.MethodPut, "/tiers/alice", `{"name":"pro","limits":["1000/h"]}`)
	var r reply
	eventually(t, "the other instance knows the tier", func() bool {
		r = other.get("/whoami", alice...)
		return r.StatusCode == http.StatusOK
	})
	if left, err := strconv.Atoi(r.Header.Get("X-RateLimit-Remaining")); err != nil || left > 997 || left < 900 {
		t.Errorf("%q are left of 1000, of which at least 3 were used", r.Header.Get("X-RateLimit-Remaining"))
	}
	if !strings.Contains(r.body, `"tier":"pro"`) {
		t.Error(r.body)
	}
	want(t, other.get("/whoami", bob...), http.StatusOK)
	if got := other.get("/whoami", bob...).Header.Get("X-RateLimit-Remaining"); got != "1" {
		t.Errorf("bob has %s left, want 1 of 3", got)
	}

	one.operate(http.StatusNoContent, http.MethodDelete, "/tiers/alice", "")
	eventually(t, "the other instance knows that the tier is gone", func() bool {
		r = other.get("/whoami", alice...)
		return r.Header.Get("RateLimit-Policy") == `"client";q=3;w=3600`
	})
	eventually(t, "alice uses her own limit up", func() bool {
		return other.get("/whoami", alice...).StatusCode == http.StatusTooManyRequests
	})
	one.operate(http.StatusNoContent, http.MethodPost, "/reset/client/user:alice", "")
	eventually(t, "the other instance knows of the reset", func() bool {
		return other.get("/whoami", alice...).StatusCode == http.StatusOK
	})
}

func TestOperatorMakesMistakes(t *testing.T) {
	i := newInstance(t, testserver.Redis(t), func(c *config) { c.proxies = []string{"127.0.0.1"} })
	for _, body := range []string{
		``, `{}`, `[]`, `{"name":"none","limits":[]}`,
		`{"limits":["-1/m"]}`,
		`{"limits":["1"]}`,
		`{"limits":[{"count":1,"period":"1m"}]}`,
		`{"limit":["1/m"]}`,
	} {
		i.operate(http.StatusBadRequest, http.MethodPut, "/tiers/alice", body)
	}
	i.operate(http.StatusNotFound, http.MethodPost, "/reset/clients/user:alice", "")
	i.operate(http.StatusNoContent, http.MethodDelete, "/tiers/nobody", "")
	if r := i.send(http.MethodPost, i.admin.URL+"/reset/client/user:alice", "", "Origin", "https://example.com"); r.StatusCode != http.StatusForbidden {
		t.Errorf("a page of somebody else: status %d", r.StatusCode)
	}
	if r := i.send(http.MethodPost, i.admin.URL+"/reset/client/user:alice", "", "Host", "evil.example:8081"); r.StatusCode != http.StatusForbidden {
		t.Errorf("a page whose name leads here: status %d", r.StatusCode)
	}
	want(t, i.get("/tiers/alice"), http.StatusNotFound) // is not where clients connect

	// Keys hold colons and slashes.
	v6 := []string{"X-Forwarded-For", "2001:db8::7"}
	for range 3 {
		want(t, i.get("/whoami", v6...), http.StatusOK)
	}
	want(t, i.get("/whoami", v6...), http.StatusTooManyRequests)
	i.operate(http.StatusNoContent, http.MethodPost, "/reset/client/"+url.PathEscape("ip:2001:db8::/64"), "")
	eventually(t, "the address may go on", func() bool { return i.get("/whoami", v6...).StatusCode == http.StatusOK })
}

func TestLoginCountsFailures(t *testing.T) {
	server := testserver.Redis(t)
	one, other := newInstance(t, server), newInstance(t, server)
	for range 10 {
		r := one.login("alice", "wonderland")
		want(t, r, http.StatusOK)
		if !strings.Contains(r.body, "token-of-alice") {
			t.Fatal(r.body)
		}
	}
	want(t, one.login("alice", "a"), http.StatusUnauthorized)
	want(t, other.login("bob", "b"), http.StatusUnauthorized)
	want(t, one.login("alice", "wonderland"), http.StatusOK)
	want(t, other.login("mallory", "c"), http.StatusUnauthorized)
	r := one.login("alice", "wonderland")
	want(t, r, http.StatusTooManyRequests)
	want(t, other.login("alice", "wonderland"), http.StatusTooManyRequests)
	if seconds, err := strconv.Atoi(r.Header.Get("Retry-After")); err != nil || seconds < 3500 || seconds > 3600 {
		t.Errorf("Retry-After: %q, want the hour since the first failure", r.Header.Get("Retry-After"))
	}
	want(t, one.get("/whoami", alice...), http.StatusOK) // who is logged in stays so
	one.operate(http.StatusNoContent, http.MethodPost, "/reset/login/ip:127.0.0.1", "")
	eventually(t, "the address may try again", func() bool { return other.login("alice", "wonderland").StatusCode == http.StatusOK })
}

// Many guesses at the same moment get no further than one after the other.
func TestLoginVolley(t *testing.T) {
	i := newInstance(t, testserver.Redis(t))
	answers := make(chan int)
	for range 20 {
		go func() { answers <- i.login("alice", "guess").StatusCode }()
	}
	guesses := 0
	for range 20 {
		if <-answers == http.StatusUnauthorized {
			guesses++
		}
	}
	if guesses != 3 {
		t.Errorf("%d guesses were looked at, want 3", guesses)
	}
}

func TestRedisGoesAndComes(t *testing.T) {
	server := testserver.Redis(t)
	i := newInstance(t, server, func(c *config) { c.redisTimeout = 200 * time.Millisecond })
	eventually(t, "alice is over the limit", func() bool {
		return i.get("/whoami", alice...).StatusCode == http.StatusTooManyRequests
	})

	server.Kill()
	eventually(t, "reads go on", func() bool { return i.get("/whoami", alice...).StatusCode == http.StatusOK })
	for range 5 {
		r := i.get("/whoami", alice...)
		want(t, r, http.StatusOK)
		if r.Header.Get("RateLimit") != "" || strings.Contains(r.body, "remaining") {
			t.Errorf("says what nobody knows: %v %s", r.Header, r.body)
		}
		want(t, i.get("/search?q=go"), http.StatusOK)
		want(t, i.get("/healthz"), http.StatusOK)
		r = i.login("alice", "wonderland")
		want(t, r, http.StatusServiceUnavailable)
		if r.Header.Get("Retry-After") == "" {
			t.Error("503 without Retry-After")
		}
	}
	i.operate(http.StatusServiceUnavailable, http.MethodPut, "/tiers/alice", `{"limits":["1/s"]}`)
	i.operate(http.StatusServiceUnavailable, http.MethodPost, "/reset/client/user:alice", "")
	for _, name := range []string{"client: error_passed", "client: tier not found out", "login: error_refused"} {
		if i.count(name) < 5 {
			t.Errorf("%s: %d, want at least 5", name, i.count(name))
		}
	}
	if n := strings.Count(i.logs.String(), "could not decide"); n < 1 || n > 3 {
		t.Errorf("the log has %d lines about it, want one in ten seconds: %s", n, i.logs)
	}

	if err := server.Restart(); err != nil { // with nothing in it
		t.Fatal(err)
	}
	eventually(t, "logging in works again", func() bool { return i.login("alice", "wonderland").StatusCode == http.StatusOK })
	eventually(t, "reads are limited again", func() bool {
		return i.get("/whoami", alice...).StatusCode == http.StatusTooManyRequests
	})
}

func TestStartsWithoutRedis(t *testing.T) {
	server := testserver.Redis(t)
	server.Kill()
	i := newInstance(t, server, func(c *config) { c.redisTimeout = 200 * time.Millisecond })
	want(t, i.get("/whoami"), http.StatusOK)
	want(t, i.login("alice", "wonderland"), http.StatusServiceUnavailable)
	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "logging in works", func() bool { return i.login("alice", "wonderland").StatusCode == http.StatusOK })
}

func TestLimitOnTrialRefusesNothing(t *testing.T) {
	i := newInstance(t, testserver.Redis(t), with(func(r *rates) {
		r.client, r.clientDay = ginlimit.PerHour(100), ginlimit.PerDay(2)
	}))
	for range 5 {
		r := i.get("/whoami", alice...)
		want(t, r, http.StatusOK)
		if got := r.Header.Get("RateLimit-Policy"); got != `"client";q=100;w=3600` {
			t.Errorf("RateLimit-Policy: %q", got)
		}
	}
	for name, n := range map[string]int{"clientDay: allowed": 2, "clientDay: dry_run_denied": 3, "client: allowed": 5, "client: denied": 0} {
		if got := i.count(name); got != n {
			t.Errorf("%s: %d, want %d", name, got, n)
		}
	}
}

func TestSearchCosts(t *testing.T) {
	i := newInstance(t, testserver.Redis(t), with(func(r *rates) { r.client = ginlimit.PerHour(1000) }))
	for _, step := range []struct {
		query  string
		status int
		left   string
	}{
		{"q=go", 200, "19"},
		{"q=go&size=1", 200, "18"},
		{"q=go&size=11", 200, "16"},
		{"q=go&size=100", 200, "6"},
		{"q=go&size=100", 429, "6"}, // and charges nothing
		{"q=go&size=0", 400, "5"},
		{"q=go&size=-1000", 400, "4"},
		{"q=go&size=101", 400, "3"},
		{"q=go&size=many", 400, "2"},
		{"q=go&size=21", 429, "2"},
		{"q=go&size=20", 200, "0"},
		{"q=go&size=1", 429, "0"},
	} {
		r := i.get("/search?"+step.query, alice...)
		want(t, r, step.status)
		if got := r.Header.Get("X-RateLimit-Remaining"); got != step.left {
			t.Errorf("%s: X-RateLimit-Remaining: %q, want %s", step.query, got, step.left)
		}
		if got := r.Header.Get("RateLimit-Policy"); got != `"client";q=1000;w=3600, "search-second";q=20;w=3600, "search-day";q=1000000;w=86400` {
			t.Errorf("%s: RateLimit-Policy: %q", step.query, got)
		}
		if (r.Header.Get("Retry-After") != "") != (step.status == http.StatusTooManyRequests) {
			t.Errorf("%s: Retry-After: %q", step.query, r.Header.Get("Retry-After"))
		}
	}
	want(t, i.get("/whoami", alice...), http.StatusOK)
	want(t, i.get("/search?q=go", bob...), http.StatusOK)
}

func TestSearchHasADayToo(t *testing.T) {
	i := newInstance(t, testserver.Redis(t), with(func(r *rates) {
		r.client = ginlimit.PerHour(1000)
		r.searchDay = ginlimit.PerDay(12).WithAlgorithm(ginlimit.FixedWindow)
	}))
	want(t, i.get("/search?size=100", alice...), http.StatusOK)
	r := i.get("/search?size=30", alice...)
	want(t, r, http.StatusTooManyRequests)
	if seconds, err := strconv.Atoi(r.Header.Get("Retry-After")); err != nil || seconds < 86_000 {
		t.Errorf("Retry-After: %q, want a day", r.Header.Get("Retry-After"))
	}
	want(t, i.get("/search?size=20", alice...), http.StatusOK)
}

// The limits as they are in production let a search of every size pass.
func TestDefaultRates(t *testing.T) {
	i := newInstance(t, testserver.Redis(t), func(c *config) { c.rates = defaultRates() })
	for _, size := range []string{"1", "100"} {
		want(t, i.get("/search?size="+size), http.StatusOK)
	}
	for range 10 {
		want(t, i.login("alice", "guess"), http.StatusUnauthorized)
	}
	want(t, i.login("alice", "wonderland"), http.StatusTooManyRequests)
}

// Requests that have begun finish, with Redis still there for their limits and refunds.
func TestEndLosesNoRequest(t *testing.T) {
	const n = 20
	server := testserver.Redis(t)
	cfg := config{redisURL: server.URL(), redisTimeout: patient, drain: 30 * time.Second, rates: smallRates()}
	cfg.rates.client, cfg.rates.searchSecond = ginlimit.PerHour(1000), ginlimit.PerHour(1000)
	a, err := newApp(t.Context(), cfg, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	begun, release := make(chan struct{}, n), make(chan struct{})
	a.find = func(ctx context.Context, _ string, _ int) ([]string, error) {
		begun <- struct{}{}
		<-release
		return nil, ctx.Err()
	}
	public, admin := listen(t), listen(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.run(ctx, public, admin) }()

	statuses := make(chan string, n)
	for range n {
		go func() {
			resp, err := http.Get("http://" + public.Addr().String() + "/search")
			if err != nil {
				statuses <- err.Error()
				return
			}
			resp.Body.Close()
			statuses <- resp.Status
		}()
	}
	for range n {
		<-begun
	}
	cancel()
	eventually(t, "no new connections", func() bool {
		conn, err := net.Dial("tcp", public.Addr().String())
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	select {
	case err := <-ended:
		t.Fatalf("ended with %v before its requests did", err)
	default:
	}
	// The operator can still look, and Redis is still there.
	if resp, err := http.Post("http://"+admin.Addr().String()+"/reset/client/user:alice", "", nil); err != nil || resp.StatusCode != http.StatusNoContent {
		t.Errorf("operator: %v, %v", resp, err)
	}
	released := time.Now()
	close(release)
	for range n {
		if got := <-statuses; got != "200 OK" {
			t.Errorf("a request that had begun: %s", got)
		}
	}
	if err := <-ended; err != nil {
		t.Errorf("ended with %v", err)
	}
	if took := time.Since(released); took > 10*time.Second {
		t.Errorf("took %v to end after the last request", took)
	}
	if _, err := a.limits.client.Peek(t.Context(), "user:alice"); err == nil {
		t.Error("Redis is still connected")
	}
}

// A request that does not end is ended.
func TestEndDoesNotWaitForEver(t *testing.T) {
	cfg := config{redisURL: testserver.Redis(t).URL(), redisTimeout: patient, drain: 100 * time.Millisecond, rates: smallRates()}
	a, err := newApp(t.Context(), cfg, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	begun := make(chan struct{})
	a.find = func(ctx context.Context, _ string, _ int) ([]string, error) {
		close(begun)
		<-ctx.Done()
		return nil, ctx.Err()
	}
	public, admin := listen(t), listen(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.run(ctx, public, admin) }()
	go func() {
		if resp, err := http.Get("http://" + public.Addr().String() + "/search"); err == nil {
			resp.Body.Close()
		}
	}()
	<-begun
	cancel()
	if err := <-ended; err == nil {
		t.Error("ended without saying that a request was cut off")
	}
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return listener
}

func TestConfig(t *testing.T) {
	from := func(env map[string]string) (config, error) {
		return configFrom(func(name string) string { return env[name] })
	}
	if _, err := from(nil); err != nil {
		t.Error("the defaults:", err)
	}
	c, err := from(map[string]string{"TRUSTED_PROXIES": " 10.0.0.7, 2001:db8::/32,", "CLIENT_PER_SECOND": "5", "CLIENT_BURST": "7", "ADMIN_ADDR": "[::1]:0"})
	if err != nil || fmt.Sprint(c.proxies) != "[10.0.0.7 2001:db8::/32]" || c.rates.client != ginlimit.PerSecond(5).WithBurst(7) {
		t.Errorf("%v, %v, %v", c.proxies, c.rates.client, err)
	}
	wrong := map[string]string{}
	for _, env := range [][2]string{
		{"ADDR", "8080"}, {"ADMIN_ADDR", ":8081"}, {"ADMIN_ADDR", "0.0.0.0:8081"}, {"ADMIN_ADDR", "192.0.2.1:8081"},
		{"TRUSTED_PROXIES", "proxy"}, {"TRUSTED_PROXIES", "10.0.0.7;10.0.0.8"}, {"TRUSTED_PROXIES", "0.0.0.0/0"}, {"TRUSTED_PROXIES", "10.0.0.7,::/0"},
		{"REDIS_TIMEOUT", "100"}, {"DRAIN", "soon"}, {"DRAIN", "0s"},
		{"CLIENT_PER_SECOND", "0"}, {"CLIENT_PER_SECOND", "many"}, {"CLIENT_BURST", "-1"}, {"CLIENT_BURST", "1e3"}, {"CLIENT_BURST", "9999999999999999"},
	} {
		if _, err := from(map[string]string{env[0]: env[1]}); err == nil || !strings.Contains(err.Error(), env[0]) {
			t.Errorf("%s=%s: %v", env[0], env[1], err)
		}
		wrong[env[0]] = env[1]
	}
	_, err = from(wrong)
	for name := range wrong {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("all that is wrong at once: %s is not in %v", name, err)
		}
	}
}

func TestStart(t *testing.T) {
	taken := listen(t)
	env := func(name, value string) func(string) string {
		return func(n string) string {
			return map[string]string{"ADDR": "127.0.0.1:0", "ADMIN_ADDR": "127.0.0.1:0", "REDIS_URL": "redis://127.0.0.1:1", name: value}[n]
		}
	}
	for name, value := range map[string]string{
		"ADDR":          taken.Addr().String(),
		"ADMIN_ADDR":    taken.Addr().String(),
		"REDIS_URL":     "http://127.0.0.1",
		"REDIS_TIMEOUT": "1h", // which redis.WithTimeout refuses
		"DRAIN":         "",
	} {
		ctx, cancel := context.WithCancel(t.Context())
		if name == "DRAIN" { // nothing wrong
			cancel()
		}
		err := start(ctx, env(name, value), io.Discard)
		cancel()
		if (err == nil) != (name == "DRAIN") {
			t.Errorf("%s=%s: %v", name, value, err)
		}
	}
}
