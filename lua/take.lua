-- Take: the twin of algorithm.Take. One call decides for all limits of a key, and charges all of
-- them or none.
--
-- KEYS[1]  the key's state
-- ARGV     the cost; each limit's rule, or "u", which is unlimited, or "0", which blocks everything;
--          and what quick.lua.tmpl asks for: the pattern of a value under these limits, and numbers
--
-- The reply is one string. If the cost was charged, it is the value that the key has now. Otherwise
-- it is "-", the time, and the key's value: the instant of the last write, "0 0" if there is none,
-- and the slots, each under its own rule. The caller works out of them, with the Go functions, why
-- it was refused and for how long. In both, a log is shortened to what an answer needs.

local cost = first + 0.0
local rules, keep = new_rules(ARGV, 2, n)
if keep and raw == nil then
  raw = redis.pcall('GET', KEYS[1])
end
local slots, base = {}, 0.0
if raw then
  if type(raw) == 'string' then
    slots, base = read(raw, rules)
  end
  if type(raw) ~= 'string' or not slots then
    return foreign(KEYS[1], raw, cost > 0 and rules)
  end
end

local repaired = load(slots, now)
local found, claimed = match(slots, rules)
local charged, value = cost > 0 and fits(slots, rules, found, now, cost), nil
if charged then
  slots = charge(slots, rules, found, now, cost)
end
if charged and not keep then -- an unlimited charge forgets nothing
  return sec .. ' ' .. usec .. write(slots, now)
elseif charged or repaired and cost > 0 then -- otherwise a wait would begin anew with each refusal
  value, base = store(KEYS[1], slots), now
end

local short = not value
for i = 1, #slots do
  local slot, r = slots[i], not charged and claimed[i] and rules[claimed[i]]
  if slot.rule and slot.rule.row.shorten then
    slot.log = slot.rule.row.shorten(slot, r and r.capacity or slot.used, r and math.max(cost, 1) or 0)
    short = true
  end
end
if short then
  value = string.match(value or raw or '0 0', '^%d+ %d+') .. write(slots, base)
end
if charged then
  return value
end
return '-' .. sec .. ' ' .. usec .. ' ' .. value
