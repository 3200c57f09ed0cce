package testserver

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"
)

// want fails the test unless the server replies that, printed with %v.
func want(t *testing.T, s *Server, reply string, args ...string) {
	t.Helper()
	got, err := s.Do(args...)
	if err != nil || fmt.Sprint(got) != reply {
		t.Fatalf("%v: %v, %v; want %s", args, got, err, reply)
	}
}

// eventually waits until ok, as long as a busy machine may need.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	err := poll(patience, func() error {
		if !ok() {
			return errors.New("not yet: " + what)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// timedOut reports whether a server did not answer, or on a busy machine was not even connected to.
func timedOut(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

// needServer is for tests that do not begin with one of the functions for tests.
func needServer(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		giveUp(t, err)
	}
}

func TestStandalone(t *testing.T) {
	t.Parallel()
	s := Redis(t, "--maxmemory", "10mb", "--requirepass", "p/w")
	want(t, s, "PONG", "PING")
	want(t, s, "[maxmemory 10485760]", "CONFIG", "GET", "maxmemory")
	want(t, s, "2", "EVAL", "return ARGV[1] + 1", "0", "1")
	if got, err := s.Do("EVAL", "return {1, 'x', {false}, {err = 'ERR y'}}", "0"); err != nil ||
		!reflect.DeepEqual(got, []any{int64(1), "x", []any{nil}, replyError("ERR y")}) {
		t.Errorf("%#v, %v", got, err)
	}
	if _, err := s.Do("GET"); err == nil || !strings.Contains(err.Error(), "ERR wrong number of arguments") {
		t.Errorf("error reply: %v", err)
	}
	if calls := s.Info("commandstats", "cmdstat_eval"); !strings.HasPrefix(calls, "calls=2,") {
		t.Errorf("cmdstat_eval is %q", calls)
	}
	if v := s.Info("server", "nothing"); v != "" {
		t.Errorf("a field that is not there: %q", v)
	}
	if u := "redis://:p%2Fw@" + s.Addr(); s.URL() != u {
		t.Errorf("URL %s, want %s", s.URL(), u)
	}
}

// A RESP2Proxy refuses what RESP2 had not, and passes the rest on, also what is sent at once.
func TestRESP2Proxy(t *testing.T) {
	t.Parallel()
	s := Redis(t)
	addr := RESP2Proxy(t, s)
	for _, command := range [][]string{{"hello", "3"}, {"CLIENT", "TRACKING", "ON"}} {
		if got, err := exchange(patience, addr, nil, command); err == nil || !strings.Contains(err.Error(), "ERR unknown command") {
			t.Errorf("%v: %v, %v", command, got, err)
		}
	}
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	_, _ = io.WriteString(conn, encode([]string{"SET", "a", "x\r\n"})+encode([]string{"HELLO", "3"})+encode([]string{"MGET", "a", "b"})+encode([]string{"GET", "b"}))
	r := bufio.NewReader(conn)
	for _, want := range []any{"OK", replyError("ERR unknown command 'HELLO'"), []any{"x\r\n", nil}, nil} {
		if got, err := readReply(r); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%#v, %v; want %#v", got, err, want)
		}
	}
}

func TestKillRestartPause(t *testing.T) {
	t.Parallel()
	s := Redis(t, "--appendonly", "yes", "--appendfsync", "always")
	want(t, s, "OK", "SET", "a", "1")
	addr, pid := s.Addr(), s.Pid()
	s.Kill()
	s.Kill()
	s.Pause()
	if _, err := s.Do("PING"); err == nil {
		t.Fatal("a killed server answers")
	}
	for range 2 { // of one that is down, of one that runs
		if err := s.Restart(); err != nil {
			t.Fatal(err)
		}
		want(t, s, "1", "GET", "a")
		if s.Addr() != addr || s.Pid() == pid {
			t.Fatalf("restarted as %s, process %d; was %s, %d", s.Addr(), s.Pid(), addr, pid)
		}
		pid = s.Pid()
	}

	s.Pause()
	if reply, err := s.do(100*time.Millisecond, "PING"); !timedOut(err) {
		t.Fatalf("a paused server: %v, %v", reply, err)
	}
	s.Resume()
	want(t, s, "PONG", "PING")
	s.Pause()
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	s.Pause() // for Stop
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("directory after Stop: %v", err)
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	s, conf := RedisTLS(t)
	want(t, s, "PONG", "PING")
	if !strings.HasPrefix(s.URL(), "rediss://127.0.0.1:") {
		t.Error(s.URL())
	}
	if reply, err := exchange(patience, s.Addr(), conf, []string{"PING"}); err != nil || reply != "PONG" {
		t.Errorf("with the config: %v, %v", reply, err)
	}
	var unknown *tls.CertificateVerificationError
	strict := &tls.Config{ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12}
	if _, err := exchange(patience, s.Addr(), strict, []string{"PING"}); !errors.As(err, &unknown) {
		t.Errorf("without the authority: %v", err)
	}
	if reply, err := exchange(patience, s.Addr(), nil, []string{"PING"}); err == nil {
		t.Errorf("without TLS: %v", reply)
	}
}

func TestCluster(t *testing.T) {
	t.Parallel()
	c := RedisCluster(t, 3, 1)
	if len(c.Servers) != 6 || strings.Count(c.URL(), "addr=") != 5 {
		t.Fatalf("%d servers, URL %s", len(c.Servers), c.URL())
	}
	for i, s := range c.Servers {
		role := "master"
		if i >= 3 {
			role = "slave"
		}
		if r := s.Info("replication", "role"); r != role {
			t.Errorf("server %d is a %s, want a %s", i, r, role)
		}
	}
	for _, key := range []string{"", "a", "foo", "{user1000}.following", "foo{}{bar}", "foo{{bar}}zap", "foo{bar}{zap}", "é\x00{"} {
		want(t, c.Servers[0], fmt.Sprint(c.Slot(key)), "CLUSTER", "KEYSLOT", key)
		want(t, c.Owner(key), "OK", "SET", key, "1")
	}

	const key = "{m}0"
	slot, from := c.Slot(key), c.Owner(key)
	to := c.Servers[0]
	if to == from {
		to = c.Servers[1]
	}
	for i := range 5 {
		want(t, from, "OK", "SET", fmt.Sprint("{m}", i), "1")
	}
	pauses := 0
	if err := c.MigrateSlot(slot, to, func() {
		pauses++
		if c.Owner(key) != from {
			t.Error("the slot has a new owner before its last key was moved")
		}
		want(t, from, fmt.Sprint(5-pauses), "CLUSTER", "COUNTKEYSINSLOT", fmt.Sprint(slot))
	}); err != nil {
		t.Fatal(err)
	}
	if pauses != 5 || c.Owner(key) != to {
		t.Errorf("%d pauses; the owner is %v, want %v", pauses, c.Owner(key).Addr(), to.Addr())
	}
	want(t, to, "1", "GET", key)
	if _, err := from.Do("GET", key); err == nil || !strings.Contains(err.Error(), "MOVED "+fmt.Sprint(slot)+" "+to.Addr()) {
		t.Errorf("the old owner says: %v", err)
	}
	if err := c.MigrateSlot(slot, to, nil); err == nil {
		t.Error("moved a slot to its owner")
	}
	for i := range 250 {
		want(t, to, "OK", "SET", fmt.Sprint("{m}", i), "1")
	}
	if err := c.MigrateSlot(slot, from, nil); err != nil {
		t.Fatal(err)
	}
	want(t, from, "250", "CLUSTER", "COUNTKEYSINSLOT", fmt.Sprint(slot))

	master, replica := c.Servers[1], c.Servers[4]
	if err := c.Failover(replica); err != nil {
		t.Fatal(err)
	}
	if o := c.owner(slots / 2); o != replica {
		t.Errorf("the owner is %s after a failover to %s", o.Addr(), replica.Addr())
	}
	eventually(t, "the old master follows", func() bool { return master.Info("replication", "master_link_status") == "up" })
	replica.Kill()
	eventually(t, "the old master takes over", func() bool { return c.owner(slots/2) == master })
}

func TestSmallCluster(t *testing.T) {
	t.Parallel()
	c := RedisCluster(t, 1, 0)
	want(t, c.Owner("a"), "OK", "SET", "a", "1")
	if c.URL() != c.Servers[0].URL() {
		t.Error(c.URL())
	}
}

func TestSentinel(t *testing.T) {
	t.Parallel()
	s := RedisSentinel(t, 2)
	if len(s.Replicas) != 2 || len(s.Sentinels) != 3 || s.MasterAddr() != s.Master.Addr() {
		t.Fatalf("%d replicas, %d sentinels, master %s", len(s.Replicas), len(s.Sentinels), s.MasterAddr())
	}
	want(t, s.Master, "OK", "SET", "a", "1")
	want(t, s.Master, "2", "WAIT", "2", "50000")
	s.Master.Kill()
	eventually(t, "another master", func() bool {
		addr := s.MasterAddr()
		return addr == s.Replicas[0].Addr() || addr == s.Replicas[1].Addr()
	})
	promoted := s.Replicas[0]
	if promoted.Addr() != s.MasterAddr() {
		promoted = s.Replicas[1]
	}
	want(t, promoted, "OK", "SET", "a", "2")
	if err := s.Master.Restart(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the old master follows", func() bool { return s.Master.Info("replication", "master_link_status") == "up" })
	want(t, s.Master, "2", "GET", "a")
	s.Sentinels[0].Kill()
	if s.MasterAddr() != promoted.Addr() {
		t.Errorf("the second sentinel says %q", s.MasterAddr())
	}
}

func TestStartFails(t *testing.T) {
	t.Parallel()
	needServer(t)
	s, err := StartRedis("--no-such-option", "1")
	if s != nil || err == nil || !strings.Contains(err.Error(), "no-such-option") {
		t.Errorf("%v, %v; want the end of the log", s, err)
	}
}

// TestPortTaken starts a server on the port of another one.
func TestPortTaken(t *testing.T) {
	t.Parallel()
	s := Redis(t)
	_, port := s.hostPort()
	other, err := StartRedis("--port", port) // not seen by Addr
	if err == nil {
		t.Fatal("started on", other.Addr())
	}
	if !strings.Contains(err.Error(), "Address already in use") {
		t.Error(err)
	}
	want(t, s, "PONG", "PING")

	// And one whose port somebody has while it is down, for a while.
	s.Kill()
	l, err := net.Listen("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(300*time.Millisecond, func() { l.Close() })
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	want(t, s, "PONG", "PING")
}

// outcome is a test that notes how it ends.
type outcome struct {
	testing.TB
	how string
}

func (o *outcome) Helper()      {}
func (o *outcome) Skip(...any)  { o.how = "skip"; runtime.Goexit() }
func (o *outcome) Fatal(...any) { o.how = "fatal"; runtime.Goexit() }

func TestMissingBinary(t *testing.T) {
	t.Setenv("PATH", "")
	if _, err := StartRedis(); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("error %v, want exec.ErrNotFound", err)
	}
	for _, c := range []struct{ ci, how string }{{"", "skip"}, {"false", "skip"}, {"true", "fatal"}} {
		t.Setenv("CI", c.ci)
		for name, start := range map[string]func(tb testing.TB){
			"Redis":         func(tb testing.TB) { Redis(tb) },
			"RedisTLS":      func(tb testing.TB) { RedisTLS(tb) },
			"RedisCluster":  func(tb testing.TB) { RedisCluster(tb, 1, 0) },
			"RedisSentinel": func(tb testing.TB) { RedisSentinel(tb, 1) },
		} {
			o, done := &outcome{TB: t}, make(chan struct{})
			go func() {
				defer close(done)
				start(o)
			}()
			<-done
			if o.how != c.how {
				t.Errorf("%s with CI=%q: %q, want %q", name, c.ci, o.how, c.how)
			}
		}
	}
}

// Another server that lacks something skips the tests that need it; redis-server fails them.
func TestOtherServer(t *testing.T) {
	needServer(t)
	bin, err := exec.LookPath("redis-server")
	if err != nil {
		t.Skip(err)
	}
	for _, c := range []struct{ server, how string }{{bin, "skip"}, {"", "fatal"}} {
		t.Setenv(otherServer, c.server)
		o, done := &outcome{TB: t}, make(chan struct{})
		go func() {
			defer close(done)
			Redis(o, "--no-such-setting", "yes")
		}()
		<-done
		if o.how != c.how {
			t.Errorf("with %s=%q: %q, want %q", otherServer, c.server, o.how, c.how)
		}
	}
	t.Setenv(otherServer, bin)
	want(t, Redis(t), "PONG", "PING")
	t.Setenv(otherServer, "/no/such/server")
	if _, err := StartRedis(); !errors.Is(err, exec.ErrNotFound) && !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v, want exec.ErrNotFound", err)
	}
}

// TestThreadEnds starts a server on a thread that ends: the server stays.
func TestThreadEnds(t *testing.T) {
	t.Parallel()
	needServer(t)
	started := make(chan *Server)
	go func() {
		runtime.LockOSThread() // and no unlock: the thread ends with the goroutine
		s, err := StartRedis()
		if err != nil {
			t.Error(err)
		}
		started <- s
	}()
	s := <-started
	if s == nil {
		return
	}
	stopAtEnd(t, s)
	time.Sleep(200 * time.Millisecond)
	want(t, s, "PONG", "PING")
}

// TestDiesWithTheProgram kills a program that started a server: this test, in a process of its own.
func TestDiesWithTheProgram(t *testing.T) {
	const child = "TESTSERVER_CHILD"
	if os.Getenv(child) != "" {
		s := Redis(t)
		fmt.Println("addr", s.Addr(), s.dir)
		_, _ = io.Copy(io.Discard, os.Stdin) // until the parent is gone
		return
	}
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has Pdeathsig")
	}
	needServer(t)
	cmd := exec.Command(os.Args[0], "-test.run=^TestDiesWithTheProgram$", "-test.v")
	cmd.Env = append(os.Environ(), child+"=1")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var addr, dir string
	for lines := bufio.NewScanner(stdout); addr == "" && lines.Scan(); {
		_, _ = fmt.Sscanf(lines.Text(), "addr %s %s", &addr, &dir)
	}
	if addr == "" {
		t.Error("the program started no server")
	}
	if _, err := exchange(patience, addr, nil, []string{"PING"}); err != nil {
		t.Error(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait()
	eventually(t, "the server is gone", func() bool {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	os.RemoveAll(dir)
}
