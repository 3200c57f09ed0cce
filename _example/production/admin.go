package main

import (
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/gin-gonic/gin"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/backend"
)

// newAdmin returns what the operator sees. It is an engine and a listener of its own, on a loopback
// address, so that no mistake in a route or a proxy lets clients reach it: who can raise limits has
// none.
func (a *app) newAdmin() http.Handler {
	r := gin.New()
	r.SetTrustedProxies(nil)
	r.UseRawPath = true // so that an address such as ip:2001:db8::/64 can be written with %2F
	r.Use(gin.RecoveryWithWriter(a.logs))

	r.GET("/decisions", func(c *gin.Context) {
		c.Data(http.StatusOK, "application/json", []byte(a.decisions.String()))
	})
	r.PUT("/tiers/:id", a.setTier)
	r.DELETE("/tiers/:id", func(c *gin.Context) {
		answer(c, a.tiers.Delete(c.Request.Context(), c.Param("id")))
	})
	r.POST("/reset/:limiter/:key", a.reset)
	// A page in a browser on this machine can send requests to a loopback address too, and one
	// whose name its owner points at that address has the same origin.
	return onLoopback(http.NewCrossOriginProtection().Handler(r))
}

// onLoopback refuses requests that do not name a loopback address as their host.
func onLoopback(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		host, _, err := net.SplitHostPort(q.Host)
		if err != nil {
			host = q.Host
		}
		if addr, err := netip.ParseAddr(strings.Trim(host, "[]")); host != "localhost" && (err != nil || !addr.IsLoopback()) {
			http.Error(w, "use a loopback address", http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, q)
	})
}

// setTier gives a user limits of their own, as the operator writes them:
// {"name":"pro","limits":["500/s burst 1000"]}. They count on the next request, on every instance: a
// user who was over the old limit goes on at once.
//
// What a caller has used is carried over by place and algorithm, so that limits of a kind should
// stand at the same place in all tiers, and client's own limit is a token bucket.
func (a *app) setTier(c *gin.Context) {
	var tier ginlimit.Tier
	body := json.NewDecoder(http.MaxBytesReader(c.Writer, c.Request.Body, 64<<10))
	body.DisallowUnknownFields() // a "limit" that is ignored is a limit that nobody wanted
	err := body.Decode(&tier)
	if err == nil && len(tier.Limits) == 0 { // it would mean client's own limit, which is hardly what was meant
		err = errors.New("a tier needs a limit; to take a tier away, use DELETE")
	}
	if err == nil {
		err = a.tiers.Set(c.Request.Context(), c.Param("id"), tier) // which checks the names
	}
	answer(c, err)
}

// reset forgets what one key has used: user:alice, ip:192.0.2.1. The limiter address is not among
// those that can be reset: its counts are each process's own.
func (a *app) reset(c *gin.Context) {
	limiter := map[string]*ginlimit.Limiter{
		"client": a.limits.client, "clientDay": a.limits.clientDay, "login": a.limits.login, "search": a.limits.search,
	}[c.Param("limiter")]
	if limiter == nil {
		c.JSON(http.StatusNotFound, gin.H{"error": "there is no such limiter"})
		return
	}
	answer(c, limiter.Reset(c.Request.Context(), c.Param("key")))
}

// answer tells the operator's mistakes from those of Redis.
func answer(c *gin.Context, err error) {
	switch {
	case err == nil:
		c.Status(http.StatusNoContent)
	case errors.Is(err, backend.ErrUnavailable):
		c.JSON(http.StatusServiceUnavailable, gin.H{"error": err.Error()})
	default:
		c.JSON(http.StatusBadRequest, gin.H{"error": err.Error()})
	}
}
