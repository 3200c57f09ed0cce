package ginlimit_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/memory"
)

func TestNewLimiterRefuses(t *testing.T) {
	ok, by := ginlimit.PerMinute(1), ginlimit.Global()
	type opts = []ginlimit.Option
	for name, tt := range map[string]struct {
		limit ginlimit.Limit
		key   ginlimit.KeyFunc
		opts  opts
	}{
		"nil key":                     {ok, nil, nil},
		"nil option":                  {ok, by, opts{nil}},
		"nil option after another":    {ok, by, opts{ginlimit.WithDryRun(true), nil}},
		"zero limit":                  {ginlimit.Limit{}, by, nil},
		"negative count":              {ginlimit.PerMinute(-1), by, nil},
		"huge count":                  {ginlimit.PerMinute(backend.MaxCount + 1), by, nil},
		"no period":                   {ginlimit.Per(1, 0), by, nil},
		"negative period":             {ginlimit.Per(1, -time.Second), by, nil},
		"short period":                {ginlimit.Per(1, time.Millisecond-time.Microsecond), by, nil},
		"long period":                 {ginlimit.Per(1, 367*24*time.Hour), by, nil},
		"period of nanoseconds":       {ginlimit.Per(1, time.Second+1), by, nil},
		"negative burst":              {ok.WithBurst(-1), by, nil},
		"huge burst":                  {ok.WithBurst(backend.MaxCount + 1), by, nil},
		"burst that never fills":      {ginlimit.PerDay(1).WithBurst(1_000_000), by, nil},
		"burst and nothing to refill": {ginlimit.PerDay(0).WithBurst(1), by, nil},
		"burst of a window":           {ok.WithAlgorithm(backend.FixedWindow).WithBurst(5), by, nil},
		"unknown algorithm":           {ok.WithAlgorithm(77), by, nil},
		"almost unlimited":            {ginlimit.PerMinute(math.MaxInt64 - 1), by, nil},
		"invalid second limit":        {ok, by, opts{ginlimit.WithLimits(ginlimit.Limit{})}},
		"two limits of one name":      {ok.Named("a"), by, opts{ginlimit.WithLimits(ok.Named("a"))}},
		"limit name with newline":     {ok.Named("a\nb"), by, nil},
		"limit name beyond ASCII":     {ok.Named("größe"), by, nil},
		"limit name with DEL":         {ok.Named("a\x7f"), by, nil},
		"empty name":                  {ok, by, opts{ginlimit.WithName("")}},
		"name with newline":           {ok, by, opts{ginlimit.WithName("a\nb")}},
		"name with NUL":               {ok, by, opts{ginlimit.WithName("a\x00b")}},
		"name beyond ASCII":           {ok, by, opts{ginlimit.WithName("日本")}},
		"backend without name":        {ok, by, opts{ginlimit.WithBackend(memory.New())}},
		"nil backend":                 {ok, by, opts{ginlimit.WithName("a"), ginlimit.WithBackend(nil)}},
		"nil tier":                    {ok, by, opts{ginlimit.WithTier(nil)}},
		"nil cost":                    {ok, by, opts{ginlimit.WithCost(nil)}},
		"nil refund":                  {ok, by, opts{ginlimit.WithRefundIf(nil)}},
		"nil skip":                    {ok, by, opts{ginlimit.WithSkip(nil)}},
		"nil deny handler":            {ok, by, opts{ginlimit.WithDenyHandler(nil)}},
		"nil observer":                {ok, by, opts{ginlimit.WithObserver(nil)}},
		"nil logger":                  {ok, by, opts{ginlimit.WithLogger(nil)}},
		"negative wait":               {ok, by, opts{ginlimit.WithMaxWait(-1)}},
		"unknown policy":              {ok, by, opts{ginlimit.WithFailurePolicy(2)}},
		"unknown header":              {ok, by, opts{ginlimit.WithHeaders(8)}},
		"unknown header among others": {ok, by, opts{ginlimit.WithHeaders(ginlimit.HeadersIETF | 128)}},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := ginlimit.NewLimiter(tt.limit, tt.key, tt.opts...)
			require.Error(t, err)
			assert.Nil(t, l)
			for line := range strings.Lines(err.Error()) {
				assert.True(t, strings.HasPrefix(line, "ginlimit: "), line)
			}
			var panicked any
			func() {
				defer func() { panicked = recover() }()
				ginlimit.New(tt.limit, tt.key, tt.opts...)
			}()
			require.Implements(t, (*error)(nil), panicked)
			assert.Equal(t, err.Error(), panicked.(error).Error())
		})
	}
}

func TestNewLimiterSaysAllThatIsWrong(t *testing.T) {
	_, err := ginlimit.NewLimiter(ginlimit.PerMinute(1), ginlimit.Global(), ginlimit.WithCost(nil),
		ginlimit.WithMaxWait(-time.Second))
	assert.ErrorContains(t, err, "WithCost(nil)")
	assert.ErrorContains(t, err, "WithMaxWait(-1s)")
}

func TestNewLimiterAccepts(t *testing.T) {
	by := ginlimit.Global()
	for name, tt := range map[string]struct {
		limit ginlimit.Limit
		opts  []ginlimit.Option
	}{
		"nothing passes": {ginlimit.PerMinute(0), nil},
		"unlimited":      {ginlimit.Unlimited(), nil},
		"extremes":       {ginlimit.Per(backend.MaxCount, 366*24*time.Hour), nil},
		"smallest":       {ginlimit.Per(1, time.Millisecond), nil},
		"odd names": {ginlimit.PerHour(1).Named(`a "quoted" \ name`),
			[]ginlimit.Option{ginlimit.WithName(` '";,~`)}},
		"same limit twice": {ginlimit.PerHour(1), []ginlimit.Option{
			ginlimit.WithLimits(ginlimit.PerHour(1)), ginlimit.WithLimits(),
		}},
		"every header": {ginlimit.PerHour(1), []ginlimit.Option{
			ginlimit.WithHeaders(ginlimit.HeadersIETF | ginlimit.HeadersLegacy | ginlimit.HeadersLegacyEpoch),
		}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ginlimit.NewLimiter(tt.limit, by, tt.opts...)
			assert.NoError(t, err)
		})
	}
}

func TestTheLastOptionWins(t *testing.T) {
	var w watch
	r := engine(ginlimit.New(ginlimit.PerMinute(0), ginlimit.Global(),
		ginlimit.WithName("first"), ginlimit.WithName("last"),
		ginlimit.WithHeaders(ginlimit.HeadersIETF), ginlimit.WithHeaders(ginlimit.HeadersNone),
		ginlimit.WithDryRun(true), ginlimit.WithDryRun(false),
		ginlimit.WithObserver(w.observe)))
	got := send(r)
	assert.Equal(t, 429, got.Code)
	assert.Equal(t, "last", w.last().Limiter)
	assert.Equal(t, map[string]string{"Cache-Control": "no-store"}, fields(got))
}

func TestLimitConstructors(t *testing.T) {
	for _, tt := range []struct {
		limit  ginlimit.Limit
		count  int64
		period time.Duration
	}{
		{ginlimit.PerSecond(1), 1, time.Second},
		{ginlimit.PerMinute(2), 2, time.Minute},
		{ginlimit.PerHour(3), 3, time.Hour},
		{ginlimit.PerDay(4), 4, 24 * time.Hour},
		{ginlimit.Per(5, 7*time.Millisecond), 5, 7 * time.Millisecond},
	} {
		assert.Equal(t, ginlimit.Limit{Count: tt.count, Period: tt.period}, tt.limit)
	}
	assert.True(t, ginlimit.Unlimited().IsUnlimited())
	assert.False(t, ginlimit.PerMinute(0).IsUnlimited())
}
