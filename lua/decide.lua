-- judge returns what a cost meets at a key under n limits, whose rules begin at an index of ARGV: a
-- table that answer below works with. raw is the key's value, nil if it was not read yet. If it is
-- not one of ours judge returns nothing and the error to reply with.
local function judge(key, cost, from, n, raw)
  local rules, keep = new_rules(ARGV, from, n)
  local slots, base, back = {}, 0.0, false
  if keep and raw == nil then
    raw = redis.pcall('GET', key)
  end
  if raw then
    if type(raw) == 'string' then
      slots, base, back = read(raw, rules)
    end
    if type(raw) ~= 'string' or not slots then
      return nil, foreign(key, raw, cost > 0 and rules)
    end
  end
  load(slots, now)
  local found, claimed = match(slots, rules)
  return {
    key = key, raw = raw, cost = cost, rules = rules, keep = keep, slots = slots, base = base, back = back,
    found = found, claimed = claimed, fits = fits(slots, rules, found, now, math.max(cost, 1)),
  }
end

-- answer charges what was judged, if that is wanted and the cost is not 0, and returns the reply.
-- It is the value that the key has now, or for what was not charged "-", the time, and the key's
-- value: the instant of the last write, "0 0" if there is none, and the slots, each under its own
-- rule. The caller works out of them, with the Go functions, why it was refused and for how long.
-- In both, a log is shortened to what an answer needs.
local function answer(p, wanted)
  local slots, base, value = p.slots, p.base, nil
  local charged = wanted and p.cost > 0
  if charged then
    slots = charge(slots, p.rules, p.found, now, p.cost)
  end
  if charged and not p.keep then -- an unlimited charge forgets nothing
    return sec .. ' ' .. usec .. write(slots, now)
  elseif charged or p.back and p.cost > 0 then -- otherwise a wait would begin anew with each refusal
    value, base = store(p.key, slots), now
  end
  local short = not value
  for i = 1, #slots do
    local slot, r = slots[i], not charged and p.claimed[i] and p.rules[p.claimed[i]]
    if slot.rule and slot.rule.row.shorten then
      slot.log = slot.rule.row.shorten(slot, r and r.capacity or slot.used, r and math.max(p.cost, 1) or 0)
      short = true
    end
  end
  if short then
    local written = string.match(value or p.raw or '0 0', '^%d+ %d+')
    if p.back then
      written = sec .. ' ' .. usec
    end
    value = written .. write(slots, base)
  end
  if charged then
    return value
  end
  return '-' .. sec .. ' ' .. usec .. ' ' .. value
end
