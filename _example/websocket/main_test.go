package main

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/coder/websocket"

	"github.com/ginlimit/ginlimit"
)

// newService starts the service with limits of which nothing comes back while a test runs: four
// messages, one of them for the handshake, and two warnings.
func newService(t *testing.T) *httptest.Server {
	r, err := newRouter(ginlimit.PerDay(4), ginlimit.PerDay(2))
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(r)
	t.Cleanup(s.Close)
	return s
}

func dial(t *testing.T, s *httptest.Server, user string) (*websocket.Conn, *http.Response) {
	t.Helper()
	conn, response, err := websocket.Dial(t.Context(), s.URL+"/echo?user="+user, nil)
	if err != nil && response == nil {
		t.Fatal(err)
	}
	if conn != nil {
		t.Cleanup(func() { conn.CloseNow() })
	}
	return conn, response
}

// say sends a message and wants an answer.
func say(t *testing.T, conn *websocket.Conn, message, want string) {
	t.Helper()
	if err := conn.Write(t.Context(), websocket.MessageText, []byte(message)); err != nil {
		t.Fatal(err)
	}
	if _, got, err := conn.Read(t.Context()); err != nil || string(got) != want {
		t.Fatalf("%q is answered with %q, %v, want %q", message, got, err, want)
	}
}

func TestMessagesAreLimited(t *testing.T) {
	s := newService(t)
	conn, _ := dial(t, s, "ann")
	other, _ := dial(t, s, "ann") // charges a unit too
	say(t, conn, "one", "one")
	say(t, other, "two", "two")
	say(t, conn, "three", "slow down")
	bob, _ := dial(t, s, "bob")
	say(t, bob, "one", "one")
}

func TestRepeatedBreachesCloseTheConnection(t *testing.T) {
	s := newService(t)
	conn, _ := dial(t, s, "ann")
	for range 3 {
		say(t, conn, "hello", "hello")
	}
	for range 2 {
		say(t, conn, "hello", "slow down")
	}
	if err := conn.Write(t.Context(), websocket.MessageText, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := conn.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
		t.Fatalf("got %v, want the connection closed with status 1008", err)
	}
	_, response := dial(t, s, "ann")
	if response.StatusCode != http.StatusTooManyRequests || response.Header.Get("Retry-After") == "" {
		t.Errorf("a banned user's handshake has status %d and Retry-After %q", response.StatusCode, response.Header.Get("Retry-After"))
	}
	bob, _ := dial(t, s, "bob")
	say(t, bob, "hello", "hello")
}

func TestNobodyIsNotConnected(t *testing.T) {
	if conn, response := dial(t, newService(t), ""); conn != nil || response.StatusCode != http.StatusBadRequest {
		t.Errorf("a handshake without a user has status %d", response.StatusCode)
	}
}
