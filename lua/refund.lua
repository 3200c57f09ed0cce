-- Refund: the twin of algorithm.Refund.
--
-- KEYS[1]  the key's state
-- ARGV     the cost; each limit's rule, as for take.lua; and the instant of the charge, in µs
--
-- The reply is 1 if anything was given back, otherwise 0.

-- refund gives cost, charged at an instant, back to the slots of rules, each under its own rule,
-- and reports whether there was anything. A slot of another algorithm than the rule's gives nothing
-- back.
local function refund(slots, rules, found, now, charged, cost)
  local given = false
  for i = 1, #rules do
    local slot = found[i] and slots[found[i]]
    if slot and slot.rule.row == rules[i].row then
      given = slot.rule.row.refund(slot.rule, slot, now, charged, cost) or given
    end
  end
  return given
end

local raw, rules, slots = redis.pcall('GET', KEYS[1]), new_rules(ARGV, 2, #ARGV - 2), nil
if not raw then
  return 0
end
if type(raw) == 'string' then
  slots = read(raw, rules)
end
if not slots then
  return foreign(KEYS[1], raw)
end
load(slots, now)
if not refund(slots, rules, match(slots, rules), now, ARGV[#ARGV] + 0.0, first + 0.0) then
  return 0
end
store(KEYS[1], slots)
return 1
