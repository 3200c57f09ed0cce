package benchmarks

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"time"

	ginratelimit "github.com/JGLTechnologies/gin-rate-limit"
	"github.com/gin-gonic/gin"
	goredis "github.com/redis/go-redis/v9"
	"github.com/sethvargo/go-limiter/httplimit"
	"github.com/sethvargo/go-limiter/memorystore"
	"github.com/throttled/throttled/v2/store/goredisstore.v9"
	"github.com/throttled/throttled/v2/store/memstore"
	ulule "github.com/ulule/limiter/v3"
	ululegin "github.com/ulule/limiter/v3/drivers/middleware/gin"
	ululememory "github.com/ulule/limiter/v3/drivers/store/memory"
	ululeredis "github.com/ulule/limiter/v3/drivers/store/redis"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/memory"
)

// Cases of the section exact, of which the first two are followed by the store.
const (
	caseAtOnce = "10,000 at once on a limit of 100"
	caseEdge   = "limit of 100, the edge of a window"
	casePair   = "two limiters on one store"
)

// edgePeriod is that of the limits whose edges are looked at. Some limiters know nothing shorter
// than a second.
const edgePeriod = 2 * time.Second

// exact counts what is let through where it is hardest to count.
func (b *bench) exact() error {
	memories := append(inMemory(), ginLimit(own+", sliding log", backend.SlidingLog))
	remotes := append(inRedis(), ginLimitRedis(own+", sliding log", backend.SlidingLog, 1))
	for _, s := range []struct {
		store string
		made  []remote
	}{
		{"memory", b.connect(Quota{100, time.Hour}, memories)},
		{"redis", b.connect(Quota{100, time.Hour}, remotes)},
	} {
		round := 0
		if err := eachRound(b, s.made, func(r remote) error {
			round++
			passed, failed := atOnce(r.take, fmt.Sprintf("at-once-%d", round))
			b.add(caseAtOnce+", "+s.store, r.Name, "passed", 0, float64(passed))
			b.add(caseAtOnce+", "+s.store, r.Name, "failed", 0, float64(failed))
			return nil
		}); err != nil {
			return err
		}
	}
	for range b.Rounds {
		if err := b.edges(memories, remotes); err != nil {
			return err
		}
		b.log(".")
	}
	round := 0
	return eachRound(b, pairs, func(p pair) error {
		round++
		b.add(casePair, p.Name, "passed", 0, float64(p.second(b.server.Addr(), fmt.Sprintf("198.51.100.%d:4321", round))))
		return nil
	})
}

// atOnce asks from 10,000 goroutines that wait for one signal, and returns how many were let
// through, and how many got an error for an answer.
func atOnce(take Take, key string) (passed, failed int64) {
	var passes, fails atomic.Int64
	signal := make(chan struct{})
	var wg sync.WaitGroup
	for range 10_000 {
		wg.Go(func() {
			<-signal
			if ok, err := take(key); err != nil {
				fails.Add(1)
			} else if ok {
				passes.Add(1)
			}
		})
	}
	close(signal)
	wg.Wait()
	return passes.Load(), fails.Load()
}

// edges sends the same traffic to all limiters at the same time, and counts the most that each let
// through in any stretch of a period, and of a tenth of one.
func (b *bench) edges(memories, remotes []Limiter) error {
	type run struct {
		store string
		remote
		passed []time.Time
		err    error
	}
	var runs []run
	for store, limiters := range map[string][]Limiter{"memory": memories, "redis": remotes} {
		for _, r := range b.connect(Quota{100, edgePeriod}, limiters) { // new ones, whose windows begin now
			runs = append(runs, run{store: store, remote: r})
		}
	}
	start := time.Now()
	var wg sync.WaitGroup
	for i := range runs {
		wg.Go(func() {
			runs[i].passed, runs[i].err = edgeTraffic(runs[i].take, fmt.Sprint("edge-", start.UnixNano()), start)
		})
	}
	wg.Wait()
	for _, r := range runs {
		if r.err != nil {
			return fmt.Errorf("%s: %w", r.Name, r.err)
		}
		b.add(caseEdge+", "+r.store, r.Name, "in a period", 0, float64(mostIn(r.passed, edgePeriod)))
		b.add(caseEdge+", "+r.store, r.Name, "in a tenth", 0, float64(mostIn(r.passed, edgePeriod/10)))
	}
	return nil
}

// edgeTraffic makes one request, which begins a window; as many as pass shortly before the window
// ends, and shortly after; and then one each millisecond until another period is over. It returns
// when requests were let through.
func edgeTraffic(take Take, key string, start time.Time) (passed []time.Time, err error) {
	ask := func() bool {
		ok, askErr := take(key)
		if err = errors.Join(err, askErr); ok {
			passed = append(passed, time.Now())
		}
		return ok
	}
	burst := func() {
		for refused := 0; refused < 20 && err == nil; refused++ {
			if ask() {
				refused = 0
			}
		}
	}
	ask()
	time.Sleep(time.Until(start.Add(edgePeriod - 100*time.Millisecond)))
	burst()
	time.Sleep(time.Until(start.Add(edgePeriod + 5*time.Millisecond)))
	burst()
	for end := start.Add(2*edgePeriod + 100*time.Millisecond); time.Now().Before(end) && err == nil; time.Sleep(time.Millisecond) {
		ask()
	}
	return passed, err
}

// mostIn returns the most instants in any stretch of so long.
func mostIn(instants []time.Time, stretch time.Duration) (most int) {
	first := 0
	for i, t := range instants {
		for t.Sub(instants[first]) >= stretch {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}

// pair makes two limiters of pairQuota on one store, as one would for two routes.
type pair struct {
	Name string
	New  func(addr string) (one, two gin.HandlerFunc)
}

func (p pair) name() string { return p.Name }

var pairQuota = Quota{5, time.Hour}

var pairs = []pair{
	{own + ", memory", func(string) (one, two gin.HandlerFunc) { return ginPair(memory.New()) }},
	{own + ", Redis", func(addr string) (one, two gin.HandlerFunc) { return ginPair(dial(addr)) }},
	{ululeName + ", memory", func(string) (one, two gin.HandlerFunc) { return ululePair(ululememory.NewStore()) }},
	{ululeName + ", Redis", func(addr string) (one, two gin.HandlerFunc) {
		store, err := ululeredis.NewStore(goredis.NewClient(&goredis.Options{Addr: addr}))
		must(err)
		return ululePair(store)
	}},
	{ginRate + ", memory", func(string) (one, two gin.HandlerFunc) {
		store := ginratelimit.InMemoryStore(&ginratelimit.InMemoryOptions{Rate: pairQuota.Period, Limit: uint(pairQuota.N)})
		return ginRateMiddleware(store), ginRateMiddleware(store)
	}},
	{ginRate + ", Redis", func(addr string) (one, two gin.HandlerFunc) {
		client := goredis.NewClient(&goredis.Options{Addr: addr})
		store := func() ginratelimit.Store {
			return ginratelimit.RedisStore(&ginratelimit.RedisOptions{RedisClient: client, Rate: pairQuota.Period, Limit: uint(pairQuota.N)})
		}
		return ginRateMiddleware(store()), ginRateMiddleware(store())
	}},
	{goLimiter + ", memory", func(string) (one, two gin.HandlerFunc) {
		store, err := memorystore.New(&memorystore.Config{Tokens: uint64(pairQuota.N), Interval: pairQuota.Period})
		must(err)
		m, err := httplimit.NewMiddleware(store, httplimit.IPKeyFunc())
		must(err)
		return before(m.Handle), before(m.Handle)
	}},
	{throttledGo + ", memory", func(string) (one, two gin.HandlerFunc) {
		store, err := memstore.NewCtx(0)
		must(err)
		return throttledMiddleware(store, pairQuota), throttledMiddleware(store, pairQuota)
	}},
	{throttledGo + ", Redis", func(addr string) (one, two gin.HandlerFunc) {
		store, err := goredisstore.NewCtx(goredis.NewClient(&goredis.Options{Addr: addr}), "throttled:")
		must(err)
		return throttledMiddleware(store, pairQuota), throttledMiddleware(store, pairQuota)
	}},
	{redisRate + ", Redis", func(addr string) (one, two gin.HandlerFunc) {
		return byHand(inRedis(), redisRate, addr, pairQuota), byHand(inRedis(), redisRate, addr, pairQuota)
	}},
}

func ginPair(b backend.Backend) (one, two gin.HandlerFunc) {
	named := func(name string) gin.HandlerFunc {
		return ginlimit.New(ginlimit.Per(int64(pairQuota.N), pairQuota.Period), ginlimit.ByIP(), ginlimit.WithBackend(b), ginlimit.WithName(name))
	}
	return named("one"), named("two")
}

func ululePair(store ulule.Store) (one, two gin.HandlerFunc) {
	return ululegin.NewMiddleware(ulule.New(store, ululeRate(pairQuota))), ululegin.NewMiddleware(ulule.New(store, ululeRate(pairQuota)))
}

// second spends the first limiter's limit, and returns how many of ten requests the second lets
// through: 5 if it counts on its own, 0 if it sees the first one's counts.
func (p pair) second(addr, client string) (passed int) {
	gin.SetMode(gin.ReleaseMode)
	r := gin.New()
	must(r.SetTrustedProxies(nil))
	one, two := p.New(addr)
	ok := func(c *gin.Context) { c.Status(http.StatusOK) }
	r.GET("/one", one, ok)
	r.GET("/two", two, ok)
	for _, path := range []string{"/one", "/two"} {
		passed = 0
		for range 10 {
			req := httptest.NewRequest(http.MethodGet, path, nil)
			req.RemoteAddr = client
			w := httptest.NewRecorder()
			if r.ServeHTTP(w, req); w.Code == http.StatusOK {
				passed++
			}
		}
	}
	return passed
}
