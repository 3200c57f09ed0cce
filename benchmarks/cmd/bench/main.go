// Command bench measures ginlimit beside other rate limiters and writes results.json and README.md,
// the tables of it. Command report draws the charts. Run it on a machine that does nothing else.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/ginlimit/ginlimit/benchmarks"
)

func main() {
	benchmarks.Child()
	log.SetFlags(0)
	var names []string
	for _, s := range benchmarks.Sections {
		names = append(names, s.Name)
	}
	quick := flag.Bool("quick", false, "two minutes, to see whether something changed much; not to be quoted")
	only := flag.String("only", "", "sections to run, with commas: "+strings.Join(names, ","))
	match := flag.String("name", "", "measure only candidates that match this regular expression")
	rounds := flag.Int("rounds", 0, "how often each figure is measured (default 5)")
	length := flag.Duration("length", 0, "how long a measurement takes (default 200ms; twice that on Redis)")
	keys := flag.Int("maxkeys", 0, "the most keys where growth is measured (default 10,000,000, which take 6 GB)")
	out := flag.String("out", "", "the directory to write into (default ../docs/benchmarks for a whole run, else a temporary one)")
	merge := flag.Bool("merge", false, "with -only: put the sections into the results of a whole run that -out has, in place of those there")
	flag.Parse()

	o := benchmarks.Full()
	if *quick {
		o = benchmarks.Quick()
	}
	if *only != "" {
		o.Sections = strings.Split(*only, ",")
	}
	if *match != "" {
		o.Names = regexp.MustCompile(*match)
	}
	if *rounds > 0 {
		o.Rounds = *rounds
	}
	if *length > 0 {
		o.Length, o.HTTP = *length, max(1, int((*length*5)/time.Second))
	}
	if *keys > 0 {
		o.MaxKeys = *keys
	}
	dir := *out
	if dir == "" {
		dir = filepath.Join(os.TempDir(), "ginlimit-benchmarks")
		if !*quick && *only == "" && *match == "" {
			dir = "../docs/benchmarks"
		}
	}
	o.Log = func(s string) { fmt.Fprint(os.Stderr, s) }
	results, err := run(o)
	check(err)
	if *merge {
		whole, err := benchmarks.Load(filepath.Join(dir, "results.json"))
		check(err)
		whole.Merge(results)
		results = whole
	}
	check(os.MkdirAll(dir, 0o755))
	check(results.Save(filepath.Join(dir, "results.json")))
	check(os.WriteFile(filepath.Join(dir, "README.md"), []byte(results.Markdown()), 0o644))
	fmt.Println("written to", dir)
}

// run gives each section a process of its own: some limiters keep what they hold for as long as
// their process lives.
func run(o benchmarks.Options) (*benchmarks.Results, error) {
	sections := o.Sections
	for _, s := range benchmarks.Sections {
		if len(o.Sections) == 0 && !s.Extra {
			sections = append(sections, s.Name)
		}
	}
	if len(sections) == 1 {
		return benchmarks.Run(o)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "ginlimit-section")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	var whole *benchmarks.Results
	began := time.Now()
	for _, section := range sections {
		cmd := exec.Command(self, append(os.Args[1:], "-only", section, "-out", dir, "-merge=false")...)
		cmd.Stderr = os.Stderr
		if err := cmd.Run(); err != nil {
			return nil, fmt.Errorf("ginlimit: section %s: %w", section, err)
		}
		results, err := benchmarks.Load(filepath.Join(dir, "results.json"))
		if err != nil {
			return nil, err
		}
		if whole == nil {
			whole = results
		} else {
			whole.Merge(results)
		}
	}
	whole.Took = time.Since(began).Round(time.Second).String()
	return whole, nil
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
