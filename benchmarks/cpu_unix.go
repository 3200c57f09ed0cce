//go:build unix

package benchmarks

import (
	"syscall"
	"time"
)

// ownCPU is what this process used.
func ownCPU() time.Duration {
	var r syscall.Rusage
	must(syscall.Getrusage(syscall.RUSAGE_SELF, &r))
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
