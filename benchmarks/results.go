package benchmarks

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/ginlimit/ginlimit/internal/testserver"
)

// Results are what a run found: the content of results.json.
type Results struct {
	Machine  Machine           `json:"machine"`
	Rounds   int               `json:"rounds"`
	Length   string            `json:"length"` // of one measurement in the process
	Keys     int               `json:"keys"`   // of the limiters that know many
	Took     string            `json:"took"`
	Versions map[string]string `json:"versions"` // of modules, by path
	Figures  []Figure          `json:"figures"`
}

// Machine is where a run was made.
type Machine struct {
	Date   string `json:"date"`
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Memory string `json:"memory"`
	OS     string `json:"os"`
	Go     string `json:"go"`
	Redis  string `json:"redis"`
	Load   string `json:"load"` // average of the last minute when the run began
}

// Figure is one measured quantity.
type Figure struct {
	Section string    `json:"section"`
	Case    string    `json:"case"`
	Name    string    `json:"name"` // of the candidate
	Metric  string    `json:"metric"`
	X       float64   `json:"x,omitempty"` // the number of keys, goroutines, … where growth is measured
	Median  float64   `json:"median"`
	Min     float64   `json:"min"`
	Max     float64   `json:"max"`
	Rounds  []float64 `json:"rounds"`
	Note    string    `json:"note,omitempty"`
}

// id is what no two figures share.
type id struct {
	section, of, name, metric string
	x                         float64
}

func (r *Results) summarise() {
	for i := range r.Figures {
		f := &r.Figures[i]
		sorted := slices.Sorted(slices.Values(f.Rounds))
		n := len(sorted)
		f.Median, f.Min, f.Max = (sorted[(n-1)/2]+sorted[n/2])/2, sorted[0], sorted[n-1]
	}
}

// Find returns a figure, or nil if it was not measured.
func (r *Results) Find(section, of, name, metric string) *Figure {
	for i, f := range r.Figures {
		if f.Section == section && f.Case == of && f.Name == name && f.Metric == metric {
			return &r.Figures[i]
		}
	}
	return nil
}

// Select returns the figures of all candidates, in the order in which they were measured.
func (r *Results) Select(section, of, metric string) []Figure {
	var figures []Figure
	for _, f := range r.Figures {
		if f.Section == section && f.Case == of && f.Metric == metric {
			figures = append(figures, f)
		}
	}
	return figures
}

// Merge puts the sections of newer in place of those that r has.
func (r *Results) Merge(newer *Results) {
	sections := map[string]bool{}
	for _, f := range newer.Figures {
		sections[f.Section] = true
	}
	r.Figures = append(slices.DeleteFunc(r.Figures, func(f Figure) bool { return sections[f.Section] }), newer.Figures...)
}

// Load reads results.json.
func Load(file string) (*Results, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	r := new(Results)
	return r, json.Unmarshal(data, r)
}

// Save writes results.json.
func (r *Results) Save(file string) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	// A figure a line, so that two runs can be compared.
	text := strings.NewReplacer(`{"section"`, "\n{\"section\"", `"figures":[`, "\n\"figures\":[", `"versions"`, "\n\"versions\"").Replace(string(data))
	return os.WriteFile(file, []byte(text+"\n"), 0o644)
}

func machine(server *testserver.Server) Machine {
	read := func(file, pattern string) string {
		data, _ := os.ReadFile(file)
		if m := regexp.MustCompile(pattern).FindSubmatch(data); m != nil {
			return strings.TrimSpace(string(m[1]))
		}
		return "unknown"
	}
	m := Machine{
		Date:   time.Now().UTC().Format(time.DateOnly),
		CPU:    read("/proc/cpuinfo", `model name\s*:(.*)`),
		Cores:  runtime.NumCPU(),
		Memory: read("/proc/meminfo", `MemTotal:(.*)`),
		OS:     runtime.GOOS + "/" + runtime.GOARCH + " " + read("/proc/sys/kernel/osrelease", `(.*)`),
		Go:     runtime.Version(),
		Redis:  server.Info("server", "redis_version"),
		Load:   read("/proc/loadavg", `(\S+)`),
	}
	if read("/proc/cpuinfo", `flags.* (hypervisor)`) == "hypervisor" {
		m.CPU += ", a virtual machine"
	}
	var kB int
	if _, err := fmt.Sscanf(m.Memory, "%d kB", &kB); err == nil {
		m.Memory = fmt.Sprintf("%d GB", (kB+1<<19)>>20)
	}
	return m
}

func versions() map[string]string {
	found := map[string]string{}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			for _, n := range about {
				if n.module == d.Path {
					found[d.Path] = d.Version
				}
			}
		}
	}
	return found
}
