//go:build !linux

package benchmarks

// apart does nothing here: only Linux says which cores a process may use.
func (b *bench) apart(func() error) error { return nil }
