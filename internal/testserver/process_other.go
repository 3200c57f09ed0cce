//go:build !unix

package testserver

import "syscall"

// No redis-server runs here: this is for the compiler.
const sigStop, sigCont = syscall.SIGTERM, syscall.SIGTERM

func sysProcAttr() *syscall.SysProcAttr { return nil }
