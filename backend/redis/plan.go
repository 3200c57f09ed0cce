package redis

import (
	"crypto/sha1" //nolint:gosec // it is how Redis names scripts
	"encoding/hex"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/algorithm"
	"github.com/ginlimit/ginlimit/internal/plans"
	"github.com/ginlimit/ginlimit/lua"
)

// script is a Lua script and the name that Redis has for it.
type script struct{ text, sha string }

func newScript(text string) *script {
	sum := sha1.Sum([]byte(text)) //nolint:gosec // it is how Redis names scripts
	return &script{text, hex.EncodeToString(sum[:])}
}

var refundScript = sync.OnceValue(func() *script { return newScript(lua.Refund()) })

// takeScripts are the scripts that were put together, by the letters of their algorithms, and those with quick.lua.tmpl by
// what is asked of it.
var takeScripts sync.Map // of string to *script

func takeScript(name string, text func() string) *script {
	s, ok := takeScripts.Load(name)
	if !ok {
		s, _ = takeScripts.LoadOrStore(name, newScript(text()))
	}
	return s.(*script)
}

func generalScript(algorithms []backend.Algorithm) *script {
	set := make([]byte, 0, len(letter))
	for a := range letter {
		if slices.Contains(algorithms, backend.Algorithm(a)) {
			set = append(set, letter[a])
		}
	}
	return takeScript(string(set), func() string { return lua.Take(algorithms...) })
}

func quickScript(limits []lua.QuickLimit, args []string) *script {
	return takeScript(fmt.Sprint(limits, args), func() string { return lua.QuickTake(limits, args) })
}

// maxOwn is the number of lists of limits that get scripts of their own, with their numbers as constants. That saves Redis
// a sixth of its work (BenchmarkOwn), but Redis forgets no script: a process that has a list for each customer must not leave
// it a script for each.
const maxOwn = 16

// own are those lists, the first of the process, by the arguments that their constants stand for.
var own struct {
	sync.Mutex
	lists map[string]bool
}

func ownScript(args []string) bool {
	list := strings.Join(args, " ")
	own.Lock()
	defer own.Unlock()
	if own.lists == nil {
		own.lists = make(map[string]bool)
	}
	if len(own.lists) < maxOwn {
		own.lists[list] = true
	}
	return own.lists[list]
}

// plan is a list of limits with everything worked out that a call under them needs.
type plan struct {
	limits  []backend.Limit
	rules   []*algorithm.Rule
	texts   []string // the rules, as slots name them
	pattern string   // of a value under these limits, for quick.lua.tmpl; "" if no cost can be quick
	script  *script
	quick   *script // with quick.lua.tmpl; nil if no cost can be quick
	one     call
	logs    bool // a reply holds as much of a log as the cost asks for
}

// call is a script and its arguments.
type call struct {
	script *script
	args   []string
}

// is reports whether p was made of limits, whatever their names.
func (p *plan) is(limits []backend.Limit) bool { return plans.Decide(p.rules, limits) }

// What quick.lua.tmpl can work with: Lua's ".." writes up to 14 digits, products have to stay below 2^53, and a pattern has
// up to 32 captures, 2 and at most 3 for each limit. More limits than maxQuick are not worth a script of their own.
const (
	exact        = 99_999_999_999_999
	exactProduct = 1<<53 - 1
	maxQuick     = 8
)

// newPlan returns the plan of limits.
func newPlan(limits []backend.Limit) (*plan, error) {
	p := &plan{limits: slices.Clone(limits)}
	var algorithms []backend.Algorithm
	var quick []lua.QuickLimit
	pattern := "^(%d+) (%d+)"
	for _, l := range limits {
		r, err := algorithm.NewRule(l)
		if err != nil {
			return nil, err
		}
		p.rules = append(p.rules, r)
		p.texts = append(p.texts, ruleText(l))
		p.logs = p.logs || l.Algorithm == backend.SlidingLog && !stateless(l)
		if stateless(l) {
			continue
		}
		algorithms = append(algorithms, l.Algorithm)
		if l.Algorithm == backend.SlidingLog || l.Count > exact {
			continue
		}
		q := lua.QuickLimit{Algorithm: l.Algorithm}
		state := " (%-?%d+),(%d+)"
		switch l.Algorithm {
		case backend.TokenBucket:
			_, parts := interval(l)
			q.Parts = parts > 1
			state = " (%d+)"
			if q.Parts {
				state = " (%d+)(,?)(%d*)"
			}
		case backend.SlidingWindow:
			state += ",(%d+)"
		}
		quick = append(quick, q)
		pattern += " " + strings.ReplaceAll(ruleText(l), "+", "%+") + state
	}
	p.script = generalScript(algorithms)
	if len(quick) == len(limits) && len(limits) <= maxQuick {
		p.pattern, p.quick = pattern+"$", quickScript(quick, nil)
	}
	p.one = p.newCall(1)
	if p.quick != nil && p.one.script == p.quick {
		if first := p.one.args; ownScript(first[1:]) {
			p.one = call{script: quickScript(quick, first[1:])}
		}
	}
	return p, nil
}

// call returns what to send for a cost, and for a clock that is not the server's.
func (p *plan) call(cost int64, clock string) call {
	c := p.one
	if cost != 1 {
		c = p.newCall(cost)
	}
	if clock != "" {
		if c.args = slices.Clone(c.args); len(c.args) == 0 {
			c.args = []string{"1"}
		}
		c.args[0] += clock
	}
	return c
}

func (p *plan) newCall(cost int64) call {
	args := append(make([]string, 0, 2+5*len(p.limits)), strconv.FormatInt(cost, 10))
	args = append(args, p.texts...)
	if p.quick == nil || cost == 0 {
		return call{p.script, args}
	}
	general := args
	args = append(args, p.pattern)
	for _, l := range p.limits {
		numbers := []int64{l.Count, l.Period.Microseconds()}
		ok := true
		switch l.Algorithm {
		case backend.TokenBucket:
			us, parts := interval(l)
			x, okX := product(us, cost, exact)
			y, okY := product(us, l.Capacity(), exact)
			numbers, ok = []int64{x, y}, okX && okY
			if parts > 1 {
				numbers = append(numbers, parts, l.Count/parts)
			}
		case backend.SlidingWindow:
			_, ok = product(max(l.Count, cost), l.Period.Microseconds(), exactProduct)
		}
		if !ok {
			return call{p.script, general}
		}
		for _, n := range numbers {
			args = append(args, strconv.FormatInt(n, 10))
		}
	}
	return call{p.quick, args}
}

// interval returns the time in which a bucket refills one unit, in 1/parts of a microsecond.
func interval(l backend.Limit) (time, parts int64) {
	a, b := l.Period.Microseconds(), l.Count
	for b != 0 {
		a, b = b, a%b
	}
	return l.Period.Microseconds() / a, l.Count / a
}

// product returns a×b of non-negative integers, and whether it is at most limit.
func product(a, b int64, limit uint64) (int64, bool) {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	return int64(lo), hi == 0 && lo <= limit
}

func stateless(l backend.Limit) bool { return l.Count == 0 || l.IsUnlimited() }

// letter names an algorithm in the scripts.
var letter = [...]byte{
	backend.TokenBucket:   'b',
	backend.SlidingWindow: 's',
	backend.SlidingLog:    'l',
	backend.FixedWindow:   'f',
}

// ruleText returns how a slot names the rule that it was written under, see rule.lua: everything that decides.
func ruleText(l backend.Limit) string {
	if l.IsUnlimited() {
		return "u"
	} else if l.Count == 0 {
		return "0"
	}
	var b []byte
	if l.Algorithm != backend.TokenBucket {
		b = append(b, letter[l.Algorithm])
	}
	b = strconv.AppendInt(b, l.Count, 10)
	b = append(b, '/')
	if l.Period%time.Second == 0 {
		b = append(strconv.AppendInt(b, int64(l.Period/time.Second), 10), 's')
	} else {
		b = strconv.AppendInt(b, l.Period.Microseconds(), 10)
	}
	if l.Burst > 0 {
		b = strconv.AppendInt(append(b, '+'), l.Burst, 10)
	}
	return string(b)
}

// letters returns the algorithms of limits, as refund.lua reads them, and whether any of them keeps a state.
func letters(limits []backend.Limit) (text string, any bool) {
	b := make([]byte, len(limits))
	for i, l := range limits {
		b[i] = '-'
		if !stateless(l) && l.Algorithm <= backend.FixedWindow {
			b[i], any = letter[l.Algorithm], true
		}
	}
	return string(b), any
}
