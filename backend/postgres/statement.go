package postgres

import (
	"fmt"
	"strings"
	"sync"
)

// clockSQL is the database's clock, and startSQL its clock at the start of the statement, in whole microseconds: a
// double holds them exactly enough until the year 2255.
const (
	clockSQL = "(date_part('epoch', clock_timestamp()) * 1000000)::bigint"
	startSQL = "(date_part('epoch', statement_timestamp()) * 1000000)::bigint"
)

// statements are the texts that a Backend sends.
type statements struct {
	names
	look, function, refund, reset, sweep string

	mu    sync.RWMutex
	quick map[shape]string
}

// shape is what tells one statement of statements.take from another: a letter for each limit, see shapeOf, and whether
// the last argument is the clock of a test.
type shape struct {
	letters string
	clock   bool
}

func newStatements(n names) *statements {
	return &statements{
		names: n, quick: map[shape]string{},
		look: "SELECT t.rules, t.state, coalesce($2::bigint, " + clockSQL + ")" +
			" FROM (SELECT) one LEFT JOIN " + n.table + " t ON t.key = $1",
		function: "SELECT " + n.function("take") + "($1::text, $2::text, $3::bigint, $4::bigint, false)",
		refund:   "SELECT " + n.function("refund") + "($1::text, $2::bigint, $3::bigint[], $4::bigint, $5::bigint)",
		reset:    "DELETE FROM " + n.table + " WHERE key = $1",
		// The rows are looked at again once they are locked; those that somebody has locked are in use.
		sweep: "WITH d AS (DELETE FROM " + n.table + " WHERE ctid = ANY (ARRAY(SELECT t.ctid FROM " + n.table + " t" +
			" WHERE t.ctid >= format('(%s,0)', $1::bigint)::tid AND t.ctid < format('(%s,0)', $2::bigint)::tid" +
			" AND t.expires <= (SELECT coalesce($3::bigint, " + clockSQL + ")) FOR UPDATE SKIP LOCKED)) RETURNING 1)" +
			" SELECT count(*), pg_relation_size(" + literal(n.table) + "::regclass) / current_setting('block_size')::bigint FROM d",
	}
}

// take returns the statement that decides for a shape.
//
// Its first part is for what nearly every decision is: the key is new, or it was written under the same rules and has
// room. It is one INSERT … ON CONFLICT DO UPDATE, as a counter would be, with the clock read after the row was locked:
// WHERE may see an earlier time than SET, and whatever has room has room later too. What it leaves alone, a refusal,
// another rule, a state that is not ours, the function looks at, which sees the row as it is then, and locked.
//
// $1 is the key, $2 the rules, $3 the cost, and then come those of plan.args, and the clock of a test.
func (s *statements) take(sh shape) string {
	s.mu.RLock()
	text, ok := s.quick[sh]
	s.mu.RUnlock()
	if !ok {
		text = s.newTake(sh)
		s.mu.Lock()
		s.quick[sh] = text
		s.mu.Unlock()
	}
	return text
}

func (s *statements) newTake(sh shape) string {
	var first, next, fits, over, firstOver []string
	arg := 3
	param := func() string {
		arg++
		return fmt.Sprintf("$%d::bigint", arg)
	}
	clockSQL, startSQL, clock := clockSQL, startSQL, "NULL"
	if sh.clock {
		clock = fmt.Sprintf("$%d::bigint", 4+2*len(sh.letters)+2*strings.Count(sh.letters, "t"))
		clockSQL, startSQL = clock, clock
	}
	for i := range sh.letters {
		t, a, b := fmt.Sprintf("s.state[%d]", 3*i+2), fmt.Sprintf("s.state[%d]", 3*i+3), fmt.Sprintf("s.state[%d]", 3*i+4)
		switch sh.letters[i] {
		case 'w':
			cost, full := param(), param()
			time := "greatest(" + t + ", now) + " + cost
			first = append(first, startSQL+" + "+cost+", 0, 0")
			firstOver = append(firstOver, startSQL+" + "+cost)
			next = append(next, time+", 0, 0")
			over = append(over, time)
			fits = append(fits, a+" = 0 AND greatest("+t+" - "+clockSQL+", 0) + "+cost+" <= "+full)
		case 't':
			cost, num, full, count := param(), param(), param(), param()
			frac := "(CASE WHEN " + t + " < now THEN 0 ELSE " + a + " END + " + num + ")"
			time := "greatest(" + t + ", now) + " + cost + " + " + frac + " / " + count
			first = append(first, startSQL+" + "+cost+", "+num+", 0")
			firstOver = append(firstOver, startSQL+" + "+cost+" + 1")
			next = append(next, time+", "+frac+" % "+count+", 0")
			over = append(over, time+" + 1")
			fits = append(fits, a+" BETWEEN 0 AND "+count+" - 1 AND greatest("+t+" - "+clockSQL+", 0) + "+cost+" + 1 < "+full)
		case 'f':
			count, period := param(), param()
			first = append(first, startSQL+", $3::bigint, 0")
			firstOver = append(firstOver, startSQL+" + "+period)
			gone := "now - " + t + " >= " + period
			next = append(next, "CASE WHEN "+gone+" THEN now ELSE least("+t+", now) END, "+
				"CASE WHEN "+gone+" THEN 0 ELSE "+a+" END + $3::bigint, 0")
			over = append(over, "CASE WHEN "+gone+" THEN now ELSE least("+t+", now) END + "+period)
			fits = append(fits, a+" BETWEEN 0 AND "+count+" AND ("+a+" + $3::bigint <= "+count+" OR "+clockSQL+" - "+t+" >= "+period+")")
		case 's':
			count, period := param(), param()
			first = append(first, startSQL+", $3::bigint, 0")
			firstOver = append(firstOver, startSQL+" + 2 * "+period)
			gone := "now - " + t + " >= " + period
			both := "(now - " + t + " >= 2 * " + period + " OR " + gone + " AND " + a + " = 0)"
			time := "CASE WHEN " + both + " THEN now WHEN " + gone + " THEN " + t + " + " + period + " ELSE least(" + t + ", now) END"
			next = append(next, time+", CASE WHEN "+gone+" THEN 0 ELSE "+a+" END + $3::bigint, "+
				"CASE WHEN "+both+" THEN 0 WHEN "+gone+" THEN "+a+" ELSE "+b+" END")
			over = append(over, time+" + 2 * "+period)
			fits = append(fits, a+" >= 0 AND "+b+" >= 0 AND (SELECT "+b+" <= "+count+" AND CASE WHEN "+both+" THEN true"+
				" WHEN "+gone+" THEN "+a+" * (2 * "+period+" - now + "+t+") <= ("+count+" - $3::bigint) * "+period+
				" ELSE "+b+" * ("+period+" - greatest(now - "+t+", 0)) <= ("+count+" - "+a+" - $3::bigint) * "+period+
				" END FROM (SELECT "+clockSQL+" AS now) c)")
		}
	}
	greatest := func(times []string) string {
		if len(times) == 1 {
			return times[0]
		}
		return "greatest(" + strings.Join(times, ", ") + ")"
	}
	return "WITH w AS (INSERT INTO " + s.table + " AS s (key, rules, expires, state)" +
		" VALUES ($1, $2, " + greatest(firstOver) + ", ARRAY[" + startSQL + ", " + strings.Join(first, ", ") + "])" +
		" ON CONFLICT (key) DO UPDATE SET (expires, state) = (SELECT " + greatest(over) + ", ARRAY[now, " +
		strings.Join(next, ", ") + "] FROM (SELECT " + clockSQL + " AS now) c)" +
		" WHERE s.rules = $2 AND " + strings.Join(fits, " AND ") + " RETURNING s.state)" +
		" SELECT coalesce((SELECT state FROM w), " + s.names.function("take") + "($1, $2, $3::bigint, " + clock + ", true))"
}
