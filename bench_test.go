package ginlimit_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/gin-gonic/gin"

	"github.com/ginlimit/ginlimit"
)

type discard struct{ h http.Header }

func (w *discard) Header() http.Header         { return w.h }
func (w *discard) Write(b []byte) (int, error) { return len(b), nil }
func (w *discard) WriteHeader(int)             {}

func BenchmarkHandle(b *testing.B) {
	gin.SetMode(gin.ReleaseMode)
	for _, bm := range []struct {
		name string
		use  []gin.HandlerFunc
	}{
		{"bare", nil},
		{"allowed", []gin.HandlerFunc{ginlimit.New(ginlimit.PerSecond(1e9), ginlimit.ByIP())}},
		{"denied", []gin.HandlerFunc{ginlimit.New(ginlimit.PerDay(1), ginlimit.ByIP())}},
	} {
		b.Run(bm.name, func(b *testing.B) {
			r := gin.New()
			r.SetTrustedProxies(nil)
			r.Use(bm.use...)
			r.GET("/ping", func(c *gin.Context) { c.String(200, "pong") })
			q := httptest.NewRequest(http.MethodGet, "/ping", nil)
			w := &discard{http.Header{}}
			r.ServeHTTP(w, q)
			b.ReportAllocs()
			for b.Loop() {
				clear(w.h)
				r.ServeHTTP(w, q)
			}
		})
	}
}
