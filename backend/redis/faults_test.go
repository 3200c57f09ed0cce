package redis_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/redis"
	"github.com/ginlimit/ginlimit/internal/testserver"
)

// The fault suite: 1,000 callers at once while something breaks. For each fault it checks that no
// more was admitted than the limit, times the number of times that the fault took the state away,
// that every decision ended soon, that decisions are reached again afterwards, and that nothing is
// left behind; and it prints what it saw as a table. FAULTS=long takes its time: make test-faults.

const (
	faultCallers = 1000
	faultKeys    = 20
	faultCount   = 5000 // a key may have in an hour: with a long fault, about what is asked for until it strikes
)

var faultLimit = backend.Limit{Count: faultCount, Period: time.Hour, Algorithm: backend.FixedWindow}

type fault struct {
	name    string
	lost    int64 // how often the fault takes the state away
	url     func(t *testing.T) string
	option  func(*rueidis.ClientOption)
	strike  func(t *testing.T) // breaks it
	mend    func(t *testing.T)
	noErrs  bool // the fault must not be noticed
	mending time.Duration
}

func faultLength() time.Duration {
	if os.Getenv("FAULTS") == "long" {
		return 3 * time.Second
	}
	return 300 * time.Millisecond
}

func TestFaults(t *testing.T) {
	var server *testserver.Server
	single := func(t *testing.T) string {
		server = testserver.Redis(t)
		return server.URL()
	}
	do := func(args ...string) func(t *testing.T) {
		return func(t *testing.T) {
			_, err := server.Do(args...)
			require.NoError(t, err)
		}
	}
	nothing := func(*testing.T) {}
	restart := func(t *testing.T) { require.NoError(t, server.Restart()) }

	var proxy *faultProxy
	proxied := func(t *testing.T) string {
		server = testserver.Redis(t)
		proxy = newFaultProxy(t, server.Addr())
		return "redis://" + proxy.addr
	}
	through := func(change func(*faultProxy)) func(*testing.T) { return func(*testing.T) { change(proxy) } }

	var cluster *testserver.Cluster
	clustered := func(t *testing.T) string {
		cluster = testserver.RedisCluster(t, 3, 1)
		return cluster.URL()
	}
	var sentinel *testserver.Sentinel
	var second *testserver.Server
	var target atomic.Value

	rows := []string{
		"| fault | decided | failed | of these at once | slowest | admitted / limit | goroutines before, after | heap before, after |",
		"|---|---:|---:|---:|---:|---:|---:|---:|",
	}
	for _, f := range []fault{
		{name: "nothing", url: single, strike: nothing, mend: nothing, noErrs: true},
		{name: "kill -9, restart without its data", lost: 1, url: single, strike: func(*testing.T) { server.Kill() }, mend: restart},
		{name: "SIGSTOP, SIGCONT", url: single, strike: func(*testing.T) { server.Pause() }, mend: func(*testing.T) { server.Resume() }},
		{name: "SCRIPT FLUSH", url: single, strike: do("SCRIPT", "FLUSH"), mend: nothing, noErrs: true},
		{name: "FLUSHALL", lost: 1, url: single, strike: do("FLUSHALL"), mend: nothing, noErrs: true},
		{name: "out of memory", url: single, strike: do("CONFIG", "SET", "maxmemory", "1"), mend: do("CONFIG", "SET", "maxmemory", "0")},
		{name: "read-only replica", url: single, strike: do("REPLICAOF", "127.0.0.1", "1"), mend: do("REPLICAOF", "NO", "ONE")},
		{name: "all connections killed", url: single, strike: do("CLIENT", "KILL", "TYPE", "normal"), mend: nothing},
		{name: "answers 20 ms late", url: proxied, strike: through(func(p *faultProxy) { p.delay.Store(int64(20 * time.Millisecond)) }),
			mend: through(func(p *faultProxy) { p.delay.Store(0) })},
		{name: "answers 800 ms late", url: proxied, strike: through(func(p *faultProxy) { p.delay.Store(int64(800 * time.Millisecond)) }),
			mend: through(func(p *faultProxy) { p.delay.Store(0) })},
		{name: "answers cut off half-way", url: proxied, strike: through(func(p *faultProxy) { p.cut.Store(true) }),
			mend: through(func(p *faultProxy) { p.cut.Store(false) })},
		{name: "answers swallowed", url: proxied, strike: through(func(p *faultProxy) { p.swallow.Store(true) }),
			mend: through(func(p *faultProxy) { p.swallow.Store(false); p.closeAll() })},
		{name: "connections half closed", url: proxied, strike: through((*faultProxy).halfClose), mend: nothing},
		{name: "the name leads to another server", lost: 1, url: func(t *testing.T) string {
			server, second = testserver.Redis(t), testserver.Redis(t)
			target.Store(server.Addr())
			return "redis://limits.test:6379"
		}, option: func(o *rueidis.ClientOption) {
			o.DialCtxFn = func(ctx context.Context, _ string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
				return d.DialContext(ctx, "tcp", target.Load().(string))
			}
		}, strike: func(*testing.T) {
			target.Store(second.Addr())
			server.Kill()
		}, mend: nothing},
		{name: "slots migrate", url: clustered, strike: func(t *testing.T) {
			for i := range 5 {
				key := fmt.Sprintf("gl1:{fault%d}", i)
				from, to := cluster.Owner(key), cluster.Servers[0]
				if from == to {
					to = cluster.Servers[1]
				}
				require.NoError(t, cluster.MigrateSlot(cluster.Slot(key), to, nil))
			}
		}, mend: nothing, noErrs: true},
		{name: "a master of the Cluster killed -9", lost: 1, url: clustered, strike: func(*testing.T) { cluster.Servers[0].Kill() }, mend: nothing, mending: 30 * time.Second},
		{name: "the master killed -9, Sentinel", lost: 1, url: func(t *testing.T) string {
			sentinel = testserver.RedisSentinel(t, 1)
			return sentinel.URL()
		}, strike: func(*testing.T) { sentinel.Master.Kill() }, mend: nothing, mending: 30 * time.Second},
	} {
		t.Run(f.name, func(t *testing.T) { rows = append(rows, f.run(t)) })
	}
	t.Logf("%d callers; a decision has %v, or a minute where none may fail\n%s", faultCallers, redis.DefaultTimeout, strings.Join(rows, "\n"))
}

func (f *fault) run(t *testing.T) string {
	url := f.url(t)
	goroutines, heap := settled()
	opts := []redis.Option{redis.WithPing()}
	if f.noErrs {
		opts = append(opts, redis.WithTimeout(ample)) // a busy machine must not be what is noticed
	}
	if f.option != nil {
		opts = append(opts, redis.WithClientOption(f.option))
	}
	b, err := redis.Dial(t.Context(), url, opts...)
	require.NoError(t, err)

	var decided, failed, atOnce, slowest atomic.Int64
	var admitted [faultKeys]atomic.Int64
	kinds := sync.Map{}
	take := func(i int) error {
		start := time.Now()
		var res backend.Result
		var err error
		name := func(i int) string { return fmt.Sprint("fault", i%faultKeys) }
		switch ctx := context.Background(); i / faultKeys % 4 {
		default:
			res, err = b.Take(ctx, name(i), 1, faultLimit)
		case 1: // and one more key
			var all []backend.Result
			limits := []backend.Limit{faultLimit}
			all, err = b.TakeAll(ctx, backend.Charge{Key: name(i), Cost: 1, Limits: limits}, backend.Charge{Key: name(i + 7), Cost: 1, Limits: limits})
			if err == nil && all[0].Allowed && all[1].Allowed {
				res = all[0]
				admitted[(i+7)%faultKeys].Add(1)
			}
		case 2: // for more than it costs: if that is not said in time, it stays charged
			res, err = b.Take(ctx, name(i), 3, faultLimit)
			if err == nil && res.Allowed {
				err = b.Settle(ctx, name(i), res, 3, 1, faultLimit)
			}
		}
		took := int64(time.Since(start))
		for old := slowest.Load(); took > old && !slowest.CompareAndSwap(old, took); old = slowest.Load() {
		}
		switch {
		case err == nil && res.Allowed:
			admitted[i%faultKeys].Add(1)
			decided.Add(1)
		case err == nil:
			decided.Add(1)
		default:
			assert.ErrorIs(t, err, backend.ErrUnavailable)
			failed.Add(1)
			if errors.Is(err, redis.ErrBreakerOpen) {
				atOnce.Add(1)
			}
			kinds.Store(err.Error(), true)
		}
		return err
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range faultCallers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for n := i; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				_ = take(n)
				time.Sleep(5 * time.Millisecond)
			}
		}()
	}
	time.Sleep(faultLength() / 3)
	f.strike(t)
	time.Sleep(faultLength())
	f.mend(t)
	time.Sleep(faultLength() / 3)
	close(stop)
	wg.Wait()

	mending := max(f.mending, soon)
	require.Eventually(t, func() bool { // all keys are decided again
		for i := range faultKeys {
			if take(i) != nil {
				return false
			}
		}
		return true
	}, mending, 20*time.Millisecond)
	var most int64
	for i := range admitted {
		most = max(most, admitted[i].Load())
	}
	assert.LessOrEqual(t, most, faultCount*(1+f.lost), "the most that one key had")
	assert.Less(t, time.Duration(slowest.Load()), time.Minute, "a decision hung") // however busy the machine is
	if f.noErrs {
		kinds.Range(func(text, _ any) bool { t.Errorf("a decision failed: %v", text); return true })
	}
	b.Close()
	var after int
	require.Eventually(t, func() bool {
		after = runtime.NumGoroutine()
		return after <= goroutines+5
	}, soon, 20*time.Millisecond, "goroutines are left")
	_, left := settled()
	assert.Less(t, left, heap+32<<20, "bytes of heap")
	return fmt.Sprintf("| %s | %d | %d | %d | %v | %d / %d | %d, %d | %d, %d kB |", f.name, decided.Load(), failed.Load(), atOnce.Load(),
		time.Duration(slowest.Load()).Round(time.Millisecond), most, faultCount, goroutines, after, heap>>10, left>>10)
}

// settled returns the number of goroutines and the bytes of live heap.
func settled() (goroutines int, heap uint64) {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return runtime.NumGoroutine(), m.HeapAlloc
}

// The server's clock is the only one: a client whose own is an hour off decides as every other.
func TestAClientWhoseClockIsOff(t *testing.T) {
	for _, off := range []time.Duration{-time.Hour, 0, time.Hour} {
		server := miniredis.RunT(t)
		server.ClockTTL(true)
		now := time.Now().Add(off)
		server.SetTime(now)
		b := redis.New(newClient(t, server.Addr(), false), redis.WithDenyCache(false), redis.WithTimeout(5*time.Second))
		limit := backend.Limit{Count: 2, Period: time.Minute, Algorithm: backend.FixedWindow}
		var got []string
		for range 4 {
			res, err := b.Take(t.Context(), "k", 1, limit)
			require.NoError(t, err)
			got = append(got, fmt.Sprint(res.Allowed, res.Remaining, res.RetryAfter, res.At.Equal(now.Truncate(time.Microsecond))))
			now = now.Add(20 * time.Second)
			server.SetTime(now)
		}
		assert.Equal(t, []string{"true 1 0s true", "true 0 0s true", "false 0 20s true", "true 1 0s true"}, got, "%v off", off)
	}
}

// faultProxy stands before a server and mistreats what it answers.
type faultProxy struct {
	addr    string
	delay   atomic.Int64
	cut     atomic.Bool
	swallow atomic.Bool
	mu      sync.Mutex
	conns   map[*net.TCPConn]bool // to clients
}

func newFaultProxy(t *testing.T, server string) *faultProxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &faultProxy{addr: l.Addr().String(), conns: map[*net.TCPConn]bool{}}
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("tcp", server)
			if err != nil {
				conn.Close()
				continue
			}
			client := conn.(*net.TCPConn)
			p.mu.Lock()
			p.conns[client] = true
			p.mu.Unlock()
			wg.Add(2)
			go func() {
				defer wg.Done()
				_, _ = io.Copy(up, client)
				up.Close()
			}()
			go func() {
				defer wg.Done()
				p.answers(client, up)
				client.Close()
				up.Close()
				p.mu.Lock()
				delete(p.conns, client)
				p.mu.Unlock()
			}()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		p.closeAll()
		wg.Wait()
	})
	return p
}

func (p *faultProxy) answers(client *net.TCPConn, up net.Conn) {
	buf := make([]byte, 32<<10)
	for {
		n, err := up.Read(buf)
		if err != nil {
			return
		}
		time.Sleep(time.Duration(p.delay.Load()))
		switch {
		case p.swallow.Load():
		case p.cut.Load():
			_, _ = client.Write(buf[:n/2])
			return
		default:
			if _, err := client.Write(buf[:n]); err != nil {
				return
			}
		}
	}
}

func (p *faultProxy) closeAll() { p.each(func(c *net.TCPConn) { c.Close() }) }

func (p *faultProxy) halfClose() { p.each(func(c *net.TCPConn) { _ = c.CloseWrite() }) }

func (p *faultProxy) each(f func(*net.TCPConn)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		f(c)
	}
}
