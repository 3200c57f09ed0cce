package benchmarks

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/go-redis/redis_rate/v10"
	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"
	ulule "github.com/ulule/limiter/v3"
	ululeredis "github.com/ulule/limiter/v3/drivers/store/redis"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/redis"
)

// RedisKeys is the number of keys that decisions in Redis are spread over.
const RedisKeys = 10_000

// Remote is something that asks a Redis once for each call of Do.
type Remote struct {
	Name  string
	Do    func(key string) error
	Close func()
}

// plenty is never used up.
const plenty = 10_000_000

// GinLimitRedis is a Backend made by Dial, under limits of plenty each.
func GinLimitRedis(name, url string, limits []backend.Limit, opts ...redis.Option) (Remote, error) {
	b, err := redis.Dial(context.Background(), url, append(opts, redis.WithTimeout(10*time.Second), redis.WithPing())...)
	if err != nil {
		return Remote{}, err
	}
	ctx := context.Background()
	return Remote{name, func(key string) error {
		res, err := b.Take(ctx, key, 1, limits...)
		if err == nil && !res.Allowed {
			err = fmt.Errorf("%s refused", name)
		}
		return err
	}, func() { b.Close() }}, nil
}

// HotRedis is a Backend made by Dial that is asked for one key only, through a Lease of n units if n is not 0.
func HotRedis(name, url string, n int64) (Remote, error) {
	b, err := redis.Dial(context.Background(), url, redis.WithTimeout(10*time.Second), redis.WithPing())
	if err != nil {
		return Remote{}, err
	}
	var hot backend.Backend = b
	if n > 0 {
		hot = backend.Lease(b, n)
	}
	limits, ctx := []backend.Limit{{Count: 1_000_000_000, Period: 100 * time.Second}}, context.Background()
	return Remote{name, func(string) error {
		res, err := hot.Take(ctx, "hot", 1, limits...)
		if err == nil && !res.Allowed {
			err = fmt.Errorf("%s refused", name)
		}
		return err
	}, func() { b.Close() }}, nil
}

// Plenty returns n limits that are never used up, of different periods.
func Plenty(a backend.Algorithm, n int) []backend.Limit {
	limits := make([]backend.Limit, n)
	for i := range limits {
		limits[i] = backend.Limit{Count: plenty, Period: time.Duration(i+1) * 100 * time.Second, Algorithm: a}
	}
	return limits
}

// Connections sets how many connections a Backend uses, as a power of two.
func Connections(power int) redis.Option {
	return redis.WithClientOption(func(o *rueidis.ClientOption) {
		if o.PipelineMultiplex = power; power == 0 {
			o.PipelineMultiplex = -1 // rueidis' way of saying one
		}
	})
}

// BareEvalsha runs a script that returns 1, through a client set up as Dial sets its own up.
func BareEvalsha(url string) (Remote, error) {
	var option rueidis.ClientOption
	b, err := redis.Dial(context.Background(), url, redis.WithPing(),
		redis.WithClientOption(func(o *rueidis.ClientOption) { option = *o }))
	if err != nil {
		return Remote{}, err
	}
	b.Close()
	client, err := rueidis.NewClient(option)
	if err != nil {
		return Remote{}, err
	}
	ctx := context.Background()
	sha, err := client.Do(ctx, client.B().ScriptLoad().Script("return 1").Build()).ToString()
	return Remote{"EVALSHA return 1", func(key string) error {
		return client.Do(ctx, client.B().Evalsha().Sha1(sha).Numkeys(1).Key(key).Build()).Error()
	}, client.Close}, err
}

// RedisRate is go-redis/redis_rate as its README sets it up.
func RedisRate(addr string) Remote {
	client := goredis.NewClient(&goredis.Options{Addr: addr})
	limiter := redis_rate.NewLimiter(client)
	limit := redis_rate.Limit{Rate: plenty, Burst: plenty, Period: 100 * time.Second}
	ctx := context.Background()
	return Remote{"redis_rate", func(key string) error {
		res, err := limiter.Allow(ctx, key, limit)
		if err == nil && res.Allowed == 0 {
			err = fmt.Errorf("redis_rate refused")
		}
		return err
	}, func() { _ = client.Close() }}
}

// Ulule is ulule/limiter's Redis store as its README sets it up.
func Ulule(addr string) (Remote, error) {
	client := goredis.NewClient(&goredis.Options{Addr: addr})
	store, err := ululeredis.NewStoreWithOptions(client, ulule.StoreOptions{Prefix: "limiter", MaxRetry: 3})
	if err != nil {
		return Remote{}, err
	}
	limiter := ulule.New(store, ulule.Rate{Period: 100 * time.Second, Limit: plenty})
	ctx := context.Background()
	return Remote{"ulule/limiter", func(key string) error {
		res, err := limiter.Get(ctx, key)
		if err == nil && res.Reached {
			err = fmt.Errorf("ulule refused")
		}
		return err
	}, func() { _ = client.Close() }}, nil
}

// Drive calls r from so many goroutines for a time, on RedisKeys keys of 16 bytes, and returns the number of calls.
func Drive(r Remote, goroutines int, d time.Duration) (int64, error) {
	keys := make([]string, RedisKeys)
	for i := range keys {
		keys[i] = "key-" + strconv.FormatInt(100_000_000_000+int64(i), 10)
	}
	counts := make([]int64, goroutines)
	errs := make([]error, goroutines)
	end := time.Now().Add(d)
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for n := g * 7919; time.Now().Before(end); n++ {
				if err := r.Do(keys[n%RedisKeys]); err != nil {
					errs[g] = err
					return
				}
				counts[g]++
			}
		}()
	}
	wg.Wait()
	var sum int64
	for g := range goroutines {
		if errs[g] != nil {
			return 0, errs[g]
		}
		sum += counts[g]
	}
	return sum, nil
}
