package benchmarks

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"
)

// Cases of the section http.
var httpCases = []struct {
	name   string
	denied int // of ten requests
}{{"all allowed", 0}, {"90 % denied", 9}}

// wrkScript asks from 10,000 addresses. Of ten requests so many as its argument says come from one
// that is over its limit.
const wrkScript = `
local requests, n = {}, 0
function init(args)
  for i = 1, 10000 do
    local address = string.format("198.18.%d.%d", math.floor(i / 250), i % 250 + 1)
    if i % 10 < tonumber(args[1]) then address = "` + spentAddress + `" end
    requests[i] = wrk.format("GET", "/ping", {["X-Forwarded-For"] = address})
  end
end
function request()
  n = n % #requests + 1
  return requests[n]
end
`

func memoryServers() []Middleware { return append(ginFloors[:1:1], memoryMiddlewares...) }
func redisServers() []Middleware  { return append(ginFloors[:1:1], redisMiddlewares...) }

// http measures whole applications over loopback, each a process, with wrk as the clients.
func (b *bench) http() error {
	wrk, err := exec.LookPath("wrk")
	if err != nil {
		return fmt.Errorf("wrk makes the load (apt-get install wrk): %w", err)
	}
	script := filepath.Join(os.TempDir(), fmt.Sprintf("ginlimit-wrk-%d.lua", os.Getpid()))
	if err := os.WriteFile(script, []byte(wrkScript), 0o600); err != nil {
		return err
	}
	b.closers = append(b.closers, func() { _ = os.Remove(script) })
	for _, kind := range []string{"memory", "redis"} {
		middlewares := memoryServers()
		if kind == "redis" {
			middlewares = redisServers()
		}
		var servers []child
		for _, m := range middlewares {
			if !b.wanted(m.Name) {
				continue
			}
			c, err := b.spawn(kind, m.Name)
			if err != nil {
				return fmt.Errorf("%s: %w", m.Name, err)
			}
			servers = append(servers, c)
		}
		for _, c := range httpCases {
			if err := eachRound(b, servers, func(s child) error { return b.wrk(wrk, script, kind+", "+c.name, s, c.denied) }); err != nil {
				return err
			}
		}
	}
	return nil
}

var (
	wrkRate   = regexp.MustCompile(`Requests/sec:\s*([\d.]+)`)
	wrkP99    = regexp.MustCompile(`(?m)^\s*99%\s+([\d.]+\w+)`)
	wrkTotal  = regexp.MustCompile(`(\d+) requests in`)
	wrkDenied = regexp.MustCompile(`Non-2xx or 3xx responses: (\d+)`)
	wrkErrors = regexp.MustCompile(`Socket errors:.*`)
)

// wrk loads one server from 64 connections, and holds it to the share of requests that it should
// refuse.
func (b *bench) wrk(wrk, script, of string, s child, denied int) error {
	var before, after float64
	if err := s.ask("cpu", &before); err != nil {
		return err
	}
	out, err := exec.Command(wrk, "-t1", "-c64", fmt.Sprintf("-d%ds", b.HTTP), "--latency", "-s", script,
		"http://"+s.hello, "--", strconv.Itoa(denied)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	if m := wrkErrors.Find(out); m != nil {
		return fmt.Errorf("%s", m)
	}
	number := func(r *regexp.Regexp) float64 {
		if m := r.FindSubmatch(out); m != nil {
			n, _ := strconv.ParseFloat(string(m[1]), 64)
			return n
		}
		return 0
	}
	p99 := wrkP99.FindSubmatch(out)
	if p99 == nil {
		return fmt.Errorf("wrk printed %s", out)
	}
	wait, err := time.ParseDuration(string(p99[1]))
	if err != nil {
		return err
	}
	share := number(wrkDenied) / number(wrkTotal)
	if want := float64(denied) / 10; s.Name != floorGin && (share < want-0.02 || share > want+0.02) {
		return fmt.Errorf("%.3f of the requests were refused, not %.1f", share, want)
	}
	if err := s.ask("cpu", &after); err != nil {
		return err
	}
	b.add(of, s.Name, "CPU µs", 0, (after-before)*1e6/number(wrkTotal))
	b.add(of, s.Name, "requests/s", 0, number(wrkRate))
	b.add(of, s.Name, "p99 ms", 0, wait.Seconds()*1000)
	return nil
}
