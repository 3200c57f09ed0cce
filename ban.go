package ginlimit

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/ginlimit/ginlimit/backend"
)

// WithBan bans callers that do not stop: a key that is refused more often than after allows gets
// 429 for first, whatever it asks for, and nothing is charged. Each time that this happens again
// within longest of the end of its last ban, the ban is twice as long, up to longest.
//
//	ginlimit.WithBan(ginlimit.PerHour(100), time.Minute, 24*time.Hour)
//
// after is any limit of refusals in a time. A request that [WithMaxWait] or [Limiter.Wait] holds
// asks more than once, and each refusal counts, also if the request goes on at last. A ban that
// ends before the limit that was spent has room again changes nothing for the caller: choose a
// first that is longer than the limit's wait. A ban stands under the same key as the limits,
// wherever the limiter's backend has it, and so holds for all instances, for all tiers, and after a
// restart. [Limiter.Reset] lifts it everywhere, and [Limiter.Ban] bans by hand. A dry run bans
// nobody. The durations are 1 ms to 366 days. The default is no bans.
//
// A ban by address bans everybody behind that address, such as an office, a school or a mobile
// network. Ban by user or API key where there is one, and exempt the addresses of partners by
// WithSkip and [FromNetworks].
func WithBan(after Limit, first, longest time.Duration) Option {
	return func(o *options) {
		ban := after.Banning(first, longest)
		if o.ban = &ban; ban.Name == "" {
			o.ban.Name = "ban"
		}
		if err := ban.Validate(); err != nil {
			o.errs = append(o.errs, err)
		}
	}
}

// Ban bans a key by hand for d from now on, in place of a ban that is there. A banned key is
// refused whatever it asks for. Reset lifts the ban. The key is what the KeyFunc returns, such as
// "ip:203.0.113.7"; Decision.Key has it. The limiter need not have [WithBan]. The duration is 1 ms
// to 366 days in whole microseconds. A caller whose limits are all [Unlimited] is banned only if
// the limiter has WithBan, because nothing is asked about it otherwise.
//
// It returns [ErrNoKey] if key is empty, and what the backend returns if it failed, cannot ban, or
// has no room.
func (l *Limiter) Ban(ctx context.Context, key string, d time.Duration) error {
	if key == "" {
		return ErrNoKey
	}
	b, ok := l.backend.(backend.Banner)
	if !ok {
		return fmt.Errorf("ginlimit: the backend %T cannot ban; it has to implement backend.Banner", l.backend)
	}
	return b.Ban(ctx, l.backendKey(key), d)
}

// charged returns the limits that the backend is asked with: those of d and, unless it is a dry
// run, that of a ban.
func (l *Limiter) charged(d *Decision) []Limit {
	if l.ban == nil || l.dryRun {
		return d.Limits
	}
	return l.policyOf(d.Limits).charged
}

// banLog says in the log how many bans there were, at most once a minute.
type banLog struct {
	mu    sync.Mutex
	n     int64
	since time.Time // the last line
}

const banLogEvery = time.Minute

// noteBan counts a ban that just began.
func (l *Limiter) noteBan() {
	b := &l.bans
	b.mu.Lock()
	defer b.mu.Unlock()
	b.n++
	if now := time.Now(); now.Sub(b.since) >= banLogEvery {
		l.logger.Warn("ginlimit: callers were banned, because they were refused more often than WithBan allows",
			"limiter", l.name, "bans", b.n)
		b.n, b.since = 0, now
	}
}
