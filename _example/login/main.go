// Login counts only failures: a caller that knows the password is never limited by having logged in
// often. There are two limits, because there are two attacks: by address against one client that
// tries many accounts, and by account against many clients that try one. A program that does not
// stop when it is refused gets its account banned, for twice as long each time. In _example, run
//
//	go run ./login
//
// and try what it prints.
//
// # Locking others out
//
// A ban of an account stops an attacker, and the account's owner too. An attacker that knows a name
// could keep the owner out for good. That is why a browser gets a cookie when a log-in succeeds in
// it. The cookie names the device, for this one account. The device is limited and banned by itself
// from then on, and nothing that strangers do touches it. OWASP describes this as device cookies.
//
// The other way would be to ban the pair of an account and a network. That needs no cookie. But it
// lets an attacker with a thousand networks make a thousand times as many guesses, and it locks out
// an owner whose office the attacker shares. Device cookies have neither fault. They leave out an
// owner with a new device while the account is under attack. For that case there is the link by
// mail that also resets passwords: behind it the service calls Limiter.Reset for the account, or
// sets the cookie.
package main

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/gin-gonic/gin/binding"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/memory"
)

var (
	// failures is what each address, each account and each known device has: never a sixth failure
	// in any 15 minutes.
	failures = ginlimit.Per(5, 15*time.Minute).WithAlgorithm(ginlimit.SlidingLog)
	// A caller that is refused more often than this did not look at Retry-After. The first bans end
	// before the 15 minutes do; the fifth, of 16 minutes, is the first that a program notices.
	refusals = ginlimit.Per(3, 15*time.Minute)
)

const (
	firstBan   = time.Minute
	longestBan = 24 * time.Hour
	maxBody    = 4 << 10
)

// users are the accounts, by name. A real service keeps a slow, salted hash of each password.
type users map[string]string

// newRouter returns an engine that answers POST /login. It keeps its counts on b: Redis, where
// several instances are to count together.
func newRouter(u users, d devices, b backend.Backend) (*gin.Engine, error) {
	// Many people may share an address, and one of them may be the attacker. A known device is not
	// limited by its address, because it has a budget of its own.
	address, err := limitFailures("login-address", ginlimit.ByIP(), b, ginlimit.WithSkip(isKnown))
	if err != nil {
		return nil, err
	}
	account, err := limitFailures("login-account", byAccount, b,
		ginlimit.WithBan(refusals, firstBan, longestBan))
	if err != nil {
		return nil, err
	}
	r := gin.New()
	r.SetTrustedProxies(nil)
	r.Use(gin.Recovery())
	// All charges both or none: what one address is refused counts against no account.
	r.POST("/login", d.readAttempt, ginlimit.All(address, account), d.login(u))
	return r, nil
}

// limitFailures charges every attempt and gives the charge back if it succeeds. The charge is held
// meanwhile, so that a volley of guesses at the same moment gets no further than one after the
// other.
//
// FailClosed matters once the counters are in a shared store: while that is down, nobody may guess
// freely.
func limitFailures(name string, key ginlimit.KeyFunc, b backend.Backend, more ...ginlimit.Option) (*ginlimit.Limiter, error) {
	return ginlimit.NewLimiter(failures, key, append(more,
		ginlimit.WithName(name), ginlimit.WithBackend(b),
		ginlimit.WithRefundIf(func(c *gin.Context) bool { return c.Writer.Status() < http.StatusBadRequest }),
		ginlimit.WithFailurePolicy(ginlimit.FailClosed))...)
}

// attempt is the body of a request.
type attempt struct {
	User     string `json:"user"`
	Password string `json:"password"`
}

// account returns the name that a request wants to log in with. All spellings of a name that log in
// to one account have to be one key.
func (a attempt) account() string { return strings.ToLower(strings.TrimSpace(a.User)) }

const (
	accountKey = "account" // what readAttempt sets
	deviceKey  = "device"
)

// readAttempt reads the body before the limiters do, which want to know the account, and puts it
// back for the handler. Both decode it in the same way: of a body with two names, a limiter that
// took the first and a handler that took the last would let everybody guess.
func (d devices) readAttempt(c *gin.Context) {
	body, err := io.ReadAll(http.MaxBytesReader(c.Writer, c.Request.Body, maxBody))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		c.AbortWithStatus(http.StatusRequestEntityTooLarge)
		return
	}
	var a attempt
	if err == nil {
		err = binding.JSON.BindBody(body, &a) // as ShouldBindJSON does
	}
	if err != nil {
		c.AbortWithStatusJSON(http.StatusBadRequest, gin.H{"error": `send {"user": …, "password": …}`})
		return
	}
	c.Request.Body = io.NopCloser(bytes.NewReader(body))
	c.Set(accountKey, a.account())
	if id := d.of(c.Request, a.account()); id != "" {
		c.Set(deviceKey, id)
	}
}

// isKnown reports whether the account was logged in to from this device before.
func isKnown(c *gin.Context) bool { return c.GetString(deviceKey) != "" }

// byAccount keys by the known device or, for all others together, by the account that the request
// wants to log in to, whether there is such an account or not. No name is no key: the answer is
// 400.
func byAccount(c *gin.Context) (string, error) {
	if id := c.GetString(deviceKey); id != "" {
		return "device:" + id, nil
	}
	if name := c.GetString(accountKey); name != "" {
		return "account:" + name, nil
	}
	return "", ginlimit.ErrNoKey
}

// login compares the password, and makes the device a known one if it is right.
func (d devices) login(u users) gin.HandlerFunc {
	return func(c *gin.Context) {
		var a attempt
		if err := c.ShouldBindJSON(&a); err != nil {
			c.Status(http.StatusBadRequest)
			return
		}
		password, known := u[a.account()]
		same := subtle.ConstantTimeCompare([]byte(password), []byte(a.Password)) == 1
		if !known || !same {
			c.String(http.StatusUnauthorized, "wrong name or password\n") // which of them is nobody's business
			return
		}
		http.SetCookie(c.Writer, d.cookie(a.account(), cmp.Or(c.GetString(deviceKey), rand.Text())))
		c.String(http.StatusOK, "welcome\n")
	}
}

const usage = `Listening on %[1]s. Log in as often as you like. The cookie makes this a known device:

    alice='{"user": "alice", "password": "wonderland"}' wrong='{"user": "alice", "password": "?"}'
    curl -i -c jar -d "$alice" http://%[1]s/login

Then guess without it. After five failures not even the right password helps, and after four refusals
the account is banned:

    for i in $(seq 9); do curl -s -o /dev/null -w '%%{http_code}\n' -d "$wrong" http://%[1]s/login; done
    curl -i -d "$alice" http://%[1]s/login

The known device does not mind:

    curl -i -b jar -d "$alice" http://%[1]s/login

`

func main() {
	gin.SetMode(gin.ReleaseMode)
	// A real service gives all instances the same secret. With another one no device is known any
	// more.
	r, err := newRouter(users{"alice": "wonderland", "bob": "builder"}, newDevices([]byte(rand.Text())), memory.New())
	if err != nil {
		log.Fatal(err)
	}
	srv := &http.Server{
		Addr:              cmp.Or(os.Getenv("ADDR"), "127.0.0.1:8080"),
		Handler:           r,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second, // the limits read the body first
	}
	fmt.Printf(usage, srv.Addr)
	log.Fatal(srv.ListenAndServe())
}
