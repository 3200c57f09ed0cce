package console

import (
	"cmp"
	"context"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/backend"
)

const topRows = 10 // of each list of callers

// state is what a page is told once a second. Names and keys in it are text that anybody may have
// chosen: the page writes them as text, and never as HTML.
type state struct {
	Now      int64          `json:"now"`     // milliseconds since 1970
	Process  string         `json:"process"` // host and number of the process
	Started  int64          `json:"started"` // milliseconds since 1970
	Keys     bool           `json:"keys"`
	Actions  bool           `json:"actions"`
	First    int64          `json:"first"` // the second of the first of Seconds, since 1970
	Limiters []limiterState `json:"limiters"`
	Limits   []limitsState  `json:"limits"`
	Refused  []callerState  `json:"refused"`
	Admitted []callerState  `json:"admitted"`
	Near     []callerState  `json:"near"`
	Bans     []callerState  `json:"bans"`
	Breakers []breakerState `json:"breakers"`
}

type limiterState struct {
	Name     string             `json:"name"`
	Observed bool               `json:"observed"` // it told of a decision
	Watched  bool               `json:"watched"`  // it can be looked up
	DryRun   bool               `json:"dry_run"`
	InFlight int64              `json:"in_flight"`
	Totals   map[string]uint64  `json:"totals"`  // by outcome
	Answers  map[string]uint64  `json:"answers"` // by who decided
	Seconds  [][numGroups]int64 `json:"seconds"`
}

type limitsState struct {
	Limiter string   `json:"limiter"`
	Tier    string   `json:"tier"`
	Limits  []string `json:"limits"`
}

type callerState struct {
	Limiter   string  `json:"limiter"`
	Tier      string  `json:"tier"`
	ID        string  `json:"id"`        // what the page asks about the caller with; empty if it cannot
	Key       string  `json:"key"`       // fit to be shown
	Rate      float64 `json:"rate"`      // decisions a second, at least
	Remaining int64   `json:"remaining"` // after the last decision
	Capacity  int64   `json:"capacity"`  // -1 if unlimited
	Ban       float64 `json:"ban"`       // seconds until a ban ends, or 0
}

type breakerState struct {
	Store  string `json:"store"`
	Server string `json:"server"`
	Open   bool   `json:"open"`
}

// state returns what there is now, with the seconds that are over since the one given.
func (c *Console) state(since int32) (s state, last int32) {
	now := time.Since(c.started)
	last = int32(now/time.Second) - 1
	since = max(since, last-(history-2), -1)
	host, _ := os.Hostname()
	s = state{
		Now: c.started.Add(now).UnixMilli(), Process: host + ", process " + strconv.Itoa(os.Getpid()), Started: c.started.UnixMilli(),
		Keys: c.keys, Actions: !c.readOnly, First: c.started.Unix() + int64(since) + 1,
		Limiters: c.limiterStates(since, last), Limits: c.limitsStates(), Breakers: c.breakerStates(),
	}
	refused, admitted, near := c.list(listRefused, now), c.list(listAdmitted, now), c.list(listNear, now)
	s.Bans = c.banStates(now, refused, admitted)
	s.Refused, s.Admitted, s.Near = c.top(refused, now), c.top(admitted, now), c.top(near, now)
	return s, last
}

// limiterStates returns the limiters that were observed or are watched, by name.
func (c *Console) limiterStates(since, last int32) []limiterState {
	all := map[string]*limiterState{}
	counted := slices.Collect(maps.Values(c.limiters.all()))
	for _, l := range append(counted, c.other.limiter) {
		if one := c.counts(l, since, last); one.Observed {
			all[l.name] = one
		}
	}
	for _, l := range c.watching() {
		name := cut(l.Name())
		one := all[name]
		if one == nil {
			one = newLimiterState(name, last-since)
			all[name] = one
		}
		one.Watched = true
		one.InFlight += l.InFlight()
		one.DryRun = one.DryRun || ownOf(l).DryRun
	}
	states := make([]limiterState, 0, len(all))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		states = append(states, *all[name])
	}
	return states
}

func newLimiterState(name string, seconds int32) *limiterState {
	return &limiterState{Name: shownText(name), Totals: map[string]uint64{}, Answers: map[string]uint64{}, Seconds: make([][numGroups]int64, seconds)}
}

// ownOf returns the name, the limits and the mode of a limiter. To ask for the caller without a key
// asks no store, and no observer is told.
func ownOf(l *ginlimit.Limiter) ginlimit.Decision {
	d, _ := l.Peek(context.Background(), "")
	return d
}

// counts adds up what the shards have of a limiter.
func (c *Console) counts(l *limiter, since, last int32) *limiterState {
	one := newLimiterState(l.name, last-since)
	for i := range c.shards {
		t := &l.tallies[i]
		c.shards[i].mu.Lock()
		for o, n := range t.outcomes {
			if n > 0 {
				one.Observed = true
				one.Totals[outcomes[o]] += n
			}
		}
		for a, n := range t.answers {
			if n > 0 {
				one.Answers[answerName(a)] += n
			}
		}
		for at := since + 1; at <= last; at++ {
			if sec := &t.seconds[at%history]; sec.at == at {
				for g, n := range sec.counts {
					one.Seconds[at-since-1][g] += int64(n)
				}
			}
		}
		c.shards[i].mu.Unlock()
	}
	return one
}

func answerName(i int) string {
	if i == numAnswers-1 {
		return other
	}
	return backend.Source(i).String()
}

// limitsStates returns the limits of each limiter and tier: its own, and the last that decided.
func (c *Console) limitsStates() []limitsState {
	all := map[names][]ginlimit.Limit{}
	for _, l := range c.watching() {
		all[names{limiter: cut(l.Name())}] = ownOf(l).Limits
	}
	for n, s := range c.sources.all() {
		if limits := s.limits.Load(); limits != nil {
			all[n] = *limits
		}
	}
	states := make([]limitsState, 0, len(all))
	for n, limits := range all {
		one := limitsState{Limiter: shownText(n.limiter), Tier: shownText(n.tier), Limits: make([]string, len(limits))}
		for i, l := range limits {
			one.Limits[i] = shownText(l.String())
		}
		states = append(states, one)
	}
	slices.SortFunc(states, func(a, b limitsState) int {
		return cmp.Or(strings.Compare(a.Limiter, b.Limiter), strings.Compare(a.Tier, b.Tier))
	})
	return states
}

func (c *Console) breakerStates() []breakerState {
	states := []breakerState{}
	for _, store := range slices.Sorted(maps.Keys(c.breakers)) {
		servers := c.breakers[store]()
		for _, server := range slices.Sorted(maps.Keys(servers)) {
			states = append(states, breakerState{shownText(store), shownText(server), servers[server]})
		}
	}
	return states
}

// listed is a caller of a list.
type listed struct {
	caller
	hash  uint64
	count int64 // at least
}

// list returns the callers of a list, without an order.
func (c *Console) list(list int, now time.Duration) map[uint64]*listed {
	all := map[uint64]*listed{}
	number := int64(now / windowTime)
	for i := range c.shards {
		c.shards[i].mu.Lock()
		w := &c.shards[i].lists[list]
		for n := range int64(2) {
			if w.number-n < number-1 {
				continue // too long ago
			}
			s := &w.sketches[(w.number+2-n)%2]
			for j := range s.n {
				one := all[s.hashes[j]]
				if one == nil {
					one = &listed{caller: s.callers[j], hash: s.hashes[j]}
					all[s.hashes[j]] = one
				}
				one.count += int64(s.counts[j] - s.callers[j].over)
			}
		}
		c.shards[i].mu.Unlock()
	}
	return all
}

// top returns the first of a list.
func (c *Console) top(all map[uint64]*listed, now time.Duration) []callerState {
	order := slices.SortedFunc(maps.Values(all), func(a, b *listed) int {
		return cmp.Or(cmp.Compare(b.count, a.count), cmp.Compare(a.hash, b.hash))
	})
	// Both sketches together cover so many seconds.
	covered := min(now%windowTime+windowTime, max(now, time.Second)).Seconds()
	states := []callerState{}
	for _, l := range order[:min(topRows, len(order))] {
		one := c.callerState(l.source, &l.key)
		one.Rate = float64(l.count) / covered
		if one.Remaining, one.Capacity = l.remaining, l.capacity; one.Capacity == ginlimit.Unlimited().Count {
			one.Capacity = -1
		}
		if l.banned && l.until > now {
			one.Ban = (l.until - now).Seconds()
		}
		states = append(states, one)
	}
	return states
}

// banStates returns the bans that stand, of those that began here or refused a caller of late. A
// caller that was admitted since is banned no more, because somebody lifted the ban elsewhere. Nor
// is one that a limit alone has refused since: of a ban that is shorter than the limit's wait, only
// that wait is known.
func (c *Console) banStates(now time.Duration, refused, admitted map[uint64]*listed) []callerState {
	standing := map[uint64]ban{}
	for _, b := range c.bans.standing(now) {
		standing[b.hash] = b
	}
	for h, l := range refused {
		if l.banned && l.until > now {
			standing[h] = ban{hash: h, source: l.source, key: l.key, began: l.last, until: l.until}
		}
	}
	states := []callerState{}
	for _, b := range slices.SortedFunc(maps.Values(standing), func(a, b ban) int {
		return cmp.Or(cmp.Compare(b.until, a.until), cmp.Compare(a.hash, b.hash))
	}) {
		if l := admitted[b.hash]; l != nil && l.last > b.began {
			c.bans.lift(b.hash)
			continue
		}
		if l := refused[b.hash]; l != nil && l.last > b.began && !l.banned {
			c.bans.lift(b.hash)
			continue
		}
		if len(states) == maxBans {
			break
		}
		one := c.callerState(b.source, &b.key)
		one.Ban = (b.until - now).Seconds()
		states = append(states, one)
	}
	return states
}

func (c *Console) callerState(s *source, key *text) callerState {
	one := callerState{Limiter: shownText(s.names.limiter), Tier: shownText(s.tier)}
	id := c.idOf(s.names.limiter, key.String())
	one.Key = "#" + id
	if c.keys {
		one.Key = shownText(key.String())
	}
	if !key.whole {
		one.Key += "…"
	} else if s != c.other {
		one.ID = id
		c.shown.remember(id, known{limiter: s.names.limiter, tier: s.tier, key: key.String()})
	}
	return one
}

// shownText returns text as people can read it: what is invisible, or changes the direction in
// which text is read, is written out.
func shownText(s string) string {
	quoted := strconv.Quote(s)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}
