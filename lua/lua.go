// Package lua is what package backend/algorithm does, for Redis: one .lua file for each algorithm,
// the twin of the .go file of the same name, and the scripts that are put together of them. They
// run on Lua 5.1, as Redis, Valkey and miniredis have it, and give the same bytes on Lua 5.4. They
// use no command or option that Redis 6.2 lacks.
package lua

import (
	"embed"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"text/template"

	"github.com/ginlimit/ginlimit/backend"
)

//go:embed *.lua *.tmpl
var files embed.FS

// law returns what decides. All algorithms are there, whatever the limits of a call are, because
// the limits that a key was charged under before may be others. But making their functions takes
// longer than a decision, so that the file of each is a function itself, which slots.lua calls when
// it is needed.
func law() string {
	var b strings.Builder
	b.WriteString(join("rule"))
	for _, file := range []string{"token_bucket", "sliding_window", "sliding_log", "fixed_window"} {
		b.WriteString("local function " + file + "()\n" + join(file) + "end\n")
	}
	return b.String() + join("slots", "value", "decide")
}

// Take returns the script that decides for any limits; take.lua says what it is called with, and
// what it replies.
func Take() string {
	return join("open") + "local raw, n = nil, #ARGV - 1\n" + law() + join("take")
}

// TakeAll returns the script that decides for several keys; take_all.lua says what it is called with,
// and what it replies.
func TakeAll() string { return join("open") + law() + join("take_all") }

// Settle returns the script that corrects a charge; settle.lua says what it is called with, and what
// it replies.
func Settle() string { return join("open") + law() + join("settle") }

// QuickLimit is a limit of a call that quick.lua.tmpl may decide. A bucket has Parts if its units
// take parts of a microsecond.
type QuickLimit struct {
	Algorithm backend.Algorithm
	Parts     bool
}

// Numbers returns how many numbers the script is given for the limit.
func (l QuickLimit) Numbers() int {
	if l.Parts {
		return 5
	}
	return 2
}

var quick = template.Must(template.New("quick.lua.tmpl").Funcs(constants(0, nil)).ParseFS(files, "quick.lua.tmpl"))

// constants returns what quick.lua.tmpl writes for the arguments after the cost: where they are, or
// if args are not nil what they are.
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

// QuickTake is Take for calls that have just these limits. The common case is decided first, as
// quick.lua.tmpl says. If args are not nil the script is for a cost of one, and has them, the
// arguments after the cost, as constants.
func QuickTake(limits []QuickLimit, args []string) string {
	type view struct {
		I                      int // which limit it is, from 1
		X                      int // where in the arguments after the cost its numbers begin, from 0
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
		Constants bool
		Limits    []view
	}{args != nil, views})
	if err != nil {
		panic("ginlimit: " + err.Error()) // not possible: the template is part of the program
	}
	if args != nil { // take.lua finds them where they would be
		b.WriteString("first = '1'\nlocal ARGV = {first")
		for _, rule := range args[:len(limits)] {
			b.WriteString(", " + strconv.Quote(rule))
		}
		b.WriteString("}\n")
	}
	return join("open") + comments.ReplaceAllString(b.String(), "") + law() + join("take")
}

// comments are whole lines of them: Redis keeps the text of every script.
var comments = regexp.MustCompile(`(?m)^ *(--.*)?\n`)

func join(names ...string) string {
	var b strings.Builder
	for _, name := range names {
		text, err := files.ReadFile(name + ".lua")
		if err != nil {
			panic("ginlimit: " + err.Error()) // not possible: the files are part of the program
		}
		b.Write(comments.ReplaceAll(text, nil))
	}
	return b.String()
}
