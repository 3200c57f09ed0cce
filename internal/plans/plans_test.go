package plans_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/internal/plans"
)

type plan struct{ limits []backend.Limit }

func (p *plan) is(limits []backend.Limit) bool {
	return len(p.limits) == len(limits) && p.limits[0] == limits[0]
}

// However many ask for a plan at once, it is made once.
func TestAPlanIsMadeOnce(t *testing.T) {
	const callers, lists = 1000, 5
	var c plans.Cache[plan]
	var made atomic.Int32
	var begun, wg sync.WaitGroup
	begun.Add(callers)
	create := func(limits []backend.Limit) (*plan, error) {
		made.Add(1)
		begun.Wait()
		return &plan{limits}, nil
	}
	for i := range callers {
		wg.Go(func() {
			limits := []backend.Limit{{Count: int64(i % lists), Period: time.Hour}}
			begun.Done()
			p, err := c.Of(limits, (*plan).is, create)
			assert.NoError(t, err)
			assert.True(t, p.is(limits))
		})
	}
	wg.Wait()
	assert.Equal(t, int32(lists), made.Load())
}

// More lists than there are places for are planned anew, and rightly.
func TestManyLists(t *testing.T) {
	var c plans.Cache[plan]
	for round := range 3 {
		for i := range 2000 {
			limits := []backend.Limit{{Count: int64(i), Period: time.Hour}}
			p, err := c.Of(limits, (*plan).is, func(l []backend.Limit) (*plan, error) { return &plan{l}, nil })
			assert.NoError(t, err)
			assert.True(t, p.is(limits), "round %d, list %d", round, i)
		}
	}
}
