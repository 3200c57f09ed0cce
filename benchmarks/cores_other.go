//go:build !linux

package benchmarks

// part does nothing here: only Linux says which cores a process may use.
func (b *bench) part() (undo func() error, err error) { return nil, nil }
