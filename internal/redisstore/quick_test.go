package redisstore

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/internal/testserver"
	"github.com/ginlimit/ginlimit/lua"
)

// What is common is decided by quick.lua.tmpl alone, without the rest of the script, and as the
// rest would. That package memory agrees is tested elsewhere.
func TestQuickDecides(t *testing.T) {
	server := miniredis.RunT(t)
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{server.Addr()}, ForceSingleClient: true, DisableCache: true,
	})
	require.NoError(t, err)
	t.Cleanup(client.Close)
	const left = "return 'left'" // the end of a script that has only quick.lua.tmpl
	eval := func(key, text string, args []string) string {
		reply, err := client.Do(context.Background(), client.B().Eval().Script(text).Numkeys(1).Key(key).Arg(args...).Build()).ToString()
		require.NoError(t, err)
		return reply
	}
	whole := backend.Limit{Count: 100, Period: time.Minute}
	parts := backend.Limit{Count: 7, Period: time.Second, Burst: 20}
	odd := backend.Limit{Count: 3, Period: 3001 * time.Microsecond} // a unit takes more than a millisecond
	many := backend.Limit{Count: 1_000_000_000, Period: 24 * time.Hour}
	fixed := backend.Limit{Count: 50, Period: time.Minute, Algorithm: backend.FixedWindow}
	sliding := backend.Limit{Count: 60, Period: 90 * time.Second, Algorithm: backend.SlidingWindow}
	day := backend.PerCalendarDay(90).In("Europe/Berlin")
	places := backend.Limit{Count: 40, Period: 5 * time.Second, Algorithm: backend.Concurrency}
	for i, limits := range [][]backend.Limit{
		{whole}, {parts}, {odd}, {many}, {fixed}, {sliding}, {whole, parts}, {parts, fixed}, {sliding, whole}, {fixed, sliding, parts, whole},
		slices.Repeat([]backend.Limit{parts}, 8), slices.Repeat([]backend.Limit{sliding, fixed}, 4),
		{day}, {day, whole, backend.PerCalendarMonth(500)}, {places}, {whole, places},
	} {
		t.Run(fmt.Sprint(limits), func(t *testing.T) {
			p := ownPlan(t, limits)
			r := rand.New(rand.NewPCG(uint64(i), 7))
			require.True(t, p.calendars || len(p.at(0).one.args) == 0, "not a script of its own")
			now, charged, refused := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro(), 0, 0
			for step := range 150 {
				cost := 1 + r.Int64N(3)
				clock := fmt.Sprintf(" %d %d %d", now/1_000_000, now%1_000_000, testExtra)
				c, given := p.call(cost, 0, clock, now), p.newCall(p.at(now), cost, 0)
				given.args[0] += clock
				if step%2 == 0 {
					c = given
				}
				alone, _, ok := strings.Cut(c.script.text, "local now, format")
				require.True(t, ok)
				got := eval(fmt.Sprint("quick", i), alone+left, c.args)
				if p.holds && got == "left" {
					got = eval(fmt.Sprint("quick", i), lua.Take(), given.args[:1+len(p.at(now).words)])
				}
				want := eval(fmt.Sprint("general", i), lua.Take(), given.args[:1+len(p.at(now).words)])
				require.Equal(t, strings.HasPrefix(want, "-"), strings.HasPrefix(got, "-"), "step %d", step)
				require.Equal(t, server.TTL(fmt.Sprint("general", i)), server.TTL(fmt.Sprint("quick", i)), "step %d", step)
				if want[0] == '-' { // quick.lua.tmpl answers with the value as it stands
					refused++
				} else {
					if !p.holds { // logs are shortened in replies
						require.Equal(t, want, got, "step %d", step)
					}
					charged++
				}
				stored, _ := server.Get(fmt.Sprint("general", i))
				quickly, _ := server.Get(fmt.Sprint("quick", i))
				require.Equal(t, stored, quickly, "step %d", step)
				now += r.Int64N(300_000)
				if r.IntN(50) == 0 {
					now += r.Int64N(120_000_000)
				}
				if p.calendars && r.IntN(120) == 0 {
					now += r.Int64N(2 * 86_400_000_000)
				}
			}
			require.Greater(t, charged, 15)
			if limits[0] != many && limits[0] != odd {
				require.Greater(t, refused, 15)
			}
		})
	}

	p := ownPlan(t, []backend.Limit{parts})
	c, given := p.call(1, 0, fmt.Sprintf(" 1767225600 0 %d", testExtra), 0), p.newCall(p.at(0), 1, 0)
	given.args[0] = c.args[0]
	for value, want := range map[string]string{
		"1767225600 0 7/1s+20 5,6": "1767225600 0 7/1s+20 142863",
		"1767225600 0 7/1s+20 5,7": "left", "1767225600 0 7/1s+20 5,70": "left", "1767225600 0 7/1s+20 2857143": "left",
		"1767225600 0 7/1s+2 5": "left", "1767225600 0 7/1s 5": "left", "1767225600 0 7/1s+20 5,": "left", "nonsense": "left", "": "left",
	} {
		for _, c := range []call{c, given} {
			alone, _, _ := strings.Cut(c.script.text, "local now, format")
			require.NoError(t, server.Set("key", value))
			require.Equal(t, want, eval("key", alone+left, c.args), "%q", value)
		}
	}
}

// So it is with several keys, by the scripts that have their numbers and by those that are told
// them, up to a number of each.
func TestQuickDecidesAll(t *testing.T) {
	server := miniredis.RunT(t)
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{server.Addr()}, ForceSingleClient: true, DisableCache: true,
	})
	require.NoError(t, err)
	t.Cleanup(client.Close)
	parts7 := backend.Limit{Count: 7, Period: time.Second, Burst: 20}
	lists := [][]backend.Limit{
		{{Count: 100, Period: time.Minute}}, {parts7}, {{Count: 50, Period: time.Minute, Algorithm: backend.FixedWindow}},
		{{Count: 60, Period: 90 * time.Second, Algorithm: backend.SlidingWindow}}, {{Count: 40, Period: time.Minute}, parts7},
	}
	b := New(Defaults(Library{}))
	for _, limits := range lists {
		b.Prepare(limits...)
	}
	var plans []*plan
	for _, limits := range lists {
		p, err := b.newPlan(limits)
		require.NoError(t, err)
		plans = append(plans, p)
	}
	eval := func(where string, c call, keys int) string {
		cmd := client.B().Eval().Script(c.script.text).Numkeys(int64(keys))
		names := make([]string, keys)
		for i := range names {
			names[i] = fmt.Sprint(where, i)
		}
		reply, err := client.Do(context.Background(), cmd.Key(names...).Arg(c.args...).Build()).ToString()
		require.NoError(t, err)
		return reply
	}
	alone := func(c call) call {
		quick, _, ok := strings.Cut(c.script.text, "local now, format")
		require.True(t, ok)
		return call{newScript(quick + "return 'left'"), c.args}
	}
	r := rand.New(rand.NewPCG(1, 9))
	now, charged, refused, own := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro(), 0, 0, 0
	for step := range 600 {
		var parts []part
		for i := range 2 + r.IntN(2) { // each key always has one list of limits, in one of two orders
			n := i + (step/300)*2
			parts = append(parts, part{Charge: &backend.Charge{Cost: 1 + r.Int64N(2)*r.Int64N(4), Limits: lists[n]}, plan: plans[n]})
		}
		if step == 300 {
			server.FlushAll()
		}
		clock := fmt.Sprintf(" %d %d %d", now/1_000_000, now%1_000_000, testExtra)
		c := b.scripts.takeAll(parts, true, clock, now)
		require.NotEqual(t, takeAllScript(), c.script)
		if len(c.args) == 1 {
			own++
		}
		got := eval("quick", alone(c), len(parts))
		want := eval("general", call{takeAllScript(), allArgs(parts, nil, "1"+clock)}, len(parts))
		require.Equal(t, want[0] == '-', got[0] == '-', "step %d: %q and %q", step, want, got)
		for i := range parts {
			require.Equal(t, server.TTL(fmt.Sprint("general", i)), server.TTL(fmt.Sprint("quick", i)), "step %d", step)
			rest, whole := got, answer{}
			for j := range i + 1 { // every reply can be read
				whole = answer{}
				rest, err = whole.decode(strings.TrimPrefix(rest, "\n"), parts[j].plan)
				require.NoError(t, err)
			}
			require.Equal(t, want[0] != '-', whole.charged)
		}
		if want[0] == '-' {
			refused++
		} else {
			require.Equal(t, want, got, "step %d", step)
			charged++
		}
		now += r.Int64N(200_000)
	}
	require.Greater(t, charged, 100)
	require.Greater(t, refused, 100)
	require.Greater(t, own, 50)

	// What cannot be quick, and what is one too many.
	one := func(limits ...backend.Limit) part {
		p, err := b.newPlan(limits)
		require.NoError(t, err)
		return part{Charge: &backend.Charge{Cost: 1, Limits: limits}, plan: p}
	}
	general := takeAllScript()
	require.Equal(t, general, b.scripts.takeAll([]part{one(lists[0]...), one(backend.Unlimited())}, true, "", 0).script)
	require.Equal(t, general, b.scripts.takeAll([]part{one(lists[0]...), one(lists[1]...)}, false, "", 0).script)
	require.Equal(t, general, b.scripts.takeAll(slices.Repeat([]part{one(lists[0]...)}, maxQuick+1), true, "", 0).script)
	for i := range 100 { // orders of lists
		b.scripts.takeAll([]part{one(lists[i%5]...), one(lists[i/5%5]...), one(lists[i/25]...)}, true, "", 0)
		b.scripts.takeAll([]part{one(lists[i%5]...), one(lists[i/5%5]...), one(lists[i/25]...), one(backend.Limit{Count: 99, Period: time.Minute})}, true, "", 0)
	}
	require.Len(t, *b.scripts.ownAll.Load(), maxOwn)
	require.Len(t, *b.scripts.toldAll.Load(), maxTold)
}

// ownPlan returns the plan of limits that a Backend was told of.
func ownPlan(tb testing.TB, limits []backend.Limit) *plan {
	b := New(Defaults(Library{}))
	b.Prepare(limits...)
	p, err := b.newPlan(limits)
	require.NoError(tb, err)
	return p
}

// scriptClient is a Client that runs scripts.
type scriptClient struct {
	Client
	client rueidis.Client
}

func (s scriptClient) EvalSha(ctx context.Context, sha, key string, _, args []string) (string, error) {
	return s.client.Do(ctx, s.client.B().Evalsha().Sha1(sha).Numkeys(1).Key(key).Arg(args...).Build()).ToString()
}

func (s scriptClient) Eval(ctx context.Context, text, key string, _, args []string) (string, error) {
	return s.client.Do(ctx, s.client.B().Eval().Script(text).Numkeys(1).Key(key).Arg(args...).Build()).ToString()
}

func (scriptClient) Cluster() bool                         { return false }
func (scriptClient) Nodes(context.Context) map[string]Node { return nil }

// Lists of limits that a Backend was told of have scripts of their own, up to a bound; the others
// share one that is told their numbers, however many there are.
func TestOwnScripts(t *testing.T) {
	server := testserver.Redis(t)
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{server.Addr()}, ForceSingleClient: true})
	require.NoError(t, err)
	t.Cleanup(client.Close)
	ctx := context.Background()
	c := Defaults(Library{Answer: func(err error) (string, bool) { return err.Error(), true }})
	c.Timeout, c.DenyCache = time.Minute, false
	b := New(c)
	b.Use(scriptClient{client: client})
	list := func(i int64) []backend.Limit { return []backend.Limit{{Name: "a", Count: 3 + i, Period: time.Minute}} }
	for i := range int64(2 * maxOwn) {
		b.Prepare(list(2 * i)...)
		b.Prepare(list(0)...) // again
	}
	for i := range int64(5 * maxOwn) {
		limits := list(i)
		for used := range int64(3) {
			limits[0].Name += "a" // names are not in the scripts
			res, err := b.Take(ctx, fmt.Sprint(i), 1, limits...)
			require.NoError(t, err)
			require.True(t, res.Allowed)
			require.Equal(t, 3+i-1-used, res.Remaining)
		}
		p, err := b.newPlan(limits)
		require.NoError(t, err)
		require.Equal(t, i%2 == 0 && i < 2*maxOwn, len(p.call(1, 0, "", 0).args) == 0, "list %d", i)
		// No quick script decides for this value.
		res, err := b.Take(ctx, fmt.Sprint(i), 1, limits[0].WithBurst(2))
		require.NoError(t, err)
		require.False(t, res.Allowed)
	}
	info, err := client.Do(ctx, client.B().Info().Section("memory").Build()).ToString()
	require.NoError(t, err)
	const shared = 2 // for intervals that have parts of a microsecond, and that do not
	require.Contains(t, info, fmt.Sprintf("number_of_cached_scripts:%d\r\n", maxOwn+shared))
}

// BenchmarkOwn compares what Redis itself measures of the scripts that can decide for one limit, in
// turns: its own, the one that is told the numbers, and the general one.
func BenchmarkOwn(b *testing.B) {
	server := testserver.Redis(b)
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{server.Addr()}, ForceSingleClient: true, DisableCache: true})
	require.NoError(b, err)
	b.Cleanup(client.Close)
	p := ownPlan(b, []backend.Limit{{Count: 1_000_000, Period: time.Hour}})
	ctx := context.Background()
	var micros, calls [3]float64
	told := p.newCall(p.at(0), 1, 0)
	general := call{takeScript(), told.args[:1+len(p.limits)]}
	for b.Loop() {
		for i, c := range []call{p.at(0).one, told, general} {
			require.NoError(b, client.Do(ctx, client.B().ScriptLoad().Script(c.script.text).Build()).Error())
			require.NoError(b, client.Do(ctx, client.B().ConfigResetstat().Build()).Error())
			for range 40 {
				var commands rueidis.Commands
				for key := range 50 {
					commands = append(commands, client.B().Evalsha().Sha1(c.script.sha).Numkeys(1).Key(fmt.Sprint(i, key)).Arg(c.args...).Build())
				}
				for _, reply := range client.DoMulti(ctx, commands...) {
					require.NoError(b, reply.Error())
				}
			}
			var n, us float64
			_, err := fmt.Sscanf(server.Info("commandstats", "cmdstat_evalsha"), "calls=%f,usec=%f", &n, &us)
			require.NoError(b, err)
			calls[i], micros[i] = calls[i]+n, micros[i]+us
		}
	}
	b.ReportMetric(micros[0]/calls[0], "µs/own")
	b.ReportMetric(micros[1]/calls[1], "µs/told")
	b.ReportMetric(micros[2]/calls[2], "µs/general")
}

// What quick.lua.tmpl cannot work with, the general script gets.
func TestNotQuick(t *testing.T) {
	const marker = "local x1, y1" // only quick.lua.tmpl has it
	bucket := backend.Limit{Count: 100, Period: time.Minute}
	for name, c := range map[string]struct {
		cost   int64
		limits []backend.Limit
	}{
		"a look":             {0, []backend.Limit{bucket}},
		"a log":              {1, []backend.Limit{bucket, {Count: 1, Period: time.Minute, Algorithm: backend.SlidingLog}}},
		"unlimited":          {1, []backend.Limit{backend.Unlimited()}},
		"15 digits":          {1, []backend.Limit{{Count: 100_000_000_000_000, Period: time.Hour}}},
		"a long refill":      {1, []backend.Limit{{Count: 7, Period: backend.MaxPeriod, Burst: 100}}},
		"a cost of 15":       {1_000_000_000, []backend.Limit{bucket}},
		"a cost of 15 units": {100_000_000_000_000, []backend.Limit{{Count: 1, Period: time.Hour, Algorithm: backend.FixedWindow}}},
		"a product":          {1, []backend.Limit{{Count: 1_000_000_000, Period: time.Hour, Algorithm: backend.SlidingWindow}}},
		"many":               {1, slices.Repeat([]backend.Limit{bucket}, 9)},
	} {
		p := ownPlan(t, c.limits)
		got := p.call(c.cost, 0, "", 0)
		require.NotContains(t, got.script.text, marker, name)
		require.Len(t, got.args, 1+len(c.limits), name)
	}
	p := ownPlan(t, []backend.Limit{bucket})
	require.Contains(t, p.call(1, 0, "", 0).script.text, marker)
}
