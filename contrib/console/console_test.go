package console_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/memory"
	"github.com/ginlimit/ginlimit/contrib/console"
)

func TestMain(m *testing.M) {
	gin.SetMode(gin.ReleaseMode)
	os.Exit(m.Run())
}

// request returns one of this machine, as a browser on it would send it.
func request(method, target, body string) *http.Request {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.RemoteAddr, r.Host = "127.0.0.1:50000", "localhost:8081"
	r.Header.Set("User-Agent", "Mozilla/5.0")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	return r
}

func answer(h http.Handler, r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func newLimiter(t *testing.T, limit ginlimit.Limit, opts ...ginlimit.Option) *ginlimit.Limiter {
	t.Helper()
	l, err := ginlimit.NewLimiter(limit, ginlimit.ByIP(), append(opts, ginlimit.WithLogger(slog.New(slog.DiscardHandler)))...)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestGuard says who may use the page.
func TestGuard(t *testing.T) {
	with := func(change func(*http.Request)) *http.Request {
		r := request(http.MethodGet, "/", "")
		change(r)
		return r
	}
	header := func(name, value string) *http.Request {
		return with(func(r *http.Request) { r.Header.Set(name, value) })
	}
	remote := func(addr string) *http.Request { return with(func(r *http.Request) { r.RemoteAddr = addr }) }
	host := func(host string) *http.Request { return with(func(r *http.Request) { r.Host = host }) }
	anybody := console.WithAuth(func(*http.Request) bool { return true })
	nobody := console.WithAuth(func(*http.Request) bool { return false })
	bare := httptest.NewRequest(http.MethodGet, "/", nil)
	bare.RemoteAddr, bare.Host = "127.0.0.1:1", "127.0.0.1:8081"
	named := bare.Clone(t.Context())
	named.Host = "service.example"
	for name, c := range map[string]struct {
		request *http.Request
		opts    []console.Option
		want    int
	}{
		"loopback":                {request: header("Accept", "*/*"), want: 200},
		"IPv6":                    {request: remote("[::1]:1"), want: 200},
		"mapped":                  {request: remote("[::ffff:127.0.0.1]:1"), want: 200},
		"the whole network":       {request: remote("127.9.9.9:1"), want: 200},
		"by address":              {request: host("127.0.0.1:8081"), want: 200},
		"by IPv6 address":         {request: host("[::1]:8081"), want: 200},
		"without a port":          {request: host("localhost"), want: 200},
		"a program":               {request: bare, want: 200},
		"a program, by a name":    {request: named, want: 200},
		"without a host":          {request: host(""), want: 403},
		"the unspecified address": {request: host("0.0.0.0:8081"), want: 403},
		"an IPv6 zone":            {request: remote("[fe80::1%lo]:1"), want: 403},
		"a link from elsewhere":   {request: header("Sec-Fetch-Site", "cross-site"), want: 200},
		"another machine":         {request: remote("192.0.2.1:1"), want: 403},
		"a private network":       {request: remote("10.0.0.1:1"), want: 403},
		"a Unix socket":           {request: remote("@"), want: 403},
		"no address":              {request: remote(""), want: 403},
		"X-Forwarded-For":         {request: header("X-Forwarded-For", "127.0.0.1"), want: 403},
		"an empty field":          {request: header("X-Forwarded-For", ""), want: 403},
		"Forwarded":               {request: header("Forwarded", "for=127.0.0.1"), want: 403},
		"X-Forwarded-Server":      {request: header("X-Forwarded-Server", "proxy"), want: 403},
		"X-Real-Ip":               {request: header("X-Real-IP", "127.0.0.1"), want: 403},
		"Via":                     {request: header("Via", "1.1 proxy"), want: 403},
		"another's name (rebind)": {request: host("attacker.example:8081"), want: 403},
		"localhost of another":    {request: host("localhost.attacker.example"), want: 403},
		"auth, another machine":   {request: remote("192.0.2.1:1"), opts: []console.Option{anybody}, want: 200},
		"auth, forwarded":         {request: header("X-Forwarded-For", "192.0.2.1"), opts: []console.Option{anybody}, want: 200},
		"auth refuses":            {request: header("Accept", "*/*"), opts: []console.Option{nobody}, want: 403},
	} {
		w := answer(console.New(nil, c.opts...), c.request)
		if w.Code != c.want {
			t.Errorf("%s: %d, want %d: %s", name, w.Code, c.want, w.Body)
		}
		for field, want := range map[string]string{
			"Content-Security-Policy": "default-src 'none'; script-src 'self';", "X-Content-Type-Options": "nosniff",
			"Referrer-Policy": "no-referrer", "Cache-Control": "no-store", "Cross-Origin-Resource-Policy": "same-origin",
		} {
			if got := w.Header().Get(field); !strings.HasPrefix(got, want) {
				t.Errorf("%s: %s is %q", name, field, got)
			}
		}
	}
}

// TestOtherSites lets none of them act, look up, or open the stream.
func TestOtherSites(t *testing.T) {
	l := newLimiter(t, ginlimit.PerHour(10))
	page := console.New([]*ginlimit.Limiter{l})
	charge(t, l, "ip:203.0.113.7", 4)
	for _, action := range []string{"reset", "ban", "unban", "lookup"} {
		for name, change := range map[string]func(*http.Request){
			"cross-site": func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") },
			"same-site":  func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-site") },
			"Origin": func(r *http.Request) {
				r.Header.Del("Sec-Fetch-Site")
				r.Header.Set("Origin", "http://attacker.example")
			},
			"null Origin": func(r *http.Request) { r.Header.Del("Sec-Fetch-Site"); r.Header.Set("Origin", "null") },
		} {
			r := request(http.MethodPost, "/"+action, `{"key":"ip:203.0.113.7","limiter":"default","for":"1h"}`)
			change(r)
			if w := answer(page, r); w.Code != http.StatusForbidden {
				t.Errorf("%s, %s: %d", action, name, w.Code)
			}
		}
		if w := answer(page, request(http.MethodGet, "/"+action, "")); w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "POST" {
			t.Errorf("GET %s: %d", action, w.Code)
		}
	}
	for _, path := range []string{"/events", "/console.js"} {
		r := request(http.MethodGet, path, "")
		r.Header.Set("Sec-Fetch-Site", "cross-site")
		if w := answer(page, r); w.Code != http.StatusForbidden {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	if n := used(t, l, "ip:203.0.113.7"); n != 4 {
		t.Errorf("%d are used", n)
	}
}

func charge(t *testing.T, l *ginlimit.Limiter, key string, n int64) {
	t.Helper()
	if _, err := l.Allow(t.Context(), key, n); err != nil {
		t.Fatal(err)
	}
}

func used(t *testing.T, l *ginlimit.Limiter, key string) int64 {
	t.Helper()
	all, err := l.Usage(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return all[0].Used()
}

// TestPaths serves the page, and each of its files, wherever it is mounted.
func TestPaths(t *testing.T) {
	page := console.New(nil)
	engine := gin.New()
	engine.Any("/ops/console/*page", gin.WrapH(page))
	mux := http.NewServeMux()
	mux.Handle("/deep/er/", http.StripPrefix("/deep/er", page))
	for prefix, h := range map[string]http.Handler{"/": page, "/ops/console/": engine, "/deep/er/": mux} {
		w := answer(h, request(http.MethodGet, prefix, ""))
		if w.Code != 200 || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/html") {
			t.Errorf("%s: %d, %s", prefix, w.Code, w.Header().Get("Content-Type"))
		}
		for file, kind := range map[string]string{"console.css": "text/css", "console.js": "text/javascript", "uplot/uPlot.min.css": "text/css",
			"uplot/uPlot.iife.min.js": "text/javascript", "uplot/LICENSE": "text/plain"} {
			w := answer(h, request(http.MethodGet, prefix+file, ""))
			if w.Code != 200 || !strings.HasPrefix(w.Header().Get("Content-Type"), kind) || w.Body.Len() < 100 {
				t.Errorf("%s%s: %d, %s", prefix, file, w.Code, w.Header().Get("Content-Type"))
			}
		}
		if w := answer(h, request(http.MethodGet, prefix+"nothing", "")); w.Code != http.StatusNotFound {
			t.Errorf("%snothing: %d", prefix, w.Code)
		}
		if w := answer(h, request(http.MethodPost, prefix, "")); w.Code != http.StatusMethodNotAllowed {
			t.Errorf("POST %s: %d", prefix, w.Code)
		}
	}
	w := answer(http.StripPrefix("/console", page), request(http.MethodGet, "/console", ""))
	if w.Code != http.StatusTemporaryRedirect || w.Header().Get("Location") != "./console/" {
		t.Errorf("without the slash: %d, %q", w.Code, w.Header().Get("Location"))
	}
	html := answer(page, request(http.MethodGet, "/", "")).Body.String()
	for _, inline := range []string{"<style", "style=", "onclick=", "onload=", "http:", "https:", "//"} {
		if strings.Contains(html, inline) {
			t.Errorf("the page has %q in it, which its policy refuses or which is elsewhere", inline)
		}
	}
}

// state is what a page is told.
type state struct {
	Keys, Actions bool
	Limiters      []struct {
		Name              string
		Observed, Watched bool
		DryRun            bool  `json:"dry_run"`
		InFlight          int64 `json:"in_flight"`
		Totals, Answers   map[string]uint64
	}
	Limits []struct {
		Limiter, Tier string
		Limits        []string
	}
	Refused, Admitted, Near, Bans []row
	Breakers                      []struct {
		Store, Server string
		Open          bool
	}
}

type row struct {
	Limiter, Tier, ID, Key string
	Remaining, Capacity    int64
	Ban                    float64
}

// events opens a stream, and returns what the next message says.
func events(t *testing.T, url string) (next func() state, end func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if got := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || got != "text/event-stream" {
		t.Fatal(resp.Status, got)
	}
	lines := bufio.NewReader(resp.Body)
	return func() (s state) {
			line, err := lines.ReadString('\n')
			if err == nil {
				err = json.Unmarshal([]byte(strings.TrimPrefix(line, "data: ")), &s)
			}
			if _, err2 := lines.ReadString('\n'); err != nil || err2 != nil {
				t.Fatal(line, err, err2)
			}
			return s
		}, func() {
			cancel()
			_ = resp.Body.Close()
		}
}

// serve serves a page until the test ends.
func serve(t *testing.T, page *console.Console) string {
	t.Helper()
	server := httptest.NewServer(page)
	t.Cleanup(func() { page.Close(); server.Close() })
	return server.URL
}

// now returns what a new page is told.
func now(t *testing.T, page *console.Console) state {
	t.Helper()
	next, end := events(t, serve(t, page)+"/events")
	defer end()
	return next()
}

// TestState shows what Observe was told, and what the limiters say.
func TestState(t *testing.T) {
	open := true
	page := console.New(nil, console.WithKeys(true), console.WithBreakers("redis", func() map[string]bool {
		return map[string]bool{"10.0.0.1:6379": open, "10.0.0.2:6379": false}
	}))
	observe := ginlimit.WithObserver(page.Observe)
	window := ginlimit.PerHour(10).WithAlgorithm(ginlimit.FixedWindow)
	api := newLimiter(t, window, observe, ginlimit.WithName("api"), ginlimit.WithBan(ginlimit.PerHour(2), time.Hour, time.Hour))
	trial := newLimiter(t, window, observe, ginlimit.WithName("trial"), ginlimit.WithDryRun(true))
	flight := newLimiter(t, ginlimit.InFlight(5), observe, ginlimit.WithName("flight"))
	silent := newLimiter(t, ginlimit.PerMinute(7), ginlimit.WithName("silent"))
	page.Watch(api, trial, flight, silent)
	ctx := t.Context()
	for range 9 {
		charge(t, api, "ip:near", 1)
	}
	for range 12 {
		charge(t, api, "ip:denied", 1)
		charge(t, trial, "ip:tried", 1)
	}
	for range 14 {
		charge(t, api, "ip:banned", 1)
	}
	charge(t, api, "ip:few", 1)
	_, _ = api.Allow(ctx, "", 1)
	_, _ = api.Allow(ctx, "ip:few", -1)
	r := gin.New()
	r.SetTrustedProxies(nil)
	var s state
	r.GET("/", flight.Handle, func(*gin.Context) { s = now(t, page) })
	r.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))

	if !s.Keys || !s.Actions {
		t.Errorf("%+v", s)
	}
	want := map[string]map[string]uint64{
		"api":    {"allowed": 30, "denied": 4, "banned": 2, "no_key": 1, "bad_cost": 1},
		"trial":  {"allowed": 10, "dry_run_denied": 2},
		"flight": {"allowed": 1},
		"silent": {},
	}
	for _, l := range s.Limiters {
		if fmt.Sprint(l.Totals) != fmt.Sprint(want[l.Name]) {
			t.Errorf("%s: %v, want %v", l.Name, l.Totals, want[l.Name])
		}
		if l.Observed != (l.Name != "silent") || !l.Watched || l.DryRun != (l.Name == "trial") || (l.InFlight == 1) != (l.Name == "flight") {
			t.Errorf("%+v", l)
		}
	}
	keys := func(rows []row) string {
		var all []string
		for _, r := range rows {
			all = append(all, r.Limiter+" "+r.Key)
		}
		slices.Sort(all)
		return strings.Join(all, ", ")
	}
	if len(s.Limiters) != len(want) || keys(s.Refused) != "api ip:banned, api ip:denied, trial ip:tried" ||
		keys(s.Near) != "api ip:banned, api ip:denied, api ip:near, trial ip:tried" || keys(s.Bans) != "api ip:banned" {
		t.Errorf("refused %s; near %s; banned %s", keys(s.Refused), keys(s.Near), keys(s.Bans))
	}
	if s.Refused[0].Key != "ip:banned" || s.Refused[0].Ban <= 0 || s.Bans[0].Ban < 3000 {
		t.Errorf("%+v, %+v", s.Refused[0], s.Bans)
	}
	if len(s.Breakers) != 2 || !s.Breakers[0].Open || s.Breakers[1].Open || s.Breakers[0].Server != "10.0.0.1:6379" {
		t.Errorf("%+v", s.Breakers)
	}
	if got := fmt.Sprint(s.Limits); got != "[{api  [10/h fixed-window]} {flight  [5 in flight]} {silent  [7/m]} {trial  [10/h fixed-window]}]" {
		t.Error(got)
	}

	if err := api.Reset(ctx, "ip:banned"); err != nil { // elsewhere: the page hears of it when the caller is back
		t.Fatal(err)
	}
	charge(t, api, "ip:banned", 1)
	if s := now(t, page); len(s.Bans) != 0 {
		t.Errorf("after a reset: %+v", s.Bans)
	}
}

// TestAnswers shows who decided.
func TestAnswers(t *testing.T) {
	page := console.New(nil)
	l := newLimiter(t, ginlimit.PerHour(10), ginlimit.WithObserver(page.Observe), ginlimit.WithName("api"),
		ginlimit.WithBackend(backend.Fallback(down{memory.New()}, memory.New())))
	charge(t, l, "a", 1)
	s := now(t, page)
	if len(s.Limiters) != 1 || s.Limiters[0].Watched || s.Limiters[0].Answers["fallback"] != 1 {
		t.Errorf("%+v", s.Limiters)
	}
}

// down is a store that does not answer.
type down struct{ *memory.Backend }

func (down) Take(context.Context, string, int64, ...ginlimit.Limit) (ginlimit.Result, error) {
	return ginlimit.Result{}, backend.ErrUnavailable
}

func (down) Usage(context.Context, string, ...ginlimit.Limit) ([]ginlimit.Result, error) {
	return nil, fmt.Errorf("test: secret-key: %w", backend.ErrUnavailable)
}

// said is the answer to an action.
type said struct {
	Error, Done, Caller string
	Limiters            []struct {
		Limiter, Tier, Error string
		Ban                  float64
		Limits               []struct {
			Limit                     string
			Used, Remaining, Capacity int64
			Reset                     float64
		}
	}
}

func ask(t *testing.T, page *console.Console, action, question string) (code int, s said) {
	t.Helper()
	w := answer(page, request(http.MethodPost, "/"+action, question))
	if err := json.Unmarshal(w.Body.Bytes(), &s); err != nil {
		t.Fatal(err, w.Body)
	}
	return w.Code, s
}

func quote(s string) string {
	q, _ := json.Marshal(s)
	return string(q)
}

// TestActions looks callers up, resets, bans and unbans them, by their key and by the hash that is
// shown.
func TestActions(t *testing.T) {
	page := console.New(nil)
	observe := ginlimit.WithObserver(page.Observe)
	api := newLimiter(t, ginlimit.PerHour(10), observe, ginlimit.WithName("api"), ginlimit.WithLimits(ginlimit.PerDay(100)))
	login := newLimiter(t, ginlimit.PerHour(5), observe, ginlimit.WithName("login"))
	page.Watch(api, login)
	const key = "ip:203.0.113.7"
	charge(t, api, key, 4)
	charge(t, login, key, 6)

	code, s := ask(t, page, "lookup", `{"key":"`+key+`"}`)
	if code != 200 || s.Caller != key || len(s.Limiters) != 2 || len(s.Limiters[0].Limits) != 2 || s.Limiters[0].Limits[0].Used != 4 ||
		s.Limiters[0].Limits[1].Remaining != 96 || s.Limiters[1].Limits[0].Remaining != 5 {
		t.Fatalf("%d, %+v", code, s)
	}

	rows := now(t, page).Refused
	if len(rows) != 1 || rows[0].Key != "#"+rows[0].ID || strings.Contains(fmt.Sprint(rows), "203.0.113.7") {
		t.Fatalf("%+v", rows)
	}
	byID := `{"id":` + quote(rows[0].ID) + `,"for":"90m"`
	if code, s := ask(t, page, "lookup", byID+`}`); code != 200 || s.Caller != rows[0].Key || len(s.Limiters) != 1 || s.Limiters[0].Limiter != "login" {
		t.Errorf("%d, %+v", code, s)
	}
	if code, s := ask(t, page, "ban", byID+`}`); code != 200 || s.Done != "is banned for 1h30m0s" {
		t.Errorf("%d, %+v", code, s)
	}
	if d, _ := login.Peek(t.Context(), key); !d.Banned {
		t.Error("not banned")
	}
	if _, s := ask(t, page, "lookup", byID+`}`); s.Limiters[0].Ban < 5000 || s.Limiters[0].Ban > 5400 {
		t.Errorf("%+v", s)
	}
	charge(t, login, key, 1) // refused by the ban
	if bans := now(t, page).Bans; len(bans) != 1 || bans[0].ID != rows[0].ID {
		t.Errorf("%+v", bans)
	}
	if code, s := ask(t, page, "unban", byID+`}`); code != 200 || !strings.Contains(s.Done, "not banned") {
		t.Errorf("%d, %+v", code, s)
	}
	if d, _ := login.Peek(t.Context(), key); d.Banned || d.Remaining != 5 {
		t.Errorf("%+v", d)
	}
	if bans := now(t, page).Bans; len(bans) != 0 {
		t.Errorf("%+v", bans)
	}
	if code, _ := ask(t, page, "reset", `{"key":"`+key+`","limiter":"api"}`); code != 200 || used(t, api, key) != 0 {
		t.Errorf("%d, %d are used", code, used(t, api, key))
	}
	if n := now(t, page).Limiters[0].Totals; n["allowed"] != 1 { // none of this was a decision
		t.Errorf("%v", n)
	}

	for question, want := range map[string]int{
		`{"key":""}`: 400, `{"key":"a","limiter":"api"}`: 400, `{"key":"a","limiter":"api","for":"-1h"}`: 400, `{"key":"a","limiter":"api","for":"x"}`: 400,
		`{"key":"a","limiter":"other","for":"1h"}`: 404, `{"id":"0123","for":"1h"}`: 404, `{"key":"a","for":"1h"}`: 400, `[`: 400, ``: 400,
		`{"key":"a","limiter":"api","for":"20000h"}`: 400, `{"key":"a","limiter":"api","for":"1ns"}`: 400, `{"key":"a","limiter":"api","for":"1.0000001s"}`: 400,
		byID + `0"}`: 400, `{"key":"` + strings.Repeat("k", 100_000) + `","limiter":"api","for":"1h"}`: 400,
	} {
		if code, s := ask(t, page, "ban", question); code != want || !strings.HasPrefix(s.Error, "ginlimit: ") {
			t.Errorf("%.50s: %d, %+v, want %d", question, code, s, want)
		}
	}
	reading := console.New([]*ginlimit.Limiter{api}, console.WithActions(false))
	for _, action := range []string{"reset", "ban", "unban"} {
		if code, s := ask(t, reading, action, `{"key":"a","limiter":"api","for":"1h"}`); code != 403 || s.Error == "" {
			t.Errorf("%s: %d, %+v", action, code, s)
		}
	}
	if code, _ := ask(t, reading, "lookup", `{"key":"a"}`); code != 200 || now(t, reading).Actions {
		t.Error("a page that reads only does not read, or says that it acts")
	}
}

// TestLookUpOfABan says how long a ban lasts, whatever the limits wait for.
func TestLookUpOfABan(t *testing.T) {
	for name, limit := range map[string]ginlimit.Limit{"spent": ginlimit.PerDay(1), "blocked": ginlimit.PerMinute(0), "unlimited": ginlimit.Unlimited()} {
		l := newLimiter(t, limit, ginlimit.WithBan(ginlimit.PerDay(10), time.Hour, time.Hour))
		page := console.New([]*ginlimit.Limiter{l})
		charge(t, l, "a", 1)
		ask(t, page, "ban", `{"key":"a","limiter":"default","for":"1m"}`)
		if code, s := ask(t, page, "lookup", `{"key":"a"}`); code != 200 || s.Limiters[0].Ban <= 0 || s.Limiters[0].Ban > 60 {
			t.Errorf("%s: %d, %+v", name, code, s)
		}
	}
}

// TestUnbanOfMany lifts a ban of a limiter that is counted among the others.
func TestUnbanOfMany(t *testing.T) {
	l := newLimiter(t, ginlimit.PerHour(10), ginlimit.WithName("late"))
	page := console.New([]*ginlimit.Limiter{l}, console.WithKeys(true))
	for i := range 100 {
		page.Observe(t.Context(), ginlimit.Decision{Limiter: fmt.Sprint("l", i), Key: "a", Cost: 1})
	}
	for _, action := range []string{"ban", "unban"} {
		if code, s := ask(t, page, action, `{"key":"a","limiter":"late","for":"1h"}`); code != 200 {
			t.Fatalf("%s: %d, %+v", action, code, s)
		}
		if bans := now(t, page).Bans; (len(bans) == 1) != (action == "ban") {
			t.Errorf("after %s there are the bans %+v", action, bans)
		}
	}
}

// TestShortBan shows a ban that is shorter than the limit's wait until a limit alone refuses.
func TestShortBan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		page := console.New(nil)
		l := newLimiter(t, ginlimit.PerDay(1), ginlimit.WithBan(ginlimit.PerDay(1), time.Minute, time.Hour), ginlimit.WithObserver(page.Observe))
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		for i, want := range []int{0, 0, 1, 0} {
			if i == 3 {
				time.Sleep(time.Minute)
			}
			charge(t, l, "ip:203.0.113.7", 1)
			message := answer(page, request(http.MethodGet, "/events", "").WithContext(gone)).Body.String()
			var s state
			if err := json.Unmarshal([]byte(strings.TrimPrefix(message, "data: ")), &s); err != nil {
				t.Fatal(err, message)
			}
			if len(s.Bans) != want {
				t.Errorf("after %d requests there are the bans %+v, want %d", i+1, s.Bans, want)
			}
		}
	})
}

// TestTiers looks a caller up in its own tier, if a decision told it, and otherwise in all.
func TestTiers(t *testing.T) {
	page := console.New(nil, console.WithKeys(true))
	l := newLimiter(t, ginlimit.PerHour(10), ginlimit.WithObserver(page.Observe), ginlimit.WithTier(func(c *gin.Context) (ginlimit.Tier, error) {
		if c.Query("tier") == "" {
			return ginlimit.Tier{}, nil
		}
		return ginlimit.Tier{Name: c.Query("tier"), Limits: []ginlimit.Limit{ginlimit.PerHour(1000)}}, nil
	}))
	page.Watch(l)
	look := func(question, want string) {
		t.Helper()
		_, s := ask(t, page, "lookup", question)
		var got []string
		for _, l := range s.Limiters {
			got = append(got, fmt.Sprintf("%s %s %d/%d", l.Tier, l.Error, l.Limits[0].Used, l.Limits[0].Capacity))
		}
		if strings.Join(got, ", ") != want {
			t.Errorf("%s: %q, want %q", question, got, want)
		}
	}
	look(`{"key":"ip:203.0.113.7"}`, "  0/10") // no tier was seen
	r := gin.New()
	r.SetTrustedProxies(nil)
	r.GET("/", l.Handle)
	for _, target := range []string{"/", "/?tier=pro"} {
		req := httptest.NewRequest(http.MethodGet, target, nil)
		if req.RemoteAddr = "203.0.113.7:1"; target == "/" {
			req.RemoteAddr = "203.0.113.8:1"
		}
		r.ServeHTTP(httptest.NewRecorder(), req)
	}
	look(`{"key":"ip:203.0.113.7"}`, "  1/10, pro  1/1000")
	for _, row := range now(t, page).Admitted {
		if row.Tier == "pro" {
			look(`{"id":`+quote(row.ID)+`}`, "pro  1/1000")
		}
	}
}

// TestErrors shows what a store says only where no key may be in it that is hidden.
func TestErrors(t *testing.T) {
	page := console.New(nil)
	l := newLimiter(t, ginlimit.PerHour(1), ginlimit.WithObserver(page.Observe), ginlimit.WithName("api"), ginlimit.WithBackend(noUsage{memory.New()}))
	page.Watch(l)
	charge(t, l, "secret-key", 1)
	_, s := ask(t, page, "lookup", `{"key":"secret-key"}`)
	if !strings.Contains(s.Limiters[0].Error, "test: secret-key: ginlimit: backend unavailable") {
		t.Errorf("%+v", s)
	}
	_, s = ask(t, page, "lookup", `{"id":`+quote(now(t, page).Admitted[0].ID)+`}`)
	if got := s.Limiters[0].Error; !strings.Contains(got, "unavailable") || strings.Contains(got, "secret") {
		t.Errorf("%+v", s)
	}
}

// noUsage is a store that cannot say what was used.
type noUsage struct{ *memory.Backend }

func (noUsage) Usage(ctx context.Context, key string, limits ...ginlimit.Limit) ([]ginlimit.Result, error) {
	return down{}.Usage(ctx, key, limits...)
}

// TestHostile writes out what a key could mislead with, and cuts what is long.
func TestHostile(t *testing.T) {
	page := console.New(nil, console.WithKeys(true))
	for key, want := range map[string]string{
		"<script>alert(1)</script>": "<script>alert(1)</script>", "a\u202eb": `a\u202eb`, "a\x00\n\u200bb": `a\x00\n\u200bb`, "שלום": "שלום", `"`: `"`,
		"\xff": `\xff`, strings.Repeat("x", 10_000): strings.Repeat("x", 96) + "…", strings.Repeat("é", 100): strings.Repeat("é", 48) + "…",
		strings.Repeat("x", 95) + "é": strings.Repeat("x", 95) + `\xc3…`,
	} {
		l := newLimiter(t, ginlimit.PerHour(1), ginlimit.WithObserver(page.Observe), ginlimit.WithName("l"+fmt.Sprint(len(key)+len(want))))
		charge(t, l, key, 1)
		found := false
		for _, row := range now(t, page).Admitted {
			found = found || row.Key == want && (row.ID == "") == strings.HasSuffix(want, "…")
		}
		if !found {
			t.Errorf("%.20q is not shown as %q", key, want)
		}
	}
}

// TestStream goes on for longer than the server's WriteTimeout, ends with the request and with
// Close, and leaves no goroutine.
func TestStream(t *testing.T) {
	page := console.New(nil)
	engine := gin.New()
	engine.Any("/console/*page", gin.WrapH(page))
	server := httptest.NewUnstartedServer(engine)
	server.Config.WriteTimeout = 500 * time.Millisecond
	server.Start()
	defer server.Close()
	before := runtime.NumGoroutine()
	next, end := events(t, server.URL+"/console/events")
	for range 4 { // three seconds
		next()
	}
	end()
	http.DefaultClient.CloseIdleConnections()
	for began := time.Now(); runtime.NumGoroutine() > before; time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > time.Minute {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}

	var ends []func()
	for range 16 {
		next, end := events(t, server.URL+"/console/events")
		next()
		ends = append(ends, end)
	}
	resp, err := http.Get(server.URL + "/console/events")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
		t.Errorf("one page too many: %s", resp.Status)
	}
	for _, end := range ends {
		end()
	}

	server.Config.RegisterOnShutdown(page.Close)
	var open *http.Response
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) { // until the places are free
		if open, err = http.Get(server.URL + "/console/events"); err != nil {
			t.Fatal(err)
		}
		if open.StatusCode == http.StatusOK {
			break
		}
		_ = open.Body.Close()
		if time.Since(began) > time.Minute {
			t.Fatal("no place is given back")
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := server.Config.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	if _, err := io.Copy(io.Discard, open.Body); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	_ = open.Body.Close()
	page.Close()
}

// TestStreamEnds asks WithAuth again after some minutes, and sends a message each second until then.
func TestStreamEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		w := answer(console.New(nil), request(http.MethodGet, "/events", ""))
		if n := strings.Count(w.Body.String(), "data: {"); time.Since(began) != 5*time.Minute || n != 300 && n != 301 {
			t.Errorf("%d messages in %v", n, time.Since(began))
		}
	})
}

// TestNotLimited mounts the page in the engine whose limiter it shows: in front of the limiter, or
// behind one that skips it.
func TestNotLimited(t *testing.T) {
	page := console.New(nil)
	l := newLimiter(t, ginlimit.PerHour(3), ginlimit.WithObserver(page.Observe), ginlimit.WithSkip(func(c *gin.Context) bool {
		return strings.HasPrefix(c.FullPath(), "/ops/console/")
	}))
	page.Watch(l)
	r := gin.New()
	r.SetTrustedProxies(nil)
	r.Any("/console/*page", gin.WrapH(page)) // before the limiter
	r.Use(l.Handle)
	r.Any("/ops/console/*page", gin.WrapH(page))
	for range 10 {
		for _, path := range []string{"/console/", "/console/console.js", "/ops/console/", "/ops/console/console.js"} {
			if w := answer(r, request(http.MethodGet, path, "")); w.Code != 200 {
				t.Fatal(path, w.Code)
			}
		}
		if w := answer(r, request(http.MethodPost, "/console/lookup", `{"key":"ip:127.0.0.1"}`)); w.Code != 200 {
			t.Fatal(w.Code)
		}
	}
	if n := used(t, l, "ip:127.0.0.1"); n != 0 || now(t, page).Limiters[0].Observed {
		t.Errorf("%d are used", n)
	}
}

// TestMisuse panics where an option is wrong.
func TestMisuse(t *testing.T) {
	l := newLimiter(t, ginlimit.PerHour(1))
	redis := console.WithBreakers("redis", func() map[string]bool { return nil })
	for name, misuse := range map[string]func(){
		"a nil option":    func() { console.New(nil, nil) },
		"a nil limiter":   func() { console.New([]*ginlimit.Limiter{nil}) },
		"a limiter twice": func() { console.New([]*ginlimit.Limiter{l}).Watch(l) },
		"no function":     func() { console.New(nil, console.WithAuth(nil)) },
		"no store":        func() { console.New(nil, console.WithBreakers("", nil)) },
		"a store twice":   func() { console.New(nil, redis, redis) },
	} {
		func() {
			defer func() {
				if err, ok := recover().(error); !ok || !strings.HasPrefix(err.Error(), "ginlimit: ") {
					t.Errorf("%s: %v", name, err)
				}
			}()
			misuse()
		}()
	}
}
