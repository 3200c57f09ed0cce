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
