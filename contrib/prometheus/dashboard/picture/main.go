// Picture draws the dashboard's panels from real data: callers of an application with ginlimit go
// through calm, near the limit, over the limit and a Redis that does not answer, a Prometheus
// scrapes it twice a second, and the picture shows what the dashboard's own expressions say of it.
// It needs redis-server and prometheus in PATH.
//
//	cd contrib/prometheus/dashboard && go run ./picture -o ../docs/metrics.png
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"github.com/ginlimit/ginlimit/contrib/prometheus/dashboard/internal/board"
	"github.com/ginlimit/ginlimit/contrib/prometheus/dashboard/internal/promserver"
	"github.com/ginlimit/ginlimit/contrib/prometheus/dashboard/internal/shop"
	"github.com/ginlimit/ginlimit/internal/testserver"
)

const (
	scrape = 500 * time.Millisecond
	window = 3 * time.Second // of rates
)

// panels are those of the dashboard that are drawn.
var panels = []string{
	"Refusals by limiter, tier and limit", "Share refused, by limiter",
	"Requests by outcome", "Keys denied in the last minute", "Bans", "Share refused by a ban",
	"Not decided", "Errors by kind", "Time of a decision, by who decided", "Who decided",
	"Near the limit", "Over the limit", "Requests by tier", "Requests in flight",
}

func main() {
	log.SetFlags(0)
	out := flag.String("o", "metrics.png", "the picture, a PNG")
	file := flag.String("dashboard", "ginlimit.json", "the dashboard")
	length := flag.Duration("phase", 15*time.Second, "how long each of five phases lasts")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, *file, *out, *length)
	stop()
	if err != nil {
		log.Fatal(err)
	}
}

// phase is a stretch of time with a name.
type phase struct {
	name     string
	from, to time.Time
}

func run(ctx context.Context, file, out string, length time.Duration) (err error) {
	b, err := board.Load(file)
	if err != nil {
		return err
	}
	store, err := testserver.StartRedis()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Stop()) }()
	s, err := shop.Open(ctx, store.URL())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	server, err := promserver.Start(promserver.Config{Target: s.Addr(), Interval: scrape, Native: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()

	var phases []phase
	for _, p := range []struct {
		name    string
		callers []shop.Callers
		before  func()
	}{
		{"calm", shop.Calm, nil},
		{"near the limit", shop.Near, nil},
		{"over the limit", shop.Over, nil},
		{"Redis hangs", shop.Near, store.Pause},
		{"Redis answers", shop.Calm, store.Resume},
	} {
		if p.before != nil {
			p.before()
		}
		log.Printf("%s, for %v", p.name, length)
		from := time.Now()
		if err := s.Serve(ctx, p.callers, length); err != nil {
			return err
		}
		phases = append(phases, phase{p.name, from, time.Now()})
	}
	charts, err := ask(ctx, server, b, phases)
	if err != nil {
		return err
	}
	return draw(out, charts, phases)
}

// chart is a panel with its data.
type chart struct {
	question, title, unit string
	series                []series
}

type series struct {
	name   string
	points []promserver.Point
}

// ask queries the expressions of the panels that are drawn.
func ask(ctx context.Context, server *promserver.Server, b board.Board, phases []phase) (charts []chart, err error) {
	question := ""
	for _, p := range b.Panels {
		if p.Type == "row" {
			question = p.Title
		}
		if p.Type != "timeseries" || !slices.Contains(panels, p.Title) {
			continue
		}
		c := chart{question: question, title: p.Title, unit: p.FieldConfig.Defaults.Unit}
		for _, t := range p.Targets {
			if strings.HasSuffix(t.LegendFormat, "p50") {
				continue // one line for each source is enough
			}
			found, err := server.QueryRange(ctx, t.Fill(window), phases[0].from, phases[len(phases)-1].to, scrape)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", p.Title, err)
			}
			for _, f := range found {
				c.series = append(c.series, series{t.Legend(f.Labels), f.Points})
			}
		}
		slices.SortFunc(c.series, func(a, b series) int { return strings.Compare(a.name, b.name) })
		charts = append(charts, c)
	}
	if len(charts) != len(panels) {
		return nil, fmt.Errorf("of %d panels %d are on the dashboard", len(panels), len(charts))
	}
	return charts, nil
}
