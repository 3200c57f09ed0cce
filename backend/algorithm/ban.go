package algorithm

import (
	"slices"
	"time"

	"github.com/ginlimit/ginlimit/backend"
)

// Bans: a key's slots may be followed by two more. The first is that of the limit of refusals,
// under a rule that counts. The second is the ban: Time is when it ends, Used for how long it was,
// in µs, and Rest for how long after its end another one is twice as long. Neither is any limit's
// past, and both stay whatever limits the key is charged under, so that every version of an
// application honours a ban. What says nothing any more is left out.

// banned is the rule of a ban.
var banned = &Rule{row: &row{
	expiry: func(_ *Rule, st State) int64 { return st.Time + st.Rest },
	shift:  timeShift,
}}

// Banned returns the rule that the slot of a ban stands under.
func Banned() *Rule { return banned }

// counter is what a rule for bans has beside its limit.
type counter struct {
	refusals       *Rule // counts
	first, longest int64
}

// Counts reports whether r counts refusals: it is that of a limit with a ban, as a slot has it.
func (r *Rule) Counts() bool { return r.counts }

// Refusals returns the rule that counts refusals for r, or nil if r is not of a limit with a ban.
func (r *Rule) Refusals() *Rule {
	if r.counter == nil {
		return nil
	}
	return r.counter.refusals
}

// Durations returns how long the first ban under r is, and the longest, in µs.
func (r *Rule) Durations() (first, longest int64) { return r.counter.first, r.counter.longest }

// limits returns the rules without that for bans, and that, if there is one: it is the last.
func limits(rules []*Rule) ([]*Rule, *Rule) {
	if n := len(rules) - 1; n > 0 && rules[n].counter != nil {
		return rules[:n], rules[n]
	}
	return rules, nil
}

// Own returns those of a key's slots that are of its limits, and the others.
func Own(slots []Slot) (own, beside []Slot) {
	n := len(slots)
	for n > 0 && slots[n-1].Rule != nil && (slots[n-1].Rule == banned || slots[n-1].Rule.counts) {
		n--
	}
	return slots[:n], slots[n:]
}

// bans is what stands beside the slots of limits, as it is at an instant. The zero Slots are none.
type bans struct{ refusals, ban Slot }

// bansOf returns what of beside matters at now.
func bansOf(beside []Slot, now int64) (b bans) {
	for _, s := range beside {
		switch {
		case s.Rule.Expiry(s.State) <= now:
		case s.Rule == banned:
			b.ban = s
		default:
			s.load(now)
			b.refusals = s
		}
	}
	return b
}

// left returns for how long a ban still lasts.
func (b *bans) left(now int64) int64 {
	if b.ban.Rule == nil {
		return 0
	}
	return max(0, b.ban.State.Time-now)
}

// refuse counts so many refusals under r, which brings a ban about if they are more than its limit
// allows.
func (b *bans) refuse(r *Rule, now, refusals int64) {
	counts := r.counter.refusals
	if counts.wait(&b.refusals, now, refusals) == 0 {
		b.refusals = counts.charge(&b.refusals, now, refusals)
		return
	}
	length := r.counter.first
	if last := b.ban.State; b.ban.Rule != nil && last.Used > 0 && now < last.Time+r.counter.longest {
		length = min(2*last.Used, r.counter.longest)
	}
	b.refusals = Slot{}
	b.ban = Slot{banned, State{Time: now + length, Used: length, Rest: r.counter.longest}}
}

// Bans reports whether so many refusals more would bring a ban about, of a key with these slots.
func Bans(slots []Slot, rules []*Rule, now, refusals int64) bool {
	_, counter := limits(rules)
	if counter == nil {
		return false
	}
	_, beside := Own(slots)
	b := bansOf(beside, now)
	return counter.counter.refusals.wait(&b.refusals, now, refusals) != 0
}

// appended appends what there is to the slots of limits.
func (b *bans) appended(slots []Slot) []Slot {
	for _, s := range []Slot{b.refusals, b.ban} {
		if s.Rule != nil {
			slots = append(slots, s)
		}
	}
	return slots
}

// Ban returns what a key's slots are once it is banned by hand from now on, for a time in µs. How
// long its last ban was stays known.
func Ban(slots []Slot, now, length int64) []Slot {
	own, beside := Own(slots)
	b := bansOf(beside, now)
	last := b.ban.State
	b.ban = Slot{banned, State{Time: now + length, Used: last.Used, Rest: last.Rest}}
	return b.appended(slices.Clone(own))
}

// refuseBanned makes res a refusal by a ban that lasts for left, and reports whether that is longer
// than what res has to wait for otherwise. Then nothing remains until the ban is over.
func refuseBanned(res *backend.Result, left int64, began bool) (decides bool) {
	res.Allowed = false
	*res = res.WithBanned(began)
	wait := time.Duration(left) * time.Microsecond
	if res.RetryAfter < 0 || res.RetryAfter >= wait {
		return false
	}
	res.Remaining, res.RetryAfter, res.ResetAfter = 0, wait, wait
	*res = res.WithDebt(0)
	return true
}
