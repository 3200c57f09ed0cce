-- What package backend does, for PostgreSQL: the twins of backend/rule.go and of the algorithms' files, under their
-- names.
--
-- fits stands for a wait of 0. What only an answer needs, wait, remaining and reset, the caller works out of the reply
-- with the Go functions, and checks the verdict by it.
--
-- Times are whole microseconds since 1970. Every number is below 2^53 in size: counts are below 1e15, periods below
-- 3.2e13, and an empty bucket fills in less than 3.2e15 (backend.MaxCount, MaxPeriod, MaxRefill). Sums fit into a
-- bigint; a product is made in numeric unless a division has shown that it fits.
--
-- A row has rules, a text of numbers: the layout's version, 1, and four for each slot: kind, count, period, burst, the
-- rule that the slot was written under. Its state is the instant of the last write, three numbers for each slot, and
-- the charges of all logs, in the order of the slots:
--
--   kind 0, token bucket:   when the bucket will be full; what that lacks, in 1/count of a microsecond; 0
--   kind 1, sliding window: when the window began; units in it; units in the one before
--   kind 2, sliding log:    when the last charge was; units; the number n of charges: n pairs, time and units, oldest first
--   kind 3, fixed window:   when the window began; units in it; 0
--   kind -1, empty:         zeros
--
-- The functions work on {1, slot, slot, …}, where a slot is those seven numbers, and its log. A rule, as they see it,
-- is 8 numbers: kind, count, period, burst, and for a token bucket the spans that refill the cost and the capacity:
-- microseconds, 1/count of one, microseconds, 1/count of one. Kind 4 is unlimited, kind 5 blocks everything.

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
  IF (rules ~ '^1( -?[0-9]{1,15}){4,}$') IS NOT TRUE THEN
    RETURN NULL;
  END IF;
  r := string_to_array(rules, ' ')::bigint[];
  n := array_length(r, 1) / 4;
  at := 3 * n + 2;
  IF array_length(r, 1) <> 4 * n + 1 OR array_ndims(state) <> 1 OR array_lower(state, 1) <> 1 OR array_length(state, 1) < at - 1
    OR array_position(state, NULL) IS NOT NULL OR 0 > ANY (state)
  THEN
    RETURN NULL;
  END IF;
  FOR i IN 1..n LOOP
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
      capacity := CASE WHEN r[i+3] > 0 THEN r[i+3] ELSE r[i+1] END;
      numbers := numbers || CASE WHEN asked <= capacity THEN {{.mul_add_div}}(asked, r[i+2], 0, r[i+1])
        ELSE ARRAY[4000000000000000, 0] END || {{.mul_add_div}}(capacity, r[i+2], 0, r[i+1]); -- more than any bucket takes to fill
    ELSE
      numbers := numbers || '{0,0,0,0}'::bigint[];
    END IF;
  END LOOP;
  RETURN numbers;
END $$;

-- token_bucket_carry returns a debt under another rule for the units that {us, num} stands for under this one, and 1 if
-- the state has to be written for it.
CREATE OR REPLACE FUNCTION {{.token_bucket_carry}}(us bigint, num bigint, slot bigint[], rule bigint[]) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  capacity bigint := CASE WHEN rule[4] > 0 THEN rule[4] ELSE rule[2] END;
  old_full bigint[];
  units bigint[];
  rest bigint[];
BEGIN
  IF us = 0 AND num = 0 THEN
    RETURN ARRAY[us, num, 0];
  ELSIF slot[2] = rule[2] AND slot[3] = rule[3] THEN
    RETURN ARRAY[us, num, 1];
  END IF;
  old_full := {{.mul_add_div}}(CASE WHEN slot[4] > 0 THEN slot[4] ELSE slot[2] END, slot[3], 0, slot[2]);
  IF us > old_full[1] OR us = old_full[1] AND num > old_full[2] THEN
    us := old_full[1];
    num := old_full[2];
  END IF;
  units := {{.mul_add_div}}(us, slot[2], num, slot[3]);
  IF units[1] >= capacity THEN
    RETURN ARRAY[rule[7], rule[8], 1];
  END IF;
  rest := {{.mul_add_div}}(units[2], rule[3], 0, slot[3]);
  RETURN {{.mul_add_div}}(units[1], rule[3], rest[1] + CASE WHEN rest[2] > 0 THEN 1 ELSE 0 END, rule[2]) || 1::bigint;
END $$;

-- The load functions return a slot as rule sees it now, after 1 if anything but its age changed, else 0.

-- token_bucket_load brings the arrival time up to now, clamps the debt to the capacity, and carries it over.
CREATE OR REPLACE FUNCTION {{.token_bucket_load}}(slot bigint[], rule bigint[], now bigint) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  us bigint := slot[5] - now;
  num bigint := slot[6];
  changed bigint := 0;
  carried bigint[];
BEGIN
  IF us < 0 THEN
    us := 0;
    num := 0;
  END IF;
  IF slot[2] <> rule[2] OR slot[3] <> rule[3] OR slot[4] <> rule[4] THEN
    carried := {{.token_bucket_carry}}(us, num, slot, rule);
    us := carried[1];
    num := carried[2];
    changed := carried[3];
  END IF;
  IF us > rule[7] OR us = rule[7] AND num > rule[8] THEN -- the burst became smaller, or the clock went back
    us := rule[7];
    num := rule[8];
    changed := 1;
  END IF;
  RETURN ARRAY[changed, 0, rule[2], rule[3], rule[4], now + us, num, 0];
END $$;

-- sliding_window_load moves on to the window that now is in, and carries units over.
CREATE OR REPLACE FUNCTION {{.sliding_window_load}}(slot bigint[], rule bigint[], now bigint) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  age bigint := now - slot[5];
  used bigint := slot[6];
  prev bigint := slot[7];
  changed bigint := 0;
BEGIN
  IF age < 0 THEN -- the clock went back: the window starts again, with the units used
    age := 0;
    changed := 1;
  END IF;
  IF age >= slot[3] THEN
    age := age - slot[3];
    prev := used;
    used := 0;
    IF age >= slot[3] OR prev = 0 THEN
      RETURN ARRAY[0, 1, rule[2], rule[3], 0, now, 0, 0];
    END IF;
  END IF;
  IF slot[3] <> rule[3] THEN
    age := div(age::numeric * rule[3], slot[3]); -- below the new period
    changed := 1;
  END IF;
  IF used > rule[2] THEN
    used := rule[2];
    changed := 1;
  END IF;
  -- The most of the window before that the limit has room for.
  IF prev > rule[2] - used AND prev::numeric * (rule[3] - age) > (rule[2] - used)::numeric * rule[3] THEN
    prev := div((rule[2] - used)::numeric * rule[3], rule[3] - age);
    changed := 1;
  END IF;
  RETURN ARRAY[changed, 1, rule[2], rule[3], 0, now - age, used, prev];
END $$;

-- sliding_log_load drops what is out of the window, and carries the rest over. Where charges are more than the limit
-- has room for, the oldest go: they would be free first.
CREATE OR REPLACE FUNCTION {{.sliding_log_load}}(slot bigint[], rule bigint[], now bigint) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  used bigint := slot[6];
  first int := 8; -- of slot, the oldest charge that is kept
  last int := 7 + 2 * slot[7];
  changed bigint := 0;
  log bigint[];
  age bigint;
  units bigint;
BEGIN
  WHILE first < last AND now - slot[first] >= slot[3] LOOP
    used := used - slot[first + 1];
    first := first + 2;
  END LOOP;
  IF first > last OR used <= 0 THEN
    RETURN ARRAY[0, 2, rule[2], rule[3], 0, now, 0, 0];
  END IF;
  IF slot[3] <> rule[3] OR slot[last - 1] > now THEN -- charges keep their relative age; those from the future are new
    changed := 1;
    WHILE first < last LOOP
      age := div(greatest(0, now - slot[first])::numeric * rule[3], slot[3]); -- below the new period
      units := slot[first + 1];
      IF array_length(log, 1) > 0 AND log[array_length(log, 1) - 1] = now - age THEN
        log[array_length(log, 1)] := log[array_length(log, 1)] + units;
      ELSE
        log := log || ARRAY[now - age, units];
      END IF;
      first := first + 2;
    END LOOP;
  ELSE
    log := slot[first:last];
  END IF;
  first := 1;
  WHILE used > rule[2] LOOP
    changed := 1;
    units := least(log[first + 1], used - rule[2]);
    used := used - units;
    log[first + 1] := log[first + 1] - units;
    IF log[first + 1] = 0 THEN
      first := first + 2;
    END IF;
  END LOOP;
  last := array_length(log, 1);
  RETURN ARRAY[changed, 2, rule[2], rule[3], 0, log[last - 1], used, (last + 1 - first) / 2] || log[first:last];
END $$;

-- fixed_window_load starts a new window if the old one is over, and carries units over.
CREATE OR REPLACE FUNCTION {{.fixed_window_load}}(slot bigint[], rule bigint[], now bigint) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  age bigint := now - slot[5];
  used bigint := slot[6];
  changed bigint := 0;
BEGIN
  IF age >= slot[3] THEN
    RETURN ARRAY[0, 3, rule[2], rule[3], 0, now, 0, 0];
  END IF;
  IF age < 0 THEN -- the clock went back: the window starts again, with the units used
    age := 0;
    changed := 1;
  END IF;
  IF slot[3] <> rule[3] THEN
    age := div(age::numeric * rule[3], slot[3]); -- below the new period
    changed := 1;
  END IF;
  IF used > rule[2] THEN
    used := rule[2];
    changed := 1;
  END IF;
  RETURN ARRAY[changed, 3, rule[2], rule[3], 0, now - age, used, 0];
END $$;

-- load returns a slot as a rule of its kind sees it now.
CREATE OR REPLACE FUNCTION {{.load}}(slot bigint[], rule bigint[], now bigint) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
  CASE slot[1]
    WHEN 0 THEN RETURN {{.token_bucket_load}}(slot, rule, now);
    WHEN 1 THEN RETURN {{.sliding_window_load}}(slot, rule, now);
    WHEN 2 THEN RETURN {{.sliding_log_load}}(slot, rule, now);
    ELSE RETURN {{.fixed_window_load}}(slot, rule, now);
  END CASE;
END $$;

-- slot_at returns the slot that begins at a place of a state, or NULL if it is not one that a version of ours has
-- written.
CREATE OR REPLACE FUNCTION {{.slot_at}}(state bigint[], at int) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  slot bigint[] := state[at:at+6];
BEGIN
  IF slot[1] = -1 OR slot[1] = 4 THEN
    RETURN slot;
  END IF;
  IF (slot[1] BETWEEN 0 AND 3 AND slot[2] BETWEEN 1 AND 999999999999999 AND slot[3] BETWEEN 1000 AND 31622400000000
      AND slot[4] BETWEEN 0 AND 999999999999999 AND slot[5] BETWEEN 0 AND 9000000000000000
      AND slot[6] BETWEEN 0 AND 999999999999999 AND slot[7] BETWEEN 0 AND 999999999999999
      AND (slot[1] = 0 AND slot[6] < slot[2] OR slot[1] <> 0 AND slot[4] = 0)) IS NOT TRUE THEN
    RETURN NULL;
  END IF;
  IF slot[1] = 2 THEN
    IF slot[7] > (array_length(state, 1) - at - 6) / 2 OR (slot[6] > 0) <> (slot[7] > 0) THEN
      RETURN NULL;
    END IF;
    slot := state[at:at + 6 + 2 * slot[7]];
  END IF;
  RETURN slot;
END $$;

-- expiry returns the instant from which a state carries no information any more: the twin of Rule.Expiry.
CREATE OR REPLACE FUNCTION {{.expiry}}(state bigint[]) RETURNS bigint
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  at int := 2;
  last bigint := 0;
  slot bigint[];
BEGIN
  WHILE at <= array_length(state, 1) LOOP
    slot := {{.slot_at}}(state, at);
    last := greatest(last, CASE slot[1]
      WHEN 0 THEN slot[5] + CASE WHEN slot[6] > 0 THEN 1 ELSE 0 END
      WHEN 1 THEN slot[5] + CASE WHEN slot[6] > 0 THEN 2 * slot[3] ELSE slot[3] END
      WHEN 2 THEN CASE WHEN slot[7] > 0 THEN slot[5] + slot[3] ELSE 0 END
      WHEN 3 THEN slot[5] + slot[3] -- also of a window whose charges were all refunded
      ELSE 0 END);
    at := at + array_length(slot, 1);
  END LOOP;
  RETURN last;
END $$;

-- decide is Take without the store. It returns the verdict, the time, when the state expires, and the state to be
-- written. The verdict is 1 if the cost was charged; 0 if not, and there is nothing to write; 2 if not, and a limit
-- that changed has to be written all the same; -1 if the state is not ours.
CREATE OR REPLACE FUNCTION {{.decide}}(state bigint[], cost bigint, rules bigint[], now bigint) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  asked bigint := greatest(cost, 1); -- a look asks for one unit
  size int := coalesce(array_length(state, 1), 0);
  at int := 2; -- of state, where the next slot begins
  fits bool := true;
  last bigint := 0; -- when the charged state expires
  kept bool := false; -- it has a slot of a limit that is not passed now
  charged bigint[] := '{1}'; -- the state if cost is charged
  carried bigint[]; -- the state if it is not, NULL as long as no limit has changed
  slot bigint[];
  loaded bigint[];
  log bigint[];
  kind bigint;
  count bigint;
  period bigint;
  time bigint;
  a bigint;
  b bigint;
  room bigint;
BEGIN
  FOR r IN 1..array_length(rules, 1) BY 8 LOOP
    kind := rules[r];
    count := rules[r+1];
    period := rules[r+2];
    time := now;
    a := 0;
    b := 0;
    log := NULL;
    slot := NULL;
    IF at > size THEN
      NULL; -- a key, or a limit, that is new
    ELSIF state[at] = kind AND state[at+1] = count AND state[at+2] = period AND state[at+3] = rules[r+3] AND (CASE kind
        WHEN 0 THEN state[at+4] < now + rules[r+6]
        WHEN 1 THEN state[at+4] <= now AND now < state[at+4] + period AND state[at+5] + state[at+6] <= count
        WHEN 3 THEN state[at+4] <= now AND now < state[at+4] + period AND state[at+5] <= count
        END)
    THEN -- the common case, in which load would change nothing but a bucket's age
      IF kind <> 0 OR state[at+4] >= now THEN
        time := state[at+4];
        a := state[at+5];
        b := state[at+6];
      END IF;
      IF carried IS NOT NULL THEN
        carried := carried || state[at:at+6];
      END IF;
      at := at + 7;
    ELSE
      slot := {{.slot_at}}(state, at);
      IF slot IS NULL THEN
        RETURN ARRAY[-1, now, 0];
      END IF;
      loaded := NULL;
      IF slot[1] = kind THEN
        loaded := {{.load}}(slot, rules[r:r+7], now);
        time := loaded[6];
        a := loaded[7];
        b := loaded[8];
        log := loaded[9:];
        IF loaded[1] = 1 AND carried IS NULL THEN
          carried := state[1:at-1];
        END IF;
      END IF;
      IF carried IS NOT NULL THEN
        carried := carried || CASE WHEN loaded[1] = 1 THEN loaded[2:] ELSE slot END;
      END IF;
      at := at + array_length(slot, 1);
    END IF;

    IF kind = 0 THEN
      time := time + rules[r+4];
      a := a + rules[r+5];
      IF a >= count THEN
        time := time + 1;
        a := a - count;
      END IF;
      room := now + rules[r+6] - time; -- in microseconds
      fits := fits AND (room > 0 OR room = 0 AND a <= rules[r+7]);
      last := greatest(last, time + 1);
      charged := charged || ARRAY[0, count, period, rules[r+3], time, a, 0];
    ELSIF kind > 3 THEN
      fits := fits AND kind = 4;
      charged := charged || coalesce(slot, '{-1,0,0,0,0,0,0}');
      kept := kept OR slot IS NOT NULL;
    ELSE
      room := count - a - asked;
      fits := fits AND room >= 0;
      a := a + asked;
      IF kind = 1 THEN
        -- A weight that does not fit by itself is compared as a product.
        fits := fits AND (b <= room OR b::numeric * (time + period - now) <= room::numeric * period);
        last := greatest(last, time + 2 * period);
      ELSIF kind = 2 THEN
        IF b > 0 AND time = now THEN
          log[2*b] := log[2*b] + asked;
        ELSE
          b := b + 1;
          log := log || ARRAY[now, asked];
        END IF;
        time := now;
        last := greatest(last, now + period);
      ELSE
        last := greatest(last, time + period);
      END IF;
      charged := charged || ARRAY[kind, count, period, 0, time, a, b];
      IF kind = 2 THEN
        charged := charged || log;
      END IF;
    END IF;
  END LOOP;
  IF fits AND cost > 0 THEN
    charged := charged || state[at:]; -- limits that there were once
    IF kept OR at <= size THEN
      last := greatest(last, {{.expiry}}(charged));
    END IF;
    RETURN ARRAY[1, now, last] || charged;
  ELSIF carried IS NOT NULL AND cost > 0 THEN
    carried := carried || state[at:];
    RETURN ARRAY[2, now, {{.expiry}}(carried)] || carried;
  END IF;
  RETURN ARRAY[0, now, 0];
END $$;

-- summary returns decide's reply with as much of each log as an answer needs: the oldest charges, as far as they have
-- to expire for cost to fit, and the last, which stands for those in between too. n of the slot is their number.
CREATE OR REPLACE FUNCTION {{.summary}}(reply bigint[], cost bigint, rules bigint[]) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  size int := array_length(reply, 1);
  at int := 5; -- of reply, where the next slot begins
  summed bigint[] := reply[1:4];
  first int;
  last int;
  next int;
  used bigint;
  over bigint;
  log bigint[];
BEGIN
  FOR r IN 1..array_length(rules, 1) BY 8 LOOP
    EXIT WHEN at > size;
    IF reply[at] <> 2 THEN
      summed := summed || reply[at:at+6];
      at := at + 7;
      CONTINUE;
    END IF;
    first := at + 7;
    last := at + 5 + 2 * reply[at+6]; -- the last pair
    used := reply[at+5];
    WHILE first <= last AND reply[2] - reply[first] >= reply[at+2] LOOP
      used := used - reply[first+1];
      first := first + 2;
    END LOOP;
    over := CASE WHEN reply[1] = 1 THEN 0 ELSE used + greatest(cost, 1) - rules[r+1] END;
    next := first;
    WHILE next <= last AND over > 0 LOOP
      over := over - reply[next+1];
      next := next + 2;
    END LOOP;
    log := reply[first:next-1];
    IF next <= last THEN
      log := log || reply[last:last+1];
    END IF;
    summed := summed || reply[at:at+4] || ARRAY[used, coalesce(array_length(log, 1), 0) / 2] || log;
    at := last + 2;
  END LOOP;
  RETURN summed;
END $$;

-- The refund functions return a loaded slot without cost, which was charged at an instant, NULL if there was nothing.

-- token_bucket_refund lowers the debt, at most to nothing. A charge that is older than the time in which the bucket
-- fills has been refilled since, and gives nothing back.
CREATE OR REPLACE FUNCTION {{.token_bucket_refund}}(slot bigint[], span bigint[], charged_at bigint, cost bigint, now bigint) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  us bigint := slot[5] - now;
  num bigint := slot[6];
  less bigint[];
BEGIN
  IF now - charged_at >= span[1] + (CASE WHEN span[2] > 0 THEN 1 ELSE 0 END) OR us = 0 AND num = 0 THEN
    RETURN NULL;
  END IF;
  IF cost >= (CASE WHEN slot[4] > 0 THEN slot[4] ELSE slot[2] END) THEN
    us := -1;
  ELSE
    less := {{.mul_add_div}}(cost, slot[3], 0, slot[2]);
    us := us - less[1];
    num := num - less[2];
    IF num < 0 THEN
      us := us - 1;
      num := num + slot[2];
    END IF;
  END IF;
  IF us < 0 THEN
    us := 0;
    num := 0;
  END IF;
  RETURN slot[1:4] || ARRAY[now + us, num, 0];
END $$;

-- sliding_window_refund credits the window that was charged, the current one or the one before.
CREATE OR REPLACE FUNCTION {{.sliding_window_refund}}(slot bigint[], charged_at bigint, cost bigint) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  w int := CASE WHEN charged_at < slot[5] THEN 7 ELSE 6 END;
BEGIN
  IF slot[w] = 0 OR charged_at < slot[5] - slot[3] OR charged_at >= slot[5] + slot[3] THEN
    RETURN NULL;
  END IF;
  slot[w] := greatest(0, slot[w] - cost);
  RETURN slot;
END $$;

CREATE OR REPLACE FUNCTION {{.sliding_log_refund}}(slot bigint[], charged_at bigint, cost bigint) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE AS $$
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

CREATE OR REPLACE FUNCTION {{.fixed_window_refund}}(slot bigint[], charged_at bigint, cost bigint) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
  IF slot[6] = 0 OR charged_at < slot[5] OR charged_at >= slot[5] + slot[3] THEN
    RETURN NULL;
  END IF;
  slot[6] := greatest(0, slot[6] - cost);
  RETURN slot;
END $$;

-- refunded is Refund without the store. It returns the state to be written, NULL if nothing is given back, {-1} if the
-- state is not ours.
CREATE OR REPLACE FUNCTION {{.refunded}}(state bigint[], charged_at bigint, kinds bigint[], cost bigint, now bigint) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  at int := 2;
  i int := 1;
  new bigint[] := '{1}';
  given bool := false;
  slot bigint[];
  loaded bigint[];
  span bigint[];
BEGIN
  WHILE at <= array_length(state, 1) LOOP
    slot := {{.slot_at}}(state, at);
    IF slot IS NULL THEN
      RETURN '{-1}';
    END IF;
    at := at + array_length(slot, 1);
    IF slot[1] = kinds[i] THEN -- else nothing was charged here, or what was is forgotten
      span := CASE WHEN slot[1] = 0 THEN {{.mul_add_div}}(CASE WHEN slot[4] > 0 THEN slot[4] ELSE slot[2] END, slot[3], 0, slot[2]) END;
      loaded := {{.load}}(slot, slot[1:4] || ARRAY[0, 0, span[1], span[2]], now);
      loaded := loaded[2:];
      CASE slot[1]
        WHEN 0 THEN loaded := {{.token_bucket_refund}}(loaded, span, charged_at, cost, now);
        WHEN 1 THEN loaded := {{.sliding_window_refund}}(loaded, charged_at, cost);
        WHEN 2 THEN loaded := {{.sliding_log_refund}}(loaded, charged_at, cost);
        ELSE loaded := {{.fixed_window_refund}}(loaded, charged_at, cost);
      END CASE;
      IF loaded IS NOT NULL THEN
        given := true;
        slot := loaded;
      END IF;
    END IF;
    new := new || slot;
    i := i + 1;
  END LOOP;
  RETURN CASE WHEN given THEN new END;
END $$;

-- micros is the database's clock.
CREATE OR REPLACE FUNCTION {{.micros}}() RETURNS bigint
LANGUAGE sql VOLATILE AS $$ SELECT (date_part('epoch', clock_timestamp()) * 1000000)::bigint $$;

-- take decides for the limits of one key and charges all of them or none. It returns decide's reply, with the slots as
-- they are now.
--
-- The first try locks nothing until it writes, and writes only if the row is as it was read: so what is refused is so
-- by what was committed last, and no row is locked or written for it. If the row changed in between, or appeared, the
-- next try reads it under its lock, and decides by the time at which it had that. clock stands for the database's in
-- tests.
--
-- tried says that a statement has tried already, and has the row locked. If that stands under the same rules, there was
-- no room: the reply is 3, the time, and the row's state without the instant of the last write, for the caller to find
-- the same.
CREATE OR REPLACE FUNCTION {{.take}}(k text, rules text, cost bigint, clock bigint, tried bool) RETURNS bigint[]
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  r bigint[];
  old_rules text;
  old bigint[];
  slots bigint[];
  new bigint[];
  reply bigint[];
  now bigint;
  locked bool := false;
BEGIN
  SELECT t.rules, t.state INTO old_rules, old FROM {{.table}} t WHERE t.key = k;
  IF tried AND old_rules = rules THEN
    RETURN ARRAY[3, coalesce(clock, {{.micros}}())] || old[2:];
  END IF;
  r := {{.numbers}}(rules, cost);
  LOOP
    now := coalesce(clock, {{.micros}}());
    slots := {{.slots}}(old_rules, old);
    IF old IS NOT NULL AND slots IS NULL THEN
      RETURN ARRAY[-1, now, 0];
    END IF;
    reply := {{.decide}}(slots, cost, r, now);
    IF reply[1] <= 0 THEN
      reply := reply || slots;
      EXIT;
    END IF;
    new := reply[4:];
    IF old IS NULL THEN
      INSERT INTO {{.table}} (key, rules, expires, state) VALUES (k, {{.rules_of}}(new), reply[3], {{.state_of}}(new, now)) ON CONFLICT DO NOTHING;
    ELSE
      UPDATE {{.table}} t SET rules = {{.rules_of}}(new), expires = reply[3], state = {{.state_of}}(new, now)
      WHERE t.key = k AND (locked OR t.state = old AND t.rules = old_rules);
    END IF;
    EXIT WHEN FOUND;
    SELECT t.rules, t.state INTO old_rules, old FROM {{.table}} t WHERE t.key = k FOR UPDATE;
    locked := FOUND;
  END LOOP;
  IF rules LIKE '% 2 %' THEN
    reply := {{.summary}}(reply, cost, r);
  END IF;
  RETURN reply;
END $$;

-- refund gives back what a take charged to slots of these kinds. It returns 1 if anything was given back, 0 if not, -1
-- if the row is not ours.
CREATE OR REPLACE FUNCTION {{.refund}}(k text, charged_at bigint, kinds bigint[], cost bigint, clock bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
  now bigint;
  last bigint;
  old_rules text;
  old bigint[];
  new bigint[];
BEGIN
  SELECT t.rules, t.state INTO old_rules, old FROM {{.table}} t WHERE t.key = k FOR UPDATE;
  IF NOT FOUND THEN
    RETURN 0;
  END IF;
  now := coalesce(clock, {{.micros}}());
  old := {{.slots}}(old_rules, old);
  IF old IS NULL THEN
    RETURN -1;
  END IF;
  new := {{.refunded}}(old, charged_at, kinds, cost, now);
  IF new IS NULL THEN
    RETURN 0;
  ELSIF new[1] < 0 THEN
    RETURN -1;
  END IF;
  last := {{.expiry}}(new);
  IF last > now THEN
    UPDATE {{.table}} t SET rules = {{.rules_of}}(new), expires = last, state = {{.state_of}}(new, now) WHERE t.key = k;
  ELSE
    DELETE FROM {{.table}} t WHERE t.key = k;
  END IF;
  RETURN 1;
END $$;
