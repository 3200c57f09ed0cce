package redis_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/redis"
	"github.com/ginlimit/ginlimit/internal/testserver"
)

// monitor shows what a server runs.
type monitor struct {
	s     *testserver.Server
	lines *bufio.Reader
	marks int
}

func newMonitor(t *testing.T, s *testserver.Server) *monitor {
	conn, err := net.Dial("tcp", s.Addr())
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	require.NoError(t, conn.SetDeadline(time.Now().Add(time.Minute)))
	_, err = io.WriteString(conn, "MONITOR\r\n")
	require.NoError(t, err)
	m := &monitor{s: s, lines: bufio.NewReader(conn)}
	m.next(t)
	return m
}

// next returns the commands since the last call: of clients, without PING and what they say when
// they connect, which they may do at any time, and of scripts.
func (m *monitor) next(t *testing.T) (clients, scripts []string) {
	m.marks++
	mark := fmt.Sprint("mark ", m.marks)
	ask(t, m.s, "ECHO", mark)
	for {
		line, err := m.lines.ReadString('\n')
		require.NoError(t, err)
		_, command, ok := strings.Cut(line, `] "`)
		name, _, _ := strings.Cut(command, `"`)
		name = strings.ToLower(name)
		switch {
		case !ok || name == "ping" || connecting(command):
		case name == "echo" && strings.Contains(command, mark):
			return clients, scripts
		case strings.Contains(line, " lua] "):
			scripts = append(scripts, name)
			if name == "set" {
				assert.Contains(t, command, `"PX"`, "a value is written without its end")
			}
		default:
			clients = append(clients, name)
		}
	}
}

// connecting reports whether a command, as MONITOR shows it, is one of those with which rueidis
// begins a connection.
func connecting(command string) bool {
	for _, begin := range []string{`hello"`, `client" "tracking"`, `client" "setinfo"`} {
		if strings.HasPrefix(strings.ToLower(command), begin) {
			return true
		}
	}
	return false
}

// mixedLimits returns n limits of all algorithms, with room for more than 10 units.
func mixedLimits(n int) []backend.Limit {
	limits := make([]backend.Limit, n)
	for i := range limits {
		limits[i] = backend.Limit{Count: int64(20 + i), Period: time.Duration(i+1) * time.Minute, Algorithm: backend.Algorithm(i % 4)}
	}
	return limits
}

// A decision is one command, however many limits a key has, and the script reads and writes the key
// once.
func TestOneCommand(t *testing.T) {
	s := testserver.Redis(t)
	b := newTruth(t, s.Addr(), prefix())
	ctx := context.Background()
	for _, n := range []int{1, 2, 4, 8} {
		for _, first := range everyAlgorithm { // the algorithm of all limits but the others of a mix
			limits := mixedLimits(n)
			limits[0].Algorithm = first
			key := fmt.Sprint(n, first)
			for _, cost := range []int64{0, 1, 7} { // the server learns the scripts
				charge := decide(t, b, key, cost, limits...)
				require.NoError(t, b.Settle(ctx, key, charge, cost, 0, limits...))
			}
			before := calls(t, s)
			m := newMonitor(t, s)
			for _, c := range []struct {
				cost    int64
				allowed bool
				write   []string
			}{{1, true, []string{"set"}}, {7, true, []string{"set"}}, {0, true, nil}, {1000, false, nil}, {20, false, nil}} {
				res := decide(t, b, key, c.cost, limits...)
				require.Equal(t, c.allowed, res.Allowed)
				clients, scripts := m.next(t)
				assert.Equal(t, []string{"evalsha"}, clients, "%d limits, cost %d", n, c.cost)
				slices.Sort(scripts)
				assert.Equal(t, append([]string{"get"}, append(c.write, "time")...), scripts, "%d limits, cost %d", n, c.cost)
			}
			require.NoError(t, b.Settle(ctx, key, decide(t, b, key, 0, limits...), 1, 0, limits...))
			clients, _ := m.next(t)
			assert.Equal(t, []string{"evalsha", "evalsha"}, clients, "a look and a refund")
			require.NoError(t, b.Reset(ctx, key))
			clients, _ = m.next(t)
			assert.Equal(t, []string{"del"}, clients)
			assert.Equal(t, before["evalsha"]+7, calls(t, s)["evalsha"])
			assert.Equal(t, before["eval"], calls(t, s)["eval"])
		}
	}
}

// A look and a refusal under other limits than a key was charged under write nothing either, not
// even where all that a limit has is in use.
func TestOtherLimitsWriteNothing(t *testing.T) {
	s := testserver.Redis(t)
	b := newTruth(t, s.Addr(), prefix())
	clock := newSettable() // it stands still
	redis.SetClock(b, clock.micros.Load)
	charged := mixedLimits(4)
	full := []backend.Limit{{Count: 11, Period: time.Minute}}
	for i, c := range []struct{ charged, limits []backend.Limit }{
		{charged, []backend.Limit{{Count: 10, Period: time.Minute}}},
		{charged, mixedLimits(3)},
		{charged, []backend.Limit{charged[3], charged[2], charged[1], charged[0]}},
		{charged, []backend.Limit{{Count: 10, Period: time.Hour, Algorithm: backend.SlidingLog}, {Period: time.Hour}, backend.Unlimited()}},
		{charged, []backend.Limit{charged[0].WithBurst(10)}},
		{charged, append([]backend.Limit{{Count: 1000, Period: time.Second}}, charged...)},
		{charged, []backend.Limit{backend.Unlimited()}},
		{charged, []backend.Limit{{Period: time.Second}}},
		{full, full},
		{full, []backend.Limit{full[0].WithBurst(10)}},
		{full, []backend.Limit{{Count: 11, Period: time.Minute, Algorithm: backend.FixedWindow}}},
	} {
		key := fmt.Sprint(i)
		decide(t, b, key, 11, c.charged...)
		decide(t, b, key, 1000, c.limits...) // the server learns the scripts
		m := newMonitor(t, s)
		for _, cost := range []int64{0, 10, 1000} {
			res := decide(t, b, key, cost, c.limits...)
			require.True(t, res.Limit.IsUnlimited() || cost == 0 || !res.Allowed, "cost %d under %v", cost, c.limits)
			_, scripts := m.next(t)
			if len(c.limits) == 1 && (c.limits[0].Count == 0 || c.limits[0].IsUnlimited()) {
				assert.Empty(t, scripts)
			} else {
				assert.Equal(t, []string{"get"}, scripts)
			}
		}
	}
}

// A reply holds little of a log, whatever its limit was and is.
func TestRepliesAreShort(t *testing.T) {
	s := testserver.Redis(t)
	r := &callRecorder{Client: newClient(t, s.Addr(), false), scripts: map[string]string{}}
	b := redis.New(r, redis.WithPrefix(prefix()), redis.WithDenyCache(false), redis.WithTimeout(ample))
	k := keyspace{t, r.Client}
	for _, units := range []int64{1, 3} {
		clock := newSettable()
		redis.SetClock(b, clock.micros.Load)
		start, charges := clock.micros.Load(), 10_000/units
		var log []byte
		for i := range charges { // as sliding_log.lua writes them
			log = binary.BigEndian.AppendUint64(log, uint64(start+i)<<8|uint64(units))
		}
		slot := fmt.Sprintf(" l10000/3600s 0,%d,%d:%s", charges*units, len(log), log)
		last := start + charges - 1
		clock.advance(time.Minute)
		for i, limits := range [][]backend.Limit{
			{hourly(5001, backend.SlidingLog)}, {hourly(5001, backend.TokenBucket)},
			{{Count: 5001, Period: time.Minute, Algorithm: backend.SlidingLog}, hourly(20_000, backend.SlidingLog)},
		} {
			key := fmt.Sprint(units, i)
			k.set(redis.StateKey(b, key), fmt.Sprint(last/1_000_000, " ", last%1_000_000, slot, slot, slot)) // two are no limit's
			res := decide(t, b, key, 1, limits...)
			require.False(t, res.Allowed)
			require.Less(t, len(r.calls[len(r.calls)-1].reply), 200)
			gone := (charges*units - 5000 + units - 1) / units // so many charges have to leave
			require.Equal(t, time.UnixMicro(start+gone-1).Add(time.Hour), res.At.Add(res.RetryAfter))
			require.Equal(t, time.UnixMicro(start+charges-1).Add(time.Hour), res.At.Add(res.ResetAfter))
		}
	}
}

// A key may have more limits than Lua's patterns have captures.
func TestManyLimits(t *testing.T) {
	b := newTruth(t, testserver.Redis(t).Addr(), prefix())
	for _, a := range everyAlgorithm {
		var limits []backend.Limit
		for i := range 40 {
			limits = append(limits, backend.Limit{Count: int64(2 + i), Period: time.Duration(1+i) * time.Minute, Algorithm: a})
		}
		for i := range 3 {
			require.Equal(t, i < 2, decide(t, b, a.String(), 1, limits...).Allowed)
		}
	}
}

// A server that forgets its scripts costs nobody a decision, and nobody is charged twice.
func TestScriptFlush(t *testing.T) {
	s := testserver.Redis(t)
	p := prefix()
	const takes, callers, count = 4000, 16, 1500
	limits := []backend.Limit{hourly(count, backend.FixedWindow), hourly(takes, backend.SlidingLog)}
	var admitted, flushes atomic.Int64
	done := make(chan struct{})
	var flusher, wg sync.WaitGroup
	flusher.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				_, err := s.Do("SCRIPT", "FLUSH")
				assert.NoError(t, err)
				flushes.Add(1)
			}
		}
	})
	for caller := range callers {
		b := newTruth(t, s.Addr(), p)
		wg.Go(func() {
			for range takes / callers {
				res, err := b.Take(context.Background(), "key", 1, limits...)
				assert.NoError(t, err)
				if err == nil && res.Allowed {
					admitted.Add(1)
				}
				if caller == 0 {
					assert.NoError(t, b.Settle(context.Background(), "other", res, 1, 0, limits...))
				}
			}
		})
	}
	wg.Wait()
	close(done)
	flusher.Wait()
	assert.Equal(t, int64(count), admitted.Load())
	assert.Greater(t, flushes.Load(), int64(20))
}

// After a server was gone decisions work again, without anybody's help.
func TestServerRestarts(t *testing.T) {
	s := testserver.Redis(t)
	ctx := context.Background()
	b := newInstance(t, s.Addr(), prefix(), redis.WithTimeout(300*time.Millisecond))
	limits := mixedLimits(4)
	require.True(t, decide(t, b, "key", 5, limits...).Allowed)
	for range 2 {
		s.Kill()
		for range 3 {
			_, err := b.Take(ctx, "key", 1, limits...)
			require.ErrorIs(t, err, backend.ErrUnavailable)
			require.ErrorIs(t, b.Settle(ctx, "key", backend.Result{Allowed: true, At: time.Now()}, 1, 0, limits...), backend.ErrUnavailable)
			require.ErrorIs(t, b.Reset(ctx, "key"), backend.ErrUnavailable)
		}
		require.NoError(t, s.Restart())
		var res backend.Result
		require.Eventually(t, func() (ok bool) {
			var err error
			res, err = b.Take(ctx, "key", 1, limits...)
			return err == nil
		}, soon, 10*time.Millisecond)
		assert.True(t, res.Allowed)
		for range 50 {
			decide(t, b, "key", 0, limits...)
		}
	}
}

// proxy passes connections on to a server, each way as much later as delay says. While it cuts it
// lets the server run scripts and deletions, and closes the connection instead of passing the reply
// on.
type proxy struct {
	net.Listener
	target string
	delay  time.Duration
	cut    atomic.Bool
	cuts   atomic.Int64
}

func newProxy(t *testing.T, target string, delay time.Duration) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{Listener: l, target: target, delay: delay}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { p.serve(conn) })
		}
	})
	t.Cleanup(wg.Wait) // after the clients, which are made later, are closed
	t.Cleanup(func() { _ = l.Close() })
	return p
}

func (p *proxy) serve(client net.Conn) {
	defer client.Close()
	upstream, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	var doomed atomic.Bool
	done := make(chan struct{})
	go func() { // the server's replies
		defer close(done)
		defer client.Close()
		buf := make([]byte, 64<<10)
		for {
			n, err := upstream.Read(buf)
			if err != nil {
				return
			}
			if doomed.Load() {
				p.cuts.Add(1)
				return
			}
			time.Sleep(p.delay)
			if _, err := client.Write(buf[:n]); err != nil {
				return
			}
		}
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := client.Read(buf)
		if err != nil {
			break
		}
		if p.cut.Load() && (bytes.Contains(buf[:n], []byte("EVAL")) || bytes.Contains(buf[:n], []byte("DEL"))) {
			doomed.Store(true)
		}
		time.Sleep(p.delay)
		if _, err := upstream.Write(buf[:n]); err != nil {
			break
		}
	}
	if !doomed.Load() {
		_ = upstream.Close()
	}
	<-done
	_ = upstream.Close()
}

// A call whose reply is lost may have been run: it fails, and is not sent again.
func TestNothingIsChargedTwice(t *testing.T) {
	s := testserver.Redis(t)
	ctx := context.Background()
	for _, a := range everyAlgorithm {
		t.Run(a.String(), func(t *testing.T) {
			limit := backend.Limit{Count: 1000, Period: backend.MaxPeriod, Algorithm: a}
			keys, way := prefix(), newProxy(t, s.Addr(), 0)
			b, truth := newInstance(t, way.Addr().String(), keys), newTruth(t, s.Addr(), keys)
			charge := decide(t, b, "key", 1, limit)
			require.NoError(t, b.Settle(ctx, "unknown", charge, 1, 0, limit)) // the server learns the script
			took, lost := 1, 0
			for i := range 60 {
				cut := i%3 != 0
				way.cut.Store(cut)
				res, err := b.Take(ctx, "key", 1, limit)
				took++
				if err != nil {
					require.ErrorIs(t, err, backend.ErrUnavailable)
					require.Zero(t, res)
					lost++
				} else {
					require.False(t, cut, "an answer without a reply")
				}
			}
			require.GreaterOrEqual(t, lost, 40)
			require.Positive(t, way.cuts.Load())
			used := 1000 - decide(t, truth, "key", 0, limit).Remaining
			require.LessOrEqual(t, used, int64(took))
			require.Equal(t, int64(took), used, "every call arrived once")

			// The same of what is given back: each call once.
			way.cut.Store(false)
			require.Eventually(t, func() bool {
				var err error
				charge, err = b.Take(ctx, "refunds", 100, limit)
				return err == nil
			}, soon, time.Millisecond)
			left := decide(t, truth, "refunds", 0, limit).Remaining
			for range 10 {
				way.cut.Store(true)
				require.ErrorIs(t, b.Settle(ctx, "refunds", charge, 1, 0, limit), backend.ErrUnavailable)
				way.cut.Store(false)
				decide(t, b, "refunds", 0, limit)
			}
			require.Equal(t, left+10, decide(t, truth, "refunds", 0, limit).Remaining)

			// Many at once share a connection: none of them is sent again either.
			var calls, answers atomic.Int64
			var wg sync.WaitGroup
			for caller := range 8 {
				wg.Go(func() {
					for i := range 25 {
						way.cut.Store((caller+i)%4 == 0)
						calls.Add(1)
						if _, err := b.Take(ctx, "shared", 1, limit); err == nil {
							answers.Add(1)
						}
					}
				})
			}
			wg.Wait()
			used = 1000 - decide(t, truth, "shared", 0, limit).Remaining
			assert.LessOrEqual(t, used, calls.Load())
			assert.GreaterOrEqual(t, used, answers.Load())
			assert.Less(t, answers.Load(), calls.Load())
		})
	}
}

// Whatever happens to keys, each has an end, and nobody looks for keys.
func TestEveryKeyEnds(t *testing.T) {
	s := testserver.Redis(t)
	p := prefix()
	ctx := context.Background()
	instances := []*redis.Backend{newInstance(t, s.Addr(), p), newInstance(t, s.Addr(), p), newTruth(t, s.Addr(), p)}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var wg sync.WaitGroup
	for worker := range 4 {
		r := rand.New(rand.NewPCG(seed, uint64(worker)))
		wg.Go(func() {
			for range 1500 {
				b := instances[r.IntN(len(instances))]
				key := fmt.Sprint("key", r.IntN(100))
				limits := make([]backend.Limit, 1+r.IntN(4))
				for i := range limits {
					limits[i] = backend.Limit{
						Count: 1 + r.Int64N(50), Period: time.Duration(1+r.IntN(1000)) * time.Duration(1+r.IntN(1000)) * time.Millisecond,
						Algorithm: backend.Algorithm(r.IntN(4)),
					}
				}
				cost := r.Int64N(5)
				res, err := b.Take(ctx, key, cost, limits...)
				assert.NoError(t, err)
				if r.IntN(3) == 0 {
					assert.NoError(t, b.Settle(ctx, key, res, cost, 0, limits...))
				}
				if r.IntN(20) == 0 {
					assert.NoError(t, b.Reset(ctx, key))
				}
			}
		})
	}
	wg.Wait()
	for name, n := range calls(t, s) {
		assert.Contains(t, []string{
			"evalsha", "eval", "get", "set", "del", "time", // the backend's and its scripts'
			"hello", "client|tracking", "client|caching", "client|setinfo", "client|setname", "select", // the client's
		}, name, "called %d times", n)
	}
	keys := ask(t, s, "KEYS", "*").([]any)
	assert.Greater(t, len(keys), 50)
	longest := 2 * 1000 * time.Second // two periods
	for _, key := range keys {
		ms := ask(t, s, "PTTL", key.(string)).(int64)
		assert.NotEqual(t, int64(-1), ms, "%s has no end", key)
		assert.LessOrEqual(t, ms, longest.Milliseconds(), "%s", key)
		assert.True(t, strings.HasPrefix(key.(string), p+"1:{"), "%s", key)
	}
}

// Many processes, with and without denials remembered, share a limit exactly.
func TestInstancesShareExactly(t *testing.T) {
	s := testserver.Redis(t)
	p := prefix()
	const count, takes, callers = 1000, 20_000, 64
	instances := make([]*redis.Backend, 8)
	for i := range instances {
		instances[i] = newInstance(t, s.Addr(), p, redis.WithDenyCache(i%4 > 0))
	}
	for _, a := range everyAlgorithm {
		t.Run(a.String(), func(t *testing.T) {
			limit := hourly(count, a)
			first := decide(t, instances[0], a.String(), 0, limit).At
			var admitted, local atomic.Int64
			var wg sync.WaitGroup
			for caller := range callers {
				wg.Go(func() {
					for range takes/callers + 1 {
						res, err := instances[caller%len(instances)].Take(context.Background(), a.String(), 1, limit)
						assert.NoError(t, err)
						if res.Allowed {
							admitted.Add(1)
						}
						if res.Source == backend.SourceDenyCache {
							local.Add(1)
						}
					}
				})
			}
			wg.Wait()
			want := int64(count)
			if a == backend.TokenBucket { // refills one unit in 3.6 s
				took := decide(t, instances[0], a.String(), 0, limit).At.Sub(first)
				want += int64(took / (time.Hour / count))
				assert.LessOrEqual(t, admitted.Load(), want)
				want = min(want, max(admitted.Load(), count))
			}
			assert.Equal(t, want, admitted.Load())
			assert.Positive(t, local.Load())
		})
	}
}
