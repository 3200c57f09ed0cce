local first, extra = ARGV[1], 0
local call, sec, usec = redis.call, nil, nil
if first and #first > 20 then -- an integer has at most so many
  first, sec, usec, extra = string.match(first, '^(%+?%d+) (%d+) (%d+) (%d+)$')
else
  local t = call('TIME')
  sec, usec = t[1], t[2]
end
local cost = first + 0
local x1, y1 = ARGV[6] + 0, ARGV[7] + 0
local x2, y2 = ARGV[8] + 0, ARGV[9] + 0
local x3, y3 = ARGV[10] + 0, ARGV[11] + 0
local raw, n = redis.pcall('GET', KEYS[1]), 3
local pass, fit, gone, last = true, true, 0, 0
local s, u, time1, time2, time3, part3
if raw and not raw.err then -- a string has no field of that name; asking its type would take longer
  s, u, time1, time2, time3, part3 = string.match(raw, ARGV[5])
  pass = s and #s < 11 and #u < 7
  gone = pass and (sec - s) * 1000000 + (usec - u)
  pass = pass and gone >= 0
elseif raw then
  pass = false
end
if pass then
  do -- limit 1: x refills the cost, y the capacity
    local y, debt = y1, 0
    if raw then
      debt = time1 - gone
      if debt < 0 then
        debt = 0
      end
      pass = pass and #time1 < 17 and debt <= y
    end
    local over = debt + x1
    fit = fit and over <= y
    time1 = over
    if over > last then
      last = over
    end
  end
  do -- limit 2: x refills the cost, y the capacity
    local y, debt = y2, 0
    if raw then
      debt = time2 - gone
      if debt < 0 then
        debt = 0
      end
      pass = pass and #time2 < 17 and debt <= y
    end
    local over = debt + x2
    fit = fit and over <= y
    time2 = over
    if over > last then
      last = over
    end
  end
  do -- limit 3: x is the count, y the period
    local x, y, age, used = x3, y3, 0, 0
    if raw then
      age, used = gone - time3, part3 + 0
      pass = pass and #time3 < 17 and age >= 0 and used <= x
    end
    if age >= y then
      age, used = 0, 0
    end
    used = used + cost
    fit = fit and used <= x
    time3, part3 = 0 - age, used
    local over = y - age
    if over > last then
      last = over
    end
  end
  if pass and fit then
    local value = sec .. ' ' .. usec .. ' ' .. ARGV[2] .. ' ' .. time1 .. ' ' .. ARGV[3] .. ' ' .. time2 .. ' ' .. ARGV[4] .. ' ' .. time3 .. ',' .. part3
    call('SET', KEYS[1], value, 'PX', math.ceil(last / 1000) + extra)
    return value
  elseif pass and raw then
    return '-' .. sec .. ' ' .. usec .. ' ' .. raw
  end
end
