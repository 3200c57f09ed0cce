package redis_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/rueidis"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/redis"
)

// Two applications that share a Redis, and have limiters of the same name, need different prefixes.
func ExampleWithPrefix() {
	server, _ := miniredis.Run() // an application has a real one
	for _, app := range []string{"shop", "blog"} {
		b, err := redis.Dial(context.Background(), "redis://"+server.Addr()+"?client_cache=0",
			redis.WithPrefix(app), redis.WithDenyCache(false), redis.WithTimeout(time.Second))
		if err != nil {
			log.Fatal(err)
		}
		defer b.Close()
		_, err = b.Take(context.Background(), "api\x00ip:203.0.113.7", 1, backend.Limit{Count: 100, Period: time.Minute})
		fmt.Println(err)
	}
	fmt.Println(server.Keys())
	// Output:
	// <nil>
	// <nil>
	// [blog1:{api:ip:203.0.113.7} shop1:{api:ip:203.0.113.7}]
}

// A request waits 20 ms for Redis at most; then the limiter's failure policy decides.
func ExampleWithTimeout() {
	b, err := redis.Dial(context.Background(), "redis://127.0.0.1:1", redis.WithTimeout(20*time.Millisecond))
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()

	_, err = b.Take(context.Background(), "k", 1, backend.Limit{Count: 100, Period: time.Minute})
	fmt.Println(errors.Is(err, backend.ErrUnavailable))
	// Output: true
}

// A Redis, or a proxy before it, that has no client-side caching: every refusal asks it, and
// nothing is logged of that.
func ExampleWithDenyCache() {
	server, _ := miniredis.Run() // an application has a real one
	b, err := redis.Dial(context.Background(), "redis://"+server.Addr()+"?client_cache=0",
		redis.WithDenyCache(false), redis.WithTimeout(time.Second))
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()
	for range 2 {
		res, err := b.Take(context.Background(), "k", 1, backend.Limit{Count: 1, Period: time.Hour})
		fmt.Println(res.Allowed, res.Source, err)
	}
	// Output:
	// true store <nil>
	// false store <nil>
}

// An application that would rather not start than start without Redis.
func ExampleWithPing() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, err := redis.Dial(ctx, "redis://127.0.0.1:1", redis.WithPing())
	fmt.Println(errors.Is(err, backend.ErrUnavailable))
	// Output: true
}

func ExampleWithLogger() {
	server, _ := miniredis.Run() // has no client-side caching
	only := func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == "level" || a.Key == "code" {
			return a
		}
		return slog.Attr{}
	}
	b, err := redis.Dial(context.Background(), "redis://"+server.Addr()+"?client_cache=0", redis.WithTimeout(time.Second),
		redis.WithLogger(slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: only}))))
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()
	// Output: level=WARN code=GINLIMIT006
}

// A Redis whose certificate a private authority signed.
func ExampleWithClientOption() {
	pem, err := os.ReadFile("ca.pem")
	if err != nil {
		log.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)

	b, err := redis.Dial(context.Background(), "rediss://redis.internal:6379",
		redis.WithClientOption(func(o *rueidis.ClientOption) {
			o.TLSConfig = &tls.Config{ServerName: "redis.internal", RootCAs: pool, MinVersion: tls.VersionTLS12}
		}),
	)
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()
}

// An operator's tool that changes a customer's tier: every instance of the application sees it
// within milliseconds.
func ExampleNewTiers() {
	server, _ := miniredis.Run() // an application has a real one
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress:  []string{server.Addr()},
		DisableCache: true, // only because this server has no CLIENT TRACKING
	})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	tiers := redis.NewTiers(client, redis.WithTimeout(time.Second))
	ctx := context.Background()
	fmt.Println(tiers.Set(ctx, "customer-42", backend.Tier{Name: "pro", Limits: []backend.Limit{{Count: 50, Period: time.Second}}}))
	tier, err := tiers.Lookup(ctx, "customer-42")
	fmt.Println(tier.Name, tier.Limits, err)
	fmt.Println(tiers.Delete(ctx, "customer-42"))
	tier, err = tiers.Lookup(ctx, "customer-42")
	fmt.Println(tier.Name, tier.Limits, err) // the zero Tier: the limiter's own limits
	// Output:
	// <nil>
	// pro [50/s] <nil>
	// <nil>
	//  [] <nil>
}
