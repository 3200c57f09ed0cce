package benchmarks

import (
	"context"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/failsafe-go/failsafe-go/bulkhead"
	"github.com/gin-gonic/gin"
	goredis "github.com/redis/go-redis/v9"
	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/backend"
	ginlimitgoredis "github.com/ginlimit/ginlimit/backend/goredis"
	"github.com/ginlimit/ginlimit/backend/memory"
)

// Cases of the section kinds. In memory they have the name as it is, on Redis onRedis of it.
const (
	caseThree    = "three keys"
	caseThreeGin = "three keys, middleware"
	caseGiven    = "given back"
	caseFlight   = "in flight"
	caseBanned   = "banned"
	caseCalendar = "calendar"
)

// onRedis is the name of a case where limiters keep their keys in Redis.
func onRedis(of string) string { return of + ", Redis" }

const (
	threeCalls   = ", three calls"
	oneLimiter   = ", one limiter"
	semaphoreGo  = "x/sync/semaphore, sync.Map"
	failsafeGo   = "failsafe-go bulkhead, sync.Map"
	floorChannel = floorPrefix + "one channel, no keys"
	floorUpDown  = floorPrefix + "rueidis INCR, DECR"
)

// kind is a case and who can do it.
type kind struct {
	of       string
	limiters []Limiter
	want     bool
}

// kinds measures what ginlimit limits beside plain rates.
func (b *bench) kinds() error {
	for _, k := range kindsInMemory() {
		made := b.connect(hotQuota, k.limiters)
		if err := eachRound(b, made, func(r remote) error {
			cost, err := b.time(1, 1, func() op { return takeAll(r.take, []string{"203.0.113.7"}, k.want) })
			b.addCost(k.of, r.Name, 0, cost)
			return err
		}); err != nil {
			return err
		}
	}
	if err := b.threeOnGin(); err != nil {
		return err
	}
	keys := manyKeys()[:min(redisKeys, b.Keys)]
	for _, k := range kindsInRedis(keys) {
		if _, err := b.server.Do("FLUSHALL"); err != nil { // some keys are those of the last kind
			return err
		}
		asked := keys
		if !k.want {
			asked = keys[:1]
		}
		if err := eachRound(b, b.connect(redisQuota, k.limiters), func(r remote) error {
			return b.drive(onRedis(k.of), r, 0, 64, asked, k.want)
		}); err != nil {
			return err
		}
		b.closeAll()
	}
	return nil
}

func kindsInMemory() []kind {
	inProcess := func(take func(b *memory.Backend, q Quota) Take) Limiter {
		return Limiter{own, func(_ string, q Quota) (Take, func()) { return take(memory.New(), q), func() {} }}
	}
	return []kind{
		{caseThree, append([]Limiter{inProcess(func(b *memory.Backend, q Quota) Take { return takeThree(b, q) })},
			threeTimes(inMemory(), own, xtime, goLimiter, throttledGo, ululeName, tollboothGo)...), true},
		{caseGiven, []Limiter{
			inProcess(func(b *memory.Backend, q Quota) Take { return takeAndGive(b, limitsOf(q, backend.TokenBucket, 1)) }),
			{xtime, func(_ string, q Quota) (Take, func()) { return reserveAndCancel(q), func() {} }},
		}, true},
		{caseFlight, []Limiter{
			inProcess(func(b *memory.Backend, _ Quota) Take {
				return takeAndGive(b, []backend.Limit{backend.InFlight(places)})
			}),
			perKey(semaphoreGo, func() func() bool {
				s := semaphore.NewWeighted(places)
				return func() bool {
					ok := s.TryAcquire(1)
					if ok {
						s.Release(1)
					}
					return ok
				}
			}),
			perKey(failsafeGo, func() func() bool {
				s := bulkhead.New[any](places)
				return func() bool {
					ok := s.TryAcquirePermit()
					if ok {
						s.ReleasePermit()
					}
					return ok
				}
			}),
			{floorChannel, func(string, Quota) (Take, func()) {
				held := make(chan struct{}, places)
				return func(string) (bool, error) {
					select {
					case held <- struct{}{}:
						<-held
						return true, nil
					default:
						return false, nil
					}
				}, func() {}
			}},
		}, true},
		{caseBanned, []Limiter{inProcess(func(b *memory.Backend, q Quota) Take {
			must(b.Ban(context.Background(), "203.0.113.7", time.Hour))
			return takeBackend(b, limitsOf(q, backend.TokenBucket, 1))
		})}, false},
		{caseCalendar, append([]Limiter{inProcess(func(b *memory.Backend, q Quota) Take { return takeBackend(b, today(q)) })},
			slices.DeleteFunc(inMemory(), func(l Limiter) bool {
				return !slices.Contains([]string{own + ", fixed window", goLimiter, ululeName}, l.Name)
			})...), true},
	}
}

// kindsInRedis are the same on Redis. The first key is the one that is banned.
func kindsInRedis(keys []string) []kind {
	ctx := context.Background()
	both := func(take func(b backend.Backend, q Quota) Take) []Limiter {
		return []Limiter{
			{own, func(addr string, q Quota) (Take, func()) {
				d := dial(addr)
				return take(d, q), func() { d.Close() }
			}},
			{ownGoredis, func(addr string, q Quota) (Take, func()) {
				client := goredis.NewClient(goredisOptions(addr))
				return take(ginlimitgoredis.New(client, ginlimitgoredis.WithPrefix("go"), ginlimitgoredis.WithTimeout(10*time.Second)), q), closer(client)
			}},
		}
	}
	return []kind{
		{caseThree, append(both(takeThree), threeTimes(inRedis(), own, redisRate, ululeName, ginRate)...), true},
		{caseGiven, both(func(b backend.Backend, q Quota) Take { return takeAndGive(b, limitsOf(q, backend.TokenBucket, 1)) }), true},
		{caseFlight, append(both(func(b backend.Backend, _ Quota) Take {
			return takeAndGive(b, []backend.Limit{backend.InFlight(places)})
		}),
			Limiter{floorUpDown, func(addr string, _ Quota) (Take, func()) {
				client := bareClient(addr)
				return func(key string) (bool, error) {
					if err := client.Do(ctx, client.B().Incr().Key(key).Build()).Error(); err != nil {
						return false, err
					}
					return true, client.Do(ctx, client.B().Decr().Key(key).Build()).Error()
				}, client.Close
			}}), true},
		{caseBanned, both(func(b backend.Backend, q Quota) Take {
			must(b.(backend.Banner).Ban(ctx, keys[0], time.Hour))
			return takeBackend(b, limitsOf(q, backend.TokenBucket, 1))
		}), false},
		{caseCalendar, append(both(func(b backend.Backend, q Quota) Take { return takeBackend(b, today(q)) }),
			slices.DeleteFunc(inRedis(), func(l Limiter) bool { return !slices.Contains([]string{own + ", fixed window", ululeName}, l.Name) })...), true},
	}
}

// places are those of a limit in flight: more than there are goroutines.
const places = 1000

// today is a limit of the calendar that refuses nothing.
func today(q Quota) []backend.Limit { return []backend.Limit{backend.PerCalendarDay(int64(q.N))} }

// takeThree charges the key of a caller, of its organisation and of everybody, or none of them.
func takeThree(b backend.Backend, q Quota) Take {
	ctx, limits := context.Background(), limitsOf(q, backend.TokenBucket, 1)
	return func(key string) (bool, error) {
		results, err := b.TakeAll(ctx, backend.Charge{Key: key, Cost: 1, Limits: limits},
			backend.Charge{Key: "organisation-001", Cost: 1, Limits: limits}, backend.Charge{Key: "everybody-of-all", Cost: 1, Limits: limits})
		if err != nil {
			return false, err
		}
		return results[0].Allowed && results[1].Allowed && results[2].Allowed, nil
	}
}

// threeTimes are limiters that are asked three times, as three are stacked that know nothing of
// each other: what the first charged stays charged if a later one refuses.
func threeTimes(limiters []Limiter, names ...string) (stacked []Limiter) {
	for _, l := range limiters {
		if slices.Contains(names, l.Name) {
			stacked = append(stacked, several(l.Name+threeCalls, l, 3))
		}
	}
	return stacked
}

// takeAndGive charges a unit and gives it back.
func takeAndGive(b backend.Backend, limits []backend.Limit) Take {
	ctx := context.Background()
	return func(key string) (bool, error) {
		taken, err := b.Take(ctx, key, 1, limits...)
		if err != nil || !taken.Allowed {
			return false, err
		}
		return true, b.Settle(ctx, key, taken, 1, 0, limits...)
	}
}

// reserveAndCancel is the same of x/time/rate.
func reserveAndCancel(q Quota) Take {
	var limiters sync.Map
	every := rate.Every(q.Period / time.Duration(q.N))
	return func(key string) (bool, error) {
		l, ok := limiters.Load(key)
		if !ok {
			l, _ = limiters.LoadOrStore(key, rate.NewLimiter(every, q.N))
		}
		r := l.(*rate.Limiter).Reserve()
		if !r.OK() || r.Delay() > 0 {
			r.Cancel()
			return false, nil
		}
		r.Cancel()
		return true, nil
	}
}

// perKey is a sync.Map of what one makes, for each key, which nobody clears.
func perKey(name string, one func() func() bool) Limiter {
	return Limiter{name, func(string, Quota) (Take, func()) {
		var all sync.Map
		return func(key string) (bool, error) {
			take, ok := all.Load(key)
			if !ok {
				take, _ = all.LoadOrStore(key, one())
			}
			return take.(func() bool)(), nil
		}, func() {}
	}}
}

// stack is what stands before a route.
type stack struct {
	Middleware
	handlers []gin.HandlerFunc
}

// stacksOfThree are three limiters on one engine: for each address, each route, and everybody.
func stacksOfThree() []stack {
	three := func() (limiters []*ginlimit.Limiter, handlers []gin.HandlerFunc) {
		store := memory.New()
		for name, key := range map[string]ginlimit.KeyFunc{"address": ginlimit.ByIP(), "route": ginlimit.ByRoute(), "all": ginlimit.Global()} {
			l, err := ginlimit.NewLimiter(ginlimit.Per(int64(hotQuota.N), hotQuota.Period), key, ginlimit.WithName(name), ginlimit.WithBackend(store))
			must(err)
			limiters, handlers = append(limiters, l), append(handlers, l.Handle)
		}
		return limiters, handlers
	}
	together, _ := three()
	_, stacked := three()
	all := []stack{
		{Middleware: ginFloors[0]},
		{Middleware{Name: own}, []gin.HandlerFunc{ginlimit.All(together...)}},
		{Middleware{Name: own + threeCalls}, stacked},
		{Middleware{Name: own + oneLimiter}, []gin.HandlerFunc{memoryMiddlewares[0].New("", hotQuota)}},
	}
	for _, m := range memoryMiddlewares {
		if !isOwn(m.Name) {
			all = append(all, stack{Middleware{Name: m.Name + threeCalls}, []gin.HandlerFunc{m.New("", hotQuota), m.New("", hotQuota), m.New("", hotQuota)}})
		}
	}
	return all
}

// threeOnGin measures what three limiters add to a request.
func (b *bench) threeOnGin() error {
	bare := 0.0
	measure := func(s stack) error {
		cost, err := b.time(1, 1, func() op { return requests(engine(s.handlers...), http.StatusOK) })
		if s.Name == floorGin {
			bare = cost.ns
		}
		b.addCost(caseThreeGin, s.Name, 0, cost)
		if s.Name != floorGin && bare > 0 {
			b.add(caseThreeGin, s.Name, "added ns", 0, cost.ns-bare)
		}
		return err
	}
	stacks := stacksOfThree()
	return bareFirst(b, func() error { return eachRound(b, stacks, measure) })
}

// kindSheets are what the page shows of them.
func kindSheets() []sheet {
	inMemory := func(of, title string) column { return column{"kinds", of, "ns", title, "ns", false} }
	rates := func(of string) []column {
		return []column{
			{"kinds", onRedis(of), "decisions/s", "on Redis, 64 goroutines", "/s", true}, {"kinds", onRedis(of), "server µs", "CPU of Redis", "µs", false},
			{"kinds", onRedis(of), "commands", "commands", "", false},
		}
	}
	return []sheet{
		{"kinds-three", "Three keys at once", "`All` decides about a caller, a route and everybody together, and charges all or none. Three " +
			"limiters that are asked one after the other, as the rivals have to be, leave what the first charged charged if a later one refuses.", []column{
			inMemory(caseThree, "a decision in memory"), {"kinds", caseThree, "allocs", "its allocations", "", false},
			{"kinds", caseThreeGin, "added ns", "what the middleware adds to a request", "ns", false},
			{"kinds", onRedis(caseThree), "decisions/s", "decisions in Redis, 64 goroutines", "/s", true},
			{"kinds", onRedis(caseThree), "server µs", "CPU of Redis", "µs", false}, {"kinds", onRedis(caseThree), "commands", "commands", "", false},
		}},
		{"kinds-given", "A charge that is given back", "`Take`, and `Settle` for nothing. x/time/rate has `Reserve` and `Cancel`. On Redis nobody else gives a charge back.",
			append([]column{inMemory(caseGiven, "in memory"), {"kinds", caseGiven, "allocs", "its allocations", "", false}}, rates(caseGiven)...)},
		{"kinds-flight", "A place in flight", "Taken, and given back. A place of ginlimit comes back by itself if the process dies that has it. A semaphore is of one " +
			"process.", append([]column{inMemory(caseFlight, "in memory"), {"kinds", caseFlight, "allocs", "its allocations", "", false}}, rates(caseFlight)...)},
		{"", "A caller that is banned", "One caller, who goes on asking. What is known to be banned is refused in the process, as any refusal is that ginlimit knows.",
			append([]column{inMemory(caseBanned, "in memory")}, rates(caseBanned)...)},
		{"", "A calendar day", "Beside windows that start at the first request: no other limiter here knows a calendar.",
			append([]column{inMemory(caseCalendar, "in memory")}, rates(caseCalendar)...)},
	}
}
