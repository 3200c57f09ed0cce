// Command algorithms draws how each algorithm treats the same traffic: requests offered, let
// through and refused over time, one picture for each kind of traffic. It also draws the places in
// flight of a service that is slow for a while, and callers that are banned.
//
//	go run ./cmd/algorithms
//
// Nothing is waited for: the decisions are those of algorithm.Take, which the memory backend
// decides by, at the times that the requests have. The tests beside this program send the same
// requests to that backend, or to limiters with the options that are drawn, under the fake clock of
// testing/synctest, and hold each answer to the one drawn.
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
	sheets, err := allSheets()
	if err != nil {
		return err
	}
	for _, s := range sheets {
		svg, err := s.draw()
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, s.file), svg, 0o644); err != nil {
			return err
		}
		fmt.Printf("\n%s\n\n", s.title)
		for _, p := range s.panels {
			fmt.Printf("* %s: %s\n", p.name, p.says)
		}
	}
	return nil
}

// allSheets returns all pictures.
func allSheets() ([]sheet, error) {
	var sheets []sheet
	for _, t := range traffics {
		played, err := t.play()
		if err != nil {
			return nil, err
		}
		sheets = append(sheets, t.sheet(played))
	}
	flights, err := flightSheet()
	if err != nil {
		return nil, err
	}
	bans, err := banSheet()
	return append(sheets, flights, bans), err
}
