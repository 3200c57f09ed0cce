package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/backend"
)

const (
	maxBody = 64 << 10        // bytes of a question
	actTime = 5 * time.Second // that the stores may take
)

// question is what a button asks: about a caller by the hash that stands for it, or by its key.
type question struct {
	ID      string `json:"id"`
	Key     string `json:"key"`
	Limiter string `json:"limiter"` // the name, as it was shown; empty for all, in a look-up
	For     string `json:"for"`     // of a ban, as time.ParseDuration reads it

	tier string // the last that was seen; known only of an ID
}

// answer is what the page shows.
type answer struct {
	Error    string        `json:"error,omitempty"`
	Done     string        `json:"done,omitempty"`
	Caller   string        `json:"caller,omitempty"`
	Limiters []usageAnswer `json:"limiters,omitempty"`
}

// usageAnswer is what a caller has used of a limiter, in a tier.
type usageAnswer struct {
	Limiter string       `json:"limiter"`
	Tier    string       `json:"tier"`
	Error   string       `json:"error,omitempty"`
	Ban     float64      `json:"ban"` // seconds until it ends, or 0
	Limits  []limitUsage `json:"limits"`
}

type limitUsage struct {
	Limit     string  `json:"limit"`
	Unlimited bool    `json:"unlimited"`
	Used      int64   `json:"used"`
	Remaining int64   `json:"remaining"`
	Capacity  int64   `json:"capacity"`
	Reset     float64 `json:"reset"` // seconds until nothing is used
}

// action is what a button does. The error is told to the page.
type action struct {
	writes bool
	do     func(c *Console, ctx context.Context, q *question) (answer, error)
}

var actions = map[string]*action{
	"lookup": {do: (*Console).lookUp},
	"reset":  {writes: true, do: (*Console).reset},
	"unban":  {writes: true, do: (*Console).reset}, // a store forgets a ban with all else
	"ban":    {writes: true, do: (*Console).ban},
}

// refusal is an error that is the question's own.
type refusal struct {
	status int
	text   string
}

func (r refusal) Error() string { return "ginlimit: " + r.text }

func (c *Console) act(w http.ResponseWriter, r *http.Request, a *action) {
	ctx, cancel := context.WithTimeout(r.Context(), actTime)
	defer cancel()
	var q question
	said, err := answer{}, c.read(w, r, a, &q)
	if err == nil {
		said, err = a.do(c, ctx, &q)
	}
	status := http.StatusOK
	if err != nil {
		var own refusal
		if status = http.StatusBadGateway; errors.As(err, &own) {
			status = own.status
		}
		said = answer{Error: c.errorText(err, &q)}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(said)
}

// read reads a question, and finds the caller that it is about.
func (c *Console) read(w http.ResponseWriter, r *http.Request, a *action, q *question) error {
	if a.writes && c.readOnly {
		return refusal{http.StatusForbidden, "this page only reads: WithActions(false)"}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil || json.Unmarshal(body, q) != nil {
		return refusal{http.StatusBadRequest, "the question cannot be read"}
	}
	if q.ID == "" {
		return nil
	}
	k, ok := c.shown.find(q.ID)
	if !ok {
		return refusal{http.StatusNotFound, "the caller behind this hash is no longer known here; look it up by its key"}
	}
	q.Key, q.tier = k.key, k.tier
	if q.Limiter == "" {
		q.Limiter = shownText(k.limiter)
	}
	return nil
}

// errorText returns what the page may show of an error: not its text where a key that is hidden may
// stand in it.
func (c *Console) errorText(err error, q *question) string {
	var own refusal
	if c.keys || q.ID == "" || errors.As(err, &own) {
		return shownText(err.Error())
	}
	return "ginlimit: it failed: " + shownText(backend.ErrorKind(err))
}

// nameOf returns a limiter's name as it was shown.
func nameOf(l *ginlimit.Limiter) string { return shownText(cut(l.Name())) }

// asked returns the limiters that a question is about.
func (c *Console) asked(q *question) ([]*ginlimit.Limiter, error) {
	var all []*ginlimit.Limiter
	for _, l := range c.watching() {
		if q.Limiter == "" || nameOf(l) == q.Limiter {
			all = append(all, l)
		}
	}
	switch {
	case q.Key == "":
		return nil, refusal{http.StatusBadRequest, "the key is empty; it is what the KeyFunc returns, such as ip:203.0.113.7"}
	case len(all) == 0:
		return nil, refusal{http.StatusNotFound, fmt.Sprintf("the limiter %q is not watched; give it to console.New or Watch", q.Limiter)}
	}
	return all, nil
}

func (c *Console) lookUp(ctx context.Context, q *question) (answer, error) {
	limiters, err := c.asked(q)
	if err != nil {
		return answer{}, err
	}
	said := answer{Caller: shownText(q.Key)}
	if q.ID != "" && !c.keys {
		said.Caller = "#" + q.ID
	}
	for _, l := range limiters {
		for _, tier := range c.tiersOf(l, q.tier) {
			said.Limiters = append(said.Limiters, c.usage(ctx, l, tier, q))
		}
	}
	return said, nil
}

// usage asks what a caller has used of a limiter, as a caller of a tier.
func (c *Console) usage(ctx context.Context, l *ginlimit.Limiter, tier tierLimits, q *question) usageAnswer {
	u := usageAnswer{Limiter: nameOf(l), Tier: shownText(tier.name), Limits: []limitUsage{}}
	all, err := l.Usage(ctx, q.Key, tier.limits...)
	if err != nil {
		u.Error = c.errorText(err, q)
		return u
	}
	if d, err := l.Peek(ctx, q.Key, roomy); err == nil && d.Banned { // Usage is of limits alone
		u.Ban = d.RetryAfter.Seconds()
	}
	for _, res := range all {
		one := limitUsage{Limit: shownText(res.Limit.String()), Unlimited: res.Limit.IsUnlimited(), Reset: res.ResetAfter.Seconds()}
		if !one.Unlimited {
			one.Used, one.Remaining, one.Capacity = res.Used(), res.Remaining, res.Limit.Capacity()
		}
		u.Limits = append(u.Limits, one)
	}
	return u
}

// roomy is a limit that always has room: what refuses under it is a ban, whose end is RetryAfter.
var roomy = ginlimit.PerSecond(backend.MaxCount)

// tierLimits is a tier to ask with. Without limits, it stands for a limiter's own.
type tierLimits struct {
	name   string
	limits []ginlimit.Limit
}

// maxTiers is how many tiers are asked about where the caller's is not known.
const maxTiers = 8

// tiersOf returns the tiers that a caller of a limiter may have: the one that it had last, if that
// is known, and otherwise those that were seen. A limiter without WithTier has none.
func (c *Console) tiersOf(l *ginlimit.Limiter, last string) []tierLimits {
	own := ownOf(l)
	if errors.Is(own.Err, ginlimit.ErrNoKey) { // otherwise it misses a tier before it misses a key
		return []tierLimits{{}}
	}
	sources := c.sources.all()
	seen := []tierLimits{}
	byTier := func(a, b names) int { return strings.Compare(a.tier, b.tier) }
	for _, n := range slices.SortedFunc(maps.Keys(sources), byTier) {
		if limits := sources[n].limits.Load(); n.limiter == cut(l.Name()) && limits != nil {
			if n.tier == last && last != "" {
				return []tierLimits{{n.tier, *limits}}
			}
			seen = append(seen, tierLimits{n.tier, *limits})
		}
	}
	if len(seen) == 0 {
		return []tierLimits{{limits: own.Limits}}
	}
	return seen[:min(maxTiers, len(seen))]
}

// each does something with the limiters of the name that a question has: one, unless an
// application has several of a name.
func (c *Console) each(q *question, do func(*ginlimit.Limiter) error) error {
	if q.Limiter == "" {
		return refusal{http.StatusBadRequest, "the limiter is missing"}
	}
	all, err := c.asked(q)
	for _, l := range all {
		err = errors.Join(err, do(l))
	}
	return err
}

func (c *Console) reset(ctx context.Context, q *question) (answer, error) {
	var reset *ginlimit.Limiter
	if err := c.each(q, func(l *ginlimit.Limiter) error { reset = l; return l.Reset(ctx, q.Key) }); err != nil {
		return answer{}, err
	}
	c.lifted(reset, q.Key)
	return answer{Done: "starts anew: it has used nothing, and is not banned"}, nil
}

func (c *Console) ban(ctx context.Context, q *question) (answer, error) {
	length, err := time.ParseDuration(q.For)
	if err != nil || length <= 0 {
		return answer{}, refusal{http.StatusBadRequest, "how long is the ban? Such as 10m or 24h"}
	}
	if length < backend.MinPeriod || length > backend.MaxPeriod || length%time.Microsecond != 0 {
		return answer{}, refusal{http.StatusBadRequest, fmt.Sprintf("a ban for %v: use %v to %v, in whole microseconds", length, backend.MinPeriod, backend.MaxPeriod)}
	}
	var banned *ginlimit.Limiter
	if err := c.each(q, func(l *ginlimit.Limiter) error { banned = l; return l.Ban(ctx, q.Key, length) }); err != nil {
		return answer{}, err
	}
	c.banned(banned, q, length)
	return answer{Done: "is banned for " + length.String()}, nil
}

// banned remembers a ban that was made here.
func (c *Console) banned(l *ginlimit.Limiter, q *question, length time.Duration) {
	n := names{cut(l.Name()), cut(q.tier)}
	s, ok := c.sources.all()[n]
	if !ok {
		s = c.newSource(n)
	}
	now := time.Since(c.started)
	c.bans.put(ban{hash: c.hash(s.limiter, q.Key), source: s, key: textOf(q.Key), began: now, until: now + length})
}

// lifted forgets the ban of a caller, and that it was refused by one. Where there are too many
// limiters or tiers, it may have been counted among the others.
func (c *Console) lifted(l *ginlimit.Limiter, key string) {
	if counted, ok := c.limiters.all()[cut(l.Name())]; ok {
		c.forgive(c.hash(counted, key))
	}
	c.forgive(c.hash(c.other.limiter, key))
}

func (c *Console) forgive(h uint64) {
	c.bans.lift(h)
	p := &c.shards[h%numShards]
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.lists[listRefused].sketches {
		s := &p.lists[listRefused].sketches[i]
		for j := range s.n {
			if s.hashes[j] == h {
				s.callers[j].banned = false
			}
		}
	}
}
