package ginlimitotel_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"

	"github.com/gin-gonic/gin"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/ginlimit/ginlimit"
	ginlimitotel "github.com/ginlimit/ginlimit/contrib/otel"
)

// startSpans stands for otelgin, or for otelhttp around the engine: it puts the request's span into
// the request's context.
func startSpans(c *gin.Context) {
	ctx, span := otel.Tracer("example").Start(c.Request.Context(), c.FullPath())
	defer span.End()
	c.Request = c.Request.WithContext(ctx)
	c.Next()
}

// A limiter is watched once it is made, because it is made with the Observer.
func ExampleObserver_Watch() {
	observer, err := ginlimitotel.New()
	if err != nil {
		log.Fatal(err)
	}
	inFlight, err := ginlimit.NewLimiter(ginlimit.InFlight(200), ginlimit.Global(), ginlimit.WithName("in-flight"),
		ginlimit.WithObserver(observer.Observe))
	if err != nil {
		log.Fatal(err)
	}
	if err := observer.Watch(inFlight); err != nil {
		log.Fatal(err)
	}
	r := gin.New()
	r.GET("/report", inFlight.Handle, func(c *gin.Context) { c.String(http.StatusOK, "pong") })
}

func Example() {
	spans := tracetest.NewInMemoryExporter()
	otel.SetTracerProvider(trace.NewTracerProvider(trace.WithSyncer(spans))) // an exporter to your collector, in real life

	observer, err := ginlimitotel.New() // the metrics go to otel.GetMeterProvider()
	if err != nil {
		log.Fatal(err)
	}

	r := gin.New()
	r.SetTrustedProxies(nil)
	r.Use(startSpans) // your tracing middleware; before the limiters, so that they find a span
	r.Use(ginlimit.New(ginlimit.PerHour(1), ginlimit.ByIP(), ginlimit.WithName("api"),
		ginlimit.WithObserver(observer.Observe)))
	r.GET("/ping", func(c *gin.Context) { c.String(http.StatusOK, "pong") })

	for range 2 {
		r.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/ping", nil))
	}
	for _, span := range spans.GetSpans() {
		fmt.Println(span.Name, len(span.Events), "events")
		for _, a := range span.Attributes {
			if a.Key == "ginlimit.limiter" || a.Key == "ginlimit.outcome" {
				fmt.Println(" ", a.Key, a.Value.AsString())
			}
		}
	}
	// Output:
	// /ping 0 events
	// /ping 1 events
	//   ginlimit.limiter api
	//   ginlimit.outcome denied
}

func ExampleNew() {
	observer, err := ginlimitotel.New()
	if err != nil {
		log.Fatal(err)
	}
	_ = ginlimit.New(ginlimit.PerMinute(100), ginlimit.ByIP(), ginlimit.WithObserver(observer.Observe))
}

func ExampleWithMeterProvider() {
	provider := metric.NewMeterProvider(metric.WithReader(metric.NewManualReader())) // a PeriodicReader, in real life
	observer, err := ginlimitotel.New(ginlimitotel.WithMeterProvider(provider))
	fmt.Println(observer != nil, err)
	// Output: true <nil>
}

// A service that traces one request in a thousand can afford to see what is left to those that
// pass.
func ExampleWithAllowedEvents() {
	observer, err := ginlimitotel.New(ginlimitotel.WithAllowedEvents())
	fmt.Println(observer != nil, err)
	// Output: true <nil>
}

func ExampleWithCardinalityLimit() {
	_, err := ginlimitotel.New(ginlimitotel.WithCardinalityLimit(1000))
	fmt.Println(err)
	_, err = ginlimitotel.New(ginlimitotel.WithCardinalityLimit(0))
	fmt.Println(err)
	// Output:
	// <nil>
	// ginlimit: ginlimitotel.WithCardinalityLimit(0): use 1 to 2000
}

func ExampleWithHashedKey() {
	secret := func(context.Context) []byte { return []byte("32 random bytes, kept with care.") } // of yours

	observer, err := ginlimitotel.New(ginlimitotel.WithHashedKey(secret(context.Background())))
	fmt.Println(observer != nil, err)

	_, err = ginlimitotel.New(ginlimitotel.WithHashedKey(nil))
	fmt.Println(err)
	// Output:
	// true <nil>
	// ginlimit: ginlimitotel.WithHashedKey: the secret has 0 bytes; use 16 or more, of crypto/rand
}
