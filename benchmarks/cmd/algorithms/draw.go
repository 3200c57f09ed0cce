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

// panel is what one algorithm did with the requests.
type panel struct {
	limiter
	outcome
}

// bin is how long the stretches of time are whose requests are counted together.
const bin = second / 2

// Sizes in points: 600 are the 800 pixels that a README is wide.
const (
	width  = 600
	head   = 46
	row    = 88
	margin = 8
)

// The colours are told apart also by who sees no red or green. benchmarks.PortableSVG turns them for a dark page.
var (
	white        = color.White
	ink          = color.Gray{0x24}
	grid         = color.Gray{0xe4}
	passedColor  = color.RGBA{0x2b, 0x6c, 0xb0, 0xff}
	heldColor    = color.RGBA{0xbc, 0xd8, 0xf2, 0xff}
	refusedColor = color.RGBA{0xf0, 0xa8, 0x6e, 0xff}
)

// drawSVG draws the panels of one kind of traffic one below the other, on one scale of time.
func drawSVG(t traffic, panels []panel) ([]byte, error) {
	plots := make([][]*plot.Plot, len(panels))
	for i, p := range panels {
		drawn, err := p.plot(t)
		if err != nil {
			return nil, err
		}
		if i == len(panels)-1 {
			drawn.X.Label.Text = "seconds since the first request"
			drawn.X.Tick.Marker = every(5)
		}
		plots[i] = []*plot.Plot{drawn}
	}
	c := vgsvg.New(width, vg.Length(head+row*len(panels)+14))
	all := draw.New(c)
	all.SetColor(white)
	all.Fill(all.Path())
	drawHead(all, t)
	tiles := draw.Tiles{Rows: len(panels), Cols: 1, PadY: 4, PadTop: head, PadLeft: margin, PadRight: 2 * margin, PadBottom: margin}
	for i, column := range plot.Align(plots, tiles, all) {
		plots[i][0].Draw(column[0])
	}
	var svg bytes.Buffer
	if _, err := c.WriteTo(&svg); err != nil {
		return nil, err
	}
	return benchmarks.PortableSVG(svg.Bytes()), nil
}

// plot draws the requests let through, the refused ones on top of them, and those offered as a line.
func (p panel) plot(t traffic) (*plot.Plot, error) {
	drawn := plot.New()
	drawn.BackgroundColor = nil
	drawn.X.Min, drawn.X.Max = 0, length.Seconds()
	drawn.Y.Min, drawn.Y.Max = 0, t.top
	drawn.Y.Label.Text = "requests/s"
	for _, a := range []*plot.Axis{&drawn.X, &drawn.Y} {
		a.Color, a.Label.TextStyle.Color, a.Tick.Label.Color, a.Tick.Color = ink, ink, ink, ink
		a.Label.TextStyle.Font, a.Tick.Label.Font = sans(8.5), sans(8.5)
		a.Tick.Length, a.Padding = 3, 0
	}
	drawn.X.Tick.Marker = unmarked(5)
	drawn.Y.Tick.Marker = every(t.mark)
	lines := plotter.NewGrid()
	lines.Horizontal.Color, lines.Vertical.Color = grid, grid

	passed, refused, offered := rates(p.passed), rates(p.refused), rates(p.offered)
	both := make([]float64, len(passed))
	for i := range both {
		both[i] = passed[i] + refused[i]
	}
	upper, err := area(both, passed, refusedColor)
	if err != nil {
		return nil, err
	}
	lower, err := area(passed, make([]float64, len(passed)), passedColor)
	if err != nil {
		return nil, err
	}
	held, err := area(offered, make([]float64, len(offered)), heldColor) // what the others leave of it
	if err != nil {
		return nil, err
	}
	line, err := plotter.NewLine(steps(offered))
	if err != nil {
		return nil, err
	}
	line.Width, line.Color = 0.9, ink
	label, err := p.label(t)
	if err != nil {
		return nil, err
	}
	drawn.Add(lines, held, upper, lower, line, label)
	return drawn, nil
}

// says is what matters most in the panel.
func (p panel) says() string {
	return fmt.Sprintf("let through %d of %d; at most %d in any 10 s, %d in any 2 s",
		len(p.passed), len(p.offered), most(p.passed, period), most(p.passed, 2*second))
}

// label writes above the panel what it is of, and what it says.
func (p panel) label(t traffic) (*plotter.Labels, error) {
	labels, err := plotter.NewLabels(plotter.XYLabels{
		XYs:    plotter.XYs{{X: 0, Y: t.top}, {X: length.Seconds(), Y: t.top}},
		Labels: []string{p.name, p.says()},
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

// drawHead writes the title and the legend above the panels.
func drawHead(c draw.Canvas, t traffic) {
	style := text.Style{Color: ink, Font: sans(11), Handler: plot.DefaultTextHandler, YAlign: text.YCenter}
	style.Font.Weight = bold
	y := c.Max.Y - 12
	c.FillText(style, vg.Point{X: margin, Y: y}, t.title)
	style.Font = sans(9)
	y -= 17
	x := vg.Length(margin)
	for _, entry := range []struct {
		color color.Color
		line  bool
		says  string
	}{
		{ink, true, "offered"}, {passedColor, false, "let through"}, {refusedColor, false, "refused"},
		{heldColor, false, "held, let through later"},
	} {
		if entry.line {
			c.StrokeLine2(draw.LineStyle{Color: entry.color, Width: 1}, x, y, x+14, y)
		} else {
			c.FillPolygon(entry.color, []vg.Point{{X: x, Y: y - 4}, {X: x + 14, Y: y - 4}, {X: x + 14, Y: y + 4}, {X: x, Y: y + 4}})
		}
		c.FillText(style, vg.Point{X: x + 18, Y: y}, entry.says)
		x += 18 + 1.2*style.Width(entry.says) + 10
	}
	style.XAlign = text.XRight
	c.FillText(style, vg.Point{X: c.Max.X - 2*margin, Y: y}, fmt.Sprintf("limit: %d requests in %d s", count, period/second))
}

const bold = 3 // golang.org/x/image/font.WeightBold

func sans(size vg.Length) font.Font {
	f := font.From(plot.DefaultFont, size)
	f.Variant = "Sans"
	return f
}

// rates returns how many requests a second came in each bin.
func rates(times []time.Duration) []float64 {
	n := make([]float64, length/bin)
	for _, t := range times {
		if t < length {
			n[t/bin] += float64(second / bin)
		}
	}
	return n
}

// steps returns the line that is at each value for a bin's time.
func steps(values []float64) plotter.XYs {
	var line plotter.XYs
	for i, v := range values {
		if i == 0 || v != values[i-1] {
			line = append(line, plotter.XY{X: bin.Seconds() * float64(i), Y: v})
		}
		if i == len(values)-1 || v != values[i+1] {
			line = append(line, plotter.XY{X: bin.Seconds() * float64(i+1), Y: v})
		}
	}
	return line
}

// area returns what lies between two lines of steps.
func area(upper, lower []float64, fill color.Color) (*plotter.Polygon, error) {
	outline, back := steps(upper), steps(lower)
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
		ticks[i].Label = " " // else it is a minor tick
	}
	return ticks
}
