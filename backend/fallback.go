package backend

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
	"unique"
)

// FallbackOption changes a default of [Fallback].
type FallbackOption func(*fallbackConfig)

type fallbackConfig struct{ instances int64 }

// WithShare divides the limits of the secondary by the number of instances of the application that
// fall back at the same time, each on a secondary of its own, so that together they admit about
// what the limits say. The default is 1, the limits as they are; with less than 1 Fallback panics.
// A share is rounded down, but never below one unit: more instances than a limit has units admit
// one each. A TokenBucket's rate is divided exactly if its Period times the instances is at most
// [MaxPeriod]; otherwise, and under the other algorithms, Count is divided.
func WithShare(instances int) FallbackOption {
	return func(c *fallbackConfig) { c.instances = int64(instances) }
}

// Fallback returns a Backend that asks secondary where primary fails with [ErrUnavailable]: memory
// where Redis is down. Each call asks primary first, which therefore decides again as soon as it
// can; it should fail fast when it is down, as the Redis backend does. What secondary decided has
// [SourceFallback] as its Source, and its charges are settled there. A cost above a share of what
// its limit has room for takes the whole share.
//
// What was used in the one is not known to the other: a caller that is over the limit in primary
// has a share to use when it fails, and what is used of that does not count once primary is back.
// Reset and Ban ask both, and fail if either does. Refusals that bring a ban about are counted by
// the backend that refuses, by the whole limit.
//
// It panics if either, or an option, is nil, and if an option has a value that it cannot have.
func Fallback(primary, secondary Backend, opts ...FallbackOption) Backend {
	if primary == nil || secondary == nil {
		panic(errors.New("ginlimit: Fallback needs two backends; one is nil"))
	}
	c := fallbackConfig{instances: 1}
	for _, opt := range opts {
		if opt == nil {
			panic(errors.New("ginlimit: Fallback: an option is nil; leave it out"))
		}
		opt(&c)
	}
	if c.instances < 1 {
		panic(fmt.Errorf("ginlimit: WithShare(%d): use the number of instances, at least 1", c.instances))
	}
	seconded(primary)
	return &fallback{primary, secondary, c.instances}
}

type fallback struct {
	primary, secondary Backend
	instances          int64
}

func (f *fallback) Take(ctx context.Context, key string, cost int64, limits ...Limit) (Result, error) {
	res, err := f.primary.Take(ctx, key, cost, limits...)
	if err == nil || !errors.Is(err, ErrUnavailable) {
		return res, err
	}
	shares, cost := f.share(limits, cost)
	res, failed := f.secondary.Take(context.WithoutCancel(ctx), key, cost, shares...)
	if failed != nil {
		return Result{}, errors.Join(err, failed)
	}
	return ofSecondary(res, shares, limits), nil
}

// ofSecondary returns a Result of the secondary as one of the limits whose shares it decided by.
func ofSecondary(res Result, shares, limits []Limit) Result {
	if i := slices.Index(shares, res.Limit); i >= 0 {
		res.Limit = limits[i]
	}
	res.Source = SourceFallback
	return res
}

func (f *fallback) TakeAll(ctx context.Context, charges ...Charge) ([]Result, error) {
	all, err := f.primary.TakeAll(ctx, charges...)
	if err == nil || !errors.Is(err, ErrUnavailable) {
		return all, err
	}
	shares := make([]Charge, len(charges))
	for i, c := range charges {
		shares[i].Key = c.Key
		shares[i].Limits, shares[i].Cost = f.share(c.Limits, c.Cost)
	}
	all, failed := f.secondary.TakeAll(context.WithoutCancel(ctx), shares...)
	if failed != nil {
		return nil, errors.Join(err, failed)
	}
	for i := range all {
		all[i] = ofSecondary(all[i], shares[i].Limits, charges[i].Limits)
	}
	return all, nil
}

func (f *fallback) Settle(ctx context.Context, key string, taken Result, cost, actual int64, limits ...Limit) error {
	if taken.Source != SourceFallback {
		return f.primary.Settle(ctx, key, taken, cost, actual, limits...)
	}
	_, actual = f.share(limits, actual)
	shares, cost := f.share(limits, cost)
	return f.secondary.Settle(context.WithoutCancel(ctx), key, taken, cost, actual, shares...)
}

func (f *fallback) Usage(ctx context.Context, key string, limits ...Limit) ([]Result, error) {
	all, err := f.primary.Usage(ctx, key, limits...)
	if err == nil || !errors.Is(err, ErrUnavailable) {
		return all, err
	}
	shares, _ := f.share(limits, 0)
	all, failed := f.secondary.Usage(context.WithoutCancel(ctx), key, shares...)
	if failed != nil {
		return nil, errors.Join(err, failed)
	}
	for i := range all {
		all[i].Limit, all[i].Source = limits[i], SourceFallback
	}
	return all, nil
}

// Renew asks the backend that charged.
func (f *fallback) Renew(ctx context.Context, key string, taken Result, cost int64, limits ...Limit) (Result, error) {
	if taken.Source != SourceFallback {
		return renew(ctx, f.primary, key, taken, cost, limits)
	}
	shares, cost := f.share(limits, cost)
	res, err := renew(context.WithoutCancel(ctx), f.secondary, key, taken, cost, shares)
	res.Source = SourceFallback
	return res, err
}

// Ban asks both, and fails if either does.
func (f *fallback) Ban(ctx context.Context, key string, d time.Duration) error {
	return errors.Join(banBy(ctx, f.primary, key, d), banBy(context.WithoutCancel(ctx), f.secondary, key, d))
}

// renew is Renew of a backend that may be none.
func renew(ctx context.Context, b Backend, key string, taken Result, cost int64, limits []Limit) (Result, error) {
	if b, ok := b.(Renewer); ok {
		return b.Renew(ctx, key, taken, cost, limits...)
	}
	return taken, nil
}

// banBy is Ban of a backend that may be no Banner.
func banBy(ctx context.Context, b Backend, key string, d time.Duration) error {
	if b, ok := b.(Banner); ok {
		return b.Ban(ctx, key, d)
	}
	return fmt.Errorf("ginlimit: a %T cannot ban; it has to implement backend.Banner", b)
}

func (f *fallback) Reset(ctx context.Context, key string) error {
	return errors.Join(f.primary.Reset(ctx, key), f.secondary.Reset(context.WithoutCancel(ctx), key))
}

// Prepare tells both, as a limiter would if it had them itself.
func (f *fallback) Prepare(limits ...Limit) {
	prepare(f.primary, limits)
	shares, _ := f.share(limits, 0)
	prepare(f.secondary, shares)
}

// Seconded tells the secondary that it is no longer the last one.
func (f *fallback) Seconded() { seconded(f.secondary) }

// seconded tells a backend that wants to know it that a second backend decides where it cannot.
func seconded(b Backend) {
	if b, ok := b.(interface{ Seconded() }); ok {
		b.Seconded()
	}
}

// prepare tells a backend that wants to know it that decisions under these limits will be common.
func prepare(b Backend, limits []Limit) {
	if b, ok := b.(interface{ Prepare(limits ...Limit) }); ok {
		b.Prepare(limits...)
	}
}

// share returns the limits of the secondary, and what it charges for cost.
func (f *fallback) share(limits []Limit, cost int64) ([]Limit, int64) {
	if f.instances == 1 {
		return limits, cost
	}
	shares := make([]Limit, len(limits))
	fits, most := true, cost
	for i, l := range limits {
		if shares[i] = f.shareOf(l); l.ban != (unique.Handle[ban]{}) {
			continue
		}
		fits = fits && cost <= l.Capacity()
		most = min(most, max(1, shares[i].Capacity()))
	}
	if fits {
		cost = most
	}
	return shares, cost
}

func (f *fallback) shareOf(l Limit) Limit {
	if l.IsUnlimited() || l.Count <= 0 || l.ban != (unique.Handle[ban]{}) {
		return l
	}
	if slower := l.Period * time.Duration(f.instances); l.Algorithm == TokenBucket && slower <= MaxPeriod && slower/time.Duration(f.instances) == l.Period {
		share := l
		share.Period, share.Burst = slower, max(1, l.Capacity()/f.instances)
		return share
	}
	l.Count = max(1, l.Count/f.instances)
	if l.Burst > 0 {
		l.Burst = max(1, l.Burst/f.instances)
	}
	if l.Validate() != nil {
		l.Burst = 0 // it would take longer to fill than a limit may
	}
	return l
}
