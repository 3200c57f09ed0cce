package ginlimitprom_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/redis"
)

// TestReadme finds every Go block of the README, line by line, in an example, and every metric,
// outcome and kind of error that there is in the README.
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
	names := regexp.MustCompile(`(?:counter|histogram)\("(\w+)"|namespace\+"_(\w+)"`).FindAllStringSubmatch(file(t, "collector.go"), -1)
	if len(names) != 11 {
		t.Errorf("the code has %d metrics", len(names))
	}
	for _, n := range names {
		if name := "ginlimit_" + n[1] + n[2]; !strings.Contains(readme, "| `"+name+"` |") {
			t.Errorf("%s is not in the README", name)
		}
	}
	kinds := []string{"timeout", "unreachable", "canceled", "unavailable", "key", "other"}
	for _, err := range []error{
		redis.ErrOutOfMemory, redis.ErrReadOnly, redis.ErrStarting, redis.ErrBusy, redis.ErrClusterDown, redis.ErrMasterDown,
		redis.ErrDenied, redis.ErrForeign, redis.ErrScript, redis.ErrBreakerOpen,
	} {
		kinds = append(kinds, backend.ErrorKind(err))
	}
	for _, kind := range kinds {
		if !strings.Contains(readme, "`"+kind+"`") {
			t.Errorf("the kind %s is not in the README", kind)
		}
	}
	for _, o := range []string{"allowed", "denied", "no_key", "bad_cost", "error_passed", "error_refused", "dry_run_denied", "dry_run_banned",
		"dry_run_no_key", "dry_run_bad_cost", "banned", "not_charged"} {
		if !strings.Contains(readme, "`"+o+"`") {
			t.Errorf("outcome %s is not in the README", o)
		}
	}
	for _, alert := range regexp.MustCompile(`(?m)alert: (\w+)$`).FindAllStringSubmatch(file(t, "dashboard/alerts.yml"), -1) {
		if !strings.Contains(readme, "`"+alert[1]+"`") {
			t.Errorf("alert %s is not in the README", alert[1])
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
