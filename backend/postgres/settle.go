package postgres

import (
	"github.com/jackc/pgx/v5"

	"github.com/ginlimit/ginlimit/backend"
)

// settle corrects what was charged at an instant. As for a take, the statement of the shape knows
// what nearly every key is, and leaves others to the function.
func (c *call) settle(charged, cost, actual int64) error {
	const most = 2 * backend.MaxCount // what can be in use
	less, more := min(most, max(0, cost-actual)), min(most, max(0, actual-cost))
	text, args := c.sql.settle, []any{c.key, c.plan.text, charged, less, more, c.now()}
	c.cost = less + more
	if quick := c.quickArgs(); quick != nil {
		sh := shape{settleMore, c.plan.shape, c.clock != nil}
		if args = quick; less > 0 {
			sh.template = settleLess
			args = append(args, charged)
		}
		if c.clock != nil {
			args = append(args, c.clock())
		}
		text = c.sql.of(sh)
	}
	var changed int64
	err := c.query(c.ctx, text, args, func(rows pgx.Rows) error { return rows.Scan(&changed) })
	if err == nil && changed < 0 {
		err = ErrForeign
	}
	return err
}
