// Package console is a live page for operators: who is refused now, who is near a limit, who is
// banned, and what a caller has used, with buttons to reset and ban.
//
//	page := console.New(nil)
//	limiter, err := ginlimit.NewLimiter(ginlimit.PerMinute(100), ginlimit.ByIP(), ginlimit.WithObserver(page.Observe))
//	…
//	page.Watch(limiter)
//	go http.ListenAndServe("127.0.0.1:8081", page)
//
// One [Console] serves all limiters of an application. It shows what its own process decided;
// totals of all instances are for Prometheus.
package console

import (
	"crypto/rand"
	"fmt"
	"hash/maphash"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/ginlimit/ginlimit"
)

// Option changes a default of [New].
type Option func(*Console) error

// WithAuth sets who may use the page: it is asked about every request, before anything else, and
// what it refuses gets 403. It runs on the request's goroutine, and has to be safe for concurrent
// use. The default is requests from a loopback address, by the connection's address, which no proxy
// forwarded: an application on the Internet shows its page to nobody.
//
// With WithAuth the page is served wherever it is mounted, and forwarded requests are too: use TLS,
// and a session or an identity that the proxy proves.
func WithAuth(allow func(*http.Request) bool) Option {
	return func(c *Console) error {
		if c.allow = allow; allow == nil {
			return fmt.Errorf("ginlimit: WithAuth(nil): leave the option out for loopback addresses only")
		}
		return nil
	}
}

// WithKeys shows keys as they are: addresses, users, whatever a KeyFunc returns. The default is
// false: a key is shown as a hash that is of no use outside this process, and whose buttons work.
func WithKeys(shown bool) Option {
	return func(c *Console) error {
		c.keys = shown
		return nil
	}
}

// WithActions says whether the page can reset, ban and unban; the default is true. Without, it
// reads only.
func WithActions(on bool) Option {
	return func(c *Console) error {
		c.readOnly = !on
		return nil
	}
}

// WithBreakers shows the circuit breakers of a store, which is named so in the page: open says of
// each server, by its address, whether calls to it fail at once. It is the method Breakers of
// backend/redis and backend/postgres. It is called once a second for each open page, and so has to
// be quick and safe for concurrent use. Give every backend that has breakers, each under a name of
// its own. The default is none.
func WithBreakers(store string, open func() map[string]bool) Option {
	return func(c *Console) error {
		if store == "" || open == nil {
			return fmt.Errorf("ginlimit: WithBreakers(%q) needs a name and a function, such as WithBreakers(\"redis\", b.Breakers)", store)
		}
		if _, twice := c.breakers[store]; twice {
			return fmt.Errorf("ginlimit: WithBreakers(%q) is given twice; give every backend a name of its own", store)
		}
		c.breakers[store] = open
		return nil
	}
}

// Console counts decisions and is the [http.Handler] of the page that shows them. It is safe for
// concurrent use. It starts no goroutine, asks no store unless somebody looks a caller up, and
// takes 1.1 MB of memory, and 70 kB for each limiter. Make one with [New].
//
// It works under any path that ends in a slash: on a port of its own, behind [http.StripPrefix], or
// as group.Any("/console/*page", gin.WrapH(page)). Register its routes before the limiters, as
// those of health checks, so that it is not limited itself.
type Console struct {
	allow    func(*http.Request) bool
	keys     bool
	readOnly bool
	breakers map[string]func() map[string]bool
	cross    *http.CrossOriginProtection

	started  time.Time
	seed     maphash.Seed // random: nobody outside can choose keys that fall together
	secret   []byte       // of the hashes that are shown
	shards   [numShards]shard
	sources  table[names, *source]
	limiters table[string, *limiter]
	other    *source // of all that are too many
	bans     bans
	shown    shown

	pages  chan struct{} // a place for each open page
	closed chan struct{}
	once   sync.Once

	mu      sync.Mutex
	watched []*ginlimit.Limiter
}

var _ http.Handler = (*Console)(nil)

// New returns a Console that shows limiters, which may be nil: see [Console.Watch]. A limiter tells
// it of decisions only if it is made with its Observe. New panics if an option is nil or not valid,
// and where Watch does.
func New(limiters []*ginlimit.Limiter, opts ...Option) *Console {
	c := &Console{
		allow: local, breakers: map[string]func() map[string]bool{}, cross: http.NewCrossOriginProtection(),
		started: time.Now(), seed: maphash.MakeSeed(), secret: make([]byte, 32),
		pages: make(chan struct{}, maxPages), closed: make(chan struct{}),
	}
	_, _ = rand.Read(c.secret) // never fails
	for i, opt := range opts {
		if opt == nil {
			panic(fmt.Errorf("ginlimit: option %d is nil", i+1))
		}
		if err := opt(c); err != nil {
			panic(err)
		}
	}
	c.other = &source{names: names{other, other}, limiter: c.newLimiter(other)}
	c.Watch(limiters...)
	return c
}

// Watch adds limiters to what is shown with their limits and places in flight, and can be looked up.
// A limiter is made with the Console as its observer, and so is watched only afterwards:
//
//	page := console.New(nil)
//	l, err := ginlimit.NewLimiter(ginlimit.PerMinute(100), ginlimit.ByIP(), ginlimit.WithObserver(page.Observe))
//	…
//	page.Watch(l)
//
// Watch panics, and watches none of them, if a limiter is nil or was given before. It may be called
// at any time.
func (c *Console) Watch(limiters ...*ginlimit.Limiter) {
	c.mu.Lock()
	defer c.mu.Unlock()
	watched := slices.Clone(c.watched)
	for i, l := range limiters {
		if l == nil {
			panic(fmt.Errorf("ginlimit: Watch: limiter %d is nil; leave it out", i+1))
		}
		if slices.Contains(watched, l) {
			panic(fmt.Errorf("ginlimit: Watch: limiter %q is there twice; give it once", l.Name()))
		}
		watched = append(watched, l)
	}
	c.watched = watched
}

// watching returns the limiters that are watched.
func (c *Console) watching() []*ginlimit.Limiter {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.watched // never written again
}

// Close ends the streams of open pages, which [http.Server.Shutdown] would wait for: it is for
// [http.Server.RegisterOnShutdown]. Decisions are counted all the same. It may be called twice, and
// need not be called.
func (c *Console) Close() { c.once.Do(func() { close(c.closed) }) }
