//go:build unix && !linux

package testserver

import "syscall"

const sigStop, sigCont = syscall.SIGSTOP, syscall.SIGCONT

// sysProcAttr has no Pdeathsig here: a server stays when the process that started it is killed.
func sysProcAttr() *syscall.SysProcAttr { return nil }
