// Package chrome starts a Chromium without a window, which reaches this machine alone.
package chrome

import (
	"context"
	"os"
	"os/exec"

	"github.com/chromedp/chromedp"
)

// Find returns the path of a Chromium, or "" if there is none.
func Find() string {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// Start starts the browser of a path, and returns the context of a tab in it. The browser ends with
// stop, or with ctx.
func Start(ctx context.Context, path string) (tab context.Context, stop func(), err error) {
	flags := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path),
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"))
	if os.Geteuid() == 0 {
		flags = append(flags, chromedp.NoSandbox) // Chromium refuses to start with it
	}
	browser, end := chromedp.NewExecAllocator(ctx, flags...)
	tab, _ = chromedp.NewContext(browser)
	stop = func() {
		_ = chromedp.Cancel(tab)
		end()
	}
	if err := chromedp.Do(tab); err != nil {
		stop()
		return nil, nil, err
	}
	return tab, stop, nil
}
