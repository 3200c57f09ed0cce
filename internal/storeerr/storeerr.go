// Package storeerr has the errors of backends whose store could not decide. A reason that several
// backends have is one value, so that errors.Is asks for it whatever the backend.
package storeerr

import (
	"errors"

	"github.com/ginlimit/ginlimit/backend"
)

// The reasons that backends share.
var (
	ErrBreakerOpen        = New("breaker_open", "the server did not answer of late; calls fail at once until it does", "")
	ErrBusy               = New("busy", "the server is busy, and gave up", "look for statements or scripts that take long, and for locks")
	ErrDenied             = New("denied", "the server denies access", "check user, password and rights")
	ErrDisk               = New("disk", "the server cannot write to its disk", "see that the disk has room, and read the server's log")
	ErrForeign            = New("foreign_value", "the key holds a value that is not ours", "give limits a place in the store that nothing else writes to")
	ErrOutOfMemory        = New("out_of_memory", "the server is out of memory", "give the server more memory, or limits a server of their own")
	ErrReadOnly           = New("read_only", "the server cannot be written to, such as a replica", "connect to the primary")
	ErrStarting           = New("starting", "the server is starting or stopping", "wait until it is up")
	ErrTooManyConnections = New("too_many_connections", "the server takes no more connections", "open fewer connections, or let the server take more")
)

// Reason is an error that says why a store could not decide.
type Reason struct{ kind, text, remedy string }

// New returns a [Reason]: the kind is one word that is fit for a metric's label, the text says what
// is wrong, and the remedy, which may be "", what to do about it.
func New(kind, text, remedy string) error { return &Reason{kind, text, remedy} }

func (r *Reason) Error() string {
	if r.remedy == "" {
		return r.text
	}
	return r.text + "; " + r.remedy
}

// Kind is what backend.ErrorKind returns.
func (r *Reason) Kind() string { return r.kind }

// Text says what is wrong, without the remedy.
func (r *Reason) Text() string { return r.text }

// Remedy says what to do about it. It may be "".
func (r *Reason) Remedy() string { return r.remedy }

// Error is an error of a store's operation. Its chain has [backend.ErrUnavailable], the reason and
// the cause.
type Error struct {
	op            string
	reason, cause error
}

// Unavailable returns the [Error] of an operation, such as "redis: take". The reason is nil if it
// is not known, or is in the cause's chain already. Neither may quote a caller's key.
func Unavailable(op string, reason, cause error) *Error { return &Error{op, reason, cause} }

func (e *Error) Error() string {
	text := "ginlimit: " + e.op + ": "
	if e.reason != nil {
		text += e.reason.Error() + ": "
	}
	return text + e.cause.Error()
}

// Unwrap returns the errors that e is.
func (e *Error) Unwrap() []error {
	if e.reason == nil {
		return []error{backend.ErrUnavailable, e.cause}
	}
	return []error{backend.ErrUnavailable, e.reason, e.cause}
}

// Of returns the reason in err's chain, or nil.
func Of(err error) *Reason {
	var r *Reason
	errors.As(err, &r)
	return r
}

// Cause returns what the store said: the error that err's operation failed with, or err itself if
// it is not an [Error].
func Cause(err error) error {
	var e *Error
	if errors.As(err, &e) {
		return e.cause
	}
	return err
}
