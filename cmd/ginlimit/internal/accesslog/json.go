package accesslog

import (
	"bytes"
	"net/http"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"
)

// The fields that a JSON line may have.
const (
	fTime = iota
	fAddr
	fMethod
	fTarget
	fStatus
	fDuration
	fBytes
	fUser
	fReferer
	fAgent
	fKey
	fCost
	fOutcome
	fLimiter
	fRequest // "GET /path HTTP/1.1"
	fField
	fields
)

// known has, for each field, the names that servers give it, the best first: nginx' variables, the
// logs of Caddy and Traefik, the Elastic Common Schema, and slog's for the lines of an observer.
var known = [fields][]string{
	fTime: {"at", "msec", "ts", "time_iso8601", "StartUTC", "start_time", "@timestamp", "timestamp", "time_local",
		"time"},
	fAddr: {"request.client_ip", "client_ip", "ClientHost", "remote_addr", "request.remote_ip", "remote_ip", "client.ip",
		"source.ip", "clientip", "ip"},
	fMethod: {"request.method", "request_method", "RequestMethod", "method", "http.request.method"},
	fTarget: {"request.uri", "request_uri", "RequestPath", "uri", "path", "url.original", "url.path", "url"},
	fStatus: {"status", "DownstreamStatus", "status_code", "response_code", "http.response.status_code"},
	fDuration: {"request_time", "duration", "Duration", "duration_ms", "latency", "event.duration",
		"responseTime"},
	fBytes:   {"body_bytes_sent", "bytes_sent", "size", "DownstreamContentSize", "http.response.body.bytes"},
	fUser:    {"remote_user", "user_id", "ClientUsername", "user"},
	fReferer: {"http_referer", "http_referrer", "request.headers.Referer", "request_Referer"},
	fAgent:   {"http_user_agent", "request.headers.User-Agent", "request_User-Agent", "user_agent"},
	fKey:     {"key"},
	fCost:    {"decision.cost"},
	fOutcome: {"decision.outcome"},
	fLimiter: {"decision.limiter"},
	fRequest: {"request"},
}

// jsonLines reads JSON objects, one a line.
type jsonLines struct {
	clock
	root    node
	values  [fields][]value // what a line has under each of a field's names
	buf     []byte          // texts that were escaped
	options Options
	text    combined
}

// value is a member of a line: a text without its quotes, or a number as it is written.
type value struct {
	text   []byte
	quoted bool
}

// node is an object of which some members are wanted.
type node struct {
	name     string
	children []*node
	wanted   []*value // all that this member is
}

func newJSONLines(o Options) *jsonLines {
	p := &jsonLines{clock: clock{zone: o.zone()}, options: o}
	for f := range fields {
		names := known[f]
		if asked := o.name(f); asked != "" {
			names = []string{asked}
		}
		if f == fField && o.Field != "" {
			names = []string{o.Field}
			if o.Header {
				canonical := http.CanonicalHeaderKey(o.Field)
				low := strings.ToLower(o.Field)
				names = []string{"request.headers." + canonical, "request_" + canonical, "http_" + strings.ReplaceAll(low, "-", "_"),
					"headers." + canonical, "headers." + low, "http.request.headers." + low, canonical}
			}
		}
		p.values[f] = make([]value, len(names))
		for i, name := range names {
			p.root.want(strings.Split(name, "."), &p.values[f][i])
			if strings.Contains(name, ".") {
				p.root.want([]string{name}, &p.values[f][i])
			}
		}
	}
	return p
}

// name returns the name that the options give a field, or "".
func (o *Options) name(f int) string {
	switch f {
	case fTime:
		return o.Time
	case fAddr:
		return o.Addr
	case fMethod:
		return o.Method
	case fTarget:
		return o.Path
	case fStatus:
		return o.Status
	case fDuration:
		return o.Duration
	case fKey:
		return o.Key
	case fCost:
		return o.Cost
	default:
		return ""
	}
}

func (n *node) want(path []string, v *value) {
	for _, c := range n.children {
		if c.name == path[0] {
			c.next(path, v)
			return
		}
	}
	c := &node{name: path[0]}
	n.children = append(n.children, c)
	c.next(path, v)
}

func (n *node) next(path []string, v *value) {
	if len(path) == 1 {
		n.wanted = append(n.wanted, v)
	} else {
		n.want(path[1:], v)
	}
}

func (n *node) child(name []byte) *node {
	for _, c := range n.children {
		if string(name) == c.name {
			return c
		}
	}
	return nil
}

func (p *jsonLines) Parse(line []byte, e *Entry) error {
	e.reset()
	p.buf = p.buf[:0]
	for f := range p.values {
		clear(p.values[f])
	}
	s := scanner{b: bytes.TrimSpace(line), buf: &p.buf}
	if len(s.b) == 0 || s.b[0] != '{' || !s.object(&p.root, 0) || s.i != len(s.b) {
		return errJSON
	}
	return p.fill(e)
}

func (p *jsonLines) fill(e *Entry) error {
	if !p.time(e) {
		return errTime
	}
	e.Addr, e.Method, e.Target = p.first(fAddr), p.first(fMethod), p.first(fTarget)
	if bytes.IndexByte(e.Addr, ',') >= 0 {
		e.Addr = lastOf(e.Addr)
	}
	if request := p.first(fRequest); len(request) > 0 && len(e.Method) == 0 {
		p.text.buf = p.text.buf[:0]
		e.Method, e.Target = p.text.request(request)
	}
	e.User, e.Referer, e.Agent = p.first(fUser), p.first(fReferer), p.first(fAgent)
	e.Key, e.Outcome, e.Limiter, e.Field = p.first(fKey), p.first(fOutcome), p.first(fLimiter), p.first(fField)
	if n, ok := digits(p.first(fStatus)); ok && n < 1000 {
		e.Status = int(n)
	}
	if n, ok := digits(p.first(fBytes)); ok {
		e.Bytes = n
	}
	if cost := p.first(fCost); len(cost) > 0 {
		us, ok := decimal(cost, second)
		if !ok || us > 1<<62-second {
			return errCost
		}
		e.Cost = (us + second - 1) / second
	} else if p.options.Cost != "" {
		return errCost
	}
	p.duration(e)
	return nil
}

// time takes the first name whose value is a time, because "time" is many things.
func (p *jsonLines) time(e *Entry) bool {
	for i := range p.values[fTime] {
		if at, ok := p.any(p.values[fTime][i].text); ok {
			e.Time = at
			return true
		}
	}
	return false
}

// first returns the value of the best name of a field that has one. "-" and null are none.
func (p *jsonLines) first(f int) []byte {
	for i := range p.values[f] {
		if v := p.values[f][i].text; len(unlessDash(v)) > 0 && (p.values[f][i].quoted || v[0] != 'n') {
			return v
		}
	}
	return nil
}

// duration reads a number of seconds, or of what the field's name says, or Go's text.
func (p *jsonLines) duration(e *Entry) {
	for i := range p.values[fDuration] {
		v := p.values[fDuration][i].text
		if len(v) == 0 {
			continue
		}
		name := p.options.Duration
		if name == "" {
			name = known[fDuration][i]
		}
		unit := second
		switch {
		case strings.HasSuffix(name, "_ms") || name == "responseTime":
			unit = 1000
		case strings.HasSuffix(name, "_us"):
			unit = 1
		case strings.HasSuffix(name, "_ns") || name == "Duration" || name == "event.duration":
			unit = 0
		}
		if unit == 0 {
			if n, ok := digits(v); ok {
				e.Duration = n / 1000
				return
			}
		} else if us, ok := decimal(v, unit); ok {
			e.Duration = us
			return
		}
		if d, err := time.ParseDuration(string(v)); err == nil && d >= 0 {
			e.Duration = d.Microseconds()
			return
		}
	}
}

// scanner goes through one line of JSON. It is strict enough to tell a line that was cut or mixed
// with another, and leaves the finer points, such as the zeros before a number, to nobody.
type scanner struct {
	b   []byte
	i   int
	buf *[]byte
}

// maxDepth is how deep objects and arrays may be nested.
const maxDepth = 100

func (s *scanner) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return
		}
	}
}

func (s *scanner) take(c byte) bool {
	if s.i < len(s.b) && s.b[s.i] == c {
		s.i++
		return true
	}
	return false
}

// object reads an object, and of n, which may be nil, the members that are wanted.
func (s *scanner) object(n *node, depth int) bool {
	if depth > maxDepth || !s.take('{') {
		return false
	}
	s.space()
	if s.take('}') {
		return true
	}
	for {
		name, ok := s.text(n != nil)
		if !ok {
			return false
		}
		s.space()
		if !s.take(':') {
			return false
		}
		s.space()
		var c *node
		if n != nil {
			c = n.child(name)
		}
		if !s.value(c, depth) {
			return false
		}
		s.space()
		if s.take('}') {
			return true
		}
		if !s.take(',') {
			return false
		}
		s.space()
	}
}

// value reads any value.
func (s *scanner) value(n *node, depth int) bool {
	if s.i == len(s.b) {
		return false
	}
	var v value
	switch s.b[s.i] {
	case '{':
		return s.object(n, depth+1)
	case '[':
		return s.array(n, depth+1)
	case '"':
		text, ok := s.text(n != nil)
		if !ok {
			return false
		}
		v = value{text, true}
	default:
		from := s.i
		for s.i < len(s.b) && s.b[s.i] > ' ' && s.b[s.i] != ',' && s.b[s.i] != '}' && s.b[s.i] != ']' {
			s.i++
		}
		v = value{s.b[from:s.i], false}
		if !literal(v.text) {
			return false
		}
	}
	if n != nil {
		for _, wanted := range n.wanted {
			*wanted = v
		}
	}
	return true
}

func literal(b []byte) bool {
	if len(b) == 0 {
		return false
	}
	switch b[0] {
	case 't', 'f', 'n':
		return string(b) == "true" || string(b) == "false" || string(b) == "null"
	}
	for i, c := range b {
		if (c < '0' || c > '9') && (i == 0 && c != '-' || i > 0 && c != '.' && c != 'e' && c != 'E' && c != '+' && c != '-') {
			return false
		}
	}
	return true
}

// array reads an array: its first element is its value, as of a header in the log of Caddy.
func (s *scanner) array(n *node, depth int) bool {
	if depth > maxDepth || !s.take('[') {
		return false
	}
	s.space()
	if s.take(']') {
		return true
	}
	for {
		if !s.value(n, depth) {
			return false
		}
		n = nil
		s.space()
		if s.take(']') {
			return true
		}
		if !s.take(',') {
			return false
		}
		s.space()
	}
}

// text reads a string. If it is wanted it is returned without its escapes.
func (s *scanner) text(wanted bool) ([]byte, bool) {
	if !s.take('"') {
		return nil, false
	}
	from := s.i
	for {
		j := bytes.IndexByte(s.b[s.i:], '"')
		if j < 0 {
			return nil, false
		}
		k := bytes.IndexByte(s.b[s.i:s.i+j], '\\')
		if k < 0 {
			s.i += j + 1
			break
		}
		s.i += k + 2
		if s.i > len(s.b) {
			return nil, false
		}
	}
	raw := s.b[from : s.i-1]
	if !wanted || bytes.IndexByte(raw, '\\') < 0 {
		return raw, true
	}
	start := len(*s.buf)
	*s.buf = unescapeJSON(*s.buf, raw)
	return (*s.buf)[start:], true
}

// unescapeJSON appends a string without its escapes. \xHH, which nginx writes without escape=json,
// is a byte.
func unescapeJSON(dst, b []byte) []byte {
	for i := 0; i < len(b); i++ {
		c := b[i]
		if c != '\\' || i+1 == len(b) {
			dst = append(dst, c)
			continue
		}
		i++
		switch c = b[i]; {
		case c == 'u' && i+4 < len(b):
			r, ok := hex4(b[i+1:])
			if !ok {
				dst = append(dst, '\\', c)
				continue
			}
			i += 4
			if utf16.IsSurrogate(r) && i+6 < len(b) && b[i+1] == '\\' && b[i+2] == 'u' {
				if low, ok := hex4(b[i+3:]); ok && utf16.DecodeRune(r, low) != utf8.RuneError {
					r = utf16.DecodeRune(r, low)
					i += 6
				}
			}
			dst = utf8.AppendRune(dst, r)
		case c == 'f':
			dst = append(dst, '\f')
		default:
			n := min(len(b), i+3)
			if c != 'x' {
				n = i + 1
			}
			dst = unescape(dst, b[i-1:n])
			i = n - 1
		}
	}
	return dst
}

func hex4(b []byte) (rune, bool) {
	if len(b) < 4 || !isHex(b[0]) || !isHex(b[1]) || !isHex(b[2]) || !isHex(b[3]) {
		return 0, false
	}
	return rune(fromHex(b[0]))<<12 | rune(fromHex(b[1]))<<8 | rune(fromHex(b[2]))<<4 | rune(fromHex(b[3])), true
}
