package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/algorithm"
)

// call is one Take.
type call struct {
	*Backend
	ctx  context.Context
	plan *plan
	key  string
	cost int64
}

// take fills res in, all but Limit, and returns the index of the limit that decided.
func (c *call) take(res *backend.Result) (decided int, err error) {
	mark := c.refused.mark(c.key)
	if (c.cost == 0 || c.refused.recently(mark)) && !c.plan.logs {
		decided, write, err := c.look(res)
		if err != nil || c.cost == 0 || !res.Allowed && !write {
			return decided, err
		}
	}
	sure := false
	if args := c.quickArgs(); args != nil {
		if c.plan.ban != nil {
			args = append(args, c.plan.ban)
		}
		at := 0
		if len(c.plan.calendars) > 0 {
			at = len(args)
			args = append(args, nil)
		}
		if c.clock != nil {
			args = append(args, c.clock())
		}
		sh := shape{quickTake, c.plan.shape, c.plan.ban != nil, at > 0, c.clock != nil}
		decided, sure, err = c.charge(res, c.sql.of(sh), args, at)
	}
	if !sure && err == nil {
		at := 4
		args := []any{c.key, c.plan.text, c.cost, c.plan.ban, []int64(nil), c.now()}
		decided, sure, err = c.charge(res, c.sql.function, args, at)
		if !sure && err == nil {
			err = fmt.Errorf("the database refused what it has room for: %+v", *res)
		}
	}
	if err == nil && c.cost > 0 {
		if c.plan.ban != nil && !res.Banned() {
			c.refused.forget(mark) // the next refusal is to be counted
		} else {
			c.refused.note(mark, res)
		}
	}
	return decided, err
}

// look decides by what the row says, without a lock. It reports whether there is something to
// write: a charge, or what moved because the clock went back.
func (c *call) look(res *backend.Result) (decided int, write bool, err error) {
	var few [inline]algorithm.Slot
	a := answer{slots: few[:0]}
	err = c.query(c.ctx, c.sql.look, []any{c.key, c.now()}, func(rows pgx.Rows) error { return a.readRow(rows, c.plan) })
	if err != nil {
		return 0, false, err
	}
	moved := algorithm.Rebase(a.slots, a.base, a.now)
	decided = a.judge(c.plan, c.cost, res)
	counts := c.plan.ban != nil && !res.Banned()
	return decided, c.cost > 0 && (res.Allowed || moved || counts), nil
}

// quickArgs returns the arguments of the shape's statement, nil if that is not to be asked.
func (c *call) quickArgs() []any {
	if c.plan.shape == "" || c.cost == 0 || c.slow {
		return nil
	}
	more, ok := c.plan.args(c.cost)
	if !ok {
		return nil
	}
	return append(append(make([]any, 0, 6+len(more)), c.key, c.plan.text, c.cost), more...) // and room for three
}

// charge decides where the row is locked. The windows of calendars, if there are any, are the
// argument at. It is sure unless the statement had no room for what the
// Go has room for: then it has changed nothing.
func (c *call) charge(res *backend.Result, text string, args []any, at int) (decided int, sure bool, err error) {
	var few [inline]algorithm.Slot
	a := answer{slots: few[:0]}
	a.now = c.there()
	for tried := 0; tried == 0 || a.outside; tried++ {
		if len(c.plan.calendars) > 0 {
			args[at] = c.plan.windowsAt(a.now)
		}
		err = c.query(c.ctx, text, args, func(rows pgx.Rows) error { return a.readReply(rows, c.plan) })
		if err == nil && a.outside {
			err = c.learn(a.now, tried)
		}
		if err != nil {
			return 0, false, err
		}
	}
	if a.charged {
		return algorithm.Admitted(a.slots, c.plan.rules, a.now, res), true, nil
	}
	decided = a.judge(c.plan, c.cost, res)
	return decided, c.cost == 0 || !res.Allowed, nil
}
