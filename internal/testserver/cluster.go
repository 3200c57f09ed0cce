package testserver

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

const slots = 16384

// Cluster is a Redis Cluster. A node counts as failed when it has not answered for 2 s, or where it
// has no replica for a minute: nothing could be done about it, and a busy machine looks like it.
type Cluster struct {
	Servers []*Server // as they were started: the masters, then the replicas of the first, of the second ...
}

// RedisCluster starts a cluster for a test and waits until all nodes know each other and all slots
// are served.
func RedisCluster(tb testing.TB, masters, replicasPerMaster int) *Cluster {
	tb.Helper()
	c := new(Cluster)
	timeout := "2000"
	if replicasPerMaster == 0 {
		timeout = "60000"
	}
	for range masters * (1 + replicasPerMaster) {
		c.Servers = append(c.Servers, Redis(tb, "--cluster-enabled", "yes", "--cluster-node-timeout", timeout,
			"--repl-diskless-sync-delay", "0"))
	}
	if err := c.form(masters, replicasPerMaster); err != nil {
		giveUp(tb, fmt.Errorf("testserver: cluster: %w", err))
	}
	return c
}

func (c *Cluster) form(masters, replicasPerMaster int) error {
	for i, s := range c.Servers {
		commands := [][]string{{"CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(i + 1)}}
		if i < masters {
			add := []string{"CLUSTER", "ADDSLOTS"} // ADDSLOTSRANGE came with 7.0
			for slot := i * slots / masters; slot < (i+1)*slots/masters; slot++ {
				add = append(add, strconv.Itoa(slot))
			}
			commands = append(commands, add)
		}
		for _, other := range c.Servers[:i] { // all of them: gossip takes longer
			host, port := other.hostPort()
			commands = append(commands, []string{"CLUSTER", "MEET", host, port})
		}
		for _, command := range commands {
			if _, err := s.Do(command...); err != nil {
				return err
			}
		}
	}
	if err := poll(patience, func() error { return c.agreed(0) }); err != nil {
		return err
	}
	for i, s := range c.Servers[masters:] {
		id, err := c.Servers[i/replicasPerMaster].ask("CLUSTER", "MYID")
		if err != nil {
			return err
		}
		if _, err := s.Do("CLUSTER", "REPLICATE", id); err != nil {
			return err
		}
	}
	return poll(patience, func() error { return c.agreed(masters * replicasPerMaster) })
}

// agreed is nil when every node knows all others and the number of replicas, and all slots are
// served.
func (c *Cluster) agreed(replicas int) error {
	for _, s := range c.Servers {
		nodes, err := s.nodes()
		if err != nil {
			return err
		}
		known, following := 0, 0
		for _, n := range nodes {
			switch {
			case n.is("handshake"), n.is("fail"), n.is("fail?"):
			case n.is("slave"):
				following++
				known++
			default:
				known++
			}
		}
		if known != len(c.Servers) || following != replicas {
			return fmt.Errorf("node %s knows %d nodes, of them %d replicas", s.addr, known, following)
		}
		info, err := s.ask("CLUSTER", "INFO")
		if err != nil {
			return err
		}
		if state := infoField(info, "cluster_state"); state != "ok" {
			return fmt.Errorf("node %s: cluster_state is %s", s.addr, state)
		}
		if link := s.Info("replication", "master_link_status"); link == "down" {
			return fmt.Errorf("node %s: the link to its master is down", s.addr)
		}
	}
	return nil
}

// URL returns all nodes in the form of rueidis.ParseURL: redis://a:1?addr=b:2&addr=c:3.
func (c *Cluster) URL() string { return listURL(c.Servers) }

func listURL(servers []*Server, params ...string) string {
	for _, s := range servers[1:] {
		params = append(params, "addr="+s.addr)
	}
	if len(params) == 0 {
		return servers[0].URL()
	}
	return servers[0].URL() + "?" + strings.Join(params, "&")
}

// Slot returns the key's slot: CRC16 of it, or of its hash tag.
func (c *Cluster) Slot(key string) int {
	if _, rest, ok := strings.Cut(key, "{"); ok {
		if tag, _, ok := strings.Cut(rest, "}"); ok && tag != "" {
			key = tag
		}
	}
	var crc uint16 // XMODEM, as in the Redis Cluster specification
	for i := range len(key) {
		crc ^= uint16(key[i]) << 8
		for range 8 {
			carry := crc >> 15
			crc = crc<<1 ^ carry*0x1021
		}
	}
	return int(crc) % slots
}

// Owner returns the master that serves the key's slot, nil if none does. It asks every node whether
// it does: of two, as after a failover, the one with the newer epoch is right. A node that does not
// answer within 1 s is none.
func (c *Cluster) Owner(key string) *Server { return c.owner(c.Slot(key)) }

func (c *Cluster) owner(slot int) (owner *Server) {
	newest := -1
	for _, s := range c.Servers {
		if me, ok := s.myself(); ok && me.is("master") && me.has(slot) && me.epoch > newest {
			owner, newest = s, me.epoch
		}
	}
	return owner
}

// MigrateSlot moves a slot and its keys to another master while clients go on. Keys move in batches
// of 100; with pauseEachKey they move one at a time, and it is called after each: after the last
// one, the slot still belongs to the old master, with all its keys at the new one.
func (c *Cluster) MigrateSlot(slot int, to *Server, pauseEachKey func()) error {
	from := c.owner(slot)
	switch from {
	case nil:
		return fmt.Errorf("testserver: slot %d has no owner", slot)
	case to:
		return fmt.Errorf("testserver: slot %d is at %s already", slot, to.addr)
	}
	source, ok1 := from.myself()
	target, ok2 := to.myself()
	if !ok1 || !ok2 {
		return fmt.Errorf("testserver: no answer from %s or %s", from.addr, to.addr)
	}
	number := strconv.Itoa(slot)
	if _, err := to.Do("CLUSTER", "SETSLOT", number, "IMPORTING", source.id); err != nil {
		return err
	}
	if _, err := from.Do("CLUSTER", "SETSLOT", number, "MIGRATING", target.id); err != nil {
		return err
	}
	if err := moveKeys(number, from, to, pauseEachKey); err != nil {
		return err
	}
	// The new owner first: a slot of which the old one has let go would have none if it failed in
	// between.
	for _, s := range slices.Concat([]*Server{to, from}, c.Servers) {
		if me, ok := s.myself(); !ok || !me.is("master") {
			continue // replicas hear of it from their masters
		}
		if _, err := s.Do("CLUSTER", "SETSLOT", number, "NODE", target.id); err != nil {
			return err
		}
	}
	return nil
}

func moveKeys(slot string, from, to *Server, pauseEachKey func()) error {
	batch := "100"
	if pauseEachKey != nil {
		batch = "1"
	}
	host, port := to.hostPort()
	for {
		reply, err := from.Do("CLUSTER", "GETKEYSINSLOT", slot, batch)
		keys, _ := reply.([]any)
		if err != nil || len(keys) == 0 {
			return err
		}
		migrate := []string{"MIGRATE", host, port, "", "0", "5000", "KEYS"}
		for _, key := range keys {
			name, _ := key.(string)
			migrate = append(migrate, name)
		}
		if _, err := from.Do(migrate...); err != nil {
			return err
		}
		if pauseEachKey != nil {
			pauseEachKey()
		}
	}
}

// Failover makes a replica the master, in agreement with its master, and waits until all nodes that
// answer know.
func (c *Cluster) Failover(replica *Server) error {
	const again = 6 * time.Second // a manual failover is given up after 5 s
	var asked time.Time
	return poll(patience, func() error {
		me, ok := replica.myself()
		if !ok {
			return errors.New("testserver: no answer from the replica")
		}
		if !me.is("master") {
			if time.Since(asked) > again {
				asked = time.Now()
				if _, err := replica.Do("CLUSTER", "FAILOVER"); err != nil {
					return final{err}
				}
			}
			return fmt.Errorf("testserver: failover: %s is still a replica", replica.addr)
		}
		for _, s := range c.Servers {
			nodes, err := s.nodes()
			if i := slices.IndexFunc(nodes, func(n node) bool { return n.id == me.id }); err == nil &&
				(i < 0 || !nodes[i].is("master") || len(nodes[i].slots) == 0) {
				return fmt.Errorf("testserver: failover: %s does not know yet", s.addr)
			}
		}
		return nil
	})
}
