package redis_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/rueidis"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/redis"
)

func ExampleDial() {
	b, err := redis.Dial(context.Background(), os.Getenv("REDIS_URL"))
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()
}

func ExampleBackend() {
	server, _ := miniredis.Run() // an application has a real one
	b, err := redis.Dial(context.Background(), "redis://"+server.Addr()+"?client_cache=0", redis.WithTimeout(time.Second))
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()

	// The key is the limiter's name, a NUL and the caller, as the root package makes it.
	res, err := b.Take(context.Background(), "api\x00ip:203.0.113.7", 1, backend.Limit{Count: 100, Period: time.Minute})
	fmt.Println(res.Allowed, res.Remaining, err)
	fmt.Println(server.Keys())
	// Output:
	// true 99 <nil>
	// [gl1:{api:ip:203.0.113.7}]
}

func ExampleNew() {
	server, _ := miniredis.Run()
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress:      []string{server.Addr()},
		AlwaysPipelining: true,
		ConnWriteTimeout: 500 * time.Millisecond,
		DisableCache:     true, // only because this server has no CLIENT TRACKING
	})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	b := redis.New(client, redis.WithPrefix("shop"), redis.WithDenyCache(false), redis.WithTimeout(time.Second))
	res, err := b.Take(context.Background(), "k", 1, backend.Limit{Count: 1, Period: time.Minute})
	fmt.Println(res.Allowed, err)
	res, err = b.Take(context.Background(), "k", 1, backend.Limit{Count: 1, Period: time.Minute})
	fmt.Println(res.Allowed, err)
	// Output:
	// true <nil>
	// false <nil>
}

func ExampleTiers() {
	server, _ := miniredis.Run()
	b, err := redis.Dial(context.Background(), "redis://"+server.Addr()+"?client_cache=0", redis.WithDenyCache(false), redis.WithTimeout(time.Second))
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()

	tiers := b.Tiers()
	err = tiers.Set(context.Background(), "customer-42", backend.Tier{
		Name:   "pro",
		Limits: []backend.Limit{{Count: 50, Period: time.Second}, {Count: 100_000, Period: 24 * time.Hour}},
	})
	fmt.Println(err)
	tier, err := tiers.Lookup(context.Background(), "customer-42")
	fmt.Println(tier.Name, tier.Limits, err)
	tier, err = tiers.Lookup(context.Background(), "nobody")
	fmt.Println(len(tier.Limits), err)
	// Output:
	// <nil>
	// pro [50/s 100000/d] <nil>
	// 0 <nil>
}
