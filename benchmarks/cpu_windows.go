package benchmarks

import (
	"syscall"
	"time"
)

// ownCPU is what this process used.
func ownCPU() time.Duration {
	self, err := syscall.GetCurrentProcess()
	must(err)
	var created, exited, kernel, user syscall.Filetime
	must(syscall.GetProcessTimes(self, &created, &exited, &kernel, &user))
	return ticks(kernel) + ticks(user)
}

// ticks is a time in units of 100 ns. It is a length, which Filetime.Nanoseconds would take for a
// date.
func ticks(t syscall.Filetime) time.Duration {
	return time.Duration(int64(t.HighDateTime)<<32|int64(t.LowDateTime)) * 100
}
