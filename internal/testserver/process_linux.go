package testserver

import "syscall"

const sigStop, sigCont = syscall.SIGSTOP, syscall.SIGCONT

func sysProcAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
