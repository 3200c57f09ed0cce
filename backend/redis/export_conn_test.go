package redis

import (
	"net"

	"github.com/ginlimit/ginlimit/internal/redisstore"
)

// GatherFrom is the number of calls under way from which a connection gathers commands.
const GatherFrom = gatherFrom

// NewConn makes a connection of Dial's of c, to a server at which so many calls are under way.
func NewConn(c net.Conn, calls int) net.Conn {
	b := redisstore.New(redisstore.Defaults(library))
	g := b.Gate("")
	for range calls {
		if err := g.Enter(g.Context()); err != nil {
			panic(err)
		}
	}
	return &conn{Conn: c, store: b, gathers: true}
}
