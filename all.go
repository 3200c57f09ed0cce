package ginlimit

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/ginlimit/ginlimit/backend"
)

// All is the middleware of several limiters that decide together: a request is charged to all of
// them, each under its own key, limits, tier and cost, or to none. Their order does not matter to
// what is admitted. So a caller is not charged for a request that the limit of everybody refuses,
// nor the other way round.
//
// Limiters on one backend are decided by one [backend.Backend.TakeAll], on Redis in one round trip.
// Across backends they are asked in the order given, and what was charged is given back if a later
// one refuses. A limiter without [WithBackend] has one of its own.
//
// The response lists every policy, and speaks for the tightest. If limiters refuse, the tightest of
// them answers. Each limiter's observers see one decision. If the limiter would have let the
// request pass, and another refuses, the Outcome is "not_charged". A limiter that skips the request
// takes no part. A limiter that runs dry never refuses, and is charged if the others let the
// request pass. A request is held, as [WithMaxWait] says, if all that refuse it hold requests.
// Otherwise each option does what it does in [Limiter.Handle]. A limiter that has charged the
// request already is left out.
//
// All panics if there is no limiter, if one is nil or there twice, and if two have one name on one
// backend, where they would share their counters.
func All(limiters ...*Limiter) gin.HandlerFunc {
	t := &together{limiters: slices.Clone(limiters)}
	if len(limiters) == 0 {
		panic(errors.New("ginlimit: All needs a limiter; give it at least one"))
	}
	for i, l := range limiters {
		if l == nil {
			panic(fmt.Errorf("ginlimit: limiter %d of All is nil; use NewLimiter to make it", i+1))
		}
		t.store = append(t.store, i)
		for j, other := range limiters[:i] {
			switch {
			case other == l:
				panic(fmt.Errorf("ginlimit: limiters %d and %d of All are the same; leave one out", j+1, i+1))
			case !sameBackend(l.backend, other.backend):
				continue
			case l.name == other.name:
				panic(fmt.Errorf("ginlimit: limiters %d and %d of All have the name %q and one backend; "+
					"give each a name of its own by WithName", j+1, i+1, l.name))
			}
			t.store[i] = t.store[j]
		}
	}
	return t.handle
}

// sameBackend reports whether two backends are one.
func sameBackend(a, b backend.Backend) bool {
	return reflect.TypeOf(a) == reflect.TypeOf(b) && reflect.TypeOf(a).Comparable() && a == b
}

// together is the limiters of an All.
type together struct {
	limiters []*Limiter
	store    []int // of each: the index of the first limiter with the same backend
}

func (t *together) handle(c *gin.Context) {
	h := historyOf(c)
	a := joint{c: c, parts: make([]part, 0, len(t.limiters))}
	late := false
	for i, l := range t.limiters {
		if h.of(l, (*record).byHandle) != nil {
			l.warnTwice(c)
			continue
		}
		if l.skips(c) {
			continue
		}
		n := len(a.parts)
		a.parts = append(a.parts, part{store: t.store[i]})
		p := &a.parts[n]
		if p.ready = l.ask(c, &p.record); errors.Is(p.Err, ErrSkip) {
			a.parts = a.parts[:n]
			continue
		}
		p.handled, p.shown = true, true
		late = late || l.late
	}
	if len(a.parts) == 0 {
		c.Next()
		return
	}
	a.takeOrWait(c.Request.Context().Done())
	all := slices.Grow(h[:len(h):len(h)], len(a.parts))
	answers := -1 // the tightest that refuses
	for i := range a.parts {
		p := &a.parts[i]
		p.limiter.observe(c.Request.Context(), &p.Decision)
		if all = append(all, &p.record); p.status() != 0 && (answers < 0 || p.tighter(all[answers])) {
			answers = len(all) - 1
		}
	}
	if len(all) == 1 {
		h.keep(c, all[0], nil)
	} else {
		c.Set(historyKey, all)
	}
	if answers >= 0 {
		others := slices.Delete(slices.Clone(all), answers, answers+1)
		all[answers].limiter.respond(c, all[answers], others, len(h))
		return
	}
	last := all[len(all)-1]
	last.limiter.respond(c, last, all[:len(all)-1], len(h))
	if late {
		defer writeLate(c).leave()
	}
	request := c.Request
	for i := range a.parts {
		p := &a.parts[i]
		if p.limiter.board(&p.record); p.flight != nil {
			defer p.limiter.land(c, &p.record)
		}
	}
	c.Next()
	for i := range a.parts {
		p := &a.parts[i]
		if c.Request == request || historyOf(c).has(&p.record) {
			p.limiter.settleFor(c, &p.record)
		}
	}
}

// part is a limiter's share in a joint decision.
type part struct {
	record
	ready   bool // there is something to ask the backend
	store   int  // which backend
	asked   bool // in this attempt
	charged bool
}

// enforced reports whether p is asked, and may refuse.
func (p *part) enforced() bool { return p.ready && !p.DryRun }

// denied reports whether a limit of p is spent.
func (p *part) denied() bool { return p.enforced() && p.Err == nil && !p.Allowed }

// joint is the attempt of several limiters.
type joint struct {
	c     *gin.Context
	parts []part
}

// takeOrWait decides, and holds a request that is refused until it fits.
func (a joint) takeOrWait(gone <-chan struct{}) {
	lead := a.behind()
	if lead == nil {
		if a.take() <= 0 {
			return
		}
		lead = a.lead()
	} else if !a.look() {
		return
	}
	longest := lead.limiter.maxWait
	if lead.RetryAfter > longest && !guessed(&lead.Decision) {
		return
	}
	_ = lead.limiter.hold(gone, &lead.Decision, a, longest)
	for i := range a.parts {
		a.parts[i].Waited = lead.Waited
	}
}

// behind returns a part with a line in which others wait, or nil.
func (a joint) behind() *part {
	for i := range a.parts {
		p := &a.parts[i]
		if p.enforced() && p.limiter.maxWait > 0 && p.Cost > 0 && !neverFits(&p.Decision) && p.limiter.waitList().has(p.Key, p.Limits) {
			return p
		}
	}
	return nil
}

// lead returns the part that is denied for longest.
func (a joint) lead() (lead *part) {
	for i := range a.parts {
		if p := &a.parts[i]; p.denied() && (lead == nil || p.RetryAfter > lead.RetryAfter) {
			lead = p
		}
	}
	return lead
}

// take implements attempt: it charges all parts, or none.
func (a joint) take() time.Duration {
	refused := false
	for i := range a.parts {
		p := &a.parts[i]
		p.asked, p.charged, p.notCharged = false, false, false
		refused = refused || !p.ready && !p.passes()
	}
	for i := range a.parts {
		p := &a.parts[i]
		switch {
		case !p.enforced() || p.asked:
		case refused:
			a.lookAt(p)
		default:
			refused = !a.takeFrom(p.store)
		}
	}
	for i := range a.parts {
		switch p := &a.parts[i]; {
		case refused && p.charged:
			a.giveBack(p)
		case p.ready && p.DryRun && refused:
			a.lookAt(p)
		case p.ready && p.DryRun:
			p.limiter.take(p.limiter.backendContext(a.c), &p.Decision)
		}
	}
	for i := range a.parts {
		p := &a.parts[i]
		p.notCharged = refused && p.ready && p.Err == nil && p.Allowed
	}
	return a.wait()
}

// wait returns how long the request has to wait, if that is all that keeps it from passing.
func (a joint) wait() (longest time.Duration) {
	for i := range a.parts {
		switch p := &a.parts[i]; {
		case p.passes():
		case !p.denied(), p.RetryAfter < 0, p.limiter.maxWait == 0:
			return -1
		default:
			longest = max(longest, p.RetryAfter)
		}
	}
	return longest
}

// look implements attempt.
func (a joint) look() bool {
	decided := true
	for i := range a.parts {
		if p := &a.parts[i]; p.ready {
			p.limiter.peek(p.limiter.backendContext(a.c), &p.Decision)
			decided = decided && p.Err == nil
		}
	}
	return decided
}

// takeFrom charges the parts on one backend, or none of them, and reports whether all pass.
func (a joint) takeFrom(store int) bool {
	var few [4]*part
	of := few[:0]
	for i := range a.parts {
		if p := &a.parts[i]; p.enforced() && p.store == store {
			of = append(of, p)
			p.asked = true
		}
	}
	if len(of) == 1 {
		of[0].limiter.take(of[0].limiter.backendContext(a.c), &of[0].Decision)
	} else {
		a.takeAll(of)
	}
	pass, charged := true, true
	for _, p := range of {
		pass = pass && p.passes()
		charged = charged && p.Err == nil && p.Allowed
	}
	for _, p := range of {
		p.charged = charged && p.Cost > 0
	}
	return pass
}

func (a joint) takeAll(of []*part) {
	charges := make([]backend.Charge, len(of))
	for i, p := range of {
		charges[i] = backend.Charge{Key: p.limiter.backendKey(p.Key), Cost: p.Cost, Limits: p.limiter.charged(&p.Decision)}
	}
	start := time.Now()
	results, err := of[0].limiter.backend.TakeAll(of[0].limiter.backendContext(a.c), charges...)
	elapsed := time.Since(start)
	for i, p := range of {
		if p.limiter.timed {
			p.Elapsed += elapsed
		}
		p.banBegan = p.banBegan || p.Result.BanBegan()
		if p.Err = err; err != nil {
			p.Result = Result{}
			p.failOpen = p.limiter.policy == FailOpen && errors.Is(err, backend.ErrUnavailable)
		} else {
			p.Result = results[i]
			p.Banned = p.Result.Banned()
		}
	}
}

// lookAt says what p would be told by itself, and charges nothing.
func (a joint) lookAt(p *part) {
	d := &p.Decision
	cost := d.Cost
	d.Cost = 0
	p.limiter.take(p.limiter.backendContext(a.c), d)
	if d.Cost = cost; d.Err == nil && d.Allowed && cost > d.Remaining {
		d.Allowed, d.RetryAfter = false, untilNext(d)
		if neverFits(d) {
			d.RetryAfter = backend.Never
		}
	}
}

// giveBack takes back what p was charged. If that fails it stays charged, which lets nobody in.
func (a joint) giveBack(p *part) {
	_ = p.limiter.backend.Settle(p.limiter.backendContext(a.c), p.limiter.backendKey(p.Key), p.Result, p.Cost, 0, p.limiter.charged(&p.Decision)...)
	p.limiter.waiting.Load().wake(p.Key)
	if !p.Limit.IsUnlimited() {
		p.Remaining = min(p.Remaining+p.Cost, p.Limit.Capacity())
	}
}
