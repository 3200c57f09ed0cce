package redisstore

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// DefaultTimeout is the time budget of a decision unless it is set.
const DefaultTimeout = 500 * time.Millisecond

// Config is how a Backend is set up.
type Config struct {
	Library
	Prefix    string
	Timeout   time.Duration
	DenyCache bool
	Ping      bool // the caller tells that there is no connection
	Logger    *slog.Logger
}

// Defaults returns what is set unless options change it.
func Defaults(l Library) Config {
	return Config{Library: l, Prefix: "gl", Timeout: DefaultTimeout, DenyCache: true}
}

// SetPrefix is the option WithPrefix.
func (c *Config) SetPrefix(prefix string) error {
	if prefix == "" || len(prefix) > 64 || strings.ContainsFunc(prefix, func(r rune) bool { return r <= ' ' || r > '~' || r == '{' || r == '}' }) {
		return fmt.Errorf("ginlimit: %s.WithPrefix(%q): use 1 to 64 printable ASCII characters without spaces and braces", c.Package, prefix)
	}
	c.Prefix = prefix
	return nil
}

// SetTimeout is the option WithTimeout.
func (c *Config) SetTimeout(d time.Duration) error {
	if d < time.Millisecond || d > time.Minute {
		return fmt.Errorf("ginlimit: %s.WithTimeout(%v): use 1ms to 1m", c.Package, d)
	}
	c.Timeout = d
	return nil
}

// SetLogger is the option WithLogger.
func (c *Config) SetLogger(l *slog.Logger) error {
	if l == nil {
		return errors.New("ginlimit: " + c.Package + ".WithLogger(nil): leave the option out to use slog.Default()")
	}
	c.Logger = l
	return nil
}

func (c *Config) log() *slog.Logger {
	if c.Logger == nil {
		return slog.Default()
	}
	return c.Logger
}
