package console_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestReadme finds every Go block of the README, line by line, in an example, and every file that it
// links to.
func TestReadme(t *testing.T) {
	readme, examples := file(t, "README.md"), trimLines(file(t, "example_test.go"))
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(readme, -1)
	if len(blocks) == 0 {
		t.Error("the README has no Go block")
	}
	for _, block := range blocks {
		if !strings.Contains(examples, trimLines(block[1])) {
			t.Errorf("in no example:\n%s", block[1])
		}
	}
	for _, link := range regexp.MustCompile(`\]\(([^)#:]+)\)`).FindAllStringSubmatch(readme, -1) {
		if _, err := os.Stat(link[1]); err != nil {
			t.Error(err)
		}
	}
}

func file(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func trimLines(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	for i, line := range lines {
		lines[i] = strings.Join(strings.Fields(line), " ")
	}
	return strings.Join(lines, "\n")
}
