package ginlimit_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit"
)

func hour(n int64) gin.HandlerFunc { return ginlimit.New(ginlimit.PerHour(n), ginlimit.Global()) }

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
		t.Run(name, func(t *testing.T) {
			r := engine(hour(10), hour(5))
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

func TestResponseController(t *testing.T) {
	r := engine(hour(10), hour(5))
	r.GET("/deadlines", func(c *gin.Context) {
		rc := http.NewResponseController(c.Writer)
		assert.NoError(t, rc.SetReadDeadline(time.Now().Add(time.Hour)))
		assert.NoError(t, rc.SetWriteDeadline(time.Now().Add(time.Hour)))
		assert.NoError(t, rc.EnableFullDuplex())
		answer(c)
	})
	res, err := http.Get(served(t, r).URL + "/deadlines")
	require.NoError(t, err)
	defer res.Body.Close()
	assert.Equal(t, 200, res.StatusCode)
}

func TestHijack(t *testing.T) {
	for name, rest := range map[string][]gin.HandlerFunc{"one limiter": nil, "two": {hour(5)}} {
		t.Run(name, func(t *testing.T) {
			r := engine(append([]gin.HandlerFunc{hour(10)}, rest...)...)
			r.GET("/hijack", func(c *gin.Context) {
				conn, rw, err := c.Writer.Hijack()
				if !assert.NoError(t, err) {
					return
				}
				defer conn.Close()
				_, _ = rw.WriteString("HTTP/1.1 418 Mine\r\nConnection: close\r\n\r\nhijacked")
				_ = rw.Flush()
			})
			res, err := http.Get(served(t, r).URL + "/hijack")
			require.NoError(t, err)
			defer res.Body.Close()
			body, _ := io.ReadAll(res.Body)
			assert.Equal(t, 418, res.StatusCode)
			assert.Equal(t, "hijacked", string(body))
			assert.NotContains(t, res.Header, "Ratelimit")
		})
	}
}

// TestWriterSeesTheResponse: what middleware asks c.Writer after the handlers is what was written.
func TestWriterSeesTheResponse(t *testing.T) {
	r := engine(func(c *gin.Context) {
		before := c.Writer
		assert.False(t, before.Written())
		c.Next()
		for _, w := range []gin.ResponseWriter{before, c.Writer} {
			assert.True(t, w.Written())
			assert.Equal(t, len("created"), w.Size())
			assert.Equal(t, 201, w.Status())
		}
	}, hour(10), hour(5))
	r.GET("/create", func(c *gin.Context) { c.String(201, "created") })
	w := send(r, path("/create"))
	assert.Equal(t, 201, w.Code)
	assert.Equal(t, "created", w.Body.String())
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
	hidingWriter struct { // shadows the embedded one with a field of its own
		gin.ResponseWriter
		inner http.ResponseWriter
	}
	valueWriter   struct{ gin.ResponseWriter }
	pointerWriter struct{ *captureWriter }
)

func (w *gzipWriter) Write(b []byte) (int, error)       { return w.z.Write(b) }
func (w *gzipWriter) WriteString(s string) (int, error) { return w.z.Write([]byte(s)) }
func (w *captureWriter) Write(b []byte) (int, error) {
	w.body.Write(b)
	return w.ResponseWriter.Write(b)
}
func (w *captureWriter) WriteString(s string) (int, error) { return w.Write([]byte(s)) }
func (w *hidingWriter) Write(b []byte) (int, error)        { return w.inner.Write(b) }

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
		"gzip before":           {[]gin.HandlerFunc{zipped}, nil, true},
		"gzip after":            {nil, []gin.HandlerFunc{zipped}, true},
		"capture before":        {[]gin.HandlerFunc{captured(&outer)}, nil, false},
		"capture after":         {nil, []gin.HandlerFunc{captured(&inner)}, false},
		"gzip around, and more": {[]gin.HandlerFunc{captured(&outer), zipped}, []gin.HandlerFunc{captured(&inner), hour(50), captured(&inner)}, true},
	} {
		t.Run(name, func(t *testing.T) {
			inner.Reset()
			outer.Reset()
			var handlers []gin.HandlerFunc
			handlers = append(handlers, tt.before...)
			handlers = append(handlers, hour(1))
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

// TestFromContextBehindWriters: other middleware's writers hide no decision, so that a limiter that stands twice
// still charges once.
func TestFromContextBehindWriters(t *testing.T) {
	for name, wrap := range map[string]func(gin.ResponseWriter) gin.ResponseWriter{
		"pointer": func(w gin.ResponseWriter) gin.ResponseWriter { return &captureWriter{w, &bytes.Buffer{}} },
		"value":   func(w gin.ResponseWriter) gin.ResponseWriter { return valueWriter{w} },
		"three deep": func(w gin.ResponseWriter) gin.ResponseWriter {
			return &valueWriter{&captureWriter{valueWriter{w}, &bytes.Buffer{}}}
		},
		"embedded pointer to a writer": func(w gin.ResponseWriter) gin.ResponseWriter {
			return &pointerWriter{&captureWriter{w, &bytes.Buffer{}}}
		},
		"field of its own": func(w gin.ResponseWriter) gin.ResponseWriter {
			plain, _ := gin.CreateTestContext(httptest.NewRecorder())
			return &hidingWriter{plain.Writer, w}
		},
	} {
		t.Run(name, func(t *testing.T) {
			var seen watch
			l := must(ginlimit.NewLimiter(ginlimit.PerHour(10), ginlimit.Global(), ginlimit.WithObserver(seen.observe), ginlimit.WithLogger(slog.New(slog.DiscardHandler))))
			r := engine(l.Handle, func(c *gin.Context) { c.Writer = wrap(c.Writer) }, l.Handle, func(c *gin.Context) {
				d, ok := ginlimit.FromContext(c)
				assert.True(t, ok)
				assert.Equal(t, seen.last(), d)
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
		t.Run(name, func(t *testing.T) {
			r := engine(order(hour(1), func(c *gin.Context) {
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

// ownHeader is a writer with a header of its own, which its middleware copies, as those that buffer a response have. Other
// methods are those of the writer behind it.
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
	a := ginlimit.New(ginlimit.PerMinute(10), ginlimit.Global(), ginlimit.WithName("a"))
	b := ginlimit.New(ginlimit.PerMinute(5), ginlimit.Global(), ginlimit.WithName("b"))
	w := send(engine(a, withOwnHeader, b))
	assert.Equal(t, `"a";q=10;w=60, "b";q=5;w=60`, w.Header().Get("RateLimit-Policy"))
	assert.Equal(t, `"b";r=4;t=12`, w.Header().Get("RateLimit"))

	r := engine(withOwnHeader, hour(0))
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		q, err := http.NewRequest(method, served(t, r).URL, nil)
		require.NoError(t, err)
		res, err := http.DefaultClient.Do(q)
		require.NoError(t, err)
		_ = res.Body.Close()
		assert.Equal(t, 429, res.StatusCode, method)
		assert.Equal(t, "0", res.Header.Get("X-RateLimit-Remaining"), method)
	}
}

type embedded struct{ gin.ResponseWriter }

// TestWriterInAStruct: the visit is found behind writers that hold another by value.
func TestWriterInAStruct(t *testing.T) {
	wrap := func(c *gin.Context) {
		c.Writer = &struct {
			embedded
			n int
		}{embedded: embedded{c.Writer}}
	}
	l := must(ginlimit.NewLimiter(ginlimit.PerMinute(10), ginlimit.Global(), ginlimit.WithLogger(slog.New(slog.DiscardHandler))))
	w := send(engine(l.Handle, wrap, l.Handle, wrap, func(c *gin.Context) {
		d, ok := ginlimit.FromContext(c)
		assert.True(t, ok)
		assert.Equal(t, int64(9), d.Remaining)
	}))
	assert.Equal(t, "9", w.Header().Get("X-RateLimit-Remaining"), "charged once")
}
