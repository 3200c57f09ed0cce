package backend_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/algorithm"
)

var algorithms = []backend.Algorithm{backend.TokenBucket, backend.SlidingWindow, backend.SlidingLog, backend.FixedWindow}

func per(n int64, p time.Duration) backend.Limit { return backend.Limit{Count: n, Period: p} }

func TestValidate(t *testing.T) {
	for _, test := range []struct {
		limit backend.Limit
		want  string // part of the error, "" for none
	}{
		{backend.Limit{}, "period is not between"},
		{per(0, time.Second), ""},
		{per(1, time.Second), ""},
		{per(-1, time.Second), "count is negative"},
		{per(math.MinInt64, time.Second), "count is negative"},
		{per(backend.MaxCount, time.Second), ""},
		{per(backend.MaxCount+1, time.Second), "use Unlimited()"},
		{per(math.MaxInt64-1, time.Second), "use Unlimited()"},
		{backend.Unlimited(), ""},
		{backend.Limit{Count: math.MaxInt64}, ""},
		{backend.Unlimited().WithAlgorithm(backend.SlidingLog), ""},
		{backend.Unlimited().WithBurst(1), "has burst 1; only"},
		{per(1, 0), "period is not between"},
		{per(1, -time.Second), "period is not between"},
		{per(1, time.Millisecond-time.Microsecond), "period is not between"},
		{per(1, time.Millisecond), ""},
		{per(1, 366*24*time.Hour), ""},
		{per(1, 366*24*time.Hour+time.Microsecond), "period is not between 1ms and 8784h0m0s"},
		{per(1, time.Second+time.Nanosecond), "whole number of microseconds"},
		{per(1, time.Second+time.Microsecond), ""},
		{per(1, time.Second).WithBurst(-1), "burst is negative"},
		{per(1, time.Millisecond).WithBurst(backend.MaxCount), "more than 100 years"},
		{per(backend.MaxCount, time.Second).WithBurst(backend.MaxCount), ""},
		{per(backend.MaxCount, time.Second).WithBurst(backend.MaxCount + 1), "burst is above"},
		{per(0, time.Second).WithBurst(1), "never be refilled"},
		{per(1, 365*24*time.Hour).WithBurst(99), ""},
		{per(1, 365*24*time.Hour).WithBurst(100), "more than 100 years"},
		{per(1, backend.MaxPeriod).WithBurst(backend.MaxCount), "more than 100 years"},
		{per(1, 365*24*time.Hour-time.Microsecond).WithBurst(100), ""},
		{per(1, time.Second).WithAlgorithm(backend.SlidingWindow).WithBurst(1), "only a token bucket"},
		{per(1, time.Second).WithAlgorithm(backend.FixedWindow).WithBurst(-1), "only a token bucket"},
		{per(1, time.Second).WithAlgorithm(6), "unknown algorithm; use"},
		{per(backend.MaxCount, backend.MaxPeriod).WithAlgorithm(backend.SlidingWindow), ""},
	} {
		err := test.limit.Validate()
		switch {
		case test.want == "" && err != nil:
			t.Errorf("Validate of %v: got error %v, want none", test.limit, err)
		case test.want != "" && (err == nil || !strings.HasPrefix(err.Error(), "ginlimit: limit ") || !strings.Contains(err.Error(), test.want)):
			t.Errorf("Validate of %v: got error %v, want one that begins with %q and says %q", test.limit, err, "ginlimit: limit ", test.want)
		}
		if _, again := algorithm.NewRule(test.limit); fmt.Sprint(again) != fmt.Sprint(err) {
			t.Errorf("NewRule(%v): got error %v, want that of Validate, %v", test.limit, again, err)
		}
	}
}

func TestLimitString(t *testing.T) {
	for want, limit := range map[string]backend.Limit{
		"100/m":              per(100, time.Minute).Named("not shown"),
		"100/m burst 20":     per(100, time.Minute).WithBurst(20),
		"0/s sliding-window": per(0, time.Second).WithAlgorithm(backend.SlidingWindow),
		"7/ms sliding-log":   per(7, time.Millisecond).WithAlgorithm(backend.SlidingLog),
		"7/ms fixed-window":  per(7, time.Millisecond).WithAlgorithm(backend.FixedWindow),
		"7/ms Algorithm(9)":  per(7, time.Millisecond).WithAlgorithm(9),
		"unlimited":          backend.Unlimited(),
	} {
		if got := limit.String(); got != want {
			t.Errorf("String of %#v: got %q, want %q", limit, got, want)
		}
	}
}

func TestSourceString(t *testing.T) {
	for want, s := range map[string]backend.Source{
		"store": backend.SourceStore, "deny-cache": backend.SourceDenyCache, "lease": backend.SourceLease, "fallback": backend.SourceFallback, "Source(9)": 9,
	} {
		if got := s.String(); got != want {
			t.Errorf("String of %d: got %q, want %q", s, got, want)
		}
	}
}

func TestCapacity(t *testing.T) {
	for _, test := range []struct {
		limit backend.Limit
		want  int64
	}{
		{per(5, time.Second), 5},
		{per(5, time.Second).WithBurst(9), 9},
		{per(5, time.Second).WithBurst(1), 1},
		{per(5, time.Second).WithAlgorithm(backend.SlidingLog), 5},
		{per(0, time.Second), 0},
		{backend.Unlimited(), math.MaxInt64},
	} {
		if got := test.limit.Capacity(); got != test.want {
			t.Errorf("Capacity of %v: got %d, want %d", test.limit, got, test.want)
		}
	}
	if !backend.Unlimited().IsUnlimited() || per(backend.MaxCount, time.Second).IsUnlimited() {
		t.Error("IsUnlimited is true of Unlimited() alone")
	}
}

func TestLimitIsAValue(t *testing.T) {
	limit := per(5, time.Second)
	changed := limit.Named("a").WithBurst(3).WithAlgorithm(backend.FixedWindow)
	if limit != per(5, time.Second) {
		t.Errorf("the modifiers changed their receiver to %+v", limit)
	}
	if want := (backend.Limit{Name: "a", Count: 5, Period: time.Second, Burst: 3, Algorithm: backend.FixedWindow}); changed != want {
		t.Errorf("Named, WithBurst and WithAlgorithm: got %+v, want %+v", changed, want)
	}
}
