// Package testserver starts the real servers that tests and benchmarks talk to, on free ports of
// 127.0.0.1, and stops them by their process id. It needs redis-server 6.2 or newer in PATH, and
// initdb and postgres there or in /usr/lib/postgresql, and nothing else. REDIS_SERVER in the
// environment is the path of another server to start in place of redis-server, such as
// valkey-server: a test that needs what that server lacks, such as TLS, is skipped. POSTGRES_BIN is
// the directory of another PostgreSQL's initdb and postgres.
//
// [Redis], [RedisTLS], [RedisCluster], [RedisSentinel] and [Postgres] are for tests: they fail the
// test on an error and stop the servers when it ends. Without the program they skip the test, or
// fail it if the environment says CI=true. [StartRedis] and [StartPostgres] are for programs. Start
// servers outside a testing/synctest bubble: they live in real time.
package testserver

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

const (
	patience  = time.Minute     // for whatever a server does in a moment on a machine that is not busy
	askLimit  = 5 * time.Second // for one command of a loop that asks again
	portTries = 5
)

// Server is one redis-server process with a directory of its own. Its methods may be called
// concurrently, except that Kill, Restart and Stop are called one at a time.
type Server struct {
	bin    string
	dir    string // holds redis.conf, which starts empty, and redis.log of the last run
	addr   string
	args   []string
	secure *tls.Config // nil without TLS
	proc   atomic.Pointer[process]
}

// Redis starts a standalone server for a test. args are appended to its command line:
// "--maxmemory", "10mb". Nothing is kept on disk, unless args say so, and "--requirepass" is seen
// by [Server.Do] and [Server.URL].
func Redis(tb testing.TB, args ...string) *Server {
	tb.Helper()
	s, err := StartRedis(args...)
	if err != nil {
		giveUp(tb, err)
	}
	stopAtEnd(tb, s)
	return s
}

// StartRedis is [Redis] for programs: the caller stops the server. The error wraps
// [exec.ErrNotFound] if redis-server is missing.
func StartRedis(args ...string) (*Server, error) {
	s, err := newServer()
	if err != nil {
		return nil, err
	}
	if err := s.start(args...); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// giveUp ends a test whose servers did not start.
func giveUp(tb testing.TB, err error) {
	tb.Helper()
	switch other := os.Getenv(otherServer); {
	case errors.Is(err, exec.ErrNotFound) && os.Getenv("CI") != "true":
		tb.Skip("this test needs a server that is missing (make servers installs it):", err)
	case other != "" && lacks(err):
		tb.Skip("this test needs what", other, "cannot do:", err)
	}
	tb.Fatal(err)
}

// otherServer is in the environment if another server is to be tested than redis-server.
const otherServer = "REDIS_SERVER"

// lacks reports whether a server did not start, or refused a command, because it was built without
// what it was asked for.
func lacks(err error) bool {
	text := strings.ToLower(err.Error())
	return slices.ContainsFunc([]string{"bad directive", "unknown command", "unknown subcommand", "failed finding tls support"},
		func(said string) bool { return strings.Contains(text, said) })
}

func stopAtEnd(tb testing.TB, s *Server) {
	tb.Cleanup(func() {
		if err := s.Stop(); err != nil {
			tb.Error(err)
		}
	})
}

// newServer makes a directory for a server that does not run yet.
func newServer() (*Server, error) {
	bin, err := exec.LookPath(cmp.Or(os.Getenv(otherServer), "redis-server"))
	if err != nil {
		return nil, fmt.Errorf("testserver: %w", err)
	}
	dir, err := os.MkdirTemp("", "testserver-")
	if err != nil {
		return nil, fmt.Errorf("testserver: %w", err)
	}
	s := &Server{bin: bin, dir: dir}
	if err := os.WriteFile(s.path("redis.conf"), nil, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("testserver: %w", err), s.Stop())
	}
	return s, nil
}

// start runs the server on a free port, and on another one if somebody was faster.
func (s *Server) start(args ...string) error {
	for try := 1; ; try++ {
		port, err := freePort()
		if err != nil {
			return err
		}
		s.addr = net.JoinHostPort("127.0.0.1", port)
		listen := []string{"--port", port}
		if s.secure != nil {
			listen = []string{"--port", "0", "--tls-port", port}
		}
		s.args = slices.Concat([]string{s.path("redis.conf")}, listen, []string{
			"--bind", "127.0.0.1", "--protected-mode", "no", "--daemonize", "no", "--dir", s.dir,
			"--save", "", "--appendonly", "no"}, args)
		if err = s.run(); err == nil || !s.portTaken() || try == portTries {
			return err
		}
	}
}

// run starts the process and waits until it answers.
func (s *Server) run() error {
	log, err := os.Create(s.path("redis.log"))
	if err != nil {
		return fmt.Errorf("testserver: %w", err)
	}
	defer func() { _ = log.Close() }() // the process has its own descriptor
	p, err := startProcess(s.bin, s.dir, log, s.args...)
	if err != nil {
		return fmt.Errorf("testserver: %w", err)
	}
	s.proc.Store(p)
	err = poll(patience, func() error {
		select {
		case <-p.exited:
			return final{errors.New("it ended")}
		default:
			return s.ready(p.Pid)
		}
	})
	if err != nil {
		s.Kill()
		return fmt.Errorf("testserver: start of %s %s: %w; the end of its log:\n%s", filepath.Base(s.bin), s.addr, err, s.logTail())
	}
	return nil
}

// ready is nil when the process with that id answers on the port and has loaded its data. Another
// one that took the port before would answer too, even a redis-server of another test.
func (s *Server) ready(pid int) error {
	info, err := s.ask("INFO")
	if err != nil {
		return err
	}
	if id := infoField(info, "process_id"); id != strconv.Itoa(pid) {
		return fmt.Errorf("process %s answers, not %d", id, pid)
	}
	if infoField(info, "loading") == "1" {
		return errors.New("it loads its data")
	}
	return nil
}

func (s *Server) path(name string) string { return filepath.Join(s.dir, name) }

func (s *Server) logTail() string {
	const most = 2000
	log, err := os.ReadFile(s.path("redis.log"))
	if err != nil {
		return err.Error()
	}
	return string(log[max(0, len(log)-most):])
}

func (s *Server) portTaken() bool { return strings.Contains(s.logTail(), "Address already in use") }

// Addr returns host:port.
func (s *Server) Addr() string { return s.addr }

func (s *Server) hostPort() (host, port string) {
	host, port, _ = net.SplitHostPort(s.addr) // joined by start
	return host, port
}

// URL returns redis://127.0.0.1:port, with rediss if the server speaks TLS, and with its password
// if it has one.
func (s *Server) URL() string {
	u := url.URL{Scheme: "redis", Host: s.addr}
	if s.secure != nil {
		u.Scheme = "rediss"
	}
	if p := s.password(); p != "" {
		u.User = url.UserPassword("", p)
	}
	return u.String()
}

func (s *Server) password() (p string) {
	for i, arg := range s.args {
		if arg == "--requirepass" && i+1 < len(s.args) {
			p = s.args[i+1]
		}
	}
	return p
}

// Pid returns the id of the process of the last start.
func (s *Server) Pid() int { return s.proc.Load().Pid }

// Pause stops the process where it is, with SIGSTOP: connections stay open, and nothing is
// answered. It does nothing to a server that does not run.
func (s *Server) Pause() { _ = s.proc.Load().Signal(sigStop) }

// Resume lets the process go on after Pause.
func (s *Server) Resume() { _ = s.proc.Load().Signal(sigCont) }

// Kill ends the process with SIGKILL, also a paused one, and waits until it is gone. It does
// nothing to a server that does not run.
func (s *Server) Kill() {
	if p := s.proc.Load(); p != nil {
		_ = p.Kill() // fails if it has ended
		<-p.exited
	}
}

// Restart kills the server if it runs, and starts it again with the same port, directory and
// arguments. It waits until the server answers and has loaded its data.
func (s *Server) Restart() error {
	s.Kill()
	for deadline := time.Now().Add(patience); ; {
		err := s.run()
		if err == nil || !s.portTaken() || time.Now().After(deadline) {
			return err
		}
	}
}

// Stop kills the server and removes its directory. The functions for tests call it at the end of
// the test.
func (s *Server) Stop() error {
	s.Kill()
	if err := os.RemoveAll(s.dir); err != nil {
		return fmt.Errorf("testserver: %w", err)
	}
	return nil
}

// final is an error after which poll does not try again.
type final struct{ error }

// poll calls done until it returns nil, and returns its last error when the limit is over.
func poll(limit time.Duration, done func() error) error {
	for deadline := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		err := done()
		if err == nil {
			return nil
		}
		if end := (final{}); errors.As(err, &end) {
			return end.error
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("after %v: %w", limit, err)
		}
	}
}
