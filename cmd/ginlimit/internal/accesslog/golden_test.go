package accesslog

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files anew; read what changed")

// line is an entry as a golden file has it.
type line struct {
	Time                              string
	Addr, User, Method, Target, Path  string `json:",omitempty"`
	Referer, Agent                    string `json:",omitempty"`
	Key, Outcome, Limiter, Field      string `json:",omitempty"`
	Status                            int    `json:",omitempty"`
	Bytes, DurationMicroseconds, Cost int64
}

// The logs in testdata are by hand, from what the servers' documentation shows, and recorded.…log
// was written by real servers: see record.sh.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.log*")
	more, _ := filepath.Glob("testdata/*.jsonl")
	files = append(files, more...)
	if err != nil || len(files) < 7 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, ".golden") {
			continue
		}
		t.Run(filepath.Base(file), func(t *testing.T) {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var got bytes.Buffer
			r, err := NewReader(filepath.Base(file), bytes.NewReader(content), "auto", Options{Field: "X-Api-Key", Header: true})
			if err != nil {
				t.Fatal(err)
			}
			e := json.NewEncoder(&got)
			e.SetEscapeHTML(false)
			encode := func(v any) {
				if err := e.Encode(v); err != nil {
					t.Fatal(err)
				}
			}
			encode(map[string]string{"format": r.Format})
			for {
				var entry Entry
				if err := r.Next(&entry); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Fatal(err)
				}
				encode(lineOf(&entry))
			}
			for _, bad := range r.First {
				encode(bad)
			}
			encode(map[string]int64{"lines": r.Lines, "bad": r.Bad, "skipped": r.Skipped})
			golden := file + ".golden"
			if *update {
				if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(want, got.Bytes()) {
				t.Errorf("got\n%s\nwant\n%s", got.Bytes(), want)
			}
		})
	}
}

func lineOf(e *Entry) line {
	return line{Time: time.UnixMicro(e.Time).UTC().Format(time.RFC3339Nano), Addr: string(e.Addr), User: string(e.User), Method: string(e.Method),
		Target: string(e.Target), Path: string(e.Path()), Referer: string(e.Referer), Agent: string(e.Agent), Key: string(e.Key),
		Outcome: string(e.Outcome), Limiter: string(e.Limiter), Field: string(e.Field), Status: e.Status, Bytes: e.Bytes,
		DurationMicroseconds: e.Duration, Cost: e.Cost}
}
