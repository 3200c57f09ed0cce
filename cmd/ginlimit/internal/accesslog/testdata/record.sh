#!/usr/bin/env bash
# Records what a real nginx and a real Caddy write about the same requests, into recorded.*.log*.
# It needs nginx, caddy, curl and curl's IPv6 on 127.0.0.1 and [::1], and stops what it started.
# Then: go test ./internal/accesslog -update, and read what changed.
set -euo pipefail
cd "$(dirname "$0")"
tmp=$(mktemp -d)
nginx=
caddy=
finish() {
	[ ! "$nginx" ] || kill "$nginx" || true
	[ ! "$caddy" ] || kill "$caddy" || true
	wait || true
	rm -rf "$tmp"
}
trap finish EXIT
cat >"$tmp/nginx.conf" <<CONF
daemon off; pid $tmp/nginx.pid; error_log $tmp/error.log;
events {}
http {
	log_format json escape=json '{"time":"\$time_iso8601","msec":"\$msec","remote_addr":"\$remote_addr","remote_user":"\$remote_user",'
		'"request":"\$request","status":\$status,"body_bytes_sent":\$body_bytes_sent,"request_time":\$request_time,'
		'"http_user_agent":"\$http_user_agent","http_x_api_key":"\$http_x_api_key"}';
	access_log $tmp/combined.log combined;
	access_log $tmp/json.log json;
	server { listen 127.0.0.1:18081; listen [::1]:18081; location / { return 200 "ok\n"; } location /no { return 429; } }
}
CONF
cat >"$tmp/Caddyfile" <<CONF
{
	admin off
	auto_https off
}
http://127.0.0.1:18082, http://[::1]:18082 {
	log {
		output file $tmp/caddy.log
	}
	respond /no 429
	respond ok
}
CONF
nginx -p "$tmp" -c "$tmp/nginx.conf" 2>/dev/null & nginx=$!
HOME=$tmp XDG_DATA_HOME=$tmp XDG_CONFIG_HOME=$tmp caddy run --config "$tmp/Caddyfile" --adapter caddyfile 2>/dev/null & caddy=$!
for port in 18081 18082; do
	for ((n = 0; n < 300; n++)); do
		if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then break; fi
		sleep 0.1
	done
	ask() { curl -s -o "$tmp/out" "$@"; }
	ask "http://127.0.0.1:$port/a?b=c"
	ask "http://[::1]:$port/six"
	ask -u alice:unused -H 'X-Api-Key: k"1\' "http://127.0.0.1:$port/user"
	ask -A 'agent "quoted" \ é' -e 'http://example.com/"' "http://127.0.0.1:$port/caf%C3%A9"
	ask -A '' -X POST -d x "http://127.0.0.1:$port/no"
	exec 3<>"/dev/tcp/127.0.0.1/$port" && printf '\x16\x03\x01\x00\x01\x00\r\n\r\n' >&3 && cat <&3 >"$tmp/out" || true
	exec 3<&-
done
sleep 1
cp "$tmp/combined.log" recorded.nginx.log
cp "$tmp/json.log" recorded.nginx.jsonl
cp "$tmp/caddy.log" recorded.caddy.jsonl
