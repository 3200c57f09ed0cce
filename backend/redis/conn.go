package redis

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync/atomic"
	"syscall"

	"github.com/redis/rueidis"

	"github.com/ginlimit/ginlimit/internal/gate"
	"github.com/ginlimit/ginlimit/internal/redisstore"
)

// gatherFrom is the number of calls under way at a server from which a connection gathers commands.
// With 8 and 16 callers gathering is slower, with 32 it makes no difference, and with more it is
// faster: BenchmarkDial.
const gatherFrom = 20

// conn is a connection of Dial's. It does three things that rueidis does not.
//
// It writes many commands at a time if there are many. The first command that is due wakes rueidis'
// writer, which Go runs next: before those run that got their replies at the same time, and have
// commands too. So each would be written by itself, and a write to a network costs more than all
// else that a caller does for a decision. Here the writer first lets those run that are ready to,
// and waits for nobody; their commands go out together.
//
// It tells the gate that the server is heard as soon as bytes come: the goroutines that they are
// for may have to wait. Connections to Sentinels, and to replicas, do not count: only one that
// carries our keys does.
//
// And it keeps what a server says before it closes a connection that it does not want.
type conn struct {
	net.Conn
	store   *redisstore.Backend
	addr    string
	gathers bool
	carries atomic.Bool // one of our keys was written
	first   atomic.Bool // something was read
	refusal string      // an error that was read first; of the reader
}

func (c *conn) Write(b []byte) (int, error) {
	if g := c.store.Gate(c.addr); c.gathers && g != nil && g.Calls() >= gatherFrom {
		runtime.Gosched()
	}
	if !c.carries.Load() && bytes.Contains(b, []byte(c.store.KeysBegin())) {
		c.carries.Store(true)
	}
	return c.Conn.Write(b)
}

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.heard(b[:n])
	} else if c.refusal != "" && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)) {
		err = &refusedConn{c.refusal, err}
	}
	return n, err
}

func (c *conn) heard(b []byte) {
	if c.carries.Load() {
		if g := c.store.Gate(c.addr); g != nil {
			g.Heard()
		}
	}
	if !c.first.Load() {
		c.first.Store(true)
		if text, ok := bytes.CutPrefix(b, []byte("-")); ok {
			line, _, _ := bytes.Cut(text, []byte("\r"))
			c.refusal = string(line)
		}
	}
}

// refusedConn is the end of a connection that the server did not want, as it said first.
type refusedConn struct {
	text string
	err  error
}

func (e *refusedConn) Error() string { return e.text + ": " + e.err.Error() }
func (e *refusedConn) Unwrap() error { return e.err }

// wrap makes option's client use a conn for each connection.
func wrap(b *redisstore.Backend, option *rueidis.ClientOption) {
	dial := option.DialCtxFn
	if old := option.DialFn; dial == nil && old != nil {
		dial = func(_ context.Context, addr string, d *net.Dialer, t *tls.Config) (net.Conn, error) {
			return old(addr, d, t)
		}
	}
	if dial == nil {
		dial = dialTCP
	}
	atOnce := option.DisableTCPNoDelay // TCP gathers
	option.DialCtxFn = func(ctx context.Context, addr string, d *net.Dialer, t *tls.Config) (net.Conn, error) {
		c, err := dial(ctx, addr, d, t)
		if err != nil && gate.GaveUp(err) && gate.Over(ctx) {
			// The call that connects for all has no time left: for the others that is no time-out
			// of the dialer.
			err = fmt.Errorf("dial %s: %w", addr, cmp.Or(ctx.Err(), context.DeadlineExceeded))
		}
		if err != nil {
			return nil, err
		}
		if atOnce {
			setDelay(c) // rueidis does not find TCP in a conn
		}
		return &conn{Conn: c, store: b, addr: addr, gathers: !atOnce}, nil
	}
}

// setDelay makes TCP gather, as rueidis does.
func setDelay(c net.Conn) {
	if secure, ok := c.(*tls.Conn); ok {
		c = secure.NetConn()
	}
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetNoDelay(false) // fails if the connection has ended
	}
}

// dialTCP does what rueidis does unless it is told otherwise.
func dialTCP(ctx context.Context, addr string, d *net.Dialer, t *tls.Config) (net.Conn, error) {
	if t == nil {
		return d.DialContext(ctx, "tcp", addr)
	}
	return (&tls.Dialer{NetDialer: d, Config: t}).DialContext(ctx, "tcp", addr)
}
