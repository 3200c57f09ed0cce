package ginlimit

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net/http"
	"reflect"
	"strconv"
	"strings"

	"github.com/gin-gonic/gin"
)

// KeyFunc says who is asking: requests with one key share one budget. It must be safe for
// concurrent use.
//
// An error that is ErrNoKey, or an empty key, refuses the request with 400, so that leaving a
// header out is no way around a limit. ErrSkip lets the request pass uncharged. Any other error is
// left to the [FailurePolicy]. Keys may hold any bytes. Those of the By… functions begin with their
// kind, "ip:" or "user:" for example.
//
// A limiter calls its KeyFunc once for a request. A few times in its life it calls it once more
// after the handlers ran, to notice that authentication comes too late (GINLIMIT004).
//
// [Limiter.Reset], [Limiter.Peek] and [Limiter.Allow] take the key as text. Decision.Key has the
// key of a request. Outside a request, a function makes it from a value, whichever KeyFunc the
// limiter has:
//
//	ByIP()              KeyOfIP(addr)                "ip:192.0.2.1", "ip:2001:db8:1:2::/64"
//	ByIPPrefix(24, 48)  KeyOfIPPrefix(addr, 24, 48)  "net:192.0.2.0/24", "net:2001:db8:1::/48"
//	ByAPIKey(header)    KeyOfAPIKey(header, value)   "apikey:" and 32 hexadecimal digits
//	ByUserID(name)      KeyOfUser(id)                "user:alice", "user:42"
//	ByRoute()           KeyOfRoute(method, path)     "route:GET /users/:id"; "route:" if none matches
//	Global()            KeyOfGlobal()                "global:"
//	Join(a, b)          JoinKeys(keyA, keyB)         "join:", then each key after its length
//	FirstOf(a, b)       the key of a, or that of b
//
// A key that no request has is no error: Reset forgets nothing, and Peek finds it unused.
type KeyFunc func(*gin.Context) (string, error)

var (
	// ErrNoKey says that a request has nothing to be known by. The request is answered with 400, or
	// tried by the next KeyFunc of FirstOf.
	ErrNoKey = errors.New("ginlimit: the request has no key")
	// ErrSkip says that a request is not to be limited. It passes, is not charged and gets no
	// headers.
	ErrSkip = errors.New("ginlimit: the request is not limited")
)

// ByAPIKey keys by the value of a request header, or by its first line if there are several. The
// value is hashed (SHA-256, 128 bits of it), so that no secret reaches a backend, a log or a
// metric. A request without the header is ErrNoKey. ByAPIKey panics if header is empty or cannot be
// the name of a header, as "X API Key" cannot.
//
// ByAPIKey does not check the value. Put a limit by IP before it, because a caller that invents
// keys has a budget for each.
//
// Each spelling of a value is a caller of its own. If authentication takes one key in several
// spellings, the key's owner has several budgets. Two differences do not count: spaces around the
// value and, in Authorization and Proxy-Authorization, the case of the scheme and the number of
// spaces after it. Make everything else normal before ByAPIKey, such as the case of keys that are
// compared without it, or a prefix that may be left out.
//
// Do not use ByAPIKey for JSON Web Tokens and Basic credentials: lenient decoders of Base64 take up
// to 16 spellings of each, and a caller may have many valid tokens. Let authentication run first,
// and use [ByUserID] for the caller that it found.
func ByAPIKey(header string) KeyFunc {
	if header == "" {
		panic(errors.New(`ginlimit: ByAPIKey(""): name the header that carries the key`))
	}
	if !isFieldName(header) {
		panic(fmt.Errorf("ginlimit: ByAPIKey(%q): no header can have that name; use letters, digits and hyphens", header))
	}
	header = http.CanonicalHeaderKey(header)
	return func(c *gin.Context) (string, error) {
		key := KeyOfAPIKey(header, c.Request.Header.Get(header))
		if key == "" {
			return "", ErrNoKey
		}
		return key, nil
	}
}

// isFieldName reports whether s is a token of RFC 9110, section 5.6.2, as the name of a field is.
func isFieldName(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
	})
}

// KeyOfAPIKey returns the key that [ByAPIKey] has for a value of a header, or "" if the value is
// empty.
func KeyOfAPIKey(header, value string) string {
	value = strings.Trim(value, " \t") // net/http does that for HTTP/1 only
	if value == "" {
		return ""
	}
	if isCredentials(header) {
		if i := strings.IndexAny(value, " \t"); i > 0 { // RFC 9110, section 11.4
			value = strings.ToLower(value[:i]) + " " + strings.TrimLeft(value[i:], " \t")
		}
	}
	sum := sha256.Sum256([]byte(value))
	return "apikey:" + hex.EncodeToString(sum[:16])
}

func isCredentials(header string) bool {
	return strings.EqualFold(header, "Authorization") || strings.EqualFold(header, "Proxy-Authorization")
}

// ByUserID keys by the value that authentication set with c.Set(name, …). Authentication has to run
// before the limiter. The value is a string, an integer, a whole float below 2^53, which is what a
// JSON number becomes, or anything with a String method. A request without it is ErrNoKey. So is
// one whose value is empty or of another type; diagnostic GINLIMIT008 names the type. ByUserID
// panics if name is empty.
//
// All IDs are of one kind. To keep the users and the services of one limiter apart, make the IDs
// differ, or write a KeyFunc.
func ByUserID(name string) KeyFunc {
	if name == "" {
		panic(errors.New(`ginlimit: ByUserID(""): name the value that authentication sets`))
	}
	return func(c *gin.Context) (string, error) {
		value, _ := c.Get(name)
		id, ok := idOf(value)
		switch {
		case !ok && reflect.ValueOf(value).CanFloat():
			return noKey(c, fmt.Sprintf("ByUserID(%q) finds a %T that is not whole, or too large to be exact", name, value),
				"Set a string, or decode JSON numbers as json.Number")
		case !ok:
			return noKey(c, fmt.Sprintf("ByUserID(%q) finds a %T", name, value), "Set a string, an integer or a fmt.Stringer")
		case id == "":
			return "", ErrNoKey
		}
		return "user:" + id, nil
	}
}

// KeyOfUser returns the key that [ByUserID] has for a value, or "" if the value cannot be an ID.
func KeyOfUser(id any) string {
	text, _ := idOf(id)
	if text == "" {
		return ""
	}
	return "user:" + text
}

// idOf returns the text of an ID, "" for none, and false if value cannot be one.
func idOf(value any) (string, bool) {
	switch v := value.(type) {
	case nil:
		return "", true
	case string:
		return v, true
	}
	rv := reflect.ValueOf(value)
	if s, ok := value.(fmt.Stringer); ok {
		if rv.Kind() == reflect.Pointer && rv.IsNil() {
			return "", true
		}
		return s.String(), true
	}
	switch {
	case rv.CanInt():
		return strconv.FormatInt(rv.Int(), 10), true
	case rv.CanUint():
		return strconv.FormatUint(rv.Uint(), 10), true
	case rv.CanFloat():
		return wholeNumber(rv)
	case rv.Kind() == reflect.String:
		return rv.String(), true
	default:
		return "", false
	}
}

// wholeNumber returns the text of a float, and false if it is not whole or another number may have
// been rounded to it.
func wholeNumber(rv reflect.Value) (string, bool) {
	exact := float64(1 << 53)
	if rv.Kind() == reflect.Float32 {
		exact = 1 << 24
	}
	f := rv.Float()
	if f != math.Trunc(f) || math.Abs(f) >= exact {
		return "", false
	}
	return strconv.FormatInt(int64(f), 10), true
}

// ByRoute keys by method and route pattern, such as "GET /users/:id". HEAD counts as GET. All
// requests that match no route share one key, so that nobody can make keys up.
func ByRoute() KeyFunc {
	return func(c *gin.Context) (string, error) { return KeyOfRoute(c.Request.Method, c.FullPath()), nil }
}

// KeyOfRoute returns the key that [ByRoute] has for a method and the pattern of a route, such as
// "/users/:id". With an empty path it is the key of all requests that match no route.
func KeyOfRoute(method, path string) string {
	if path == "" {
		return "route:"
	}
	if method == http.MethodHead {
		method = http.MethodGet
	}
	return "route:" + method + " " + path
}

// Global gives all requests one key.
func Global() KeyFunc {
	return func(*gin.Context) (string, error) { return KeyOfGlobal(), nil }
}

// KeyOfGlobal returns the key that [Global] has for all requests.
func KeyOfGlobal() string { return "global:" }

// Join keys by all of keys at once: Join(ByUserID("user"), ByRoute()) is a budget for each user on
// each route. Join fails with the first of keys that fails. Lists that differ never share a key.
// Join panics if there is no KeyFunc, or one is nil.
func Join(keys ...KeyFunc) KeyFunc {
	mustHave("Join", keys)
	return func(c *gin.Context) (string, error) {
		parts := make([]string, 0, 8)
		for _, key := range keys {
			part, err := key(c)
			if err != nil {
				return "", err
			}
			if part == "" {
				return "", ErrNoKey
			}
			parts = append(parts, part)
		}
		return JoinKeys(parts...), nil
	}
}

// JoinKeys returns the key that [Join] makes of these keys, or "" if there is none or one is empty.
// It writes each key after its length, so that no two lists are written alike.
func JoinKeys(keys ...string) string {
	n := len("join:") + 4*len(keys)
	for _, key := range keys {
		if key == "" {
			return ""
		}
		n += len(key)
	}
	if len(keys) == 0 {
		return ""
	}
	var b strings.Builder
	b.Grow(n)
	b.WriteString("join:")
	var length [20]byte
	for _, key := range keys {
		b.Write(strconv.AppendInt(length[:0], int64(len(key)), 10))
		b.WriteByte(':')
		b.WriteString(key)
	}
	return b.String()
}

// FirstOf keys by the first of keys that does not return ErrNoKey: FirstOf(ByUserID("user"),
// ByIP()) gives users their own budget and the others one for each address. If a KeyFunc finds no
// key because of the type or the shape of a value, diagnostic GINLIMIT008 says so. FirstOf panics
// if there is no KeyFunc, or one is nil.
func FirstOf(keys ...KeyFunc) KeyFunc {
	mustHave("FirstOf", keys)
	return func(c *gin.Context) (string, error) {
		for _, key := range keys {
			part, err := key(c)
			if err == nil && part != "" {
				return part, nil
			}
			if err != nil && !errors.Is(err, ErrNoKey) {
				return "", err
			}
		}
		return "", ErrNoKey
	}
}

// keyless is the ErrNoKey of a request that has something to be known by, of a type or shape that
// cannot be used.
type keyless string

func (e keyless) Error() string { return ErrNoKey.Error() + ": " + string(e) }
func (e keyless) Unwrap() error { return ErrNoKey }

// noKey returns what a KeyFunc returns for such a request, and leaves a note for the limiter.
func noKey(c *gin.Context, why, fix string) (string, error) {
	note(c, why+". Such a request is answered with 400, or left to the next KeyFunc of FirstOf. "+fix)
	return "", keyless(why)
}

func mustHave(name string, keys []KeyFunc) {
	if len(keys) == 0 {
		panic(fmt.Errorf("ginlimit: %s(): name at least one key", name))
	}
	for i, key := range keys {
		if key == nil {
			panic(fmt.Errorf("ginlimit: %s: key %d is nil", name, i+1))
		}
	}
}
