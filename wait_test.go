package ginlimit_test

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/memory"
)

// queue sends requests one after the other, without waiting for their answers, inside a synctest
// bubble.
type queue struct {
	r     http.Handler
	start time.Time
	wg    sync.WaitGroup
	mu    sync.Mutex
	order []string // "ID code at a time", as the answers came
}

func newQueue(limit ginlimit.Limit, key ginlimit.KeyFunc, opts ...ginlimit.Option) *queue {
	return newQueueOf(must(ginlimit.NewLimiter(limit, key, opts...)))
}

// newQueueOf is newQueue for a limiter, with handlers after it.
func newQueueOf(l *ginlimit.Limiter, handlers ...gin.HandlerFunc) *queue {
	return &queue{start: time.Now(), r: engine(append([]gin.HandlerFunc{l.Handle}, handlers...)...)}
}

func (q *queue) send(id string, edits ...func(*http.Request)) {
	q.wg.Go(func() {
		code := send(q.r, edits...).Code
		q.mu.Lock()
		defer q.mu.Unlock()
		q.order = append(q.order, id+" "+strconv.Itoa(code)+" "+time.Since(q.start).String())
	})
	synctest.Wait()
}

func (q *queue) wait() []string {
	q.wg.Wait()
	return q.soFar()
}

// soFar returns the answers that came so far.
func (q *queue) soFar() []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Clone(q.order)
}

func cost(n int) func(*http.Request) { return header("Cost", strconv.Itoa(n)) }

func TestLeakyBucket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(ginlimit.PerSecond(10).WithBurst(1), ginlimit.Global(),
			ginlimit.WithMaxWait(500*time.Millisecond))
		for _, id := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
			q.send(id)
		}
		time.Sleep(250 * time.Millisecond)
		synctest.Wait()
		q.send("i")
		q.send("j")
		q.send("k")
		assert.Equal(t, []string{
			"a 200 0s", "g 429 0s", "h 429 0s", "b 200 100ms", "c 200 200ms", "k 429 250ms",
			"d 200 300ms", "e 200 400ms", "f 200 500ms", "i 200 600ms", "j 200 700ms",
		}, q.wait())
	})
}

func TestLeakyBucketIsEvenForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// 7 a second does not divide. A bucket of one is full within the last µs and keeps no more,
		// so that each step is 1/7 s to the µs above.
		q := newQueue(ginlimit.PerSecond(7).WithBurst(1), ginlimit.Global(), ginlimit.WithMaxWait(time.Hour))
		var want []string
		for n := range 100 {
			q.send(strconv.Itoa(n))
			want = append(want, strconv.Itoa(n)+" 200 "+(time.Duration(n)*142_858*time.Microsecond).String())
		}
		assert.Equal(t, want, q.wait())
	})
}

func TestWaitOfOtherAlgorithms(t *testing.T) {
	for _, tt := range []struct {
		name  string
		limit ginlimit.Limit
		want  []string
	}{
		{"fixed window", ginlimit.PerSecond(2).WithAlgorithm(backend.FixedWindow),
			[]string{"a 200 0s", "b 200 0s", "c 200 1s", "d 200 1s", "e 200 2s"}},
		{"sliding log", ginlimit.PerSecond(2).WithAlgorithm(backend.SlidingLog),
			[]string{"a 200 0s", "b 200 0s", "c 200 1s", "d 200 1s", "e 200 2s"}},
		{"sliding window", ginlimit.PerSecond(2).WithAlgorithm(backend.SlidingWindow),
			[]string{"a 200 0s", "b 200 0s", "c 200 1.5s", "d 200 2s", "e 200 3s"}},
		{"bucket with a burst", ginlimit.PerSecond(2),
			[]string{"a 200 0s", "b 200 0s", "c 200 500ms", "d 200 1s", "e 200 1.5s"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q := newQueue(tt.limit, ginlimit.Global(), ginlimit.WithMaxWait(time.Minute))
				for _, id := range []string{"a", "b", "c", "d", "e"} {
					q.send(id)
				}
				got := q.wait()
				slices.Sort(got) // two that go on at one instant may end in either order
				assert.Equal(t, tt.want, got)
			})
		})
	}
}

func TestKeysWaitApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(ginlimit.PerSecond(1), byHeader, ginlimit.WithMaxWait(time.Minute))
		for range 3 {
			q.send("a", header("Key", "a"))
		}
		q.send("b", header("Key", "b"))
		assert.Equal(t, []string{"a 200 0s", "b 200 0s", "a 200 1s", "a 200 2s"}, q.wait())
	})
}

func TestRefusedAtOnce(t *testing.T) {
	for _, tt := range []struct {
		name  string
		limit ginlimit.Limit
		wait  time.Duration
		cost  int
	}{
		{"too long", ginlimit.PerMinute(1), 59 * time.Second, 1},
		{"can never pass", ginlimit.PerMinute(1), time.Hour, 2},
		{"nothing ever does", ginlimit.PerMinute(0), time.Hour, 1},
		{"no wait", ginlimit.PerMinute(1), 0, 1},
		{"cost 0", ginlimit.PerMinute(1), time.Hour, 0},
		{"window too long", ginlimit.PerMinute(1).WithAlgorithm(backend.FixedWindow), 59 * time.Second, 1},
		{"negative, not held", ginlimit.PerMinute(1), time.Hour, -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q := newQueue(tt.limit, ginlimit.Global(), ginlimit.WithMaxWait(tt.wait), ginlimit.WithCost(costly))
				send(q.r, cost(1))
				q.send("x", cost(tt.cost))
				code := "429"
				if tt.cost < 0 {
					code = "400"
				}
				assert.Equal(t, []string{"x " + code + " 0s"}, q.wait())
			})
		})
	}
}

// TestRetryAfterOfARequestThatIsNotHeld: it speaks of this request's cost, and of those before it.
func TestRetryAfterOfARequestThatIsNotHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := engine(ginlimit.New(ginlimit.PerSecond(1).WithBurst(10), ginlimit.Global(),
			ginlimit.WithMaxWait(3*time.Second), ginlimit.WithCost(costly)))
		assert.Equal(t, 200, send(r, cost(10)).Code)
		var wg sync.WaitGroup
		wg.Go(func() { assert.Equal(t, 200, send(r, cost(2)).Code) })
		synctest.Wait()
		w := send(r, cost(5))
		assert.Equal(t, 429, w.Code)
		assert.Equal(t, "7", w.Header().Get("Retry-After"))
		wg.Wait()
	})
}

// TestWaitOfCosts: how long a request has to wait is what those before it cost, not how many they
// are.
func TestWaitOfCosts(t *testing.T) {
	for _, tt := range []struct {
		name string
		max  time.Duration
		want []string
	}{
		{"all fit", 20 * time.Second, []string{"full 200 0s", "a 200 1s", "b 200 2s", "c 200 3s", "big 200 8s"}},
		{"just fits", 8 * time.Second, []string{"full 200 0s", "a 200 1s", "b 200 2s", "c 200 3s", "big 200 8s"}},
		{"not quite", 8*time.Second - 1, []string{"full 200 0s", "big 429 0s", "a 200 1s", "b 200 2s", "c 200 3s"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q := newQueue(ginlimit.PerSecond(1).WithBurst(5), ginlimit.Global(), ginlimit.WithMaxWait(tt.max),
					ginlimit.WithCost(costly))
				q.send("full", cost(5))
				q.send("a", cost(1))
				q.send("b", cost(1))
				q.send("c", cost(1))
				q.send("big", cost(5))
				assert.Equal(t, tt.want, q.wait())
			})
		})
	}
	synctest.Test(t, func(t *testing.T) { // a small one behind a large one has to wait for it
		q := newQueue(ginlimit.PerSecond(1).WithBurst(5), ginlimit.Global(), ginlimit.WithMaxWait(5*time.Second),
			ginlimit.WithCost(costly))
		q.send("full", cost(5))
		q.send("big", cost(5))
		q.send("small", cost(1))
		assert.Equal(t, []string{"full 200 0s", "small 429 0s", "big 200 5s"}, q.wait())
	})
}

// TestNobodyOvertakes: small requests do not go past a large one that waits, also not when they are
// too many to be held.
func TestNobodyOvertakes(t *testing.T) {
	for _, tt := range []struct {
		name string
		max  time.Duration
		many int
	}{
		{"held", time.Hour, 20},
		{"no time left for some", 10 * time.Second, 20},
		{"no place left for some", time.Hour, 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q := newQueue(ginlimit.PerSecond(1).WithBurst(10), ginlimit.Global(), ginlimit.WithMaxWait(tt.max),
					ginlimit.WithCost(costly))
				q.send("half", cost(5))
				q.send("big", cost(10)) // fits in 5 s
				for range tt.many {
					q.send("small", cost(1))
				}
				for _, answer := range q.wait() {
					if answer == "big 200 5s" {
						return
					}
					assert.NotRegexp(t, "^small 200", answer)
				}
				t.Error("big was not admitted after 5 s")
			})
		})
	}
}

func TestCancelledWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(ginlimit.PerSecond(1), ginlimit.Global(), ginlimit.WithMaxWait(time.Minute))
		gone := func(after time.Duration) func(*http.Request) {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(after, cancel)
			return func(r *http.Request) { *r = *r.WithContext(ctx) }
		}
		q.send("a")
		q.send("head", gone(500*time.Millisecond)) // holds the turn
		q.send("b")
		q.send("middle", gone(600*time.Millisecond)) // waits for it
		q.send("c")
		assert.Equal(t, []string{"a 200 0s", "head 429 500ms", "middle 429 600ms", "b 200 1s", "c 200 2s"}, q.wait())
	})
}

func TestWaitIsBoundedPerKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(ginlimit.PerSecond(1), ginlimit.Global(), ginlimit.WithMaxWait(time.Hour))
		for range 1 + 128 + 7 {
			q.send("a")
		}
		refused, admitted := 0, 0
		for _, answer := range q.wait() {
			switch answer {
			case "a 429 0s":
				refused++
			case "a 200 " + (time.Duration(admitted) * time.Second).String():
				admitted++
			default:
				t.Error(answer)
			}
		}
		assert.Equal(t, 7, refused)
		assert.Equal(t, 129, admitted)
	})
}

// TestWaitIsBoundedPerLimiter: when all places are taken, keys that have fewer take them from those
// that have most.
func TestWaitIsBoundedPerLimiter(t *testing.T) {
	type keys []struct {
		key      string
		requests int
	}
	var flood keys
	for i := range 9 {
		flood = append(flood, keys{{"flood " + strconv.Itoa(i), 200}}...)
	}
	many := keys{}
	for i := range 1100 {
		many = append(many, keys{{"one " + strconv.Itoa(i), 2}}...)
	}
	for _, tt := range []struct {
		name string
		keys keys
		held map[string][2]int // by the first word of a key: at least and at most so many of each key
		all  int               // held of all keys
	}{
		{"nine keys share all places", flood, map[string][2]int{"flood": {113, 114}}, 1024},
		{"a key that needs a few gets them", append(slices.Clone(flood),
			keys{{"innocent a", 5}, {"innocent b", 1}, {"innocent c", 60}}...),
			map[string][2]int{"flood": {106, 107}, "innocent a": {4, 4}, "innocent b": {0, 0},
				"innocent c": {59, 59}}, 1024},
		{"one place is taken from nobody", many,
			map[string][2]int{"one": {0, 1}, "one 0": {1, 1}, "one 1023": {1, 1}, "one 1024": {0, 0}, "one 1099": {0, 0}}, 1024},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				q := newQueue(ginlimit.PerSecond(1), byHeader, ginlimit.WithMaxWait(time.Hour))
				for _, k := range tt.keys {
					for range k.requests {
						q.send(k.key, header("Key", k.key))
					}
				}
				held, all := map[string]int{}, 0
				for _, answer := range q.wait() {
					if words := strings.Fields(answer); words[2] == "200" && words[3] != "0s" {
						held[words[0]+" "+words[1]]++
						all++
					}
				}
				assert.Equal(t, tt.all, all)
				for _, k := range tt.keys {
					bounds, ok := tt.held[k.key]
					if !ok {
						bounds = tt.held[strings.Fields(k.key)[0]]
					}
					assert.GreaterOrEqual(t, held[k.key], bounds[0], k.key)
					assert.LessOrEqual(t, held[k.key], bounds[1], k.key)
				}
				// All places are free again.
				q.order, q.start = nil, time.Now()
				time.Sleep(time.Hour)
				for range 129 {
					q.send("again", header("Key", "0"))
				}
				for _, answer := range q.wait() {
					assert.NotContains(t, answer, "429")
				}
			})
		})
	}
}

// TestALostPlaceIsTheLast: those that came first keep their places and their order, and the one
// that loses its place is refused at once.
func TestALostPlaceIsTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(ginlimit.PerSecond(1), byHeader, ginlimit.WithMaxWait(time.Hour))
		for key := range 8 {
			for n := range 129 {
				q.send(strconv.Itoa(key)+"/"+strconv.Itoa(n), header("Key", strconv.Itoa(key)))
			}
		}
		time.Sleep(time.Second / 2)
		q.send("new/0", header("Key", "new"))
		assert.NotContains(t, strings.Join(q.soFar(), "\n"), " 429 ")
		q.send("new/1", header("Key", "new"))
		answers := q.soFar()
		assert.Regexp(t, `^[0-7]/128 429 500ms$`, answers[len(answers)-1])
		for _, answer := range q.wait() {
			name, code, refused := strings.Cut(answer, " 429 ")
			if refused {
				assert.Regexp(t, `^[0-7]/128$`, name)
				assert.Equal(t, "500ms", code)
			} else if name, at, _ := strings.Cut(answer, " 200 "); !strings.HasPrefix(name, "new") {
				n, err := strconv.Atoi(name[2:])
				require.NoError(t, err)
				assert.Equal(t, (time.Duration(n) * time.Second).String(), at, name)
			}
		}
	})
}

func TestDryRunDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen watch
		q := newQueue(ginlimit.PerSecond(1), ginlimit.Global(), ginlimit.WithMaxWait(time.Hour),
			ginlimit.WithDryRun(true), ginlimit.WithObserver(seen.observe))
		q.send("a")
		q.send("b")
		assert.Equal(t, []string{"a 200 0s", "b 200 0s"}, q.wait())
		assert.False(t, seen.last().Allowed)
		assert.Zero(t, seen.last().Waited)
	})
}

func TestHeldRequestIsOneDecision(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen watch
		q := newQueue(ginlimit.PerSecond(1), ginlimit.Global(), ginlimit.WithMaxWait(time.Hour),
			ginlimit.WithObserver(seen.observe))
		for i := range 4 {
			q.send(strconv.Itoa(i))
		}
		q.wait()
		assert.Len(t, seen.seen, 4)
		for i, d := range seen.seen {
			assert.True(t, d.Allowed)
			assert.Equal(t, time.Duration(i)*time.Second, d.Waited)
			assert.EqualValues(t, 1, d.Cost)
		}
	})
}

// TestBackendFailsWhileWaiting: who waits is told, under each policy.
func TestBackendFailsWhileWaiting(t *testing.T) {
	for _, tt := range []struct {
		policy ginlimit.FailurePolicy
		code   string
	}{{ginlimit.FailOpen, "200"}, {ginlimit.FailClosed, "503"}} {
		synctest.Test(t, func(t *testing.T) {
			store := newSpy()
			start := time.Now()
			store.onTake = func(context.Context, string, int64) error {
				if time.Since(start) >= time.Second {
					return backend.ErrUnavailable
				}
				return nil
			}
			q := newQueue(ginlimit.PerSecond(1), ginlimit.Global(), ginlimit.WithMaxWait(time.Hour),
				ginlimit.WithFailurePolicy(tt.policy),
				ginlimit.WithName("x"), ginlimit.WithBackend(store))
			q.send("a")
			q.send("b")
			q.send("c")
			assert.ElementsMatch(t, []string{"a 200 0s", "b " + tt.code + " 1s", "c " + tt.code + " 1s"}, q.wait())
		})
	}
}

// TestRefundWithWaiting: what was given back is there for the next.
func TestRefundWithWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(ginlimit.PerSecond(1), ginlimit.Global(), ginlimit.WithMaxWait(time.Minute),
			ginlimit.WithRefundIf(func(*gin.Context) bool { return true }))
		for range 20 {
			q.send("a")
		}
		for _, answer := range q.wait() {
			assert.Equal(t, "a 200 0s", answer, "each gave its charge back before the next came")
		}
	})
}

func TestRefundLetsTheNextGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := must(ginlimit.NewLimiter(ginlimit.PerMinute(1), ginlimit.Global(), ginlimit.WithMaxWait(time.Hour),
			ginlimit.WithRefundIf(func(*gin.Context) bool { return true })))
		q := newQueueOf(l, func(*gin.Context) { time.Sleep(100 * time.Millisecond) })
		q.send("a")
		time.Sleep(50 * time.Millisecond)
		q.send("b")
		q.send("c")
		assert.Equal(t, []string{"a 200 100ms", "b 200 200ms", "c 200 300ms"}, q.wait())
	})
}

func TestResetLetsTheNextGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := must(ginlimit.NewLimiter(ginlimit.PerMinute(1), ginlimit.Global(), ginlimit.WithMaxWait(time.Minute)))
		q := newQueueOf(l)
		q.send("a")
		q.send("b")
		time.Sleep(300 * time.Millisecond)
		require.NoError(t, l.Reset(context.Background(), "global:"))
		synctest.Wait()
		assert.Equal(t, []string{"a 200 0s", "b 200 300ms"}, q.wait())
	})
}

// TestResetElsewhere, by another process on the same store, is noticed too.
func TestResetElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := memory.New()
		opts := []ginlimit.Option{ginlimit.WithName("x"), ginlimit.WithBackend(shared),
			ginlimit.WithMaxWait(time.Minute)}
		here := must(ginlimit.NewLimiter(ginlimit.PerMinute(1), ginlimit.Global(), opts...))
		elsewhere := must(ginlimit.NewLimiter(ginlimit.PerMinute(1), ginlimit.Global(), opts...))
		q := newQueueOf(here)
		q.send("a")
		q.send("b")
		time.Sleep(1500 * time.Millisecond)
		require.NoError(t, elsewhere.Reset(context.Background(), "global:"))
		assert.Equal(t, []string{"a 200 0s", "b 200 2s"}, q.wait())
	})
}

// TestUpgradeWhileOthersWait: who has a larger limit now is not held behind requests that came
// under the old one.
func TestUpgradeWhileOthersWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var pro atomic.Bool
		l := must(ginlimit.NewLimiter(ginlimit.PerMinute(1), ginlimit.Global(), ginlimit.WithMaxWait(time.Minute),
			ginlimit.WithTier(func(*gin.Context) (ginlimit.Tier, error) {
				if pro.Load() {
					return ginlimit.Tier{Name: "pro", Limits: []ginlimit.Limit{ginlimit.PerMinute(1000)}}, nil
				}
				return ginlimit.Tier{}, nil
			})))
		q := newQueueOf(l)
		q.send("a")
		q.send("b")
		time.Sleep(time.Second / 2)
		pro.Store(true)
		q.send("c")
		assert.Equal(t, []string{"a 200 0s", "c 200 500ms"}, q.wait()[:2])
	})
}
