package testserver

import (
	"slices"
	"strconv"
	"strings"
)

// node is a line of CLUSTER NODES.
type node struct {
	id    string
	flags []string
	epoch int
	slots []string // "5" or "5-10", and slots on the move in brackets
}

func (n *node) is(flag string) bool { return slices.Contains(n.flags, flag) }

func (n *node) has(slot int) bool {
	for _, s := range n.slots {
		from, to, isRange := strings.Cut(s, "-")
		if !isRange {
			to = from
		}
		first, err1 := strconv.Atoi(from)
		last, err2 := strconv.Atoi(to)
		if err1 == nil && err2 == nil && first <= slot && slot <= last {
			return true
		}
	}
	return false
}

// nodes returns the cluster as the server sees it.
func (s *Server) nodes() (nodes []node, err error) {
	text, err := s.ask("CLUSTER", "NODES")
	for line := range strings.Lines(text) {
		f := strings.Fields(line) // id, address, flags, master, ping, pong, epoch, link, slots
		if len(f) < 8 {
			continue
		}
		epoch, _ := strconv.Atoi(f[6])
		nodes = append(nodes, node{id: f[0], flags: strings.Split(f[2], ","), epoch: epoch, slots: f[8:]})
	}
	return nodes, err
}

// myself returns the node that the server takes itself for; false if it does not answer.
func (s *Server) myself() (node, bool) {
	nodes, _ := s.nodes()
	i := slices.IndexFunc(nodes, func(n node) bool { return n.is("myself") })
	if i < 0 {
		return node{}, false
	}
	return nodes[i], true
}
