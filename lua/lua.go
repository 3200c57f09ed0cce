// Package lua is what package backend does, for Redis: one .lua file for each algorithm, the twin of the .go file of
// the same name, and the scripts that are put together of them. They are Lua 5.1, as Redis, Valkey and miniredis have it,
// and use no command or option that Redis 6.2 lacks.
package lua

import (
	"embed"
	"fmt"
	"slices"
	"strconv"
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

var quick = template.Must(template.New("quick.lua.tmpl").Funcs(constants(0, nil)).ParseFS(files, "quick.lua.tmpl"))

// constants returns what quick.lua.tmpl writes for the arguments after the cost: where they are, or if args are not nil
// what they are.
func constants(limits int, args []string) template.FuncMap {
	word := func(i int) string { // from 0
		if args == nil {
			return fmt.Sprintf("ARGV[%d]", i+2)
		}
		return strconv.Quote(args[i])
	}
	return template.FuncMap{
		"number": func(first, i int) string {
			if args == nil {
				return word(first+i) + " + 0"
			}
			return args[first+i]
		},
		"pattern": func() string { return word(limits) },
		"rule": func(i int) string { // with the spaces around it
			if args == nil {
				return "' ' .. " + word(i-1) + " .. ' '"
			}
			return strconv.Quote(" " + args[i-1] + " ")
		},
	}
}

// QuickTake is Take for calls that have just these limits. The common case is decided first, as quick.lua.tmpl says. If
// args are not nil the script is for a cost of one, and has them, the arguments after the cost, as constants.
func QuickTake(limits []QuickLimit, args []string) string {
	algorithms := make([]backend.Algorithm, len(limits))
	for i, l := range limits {
		algorithms[i] = l.Algorithm
	}
	text := join("open") + decide(false, limits, args)
	if args != nil { // take.lua finds them where they would be
		text += "first = '1'\nlocal ARGV = {first"
		for _, rule := range args[:len(limits)] {
			text += ", " + strconv.Quote(rule)
		}
		text += "}\n"
	}
	return text + take(algorithms)
}

// Batch returns the script that decides about many keys, under just these limits and with the arguments of QuickTake. It
// replies with a list: what QuickTake replies, for each key, or nil for one that is not the common case. Nothing was
// written to that, and QuickTake has to be asked.
func Batch(limits []QuickLimit, args []string) string {
	return join("open") + decide(true, limits, args)
}

// decide returns what quick.lua.tmpl makes of limits.
func decide(batch bool, limits []QuickLimit, args []string) string {
	type view struct {
		I, X                   int // which limit it is, from 1; where in the arguments after the cost its numbers begin, from 0
		Parts, Window, Sliding bool
	}
	views := make([]view, len(limits))
	x := len(limits) + 1
	for i, l := range limits {
		sliding := l.Algorithm == backend.SlidingWindow
		views[i] = view{i + 1, x, l.Parts, sliding || l.Algorithm == backend.FixedWindow, sliding}
		x += l.Numbers()
	}
	var b strings.Builder
	err := template.Must(quick.Clone()).Funcs(constants(len(limits), args)).Execute(&b, struct {
		Batch     bool
		Constants bool
		Limits    []view
	}{batch, args != nil, views})
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
