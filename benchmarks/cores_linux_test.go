package benchmarks

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/ginlimit/ginlimit/internal/testserver"
)

// The server and this process get cores of their own, with all their threads, and then all cores
// again.
func TestApart(t *testing.T) {
	if runtime.NumCPU() < 2 {
		t.Skip("there is only one core")
	}
	b := &bench{server: testserver.Redis(t)}
	server, self := allowed(t, b.server.Pid()), allowed(t, os.Getpid())
	procs := runtime.GOMAXPROCS(0)
	failed := errors.New("failed")
	if err := b.apart(func() error {
		parts := []string{allowed(t, b.server.Pid()), allowed(t, os.Getpid())}
		if parts[0] == parts[1] || parts[0] == server || parts[1] == self {
			t.Errorf("the cores of the server are %s of %s, and of this process %s of %s", parts[0], server, parts[1], self)
		}
		if n := runtime.GOMAXPROCS(0); n != (runtime.NumCPU()+1)/2 {
			t.Errorf("GOMAXPROCS is %d, and was %d", n, procs)
		}
		return failed
	}); !errors.Is(err, failed) {
		t.Fatal(err)
	}
	if again := allowed(t, b.server.Pid()); again != server {
		t.Errorf("the cores of the server were %s, and are %s", server, again)
	}
	if again := allowed(t, os.Getpid()); again != self {
		t.Errorf("the cores of this process were %s, and are %s", self, again)
	}
	if n := runtime.GOMAXPROCS(0); n != procs {
		t.Errorf("GOMAXPROCS is %d, and was %d", n, procs)
	}
}

// allowed returns the cores that all threads of a process may use.
func allowed(t *testing.T, pid int) (list string) {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(threads) == 0 {
		t.Fatal(err)
	}
	for _, name := range threads {
		status, err := os.ReadFile(name)
		if err != nil {
			continue // the thread has ended
		}
		_, after, _ := strings.Cut(string(status), "Cpus_allowed_list:\t")
		after, _, _ = strings.Cut(after, "\n")
		if list != "" && after != list {
			t.Errorf("threads of %d may use %s and %s", pid, list, after)
		}
		list = after
	}
	return list
}
