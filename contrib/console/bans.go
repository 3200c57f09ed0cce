package console

import (
	"slices"
	"sync"
	"time"
)

// maxBans is how many bans are remembered: those that end last.
const maxBans = 100

// ban is one that began, or was made on the page.
type ban struct {
	hash         uint64
	source       *source
	key          text
	began, until time.Duration // since the Console was made
}

// bans are those that began in this process.
type bans struct {
	mu  sync.Mutex
	n   int
	all [maxBans]ban
}

// put remembers a ban, in place of another one of the caller.
func (b *bans) put(one ban) {
	b.mu.Lock()
	defer b.mu.Unlock()
	at := slices.IndexFunc(b.all[:b.n], func(o ban) bool { return o.hash == one.hash })
	switch {
	case at >= 0:
	case b.n < maxBans:
		at = b.n
		b.n++
	default:
		at = 0
		for i := range b.all {
			if b.all[i].until < b.all[at].until {
				at = i
			}
		}
	}
	b.all[at] = one
}

// lift forgets the ban of a caller.
func (b *bans) lift(hash uint64) { b.drop(func(one *ban) bool { return one.hash == hash }) }

// standing returns those that have not ended.
func (b *bans) standing(now time.Duration) []ban {
	b.drop(func(one *ban) bool { return one.until <= now })
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.all[:b.n])
}

func (b *bans) drop(over func(*ban) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	kept := 0
	for i := range b.n {
		if !over(&b.all[i]) {
			b.all[kept] = b.all[i]
			kept++
		}
	}
	b.n = kept
}
