//go:build !linux

package promserver

import "syscall"

// sysProcAttr has no Pdeathsig here: a server stays when the process that started it is killed.
func sysProcAttr() *syscall.SysProcAttr { return nil }
