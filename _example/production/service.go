package main

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/ginlimit/ginlimit"
)

const (
	userKey      = "user"      // what authenticate sets
	apiKeyHeader = "X-API-Key" // what a partner's machine sends
)

// directory knows who may use the service. A real one is a database; it keeps hashes of tokens and
// keys too, so that who reads it cannot use them, and slow, salted ones of passwords.
type directory struct {
	users   map[string]secret   // password and token, by user
	tokens  map[[32]byte]string // user, by hash of the token
	apiKeys map[[32]byte]bool   // by hash of the key
}

type secret struct{ password, token string }

func newDirectory() *directory {
	d := &directory{
		users: map[string]secret{
			"alice": {"wonderland", "token-of-alice"},
			"bob":   {"builder", "token-of-bob"},
		},
		tokens:  make(map[[32]byte]string),
		apiKeys: map[[32]byte]bool{sha256.Sum256([]byte("key-of-a-partner")): true},
	}
	for user, s := range d.users {
		d.tokens[sha256.Sum256([]byte(s.token))] = user
	}
	return d
}

// authenticate runs before the limiters that want to know who is asking. Callers without
// credentials pass as nobody, and are limited by address; wrong credentials are refused, never
// ignored.
func (a *app) authenticate(c *gin.Context) {
	if header := c.GetHeader("Authorization"); header != "" {
		token, _ := strings.CutPrefix(header, "Bearer ")
		user, known := a.directory.tokens[sha256.Sum256([]byte(token))]
		if !known {
			c.Header("WWW-Authenticate", "Bearer")
			c.AbortWithStatusJSON(http.StatusUnauthorized, gin.H{"error": "the token is not known"})
			return
		}
		c.Set(userKey, user)
	}
	if key := c.GetHeader(apiKeyHeader); key != "" && !a.directory.apiKeys[sha256.Sum256([]byte(key))] {
		c.AbortWithStatusJSON(http.StatusUnauthorized, gin.H{"error": "the API key is not known"})
	}
}

// login answers with a token.
func (a *app) login(c *gin.Context) {
	c.Request.Body = http.MaxBytesReader(c.Writer, c.Request.Body, 4<<10)
	s, known := a.directory.users[c.PostForm("user")]
	same := subtle.ConstantTimeCompare([]byte(s.password), []byte(c.PostForm("password"))) == 1
	if !known || !same {
		c.JSON(http.StatusUnauthorized, gin.H{"error": "wrong name or password"}) // which of them is nobody's business
		return
	}
	c.JSON(http.StatusOK, gin.H{"token": s.token})
}

// whoami says what client decided, unless another limiter is nearer to its limit. While Redis is
// down client decides nothing, and there is nothing to say.
func whoami(c *gin.Context) {
	answer := gin.H{"user": c.GetString(userKey)}
	if d, ok := ginlimit.FromContext(c); ok && d.Limiter == "client" && d.Err == nil {
		answer["tier"], answer["limit"], answer["remaining"] = d.Tier, d.Limit.String(), d.Remaining
	}
	c.JSON(http.StatusOK, answer)
}

// search is what all this protects.
func (a *app) search(c *gin.Context) {
	n, ok := pageSize(c)
	if !ok {
		c.JSON(http.StatusBadRequest, gin.H{"error": fmt.Sprintf("size has to be 1 to %d", maxSize)})
		return
	}
	found, err := a.find(c.Request.Context(), c.Query("q"), n)
	if err != nil {
		c.JSON(http.StatusBadGateway, gin.H{"error": "the search failed"})
		return
	}
	c.JSON(http.StatusOK, gin.H{"found": found})
}

// findBooks stands for a query that takes longer the more it returns.
func findBooks(ctx context.Context, query string, n int) ([]string, error) {
	select {
	case <-time.After(time.Duration(n) * time.Millisecond):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	found := make([]string, n)
	for i := range found {
		found[i] = fmt.Sprintf("%s, volume %d", query, i+1)
	}
	return found, nil
}
