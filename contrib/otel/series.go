package ginlimitotel

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/backend"
)

// names are what is not from a list of ours.
type names struct{ limiter, tier, limit, err string }

// labels are what the metrics tell decisions apart by.
type labels struct {
	names
	outcome string
	decided bool
	source  backend.Source
}

func labelsOf(d *ginlimit.Decision) labels {
	l := labels{
		names:   names{limiter: d.Limiter, tier: d.Tier, limit: d.Limit.Name},
		outcome: d.Outcome(), decided: d.Err == nil, source: d.Source,
	}
	if l.outcome == outcomePassed || l.outcome == outcomeRefused {
		if l.err = keyError; d.Key != "" {
			l.err = errorType(d.Err)
		}
	}
	return l
}

func (l *labels) attributes() []attribute.KeyValue {
	attrs := append(make([]attribute.KeyValue, 0, 6),
		attrLimiter.String(l.limiter), attrOutcome.String(l.outcome))
	if l.tier != "" {
		attrs = append(attrs, attrTier.String(valid(l.tier)))
	}
	if l.limit != "" {
		attrs = append(attrs, attrLimit.String(l.limit))
	}
	if l.decided {
		attrs = append(attrs, attrSource.String(l.source.String()))
	}
	return append(attrs, l.error()...)
}

func (l *labels) error() []attribute.KeyValue {
	if l.err == "" {
		return nil
	}
	return []attribute.KeyValue{attrError.String(valid(l.err))}
}

// series are the attributes of the instruments, made once: what is left for a decision is to count.
type series struct {
	decision, tierLookup, ban []metric.AddOption
	duration, wait            []metric.RecordOption
}

func newSeries(l labels) *series {
	limiter := attrLimiter.String(l.limiter)
	limiterAndError := append([]attribute.KeyValue{limiter}, l.error()...)
	duration := limiterAndError
	if l.decided {
		duration = append(duration, attrSource.String(l.source.String()))
	}
	return &series{
		decision:   []metric.AddOption{set(l.attributes())},
		tierLookup: []metric.AddOption{set(limiterAndError)},
		ban:        []metric.AddOption{set([]attribute.KeyValue{limiter})},
		duration:   []metric.RecordOption{set(duration)},
		wait:       []metric.RecordOption{set([]attribute.KeyValue{limiter})},
	}
}

func set(attrs []attribute.KeyValue) metric.MeasurementOption {
	return metric.WithAttributeSet(attribute.NewSet(slices.Clone(attrs)...)) // which sorts in place
}

// seriesCache holds the series that came up. Every decision reads it, without a lock; it is written
// seldom, as a whole. A sync.Map would allocate for each look at a key of this size.
type seriesCache struct {
	most int
	now  atomic.Pointer[snapshot]
	mu   sync.Mutex // for who writes
}

type snapshot struct {
	known  map[names]bool
	kinds  map[string]bool // of errors
	series map[labels]*series
}

// maxKinds is how many kinds of errors are told apart. They have a bound of their own, so that many
// tiers do not hide why a store fails.
const maxKinds = 50

func (c *seriesCache) of(l labels) *series {
	if now := c.now.Load(); now != nil {
		if s := now.series[l]; s != nil {
			return s
		}
		l.names = now.bound(l.names, c.most)
		if s := now.series[l]; s != nil {
			return s
		}
	}
	return c.add(l)
}

// add returns the series of labels that were not seen before.
func (c *seriesCache) add(l labels) *series {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := &snapshot{known: make(map[names]bool), kinds: make(map[string]bool), series: make(map[labels]*series)}
	if now := c.now.Load(); now != nil {
		l.names = now.bound(l.names, c.most)
		if s := now.series[l]; s != nil {
			return s // somebody was faster
		}
		maps.Copy(next.known, now.known)
		maps.Copy(next.kinds, now.kinds)
		maps.Copy(next.series, now.series)
	}
	s := newSeries(l)
	next.known[l.names], next.kinds[l.err], next.series[l] = true, true, s
	c.now.Store(next)
	return s
}

// bound returns n if it is among the first names to come up. Of those that come later only the
// limiter is told, and not even that once there are twice as many.
func (s *snapshot) bound(n names, most int) names {
	if s.known[n] {
		return n
	}
	if !s.kinds[n.err] && len(s.kinds) >= maxKinds {
		n.err = hide(n.err)
	}
	if len(s.known) < most {
		return n
	}
	n.tier, n.limit = hide(n.tier), hide(n.limit)
	if !s.known[n] && len(s.known) >= 2*most {
		n.limiter = other
	}
	return n
}

// hide returns what stands for a name. One that is not there stays so.
func hide(name string) string {
	if name == "" {
		return ""
	}
	return other
}
