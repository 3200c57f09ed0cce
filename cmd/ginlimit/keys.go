package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"text/tabwriter"
	"time"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/redis"
)

// keyFlags is what keys, reset, ban and unban were asked.
type keyFlags struct {
	url, prefix  string
	limiter, key string
	ip           string
	limits       limits
	timeout      time.Duration
}

func (f *keyFlags) register(fs *flag.FlagSet) {
	fs.StringVar(&f.url, "redis", "", "where Redis is, as redis.Dial takes it; the default is the environment's REDIS_URL, where a `URL` with\n"+
		"a password belongs")
	fs.StringVar(&f.prefix, "prefix", "gl", "the `prefix` of redis.WithPrefix")
	fs.StringVar(&f.limiter, "limiter", "default", "the `name` of the limiter, that of WithName")
	fs.StringVar(&f.key, "key", "", "the `key` of the caller, such as user:alice; KeyFunc lists those of each By… function")
	fs.StringVar(&f.ip, "ip", "", "in place of -key the `address` of a caller of ByIP")
	fs.DurationVar(&f.timeout, "timeout", 5*time.Second, "how `long` Redis may take")
}

// check fills in what was not given.
func (f *keyFlags) check(files []string, s streams) error {
	if f.url == "" {
		f.url = s.env("REDIS_URL")
	} else if hasPassword(f.url) {
		return errors.New("ginlimit: the URL of -redis has a password, which everybody on this machine can see in the list of processes; " +
			"set REDIS_URL in place of -redis, and change the password")
	}
	switch {
	case f.url == "":
		return errors.New("ginlimit: no Redis was given; set REDIS_URL, or use -redis redis://host:6379")
	case len(files) > 0:
		return fmt.Errorf("ginlimit: %q is no flag; name the caller by -key or -ip", files[0])
	case (f.key == "") == (f.ip == ""):
		return errors.New("ginlimit: name the caller by -key, such as -key user:alice, or by -ip")
	case f.timeout < time.Millisecond || f.timeout > time.Minute:
		return fmt.Errorf("ginlimit: -timeout %v: use 1ms to 1m", f.timeout)
	}
	if f.ip != "" {
		addr, err := netip.ParseAddr(f.ip)
		if err != nil {
			return fmt.Errorf("ginlimit: -ip %q is no address; use one such as 203.0.113.7 or 2001:db8::1", f.ip)
		}
		f.key = ginlimit.KeyOfIP(addr)
	}
	return nil
}

// hasPassword also sees a password that url.Parse cannot read.
func hasPassword(text string) bool {
	u, err := url.Parse(text)
	if err != nil {
		return true // the message of whoever reads it next does not quote it, but it is seen already
	}
	_, set := u.User.Password()
	return set
}

// open connects to Redis and returns the limiter as the application has it.
func (f *keyFlags) open(ctx context.Context, own limits) (*ginlimit.Limiter, func(), error) {
	b, err := redis.Dial(ctx, f.url, redis.WithPrefix(f.prefix), redis.WithTimeout(f.timeout), redis.WithDenyCache(false),
		redis.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		return nil, nil, err
	}
	l, err := ginlimit.NewLimiter(own[0], ginlimit.Global(), ginlimit.WithLimits(own[1:]...), ginlimit.WithName(f.limiter), ginlimit.WithBackend(b))
	if err != nil {
		_ = b.Close()
		return nil, nil, err
	}
	return l, func() { _ = b.Close() }, nil
}

// advise says what to do about a store that does not answer.
func advise(err error) error {
	if errors.Is(err, backend.ErrUnavailable) {
		return fmt.Errorf("%w; check that Redis runs, and the URL with its user and password", err)
	}
	return err
}

func keysCommand(ctx context.Context, args []string, s streams) error {
	var f keyFlags
	fs := newFlags("keys")
	f.register(fs)
	fs.Var(&f.limits, "limit", "a `limit` of the limiter, as the application has it; several in the same order")
	files, err := parseFlags(fs, "ginlimit keys -limiter NAME -key KEY -limit 100/m shows what a caller has used; it charges and changes nothing", args, s)
	if err != nil {
		return err
	}
	if err := f.check(files, s); err != nil {
		return err
	}
	if len(f.limits) == 0 {
		return errors.New("ginlimit: no limit was given; what is used is counted under the limits of the application, so name them: -limit 100/m")
	}
	l, done, err := f.open(ctx, f.limits)
	if err != nil {
		return err
	}
	defer done()
	all, err := l.Usage(ctx, f.key)
	if err != nil {
		return advise(err)
	}
	d, err := l.Peek(ctx, f.key, roomy) // a ban is no limit's usage
	if err != nil {
		return advise(err)
	}
	_, _ = fmt.Fprintf(s.out, "%s of limiter %s\n", printable(f.key, 200), printable(f.limiter, 80))
	if d.Banned {
		_, _ = fmt.Fprintf(s.out, "  banned for another %s, whatever the limits say\n", wait(d.RetryAfter.Seconds()))
	}
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintf(w, "  limit\tused\tof\tleft\tnext request\tall back in\n")
	for _, res := range all {
		_, _ = fmt.Fprint(w, usageLine(res))
	}
	return w.Flush()
}

// roomy is a limit that always has room: what refuses under it is a ban, whose end is RetryAfter.
var roomy = ginlimit.PerSecond(backend.MaxCount)

func usageLine(res ginlimit.Result) string {
	if res.Limit.IsUnlimited() {
		return "  unlimited\t-\t-\t-\tpasses\t-\n"
	}
	next := "passes"
	switch {
	case res.RetryAfter < 0:
		next = "never passes"
	case !res.Allowed:
		next = "in " + wait(res.RetryAfter.Seconds())
	}
	back := "-"
	if res.ResetAfter > 0 {
		back = wait(res.ResetAfter.Seconds())
	}
	return fmt.Sprintf("  %s\t%s\t%s\t%s\t%s\t%s\n", res.Limit, number(res.Used()), number(res.Limit.Capacity()),
		number(res.Remaining), next, back)
}

// operate runs a command that changes what Redis has of one caller, and says what do returns. Which
// limits the application has does not matter to it.
func operate(ctx context.Context, f *keyFlags, files []string, s streams,
	do func(l *ginlimit.Limiter) (said string, err error)) error {
	if err := f.check(files, s); err != nil {
		return err
	}
	l, done, err := f.open(ctx, limits{ginlimit.Unlimited()})
	if err != nil {
		return err
	}
	defer done()
	said, err := do(l)
	if err != nil {
		return advise(err)
	}
	_, err = fmt.Fprintf(s.out, "%s of limiter %s %s\n", printable(f.key, 200),
		printable(f.limiter, 80), said)
	return err
}

func resetCommand(ctx context.Context, args []string, s streams) error {
	return reset(ctx, "reset", "ginlimit reset -limiter NAME -key KEY forgets what a caller has used, "+
		"of all limits, and lifts its ban", args, s)
}

// unbanCommand is resetCommand: a store forgets a ban with all else that it has of a key.
func unbanCommand(ctx context.Context, args []string, s streams) error {
	return reset(ctx, "unban", "ginlimit unban -limiter NAME -key KEY is ginlimit reset: it lifts a ban, "+
		"and forgets what the caller has used, of all limits", args, s)
}

func reset(ctx context.Context, name, line string, args []string, s streams) error {
	var f keyFlags
	fs := newFlags(name)
	f.register(fs)
	files, err := parseFlags(fs, line, args, s)
	if err != nil {
		return err
	}
	return operate(ctx, &f, files, s, func(l *ginlimit.Limiter) (string, error) {
		return "starts anew: it has used nothing, and is not banned", l.Reset(ctx, f.key)
	})
}

func banCommand(ctx context.Context, args []string, s streams) error {
	var f keyFlags
	var length time.Duration
	fs := newFlags("ban")
	f.register(fs)
	fs.DurationVar(&length, "for", 0, "how `long` the caller is refused, from now on, such as 1h; 1ms to 8784h")
	files, err := parseFlags(fs, "ginlimit ban -limiter NAME -key KEY -for 1h refuses a caller whatever it asks for; "+
		"it replaces a ban that is there", args, s)
	if err != nil {
		return err
	}
	switch {
	case length == 0:
		return errors.New("ginlimit: say by -for how long the ban lasts, such as -for 1h")
	case length < backend.MinPeriod || length > backend.MaxPeriod || length%time.Microsecond != 0:
		return fmt.Errorf("ginlimit: -for %v: use %v to %v, in whole microseconds",
			length, backend.MinPeriod, backend.MaxPeriod)
	}
	return operate(ctx, &f, files, s, func(l *ginlimit.Limiter) (string, error) {
		return "is banned for " + wait(length.Seconds()), l.Ban(ctx, f.key, length)
	})
}
