local first, extra = ARGV[1], 0
local call, sec, usec = redis.call, nil, nil
if first and #first > 20 then -- an integer has at most so many
  first, sec, usec, extra = string.match(first, '^(%+?%d+) (%d+) (%d+) (%d+)$')
else
  local t = call('TIME')
  sec, usec = t[1], t[2]
end
local n, raw1 = #ARGV - 1, nil
