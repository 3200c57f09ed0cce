//go:build unix

package redis_test

import (
	"context"
	"crypto/tls"
	"net"
	"syscall"
	"testing"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend/redis"
	"github.com/ginlimit/ginlimit/internal/testserver"
)

// What a user sets for the connection holds: also that TCP gathers, and the older way of dialing.
func TestDialKeepsHowToConnect(t *testing.T) {
	server := testserver.Redis(t)
	for name, set := range map[string]func(*rueidis.ClientOption, func(net.Conn)){
		"DisableTCPNoDelay": func(o *rueidis.ClientOption, seen func(net.Conn)) {
			o.DisableTCPNoDelay = true
			o.DialCtxFn = func(ctx context.Context, addr string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
				c, err := d.DialContext(ctx, "tcp", addr)
				seen(c)
				return c, err
			}
		},
		"DialFn": func(o *rueidis.ClientOption, seen func(net.Conn)) {
			o.DialFn = func(addr string, d *net.Dialer, _ *tls.Config) (net.Conn, error) {
				c, err := d.Dial("tcp", addr)
				seen(c)
				return c, err
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			conns := make(chan net.Conn, 100)
			b := dialBackend(t, server.URL(), redis.WithClientOption(func(o *rueidis.ClientOption) {
				set(o, func(c net.Conn) { conns <- c })
			}))
			dialDecides(t, b)
			raw, err := (<-conns).(*net.TCPConn).SyscallConn()
			require.NoError(t, err)
			var noDelay int
			require.NoError(t, raw.Control(func(fd uintptr) {
				noDelay, err = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_NODELAY)
			}))
			require.NoError(t, err)
			assert.Equal(t, name != "DisableTCPNoDelay", noDelay != 0)
		})
	}
}
