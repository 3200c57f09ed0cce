package redis_test

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend/redis"
)

// keyNames are backends whose keys are looked at, with the prefix of each: the default, the
// shortest and the longest.
func keyNames(tb testing.TB) map[string]*redis.Backend {
	client := newClient(tb, miniredis.RunT(tb).Addr(), false)
	names := map[string]*redis.Backend{"gl": redis.New(client, redis.WithDenyCache(false))}
	for _, prefix := range []string{"1", strings.Repeat("p", 64)} {
		names[prefix] = redis.New(client, redis.WithDenyCache(false), redis.WithPrefix(prefix))
	}
	return names
}

// checkName holds a name to what every name is: short, printable, and with everything that tells it
// apart inside the one hash tag, so that no input chooses another key's slot.
func checkName(t *testing.T, prefix, name string) {
	t.Helper()
	tag, begins := strings.CutPrefix(name, prefix+"1:{")
	tag, ends := strings.CutSuffix(tag, "}")
	odd := strings.ContainsFunc(tag, func(r rune) bool { return r <= ' ' || r > '~' || r == '{' || r == '}' })
	if !begins || !ends || tag == "" || odd || len(name) > 200 {
		t.Fatalf("a key is called %q", name)
	}
}

func TestKeyNames(t *testing.T) {
	b := keyNames(t)["gl"]
	for key, want := range map[string]string{
		"api\x00ip:203.0.113.7":              "gl1:{api:ip:203.0.113.7}",
		"api\x00ip:2001:db8::/64":            "gl1:{api:ip:2001:db8::/64}",
		"log in\x00user:a b":                 "gl1:{log%20in:user:a%20b}",
		"a:b\x00c":                           "gl1:{a%3Ab:c}",
		"a\x00b:c":                           "gl1:{a:b:c}",
		"a\x00b\x00c":                        "gl1:{a:b%00c}",
		"a:b:c":                              "gl1:{a%3Ab%3Ac}",
		"":                                   "gl1:{%}",
		"\x00":                               "gl1:{:}",
		"%":                                  "gl1:{%25}",
		"%00":                                "gl1:{%2500}",
		"a\x00#" + strings.Repeat("A", 43):   "gl1:{a:%23" + strings.Repeat("A", 43) + "}",
		"}{\r\n\xff":                         "gl1:{%7D%7B%0D%0A%FF}",
		"api\x00é":                           "gl1:{api:%C3%A9}",
		strings.Repeat("k", 190):             "gl1:{" + strings.Repeat("k", 190) + "}",
		"api\x00" + strings.Repeat("k", 300): "gl1:{api:#",
		strings.Repeat("n", 300) + "\x00k":   "gl1:{#",
		strings.Repeat("n", 64) + "\x00" + strings.Repeat("k", 300): "gl1:{",
	} {
		name := redis.StateKey(b, key)
		checkName(t, "gl", name)
		if strings.HasSuffix(want, "}") {
			require.Equal(t, want, name, "%q", key)
		} else {
			require.True(t, strings.HasPrefix(name, want), "%q: %q", key, name)
		}
	}
}

// Different keys have different names, however alike they are, around the lengths from which names
// are hashed too.
func TestKeyNamesDiffer(t *testing.T) {
	t.Parallel()
	alphabet := []string{"\x00", ":", "%", "#", "{", "}", "a", "A", "0", "\xff", " ", "%00", "%3A", "é"}
	r := rand.New(rand.NewPCG(1, 2))
	for prefix, b := range keyNames(t) {
		names := map[string]string{}
		add := func(key string) {
			name := redis.StateKey(b, key)
			checkName(t, prefix, name)
			other, ok := names[name]
			if ok && other != key {
				t.Fatalf("%q is the name of %q and %q", name, key, other)
			}
			names[name] = key
		}
		for _, x := range append(alphabet, "") { // all short ones
			for _, y := range alphabet {
				for _, z := range append(alphabet, "") {
					add(x + y + z)
				}
			}
		}
		for length := range 220 {
			for _, fill := range []string{"k", ":", "\x01"} {
				long := strings.Repeat(fill, length)
				for _, key := range []string{long, "n\x00" + long, long + "\x00k", long + "\x00", long + ":", "n\x00" + long + ":", "n:" + long} {
					add(key)
				}
			}
		}
		for range 5_000 {
			var key strings.Builder
			for range 1 + r.IntN(90) {
				key.WriteString(alphabet[r.IntN(len(alphabet))])
			}
			add(key.String())
		}
	}
}

// FuzzStateKey looks for two keys with one name.
func FuzzStateKey(f *testing.F) {
	long, name := strings.Repeat("k", 250), strings.Repeat("n", 64)
	for _, pair := range [][2]string{
		{"api\x00ip:203.0.113.7", "api\x00ip:203.0.113.8"},
		{"", "%"}, {"", "\x00"}, {"\x00", ":"}, {"a\x00b", "a:b"}, {"a\x00b", "a%00b"}, {"a:b\x00c", "a\x00b:c"}, {"a\x00\x00b", "a\x00:b"},
		{"a}", "a%7D"}, {"{a", "a"}, {"a\x00}{b", "a\x00b"}, {"A", "a"}, {"é", "\xc3\xa9 "},
		{long, long + "k"}, {"n\x00" + long, "n:" + long}, {name + "\x00" + long, name + "n\x00" + long},
		{"n\x00" + long, "n\x00#" + strings.Repeat("A", 43)}, {long[:196], long[:197]}, {long[:198], long[:199]}, {"\x01" + long[:194], "\x01" + long[:195]},
	} {
		f.Add(pair[0], pair[1])
	}
	names := keyNames(f)
	f.Fuzz(func(t *testing.T, a, b string) {
		for prefix, backend := range names {
			one, two := redis.StateKey(backend, a), redis.StateKey(backend, b)
			checkName(t, prefix, one)
			checkName(t, prefix, two)
			require.Equal(t, a == b, one == two, "%q and %q are called %q and %q", a, b, one, two)
		}
	})
}
