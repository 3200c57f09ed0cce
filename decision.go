package ginlimit

import (
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/ginlimit/ginlimit/backend"
)

// Decision is what was decided for one request, and why.
type Decision struct {
	Limiter string        // the limiter's name: that of WithName, or "default"
	Tier    string        // the name of the tier that decided; "" if none
	TierErr error         // the tier look-up failed: see WithTier
	Key     string        // as the KeyFunc returned it; may identify a person; "" if there is none
	Cost    int64         // what the request costs, in units
	Result                // of the limit that decided; zero if Err is not nil
	Limits  []Limit       // the limits in force, for this tier (read-only)
	Elapsed time.Duration // time spent deciding; 0 unless the limiter has an observer
	Waited  time.Duration // time a request was held by WithMaxWait or Wait
	DryRun  bool          // the limiter refuses nobody: Allowed says what it would have done
	Banned  bool          // refused because of WithBan or Ban

	failOpen   bool // Err is of the kind that the failure policy lets pass, and it does
	notCharged bool // it would have been, but another limiter of an All refuses
	banBegan   bool // with an attempt before the one that Result is of

	Err error // why no decision was reached, or nil; ErrSkip if none was wanted
}

// errNegativeCost is the error of a request whose WithCost is below 0.
var errNegativeCost = errors.New("ginlimit: the cost is negative; WithCost must return 0 or more")

// Passes reports whether the request goes on: a limit allows it, the limiter skips it or runs dry,
// or no decision was reached and the failure policy lets it pass.
func (d Decision) Passes() bool { return d.passes() }

func (d *Decision) passes() bool {
	switch {
	case d.DryRun || d.failOpen:
		return true
	case d.Err == nil:
		return d.Allowed
	default:
		return errors.Is(d.Err, ErrSkip)
	}
}

// BanBegan reports whether this decision brought a ban about. A request that is held, by
// [WithMaxWait] or [Limiter.Wait], is one decision: the ban may be over when it is made.
func (d Decision) BanBegan() bool { return d.banBegan || d.Result.BanBegan() }

// Status returns 0 if the request passes, and otherwise the HTTP status that answers it: 429 if a
// limit is spent, 400 if the request has no key or a negative cost, 503 if no decision was reached
// and the failure policy does not let the request pass. FailClosed lets no request pass. FailOpen
// lets none pass whose caller gave up, or gave limits that are not valid.
func (d Decision) Status() int { return d.status() }

func (d *Decision) status() int {
	switch {
	case d.passes():
		return 0
	case d.Err == nil:
		return http.StatusTooManyRequests
	case errors.Is(d.Err, ErrNoKey) || d.Cost < 0:
		return http.StatusBadRequest
	default:
		return http.StatusServiceUnavailable
	}
}

// The words of Decision.Outcome.
const (
	outcomeAllowed   = "allowed"
	outcomeDenied    = "denied"
	outcomeBanned    = "banned"
	outcomeUncharged = "not_charged"
	outcomeNoKey     = "no_key"
	outcomeBadCost   = "bad_cost"
	outcomePassed    = "error_passed"
	outcomeRefused   = "error_refused"
	outcomeSkipped   = "skipped"
	outcomeDryPrefix = "dry_run_"
)

// Outcome returns what became of the request, in one word that is fit for a metric's label:
//
//	allowed           a limit allows it
//	denied            a limit is spent, 429
//	banned            a ban refuses, 429
//	not_charged       it fits, but another limiter of an All refuses the request
//	no_key            the request has no key, 400
//	bad_cost          its cost is negative, 400
//	error_passed      no decision was reached; the request passes all the same
//	error_refused     no decision was reached, 503
//	skipped           WithSkip or ErrSkip lets it pass uncharged; observers are not told
//	dry_run_denied    in a dry run: it passes, and would have been denied
//	dry_run_banned    in a dry run: it passes, and is banned by hand
//	dry_run_no_key    in a dry run: it passes without a key
//	dry_run_bad_cost  in a dry run: it passes with a negative cost
//
// There may be more words in a later version.
func (d Decision) Outcome() string {
	switch {
	case d.Err == nil && d.notCharged:
		return outcomeUncharged
	case d.Err == nil && d.Allowed:
		return outcomeAllowed
	case d.Err == nil && d.Banned:
		return d.refusal(outcomeBanned, outcomeDryPrefix+outcomeBanned)
	case d.Err == nil:
		return d.refusal(outcomeDenied, outcomeDryPrefix+outcomeDenied)
	case errors.Is(d.Err, ErrSkip):
		return outcomeSkipped
	case errors.Is(d.Err, ErrNoKey):
		return d.refusal(outcomeNoKey, outcomeDryPrefix+outcomeNoKey)
	case d.Cost < 0:
		return d.refusal(outcomeBadCost, outcomeDryPrefix+outcomeBadCost)
	default:
		if d.Passes() {
			return outcomePassed
		}
		return outcomeRefused
	}
}

func (d Decision) refusal(refused, dry string) string {
	if d.DryRun {
		return dry
	}
	return refused
}

// LogValue implements [slog.LogValuer]: what was decided, without the key and without the text of
// errors, in which a key may stand. Of an error it has the word that [backend.ErrorKind] has for
// it.
func (d Decision) LogValue() slog.Value {
	attrs := make([]slog.Attr, 0, 12)
	attrs = append(attrs, slog.String("limiter", d.Limiter), slog.String("outcome", d.Outcome()))
	if d.Tier != "" {
		attrs = append(attrs, slog.String("tier", d.Tier))
	}
	if d.TierErr != nil {
		attrs = append(attrs, slog.String("tier_error", backend.ErrorKind(d.TierErr)))
	}
	attrs = append(attrs, slog.Int64("cost", d.Cost))
	switch outcome := d.Outcome(); {
	case outcome == outcomePassed || outcome == outcomeRefused:
		attrs = append(attrs, slog.String("error", backend.ErrorKind(d.Err)))
	case d.Err == nil:
		attrs = append(attrs, slog.String("limit", d.Limit.Name), slog.String("source", d.Source.String()))
		if !d.Limit.IsUnlimited() {
			attrs = append(attrs, slog.Int64("remaining", d.Remaining))
		}
		if !d.Allowed && d.RetryAfter >= 0 {
			attrs = append(attrs, slog.Duration("retry_after", d.RetryAfter))
		}
	}
	if d.Elapsed != 0 {
		attrs = append(attrs, slog.Duration("elapsed", d.Elapsed))
	}
	if d.Waited != 0 {
		attrs = append(attrs, slog.Duration("waited", d.Waited))
	}
	return slog.GroupValue(attrs...)
}
