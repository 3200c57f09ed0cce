-- How every script begins: it reads the key and the clock, and counts the limits, unless quick.lua.tmpl does. A test sends
-- its clock with the first argument: seconds, microseconds, and how many ms longer than its state a key is kept.
local raw, first, extra, n = redis.pcall('GET', KEYS[1]), ARGV[1], 0, #ARGV - 1
local sec, usec
if #first > 20 then -- an integer has at most so many
  first, sec, usec, extra = string.match(first, '^(%d+) (%d+) (%d+) (%d+)$')
else
  local t = redis.call('TIME')
  sec, usec = t[1], t[2]
end
