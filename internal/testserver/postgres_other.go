//go:build !unix

package testserver

import (
	"errors"
	"os"
	"syscall"
)

// No PostgreSQL is started here: this is for the compiler.
func unprivileged(string) (*syscall.SysProcAttr, error) {
	return nil, errors.New("PostgreSQL is started on Unix only")
}

func children(int) []*os.Process { return nil }

func runs(int) bool { return false }
