package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/contrib/console"
	ginlimitotel "github.com/ginlimit/ginlimit/contrib/otel"
	ginlimitprom "github.com/ginlimit/ginlimit/contrib/prometheus"
)

// telemetry is all that watches the limiters. A service needs one of the first two observers,
// Prometheus' or OpenTelemetry's. The third is a page that shows who is refused now.
type telemetry struct {
	registry *prometheus.Registry
	prom     *ginlimitprom.Collector
	otel     *ginlimitotel.Observer
	page     *console.Console

	meters  *metric.MeterProvider
	tracers *sdktrace.TracerProvider
	reader  *metric.ManualReader
	spans   *sample
}

func newTelemetry(ctx context.Context, s *store) (*telemetry, error) {
	t := &telemetry{registry: prometheus.NewRegistry(), reader: metric.NewManualReader(), spans: &sample{}}

	var opts []ginlimitprom.Option
	shown := []console.Option{console.WithKeys(true)} // these users are nobody
	if s.breakers != nil {
		opts = append(opts, ginlimitprom.WithBreakers("redis", s.breakers))
		shown = append(shown, console.WithBreakers("redis", s.breakers))
	}
	t.page = console.New(nil, shown...)
	t.prom = ginlimitprom.New(opts...)
	if err := t.registry.Register(t.prom); err != nil {
		return nil, err
	}

	metrics := []metric.Option{metric.WithReader(t.reader)}
	traces := []sdktrace.TracerProviderOption{sdktrace.WithSyncer(t.spans)}
	if os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" {
		toMetrics, err := otlpmetrichttp.New(ctx)
		if err != nil {
			return nil, err
		}
		toTraces, err := otlptracehttp.New(ctx)
		if err != nil {
			return nil, err
		}
		metrics = append(metrics, metric.WithReader(metric.NewPeriodicReader(toMetrics)))
		traces = append(traces, sdktrace.WithBatcher(toTraces))
	}
	t.meters, t.tracers = metric.NewMeterProvider(metrics...), sdktrace.NewTracerProvider(traces...)
	var err error
	t.otel, err = ginlimitotel.New(ginlimitotel.WithMeterProvider(t.meters))
	return t, err
}

// observe is what each limiter gets.
func (t *telemetry) observe() []ginlimit.Option {
	return []ginlimit.Option{ginlimit.WithObserver(t.prom.Observe), ginlimit.WithObserver(t.otel.Observe), ginlimit.WithObserver(t.page.Observe)}
}

// handler serves /metrics and the page.
func (t *telemetry) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(t.registry, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	mux.Handle("/console/", http.StripPrefix("/console", t.page))
	return mux
}

// span is middleware that starts a span for each request, before the limiters. It stands for
// otelgin, or for otelhttp around the engine, which tell more.
func (t *telemetry) span(c *gin.Context) {
	ctx, span := t.tracers.Tracer("example").Start(c.Request.Context(), c.Request.Method+" "+c.FullPath(),
		trace.WithSpanKind(trace.SpanKindServer))
	defer span.End()
	c.Request = c.Request.WithContext(ctx)
	c.Next()
	span.SetAttributes(attribute.Int("http.response.status_code", c.Writer.Status()))
}

func (t *telemetry) shutdown(ctx context.Context) error {
	return errors.Join(t.meters.Shutdown(ctx), t.tracers.Shutdown(ctx))
}

// counts returns OpenTelemetry's counters.
func (t *telemetry) counts(ctx context.Context) (series, error) {
	var all metricdata.ResourceMetrics
	if err := t.reader.Collect(ctx, &all); err != nil {
		return nil, err
	}
	counts := series{}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			data, ok := m.Data.(metricdata.Sum[int64])
			if !ok {
				continue
			}
			for _, p := range data.DataPoints {
				counts[m.Name+"{"+text(p.Attributes.ToSlice())+"}"] = float64(p.Value)
			}
		}
	}
	return counts, nil
}

// text writes attributes in one line.
func text(attrs []attribute.KeyValue) string {
	var all []string
	for _, a := range attrs {
		all = append(all, string(a.Key)+"="+a.Value.String())
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// sample is an exporter that keeps the first spans that a limiter has something to say about, as
// lines for people.
type sample struct {
	mu    sync.Mutex
	lines []string
}

// sampleSize is how many spans are kept.
const sampleSize = 2

// ExportSpans implements [sdktrace.SpanExporter].
func (s *sample) ExportSpans(_ context.Context, spans []sdktrace.ReadOnlySpan) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, span := range spans {
		if len(span.Events()) == 0 || len(s.lines) == sampleSize {
			continue
		}
		line := fmt.Sprintf("%s, trace %v", span.Name(), span.SpanContext().TraceID())
		for _, e := range span.Events() {
			line += fmt.Sprintf("\n        %s: %s", e.Name, text(e.Attributes))
		}
		s.lines = append(s.lines, line)
	}
	return nil
}

// Shutdown implements [sdktrace.SpanExporter].
func (s *sample) Shutdown(context.Context) error { return nil }

// take returns what was kept, and makes room.
func (s *sample) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	lines := s.lines
	s.lines = nil
	return lines
}
