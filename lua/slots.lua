-- What is done with the slots of a key, whatever their algorithms: the twin of backend/algorithm/take.go. A slot
-- is a state and the rule that it was charged under, or empty, without a rule.
--
-- The row of an algorithm has the functions of its Go twin in the same order, but fits in place of until: whether
-- that is 0. How long it is, what remains and when nothing will be in use the caller works out with the Go
-- functions, and checks the verdict by them.

-- expiry returns the instant from which a slot says nothing any more: the twin of Rule.Expiry.
local function expiry(slot)
  local r = slot.rule
  if not r then
    return 0.0
  end
  return algorithms[r.algorithm].expiry(r, slot)
end

-- load brings slots up to now, each under its own rule, and empties those that say nothing any more. It reports
-- whether the clock went back, so that one of them had to be repaired.
local function load(slots, now)
  local repaired = false
  for i = 1, #slots do
    local slot = slots[i]
    local r = slot.rule
    if r and expiry(slot) <= now then
      slots[i] = {}
    elseif r then
      repaired = algorithms[r.algorithm].age(r, slot, now) or repaired
    end
  end
  return repaired
end

-- kin reports whether two rules count in the same way over the same period.
local function kin(a, b)
  return a.algorithm == b.algorithm and a.period == b.period
end

-- match returns for each rule the index of its slot, or nil: each rule that keeps a state has at most one slot
-- with a state, and each slot at most one rule. The same numbers come first, then the same algorithm and period,
-- each at its own position before any other, and last what is at its own position.
local function match(slots, rules)
  local found, claimed, missing = {}, {}, #rules
  for pass = 1, 5 do
    for i = 1, #rules do
      local r = rules[i]
      local from, to = 1, #slots
      if pass % 2 == 1 then
        from, to = i, math.min(i, to)
      end
      for j = from, (found[i] or r.stateless) and 0 or to do
        local old = slots[j].rule
        if old and not claimed[j] and (old.text == r.text or pass > 2 and kin(old, r) or pass == 5) then
          found[i], claimed[j], missing = j, true, missing - 1
          break
        end
      end
    end
    if missing == 0 then
      break
    end
  end
  return found
end

-- fits reports whether cost can be charged to all rules now: whether each would wait for 0 microseconds.
local function fits(slots, rules, found, now, cost)
  for i = 1, #rules do
    local r, slot = rules[i], found[i] and slots[found[i]]
    if r.text == '0' or r.capacity and cost > r.capacity then
      return false
    elseif slot and not algorithms[slot.rule.algorithm].fits(slot.rule, slot, now, r.capacity - cost) then
      return false
    end
  end
  return true
end

-- charge returns the slots of a key after cost, which fits, was charged to all rules: one for each rule. A state
-- of other numbers is carried over first; of one of another algorithm the units in use are, as if they were
-- charged now.
local function charge(slots, rules, found, now, cost)
  local charged = {}
  for i = 1, #rules do
    local r, slot = rules[i], found[i] and slots[found[i]] or {}
    charged[i] = {}
    if not r.stateless then
      local algorithm, old, units = algorithms[r.algorithm], slot.rule, cost
      if not old or old.algorithm ~= r.algorithm then
        units = cost + (old and algorithms[old.algorithm].used(old, slot, now) or 0)
        slot = {time = now, used = 0.0, rest = 0.0, log = ''}
      elseif old.text ~= r.text then
        algorithm.carry(r, slot, now, old)
      end
      slot.rule = r
      algorithm.charge(r, slot, now, units)
      charged[i] = slot
    end
  end
  return charged
end

-- refund gives cost, charged at an instant, back to the slots of rules, each under its own rule, and reports
-- whether there was anything. A slot of another algorithm than the rule's gives nothing back.
local function refund(slots, rules, found, now, charged, cost)
  local given = false
  for i = 1, #rules do
    local slot = found[i] and slots[found[i]]
    if slot and slot.rule.algorithm == rules[i].algorithm then
      given = algorithms[slot.rule.algorithm].refund(slot.rule, slot, now, charged, cost) or given
    end
  end
  return given
end
