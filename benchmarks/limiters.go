package benchmarks

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	ginratelimit "github.com/JGLTechnologies/gin-rate-limit"
	"github.com/didip/tollbooth/v8"
	tollboothlimiter "github.com/didip/tollbooth/v8/limiter"
	"github.com/go-chi/httprate"
	httprateredis "github.com/go-chi/httprate-redis"
	"github.com/go-redis/redis_rate/v10"
	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"
	"github.com/sethvargo/go-limiter/memorystore"
	"github.com/throttled/throttled/v2"
	"github.com/throttled/throttled/v2/store/goredisstore.v9"
	"github.com/throttled/throttled/v2/store/memstore"
	ulule "github.com/ulule/limiter/v3"
	ululememory "github.com/ulule/limiter/v3/drivers/store/memory"
	ululeredis "github.com/ulule/limiter/v3/drivers/store/redis"
	"golang.org/x/time/rate"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/backend"
	ginlimitgoredis "github.com/ginlimit/ginlimit/backend/goredis"
	"github.com/ginlimit/ginlimit/backend/memory"
	"github.com/ginlimit/ginlimit/backend/redis"
)

// Names of candidates that are asked for again elsewhere.
const (
	own          = "ginlimit"
	ownGoredis   = own + ", go-redis"
	ownPipelined = own + ", go-redis AutoPipeline"
	floorPrefix  = "floor: "
	floorClock   = floorPrefix + "clock, one swap"
	floorPing    = floorPrefix + "rueidis PING"
	floorIncr    = floorPrefix + "rueidis INCR"
	floorEvalsha = floorPrefix + "rueidis EVALSHA return 1"
	xtime        = "x/time/rate, sync.Map"
	goLimiter    = "go-limiter"
	throttledGo  = "throttled"
	ululeName    = "ulule/limiter"
	ginRate      = "gin-rate-limit"
	tollboothGo  = "tollbooth"
	httprateGo   = "httprate"
	redisRate    = "redis_rate"
)

// about says of each candidate what is to be known when its figures are compared.
var about = []struct{ name, module, algorithm, setup, writes string }{
	{
		own, "github.com/ginlimit/ginlimit", "token bucket in integers; others where the name says so",
		"`memory.New()`, `redis.Dial` with time-outs of 10 s, so that a busy machine fails nothing; `New` with `ByIP`; " +
			"go-redis: `goredis.New` on a client with ContextTimeoutEnabled and ClientSideCacheConfig",
		"`RateLimit`, `RateLimit-Policy`, `X-RateLimit-Limit`, `-Remaining`, `-Reset`; refused: a problem document too",
	},
	{
		xtime, "golang.org/x/time", "token bucket in floats",
		"a `sync.Map` of limiters by key, which nobody clears, as people write it; the other row is one limiter without keys",
		"nothing, a status",
	},
	{
		goLimiter, "github.com/sethvargo/go-limiter", "fixed window from the first request",
		"`memorystore`; its net/http middleware before Gin's handlers",
		"`X-RateLimit-Limit`, `-Remaining`, `-Reset` (a date)",
	},
	{
		throttledGo, "github.com/throttled/throttled/v2", "GCRA",
		"`memstore.NewCtx(0)`, a map without a bound and its faster kind; on Redis `goredisstore.v9`, which " +
			"compares and swaps: a second script if nobody came between; its net/http middleware before Gin's " +
			"handlers, by `RemoteAddr`",
		"`X-RateLimit-Limit`, `-Remaining`, `-Reset`",
	},
	{
		ululeName, "github.com/ulule/limiter/v3", "fixed window from the first request",
		"`memory.NewStore()`, `redis.NewStore(client)`, its Gin middleware",
		"`X-RateLimit-Limit`, `-Remaining`, `-Reset` (a Unix time)",
	},
	{
		ginRate, "github.com/JGLTechnologies/gin-rate-limit", "a count that begins anew once a period went by without an admitted request",
		"its stores and middleware, keyed by `c.ClientIP()`",
		"`X-Rate-Limit-Limit`, `-Remaining`, `-Reset` (a Unix time)",
	},
	{
		tollboothGo, "github.com/didip/tollbooth/v8", "token bucket in floats",
		"`NewLimiter`, with the rate per second and the burst of the limit; `SetIPLookup` with `RemoteAddr`, over HTTP `X-Forwarded-For`; `LimitByRequest` before Gin's handlers",
		"`X-Rate-Limit-Limit`, `-Duration`, `-Request-Remote-Addr`, `RateLimit-Limit`, `-Remaining`, `-Reset`",
	},
	{
		httprateGo, "github.com/go-chi/httprate", "sliding window of two counters",
		"`NewRateLimiter` and `OnLimit`, which writes header fields with each decision; `LimitBy` before Gin's handlers; on Redis `httprate-redis`, without its fallback",
		"`X-RateLimit-Limit`, `-Remaining`, `-Reset` (a Unix time)",
	},
	{
		redisRate, "github.com/go-redis/redis_rate/v10", "GCRA in Lua",
		"`NewLimiter` on a go-redis client with its defaults, and on its `AutoPipeline()`; it has no middleware: three lines by hand",
		"nothing, a status",
	},
	{
		semaphoreGo, "golang.org/x/sync", "requests at the same time",
		"a `sync.Map` of `semaphore.NewWeighted` by key, which nobody clears; `TryAcquire` and `Release`", "",
	},
	{
		failsafeGo, "github.com/failsafe-go/failsafe-go", "requests at the same time",
		"the same with `bulkhead.New`, a channel; `TryAcquirePermit` and `ReleasePermit`", "",
	},
}

// Quota is what every limiter here can express: N units per Period, and as many at once.
type Quota struct {
	N      int
	Period time.Duration
}

var (
	// hotQuota refuses nothing that a benchmark asks of one key, and is refilled more slowly than
	// it is spent. A unit takes 100 µs to come back: as in most limits that people set, a whole
	// number of microseconds.
	hotQuota = Quota{100_000_000, 10_000 * time.Second}
	// redisQuota is as hotQuota, for what Redis can decide. Count times period is below 2^53 µs, as
	// in limits that people set: beyond that a sliding window is for the general script.
	redisQuota = Quota{9_000_000, 900 * time.Second}
	// oddQuota is as hotQuota, but its units take parts of a microsecond, for which ginlimit has
	// another script.
	oddQuota = Quota{1_000_000_000, time.Hour}
	// manyQuota refuses nothing that is asked of many keys, drawn by Zipf's law too. A unit takes 6
	// s to come back, so that the keys are in use all the time, and none can be forgotten.
	manyQuota = Quota{5_000_000, 366 * 24 * time.Hour}
	// spentQuota is spent by one request.
	spentQuota = Quota{1, time.Hour}
)

// Take charges one unit to key and reports whether it was let through.
type Take func(key string) (bool, error)

// Limiter is something that decides. New makes one, which uses the Redis at addr if it uses any.
type Limiter struct {
	Name string
	New  func(addr string, q Quota) (take Take, stop func())
}

func (l Limiter) name() string { return l.Name }

// inMemory are limiters that keep their keys in the process.
func inMemory() []Limiter {
	return []Limiter{
		ginLimit(own, backend.TokenBucket),
		ginLimit(own+", fixed window", backend.FixedWindow),
		ginLimit(own+", sliding window", backend.SlidingWindow),
		{xtime, func(_ string, q Quota) (Take, func()) {
			var limiters sync.Map
			every := rate.Every(q.Period / time.Duration(q.N))
			return func(key string) (bool, error) {
				l, ok := limiters.Load(key)
				if !ok {
					l, _ = limiters.LoadOrStore(key, rate.NewLimiter(every, q.N))
				}
				return l.(*rate.Limiter).Allow(), nil
			}, func() {}
		}},
		{goLimiter, func(_ string, q Quota) (Take, func()) {
			store, err := memorystore.New(&memorystore.Config{Tokens: uint64(q.N), Interval: q.Period})
			must(err)
			ctx := context.Background()
			return func(key string) (bool, error) {
				_, _, _, ok, err := store.Take(ctx, key)
				return ok, err
			}, func() { must(store.Close(ctx)) }
		}},
		{throttledGo, func(_ string, q Quota) (Take, func()) {
			store, err := memstore.NewCtx(0)
			must(err)
			return takeThrottled(store, q), func() {}
		}},
		{ululeName, func(_ string, q Quota) (Take, func()) {
			return takeUlule(ululememory.NewStore(), q), func() {}
		}},
		{ginRate, func(_ string, q Quota) (Take, func()) {
			return takeGinRate(ginratelimit.InMemoryStore(&ginratelimit.InMemoryOptions{Rate: q.Period, Limit: uint(q.N)})), func() {}
		}},
		{tollboothGo, func(_ string, q Quota) (Take, func()) {
			l := newTollbooth(q, "RemoteAddr")
			return func(key string) (bool, error) { return !l.LimitReached(key), nil }, func() {}
		}},
		{httprateGo, func(_ string, q Quota) (Take, func()) {
			return takeHttprate(httprate.NewRateLimiter(q.N, q.Period)), func() {}
		}},
	}
}

// withoutKeys are those that can be compared where there is only one key.
func withoutKeys() []Limiter {
	return []Limiter{
		{floorClock, func(string, Quota) (Take, func()) {
			base := time.Now()
			var state atomic.Int64
			return func(string) (bool, error) {
				old, now := state.Load(), int64(time.Since(base))
				state.CompareAndSwap(old, now)
				return true, nil
			}, func() {}
		}},
		{"x/time/rate, one limiter", func(_ string, q Quota) (Take, func()) {
			l := rate.NewLimiter(rate.Every(q.Period/time.Duration(q.N)), q.N)
			return func(string) (bool, error) { return l.Allow(), nil }, func() {}
		}},
	}
}

// asCalled are ginlimit as an application calls it outside HTTP. The rivals are called so in any
// case.
func asCalled() []Limiter {
	allow := func(name string, opts func() []ginlimit.Option) Limiter {
		return Limiter{own + ", " + name, func(_ string, q Quota) (Take, func()) {
			l, err := ginlimit.NewLimiter(ginlimit.Per(int64(q.N), q.Period), ginlimit.Global(), opts()...)
			must(err)
			ctx := context.Background()
			return func(key string) (bool, error) {
				d, err := l.Allow(ctx, key, 1)
				return d.Allowed, err
			}, func() {}
		}}
	}
	return []Limiter{
		allow("Limiter.Allow", func() []ginlimit.Option { return nil }),
		allow("Limiter.Allow on a shared backend", func() []ginlimit.Option {
			return []ginlimit.Option{ginlimit.WithName("bench"), ginlimit.WithBackend(memory.New())}
		}),
	}
}

// inMemoryHot are those that decide about one hot key.
func inMemoryHot() []Limiter { return slices.Concat(withoutKeys(), inMemory(), asCalled()) }

// inRedis are limiters that keep their keys in Redis.
func inRedis() []Limiter {
	return []Limiter{
		ginLimitRedis(own, backend.TokenBucket, 1),
		ginLimitRedis(own+", fixed window", backend.FixedWindow, 1),
		ginLimitRedis(own+", sliding window", backend.SlidingWindow, 1),
		ginLimitGoredis(ownGoredis, false),
		ginLimitGoredis(ownPipelined, true),
		{redisRate, func(addr string, q Quota) (Take, func()) {
			client := goredis.NewClient(&goredis.Options{Addr: addr})
			return takeRedisRate(client, q), closer(client)
		}},
		{redisRate + ", AutoPipeline", func(addr string, q Quota) (Take, func()) {
			client := goredis.NewClient(&goredis.Options{Addr: addr})
			pipeline, err := client.AutoPipeline()
			must(err)
			return takeRedisRate(pipeline, q), closer(client)
		}},
		{ululeName, func(addr string, q Quota) (Take, func()) {
			client := goredis.NewClient(&goredis.Options{Addr: addr})
			store, err := ululeredis.NewStore(client)
			must(err)
			return takeUlule(store, q), closer(client)
		}},
		{ginRate, func(addr string, q Quota) (Take, func()) {
			client := goredis.NewClient(&goredis.Options{Addr: addr})
			return takeGinRate(ginratelimit.RedisStore(&ginratelimit.RedisOptions{RedisClient: client, Rate: q.Period, Limit: uint(q.N)})), closer(client)
		}},
		{throttledGo, func(addr string, q Quota) (Take, func()) {
			client := goredis.NewClient(&goredis.Options{Addr: addr})
			store, err := goredisstore.NewCtx(client, "throttled:")
			must(err)
			return takeThrottled(store, q), closer(client)
		}},
		{httprateGo, func(addr string, q Quota) (Take, func()) {
			client := goredis.NewClient(&goredis.Options{Addr: addr})
			counter := httprateredis.NewCounter(&httprateredis.Config{Client: client, FallbackDisabled: true, FallbackTimeout: 10 * time.Second})
			return takeHttprate(httprate.NewRateLimiter(q.N, q.Period, httprate.WithLimitCounter(counter))), closer(client)
		}},
	}
}

// takeRedisRate decides by redis_rate on a client.
func takeRedisRate(client goredis.UniversalClient, q Quota) Take {
	limiter, ctx := redis_rate.NewLimiter(client), context.Background()
	limit := redis_rate.Limit{Rate: q.N, Burst: q.N, Period: q.Period}
	return func(key string) (bool, error) {
		res, err := limiter.Allow(ctx, key, limit)
		return err == nil && res.Allowed > 0, err
	}
}

// ginLimitGoredis is a Backend on a client of go-redis, with or without its AutoPipeline.
func ginLimitGoredis(name string, autoPipeline bool) Limiter {
	return Limiter{name, func(addr string, q Quota) (Take, func()) {
		client := goredis.NewClient(goredisOptions(addr))
		b := ginlimitgoredis.New(client, ginlimitgoredis.WithPrefix(fmt.Sprint("go", autoPipeline)),
			ginlimitgoredis.WithTimeout(10*time.Second), ginlimitgoredis.WithAutoPipeline(autoPipeline))
		limits := limitsOf(q, backend.TokenBucket, 1)
		b.Prepare(limits...) // as ginlimit.NewLimiter does
		return takeBackend(b, limits), closer(client)
	}}
}

// goredisOptions are those that a Backend on a client of go-redis asks for.
func goredisOptions(addr string) *goredis.Options {
	return &goredis.Options{Addr: addr, ContextTimeoutEnabled: true, ClientSideCacheConfig: &goredis.ClientSideCacheConfig{}}
}

// redisFloors do less than any decision.
func redisFloors() []Limiter {
	floor := func(name string, command func(c rueidis.Client, key string) rueidis.Completed) Limiter {
		return Limiter{floorPrefix + "rueidis " + name, func(addr string, _ Quota) (Take, func()) {
			client := bareClient(addr)
			ctx := context.Background()
			must(client.Do(ctx, client.B().ScriptLoad().Script("return 1").Build()).Error())
			return func(key string) (bool, error) { return true, client.Do(ctx, command(client, key)).Error() }, client.Close
		}}
	}
	const sha = "e0e1f9fabfc9d4800c877a703b823ac0578ff8db" // of return 1
	return []Limiter{
		floor("PING", func(c rueidis.Client, _ string) rueidis.Completed { return c.B().Ping().Build() }),
		floor("INCR", func(c rueidis.Client, key string) rueidis.Completed { return c.B().Incr().Key(key).Build() }),
		floor("EVALSHA return 1", func(c rueidis.Client, key string) rueidis.Completed {
			return c.B().Evalsha().Sha1(sha).Numkeys(1).Key(key).Build()
		}),
		{floorPrefix + "go-redis INCR", func(addr string, _ Quota) (Take, func()) {
			client, ctx := goredis.NewClient(&goredis.Options{Addr: addr}), context.Background()
			return func(key string) (bool, error) { return true, client.Incr(ctx, key).Err() }, closer(client)
		}},
	}
}

// ginLimit is the backend memory.New(opts...) with a limit of one algorithm.
func ginLimit(name string, a backend.Algorithm, opts ...memory.Option) Limiter {
	return Limiter{name, func(_ string, q Quota) (Take, func()) {
		return takeBackend(memory.New(opts...), limitsOf(q, a, 1)), func() {}
	}}
}

// ginLimitRedis is a Backend made by redis.Dial, with n limits of one algorithm, and a prefix for
// each kind that is as long as the default.
func ginLimitRedis(name string, a backend.Algorithm, n int) Limiter {
	return Limiter{name, func(addr string, q Quota) (Take, func()) {
		b := dial(addr, redis.WithPrefix(fmt.Sprintf("%d%d", a, n)))
		limits := limitsOf(q, a, n)
		b.Prepare(limits...) // as ginlimit.NewLimiter does
		return takeBackend(b, limits), func() { b.Close() }
	}}
}

func dial(addr string, opts ...redis.Option) *redis.Backend {
	b, err := redis.Dial(context.Background(), "redis://"+addr+"?write_timeout=10s", append(opts, redis.WithTimeout(10*time.Second), redis.WithPing())...)
	must(err)
	return b
}

// bareClient is a rueidis client that is set up as Dial sets its own up. It writes as rueidis does,
// and does not gather commands.
func bareClient(addr string) rueidis.Client {
	var option rueidis.ClientOption
	dial(addr, redis.WithClientOption(func(o *rueidis.ClientOption) { option = *o })).Close()
	client, err := rueidis.NewClient(option)
	must(err)
	return client
}

// limitsOf returns q and n-1 limits of longer periods, which a benchmark cannot spend before q.
func limitsOf(q Quota, a backend.Algorithm, n int) []backend.Limit {
	limits := make([]backend.Limit, n)
	for i := range limits {
		limits[i] = backend.Limit{Count: int64(q.N) * int64(i+1), Period: q.Period * time.Duration(i+1), Algorithm: a}
	}
	return limits
}

func takeBackend(b backend.Backend, limits []backend.Limit) Take {
	ctx := context.Background()
	return func(key string) (bool, error) {
		res, err := b.Take(ctx, key, 1, limits...)
		return res.Allowed, err
	}
}

// takeHttprate asks a limiter of httprate, which it can only be with a request in hand. Each
// goroutine has a response of its own in an application.
func takeHttprate(l *httprate.RateLimiter) Take {
	r, err := http.NewRequest(http.MethodGet, "/", nil)
	must(err)
	responses := sync.Pool{New: func() any { return &response{header: http.Header{}} }}
	return func(key string) (bool, error) {
		w := responses.Get().(*response)
		limited := l.OnLimit(w, r, key)
		responses.Put(w)
		return !limited, nil
	}
}

func takeThrottled(store throttled.GCRAStoreCtx, q Quota) Take {
	limiter, err := throttled.NewGCRARateLimiterCtx(store, throttledQuota(q))
	must(err)
	ctx := context.Background()
	return func(key string) (bool, error) {
		limited, _, err := limiter.RateLimitCtx(ctx, key, 1)
		return !limited, err
	}
}

func throttledQuota(q Quota) throttled.RateQuota {
	return throttled.RateQuota{MaxRate: throttled.PerDuration(q.N, q.Period), MaxBurst: q.N - 1}
}

func takeUlule(store ulule.Store, q Quota) Take {
	limiter, ctx := ulule.New(store, ululeRate(q)), context.Background()
	return func(key string) (bool, error) {
		res, err := limiter.Get(ctx, key)
		return !res.Reached, err
	}
}

func ululeRate(q Quota) ulule.Rate { return ulule.Rate{Period: q.Period, Limit: int64(q.N)} }

// takeGinRate asks the store, to which the request is of no use. It lets everything pass if Redis
// fails, and does not say so.
func takeGinRate(store ginratelimit.Store) Take {
	return func(key string) (bool, error) { return !store.Limit(key, nil).RateLimited, nil }
}

func newTollbooth(q Quota, lookup string) *tollboothlimiter.Limiter {
	return tollbooth.NewLimiter(float64(q.N)/q.Period.Seconds(), nil).SetBurst(q.N).SetIPLookup(tollboothlimiter.IPLookup{Name: lookup})
}

func closer(client *goredis.Client) func() { return func() { _ = client.Close() } }

// response is a http.ResponseWriter that can be used again, so that what is measured is the
// handlers.
type response struct {
	header http.Header
	status int
}

func (w *response) Header() http.Header               { return w.header }
func (w *response) WriteHeader(status int)            { w.status = status }
func (w *response) Write(p []byte) (int, error)       { return len(p), nil }
func (w *response) WriteString(s string) (int, error) { return len(s), nil }

var errAnswer = errors.New("it answered what it should not have: was the limit spent, or not spent?")

// must ends the run: nothing can be measured of what cannot be set up.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
