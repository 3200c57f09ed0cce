// Command report makes README.md and the charts of results.json, which command bench wrote, and keeps the short table in
// the README of the project up to date.
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
	readme := flag.String("readme", "", "a file to write the short table into, between its marks <!-- benchmarks:begin --> and <!-- benchmarks:end -->")
	flag.Parse()
	results, err := benchmarks.Load(filepath.Join(*dir, "results.json"))
	check(err)
	check(os.WriteFile(filepath.Join(*dir, "README.md"), []byte(results.Markdown()), 0o644))
	check(results.Draw(*dir))
	if *readme != "" {
		pictures, err := filepath.Rel(filepath.Dir(*readme), *dir)
		check(err)
		check(results.UpdateReadme(*readme, filepath.ToSlash(pictures)))
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
