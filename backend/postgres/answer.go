package postgres

import (
	"encoding/binary"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/algorithm"
)

// inline is the number of limits for which a decision needs no memory of its own.
const inline = 4

// answer is what the database says of a key.
type answer struct {
	charged bool
	tried   bool  // not charged, by a statement that knows only what is common
	now     int64 // the database's clock, µs
	slots   []algorithm.Slot
}

// readReply reads what a statement of statements.take, or the function, answers with. What cannot be read was not
// written by this version.
func (a *answer) readReply(rows pgx.Rows, p *plan) error {
	var few [64]int64
	n, err := readNumbers(few[:0], rows.RawValues()[0], rows.FieldDescriptions()[0].Format)
	if err != nil {
		return err
	}
	const tried = 3 // the largest verdict; else the first number is the time of a state that was charged
	if len(n) > 0 && n[0] > tried {
		a.charged, a.now = true, n[0]
		return a.readState(n[1:], p)
	}
	if len(n) < 3 {
		return ErrForeign
	}
	if n[0] == tried {
		a.tried, a.now = true, n[1]
		return a.readState(n[2:], p)
	}
	a.charged, a.now = n[0] == 1, n[1]
	if n[0] < 0 {
		return ErrForeign
	}
	return a.readSlots(n[min(4, len(n)):], p)
}

// readState reads the numbers of a row that was written under the plan's rules.
func (a *answer) readState(n []int64, p *plan) error {
	if len(n) != 3*len(p.rules) {
		return ErrForeign
	}
	for i, r := range p.rules {
		if !sound(r, n[3*i:]) {
			return ErrForeign
		}
		a.slots = append(a.slots, slotOf(r, n[3*i:]))
	}
	return nil
}

// readSlots reads slots as functions.sql has them: seven numbers, and a log.
func (a *answer) readSlots(n []int64, p *plan) error {
	for i := range p.rules {
		var slot algorithm.Slot
		if len(n) >= 7 {
			var log []int64
			width := 7
			if n[0] == int64(backend.SlidingLog) {
				if n[6] < 0 || n[6] > int64(len(n)-width)/2 {
					return ErrForeign
				}
				width += 2 * int(n[6])
				log = n[7:width]
			}
			var err error
			if slot, err = oldSlot(p, i, n[:4], n[4:7], log); err != nil {
				return err
			}
			n = n[width:]
		}
		a.slots = append(a.slots, slot)
	}
	return nil
}

// oldSlot returns the slot of a limit that was written under a rule, maybe another one. It is empty if it says nothing
// to this limit.
func oldSlot(p *plan, i int, rule, state, log []int64) (algorithm.Slot, error) {
	l := &p.limits[i]
	if rule[0] != kindOf(l) || stateless(l) {
		return algorithm.Slot{}, nil
	}
	r := p.rules[i]
	if rule[1] != l.Count || rule[2] != l.Period.Microseconds() || rule[3] != l.Burst {
		if rule[2] > backend.MaxPeriod.Microseconds() {
			return algorithm.Slot{}, ErrForeign
		}
		old := backend.Limit{Count: rule[1], Period: time.Duration(rule[2]) * time.Microsecond, Burst: rule[3], Algorithm: l.Algorithm}
		var err error
		if r, err = algorithm.NewRule(old); err != nil || stateless(&old) {
			return algorithm.Slot{}, ErrForeign
		}
	}
	if !sound(r, state) {
		return algorithm.Slot{}, ErrForeign
	}
	slot := slotOf(r, state)
	if l.Algorithm == backend.SlidingLog {
		var ok bool
		if slot.State.Log, ok = readLog(log, state[1]); !ok {
			return algorithm.Slot{}, ErrForeign
		}
	}
	return slot, nil
}

func slotOf(r *algorithm.Rule, n []int64) algorithm.Slot {
	slot := algorithm.Slot{Rule: r}
	c := &slot.State
	c.Time = n[0]
	if r.Algorithm() == backend.TokenBucket {
		c.Rest = n[1]
	} else {
		c.Used = n[1]
	}
	if r.Algorithm() == backend.SlidingWindow {
		c.Rest = n[2]
	}
	return slot
}

// readLog reads the charges of a log. A reply has the oldest and the last: what is missing of used counts as charged
// with the last, which is right until the oldest are out of the window.
func readLog(n []int64, used int64) (_ *algorithm.Log, ok bool) {
	charges := make(algorithm.Log, 0, len(n)/2)
	for ; len(n) >= 2; n = n[2:] {
		last := len(charges) - 1
		if n[1] < 1 || n[1] > used || last >= 0 && n[0] <= charges[last].At {
			return nil, false
		}
		charges = append(charges, algorithm.Charge{At: n[0], Units: n[1]})
		used -= n[1]
	}
	if len(charges) > 0 {
		charges[len(charges)-1].Units += used
	}
	return &charges, len(charges) > 0 || used == 0
}

// readRow reads what statements.look answers with: rules, state and the time, of which the first two are NULL without a
// row.
func (a *answer) readRow(rows pgx.Rows, p *plan) error {
	values, fields := rows.RawValues(), rows.FieldDescriptions()
	var err error
	if a.now, err = readInt(values[2], fields[2].Format); err != nil {
		return err
	}
	if values[0] == nil {
		a.slots = make([]algorithm.Slot, len(p.rules))
		return nil
	}
	var few [64]int64
	state, err := readNumbers(few[:0], values[1], fields[1].Format)
	if err != nil {
		return ErrForeign
	}
	if string(values[0]) == p.text {
		return a.readState(state[1:], p)
	}
	return a.readOld(string(values[0]), state, p)
}

// readOld reads a row that was written under other rules.
func (a *answer) readOld(text string, state []int64, p *plan) error {
	fields := strings.Split(text, " ")
	if fields[0] != layout || len(fields)%4 != 1 || len(state) < 1+3*(len(fields)/4) {
		return ErrForeign
	}
	a.slots = make([]algorithm.Slot, len(p.rules))
	for i := range min(len(p.rules), len(fields)/4) {
		var rule [4]int64
		for j := range rule {
			var err error
			if rule[j], err = strconv.ParseInt(fields[1+4*i+j], 10, 64); err != nil {
				return ErrForeign
			}
		}
		slot, err := oldSlot(p, i, rule[:], state[1+3*i:][:3], nil)
		if err != nil {
			return err
		}
		a.slots[i] = slot
	}
	return nil
}

// sound reports whether three numbers can be a slot's state under a rule: what the algorithms rely on.
func sound(r *algorithm.Rule, n []int64) bool {
	const latest = 9_000_000_000_000_000 // µs, in the year 2255
	if n[0] < 0 || n[0] > latest || n[1] < 0 || n[1] > backend.MaxCount || n[2] < 0 || n[2] > backend.MaxCount {
		return false
	}
	return r.Algorithm() != backend.TokenBucket || n[1] < r.Limit().Count
}

// readNumbers appends the numbers of a bigint[] as PostgreSQL sends it, in binary or as text.
func readNumbers(to []int64, raw []byte, format int16) ([]int64, error) {
	if format == pgx.TextFormatCode {
		text, ok := strings.CutPrefix(string(raw), "{")
		if text, ok2 := strings.CutSuffix(text, "}"); ok && ok2 && text != "" {
			for field := range strings.SplitSeq(text, ",") {
				n, err := strconv.ParseInt(field, 10, 64)
				if err != nil {
					return nil, ErrForeign
				}
				to = append(to, n)
			}
			return to, nil
		}
		return nil, ErrForeign
	}
	const head, element = 20, 12 // dimensions, whether there are NULLs, type, length, first index; length and value
	if len(raw) < head || binary.BigEndian.Uint32(raw) != 1 || (len(raw)-head)%element != 0 ||
		int(binary.BigEndian.Uint32(raw[12:])) != (len(raw)-head)/element {
		return nil, ErrForeign
	}
	for raw = raw[head:]; len(raw) > 0; raw = raw[element:] {
		to = append(to, int64(binary.BigEndian.Uint64(raw[4:])))
	}
	return to, nil
}

func readInt(raw []byte, format int16) (int64, error) {
	if format == pgx.TextFormatCode {
		return strconv.ParseInt(string(raw), 10, 64)
	}
	if len(raw) != 8 {
		return 0, ErrForeign
	}
	return int64(binary.BigEndian.Uint64(raw)), nil
}
