package storeerr_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/internal/storeerr"
)

func TestError(t *testing.T) {
	cause := errors.New("ERR no")
	steps := []struct {
		name   string
		err    error
		text   string
		kind   string
		reason error
		cause  error
	}{
		{"a reason", storeerr.Unavailable("store: take", storeerr.ErrDenied, cause),
			"ginlimit: store: take: the server denies access; check user, password and rights: ERR no", "denied", storeerr.ErrDenied, cause},
		{"none", storeerr.Unavailable("store: take", nil, cause), "ginlimit: store: take: ERR no", "unavailable", nil, cause},
		{"a reason in the cause", storeerr.Unavailable("store: take", nil, fmt.Errorf("%w: %w", storeerr.ErrBreakerOpen, cause)),
			"ginlimit: store: take: the server did not answer of late; calls fail at once until it does: ERR no", "breaker_open", storeerr.ErrBreakerOpen, cause},
		{"wrapped", fmt.Errorf("mine: %w", storeerr.Unavailable("store: reset", nil, context.DeadlineExceeded)),
			"mine: ginlimit: store: reset: context deadline exceeded", "timeout", nil, context.DeadlineExceeded},
	}
	for _, s := range steps {
		t.Run(s.name, func(t *testing.T) {
			assert.EqualError(t, s.err, s.text)
			assert.Equal(t, s.kind, backend.ErrorKind(s.err))
			assert.ErrorIs(t, s.err, backend.ErrUnavailable)
			assert.ErrorIs(t, s.err, s.cause)
			assert.ErrorIs(t, storeerr.Cause(s.err), s.cause)
			if s.reason != nil {
				assert.ErrorIs(t, s.err, s.reason)
				assert.Equal(t, s.reason, error(storeerr.Of(s.err)))
			} else {
				assert.Nil(t, storeerr.Of(s.err))
			}
		})
	}
	assert.Equal(t, cause, storeerr.Cause(cause))
}

// Each reason is a value and a word of its own.
func TestReasonsDiffer(t *testing.T) {
	reasons := []error{
		storeerr.ErrBreakerOpen, storeerr.ErrBusy, storeerr.ErrDenied, storeerr.ErrDisk, storeerr.ErrForeign, storeerr.ErrOutOfMemory,
		storeerr.ErrReadOnly, storeerr.ErrStarting, storeerr.ErrTooManyConnections,
	}
	kinds := map[string]bool{}
	for i, a := range reasons {
		kinds[backend.ErrorKind(a)] = true
		for j, b := range reasons {
			assert.Equal(t, i == j, errors.Is(a, b))
		}
	}
	assert.Len(t, kinds, len(reasons))
}
