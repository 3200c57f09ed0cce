package postgres

import (
	"context"
	"math/rand/v2"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
)

// sweepPages is the number of pages that one batch looks through: about 1,900 rows with keys of 20 bytes. At one batch
// in [DefaultSweep] decisions the whole table is looked through in about a quarter as many decisions as it has rows, so
// that rows which have expired are never many more than the others.
const sweepPages = 48

// sweeper is where a Backend has got to in the table.
type sweeper struct {
	decisions atomic.Int64
	running   atomic.Bool
	page      atomic.Int64 // the next one
}

// randomPage is where a Backend begins, so that many do not all look through the same pages. It is taken modulo the
// table's size by the first batch.
func randomPage() int64 { return rand.Int64N(1 << 20) }

// sweepNow looks for expired rows if it is time to. The caller does not wait: the batch has a time budget of its own,
// that of a decision, at the end of which it is over.
func (b *Backend) sweepNow() {
	s := &b.sweeper
	if b.every == 0 || s.decisions.Add(1)%b.every != 0 || b.gate.Open() || !s.running.CompareAndSwap(false, true) {
		return
	}
	go func() {
		defer s.running.Store(false)
		ctx, cancel := context.WithTimeout(context.Background(), b.timeout)
		defer cancel()
		_, pages, err := b.sweepBatch(ctx, s.page.Load())
		if err != nil {
			return // a decision would say so, and the next batch is the same one
		}
		s.page.Store(nextPage(s.page.Load(), pages))
	}()
}

func nextPage(page, pages int64) int64 {
	if page += sweepPages; page < pages {
		return page
	}
	if page >= pages+sweepPages && pages > 0 { // the first batch of a Backend, or a table that was made smaller
		return page % pages
	}
	return 0
}

// Sweep deletes all expired rows, in batches that each look through a few pages and leave alone what somebody else has
// locked. It returns the number of rows. It takes as long as it takes: ctx ends it between batches, or within one.
// Decisions go on meanwhile. Rows that a Backend's decisions leave behind are swept without it, see [WithSweep]; it is
// there for tables that are no longer used much.
func (b *Backend) Sweep(ctx context.Context) (rows int64, err error) {
	for page, pages := int64(0), int64(1); page < pages; page += sweepPages {
		var n int64
		if n, pages, err = b.sweepBatch(ctx, page); err != nil {
			return rows, unavailable("sweep", err)
		}
		rows += n
	}
	return rows, nil
}

// sweepBatch deletes what has expired in the pages from one on, and returns how many rows that were and how many pages
// the table has.
func (b *Backend) sweepBatch(ctx context.Context, page int64) (rows, pages int64, err error) {
	args := []any{page, page + sweepPages, b.now()}
	read := func(r pgx.Rows) error { return r.Scan(&rows, &pages) }
	isolate := b.isolate.Load()
	if err = b.send(ctx, isolate, b.sql.sweep, args, read); !isolate && serialization(err) {
		b.isolate.Store(true)
		err = b.send(ctx, true, b.sql.sweep, args, read)
	}
	return rows, pages, err
}
