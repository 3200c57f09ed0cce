package memory_test

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/memory"
)

func ExampleNew() {
	b := memory.New()
	limit := backend.Limit{Count: 2, Period: time.Hour}
	for range 3 {
		res, err := b.Take(context.Background(), "ip:203.0.113.7", 1, limit)
		fmt.Println(res.Allowed, res.Remaining, err)
	}
	fmt.Println(b.Len())
	// Output:
	// true 1 <nil>
	// true 0 <nil>
	// false 0 <nil>
	// 1
}

// A flood of made-up keys takes no more room than was given, and frees nobody who is over the
// limit.
func ExampleWithMaxKeys() {
	b := memory.New(memory.WithMaxKeys(1000))
	ctx := context.Background()
	limit := backend.Limit{Count: 1, Period: time.Hour}
	b.Take(ctx, "mallory", 1, limit)
	for i := range 100_000 {
		b.Take(ctx, strconv.Itoa(i), 1, limit)
	}
	res, _ := b.Take(ctx, "mallory", 1, limit)
	fmt.Println(b.Len() <= 1000, res.Allowed)
	// Output: true false
}
