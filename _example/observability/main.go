// Observability shows what an operator sees of ginlimit: Prometheus metrics, OpenTelemetry metrics
// and traces, and a live page, through good times and bad. It starts a service and a redis-server,
// sends it load in five phases, and prints after each what the metrics say. In _example, run
//
//	go run ./observability
//
// It ends by itself, after some 15 seconds. Without redis-server on this machine it uses memory,
// and breaks that.
//
//	main.go       flags, and how the parts are put together
//	telemetry.go  Prometheus, OpenTelemetry, and the page
//	service.go    a service with two limiters, and a store that can be broken
//	load.go       the phases, and what is printed after each
//
// The live page is http://127.0.0.1:8081/console/ while it runs: see -rounds and -stay.
//
// To see it on the dashboard, let it run for longer, and a Prometheus look at it, each in a
// terminal of its own:
//
//	go run ./observability -rounds 60
//	prometheus --config.file=observability/prometheus.yml --storage.tsdb.path="$(mktemp -d)" --web.listen-address=127.0.0.1:9090
//
// and import ../contrib/prometheus/dashboard/ginlimit.json into a Grafana that has this Prometheus,
// http://127.0.0.1:9090, as a data source. For the traces, name a collector, such as Jaeger's or
// Grafana's: OpenTelemetry's variables count.
//
//	OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 OTEL_SERVICE_NAME=shop go run ./observability
package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/gin-gonic/gin"
)

// config is what the flags say.
type config struct {
	addr    string        // where clients connect
	metrics string        // where Prometheus does: not for clients, who could read how busy you are
	rounds  int           // how often the phases come
	phase   time.Duration // how long each is; the number of requests is the same
	stay    bool          // go on serving after the last
	budget  time.Duration // what a decision of Redis may take
}

func main() {
	var cfg config
	flag.StringVar(&cfg.addr, "addr", "127.0.0.1:8080", "where clients connect")
	flag.StringVar(&cfg.metrics, "metrics", "127.0.0.1:8081", "where Prometheus connects, to /metrics, and you, to /console/")
	flag.IntVar(&cfg.rounds, "rounds", 1, "how often the phases come")
	flag.DurationVar(&cfg.phase, "phase", 3*time.Second, "how long each phase is")
	flag.BoolVar(&cfg.stay, "stay", false, "go on serving after the last phase, until Ctrl-C")
	flag.DurationVar(&cfg.budget, "budget", 100*time.Millisecond, "what a decision of Redis may take")
	flag.Parse()

	gin.SetMode(gin.ReleaseMode)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process at once
	if err := run(ctx, cfg, os.Stdout); err != nil && !errors.Is(err, context.Canceled) {
		log.Fatal(err)
	}
}

// run is the whole program.
func run(ctx context.Context, cfg config, out io.Writer) (err error) {
	atEnd := func(end func() error) { err = errors.Join(err, end()) }

	public, err := net.Listen("tcp", cfg.addr)
	if err != nil {
		return err
	}
	operator, err := net.Listen("tcp", cfg.metrics)
	if err != nil {
		return errors.Join(err, public.Close())
	}
	servers := []*http.Server{newServer(), newServer()}
	defer atEnd(func() error {
		return errors.Join(servers[0].Close(), servers[1].Close(), closed(public), closed(operator))
	})

	s, err := openStore(ctx, cfg.budget)
	if err != nil {
		return err
	}
	defer atEnd(s.close)
	t, err := newTelemetry(ctx, s)
	if err != nil {
		return err
	}
	defer atEnd(func() error { return t.shutdown(context.WithoutCancel(ctx)) })

	svc, err := newService(s, t)
	if err != nil {
		return err
	}
	servers[0].Handler, servers[1].Handler = svc.router, t.handler()
	failed := make(chan error, len(servers))
	for i, listener := range []net.Listener{public, operator} {
		go func() { failed <- servers[i].Serve(listener) }()
	}

	l := &load{service: svc, out: out, pause: cfg.phase,
		url: "http://" + public.Addr().String(), metrics: "http://" + operator.Addr().String() + "/metrics"}
	l.printf("Counters are in %s. Prometheus reads %s; look at http://%s/console/\n", s.name, l.metrics, operator.Addr())
	for round := range cfg.rounds {
		if err := l.run(ctx, round); err != nil {
			return err
		}
	}
	if !cfg.stay {
		return nil
	}
	l.printf("\nTry curl -i -H 'X-User: free-me' %s/search, and look at the metrics. Ctrl-C ends it.\n", l.url)
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return nil
	}
}

func newServer() *http.Server { return &http.Server{ReadHeaderTimeout: 5 * time.Second} }

// closed closes a listener that a server may have closed.
func closed(l net.Listener) error {
	if err := l.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
