-- What is done with the slots of a key, whatever their algorithms: the twin of
-- backend/algorithm/take.go. A slot is a state and the rule that it was charged under, or empty,
-- without a rule.
--
-- The row of an algorithm has the functions of its Go twin in the same order, but until and reset.
-- With the Go functions the caller works out how long a cost has to wait, what remains and when
-- nothing will be in use, and checks the verdict. Here it is enough to know what is in use now.

-- rows has the rows that were made. Making one takes longer than what it is asked for.
local rows = {}

row = function(letter)
  local made = rows[letter]
  if not made then
    if letter == '' then
      made = token_bucket()
    elseif letter == 's' then
      made = sliding_window()
    elseif letter == 'l' then
      made = sliding_log()
    elseif letter == 'c' then
      made = calendar_window()
    elseif letter == 'h' then
      made = concurrency()
    else
      made = fixed_window()
    end
    rows[letter] = made
  end
  return made
end

-- expiry returns the instant from which a slot says nothing any more: the twin of Rule.Expiry.
local function expiry(slot)
  local r = slot.rule
  return r and r.row.expiry(r, slot) or 0.0
end

-- load brings slots up to now, each under its own rule. A state that says nothing any more begins
-- anew under its rule, so that its limit finds it, and not what another limit was charged.
local function load(slots, now)
  for i = 1, #slots do
    local slot = slots[i]
    local r = slot.rule
    if r and expiry(slot) <= now then
      slot.time, slot.used, slot.rest, slot.log = now, 0.0, 0.0, ''
    elseif r then
      r.row.age(r, slot, now)
    end
  end
end

-- match returns for each rule the index of its slot, or nil, and for each slot that of its rule:
-- each rule that keeps a state has at most one slot with a rule, and each slot at most one rule.
-- The same numbers come first, then the same algorithm and period, then the same period, each at
-- its own position before any other, and last what is at its own position.
local function match(slots, rules)
  local found, claimed = {}, {}
  for pass = 1, 7 do
    local missing = false
    for i = 1, #rules do
      local r = rules[i]
      local from, to = 1, #slots
      if pass % 2 == 1 then
        from, to = i, math.min(i, to)
      end
      for j = from, (found[i] or r.stateless) and 0 or to do
        local old = slots[j].rule
        if old and not claimed[j] and (old.text == r.text or pass == 7
            or pass > 2 and old.period == r.period and (pass > 4 or old.row == r.row)) then
          found[i], claimed[j] = j, i
          break
        end
      end
      missing = missing or not found[i]
    end
    if not missing then
      break
    end
  end
  return found, claimed
end

-- fits reports whether cost can be charged to all rules now: whether each would wait for 0
-- microseconds.
local function fits(slots, rules, found, now, cost)
  for i = 1, #rules do
    local r, slot = rules[i], found[i] and slots[found[i]]
    if r.text == '0' or r.capacity and cost > r.capacity then
      return false
    elseif slot and slot.rule.row.used(slot.rule, slot, now) + cost > r.capacity then
      return false
    end
  end
  return true
end

-- take_over returns a slot under a rule that keeps a state, with the units that are in use, which
-- have to fit. A state of other numbers is carried over; of one of another algorithm the units are,
-- as if they were charged now.
local function take_over(r, slot, now)
  local old = slot and slot.rule
  if not old or old.row ~= r.row then
    local units = old and old.row.used(old, slot, now) or 0
    slot = {rule = r, time = now, used = 0.0, rest = 0.0, log = ''}
    if units > 0 then
      r.row.charge(r, slot, now, units)
    end
  elseif old.text ~= r.text then
    r.row.carry(r, slot, now, old)
    slot.rule = r
  end
  return slot
end

-- charge returns the slots of a key after cost, which fits, was charged to all rules: one for each
-- rule.
local function charge(slots, rules, found, now, cost)
  local charged = {}
  for i = 1, #rules do
    local r = rules[i]
    charged[i] = {}
    if not r.stateless then
      local slot = take_over(r, found[i] and slots[found[i]], now)
      r.row.charge(r, slot, now, cost)
      charged[i] = slot
    end
  end
  return charged
end
