package algorithm

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/ginlimit/ginlimit/backend"
)

// Slot is one limit's place in a key: the state, and the rule that it was charged under. The zero
// Slot is empty, as is that of a limit that keeps no state.
type Slot struct {
	Rule  *Rule
	State State
}

// inline is for how many slots the functions below need no memory of their own.
const inline = 4

// Take decides cost for the rules against a key's slots, and charges all of them or none. It fills
// res in with the view of the rule that decided, all but Limit and Source, and returns that rule's
// index. If next is not nil it is what the key's slots are from now on, in slots' array if that has
// room. Otherwise nothing changed, slots included.
//
// What is in use ages under the rule that it was charged under, until a charge is made under
// another. So a refusal under a limit that changed counts down, and a smaller limit that is met now
// and then cuts nothing of what a larger one was charged.
//
// A store whose clock can go back calls [Rebase] before.
func Take(slots []Slot, rules []*Rule, now, cost int64, res *backend.Result) (decided int, next []Slot) {
	if decided, charged, ok := takeQuick(slots, rules, now, cost, res); ok {
		if charged {
			next = slots
		}
		return decided, next
	}
	own, beside := Own(slots)
	var bans bans
	if len(beside) > 0 && Looks(rules) {
		bans = bansOf(beside, now)
	}
	rules, counter := limits(rules)
	var few [inline]Slot
	mine := arranged(few[:0], own, rules, now)
	decided, wait, refusing := judge(mine, rules, now, cost)
	left, began := bans.left(now), false
	switch {
	case left > 0: // nothing is charged, and nothing counted
	case wait == 0 && cost > 0 && slices.ContainsFunc(rules, (*Rule).keeps):
		next = slots[:0]
		for i, r := range rules {
			next = append(next, r.charge(&mine[i], now, cost))
		}
		mine, next = next, bans.appended(next)
	case wait != 0 && cost > 0 && counter != nil:
		bans.refuse(counter, now, 1)
		left = bans.left(now)
		began = left > 0
		next = bans.appended(slices.Clone(own)) // as they are: what has expired stays as good as forgotten
	}
	if wait == 0 {
		decided = tightest(mine, rules, now)
	}
	rules[decided].fill(res, &mine[decided], now, wait)
	refuse(res, refusing)
	if left > 0 && refuseBanned(res, left, began) && counter != nil {
		decided = len(rules)
	}
	return decided, next
}

// Judge is [Take] without the charge: res says whether cost would fit, and what is left without it.
// A ban that res tells of began earlier: a store that counted the refusal knows better.
func Judge(slots []Slot, rules []*Rule, now, cost int64, res *backend.Result) (decided int) {
	own, beside := Own(slots)
	rules, counter := limits(rules)
	var few [inline]Slot
	mine := arranged(few[:0], own, rules, now)
	decided, wait, refusing := judge(mine, rules, now, cost)
	if wait == 0 {
		decided = tightest(mine, rules, now)
	}
	rules[decided].fill(res, &mine[decided], now, wait)
	refuse(res, refusing)
	if len(beside) > 0 && (counter != nil || Looks(rules)) {
		bans := bansOf(beside, now)
		if left := bans.left(now); left > 0 && refuseBanned(res, left, false) && counter != nil {
			decided = len(rules)
		}
	}
	return decided
}

// Usage fills in res, which has as many elements as there are rules, with what each rule by itself
// says to a cost of 0: all but Limit and Source.
func Usage(slots []Slot, rules []*Rule, now int64, res []backend.Result) {
	own, _ := Own(slots)
	rules, _ = limits(rules)
	var few [inline]Slot
	mine := arranged(few[:0], own, rules, now)
	for i, r := range rules {
		r.fill(&res[i], &mine[i], now, r.wait(&mine[i], now, 1))
	}
}

// Rebase is for a store whose clock can go back: base is the instant at which it wrote slots. If
// now is before it no time has passed since, so that slots move along, and Rebase reports true. If
// a Take of a cost above 0 is refused then, of which some rule keeps a state, the store writes
// slots, because the wait would begin anew with each refusal.
func Rebase(slots []Slot, base, now int64) (moved bool) {
	if now >= base {
		return false
	}
	for j := range slots {
		if s := &slots[j]; s.Rule != nil {
			s.State = s.Rule.row.shift(s.State, now-base)
		}
	}
	return true
}

// judge returns how long cost has to wait for all rules, the rule that decides if it has to, and
// the places of those that refuse.
func judge(mine []Slot, rules []*Rule, now, cost int64) (decided int, longest int64, refusing uint32) {
	for i, r := range rules {
		wait := r.wait(&mine[i], now, max(cost, 1))
		if wait != 0 {
			refusing |= 1 << i
		}
		if longer(wait, longest) {
			longest, decided = wait, i
		}
	}
	return decided, longest, refusing
}

// fill fills res in with what r says of its slot and a wait.
func (r *Rule) fill(res *backend.Result, s *Slot, now, wait int64) {
	Answer{wait, r.left(s, now), s.reset(now) - now}.Fill(res, now)
}

// refuse puts the places of the limits that refuse into res, if they are several: one is known as
// its Limit.
func refuse(res *backend.Result, places uint32) {
	if places&(places-1) != 0 {
		*res = res.WithRefusing(places)
	}
}

// takeQuick is Take where each slot is under the rule of its place and all have a quick form. It
// reports false, and changed nothing, if they do not.
func takeQuick(slots []Slot, rules []*Rule, now, cost int64, res *backend.Result) (decided int, charged, ok bool) {
	rules, counter := limits(rules)
	if len(slots) != len(rules) || len(slots) > 2*inline {
		return 0, false, false
	}
	var few [2 * inline]State
	var tightest Answer
	var refusing uint32
	for i, r := range rules {
		s := &slots[i]
		if s.Rule != r && (s.Rule == nil || !s.Rule.alike(r)) {
			return 0, false, false
		}
		st, a, ok := r.Quick(s.State, now, cost)
		if !ok {
			return 0, false, false
		}
		few[i] = st
		if a.Wait != 0 {
			refusing |= 1 << i
		}
		if i == 0 || longer(a.Wait, tightest.Wait) || tightest.Wait == 0 && a.Wait == 0 && a.Left < tightest.Left {
			decided, tightest = i, a
		}
	}
	if tightest.Wait != 0 && counter != nil && cost > 0 { // the refusal is counted
		return 0, false, false
	}
	if charged = tightest.Wait == 0 && cost > 0; charged {
		for i := range slots {
			s := &slots[i]
			if s.Rule != rules[i] {
				s.Rule = rules[i]
			}
			// It has no log. Where no pointer is written the garbage collector has nothing to be
			// told.
			s.State.Time, s.State.Used, s.State.Rest = few[i].Time, few[i].Used, few[i].Rest
		}
	}
	tightest.Fill(res, now)
	refuse(res, refusing)
	return decided, charged, true
}

// Answer is what a rule says of a cost. Its times are in µs from now.
type Answer struct {
	Wait  int64 // until the cost fits: 0 if it was charged, negative if it never does
	Left  int64 // units that fit now; negative if more than the capacity is in use
	Reset int64 // until nothing is in use
}

// Fill fills res in, all but Limit and Source.
func (a Answer) Fill(res *backend.Result, now int64) {
	res.Allowed = a.Wait == 0
	res.Remaining = max(0, a.Left)
	res.RetryAfter = max(backend.Never, time.Duration(a.Wait)*time.Microsecond)
	res.ResetAfter = time.Duration(max(0, a.Reset)) * time.Microsecond
	res.At = time.UnixMicro(now)
	if a.Left < 0 {
		*res = res.WithDebt(-a.Left)
	}
}

// Quick is [Take], in one step, for a key whose one slot is under r and holds st. Nearly all
// decisions are of this kind. If there is no wait, and cost is not 0, the state is next from now
// on. Quick reports false for a log, a limit that keeps no state, and a debt of a capacity: Take
// has to decide then.
func (r *Rule) Quick(st State, now, cost int64) (next State, a Answer, ok bool) {
	return r.quick(r, st, now, cost)
}

// notQuick is the quick form of what has none.
func notQuick(_ *Rule, st State, _, _ int64) (_ State, _ Answer, ok bool) { return st, Answer{}, false }

// Admitted is [Take] after the fact, for a cost that a store has charged by the same steps
// elsewhere. slots are what the charge at now left: each is under the rule of its place, or empty
// if that rule keeps no state.
func Admitted(slots []Slot, rules []*Rule, now int64, res *backend.Result) (decided int) {
	rules, _ = limits(rules)
	decided = tightest(slots, rules, now)
	rules[decided].fill(res, &slots[decided], now, 0)
	return decided
}

// Settle corrects what was charged at an instant under rules, from cost to actual. If next is not
// nil it is what the key's slots are from now on, in slots' array if that has room. Otherwise there
// was nothing to correct.
//
// Less gives the difference back, each slot under its own rule, so that a limit may have changed in
// between. More is charged now, whatever is left, until twice the capacity is in use: the debt is
// at most one. Under Concurrency held units are given back in either case, as [Held] has them.
func Settle(slots []Slot, rules []*Rule, now, charged, cost, actual, held int64) (next []Slot) {
	own, beside := Own(slots)
	rules, _ = limits(rules)
	switch {
	case actual == cost && held == 0 || !slices.ContainsFunc(rules, (*Rule).keeps):
		return nil
	case actual <= cost:
		if !refund(own, rules, now, charged, cost-actual, held) {
			return nil
		}
		return slots
	}
	var few [inline]Slot
	mine := arranged(few[:0], own, rules, now)
	var fewer [2]Slot
	beside = append(fewer[:0], beside...)
	next = slots[:0]
	for i, r := range rules {
		s := mine[i]
		if r.holds() {
			if s.Rule != nil && s.Rule.used(&s, now) == 0 {
				s = Slot{}
			}
			next = append(next, s.released(charged, now, held))
			continue
		}
		if s.Rule == nil || s.Rule.used(&s, now) <= r.capacity {
			s = r.take(&s, now)
		}
		if !r.stateless {
			units := min(actual-cost, max(0, 2*s.Rule.capacity-s.Rule.used(&s, now)))
			switch {
			case units <= 0:
			case s.Rule.calendarOf(r):
				s.State = s.Rule.row.charge(s.Rule, s.State, now, units)
			default: // only the rules that are asked know their calendar
				s.State.Used += units
			}
		}
		next = append(next, s)
	}
	return append(next, beside...)
}

// calendarOf reports whether r can be charged where other is asked.
func (r *Rule) calendarOf(other *Rule) bool {
	return r.limit.Algorithm != backend.CalendarWindow || r == other || r.alike(other)
}

// refund brings slots up to now and gives units back, if there are any to give.
func refund(slots []Slot, rules []*Rule, now, charged, units, held int64) (given bool) {
	var few [inline]Slot
	aged := append(few[:0], slots...)
	load(aged, now)
	var fewer [inline]int
	for i, j := range match(fewer[:0], aged, rules) {
		if j < 0 || aged[j].Rule.row != rules[i].row {
			continue // nothing was charged here, or what was is forgotten
		}
		back := units
		if rules[i].holds() {
			back = held
		}
		if st, some := rules[i].row.refund(aged[j].Rule, aged[j].State, now, charged, back); some && back > 0 {
			aged[j].State, given = st, true
		}
	}
	if given {
		copy(slots, aged)
	}
	return given
}

// holds reports whether units under r are held until they are settled.
func (r *Rule) holds() bool { return r.limit.Algorithm == backend.Concurrency && !r.stateless }

// released returns a loaded slot without the units that a charge held.
func (s Slot) released(charged, now, held int64) Slot {
	if s.Rule != nil && s.Rule.holds() && held > 0 {
		s.State, _ = s.Rule.row.refund(s.Rule, s.State, now, charged, held)
	}
	return s
}

// Held returns the units that a Settle gives back of limits of requests in flight.
func Held(taken backend.Result, cost int64, limits []backend.Limit) int64 {
	if !taken.Released() && slices.ContainsFunc(limits, func(l backend.Limit) bool { return l.Algorithm == backend.Concurrency }) {
		return cost
	}
	return 0
}

// Renew holds units that were charged at an instant for another Period from now on, also where they
// were lost, but never more than twice the capacity. If next is not nil it is what the key's slots
// are from now on.
func Renew(slots []Slot, rules []*Rule, now, charged, units int64) (next []Slot) {
	own, beside := Own(slots)
	rules, _ = limits(rules)
	if !slices.ContainsFunc(rules, (*Rule).holds) {
		return nil
	}
	if !slices.ContainsFunc(own, func(s Slot) bool { return s.Rule != nil && s.Rule.Expiry(s.State) > now }) {
		own = nil // a store may have forgotten them
	}
	var few [inline]Slot
	aged := append(few[:0], own...)
	load(aged, now)
	next = slices.Clone(own)
	for len(aged) < len(rules) {
		aged, next = append(aged, Slot{}), append(next, Slot{})
	}
	var fewer [inline]int
	for i, j := range match(fewer[:0], aged, rules) {
		if !rules[i].holds() {
			continue
		}
		if j < 0 {
			if j = i; aged[j].Rule != nil { // another limit's
				continue
			}
			aged[j] = Slot{rules[i], State{Time: now}}
		}
		s := aged[j].released(charged, now, units)
		if s.Rule.holds() {
			if room := 2*s.Rule.capacity - s.Rule.used(&s, now); room > 0 {
				s.State = s.Rule.row.charge(s.Rule, s.State, now, min(units, room))
			}
		}
		next[j] = s
	}
	return append(next, beside...)
}

// load brings slots up to now.
func load(slots []Slot, now int64) {
	for j := range slots {
		if slots[j].Rule != nil {
			slots[j].load(now)
		}
	}
}

// load leaves a state that has expired its rule: its limit finds it, and not what another was
// charged.
func (s *Slot) load(now int64) {
	if s.Rule.Expiry(s.State) <= now {
		s.State = State{Time: now, Log: s.State.Log}
		if s.State.Log != nil { // its memory is used again
			s.State.Rest = int64(len(*s.State.Log))
		}
	} else {
		s.State = s.Rule.row.age(s.Rule, s.State, now)
	}
}

// arranged appends to the empty mine the slots of rules at now, in their order.
func arranged(mine, slots []Slot, rules []*Rule, now int64) []Slot {
	mine = append(mine, slots...)
	load(mine, now)
	return arrange(mine, rules)
}

// arrange returns the slots of rules, in their order: the past of each, as match finds it. It uses
// slots' array.
func arrange(slots []Slot, rules []*Rule) []Slot {
	for len(slots) < len(rules) {
		slots = append(slots, Slot{})
	}
	if inPlace(slots, rules) {
		return slots[:len(rules)]
	}
	var few [inline]int
	from := match(few[:0], slots, rules)
	for i, j := range from {
		if j < 0 || j == i {
			continue
		}
		slots[i], slots[j] = slots[j], slots[i]
		for k := i + 1; k < len(from); k++ {
			if from[k] == i {
				from[k] = j
			}
		}
	}
	for i, j := range from {
		if j < 0 {
			slots[i] = Slot{}
		}
	}
	return slots[:len(rules)]
}

// inPlace reports whether every rule has its slot at its own place, as it has unless a limit
// changed.
func inPlace(slots []Slot, rules []*Rule) bool {
	lacks, spare := false, false
	for j := range slots {
		switch own := slots[j].Rule; {
		case j >= len(rules):
			spare = spare || own != nil
		case own == nil:
			lacks = lacks || rules[j].keeps()
		case own != rules[j] && !own.alike(rules[j]):
			return false
		}
	}
	return !lacks || !spare
}

// match appends to from, for each rule, the index of the slot that is its past, or -1 if it has
// none. A limit's past is the slot with the same numbers, wherever that stands now. Failing that it
// is one that counts in the same way over the same Period, then one that counts in any way over it,
// and then the one at its own place. Each slot is the past of one limit at most.
func match(from []int, slots []Slot, rules []*Rule) []int {
	for range rules {
		from = append(from, -1)
	}
	always := func(_, _ *Rule) bool { return true }
	for _, pass := range [...]struct {
		own bool // only at the rule's own place
		is  func(past, r *Rule) bool
	}{
		{true, (*Rule).alike}, {false, (*Rule).alike},
		{true, (*Rule).kin}, {false, (*Rule).kin},
		{true, (*Rule).coeval}, {false, (*Rule).coeval},
		{true, always},
	} {
		for i, r := range rules {
			for j := range slots {
				if from[i] < 0 && r.keeps() && slots[j].Rule != nil && (i == j || !pass.own) &&
					pass.is(slots[j].Rule, r) && !slices.Contains(from, j) {
					from[i] = j
				}
			}
		}
	}
	return from
}

// Looks reports whether a decision under rules depends on what is known of a key. Those that keep
// no state, and count no refusals for a ban, decide without looking.
func Looks(rules []*Rule) bool {
	return slices.ContainsFunc(rules, func(r *Rule) bool { return r.keeps() || r.counter != nil })
}

// keeps reports whether r keeps a state.
func (r *Rule) keeps() bool { return !r.stateless }

// alike reports whether the numbers of r and other are the same.
func (r *Rule) alike(other *Rule) bool {
	return r.kin(other) && r.limit.Count == other.limit.Count && r.capacity == other.capacity && r.calendar == other.calendar &&
		r.counts == other.counts
}

// kin reports whether r counts as other does, over the same Period.
func (r *Rule) kin(other *Rule) bool { return r.row == other.row && r.coeval(other) }

// coeval reports whether r counts over the same Period as other.
func (r *Rule) coeval(other *Rule) bool { return r.period == other.period }

// wait returns the µs until cost > 0 fits beside what is in use in a loaded slot: 0 if it does now,
// negative if it never will.
func (r *Rule) wait(s *Slot, now, cost int64) int64 {
	switch {
	case cost > r.capacity:
		return int64(backend.Never)
	case s.Rule == nil:
		return 0
	default:
		return s.Rule.row.until(s.Rule, s.State, now, r.capacity-cost)
	}
}

// longer reports whether waiting a is worse than waiting b; never is worst.
func longer(a, b int64) bool { return b >= 0 && (a < 0 || a > b) }

// charge returns the slot with cost, which must fit, under r. What was in use is carried over.
func (r *Rule) charge(s *Slot, now, cost int64) Slot {
	next := r.take(s, now)
	if next.Rule != nil {
		next.State = r.row.charge(r, next.State, now, cost)
	}
	return next
}

// take returns the slot under r, with what is in use carried over, which must fit.
func (r *Rule) take(s *Slot, now int64) Slot {
	if r.stateless {
		return Slot{}
	}
	st, old := s.State, s.Rule
	switch {
	case old == r || old != nil && old.alike(r):
	case old == nil:
		st = State{Time: now}
	case old.row == r.row:
		st = r.row.carry(r, st, now, old)
	default: // as if all that is in use was charged now
		st = State{Time: now}
		if units := old.row.used(old, s.State, now); units > 0 {
			st = r.row.charge(r, st, now, units)
		}
	}
	return Slot{r, st}
}

// used returns the units in use in a loaded slot, rounded up.
func (r *Rule) used(s *Slot, now int64) int64 {
	if s.Rule == nil {
		return 0
	}
	return s.Rule.row.used(s.Rule, s.State, now)
}

// left returns the units that fit at now beside a loaded slot: fewer than none if more than the
// capacity is in use.
func (r *Rule) left(s *Slot, now int64) int64 { return r.capacity - r.used(s, now) }

// reset returns the instant from which nothing is in use in a loaded slot.
func (s *Slot) reset(now int64) int64 {
	if s.Rule == nil {
		return now
	}
	return max(now, s.Rule.row.reset(s.Rule, s.State))
}

// tightest returns the index of the rule with the least left.
func tightest(slots []Slot, rules []*Rule, now int64) (decided int) {
	least := int64(math.MaxInt64)
	for i, r := range rules {
		if left := r.left(&slots[i], now); left < least {
			decided, least = i, left
		}
	}
	return decided
}

// CheckTake returns the error of a Take that cannot be decided, whatever the store: a negative
// cost, or no limit. Limits are checked by [NewRule].
func CheckTake(cost int64, limits []backend.Limit) error {
	if cost < 0 {
		return fmt.Errorf("ginlimit: cost %d is negative; use Settle to give units back", cost)
	}
	if len(limits) == 0 {
		return fmt.Errorf("ginlimit: no limit was given; use Unlimited() to let everything pass")
	}
	return nil
}

// CheckBan returns the error of a Ban that cannot be made, whatever the store.
func CheckBan(d time.Duration) error {
	if d < backend.MinPeriod || d > backend.MaxPeriod || d%time.Microsecond != 0 {
		return fmt.Errorf("ginlimit: a ban for %v: use %v to %v, in whole microseconds", d, backend.MinPeriod, backend.MaxPeriod)
	}
	return nil
}

// CheckSettle returns the error of a Settle that cannot be made, whatever the store.
func CheckSettle(cost, actual int64, limits []backend.Limit) error {
	if actual < 0 {
		return fmt.Errorf("ginlimit: actual cost %d is negative; use 0 to give everything back", actual)
	}
	return CheckTake(cost, limits)
}

// CheckAll returns the error of a TakeAll that cannot be decided, whatever the store.
func CheckAll(charges []backend.Charge) error {
	if len(charges) == 0 {
		return fmt.Errorf("ginlimit: TakeAll has no charge; give it at least one")
	}
	for i := range charges {
		c := &charges[i]
		if err := CheckTake(c.Cost, c.Limits); err != nil {
			return err
		}
		for j := range i {
			if charges[j].Key == c.Key {
				return fmt.Errorf("ginlimit: charges %d and %d of TakeAll have one key; make them one charge under all limits", j, i)
			}
		}
	}
	return nil
}

// Sequential is a TakeAll out of Take and Settle, for a store that cannot decide about several keys
// in one step: a charge after the other, and if one is refused, or fails, those that were charged
// are settled for nothing. So nothing is admitted beyond a limit, but others may be refused
// meanwhile, and what cannot be given back stays charged.
func Sequential(ctx context.Context, b backend.Backend, charges ...backend.Charge) ([]backend.Result, error) {
	if err := CheckAll(charges); err != nil {
		return nil, err
	}
	all := make([]backend.Result, 0, len(charges))
	fit := true
	var failed error
	for _, c := range charges {
		res, err := b.Take(ctx, c.Key, c.Cost, c.Limits...)
		if failed = err; err != nil {
			break
		}
		all, fit = append(all, res), fit && res.Allowed
	}
	if fit && failed == nil {
		return all, nil
	}
	for i := range all {
		c, res := &charges[i], &all[i]
		if !res.Allowed {
			continue
		}
		_ = b.Settle(context.WithoutCancel(ctx), c.Key, *res, c.Cost, 0, c.Limits...)
		if !res.Limit.IsUnlimited() {
			res.Remaining = min(res.Remaining+c.Cost, res.Limit.Capacity())
		}
	}
	if failed != nil {
		return nil, failed
	}
	return all, nil
}
