package ginlimitotel

import (
	"context"
	"errors"
	"io"
	"net"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/redis"
)

// What became of a request: the values of ginlimit.outcome. Those that begin with dry_run_ passed.
const (
	allowed      = "allowed"
	denied       = "denied"
	noKey        = "no_key"
	badCost      = "bad_cost"
	errorPassed  = "error_passed"
	errorRefused = "error_refused"
	dryRun       = "dry_run_"
)

func outcome(d *ginlimit.Decision) string {
	switch {
	case d.Err == nil && d.Allowed:
		return allowed
	case d.Err == nil:
		return tried(d, denied, dryRun+denied)
	case errors.Is(d.Err, ginlimit.ErrNoKey):
		return tried(d, noKey, dryRun+noKey)
	case d.Cost < 0:
		return tried(d, badCost, dryRun+badCost)
	case d.Status() == 0:
		return errorPassed
	default:
		return errorRefused
	}
}

func tried(d *ginlimit.Decision, refused, passed string) string {
	if d.DryRun {
		return passed
	}
	return refused
}

// other stands for values that are not told apart, as in the semantic conventions; keyError is the error of a KeyFunc.
const (
	other    = "_OTHER"
	keyError = "key"
)

// errorTypes are the errors that have a word of their own, the most telling first.
var errorTypes = []struct {
	err  error
	name string
}{
	{redis.ErrBreakerOpen, "breaker_open"}, {redis.ErrOutOfMemory, "out_of_memory"}, {redis.ErrReadOnly, "read_only"},
	{redis.ErrLoading, "loading"}, {redis.ErrBusy, "busy"}, {redis.ErrClusterDown, "cluster_down"},
	{redis.ErrMasterDown, "master_down"}, {redis.ErrDenied, "denied"}, {redis.ErrForeign, "foreign_value"},
	{redis.ErrScript, "script"}, {context.DeadlineExceeded, "timeout"}, {context.Canceled, "canceled"},
	{io.EOF, "unreachable"}, {io.ErrUnexpectedEOF, "unreachable"},
}

// errorType returns the value of error.type. An error that says its kind itself, in a word fit for an attribute, is
// believed: errors of other backends may do so.
func errorType(err error) string {
	var kinder interface{ Kind() string }
	if errors.As(err, &kinder) && kinder.Kind() != "" {
		return kinder.Kind()
	}
	for _, t := range errorTypes {
		if errors.Is(err, t.err) {
			return t.name
		}
	}
	var network net.Error
	switch {
	case errors.As(err, &network) && network.Timeout():
		return "timeout"
	case network != nil:
		return "unreachable"
	case errors.Is(err, backend.ErrUnavailable):
		return "unavailable"
	default:
		return other
	}
}
