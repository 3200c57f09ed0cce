// Login counts only failures: who knows the password is never limited by having logged in often.
// There are two limits, because there are two attacks: by address against one client that tries
// many accounts, and by account against many clients that try one. In _example, run
//
//	go run ./login
//
// and try what it prints.
package main

import (
	"cmp"
	"crypto/subtle"
	"fmt"
	"log"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/ginlimit/ginlimit"
)

// Failures that may come at once; the bucket refills evenly, with one more try every 45 s or 3 min.
var (
	perAddress = ginlimit.Per(20, 15*time.Minute) // generous, because an office shares an address
	perAccount = ginlimit.Per(5, 15*time.Minute)
)

// users are the accounts, by name. A real service keeps a slow, salted hash of each password.
type users map[string]string

func newRouter(u users) *gin.Engine {
	r := gin.New()
	r.SetTrustedProxies(nil)
	r.Use(gin.Recovery())
	r.POST("/login",
		limitFailures("login-address", perAddress, ginlimit.ByIP()),
		limitFailures("login-account", perAccount, byAccount),
		u.login)
	return r
}

// limitFailures charges every attempt and gives the charge back if it succeeds. The charge is held
// meanwhile, so that a volley of guesses at the same moment gets no further than one after the
// other.
//
// FailClosed matters once the counters are in a shared store: while that is down, nobody may guess
// freely.
func limitFailures(name string, limit ginlimit.Limit, key ginlimit.KeyFunc) gin.HandlerFunc {
	return ginlimit.New(limit, key,
		ginlimit.WithName(name),
		ginlimit.WithRefundIf(func(c *gin.Context) bool { return c.Writer.Status() < http.StatusBadRequest }),
		ginlimit.WithFailurePolicy(ginlimit.FailClosed))
}

// byAccount keys by the account that the request wants to log in to, whether there is such an
// account or not. All spellings of a name that log in to one account have to be one key. No name is
// no key: the answer is 400.
func byAccount(c *gin.Context) (string, error) {
	name := accountOf(c)
	if name == "" {
		return "", ginlimit.ErrNoKey
	}
	return "account:" + name, nil
}

func accountOf(c *gin.Context) string {
	return strings.ToLower(strings.TrimSpace(c.PostForm("user")))
}

func (u users) login(c *gin.Context) {
	password, known := u[accountOf(c)]
	same := subtle.ConstantTimeCompare([]byte(password), []byte(c.PostForm("password"))) == 1
	if !known || !same {
		c.String(http.StatusUnauthorized, "wrong name or password\n") // which of them is nobody's business
		return
	}
	c.String(http.StatusOK, "welcome\n")
}

const usage = `Listening on %[1]s. Log in as often as you like:

    curl -i -d user=alice -d password=wonderland http://%[1]s/login

Then guess. After five failures not even the right password helps, until Retry-After is over:

    for i in $(seq 6); do curl -s -o /dev/null -w '%%{http_code}\n' -d user=alice -d password=$i http://%[1]s/login; done
    curl -i -d user=alice -d password=wonderland http://%[1]s/login

`

func main() {
	gin.SetMode(gin.ReleaseMode)
	srv := &http.Server{
		Addr:              cmp.Or(os.Getenv("ADDR"), "127.0.0.1:8080"),
		Handler:           newRouter(users{"alice": "wonderland", "bob": "builder"}),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second, // the limit by account reads the body first
	}
	fmt.Printf(usage, srv.Addr)
	log.Fatal(srv.ListenAndServe())
}
