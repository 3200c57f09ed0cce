package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	_ "time/tzdata" // for -tz on systems that have none

	"github.com/ginlimit/ginlimit/cmd/ginlimit/internal/accesslog"
	"github.com/ginlimit/ginlimit/cmd/ginlimit/internal/replay"
)

// replayFlags is what the replay command was asked.
type replayFlags struct {
	limits, versus limits
	by, route      string
	format, tz     string
	limiter        string
	only           int
	window         time.Duration
	target         target
	top            int
	json           bool
	html           string
	anonymous      anonymity
	observe        bool
	progress       bool
	ended          bool
	fields         accesslog.Options
	files          []string
}

// memoryLimit is what the garbage collector keeps the process below if it can: then it runs more
// often. GOMEMLIMIT overrules it.
const memoryLimit = 450 << 20

func replayCommand(ctx context.Context, args []string, s streams) error {
	f, err := parseReplay(args, s)
	if err != nil {
		return err
	}
	if s.env("GOMEMLIMIT") == "" {
		defer debug.SetMemoryLimit(debug.SetMemoryLimit(memoryLimit))
	}
	config, err := f.config()
	if err != nil {
		return err
	}
	var read atomic.Int64
	logs, size, closeAll, err := f.open(s, &read, config.By)
	defer closeAll()
	if err != nil {
		return err
	}
	bar := progressBar{out: s.err, size: size, read: &read}
	if f.progress {
		config.Progress = bar.show
	}
	report, err := replay.Run(ctx, config, logs)
	bar.clear()
	if report != nil && err != nil && report.Bad > 0 {
		writeBadLines(s.err, report)
	}
	if err != nil {
		return err
	}
	report.By, report.Route = f.by, f.route
	f.anonymous.hide(report)
	if f.html != "" {
		if err := writeHTMLFile(f.html, report); err != nil {
			return err
		}
	}
	if f.json {
		e := json.NewEncoder(s.out)
		e.SetIndent("", "  ")
		return e.Encode(report)
	}
	zone, _ := time.LoadLocation(f.tz)
	return writeText(s.out, report, zone)
}

func parseReplay(args []string, s streams) (*replayFlags, error) {
	f := &replayFlags{target: target{Share: 0.001}}
	fs := newFlags("replay")
	fs.Var(&f.limits, "limit", "a `limit`: 100/m, '10/s burst 20', '5/15m sliding-log', '10000/day Europe/Berlin calendar',\n"+
		"'5 in flight'; several must all allow a request")
	fs.Var(&f.versus, "vs", "a `limit` to compare with; several must all allow a request")
	fs.StringVar(&f.by, "by", "", "what a `caller` is: ip, ip/24, ip/24/48, path, user, key, global, header:NAME, json:FIELD, or several\n"+
		"joined by +; the default is ip, or key with -key or -observe")
	fs.StringVar(&f.route, "route", "", "only requests of a `route`, such as 'POST /login' or /users/:id")
	fs.IntVar(&f.only, "only", 0, "only requests that were answered with this `status`")
	fs.StringVar(&f.format, "format", "auto", "`auto`, or combined (also Common, and Traefik's), gin, envoy, json (also nginx, Caddy, Traefik)")
	fs.StringVar(&f.tz, "tz", "UTC", "the `zone` of times that are written without one, such as Europe/Berlin, and of the report")
	fs.DurationVar(&f.window, "window", 10*time.Second, "by how much lines may be out of `order`")
	fs.Var(&f.target, "target", "look for the smallest limit that refuses at most this `share`: 0.1%, or '1% of callers'")
	fs.IntVar(&f.top, "top", 10, "how many callers are `listed`")
	fs.BoolVar(&f.json, "json", false, "write the report as JSON")
	fs.StringVar(&f.html, "html", "", "also write the report as one page with charts to this `file`")
	fs.Var(&f.anonymous, "anonymous", "cut addresses to /24 and /64 and hash other keys; -anonymous=hash hashes all")
	fs.BoolVar(&f.observe, "observe", false, "the lines are those of an observer of a dry run")
	fs.StringVar(&f.limiter, "limiter", "", "only the lines that an observer wrote for the limiter of this `name`")
	fs.BoolVar(&f.progress, "progress", isTerminal(s.err), "show how far it is; the default is to do so on a terminal")
	fs.BoolVar(&f.ended, "ended", false, "the log's times are when requests ended: count them when they began, where the log has durations")
	fs.StringVar(&f.fields.Duration, "duration", "", "the `field` of JSON lines that has the duration: seconds, or what the name ends with, as in took_ms;\n"+
		"limits in flight need it")
	fs.StringVar(&f.fields.Time, "time", "", "the `field` of JSON lines that has the time")
	fs.StringVar(&f.fields.Key, "key", "", "the `field` of JSON lines that has the key")
	fs.StringVar(&f.fields.Addr, "addr", "", "the `field` of JSON lines that has the client's address")
	fs.StringVar(&f.fields.Cost, "cost", "", "the `field` of JSON lines that has the cost; bytes in other formats is the size of the response")
	fs.StringVar(&f.fields.Path, "path", "", "the `field` of JSON lines that has the path")
	fs.StringVar(&f.fields.Method, "method", "", "the `field` of JSON lines that has the method")
	fs.StringVar(&f.fields.Status, "status", "", "the `field` of JSON lines that has the status")
	files, err := parseFlags(fs, "ginlimit replay -limit 100/m [flags] FILE... runs limits over access logs; - is standard input", args, s)
	f.files = files
	return f, err
}

// config checks the flags.
func (f *replayFlags) config() (replay.Config, error) {
	c := replay.Config{Limits: f.limits, Versus: f.versus, Window: f.window, Target: replay.Target(f.target), Top: f.top,
		Status: f.only, Limiter: f.limiter, Ended: f.ended}
	switch {
	case len(f.limits) == 0:
		return c, fmt.Errorf("ginlimit: no limit was given; use -limit 100/m, for example")
	case len(f.files) == 0:
		return c, fmt.Errorf("ginlimit: no log was given; name a file, or - for standard input")
	case f.window < 0:
		return c, fmt.Errorf("ginlimit: -window %v is negative; use 0 for lines that are in order", f.window)
	case f.top < 0:
		return c, fmt.Errorf("ginlimit: -top %d is negative; use 0 to list no callers", f.top)
	}
	if f.by == "" {
		if f.by = "ip"; f.fields.Key != "" || f.observe {
			f.by = "key"
		}
	}
	var err error
	if c.By, err = replay.ParseBy(f.by); err != nil {
		return c, err
	}
	if f.route != "" {
		if c.Route, err = replay.ParseRoute(f.route); err != nil {
			return c, err
		}
	}
	if f.observe {
		f.format = "json"
	}
	return c, nil
}

// open opens the logs. size is what there is to read, or 0 if that is not known.
func (f *replayFlags) open(s streams, read *atomic.Int64, by *replay.By) (logs []*accesslog.Reader, size int64, closeAll func(), err error) {
	var open []io.Closer
	closeAll = func() {
		for _, c := range open {
			_ = c.Close()
		}
	}
	o := f.fields
	o.Field, o.Header = by.Field, by.Header
	if o.Zone, err = time.LoadLocation(f.tz); err != nil || f.tz == "" {
		return nil, 0, closeAll, fmt.Errorf("ginlimit: -tz %q is no zone; use a name such as Europe/Berlin, or UTC", f.tz)
	}
	for _, name := range f.files {
		in := s.in
		if name != "-" {
			file, err := os.Open(name)
			if err != nil {
				return nil, 0, closeAll, fmt.Errorf("ginlimit: %w; check the name and the rights", err)
			}
			open = append(open, file)
			if info, err := file.Stat(); err == nil && size >= 0 {
				size += info.Size()
			}
			in = file
		} else {
			name, size = "standard input", math.MinInt64
		}
		log, err := accesslog.NewReader(name, counted{in, read}, f.format, o)
		if err != nil {
			return nil, 0, closeAll, err
		}
		logs = append(logs, log)
	}
	return logs, max(size, 0), closeAll, nil
}

// counted counts the bytes that are read.
type counted struct {
	io.Reader
	n *atomic.Int64
}

func (c counted) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.n.Add(int64(n))
	return n, err
}

// target is the flag -target.
type target replay.Target

// String implements flag.Value.
func (t *target) String() string {
	if t == nil {
		return ""
	}
	text := strconv.FormatFloat(t.Share*100, 'g', 6, 64) + "%"
	if t.Callers {
		text += " of callers"
	}
	return text
}

// Set implements flag.Value.
func (t *target) Set(text string) error {
	number, of, _ := strings.Cut(text, "%")
	share, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	of = strings.TrimPrefix(strings.TrimSpace(of), "of ")
	if err != nil || !strings.Contains(text, "%") || !(share >= 0 && share <= 100) || of != "" && of != "requests" && of != "callers" {
		return fmt.Errorf("ginlimit: -target %q: write a share, as in 0.1%%, or '1%% of callers'", text)
	}
	*t = target{Share: share / 100, Callers: of == "callers"}
	return nil
}

// progressBar shows how much was read, a few times in a second.
type progressBar struct {
	out   io.Writer
	size  int64
	read  *atomic.Int64
	start time.Time
	last  time.Time
	shown bool
}

func (p *progressBar) show(lines int64) {
	now := time.Now()
	if p.start.IsZero() {
		p.start, p.last = now, now
	}
	if now.Sub(p.last) < 200*time.Millisecond {
		return
	}
	p.last, p.shown = now, true
	rate := float64(lines) / now.Sub(p.start).Seconds()
	if p.size > 0 {
		done := min(1, float64(p.read.Load())/float64(p.size))
		const width = 30
		full := int(done * width)
		_, _ = fmt.Fprintf(p.out, "\r[%s%s] %3.0f %%  %s lines, %s/s ", strings.Repeat("=", full), strings.Repeat(" ", width-full), done*100,
			number(lines), number(int64(rate)))
		return
	}
	_, _ = fmt.Fprintf(p.out, "\r%s lines, %s/s ", number(lines), number(int64(rate)))
}

// clear takes the bar away.
func (p *progressBar) clear() {
	if p.shown {
		_, _ = fmt.Fprint(p.out, "\r\x1b[K")
		p.shown = false
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
