// Package replay runs limits over access logs, in the logs' own time, and says what they would have
// done. It decides by package algorithm, as every backend does, and writes nothing anywhere.
package replay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/algorithm"
	"github.com/ginlimit/ginlimit/cmd/ginlimit/internal/accesslog"
)

// Config says what is to be replayed.
type Config struct {
	Limits  []backend.Limit // all must allow; at least one
	Versus  []backend.Limit // those to compare with, or none
	By      *By
	Route   *Route        // nil for all requests
	Status  int           // only requests that were answered so; 0 for all
	Limiter string        // of lines of an observer: only those of this limiter; "" for all
	Window  time.Duration // by how much lines may be out of order
	Target  Target
	Top     int // how many callers are listed
	// Ended says that the log's times are when requests ended: they count when they began.
	Ended bool

	// Verdict, if it is not nil, is told of every decision under Limits, in their order.
	Verdict func(at time.Time, key string, allowed bool, wait time.Duration)
	// Progress, if it is not nil, is called now and then.
	Progress func(lines int64)
}

// Target is what a limit is looked for that refuses at most.
type Target struct {
	Share   float64 // 0 to 1
	Callers bool    // of callers, otherwise of requests
}

var errMostBad = errors.New("ginlimit: more than half of the lines could not be read; name the format by -format, and the fields of " +
	"JSON lines by -time and the like")

// run is one replay.
type run struct {
	Config
	callers  *callers
	laws     []*law
	places   *places
	scratch  page // the states of a caller of few requests
	tallies  []*tally
	capacity int64 // the least that a limit can hold: a caller that asks for no more is never refused
	rates    rateWindows
	holds    bool // units of some limit until a request has ended
	flights  flights
	noEnd    int64 // requests of which it is not known how long they took
	history  history
	requests int64
	units    int64
	lines    int64
	noKey    int64
	other    int64 // of another route, status or limiter
	already  int64 // answered with 429 when the log was written
	first    int64
	last     int64
	fine     Series
	minutes  Series      // of at least a minute, for callers
	both     [2][2]int64 // requests by whether each of two scenarios refused
	outcomes map[string]int64
}

// tally is what one scenario comes to.
type tally struct {
	law     *law
	refused int64
	units   int64
	callers int64
	by      []int64 // refusals by each limit
	waits   waits
	minute  uint32
	inMin   Minute // the minute that goes on
	worst   Minute
}

// Run replays logs.
func Run(ctx context.Context, c Config, logs []*accesslog.Reader) (*Report, error) {
	r := &run{Config: c, callers: newCallers(), first: math.MaxInt64, capacity: math.MaxInt64, outcomes: map[string]int64{}}
	r.history.limit = maxHistory
	r.fine.Seconds, r.minutes.Seconds = 1, 60
	for _, limits := range [][]backend.Limit{c.Limits, c.Versus} {
		if len(limits) == 0 {
			continue
		}
		l, err := newLaw(limits)
		if err != nil {
			return nil, err
		}
		r.laws = append(r.laws, l)
		r.holds = r.holds || l.holds
		r.tallies = append(r.tallies, &tally{law: l, by: make([]int64, len(limits)), minute: math.MaxUint32})
		for _, limit := range limits {
			if !limit.IsUnlimited() {
				r.capacity = min(r.capacity, limit.Capacity())
			}
		}
	}
	if len(r.laws) == 0 {
		return nil, errors.New("ginlimit: no limit was given; use -limit 100/m, for example")
	}
	r.history.ends = r.holds
	r.places = newPlaces(r.laws)
	r.callers.plain = !r.holds
	r.scratch = newScratch(r.places)
	r.rates = newRateWindows(c.Limits[0])
	sources := make([]*source, len(logs))
	for i, log := range logs {
		sources[i] = &source{log: log, parse: r.parse, window: c.Window.Microseconds()}
	}
	all, err := newMerged(sources)
	if err != nil {
		return nil, err
	}
	for n := 0; ; n++ {
		e, ok, err := all.next()
		if err != nil {
			return nil, err
		}
		if !ok {
			break
		}
		r.decide(&e)
		if n&(1<<14-1) == 0 {
			if ctx.Err() != nil {
				return nil, errors.New("ginlimit: interrupted; nothing was written")
			}
			if c.Progress != nil {
				c.Progress(r.lines)
			}
		}
	}
	return r.report(sources)
}

// parse makes an event of an entry, and counts what its caller asks for.
func (r *run) parse(e *accesslog.Entry) (event, bool) {
	r.lines++
	if r.Route != nil && !r.Route.Matches(e) || r.Status != 0 && r.Status != e.Status ||
		r.Limiter != "" && len(e.Limiter) > 0 && r.Limiter != string(e.Limiter) {
		r.other++
		return event{}, false
	}
	if len(e.Outcome) > 0 && (len(r.outcomes) < 100 || r.outcomes[string(e.Outcome)] > 0) {
		r.outcomes[string(e.Outcome)]++
	}
	key, ok := r.By.Key(e)
	if !ok {
		r.noKey++
		return event{}, false
	}
	if e.Status == 429 {
		r.already++
	}
	e.Cost = min(e.Cost, backend.MaxCount+1) // which no limit holds either
	id, past := r.callers.ask(key, e.Cost)
	r.keep(id, past)
	if r.callers.units(id) > r.capacity || r.Verdict != nil {
		r.callers.name(id, key)
	}
	at := e.Time
	if r.Ended && e.Duration > 0 {
		at -= min(e.Duration, at)
	}
	if e.Duration < 0 {
		r.noEnd++
	}
	return event{at: at, end: at + min(e.Duration, longest.Microseconds()), cost: e.Cost, id: id}, true
}

// keep makes the states of a caller that was kept as the times of its requests until now.
func (r *run) keep(id uint32, past trail) {
	if past[0] == 0 {
		return
	}
	c := r.callers.of(id)
	for _, at := range past.replayed() {
		c.count(r.rates.number(at), 1)
	}
	states, logs := r.states(id, c)
	r.recall(states, logs, past.replayed())
}

// recall charges requests of one unit each once more, to states that are new. Nothing is counted.
func (r *run) recall(states []state, logs []*algorithm.Log, past []int64) {
	for _, l := range r.laws {
		n := len(l.rules)
		own := logs
		if logs != nil {
			own, logs = logs[:n], logs[n:]
		}
		for _, at := range past {
			l.take(states[:n], own, at, 1)
		}
		states = states[n:]
	}
}

// decide replays one request.
func (r *run) decide(e *event) {
	now := e.at
	c := r.callers.of(e.id)
	if c == nil && now <= 0 { // a time that a trail cannot have
		asked := r.callers.requests(e.id)
		r.keep(e.id, r.callers.makeBusy(e.id))
		c = r.callers.of(e.id)
		c.requests = asked
	}
	r.land(now)
	if r.requests == 0 {
		r.first = now
	}
	r.requests++
	r.units = sum(r.units, e.cost)
	r.last = now
	window := r.rates.number(now) // also of the first, from which periods are counted
	if c != nil {
		c.count(window, e.cost)
	}
	fine := r.fine.at(now)
	fine.Requests++
	r.history.add(e)

	states, logs := r.states(e.id, c)
	if c == nil {
		r.callers.replayed(e.id, now)
	}
	minute := uint32(now/(60*1e6)) + 1
	var refused [2]int
	var held uint8
	for i, t := range r.tallies {
		n := len(t.law.rules)
		var own = logs
		if logs != nil {
			own, logs = logs[:n], logs[n:]
		}
		decided, wait := t.law.take(states[:n], own, now, e.cost)
		states = states[n:]
		if t.minute != minute {
			t.minute = minute
			t.inMin = Minute{Start: time.UnixMicro(now).UTC().Truncate(time.Minute)}
			if i == 0 {
				r.minutes.at(now)
			}
		}
		t.inMin.Requests++
		if i == 0 && r.Verdict != nil {
			r.Verdict(time.UnixMicro(now), r.callers.named[e.id].key, wait == 0, max(backend.Never, time.Duration(wait)*time.Microsecond))
		}
		if wait != 0 {
			refused[i] = 1
			r.refuse(i, t, e, decided, wait, minute, fine)
		} else if t.law.holds {
			held |= 1 << i
		}
		if t.inMin.Refused > t.worst.Refused || t.inMin.Refused == t.worst.Refused && t.inMin.Start.Equal(t.worst.Start) {
			t.worst = t.inMin
		}
	}
	if r.holds && e.cost > 0 {
		r.flights.begin(e, held)
	}
	r.both[refused[0]][refused[1]]++
	r.places.sweep(r.callers, now)
}

// states returns the states of a caller, and their logs.
func (r *run) states(id uint32, c *caller) ([]state, []*algorithm.Log) {
	if c == nil {
		clear(r.scratch.states)
		clear(r.scratch.logs)
		past := r.callers.past(id)
		r.recall(r.scratch.states, r.scratch.logs, past.replayed())
		return r.scratch.states, r.scratch.logs
	}
	if c.place == 0 {
		c.place = r.places.place(uint32(*r.callers.word(id)))
	}
	return r.places.of(c.place)
}

func (r *run) refuse(i int, t *tally, e *event, decided int, wait int64, minute uint32, fine *Point) {
	t.refused++
	t.units = sum(t.units, e.cost)
	t.by[decided]++
	t.waits.add(wait)
	t.inMin.Refused++
	no := touch(&r.callers.no, e.id)
	if no.by[i] == 0 {
		t.callers++
	}
	no.by[i] = add(no.by[i], 1)
	if i == 0 {
		fine.Refused++
		if p := r.minutes.at(e.at); no.minute != minute {
			no.minute = minute
			t.inMin.Callers++
			p.Callers = max(p.Callers, t.inMin.Callers)
		}
	} else {
		fine.Other++
	}
	if n := r.callers.named[e.id]; n != nil {
		if no.by[i] == 1 {
			n.first[i] = e.at
		}
		n.last[i] = e.at
	}
}

// report sums up.
func (r *run) report(sources []*source) (*Report, error) {
	rep := &Report{Requests: r.requests, Units: r.units, Callers: int64(r.callers.n), NoKey: r.noKey, Other: r.other,
		Already: r.already, Outcomes: r.outcomes, Series: r.fine, Minutes: r.minutes}
	for _, s := range sources {
		rep.Files = append(rep.Files, File{Name: s.log.Name, Format: s.log.Format, Lines: s.log.Lines})
		rep.Lines += s.log.Lines
		rep.Skipped += s.log.Skipped
		rep.Bad += s.log.Bad
		rep.Late += s.late
		for _, bad := range s.log.First {
			if len(rep.BadLines) < 3 {
				rep.BadLines = append(rep.BadLines, bad)
			}
		}
	}
	if rep.Bad > (rep.Lines-rep.Skipped)/2 {
		return rep, errMostBad
	}
	if r.requests == 0 {
		return rep, r.nothing(rep)
	}
	if r.holds {
		if rep.NoDuration = r.noEnd; r.noEnd == r.requests {
			return rep, fmt.Errorf("ginlimit: a limit in flight needs how long requests took, which none of %d "+
				"requests says; name the field of JSON lines by -duration, or give a log that has durations", r.requests)
		}
	}
	rep.From, rep.To = time.UnixMicro(r.first).UTC(), time.UnixMicro(r.last).UTC()
	rep.Limits = r.outcome(0)
	rep.Rates = r.ratesOf()
	if len(r.tallies) > 1 {
		o := r.outcome(1)
		rep.Versus = &o
		rep.Change = r.change()
	}
	r.places, r.callers.shards, r.callers.few = nil, [shards]shard{}, nil // the search needs the room
	rep.Smallest = r.smallest()
	return rep, nil
}

func (r *run) nothing(rep *Report) error {
	switch {
	case r.other > 0:
		return fmt.Errorf("ginlimit: none of %d requests is of the route, the status or the limiter that was asked for; look at "+
			"the log's paths, or leave -route, -only and -limiter out", r.other)
	case r.noKey > 0:
		return fmt.Errorf("ginlimit: none of %d requests has a key; choose by -by what the log has", r.noKey)
	default:
		return fmt.Errorf("ginlimit: there is no request in %d lines; give a log that has some", rep.Lines)
	}
}

func (r *run) outcome(i int) Outcome {
	t := r.tallies[i]
	o := Outcome{Refused: t.refused, RefusedUnits: t.units, RefusedCallers: t.callers}
	o.Share, o.CallerShare = share(t.refused, r.requests), share(t.callers, int64(r.callers.n))
	for j, limit := range t.law.limits {
		o.Limits = append(o.Limits, LimitOutcome{Limit: limit.String(), Refused: t.by[j]})
	}
	if t.refused > 0 {
		worst := t.worst
		o.Worst = &worst
		o.Waits = &Waits{Half: seconds(t.waits.quantile(0.5)), NineInTen: seconds(t.waits.quantile(0.9)),
			Longest: seconds(time.Duration(t.waits.longest) * time.Microsecond), Never: t.waits.never}
	}
	o.Top = r.top(func(no refusals) int64 { return int64(no.by[i]) })
	return o
}

// top returns the callers with the most of something, of which 0 is none.
func (r *run) top(of func(refusals) int64) []Caller {
	type ranked struct {
		id uint32
		n  int64
	}
	var best []ranked
	compare := func(a, b ranked) int {
		return cmp.Or(cmp.Compare(b.n, a.n), cmp.Compare(r.callers.named[a.id].key, r.callers.named[b.id].key))
	}
	for id := range r.callers.named {
		n := of(peek(r.callers.no, id))
		if n == 0 {
			continue
		}
		if best = append(best, ranked{id, n}); len(best) >= 2*r.Top+1000 {
			slices.SortFunc(best, compare)
			best = best[:r.Top]
		}
	}
	slices.SortFunc(best, compare)
	best = best[:min(len(best), r.Top)]
	var all []Caller
	for _, b := range best {
		all = append(all, r.caller(b.id))
	}
	return all
}

func (r *run) caller(id uint32) Caller {
	n, no := r.callers.named[id], peek(r.callers.no, id)
	out := Caller{Key: n.key, Requests: int64(r.callers.requests(id)), Refused: int64(no.by[0]), Peak: int64(r.peak(id))}
	out.First, out.Last = when(n.first[0]), when(n.last[0])
	if len(r.tallies) > 1 {
		other := int64(no.by[1])
		out.RefusedVersus = &other
	}
	return out
}

// peak returns the most that a caller asked for in one window.
func (r *run) peak(id uint32) uint32 {
	if c := r.callers.of(id); c != nil {
		return c.peak
	}
	var c caller
	past := r.callers.past(id)
	for _, at := range past.replayed() {
		c.count(r.rates.number(at), 1)
	}
	return c.peak
}

// when is a time of a caller, nil if it is not known.
func when(us int64) *time.Time {
	if us == 0 {
		return nil
	}
	t := time.UnixMicro(us).UTC()
	return &t
}

// change compares the two scenarios.
func (r *run) change() *Change {
	c := &Change{OnlyLimits: r.both[1][0], OnlyVersus: r.both[0][1], Both: r.both[1][1]}
	for id := range r.callers.n {
		no := peek(r.callers.no, id)
		switch a, b := no.by[0] > 0, no.by[1] > 0; {
		case a && b:
			c.CallersBoth++
		case a:
			c.CallersOnlyLimits++
		case b:
			c.CallersOnlyVersus++
		}
	}
	c.More = r.top(func(no refusals) int64 { return max(0, int64(no.by[1])-int64(no.by[0])) })
	c.Fewer = r.top(func(no refusals) int64 { return max(0, int64(no.by[0])-int64(no.by[1])) })
	return c
}

// ratesOf counts callers by the most that they asked for in one window.
func (r *run) ratesOf() Rates {
	limit := r.Limits[0]
	rates := Rates{Period: time.Duration(r.rates.period) * time.Microsecond, AtOnce: r.rates.atOnce}
	rates.Calendar = limit.Calendar.Unit()
	if !limit.IsUnlimited() {
		n := limit.Count
		rates.Limit = &n
	}
	var bounds []int64 // the largest of each class
	for unit := int64(1); unit <= 1e9; unit *= 10 {
		for _, n := range [...]int64{1, 2, 3, 5, 7} {
			bounds = append(bounds, n*unit)
		}
	}
	counts := make([]int64, len(bounds)+1)
	for id := range r.callers.n {
		i, _ := slices.BinarySearch(bounds, int64(r.peak(id)))
		counts[i]++
	}
	last := len(counts) - 1
	for last > 0 && counts[last] == 0 {
		last--
	}
	var below int64
	for i := range last + 1 {
		most := int64(math.MaxUint32)
		if i < len(bounds) {
			most = bounds[i]
		}
		rates.Classes = append(rates.Classes, RateClass{From: below + 1, To: most, Callers: counts[i]})
		below = most
	}
	if rates.Classes[0].Callers > 0 && r.units < r.requests {
		rates.Classes[0].From = 0
	}
	return rates
}

// sum returns a+b, of which neither is negative, or the largest number.
func sum(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

func share(n, of int64) float64 {
	if of == 0 {
		return 0
	}
	return float64(n) / float64(of)
}

func seconds(d time.Duration) float64 { return d.Seconds() }
