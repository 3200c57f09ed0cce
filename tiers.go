package ginlimit

import (
	"errors"
	"hash/maphash"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gin-gonic/gin"
)

// tierOf asks for the tier of a request, and returns the policy of its limits.
func (l *Limiter) tierOf(c *gin.Context) (Tier, *policy, error) {
	tier, err := l.tier(c)
	if err != nil {
		return Tier{}, nil, err
	}
	if len(tier.Limits) == 0 {
		return tier, l.own, nil
	}
	p, err := l.policies.of(l.name, tier.Limits, l.ban)
	return tier, p, err
}

// lookUp puts the tier in, and reports whether the request is to be limited. If the look-up fails,
// the tier that the key had last stays, and otherwise the limiter's own limits: an outage of the
// database of tiers must not become one of the service.
func (l *Limiter) lookUp(c *gin.Context, r *record) bool {
	d := &r.Decision
	tier, p, err := l.tierOf(c)
	switch {
	case err == nil:
		d.Tier, r.policy = tier.Name, p
		l.tiers.remember(d.Key, tier.Name, p, p != l.own)
	case errors.Is(err, ErrSkip):
		d.Err = ErrSkip
		return false
	default:
		d.Tier, d.TierErr = tier.Name, err
		if last := l.tiers.last(d.Key); last != nil {
			d.Tier, r.policy = last.tier, last.policy
		}
	}
	d.Limits = r.policy.limits
	return true
}

// tierMemory remembers the tiers of recent keys, for when a look-up fails.
type tierMemory struct {
	table table[lastTier]
	seed  maphash.Seed // random: nobody outside can aim keys at the places of another
	made  time.Time
}

// lastTier is the tier that a key had last.
type lastTier struct {
	key    string
	tier   string
	policy *policy
	other  bool          // its limits are not the limiter's own
	at     time.Duration // since the memory was made
}

const (
	tierLife    = 10 * time.Minute
	tierRefresh = time.Minute // a tier that is younger, and the same, is not written anew
)

func newTierMemory() *tierMemory {
	return &tierMemory{seed: maphash.MakeSeed(), made: time.Now()}
}

// last returns the tier that a key had in the last ten minutes, or nil.
func (m *tierMemory) last(key string) *lastTier {
	now := time.Since(m.made)
	for i, places := 0, m.places(key); i < len(places); i++ {
		if t := places[i].Load(); t != nil && t.key == key && now-t.at < tierLife {
			return t
		}
	}
	return nil
}

// remember puts a key's tier in. Where all its places are taken, the oldest goes; but a tier whose
// limits are the limiter's own takes no place of another, so that a flood of unknown callers makes
// no other tier be forgotten.
func (m *tierMemory) remember(key, tier string, p *policy, other bool) {
	now := time.Since(m.made)
	places := m.places(key)
	var place *atomic.Pointer[lastTier]
	var worth time.Duration // of what the place holds
	for i := range places {
		t := places[i].Load()
		if t != nil && t.key == key {
			if t.tier != tier || t.policy != p || now-t.at >= tierRefresh {
				places[i].Store(&lastTier{t.key, tier, p, other, now})
			}
			return
		}
		w := t.worth(now)
		if place == nil || w < worth {
			place, worth = &places[i], w
		}
	}
	if other || worth <= tierLife {
		// A clone, because a key may be part of a longer string.
		place.Store(&lastTier{strings.Clone(key), tier, p, other, now})
	}
}

// worth returns how dear a tier is: an own one is dearer than each whose limits are the limiter's
// own, and a young one dearer than an old one. It is 0 if there is nothing to lose.
func (t *lastTier) worth(now time.Duration) time.Duration {
	if t == nil || now-t.at >= tierLife {
		return 0
	}
	w := tierLife - (now - t.at)
	if t.other {
		w += tierLife
	}
	return w
}

func (m *tierMemory) places(key string) []atomic.Pointer[lastTier] {
	return m.table.places(maphash.String(m.seed, key))
}
