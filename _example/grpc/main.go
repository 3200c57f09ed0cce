// Grpc shares one limit between a gRPC server, a Gin engine and a net/http handler: an API key has
// one budget, whichever of them it asks. Where they are different programs, the limiters have the
// same name and limits, and one Redis. In _example, run
//
//	go run ./grpc
//
// and try what it prints.
package main

import (
	"cmp"
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/ginlimit/ginlimit"
)

const keyHeader = "X-API-Key"

func newLimiter(limit ginlimit.Limit) (*ginlimit.Limiter, error) {
	return ginlimit.NewLimiter(limit, ginlimit.ByAPIKey(keyHeader), ginlimit.WithName("api"), ginlimit.WithDenyHandler(deny))
}

// newServer returns a gRPC server, which charges each call and each stream as it begins.
func newServer(l *ginlimit.Limiter) *grpc.Server {
	s := grpc.NewServer(
		grpc.UnaryInterceptor(func(ctx context.Context, q any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
			if err := allow(ctx, l); err != nil {
				return nil, err
			}
			return handle(ctx, q)
		}),
		grpc.StreamInterceptor(func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
			if err := allow(stream.Context(), l); err != nil {
				return err
			}
			return handle(srv, stream)
		}))
	grpc_health_v1.RegisterHealthServer(s, health.NewServer()) // stands for a service of your own
	return s
}

// allow charges a call, and returns the status of one that does not pass.
func allow(ctx context.Context, l *ginlimit.Limiter) error {
	var key string
	if values := metadata.ValueFromIncomingContext(ctx, keyHeader); len(values) > 0 {
		key = ginlimit.KeyOfAPIKey(keyHeader, values[0])
	}
	d, _ := l.Allow(ctx, key, 1)
	if d.Passes() {
		return nil
	}
	s := status.New(codeOf(d), messageOf(d))
	if d.RetryAfter > 0 {
		s, _ = s.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(d.RetryAfter)})
	}
	return s.Err()
}

// codeOf returns the code of gRPC for a decision that does not pass.
func codeOf(d ginlimit.Decision) codes.Code {
	switch d.Status() {
	case http.StatusTooManyRequests:
		return codes.ResourceExhausted
	case http.StatusBadRequest:
		return codes.Unauthenticated // there is no key
	default:
		return codes.Unavailable
	}
}

func messageOf(d ginlimit.Decision) string {
	return strings.ToLower(http.StatusText(d.Status()))
}

// deny is for gRPC calls that come through Gin. A client of gRPC takes HTTP's 429 for Unavailable,
// so the status has to be gRPC's own.
func deny(c *gin.Context, d ginlimit.Decision) {
	if !strings.HasPrefix(c.ContentType(), "application/grpc") {
		c.JSON(d.Status(), gin.H{"error": messageOf(d)})
		return
	}
	c.Header("Content-Type", "application/grpc")
	c.Header("Grpc-Status", strconv.Itoa(int(codeOf(d))))
	c.Header("Grpc-Message", messageOf(d))
	c.Status(http.StatusOK)
}

// newRouter returns an engine before a net/http handler, and before a gRPC server, which charges
// nothing of its own.
func newRouter(l *ginlimit.Limiter, site http.Handler, calls http.Handler) *gin.Engine {
	r := gin.New()
	r.SetTrustedProxies(nil)
	r.Use(gin.Recovery())
	limited := r.Group("/", l.Handle)
	limited.GET("/ping", func(c *gin.Context) { c.String(http.StatusOK, "pong\n") })
	limited.Any("/site/*path", gin.WrapH(site))
	limited.POST("/grpc.health.v1.Health/:method", gin.WrapH(calls))
	return r
}

const usage = `HTTP on %[1]s, and gRPC through Gin too. Ten a minute for each key, of all of them together:

    curl -i -H 'X-API-Key: ann' http://%[1]s/ping
    curl -i -H 'X-API-Key: ann' http://%[1]s/site/

gRPC has a port of its own, %[2]s. Both have the service grpc.health.v1.Health.

`

func main() {
	gin.SetMode(gin.ReleaseMode)
	l, err := newLimiter(ginlimit.PerMinute(10))
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", cmp.Or(os.Getenv("GRPC_ADDR"), "127.0.0.1:8081"))
	if err != nil {
		log.Fatal(err)
	}
	go func() { log.Fatal(newServer(l).Serve(listener)) }()

	site := http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) { _, _ = fmt.Fprintln(w, "this is", q.URL.Path) })
	unlimited := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(unlimited, health.NewServer())
	srv := &http.Server{
		Addr:              cmp.Or(os.Getenv("ADDR"), "127.0.0.1:8080"),
		Handler:           newRouter(l, site, unlimited),
		Protocols:         protocols(),
		ReadHeaderTimeout: 5 * time.Second,
	}
	fmt.Printf(usage, srv.Addr, listener.Addr())
	log.Fatal(srv.ListenAndServe())
}

// protocols are those of a server without TLS that gRPC can use.
func protocols() *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	p.SetUnencryptedHTTP2(true)
	return p
}
