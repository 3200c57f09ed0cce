// Package lua is what package backend does, for Redis: one .lua file for each algorithm, the twin of the .go file of
// the same name, and the scripts that are put together of them. They are Lua 5.1, as Redis, Valkey and miniredis have it,
// and use no command or option that Redis 6.2 lacks.
package lua

import (
	"embed"
	"slices"
	"strings"

	"github.com/ginlimit/ginlimit/backend"
)

//go:embed *.lua
var files embed.FS

var fileOf = [...]string{
	backend.TokenBucket:   "token_bucket",
	backend.SlidingWindow: "sliding_window",
	backend.SlidingLog:    "sliding_log",
	backend.FixedWindow:   "fixed_window",
}

// Take returns the script that decides for limits of these algorithms, and of no others; take.lua says what it is
// called with, and what it replies. A quick one decides the common case first, as quick.lua says.
func Take(quick bool, algorithms ...backend.Algorithm) string {
	names := []string{"open"}
	if quick {
		names = append(names, "quick")
	}
	names = append(names, "rule")
	for a, name := range fileOf {
		if slices.Contains(algorithms, backend.Algorithm(a)) {
			names = append(names, name)
		}
	}
	return join(append(names, "take"))
}

// Refund returns the script that gives a charge back; refund.lua says what it is called with, and what it replies.
func Refund() string {
	return join(append(append([]string{"open", "rule"}, fileOf[:]...), "refund"))
}

func join(names []string) string {
	var b strings.Builder
	for _, name := range names {
		text, err := files.ReadFile(name + ".lua")
		if err != nil {
			panic("ginlimit: " + err.Error()) // not possible: the files are part of the program
		}
		b.Write(text)
	}
	return b.String()
}
