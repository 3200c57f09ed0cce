package redisstore

import "github.com/ginlimit/ginlimit/internal/storekey"

// The layout's version. A later one that this one cannot read gets another number.
const version = "1:"

// maxKey is the longest key in Redis, in bytes.
const maxKey = 200

// KeysBegin returns what all keys begin with.
func (c *Config) KeysBegin() string { return c.Prefix + version }

// stateKey returns the name under which the state of key is kept: prefix1:{limiter:key}.
func (c *Config) stateKey(key string) string { return c.key("", key) }

// key returns the name of a key of some kind, all of whose identity is inside the one hash tag.
func (c *Config) key(kind, key string) string {
	var buf [maxKey]byte
	b := append(buf[:0], c.Prefix...)
	b = append(b, version...)
	b = append(b, kind...)
	b = append(b, '{')
	return string(append(storekey.Append(b, key, maxKey-1), '}'))
}
