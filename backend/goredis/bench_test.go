package goredis_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	goredis9 "github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/goredis"
	"github.com/ginlimit/ginlimit/backend/redis"
	"github.com/ginlimit/ginlimit/internal/testserver"
)

// BenchmarkTake compares what callers at the same time are decided: on rueidis, on a client of
// go-redis, on one with ContextTimeoutEnabled, with client-side caching too, and on an
// AutoPipeline. "bare" is the client's EVALSHA of a script that does nothing, without this package.
func BenchmarkTake(b *testing.B) {
	s := testserver.Redis(b)
	ctx := context.Background()
	limit := backend.Limit{Count: 36_000_000, Period: time.Hour}
	rueidis, err := redis.Dial(ctx, s.URL(), redis.WithTimeout(ample), redis.WithPing(), redis.WithDenyCache(false))
	require.NoError(b, err)
	b.Cleanup(func() { _ = rueidis.Close() })
	client := newClient(b, s.Addr())
	heeding := newClient(b, s.Addr(), func(o *goredis9.Options) { o.ContextTimeoutEnabled = true })
	caching := newClient(b, s.Addr(), cached, func(o *goredis9.Options) { o.ContextTimeoutEnabled = true })
	duplex := newClient(b, s.Addr(), func(o *goredis9.Options) {
		o.AutoPipelineOptions = &goredis9.AutoPipelineOptions{FullDuplex: true}
	})
	opts := []goredis.Option{goredis.WithTimeout(ample), goredis.WithDenyCache(false)}
	auto := append([]goredis.Option{goredis.WithAutoPipeline(true)}, opts...)
	sha := ask(b, s, "SCRIPT", "LOAD", "return 'done'").(string)
	takes := func(be backend.Backend) func(key string) error {
		return func(key string) error {
			_, err := be.Take(ctx, key, 1, limit)
			return err
		}
	}
	for _, callers := range []int{1, 64, 512} {
		for _, c := range []struct {
			name string
			call func(key string) error
		}{
			{"rueidis", takes(rueidis)},
			{"goredis", takes(goredis.New(client, opts...))},
			{"context", takes(goredis.New(heeding, opts...))},
			{"cached", takes(goredis.New(caching, opts...))},
			{"AutoPipeline", takes(goredis.New(client, auto...))},
			{"AutoPipeline cached", takes(goredis.New(caching, auto...))},
			{"FullDuplex", takes(goredis.New(duplex, auto...))},
			{"bare", func(key string) error { return client.EvalSha(ctx, sha, []string{key}).Err() }},
		} {
			b.Run(fmt.Sprint(c.name, "/", callers), func(b *testing.B) {
				var wg sync.WaitGroup
				for i := range callers {
					wg.Go(func() {
						key := fmt.Sprint("caller ", i)
						for range (b.N + callers - 1 - i) / callers {
							if err := c.call(key); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "decisions/s")
			})
		}
	}
}
