// Package lua is what package backend does, for Redis: one .lua file for each algorithm, the twin of the .go file of
// the same name, and the scripts that are put together of them. They are Lua 5.1, as Redis, Valkey and miniredis have it,
// and use no command or option that Redis 6.2 lacks.
package lua

import (
	"embed"
	"slices"
	"strings"
	"text/template"

	"github.com/ginlimit/ginlimit/backend"
)

//go:embed *.lua *.tmpl
var files embed.FS

var fileOf = [...]string{
	backend.TokenBucket:   "token_bucket",
	backend.SlidingWindow: "sliding_window",
	backend.SlidingLog:    "sliding_log",
	backend.FixedWindow:   "fixed_window",
}

// Take returns the script that decides for limits of these algorithms, and of no others; take.lua says what it is
// called with, and what it replies.
func Take(algorithms ...backend.Algorithm) string { return join("open", "key") + take(algorithms) }

// QuickLimit is a limit of a call that quick.lua.tmpl may decide. A bucket has Parts if its units take parts of a
// microsecond.
type QuickLimit struct {
	Algorithm backend.Algorithm
	Parts     bool
}

// Numbers returns how many numbers the script is given for the limit.
func (l QuickLimit) Numbers() int {
	if l.Parts {
		return 4
	}
	return 2
}

var quick = template.Must(template.ParseFS(files, "quick.lua.tmpl"))

// QuickTake is Take for calls that have just these limits. The common case is decided first, as quick.lua.tmpl says.
func QuickTake(limits ...QuickLimit) string {
	algorithms := make([]backend.Algorithm, len(limits))
	for i, l := range limits {
		algorithms[i] = l.Algorithm
	}
	return join("open") + decide(false, limits) + take(algorithms)
}

// Batch returns the script that decides about many keys, under just these limits and with the arguments of QuickTake. It
// replies with a list: what QuickTake replies, for each key, or nil for one that is not the common case. Nothing was
// written to that, and QuickTake has to be asked.
func Batch(limits ...QuickLimit) string { return join("open") + decide(true, limits) }

// decide returns what quick.lua.tmpl makes of limits.
func decide(batch bool, limits []QuickLimit) string {
	type view struct {
		I, X                   int // which limit it is, from 1; where in ARGV its numbers begin
		Parts, Window, Sliding bool
	}
	views := make([]view, len(limits))
	x := len(limits) + 3
	for i, l := range limits {
		sliding := l.Algorithm == backend.SlidingWindow
		views[i] = view{i + 1, x, l.Parts, sliding || l.Algorithm == backend.FixedWindow, sliding}
		x += l.Numbers()
	}
	var b strings.Builder
	err := quick.Execute(&b, struct {
		Batch  bool
		Limits []view
	}{batch, views})
	if err != nil {
		panic("ginlimit: " + err.Error()) // not possible: the template is part of the program
	}
	return b.String()
}

func take(algorithms []backend.Algorithm) string {
	names := []string{"rule"}
	for a, name := range fileOf {
		if slices.Contains(algorithms, backend.Algorithm(a)) {
			names = append(names, name)
		}
	}
	return join(append(names, "take")...)
}

// Refund returns the script that gives a charge back; refund.lua says what it is called with, and what it replies.
func Refund() string {
	return join("open", "key", "rule") + join(fileOf[:]...) + join("refund")
}

func join(names ...string) string {
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
