package redis

import (
	"context"
	"net"
)

// GatherFrom is the number of calls under way from which a connection gathers commands.
const GatherFrom = gatherFrom

// NewConn makes a connection of Dial's of c, to a server at which so many calls are under way.
func NewConn(c net.Conn, calls int) net.Conn {
	l := newLink(defaults())
	for range calls {
		if err := l.gates.Load().all[0].Enter(context.Background()); err != nil {
			panic(err)
		}
	}
	return &conn{c, l, ""}
}
