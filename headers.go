package ginlimit

import (
	"errors"
	"fmt"
	"math/bits"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/ginlimit/ginlimit/backend"
)

// Header fields in the form in which http.Header keeps them.
const (
	fieldPolicy      = "Ratelimit-Policy"
	fieldRate        = "Ratelimit"
	fieldLimit       = "X-Ratelimit-Limit"
	fieldRemaining   = "X-Ratelimit-Remaining"
	fieldReset       = "X-Ratelimit-Reset"
	fieldRetry       = "Retry-After"
	fieldCache       = "Cache-Control"
	fieldType        = "Content-Type"
	fieldExpose      = "Access-Control-Expose-Headers"
	fieldCredentials = "Access-Control-Allow-Credentials"
)

// anyLegacy are the two forms of the X-RateLimit fields.
const anyLegacy = HeadersLegacy | HeadersLegacyEpoch

// unavailableRetry is the least Retry-After of a 503, in seconds: longer than a store's own
// recovery is probed for.
const unavailableRetry = 5

// policy is a list of limits, each with a name, and what responses say of them whatever the figures
// are.
type policy struct {
	asked  []Limit // as they were given
	limits []Limit // each with a name
	shown  []shown // of each limit
	text   string  // the RateLimit-Policy of all; "" if there is nothing to say, or calendars
	dated  atomic.Pointer[datedText]

	charged   []Limit       // limits, and that of a ban if there is one
	calendars bool          // a limit has a calendar
	hold      time.Duration // the shortest Period of limits of requests in flight; 0 without
}

// datedText is a text that holds from one instant on, and before another.
type datedText struct {
	from, to time.Time
	text     string
}

// shown is one limit as a response shows it.
type shown struct {
	capacity string // X-RateLimit-Limit
	rate     string // RateLimit, up to its numbers
}

// rateMark is what follows the quoted name in shown.rate.
const rateMark = ";r="

// name returns the limit's name in quotes. RFC 9651 and RFC 8259 quote printable ASCII alike.
func (s *shown) name() string { return s.rate[:len(s.rate)-len(rateMark)] }

// newPolicy returns the policy of limits. One that has no name is called after the limiter, or
// after its numbers if there are several.
func newPolicy(limiter string, asked []Limit, ban *Limit) (*policy, error) {
	p := &policy{asked: slices.Clone(asked)}
	if err := p.name(limiter); err != nil {
		return nil, err
	}
	if p.charged = p.limits; ban != nil {
		p.charged = append(slices.Clone(p.limits), *ban)
	}
	p.shown = make([]shown, 0, len(p.limits))
	for i := range p.limits {
		l := &p.limits[i]
		p.shown = append(p.shown, shown{capacity: strconv.FormatInt(l.Capacity(), 10), rate: strconv.Quote(l.Name) + rateMark})
		switch {
		case l.IsUnlimited():
		case l.Algorithm == backend.CalendarWindow:
			p.calendars = true
		case l.Algorithm == backend.Concurrency && (p.hold == 0 || l.Hold() < p.hold):
			p.hold = l.Hold()
		}
	}
	if !p.calendars {
		p.text = p.newText(nil)
	}
	return p, nil
}

// policyText returns the RateLimit-Policy of all limits at an instant.
func (p *policy) policyText(at time.Time) string {
	if !p.calendars {
		return p.text
	}
	d := p.dated.Load()
	if d == nil || at.Before(d.from) || !at.Before(d.to) {
		d = &datedText{to: at.Add(backend.MaxPeriod)}
		d.text = p.newText(func(l *Limit) int64 {
			start, end := l.Calendar.Window(at)
			if start.After(d.from) {
				d.from = start
			}
			if end.Before(d.to) {
				d.to = end
			}
			return seconds(end.Sub(start))
		})
		p.dated.Store(d)
	}
	return d.text
}

// newText returns the RateLimit-Policy of all limits. calendar says how many seconds the window of
// a calendar has.
func (p *policy) newText(calendar func(*Limit) int64) string {
	var text []byte
	for i := range p.limits {
		l := &p.limits[i]
		if l.IsUnlimited() {
			continue
		}
		if text != nil {
			text = append(text, ", "...)
		}
		text = append(append(text, p.shown[i].name()...), ";q="...)
		unit := l.Unit
		switch l.Algorithm {
		case backend.Concurrency:
			text = strconv.AppendInt(text, l.Count, 10)
			if unit == "" {
				unit = "concurrent-requests"
			}
		case backend.CalendarWindow:
			text = strconv.AppendInt(text, l.Count, 10)
			text = strconv.AppendInt(append(text, ";w="...), calendar(l), 10)
		default:
			quota, window := perSeconds(*l)
			text = strconv.AppendInt(text, quota, 10)
			text = strconv.AppendInt(append(text, ";w="...), window, 10)
		}
		if unit != "" && unit != "requests" {
			text = append(append(append(text, `;qu="`...), unit...), '"')
		}
	}
	return string(text)
}

// perSeconds returns the window of a limit in whole seconds, rounded up, and the units in such a
// window, rounded down: a limit of 1 per 7 ms is shown as 142 per second.
func perSeconds(l Limit) (quota, window int64) {
	window = seconds(l.Period)
	if l.Period%time.Second == 0 {
		return l.Count, window
	}
	// The quotient is at most 1,000 times the count, because a period has 1 ms or more.
	hi, lo := bits.Mul64(uint64(l.Count), uint64(window)*uint64(time.Second))
	q, _ := bits.Div64(hi, lo, uint64(l.Period))
	return int64(min(q, backend.MaxCount)), window
}

// name fills limits in from what was asked, and returns what is wrong with that.
func (p *policy) name(limiter string) error {
	for i := range p.asked {
		l := &p.asked[i]
		if err := l.Validate(); err != nil {
			return err
		}
		if l.Name == "" {
			continue
		}
		if err := checkName(l.Name); err != nil {
			return fmt.Errorf("ginlimit: limit %q: %w", l.Name, err)
		}
		if named(p.asked[:i], l.Name) {
			return fmt.Errorf("ginlimit: two limits are named %q; give each a name of its own", l.Name)
		}
	}
	p.limits = slices.Clone(p.asked)
	for i := range p.limits {
		l := &p.limits[i]
		if l.Name != "" {
			continue
		}
		base := limiter
		if len(p.limits) > 1 {
			base = autoName(*l)
		}
		name := base
		for n := 2; named(p.limits, name); n++ {
			name = base + "-" + strconv.Itoa(n)
		}
		l.Name = name
	}
	return nil
}

func named(limits []Limit, name string) bool {
	return slices.ContainsFunc(limits, func(l Limit) bool { return l.Name == name })
}

// autoName returns a name such as "100-per-1m".
func autoName(l Limit) string {
	if l.IsUnlimited() {
		return "unlimited"
	}
	count := strconv.FormatInt(l.Count, 10)
	switch l.Algorithm {
	case backend.Concurrency:
		return count + "-in-flight"
	case backend.CalendarWindow:
		return count + "-per-" + l.Calendar.Unit()
	}
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}, {time.Millisecond, "ms"}} {
		if l.Period%u.unit == 0 {
			return count + "-per-" + strconv.FormatInt(int64(l.Period/u.unit), 10) + u.name
		}
	}
	return count + "-per-" + strconv.FormatInt(l.Period.Microseconds(), 10) + "us"
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

// index returns the place of the limit of that name, 0 if there is none.
func (p *policy) index(name string) int {
	for i := 1; i < len(p.limits); i++ {
		if p.limits[i].Name == name {
			return i
		}
	}
	return 0
}

// policies remembers the policies of lists of limits, by what is in the lists.
type policies struct {
	table table[policy]
	next  atomic.Uint32 // of the places of a list, the one to use when all are taken
}

// of returns the policy of limits, of a limiter of that name.
func (ps *policies) of(limiter string, limits []Limit, ban *Limit) (*policy, error) {
	places := ps.table.places(hashOf(limits))
	var place *atomic.Pointer[policy]
	for i := range places {
		p := places[i].Load()
		if p == nil {
			place = &places[i]
			break
		}
		if slices.Equal(p.asked, limits) {
			return p, nil
		}
	}
	p, err := newPolicy(limiter, limits, ban)
	if err != nil {
		return nil, err
	}
	if place == nil {
		place = &places[ps.next.Add(1)%placesEach]
	}
	place.Store(p)
	return p, nil
}

func hashOf(limits []Limit) uint64 {
	var hash uint64
	for i := range limits {
		l := &limits[i]
		hash ^= uint64(l.Count) ^ bits.RotateLeft64(uint64(l.Period), 20) ^ uint64(l.Burst)<<40 ^ uint64(l.Algorithm)<<7
		hash *= 0x9e3779b97f4a7c15
		hash ^= hash >> 32
	}
	return hash
}

// fieldValues are the values of header fields. Each response has its own, because a later handler
// may write to them.
type fieldValues struct {
	of     [5]string
	digits [32]byte // what those that change say, unless it is longer
}

const (
	valueRate = iota
	valueRemaining
	valueReset
	valueLimit
	valuePolicy
)

// put puts one of the values into a field.
func (v *fieldValues) put(h http.Header, field string, i int) { h[field] = v.of[i : i+1 : i+1] }

// policies lists the policies of all records that show them, and then more.
func (v *fieldValues) policies(h http.Header, all []*record, more string) {
	var few [8]string
	texts := few[:0]
	for _, r := range all {
		if text := r.policyText(); r.shows(HeadersIETF) && text != "" {
			texts = append(texts, text)
		}
	}
	if more != "" {
		texts = append(texts, more)
	}
	if len(texts) > 0 {
		v.of[valuePolicy] = strings.Join(texts, ", ")
		v.put(h, fieldPolicy, valuePolicy)
	}
}

// figures puts what is left, and until when, into the fields of some kinds. What would be untrue of
// a refusal that no waiting can cure, and of requests in flight, is left out.
func (v *fieldValues) figures(h http.Header, r *record, kinds Headers) {
	never := !r.Allowed && r.RetryAfter < 0 || r.Limit.Algorithm == backend.Concurrency && !r.Result.Banned()
	v.format(r, never)
	if kinds&HeadersIETF != 0 {
		v.put(h, fieldRate, valueRate)
	}
	if kinds&anyLegacy != 0 {
		v.of[valueLimit] = r.line().capacity
		v.put(h, fieldLimit, valueLimit)
		v.put(h, fieldRemaining, valueRemaining)
		if never {
			delete(h, fieldReset)
		} else {
			v.put(h, fieldReset, valueReset)
		}
	}
}

// format writes the values that change. They stand in v's own memory, so that they cost no
// allocation.
func (v *fieldValues) format(r *record, never bool) {
	t, reset := seconds(r.ResetAfter), seconds(r.ResetAfter)
	if !r.Allowed {
		t = retrySeconds(&r.Decision)
	}
	if r.headers&HeadersLegacyEpoch != 0 {
		reset = time.Now().Add(r.ResetAfter + time.Second - 1).Unix()
	}
	b := append(v.digits[:0], r.line().rate...)
	from := len(b)
	b = strconv.AppendInt(b, r.Remaining, 10)
	remaining := len(b)
	rate, again := remaining, remaining
	if !never {
		b = append(b, ";t="...)
		again = len(b)
		b = strconv.AppendInt(b, t, 10)
		rate = len(b)
		if reset != t { // otherwise they share their digits
			again = rate
			b = strconv.AppendInt(b, reset, 10)
		}
	}
	// Nothing writes to b from here on: it is as immutable as a string has to be.
	s := unsafe.String(unsafe.SliceData(b), len(b))
	v.of[valueRate], v.of[valueRemaining], v.of[valueReset] = s[:rate], s[from:remaining], s[again:]
}

// writeHeaders puts the fields for all records from the index made on into a response. If the
// request is refused, the last record answers it. writeHeaders returns the value of Retry-After, ""
// if there is none.
func writeHeaders(h http.Header, all []*record, made, status int) (retryAfter string) {
	if status != 0 {
		h[fieldCache] = []string{"no-store"}
		if wait := retryAfterOf(status, all); wait > 0 {
			retryAfter = strconv.FormatInt(wait, 10)
			h[fieldRetry] = []string{retryAfter}
		}
	}
	listed := false
	ietf, legacy := tightestOf(all, HeadersIETF), tightestOf(all, anyLegacy)
	for _, r := range all[made:] {
		if status == 0 && (r.limiter.late || !r.shows(HeadersIETF|anyLegacy)) {
			continue
		}
		if len(h) > 0 {
			r.limiter.expose.expose(h, r.headers)
		}
		var kinds Headers
		if r.shows(HeadersIETF) {
			if !listed {
				r.values.policies(h, all, "")
				listed = true
			}
		}
		if r == ietf {
			kinds = HeadersIETF
		}
		if r == legacy {
			kinds |= anyLegacy
		}
		if kinds != 0 {
			r.values.figures(h, r, kinds)
		}
	}
	return retryAfter
}

// retryAfterOf returns how many seconds a client that the last of all refuses is to wait, 0 if the
// response is not to say so. Another limiter may have given its last unit.
func retryAfterOf(status int, all []*record) (wait int64) {
	switch status {
	case http.StatusTooManyRequests:
		wait = retrySeconds(&all[len(all)-1].Decision)
	case http.StatusServiceUnavailable:
		wait = unavailableRetry
	}
	if wait == 0 {
		return 0
	}
	return max(wait, secondsUntilNext(all))
}

// secondsUntilNext returns for how many seconds no request of the same cost fits, as far as records
// tell. A limiter that settles may give back what it charged.
func secondsUntilNext(all []*record) (wait int64) {
	for _, r := range all {
		if r.decided() && (!r.Allowed || r.limiter.settle == nil) {
			wait = max(wait, seconds(untilNext(&r.Decision)))
		}
	}
	return wait
}

// postpone makes a Retry-After that a handler brought say wait seconds or more.
func postpone(h http.Header, wait int64) {
	theirs := h.Get(fieldRetry)
	said, err := strconv.ParseInt(theirs, 10, 64)
	if err != nil { // it may be a date (RFC 9110, section 10.2.3)
		at, err := http.ParseTime(theirs)
		if err != nil {
			return
		}
		said = seconds(time.Until(at))
	}
	if said < wait {
		h[fieldRetry] = []string{strconv.FormatInt(wait, 10)}
	}
}

// retrySeconds returns the whole seconds until a request that was refused fits, 0 if it never does.
func retrySeconds(d *Decision) int64 {
	if d.RetryAfter < 0 {
		return 0
	}
	return max(1, seconds(d.RetryAfter))
}

// untilNext returns how long it is until a request of the same cost fits, as far as a decision
// tells.
func untilNext(d *Decision) time.Duration {
	switch {
	case !d.Allowed:
		return d.RetryAfter
	case d.Remaining >= max(1, d.Cost):
		return 0
	case d.Limit.Algorithm == backend.Concurrency:
		return time.Second
	case d.Limit.Algorithm == backend.TokenBucket:
		return untilFits(d, max(1, d.Cost))
	default:
		return d.ResetAfter
	}
}

// untilFits returns how long it is until a token bucket that decided has so many units.
func untilFits(d *Decision, units int64) time.Duration {
	if d.Limit.IsUnlimited() {
		return 0
	}
	over := float64(units-d.Limit.Capacity()) * float64(d.Limit.Period) / float64(d.Limit.Count)
	return d.ResetAfter + time.Duration(min(over, float64(backend.MaxRefill)))
}

// seconds returns d in whole seconds, rounded up.
func seconds(d time.Duration) int64 {
	s := int64(d / time.Second)
	if d%time.Second > 0 {
		s++
	}
	return s
}

// exposure adds our fields to Access-Control-Expose-Headers. Values are mostly the same for every
// response, so that the last one is remembered.
type exposure struct {
	last atomic.Pointer[exposed]
}

type exposed struct {
	without     string
	credentials bool
	with        []string
}

// expose adds the fields of some kinds where the response has an Access-Control-Expose-Headers. The
// slice that is there may be shared by requests: it stays as it is.
func (e *exposure) expose(h http.Header, kinds Headers) {
	old := h[fieldExpose]
	if len(old) == 0 {
		return
	}
	without := old[0]
	if len(old) > 1 {
		without = strings.Join(old, ", ")
	}
	allow := h[fieldCredentials]
	credentials := len(allow) > 0 && allow[0] == "true"
	last := e.last.Load()
	if last == nil || last.without != without || last.credentials != credentials {
		last = &exposed{without, credentials, []string{exposing(without, credentials, kinds)}}
		e.last.Store(last)
	}
	h[fieldExpose] = slices.Clone(last.with)
}

// exposing returns a list of exposed fields with those of some kinds in it. "*" stands for all of
// them, unless the response is to a request with credentials (Fetch, section 3.2.4).
func exposing(list string, credentials bool, kinds Headers) string {
	names := []string{"Retry-After"}
	if kinds&HeadersIETF != 0 {
		names = append(names, "RateLimit", "RateLimit-Policy")
	}
	if kinds&anyLegacy != 0 {
		names = append(names, "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
	}
	there := strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' })
	list = strings.TrimRight(list, ", \t")
	for _, name := range names {
		exposed := func(s string) bool { return s == "*" && !credentials || strings.EqualFold(s, name) }
		if !slices.ContainsFunc(there, exposed) {
			if list != "" {
				list += ", "
			}
			list += name
		}
	}
	return list
}

// problemStart returns the beginning of a problem document (RFC 9457), up to the text of its
// detail. The types are those of draft-ietf-httpapi-ratelimit-headers-11, section 6, or none.
func problemStart(kind, title string, status int) string {
	uri := "about:blank"
	if kind != "" {
		uri = "https://iana.org/assignments/http-problem-types#" + kind
	}
	return fmt.Sprintf(`{"type":"%s","title":"%s","status":%d,"detail":"`, uri, title, status)
}

// problemMedia is the media type of a problem document.
const problemMedia = "application/problem+json"

var (
	problemNoKey = []byte(problemStart("", "Bad Request", http.StatusBadRequest) +
		`The request does not say who is asking: an address, a header or a login that its rate limit needs is missing."}`)
	problemCost = []byte(problemStart("", "Bad Request", http.StatusBadRequest) +
		`The cost of the request is not valid."}`)
	problemUnavailable = []byte(problemStart("temporary-reduced-capacity",
		"Temporary Reduced Capacity", http.StatusServiceUnavailable) +
		`The rate of the request could not be checked; try again later."}`)
	problemQuota = problemStart("quota-exceeded", "Quota Exceeded", http.StatusTooManyRequests)
	problemBan   = problemStart("abnormal-usage-detected", "Abnormal Usage Detected", http.StatusTooManyRequests)
)

// problem returns the problem document of a refusal. It says nothing of errors, which are none of
// the client's business.
func problem(r *record, status int, retryAfter string) []byte {
	switch status {
	case http.StatusBadRequest:
		if r.Cost < 0 {
			return problemCost
		}
		return problemNoKey
	case http.StatusServiceUnavailable:
		return problemUnavailable
	}
	if r.Result.Banned() {
		b := append([]byte(problemBan), "The caller is banned"...) // because of WithBan, or by hand
		if retryAfter != "" {
			b = appendTryAgain(b, retryAfter)
		}
		return append(b, `."}`...)
	}
	name := r.line().name()
	b := make([]byte, 0, len(problemQuota)+2*len(name)+160)
	b = append(append(b, problemQuota...), `The quota of policy \"`...)
	b = append(append(b, name[1:len(name)-1]...), `\" `...)
	if retryAfter == "" {
		b = append(b, "can never cover what this request costs."...)
	} else {
		b = append(appendTryAgain(append(b, "is used up"...), retryAfter), '.')
	}
	b = append(b, `","violated-policies":[`...)
	return append(r.appendViolated(b), "]}"...)
}

func appendTryAgain(b []byte, seconds string) []byte {
	b = append(append(append(b, "; try again in "...), seconds...), " second"...)
	if seconds != "1" {
		b = append(b, 's')
	}
	return b
}
