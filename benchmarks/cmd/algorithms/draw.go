package main

import (
	"bytes"
	"fmt"
	"image/color"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/ginlimit/ginlimit/benchmarks"
)

// sheet is a picture: panels one below the other, on one scale of time.
type sheet struct {
	file, title string
	note        string // on the right, above the panels
	legend      []entry
	scale
	axis      string  // of the values
	top, mark float64 // the end of the values' scale, and how far apart its numbers are
	panels    []panel
}

// scale is that of time.
type scale struct {
	length time.Duration
	bin    time.Duration // how long the stretches of time are of which each has a value
	unit   time.Duration
	says   string  // what the numbers are
	every  float64 // units between two of them
}

// entry is one of a legend.
type entry struct {
	color color.Color
	line  bool
	says  string
}

// panel has a value for each bin and layer. Layers are stacked, the first at the bottom.
type panel struct {
	name, says string
	layers     []layer
	line       []float64
}

type layer struct {
	color  color.Color
	values []float64
}

// Sizes in points: 600 are the 800 pixels that a README is wide.
const (
	width  = 600
	head   = 46
	row    = 88
	margin = 8
)

// The colours are told apart also by a reader that sees no red or green. benchmarks.PortableSVG
// turns them for a dark page.
var (
	white        = color.White
	ink          = color.Gray{0x24}
	grid         = color.Gray{0xe4}
	passedColor  = color.RGBA{0x2b, 0x6c, 0xb0, 0xff}
	heldColor    = color.RGBA{0xbc, 0xd8, 0xf2, 0xff}
	refusedColor = color.RGBA{0xf0, 0xa8, 0x6e, 0xff}
	bannedColor  = color.RGBA{0xb0, 0x3a, 0x2e, 0xff}
)

func (s sheet) draw() ([]byte, error) {
	plots := make([][]*plot.Plot, len(s.panels))
	for i, p := range s.panels {
		drawn, err := s.plot(p)
		if err != nil {
			return nil, err
		}
		if i == len(s.panels)-1 {
			drawn.X.Label.Text = s.says
			drawn.X.Tick.Marker = every(s.every)
		}
		plots[i] = []*plot.Plot{drawn}
	}
	c := vgsvg.New(width, vg.Length(head+row*len(s.panels)+14))
	all := draw.New(c)
	all.SetColor(white)
	all.Fill(all.Path())
	s.drawHead(all)
	tiles := draw.Tiles{Rows: len(s.panels), Cols: 1, PadY: 4, PadTop: head, PadLeft: margin, PadRight: 2 * margin, PadBottom: margin}
	for i, column := range plot.Align(plots, tiles, all) {
		plots[i][0].Draw(column[0])
	}
	var svg bytes.Buffer
	if _, err := c.WriteTo(&svg); err != nil {
		return nil, err
	}
	return benchmarks.PortableSVG(svg.Bytes()), nil
}

// units returns how long a time is on the scale.
func (s scale) units(d time.Duration) float64 { return float64(d) / float64(s.unit) }

// plot draws the layers of a panel, and its line on top of them.
func (s sheet) plot(p panel) (*plot.Plot, error) {
	drawn := plot.New()
	drawn.BackgroundColor = nil
	drawn.X.Min, drawn.X.Max = 0, s.units(s.length)
	drawn.Y.Min, drawn.Y.Max = 0, s.top
	drawn.Y.Label.Text = s.axis
	for _, a := range []*plot.Axis{&drawn.X, &drawn.Y} {
		a.Color, a.Label.TextStyle.Color, a.Tick.Label.Color, a.Tick.Color = ink, ink, ink, ink
		a.Label.TextStyle.Font, a.Tick.Label.Font = sans(8.5), sans(8.5)
		a.Tick.Length, a.Padding = 3, 0
	}
	drawn.X.Tick.Marker = unmarked(s.every)
	drawn.Y.Tick.Marker = every(s.mark)
	lines := plotter.NewGrid()
	lines.Horizontal.Color, lines.Vertical.Color = grid, grid
	drawn.Add(lines)

	lower := make([]float64, s.length/s.bin)
	for _, l := range p.layers {
		upper := make([]float64, len(lower))
		for i := range upper {
			upper[i] = lower[i] + l.values[i]
		}
		area, err := s.area(upper, lower, l.color)
		if err != nil {
			return nil, err
		}
		drawn.Add(area)
		lower = upper
	}
	line, err := plotter.NewLine(s.steps(p.line))
	if err != nil {
		return nil, err
	}
	line.Width, line.Color = 0.9, ink
	label, err := s.label(p)
	if err != nil {
		return nil, err
	}
	drawn.Add(line, label)
	return drawn, nil
}

// label writes above the panel what it is of, and what it says.
func (s sheet) label(p panel) (*plotter.Labels, error) {
	labels, err := plotter.NewLabels(plotter.XYLabels{
		XYs:    plotter.XYs{{X: 0, Y: s.top}, {X: s.units(s.length), Y: s.top}},
		Labels: []string{p.name, p.says},
	})
	if err != nil {
		return nil, err
	}
	for i := range labels.TextStyle {
		style := &labels.TextStyle[i]
		style.Font, style.Color, style.YAlign = sans(9), ink, text.YBottom
	}
	labels.TextStyle[0].Font.Weight = bold
	labels.TextStyle[1].XAlign = text.XRight
	labels.Offset.Y = 2
	return labels, nil
}

// drawHead writes the title, the legend and the note above the panels.
func (s sheet) drawHead(c draw.Canvas) {
	style := text.Style{Color: ink, Font: sans(11), Handler: plot.DefaultTextHandler, YAlign: text.YCenter}
	style.Font.Weight = bold
	y := c.Max.Y - 12
	c.FillText(style, vg.Point{X: margin, Y: y}, s.title)
	style.Font = sans(9)
	y -= 17
	x := vg.Length(margin)
	for _, e := range s.legend {
		if e.line {
			c.StrokeLine2(draw.LineStyle{Color: e.color, Width: 1}, x, y, x+14, y)
		} else {
			c.FillPolygon(e.color, []vg.Point{{X: x, Y: y - 4}, {X: x + 14, Y: y - 4}, {X: x + 14, Y: y + 4}, {X: x, Y: y + 4}})
		}
		c.FillText(style, vg.Point{X: x + 18, Y: y}, e.says)
		x += 18 + 1.2*style.Width(e.says) + 10
	}
	style.XAlign = text.XRight
	c.FillText(style, vg.Point{X: c.Max.X - 2*margin, Y: y}, s.note)
}

const bold = 3 // golang.org/x/image/font.WeightBold

func sans(size vg.Length) font.Font {
	f := font.From(plot.DefaultFont, size)
	f.Variant = "Sans"
	return f
}

// rates returns how many requests a unit of time came in each bin.
func (s scale) rates(times []time.Duration) []float64 {
	n := make([]float64, s.length/s.bin)
	for _, t := range times {
		if t < s.length {
			n[t/s.bin] += s.units(s.unit) / s.units(s.bin)
		}
	}
	return n
}

// steps returns the line that is at each value for a bin's time.
func (s scale) steps(values []float64) plotter.XYs {
	var line plotter.XYs
	for i, v := range values {
		if i == 0 || v != values[i-1] {
			line = append(line, plotter.XY{X: s.units(s.bin) * float64(i), Y: v})
		}
		if i == len(values)-1 || v != values[i+1] {
			line = append(line, plotter.XY{X: s.units(s.bin) * float64(i+1), Y: v})
		}
	}
	return line
}

// area returns what lies between two lines of steps.
func (s scale) area(upper, lower []float64, fill color.Color) (*plotter.Polygon, error) {
	outline, back := s.steps(upper), s.steps(lower)
	for i := len(back) - 1; i >= 0; i-- {
		outline = append(outline, back[i])
	}
	a, err := plotter.NewPolygon(outline)
	if err != nil {
		return nil, err
	}
	a.Color, a.Width = fill, 0
	return a, nil
}

// every marks an axis at the multiples of a number.
type every float64

// Ticks implements plot.Ticker.
func (e every) Ticks(from, to float64) []plot.Tick {
	var ticks []plot.Tick
	for v := from; v <= to; v += float64(e) {
		ticks = append(ticks, plot.Tick{Value: v, Label: fmt.Sprint(v)})
	}
	return ticks
}

// unmarked is every without the numbers.
type unmarked float64

// Ticks implements plot.Ticker.
func (u unmarked) Ticks(from, to float64) []plot.Tick {
	ticks := every(u).Ticks(from, to)
	for i := range ticks {
		ticks[i].Label = " " // otherwise it is a minor tick
	}
	return ticks
}
