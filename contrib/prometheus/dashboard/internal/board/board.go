// Package board reads the dashboard.
package board

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"
)

// Board is what is looked at of ginlimit.json.
type Board struct {
	Title         string
	UID           string
	SchemaVersion int
	Templating    struct {
		List []struct{ Name, Type, Definition string }
	}
	Panels []Panel
}

// Panel is a row's title, or a panel with its expressions.
type Panel struct {
	ID                       int
	Type, Title, Description string
	GridPos                  struct{ H, W, X, Y int }
	FieldConfig              struct{ Defaults struct{ Unit string } }
	Targets                  []Target
}

// Target is one expression of a panel.
type Target struct {
	RefID, Expr, LegendFormat string
	Datasource                struct{ Type, UID string }
}

// Load reads a dashboard.
func Load(file string) (Board, error) {
	var b Board
	text, err := os.ReadFile(file)
	if err != nil {
		return b, err
	}
	if err := json.Unmarshal(text, &b); err != nil {
		return b, fmt.Errorf("board: %s: %w", file, err)
	}
	return b, nil
}

// Fill returns the expression for all jobs and limiters, with rates over a time.
func (t Target) Fill(over time.Duration) string {
	length := fmt.Sprintf("%dms", over.Milliseconds())
	return strings.NewReplacer("$__rate_interval", length, "$__range", length, "$job", ".*", "$limiter", ".*").Replace(t.Expr)
}

// Legend returns the name of a series, as Grafana makes it of its labels.
func (t Target) Legend(labels map[string]string) string {
	text := t.LegendFormat
	for {
		from := strings.Index(text, "{{")
		to := strings.Index(text, "}}")
		if from < 0 || to < from {
			return strings.Join(strings.Fields(text), " ")
		}
		text = text[:from] + labels[strings.TrimSpace(text[from+2:to])] + text[to+2:]
	}
}
