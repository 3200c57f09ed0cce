package goredis_test

import (
	"context"
	"fmt"
	"log"
	"time"

	redisclient "github.com/redis/go-redis/v9"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/goredis"
)

// A limit that all instances share, over the client that the application has.
func ExampleNew() {
	client := redisclient.NewClient(&redisclient.Options{
		Addr:                  "127.0.0.1:6379",
		ContextTimeoutEnabled: true,                                 // less work for each call
		ClientSideCacheConfig: &redisclient.ClientSideCacheConfig{}, // refusals cost Redis nothing
		DialerRetries:         1,                                    // a server that is down is known at once
	})
	defer client.Close()
	b := goredis.New(client) // for ginlimit.WithBackend
	res, err := b.Take(context.Background(), "customer-42", 1, backend.Limit{Count: 100, Period: time.Minute})
	fmt.Println(res.Allowed, err)
}

// Many callers at the same time are decided about three times as fast.
func ExampleWithAutoPipeline() {
	client := redisclient.NewClusterClient(&redisclient.ClusterOptions{Addrs: []string{"127.0.0.1:7000"}})
	defer client.Close()

	goredis.New(client, goredis.WithAutoPipeline(true), goredis.WithDenyCache(false), goredis.WithTimeout(200*time.Millisecond))
}

// Which limits a customer has stands in Redis, where every instance reads it.
func ExampleNewTiers() {
	client := redisclient.NewClient(&redisclient.Options{Addr: "127.0.0.1:6379"})
	defer client.Close()

	tiers := goredis.NewTiers(client, goredis.WithPrefix("shop"))
	pro := backend.Tier{Name: "pro", Limits: []backend.Limit{{Count: 100, Period: time.Minute}}}
	if err := tiers.Set(context.Background(), "customer-42", pro); err != nil {
		log.Print(err)
	}
	tier, err := tiers.Lookup(context.Background(), "customer-42")
	fmt.Println(tier.Name, err)
}
