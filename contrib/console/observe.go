package console

import (
	"context"
	"hash/maphash"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/backend"
)

const (
	numShards  = 32
	maxSources = 300 // combinations of limiter and tier that are told apart, as by contrib/prometheus
	maxLimiter = 100
	maxName    = 128 // bytes of a name
	other      = "other"
	history    = 128 // seconds that are remembered
)

// shard is what was seen of a share of the keys. Its lock covers the lists and the counters of the
// limiters in it, so that no counter has to be atomic, and is taken once for a decision.
type shard struct {
	mu    sync.Mutex
	lists [numLists]window
}

// The lists of callers.
const (
	listRefused = iota
	listAdmitted
	listNear
	numLists
)

// names are those of a decision.
type names struct{ limiter, tier string }

// source is where decisions come from: a limiter, and a tier of it.
type source struct {
	names
	limiter *limiter
	limits  atomic.Pointer[[]ginlimit.Limit] // the last that were in force
}

// limiter is what is counted of a limiter.
type limiter struct {
	name    string
	mix     uint64           // its share of a caller's hash
	tallies [numShards]tally // each under the lock of its shard
}

// tally is the counters of a limiter in a shard.
type tally struct {
	outcomes [numOutcomes]uint64
	answers  [numAnswers]uint64
	seconds  [history]second
}

// second is the decisions in one second.
type second struct {
	at     int32 // seconds since the Console was made
	counts [numGroups]uint32
}

// The groups of outcomes that the chart has.
const (
	groupAdmitted = iota
	groupRefused  // or would have been, in a dry run
	groupNeither  // without a decision, or not charged
	numGroups
)

// outcomes are the words of ginlimit.Decision.Outcome that observers are told, and one for those
// that there may be later.
var outcomes = [...]string{
	"allowed", "denied", "banned", "dry_run_denied", "dry_run_banned",
	"not_charged", "no_key", "bad_cost", "dry_run_no_key", "dry_run_bad_cost", "error_passed", "error_refused", other,
}

const (
	outcomeAllowed     = 0
	outcomeLastRefused = 4 // outcomes from 1 on are refusals
	numOutcomes        = len(outcomes)
	skipped            = "skipped" // observers are not told of it
)

// numAnswers is one more than there are sources: the last stands for those that there may be later.
const numAnswers = int(backend.SourceFallback) + 2

// Observe counts a decision: it is for [ginlimit.WithObserver].
func (c *Console) Observe(_ context.Context, d ginlimit.Decision) {
	word := d.Outcome()
	if word == skipped {
		return
	}
	outcome := outcomeOf(word)
	s := c.sourceOf(&d)
	h := c.hash(s.limiter, d.Key)
	now := time.Since(c.started)
	at := int32(now / time.Second)

	i := h % numShards
	p := &c.shards[i]
	p.mu.Lock()
	t := &s.limiter.tallies[i]
	t.outcomes[outcome]++
	if d.Err == nil {
		t.answers[min(int(d.Source), numAnswers-1)]++
	}
	sec := &t.seconds[at%history]
	if sec.at != at {
		*sec = second{at: at}
	}
	sec.counts[groupOf(outcome)]++
	switch groupOf(outcome) {
	case groupAdmitted:
		p.lists[listAdmitted].at(now).add(h, d.Key).saw(s, &d, now)
		if isNear(&d) {
			p.lists[listNear].at(now).add(h, d.Key).saw(s, &d, now)
		}
	case groupRefused:
		p.lists[listRefused].at(now).add(h, d.Key).saw(s, &d, now)
	}
	p.mu.Unlock()

	if d.BanBegan() && d.Cost > 0 {
		c.bans.put(ban{hash: h, source: s, key: textOf(d.Key), began: now, until: now + d.RetryAfter})
	}
}

func outcomeOf(word string) int {
	for i, known := range outcomes {
		if known == word {
			return i
		}
	}
	return numOutcomes - 1
}

func groupOf(outcome int) int {
	switch {
	case outcome == outcomeAllowed:
		return groupAdmitted
	case outcome <= outcomeLastRefused:
		return groupRefused
	default:
		return groupNeither
	}
}

// isNear reports whether less than a fifth is left, which is what contrib/prometheus calls near.
// Where a limit holds one unit, nothing is left after each, which says nothing.
func isNear(d *ginlimit.Decision) bool {
	capacity := d.Limit.Capacity()
	return capacity > 1 && !d.Limit.IsUnlimited() && 5*d.Remaining < capacity
}

// hash returns what stands for a caller of a limiter.
func (c *Console) hash(l *limiter, key string) uint64 { return maphash.String(c.seed, key) ^ l.mix }

// sourceOf returns where a decision comes from, and remembers the limits in force.
func (c *Console) sourceOf(d *ginlimit.Decision) *source {
	s, ok := c.sources.all()[names{cut(d.Limiter), cut(d.Tier)}]
	if !ok {
		s = c.newSource(names{cut(d.Limiter), cut(d.Tier)})
	}
	if known := s.limits.Load(); known == nil || !same(*known, d.Limits) {
		limits := d.Limits
		s.limits.Store(&limits)
	}
	return s
}

// same reports whether two lists are the same. A limiter gives the same list for the same limits,
// nearly always.
func same(a, b []ginlimit.Limit) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || slices.Equal(a, b))
}

func (c *Console) newSource(n names) *source {
	if len(c.sources.all()) >= maxSources || n.limiter == other { // in a flood of tiers, this is all
		return c.other
	}
	n = names{strings.Clone(n.limiter), strings.Clone(n.tier)}
	l, ok := c.limiters.add(n.limiter, maxLimiter, func() *limiter { return c.newLimiter(n.limiter) })
	if !ok {
		return c.other
	}
	s, ok := c.sources.add(n, maxSources, func() *source { return &source{names: n, limiter: l} })
	if !ok {
		return c.other
	}
	return s
}

func (c *Console) newLimiter(name string) *limiter {
	return &limiter{name: name, mix: maphash.String(c.seed, "\x00"+name)}
}

func cut(s string) string { return s[:min(len(s), maxName)] }

// table is a map that is read without a lock, because it is copied when it grows: seldom, and only
// to a bound.
type table[K comparable, V any] struct {
	mu sync.Mutex
	m  atomic.Pointer[map[K]V]
}

func (t *table[K, V]) all() map[K]V {
	if m := t.m.Load(); m != nil {
		return *m
	}
	return nil
}

// add returns the value of k, made if there is none, or false if there would be more than limit.
func (t *table[K, V]) add(k K, limit int, build func() V) (v V, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.all()
	if v, ok = m[k]; ok || len(m) >= limit {
		return v, ok
	}
	grown := map[K]V{k: build()}
	maps.Copy(grown, m)
	t.m.Store(&grown)
	return grown[k], true
}
