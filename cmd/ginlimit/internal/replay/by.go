package replay

import (
	"bytes"
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/cmd/ginlimit/internal/accesslog"
)

// By makes the keys of requests, as the KeyFuncs of ginlimit do from the same values.
type By struct {
	parts []part
	buf   []byte

	// Field is the header or the field of JSON lines that keys need, "" for none.
	Field  string
	Header bool
}

type part struct {
	kind   string // ip, net, header, path, user, global, json, key
	v4, v6 int
	prefix string
}

const byHelp = "use ip, ip/24, ip/24/48, path, user, key, global, header:NAME or json:FIELD, or several joined by +"

// ParseBy reads what -by says.
func ParseBy(text string) (*By, error) {
	b := new(By)
	for word := range strings.SplitSeq(text, "+") {
		kind, name, named := strings.Cut(word, ":")
		p := part{kind: kind}
		switch {
		case kind == "ip" || strings.HasPrefix(kind, "ip/"):
			var ok bool
			if p, ok = network(kind); !ok || named {
				return nil, fmt.Errorf("ginlimit: -by %s: %q is no prefix; use ip/24 for IPv4 by its /24, or ip/24/48 for IPv6 by its /48 as well", text, word)
			}
		case (kind == "path" || kind == "user" || kind == "key" || kind == "global") && !named:
			p.prefix = kind + ":"
		case kind == "header" || kind == "json":
			if name == "" {
				return nil, fmt.Errorf("ginlimit: -by %s: name the field, as in %s:X-Api-Key", text, kind)
			}
			if b.Field != "" {
				return nil, fmt.Errorf("ginlimit: -by %s: there can be one header or field of JSON; let the server log what you join", text)
			}
			b.Field, b.Header = name, kind == "header"
			p.prefix = headerPrefix(name)
			if kind == "json" {
				p.prefix = name[strings.LastIndexByte(name, '.')+1:] + ":"
			}
		default:
			return nil, fmt.Errorf("ginlimit: -by %s: %q is not known; %s", text, word, byHelp)
		}
		b.parts = append(b.parts, p)
	}
	return b, nil
}

// network reads ip, ip/24, ip/56 and ip/24/48. A number above 32 is of IPv6.
func network(text string) (part, bool) {
	p := part{kind: "ip", v4: 32, v6: 64}
	words := strings.Split(text, "/")[1:]
	for i, word := range words {
		n, err := strconv.Atoi(word)
		if err != nil || n < 0 || n > 128 || i > 1 {
			return p, false
		}
		p.kind = "net"
		if i == 0 && n <= 32 {
			p.v4 = n
		} else {
			p.v6 = n
		}
	}
	return p, len(words) < 2 || p.v6 <= 128
}

// headerPrefix is "" for a header whose value may be a secret: its key is hashed, as ByAPIKey does.
func headerPrefix(name string) string {
	switch http.CanonicalHeaderKey(name) {
	case "User-Agent":
		return "agent:"
	case "Referer":
		return "referer:"
	default:
		return ""
	}
}

// Key returns the key of a request, valid until the next one, and whether it has one.
func (b *By) Key(e *accesslog.Entry) ([]byte, bool) {
	if len(b.parts) == 1 {
		var ok bool
		b.buf, ok = b.parts[0].appendKey(b.buf[:0], e, b.Field)
		return b.buf, ok
	}
	keys := make([]string, len(b.parts))
	for i := range b.parts {
		key, ok := b.parts[i].appendKey(b.buf[:0], e, b.Field)
		if !ok {
			return nil, false
		}
		keys[i] = string(key)
	}
	b.buf = append(b.buf[:0], ginlimit.JoinKeys(keys...)...)
	return b.buf, true
}

func (p *part) appendKey(dst []byte, e *accesslog.Entry, header string) ([]byte, bool) {
	var text []byte
	switch p.kind {
	case "ip", "net":
		return p.appendAddr(dst, e.Addr)
	case "path":
		text = e.Path()
	case "user":
		text = e.User
	case "key":
		return append(dst, e.Key...), len(e.Key) > 0
	case "global":
		return append(dst, p.prefix...), true
	case "json":
		text = e.Field
	case "header":
		if p.prefix == "" {
			key := ginlimit.KeyOfAPIKey(header, string(e.Field))
			return append(dst, key...), key != ""
		}
		text = e.Field
	}
	return append(append(dst, p.prefix...), text...), len(text) > 0
}

func (p *part) appendAddr(dst, text []byte) ([]byte, bool) {
	if p.kind == "ip" && isIPv4(text) {
		return append(append(dst, "ip:"...), text...), true
	}
	addr, ok := addrOf(text)
	if !ok {
		if isHost(text) { // HostnameLookups of Apache
			return append(append(dst, "host:"...), bytes.ToLower(text)...), true
		}
		return dst, false
	}
	if p.kind == "ip" {
		return append(dst, ginlimit.KeyOfIP(addr)...), true
	}
	return append(dst, ginlimit.KeyOfIPPrefix(addr, p.v4, p.v6)...), true
}

// isIPv4 reports whether text is an IPv4 address in its usual form, which is how ByIP writes it.
func isIPv4(text []byte) bool {
	if len(text) < 7 || len(text) > 15 {
		return false
	}
	dots, value, n := 0, 0, 0
	for _, c := range text {
		switch {
		case c == '.':
			if n == 0 {
				return false
			}
			dots++
			value, n = 0, 0
		case c >= '0' && c <= '9':
			if n > 0 && value == 0 {
				return false
			}
			value = value*10 + int(c-'0')
			if n++; value > 255 {
				return false
			}
		default:
			return false
		}
	}
	return dots == 3 && n > 0
}

// addrOf reads an address, with or without a port, brackets and quotes.
func addrOf(text []byte) (netip.Addr, bool) {
	s := strings.Trim(string(text), `" `)
	if addr, err := netip.ParseAddr(s); err == nil {
		return addr, true
	}
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr(), true
	}
	if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		if addr, err := netip.ParseAddr(s[1 : len(s)-1]); err == nil {
			return addr, true
		}
	}
	return netip.Addr{}, false
}

func isHost(text []byte) bool {
	letters := false
	for _, c := range text {
		switch {
		case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z':
			letters = true
		case c >= '0' && c <= '9' || c == '.' || c == '-' || c == '_':
		default:
			return false
		}
	}
	return letters
}

// Route is what -route asks for: requests of one method, or of any, whose path matches a pattern of
// Gin's, such as /users/:id or /files/*path.
type Route struct {
	method   string
	segments []string
}

// ParseRoute reads "POST /login" or "/login".
func ParseRoute(text string) (*Route, error) {
	method, path, ok := strings.Cut(text, " ")
	if !ok {
		method, path = "", text
	}
	path = strings.TrimSpace(path)
	if !strings.HasPrefix(path, "/") {
		return nil, fmt.Errorf("ginlimit: -route %q: write a path, or a method and a path, as in 'POST /login'", text)
	}
	return &Route{method: strings.ToUpper(method), segments: strings.Split(path[1:], "/")}, nil
}

// Matches reports whether the request is of the route. HEAD counts as GET, as for ByRoute.
func (r *Route) Matches(e *accesslog.Entry) bool {
	if r.method != "" && r.method != string(e.Method) && (r.method != http.MethodGet || string(e.Method) != http.MethodHead) {
		return false
	}
	path := e.Path()
	if len(path) == 0 || path[0] != '/' {
		return false
	}
	path = path[1:]
	for i, want := range r.segments {
		if strings.HasPrefix(want, "*") {
			return true
		}
		segment, rest, more := bytes.Cut(path, []byte("/"))
		if strings.HasPrefix(want, ":") {
			if len(segment) == 0 {
				return false
			}
		} else if want != string(segment) {
			return false
		}
		if more != (i+1 < len(r.segments)) {
			return false
		}
		path = rest
	}
	return true
}
