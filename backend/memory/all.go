package memory

import (
	"context"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/algorithm"
)

// part is a charge of a TakeAll.
type part struct {
	place
	charge *backend.Charge
	res    *backend.Result
	index  uint64 // of the shard
	first  int    // of its rules
	end    int

	fits   bool             // by itself
	quick  bool             // p.found, and Rule.Quick decided:
	next   algorithm.State  // what is in the entry once it is charged
	answer algorithm.Answer // what it is told then
}

// TakeAll implements [backend.Backend]. It fails only if there is no charge, two have one key, a
// cost is negative, or a limit is missing or not valid. At the cap, where keys share buckets, a
// charge that fits by itself can be refused beside another that shares its bucket.
func (b *Backend) TakeAll(_ context.Context, charges ...backend.Charge) ([]backend.Result, error) {
	if err := algorithm.CheckAll(charges); err != nil {
		return nil, err
	}
	results := make([]backend.Result, len(charges))
	var few [4]part
	var fewRules [4]*algorithm.Rule
	parts, rules := few[:0], fewRules[:0]
	for i := range charges {
		c, first := &charges[i], len(rules)
		var err error
		if rules, err = b.rulesOf(rules, c.Limits, nil); err != nil {
			return nil, err
		}
		h := b.hash(c.Key)
		parts = append(parts, part{
			place: place{shard: b.shard(h), hash: h}, charge: c, res: &results[i], index: b.index(h), first: first, end: len(rules),
		})
		// In one order for everybody, so that no two wait for each other.
		for j := i; j > 0 && parts[j].index < parts[j-1].index; j-- {
			parts[j], parts[j-1] = parts[j-1], parts[j]
		}
	}
	lock(parts)
	defer unlock(parts)
	now := b.now()
	for i := range parts {
		now = max(now, parts[i].latest)
	}
	fit := true
	for i := range parts {
		p := &parts[i]
		p.latest = now
		p.at, p.found = p.table.find(p.hash)
		p.fits = b.fits(p, now, rules[p.first:p.end])
		fit = fit && p.fits
	}
	for n := range parts {
		if p := &parts[n]; !fit || !b.charge(p, now, rules[p.first:p.end]) {
			for i := range parts {
				p := &parts[i]
				b.undo(p, now, i < n, rules[p.first:p.end])
			}
			break
		}
	}
	return results, nil
}

// lock locks the shards of parts, which are in their order.
func lock(parts []part) {
	for i := range parts {
		if i == 0 || parts[i].shard != parts[i-1].shard {
			parts[i].mu.Lock()
		}
	}
}

func unlock(parts []part) {
	for i := range parts {
		if i == 0 || parts[i].shard != parts[i-1].shard {
			parts[i].mu.Unlock()
		}
	}
}

// fits reports whether p by itself fits.
func (b *Backend) fits(p *part, now int64, rules []*algorithm.Rule) bool {
	if p.found && len(rules) == 1 {
		e := &p.table.entries[p.at]
		if rule := b.rule(e.rule); rule == rules[0] {
			if next, answer, ok := rule.Quick(e.state(), now, p.charge.Cost); ok {
				p.quick, p.next, p.answer = answer.Wait == 0, next, answer
				return p.quick
			}
		}
	}
	var res backend.Result
	b.judge(&res, p, now, rules)
	return res.Allowed
}

func (b *Backend) judge(res *backend.Result, p *part, now int64, rules []*algorithm.Rule) (decided int) {
	var few [4]algorithm.Slot
	return algorithm.Judge(b.view(few[:0], p.place, now, rules), rules, now, p.charge.Cost, res)
}

// charge takes what p asks for and reports whether it did: another part may have used up the bucket
// that both share.
func (b *Backend) charge(p *part, now int64, rules []*algorithm.Rule) bool {
	p.at, p.found = p.table.find(p.hash) // another part's entry may have moved this one's, or swept it away
	if p.quick && p.found {
		if p.charge.Cost > 0 {
			p.table.entries[p.at].set(p.next)
		}
		p.answer.Fill(p.res, now)
		p.res.Limit = p.charge.Limits[0]
		return true
	}
	p.res.Limit = p.charge.Limits[b.take(p.res, p.place, now, p.charge.Cost, rules)]
	return p.res.Allowed
}

// undo gives back what p was charged, if it was, and says what p is told where another part
// refuses.
func (b *Backend) undo(p *part, now int64, charged bool, rules []*algorithm.Rule) {
	p.at, p.found = p.table.find(p.hash)
	if charged {
		b.settle(p.place, now, now, p.charge.Cost, 0, p.charge.Cost, rules)
	}
	*p.res = backend.Result{}
	decided := 0
	if p.fits {
		decided = b.judge(p.res, p, now, rules)
	} else { // a ban may have to count the refusal
		decided = b.take(p.res, p.place, now, p.charge.Cost, rules)
	}
	p.res.Limit = p.charge.Limits[decided]
}
