package main

import (
	"fmt"
	"time"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/algorithm"
)

// The picture of bans: a caller that never stops, without bans and with them, and one that waits as
// Retry-After says.
const (
	firstBan   = 10 * second
	longestBan = 80 * second
)

var (
	banScale = scale{length: 240 * second, bin: 2 * second, unit: second, says: "seconds", every: 20}
	banLimit = backend.Limit{Count: 30, Period: time.Minute, Burst: 10}
	banAfter = backend.Limit{Count: 40, Period: time.Minute} // refusals
)

// pursuit is a way to treat a caller, and how it behaves.
type pursuit struct {
	name        string
	bans, waits bool
}

var pursuits = []pursuit{
	{name: "a limit, and a caller that does not stop"},
	{name: "the same with bans", bans: true},
	{name: "bans, and a caller that heeds Retry-After", bans: true, waits: true},
}

// pursued is when requests were let through, and refused.
type pursued struct {
	passed, refused, banned []time.Duration
	bans                    int
}

func (p pursued) offered() []time.Duration {
	return append(append(append([]time.Duration(nil), p.passed...), p.refused...), p.banned...)
}

// pursue sends five requests a second, or waits when it was refused, and asks decide about each.
func (p pursuit) pursue(decide func(at time.Duration) backend.Result) (all pursued) {
	const interval = 200_003 * time.Microsecond
	for at := time.Duration(0); at < banScale.length; at += interval {
		res := decide(at)
		switch {
		case res.Allowed:
			all.passed = append(all.passed, at)
		case res.Banned():
			all.banned = append(all.banned, at)
		default:
			all.refused = append(all.refused, at)
		}
		if res.BanBegan() {
			all.bans++
		}
		if p.waits && !res.Allowed {
			at += res.RetryAfter.Truncate(second) + second - interval // whole seconds, as in the header
		}
	}
	return all
}

// limits returns what decides.
func (p pursuit) limits() []backend.Limit {
	if p.bans {
		return []backend.Limit{banLimit, banAfter.Banning(firstBan, longestBan)}
	}
	return []backend.Limit{banLimit}
}

// play decides by the algorithms.
func (p pursuit) play() (pursued, error) {
	var rules []*algorithm.Rule
	for _, l := range p.limits() {
		rule, err := algorithm.NewRule(l)
		if err != nil {
			return pursued{}, err
		}
		rules = append(rules, rule)
	}
	var slots []algorithm.Slot
	return p.pursue(func(at time.Duration) (res backend.Result) {
		if _, next := algorithm.Take(slots, rules, at.Microseconds(), 1, &res); next != nil {
			slots = next
		}
		return res
	}), nil
}

// banSheet returns the picture.
func banSheet() (sheet, error) {
	s := sheet{
		file: "ban.svg", title: "Bans of 10 s that double, after 40 refusals in a minute",
		note: "limit: 30 requests a minute, 10 at once", scale: banScale, axis: "requests/s", top: 6.5, mark: 2,
		legend: []entry{{ink, true, "offered"}, {passedColor, false, "let through"}, {refusedColor, false, "refused"}, {bannedColor, false, "banned"}},
	}
	for _, p := range pursuits {
		all, err := p.play()
		if err != nil {
			return s, err
		}
		offered := all.offered()
		says := fmt.Sprintf("let through %d of %d", len(all.passed), len(offered))
		if p.bans {
			says += fmt.Sprintf("; %d bans", all.bans)
		}
		s.panels = append(s.panels, panel{
			name: p.name, says: says, line: s.rates(offered),
			layers: []layer{{passedColor, s.rates(all.passed)}, {refusedColor, s.rates(all.refused)}, {bannedColor, s.rates(all.banned)}},
		})
	}
	return s, nil
}
