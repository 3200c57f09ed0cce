package accesslog

import (
	"bytes"
	"net/http"
	"net/netip"
	"strconv"
	"time"
)

// combined reads the Common and the Combined Log Format, as Apache and nginx write them, and what
// others append to them: Traefik its router, server and duration. Apache's vhost_combined has the
// host and the port before the client.
//
//	203.0.113.7 - alice [10/Oct/2000:13:55:36 -0700] "GET /a?b HTTP/1.1" 200 2326 "http://example.com/" "curl/8"
type combined struct {
	clock
	options Options
	buf     []byte // texts that were escaped
}

func (p *combined) Parse(line []byte, e *Entry) error {
	e.reset()
	p.buf = p.buf[:0]
	open := bytes.IndexByte(line, '[')
	space := bytes.IndexByte(line, ' ')
	if space <= 0 || open < space || len(line) < open+28 || line[open+27] != ']' {
		return errTime
	}
	var ok bool
	if e.Time, ok = p.clf(line[open+1 : open+27]); !ok {
		return errTime
	}
	e.Addr = line[:space]
	if open > space+5 || line[space+1] != '-' {
		// More than "- - ". A user may have spaces, and a virtual host may stand first.
		p.names(line[:open], e)
	}
	rest := line[open+28:]
	if len(rest) < 2 || rest[0] != ' ' || rest[1] != '"' {
		return errRequest
	}
	rest = rest[2:]
	end := quoteEnd(rest, true)
	if end < 0 {
		return errRequest
	}
	e.Method, e.Target = p.request(rest[:end])
	rest = rest[end+1:]
	if len(rest) < 2 || rest[0] != ' ' {
		return errStatus
	}
	rest = rest[1:]
	status, rest := word(rest)
	if e.Status, ok = statusOf(status); !ok {
		return errStatus
	}
	size, rest := word(rest)
	if len(size) != 1 || size[0] != '-' {
		if e.Bytes, ok = digits(size); !ok {
			return errBytes
		}
	}
	if len(rest) > 0 && rest[0] == '"' {
		p.quoted(rest, e)
	}
	return p.ask(e)
}

// names reads what stands before the time: the client, the identity that nobody knows, the user.
func (p *combined) names(b []byte, e *Entry) {
	first, rest := word(b)
	if second, after := word(rest); bytes.IndexByte(first, ':') > 0 && isAddr(second) && !isAddr(first) {
		first, rest = second, after // vhost:port
	}
	e.Addr = first
	_, user := word(rest)
	user = bytes.TrimRight(user, " ")
	if len(user) > 0 && string(user) != "-" {
		e.User = p.plain(user)
	}
}

func isAddr(b []byte) bool {
	_, err := netip.ParseAddr(string(b))
	return err == nil
}

// request splits "GET /path HTTP/1.1". What is no request, such as "-" or the bytes of TLS, has
// neither method nor target.
func (p *combined) request(b []byte) (method, target []byte) {
	i := bytes.IndexByte(b, ' ')
	if i <= 0 || !isMethod(b[:i]) {
		return nil, nil
	}
	method, target = b[:i], b[i+1:]
	if j := bytes.LastIndexByte(target, ' '); j >= 0 && bytes.HasPrefix(target[j+1:], []byte("HTTP/")) {
		target = target[:j]
	}
	return method, p.plain(target)
}

func isMethod(b []byte) bool {
	for _, c := range b {
		if (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// quoted reads the referer and the agent, and what Traefik appends.
func (p *combined) quoted(rest []byte, e *Entry) {
	for i := 0; len(rest) > 0 && rest[0] == '"'; i++ {
		rest = rest[1:]
		end := quoteEnd(rest, false)
		if end < 0 {
			return
		}
		if i == 0 && end > 0 {
			e.Referer = unlessDash(rest[:end])
		} else if i == 1 && end > 0 {
			e.Agent = unlessDash(rest[:end])
		}
		if rest = rest[end+1:]; len(rest) > 0 {
			rest = rest[1:]
		}
	}
	if i := bytes.LastIndexByte(rest, ' '); i >= 0 && bytes.HasSuffix(rest, []byte("ms")) {
		if ms, ok := digits(rest[i+1 : len(rest)-2]); ok && ms < 1e12 {
			e.Duration = ms * 1000
		}
	}
}

// ask fills in what the options ask for.
func (p *combined) ask(e *Entry) error {
	switch {
	case p.options.Header && http.CanonicalHeaderKey(p.options.Field) == "Referer":
		e.Field = p.plain(e.Referer)
	case p.options.Header && http.CanonicalHeaderKey(p.options.Field) == "User-Agent":
		e.Field = p.plain(e.Agent)
	}
	if p.options.Cost == "bytes" {
		if e.Cost = e.Bytes; e.Cost < 0 {
			e.Cost = 0
		}
	}
	return nil
}

// quoteEnd returns where the quote that ends b's text is, or -1. One after a backslash ends
// nothing. Servers that escape nothing write quotes of clients as they are: the one that ends the
// text is followed by a space or the line's end, and by a status if it ends a request.
func quoteEnd(b []byte, request bool) int {
	for i := 0; ; i++ {
		j := bytes.IndexByte(b[i:], '"')
		if j < 0 {
			return -1
		}
		i += j
		if i > 0 && b[i-1] == '\\' {
			n := 1
			for i-1-n >= 0 && b[i-1-n] == '\\' {
				n++
			}
			if n%2 == 1 {
				continue
			}
		}
		switch {
		case request && i+5 <= len(b) && b[i+1] == ' ' && isStatus(b[i+2:]):
			return i
		case !request && (i+1 == len(b) || b[i+1] == ' '):
			return i
		}
	}
}

func isStatus(b []byte) bool {
	return b[0] == '-' || len(b) >= 3 && b[0] >= '0' && b[0] <= '9' && b[1] >= '0' && b[1] <= '9' && b[2] >= '0' && b[2] <= '9'
}

// statusOf reads a status, of which "-" is none.
func statusOf(b []byte) (int, bool) {
	if len(b) == 1 && b[0] == '-' {
		return 0, true
	}
	n, ok := digits(b)
	return int(n), ok && len(b) == 3
}

func unlessDash(b []byte) []byte {
	if len(b) == 1 && b[0] == '-' {
		return nil
	}
	return b
}

// word returns b up to its first space, and what follows that.
func word(b []byte) (first, rest []byte) {
	i := bytes.IndexByte(b, ' ')
	if i < 0 {
		return b, nil
	}
	return b[:i], b[i+1:]
}

// plain returns a text without the escapes of Apache and nginx: \xHH, \", \\, \n and the like.
func (p *combined) plain(b []byte) []byte {
	if bytes.IndexByte(b, '\\') < 0 {
		return b
	}
	from := len(p.buf)
	p.buf = unescape(p.buf, b)
	return p.buf[from:]
}

func unescape(dst, b []byte) []byte {
	for i := 0; i < len(b); i++ {
		c := b[i]
		if c != '\\' || i+1 == len(b) {
			dst = append(dst, c)
			continue
		}
		i++
		switch c = b[i]; c {
		case 'n':
			c = '\n'
		case 't':
			c = '\t'
		case 'r':
			c = '\r'
		case 'v':
			c = '\v'
		case 'b':
			c = '\b'
		case 'x':
			if i+2 < len(b) && isHex(b[i+1]) && isHex(b[i+2]) {
				c = fromHex(b[i+1])<<4 | fromHex(b[i+2])
				i += 2
			}
		}
		dst = append(dst, c)
	}
	return dst
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

func fromHex(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c >= 'a':
		return c - 'a' + 10
	default:
		return c - 'A' + 10
	}
}

// envoy reads Envoy's default:
//
//	[2016-04-15T20:17:00.310Z] "POST /api/v1/locations HTTP/2" 204 - 154 0 226 100 "10.0.35.28" "nsq2http" "cc21…" "locations" "tcp://10.0.2.1:80"
//
// The client is the last address of X-Forwarded-For: it was written by the proxy next to Envoy, or
// by Envoy, and those before it by whoever sent the request.
type envoy struct {
	clock
	options Options
	text    combined
	few     [8][]byte // what words returns
}

func (p *envoy) Parse(line []byte, e *Entry) error {
	e.reset()
	p.text.buf = p.text.buf[:0]
	end := bytes.IndexByte(line, ']')
	if len(line) == 0 || line[0] != '[' || end < 0 {
		return errTime
	}
	var ok bool
	if e.Time, ok = p.iso(line[1:end]); !ok {
		return errTime
	}
	rest := line[end+1:]
	if len(rest) < 2 || rest[0] != ' ' || rest[1] != '"' {
		return errRequest
	}
	rest = rest[2:]
	if end = quoteEnd(rest, true); end < 0 {
		return errRequest
	}
	e.Method, e.Target = p.text.request(rest[:end])
	if e.Target = unlessDash(e.Target); len(e.Target) == 0 {
		e.Method = nil
	}
	_, rest = word(rest[end+1:])
	status, rest := word(rest)
	if e.Status, ok = statusOf(status); !ok {
		return errStatus
	}
	// Flags, bytes received and sent, duration, upstream's duration. Istio has the flags, two
	// fields of details and a failure in quotes before the other four.
	numbers, rest := p.words(rest)
	if len(numbers) == 3 && len(rest) > 0 {
		if end = quoteEnd(rest[1:], false); end < 0 || end+3 > len(rest) {
			return errFields
		}
		numbers, rest = p.words(rest[end+3:])
	}
	if len(numbers) < 4 || len(rest) == 0 {
		return errFields
	}
	numbers = numbers[len(numbers)-4:]
	if n, ok := digits(numbers[1]); ok {
		e.Bytes = n
	}
	if ms, ok := digits(numbers[2]); ok && ms < 1e12 {
		e.Duration = ms * 1000
	}
	for i := 0; len(rest) > 0 && rest[0] == '"'; i++ {
		rest = rest[1:]
		if end = quoteEnd(rest, false); end < 0 {
			return errFields
		}
		switch i {
		case 0:
			e.Addr = lastOf(unlessDash(rest[:end]))
		case 1:
			e.Agent = unlessDash(rest[:end])
		}
		if rest = rest[end+1:]; len(rest) > 0 {
			rest = rest[1:]
		}
	}
	if len(e.Addr) == 0 { // Istio: cluster, upstream's own address, own address, peer's address
		if numbers, _ = p.words(rest); len(numbers) >= 4 {
			e.Addr = hostOf(numbers[3])
		}
	}
	p.text.options = p.options
	return p.text.ask(e)
}

// words returns what stands before the next quote, at most eight words of it, and what follows.
// They are valid until it is called again.
func (p *envoy) words(b []byte) (all [][]byte, rest []byte) {
	all = p.few[:0]
	for len(b) > 0 && b[0] != '"' && len(all) < len(p.few) {
		var first []byte
		first, b = word(b)
		all = append(all, first)
	}
	return all, b
}

// hostOf returns an address without its port.
func hostOf(b []byte) []byte {
	if ap, err := netip.ParseAddrPort(string(b)); err == nil {
		return []byte(ap.Addr().String())
	}
	return unlessDash(b)
}

// lastOf returns the last address of a list.
func lastOf(b []byte) []byte {
	if i := bytes.LastIndexByte(b, ','); i >= 0 {
		b = b[i+1:]
	}
	return bytes.TrimSpace(b)
}

// ginLog reads the lines of Gin's own logger, with or without colours. It has no zone, and its time
// is when the request ended.
//
//	[GIN] 2026/11/29 - 12:00:00 | 200 |    1.25ms |     203.0.113.7 | GET      "/ping"
type ginLog struct {
	clock
	buf []byte
}

func (p *ginLog) Parse(line []byte, e *Entry) error {
	e.reset()
	p.buf = p.buf[:0]
	const prefix = "[GIN] "
	if !bytes.HasPrefix(line, []byte(prefix)) {
		return ErrSkip // Gin's errors, its debug output, and what the application writes
	}
	line = p.plain(line[len(prefix):])
	if len(line) < 21 || line[4] != '/' || line[7] != '/' || string(line[10:13]) != " - " || line[15] != ':' || line[18] != ':' {
		return errTime
	}
	var ok bool
	if e.Time, ok = p.parts(line[0:4], line[5:7], line[8:10], line[13:15], line[16:18], line[19:21]); !ok {
		return errTime
	}
	var fields [5][]byte
	rest := line[21:]
	for i := range fields {
		if i == 4 {
			fields[i] = bytes.TrimSpace(rest)
			break
		}
		j := bytes.IndexByte(rest, '|')
		if j < 0 {
			return errFields
		}
		fields[i], rest = bytes.TrimSpace(rest[:j]), rest[j+1:]
	}
	if e.Status, ok = statusOf(fields[1]); !ok {
		return errStatus
	}
	if d, err := time.ParseDuration(string(fields[2])); err == nil && d >= 0 {
		e.Duration = d.Microseconds()
	}
	e.Addr = fields[3]
	method, path := word(fields[4])
	path = bytes.TrimSpace(path)
	if len(path) < 2 || path[0] != '"' || path[len(path)-1] != '"' {
		return errRequest
	}
	e.Method = method
	if e.Target = path[1 : len(path)-1]; bytes.IndexByte(path, '\\') >= 0 {
		text, err := strconv.Unquote(string(path))
		if err != nil {
			return errRequest
		}
		e.Target = []byte(text)
	}
	return nil
}

// plain returns the line without colours.
func (p *ginLog) plain(line []byte) []byte {
	if bytes.IndexByte(line, 0x1b) < 0 {
		return line
	}
	for i := 0; i < len(line); i++ {
		if line[i] == 0x1b && i+1 < len(line) && line[i+1] == '[' {
			for i += 2; i < len(line) && line[i] != 'm'; i++ {
			}
			continue
		}
		p.buf = append(p.buf, line[i])
	}
	return p.buf
}
