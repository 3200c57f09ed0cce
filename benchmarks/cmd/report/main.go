// Command report makes README.md and the charts of results.json, which command bench wrote, and
// keeps the short table in docs/benchmarks.md up to date.
package main

import (
	"flag"
	"log"
	"os"
	"path/filepath"

	"github.com/ginlimit/ginlimit/benchmarks"
)

func main() {
	log.SetFlags(0)
	dir := flag.String("dir", "../docs/benchmarks", "the directory that holds results.json, to write into")
	page := flag.String("page", "", "a file to write the short table into, between its marks <!-- benchmarks:begin --> and <!-- benchmarks:end -->")
	flag.Parse()
	results, err := benchmarks.Load(filepath.Join(*dir, "results.json"))
	check(err)
	check(os.WriteFile(filepath.Join(*dir, "README.md"), []byte(results.Markdown()), 0o644))
	check(results.Draw(*dir))
	if *page != "" {
		pictures, err := filepath.Rel(filepath.Dir(*page), *dir)
		check(err)
		check(results.UpdatePage(*page, filepath.ToSlash(pictures)))
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
