package benchmarks

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
)

// Not everybody has the font that the pictures are laid out in. gonum writes where each text
// begins, so that in a wider font a label on the left of its bar runs into it. So each text has its
// anchor and its length in the picture.
func init() {
	plot.DefaultTextHandler = fitted{plot.DefaultTextHandler.(text.Plain)}
}

// fitted is text.Plain that puts the anchor and the length of a line in front of it, for
// PortableSVG.
type fitted struct{ text.Plain }

// Draw implements text.Handler.
func (f fitted) Draw(c vg.Canvas, line string, style text.Style, at vg.Point) {
	anchor := "start"
	switch style.XAlign {
	case text.XCenter:
		anchor = "middle"
	case text.XRight:
		anchor = "end"
	}
	if strings.TrimSpace(line) != "" { // the label " " makes a tick a major one
		line = fmt.Sprintf("\uE000%s,%.2f\uE001%s", anchor, style.Width(line).Points(), line)
	}
	style.XAlign = text.XLeft
	f.Plain.Draw(c, line, style, at)
}

var fitting = regexp.MustCompile("(<text [^>]*)>\uE000(\\w+),([\\d.]+)\uE001")

// dark is the picture for readers whose pages are dark. The colours are those of the pictures of
// this module.
const dark = `<style>@media (prefers-color-scheme: dark) {
	path[style*="fill:#FFFFFF"] { fill: #0d1117 !important }
	[style*="fill:#242424"] { fill: #e6edf3 !important }
	[style*="stroke:#242424"] { stroke: #e6edf3 !important }
	[style*="stroke:#E4E4E4"] { stroke: #30363d !important }
	[style*="fill:#2B6CB0"] { fill: #4a95e0 !important }
	[style*="stroke:#2B6CB0"] { stroke: #4a95e0 !important }
	[style*="fill:#9CC3E6"], [style*="fill:#BCD8F2"] { fill: #2a5583 !important }
	[style*="fill:#B8B8B8"] { fill: #7d8590 !important }
	[style*="fill:#6B5B1E"] { fill: #c9b458 !important }
	[style*="stroke:#6B5B1E"] { stroke: #c9b458 !important }
}</style>
`

// PortableSVG returns a picture of gonum's that looks alike whatever fonts its reader has, on a
// light page and on a dark one.
func PortableSVG(svg []byte) []byte {
	svg = fitting.ReplaceAll(svg, []byte(`$1 text-anchor="$2" textLength="$3" lengthAdjust="spacingAndGlyphs">`))
	svg = bytes.ReplaceAll(svg, []byte("font-family:Liberation Sans;"), []byte("font-family:Liberation Sans,Arial,Helvetica,sans-serif;"))
	return bytes.Replace(svg, []byte("\n<g "), []byte("\n"+dark+"<g "), 1)
}
