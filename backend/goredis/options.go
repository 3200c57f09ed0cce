package goredis

import (
	"log/slog"
	"time"

	"github.com/ginlimit/ginlimit/internal/redisstore"
)

// DefaultTimeout is the time budget of a decision unless [WithTimeout] says otherwise. Within it a
// lost packet is sent again, and a server on another continent answers. Callers that come within
// that time wait for a server that hangs, for half of it on average. Then the breaker opens.
const DefaultTimeout = redisstore.DefaultTimeout

// Option changes a default of [New] or [NewTiers]. One that is not valid, or that means nothing
// there, is refused.
type Option func(*config) error

type config struct {
	redisstore.Config
	autoPipeline bool
	notTiers     string // an option that means nothing to Tiers
}

// WithPrefix sets what every key in Redis begins with, before the version of the layout and the
// hash tag; the default is "gl", for keys such as gl1:{api:ip:203.0.113.7}. Applications that share
// a Redis and use the same names for their limiters need different prefixes. It is 1 to 64
// characters of printable ASCII, without spaces and braces.
func WithPrefix(prefix string) Option {
	return func(c *config) error { return c.SetPrefix(prefix) }
}

// WithTimeout sets the time budget of one decision, whatever Redis and the client do; the default
// is [DefaultTimeout]. It counts also for what waits for a connection of the client's pool. A
// deadline or a cancellation of the caller's context does not count: nobody gets past a limit by
// giving up, and a charge that was sent is spent. A call may get up to a tenth less, and gets more
// while this process is too busy to let its goroutines run, unless the client has
// ContextTimeoutEnabled: then a call that waits for its reply ends by the clock. It is 1 ms to 1
// minute.
func WithTimeout(d time.Duration) Option {
	return func(c *config) error { return c.SetTimeout(d) }
}

// WithDenyCache says whether refusals are remembered in the process until their wait is over, which
// is the default. One that is 5 s old is asked for again by one caller, because not every change of
// a key is pushed: SWAPDB is not, nor a step of the server's clock. It needs client-side caching,
// which [New] describes; without, refusals are not remembered, and one log line with the code
// GINLIMIT006 says so, unless this option says false.
func WithDenyCache(on bool) Option {
	return func(c *config) error {
		c.DenyCache, c.notTiers = on, "goredis.WithDenyCache"
		return nil
	}
}

// WithAutoPipeline says whether scripts go through the client's AutoPipeline, which writes together
// what many goroutines ask at the same time; the default is false. docs/redis.md has what it is
// worth. The AutoPipeline is the one that the client has for all its users, with the client's
// AutoPipelineOptions, and ends when the client is closed.
func WithAutoPipeline(on bool) Option {
	return func(c *config) error {
		c.autoPipeline, c.notTiers = on, "goredis.WithAutoPipeline"
		return nil
	}
}

// WithLogger sets where diagnostics go; the default is slog.Default(). Each is written once, never
// for each request.
func WithLogger(l *slog.Logger) Option {
	return func(c *config) error { return c.SetLogger(l) }
}
