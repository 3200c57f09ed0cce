package postgres

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"

	"github.com/jackc/pgx/v5"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/algorithm"
)

// part is a charge of a TakeAll.
type part struct {
	*backend.Charge
	res  *backend.Result
	plan *plan
	name string // of the row
}

// TakeAll implements [backend.Backend]. It is one statement, which locks rows in the order of their
// names, so that no two wait for each other. As for Take, the context's end does not matter.
func (b *Backend) TakeAll(_ context.Context, charges ...backend.Charge) ([]backend.Result, error) {
	if err := algorithm.CheckAll(charges); err != nil {
		return nil, err
	}
	results := make([]backend.Result, len(charges))
	var parts, rest []part // those that keep a state, and those that do not
	fits := true
	for i := range charges {
		c := &charges[i]
		p, err := b.plans.Of(c.Limits, (*plan).is, newPlan)
		if err != nil {
			return nil, err
		}
		one := part{c, &results[i], p, stateKey(c.Key)}
		if !p.stateless {
			parts = append(parts, one)
			continue
		}
		rest = append(rest, one)
		fits = fits && !slices.ContainsFunc(c.Limits, func(l backend.Limit) bool { return l.Count == 0 })
	}
	now := b.here()
	if len(parts) > 0 {
		slices.SortFunc(parts, func(x, y part) int { return cmp.Compare(x.name, y.name) })
		var err error
		if now, err = b.takeParts(parts, fits, b.there(), 0); err != nil {
			return nil, b.fail("take all", err)
		}
		b.sweepNow()
	}
	for _, p := range rest {
		p.res.Limit = p.Limits[algorithm.Judge(nil, p.plan.rules, now, p.Cost, p.res)]
	}
	return results, nil
}

// takeParts has the database decide about parts together, which it charges if all fit and wanted
// says so. It returns the time of the decision, which is taken to be about that of the call. It was
// tried so often before with other windows of calendars.
func (b *Backend) takeParts(parts []part, wanted bool, about int64, tried int) (now int64, err error) {
	var names, rules, bans, windows []string
	var costs []int64
	for _, p := range parts {
		names, rules, costs = append(names, p.name), append(rules, p.plan.text), append(costs, min(p.Cost, backend.MaxCount+1))
		bans, windows = append(bans, textOf(p.plan.ban)), append(windows, textOf(p.plan.windowsAt(about)))
	}
	var charged, refused, outside bool
	args := []any{names, rules, costs, bans, windows, wanted, b.now()}
	err = b.query(b.gate.Context(), b.sql.takeAll, args, func(rows pgx.Rows) error {
		charged, refused, outside = false, !wanted, false // what an answer before said was undone
		for i, more := 0, true; more; i, more = i+1, rows.Next() {
			p := &parts[i]
			var a answer
			if err := a.readReply(rows, p.plan); err != nil {
				return err
			}
			now = a.now
			if outside = a.outside; outside {
				return nil
			}
			if a.charged {
				charged = true
				p.res.Limit = p.Limits[algorithm.Admitted(a.slots, p.plan.rules, a.now, p.res)]
				continue
			}
			p.res.Limit = p.Limits[a.judge(p.plan, p.Cost, p.res)]
			refused = refused || !p.res.Allowed
		}
		return nil
	})
	if err == nil && outside {
		if err = b.learn(now, tried); err == nil {
			return b.takeParts(parts, wanted, now, tried+1)
		}
	}
	if err != nil {
		return now, err
	}
	if asked := slices.ContainsFunc(parts, func(p part) bool { return p.Cost > 0 }); charged == refused && asked {
		return now, errors.New("the database charged some and not all, or refused what it has room for")
	}
	if charged {
		b.failing.Worked()
	}
	return now, nil
}

// textOf returns numbers as the function reads them, "" for none.
func textOf(numbers []int64) string {
	var text []byte
	for i, n := range numbers {
		if i > 0 {
			text = append(text, ' ')
		}
		text = strconv.AppendInt(text, n, 10)
	}
	return string(text)
}
