package testserver

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
)

// RESP2Proxy starts a proxy before a server without TLS, as old ones are: it knows RESP2 and
// nothing newer, and answers HELLO and CLIENT with an error. It returns its address. It serves
// until the test ends.
func RESP2Proxy(tb testing.TB, s *Server) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	var serving sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{} // nil once the test has ended
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			if open == nil {
				_ = conn.Close()
			} else {
				open[conn] = true
				serving.Go(func() {
					forward(conn, s.Addr())
					_ = conn.Close()
					mu.Lock()
					delete(open, conn)
					mu.Unlock()
				})
			}
			mu.Unlock()
		}
	})
	tb.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for conn := range open {
			_ = conn.Close()
		}
		open = nil
		mu.Unlock()
		serving.Wait()
	})
	return l.Addr().String()
}

// forward passes the commands of a client on, one at a time, until either end hangs up.
func forward(client net.Conn, addr string) {
	server, err := net.Dial("tcp", addr)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	var reply bytes.Buffer
	commands, replies := bufio.NewReader(client), bufio.NewReader(io.TeeReader(server, &reply))
	for {
		command, err := readReply(commands) // a command is an array, as some replies are
		parts, ok := command.([]any)
		if err != nil || !ok || len(parts) == 0 {
			return
		}
		args := make([]string, len(parts))
		for i, part := range parts {
			args[i], _ = part.(string)
		}
		reply.Reset() // the last one was read to its end, and nothing after it
		switch name := strings.ToUpper(args[0]); name {
		case "HELLO", "CLIENT":
			fmt.Fprintf(&reply, "-ERR unknown command '%s'\r\n", name)
		default:
			if _, err := io.WriteString(server, encode(args)); err != nil {
				return
			}
			if _, err := readReply(replies); err != nil {
				return
			}
		}
		if _, err := client.Write(reply.Bytes()); err != nil {
			return
		}
	}
}
