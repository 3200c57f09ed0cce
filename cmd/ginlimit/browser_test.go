package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	cdppage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// browser starts a Chromium. Without one the test is skipped, and under CI=true it fails.
func browser(t *testing.T) context.Context {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	switch {
	case path != "":
	case os.Getenv("CI") == "true":
		t.Fatal("there is no Chromium; run make servers, which installs it")
	default:
		t.Skip("there is no Chromium; make servers installs it")
	}
	opts := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), chromedp.ExecPath(path),
		chromedp.WSURLReadTimeout(2*time.Minute))
	if os.Getuid() == 0 { // whom its sandbox does not take
		opts = append(opts, chromedp.NoSandbox)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, opts...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal(err)
	}
	return ctx
}

// tab is a page of its own.
type tab struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex
	requests []string // addresses
	said     []string // errors, warnings, dialogs
}

// open shows a file as somebody with this window and these colours sees it.
func open(ctx context.Context, t *testing.T, file string, width int64, colours string) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	p := &tab{t: t, ctx: ctx}
	err := chromedp.Listen(ctx, func(event any) {
		p.mu.Lock()
		defer p.mu.Unlock()
		switch e := event.(type) {
		case *network.EventRequestWillBeSent:
			p.requests = append(p.requests, e.Request.URL)
		case *runtime.EventConsoleAPICalled:
			p.said = append(p.said, fmt.Sprintf("console.%s %v", e.Type, e.Args))
		case *runtime.EventExceptionThrown:
			p.said = append(p.said, e.ExceptionDetails.Text)
		case *log.EventEntryAdded:
			p.said = append(p.said, e.Entry.Text)
		case *cdppage.EventJavascriptDialogOpening:
			p.said = append(p.said, "a dialog: "+e.Message)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	call(p, network.Enable, network.EnableParams{})
	call(p, log.Enable, cdp.Empty{})
	call(p, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: 800, DeviceScaleFactor: 1, Mobile: width < 500})
	call(p, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: colours}}})
	do(p, chromedp.Navigate((&url.URL{Scheme: "file", Path: filepath.ToSlash(file)}).String()))
	do(p, chromedp.WaitReady(chromedp.CSS("#rates canvas")))
	return p
}

// do runs an action, and returns what it found.
func do[T any](p *tab, action chromedp.Action[T]) T {
	p.t.Helper()
	value, err := chromedp.Run(p.ctx, action)
	if err != nil {
		p.t.Fatal(err)
	}
	return value
}

func call[P, R any](p *tab, command cdp.Command[P, R], params P) {
	p.t.Helper()
	if _, err := chromedp.Call(p.ctx, command, params); err != nil {
		p.t.Fatal(err)
	}
}

// ask evaluates JavaScript into a value.
func ask[T any](p *tab, expression string) T {
	p.t.Helper()
	return do(p, chromedp.Evaluate[T](expression))
}

// press presses a key until it has done what it should. A window that was opened just now may still
// change its size, upon which the charts are drawn anew without a cursor.
func (p *tab) press(key, done string) {
	p.t.Helper()
	for until := time.Now().Add(time.Minute); !ask[bool](p, done); {
		if time.Now().After(until) {
			p.t.Fatalf("the key %q does nothing: %s", key, done)
		}
		do(p, chromedp.KeyEvent(key))
	}
}

// quiet fails the test if the page asked for anything but itself, or had anything to say.
func (p *tab) quiet() {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.requests) != 1 || !strings.HasPrefix(p.requests[0], "file://") {
		p.t.Errorf("the page asked for %q", p.requests)
	}
	if len(p.said) > 0 {
		p.t.Errorf("the page said %q", p.said)
	}
}

// picture keeps a screenshot in the directory PICTURES, if that is set, for people to look at.
func (p *tab) picture(name string) {
	dir := os.Getenv("PICTURES")
	if dir == "" {
		return
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), do(p, chromedp.FullScreenshot(100)), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// reportFile writes the page of a replay, and returns its path.
func reportFile(t *testing.T, content string, args ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "report.html")
	mustRun(t, content, append([]string{"replay", "-", "-html", file}, args...)...)
	return file
}

// hostile are keys that want to be more than text.
var hostile = []string{
	`</script><script>window.hostile=1</script>`,
	`<img src=x onerror="window.hostile=2">`,
	`"><a href="javascript:window.hostile=3">a</a><!--`,
	"{{.Report}} ${window.hostile=4} \u2028 \x01",
	"user:\u202egnp.exe\u2066 \u200f\u05d0",
	strings.Repeat("long-", 2000),
	"\x1b[31mred",
}

func hostileLog(t *testing.T) string {
	var all strings.Builder
	for i := range 20 * len(hostile) {
		line, err := json.Marshal(map[string]any{"ts": 1795953602 + i, "who": hostile[i%len(hostile)]})
		if err != nil {
			t.Fatal(err)
		}
		all.Write(append(line, '\n'))
	}
	return all.String()
}

// What a chart is, as a browser has drawn it.
type chart struct {
	ID            string
	Width, Height int // in pixels of the page
	Colours       int // that are in it
	Left, Right   int // where it begins and ends
	Name, Role    string
}

const charts = `[...document.querySelectorAll(".chart:has(canvas)")].map(div => {
	const canvas = div.querySelector("canvas"), box = canvas.getBoundingClientRect();
	const pixels = new Uint32Array(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.buffer);
	return { ID: div.id, Width: Math.round(box.width), Height: Math.round(box.height), Colours: new Set(pixels).size,
		Left: Math.round(box.left), Right: Math.round(box.right), Name: div.getAttribute("aria-label"), Role: div.getAttribute("role") };
})`

// A browser shows the page from its file, with a wide window and a narrow one, on light and on dark:
// it asks for nothing else and has no error, and every chart is drawn and fits.
func TestPageInBrowser(t *testing.T) {
	ctx := browser(t)
	sample(t)
	content, err := os.ReadFile("access.log")
	if err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string]string{
		"sample":  reportFile(t, string(content), "-limit", "20/m", "-vs", "30/m sliding-log"),
		"none":    reportFile(t, string(content), "-limit", "1000/s"),
		"day":     reportFile(t, string(content), "-limit", "unlimited", "-limit", "1000/day Europe/Berlin calendar", "-by", "path"),
		"hostile": reportFile(t, hostileLog(t), "-limit", "2/h", "-vs", "3/h", "-by", "json:who"),
		"one":     reportFile(t, strings.SplitAfter(string(content), "\n")[0], "-limit", "0/m"),
	} {
		for _, width := range []int64{1000, 360} {
			for colours, background := range map[string]string{"light": "rgb(255, 255, 255)", "dark": "rgb(13, 17, 23)"} {
				t.Run(fmt.Sprintf("%s/%s/%d", name, colours, width), func(t *testing.T) {
					p := open(ctx, t, file, width, colours)
					p.picture(fmt.Sprintf("%s-%s-%d", name, colours, width))
					drawn := ask[[]chart](p, strings.ReplaceAll(charts, "\n", " "))
					if len(drawn) != 3 && (name != "none" || len(drawn) != 2) {
						t.Errorf("%d charts", len(drawn))
					}
					for _, c := range drawn {
						if c.Width < 300 || c.Height < 200 || c.Left < 0 || int64(c.Right) > width || c.Colours < 5 {
							t.Errorf("the chart is %+v", c)
						}
						if c.Role != "img" || len(c.Name) < 20 {
							t.Errorf("a screen reader is told of %+v", c)
						}
					}
					if got := ask[int64](p, "document.documentElement.scrollWidth"); got > width {
						t.Errorf("the page is %d px wide in a window of %d", got, width)
					}
					if got := ask[string](p, "getComputedStyle(document.body).backgroundColor"); got != background {
						t.Errorf("the background is %s, not %s", got, background)
					}
					p.quiet()
				})
			}
		}
	}
}

// Keys are text, whatever is in them, and run nothing.
func TestHostileKeysInBrowser(t *testing.T) {
	p := open(browser(t), t, reportFile(t, hostileLog(t), "-limit", "2/h", "-by", "json:who", "-top", "20"), 1000, "light")
	got := ask[[]string](p, `[...document.querySelectorAll("td.key")].map(td => td.textContent)`)
	want := make([]string, len(hostile))
	for i, key := range hostile {
		want[i] = "who:" + key
	}
	want[3] = `who:{{.Report}} ${window.hostile=4} \u2028 \x01` // what nobody would see is escaped
	want[4] = `who:user:\u202egnp.exe\u2066 \u200fא`
	want[6] = `who:\x1b[31mred`
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := ask[string](p, "String(window.hostile)"); got != "undefined" {
		t.Errorf("a key ran: %s", got)
	}
	if got := ask[int](p, "document.querySelectorAll('td.key div *, script[src], img, a').length"); got != 0 {
		t.Errorf("%d elements were made of keys", got)
	}
	if got := ask[int](p, "Math.max(...[...document.querySelectorAll('tr')].map(tr => Math.round(tr.getBoundingClientRect().height)))"); got > 200 {
		t.Errorf("a long key makes a row of %d px", got)
	}
	p.quiet()
}

// With the keyboard alone one gets to each table, and opens what is folded.
func TestKeyboardInBrowser(t *testing.T) {
	sample(t, "-lines", "20000")
	content, err := os.ReadFile("access.log")
	if err != nil {
		t.Fatal(err)
	}
	p := open(browser(t), t, reportFile(t, string(content), "-limit", "5/m", "-vs", "6/m"), 360, "light")
	reached := map[string]bool{}
	for range 10 {
		do(p, chromedp.KeyEvent(kb.Tab))
		now := ask[string](p, `(e => e.tagName + " " + (e.getAttribute("aria-label") || e.textContent.slice(0, 20)))(document.activeElement)`)
		reached[now] = true
		if got := ask[string](p, "getComputedStyle(document.activeElement).outlineStyle"); got == "none" && now[:4] != "BODY" {
			t.Errorf("nobody sees that the focus is on %s", now)
		}
		switch now {
		case "SUMMARY As a table":
			do(p, chromedp.KeyEvent(kb.Enter)) // which a browser acts on in its own time
			do(p, chromedp.WaitReady(chromedp.CSS("details[open]")))
		case "DIV Requests offered and admitted over time; the table of refused callers has the details":
			p.press(kb.Home, `document.querySelector("#time .u-legend").textContent.includes("2026-11-28 00:00")`)
			p.press(kb.End, `document.querySelector("#time .u-legend").textContent.includes("2026-11-28 23:59")`)
		}
	}
	for _, want := range []string{"SUMMARY As a table", "DIV Requests offered and admitted over time; the table of refused callers has the details",
		"DIV Callers by their busiest 1m", "DIV Refused most", "DIV Refused less by the limit compared with"} {
		if !reached[want] {
			t.Errorf("Tab does not get to %q: %v", want, reached)
		}
	}
	p.quiet()
}
