{{/*
The statements that a Backend sends, as templates of text/template: statement.go says what each is
given. Times are whole microseconds. A double holds them exactly enough until the year 2255.
*/}}

{{define "clock"}}(date_part('epoch', clock_timestamp()) * 1000000)::bigint{{end}}

{{/* The clock at the start of the statement. */}}
{{define "start"}}(date_part('epoch', statement_timestamp()) * 1000000)::bigint{{end}}

{{define "look" -}}
SELECT t.rules, t.state, coalesce($2::bigint, {{template "clock"}})
FROM (SELECT) one LEFT JOIN {{.table}} t ON t.key = $1
{{- end}}

{{define "function" -}}
SELECT {{.take}}($1::text, $2::text, $3::bigint, $4::bigint[], $5::bigint[], $6::bigint, false)
{{- end}}

{{define "take all" -}}
SELECT {{.take_all}}($1::text[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::bool, $7::bigint)
{{- end}}

{{define "settle" -}}
SELECT {{.settle}}($1::text, $2::text, $3::bigint, $4::bigint, $5::bigint, $6::bigint, $7::bigint[], $8::bigint)
{{- end}}

{{define "renew"}}SELECT {{.renew}}($1::text, $2::text, $3::bigint, $4::bigint, $5::bigint){{end}}

{{define "ban"}}SELECT {{.ban}}($1::text, $2::bigint, $3::bigint){{end}}

{{define "reset"}}DELETE FROM {{.table}} WHERE key = $1{{end}}

{{/*
At most $3 rows that have expired, in the pages from $1 to $2. They are looked at again once they are
locked; those that somebody has locked are in use. The answer is how many rows are gone, how many
that have not expired are in these pages, the page of the last one that is gone, and how many pages
the table has.
*/}}
{{define "sweep" -}}
WITH gone AS (
  DELETE FROM {{.table}} WHERE ctid = ANY (ARRAY(
    SELECT t.ctid FROM {{.table}} t
    WHERE {{template "pages"}} AND t.expires <= (SELECT coalesce($4::bigint, {{template "clock"}}))
    LIMIT $3::bigint FOR UPDATE SKIP LOCKED))
  RETURNING ctid)
SELECT count(*),
  (SELECT count(*) FROM {{.table}} t
    WHERE {{template "pages"}} AND t.expires > coalesce($4::bigint, {{template "start"}})),
  coalesce((max(ctid)::text::point)[0]::bigint, 0),
  pg_relation_size({{.table_name}}::regclass) / current_setting('block_size')::bigint
FROM gone
{{- end}}

{{define "pages" -}}
t.ctid >= format('(%s,0)', $1::bigint)::tid AND t.ctid < format('(%s,0)', $2::bigint)::tid
{{- end}}

{{/*
The statement that decides for a shape: a list of limits by their kinds. w is a token bucket whose
spans are whole microseconds, t any other one, f a fixed window, s a sliding window, c a calendar
window, u no limit.

Its first part is for what nearly every decision is: the key is new, or it was written under the
same rules and has room. It is one INSERT … ON CONFLICT DO UPDATE, as a counter would be, with the
clock read after the row was locked. WHERE may see an earlier time than SET, and whatever has room
has room later too.

What the first part leaves alone, the function looks at, which sees the row as it is then, and
locked: a refusal, another rule, a ban, a clock that went back, a state that is not ours. It leaves
alone a new key too while the clock is outside of a calendar's window.

$1 is the key, $2 the rules, $3 the cost. Then come the arguments of each limit, those of a ban and
of calendars, which are NULL if the list has none, and the clock of a test.
*/}}
{{define "take" -}}
WITH w AS ({{template "charge" .}} RETURNING s.state)
SELECT coalesce((SELECT state FROM w), {{.Take}}($1, $2, $3::bigint, {{.Ban}}, {{.Calendars}}, {{.Argument}}, true))
{{- end}}

{{define "charge" -}}
INSERT INTO {{.Table}} AS s (key, rules, expires, state)
  {{if .Dated}}SELECT $1::text, $2::text, {{else}}VALUES ($1, $2, {{end -}}
    greatest({{range $i, $l := .Limits}}{{if $i}}, {{end}}{{template "first expiry" $l}}{{end}}),
    ARRAY[{{.Start}}{{range .Limits}}, {{template "first" .}}{{end}}]
  {{- if .Dated}} WHERE true{{range .Limits}}{{if eq .Kind "c"}} AND {{.Start}} >= {{.From}} AND {{.Start}} < {{.Until}}{{end}}{{end}}
  {{- else}}){{end}}
  ON CONFLICT (key) DO UPDATE SET (expires, state) = (
    SELECT greatest({{range $i, $l := .Limits}}{{if $i}}, {{end}}{{template "next expiry" $l}}{{end}}),
      ARRAY[now{{range .Limits}}, {{template "next" .}}{{end}}]
    FROM (SELECT {{.Clock}} AS now) c)
  WHERE s.rules = $2 AND s.state[1] <= {{.Clock}}{{range .Limits}} AND {{template "fits" .}}{{end}}
{{- end}}

{{/* The three numbers of a limit's slot in a new row. */}}
{{define "first" -}}
{{if eq .Kind "w"}}{{.Start}} + {{.Cost}}, 0, 0
{{- else if eq .Kind "t"}}{{.Start}} + {{.Cost}}, {{.Part}}, 0
{{- else if eq .Kind "u"}}0, 0, 0
{{- else if eq .Kind "c"}}{{.From}}, $3::bigint, ({{.Until}} - {{.From}}) / 1000000
{{- else}}{{.Start}}, $3::bigint, 0{{end}}
{{- end}}

{{/* When they expire. */}}
{{define "first expiry" -}}
{{if eq .Kind "w"}}{{.Start}} + {{.Cost}}
{{- else if eq .Kind "t"}}{{.Start}} + {{.Cost}} + 1
{{- else if eq .Kind "f"}}{{.Start}} + {{.Period}}
{{- else if eq .Kind "s"}}{{.Start}} + 2 * {{.Period}}
{{- else if eq .Kind "c"}}{{.Until}}
{{- else}}0{{end}}
{{- end}}

{{/* Whether the cost fits. Nothing is multiplied that may not fit into a bigint. */}}
{{define "fits" -}}
{{if eq .Kind "w"}}{{.A}} = 0 AND greatest({{.T}} - {{.Clock}}, 0) + {{.Cost}} <= {{.Full}}
{{- else if eq .Kind "t"}}{{.A}} BETWEEN 0 AND {{.Count}} - 1
    AND greatest({{.T}} - {{.Clock}}, 0) + {{.Cost}} + 1 < {{.Full}}
{{- else if eq .Kind "f"}}{{.T}} <= s.state[1] AND {{.A}} BETWEEN 0 AND {{.Count}}
    AND ({{.A}} + $3::bigint <= {{.Count}} OR {{.Clock}} - {{.T}} >= {{.Period}})
{{- else if eq .Kind "s"}}{{.T}} <= s.state[1] AND {{.A}} BETWEEN 0 AND {{.Count}}
    AND {{.B}} BETWEEN 0 AND {{.Count}} AND (
      SELECT CASE WHEN {{template "both gone" .}} THEN true
        WHEN {{template "gone" .}}
          THEN {{.A}} * (2 * {{.Period}} - now + {{.T}}) <= ({{.Count}} - $3::bigint) * {{.Period}}
        ELSE {{.B}} * ({{.Period}} - now + {{.T}})
          <= ({{.Count}} - {{.A}} - $3::bigint) * {{.Period}} END
      FROM (SELECT {{.Clock}} AS now) c)
{{- else if eq .Kind "c"}}{{.Clock}} >= {{.From}} AND {{.Clock}} < {{.Until}}
    AND {{.T}} <= s.state[1] AND {{.A}} BETWEEN 0 AND {{.Count}} AND {{.B}} BETWEEN 0 AND 1999999999999998
    AND ({{.A}} = 0 OR {{.B}} % 8388608 > 0) AND ({{.A}} + $3::bigint <= {{.Count}} OR {{template "end" .}} <= {{.Clock}})
{{- else}}true{{end}}
{{- end}}

{{/* The three numbers after the charge. */}}
{{define "next" -}}
{{if eq .Kind "w"}}{{template "time" .}}, 0, 0
{{- else if eq .Kind "t"}}{{template "time" .}} + {{template "part" .}} / {{.Count}},
      {{template "part" .}} % {{.Count}}, 0
{{- else if eq .Kind "f"}}{{template "time" .}},
      CASE WHEN {{template "gone" .}} THEN 0 ELSE {{.A}} END + $3::bigint, 0
{{- else if eq .Kind "s"}}{{template "time" .}},
      CASE WHEN {{template "gone" .}} THEN 0 ELSE {{.A}} END + $3::bigint,
      CASE WHEN {{template "both gone" .}} THEN 0 WHEN {{template "gone" .}} THEN {{.A}} ELSE {{.B}} END
{{- else if eq .Kind "c"}}{{.From}}, CASE WHEN {{template "end" .}} <= now THEN 0 ELSE {{.A}} END + $3::bigint,
      ({{.Until}} - {{.From}}) / 1000000
{{- else}}0, 0, 0{{end}}
{{- end}}

{{/* When they expire. */}}
{{define "next expiry" -}}
{{if eq .Kind "w"}}{{template "time" .}}
{{- else if eq .Kind "t"}}{{template "time" .}} + {{template "part" .}} / {{.Count}} + 1
{{- else if eq .Kind "f"}}{{template "time" .}} + {{.Period}}
{{- else if eq .Kind "s"}}{{template "time" .}} + 2 * {{.Period}}
{{- else if eq .Kind "c"}}{{.Until}}
{{- else}}0{{end}}
{{- end}}

{{/* A bucket's whole microseconds after the charge, or when the window began that now is in. */}}
{{define "time" -}}
{{if eq .Kind "f"}}CASE WHEN {{template "gone" .}} THEN now ELSE {{.T}} END
{{- else if eq .Kind "s"}}CASE WHEN {{template "both gone" .}} THEN now
      WHEN {{template "gone" .}} THEN {{.T}} + {{.Period}} ELSE {{.T}} END
{{- else}}greatest({{.T}}, now) + {{.Cost}}{{end}}
{{- end}}

{{/* A bucket's parts of a microsecond after the charge; they can be one. */}}
{{define "part"}}(CASE WHEN {{.T}} < now THEN 0 ELSE {{.A}} END + {{.Part}}){{end}}

{{/* When the window of a calendar ends that a slot is in. */}}
{{define "end"}}{{.T}} + {{.B}} % 8388608 * 1000000{{end}}

{{/* Whether a window is over, and whether the one after it is over or empty too. */}}
{{define "gone"}}now - {{.T}} >= {{.Period}}{{end}}
{{define "both gone" -}}
(now - {{.T}} >= 2 * {{.Period}} OR {{template "gone" .}} AND {{.A}} = 0)
{{- end}}

{{/*
The statements that correct a charge, for the same shapes. $3 is the difference. For more, that is one
more charge, as long as there is room. For less, the instant of the charge comes after the arguments
of the limits, and the row has to be such that each limit gives back: the time in which a bucket fills
is not over since the charge, and a window is still the one that was charged.
*/}}
{{define "settle for more" -}}
WITH w AS ({{template "charge" .}} RETURNING 1)
SELECT CASE WHEN EXISTS (SELECT FROM w) THEN 1
  ELSE {{.Settle}}($1, $2, 0, 0, $3::bigint, 0, {{.Calendars}}, {{.Argument}}) END
{{- end}}

{{define "settle for less" -}}
WITH w AS (
  UPDATE {{.Table}} AS s SET (expires, state) = (
    SELECT greatest({{range $i, $l := .Limits}}{{if $i}}, {{end}}{{template "less expiry" $l}}{{end}}),
      ARRAY[now{{range .Limits}}, {{template "less" .}}{{end}}]
    FROM (SELECT {{.Clock}} AS now) c)
  WHERE s.key = $1 AND s.rules = $2
    AND s.state[1] <= {{.Clock}}{{range .Limits}} AND {{template "gives" .}}{{end}}
  RETURNING 1)
SELECT CASE WHEN EXISTS (SELECT FROM w) THEN 1
  ELSE {{.Settle}}($1, $2, {{.Charged}}, $3::bigint, 0, 0, NULL, {{.Argument}}) END
{{- end}}

{{/* Whether a limit gives back, and its slot need not be brought up to now. */}}
{{define "gives" -}}
{{if eq .Kind "w"}}{{.A}} = 0 AND {{template "in debt" .}}
{{- else if eq .Kind "t"}}{{.A}} BETWEEN 0 AND {{.Count}} - 1 AND {{template "in debt" .}}
{{- else if eq .Kind "u"}}true
{{- else if eq .Kind "c"}}{{.A}} BETWEEN 1 AND {{.Count}} AND {{.B}} BETWEEN 1 AND 1999999999999998
    AND {{.T}} <= s.state[1] AND {{.Charged}} >= {{.T}} AND {{.Charged}} < {{template "end" .}}
    AND {{.Clock}} < {{template "end" .}}
{{- else}}{{.A}} BETWEEN 1 AND 2 * {{.Count}} AND {{.B}} BETWEEN 0 AND 1999999999999998
    AND {{.T}} <= s.state[1] AND {{.Charged}} - {{.T}} BETWEEN 0 AND {{.Period}} - 1
    AND {{.Clock}} - {{.T}} < {{.Period}}
{{- end}}
{{- end}}

{{define "in debt" -}}
{{.T}} > {{.Clock}} AND {{.T}} - s.state[1] <= 2 * {{.Full}} AND {{.Clock}} - {{.Charged}} < {{.Full}}
{{- end}}

{{/* The three numbers of a slot with less. */}}
{{define "less" -}}
{{if eq .Kind "w"}}greatest({{.T}} - {{.Cost}}, now), 0, 0
{{- else if eq .Kind "t"}}greatest({{template "less time" .}}, now),
      CASE WHEN {{template "less time" .}} < now THEN 0
        ELSE ({{.A}} - {{.Part}} + {{.Count}}) % {{.Count}} END, 0
{{- else if eq .Kind "u"}}0, 0, 0
{{- else}}{{.T}}, greatest({{.A}} - $3::bigint, 0), {{.B}}{{end}}
{{- end}}

{{/* A bucket's whole microseconds. */}}
{{define "less time"}}({{.T}} - {{.Cost}} - CASE WHEN {{.A}} < {{.Part}} THEN 1 ELSE 0 END){{end}}

{{/* When they expire. */}}
{{define "less expiry" -}}
{{if eq .Kind "w"}}greatest({{.T}} - {{.Cost}}, now)
{{- else if eq .Kind "t"}}greatest({{template "less time" .}}, now) + 1
{{- else if eq .Kind "u"}}0
{{- else if eq .Kind "c"}}{{template "end" .}}
{{- else}}{{.T}} + 2 * {{.Period}}{{end}}
{{- end}}
