-- TakeAll: Take for several keys. Each is charged, or none.
--
-- KEYS  the keys' states
-- ARGV  1, or 0 to charge none whatever fits; and for each key the cost, the number of its limits, and
--       their rules, as for take.lua
--
-- The reply is a string for each key, as take.lua's is.

local parts, all, at = {}, first == '1', 2
for i = 1, #KEYS do
  local cost, n = ARGV[at] + 0.0, ARGV[at + 1] + 0
  local rules, keep = new_rules(ARGV, at + 2, n)
  local p, err = judge(KEYS[i], keep and redis.pcall('GET', KEYS[i]), cost, rules, keep)
  if not p then
    return err
  end
  parts[i], all, at = p, all and p.fits, at + 2 + n
end
local replies = {}
for i = 1, #parts do
  replies[i] = answer(parts[i], all)
end
return replies
