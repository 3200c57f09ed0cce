package backendtest

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/ginlimit/ginlimit/backend"
)

// allRules are of TakeAll and Usage, which have more than one key or more than one answer.
var allRules = []rule{{
	name:   "all or none",
	demand: "A TakeAll charges every key, or none if one refuses; each Result says whether its own charge would have fitted.",
	run: func(e *env) {
		for i, l := range everyAlgorithm(5, hour) {
			key := func(name string) string { return fmt.Sprint(name, i) }
			charges := []backend.Charge{
				{Key: key("b"), Cost: 2, Limits: []backend.Limit{l}},
				{Key: key("a"), Cost: 1, Limits: []backend.Limit{per(3, hour), l}},
				{Key: key("c"), Cost: 3, Limits: []backend.Limit{backend.Unlimited()}},
			}
			for round, left := range []int64{3, 1} {
				for j, res := range e.takeAll(charges...) {
					if want := []int64{left, 2 - int64(round), math.MaxInt64}[j]; !res.Allowed || res.Remaining != want {
						e.Errorf("TakeAll(%v), round %d: result %d is %s, want it admitted with %d left", charges, round, j, show(res), want)
					}
				}
			}
			all := e.takeAll(charges...)
			if all[0].Allowed || all[0].Remaining != 1 || all[0].RetryAfter <= 0 || !all[1].Allowed || all[1].Remaining != 1 || !all[2].Allowed {
				e.Errorf("TakeAll(%v): got %s, %s and %s, want the first alone to refuse", charges, show(all[0]), show(all[1]), show(all[2]))
			}
			e.left(1, key("b"), l)
			e.left(1, key("a"), per(3, hour), l)
		}
	},
}, {
	name:   "a Result for each charge",
	demand: "The Results of a TakeAll are in the order of the charges, whatever their keys are, each of a limit of its own charge.",
	run: func(e *env) {
		var charges []backend.Charge
		for i := range int64(9) {
			limit := everyAlgorithm(10+i, hour)[i%4].Named(fmt.Sprint("limit ", i))
			charges = append(charges, backend.Charge{Key: fmt.Sprint("key ", (i*7)%9), Cost: 1 + i, Limits: []backend.Limit{limit}})
		}
		for i, res := range e.takeAll(charges...) {
			if res.Limit != charges[i].Limits[0] || res.Remaining != 9 || res.Source != backend.SourceStore {
				e.Errorf("TakeAll(%v): result %d is %s of %v, want 9 left of %v", charges, i, show(res), res.Limit, charges[i].Limits[0])
			}
		}
	},
}, {
	name:   "one charge",
	demand: "A TakeAll of one charge is a Take, and its Result can be settled.",
	run: func(e *env) {
		limit := per(5, hour)
		charge := backend.Charge{Key: "k", Cost: 4, Limits: []backend.Limit{limit}}
		res := e.takeAll(charge)[0]
		if !res.Allowed || res.Remaining != 1 {
			e.Errorf("TakeAll(%v): got %s, want it admitted with 1 left", charge, show(res))
		}
		e.settle("k", res, 4, 1, limit)
		e.left(4, "k", limit)
		charge.Cost = 6
		if res := e.takeAll(charge)[0]; res.Allowed || res.RetryAfter >= 0 {
			e.Errorf("TakeAll(%v): got %s, want a refusal for ever", charge, show(res))
		}
	},
}, {
	name:   "a look among charges",
	demand: "A charge of cost 0 takes nothing, and refuses all if not one unit is left.",
	run: func(e *env) {
		limit := per(2, hour)
		look := backend.Charge{Key: "look", Limits: []backend.Limit{limit}}
		charge := backend.Charge{Key: "charge", Cost: 1, Limits: []backend.Limit{limit}}
		e.takeAll(look, charge)
		e.left(2, "look", limit)
		e.left(1, "charge", limit)
		e.must("look", 2, limit)
		if all := e.takeAll(look, charge); all[0].Allowed || !all[1].Allowed {
			e.Errorf("TakeAll: got %s and %s, want the look to refuse", show(all[0]), show(all[1]))
		}
		e.left(1, "charge", limit)
	},
}, {
	name:   "what cannot be decided",
	demand: "No charge, two of one key, a negative cost, no limit, or one that is not valid is an error that begins with ginlimit: , and charges nothing.",
	run: func(e *env) {
		good := per(5, hour)
		charge := func(key string, cost int64, limits ...backend.Limit) backend.Charge {
			return backend.Charge{Key: key, Cost: cost, Limits: limits}
		}
		for _, charges := range [][]backend.Charge{
			nil,
			{charge("a", 1, good), charge("a", 1, good)},
			{charge("a", 1, good), charge("b", 1, good), charge("a", 0, good)},
			{charge("a", 1, good), charge("b", -1, good)},
			{charge("a", 1, good), charge("b", 1)},
			{charge("a", 1, good), charge("b", 1, good, per(-1, sec))},
		} {
			if _, err := e.b.TakeAll(context.Background(), charges...); err == nil || !strings.HasPrefix(err.Error(), "ginlimit: ") {
				e.Errorf("TakeAll(%v): got error %v, want one that begins with %q", charges, err, "ginlimit: ")
			}
		}
		e.left(5, "a", good)
		taken := e.must("a", 2, good)
		for _, costs := range [][2]int64{{-1, 0}, {2, -1}, {2, math.MinInt64}} {
			if err := e.b.Settle(context.Background(), "a", taken, costs[0], costs[1], good); err == nil || !strings.HasPrefix(err.Error(), "ginlimit: ") {
				e.Errorf("Settle(%d, %d): got error %v, want one that begins with %q", costs[0], costs[1], err, "ginlimit: ")
			}
		}
		for _, limits := range [][]backend.Limit{nil, {good, per(-1, sec)}} {
			if err := e.b.Settle(context.Background(), "a", taken, 2, 0, limits...); err == nil || !strings.HasPrefix(err.Error(), "ginlimit: ") {
				e.Errorf("Settle(%v): got error %v, want one that begins with %q", limits, err, "ginlimit: ")
			}
			if _, err := e.b.Usage(context.Background(), "a", limits...); err == nil || !strings.HasPrefix(err.Error(), "ginlimit: ") {
				e.Errorf("Usage(%v): got error %v, want one that begins with %q", limits, err, "ginlimit: ")
			}
		}
		e.left(3, "a", good)
	},
}, {
	name:   "usage",
	demand: "Usage says of each limit what is used and left, also where another is tighter, and writes nothing.",
	run: func(e *env) {
		limits := append(everyAlgorithm(10, hour), per(100, day), backend.Unlimited(), per(0, sec))
		for range 2 {
			for i, res := range e.usage("k", limits...) {
				if res.Remaining != limits[i].Capacity() || res.Used() != 0 || res.ResetAfter != 0 || res.Allowed != (limits[i].Count > 0) {
					e.Errorf("Usage of a new key: limit %d, %v: got %s, %d used, want nothing used", i, limits[i], show(res), res.Used())
				}
			}
		}
		limits = limits[:6]
		charge := e.must("k", 4, limits...)
		e.settle("k", charge, 4, 13, limits...)
		for i, res := range e.usage("k", limits...) {
			used := int64(13)
			if limits[i].IsUnlimited() {
				used = 0
			}
			if res.Used() != used || res.Remaining != max(0, limits[i].Capacity()-used) || res.Allowed != (res.Remaining > 0) || (res.RetryAfter > 0) == res.Allowed {
				e.Errorf("Usage: limit %d, %v: got %s, %d used, want %d", i, limits[i], show(res), res.Used(), used)
			}
		}
	},
}, {
	name:   "all or none, at once",
	demand: "of any number of callers at one instant that take of several keys at once exactly as many are admitted as every key has room for, and no key is charged for one that another refused.",
	run: func(e *env) {
		limits := map[string]backend.Limit{"ann": per(120, hour), "bob": log(90, hour), "team": window(150, hour), "all": sliding(100, hour)}
		sets := [][]string{{"ann", "team", "all"}, {"all", "bob", "team"}, {"team", "ann"}, {"bob", "all"}, {"all", "ann"}}
		var next, failed atomic.Int64
		used := map[string]*atomic.Int64{"ann": {}, "bob": {}, "team": {}, "all": {}}
		e.atOnce(func() {
			var charges []backend.Charge
			for _, key := range sets[next.Add(1)%int64(len(sets))] {
				charges = append(charges, backend.Charge{Key: key, Cost: 1, Limits: []backend.Limit{limits[key]}})
			}
			all, err := e.b.TakeAll(context.Background(), charges...)
			if err != nil {
				failed.Add(1)
				return
			}
			for _, res := range all {
				if !res.Allowed {
					return
				}
			}
			for _, c := range charges {
				used[c.Key].Add(1)
			}
		})
		if failed.Load() != 0 {
			e.Errorf("%d callers at once: %d failed, want none", e.h.callers(), failed.Load())
		}
		for key, n := range used {
			e.left(limits[key].Count-n.Load(), key, limits[key])
		}
		for _, keys := range sets {
			if !slices.ContainsFunc(keys, func(key string) bool { return used[key].Load() == limits[key].Count }) && !e.h.OneByOne {
				e.Errorf("%d callers at once: there is room left for %v, want as many admitted as fit", e.h.callers(), keys)
			}
		}
	},
}, {
	name:   "settled at once",
	demand: "If every charge is settled, by any number of callers at one instant, what is left is what they really used.",
	run: func(e *env) {
		limits := everyAlgorithm(300, hour)
		var next, used atomic.Int64
		var failed atomic.Value
		e.atOnce(func() {
			n := next.Add(1)
			if n > 100 {
				return
			}
			all, err := e.b.TakeAll(context.Background(), backend.Charge{Key: "k", Cost: 2, Limits: limits})
			if err == nil && all[0].Allowed {
				used.Add(n % 5)
				err = e.b.Settle(context.Background(), "k", all[0], 2, n%5, limits...)
			}
			if err != nil {
				failed.Store(err)
			}
		})
		if err := failed.Load(); err != nil {
			e.Fatalf("TakeAll and Settle: got error %v, want none", err)
		}
		for i := range limits {
			e.left(300-used.Load(), "k", alone(limits, i)...)
		}
	},
}}
