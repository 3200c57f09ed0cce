//go:build unix

package testserver

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// unprivileged returns how to start a process that may not be root's. It gives dir to the user that
// the process gets.
func unprivileged(dir string) (*syscall.SysProcAttr, error) {
	attr := sysProcAttr()
	if os.Getuid() != 0 {
		return attr, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		if u, err = user.Lookup("nobody"); err != nil {
			return nil, fmt.Errorf("postgres does not run as root: %w", err)
		}
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(err1, err2, os.Chown(dir, int(uid), int(gid))); err != nil {
		return nil, err
	}
	if attr == nil {
		attr = &syscall.SysProcAttr{}
	}
	attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return attr, nil
}

// children returns the processes whose parent is pid.
func children(pid int) (all []*os.Process) {
	each := func(id, parent string) {
		n, err := strconv.Atoi(id)
		if err != nil || parent != strconv.Itoa(pid) {
			return
		}
		if p, err := os.FindProcess(n); err == nil {
			all = append(all, p)
		}
	}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is valid
	for _, name := range stats {
		if fields := stat(name); len(fields) > 1 {
			each(filepath.Base(filepath.Dir(name)), fields[1])
		}
	}
	if len(stats) == 0 { // no Linux
		list, _ := exec.Command("ps", "-A", "-o", "pid=,ppid=").Output()
		for line := range strings.Lines(string(list)) {
			if fields := strings.Fields(line); len(fields) == 2 {
				each(fields[0], fields[1])
			}
		}
	}
	return all
}

// stat returns the fields of a /proc/pid/stat after the name, which may hold anything: the state,
// the parent, and more.
func stat(name string) []string {
	text, _ := os.ReadFile(name) // a process may be gone
	_, after, _ := strings.Cut(string(text), ") ")
	return strings.Fields(after)
}

// runs reports whether a process is there and has not ended.
func runs(pid int) bool {
	if fields := stat(fmt.Sprintf("/proc/%d/stat", pid)); len(fields) > 0 {
		return fields[0] != "Z" && fields[0] != "X"
	}
	if _, err := os.Stat("/proc/self/stat"); err == nil {
		return false
	}
	return syscall.Kill(pid, 0) == nil
}
