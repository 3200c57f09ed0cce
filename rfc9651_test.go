package ginlimit_test

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// sfItem is a string of a structured field with parameters that are integers (RFC 9651, sections 3.1 and 3.3).
type sfItem struct {
	value  string
	params map[string]int64
}

// parseSFList parses a list of strings in the one form that section 4.1 lets a sender write: ", " between members,
// nothing around ";" and "=", no parameter twice, no zero before a digit.
func parseSFList(s string) (list []sfItem, err error) {
	for {
		var item sfItem
		if item, s, err = parseSFItem(s); err != nil {
			return nil, err
		}
		if list = append(list, item); s == "" {
			return list, nil
		}
		var found bool
		if s, found = strings.CutPrefix(s, ", "); !found {
			return nil, fmt.Errorf("want a comma and a space before %q", s)
		}
	}
}

func parseSFItem(s string) (item sfItem, rest string, err error) {
	if item.value, s, err = parseSFString(s); err != nil {
		return item, "", err
	}
	item.params = map[string]int64{}
	for strings.HasPrefix(s, ";") {
		s = s[1:]
		n := 0
		for n < len(s) && (s[n] >= 'a' && s[n] <= 'z' || s[n] == '*' || n > 0 && (s[n] >= '0' && s[n] <= '9' || strings.ContainsRune("_-.", rune(s[n])))) {
			n++
		}
		key := s[:n]
		if n == 0 || !strings.HasPrefix(s[n:], "=") {
			return item, "", fmt.Errorf("want a key and a value at %q", s)
		}
		s = s[n+1:]
		for n = 0; n < len(s) && (s[n] >= '0' && s[n] <= '9' || n == 0 && s[n] == '-'); {
			n++
		}
		number, err := strconv.ParseInt(s[:n], 10, 64)
		if err != nil || strconv.FormatInt(number, 10) != s[:n] || len(strings.TrimPrefix(s[:n], "-")) > 15 {
			return item, "", fmt.Errorf("want an integer at %q", s)
		}
		if _, twice := item.params[key]; twice {
			return item, "", fmt.Errorf("parameter %q stands there twice", key)
		}
		item.params[key], s = number, s[n:]
	}
	return item, s, nil
}

func parseSFString(s string) (value, rest string, err error) {
	if !strings.HasPrefix(s, `"`) {
		return "", "", fmt.Errorf("want a string at %q", s)
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch ch := s[i]; {
		case ch == '"':
			return b.String(), s[i+1:], nil
		case ch == '\\':
			if i++; i == len(s) || s[i] != '"' && s[i] != '\\' {
				return "", "", errors.New("a backslash before something else than a quote or a backslash")
			}
			b.WriteByte(s[i])
		case ch < 0x20 || ch > 0x7e:
			return "", "", fmt.Errorf("byte %#x in a string", ch)
		default:
			b.WriteByte(ch)
		}
	}
	return "", "", errors.New("the string does not end")
}

func TestParseSFList(t *testing.T) {
	list, err := parseSFList(`"a \"b\" \\";q=100;w=60, "";x*_-.9=-5, "c"`)
	assert.NoError(t, err)
	assert.Equal(t, []sfItem{
		{`a "b" \`, map[string]int64{"q": 100, "w": 60}},
		{"", map[string]int64{"x*_-.9": -5}},
		{"c", map[string]int64{}},
	}, list)
	for _, bad := range []string{
		``, ` `, `a`, `"a`, `"a" `, ` "a"`, `"a","b"`, `"a" , "b"`, `"a",  "b"`, `"a", `, `"a",`, `"a"; q=1`, `"a";q =1`, `"a";q= 1`,
		`"a";Q=1`, `"a";1=1`, `"a";q`, `"a";q=`, `"a";q=-`, `"a";q=+1`, `"a";q=01`, `"a";q=-0`, `"a";q=1.5`, `"a";q=1;q=1`,
		`"a";q=1000000000000000`, "\"\x7f\"", "\"\n\"", `"é"`, `"\n"`, `"\`, `"a"x`, `a="b"`,
	} {
		_, err := parseSFList(bad)
		assert.Error(t, err, bad)
	}
}
