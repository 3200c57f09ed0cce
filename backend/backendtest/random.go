package backendtest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/ginlimit/ginlimit/backend"
)

// stepsPerRound is the length of a random schedule: long enough for a key to fill, change and
// recover a few times.
const stepsPerRound = 120

// stepsShown is how many steps of a schedule that failed are printed.
const stepsShown = 20

func randomRules() (rules []rule) {
	kinds := algorithms()
	for _, back := range []bool{false, true} {
		for kind := range len(kinds) + 1 {
			name, of := "several limits", kinds
			if kind < len(kinds) {
				name, of = kinds[kind].String(), kinds[kind:kind+1]
			}
			if back {
				name += " and a clock that goes back"
			}
			run := func(e *env) {
				for round := range e.h.rounds() {
					seed := e.h.seed() + uint64(round)
					s := &schedule{
						env: e, rand: rand.New(rand.NewPCG(seed, uint64(kind))), seed: seed,
						model: model{map[string][]place{}}, of: of, back: back, key: fmt.Sprint("round ", round),
					}
					if s.run(); e.Failed() {
						return
					}
				}
			}
			demand := "Whatever happens to a key, in any order, the answers are the model's, to the microsecond."
			rules = append(rules, rule{name: name, demand: demand, backward: back, run: run})
		}
	}
	return rules
}

// schedule is a random sequence of steps on one key, checked against the model.
type schedule struct {
	*env
	rand    *rand.Rand
	seed    uint64
	model   model
	of      []backend.Algorithm // several limits of any of them, or one limit of the one
	back    bool                // the clock may go back
	key     string
	limits  []backend.Limit
	scale   int64 // µs: the Period that the limits are about as long as
	charges []taken
	last    backend.Result
	steps   []string
}

func (s *schedule) run() {
	s.scale = pick(s.rand, int64(1000), 7_000, 999_983, 1_000_000, 60_000_000, 3_600_000_000, 86_400_000_000)
	s.limits = s.newLimits()
	for range stepsPerRound {
		s.step()
		if s.Failed() {
			s.Logf("seed %d (Harness.Seed: %d makes it the first): the last steps were\n%s", s.seed, s.seed, strings.Join(s.steps, "\n"))
			return
		}
	}
}

func (s *schedule) step() {
	if s.chance(65) {
		s.wait()
	}
	switch n := s.rand.IntN(100); {
	case n < 60:
		s.take(s.cost(), s.limits)
	case n < 68:
		s.look()
	case n < 84:
		s.refund()
		s.look()
	case n < 96:
		s.change()
		if s.chance(30) {
			s.look()
		}
	case n < 98:
		s.take(s.cost(), s.newLimits())
	default:
		s.note("Reset()")
		s.reset(s.key)
		delete(s.model.keys, s.key)
		s.look()
	}
}

func (s *schedule) chance(percent int) bool { return s.rand.IntN(100) < percent }

// micro returns now in µs since the start.
func (s *schedule) micro() int64 { return s.now.Microseconds() }

func (s *schedule) note(format string, args ...any) {
	line := fmt.Sprintf("%12d µs: ", s.micro()) + fmt.Sprintf(format, args...)
	if s.steps = append(s.steps, line); len(s.steps) > stepsShown {
		s.steps = s.steps[1:]
	}
}

// wait moves the clock, more often than not to where something is about to happen.
func (s *schedule) wait() {
	µ := int64(0)
	switch s.rand.IntN(10) {
	case 0:
		µ = 1
	case 1, 2:
		µ = s.rand.Int64N(s.scale/5 + 1)
	case 3:
		µ = s.rand.Int64N(2 * s.scale)
	case 4, 5, 6:
		µ = s.last.RetryAfter.Microseconds() + s.rand.Int64N(3) - 1
	case 7:
		µ = s.last.ResetAfter.Microseconds() + s.rand.Int64N(3) - 1
	case 8:
		µ = s.untilWindowEnd() + s.rand.Int64N(3) - 1
	case 9:
		µ = pick(s.rand, int64(1), 1, 2, 5)*s.scale + s.rand.Int64N(3) - 1
	}
	if s.back && s.chance(25) {
		if !s.model.fading(s.key, s.micro()) {
			s.move(-time.Duration(min(max(µ, 0), 10*s.scale)) * µs)
		}
		return
	}
	s.move(time.Duration(max(µ, 0)) * µs)
}

// untilWindowEnd returns the time until a charge is whole Periods of a limit old.
func (s *schedule) untilWindowEnd() int64 {
	if len(s.charges) == 0 {
		return 0
	}
	charge := s.charges[s.rand.IntN(len(s.charges))]
	period := micros(s.limits[s.rand.IntN(len(s.limits))])
	age := max(0, s.start.Add(s.now).Sub(charge.res.At).Microseconds())
	return period - age%period
}

func (s *schedule) cost() int64 {
	capacity := s.limits[s.rand.IntN(len(s.limits))].Capacity()
	if capacity == 0 || capacity == math.MaxInt64 {
		capacity = 10
	}
	switch s.rand.IntN(12) {
	case 0:
		return capacity
	case 1:
		return capacity + 1
	case 2:
		return s.last.Remaining
	case 3:
		return max(0, s.last.Remaining-1)
	case 4, 5, 6, 7:
		return 1 + s.rand.Int64N(capacity)/3
	default:
		return 1
	}
}

func (s *schedule) take(cost int64, limits []backend.Limit) {
	s.Helper()
	got := s.env.take(s.key, cost, limits...)
	want := s.model.take(s.key, s.micro(), cost, limits)
	s.note("Take(%d, %v): %s of %q", cost, limits, show(got), got.Limit.Name)
	retry := got.RetryAfter.Microseconds()
	if got.RetryAfter < 0 {
		retry = -1
	}
	if is := (answer{got.Allowed, got.Limit, got.Remaining, retry, got.ResetAfter.Microseconds()}); is != want {
		s.Errorf("at %v: Take(%d, %v):\n got %s of %q\nwant %s of %q", s.now, cost, limits, show(got), got.Limit.Name, want, want.Limit.Name)
	}
	if s.last = got; cost > 0 {
		if s.charges = append(s.charges, taken{got, cost, limits}); len(s.charges) > 6 {
			s.charges = s.charges[1:]
		}
	}
}

func (a answer) String() string {
	return show(backend.Result{Allowed: a.Allowed, Remaining: a.Remaining, RetryAfter: time.Duration(a.Retry) * µs, ResetAfter: time.Duration(a.Reset) * µs})
}

// look takes nothing under all limits, and under each alone.
func (s *schedule) look() {
	s.Helper()
	if len(s.limits) > 1 {
		i := s.rand.IntN(len(s.limits))
		s.take(0, alone(s.limits, i))
	}
	s.take(0, s.limits)
}

// refund gives back one of the last charges: admitted or refused, not yet refunded or already,
// fresh or old.
func (s *schedule) refund() {
	if len(s.charges) == 0 {
		return
	}
	c := s.charges[s.rand.IntN(len(s.charges))]
	s.note("Refund(the %d charged at %d µs under %v, allowed %v)", c.cost, c.res.At.Sub(s.start).Microseconds(), c.limits, c.res.Allowed)
	s.env.refund(s.key, c.res, c.cost, c.limits...)
	if c.res.Allowed {
		s.model.refund(s.key, s.micro(), c.res.At.Sub(s.start).Microseconds(), c.cost, c.limits)
	}
}

// change replaces one limit, by one that is like it more often than not, or all of them.
func (s *schedule) change() {
	if s.chance(15) {
		s.limits = s.newLimits()
		return
	}
	i := s.rand.IntN(len(s.limits))
	limits := append([]backend.Limit{}, s.limits...)
	l := limits[i]
	switch s.rand.IntN(6) {
	case 0, 1:
		l.Count = max(1, min(l.Count, 10_000)*pick(s.rand, int64(1), 2, 3, 10, 7)/pick(s.rand, int64(1), 2, 3, 10))
	case 2, 3:
		l.Period = s.period()
	case 4:
		if l.Algorithm == backend.TokenBucket && !stateless(l) {
			l.Burst = 1 + s.rand.Int64N(2*l.Capacity())
		}
	case 5:
		l = s.newLimit(i)
	}
	if l.IsUnlimited() || l.Count == 0 {
		l.Burst = 0
	}
	limits[i] = l
	s.limits = limits
}

func (s *schedule) newLimits() []backend.Limit {
	n := 1
	if len(s.of) > 1 {
		n = 1 + s.rand.IntN(6)
	}
	limits := make([]backend.Limit, n)
	for i := range limits {
		limits[i] = s.newLimit(i)
	}
	return limits
}

func (s *schedule) newLimit(i int) backend.Limit {
	l := backend.Limit{
		Name:      fmt.Sprint("limit ", i),
		Count:     pick(s.rand, int64(1), 2, 3, 5, 7, 10, 13, 100, 999, 1_000_003),
		Period:    s.period(),
		Algorithm: s.of[0],
	}
	if len(s.of) > 1 {
		l.Algorithm = pick(s.rand, s.of...)
	}
	if l.Algorithm == backend.TokenBucket && s.chance(40) {
		l.Burst = 1 + s.rand.Int64N(3*l.Count)
	}
	switch s.rand.IntN(25) {
	case 0:
		l.Count, l.Burst = 0, 0
	case 1:
		l.Count, l.Burst = math.MaxInt64, 0
	}
	return l
}

func (s *schedule) period() time.Duration {
	p := s.scale * pick(s.rand, int64(1), 1, 1, 2, 3, 7, 10) / pick(s.rand, int64(1), 1, 1, 2, 3)
	return time.Duration(max(1000, p)) * µs
}

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }
