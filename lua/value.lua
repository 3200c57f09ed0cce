-- How a key's state is written. A value is the instant of its last write, as TIME gave it, and then one slot
-- after another, each
--
--   " " rule " " time             token bucket; time is when it will be full
--   " " rule " " time,rest        token bucket that lacks rest/count of a microsecond more
--   " " rule " " time,used        fixed window; time is when it began
--   " " rule " " time,used,rest   sliding window; time is when it began
--   " " rule " " time,used,n:log  sliding log; time of the last charge; n bytes, see sliding_log.lua
--   " - 0"                        empty
--
-- where rule is the text of the rule that the state was charged under, and time is relative to the instant of
-- the write. A value of a later version will not begin with a digit.

-- read returns the slots of a value and the instant it was written at, nothing if it is not one of ours. Slots
-- of one of the rules get that rule.
local function read(raw, rules)
  local sec, usec, pos = string.match(raw, '^(%d+) (%d+)()')
  if not sec or #sec > 10 or #usec > 6 then
    return nil
  end
  local known = {}
  for i = 1, #rules do
    known[rules[i].text] = rules[i]
  end
  local slots, base = {}, sec * 1000000.0 + usec
  while pos <= #raw do
    local text, time, a, b, after = string.match(raw, '^ (%S+) (%-?%d+),?(%d*),?(%d*)()', pos)
    if not text then
      return nil
    end
    local slot = {}
    pos = after
    if text ~= '-' then
      local r = known[text] or new_rule(text)
      if not r or r.stateless or #time > 16 or #a > 15 or #b > 15 then
        return nil
      end
      slot.rule, slot.time, slot.used, slot.rest, slot.log = r, base + time, 0.0, 0.0, ''
      if r.algorithm == 'b' then
        if a ~= '' then
          slot.rest = a + 0.0
        end
        if slot.rest >= r.count then
          return nil
        end
      elseif a == '' or b == '' and r.algorithm ~= 'f' then
        return nil
      else
        slot.used = a + 0.0
      end
      if r.algorithm == 's' then
        slot.rest = b + 0.0
      elseif r.algorithm == 'l' then
        slot.log = string.sub(raw, pos + 1, pos + b)
        if #slot.log ~= b + 0.0 or #slot.log % 8 ~= 0 or (slot.used > 0) ~= (slot.log ~= '') then
          return nil
        end
        pos = pos + 1 + #slot.log
      end
    end
    slots[#slots + 1] = slot
  end
  return slots, base
end

-- write returns the text of slots, their times relative to base.
local function write(slots, base)
  local text = ''
  for i = 1, #slots do
    local slot = slots[i]
    local r = slot.rule
    if not r then
      text = text .. ' - 0'
    else
      text = text .. ' ' .. r.text .. ' ' .. digits(slot.time - base)
      if r.algorithm ~= 'b' then
        text = text .. ',' .. digits(slot.used)
      elseif slot.rest > 0 then
        text = text .. ',' .. digits(slot.rest)
      end
      if r.algorithm == 's' then
        text = text .. ',' .. digits(slot.rest)
      elseif r.algorithm == 'l' then
        text = text .. ',' .. #slot.log .. ':' .. slot.log
      end
    end
  end
  return text
end

-- store writes the slots that a key has from now on, value and time to live in one command.
local function store(key, slots)
  local last = 0.0
  for i = 1, #slots do
    local over = expiry(slots[i])
    if over <= now then
      slots[i] = {}
    end
    last = math.max(last, over)
  end
  if last > now then
    -- The quotient is below 2^43, so that it has room for a thousandth: rounding never reaches a whole number.
    redis.call('SET', key, sec .. ' ' .. usec .. write(slots, now), 'PX', digits(math.ceil((last - now) / 1000) + extra))
  else
    redis.call('DEL', key)
  end
end

-- foreign answers for a key whose value is not ours. It gives the key an end, so that it locks nobody out for
-- ever: the longest that a state of the rules could matter, or none if there are no rules.
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
    local ttl, most = redis.call('PTTL', key), math.ceil(longest / 1000)
    if ttl < 0 or ttl > most then
      redis.call('PEXPIRE', key, digits(most))
    end
  end
  return redis.error_reply('GINLIMIT the key holds a value that is not ours')
end
