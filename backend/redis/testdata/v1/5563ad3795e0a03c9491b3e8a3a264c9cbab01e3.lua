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
local s1, u1, time1, part1
if raw1 and not raw1.err then -- a string has no field of that name; asking its type would take longer
  s1, u1, time1, part1 = string.match(raw1, ARGV[3])
  pass = pass and s1 and #s1 < 11 and #u1 < 7
  gone1 = pass and (sec - s1) * 1000000 + (usec - u1)
  pass = pass and gone1 >= 0
elseif raw1 then
  pass = false
end
local x1, y1 = ARGV[4] + 0, ARGV[5] + 0
if pass then
  do -- limit 1: x is the count, y the period
    local x, y, age, used = x1, y1, 0, 0
    if raw1 then
      age, used = gone1 - time1, part1 + 0
      pass = pass and #time1 < 17 and age >= 0 and used <= x
    end
    if age >= y then
      age, used = 0, 0
    end
    used = used + cost1
    fit = fit and used <= x
    time1, part1 = 0 - age, used
    local over = y - age
    if over > last1 then
      last1 = over
    end
  end
  if pass and fit then
    local value1 = sec .. ' ' .. usec .. ' ' .. ARGV[2] .. ' ' .. time1 .. ',' .. part1
    call('SET', KEYS[1], value1, 'PX', math.ceil(last1 / 1000) + extra)
    return value1
  elseif pass then
    local looked = '-' .. sec .. ' ' .. usec .. ' '
    return looked .. (raw1 or '0 0')
  end
end
local n = 1
