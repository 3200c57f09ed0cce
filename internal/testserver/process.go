package testserver

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
)

// process is one run of a server.
type process struct {
	*os.Process
	exited chan struct{} // closed once it has ended and was waited for
}

// startProcess runs bin in dir with its output in log. The process does not outlive this one on
// Linux.
func startProcess(bin, dir string, log *os.File, args ...string) (*process, error) {
	cmd := exec.Command(bin, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = dir, log, log, sysProcAttr()
	return startCommand(cmd)
}

// startCommand starts cmd, and waits for its end.
func startCommand(cmd *exec.Cmd) (*process, error) {
	p := &process{exited: make(chan struct{})}
	started := make(chan error)
	go func() {
		// Pdeathsig comes when the thread ends that started the process, not when all of this
		// process does (go.dev/issue/27505). A thread that waits for the process cannot end before
		// it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // says how it ended: with SIGKILL
			close(p.exited)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	p.Process = cmd.Process
	return p, nil
}

const busOffset = 10_000 // from the port of a cluster's node to the one of its bus

// freePort returns a port that is free, as the one busOffset above it. Both lie below the range
// that Linux takes the ports of outgoing connections from: there, a client that looks for its
// server would sooner or later sit on the port of one that is down, and Restart would fail.
// Listening on port 0 gives ports of that range.
func freePort() (string, error) {
	var err error
	for range 100 {
		port := 12_000 + rand.IntN(busOffset)
		if err = errors.Join(tryPort(port), tryPort(port+busOffset)); err == nil {
			return strconv.Itoa(port), nil
		}
	}
	return "", fmt.Errorf("testserver: no free port: %w", err)
}

func tryPort(port int) error {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return err
	}
	return l.Close()
}
