package redis

import "net"

// GatherFrom is the number of calls under way from which a connection gathers commands.
const GatherFrom = gatherFrom

// NewConn makes a connection of Dial's of c, to a server at which so many calls are under way.
func NewConn(c net.Conn, calls int) net.Conn {
	l := newLink(defaults())
	g := l.servers.Load().all[0].gate
	for range calls {
		if err := g.Enter(g.Context()); err != nil {
			panic(err)
		}
	}
	return &conn{Conn: c, link: l, gathers: true}
}
