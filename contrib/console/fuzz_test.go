package console

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/ginlimit/ginlimit"
)

// FuzzShownText holds what is shown to text that can be seen, and two texts to two forms.
func FuzzShownText(f *testing.F) {
	f.Add("ip:203.0.113.7", "user:\u202egnp.exe")
	f.Add("\"\\", "\xff\x00\u200b")
	f.Fuzz(func(t *testing.T, a, b string) {
		shown := shownText(a)
		if !utf8.ValidString(shown) || strings.ContainsFunc(shown, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q is shown as %q", a, shown)
		}
		if a != b && shown == shownText(b) {
			t.Errorf("%q and %q are both shown as %q", a, b, shown)
		}
	})
}

// FuzzAct answers whatever is asked, as JSON.
func FuzzAct(f *testing.F) {
	f.Add("lookup", `{"key":"a"}`)
	f.Add("ban", `{"key":"a","limiter":"default","for":"1h"}`)
	f.Add("reset", `{"id":"0123456789abcdef","limiter":"default"}`)
	l, err := ginlimit.NewLimiter(ginlimit.PerHour(10), ginlimit.ByIP())
	if err != nil {
		f.Fatal(err)
	}
	c := New([]*ginlimit.Limiter{l})
	f.Fuzz(func(t *testing.T, action, body string) {
		if actions[action] == nil {
			t.Skip()
		}
		r := httptest.NewRequest(http.MethodPost, "/"+action, strings.NewReader(body))
		r.RemoteAddr, r.Host = "127.0.0.1:1", "localhost"
		w := httptest.NewRecorder()
		c.ServeHTTP(w, r)
		var said answer
		if err := json.Unmarshal(w.Body.Bytes(), &said); err != nil || w.Code == http.StatusOK != (said.Error == "") {
			t.Errorf("%d, %s: %v", w.Code, w.Body, err)
		}
	})
}

// TestAtOnce does everything at once: the race detector says whether it may be.
func TestAtOnce(t *testing.T) {
	c := New(nil, WithKeys(true))
	l, err := ginlimit.NewLimiter(ginlimit.PerHour(10), ginlimit.ByIP(), ginlimit.WithObserver(c.Observe))
	if err != nil {
		t.Fatal(err)
	}
	c.Watch(l)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 300 {
				_, _ = l.Allow(context.Background(), fmt.Sprint(i%40), 1)
				d := decision(fmt.Sprint("limiter ", i%50), fmt.Sprint(i), false)
				d.Result, d.Banned, d.Tier = d.WithBanned(i%10 == 0), true, fmt.Sprint(g)
				c.Observe(context.Background(), d)
			}
		})
		wg.Go(func() {
			for i := range 20 {
				s, _ := c.state(-1)
				for _, row := range append(s.Refused, s.Bans...) {
					_, _ = c.reset(context.Background(), &question{Key: row.Key, Limiter: "default"})
					_, _ = c.shown.find(row.ID)
				}
				q := &question{Key: fmt.Sprint(i), Limiter: "default", For: "1h"}
				_, _ = c.ban(context.Background(), q)
				_, _ = c.lookUp(context.Background(), q)
			}
		})
	}
	wg.Wait()
}
