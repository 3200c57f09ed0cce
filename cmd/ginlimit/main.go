// Command ginlimit answers two questions about rate limits: what a limit would do to the traffic in
// an access log, and what a caller has used. It also resets and bans callers.
//
//	ginlimit replay -limit 100/m -by ip access.log
//	ginlimit keys   -limiter api -key user:alice -limit 100/m
//	ginlimit reset  -limiter api -key user:alice
//	ginlimit ban    -limiter api -key user:alice -for 1h
//	ginlimit unban  -limiter api -key user:alice
//	ginlimit sample > access.log
//
// docs/replay.md describes it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
)

const usage = `ginlimit answers questions about rate limits.

  ginlimit replay -limit 100/m -by ip access.log
        what would this limit do to the traffic in an access log?
  ginlimit keys -limiter api -key user:alice -limit 100/m
        what has a caller used, of a limiter on Redis? REDIS_URL says where that is
  ginlimit reset -limiter api -key user:alice
        forgets what a caller has used, and lifts its ban
  ginlimit ban -limiter api -key user:alice -for 1h
        refuses a caller whatever it asks for
  ginlimit unban -limiter api -key user:alice
        is reset: it lifts a ban, and forgets what the caller has used
  ginlimit sample > access.log
        writes a synthetic access log to try it with

ginlimit COMMAND -h lists the flags of a command.
`

// streams is where a command reads and writes.
type streams struct {
	in       io.Reader
	out, err io.Writer
	env      func(string) string
}

// errUsage is what a command returns that was asked wrongly and has said so.
var errUsage = errors.New("usage")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	code := run(ctx, os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr, os.Getenv})
	stop()
	os.Exit(code)
}

// run returns the exit code: 0, 1 if a command failed, or 2 if it was asked wrongly.
func run(ctx context.Context, args []string, s streams) int {
	if len(args) == 0 {
		_, _ = fmt.Fprint(s.err, usage)
		return 2
	}
	commands := map[string]func(context.Context, []string, streams) error{
		"replay": replayCommand, "keys": keysCommand, "reset": resetCommand,
		"ban": banCommand, "unban": unbanCommand, "sample": sampleCommand,
	}
	name, rest := args[0], args[1:]
	if name == "-h" || name == "-help" || name == "--help" || name == "help" {
		_, _ = fmt.Fprint(s.out, usage)
		return 0
	}
	command, ok := commands[name]
	if !ok {
		_, _ = fmt.Fprintf(s.err, "ginlimit: no command is called %q; "+
			"use replay, keys, reset, ban, unban or sample\n", name)
		return 2
	}
	err := command(ctx, rest, s)
	switch {
	case err == nil || errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errUsage):
		return 2
	}
	text := err.Error()
	if !strings.HasPrefix(text, "ginlimit: ") {
		text = "ginlimit: " + text
	}
	_, _ = fmt.Fprintln(s.err, text)
	return 1
}

// newFlags returns the flags of a command.
func newFlags(name string) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Usage = func() {} // an error says what was wrong, and -h is for the rest
	return fs
}

// parseFlags reads flags and files in any order. line is what -h says first.
func parseFlags(fs *flag.FlagSet, line string, args []string, s streams) (files []string, err error) {
	for {
		if err := fs.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				_, _ = fmt.Fprintf(s.out, "%s\n\n", line)
				fs.SetOutput(s.out)
				fs.PrintDefaults()
				return nil, err
			}
			text := strings.TrimPrefix(err.Error(), "ginlimit: ")
			if i := strings.LastIndex(text, "ginlimit: "); i >= 0 { // what a flag's own reader said
				text = text[i+len("ginlimit: "):]
			}
			_, _ = fmt.Fprintf(s.err, "ginlimit: %s; see ginlimit %s -h\n", text, fs.Name())
			return nil, errUsage
		}
		rest := fs.Args()
		if len(rest) == 0 {
			return files, nil
		}
		if n := len(args) - len(rest); n > 0 && args[n-1] == "--" {
			return append(files, rest...), nil
		}
		files = append(files, rest[0])
		args = rest[1:]
	}
}
