package redis_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/assert"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/redis"
	"github.com/ginlimit/ginlimit/internal/testserver"
)

// countedConn is not a *net.TCPConn, in which rueidis would turn TCP's own gathering on.
type countedConn struct {
	net.Conn
	writes *atomic.Int64
}

func (c countedConn) Write(b []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(b)
}

// countWrites has writes counted. With atOnce Dial does not gather commands, because TCP seems to.
func countWrites(writes *atomic.Int64, atOnce bool) redis.Option {
	return redis.WithClientOption(func(o *rueidis.ClientOption) {
		o.DisableTCPNoDelay = atOnce
		o.DialCtxFn = func(ctx context.Context, addr string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
			c, err := d.DialContext(ctx, "tcp", addr)
			return countedConn{c, writes}, err
		}
	})
}

// takeFrom makes n decisions from so many goroutines.
func takeFrom(tb testing.TB, b *redis.Backend, goroutines, n int) {
	tb.Helper()
	limit := backend.Limit{Count: 1_000_000, Period: dialLong}
	var wg sync.WaitGroup
	var left atomic.Int64
	left.Store(int64(n))
	for g := range goroutines {
		wg.Go(func() {
			key := fmt.Sprint("gather", g)
			for left.Add(-1) >= 0 {
				if _, err := b.Take(tb.Context(), key, 1, limit); !assert.NoError(tb, err) {
					return
				}
			}
		})
	}
	wg.Wait()
}

// A write of many lets those run first who are ready to; a write of few goes out at once. Go's
// scheduler may now and then do otherwise.
func TestConnGathersCommandsOfMany(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	const writes = 200
	ranFirst := func(calls int) (n int) {
		var ran atomic.Bool
		c := redis.NewConn(writer(func([]byte) {
			if ran.Load() {
				n++
			}
		}), calls)
		for range writes {
			var wg sync.WaitGroup
			ran.Store(false)
			wg.Go(func() { ran.Store(true) })
			_, err := c.Write([]byte("PING\r\n"))
			assert.NoError(t, err)
			wg.Wait()
		}
		return n
	}
	assert.Greater(t, ranFirst(redis.GatherFrom), writes*9/10)
	assert.Less(t, ranFirst(redis.GatherFrom-1), writes/10)
	assert.Less(t, ranFirst(0), writes/10)
}

// writer is a connection that is only written to.
type writer func([]byte)

func (writer) Close() error                     { return nil }
func (writer) Read([]byte) (int, error)         { return 0, io.EOF }
func (w writer) Write(b []byte) (int, error)    { w(b); return len(b), nil }
func (writer) LocalAddr() net.Addr              { return nil }
func (writer) RemoteAddr() net.Addr             { return nil }
func (writer) SetDeadline(time.Time) error      { return nil }
func (writer) SetReadDeadline(time.Time) error  { return nil }
func (writer) SetWriteDeadline(time.Time) error { return nil }

// Where many ask at once, several of their commands go out with one write; a single caller has one
// write a decision.
func TestDialGathersCommands(t *testing.T) {
	server := testserver.Redis(t)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // or writes depend on what else the machine does
	const decisions = 3200
	for goroutines, most := range map[int]int64{1: decisions + 100, 64: decisions / 4} {
		var writes atomic.Int64
		b := dialBackend(t, server.URL(), countWrites(&writes, false))
		takeFrom(t, b, goroutines, decisions/4) // scripts are loaded, the server is checked
		writes.Store(0)
		takeFrom(t, b, goroutines, decisions)
		assert.LessOrEqual(t, writes.Load(), most, goroutines)
	}
}

func BenchmarkDial(b *testing.B) {
	server := testserver.Redis(b)
	for _, goroutines := range []int{1, 8, 16, 32, 64, 128, 512} {
		for name, atOnce := range map[string]bool{"gathered": false, "at once": true} {
			b.Run(fmt.Sprint(goroutines, "/", name), func(b *testing.B) {
				var n atomic.Int64
				limiter := dialBackend(b, server.URL(), countWrites(&n, atOnce))
				takeFrom(b, limiter, goroutines, goroutines)
				n.Store(0)
				b.ResetTimer()
				takeFrom(b, limiter, goroutines, b.N)
				b.ReportMetric(float64(b.N)/float64(n.Load()), "commands/write")
			})
		}
	}
}
