package ginlimitprom

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/backend"
)

const (
	other    = "other" // the label of what is too many to be told apart
	maxLabel = 128     // bytes of a label's value
	maxKinds = 50      // of errors
)

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

// labels are a decision's names, cut but not cleaned.
type labels struct{ limiter, tier, limit string }

// set is the metrics of one combination of labels.
type set struct {
	limiter  *limiter
	labels   labels // clean
	outcomes [len(outcomes)]atomic.Pointer[prometheus.Counter]
	near     atomic.Pointer[prometheus.Counter]
}

// limiter is the metrics of one limiter.
type limiter struct {
	name    string // clean
	others  *set   // of the combinations that are too many
	answers [numSources]atomic.Pointer[prometheus.Counter]
	denied  atomic.Pointer[keys]
}

// set returns the metrics for a decision.
func (c *Collector) set(d *ginlimit.Decision) *set {
	k := labels{cut(d.Limiter), cut(d.Tier), cut(d.Limit.Name)}
	if s, ok := c.sets.all()[k]; ok {
		return s
	}
	return c.newSet(k, d.Err == nil, d.DryRun)
}

func (c *Collector) newSet(k labels, decided, dryRun bool) *set {
	if len(c.sets.all()) >= c.maxSets { // in a flood, this is all
		if l, ok := c.limiters.all()[k.limiter]; ok {
			return l.others
		}
		if len(c.limiters.all()) >= c.maxSets {
			return c.other.others
		}
	}
	k = labels{strings.Clone(k.limiter), strings.Clone(k.tier), strings.Clone(k.limit)} // not all that they are part of
	l, ok := c.other, true
	if k.limiter != other { // else it has the name of all that are too many, and is counted with them
		l, ok = c.limiters.add(k.limiter, c.maxSets, func() *limiter { return newLimiter(clean(k.limiter)) })
	}
	if !ok {
		return c.other.others
	}
	s, ok := c.sets.add(k, c.maxSets, func() *set {
		s := &set{limiter: l, labels: labels{l.name, clean(k.tier), clean(k.limit)}}
		if decided { // start them at 0, so that the first refusal is an increase
			c.counterOf(s, outcomeAllowed)
			c.nearOf(s)
			if dryRun {
				c.counterOf(s, outcomeDryDenied)
			} else {
				c.counterOf(s, outcomeDenied)
				c.bans.WithLabelValues(l.name)
			}
		}
		return s
	})
	if !ok {
		return l.others
	}
	return s
}

func newLimiter(name string) *limiter {
	l := &limiter{name: name}
	l.others = &set{limiter: l, labels: labels{name, other, other}}
	return l
}

func (c *Collector) counterOf(s *set, outcome string) prometheus.Counter {
	at := slices.Index(outcomes[:], outcome)
	if at >= 0 {
		if p := s.outcomes[at].Load(); p != nil {
			return *p
		}
	}
	p := c.decisions.WithLabelValues(s.labels.limiter, s.labels.tier, s.labels.limit, outcome)
	if at >= 0 {
		s.outcomes[at].Store(&p)
	}
	return p
}

func (c *Collector) nearOf(s *set) prometheus.Counter {
	if p := s.near.Load(); p != nil {
		return *p
	}
	p := c.near.WithLabelValues(s.labels.limiter, s.labels.tier, s.labels.limit)
	s.near.Store(&p)
	return p
}

func (l *limiter) answer(c *Collector, s backend.Source) prometheus.Counter {
	if p := l.answers[s].Load(); p != nil {
		return *p
	}
	p := c.answers.WithLabelValues(l.name, sourceName(s))
	l.answers[s].Store(&p)
	return p
}

// deny remembers that key was denied, or would have been.
func (l *limiter) deny(key string) {
	k := l.denied.Load()
	if k == nil {
		l.denied.CompareAndSwap(nil, newKeys())
		k = l.denied.Load()
	}
	k.add(key, time.Now())
}

// kind returns why no decision was reached. A backend of somebody else's can say what it likes; so
// there is a bound.
func (c *Collector) kind(d *ginlimit.Decision) string {
	if d.Key == "" {
		return "key" // the backend was not asked
	}
	kind := cut(backend.ErrorKind(d.Err))
	if known, ok := c.kinds.all()[kind]; ok {
		return known
	}
	if len(c.kinds.all()) >= maxKinds {
		return other
	}
	kind = strings.Clone(kind)
	if known, ok := c.kinds.add(kind, maxKinds, func() string { return clean(kind) }); ok {
		return known
	}
	return other
}

// cut returns the part of s that a label holds. It costs nothing.
func cut(s string) string { return s[:min(len(s), maxLabel)] }

// clean returns what is left of s as UTF-8, which is all that a label can hold.
func clean(s string) string { return strings.ToValidUTF8(s, "�") }
