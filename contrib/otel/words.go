package ginlimitotel

import (
	"errors"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/backend"
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

// errorType returns the value of error.type.
func errorType(err error) string {
	if kind := backend.ErrorKind(err); kind != "other" {
		return kind
	}
	return other
}
