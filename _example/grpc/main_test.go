package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gin-gonic/gin"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/ginlimit/ginlimit"
)

// services are all that share a limit: HTTP, gRPC on a port of its own, and gRPC through Gin.
type services struct {
	url          string
	own, through grpc_health_v1.HealthClient
}

// newServices starts the services. Each key has two requests in a day, so that none comes back
// while a test runs.
func newServices(t *testing.T) services {
	l, err := newLimiter(ginlimit.PerDay(2))
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	own := newServer(l)
	go own.Serve(listener)
	t.Cleanup(own.Stop)

	unlimited := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(unlimited, health.NewServer())
	site := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "the site") })
	web := httptest.NewUnstartedServer(newRouter(l, site, unlimited))
	web.Config.Protocols = protocols()
	web.Start()
	t.Cleanup(web.Close)
	return services{web.URL, connect(t, listener.Addr().String()), connect(t, strings.TrimPrefix(web.URL, "http://"))}
}

func connect(t *testing.T, addr string) grpc_health_v1.HealthClient {
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return grpc_health_v1.NewHealthClient(conn)
}

// as returns the context of a call with an API key, or without one.
func as(t *testing.T, key string) context.Context {
	if key == "" {
		return t.Context()
	}
	return metadata.AppendToOutgoingContext(t.Context(), keyHeader, key)
}

// get sends a request and wants a status and a body.
func (s services) get(t *testing.T, key, path string, want int, wantBody string) {
	t.Helper()
	q, err := http.NewRequest(http.MethodGet, s.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set(keyHeader, key)
	answer, err := http.DefaultClient.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != want || string(body) != wantBody {
		t.Errorf("%s has status %d and body %q, %v, want %d and %q", path, answer.StatusCode, body, err, want, wantBody)
	}
}

func check(t *testing.T, c grpc_health_v1.HealthClient, key string, want codes.Code) *status.Status {
	t.Helper()
	_, err := c.Check(as(t, key), new(grpc_health_v1.HealthCheckRequest))
	if got := status.Code(err); got != want {
		t.Fatalf("the call ends with %v (%v), want %v", got, err, want)
	}
	return status.Convert(err)
}

func TestAllShareOneLimit(t *testing.T) {
	s := newServices(t)
	s.get(t, "ann", "/site/", http.StatusOK, "the site")
	check(t, s.own, "ann", codes.OK)
	s.get(t, "ann", "/site/", http.StatusTooManyRequests, `{"error":"too many requests"}`)
	s.get(t, "ann", "/ping", http.StatusTooManyRequests, `{"error":"too many requests"}`)
	s.get(t, "bob", "/ping", http.StatusOK, "pong\n")
	check(t, s.through, "bob", codes.OK)
	check(t, s.own, "bob", codes.ResourceExhausted)
}

func TestARefusedCallSaysWhenToComeBack(t *testing.T) {
	s := newServices(t)
	for range 2 {
		check(t, s.own, "ann", codes.OK)
	}
	refused := check(t, s.own, "ann", codes.ResourceExhausted)
	if len(refused.Details()) != 1 {
		t.Fatalf("the details are %v, want one", refused.Details())
	}
	if retry, ok := refused.Details()[0].(*errdetails.RetryInfo); !ok || retry.GetRetryDelay().AsDuration() <= 0 {
		t.Errorf("the detail is %v, want a delay", refused.Details()[0])
	}
	stream, err := s.own.Watch(as(t, "ann"), new(grpc_health_v1.HealthCheckRequest))
	if err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a stream ends with %v, want ResourceExhausted", err)
	}
	refused = check(t, s.through, "ann", codes.ResourceExhausted)
	if refused.Message() != "too many requests" {
		t.Errorf("the message is %q", refused.Message())
	}
}

func TestWithoutAKey(t *testing.T) {
	s := newServices(t)
	check(t, s.own, "", codes.Unauthenticated)
	check(t, s.through, "", codes.Unauthenticated)
	s.get(t, "", "/ping", http.StatusBadRequest, `{"error":"bad request"}`)
}

// TestGRPCTakesHTTPForUnavailable is why there is deny: without it, clients of gRPC learn no limit.
func TestGRPCTakesHTTPForUnavailable(t *testing.T) {
	r := gin.New()
	r.Use(ginlimit.New(ginlimit.PerDay(0), ginlimit.Global()))
	web := httptest.NewUnstartedServer(r)
	web.Config.Protocols = protocols()
	web.Start()
	defer web.Close()
	check(t, connect(t, strings.TrimPrefix(web.URL, "http://")), "ann", codes.Unavailable)
}
