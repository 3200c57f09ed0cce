package storelog_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/ginlimit/ginlimit/internal/storeerr"
	"github.com/ginlimit/ginlimit/internal/storelog"
)

// newLog returns a Log, and what it has written since it was asked last, a line each: level, kind.
func newLog() (*storelog.Log, func() []string) {
	var mu sync.Mutex
	var out bytes.Buffer
	logger := slog.New(slog.NewTextHandler(writer(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return out.Write(p)
	}), nil))
	return storelog.New(func() *slog.Logger { return logger }, "Store", "localhost:1"), func() []string {
		mu.Lock()
		defer mu.Unlock()
		defer out.Reset()
		return strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

func denied(text string) error {
	return storeerr.Unavailable("store: take", storeerr.ErrDenied, errors.New(text))
}

var nothing = []string{""}

func TestOneLineForEachKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, written := newLog()
		log.Worked()
		assert.Equal(t, nothing, written())

		log.Failed(denied("no rights on x"), "")
		lines := written()
		assert.Len(t, lines, 1)
		for _, part := range []string{"level=WARN", "GINLIMIT007", "code=GINLIMIT007", "server=localhost:1", "kind=denied",
			`cause="no rights on x"`, `remedy="check user, password and rights"`, "the server denies access; check user", "failure policy", "Fallback"} {
			assert.Contains(t, lines[0], part)
		}

		log.Failed(denied("no rights on y"), "")
		assert.Equal(t, nothing, written(), "the same kind")
		log.Failed(storeerr.Unavailable("store: take", storeerr.ErrReadOnly, errors.New("no")), "go elsewhere")
		lines = written()
		assert.Len(t, lines, 1)
		assert.Contains(t, lines[0], "kind=read_only")
		assert.Contains(t, lines[0], `remedy="go elsewhere"`)
		log.Failed(storeerr.Unavailable("store: take", nil, errors.New("something else")), "")
		lines = written()
		assert.Len(t, lines, 1)
		assert.Contains(t, lines[0], "kind=unavailable")
		assert.Contains(t, lines[0], `cause="something else"`)
	})
}

// A store that serves some calls and refuses others is not taken for one that works, and each kind
// ends by itself.
func TestTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, written := newLog()
		for range 100 {
			log.Failed(denied("no"), "")
			log.Worked()
			time.Sleep(time.Second)
		}
		log.Failed(storeerr.Unavailable("store: take", storeerr.ErrReadOnly, errors.New("no")), "")
		assert.Len(t, written(), 2)

		time.Sleep(59*time.Second - time.Millisecond)
		log.Worked()
		assert.Equal(t, nothing, written())
		time.Sleep(time.Millisecond)
		log.Worked()
		lines := written()
		assert.Len(t, lines, 1)
		assert.Contains(t, lines[0], "level=INFO")
		assert.Contains(t, lines[0], "kind=denied")
		assert.Contains(t, lines[0], "after=1m39s")
		time.Sleep(time.Second)
		log.Worked()
		lines = written()
		assert.Len(t, lines, 1)
		assert.Contains(t, lines[0], "kind=read_only")

		log.Worked()
		assert.Equal(t, nothing, written())
		log.Failed(denied("no"), "")
		assert.Len(t, written(), 1)
	})
}

// Other calls than decisions have words of their own.
func TestOtherCalls(t *testing.T) {
	log, written := newLog()
	log.Calls, log.Meanwhile, log.Quiet = "sweeps", func() string { return "Rows stay" }, 0
	log.Failed(denied("no"), "")
	assert.Contains(t, written()[0], `"ginlimit: GINLIMIT007: sweeps fail: the server denies access; check user, password and rights. Rows stay"`)
	log.Worked()
	assert.Contains(t, written()[0], "sweeps no longer fail")
}

func TestManyAtOnce(t *testing.T) {
	log, written := newLog()
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			log.Failed(denied(fmt.Sprint(i)), "")
			log.Worked()
		})
	}
	wg.Wait()
	assert.Len(t, written(), 1)
}

func TestWorkedDoesNotAllocate(t *testing.T) {
	log, _ := newLog()
	assert.Zero(t, testing.AllocsPerRun(100, log.Worked))
}
