package postgres_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend/postgres"
)

// FuzzStateKey looks for two keys with one row, and for one that a database could refuse. How keys
// are written is tested where they are, in internal/storekey.
func FuzzStateKey(f *testing.F) {
	long := strings.Repeat("k", 250)
	for _, pair := range [][2]string{
		{"api\x00ip:203.0.113.7", "api\x00ip:203.0.113.8"}, {"", "\x00"}, {"a\x00b", "a:b"}, {long, long + "k"}, {"é", "\xc3\xa9 "},
		{long[:199], long[:200]}, {long[:200], long[:201]}, {"n\x00" + long, "n:" + long}, {"'", `\`},
	} {
		f.Add(pair[0], pair[1])
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		one, two := postgres.StateKey(a), postgres.StateKey(b)
		require.Equal(t, a == b, one == two, "%q and %q are called %q and %q", a, b, one, two)
		for _, name := range []string{one, two} {
			require.NotEmpty(t, name)
			require.LessOrEqual(t, len(name), 200)
			require.True(t, utf8.ValidString(name))
			require.False(t, strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }), "%q", name)
		}
	})
}
