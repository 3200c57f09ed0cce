package redisstore

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/internal/testserver"
)

// A key and a connection of a Cluster are those of one server.
func TestServersOfACluster(t *testing.T) {
	l := newLink(Defaults(Library{}))
	found := &servers{all: []*server{l.newServer("a:1"), l.newServer("b:2")}, shards: new([hashSlots]uint8)}
	for i := hashSlots / 2; i < hashSlots; i++ {
		found.shards[i] = 1
	}
	l.servers.Store(found)
	assert.Same(t, found.all[1], found.at("b:2"))
	assert.Nil(t, found.at("elsewhere:3"), "a name of a server that is not the one that the Cluster has for it")
	for key, want := range map[string]int{"gl1:{bar}": 0, "gl1:tier:{123456789}": 1} {
		assert.Same(t, found.all[want], found.of(key), key)
	}
	for range 3 {
		g := found.all[1].gate
		require.NoError(t, g.Enter(g.Context()))
	}
	assert.Equal(t, []int{0, 3}, []int{found.all[0].gate.Calls(), found.all[1].gate.Calls()})
}

// Slots are those of the specification.
func TestSlot(t *testing.T) {
	assert.Equal(t, uint16(0x31C3), hashSlot("gl1:{123456789}"))
	c := Config{Prefix: "gl"}
	for _, key := range []string{"", "k", "limiter\x00client", "\xff{}", "a long one: 0123456789012345678901234567890123456789"} {
		name := c.stateKey(key)
		assert.EqualValues(t, new(testserver.Cluster).Slot(name), hashSlot(name), name)
	}
}
