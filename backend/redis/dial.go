package redis

import (
	"context"
	"errors"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/ginlimit/ginlimit/internal/redisstore"
)

// dialTimeout is how long connecting may take, unless the URL says otherwise.
const dialTimeout = time.Second

// Dial returns a Backend that is connected to the server, the Cluster or, with master_set, the
// Sentinels at rawURL:
//
//	redis://user:password@host:6379/0                   a server, or a Cluster, which is recognised
//	redis://host1:6379?addr=host2:6379&addr=host3:6379  a Cluster, by some of its nodes
//	redis://s1:26379?addr=s2:26379&master_set=mymaster  Sentinels and the name of their master
//	rediss://…                                          the same over TLS, see below
//	unix:///run/redis/redis.sock?db=0                   a socket
//
// Over TLS a server's certificate has to be for the host in the URL, also of the servers of a
// Cluster that is found by one address. With several addresses, or with Sentinels, it has to be for
// the host by which that server is reached; set ServerName in the tls.Config by [WithClientOption]
// if all have one for the same name.
//
// A user needs these rights, with the prefix of [WithPrefix] in place of gl. INFO is for a warning
// if the server drops keys when its memory is full, and the rights to CLIENT are for remembering
// refusals.
//
//	ACL SETUSER limits on >password ~gl1:* +evalsha +eval +get +set +del +time +ping +info
//	    +client|tracking +client|caching
//
// In a Cluster add +cluster|slots +cluster|shards +asking, on every node; behind Sentinels add
// +role, on the master and its replicas. The Sentinels' own user, which [WithClientOption] sets,
// needs
//
//	ACL SETUSER limits on >password &* +sentinel|get-master-addr-by-name +sentinel|sentinels
//	    +subscribe +unsubscribe +ping +client|tracking
//
// The other parameters are those of rueidis.ParseURL: db, dial_timeout, write_timeout,
// client_cache=0, skip_verify, protocol, client_name, and max_retries, of which 0 is what Dial does
// anyway. Dial differs from rueidis' defaults in what makes a limiter fast and keeps it from
// hanging: it pipelines over one connection to each server, on which it writes together what many
// callers ask at the same time, retries nothing, gives up dialing after 1 s, finds a dead peer
// within 3 s, keeps buffers small, and uses client-side caching if the server has it. Whether a
// server answers is measured where its connection is read: however busy the application is, a
// server that sends something is not taken for one that hangs.
//
// An application also starts while Redis is down: Dial returns once Redis is connected, or after
// the time of [WithTimeout]. It tries again while it is asked for decisions, which fail with
// backend.ErrUnavailable until then. It returns an error if rawURL or an option is not valid and,
// with [WithPing], if Redis did not decide before ctx ended. Close the Backend when it is no longer
// used.
func Dial(ctx context.Context, rawURL string, opts ...Option) (*Backend, error) {
	c, err := newConfig(opts)
	if err != nil {
		return nil, err
	}
	option, err := clientOption(rawURL, c.client)
	if err != nil {
		return nil, err
	}
	b := redisstore.New(c.Config)
	wrap(b, &option)
	b.Dials(func() (redisstore.Client, error) { return newClient(option) }, option.InitAddress)
	wait, ours := ctx, false // whether that is all the time that a call has
	if !b.Ping {
		last, ok := ctx.Deadline()
		ours = !ok || time.Until(last) >= b.Timeout
		var cancel context.CancelFunc
		wait, cancel = context.WithTimeout(ctx, b.Timeout)
		defer cancel()
	}
	client, err := b.Wait(wait, ours)
	if err == nil && b.Ping {
		err = b.Probe(wait, client)
	}
	if err == nil {
		b.Check(wait, client)
	} else if b.Ping {
		_ = b.Close()
		return nil, b.Unavailable("dial", err)
	}
	return &Backend{b}, nil
}

// newClient connects. A server without client-side caching gets a client that does without.
func newClient(option rueidis.ClientOption) (redisstore.Client, error) {
	client, err := rueidis.NewClient(option)
	if errors.Is(err, rueidis.ErrNoCache) {
		option.DisableCache = true
		client, err = rueidis.NewClient(option)
	}
	if client == nil { // with ForceSingleClient there is one also if err is not nil
		return nil, err
	}
	return adapter{client}, err
}

// clientOption returns how to connect to rawURL. Its errors never quote the URL, which may hold a
// password.
func clientOption(rawURL string, change []func(*rueidis.ClientOption)) (rueidis.ClientOption, error) {
	u, problem := parseURL(rawURL)
	if problem == "" {
		problem = checkURL(u)
	}
	if problem != "" {
		return rueidis.ClientOption{}, errors.New("ginlimit: redis.Dial: " + problem)
	}
	if u.Path == "/" {
		u.Path = ""
	}
	option, err := rueidis.ParseURL(u.String())
	if err != nil {
		return rueidis.ClientOption{}, errors.New("ginlimit: redis.Dial: the URL's path or a parameter is not valid; see the documentation of redis.Dial")
	}
	option.AlwaysPipelining = true
	option.DisableRetry = true // of reads, which would take up the time that a decision has
	if option.Dialer.Timeout == 0 {
		option.Dialer.Timeout = dialTimeout
	}
	if option.ConnWriteTimeout == 0 {
		option.ConnWriteTimeout = 2 * time.Second
	}
	option.Dialer.KeepAlive = time.Second
	// One connection for each server: its batches are the largest, and it carries more than a
	// server can decide. On two cores it decided 13 % more with 64 goroutines than two connections,
	// and 26 to 30 % more than four and eight. With 512 goroutines it decided 6 to 21 % more
	// (benchmarks/cmd/bench -only connections). Many cores may differ.
	option.PipelineMultiplex = -1
	option.ReadBufferEachConn, option.WriteBufferEachConn = 32<<10, 32<<10
	option.CacheSizeEachConn = 16 << 20
	option.ClusterOption.MaxMovedRedirections = 3
	option.ClusterOption.ShardsRefreshInterval = 30 * time.Second
	if option.Sentinel.MasterSet != "" {
		option.Sentinel.TopologyRefreshInterval = 5 * time.Second
		option.Sentinel.TLSConfig = option.TLSConfig
		option.Sentinel.Dialer = option.Dialer
	}
	if option.TLSConfig != nil && (option.Sentinel.MasterSet != "" || len(option.InitAddress) > 1) {
		option.TLSConfig.ServerName = "" // otherwise it is that of the first server for all
	}
	common := option.TLSConfig
	for _, set := range change {
		set(&option)
	}
	if option.Sentinel.TLSConfig == common { // not changed by itself: it is that of the master
		option.Sentinel.TLSConfig = option.TLSConfig
	}
	return option, nil
}

// parseURL returns what rawURL says, or what is wrong with its form.
func parseURL(rawURL string) (u *url.URL, problem string) {
	const use = "; use redis://user:password@host:6379, rediss:// for TLS, or unix:///run/redis/redis.sock"
	switch {
	case rawURL == "":
		return nil, "the URL is empty" + use
	case strings.TrimSpace(rawURL) != rawURL:
		return nil, "the URL begins or ends with a space or a line's end; use it without"
	case !strings.Contains(rawURL, "://"):
		return nil, "the URL does not begin with a scheme and ://" + use
	}
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, "the URL cannot be parsed" + use + ", and %XX for special characters in the password"
	}
	return u, ""
}

// checkURL returns what is wrong with u, "" if nothing is. A "?", "#" or "/" in a password that is
// not escaped ends the host: what follows must not be taken for something else, nor be sent
// anywhere.
func checkURL(u *url.URL) string {
	query, err := url.ParseQuery(u.RawQuery)
	switch {
	case u.Opaque != "":
		return "the URL has no // after its scheme; use redis://host:6379"
	case u.Fragment != "":
		return "the URL has a # in it; use %23 for one in the password"
	case err != nil:
		return "the URL's query is not valid; use %XX for special characters in the password"
	}
	switch u.Scheme {
	case "redis", "rediss", "valkey", "valkeys":
		switch {
		case u.Hostname() == "":
			return "the URL has no host; use redis://host:6379"
		case strings.Contains(u.Host, ","):
			return "the URL has several hosts; use redis://host1:6379?addr=host2:6379&addr=host3:6379"
		}
		for _, addr := range append([]string{u.Host}, query["addr"]...) {
			if !validAddr(addr, addr == u.Host) {
				return "an address in the URL is not valid; use host:port, the port between 1 and 65535"
			}
		}
		if db := strings.Trim(u.Path, "/"); db != "" && !validDB(db) {
			return "the URL's path is not the number of a database; use redis://host:6379/0"
		}
	case "unix":
		if u.Path == "" {
			return "the URL has no path; use unix:///run/redis/redis.sock"
		}
	default:
		return "the URL has an unknown scheme; use redis://, rediss:// for TLS, unix://, or redis://sentinel:26379?master_set=name for Sentinels"
	}
	for name, values := range query {
		for _, value := range values {
			switch name {
			case "addr", "client_name":
			case "master_set":
				if value == "" {
					return "the URL's master_set is empty; use the name by which the Sentinels know the master, or leave it out"
				}
			case "db":
				if !validDB(value) {
					return "the URL's db is not the number of a database; use 0 or more"
				}
			case "dial_timeout", "write_timeout":
				if d, err := time.ParseDuration(value); err != nil || d <= 0 {
					return "the URL's " + name + " is not a duration above 0; use 500ms or the like"
				}
			case "skip_verify":
				if _, err := strconv.ParseBool(value); err != nil && value != "" {
					return "the URL's skip_verify is not valid; use true or false"
				}
			case "protocol", "client_cache", "max_retries":
				if _, err := strconv.ParseUint(value, 10, 8); err != nil {
					return "the URL's " + name + " is not a number; use one, or leave it out"
				}
			default:
				return "the URL has an unknown parameter; see the documentation of redis.Dial, and use %XX for special characters in the password"
			}
		}
	}
	return ""
}

func validDB(s string) bool {
	n, err := strconv.Atoi(s)
	return err == nil && n >= 0
}

// validAddr reports whether addr is host:port; the port may be missing if that is optional.
func validAddr(addr string, optional bool) bool {
	if strings.ContainsAny(addr, "@/?# ") { // a password may stand before it, and would be sent to the resolver of names
		return false
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return optional && !strings.ContainsAny(strings.Trim(addr, "[]"), "[]") && (strings.HasPrefix(addr, "[") || !strings.Contains(addr, ":"))
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0 && host != "" || optional && port == ""
}
