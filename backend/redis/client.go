package redis

import (
	"context"
	"maps"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"github.com/ginlimit/ginlimit/internal/redisstore"
)

// adapter is a client as redisstore asks it.
type adapter struct{ rueidis.Client }

var _ redisstore.Client = adapter{}

func (a adapter) EvalSha(ctx context.Context, sha, key string, more, args []string) (string, error) {
	return text(a.Do(ctx, a.B().Evalsha().Sha1(sha).Numkeys(int64(1+len(more))).Key(key).Key(more...).Arg(args...).Build()))
}

func (a adapter) Eval(ctx context.Context, script, key string, more, args []string) (string, error) {
	return text(a.Do(ctx, a.B().Eval().Script(script).Numkeys(int64(1+len(more))).Key(key).Key(more...).Arg(args...).Build()))
}

// text returns a reply, "" if it is no text.
func text(res rueidis.RedisResult) (string, error) {
	if err := res.Error(); err != nil {
		return "", err
	}
	reply, _ := res.ToString()
	return reply, nil
}

func (a adapter) Get(ctx context.Context, key string, ttl time.Duration) (v redisstore.Value, err error) {
	var res rueidis.RedisResult
	if get := a.B().Get().Key(key); ttl == 0 {
		res = a.Do(ctx, get.Build())
	} else {
		res = a.DoCache(ctx, get.Cache().ToStaticTTL(), ttl)
		v.Hit, v.Until = res.IsCacheHit(), res.CachePXAT()
	}
	if v.Text, err = res.ToString(); rueidis.IsRedisNil(err) {
		return v, nil
	}
	v.Exists = err == nil
	return v, err
}

func (a adapter) Set(ctx context.Context, key, value string, ttl time.Duration) error {
	set := a.B().Set().Key(key).Value(value)
	if ttl > 0 {
		return a.Do(ctx, set.Px(ttl).Build()).Error()
	}
	return a.Do(ctx, set.Build()).Error()
}

func (a adapter) Del(ctx context.Context, key string) error {
	return a.Do(ctx, a.B().Del().Key(key).Build()).Error()
}

func (a adapter) Keeps(ctx context.Context, key string, ttl time.Duration) (bool, error) {
	if _, err := a.Get(ctx, key, ttl); err != nil {
		return false, err
	}
	v, err := a.Get(ctx, key, ttl)
	return v.Hit, err
}

func (a adapter) Cluster() bool { return a.Mode() == rueidis.ClientModeCluster }

func (a adapter) Addrs() []string { return slices.Sorted(maps.Keys(a.Client.Nodes())) }

func (a adapter) Nodes(context.Context) map[string]redisstore.Node {
	nodes := make(map[string]redisstore.Node)
	for addr, client := range a.Client.Nodes() {
		nodes[addr] = node{client}
	}
	return nodes
}

// node is a server as redisstore asks it.
type node struct{ rueidis.Client }

func (n node) Info(ctx context.Context, section string) (string, error) {
	return n.Do(ctx, n.B().Info().Section(section).Build()).ToString()
}

func (n node) Slots(ctx context.Context) (all []redisstore.Slots, err error) {
	ranges, err := n.Do(ctx, n.B().ClusterSlots().Build()).ToArray()
	if err != nil {
		return nil, err
	}
	for _, r := range ranges {
		fields, err := r.ToArray()
		if err != nil || len(fields) < 3 {
			continue
		}
		from, err1 := fields[0].AsInt64()
		to, err2 := fields[1].AsInt64()
		master, err3 := fields[2].ToArray()
		if err1 != nil || err2 != nil || err3 != nil || len(master) < 2 {
			continue
		}
		host, _ := master[0].ToString()
		port, _ := master[1].AsInt64()
		all = append(all, redisstore.Slots{From: from, To: to, Addr: net.JoinHostPort(host, strconv.FormatInt(port, 10))})
	}
	return all, nil
}
