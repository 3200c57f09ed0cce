package redis

import (
	"crypto/sha1" //nolint:gosec // it is how Redis names scripts
	"encoding/hex"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ginlimit/ginlimit/backend"
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

// takeScripts are the scripts for every set of algorithms, as bits, without and with quick.lua.
var takeScripts [16][2]struct {
	once sync.Once
	*script
}

func takeScript(algorithms []backend.Algorithm, quick bool) *script {
	var set, variant int
	for _, a := range algorithms {
		set |= 1 << a
	}
	if quick {
		variant = 1
	}
	s := &takeScripts[set][variant]
	s.once.Do(func() { s.script = newScript(lua.Take(quick, algorithms...)) })
	return s.script
}

// plan is a list of limits with everything worked out that a call under them needs.
type plan struct {
	limits  []backend.Limit
	rules   []*backend.Rule
	texts   []string // the rules, as slots name them
	pattern string   // of a value under these limits, for quick.lua; "" if no cost can be quick
	scripts [2]*script
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

// exact is the largest integer that quick.lua may meet: Lua's ".." writes up to 14 digits. Its products stay below 2^53.
const (
	exact        = 99_999_999_999_999
	exactProduct = 1<<53 - 1
)

func newPlan(limits []backend.Limit) (*plan, error) {
	p := &plan{limits: slices.Clone(limits)}
	var algorithms []backend.Algorithm
	quick := true
	pattern := "^(%d+) (%d+)"
	for _, l := range limits {
		r, err := backend.NewRule(l)
		if err != nil {
			return nil, err
		}
		p.rules = append(p.rules, r)
		p.texts = append(p.texts, ruleText(l))
		if stateless(l) || l.Algorithm == backend.SlidingLog || l.Count > exact {
			quick = false
		}
		if stateless(l) {
			continue
		}
		algorithms = append(algorithms, l.Algorithm)
		p.logs = p.logs || l.Algorithm == backend.SlidingLog
		pattern += " " + strings.ReplaceAll(ruleText(l), "+", "%+") + [...]string{
			backend.TokenBucket:   " (%d+)",
			backend.FixedWindow:   " (%-?%d+),(%d+)",
			backend.SlidingWindow: " (%-?%d+),(%d+),(%d+)",
			backend.SlidingLog:    "",
		}[l.Algorithm]
	}
	p.scripts[0] = takeScript(algorithms, false)
	if quick {
		p.pattern = pattern + "$"
		p.scripts[1] = takeScript(algorithms, true)
	}
	p.one = p.newCall(1)
	return p, nil
}

// call returns what to send for a cost, with clock as the last argument if it is not "".
func (p *plan) call(cost int64, clock string) call {
	c := p.one
	if cost != 1 {
		c = p.newCall(cost)
	}
	if clock != "" {
		c.args = append(slices.Clip(c.args), clock)
	}
	return c
}

func (p *plan) newCall(cost int64) call {
	quick := p.pattern != "" && cost > 0
	args := append(make([]string, 0, 2+3*len(p.limits)), strconv.FormatInt(cost, 10), p.pattern)
	for i, l := range p.limits {
		x, y, ok := l.Count, l.Period.Microseconds(), true
		switch l.Algorithm {
		case backend.TokenBucket:
			x, ok = wholeSpan(l, cost)
			if ok {
				y, ok = wholeSpan(l, l.Capacity())
			}
		case backend.SlidingWindow:
			_, ok = product(max(x, cost), y, exactProduct)
		}
		quick = quick && ok
		args = append(args, p.texts[i], strconv.FormatInt(x, 10), strconv.FormatInt(y, 10))
	}
	if quick {
		return call{p.scripts[1], args}
	}
	return call{p.scripts[0], args}
}

// wholeSpan returns the time in which a bucket refills units, and whether that is a whole number of microseconds
// which quick.lua can work with.
func wholeSpan(l backend.Limit, units int64) (int64, bool) {
	us, ok := product(units, l.Period.Microseconds(), math.MaxInt64)
	if !ok || l.Count == 0 || us%l.Count != 0 || us/l.Count > exact {
		return 0, false
	}
	return us / l.Count, true
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
