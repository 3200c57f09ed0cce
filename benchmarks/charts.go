package benchmarks

import (
	"bytes"
	"fmt"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Sizes in points: 600 are the 800 pixels that a README is wide.
const (
	chartWidth = 600
	chartHead  = 44
	barHeight  = 13
	lineHeight = 190
)

// The colours are told apart also by who sees no red or green. PortableSVG turns them for a dark
// page.
var (
	ink        = color.Gray{0x24}
	faint      = color.Gray{0xe4}
	ownColor   = color.RGBA{0x2b, 0x6c, 0xb0, 0xff}
	otherOwn   = color.RGBA{0x9c, 0xc3, 0xe6, 0xff}
	rivalColor = color.RGBA{0xf0, 0xa8, 0x6e, 0xff}
	floorColor = color.Gray{0xb8}
	lineColors = []color.Color{
		ownColor, color.RGBA{0xd5, 0x5e, 0x00, 0xff}, color.RGBA{0x00, 0x9e, 0x73, 0xff}, color.RGBA{0xcc, 0x79, 0xa7, 0xff},
		color.RGBA{0x6b, 0x5b, 0x1e, 0xff}, color.RGBA{0xe6, 0x9f, 0x00, 0xff},
	}
)

// Draw writes the pictures of the results into dir.
func (r *Results) Draw(dir string) error {
	var all []sheet
	for _, s := range Sections {
		all = append(all, r.sheets(s.Name)...)
	}
	for _, s := range append(all, sheet{file: "overview", title: "ginlimit beside other limiters", columns: r.overview()}) {
		if s.file == "" || len(r.rows(s.columns)) == 0 {
			continue
		}
		if err := r.drawBars(s, filepath.Join(dir, s.file+".svg")); err != nil {
			return err
		}
	}
	if len(r.growthFigures()) == 0 {
		return nil
	}
	return r.drawCurves(filepath.Join(dir, "growth.svg"))
}

// drawBars draws a panel for each column, two beside each other.
func (r *Results) drawBars(s sheet, file string) error {
	var plots []*plot.Plot
	most, seen := 0, map[int]bool{}
	for _, c := range s.columns {
		figures := slices.DeleteFunc(r.column(c), func(f Figure) bool { return s.file == "overview" && rank(f.Name) == 1 })
		if len(figures) == 0 || slices.Contains([]string{"failed", "commands", "allocs"}, c.metric) {
			continue
		}
		slices.SortStableFunc(figures, func(a, b Figure) int {
			if c.more == (a.Median > b.Median) {
				return 1 // the best is drawn last, at the top
			}
			return -1
		})
		plots = append(plots, barPlot(c, figures))
		most = max(most, len(figures))
		for _, f := range figures {
			seen[rank(f.Name)] = true
		}
	}
	var entries []legend
	for i, e := range []legend{{ownColor, own}, {otherOwn, own + ", other settings"}, {rivalColor, "others"}, {floorColor, "floors (› longer than drawn)"}} {
		if seen[i] {
			entries = append(entries, e)
		}
	}
	if r.Rounds > 1 {
		entries = append(entries, legend{ink, "least to most"})
	}
	columns := min(2, len(plots))
	height := vg.Length(most*barHeight + 48)
	return drawPlots(file, s.title+" · "+r.Machine.CPU, entries, plots, columns, height)
}

// barPlot is a panel of bars that lie, each with its figure, and a thin line from the least to the
// most.
func barPlot(c column, figures []Figure) *plot.Plot {
	p := newPlot()
	p.Title.Text = c.title
	better := "less is better"
	if c.more {
		better = "more is better"
	}
	if c.section == "exact" {
		better = "100 is the limit"
	}
	p.X.Label.Text = strings.TrimPrefix(c.unit+", "+better, ", ")
	if c.unit == "/s" {
		p.X.Label.Text = "per second, " + better
	}
	ticks := make(plot.ConstantTicks, len(figures))
	for i, f := range figures {
		ticks[i] = plot.Tick{Value: float64(i), Label: strings.TrimPrefix(f.Name, floorPrefix)}
	}
	p.Y.Tick.Marker, p.Y.Tick.Length, p.Y.Width = ticks, 0, 0
	p.X.Tick.Marker = plot.TickerFunc(func(low, high float64) []plot.Tick { return fewTicks(plot.DefaultTicks{}.Ticks(low, high)) })
	grid := plotter.NewGrid()
	grid.Vertical.Color, grid.Horizontal.Width = faint, 0
	p.Add(grid, bars(figures))
	p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = 0, 0, -0.6, float64(len(figures))-0.4
	top := 0.0
	for _, f := range figures {
		if rank(f.Name) != 3 {
			top = max(top, f.Median)
		}
	}
	for _, f := range figures {
		p.X.Max = max(p.X.Max, min(f.Max, top*1.4)) // neither a slow moment nor a floor makes all bars short
	}
	p.X.Max *= 1.2 // for the last number
	return p
}

// fewTicks keeps every other label where numbers are long, and writes thousands as k.
func fewTicks(ticks []plot.Tick) []plot.Tick {
	labels := 0
	for i, t := range ticks {
		if t.Label == "" {
			continue
		}
		if labels++; labels%2 == 0 {
			ticks[i].Label = ""
			continue
		}
		ticks[i].Label = brief(t.Value)
	}
	return ticks
}

// brief is a figure with at most four digits.
func brief(v float64) string {
	switch {
	case v >= 1e6:
		return number(v/1e6) + "M"
	case v >= 1e4:
		return number(v/1e3) + "k"
	}
	return number(v)
}

// bars are figures one above the other.
type bars []Figure

// Plot draws them.
func (b bars) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	style := p.X.Tick.Label
	style.XAlign, style.YAlign = text.XLeft, text.YCenter
	for i, f := range b {
		middle := y(float64(i))
		half := (y(1) - y(0)) * 0.36
		fill := color.Color(rivalColor)
		switch rank(f.Name) {
		case 0:
			fill = ownColor
		case 1:
			fill = otherOwn
		case 3:
			fill = floorColor
		}
		most, says := p.X.Max/1.2, brief(f.Median)
		if f.Median > most {
			says += " ›" // longer than drawn
		}
		end := x(min(f.Median, most))
		c.FillPolygon(fill, []vg.Point{{X: x(0), Y: middle - half}, {X: end, Y: middle - half}, {X: end, Y: middle + half}, {X: x(0), Y: middle + half}})
		high := x(min(f.Max, most))
		if f.Max > f.Min && f.Min < most {
			c.StrokeLine2(draw.LineStyle{Color: ink, Width: 0.7}, x(max(0, f.Min)), middle, high, middle)
		}
		c.FillText(style, vg.Point{X: max(end, high) + 3, Y: middle}, says)
	}
}

// DataRange is set by the panel.
func (b bars) DataRange() (xmin, xmax, ymin, ymax float64) { return 0, 1, 0, float64(len(b)) }

// drawCurves draws how cost grows.
func (r *Results) drawCurves(file string) error {
	var plots []*plot.Plot
	var entries []legend
	colors := map[string]color.Color{}
	for _, c := range curves {
		names, points := r.series(c)
		if len(names) == 0 {
			continue
		}
		p := newPlot()
		p.Title.Text, p.X.Label.Text, p.Y.Label.Text = c.title, c.x, c.y
		grid := plotter.NewGrid()
		grid.Vertical.Color, grid.Horizontal.Color = faint, faint
		p.Add(grid)
		top, bottom := 0.0, math.Inf(1)
		for _, name := range names {
			base, _, _ := strings.Cut(name, ", a call") // one colour for one limiter in all panels
			if colors[base] == nil {
				colors[base] = lineColors[len(colors)%len(lineColors)]
				entries = append(entries, legend{colors[base], base})
			}
			var found spread
			for _, f := range points[name] {
				found.XYs = append(found.XYs, plotter.XY{X: f.X, Y: f.Median})
				found.YErrors = append(found.YErrors, struct{ Low, High float64 }{f.Median - f.Min, f.Max - f.Median})
				top, bottom = max(top, f.Max), min(bottom, f.Min)
			}
			line, dots, err := plotter.NewLinePoints(found.XYs)
			if err != nil {
				return err
			}
			whiskers, err := plotter.NewYErrorBars(found)
			if err != nil {
				return err
			}
			whiskers.Color, whiskers.Width, whiskers.CapWidth = colors[base], 0.7, 3
			line.Color, line.Width = colors[base], 1.2
			if name == own {
				line.Width = 2
			}
			dots.Color, dots.Shape, dots.Radius = colors[base], draw.CircleGlyph{}, 2
			p.Add(line, dots, whiskers)
		}
		x := points[names[0]]
		if p.X.Tick.Marker = at(x); !c.linear && len(x) > 1 {
			p.X.Scale = plot.LogScale{}
		}
		if top/bottom > 8 && !c.linear {
			p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.TickerFunc(decades)
			p.Y.Min, p.Y.Max = bottom/1.2, top*1.2
		} else {
			p.Y.Min, p.Y.Max = 0, top*1.08
			p.Y.Tick.Marker = plot.TickerFunc(func(low, high float64) []plot.Tick { return briefTicks(plot.DefaultTicks{}.Ticks(low, high)) })
		}
		plots = append(plots, p)
	}
	return drawPlots(file, "How cost grows · "+r.Machine.CPU, entries, plots, 2, lineHeight)
}

// spread is a line with the least and the most of each point.
type spread struct {
	plotter.XYs
	plotter.YErrors
}

// at marks the values that were measured, every other one where they are many.
func at(points []Figure) plot.ConstantTicks {
	var ticks plot.ConstantTicks
	for i, f := range points {
		t := plot.Tick{Value: f.X, Label: brief(f.X)}
		if len(points) > 7 && i%2 == 1 {
			t.Label = ""
		}
		ticks = append(ticks, t)
	}
	return ticks
}

func briefTicks(ticks []plot.Tick) []plot.Tick {
	for i := range ticks {
		if ticks[i].Label != "" {
			ticks[i].Label = brief(ticks[i].Value)
		}
	}
	return ticks
}

// decades marks 1, 2 and 5 times each power of ten.
func decades(low, high float64) (ticks []plot.Tick) {
	for power := math.Pow(10, math.Floor(math.Log10(low))); power <= high; power *= 10 {
		for _, n := range []float64{1, 2, 5} {
			if v := n * power; v >= low && v <= high {
				ticks = append(ticks, plot.Tick{Value: v, Label: brief(v)})
			}
		}
	}
	return ticks
}

// newPlot is a panel in the style of all.
func newPlot() *plot.Plot {
	p := plot.New()
	p.BackgroundColor = nil
	p.Title.TextStyle.Font, p.Title.TextStyle.Color, p.Title.Padding = sans(9), ink, 3
	p.Title.TextStyle.Font.Weight = bold
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		a.Color, a.Label.TextStyle.Color, a.Tick.Label.Color, a.Tick.Color = ink, ink, ink, ink
		a.Label.TextStyle.Font, a.Tick.Label.Font = sans(8), sans(8)
		a.Tick.Length, a.Padding = 3, 0
	}
	return p
}

// legend is what a colour stands for.
type legend struct {
	color color.Color
	says  string
}

// drawPlots writes the panels, below a title and a legend, as SVG.
func drawPlots(file, title string, entries []legend, plots []*plot.Plot, columns int, height vg.Length) error {
	rows := (len(plots) + columns - 1) / columns
	canvas := vgsvg.New(chartWidth, chartHead+vg.Length(rows)*height)
	all := draw.New(canvas)
	all.SetColor(color.White)
	all.Fill(all.Path())
	style := text.Style{Color: ink, Font: sans(11), Handler: plot.DefaultTextHandler, YAlign: text.YCenter}
	style.Font.Weight = bold
	y := all.Max.Y - 13
	all.FillText(style, vg.Point{X: 10, Y: y}, title)
	style.Font = sans(9)
	y -= 17
	x := vg.Length(10)
	for _, e := range entries {
		half := vg.Length(4)
		if e.color == ink {
			half = 0.4 // the thin line
		}
		all.FillPolygon(e.color, []vg.Point{{X: x, Y: y - half}, {X: x + 12, Y: y - half}, {X: x + 12, Y: y + half}, {X: x, Y: y + half}})
		all.FillText(style, vg.Point{X: x + 16, Y: y}, e.says)
		x += 16 + 1.2*style.Width(e.says) + 10
	}
	grid := make([][]*plot.Plot, rows)
	for i := range grid {
		grid[i] = make([]*plot.Plot, columns)
		for j := range columns {
			if n := i*columns + j; n < len(plots) {
				grid[i][j] = plots[n]
			}
		}
	}
	tiles := draw.Tiles{Rows: rows, Cols: columns, PadTop: chartHead, PadLeft: 22, PadRight: 12, PadBottom: 8, PadX: 24, PadY: 12}
	for i, row := range plot.Align(grid, tiles, all) {
		for j, c := range row {
			if grid[i][j] != nil {
				grid[i][j].Draw(c)
			}
		}
	}
	var svg bytes.Buffer
	if _, err := canvas.WriteTo(&svg); err != nil {
		return fmt.Errorf("ginlimit: %s: %w", file, err)
	}
	return os.WriteFile(file, PortableSVG(svg.Bytes()), 0o644)
}

const bold = 2 // golang.org/x/image/font.WeightBold

func sans(size vg.Length) font.Font {
	f := font.From(plot.DefaultFont, size)
	f.Variant = "Sans"
	return f
}
