#!/usr/bin/env bash
# mutate.sh breaks the algorithms by hand, one line at a time, and checks that the tests notice each.
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

run_tests() { (cd "$1" && go test -short -count=1 -failfast -timeout 60s ./backend/...) >"$2" 2>&1; }

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
	local n=$1 file what change old new dir="$work/$1"
	file=$(cut -d'|' -f1 <<<"$2" | xargs)
	what=$(sed -E 's/^[^|]*\| *([^|]*[^| ]) *\|.*/\1/' <<<"$2")
	change=$(sed -E 's/^[^|]*\|[^|]*\| ?//' <<<"$2")
	old=${change%% => *} new=${change#* => }
	copy "$dir"
	if ! OLD=$old NEW=$new perl -0777 -i -pe '
		BEGIN { for ($old = $ENV{OLD}, $new = $ENV{NEW}) { s/\\n/\n/g; s/\\t/\t/g } }
		$n = () = /\Q$old\E/g; if ($n == 1) { s/\Q$old\E/$new/ } else { $bad = $n // 0; print STDERR "$n matches\n" }
		END { exit 1 if defined $bad }' "$dir/backend/$file" 2>"$work/$n.err"; then
		echo "| $n | \`$file\` | $what | **not made**: $(cat "$work/$n.err") of \`${old}\` |" >"$work/$n.row"
	elif run_tests "$dir" "$work/$n.out"; then
		echo "| $n | \`$file\` | $what | **SURVIVED** |" >"$work/$n.row"
	elif grep -qE '\[(build|setup) failed\]' "$work/$n.out"; then
		echo "| $n | \`$file\` | $what | **not made**: $(grep -m1 -E '^[^#].*\.go:' "$work/$n.out") |" >"$work/$n.row"
	else
		echo "| $n | \`$file\` | $what | \`$(caught "$work/$n.out")\` |" >"$work/$n.row"
	fi
	rm -rf "$dir"
}

copy "$work/unchanged"
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
algorithms broken by hand, and the first test that failed because of it. Mutations: $n. Survivors: $survived.

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
algorithm/token_bucket.go | debt of the last µs is kept when it is negative | debt.us < 0 { // also => debt.us < -1 { // also
algorithm/token_bucket.go | carry-over ignored when only the count changes | if old.limit.Count == r.limit.Count && old.period == r.period { => if old.period == r.period {
algorithm/token_bucket.go | carry-over ignored when only the period changes | if old.limit.Count == r.limit.Count && old.period == r.period { => if old.limit.Count == r.limit.Count {
algorithm/token_bucket.go | a change forgets what was used | debt, changed = tokenBucketCarry(r, debt, old) => debt, changed = span{}, debt != (span{})
algorithm/token_bucket.go | a changed burst is not written | return debt, true\n\t}\n\t// Used => return debt, false\n\t}\n\t// Used
algorithm/token_bucket.go | another algorithm goes on with the state | if old == nil || old.limit.Algorithm != backend.TokenBucket { => if old == nil {
algorithm/token_bucket.go | clamp to the capacity removed | return r.full, true // the burst => return debt, changed // the burst
algorithm/token_bucket.go | clamp rounds up to the capacity | (debt.us > r.full.us || debt.num > r.full.num) => (debt.us >= 0)
algorithm/token_bucket.go | clamp ignores parts of a µs | (debt.us > r.full.us || debt.num > r.full.num) => (debt.us > r.full.us)
algorithm/token_bucket.go | a clamped state is not written | return r.full, true // the burst => return r.full, false // the burst
algorithm/token_bucket.go | carry: rounded down | if over > 0 { => if over < 0 {
algorithm/token_bucket.go | carry: parts of a µs dropped | mulAddDiv(debt.us, old.limit.Count, debt.num, old.period) => mulAddDiv(debt.us, old.limit.Count, 0, old.period)
algorithm/token_bucket.go | carry: parts of a unit dropped | mulAddDiv(units, r.period, rest, r.limit.Count) => mulAddDiv(units, r.period, 0, r.limit.Count)
algorithm/token_bucket.go | carry: debt above the old capacity is carried | \t\tdebt = old.full => \t\t_ = old.full
algorithm/token_bucket.go | wait: rounded down | return max(0, r.sub(after, r.full).ceil()) => return max(0, r.sub(after, r.full).us)
algorithm/token_bucket.go | take: wait rounded down | wait = max(0, r.sub(after, r.full).ceil()) => wait = max(0, r.sub(after, r.full).us)
algorithm/token_bucket.go | wait: an exact fit is refused | return max(0, r.sub(after, r.full).ceil()) => return max(0, r.sub(after, r.full).us+1)
algorithm/token_bucket.go | take: an exact fit is refused | wait = max(0, r.sub(after, r.full).ceil()) => wait = max(0, r.sub(after, r.full).us+1)
algorithm/token_bucket.go | take one: a debt above the capacity is not clamped | if debt.us >= r.full.us {\n\t\treturn at => if debt.us >= r.full.us && now < 0 {\n\t\treturn at
algorithm/token_bucket.go | take one: a debt that is gone is kept | debt := span{at - now, frac}\n\tif debt.us < 0 { => debt := span{at - now, frac}\n\tif debt.us < -1 {
algorithm/token_bucket.go | take one: an exact fit is refused | res.Allowed = free.us >= 0; => res.Allowed = free.us > 0;
algorithm/token_bucket.go | take one: parts of a µs are not charged | return now + debt.us, debt.num, true => return now + debt.us, 0, true
algorithm/token_bucket.go | take one: nothing is charged | \t\tdebt = after\n\t\tres.Remaining => \t\tres.Remaining
algorithm/token_bucket.go | take one: remaining without parts of a µs | res.Remaining, _ = mulAddDiv(free.us, r.limit.Count, free.num, r.period) => res.Remaining, _ = mulAddDiv(free.us, r.limit.Count, 0, r.period)
algorithm/token_bucket.go | take one: something remains after a refusal | res.Remaining = 0 => res.Remaining = 1
algorithm/token_bucket.go | take one: wait rounded down | r.sub(after, r.full).ceil()) * => r.sub(after, r.full).us) *
algorithm/token_bucket.go | take one: reset rounded down | debt.ceil()) * => debt.us) *
algorithm/token_bucket.go | take: a look asks for nothing | r.cost(max(cost, 1)) => r.cost(cost)
algorithm/token_bucket.go | take: a look is charged | \tif cost > 0 {\n\t\tif wait => \tif cost >= 0 {\n\t\tif wait
algorithm/token_bucket.go | take: a cost of the whole capacity never passes | if cost <= r.capacity { => if cost < r.capacity {
algorithm/token_bucket.go | take: one unit, whatever the cost | after = r.add(debt, r.cost(max(cost, 1))) => after = r.add(debt, r.unit)
algorithm/token_bucket.go | take: a refusal does not write what was carried | \t\tif changed { => \t\tif wait == 0 {
algorithm/token_bucket.go | take: a look says that it wrote | return changed && cost > 0 => return changed
algorithm/token_bucket.go | take: reset rounded down | debt.ceil())\n => debt.us)\n
algorithm/token_bucket.go | wait: for one unit, whatever the cost | after := r.add(span{c.Time - now, c.Frac}, r.cost(cost)) => after := r.add(span{c.Time - now, c.Frac}, r.unit)
algorithm/token_bucket.go | charge: one unit, whatever the cost | debt := r.add(span{c.Time - now, c.Frac}, r.cost(cost)) => debt := r.add(span{c.Time - now, c.Frac}, r.unit)
algorithm/token_bucket.go | charge: parts of a µs dropped | now+debt.us, debt.num\n}\n\n// tokenBucketRefund => now+debt.us, 0\n}\n\n// tokenBucketRefund
algorithm/token_bucket.go | refund: a charge as old as the refill time counts | now-charged >= r.full.ceil() => now-charged > r.full.ceil()
algorithm/token_bucket.go | refund: age measured against the period | now-charged >= r.full.ceil() => now-charged >= r.period
algorithm/token_bucket.go | refund: age ignored | if now-charged >= r.full.ceil() || debt == (span{}) => if debt == (span{})
algorithm/token_bucket.go | refund: of the whole capacity gives nothing | if cost >= r.capacity || debt.us < 0 => if cost > r.capacity || debt.us < 0
algorithm/token_bucket.go | refund: one unit, whatever the cost | debt = r.sub(debt, r.cost(cost)) => debt = r.sub(debt, r.unit)
algorithm/token_bucket.go | refund: parts of a µs dropped | now+debt.us, debt.num\n\treturn true => now+debt.us, 0\n\treturn true
algorithm/token_bucket.go | remaining: parts of a µs dropped | units, _ := mulAddDiv(free.us, r.limit.Count, free.num, r.period) => units, _ := mulAddDiv(free.us, r.limit.Count, 0, r.period)
algorithm/token_bucket.go | reset and expiry: rounded down | return span{c.Time, c.Frac}.ceil() => return c.Time
algorithm/sliding_window.go | a window lasts 1 µs longer | if age >= old.period {\n\t\tage => if age > old.period {\n\t\tage
algorithm/sliding_window.go | the window before lasts 1 µs longer | if age >= old.period || c.Prev == 0 => if age > old.period || c.Prev == 0
algorithm/sliding_window.go | an empty window is followed by the next | if age >= old.period || c.Prev == 0 => if age >= old.period
algorithm/sliding_window.go | the window before is forgotten | c.Prev, c.Used = c.Used, 0 => c.Prev, c.Used = 0, 0
algorithm/sliding_window.go | the current window is never over | c.Prev, c.Used = c.Used, 0 => c.Prev = c.Used
algorithm/sliding_window.go | carry: keeps the age in µs | age, _ = mulDiv(age, r.period, old.period) => age = min(age, r.period-1)
algorithm/sliding_window.go | carry: age off by one | age, _ = mulDiv(age, r.period, old.period) => age, _ = mulDiv(age+1, r.period, old.period)
algorithm/sliding_window.go | carry: a changed period is not written | \t\tchanged = true\n => \t\tchanged = false\n
algorithm/sliding_window.go | start of the window off by one | c.Time = now - age\n => c.Time = now - age - 1\n
algorithm/sliding_window.go | clamp of the current window removed | if c.Used > r.limit.Count { => if c.Used < 0 {
algorithm/sliding_window.go | clamp of the current window not written | c.Used, changed = r.limit.Count, true => c.Used = r.limit.Count
algorithm/sliding_window.go | clamp of the window before removed | c.Prev, changed = most, true => changed = true
algorithm/sliding_window.go | clamp of the window before not written | c.Prev, changed = most, true => c.Prev = most
algorithm/sliding_window.go | clamp of the window before ignores its weight | r.period, r.period-age); ok => r.period, r.period); ok
algorithm/sliding_window.go | clamp of the window before ignores the current one | mulDiv(r.limit.Count-c.Used, r.period, r.period-age) => mulDiv(r.limit.Count, r.period, r.period-age)
algorithm/sliding_window.go | a clock that went back is not written | age, changed = 0, true => age = 0
algorithm/sliding_window.go | wait: an exact fit is refused | if room >= 0 { => if room > 0 {
algorithm/sliding_window.go | wait: 1 µs short | left-covered(room, c.Prev, r.period) => left-covered(room, c.Prev, r.period)-1
algorithm/sliding_window.go | wait: only until the window's end | return left + r.period - covered(room+c.Used, c.Used, r.period) => return left
algorithm/sliding_window.go | wait: always two periods | return left + r.period - covered(room+c.Used, c.Used, r.period) => return left + r.period
algorithm/sliding_window.go | an empty window before needs room | if room >= used { => if room > used {
algorithm/sliding_window.go | refund: a charge at a window's start is the window before's | if charged < c.Time { => if charged <= c.Time {
algorithm/sliding_window.go | refund: always credits the current window | if charged < c.Time { => if charged < 0 {
algorithm/sliding_window.go | refund: a charge at the start of the window before is over | charged < c.Time-r.period || => charged <= c.Time-r.period ||
algorithm/sliding_window.go | refund: credits the window before for older ones | *window == 0 || charged < c.Time-r.period || => *window == 0 ||
algorithm/sliding_window.go | refund: credits for a window to come | charged < c.Time-r.period || charged >= c.Time+r.period { => charged < c.Time-r.period {
algorithm/sliding_window.go | refund: below nothing | max(0, *window-cost) => *window - cost
algorithm/sliding_window.go | remaining: rounds the weight down | if rest > 0 { => if rest < 0 {
algorithm/sliding_window.go | reset and expiry: one period early | return c.Time + 2*r.period => return c.Time + r.period
algorithm/sliding_window.go | reset and expiry: one period late | case c.Prev > 0:\n\t\treturn c.Time + r.period => case c.Prev > 0:\n\t\treturn c.Time + 2*r.period
algorithm/sliding_log.go | a charge counts 1 µs longer | now-st.Log[gone].At >= old.period => now-st.Log[gone].At > old.period
algorithm/sliding_log.go | charges age under the new limit | now-st.Log[gone].At >= old.period => now-st.Log[gone].At >= r.period
algorithm/sliding_log.go | used units of dropped charges are kept | st.Used -= st.Log[gone].Units => st.Used -= 0
algorithm/sliding_log.go | a charge now is taken for the future | .At > now\n => .At >= now\n
algorithm/sliding_log.go | carry-over ignored | if back || old.period != r.period { => if back {
algorithm/sliding_log.go | a clock that went back is ignored | if back || old.period != r.period { => if back && now < 0 || old.period != r.period {
algorithm/sliding_log.go | a carried log is not written | changed = len(st.Log) > 0 => changed = len(st.Log) > 1<<30
algorithm/sliding_log.go | clamp removed | for st.Used > r.limit.Count { => for st.Used > 1<<60 {
algorithm/sliding_log.go | clamp drops whole charges | drop := min(st.Log[0].Units, st.Used-r.limit.Count) => drop := st.Log[0].Units
algorithm/sliding_log.go | clamp writes to the shared log | st.Log, changed = slices.Clone(st.Log), true => changed = true
algorithm/sliding_log.go | carry: age off by one | mulDiv(max(0, now-c.At), r.period => mulDiv(max(0, now-c.At)+1, r.period
algorithm/sliding_log.go | carry: charges that meet replace one another | carried[last].Units += c.Units => carried[last].Units = c.Units
algorithm/sliding_log.go | carry: charges that meet stay apart | last >= 0 && carried[last].At == c.At => last >= 0 && carried[last].At > c.At
algorithm/sliding_log.go | wait: an exact fit is refused | over := st.Used + cost - r.limit.Count => over := st.Used + cost - r.limit.Count + 1
algorithm/sliding_log.go | wait: for one charge more | st.Log[i].Units; over <= 0 { => st.Log[i].Units; over < 0 || i == len(st.Log)-1 {
algorithm/sliding_log.go | wait: for the oldest charge only | return st.Log[i].At + r.period - now => return st.Log[0].At + r.period - now
algorithm/sliding_log.go | wait: 1 µs short | return st.Log[i].At + r.period - now => return st.Log[i].At + r.period - now - 1
algorithm/sliding_log.go | charge: at one instant replaces | st.Log[last].Units += cost => st.Log[last].Units = cost
algorithm/sliding_log.go | charge: at one instant stays apart | last >= 0 && st.Log[last].At == now => last >= 0 && st.Log[last].At > now
algorithm/sliding_log.go | charge: not counted | st.Used += cost => st.Used += 0
algorithm/sliding_log.go | refund: finds the next charge instead | if i == len(st.Log) || st.Log[i].At != charged { => if i == len(st.Log) {
algorithm/sliding_log.go | refund: more than the charge | cost = min(cost, st.Log[i].Units) => cost = min(cost, st.Used)
algorithm/sliding_log.go | refund: one unit, whatever the cost | st.Used -= cost => st.Used -= 1
algorithm/sliding_log.go | refund: keeps an empty charge | st.Log = slices.Delete(st.Log, i, i+1) => _ = slices.Index(st.Log, st.Log[i])
algorithm/sliding_log.go | reset and expiry: of the oldest charge | return st.Log[len(st.Log)-1].At + r.period => return st.Log[0].At + r.period
algorithm/fixed_window.go | a window lasts 1 µs longer | if age >= old.period { => if age > old.period {
algorithm/fixed_window.go | windows follow one another | *c = Counters{Time: now} => *c = Counters{Time: now - age%old.period}
algorithm/fixed_window.go | a clock that went back frees everything | if age >= old.period { => if age < 0 || age >= old.period {
algorithm/fixed_window.go | a clock that went back is not written | age, changed = 0, true => age = 0
algorithm/fixed_window.go | carry: keeps the age in µs | age, _ = mulDiv(age, r.period, old.period) => age = min(age, r.period-1)
algorithm/fixed_window.go | carry: age off by one | age, _ = mulDiv(age, r.period, old.period) => age, _ = mulDiv(age+1, r.period, old.period)
algorithm/fixed_window.go | carry: a changed period is not written | \t\tchanged = true\n => \t\tchanged = false\n
algorithm/fixed_window.go | start of the window off by one | c.Time = now - age\n => c.Time = now - age - 1\n
algorithm/fixed_window.go | clamp removed | if c.Used > r.limit.Count { => if c.Used < 0 {
algorithm/fixed_window.go | clamp not written | c.Used, changed = r.limit.Count, true => c.Used = r.limit.Count
algorithm/fixed_window.go | a fit to the last unit is refused | if c.Used+cost <= r.limit.Count { => if c.Used+cost < r.limit.Count {
algorithm/fixed_window.go | one unit too many | if c.Used+cost <= r.limit.Count { => if c.Used+cost <= r.limit.Count+1 {
algorithm/fixed_window.go | wait: 1 µs short | return c.Time + r.period - now => return c.Time + r.period - now - 1
algorithm/fixed_window.go | wait: a whole period | return c.Time + r.period - now => return r.period
algorithm/fixed_window.go | refund: a charge at the window's start is over | charged < c.Time || => charged <= c.Time ||
algorithm/fixed_window.go | refund: credits another window | charged < c.Time || => charged < 0 ||
algorithm/fixed_window.go | refund: credits for a window to come | charged < c.Time || charged >= c.Time+r.period { => charged < c.Time {
algorithm/fixed_window.go | refund: below nothing | c.Used = max(0, c.Used-cost) => c.Used -= cost
algorithm/fixed_window.go | refund: everything | c.Used = max(0, c.Used-cost) => c.Used = 0
algorithm/fixed_window.go | refund: moves the window | c.Used = max(0, c.Used-cost) => c.Used, c.Time = max(0, c.Used-cost), charged
algorithm/fixed_window.go | reset: of an empty window | if c.Used == 0 {\n\t\treturn c.Time => if c.Used < 0 {\n\t\treturn c.Time
algorithm/fixed_window.go | reset and expiry: 1 µs late | return c.Time + r.period\n => return c.Time + r.period + 1\n
algorithm/rule.go | all or none broken: a refused cost is charged | if longest == 0 {\n\t\t\tif cost => if longest >= 0 {\n\t\t\tif cost
algorithm/rule.go | the first refusal decides, not the longest | max(cost, 1)); longer(wait, longest) { => max(cost, 1)); wait != 0 && longest == 0 {
algorithm/rule.go | the last refusal decides, not the longest | max(cost, 1)); longer(wait, longest) { => max(cost, 1)); wait != 0 {
algorithm/rule.go | never is shorter than any wait | (a < 0 || a > b) } => a > b }
algorithm/rule.go | a wait is longer than never | return b >= 0 && ( => return (
algorithm/rule.go | the last of equals decides | &st.State, now); left < least { => &st.State, now); left <= least {
algorithm/rule.go | the last limit decides, not the least left | remaining(&st.State, now); left < least {\n\t\t\t\tleast, decided = left, i => remaining(&st.State, now); left < least {\n\t\t\t\tdecided = i
algorithm/rule.go | in place: a refused cost is charged | if longest == 0 {\n\t\tleast => if longest >= 0 {\n\t\tleast
algorithm/rule.go | in place: the first refusal decides, not the longest | asked); longer(wait, longest) { => asked); wait != 0 && longest == 0 {
algorithm/rule.go | in place: the last refusal decides, not the longest | asked); longer(wait, longest) { => asked); wait != 0 {
algorithm/rule.go | in place: the last limit decides, not the least left | remainingCounters(c, now); left < least {\n\t\t\t\tleast, decided = left, i => remainingCounters(c, now); left < least {\n\t\t\t\tdecided = i
algorithm/rule.go | in place: a look charges | if cost > 0 {\n\t\t\t\tr.chargeCounters => if cost >= 0 {\n\t\t\t\tr.chargeCounters
algorithm/rule.go | in place: what was charged is not written | slots[i].State.Counters = *c => _ = c
algorithm/rule.go | in place: a refusal does not write what was clamped | slots[i].State.Counters = loaded[i] => _ = loaded[i]
algorithm/rule.go | in place: a look writes what was clamped | } else if cost > 0 { => } else {
algorithm/rule.go | a look asks for nothing | r.wait(&st, now, max(cost, 1)) => r.wait(&st, now, cost)
algorithm/rule.go | a look writes | if st.changed && cost > 0 { => if st.changed {
algorithm/rule.go | a refusal writes every limit | if st.changed && cost > 0 { => if cost > 0 {
algorithm/rule.go | a look under one limit asks for nothing | r.waitCounters(&st, now, max(cost, 1)) => r.waitCounters(&st, now, cost)
algorithm/rule.go | one limit: a refused charge does not write what was carried | if write = wait == 0 || changed; write { => if write = wait == 0 || changed && wait < 0; write {
algorithm/rule.go | one limit: a refused cost is charged | \t\tif wait == 0 {\n => \t\tif wait >= 0 {\n
algorithm/rule.go | a limit without state says that it wrote | if cost > 0 && !r.stateless {\n\t\t\t\tr.charge => if cost > 0 {\n\t\t\t\tr.charge
algorithm/rule.go | another algorithm goes on with the state | s.Rule.limit.Algorithm != r.limit.Algorithm || r.stateless: => r.stateless:
algorithm/rule.go | one limit: another algorithm goes on with the state | r != old && old.limit.Algorithm != r.limit.Algorithm: => r == nil:
algorithm/rule.go | a cost of the whole capacity never passes | case cost > r.capacity: => case cost >= r.capacity:
algorithm/rule.go | expiry of a refunded window too early | return max(st.Time+r.period, r.reset(st)) => return r.reset(st)
algorithm/rule.go | expiry of a sliding window too early | return max(st.Time+r.period, r.reset(st)) => return st.Time + r.period
algorithm/rule.go | expired 1 µs late | s.Rule.Expiry(&s.State) <= now => s.Rule.Expiry(&s.State) < now
algorithm/rule.go | refund of cost 0 writes | || cost <= 0 { => || cost < 0 {
algorithm/rule.go | refund: to another algorithm | s.Rule == nil || s.Rule.limit.Algorithm != l.Algorithm || => s.Rule == nil ||
algorithm/rule.go | refund: of an unlimited charge | l.Count == 0 || l.IsUnlimited() || => l.Count == 0 ||
algorithm/rule.go | refund does not write | s.State, write = st, true => write = true
algorithm/rule.go | a refusal for ever looks like a yes | res.RetryAfter = backend.Never => res.RetryAfter = 0
algorithm/rule.go | reset after below nothing | time.Duration(max(0, reset)) => time.Duration(reset)
algorithm/rule.go | a negative cost passes | if cost < 0 { => if cost < -1 {
algorithm/rule.go | no limits pass | if len(limits) == 0 { => if len(limits) < 0 {
algorithm/rule.go | span: add drops parts of a µs | a.us + b.us, a.num + b.num => a.us + b.us, a.num
algorithm/rule.go | span: sub borrows for nothing | if s.num < 0 { => if s.num <= 0 {
algorithm/rule.go | span: whole µs rounded up | if s.num > 0 { => if s.num >= 0 {
algorithm/rule.go | decides: bursts ignored | r.limit.Burst == l.Burst && r.limit => r.limit
backend.go | capacity ignores the burst | l.Algorithm == TokenBucket && l.Burst > 0 { => l.Burst < 0 {
backend.go | parts of a µs accepted in a period | l.Period%time.Microsecond != 0 => l.Period%time.Nanosecond != 0
backend.go | 100 years to fill accepted | lo >= least => lo > least
backend.go | the largest count refused | case l.Count > MaxCount: => case l.Count >= MaxCount:
backend.go | the shortest period refused | l.Period < MinPeriod || => l.Period <= MinPeriod ||
backend.go | the longest period refused | l.Period > MaxPeriod: => l.Period >= MaxPeriod:
