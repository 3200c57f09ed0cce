package backend_test

import (
	"context"
	"fmt"
	"time"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/memory"
)

func ExampleFallback() {
	var shared backend.Backend = newBreakable() // a Redis, for example

	instances := 4
	b := backend.Fallback(shared, memory.New(), backend.WithShare(instances))

	limit := backend.Limit{Count: 100, Period: time.Minute}
	res, err := b.Take(context.Background(), "k", 1, limit)
	fmt.Println(res.Source, res.Remaining, err)

	shared.(*breakable).err = errDown
	res, err = b.Take(context.Background(), "k", 1, limit)
	fmt.Println(res.Source, res.Remaining, err)
	// Output:
	// store 99 <nil>
	// fallback 24 <nil>
}

func ExampleLease() {
	var b backend.Backend = memory.New() // a Redis, for example; over memory it only costs

	hot := backend.Lease(b, 1000)

	limit := backend.Limit{Count: 1_000_000, Period: time.Minute}
	stored := 0
	for range 1000 {
		res, err := hot.Take(context.Background(), "k", 1, limit)
		if err != nil || !res.Allowed {
			fmt.Println(res, err)
		}
		if res.Source == backend.SourceStore {
			stored++
		}
	}
	fmt.Println(stored < 100)
	// Output: true
}
