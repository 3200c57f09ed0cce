package ginlimit_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/ginlimit/ginlimit"
)

func newRouter(limit ginlimit.Limit) *gin.Engine {
	r := gin.New()
	r.SetTrustedProxies(nil)
	r.Use(ginlimit.New(limit, ginlimit.ByIP()))
	r.GET("/ping", ok)
	return r
}

func TestPingIsLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // time.Sleep takes no time in here
		r := newRouter(ginlimit.PerMinute(3))
		ping := func() int {
			w := httptest.NewRecorder()
			r.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/ping", nil))
			return w.Code
		}
		for range 3 {
			if code := ping(); code != http.StatusOK {
				t.Fatal(code)
			}
		}
		if code := ping(); code != http.StatusTooManyRequests {
			t.Fatal(code)
		}
		time.Sleep(20 * time.Second) // one of three a minute is back
		if code := ping(); code != http.StatusOK {
			t.Fatal(code)
		}
	})
}
