package backendtest_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/algorithm"
	"github.com/ginlimit/ginlimit/backend/backendtest"
)

// store is the smallest backend there is: the algorithms, a map and a clock that a test moves.
type store struct {
	mu       sync.Mutex
	now      int64 // µs
	keys     map[string][]algorithm.Slot
	counters bool // decides by TakeUnit or TakeCounters a limit that is alone, and several by TakeQuick, where it can; keeps its rules
}

var _ backend.Backend = (*store)(nil)

// Take drops a key that has expired before it looks at it: a store that does so must not decide otherwise.
func (s *store) Take(_ context.Context, key string, cost int64, limits ...backend.Limit) (backend.Result, error) {
	if err := algorithm.CheckTake(cost, limits); err != nil {
		return backend.Result{}, err
	}
	rules := make([]*algorithm.Rule, len(limits))
	for i, limit := range limits {
		rule, err := algorithm.NewRule(limit)
		if err != nil {
			return backend.Result{}, err
		}
		rules[i] = rule
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	slots := s.slots(key)
	for len(slots) < len(limits) {
		slots = append(slots, algorithm.Slot{})
	}
	for i := range rules {
		if old := slots[i].Rule; s.counters && old != nil && old.Decides(&limits[i]) {
			rules[i] = old
		}
	}
	res, decided, write := s.decide(slots, rules, cost)
	res.Limit = limits[decided]
	if write {
		s.keys[key] = slots
	}
	return res, nil
}

func (s *store) decide(slots []algorithm.Slot, rules []*algorithm.Rule, cost int64) (res backend.Result, decided int, write bool) {
	rule := rules[0]
	if !s.counters || rule.Limit().Algorithm == backend.SlidingLog {
		return algorithm.Take(slots, rules, s.now, cost)
	}
	if len(rules) > 1 {
		if len(slots) != len(rules) || len(slots) > algorithm.MaxQuick {
			return algorithm.Take(slots, rules, s.now, cost)
		}
		for i, r := range rules {
			limit := r.Limit()
			if slots[i].Rule == nil || !slots[i].Rule.Decides(&limit) || r.Algorithm() == backend.SlidingLog {
				return algorithm.Take(slots, rules, s.now, cost)
			}
		}
		before := append([]algorithm.Slot{}, slots...)
		decided = algorithm.TakeQuick(slots, s.now, cost, &res)
		for i := range slots {
			write = write || slots[i].State.Counters != before[i].State.Counters
		}
		return res, decided, write
	}
	if c := &slots[0].State.Counters; cost == 1 && slots[0].Rule == rule && rule.Algorithm() == backend.TokenBucket {
		var ok bool
		if c.Time, c.Frac, ok = rule.TakeUnit(c.Time, c.Frac, s.now, &res); ok {
			return res, 0, true
		}
	}
	if write = rule.TakeCounters(&slots[0].State.Counters, slots[0].Rule, s.now, cost, &res); write {
		slots[0].Rule = rule
	}
	return res, 0, write
}

// slots returns a copy of what is known of key, so that a Take that must not write cannot.
func (s *store) slots(key string) []algorithm.Slot {
	slots := s.keys[key]
	if s.expiry(key) <= s.now {
		delete(s.keys, key)
		return nil
	}
	return append([]algorithm.Slot{}, slots...)
}

// expiry returns the instant at which the last slot of key expires.
func (s *store) expiry(key string) (at int64) {
	at = s.now
	for _, slot := range s.keys[key] {
		if slot.Rule != nil {
			at = max(at, slot.Rule.Expiry(&slot.State))
		}
	}
	return at
}

func (s *store) Refund(_ context.Context, key string, charge backend.Result, cost int64, limits ...backend.Limit) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if charge.Allowed {
		algorithm.Refund(s.keys[key], limits, s.now, charge.At.UnixMicro(), cost)
	}
	return nil
}

func (s *store) Reset(_ context.Context, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.keys, key)
	return nil
}

func (s *store) advance(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now += d.Microseconds()
}

func TestReferenceStore(t *testing.T) { run(t, false) }

func TestReferenceStoreByCounters(t *testing.T) { run(t, true) }

func run(t *testing.T, counters bool) {
	backendtest.Run(t, backendtest.Harness{
		New: func(*testing.T) (backend.Backend, func(time.Duration)) {
			now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()
			s := &store{now: now, keys: map[string][]algorithm.Slot{}, counters: counters}
			return s, s.advance
		},
		Backward: true,
		TTL: func(_ *testing.T, b backend.Backend, key string) time.Duration {
			s := b.(*store)
			s.mu.Lock()
			defer s.mu.Unlock()
			return time.Duration(s.expiry(key)-s.now) * time.Microsecond
		},
	})
}
