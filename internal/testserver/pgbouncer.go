package testserver

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// PgBouncer starts a pgbouncer for a test, in transaction mode, before s: statements of one
// connection to it go to any of the few that it has to s. It returns how to connect to it, and
// stops it when the test ends.
func PgBouncer(tb testing.TB, s *PostgresServer, connections int) *url.URL {
	tb.Helper()
	u, stop, err := startPgBouncer(s, connections)
	for try := 1; err != nil && !errors.Is(err, exec.ErrNotFound) && try < portTries; try++ { // the port may have been taken meanwhile
		u, stop, err = startPgBouncer(s, connections)
	}
	if err != nil {
		if errors.Is(err, exec.ErrNotFound) && os.Getenv("CI") != "true" {
			tb.Skip("this test needs pgbouncer (apt-get install pgbouncer):", err)
		}
		tb.Fatal(err)
	}
	tb.Cleanup(stop)
	return u
}

func startPgBouncer(s *PostgresServer, connections int) (_ *url.URL, stop func(), err error) {
	bin, err := exec.LookPath("pgbouncer")
	if err != nil {
		if bin, err = exec.LookPath("/usr/sbin/pgbouncer"); err != nil {
			return nil, nil, fmt.Errorf("testserver: %w", err)
		}
	}
	dir, err := os.MkdirTemp("", "testserver-")
	if err != nil {
		return nil, nil, fmt.Errorf("testserver: %w", err)
	}
	clean := func() { _ = os.RemoveAll(dir) }
	defer func() {
		if err != nil {
			clean()
		}
	}()
	attr, err := unprivileged(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("testserver: %w", err)
	}
	port, err := freePort()
	if err != nil {
		return nil, nil, err
	}
	path := func(name string) string { return filepath.Join(dir, name) }
	ini := fmt.Sprintf(`[databases]
postgres = host=127.0.0.1 port=%s dbname=postgres user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %s
unix_socket_dir =
auth_type = trust
auth_file = %s
pool_mode = transaction
default_pool_size = %d
max_client_conn = 1000
ignore_startup_parameters = extra_float_digits
`, s.port, port, path("users.txt"), connections)
	err = errors.Join(os.WriteFile(path("users.txt"), []byte(`"postgres" ""`+"\n"), 0o644), os.WriteFile(path("pgbouncer.ini"), []byte(ini), 0o644)) //nolint:gosec // another user reads them
	if err != nil {
		return nil, nil, fmt.Errorf("testserver: %w", err)
	}
	log, err := os.Create(path("pgbouncer.log"))
	if err != nil {
		return nil, nil, fmt.Errorf("testserver: %w", err)
	}
	defer func() { _ = log.Close() }() // the process has its own descriptor
	cmd := exec.Command(bin, path("pgbouncer.ini"))
	cmd.Dir, cmd.SysProcAttr, cmd.Stdout, cmd.Stderr = dir, attr, log, log
	p, err := startCommand(cmd)
	if err != nil {
		return nil, nil, fmt.Errorf("testserver: %w", err)
	}
	stop = func() {
		_ = p.Kill()
		<-p.exited
		clean()
	}
	addr := net.JoinHostPort("127.0.0.1", port)
	err = poll(patience, func() error {
		select {
		case <-p.exited:
			return final{errors.New("it ended")}
		default:
		}
		conn, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			_ = conn.Close()
		}
		return err
	})
	if err != nil {
		said, _ := os.ReadFile(path("pgbouncer.log"))
		_ = p.Kill()
		<-p.exited
		return nil, nil, fmt.Errorf("testserver: start of pgbouncer %s: %w; its log:\n%s", addr, err, said)
	}
	return &url.URL{Scheme: "postgres", User: url.User("postgres"), Host: addr, Path: "/postgres", RawQuery: "sslmode=disable"}, stop, nil
}
