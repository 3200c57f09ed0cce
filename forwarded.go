package ginlimit

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// This file reads the forms of an address that proxies, platforms and adapters write. Each function
// returns the text of the address alone, which parseAddr reads, or "" if there is no address.

// parseAddr is netip.ParseAddr, and takes a zone on IPv4 in IPv6 too.
func parseAddr(text string) (netip.Addr, bool) {
	addr, err := netip.ParseAddr(text)
	if err == nil {
		return addr, true
	}
	if spelling, zone, _ := strings.Cut(text, "%"); zone != "" {
		if addr, err = netip.ParseAddr(spelling); err == nil && addr.Is4In6() {
			return addr, true
		}
	}
	return netip.Addr{}, false
}

func isAddr(text string) bool {
	_, ok := parseAddr(text)
	return ok
}

// addrIn reads address, address:port, [IPv6] and [IPv6]:port, each also in quotes. IPv6 with a port
// but without brackets is read too, unless all of it is an address.
func addrIn(text string) string {
	text = strings.TrimSpace(text)
	if n := len(text); n >= 2 && text[0] == '"' && text[n-1] == '"' {
		text = text[1 : n-1]
	}
	if inside, ok := strings.CutPrefix(text, "["); ok {
		addr, rest, ok := strings.Cut(inside, "]")
		port, hasPort := strings.CutPrefix(rest, ":")
		if ok && strings.Contains(addr, ":") && isAddr(addr) && (rest == "" || hasPort && isPort(port)) {
			return addr
		}
		return ""
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

// socketAddr reads http.Request.RemoteAddr. net/http writes address:port. Adapters of AWS Lambda
// and middleware that puts the client's address there write any form of addrIn.
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
		return host // spaces around it, or a port that is no number: Gin reads that too
	}
	return addrIn(remote)
}

// platformAddr reads the header field that a platform writes. CloudFront-Viewer-Address always ends
// in a port and has IPv6 without brackets: there, "2001:db8::1:4711" is 2001:db8::1. In any other
// field it is all address.
func platformAddr(field, value string) string {
	if i := strings.LastIndexByte(value, ':'); field == "Cloudfront-Viewer-Address" && i > 0 && isPort(value[i+1:]) {
		if addr := addrIn(value[:i]); addr != "" {
			return addr
		}
	}
	return addrIn(value)
}

// clientAddr reads X-Forwarded-For, Forwarded or the like: a header field, in one line or several,
// to which each proxy appends the address that called it. It returns the last address that is not
// trusted, or the first address if all are trusted. It returns "" if it meets an element that it
// cannot read.
//
// It reads each element by itself, from the right, so that nothing that a client sent changes the
// meaning of what a proxy appended. For the same reason a comma ends an element of Forwarded even
// inside quotes; no address has a comma.
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

// forwardedAddr reads an element of Forwarded (RFC 7239, section 4). It takes the node of the only
// "for", of which "unknown" and obfuscated names are no address. It also takes an address without
// "for=", as Gin does.
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

// pairValue returns the value at the beginning of text, without its quotes, and the rest, which
// begins with a semicolon or is empty.
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
