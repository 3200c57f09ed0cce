package replay

import (
	"container/heap"
	"errors"
	"io"
	"math"

	"github.com/ginlimit/ginlimit/cmd/ginlimit/internal/accesslog"
)

// event is what of a request is needed to replay it.
type event struct {
	at   int64 // µs since 1970
	end  int64 // of the request; at or before at if it is not known
	cost int64
	seq  uint64 // its place in the log, for those of one instant
	id   uint32 // of the caller
}

func (e *event) before(other *event) bool {
	return e.at < other.at || e.at == other.at && e.seq < other.seq
}

// maxWaiting is how many events of one log may wait for those that stand after them.
const maxWaiting = 1 << 20

// source is one log, in the order of its times. An event waits until one has been read that is
// window later. One that comes later than that is moved to the time that the log has reached.
type source struct {
	log    *accesslog.Reader
	parse  func(*accesslog.Entry) (event, bool) // false if it is not to be replayed
	window int64

	entry   accesslog.Entry
	sorted  []event // from head on, in the order of their times
	head    int
	early   events // those whose time is before that of one in sorted
	newest  int64
	reached int64
	late    int64
	seq     uint64
	ended   bool

	next event // the first, if it has one
	has  bool
}

// advance makes next the event that follows.
func (s *source) advance() error {
	for !s.ended && !s.ready() {
		if err := s.log.Next(&s.entry); err != nil {
			if s.ended = true; !errors.Is(err, io.EOF) {
				return err
			}
			break
		}
		if e, ok := s.parse(&s.entry); ok {
			s.push(e)
		}
	}
	s.pop()
	return nil
}

func (s *source) waiting() int { return len(s.sorted) - s.head + len(s.early) }

// ready reports whether the first event need not wait any more.
func (s *source) ready() bool {
	n := s.waiting()
	if n == 0 {
		return false
	}
	return n >= maxWaiting || s.first().at <= s.newest-s.window
}

func (s *source) first() *event {
	switch {
	case len(s.early) == 0:
		return &s.sorted[s.head]
	case s.head == len(s.sorted) || s.early[0].before(&s.sorted[s.head]):
		return &s.early[0]
	default:
		return &s.sorted[s.head]
	}
}

func (s *source) push(e event) {
	s.seq++
	e.seq = s.seq
	if s.seq == 1 {
		s.newest, s.reached = e.at, math.MinInt64
	}
	if e.at < s.reached {
		e.at = s.reached
		s.late++
	}
	s.newest = max(s.newest, e.at)
	if s.head < len(s.sorted) && e.at < s.sorted[len(s.sorted)-1].at {
		heap.Push(&s.early, e)
		return
	}
	if s.head > 1024 && s.head > len(s.sorted)/2 {
		s.sorted = s.sorted[:copy(s.sorted, s.sorted[s.head:])]
		s.head = 0
	}
	s.sorted = append(s.sorted, e)
}

func (s *source) pop() {
	if s.has = s.waiting() > 0; !s.has {
		return
	}
	if len(s.early) > 0 && s.first() == &s.early[0] {
		s.next = heap.Pop(&s.early).(event)
	} else {
		s.next = s.sorted[s.head]
		if s.head++; s.head == len(s.sorted) {
			s.sorted, s.head = s.sorted[:0], 0
		}
	}
	s.reached = max(s.reached, s.next.at)
}

// events is a heap of those that are out of order.
type events []event

func (h events) Len() int           { return len(h) }
func (h events) Less(i, j int) bool { return h[i].before(&h[j]) }
func (h events) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *events) Push(x any) { *h = append(*h, x.(event)) }

// Pop implements heap.Interface.
func (h *events) Pop() any {
	last := len(*h) - 1
	e := (*h)[last]
	*h = (*h)[:last]
	return e
}

// merged is several logs as one.
type merged struct {
	sources []*source
	current *source
	until   int64 // current is the first as long as its time is not beyond this
}

func newMerged(sources []*source) (*merged, error) {
	m := &merged{}
	for _, s := range sources {
		if err := s.advance(); err != nil {
			return nil, err
		}
		m.sources = append(m.sources, s)
	}
	m.choose()
	return m, nil
}

// choose makes current the log with the first event, the first of equals.
func (m *merged) choose() {
	m.current, m.until = nil, math.MaxInt64
	for _, s := range m.sources {
		switch {
		case !s.has:
		case m.current == nil:
			m.current = s
		case s.next.at < m.current.next.at:
			m.until = m.current.next.at - 1
			m.current = s
		default:
			m.until = min(m.until, s.next.at-1)
		}
	}
	if m.current != nil {
		m.until = max(m.until, m.current.next.at)
	}
}

// next returns the event that follows, or false after the last.
func (m *merged) next() (event, bool, error) {
	s := m.current
	if s == nil {
		return event{}, false, nil
	}
	e := s.next
	if err := s.advance(); err != nil {
		return e, false, err
	}
	if !s.has || s.next.at > m.until {
		m.choose()
	}
	return e, true, nil
}
