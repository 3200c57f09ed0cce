package ginlimitprom

import (
	"hash/maphash"
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

// keys estimates how many different keys there were in the last minute, by HyperLogLog (Flajolet
// and others, 2007): one caller or thousands, in 7 kB and without keeping a key. The standard error
// is 1.04/√256, 6.5 %; below some hundred it counts free registers instead, which is nearly exact.
type keys struct {
	seed  maphash.Seed // random: nobody outside can choose keys that look like many, or like one
	parts [numParts]part
}

const (
	numParts  = 7 // one is under way, six are whole
	partTime  = 10 * time.Second
	registers = 256
)

// part is what was seen in one stretch of partTime.
type part struct {
	number    atomic.Int64 // of the stretch, counted since 1970
	registers [registers]atomic.Uint32
}

func newKeys() *keys { return &keys{seed: maphash.MakeSeed()} }

func (k *keys) add(key string, now time.Time) {
	n := now.UnixNano() / int64(partTime)
	p := &k.parts[n%numParts]
	// A key that comes in between the two steps of another's renewal may be lost, and is counted
	// when it comes again.
	if old := p.number.Load(); old < n && p.number.CompareAndSwap(old, n) {
		for i := range p.registers {
			p.registers[i].Store(0)
		}
	}
	h := maphash.String(k.seed, key)
	r := &p.registers[h%registers]
	rank := uint32(bits.LeadingZeros64(h|(registers-1))) + 1
	for old := r.Load(); old < rank && !r.CompareAndSwap(old, rank); old = r.Load() {
	}
}

// count returns how many keys were added in the 60 to 70 s before now.
func (k *keys) count(now time.Time) float64 {
	n := now.UnixNano() / int64(partTime)
	var sum float64
	free := 0
	for i := range registers {
		var rank uint32
		for j := range k.parts {
			if p := &k.parts[j]; p.number.Load() > n-numParts {
				rank = max(rank, p.registers[i].Load())
			}
		}
		sum += math.Ldexp(1, -int(rank))
		if rank == 0 {
			free++
		}
	}
	const m, alpha = registers, 0.7213 / (1 + 1.079/registers)
	estimate := alpha * m * m / sum
	if estimate <= 2.5*m && free > 0 {
		estimate = m * math.Log(float64(m)/float64(free))
	}
	return math.Round(estimate)
}
