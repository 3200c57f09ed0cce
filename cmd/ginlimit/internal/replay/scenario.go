package replay

import (
	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/algorithm"
)

// law is one list of limits, all of which must allow, as rules. A place in flight is held until its
// request ends, however long that is: a service renews it, and no process dies in a log.
type law struct {
	limits []backend.Limit
	rules  []*algorithm.Rule
	slots  []algorithm.Slot
	res    backend.Result
	single *algorithm.Rule // the only rule, if it has a state without a log
	holds  bool            // units until a request has ended
}

func newLaw(limits []backend.Limit) (*law, error) {
	l := &law{limits: limits, slots: make([]algorithm.Slot, len(limits))}
	for _, limit := range limits {
		if err := limit.Validate(); err != nil {
			return nil, err
		}
		if limit.Algorithm == backend.Concurrency {
			limit.Period = backend.MaxPeriod
			l.holds = l.holds || limit.Count > 0
		}
		r, err := algorithm.NewRule(limit)
		if err != nil {
			return nil, err
		}
		l.rules = append(l.rules, r)
	}
	if r := l.rules[0]; len(l.rules) == 1 && !r.Stateless() && !l.hasLog() {
		l.single = r
	}
	return l, nil
}

// hasLog reports whether a state of l may have a log.
func (l *law) hasLog() bool {
	for _, limit := range l.limits {
		switch limit.Algorithm {
		case backend.TokenBucket, backend.SlidingWindow, backend.FixedWindow, backend.CalendarWindow:
		default:
			return true
		}
	}
	return false
}

// state is an algorithm.State without its log and its rule, which are the same for all callers.
type state struct{ time, used, rest int64 }

// take decides cost, at now, for the caller of these states, and charges all of them or none. logs
// may be nil if no limit has a log. wait is until cost would fit: 0 if it does, negative if never.
func (l *law) take(states []state, logs []*algorithm.Log, now, cost int64) (decided int, wait int64) {
	if l.single != nil {
		s := &states[0]
		next, a, ok := l.single.Quick(algorithm.State{Time: s.time, Used: s.used, Rest: s.rest}, now, cost)
		if ok {
			if a.Wait == 0 && cost > 0 {
				s.time, s.used, s.rest = next.Time, next.Used, next.Rest
			}
			return 0, a.Wait
		}
	}
	return l.takeAll(states, logs, now, cost)
}

func (l *law) takeAll(states []state, logs []*algorithm.Log, now, cost int64) (decided int, wait int64) {
	slots := l.loaded(states, logs)
	l.res = backend.Result{}
	decided, next := algorithm.Take(slots, l.rules, now, cost, &l.res)
	store(next, states, logs)
	if l.res.Allowed {
		return decided, 0
	}
	if l.res.RetryAfter < 0 {
		return decided, int64(backend.Never)
	}
	return decided, l.res.RetryAfter.Microseconds()
}

// settle gives back the units that a charge holds.
func (l *law) settle(states []state, logs []*algorithm.Log, now, charged, cost int64) {
	store(algorithm.Settle(l.loaded(states, logs), l.rules, now, charged, cost, cost, cost), states, logs)
}

// loaded returns the slots of a caller.
func (l *law) loaded(states []state, logs []*algorithm.Log) []algorithm.Slot {
	slots := l.slots[:len(l.rules)]
	for i, r := range l.rules {
		slots[i] = algorithm.Slot{}
		if !r.Stateless() {
			s := &states[i]
			slots[i] = algorithm.Slot{Rule: r, State: algorithm.State{Time: s.time, Used: s.used, Rest: s.rest}}
			if logs != nil {
				slots[i].State.Log = logs[i]
			}
		}
	}
	return slots
}

// store puts slots back, if there are any.
func store(next []algorithm.Slot, states []state, logs []*algorithm.Log) {
	for i := range next {
		s := &next[i].State
		states[i] = state{s.Time, s.Used, s.Rest}
		if logs != nil {
			logs[i] = s.Log
		}
	}
}

// expired reports whether none of the states says anything any more.
func (l *law) expired(states []state, logs []*algorithm.Log, now int64) bool {
	for i, r := range l.rules {
		if r.Stateless() {
			continue
		}
		st := algorithm.State{Time: states[i].time, Used: states[i].used, Rest: states[i].rest}
		if logs != nil {
			st.Log = logs[i]
		}
		if r.Expiry(st) > now {
			return false
		}
	}
	return true
}

// places has the states of the callers whose limits remember something. A place is freed once all
// its states have expired in the log's time, so that a log of years needs room for the callers of
// one period.
type places struct {
	laws   []*law
	stride int
	logs   bool
	pages  []page
	n      uint32 // places in use or free, the first of which is none
	free   []uint32
	hand   uint32 // the place that is looked at next
}

type page struct {
	owner  []uint32 // who has a place, plus one; 0 is free
	states []state
	logs   []*algorithm.Log
}

func newPlaces(laws []*law) *places {
	m := &places{laws: laws, n: 1}
	for _, l := range laws {
		m.stride += len(l.rules)
		m.logs = m.logs || l.hasLog()
	}
	return m
}

// newScratch returns a page of one place.
func newScratch(m *places) page {
	p := page{states: make([]state, m.stride)}
	if m.logs {
		p.logs = make([]*algorithm.Log, m.stride)
	}
	return p
}

// place returns a place for a caller, by its number among the busy ones.
func (m *places) place(owner uint32) uint32 {
	var at uint32
	if last := len(m.free) - 1; last >= 0 {
		at, m.free = m.free[last], m.free[:last]
	} else {
		at = m.n
		m.n++
		if int(at>>pageBits) == len(m.pages) {
			p := page{owner: make([]uint32, pageSize), states: make([]state, pageSize*m.stride)}
			if m.logs {
				p.logs = make([]*algorithm.Log, pageSize*m.stride)
			}
			m.pages = append(m.pages, p)
		}
	}
	m.pages[at>>pageBits].owner[at&(pageSize-1)] = owner + 1
	return at
}

// of returns the states and the logs of a place.
func (m *places) of(at uint32) ([]state, []*algorithm.Log) {
	p := &m.pages[at>>pageBits]
	i := int(at&(pageSize-1)) * m.stride
	if !m.logs {
		return p.states[i : i+m.stride : i+m.stride], nil
	}
	return p.states[i : i+m.stride : i+m.stride], p.logs[i : i+m.stride : i+m.stride]
}

// sweep looks at the next two places, and frees those that have expired.
func (m *places) sweep(c *callers, now int64) {
	for range min(2, m.n-1) {
		if m.hand++; m.hand >= m.n {
			m.hand = 1
		}
		owner := &m.pages[m.hand>>pageBits].owner[m.hand&(pageSize-1)]
		if *owner == 0 {
			continue
		}
		states, logs := m.of(m.hand)
		if !m.expired(states, logs, now) {
			continue
		}
		clear(states)
		clear(logs)
		c.at(*owner - 1).place = 0
		*owner = 0
		m.free = append(m.free, m.hand)
	}
}

func (m *places) expired(states []state, logs []*algorithm.Log, now int64) bool {
	i := 0
	for _, l := range m.laws {
		n := len(l.rules)
		var own []*algorithm.Log
		if logs != nil {
			own = logs[i : i+n]
		}
		if !l.expired(states[i:i+n], own, now) {
			return false
		}
		i += n
	}
	return true
}
