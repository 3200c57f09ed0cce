package redis_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha1"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/redis"
	"github.com/ginlimit/ginlimit/internal/testserver"
)

// While a deploy rolls out, instances of two versions decide on the same keys. testdata holds what
// a version of the layout did: its scripts, what it called them with, what they replied and what
// they stored, for schedules that package memory answered too. It is never written again. A layout
// with another number gets a directory of its own, with -record-version.

var recordVersion = flag.Bool("record-version", false, "write testdata of this version of the layout")

const versionDir = "testdata/v1"

// pastStep is a step as a version of the past made it.
type pastStep struct {
	At     int64 // µs since 1970
	Op     string
	Cost   int64
	Limits []backend.Limit
	Charge int
	Actual int64
	Want   backend.Result
	Script []string `json:",omitempty"` // the files that it was put together of
	Args   []string `json:",omitempty"`
	Reply  []byte   `json:",omitempty"`
	State  []byte   `json:",omitempty"` // afterwards
}

// recorder keeps the last script that went over a client.
type recorder struct {
	rueidis.Client
	command []string
	reply   string
}

func (r *recorder) Do(ctx context.Context, cmd rueidis.Completed) rueidis.RedisResult {
	command := slices.Clone(cmd.Commands())
	res := r.Client.Do(ctx, cmd)
	if command[0] == "EVAL" {
		r.command = command
		r.reply, _ = res.ToString()
	}
	return res
}

// keepScript writes a script to testdata, and returns the names of its files there: what many
// scripts have in common is one.
func keepScript(t *testing.T, text string) (names []string) {
	own, law, found := strings.Cut(text, "local now, ")
	require.True(t, found)
	for _, part := range []string{own, "local now, " + law} {
		name := fmt.Sprintf("%x", sha1.Sum([]byte(part)))
		require.NoError(t, os.WriteFile(filepath.Join(versionDir, name+".lua"), []byte(part), 0o644))
		names = append(names, name)
	}
	return names
}

// recordPast writes testdata, with the schedules of some seeds.
func recordPast(t *testing.T, client rueidis.Client) {
	ctx := context.Background()
	require.NoError(t, os.MkdirAll(versionDir, 0o755))
	var all [][]pastStep
	for seed := uint64(1); len(all) < 30; seed++ {
		steps := record(t, seed, 20)
		r := &recorder{Client: client}
		b := redis.New(r, redis.WithPrefix(prefix()), redis.WithDenyCache(false), redis.WithTimeout(ample))
		clock := newSettable()
		redis.SetClock(b, clock.micros.Load)
		var past []pastStep
		got := make([]backend.Result, len(steps))
		size := 0
		for i, st := range steps {
			clock.micros.Store(st.at.UnixMicro())
			require.NoError(t, client.Do(ctx, client.B().ScriptFlush().Build()).Error()) // so that the text is sent
			r.command, r.reply = nil, ""
			p := pastStep{At: st.at.UnixMicro(), Op: st.op, Cost: st.cost, Limits: st.limits, Charge: st.charge, Actual: st.actual, Want: st.want}
			p.Want = normal(t, p.Want)
			runStep(t, b, p, got, i)
			if r.command != nil {
				p.Script, p.Args, p.Reply = keepScript(t, r.command[1]), r.command[4:], []byte(r.reply)
			}
			state, err := client.Do(ctx, client.B().Get().Key(redis.StateKey(b, "key")).Build()).ToString()
			require.True(t, err == nil || rueidis.IsRedisNil(err))
			p.State = []byte(state)
			size += len(state) + len(r.reply)
			past = append(past, p)
		}
		if size > 20_000 {
			continue // long logs
		}
		all = append(all, past)
	}
	var buf bytes.Buffer
	zip := gzip.NewWriter(&buf)
	require.NoError(t, errors.Join(json.NewEncoder(zip).Encode(all), zip.Close()))
	require.NoError(t, os.WriteFile(filepath.Join(versionDir, "steps.json.gz"), buf.Bytes(), 0o644))
}

// readPast returns what recordPast wrote.
func readPast(t *testing.T) (all [][]pastStep) {
	file, err := os.Open(filepath.Join(versionDir, "steps.json.gz"))
	require.NoError(t, err)
	defer file.Close()
	zip, err := gzip.NewReader(file)
	require.NoError(t, err)
	require.NoError(t, json.NewDecoder(zip).Decode(&all))
	require.NotEmpty(t, all)
	return all
}

// runStep makes a step with today's Backend, whose clock is set, and keeps its Result.
func runStep(t *testing.T, b *redis.Backend, p pastStep, got []backend.Result, i int) {
	t.Helper()
	ctx := context.Background()
	var err error
	switch p.Op {
	case "Reset":
		err = b.Reset(ctx, "key")
	case "Settle":
		err = b.Settle(ctx, "key", got[p.Charge], p.Cost, p.Actual, p.Limits...)
	default:
		got[i], err = b.Take(ctx, "key", p.Cost, p.Limits...)
	}
	require.NoError(t, err, "step %d: %v", i, p)
}

// Two versions share one store: whichever of them makes a step, both decide as if there were one.
func TestVersionsShareAStore(t *testing.T) {
	client := newClient(t, testserver.Redis(t).Addr(), false)
	if *recordVersion {
		recordPast(t, client)
	}
	for n, steps := range readPast(t) {
		for _, today := range []struct {
			name  string
			share int // of today's version, in percent
		}{{"today's alone", 100}, {"first one, then the other", -1}, {"both", 50}, {"both", 50}, {"the past's alone", 0}} {
			r := rand.New(rand.NewPCG(uint64(n), uint64(today.share)))
			b := redis.New(client, redis.WithPrefix(prefix()), redis.WithDenyCache(false), redis.WithTimeout(ample))
			clock := newSettable()
			redis.SetClock(b, clock.micros.Load)
			got := make([]backend.Result, len(steps))
			for i, p := range steps {
				clock.micros.Store(p.At)
				at := fmt.Sprintf("schedule %d, %s, step %d", n, today.name, i)
				switch {
				case p.Op == "Reset", r.IntN(100) < today.share, today.share < 0 && (i < len(steps)/2) == (n%2 == 0):
					runStep(t, b, p, got, i)
					require.Equal(t, normal(t, p.Want), normal(t, got[i]), at)
				default:
					if p.Script != nil {
						require.Equal(t, string(p.Reply), evalPast(t, client, redis.StateKey(b, "key"), p), at)
					}
					got[i] = p.Want
				}
			}
		}
	}
}

// A key as the past left it is decided on today as the past would have.
func TestStateOfThePast(t *testing.T) {
	client := newClient(t, testserver.Redis(t).Addr(), false)
	k := keyspace{t, client}
	for n, steps := range readPast(t) {
		b := redis.New(client, redis.WithPrefix(prefix()), redis.WithDenyCache(false), redis.WithTimeout(ample))
		clock := newSettable()
		redis.SetClock(b, clock.micros.Load)
		got := make([]backend.Result, len(steps))
		for i, p := range steps {
			clock.micros.Store(p.At)
			if i > 0 && len(steps[i-1].State) > 0 {
				k.set(redis.StateKey(b, "key"), string(steps[i-1].State))
			}
			runStep(t, b, p, got, i)
			require.Equal(t, normal(t, p.Want), normal(t, got[i]), "schedule %d, step %d", n, i)
		}
	}
}

// normal returns what JSON keeps of res, but for its Source.
func normal(t *testing.T, res backend.Result) (kept backend.Result) {
	t.Helper()
	if res.Source = 0; !res.At.IsZero() {
		res.At = time.UnixMicro(res.At.UnixMicro()).UTC()
	}
	if res.Limit == (backend.Limit{}) { // which no text can say
		res.Limit = backend.Unlimited()
	}
	text, err := json.Marshal(res)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &kept))
	return kept
}

func evalPast(t *testing.T, client rueidis.Client, key string, p pastStep) string {
	t.Helper()
	var script []byte
	for _, name := range p.Script {
		text, err := os.ReadFile(filepath.Join(versionDir, name+".lua"))
		require.NoError(t, err)
		script = append(script, text...)
	}
	res := client.Do(context.Background(), client.B().Eval().Script(string(script)).Numkeys(1).Key(key).Arg(p.Args...).Build())
	if p.Op == "Settle" { // it replies with a number
		require.NoError(t, res.Error())
		return ""
	}
	reply, err := res.ToString()
	require.NoError(t, err)
	return reply
}
