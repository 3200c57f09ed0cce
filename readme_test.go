package ginlimit_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestReadmeCompiles finds every Go block of the README, line by line, in an example that is compiled and run.
func TestReadmeCompiles(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("_example/*/*.go")
	if err != nil {
		t.Fatal(err)
	}
	var sources []string
	for _, file := range append(files, "example_test.go", "backend/example_test.go", "backend/redis/example_test.go") {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		sources = append(sources, trimLines(string(source)))
	}
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(string(readme), -1)
	if len(blocks) == 0 {
		t.Fatal("the README has no Go block")
	}
	for _, block := range blocks {
		want, found := trimLines(block[1]), false
		for _, source := range sources {
			found = found || strings.Contains(source, want)
		}
		if !found {
			t.Errorf("in no example:\n%s", block[1])
		}
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
