package redis_test

import (
	"crypto/tls"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ginlimit/ginlimit/backend"
	"github.com/ginlimit/ginlimit/backend/redis"
	"github.com/ginlimit/ginlimit/internal/testserver"
)

// A Backend follows the master that the sentinels name.
func TestSentinel(t *testing.T) {
	s := testserver.RedisSentinel(t, 1)
	master, replica := s.Master, s.Replicas[0]
	dialLeavesNone(t, func() {
		b, err := redis.Dial(t.Context(), s.URL(), dialPatient(redis.WithPing())...)
		require.NoError(t, err)
		dialDecides(t, b)
		require.NoError(t, b.Close())
		_, err = b.Take(t.Context(), "k", 1, dialLimit(1))
		dialUnavailable(t, err)
	})

	b, other := dialBackend(t, s.URL(), redis.WithPing()), dialBackend(t, s.URL())
	limit := dialLimit(3)
	keys := make([]string, 10)
	for i := range keys {
		keys[i] = fmt.Sprint("sentinel\x00", i)
		for range 2 {
			_, err := b.Take(t.Context(), keys[i], 1, limit)
			require.NoError(t, err)
		}
	}
	spent, remembered := keys[0], keys[1]
	for _, key := range []string{spent, remembered} {
		_, err := other.Take(t.Context(), key, 1, limit)
		require.NoError(t, err)
	}
	dialRemembered(t, b, remembered, limit)
	clusterReplicated(t, master, replica)
	_, err := replica.Do("SCRIPT", "FLUSH")
	require.NoError(t, err)

	master.Kill()
	failed := 0
	for end := time.Now().Add(clusterSoon); ; failed++ {
		require.True(t, time.Now().Before(end), "no failover")
		start := time.Now()
		res, err := b.Take(t.Context(), spent, 1, limit)
		assert.Less(t, time.Since(start), dialBudget+dialSoon)
		if err == nil {
			require.False(t, res.Allowed, "the new master knows less than the old one")
			break
		}
		dialUnavailable(t, err)
	}
	assert.Positive(t, failed)
	dialWithin(t, clusterSoon, func() bool { return s.MasterAddr() == replica.Addr() })

	// The new master did not know the scripts, and counts on from what was replicated.
	for _, key := range keys[2:] {
		for i := range 2 {
			res, err := b.Take(t.Context(), key, 1, limit)
			require.NoError(t, err)
			assert.Equal(t, i == 0, res.Allowed, "%q", key)
		}
	}
	dialDecides(t, b)

	// Refusals are remembered again, until a Reset by a Backend that has followed too.
	for _, key := range []string{spent, remembered} {
		dialRemembered(t, b, key, limit)
		dialWithin(t, clusterSoon, func() bool { return other.Reset(t.Context(), key) == nil })
		dialEventually(t, func() bool {
			res, err := b.Take(t.Context(), key, 1, limit)
			require.NoError(t, err)
			return res.Allowed && res.Source == backend.SourceStore
		})
	}
}

// What WithClientOption says of TLS holds for the Sentinels too; their password is their own.
func TestSentinelTLS(t *testing.T) {
	t.Parallel()
	master, _ := testserver.RedisTLS(t, "--requirepass", "of the master")
	sentinel, _ := testserver.RedisTLS(t, "--sentinel", "--requirepass", dialSecret)
	host, port, err := net.SplitHostPort(master.Addr())
	require.NoError(t, err)
	_, err = sentinel.Do("SENTINEL", "MONITOR", "limits", host, port, "1")
	require.NoError(t, err)
	url := "rediss://:of%20the%20master@" + sentinel.Addr() + "?master_set=limits"
	b := dialBackend(t, url, redis.WithPing(), redis.WithClientOption(func(o *rueidis.ClientOption) {
		o.TLSConfig = &tls.Config{InsecureSkipVerify: true} // each server has an authority of its own
		o.Sentinel.Password = dialSecret
	}))
	dialDecides(t, b)
	require.NotEmpty(t, master.Info("commandstats", "cmdstat_evalsha"))

	_, err = redis.Dial(t.Context(), url, dialPatient(redis.WithPing())...)
	dialUnavailable(t, err)
}
