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
	counted bool  // the refusal, for a ban
	outside bool  // now is in other windows of the calendars: nothing was decided
	now     int64 // the database's clock, µs
	base    int64 // when the row was written; now, if the database has brought it up to now
	slots   []algorithm.Slot
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

// readReply reads what a statement of statements.take, or the function, answers with. What cannot
// be read was not written by this version. It forgets what an answer before said: that was undone.
func (a *answer) readReply(rows pgx.Rows, p *plan) error {
	*a = answer{slots: a.slots[:0]}
	var few [64]int64
	n, err := readNumbers(few[:0], rows.RawValues()[0], rows.FieldDescriptions()[0].Format)
	if err != nil {
		return err
	}
	const tried, outside, counted = 3, 4, 5 // the largest verdicts; a larger first number is the time of a state that was charged
	if len(n) > 0 && n[0] > counted {
		a.charged, a.now, a.base = true, n[0], n[0]
		return a.readState(n[1:], p)
	}
	if len(n) < 3 {
		return ErrForeign
	}
	switch n[0] {
	case tried:
		a.now, a.base = n[1], n[2]
		return a.readState(n[3:], p)
	case outside:
		a.outside, a.now = true, n[1]
		return nil
	}
	a.charged, a.counted, a.now, a.base = n[0] == 1, n[0] == counted, n[1], n[1]
	if n[0] < 0 {
		return ErrForeign
	}
	return a.readSlots(n[min(4, len(n)):], p)
}

// readState reads the numbers of a row that was written under the plan's rules, none of which is a
// sliding log.
func (a *answer) readState(n []int64, p *plan) error {
	if len(n) != 3*len(p.limits) {
		return ErrForeign
	}
	for i, r := range p.rules[:len(p.limits)] {
		switch {
		case r.Stateless():
			a.slots = append(a.slots, algorithm.Slot{})
		case !sound(r, a.base, n[3*i:]):
			return ErrForeign
		default:
			a.slots = append(a.slots, slotOf(r, n[3*i:]))
		}
	}
	return nil
}

// readSlots reads slots as functions.sql has them: seven numbers, and a log. They may have been
// written under other rules, and there may be more of them, or fewer, unless the cost was charged.
func (a *answer) readSlots(n []int64, p *plan) error {
	for len(n) >= 7 {
		width := 7
		if hasLog(n[0]) {
			if n[6] < 0 || n[6] > int64(len(n)-width)/2 {
				return ErrForeign
			}
			width += 2 * int(n[6])
		}
		if err := a.readSlot(p, n[:4], n[4:7], n[7:width]); err != nil {
			return err
		}
		n = n[width:]
	}
	own, _ := algorithm.Own(a.slots)
	if len(n) != 0 || a.charged && len(own) != len(p.limits) {
		return ErrForeign
	}
	return nil
}

// readSlot reads a slot that was written under a rule.
func (a *answer) readSlot(p *plan, rule, state, log []int64) error {
	if rule[0] == unlimited || rule[0] == blocked {
		return a.add(algorithm.Slot{})
	}
	if rule[0] == banned {
		const most = int64(backend.MaxPeriod / time.Microsecond)
		if state[0] < 0 || state[0] > latest || state[0] > a.base+most || state[1] < 0 || state[1] > most || state[2] < 0 || state[2] > most {
			return ErrForeign
		}
		return a.add(algorithm.Slot{Rule: algorithm.Banned(), State: algorithm.State{Time: state[0], Used: state[1], Rest: state[2]}})
	}
	r := p.ruleOf(len(a.slots), rule)
	if r == nil || !sound(r, a.base, state) {
		return ErrForeign
	}
	slot := slotOf(r, state)
	if hasLog(rule[0]) {
		charges, ok := readLog(log, state[1])
		if !ok {
			return ErrForeign
		}
		slot.State.Log = &charges
	}
	return a.add(slot)
}

// add appends a slot. None that is of a limit stands after one of a ban.
func (a *answer) add(s algorithm.Slot) error {
	_, before := algorithm.Own(a.slots)
	a.slots = append(a.slots, s)
	if _, beside := algorithm.Own(a.slots); len(before) > 0 && len(beside) == 0 {
		return ErrForeign
	}
	return nil
}

func slotOf(r *algorithm.Rule, n []int64) algorithm.Slot {
	slot := algorithm.Slot{Rule: r}
	st := &slot.State
	st.Time = n[0]
	switch r.Algorithm() {
	case backend.TokenBucket:
		st.Rest = n[1]
	case backend.SlidingWindow, backend.CalendarWindow:
		st.Used, st.Rest = n[1], n[2]
	default:
		st.Used = n[1]
	}
	return slot
}

// readLog reads the charges of a log. A reply has the oldest and the last: what is missing of used
// counts as charged with the last, which is right until the oldest are out of the window.
func readLog(n []int64, used int64) (charges algorithm.Log, ok bool) {
	charges = make(algorithm.Log, 0, len(n)/2)
	for ; len(n) >= 2; n = n[2:] {
		last := len(charges) - 1
		if n[0] > latest || n[1] < 1 || n[1] > used || last >= 0 && n[0] <= charges[last].At {
			return nil, false
		}
		charges = append(charges, algorithm.Charge{At: n[0], Units: n[1]})
		used -= n[1]
	}
	if len(charges) > 0 {
		charges[len(charges)-1].Units += used
	}
	return charges, len(charges) > 0 || used == 0
}

// readRow reads what statements.look answers with: rules, state and the time, of which the first
// two are NULL without a row. It forgets what an answer before said.
func (a *answer) readRow(rows pgx.Rows, p *plan) error {
	*a = answer{slots: a.slots[:0]}
	values, fields := rows.RawValues(), rows.FieldDescriptions()
	var err error
	if a.now, err = readInt(values[2], fields[2].Format); err != nil {
		return err
	}
	if values[0] == nil {
		return nil
	}
	var few [64]int64
	state, err := readNumbers(few[:0], values[1], fields[1].Format)
	if err != nil {
		return ErrForeign
	}
	if len(state) > 0 {
		a.base = state[0]
	}
	if string(values[0]) == p.text && !p.logs {
		return a.readState(state[min(1, len(state)):], p)
	}
	return a.readOld(string(values[0]), state, p)
}

// readOld reads a row that was written under other rules, as far as it can be read: slots of
// functions.sql is stricter.
func (a *answer) readOld(text string, state []int64, p *plan) error {
	fields := strings.Split(text, " ")
	slots := len(fields) / 4
	if fields[0] != layout || len(fields) != 1+4*slots || len(state) < 1+3*slots {
		return ErrForeign
	}
	logs := state[1+3*slots:]
	for i := range slots {
		var rule [4]int64
		for j := range rule {
			var err error
			if rule[j], err = strconv.ParseInt(fields[1+4*i+j], 10, 64); err != nil {
				return ErrForeign
			}
		}
		numbers := state[1+3*i:][:3]
		var log []int64
		if hasLog(rule[0]) {
			if numbers[2] < 0 || numbers[2] > int64(len(logs))/2 {
				return ErrForeign
			}
			log, logs = logs[:2*numbers[2]], logs[2*numbers[2]:]
		}
		if err := a.readSlot(p, rule[:], numbers, log); err != nil {
			return err
		}
	}
	if len(logs) != 0 {
		return ErrForeign
	}
	return nil
}

// latest is the last instant of a state, in µs: in the year 2255.
const latest = 9_000_000_000_000_000

// sound reports whether three numbers can be a slot's state under a rule, written at base: what the
// algorithms rely on. A Settle may have left a debt of twice the capacity; nothing else is of the
// future.
func sound(r *algorithm.Rule, base int64, n []int64) bool {
	if n[0] < 0 || n[0] > latest || n[1] < 0 || n[2] < 0 || n[2] > 2*backend.MaxCount {
		return false
	}
	l := r.Limit()
	if r.Algorithm() == backend.CalendarWindow && n[1] > 0 && n[2]%(1<<23) == 0 {
		return false // a window without an end
	}
	if r.Algorithm() != backend.TokenBucket {
		return n[0] <= base && n[1] <= 2*l.Count
	}
	us, num := spanOf(&l, l.Capacity())
	most := 2*us + 1
	if 2*num >= l.Count {
		most++
	}
	return n[1] < l.Count && n[0]-base <= most
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
