package replay

import (
	"math/bits"
	"time"

	"github.com/ginlimit/ginlimit/backend"
)

// Point is what happened in one interval of a [Series].
type Point struct {
	Start    int64 `json:"start"` // seconds since 1970
	Requests int64 `json:"requests"`
	Refused  int64 `json:"refused"`
	Other    int64 `json:"refused_vs,omitempty"` // refused by the limits of -vs
	Callers  int64 `json:"callers"`              // refused in one minute, at most
}

// Series is how a log went on in time. It has at most maxPoints intervals, which become longer as
// the log does. An interval without requests has no point.
type Series struct {
	Seconds int64   `json:"seconds"` // the length of an interval
	Points  []Point `json:"points"`
}

const maxPoints = 1500

// widths are the lengths of intervals, in seconds. Each is a multiple of the one before.
var widths = [...]int64{1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600}

// at returns the point of an instant, which is never before the last one.
func (s *Series) at(us int64) *Point {
	for {
		start := us / 1e6 / s.Seconds * s.Seconds
		last := len(s.Points) - 1
		if last >= 0 && s.Points[last].Start >= start {
			return &s.Points[last]
		}
		if len(s.Points) < maxPoints {
			s.Points = append(s.Points, Point{Start: start})
			return &s.Points[last+1]
		}
		s.widen()
	}
}

func (s *Series) widen() {
	next := s.Seconds * 2
	for _, w := range widths {
		if w > s.Seconds {
			next = w
			break
		}
	}
	s.Seconds = next
	var n int
	for _, p := range s.Points {
		p.Start = p.Start / s.Seconds * s.Seconds
		if n > 0 && s.Points[n-1].Start == p.Start {
			q := &s.Points[n-1]
			q.Requests += p.Requests
			q.Refused += p.Refused
			q.Other += p.Other
			q.Callers = max(q.Callers, p.Callers)
			continue
		}
		s.Points[n] = p
		n++
	}
	s.Points = s.Points[:n]
}

// waits counts how long refused requests would have had to wait, in classes of which each is a
// sixteenth of a power of two wide.
type waits struct {
	classes [64 * 16]int64
	n       int64
	longest int64
	never   int64
}

func (w *waits) add(us int64) {
	if us == int64(backend.Never) {
		w.never++
		return
	}
	w.n++
	w.longest = max(w.longest, us)
	w.classes[class(us)]++
}

// class is the number below 16 itself, and then the power of two and the four bits after it.
func class(us int64) int {
	n := bits.Len64(uint64(us))
	if n <= 4 {
		return int(us)
	}
	return (n-4)*16 + int(us>>(n-5)&15)
}

// top returns the largest number of a class.
func top(class int) int64 {
	if class < 16 {
		return int64(class)
	}
	n := class/16 + 4
	return 1<<(n-1) + int64(class%16+1)<<(n-5) - 1
}

// quantile returns a wait that the share q of the refused did not exceed, at most 1/16 too long.
func (w *waits) quantile(q float64) time.Duration {
	want := int64(q * float64(w.n))
	var n int64
	for i, count := range w.classes {
		if n += count; n > want {
			return time.Duration(min(top(i), w.longest)) * time.Microsecond
		}
	}
	return time.Duration(w.longest) * time.Microsecond
}
