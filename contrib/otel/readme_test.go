package ginlimitotel_test

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/ginlimit/ginlimit"
)

func readFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestReadmeCompiles finds the Go blocks of the README in an example.
func TestReadmeCompiles(t *testing.T) {
	trim := regexp.MustCompile(`(?m)^\s+|\s+$`)
	examples := trim.ReplaceAllString(readFile(t, "example_test.go"), "")
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(readFile(t, "README.md"), -1)
	if len(blocks) == 0 {
		t.Fatal("the README has no Go block")
	}
	for _, block := range blocks {
		if !strings.Contains(examples, trim.ReplaceAllString(block[1], "")) {
			t.Errorf("in no example:\n%s", block[1])
		}
	}
}

// TestReadmeListsMetrics holds the README's table of metrics to those that there are, with their
// units and attributes.
func TestReadmeListsMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tel := newTelemetry(t)
		tier := func(*gin.Context) (ginlimit.Tier, error) { return ginlimit.Tier{Name: "pro"}, nil }
		noTier := func(*gin.Context) (ginlimit.Tier, error) { return ginlimit.Tier{}, os.ErrNotExist }
		tel.serve(2, tel.limit(ginlimit.Per(1, 20*time.Millisecond), ginlimit.WithMaxWait(time.Minute), ginlimit.WithTier(tier)))
		tel.serve(1, tel.limit(ginlimit.PerHour(1), ginlimit.WithTier(noTier)))
		tel.serve(1, tel.limit(ginlimit.PerHour(1), ginlimit.WithBackend(down{cause: os.ErrClosed})))
		tel.serve(3, tel.limit(ginlimit.PerHour(1), ginlimit.WithBan(ginlimit.PerHour(1), 2*time.Hour, 3*time.Hour)))
		inFlight, err := ginlimit.NewLimiter(ginlimit.InFlight(1), ginlimit.Global())
		if err != nil {
			t.Fatal(err)
		}
		if err := tel.Watch(inFlight); err != nil {
			t.Fatal(err)
		}

		attrs := map[string]map[string]bool{}
		for series := range tel.metrics() {
			words := strings.Fields(series)
			if attrs[words[0]] == nil {
				attrs[words[0]] = map[string]bool{}
			}
			for _, w := range words[1:] {
				name, _, _ := strings.Cut(w, "=")
				attrs[words[0]][name] = true
			}
		}
		if len(attrs) != 6 {
			t.Errorf("there are %d metrics, want 6", len(attrs))
		}
		readme := readFile(t, "README.md")
		for _, m := range tel.collect() {
			names := slices.Sorted(maps.Keys(attrs[strings.TrimPrefix(m.Name, "ginlimit.")]))
			row := "| `" + m.Name + "` | `" + m.Unit + "` | `" + strings.Join(names, "` `") + "` |"
			if !strings.Contains(readme, row) {
				t.Errorf("the README has no row that begins with\n%s", row)
			}
		}
	})
}
