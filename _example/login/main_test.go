package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/ginlimit/ginlimit/backend/memory"
)

const (
	home  = "192.0.2.1:1234"
	right = "wonderland"
	wrong = "looking-glass"
)

func newService(t *testing.T) http.Handler {
	t.Helper()
	gin.SetMode(gin.ReleaseMode)
	h, err := newRouter(users{"alice": right, "bob": "builder"}, newDevices([]byte("secret")), memory.New())
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func body(user, password string) string {
	text, _ := json.Marshal(attempt{user, password})
	return string(text)
}

func post(h http.Handler, from, body string, cookies ...*http.Cookie) *httptest.ResponseRecorder {
	req := httptest.NewRequest(http.MethodPost, "/login", strings.NewReader(body))
	req.RemoteAddr = from
	for _, c := range cookies {
		req.AddCookie(c)
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, req)
	return rec
}

func login(h http.Handler, from, user, password string, cookies ...*http.Cookie) *httptest.ResponseRecorder {
	return post(h, from, body(user, password), cookies...)
}

// address returns one of many addresses.
func address(i int) string { return fmt.Sprintf("198.51.%d.%d:1234", i/250, i%250+1) }

func want(t *testing.T, rec *httptest.ResponseRecorder, status int) {
	t.Helper()
	if rec.Code != status {
		t.Fatalf("status %d, want %d", rec.Code, status)
	}
}

// known logs in and returns the cookie of the device.
func known(t *testing.T, h http.Handler) *http.Cookie {
	t.Helper()
	rec := login(h, home, "alice", right)
	want(t, rec, http.StatusOK)
	cookies := rec.Result().Cookies()
	if len(cookies) != 1 || !cookies[0].HttpOnly || !cookies[0].Secure {
		t.Fatalf("cookies: %v", cookies)
	}
	return cookies[0]
}

func TestSuccessesNeverUseUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newService(t)
		for range 100 {
			want(t, login(h, home, "alice", right), http.StatusOK)
		}
		for range 4 {
			want(t, login(h, home, "alice", wrong), http.StatusUnauthorized)
		}
		for range 100 {
			want(t, login(h, home, "alice", right), http.StatusOK)
		}
	})
}

func TestFailuresLockOutUntilRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newService(t)
		for range 5 {
			want(t, login(h, home, "alice", wrong), http.StatusUnauthorized)
		}
		rec := login(h, home, "alice", right)
		want(t, rec, http.StatusTooManyRequests)
		if got := rec.Header().Get("Retry-After"); got != "900" {
			t.Fatalf("Retry-After: %q, want 900", got)
		}
		want(t, login(h, address(1), "bob", "builder"), http.StatusOK)

		time.Sleep(15*time.Minute - time.Microsecond)
		want(t, login(h, home, "alice", right), http.StatusTooManyRequests)
		time.Sleep(time.Microsecond)
		for range 5 {
			want(t, login(h, home, "alice", right), http.StatusOK)
			want(t, login(h, home, "alice", wrong), http.StatusUnauthorized)
		}
		want(t, login(h, home, "alice", right), http.StatusTooManyRequests)
	})
}

func TestOneAccountFromManyAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newService(t)
		for i := range 5 {
			want(t, login(h, address(i), "alice", wrong), http.StatusUnauthorized)
		}
		want(t, login(h, home, "alice", wrong), http.StatusTooManyRequests)
	})
}

func TestManyAccountsFromOneAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newService(t)
		for i := range 5 {
			want(t, login(h, home, fmt.Sprintf("user%d", i), wrong), http.StatusUnauthorized)
		}
		for range 10 {
			want(t, login(h, home, "bob", wrong), http.StatusTooManyRequests)
		}
		want(t, login(h, address(1), "bob", "builder"), http.StatusOK) // none of that counts against bob
	})
}

// TestBanDoubles waits out each Retry-After and then goes on: five guesses, and four attempts more
// than are let through. Bans of 1, 2, 4 and 8 minutes end before the limit's 15 do.
func TestBanDoubles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newService(t)
		var waits []string
		for range 13 {
			for i := range 5 {
				want(t, login(h, address(i), "alice", wrong), http.StatusUnauthorized)
			}
			var rec *httptest.ResponseRecorder
			for i := range 4 {
				rec = login(h, address(i), "alice", wrong)
				want(t, rec, http.StatusTooManyRequests)
			}
			if !strings.Contains(rec.Body.String(), "abnormal-usage-detected") {
				t.Fatalf("the answer does not speak of a ban: %s", rec.Body)
			}
			waits = append(waits, rec.Header().Get("Retry-After"))
			seconds, err := strconv.Atoi(rec.Header().Get("Retry-After"))
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Duration(seconds) * time.Second)
		}
		expected := []string{"900", "900", "900", "900", "960", "1920", "3840", "7680", "15360", "30720", "61440", "86400", "86400"}
		if !slices.Equal(waits, expected) {
			t.Errorf("waits of %v s, want %v", waits, expected)
		}
	})
}

// TestGuessesInADay counts what a botnet gets that never stops.
func TestGuessesInADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newService(t)
		guesses := 0
		start := time.Now()
		for i := 0; time.Since(start) < 24*time.Hour; i++ {
			if login(h, address(i%1000), "alice", wrong).Code == http.StatusUnauthorized {
				guesses++
			}
			time.Sleep(10 * time.Second)
		}
		t.Log(guesses, "guesses in a day")
		if guesses <= 5 || guesses > 50 { // the limit alone would let 480 through
			t.Errorf("%d guesses in a day, want at most 50", guesses)
		}
	})
}

// TestBanLocksNoOwnerOut has strangers get the account banned, also from the owner's own address.
func TestBanLocksNoOwnerOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newService(t)
		device := known(t, h)
		for i := range 100 {
			login(h, address(i), "alice", wrong)
			login(h, home, "alice", wrong)
		}
		want(t, login(h, home, "alice", right), http.StatusTooManyRequests)
		want(t, login(h, address(200), "alice", right), http.StatusTooManyRequests)
		want(t, login(h, home, "alice", right, device), http.StatusOK)
		want(t, login(h, address(200), "alice", right, device), http.StatusOK)
	})
}

// TestDeviceHasABudgetOfItsOwn guesses with a cookie that was stolen.
func TestDeviceHasABudgetOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newService(t)
		device := known(t, h)
		for i := range 5 {
			want(t, login(h, address(i), "alice", wrong, device), http.StatusUnauthorized)
		}
		for i := range 4 {
			want(t, login(h, address(i), "alice", right, device), http.StatusTooManyRequests)
		}
		want(t, login(h, home, "alice", right), http.StatusOK) // others have a budget of theirs
	})
}

func TestDeviceIsOfOneAccount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newService(t)
		mine := known(t, h)
		for i := range 5 {
			want(t, login(h, address(i), "bob", wrong), http.StatusUnauthorized)
		}
		id, _, _ := strings.Cut(mine.Value, ".")
		for name, cookie := range map[string]*http.Cookie{
			"of alice":                {Name: mine.Name, Value: mine.Value},
			"of alice, named for bob": {Name: cookieName("bob"), Value: mine.Value},
			"without a signature":     {Name: cookieName("bob"), Value: id},
			"empty":                   {Name: cookieName("bob"), Value: ""},
			"of another secret":       newDevices([]byte("guessed")).cookie("bob", id),
		} {
			if rec := login(h, home, "bob", "builder", cookie); rec.Code != http.StatusTooManyRequests {
				t.Errorf("a cookie %s: status %d, want 429", name, rec.Code)
			}
		}
	})
}

func TestSpellingsAreOneAccount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newService(t)
		for i, name := range []string{"alice", "Alice", "ALICE", " alice", "alice\t"} {
			want(t, login(h, address(i), name, wrong), http.StatusUnauthorized)
		}
		want(t, login(h, home, "aLiCe", right), http.StatusTooManyRequests)
	})
}

// TestTwoNamesAreNoWayAround sends bodies of which a limiter and a handler might read different
// names.
func TestTwoNamesAreNoWayAround(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newService(t)
		guess := func(i int) *httptest.ResponseRecorder {
			return post(h, address(i), fmt.Sprintf(`{"user": "nobody%d", "USER": "alice", "password": %q}`, i, wrong))
		}
		for i := range 5 {
			want(t, guess(i), http.StatusUnauthorized)
		}
		want(t, guess(6), http.StatusTooManyRequests)
	})
}

func TestVolley(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newService(t)
		var guesses atomic.Int64
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				if login(h, address(i), "alice", wrong).Code == http.StatusUnauthorized {
					guesses.Add(1)
				}
			})
		}
		wg.Wait()
		if n := guesses.Load(); n != 5 {
			t.Errorf("%d guesses were looked at, want 5", n)
		}
	})
}

func TestWhatIsNoAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newService(t)
		for range 10 { // nor is it counted
			want(t, login(h, home, " ", right), http.StatusBadRequest)
			want(t, post(h, home, "user=alice"), http.StatusBadRequest)
			want(t, post(h, home, ""), http.StatusBadRequest)
			want(t, login(h, home, "alice", strings.Repeat("x", maxBody)), http.StatusRequestEntityTooLarge)
		}
		want(t, login(h, home, "alice", right), http.StatusOK)
	})
}

// TestOverTheNetwork logs in with two browsers, of which one is known.
func TestOverTheNetwork(t *testing.T) {
	server := httptest.NewTLSServer(newService(t))
	defer server.Close()
	browser := func() *http.Client {
		jar, err := cookiejar.New(nil)
		if err != nil {
			t.Fatal(err)
		}
		return &http.Client{Transport: server.Client().Transport, Jar: jar}
	}
	try := func(b *http.Client, password string) (status int) {
		resp, err := b.Post(server.URL+"/login", "application/json", strings.NewReader(body("alice", password)))
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	owner, stranger := browser(), browser()
	if got := try(owner, right); got != http.StatusOK {
		t.Fatalf("status %d for the owner", got)
	}
	var got []int
	for range 10 {
		got = append(got, try(stranger, wrong))
	}
	if expected := slices.Concat(slices.Repeat([]int{401}, 5), slices.Repeat([]int{429}, 5)); !slices.Equal(got, expected) {
		t.Errorf("a stranger is answered %v, want %v", got, expected)
	}
	if got := try(owner, right); got != http.StatusOK {
		t.Errorf("status %d for the owner during the attack", got)
	}
}
