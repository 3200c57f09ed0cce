package postgres

import (
	"hash/maphash"
	"sync/atomic"
	"time"

	"github.com/ginlimit/ginlimit/backend"
)

// refusals remembers which keys were refused a moment ago, each in the one place that its hash has:
// only to choose how to ask the database, which decides.
type refusals struct {
	seed   maphash.Seed
	places [1 << 15]atomic.Uint64 // a part of the hash, and until when, in units of 4 ms since started
}

var started = time.Now()

// maxNoted is how long a refusal is remembered at most: longer ones are noted anew.
const maxNoted = time.Minute

func ticks(d time.Duration) uint64 { return uint64(d.Milliseconds()/4) & (1<<32 - 1) }

func (r *refusals) mark(name string) uint64 { return maphash.String(r.seed, name) }

func (r *refusals) place(mark uint64) *atomic.Uint64 { return &r.places[mark%uint64(len(r.places))] }

func (r *refusals) recently(mark uint64) bool {
	noted := r.place(mark).Load()
	return noted != 0 && noted>>32 == mark>>32 && noted&(1<<32-1) > ticks(time.Since(started))
}

func (r *refusals) note(mark uint64, res *backend.Result) {
	if res.Allowed {
		r.forget(mark)
		return
	}
	wait := maxNoted
	if res.RetryAfter >= 0 {
		wait = min(wait, res.RetryAfter)
	}
	r.place(mark).Store(mark>>32<<32 | ticks(time.Since(started)+wait))
}

func (r *refusals) forget(mark uint64) {
	if place := r.place(mark); place.Load()>>32 == mark>>32 {
		place.Store(0)
	}
}
