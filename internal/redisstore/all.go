package redisstore

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/algorithm"
)

// part is a charge of a TakeAll.
type part struct {
	*backend.Charge
	res  *backend.Result
	plan *plan
	name string // of the key in Redis

	dated    *dated
	words    []string // of dated, with refusals that the server does not know of
	refusals int64
	slot     uint16 // of a Cluster
}

// TakeAll implements [backend.Backend]. It is one EVALSHA, in the time of Config.Timeout.
//
// A Cluster runs no script over several of its hash slots: there it is one for each slot, in their
// order, and what was charged is given back if a later one refuses or fails. So nothing is ever
// admitted beyond a limit, but others may be refused meanwhile, and what cannot be given back stays
// charged.
//
// A refusal that is remembered refuses all without asking Redis. Each charge that is known to be
// refused has its own Result, so that the longest wait is true as far as it is known. The others
// are then Allowed with nothing Remaining and [backend.SourceDenyCache]: that says nothing of their
// keys.
func (b *Backend) TakeAll(_ context.Context, charges ...backend.Charge) ([]backend.Result, error) {
	if err := algorithm.CheckAll(charges); err != nil {
		return nil, err
	}
	results, parts := make([]backend.Result, len(charges)), make([]part, len(charges))
	for i := range charges {
		c := &charges[i]
		p, err := b.plans.Of(c.Limits, (*plan).is, b.newPlan)
		if err != nil {
			return nil, err
		}
		parts[i] = part{Charge: c, res: &results[i], plan: p, name: b.stateKey(c.Key)}
	}
	t, err := b.link.to(opTakeAll, parts[0].name)
	if err != nil {
		return nil, err
	}
	if refused, err := b.knownRefusal(parts); err != nil {
		return nil, err
	} else if refused {
		return results, nil
	}
	if !t.client.Cluster() {
		if err = b.takeParts(&t, parts, true); err != nil {
			return nil, err
		}
		if !b.checks.done.Load() {
			b.checkLater(t.client, t.key)
		}
		return results, nil
	}
	for i := range parts {
		parts[i].slot = hashSlot(parts[i].name)
	}
	slices.SortStableFunc(parts, func(x, y part) int { return cmp.Compare(x.slot, y.slot) })
	if err = b.takeSlots(parts); err != nil {
		return nil, err
	}
	return results, nil
}

// knownRefusal fills in the results of parts if one or more are known to be refused.
func (b *Backend) knownRefusal(parts []part) (refused bool, err error) {
	var at time.Time
	for i := range parts {
		p := &parts[i]
		den := b.denials.of(p.Key, p.plan, p.Cost)
		if den == nil {
			continue
		}
		t, err := b.link.to(opTakeAll, p.name)
		if err != nil {
			return false, err
		}
		res, decided, known, err := b.denials.confirm(&t, p.Key, den, p.Cost)
		if err != nil {
			return false, err
		} else if known {
			res.Limit = p.Limits[decided]
			*p.res, at, refused = res, res.At, true
		}
	}
	for i := range parts {
		if p := &parts[i]; refused && p.res.Source != backend.SourceDenyCache {
			*p.res = backend.Result{Allowed: true, Limit: p.Limits[0], At: at, Source: backend.SourceDenyCache}
		}
	}
	return refused, nil
}

// takeSlots takes parts, which are in the order of their slots, slot by slot.
func (b *Backend) takeSlots(parts []part) error {
	fit := true
	for from, end := 0, 0; from < len(parts); from = end {
		for end = from; end < len(parts) && parts[end].slot == parts[from].slot; end++ {
		}
		t, err := b.link.to(opTakeAll, parts[from].name)
		if err == nil {
			err = b.takeParts(&t, parts[from:end], fit)
		}
		if err != nil {
			if fit {
				b.giveBack(parts[:from])
			}
			return err
		}
		if fit && slices.ContainsFunc(parts[from:end], func(p part) bool { return !p.res.Allowed }) {
			fit = false
			b.giveBack(parts[:from])
		}
	}
	return nil
}

// giveBack settles parts that were charged for nothing. If that fails they stay charged, which lets
// nobody in. It settles them all at once, so that several servers that hang take the time of one.
func (b *Backend) giveBack(parts []part) {
	var wg sync.WaitGroup
	for _, p := range parts {
		wg.Go(func() {
			_ = b.Settle(context.Background(), p.Key, *p.res, p.Cost, 0, p.Limits...)
			if !p.res.Limit.IsUnlimited() {
				p.res.Remaining = min(p.res.Remaining+p.Cost, p.res.Limit.Capacity())
			}
		})
	}
	wg.Wait()
}

// takeParts has the server decide about parts together, which it charges if all fit and charge says
// so, and remembers its refusals.
func (b *Backend) takeParts(t *trip, parts []part, charge bool) error {
	t.key, t.more = parts[0].name, make([]string, 0, len(parts)-1)
	for i := range parts[1:] {
		t.more = append(t.more, parts[1+i].name)
	}
	sent := time.Now()
	for i := range parts {
		if p := &parts[i]; p.plan.ban != "" && p.Cost > 0 {
			p.refusals = b.denials.uncounted(p.Key)
		}
	}
	reply, err := b.eval(t, func(at int64) call { return b.scripts.takeAll(parts, charge, b.now(), at) })
	if err != nil {
		return err
	}
	costs, charged, fit := 0, 0, charge // how many have a cost, and of how many it was charged
	for i := range parts {
		p := &parts[i]
		a := answer{slots: make([]algorithm.Slot, 0, inline)}
		if err == nil && i > 0 {
			if reply == "" {
				err = errors.New("the script's reply is not one for each charge")
			} else {
				reply = reply[1:]
			}
		}
		if err == nil {
			reply, err = a.decode(reply, p.plan)
		}
		if err != nil {
			return b.unavailable(opTakeAll, err)
		}
		decided := 0
		if a.charged {
			charged++
			b.denials.forget(p.Key)
			decided = algorithm.Admitted(a.slots, p.plan.rules, a.now, p.res)
		} else {
			decided = a.judge(p.plan, p.Cost, p.res)
			b.learn(&a, p.name, p.plan, p.Key, p.Cost, p.res, sent)
		}
		p.res.Limit = p.Limits[decided]
		if p.Cost > 0 {
			costs++
		}
		fit = fit && p.res.Allowed
	}
	if reply != "" || fit && charged < costs || !fit && charged > 0 {
		return b.unavailable(opTakeAll, errors.New("the script did not charge all or none, or refused what it has room for"))
	}
	if charged > 0 {
		t.worked()
	}
	return nil
}
