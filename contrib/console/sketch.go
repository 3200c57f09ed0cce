package console

import (
	"math"
	"time"

	"github.com/ginlimit/ginlimit"
)

const (
	width      = 32 // callers that a sketch counts
	windowTime = 15 * time.Second
	maxKey     = 96 // bytes of a key that are kept
)

// sketch counts the callers that come most often: Space-Saving (Metwally, Agrawal and El Abbadi,
// 2005). A caller that is not among those counted takes the place of the one with the lowest count,
// and that count, as what may be too much of its own. So a count is never too low, and too high by
// at most the number of all decisions divided by width; a caller that makes a larger share of them
// is always there.
//
// The paper finds counters by a map, and keeps them in order in a list of buckets. A scan of 32 that
// lie side by side needs neither, and allocates nothing.
type sketch struct {
	n       int
	hashes  [width]uint64
	counts  [width]uint32
	callers [width]caller
}

// caller is one that is counted.
type caller struct {
	over                uint32 // what may be too much of its count
	banned              bool   // refused by a ban when it was last seen
	source              *source
	remaining, capacity int64         // after its last decision
	last                time.Duration // when that was, since the Console was made
	until               time.Duration // when the ban ends
	key                 text
}

// add counts one decision about a caller, and returns the caller.
func (s *sketch) add(hash uint64, key string) *caller {
	for i, known := range s.hashes[:s.n] {
		if known == hash {
			s.counts[i]++
			return &s.callers[i]
		}
	}
	at, over := s.n, uint32(0)
	if at < width {
		s.n++
	} else {
		at, over = 0, math.MaxUint32
		for i, n := range s.counts[:] {
			if n < over {
				at, over = i, n
			}
		}
	}
	s.hashes[at], s.counts[at] = hash, over+1
	c := &s.callers[at]
	c.over = over
	c.key.set(key)
	return c
}

// saw remembers the last decision about a caller.
func (c *caller) saw(s *source, d *ginlimit.Decision, now time.Duration) {
	c.source, c.last = s, now
	c.remaining, c.capacity = d.Remaining, d.Limit.Capacity()
	if c.banned = d.Banned; c.banned {
		c.until = now + d.RetryAfter
	}
}

// window is two sketches in turn, so that what is shown is of the last 15 to 30 seconds.
type window struct {
	number   int64 // of the stretch of windowTime that is under way
	sketches [2]sketch
}

// at returns the sketch that counts now.
func (w *window) at(now time.Duration) *sketch {
	if n := int64(now / windowTime); n > w.number { // not below: another goroutine may be ahead
		w.turn(n)
	}
	return &w.sketches[w.number%2]
}

func (w *window) turn(n int64) {
	if n > w.number+1 {
		w.sketches[w.number%2].n = 0
	}
	w.number = n
	w.sketches[n%2].n = 0
}

// text is a key, or the beginning of a long one. It has a place of its own, because a string could
// hold a whole request's header in memory, and a copy would be an allocation.
type text struct {
	n     uint8
	whole bool
	bytes [maxKey]byte
}

func (t *text) set(key string) {
	t.n, t.whole = uint8(copy(t.bytes[:], key)), len(key) <= maxKey
}

func textOf(key string) (t text) {
	t.set(key)
	return t
}

func (t *text) String() string { return string(t.bytes[:t.n]) }
