package backend_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"

	"github.com/ginlimit/ginlimit/backend"
)

type kindError string

func (e kindError) Error() string { return "failed" }
func (e kindError) Kind() string  { return string(e) }

func TestKind(t *testing.T) {
	for want, err := range map[string]error{
		"":            nil,
		"broken":      fmt.Errorf("x: %w", errors.Join(backend.ErrUnavailable, kindError("broken"), context.Canceled)),
		"timeout":     fmt.Errorf("x: %w", errors.Join(backend.ErrUnavailable, context.DeadlineExceeded)),
		"canceled":    context.Canceled,
		"unreachable": fmt.Errorf("x: %w", errors.Join(backend.ErrUnavailable, &net.OpError{Op: "dial", Err: errors.New("refused")})),
		"unavailable": fmt.Errorf("x: %w", errors.Join(backend.ErrUnavailable, kindError(""))),
		"other":       errors.New("unavailable"),
	} {
		if got := backend.Kind(err); got != want {
			t.Errorf("Kind(%v) = %q, want %q", err, got, want)
		}
	}
}

func ExampleKind() {
	err := fmt.Errorf("ginlimit: redis: take: %w", errors.Join(backend.ErrUnavailable, context.DeadlineExceeded))
	fmt.Println(backend.Kind(err))
	fmt.Println(backend.Kind(errors.New("a mistake of the caller")))
	// Output:
	// timeout
	// other
}
