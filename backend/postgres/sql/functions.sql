-- What package backend does, for PostgreSQL: the twins of backend/rule.go and of the algorithms' files, under their names.
--
-- fits stands for a wait of 0. What only an answer needs, wait, remaining and reset, the caller works out of the reply
-- with the Go functions, and checks the verdict by it.
--
-- Times are whole microseconds since 1970. Every number is below 2^53 in size: counts are below 1e15, periods below
-- 3.2e13, and an empty bucket fills in less than 3.2e15 (backend.MaxCount, MaxPeriod, MaxRefill). Sums fit into a bigint;
-- a product is made in numeric unless a division has shown that it fits.
--
-- A state is {1, slot, slot, …}; 1 is the layout's version. A slot is
--
--   kind, count, period, burst, time, a, b
--
-- where the first four are the rule that it was written under, and the others
--
--   kind 0, token bucket:   when the bucket will be full; what that lacks, in 1/count of a microsecond; 0
--   kind 1, sliding window: when the window began; units in it; units in the one before
--   kind 2, sliding log:    when the last charge was; units; the number n of charges: n pairs follow, time and units,
--                           oldest first
--   kind 3, fixed window:   when the window began; units in it; 0
--   kind -1, empty:         zeros
--
-- A rule, as callers send it, is 8 numbers: kind, count, period, burst, and for a token bucket the spans that refill the
-- cost and the capacity: microseconds, 1/count of one, microseconds, 1/count of one. Kind 4 is unlimited, kind 5 blocks
-- everything.

-- mul_add_div returns the quotient and the remainder of (a*b + c) / d.
CREATE FUNCTION {{mul_add_div}}(a bigint, b bigint, c bigint, d bigint) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  p numeric := a::numeric * b + c;
  q numeric := div(p, d);
BEGIN
  RETURN ARRAY[q::bigint, (p - q * d)::bigint];
END $$;

-- token_bucket_carry returns a debt under another rule for the units that {us, num} stands for under this one, and 1 if
-- the state has to be written for it.
CREATE FUNCTION {{token_bucket_carry}}(us bigint, num bigint, slot bigint[], rule bigint[]) RETURNS bigint[]
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
  old_full := {{mul_add_div}}(CASE WHEN slot[4] > 0 THEN slot[4] ELSE slot[2] END, slot[3], 0, slot[2]);
  IF us > old_full[1] OR us = old_full[1] AND num > old_full[2] THEN
    us := old_full[1];
    num := old_full[2];
  END IF;
  units := {{mul_add_div}}(us, slot[2], num, slot[3]);
  IF units[1] >= capacity THEN
    RETURN ARRAY[rule[7], rule[8], 1];
  END IF;
  rest := {{mul_add_div}}(units[2], rule[3], 0, slot[3]);
  RETURN {{mul_add_div}}(units[1], rule[3], rest[1] + CASE WHEN rest[2] > 0 THEN 1 ELSE 0 END, rule[2]) || 1::bigint;
END $$;

-- The load functions return a slot as rule sees it now, after 1 if anything but its age changed, else 0.

-- token_bucket_load brings the arrival time up to now, clamps the debt to the capacity, and carries it over.
CREATE FUNCTION {{token_bucket_load}}(slot bigint[], rule bigint[], now bigint) RETURNS bigint[]
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
    carried := {{token_bucket_carry}}(us, num, slot, rule);
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
CREATE FUNCTION {{sliding_window_load}}(slot bigint[], rule bigint[], now bigint) RETURNS bigint[]
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

-- sliding_log_load drops what is out of the window, and carries the rest over. Where charges are more than the limit has
-- room for, the oldest go: they would be free first.
CREATE FUNCTION {{sliding_log_load}}(slot bigint[], rule bigint[], now bigint) RETURNS bigint[]
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
  IF first > last THEN
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
CREATE FUNCTION {{fixed_window_load}}(slot bigint[], rule bigint[], now bigint) RETURNS bigint[]
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

-- expiry returns the instant from which a slot carries no information any more: the twin of Rule.Expiry.
CREATE FUNCTION {{expiry}}(slot bigint[]) RETURNS bigint
LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE slot[1]
    WHEN 0 THEN slot[5] + CASE WHEN slot[6] > 0 THEN 1 ELSE 0 END
    WHEN 1 THEN slot[5] + CASE WHEN slot[6] > 0 THEN 2 * slot[3] ELSE slot[3] END
    WHEN 2 THEN CASE WHEN slot[7] > 0 THEN slot[5] + slot[3] ELSE 0 END
    WHEN 3 THEN slot[5] + slot[3]
    ELSE 0 END
$$;

-- ours reports whether the slot at a place of a state is one that a version of ours has written, as far as anything
-- below depends on it.
CREATE FUNCTION {{ours}}(slot bigint[]) RETURNS bool
LANGUAGE sql IMMUTABLE AS $$
  SELECT slot[1] = -1 OR coalesce(slot[1] BETWEEN 0 AND 3
    AND slot[2] BETWEEN 1 AND 999999999999999 AND slot[3] BETWEEN 1000 AND 31622400000000
    AND slot[4] BETWEEN 0 AND 999999999999999 AND slot[5] BETWEEN 0 AND 9000000000000000
    AND slot[6] BETWEEN 0 AND 999999999999999 AND slot[7] BETWEEN 0 AND 999999999999999
    AND (slot[1] = 0 OR slot[4] = 0) AND (slot[1] <> 0 OR slot[6] < slot[2])
    AND (slot[1] <> 2 OR array_length(slot, 1) = 7 + 2 * slot[7] AND (slot[6] > 0) = (slot[7] > 0)), false)
$$;

-- decide is Take without the store. It returns the verdict, the time, when the state expires, and the state to be written.
-- The verdict is 1 if the cost was charged; 0 if not, and there is nothing to write; 2 if not, and a limit that changed
-- has to be written all the same; -1 if the state is not ours.
CREATE FUNCTION {{decide}}(state bigint[], cost bigint, rules bigint[], now bigint) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  asked bigint := greatest(cost, 1); -- a look asks for one unit
  n int := array_length(rules, 1) / 8;
  fits bool := true;
  any bool := false;
  at int := 2; -- of state, where the next slot begins
  width int;
  rule bigint[];
  old bigint[];
  st bigint[];
  loaded bigint[] := '{}'; -- st of every limit
  written bigint[] := '{1}';
  last bigint := 0;
  over bigint;
BEGIN
  IF state IS NULL THEN
    state := '{1}';
  ELSIF state[1] IS DISTINCT FROM 1 THEN
    RETURN ARRAY[-1, now, 0];
  END IF;
  FOR i IN 1..n LOOP
    rule := rules[8*i-7:8*i];
    old := NULL;
    IF state[at] IS NOT NULL THEN
      width := CASE WHEN state[at] = 2 THEN 7 + 2 * state[at+6] ELSE 7 END;
      old := state[at:at+width-1];
      at := at + width;
      IF NOT {{ours}}(old) THEN
        RETURN ARRAY[-1, now, 0];
      END IF;
    END IF;
    IF rule[1] > 3 THEN
      fits := fits AND rule[1] = 4;
      loaded := loaded || 0::bigint;
      CONTINUE;
    END IF;
    IF old IS NULL OR old[1] <> rule[1] THEN
      st := ARRAY[0, rule[1], rule[2], rule[3], rule[4], now, 0, 0];
    ELSIF rule[1] = 0 THEN
      st := {{token_bucket_load}}(old, rule, now);
    ELSIF rule[1] = 1 THEN
      st := {{sliding_window_load}}(old, rule, now);
    ELSIF rule[1] = 2 THEN
      st := {{sliding_log_load}}(old, rule, now);
    ELSE
      st := {{fixed_window_load}}(old, rule, now);
    END IF;
    any := any OR st[1] = 1;
    IF rule[1] = 0 THEN
      over := st[7] + rule[6] - CASE WHEN st[7] + rule[6] >= rule[2] THEN rule[2] ELSE 0 END;
      fits := fits AND asked <= CASE WHEN rule[4] > 0 THEN rule[4] ELSE rule[2] END AND
        (st[6] - now + rule[5] + CASE WHEN st[7] + rule[6] >= rule[2] THEN 1 ELSE 0 END, over) <= (rule[7], rule[8]);
    ELSE
      over := rule[2] - st[7] - asked; -- room
      fits := fits AND over >= 0 AND (rule[1] <> 1 OR st[8]::numeric * (st[6] + rule[3] - now) <= over::numeric * rule[3]);
    END IF;
    loaded := loaded || st;
  END LOOP;
  RETURN ARRAY[0, now, 0];
END $$;
