#!/usr/bin/env bash
# mutate.sh breaks the algorithms, the calendar and the backend in memory by hand, one line at a time,
# and checks that the tests notice each.
#
#	backend/backendtest/mutate.sh                 # all of them: prints a Markdown table
#	backend/backendtest/mutate.sh sliding_log     # those whose file or description match the pattern
#	backend/backendtest/mutate.sh >backend/backendtest/MUTATIONS.md
#
# Every mutation is made in a copy of the package outside the tree, which stays as it is. A mutation is one line
# of the list at the end:
#
#	file | what is broken | old => new
#
# where old must occur exactly once in the file (\n and \t stand for themselves). A mutation that cannot be made
# or does not compile is a failure of the script, as is one that the tests do not notice. A mutation that breaks
# nothing, because the code is equivalent, does not belong in the list. JOBS is how many run at once (2).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# copy makes $1 a module that holds only the packages that are tested.
copy() {
	mkdir -p "$1/backend/"{algorithm,backendtest}
	cp "$root/go.mod" "$1/"
	if [ -f "$root/go.sum" ]; then cp "$root/go.sum" "$1/"; fi
	cp "$root"/backend/*.go "$1/backend/"
	cp "$root"/backend/algorithm/*.go "$1/backend/algorithm/"
	rm -f "$1"/backend/{example*,fallback,lease*}_test.go # of the decorators: they test on package memory
	cp "$root"/backend/backendtest/*.go "$1/backend/backendtest/"
	rm "$1/backend/backendtest/mutations_test.go" # of this script
}

# with_memory adds package memory. Only its own mutations are tested with it.
with_memory() {
	mkdir "$1/backend/memory"
	cp "$root"/backend/memory/*.go "$1/backend/memory/"
}

run_tests() { (cd "$1" && go test -trimpath -vet=off -short -count=1 -failfast -timeout 60s "./backend/${3:-...}") >"$2" 2>&1; }

# caught names the first rule or test that failed in the output $1.
caught() {
	local name
	name=$(grep -E '^ *--- FAIL: ' "$1" | awk '{ d = match($0, /[^ ]/); if (NR == 1 || d > last) { name = $3; last = d } else exit } END { print name }')
	if grep -q '^panic: test timed out' "$1"; then name="$name (does not end)"
	elif grep -q '^panic: ' "$1"; then name="$name (panics)"; fi
	echo "${name:-unknown}"
}

# mutant makes and tests the mutation of line $2, and writes its row to $work/$1.row.
mutant() {
	local n=$1 file what change old new only=... dir="$work/$1"
	file=$(cut -d'|' -f1 <<<"$2" | xargs)
	what=$(sed -E 's/^[^|]*\| *([^|]*[^| ]) *\|.*/\1/' <<<"$2")
	change=$(sed -E 's/^[^|]*\|[^|]*\| ?//' <<<"$2")
	old=${change%% => *} new=${change#* => }
	copy "$dir"
	if [[ $file == memory/* ]]; then
		with_memory "$dir"
		only=memory
	fi
	if ! OLD=$old NEW=$new perl -0777 -i -pe '
		BEGIN { for ($old = $ENV{OLD}, $new = $ENV{NEW}) { s/\\n/\n/g; s/\\t/\t/g } }
		$n = () = /\Q$old\E/g; if ($n == 1) { s/\Q$old\E/$new/ } else { $bad = $n // 0; print STDERR "$n matches\n" }
		END { exit 1 if defined $bad }' "$dir/backend/$file" 2>"$work/$n.err"; then
		echo "| $n | \`$file\` | $what | **not made**: $(cat "$work/$n.err") of \`${old}\` |" >"$work/$n.row"
	elif run_tests "$dir" "$work/$n.out" "$only"; then
		echo "| $n | \`$file\` | $what | **SURVIVED** |" >"$work/$n.row"
	elif grep -qE '\[(build|setup) failed\]' "$work/$n.out"; then
		echo "| $n | \`$file\` | $what | **not made**: $(grep -m1 -E '^[^#].*\.go:' "$work/$n.out") |" >"$work/$n.row"
	else
		echo "| $n | \`$file\` | $what | \`$(caught "$work/$n.out")\` |" >"$work/$n.row"
	fi
	rm -rf "$dir"
}

copy "$work/unchanged"
with_memory "$work/unchanged"
if ! run_tests "$work/unchanged" "$work/unchanged.out"; then
	cat "$work/unchanged.out" >&2
	echo "mutate.sh: the tests fail without any mutation" >&2
	exit 2
fi

n=0
while IFS= read -r line; do
	n=$((n + 1))
	while [ "$(jobs -rp | wc -l)" -ge "${JOBS:-2}" ]; do wait -n || true; done
	mutant "$(printf %03d "$n")" "$line" &
done < <(sed '1,/^# The list\.$/d' "${BASH_SOURCE[0]}" | grep -E '^[a-z_/]+\.go' | grep -E "${1:-.}")
wait

rows=$(cat "$work"/*.row)
survived=$(grep -c 'SURVIVED' <<<"$rows" || true)
unmade=$(grep -c 'not made' <<<"$rows" || true)
cat <<TABLE
# Mutations

Made by \`backend/backendtest/mutate.sh >backend/backendtest/MUTATIONS.md\`: each row is one line of the
algorithms, the calendar or package memory broken by hand, and the first test that failed because of it.
Mutations: $n. Survivors: $survived.

| # | file | mutation | caught by |
|---|---|---|---|
$rows
TABLE
if [ "$survived" -ne 0 ] || [ "$unmade" -ne 0 ]; then
	echo "mutate.sh: $survived survived, $unmade could not be made" >&2
	exit 1
fi
exit 0

# The list.
algorithm/token_bucket.go | used: parts of a µs dropped | mulAddDiv(st.Time-now, r.limit.Count, st.Rest, r.period) // at most twice the capacity => mulAddDiv(st.Time-now, r.limit.Count, 0, r.period) // at most the capacity
algorithm/token_bucket.go | used: rounded down | if part > 0 {\n\t\tunits++ => if part > 1<<60 {\n\t\tunits++
algorithm/token_bucket.go | used: rounded up always | if part > 0 {\n\t\tunits++ => if part >= 0 {\n\t\tunits++
algorithm/token_bucket.go | until: for a cost of one waits for the capacity | left = r.but1 => left = r.full
algorithm/token_bucket.go | until: any cost waits as one unit does | left = r.spanOf(min(units, 2*r.capacity)) => left = r.but1
algorithm/token_bucket.go | until: a larger limit waits | } else if units != r.capacity { => } else {\n\t\tunits = min(units, 0)
algorithm/token_bucket.go | until: rounded down | r.sub(span{st.Time - now, st.Rest}, left).ceil()) => r.sub(span{st.Time - now, st.Rest}, left).us)
algorithm/token_bucket.go | until: an exact fit is refused | return max(0, r.sub(span{st.Time - now, st.Rest}, left).ceil()) => return max(0, r.sub(span{st.Time - now, st.Rest}, left).us+1)
algorithm/token_bucket.go | reset and expiry: rounded down | return span{st.Time, st.Rest}.ceil() => return st.Time
algorithm/token_bucket.go | carry: what was used is forgotten | return State{Time: now + us, Rest: num} => return State{Time: now + 0*us, Rest: 0 * num}
algorithm/token_bucket.go | carry: parts of a µs dropped | mulAddDiv(st.Time-now, old.limit.Count, st.Rest, old.period) => mulAddDiv(st.Time-now, old.limit.Count, 0, old.period)
algorithm/token_bucket.go | carry: rounded down | if over > 0 { => if over < 0 {
algorithm/token_bucket.go | carry: parts of a unit dropped | mulAddDiv(units, r.period, rest, r.limit.Count) => mulAddDiv(units, r.period, 0, r.limit.Count)
algorithm/token_bucket.go | charge: one unit, whatever the cost | if units > 1 { => if units < 0 {
algorithm/token_bucket.go | charge: parts of a µs dropped | return State{Time: at.us, Rest: at.num}\n} => return State{Time: at.us}\n}
algorithm/token_bucket.go | refund: a charge as old as the refill time counts | now-charged >= r.full.ceil() => now-charged > r.full.ceil()
algorithm/token_bucket.go | refund: age measured against the Period | now-charged >= r.full.ceil() => now-charged >= r.period
algorithm/token_bucket.go | refund: age ignored | || now-charged >= r.full.ceil() { => {
algorithm/token_bucket.go | refund: everything, whatever the cost | r.spanOf(min(units, 2*r.capacity)))\n\tif at.us < now { => r.spanOf(2*r.capacity))\n\tif at.us < now {
algorithm/token_bucket.go | refund: parts of a µs dropped | return State{Time: at.us, Rest: at.num}, true => return State{Time: at.us}, true
algorithm/token_bucket.go | quick: a debt that is gone is kept | if debt.us < 0 { // also => if debt.us < -1 { // also
algorithm/token_bucket.go | quick: a debt above the capacity is judged as it is | if debt.us >= r.full.us { => if debt.us >= 1<<60 {
algorithm/token_bucket.go | quick: a cost above the capacity waits | if cost <= r.capacity { => if cost <= 2*r.capacity {
algorithm/token_bucket.go | quick: a cost of the whole capacity never passes | if cost <= r.capacity { => if cost < r.capacity {
algorithm/token_bucket.go | quick: one unit, whatever the cost | if cost > 1 {\n\t\t\tafter => if cost < 0 {\n\t\t\tafter
algorithm/token_bucket.go | quick: wait rounded down | r.sub(after, r.full).ceil()); a.Wait => r.sub(after, r.full).us); a.Wait
algorithm/token_bucket.go | quick: an exact fit is refused | r.sub(after, r.full).ceil()); a.Wait => r.sub(after, r.full).us+1); a.Wait
algorithm/token_bucket.go | quick: a refused cost is charged | a.Wait == 0 && cost > 0 { => cost > 0 {
algorithm/token_bucket.go | quick: a look is charged | a.Wait == 0 && cost > 0 { => a.Wait == 0 {
algorithm/token_bucket.go | quick: nothing remains after a refusal | if a.Wait == 0 || cost > 1 { => if a.Wait == 0 {
algorithm/token_bucket.go | quick: remaining without parts of a µs | mulAddDiv(free.us, r.limit.Count, free.num, r.period) => mulAddDiv(free.us, r.limit.Count, 0, r.period)
algorithm/token_bucket.go | quick: reset rounded down | a.Reset = debt.ceil() => a.Reset = debt.us
algorithm/token_bucket.go | quick: parts of a µs are not charged | return State{Time: now + debt.us, Rest: debt.num}, a, true => return State{Time: now + debt.us}, a, true
algorithm/sliding_window.go | a window lasts 1 µs longer | if now-st.Time >= r.period {\n => if now-st.Time > r.period {\n
algorithm/sliding_window.go | the window before is forgotten | return State{Time: st.Time + r.period, Rest: st.Used} => return State{Time: st.Time + r.period}
algorithm/sliding_window.go | the current window is never over | return State{Time: st.Time + r.period, Rest: st.Used} => return State{Time: st.Time + r.period, Used: st.Used, Rest: st.Used}
algorithm/sliding_window.go | the next window begins now | return State{Time: st.Time + r.period, Rest: st.Used} => return State{Time: now, Rest: st.Used}
algorithm/sliding_window.go | used: the weight is rounded down | if rest > 0 {\n\t\tweight++ => if rest < 0 {\n\t\tweight++
algorithm/sliding_window.go | used: the window before weighs as much as ever | mulAddDiv(st.Rest, st.Time+r.period-now, 0, r.period) => mulAddDiv(st.Rest, r.period, 0, r.period)
algorithm/sliding_window.go | used: the current window alone | return st.Used + weight => return st.Used + 0*weight
algorithm/sliding_window.go | until: an exact fit is refused | room >= 0 { => room > 0 {
algorithm/sliding_window.go | until: 1 µs short | left-r.covered(room, st.Rest)) => left-r.covered(room, st.Rest)-1)
algorithm/sliding_window.go | until: only until the window's end | return left + r.period - r.covered(units, st.Used) => return left
algorithm/sliding_window.go | until: always two Periods | return left + r.period - r.covered(units, st.Used) => return left + r.period
algorithm/sliding_window.go | an empty window before needs room | if room >= used { => if room > used {
algorithm/sliding_window.go | reset: one Period early | return st.Time + 2*r.period => return st.Time + r.period
algorithm/sliding_window.go | reset: one Period late | case st.Rest > 0:\n\t\treturn st.Time + r.period => case st.Rest > 0:\n\t\treturn st.Time + 2*r.period
algorithm/sliding_window.go | reset: of empty windows | default:\n\t\treturn st.Time => default:\n\t\treturn st.Time + r.period
algorithm/sliding_window.go | expiry: a refunded window is forgotten | return max(st.Time+r.period, slidingWindowReset(r, st)) => return slidingWindowReset(r, st)
algorithm/sliding_window.go | expiry: one Period early | return max(st.Time+r.period, slidingWindowReset(r, st)) => return st.Time + r.period
algorithm/sliding_window.go | carry: keeps the age in µs | st.Time = now - r.scaled(now-st.Time, old) => st.Time = max(st.Time, now-r.period+1)
algorithm/sliding_window.go | carry: age off by one | r.scaled(now-st.Time, old) => r.scaled(now-st.Time+1, old)
algorithm/sliding_window.go | carry: the window begins anew | st.Time = now - r.scaled(now-st.Time, old) => st.Time = now
algorithm/sliding_window.go | charge: not counted | st.Used += units => st.Used += 0
algorithm/sliding_window.go | charge: to the window before | st.Used += units => st.Rest += units
algorithm/sliding_window.go | refund: a charge at the start of the window before is over | case charged < st.Time-r.period || => case charged <= st.Time-r.period ||
algorithm/sliding_window.go | refund: credits the window before for older ones | case charged < st.Time-r.period || charged => case charged
algorithm/sliding_window.go | refund: credits for a window to come | case charged < st.Time-r.period || charged >= st.Time+r.period: => case charged < st.Time-r.period:
algorithm/sliding_window.go | refund: a charge at a window's start is the window before's | case charged >= st.Time: => case charged > st.Time:
algorithm/sliding_window.go | refund: always credits the current window | case charged >= st.Time: => case charged >= 0 || charged < 0:
algorithm/sliding_window.go | refund: below nothing | st.Used = max(0, st.Used-units) => st.Used = st.Used - units
algorithm/sliding_window.go | refund: below nothing in the window before | st.Rest = max(0, st.Rest-units) => st.Rest = st.Rest - units
algorithm/sliding_window.go | refund: of the current window not written | given = st.Used > 0 => given = st.Used < 0
algorithm/sliding_window.go | refund: of the window before not written | given = st.Rest > 0 => given = st.Rest < 0
algorithm/sliding_window.go | refund: writes where there was nothing | given = st.Used > 0 => given = true
algorithm/sliding_window.go | quick: what has expired moves on | if slidingWindowExpiry(r, st) <= now { => if slidingWindowExpiry(r, st) < now {
algorithm/sliding_window.go | quick: what has expired is kept | if slidingWindowExpiry(r, st) <= now { => if now < -1<<62 {
algorithm/sliding_window.go | quick: a cost of the whole capacity never passes | cost <= r.capacity { => cost < r.capacity {
algorithm/sliding_window.go | quick: a look asks for nothing | r.capacity-max(cost, 1)) => r.capacity-cost)
algorithm/sliding_window.go | quick: a refused cost is charged | if a.Wait == 0 { => if a.Wait >= 0 {
algorithm/sliding_window.go | quick: reset of empty windows | a.Reset = slidingWindowReset(r, st) - now => a.Reset = slidingWindowReset(r, st) - st.Time
algorithm/sliding_log.go | those that have left count | return (*st.Log)[st.Rest:] => return *st.Log
algorithm/sliding_log.go | a charge counts 1 µs longer | if now-c.At < r.period { => if now-c.At <= r.period {
algorithm/sliding_log.go | used units of those that have left are kept | st.Used -= c.Units\n\t\tst.Rest++ => st.Rest++
algorithm/sliding_log.go | charges that meet replace one another | log[last].Units += c.Units => log[last].Units = c.Units
algorithm/sliding_log.go | charges that meet stay apart | last >= 0 && log[last].At == c.At { => last >= 0 && log[last].At > c.At {
algorithm/sliding_log.go | moved: the sum is lost | return State{Used: st.Used, Log: &log} => return State{Log: &log}
algorithm/sliding_log.go | until: an exact fit is refused | for over > log[i].Units { => for over >= log[i].Units && i < len(log)-1 {
algorithm/sliding_log.go | until: for the oldest charge only | for over > log[i].Units { => for over > log[i].Units && i > len(log) {
algorithm/sliding_log.go | until: 1 µs short | return log[i].At + r.period - now => return log[i].At + r.period - now - 1
algorithm/sliding_log.go | until: one unit more | over := st.Used - units\n => over := st.Used - units + 1\n
algorithm/sliding_log.go | reset and expiry: of the oldest charge | return log[len(log)-1].At + r.period => return log[0].At + r.period
algorithm/sliding_log.go | carry: ignored | if r.period == old.period { => if r.period != 0 {
algorithm/sliding_log.go | carry: age off by one | r.scaled(now-at, old) }) => r.scaled(now-at+1, old) })
algorithm/sliding_log.go | carry: ages in µs | return now - r.scaled(now-at, old) }) => return max(at, now-r.period+1) })
algorithm/sliding_log.go | charge: not counted | st.Used += units\n\tif last => if last
algorithm/sliding_log.go | charge: at one instant replaces | log[last].Units += units => log[last].Units = units
algorithm/sliding_log.go | charge: at one instant stays apart | last >= 0 && log[last].At == now => last >= 0 && log[last].At > now
algorithm/sliding_log.go | charge: those that have left come back when the log grows | st.Rest = 0 => st.Rest += 0
algorithm/sliding_log.go | refund: finds the next charge instead | if i == len(log) || log[i].At != charged { => if i == len(log) {
algorithm/sliding_log.go | refund: more than the charge | units = min(units, log[i].Units) => units = min(units, st.Used)
algorithm/sliding_log.go | refund: not taken off the sum | st.Used -= units\n => st.Used -= 0\n
algorithm/sliding_log.go | refund: keeps an empty charge | ; log[i].Units == 0 { => ; log[i].Units < 0 {
algorithm/sliding_log.go | refund: takes another charge out | slices.Delete(*st.Log, int(st.Rest)+i, int(st.Rest)+i+1) => slices.Delete(*st.Log, i, i+1)
algorithm/fixed_window.go | used: nothing | return st.Used } => return 0 * st.Used }
algorithm/fixed_window.go | until: one unit too many | if st.Used <= units { => if st.Used <= units+1 {
algorithm/fixed_window.go | carry: keeps the age in µs | st.Time = now - r.scaled(now-st.Time, old) => st.Time = max(st.Time, now-r.period+1)
algorithm/fixed_window.go | carry: age off by one | r.scaled(now-st.Time, old) => r.scaled(now-st.Time+1, old)
algorithm/fixed_window.go | carry: the window begins anew | st.Time = now - r.scaled(now-st.Time, old) => st.Time = now
algorithm/fixed_window.go | refund: a charge at the window's start is over | charged < st.Time || => charged <= st.Time ||
algorithm/fixed_window.go | refund: credits another window | charged < st.Time ||  => 
algorithm/fixed_window.go | refund: credits for a window to come | charged < st.Time || charged >= st.Time+r.period { => charged < st.Time {
algorithm/fixed_window.go | refund: below nothing | st.Used = max(0, st.Used-units) => st.Used -= units
algorithm/fixed_window.go | refund: everything | st.Used = max(0, st.Used-units) => st.Used = 0
algorithm/fixed_window.go | refund: moves the window | st.Used = max(0, st.Used-units) => st.Used, st.Time = max(0, st.Used-units), charged
algorithm/fixed_window.go | refund: writes where there was nothing | if st.Used == 0 || charged => if charged
algorithm/rule.go | a limit without state keeps one | r.stateless = l.Count == 0 || l.IsUnlimited() => r.stateless = l.Count == 0
algorithm/rule.go | all but one unit: the capacity | r.spanOf(r.capacity-1) => r.spanOf(r.capacity)
algorithm/rule.go | decides: bursts ignored | r.limit.Burst == l.Burst &&\n\t\tr.limit => r.limit
algorithm/rule.go | span: add drops parts of a µs | a.us + b.us, a.num + b.num => a.us + b.us, a.num
algorithm/rule.go | span: sub borrows for nothing | if s.num < 0 { => if s.num <= 0 {
algorithm/rule.go | span: whole µs rounded up | if s.num > 0 { => if s.num >= 0 {
algorithm/rule.go | scaled: the other way round | mulAddDiv(age, r.period, 0, from.period) => mulAddDiv(age, from.period, 0, r.period)
algorithm/rule.go | scaled: rounded up | return us\n}\n\n// mulAddDiv => return us + 1\n}\n\n// mulAddDiv
algorithm/take.go | a look asks for nothing | r.wait(&mine[i], now, max(cost, 1)) => r.wait(&mine[i], now, cost)
algorithm/take.go | the first refusal decides, not the longest | if longer(wait, longest) { => if wait != 0 && longest == 0 {
algorithm/take.go | the last refusal decides, not the longest | if longer(wait, longest) { => if wait != 0 {
algorithm/take.go | a look charges | wait == 0 && cost > 0 && slices.ContainsFunc( => wait == 0 && cost >= 0 && slices.ContainsFunc(
algorithm/take.go | a charge of nothing is written | case wait == 0 && cost > 0 && slices.ContainsFunc(rules, (*Rule).keeps): => case wait == 0 && cost > 0:
algorithm/take.go | all or none broken: a refused cost is charged | case wait == 0 && cost > 0 && => case wait >= 0 && cost > 0 &&
algorithm/take.go | refusing: not those that never pass | if wait != 0 {\n\t\t\trefusing => if wait > 0 {\n\t\t\trefusing
algorithm/take.go | refusing: the next limit | \t\t\trefusing |= 1 << i\n\t\t}\n\t\tif longer( => \t\t\trefusing |= 2 << i\n\t\t}\n\t\tif longer(
algorithm/take.go | quick: refusing: all limits | if a.Wait != 0 {\n\t\t\trefusing => if a.Wait != 0 || a.Left == 0 {\n\t\t\trefusing
algorithm/take.go | refusing: not said | *res = res.WithRefusing(places) => _ = res.WithRefusing(places)
algorithm/take.go | quick: more slots than limits | if len(slots) != len(rules) || len(slots) > 2*inline { => if len(slots) < len(rules) || len(slots) > 2*inline {\n\t\treturn 0, false, false\n\t}\n\tif len(rules) < len(slots) && slots[len(rules)].Rule == nil {
algorithm/take.go | quick: whatever the numbers | if s.Rule != r && (s.Rule == nil || !s.Rule.alike(r)) { => if s.Rule != r && (s.Rule == nil || s.Rule.row != r.row) {
algorithm/take.go | quick: the first refusal decides, not the longest | longer(a.Wait, tightest.Wait) || => a.Wait != 0 && tightest.Wait == 0 ||
algorithm/take.go | quick: the last refusal decides, not the longest | longer(a.Wait, tightest.Wait) || => a.Wait != 0 ||
algorithm/take.go | quick: the last of equals decides | a.Left < tightest.Left { => a.Left <= tightest.Left {
algorithm/take.go | quick: the last limit decides, not the least left | tightest.Wait == 0 && a.Wait == 0 && a.Left < tightest.Left { => tightest.Wait == 0 && a.Wait == 0 {
algorithm/take.go | quick: a refused cost is charged | charged = tightest.Wait == 0 && cost > 0; => charged = cost > 0;
algorithm/take.go | quick: a look charges | charged = tightest.Wait == 0 && cost > 0; => charged = tightest.Wait == 0;
algorithm/take.go | quick: what was charged is not written | s.State.Time, s.State.Used, s.State.Rest = few[i].Time, few[i].Used, few[i].Rest => _ = few[i]
algorithm/take.go | quick: the window before is not written | s.State.Time, s.State.Used, s.State.Rest = few[i].Time, few[i].Used, few[i].Rest => s.State.Time, s.State.Used = few[i].Time, few[i].Used
algorithm/take.go | a refusal for ever looks like a wait | max(backend.Never, time.Duration(a.Wait)*time.Microsecond) => max(0, time.Duration(a.Wait)*time.Microsecond)
algorithm/take.go | reset after below nothing | time.Duration(max(0, a.Reset)) => time.Duration(a.Reset)
algorithm/take.go | refund: without what has aged | load(aged, now)\n\tvar fewer => var fewer
algorithm/take.go | refund: to another algorithm | if j < 0 || aged[j].Rule.row != rules[i].row { => if j < 0 {
algorithm/take.go | refund: under the rule that is asked | row.refund(aged[j].Rule, aged[j].State => row.refund(rules[i], aged[j].State
algorithm/take.go | refund: does not write | aged[j].State, given = st, true => _, given = st, true
algorithm/take.go | refund: writes nothing but what it gave | copy(slots, aged) => copy(slots, aged[:min(1, len(slots))])
algorithm/take.go | expired 1 µs late | if s.Rule.Expiry(s.State) <= now { => if s.Rule.Expiry(s.State) < now {
algorithm/take.go | what has expired is kept for what it was | s.State = State{Time: now, Log: s.State.Log}\n => _ = now\n
algorithm/take.go | slots that move: what stood there is lost | slots[i], slots[j] = slots[j], slots[i] => slots[i] = slots[j]
algorithm/take.go | slots that move: a later limit takes the wrong one | if from[k] == i {\n\t\t\t\tfrom[k] = j => if from[k] == i {\n\t\t\t\tfrom[k] = i
algorithm/take.go | a limit without a past takes what stands at its place | if j < 0 {\n\t\t\tslots[i] = Slot{} => if j < -1 {\n\t\t\tslots[i] = Slot{}
algorithm/take.go | a slot that is left over is not looked for | return !lacks || !spare => return true
algorithm/take.go | other numbers are in place | case own != rules[j] && !own.alike(rules[j]): => case own != rules[j] && !own.kin(rules[j]):
algorithm/take.go | match: the same numbers elsewhere before those at the place | {true, (*Rule).alike}, {false, (*Rule).alike}, => {false, (*Rule).alike},
algorithm/take.go | match: never the same numbers elsewhere | {true, (*Rule).alike}, {false, (*Rule).alike}, => {true, (*Rule).alike},
algorithm/take.go | match: the same algorithm elsewhere before that at the place | {true, (*Rule).kin}, {false, (*Rule).kin}, => {false, (*Rule).kin},
algorithm/take.go | match: never the same algorithm elsewhere | {true, (*Rule).kin}, {false, (*Rule).kin}, => {true, (*Rule).kin},
algorithm/take.go | match: the place before the same algorithm elsewhere | {true, (*Rule).kin}, {false, (*Rule).kin}, => {true, (*Rule).kin}, {true, always}, {false, (*Rule).kin},
algorithm/take.go | match: never the place alone | {true, always}, => {true, func(a, b *Rule) bool { return !always(a, b) }},
algorithm/take.go | match: anything anywhere | {true, always}, => {true, always}, {false, always},
algorithm/take.go | match: a slot for several limits | pass.is(slots[j].Rule, r) && !slices.Contains(from, j) { => pass.is(slots[j].Rule, r) {
algorithm/take.go | match: a limit without state claims a slot | if from[i] < 0 && r.keeps() && slots => if from[i] < 0 && slots
algorithm/take.go | alike: whatever the count | r.kin(other) && r.limit.Count == other.limit.Count && r => r.kin(other) && r
algorithm/take.go | alike: whatever the capacity |  && r.capacity == other.capacity => 
algorithm/take.go | alike: burst as it is written | r.capacity == other.capacity => r.limit.Burst == other.limit.Burst
algorithm/take.go | kin: whatever the Period | return r.row == other.row && r.coeval(other) => return r.row == other.row
algorithm/take.go | kin: whatever the algorithm | return r.row == other.row && r.coeval(other) => return r.coeval(other)
algorithm/take.go | a cost of the whole capacity never passes | case cost > r.capacity: => case cost >= r.capacity:
algorithm/take.go | judged under the new limit | return s.Rule.row.until(s.Rule, s.State => return s.Rule.row.until(r, s.State
algorithm/take.go | judged against the old capacity | s.State, now, r.capacity-cost) => s.State, now, max(0, s.Rule.capacity-cost))
algorithm/take.go | never is shorter than any wait | (a < 0 || a > b) } => a > b }
algorithm/take.go | a wait is longer than never | return b >= 0 && ( => return (
algorithm/take.go | a limit without state is charged | if r.stateless {\n\t\treturn Slot{} => if r.stateless && now < -1<<62 {\n\t\treturn Slot{}
algorithm/take.go | a charge forgets what was used under another limit | st = r.row.carry(r, st, now, old) => st = State{Time: now}
algorithm/take.go | a charge does not carry over | case old == r || old != nil && old.alike(r): => case old == r || old != nil && old.kin(r):
algorithm/take.go | another algorithm starts empty | if units := old.row.used(old, s.State, now); units > 0 { => if units := int64(0); units > 0 {
algorithm/take.go | remaining: against the old capacity | return r.capacity - r.used(s, now) } => if s.Rule != nil {\n\t\treturn s.Rule.capacity - r.used(s, now)\n\t}\n\treturn r.capacity\n}
algorithm/take.go | remaining: below nothing | res.Remaining = max(0, a.Left) => res.Remaining = a.Left
algorithm/take.go | reset: of a limit without a past | if s.Rule == nil {\n\t\treturn now => if s.Rule == nil {\n\t\treturn now + 1
algorithm/take.go | the last of equals decides | now); left < least { => now); left <= least {
algorithm/take.go | the last limit decides, not the least left | decided, least = i, left => decided = i
algorithm/take.go | a negative cost passes | if cost < 0 {\n\t\treturn fmt => if cost < -1 {\n\t\treturn fmt
algorithm/take.go | no limits pass | if len(limits) == 0 { => if len(limits) < 0 {
backend.go | capacity ignores the burst | l.Algorithm == TokenBucket && l.Burst > 0 { => l.Burst < 0 {
backend.go | parts of a µs accepted in a Period | l.Period%time.Microsecond != 0 => l.Period%time.Nanosecond != 0
backend.go | 100 years to fill accepted | lo >= least => lo > least
backend.go | the largest count refused | case l.Count > MaxCount: => case l.Count >= MaxCount:
backend.go | the shortest Period refused | l.Period < MinPeriod || => l.Period <= MinPeriod ||
backend.go | the longest Period refused | l.Period > MaxPeriod: => l.Period >= MaxPeriod:
algorithm/take.go | match: the same Period elsewhere before that at the place | {true, (*Rule).coeval}, {false, (*Rule).coeval}, => {false, (*Rule).coeval},
algorithm/take.go | match: never the same Period elsewhere | {true, (*Rule).coeval}, {false, (*Rule).coeval}, => {true, (*Rule).coeval},
algorithm/take.go | match: the place before the same Period elsewhere | {true, (*Rule).coeval}, {false, (*Rule).coeval}, => {true, (*Rule).coeval}, {true, always}, {false, (*Rule).coeval},
algorithm/take.go | what has expired loses its rule | s.State = State{Time: now, Log: s.State.Log}\n => *s = Slot{}\n
algorithm/token_bucket.go | refund: of what has recovered | if tokenBucketReset(r, st) <= now || now => if now
algorithm/take.go | used: a debt is not in it | *res = res.WithDebt(-a.Left) => _ = res
algorithm/take.go | a judgement charges | refuse(res, refusing)\n\tif len(beside) => refuse(res, refusing)\n\tfor i, r := range rules {\n\t\tif wait == 0 && i < len(own) {\n\t\t\town[i] = r.charge(&mine[i], now, cost)\n\t\t}\n\t}\n\tif len(beside)
algorithm/take.go | a judgement asks for a unit less | decided, wait, refusing := judge(mine, rules, now, cost)\n\tif wait == 0 {\n\t\tdecided = => decided, wait, refusing := judge(mine, rules, now, cost-1)\n\tif wait == 0 {\n\t\tdecided =
algorithm/take.go | a judgement says the last limit | decided = tightest(mine, rules, now)\n\t}\n\trules[decided].fill(res, &mine[decided], now, wait)\n\trefuse(res, refusing)\n\tif len(beside) => decided = len(rules) - 1\n\t}\n\trules[decided].fill(res, &mine[decided], now, wait)\n\trefuse(res, refusing)\n\tif len(beside)
algorithm/take.go | usage: of the first limit alone | r.fill(&res[i], &mine[i], now, r.wait(&mine[i], now, 1)) => r.fill(&res[i], &mine[0], now, r.wait(&mine[0], now, 1))
algorithm/take.go | usage: asks for nothing | r.wait(&mine[i], now, 1)) => r.wait(&mine[i], now, 0))
algorithm/take.go | usage: asks for two | r.wait(&mine[i], now, 1)) => r.wait(&mine[i], now, 2))
algorithm/take.go | usage: never says when | r.fill(&res[i], &mine[i], now, r.wait => r.fill(&res[i], &mine[i], now, 0*r.wait
algorithm/take.go | usage: as it was stored | mine := arranged(few[:0], own, rules, now)\n\tfor i, r => mine := arrange(append(few[:0], own...), rules)\n\tfor i, r
algorithm/take.go | a clock that went back is not noticed | if now >= base { => if now >= base-1 {
algorithm/take.go | a clock that went back is ignored | s.State = s.Rule.row.shift(s.State, now-base) => _ = now-base
algorithm/take.go | a clock that went back moves too far | row.shift(s.State, now-base) => row.shift(s.State, 2*(now-base))
algorithm/take.go | a clock that went back: nobody is told | s.State = s.Rule.row.shift(s.State, now-base)\n\t\t}\n\t}\n\treturn true => s.State = s.Rule.row.shift(s.State, now-base)\n\t\t}\n\t}\n\treturn false
algorithm/token_bucket.go | a clock that went back moves nothing | st.Time += by => st.Time += 0 * by
algorithm/sliding_log.go | a clock that went back moves no charge | return at + by }) => return at + 0*by })
algorithm/take.go | settle: as much is more | case actual <= cost: => case actual < cost:
algorithm/take.go | settle: less is ignored | if !refund(own, rules, now, charged, cost-actual, held) { => if true {
algorithm/take.go | settle: everything comes back | charged, cost-actual, held) => charged, cost, held)
algorithm/take.go | settle: what it was comes back | charged, cost-actual, held) => charged, actual, held)
algorithm/take.go | settle: more is all of it | units := min(actual-cost, => units := min(actual,
algorithm/take.go | settle: a debt of any size | units := min(actual-cost, max(0, 2*s.Rule.capacity-s.Rule.used(&s, now))) => units := min(actual-cost, 1<<40)
algorithm/take.go | settle: no debt | max(0, 2*s.Rule.capacity-s.Rule.used(&s, now)) => max(0, s.Rule.capacity-s.Rule.used(&s, now))
algorithm/take.go | settle: a debt of a capacity less one | 2*s.Rule.capacity-s => 2*s.Rule.capacity-1-s
algorithm/take.go | settle: the debt of the limit that is asked | max(0, 2*s.Rule.capacity-s.Rule.used => max(0, 2*r.capacity-s.Rule.used
algorithm/take.go | settle: never under the new limit | s.Rule == nil || s.Rule.used(&s, now) <= r.capacity { => s.Rule == nil {
algorithm/take.go | settle: under the new limit whatever fits | s.Rule == nil || s.Rule.used(&s, now) <= r.capacity { => true {
algorithm/take.go | settle: under the new limit only below it | s.Rule.used(&s, now) <= r.capacity { => s.Rule.used(&s, now) < r.capacity {
algorithm/take.go | settle: charged when it was taken | s.State = s.Rule.row.charge(s.Rule, s.State, now, units) => s.State = s.Rule.row.charge(s.Rule, s.State, charged, units)
algorithm/take.go | settle: only the first limit | next = append(next, s)\n\t}\n\treturn append(next, beside...) => next = append(next, s)\n\t\tcost = actual\n\t}\n\treturn append(next, beside...)
algorithm/take.go | settle: one that is not known is left alone | !slices.ContainsFunc(rules, (*Rule).keeps):\n\t\treturn nil => !slices.ContainsFunc(rules, (*Rule).keeps) || len(slots) == 0:\n\t\treturn nil
algorithm/take.go | settle: a negative cost passes | if actual < 0 {\n\t\treturn fmt => if actual < -1 {\n\t\treturn fmt
algorithm/fixed_window.go | a debt ends with the window | st.Used -= over * r.capacity => st.Used -= over * r.capacity * 2
algorithm/fixed_window.go | a debt is never paid | st.Used -= over * r.capacity => st.Used -= over
algorithm/fixed_window.go | a debt's window begins now | st.Time += over * r.period => st.Time += over * (now - st.Time)
algorithm/fixed_window.go | until: one window, whatever is in use | (st.Used-units+r.capacity-1)/r.capacity*r.period => min(1, (st.Used-units+r.capacity-1)/r.capacity)*r.period
algorithm/fixed_window.go | until: a window too many | (st.Used-units+r.capacity-1)/r.capacity => (st.Used-units+r.capacity)/r.capacity
algorithm/fixed_window.go | until: 1 µs short | max(0, fixedWindowEnd(r, st, units)-now) => max(0, fixedWindowEnd(r, st, units)-now-1)
algorithm/fixed_window.go | expiry: with the first window | return max(st.Time+r.period, fixedWindowReset(r, st)) => return st.Time+r.period
algorithm/fixed_window.go | expiry: a refunded window is forgotten | return max(st.Time+r.period, fixedWindowReset(r, st)) => return fixedWindowReset(r, st)
algorithm/fixed_window.go | quick: a debt is judged | if st.Used > r.capacity { // in debt => if st.Used > 2*r.capacity { // in debt
algorithm/fixed_window.go | quick: a window lasts 1 µs longer | if end <= now { => if end < now {
algorithm/fixed_window.go | quick: windows follow one another | st, end = State{Time: now}, now+r.period => st, end = State{Time: end}, end+r.period
algorithm/fixed_window.go | quick: a cost of the whole capacity never passes | if cost > r.capacity { => if cost >= r.capacity {
algorithm/fixed_window.go | quick: a look asks for nothing | st.Used+max(cost, 1) <= r.capacity { => st.Used+cost <= r.capacity {
algorithm/fixed_window.go | quick: a refused cost is charged | a.Wait = 0\n\t\tst.Used += cost\n\t} => a.Wait = 0\n\t}\n\tst.Used += cost
algorithm/fixed_window.go | quick: reset is an instant | a.Reset = end - now => a.Reset = end
algorithm/token_bucket.go | until: a debt waits for a full bucket alone | left = r.spanOf(min(units, 2*r.capacity)) => left = r.spanOf(min(units, r.capacity))
algorithm/take.go | all: two charges of one key | if charges[j].Key == c.Key { => if charges[j].Key == c.Key && i > len(charges) {
algorithm/take.go | all: none is enough | if len(charges) == 0 { => if len(charges) < 0 {
algorithm/take.go | all: a charge is not checked | if err := CheckTake(c.Cost, c.Limits); err != nil { => if err := CheckTake(c.Cost, c.Limits); err != nil && i == 0 {
algorithm/take.go | one after another: a refusal gives nothing back | if !res.Allowed {\n\t\t\tcontinue => if true {\n\t\t\tcontinue
algorithm/take.go | one after another: a refusal is given back | if !res.Allowed {\n\t\t\tcontinue => if res.Allowed {\n\t\t\tcontinue
algorithm/take.go | one after another: given back in part | c.Key, *res, c.Cost, 0, c.Limits...) => c.Key, *res, c.Cost, 1, c.Limits...)
algorithm/take.go | one after another: what is left is what was | min(res.Remaining+c.Cost, res.Limit.Capacity()) => min(res.Remaining, res.Limit.Capacity())
algorithm/take.go | one after another: a failure is a decision | if failed != nil {\n\t\treturn nil, failed => if failed != nil {\n\t\treturn all, nil
algorithm/calendar_window.go | age: a debt ends with the window | Used: st.Used - r.capacity, Rest: st.Rest / restUnit => Used: 0 * r.capacity, Rest: st.Rest / restUnit
algorithm/calendar_window.go | age: a debt is never paid | Used: st.Used - r.capacity, Rest: st.Rest / restUnit => Used: st.Used, Rest: st.Rest / restUnit
algorithm/calendar_window.go | age: a window lasts 1 µs longer | if end := calendarWindowEnd(st); end <= now { => if end := calendarWindowEnd(st); end < now {
algorithm/calendar_window.go | age: the next window is as long as this one | Rest: st.Rest / restUnit} => Rest: st.Rest % restUnit}
algorithm/calendar_window.go | until: an exact fit is refused | case st.Used <= units:\n\t\treturn 0 => case st.Used < units:\n\t\treturn 0
algorithm/calendar_window.go | until: a debt waits for this window alone | case st.Used-r.capacity <= units: => case true:
algorithm/calendar_window.go | until: a window too many | case st.Used-r.capacity <= units: => case st.Used-r.capacity < units:
algorithm/calendar_window.go | reset: a debt ends with the window | case st.Used <= r.capacity:\n => case st.Used <= 2*r.capacity:\n
algorithm/calendar_window.go | reset: of a window of which nothing is used | return st.Time\n => return calendarWindowEnd(st)\n
algorithm/calendar_window.go | expiry: a debt ends with the window | return max(calendarWindowEnd(st), calendarWindowReset(r, st)) => return calendarWindowEnd(st)
algorithm/calendar_window.go | carry: another calendar starts empty | return r.window(now, st.Used)\n => return r.window(now, 0)\n
algorithm/calendar_window.go | charge: what was used is forgotten | return r.window(now, st.Used+units) => return r.window(now, units)
algorithm/calendar_window.go | refund: of a window that is over | charged < st.Time || charged => charged
algorithm/calendar_window.go | refund: below nothing | st.Used = max(0, st.Used-units) => st.Used -= units
algorithm/calendar_window.go | refund: everything, whatever the cost | st.Used = max(0, st.Used-units) => st.Used = 0 * units
algorithm/calendar_window.go | quick: a debt is judged | if st.Used > r.capacity { // in debt => if st.Used > 2*r.capacity { // in debt
algorithm/calendar_window.go | quick: a window lasts 1 µs longer | if calendarWindowEnd(st) <= now {\n\t\tst = => if calendarWindowEnd(st) < now {\n\t\tst =
algorithm/calendar_window.go | quick: a cost of the whole capacity never passes | case cost > r.capacity: => case cost >= r.capacity:
algorithm/calendar_window.go | quick: a look asks for nothing | case st.Used+max(cost, 1) > r.capacity: => case st.Used+cost > r.capacity:
algorithm/calendar_window.go | quick: one unit, whatever the cost | st = r.window(now, st.Used+cost) => st = r.window(now, st.Used+1)
algorithm/calendar_window.go | quick: a look is charged | case cost > 0:\n\t\tst = r.window(now, st.Used+cost) => default:\n\t\tst = r.window(now, st.Used+max(cost, 1))
algorithm/calendar_window.go | quick: reset is an instant | a.Reset = calendarWindowEnd(st) - now => a.Reset = calendarWindowEnd(st)
algorithm/calendar_window.go | window: the first that was asked for stays | if w == nil || now < w.start || now >= w.end { => if w == nil || now < w.start {
algorithm/calendar_window.go | window: stays for 1 µs | now >= w.end { => now > w.end {
algorithm/calendar_window.go | window: stays where the clock went back | w == nil || now < w.start || => w == nil ||
algorithm/calendar_window.go | window: a debt has no next one | if used > r.capacity {\n => if used > 2*r.capacity {\n
algorithm/calendar_window.go | window: the next is as long as this one | (end - start) / second, (next - end) / second} => (end - start) / second, (end - start + 0*next) / second}
algorithm/rule.go | every calendar is the same | r.period, r.calendar = l.Calendar.Numbers() => r.period, _ = l.Calendar.Numbers()
algorithm/rule.go | decides: calendars ignored | r.limit.Calendar == l.Calendar && => 
algorithm/take.go | settle: more under a calendar that is not asked charges nothing | s.State.Used += units => s.State.Used += 0 * units
calendar.go | a short month has no last day for a later first day | min(s.first, last)} => max(s.first, 0*last)}
calendar.go | a week begins on the day after its first | (weekday - s.first + 7) % 7 => (weekday - s.first + 6) % 7
calendar.go | a month begins on its day, also before it | if d.utc().Before(from.utc()) { => if d.utc().Before(from.utc()) && d.day > 31 {
calendar.go | a midnight that is left out is when it would be | if begins.Before(at) {\n\t\t\tbegins = at => if begins.Before(at) {\n\t\t\t_ = at
calendar.go | a day begins by the offset of the day before | if until.IsZero() || begins.Before(until) { => if true {
calendar.go | the first day is no part of a calendar's number | "%d %s", s.first, s.zone) => "%s", s.zone)
calendar.go | a zone is no part of a calendar's number | if s.zone == utc && s.first == usual { => if s.first == usual {
algorithm/concurrency.go | until: an exact fit is refused | if st.Used <= units { => if st.Used < units {
algorithm/concurrency.go | until: 1 µs short | return second => return second - 1
algorithm/concurrency.go | until: as of a log | until: concurrencyUntil => until: slidingLogUntil
algorithm/concurrency.go | carry: what is held is forgotten | return slidingLogAge(r, st, now) => return State{Time: now}
algorithm/concurrency.go | carry: by the Period that is over | return slidingLogAge(r, st, now) => return st
algorithm/rule.go | a unit is held for no time unless a Period is set | r.period = l.Hold().Microseconds() => r.period = max(1, l.Period.Microseconds())
algorithm/take.go | settle: for what it was gives no place back | case actual == cost && held == 0 || => case actual == cost ||
algorithm/take.go | settle: less gives no place back | cost-actual, held) { => cost-actual, 0*held) {
algorithm/take.go | settle: less gives back as much of what is held | if rules[i].holds() {\n\t\t\tback = held => if rules[i].holds() && held < 0 {\n\t\t\tback = held
algorithm/take.go | settle: less gives back as much as was held | if rules[i].holds() {\n\t\t\tback = held => if held > 0 {\n\t\t\tback = held
algorithm/take.go | settle: more gives no place back | next = append(next, s.released(charged, now, held)) => next = append(next, s)
algorithm/take.go | settle: more is held too | if r.holds() {\n\t\t\tif s.Rule => if r.holds() && held < 0 {\n\t\t\tif s.Rule
algorithm/take.go | a place comes back that another holds | s.State, _ = s.Rule.row.refund(s.Rule, s.State, now, charged, held) => s.State, _ = s.Rule.row.refund(s.Rule, s.State, now, now+0*charged, held)
algorithm/take.go | held: a place comes back twice | if !taken.Released() && slices => if slices
algorithm/take.go | held: one unit, whatever the cost | return cost\n\t}\n\treturn 0 => return 1\n\t}\n\treturn 0
algorithm/take.go | renew: what was lost is lost | aged[j] = Slot{rules[i], State{Time: now}} => continue
algorithm/take.go | renew: holds twice | s := aged[j].released(charged, now, units) => s := aged[j].released(charged, now, 0*units)
algorithm/take.go | renew: never beyond the capacity | room := 2*s.Rule.capacity - s.Rule.used(&s, now); room > 0 => room := s.Rule.capacity - s.Rule.used(&s, now); room > 0
algorithm/take.go | renew: beyond twice the capacity | s.State, now, min(units, room)) => s.State, now, units)
algorithm/take.go | renew: one unit, whatever the cost | s.State, now, min(units, room)) => s.State, now, min(1, room))
algorithm/take.go | renew: does not write | next[j] = s\n => _ = s\n
algorithm/take.go | renew: lifts a ban | next[j] = s\n\t}\n\treturn append(next, beside...) => next[j] = s\n\t}\n\treturn next[:len(next)+0*len(beside)]
algorithm/take.go | settle: more lifts a ban | next = append(next, s)\n\t}\n\treturn append(next, beside...) => next = append(next, s)\n\t}\n\treturn next[:len(next)+0*len(beside)]
algorithm/ban.go | a ban lasts 1 µs longer | return max(0, b.ban.State.Time-now) => return max(0, b.ban.State.Time+1-now)
algorithm/ban.go | as many refusals as are allowed ban | if counts.wait(&b.refusals, now, refusals) == 0 { => if counts.wait(&b.refusals, now, refusals+1) == 0 {
algorithm/ban.go | refusals are not counted | b.refusals = counts.charge(&b.refusals, now, refusals) => b.refusals = counts.charge(&b.refusals, now, 0*refusals)
algorithm/ban.go | the first ban is the longest | length := r.counter.first => length := r.counter.longest
algorithm/ban.go | a ban is twice as long however late | && now < last.Time+r.counter.longest { => {
algorithm/ban.go | a ban is twice as long 1 µs too late | && now < last.Time+r.counter.longest { => && now <= last.Time+r.counter.longest {
algorithm/ban.go | a ban is never twice as long | length = min(2*last.Used, r.counter.longest) => length = min(last.Used, r.counter.longest)
algorithm/ban.go | a ban is longer than the longest | length = min(2*last.Used, r.counter.longest) => length = 2 * last.Used
algorithm/ban.go | refusals before a ban count after it | b.refusals = Slot{}\n => 
algorithm/ban.go | how long the last ban was is forgotten when it ends | return st.Time + st.Rest => return st.Time
algorithm/ban.go | a charge or a refusal forgets the refusals | for _, s := range []Slot{b.refusals, b.ban} { => for _, s := range []Slot{b.ban} {
algorithm/ban.go | a charge or a refusal lifts a ban | for _, s := range []Slot{b.refusals, b.ban} { => for _, s := range []Slot{b.refusals} {
algorithm/ban.go | by hand: counts as the last one | Used: last.Used, Rest: last.Rest} => Used: length, Rest: last.Rest}
algorithm/ban.go | by hand: the last one is forgotten | Used: last.Used, Rest: last.Rest} => Used: 0 * last.Used, Rest: last.Rest}
algorithm/ban.go | by hand: the last one is forgotten when it ends | Used: last.Used, Rest: last.Rest} => Used: last.Used, Rest: 0 * last.Rest}
algorithm/ban.go | by hand: the limits are forgotten | return b.appended(slices.Clone(own)) => return b.appended(slices.Clone(own[:0]))
algorithm/ban.go | a caller that is banned passes | res.Allowed = false => res.Allowed = res.Allowed && left > 0
algorithm/ban.go | every refusal by a ban began it | res.WithBanned(began) => res.WithBanned(true)
algorithm/ban.go | no refusal began a ban | res.WithBanned(began) => res.WithBanned(false)
algorithm/ban.go | a ban is longer than never | if res.RetryAfter < 0 || res.RetryAfter >= wait { => if res.RetryAfter >= wait {
algorithm/ban.go | a ban decides before a limit that waits for longer | || res.RetryAfter >= wait { => {
algorithm/ban.go | a debt shows through a ban | *res = res.WithDebt(0)\n => 
algorithm/ban.go | what is left shows through a ban | res.Remaining, res.RetryAfter, res.ResetAfter = 0, wait, wait => res.RetryAfter, res.ResetAfter = wait, wait
algorithm/ban.go | a count of refusals is a limit's past | (slots[n-1].Rule == banned || slots[n-1].Rule.counts) => slots[n-1].Rule == banned
algorithm/take.go | a ban is not seen | if len(beside) > 0 && Looks(rules) {\n => if len(beside) > 2 && Looks(rules) {\n
algorithm/take.go | what a ban refuses is charged | case left > 0: // nothing => case left < 0: // nothing
algorithm/take.go | a look counts as a refusal | case wait != 0 && cost > 0 && counter != nil: => case wait != 0 && counter != nil:
algorithm/take.go | a charge forgets refusals and bans | mine, next = next, bans.appended(next) => mine = next
algorithm/take.go | the refusal that brings a ban about does not say so | bans.refuse(counter, now, 1)\n\t\tleft = bans.left(now) => bans.refuse(counter, now, 1)
algorithm/take.go | a refusal counts twice | bans.refuse(counter, now, 1) => bans.refuse(counter, now, 2)
algorithm/take.go | the quick way counts no refusal | if tightest.Wait != 0 && counter != nil && cost > 0 { => if tightest.Wait > 1<<62 && counter != nil && cost > 0 {
algorithm/take.go | a judgement sees no ban | if len(beside) > 0 && (counter != nil || Looks(rules)) { => if len(beside) > 2 && (counter != nil || Looks(rules)) {
memory/memory.go | the quick way counts no refusal | ok && (answer.Wait == 0 || len(limits) == 1) { => ok {
memory/memory.go | settle: for what it was gives no place back | !taken.Allowed || cost == actual && held == 0 { => !taken.Allowed || cost == actual {
memory/memory.go | renew: the charge is as old as it was | taken.At = time.UnixMicro(now)\n => 
memory/memory.go | renew: does not write | &change{what: renews, => &change{what: -1,
memory/memory.go | what is held is packed without its charges | l.Algorithm != backend.SlidingLog && l.Algorithm != backend.Concurrency && => l.Algorithm != backend.SlidingLog &&
memory/memory.go | a count of refusals is packed as a limit | slots[0].Rule.Counts() || => 
memory/memory.go | a ban of a key that is not known is lost | b.keep(p.shard, &p.table.entries[at], algorithm.Ban(nil, now, d.Microseconds())) => b.keep(p.shard, &p.table.entries[at], algorithm.Ban(nil, now, 0*d.Microseconds()))
memory/memory.go | a ban of a key that is known is lost | length: d.Microseconds()} => length: 0*d.Microseconds()}
memory/all.go | a refusal of several keys counts for no ban | decided = b.take(p.res, p.place, now, p.charge.Cost, rules) => decided = b.judge(p.res, p, now, rules)
memory/overflow.go | a bucket is banned | if r.Refusals() == nil { // a bucket => if r != nil { // a bucket
