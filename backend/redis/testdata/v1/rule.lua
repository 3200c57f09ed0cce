-- What the scripts share after open.lua: the twin of backend/rule.go, and how a key's state is written.
--
-- fits stands for a wait of 0. What only an answer needs, wait, remaining and reset, the caller works out of the reply
-- with the Go functions, and checks the verdict by it.
--
-- Times are whole microseconds since 1970: 1.8e15 now, below 2^53 = 9.0e15 until the year 2255. Every number here is
-- an integer below 2^53 in size, which a double holds exactly: counts are below 1e15, periods below 3.2e13, and an
-- empty bucket fills in less than 3.2e15 (backend.MaxCount, MaxPeriod, MaxRefill). Only products can pass 2^53, and
-- every product goes through mul_add_div.
--
-- A value is the instant of its last write, as TIME gave it, and then one slot after another, each
--
--   " " rule " " time           nothing else: a bucket without a part of a microsecond
--   " " rule " " time,frac      token bucket; time is when it will be full
--   f rule " " time,used        fixed window; time is when it began
--   s rule " " time,used,prev   sliding window; time is when it began
--   l rule " " time,used,n:bytes   sliding log; time of the last charge; n bytes of charges, see sliding_log.lua
--   " - 0"                      empty
--
-- where rule is count/period, or count/period+burst, the period in microseconds or, with an s, in seconds; and where
-- time is relative to the instant of the write. A value of a later version will not begin with a digit.

local now = sec * 1000000 + usec

-- algorithms holds the functions of each algorithm that a script is made for, by its letter.
local algorithms = {}

-- mul_add_div returns the quotient and the remainder of (a*b + c) / d. The quotient must be below 2^53: every caller
-- says why it is.
local function mul_add_div(a, b, c, d)
  local p = a * b + c
  if p < 9007199254740992 then -- then it is exact: rounding never takes a number across 2^53
    local rem = math.fmod(p, d)
    return (p - rem) / d, rem
  end
  -- Long multiplication of what a has beyond multiples of d: b in digits of base m, from the first, with m so small
  -- that no step reaches 2^53.
  local a_rem, c_rem = math.fmod(a, d), math.fmod(c, d)
  local m, scale = 2, 1
  while d * m * 4 <= 9007199254740992 do -- d is below 2^51
    m = m * 2
  end
  while scale * m <= b do
    scale = scale * m
  end
  local quo, rem, rest = 0, 0, b
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

-- digits returns n for "..", which would round numbers of more than 14 digits.
local function digits(n)
  if n < 100000000000000 and n > -100000000000000 then
    return n
  end
  return string.format('%.0f', n)
end

-- span_of returns the time in which units are refilled: microseconds, and 1/count of one.
local function span_of(r, units)
  return mul_add_div(units, r.period, 0, r.count)
end

-- new_rule returns the rule that a slot's text names, nil if it names none.
local function new_rule(text)
  local algorithm, count, period, unit, burst = string.match(text, '^([fsl]?)(%d+)/(%d+)(s?)%+?(%d*)$')
  if not algorithm then
    return nil
  end
  local r = {text = text, algorithm = algorithm, count = tonumber(count), period = tonumber(period)}
  if algorithm == '' then
    r.algorithm = 'b'
  end
  if unit == 's' then
    r.period = r.period * 1000000
  end
  if r.count < 1 or r.count > 999999999999999 or r.period < 1000 or r.period > 31622400000000 then
    return nil
  end
  r.capacity = r.count
  if r.algorithm == 'b' then
    if burst ~= '' then
      r.capacity = tonumber(burst)
    end
    if r.capacity < 1 or r.capacity > 999999999999999 or r.capacity / r.count * r.period > 3.2e15 then
      return nil
    end
    r.full_us, r.full_num = span_of(r, r.capacity)
  end
  return r
end

-- read returns the slots of a value and the instant it was written at, nothing if it is not one of ours. Rules are
-- those that slots are likely to be of.
local function read(raw, rules)
  local sec, usec, pos = string.match(raw, '^(%d+) (%d+)()')
  if not sec or #sec > 10 or #usec > 6 then
    return nil
  end
  local slots, base = {}, sec * 1000000 + usec
  while pos <= #raw do
    local text, time, a, b, after = string.match(raw, '^ (%S+) (%-?%d+),?(%d*),?(%d*)()', pos)
    if not text then
      return nil
    end
    local slot = {}
    pos = after
    if text ~= '-' then
      local r = rules[#slots + 1]
      if not r or r.text ~= text then
        r = new_rule(text)
      end
      time, a, b = tonumber(time), tonumber(a), tonumber(b)
      if not r or math.abs(time) > 9e15 or (a or 0) > 999999999999999 or (b or 0) > 999999999999999 then
        return nil
      end
      slot.rule, slot.time = r, base + time
      if r.algorithm == 'b' then
        slot.frac = a or 0
        if slot.frac >= r.count then
          return nil
        end
      elseif not a or not b and r.algorithm ~= 'f' then
        return nil
      end
      slot.used, slot.prev = a, b
      if r.algorithm == 'l' then
        slot.log = string.sub(raw, pos + 1, pos + b)
        if b % 8 ~= 0 or #slot.log ~= b then
          return nil
        end
        pos = pos + 1 + b
      end
    end
    slots[#slots + 1] = slot
  end
  return slots, base
end

-- write returns the text of a slot, its time relative to base.
local function write(slot, base)
  local r = slot.rule
  if not r then
    return ' - 0'
  elseif r.algorithm == 'l' then
    return ' ' .. r.text .. ' ' .. digits(slot.time - base) .. ',' .. digits(slot.used) .. ',' .. #slot.log .. ':' .. slot.log
  end
  local text = ' ' .. r.text .. ' ' .. digits(slot.time - base)
  if r.algorithm == 'b' then
    if slot.frac > 0 then
      text = text .. ',' .. digits(slot.frac)
    end
    return text
  end
  text = text .. ',' .. digits(slot.used)
  if r.algorithm == 's' then
    text = text .. ',' .. digits(slot.prev)
  end
  return text
end

-- expiry returns the instant from which a slot carries no information any more: the twin of Rule.Expiry.
local function expiry(slot)
  local r = slot.rule
  if not r then
    return 0
  elseif r.algorithm == 'b' then
    return slot.frac > 0 and slot.time + 1 or slot.time
  elseif r.algorithm == 'l' and slot.used == 0 then
    return 0
  elseif r.algorithm == 's' and slot.used > 0 then
    return slot.time + 2 * r.period
  end
  return slot.time + r.period -- also of a window whose charges were all refunded
end

-- store writes the slots, value and time to live in one command, and returns the value.
local function store(slots)
  local value, last = sec .. ' ' .. usec, 0
  for i = 1, #slots do
    local over = expiry(slots[i])
    value = value .. write(over > now and slots[i] or {}, now)
    last = math.max(last, over)
  end
  if last > now then
    redis.call('SET', KEYS[1], value, 'PX', digits(math.ceil((last - now) / 1000) + extra))
  else
    redis.call('DEL', KEYS[1])
  end
  return value
end

-- foreign answers for a key whose value is not ours. It gives the key an end, so that it locks nobody out for ever:
-- the longest that a value of ours could have, in ms, or none if longest is nil.
local function foreign(longest)
  if type(raw) == 'table' and not string.find(raw.err, 'WRONGTYPE', 1, true) then
    return raw
  end
  if longest then
    local ttl = redis.call('PTTL', KEYS[1])
    if ttl < 0 or ttl > longest then
      redis.call('PEXPIRE', KEYS[1], longest)
    end
  end
  return redis.error_reply('GINLIMIT the key holds a value that is not ours')
end
