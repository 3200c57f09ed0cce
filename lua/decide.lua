-- judge returns what a cost meets at a key under n limits, whose rules begin at an index of ARGV: a
-- table that answer below works with. raw is the key's value, nil if it was not read yet. If it is
-- not one of ours judge returns nothing and the error to reply with.
local function judge(key, cost, from, n, raw)
  local rules, keep, ban, timely = new_rules(ARGV, from, n)
  if not timely then
    return nil, '=' .. sec .. ' ' .. usec
  end
  local slots, beside, base, back = {}, {}, 0.0, false
  if not keep and not ban then
    raw = nil
  elseif raw == nil then
    raw = redis.pcall('GET', key)
  end
  if raw then
    if type(raw) == 'string' then
      slots, beside, base, back = read(raw, rules)
    end
    if type(raw) ~= 'string' or not slots then
      return nil, foreign(key, raw, cost > 0 and rules)
    end
  end
  load(slots, now)
  local found, claimed = match(slots, rules)
  beside = in_force(beside)
  local allowed = fits(slots, rules, found, now, math.max(cost, 1))
  local free = not beside.ban or beside.ban.time <= now
  return {
    key = key, raw = raw, cost = cost, rules = rules, keep = keep, slots = slots, beside = beside, base = base, back = back,
    found = found, claimed = claimed, fits = allowed and free, counts = not allowed and free and cost > 0 and ban, ban = ban,
  }
end

-- answer charges what was judged, if that is wanted and the cost is not 0, and returns the reply.
-- For a charge the reply is the value that the key has now. Otherwise it is "-", the time, and the
-- key's value: the instant of the last write, "0 0" if there is none, and the slots, each under its
-- own rule. A refusal that counts for a ban is written, and has "!" in place of "-". From the slots
-- the caller works out, with the Go functions, why the cost was refused and for how long. In every
-- reply a log is shortened to what an answer needs.
local function answer(p, wanted)
  local slots, beside, base, value = p.slots, p.beside, p.base, nil
  local charged = wanted and p.cost > 0
  if charged then
    slots = charge(slots, p.rules, p.found, now, p.cost)
    if p.ban and p.ban.more > 0 and fits_refusals(beside, p.ban.refusals, p.ban.more) then
      count_refusals(beside, p.ban.refusals, p.ban.more)
    end
  end
  if charged and not p.keep then -- an unlimited charge forgets nothing
    return sec .. ' ' .. usec .. write(slots, {}, now)
  elseif charged then
    value, base = store(p.key, slots, beside), now
  elseif p.counts then
    refuse(beside, p.ban, 1 + p.ban.more)
    store(p.key, p.raw and read(p.raw, p.rules) or {}, beside) -- what has expired stays as good as forgotten
    base = now
  elseif p.back and p.cost > 0 then -- otherwise a wait would begin anew with each refusal
    value, base = store(p.key, slots, beside), now
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
    local last = string.match(value or p.raw or '0 0', '^%d+ %d+')
    if p.back or p.counts then
      last = sec .. ' ' .. usec
    end
    value = last .. write(slots, beside, base)
  end
  if charged then
    return value
  end
  return (p.counts and not charged and '!' or '-') .. sec .. ' ' .. usec .. ' ' .. value
end
