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
local s1, u1, time1, comma1, part1, time2, comma2, part2, time3, comma3, part3, time4, part4, prev4
if raw1 and not raw1.err then -- a string has no field of that name; asking its type would take longer
  s1, u1, time1, comma1, part1, time2, comma2, part2, time3, comma3, part3, time4, part4, prev4 = string.match(raw1, ARGV[6])
  pass = pass and s1 and #s1 < 11 and #u1 < 7
  gone1 = pass and (sec - s1) * 1000000 + (usec - u1)
  pass = pass and gone1 >= 0
elseif raw1 then
  pass = false
end
local x1, y1 = ARGV[7] + 0, ARGV[8] + 0
local xn1, yn1, c1 = ARGV[9] + 0, ARGV[10] + 0, ARGV[11] + 0
local x2, y2 = ARGV[12] + 0, ARGV[13] + 0
local xn2, yn2, c2 = ARGV[14] + 0, ARGV[15] + 0, ARGV[16] + 0
local x3, y3 = ARGV[17] + 0, ARGV[18] + 0
local xn3, yn3, c3 = ARGV[19] + 0, ARGV[20] + 0, ARGV[21] + 0
local x4, y4 = ARGV[22] + 0, ARGV[23] + 0
if pass then
  do -- limit 1: x + xn/c refills the cost, y + yn/c the capacity; c is the count
    local y, yn, c, debt, num = y1, yn1, c1, 0, 0
    if raw1 then
      debt = time1 - gone1
      if part1 ~= '' then
        num = part1 + 0
        pass = pass and num < c
      elseif comma1 ~= '' then
        pass = false
      end
      if debt < 0 then
        debt, num = 0, 0
      end
      pass = pass and #time1 < 17 and (debt < y or debt == y and num <= yn)
    end
    local over = debt + x1
    num = num + xn1
    if num >= c then
      over, num = over + 1, num - c
    end
    fit = fit and (over < y or over == y and num <= yn)
    time1, part1 = over, ''
    if num > 0 then
      over, part1 = over + 1, ',' .. num
    end
    if over > last1 then
      last1 = over
    end
  end
  do -- limit 2: x + xn/c refills the cost, y + yn/c the capacity; c is the count
    local y, yn, c, debt, num = y2, yn2, c2, 0, 0
    if raw1 then
      debt = time2 - gone1
      if part2 ~= '' then
        num = part2 + 0
        pass = pass and num < c
      elseif comma2 ~= '' then
        pass = false
      end
      if debt < 0 then
        debt, num = 0, 0
      end
      pass = pass and #time2 < 17 and (debt < y or debt == y and num <= yn)
    end
    local over = debt + x2
    num = num + xn2
    if num >= c then
      over, num = over + 1, num - c
    end
    fit = fit and (over < y or over == y and num <= yn)
    time2, part2 = over, ''
    if num > 0 then
      over, part2 = over + 1, ',' .. num
    end
    if over > last1 then
      last1 = over
    end
  end
  do -- limit 3: x + xn/c refills the cost, y + yn/c the capacity; c is the count
    local y, yn, c, debt, num = y3, yn3, c3, 0, 0
    if raw1 then
      debt = time3 - gone1
      if part3 ~= '' then
        num = part3 + 0
        pass = pass and num < c
      elseif comma3 ~= '' then
        pass = false
      end
      if debt < 0 then
        debt, num = 0, 0
      end
      pass = pass and #time3 < 17 and (debt < y or debt == y and num <= yn)
    end
    local over = debt + x3
    num = num + xn3
    if num >= c then
      over, num = over + 1, num - c
    end
    fit = fit and (over < y or over == y and num <= yn)
    time3, part3 = over, ''
    if num > 0 then
      over, part3 = over + 1, ',' .. num
    end
    if over > last1 then
      last1 = over
    end
  end
  do -- limit 4: x is the count, y the period
    local x, y, age, used, prev = x4, y4, 0, 0, 0
    if raw1 then
      age, used, prev = gone1 - time4, part4 + 0, prev4 + 0
      pass = pass and #time4 < 17 and age >= 0 and used <= x and prev <= x
    end
    if age >= y then
      age = age - y
      prev = used -- one by one: miniredis' Lua gets "used, prev = 0, used" wrong
      used = 0
      if age >= y or prev == 0 then
        age, prev = 0, 0
      end
    end
    used = used + cost1
    fit = fit and prev * (y - age) <= (x - used) * y
    time4, part4, prev4 = 0 - age, used, prev
    local over = 2 * y - age
    if over > last1 then
      last1 = over
    end
  end
  if pass and fit then
    local value1 = sec .. ' ' .. usec .. ' ' .. ARGV[2] .. ' ' .. time1 .. part1 .. ' ' .. ARGV[3] .. ' ' .. time2 .. part2 .. ' ' .. ARGV[4] .. ' ' .. time3 .. part3 .. ' ' .. ARGV[5] .. ' ' .. time4 .. ',' .. part4 .. ',' .. prev4
    call('SET', KEYS[1], value1, 'PX', math.ceil(last1 / 1000) + extra)
    return value1
  elseif pass then
    local looked = '-' .. sec .. ' ' .. usec .. ' '
    return looked .. (raw1 or '0 0')
  end
end
local n = 4
