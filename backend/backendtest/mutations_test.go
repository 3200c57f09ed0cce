package backendtest_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMutations sees to it that every mutation of mutate.sh can still be made, and that
// MUTATIONS.md says what became of it: the script itself takes minutes, and runs by hand.
func TestMutations(t *testing.T) {
	read := func(name string) string {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	_, list, _ := strings.Cut(read("mutate.sh"), "\n# The list.\n")
	table, files, n := read("MUTATIONS.md"), map[string]string{}, 0
	escapes := strings.NewReplacer(`\n`, "\n", `\t`, "\t")
	for line := range strings.Lines(list) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), " | ", 3)
		if len(parts) != 3 {
			continue // a comment
		}
		name, what := parts[0], parts[1]
		old, _, ok := strings.Cut(parts[2], " => ")
		if files[name] == "" {
			files[name] = read(filepath.Join("..", name))
		}
		if found := strings.Count(files[name], escapes.Replace(old)); !ok || found != 1 {
			t.Errorf("%s: %q cannot be made: %q is there %d times, want 1", name, what, old, found)
		}
		if n++; !strings.Contains(table, fmt.Sprintf("| %03d | `%s` | %s | `", n, name, what)) {
			t.Errorf("MUTATIONS.md does not say that mutation %d of %s, %q, was caught; make it anew", n, name, what)
		}
	}
	if n < 100 || !strings.Contains(table, fmt.Sprintf("Mutations: %d. Survivors: 0.", n)) {
		t.Errorf("MUTATIONS.md is not of the %d mutations in mutate.sh", n)
	}
}
