package ginlimit

import (
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/gin-gonic/gin"
)

// lateWriter stands in front of a response's writer where WithLateHeaders asks for it. Whenever the
// header may be about to be written, it puts the limiters' fields in: over those that a handler
// brought, except that policies are listed beside ours.
type lateWriter struct {
	gin.ResponseWriter
	c      *gin.Context
	within []*record // of a writer that stands in front, perhaps of an engine mounted in this one
}

// writeLate puts a lateWriter in front of the request's writer.
func writeLate(c *gin.Context) *lateWriter {
	w := &lateWriter{ResponseWriter: c.Writer, c: c}
	c.Writer = w
	return w
}

// leave puts the writer back that was there before, unless somebody has put in another.
func (w *lateWriter) leave() {
	w.show()
	if w.c.Writer == gin.ResponseWriter(w) {
		w.c.Writer = w.ResponseWriter
	}
}

// show puts the fields in, unless the header is written already.
func (w *lateWriter) show() {
	if w.Written() {
		return
	}
	records := w.records()
	if outer := w.behind(); outer != nil { // it will do so
		outer.within = records
		return
	}
	h := w.Header()
	ietf, legacy := tightestOf(records, HeadersIETF), tightestOf(records, anyLegacy)
	var policies fieldValues
	policies.policies(h, records, theirs(h[fieldPolicy], records))
	if ietf != nil {
		new(fieldValues).figures(h, ietf, HeadersIETF)
	}
	if legacy != nil {
		new(fieldValues).figures(h, legacy, anyLegacy)
	}
	for _, r := range records {
		if r.shows(HeadersIETF | anyLegacy) {
			r.limiter.expose.expose(h, r.headers)
		}
	}
	if wait := secondsUntilNext(records); wait > 0 {
		postpone(h, wait)
	}
}

// records returns what the response is to show: of each limiter that shows anything its last
// decision, be it by Handle or by a Check later on.
func (w *lateWriter) records() (all []*record) {
	h := historyOf(w.c)
	for _, r := range h {
		if last := h.of(r.limiter, (*record).decided); r.shown && last != nil {
			all = replace(all, last)
		}
	}
	for _, r := range w.within {
		all = replace(all, r)
	}
	return all
}

// replace puts a record in, in place of one of the same limiter.
func replace(all []*record, r *record) []*record {
	if !r.shown {
		seen := *r
		r, seen.shown = &seen, true
	}
	for i := range all {
		if all[i].limiter == r.limiter {
			all[i] = r
			return all
		}
	}
	return append(all, r)
}

// behind returns the writer of a limiter that stands further out, perhaps of the engine that this
// one is mounted in, or nil.
func (w *lateWriter) behind() *lateWriter {
	for at := http.ResponseWriter(w.ResponseWriter); ; {
		if outer, ok := at.(*lateWriter); ok {
			return outer
		}
		wrapper, ok := at.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return nil
		}
		at = wrapper.Unwrap()
	}
}

// theirs returns the policies of a field that are not ours.
func theirs(field []string, ours []*record) string {
	if len(field) == 0 {
		return ""
	}
	var known []string
	for _, r := range ours {
		if r.shows(HeadersIETF) {
			known = append(known, members(r.policyText())...)
		}
	}
	isOurs := func(m string) bool { return slices.Contains(known, m) }
	return strings.Join(slices.DeleteFunc(members(strings.Join(field, ",")), isOurs), ", ")
}

// members returns the members of a list (RFC 9651, section 3.1). A comma in a string parts none.
func members(list string) (all []string) {
	from, inString := 0, false
	for i := 0; i <= len(list); i++ {
		switch {
		case i == len(list) || list[i] == ',' && !inString:
			if m := strings.Trim(list[from:i], " \t"); m != "" {
				all = append(all, m)
			}
			from = i + 1
		case list[i] == '"':
			inString = !inString
		case list[i] == '\\' && inString:
			i++
		}
	}
	return all
}

func (w *lateWriter) WriteHeader(status int) {
	w.show() // other middleware's writers write the header at once
	w.ResponseWriter.WriteHeader(status)
}

func (w *lateWriter) WriteHeaderNow() {
	w.show()
	w.ResponseWriter.WriteHeaderNow()
}

func (w *lateWriter) Write(b []byte) (int, error) {
	w.show()
	return w.ResponseWriter.Write(b)
}

func (w *lateWriter) WriteString(s string) (int, error) {
	w.show()
	return w.ResponseWriter.WriteString(s)
}

func (w *lateWriter) Flush() {
	w.show()
	w.ResponseWriter.Flush()
}

// ReadFrom serves io.Copy: a file may go to the connection without a copy in between.
func (w *lateWriter) ReadFrom(r io.Reader) (int64, error) {
	w.show()
	return io.Copy(w.ResponseWriter, r)
}

// Push serves [http.Pusher].
func (w *lateWriter) Push(target string, opts *http.PushOptions) error {
	if p := w.Pusher(); p != nil {
		return p.Push(target, opts)
	}
	return http.ErrNotSupported
}

// Unwrap serves [http.ResponseController].
func (w *lateWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
