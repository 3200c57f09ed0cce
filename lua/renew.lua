-- Renew: the twin of algorithm.Renew, which holds units of a limit of requests in flight for
-- another period.
--
-- KEYS[1]  the key's state
-- ARGV     how many units; each limit's rule, as for take.lua; and the instant of the charge in
--          microseconds
--
-- The reply is the time, which is the instant of the charge from now on.

local units, charged = first + 0.0, ARGV[#ARGV] + 0.0
local raw, rules = redis.pcall('GET', KEYS[1]), new_rules(ARGV, 2, #ARGV - 2)
local slots, beside, written = {}, {}, {}
if type(raw) == 'string' then
  slots, beside = read(raw, rules)
  written = read(raw, rules) -- what is not renewed stays as it is
elseif raw then
  slots = nil
end
if not slots then
  return foreign(KEYS[1], raw)
end
local alive = false
for i = 1, #slots do
  alive = alive or expiry(slots[i]) > now
end
if not alive then
  slots, written = {}, {}
end
load(slots, now)
for i = #slots + 1, #rules do
  slots[i], written[i] = {}, {}
end
local found = match(slots, rules)
for i = 1, #rules do
  local r, j = rules[i], found[i]
  if r.algorithm == 'h' then
    if not j and not slots[i].rule then
      j = i
      slots[j] = {rule = r, time = now, used = 0.0, rest = 0.0, log = ''}
    end
    local slot = j and slots[j]
    if slot and slot.rule.algorithm == 'h' then
      local own = slot.rule
      own.row.refund(own, slot, now, charged, units)
      local more = math.min(units, 2 * own.capacity - slot.used)
      if more > 0 then
        own.row.charge(own, slot, now, more)
      end
    end
    if slot then
      written[j] = slot
    end
  end
end
store(KEYS[1], written, beside)
return sec .. ' ' .. usec
