-- What package backend/algorithm does, for PostgreSQL: the twins of its functions, under their
-- names. A template of text/template, in which each function is called by the name that it is given
-- here.
--
-- fits stands for a wait of 0. What only an answer needs, until, used and reset, the caller works
-- out of the reply with the Go functions, and checks the verdict by it.
--
-- Times are whole microseconds since 1970. Every number is below 2^53 in size: counts are below
-- 1e15, periods below 3.2e13, and an empty bucket fills in less than 3.2e15 (backend.MaxCount,
-- MaxPeriod, MaxRefill). Sums fit into a bigint; a product is made in numeric unless a division has
-- shown that it fits.
--
-- A row has rules, a text of numbers: the layout's version, 1, and four for each slot: kind, count,
-- period, burst, the rule that the slot was last charged under. Its state is the instant of the
-- last write, three numbers for each slot, and the charges of all logs, in the order of the slots:
--
--   kind 0, token bucket:    when the bucket will be full; what that lacks, in 1/count of a µs; 0
--   kind 1, sliding window:  when the window began; units in it; units in the one before
--   kind 2, sliding log:     when the last charge was; units; the number of charges
--   kind 3, fixed window:    when the window began; units in it; 0
--   kind 4, unlimited:       zeros, also for count, period and burst, as in any slot that is empty
--   kind 5, blocked:         the same
--   kind 6, calendar window: when the window began; units in it; how many seconds it has, and while
--                            units are above count 2^23 times those of the next one
--   kind 7, in flight:       as a sliding log
--   kind 100 and more:       refusals, counted for a ban as kind - 100 counts units
--   kind 200, ban:           when it ends; how long it was, 0 if by hand; how long after its end the
--                            next one is twice as long. Count, period and burst are 0
--
-- A log is as many pairs of a time and units, oldest first. A calendar window has about how long it
-- is as its period, and a number of its zone and first day as its burst. The slots from kind 100 on
-- stand beside those of the limits, after them. No limit finds its past there, and whatever a key
-- is charged keeps them until they expire.
--
-- The functions work on {1, slot, slot, …}, where a slot is those seven numbers, and its log. A
-- rule, as they see it, is 8 numbers: kind, count, period, burst, and for a token bucket the spans
-- that refill the cost and the capacity: microseconds, 1/count of one, microseconds, 1/count of
-- one. For a calendar window they are when the one that now is in began and ends, when the one
-- after that ends, and 0. Only callers know calendars, so that they send these three times for each
-- calendar window, the one of refusals last. What is decided outside of a window that was sent is
-- nothing: the reply is 4 and the time, and the caller asks again.

-- mul_add_div returns the quotient and the remainder of (a*b + c) / d.
CREATE OR REPLACE FUNCTION {{.mul_add_div}}(a bigint, b bigint, c bigint, d bigint) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  p numeric := a::numeric * b + c;
  q numeric := div(p, d);
BEGIN
  RETURN ARRAY[q::bigint, (p - q * d)::bigint];
END $$;

-- slots returns the slots of a row, NULL if it is not one that a version of ours has written.
CREATE OR REPLACE FUNCTION {{.slots}}(rules text, state bigint[]) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  r bigint[];
  n int;
  at int; -- of state, where the next log begins
  slots bigint[] := '{1}';
  kind bigint;
  beside bool := false;
BEGIN
  IF (rules ~ '^1( [0-9]{1,15}){4,}$') IS NOT TRUE THEN
    RETURN NULL;
  END IF;
  r := string_to_array(rules, ' ')::bigint[];
  n := array_length(r, 1) / 4;
  at := 3 * n + 2;
  IF array_length(r, 1) <> 4 * n + 1 OR array_ndims(state) <> 1 OR array_lower(state, 1) <> 1
    OR array_length(state, 1) < at - 1 OR array_position(state, NULL) IS NOT NULL OR 0 > ANY (state)
  THEN
    RETURN NULL;
  END IF;
  FOR i IN 1..n LOOP
    kind := r[4*i-2];
    IF beside AND kind < 100 THEN
      RETURN NULL;
    ELSIF kind >= 100 THEN
      beside := true;
      kind := CASE WHEN kind < 200 THEN kind - 100 ELSE kind END;
    END IF;
    -- A Settle may have left a debt of twice the capacity, and a ban ends later; nothing else is of
    -- the future.
    IF state[3*i-1] > state[1] AND (kind BETWEEN 1 AND 3 OR kind BETWEEN 6 AND 7
      OR kind = 0 AND (state[3*i-1] - state[1] - 1)::numeric * r[4*i-1]
        > 2 * coalesce(nullif(r[4*i+1], 0), r[4*i-1])::numeric * r[4*i]
      OR kind = 200 AND state[3*i-1] - 31622400000000 > state[1])
    THEN
      RETURN NULL;
    END IF;
    slots := slots || r[4*i-2:4*i+1] || state[3*i-1:3*i+1];
    IF kind = 2 OR kind = 7 THEN
      IF state[3*i+1] NOT BETWEEN 0 AND 100000000 THEN
        RETURN NULL;
      END IF;
      slots := slots || state[at : at + 2 * state[3*i+1] - 1];
      at := at + 2 * state[3*i+1];
    END IF;
  END LOOP;
  IF at <> array_length(state, 1) + 1 THEN
    RETURN NULL;
  END IF;
  RETURN slots;
END $$;

-- rules_of returns the rules of a row with these slots.
CREATE OR REPLACE FUNCTION {{.rules_of}}(slots bigint[]) RETURNS text
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  at int := 2;
  rules bigint[] := '{1}';
BEGIN
  WHILE at <= array_length(slots, 1) LOOP
    rules := rules || slots[at:at+3];
    at := at + 7 + (CASE WHEN slots[at] IN (2, 7, 102) THEN 2 * slots[at+6] ELSE 0 END);
  END LOOP;
  RETURN array_to_string(rules, ' ');
END $$;

-- state_of returns the state of a row with these slots.
CREATE OR REPLACE FUNCTION {{.state_of}}(slots bigint[], now bigint) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  at int := 2;
  state bigint[] := ARRAY[now];
  logs bigint[] := '{}';
BEGIN
  WHILE at <= array_length(slots, 1) LOOP
    state := state || slots[at+4:at+6];
    IF slots[at] IN (2, 7, 102) THEN
      logs := logs || slots[at + 7 : at + 6 + 2 * slots[at+6]];
      at := at + 2 * slots[at+6];
    END IF;
    at := at + 7;
  END LOOP;
  RETURN state || logs;
END $$;

-- numbers returns the rules that a caller sends, each in 8 numbers.
CREATE OR REPLACE FUNCTION {{.numbers}}(rules text, cost bigint, calendars bigint[]) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  r bigint[] := string_to_array(rules, ' ')::bigint[];
  asked bigint := greatest(cost, 1); -- a look asks for one unit
  capacity bigint;
  numbers bigint[] := '{}';
BEGIN
  FOR i IN 2..array_length(r, 1) BY 4 LOOP
    numbers := numbers || r[i:i+3];
    IF r[i] = 0 THEN
      capacity := coalesce(nullif(r[i+3], 0), r[i+1]);
      numbers := numbers || CASE WHEN asked <= capacity THEN {{.mul_add_div}}(asked, r[i+2], 0, r[i+1])
        ELSE ARRAY[4000000000000000, 0] END -- more than any bucket takes to fill
        || {{.mul_add_div}}(capacity, r[i+2], 0, r[i+1]);
    ELSIF r[i] = 6 AND calendars IS NOT NULL THEN
      numbers := numbers || calendars[1:3] || 0::bigint;
      calendars := calendars[4:];
    ELSE
      numbers := numbers || '{0,0,0,0}'::bigint[];
    END IF;
  END LOOP;
  RETURN numbers;
END $$;

-- outside reports whether now is not in one of the windows that a caller has sent.
CREATE OR REPLACE FUNCTION {{.outside}}(calendars bigint[], now bigint) RETURNS bool
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
  FOR i IN 1..coalesce(array_length(calendars, 1), 0) BY 3 LOOP
    IF now < calendars[i] OR now >= calendars[i+1] THEN
      RETURN true;
    END IF;
  END LOOP;
  RETURN false;
END $$;

-- own_end returns where those of slots end that are of limits.
CREATE OR REPLACE FUNCTION {{.own_end}}(slots bigint[]) RETURNS int
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  at int := 2;
BEGIN
  WHILE at <= array_length(slots, 1) LOOP
    EXIT WHEN slots[at] >= 100;
    at := at + 7 + CASE WHEN slots[at] IN (2, 7) THEN 2 * slots[at+6] ELSE 0 END;
  END LOOP;
  RETURN at - 1;
END $$;

-- capacity returns that of a rule, or of a slot's.
CREATE OR REPLACE FUNCTION {{.capacity}}(rule bigint[]) RETURNS bigint
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
  RETURN CASE WHEN rule[1] = 0 AND rule[4] > 0 THEN rule[4] ELSE rule[2] END;
END $$;

-- slot_at returns the slot that begins at a place of slots, or NULL if it is not one that a version
-- of ours has written.
CREATE OR REPLACE FUNCTION {{.slot_at}}(slots bigint[], at int) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  slot bigint[] := slots[at:at+6];
  kind bigint := slot[1];
BEGIN
  IF kind BETWEEN 4 AND 5 THEN
    RETURN slot;
  ELSIF kind = 200 THEN
    RETURN CASE WHEN slot[5] BETWEEN 0 AND 9000000000000000 AND slot[6] BETWEEN 0 AND 31622400000000
      AND slot[7] BETWEEN 0 AND 31622400000000 THEN slot END;
  ELSIF kind >= 100 THEN
    kind := CASE WHEN kind IN (100, 101, 102, 103, 106) THEN kind - 100 ELSE -1 END;
  END IF;
  IF ((kind BETWEEN 0 AND 3 OR kind BETWEEN 6 AND 7) AND slot[2] BETWEEN 1 AND 999999999999999
      AND slot[3] BETWEEN 1000 AND 31622400000000 AND slot[4] BETWEEN 0 AND 999999999999999 AND slot[5] BETWEEN 0 AND 9000000000000000
      AND slot[7] BETWEEN 0 AND 1999999999999998 -- the limit may have been larger
      AND (kind = 0 AND slot[6] BETWEEN 0 AND slot[2] - 1
        OR kind <> 0 AND (slot[4] = 0 OR kind = 6) AND slot[6] BETWEEN 0 AND 2 * slot[2])
      AND (kind <> 6 OR slot[6] = 0 OR slot[7] % 8388608 > 0)) IS NOT TRUE THEN
    RETURN NULL;
  END IF;
  IF kind = 2 OR kind = 7 THEN
    IF slot[7] > (array_length(slots, 1) - at - 6) / 2 OR (slot[6] > 0) <> (slot[7] > 0) THEN
      RETURN NULL;
    END IF;
    slot := slots[at:at + 6 + 2 * slot[7]];
  END IF;
  RETURN slot;
END $$;

-- expiry returns the instant from which a slot says nothing any more. A window whose charges were
-- all refunded still runs.
CREATE OR REPLACE FUNCTION {{.expiry}}(slot bigint[]) RETURNS bigint
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
  RETURN CASE CASE WHEN slot[1] BETWEEN 100 AND 199 THEN slot[1] - 100 ELSE slot[1] END
    WHEN 0 THEN slot[5] + CASE WHEN slot[6] > 0 THEN 1 ELSE 0 END
    WHEN 1 THEN slot[5] + CASE WHEN slot[6] > 0 THEN 2 * slot[3] ELSE slot[3] END
    WHEN 2 THEN CASE WHEN slot[7] > 0 THEN slot[5] + slot[3] ELSE 0 END
    WHEN 3 THEN slot[5] + greatest(1, (slot[6] + slot[2] - 1) / slot[2]) * slot[3]
    WHEN 6 THEN slot[5] + (slot[7] % 8388608 + CASE WHEN slot[6] > slot[2] THEN slot[7] / 8388608 ELSE 0 END) * 1000000
    WHEN 7 THEN CASE WHEN slot[7] > 0 THEN slot[5] + slot[3] ELSE 0 END
    WHEN 200 THEN slot[5] + slot[7]
    ELSE 0 END;
END $$;

-- starts returns where each slot begins, 0 for one that is no limit's past, and NULL if one is not
-- ours.
CREATE OR REPLACE FUNCTION {{.starts}}(slots bigint[]) RETURNS int[]
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  at int := 2;
  slot bigint[];
  starts int[] := '{}';
BEGIN
  WHILE at <= array_length(slots, 1) LOOP
    slot := {{.slot_at}}(slots, at);
    IF slot IS NULL THEN
      RETURN NULL;
    END IF;
    starts := starts || CASE WHEN slot[1] IN (4, 5) OR slot[1] >= 100 THEN 0 ELSE at END;
    at := at + array_length(slot, 1);
  END LOOP;
  RETURN starts;
END $$;

-- match returns for each rule where its slot begins, 0 if it has none. A rule finds its past by the
-- same numbers first, then by the same kind and period, then by the same period, each at its own
-- place before others, and then at its own place.
CREATE OR REPLACE FUNCTION {{.match}}(slots bigint[], starts int[], rules bigint[]) RETURNS int[]
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  n int := array_length(rules, 1) / 8;
  size int := coalesce(array_length(starts, 1), 0);
  matched int[] := array_fill(0, ARRAY[n]);
  r int;
  at int;
  alike bool; -- the same numbers: a burst of 0 is one of count
BEGIN
  FOR pass IN 1..7 LOOP
    FOR i IN 1..n LOOP
      r := 8 * i - 7;
      CONTINUE WHEN matched[i] > 0 OR rules[r] IN (4, 5);
      FOR j IN 1..size LOOP
        at := starts[j];
        CONTINUE WHEN at = 0 OR j <> i AND pass % 2 = 1;
        alike := slots[at+2] = rules[r+2] AND (pass > 4 OR slots[at] = rules[r]);
        IF pass <= 2 THEN
          alike := alike AND slots[at+1] = rules[r+1] AND (slots[at+3] = rules[r+3] OR rules[r] = 0
            AND coalesce(nullif(slots[at+3], 0), slots[at+1])
              = coalesce(nullif(rules[r+3], 0), rules[r+1]));
        END IF;
        IF alike OR pass = 7 THEN
          matched[i] := at;
          starts[j] := 0;
          EXIT;
        END IF;
      END LOOP;
    END LOOP;
  END LOOP;
  RETURN matched;
END $$;

-- shifted returns slots with all times moved: no time has passed since they were written, because
-- the clock went back.
CREATE OR REPLACE FUNCTION {{.shifted}}(slots bigint[], by_us bigint) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  at int := 2;
  last int;
BEGIN
  WHILE at <= array_length(slots, 1) LOOP
    last := at + 6;
    IF slots[at] NOT IN (4, 5) THEN
      slots[at+4] := slots[at+4] + by_us;
    END IF;
    IF slots[at] IN (2, 7, 102) THEN
      last := last + 2 * slots[at+6];
      FOR i IN at + 7..last BY 2 LOOP
        slots[i] := slots[i] + by_us;
      END LOOP;
    END IF;
    at := last + 1;
  END LOOP;
  RETURN slots;
END $$;

-- age returns a slot as it is now, by its own rule. If it has expired it begins anew: its limit finds
-- it, and not what another was charged.
CREATE OR REPLACE FUNCTION {{.age}}(slot bigint[], now bigint) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  kind bigint := slot[1];
  period bigint := slot[3];
  time bigint := slot[5];
  used bigint := slot[6];
  first int := 8; -- of a log, the oldest charge that is kept
  over bigint;
BEGIN
  IF kind BETWEEN 4 AND 5 THEN
    RETURN slot;
  ELSIF {{.expiry}}(slot) <= now THEN
    RETURN slot[1:4] || ARRAY[now, 0, 0];
  ELSIF kind = 1 AND now - time >= period THEN
    RETURN slot[1:4] || ARRAY[time + period, 0, used];
  ELSIF kind = 3 THEN
    over := (now - time) / period;
    RETURN slot[1:4] || ARRAY[time + over * period, used - over * slot[2], 0];
  ELSIF kind = 6 THEN
    time := time + slot[7] % 8388608 * 1000000;
    IF time <= now THEN
      RETURN slot[1:4] || ARRAY[time, used - slot[2], slot[7] / 8388608];
    END IF;
    RETURN slot;
  ELSIF kind NOT IN (2, 7) THEN
    RETURN slot;
  END IF;
  WHILE now - slot[first] >= period LOOP -- ends before the last, because the log has not expired
    used := used - slot[first+1];
    first := first + 2;
  END LOOP;
  RETURN slot[1:5] || ARRAY[used, slot[7] - (first - 8) / 2] || slot[first:];
END $$;

-- loaded returns when slots expire, and the slots as they are now, NULL if one is not ours. Unless
-- aged they are as they were written.
CREATE OR REPLACE FUNCTION {{.loaded}}(slots bigint[], aged bool, now bigint) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  at int := 2;
  slot bigint[];
  last bigint := 0;
  new bigint[] := '{1}';
BEGIN
  WHILE at <= array_length(slots, 1) LOOP
    slot := {{.slot_at}}(slots, at);
    IF slot IS NULL THEN
      RETURN NULL;
    END IF;
    at := at + array_length(slot, 1);
    IF aged THEN
      slot := {{.age}}(slot, now);
    END IF;
    last := greatest(last, {{.expiry}}(slot));
    new := new || slot;
  END LOOP;
  RETURN last || new;
END $$;

-- used returns the whole units in use in an aged slot, rounded up.
CREATE OR REPLACE FUNCTION {{.used}}(slot bigint[], now bigint) RETURNS bigint
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  units bigint[];
BEGIN
  IF slot[1] = 0 THEN
    units := {{.mul_add_div}}(slot[5] - now, slot[2], slot[6], slot[3]);
    RETURN units[1] + (units[2] > 0)::int;
  ELSIF slot[1] = 1 THEN
    units := {{.mul_add_div}}(slot[7], slot[5] + slot[3] - now, 0, slot[3]);
    RETURN slot[6] + units[1] + (units[2] > 0)::int;
  END IF;
  RETURN slot[6];
END $$;

-- fits reports whether at most so many units are in use in an aged slot.
CREATE OR REPLACE FUNCTION {{.fits}}(slot bigint[], now bigint, units bigint) RETURNS bool
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
  IF slot[1] = 0 THEN
    RETURN (slot[5] - now)::numeric * slot[2] + slot[6] <= units::numeric * slot[3];
  ELSIF slot[1] = 1 THEN
    RETURN slot[7]::numeric * (slot[5] + slot[3] - now) <= (units - slot[6])::numeric * slot[3];
  END IF;
  RETURN slot[6] <= units;
END $$;

-- window returns the slot of a calendar window that now is in, with used units.
CREATE OR REPLACE FUNCTION {{.window}}(rule bigint[], used bigint) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
  RETURN rule[1:4] || ARRAY[rule[5], used, (rule[6] - rule[5]) / 1000000
    + CASE WHEN used > rule[2] THEN (rule[7] - rule[6]) / 1000000 * 8388608 ELSE 0 END];
END $$;

-- carry returns an aged slot under another rule, with the units that are in use. Ages stay what
-- they are of a period, but those of what is in flight what they are: Settle finds it by them.
-- Another algorithm takes the units over as if they were charged now.
CREATE OR REPLACE FUNCTION {{.carry}}(slot bigint[], rule bigint[], now bigint) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  new bigint[] := rule[1:4];
  used bigint;
  units bigint[];
  rest bigint[];
  log bigint[];
  at bigint;
BEGIN
  IF slot[1] <> rule[1] THEN
    used := {{.used}}(slot, now);
    IF rule[1] = 0 THEN
      units := {{.mul_add_div}}(used, rule[3], 0, rule[2]);
      RETURN new || ARRAY[now + units[1], units[2], 0];
    ELSIF rule[1] IN (2, 7) AND used > 0 THEN
      RETURN new || ARRAY[now, used, 1, now, used];
    ELSIF rule[1] = 6 THEN
      RETURN {{.window}}(rule, used);
    END IF;
    RETURN new || ARRAY[now, used, 0];
  ELSIF slot[1] = 0 THEN
    IF slot[2] = rule[2] AND slot[3] = rule[3] THEN
      RETURN new || slot[5:7];
    END IF;
    -- The units, rounded up to 1/period of one under the new rule: rest is at most its period.
    units := {{.mul_add_div}}(slot[5] - now, slot[2], slot[6], slot[3]);
    rest := {{.mul_add_div}}(units[2], rule[3], 0, slot[3]);
    units := {{.mul_add_div}}(units[1], rule[3], rest[1] + (rest[2] > 0)::int, rule[2]);
    RETURN new || ARRAY[now + units[1], units[2], 0];
  ELSIF slot[1] = 6 THEN
    RETURN {{.window}}(rule, slot[6]);
  ELSIF slot[1] = 7 THEN
    RETURN {{.age}}(new || slot[5:], now);
  ELSIF slot[1] <> 2 THEN
    at := now - div((now - slot[5])::numeric * rule[3], slot[3])::bigint;
    RETURN new || ARRAY[at, slot[6], slot[7]];
  ELSIF slot[7] = 0 THEN
    RETURN new || ARRAY[now, 0, 0];
  END IF;
  FOR i IN 8..array_length(slot, 1) BY 2 LOOP
    at := now - div((now - slot[i])::numeric * rule[3], slot[3])::bigint;
    IF log[array_length(log, 1) - 1] = at THEN
      log[array_length(log, 1)] := log[array_length(log, 1)] + slot[i+1];
    ELSE
      log := log || ARRAY[at, slot[i+1]];
    END IF;
  END LOOP;
  RETURN new || ARRAY[at, slot[6], array_length(log, 1) / 2] || log;
END $$;

-- charge returns an aged slot with units more, which may be above what is left. Only where the slot
-- is under a rule that was asked the windows of its calendar are known.
CREATE OR REPLACE FUNCTION {{.charge}}(slot bigint[], rule bigint[], now bigint, units bigint) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  span bigint[];
BEGIN
  IF slot[1] = 0 THEN
    span := {{.mul_add_div}}(units, slot[3], slot[6], slot[2]);
    RETURN slot[1:4] || ARRAY[slot[5] + span[1], span[2], 0];
  ELSIF slot[1] = 6 AND slot[1:4] = rule[1:4] THEN
    RETURN {{.window}}(rule, slot[6] + units);
  END IF;
  slot[6] := slot[6] + units;
  IF slot[1] IN (2, 7) AND slot[7] > 0 AND slot[5] = now THEN
    slot[7 + 2*slot[7]] := slot[7 + 2*slot[7]] + units;
  ELSIF slot[1] IN (2, 7) THEN
    slot[5] := now;
    slot[7] := slot[7] + 1;
    slot := slot || ARRAY[now, units];
  END IF;
  RETURN slot;
END $$;

-- decide is Take without the store. It returns the verdict, the time, when the state expires, and
-- the slots to be written. The verdict is 1 if the cost was charged; 0 if not, and there is nothing
-- to write; 2 if not, and slots that were moved have to be written all the same, because a wait
-- would otherwise begin anew with each refusal; -1 if a slot is not ours. same says that the slots
-- were written under these very rules.
CREATE OR REPLACE FUNCTION {{.decide}}(slots bigint[], same bool, cost bigint, rules bigint[], moved bool, now bigint)
RETURNS bigint[] LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  asked bigint := greatest(cost, 1); -- a look asks for one unit
  fits bool := true;
  last bigint := 0; -- when the charged slots expire
  charged bigint[] := '{1}';
  places int[]; -- where the slot of each rule begins
  next int := 2; -- where the next slot begins, as long as it is that of the next rule
  judged bool;
  slot bigint[];
  log bigint[];
  i int := 0;
  at int;
  kind bigint;
  count bigint;
  period bigint;
  time bigint;
  a bigint;
  b bigint;
  room bigint;
BEGIN
  IF NOT same THEN
    places := {{.starts}}(slots);
    IF places IS NULL THEN
      RETURN ARRAY[-1, now, 0];
    END IF;
    places := {{.match}}(slots, places, rules);
  END IF;
  FOR r IN 1..array_length(rules, 1) BY 8 LOOP
    kind := rules[r];
    count := rules[r+1];
    period := rules[r+2];
    i := i + 1;
    IF same THEN
      at := next;
      time := slots[at+4];
      a := slots[at+5];
      b := slots[at+6];
      next := at + 7 + CASE WHEN kind IN (2, 7) THEN 2 * b ELSE 0 END;
    ELSE
      at := places[i];
    END IF;
    IF kind = 4 OR kind = 5 THEN
      fits := fits AND kind = 4;
      charged := charged || ARRAY[kind, 0, 0, 0, 0, 0, 0];
      CONTINUE;
    END IF;
    judged := false;
    slot := NULL;
    IF same AND (CASE kind
        WHEN 0 THEN time < now + rules[r+6] AND a < count
        WHEN 2 THEN time <= now AND a BETWEEN 1 AND count AND b > 0
        WHEN 6 THEN false
        WHEN 7 THEN time <= now AND a BETWEEN 1 AND count AND b > 0
        ELSE time <= now AND a <= count AND b <= count END)
    THEN -- the common case: there is no debt
      IF (CASE kind WHEN 0 THEN time < now
        WHEN 1 THEN now - time >= 2 * period OR a = 0 AND now - time >= period
        ELSE now - time >= period END)
      THEN
        time := now; -- it has expired
        a := 0;
        b := 0;
        log := NULL;
      ELSIF kind = 1 AND now - time >= period THEN
        time := time + period;
        b := a;
        a := 0;
      ELSIF kind = 2 OR kind = 7 THEN
        at := at + 7;
        WHILE now - slots[at] >= period LOOP -- ends before the last charge
          a := a - slots[at+1];
          b := b - 1;
          at := at + 2;
        END LOOP;
        log := slots[at:next-1];
      END IF;
    ELSE
      IF at > 0 THEN
        slot := {{.slot_at}}(slots, at);
        IF slot IS NULL THEN
          RETURN ARRAY[-1, now, 0];
        END IF;
      END IF;
      IF at > 0 THEN
        slot := {{.age}}(slot, now);
        IF slot[1] <> kind OR slot[2] <> count OR slot[3] <> period OR slot[4] <> rules[r+3] THEN
          fits := fits AND {{.fits}}(slot, now, CASE WHEN kind = 0 AND rules[r+3] > 0 THEN rules[r+3] ELSE count END - asked);
          EXIT WHEN NOT fits;
          slot := {{.carry}}(slot, rules[r:r+7], now);
          judged := true; -- a window's weight may be a hair above the limit now
        END IF;
        time := slot[5];
        a := slot[6];
        b := slot[7];
        log := slot[8:];
      ELSE -- a limit without a past
        time := now;
        a := 0;
        b := 0;
        log := NULL;
      END IF;
    END IF;

    IF kind = 0 THEN
      time := time + rules[r+4];
      a := a + rules[r+5];
      IF a >= count THEN
        time := time + 1;
        a := a - count;
      END IF;
      room := now + rules[r+6] - time; -- in microseconds
      fits := fits AND (judged OR room > 0 OR room = 0 AND a <= rules[r+7]);
      last := greatest(last, time + 1);
      charged := charged || ARRAY[0, count, period, rules[r+3], time, a, 0];
    ELSE
      room := count - a - asked;
      a := a + asked;
      IF kind = 1 THEN
        -- A weight that does not fit by itself is compared as a product.
        fits := fits AND (judged OR b <= room
          OR b::numeric * (time + period - now) <= room::numeric * period);
        last := greatest(last, time + 2 * period);
      ELSIF kind = 6 THEN
        fits := fits AND room >= 0;
        slot := {{.window}}(rules[r:r+7], a);
        last := greatest(last, rules[r+5]);
        charged := charged || slot;
        EXIT WHEN NOT fits;
        CONTINUE;
      ELSIF kind = 2 OR kind = 7 THEN
        fits := fits AND room >= 0;
        IF b > 0 AND time = now THEN
          log[2*b] := log[2*b] + asked;
        ELSE
          b := b + 1;
          log := log || ARRAY[now, asked];
        END IF;
        time := now;
        last := greatest(last, now + period);
      ELSE
        fits := fits AND room >= 0;
        last := greatest(last, time + period);
      END IF;
      charged := charged || ARRAY[kind, count, period, 0, time, a, b];
      IF kind = 2 OR kind = 7 THEN
        charged := charged || log;
      END IF;
    END IF;
    EXIT WHEN NOT fits;
  END LOOP;
  IF fits AND cost > 0 THEN
    RETURN ARRAY[1, now, last] || charged;
  ELSIF cost > 0 AND moved THEN
    charged := {{.loaded}}(slots, true, now);
    RETURN CASE WHEN charged IS NULL THEN ARRAY[-1, now, 0] ELSE ARRAY[2, now] || charged END;
  END IF;
  RETURN ARRAY[0, now, 0];
END $$;

-- bans_of returns what of the slots beside those of limits matters now, the ban first, NULL if one
-- is not ours.
CREATE OR REPLACE FUNCTION {{.bans_of}}(beside bigint[], now bigint) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  at int := 1;
  slot bigint[];
  ban bigint[] := '{}';
  refusals bigint[] := '{}';
BEGIN
  WHILE at <= array_length(beside, 1) LOOP
    slot := {{.slot_at}}(beside, at);
    IF slot IS NULL THEN
      RETURN NULL;
    END IF;
    at := at + array_length(slot, 1);
    CONTINUE WHEN {{.expiry}}(slot) <= now;
    IF slot[1] = 200 THEN
      ban := slot;
    ELSE
      slot[1] := slot[1] - 100;
      refusals := {{.age}}(slot, now);
      refusals[1] := refusals[1] + 100;
    END IF;
  END LOOP;
  RETURN ban || refusals;
END $$;

-- refuse returns what bans_of does after one more refusal. It is counted under the rule of a ban:
-- kind, count, period and burst of the limit of refusals, how long the first ban is, and the
-- longest. If there are more refusals than that allows, it brings a ban about.
CREATE OR REPLACE FUNCTION {{.refuse}}(bans bigint[], ban bigint[], rule bigint[], now bigint) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  last bigint[] := CASE WHEN bans[1] = 200 THEN bans[1:7] ELSE '{}' END;
  slot bigint[] := bans[coalesce(array_length(last, 1), 0) + 1 :];
  most bigint := {{.capacity}}(rule);
  length bigint := ban[5];
BEGIN
  IF slot = '{}' THEN
    slot := rule[1:4] || ARRAY[now, 0, 0];
  ELSE
    slot[1] := slot[1] - 100;
  END IF;
  IF most > 0 AND {{.fits}}(slot, now, most - 1) THEN
    IF slot[1:4] <> rule[1:4] THEN
      slot := {{.carry}}(slot, rule, now);
    END IF;
    slot := {{.charge}}(slot, rule, now, 1);
    slot[1] := slot[1] + 100;
    RETURN last || slot;
  END IF;
  IF last[6] > 0 AND now < last[5] + ban[6] THEN
    length := least(2 * last[6], ban[6]);
  END IF;
  RETURN ARRAY[200, 0, 0, 0, now + length, length, ban[6]];
END $$;

-- decide_beside is decide for a key that has slots beside, or that a ban counts the refusals of.
-- ban is as refuse has it, NULL if refusals are not counted. While a ban lasts nothing is charged,
-- and nothing counted. The verdict is 5 if a refusal was counted.
CREATE OR REPLACE FUNCTION {{.decide_beside}}(slots bigint[], beside bigint[], same bool, cost bigint, rules bigint[],
  ban bigint[], calendars bigint[], moved bool, now bigint)
RETURNS bigint[] LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  bans bigint[] := {{.bans_of}}(beside, now);
  reply bigint[] := ARRAY[0, now, 0];
  verdict int := 2;
  new bigint[];
  last bigint[];
BEGIN
  IF bans IS NULL THEN
    RETURN ARRAY[-1, now, 0];
  ELSIF bans[1] = 200 AND bans[5] > now THEN
    IF cost = 0 OR NOT moved THEN
      RETURN reply;
    END IF;
    new := {{.loaded}}(slots, true, now);
  ELSE
    reply := {{.decide}}(slots, same, cost, rules, moved, now);
    IF reply[1] < 0 OR cost = 0 OR reply[1] = 0 AND ban IS NULL THEN
      RETURN reply;
    ELSIF reply[1] = 1 OR ban IS NULL THEN
      verdict := reply[1];
      new := reply[3:];
    ELSE
      verdict := 5;
      bans := {{.refuse}}(bans, ban, {{.numbers}}('1 ' || array_to_string(ban[1:4], ' '), 1,
        calendars[array_length(calendars, 1) - 2 :]), now);
      new := {{.loaded}}(slots, false, now);
    END IF;
  END IF;
  last := {{.loaded}}(1::bigint || bans, false, now);
  IF new IS NULL OR last IS NULL THEN
    RETURN ARRAY[-1, now, 0];
  END IF;
  RETURN ARRAY[verdict, now, greatest(new[1], last[1])] || new[2:] || bans;
END $$;

-- summary returns decide's reply with as much of each log as an answer needs: the oldest charges,
-- as far as they have to expire for cost to fit, and the last, which stands for those in between
-- too. n of the slot is their number.
CREATE OR REPLACE FUNCTION {{.summary}}(reply bigint[], same bool, cost bigint, rules bigint[])
RETURNS bigint[] LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  now bigint := reply[2];
  slots bigint[] := reply[4:];
  places int[];
  at int := 2;
  i int := 0;
  summed bigint[] := reply[1:4];
  rule int; -- which has the slot
  first int;
  last int;
  next int;
  used bigint;
  over bigint;
  log bigint[];
BEGIN
  IF NOT same THEN
    places := {{.match}}(slots, {{.starts}}(slots), rules);
  END IF;
  WHILE at <= array_length(slots, 1) LOOP
    i := i + 1;
    IF slots[at] NOT IN (2, 7, 102) THEN
      summed := summed || slots[at:at+6];
      at := at + 7;
      CONTINUE;
    END IF;
    first := at + 7;
    last := at + 5 + 2 * slots[at+6]; -- the last pair
    used := slots[at+5];
    WHILE first <= last AND now - slots[first] >= slots[at+2] LOOP
      used := used - slots[first+1];
      first := first + 2;
    END LOOP;
    over := 0;
    rule := CASE WHEN slots[at] >= 100 THEN NULL WHEN same THEN i ELSE array_position(places, at) END;
    IF reply[1] <> 1 AND rule IS NOT NULL THEN
      over := used + greatest(cost, 1) - {{.capacity}}(rules[8*rule-7:8*rule-4]);
    END IF;
    next := first;
    WHILE next <= last AND over > 0 LOOP
      over := over - slots[next+1];
      next := next + 2;
    END LOOP;
    log := slots[first:next-1];
    IF next <= last THEN
      log := log || slots[last:last+1];
    END IF;
    summed := summed || slots[at:at+4] || ARRAY[used, coalesce(array_length(log, 1), 0) / 2] || log;
    at := last + 2;
  END LOOP;
  RETURN summed;
END $$;

-- The refund functions return an aged slot without cost, which was charged at an instant, NULL if
-- there was nothing.

-- token_bucket_refund lowers the debt, if there is any, at most to nothing. A charge that is older
-- than the time in which the bucket fills has been refilled since, and gives nothing back.
CREATE OR REPLACE FUNCTION {{.token_bucket_refund}}(slot bigint[], charged_at bigint, cost bigint, now bigint)
RETURNS bigint[] LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  us bigint := slot[5] - now;
  num bigint := slot[6];
  capacity bigint := coalesce(nullif(slot[4], 0), slot[2]);
  most bigint[] := {{.mul_add_div}}(capacity, slot[3], 0, slot[2]);
  less bigint[];
BEGIN
  IF {{.expiry}}(slot) <= now OR now - charged_at >= most[1] + (most[2] > 0)::int THEN
    RETURN NULL;
  END IF;
  less := {{.mul_add_div}}(least(cost, 2 * capacity), slot[3], 0, slot[2]);
  us := us - less[1];
  num := num - less[2];
  IF num < 0 THEN
    us := us - 1;
    num := num + slot[2];
  END IF;
  IF us < 0 THEN
    us := 0;
    num := 0;
  END IF;
  RETURN slot[1:4] || ARRAY[now + us, num, 0];
END $$;

-- sliding_window_refund credits the window that was charged, the current one or the one before.
CREATE OR REPLACE FUNCTION {{.sliding_window_refund}}(slot bigint[], charged_at bigint, cost bigint)
RETURNS bigint[] LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  w int := CASE WHEN charged_at < slot[5] THEN 7 ELSE 6 END;
BEGIN
  IF slot[w] = 0 OR charged_at < slot[5] - slot[3] OR charged_at >= slot[5] + slot[3] THEN
    RETURN NULL;
  END IF;
  slot[w] := greatest(0, slot[w] - cost);
  RETURN slot;
END $$;

-- sliding_log_refund is of what is in flight too.
CREATE OR REPLACE FUNCTION {{.sliding_log_refund}}(slot bigint[], charged_at bigint, cost bigint)
RETURNS bigint[] LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  at int := 8;
  size int := array_length(slot, 1);
BEGIN
  WHILE at < size AND slot[at] < charged_at LOOP
    at := at + 2;
  END LOOP;
  IF at > size OR slot[at] <> charged_at THEN
    RETURN NULL;
  END IF;
  cost := least(cost, slot[at+1]);
  slot[6] := slot[6] - cost;
  slot[at+1] := slot[at+1] - cost;
  IF slot[at+1] = 0 THEN
    slot := slot[1:at-1] || slot[at+2:];
    slot[7] := slot[7] - 1;
    slot[5] := CASE WHEN slot[7] > 0 THEN slot[6 + 2 * slot[7]] ELSE 0 END;
  END IF;
  RETURN slot;
END $$;

CREATE OR REPLACE FUNCTION {{.calendar_window_refund}}(slot bigint[], charged_at bigint, cost bigint)
RETURNS bigint[] LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
  IF slot[6] = 0 OR charged_at < slot[5] OR charged_at >= slot[5] + slot[7] % 8388608 * 1000000 THEN
    RETURN NULL;
  END IF;
  slot[6] := greatest(0, slot[6] - cost);
  RETURN slot;
END $$;

CREATE OR REPLACE FUNCTION {{.fixed_window_refund}}(slot bigint[], charged_at bigint, cost bigint)
RETURNS bigint[] LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
  IF slot[6] = 0 OR charged_at < slot[5] OR charged_at >= slot[5] + slot[3] THEN
    RETURN NULL;
  END IF;
  slot[6] := greatest(0, slot[6] - cost);
  RETURN slot;
END $$;

-- refunded is a Settle for less without the store, or for the same, of a charge that holds units in
-- flight. It returns when the state expires and the slots to be written, NULL if nothing is given
-- back, {-1} if a slot is not ours. The slots beside stay as they are.
CREATE OR REPLACE FUNCTION {{.refunded}}(slots bigint[], same bool, charged_at bigint, cost bigint, held bigint, rules bigint[],
  now bigint)
RETURNS bigint[] LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  starts int[] := {{.starts}}(slots);
  places int[];
  at int := 2;
  width int;
  i int;
  new bigint[] := '{1}';
  last bigint := 0;
  given bool := false;
  slot bigint[];
  less bigint[];
BEGIN
  IF starts IS NULL THEN
    RETURN '{-1}';
  END IF;
  places := CASE WHEN same THEN starts ELSE {{.match}}(slots, starts, rules) END;
  WHILE at <= array_length(slots, 1) LOOP
    slot := {{.slot_at}}(slots, at);
    width := array_length(slot, 1);
    i := array_position(places, at);
    IF slot[1] < 100 THEN
      slot := {{.age}}(slot, now);
    END IF;
    at := at + width;
    -- Otherwise nothing was charged here, or what was is forgotten.
    IF slot[1] = rules[8*i-7] AND (CASE slot[1] WHEN 7 THEN held ELSE cost END) > 0 THEN
      CASE slot[1]
        WHEN 0 THEN less := {{.token_bucket_refund}}(slot, charged_at, cost, now);
        WHEN 1 THEN less := {{.sliding_window_refund}}(slot, charged_at, cost);
        WHEN 2 THEN less := {{.sliding_log_refund}}(slot, charged_at, cost);
        WHEN 6 THEN less := {{.calendar_window_refund}}(slot, charged_at, cost);
        WHEN 7 THEN less := {{.sliding_log_refund}}(slot, charged_at, held);
        ELSE less := {{.fixed_window_refund}}(slot, charged_at, cost);
      END CASE;
      IF less IS NOT NULL THEN
        given := true;
        slot := less;
      END IF;
    END IF;
    new := new || slot;
    last := greatest(last, {{.expiry}}(slot));
  END LOOP;
  RETURN CASE WHEN given THEN last || new END;
END $$;

-- released returns an aged slot without the units that a charge held.
CREATE OR REPLACE FUNCTION {{.released}}(slot bigint[], charged_at bigint, held bigint) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
  IF slot[1] = 7 AND held > 0 THEN
    RETURN coalesce({{.sliding_log_refund}}(slot, charged_at, held), slot);
  END IF;
  RETURN slot;
END $$;

-- settled_up is a Settle for more without the store: units are charged whatever is left, until twice
-- the capacity is in use. What was held in flight is given back. It returns what refunded does.
CREATE OR REPLACE FUNCTION {{.settled_up}}(slots bigint[], same bool, charged_at bigint, units bigint, held bigint, rules bigint[],
  now bigint)
RETURNS bigint[] LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  places int[] := {{.starts}}(slots);
  r int;
  new bigint[] := '{1}';
  last bigint := 0;
  slot bigint[];
  more bigint;
  beside bigint[];
BEGIN
  IF places IS NULL THEN
    RETURN '{-1}';
  ELSIF NOT same THEN
    places := {{.match}}(slots, places, rules);
  END IF;
  FOR i IN 1..array_length(rules, 1) / 8 LOOP
    r := 8 * i - 7;
    slot := NULL;
    IF rules[r] IN (4, 5) THEN
      new := new || ARRAY[rules[r], 0, 0, 0, 0, 0, 0];
      CONTINUE;
    END IF;
    IF places[i] > 0 THEN
      slot := {{.age}}({{.slot_at}}(slots, places[i]), now);
    END IF;
    IF rules[r] = 7 THEN
      IF slot IS NULL OR {{.used}}(slot, now) = 0 THEN
        slot := '{4,0,0,0,0,0,0}';
      END IF;
      slot := {{.released}}(slot, charged_at, held);
      new := new || slot;
      last := greatest(last, {{.expiry}}(slot));
      CONTINUE;
    END IF;
    IF slot IS NULL THEN
      slot := rules[r:r+3] || ARRAY[now, 0, 0];
    ELSIF slot[1:4] <> rules[r:r+3] AND {{.used}}(slot, now) <= {{.capacity}}(rules[r:r+3]) THEN
      slot := {{.carry}}(slot, rules[r:r+7], now);
    END IF;
    more := least(units, 2 * {{.capacity}}(slot) - {{.used}}(slot, now));
    IF more > 0 THEN
      slot := {{.charge}}(slot, rules[r:r+7], now, more);
    END IF;
    new := new || slot;
    last := greatest(last, {{.expiry}}(slot));
  END LOOP;
  beside := slots[{{.own_end}}(slots) + 1 :];
  RETURN greatest(last, ({{.loaded}}(1::bigint || beside, false, now))[1]) || new || beside;
END $$;

-- renewed is a Renew without the store: units that were charged at an instant are held for another
-- period, also where they were lost, but never more than twice the capacity. It returns what
-- refunded does.
CREATE OR REPLACE FUNCTION {{.renewed}}(slots bigint[], charged_at bigint, units bigint, rules bigint[], now bigint)
RETURNS bigint[] LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  cut int := {{.own_end}}(slots);
  beside bigint[] := slots[cut+1:];
  loaded bigint[] := {{.loaded}}(slots[:cut], false, now);
  n int := array_length(rules, 1) / 8;
  places int[];
  at int := 2;
  j int := 0;
  i int;
  width int;
  slot bigint[];
  room bigint;
  new bigint[] := '{1}';
BEGIN
  IF loaded IS NULL OR {{.starts}}(slots) IS NULL THEN
    RETURN '{-1}';
  END IF;
  slots := CASE WHEN loaded[1] > now THEN slots[:cut] ELSE '{1}' END; -- a sweep may have forgotten them
  places := {{.match}}(slots, {{.starts}}(slots), rules);
  WHILE at <= array_length(slots, 1) OR j < n LOOP
    j := j + 1;
    i := array_position(places, at);
    IF at <= array_length(slots, 1) THEN
      slot := {{.slot_at}}(slots, at);
      width := array_length(slot, 1);
    ELSE
      slot := '{4,0,0,0,0,0,0}';
      width := 0;
    END IF;
    IF i IS NULL AND slot[1] IN (4, 5) AND j <= n AND rules[8*j-7] = 7 AND places[j] = 0 THEN
      i := j; -- what was held is lost
      slot := rules[8*j-7:8*j-4] || ARRAY[now, 0, 0];
    END IF;
    IF rules[8*i-7] = 7 THEN
      slot := {{.released}}({{.age}}(slot, now), charged_at, units);
      room := 2 * slot[2] - slot[6];
      IF slot[1] = 7 AND room > 0 THEN
        slot := {{.charge}}(slot, NULL, now, least(units, room));
      END IF;
    END IF;
    new := new || slot;
    at := at + width;
  END LOOP;
  new := new || beside;
  RETURN ({{.loaded}}(new, false, now))[1] || new;
END $$;

-- banned is a Ban without the store, for a time from now on. How long the last ban was stays known.
-- It returns what refunded does.
CREATE OR REPLACE FUNCTION {{.banned}}(slots bigint[], length bigint, now bigint) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  cut int := {{.own_end}}(slots);
  bans bigint[] := {{.bans_of}}(slots[cut+1:], now);
  new bigint[];
BEGIN
  IF bans IS NULL THEN
    RETURN '{-1}';
  END IF;
  new := slots[:cut] || ARRAY[200, 0, 0, 0, now + length] || CASE WHEN bans[1] = 200 THEN bans[6:]
    ELSE '{0,0}'::bigint[] || bans END;
  RETURN coalesce(({{.loaded}}(new, false, now))[1], -1) || new;
END $$;

-- micros is the database's clock.
CREATE OR REPLACE FUNCTION {{.micros}}() RETURNS bigint
LANGUAGE sql VOLATILE AS $$ SELECT (date_part('epoch', clock_timestamp()) * 1000000)::bigint $$;

-- has_log reports whether a reply under rules, or about a row with them, may have a log. It may be
-- wrong in that it may not.
CREATE OR REPLACE FUNCTION {{.has_log}}(rules text, ban bigint[]) RETURNS bool
LANGUAGE sql IMMUTABLE AS $$
  SELECT rules LIKE '% 2 %' OR rules LIKE '% 7 %' OR rules LIKE '% 102 %' OR coalesce(ban[1] = 2, false)
$$;

-- take decides for the limits of one key and charges all of them or none. It returns decide's
-- reply, with the slots as they are now.
--
-- The first try locks nothing until it writes, and writes only if the row is as it was read: so
-- what is refused is so by what was committed last, and no row is locked or written for it. If the
-- row changed in between, or appeared, the next try reads it under its lock, and decides by the
-- time at which it had that. clock stands for the database's in tests.
--
-- tried says that a statement has tried already, and has the row locked. If that stands under the
-- same rules, there was no room: the reply is 3, the time, and the row's state, for the caller to find
-- the same, unless a ban counts refusals.
CREATE OR REPLACE FUNCTION {{.take}}(k text, rules text, cost bigint, ban bigint[], calendars bigint[], clock bigint, tried bool)
RETURNS bigint[] LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  r bigint[];
  old_rules text;
  old bigint[];
  slots bigint[];
  new bigint[];
  reply bigint[];
  now bigint;
  locked bool := false;
  same bool;
  beside bigint[];
  cut int;
BEGIN
  SELECT t.rules, t.state INTO old_rules, old FROM {{.table}} t WHERE t.key = k;
  IF tried AND ban IS NULL AND old_rules = rules AND old[1] <= coalesce(clock, {{.micros}}()) THEN
    IF calendars IS NULL THEN
      RETURN ARRAY[3, coalesce(clock, {{.micros}}())] || old;
    END IF;
    now := coalesce(clock, {{.micros}}());
    IF NOT {{.outside}}(calendars, now) THEN
      RETURN ARRAY[3, now] || old;
    END IF;
  END IF;
  r := {{.numbers}}(rules, cost, calendars);
  LOOP
    now := coalesce(clock, {{.micros}}());
    IF calendars IS NOT NULL THEN
      IF {{.outside}}(calendars, now) THEN
        RETURN ARRAY[4, now, 0];
      END IF;
    END IF;
    slots := CASE WHEN old IS NULL THEN '{1}' ELSE {{.slots}}(old_rules, old) END;
    IF slots IS NULL THEN
      RETURN ARRAY[-1, now, 0];
    END IF;
    IF old[1] > now THEN
      slots := {{.shifted}}(slots, now - old[1]);
    END IF;
    same := coalesce(old_rules = rules, false);
    beside := NULL;
    IF NOT same AND old IS NOT NULL THEN -- under the same rules nothing is beside
      cut := {{.own_end}}(slots);
      beside := CASE WHEN cut < array_length(slots, 1) THEN slots[cut+1:] END;
    END IF;
    IF ban IS NULL AND beside IS NULL THEN
      reply := {{.decide}}(slots, same, cost, r, coalesce(old[1] > now, false), now);
    ELSE
      reply := {{.decide_beside}}(CASE WHEN beside IS NULL THEN slots ELSE slots[:cut] END, coalesce(beside, '{}'), same, cost, r, ban,
        calendars, coalesce(old[1] > now, false), now);
    END IF;
    IF reply[1] <= 0 THEN
      reply := reply || slots;
      EXIT;
    ELSIF reply[1] = 1 AND ban IS NOT NULL AND rules ~ '^1( [45] 0 0 0)*$' THEN
      EXIT; -- no limit keeps a state
    END IF;
    new := reply[4:];
    IF old IS NULL THEN
      INSERT INTO {{.table}} (key, rules, expires, state)
      VALUES (k, {{.rules_of}}(new), reply[3], {{.state_of}}(new, now)) ON CONFLICT DO NOTHING;
    ELSE
      UPDATE {{.table}} t
      SET rules = {{.rules_of}}(new), expires = reply[3], state = {{.state_of}}(new, now)
      WHERE t.key = k AND (locked OR t.state = old AND t.rules = old_rules);
    END IF;
    EXIT WHEN FOUND;
    SELECT t.rules, t.state INTO old_rules, old FROM {{.table}} t WHERE t.key = k FOR UPDATE;
    locked := FOUND;
  END LOOP;
  IF reply[1] >= 0 AND {{.has_log}}(coalesce(old_rules || ' ' || rules, rules), ban) THEN
    reply := {{.summary}}(reply, same OR reply[1] = 1, cost, r);
  END IF;
  RETURN reply;
END $$;

-- write makes a row, which is locked, what refunded and the others return: 1 if that is anything, 0 if
-- not, -1 if the row is not ours. What has expired by then is deleted.
CREATE OR REPLACE FUNCTION {{.write}}(k text, new bigint[], now bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
  IF new IS NULL THEN
    RETURN 0;
  ELSIF new[1] < 0 THEN
    RETURN -1;
  ELSIF new[1] > now THEN
    UPDATE {{.table}} t
    SET rules = {{.rules_of}}(new[2:]), expires = new[1], state = {{.state_of}}(new[2:], now)
    WHERE t.key = k;
  ELSE
    DELETE FROM {{.table}} t WHERE t.key = k;
  END IF;
  RETURN 1;
END $$;

-- settle corrects what a take charged under these rules, by units less or units more, of which one
-- is 0, and gives back what it held in flight. It returns 1 if anything changed, 0 if not, -1 if the
-- row is not ours, and the time if that is outside of calendars that are needed.
CREATE OR REPLACE FUNCTION {{.settle}}(k text, rules text, charged_at bigint, less bigint, more bigint, held bigint,
  calendars bigint[], clock bigint)
RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  now bigint;
  old_rules text;
  old bigint[];
  slots bigint[];
  new bigint[];
  r bigint[];
BEGIN
  LOOP
    SELECT t.rules, t.state INTO old_rules, old FROM {{.table}} t WHERE t.key = k FOR UPDATE;
    EXIT WHEN FOUND OR more = 0;
    now := coalesce(clock, {{.micros}}());
    IF calendars IS NOT NULL AND {{.outside}}(calendars, now) THEN
      RETURN now;
    END IF;
    new := {{.settled_up}}('{1}', false, charged_at, more, held, {{.numbers}}(rules, 1, calendars), now);
    IF new[1] <= now THEN
      RETURN 0; -- places in flight alone
    END IF;
    INSERT INTO {{.table}} (key, rules, expires, state)
    VALUES (k, {{.rules_of}}(new[2:]), new[1], {{.state_of}}(new[2:], now)) ON CONFLICT DO NOTHING;
    IF FOUND THEN
      RETURN 1;
    END IF;
  END LOOP;
  IF old IS NULL THEN
    RETURN 0;
  END IF;
  now := coalesce(clock, {{.micros}}());
  IF more > 0 AND calendars IS NOT NULL AND {{.outside}}(calendars, now) THEN
    RETURN now;
  END IF;
  slots := {{.slots}}(old_rules, old);
  IF slots IS NULL THEN
    RETURN -1;
  ELSIF old[1] > now THEN
    slots := {{.shifted}}(slots, now - old[1]);
  END IF;
  r := {{.numbers}}(rules, 1, calendars);
  new := CASE WHEN more = 0
    THEN {{.refunded}}(slots, old_rules = rules, charged_at, less, held, r, now)
    ELSE {{.settled_up}}(slots, old_rules = rules, charged_at, more, held, r, now) END;
  RETURN {{.write}}(k, new, now);
END $$;

-- renew holds what a take charged under these rules in flight for longer. It returns the time, or -1
-- if the row is not ours.
CREATE OR REPLACE FUNCTION {{.renew}}(k text, rules text, charged_at bigint, units bigint, clock bigint)
RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  now bigint;
  old_rules text;
  old bigint[];
  slots bigint[];
  new bigint[];
  r bigint[] := {{.numbers}}(rules, 1, NULL);
BEGIN
  IF rules !~ '^1( [0-9]+ [0-9]+ [0-9]+ [0-9]+)* 7 [0-9]+ [0-9]+ [0-9]+( |$)' THEN
    RETURN coalesce(clock, {{.micros}}());
  END IF;
  LOOP
    SELECT t.rules, t.state INTO old_rules, old FROM {{.table}} t WHERE t.key = k FOR UPDATE;
    now := coalesce(clock, {{.micros}}());
    EXIT WHEN FOUND;
    new := {{.renewed}}('{1}', charged_at, units, r, now);
    INSERT INTO {{.table}} (key, rules, expires, state)
    VALUES (k, {{.rules_of}}(new[2:]), new[1], {{.state_of}}(new[2:], now)) ON CONFLICT DO NOTHING;
    IF FOUND THEN
      RETURN now;
    END IF;
  END LOOP;
  slots := {{.slots}}(old_rules, old);
  IF slots IS NULL THEN
    RETURN -1;
  ELSIF old[1] > now THEN
    slots := {{.shifted}}(slots, now - old[1]);
  END IF;
  RETURN CASE WHEN {{.write}}(k, {{.renewed}}(slots, charged_at, units, r, now), now) < 0 THEN -1 ELSE now END;
END $$;

-- ban bans a key for a time. It returns 1, or -1 if the row is not ours.
CREATE OR REPLACE FUNCTION {{.ban}}(k text, length bigint, clock bigint)
RETURNS bigint LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  now bigint;
  old_rules text;
  old bigint[];
  slots bigint[];
  new bigint[];
BEGIN
  LOOP
    SELECT t.rules, t.state INTO old_rules, old FROM {{.table}} t WHERE t.key = k FOR UPDATE;
    now := coalesce(clock, {{.micros}}());
    EXIT WHEN FOUND;
    new := {{.banned}}('{1}', length, now);
    INSERT INTO {{.table}} (key, rules, expires, state)
    VALUES (k, {{.rules_of}}(new[2:]), new[1], {{.state_of}}(new[2:], now)) ON CONFLICT DO NOTHING;
    IF FOUND THEN
      RETURN 1;
    END IF;
  END LOOP;
  slots := {{.slots}}(old_rules, old);
  IF slots IS NULL THEN
    RETURN -1;
  ELSIF old[1] > now THEN
    slots := {{.shifted}}(slots, now - old[1]);
  END IF;
  RETURN {{.write}}(k, {{.banned}}(slots, length, now), now);
END $$;

-- take_all is take for several keys, in their order, which is one for everybody. Each is charged, or
-- none; none is if not wanted. It returns a reply for each. bans and calendars have those of each
-- key as texts, empty if there are none. If the time is outside of a calendar's window the first
-- reply says so, and there are no others.
--
-- The first try locks nothing: what is refused is so by what was committed last. Otherwise the rows
-- are locked one after another, and those that are not there are made, as they will be. If all are as
-- they were read, that decision stands. If one is not, it is made again, by the time at which all are
-- locked. A key of cost 0 is never locked: what was read of it decides.
CREATE OR REPLACE FUNCTION {{.take_all}}(ks text[], rules text[], costs bigint[], bans text[], calendars text[], wanted bool,
  clock bigint)
RETURNS SETOF bigint[] LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  n int := array_length(ks, 1);
  now bigint;
  locked bool := false;
  made text[] := '{}'; -- rows that were not there
  texts text[]; -- the rules of each row
  olds bigint[]; -- the states of all, and where each ends
  old_ends int[];
  replies bigint[]; -- decide's for all, and where each ends
  ends int[];
  fits bool;
  writes bool; -- a clock that went back is to be written, or a refusal to be counted
  unchanged bool;
  old_rules text;
  old bigint[];
  slots bigint[];
  reply bigint[];
  new bigint[];
  new_rules text;
  ban bigint[];
  calendar bigint[];
  beside bigint[];
  cut int;
  same bool;
BEGIN
  LOOP
    texts := '{}';
    olds := '{}';
    old_ends := '{0}';
    FOR i IN 1..n LOOP
      old_rules := NULL;
      old := NULL;
      IF NOT ks[i] = ANY (made) THEN
        SELECT t.rules, t.state INTO old_rules, old FROM {{.table}} t WHERE t.key = ks[i];
      END IF;
      texts := texts || old_rules;
      olds := olds || old;
      old_ends := old_ends || coalesce(array_length(olds, 1), 0);
    END LOOP;
    now := coalesce(clock, {{.micros}}());
    FOR i IN 1..n LOOP
      IF calendars[i] <> '' AND {{.outside}}(string_to_array(calendars[i], ' ')::bigint[], now) THEN
        DELETE FROM {{.table}} t WHERE t.key = ANY (made);
        RETURN NEXT ARRAY[4, now, 0];
        RETURN;
      END IF;
    END LOOP;
    fits := true;
    writes := false;
    replies := '{}';
    ends := '{0}';
    FOR i IN 1..n LOOP
      old := olds[old_ends[i]+1:old_ends[i+1]];
      slots := CASE WHEN texts[i] IS NULL THEN '{1}' ELSE {{.slots}}(texts[i], old) END;
      IF slots IS NULL THEN
        reply := ARRAY[-1, now, 0];
      ELSE
        IF old[1] > now THEN
          writes := writes OR costs[i] > 0;
          slots := {{.shifted}}(slots, now - old[1]);
        END IF;
        same := coalesce(texts[i] = rules[i], false);
        cut := CASE WHEN NOT same THEN {{.own_end}}(slots) END;
        beside := CASE WHEN cut < array_length(slots, 1) THEN slots[cut+1:] END;
        ban := CASE WHEN costs[i] > 0 AND bans[i] <> '' THEN string_to_array(bans[i], ' ')::bigint[] END;
        calendar := CASE WHEN calendars[i] <> '' THEN string_to_array(calendars[i], ' ')::bigint[] END;
        IF ban IS NULL AND beside IS NULL THEN
          reply := {{.decide}}(slots, same, greatest(costs[i], 1), {{.numbers}}(rules[i], costs[i], calendar), false, now);
        ELSE
          reply := {{.decide_beside}}(CASE WHEN beside IS NULL THEN slots ELSE slots[:cut] END, coalesce(beside, '{}'), same,
            greatest(costs[i], 1), {{.numbers}}(rules[i], costs[i], calendar), ban, calendar, false, now);
        END IF;
        writes := writes OR reply[1] IN (2, 5);
      END IF;
      fits := fits AND reply[1] = 1;
      replies := replies || reply;
      ends := ends || array_length(replies, 1);
    END LOOP;
    EXIT WHEN locked OR NOT (fits AND wanted OR writes);
    unchanged := true;
    FOR i IN 1..n LOOP
      CONTINUE WHEN costs[i] = 0;
      IF texts[i] IS NOT NULL THEN
        PERFORM FROM {{.table}} t
        WHERE t.key = ks[i] AND t.state = olds[old_ends[i]+1:old_ends[i+1]] AND t.rules = texts[i] FOR UPDATE;
        CONTINUE WHEN FOUND;
        unchanged := false;
      END IF;
      new := replies[ends[i]+4:ends[i+1]];
      LOOP
        INSERT INTO {{.table}} (key, rules, expires, state)
        VALUES (ks[i], rules[i], replies[ends[i]+3], {{.state_of}}(new, now)) ON CONFLICT DO NOTHING;
        IF FOUND THEN
          made := made || ks[i];
          EXIT;
        END IF;
        unchanged := false;
        PERFORM FROM {{.table}} t WHERE t.key = ks[i] FOR UPDATE;
        EXIT WHEN FOUND;
      END LOOP;
    END LOOP;
    locked := true;
    EXIT WHEN unchanged;
  END LOOP;
  fits := fits AND wanted;
  FOR i IN 1..n LOOP
    reply := replies[ends[i]+1:ends[i+1]];
    new_rules := rules[i];
    IF reply[1] IN (2, 5) OR reply[1] = 1 AND texts[i] <> rules[i] THEN
      new_rules := {{.rules_of}}(reply[4:]);
    END IF;
    IF reply[1] BETWEEN 0 AND 1 AND NOT (fits AND costs[i] > 0) THEN
      old := olds[old_ends[i]+1:old_ends[i+1]];
      slots := CASE WHEN texts[i] IS NULL THEN '{1}' ELSE {{.slots}}(texts[i], old) END;
      IF old[1] > now THEN
        slots := {{.shifted}}(slots, now - old[1]);
      END IF;
      reply := ARRAY[0, now, 0] || slots;
      IF old[1] > now AND costs[i] > 0 THEN
        cut := {{.own_end}}(slots);
        beside := {{.bans_of}}(slots[cut+1:], now);
        new := {{.loaded}}(slots[:cut] || beside, true, now);
        IF new IS NULL OR beside IS NULL THEN
          reply := ARRAY[-1, now, 0];
        ELSE
          reply := ARRAY[2, now] || new;
          new_rules := {{.rules_of}}(reply[4:]);
        END IF;
      END IF;
    END IF;
    IF reply[1] IN (1, 2, 5)
      AND NOT (reply[1] = 1 AND bans[i] <> '' AND rules[i] ~ '^1( [45] 0 0 0)*$') -- no limit keeps a state
    THEN
      IF reply[1] IN (2, 5) OR NOT (unchanged AND ks[i] = ANY (made)) THEN
        UPDATE {{.table}} t
        SET rules = new_rules, expires = reply[3], state = {{.state_of}}(reply[4:], now)
        WHERE t.key = ks[i];
      END IF;
      made := array_remove(made, ks[i]);
    END IF;
    IF reply[1] >= 0 AND {{.has_log}}(coalesce(texts[i] || ' ' || rules[i], rules[i]),
      CASE WHEN bans[i] <> '' THEN string_to_array(bans[i], ' ')::bigint[] END)
    THEN
      reply := {{.summary}}(reply, reply[1] = 1 OR coalesce(texts[i] = rules[i], false), costs[i],
        {{.numbers}}(rules[i], costs[i], NULL));
    END IF;
    RETURN NEXT reply;
  END LOOP;
  DELETE FROM {{.table}} t WHERE t.key = ANY (made);
END $$;
