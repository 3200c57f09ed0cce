-- Ban: the twin of algorithm.Ban, which bans a key by hand.
--
-- KEYS[1]  the key's state
-- ARGV     for how many microseconds
--
-- The reply is 1.

local raw, slots, beside = redis.pcall('GET', KEYS[1]), {}, {}
if type(raw) == 'string' then
  slots, beside = read(raw, {})
elseif raw then
  slots = nil
end
if not slots then
  return foreign(KEYS[1], raw)
end
beside = in_force(beside)
local last = beside.ban or {}
beside.ban = {rule = banned, time = now + (first + 0.0), used = last.used or 0.0, rest = last.rest or 0.0}
store(KEYS[1], slots, beside)
return 1
