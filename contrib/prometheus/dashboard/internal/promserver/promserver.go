// Package promserver starts a real Prometheus on a free port of 127.0.0.1, asks it, and stops it by
// its process id. It needs prometheus 2.40 or newer in PATH.
package promserver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	startLimit = 30 * time.Second // from the start of the process until it is ready
	askLimit   = 30 * time.Second // for one query
	portTries  = 5
)

// Config says what a Prometheus scrapes.
type Config struct {
	Target   string        // host:port of a server with /metrics; the job is "shop"
	Interval time.Duration // from one scrape to the next; 0 means 1 s
	Rules    string        // a file with rules, or ""
	Native   bool          // takes native histograms, and then no classic ones
}

// Server is one Prometheus with a directory of its own.
type Server struct {
	url    string
	dir    string
	flags  []string
	cmd    *exec.Cmd
	exited chan struct{}
}

// Start runs a Prometheus and waits until it has scraped its target. The error wraps
// [exec.ErrNotFound] if there is none.
func Start(c Config) (*Server, error) {
	bin, err := exec.LookPath("prometheus")
	if err != nil {
		return nil, fmt.Errorf("promserver: %w", err)
	}
	dir, err := os.MkdirTemp("", "promserver-")
	if err != nil {
		return nil, fmt.Errorf("promserver: %w", err)
	}
	s := &Server{dir: dir}
	if err = s.configure(bin, c); err == nil {
		for range portTries {
			if err = s.run(bin); err == nil {
				return s, nil
			}
		}
	}
	return nil, errors.Join(err, s.Stop())
}

// ForTest is [Start] for a test, which ends the server when it ends. Without Prometheus it skips
// the test, or fails it if the environment says CI=true.
func ForTest(tb testing.TB, c Config) *Server {
	tb.Helper()
	s, err := Start(c)
	if err != nil {
		GiveUp(tb, err)
	}
	tb.Cleanup(func() {
		if err := s.Stop(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

// GiveUp ends a test that needs a program: if it is missing, the test is skipped, unless the
// environment says CI=true.
func GiveUp(tb testing.TB, err error) {
	tb.Helper()
	if errors.Is(err, exec.ErrNotFound) && os.Getenv("CI") != "true" {
		tb.Skip("this test needs prometheus and promtool (apt-get install prometheus):", err)
	}
	tb.Fatal(err)
}

// configure writes the configuration. JSON is YAML.
func (s *Server) configure(bin string, c Config) error {
	interval := c.Interval
	if interval == 0 {
		interval = time.Second
	}
	global := map[string]any{
		"scrape_interval": milliseconds(interval), "scrape_timeout": milliseconds(interval), "evaluation_interval": "1s",
	}
	if c.Native {
		if err := s.native(bin, global); err != nil {
			return err
		}
	}
	config := map[string]any{
		"global": global,
		"scrape_configs": []any{map[string]any{
			"job_name": "shop", "static_configs": []any{map[string]any{"targets": []string{c.Target}}},
		}},
	}
	if c.Rules != "" {
		rules, err := filepath.Abs(c.Rules)
		if err != nil {
			return fmt.Errorf("promserver: %w", err)
		}
		config["rule_files"] = []string{rules}
	}
	text, err := json.Marshal(config)
	if err != nil {
		return fmt.Errorf("promserver: %w", err)
	}
	if err := os.WriteFile(s.path("prometheus.yml"), text, 0o600); err != nil {
		return fmt.Errorf("promserver: %w", err)
	}
	return nil
}

var version = regexp.MustCompile(`version (\d+)\.(\d+)`)

// native turns native histograms on: by a setting since Prometheus 3.8, by a flag before
// (https://prometheus.io/docs/specs/native_histograms/).
func (s *Server) native(bin string, global map[string]any) error {
	text, err := exec.Command(bin, "--version").CombinedOutput()
	if err != nil {
		return fmt.Errorf("promserver: %s --version: %w", bin, err)
	}
	m := version.FindSubmatch(text)
	if m == nil {
		return fmt.Errorf("promserver: %s --version: %q", bin, text)
	}
	major, _ := strconv.Atoi(string(m[1])) // digits
	minor, _ := strconv.Atoi(string(m[2]))
	if major > 3 || major == 3 && minor >= 8 {
		global["scrape_native_histograms"] = true
	} else {
		s.flags = append(s.flags, "--enable-feature=native-histograms")
	}
	return nil
}

func milliseconds(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) + "ms" }

func (s *Server) path(name string) string { return filepath.Join(s.dir, name) }

func (s *Server) run(bin string) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("promserver: %w", err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		return fmt.Errorf("promserver: %w", err)
	}
	log, err := os.Create(s.path("log"))
	if err != nil {
		return fmt.Errorf("promserver: %w", err)
	}
	defer func() { _ = log.Close() }() // the process has its own descriptor
	args := append([]string{
		"--config.file=" + s.path("prometheus.yml"), "--storage.tsdb.path=" + s.path("data"), "--web.listen-address=" + addr,
		"--log.level=warn",
	}, s.flags...)
	s.url = "http://" + addr
	s.cmd = exec.Command(bin, args...)
	s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr, s.cmd.SysProcAttr = s.dir, log, log, sysProcAttr()
	if err := s.start(); err != nil {
		return err
	}
	if err := s.waitReady(); err != nil {
		s.kill()
		text, _ := os.ReadFile(s.path("log"))
		return fmt.Errorf("promserver: start of %s on %s: %w; its log:\n%s", bin, addr, err, text[max(0, len(text)-2000):])
	}
	return nil
}

// start starts the process from a thread that stays until it ends: on Linux the process is killed
// with its parent, which is that thread (go.dev/issue/27505).
func (s *Server) start() error {
	started := make(chan error)
	cmd, exited := s.cmd, make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // says how it ended: with SIGKILL
			close(exited)
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("promserver: %w", err)
	}
	s.exited = exited
	return nil
}

// waitReady waits for the first scrape, which is some five seconds after the start.
func (s *Server) waitReady() error {
	for deadline := time.Now().Add(startLimit); ; time.Sleep(50 * time.Millisecond) {
		err := s.ready()
		if err == nil {
			return nil
		}
		select {
		case <-s.exited:
			return errors.New("it ended")
		default:
		}
		if time.Now().After(deadline) {
			return err
		}
	}
}

// ready also makes sure that it is the process which answers, not another that took the port
// before.
func (s *Server) ready() error {
	var info struct{ CWD string }
	if err := s.get(context.Background(), "status/runtimeinfo", nil, &info); err != nil {
		return err
	}
	if info.CWD != s.dir {
		return fmt.Errorf("another Prometheus answers, in %s", info.CWD)
	}
	up, err := s.Query(context.Background(), "up == 1")
	if err == nil && len(up) == 0 {
		err = errors.New("it did not scrape its target")
	}
	return err
}

func (s *Server) kill() {
	if s.exited == nil {
		return
	}
	_ = s.cmd.Process.Kill() // fails if it has ended
	<-s.exited
	s.exited = nil
}

// Stop kills the server and removes its directory.
func (s *Server) Stop() error {
	s.kill()
	if err := os.RemoveAll(s.dir); err != nil {
		return fmt.Errorf("promserver: %w", err)
	}
	return nil
}

// URL is where the server is: http://127.0.0.1:port.
func (s *Server) URL() string { return s.url }

// Series is one result of a query: its labels, and its values in the order of time.
type Series struct {
	Labels map[string]string
	Points []Point
}

// Point is a value at an instant. What is not a number is left out of a Series; a native histogram
// counts as 1.
type Point struct {
	At    time.Time
	Value float64
}

// Query asks for an expression as it is now.
func (s *Server) Query(ctx context.Context, expr string) ([]Series, error) {
	return s.query(ctx, "query", url.Values{"query": {expr}})
}

// QueryRange asks for an expression over a time.
func (s *Server) QueryRange(ctx context.Context, expr string, from, to time.Time, step time.Duration) ([]Series, error) {
	return s.query(ctx, "query_range", url.Values{
		"query": {expr}, "start": {from.Format(time.RFC3339Nano)}, "end": {to.Format(time.RFC3339Nano)}, "step": {milliseconds(step)},
	})
}

func (s *Server) query(ctx context.Context, path string, params url.Values) ([]Series, error) {
	var data struct {
		ResultType string
		Result     json.RawMessage
	}
	if err := s.get(ctx, path, params, &data); err != nil {
		return nil, err
	}
	if data.ResultType == "scalar" || data.ResultType == "string" {
		return nil, fmt.Errorf("promserver: the result is a %s", data.ResultType)
	}
	var rows []struct {
		Metric     map[string]string
		Value      []any
		Values     [][]any
		Histogram  []any
		Histograms [][]any
	}
	if err := json.Unmarshal(data.Result, &rows); err != nil {
		return nil, fmt.Errorf("promserver: %w", err)
	}
	var out []Series
	for _, row := range rows {
		series := Series{Labels: row.Metric}
		for _, pair := range append(append(row.Values, row.Value), append(row.Histograms, row.Histogram)...) {
			if p, ok := point(pair); ok {
				series.Points = append(series.Points, p)
			}
		}
		if len(series.Points) > 0 {
			out = append(out, series)
		}
	}
	return out, nil
}

func point(pair []any) (p Point, ok bool) {
	if len(pair) != 2 {
		return p, false
	}
	at, ok := pair[0].(float64)
	if !ok {
		return p, false
	}
	p = Point{At: time.UnixMilli(int64(at * 1000)), Value: 1}
	if text, ok := pair[1].(string); ok {
		v, err := strconv.ParseFloat(text, 64)
		if err != nil || v != v {
			return p, false
		}
		p.Value = v
	}
	return p, true
}

// Rule is what the server says of a rule.
type Rule struct {
	Name, Health, LastError string
}

// Rules returns what became of all rules when they were evaluated last.
func (s *Server) Rules(ctx context.Context) ([]Rule, error) {
	var data struct{ Groups []struct{ Rules []Rule } }
	if err := s.get(ctx, "rules", nil, &data); err != nil {
		return nil, err
	}
	var all []Rule
	for _, g := range data.Groups {
		all = append(all, g.Rules...)
	}
	return all, nil
}

// get decodes the data of an answer of the HTTP API.
func (s *Server) get(ctx context.Context, path string, params url.Values, data any) error {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/api/v1/"+path+"?"+params.Encode(), nil)
	if err != nil {
		return fmt.Errorf("promserver: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("promserver: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("promserver: %w", err)
	}
	var answer struct {
		Status, Error string
		Data          json.RawMessage
	}
	if err := json.NewDecoder(bytes.NewReader(body)).Decode(&answer); err != nil {
		return fmt.Errorf("promserver: %s: %s", resp.Status, strings.TrimSpace(string(body)))
	}
	if answer.Status != "success" {
		return fmt.Errorf("promserver: %s", answer.Error)
	}
	return json.Unmarshal(answer.Data, data)
}
