local first, extra = ARGV[1], 0
local call, sec, usec = redis.call, nil, nil
if first and #first > 20 then -- an integer has at most so many
  first, sec, usec, extra = string.match(first, '^(%+?%d+) (%d+) (%d+) (%d+)$')
else
  local t = call('TIME')
  sec, usec = t[1], t[2]
end
local pass, fit = true, true
local raw1 = redis.pcall('GET', KEYS[1])
local cost1, gone1, last1 = first + 0, 0, 0
local s1, u1, time1, time2
if raw1 and not raw1.err then -- a string has no field of that name; asking its type would take longer
  s1, u1, time1, time2 = string.match(raw1, ARGV[4])
  pass = pass and s1 and #s1 < 11 and #u1 < 7
  gone1 = pass and (sec - s1) * 1000000 + (usec - u1)
  pass = pass and gone1 >= 0
elseif raw1 then
  pass = false
end
local x1, y1 = ARGV[5] + 0, ARGV[6] + 0
local x2, y2 = ARGV[7] + 0, ARGV[8] + 0
if pass then
  do -- limit 1: x refills the cost, y the capacity
    local y, debt = y1, 0
    if raw1 then
      debt = time1 - gone1
      if debt < 0 then
        debt = 0
      end
      pass = pass and #time1 < 17 and debt <= y
    end
    local over = debt + x1
    fit = fit and over <= y
    time1 = over
    if over > last1 then
      last1 = over
    end
  end
  do -- limit 2: x refills the cost, y the capacity
    local y, debt = y2, 0
    if raw1 then
      debt = time2 - gone1
      if debt < 0 then
        debt = 0
      end
      pass = pass and #time2 < 17 and debt <= y
    end
    local over = debt + x2
    fit = fit and over <= y
    time2 = over
    if over > last1 then
      last1 = over
    end
  end
  if pass and fit then
    local value1 = sec .. ' ' .. usec .. ' ' .. ARGV[2] .. ' ' .. time1 .. ' ' .. ARGV[3] .. ' ' .. time2
    call('SET', KEYS[1], value1, 'PX', math.ceil(last1 / 1000) + extra)
    return value1
  elseif pass then
    local looked = '-' .. sec .. ' ' .. usec .. ' '
    return looked .. (raw1 or '0 0')
  end
end
local n = 2
