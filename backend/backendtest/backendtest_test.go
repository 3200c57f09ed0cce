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
	since map[string]int64 // when that was written
	steps bool             // an empty slot more keeps Take from its quick way
	rules *sync.Map        // of backend.Limit: those that came by before, if they are remembered
}

var _ backend.Backend = (*store)(nil)

// Take drops a key that has expired before it looks at it: a store that does so must not decide
// otherwise.
func (s *store) Take(_ context.Context, key string, cost int64, limits ...backend.Limit) (res backend.Result, err error) {
	if err := algorithm.CheckTake(cost, limits); err != nil {
		return res, err
	}
	rules, err := s.rulesOf(limits)
	if err != nil {
		return res, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.take(key, cost, rules)
}

func (s *store) take(key string, cost int64, rules []*algorithm.Rule) (res backend.Result, err error) {
	slots, moved := s.slots(key)
	if s.steps {
		own, beside := algorithm.Own(slots)
		slots = slices.Concat(own, []algorithm.Slot{{}}, beside)
	}
	before := slices.Clone(slots)
	decided, next := algorithm.Take(slots, rules, s.now, cost, &res)
	res.Limit = rules[decided].Limit()
	switch {
	case next != nil:
		s.write(key, next)
	case !slices.Equal(slots, before):
		return res, errors.New("Take changed slots, and did not say so")
	case moved && cost > 0 && !res.Allowed && algorithm.Looks(rules):
		s.write(key, slots)
	}
	return res, nil
}

func (s *store) TakeAll(_ context.Context, charges ...backend.Charge) ([]backend.Result, error) {
	if err := algorithm.CheckAll(charges); err != nil {
		return nil, err
	}
	var rules [][]*algorithm.Rule
	for _, c := range charges {
		of, err := s.rulesOf(c.Limits)
		if err != nil {
			return nil, err
		}
		rules = append(rules, of)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	all, fit := make([]backend.Result, len(charges)), true
	for i, c := range charges {
		slots, moved := s.slots(c.Key)
		decided := algorithm.Judge(slots, rules[i], s.now, c.Cost, &all[i])
		all[i].Limit = c.Limits[decided]
		fit = fit && all[i].Allowed
		if moved && c.Cost > 0 && algorithm.Looks(rules[i]) {
			s.write(c.Key, slots)
		}
	}
	var err error
	for i, c := range charges {
		if counts := rules[i][len(rules[i])-1].Refusals() != nil; (fit || !all[i].Allowed && counts) && err == nil {
			all[i], err = s.take(c.Key, c.Cost, rules[i])
		}
	}
	return all, err
}

func (s *store) Usage(_ context.Context, key string, limits ...backend.Limit) ([]backend.Result, error) {
	rules, err := s.rulesOf(limits)
	if err = errors.Join(algorithm.CheckTake(0, limits), err); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	slots, _ := s.slots(key)
	all := make([]backend.Result, len(limits))
	algorithm.Usage(slots, rules, s.now, all)
	for i := range all {
		all[i].Limit = limits[i]
	}
	return all, nil
}

func (s *store) rulesOf(limits []backend.Limit) (rules []*algorithm.Rule, err error) {
	for _, limit := range limits {
		if s.rules != nil {
			if rule, ok := s.rules.Load(limit); ok {
				rules = append(rules, rule.(*algorithm.Rule))
				continue
			}
		}
		rule, err := algorithm.NewRule(limit)
		if err != nil {
			return nil, err
		}
		if s.rules != nil {
			s.rules.Store(limit, rule)
		}
		rules = append(rules, rule)
	}
	return rules, nil
}

// slots returns a copy of what is known of key, so that a Take that must not write cannot, and
// whether the clock went back since that was written.
func (s *store) slots(key string) ([]algorithm.Slot, bool) {
	if s.expiry(key) <= s.now {
		delete(s.keys, key)
		return nil, false
	}
	slots := append([]algorithm.Slot{}, s.keys[key]...)
	return slots, algorithm.Rebase(slots, s.since[key], s.now)
}

func (s *store) write(key string, slots []algorithm.Slot) {
	s.keys[key], s.since[key] = slots, s.now
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

func (s *store) Settle(_ context.Context, key string, taken backend.Result, cost, actual int64, limits ...backend.Limit) error {
	rules, err := s.rulesOf(limits)
	if err = errors.Join(algorithm.CheckSettle(cost, actual, limits), err); err != nil || !taken.Allowed {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	slots, _ := s.slots(key)
	if next := algorithm.Settle(slots, rules, s.now, taken.At.UnixMicro(), cost, actual, algorithm.Held(taken, cost, limits)); next != nil {
		s.write(key, next)
	}
	return nil
}

func (s *store) Renew(_ context.Context, key string, taken backend.Result, cost int64, limits ...backend.Limit) (backend.Result, error) {
	rules, err := s.rulesOf(limits)
	held := algorithm.Held(taken, cost, limits)
	if err != nil || !taken.Allowed || held == 0 {
		return taken, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	slots, _ := s.slots(key)
	if next := algorithm.Renew(slots, rules, s.now, taken.At.UnixMicro(), held); next != nil {
		s.write(key, next)
	}
	taken.At = time.UnixMicro(s.now)
	return taken, nil
}

func (s *store) Ban(_ context.Context, key string, d time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	slots, _ := s.slots(key)
	s.write(key, algorithm.Ban(slots, s.now, d.Microseconds()))
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
			s := &store{now: now, keys: map[string][]algorithm.Slot{}, since: map[string]int64{}, steps: steps}
			if steps {
				s.rules = new(sync.Map)
			}
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

// sequential is a store whose TakeAll is made of Take and Settle.
type sequential struct{ *store }

func (s sequential) TakeAll(ctx context.Context, charges ...backend.Charge) ([]backend.Result, error) {
	return algorithm.Sequential(ctx, s.store, charges...)
}

// A TakeAll of Take and Settle charges all or none, and says which charge fits. Only when what is
// left is back it may say too late, because it had charged it.
func TestSequential(t *testing.T) {
	ctx := context.Background()
	s := sequential{&store{now: 1, keys: map[string][]algorithm.Slot{}, since: map[string]int64{}}}
	limits := []backend.Limit{{Count: 5, Period: time.Hour}}
	charge := func(key string, cost int64) backend.Charge {
		return backend.Charge{Key: key, Cost: cost, Limits: limits}
	}
	for _, step := range []struct {
		costs     [3]int64
		allowed   [3]bool
		remaining [3]int64
	}{
		{[3]int64{1, 2, 3}, [3]bool{true, true, true}, [3]int64{4, 3, 2}},
		{[3]int64{4, 3, 3}, [3]bool{true, true, false}, [3]int64{4, 3, 2}},
		{[3]int64{5, 3, 2}, [3]bool{false, true, true}, [3]int64{4, 3, 2}},
		{[3]int64{4, 3, 2}, [3]bool{true, true, true}, [3]int64{0, 0, 0}},
	} {
		all, err := s.TakeAll(ctx, charge("a", step.costs[0]), charge("b", step.costs[1]), charge("c", step.costs[2]))
		if err != nil {
			t.Fatal(err)
		}
		for i, res := range all {
			if res.Allowed != step.allowed[i] || res.Remaining != step.remaining[i] {
				t.Errorf("TakeAll of %v: result %d is allowed %v with %d left, want %v with %d", step.costs, i, res.Allowed, res.Remaining, step.allowed[i], step.remaining[i])
			}
		}
	}
	if _, err := s.TakeAll(ctx, charge("a", 1), backend.Charge{Key: "d", Cost: 1, Limits: []backend.Limit{{Count: -1}}}); err == nil {
		t.Error("TakeAll under a limit that is not valid: got no error")
	}
	if _, err := s.TakeAll(ctx, charge("a", 1), charge("a", 1)); err == nil {
		t.Error("TakeAll of one key twice: got no error")
	}
}
