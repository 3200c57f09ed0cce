package testserver

import (
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
	"syscall"
	"testing"
	"time"
)

const stopLimit = 10 * time.Second // for a shutdown

// PostgresServer is one PostgreSQL with a directory of its own. Its superuser is postgres, without
// a password. Its methods may be called concurrently, except that Kill, Restart and Stop are called
// one at a time.
type PostgresServer struct {
	bin    string // the directory of initdb and postgres
	dir    string // holds data, the socket and postgres.log of the last run
	port   string
	args   []string
	proc   atomic.Pointer[process]
	killed bool // since the last start
}

// Postgres starts a PostgreSQL for a test. args are appended to its command line: "-c",
// "max_connections=10". It does not wait for its disk, unless args say "-c", "fsync=on", which is
// without effect on what a killed process leaves behind. It takes the programs in the directory
// POSTGRES_BIN of the environment, in PATH, or the newest in /usr/lib/postgresql. As root it runs
// as the user postgres, or as nobody.
func Postgres(tb testing.TB, args ...string) *PostgresServer {
	tb.Helper()
	s, err := StartPostgres(args...)
	if err != nil {
		if errors.Is(err, exec.ErrNotFound) && os.Getenv("CI") != "true" {
			tb.Skip("this test needs PostgreSQL (apt-get install postgresql):", err)
		}
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Stop(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

// StartPostgres is [Postgres] for programs: the caller stops the server. The error wraps
// [exec.ErrNotFound] if PostgreSQL is missing.
func StartPostgres(args ...string) (*PostgresServer, error) {
	bin, err := postgresBin()
	if err != nil {
		return nil, fmt.Errorf("testserver: %w", err)
	}
	dir, err := os.MkdirTemp("", "testserver-")
	if err != nil {
		return nil, fmt.Errorf("testserver: %w", err)
	}
	s := &PostgresServer{bin: bin, dir: dir}
	if err := s.start(args...); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// otherPostgres is in the environment if the programs in that directory are to be tested.
const otherPostgres = "POSTGRES_BIN"

// postgresBin returns the directory of PostgreSQL's programs. Debian keeps them out of PATH.
func postgresBin() (string, error) {
	if dir := os.Getenv(otherPostgres); dir != "" {
		for _, program := range []string{"initdb", "postgres"} {
			if _, err := os.Stat(filepath.Join(dir, program)); err != nil { // none to skip the tests
				return "", fmt.Errorf("%s: %w", otherPostgres, err)
			}
		}
		return filepath.Abs(dir)
	}
	if path, err := exec.LookPath("initdb"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil {
			return filepath.Dir(path), nil
		}
	}
	newest, version := "", -1
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin") // the pattern is valid
	for _, dir := range dirs {
		v, err := strconv.Atoi(filepath.Base(filepath.Dir(dir)))
		if _, missing := exec.LookPath(filepath.Join(dir, "initdb")); err == nil && missing == nil && v > version {
			newest, version = dir, v
		}
	}
	if newest == "" {
		return "", fmt.Errorf("initdb is neither in PATH nor in /usr/lib/postgresql: %w", exec.ErrNotFound)
	}
	return newest, nil
}

func (s *PostgresServer) start(args ...string) error {
	attr, err := unprivileged(s.dir)
	if err != nil {
		return fmt.Errorf("testserver: %w", err)
	}
	initdb := s.command(attr, "initdb", "--pgdata", s.path("data"), "--username", "postgres", "--auth", "trust",
		"--encoding", "UTF8", "--locale", "C", "--no-sync")
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("testserver: initdb: %w\n%s", err, out)
	}
	for try := 1; ; try++ {
		if s.port, err = freePort(); err != nil {
			return err
		}
		s.args = slices.Concat([]string{"-D", s.path("data"), "-p", s.port, "-c", "listen_addresses=127.0.0.1",
			"-c", "unix_socket_directories=" + s.dir, "-c", "fsync=off"}, args)
		if err = s.run(); err == nil || !s.portTaken() || try == portTries {
			return err
		}
	}
}

// command returns a command that runs in s.dir as attr says.
func (s *PostgresServer) command(attr *syscall.SysProcAttr, name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.bin, name), args...)
	cmd.Dir, cmd.SysProcAttr = s.dir, attr
	cmd.Env = []string{"PATH=" + s.bin + ":" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC"}
	return cmd
}

// run starts the process and waits until it answers.
func (s *PostgresServer) run() error {
	attr, err := unprivileged(s.dir)
	if err != nil {
		return fmt.Errorf("testserver: %w", err)
	}
	log, err := os.Create(s.path("postgres.log"))
	if err != nil {
		return fmt.Errorf("testserver: %w", err)
	}
	defer func() { _ = log.Close() }() // the process has its own descriptor
	cmd := s.command(attr, "postgres", s.args...)
	cmd.Stdout, cmd.Stderr = log, log
	p, err := startCommand(cmd)
	if err != nil {
		return fmt.Errorf("testserver: %w", err)
	}
	s.proc.Store(p)
	s.killed = false
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
		return fmt.Errorf("testserver: start of postgres 127.0.0.1:%s: %w; the end of its log:\n%s", s.port, err, s.logTail())
	}
	return nil
}

// ready is nil when the process says in its lock file that it takes connections.
func (s *PostgresServer) ready(pid int) error {
	lines := s.lockFile()
	if len(lines) < 8 || lines[0] != strconv.Itoa(pid) || strings.TrimSpace(lines[7]) != "ready" {
		return errors.New("it takes no connections yet")
	}
	return nil
}

// lockFile returns the lines of postmaster.pid: the process's id, the directory, when it started,
// the port, the socket's directory, the address, the key and the id of its shared memory, its
// status.
func (s *PostgresServer) lockFile() []string {
	text, _ := os.ReadFile(s.path("data/postmaster.pid"))
	return strings.Split(string(text), "\n")
}

func (s *PostgresServer) path(name string) string { return filepath.Join(s.dir, name) }

func (s *PostgresServer) logTail() string {
	const most = 2000
	log, err := os.ReadFile(s.path("postgres.log"))
	if err != nil {
		return err.Error()
	}
	return string(log[max(0, len(log)-most):])
}

func (s *PostgresServer) portTaken() bool {
	return strings.Contains(s.logTail(), "Address already in use") || strings.Contains(s.logTail(), "could not bind")
}

// Addr returns host:port.
func (s *PostgresServer) Addr() string { return net.JoinHostPort("127.0.0.1", s.port) }

// URL returns postgres://postgres@127.0.0.1:port/postgres.
func (s *PostgresServer) URL() string {
	u := url.URL{Scheme: "postgres", User: url.User("postgres"), Host: s.Addr(), Path: "/postgres", RawQuery: "sslmode=disable"}
	return u.String()
}

// Pid returns the id of the process of the last start, which is the parent of all others.
func (s *PostgresServer) Pid() int { return s.proc.Load().Pid }

// Pause stops all its processes where they are, with SIGSTOP: connections stay open, new ones are
// taken by the kernel, and nothing is answered. It does nothing to a server that does not run.
func (s *PostgresServer) Pause() {
	p := s.proc.Load()
	_ = p.Signal(sigStop) // first, so that it starts no more
	for _, child := range children(p.Pid) {
		_ = child.Signal(sigStop)
	}
}

// Resume lets the processes go on after Pause.
func (s *PostgresServer) Resume() {
	p := s.proc.Load()
	for _, child := range children(p.Pid) {
		_ = child.Signal(sigCont)
	}
	_ = p.Signal(sigCont)
}

// Kill ends all its processes with SIGKILL, also paused ones, and waits until they are gone: what
// the machine does when it loses its power, but for the disk. It does nothing to a server that does
// not run.
func (s *PostgresServer) Kill() {
	p := s.proc.Load()
	if p == nil || s.killed {
		return
	}
	_ = p.Signal(sigStop) // fails if it has ended. A parent that is stopped lets no id of a child be used again
	all := children(p.Pid)
	for _, child := range all {
		_ = child.Kill()
	}
	_ = p.Kill()
	<-p.exited
	s.killed = true
	_ = poll(stopLimit, func() error { // a process that is attached to the shared memory would not let another start
		for _, child := range all {
			if runs(child.Pid) {
				return fmt.Errorf("process %d is still there", child.Pid)
			}
		}
		return nil
	})
}

// Restart kills the server if it runs, and starts it again with the same port, directory and
// arguments. It waits until the server has recovered and answers.
func (s *PostgresServer) Restart() error {
	s.Kill()
	for deadline := time.Now().Add(patience); ; {
		err := s.run()
		if err == nil || !s.portTaken() || time.Now().After(deadline) {
			return err
		}
	}
}

// Stop ends the server and removes its directory. [Postgres] calls it at the end of the test.
func (s *PostgresServer) Stop() error {
	if p := s.proc.Load(); p != nil && !s.killed {
		s.Resume()
		_ = p.Signal(syscall.SIGQUIT) // at once, but with its shared memory given back
		select {
		case <-p.exited:
		case <-time.After(stopLimit):
			s.Kill()
		}
	}
	if s.killed {
		if lines := s.lockFile(); len(lines) > 6 {
			if memory := strings.Fields(lines[6]); len(memory) == 2 {
				_ = exec.Command("ipcrm", "-m", memory[1]).Run() // nobody else would; without ipcrm it stays
			}
		}
	}
	if err := os.RemoveAll(s.dir); err != nil {
		return fmt.Errorf("testserver: %w", err)
	}
	return nil
}
