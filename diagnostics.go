package ginlimit

import (
	"runtime"
	"slices"
	"strings"

	"github.com/gin-gonic/gin"
)

// Diagnostics have stable codes, which the README lists. Each appears once: for an engine, or for a limiter.
const (
	codeTrust     = "GINLIMIT001"
	codeTwice     = "GINLIMIT002"
	codeInRequest = "GINLIMIT003"
	codeOrder     = "GINLIMIT004"
)

func (l *Limiter) warn(code, message string, args ...any) {
	l.logger.Warn("ginlimit: "+code+": "+message, append([]any{"code", code, "limiter", l.name}, args...)...)
}

// trustSignal is how a KeyFunc, which has no logger, tells the limiter that asked it of a trusting engine.
type trustSignal struct{}

func (f *engineFacts) warnTrust(c *gin.Context) {
	f.trust.Do(func() { c.Set(trustSignal{}, true) })
}

// warnTrust logs what a KeyFunc found, if it did.
func (l *Limiter) warnTrust(c *gin.Context) {
	if _, ok := c.Get(trustSignal{}); !ok {
		return
	}
	c.Delete(trustSignal{})
	l.warn(codeTrust, "the engine trusts every proxy, so that any client could choose its own address by X-Forwarded-For; "+
		"requests are limited by the address of their connection instead. "+
		"Call engine.SetTrustedProxies(nil) if clients connect directly or through a Unix socket, whose connections have no "+
		"address, or name your proxies' addresses in it")
}

// warnTwice says that a limiter stands more than once before one route.
func (l *Limiter) warnTwice(c *gin.Context) {
	l.twice.Do(func() {
		l.warn(codeTwice, "the same limiter is mounted twice on one route; the request is charged once. "+
			"Remove one, or make two limiters with names of their own", "route", c.FullPath())
	})
}

// warnInRequest says that a limiter was made by a handler.
func (l *Limiter) warnInRequest(c *gin.Context) {
	facts := factsOf(c, engineOf(c))
	facts.built.Do(func() {
		l.warn(codeInRequest, "the limiter was built while a request was handled; a limiter that is built for each request "+
			"gives each a fresh budget and limits nothing. Build it once, before the engine runs", "route", c.FullPath())
	})
}

// calledInRequest reports whether Gin is handling a request on this goroutine.
func calledInRequest() bool {
	var pcs [64]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs[:])])
	for {
		frame, more := frames.Next()
		if strings.HasPrefix(frame.Function, "github.com/gin-gonic/gin.(*Context).Next") {
			return true
		}
		if !more {
			return false
		}
	}
}

// orderChecks is how often a limiter checks whether it comes too early.
const orderChecks = 8

// checkOrder looks, a few times, whether the handlers set something that changes the caller's key or tier, such as
// the user: then authentication comes after the limiter.
func (l *Limiter) checkOrder(c *gin.Context, d *Decision) {
	if l.ordered.Load() >= orderChecks || l.ordered.Add(1) > orderChecks {
		return
	}
	key, err := l.key(c)
	changed := "key"
	if err != nil || key == d.Key {
		if l.tier == nil || d.Tier != "" {
			return
		}
		var later Decision
		l.init(&later)
		l.lookUp(c, &later)
		if later.TierErr != nil || later.Err != nil || later.Tier == d.Tier && slices.Equal(later.Limits, d.Limits) {
			return
		}
		changed = "tier"
	}
	l.early.Do(func() {
		l.warn(codeOrder, "the caller's "+changed+" changes while the request is handled: "+
			"authentication runs after the limiter, which takes every caller for an unknown one. "+
			"Mount the limiter after authentication", "route", c.FullPath())
	})
}
