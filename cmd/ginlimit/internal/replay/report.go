package replay

import (
	"time"

	"github.com/ginlimit/ginlimit/cmd/ginlimit/internal/accesslog"
)

// Report is what a replay found out. Times are UTC, waits are seconds, shares are between 0 and 1.
type Report struct {
	Files    []File              `json:"files"`
	Lines    int64               `json:"lines"`
	Bad      int64               `json:"bad_lines"`
	BadLines []accesslog.BadLine `json:"first_bad_lines,omitempty"`
	Skipped  int64               `json:"skipped_lines"` // of no request
	Late     int64               `json:"late_lines"`    // too far out of order: moved on to the time that was reached
	NoKey    int64               `json:"without_key"`
	Other    int64               `json:"not_asked_for"` // of another route, status or limiter
	// NoDuration is, under a limit in flight, requests that are taken to end at once.
	NoDuration int64 `json:"without_duration,omitempty"`

	From     time.Time        `json:"from"`
	To       time.Time        `json:"to"`
	Requests int64            `json:"requests"`
	Units    int64            `json:"units"`
	Callers  int64            `json:"callers"`
	Already  int64            `json:"answered_429"` // when the log was written
	Outcomes map[string]int64 `json:"outcomes,omitempty"`
	By       string           `json:"by"`
	Route    string           `json:"route,omitempty"`

	Limits   Outcome   `json:"limits"`
	Versus   *Outcome  `json:"versus,omitempty"`
	Change   *Change   `json:"change,omitempty"`
	Smallest *Smallest `json:"smallest,omitempty"`
	Rates    Rates     `json:"rates"`
	Series   Series    `json:"series"`
	Minutes  Series    `json:"refused_callers"`
}

// File is one log.
type File struct {
	Name   string `json:"name"`
	Format string `json:"format"`
	Lines  int64  `json:"lines"`
}

// Outcome is what one list of limits would have done.
type Outcome struct {
	Limits         []LimitOutcome `json:"limits"`
	Refused        int64          `json:"refused"`
	RefusedUnits   int64          `json:"refused_units"`
	Share          float64        `json:"refused_share"`
	RefusedCallers int64          `json:"refused_callers"`
	CallerShare    float64        `json:"refused_caller_share"`
	Worst          *Minute        `json:"worst_minute,omitempty"`
	Waits          *Waits         `json:"waits,omitempty"`
	Top            []Caller       `json:"top,omitempty"`
}

// LimitOutcome is one limit of several: how often it was the one that refused.
type LimitOutcome struct {
	Limit   string `json:"limit"`
	Refused int64  `json:"refused"`
}

// Minute is one minute of a log.
type Minute struct {
	Start    time.Time `json:"start"`
	Requests int64     `json:"requests"`
	Refused  int64     `json:"refused"`
	Callers  int64     `json:"refused_callers,omitempty"`
}

// Waits are the Retry-After of refused requests, in seconds: how long they would have had to wait.
type Waits struct {
	Half      float64 `json:"half"`        // half of them at most
	NineInTen float64 `json:"nine_in_ten"` // nine in ten at most
	Longest   float64 `json:"longest"`
	Never     int64   `json:"never"` // cost more than the limit ever holds
}

// Caller is one key.
type Caller struct {
	Key           string     `json:"key"`
	Requests      int64      `json:"requests"`
	Refused       int64      `json:"refused"`
	RefusedVersus *int64     `json:"refused_versus,omitempty"`
	Peak          int64      `json:"peak"` // units in its busiest period
	First         *time.Time `json:"first_refused,omitempty"`
	Last          *time.Time `json:"last_refused,omitempty"`
}

// Change is what becomes of the requests and the callers of one list of limits under another.
type Change struct {
	OnlyLimits        int64    `json:"refused_only_by_limits"`
	OnlyVersus        int64    `json:"refused_only_by_versus"`
	Both              int64    `json:"refused_by_both"`
	CallersOnlyLimits int64    `json:"callers_refused_only_by_limits"`
	CallersOnlyVersus int64    `json:"callers_refused_only_by_versus"`
	CallersBoth       int64    `json:"callers_refused_by_both"`
	More              []Caller `json:"refused_more_by_versus,omitempty"`
	Fewer             []Caller `json:"refused_less_by_versus,omitempty"`
}

// Rates is how many callers asked for how much in their busiest period.
type Rates struct {
	Period time.Duration `json:"period"` // ns; of a calendar about how long a window is
	// Calendar is day, week or month if the periods are those of the first limit's calendar.
	Calendar string `json:"calendar,omitempty"`
	// AtOnce says that the first limit is one in flight: there is no period, and what is counted is
	// the units of requests that go on at the same time, refused or not.
	AtOnce  bool        `json:"at_once,omitempty"`
	Limit   *int64      `json:"limit,omitempty"` // units in a period, of the first limit
	Classes []RateClass `json:"classes"`
}

// RateClass is the callers that asked for From to To units in their busiest period.
type RateClass struct {
	From    int64 `json:"from"`
	To      int64 `json:"to"`
	Callers int64 `json:"callers"`
}

// Smallest is the smallest limit of the same shape that refuses no more than the target.
type Smallest struct {
	Target  float64  `json:"target"`
	Of      string   `json:"of"` // requests or callers
	Limits  []string `json:"limits,omitempty"`
	Refused int64    `json:"refused"`
	Share   float64  `json:"share"`
	OneIn   int64    `json:"one_caller_in"` // 1, or more if only some callers were looked at
	// None says why there are no Limits, "" if there are.
	None string `json:"none,omitempty"`
}
