package redis

import (
	"context"
	"errors"
	"strings"

	"github.com/redis/rueidis"
)

// Diagnostics have stable codes, which the README lists. Each appears at most once for a Backend.
const (
	codeEviction  = "GINLIMIT005"
	codeNoCaching = "GINLIMIT006"
)

// check looks once at what a limiter needs of the servers, and says what does not suit. If the servers cannot be reached
// a later call looks again.
func (b *Backend) check(ctx context.Context, client rueidis.Client) {
	if !b.checking.TryLock() {
		return
	}
	defer b.checking.Unlock()
	if b.checked.Load() {
		return
	}
	ctx, _ = b.link.gates.Load().all[0].Limit(ctx)
	if b.checkEviction(ctx, client) && b.checkCaching(ctx, client) && b.link.findShards(ctx, client) {
		b.checked.Store(true)
	}
}

// checkEviction warns of servers that drop keys when their memory is full: a dropped key is a fresh budget. All keys
// here have an end, so that the volatile policies drop them too.
func (b *Backend) checkEviction(ctx context.Context, client rueidis.Client) bool {
	if b.warned {
		return true
	}
	for addr, node := range client.Nodes() {
		info, err := node.Do(ctx, node.B().Info().Section("memory").Build()).ToString()
		if unreachable(err) || notNow(unavailable("check", err)) {
			return false
		}
		policy, limit := infoField(info, "maxmemory_policy"), infoField(info, "maxmemory")
		if policy == "" || policy == "noeviction" || limit == "" || limit == "0" {
			continue // or the server does not say
		}
		b.log().Warn("ginlimit: "+codeEviction+": Redis evicts keys when its memory is full; a counter that is evicted gives its "+
			"caller a fresh budget, so that a flood of other keys lifts limits. Set maxmemory-policy noeviction on the Redis "+
			"that keeps limits, or give them a Redis of their own", "code", codeEviction, "server", addr, "maxmemory-policy", policy)
		b.warned = true
		return true
	}
	return true
}

// notNow reports whether err is an answer of a server that will give another one soon.
func notNow(err error) bool {
	for _, later := range []error{ErrLoading, ErrBusy, ErrClusterDown, ErrMasterDown} {
		if errors.Is(err, later) {
			return true
		}
	}
	return false
}

// unreachable reports whether err is anything but an answer of the server.
func unreachable(err error) bool {
	_, refused := rueidis.IsRedisErr(err)
	return err != nil && !refused && !rueidis.IsRedisNil(err)
}

func infoField(info, name string) string {
	for line := range strings.Lines(info) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// checkCaching turns the memory of refusals on if a value that was read twice came from the client the second time.
func (b *Backend) checkCaching(ctx context.Context, client rueidis.Client) bool {
	if b.denials == nil {
		return true
	}
	key := b.prefix + version + "caching"
	for range 3 { // a connection may break in between
		res := client.DoCache(ctx, client.B().Get().Key(key).Cache().ToStaticTTL(), b.timeout)
		if res.IsCacheHit() {
			b.denials.on.Store(true)
			return true
		}
		if err := res.Error(); unreachable(err) || notNow(unavailable("check", err)) {
			return false
		}
	}
	b.log().Warn("ginlimit: "+codeNoCaching+": Redis or its client has no client-side caching (CLIENT TRACKING), so that "+
		"refusals are not remembered in the process and each asks Redis. Limits are as exact as with it. Use a client with caching "+
		"and a server that has it, or redis.WithDenyCache(false) to say that this is intended", "code", codeNoCaching)
	return true
}
