package main

import (
	"bytes"
	_ "embed" // what the page is made of
	"fmt"
	"html/template"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/ginlimit/ginlimit/cmd/ginlimit/internal/replay"
)

//go:embed report.html
var pageHTML string

//go:embed uplot/uPlot.iife.min.js
var uplotScript string

//go:embed uplot/uPlot.min.css
var uplotStyle string

//go:embed uplot/LICENSE
var uplotLicence string

var pageTemplate = template.Must(template.New("report").Funcs(template.FuncMap{"time": func(at *time.Time) string {
	if at == nil {
		return "–"
	}
	return at.Format("2006-01-02 15:04:05")
}, "visible": visible}).Parse(pageHTML))

// visible returns s with escapes for what a page would not show, such as marks that turn the
// direction of text.
func visible(s string) string {
	quoted := strconv.Quote(s)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}

// page is what report.html is filled in with.
type page struct {
	Report            *replay.Report
	Style             template.CSS
	Script            template.JS
	Title, Names      string
	Requests, Callers string
	From, To, Period  string
	Smallest          string
	Outcomes          []pageOutcome
	Tables            []pageTable
}

type pageOutcome struct {
	Name, Refused, Share, Callers, CallerShare, Worst, Waits string
}

type pageTable struct {
	Title   string
	Callers []replay.Caller
}

// writeHTMLFile writes the page, whole or not at all.
func writeHTMLFile(name string, r *replay.Report) error {
	var b bytes.Buffer
	if err := writeHTML(&b, r); err != nil {
		return err
	}
	if err := os.WriteFile(name, b.Bytes(), 0o644); err != nil {
		return fmt.Errorf("ginlimit: the page cannot be written: %w; name another file by -html", err)
	}
	return nil
}

func writeHTML(b *bytes.Buffer, r *replay.Report) error {
	p := page{
		Report: r, Style: template.CSS(uplotStyle), Script: template.JS("/*\n" + uplotLicence + "*/\n" + uplotScript),
		Requests: plural(r.Requests, "request"), Callers: plural(r.Callers, "caller"),
		From: r.From.Format("2006-01-02 15:04:05"), To: r.To.Format("2006-01-02 15:04:05"), Period: busiest(r.Rates),
	}
	var names []string
	for _, f := range r.Files {
		names = append(names, f.Name)
	}
	p.Names = strings.Join(names, ", ")
	p.Outcomes = append(p.Outcomes, outcomeOf(&r.Limits, ""))
	p.Tables = append(p.Tables, pageTable{"Refused most", r.Limits.Top})
	p.Title = "What " + p.Outcomes[0].Name + " would do"
	if r.Versus != nil {
		p.Outcomes = append(p.Outcomes, outcomeOf(r.Versus, "Compared with "))
		p.Tables = append(p.Tables, pageTable{"Refused more by the limit compared with", r.Change.More},
			pageTable{"Refused less by the limit compared with", r.Change.Fewer})
	}
	if s := r.Smallest; s != nil && s.None == "" {
		p.Smallest = fmt.Sprintf("The smallest limit that refuses at most %s of %s: %s (%s).", percent(s.Target, 1), s.Of,
			strings.Join(s.Limits, ", "), percent(s.Share, s.Refused))
	}
	return pageTemplate.Execute(b, p)
}

func outcomeOf(o *replay.Outcome, prefix string) pageOutcome {
	var names []string
	for _, l := range o.Limits {
		names = append(names, l.Limit)
	}
	out := pageOutcome{Name: prefix + strings.Join(names, ", "), Refused: number(o.Refused), Share: percent(o.Share, o.Refused),
		Callers: number(o.RefusedCallers), CallerShare: percent(o.CallerShare, o.RefusedCallers)}
	if o.Worst != nil {
		out.Worst = fmt.Sprintf("%s: %s of %s", o.Worst.Start.Format("2006-01-02 15:04"), number(o.Worst.Refused), number(o.Worst.Requests))
	}
	if o.Waits != nil && o.Waits.Longest > 0 {
		out.Waits = "half " + wait(o.Waits.Half) + ", longest " + wait(o.Waits.Longest)
	}
	return out
}
