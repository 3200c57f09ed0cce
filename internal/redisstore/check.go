package redisstore

import (
	"context"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ginlimit/ginlimit/backend"
)

// Diagnostics have stable codes, which docs/diagnostics.md lists. Each appears at most once for a
// Backend.
const (
	codeEviction  = "GINLIMIT005"
	codeNoCaching = "GINLIMIT006"
)

// Check looks once at what a limiter needs of the servers, and says what does not suit. What the
// servers do not answer is looked at again by checkLater.
func (b *Backend) Check(ctx context.Context, client Client) {
	if b.checks.begin() {
		b.checks.end(b.inspect(ctx, client, ""))
	}
}

// checkLater does the same beside a decision, which has no time to spare for it: name is the key of
// that, whose server answers.
func (b *Backend) checkLater(client Client, name string) {
	if b.checks.begin() {
		go func() { b.checks.end(b.inspect(context.Background(), client, name)) }()
	}
}

// inspect reports whether nothing has to be looked at again. A server that hangs is waited for
// last.
func (b *Backend) inspect(ctx context.Context, client Client, name string) bool {
	ctx, cancel := context.WithTimeout(ctx, b.Timeout)
	defer cancel()
	b.link.findShards(ctx, client)
	noted := b.checkEviction(ctx, client)
	return b.checkCaching(ctx, client, name) && noted && b.link.shards.done.Load()
}

// Probe has each server do with a key of ours what decisions and Reset have it do, and returns the
// first error.
func (b *Backend) Probe(ctx context.Context, client Client) error {
	p, err := b.newPlan([]backend.Limit{{Count: 1_000_000, Period: time.Second, Algorithm: backend.SlidingLog}})
	if err != nil {
		return err
	}
	b.link.findShards(ctx, client)
	servers, probed := b.link.servers.Load(), map[*server]bool{}
	for i := 0; len(probed) < len(servers.all) && i < hashSlots; i++ {
		name := b.key("ping:", strconv.Itoa(i))
		if s := servers.of(name); probed[s] {
			continue
		} else {
			probed[s] = true
		}
		c := p.call(1, 0, b.now(), b.serverTime())
		_, err := client.Eval(ctx, c.script.text, name, nil, c.args)
		if err == nil {
			_, err = client.EvalSha(ctx, c.script.sha, name, nil, c.args)
		}
		if err == nil {
			err = client.Del(ctx, name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// task is something that has to be done once. It is tried by one at a time, and not within a second
// of an attempt that failed.
type task struct {
	done  atomic.Bool
	mu    sync.Mutex // held while it is tried
	again time.Time  // guarded by mu
}

// begin reports whether the caller is to do it, and then to call end.
func (t *task) begin() bool {
	if !t.mu.TryLock() {
		return false
	}
	if t.done.Load() || time.Now().Before(t.again) {
		t.mu.Unlock()
		return false
	}
	return true
}

func (t *task) end(done bool) {
	t.done.Store(done)
	t.again = time.Now().Add(time.Second)
	t.mu.Unlock()
}

// checks is what a Backend has looked at. Its task guards the rest.
type checks struct {
	task
	warned  bool            // of an eviction policy
	asked   map[string]bool // the servers that said theirs
	caching bool            // it is known whether there is client-side caching
	silent  int             // how often the client was not told that a value changed
}

// said is what a server said.
type said[T any] struct {
	said T
	err  error
}

// askEach puts a question to each of several servers at once, and yields their answers as they
// come, for up to timeout. A caller that has heard enough ends no question: a connection that is
// made for one may be what others wait for.
func askEach[T any](ctx context.Context, timeout time.Duration, nodes map[string]Node, question func(context.Context, Node) (T, error)) iter.Seq2[string, said[T]] {
	type answer struct {
		addr string
		res  said[T]
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	answers := make(chan answer, len(nodes))
	var asked sync.WaitGroup
	for addr, node := range nodes {
		asked.Go(func() {
			text, err := question(ctx, node)
			answers <- answer{addr, said[T]{text, err}}
		})
	}
	go func() {
		asked.Wait()
		cancel()
	}()
	return func(yield func(string, said[T]) bool) {
		for range nodes {
			var a answer
			select {
			case a = <-answers:
			case <-ctx.Done():
				select {
				case a = <-answers: // the last ones, with which ctx ends too
				default:
					return
				}
			}
			if !yield(a.addr, a.res) {
				return
			}
		}
	}
}

// checkEviction warns of servers that drop keys when their memory is full: a dropped key is a fresh
// budget. All keys here have an end, so that the volatile policies drop them too. It reports false
// if a server has not said its policy.
func (b *Backend) checkEviction(ctx context.Context, client Client) bool {
	if b.checks.warned {
		return true
	}
	if b.checks.asked == nil {
		b.checks.asked = make(map[string]bool)
	}
	nodes := client.Nodes(ctx)
	maps.DeleteFunc(nodes, func(addr string, _ Node) bool { return b.checks.asked[addr] })
	missing := len(nodes)
	for addr, res := range askEach(ctx, b.Timeout, nodes, func(ctx context.Context, n Node) (string, error) { return n.Info(ctx, "memory") }) {
		info := res.said
		if b.noAnswer(res.err) {
			continue
		}
		missing--
		b.checks.asked[addr] = true
		policy, limit := infoField(info, "maxmemory_policy"), infoField(info, "maxmemory")
		if policy == "" || policy == "noeviction" || limit == "" || limit == "0" {
			continue // or the server does not say
		}
		b.log().Warn("ginlimit: "+codeEviction+": Redis evicts keys when its memory is full; a counter that is evicted gives its "+
			"caller a fresh budget, so that a flood of other keys lifts limits. Set maxmemory-policy noeviction on the Redis "+
			"that keeps limits, or give them a Redis of their own", "code", codeEviction, "server", addr, "maxmemory-policy", policy)
		b.checks.warned = true
		return true
	}
	return missing == 0
}

// noAnswer reports whether the server has to be asked again, after err.
func (c *Config) noAnswer(err error) bool { return c.unreachable(err) || c.notNow(err) }

// notNow reports whether err is an answer of a server that will give another one soon.
func (c *Config) notNow(err error) bool {
	if err == nil {
		return false
	}
	text, answered := c.Answer(err)
	if !answered {
		return false
	}
	return slices.Contains([]error{ErrStarting, ErrBusy, ErrClusterDown, ErrMasterDown}, kindOf(text))
}

// unreachable reports whether err is anything but an answer of the server.
func (c *Config) unreachable(err error) bool {
	if err == nil {
		return false // here, because what follows allocates
	}
	_, answered := c.Answer(err)
	return !answered
}

func infoField(info, name string) string {
	for line := range strings.Lines(info) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// checkCaching turns the memory of refusals on if the client keeps a value that it has read, and
// lets it go when it changes. Not all that accept CLIENT TRACKING say so: a proxy may not, nor does
// Redis to a user that may not use CLIENT CACHING. It is asked of the server that has the key name,
// if there is one. It reports false if that has to be asked again.
func (b *Backend) checkCaching(ctx context.Context, client Client, name string) bool {
	if b.denials == nil || b.checks.caching {
		return true
	}
	_, tag, _ := strings.Cut(name, "{")
	key := b.Prefix + version + "caching:" + strconv.FormatUint(rand.Uint64(), 36) // of nobody else
	if tag != "" {
		key += "{" + tag // in the same slot
	}
	keeps, tells := false, false
	for try := 0; try < 3 && !keeps; try++ { // a connection may break in between
		var err error
		if keeps, tells, err = tryCaching(ctx, client, key); err != nil {
			return false
		}
	}
	if keeps && !tells && b.checks.silent < 2 { // or this process was busy
		b.checks.silent++
		return false
	}
	b.checks.caching = true
	if tells {
		b.denials.on.Store(true)
		return true
	}
	b.log().Warn("ginlimit: "+codeNoCaching+": Redis or its client has no client-side caching (CLIENT TRACKING), so that "+
		"refusals are not remembered in the process and each asks Redis. Limits are as exact as with it. Use "+b.Cache+", "+
		"a server that has it, and a user that may use CLIENT TRACKING and CLIENT CACHING, or "+b.Package+".WithDenyCache(false) to say that "+
		"this is intended", "code", codeNoCaching)
	return true
}

// tellTime is how long a server may take to say that a key has changed, which takes it a round
// trip.
const tellTime = 300 * time.Millisecond

// tryCaching reports whether the client keeps the value of a key that it has read, and whether it
// is told that it changes.
func tryCaching(ctx context.Context, client Client, key string) (keeps, tells bool, err error) {
	const lives = 10 * time.Second
	if err = client.Set(ctx, key, "old", lives); err == nil {
		keeps, err = client.Keeps(ctx, key, time.Minute)
	}
	if err != nil {
		return false, false, err
	}
	defer func() { _ = client.Del(ctx, key) }() // it has an end, too
	if !keeps {
		return false, false, nil
	}
	err = client.Set(ctx, key, "new", lives)
	for end := time.Now().Add(tellTime); err == nil && time.Now().Before(end); time.Sleep(time.Millisecond) {
		var v Value
		if v, err = client.Get(ctx, key, time.Minute); v.Text == "new" {
			return true, true, err
		}
	}
	return true, false, err
}
