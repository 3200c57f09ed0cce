// Routes reads the limits of its routes from a YAML file, and takes a change of the file over while
// it runs: limits.yaml beside this program. A file that is wrong is refused, with a line in the log
// that says where and what to write, and the limits that are in force stay. What callers have used
// is carried over. In _example, run
//
//	go run ./routes
//
// and try what it prints. LIMITS names another file.
//
// Editors and deployments should write the new file beside the old one and rename it, so that nobody
// reads half of it. Half a file can be a right one, with fewer routes.
package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/ginlimit/ginlimit"
)

// limits are those in force. A swap is one pointer: a request has the limits of one file, and never
// some of each.
type limits struct {
	file    string
	routes  gin.RoutesInfo // taken once: Gin changes its routes at the first request
	current atomic.Pointer[table]
	seen    []byte // what the file had when it was last read
	err     string // why it could not be read, "" if it could
}

// newService returns an engine that is limited by what file says.
func newService(file string) (*gin.Engine, *limits, error) {
	r := gin.New()
	l := &limits{file: file}
	r.SetTrustedProxies(nil)
	// Each caller has a budget on each route. The limiter's own limit is for a tier without limits,
	// which no table has.
	r.Use(ginlimit.New(ginlimit.PerMinute(60), ginlimit.Join(ginlimit.ByIP(), ginlimit.ByRoute()),
		ginlimit.WithTier(func(c *gin.Context) (ginlimit.Tier, error) {
			return l.current.Load().of(c.Request.Method, c.FullPath()), nil
		})))
	done := func(c *gin.Context) { c.String(http.StatusOK, "done\n") }
	r.POST("/login", done)
	r.GET("/search", done)
	r.GET("/users/:id", done)
	r.GET("/healthz", done)
	r.GET("/about", done)
	l.routes = r.Routes()
	_, err := l.load(true)
	return r, l, err
}

// load reads the file, and puts its limits in force if they are right. It reports whether it did.
// Unless again, a file that is as it was is left alone.
func (l *limits) load(again bool) (bool, error) {
	text, err := os.ReadFile(l.file)
	if err != nil {
		if !again && err.Error() == l.err {
			return false, nil
		}
		l.err, l.seen = err.Error(), nil
		return false, fmt.Errorf("ginlimit: %w; put a file there that this program may read", err)
	}
	if !again && l.err == "" && bytes.Equal(text, l.seen) {
		return false, nil
	}
	l.err, l.seen = "", text
	t, err := parse(text, l.routes)
	if err != nil {
		return false, fmt.Errorf("ginlimit: %s: %w", l.file, err)
	}
	l.current.Store(t)
	return true, nil
}

// watch looks at the file at each interval, and when hangup says so, until ctx ends. It compares the
// content and not the time of the file, which a second change within the clock's tick would keep.
func (l *limits) watch(ctx context.Context, every time.Duration, hangup <-chan os.Signal, logger *slog.Logger) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		again := false
		select {
		case <-ctx.Done():
			return
		case <-hangup:
			again = true
		case <-ticker.C:
		}
		switch swapped, err := l.load(again); {
		case err != nil:
			logger.Error(err.Error() + "; until then the limits stay as they were")
		case swapped:
			logger.Info("the limits are those of the file now", "file", l.file)
		}
	}
}

const usage = `Listening on %[1]s. %[2]s has the limits of each route:

    for i in $(seq 6); do curl -s -o /dev/null -w '%%{http_code}\n' -X POST http://%[1]s/login; done

The sixth log-in is refused. Change 5/15m there to 8/15m, and three more pass, because the five
still count. Change it to 8/15x, and see what is logged here.

`

func main() {
	gin.SetMode(gin.ReleaseMode)
	file := cmp.Or(os.Getenv("LIMITS"), "routes/limits.yaml")
	engine, limits, err := newService(file)
	if err != nil {
		log.Fatal(err)
	}
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	go limits.watch(context.Background(), time.Second, hangup, slog.Default())

	srv := &http.Server{
		Addr:              cmp.Or(os.Getenv("ADDR"), "127.0.0.1:8080"),
		Handler:           engine,
		ReadHeaderTimeout: 5 * time.Second,
	}
	fmt.Printf(usage, srv.Addr, file)
	log.Fatal(srv.ListenAndServe())
}
