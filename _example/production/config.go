package main

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/ginlimit/ginlimit"
)

// config is what differs between environments.
type config struct {
	addr         string        // ADDR, where clients connect
	adminAddr    string        // ADMIN_ADDR, where the operator does: a loopback address
	proxies      []string      // TRUSTED_PROXIES, addresses or networks separated by commas; none by default
	redisURL     string        // REDIS_URL; it is checked by redis.Dial
	redisTimeout time.Duration // REDIS_TIMEOUT, what a decision may take
	drain        time.Duration // DRAIN, what requests that have begun get at the end
	rates        rates         // CLIENT_PER_SECOND and CLIENT_BURST; the rest is in limits.go
}

// configFrom reads the environment. It reports all that is wrong at once, and it does so when the
// program starts: a limit that turns out to be a typing error under load is no limit.
func configFrom(getenv func(string) string) (config, error) {
	c := config{
		addr:      cmp.Or(getenv("ADDR"), "127.0.0.1:8080"),
		adminAddr: cmp.Or(getenv("ADMIN_ADDR"), "127.0.0.1:8081"),
		redisURL:  cmp.Or(getenv("REDIS_URL"), "redis://127.0.0.1:6379"),
		rates:     defaultRates(),
	}
	var errs []error
	check := func(name string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	_, _, err := net.SplitHostPort(c.addr)
	check("ADDR", err)
	check("ADMIN_ADDR", loopback(c.adminAddr))
	c.proxies, err = proxies(getenv("TRUSTED_PROXIES"))
	check("TRUSTED_PROXIES", err)
	c.redisTimeout, err = time.ParseDuration(cmp.Or(getenv("REDIS_TIMEOUT"), "100ms"))
	check("REDIS_TIMEOUT", err)
	c.drain, err = time.ParseDuration(cmp.Or(getenv("DRAIN"), "10s"))
	check("DRAIN", err)
	if err == nil && c.drain <= 0 {
		check("DRAIN", errors.New("it has to be longer than nothing"))
	}
	c.rates.client, err = clientRate(cmp.Or(getenv("CLIENT_PER_SECOND"), "100"), cmp.Or(getenv("CLIENT_BURST"), "200"))
	check("CLIENT_PER_SECOND, CLIENT_BURST", err)
	return c, errors.Join(errs...)
}

// loopback refuses what other machines can reach: the operator's port asks nobody for a password.
func loopback(addr string) error {
	ap, err := netip.ParseAddrPort(addr)
	if err == nil && !ap.Addr().IsLoopback() {
		return fmt.Errorf("%s is not a loopback address, such as 127.0.0.1:8081", addr)
	}
	return err
}

// proxies refuses networks that hold everybody: who trusts all addresses lets clients choose
// theirs.
func proxies(list string) (trusted []string, err error) {
	for item := range strings.SplitSeq(list, ",") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		if _, err := netip.ParseAddr(item); err != nil {
			network, err := netip.ParsePrefix(item)
			if err != nil {
				return nil, fmt.Errorf("%q is neither an address nor a network", item)
			}
			if network.Bits() == 0 {
				return nil, fmt.Errorf("%s is everybody; name your proxies", item)
			}
		}
		trusted = append(trusted, item)
	}
	return trusted, nil
}

// clientRate refuses 0 as well, which is a valid limit, and blocks everybody.
func clientRate(perSecond, burst string) (ginlimit.Limit, error) {
	n, err := strconv.ParseInt(perSecond, 10, 64)
	if err != nil {
		return ginlimit.Limit{}, err
	}
	atOnce, err := strconv.ParseInt(burst, 10, 64)
	if err != nil {
		return ginlimit.Limit{}, err
	}
	if n < 1 || atOnce < 1 {
		return ginlimit.Limit{}, errors.New("both have to be at least 1")
	}
	limit := ginlimit.PerSecond(n).WithBurst(atOnce)
	return limit, limit.Validate()
}
