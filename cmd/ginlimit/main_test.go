package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/cmd/ginlimit/internal/replay"
	"github.com/ginlimit/ginlimit/internal/testserver"
)

var update = flag.Bool("update", false, "write the golden files anew; read what changed")

// golden holds got to a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != got {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
}

// sample writes a synthetic log into a directory of its own, which is the working directory from
// then on, so that reports name it alike.
func sample(t *testing.T, args ...string) {
	t.Helper()
	testdata, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.Symlink(testdata, "testdata"); err != nil && runtime.GOOS != "windows" {
		t.Fatal(err)
	}
	if err := os.WriteFile("access.log", []byte(mustRun(t, "", append([]string{"sample"}, args...)...)), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestReplayText(t *testing.T) {
	sample(t)
	for name, args := range map[string][]string{
		"limit.txt":     {"-limit", "20/m"},
		"several.txt":   {"-limit", "10/s burst 20", "-limit", "30/m sliding-log", "-by", "ip/24", "-top", "3"},
		"vs.txt":        {"-limit", "20/m", "-vs", "30/m fixed-window", "-tz", "Europe/Berlin", "-target", "0.05% of callers"},
		"login.txt":     {"-limit", "5/15m sliding-log", "-route", "POST /login"},
		"path.txt":      {"-limit", "600/h", "-by", "path", "-top", "4"},
		"anonymous.txt": {"-limit", "20/m", "-anonymous"},
		"bytes.txt":     {"-limit", "100000/m", "-cost", "bytes", "-by", "global"},
		"none.txt":      {"-limit", "1000/s"},
		"calendar.txt":  {"-limit", "1000/day Europe/Berlin calendar", "-tz", "Europe/Berlin", "-top", "3"},
		"agent.txt":     {"-limit", "unlimited", "-by", "header:User-Agent"},
	} {
		t.Run(name, func(t *testing.T) {
			golden(t, name, mustRun(t, "", append(append([]string{"replay"}, args...), "access.log")...))
		})
	}
}

// Several files, one of them compressed, in the wrong order and with lines that are bad, and
// standard input, are one log.
func TestReplayFiles(t *testing.T) {
	sample(t, "-lines", "5000")
	whole := mustRun(t, "", "replay", "-limit", "10/m", "-json", "access.log")
	content, err := os.ReadFile("access.log")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(content), "\n")
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = z.Write([]byte(strings.Join(lines[:2500], "")))
	_ = z.Close()
	if err := os.WriteFile("access.log.1.gz", zipped.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	bad := "\x1b[31mnot a line\n" + strings.Repeat("also not\n", 4)
	got := mustRun(t, bad+strings.Join(lines[2500:], ""), "replay", "-", "access.log.1.gz", "-json", "-limit", "10/m", "-format", "combined")
	var a, b replay.Report
	for text, r := range map[string]*replay.Report{whole: &a, got: &b} {
		if err := json.Unmarshal([]byte(text), r); err != nil {
			t.Fatal(err)
		}
	}
	if b.Bad != 5 || len(b.BadLines) != 3 || b.BadLines[0].File != "standard input" || b.BadLines[0].Line != 1 || len(b.Files) != 2 {
		t.Errorf("got %+v", b)
	}
	b.Files, b.Lines, b.Bad, b.BadLines = a.Files, a.Lines, a.Bad, a.BadLines
	again, _ := json.Marshal(b)
	first, _ := json.Marshal(a)
	if string(again) != string(first) {
		t.Errorf("got\n%s\nwant\n%s", again, first)
	}
	out := mustRun(t, bad+string(content), "replay", "-", "-limit", "10/m")
	if strings.Contains(out, "\x1b") || !strings.Contains(out, `standard input, line 1: its time is missing`) || !strings.Contains(out, `\x1b[31mnot a line`) {
		t.Errorf("got %s", out)
	}
}

func TestReplayRefuses(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	line := `203.0.113.7 - - [29/Nov/2026:12:00:00 +0000] "GET / HTTP/1.1" 200 5` + "\n"
	good, empty, strange := file("a.log", line), file("empty.log", ""), file("strange.log", "x\ny\n")
	mostly := file("mostly.log", line+"x\ny\n")
	for _, step := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"replay", good}, 1, "ginlimit: no limit was given; use -limit 100/m"},
		{[]string{"replay", "-limit", "1/m"}, 1, "ginlimit: no log was given; name a file, or -"},
		{[]string{"replay", "-limit", "1/m", filepath.Join(dir, "none")}, 1, "check the name and the rights"},
		{[]string{"replay", "-limit", "1/m", empty}, 1, "is empty; give a log that has requests"},
		{[]string{"replay", "-limit", "1/m", strange}, 1, "name the format by -format"},
		{[]string{"replay", "-limit", "1/m", mostly}, 1, "more than half of the lines could not be read"},
		{[]string{"replay", "-limit", "1/m", "-format", "x", good}, 1, `no format is called "x"; use auto,`},
		{[]string{"replay", "-limit", "1/m", "-by", "cookie", good}, 1, `"cookie" is not known; use ip,`},
		{[]string{"replay", "-limit", "1/m", "-by", "user", good}, 1, "none of 1 requests has a key; choose by -by"},
		{[]string{"replay", "-limit", "1/m", "-route", "login", good}, 1, "write a path, or a method and a path"},
		{[]string{"replay", "-limit", "1/m", "-route", "/login", good}, 1, "none of 1 requests is of the route"},
		{[]string{"replay", "-limit", "1/m", "-only", "404", good}, 1, "none of 1 requests is of the route, the status"},
		{[]string{"replay", "-limit", "1/m", "-tz", "Mars", good}, 1, `-tz "Mars" is no zone`},
		{[]string{"replay", "-limit", "1/m", "-window", "-1s", good}, 1, "-window -1s is negative"},
		{[]string{"replay", "-limit", "1/m", "-top", "-1", good}, 1, "-top -1 is negative"},
		{[]string{"replay", "-limit", "1/m", "-html", filepath.Join(dir, "no", "x.html"), good}, 1, "the page cannot be written"},
		{[]string{"replay", "-limit", "100", good}, 2, `ginlimit: the limit "100": it is not understood; write it as "100/m"`},
		{[]string{"replay", "-limit", "1/m", "-target", "2", good}, 2, `-target "2": write a share`},
		{[]string{"replay", "-limit", "1/m", "-anonymous=rot13", good}, 2, "use cut or hash"},
		{[]string{"replay", "-what", good}, 2, "flag provided but not defined: -what; see ginlimit replay -h"},
		{[]string{"sample", "x"}, 1, "use ginlimit sample > x"},
		{[]string{"sample", "-lines", "0"}, 1, "must be 1 or more"},
		{[]string{"keys", "-key", "a", "-limit", "1/m"}, 1, "no Redis was given; set REDIS_URL"},
		{[]string{"keys", "-redis", "redis://127.0.0.1:1", "-limit", "1/m"}, 1, "name the caller by -key"},
		{[]string{"keys", "-redis", "redis://127.0.0.1:1", "-key", "a"}, 1, "no limit was given"},
		{[]string{"keys", "-redis", "redis://127.0.0.1:1", "-key", "a", "-ip", "::1"}, 1, "name the caller by -key"},
		{[]string{"keys", "-redis", "redis://127.0.0.1:1", "-ip", "x"}, 1, "is no address"},
		{[]string{"reset", "-redis", "redis://127.0.0.1:1", "a"}, 1, `"a" is no flag`},
		{[]string{"reset", "-redis", "redis://127.0.0.1:1", "-key", "a", "-timeout", "0"}, 1, "use 1ms to 1m"},
		{[]string{"reset", "-redis", "redis://127.0.0.1:1", "-key", "a", "-timeout", "1h"}, 1, "use 1ms to 1m"},
		{[]string{"unban", "-redis", "redis://127.0.0.1:1"}, 1, "name the caller by -key"},
		{[]string{"ban", "-redis", "redis://127.0.0.1:1", "-for", "1h"}, 1, "name the caller by -key"},
		{[]string{"ban", "-key", "a", "-for", "1h"}, 1, "no Redis was given"},
		{[]string{"ban", "-redis", "redis://127.0.0.1:1", "-key", "a"}, 1, "say by -for how long the ban lasts, such as -for 1h"},
		{[]string{"ban", "-redis", "redis://127.0.0.1:1", "-key", "a", "-for", "-1h"}, 1, "-for -1h0m0s: use 1ms to 8784h0m0s"},
		{[]string{"ban", "-redis", "redis://127.0.0.1:1", "-key", "a", "-for", "9000h"}, 1, "use 1ms to"},
		{[]string{"ban", "-redis", "redis://127.0.0.1:1", "-key", "a", "-for", "1001us100ns"}, 1, "in whole microseconds"},
		{[]string{"ban", "-for", "soon"}, 2, "see ginlimit ban -h"},
		{[]string{"dance"}, 2, `no command is called "dance"; use replay`},
	} {
		out, errs, code := runCommand("", step.args...)
		if code != step.code || !strings.Contains(errs, step.want) || !strings.Contains(errs, "ginlimit: ") || out != "" {
			t.Errorf("%v: code %d, %q, %q; want %d, %q", step.args, code, out, errs, step.code, step.want)
		}
	}
	if out, _, code := runCommand("", "replay", "-h"); code != 0 || !strings.Contains(out, "-target") {
		t.Errorf("got %d, %s", code, out)
	}
	if out, _, code := runCommand("", "help"); code != 0 || out != usage {
		t.Errorf("got %d, %s", code, out)
	}
	if _, errs, code := runCommand(""); code != 2 || errs != usage {
		t.Errorf("got %d, %s", code, errs)
	}
}

// The page has everything in itself, asks for nothing from elsewhere, and shows keys as text.
func TestHTML(t *testing.T) {
	dir := t.TempDir()
	hostile := `</script><script>alert(1)</script><!-- "'` + "\u202e" + strings.Repeat("k", 10_000)
	var log strings.Builder
	for i := range 20 {
		key, _ := json.Marshal(hostile)
		fmt.Fprintf(&log, `{"ts":%d,"who":%s}`+"\n", 1795953602+i, key)
	}
	name := filepath.Join(dir, "a.html")
	out := mustRun(t, log.String(), "replay", "-", "-limit", "2/h", "-vs", "3/h", "-by", "json:who", "-html", name)
	if strings.ContainsRune(out, '\u202e') || len(out) > 5000 {
		t.Errorf("a hostile key is in the text: %q", out)
	}
	page, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	text := string(page)
	for _, want := range []string{"uPlot=function", "Copyright (c) 2022 Leon Sorokin", "default-src 'none'", "&lt;/script&gt;&lt;script&gt;alert(1)", "\\u003c/script\\u003e"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
	for _, no := range []string{"<script>alert", "<script src", "<link", "@import", "<img", "ZgotmplZ"} {
		if strings.Contains(text, no) {
			t.Errorf("the page has %s", no)
		}
	}
	if n := strings.Count(text, "</script>"); n != 3 {
		t.Errorf("%d scripts end, not 3", n)
	}
}

func TestAnonymous(t *testing.T) {
	secret := []byte("secret")
	for key, want := range map[string]string{
		"ip:203.0.113.7":          "net:203.0.113.0/24",
		"ip:2001:db8:1:2::/64":    "net:2001:db8:1:2::/64",
		"net:203.0.0.0/16":        "net:203.0.0.0/16",
		"net:203.0.113.128/25":    "net:203.0.113.0/24",
		"net:2001:db8::/48":       "net:2001:db8::/48",
		"net:2001:db8:1:2:3::/80": "net:2001:db8:1:2::/64",
		"global:":                 "global:",
		"path:/a":                 "path:/a",
		"user:alice":              "hashed:",
		"ip:nonsense":             "hashed:",
		"join:14:ip:203.0.113.7x": "hashed:",
		"host:client.example.com": "hashed:",
		"apikey:0123456789abcdef": "hashed:",
	} {
		got := anonymity("cut").of(key, secret)
		if !strings.HasPrefix(got, want) || strings.HasPrefix(want, "hashed:") && len(got) != len("hashed:")+16 || !strings.HasPrefix(want, "hashed:") && got != want {
			t.Errorf("%s: got %s, want %s", key, got, want)
		}
	}
	if got := anonymity("hash").of("ip:203.0.113.7", secret); !strings.HasPrefix(got, "hashed:") {
		t.Error(got)
	}
	out := mustRun(t, strings.Repeat(`203.0.113.7 - - [29/Nov/2026:12:00:00 +0000] "GET / HTTP/1.1" 200 5`+"\n", 3)+"203.0.113.9 bad\n",
		"replay", "-", "-limit", "1/m", "-anonymous=hash")
	if strings.Contains(out, "203.0.113") || !strings.Contains(out, "hashed:") {
		t.Errorf("got %s", out)
	}
}

func TestKeys(t *testing.T) {
	server := testserver.Redis(t)
	if _, err := server.Do("CONFIG", "SET", "requirepass", "p4ssw0rd"); err != nil {
		t.Fatal(err)
	}
	at := "redis://:p4ssw0rd@" + server.Addr()
	env := map[string]string{"REDIS_URL": at}
	show := func(args ...string) string {
		t.Helper()
		out, errs, code := runWith(env, "", append([]string{"keys", "-limiter", "api", "-timeout", "30s"}, args...)...)
		if code != 0 || errs != "" {
			t.Fatalf("%v: code %d, %s", args, code, errs)
		}
		return out
	}
	f := keyFlags{url: at, prefix: "gl", limiter: "api", timeout: 30 * time.Second}
	own := limits{{Count: 5, Period: time.Hour, Algorithm: backend.SlidingLog}, {Count: 100, Period: 24 * time.Hour}}
	l, done, err := f.open(t.Context(), own)
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	for range 6 {
		if _, err := l.Allow(t.Context(), "user:alice", 1); err != nil {
			t.Fatal(err)
		}
	}
	flags := []string{"-key", "user:alice", "-limit", "5/h sliding-log", "-limit", "100/d", "-limit", "unlimited"}
	out := show(flags...)
	if !strings.HasPrefix(out, "user:alice of limiter api\n") || !strings.Contains(out, "5/h sliding-log  5     5    0     in 59m") && !strings.Contains(out, "in 1h0m0s") ||
		!strings.Contains(out, "100/d") || !strings.Contains(out, "unlimited") {
		t.Errorf("got %s", out)
	}
	if out, errs, code := runWith(env, "", "reset", "-limiter", "api", "-key", "user:alice", "-timeout", "30s"); code != 0 || out != "user:alice of limiter api starts anew: it has used nothing, and is not banned\n" {
		t.Errorf("got %d, %s, %s", code, out, errs)
	}
	if out := show(flags...); !strings.Contains(out, "5/h sliding-log  0     5    5     passes") {
		t.Errorf("got %s", out)
	}
	if out := show("-ip", "2001:db8::1", "-limit", "0/m"); !strings.HasPrefix(out, "ip:2001:db8::/64 of") || !strings.Contains(out, "never passes") {
		t.Errorf("got %s", out)
	}

	// A password is nowhere in what is written, and not accepted where others see it.
	for _, step := range []struct {
		url  string
		args []string
		want string
	}{
		{at, []string{"-redis", at}, "set REDIS_URL in place of -redis"},
		{at, []string{"-redis", "redis://:p4ssw0rd%zz@127.0.0.1:1"}, "set REDIS_URL in place of -redis"},
		{"redis://:p4ssw0rd%zz@127.0.0.1:1", nil, "the URL cannot be parsed"},
		{"redis://:p4ssw0rd@127.0.0.1:1", nil, "check that Redis runs"},
		{strings.Replace(at, "p4ssw0rd", "p4ssw0rd-not", 1), nil, "check that Redis runs"},
	} {
		for command, own := range map[string][]string{"keys": {"-limit", "1/m"}, "reset": nil, "unban": nil, "ban": {"-for", "1h"}} {
			args := slices.Concat([]string{command, "-key", "user:alice"}, own, step.args)
			out, errs, code := runWith(map[string]string{"REDIS_URL": step.url}, "", args...)
			if code != 1 || strings.Contains(out+errs, "p4ssw0rd") || !strings.Contains(errs, step.want) || !strings.HasPrefix(errs, "ginlimit: ") {
				t.Errorf("%s: code %d, %s%s", command, code, out, errs)
			}
		}
	}
}

// Calendar windows and places in flight are shown as the application has them.
func TestKeysOfAllKinds(t *testing.T) {
	at := "redis://" + testserver.Redis(t).Addr()
	f := keyFlags{url: at, prefix: "gl", limiter: "api", timeout: 30 * time.Second}
	own := limits{backend.InFlight(2), backend.PerCalendarMonth(100).In("Europe/Berlin")}
	l, done, err := f.open(t.Context(), own)
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	d, err := l.Allow(t.Context(), "user:alice", 2)
	if err != nil || !d.Allowed {
		t.Fatal(d, err)
	}
	args := []string{"keys", "-redis", at, "-timeout", "30s", "-limiter", "api", "-key", "user:alice",
		"-limit", "2 in flight", "-limit", "100/month Europe/Berlin calendar"}
	out := mustRun(t, "", args...)
	if !strings.Contains(out, "  2 in flight                       2     2    0     in 1s ") ||
		!strings.Contains(out, "  100/month Europe/Berlin calendar  2     100  98    passes ") {
		t.Errorf("got %s", out)
	}
	if _, err := l.Settle(t.Context(), d, 2); err != nil {
		t.Fatal(err)
	}
	if out := mustRun(t, "", args...); !strings.Contains(out, "  2 in flight                       0     2    2     passes ") {
		t.Errorf("got %s", out)
	}
}

// A ban refuses everything that a caller asks the application for, and nothing else. Unban is
// reset.
func TestBan(t *testing.T) {
	at := "redis://" + testserver.Redis(t).Addr()
	do := func(want string, args ...string) {
		t.Helper()
		out, errs, code := runCommand("", append([]string{args[0], "-redis", at, "-limiter", "api", "-timeout", "30s"}, args[1:]...)...)
		if code != 0 || errs != "" || !strings.Contains(out, want) {
			t.Fatalf("%v: code %d, %s%s; want %s", args, code, out, errs, want)
		}
	}
	f := keyFlags{url: at, prefix: "gl", limiter: "api", timeout: 30 * time.Second}
	l, done, err := f.open(t.Context(), limits{{Count: 5, Period: time.Hour, Algorithm: backend.SlidingLog}})
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	ask := func(key string, banned bool, left int64) {
		t.Helper()
		d, err := l.Allow(t.Context(), key, 1)
		if err != nil || d.Allowed == banned || d.Banned != banned || !banned && d.Remaining != left ||
			banned && (d.RetryAfter > time.Hour || d.RetryAfter < time.Hour-5*time.Minute) {
			t.Errorf("%s: got %+v, %v", key, d, err)
		}
	}
	alice := []string{"-key", "user:alice"}
	keys := append([]string{"keys", "-limit", "5/h sliding-log"}, alice...)
	ask("user:alice", false, 4)
	do("user:alice of limiter api is banned for 2h0m0s\n", append([]string{"ban", "-for", "2h"}, alice...)...)
	do("user:alice of limiter api is banned for 1h0m0s\n", append([]string{"ban", "-for", "1h"}, alice...)...) // in place of that
	ask("user:alice", true, 0)
	ask("user:bob", false, 4)
	do("\n  banned for another ", keys...)
	do("\n  5/h sliding-log  1     5   4     passes", keys...) // the limit by itself
	do("user:alice of limiter api starts anew: it has used nothing, and is not banned\n", append([]string{"unban"}, alice...)...)
	do("user:alice of limiter api\n  limit ", keys...)
	ask("user:alice", false, 4) // also what was used is forgotten

	// How long a ban lasts does not depend on the limits, and what they wait for.
	for left := range int64(4) {
		ask("user:alice", false, 3-left)
	}
	do("is banned for 1m0s\n", append([]string{"ban", "-for", "1m"}, alice...)...)
	for _, limit := range []string{"5/h sliding-log", "0/m", "unlimited"} {
		args := append([]string{"keys", "-redis", at, "-limiter", "api", "-timeout", "30s", "-limit", limit}, alice...)
		if out := mustRun(t, "", args...); !strings.Contains(out, "banned for another 1m0s") && !strings.Contains(out, "banned for another 5") {
			t.Errorf("got %s", out)
		}
	}
	do("starts anew", append([]string{"unban"}, alice...)...)

	do("ip:2001:db8::/64 of limiter api is banned for 1h0m0s\n", "ban", "-ip", "2001:db8::7", "-for", "1h")
	ask("ip:2001:db8::/64", true, 0)
	do("ip:2001:db8::/64 of limiter api starts anew", "reset", "-ip", "2001:db8::7")
	ask("ip:2001:db8::/64", false, 4)
	if out, _, code := runCommand("", "unban", "-h"); code != 0 || !strings.Contains(out, "is ginlimit reset: it lifts a ban, and forgets what the caller has used") {
		t.Errorf("got %d, %s", code, out)
	}
}

// A limit is in the language of the library, and what is wrong with it is said once.
func TestLimits(t *testing.T) {
	var l limits
	for _, text := range []string{"100/m", "10/s burst 20", "5/15m sliding-log", "10000/day Europe/Berlin calendar", "5 in flight for 10m", "unlimited"} {
		if err := l.Set(text); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	if want := "100/m, 10/s burst 20, 5/15m sliding-log, 10000/day Europe/Berlin calendar, 5 in flight for 10m, unlimited"; l.String() != want {
		t.Errorf("got %s, want %s", l.String(), want)
	}
	for text, want := range map[string]string{
		"100":                    `ginlimit: the limit "100": it is not understood; write it as "100/m", `,
		"1/400d":                 "ginlimit: limit 1/400d: period is not between",
		"99999999999999999999/m": "the number 99999999999999999999 is above",
		"1/day Mars calendar":    "use a name such as Europe/Berlin",
	} {
		_, errs, code := runCommand("", "replay", "-limit", text, "access.log")
		if code != 2 || !strings.HasPrefix(errs, "ginlimit: ") || strings.Count(errs, "ginlimit: ") != 1 || !strings.Contains(errs, want) {
			t.Errorf("%s: code %d, %s", text, code, errs)
		}
	}
}

// Times of the end of requests are moved to their beginning, and put in order again.
func TestReplayEnded(t *testing.T) {
	var log strings.Builder
	for i, ms := range []int{1000, 2000, 3000, 400} { // all begin within 3 ms
		fmt.Fprintf(&log, `{"msec":"%d.%03d","remote_addr":"203.0.113.7","took_ms":%d}`+"\n", 1795953602+ms/1000, ms%1000+i, ms)
	}
	var r replay.Report
	for _, step := range []struct {
		args    []string
		refused int64
	}{{nil, 0}, {[]string{"-ended"}, 0}, {[]string{"-ended", "-duration", "took_ms"}, 3}} {
		out := mustRun(t, log.String(), append([]string{"replay", "-", "-json", "-limit", "1/500ms"}, step.args...)...)
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			t.Fatal(err)
		}
		if r.Limits.Refused != step.refused {
			t.Errorf("%v: %d are refused, not %d", step.args, r.Limits.Refused, step.refused)
		}
	}
}

// A log of JSON lines that was made by hand, whose field took_ms says how long requests took.
func TestReplayInFlight(t *testing.T) {
	log, err := os.ReadFile("testdata/inflight.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"replay", "-", "-limit", "5 in flight", "-vs", "10/s", "-duration", "took_ms", "-target", "0%"}
	golden(t, "inflight.txt", mustRun(t, string(log), args...))
	page := filepath.Join(t.TempDir(), "a.html")
	mustRun(t, string(log), append(args, "-html", page)...)
	if text, err := os.ReadFile(page); err != nil || !strings.Contains(string(text), "Callers by their busiest moment") {
		t.Errorf("got %s, %v", text, err)
	}
	_, errs, code := runCommand(string(log), "replay", "-", "-limit", "5 in flight")
	if code != 1 || !strings.HasPrefix(errs, "ginlimit: a limit in flight needs how long requests took") || !strings.Contains(errs, "by -duration") {
		t.Errorf("code %d, %s", code, errs)
	}
}

func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		var read atomic.Int64
		p := progressBar{out: &out, size: 1000, read: &read}
		p.show(0)
		time.Sleep(100 * time.Millisecond)
		p.show(1)
		p.clear()
		if out.Len() > 0 {
			t.Errorf("too early: %q", out.String())
		}
		time.Sleep(100 * time.Millisecond)
		read.Store(500)
		p.show(2000)
		p.clear()
		if want := "\r[===============               ]  50 %  2,000 lines, 10,000/s \r\x1b[K"; out.String() != want {
			t.Errorf("got %q, want %q", out.String(), want)
		}
		out.Reset()
		p.size = 0
		time.Sleep(200 * time.Millisecond)
		if p.show(4000); out.String() != "\r4,000 lines, 10,000/s " {
			t.Errorf("got %q", out.String())
		}
	})
}

func TestNumbers(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", -1234567: "-1,234,567", math.MaxInt64: "9,223,372,036,854,775,807"} {
		if got := number(n); got != want {
			t.Errorf("%d: got %s", n, got)
		}
	}
	for p, want := range map[float64]string{0: "0 %", 1: "100 %", 0.5: "50 %", 0.001: "0.1 %", 0.00012345: "0.012 %", 0.0123: "1.2 %", 0.3456: "34.6 %", 1e-9: "less than 0.001 %"} {
		if got := percent(p, 1); got != want {
			t.Errorf("%v: got %s, want %s", p, got, want)
		}
	}
}

// The command's own memory stays bounded: a day of a million requests of half a million callers.
func BenchmarkReplay(b *testing.B) {
	for _, size := range []struct{ lines, callers int }{{1_000_000, 2_000}, {1_000_000, 5_000_000}} {
		b.Run(fmt.Sprintf("callers=%d", size.callers), func(b *testing.B) {
			var log bytes.Buffer
			if err := writeSample(&log, 1, size.lines, size.callers); err != nil {
				b.Fatal(err)
			}
			name := filepath.Join(b.TempDir(), "access.log")
			if err := os.WriteFile(name, log.Bytes(), 0o600); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(log.Len()))
			log = bytes.Buffer{}
			b.ReportAllocs()
			for b.Loop() {
				if _, errs, code := runCommand("", "replay", "-limit", "100/m", name); code != 0 {
					b.Fatal(errs)
				}
			}
			b.ReportMetric(float64(b.N)*float64(size.lines)/b.Elapsed().Seconds(), "lines/s")
		})
	}
}
