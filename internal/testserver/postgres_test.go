package testserver

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// query asks a server of trust for one value on a connection of its own, with the messages of
// PostgreSQL's protocol 3.
func query(limit time.Duration, s *PostgresServer, sql string) (string, error) {
	conn, err := net.Dial("tcp", s.Addr())
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(limit))
	startup := "\x00\x03\x00\x00user\x00postgres\x00database\x00postgres\x00\x00"
	message := binary.BigEndian.AppendUint32(nil, uint32(len(startup)+4))
	message = append(append(message, startup...), 'Q')
	message = binary.BigEndian.AppendUint32(message, uint32(len(sql)+5))
	if _, err := conn.Write(append(append(message, sql...), 0)); err != nil {
		return "", err
	}
	var value string
	for ready := 0; ready < 2; {
		var head [5]byte
		if _, err := io.ReadFull(conn, head[:]); err != nil {
			return "", err
		}
		body := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
		if _, err := io.ReadFull(conn, body); err != nil {
			return "", err
		}
		switch head[0] {
		case 'E':
			return "", errors.New(strings.ReplaceAll(string(body), "\x00", " "))
		case 'D':
			value = string(body[6:])
		case 'Z':
			ready++
		}
	}
	return value, nil
}

func TestPostgres(t *testing.T) {
	t.Parallel()
	s := Postgres(t, "-c", "max_connections=11")
	ask := func(want, sql string) {
		t.Helper()
		if got, err := query(patience, s, sql); err != nil || got != want {
			t.Fatalf("%s: %q, %v; want %q", sql, got, err, want)
		}
	}
	ask("11", "SHOW max_connections")
	ask("off", "SHOW fsync")
	ask("CREATE", "CREATE TABLE a AS SELECT 1 AS x; SELECT 'CREATE'")
	if want := "postgres://postgres@" + s.Addr() + "/postgres?sslmode=disable"; s.URL() != want {
		t.Errorf("URL %s, want %s", s.URL(), want)
	}

	pid, addr, all := s.Pid(), s.Addr(), children(s.Pid())
	if len(all) == 0 {
		t.Error("a server without processes")
	}
	s.Kill()
	s.Kill()
	for _, child := range all {
		if runs(child.Pid) {
			t.Errorf("process %d outlives Kill", child.Pid)
		}
	}
	if got, err := query(askLimit, s, "SELECT 1"); err == nil {
		t.Fatalf("a killed server answers %q", got)
	}
	for range 2 { // of one that is down, of one that runs
		if err := s.Restart(); err != nil {
			t.Fatal(err)
		}
		ask("1", "SELECT x FROM a")
		if s.Addr() != addr || s.Pid() == pid {
			t.Fatalf("restarted as %s, process %d; was %s, %d", s.Addr(), s.Pid(), addr, pid)
		}
		pid = s.Pid()
	}

	s.Pause()
	if got, err := query(100*time.Millisecond, s, "SELECT 1"); !timedOut(err) {
		t.Fatalf("a paused server: %q, %v", got, err)
	}
	s.Resume()
	ask("1", "SELECT x FROM a")
	s.Pause()
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	ask("1", "SELECT x FROM a")
	s.Pause() // for Stop
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("directory after Stop: %v", err)
	}
}

// POSTGRES_BIN goes before PATH, and one that has no PostgreSQL is an error, which skips nothing.
func TestPostgresBin(t *testing.T) {
	dir := t.TempDir()
	t.Setenv(otherPostgres, dir)
	for _, program := range []string{"initdb", "postgres"} {
		s, err := StartPostgres()
		if s != nil || !errors.Is(err, os.ErrNotExist) || errors.Is(err, exec.ErrNotFound) || !strings.Contains(err.Error(), otherPostgres) {
			t.Errorf("without %s: %v, %v", program, s, err)
		}
		if err := os.WriteFile(filepath.Join(dir, program), nil, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if bin, err := postgresBin(); err != nil || bin != dir {
		t.Errorf("%q, %v; want %q", bin, err, dir)
	}
}

func TestPostgresStartFails(t *testing.T) {
	t.Parallel()
	s, err := StartPostgres("-c", "no_such_setting=1")
	if errors.Is(err, exec.ErrNotFound) {
		giveUp(t, err)
	}
	if s != nil || err == nil || !strings.Contains(fmt.Sprint(err), "no_such_setting") {
		t.Errorf("%v, %v; want the end of the log", s, err)
	}
}
