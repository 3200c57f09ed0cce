package redis

import (
	"errors"
	"log/slog"
	"time"

	"github.com/redis/rueidis"

	"github.com/ginlimit/ginlimit/internal/redisstore"
)

// DefaultTimeout is the time budget of a decision unless [WithTimeout] says otherwise. Within it a
// lost packet is sent again, and a server on another continent answers. Callers that come within
// that time wait for a server that hangs, for half of it on average. Then the breaker opens.
const DefaultTimeout = redisstore.DefaultTimeout

// Option changes a default of [Dial], [New] or [NewTiers]. One that is not valid, or that means
// nothing there, is refused.
type Option func(*config) error

type config struct {
	redisstore.Config
	client   []func(*rueidis.ClientOption)
	dialOnly string // an option that only Dial can honour
	notTiers string // an option that means nothing to Tiers
}

func newConfig(opts []Option) (*config, error) {
	c := &config{Config: redisstore.Defaults(library)}
	for _, opt := range opts {
		if opt == nil {
			return nil, errors.New("ginlimit: redis: an option is nil; leave it out")
		}
		if err := opt(c); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// WithPrefix sets what every key in Redis begins with, before the version of the layout and the
// hash tag; the default is "gl", for keys such as gl1:{api:ip:203.0.113.7}. Applications that share
// a Redis and use the same names for their limiters need different prefixes. It is 1 to 64
// characters of printable ASCII, without spaces and braces.
func WithPrefix(prefix string) Option {
	return func(c *config) error { return c.SetPrefix(prefix) }
}

// WithTimeout sets the time budget of one decision, whatever Redis does; the default is
// [DefaultTimeout]. A deadline or a cancellation of the caller's context does not count: nobody
// gets past a limit by giving up, and a charge that was sent is spent. A call may get up to a tenth
// less, and gets more while this process is too busy to let its goroutines run: Redis is not taken
// for silent because of that. It is 1 ms to 1 minute.
func WithTimeout(d time.Duration) Option {
	return func(c *config) error { return c.SetTimeout(d) }
}

// WithDenyCache says whether refusals are remembered in the process until their wait is over, which
// is the default. One that is 5 s old is asked for again by one caller, because not every change of
// a key is pushed: SWAPDB is not, nor a step of the server's clock. It needs a server and a client
// with client-side caching; without, refusals are not remembered, and one log line with the code
// GINLIMIT006 says so, unless this option says false.
func WithDenyCache(on bool) Option {
	return func(c *config) error {
		c.DenyCache, c.notTiers = on, "redis.WithDenyCache"
		return nil
	}
}

// WithPing makes Dial fail if Redis does not decide, within the context that it is given. It has
// every master do what decisions and Reset have it do, with a key of ours that it deletes: a server
// that is full, or denies access, is found out when the application starts. Without it an
// application also starts while Redis is down; its limiters' failure policies decide until it is
// up.
func WithPing() Option {
	return func(c *config) error {
		c.Ping, c.dialOnly = true, "redis.WithPing"
		return nil
	}
}

// WithLogger sets where diagnostics go; the default is slog.Default(). Each is written once, never
// for each request.
func WithLogger(l *slog.Logger) Option {
	return func(c *config) error { return c.SetLogger(l) }
}

// WithClientOption lets set change how Dial's client is set up, after the URL and Dial's own
// defaults were applied: a tls.Config with a private CA, credentials that rotate, the password of
// the Sentinels. It may be given several times; they run in this order.
func WithClientOption(set func(*rueidis.ClientOption)) Option {
	return func(c *config) error {
		if set == nil {
			return errors.New("ginlimit: redis.WithClientOption(nil): pass a function")
		}
		c.client, c.dialOnly = append(c.client, set), "redis.WithClientOption"
		return nil
	}
}
