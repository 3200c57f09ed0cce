package benchmarks

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// apart measures while the server has the first half of the cores that this process may use, and
// this process the others; not if there is only one core.
func (b *bench) apart(measure func() error) error {
	var all, first, rest unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return err
	}
	for cpu, found := 0, 0; found < all.Count(); cpu++ {
		if !all.IsSet(cpu) {
			continue
		}
		if found++; found <= all.Count()/2 {
			first.Set(cpu)
		} else {
			rest.Set(cpu)
		}
	}
	if first.Count() == 0 {
		return nil
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(rest.Count()))
	err := pin(&first, b.server.Pid())
	if err == nil {
		err = pin(&rest, os.Getpid())
	}
	if err == nil {
		err = measure()
	}
	return errors.Join(err, pin(&all, b.server.Pid(), os.Getpid()))
}

// pin makes all threads of the processes run on these cores. Threads that they start later do too.
func pin(on *unix.CPUSet, pids ...int) error {
	for _, pid := range pids {
		for again := true; again; { // a thread may have started another meanwhile
			again = false
			threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
			if err != nil {
				return err
			}
			for _, t := range threads {
				id, err := strconv.Atoi(t.Name())
				if err != nil {
					return err
				}
				var has unix.CPUSet
				if err = unix.SchedGetaffinity(id, &has); err == nil && has != *on {
					again = true
					err = unix.SchedSetaffinity(id, on)
				}
				if err != nil && !errors.Is(err, unix.ESRCH) { // no such thread any more
					return err
				}
			}
		}
	}
	return nil
}
