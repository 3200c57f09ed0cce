package browser_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/gin-gonic/gin"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/contrib/console"
	"github.com/ginlimit/ginlimit/contrib/console/browser/internal/chrome"
)

func TestMain(m *testing.M) {
	gin.SetMode(gin.ReleaseMode)
	os.Exit(m.Run())
}

// patience is for machines that are busy.
const patience = time.Minute

// page is a page that is open in a browser.
type page struct {
	t   *testing.T
	tab context.Context
	url string

	mu       sync.Mutex
	requests []string // addresses that the browser asked for
	problems []string // exceptions, and what the browser wrote into its console
}

// open opens an address in a browser of its own.
func open(t *testing.T, url string, before ...chromedp.Action[chromedp.Void]) *page {
	t.Helper()
	path := chrome.Find()
	if path == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("there is no Chromium")
		}
		t.Skip("this test needs Chromium (apt-get install chromium)")
	}
	tab, stop, err := chrome.Start(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	p := &page{t: t, tab: tab, url: url}
	if err := chromedp.Listen(tab, p.note); err != nil {
		t.Fatal(err)
	}
	p.run(append(before, chromedp.Navigate(url))...)
	return p
}

func (p *page) note(event any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		p.requests = append(p.requests, e.Request.URL)
	case *runtime.EventExceptionThrown:
		p.problems = append(p.problems, e.ExceptionDetails.Text)
	case *log.EventEntryAdded:
		p.problems = append(p.problems, e.Entry.Text)
	}
}

func (p *page) run(actions ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.tab, 2*patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		p.t.Fatal(err)
	}
}

// until waits until an expression is true.
func (p *page) until(expression string, args ...any) {
	p.t.Helper()
	expression = fmt.Sprintf(expression, args...)
	ctx, cancel := context.WithTimeout(p.tab, 2*patience)
	defer cancel()
	poll := "(() => { try { return " + expression + "; } catch { return false; } })()" // what is asked for may not be there yet
	if _, err := chromedp.Run(ctx, chromedp.Poll[chromedp.Void](poll, chromedp.WithPollingTimeout(patience))); err != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.t.Fatalf("%s: %v\nthe browser says: %q\nthe page says:\n%s", expression, err, p.problems, p.text())
	}
}

// text returns what the page says.
func (p *page) text() string {
	p.t.Helper()
	return get[string](p, "document.body.innerText")
}

// get returns what an expression says.
func get[T any](p *page, expression string) T {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.tab, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		p.t.Error(err)
	}
	return v
}

func do(format string, args ...any) chromedp.Action[chromedp.Void] {
	return chromedp.Evaluate[chromedp.Void](fmt.Sprintf(format, args...))
}

// quiet fails the test if the browser had something to say, or asked for what is elsewhere.
func (p *page) quiet() {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, problem := range p.problems {
		p.t.Error("the browser says:", problem)
	}
	if len(p.requests) < 5 {
		p.t.Error("the browser asked for", p.requests)
	}
	for _, url := range p.requests {
		if !strings.HasPrefix(url, p.url) && !strings.HasPrefix(url, "data:") {
			p.t.Error("the page fetches", url)
		}
	}
}

// service is an application with a limiter, and its console under /console/.
type service struct {
	*httptest.Server
	limiter *ginlimit.Limiter
}

func (s *service) console() string { return s.URL + "/console/" }

func serve(t *testing.T, opts ...console.Option) *service {
	t.Helper()
	view := console.New(nil, opts...)
	// The keys are the users. Nothing comes back while the test runs.
	limiter, err := ginlimit.NewLimiter(ginlimit.Per(10, 100*time.Hour), ginlimit.ByUserID("user"),
		ginlimit.WithName("api"), ginlimit.WithObserver(view.Observe))
	if err != nil {
		t.Fatal(err)
	}
	view.Watch(limiter)
	r := gin.New()
	r.SetTrustedProxies(nil)
	r.Any("/console/*page", gin.WrapH(view)) // before the limiter
	r.Use(func(c *gin.Context) { c.Set("user", c.GetHeader("X-User")) }, limiter.Handle)
	r.GET("/", func(c *gin.Context) { c.String(http.StatusOK, "ok") })
	s := &service{httptest.NewServer(r), limiter}
	t.Cleanup(func() { view.Close(); s.Close() })
	return s
}

// charge sends n requests of a user.
func (s *service) charge(t *testing.T, user string, n int) {
	t.Helper()
	for range n {
		if _, err := s.limiter.Allow(t.Context(), "user:"+user, 1); err != nil {
			t.Fatal(err)
		}
	}
}

// used returns what a user has used.
func (s *service) used(t *testing.T, user string) int64 {
	t.Helper()
	all, err := s.limiter.Usage(t.Context(), "user:"+user)
	if err != nil {
		t.Fatal(err)
	}
	return all[0].Used()
}

func TestNumbersMove(t *testing.T) {
	s := serve(t)
	p := open(t, s.console())
	p.until(`document.querySelector("#status").textContent === "Live"`)
	stop := make(chan struct{})
	var load sync.WaitGroup
	load.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
				req, _ := http.NewRequest(http.MethodGet, s.URL, nil)
				req.Header.Set("X-User", "greedy")
				if resp, err := http.DefaultClient.Do(req); err == nil {
					_ = resp.Body.Close()
				}
			}
		}
	})
	defer load.Wait()
	defer close(stop)
	// The columns are the limiter, allowed, denied, banned, in flight, and all.
	const column = `Number(document.querySelector("#limiters tr[data-limiter=api] td:nth-of-type(%d)").textContent.replaceAll(",", ""))`
	p.until(column+" > 0", 2)
	p.until(column+" > 20", 5)
	p.run(do("window.before = "+column, 5))
	p.until(column+" > window.before", 5)
	p.until(`document.querySelector("#refused").textContent.includes("api")`)
	p.until(`document.querySelector("#limits").textContent.includes("10/100h")`)
	p.until(`series.get("")[2].some(n => n > 0)`) // the chart's refusals
	if strings.Contains(p.text(), "greedy") {
		t.Error("a key is shown")
	}

	p.run(chromedp.Click(chromedp.CSS("#pause")))
	p.until(`document.querySelector("#status").textContent === "Paused"`)
	p.run(do("window.before = "+column, 5), do(`window.length = series.get("")[0].at(-1)`))
	p.until(`series.get("")[0].at(-1) > window.length + 1`) // it goes on to listen
	if !get[bool](p, fmt.Sprintf("window.before === "+column, 5)) {
		t.Error("numbers move while the page pauses")
	}
	p.run(chromedp.Click(chromedp.CSS("#pause")))
	p.until(column+" > window.before", 5)
	p.quiet()
}

// TestComesBack loses the process, finds a proxy that answers in its place, and then the process.
func TestComesBack(t *testing.T) {
	var down atomic.Bool
	view := console.New(nil)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if down.Load() {
			http.Error(w, "bad gateway", http.StatusBadGateway)
			return
		}
		view.ServeHTTP(w, r)
	}))
	defer server.Close()
	defer view.Close()
	p := open(t, server.URL+"/")
	const live = `document.querySelector("#status").textContent === "Live"`
	p.until(live)
	down.Store(true)
	server.CloseClientConnections()
	p.until(`document.querySelector("#status").textContent.includes("Trying again")`)
	down.Store(false)
	p.until(live)
}

// deaf is a connection that takes what is written, and delivers none of it once it is dead.
type deaf struct {
	http.ResponseWriter
	dead *atomic.Bool
}

func (d deaf) Write(p []byte) (int, error) {
	if d.dead.Load() {
		return len(p), nil
	}
	return d.ResponseWriter.Write(p)
}

func (d deaf) Unwrap() http.ResponseWriter { return d.ResponseWriter }

// TestDeadConnection has a stream that nobody ends, and in which nothing comes any more.
func TestDeadConnection(t *testing.T) {
	var streams atomic.Int32
	var dead atomic.Bool // the first stream
	view := console.New(nil)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/events") && streams.Add(1) == 1 {
			w = deaf{w, &dead}
		}
		view.ServeHTTP(w, r)
	}))
	defer server.Close()
	defer view.Close()
	p := open(t, server.URL+"/")
	p.until(`document.querySelector("#status").textContent === "Live"`)
	p.run(do(`window.said = []; new MutationObserver(() => window.said.push(document.querySelector("#status").textContent))
		.observe(document.querySelector("#status"), { childList: true, characterData: true, subtree: true })`))
	dead.Store(true)
	p.until(`window.said.some(text => text.includes("does not answer")) && document.querySelector("#status").textContent === "Live"`)
	if streams.Load() < 2 {
		t.Error("the page did not ask anew")
	}
	p.quiet()
}

// TestPauseWithoutProcess presses Pause twice while there is no process: that makes nothing live.
func TestPauseWithoutProcess(t *testing.T) {
	view := console.New(nil)
	server := httptest.NewServer(view)
	p := open(t, server.URL+"/")
	p.until(`document.querySelector("#status").textContent === "Live"`)
	view.Close()
	server.Close()
	p.until(`document.querySelector("#status").textContent.includes("does not answer")`)
	p.run(chromedp.Click(chromedp.CSS("#pause")), chromedp.Click(chromedp.CSS("#pause")))
	if text := p.text(); !strings.Contains(text, "does not answer") || strings.Contains(text, "NaN") {
		t.Errorf("the page says %q", text)
	}
}

// TestAnotherProcess has another process answer, as after a restart or behind a load balancer.
func TestAnotherProcess(t *testing.T) {
	var other atomic.Bool
	view := func(name string) *console.Console {
		c := console.New(nil)
		l, err := ginlimit.NewLimiter(ginlimit.PerHour(1), ginlimit.Global(), ginlimit.WithName(name), ginlimit.WithObserver(c.Observe))
		if err != nil {
			t.Fatal(err)
		}
		c.Watch(l)
		return c
	}
	first := view("first")
	time.Sleep(2 * time.Millisecond) // processes are told apart by when they started
	second := view("second")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if other.Load() {
			second.ServeHTTP(w, r)
			return
		}
		first.ServeHTTP(w, r)
	}))
	defer server.Close()
	defer second.Close()
	p := open(t, server.URL+"/")
	p.until(`series.has("first") && document.querySelector("#charted").options.length === 2`)
	p.run(do(`const select = document.querySelector("#charted"); select.value = "first"; select.dispatchEvent(new Event("change"))`))
	other.Store(true)
	first.Close()
	p.until(`series.has("second") && document.querySelector("#limiters").textContent.includes("second")`)
	if !get[bool](p, `!series.has("first") && charted === ""`) {
		t.Error("the chart has the seconds of two processes")
	}
	p.quiet()
}

// TestMenu opens the menu of the right button, whose press has no release.
func TestMenu(t *testing.T) {
	s := serve(t)
	p := open(t, s.console())
	p.until(`document.querySelector("#status").textContent === "Live"`)
	p.run(do(`document.body.dispatchEvent(new PointerEvent("pointerdown", { bubbles: true, button: 2 }));
		document.body.dispatchEvent(new MouseEvent("contextmenu", { bubbles: true, button: 2 }))`))
	s.charge(t, "alice", 12)
	p.until(`document.querySelector("#refused").textContent.includes("api")`)
	p.quiet()
}

// TestOperate looks a caller up by its row, and by its key, and resets and bans it: with the
// keyboard alone.
func TestOperate(t *testing.T) {
	s := serve(t)
	s.charge(t, "alice", 12)
	p := open(t, s.console())
	p.until(`document.querySelector("#refused button") !== null`)
	p.run(do(`document.querySelector("#refused button").focus()`), chromedp.KeyEvent(kb.Enter))
	p.until(`document.querySelector("#result").textContent.includes("0 of 10")`)
	if strings.Contains(p.text(), "alice") {
		t.Error("the key of a hash is shown")
	}
	press := func(act string) {
		p.run(do(`document.querySelector("[data-act='%s api']").focus()`, act), chromedp.KeyEvent(kb.Enter))
	}
	press("reset")
	p.until(`document.querySelector("#result").textContent.includes("10 of 10")`)
	if n := s.used(t, "alice"); n != 0 {
		t.Errorf("%d are used after a reset", n)
	}

	p.run(chromedp.Focus(chromedp.CSS("#key")), chromedp.KeyEvent("user:bob"), chromedp.KeyEvent(kb.Enter))
	p.until(`document.querySelector("#result").textContent.includes("user:bob")`)
	press("ban")
	p.until(`document.querySelector("#result").textContent.includes("banned for 60 s")`)
	if d, err := s.limiter.Allow(t.Context(), "user:bob", 1); err != nil || !d.Banned {
		t.Errorf("bob is not banned: %+v, %v", d, err)
	}
	p.until(`document.querySelectorAll("#bans button").length === 1`)
	press("unban")
	p.until(`document.querySelector("#result").textContent.includes("not banned")`)
	if d, err := s.limiter.Allow(t.Context(), "user:bob", 1); err != nil || !d.Allowed {
		t.Errorf("bob is banned: %+v, %v", d, err)
	}
	p.until(`document.querySelectorAll("#bans button").length === 0`)
	p.quiet()
}

// TestHostileKeys shows keys that try to be more than text.
func TestHostileKeys(t *testing.T) {
	s := serve(t, console.WithKeys(true))
	keys := []string{
		`<script>window.hacked = 1</script>`, `<img src=x onerror="window.hacked = 2">`, `"><svg onload=window.hacked=3>`,
		"&lt;b&gt;", "\u202egnp.exe", "a\u200bb\x00c\nd", "שלום", "\xff\xfe", "${window.hacked=4}", strings.Repeat("long", 2500),
	}
	for _, key := range keys {
		s.charge(t, key, 15)
	}
	p := open(t, s.console())
	p.until(`document.querySelectorAll("#refused th").length === %d`, len(keys))
	text := p.text()
	for _, want := range []string{
		`user:<script>window.hacked = 1</script>`, `user:<img src=x onerror="window.hacked = 2">`, `user:"><svg onload=window.hacked=3>`,
		"user:&lt;b&gt;", `user:\u202egnp.exe`, `user:a\u200bb\x00c\nd`, "user:שלום", `user:\xff\xfe`, "user:${window.hacked=4}", "longlon…",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not shown", want)
		}
	}
	p.run(do(`document.querySelector("#refused button").click()`))
	p.until(`document.querySelector("#result").textContent.includes("user:")`)
	// A key that is typed comes back, and an error may have it.
	for _, key := range keys[:3] {
		p.run(chromedp.SetValue(chromedp.CSS("#key"), "user:"+key), do(`document.querySelector("#ask").requestSubmit()`))
		p.until(`document.querySelector("#result").textContent.includes(%q)`, key)
	}
	made := get[int](p, `document.querySelectorAll("main script, main img, main svg, main b").length`)
	if hacked := get[int](p, "window.hacked ?? 0"); hacked != 0 || made != 0 {
		t.Errorf("a key became more than text: number %d, %d elements", hacked, made)
	}
	p.quiet()
}

// TestRefused opens the page without leave, and asks it for a reset from another site.
func TestRefused(t *testing.T) {
	closed := serve(t, console.WithAuth(func(*http.Request) bool { return false }))
	p := open(t, closed.console())
	p.until(`document.body.innerText.includes("for its operators")`)

	s := serve(t)
	s.charge(t, "alice", 7)
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = fmt.Fprint(w, `<title>elsewhere</title><iframe></iframe>`)
	}))
	defer elsewhere.Close()
	// 127.0.0.1 and localhost are two sites.
	p = open(t, strings.Replace(elsewhere.URL, "127.0.0.1", "localhost", 1))
	for _, action := range []string{"reset", "ban", "lookup"} {
		p.run(do(`window.ended = false; fetch(%q, { method: "POST", mode: "no-cors",
			body: JSON.stringify({ key: "user:alice", limiter: "api", for: "1h" }) }).finally(() => { window.ended = true; }); 0`, s.console()+action))
		p.until("window.ended")
	}
	if n := s.used(t, "alice"); n != 7 {
		t.Errorf("another site has reset a caller: %d are used", n)
	}
	if d, err := s.limiter.Peek(t.Context(), "user:alice"); err != nil || d.Banned {
		t.Errorf("another site has banned a caller: %+v, %v", d, err)
	}
	// Nor can it show the page in a frame.
	p.run(do(`window.loaded = false; const frame = document.querySelector("iframe");
		frame.onload = () => { window.loaded = true; }; frame.src = %q`, s.console()))
	p.until("window.loaded")
	p.mu.Lock()
	defer p.mu.Unlock()
	if !strings.Contains(strings.Join(p.problems, "\n"), "frame-ancestors") {
		t.Errorf("the page may be framed: %q", p.problems)
	}
}

// TestNarrow holds the page to a width of 360 pixels, in both colour schemes, and to names for all
// that can be operated.
func TestNarrow(t *testing.T) {
	s := serve(t, console.WithKeys(true))
	s.charge(t, strings.Repeat("wide", 20), 15)
	s.charge(t, "near", 9)
	for _, scheme := range []string{"light", "dark"} {
		p := open(t, s.console(), chromedp.EmulateViewport(360, 740),
			prefer(scheme))
		p.until(`document.querySelector("#refused button") !== null`)
		p.run(do(`document.querySelector("#refused button").click()`))
		p.until(`document.querySelector("#result table") !== null`)
		back := get[string](p, "getComputedStyle(document.body).backgroundColor")
		if width := get[int](p, "document.documentElement.scrollWidth"); width > 360 {
			t.Errorf("%s: the page is %d pixels wide", scheme, width)
		}
		if light := back == "rgb(255, 255, 255)"; light != (scheme == "light") {
			t.Errorf("%s: the background is %s", scheme, back)
		}
		p.named()
		p.quiet()
	}
}

func prefer(scheme string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		_, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		})
		return err
	})
}

// named fails the test if a screen reader could not name what can be operated, or a table.
func (p *page) named() {
	p.t.Helper()
	seen := map[string]int{}
	p.run(chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		tree, err := chromedp.Call(ctx, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
		for _, n := range tree.Nodes {
			if n.Ignored || n.Role == nil {
				continue
			}
			switch role := strings.Trim(string(n.Role.Value), `"`); role {
			case "button", "textbox", "combobox", "table", "region", "image", "link", "group":
				seen[role]++
				if n.Name == nil || strings.Trim(string(n.Name.Value), `"`) == "" {
					p.t.Errorf("a %s has no name", role)
				}
			}
		}
		return err
	}))
	if seen["button"] < 5 || seen["table"] < 8 || seen["textbox"] != 1 || seen["combobox"] != 3 || seen["image"] != 1 {
		p.t.Errorf("what can be named is %v", seen)
	}
}
