-- Numbers and rules: the twin of backend/algorithm/rule.go.
--
-- Every number is an integer below 2^53 = 9.0e15 in size, which a double holds exactly. Counts are
-- below 1e15, periods below 3.2e13, and an empty bucket fills in less than 3.2e15
-- (backend.MaxCount, MaxPeriod, MaxRefill). Times are whole microseconds since 1970, 1.8e15 now,
-- and with the longest refill below 2^53 until the year 2155. Only products can be larger, and
-- every product goes through mul_add_div.
--
-- All numbers are doubles, also in Lua 5.4, whose integers would wrap around: 0.0 is added to what
-- is read. They are written with '%.0f', since ".." would write 1.0 there and round 15 digits
-- elsewhere.

local now, format = sec * 1000000.0 + usec, string.format

-- row returns the row of the algorithm that a letter stands for: see slots.lua.
local row

-- mul_add_div returns the quotient and the remainder of (a*b + c) / d. The quotient must be below
-- 2^53: every caller says why it is.
local function mul_add_div(a, b, c, d)
  local p = a * b + c
  if p < 9007199254740992 then -- then it is exact: rounding never takes a number across 2^53
    local rem = math.fmod(p, d)
    return (p - rem) / d, rem
  end
  -- Long multiplication of what a has beyond multiples of d: b in digits of base m, from the first,
  -- with m so small that no step reaches 2^53.
  local a_rem, c_rem = math.fmod(a, d), math.fmod(c, d)
  local m, scale = 2.0, 1.0
  while d * m * 4 <= 9007199254740992 do -- d is below 2^51
    m = m * 2
  end
  while scale * m <= b do -- powers of 2: exact
    scale = scale * m
  end
  local quo, rem, rest = 0.0, 0.0, b
  while scale >= 1 do
    local low = math.fmod(rest, scale)
    p = rem * m + (rest - low) / scale * a_rem -- below d*m + m*d
    rem = math.fmod(p, d)
    quo = quo * m + (p - rem) / d
    rest, scale = low, scale / m
  end
  quo = quo + (a - a_rem) / d * b + (c - c_rem) / d
  rem = rem + c_rem
  if rem >= d then
    return quo + 1, rem - d
  end
  return quo, rem
end

-- A span is a length of time as a token bucket measures it, in two numbers: whole microseconds, and
-- 1/count of one, below count. span_of returns the span in which units are refilled. The units must
-- not be above the capacity, so that the span is below MaxRefill.
local function span_of(r, units)
  return mul_add_div(units, r.period, 0, r.count)
end

local function add(r, us, num, more_us, more_num)
  us, num = us + more_us, num + more_num
  if num >= r.count then
    return us + 1, num - r.count
  end
  return us, num
end

local function sub(r, us, num, less_us, less_num)
  us, num = us - less_us, num - less_num
  if num < 0 then
    return us - 1, num + r.count
  end
  return us, num
end

-- scaled returns an age below the period of another rule as the age that it is of r's, rounded
-- down: below r's.
local function scaled(r, age, from)
  local us = mul_add_div(age, r.period, 0, from.period)
  return us
end

-- new_rule returns the rule that a text names, nil if it names none: count/period, or
-- count/period+burst if that is not the count, the period in microseconds or, with an s, in
-- seconds, after the letter of the algorithm or, for a token bucket, none. So the same numbers are
-- the same text. What follows the + of a calendar window is the number of its calendar.
local function new_rule(text)
  local algorithm, count, period, unit, burst = string.match(text, '^([fslch]?)(%d+)/(%d+)(s?)(%+?%d*)$')
  if not algorithm or #count > 15 or #period > 15 or #burst > 16 then
    return nil
  end
  local r = {
    text = text, algorithm = algorithm, row = row(algorithm), count = count + 0.0, period = period + 0.0,
    capacity = count + 0.0, full_us = false, full_num = false, -- the span of a bucket's capacity
  }
  if unit == 's' then
    r.period = r.period * 1000000
  end
  if r.count < 1 or r.period < 1000 or r.period > 31622400000000 then
    return nil
  elseif algorithm == 'c' then
    return (burst == '' or string.find(burst, '^%+[1-9]')) and r or nil
  elseif algorithm ~= '' then
    return burst == '' and r or nil
  end
  if burst ~= '' then
    burst = string.match(burst, '^%+(%d+)$')
    if not burst or burst + 0.0 < 1 then
      return nil
    end
    r.capacity = burst + 0.0
  end
  if r.capacity / r.count * r.period > 3.2e15 then -- so that the quotient below fits
    return nil
  end
  r.full_us, r.full_num = span_of(r, r.capacity)
  if r.full_us > 3153600000000000 or r.full_us == 3153600000000000 and r.full_num > 0 then
    return nil
  end
  return r
end

-- dated puts the window that a text has into a rule, and reports whether now is in it.
local function dated(r, text)
  local start, stop, next_stop = string.match(text, '^=(%-?%d+),(%-?%d+),(%-?%d+)$')
  r.start, r.stop, r.next_stop = start + 0.0, stop + 0.0, next_stop + 0.0
  return now >= r.start * 1000000 and now < r.stop * 1000000
end

-- new_rules returns four values of n words that begin at an index:
--
--   the rules of the limits
--   whether any keeps a state: "u", which is unlimited, and "0", which blocks everything, do not
--   what the last word says of a ban, nil if it says nothing. Such a word is "!" and, with one
--   between them, the rule of refusals, or "0"; how long the first ban is; the longest, both in
--   microseconds; how many refusals nobody has counted yet; and the window if that rule is of a
--   calendar
--   whether now is in the windows of all calendars. Each window follows its rule
local function new_rules(texts, from, n)
  local rules, keep, ban, timely = {}, false, nil, true
  for i = from, from + n - 1 do
    local text = texts[i]
    local mark = string.sub(text, 1, 1)
    if mark == '=' then
      if not dated(rules[#rules], text) then
        timely = false -- miniredis' Lua gets "timely = dated(…) and timely" wrong
      end
    elseif mark == '!' then
      local rule, shortest, longest, more, window = string.match(text, '^!([^!]+)!(%d+)!(%d+)!(%d+)!(.*)$')
      ban = {refusals = new_rule(rule), first = shortest + 0.0, longest = longest + 0.0, more = more + 0.0}
      if window ~= '' and not dated(ban.refusals, window) then
        timely = false
      end
    else
      rules[#rules + 1] = new_rule(text) or {text = text, stateless = true}
      keep = keep or not rules[#rules].stateless
    end
  end
  return rules, keep, ban, timely
end
