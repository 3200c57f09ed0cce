// Picture makes the picture of the console's README: an application with three limiters, callers of
// which some are well behaved and some are not, and a browser that looks at the page for a while.
// In contrib/console/browser, run
//
//	go run ./picture -o ../docs/console.png
//
// It takes half a minute, and needs Chromium. -width and -dark show the page elsewhere.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/gin-gonic/gin"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/memory"
	"github.com/ginlimit/ginlimit/contrib/console"
	"github.com/ginlimit/ginlimit/contrib/console/browser/internal/chrome"
)

func main() {
	out := flag.String("o", "console.png", "the picture's file")
	width := flag.Int64("width", 1200, "of the page, in pixels")
	dark := flag.Bool("dark", false, "as who prefers dark pages sees it")
	after := flag.Duration("after", 25*time.Second, "how long callers come before the picture is taken")
	flag.Parse()
	gin.SetMode(gin.ReleaseMode)
	if err := run(*out, *width, *dark, *after); err != nil {
		log.Fatal(err)
	}
}

func run(out string, width int64, dark bool, after time.Duration) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	path := chrome.Find()
	if path == "" {
		return errors.New("there is no Chromium")
	}
	a, err := newApplication()
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: a.page, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = server.Serve(listener) }()
	defer func() { _ = server.Close() }()
	go a.load(ctx)

	tab, stop, err := chrome.Start(ctx, path)
	if err != nil {
		return err
	}
	defer stop()
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	const ask = `document.querySelector("#key").value = "user:greedy-1"; document.querySelector("#ask").requestSubmit()`
	err = chromedp.Do(tab, chromedp.EmulateViewport(width, 900), prefer(scheme), chromedp.Navigate("http://"+listener.Addr().String()+"/"),
		chromedp.Sleep(after), chromedp.Evaluate[chromedp.Void](ask), chromedp.Sleep(3*time.Second),
		chromedp.Evaluate[chromedp.Void]("document.activeElement.blur()"))
	if err != nil {
		return err
	}
	picture, err := chromedp.Run(tab, chromedp.FullScreenshot(100))
	if err != nil {
		return err
	}
	return os.WriteFile(out, picture, 0o644)
}

func prefer(scheme string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		_, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		})
		return err
	})
}

// application is what is looked at.
type application struct {
	page               *console.Console
	api, login, report *ginlimit.Limiter
}

func newApplication() (*application, error) {
	a := &application{page: console.New(nil, console.WithKeys(true))}
	observe := ginlimit.WithObserver(a.page.Observe)
	var err1, err2, err3 error
	a.api, err1 = ginlimit.NewLimiter(ginlimit.PerMinute(300), ginlimit.ByUserID("user"), observe, ginlimit.WithName("api"),
		ginlimit.WithBackend(backend.Lease(memory.New(), 20)))
	a.login, err2 = ginlimit.NewLimiter(ginlimit.PerMinute(5), ginlimit.ByIP(), observe, ginlimit.WithName("login"),
		ginlimit.WithBan(ginlimit.PerMinute(20), 10*time.Minute, 24*time.Hour))
	a.report, err3 = ginlimit.NewLimiter(ginlimit.InFlight(20), ginlimit.Global(), observe, ginlimit.WithName("reports"))
	a.page.Watch(a.api, a.login, a.report)
	return a, errors.Join(err1, err2, err3)
}

// load sends requests until ctx is done: some 200 a second of forty users, two of them greedy, a few
// log-ins, one client that guesses, and slow reports.
func (a *application) load(ctx context.Context) {
	random := rand.New(rand.NewPCG(22, 8))
	r := gin.New()
	r.SetTrustedProxies(nil)
	r.GET("/report", a.report.Handle, func(*gin.Context) { time.Sleep(500 * time.Millisecond) })
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		user := fmt.Sprintf("user-%d", int(random.ExpFloat64()*8))
		if wave := time.Since(began)/(8*time.Second)%2 == 1; wave && random.IntN(3) > 0 || random.IntN(6) == 0 {
			user = fmt.Sprintf("greedy-%d", 1+random.IntN(2))
		}
		_, _ = a.api.Allow(ctx, "user:"+user, 1)
		if random.IntN(20) == 0 {
			_, _ = a.login.Allow(ctx, ginlimit.KeyOfIP(netip.AddrFrom4([4]byte{198, 51, 100, byte(1 + random.IntN(40))})), 1)
		}
		if random.IntN(25) == 0 {
			_, _ = a.login.Allow(ctx, ginlimit.KeyOfIP(netip.MustParseAddr("203.0.113.7")), 1)
		}
		if random.IntN(15) == 0 {
			go func() {
				req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "/report", nil)
				r.ServeHTTP(discard{http.Header{}}, req)
			}()
		}
	}
}

// discard is a response that nobody reads.
type discard struct{ header http.Header }

func (d discard) Header() http.Header         { return d.header }
func (d discard) Write(p []byte) (int, error) { return len(p), nil }
func (d discard) WriteHeader(int)             {}
