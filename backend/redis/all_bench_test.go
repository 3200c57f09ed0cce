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
	kinds := []struct {
		name string
		do   func(n int)
	}{
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
	for _, callers := range []int{1, 64} {
		b.Run(fmt.Sprint(callers), func(b *testing.B) {
			const calls = 20_000
			var micros, cpu [3]float64
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
