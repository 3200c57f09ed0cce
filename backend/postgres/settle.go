package postgres

import (
	"github.com/jackc/pgx/v5"

	"github.com/ginlimit/ginlimit/backend"
)

// settle corrects what was charged at an instant, and gives back what is held in flight. As for a
// take, the statement of the shape knows what nearly every key is, and leaves others to the
// function.
func (c *call) settle(charged, cost, actual, held int64) error {
	const most = 2 * backend.MaxCount // what can be in use
	less, more := min(most, max(0, cost-actual)), min(most, max(0, actual-cost))
	dated := more > 0 && c.plan.dated > 0
	at := 6 // of the windows of calendars
	text, args := c.sql.settle, []any{c.key, c.plan.text, charged, less, more, min(most, held), []int64(nil), c.now()}
	c.cost = less + more
	if quick := c.quickArgs(); quick != nil {
		sh := shape{settleMore, c.plan.shape, false, dated, c.clock != nil}
		if args = quick; less > 0 {
			sh.template = settleLess
			args = append(args, charged)
		}
		if dated {
			at = len(args)
			args = append(args, nil)
		}
		if c.clock != nil {
			args = append(args, c.clock())
		}
		text = c.sql.of(sh)
	}
	changed := c.there()
	for tried := 0; ; tried++ {
		if dated {
			args[at] = c.plan.windowsAt(changed)[:3*c.plan.dated]
		}
		err := c.query(c.ctx, text, args, func(rows pgx.Rows) error { return rows.Scan(&changed) })
		if err == nil && changed < 0 {
			err = ErrForeign
		}
		if err != nil || changed <= 1 {
			return err
		}
		if err := c.learn(changed, tried); err != nil {
			return err
		}
	}
}
