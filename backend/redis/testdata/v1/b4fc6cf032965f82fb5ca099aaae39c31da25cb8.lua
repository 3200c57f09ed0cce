local first, extra = ARGV[1], 0
local call, sec, usec = redis.call, nil, nil
if first and #first > 20 then -- an integer has at most so many
  first, sec, usec, extra = string.match(first, '^(%+?%d+) (%d+) (%d+) (%d+)$')
else
  local t = call('TIME')
  sec, usec = t[1], t[2]
end
local cost = first + 0
local x1, y1 = ARGV[5] + 0, ARGV[6] + 0
local x2, y2 = ARGV[7] + 0, ARGV[8] + 0
local raw, n = redis.pcall('GET', KEYS[1]), 2
local pass, fit, gone, last = true, true, 0, 0
local s, u, time1, time2
if raw and not raw.err then -- a string has no field of that name; asking its type would take longer
  s, u, time1, time2 = string.match(raw, ARGV[4])
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
  if pass and fit then
    local value = sec .. ' ' .. usec .. ' ' .. ARGV[2] .. ' ' .. time1 .. ' ' .. ARGV[3] .. ' ' .. time2
    call('SET', KEYS[1], value, 'PX', math.ceil(last / 1000) + extra)
    return value
  elseif pass and raw then
    return '-' .. sec .. ' ' .. usec .. ' ' .. raw
  end
end
