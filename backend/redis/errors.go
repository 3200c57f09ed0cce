package redis

import (
	"context"
	"errors"
	"strings"

	"github.com/redis/rueidis"

	"github.com/ginlimit/ginlimit/internal/storeerr"
)

// What kept Redis from deciding, for errors.Is and, in a word, for [backend.ErrorKind]. Each stands beside [backend.ErrUnavailable] in the chain of an error. A
// server that did not answer in time is context.DeadlineExceeded; one that cannot be reached is a net.Error or io.EOF.
var (
	ErrOutOfMemory = storeerr.ErrOutOfMemory
	ErrReadOnly    = storeerr.ErrReadOnly
	ErrLoading     = storeerr.New("loading", "the server is loading its data", "")
	ErrBusy        = storeerr.ErrBusy
	ErrClusterDown = storeerr.New("cluster_down", "the cluster is down", "")
	ErrMasterDown  = storeerr.New("master_down", "the replica has lost its master", "")
	ErrDenied      = storeerr.ErrDenied
	ErrForeign     = storeerr.ErrForeign
	ErrScript      = storeerr.New("script", "the script failed", "")
	ErrBreakerOpen = storeerr.ErrBreakerOpen // the server did not answer of late; calls fail at once until it does
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

func unavailable(op string, cause error) error {
	var reason error
	if answer := (*rueidis.RedisError)(nil); errors.As(cause, &answer) {
		text := answer.Error()
		for _, k := range kinds {
			if strings.HasPrefix(text, k.text) || strings.Contains(text, " "+k.text) || strings.Contains(text, ": "+k.text) {
				reason = k.err
				break
			}
		}
	}
	return storeerr.Unavailable("redis: "+op, reason, cause)
}

// gaveUp reports whether err is the end of a context.
func gaveUp(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}
