// Command algorithms draws how each algorithm treats the same traffic: requests offered, let through and refused over
// time, one picture for each kind of traffic.
//
//	go run ./cmd/algorithms
//
// Nothing is waited for: the decisions are those of algorithm.Take, which the memory backend decides by, at the times that
// the requests have. The test beside this program sends the same requests to that backend, and to a limiter with
// WithMaxWait for the leaky bucket, under the fake clock of testing/synctest, and holds each answer to the one drawn.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	dir := flag.String("out", "../docs/algorithms", "the directory to draw into")
	flag.Parse()
	if err := run(*dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, t := range traffics {
		panels, err := panelsOf(t)
		if err != nil {
			return err
		}
		svg, err := drawSVG(t, panels)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, t.file), svg, 0o644); err != nil {
			return err
		}
		table(t, panels)
	}
	return nil
}

// panelsOf plays t to each algorithm.
func panelsOf(t traffic) ([]panel, error) {
	var panels []panel
	for _, a := range limiters {
		o, err := play(a, t.requests())
		if err != nil {
			return nil, err
		}
		panels = append(panels, panel{a, o})
	}
	return panels, nil
}

// table prints what is drawn of t in numbers. Requests that are neither let through nor refused are held at the end.
func table(t traffic, panels []panel) {
	fmt.Printf("\n%s\n\n| algorithm | offered | let through | refused | most in any 10 s | most in any 2 s | longest held |\n"+
		"|---|---:|---:|---:|---:|---:|---:|\n", t.title)
	for _, p := range panels {
		fmt.Printf("| %s | %d | %d | %d | %d | %d | %v |\n", p.name, len(p.offered), len(p.passed), len(p.refused),
			most(p.passed, period), most(p.passed, 2*second), p.longest)
	}
}
