package redis

// Remembers reports whether b remembers refusals: client-side caching was seen to work.
func Remembers(b *Backend) bool { return b.denials != nil && b.denials.on.Load() }
