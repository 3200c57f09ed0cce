// Package plans remembers what a backend has worked out for the lists of limits that it is asked
// with.
package plans

import (
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/algorithm"
)

// Cache remembers the plans, of type P, of recent lists of limits, each in one of a few places. An
// application has some dozens; if it has a thousand, some are made again now and then. The zero
// value is ready; it is safe for concurrent use.
type Cache[P any] struct {
	recent [256]atomic.Pointer[P]
	next   atomic.Uint32 // of the places of a list, the one to use when all are taken
	// making is held while a plan is made whose places begin with one of some. A plan can cost a
	// millisecond: a thousand requests that come at once to a process that has just started must
	// not make it each.
	making [16]sync.Mutex
}

const places = 4

// Of returns the plan of limits: the one that is says to be theirs, or a new one.
func (c *Cache[P]) Of(limits []backend.Limit, is func(*P, []backend.Limit) bool, create func([]backend.Limit) (*P, error)) (*P, error) {
	var hash uint64
	for i := range limits {
		l := &limits[i]
		hash ^= uint64(l.Count) ^ bits.RotateLeft64(uint64(l.Period), 20) ^ uint64(l.Burst)<<40 ^ uint64(l.Algorithm)<<7
		hash *= 0x9e3779b97f4a7c15
	}
	first := hash >> 56
	if p, _ := c.find(first, limits, is); p != nil {
		return p, nil
	}
	mu := &c.making[first%uint64(len(c.making))]
	mu.Lock()
	defer mu.Unlock()
	p, place := c.find(first, limits, is)
	if p != nil {
		return p, nil
	}
	p, err := create(limits)
	if err != nil {
		return nil, err
	}
	if place == nil {
		place = &c.recent[(first+uint64(c.next.Add(1)%places))%uint64(len(c.recent))]
	}
	place.Store(p)
	return p, nil
}

// find returns the plan of limits, or nil and a place that is free, if there is one.
func (c *Cache[P]) find(first uint64, limits []backend.Limit, is func(*P, []backend.Limit) bool) (p *P, free *atomic.Pointer[P]) {
	for i := range uint64(places) {
		place := &c.recent[(first+i)%uint64(len(c.recent))]
		if p := place.Load(); p == nil {
			free = place
		} else if is(p, limits) {
			return p, nil
		}
	}
	return nil, free
}

// Decide reports whether rules are those of limits, whatever their names.
func Decide(rules []*algorithm.Rule, limits []backend.Limit) bool {
	if len(rules) != len(limits) {
		return false
	}
	for i, r := range rules {
		if !r.Decides(&limits[i]) {
			return false
		}
	}
	return true
}
