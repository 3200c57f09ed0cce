package console

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// policy lets the page load what is its own, and nothing else. uPlot sets styles by script, which
// needs no leave.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// guard writes the header fields that every answer has, and reports whether a request may go on. If
// not, it has answered.
func (c *Console) guard(w http.ResponseWriter, r *http.Request, page bool) bool {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	switch site := r.Header.Get("Sec-Fetch-Site"); {
	case !c.allow(r):
		http.Error(w, "ginlimit: this page is for its operators; without console.WithAuth they use it on the machine itself, as localhost or 127.0.0.1, and not through a proxy", http.StatusForbidden)
	case c.cross.Check(r) != nil || !page && (site == "cross-site" || site == "same-site"):
		http.Error(w, "ginlimit: the request comes from another site", http.StatusForbidden)
	default:
		return true
	}
	return false
}

// forwards are the fields by which proxies say that a request is another's, besides X-Forwarded-For
// and all others that begin so.
var forwards = []string{
	"Forwarded", "X-Real-Ip", "Via", "True-Client-Ip", "Cf-Connecting-Ip", "X-Client-Ip", "X-Cluster-Client-Ip", "Fly-Client-Ip",
	"Fastly-Client-Ip", "X-Appengine-User-Ip", "X-Envoy-External-Address", "X-Original-Forwarded-For", "X-Azure-Clientip",
}

// local is who may use the page without WithAuth: a client on this machine, by the connection's
// address. A browser also has to ask for this machine by name: a page of somebody else can lead it
// here by a name that its owner points at 127.0.0.1 (DNS rebinding). Browsers say what they are.
func local(r *http.Request) bool {
	for name := range r.Header {
		if strings.HasPrefix(name, "X-Forwarded") || slices.Contains(forwards, name) {
			return false
		}
	}
	if !isLoopback(r.RemoteAddr) {
		return false
	}
	browser := r.UserAgent() != "" || r.Header.Get("Accept-Encoding") != ""
	return !browser || isLoopback(r.Host) || strings.EqualFold(hostOf(r.Host), "localhost")
}

func isLoopback(hostport string) bool {
	addr, err := netip.ParseAddr(strings.Trim(hostOf(hostport), "[]"))
	return err == nil && addr.Unmap().IsLoopback()
}

func hostOf(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		return host
	}
	return hostport
}
