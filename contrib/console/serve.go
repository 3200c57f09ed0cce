package console

import (
	"embed"
	"encoding/json"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"
)

const (
	maxPages  = 16               // that are open at once
	interval  = time.Second      // between two states of a page
	writeTime = 10 * time.Second // in which a page must take one
	pageTime  = 5 * time.Minute  // after which a page asks anew, and so does WithAuth
)

//go:embed page
var files embed.FS

// assets are the files of the page, and their types.
var assets = map[string]string{
	"index.html":              "text/html; charset=utf-8",
	"console.css":             "text/css; charset=utf-8",
	"console.js":              "text/javascript; charset=utf-8",
	"uplot/uPlot.min.css":     "text/css; charset=utf-8",
	"uplot/uPlot.iife.min.js": "text/javascript; charset=utf-8",
	"uplot/LICENSE":           "text/plain; charset=utf-8",
}

// ServeHTTP implements [http.Handler]: the page, its files, its stream, and what its buttons ask.
// It knows them by the end of the path, whatever is in front.
func (c *Console) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := path.Base(r.URL.Path)
	if strings.HasSuffix(r.URL.Path, "/uplot/"+name) {
		name = "uplot/" + name
	}
	page := r.URL.Path == "" || strings.HasSuffix(r.URL.Path, "/")
	if page {
		name = "index.html"
	}
	if !c.guard(w, r, page) {
		return
	}
	action := actions[name]
	switch {
	case r.URL.Path == "":
		c.redirect(w, r)
	case assets[name] != "":
		if methods(w, r, http.MethodGet, http.MethodHead) {
			file(w, name)
		}
	case name == "events":
		if methods(w, r, http.MethodGet) {
			c.stream(w, r)
		}
	case action != nil:
		if methods(w, r, http.MethodPost) {
			c.act(w, r, action)
		}
	default:
		http.Error(w, "ginlimit: the page has no such part; its address ends in a slash", http.StatusNotFound)
	}
}

// methods reports whether a request has one of the methods. If not, it has answered.
func methods(w http.ResponseWriter, r *http.Request, allowed ...string) bool {
	for _, m := range allowed {
		if r.Method == m {
			return true
		}
	}
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	http.Error(w, "ginlimit: use "+strings.Join(allowed, " or "), http.StatusMethodNotAllowed)
	return false
}

// redirect adds the slash that the page's links need. StripPrefix took the path away; what the
// client asked for is there all the same.
func (c *Console) redirect(w http.ResponseWriter, r *http.Request) {
	asked, err := url.ParseRequestURI(r.RequestURI)
	if err != nil || strings.HasSuffix(asked.Path, "/") {
		file(w, "index.html")
		return
	}
	w.Header().Set("Location", (&url.URL{Path: "./" + path.Base(asked.Path) + "/"}).String())
	w.WriteHeader(http.StatusTemporaryRedirect)
}

func file(w http.ResponseWriter, name string) {
	data, err := files.ReadFile("page/" + name)
	if err != nil {
		http.Error(w, "ginlimit: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", assets[name])
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(data)
}

// stream sends the state once a second, as server-sent events, until the page is closed, or has to
// ask anew because who may use it can change.
func (c *Console) stream(w http.ResponseWriter, r *http.Request) {
	select {
	case c.pages <- struct{}{}:
		defer func() { <-c.pages }()
	default:
		w.Header().Set("Retry-After", "10")
		http.Error(w, "ginlimit: too many pages are open; close one", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would wait for more
	w.WriteHeader(http.StatusOK)
	out := http.NewResponseController(w)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	end := time.NewTimer(pageTime)
	defer end.Stop()
	for since := int32(-1 - history); ; {
		var s state
		s, since = c.state(since)
		data, err := json.Marshal(s)
		if err != nil {
			return
		}
		// The server's WriteTimeout is one for the whole answer, which has no end. A writer that
		// cannot set another is left as it is.
		_ = out.SetWriteDeadline(time.Now().Add(writeTime))
		if _, err := w.Write(append(append([]byte("data: "), data...), "\n\n"...)); err != nil {
			return
		}
		if out.Flush() != nil {
			return
		}
		select {
		case <-tick.C:
		case <-end.C:
			return
		case <-r.Context().Done():
			return
		case <-c.closed:
			return
		}
	}
}
