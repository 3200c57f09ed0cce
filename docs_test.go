package ginlimit_test

import (
	"context"
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/memory"
	"github.com/ginlimit/ginlimit/backend/redis"
	"github.com/ginlimit/ginlimit/internal/testserver"
)

// documented are the packages that users import, by their directory, and the functions of each that
// need no example: they are for those who write a backend, and CONTRIBUTING.md says how.
var documented = map[string][]string{
	".":              nil,
	"backend":        nil,
	"backend/memory": nil,
	"backend/postgres": {"WithLogged", "WithLogger", "WithSchema", "WithTable",
		"WithTimeout"}, // ExampleMigrate has all
	"backend/goredis":     {"WithDenyCache", "WithLogger", "WithPrefix", "WithTimeout"}, // those of backend/redis
	"backend/redis":       nil,
	"backend/backendtest": {"Crowd", "Run"}, // tests call them, not a program
	"contrib/otel":        nil,
	"contrib/prometheus":  nil,
	"contrib/console":     nil,
	"lua":                 {"Ban", "QuickTake", "QuickTakeAll", "Renew", "Settle", "Take", "TakeAll"},
}

// TestDocumented holds every exported function, method and type to a comment that begins with its
// name, every other exported name to a comment, and every function that an application calls, and
// the methods of Limiter and Decision, to an example.
func TestDocumented(t *testing.T) {
	for dir, exempt := range documented {
		d := docOf(t, dir)
		names := 0
		commented := func(name, text string) {
			names++
			words := strings.Fields(text)
			if len(words) > 1 && slices.Contains([]string{"A", "An", "The"}, words[0]) {
				words = words[1:]
			}
			short := name[strings.LastIndexByte(name, '.')+1:]
			if len(words) == 0 || strings.TrimRight(words[0], ",:") != short {
				t.Errorf("%s: the comment of %s does not begin with its name: %.60q", dir, name, text)
			}
		}
		funcs := func(receiver string, all []*doc.Func) {
			for _, f := range all {
				if !ast.IsExported(f.Name) {
					continue
				}
				name := receiver + f.Name
				commented(name, f.Doc)
				called := receiver == "" || slices.Contains([]string{"Limiter.", "Decision."}, receiver)
				if called && len(f.Examples) == 0 && !slices.Contains(exempt, name) {
					t.Errorf("%s: %s has no example", dir, name)
				}
			}
		}
		funcs("", d.Funcs)
		for _, ty := range d.Types {
			commented(ty.Name, ty.Doc)
			funcs("", ty.Funcs)
			funcs(ty.Name+".", ty.Methods)
			values(t, dir, ty.Consts)
			values(t, dir, ty.Vars)
		}
		values(t, dir, d.Consts)
		values(t, dir, d.Vars)
		if !strings.HasPrefix(d.Doc, "Package "+d.Name+" ") {
			t.Errorf("%s: the comment of the package does not begin with its name: %.60q", dir, d.Doc)
		}
		if names == 0 {
			t.Errorf("%s: no exported name was found", dir)
		}
	}
}

// values holds each exported constant and variable to a comment, of its own or of its group.
func values(t *testing.T, dir string, groups []*doc.Value) {
	for _, group := range groups {
		for _, spec := range group.Decl.Specs {
			s := spec.(*ast.ValueSpec)
			for _, name := range s.Names {
				if name.IsExported() && group.Doc == "" && s.Doc.Text() == "" && s.Comment.Text() == "" {
					t.Errorf("%s: %s has no comment", dir, name)
				}
			}
		}
	}
}

// docOf returns the documentation of a package, with its examples.
func docOf(t *testing.T, dir string) *doc.Package {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	fset := token.NewFileSet()
	var files []*ast.File
	for _, path := range paths {
		f, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	d, err := doc.NewFromFiles(fset, files, "github.com/ginlimit/ginlimit/"+dir)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// pages returns every page that users read.
func pages(t *testing.T) []string {
	t.Helper()
	all := []string{"README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "_example/README.md",
		"benchmarks/README.md"}
	for _, pattern := range []string{"docs/*.md", "docs/*/*.md", "contrib/*/README.md", "backend/*/README.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			t.Fatal(pattern, err)
		}
		all = append(all, found...)
	}
	return all
}

var (
	fenced   = regexp.MustCompile("(?s)```.*?```")
	linked   = regexp.MustCompile(`(?m)\]\(([^)\s]+)[^)]*\)|^\[[^\]]+\]: (\S+)`)
	headings = regexp.MustCompile(`(?m)^#+ (.+)$`)
)

// TestDocsLink follows each link of the pages within the repository, also to a heading, and finds
// each test and example that they name.
func TestDocsLink(t *testing.T) {
	anchors := map[string]map[string]bool{}
	texts := map[string]string{}
	for _, page := range pages(t) {
		data, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		texts[page] = fenced.ReplaceAllString(string(data), "")
		anchors[page] = map[string]bool{}
		for _, m := range headings.FindAllStringSubmatch(texts[page], -1) {
			anchors[page][anchorOf(m[1])] = true
		}
	}
	tests := testNames(t)
	named := regexp.MustCompile("[`\"]((?:Test|Example|Fuzz|Benchmark)[A-Z]\\w*)[`\"]")
	for page, text := range texts {
		for _, m := range linked.FindAllStringSubmatch(text, -1) {
			target, anchor, _ := strings.Cut(m[1]+m[2], "#")
			if strings.Contains(target, ":") {
				continue // elsewhere
			}
			file := page
			if target != "" {
				file = filepath.Join(filepath.Dir(page), target)
			}
			if _, err := os.Stat(file); err != nil {
				t.Errorf("%s: a link leads nowhere: %v", page, err)
			}
			if anchor != "" && strings.HasSuffix(file, ".md") && !anchors[file][anchor] {
				t.Errorf("%s: %s has no heading %q", page, file, anchor)
			}
		}
		for _, m := range named.FindAllStringSubmatch(text, -1) {
			if !tests[m[1]] {
				t.Errorf("%s names %s, and there is none", page, m[1])
			}
		}
	}
}

// TestDocsCommands finds in the folder of each go test command of the pages a test or a benchmark
// that its -run or -bench asks for.
func TestDocsCommands(t *testing.T) {
	command := regexp.MustCompile(`(?:cd ([\w/.]+) && )?go test ([^\x60#|]*)`)
	flag := regexp.MustCompile(`-(run|bench) '?([A-Za-z]\w*)`)
	folder := regexp.MustCompile(`(?:^| )(?:\./(\w[\w/]*)|\.)(?: |$)`)
	commands := 0
	for _, page := range pages(t) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range command.FindAllStringSubmatch(strings.Join(strings.Fields(string(text)), " "), -1) {
			from := m[1]
			if from == "" && strings.HasSuffix(page, "/README.md") {
				from = filepath.Dir(page) // of a module
			}
			if f := folder.FindStringSubmatch(m[2]); f != nil {
				from = filepath.Join(from, f[1])
			}
			for _, f := range flag.FindAllStringSubmatch(m[2], -1) {
				kind := map[string]string{"run": "Test", "bench": "Benchmark"}[f[1]]
				if f[2] == "NAME" {
					continue // the page says which
				}
				commands++
				if !slices.ContainsFunc(functionsIn(t, from), func(name string) bool {
					return strings.HasPrefix(name, kind) && strings.Contains(name, f[2])
				}) {
					t.Errorf("%s: %q finds nothing in %q", page, m[0], from)
				}
			}
		}
	}
	if commands == 0 {
		t.Fatal("there is no command")
	}
}

// functionsIn returns the names of the functions in a folder's tests.
func functionsIn(t *testing.T, dir string) (names []string) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		source, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^func (\w+)\(`).FindAllStringSubmatch(string(source), -1) {
			names = append(names, m[1])
		}
	}
	return names
}

// anchorOf returns the anchor that GitHub gives a heading.
func anchorOf(heading string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(heading) {
		switch {
		case r == ' ':
			b.WriteByte('-')
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			b.WriteRune(r)
		}
	}
	return b.String()
}

// testNames returns the names of all tests and examples of all modules.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	function := regexp.MustCompile(`(?m)^func (\w+)\(`)
	err := filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		for _, m := range function.FindAllStringSubmatch(string(source), -1) {
			names[m[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if !names["TestDocsLink"] {
		t.Fatal("not even this test was found")
	}
	return names
}

// TestReadmeCompiles finds every Go block of the pages, line by line, in an example that is
// compiled.
func TestReadmeCompiles(t *testing.T) {
	var files, sources []string
	for _, pattern := range []string{"_example/*/*.go", "example*_test.go", "backend/example*_test.go",
		"backend/*/example*_test.go",
		"contrib/*/example_test.go", "benchmarks/migrate/*_test.go"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		sources = append(sources, trimLines(string(source)))
	}
	blocks := 0
	for _, page := range pages(t) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
			want := trimLines(block[1])
			if !slices.ContainsFunc(sources, func(s string) bool { return strings.Contains(s, want) }) {
				t.Errorf("%s: in no example:\n%s", page, block[1])
			}
			blocks++
		}
	}
	if blocks == 0 {
		t.Fatal("there is no Go block")
	}
}

// TestReadmeIsShort holds the README to what fits on a few screens: whatever else there is to say
// belongs into docs/.
func TestReadmeIsShort(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Count(string(readme), "\n"); lines > 230 || len(readme) > 12_000 {
		t.Errorf("the README has %d lines and %d bytes: 230 and 12,000 are the most", lines, len(readme))
	}
	docs, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range docs {
		if !strings.Contains(string(readme), "]("+page) {
			t.Errorf("the README does not link to %s", page)
		}
	}
}

// TestReadmeListsOptions holds the README's table of options to those that there are.
func TestReadmeListsOptions(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	options := 0
	for _, ty := range docOf(t, ".").Types {
		for _, f := range ty.Funcs {
			if ty.Name != "Option" {
				continue
			}
			options++
			if !strings.Contains(string(readme), "| `"+f.Name+"` |") {
				t.Errorf("%s is not in the README's table", f.Name)
			}
		}
	}
	if options == 0 {
		t.Error("no option was found")
	}
}

// TestDocsListDiagnostics holds the table of docs/diagnostics.md to the codes that stand in the
// code, and the codes to it.
func TestDocsListDiagnostics(t *testing.T) {
	page, err := os.ReadFile("docs/diagnostics.md")
	if err != nil {
		t.Fatal(err)
	}
	inCode := map[string]bool{}
	code := regexp.MustCompile(`GINLIMIT\d{3}`)
	err = filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		for _, c := range code.FindAllString(string(source), -1) {
			inCode[c] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for c := range inCode {
		if !strings.Contains(string(page), "| `"+c+"` |") {
			t.Errorf("%s is not in the table of docs/diagnostics.md", c)
		}
	}
	for _, c := range code.FindAllString(string(page), -1) {
		if !inCode[c] {
			t.Errorf("docs/diagnostics.md has %s, and the code has not", c)
		}
	}
}

func trimLines(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	for i, line := range lines {
		lines[i] = strings.Join(strings.Fields(line), " ")
	}
	return strings.Join(lines, "\n")
}

// What the documentation says, and no other test shows.

// TestFirstMinute counts what a caller that never stops gets in its first minute.
func TestFirstMinute(t *testing.T) {
	for _, tt := range []struct {
		limit ginlimit.Limit
		want  int
	}{
		{ginlimit.PerMinute(100), 199},
		{ginlimit.PerMinute(100).WithAlgorithm(backend.SlidingLog), 100},
	} {
		synctest.Test(t, func(t *testing.T) {
			l := must(ginlimit.NewLimiter(tt.limit, ginlimit.Global()))
			passed := 0
			for start := time.Now(); time.Since(start) < time.Minute; time.Sleep(10 * time.Millisecond) {
				for {
					d, err := l.Allow(context.Background(), "caller", 1)
					if err != nil {
						t.Fatal(err)
					}
					if !d.Allowed {
						break
					}
					passed++
				}
			}
			if passed != tt.want {
				t.Errorf("%v: %d requests passed in the first minute, want %d", tt.limit, passed, tt.want)
			}
		})
	}
}

// TestAWindowAndABucketMixed: docs/algorithms.md says what a fixed window and a token bucket of the
// same numbers admit in one Period when they decide for one key by turns.
func TestAWindowAndABucketMixed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New()
		bucket := ginlimit.PerMinute(100)
		window := bucket.WithAlgorithm(ginlimit.FixedWindow)
		admitted := 0
		take := func(limit ginlimit.Limit, most int) {
			for ; most > 0; most-- {
				res, err := b.Take(context.Background(), "key", 1, limit)
				require.NoError(t, err)
				if !res.Allowed {
					return
				}
				admitted++
			}
		}
		take(window, 1)
		time.Sleep(59*time.Second + 900*time.Millisecond)
		admitted = 0
		take(window, 1000) // just before the window ends
		time.Sleep(200 * time.Millisecond)
		take(window, 99)
		take(bucket, 1) // takes over what the window counted
		for range 590 {
			time.Sleep(100 * time.Millisecond)
			take(bucket, 100)
		}
		assert.Greater(t, admitted, 290)
		assert.Less(t, admitted, 300)
	})
}

// TestWhatIsNotLimited sends requests to an engine that allows none.
func TestWhatIsNotLimited(t *testing.T) {
	none := ginlimit.New(ginlimit.PerMinute(0), ginlimit.Global())
	onEngine := gin.New()
	onEngine.RedirectFixedPath, onEngine.HandleMethodNotAllowed = true, true
	onEngine.GET("/healthz", ok)
	onEngine.Use(none)
	onEngine.GET("/items", ok)
	onGroup := gin.New()
	onGroup.Group("/api", none).GET("/items", ok)

	for _, tt := range []struct {
		r            *gin.Engine
		method, path string
		want         int
	}{
		{onEngine, http.MethodGet, "/items", 429},
		{onEngine, http.MethodGet, "/healthz", 200},
		{onEngine, http.MethodGet, "/items/", 301},
		{onEngine, http.MethodGet, "/ITEMS", 301},
		{onEngine, http.MethodGet, "/nothing", 429},
		{onEngine, http.MethodPost, "/items", 429},
		{onGroup, http.MethodGet, "/api/items", 429},
		{onGroup, http.MethodGet, "/api/nothing", 404},
	} {
		w := httptest.NewRecorder()
		tt.r.ServeHTTP(w, httptest.NewRequest(tt.method, tt.path, nil))
		if w.Code != tt.want {
			t.Errorf("%s %s: %d, want %d", tt.method, tt.path, w.Code, tt.want)
		}
	}
}

// TestFloodAtTheCap fills a backend with keys that count for an hour: callers that it does not know
// may be refused for so long, and no longer.
func TestFloodAtTheCap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := must(ginlimit.NewLimiter(ginlimit.PerHour(1).WithAlgorithm(backend.FixedWindow), ginlimit.Global(),
			ginlimit.WithBackend(memory.New(memory.WithMaxKeys(1000))), ginlimit.WithName("flooded")))
		refused := func(kind string, callers int) (n int) {
			for i := range callers {
				if d, _ := l.Allow(context.Background(), kind+strconv.Itoa(i), 1); !d.Allowed {
					n++
				}
			}
			return n
		}
		refused("made up ", 10_000)
		if n := refused("newcomer ", 100); n < 50 {
			t.Errorf("%d of 100 newcomers were refused while the backend is full", n)
		}
		time.Sleep(time.Hour)
		if n := refused("later newcomer ", 100); n != 0 {
			t.Errorf("%d of 100 newcomers were refused after the flood", n)
		}
	})
}

// The floods of docs/production.md:
//
//	go test -run '^$' -bench Flood -benchtime 1x .

// BenchmarkFloodOfMemory fills the memory backend with made-up keys, which all count for an hour,
// and then asks for callers that it has never seen, once each.
func BenchmarkFloodOfMemory(b *testing.B) {
	const newcomers = 100_000
	for b.Loop() {
		l := must(ginlimit.NewLimiter(ginlimit.PerHour(10).WithAlgorithm(backend.FixedWindow), ginlimit.ByIP()))
		for i := range memory.DefaultMaxKeys {
			l.Allow(b.Context(), "made up:"+strconv.Itoa(i), 1)
		}
		refused := 0
		for i := range newcomers {
			if d, _ := l.Allow(b.Context(), "newcomer:"+strconv.Itoa(i), 1); !d.Allowed {
				refused++
			}
		}
		b.ReportMetric(100*float64(refused)/newcomers, "%refused")
	}
}

// BenchmarkFloodOfRedis charges made-up keys until a Redis of 100 MB, which evicts nothing, has no
// room for another.
func BenchmarkFloodOfRedis(b *testing.B) {
	server := testserver.Redis(b, "--maxmemory", "100mb", "--maxmemory-policy", "noeviction")
	store, err := redis.Dial(b.Context(), server.URL(), redis.WithTimeout(10*time.Second))
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	l := must(ginlimit.NewLimiter(ginlimit.PerHour(10), ginlimit.ByIP(), ginlimit.WithBackend(store),
		ginlimit.WithName("api")))
	for b.Loop() {
		var keys atomic.Int64
		var full atomic.Bool
		var callers sync.WaitGroup
		for range 64 {
			callers.Go(func() {
				for !full.Load() {
					if _, err := l.Allow(context.Background(), "ip:"+strconv.FormatInt(1e9+keys.Add(1), 10), 1); err != nil {
						full.Store(true)
					}
				}
			})
		}
		callers.Wait()
		b.ReportMetric(float64(keys.Load()), "keys")
	}
}
