package ginlimit_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/memory"
	"github.com/ginlimit/ginlimit/backend/redis"
)

func ExampleUsageHandler_calendar() {
	r, err := newQuota("Europe/Berlin")
	if err != nil {
		log.Fatal(err)
	}
	_, err = newQuota("Europe/Atlantis")
	fmt.Println(r != nil, err != nil)
	// Output: true true
}

// newQuota returns a service whose customers have so many requests a day, and so many a month,
// which begins on the 15th because bills do.
func newQuota(zone string) (*gin.Engine, error) {
	quota, err := ginlimit.NewLimiter(ginlimit.PerCalendarDay(10_000).In(zone).Named("day"), ginlimit.ByUserID("customer"),
		ginlimit.WithName("quota"),
		ginlimit.WithLimits(ginlimit.PerCalendarMonth(200_000).In(zone).StartingOn(15).Named("month")))
	if err != nil {
		return nil, err // such as a zone that is not known here
	}
	r := gin.New()
	r.SetTrustedProxies(nil)
	r.Use(authenticateCustomer)
	r.GET("/usage", ginlimit.UsageHandler(quota)) // costs nothing
	r.GET("/report", quota.Handle, ok)
	return r, nil
}

// authenticateCustomer stands for what knows customers by a token.
func authenticateCustomer(c *gin.Context) { c.Set("customer", c.GetHeader("Customer")) }

// as sends a request of a customer, or of nobody in particular, from an address.
func as(r http.Handler, customer, address, target string) *httptest.ResponseRecorder {
	req := httptest.NewRequest(http.MethodGet, target, nil)
	req.RemoteAddr = net.JoinHostPort(address, "1234")
	req.Header.Set("Customer", customer)
	w := httptest.NewRecorder()
	r.ServeHTTP(w, req)
	return w
}

// TestUsageByTheCalendar holds docs/recipes.md to what it shows. The bubble begins on 1 January
// 2000 at 0:00 UTC, which is 1:00 in Berlin.
func TestUsageByTheCalendar(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, err := newQuota("Europe/Berlin")
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			assert.Equal(t, http.StatusOK, as(r, "alice", "192.0.2.1", "/report").Code)
		}
		time.Sleep(23 * time.Hour) // midnight in Berlin
		assert.Equal(t, http.StatusOK, as(r, "alice", "192.0.2.1", "/report").Code)
		assert.JSONEq(t, `{"limiters": [{"name": "quota", "limits": [
			{"name": "day", "unit": "requests", "limit": 10000, "used": 1, "remaining": 9999,
			 "reset": 86400, "reset_at": "2000-01-02T23:00:00Z"},
			{"name": "month", "unit": "requests", "limit": 200000, "used": 4, "remaining": 199996,
			 "reset": 1123200, "reset_at": "2000-01-14T23:00:00Z"}]}]}`, as(r, "alice", "192.0.2.1", "/usage").Body.String())
		assert.Equal(t, http.StatusBadRequest, as(r, "", "192.0.2.1", "/usage").Code)
	})
}

func ExampleWithBan_byKey() {
	r := newBans()
	fmt.Println(as(r, "alice", "192.0.2.1", "/").Header().Get("RateLimit-Policy"))
	fmt.Println(as(r, "", "192.0.2.1", "/").Header().Get("RateLimit-Policy"))
	fmt.Println(as(r, "", "198.51.100.1", "/").Header().Get("RateLimit-Policy"))
	// Output:
	// "customer";q=300;w=60
	// "address";q=60;w=60
	// "office";q=600;w=60
}

// newBans returns a service that bans customers by their names, and others by their addresses, but
// for those of an office that it knows.
func newBans() *gin.Engine {
	ban := ginlimit.WithBan(ginlimit.PerHour(100), time.Minute, 24*time.Hour)
	office := ginlimit.FromNetworks("198.51.100.0/24", "2001:db8:1::/48")
	isCustomer := func(c *gin.Context) bool { return c.GetString("customer") != "" }

	r := gin.New()
	r.SetTrustedProxies(nil)
	r.Use(authenticateCustomer)
	// A customer that goes wild bans itself, and nobody with whom it shares an address.
	r.Use(ginlimit.New(ginlimit.PerMinute(300), ginlimit.ByUserID("customer"), ginlimit.WithName("customer"), ban,
		ginlimit.WithSkip(func(c *gin.Context) bool { return !isCustomer(c) })))
	// Many people sit behind the address of the office: it has more, and is not banned.
	r.Use(ginlimit.New(ginlimit.PerMinute(600), ginlimit.ByIP(), ginlimit.WithName("office"),
		ginlimit.WithSkip(func(c *gin.Context) bool { return isCustomer(c) || !office(c) })))
	r.Use(ginlimit.New(ginlimit.PerMinute(60), ginlimit.ByIP(), ginlimit.WithName("address"), ban,
		ginlimit.WithSkip(func(c *gin.Context) bool { return isCustomer(c) || office(c) })))
	r.GET("/", ok)
	return r
}

// TestOfficesAreNotBanned waits until limits have refilled: callers that are banned are still
// refused.
func TestOfficesAreNotBanned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logger := slog.Default()
		defer slog.SetDefault(logger)
		slog.SetDefault(slog.New(slog.DiscardHandler)) // what each limiter says of bans
		r := newBans()
		callers := []struct {
			customer, address string
			want              int
		}{
			{"alice", "192.0.2.1", 429}, {"", "192.0.2.2", 429}, {"", "198.51.100.1", 200}, {"", "2001:db8:1::1", 200},
		}
		for _, c := range callers {
			for range 1000 {
				as(r, c.customer, c.address, "/")
			}
		}
		time.Sleep(59 * time.Second)
		for _, c := range callers {
			assert.Equal(t, c.want, as(r, c.customer, c.address, "/").Code, "%q from %s", c.customer, c.address)
		}
		time.Sleep(time.Second)
		for _, c := range callers {
			assert.Equal(t, http.StatusOK, as(r, c.customer, c.address, "/").Code, "%q from %s", c.customer, c.address)
		}
	})
}

// nginx on the same host, and Cloudflare in front of it: each appends the address that it was asked
// from.
func ExampleByIP_cloudflare() {
	r := gin.New()
	r.SetTrustedProxies([]string{
		"127.0.0.1", "::1", // nginx
		"173.245.48.0/20", "2400:cb00::/32", // and all the others of https://www.cloudflare.com/ips/
	})
	r.Use(ginlimit.New(ginlimit.PerMinute(100), ginlimit.ByIP()))
	r.GET("/", showKey)

	for _, forwarded := range []string{
		"203.0.113.7, 173.245.48.9",
		"192.0.2.99, 203.0.113.7, 173.245.48.9", // the first is what the client says of itself
		"192.0.2.99, 198.51.100.66",             // a client that asks nginx, and not Cloudflare
	} {
		forward(r, "127.0.0.1", forwarded)
	}
	// Output:
	// ip:203.0.113.7
	// ip:203.0.113.7
	// ip:198.51.100.66
}

// showKey prints the key of a request.
func showKey(c *gin.Context) {
	d, _ := ginlimit.FromContext(c)
	fmt.Println(d.Key)
}

// forward sends a request from an address, with an X-Forwarded-For, and returns the status.
func forward(r http.Handler, from, forwarded string) int {
	req := httptest.NewRequest(http.MethodGet, "/", nil)
	req.RemoteAddr = net.JoinHostPort(from, "1234")
	req.Header.Set("X-Forwarded-For", forwarded)
	w := httptest.NewRecorder()
	r.ServeHTTP(w, req)
	return w.Code
}

// A load test has many users and one machine. On the engine that is tested, that machine is a
// proxy, so that each of its users has an address of its own.
func ExampleByIP_loadTest() {
	r := gin.New()
	r.SetTrustedProxies([]string{"192.0.2.10"}) // the machine that makes the load, in the test environment only
	r.Use(ginlimit.New(ginlimit.PerMinute(1), ginlimit.ByIP()))
	r.GET("/", ok)

	fmt.Println(forward(r, "192.0.2.10", "10.0.0.1"))
	fmt.Println(forward(r, "192.0.2.10", "10.0.0.2"))
	fmt.Println(forward(r, "192.0.2.10", "10.0.0.2"))
	// Output:
	// 200
	// 200
	// 429
}

func ExampleWithBan_login() {
	r := newLogin(func(c *gin.Context) {
		if c.PostForm("password") != "right" {
			c.Status(http.StatusUnauthorized)
		}
	})
	for range 5 {
		fmt.Println(logIn(r, "192.0.2.1", "alice", "guessed").Code)
	}
	for i := range 3 { // from other addresses, and now even with the password
		fmt.Println(logIn(r, fmt.Sprint("192.0.2.", 2+i), "ALICE", "right").Code)
	}
	banned := logIn(r, "192.0.2.5", "alice", "right")
	fmt.Println(banned.Code, banned.Header().Get("Retry-After"))
	fmt.Println(logIn(r, "192.0.2.2", "bob", "right").Code)
	// Output:
	// 401
	// 401
	// 401
	// 401
	// 401
	// 429
	// 429
	// 429
	// 429 1800
	// 200
}

// newLogin returns a service with a log-in that counts failures by address and by account. An
// account that is guessed on is locked for half an hour, and for twice as long each time.
func newLogin(login gin.HandlerFunc) *gin.Engine {
	store := memory.New() // a Redis, in real life
	limiter := func(name string, key ginlimit.KeyFunc, more ...ginlimit.Option) *ginlimit.Limiter {
		l, err := ginlimit.NewLimiter(ginlimit.Per(5, 15*time.Minute).WithAlgorithm(ginlimit.SlidingLog), key, append(more,
			ginlimit.WithName(name), ginlimit.WithBackend(store),
			ginlimit.WithRefundIf(func(c *gin.Context) bool { return c.Writer.Status() < 400 }), // count only failures
			ginlimit.WithFailurePolicy(ginlimit.FailClosed))...)
		if err != nil {
			log.Fatal(err)
		}
		return l
	}
	byAccount := func(c *gin.Context) (string, error) {
		c.Request.Body = http.MaxBytesReader(c.Writer, c.Request.Body, 4<<10)
		return "account:" + strings.ToLower(c.PostForm("user")), nil // all spellings that log in are one account
	}
	r := gin.New()
	r.SetTrustedProxies(nil)
	r.POST("/login", ginlimit.All(
		limiter("login-address", ginlimit.ByIP()),
		limiter("login-account", byAccount, ginlimit.WithBan(ginlimit.Per(3, 15*time.Minute), 30*time.Minute, 24*time.Hour)),
	), login)
	return r
}

func logIn(r http.Handler, address, user, password string) *httptest.ResponseRecorder {
	form := url.Values{"user": {user}, "password": {password}}
	req := httptest.NewRequest(http.MethodPost, "/login", strings.NewReader(form.Encode()))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.RemoteAddr = net.JoinHostPort(address, "1234")
	w := httptest.NewRecorder()
	r.ServeHTTP(w, req)
	return w
}

// TestGuessesInADay counts what a program that never stops may guess, on the first day and once
// bans last a day.
func TestGuessesInADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logger := slog.Default()
		defer slog.SetDefault(logger)
		slog.SetDefault(slog.New(slog.DiscardHandler)) // what the limiter says of bans
		r := newLogin(func(c *gin.Context) { c.Status(http.StatusUnauthorized) })
		n := 0
		day := func() (guesses int) {
			for end := time.Now().Add(24 * time.Hour); time.Now().Before(end); time.Sleep(10 * time.Second) {
				n++
				address := fmt.Sprintf("10.%d.%d.%d", n>>16, n>>8&255, n&255) // never the same
				if logIn(r, address, "alice", "guessed").Code == http.StatusUnauthorized {
					guesses++
				}
			}
			return guesses
		}
		assert.Equal(t, 30, day())
		day()
		assert.LessOrEqual(t, day(), 5)
	})
}

func ExampleLimiter_Peek_support() {
	api, err := ginlimit.NewLimiter(ginlimit.PerHour(2), ginlimit.ByUserID("customer"), ginlimit.WithName("api"))
	if err != nil {
		log.Fatal(err)
	}
	r := gin.New()
	r.SetTrustedProxies(nil)
	r.GET("/", authenticateCustomer, api.Handle, ok)
	for range 3 {
		as(r, "alice", "192.0.2.1", "/")
	}
	desk := newSupportDesk(api)
	look := func() {
		var seen struct {
			Outcome, Limit string
			Remaining      int
		}
		if err := json.Unmarshal(fetch(desk, "/customers/alice").Body.Bytes(), &seen); err != nil {
			log.Fatal(err)
		}
		fmt.Println(seen.Outcome, seen.Limit, seen.Remaining)
	}
	look()
	post(desk, "/customers/alice/release")
	look()
	// Output:
	// denied 2/h 0
	// allowed 2/h 2
}

// newSupportDesk returns what the people of support see, on a listener that no client reaches: why
// a customer is refused, and until when. They can let a customer go, or ban it for a day.
func newSupportDesk(api *ginlimit.Limiter) *gin.Engine {
	keyOf := func(c *gin.Context) string { return ginlimit.KeyOfUser(c.Param("id")) }
	answer := func(c *gin.Context, body any, err error) {
		if err != nil {
			c.JSON(http.StatusServiceUnavailable, gin.H{"error": err.Error()})
			return
		}
		c.JSON(http.StatusOK, body)
	}
	r := gin.New()
	r.SetTrustedProxies(nil)
	r.GET("/customers/:id", func(c *gin.Context) {
		d, err := api.Peek(c.Request.Context(), keyOf(c))
		answer(c, gin.H{"outcome": d.Outcome(), "limit": d.Limit.String(), "remaining": d.Remaining,
			"retry_after": d.RetryAfter.Round(time.Second).String()}, err)
	})
	r.POST("/customers/:id/release", func(c *gin.Context) {
		answer(c, gin.H{}, api.Reset(c.Request.Context(), keyOf(c)))
	})
	r.POST("/customers/:id/ban", func(c *gin.Context) {
		answer(c, gin.H{}, api.Ban(c.Request.Context(), keyOf(c), 24*time.Hour))
	})
	return r
}

func post(h http.Handler, path string) int {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, nil))
	return w.Code
}

func TestSupportDesk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := must(ginlimit.NewLimiter(ginlimit.PerHour(2), ginlimit.ByUserID("customer")))
		desk := newSupportDesk(api)
		assert.Equal(t, http.StatusOK, post(desk, "/customers/alice/ban"))
		assert.JSONEq(t, `{"outcome": "banned", "limit": "2/h", "remaining": 0, "retry_after": "24h0m0s"}`,
			fetch(desk, "/customers/alice").Body.String())
		assert.Equal(t, http.StatusOK, post(desk, "/customers/alice/release"))
		assert.JSONEq(t, `{"outcome": "allowed", "limit": "2/h", "remaining": 2, "retry_after": "0s"}`,
			fetch(desk, "/customers/alice").Body.String())
	})
}

// maxUpload is the most that one upload may have.
const maxUpload = 10 << 20

// countedBody is a body that counts what is read of it.
type countedBody struct {
	io.ReadCloser
	n int64
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n += int64(n)
	return n, err
}

func countBody(c *gin.Context) {
	body := &countedBody{ReadCloser: http.MaxBytesReader(c.Writer, c.Request.Body, maxUpload)}
	c.Request.Body = body
	c.Set("body", body)
}

// newUploads returns a service that takes 100 MiB an hour from each customer.
func newUploads() *gin.Engine {
	uploads := ginlimit.New(ginlimit.PerHour(100<<20).Counting("content-bytes"), ginlimit.ByUserID("customer"),
		ginlimit.WithCost(func(c *gin.Context) int64 {
			if c.Request.ContentLength < 0 { // not known, as of a chunked body
				return maxUpload
			}
			return c.Request.ContentLength
		}),
		ginlimit.WithSettle(func(c *gin.Context) int64 { return c.MustGet("body").(*countedBody).n }))
	r := gin.New()
	r.SetTrustedProxies(nil)
	r.POST("/upload", authenticateCustomer, countBody, uploads, func(c *gin.Context) {
		if _, err := io.Copy(io.Discard, c.Request.Body); err != nil {
			c.Status(http.StatusRequestEntityTooLarge)
		}
	})
	return r
}

func ExampleWithSettle_upload() {
	r := newUploads()
	for _, body := range []io.Reader{
		bytes.NewReader(make([]byte, 5<<20)),                 // has a length
		io.MultiReader(bytes.NewReader(make([]byte, 1<<20))), // has none: 10 MiB are charged, and 9 come back
		bytes.NewReader(make([]byte, 100<<20)),               // 94 MiB are left: this body is not read
		bytes.NewReader(make([]byte, 101<<20)),               // never fits
	} {
		w := upload(r, body)
		fmt.Println(w.Code, w.Header().Get("RateLimit-Policy"), w.Header().Get("Retry-After") != "")
	}
	// Output:
	// 200 "default";q=104857600;w=3600;qu="content-bytes" false
	// 200 "default";q=104857600;w=3600;qu="content-bytes" false
	// 429 "default";q=104857600;w=3600;qu="content-bytes" true
	// 429 "default";q=104857600;w=3600;qu="content-bytes" false
}

func upload(r http.Handler, body io.Reader) *httptest.ResponseRecorder {
	req := httptest.NewRequest(http.MethodPost, "/upload", body)
	req.Header.Set("Customer", "alice")
	w := httptest.NewRecorder()
	r.ServeHTTP(w, req)
	return w
}

// TestChunkedUploads sends bodies whose length is not known: each costs what was read of it.
func TestChunkedUploads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newUploads()
		chunked := func(n int) io.Reader { return io.MultiReader(bytes.NewReader(make([]byte, n))) }
		for range 9 { // together 90 MiB would be charged, if 9 of each did not come back
			assert.Equal(t, http.StatusOK, upload(r, chunked(1<<20)).Code)
		}
		assert.Equal(t, http.StatusRequestEntityTooLarge, upload(r, chunked(11<<20)).Code)
		assert.Equal(t, http.StatusOK, upload(r, bytes.NewReader(make([]byte, 1<<20))).Code)
		left := upload(r, nil) // costs nothing
		assert.Equal(t, fmt.Sprint(80<<20), left.Header().Get("X-RateLimit-Remaining"))
	})
}

// pacedBody is a body of which no more is read than wait lets through.
type pacedBody struct {
	io.ReadCloser
	wait func(bytes int64) error
}

func (b pacedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p[:min(len(p), 16<<10)])
	if n > 0 {
		if err := b.wait(int64(n)); err != nil {
			return 0, err
		}
	}
	return n, err
}

func ExampleLimiter_Wait_body() {
	// 1 MiB a second for each customer, over all of its uploads.
	rate, err := ginlimit.NewLimiter(ginlimit.PerSecond(1<<20).WithBurst(16<<10), ginlimit.ByUserID("customer"))
	if err != nil {
		log.Fatal(err)
	}
	pace := func(c *gin.Context) {
		key := ginlimit.KeyOfUser(c.GetString("customer"))
		c.Request.Body = pacedBody{c.Request.Body, func(bytes int64) error {
			if d, err := rate.Wait(c.Request.Context(), key, bytes); !d.Passes() {
				return err
			}
			return nil
		}}
	}
	r := gin.New()
	r.SetTrustedProxies(nil)
	r.POST("/upload", authenticateCustomer, pace, func(c *gin.Context) {
		n, err := io.Copy(io.Discard, c.Request.Body)
		fmt.Println(n, err)
	})
	start := time.Now()
	upload(r, bytes.NewReader(make([]byte, 64<<10)))
	fmt.Println(time.Since(start) > 40*time.Millisecond)
	// Output:
	// 65536 <nil>
	// true
}

// Some networks are not limited, and some are not let in.
func ExampleFromNetworks_lists() {
	partners := ginlimit.FromNetworks("198.51.100.0/24")
	blocked := ginlimit.FromNetworks("203.0.113.0/24", "2001:db8:bad::/48")

	r := gin.New()
	r.SetTrustedProxies(nil)
	r.Use(func(c *gin.Context) {
		if blocked(c) {
			c.AbortWithStatus(http.StatusForbidden)
		}
	})
	r.Use(ginlimit.New(ginlimit.PerMinute(1), ginlimit.ByIP(), ginlimit.WithSkip(partners)))
	r.GET("/", ok)

	for _, from := range []string{"192.0.2.1", "192.0.2.1", "198.51.100.1", "198.51.100.1", "203.0.113.7", "2001:db8:bad::1"} {
		fmt.Println(from, as(r, "", from, "/").Code)
	}
	// Output:
	// 192.0.2.1 200
	// 192.0.2.1 429
	// 198.51.100.1 200
	// 198.51.100.1 200
	// 203.0.113.7 403
	// 2001:db8:bad::1 403
}

// A person that opens a page gets a page, and everything else the JSON of a company.
func ExampleWithDenyHandler_accept() {
	deny := func(c *gin.Context, d ginlimit.Decision) {
		if c.NegotiateFormat(gin.MIMEJSON, gin.MIMEHTML) == gin.MIMEHTML {
			c.Data(d.Status(), "text/html; charset=utf-8", []byte("<h1>"+http.StatusText(d.Status())+"</h1><p>Please come back later.</p>"))
			return
		}
		c.JSON(d.Status(), gin.H{"error": gin.H{
			"code":        d.Outcome(),                          // denied, banned, no_key, …
			"limit":       d.Limit.Name,                         // which limit refuses
			"retry_after": c.Writer.Header().Get("Retry-After"), // whole seconds; "" if waiting is no use
		}})
	}

	r := gin.New()
	r.Use(ginlimit.New(ginlimit.PerHour(0), ginlimit.Global(), ginlimit.WithName("page"), ginlimit.WithDenyHandler(deny)))
	r.GET("/", ok)
	for _, accept := range []string{
		"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", // a browser that opens a page
		"application/json, text/plain, */*",                               // a library in a page
		"*/*",                                                             // curl
		"",
	} {
		q := httptest.NewRequest(http.MethodGet, "/", nil)
		q.Header.Set("Accept", accept)
		w := httptest.NewRecorder()
		r.ServeHTTP(w, q)
		fmt.Println(w.Code, w.Body)
	}
	// Output:
	// 429 <h1>Too Many Requests</h1><p>Please come back later.</p>
	// 429 {"error":{"code":"denied","limit":"page","retry_after":""}}
	// 429 {"error":{"code":"denied","limit":"page","retry_after":""}}
	// 429 {"error":{"code":"denied","limit":"page","retry_after":""}}
}

// A service on net/http has Gin in front, for the limit and its headers.
func ExampleNew_netHTTP() {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /hello", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") })

	r := gin.New()
	r.SetTrustedProxies(nil)
	r.Use(ginlimit.New(ginlimit.PerMinute(1), ginlimit.ByIP()))
	r.Any("/*path", gin.WrapH(mux)) // and r is the server's handler

	for range 2 {
		get(r, "/hello", "RateLimit-Policy")
	}
	// Output:
	// 200 RateLimit-Policy: "default";q=1;w=60
	// 429 RateLimit-Policy: "default";q=1;w=60
}

// accessLog logs each request, with its route, its ID, and what was decided about it.
func accessLog(logger *slog.Logger) gin.HandlerFunc {
	return func(c *gin.Context) {
		c.Next()
		attrs := []slog.Attr{slog.String("request_id", c.Writer.Header().Get("X-Request-Id")),
			slog.String("route", c.FullPath()), slog.Int("status", c.Writer.Status())}
		if d, limited := ginlimit.FromContext(c); limited {
			attrs = append(attrs, slog.Any("decision", d)) // without its key, which may identify a person
		}
		logger.LogAttrs(c.Request.Context(), slog.LevelInfo, "request", attrs...)
	}
}

func ExampleFromContext_accessLog() {
	withoutTimes := func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == "retry_after" {
			return slog.Attr{}
		}
		return a
	}
	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: withoutTimes}))

	r := gin.New()
	r.SetTrustedProxies(nil)
	r.Use(requestID, accessLog(logger))
	r.GET("/healthz", ok)
	r.GET("/users/:id", ginlimit.New(ginlimit.PerHour(1), ginlimit.ByIP(), ginlimit.WithName("api")), ok)

	for i, path := range []string{"/healthz", "/users/7", "/users/8"} {
		req := httptest.NewRequest(http.MethodGet, path, nil)
		req.Header.Set("X-Request-Id", fmt.Sprint("request-", i+1))
		r.ServeHTTP(httptest.NewRecorder(), req)
	}
	// Output:
	// level=INFO msg=request request_id=request-1 route=/healthz status=200
	// level=INFO msg=request request_id=request-2 route=/users/:id status=200 decision.limiter=api decision.outcome=allowed decision.cost=1 decision.limit=api decision.source=store decision.remaining=0
	// level=INFO msg=request request_id=request-3 route=/users/:id status=429 decision.limiter=api decision.outcome=denied decision.cost=1 decision.limit=api decision.source=store decision.remaining=0
}

// TestPartnerWithoutAStore: while the store of the limit is down, the failure policy decides
// whether calls go on.
func TestPartnerWithoutAStore(t *testing.T) {
	nobody, err := redis.Dial(t.Context(), "redis://127.0.0.1:1")
	require.NoError(t, err)
	defer nobody.Close()
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") }))
	defer service.Close()
	for policy, passes := range map[ginlimit.FailurePolicy]bool{ginlimit.FailOpen: true, ginlimit.FailClosed: false} {
		l := must(ginlimit.NewLimiter(ginlimit.PerSecond(100).WithBurst(1), ginlimit.Global(), ginlimit.WithName("partner"),
			ginlimit.WithBackend(nobody), ginlimit.WithFailurePolicy(policy)))
		client := http.Client{Transport: partner{l}}
		answer, err := client.Post(service.URL, "text/plain", strings.NewReader("body"))
		if passes {
			require.NoError(t, err)
			answer.Body.Close()
			continue
		}
		assert.ErrorIs(t, err, backend.ErrUnavailable)
	}
}
