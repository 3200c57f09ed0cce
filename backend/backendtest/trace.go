package backendtest

import (
	"time"

	"github.com/ginlimit/ginlimit/backend"
)

const (
	µs    = time.Microsecond
	ms    = time.Millisecond
	sec   = time.Second
	hour  = time.Hour
	day   = 24 * time.Hour
	never = backend.Never

	yes = true
	no  = false
)

// trace is a timing diagram: what happens to one key, and what must come of it.
type trace struct {
	name   string
	demand string
	limits []backend.Limit
	steps  []step
}

// step is one line of a trace: a take, by, refund, change or forget. All times are since the
// trace's start.
type step interface{ do(e *env, p *play) }

// take charges cost at an instant and says what the answer must be.
type take struct {
	at    time.Duration
	cost  int64
	ok    bool
	left  int64
	retry time.Duration
	reset time.Duration
}

// by is a take that says too which of the limits must decide, by its index.
type by struct {
	at    time.Duration
	cost  int64
	ok    bool
	left  int64
	retry time.Duration
	reset time.Duration
	limit int
}

// refund gives the charge of the of-th take, counted from 1, back.
type refund struct {
	at time.Duration
	of int
}

// settle corrects the charge of the of-th take, counted from 1, to what it really was.
type settle struct {
	at     time.Duration
	of     int
	actual int64
}

// change puts other limits in the place of the trace's.
type change []backend.Limit

// forget is a Reset.
type forget struct{ at time.Duration }

// play is a trace being played.
type play struct {
	key    string
	limits []backend.Limit
	number int // of the step, from 1
	takes  []taken
}

type taken struct {
	res    backend.Result
	cost   int64
	limits []backend.Limit
}

func asRules(traces []trace) []rule {
	var rules []rule
	for _, tr := range traces {
		rules = append(rules, rule{name: tr.name, demand: tr.demand, backward: tr.goesBack(), run: tr.play})
	}
	return rules
}

// goesBack reports whether the clock does.
func (tr trace) goesBack() bool {
	now := time.Duration(0)
	for _, s := range tr.steps {
		at := now
		switch s := s.(type) {
		case take:
			at = s.at
		case by:
			at = s.at
		case refund:
			at = s.at
		case settle:
			at = s.at
		}
		if at < now {
			return true
		}
		now = at
	}
	return false
}

func (tr trace) play(e *env) {
	p := &play{key: "a key", limits: tr.limits}
	for i, s := range tr.steps {
		p.number = i + 1
		s.do(e, p)
	}
}

func (s take) do(e *env, p *play) {
	e.Helper()
	res := p.take(e, s.at, s.cost)
	got := take{s.at, s.cost, res.Allowed, res.Remaining, max(res.RetryAfter, never), res.ResetAfter}
	if got != s {
		e.Errorf("step %d: at %v: Take(%d, %v):\n got %v\nwant %v", p.number, s.at, s.cost, p.limits, got, s)
	}
}

func (s by) do(e *env, p *play) {
	e.Helper()
	take{s.at, s.cost, s.ok, s.left, s.retry, s.reset}.do(e, p)
	if got := p.takes[len(p.takes)-1].res.Limit; got != p.limits[s.limit] {
		e.Errorf("step %d: at %v: Take(%d, %v): the Limit of the Result is %q (%v), want %q (%v)",
			p.number, s.at, s.cost, p.limits, got.Name, got, p.limits[s.limit].Name, p.limits[s.limit])
	}
}

func (p *play) take(e *env, at time.Duration, cost int64) backend.Result {
	e.Helper()
	e.moveTo(at)
	res := e.take(p.key, cost, p.limits...)
	p.takes = append(p.takes, taken{res, cost, p.limits})
	return res
}

func (s refund) do(e *env, p *play) {
	e.Helper()
	e.moveTo(s.at)
	charge := p.takes[s.of-1]
	e.refund(p.key, charge.res, charge.cost, charge.limits...)
}

func (s settle) do(e *env, p *play) {
	e.Helper()
	e.moveTo(s.at)
	charge := &p.takes[s.of-1]
	e.settle(p.key, charge.res, charge.cost, s.actual, charge.limits...)
	charge.cost = s.actual
}

func (s change) do(_ *env, p *play) { p.limits = s }

func (s forget) do(e *env, p *play) {
	e.Helper()
	e.moveTo(s.at)
	e.reset(p.key)
}

func one(l backend.Limit) []backend.Limit { return []backend.Limit{l} }

func window(n int64, p time.Duration) backend.Limit {
	return per(n, p).WithAlgorithm(backend.FixedWindow)
}

func sliding(n int64, p time.Duration) backend.Limit {
	return per(n, p).WithAlgorithm(backend.SlidingWindow)
}

func log(n int64, p time.Duration) backend.Limit { return per(n, p).WithAlgorithm(backend.SlidingLog) }
