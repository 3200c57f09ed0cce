package main

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/ginlimit/ginlimit/backend/redis"
	"github.com/ginlimit/ginlimit/internal/testserver"
)

func TestMain(m *testing.M) {
	gin.SetMode(gin.ReleaseMode)
	log.SetOutput(io.Discard)
	os.Exit(m.Run())
}

// newInstance starts an instance of the program, with connections of its own.
func newInstance(t *testing.T, redisURL string, opts ...redis.Option) *httptest.Server {
	t.Helper()
	b, err := redis.Dial(t.Context(), redisURL, opts...)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(newRouter(b))
	t.Cleanup(func() { // in the order in which the program ends
		srv.Close()
		b.Close()
	})
	return srv
}

// generous is for tests in which Redis is up: a busy machine is no reason to let requests pass.
var generous = redis.WithTimeout(10 * time.Second)

// get sends GET /ping.
func get(t *testing.T, srv *httptest.Server) *http.Response {
	t.Helper()
	resp, err := srv.Client().Get(srv.URL + "/ping")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp
}

// eventually waits until a request is answered with status and, if limited, with fields.
func eventually(t *testing.T, srv *httptest.Server, status int, limited bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		resp := get(t, srv)
		if resp.StatusCode == status && (resp.Header.Get("RateLimit") != "") == limited {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("status %d, RateLimit %q; want %d, limited: %v", resp.StatusCode, resp.Header.Get("RateLimit"), status, limited)
		}
	}
}

func TestInstancesShareOneLimit(t *testing.T) {
	server := testserver.Redis(t)
	instances := []*httptest.Server{newInstance(t, server.URL(), generous), newInstance(t, server.URL(), generous)}

	for left := 9; left >= 0; left-- {
		resp := get(t, instances[left%2])
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("status %d with %d left", resp.StatusCode, left)
		}
		if got := resp.Header.Get("X-RateLimit-Remaining"); got != strconv.Itoa(left) {
			t.Errorf("X-RateLimit-Remaining: %q, want %d", got, left)
		}
		if got := resp.Header.Get("RateLimit-Policy"); got != `"ping";q=10;w=60` {
			t.Errorf("RateLimit-Policy: %q", got)
		}
	}
	for i, instance := range instances {
		resp := get(t, instance)
		if resp.StatusCode != http.StatusTooManyRequests {
			t.Fatalf("instance %d: the eleventh has status %d", i, resp.StatusCode)
		}
		// Ten a minute is one every six seconds; a busy machine may have let some of them pass.
		seconds, err := strconv.Atoi(resp.Header.Get("Retry-After"))
		if err != nil || seconds < 1 || seconds > 6 {
			t.Errorf("instance %d: Retry-After: %q", i, resp.Header.Get("Retry-After"))
		}
		if got := resp.Header.Get("X-RateLimit-Remaining"); got != "0" {
			t.Errorf("instance %d: X-RateLimit-Remaining: %q", i, got)
		}
		if got := resp.Header.Get("Content-Type"); got != "application/problem+json" {
			t.Errorf("instance %d: Content-Type: %q", i, got)
		}
	}
}

func TestRedisGoesAndComes(t *testing.T) {
	server := testserver.Redis(t)
	instance := newInstance(t, server.URL())
	for range 30 {
		get(t, instance)
	}
	eventually(t, instance, http.StatusTooManyRequests, true)

	server.Kill()
	eventually(t, instance, http.StatusOK, false) // the refusal that it remembers ends with the connection
	for i := range 20 {
		if resp := get(t, instance); resp.StatusCode != http.StatusOK {
			t.Fatalf("request %d without Redis: status %d", i+1, resp.StatusCode)
		}
	}
	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	eventually(t, instance, http.StatusOK, true)
	eventually(t, instance, http.StatusTooManyRequests, true)
}

func TestStartsWithoutRedis(t *testing.T) {
	server := testserver.Redis(t)
	server.Kill()
	instance := newInstance(t, server.URL())
	for i := range 20 {
		if resp := get(t, instance); resp.StatusCode != http.StatusOK {
			t.Fatalf("request %d: status %d", i+1, resp.StatusCode)
		}
	}
	if err := server.Restart(); err != nil {
		t.Fatal(err)
	}
	eventually(t, instance, http.StatusTooManyRequests, true)
}

func TestRun(t *testing.T) {
	if err := run(t.Context(), "127.0.0.1:0", "http://127.0.0.1"); err == nil {
		t.Error("starts with a URL that is not of Redis")
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if err := run(t.Context(), listener.Addr().String(), "redis://127.0.0.1:1"); err == nil {
		t.Error("starts on an address that is taken")
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- run(ctx, "127.0.0.1:0", "redis://127.0.0.1:1") }()
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("ends with %v", err)
	}
}
