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
		if c.clock != nil {
			args = append(args, c.clock())
		}
		decided, sure, err = c.charge(res, c.sql.of(shape{quickTake, c.plan.shape, c.clock != nil}), args)
	}
	if !sure && err == nil {
		decided, sure, err = c.charge(res, c.sql.function, []any{c.key, c.plan.text, c.cost, c.now()})
		if !sure && err == nil {
			err = fmt.Errorf("the database refused what it has room for: %+v", *res)
		}
	}
	if err == nil && c.cost > 0 {
		c.refused.note(mark, res)
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
	decided = algorithm.Judge(a.slots, c.plan.rules, a.now, c.cost, res)
	return decided, c.cost > 0 && (res.Allowed || moved), nil
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
	return append(append(make([]any, 0, 5+len(more)), c.key, c.plan.text, c.cost), more...) // and room for two
}

// charge decides where the row is locked. It is sure unless the statement had no room for what the
// Go has room for: then it has changed nothing.
func (c *call) charge(res *backend.Result, text string, args []any) (decided int, sure bool, err error) {
	var few [inline]algorithm.Slot
	a := answer{slots: few[:0]}
	err = c.query(c.ctx, text, args, func(rows pgx.Rows) error { return a.readReply(rows, c.plan) })
	if err != nil {
		return 0, false, err
	}
	if a.charged {
		return algorithm.Admitted(a.slots, c.plan.rules, a.now, res), true, nil
	}
	decided = algorithm.Judge(a.slots, c.plan.rules, a.now, c.cost, res)
	return decided, c.cost == 0 || !res.Allowed, nil
}
