package main

import (
	"errors"
	"fmt"
	"image/color"
	"math"
	"os"
	"strings"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	vgdraw "gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"

	"github.com/ginlimit/ginlimit/contrib/prometheus/dashboard/internal/promserver"
)

const (
	width    = 12.5 * vg.Inch
	lineH    = 2.75 * vg.Inch // of two charts
	headH    = 0.55 * vg.Inch // of a question
	margin   = 0.2 * vg.Inch
	dpi      = 112
	columns  = 2
	legendH  = 12
	legendIn = 14 // a line's sample
)

var (
	grey = color.Gray{Y: 110}
	ink  = color.Gray{Y: 30}
	// bands are behind the phases.
	bands = []color.Color{color.White, color.RGBA{255, 250, 230, 255}, color.RGBA{255, 240, 235, 255}, color.RGBA{240, 240, 246, 255}, color.White}
	// inks are told apart also by those who see few colours (after Okabe and Ito).
	inks = []color.Color{
		color.RGBA{0, 114, 178, 255}, color.RGBA{230, 159, 0, 255}, color.RGBA{0, 158, 115, 255}, color.RGBA{213, 94, 0, 255},
		color.RGBA{204, 121, 167, 255}, color.RGBA{86, 180, 233, 255}, color.RGBA{120, 94, 60, 255}, color.RGBA{60, 60, 60, 255},
	}
)

// draw writes the picture: the questions below one another, each with its charts.
func draw(file string, charts []chart, phases []phase) error {
	plot.DefaultFont = font.Font{Typeface: "Liberation", Variant: "Sans"}
	rows := rowsOf(charts)
	height := 2 * margin
	for _, row := range rows {
		height += headH + vg.Length((len(row)+columns-1)/columns)*lineH
	}
	img := vgimg.NewWith(vgimg.UseWH(width, height), vgimg.UseDPI(dpi))
	all := vgdraw.New(img)
	all.SetColor(color.White)
	all.Fill(all.Path())
	top := height - margin
	for _, row := range rows {
		all.FillText(style(16, ink, true), vg.Point{X: 2 * margin, Y: top - 0.33*vg.Inch}, row[0].question)
		all.StrokeLine2(vgdraw.LineStyle{Color: color.Gray{Y: 210}, Width: 0.7}, 2*margin, top-0.42*vg.Inch, width-2*margin, top-0.42*vg.Inch)
		top -= headH
		for i, c := range row {
			w := (width - 2*margin) / columns
			left := margin + vg.Length(i%columns)*w
			if i > 0 && i%columns == 0 {
				top -= lineH
			}
			err := drawChart(vgdraw.Canvas{Canvas: img, Rectangle: vg.Rectangle{
				Min: vg.Point{X: left + margin, Y: top - lineH + margin}, Max: vg.Point{X: left + w - margin, Y: top},
			}}, c, phases)
			if err != nil {
				return err
			}
		}
		top -= lineH
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	_, err = vgimg.PngCanvas{Canvas: img}.WriteTo(f)
	return errors.Join(err, f.Close())
}

func rowsOf(charts []chart) (rows [][]chart) {
	for _, c := range charts {
		if n := len(rows); n > 0 && rows[n-1][0].question == c.question {
			rows[n-1] = append(rows[n-1], c)
		} else {
			rows = append(rows, []chart{c})
		}
	}
	return rows
}

// drawChart draws the title, the names of the lines below it, and the lines.
func drawChart(c vgdraw.Canvas, ch chart, phases []phase) error {
	y := c.Max.Y - 14
	c.FillText(style(11, ink, true), vg.Point{X: c.Min.X, Y: y}, ch.title)
	name, x := style(8.5, ink, false), c.Min.X
	y -= legendH + 3
	for i, s := range ch.series {
		w := name.Width(s.name) + legendIn + 12
		if x+w > c.Max.X && x > c.Min.X {
			x, y = c.Min.X, y-legendH
		}
		c.StrokeLine2(vgdraw.LineStyle{Color: inks[i%len(inks)], Width: 2}, x, y+3, x+legendIn-3, y+3)
		c.FillText(name, vg.Point{X: x + legendIn, Y: y}, s.name)
		x += w
	}
	p, err := plotOf(ch, phases)
	if err != nil {
		return err
	}
	c.Max.Y = y - 5
	p.Draw(c)
	return nil
}

func style(size vg.Length, c color.Color, bold bool) vgdraw.TextStyle {
	f := font.From(plot.DefaultFont, size)
	if bold {
		f.Weight = 3
	}
	return vgdraw.TextStyle{Color: c, Font: f, Handler: plot.DefaultTextHandler}
}

func plotOf(c chart, phases []phase) (*plot.Plot, error) {
	p := plot.New()
	p.X.Tick.Label, p.Y.Tick.Label = style(8.5, grey, false), style(8.5, grey, false)
	p.X.Tick.Label.XAlign, p.X.Tick.Label.YAlign = -0.5, -1
	p.Y.Tick.Label.XAlign, p.Y.Tick.Label.YAlign = -1, -0.5
	p.X.Color, p.Y.Color = grey, grey
	start := phases[0].from
	p.X.Min, p.X.Max = 0, phases[len(phases)-1].to.Sub(start).Seconds()
	p.X.Tick.Marker = seconds{}
	low, high := extent(c)
	p.Y.Min, p.Y.Max = 0, math.Max(high*1.12, 0.01)
	p.Y.Tick.Marker = ticks{c.unit}
	if c.unit == "s" {
		p.Y.Scale = plot.LogScale{}
		p.Y.Min, p.Y.Max = math.Pow(10, math.Floor(math.Log10(low))), math.Pow(10, math.Ceil(math.Log10(high*1.5)))
	}
	if c.unit == "percentunit" {
		p.Y.Max = 1.2
	}
	p.Add(behind{phases})
	for i, s := range c.series {
		ink := inks[i%len(inks)]
		for _, part := range unbroken(s.points, start) {
			line, err := plotter.NewLine(part)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.title, err)
			}
			line.Color, line.Width = ink, 1.6
			p.Add(line)
		}
	}
	return p, nil
}

func extent(c chart) (low, high float64) {
	low = math.Inf(1)
	for _, s := range c.series {
		for _, p := range s.points {
			low, high = math.Min(low, p.Value), math.Max(high, p.Value)
		}
	}
	return math.Max(low, 1e-7), math.Max(high, 1e-6)
}

// unbroken cuts a line where there is no data.
func unbroken(points []promserver.Point, start time.Time) (parts []plotter.XYs) {
	var last time.Time
	for _, p := range points {
		if len(parts) == 0 || p.At.Sub(last) > scrape*3/2 {
			parts = append(parts, nil)
		}
		last = p.At
		n := len(parts) - 1
		parts[n] = append(parts[n], plotter.XY{X: p.At.Sub(start).Seconds(), Y: p.Value})
	}
	return parts
}

// behind colours the phases and names them.
type behind struct{ phases []phase }

func (b behind) Plot(c vgdraw.Canvas, p *plot.Plot) {
	x, _ := p.Transforms(&c)
	name := style(8, grey, false)
	name.XAlign = -0.5
	for i, ph := range b.phases {
		from, to := x(ph.from.Sub(b.phases[0].from).Seconds()), x(ph.to.Sub(b.phases[0].from).Seconds())
		c.FillPolygon(bands[i%len(bands)], []vg.Point{{X: from, Y: c.Min.Y}, {X: to, Y: c.Min.Y}, {X: to, Y: c.Max.Y}, {X: from, Y: c.Max.Y}})
		c.FillText(name, vg.Point{X: (from + to) / 2, Y: c.Max.Y - 11}, ph.name)
	}
}

// seconds marks every 15 s.
type seconds struct{}

func (seconds) Ticks(from, to float64) (all []plot.Tick) {
	for x := math.Ceil(from/15) * 15; x <= to; x += 15 {
		all = append(all, plot.Tick{Value: x, Label: fmt.Sprintf("%.0f s", x)})
	}
	return all
}

// ticks writes values as the dashboard's units have them.
type ticks struct{ unit string }

func (t ticks) Ticks(from, to float64) (all []plot.Tick) {
	if t.unit == "s" {
		for v := from; v <= to*1.001; v *= 10 {
			label := strings.TrimSuffix(time.Duration(math.Round(v*1e9)).String(), "0s")
			all = append(all, plot.Tick{Value: v, Label: label})
		}
		return all
	}
	for _, tick := range (plot.DefaultTicks{}).Ticks(from, to) {
		switch {
		case tick.Label == "":
		case t.unit == "percentunit":
			tick.Label = fmt.Sprintf("%.0f %%", 100*tick.Value)
		case t.unit == "reqps":
			tick.Label = fmt.Sprintf("%g/s", tick.Value)
		}
		all = append(all, tick)
	}
	return all
}
