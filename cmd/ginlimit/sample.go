package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"sort"
	"time"
)

func sampleCommand(_ context.Context, args []string, s streams) error {
	fs := newFlags("sample")
	seed := fs.Uint64("seed", 1, "another `number` makes another log")
	lines := fs.Int("lines", 100_000, "how many `requests` it has")
	callers := fs.Int("callers", 2_000, "how many `callers` it has")
	distinct := fs.Bool("distinct", false, "every request is of another caller, the worst for memory")
	files, err := parseFlags(fs, "ginlimit sample > access.log writes a synthetic log of one day in Combined Log Format", args, s)
	switch {
	case err != nil:
		return err
	case len(files) > 0:
		return fmt.Errorf("ginlimit: sample writes to standard output; use ginlimit sample > %s", files[0])
	case *lines < 1 || *callers < 1:
		return fmt.Errorf("ginlimit: -lines and -callers must be 1 or more")
	}
	if *distinct {
		*callers = 0
	}
	return writeSample(s.out, *seed, *lines, *callers)
}

// writeSample writes a day: callers of whom few ask for most (by a power law), more of them in the
// afternoon than at night, one that scrapes for an hour, one that tries passwords in bursts, and a
// job that runs at each full hour. Without callers each request is of another IPv6 network.
func writeSample(out io.Writer, seed uint64, lines, callers int) error {
	rng := rand.New(rand.NewPCG(seed, 22))
	w := bufio.NewWriterSize(out, 64<<10)
	start := time.Date(2026, 11, 28, 0, 0, 0, 0, time.UTC)
	popular := rand.NewZipf(rng, 1.2, 8, uint64(max(callers, 1)-1))
	paths := []string{"/", "/api/items?page=2", "/api/items/17", "/static/app.css", "/api/search?q=limit", "/about"}
	const day = 24 * time.Hour
	var b []byte
	for i := range lines {
		at := start.Add(time.Duration(timeOf((float64(i)+rng.Float64())/float64(lines)) * float64(day)))
		n := popular.Uint64()
		method, path, status := "GET", paths[rng.IntN(len(paths))], 200
		addr := fmt.Sprintf("198.%d.%d.%d", 18+n>>16&1, n>>8&255, n&255) // a network for benchmarks, RFC 2544
		if n%5 == 4 {
			addr = fmt.Sprintf("2001:db8:%x:%x::%x", n>>8, n&255, 1+rng.IntN(9))
		}
		switch sec := at.Sub(start); {
		case callers == 0:
			addr = fmt.Sprintf("2001:db8:%x:%x::1", i>>16, i&0xffff)
		case sec > 14*time.Hour && sec < 15*time.Hour && rng.IntN(4) == 0:
			addr, path = "203.0.113.66", fmt.Sprintf("/api/items?page=%d", i)
		case sec%(2*time.Hour) < 5*time.Minute && rng.IntN(3) == 0:
			addr, method, path, status = "203.0.113.7", "POST", "/login", 401
		case sec%time.Hour < 20*time.Second && rng.IntN(2) == 0:
			addr, path = "192.0.2.20", "/api/export"
		}
		b = append(b[:0], addr...)
		b = append(b, " - - ["...)
		b = at.AppendFormat(b, "02/Jan/2006:15:04:05 -0700")
		b = fmt.Appendf(b, "] \"%s %s HTTP/1.1\" %d %d \"-\" \"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\"\n",
			method, path, status, 200+rng.IntN(9000))
		if _, err := w.Write(b); err != nil {
			return fmt.Errorf("ginlimit: the log cannot be written: %w", err)
		}
	}
	return w.Flush()
}

// course is how much of a day's requests have come by each minute: most come in the afternoon.
var course = func() (share [24*60 + 1]float64) {
	for i := 1; i < len(share); i++ {
		share[i] = share[i-1] + 1 - 0.6*math.Cos(2*math.Pi*(float64(i)/60-3)/24)
	}
	for i := range share {
		share[i] /= share[len(share)-1]
	}
	return share
}()

// timeOf returns when in a day a share of its requests have come, as a share of the day.
func timeOf(share float64) float64 {
	i := min(sort.SearchFloat64s(course[:], share), len(course)-1)
	if i == 0 {
		return 0
	}
	return (float64(i-1) + (share-course[i-1])/(course[i]-course[i-1])) / float64(len(course)-1)
}
