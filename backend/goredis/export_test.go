package goredis

import "github.com/ginlimit/ginlimit/internal/redisstore"

// Store returns what b is made of.
func Store(b *Backend) *redisstore.Backend { return b.store }
