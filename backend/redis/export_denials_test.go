package redis

// DenialsLen returns how many refusals b remembers, after it has counted them.
func DenialsLen(b *Backend) (n int) {
	for i := range b.denials.shards {
		sh := &b.denials.shards[i]
		sh.Lock()
		n += len(sh.keys)
		sh.Unlock()
	}
	if int64(n) != b.denials.len.Load() {
		return -1
	}
	return n
}

// MaxDenials is how many a Backend remembers at most.
const MaxDenials = maxDenials

// RememberAnyway has b remember refusals though client-side caching was not seen to work.
func RememberAnyway(b *Backend) { b.denials.on.Store(true) }
