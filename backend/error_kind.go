package backend

import (
	"context"
	"errors"
	"io"
	"net"
)

// ErrorKind returns why no decision was reached, in one word that is fit for a metric's label. An
// error in err's chain with a method Kind() string says its own word, as those of this module's
// backends do. Otherwise the word is "timeout" or "canceled" if a context or a connection timed out
// or was given up, "unreachable" for other errors of a network, "unavailable" for any other error
// of a store, and "other" for the rest. It is "" for nil. The word is never part of an error's
// text.
func ErrorKind(err error) string {
	var k interface{ Kind() string }
	var network net.Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &k) && k.Kind() != "":
		return k.Kind()
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.As(err, &network) && network.Timeout():
		return "timeout"
	case network != nil, errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "unreachable"
	case errors.Is(err, ErrUnavailable):
		return "unavailable"
	}
	return "other"
}
