package goredis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/ginlimit/ginlimit/internal/gate"
	"github.com/ginlimit/ginlimit/internal/redisstore"
)

// single is a client of one server, as *redis.Client is, also what embeds one.
type single interface {
	redis.UniversalClient
	Options() *redis.Options
	CSCStats() redis.CSCStats
}

// cluster is a client of a Cluster, as *redis.ClusterClient is, also what embeds one.
type cluster interface {
	redis.UniversalClient
	Options() *redis.ClusterOptions
	ForEachShard(context.Context, func(context.Context, *redis.Client) error) error
}

// adapter is a client as redisstore asks it.
type adapter struct {
	client   redis.UniversalClient
	pipeline *redis.AutoPipeliner // for scripts, the deferred one; nil if they go through client
	single   single               // nil for a Cluster
	cluster  cluster              // nil for one server
	caches   bool                 // client-side caching is switched on; the server may not have it
	heeds    bool                 // client ends its calls when their contexts end
}

var _ redisstore.Client = (*adapter)(nil)

func newAdapter(client redis.UniversalClient, autoPipeline bool) (*adapter, error) {
	a := &adapter{client: client}
	switch c := client.(type) {
	case nil:
		return nil, errors.New("the client is nil")
	case *redis.Ring:
		return nil, errors.New("a Ring counts a key anew on another server when one is down, which lifts every limit; " +
			"use a Cluster, or the client of one server or of Sentinels")
	case *redis.AutoPipeliner:
		return nil, errors.New("the client is an AutoPipeline; pass the client that it is of, with goredis.WithAutoPipeline(true)")
	case single:
		a.single = c
		o := c.Options()
		a.caches = o.ClientSideCacheConfig != nil || o.ClientSideCache != nil
		a.heeds = o.ContextTimeoutEnabled
	case cluster:
		a.cluster = c
	default:
		return nil, fmt.Errorf("a %T is neither a *redis.Client nor a *redis.ClusterClient; pass one of these, or what embeds it", client)
	}
	if autoPipeline {
		pipeline, err := client.AsyncAutoPipeline()
		if err != nil {
			return nil, fmt.Errorf("the client's AsyncAutoPipeline: %w", err)
		}
		a.pipeline = pipeline
	}
	return a, nil
}

// once is a command that go-redis does not send again: the one whose reply was lost may have
// charged.
type once struct{ *redis.Cmd }

func newOnce(ctx context.Context, args ...any) once {
	cmd := once{redis.NewCmd(ctx, args...)}
	cmd.SetStepCount(1) // otherwise the client of a Cluster asks COMMAND for it
	return cmd
}

// NoRetry is asked by go-redis.
func (once) NoRetry() bool { return true }

// Clone is there because that of Cmd would be sent again.
func (o once) Clone() redis.Cmder {
	if cmd, ok := o.Cmd.Clone().(*redis.Cmd); ok {
		return once{cmd}
	}
	return o
}

// process has the client process cmd, which must not be read if that ends by ctx.
func (a *adapter) process(ctx context.Context, cmd redis.Cmder) error {
	if a.heeds {
		return byContext(ctx, a.client.Process(ctx, cmd))
	}
	return inTime(ctx, func() error { return a.client.Process(ctx, cmd) })
}

// byContext returns err, or that ctx has ended if that is why err came.
func byContext(ctx context.Context, err error) error {
	var timeout net.Error
	if err != nil && !gate.GaveUp(err) && errors.As(err, &timeout) && timeout.Timeout() && gate.Over(ctx) {
		return fmt.Errorf("%w: %w", context.DeadlineExceeded, err)
	}
	return err
}

// inTime calls do, and no longer waits for it when ctx ends. go-redis itself goes on until its own
// time-outs, unless it has ContextTimeoutEnabled. The goroutine costs a lone caller as much as
// go-redis does (BenchmarkTake, "goredis" and "context").
func inTime(ctx context.Context, do func() error) error {
	type end struct {
		err      error
		panicked any
	}
	ended := make(chan end, 1)
	go func() {
		var e end
		defer func() {
			e.panicked = recover()
			ended <- e
		}()
		e.err = do()
	}()
	var e end
	select {
	case e = <-ended:
	case <-ctx.Done():
		select {
		case e = <-ended: // both at once
		default:
			return ctx.Err()
		}
	}
	if e.panicked != nil { // in a hook of the application's
		panic(e.panicked)
	}
	return byContext(ctx, e.err)
}

func (a *adapter) EvalSha(ctx context.Context, sha, key string, more, args []string) (string, error) {
	return a.eval(ctx, "evalsha", sha, key, more, args)
}

func (a *adapter) Eval(ctx context.Context, script, key string, more, args []string) (string, error) {
	return a.eval(ctx, "eval", script, key, more, args)
}

func (a *adapter) eval(ctx context.Context, command, script, key string, more, args []string) (string, error) {
	all := append(make([]any, 0, 4+len(more)+len(args)), command, script, 1+len(more), key)
	for _, list := range [2][]string{more, args} {
		for _, arg := range list {
			all = append(all, arg)
		}
	}
	cmd := newOnce(ctx, all...)
	var err error
	if a.pipeline != nil {
		err = byContext(ctx, a.pipeline.Submit(ctx, cmd).WaitContext(ctx))
	} else {
		err = a.process(ctx, cmd)
	}
	if err != nil {
		return "", err
	}
	text, _ := cmd.Val().(string)
	return text, nil
}

// Get says of every value that it reads through the cache that it may have been there, because
// go-redis does not tell: then nobody takes it for a sign that the server answers.
func (a *adapter) Get(ctx context.Context, key string, ttl time.Duration) (v redisstore.Value, err error) {
	if ttl > 0 && a.caches {
		cmd := redis.NewStringCmd(ctx, "get", key)
		err = a.process(ctx, cmd)
		v.Hit = err == nil || errors.Is(err, redis.Nil)
		if v.Hit {
			v.Text, v.Until = cmd.Val(), time.Now().Add(ttl).UnixMilli()
		}
	} else {
		v.Text, err = a.do(ctx, "get", key)
	}
	if errors.Is(err, redis.Nil) {
		return v, nil
	}
	v.Exists = err == nil
	return v, err
}

func (a *adapter) Set(ctx context.Context, key, value string, ttl time.Duration) (err error) {
	if ttl > 0 {
		_, err = a.do(ctx, "set", key, value, "px", ttl.Milliseconds())
	} else {
		_, err = a.do(ctx, "set", key, value)
	}
	return err
}

func (a *adapter) Del(ctx context.Context, key string) error {
	_, err := a.do(ctx, "del", key)
	return err
}

// do sends a command, and returns its reply if that is a text.
func (a *adapter) do(ctx context.Context, args ...any) (string, error) {
	cmd := newOnce(ctx, args...)
	if err := a.process(ctx, cmd); err != nil {
		return "", err
	}
	text, _ := cmd.Val().(string)
	return text, nil
}

// Keeps asks the cache how often it had what it was asked for. Others ask it too, so that it may be
// taken to keep a key that it does not keep; a Get is then a round trip more, and never wrong.
func (a *adapter) Keeps(ctx context.Context, key string, ttl time.Duration) (bool, error) {
	if !a.caches {
		return false, nil
	}
	if _, err := a.Get(ctx, key, ttl); err != nil {
		return false, err
	}
	before := a.single.CSCStats().Hits
	_, err := a.Get(ctx, key, ttl)
	return a.single.CSCStats().Hits > before, err
}

func (a *adapter) Cluster() bool { return a.cluster != nil }

// failover is what go-redis has for the address of the master that Sentinels name.
const failover = "FailoverClient"

func (a *adapter) Addrs() []string {
	switch {
	case a.cluster != nil:
		return slices.Sorted(slices.Values(a.cluster.Options().Addrs))
	case a.single.Options().Addr == failover:
		return []string{"the Sentinels' master"}
	}
	return []string{a.single.Options().Addr}
}

func (a *adapter) Nodes(ctx context.Context) map[string]redisstore.Node {
	nodes := make(map[string]redisstore.Node)
	if a.cluster == nil {
		nodes[a.Addrs()[0]] = node{a.single}
		return nodes
	}
	var mu sync.Mutex
	_ = inTime(ctx, func() error { // what is not found is looked for again
		return a.cluster.ForEachShard(ctx, func(_ context.Context, c *redis.Client) error {
			mu.Lock()
			defer mu.Unlock()
			nodes[c.Options().Addr] = node{c}
			return nil
		})
	})
	mu.Lock()
	defer mu.Unlock()
	found := make(map[string]redisstore.Node, len(nodes)) // ForEachShard may go on
	for addr, n := range nodes {
		found[addr] = n
	}
	return found
}

// Close does nothing, because the client is the caller's.
func (a *adapter) Close() {}

// node is a server as redisstore asks it.
type node struct{ client redis.UniversalClient }

func (n node) Info(ctx context.Context, section string) (text string, err error) {
	cmd := redis.NewStringCmd(ctx, "info", section)
	if err = inTime(ctx, func() error { return n.client.Process(ctx, cmd) }); err != nil {
		return "", err
	}
	return cmd.Val(), nil
}

func (n node) Slots(ctx context.Context) (all []redisstore.Slots, err error) {
	cmd := redis.NewClusterSlotsCmd(ctx, "cluster", "slots")
	if err = inTime(ctx, func() error { return n.client.Process(ctx, cmd) }); err != nil {
		return nil, err
	}
	for _, r := range cmd.Val() {
		if len(r.Nodes) > 0 {
			all = append(all, redisstore.Slots{From: int64(r.Start), To: int64(r.End), Addr: r.Nodes[0].Addr})
		}
	}
	return all, nil
}
