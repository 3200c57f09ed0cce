package postgres

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"

	"github.com/jackc/pgx/v5"

	"github.com/ginlimit/ginlimit/internal/storelog"
)

// A sweep looks through the table, some pages at a time. How many pages that are depends on what it
// finds there: where more than a third of the rows have expired, the next batch looks through twice
// as many, and where less than a ninth have, through half as many. So the whole table is looked
// through in fewer decisions than it has rows that are alive, and what has expired stays the
// smaller part of it.
//
// A number of pages that does not change cannot do that. PostgreSQL uses the room of rows that were
// deleted again only after a vacuum, at most once a minute. Until then a table with short limits
// grows, by a page for some forty keys, and most of its pages are empty. At 4,300 new keys a
// second, with limits of one second, 81 of 100 rows had expired on average with batches of 48
// pages, and 13 with these.
const (
	fewestPages = 16    // about 640 rows with keys of 20 bytes
	mostPages   = 8_192 // of which most are empty
	// sweepRows is the number of rows that one batch deletes at most, so that it ends within its
	// time. A decision leaves one row at most: with DefaultSweep there is room for what was left
	// behind before.
	sweepRows = 2_000
)

// sweeper is where a Backend has got to in the table.
type sweeper struct {
	decisions atomic.Int64
	running   atomic.Bool
	failing   *storelog.Log
	page      int64 // the next one; the batch that runs guards it
	pages     int64 // of the next batch; the batch that runs guards it
}

// init makes s begin anywhere, so that many Backends do not all look through the same pages. The
// first batch takes the page modulo the table's size.
func (s *sweeper) init(log func() *slog.Logger, server string) {
	s.page, s.pages = rand.Int64N(1<<20), fewestPages
	s.failing = storelog.New(log, "PostgreSQL", server)
	s.failing.Calls = "sweeps of the table in PostgreSQL"
	s.failing.Meanwhile = func() string { return "Rows that have expired stay, and the table grows" }
}

// sweepNow looks for expired rows if it is time to. The caller does not wait: the batch has a time
// budget of its own, that of a decision, at the end of which it is over.
func (b *Backend) sweepNow() {
	s := &b.sweeper
	if b.every == 0 || s.decisions.Add(1)%b.every != 0 || b.gate.Open() || !s.running.CompareAndSwap(false, true) {
		return
	}
	go func() {
		defer s.running.Store(false)
		ctx, cancel := context.WithTimeout(context.Background(), b.timeout)
		defer cancel()
		batch, err := b.sweepBatch(ctx, s.page, s.pages)
		if err != nil {
			if answered(err) {
				s.failing.Failed(unavailable("sweep", err), remedies[codeOf(err)])
			}
			s.pages = max(fewestPages, s.pages/4) // it may have been too much for its time
			return
		}
		if batch.gone > 0 {
			s.failing.Worked()
		}
		s.next(batch)
	}()
}

// batch is what a sweep has found in a part of the table.
type batch struct {
	gone, kept int64 // rows
	next       int64 // the page to go on with
	all        int64 // pages of the table
}

// next says where the next batch begins, and how much it looks through.
func (s *sweeper) next(b batch) {
	switch {
	case b.gone == sweepRows: // as many pages hold more than a batch deletes
	case 2*b.gone >= b.kept:
		s.pages = min(2*s.pages, mostPages)
	case 8*b.gone < b.kept:
		s.pages = max(s.pages/2, fewestPages)
	}
	switch s.page = b.next; {
	case b.all == 0, b.next >= b.all && b.next < b.all+s.pages:
		s.page = 0
	case b.next >= b.all: // the first batch of a Backend, or a table that was made smaller
		s.page = b.next % b.all
	}
}

// Sweep deletes all expired rows, in batches that each look through a few pages and leave alone
// what somebody else has locked. It returns the number of rows. It takes as long as it takes: ctx
// ends it between batches, or within one. Decisions go on meanwhile. Rows that a Backend's
// decisions leave behind are swept without it, see [WithSweep]; it is there for tables that are no
// longer used much.
func (b *Backend) Sweep(ctx context.Context) (rows int64, err error) {
	const pages = 48
	for at := (batch{all: 1}); at.next < at.all; {
		if at, err = b.sweepBatch(ctx, at.next, pages); err != nil {
			return rows, unavailable("sweep", err)
		}
		rows += at.gone
	}
	return rows, nil
}

// sweepBatch deletes what has expired in some pages from one on, as far as it is not too much for a
// batch.
func (b *Backend) sweepBatch(ctx context.Context, page, pages int64) (found batch, err error) {
	args := []any{page, page + pages, int64(sweepRows), b.now()}
	var last int64
	read := func(r pgx.Rows) error { return r.Scan(&found.gone, &found.kept, &last, &found.all) }
	if err = b.sendAgain(ctx, b.sql.sweep, args, read); err != nil {
		return batch{}, err
	}
	if found.next = page + pages; found.gone == sweepRows {
		found.next = last // its page may hold more
	}
	return found, nil
}
