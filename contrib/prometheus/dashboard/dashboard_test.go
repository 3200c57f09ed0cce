package dashboard_test

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/backend"
	ginlimitprom "github.com/ginlimit/ginlimit/contrib/prometheus"
	"github.com/ginlimit/ginlimit/contrib/prometheus/dashboard/internal/board"
	"github.com/ginlimit/ginlimit/contrib/prometheus/dashboard/internal/promserver"
)

func load(t *testing.T) board.Board {
	t.Helper()
	b, err := board.Load("ginlimit.json")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// expr is an expression of a panel, with Grafana's variables filled in.
type expr struct{ panel, text string }

func exprs(t *testing.T) (all []expr) {
	t.Helper()
	for _, p := range load(t).Panels {
		for _, target := range p.Targets {
			all = append(all, expr{p.Title, target.Fill(time.Minute)})
		}
	}
	return all
}

// TestDashboard holds the JSON to what Grafana needs, and to the order of the questions.
func TestDashboard(t *testing.T) {
	b := load(t)
	if b.Title == "" || b.UID == "" || b.SchemaVersion < 41 {
		t.Errorf("title %q, uid %q, schema version %d: want one of Grafana 12 or newer", b.Title, b.UID, b.SchemaVersion)
	}
	var rows []string
	ids, taken := map[int]bool{}, map[[2]int]string{}
	for _, p := range b.Panels {
		if ids[p.ID] || p.ID == 0 {
			t.Errorf("panel %q: its id %d is another's", p.Title, p.ID)
		}
		ids[p.ID] = true
		g := p.GridPos
		if g.W < 1 || g.H < 1 || g.X+g.W > 24 {
			t.Errorf("panel %q stands outside the grid: %+v", p.Title, g)
		}
		for x := g.X; x < g.X+g.W; x++ {
			for y := g.Y; y < g.Y+g.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" {
					t.Fatalf("panels %q and %q overlap", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			rows = append(rows, p.Title)
			continue
		}
		if p.Description == "" || len(p.Targets) == 0 || !slices.Contains([]string{"stat", "table", "timeseries"}, p.Type) {
			t.Errorf("panel %q: type %q, %d targets, description %q", p.Title, p.Type, len(p.Targets), p.Description)
		}
		for i, target := range p.Targets {
			if target.RefID != string(rune('A'+i)) || target.Datasource.UID != "${datasource}" || target.Datasource.Type != "prometheus" {
				t.Errorf("panel %q: target %+v", p.Title, target)
			}
		}
	}
	if want := []string{"Who is refused?", "Is it a limit, or an attack?", "Is the limiter itself healthy?", "How close are tiers to their limits?"}; !slices.Equal(rows, want) {
		t.Errorf("the questions are %q, want %q", rows, want)
	}
	for _, e := range exprs(t) {
		if strings.Contains(e.text, "$") {
			t.Errorf("panel %q: a variable is not known: %s", e.panel, e.text)
		}
	}
}

// TestExpressionsParse has promtool parse each expression of the dashboard, as a recording rule.
func TestExpressionsParse(t *testing.T) {
	bin := promtool(t)
	var rules []any
	for i, e := range exprs(t) {
		rules = append(rules, map[string]any{"record": fmt.Sprintf("dashboard:expression:%d", i), "expr": e.text})
	}
	text, err := json.Marshal(map[string]any{"groups": []any{map[string]any{"name": "dashboard", "rules": rules}}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "rules.yml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(bin, "check", "rules", file).CombinedOutput()
	if err != nil || !strings.Contains(string(out), fmt.Sprintf("SUCCESS: %d rules found", len(rules))) {
		t.Errorf("%v:\n%s", err, out)
	}
}

func TestAlerts(t *testing.T) {
	bin := promtool(t)
	for _, args := range [][]string{{"check", "rules", "alerts.yml"}, {"test", "rules", "alerts_test.yml"}} {
		if out, err := exec.Command(bin, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

func promtool(t *testing.T) string {
	t.Helper()
	bin, err := exec.LookPath("promtool")
	if err != nil {
		promserver.GiveUp(t, err)
	}
	return bin
}

var alertName = regexp.MustCompile(`(?m)^ *- alert: (\w+)$`)

// TestEveryAlertIsTested wants of each alert one moment at which it fires and one at which it does
// not.
func TestEveryAlertIsTested(t *testing.T) {
	rules, tests := read(t, "alerts.yml"), read(t, "alerts_test.yml")
	names := alertName.FindAllStringSubmatch(rules, -1)
	if len(names) < 5 {
		t.Fatalf("alerts.yml has %d alerts", len(names))
	}
	for _, name := range names {
		fires, not := false, false
		for _, block := range strings.Split(tests, "- alertname: ")[1:] {
			if strings.Fields(block)[0] == name[1] {
				found := strings.Contains(block, "exp_alerts:")
				fires, not = fires || found, not || !found
			}
		}
		if !fires || !not {
			t.Errorf("%s: alerts_test.yml has a moment at which it fires: %v, and one at which it does not: %v", name[1], fires, not)
		}
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// exported returns the labels of each metric that a Collector with every kind of decision exports,
// by the names that Prometheus has them under.
func exported(t *testing.T) map[string][]string {
	t.Helper()
	c := ginlimitprom.New(ginlimitprom.WithBreakers("redis", func() map[string]bool { return map[string]bool{"127.0.0.1:6379": false} }))
	d := ginlimit.Decision{Limiter: "api", Tier: "pro", Key: "k", Waited: 1, Elapsed: time.Microsecond, TierErr: io.EOF}
	d.Limit = ginlimit.PerHour(10)
	c.Observe(t.Context(), d)
	d.Err = backend.ErrUnavailable
	c.Observe(t.Context(), d)
	l, err := ginlimit.NewLimiter(ginlimit.InFlight(10), ginlimit.Global())
	if err != nil {
		t.Fatal(err)
	}
	c.Watch(l)
	registry := prometheus.NewRegistry()
	registry.MustRegister(c)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]string{}
	for _, f := range families {
		labels := []string{"job", "instance"}
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		all[f.GetName()] = labels
		if f.GetMetric()[0].GetHistogram() != nil {
			all[f.GetName()+"_bucket"] = append(labels, "le")
		}
	}
	return all
}

var (
	// selector is a metric with its matchers, or nothing but its name.
	selector = regexp.MustCompile(`([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(?:\{([^}]*)\})`)
	matcher  = regexp.MustCompile(`([a-zA-Z_][a-zA-Z0-9_]*)\s*(?:=~|!~|!=|=)`)
	quoted   = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)
	grouping = regexp.MustCompile(`\b(?:by|without|ignoring|on|group_left|group_right)\b\s*(?:\(([^)]*)\))?`)
	word     = regexp.MustCompile(`[a-zA-Z_:][a-zA-Z0-9_:]*\s*\(?`)
	span     = regexp.MustCompile(`\[[^\]]*\]|\b[0-9]+[a-z]*\b`)
)

// strangers returns what an expression names that is no metric, no label of its metrics and no
// function.
func strangers(text string, metrics map[string][]string) (out []string) {
	text = quoted.ReplaceAllString(text, "")
	labels := map[string]bool{}
	for _, m := range selector.FindAllStringSubmatch(text, -1) {
		for _, l := range matcher.FindAllStringSubmatch(m[2], -1) {
			if !slices.Contains(metrics[m[1]], l[1]) {
				out = append(out, m[1]+"{"+l[1]+"}")
			}
		}
	}
	text = regexp.MustCompile(`\{[^}]*\}`).ReplaceAllString(text, " ")
	var groups []string
	for _, g := range grouping.FindAllStringSubmatch(text, -1) {
		for _, l := range strings.Split(g[1], ",") {
			if l = strings.TrimSpace(l); l != "" {
				groups = append(groups, l)
			}
		}
	}
	text = span.ReplaceAllString(grouping.ReplaceAllString(text, " "), " ")
	for _, w := range word.FindAllString(text, -1) {
		if strings.HasSuffix(w, "(") || slices.Contains([]string{"or", "and", "unless", "offset", "bool"}, strings.TrimSpace(w)) {
			continue
		}
		name := strings.TrimSpace(w)
		if metrics[name] == nil {
			out = append(out, name)
		}
		for _, l := range metrics[name] {
			labels[l] = true
		}
	}
	for _, g := range groups {
		if !labels[g] {
			out = append(out, "by ("+g+")")
		}
	}
	return out
}

// TestNamesAreExported holds dashboard and alerts to the metrics, and to their labels, that a
// Collector exports.
func TestNamesAreExported(t *testing.T) {
	metrics := exported(t)
	if len(metrics) != 11+2 {
		t.Fatalf("a Collector exports %v", metrics)
	}
	all := exprs(t)
	for i, text := range alertExprs(t) {
		all = append(all, expr{fmt.Sprint("alert ", i+1), text})
	}
	used := map[string]bool{}
	for _, e := range all {
		if s := strangers(e.text, metrics); s != nil {
			t.Errorf("%s: %q in %s", e.panel, s, e.text)
		}
		for name := range metrics {
			used[name] = used[name] || regexp.MustCompile(`\b`+name+`\b`).MatchString(e.text)
		}
	}
	for name := range metrics {
		if !used[name] {
			t.Errorf("%s is on no panel", name)
		}
	}
	for _, v := range load(t).Templating.List {
		if m := regexp.MustCompile(`^label_values\((\w+)(?:\{.*\})?, (\w+)\)$`).FindStringSubmatch(v.Definition); v.Type == "query" && (m == nil || !slices.Contains(metrics[m[1]], m[2])) {
			t.Errorf("variable %s: %q", v.Name, v.Definition)
		}
	}
	// The test itself has to see what is wrong.
	for _, wrong := range []string{
		"rate(ginlimit_decision_total[5m])", `ginlimit_decisions_total{key="a"}`, "sum by (source) (ginlimit_decisions_total)",
		"sum(up) / sum(ginlimit_decisions_total)", "ginlimit_denied_keys or ginlimit_allowed_keys",
	} {
		if strangers(wrong, metrics) == nil {
			t.Errorf("%s is found to be right", wrong)
		}
	}
}

// alertExprs returns the expressions of alerts.yml: what follows "expr:" on its line, or is
// indented below it.
func alertExprs(t *testing.T) (all []string) {
	t.Helper()
	rules := read(t, "alerts.yml")
	for _, m := range regexp.MustCompile(`(?m)^        expr: (.*)\n((?:          .*\n)*)`).FindAllStringSubmatch(rules, -1) {
		all = append(all, strings.TrimPrefix(m[1], "|")+"\n"+m[2])
	}
	if len(all) != len(alertName.FindAllString(rules, -1)) {
		t.Fatalf("%d expressions are found in alerts.yml", len(all))
	}
	return all
}
