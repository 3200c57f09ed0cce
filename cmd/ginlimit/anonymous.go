package main

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"

	"github.com/ginlimit/ginlimit"
	"github.com/ginlimit/ginlimit/cmd/ginlimit/internal/replay"
)

// anonymity is the flag -anonymous: "" for none, "cut", or "hash".
type anonymity string

// String implements flag.Value.
func (a *anonymity) String() string {
	if a == nil {
		return ""
	}
	return string(*a)
}

// IsBoolFlag makes -anonymous alone a flag.
func (a *anonymity) IsBoolFlag() bool { return true }

// Set implements flag.Value.
func (a *anonymity) Set(text string) error {
	switch text {
	case "true", "cut":
		*a = "cut"
	case "hash":
		*a = "hash"
	case "false":
		*a = ""
	default:
		return fmt.Errorf("ginlimit: -anonymous=%s: use cut or hash", text)
	}
	return nil
}

// hide makes the keys of a report such that they name nobody. Hashes are made with a secret of this
// process, which it forgets, so that nobody can try out what they are of.
func (a anonymity) hide(r *replay.Report) {
	if a == "" {
		return
	}
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // never fails
	lists := []*[]replay.Caller{&r.Limits.Top}
	if r.Versus != nil {
		lists = append(lists, &r.Versus.Top, &r.Change.More, &r.Change.Fewer)
	}
	for _, list := range lists {
		for i := range *list {
			c := &(*list)[i]
			c.Key = a.of(c.Key, secret)
		}
	}
	for i := range r.BadLines {
		r.BadLines[i].Text = "" // it may have an address
	}
}

func (a anonymity) of(key string, secret []byte) string {
	if key == ginlimit.KeyOfGlobal() || strings.HasPrefix(key, "path:") {
		return key
	}
	if a == "cut" {
		if network, ok := cut(key); ok {
			return network
		}
	}
	h := hmac.New(sha256.New, secret)
	h.Write([]byte(key))
	return "hashed:" + hex.EncodeToString(h.Sum(nil)[:8])
}

// cut returns the network of an address that is a key, or a network that is no smaller.
func cut(key string) (string, bool) {
	text, ok := strings.CutPrefix(key, "ip:")
	if !ok {
		if text, ok = strings.CutPrefix(key, "net:"); !ok {
			return "", false
		}
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return "", false
		}
		p = netip.PrefixFrom(addr, addr.BitLen())
	}
	bits := 24
	if p.Addr().Is6() {
		bits = 64
	}
	return ginlimit.KeyOfIPPrefix(p.Addr(), min(24, bits, p.Bits()), min(64, p.Bits())), true
}
