package redis_test

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/redis"
	"github.com/ginlimit/ginlimit/internal/testserver"
)

// keyspace reads and writes keys as somebody else would.
type keyspace struct {
	*testing.T
	client rueidis.Client
}

func (k keyspace) do(args ...string) rueidis.RedisResult {
	return k.client.Do(context.Background(), k.client.B().Arbitrary(args...).Build())
}

func (k keyspace) set(name, value string) {
	k.Helper()
	require.NoError(k, k.do("SET", name, value).Error())
}

func (k keyspace) get(name string) string {
	k.Helper()
	value, err := k.do("GET", name).ToString()
	if !rueidis.IsRedisNil(err) {
		require.NoError(k, err)
	}
	return value
}

// ttl returns how many ms name has, -1 if it has no end.
func (k keyspace) ttl(name string) int64 {
	k.Helper()
	ms, err := k.do("PTTL", name).ToInt64()
	require.NoError(k, err)
	return ms
}

// tryTake is a Take in which nothing may panic, whatever the key holds.
func (k keyspace) tryTake(b *redis.Backend, key string, cost int64, limits ...backend.Limit) (backend.Result, error) {
	k.Helper()
	defer func() {
		if p := recover(); p != nil {
			require.FailNow(k, "a panic", "%v: cost %d, %v, value %q", p, cost, limits, k.get(redis.StateKey(b, key)))
		}
	}()
	return b.Take(context.Background(), key, cost, limits...)
}

// longestState returns how long the state of limits can matter.
func longestState(limits ...backend.Limit) (longest time.Duration) {
	for _, l := range limits {
		d := 2 * l.Period
		switch l.Algorithm {
		case backend.TokenBucket: // and a debt of as much
			d = 2 * time.Duration(math.Ceil(float64(l.Capacity())/float64(l.Count)*float64(l.Period)))
		case backend.CalendarWindow:
			d = 63 * 24 * time.Hour
		}
		longest = max(longest, d)
	}
	return longest
}

// foreignValues are commands that leave something at a key that no version of ours has written.
var foreignValues = map[string][]string{
	"list":            {"RPUSH", "key", "a", "b"},
	"hash":            {"HSET", "key", "field", "value"},
	"set":             {"SADD", "key", "member"},
	"stream":          {"XADD", "key", "*", "field", "value"},
	"empty string":    {"SET", "key", ""},
	"word":            {"SET", "key", "hello"},
	"number":          {"SET", "key", "42"},
	"negative number": {"SET", "key", "-1 -1"},
	"later version":   {"SET", "key", "v2 1795273622 0 5/1s 0"},
	"JSON":            {"SET", "key", `{"count":5,"reset":1795273622}`},
	"spaces":          {"SET", "key", "   "},
	"zeros":           {"SET", "key", "\x00\x00\x00\x00"},
	"binary":          {"SET", "key", "\xff\xfe\x00\x01\n\r\t\x80"},
	"slot of nothing": {"SET", "key", "1795273622 0 x"},
	"count of 0":      {"SET", "key", "1795273622 0 0/1s 0"},
	"period of 0":     {"SET", "key", "1795273622 0 5/0s 0"},
	"huge count":      {"SET", "key", "1795273622 0 9999999999999999/1s 0"},
	"huge period":     {"SET", "key", "1795273622 0 5/99999999999999999999s 0"},
	"huge burst":      {"SET", "key", "1795273622 0 5/1s+9999999999999999999999 0"},
	"long refill":     {"SET", "key", "1795273622 0 1/31622400s+100 0"},
	"huge time":       {"SET", "key", "1795273622 0 5/1s 99999999999999999999"},
	"huge part":       {"SET", "key", "1795273622 0 5/1s 0,5"},
	"huge use":        {"SET", "key", "1795273622 0 f5/1s 0,9999999999999999"},
	"missing use":     {"SET", "key", "1795273622 0 s5/1s 0"},
	"missing log":     {"SET", "key", "1795273622 0 l5/1s 0,3,24:"},
	"part of a log":   {"SET", "key", "1795273622 0 l5/1s 0,3,7:1234567"},
	"use without log": {"SET", "key", "1795273622 0 l5/1s 0,3,0:"},
	"log without use": {"SET", "key", "1795273622 0 l5/1s 0,0,8:12345678"},
	"half a slot":     {"SET", "key", "1795273622 0 5/1s"},
	"text after it":   {"SET", "key", "1795273622 0 5/1s 0 and more"},
}

// A value that is not ours is an error, is never overwritten, and does not stay for longer than one
// of ours could.
func TestForeignValue(t *testing.T) {
	s := testserver.Redis(t)
	k := keyspace{t, newClient(t, s.Addr(), false)}
	b := newInstance(t, s.Addr(), prefix())
	ctx := context.Background()
	name := redis.StateKey(b, "key")
	for kind, command := range foreignValues {
		for _, a := range everyAlgorithm {
			k.T = t
			t.Run(kind+"/"+a.String(), func(t *testing.T) {
				k.T = t
				limits := []backend.Limit{{Count: 5, Period: 10 * time.Second, Algorithm: a}, backend.Unlimited(), {Count: 2, Period: time.Second, Algorithm: a}}
				put := func() string {
					require.NoError(t, k.do("DEL", name).Error())
					require.NoError(t, k.do(append([]string{command[0], name}, command[2:]...)...).Error())
					dump, err := k.do("DUMP", name).ToString()
					require.NoError(t, err)
					return dump
				}
				refused := func(err error) {
					t.Helper()
					require.ErrorIs(t, err, backend.ErrUnavailable)
					require.Contains(t, err.Error(), "not ours")
					require.True(t, strings.HasPrefix(err.Error(), "ginlimit: "))
				}
				dump := put()
				unchanged := func() {
					t.Helper()
					now, err := k.do("DUMP", name).ToString()
					require.NoError(t, err)
					require.Equal(t, dump, now)
				}

				// A look and a refund write nothing.
				_, err := k.tryTake(b, "key", 0, limits...)
				refused(err)
				refused(b.Settle(ctx, "key", backend.Result{Allowed: true, At: time.Now()}, 1, 0, limits...))
				unchanged()
				require.Equal(t, int64(-1), k.ttl(name))

				_, err = k.tryTake(b, "key", 1, limits...)
				refused(err)
				unchanged()
				ttl := k.ttl(name)
				require.Positive(t, ttl)
				require.LessOrEqual(t, ttl, longestState(limits...).Milliseconds())

				// A shorter end stays as it is, a longer one does not.
				require.NoError(t, k.do("PEXPIRE", name, "400").Error())
				_, err = k.tryTake(b, "key", 1, limits...)
				refused(err)
				require.LessOrEqual(t, k.ttl(name), int64(400))
				require.NoError(t, k.do("PEXPIRE", name, "9000000").Error())
				_, err = k.tryTake(b, "key", 1, limits...)
				refused(err)
				require.LessOrEqual(t, k.ttl(name), longestState(limits...).Milliseconds())
				unchanged()

				// Reset makes room at once.
				require.NoError(t, b.Reset(ctx, "key"))
				require.True(t, decide(t, b, "key", 1, limits...).Allowed)
			})
		}
	}
}

// A key with a foreign value recovers by itself.
func TestForeignValueEnds(t *testing.T) {
	t.Parallel()
	s := testserver.Redis(t)
	k := keyspace{t, newClient(t, s.Addr(), false)}
	b := newInstance(t, s.Addr(), prefix())
	for _, a := range everyAlgorithm {
		key := a.String()
		limit := backend.Limit{Count: 3, Period: 100 * time.Millisecond, Algorithm: a}
		require.NoError(t, k.do("RPUSH", redis.StateKey(b, key), "foreign").Error())
		_, err := b.Take(context.Background(), key, 1, limit)
		require.ErrorIs(t, err, backend.ErrUnavailable)
		require.Eventually(t, func() bool {
			res, err := b.Take(context.Background(), key, 3, limit)
			return err == nil && res.Allowed
		}, soon, 10*time.Millisecond)
	}
}

// ours is what the backend wrote under limits, and the last charge.
type ours struct {
	value  string
	limits []backend.Limit
	charge backend.Result
}

func ourValues(k keyspace, b *redis.Backend) (values []ours) {
	sets := [][]backend.Limit{
		{{Count: 7, Period: time.Second}},
		{{Count: 7, Period: time.Minute, Burst: 20}},
		{{Count: 100, Period: time.Minute, Algorithm: backend.SlidingWindow}},
		{{Count: 100, Period: time.Minute, Algorithm: backend.SlidingLog}},
		{{Count: 100, Period: time.Minute, Algorithm: backend.FixedWindow}},
		{{Count: backend.MaxCount, Period: backend.MaxPeriod, Algorithm: backend.SlidingLog}},
		mixedLimits(4),
		mixedLimits(8),
		{backend.Unlimited(), {Count: 3, Period: 7 * time.Millisecond}, {Count: 10, Period: time.Hour, Algorithm: backend.SlidingLog}},
	}
	for _, limits := range sets {
		least := int64(math.MaxInt64)
		for _, l := range limits {
			least = min(least, l.Capacity())
		}
		for _, part := range []int64{1, least / 2, least} {
			key := fmt.Sprint("ours", len(values))
			v := ours{limits: limits}
			for _, cost := range []int64{part, 1, 2} {
				v.charge = decide(k, b, key, cost, limits...)
			}
			v.charge.Allowed, v.value = true, k.get(redis.StateKey(b, key))
			values = append(values, v)
		}
	}
	return values
}

// mutate returns value with a few random changes.
func mutate(r *rand.Rand, value string, others []ours) string {
	b := []byte(value)
	for range 1 + r.IntN(3) {
		at := r.IntN(len(b) + 1)
		from := min(len(b), at+r.IntN(8))
		switch r.IntN(9) {
		case 0: // cut the end off
			b = b[:at]
		case 1: // leave something out
			b = append(b[:at:at], b[from:]...)
		case 2: // a byte of any kind
			if at < len(b) {
				b[at] = byte(r.IntN(256))
			}
		case 3, 4: // a character that means something
			const meaning = "0123456789 ,:/+-sfl"
			if at < len(b) {
				b[at] = meaning[r.IntN(len(meaning))]
			}
		case 5: // twice the same
			b = append(b[:from:from], b[at:]...)
		case 6: // a number in place of another, or in the middle of one
			number := []string{"0", "-1", "1", "99", "1000000000000", "999999999999999", "9007199254740993", "18446744073709551616", "1e9", "0x10", "nan", "inf", strings.Repeat("9", 400)}
			end := at
			for r.IntN(2) == 0 && end < len(b) && '0' <= b[end] && b[end] <= '9' {
				end++
			}
			b = append(append(b[:at:at], number[r.IntN(len(number))]...), b[end:]...)
		case 7: // the end of another value
			other := others[r.IntN(len(others))].value
			b = append(b[:at:at], other[r.IntN(len(other)):]...)
		case 8: // a slot of another value
			slots := strings.SplitAfter(others[r.IntN(len(others))].value, " ")
			b = append(append(b[:at:at], slots[r.IntN(len(slots))]...), b[at:]...)
		}
	}
	return string(b)
}

// rulesIn returns the limits that slots of value may have been charged under.
func rulesIn(value string) (limits []backend.Limit) {
	for _, word := range strings.Split(value, " ") {
		if rule, ok := redis.ParseRule(word); ok {
			limits = append(limits, rule.Limit())
		}
	}
	return limits
}

// Whatever stands at a key, a Take fails as it should or answers within the limits, and if it
// changed anything the key has an end.
func TestMutatedValue(t *testing.T) {
	t.Parallel()
	s := testserver.Redis(t)
	k := keyspace{t, newClient(t, s.Addr(), false)}
	b := newTruth(t, s.Addr(), prefix())
	values := ourValues(k, b)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	rounds := 2000
	if testing.Short() {
		rounds = 500
	}
	name := redis.StateKey(b, "key")
	decided := 0
	for range rounds {
		was := values[r.IntN(len(values))]
		limits := was.limits
		if r.IntN(4) == 0 { // or other limits than it was written under
			limits = values[r.IntN(len(values))].limits
		}
		value := mutate(r, was.value, values)
		k.set(name, value)
		for _, cost := range []int64{0, 1 + r.Int64N(100)} {
			res, err := k.tryTake(b, "key", cost, limits...)
			why := fmt.Sprintf("cost %d, %v, value %q: %v, %v", cost, limits, value, res, err)
			if err != nil {
				if assert.ErrorIs(t, err, backend.ErrUnavailable, why) && assert.Contains(t, err.Error(), "not ours", why) && cost > 0 {
					assert.NotEqual(t, int64(-1), k.ttl(name), why)
					assert.LessOrEqual(t, k.ttl(name), longestState(limits...).Milliseconds()+1, why)
				}
				continue
			}
			decided++
			assert.GreaterOrEqual(t, res.Remaining, int64(0), why)
			assert.LessOrEqual(t, res.Remaining, res.Limit.Capacity(), why)
			assert.LessOrEqual(t, max(res.RetryAfter, res.ResetAfter), longestState(append(rulesIn(value), res.Limit)...)+time.Microsecond, why)
			switch {
			case res.Allowed && cost > 0:
				assert.LessOrEqual(t, res.Remaining, res.Limit.Capacity()-cost, why)
				assert.NotEqual(t, int64(-1), k.ttl(name), why)
			case k.get(name) != value:
				assert.Positive(t, cost, why)
				assert.NotEqual(t, int64(-1), k.ttl(name), why)
			}
		}
		if t.Failed() {
			return
		}
		k.set(name, value)
		err := b.Settle(context.Background(), "key", was.charge, 1+r.Int64N(3), 0, limits...)
		if err != nil {
			require.ErrorIs(t, err, backend.ErrUnavailable)
			require.Contains(t, err.Error(), "not ours", "refund under %v, value %q", limits, value)
			require.Equal(t, value, k.get(name), "a refund changed a foreign value")
		}
	}
	assert.Greater(t, decided, rounds/10)
	assert.Less(t, decided, 2*rounds*9/10)
}

// Every part of a value of ours, as a broken copy would leave it.
func TestTruncatedValue(t *testing.T) {
	t.Parallel()
	s := testserver.Redis(t)
	k := keyspace{t, newClient(t, s.Addr(), false)}
	b := newTruth(t, s.Addr(), prefix())
	name := redis.StateKey(b, "key")
	for _, v := range ourValues(k, b) {
		value := v.value
		for end := range min(len(value), 200) {
			k.set(name, value[:end])
			res, err := k.tryTake(b, "key", 1, v.limits...)
			if err != nil {
				require.ErrorIs(t, err, backend.ErrUnavailable)
				require.Contains(t, err.Error(), "not ours", "%q", value[:end])
			} else {
				require.LessOrEqual(t, res.Remaining, res.Limit.Capacity())
				require.GreaterOrEqual(t, res.Remaining, int64(0))
			}
			if err != nil || res.Allowed {
				require.NotEqual(t, int64(-1), k.ttl(name), "%q", value[:end])
			}
			require.False(t, t.Failed(), "%q", value[:end])
		}
	}
}

// Units used under a limit count under the one that takes its place, whatever the algorithms.
func TestValueOfOlderLimit(t *testing.T) {
	s := testserver.Redis(t)
	b := newTruth(t, s.Addr(), prefix())
	for _, a := range everyAlgorithm {
		old := hourly(10, a)
		for _, c := range []struct {
			name    string
			limit   backend.Limit
			cost    int64
			allowed bool
			left    int64
		}{
			{"a larger count", hourly(20, a), 0, true, 16},
			{"a larger count", hourly(20, a), 16, true, 0},
			{"a smaller count", hourly(5, a), 0, true, 1},
			{"a smaller count", hourly(5, a), 2, false, 1},
			{"a count below what was used", hourly(3, a), 1, false, 0},
			{"another period", backend.Limit{Count: 10, Period: 24 * time.Hour, Algorithm: a}, 1, true, 5},
			{"count and period", backend.Limit{Count: 7, Period: 31*time.Minute + time.Microsecond, Algorithm: a}, 1, true, 2},
			{"the largest", backend.Limit{Count: backend.MaxCount, Period: backend.MaxPeriod, Algorithm: a}, 1, true, backend.MaxCount - 5},
			{"another algorithm", hourly(10, (a+1)%4), 1, true, 5},
			{"another algorithm", hourly(10, (a+2)%4), 7, false, 6},
			{"a smaller count of another algorithm", hourly(3, (a+3)%4), 1, false, 0},
			{"unlimited", backend.Unlimited(), 1, true, math.MaxInt64},
			{"nothing", backend.Limit{Period: time.Hour, Algorithm: a}, 1, false, 0},
		} {
			key := fmt.Sprint(a, c.name, c.cost)
			require.True(t, decide(t, b, key, 4, old).Allowed)
			res := decide(t, b, key, c.cost, c.limit)
			assert.Equal(t, c.allowed, res.Allowed, "%v: %s", a, c.name)
			assert.Equal(t, c.left, res.Remaining, "%v: %s", a, c.name)
		}
	}
}

// A refusal under other limits than a key was charged under is remembered like any other, and
// counts down as true.
func TestOlderLimitIsRemembered(t *testing.T) {
	s := testserver.Redis(t)
	p := prefix()
	b, truth := newInstance(t, s.Addr(), p), newTruth(t, s.Addr(), p)
	for _, a := range everyAlgorithm {
		for _, now := range [][]backend.Limit{
			{hourly(5, a)}, {hourly(5, (a+1)%4)}, {{Count: 5, Period: time.Minute, Algorithm: a}}, {hourly(5, a), hourly(100, (a+3)%4)},
		} {
			key := fmt.Sprint(a, now)
			require.True(t, decide(t, truth, key, 20, hourly(20, a)).Allowed)
			refuse(t, b, key, 1, now...)
			local := decide(t, b, key, 1, now...)
			require.Equal(t, backend.SourceDenyCache, local.Source)
			want := decide(t, truth, key, 1, now...)
			assert.Equal(t, want.Limit, local.Limit)
			assert.Equal(t, want.Remaining, local.Remaining)
			assert.Equal(t, want.At.Add(want.RetryAfter), local.At.Add(local.RetryAfter), "%v under %v", a, now)
			assert.Equal(t, want.At.Add(want.ResetAfter), local.At.Add(local.ResetAfter), "%v under %v", a, now)
		}
	}
	for range 20 { // a larger cost waits for charges that the answer to a smaller one did not name
		require.True(t, decide(t, truth, "larger", 1, hourly(20, backend.SlidingLog)).Allowed)
	}
	refuse(t, b, "larger", 1, hourly(5, backend.TokenBucket))
	local, want := decide(t, b, "larger", 3, hourly(5, backend.TokenBucket)), decide(t, truth, "larger", 3, hourly(5, backend.TokenBucket))
	assert.Equal(t, want.At.Add(want.RetryAfter), local.At.Add(local.RetryAfter))

	charged := []backend.Limit{hourly(20, backend.SlidingLog), hourly(30, backend.TokenBucket)}
	require.True(t, decide(t, truth, "moved", 20, charged...).Allowed)
	refuse(t, b, "moved", 1, charged[1], charged[0])
	local, want = decide(t, b, "moved", 1, charged[1], charged[0]), decide(t, truth, "moved", 1, charged[1], charged[0])
	assert.Equal(t, backend.SourceDenyCache, local.Source)
	assert.Equal(t, want.Limit, local.Limit)
	assert.Equal(t, want.At.Add(want.RetryAfter), local.At.Add(local.RetryAfter))
}
