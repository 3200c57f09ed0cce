package backendtest

import (
	"context"
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
	from   func(start time.Time) time.Time // when it begins, if not at once
	steps  []step
}

// step is one line of a trace: a take, by, barred, banned, refund, settle, renew, ban, change or
// forget. All times are since the trace's start.
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

// barred is a take that a ban refuses, which decides before the limits. It says too whether it
// brought the ban about.
type barred struct {
	at    time.Duration
	cost  int64
	retry time.Duration
	began bool
}

// banned is a take that is refused while a ban lasts, where a limit waits for longer and decides.
type banned struct {
	at    time.Duration
	cost  int64
	left  int64
	retry time.Duration
	reset time.Duration
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

// renew holds what the of-th take holds for another Period.
type renew struct {
	at time.Duration
	of int
}

// ban bans by hand.
type ban struct{ at, length time.Duration }

// change puts other limits in the place of the trace's.
type change []backend.Limit

// forget is a Reset.
type forget struct{ at time.Duration }

// play is a trace being played.
type play struct {
	key    string
	limits []backend.Limit
	begins time.Duration // since the clock's start
	number int           // of the step, from 1
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
		case barred:
			at = s.at
		case banned:
			at = s.at
		case renew:
			at = s.at
		case ban:
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
	if tr.from != nil {
		p.begins = tr.from(e.start).Sub(e.start)
	}
	for i, s := range tr.steps {
		p.number = i + 1
		s.do(e, p)
	}
}

func (s take) do(e *env, p *play) {
	e.Helper()
	res := p.take(e, s.at, s.cost)
	got := take{s.at, s.cost, res.Allowed, res.Remaining, max(res.RetryAfter, never), res.ResetAfter}
	if got != s || res.Banned() {
		e.Errorf("step %d: at %v: Take(%d, %v):\n got %v, banned %v\nwant %v", p.number, s.at, s.cost, p.limits, got, res.Banned(), s)
	}
}

func (s barred) do(e *env, p *play) {
	e.Helper()
	res := p.take(e, s.at, s.cost)
	if res.Allowed || !res.Banned() || res.RetryAfter != s.retry || res.ResetAfter != s.retry || res.Remaining != 0 || res.Used() != res.Limit.Capacity() {
		e.Errorf("step %d: at %v: Take(%d, %v): got %s, %d used, banned %v, want a ban that lasts for %v",
			p.number, s.at, s.cost, p.limits, show(res), res.Used(), res.Banned(), s.retry)
	}
	if res.BanBegan() != s.began {
		e.Errorf("step %d: at %v: Take(%d, %v): the ban began with it: got %v, want %v", p.number, s.at, s.cost, p.limits, res.BanBegan(), s.began)
	}
	if last := p.limits[len(p.limits)-1]; isBan(last) && res.Limit != last {
		e.Errorf("step %d: at %v: Take(%d, %v): the Limit of the Result is %v, want that of the ban", p.number, s.at, s.cost, p.limits, res.Limit)
	}
}

func (s banned) do(e *env, p *play) {
	e.Helper()
	res := p.take(e, s.at, s.cost)
	got := banned{s.at, s.cost, res.Remaining, max(res.RetryAfter, never), res.ResetAfter}
	if got != s || res.Allowed || !res.Banned() || isBan(res.Limit) {
		e.Errorf("step %d: at %v: Take(%d, %v):\n got %v, allowed %v, banned %v by %v\nwant %v, a refusal by a limit while a ban lasts",
			p.number, s.at, s.cost, p.limits, got, res.Allowed, res.Banned(), res.Limit, s)
	}
}

func isBan(l backend.Limit) bool {
	_, _, ok := l.Bans()
	return ok
}

func (s by) do(e *env, p *play) {
	e.Helper()
	take{s.at, s.cost, s.ok, s.left, s.retry, s.reset}.do(e, p)
	if got := p.takes[len(p.takes)-1].res.Limit; got != p.limits[s.limit] {
		e.Errorf("step %d: at %v: Take(%d, %v): the Limit of the Result is %q (%v), want %q (%v)",
			p.number, s.at, s.cost, p.limits, got.Name, got, p.limits[s.limit].Name, p.limits[s.limit])
	}
}

// moveTo moves the clock to at since the trace's start.
func (p *play) moveTo(e *env, at time.Duration) { e.moveTo(p.begins + at) }

func (p *play) take(e *env, at time.Duration, cost int64) backend.Result {
	e.Helper()
	p.moveTo(e, at)
	res := e.take(p.key, cost, p.limits...)
	p.takes = append(p.takes, taken{res, cost, p.limits})
	return res
}

func (s refund) do(e *env, p *play) {
	e.Helper()
	p.moveTo(e, s.at)
	charge := p.takes[s.of-1]
	e.refund(p.key, charge.res, charge.cost, charge.limits...)
}

func (s settle) do(e *env, p *play) {
	e.Helper()
	p.moveTo(e, s.at)
	charge := &p.takes[s.of-1]
	e.settle(p.key, charge.res, charge.cost, s.actual, charge.limits...)
	charge.cost, charge.res = s.actual, charge.res.WithReleased()
}

func (s renew) do(e *env, p *play) {
	e.Helper()
	p.moveTo(e, s.at)
	b, ok := e.b.(backend.Renewer)
	if !ok {
		e.Skipf("%T is no backend.Renewer", e.b)
	}
	charge := &p.takes[s.of-1]
	res, err := b.Renew(context.Background(), p.key, charge.res, charge.cost, charge.limits...)
	if err != nil {
		e.Fatalf("step %d: at %v: Renew(%d, %v): got error %v, want none", p.number, s.at, charge.cost, charge.limits, err)
	}
	charge.res = res
}

func (s ban) do(e *env, p *play) {
	e.Helper()
	p.moveTo(e, s.at)
	b, ok := e.b.(backend.Banner)
	if !ok {
		e.Skipf("%T is no backend.Banner", e.b)
	}
	if err := b.Ban(context.Background(), p.key, s.length); err != nil {
		e.Fatalf("step %d: at %v: Ban(%v): got error %v, want none", p.number, s.at, s.length, err)
	}
}

func (s change) do(_ *env, p *play) { p.limits = s }

func (s forget) do(e *env, p *play) {
	e.Helper()
	p.moveTo(e, s.at)
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
