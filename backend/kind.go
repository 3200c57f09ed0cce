package backend

import (
	"context"
	"errors"
)

// Kind returns why no decision was reached, in one word that is fit for a metric's label: what an error in err's chain
// says of itself by a method Kind() string, as those of this module's backends do; "timeout" or "canceled" if a context
// ended; "unavailable" for any other error of a store; "other" for the rest, and "" for nil. It is never part of an
// error's text.
func Kind(err error) string {
	var k interface{ Kind() string }
	switch {
	case err == nil:
		return ""
	case errors.As(err, &k) && k.Kind() != "":
		return k.Kind()
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.Is(err, ErrUnavailable):
		return "unavailable"
	}
	return "other"
}
