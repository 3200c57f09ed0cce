package accesslog

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxLine is the longest line that is read.
const maxLine = 1 << 20

// BadLine is a line that could not be read.
type BadLine struct {
	File string `json:"file"`
	Line int64  `json:"line"`
	Text string `json:"text"` // its first 200 bytes
	Why  string `json:"why"`
}

// Reader reads the entries of one log, in the order in which they stand.
type Reader struct {
	Name    string
	Format  string
	Lines   int64 // read so far, empty ones aside
	Skipped int64 // of those, that are of no request
	Bad     int64 // of those, that could not be read
	First   []BadLine

	src    io.Reader
	parser Parser
	buf    []byte
	from   int   // where the next line begins in buf
	to     int   // where what was read ends in buf
	end    error // what src ended with
	number int64 // of the last line
}

// NewReader returns a Reader of what r has, compressed by gzip or not. If format is "auto" the
// first lines tell it.
func NewReader(name string, r io.Reader, format string, o Options) (*Reader, error) {
	plain, err := decompress(name, r)
	if err != nil {
		return nil, err
	}
	l := &Reader{Name: name, Format: format, src: plain, buf: make([]byte, 256<<10)}
	l.fill()
	if format == "auto" {
		if l.Format = Detect(l.peek(), o); l.Format == "" {
			return nil, l.unknown()
		}
	}
	if l.parser = New(l.Format, o); l.parser == nil {
		return nil, fmt.Errorf("ginlimit: no format is called %q; use auto, %s", format, strings.Join(Formats(), ", "))
	}
	return l, nil
}

// decompress returns what r has without gzip, and refuses other compressions by name.
func decompress(name string, r io.Reader) (io.Reader, error) {
	b := bufio.NewReaderSize(r, 64<<10)
	magic, err := b.Peek(6)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("ginlimit: %s cannot be read: %w; check that it is a file that this user may read", name, err)
	}
	for _, other := range []struct{ magic, name, command string }{
		{"\x28\xb5\x2f\xfd", "zstd", "zstd"}, {"\xfd7zXZ\x00", "xz", "xz"}, {"BZh", "bzip2", "bzip2"}, {"PK\x03\x04", "zip", "unzip"},
	} {
		if bytes.HasPrefix(magic, []byte(other.magic)) {
			option := "-dc"
			if other.command == "unzip" {
				option = "-p"
			}
			return nil, fmt.Errorf("ginlimit: %s is compressed by %s; use %s %s %s | ginlimit replay … -", name, other.name,
				other.command, option, name)
		}
	}
	if bytes.HasPrefix(magic, []byte("\xff\xfe")) || bytes.HasPrefix(magic, []byte("\xfe\xff")) { // as PowerShell writes by >
		return nil, fmt.Errorf("ginlimit: %s is UTF-16; use iconv -f UTF-16 -t UTF-8 %s | ginlimit replay … -", name, name)
	}
	if !bytes.HasPrefix(magic, []byte("\x1f\x8b")) {
		return b, nil
	}
	z, err := gzip.NewReader(b)
	if err != nil {
		return nil, fmt.Errorf("ginlimit: %s begins as gzip does and is none: %w; unpack it and give the plain file", name, err)
	}
	return z, nil
}

// peek returns the first lines of what has been read, at most 50.
func (l *Reader) peek() [][]byte {
	var lines [][]byte
	rest := bytes.TrimPrefix(l.buf[:l.to], bom)
	for len(rest) > 0 && len(lines) < 50 {
		line, after, whole := bytes.Cut(rest, []byte("\n"))
		if !whole && l.end == nil && len(lines) > 0 {
			break
		}
		if line = bytes.TrimRight(line, "\r"); len(line) > 0 {
			lines = append(lines, line)
		}
		rest = after
	}
	return lines
}

func (l *Reader) unknown() error {
	if err := l.failure(); err != nil {
		return err
	}
	lines := l.peek()
	if len(lines) == 0 {
		return fmt.Errorf("ginlimit: %s is empty; give a log that has requests", l.Name)
	}
	return fmt.Errorf("ginlimit: the format of %s is not known; its first line is %q; name the format by -format, or make the server "+
		"write Combined Log Format or JSON lines", l.Name, excerpt(lines[0]))
}

var bom = []byte("\xef\xbb\xbf")

// fill reads on. It keeps what is left of buf, and makes room for a longer line.
func (l *Reader) fill() {
	if l.from > 0 {
		l.to = copy(l.buf, l.buf[l.from:l.to])
		l.from = 0
	}
	if l.to == len(l.buf) {
		l.buf = append(l.buf, make([]byte, len(l.buf))...)
	}
	for l.end == nil && l.to < len(l.buf) {
		n, err := l.src.Read(l.buf[l.to:])
		l.to += n
		l.end = err
		if n > 0 {
			return
		}
	}
}

// line returns the next line, without its end, or false if there is none. A line that is too long
// is cut.
func (l *Reader) line() (line []byte, long, ok bool) {
	searched := l.from
	for {
		if i := bytes.IndexByte(l.buf[searched:l.to], '\n'); i >= 0 {
			line = l.buf[l.from : searched+i]
			l.from = searched + i + 1
			return line, long, true
		}
		if l.end != nil {
			line = l.buf[l.from:l.to]
			l.from = l.to
			return line, long, len(line) > 0
		}
		if l.to-l.from >= maxLine { // its first 1,000 bytes are kept for the report
			l.to = l.from + 1000
			long = true
		}
		searched = l.to - l.from
		l.fill()
	}
}

// Next fills e in with the next entry. It returns io.EOF after the last one, and an error that says
// so if the log could not be read to its end.
func (l *Reader) Next(e *Entry) error {
	for {
		line, long, ok := l.line()
		if !ok {
			if err := l.failure(); err != nil {
				return err
			}
			return io.EOF
		}
		l.number++
		if l.number == 1 {
			line = bytes.TrimPrefix(line, bom)
		}
		if n := len(line); n > 0 && line[n-1] == '\r' {
			line = line[:n-1]
		}
		if len(line) == 0 {
			continue
		}
		l.Lines++
		err := errLong
		if !long {
			err = l.parser.Parse(line, e)
		}
		switch {
		case err == nil:
			return nil
		case errors.Is(err, ErrSkip):
			l.Skipped++
		default:
			l.bad(line, err)
		}
	}
}

func (l *Reader) bad(line []byte, why error) {
	l.Bad++
	if len(l.First) < 3 {
		l.First = append(l.First, BadLine{File: l.Name, Line: l.number, Text: excerpt(line), Why: why.Error()})
	}
}

func excerpt(line []byte) string {
	if len(line) > 200 {
		return string(line[:200]) + "…"
	}
	return string(line)
}

// failure returns what kept the log from being read to its end, or nil.
func (l *Reader) failure() error {
	switch {
	case l.end == nil || errors.Is(l.end, io.EOF):
		return nil
	case errors.Is(l.end, io.ErrUnexpectedEOF) || errors.Is(l.end, gzip.ErrChecksum) || errors.Is(l.end, gzip.ErrHeader):
		return fmt.Errorf("ginlimit: %s is cut off or damaged after line %d: %w; fetch it anew, or unpack what can be read by zcat", l.Name,
			l.number, l.end)
	default:
		return fmt.Errorf("ginlimit: %s cannot be read after line %d: %w", l.Name, l.number, l.end)
	}
}
