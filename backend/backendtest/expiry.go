package backendtest

import (
	"context"
	"time"

	"github.com/ginlimit/ginlimit/backend"
)

// slack is what a real server's clock may run on during a test while the one that decides stands
// still.
const slack = time.Minute

var expiryRules = []rule{{
	name:   "no key without an end",
	demand: "A key is kept until its state carries no information any more, and not for ever.",
	ttl:    true,
	run: func(e *env) {
		for _, limit := range append(everyAlgorithm(10, day), per(10, day).WithBurst(100), per(10, day).WithBurst(1)) {
			e.reset("k")
			e.kept("k", e.must("k", 1, limit).ResetAfter)
			e.move(7 * hour)
			if res := e.take("k", limit.Capacity(), limit); res.Allowed {
				e.kept("k", res.ResetAfter)
			} else {
				e.kept("k", res.ResetAfter)
				e.kept("k", e.must("k", res.Remaining, limit).ResetAfter)
			}
		}
	},
}, {
	name:   "the longest of several limits",
	demand: "A key is kept for as long as the state of any limit that it holds.",
	ttl:    true,
	run: func(e *env) {
		e.must("k", 1, per(5, hour), window(5, 10*day), log(5, day))
		e.kept("k", 10*day)
		e.take("k", 0, per(5, hour))
		e.take("k", 5, per(5, hour))
		e.kept("k", 10*day)
		e.must("k", 1, per(5, hour), backend.Unlimited(), log(5, day))
		e.kept("k", day)
		e.kept("k", e.must("k", 1, per(5, hour)).ResetAfter)
	},
}, {
	name:   "a refunded window is kept",
	demand: "A window all of whose charges were refunded is kept until it ends: a refund never moves a window.",
	ttl:    true,
	run: func(e *env) {
		for _, limit := range []backend.Limit{window(5, day), sliding(5, day)} {
			e.reset("k")
			charge := e.must("k", 2, limit)
			e.move(hour)
			e.refund("k", charge, 2, limit)
			if got := e.h.TTL(e.T, e.b, "k"); got < 23*hour-slack {
				e.Errorf("%v: after a full refund the key is kept for %v, want 23h", limit, got)
			}
		}
	},
}, {
	name:   "a carried state is kept for as long as it now lasts",
	demand: "A state is kept for as long as it lasts under the limit that was charged last; a refusal or a look under another changes nothing.",
	ttl:    true,
	run: func(e *env) {
		for _, limits := range [][2]backend.Limit{
			{window(5, hour), window(5, 10*day)},
			{sliding(5, hour), sliding(5, 10*day)},
			{log(5, hour), log(5, 10*day)},
			{per(5, hour), per(5, 10*day)},
		} {
			e.reset("k")
			before := e.must("k", 4, limits[0])
			res := e.take("k", 2, limits[1])
			if res.Allowed || res.ResetAfter != before.ResetAfter {
				e.Errorf("Take(2, %v) after Take(4, %v): got %s, want a refusal that resets after %v", limits[1], limits[0], show(res), before.ResetAfter)
			}
			e.take("k", 0, limits[1])
			e.kept("k", before.ResetAfter)
			e.kept("k", e.must("k", 1, limits[1]).ResetAfter)
		}
	},
}, {
	name:   "a calendar window is kept until its boundary",
	demand: "A calendar window is kept until the boundary of the calendar at which it ends, and in debt until that after it.",
	ttl:    true,
	run: func(e *env) {
		for _, limit := range []backend.Limit{backend.PerCalendarDay(5), backend.PerCalendarMonth(5).StartingOn(31), backend.PerCalendarWeek(5).In("Asia/Kathmandu")} {
			e.reset("k")
			now := e.start.Add(e.now)
			_, end := limit.Calendar.Window(now)
			_, next := limit.Calendar.Window(end)
			charge := e.must("k", 1, limit)
			e.kept("k", end.Sub(now))
			e.settle("k", charge, 1, 9, limit)
			e.kept("k", next.Sub(now))
		}
	},
}, {
	name:   "what is held is kept for a Period",
	demand: "Units in flight are kept for one Period after they were taken or renewed, and not at all once they are given back.",
	ttl:    true,
	run: func(e *env) {
		limit := backend.InFlight(5)
		limit.Period = hour
		charge := e.must("k", 1, limit)
		e.kept("k", hour)
		e.move(30 * time.Minute)
		if b, ok := e.b.(backend.Renewer); ok {
			var err error
			if charge, err = b.Renew(context.Background(), "k", charge, 1, limit); err != nil {
				e.Fatalf("Renew: got error %v, want none", err)
			}
			e.kept("k", hour)
		}
		e.settle("k", charge, 1, 1, limit)
		if got := e.h.TTL(e.T, e.b, "k"); got > slack {
			e.Errorf("after Settle the store keeps the key for %v more, want not at all", got)
		}
	},
}, {
	name:   "a ban is kept for as long as it says something",
	demand: "A ban is kept until longest after its end, because the next one is longer until then.",
	ttl:    true,
	run: func(e *env) {
		limits := []backend.Limit{window(1, sec), window(1, hour).Banning(hour, 5*hour)}
		e.must("k", 1, limits...)
		e.refuses("k", 1, limits...)
		e.kept("k", hour) // the count of refusals
		e.refuses("k", 1, limits...)
		e.kept("k", 6*hour)
		if b, ok := e.b.(backend.Banner); ok {
			if err := b.Ban(context.Background(), "k", 3*hour); err != nil {
				e.Fatalf("Ban: got error %v, want none", err)
			}
			e.kept("k", 8*hour)
		}
	},
}, {
	name:   "reset leaves nothing",
	demand: "A key that was reset is not held.",
	ttl:    true,
	run: func(e *env) {
		e.must("k", 1, everyAlgorithm(5, hour)...)
		e.reset("k")
		e.gone("k")
	},
}, {
	name:   "impossible charges leave nothing",
	demand: "A refusal on a key that is not known, a limit that keeps no state and a refund without a charge write nothing.",
	ttl:    true,
	run: func(e *env) {
		for _, limit := range append(everyAlgorithm(5, hour), backend.Unlimited(), per(0, hour)) {
			res := e.take("k", 6, limit)
			e.gone("k")
			e.refund("k", res, 6, limit)
			e.gone("k")
		}
	},
}}

// kept checks that the store keeps key for want, give or take the slack.
func (e *env) kept(key string, want time.Duration) {
	e.Helper()
	if got := e.h.TTL(e.T, e.b, key); got < want-slack || got > want+slack {
		e.Errorf("at %v: the store keeps the key for %v more, want %v", e.now, got, want)
	}
}

func (e *env) gone(key string) {
	e.Helper()
	if got := e.h.TTL(e.T, e.b, key); got != 0 {
		e.Errorf("at %v: the store keeps the key for %v more, want not at all", e.now, got)
	}
}
