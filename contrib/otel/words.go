package ginlimitotel

import "github.com/ginlimit/ginlimit/backend"

// The words of ginlimit.Decision.Outcome for a decision that was not reached because something
// failed.
const (
	outcomePassed  = "error_passed"
	outcomeRefused = "error_refused"
)

// other stands for values that are not told apart, as in the semantic conventions; keyError is the
// error of a KeyFunc.
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
