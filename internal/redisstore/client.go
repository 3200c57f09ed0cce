package redisstore

import (
	"context"
	"time"
)

// Client is a client of Redis. Its methods may be called concurrently. They end when ctx does, and
// send nothing twice that could charge twice. Their errors are those of the library, which
// [Library] tells apart.
type Client interface {
	// EvalSha runs a script that the server knows, on key and more. It returns what the script
	// replies, "" if that is no text.
	EvalSha(ctx context.Context, sha, key string, more, args []string) (string, error)
	// Eval is EvalSha with the script's text.
	Eval(ctx context.Context, text, key string, more, args []string) (string, error)
	// Get reads a key. If ttl is not 0 it does so through the client's cache, if there is one,
	// which keeps the value for up to ttl.
	Get(ctx context.Context, key string, ttl time.Duration) (Value, error)
	// Set writes a key, which lives for ttl, or without an end if that is 0.
	Set(ctx context.Context, key, value string, ttl time.Duration) error
	Del(ctx context.Context, key string) error

	// Keeps reports whether Get finds a key that exists in the client's cache, the second time.
	Keeps(ctx context.Context, key string, ttl time.Duration) (bool, error)
	// Cluster reports whether the servers are a Cluster.
	Cluster() bool
	// Addrs returns the addresses of servers, in an order that is always the same. It sends
	// nothing.
	Addrs() []string
	// Nodes returns the servers that are known by now, by their addresses.
	Nodes(ctx context.Context) map[string]Node
	// Close closes a client that a Backend has made.
	Close()
}

// Value is what Get found.
type Value struct {
	Text   string
	Exists bool
	// Hit says that it came from the client's cache, or may have done so.
	Hit bool
	// Until is when the client's cache forgets it, in ms since 1970; 0 or less if it has not got
	// it.
	Until int64
}

// Node is a server.
type Node interface {
	// Info returns a section of INFO.
	Info(ctx context.Context, section string) (string, error)
	// Slots returns what CLUSTER SLOTS says of the masters.
	Slots(ctx context.Context) ([]Slots, error)
}

// Slots is a range of a Cluster's slots, and the address of the master that has them.
type Slots struct {
	From, To int64
	Addr     string
}

// Library is what the packages of clients do each in their own way.
type Library struct {
	// Package is its name, with which errors begin and options are named.
	Package string
	// Rights is what has the documentation of the rights that a user needs.
	Rights string
	// Answer returns what a server said that led to an error, "" if there is nothing, and whether
	// that was its answer to a command.
	Answer func(error) (text string, answered bool)
	// Closed is the error of calls of a client that is closed.
	Closed error
	// Cache is what to use so that refusals are remembered.
	Cache string
}
