package testserver

import (
	"fmt"
	"strconv"
	"testing"
)

const masterSet = "mymaster"

// Sentinel is a master named mymaster with its replicas, watched by three sentinels. A master that
// does not answer for 1 s is down if two of them say so.
type Sentinel struct {
	Master    *Server   // at the start; see MasterAddr
	Replicas  []*Server // at the start
	Sentinels []*Server
}

// RedisSentinel starts a master with replicas and sentinels for a test, and waits until the
// sentinels know each other and all replicas, so that a failover can begin.
func RedisSentinel(tb testing.TB, replicas int) *Sentinel {
	tb.Helper()
	noDelay := []string{"--repl-diskless-sync-delay", "0"}
	s := &Sentinel{Master: Redis(tb, noDelay...)}
	host, port := s.Master.hostPort()
	for range replicas {
		s.Replicas = append(s.Replicas, Redis(tb, append(noDelay, "--replicaof", host, port)...))
	}
	for range 3 {
		s.Sentinels = append(s.Sentinels, Redis(tb, "--sentinel"))
	}
	if err := s.form(); err != nil {
		giveUp(tb, fmt.Errorf("testserver: sentinel: %w", err))
	}
	return s
}

func (s *Sentinel) form() error {
	// Replicas first: a sentinel that finds none in its first INFO of the master asks again 10 s
	// later.
	if err := poll(patience, s.replicating); err != nil {
		return err
	}
	host, port := s.Master.hostPort()
	for _, sentinel := range s.Sentinels {
		// Shorter periods than the defaults of 2 s and 10 s, and a short rest after a pause of the
		// process instead of 30 s. Redis 6.2 has no such command, and takes longer.
		_, _ = sentinel.Do("SENTINEL", "DEBUG", "publish-period", "200", "info-period", "1000", "tilt-period", "2000")
		if _, err := sentinel.Do("SENTINEL", "MONITOR", masterSet, host, port, "2"); err != nil {
			return err
		}
		if _, err := sentinel.Do("SENTINEL", "SET", masterSet, "down-after-milliseconds", "1000",
			"failover-timeout", "3000"); err != nil {
			return err
		}
	}
	return poll(patience, s.agreed)
}

func (s *Sentinel) replicating() error {
	for _, r := range s.Replicas {
		if r.Info("replication", "master_link_status") != "up" {
			return fmt.Errorf("replica %s has no link to its master", r.addr)
		}
	}
	return nil
}

// agreed is nil when every sentinel knows the others, and of every replica that it can be promoted.
func (s *Sentinel) agreed() error {
	for _, sentinel := range s.Sentinels {
		reply, err := sentinel.do(askLimit, "SENTINEL", "MASTER", masterSet)
		if err != nil {
			return err
		}
		master := fields(reply)
		others, flags := master["num-other-sentinels"], master["flags"]
		if others != strconv.Itoa(len(s.Sentinels)-1) || flags != "master" {
			return fmt.Errorf("sentinel %s knows %s others, and the master as %s", sentinel.addr, others, flags)
		}
		reply, err = sentinel.do(askLimit, "SENTINEL", "REPLICAS", masterSet)
		if err != nil {
			return err
		}
		replicas, _ := reply.([]any)
		ready := 0
		for _, r := range replicas {
			if f := fields(r); f["flags"] == "slave" && f["master-link-status"] == "ok" {
				ready++
			}
		}
		if ready != len(s.Replicas) {
			return fmt.Errorf("sentinel %s knows %d replicas", sentinel.addr, ready)
		}
	}
	return nil
}

// fields makes a map of a reply that lists names and values.
func fields(reply any) map[string]string {
	list, _ := reply.([]any)
	m := make(map[string]string)
	for i := 0; i+1 < len(list); i += 2 {
		name, _ := list[i].(string)
		m[name], _ = list[i+1].(string)
	}
	return m
}

// URL returns the sentinels in the form of rueidis.ParseURL:
// redis://a:1?master_set=mymaster&addr=b:2&addr=c:3.
func (s *Sentinel) URL() string { return listURL(s.Sentinels, "master_set="+masterSet) }

// MasterAddr returns what the first sentinel that answers takes for the master's address; "" if
// none answers.
func (s *Sentinel) MasterAddr() string {
	for _, sentinel := range s.Sentinels {
		reply, _ := sentinel.do(askLimit, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", masterSet)
		if addr, ok := reply.([]any); ok && len(addr) == 2 {
			return fmt.Sprintf("%s:%s", addr[0], addr[1])
		}
	}
	return ""
}
