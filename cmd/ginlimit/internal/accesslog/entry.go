// Package accesslog reads access logs: lines of the formats that servers write, of one file or of
// several, compressed or not, as entries in the order of their times.
package accesslog

import (
	"bytes"
	"errors"
	"time"
)

// Entry is what a line says of one request. Its texts are parts of the line or of the parser's
// buffer, and valid until the next line is parsed.
type Entry struct {
	Time     int64  // when the line says that it was, in µs since 1970
	Duration int64  // how long the request took, in µs; negative if the line does not say
	Cost     int64  // units; 1 unless the line says something else
	Bytes    int64  // of the response's body; negative if the line does not say
	Status   int    // of HTTP; 0 if the line does not say
	Addr     []byte // of the client, as written
	User     []byte // authenticated by the server
	Method   []byte
	Target   []byte // the path with its query, as written
	Referer  []byte
	Agent    []byte
	Key      []byte // that a limiter had, in the lines of an observer
	Outcome  []byte // that a limiter had, in the lines of an observer
	Limiter  []byte // by name, in the lines of an observer
	Field    []byte // the field that Options.Field names
}

// Options says how lines are to be read.
type Options struct {
	Zone *time.Location // of times that are written without a zone; UTC if nil

	// The names of fields in JSON lines. A name may lead into objects, such as request.client_ip.
	// Those that are empty are found by the names that servers give them.
	Time, Key, Cost, Path, Status, Method, Duration, Addr string
	// Field is one more field, or header, that Entry.Field is to have. Header says which it is: a
	// line of Common or Combined Log Format has Referer and User-Agent.
	Field  string
	Header bool
}

func (o Options) zone() *time.Location {
	if o.Zone == nil {
		return time.UTC
	}
	return o.Zone
}

// Parser reads the lines of one format. It is for one goroutine.
type Parser interface {
	// Parse fills e in with what line says. It returns [ErrSkip] for a line that is none of a
	// request and is none of the log's faults.
	Parse(line []byte, e *Entry) error
}

// ErrSkip is what Parse says of a line that has nothing to do with requests, such as what an
// application writes between the lines of Gin's logger.
var ErrSkip = errors.New("not a line of a request")

// What can be wrong with a line. They are values, so that a bad line costs no memory.
var (
	errTime    = errors.New("its time is missing, or not of a form that is known")
	errRequest = errors.New("its request is not in quotes")
	errStatus  = errors.New("its status is not a number of three digits")
	errBytes   = errors.New("its size is not a number")
	errFields  = errors.New("it has too few fields")
	errJSON    = errors.New("it is not one JSON object")
	errCost    = errors.New("its cost is missing, negative or not a number")
	errLong    = errors.New("it is longer than 1 MiB")
)

// formats has every format by the name that -format gives it, in the order in which they are tried.
var formats = []struct {
	name string
	make func(Options) Parser
}{
	{"combined", func(o Options) Parser { return &combined{clock: clock{zone: o.zone()}, options: o} }},
	{"gin", func(o Options) Parser { return &ginLog{clock: clock{zone: o.zone()}} }},
	{"envoy", func(o Options) Parser { return &envoy{clock: clock{zone: o.zone()}, options: o} }},
	{"json", func(o Options) Parser { return newJSONLines(o) }},
}

// Formats returns the names of the formats that New knows.
func Formats() []string {
	names := make([]string, len(formats))
	for i, f := range formats {
		names[i] = f.name
	}
	return names
}

// aliases are further names for what one parser reads.
var aliases = map[string]string{"common": "combined", "clf": "combined", "apache": "combined", "nginx": "combined",
	"traefik": "combined", "caddy": "json", "nginx-json": "json", "observe": "json"}

// New returns the parser of a format, or nil if there is none of that name.
func New(name string, o Options) Parser {
	if as, ok := aliases[name]; ok {
		name = as
	}
	for _, f := range formats {
		if f.name == name {
			return f.make(o)
		}
	}
	return nil
}

// Detect returns the name of the format that reads most of lines, or "" if none reads any. Lines
// that a format skips count for none.
func Detect(lines [][]byte, o Options) string {
	best, most := "", 0
	for _, f := range formats {
		p := f.make(o)
		n := 0
		for _, line := range lines {
			var e Entry
			if p.Parse(line, &e) == nil {
				n++
			}
		}
		if n > most {
			best, most = f.name, n
		}
	}
	return best
}

// reset is e before a line is parsed.
func (e *Entry) reset() { *e = Entry{Duration: -1, Bytes: -1, Cost: 1} }

// Path returns the path of the target, without its query and without the scheme and the host of an
// absolute one.
func (e *Entry) Path() []byte {
	t := e.Target
	if len(t) > 0 && t[0] != '/' {
		if i := bytes.Index(t, []byte("://")); i > 0 {
			rest := t[i+3:]
			j := bytes.IndexByte(rest, '/')
			if j < 0 {
				return []byte("/")
			}
			t = rest[j:]
		}
	}
	for i, c := range t {
		if c == '?' || c == '#' {
			return t[:i]
		}
	}
	return t
}
