package ginlimitprom_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/backend/redis"
	ginlimitprom "github.com/ginlimit/ginlimit/contrib/prometheus"
)

func Example() {
	metrics := ginlimitprom.New()
	prometheus.MustRegister(metrics)

	r := gin.New()
	r.SetTrustedProxies(nil)
	r.GET("/metrics", gin.WrapH(promhttp.Handler())) // before the limiter: Prometheus is not limited
	r.Use(ginlimit.New(ginlimit.PerMinute(3), ginlimit.ByIP(), ginlimit.WithObserver(metrics.Observe)))
	r.GET("/ping", func(c *gin.Context) { c.String(http.StatusOK, "pong") })

	for range 5 {
		r.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/ping", nil))
	}
	w := httptest.NewRecorder()
	r.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for line := range strings.Lines(w.Body.String()) {
		if strings.HasPrefix(line, "ginlimit_decisions_total") || strings.HasPrefix(line, "ginlimit_denied_keys") {
			fmt.Print(line)
		}
	}
	// Output:
	// ginlimit_decisions_total{limit="default",limiter="default",outcome="allowed",tier=""} 3
	// ginlimit_decisions_total{limit="default",limiter="default",outcome="denied",tier=""} 2
	// ginlimit_denied_keys{limiter="default"} 1
}

// A limiter is watched once it is made, because it is made with the Collector as its observer.
func ExampleCollector_Watch() {
	metrics := ginlimitprom.New()
	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics)

	inFlight, err := ginlimit.NewLimiter(ginlimit.InFlight(200), ginlimit.Global(), ginlimit.WithName("in-flight"),
		ginlimit.WithObserver(metrics.Observe))
	if err != nil {
		log.Fatal(err)
	}
	metrics.Watch(inFlight)

	r := gin.New()
	r.GET("/report", inFlight.Handle, func(_ *gin.Context) {
		families, err := registry.Gather()
		if err != nil {
			log.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() == "ginlimit_requests_in_flight" {
				fmt.Println(f.GetMetric()[0].GetGauge().GetValue(), "in flight")
			}
		}
	})
	r.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/report", nil))
	// Output: 1 in flight
}

// One Collector serves all limiters of an application, and shows the circuit breakers of its
// backends.
func ExampleWithBreakers() {
	b, err := redis.Dial(context.Background(), os.Getenv("REDIS_URL"))
	if err != nil {
		log.Fatal(err)
	}
	defer b.Close()
	metrics := ginlimitprom.New(ginlimitprom.WithBreakers("redis", b.Breakers))
	prometheus.MustRegister(metrics)

	observe := ginlimit.WithObserver(metrics.Observe)
	r := gin.New()
	r.Use(ginlimit.New(ginlimit.PerMinute(600), ginlimit.ByIP(), observe, ginlimit.WithName("all"), ginlimit.WithBackend(b)))
	r.POST("/login", ginlimit.New(ginlimit.PerMinute(5), ginlimit.ByIP(), observe, ginlimit.WithName("login"), ginlimit.WithBackend(b)))
}

// Labels and a prefix of your own come from client_golang.
func ExampleNew_labels() {
	registry := prometheus.NewRegistry()
	labelled := prometheus.WrapRegistererWith(prometheus.Labels{"service": "checkout"}, registry)
	labelled.MustRegister(ginlimitprom.New())
}

// A fleet whose tiers are named after customers tells apart the first thousand, and calls a limit
// near at a tenth.
func ExampleWithCardinalityLimit() {
	metrics := ginlimitprom.New(ginlimitprom.WithCardinalityLimit(1000), ginlimitprom.WithNearLimit(0.1))
	fmt.Println(prometheus.NewRegistry().Register(metrics))
	// Output: <nil>
}

// A limit is near when less than a tenth of it is left.
func ExampleWithNearLimit() {
	metrics := ginlimitprom.New(ginlimitprom.WithNearLimit(0.1))
	limiter, err := ginlimit.NewLimiter(ginlimit.PerHour(20), ginlimit.Global(), ginlimit.WithObserver(metrics.Observe))
	if err != nil {
		log.Fatal(err)
	}
	for range 20 {
		_, _ = limiter.Allow(context.Background(), "key", 1)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics)
	w := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for line := range strings.Lines(w.Body.String()) {
		if strings.HasPrefix(line, "ginlimit_near_limit") {
			fmt.Print(line)
		}
	}
	// Output: ginlimit_near_limit_decisions_total{limit="default",limiter="default",tier=""} 2
}
