package ginlimit_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestReadmeCompiles finds every Go block of the README and of docs/, line by line, in an example that is compiled and run.
func TestReadmeCompiles(t *testing.T) {
	var files, sources []string
	for _, pattern := range []string{"_example/*/*.go", "example*_test.go", "backend/example*_test.go", "backend/*/example*_test.go",
		"contrib/*/example_test.go", "benchmarks/migrate/*_test.go"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		sources = append(sources, trimLines(string(source)))
	}
	pages, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := 0
	for _, page := range append(pages, "README.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
			want := trimLines(block[1])
			if !slices.ContainsFunc(sources, func(s string) bool { return strings.Contains(s, want) }) {
				t.Errorf("%s: in no example:\n%s", page, block[1])
			}
			blocks++
		}
	}
	if blocks == 0 {
		t.Fatal("there is no Go block")
	}
}

// TestReadmeListsDiagnostics holds the README's table of diagnostics to those that the code knows.
func TestReadmeListsDiagnostics(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"diagnostics.go", "backend/redis/check.go"} {
		code, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range regexp.MustCompile(`GINLIMIT\d{3}`).FindAllString(string(code), -1) {
			if !strings.Contains(string(readme), "| `"+c+"` |") {
				t.Errorf("%s is not in the README's table", c)
			}
		}
	}
}

func trimLines(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	for i, line := range lines {
		lines[i] = strings.Join(strings.Fields(line), " ")
	}
	return strings.Join(lines, "\n")
}
