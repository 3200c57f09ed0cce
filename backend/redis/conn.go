package redis

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"runtime"

	"github.com/redis/rueidis"
)

// gatherFrom is the number of calls under way at a server from which a connection gathers commands. With 8 and 16 callers
// gathering is slower, with 32 it makes no difference, and with more it is faster: BenchmarkDial.
const gatherFrom = 20

// conn is a connection of Dial's that writes many commands at a time if there are many. The first command that is due
// wakes rueidis' writer, which Go runs next: before those run who got their replies at the same time, and have commands too.
// So each would be written by itself, and a write to a network costs more than all else that a caller does for a decision.
// Here the writer first lets those run who are ready to, and waits for nobody; their commands go out together.
type conn struct {
	net.Conn
	link   *link
	server string
}

func (c *conn) Write(b []byte) (int, error) {
	if c.link.calls(c.server) >= gatherFrom {
		runtime.Gosched()
	}
	return c.Conn.Write(b)
}

// calls returns the number of calls under way at a server.
func (l *link) calls(server string) int {
	gs := l.gates.Load()
	if gs.names == nil {
		return gs.all[0].Calls()
	}
	for i, name := range gs.names {
		if name == server {
			return gs.all[i].Calls()
		}
	}
	return 0 // a name of a Cluster's server that is not the one that it has for itself
}

// gather makes connections of option's client gather, unless TCP does: rueidis would not find it in a conn.
func (l *link) gather(option *rueidis.ClientOption) {
	if option.DisableTCPNoDelay {
		return
	}
	dial := option.DialCtxFn
	if old := option.DialFn; dial == nil && old != nil {
		dial = func(_ context.Context, addr string, d *net.Dialer, t *tls.Config) (net.Conn, error) {
			return old(addr, d, t)
		}
	}
	if dial == nil {
		dial = dialTCP
	}
	option.DialCtxFn = func(ctx context.Context, addr string, d *net.Dialer, t *tls.Config) (net.Conn, error) {
		c, err := dial(ctx, addr, d, t)
		if gaveUp(err) && over(ctx) { // of who connects for all: for the others it is no time-out of the dialer
			err = fmt.Errorf("dial %s: %w", addr, cmp.Or(ctx.Err(), context.DeadlineExceeded))
		}
		if err != nil {
			return nil, err
		}
		return &conn{c, l, addr}, nil
	}
}

// dialTCP does what rueidis does unless it is told otherwise.
func dialTCP(ctx context.Context, addr string, d *net.Dialer, t *tls.Config) (net.Conn, error) {
	if t == nil {
		return d.DialContext(ctx, "tcp", addr)
	}
	return (&tls.Dialer{NetDialer: d, Config: t}).DialContext(ctx, "tcp", addr)
}
