package ginlimit

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// The forms of an address that proxies, platforms and adapters write. Each function returns the text of the address
// alone, of which parseAddr makes a netip.Addr, or "" if there is none to be read.

// parseAddr is netip.ParseAddr, and takes a zone on IPv4 in IPv6 too.
func parseAddr(text string) (netip.Addr, bool) {
	addr, err := netip.ParseAddr(text)
	if err == nil {
		return addr, true
	}
	spelling, zone, _ := strings.Cut(text, "%")
	addr, err = netip.ParseAddr(spelling)
	return addr, err == nil && zone != "" && addr.Is4In6()
}

func isAddr(text string) bool {
	_, ok := parseAddr(text)
	return ok
}

// addrIn reads address, address:port, [IPv6] and [IPv6]:port, each also in quotes. IPv6 with a port but no brackets is
// read where that cannot be an address by itself.
func addrIn(text string) string {
	text = strings.TrimSpace(text)
	if n := len(text); n >= 2 && text[0] == '"' && text[n-1] == '"' {
		text = text[1 : n-1]
	}
	if inside, ok := strings.CutPrefix(text, "["); ok {
		addr, port, ok := strings.Cut(inside, "]")
		if !ok || port != "" && !(port[0] == ':' && isPort(port[1:])) || !strings.Contains(addr, ":") || !isAddr(addr) {
			return ""
		}
		return addr
	}
	if isAddr(text) {
		return text
	}
	if i := strings.LastIndexByte(text, ':'); i > 0 && isPort(text[i+1:]) && isAddr(text[:i]) {
		return text[:i]
	}
	return ""
}

func isPort(text string) bool {
	_, err := strconv.ParseUint(text, 10, 16)
	return err == nil
}

// socketAddr reads an http.Request's RemoteAddr. net/http writes address:port. Adapters of AWS Lambda, and middleware that
// puts a client's address there, write the forms of addrIn.
func socketAddr(remote string) string {
	i := strings.LastIndexByte(remote, ':')
	if i > 0 && remote[0] > ' ' {
		switch {
		case remote[0] != '[' && strings.IndexByte(remote, ':') == i:
			return remote[:i] // IPv4
		case remote[0] == '[' && remote[i-1] == ']':
			return remote[1 : i-1]
		}
	}
	if host, _, err := net.SplitHostPort(strings.TrimSpace(remote)); err == nil {
		return host // the port is no number, or there are spaces: Gin minds neither
	}
	return addrIn(remote)
}

// platformAddr reads the header field that a platform writes. CloudFront-Viewer-Address always ends in a port, and has IPv6
// without brackets: "2001:db8::1:4711" is 2001:db8::1 there, and an address by itself in any other field.
func platformAddr(field, value string) string {
	if i := strings.LastIndexByte(value, ':'); field == "Cloudfront-Viewer-Address" && i > 0 && isPort(value[i+1:]) {
		if addr := addrIn(value[:i]); addr != "" {
			return addr
		}
	}
	return addrIn(value)
}

// clientAddr reads a header field to which each proxy appends the address that it was called from, as X-Forwarded-For or
// Forwarded has it, in one line or several: it returns the last address that is not trusted, or the first if all are.
// It is "" if an element on the way there cannot be read.
//
// Each element is read by itself, from the right, so that nothing which a client sent changes the meaning of what a
// proxy appended to it. Therefore a comma ends an element of Forwarded also inside quotes, where no address has one.
func clientAddr(field string, lines []string, trusts func(netip.Addr) bool) string {
	read := addrIn
	if field == "Forwarded" {
		read = forwardedAddr
	}
	for i := len(lines) - 1; i >= 0; i-- {
		for rest, more := lines[i], true; more; {
			element := rest
			at := strings.LastIndexByte(rest, ',')
			if more = at >= 0; more {
				rest, element = rest[:at], rest[at+1:]
			}
			text := read(element)
			addr, ok := parseAddr(text)
			if !ok || i == 0 && !more || !trusts(addr.Unmap()) {
				return text
			}
		}
	}
	return ""
}

// forwardedAddr reads an element of Forwarded (RFC 7239, section 4): the node of its only "for". "unknown" and obfuscated
// names are no address. An address without "for=" is one, as Gin has it.
func forwardedAddr(element string) string {
	if text := addrIn(element); text != "" {
		return text
	}
	node, found := "", false
	for rest := strings.Trim(element, " \t;"); rest != ""; rest = strings.TrimLeft(rest, " \t;") {
		name, after, ok := strings.Cut(rest, "=")
		if !ok || name == "" || strings.ContainsAny(name, " \t;\"") {
			return ""
		}
		var value string
		if value, rest, ok = pairValue(after); !ok {
			return ""
		}
		if strings.EqualFold(name, "for") {
			if found {
				return ""
			}
			node, found = value, true
		}
	}
	if i := strings.LastIndex(node, ":_"); i > 0 { // an obfuscated port, section 6.3
		node = node[:i]
	}
	return addrIn(node)
}

// pairValue returns the value at the beginning of text, without its quotes, and what follows it: nothing, or a semicolon.
func pairValue(text string) (value, rest string, ok bool) {
	if !strings.HasPrefix(text, `"`) {
		value, _, _ = strings.Cut(text, ";")
		return strings.TrimRight(value, " \t"), text[len(value):], value != "" && !strings.Contains(value, `"`)
	}
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			rest = strings.TrimLeft(text[i+1:], " \t")
			return text[1:i], rest, rest == "" || rest[0] == ';'
		}
	}
	return "", "", false
}
