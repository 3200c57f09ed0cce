package goredis

import (
	"errors"

	"github.com/redis/go-redis/v9"

	"github.com/ginlimit/ginlimit/internal/redisstore"
	"github.com/ginlimit/ginlimit/internal/storeerr"
)

// What kept Redis from deciding, for errors.Is and, in a word, for [backend.ErrorKind]: the errors
// of package redis. Each stands beside [backend.ErrUnavailable] in the chain of an error. A server
// that did not answer in time is context.DeadlineExceeded; one that cannot be reached is a
// net.Error or io.EOF.
var (
	ErrBreakerOpen        = storeerr.ErrBreakerOpen
	ErrBusy               = storeerr.ErrBusy // running a script
	ErrDenied             = storeerr.ErrDenied
	ErrDisk               = storeerr.ErrDisk
	ErrForeign            = storeerr.ErrForeign
	ErrOutOfMemory        = storeerr.ErrOutOfMemory
	ErrReadOnly           = storeerr.ErrReadOnly
	ErrStarting           = storeerr.ErrStarting // loading its data
	ErrTooManyConnections = storeerr.ErrTooManyConnections

	ErrClusterDown    = redisstore.ErrClusterDown
	ErrMasterDown     = redisstore.ErrMasterDown
	ErrNoReplicas     = redisstore.ErrNoReplicas
	ErrScript         = redisstore.ErrScript
	ErrUnknownCommand = redisstore.ErrUnknownCommand
)

var library = redisstore.Library{
	Package: "goredis", Rights: "goredis.New", Answer: said, Closed: redis.ErrClosed,
	Cache: "a client of one server with ClientSideCacheConfig, RESP3 and database 0",
}

// said returns what a server said that led to err, and whether that was its answer to a command.
func said(err error) (text string, answered bool) {
	var answer redis.Error
	if errors.As(err, &answer) {
		return answer.Error(), true
	}
	return "", false
}
