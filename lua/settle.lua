-- Settle: the twin of algorithm.Settle.
--
-- KEYS[1]  the key's state
-- ARGV     how many units less it was, or with a "+" before them how many more; each limit's rule, as
--          for take.lua; the instant of the charge in microseconds; and how many units it holds of
--          limits of requests in flight
--
-- The reply is 1 if anything changed, "=" and the time if a calendar is not in the window that its
-- rule has, otherwise 0.

local held = ARGV[#ARGV] + 0.0

-- refund gives cost, charged at an instant, back to the slots of rules, each under its own rule,
-- and reports whether anything was given back. A slot of another algorithm than the rule's gives
-- nothing back.
local function refund(slots, rules, found, now, charged, cost)
  local given = false
  for i = 1, #rules do
    local slot = found[i] and slots[found[i]]
    local back = rules[i].algorithm == 'h' and held or cost
    if slot and back > 0 and slot.rule.row == rules[i].row then
      given = slot.rule.row.refund(slot.rule, slot, now, charged, back) or given
    end
  end
  return given
end

-- settle_up returns the slots of a key after units more were charged now, whatever is left, until
-- twice the capacity is in use: one slot for each rule. What is held is given back.
local function settle_up(slots, rules, found, now, charged_at, units)
  local charged = {}
  for i = 1, #rules do
    local r, slot = rules[i], found[i] and slots[found[i]]
    charged[i] = {}
    if r.algorithm == 'h' then
      if slot and slot.rule.row.used(slot.rule, slot, now) > 0 then
        if held > 0 and slot.rule.row == r.row then
          r.row.refund(slot.rule, slot, now, charged_at, held)
        end
        charged[i] = slot
      end
    elseif not r.stateless then
      if not slot or slot.rule.row.used(slot.rule, slot, now) <= r.capacity then
        slot = take_over(r, slot, now)
      end
      local own = slot.rule.text == r.text and r or slot.rule
      local more = math.min(units, 2 * own.capacity - own.row.used(own, slot, now))
      if more > 0 then
        own.row.charge(own, slot, now, more)
      end
      charged[i] = slot
    end
  end
  return charged
end

local more = string.sub(first, 1, 1) == '+'
local raw, charged, slots, beside = redis.pcall('GET', KEYS[1]), ARGV[#ARGV - 1] + 0.0, {}, {}
local rules, _, _, timely = new_rules(ARGV, 2, #ARGV - 3)
if not raw and not more then
  return 0
elseif more and not timely then
  return '=' .. sec .. ' ' .. usec
elseif type(raw) == 'string' then
  slots, beside = read(raw, rules)
elseif raw then
  slots = nil
end
if not slots then
  return foreign(KEYS[1], raw)
end
load(slots, now)
local found = match(slots, rules)
if more then
  slots = settle_up(slots, rules, found, now, charged, string.sub(first, 2) + 0.0)
elseif not refund(slots, rules, found, now, charged, first + 0.0) then
  return 0
end
store(KEYS[1], slots, beside)
return 1
