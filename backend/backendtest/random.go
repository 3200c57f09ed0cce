package backendtest

import (
	"context"
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
						model: model{origin(e.start), map[string]kept{}}, of: of, back: back, key: fmt.Sprint("round ", round),
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
	others  []backend.Limit // of the second key of a TakeAll
	scale   int64           // µs: the Period that the limits are about as long as
	charges []charged
	last    backend.Result
	steps   []string
}

// charged is a charge of one of the keys.
type charged struct {
	key string
	taken
}

func (s *schedule) run() {
	s.scale = pick(s.rand, int64(1000), 7_000, 999_983, 1_000_000, 60_000_000, 3_600_000_000, 86_400_000_000)
	if s.of[0] == backend.CalendarWindow || len(s.of) > 1 && s.chance(30) {
		s.scale = 86_400_000_000
	}
	s.limits, s.others = s.newLimits(), s.newLimits()
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
	case n < 52:
		s.take(s.cost(), s.limits)
	case n < 60 && !s.h.OneByOne:
		s.takeAll()
	case n < 68:
		s.look()
	case n < 84:
		s.settle()
		s.look()
	case n < 96:
		s.change()
		if s.chance(30) {
			s.look()
		}
	case n < 97:
		s.take(s.cost(), s.newLimits())
		s.others = s.newLimits()
	case n < 98:
		s.ban()
	case n < 99:
		s.renew()
	default:
		key := pick(s.rand, s.key, s.beside())
		s.note("Reset(%q)", key)
		s.reset(key)
		delete(s.model.keys, key)
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
		if !s.model.fading(s.key, s.micro()) && !s.model.fading(s.beside(), s.micro()) {
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
	l := s.limits[s.rand.IntN(len(s.limits))]
	if l.Calendar != (backend.Calendar{}) {
		now := s.start.Add(s.now)
		_, end := l.Calendar.Window(now)
		return end.Sub(now).Microseconds()
	}
	period := max(1, l.Hold().Microseconds())
	age := max(0, s.start.Add(s.now).Sub(charge.res.At).Microseconds())
	return period - age%period
}

func (s *schedule) cost() int64 {
	own, _ := parted(s.limits)
	capacity := own[s.rand.IntN(len(own))].Capacity()
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
	s.note("Take(%d, %v): %s of %q", cost, limits, show(got), got.Limit.Name)
	s.same(fmt.Sprintf("Take(%d, %v)", cost, limits), got, s.model.take(s.key, s.micro(), cost, limits))
	s.last = got
	s.keep(s.key, cost, got, limits)
}

// same checks a Result against the model's.
func (s *schedule) same(call string, got backend.Result, want answer) {
	s.Helper()
	retry := got.RetryAfter.Microseconds()
	if got.RetryAfter < 0 {
		retry = -1
	}
	if is := (answer{got.Banned(), got.BanBegan(), got.Allowed, got.Limit, got.Remaining, retry, got.ResetAfter.Microseconds(), got.Used()}); is != want {
		s.Errorf("at %v: %s:\n got %s, %d used of %q\nwant %s, %d used of %q", s.now, call, show(got), got.Used(), got.Limit.Name, want, want.Used, want.Limit.Name)
	}
}

// keep remembers one of the last charges.
func (s *schedule) keep(key string, cost int64, res backend.Result, limits []backend.Limit) {
	if cost > 0 {
		if s.charges = append(s.charges, charged{key, taken{res, cost, limits}}); len(s.charges) > 6 {
			s.charges = s.charges[1:]
		}
	}
}

// beside is the second key of a TakeAll.
func (s *schedule) beside() string { return s.key + " beside" }

func (s *schedule) takeAll() {
	s.Helper()
	charges := []backend.Charge{{Key: s.key, Cost: s.cost(), Limits: s.limits}, {Key: s.beside(), Cost: s.cost(), Limits: s.others}}
	if s.chance(5) {
		charges[s.rand.IntN(2)].Cost = 0
	}
	if s.chance(50) {
		charges[0], charges[1] = charges[1], charges[0]
	}
	got := s.env.takeAll(charges...)
	want := s.model.takeAll(s.micro(), charges)
	all := got[0].Allowed && got[1].Allowed
	s.note("TakeAll(%v): %s and %s", charges, show(got[0]), show(got[1]))
	for i, c := range charges {
		s.same(fmt.Sprintf("charge %d of TakeAll(%v)", i, charges), got[i], want[i])
		if all {
			s.keep(c.Key, c.Cost, got[i], c.Limits)
		}
	}
	s.last = got[s.rand.IntN(2)]
}

func (a answer) String() string {
	res := backend.Result{Allowed: a.Allowed, Remaining: a.Remaining, RetryAfter: time.Duration(a.Retry) * µs, ResetAfter: time.Duration(a.Reset) * µs}
	if a.Banned {
		res = res.WithBanned(a.Began)
	}
	return show(res)
}

// look takes nothing under all limits, and under each alone.
func (s *schedule) look() {
	s.Helper()
	own, _ := parted(s.limits)
	if len(own) > 1 {
		i := s.rand.IntN(len(own))
		s.take(0, alone(own, i))
	}
	s.take(0, s.limits)
	want := s.model.usage(s.key, s.micro(), own)
	for i, got := range s.usage(s.key, own...) {
		s.same(fmt.Sprintf("limit %d of Usage(%v)", i, own), got, want[i])
	}
}

// settle corrects one of the last charges: admitted or refused, not yet settled or already, fresh
// or old, to less or to more.
func (s *schedule) settle() {
	if len(s.charges) == 0 {
		return
	}
	c := &s.charges[s.rand.IntN(len(s.charges))]
	actual := int64(0)
	switch s.rand.IntN(8) {
	case 0:
		actual = c.cost
	case 1:
		actual = s.rand.Int64N(c.cost) // less
	case 2, 3:
		actual = min(c.cost, 1<<50) + min(s.cost(), 1<<50)
	case 4:
		actual = min(c.cost, 1<<50) + 2*min(s.cost(), 1<<50) + 1
	case 5:
		actual = math.MaxInt64
	}
	s.note("Settle(the %d of %q charged at %d µs under %v, allowed %v, to %d)", c.cost, c.key, c.res.At.Sub(s.start).Microseconds(), c.limits, c.res.Allowed, actual)
	s.env.settle(c.key, c.res, c.cost, actual, c.limits...)
	if c.res.Allowed {
		s.model.settle(c.key, s.micro(), c.res.At.Sub(s.start).Microseconds(), c.cost, actual, held(c), c.limits)
	}
	if s.chance(80) {
		c.res = c.res.WithReleased()
	}
	if s.chance(50) {
		c.cost = max(1, actual)
	}
}

// held returns the units that a charge holds.
func held(c *charged) int64 {
	if c.res.Released() || !c.res.Allowed {
		return 0
	}
	return c.cost
}

// renew holds what one of the last charges holds for longer.
func (s *schedule) renew() {
	b, ok := s.b.(backend.Renewer)
	if !ok || len(s.charges) == 0 {
		return
	}
	c := &s.charges[s.rand.IntN(len(s.charges))]
	s.note("Renew(the %d of %q charged at %d µs under %v)", c.cost, c.key, c.res.At.Sub(s.start).Microseconds(), c.limits)
	res, err := b.Renew(context.Background(), c.key, c.res, c.cost, c.limits...)
	if err != nil {
		s.Errorf("at %v: Renew: %v", s.now, err)
	}
	s.model.renew(c.key, s.micro(), c.res.At.Sub(s.start).Microseconds(), held(c), c.limits)
	c.res = res
}

// ban bans one of the keys by hand.
func (s *schedule) ban() {
	b, ok := s.b.(backend.Banner)
	if !ok {
		return
	}
	key, length := pick(s.rand, s.key, s.beside()), 1000+s.rand.Int64N(s.scale)
	s.note("Ban(%q, %d µs)", key, length)
	if err := b.Ban(context.Background(), key, time.Duration(length)*µs); err != nil {
		s.Errorf("at %v: Ban: %v", s.now, err)
	}
	s.model.ban(key, s.micro(), length)
}

// change replaces one limit, by one that is like it more often than not, or all of them.
func (s *schedule) change() {
	if s.chance(15) {
		s.limits = s.newLimits()
		return
	}
	own, _ := parted(s.limits)
	i := s.rand.IntN(len(own))
	limits := append([]backend.Limit{}, s.limits...)
	l := limits[i]
	switch s.rand.IntN(6) {
	case 0, 1:
		l.Count = max(1, min(l.Count, 10_000)*pick(s.rand, int64(1), 2, 3, 10, 7)/pick(s.rand, int64(1), 2, 3, 10))
	case 2, 3:
		if l.Algorithm != backend.CalendarWindow {
			l.Period = s.period()
		} else if !l.IsUnlimited() {
			l.Calendar = s.calendar(l.Count).Calendar
		}
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
	if len(s.of) > 1 && s.chance(25) || len(s.of) == 1 && s.chance(10) {
		after := s.newLimit(n)
		if after.IsUnlimited() || after.Algorithm == backend.Concurrency {
			after = per(3, s.period())
		}
		after.Count, after.Burst = min(after.Count, 13), 0
		first := 1000 + s.rand.Int64N(s.scale)
		limits = append(limits, after.Banning(time.Duration(first)*µs, time.Duration(first+s.rand.Int64N(9*s.scale))*µs))
	}
	return limits
}

// calendar returns a limit of a random calendar.
func (s *schedule) calendar(count int64) backend.Limit {
	l := pick(s.rand, backend.PerCalendarDay, backend.PerCalendarDay, backend.PerCalendarWeek, backend.PerCalendarMonth)(count)
	if s.chance(50) {
		l = l.In(pick(s.rand, "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "America/Santiago", "Asia/Beirut", "Pacific/Apia"))
	}
	return l
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
	if l.Algorithm == backend.CalendarWindow {
		l.Period, l.Calendar = 0, s.calendar(1).Calendar
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
