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
	for _, file := range []string{"token_bucket", "sliding_window", "sliding_log", "fixed_window", "calendar_window", "concurrency"} {
		b.WriteString("local function " + file + "()\n" + join(file) + "end\n")
	}
	return b.String() + join("slots", "value", "bans", "decide")
}

// Take returns the script that decides for any limits; take.lua says what it is called with, and
// what it replies.
func Take() string {
	return join("open") + "local n, raw1 = #ARGV - 1, nil\n" + law() + join("take")
}

// TakeAll returns the script that decides for several keys; take_all.lua says what it is called
// with, and what it replies.
func TakeAll() string { return join("open") + "local seen = {}\n" + law() + join("take_all") }

// Settle returns the script that corrects a charge; settle.lua says what it is called with, and
// what it replies.
func Settle() string { return join("open", "release") + law() + join("settle") }

// Renew returns the script that holds units for longer; renew.lua says what it is called with, and
// what it replies.
func Renew() string { return join("open") + law() + join("renew") }

// Ban returns the script that bans a key; ban.lua says what it is called with, and what it replies.
func Ban() string { return join("open") + law() + join("ban") }

// QuickLimit is a limit of a call that quick.lua.tmpl may decide. A bucket has Parts if its units
// take parts of a microsecond.
type QuickLimit struct {
	Algorithm backend.Algorithm
	Parts     bool
}

// Numbers returns how many numbers the script is given for the limit.
func (l QuickLimit) Numbers() int {
	switch {
	case l.Parts:
		return 5
	case l.Algorithm == backend.CalendarWindow:
		return 3
	}
	return 2
}

// QuickKey is a key of a call: its limits, and whether a ban counts its refusals.
type QuickKey struct {
	Limits []QuickLimit
	Ban    bool
}

var quick = template.Must(template.New("quick.lua.tmpl").Funcs(words(nil)).ParseFS(files, "quick.lua.tmpl"))

// words returns how quick.lua.tmpl writes arguments, which are counted from 1: as their places, or
// as their values if args are not nil.
func words(args []string) template.FuncMap {
	word := func(i int) string {
		if args == nil {
			return fmt.Sprintf("ARGV[%d]", i)
		}
		return strconv.Quote(args[i-1])
	}
	number := func(first, i int) string {
		if args == nil {
			return word(first+i) + " + 0"
		}
		return args[first+i-1]
	}
	return template.FuncMap{
		"word":   word,
		"number": number,
		"cost": func(i int) string {
			if args == nil && i == 1 { // with a clock it is not all of the argument
				return "first + 0"
			}
			return number(i, 0)
		},
		"rule": func(i int) string { // with the spaces around it
			if args == nil {
				return "' ' .. " + word(i) + " .. ' '"
			}
			return strconv.Quote(" " + args[i-1] + " ")
		},
	}
}

// QuickTake is Take for calls that have just this key. The common case is decided first, as
// quick.lua.tmpl says. If args are not nil the script is for these arguments, which it has as
// constants; the cost is one then.
func QuickTake(key QuickKey, args []string) string {
	v := view{general: 1}
	v.add(key, 1)
	return v.script(fmt.Sprintf("local n = %d\n", v.general-1), "take", args)
}

// QuickTakeAll is TakeAll for calls that have just these keys. The common case is decided first, as
// in QuickTake.
func QuickTakeAll(keys []QuickKey, args []string) string {
	v := view{general: 1}
	for _, key := range keys {
		v.general += 2
		v.add(key, v.general-1)
	}
	seen := make([]string, len(keys))
	for i := range seen {
		seen[i] = fmt.Sprint("raw", i+1)
	}
	return v.script("local seen = {"+strings.Join(seen, ", ")+"}\n", "take_all", args)
}

// view is what quick.lua.tmpl is made of. What stands in the arguments is named by its index there.
type view struct {
	Groups  []group
	General bool // refusals are the general script's: a ban counts them, or they have a log
	limits  int  // of all groups
	general int  // how many arguments the general script has
}

// group is a key.
type group struct {
	G             int // which it is
	Cost, Pattern int
	Held          int // the limit that has a log, the last one; 0 without
	Limits        []limit
}

type limit struct {
	I, Rule, X                             int // which it is of all, its rule, and the first of its numbers
	Parts, Window, Sliding, Calendar, Held bool
	numbers                                int
}

// add adds a key whose rules follow the general script's arguments so far.
func (v *view) add(key QuickKey, cost int) {
	g := group{G: len(v.Groups) + 1, Cost: cost}
	for _, l := range key.Limits {
		v.limits++
		v.general++
		sliding := l.Algorithm == backend.SlidingWindow
		g.Limits = append(g.Limits, limit{
			I: v.limits, Rule: v.general, Parts: l.Parts, Window: sliding || l.Algorithm == backend.FixedWindow, Sliding: sliding,
			Calendar: l.Algorithm == backend.CalendarWindow, Held: l.Algorithm == backend.Concurrency, numbers: l.Numbers(),
		})
		if l.Algorithm == backend.Concurrency {
			v.General, g.Held = true, v.limits
		}
		if l.Algorithm == backend.CalendarWindow { // its window comes after its rule
			v.general++
		}
	}
	if key.Ban {
		v.General = true
		v.general++
	}
	v.Groups = append(v.Groups, g)
}

// script returns the script that decides the common case first and leaves the others to a general
// one, which begins with head.
func (v *view) script(head, general string, args []string) string {
	next := v.general + 1
	for i := range v.Groups {
		g := &v.Groups[i]
		g.Pattern = next
		next++
		for j := range g.Limits {
			g.Limits[j].X = next
			next += g.Limits[j].numbers
		}
	}
	var b strings.Builder
	if err := template.Must(quick.Clone()).Funcs(words(args)).Execute(&b, v); err != nil {
		panic("ginlimit: " + err.Error()) // not possible: the template is part of the program
	}
	if args != nil { // the general script finds them where they would be
		b.WriteString("first = " + strconv.Quote(args[0]) + "\nlocal ARGV = {first")
		for _, word := range args[1:v.general] {
			b.WriteString(", " + strconv.Quote(word))
		}
		b.WriteString("}\n")
	}
	return join("open") + comments.ReplaceAllString(b.String(), "") + head + law() + join(general)
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
