package ginlimit_test

import (
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/stretchr/testify/assert"

	"github.com/ginlimit/ginlimit"
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
