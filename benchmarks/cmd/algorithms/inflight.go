package main

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/algorithm"
)

// The picture of places in flight: a service that needs something which is slow for a while, and
// one of its users sends as much as all others together.
const (
	flightUsers  = 20 // and the greedy one
	greedy       = 0  // which user that is
	flightsInAll = 40
	flightsEach  = 5
	slowFrom     = 10 * second
	slowTo       = 25 * second
)

var flightScale = scale{length: 40 * second, bin: second / 10, unit: second, says: "seconds", every: 5}

// caller is a request, and which user it is of.
type caller struct {
	user int
	at   time.Duration
}

// takes returns how long the request is in flight if it is let through.
func (c caller) takes() time.Duration {
	if c.at >= slowFrom && c.at < slowTo {
		return 1500 * time.Millisecond
	}
	return 200 * time.Millisecond
}

// callers returns all requests in the order of time. No two of them, nor the ends of any, fall on
// one microsecond.
func callers() []caller {
	var all []caller
	for _, at := range evenly(nil, 333*time.Microsecond, flightScale.length, 50_009*time.Microsecond) {
		all = append(all, caller{greedy, at})
	}
	for user := 1; user <= flightUsers; user++ {
		begins := time.Duration(user) * 47_017 * time.Microsecond
		for _, at := range evenly(nil, begins, flightScale.length, 1_000_003*time.Microsecond) {
			all = append(all, caller{user, at})
		}
	}
	slices.SortFunc(all, func(a, b caller) int { return cmp.Compare(a.at, b.at) })
	return all
}

// flightCap is a way to limit requests in flight; 0 is no limit.
type flightCap struct {
	name        string
	inAll, each int64
}

var flightCaps = []flightCap{
	{"no limit", 0, 0},
	{fmt.Sprintf("%d in all", flightsInAll), flightsInAll, 0},
	{fmt.Sprintf("%d in all, %d of each user", flightsInAll, flightsEach), flightsInAll, flightsEach},
}

// fly returns which of the requests are let through. A request is charged to all that limit it, or
// to none, as by ginlimit.All.
func (f flightCap) fly(requests []caller) (passed []bool, err error) {
	type place struct {
		rules []*algorithm.Rule
		slots []algorithm.Slot
	}
	everybody, of := new(place), map[int]*place{}
	for user := range flightUsers + 1 {
		of[user] = new(place)
	}
	limit := func(n int64, of ...*place) error {
		if n == 0 {
			return nil
		}
		rule, err := algorithm.NewRule(backend.InFlight(n))
		for _, p := range of {
			p.rules = []*algorithm.Rule{rule}
		}
		return err
	}
	if err := limit(f.inAll, everybody); err != nil {
		return nil, err
	}
	for user := range flightUsers + 1 {
		if err := limit(f.each, of[user]); err != nil {
			return nil, err
		}
	}
	type inside struct {
		flight
		user int
	}
	var flying []inside
	leave := func(now time.Duration) {
		slices.SortFunc(flying, func(a, b inside) int { return cmp.Compare(a.to, b.to) })
		for len(flying) > 0 && flying[0].to <= now {
			for _, p := range []*place{everybody, of[flying[0].user]} {
				if p.rules != nil {
					p.slots = settled(p.slots, p.rules, flying[0].flight)
				}
			}
			flying = flying[1:]
		}
	}
	for _, c := range requests {
		leave(c.at)
		allowed := true
		var res backend.Result
		for _, p := range []*place{everybody, of[c.user]} {
			if p.rules != nil {
				algorithm.Judge(p.slots, p.rules, c.at.Microseconds(), 1, &res)
				allowed = allowed && res.Allowed
			}
		}
		if passed = append(passed, allowed); !allowed {
			continue
		}
		for _, p := range []*place{everybody, of[c.user]} {
			if p.rules != nil {
				_, p.slots = algorithm.Take(p.slots, p.rules, c.at.Microseconds(), 1, &res)
			}
		}
		flying = append(flying, inside{flight{c.at, c.at + c.takes()}, c.user})
	}
	return passed, nil
}

// flightSheet returns the picture.
func flightSheet() (sheet, error) {
	s := sheet{
		file: "inflight.svg", title: "Places in flight while a dependency is slow, from 10 s to 25 s",
		note: "1 request/s from each of 20 users, 20/s from one", scale: flightScale, axis: "in flight", top: 70, mark: 20,
		legend: []entry{{ink, true, "without a limit"}, {passedColor, false, "20 users"}, {refusedColor, false, "the greedy user"}},
	}
	requests := callers()
	var without []float64
	for _, f := range flightCaps {
		passed, err := f.fly(requests)
		if err != nil {
			return s, err
		}
		others, one := s.inside(requests, passed, false), s.inside(requests, passed, true)
		if without == nil {
			for i := range others {
				without = append(without, others[i]+one[i])
			}
		}
		s.panels = append(s.panels, panel{
			name: f.name, line: without,
			layers: []layer{{passedColor, others}, {refusedColor, one}},
			says: fmt.Sprintf("let through while it is slow: %d %% of the 20 users' requests, %d %% of the greedy user's",
				share(requests, passed, false), share(requests, passed, true)),
		})
	}
	return s, nil
}

// inside returns how many requests are in flight at the beginning of each bin: those of the greedy
// user, or those of the others.
func (s scale) inside(requests []caller, passed []bool, one bool) []float64 {
	n := make([]float64, s.length/s.bin)
	for i, c := range requests {
		if !passed[i] || (c.user == greedy) != one {
			continue
		}
		for b := (c.at + s.bin - 1) / s.bin; b*s.bin < min(c.at+c.takes(), s.length); b++ {
			n[b]++
		}
	}
	return n
}

// share returns how many percent of the requests passed while the dependency was slow.
func share(requests []caller, passed []bool, one bool) int {
	n, of := 0, 0
	for i, c := range requests {
		if c.at < slowFrom || c.at >= slowTo || (c.user == greedy) != one {
			continue
		}
		if of++; passed[i] {
			n++
		}
	}
	return (100*n + of/2) / of
}
