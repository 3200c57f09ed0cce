package redis

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/internal/testserver"
)

// BenchmarkTakeAll compares one TakeAll of three keys with one Take, and with three Takes one after
// another, in turns: what the server's CPU does for each, and how many a second are decided.
func BenchmarkTakeAll(b *testing.B) {
	server := testserver.Redis(b)
	be, err := Dial(b.Context(), server.URL(), WithTimeout(time.Minute), WithPing(), WithDenyCache(false))
	require.NoError(b, err)
	b.Cleanup(func() { _ = be.Close() })
	var limits [3][]backend.Limit
	for i := range limits {
		limits[i] = []backend.Limit{{Count: int64(36_000_000 + i), Period: time.Duration(36_000_000+i) * 100 * time.Microsecond}}
		be.Prepare(limits[i]...)
	}
	names := [3]string{"address", "user", "everybody"}
	ctx := context.Background()
	take := func(n, i int) {
		key := "everybody"
		if i < 2 {
			key = fmt.Sprint(names[i], n%1000)
		}
		res, err := be.Take(ctx, key, 1, limits[i]...)
		if err != nil || !res.Allowed {
			b.Error(res, err)
		}
	}
	kinds := []kind{
		{"take", func(n int) { take(n, 0) }},
		{"three", func(n int) { take(n, 0); take(n, 1); take(n, 2) }},
		{"all", func(n int) {
			all, err := be.TakeAll(ctx, backend.Charge{Key: fmt.Sprint("address", n%1000), Cost: 1, Limits: limits[0]},
				backend.Charge{Key: fmt.Sprint("user", n%1000), Cost: 1, Limits: limits[1]}, backend.Charge{Key: "everybody", Cost: 1, Limits: limits[2]})
			if err != nil || !all[0].Allowed || !all[1].Allowed || !all[2].Allowed {
				b.Error(all, err)
			}
		}},
	}
	compare(b, server, kinds)
}

// kind is a way to ask.
type kind struct {
	name string
	do   func(n int)
}

// BenchmarkLimits compares one Take of a token bucket, with constants in its script and without,
// with one of a calendar window and of a bucket with a ban, and with a place in flight that is
// taken and given back.
func BenchmarkLimits(b *testing.B) {
	server := testserver.Redis(b)
	be, err := Dial(b.Context(), server.URL(), WithTimeout(time.Minute), WithPing(), WithDenyCache(false))
	require.NoError(b, err)
	b.Cleanup(func() { _ = be.Close() })
	ctx := context.Background()
	bucket := backend.Limit{Count: 36_000_000, Period: time.Hour}
	ban := backend.Limit{Count: 10, Period: time.Hour}.Banning(time.Minute, time.Hour)
	be.Prepare(bucket)
	be.Prepare(bucket, ban)
	be.Prepare(bucket.WithAlgorithm(backend.FixedWindow))
	be.Prepare(backend.InFlight(100))
	take := func(name string, limits ...backend.Limit) kind {
		return kind{name, func(n int) {
			key := fmt.Sprint(name, n%1000)
			res, err := be.Take(ctx, key, 1, limits...)
			if err != nil || !res.Allowed {
				b.Error(res, err)
			}
			if limits[0].Algorithm != backend.Concurrency {
				return
			}
			if err := be.Settle(ctx, key, res, 1, 1, limits...); err != nil {
				b.Error(err)
			}
		}}
	}
	compare(b, server, []kind{
		take("bucket", bucket), take("told", bucket.WithBurst(35_999_999)), take("ban", bucket, ban),
		take("fixed", bucket.WithAlgorithm(backend.FixedWindow)), take("calendar", backend.PerCalendarMonth(36_000_000)),
		take("flight", backend.InFlight(100)),
	})
}

// compare measures kinds in turns, with some callers.
func compare(b *testing.B, server *testserver.Server, kinds []kind) {
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprint(callers), func(b *testing.B) {
			const calls = 20_000
			micros, cpu := make([]float64, len(kinds)), make([]float64, len(kinds))
			rounds := 0.0
			for b.Loop() {
				rounds++
				for i, k := range kinds {
					cpu[i] -= serverCPU(b, server)
					start := time.Now()
					var wg sync.WaitGroup
					for c := range callers {
						wg.Go(func() {
							for n := range calls / callers {
								k.do(c*7 + n)
							}
						})
					}
					wg.Wait()
					micros[i] += float64(time.Since(start).Microseconds()) / calls
					cpu[i] += serverCPU(b, server)
				}
			}
			b.ReportMetric(0, "ns/op") // of all
			for i, k := range kinds {
				b.ReportMetric(micros[i]/rounds, "µs/"+k.name)
				b.ReportMetric(cpu[i]/rounds/calls, "cpu-µs/"+k.name)
			}
		})
	}
}

// serverCPU returns how long a server has run, in µs.
func serverCPU(tb testing.TB, server *testserver.Server) float64 {
	pid := server.Info("server", "process_id")
	text, err := os.ReadFile("/proc/" + strings.TrimSpace(pid) + "/schedstat")
	if err != nil {
		tb.Skip("what a process has run is known on Linux only: ", err)
	}
	var ns float64
	_, err = fmt.Sscan(string(text), &ns)
	require.NoError(tb, err)
	return ns / 1000
}
