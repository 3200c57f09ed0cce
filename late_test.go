package ginlimit_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/backend"
)

func hour(n int64, opts ...ginlimit.Option) gin.HandlerFunc {
	return ginlimit.New(ginlimit.PerHour(n), ginlimit.Global(), opts...)
}

// late is both values of WithLateHeaders: what holds without the limiter's writer holds with it.
var late = map[string]ginlimit.Option{"early": ginlimit.WithLateHeaders(false), "late": ginlimit.WithLateHeaders(true)}

// served runs an engine behind a real server.
func served(t *testing.T, r http.Handler) *httptest.Server {
	s := httptest.NewServer(r)
	t.Cleanup(s.Close)
	return s
}

func TestStreaming(t *testing.T) {
	read := make(chan struct{}) // each event is written after the one before was read: nothing may be held back
	for name, write := range map[string]func(*gin.Context, func() bool){
		"Stream": func(c *gin.Context, next func() bool) {
			c.Stream(func(io.Writer) bool { // flushes after each call
				if next() {
					c.SSEvent("", "tick")
					return true
				}
				return false
			})
		},
		"Flush": func(c *gin.Context, next func() bool) {
			for next() {
				_, _ = c.Writer.WriteString("data:tick\n\n")
				c.Writer.Flush()
			}
		},
		"ResponseController": func(c *gin.Context, next func() bool) {
			for next() {
				_, _ = c.Writer.Write([]byte("data:tick\n\n"))
				assert.NoError(t, http.NewResponseController(c.Writer).Flush())
			}
		},
	} {
		for when, opt := range late {
			t.Run(name+", "+when, func(t *testing.T) {
				r := engine(hour(10, opt), hour(5, opt))
				r.GET("/stream", func(c *gin.Context) {
					n := 0
					write(c, func() bool {
						if n > 0 {
							<-read
						}
						n++
						return n <= 3
					})
				})
				res, err := http.Get(served(t, r).URL + "/stream")
				require.NoError(t, err)
				defer res.Body.Close()
				assert.Equal(t, "4", res.Header.Get("X-RateLimit-Remaining"))
				lines := bufio.NewScanner(res.Body)
				for range 3 {
					require.True(t, lines.Scan())
					assert.Equal(t, "data:tick", lines.Text())
					lines.Scan()
					read <- struct{}{}
				}
				assert.False(t, lines.Scan())
			})
		}
	}
}

// TestWriterIsWhole: what a handler does with c.Writer reaches the connection.
func TestWriterIsWhole(t *testing.T) {
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	for when, opt := range late {
		for _, tt := range []struct {
			name    string
			handler gin.HandlerFunc
			code    int
			body    string
			shown   bool
		}{
			{"deadlines", func(c *gin.Context) {
				rc := http.NewResponseController(c.Writer)
				assert.NoError(t, rc.SetReadDeadline(time.Now().Add(time.Hour)))
				assert.NoError(t, rc.SetWriteDeadline(time.Now().Add(time.Hour)))
				assert.NoError(t, rc.EnableFullDuplex())
				answer(c)
			}, 200, "ok", true},
			{"hijack", func(c *gin.Context) {
				conn, rw, err := c.Writer.Hijack()
				if !assert.NoError(t, err) {
					return
				}
				defer conn.Close()
				_, _ = rw.WriteString("HTTP/1.1 418 Mine\r\nConnection: close\r\n\r\nhijacked")
				_ = rw.Flush()
			}, 418, "hijacked", false},
			{"file", func(c *gin.Context) {
				http.ServeContent(c.Writer, c.Request, "a.txt", time.Time{}, strings.NewReader("a file"))
			}, 200, "a file", true},
			{"copy", func(c *gin.Context) { _, _ = io.Copy(c.Writer, strings.NewReader("a copy")) }, 200, "a copy",
				true},
			{"string", func(c *gin.Context) { _, _ = io.WriteString(c.Writer, "a string") }, 200, "a string", true},
			{"status only", func(c *gin.Context) { c.Status(204) }, 204, "", true},
			{"status at once", func(c *gin.Context) { c.AbortWithStatus(403) }, 403, "", true},
			{"nothing", func(*gin.Context) {}, 200, "", true},
			{"redirect", func(c *gin.Context) { c.Redirect(307, "/elsewhere") }, 307,
				"<a href=\"/elsewhere\">Temporary Redirect</a>.\n\n", true},
			{"push", func(c *gin.Context) {
				if p, ok := c.Writer.(http.Pusher); ok {
					assert.ErrorIs(t, p.Push("/", nil), http.ErrNotSupported)
				}
				answer(c)
			}, 200, "ok", true},
		} {
			t.Run(tt.name+", "+when, func(t *testing.T) {
				res, err := client.Get(served(t, routed(hour(10, opt), hour(5, opt), tt.handler)).URL)
				require.NoError(t, err)
				defer res.Body.Close()
				body, _ := io.ReadAll(res.Body)
				assert.Equal(t, tt.code, res.StatusCode)
				assert.Equal(t, tt.body, string(body))
				assert.Equal(t, tt.shown, len(res.Header.Values("RateLimit")) == 1, res.Header)
			})
		}
	}
}

// pushing is a connection over which a server may push.
type pushing struct {
	*httptest.ResponseRecorder
	pushed []string
}

func (w *pushing) Push(target string, _ *http.PushOptions) error {
	w.pushed = append(w.pushed, target)
	return nil
}

// TestPush: a push goes through.
func TestPush(t *testing.T) {
	for when, opt := range late {
		t.Run(when, func(t *testing.T) {
			w := &pushing{ResponseRecorder: httptest.NewRecorder()}
			engine(hour(10, opt), func(c *gin.Context) {
				assert.NoError(t, c.Writer.Pusher().Push("/a", nil))
				if p, ok := c.Writer.(http.Pusher); ok {
					assert.NoError(t, p.Push("/b", nil))
					assert.Equal(t, "late", when)
				}
			}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
			assert.Equal(t, "/a", w.pushed[0])
		})
	}
}

// readerFrom is a writer of other middleware that takes a whole reader at once.
type readerFrom struct {
	gin.ResponseWriter
	copied bool
}

func (w *readerFrom) ReadFrom(r io.Reader) (int64, error) {
	w.copied = true
	return io.Copy(struct{ io.Writer }{w.ResponseWriter}, r)
}

// TestReadFrom: the limiter hides no io.ReaderFrom of the writer that was there.
func TestReadFrom(t *testing.T) {
	for when, opt := range late {
		t.Run(when, func(t *testing.T) {
			var own *readerFrom
			w := send(engine(func(c *gin.Context) {
				own = &readerFrom{ResponseWriter: c.Writer}
				c.Writer = own
			}, hour(10, opt), func(c *gin.Context) {
				_, _ = io.Copy(c.Writer, struct{ io.Reader }{strings.NewReader("body")})
				c.Abort()
			}))
			assert.True(t, own.copied)
			assert.Equal(t, "body", w.Body.String())
			assert.Equal(t, "9", w.Header().Get("X-RateLimit-Remaining"))
		})
	}
}

// TestWriterIsPutBack: after the handlers c.Writer is what it was before the limiter, so that
// middleware finds its own; and it tells what was written.
func TestWriterIsPutBack(t *testing.T) {
	type own struct{ gin.ResponseWriter }
	for when, opt := range late {
		for _, tt := range []struct {
			name     string
			limit    int64
			handlers []gin.HandlerFunc
			code     int
		}{
			{"allowed", 9, nil, 201},
			{"refused", 0, nil, 429},
			{"a panic", 9, []gin.HandlerFunc{func(*gin.Context) { panic("handler") }}, 500},
			{"two limiters", 9, []gin.HandlerFunc{hour(8, opt, ginlimit.WithName("b"))}, 201},
			{"a writer between", 9, []gin.HandlerFunc{func(c *gin.Context) {
				before := c.Writer
				c.Writer = &own{before}
				c.Next()
				c.Writer = before
			}, hour(8, opt, ginlimit.WithName("b"))}, 201},
		} {
			t.Run(tt.name+", "+when, func(t *testing.T) {
				r := gin.New()
				handlers := append([]gin.HandlerFunc{func(c *gin.Context) {
					before := &own{c.Writer}
					c.Writer = before
					assert.False(t, before.Written())
					c.Next()
					assert.Equal(t, before, c.Writer.(*own))
					assert.Same(t, before, c.Writer)
					if tt.code != 500 {
						assert.True(t, before.Written())
						assert.Equal(t, tt.code, before.Status())
					}
				}, recovery, hour(tt.limit, opt)}, tt.handlers...)
				r.GET("/", append(handlers, func(c *gin.Context) { c.String(201, "created") })...)
				w := send(r)
				assert.Equal(t, tt.code, w.Code)
				assert.Len(t, w.Header().Values("RateLimit"), 1)
			})
		}
	}
}

// Writers as other middleware has them.
type (
	gzipWriter struct {
		gin.ResponseWriter
		z *gzip.Writer
	}
	captureWriter struct {
		gin.ResponseWriter
		body *bytes.Buffer
	}
)

func (w *gzipWriter) Write(b []byte) (int, error)       { return w.z.Write(b) }
func (w *gzipWriter) WriteString(s string) (int, error) { return w.z.Write([]byte(s)) }
func (w *captureWriter) Write(b []byte) (int, error) {
	w.body.Write(b)
	return w.ResponseWriter.Write(b)
}
func (w *captureWriter) WriteString(s string) (int, error) { return w.Write([]byte(s)) }

func zipped(c *gin.Context) {
	z := gzip.NewWriter(c.Writer)
	c.Writer = &gzipWriter{c.Writer, z}
	c.Header("Content-Encoding", "gzip")
	c.Next()
	_ = z.Close()
}

func captured(body *bytes.Buffer) gin.HandlerFunc {
	return func(c *gin.Context) {
		c.Writer = &captureWriter{c.Writer, body}
		c.Next()
	}
}

func plain(t *testing.T, w *httptest.ResponseRecorder) string {
	t.Helper()
	z, err := gzip.NewReader(w.Body)
	require.NoError(t, err)
	b, err := io.ReadAll(z)
	require.NoError(t, err)
	return string(b)
}

func TestWrappedWriters(t *testing.T) {
	var inner, outer bytes.Buffer
	for name, tt := range map[string]struct {
		before, after []gin.HandlerFunc
		zip           bool
	}{
		"gzip before":    {[]gin.HandlerFunc{zipped}, nil, true},
		"gzip after":     {nil, []gin.HandlerFunc{zipped}, true},
		"capture before": {[]gin.HandlerFunc{captured(&outer)}, nil, false},
		"capture after":  {nil, []gin.HandlerFunc{captured(&inner)}, false},
		"gzip around, and more": {[]gin.HandlerFunc{captured(&outer), zipped},
			[]gin.HandlerFunc{captured(&inner), hour(50), captured(&inner)}, true},
	} {
		for when, opt := range late {
			t.Run(name+", "+when, func(t *testing.T) {
				inner.Reset()
				outer.Reset()
				var handlers []gin.HandlerFunc
				handlers = append(handlers, tt.before...)
				handlers = append(handlers, hour(1, opt))
				handlers = append(handlers, tt.after...)
				r := engine(append(handlers, func(c *gin.Context) {
					d, ok := ginlimit.FromContext(c)
					assert.True(t, ok)
					assert.EqualValues(t, 1, d.Limit.Count)
				})...)
				body := func(w *httptest.ResponseRecorder) string {
					if tt.zip && w.Header().Get("Content-Encoding") == "gzip" {
						return plain(t, w)
					}
					return w.Body.String()
				}
				w := send(r)
				assert.Equal(t, "0", w.Header().Get("X-RateLimit-Remaining"))
				assert.Equal(t, "ok", body(w))
				w = send(r)
				assert.Equal(t, 429, w.Code)
				problemOf(t, w.Header().Get("Content-Type"), []byte(body(w)))
			})
		}
	}
}

// TestFromContextBehindWriters: other middleware's writers hide no decision, and a limiter that
// stands twice charges once.
func TestFromContextBehindWriters(t *testing.T) {
	for when, opt := range late {
		t.Run(when, func(t *testing.T) {
			var seen watch
			l := must(ginlimit.NewLimiter(ginlimit.PerHour(10), ginlimit.Global(), opt,
				ginlimit.WithObserver(seen.observe), ginlimit.WithLogger(slog.New(slog.DiscardHandler))))
			r := engine(l.Handle, func(c *gin.Context) {
				plain, _ := gin.CreateTestContext(httptest.NewRecorder())
				before := c.Writer
				c.Writer = plain.Writer
				c.Next()
				c.Writer = before
			}, l.Handle, func(c *gin.Context) {
				for _, c := range []*gin.Context{c, c.Copy()} {
					d, ok := ginlimit.FromContext(c)
					assert.True(t, ok)
					assert.Equal(t, seen.last(), d)
				}
			})
			assert.Equal(t, "9", send(r).Header().Get("X-RateLimit-Remaining"))
			assert.Equal(t, "8", send(r).Header().Get("X-RateLimit-Remaining"), "charged once")
		})
	}
}

// TestBufferingMiddleware swaps the writer for the handlers and puts the old one back.
func TestBufferingMiddleware(t *testing.T) {
	for name, order := range map[string]func(limiter, buffering gin.HandlerFunc) []gin.HandlerFunc{
		"before": func(l, b gin.HandlerFunc) []gin.HandlerFunc { return []gin.HandlerFunc{b, l} },
		"after":  func(l, b gin.HandlerFunc) []gin.HandlerFunc { return []gin.HandlerFunc{l, b} },
	} {
		for when, opt := range late {
			t.Run(name+", "+when, func(t *testing.T) {
				r := engine(order(hour(1, opt), func(c *gin.Context) {
					old := c.Writer
					rec := httptest.NewRecorder()
					buffer, _ := gin.CreateTestContext(rec)
					c.Writer = buffer.Writer
					c.Next()
					c.Writer = old
					for k, v := range rec.Header() {
						c.Writer.Header()[k] = v
					}
					c.Status(rec.Code)
					_, _ = c.Writer.Write(rec.Body.Bytes())
				})...)
				w := send(r)
				assert.Equal(t, "ok", w.Body.String())
				assert.Equal(t, "0", w.Header().Get("X-RateLimit-Remaining"))
				w = send(r)
				assert.Equal(t, 429, w.Code)
				assert.NotEmpty(t, w.Header().Get("Retry-After"))
				problemOf(t, w.Header().Get("Content-Type"), w.Body.Bytes())
			})
		}
	}
}

// ownHeader is a writer with a header of its own, which its middleware copies, as those that buffer
// a response have. Other methods are those of the writer behind it.
type ownHeader struct {
	gin.ResponseWriter
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *ownHeader) Header() http.Header         { return w.header }
func (w *ownHeader) WriteHeader(status int)      { w.status = status }
func (w *ownHeader) Write(p []byte) (int, error) { return w.body.Write(p) }

func withOwnHeader(c *gin.Context) {
	w := &ownHeader{ResponseWriter: c.Writer, header: http.Header{}}
	c.Writer = w
	c.Next()
	c.Writer = w.ResponseWriter
	for field, values := range w.header {
		c.Writer.Header()[field] = values
	}
	if w.status != 0 {
		c.Writer.WriteHeader(w.status)
	}
	_, _ = c.Writer.Write(w.body.Bytes())
}

func TestWriterWithItsOwnHeader(t *testing.T) {
	for when, opt := range late {
		t.Run(when, func(t *testing.T) {
			a := ginlimit.New(ginlimit.PerMinute(10), ginlimit.Global(), ginlimit.WithName("a"), opt)
			b := ginlimit.New(ginlimit.PerMinute(5), ginlimit.Global(), ginlimit.WithName("b"), opt)
			w := send(engine(a, withOwnHeader, b))
			assert.Equal(t, `"a";q=10;w=60, "b";q=5;w=60`, w.Header().Get("RateLimit-Policy"))
			assert.Equal(t, `"b";r=4;t=12`, w.Header().Get("RateLimit"))

			r := engine(withOwnHeader, hour(0, opt))
			for _, method := range []string{http.MethodGet, http.MethodHead} {
				q, err := http.NewRequest(method, served(t, r).URL, nil)
				require.NoError(t, err)
				res, err := http.DefaultClient.Do(q)
				require.NoError(t, err)
				_ = res.Body.Close()
				assert.Equal(t, 429, res.StatusCode, method)
				assert.Equal(t, "0", res.Header.Get("X-RateLimit-Remaining"), method)
			}
		})
	}
}

// proxyTo is a gateway's handler: a reverse proxy to a service.
func proxyTo(t *testing.T, service http.Handler) gin.HandlerFunc {
	target, err := url.Parse(served(t, service).URL)
	require.NoError(t, err)
	proxy := httputil.NewSingleHostReverseProxy(target)
	return func(c *gin.Context) { proxy.ServeHTTP(c.Writer, c.Request) }
}

// through sends a request over a connection, because a reverse proxy needs one.
func through(t *testing.T, r http.Handler) (*httptest.ResponseRecorder, map[string]string) {
	res, err := http.Get(served(t, r).URL)
	require.NoError(t, err)
	defer res.Body.Close()
	w := httptest.NewRecorder()
	w.Code = res.StatusCode
	for name, values := range res.Header {
		w.Header()[name] = values
	}
	_, _ = io.Copy(w.Body, res.Body)
	return w, fields(w)
}

// routed is an engine without middleware.
func routed(handlers ...gin.HandlerFunc) *gin.Engine {
	r := gin.New()
	r.GET("/", handlers...)
	return r
}

// TestLateHeaders: each field is there once, the limiter's prevail, and the policies of both are
// listed.
func TestLateHeaders(t *testing.T) {
	isLate := ginlimit.WithLateHeaders(true)
	limiter := func(name string, n int64, opts ...ginlimit.Option) *ginlimit.Limiter {
		return must(ginlimit.NewLimiter(ginlimit.PerHour(n).WithAlgorithm(backend.FixedWindow), ginlimit.Global(),
			append(opts, ginlimit.WithName(name), ginlimit.WithLogger(slog.New(slog.DiscardHandler)))...))
	}
	handle := func(name string, n int64, opts ...ginlimit.Option) gin.HandlerFunc {
		return limiter(name, n, opts...).Handle
	}
	service := func(n int64) http.Handler {
		return routed(handle("svc", n, ginlimit.WithHeaders(ginlimit.HeadersIETF|ginlimit.HeadersLegacyEpoch)), answer)
	}
	odd := func(c *gin.Context) {
		for name, values := range map[string][]string{
			"RateLimit-Policy":      {`"a,\"b\";q=1";q=1;w=1 ,"c";q=2;w=2`, ``, `, "d";q=3;w=3,`},
			"RateLimit":             {`"c";r=1`, `"d";r=2`},
			"X-RateLimit-Limit":     {"7", "8"},
			"X-RateLimit-Remaining": {"7", "8"},
			"X-RateLimit-Reset":     {"7", "8"},
		} {
			for _, v := range values {
				c.Writer.Header().Add(name, v)
			}
		}
		answer(c)
	}
	const gw, svc = `"gw";q=100;w=3600`, `"svc";q=5;w=3600`
	ours := map[string]string{"RateLimit-Policy": gw + ", " + svc, "RateLimit": `"gw";r=99;t=3600`,
		"X-RateLimit-Limit": "100", "X-RateLimit-Remaining": "99", "X-RateLimit-Reset": "3600"}
	with := func(edits map[string]string) map[string]string {
		want := maps.Clone(ours)
		maps.Copy(want, edits)
		return want
	}
	same := limiter("gw", 100, isLate)
	responded := limiter("gw", 100, isLate)
	checked := limiter("gw", 100, isLate)
	for _, tt := range []struct {
		name string
		r    http.Handler
		want map[string]string
	}{
		{"a gateway", routed(handle("gw", 100, isLate), proxyTo(t, service(5))), ours},
		{"a gateway with two limiters", routed(handle("a", 1000, isLate), handle("gw", 100, isLate),
			proxyTo(t, service(5))),
			with(map[string]string{"RateLimit-Policy": `"a";q=1000;w=3600, ` + gw + ", " + svc})},
		{"a gateway with one late limiter, the first",
			routed(handle("gw", 100, isLate), handle("b", 1000), proxyTo(t, service(5))),
			with(map[string]string{"RateLimit-Policy": gw + `, "b";q=1000;w=3600, ` + svc})},
		{"a gateway with one late limiter, the last",
			routed(handle("b", 1000), handle("gw", 100, isLate), proxyTo(t, service(5))),
			with(map[string]string{"RateLimit-Policy": `"b";q=1000;w=3600, ` + gw + ", " + svc})},
		{"a gateway that shows the draft's fields only",
			routed(handle("gw", 100, isLate, ginlimit.WithHeaders(ginlimit.HeadersIETF)), odd),
			map[string]string{"RateLimit-Policy": gw + `, "a,\"b\";q=1";q=1;w=1, "c";q=2;w=2, "d";q=3;w=3`,
				"RateLimit":         `"gw";r=99;t=3600`,
				"X-RateLimit-Limit": "7 | 8", "X-RateLimit-Remaining": "7 | 8", "X-RateLimit-Reset": "7 | 8"}},
		{"fields of all kinds", routed(handle("gw", 100, isLate), odd),
			with(map[string]string{"RateLimit-Policy": gw + `, "a,\"b\";q=1";q=1;w=1, "c";q=2;w=2, "d";q=3;w=3`})},
		{"the policy of the gateway itself", routed(handle("gw", 100, isLate),
			proxyTo(t, routed(handle("gw", 100), answer))),
			with(map[string]string{"RateLimit-Policy": gw})},
		{"an engine in an engine", routed(handle("gw", 100, isLate), gin.WrapH(service(5))), ours},
		{"an engine in an engine, both late",
			routed(handle("gw", 100, isLate), gin.WrapH(routed(handle("svc", 5, isLate), answer))),
			with(map[string]string{"RateLimit": `"svc";r=4;t=3600`, "X-RateLimit-Limit": "5",
				"X-RateLimit-Remaining": "4"})},
		{"an engine in an engine, the inner late",
			routed(handle("gw", 100), gin.WrapH(routed(handle("svc", 5, isLate), answer))),
			map[string]string{"RateLimit-Policy": svc + ", " + gw, "RateLimit": `"svc";r=4;t=3600`,
				"X-RateLimit-Limit": "5", "X-RateLimit-Remaining": "4", "X-RateLimit-Reset": "3600"}},
		{"the same limiter in both engines", routed(same.Handle, gin.WrapH(routed(same.Handle, answer))),
			with(map[string]string{"RateLimit-Policy": gw, "RateLimit": `"gw";r=98;t=3600`,
				"X-RateLimit-Remaining": "98"})},
		{"the same limiter charged again", routed(checked.Handle,
			func(c *gin.Context) { checked.Check(c); checked.Check(c); answer(c) }),
			with(map[string]string{"RateLimit-Policy": gw, "RateLimit": `"gw";r=97;t=3600`,
				"X-RateLimit-Remaining": "97"})},
		{"the same limiter charged after Respond", routed(func(c *gin.Context) {
			responded.Respond(c, responded.Check(c))
			responded.Check(c)
			answer(c)
		}), with(map[string]string{"RateLimit-Policy": gw, "RateLimit": `"gw";r=98;t=3600`, "X-RateLimit-Remaining": "98"})},
		{"nobody else's fields", routed(handle("gw", 100, isLate), answer),
			with(map[string]string{"RateLimit-Policy": gw})},
		{"a dry run", routed(handle("gw", 100, isLate, ginlimit.WithDryRun(true)), func(c *gin.Context) {
			c.Header("X-RateLimit-Limit", "7")
			answer(c)
		}), map[string]string{"X-RateLimit-Limit": "7"}},
		{"unlimited", routed(ginlimit.New(ginlimit.Unlimited(), ginlimit.Global(), isLate), func(c *gin.Context) {
			c.Header("RateLimit", `"svc";r=7`)
			answer(c)
		}), map[string]string{"RateLimit": `"svc";r=7`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, got := through(t, tt.r)
			assert.Equal(t, 200, w.Code)
			assert.Equal(t, "ok", w.Body.String())
			for _, field := range []string{"X-RateLimit-Reset", "RateLimit"} { // the clock is a real one
				got[field] = regexp.MustCompile(`\b3(599|598|597)$`).ReplaceAllString(got[field], "3600")
				if got[field] == "" {
					delete(got, field)
				}
			}
			assert.Equal(t, tt.want, got)
		})
	}
}

// TestAWriterThatStays: what a later handler leaves in c.Writer is not the limiter's to take out.
func TestAWriterThatStays(t *testing.T) {
	type own struct{ gin.ResponseWriter }
	for when, opt := range late {
		t.Run(when, func(t *testing.T) {
			w := send(engine(func(c *gin.Context) {
				c.Next()
				assert.IsType(t, &own{}, c.Writer)
			}, hour(9, opt), func(c *gin.Context) { c.Writer = &own{c.Writer} }))
			assert.Equal(t, "8", w.Header().Get("X-RateLimit-Remaining"))
		})
	}
}

// TestLateHeadersOfACache: a page that is replayed to another caller does not show the first one's
// figures.
func TestLateHeadersOfACache(t *testing.T) {
	var kept http.Header
	cache := func(c *gin.Context) {
		if kept == nil {
			c.Next()
			kept = c.Writer.Header().Clone()
			return
		}
		for name, values := range kept {
			for _, v := range values {
				c.Writer.Header().Add(name, v)
			}
		}
		c.String(200, "ok")
		c.Abort()
	}
	r := engine(ginlimit.New(ginlimit.PerDay(9).WithAlgorithm(backend.FixedWindow), byHeader,
		ginlimit.WithLateHeaders(true)), cache)
	for _, step := range []struct{ key, remaining string }{{"ann", "8"}, {"ann", "7"}, {"bob", "8"}, {"ann", "6"}} {
		w := send(r, header("Key", step.key))
		assert.Equal(t, map[string]string{"RateLimit-Policy": `"default";q=9;w=86400`,
			"RateLimit":         `"default";r=` + step.remaining + `;t=86400`,
			"X-RateLimit-Limit": "9", "X-RateLimit-Remaining": step.remaining, "X-RateLimit-Reset": "86400"}, fields(w))
	}
}

// TestLateHeadersAndRetryAfter: what a handler says of when to come back stays, unless the limiter
// knows better.
func TestLateHeadersAndRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(http.TimeFormat) }
		down := ginlimit.New(ginlimit.PerDay(9), ginlimit.Global(), ginlimit.WithName("down"),
			ginlimit.WithBackend(failing(backend.ErrUnavailable)), ginlimit.WithFailurePolicy(ginlimit.FailClosed))
		says := func(wait string) gin.HandlerFunc {
			return func(c *gin.Context) {
				c.Header("Retry-After", wait)
				c.String(503, "busy")
			}
		}
		for _, tt := range []struct {
			name   string
			count  int64
			handle gin.HandlerFunc
			want   string
		}{
			{"longer", 1, says("120"), "120"},
			{"shorter", 1, says("5"), "60"},
			{"shorter, and something is left", 2, says("5"), "5"},
			{"a date that is later", 1, says(in(2 * time.Minute)), in(2 * time.Minute)},
			{"a date that is too early", 1, says(in(5 * time.Second)), "60"},
			{"a date that is over", 1, says(in(-time.Hour)), "60"},
			{"no time at all", 1, says("soon"), "soon"},
			{"none", 1, answer, ""},
			{"a limiter of a mounted engine", 1, gin.WrapH(engine(down)), "60"},
		} {
			gw := ginlimit.New(ginlimit.PerMinute(tt.count), ginlimit.Global(), ginlimit.WithLateHeaders(true))
			w := send(routed(gw, tt.handle))
			assert.Equal(t, tt.want, w.Header().Get("Retry-After"), tt.name)
		}
	})
}

// TestLateHeadersOfARefusal: a service's 429 keeps its own Retry-After, and one of the limiter's
// own is as without the option.
func TestLateHeadersOfARefusal(t *testing.T) {
	r := routed(hour(2, ginlimit.WithLateHeaders(true), ginlimit.WithName("gw")), func(c *gin.Context) {
		c.Header("Retry-After", "7")
		c.Header("RateLimit", `"svc";r=0;t=7`)
		c.String(429, "busy")
	})
	w := send(r)
	assert.Equal(t, "busy", w.Body.String())
	assert.Equal(t, "7", w.Header().Get("Retry-After"))
	assert.Contains(t, w.Header().Get("RateLimit"), `"gw";r=1`)
	send(r)
	w = send(r)
	assert.Equal(t, 429, w.Code)
	problemOf(t, w.Header().Get("Content-Type"), w.Body.Bytes())
	assert.Contains(t, w.Header().Get("RateLimit"), `"gw";r=0`)
	assert.Equal(t, "1800", w.Header().Get("Retry-After"))
}

// TestLateHeadersAndHints: a reverse proxy clears all fields after a response of 1xx.
func TestLateHeadersAndHints(t *testing.T) {
	hinting := routed(func(c *gin.Context) {
		c.Header("Link", "</style.css>")
		w := c.Writer.(interface{ Unwrap() http.ResponseWriter }).Unwrap()
		w.WriteHeader(http.StatusEarlyHints)
		answer(c)
	})
	w, got := through(t, routed(hour(9, ginlimit.WithLateHeaders(true)), proxyTo(t, hinting)))
	assert.Equal(t, 200, w.Code)
	assert.Equal(t, "8", got["X-RateLimit-Remaining"])
}
