// Graphql charges a query for what it may fetch, before anything is fetched: one unit for each
// field and, where a field returns a list, so many times that as the query asks for. A number of
// requests would be no limit: one query may ask for a thousand books, and for the author of each.
// In _example, run
//
//	go run ./graphql
//
// and try what it prints.
package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/vektah/gqlparser/v2"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"
	"github.com/vektah/gqlparser/v2/parser"
	"github.com/vektah/gqlparser/v2/validator"

	"github.com/ginlimit/ginlimit"
)

var schema = gqlparser.MustLoadSchema(&ast.Source{Name: "schema.graphql", Input: `
	type Query { books(first: Int! = 10): [Book!]! }
	type Book { title: String! author: Author! }
	type Author { name: String! books(first: Int! = 10): [Book!]! }`})

const (
	maxBody   = 64 << 10
	maxTokens = 1000    // of a query: what a parser does not read costs nothing
	maxCost   = 1 << 30 // of a query; no limit has room for more
)

func newRouter(points ginlimit.Limit) (*gin.Engine, error) {
	limiter, err := ginlimit.NewLimiter(points.Counting("points"), ginlimit.ByIP(), ginlimit.WithName("graphql"),
		ginlimit.WithCost(func(c *gin.Context) int64 { return c.GetInt64("cost") }))
	if err != nil {
		return nil, err
	}
	r := gin.New()
	r.SetTrustedProxies(nil)
	r.Use(gin.Recovery())
	r.POST("/graphql", parse, limiter.Handle, execute)
	return r, nil
}

// parse reads the query, before it is charged, and sets what it costs.
func parse(c *gin.Context) {
	var q struct {
		Query         string         `json:"query"`
		OperationName string         `json:"operationName"`
		Variables     map[string]any `json:"variables"`
	}
	body := json.NewDecoder(http.MaxBytesReader(c.Writer, c.Request.Body, maxBody))
	body.UseNumber()
	if err := body.Decode(&q); err != nil {
		refuse(c, err)
		return
	}
	document, err := parser.ParseQueryWithTokenLimit(&ast.Source{Input: q.Query}, maxTokens)
	if err != nil {
		refuse(c, err)
		return
	}
	if errs := validator.ValidateWithRules(schema, document, nil); len(errs) > 0 {
		refuse(c, errs)
		return
	}
	operation := document.Operations.ForName(q.OperationName)
	if operation == nil {
		refuse(c, gqlerror.Errorf("there is no such operation"))
		return
	}
	variables, err := validator.VariableValues(schema, operation, q.Variables)
	if err != nil {
		refuse(c, err)
		return
	}
	count := counter{variables, map[*ast.FragmentDefinition]int64{}}
	c.Set("cost", count.cost(operation.SelectionSet))
}

// counter counts what a query costs. A fragment is counted once, and added wherever it is used: of
// fragments that use one another twice, a short query could have millions.
type counter struct {
	variables map[string]any
	fragments map[*ast.FragmentDefinition]int64
}

func (c counter) cost(set ast.SelectionSet) (sum int64) {
	for _, selection := range set {
		switch s := selection.(type) {
		case *ast.Field:
			sum += 1 + c.times(s)*c.cost(s.SelectionSet)
		case *ast.InlineFragment:
			sum += c.cost(s.SelectionSet)
		case *ast.FragmentSpread:
			cost, known := c.fragments[s.Definition]
			if !known {
				cost = c.cost(s.Definition.SelectionSet)
				c.fragments[s.Definition] = cost
			}
			sum += cost
		}
		sum = min(sum, maxCost)
	}
	return sum
}

// times returns how many of a field the query asks for.
func (c counter) times(f *ast.Field) int64 {
	first := f.ArgumentMap(c.variables)["first"]
	if first == nil {
		return 1
	}
	// A variable may be text, "700", which servers take for a number.
	n, err := strconv.ParseInt(fmt.Sprint(first), 10, 64)
	if err != nil {
		return maxCost
	}
	return min(max(0, n), maxCost) // a negative number must not make other fields cheaper
}

// execute stands for your server of GraphQL. It says what the query cost, so that clients learn it.
func execute(c *gin.Context) {
	c.JSON(http.StatusOK, gin.H{"data": nil, "extensions": gin.H{"cost": c.GetInt64("cost")}})
}

// refuse answers a query that cannot be executed. It costs nothing: a limit of requests, in front,
// is for clients that send many of them.
func refuse(c *gin.Context, err error) {
	c.AbortWithStatusJSON(http.StatusBadRequest, gin.H{"errors": []gin.H{{"message": err.Error()}}})
}

const usage = `Listening on %[1]s. There are 1000 points a minute for each address:

    curl -i http://%[1]s/graphql -d '{"query": "{ books(first: 100) { title author { name } } }"}'
    curl -i http://%[1]s/graphql -d '{"query": "{ books(first: 50) { author { books(first: 50) { title } } } }"}'

`

func main() {
	gin.SetMode(gin.ReleaseMode)
	r, err := newRouter(ginlimit.PerMinute(1000))
	if err != nil {
		log.Fatal(err)
	}
	srv := &http.Server{
		Addr:              cmp.Or(os.Getenv("ADDR"), "127.0.0.1:8080"),
		Handler:           r,
		ReadHeaderTimeout: 5 * time.Second,
	}
	fmt.Printf(usage, srv.Addr)
	log.Fatal(srv.ListenAndServe())
}
