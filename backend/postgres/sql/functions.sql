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
--   kind 0, token bucket:   when the bucket will be full; what that lacks, in 1/count of a µs; 0
--   kind 1, sliding window: when the window began; units in it; units in the one before
--   kind 2, sliding log:    when the last charge was; units; the number of charges
--   kind 3, fixed window:   when the window began; units in it; 0
--   kind 4, unlimited:      zeros, also for count, period and burst, as in any slot that is empty
--   kind 5, blocked:        the same
--
-- A log is as many pairs of a time and units, oldest first.
--
-- The functions work on {1, slot, slot, …}, where a slot is those seven numbers, and its log. A
-- rule, as they see it, is 8 numbers: kind, count, period, burst, and for a token bucket the spans
-- that refill the cost and the capacity: microseconds, 1/count of one, microseconds, 1/count of
-- one.

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
    IF r[4*i-2] = 0 AND (state[3*i-1] - state[1] - 1)::numeric * r[4*i-1]
      > 2::numeric * coalesce(nullif(r[4*i+1], 0), r[4*i-1]) * r[4*i]
    THEN
      RETURN NULL; -- more than a debt can be
    END IF;
    -- A Settle may have left a debt of twice the capacity; nothing else is of the future.
    IF state[3*i-1] > state[1] AND (r[4*i-2] BETWEEN 1 AND 3
      OR r[4*i-2] = 0 AND (state[3*i-1] - state[1] - 1)::numeric * r[4*i-1]
        > 2 * coalesce(nullif(r[4*i+1], 0), r[4*i-1])::numeric * r[4*i])
    THEN
      RETURN NULL;
    END IF;
    slots := slots || r[4*i-2:4*i+1] || state[3*i-1:3*i+1];
    IF r[4*i-2] = 2 THEN
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
    at := at + 7 + (CASE WHEN slots[at] = 2 THEN 2 * slots[at+6] ELSE 0 END);
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
    IF slots[at] = 2 THEN
      logs := logs || slots[at + 7 : at + 6 + 2 * slots[at+6]];
      at := at + 2 * slots[at+6];
    END IF;
    at := at + 7;
  END LOOP;
  RETURN state || logs;
END $$;

-- numbers returns the rules that a caller sends, each in 8 numbers.
CREATE OR REPLACE FUNCTION {{.numbers}}(rules text, cost bigint) RETURNS bigint[]
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
    ELSE
      numbers := numbers || '{0,0,0,0}'::bigint[];
    END IF;
  END LOOP;
  RETURN numbers;
END $$;

-- slot_at returns the slot that begins at a place of slots, or NULL if it is not one that a version
-- of ours has written.
CREATE OR REPLACE FUNCTION {{.slot_at}}(slots bigint[], at int) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  slot bigint[] := slots[at:at+6];
BEGIN
  IF slot[1] BETWEEN 4 AND 5 THEN
    RETURN slot;
  END IF;
  IF (slot[1] BETWEEN 0 AND 3 AND slot[2] BETWEEN 1 AND 999999999999999
      AND slot[3] BETWEEN 1000 AND 31622400000000 AND slot[4] BETWEEN 0 AND 999999999999999 AND slot[5] BETWEEN 0 AND 9000000000000000
      AND slot[7] BETWEEN 0 AND 1999999999999998 -- the limit may have been larger
      AND (slot[1] = 0 AND slot[6] BETWEEN 0 AND slot[2] - 1
        OR slot[1] <> 0 AND slot[4] = 0 AND slot[6] BETWEEN 0 AND 2 * slot[2])) IS NOT TRUE THEN
    RETURN NULL;
  END IF;
  IF slot[1] = 2 THEN
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
  RETURN CASE slot[1]
    WHEN 0 THEN slot[5] + CASE WHEN slot[6] > 0 THEN 1 ELSE 0 END
    WHEN 1 THEN slot[5] + CASE WHEN slot[6] > 0 THEN 2 * slot[3] ELSE slot[3] END
    WHEN 2 THEN CASE WHEN slot[7] > 0 THEN slot[5] + slot[3] ELSE 0 END
    WHEN 3 THEN slot[5] + greatest(1, (slot[6] + slot[2] - 1) / slot[2]) * slot[3]
    ELSE 0 END;
END $$;

-- starts returns where each slot begins, 0 for one that is empty, and NULL if one is not ours.
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
    starts := starts || CASE WHEN slot[1] <= 3 THEN at ELSE 0 END;
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
      CONTINUE WHEN matched[i] > 0 OR rules[r] > 3;
      FOR j IN 1..size LOOP
        at := starts[j];
        CONTINUE WHEN at = 0 OR j <> i AND pass % 2 = 1;
        alike := slots[at+2] = rules[r+2] AND (pass > 4 OR slots[at] = rules[r]);
        IF pass <= 2 THEN
          alike := alike AND slots[at+1] = rules[r+1]
            AND coalesce(nullif(slots[at+3], 0), slots[at+1])
              = coalesce(nullif(rules[r+3], 0), rules[r+1]);
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
    IF slots[at] <= 3 THEN
      slots[at+4] := slots[at+4] + by_us;
    END IF;
    IF slots[at] = 2 THEN
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
  IF kind > 3 THEN
    RETURN slot;
  ELSIF {{.expiry}}(slot) <= now THEN
    RETURN slot[1:4] || ARRAY[now, 0, 0];
  ELSIF kind = 1 AND now - time >= period THEN
    RETURN slot[1:4] || ARRAY[time + period, 0, used];
  ELSIF kind = 3 THEN
    over := (now - time) / period;
    RETURN slot[1:4] || ARRAY[time + over * period, used - over * slot[2], 0];
  ELSIF kind <> 2 THEN
    RETURN slot;
  END IF;
  WHILE now - slot[first] >= period LOOP -- ends before the last, because the log has not expired
    used := used - slot[first+1];
    first := first + 2;
  END LOOP;
  RETURN slot[1:5] || ARRAY[used, slot[7] - (first - 8) / 2] || slot[first:];
END $$;

-- loaded returns when slots expire, and the slots as they are now, NULL if one is not ours.
CREATE OR REPLACE FUNCTION {{.loaded}}(slots bigint[], now bigint) RETURNS bigint[]
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
    slot := {{.age}}(slot, now);
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

-- carry returns an aged slot under another rule, with the units that are in use. Ages stay what
-- they are of a period. Another algorithm takes the units over as if they were charged now.
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
    ELSIF rule[1] = 2 AND used > 0 THEN
      RETURN new || ARRAY[now, used, 1, now, used];
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
      next := at + 7 + CASE kind WHEN 2 THEN 2 * b ELSE 0 END;
    ELSE
      at := places[i];
    END IF;
    IF kind > 3 THEN
      fits := fits AND kind = 4;
      charged := charged || ARRAY[kind, 0, 0, 0, 0, 0, 0];
      CONTINUE;
    END IF;
    judged := false;
    slot := NULL;
    IF same AND (CASE kind
        WHEN 0 THEN time < now + rules[r+6] AND a < count
        WHEN 2 THEN time <= now AND a BETWEEN 1 AND count AND b > 0
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
      ELSIF kind = 2 THEN
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
          fits := fits AND {{.fits}}(slot, now, coalesce(nullif(rules[r+3], 0), count) - asked);
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
      ELSIF kind = 2 THEN
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
      IF kind = 2 THEN
        charged := charged || log;
      END IF;
    END IF;
    EXIT WHEN NOT fits;
  END LOOP;
  IF fits AND cost > 0 THEN
    RETURN ARRAY[1, now, last] || charged;
  ELSIF cost > 0 AND moved THEN
    charged := {{.loaded}}(slots, now);
    RETURN CASE WHEN charged IS NULL THEN ARRAY[-1, now, 0] ELSE ARRAY[2, now] || charged END;
  END IF;
  RETURN ARRAY[0, now, 0];
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
    IF slots[at] <> 2 THEN
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
    rule := CASE WHEN same THEN i ELSE array_position(places, at) END;
    IF reply[1] <> 1 AND rule IS NOT NULL THEN
      over := used + greatest(cost, 1) - coalesce(nullif(rules[8*rule-4], 0), rules[8*rule-6]);
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

CREATE OR REPLACE FUNCTION {{.fixed_window_refund}}(slot bigint[], charged_at bigint, cost bigint)
RETURNS bigint[] LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
  IF slot[6] = 0 OR charged_at < slot[5] OR charged_at >= slot[5] + slot[3] THEN
    RETURN NULL;
  END IF;
  slot[6] := greatest(0, slot[6] - cost);
  RETURN slot;
END $$;

-- refunded is a Settle for less without the store. It returns when the state expires and the slots
-- to be written, NULL if nothing is given back, {-1} if a slot is not ours.
CREATE OR REPLACE FUNCTION {{.refunded}}(slots bigint[], same bool, charged_at bigint, cost bigint, rules bigint[], now bigint)
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
    slot := {{.age}}(slot, now);
    at := at + width;
    IF slot[1] = rules[8*i-7] THEN -- otherwise nothing was charged here, or what was is forgotten
      CASE slot[1]
        WHEN 0 THEN less := {{.token_bucket_refund}}(slot, charged_at, cost, now);
        WHEN 1 THEN less := {{.sliding_window_refund}}(slot, charged_at, cost);
        WHEN 2 THEN less := {{.sliding_log_refund}}(slot, charged_at, cost);
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

-- settled_up is a Settle for more without the store: units are charged whatever is left, until twice
-- the capacity is in use. It returns what refunded does.
CREATE OR REPLACE FUNCTION {{.settled_up}}(slots bigint[], same bool, units bigint, rules bigint[], now bigint)
RETURNS bigint[] LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  places int[] := {{.starts}}(slots);
  r int;
  new bigint[] := '{1}';
  last bigint := 0;
  slot bigint[];
  more bigint;
  span bigint[];
BEGIN
  IF places IS NULL THEN
    RETURN '{-1}';
  ELSIF NOT same THEN
    places := {{.match}}(slots, places, rules);
  END IF;
  FOR i IN 1..array_length(rules, 1) / 8 LOOP
    r := 8 * i - 7;
    IF rules[r] > 3 THEN
      new := new || ARRAY[rules[r], 0, 0, 0, 0, 0, 0];
      CONTINUE;
    END IF;
    slot := rules[r:r+3] || ARRAY[now, 0, 0];
    IF places[i] > 0 THEN
      slot := {{.age}}({{.slot_at}}(slots, places[i]), now);
      IF slot[1:4] <> rules[r:r+3]
        AND {{.used}}(slot, now) <= coalesce(nullif(rules[r+3], 0), rules[r+1])
      THEN
        slot := {{.carry}}(slot, rules[r:r+7], now);
      END IF;
    END IF;
    more := least(units, 2 * coalesce(nullif(slot[4], 0), slot[2]) - {{.used}}(slot, now));
    IF more > 0 AND slot[1] = 0 THEN
      span := {{.mul_add_div}}(more, slot[3], slot[6], slot[2]);
      slot := slot[1:4] || ARRAY[slot[5] + span[1], span[2], 0];
    ELSIF more > 0 THEN
      slot[6] := slot[6] + more;
      IF slot[1] = 2 AND slot[7] > 0 AND slot[5] = now THEN
        slot[7 + 2*slot[7]] := slot[7 + 2*slot[7]] + more;
      ELSIF slot[1] = 2 THEN
        slot[5] := now;
        slot[7] := slot[7] + 1;
        slot := slot || ARRAY[now, more];
      END IF;
    END IF;
    new := new || slot;
    last := greatest(last, {{.expiry}}(slot));
  END LOOP;
  RETURN last || new;
END $$;

-- micros is the database's clock.
CREATE OR REPLACE FUNCTION {{.micros}}() RETURNS bigint
LANGUAGE sql VOLATILE AS $$ SELECT (date_part('epoch', clock_timestamp()) * 1000000)::bigint $$;

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
-- the same.
CREATE OR REPLACE FUNCTION {{.take}}(k text, rules text, cost bigint, clock bigint, tried bool)
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
BEGIN
  SELECT t.rules, t.state INTO old_rules, old FROM {{.table}} t WHERE t.key = k;
  IF tried AND old_rules = rules AND old[1] <= coalesce(clock, {{.micros}}()) THEN
    RETURN ARRAY[3, coalesce(clock, {{.micros}}())] || old;
  END IF;
  r := {{.numbers}}(rules, cost);
  LOOP
    now := coalesce(clock, {{.micros}}());
    slots := CASE WHEN old IS NULL THEN '{1}' ELSE {{.slots}}(old_rules, old) END;
    IF slots IS NULL THEN
      RETURN ARRAY[-1, now, 0];
    END IF;
    IF old[1] > now THEN
      slots := {{.shifted}}(slots, now - old[1]);
    END IF;
    same := coalesce(old_rules = rules, false);
    reply := {{.decide}}(slots, same, cost, r, coalesce(old[1] > now, false), now);
    IF reply[1] <= 0 THEN
      reply := reply || slots;
      EXIT;
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
  IF reply[1] >= 0 AND (rules LIKE '% 2 %' OR old_rules LIKE '% 2 %') THEN
    reply := {{.summary}}(reply, same OR reply[1] = 1, cost, r);
  END IF;
  RETURN reply;
END $$;

-- settle corrects what a take charged under these rules, by units less or units more, whichever is
-- not 0. It returns 1 if anything changed, 0 if not, -1 if the row is not ours.
CREATE OR REPLACE FUNCTION {{.settle}}(k text, rules text, charged_at bigint, less bigint, more bigint, clock bigint)
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
    EXIT WHEN FOUND OR more = 0;
    now := coalesce(clock, {{.micros}}());
    new := {{.settled_up}}('{1}', false, more, {{.numbers}}(rules, 1), now);
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
  slots := {{.slots}}(old_rules, old);
  IF slots IS NULL THEN
    RETURN -1;
  ELSIF old[1] > now THEN
    slots := {{.shifted}}(slots, now - old[1]);
  END IF;
  new := CASE WHEN more = 0
    THEN {{.refunded}}(slots, old_rules = rules, charged_at, less, {{.numbers}}(rules, 1), now)
    ELSE {{.settled_up}}(slots, old_rules = rules, more, {{.numbers}}(rules, 1), now) END;
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

-- take_all is take for several keys, in their order, which is one for everybody. Each is charged, or
-- none; none is if not wanted. It returns a reply for each.
--
-- The first try locks nothing: what is refused is so by what was committed last. Otherwise the rows
-- are locked one after another, and those that are not there are made, as they will be. If all are as
-- they were read, that decision stands. If one is not, it is made again, by the time at which all are
-- locked. A key of cost 0 is never locked: what was read of it decides.
CREATE OR REPLACE FUNCTION {{.take_all}}(ks text[], rules text[], costs bigint[], wanted bool, clock bigint)
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
  moved bool; -- a clock that went back is to be written
  unchanged bool;
  old_rules text;
  old bigint[];
  slots bigint[];
  reply bigint[];
  new bigint[];
  new_rules text;
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
    fits := true;
    moved := false;
    replies := '{}';
    ends := '{0}';
    FOR i IN 1..n LOOP
      old := olds[old_ends[i]+1:old_ends[i+1]];
      slots := CASE WHEN texts[i] IS NULL THEN '{1}' ELSE {{.slots}}(texts[i], old) END;
      IF slots IS NULL THEN
        reply := ARRAY[-1, now, 0];
      ELSE
        IF old[1] > now THEN
          moved := moved OR costs[i] > 0;
          slots := {{.shifted}}(slots, now - old[1]);
        END IF;
        reply := {{.decide}}(slots, coalesce(texts[i] = rules[i], false), greatest(costs[i], 1),
          {{.numbers}}(rules[i], costs[i]), false, now);
      END IF;
      fits := fits AND reply[1] = 1;
      replies := replies || reply;
      ends := ends || array_length(replies, 1);
    END LOOP;
    EXIT WHEN locked OR NOT (fits AND wanted OR moved);
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
    IF reply[1] >= 0 AND NOT (fits AND costs[i] > 0) THEN
      old := olds[old_ends[i]+1:old_ends[i+1]];
      slots := CASE WHEN texts[i] IS NULL THEN '{1}' ELSE {{.slots}}(texts[i], old) END;
      IF old[1] > now THEN
        slots := {{.shifted}}(slots, now - old[1]);
      END IF;
      reply := ARRAY[0, now, 0] || slots;
      IF old[1] > now AND costs[i] > 0 THEN
        new := {{.loaded}}(slots, now);
        IF new IS NULL THEN
          reply := ARRAY[-1, now, 0];
        ELSE
          reply := ARRAY[2, now] || new;
          new_rules := texts[i];
        END IF;
      END IF;
    END IF;
    IF reply[1] = 2 OR reply[1] = 1 AND NOT (unchanged AND ks[i] = ANY (made)) THEN
      UPDATE {{.table}} t
      SET rules = new_rules, expires = reply[3], state = {{.state_of}}(reply[4:], now)
      WHERE t.key = ks[i];
    END IF;
    IF reply[1] = 1 THEN
      made := array_remove(made, ks[i]);
    END IF;
    IF reply[1] >= 0 AND (rules[i] LIKE '% 2 %' OR texts[i] LIKE '% 2 %') THEN
      reply := {{.summary}}(reply, reply[1] = 1 OR coalesce(texts[i] = rules[i], false), costs[i],
        {{.numbers}}(rules[i], costs[i]));
    END IF;
    RETURN NEXT reply;
  END LOOP;
  DELETE FROM {{.table}} t WHERE t.key = ANY (made);
END $$;
