package ginlimit_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestReadmeCompiles finds every Go block of the pages, line by line, in an example that is compiled.
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
	blocks := 0
	for _, page := range pages(t) {
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

// TestReadmeIsShort holds the README to what fits on a few screens: whatever else there is to say belongs into docs/.
func TestReadmeIsShort(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Count(string(readme), "\n"); lines > 230 || len(readme) > 12_000 {
		t.Errorf("the README has %d lines and %d bytes: 230 and 12,000 are the most", lines, len(readme))
	}
	docs, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range docs {
		if !strings.Contains(string(readme), "]("+page) {
			t.Errorf("the README does not link to %s", page)
		}
	}
}

// TestReadmeListsOptions holds the README's table of options to those that there are.
func TestReadmeListsOptions(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	options := 0
	for _, ty := range docOf(t, ".").Types {
		for _, f := range ty.Funcs {
			if ty.Name != "Option" {
				continue
			}
			options++
			if !strings.Contains(string(readme), "| `"+f.Name+"` |") {
				t.Errorf("%s is not in the README's table", f.Name)
			}
		}
	}
	if options == 0 {
		t.Error("no option was found")
	}
}

// TestDocsListDiagnostics holds the table of docs/diagnostics.md to the codes that stand in the code, and the codes to it.
func TestDocsListDiagnostics(t *testing.T) {
	page, err := os.ReadFile("docs/diagnostics.md")
	if err != nil {
		t.Fatal(err)
	}
	inCode := map[string]bool{}
	code := regexp.MustCompile(`GINLIMIT\d{3}`)
	err = filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		for _, c := range code.FindAllString(string(source), -1) {
			inCode[c] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for c := range inCode {
		if !strings.Contains(string(page), "| `"+c+"` |") {
			t.Errorf("%s is not in the table of docs/diagnostics.md", c)
		}
	}
	for _, c := range code.FindAllString(string(page), -1) {
		if !inCode[c] {
			t.Errorf("docs/diagnostics.md has %s, and the code has not", c)
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
