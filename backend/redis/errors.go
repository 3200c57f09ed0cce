package redis

import (
	"context"
	"errors"
	"strings"

	"github.com/redis/rueidis"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/internal/gate"
)

// What kept Redis from deciding, for errors.Is and, in a word, for [backend.ErrorKind]. Each stands beside [backend.ErrUnavailable] in the chain of an error. A
// server that did not answer in time is context.DeadlineExceeded; one that cannot be reached is a net.Error or io.EOF.
var (
	ErrOutOfMemory = gate.NewReason("out_of_memory", "the server is out of memory")
	ErrReadOnly    = gate.NewReason("read_only", "the server is a replica, which cannot be written to")
	ErrLoading     = gate.NewReason("loading", "the server is loading its data")
	ErrBusy        = gate.NewReason("busy", "the server is busy running a script")
	ErrClusterDown = gate.NewReason("cluster_down", "the cluster is down")
	ErrMasterDown  = gate.NewReason("master_down", "the replica has lost its master")
	ErrDenied      = gate.NewReason("denied", "the server denies access; check user, password and rights")
	ErrForeign     = gate.NewReason("foreign_value", "the key holds a value that is not ours")
	ErrScript      = gate.NewReason("script", "the script failed")
	ErrBreakerOpen = gate.ErrOpen // the server did not answer of late; calls fail at once until it does
)

// kinds tells the answers of a server apart, by how they begin, or what they contain if a script says them.
var kinds = []struct {
	text string
	err  error
}{
	{"OOM ", ErrOutOfMemory}, {"READONLY ", ErrReadOnly}, {"LOADING ", ErrLoading}, {"BUSY ", ErrBusy},
	{"CLUSTERDOWN ", ErrClusterDown}, {"TRYAGAIN ", ErrClusterDown}, {"MASTERDOWN ", ErrMasterDown},
	{"NOAUTH ", ErrDenied}, {"NOPERM ", ErrDenied}, {"WRONGPASS ", ErrDenied}, {"WRONGTYPE ", ErrForeign},
	{"GINLIMIT ", ErrForeign}, {"-OOM ", ErrOutOfMemory}, {"-READONLY ", ErrReadOnly},
	// Redis 6.2 and miniredis tell what a script's command said in words of their own.
	{"OOM command not allowed", ErrOutOfMemory}, {"can't write against a read only replica", ErrReadOnly},
	{"user_script", ErrScript}, {"running script", ErrScript}, {"compiling script", ErrScript},
}

// storeError is an error of the store: [backend.ErrUnavailable], what kind it is, and its cause.
type storeError struct {
	op          string
	kind, cause error
}

func unavailable(op string, cause error) error {
	e := &storeError{op: op, cause: cause}
	if answer := (*rueidis.RedisError)(nil); errors.As(cause, &answer) {
		text := answer.Error()
		for _, k := range kinds {
			if strings.HasPrefix(text, k.text) || strings.Contains(text, " "+k.text) || strings.Contains(text, ": "+k.text) {
				e.kind = k.err
				break
			}
		}
	}
	return e
}

func (e *storeError) Error() string {
	text := "ginlimit: redis: " + e.op + ": "
	if e.kind != nil {
		text += e.kind.Error() + ": "
	}
	return text + e.cause.Error()
}

func (e *storeError) Unwrap() []error {
	if e.kind == nil {
		return []error{backend.ErrUnavailable, e.cause}
	}
	return []error{backend.ErrUnavailable, e.kind, e.cause}
}

// gaveUp reports whether err is the end of a context.
func gaveUp(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}
