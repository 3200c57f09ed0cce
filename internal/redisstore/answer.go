package redisstore

import (
	"fmt"
	"strings"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/algorithm"
)

// inline is the number of limits for which a decision needs no memory of its own.
const inline = 4

// answer is what take.lua replies, and take_all.lua for each key.
type answer struct {
	charged bool
	counted bool   // the refusal, for a ban
	now     int64  // the server's clock, µs
	written string // the instant of the last write, as the value has it: it changes with every write
	// slots also say what will be decided later, as long as nobody writes.
	slots []algorithm.Slot
}

// read reads what the server said into a, whose slots are empty.
func (a *answer) read(reply string, p *plan) error {
	rest, err := a.decode(reply, p)
	if err == nil && rest != "" {
		err = badReply(reply)
	}
	return err
}

// decode reads a reply into a, whose slots are empty. It returns what comes after it, from a line
// feed on.
func (a *answer) decode(reply string, p *plan) (after string, err error) {
	rest, refused := strings.CutPrefix(reply, "-")
	if !refused {
		rest, a.counted = strings.CutPrefix(reply, "!")
		refused = a.counted
	}
	a.charged = !refused
	var ok bool
	if refused {
		if a.now, rest, ok = instant(rest); !ok || !strings.HasPrefix(rest, " ") {
			return "", badReply(reply)
		}
		rest = rest[1:]
	}
	written, slots, ok := instant(rest)
	if !ok {
		return "", badReply(reply)
	}
	a.written = rest[:len(rest)-len(slots)]
	if a.charged {
		a.now = written
	}
	moved := false
	for slots != "" && slots[0] != '\n' {
		var slot algorithm.Slot
		if slot, slots, ok = p.readSlot(len(a.slots), slots, written); !ok {
			return "", badReply(reply)
		}
		if i := len(a.slots); slot.Rule != nil {
			beside := slot.Rule == algorithm.Banned() || slot.Rule.Counts()
			moved = moved || !beside && (i >= len(p.own) || slot.Rule != p.rules[i])
		}
		a.slots = append(a.slots, slot)
	}
	if own, _ := algorithm.Own(a.slots); a.charged && (moved || len(own) != len(p.own)) {
		return "", badReply(reply)
	}
	return slots, nil
}

// judge fills res in, all but Limit, for what was not charged, and returns the index of the limit
// that decided.
func (a *answer) judge(p *plan, cost int64, res *backend.Result) (decided int) {
	decided = algorithm.Judge(a.slots, p.rules, a.now, cost, res)
	if a.counted && res.Banned() { // no refusal is counted while a ban lasts
		*res = res.WithBanned(true)
	}
	return decided
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

// readSlot reads slot i, as value.lua describes it.
func (p *plan) readSlot(i int, s string, base int64) (slot algorithm.Slot, rest string, ok bool) {
	if !strings.HasPrefix(s, " ") {
		return slot, "", false
	}
	name, rest, ok := strings.Cut(s[1:], " ")
	if !ok {
		return slot, "", false
	}
	var n [3]int64
	for fields := range n {
		if n[fields], rest, ok = number(rest); !ok {
			return slot, "", false
		}
		if fields == len(n)-1 || !strings.HasPrefix(rest, ",") {
			break
		}
		rest = rest[1:]
	}
	if name == "-" {
		return slot, rest, true
	}
	if slot.Rule, ok = p.rule(i, name); !ok {
		return slot, "", false
	}
	st := &slot.State
	st.Time = base + n[0]
	switch algo := slot.Rule.Algorithm(); {
	case slot.Rule == algorithm.Banned():
		st.Used, st.Rest = n[1], n[2]
	case algo == backend.TokenBucket:
		st.Rest = n[1]
	case algo == backend.SlidingLog || algo == backend.Concurrency:
		if !strings.HasPrefix(rest, ":") || (n[1] > 0) != (n[2] > 0) || n[1]|n[2] < 0 || n[2]%8 != 0 || n[2] >= int64(len(rest)) {
			return slot, "", false
		}
		st.Used = n[1]
		st.Log = readLog(rest[1:1+n[2]], st.Used, st.Time)
		st.Time, rest = 0, rest[1+n[2]:]
	default:
		st.Used, st.Rest = n[1], n[2]
	}
	return slot, rest, true
}

// shortLog is a log with memory for what a reply nearly always has of it.
type shortLog struct {
	algorithm.Log
	few [3]algorithm.Charge
}

// readLog reads the charges of a log, as sliding_log.lua writes them. A reply has the oldest and
// the last: what is missing of used counts as charged with the last, which is right until the
// oldest are out of the window. None is later than the last, whatever the value says.
func readLog(log string, used, latest int64) *algorithm.Log {
	short := new(shortLog)
	charges := algorithm.Log(short.few[:0])
	if n := len(log) / 8; n > len(short.few) {
		charges = make(algorithm.Log, 0, n)
	}
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
	short.Log = charges
	return &short.Log
}
