-- How a key's state is written. A value is the instant of its last write, as TIME gave it, and then
-- one slot after another, each
--
--   " " rule " " time             token bucket; time is when it will be full
--   " " rule " " time,rest        token bucket that lacks rest/count of a microsecond more
--   " " rule " " time,used        fixed window; time is when it began
--   " " rule " " time,used,rest   sliding window; time is when it began
--   " " rule " " time,used,rest   calendar window: calendar_window.lua
--   " " rule " " time,used,n:log  sliding log, or units that are held; time of the last charge; n
--                                 bytes: sliding_log.lua
--   " - 0"                        empty
--   " !" rule ...                 a count of refusals, and the rule it is made under
--   " ! " time,used,rest          a ban: until time, used microseconds long, and the next one is
--                                 longer until rest microseconds after its end
--
-- where rule is the text of the rule that the state was charged under, and time is relative to the
-- instant of the write. A value of a later version will not begin with a digit.

-- banned is the rule of a ban.
local banned = {
  text = '!', algorithm = 's', capacity = 4503599627370496.0,
  row = {expiry = function(r, slot) return slot.time + slot.rest end},
}

-- read returns the slots of limits that a value has, the slots of bans beside them as refusals and
-- ban, and the instant that their times are relative to. The last result tells whether the clock
-- went back, so that this is not the instant of the write: then no time has passed since. read
-- returns nothing if the value is not one of ours. rules are those that slots are likely to be of.
local function read(raw, rules)
  local sec, usec, pos = string.match(raw, '^(%d+) (%d+)()')
  if not sec or #sec > 10 or #usec > 6 then
    return nil
  end
  local slots, beside, base, back = {}, {}, sec * 1000000.0 + usec, 0.0
  if base > now then
    base, back = now, now - base
  end
  while pos <= #raw do
    local text, time, a, b, after = string.match(raw, '^ (%S+) (%-?%d+),?(%d*),?(%d*)()', pos)
    if not text then
      return nil
    end
    pos = after
    if text == '-' then
      slots[#slots + 1] = {}
    else
      local r, of = rules[#slots + 1], string.sub(text, 1, 1)
      if text == '!' then
        r = banned
      elseif of == '!' then
        r = new_rule(string.sub(text, 2))
      elseif not r or r.text ~= text then
        r = new_rule(text)
      end
      if not r or #time > 16 or #a > 16 or #b > 16 then
        return nil
      end
      local used, rest, log = 0.0, 0.0, ''
      if r.algorithm == '' then
        if a ~= '' then
          rest = a + 0.0
        end
        if rest >= r.count or time - 2 > 2 * r.full_us then
          return nil
        end
      elseif a == '' or b == '' and r.algorithm ~= 'f' or r ~= banned and time + 0 > 0 then -- of the future
        return nil
      else
        used = a + 0.0
      end
      local most = 2 * r.capacity -- a Settle may have left a debt
      if r.algorithm == 's' or r.algorithm == 'c' then
        rest = b + 0.0
        if rest > (r.algorithm == 's' and 1999999999999998 or 70368744177663) then -- the limit may have been larger
          return nil
        end
      elseif r.algorithm == 'l' or r.algorithm == 'h' then
        log = string.sub(raw, pos + 1, pos + b)
        if #log ~= b + 0.0 or #log % 8 ~= 0 or (used > 0) ~= (log ~= '') then
          return nil
        end
        pos = pos + 1 + #log
        if back < 0 then
          log = r.row.move(log, back)
        end
      end
      if used > most then
        return nil
      end
      local slot = {rule = r, time = base + time, used = used, rest = rest, log = log}
      if of ~= '!' then
        slots[#slots + 1] = slot
      elseif r == banned then
        beside.ban = slot
      else
        beside.refusals = slot
      end
    end
  end
  return slots, beside, base, back < 0
end

-- written returns the text of a slot after its rule, its time relative to base.
local function written(slot, base)
  local r = slot.rule
  local text = r.text .. format(' %.0f', slot.time - base)
  if r.algorithm == '' then
    return slot.rest > 0 and text .. format(',%.0f', slot.rest) or text
  elseif r.algorithm == 'f' then
    return text .. format(',%.0f', slot.used)
  elseif r.algorithm == 's' or r.algorithm == 'c' then
    return text .. format(',%.0f,%.0f', slot.used, slot.rest)
  end
  return text .. format(',%.0f,%.0f:', slot.used, #slot.log) .. slot.log
end

-- write returns the text of slots, and of those beside them, their times relative to base.
local function write(slots, beside, base)
  local text = ''
  for i = 1, #slots do
    text = text .. ' ' .. (slots[i].rule and written(slots[i], base) or '- 0')
  end
  if beside.refusals then
    text = text .. ' !' .. written(beside.refusals, base)
  end
  if beside.ban then
    text = text .. ' ' .. written(beside.ban, base)
  end
  return text
end

-- store writes the slots that a key has from now on, value and time to live in one command, and
-- returns the value.
local function store(key, slots, beside)
  local last = math.max(beside.refusals and expiry(beside.refusals) or 0.0, beside.ban and expiry(beside.ban) or 0.0)
  for i = 1, #slots do
    last = math.max(last, expiry(slots[i]))
  end
  local value = sec .. ' ' .. usec .. write(slots, beside, now)
  if last > now then
    -- The quotient is below 2^43, so that it has room for a thousandth: rounding never reaches a
    -- whole number.
    call('SET', key, value, 'PX', format('%.0f', math.ceil((last - now) / 1000) + extra))
  else
    call('DEL', key)
  end
  return value
end

-- foreign answers for a key whose value is not ours. It gives the key an end, so that it locks
-- nobody out for ever: the longest that a state of the rules could matter, or none if there are no
-- rules.
local function foreign(key, raw, rules)
  if type(raw) == 'table' and not string.find(raw.err, 'WRONGTYPE', 1, true) then
    return raw
  end
  if rules then
    local longest = 1000.0 -- the shortest end there is
    for i = 1, #rules do
      local r = rules[i]
      longest = math.max(longest, r.full_us or r.period and 2 * r.period or 0)
    end
    local ttl, most = call('PTTL', key), math.ceil(longest / 1000)
    if ttl < 0 or ttl > most then
      call('PEXPIRE', key, format('%.0f', most))
    end
  end
  return redis.error_reply('GINLIMIT the key holds a value that is not ours')
end
