package memory

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/ginlimit/ginlimit/backend"
)

var (
	ctx     = context.Background()
	perDay  = backend.Limit{Count: 3, Period: 24 * time.Hour}
	perHour = backend.Limit{Count: 3, Period: time.Hour}
	second  = backend.Limit{Count: 3, Period: time.Second}
)

func charge(t *testing.T, b *Backend, key string, limits ...backend.Limit) backend.Result {
	t.Helper()
	res, err := b.Take(ctx, key, 1, limits...)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// held reports whether key has an entry. Otherwise the key shares a bucket or is not known.
func (b *Backend) held(key string) bool {
	h := b.hash(key)
	_, found := b.shard(h).table.find(h)
	return found
}

// TestInsertAfterShrinking puts keys into a table that sweeping makes smaller just before.
func TestInsertAfterShrinking(t *testing.T) {
	b := New(WithMaxKeys(1000))
	charge(t, b, "first", perHour)
	sh := b.shard(hash{})
	for i := range 20 {
		sh.table = sh.table.rebuild(200)
		sh.hand = len(sh.table.entries) - 1
		charge(t, b, fmt.Sprint(i), perHour)
		if res := charge(t, b, fmt.Sprint(i), perHour); res.Remaining != 1 {
			t.Errorf("key %d: %d remaining of 3 after 2 charges", i, res.Remaining)
		}
	}
}

// TestSweepKnows holds small backends, on random schedules, to what sweep relies on: entries stand
// in order, and it knows of none later than it recovers.
func TestSweepKnows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		periods := []time.Duration{10 * time.Millisecond, 100 * time.Millisecond, time.Second, time.Minute}
		for seed := range uint64(1500) {
			r := rand.New(rand.NewPCG(seed, 9))
			b := New(WithMaxKeys(20 + r.IntN(400)))
			sh := b.shard(hash{})
			n := 0
			for range 20 {
				burst := r.IntN(20)
				if r.IntN(2) == 0 {
					burst = r.IntN(2 * int(b.maxKeys))
				}
				period := periods[r.IntN(4)]
				for range burst {
					if r.IntN(30) == 0 {
						period = periods[r.IntN(4)]
					}
					n++
					key, limit := fmt.Sprint(n-r.IntN(3)), backend.Limit{Count: 2, Period: period}
					res := charge(t, b, key, limit)
					if r.IntN(4) == 0 {
						if err := b.Settle(ctx, key, res, 1, 0, limit); err != nil {
							t.Fatal(err)
						}
					}
				}
				var before uint64
				for i := range sh.table.entries {
					e := &sh.table.entries[i]
					if e.rule == 0 {
						continue
					}
					if expiry := b.expiry(sh, e); e.tag < before || expiry < sh.nextExpiry || i < sh.hand && expiry < sh.minExpiry {
						t.Fatalf("seed %d: entry %d of tag %x after %x recovers at %d; hand %d, minExpiry %d, nextExpiry %d",
							seed, i, e.tag, before, expiry, sh.hand, sh.minExpiry, sh.nextExpiry)
					}
					before = e.tag
				}
				time.Sleep(periods[r.IntN(3)] * time.Duration(1+r.IntN(20)) / 10)
			}
		}
	})
}

// TestRoomIsFound: a full backend has room again as soon as one key has recovered, also if that
// recovers sooner because its limit changed, or came when others had been looked at.
func TestRoomIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(WithMaxKeys(1))
		charge(t, b, "changes", perHour)
		for i := range 30 {
			charge(t, b, fmt.Sprint("flood", i), perHour)
		}
		charge(t, b, "changes", second)
		time.Sleep(2 * time.Second)
		if charge(t, b, "new", second); !b.held("new") {
			t.Error("a key whose limit changed has recovered, and a new key shares a bucket")
		}
		for range 20 {
			b := New(WithMaxKeys(300))
			for i := range 299 {
				charge(t, b, fmt.Sprint("stays", i), perDay)
			}
			charge(t, b, "goes", second)
			for i := range 30 {
				charge(t, b, fmt.Sprint("flood", i), perDay)
			}
			time.Sleep(10 * time.Second)
			if err := b.Reset(ctx, "new"); err != nil { // its bucket is spent
				t.Fatal(err)
			}
			charge(t, b, "new", perDay)
			if charge(t, b, "new", perDay); !b.held("new") { // one look does not reach all entries
				t.Error("the last key that came has recovered, and a new key shares a bucket")
			}
		}
	})
}

// TestRefundsDoNotStopSweeping: a flood filled the backend and has recovered. While regular callers
// are charged and get refunds, new keys find room.
func TestRefundsDoNotStopSweeping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(WithMaxKeys(2000))
		for i := range 2000 {
			charge(t, b, fmt.Sprint("flood", i), second)
		}
		time.Sleep(time.Hour)
		regular := backend.Limit{Count: 100, Period: time.Hour, Algorithm: backend.FixedWindow}
		for i := range 10_000 {
			key := fmt.Sprint("regular", i%50)
			if err := b.Settle(ctx, key, charge(t, b, key, regular), 1, 0, regular); err != nil {
				t.Fatal(err)
			}
			if charge(t, b, fmt.Sprint("new", i), second); !b.held(fmt.Sprint("new", i)) {
				t.Fatalf("new key %d shares a bucket with %d keys held", i, b.Len())
			}
			time.Sleep(time.Millisecond)
		}
	})
}

// TestManyListsOfLimits: more lists of limits than have buckets of their own have been at the cap.
// Those that have recovered make room, so that a flood under one limit does not free a caller under
// another.
func TestManyListsOfLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(WithMaxKeys(1))
		charge(t, b, "early", perDay)
		for i := range 40 {
			for k := range 200 {
				charge(t, b, fmt.Sprint(i, "-", k), backend.Limit{Count: int64(10 + i), Period: time.Second})
			}
		}
		// Some of those that stay make room by a Reset for others that are over sooner.
		stays := func(i int) backend.Limit { return backend.Limit{Count: int64(10 + i), Period: 24 * time.Hour} }
		time.Sleep(time.Hour)
		for i := range 40 {
			for k := range 200 {
				charge(t, b, fmt.Sprint("stays", i, "-", k), stays(i))
			}
		}
		for k := range 200 {
			if err := b.Reset(ctx, fmt.Sprint("reset", k)); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 40 {
			for k := range 200 {
				charge(t, b, fmt.Sprint("goes", i, "-", k), backend.Limit{Count: int64(10 + i), Period: time.Second})
			}
		}
		time.Sleep(time.Minute)
		large := backend.Limit{Count: 5000, Period: time.Hour}
		if res, err := b.Take(ctx, "caller", 5000, large); err != nil || !res.Allowed {
			t.Fatal(res, err)
		}
		for k := range 200 {
			charge(t, b, fmt.Sprint("flood", k), perHour)
		}
		if res := charge(t, b, "caller", large); res.Allowed {
			t.Errorf("a flood freed the caller: %d remain", res.Remaining)
		}
	})
}

// TestBucketsHaveShortLogs: keys that come from a bucket inherit its log. It is short, whatever the
// limit's count, and says of no unit that it was charged earlier than it was.
func TestBucketsHaveShortLogs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := backend.Limit{Count: 2000, Period: time.Hour, Algorithm: backend.SlidingLog}
		b := New(WithMaxKeys(1))
		charge(t, b, "early", perDay)
		key := "late"
		for i := range int64(2000) {
			if res := charge(t, b, key, log); !res.Allowed || res.Remaining != 1999-i {
				t.Fatalf("charge %d: allowed %v, %d remain", i, res.Allowed, res.Remaining)
			}
			time.Sleep(time.Second)
		}
		for k, slots := range b.shard(hash{}).overflow {
			if n := len(*slots[0].State.Log); n > overflowCharges {
				t.Errorf("bucket %v has a log of %d charges", k, n)
			}
		}
		if res := charge(t, b, key, log); res.Allowed {
			t.Error("a unit was forgotten too soon")
		} else if time.Sleep(res.RetryAfter); !charge(t, b, key, log).Allowed {
			t.Error("refused after Retry-After")
		}
	})
}

// TestSlotsAreGivenBack: after a flood of keys with several limits the memory for their states goes
// too.
func TestSlotsAreGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		two := []backend.Limit{second, {Count: 5, Period: time.Second}}
		b := New()
		for i := range 100_000 {
			charge(t, b, fmt.Sprint("flood", i), two...)
		}
		for r := range 20 {
			time.Sleep(2 * time.Second)
			for i := range 10_000 {
				charge(t, b, fmt.Sprint(r, "-", i), two...)
			}
		}
		slots := 0
		for i := range b.shards {
			if sh := b.shards[i].Load(); sh != nil {
				slots += cap(sh.slots)
			}
		}
		if slots > 4*b.Len() {
			t.Errorf("room for %d states, %d keys held", slots, b.Len())
		}
		for i := range 10_000 {
			if res := charge(t, b, fmt.Sprint(19, "-", i), two...); res.Remaining != 1 {
				t.Fatalf("key %d has %d units left of 3 after 2 charges", i, res.Remaining)
			}
		}
		runtime.KeepAlive(b)
	})
}

// TestShardSize holds the struct to what its comment says, where pointers have 64 bits.
func TestShardSize(t *testing.T) {
	var sh shard
	if end := unsafe.Offsetof(sh.table) + unsafe.Sizeof(sh.table); unsafe.Sizeof(sh) != shardSize || end > 64 {
		if unsafe.Sizeof(uintptr(0)) == 8 {
			t.Errorf("a shard has %d bytes, and its table ends after %d; want %d and at most 64", unsafe.Sizeof(sh), end, shardSize)
		}
	}
}
