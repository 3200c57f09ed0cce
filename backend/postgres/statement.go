package postgres

import (
	_ "embed"
	"fmt"
	"strings"
	"sync"
	"text/template"
)

var (
	//go:embed sql/statements.sql
	statementsSQL string
	//go:embed sql/schema.sql
	schemaSQL string

	templates = template.Must(template.New("").Option("missingkey=error").Parse(statementsSQL + schemaSQL))
)

// render returns the text of a template. It panics if the template does not fit the data, which the
// first test shows.
func render(name string, data any) string {
	var text strings.Builder
	if err := templates.ExecuteTemplate(&text, name, data); err != nil {
		panic(fmt.Errorf("ginlimit: postgres: %w", err))
	}
	return text.String()
}

// statements are the texts that a Backend sends.
type statements struct {
	names
	look, function, takeAll, settle, renew, ban, reset, sweep string

	mu    sync.RWMutex
	quick map[shape]string
}

// shape is what tells one statement of statements.of from another: the template, a letter for each
// limit, see shapeOf, and whether the last arguments are a ban, the windows of calendars, and the
// clock of a test.
type shape struct {
	template, letters  string
	bans, dated, clock bool
}

func newStatements(n names) *statements {
	words := n.words()
	return &statements{
		names: n, quick: map[shape]string{},
		look: render("look", words), function: render("function", words), takeAll: render("take all", words),
		settle: render("settle", words), renew: render("renew", words), ban: render("ban", words), reset: render("reset", words), sweep: render("sweep", words),
	}
}

// of returns the statement of a shape.
func (s *statements) of(sh shape) string {
	s.mu.RLock()
	text, ok := s.quick[sh]
	s.mu.RUnlock()
	if !ok {
		text = s.newQuick(sh)
		s.mu.Lock()
		s.quick[sh] = text
		s.mu.Unlock()
	}
	return text
}

// The templates of statements that a shape has.
const (
	quickTake  = "take"
	settleMore = "settle for more"
	settleLess = "settle for less"
)

// clock is how a statement knows the time: when it began, and now. Argument is that of the
// function.
type clock struct{ Start, Clock, Argument string }

// quickLimit is a limit as the template of a shape sees it: the numbers of its slot, and its
// arguments.
type quickLimit struct {
	clock
	Kind, T, A, B, Cost, Part, Full, Count, Period, Charged string
	From, Until                                             string // of the window that now is in
}

func (s *statements) newQuick(sh shape) string {
	const fixed = 3 // arguments before those of the limits
	args := fixed
	param := func() string {
		args++
		return fmt.Sprintf("$%d::bigint", args)
	}
	limits := make([]quickLimit, len(sh.letters))
	for i := range limits {
		l := &limits[i]
		l.Kind = sh.letters[i : i+1]
		l.T, l.A, l.B = fmt.Sprintf("s.state[%d]", 3*i+2), fmt.Sprintf("s.state[%d]", 3*i+3), fmt.Sprintf("s.state[%d]", 3*i+4)
		switch l.Kind { // as plan.args has them
		case "w":
			l.Cost, l.Full = param(), param()
		case "t":
			l.Cost, l.Part, l.Full, l.Count = param(), param(), param(), param()
		case "f", "s":
			l.Count, l.Period = param(), param()
		case "c":
			l.Count = param()
		}
	}
	var charged string
	if sh.template == settleLess {
		charged = param()
	}
	ban, calendars := "NULL", "NULL"
	if sh.bans {
		ban = param() + "[]"
	}
	if sh.dated {
		calendars = param() + "[]"
		at := 1
		for i := range limits {
			if l := &limits[i]; l.Kind == "c" {
				l.From, l.Until = fmt.Sprintf("(%s)[%d]", calendars, at), fmt.Sprintf("(%s)[%d]", calendars, at+1)
				at += 3
			}
		}
	}
	now := clock{render("start", nil), render("clock", nil), "NULL"}
	if sh.clock {
		argument := param()
		now = clock{argument, argument, argument}
	}
	for i := range limits {
		limits[i].clock, limits[i].Charged = now, charged
	}
	return render(sh.template, struct {
		clock
		Table, Take, Settle, Charged, Ban, Calendars string
		Dated                                        bool // a new row has a calendar's window
		Limits                                       []quickLimit
	}{now, s.table, s.names.function("take"), s.names.function("settle"), charged, ban, calendars, strings.Contains(sh.letters, "c"), limits})
}
