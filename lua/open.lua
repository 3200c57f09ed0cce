-- How every script begins: it reads the key and the clock. ARGV[#ARGV] is the clock if it has spaces in it, as
-- tests send it: seconds, microseconds, and how many ms longer than its state a key is kept.
local raw, extra = redis.pcall('GET', KEYS[1]), 0
local sec, usec, more = string.match(ARGV[#ARGV], '^(%d+) (%d+) (%d+)$')
local args = #ARGV
if sec then
  extra, args = more + 0, args - 1
else
  local t = redis.call('TIME')
  sec, usec = t[1], t[2]
end
