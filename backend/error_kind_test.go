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

func TestErrorKind(t *testing.T) {
	for want, err := range map[string]error{
		"":            nil,
		"broken":      fmt.Errorf("x: %w", errors.Join(backend.ErrUnavailable, kindError("broken"), context.Canceled)),
		"timeout":     fmt.Errorf("x: %w", errors.Join(backend.ErrUnavailable, context.DeadlineExceeded)),
		"canceled":    context.Canceled,
		"unreachable": fmt.Errorf("x: %w", errors.Join(backend.ErrUnavailable, &net.OpError{Op: "dial", Err: errors.New("refused")})),
		"unavailable": fmt.Errorf("x: %w", errors.Join(backend.ErrUnavailable, kindError(""))),
		"other":       errors.New("unavailable"),
	} {
		if got := backend.ErrorKind(err); got != want {
			t.Errorf("ErrorKind(%v) = %q, want %q", err, got, want)
		}
	}
}

func ExampleErrorKind() {
	err := fmt.Errorf("ginlimit: redis: take: %w", errors.Join(backend.ErrUnavailable, context.DeadlineExceeded))
	fmt.Println(backend.ErrorKind(err))
	fmt.Println(backend.ErrorKind(errors.New("a mistake of the caller")))
	// Output:
	// timeout
	// other
}
