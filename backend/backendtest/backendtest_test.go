package backendtest_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/algorithm"
	"github.com/ginlimit/ginlimit/backend/backendtest"
)

// store is the smallest backend there is: the algorithms, a map and a clock that a test moves.
type store struct {
	mu    sync.Mutex
	now   int64 // µs
	keys  map[string][]algorithm.Slot
	steps bool // an empty slot more keeps Take from its quick way
}

var _ backend.Backend = (*store)(nil)

// Take drops a key that has expired before it looks at it: a store that does so must not decide
// otherwise.
func (s *store) Take(_ context.Context, key string, cost int64, limits ...backend.Limit) (res backend.Result, err error) {
	if err := algorithm.CheckTake(cost, limits); err != nil {
		return res, err
	}
	rules, err := rulesOf(limits)
	if err != nil {
		return res, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	slots := s.slots(key)
	if s.steps {
		slots = append(slots, algorithm.Slot{})
	}
	before := slices.Clone(slots)
	decided, next := algorithm.Take(slots, rules, s.now, cost, &res)
	res.Limit = limits[decided]
	if next != nil {
		s.keys[key] = next
	} else if !slices.Equal(slots, before) {
		return res, errors.New("Take changed slots, and did not say so")
	}
	return res, nil
}

func rulesOf(limits []backend.Limit) (rules []*algorithm.Rule, err error) {
	for _, limit := range limits {
		rule, err := algorithm.NewRule(limit)
		if err != nil {
			return nil, err
		}
		rules = append(rules, rule)
	}
	return rules, nil
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
			at = max(at, slot.Rule.Expiry(slot.State))
		}
	}
	return at
}

func (s *store) Refund(_ context.Context, key string, charge backend.Result, cost int64, limits ...backend.Limit) error {
	rules, err := rulesOf(limits)
	if err != nil || !charge.Allowed {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if next := algorithm.Refund(s.slots(key), rules, s.now, charge.At.UnixMicro(), cost); next != nil {
		s.keys[key] = next
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

func TestReferenceStoreBySteps(t *testing.T) { run(t, true) }

func run(t *testing.T, steps bool) {
	backendtest.Run(t, backendtest.Harness{
		New: func(*testing.T) (backend.Backend, func(time.Duration)) {
			now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()
			s := &store{now: now, keys: map[string][]algorithm.Slot{}, steps: steps}
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
