package ginlimit_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/backend/memory"
)

// newQueueOf is newQueue for a limiter, with handlers after it.
func newQueueOf(l *ginlimit.Limiter, handlers ...gin.HandlerFunc) *queue {
	return &queue{start: time.Now(), r: engine(append([]gin.HandlerFunc{l.Handle}, handlers...)...)}
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
		opts := []ginlimit.Option{ginlimit.WithName("x"), ginlimit.WithBackend(shared), ginlimit.WithMaxWait(time.Minute)}
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

// TestUpgradeWhileOthersWait: who has a larger limit now is not held behind requests that came under the old one.
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
