package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/gin-gonic/gin"
	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/ginlimit/ginlimit"
)

// table is what a file of limits says. It does not change: another file is another table.
type table struct {
	other  ginlimit.Tier            // of routes that the file does not name
	routes map[string]ginlimit.Tier // by the keys of KeyOfRoute
}

// of returns the limits of a route.
func (t *table) of(method, path string) ginlimit.Tier {
	if tier, ok := t.routes[ginlimit.KeyOfRoute(method, path)]; ok {
		return tier
	}
	return t.other
}

// parse reads a file of limits for an engine that has these routes. All of the file is right, or
// the error says in which line what is wrong, and what to write there.
func parse(text []byte, known gin.RoutesInfo) (*table, error) {
	entries, err := entriesOf(text)
	if err != nil {
		return nil, err
	}
	t := &table{routes: map[string]ginlimit.Tier{}}
	lines := map[string]int{} // where each entry stands
	for _, e := range entries {
		name, ok := textOf(e.name)
		if !ok {
			return nil, failed(e.name, `this is no plain text; write lines such as "GET /search: 20/m"`)
		}
		key := name
		if name != other {
			if key, err = keyOf(name, known); err != nil {
				return nil, failed(e.name, "%v", err)
			}
		}
		if line := lines[key]; line > 0 {
			return nil, failed(e.name, "%q stands in line %d already; keep one of the two", name, line)
		}
		lines[key] = lineOf(e.name)
		tier := ginlimit.Tier{Name: name}
		if tier.Limits, err = limitsOf(e.limits); err != nil {
			return nil, err
		}
		if name == other {
			t.other = tier
		} else {
			t.routes[key] = tier
		}
	}
	if lines[other] == 0 {
		return nil, errors.New(`there is no default; add a line such as "default: 60/m"`)
	}
	return t, nil
}

// other is the name of the limits of routes that are not named.
const other = "default"

type entry struct {
	name   ast.MapKeyNode
	limits ast.Node
}

// entriesOf returns the entries of a file, in its order.
func entriesOf(text []byte) ([]entry, error) {
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	file, err := parser.ParseBytes(text, 0, parser.AllowDuplicateMapKey()) // parse finds those
	if e := yaml.Error(nil); errors.As(err, &e) {
		return nil, fmt.Errorf(`line %d: %s; write lines such as "GET /search: 20/m"`, e.GetToken().Position.Line, e.GetMessage())
	} else if err != nil {
		return nil, err
	}
	var root ast.Node
	for _, document := range file.Docs {
		switch {
		case document.Body == nil || document.Body.Type() == ast.CommentType:
		case root != nil:
			return nil, failed(document.Body, `a second document begins here; take out the line "---" before it`)
		default:
			root = document.Body
		}
	}
	if root == nil {
		return nil, errors.New(`it is empty; add a line such as "default: 60/m"`)
	}
	list, ok := root.(*ast.MappingNode)
	if !ok {
		return nil, failed(root, `it is no list of routes; write lines such as "GET /search: 20/m"`)
	}
	var all []entry
	for _, pair := range list.Values {
		all = append(all, entry{pair.Key, pair.Value})
	}
	return all, nil
}

// textOf returns what a key or a value says. It reports false if that is no plain text.
func textOf(n ast.Node) (string, bool) {
	if text, ok := n.(*ast.StringNode); ok {
		return text.Value, true
	}
	switch n.Type() {
	case ast.IntegerType, ast.FloatType, ast.BoolType: // as in "GET /search: 100"
		return n.GetToken().Value, true
	}
	return "", false
}

// keyOf returns the key of a route that the engine has.
func keyOf(name string, known gin.RoutesInfo) (string, error) {
	method, path, _ := strings.Cut(name, " ")
	if method == http.MethodHead {
		return "", fmt.Errorf("HEAD counts as GET; write %q", "GET "+path)
	}
	var names []string
	for _, route := range known {
		if route.Method == method && route.Path == path {
			return ginlimit.KeyOfRoute(method, path), nil
		}
		names = append(names, route.Method+" "+route.Path)
	}
	slices.Sort(names)
	return "", fmt.Errorf("there is no route %q; write default, %s", name, strings.Join(names, ", "))
}

// limitsOf reads one limit, or a list of them, all of which must allow a request.
func limitsOf(n ast.Node) ([]ginlimit.Limit, error) {
	items := []ast.Node{n}
	if list, ok := n.(*ast.SequenceNode); ok {
		items = list.Values
	}
	var limits []ginlimit.Limit
	for _, item := range items {
		text, ok := textOf(item)
		if !ok {
			return nil, failed(item, `there is no limit here; write one such as 100/m, or "unlimited"`)
		}
		var l ginlimit.Limit
		if err := l.UnmarshalText([]byte(text)); err != nil {
			return nil, failed(item, "%s", plain(err))
		}
		limits = append(limits, l)
	}
	if len(limits) == 0 {
		return nil, failed(n, `the list is empty; write a limit such as 100/m, or "unlimited"`)
	}
	// A limiter that is made and thrown away says what is wrong with the list as a whole.
	if _, err := ginlimit.NewLimiter(limits[0], ginlimit.Global(), ginlimit.WithLimits(limits[1:]...)); err != nil {
		return nil, failed(n, "%s", plain(err))
	}
	return limits, nil
}

func lineOf(n ast.Node) int { return n.GetToken().Position.Line }

func failed(n ast.Node, format string, args ...any) error {
	return fmt.Errorf("line %d: %s", lineOf(n), fmt.Sprintf(format, args...))
}

// plain returns what an error of the library says, without its name: the line stands before it.
func plain(err error) string { return strings.TrimPrefix(err.Error(), "ginlimit: ") }
