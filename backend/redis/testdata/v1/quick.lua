-- The common case of take.lua, without its functions and tables, which would cost more than the decision: the value
-- was written under the same limits, none of them keeps a log, every span of a bucket is in whole microseconds, and
-- no product below can reach 2^53. What it cannot decide it leaves to take.lua: nothing was written then.

local cost, gone, seen, pass, fits = ARGV[1] + 0, 0, {}, true, true
if type(raw) == 'string' then
  seen = {string.match(raw, ARGV[2])}
  pass = seen[1]
  gone = pass and (sec - seen[1]) * 1000000 + (usec - seen[2])
elseif raw then
  pass = false
end
if pass and cost > 0 then
  local value, at, last = sec .. ' ' .. usec, 3, 0
  for i = 3, args, 3 do
    local text, x, y = ARGV[i], ARGV[i + 1] + 0, ARGV[i + 2] + 0
    local letter = string.byte(text)
    local over
    if letter < 58 then -- a digit: token bucket; x refills the cost, y the capacity
      local debt = 0
      if raw then
        debt = seen[at] - gone
        if debt < 0 then
          debt = 0
        end
      end
      over = debt + x
      fits = fits and over <= y
      pass = pass and debt <= y
      value = value .. ' ' .. text .. ' ' .. over
      at = at + 1
    else -- x is the count, y the period
      local age, used, prev, ahead = 0, 0, 0, 0
      if raw then
        age, used = gone - seen[at], seen[at + 1] + 0
        pass = pass and age >= 0 and used <= x
      end
      if letter == 102 then -- f: fixed window
        if age >= y then
          age, used = 0, 0
        end
        used = used + cost
        fits = fits and used <= x
        value = value .. ' ' .. text .. ' ' .. 0 - age .. ',' .. used
        at = at + 2
      else -- s: sliding window
        if raw then
          prev = seen[at + 2] + 0
        end
        if age >= y then
          age = age - y
          prev = used -- one by one: miniredis' Lua gets "used, prev = 0, used" wrong
          used = 0
          if age >= y or prev == 0 then
            age, prev = 0, 0
          end
        end
        local weight, room = prev * (y - age), (x - used) * y
        used, ahead = used + cost, y
        fits = fits and weight <= room - cost * y
        pass = pass and weight <= room
        value = value .. ' ' .. text .. ' ' .. 0 - age .. ',' .. used .. ',' .. prev
        at = at + 3
      end
      over = y - age + ahead
    end
    if over > last then
      last = over
    end
  end
  if pass and fits then
    redis.call('SET', KEYS[1], value, 'PX', math.ceil(last / 1000) + extra)
    return value
  elseif pass and raw then
    return '-' .. sec .. ' ' .. usec .. ' ' .. raw
  end
end
