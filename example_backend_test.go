package ginlimit_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/gin-gonic/gin"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/memory"
	"github.com/ginlimit/ginlimit/backend/redis"
)

// Two instances of an application count together.
func ExampleWithBackend_redis() {
	server, err := miniredis.Run() // an application has a real one, with client-side caching
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()

	instance := func() *gin.Engine {
		b, err := redis.Dial(context.Background(), "redis://"+server.Addr()+"?client_cache=0",
			redis.WithDenyCache(false), redis.WithTimeout(time.Second))
		if err != nil {
			log.Fatal(err)
		}
		r := gin.New()
		r.SetTrustedProxies(nil)
		r.Use(ginlimit.New(ginlimit.PerMinute(2), ginlimit.ByIP(), ginlimit.WithBackend(b), ginlimit.WithName("api")))
		r.GET("/", ok)
		return r
	}
	one, two := instance(), instance()
	get(one, "/", "X-RateLimit-Remaining")
	get(two, "/", "X-RateLimit-Remaining")
	get(one, "/", "X-RateLimit-Remaining")
	// Output:
	// 200 X-RateLimit-Remaining: 1
	// 200 X-RateLimit-Remaining: 0
	// 429 X-RateLimit-Remaining: 0
}

// While Redis cannot be reached each of four instances lets a fourth part of the limit through, by its own memory.
func ExampleWithBackend_fallback() {
	nobody, err := redis.Dial(context.Background(), "redis://127.0.0.1:1")
	if err != nil {
		log.Fatal(err)
	}
	defer nobody.Close()

	r := gin.New()
	r.SetTrustedProxies(nil)
	r.Use(ginlimit.New(ginlimit.PerHour(8), ginlimit.ByIP(), ginlimit.WithName("api"),
		ginlimit.WithBackend(backend.Fallback(nobody, memory.New(), backend.WithShare(4)))))
	r.GET("/", func(c *gin.Context) {
		d, _ := ginlimit.FromContext(c)
		fmt.Println("decided by", d.Source)
	})

	for range 3 {
		get(r, "/")
	}
	// Output:
	// decided by fallback
	// 200
	// decided by fallback
	// 200
	// 429
}
