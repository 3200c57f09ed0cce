package ginlimit

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unsafe"

	"github.com/gin-gonic/gin"
)

// Header fields in the form in which http.Header keeps them.
const (
	fieldPolicy    = "Ratelimit-Policy"
	fieldRate      = "Ratelimit"
	fieldLimit     = "X-Ratelimit-Limit"
	fieldRemaining = "X-Ratelimit-Remaining"
	fieldReset     = "X-Ratelimit-Reset"
	fieldRetry     = "Retry-After"
	fieldCache     = "Cache-Control"
	fieldType      = "Content-Type"
	fieldExpose    = "Access-Control-Expose-Headers"
)

// unavailableRetry is the Retry-After of a 503: longer than a store's own recovery is probed for.
const unavailableRetry = "5"

// plan is a list of limits, named, with all that can be written of them beforehand.
type plan struct {
	limiter *Limiter
	tier    string  // whose they are; "" if the limiter's own
	asked   []Limit // as they were given
	limits  []Limit // with names
	shown   []shown
	policy  string    // the RateLimit-Policy of all; "" if there is nothing to say
	whole   *Decision // of a visit that cannot hold it; nil in a plan that visits share
}

// shown is one limit as a response shows it.
type shown struct {
	limit   string // X-RateLimit-Limit
	rate    string // RateLimit up to its numbers
	problem string // the problem document up to when to try again
	end     string // and after it
}

func (l *Limiter) newPlan(asked []Limit) (*plan, error) {
	p := &plan{limiter: l, asked: slices.Clone(asked)}
	if err := p.name(l.name); err != nil {
		return nil, err
	}
	var policies []string
	for _, l := range p.limits {
		quoted := strconv.Quote(l.Name) // as RFC 9651 does it, for printable ASCII
		p.shown = append(p.shown, shown{
			limit:   strconv.FormatInt(l.Capacity(), 10),
			rate:    quoted + ";r=",
			problem: problem("quota-exceeded", "Quota Exceeded", http.StatusTooManyRequests) + `The quota of policy `,
		})
		s := &p.shown[len(p.shown)-1]
		inJSON, err := json.Marshal(l.Name)
		if err != nil {
			return nil, fmt.Errorf("ginlimit: limit name %q: %w", l.Name, err)
		}
		s.problem += `\"` + string(inJSON[1:len(inJSON)-1]) + `\" `
		s.end = `","violated-policies":[` + string(inJSON) + `]}`
		if !l.IsUnlimited() {
			policies = append(policies, quoted+";q="+strconv.FormatInt(l.Count, 10)+";w="+strconv.FormatInt(seconds(l.Period), 10))
		}
	}
	p.policy = strings.Join(policies, ", ")
	return p, nil
}

// name fills limits in from what was asked, and returns what is wrong with that.
func (p *plan) name(limiter string) error {
	taken := make(map[string]bool, len(p.asked))
	for _, l := range p.asked {
		if err := l.Validate(); err != nil {
			return err
		}
		if l.Name == "" {
			continue
		}
		if err := checkName(l.Name); err != nil {
			return fmt.Errorf("ginlimit: limit %q: %w", l.Name, err)
		}
		if taken[l.Name] {
			return fmt.Errorf("ginlimit: two limits are named %q; give each a name of its own", l.Name)
		}
		taken[l.Name] = true
	}
	for _, l := range p.asked {
		if l.Name == "" {
			base := limiter
			if len(p.asked) > 1 {
				base = autoName(l)
			}
			l.Name = base
			for i := 2; taken[l.Name]; i++ {
				l.Name = base + "-" + strconv.Itoa(i)
			}
			taken[l.Name] = true
		}
		p.limits = append(p.limits, l)
	}
	return nil
}

// autoName returns a name such as "100-per-1m".
func autoName(l Limit) string {
	if l.IsUnlimited() {
		return "unlimited"
	}
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}, {time.Millisecond, "ms"}} {
		if l.Period%u.unit == 0 {
			return fmt.Sprintf("%d-per-%d%s", l.Count, l.Period/u.unit, u.name)
		}
	}
	return fmt.Sprintf("%d-per-%dus", l.Count, l.Period.Microseconds())
}

// checkName returns an error unless s can be written as a string of RFC 9651, section 3.3.3.
func checkName(s string) error {
	if s == "" {
		return errors.New("a name must not be empty")
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return errors.New("a name must be printable ASCII, because it goes into header fields")
		}
	}
	return nil
}

// planCache keeps the plans of tiers, by the tier's name.
type planCache struct {
	mu    sync.RWMutex
	plans map[string]*plan
}

// maxPlans bounds a planCache, in case somebody names a tier after each customer.
const maxPlans = 1024

func (pc *planCache) get(l *Limiter, tier Tier) (*plan, error) {
	pc.mu.RLock()
	p := pc.plans[tier.Name]
	pc.mu.RUnlock()
	if p != nil && slices.Equal(p.asked, tier.Limits) {
		return p, nil
	}
	fresh, err := l.newPlan(tier.Limits)
	if err != nil {
		return nil, err
	}
	fresh.tier = tier.Name
	pc.mu.Lock()
	defer pc.mu.Unlock()
	if pc.plans == nil {
		pc.plans = make(map[string]*plan)
	}
	if p != nil || len(pc.plans) < maxPlans {
		pc.plans[tier.Name] = fresh
	}
	return fresh, nil
}

// writeHeaders puts the fields for a decision, and for those of the limiters before it, into the response. It
// returns the value of Retry-After, "" if there is none.
func (v *visit) writeHeaders(c *gin.Context, status int) (retryAfter string) {
	if v.err() != nil && status == 0 {
		return "" // a failure that passes shows nothing
	}
	h := c.Writer.Header()
	headers := v.plan.limiter.headers
	if len(h) > 0 && (status != 0 || headers != HeadersNone) {
		if old := h[fieldExpose]; len(old) > 0 {
			h[fieldExpose] = slices.Clone(v.plan.limiter.exposing(old))
		}
	}
	if status != 0 {
		h[fieldCache] = []string{"no-store"}
	}
	if v.err() != nil {
		if status == http.StatusServiceUnavailable {
			h[fieldRetry] = []string{unavailableRetry}
		}
		return ""
	}
	t := seconds(v.resetAfter)
	if !v.allowed && v.retryAfter >= 0 {
		t = max(1, seconds(v.retryAfter))
		retryAfter = strconv.FormatInt(t, 10)
		h[fieldRetry] = []string{retryAfter}
	}
	if headers == HeadersNone {
		return retryAfter
	}
	if headers&HeadersIETF != 0 {
		v.writePolicy(h)
	}
	if v.unlimited() {
		return retryAfter
	}
	v.format(t)
	if headers&HeadersIETF != 0 && v.isTightest(HeadersIETF) {
		h[fieldRate] = v.values[0:1:1]
	}
	if headers&(HeadersLegacy|HeadersLegacyEpoch) != 0 && v.isTightest(HeadersLegacy|HeadersLegacyEpoch) {
		v.values[3] = v.shown().limit
		h[fieldLimit] = v.values[3:4:4]
		h[fieldRemaining] = v.values[1:2:2]
		h[fieldReset] = v.values[2:3:3]
	}
	return retryAfter
}

// writePolicy adds the limiter's policies to those of the limiters before it.
func (v *visit) writePolicy(h http.Header) {
	all := v.plan.policy
	if all == "" {
		return
	}
	for b := v.before; b != nil; b = b.before {
		if b.shows(HeadersIETF) && b.plan.policy != "" {
			all = b.plan.policy + ", " + all
		}
	}
	v.values[4] = all
	h[fieldPolicy] = v.values[4:]
}

// isTightest reports whether no limiter before v that shows such fields is nearer to its limit.
func (v *visit) isTightest(fields Headers) bool {
	return v.before == nil || v.tightest(func(b *visit) bool { return b.shows(fields) && !b.unlimited() }) == v
}

// shows reports whether v put such fields into the response.
func (v *visit) shows(fields Headers) bool {
	return v.handled && !v.plan.limiter.dryRun && v.err() == nil && v.plan.limiter.headers&fields != 0
}

// unlimited reports whether v was decided by no limit at all.
func (v *visit) unlimited() bool { return v.plan.limits[v.limit].IsUnlimited() }

// shown returns what is prepared for the limit that decided.
func (v *visit) shown() *shown { return &v.plan.shown[v.limit] }

// format writes the values of the fields that change, with t as RateLimit has it. They stand in v's own memory, so
// that they cost no allocation.
func (v *visit) format(t int64) {
	reset := seconds(v.resetAfter)
	if v.plan.limiter.headers&HeadersLegacyEpoch != 0 {
		reset = time.Now().Add(v.resetAfter + time.Second - 1).Unix()
	}
	b := append(v.text[:0], v.shown().rate...)
	from := len(b)
	b = strconv.AppendInt(b, v.remaining, 10)
	remaining := len(b)
	b = append(b, ";t="...)
	again := len(b)
	b = strconv.AppendInt(b, t, 10)
	rate := len(b)
	if reset != t { // else they share their digits
		again = rate
		b = strconv.AppendInt(b, reset, 10)
	}
	// Nothing writes to b from here on: it is as immutable as a string has to be.
	s := unsafe.String(unsafe.SliceData(b), len(b))
	v.values[0], v.values[1], v.values[2] = s[:rate], s[from:remaining], s[again:]
}

// seconds returns d in whole seconds, rounded up.
func seconds(d time.Duration) int64 {
	s := int64(d / time.Second)
	if d%time.Second > 0 {
		s++
	}
	return s
}

// exposed is an Access-Control-Expose-Headers with our fields in it.
type exposed struct {
	without string
	with    []string
}

// exposing returns what old becomes with our fields in it. Values are mostly the same for every response, so
// that the last one is remembered. The old slice may be shared by requests: it stays as it is.
func (l *Limiter) exposing(old []string) []string {
	without := old[0]
	if len(old) > 1 {
		without = strings.Join(old, ", ")
	}
	if e := l.expose.Load(); e != nil && e.without == without {
		return e.with
	}
	names := []string{"Retry-After"}
	if l.headers&HeadersIETF != 0 {
		names = append(names, "RateLimit", "RateLimit-Policy")
	}
	if l.headers&(HeadersLegacy|HeadersLegacyEpoch) != 0 {
		names = append(names, "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
	}
	there := strings.FieldsFunc(without, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' })
	with := strings.TrimRight(without, ", \t")
	for _, name := range names {
		if !slices.ContainsFunc(there, func(s string) bool { return s == "*" || strings.EqualFold(s, name) }) {
			with = strings.TrimPrefix(with+", "+name, ", ")
		}
	}
	e := &exposed{without: without, with: []string{with}}
	l.expose.Store(e)
	return e.with
}

// refuse answers a request that does not pass.
func (l *Limiter) refuse(c *gin.Context, v *visit, status int, retryAfter string) {
	c.Abort()
	c.Status(status) // also for a deny handler that says nothing
	if l.deny != nil {
		l.deny(c, v.decision())
		return
	}
	c.Writer.Header()[fieldType] = []string{"application/problem+json"}
	if c.Request.Method == http.MethodHead {
		_, _ = c.Writer.Write(nil) // not WriteHeaderNow, which a writer in front may not know
		return
	}
	// The client may be gone; then there is nobody to tell.
	_, _ = c.Writer.Write(v.problem(status, retryAfter))
}

// problem returns the beginning of a problem document (RFC 9457), up to the text of its detail. The types are those
// of draft-ietf-httpapi-ratelimit-headers-11, section 6, or none.
func problem(kind, title string, status int) string {
	uri := "about:blank"
	if kind != "" {
		uri = "https://iana.org/assignments/http-problem-types#" + kind
	}
	return fmt.Sprintf(`{"type":"%s","title":"%s","status":%d,"detail":"`, uri, title, status)
}

var (
	problemNoKey       = []byte(problem("", "Bad Request", http.StatusBadRequest) + `The request does not say who is asking: an address, a header or a login that its rate limit needs is missing."}`)
	problemCost        = []byte(problem("", "Bad Request", http.StatusBadRequest) + `The cost of the request is not valid."}`)
	problemUnavailable = []byte(problem("temporary-reduced-capacity", "Temporary Reduced Capacity", http.StatusServiceUnavailable) + `The rate of the request could not be checked; try again later."}`)
)

// problem returns the whole document for a decision. It says nothing of errors, which are none of the client's business.
func (v *visit) problem(status int, retryAfter string) []byte {
	switch status {
	case http.StatusBadRequest:
		if errors.Is(v.err(), errNegativeCost) {
			return problemCost
		}
		return problemNoKey
	case http.StatusServiceUnavailable:
		return problemUnavailable
	}
	s := v.shown()
	b := make([]byte, 0, len(s.problem)+len(s.end)+64)
	b = append(b, s.problem...)
	switch retryAfter {
	case "":
		b = append(b, "can never cover what this request costs."...)
	case "1":
		b = append(b, "is used up; try again in 1 second."...)
	default:
		b = append(b, "is used up; try again in "...)
		b = append(b, retryAfter...)
		b = append(b, " seconds."...)
	}
	return append(b, s.end...)
}
