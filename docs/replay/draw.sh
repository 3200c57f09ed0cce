#!/usr/bin/env bash
# Draws report.png: the page that docs/replay.md shows, of the synthetic log with seed 1, as
# Chromium shows it. It needs Go and chromium, as Debian has it.
set -euo pipefail
cd "$(dirname "$0")" && here=$PWD
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
(cd ../../cmd/ginlimit && go build -o "$tmp/ginlimit" .)
cd "$tmp"
./ginlimit sample >access.log
./ginlimit replay -limit 20/m -vs '30/m sliding-log' -html report.html access.log >/dev/null
chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --window-size=1000,2010 --virtual-time-budget=5000 \
	--screenshot="$tmp/report.png" "file://$tmp/report.html" 2>/dev/null
cp report.png "$here/report.png"
