// Package redis is the backend that many processes share: state lives in Redis, Valkey, a Redis
// Cluster or a set-up with Sentinel, and is reached through rueidis. One decision is one round
// trip, one EVALSHA of a script that charges all limits of a key or none, by the server's clock.
// Refusals are remembered in the process until their wait is over; client-side caching drops them
// within milliseconds if the key changes anywhere.
//
// [Dial] is the one obvious way to get a [Backend]; [New] uses a client that the application has
// already.
package redis

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/algorithm"
	"github.com/ginlimit/ginlimit/internal/plans"
)

// Backend is a [backend.Backend] on Redis. Every error of its methods that comes from Redis has
// [backend.ErrUnavailable] in its chain, and no error holds a password or a key. It retries nothing
// that could be charged twice. The contexts of its methods are not asked: each call is made in the
// time of [WithTimeout].
type Backend struct {
	config
	link    *link
	scripts scripts
	plans   plans.Cache[plan]
	newPlan func([]backend.Limit) (*plan, error)
	denials *denials // nil if refusals are not remembered
	checks  checks

	// clock, if set, stands for the server's: for the tests of this package.
	clock func() (micros int64)
}

var _ backend.Backend = (*Backend)(nil)

// New returns a Backend that uses client and never closes it. It panics if an option is not valid,
// or is one of those that only Dial can honour. It asks the server for its settings, for at most
// the time of [WithTimeout], to say in the log if they do not suit a limiter. The documentation of
// [Dial] lists the rights that client's user needs.
//
// Whether a server answers is measured where calls end, because New does not see client's
// connections: by the time in which this process lets its goroutines run, none of them is answered.
// Dial's connections tell more, and sooner.
//
// Make one Backend for each client, and take its Tiers from it: the number of calls under way is
// bounded for each Backend, and what several of them ask of one client may together be more than it
// takes. Then callers wait for seconds if the server hangs, whatever [WithTimeout] says.
//
// A client that is made for this should have AlwaysPipelining set and short time-outs: Dial's
// documentation says which. Without AlwaysPipelining a call may end by the clock, also while this
// process is busy.
func New(client rueidis.Client, opts ...Option) *Backend {
	b, err := newBackend(opts)
	if err == nil {
		err = b.checkClient("redis.New", client)
	}
	if err != nil {
		panic(err)
	}
	b.link.set(client)
	b.check(context.Background(), client)
	return b
}

// checkClient returns what is wrong with a client of the caller's, or with the options for it.
func (c *config) checkClient(caller string, client rueidis.Client) error {
	switch {
	case c.dialOnly != "":
		return fmt.Errorf("ginlimit: %s: %s is for redis.Dial; set up the client that you pass instead", caller, c.dialOnly)
	case client == nil:
		return fmt.Errorf("ginlimit: %s: the client is nil; use redis.Dial to connect to a URL", caller)
	}
	return nil
}

func newBackend(opts []Option) (*Backend, error) {
	b := &Backend{config: defaults()}
	if err := b.apply(opts); err != nil {
		return nil, err
	}
	b.link = newLink(b.config)
	b.scripts.own = make(map[string]bool)
	b.newPlan = b.scripts.newPlan
	if b.denyCache {
		b.denials = newDenials()
	}
	return b, nil
}

// Close closes the connections of a Backend made by Dial; calls fail from then on. It does nothing
// to the client that was given to New. It always returns nil.
func (b *Backend) Close() error {
	b.link.close()
	return nil
}

// Take implements [backend.Backend]. It is one EVALSHA, or none if a refusal is remembered. A
// deadline or a cancellation of the caller's does not count: the decision is made in the time of
// [WithTimeout].
func (b *Backend) Take(_ context.Context, key string, cost int64, limits ...backend.Limit) (backend.Result, error) {
	if err := algorithm.CheckTake(cost, limits); err != nil {
		return backend.Result{}, err
	}
	p, err := b.plans.Of(limits, (*plan).is, b.newPlan)
	if err != nil {
		return backend.Result{}, err
	}
	den := b.denials.of(key, p, cost)
	name := ""
	if den != nil {
		name = den.name
	} else {
		name = b.stateKey(key)
	}
	t, err := b.link.to(opTake, name)
	if err != nil {
		return backend.Result{}, err
	}
	if den != nil {
		res, decided, refused, err := b.denials.confirm(&t, key, den, cost)
		if err != nil {
			return backend.Result{}, err
		} else if refused {
			res.Limit = limits[decided]
			return res, nil
		}
	}
	var res backend.Result
	decided, err := b.take(&t, p, key, cost, &res)
	if err != nil {
		return backend.Result{}, err
	}
	if !b.checks.done.Load() {
		b.checkLater(t.client, name)
	}
	res.Limit = limits[decided]
	return res, nil
}

// take has the server decide, and remembers its refusal. It returns the index of the limit that
// decided.
func (b *Backend) take(t *trip, p *plan, key string, cost int64, res *backend.Result) (decided int, err error) {
	sent := time.Now()
	said, err := t.eval(p.call(cost, b.now()))
	if err != nil {
		return 0, err
	}
	a := answer{slots: make([]algorithm.Slot, 0, inline)}
	if err = a.read(said, p); err != nil {
		return 0, b.unavailable(opTake, err)
	}
	if a.charged {
		t.worked()
		b.denials.forget(key)
		return algorithm.Admitted(a.slots, p.rules, a.now, res), nil
	}
	if decided = algorithm.Judge(a.slots, p.rules, a.now, cost, res); cost > 0 && res.Allowed {
		return 0, b.unavailable(opTake, fmt.Errorf("the script refused what it has room for: %+v", a.slots))
	}
	b.learn(&a, t.key, p, key, cost, res, sent)
	return decided, nil
}

// learn remembers a refusal of what was sent at an instant, under name as Redis has the key.
func (b *Backend) learn(a *answer, name string, p *plan, key string, cost int64, res *backend.Result, sent time.Time) {
	if b.denials != nil && !res.Allowed && b.clock == nil {
		b.denials.remember(key, &denial{
			plan: p, cost: max(cost, 1), wait: res.RetryAfter, name: name, written: strings.Clone(a.written),
			slots: a.slots, now: a.now, sent: sent, received: time.Now(),
		})
	}
}

// testExtra is how many ms longer a key is kept than its state lasts if its clock is not the
// server's.
const testExtra = 3_600_000

// now returns what comes after the first argument if a test sets the clock, else "".
func (b *Backend) now() string {
	if b.clock == nil {
		return ""
	}
	now := b.clock()
	return fmt.Sprintf(" %d %d %d", now/1_000_000, now%1_000_000, testExtra)
}

// Settle implements [backend.Backend]. It is one EVALSHA, or none if the cost was right.
func (b *Backend) Settle(_ context.Context, key string, taken backend.Result, cost, actual int64, limits ...backend.Limit) error {
	if err := algorithm.CheckSettle(cost, actual, limits); err != nil {
		return err
	}
	p, err := b.plans.Of(limits, (*plan).is, b.newPlan)
	if err != nil {
		return err
	}
	if !taken.Allowed || cost == actual || !p.keeps {
		return nil
	}
	t, err := b.link.to(opSettle, b.stateKey(key))
	if err == nil {
		_, err = t.eval(p.settle(taken.At.UnixMicro(), cost, actual, b.now()))
	}
	if err != nil {
		return err
	}
	t.worked()
	b.denials.forget(key)
	return nil
}

// Usage implements [backend.Backend]. It is one EVALSHA.
func (b *Backend) Usage(_ context.Context, key string, limits ...backend.Limit) ([]backend.Result, error) {
	if err := algorithm.CheckTake(0, limits); err != nil {
		return nil, err
	}
	p, err := b.plans.Of(limits, (*plan).is, b.newPlan)
	if err != nil {
		return nil, err
	}
	t, err := b.link.to(opUsage, b.stateKey(key))
	if err != nil {
		return nil, err
	}
	said, err := t.eval(p.call(0, b.now()))
	if err != nil {
		return nil, err
	}
	a := answer{slots: make([]algorithm.Slot, 0, inline)}
	if err = a.read(said, p); err != nil {
		return nil, b.unavailable(opUsage, err)
	}
	all := make([]backend.Result, len(limits))
	algorithm.Usage(a.slots, p.rules, a.now, all)
	for i := range all {
		all[i].Limit = limits[i]
	}
	return all, nil
}

// Reset implements [backend.Backend]. It deletes one key.
func (b *Backend) Reset(_ context.Context, key string) error {
	t, err := b.link.to(opReset, b.stateKey(key))
	if err == nil {
		err = t.do(func() rueidis.Completed { return t.client.B().Del().Key(t.key).Build() })
	}
	if err != nil {
		return err
	}
	t.worked()
	b.denials.forget(key)
	return nil
}
