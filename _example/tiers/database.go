package main

import (
	"context"
	"fmt"
	"sync"
)

// database stands for where accounts are kept.
type database struct {
	mu       sync.RWMutex
	accounts map[string]string // by API key
	plans    map[string]string // by account
	down     error             // what every look-up of a plan answers, unless it is nil
	asked    int               // how many look-ups of a plan there were
}

func newDatabase() *database {
	return &database{
		accounts: map[string]string{"key-of-ann": "ann", "key-of-bob": "bob", "key-of-pat": "pat", "key-of-eve": "eve"},
		plans:    map[string]string{"ann": "free", "bob": "free", "pat": "pro", "eve": "enterprise"},
	}
}

func (db *database) accountOf(apiKey string) (string, bool) {
	db.mu.RLock()
	defer db.mu.RUnlock()
	id, ok := db.accounts[apiKey]
	return id, ok
}

// planOf has the shape of a query: it takes a context, and it can fail.
func (db *database) planOf(ctx context.Context, id string) (string, error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.asked++
	if db.down != nil {
		return "", fmt.Errorf("plan of account %s: %w", id, db.down)
	}
	return db.plans[id], ctx.Err()
}

func (db *database) setPlan(id, plan string) {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.plans[id] = plan
}

func (db *database) setDown(err error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.down = err
}
