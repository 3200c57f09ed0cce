package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strings"
	"time"
)

// devices knows the browsers in which a log-in has succeeded, by a cookie for each account. A
// cookie is no log-in: it only says which budget a guess is charged to, so that one that is stolen
// lets the thief make five guesses in 15 minutes. Nothing is stored. To end all devices of an
// account, when its password changes, put something that changes with it into what is signed.
type devices struct{ secret []byte }

func newDevices(secret []byte) devices { return devices{secret} }

const knownFor = 180 * 24 * time.Hour

// cookie returns the cookie of a device for an account.
func (d devices) cookie(account, id string) *http.Cookie {
	return &http.Cookie{
		Name: cookieName(account), Value: id + "." + d.signature(account, id), Path: "/login",
		MaxAge: int(knownFor.Seconds()), Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode,
	}
}

// of returns which device of an account a request comes from, or "" if it is none that is known.
func (d devices) of(r *http.Request, account string) string {
	c, err := r.Cookie(cookieName(account))
	if err != nil {
		return ""
	}
	id, signature, _ := strings.Cut(c.Value, ".")
	if !hmac.Equal([]byte(signature), []byte(d.signature(account, id))) {
		return ""
	}
	return id
}

// cookieName is different for each account, because a family may share a browser.
func cookieName(account string) string {
	hash := sha256.Sum256([]byte(account))
	return "device-" + base64.RawURLEncoding.EncodeToString(hash[:9])
}

// signature binds a device to an account. An ID has no NUL: ours are letters and digits, and of
// others nobody has the signature.
func (d devices) signature(account, id string) string {
	mac := hmac.New(sha256.New, d.secret)
	mac.Write([]byte(id + "\x00" + account))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}
