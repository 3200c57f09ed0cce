package benchmarks

import (
	"encoding/xml"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"gonum.org/v1/plot"
)

// TestPicturesFitAnyFont holds each text of a picture, of one drawn now and of those in docs/, to
// an anchor and a length: without them a wider font than that of the layout runs over what stands
// beside it.
func TestPicturesFitAnyFont(t *testing.T) {
	p := newPlot()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = "a title", "x", "y"
	p.X.Max, p.Y.Max = 1, 1
	now := filepath.Join(t.TempDir(), "now.svg")
	if err := drawPlots(now, "a & b", []legend{{ink, "a legend"}}, []*plot.Plot{p}, 1, 100); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("../docs/*/*.svg")
	if err != nil || len(files) < 10 {
		t.Fatal(files, err)
	}
	for _, file := range append(files, now) {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var svg struct {
			Style string `xml:"style"`
			Group struct {
				Texts []svgText `xml:"text"`
				Inner []struct {
					Texts []svgText `xml:"text"`
				} `xml:"g"`
			} `xml:"g"`
		}
		if err := xml.Unmarshal(data, &svg); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		texts := svg.Group.Texts
		for _, inner := range svg.Group.Inner {
			texts = append(texts, inner.Texts...)
		}
		if len(texts) < 5 || !strings.Contains(svg.Style, "prefers-color-scheme: dark") {
			t.Errorf("%s: %d texts, style %q", file, len(texts), svg.Style)
		}
		for _, text := range texts {
			length, _ := strconv.ParseFloat(text.Length, 64)
			if strings.TrimSpace(text.Says) != "" && (length <= 0 || text.Anchor == "") || strings.ContainsAny(text.Says, "\uE000\uE001") {
				t.Errorf("%s: %+v", file, text)
			}
		}
	}
}

type svgText struct {
	Anchor string `xml:"text-anchor,attr"`
	Length string `xml:"textLength,attr"`
	Says   string `xml:",chardata"`
}
