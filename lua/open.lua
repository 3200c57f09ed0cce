-- How every script begins: with the clock. A test sends its own with the first argument: seconds,
-- microseconds, and how many ms longer than its state a key is kept. A script whose limits are
-- constants has no other argument.
local first, extra = ARGV[1], 0
local call, sec, usec = redis.call, nil, nil
if first and #first > 20 then -- an integer has at most so many
  first, sec, usec, extra = string.match(first, '^(%+?%d+) (%d+) (%d+) (%d+)$')
else
  local t = call('TIME')
  sec, usec = t[1], t[2]
end
