-- How every script begins: it reads the key and the clock. Scripts have 2, 5, 8, … arguments; with one more, as tests
-- send it, the last is the clock: seconds, microseconds, and how many ms longer than its state a key is kept.
local raw, extra, args = redis.pcall('GET', KEYS[1]), 0, #ARGV
local sec, usec
if args % 3 == 0 then
  sec, usec, extra = string.match(ARGV[args], '^(%d+) (%d+) (%d+)$')
  extra, args = extra + 0, args - 1
else
  local t = redis.call('TIME')
  sec, usec = t[1], t[2]
end
