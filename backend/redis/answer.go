package redis

import (
	"fmt"
	"strings"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/algorithm"
)

// inline is the number of limits for which a decision needs no memory of its own.
const inline = 4

// answer is what take.lua replies.
type answer struct {
	charged bool
	now     int64  // the server's clock, µs
	written string // the instant of the last write, as it stands in the value: it changes with every write
	slots   []algorithm.Slot
}

// decode reads a reply into a, whose slots are empty.
func (a *answer) decode(reply string, p *plan) error {
	rest, refused := strings.CutPrefix(reply, "-")
	a.charged = !refused
	var ok bool
	if refused {
		if a.now, rest, ok = instant(rest); !ok || !strings.HasPrefix(rest, " ") {
			return badReply(reply)
		}
		rest = rest[1:]
	}
	written, slots, ok := instant(rest)
	if !ok {
		return badReply(reply)
	}
	a.written = rest[:len(rest)-len(slots)]
	if a.charged {
		a.now = written
	}
	for i, text := range p.texts {
		var slot algorithm.Slot
		if slot, slots, ok = readSlot(slots, text, p.rules[i], written); !ok {
			return badReply(reply)
		}
		a.slots = append(a.slots, slot)
	}
	return nil
}

func badReply(reply string) error {
	return fmt.Errorf("the reply of the script is not as expected: %.100q", reply)
}

// instant reads "seconds microseconds".
func instant(s string) (us int64, rest string, ok bool) {
	sec, rest, ok := number(s)
	if !ok || !strings.HasPrefix(rest, " ") {
		return 0, "", false
	}
	us, rest, ok = number(rest[1:])
	return sec*1_000_000 + us, rest, ok
}

// number reads an integer of at most 16 digits.
func number(s string) (n int64, rest string, ok bool) {
	i := 0
	if strings.HasPrefix(s, "-") {
		i = 1
	}
	start := i
	for i < len(s) && i-start < 16 && '0' <= s[i] && s[i] <= '9' {
		n = n*10 + int64(s[i]-'0')
		i++
	}
	if start == 1 {
		n = -n
	}
	return n, s[i:], i > start
}

// readSlot reads a slot, as rule.lua describes it, that was written under rule; for a limit that keeps no state it skips
// whatever is there.
func readSlot(s, text string, rule *algorithm.Rule, base int64) (slot algorithm.Slot, rest string, ok bool) {
	if !strings.HasPrefix(s, " ") {
		return slot, "", false
	}
	name, rest, ok := strings.Cut(s[1:], " ")
	if !ok {
		return slot, "", false
	}
	var n [3]int64
	fields := 0
	for {
		if n[fields], rest, ok = number(rest); !ok {
			return slot, "", false
		}
		fields++
		if fields == len(n) || !strings.HasPrefix(rest, ",") {
			break
		}
		rest = rest[1:]
	}
	var log string
	if strings.HasPrefix(rest, ":") {
		if n[2] < 0 || n[2]%8 != 0 || n[2] > int64(len(rest)-1) {
			return slot, "", false
		}
		log, rest = rest[1:1+n[2]], rest[1+n[2]:]
	}
	if stateless(rule.Limit()) {
		return slot, rest, true
	}
	if name != text {
		return slot, "", false
	}
	slot.Rule = rule
	c := &slot.State
	c.Time = base + n[0]
	switch rule.Algorithm() {
	case backend.TokenBucket:
		c.Rest = n[1]
	case backend.SlidingLog:
		c.Used = n[1]
		slot.State.Log = readLog(log, c.Used, c.Time)
		if (c.Used > 0) != (len(log) > 0) {
			return slot, "", false
		}
	default:
		c.Used, c.Rest = n[1], n[2]
	}
	return slot, rest, true
}

// readLog reads the charges of a log, as sliding_log.lua writes them. A reply has the oldest and the last: what is
// missing of used counts as charged with the last, which is right until the oldest are out of the window.
// None is later than the last, whatever the value says.
func readLog(log string, used, latest int64) *algorithm.Log {
	charges := make(algorithm.Log, 0, len(log)/8)
	for ; len(log) >= 8; log = log[8:] {
		var at int64
		for _, b := range []byte(log[:7]) {
			at = at<<8 | int64(b)
		}
		at = min(at, latest)
		if last := len(charges) - 1; last >= 0 {
			at = max(at, charges[last].At)
		}
		units := int64(log[7] & 15)
		for range log[7] >> 4 {
			units *= 10
		}
		if last := len(charges) - 1; last >= 0 && charges[last].At == at {
			charges[last].Units += units
		} else {
			charges = append(charges, algorithm.Charge{At: at, Units: units})
		}
		used -= units
	}
	if len(charges) > 0 {
		charges[len(charges)-1].Units += used
	}
	return &charges
}
