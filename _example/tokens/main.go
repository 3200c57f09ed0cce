// Tokens stands between callers and a language model. Each API key may send so many requests, and
// use so many tokens, a minute: one decision about both, charged to both or to none. How many
// tokens a request takes is known when the model has answered. So an estimate is charged first, and
// settled for what the model says that it used. In _example, run
//
//	go run ./tokens
//
// and try what it prints.
package main

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/memory"
)

const (
	requestsPerMinute = 10
	tokensPerMinute   = 1000
	maxBody           = 1 << 20
)

// chat is a request for the model.
type chat struct {
	Prompt    string `json:"prompt"`
	MaxTokens int64  `json:"max_tokens"`
	body      []byte
}

// event is what the model streams: words, and at the end what the answer took.
type event struct {
	Text  string `json:"text,omitempty"`
	Usage *struct {
		TotalTokens int64 `json:"total_tokens"`
	} `json:"usage,omitempty"`
}

const (
	chatKey = "chat"
	usedKey = "tokens used"
)

// newRouter returns an engine that passes POST /chat on to the model at a URL. It keeps its counts
// on b: Redis, where several instances are to count together.
func newRouter(model string, b backend.Backend) (*gin.Engine, error) {
	caller := ginlimit.ByAPIKey("Authorization")
	requests, err := ginlimit.NewLimiter(ginlimit.PerMinute(requestsPerMinute), caller,
		ginlimit.WithName("requests"), ginlimit.WithBackend(b))
	if err != nil {
		return nil, err
	}
	tokens, err := ginlimit.NewLimiter(ginlimit.PerMinute(tokensPerMinute), caller,
		ginlimit.WithName("tokens"), ginlimit.WithBackend(b),
		ginlimit.WithCost(estimate), ginlimit.WithSettle(used))
	if err != nil {
		return nil, err
	}
	r := gin.New()
	r.SetTrustedProxies(nil)
	r.Use(gin.Recovery())
	r.POST("/chat", readChat, ginlimit.All(requests, tokens), stream(model))
	r.GET("/usage", ginlimit.UsageHandler(requests, tokens))
	return r, nil
}

// readChat reads the request, before anything is charged for it.
func readChat(c *gin.Context) {
	body, err := io.ReadAll(http.MaxBytesReader(c.Writer, c.Request.Body, maxBody))
	q := chat{body: body}
	if err == nil {
		err = json.Unmarshal(body, &q)
	}
	if err != nil || q.MaxTokens < 1 {
		c.AbortWithStatusJSON(http.StatusBadRequest, gin.H{"error": "send {\"prompt\": …, \"max_tokens\": …}"})
		return
	}
	c.Set(chatKey, q)
}

// estimate returns what a request may take at most: a token has about four letters.
func estimate(c *gin.Context) int64 {
	q := c.MustGet(chatKey).(chat)
	return int64(len(q.Prompt))/4 + q.MaxTokens
}

// used returns what the model said that the request took. It is asked after the stream has ended. A
// request that the model failed costs nothing; one whose end nobody saw costs what was estimated.
func used(c *gin.Context) int64 {
	if n, ok := c.Get(usedKey); ok {
		return n.(int64)
	}
	if c.Writer.Status() >= http.StatusInternalServerError {
		return 0
	}
	return -1
}

// stream passes the request on, and the events that come back, one by one.
func stream(model string) gin.HandlerFunc {
	return func(c *gin.Context) {
		q := c.MustGet(chatKey).(chat)
		// Not the request's context: what a caller does not wait for has to be paid for all the
		// same.
		answer, err := http.Post(model, "application/json", bytes.NewReader(q.body))
		if err != nil {
			c.JSON(http.StatusBadGateway, gin.H{"error": "the model cannot be reached"})
			return
		}
		defer func() { _ = answer.Body.Close() }()
		if answer.StatusCode != http.StatusOK {
			c.JSON(http.StatusBadGateway, gin.H{"error": "the model failed"})
			return
		}
		c.Header("Content-Type", "text/event-stream")
		for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
			_, _ = fmt.Fprintln(c.Writer, lines.Text()) // the caller may be gone: what it took is yet to come
			c.Writer.Flush()
			data, ok := strings.CutPrefix(lines.Text(), "data: ")
			var e event
			if ok && json.Unmarshal([]byte(data), &e) == nil && e.Usage != nil {
				c.Set(usedKey, e.Usage.TotalTokens)
			}
		}
	}
}

// fakeModel stands for the model: it repeats the prompt, word by word, and takes two tokens a word.
func fakeModel(w http.ResponseWriter, q *http.Request) {
	var asked chat
	if err := json.NewDecoder(q.Body).Decode(&asked); err != nil || asked.Prompt == "fail" {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	words := strings.Fields(asked.Prompt)
	for _, word := range words {
		send(w, event{Text: word})
	}
	end := event{}
	end.Usage = &struct {
		TotalTokens int64 `json:"total_tokens"`
	}{2 * int64(len(words))}
	send(w, end)
}

func send(w http.ResponseWriter, e event) {
	data, _ := json.Marshal(e)
	_, _ = fmt.Fprintf(w, "data: %s\n\n", data)
	w.(http.Flusher).Flush()
}

const usage = `Listening on %[1]s. Each key has %[2]d requests and %[3]d tokens a minute:

    curl -i http://%[1]s/chat -H 'Authorization: Bearer ann' -d '{"prompt": "say it again", "max_tokens": 500}'
    curl http://%[1]s/usage -H 'Authorization: Bearer ann'

`

func main() {
	gin.SetMode(gin.ReleaseMode)
	model := httptest.NewServer(http.HandlerFunc(fakeModel))
	r, err := newRouter(model.URL, memory.New())
	if err != nil {
		log.Fatal(err)
	}
	srv := &http.Server{
		Addr:              cmp.Or(os.Getenv("ADDR"), "127.0.0.1:8080"),
		Handler:           r,
		ReadHeaderTimeout: 5 * time.Second,
	}
	fmt.Printf(usage, srv.Addr, requestsPerMinute, tokensPerMinute)
	log.Fatal(srv.ListenAndServe())
}
