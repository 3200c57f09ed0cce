package backend

import "math"

// NeverHot makes a Lease take every key for cold.
func NeverHot(b Backend) Backend {
	b.(*lease).hot = math.MaxUint32
	return b
}
