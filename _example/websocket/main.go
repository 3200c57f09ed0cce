// Websocket limits the messages of a WebSocket, of each user over all of its connections. A message
// too many is answered with a warning. A user that does not heed the warnings is banned: its
// connection is closed, and until the ban ends it cannot open another. In _example, run
//
//	go run ./websocket
//
// and try what it prints.
package main

import (
	"cmp"
	"fmt"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/coder/websocket"
	"github.com/gin-gonic/gin"

	"github.com/ginlimit/ginlimit"
)

// newRouter returns an engine with an echo service at /echo. Each user may send as many messages as
// limit says; one that is refused more often than breaches allows is banned.
func newRouter(limit, breaches ginlimit.Limit) (*gin.Engine, error) {
	messages, err := ginlimit.NewLimiter(limit, ginlimit.ByUserID("user"), ginlimit.WithName("messages"),
		ginlimit.WithBan(breaches, time.Minute, 24*time.Hour))
	if err != nil {
		return nil, err
	}
	r := gin.New()
	r.SetTrustedProxies(nil)
	r.Use(gin.Recovery(), authenticate)
	r.GET("/echo", messages.Handle, echo(messages)) // Handle refuses the handshake of a banned user
	return r, nil
}

// authenticate stands for what knows users by a cookie.
func authenticate(c *gin.Context) { c.Set("user", c.Query("user")) }

// echo charges each message, and sends back those that pass.
func echo(messages *ginlimit.Limiter) gin.HandlerFunc {
	return func(c *gin.Context) {
		conn, err := websocket.Accept(c.Writer, c.Request, nil)
		if err != nil {
			return // Accept has answered
		}
		defer func() { _ = conn.CloseNow() }()
		ctx := c.Request.Context()
		for {
			kind, message, err := conn.Read(ctx)
			if err != nil {
				return
			}
			switch d := messages.Check(c); {
			case d.Banned:
				_ = conn.Close(websocket.StatusPolicyViolation, "too many messages")
				return
			case !d.Passes():
				kind, message = websocket.MessageText, []byte("slow down")
			}
			if conn.Write(ctx, kind, message) != nil {
				return
			}
		}
	}
}

const usage = `Listening on %[1]s. Five messages a second; three warnings a minute, and the next is a ban.
In the console of a browser on http://%[1]s/:

    s = new WebSocket("ws://%[1]s/echo?user=ann")
    s.onmessage = e => console.log(e.data)
    s.onclose = e => console.log(e.code, e.reason)
    for (let i = 0; i < 12; i++) s.send(i) // once it is open

`

func main() {
	gin.SetMode(gin.ReleaseMode)
	r, err := newRouter(ginlimit.PerSecond(5), ginlimit.PerMinute(3))
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
