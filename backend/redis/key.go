package redis

import (
	"crypto/sha256"
	"encoding/base64"
	"strings"
)

// The layout's version. A later one that this one cannot read gets another number.
const version = "1:"

// maxKey is the longest key in Redis, in bytes.
const maxKey = 200

// stateKey returns the name under which the state of key is kept: prefix1:{limiter:key}.
func (c *config) stateKey(key string) string { return c.key("", key) }

// key returns the name of a key of some kind, all of whose identity is inside the one hash tag. What could leave the tag or be mistaken is escaped as %XX. Of a key that would be too long
// the limiter's name stays, if that is not too long itself, and "#" and its SHA-256 follow.
//
// The first NUL, which the root package puts between the limiter's name and the client's key, becomes the first colon;
// a colon before it, or in a key without one, is escaped.
func (c *config) key(kind, key string) string {
	var buf [maxKey + 8]byte
	b := append(buf[:0], c.prefix...)
	b = append(b, version...)
	b = append(b, kind...)
	b = append(b, '{')
	name := strings.IndexByte(key, 0)
	tag, ok := len(b), true
	if name >= 0 {
		b, ok = appendEscaped(b, key[:name], false)
		b = append(b, ':')
	}
	if ok {
		b, ok = appendEscaped(b, key[name+1:], name >= 0)
	}
	if len(b) == tag {
		b = append(b, '%') // an empty tag would not be one
	}
	if !ok || len(b)+1 > maxKey {
		b = b[:tag]
		if name >= 0 && name <= 64 {
			if b, ok = appendEscaped(b, key[:name], false); ok && len(b)-tag <= 64 {
				b = append(b, ':')
			} else {
				b = b[:tag]
			}
		}
		sum := sha256.Sum256([]byte(key))
		b = append(b, '#')
		b = base64.RawURLEncoding.AppendEncode(b, sum[:])
	}
	return string(append(b, '}'))
}

// appendEscaped appends text, as long as that leaves b within maxKey; it reports whether it did.
func appendEscaped(b []byte, text string, colons bool) ([]byte, bool) {
	for i := range len(text) {
		if len(b) > maxKey-3 {
			return b, false
		}
		switch c := text[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == ':' && colons,
			c == '-', c == '.', c == '_', c == '~', c == '/', c == '@', c == '+', c == '=', c == ',':
			b = append(b, c)
		default:
			const hex = "0123456789ABCDEF"
			b = append(b, '%', hex[c>>4], hex[c&15])
		}
	}
	return b, true
}
