// Package backend is where limits are decided and remembered. It knows nothing of Gin or of HTTP: a
// [Backend] is asked to take a cost from a key under some [Limit] values and answers with a
// [Result].
//
// Applications need [Limit] and its modifiers, [Fallback] and [Lease], and [Backend] if they ask
// one themselves. Package algorithm is for authors of backends: how limits are counted, whatever
// keeps the state.
package backend

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"time"
	"unique"
)

// ErrUnavailable is in the chain of every error that comes from a store that could not decide: it
// is down, too slow, out of memory, read-only, or holds a value that is not ours. It is the only
// kind of error that a failure policy may let pass.
var ErrUnavailable = errors.New("ginlimit: backend unavailable")

// Backend decides and remembers. All methods may be called at once from any number of goroutines.
//
// The key is opaque and may hold any bytes: the root package makes it, injectively, from the
// limiter's name and the client's key. Times are the backend's own: it has one clock, and callers
// never pass one.
type Backend interface {
	// Take charges cost to every limit of key, or to none: if one refuses, the others stay as they
	// were.
	//
	// The Result is that of the limit that decided: the refusing one with the longest wait, and
	// if none refuses the one with the least left (the first of equals). Cost 0 charges and writes
	// nothing: Allowed and RetryAfter then say whether, or when, one unit could be taken.
	//
	// A limit that changed finds what was used under the one before: by the same numbers, then by
	// the same algorithm and Period, then by the same Period, then by its place in the list. What
	// was used ages under the limit that was charged, until a charge is made under another. A
	// refusal writes nothing, so that a smaller limit that is met once forgives nothing.
	//
	// A refusal is not an error. An error means that no decision was reached: the cost is negative,
	// there is no limit, a limit is not valid, or the store failed (then [ErrUnavailable] is in its
	// chain).
	Take(ctx context.Context, key string, cost int64, limits ...Limit) (Result, error)

	// TakeAll makes several charges, all or none: if one refuses, no key is charged. Results are in
	// the order of charges. If all fit each is what Take returns. Otherwise each says whether its
	// own charge would have fitted, with what is left without it.
	//
	// A charge of cost 0 is a look as in Take: it refuses if not one unit is left. Two charges of
	// one key are an error, as is no charge, or one that Take would not accept.
	TakeAll(ctx context.Context, charges ...Charge) ([]Result, error)

	// Settle corrects a charge once it is known what it really cost. taken is the Result of the
	// Take, or of the charge in a TakeAll. cost and limits are those of that call. actual is what
	// the cost should have been. It does nothing if taken is a refusal, and sends nothing if actual
	// is cost and no place in flight is held. To correct once more, pass the actual of the last
	// time as cost.
	//
	// Under a limit of the algorithm [Concurrency] it gives back the units that the charge holds,
	// whatever actual is. To correct once more, pass taken.WithReleased().
	//
	// Less gives the difference back. It never raises what is left above the capacity, never moves
	// a window, and never credits a window other than the one charged: a charge that has aged out
	// gives nothing back. A TokenBucket knows no charges, only how much is missing: what it gives
	// back is at most that, also if the charge itself was refilled meanwhile.
	//
	// More takes the difference, also beyond what is left. Then the key is in debt, at most by one
	// capacity: what is beyond that is forgotten. What refills the limit pays the debt first; a
	// FixedWindow takes it along into its next window.
	//
	// It fails if cost or actual is negative, a limit is missing or not valid, or the store failed.
	Settle(ctx context.Context, key string, taken Result, cost, actual int64, limits ...Limit) error

	// Usage returns the state of every limit of key, in their order, each as a Take of cost 0 under
	// it alone would see it. It writes nothing, and asks the store.
	Usage(ctx context.Context, key string, limits ...Limit) ([]Result, error)

	// Reset forgets everything about key, for every limit. It is not an error if nothing was known.
	Reset(ctx context.Context, key string) error
}

// Renewer is a [Backend] that can hold units of a [Concurrency] limit for longer than their Period.
// The root package asks it while a request runs. All backends of this module are Renewers.
type Renewer interface {
	// Renew holds the units of a charge for a Period from now on, also where they were lost since.
	// Its arguments are those of Settle. Pass the Result that it returns to the next Renew and to
	// Settle, in place of taken.
	Renew(ctx context.Context, key string, taken Result, cost int64, limits ...Limit) (Result, error)
}

// Banner is a [Backend] that can ban a key. All backends of this module are Banners.
type Banner interface {
	// Ban refuses whatever is asked for key from now on until d is over, in place of a ban that is
	// there. Reset lifts it. The duration is 1 ms to 366 days, in whole microseconds.
	Ban(ctx context.Context, key string, d time.Duration) error
}

// Charge is what TakeAll takes from one key.
type Charge struct {
	Key    string
	Cost   int64
	Limits []Limit
}

// Algorithm says how a [Limit] counts. The zero value is [TokenBucket].
type Algorithm uint8

const (
	// TokenBucket holds Burst units and is refilled continuously with Count units per Period. It
	// admits at most Burst + Count/Period × t units in any time t. A full bucket saves nothing up,
	// not even a part of a µs: with Burst 1, units come at whole µs, at best one each Period/Count
	// rounded up. State: two integers.
	TokenBucket Algorithm = iota
	// SlidingWindow weighs the count of the previous window with the share of it that the sliding
	// window still covers, and adds the count of the current one. Windows follow one another from
	// the key's first hit. It assumes that the previous window was filled evenly; the worst case,
	// everything at that window's very end, admits fewer than 2 × Count units in one Period, never
	// more than Count in one instant. State: three integers.
	SlidingWindow
	// SlidingLog is exact: it never admits more than Count units in any Period. It remembers every
	// charge until it is one Period old. There are at most Count of them; what each takes depends
	// on the store.
	SlidingLog
	// FixedWindow admits Count units in a window that starts at the key's first hit and lasts one
	// Period. Across the end of a window it can admit 2 × Count units at once. State: two integers.
	FixedWindow
	// CalendarWindow admits Count units between two boundaries of the calendar, such as midnight:
	// see [PerCalendarDay]. The store's clock says which window it is. State: three integers.
	CalendarWindow
	// Concurrency admits Count units at the same time: see [InFlight]. A unit is held from Take
	// until Settle, or until it was held for a Period. State: as that of a SlidingLog.
	Concurrency
)

// String returns the algorithm's name in lower case, such as "token bucket".
func (a Algorithm) String() string {
	switch a {
	case TokenBucket:
		return "token bucket"
	case SlidingWindow:
		return "sliding window"
	case SlidingLog:
		return "sliding log"
	case FixedWindow:
		return "fixed window"
	case CalendarWindow:
		return "calendar window"
	case Concurrency:
		return "concurrency"
	default:
		return fmt.Sprintf("Algorithm(%d)", uint8(a))
	}
}

// The ranges that [Limit.Validate] accepts. They keep everything that is stored or compared below
// 2^53, so that a script whose only numbers are doubles holds it exactly too; products are taken in
// 128 bits.
const (
	// MaxCount is the largest Count and Burst: the largest integer of RFC 9651, section 3.3.1, and
	// so the largest that a response can state.
	MaxCount = 999_999_999_999_999
	// MinPeriod and MaxPeriod bound a Period, which must also be a whole number of microseconds.
	MinPeriod = time.Millisecond
	MaxPeriod = 366 * 24 * time.Hour
	// MaxRefill bounds the time in which an empty token bucket fills: Burst × Period / Count.
	MaxRefill = 100 * 365 * 24 * time.Hour
)

// Never is the RetryAfter of a refusal that no waiting can turn into a yes.
const Never time.Duration = -1

// Limit is a rate: Count units per Period. It is a small immutable value: WithBurst, WithAlgorithm
// and Named return changed copies. The zero Limit is not valid.
type Limit struct {
	// Name is the policy's name in headers. The default is the limiter's name, or where that has
	// several limits a name such as "100-per-1m".
	Name string
	// Count is how many units there are per Period, at most MaxCount. 0 blocks everything, and
	// math.MaxInt64 is unlimited.
	Count int64
	// Period is 1 ms to 366 days, in whole microseconds. A CalendarWindow has none. For Concurrency
	// it is how long a unit is held that nobody gives back, because its process died. 0 means
	// DefaultHold.
	Period    time.Duration
	Burst     int64     // TokenBucket only: units at once, at most MaxCount; 0 means Count
	Algorithm Algorithm // TokenBucket if not set
	Calendar  Calendar  // CalendarWindow only
	// Unit is what is counted, the qu of draft-ietf-httpapi-ratelimit-headers-11: "" or "requests",
	// "content-bytes", "concurrent-requests", or any other name, such as "tokens". It changes what
	// headers say, and nothing else.
	Unit string

	ban unique.Handle[ban] // made by Banning
}

// DefaultHold is the Period of a Concurrency limit that has none.
const DefaultHold = time.Minute

// InFlight returns a limit of n units at the same time, of which each is held from Take to Settle.
// Its unit is "concurrent-requests".
func InFlight(n int64) Limit {
	return Limit{Count: n, Period: DefaultHold, Algorithm: Concurrency, Unit: "concurrent-requests"}
}

// ban says for how long a key is refused.
type ban struct{ first, longest time.Duration }

// Banning returns the limit of refusals. A key that is refused more often than l allows is banned
// for first: it is refused, whatever it asks for. Each time that this happens again within longest
// of the end of its last ban, the ban is twice as long, up to longest. The limit stands at the end
// of the limits of a Take, and is no limit by itself. It is what ginlimit.WithBan asks a backend
// with.
func (l Limit) Banning(first, longest time.Duration) Limit {
	l.ban = unique.Make(ban{first, longest})
	return l
}

// Bans returns what [Limit.Banning] was called with; ok is false of any other limit.
func (l Limit) Bans() (first, longest time.Duration, ok bool) {
	if l.ban == (unique.Handle[ban]{}) {
		return 0, 0, false
	}
	b := l.ban.Value()
	return b.first, b.longest, true
}

// Tier is a named list of limits, for one kind of caller. The zero Tier has none.
type Tier struct {
	Name   string  // of the plan, not of the customer: it goes into metrics; may be empty
	Limits []Limit // all must allow; none means the limiter's own
}

// Unlimited returns the limit that never refuses and keeps no state.
func Unlimited() Limit {
	return Limit{Count: math.MaxInt64, Period: time.Second}
}

// IsUnlimited reports whether l never refuses.
func (l Limit) IsUnlimited() bool { return l.Count == math.MaxInt64 }

// WithBurst returns l with room for n units at once. Only a TokenBucket has a burst.
func (l Limit) WithBurst(n int64) Limit {
	l.Burst = n
	return l
}

// WithAlgorithm returns l counted by a.
func (l Limit) WithAlgorithm(a Algorithm) Limit {
	l.Algorithm = a
	return l
}

// Named returns l under name, which is what the response's headers call it.
func (l Limit) Named(name string) Limit {
	l.Name = name
	return l
}

// WithoutBan returns l as it was before [Limit.Banning].
func (l Limit) WithoutBan() Limit {
	l.ban = unique.Handle[ban]{}
	return l
}

// BansAs reports whether l and other ban for the same times, or neither bans.
func (l *Limit) BansAs(other *Limit) bool { return l.ban == other.ban }

// Hold returns the Period of a Concurrency limit: DefaultHold, if it has none.
func (l Limit) Hold() time.Duration {
	if l.Period == 0 {
		return DefaultHold
	}
	return l.Period
}

// Counting returns l with a Unit, such as "tokens".
func (l Limit) Counting(unit string) Limit {
	l.Unit = unit
	return l
}

// Capacity returns the units that can be taken at once from an untouched key: the Burst of a
// TokenBucket that has one, and otherwise Count.
func (l Limit) Capacity() int64 {
	if l.Algorithm == TokenBucket && l.Burst > 0 {
		return l.Burst
	}
	return l.Count
}

// Validate returns nil if l can be enforced exactly, and otherwise an error that says what to
// change. See [MaxCount], [MinPeriod], [MaxPeriod] and [MaxRefill] for the ranges.
func (l Limit) Validate() error {
	switch {
	case l.Algorithm > Concurrency:
		return fmt.Errorf("ginlimit: limit %v: unknown algorithm; use one of the constants of package backend", l)
	case l.Burst != 0 && (l.Algorithm != TokenBucket || l.IsUnlimited()):
		return fmt.Errorf("ginlimit: limit %v has burst %d; only a token bucket has a burst", l, l.Burst)
	case !isToken(l.Unit):
		return fmt.Errorf("ginlimit: limit %v: the unit %q cannot stand in a header; use letters, digits and hyphens", l, l.Unit)
	case l.ban != unique.Handle[ban]{}:
		if err := l.validateBan(); err != nil {
			return err
		}
	}
	if err := l.validateCalendar(); err != nil {
		return err
	}
	switch {
	case l.IsUnlimited():
		return nil
	case l.Count < 0:
		return fmt.Errorf("ginlimit: limit %v: count is negative; use 0 to block everything", l)
	case l.Count > MaxCount:
		return fmt.Errorf("ginlimit: limit %v: count is above %d; use Unlimited() for no limit", l, int64(MaxCount))
	case l.Period == 0 && (l.Algorithm == CalendarWindow || l.Algorithm == Concurrency):
		return nil
	case l.Period < MinPeriod || l.Period > MaxPeriod:
		return fmt.Errorf("ginlimit: limit %v: period is not between %v and %v; use one that is, as PerMinute(100) or Per(5, 15*time.Minute) do", l, MinPeriod, MaxPeriod)
	case l.Period%time.Microsecond != 0:
		return fmt.Errorf("ginlimit: limit %v: period is not a whole number of microseconds; round it", l)
	case l.Burst < 0:
		return fmt.Errorf("ginlimit: limit %v: burst is negative; use 0 for a burst as large as the count", l)
	case l.Burst > MaxCount:
		return fmt.Errorf("ginlimit: limit %v: burst is above %d; lower it", l, int64(MaxCount))
	case l.Burst > 0 && l.Count == 0:
		return fmt.Errorf("ginlimit: limit %v: a burst with count 0 would never be refilled; use 0 for both to block everything", l)
	}
	if l.Algorithm == TokenBucket && l.Count > 0 {
		// Capacity × Period has more than 64 bits.
		hi, lo := bits.Mul64(uint64(l.Capacity()), uint64(l.Period.Microseconds()))
		most, least := bits.Mul64(uint64(MaxRefill.Microseconds()), uint64(l.Count))
		if hi > most || hi == most && lo >= least {
			return fmt.Errorf("ginlimit: limit %v: an empty bucket takes more than 100 years to fill; lower the burst", l)
		}
	}
	return nil
}

// validateBan is Validate for a limit of refusals.
func (l Limit) validateBan() error {
	first, longest, _ := l.Bans()
	switch {
	case l.IsUnlimited() || l.Algorithm == Concurrency:
		return fmt.Errorf("ginlimit: limit %v cannot count refusals; use a limit of refusals in a time, such as PerHour(100)", l)
	case first < MinPeriod || longest > MaxPeriod || first > longest:
		return fmt.Errorf("ginlimit: a ban for %v, or %v at most: use durations between %v and %v, the shorter first", first, longest, MinPeriod, MaxPeriod)
	case first%time.Microsecond != 0 || longest%time.Microsecond != 0:
		return fmt.Errorf("ginlimit: a ban for %v, or %v at most, is not a whole number of microseconds", first, longest)
	}
	return nil
}

// Result is the answer to a Take: the view of the limit that decided. Times are exact to the
// microsecond.
type Result struct {
	Allowed bool // whether the cost fits; if so it is charged
	// debt is the units in use beyond the capacity, the lowest byte first. It stands where there
	// would be nothing: with a word of its own a decision in memory takes 52 ns in place of 47
	// (BenchmarkHot of package memory).
	debt [7]byte

	Limit      Limit         // the limit that decided, as it was passed
	Remaining  int64         // units that could be taken now, 0 or more; math.MaxInt64 if unlimited
	RetryAfter time.Duration // until this cost fits: 0 if Allowed, Never (negative) if it never does
	ResetAfter time.Duration // until Remaining is the capacity again
	At         time.Time     // the backend's clock at the decision, in whole microseconds
	Source     Source        // what decided

	banned   bool
	began    bool // the ban
	released bool
	refusing uint32 // bit i: the limit at place i refuses; 0 if it is Limit alone
}

// Used returns the units in use: the capacity less Remaining, or more while the key is in debt. It
// is 0 for an unlimited limit.
func (r Result) Used() int64 {
	if r.Limit.IsUnlimited() {
		return 0
	}
	var debt int64
	for i, b := range r.debt {
		debt |= int64(b) << (8 * i)
	}
	return r.Limit.Capacity() - r.Remaining + debt
}

// WithDebt returns r with so many units in use beyond the capacity, of which nothing remains then.
// It is for authors of backends.
func (r Result) WithDebt(units int64) Result {
	for i := range r.debt {
		r.debt[i] = byte(units >> (8 * i))
	}
	return r
}

// Refuses reports whether the limit at place i of those that were asked refuses beside the one that
// decided. It is false for all if only one refuses, which is Limit. Places from 32 on are not
// known.
func (r Result) Refuses(i int) bool { return r.refusing>>i&1 == 1 }

// WithRefusing returns r for a refusal by several limits: bit i of places says that the limit at
// place i is among them. It is for authors of backends.
func (r Result) WithRefusing(places uint32) Result {
	r.refusing = places
	return r
}

// Banned reports whether a ban refuses: see [Limit.Banning] and [Banner].
func (r Result) Banned() bool { return r.banned }

// BanBegan reports whether this decision brought the ban about.
func (r Result) BanBegan() bool { return r.began }

// WithBanned returns r for a refusal by a ban, which began with it or not. It is for authors of
// backends.
func (r Result) WithBanned(began bool) Result {
	r.banned, r.began = true, began
	return r
}

// Released reports whether the units that a charge holds of a [Concurrency] limit were given back.
func (r Result) Released() bool { return r.released }

// WithReleased returns r for a charge that was settled: another Settle of it gives no place in
// flight back.
func (r Result) WithReleased() Result {
	r.released = true
	return r
}

// Source says what reached a decision. The zero value is [SourceStore].
type Source uint8

const (
	// SourceStore is the backend's own store.
	SourceStore Source = iota
	// SourceDenyCache is a denial of the store, remembered in the process until its wait is over.
	SourceDenyCache
	// SourceLease is units that the process charged to the store before.
	SourceLease
	// SourceFallback is a secondary backend that decided while the primary could not.
	SourceFallback
)

// String returns the source's name, such as "deny-cache": a short word fit for a metric's label.
func (s Source) String() string {
	switch s {
	case SourceStore:
		return "store"
	case SourceDenyCache:
		return "deny-cache"
	case SourceLease:
		return "lease"
	case SourceFallback:
		return "fallback"
	default:
		return fmt.Sprintf("Source(%d)", uint8(s))
	}
}
