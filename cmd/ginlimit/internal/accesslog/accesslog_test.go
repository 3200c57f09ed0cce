package accesslog

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
	"time"
	"unicode/utf8"
)

func TestTimes(t *testing.T) {
	c := clock{zone: time.UTC}
	for text, want := range map[string]string{
		"10/Oct/2000:13:55:36 -0700":         "2000-10-10T20:55:36Z",
		"10/Oct/2000:13:55:36":               "2000-10-10T13:55:36Z",
		"[10/Oct/2000:13:55:36 +0000]":       "2000-10-10T13:55:36Z",
		"2026-11-29T12:00:00Z":               "2026-11-29T12:00:00Z",
		"2026-11-29t12:00:00.5z":             "2026-11-29T12:00:00.5Z",
		"2026-11-29 12:00:00,123":            "2026-11-29T12:00:00.123Z",
		"2026-11-29 12:00:00.123456789 +01":  "2026-11-29T11:00:00.123456Z",
		"2026/11/29 12:00:00":                "2026-11-29T12:00:00Z",
		"2024-02-29T23:59:60+00:00":          "2024-03-01T00:00:00Z",
		"1646861401":                         "2022-03-09T21:30:01Z",
		"1646861401.5241024":                 "2022-03-09T21:30:01.524102Z",
		"1646861401524":                      "2022-03-09T21:30:01.524Z",
		"1646861401524102":                   "2022-03-09T21:30:01.524102Z",
		"1646861401524102400":                "2022-03-09T21:30:01.524102Z",
		"1.646861401e9":                      "2022-03-09T21:30:01Z",
		"":                                   "",
		"-":                                  "",
		"0":                                  "",
		"17":                                 "",
		"0001-01-01T00:00:00Z":               "",
		"2023-02-29T00:00:00Z":               "",
		"2026-11-29T24:00:00Z":               "",
		"2026-11-29T12:00:00.Z":              "",
		"2026-11-29T12:00:00 CET":            "",
		"29/Now/2026:12:00:00 +0000":         "",
		"29/Nov/2026:12:00:00 +00x0":         "",
		"99999999999999999999999999":         "",
		"31/Dec/9998:23:59:59 -2359":         "9999-01-01T23:58:59Z",
		"01/Jan/9999:00:00:00 +0000":         "", // west of Greenwich that may be the year 10000 in UTC
		"1e300":                              "",
		"29/Nov/2026:12:00:00 +0000trailing": "",
	} {
		us, ok := c.any([]byte(text))
		got := ""
		if ok {
			got = time.UnixMicro(us).UTC().Format(time.RFC3339Nano)
		}
		if got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

// When the clocks go back an hour is written twice, and when they go forward one is missing.
func TestSummerTime(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Skip("no zones on this system:", err)
	}
	p := New("gin", Options{Zone: berlin})
	var last time.Time
	for _, step := range []struct{ written, want string }{
		{"2026/10/25 - 01:59:50", "2026-10-24T23:59:50Z"},
		{"2026/10/25 - 02:00:00", "2026-10-25T00:00:00Z"},
		{"2026/10/25 - 02:59:59", "2026-10-25T00:59:59Z"},
		{"2026/10/25 - 02:59:58", "2026-10-25T00:59:58Z"}, // a little out of order
		{"2026/10/25 - 02:00:00", "2026-10-25T01:00:00Z"}, // an hour later
		{"2026/10/25 - 02:30:00", "2026-10-25T01:30:00Z"},
		{"2026/10/25 - 02:59:59", "2026-10-25T01:59:59Z"},
		{"2026/10/25 - 03:00:00", "2026-10-25T02:00:00Z"},
		{"2027/03/28 - 01:59:59", "2027-03-28T00:59:59Z"},
		{"2027/03/28 - 03:00:00", "2027-03-28T01:00:00Z"},
	} {
		var e Entry
		if err := p.Parse(fmt.Appendf(nil, `[GIN] %s | 200 | 1ms | 203.0.113.7 | GET "/"`, step.written), &e); err != nil {
			t.Fatal(err)
		}
		if got := time.UnixMicro(e.Time).UTC(); got.Format(time.RFC3339) != step.want {
			t.Errorf("%s after %v: got %v, want %s", step.written, last, got, step.want)
		} else {
			last = got
		}
	}
}

func TestNamedFields(t *testing.T) {
	p := New("json", Options{Time: "when", Key: "who.id", Cost: "tokens", Path: "where", Status: "code", Method: "how", Duration: "took_ms", Addr: "from"})
	var e Entry
	if err := p.Parse([]byte(`{"when":"2026-11-29T12:00:00Z","who":{"id":"alice","key":1},"tokens":2.5,"where":"/x?y","code":201,"how":"PUT",
		"took_ms":1.5,"from":"198.51.100.1, 203.0.113.7","time":1}`), &e); err != nil {
		t.Fatal(err)
	}
	got := lineOf(&e)
	want := line{Time: "2026-11-29T12:00:00Z", Key: "alice", Cost: 3, Target: "/x?y", Path: "/x", Status: 201, Method: "PUT",
		DurationMicroseconds: 1500, Addr: "203.0.113.7", Bytes: -1}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for _, bad := range []string{`{"when":1795953602}`, `{"when":1795953602,"tokens":-1}`, `{"when":1795953602,"tokens":"x"}`,
		`{"when":1795953602,"tokens":null}`, `{"time":1795953602,"tokens":1}`, `{"when":1795953602,"tokens":1e30}`} {
		if err := p.Parse([]byte(bad), &e); err == nil {
			t.Errorf("%s is read as %+v", bad, lineOf(&e))
		}
	}
	if err := p.Parse([]byte(`{"when":1795953602,"tokens":"7","who.id":"flat"}`), &e); err != nil || e.Cost != 7 || string(e.Key) != "flat" {
		t.Errorf("got %v, %+v", err, lineOf(&e))
	}
}

const someLine = `203.0.113.7 - - [29/Nov/2026:12:00:00 +0000] "GET / HTTP/1.1" 200 5 "-" "curl/8"`

func count(t *testing.T, name string, src io.Reader) *Reader {
	t.Helper()
	r, err := NewReader(name, src, "auto", Options{})
	if err != nil {
		t.Fatal(err)
	}
	for {
		var e Entry
		if err := r.Next(&e); errors.Is(err, io.EOF) {
			return r
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func TestReader(t *testing.T) {
	long := strings.Repeat("x", 3<<20)
	text := "\xef\xbb\xbf" + someLine + "\r\n\r\n\n" + someLine + "\n" + long + "\n" + someLine + "\nbad\n" + someLine // no end of line
	check := func(r *Reader) {
		t.Helper()
		if r.Lines != 6 || r.Bad != 2 || len(r.First) != 2 || r.First[0].Line != 5 || r.First[0].Why != errLong.Error() || r.First[1].Text != "bad" ||
			len(r.First[0].Text) > 210 {
			t.Errorf("got %d lines, %d bad, %+v", r.Lines, r.Bad, r.First)
		}
	}
	check(count(t, "plain", strings.NewReader(text)))
	check(count(t, "slow", iotest.HalfReader(strings.NewReader(text))))
	check(count(t, "data with its end", iotest.DataErrReader(strings.NewReader(text))))
	var zipped bytes.Buffer
	for _, half := range []string{text[:1000], text[1000:]} { // two members, as of appended files
		z := gzip.NewWriter(&zipped)
		_, _ = io.WriteString(z, half)
		_ = z.Close()
	}
	check(count(t, "gzip", bytes.NewReader(zipped.Bytes())))

	cut := zipped.Bytes()[:zipped.Len()-20]
	r, err := NewReader("cut.gz", bytes.NewReader(cut), "combined", Options{})
	for err == nil {
		var e Entry
		err = r.Next(&e)
	}
	if !strings.HasPrefix(err.Error(), "ginlimit: cut.gz is cut off") {
		t.Errorf("got %v", err)
	}
}

func TestReaderRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"":                        "ginlimit: a.log is empty",
		"\n\n":                    "ginlimit: a.log is empty",
		"\xff\xfe2\x000\x003\x00": "is UTF-16; use iconv -f UTF-16 -t UTF-8 a.log | ginlimit replay",
		"\xfe\xff\x002\x000\x003": "is UTF-16",
		"\x28\xb5\x2f\xfd......":  "use zstd -dc a.log | ginlimit replay",
		"BZh9......":              "use bzip2 -dc",
		"\xfd7zXZ\x00..":          "use xz -dc",
		"PK\x03\x04....":          "use unzip -p",
		"\x1f\x8b......":          "begins as gzip does",
		"what is this?\nI wonder": `its first line is "what is this?"; name the format by -format`,
	} {
		if _, err := NewReader("a.log", strings.NewReader(text), "auto", Options{}); err == nil || !strings.Contains(err.Error(), want) ||
			!strings.HasPrefix(err.Error(), "ginlimit: ") {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
	}
	if _, err := NewReader("a.log", strings.NewReader(someLine), "iis", Options{}); err == nil ||
		err.Error() != `ginlimit: no format is called "iis"; use auto, combined, gin, envoy, json` {
		t.Error(err)
	}
	if _, err := NewReader("a.log", iotest.ErrReader(errors.New("broken")), "auto", Options{}); err == nil || !strings.Contains(err.Error(), "broken") {
		t.Error(err)
	}
}

// A line costs no memory.
func TestParseAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for format, text := range map[string]string{
		"combined": someLine,
		"envoy":    `[2016-04-15T20:17:00.310Z] "POST /api/v1/locations HTTP/2" 204 - 154 0 226 100 "10.0.35.28" "nsq2http" "cc21" "l" "t"`,
		"json":     `{"ts":1646861401.5241024,"request":{"client_ip":"203.0.113.7","uri":"/","headers":{"User-Agent":["curl"]}},"status":200}`,
	} {
		p := New(format, Options{})
		var e Entry
		data := []byte(text)
		if n := testing.AllocsPerRun(100, func() {
			if err := p.Parse(data, &e); err != nil {
				t.Fatal(err)
			}
		}); n > 0 {
			t.Errorf("%s: %v allocations", format, n)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{someLine, `[GIN] 2026/11/29 - 12:00:00 | 200 | 1ms | ::1 | GET "/\"x\\"`,
		`[2016-04-15T20:17:00.310Z] "POST / HTTP/2" 204 - via - "-" 0 145 8 7 "-" "a" "b" "c" "d" e f g 10.1.0.9:60378 h`,
		`{"ts":1.5e9,"request":{"client_ip":["203.0.113.7"],"uri":"/\u00e9\ud83d\ude00\x22"}}`,
		`a:1 ::1 - j s [29/Nov/2026:12:00:00 +0000] "\x16" 400 - "\"" "" 12ms`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, name := range Formats() {
			p := New(name, Options{Field: "User-Agent", Header: true, Cost: "bytes"})
			var first, second Entry
			err := p.Parse(data, &first)
			if err != nil {
				continue
			}
			if first.Time < 365*day || first.Cost < 0 || first.Duration < -1 || first.Status < 0 || first.Status > 999 {
				t.Errorf("%s: %+v", name, first)
			}
			got := lineOf(&first)
			if err := p.Parse(data, &second); err != nil || lineOf(&second) != got {
				t.Errorf("%s: %+v the second time, %+v the first", name, lineOf(&second), got)
			}
		}
	})
}

// FuzzJSON holds the scanner to encoding/json: what is JSON is read, and its texts are the same.
func FuzzJSON(f *testing.F) {
	f.Add([]byte(`{"a":"\u00e9\ud83d\ude00\n\/","b":{"c":[1,{"d":2}]},"e":null}`))
	f.Add([]byte(`{"a":{"a":"x"},"b":-1.5e+3,"a":["y"]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var want map[string]any
		if json.Unmarshal(data, &want) != nil || want == nil || !utf8.Valid(data) {
			return
		}
		for name, v := range want {
			text, ok := v.(string)
			if !ok || strings.Contains(name, ".") || name == "" || strings.Contains(string(data), `\u`) && !utf8.ValidString(text) {
				continue
			}
			p := newJSONLines(Options{Key: name})
			s := scanner{b: bytes.TrimSpace(data), buf: &p.buf}
			if !s.object(&p.root, 0) || s.i != len(s.b) {
				t.Fatalf("%q is JSON", data)
			}
			if got := p.values[fKey][0]; string(got.text) != text {
				t.Errorf("%q of %q: got %q, want %q", name, data, got.text, text)
			}
		}
	})
}

// FuzzTime holds the times to package time.
func FuzzTime(f *testing.F) {
	f.Add(int64(1795953602), int64(123456), 90)
	f.Fuzz(func(t *testing.T, sec, us int64, zone int) {
		if sec < 366*24*3600 || sec > 253370764799-24*3600 || us < 0 || us > 999999 || zone <= -24*60 || zone >= 24*60 {
			return
		}
		at := time.Unix(sec, us*1000).In(time.FixedZone("", zone*60))
		c := clock{zone: time.UTC}
		if got, ok := c.any([]byte(at.Format(time.RFC3339Nano))); !ok || got != at.UnixMicro() {
			t.Errorf("%v: got %v, %v", at, time.UnixMicro(got), ok)
		}
		whole := at.Truncate(time.Second)
		for range 2 { // also by heart
			if got, ok := c.any([]byte(at.Format("02/Jan/2006:15:04:05 -0700"))); !ok || got != whole.UnixMicro() {
				t.Errorf("%v: got %v, %v", whole, time.UnixMicro(got), ok)
			}
		}
	})
}

func BenchmarkParse(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 2))
	var combinedLines, caddyLines [][]byte
	for i := range 1000 {
		at := time.Unix(1795953602+int64(i/50), rng.Int64N(1e9)).UTC()
		combinedLines = append(combinedLines, fmt.Appendf(nil, `203.0.%d.%d - - [%s] "GET /api/items/%d?page=2 HTTP/1.1" 200 %d "https://example.com/shop" `+
			`"Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"`, rng.IntN(256), rng.IntN(256),
			at.Format("02/Jan/2006:15:04:05 -0700"), rng.IntN(100), rng.IntN(9000)))
		caddyLines = append(caddyLines, fmt.Appendf(nil, `{"level":"info","ts":%d.%06d,"logger":"http.log.access","msg":"handled request","request":{"remote_ip":`+
			`"203.0.%d.%d","remote_port":"41342","proto":"HTTP/2.0","method":"GET","host":"localhost","uri":"/api/items/%d","headers":{"User-Agent":`+
			`["curl/7.82.0"],"Accept":["*/*"]}},"user_id":"","duration":0.000929675,"size":10900,"status":200,"resp_headers":{"Server":["Caddy"]}}`,
			at.Unix(), at.Nanosecond()/1000, rng.IntN(256), rng.IntN(256), rng.IntN(100)))
	}
	for name, lines := range map[string][][]byte{"combined": combinedLines, "json": caddyLines} {
		b.Run(name, func(b *testing.B) {
			p := New(name, Options{})
			var e Entry
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if err := p.Parse(lines[i%len(lines)], &e); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "lines/s")
		})
	}
}
