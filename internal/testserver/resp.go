package testserver

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// Do sends one command on a connection of its own, so that it works after a Restart too. The reply
// is a string, an int64, a []any or nil; an error reply is an error with the server's words. It
// waits for a minute at most.
func (s *Server) Do(args ...string) (any, error) {
	reply, err := s.do(patience, args...)
	if err != nil {
		return nil, fmt.Errorf("testserver: %s: %s: %w", s.addr, args[0], err)
	}
	return reply, nil
}

func (s *Server) do(limit time.Duration, args ...string) (any, error) {
	commands := [][]string{args}
	if p := s.password(); p != "" {
		commands = [][]string{{"AUTH", p}, args}
	}
	return exchange(limit, s.addr, s.secure, commands...)
}

// ask is Do for the loops that ask again: a short limit, and a reply that is a string.
func (s *Server) ask(args ...string) (string, error) {
	reply, err := s.do(askLimit, args...)
	text, _ := reply.(string)
	return text, err
}

// Info returns a field of a section of INFO, as in Info("commandstats", "cmdstat_evalsha"); "" if
// there is none, or no answer.
func (s *Server) Info(section, field string) string {
	reply, _ := s.Do("INFO", section)
	text, _ := reply.(string)
	return infoField(text, field)
}

func infoField(info, field string) string {
	for line := range strings.Lines(info) {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// replyError is an error that a server replied, in its words.
type replyError string

func (e replyError) Error() string { return string(e) }

// exchange sends commands on a connection of their own, one after the other, and returns the reply
// to the last. It stops at the first error. A nil secure is plain TCP.
func exchange(limit time.Duration, addr string, secure *tls.Config, commands ...[]string) (reply any, err error) {
	conn, err := net.DialTimeout("tcp", addr, limit)
	if err != nil {
		return nil, err
	}
	if secure != nil {
		conn = tls.Client(conn, secure)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
		return nil, err
	}
	r := bufio.NewReader(conn)
	for _, args := range commands {
		if _, err := io.WriteString(conn, encode(args)); err != nil {
			return nil, err
		}
		if reply, err = readReply(r); err != nil {
			return nil, err
		}
		if refused, ok := reply.(replyError); ok {
			return nil, refused
		}
	}
	return reply, nil
}

// encode writes a command as RESP's array of bulk strings.
func encode(args []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, arg := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(arg), arg)
	}
	return b.String()
}

// readReply reads a RESP2 reply: string, int64, []any, nil, or replyError, which may also stand in
// a []any.
func readReply(r *bufio.Reader) (any, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return nil, err
	}
	line = strings.TrimSuffix(line, "\r\n")
	if line == "" {
		return nil, errors.New("empty line where a reply starts")
	}
	kind, rest := line[0], line[1:]
	switch kind {
	case '+':
		return rest, nil
	case '-':
		return replyError(rest), nil
	}
	n, err := strconv.ParseInt(rest, 10, 64)
	switch {
	case err != nil:
		return nil, fmt.Errorf("reply %q: %w", line, err)
	case kind == ':':
		return n, nil
	case n < 0:
		return nil, nil
	case kind == '$':
		bulk := make([]byte, n+2)
		_, err := io.ReadFull(r, bulk)
		return string(bulk[:n]), err
	case kind == '*':
		items := make([]any, n)
		for i := range items {
			if items[i], err = readReply(r); err != nil {
				return nil, err
			}
		}
		return items, nil
	}
	return nil, fmt.Errorf("reply %q is not RESP2", line)
}
