package redis_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"fmt"
	"math/big"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/backendtest"
	"github.com/ginlimit/ginlimit/backend/redis"
	"github.com/ginlimit/ginlimit/internal/testserver"
	"github.com/ginlimit/ginlimit/lua"
)

// call is a script, or a command that changes a key, as a client sent it, and what the server
// replied.
type call struct {
	script string // its text, or the name of a command
	keys   int    // of args, the first ones
	args   []string
	reply  string
}

// callRecorder keeps all that goes over a client and changes keys.
type callRecorder struct {
	rueidis.Client
	mu      sync.Mutex
	scripts map[string]string // by their SHA-1
	calls   []call
}

func (r *callRecorder) Do(ctx context.Context, cmd rueidis.Completed) rueidis.RedisResult {
	words := slices.Clone(cmd.Commands())
	r.mu.Lock()
	defer r.mu.Unlock() // so that calls are kept in the order in which they are made
	res := r.Client.Do(ctx, cmd)
	switch words[0] {
	case "EVAL":
		r.scripts[fmt.Sprintf("%x", sha1.Sum([]byte(words[1])))] = words[1]
	case "EVALSHA":
		words[1] = r.scripts[words[1]]
	case "DEL":
		r.calls = append(r.calls, call{words[0], 1, words[1:], ""})
		return res
	default:
		return res
	}
	reply, err := res.ToString()
	if n, notString := res.AsInt64(); err != nil && notString == nil {
		reply, err = strconv.FormatInt(n, 10), nil
	}
	if keys, notNumber := strconv.Atoi(words[2]); err == nil && notNumber == nil {
		r.calls = append(r.calls, call{words[1], keys, words[3:], reply})
	}
	return res
}

// interpreter returns the path of a Lua interpreter.
func interpreter(t *testing.T, name string) string {
	path, err := exec.LookPath(name)
	if err != nil && os.Getenv("CI") == "true" {
		t.Fatalf("%s is missing: .ci/servers installs it", name)
	} else if err != nil {
		t.Skipf("%s is missing: .ci/servers installs it", name)
	}
	return path
}

// run makes calls under a Lua interpreter and returns a line for each: the reply, and what the
// script did.
func run(t *testing.T, path string, calls []call) (lines []string) {
	dir := t.TempDir()
	files := map[string]string{}
	var input bytes.Buffer
	for _, c := range calls {
		words := []string{c.script}
		if len(c.script) > 10 {
			file, ok := files[c.script]
			if !ok {
				file = filepath.Join(dir, fmt.Sprint(len(files), ".lua"))
				require.NoError(t, os.WriteFile(file, []byte(c.script), 0o644))
				files[c.script] = file
			}
			words[0] = file
		}
		for _, word := range append(append(words, strconv.Itoa(c.keys)), c.args...) {
			fmt.Fprintf(&input, "x%x ", word)
		}
		input.WriteString("\n")
	}
	cmd := exec.Command(path, "testdata/interpreter.lua")
	cmd.Stdin = &input
	var failed bytes.Buffer
	cmd.Stderr = &failed
	output, err := cmd.Output()
	require.NoError(t, err, "%s", failed.String())
	for scanner := bufio.NewScanner(bytes.NewReader(output)); scanner.Scan(); {
		lines = append(lines, scanner.Text())
	}
	require.Len(t, lines, len(calls))
	return lines
}

// preparing is a Backend that is told of every list of limits.
type preparing struct{ *redis.Backend }

func (p preparing) Take(ctx context.Context, key string, cost int64, limits ...backend.Limit) (backend.Result, error) {
	p.Prepare(limits...)
	return p.Backend.Take(ctx, key, cost, limits...)
}

// Every interpreter makes the same bytes of every script: what is stored, for how long, and what is
// replied. Redis has Lua 5.1, and others 5.4, whose integers are not doubles.
func TestInterpretersAgree(t *testing.T) {
	var paths []string
	for _, name := range []string{"lua5.1", "lua5.4"} {
		paths = append(paths, interpreter(t, name))
	}
	if path, err := exec.LookPath("luajit"); err == nil {
		paths = append(paths, path)
	}
	r := &callRecorder{Client: newClient(t, testserver.Redis(t).Addr(), false), scripts: map[string]string{}}
	backends := 0
	backendtest.Run(t, backendtest.Harness{
		New: func(t *testing.T) (backend.Backend, func(time.Duration)) {
			switch group := strings.Split(t.Name(), "/")[1]; group {
			case "Versions", "Exactness", "AtOnce":
				t.Skip("thousands of calls that are alike")
			}
			b := redis.New(r, redis.WithPrefix(prefix()), redis.WithDenyCache(false), redis.WithTimeout(ample))
			clock := newSettable()
			redis.SetClock(b, clock.micros.Load)
			if backends++; backends%2 == 0 {
				return b, clock.advance
			}
			return preparing{b}, clock.advance
		},
		Backward: true,
		Rounds:   10, // of 120 steps, for each algorithm and several limits, and with a clock that goes back
	})
	values := []ours{}
	calls := r.calls
	for i, c := range r.calls {
		if len(c.args) < 2 || len(c.reply) > 200 || c.keys > 1 {
			continue
		}
		if strings.IndexAny(c.reply, "-!") != 0 { // the value that was written
			values = append(values, ours{value: c.reply})
		}
		if i%10 == 0 && len(values) > 0 { // a value that is not quite ours
			other := c
			other.args = slices.Clone(c.args)
			other.args[0], other.reply = fmt.Sprint("odd", i), ""
			calls = append(calls, call{script: "SET", keys: 1, args: []string{other.args[0], mutate(rand.New(rand.NewPCG(uint64(i), 0)), values[len(values)-1].value, values)}}, other)
		}
		if i%100 == 0 { // the time of the server, and the arguments of every day
			other := c
			other.args = slices.Clone(c.args)
			other.args[0], other.reply = fmt.Sprint("timed", i), ""
			other.args[1], _, _ = strings.Cut(c.args[1], " ")
			calls = append(calls, other)
		}
	}
	first := run(t, paths[0], calls)
	for i, c := range calls {
		if reply, _, _ := strings.Cut(first[i], " "); c.reply != "" {
			require.Equal(t, fmt.Sprintf("%x", c.reply), reply, "the server and %s: call %d, %q", paths[0], i, c.args)
		}
	}
	for _, path := range paths[1:] {
		for i, line := range run(t, path, calls) {
			require.Equal(t, first[i], line, "%s and %s: call %d, %q", paths[0], path, i, calls[i].args)
		}
	}
	t.Logf("%d calls of %d scripts", len(calls), len(r.scripts))
	require.Greater(t, len(calls), 10_000)
}

// What the scripts calculate with is exact as far as they need it: products of up to 100 bits.
func TestProducts(t *testing.T) {
	numbers, _, ok := strings.Cut(lua.Take(), "local function token_bucket(")
	require.True(t, ok)
	script := numbers + "return format('%.0f %.0f', mul_add_div(ARGV[1] + 0.0, ARGV[2] + 0.0, ARGV[3] + 0.0, ARGV[4] + 0.0))"
	r := rand.New(rand.NewPCG(1, 2))
	long := func(bits int) int64 { return r.Int64N(1 << (1 + r.IntN(bits))) }
	var calls []call
	for len(calls) < 3000 {
		a, b, c, d := long(51), long(51), long(51), 1+long(49)
		sum := new(big.Int).Mul(big.NewInt(a), big.NewInt(b))
		quo, rem := sum.Add(sum, big.NewInt(c)).QuoRem(sum, big.NewInt(d), new(big.Int))
		if quo.BitLen() <= 52 {
			words := []string{"key"}
			for _, n := range []int64{a, b, c, d} {
				words = append(words, strconv.FormatInt(n, 10))
			}
			calls = append(calls, call{script, 1, words, fmt.Sprint(quo, " ", rem)})
		}
	}
	for _, name := range []string{"lua5.1", "lua5.4"} {
		for i, line := range run(t, interpreter(t, name), calls) {
			reply, _, _ := strings.Cut(line, " ")
			require.Equal(t, fmt.Sprintf("%x", calls[i].reply), reply, "%s: %v", name, calls[i].args[1:])
		}
	}
}
