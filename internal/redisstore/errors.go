package redisstore

import (
	"errors"
	"strings"

	"github.com/ginlimit/ginlimit/internal/storeerr"
)

// What kept Redis from deciding, for errors.Is and, in a word, for [backend.ErrorKind]. Each stands
// beside [backend.ErrUnavailable] in the chain of an error. A server that did not answer in time is
// context.DeadlineExceeded; one that cannot be reached is a net.Error or io.EOF.
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

	ErrClusterDown    = storeerr.New("cluster_down", "the Cluster is down", "see CLUSTER INFO: all slots need a master")
	ErrMasterDown     = storeerr.New("master_down", "the server is a replica that has lost its master", "connect to the master, or use the URL of the Sentinels or of the Cluster")
	ErrNoReplicas     = storeerr.New("no_replicas", "the server has too few replicas to be written to", "start replicas, or lower min-replicas-to-write")
	ErrScript         = storeerr.New("script", "the script failed", "use Redis 6.2 or newer, or Valkey, and read the cause")
	ErrUnknownCommand = storeerr.New("unknown_command", "the server lacks a command", "use a server that has GET, SET, DEL, TIME, EVAL and EVALSHA, and does not rename them")
)

// kinds tells the answers of a server apart, by how they begin, or by what they contain if a script
// says them.
var kinds = []struct {
	text string
	err  error
}{
	{"OOM ", ErrOutOfMemory}, {"READONLY ", ErrReadOnly}, {"LOADING ", ErrStarting}, {"BUSY ", ErrBusy}, {"MISCONF ", ErrDisk},
	{"CLUSTERDOWN ", ErrClusterDown}, {"TRYAGAIN ", ErrClusterDown}, {"MASTERDOWN ", ErrMasterDown}, {"NOREPLICAS ", ErrNoReplicas},
	{"NOAUTH ", ErrDenied}, {"NOPERM ", ErrDenied}, {"WRONGPASS ", ErrDenied}, {"DENIED ", ErrDenied}, {"AUTH ", ErrDenied},
	{"max number of clients", ErrTooManyConnections}, {"unknown command", ErrUnknownCommand}, {"unknown subcommand", ErrUnknownCommand},
	{"WRONGTYPE ", ErrForeign}, {"GINLIMIT ", ErrForeign},
	// What a script's command was refused for, in the words of Redis 7, and with a dash.
	{"The user executing the script can't ", ErrDenied}, {"ACL failure in script", ErrDenied},
	{"-OOM ", ErrOutOfMemory}, {"-READONLY ", ErrReadOnly}, {"-MISCONF ", ErrDisk}, {"-NOREPLICAS ", ErrNoReplicas},
	// Redis 6.2, Valkey 8 and miniredis have words of their own.
	{"OOM command not allowed", ErrOutOfMemory}, {"can't write against a read only replica", ErrReadOnly},
	{"Unknown Redis command called from", ErrUnknownCommand}, {"Unknown command called from", ErrUnknownCommand}, {"can't run this command or subcommand", ErrDenied},
	{"user_script", ErrScript}, {"running script", ErrScript}, {"compiling script", ErrScript},
}

// kindOf returns the kind of a server's answer; nil if that is not known.
func kindOf(text string) error {
	for _, k := range kinds {
		if strings.HasPrefix(text, k.text) || strings.Contains(text, " "+k.text) || strings.Contains(text, ": "+k.text) {
			return k.err
		}
	}
	return nil
}

// unavailable returns the error of an operation that failed; nil if it did not. It does not quote a
// key, also if the server does.
func (c *Config) unavailable(op string, cause error) error {
	if cause == nil {
		return nil
	}
	text, answered := c.Answer(cause)
	reason := kindOf(text)
	if answered {
		if without := c.withoutKeys(text); without != text {
			cause = errors.New(without)
		}
	}
	return storeerr.Unavailable(c.Package+": "+op, reason, cause)
}

// withoutKeys leaves out of a server's answer what it quotes of a command: the arguments of one
// that it does not know, of which it may show a part, and our keys.
func (c *Config) withoutKeys(text string) string {
	for _, arguments := range []string{", with args beginning with:", ", with args beginning with "} {
		text, _, _ = strings.Cut(text, arguments)
	}
	before, rest, found := strings.Cut(text, c.Prefix+version)
	if !found {
		return text
	}
	if end := strings.IndexAny(rest, " '\"`"); end >= 0 {
		return before + "(a key)" + c.withoutKeys(rest[end:])
	}
	return before + "(a key)"
}

// remedy returns what to do about an error that the server refuses calls with, where that is
// another thing than for other stores; "" elsewhere.
func (c *Config) remedy(err error) string {
	switch {
	case errors.Is(err, ErrDenied):
		return "check the URL's user and password, and grant the rights that the documentation of " + c.Rights + " lists"
	case errors.Is(err, ErrOutOfMemory):
		return "no charge can be written, whoever asks; raise maxmemory, and let a limit by network (ByIPPrefix) " +
			"in memory stand before this one, so that a flood of keys cannot fill the server"
	case errors.Is(err, ErrReadOnly):
		return "connect to the master, or use the URL of the Sentinels or of the Cluster"
	case errors.Is(err, ErrStarting), errors.Is(err, ErrBusy):
		return "wait until it is done; if it is busy, look for scripts that take long with SLOWLOG"
	case errors.Is(err, ErrForeign):
		return "give limits a Redis, a database or a " + c.Package + ".WithPrefix of their own"
	case errors.Is(err, ErrDisk):
		return "read the server's log: it cannot save to its disk; or set stop-writes-on-bgsave-error no"
	}
	return ""
}
