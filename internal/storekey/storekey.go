// Package storekey writes the keys of callers so that a store can have them: short, printable and
// injective, whatever clients send.
package storekey

import (
	"crypto/sha256"
	"encoding/base64"
	"strings"
)

// maxName is the longest name of a limiter, in bytes as written, that stays when the rest is
// hashed.
const maxName = 64

// Append appends key to b, in a form that has no space, brace, quote or byte that does not print,
// and is never empty. Different keys have different forms. What could be mistaken is escaped as
// %XX. Of a key with which b would be longer than limit bytes the limiter's name stays, if that is
// not too long itself, and "#" and the key's SHA-256 follow: 108 bytes at most.
//
// The first NUL, which the root package puts between the limiter's name and the client's key,
// becomes the first colon; a colon before it, or in a key without one, is escaped.
func Append(b []byte, key string, limit int) []byte {
	start := len(b)
	name := strings.IndexByte(key, 0)
	ok := true
	if name >= 0 {
		b, ok = appendEscaped(b, key[:name], limit, false)
		b = append(b, ':')
	}
	if ok {
		b, ok = appendEscaped(b, key[name+1:], limit, name >= 0)
	}
	if len(b) == start {
		b = append(b, '%')
	}
	if ok && len(b) <= limit {
		return b
	}
	b = b[:start]
	if name >= 0 && name <= maxName {
		if b, ok = appendEscaped(b, key[:name], start+maxName, false); ok {
			b = append(b, ':')
		} else {
			b = b[:start]
		}
	}
	sum := sha256.Sum256([]byte(key))
	return base64.RawURLEncoding.AppendEncode(append(b, '#'), sum[:])
}

// appendEscaped appends text, as long as that leaves b within limit; it reports whether it did.
func appendEscaped(b []byte, text string, limit int, colons bool) ([]byte, bool) {
	for i := range len(text) {
		room := limit - len(b)
		switch c := text[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == ':' && colons,
			c == '-', c == '.', c == '_', c == '~', c == '/', c == '@', c == '+', c == '=', c == ',':
			if room < 1 {
				return b, false
			}
			b = append(b, c)
		default:
			if room < 3 {
				return b, false
			}
			const hex = "0123456789ABCDEF"
			b = append(b, '%', hex[c>>4], hex[c&15])
		}
	}
	return b, true
}
