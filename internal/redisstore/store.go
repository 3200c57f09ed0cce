// Package redisstore is what the backends on Redis have in common, whatever client they use: plans,
// scripts, replies, keys, what stands before each server, refusals that are remembered, and tiers.
// State lives in Redis, Valkey, a Redis Cluster or a set-up with Sentinel. One decision is one
// round trip, one EVALSHA of a script that charges all limits of a key or none, by the server's
// clock.
package redisstore

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/algorithm"
	"github.com/ginlimit/ginlimit/internal/gate"
	"github.com/ginlimit/ginlimit/internal/plans"
)

// Backend is a [backend.Backend] on Redis. Every error of its methods that comes from Redis has
// [backend.ErrUnavailable] in its chain, and no error holds a password or a key. It retries nothing
// that could be charged twice. The contexts of its methods are not asked: each call is made in the
// time of Config.Timeout.
type Backend struct {
	Config
	link    *link
	scripts scripts
	plans   plans.Cache[plan]
	newPlan func([]backend.Limit) (*plan, error)
	denials *denials // nil if refusals are not remembered
	checks  checks

	// ahead is how many µs the server's clock is ahead of this process's, as far as a calendar
	// asked for it.
	ahead atomic.Int64

	// For tests: clock, if set, stands for the server's, and local for this process's.
	clock, local func() (micros int64)
}

var _ interface {
	backend.Backend
	backend.Renewer
	backend.Banner
} = (*Backend)(nil)

// New returns a Backend without a client.
func New(c Config) *Backend {
	b := &Backend{Config: c, link: newLink(c)}
	b.scripts.own = make(map[string]bool)
	b.newPlan = b.scripts.newPlan
	if b.DenyCache {
		b.denials = newDenials()
	}
	return b
}

// Use gives b a client of the caller's, which it never closes. It looks at once at what b needs of
// the servers, for up to the time of Config.Timeout.
func (b *Backend) Use(client Client) {
	b.link.set(client)
	b.Check(context.Background(), client)
}

// Dials gives b a way to make a client, which is not taken before Wait or a call, and the addresses
// that it begins with.
func (b *Backend) Dials(dial func() (Client, error), addrs []string) {
	b.link.dial, b.link.addrs = dial, addrs
}

// Seconded tells b that a second backend decides where b cannot.
func (b *Backend) Seconded() { b.link.instead.Second() }

// Wait waits for the client until ctx ends; ours says that this is all the time that a call has.
func (b *Backend) Wait(ctx context.Context, ours bool) (Client, error) {
	return b.link.wait(ctx, ours)
}

// Gate returns what stands before the server with an address; nil if it is not known by that.
func (b *Backend) Gate(addr string) *gate.Gate {
	if s := b.link.servers.Load().at(addr); s != nil {
		return s.gate
	}
	return nil
}

// Unavailable returns the error of an operation that failed; nil if it did not.
func (b *Backend) Unavailable(op string, cause error) error { return b.unavailable(op, cause) }

// Close closes the client that Dials made; calls fail from then on. It does nothing to one that was
// given to Use. It always returns nil.
func (b *Backend) Close() error {
	b.link.close()
	return nil
}

// Take implements [backend.Backend]. It is one EVALSHA, or none if a refusal is remembered. A
// deadline or a cancellation of the caller's does not count.
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
	refusals := int64(0)
	if p.ban != "" && cost > 0 {
		refusals = b.denials.uncounted(key)
	}
	decided, err := b.take(&t, p, key, cost, refusals, &res)
	if err != nil {
		return backend.Result{}, err
	}
	if !b.checks.done.Load() {
		b.checkLater(t.client, name)
	}
	res.Limit = limits[decided]
	return res, nil
}

// take has the server decide, which does not know of some refusals, and remembers its own. It
// returns the index of the limit that decided.
func (b *Backend) take(t *trip, p *plan, key string, cost, refusals int64, res *backend.Result) (decided int, err error) {
	sent := time.Now()
	reply, err := b.eval(t, func(at int64) call { return p.call(cost, refusals, b.now(), at) })
	if err != nil {
		return 0, err
	}
	a := answer{slots: make([]algorithm.Slot, 0, inline)}
	if err = a.read(reply, p); err != nil {
		return 0, b.unavailable(opTake, err)
	}
	if a.charged {
		t.worked()
		b.denials.forget(key)
		return algorithm.Admitted(a.slots, p.rules, a.now, res), nil
	}
	if decided = a.judge(p, cost, res); cost > 0 && res.Allowed {
		return 0, b.unavailable(opTake, fmt.Errorf("the script refused what it has room for: %+v", a.slots))
	}
	b.learn(&a, t.key, p, key, cost, res, sent)
	return decided, nil
}

// eval runs the script that do returns for an instant that the server's clock is at about. If the
// server says that a calendar is in another window then, it asks once more.
func (b *Backend) eval(t *trip, do func(at int64) call) (reply string, err error) {
	at := b.serverTime()
	for range 3 {
		if reply, err = t.eval(do(at)); err != nil || !strings.HasPrefix(reply, "=") {
			return reply, err
		}
		now, rest, ok := instant(reply[1:])
		if !ok || rest != "" {
			return "", b.unavailable(t.op, badReply(reply))
		}
		at = now
		b.ahead.Store(now - b.localTime())
	}
	return "", b.unavailable(t.op, errors.New("the clocks of the servers do not agree on the window of a calendar"))
}

// serverTime returns about what the server's clock says, in µs since 1970.
func (b *Backend) serverTime() int64 {
	if b.clock != nil {
		return b.clock()
	}
	return b.localTime() + b.ahead.Load()
}

func (b *Backend) localTime() int64 {
	if b.local != nil {
		return b.local()
	}
	return time.Now().UnixMicro()
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
	held := int64(0)
	if p.holds {
		held = algorithm.Held(taken, cost, limits)
	}
	if !taken.Allowed || cost == actual && held == 0 || !p.keeps {
		return nil
	}
	_, err = b.change(opSettle, key, func(at int64) call { return p.settle(taken.At.UnixMicro(), cost, actual, held, b.now(), at) })
	return err
}

// change runs a script that changes what is known of a key.
func (b *Backend) change(op, key string, do func(at int64) call) (reply string, err error) {
	t, err := b.link.to(op, b.stateKey(key))
	if err == nil {
		reply, err = b.eval(&t, do)
	}
	if err != nil {
		return "", err
	}
	t.worked()
	b.denials.forget(key)
	return reply, nil
}

// Renew implements [backend.Renewer]. It is one EVALSHA, or none if nothing is held.
func (b *Backend) Renew(_ context.Context, key string, taken backend.Result, cost int64, limits ...backend.Limit) (backend.Result, error) {
	if err := algorithm.CheckTake(cost, limits); err != nil {
		return taken, err
	}
	p, err := b.plans.Of(limits, (*plan).is, b.newPlan)
	if err != nil {
		return taken, err
	}
	held := algorithm.Held(taken, cost, limits)
	if !taken.Allowed || held == 0 || !p.holds {
		return taken, nil
	}
	reply, err := b.change(opRenew, key, func(at int64) call { return p.renew(taken.At.UnixMicro(), held, b.now(), at) })
	if err != nil {
		return taken, err
	}
	now, rest, ok := instant(reply)
	if !ok || rest != "" {
		return taken, b.unavailable(opRenew, badReply(reply))
	}
	taken.At = time.UnixMicro(now)
	return taken, nil
}

// Ban implements [backend.Banner]. It is one EVALSHA.
func (b *Backend) Ban(_ context.Context, key string, d time.Duration) error {
	if err := algorithm.CheckBan(d); err != nil {
		return err
	}
	_, err := b.change(opBan, key, func(int64) call {
		return call{banScript(), []string{strconv.FormatInt(d.Microseconds(), 10) + b.now()}}
	})
	return err
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
	reply, err := b.eval(&t, func(at int64) call { return p.call(0, 0, b.now(), at) })
	if err != nil {
		return nil, err
	}
	a := answer{slots: make([]algorithm.Slot, 0, inline)}
	if err = a.read(reply, p); err != nil {
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
		err = t.through(func() (bool, error) { return false, t.client.Del(t.ctx, t.key) })
	}
	if err != nil {
		return err
	}
	t.worked()
	b.denials.uncounted(key) // what was refused here is forgiven too
	b.denials.forget(key)
	return nil
}
