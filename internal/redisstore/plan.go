package redisstore

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // it is how Redis names scripts
	"encoding/hex"
	"fmt"
	"maps"
	"math"
	"math/bits"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
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

var (
	takeScript    = sync.OnceValue(func() *script { return newScript(lua.Take()) })
	takeAllScript = sync.OnceValue(func() *script { return newScript(lua.TakeAll()) })
	settleScript  = sync.OnceValue(func() *script { return newScript(lua.Settle()) })
	renewScript   = sync.OnceValue(func() *script { return newScript(lua.Renew()) })
	banScript     = sync.OnceValue(func() *script { return newScript(lua.Ban()) })
)

// scripts are those of a Backend that decide the common case first.
type scripts struct {
	told sync.Map // by the algorithms of limits: scripts that are told the numbers

	// For several keys: scripts that are told the numbers, by the algorithms of each key's limits,
	// and scripts of their own, by the limits. The maps are not changed once they are there.
	toldAll, ownAll atomic.Pointer[map[string]*script]

	mu  sync.Mutex
	own map[string]bool // the texts of lists of limits that have scripts of their own
}

// maxOwn is the number of lists of limits of a Backend that get scripts of their own, with their
// numbers as constants. That saves Redis an eighth of its work (BenchmarkOwn), but Redis forgets no
// script: a process that makes limiters for each customer must not leave it a script for each.
// As many combinations of such lists get one for TakeAll.
const maxOwn = 16

// maxTold is the number of scripts of a Backend that are told the numbers for several keys. What
// needs more of them is decided by the general one.
const maxTold = 64

// Prepare tells b that decisions about these limits will be common, as they are for a limiter's own
// limits. They get a script of their own, which saves Redis some of its work. It may be called at
// any time, sends nothing, and changes no answer; after 16 different lists of limits it does
// nothing, because Redis forgets no script. ginlimit.NewLimiter calls it. An application that
// decides by a few tiers may call it once for the limits of each.
func (b *Backend) Prepare(limits ...backend.Limit) {
	p, err := b.scripts.newPlan(limits)
	if err != nil {
		return // Take says why
	}
	b.scripts.mu.Lock()
	defer b.scripts.mu.Unlock()
	if len(b.scripts.own) < maxOwn {
		b.scripts.own[p.name] = true
	}
}

func (s *scripts) isOwn(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.own[name]
}

func (s *scripts) quick(p *plan) *script {
	told, ok := s.told.Load(p.kind)
	if !ok {
		told, _ = s.told.LoadOrStore(p.kind, newScript(lua.QuickTake(p.key(), nil)))
	}
	return told.(*script)
}

// takeAll returns what to send for parts, which are charged if all fit and charge says so. The
// server's clock is at about at.
func (s *scripts) takeAll(parts []part, charge bool, clock string, at int64) call {
	quick, own, limits := charge && len(parts) <= maxQuick, true, 0
	var told [maxQuick]call
	for i := range parts {
		p := &parts[i]
		p.dated = p.plan.at(at)
		p.words = p.dated.words
		if p.refusals != 0 {
			p.words = slices.Clone(p.words)
			p.words[len(p.words)-1] = p.plan.banWord(at, p.dated, p.refusals)
		}
	}
	for i := 0; quick && i < len(parts); i++ {
		p, d, cost := parts[i].plan, parts[i].dated, parts[i].Cost
		told[i] = d.told
		if cost != 1 {
			told[i] = p.newCall(d, cost, 0)
		}
		limits += len(p.own)
		quick = told[i].script == p.quick && limits <= maxQuick
		own = own && cost == 1 && parts[i].refusals == 0 && d.one.script != p.quick
	}
	first := "1"
	if !charge {
		first = "0"
	}
	var buf [256]byte
	if quick && own {
		name := buf[:0]
		for i := range parts {
			name = append(append(name, parts[i].plan.name...), '\n')
		}
		script := s.several(&s.ownAll, maxOwn, name, func() string {
			return lua.QuickTakeAll(shapes(parts), allArgs(parts, told[:len(parts)], first))
		})
		if script != nil && clock == "" {
			return call{script: script}
		} else if script != nil {
			return call{script, []string{first + clock}}
		}
	}
	if quick {
		name := buf[:0]
		for i := range parts {
			name = append(append(name, parts[i].plan.kind...), '\n')
		}
		script := s.several(&s.toldAll, maxTold, name, func() string { return lua.QuickTakeAll(shapes(parts), nil) })
		if script != nil {
			return call{script, allArgs(parts, told[:len(parts)], first+clock)}
		}
	}
	return call{takeAllScript(), allArgs(parts, nil, first+clock)}
}

func shapes(parts []part) (all []lua.QuickKey) {
	for i := range parts {
		all = append(all, parts[i].plan.key())
	}
	return all
}

// allArgs returns the arguments of take_all.lua, and those of quick.lua.tmpl if each part is told
// them.
func allArgs(parts []part, told []call, first string) []string {
	args := append(make([]string, 0, 1+8*len(parts)), first)
	for i := range parts {
		words := parts[i].words
		args = append(args, strconv.FormatInt(parts[i].Cost, 10), strconv.Itoa(len(words)))
		args = append(args, words...)
	}
	for i := range told {
		args = append(args, told[i].args[1+len(parts[i].words):]...)
	}
	return args
}

// several returns the script for several keys that has a name among those made, nil if there are
// already most others.
func (s *scripts) several(made *atomic.Pointer[map[string]*script], most int, name []byte, text func() string) *script {
	if have := made.Load(); have != nil {
		if script := (*have)[string(name)]; script != nil || len(*have) >= most {
			return script
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	more := make(map[string]*script)
	if have := made.Load(); have != nil {
		maps.Copy(more, *have)
	}
	script := more[string(name)]
	if script == nil && len(more) < most {
		script = newScript(text())
		more[string(name)] = script
		made.Store(&more)
	}
	return script
}

// plan is a list of limits with everything worked out that a call under them needs.
type plan struct {
	limits []backend.Limit
	own    []backend.Limit   // without that of a ban
	rules  []*algorithm.Rule // of limits
	texts  []string          // the rules of own, as slots name them
	name   string            // the rules as one text
	keeps  bool              // a limit keeps a state
	holds  bool              // a limit is of requests in flight
	ban    string            // the word of the limit of a ban, but for what comes after its numbers

	// For quick.lua.tmpl. If no cost can be quick, pattern is "" and quick nil.
	shape   []lua.QuickLimit
	kind    string // key() as a text
	pattern string // of a value under these limits
	quick   *script

	calendars bool
	current   atomic.Pointer[dated]

	past [inline]atomic.Pointer[pastRule] // of slots that were charged under other limits
}

// dated is what a call needs while calendars are in windows: from an instant, before another.
type dated struct {
	from, to int64
	words    []string // of the rules: see new_rules in rule.lua
	windows  [][2]int64
	told     call // of a cost of one, told the numbers
	one      call // the same, or a script of its own
}

// pastRule is a rule that is none of a plan's.
type pastRule struct {
	text string
	rule *algorithm.Rule
}

// call is a script and its arguments.
type call struct {
	script *script
	args   []string
}

// is reports whether p was made of limits, whatever their names.
func (p *plan) is(limits []backend.Limit) bool { return plans.Decide(p.rules, limits) }

// What quick.lua.tmpl can work with: Lua's ".." writes up to 14 digits, products have to stay below
// 2^53, and a pattern has up to 32 captures, 2 and at most 3 for each limit. More limits than
// maxQuick are not worth a script of their own.
const (
	exact        = 99_999_999_999_999
	exactProduct = 1<<53 - 1
	maxQuick     = 8
)

// newPlan returns the plan of limits.
func (s *scripts) newPlan(limits []backend.Limit) (*plan, error) {
	p := &plan{limits: slices.Clone(limits), own: limits}
	if last := len(limits) - 1; last > 0 {
		if first, longest, ok := limits[last].Bans(); ok {
			p.own = limits[:last]
			p.ban = fmt.Sprintf("!%s!%d!%d!", ruleText(limits[last].WithoutBan()), first.Microseconds(), longest.Microseconds())
			p.calendars = limits[last].Algorithm == backend.CalendarWindow
		}
	}
	p.own = slices.Clone(p.own)
	for _, l := range limits {
		r, err := algorithm.NewRule(l)
		if err != nil {
			return nil, err
		}
		p.rules = append(p.rules, r)
	}
	pattern := "^(%d+) (%d+)"
	for i, l := range p.own {
		p.texts = append(p.texts, ruleText(l))
		if stateless(l) {
			continue
		}
		p.keeps = true
		p.holds = p.holds || l.Algorithm == backend.Concurrency
		p.calendars = p.calendars || l.Algorithm == backend.CalendarWindow
		if l.Algorithm == backend.SlidingLog || l.Algorithm == backend.Concurrency && i < len(p.own)-1 || l.Count > exact {
			continue
		}
		q := lua.QuickLimit{Algorithm: l.Algorithm}
		state := " (%-?%d+),(%d+)"
		switch l.Algorithm {
		case backend.TokenBucket:
			q.Parts = l.Period.Microseconds()%l.Count > 0
			state = " (%d+)"
			if q.Parts {
				state = " (%d+)(,?)(%d*)"
			}
		case backend.SlidingWindow, backend.CalendarWindow:
			state += ",(%d+)"
		case backend.Concurrency: // and what the log's bytes are: it is the last
			state += ",(%d+):(.*)"
		}
		p.shape = append(p.shape, q)
		pattern += " " + strings.ReplaceAll(p.texts[i], "+", "%+") + state
	}
	p.name, p.kind = strings.Join(append(slices.Clone(p.texts), p.ban), " "), fmt.Sprint(p.key())
	if len(p.shape) == len(p.own) && len(p.own) <= maxQuick {
		p.pattern, p.quick = pattern+"$", s.quick(p)
	}
	if p.calendars {
		return p, nil
	}
	d := p.newDated(0)
	if d.told.script == p.quick && s.isOwn(p.name) {
		d.one = call{script: newScript(lua.QuickTake(p.key(), d.told.args))}
	}
	p.current.Store(d)
	return p, nil
}

func (p *plan) key() lua.QuickKey { return lua.QuickKey{Limits: p.shape, Ban: p.ban != ""} }

// at returns what a call needs whose server's clock is at about an instant.
func (p *plan) at(at int64) *dated {
	d := p.current.Load()
	if p.calendars && (d == nil || at < d.from || at >= d.to) {
		d = p.newDated(at)
		p.current.Store(d)
	}
	return d
}

func (p *plan) newDated(at int64) *dated {
	d := &dated{from: math.MinInt64, to: math.MaxInt64, windows: make([][2]int64, len(p.own))}
	for i, l := range p.own {
		d.words = append(d.words, p.texts[i])
		if l.Algorithm == backend.CalendarWindow && !stateless(l) {
			var word string
			word, d.windows[i] = d.window(l, at)
			d.words = append(d.words, word)
		}
	}
	if p.ban != "" {
		d.words = append(d.words, p.banWord(at, d, 0))
	}
	d.told = p.newCall(d, 1, 0)
	d.one = d.told
	return d
}

// window returns the word for the window of a calendar, and when it begins and ends, in seconds.
func (d *dated) window(l backend.Limit, at int64) (word string, window [2]int64) {
	start, end, next := algorithm.Boundaries(l.Calendar, at)
	d.from, d.to = max(d.from, start), min(d.to, end)
	return fmt.Sprintf("=%d,%d,%d", start/1_000_000, end/1_000_000, next/1_000_000), [2]int64{start / 1_000_000, end / 1_000_000}
}

// banWord returns the word of the limit of a ban, with refusals that the server does not know of.
func (p *plan) banWord(at int64, d *dated, refusals int64) string {
	word := p.ban + strconv.FormatInt(refusals, 10) + "!"
	if l := p.limits[len(p.own)]; l.Algorithm == backend.CalendarWindow && l.Count > 0 {
		window, _ := d.window(l, at)
		word += window
	}
	return word
}

// call returns what to send for a cost, with refusals that the server does not know of, and for a
// clock that is not the server's. The server's is at about at.
func (p *plan) call(cost, refusals int64, clock string, at int64) call {
	d := p.at(at)
	c := d.one
	if cost != 1 || refusals != 0 {
		c = p.newCall(d, cost, refusals)
	}
	if clock != "" {
		if c.args = slices.Clone(c.args); len(c.args) == 0 {
			c.args = []string{"1"}
		}
		c.args[0] += clock
	}
	return c
}

// settle returns what to send for a charge that was made at an instant.
func (p *plan) settle(charged, cost, actual, held int64, clock string, at int64) call {
	units := strconv.FormatInt(cost-actual, 10)
	if actual > cost {
		units = "+" + strconv.FormatInt(min(actual-cost, 2*backend.MaxCount), 10)
	} else if cost-actual > 2*backend.MaxCount {
		units = strconv.FormatInt(2*backend.MaxCount, 10)
	}
	args := append([]string{units + clock}, p.at(at).words...)
	return call{settleScript(), append(args, strconv.FormatInt(charged, 10), strconv.FormatInt(min(held, 2*backend.MaxCount), 10))}
}

// renew returns what to send to hold units for longer that were charged at an instant.
func (p *plan) renew(charged, held int64, clock string, at int64) call {
	args := append([]string{strconv.FormatInt(min(held, 2*backend.MaxCount), 10) + clock}, p.at(at).words...)
	return call{renewScript(), append(args, strconv.FormatInt(charged, 10))}
}

func (p *plan) newCall(d *dated, cost, refusals int64) call {
	args := append(make([]string, 0, 2+6*len(p.limits)), strconv.FormatInt(cost, 10))
	args = append(args, d.words...)
	if refusals != 0 {
		args[len(args)-1] = p.banWord(d.from, d, refusals)
	}
	if p.quick == nil || cost == 0 {
		return call{takeScript(), args}
	}
	general := args
	args = append(args, p.pattern)
	for i, l := range p.own {
		numbers := []int64{l.Count, l.Period.Microseconds()}
		ok := true
		switch l.Algorithm {
		case backend.TokenBucket:
			x, xn, okX := span(l, cost)
			y, yn, okY := span(l, l.Capacity())
			numbers, ok = []int64{x, y}, okX && okY
			if l.Period.Microseconds()%l.Count > 0 {
				numbers = append(numbers, xn, yn, l.Count)
			}
		case backend.FixedWindow:
			ok = cost <= exact
		case backend.Concurrency:
			numbers[1], ok = l.Hold().Microseconds(), cost < 10 // one entry of a log
		case backend.CalendarWindow:
			numbers, ok = []int64{l.Count, d.windows[i][0], d.windows[i][1]}, cost <= exact
		case backend.SlidingWindow:
			_, ok = product(max(l.Count, cost), l.Period.Microseconds(), exactProduct)
		}
		if !ok {
			return call{takeScript(), general}
		}
		for _, n := range numbers {
			args = append(args, strconv.FormatInt(n, 10))
		}
	}
	return call{p.quick, args}
}

// span returns the time in which a bucket refills units: microseconds, and 1/Count of one; and
// whether it is quick.
func span(l backend.Limit, units int64) (us, num int64, ok bool) {
	hi, lo := bits.Mul64(uint64(units), uint64(l.Period.Microseconds()))
	if hi >= uint64(l.Count) {
		return 0, 0, false
	}
	quo, rem := bits.Div64(hi, lo, uint64(l.Count))
	return int64(quo), int64(rem), quo <= exact
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

	backend.CalendarWindow: 'c',
	backend.Concurrency:    'h',
}

// ruleText returns how a slot names the rule that it was charged under, as rule.lua reads it:
// everything that decides, and nothing else, so that the same numbers are the same text.
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
	period, more := l.Period.Microseconds(), int64(0)
	switch {
	case l.Algorithm == backend.CalendarWindow:
		period, more = l.Calendar.Numbers()
	case l.Algorithm == backend.Concurrency:
		period = l.Hold().Microseconds()
	case l.Capacity() != l.Count:
		more = l.Burst
	}
	if period%1_000_000 == 0 {
		b = append(strconv.AppendInt(b, period/1_000_000, 10), 's')
	} else {
		b = strconv.AppendInt(b, period, 10)
	}
	if more != 0 {
		b = strconv.AppendInt(append(b, '+'), more, 10)
	}
	return string(b)
}

// rule returns the rule that slot i names, of which text is only borrowed.
func (p *plan) rule(i int, text string) (*algorithm.Rule, bool) {
	if i < len(p.texts) && p.texts[i] == text {
		return p.rules[i], true
	}
	place := &p.past[i%len(p.past)]
	if past := place.Load(); past != nil && past.text == text {
		return past.rule, true
	}
	rule, ok := parseRule(text)
	if ok {
		place.Store(&pastRule{strings.Clone(text), rule})
	}
	return rule, ok
}

var ruleSyntax = regexp.MustCompile(`^([fslch]?)(\d{1,15})/(\d{1,15})(s?)(?:\+(\d{1,15}))?$`)

// parseRule is the inverse of ruleText for a limit that keeps a state, and of a slot of a ban.
func parseRule(text string) (*algorithm.Rule, bool) {
	if text == "!" {
		return algorithm.Banned(), true
	} else if refusals, ok := strings.CutPrefix(text, "!"); ok {
		rule, ok := parseRule(refusals)
		if ok {
			rule = rule.Counting()
		}
		return rule, ok
	}
	found := ruleSyntax.FindStringSubmatch(text)
	if found == nil {
		return nil, false
	}
	number := func(i int) int64 {
		n, _ := strconv.ParseInt(found[i], 10, 64) // 0 of nothing
		return n
	}
	unit := time.Microsecond
	if found[4] != "" {
		unit = time.Second
	}
	if found[1] == "c" {
		if found[4] == "" {
			return nil, false
		}
		rule, err := algorithm.PastCalendar(number(2), min(number(3), 1e9)*1_000_000, number(5))
		return rule, err == nil
	}
	l := backend.Limit{Count: number(2), Period: time.Duration(min(number(3), int64(math.MaxInt64/unit))) * unit, Burst: number(5)}
	if found[1] != "" {
		l.Algorithm = backend.Algorithm(bytes.IndexByte(letter[:], found[1][0]))
	}
	rule, err := algorithm.NewRule(l)
	return rule, err == nil && !stateless(l)
}
