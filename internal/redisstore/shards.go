package redisstore

import (
	"context"
	"strings"
	"sync/atomic"

	"github.com/ginlimit/ginlimit/internal/gate"
	"github.com/ginlimit/ginlimit/internal/storelog"
)

// maxInFlight bounds the calls under way at one server. It is there because rueidis keeps commands
// in a ring of 1,024 for each connection, and a caller that finds the ring full waits whatever its
// context says: this is half of a ring. A command stays in the ring when its call is over, until
// the server answers: if it does not, the breaker opens before the calls that come after those fill
// the other half.
const maxInFlight = 512

// hashSlots is the number of hash slots of a Cluster.
const hashSlots = 16384

// servers are those of a link: one, or one for each shard of a Cluster, so that one that is down
// does not stop the others. Shards are told apart by the slots that they had when a Cluster was
// asked; if slots move later, a gate stands before parts of two servers, which makes it less exact
// and not wrong.
type servers struct {
	all    []*server
	shards *[hashSlots]uint8 // index of all, by slot; nil if there is one
}

// server is what stands before a server.
type server struct {
	name               string // its address; "" if it is the only one
	gate               *gate.Gate
	decisions, lookups refusals

	teaching chan struct{} // has room for the one call that sends a script
	taught   atomic.Uint64 // how many scripts were sent
}

// of returns the server of a key.
func (s *servers) of(key string) *server {
	if s.shards == nil {
		return s.all[0]
	}
	return s.all[s.shards[hashSlot(key)]]
}

// at returns the server with an address; nil if it is not known by that.
func (s *servers) at(addr string) *server {
	if s.shards == nil {
		return s.all[0]
	}
	for _, one := range s.all {
		if one.name == addr {
			return one
		}
	}
	return nil
}

// crc is the table of CRC-16/XMODEM, by which a Cluster spreads keys.
var crc = func() (table [256]uint16) {
	for i := range table {
		c := uint16(i) << 8
		for range 8 {
			c = c<<1 ^ c>>15*0x1021
		}
		table[i] = c
	}
	return table
}()

// hashSlot returns the slot of a key of ours, which has one hash tag.
func hashSlot(key string) (slot uint16) {
	_, tag, _ := strings.Cut(key, "{")
	tag, _, _ = strings.Cut(tag, "}")
	for i := range len(tag) {
		slot = slot<<8 ^ crc[byte(slot>>8)^tag[i]]
	}
	return slot % hashSlots
}

// newServer returns what stands before a server; before all of them if it has no name.
func (l *link) newServer(name string) *server {
	s := &server{name: name, teaching: make(chan struct{}, 1)}
	address := func() string {
		if name == "" {
			return l.name()
		}
		return name
	}
	log := &gate.Log{Logger: l.log, Store: "Redis", Server: address, Timeout: l.Timeout, Option: l.Package + ".WithTimeout", Meanwhile: l.instead.String}
	s.gate = gate.New(maxInFlight, l.Timeout, log.Changed)
	s.decisions.create = func() *storelog.Log {
		log := storelog.New(l.log, "Redis", address())
		log.Meanwhile = l.instead.String
		return log
	}
	s.decisions.remedy, s.lookups.remedy = l.remedy, l.remedy
	s.lookups.create = func() *storelog.Log {
		log := storelog.New(l.log, "Redis", address())
		log.Calls = "look-ups of tiers in Redis"
		log.Meanwhile = func() string { return "Callers have the tier that is still known of them, or the limiter's own limits" }
		return log
	}
	return s
}

// refusals is the log of what a server refuses, made when that happens first: then the server's
// address is known. nil logs nothing.
type refusals struct {
	create func() *storelog.Log
	remedy func(error) string
	log    atomic.Pointer[storelog.Log]
}

func (r *refusals) failed(err error) {
	if r == nil {
		return
	}
	if r.log.Load() == nil {
		r.log.CompareAndSwap(nil, r.create())
	}
	r.log.Load().Failed(err, r.remedy(err))
}

func (r *refusals) worked() {
	if r == nil {
		return
	}
	if log := r.log.Load(); log != nil {
		log.Worked()
	}
}

// findShards gives each shard of a Cluster a server of its own, unless that was done.
func (l *link) findShards(ctx context.Context, client Client) {
	if l.shards.begin() {
		l.shards.end(l.divide(ctx, client))
	}
}

// findShardsLater does the same beside what its caller does. It is cheap once that was done.
func (l *link) findShardsLater(client Client) {
	if l.shards.done.Load() || !l.shards.begin() {
		return
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), l.Timeout)
		defer cancel()
		l.shards.end(l.divide(ctx, client))
	}()
}

// divide reports false if no server of a Cluster answered. Any of them can: none is waited for that
// hangs.
func (l *link) divide(ctx context.Context, client Client) bool {
	if !client.Cluster() {
		return true
	}
	refused := false
	for _, res := range askEach(ctx, l.Timeout, client.Nodes(ctx), func(ctx context.Context, n Node) ([]Slots, error) { return n.Slots(ctx) }) {
		ranges, err := res.said, res.err
		if err == nil {
			l.divideBy(ranges)
			return true
		}
		refused = refused || !l.noAnswer(err)
	}
	return refused
}

// divideBy makes the servers of what CLUSTER SLOTS answered.
func (l *link) divideBy(ranges []Slots) {
	found := &servers{shards: new([hashSlots]uint8)}
	index := map[string]uint8{}
	for _, r := range ranges {
		if r.From < 0 || r.To >= hashSlots {
			continue
		}
		i, known := index[r.Addr]
		if !known {
			if len(found.all) == 256 {
				return // one server for all
			}
			i = uint8(len(found.all))
			index[r.Addr] = i
			found.all = append(found.all, l.newServer(r.Addr))
		}
		for slot := r.From; slot <= r.To; slot++ {
			found.shards[slot] = i
		}
	}
	if len(found.all) > 1 {
		l.servers.Store(found)
	}
}

// Breakers tells of each server, by its address, whether its circuit breaker is open: calls for it
// fail at once. In a Cluster every master has one; otherwise there is one for all.
func (b *Backend) Breakers() map[string]bool {
	servers := b.link.servers.Load()
	if servers.shards == nil {
		return map[string]bool{b.link.name(): servers.all[0].gate.Open() || b.link.failing()}
	}
	open := make(map[string]bool, len(servers.all))
	for _, s := range servers.all {
		open[s.name] = s.gate.Open()
	}
	return open
}
